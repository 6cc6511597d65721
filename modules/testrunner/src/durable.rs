//! Endpoints whose receiver dies: a durable one keeps who waits for the next receiver, an ordinary one does not.

use crate::handover::rig::{EP, PUPPET_PROOF, REPLY, SECOND, exact};
use crate::lab::{Failure, Lab, Outcome, POOL, copy, equal, holds, pause, refused, sealed, works};
use crate::puppet::{Heard, Puppet};
use sila_abi::syscall::FOREVER;
use sila_abi::{Error, Op, Rights, Slot};
use sila_rt::clock::{self, MILLISECOND};
use sila_rt::op;
use sila_rt::slots::{OwnedSlot, make};

/// Flags of EndpointCreate: neither durable nor labelled.
const ORDINARY: u64 = 0;
/// Flags of EndpointCreate: durable.
const DURABLE: u64 = 1;
/// The puppets' slot for the Pool that pays for the endpoint.
const PAYER: Slot = Slot(40);

/// An endpoint that outlives its receiver, that receiver, and whatever binds the next one.
struct Served {
    proof: OwnedSlot,
    endpoint: OwnedSlot,
    server: Puppet,
    // Dropped last: it pays.
    _pool: OwnedSlot,
}

impl Served {
    fn new(lab: &Lab, flags: u64) -> Result<Self, Failure> {
        let proof = sealed(lab.data(PUPPET_PROOF)?)?;
        let pool = works("a Pool", make(|dst| op::PoolCreate(POOL, 1, 10_000, dst)))?;
        let server = Puppet::new(lab, proof.slot())?;
        server.give(&[(pool.slot(), PAYER)])?;
        works("EndpointCreate", server.invoke(PAYER, Op::EndpointCreate, &[flags, 0, EP.0.into()]))?;
        let endpoint = server.show(EP)?;
        Ok(Self { proof, endpoint, server, _pool: pool })
    }

    fn puppet(&self, lab: &Lab, rights: Rights) -> Result<Puppet, Failure> {
        let puppet = Puppet::new(lab, self.proof.slot())?;
        let end = works("a copy", copy(self.endpoint.slot(), rights | Rights::COPY))?;
        puppet.give(&[(end.slot(), EP)])?;
        Ok(puppet)
    }

    fn client(&self, lab: &Lab) -> Result<Puppet, Failure> {
        self.puppet(lab, Rights::SEND | Rights::GRANT)
    }

    /// Binds a new process, as a supervisor does.
    fn successor(&self, lab: &Lab) -> Result<Puppet, Failure> {
        let next = self.puppet(lab, Rights::RECV)?;
        refused("its receive before it is bound", next.receive(EP, REPLY), Error::NotReceiver)?;
        works("EndpointBind", op::EndpointBind(self.endpoint.slot(), next.process()))?;
        Ok(next)
    }
}

fn serves(who: &Puppet, client: &Puppet, label: u32) -> Outcome {
    let heard = works("recv", who.receive(EP, REPLY))?;
    equal("the call", heard, Heard { label, badge: 0, word: label.into() })?;
    works("the answer", who.reply(REPLY, label + 1))?;
    equal("the answer", works("the call", client.answer())?, label + 1)
}

/// A durable endpoint keeps who waits over its receiver's death; the next receiver answers them in order.
pub fn a_durable_endpoint_keeps_who_waits_for_the_next_receiver(lab: &Lab) -> Outcome {
    exact(lab, |lab| {
        let served = Served::new(lab, DURABLE)?;
        let (first, second, late) = (served.client(lab)?, served.client(lab)?, served.client(lab)?);
        first.call(EP, 1, FOREVER)?;
        second.call(EP, 2, FOREVER)?;
        served.server.kill()?;
        late.call(EP, 3, FOREVER)?;
        for client in [&first, &second, &late] {
            client.waits("a call without receiver")?;
        }
        let next = served.successor(lab)?;
        serves(&next, &first, 1)?;
        serves(&next, &second, 2)?;
        serves(&next, &late, 3)
    })
}

/// An ordinary endpoint fails who waits when its receiver dies, and who comes later at once, with `PeerDied`.
pub fn an_ordinary_endpoint_fails_who_waits(lab: &Lab) -> Outcome {
    exact(lab, |lab| {
        let served = Served::new(lab, ORDINARY)?;
        let clients = [served.client(lab)?, served.client(lab)?];
        for (client, label) in clients.iter().zip([1, 2]) {
            client.call(EP, label, FOREVER)?;
            client.waits("a call that is not received")?;
        }
        served.server.kill()?;
        for client in &clients {
            refused("a call that waited", client.answer(), Error::PeerDied)?;
        }
        let [client, _] = &clients;
        client.call(EP, 3, FOREVER)?;
        refused("a call without receiver", client.answer(), Error::PeerDied)?;
        // A new receiver serves whoever calls then.
        let next = served.successor(lab)?;
        client.call(EP, 4, FOREVER)?;
        serves(&next, client, 4)
    })
}

