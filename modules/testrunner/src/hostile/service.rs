//! A ModuleManager that gives a service's receiving side to itself or to another module, or moves a label.

use crate::handover::rig::{EP, PUPPET_PROOF, REPLY, STRANGER_PROOF};
use crate::lab::{Failure, JOB, Lab, Outcome, POOL, copy, create, equal, holds, refused, sealed, works};
use crate::puppet::Puppet;
use sila_abi::protocol::layout::{OWN_POOL, OWN_PROCESS};
use sila_abi::syscall::{FOREVER, NO_WAIT};
use sila_abi::{Error, Op, Rights};
use sila_rt::ipc;
use sila_rt::op;
use sila_rt::slots::{OwnedSlot, make};
use sila_rt::system::endpoint_label;

/// A service, and every right to its endpoint: more than any ModuleManager ever gets.
struct Service {
    server: Puppet,
    endpoint: OwnedSlot,
}

/// Durable, with the label of the service.
const DURABLE_LABELLED: u64 = 1 | 2;

impl Service {
    fn new(lab: &Lab) -> Result<Self, Failure> {
        let server = puppet(lab, PUPPET_PROOF)?;
        let args = [DURABLE_LABELLED, 0, EP.0.into()];
        works("EndpointCreate by a service", server.invoke(OWN_POOL, Op::EndpointCreate, &args))?;
        // What it made is paid by its own Pool; somebody else pays for what outlives it.
        let endpoint = server.show(EP)?;
        works("ChargeTransfer", op::ChargeTransfer(endpoint.slot(), POOL))?;
        Ok(Self { server, endpoint })
    }
}

fn puppet(lab: &Lab, proof: &str) -> Result<Puppet, Failure> {
    Puppet::new(lab, sealed(lab.data(proof)?)?.slot())
}

/// The endpoint's label.
fn label(endpoint: &OwnedSlot) -> Result<(alloc::string::String, alloc::string::String), Failure> {
    let label = works("EndpointLabel", endpoint_label(endpoint.slot()))?;
    let label = label.ok_or_else(|| Failure::new("the endpoint's label", "one", "none"))?;
    Ok((label.publisher.as_str().into(), label.name.as_str().into()))
}

pub fn a_manager_receives_for_no_service(lab: &Lab) -> Outcome {
    let service = Service::new(lab)?;
    let endpoint = service.endpoint.slot();
    let receive = || ipc::recv(endpoint, 0, NO_WAIT);
    refused("receiving beside the service", receive(), Error::NotReceiver)?;
    refused("binding itself beside it", op::EndpointBind(endpoint, OWN_PROCESS), Error::AlreadyBound)?;
    service.server.kill()?;
    refused("binding itself after its end", op::EndpointBind(endpoint, OWN_PROCESS), Error::LabelMismatch)?;
    refused("receiving after its end", receive(), Error::NotReceiver)
}

pub fn a_manager_lets_no_other_module_receive_for_a_service(lab: &Lab) -> Outcome {
    let service = Service::new(lab)?;
    let endpoint = service.endpoint.slot();
    let stranger = puppet(lab, STRANGER_PROOF)?;
    let receive = works("a copy", copy(endpoint, Rights::RECV | Rights::COPY))?;
    stranger.give(&[(receive.slot(), EP)])?;
    refused("its receiving", stranger.receive(EP, REPLY), Error::NotReceiver)?;
    refused("binding it", op::EndpointBind(endpoint, stranger.process()), Error::AlreadyBound)?;
    service.server.kill()?;
    refused("binding it then", op::EndpointBind(endpoint, stranger.process()), Error::LabelMismatch)?;
    refused("its receiving then", stranger.receive(EP, REPLY), Error::NotReceiver)?;
    // Not even as a grant of its creation: the request is for sending, and what it gets can't receive.
    let unstarted = create(lab.image(), lab.proof(), POOL, 90, &[(probe::REQUEST_COMMAND, endpoint)]);
    let unstarted = works("ProcessCreate", unstarted)?;
    let bound = op::EndpointBind(endpoint, unstarted.slot());
    refused("binding what it was granted to", bound, Error::LabelMismatch)?;
    works("ending it", op::ProcessTerminate(unstarted.slot(), 0))?;
    // The next one of the service itself may.
    let next = puppet(lab, PUPPET_PROOF)?;
    works("binding the service's own", op::EndpointBind(endpoint, next.process())).map(|_| ())
}

pub fn a_manager_moves_no_label(lab: &Lab) -> Outcome {
    let service = Service::new(lab)?;
    let before = label(&service.endpoint)?;
    equal("the label", (before.0.as_str(), before.1.as_str()), ("sila", "puppet"))?;
    // What it makes itself carries its own, and no other.
    let own = works("EndpointCreate", make(|dst| op::EndpointCreate(OWN_POOL, 2, 0, dst)))?;
    equal("the label of its own", label(&own)?.1.as_str(), "testrunner")?;
    let plain = works("EndpointCreate", make(|dst| op::EndpointCreate(OWN_POOL, 0, 0, dst)))?;
    let none = works("EndpointLabel", endpoint_label(plain.slot()))?;
    holds("an endpoint made without a label has none", none.is_none())?;
    let odd = make(|dst| op::EndpointCreate(OWN_POOL, 4, 0, dst));
    refused("another kind of label", odd, Error::InvalidArgument)?;
    // An update moves a service to its own next version only.
    let stranger = puppet(lab, STRANGER_PROOF)?;
    let handover = works("HandoverCreate", make(|dst| op::HandoverCreate(POOL, JOB, FOREVER, dst)))?;
    let pool = works("PoolCreate", make(|dst| op::PoolCreate(POOL, 64, 20_000, dst)))?;
    let add = |to| {
        op::HandoverAdd(handover.slot(), service.endpoint.slot(), service.server.process(), to, pool.slot())
    };
    refused("an update to another module", add(stranger.process()), Error::LabelMismatch)?;
    refused("an update to itself", add(OWN_PROCESS), Error::LabelMismatch)?;
    works("an update to the next version", add(puppet(lab, PUPPET_PROOF)?.process()))?;
    works("HandoverAbort", op::HandoverAbort(handover.slot()))?;
    equal("the label afterwards", label(&service.endpoint)?, before)
}