/// A call that was received and not answered ends with `PeerDiedDelivered` at both kinds of endpoint; the one behind it
/// in the queue waits on, or fails undelivered.
pub fn a_received_call_ends_with_its_receiver(lab: &Lab) -> Outcome {
    exact(lab, |lab| {
        for flags in [DURABLE, ORDINARY] {
            let served = Served::new(lab, flags)?;
            let (received, behind) = (served.client(lab)?, served.client(lab)?);
            received.call(EP, 1, FOREVER)?;
            equal("the call", works("recv", served.server.receive(EP, REPLY))?.label, 1)?;
            behind.call(EP, 2, FOREVER)?;
            served.server.kill()?;
            refused("the call that was received", received.answer(), Error::PeerDiedDelivered)?;
            if flags == ORDINARY {
                refused("the call behind it", behind.answer(), Error::PeerDied)?;
                continue;
            }
            behind.waits("the call behind it")?;
            let next = served.successor(lab)?;
            serves(&next, &behind, 2)?;
            // The call that was lost is made again.
            received.call(EP, 1, FOREVER)?;
            serves(&next, &received, 1)?;
        }
        Ok(())
    })
}

/// A caller that waits at a durable endpoint without receiver ends at its deadline, undelivered; the other one waits on.
pub fn a_caller_without_receiver_ends_at_its_deadline(lab: &Lab) -> Outcome {
    exact(lab, |lab| {
        let served = Served::new(lab, DURABLE)?;
        let (patient, hasty) = (served.client(lab)?, served.client(lab)?);
        let deadline = clock::after(clock::SECOND);
        hasty.call(EP, 1, deadline)?;
        patient.call(EP, 2, FOREVER)?;
        served.server.kill()?;
        hasty.waits("a call before its deadline")?;
        refused("a call after its deadline", hasty.answer(), Error::Timeout)?;
        holds("the deadline has passed", clock::now().is_some_and(|now| now >= deadline))?;
        patient.waits("a call without deadline")?;
        let next = served.successor(lab)?;
        serves(&next, &patient, 2)?;
        refused("nothing is left of the other", next.receive(EP, REPLY), Error::Timeout)
    })
}

/// A caller that dies or is overdue while its call is in the next receiver's hands gets nothing, and harms nobody.
pub fn a_caller_that_is_gone_leaves_the_queue(lab: &Lab) -> Outcome {
    exact(lab, |lab| {
        let served = Served::new(lab, DURABLE)?;
        let clients = [served.client(lab)?, served.client(lab)?, served.client(lab)?];
        let [dies, overdue, stays] = &clients;
        let deadline = clock::after(2 * clock::SECOND);
        dies.call(EP, 1, FOREVER)?;
        overdue.call(EP, 2, deadline)?;
        stays.call(EP, 3, FOREVER)?;
        served.server.kill()?;
        dies.kill()?;
        let next = served.successor(lab)?;
        equal("the first that is left", works("recv", next.receive(EP, SECOND))?.label, 2)?;
        while clock::now().is_some_and(|now| now <= deadline) {
            pause(5 * MILLISECOND);
        }
        refused("the call after its deadline", overdue.answer(), Error::Timeout)?;
        refused("the late answer", next.reply(SECOND, 9), Error::CallerGone)?;
        serves(&next, stays, 3)
    })
}

/// A supervisor binds an endpoint that has no receiver only, and a labelled one to its own service only.
pub fn a_receiver_is_bound_where_there_is_none(lab: &Lab) -> Outcome {
    exact(lab, |lab| {
        let served = Served::new(lab, DURABLE | 2)?;
        let stranger_proof = sealed(lab.data(crate::handover::rig::STRANGER_PROOF)?)?;
        let stranger = Puppet::new(lab, stranger_proof.slot())?;
        let next = served.puppet(lab, Rights::RECV)?;
        let bind = |who: &Puppet| op::EndpointBind(served.endpoint.slot(), who.process());
        refused("binding beside a receiver", bind(&next), Error::AlreadyBound)?;
        served.server.kill()?;
        refused("binding a stranger", bind(&stranger), Error::LabelMismatch)?;
        let weak = works("a copy", copy(served.endpoint.slot(), Rights::SEND | Rights::RECV))?;
        let bound = op::EndpointBind(weak.slot(), next.process());
        refused("binding without MANAGE", bound, Error::MissingRight)?;
        refused("binding the dead", bind(&served.server), Error::Dying)?;
        works("binding its own service", bind(&next))?;
        let client = served.client(lab)?;
        client.call(EP, 5, FOREVER)?;
        serves(&next, &client, 5)
    })
}
