//! A ServiceRegistry that answers with something else than was asked for: the client's runtime compares the label that
//! the kernel tells with the publisher and the name that it looked for.

use crate::handover::rig::PUPPET_PROOF;
use crate::lab::{Failure, HOSTILE_REGISTRY, Lab, Outcome, copy, equal, name, sealed, works};
use crate::loading::load;
use crate::puppet::Puppet;
use alloc::format;
use sila_abi::protocol::layout::{CLOCK, OWN_POOL};
use sila_abi::protocol::registry::{LOOKUP, RegistryError};
use sila_abi::protocol::wire::{NAME_WORDS, OK, name_at, name_words, put};
use sila_abi::{Error, Op, Rights, Slot};
use sila_rt::clock::{self, SECOND};
use sila_rt::ipc::{self, Incoming, Message, Received};
use sila_rt::service::{Found, ServiceError, lookup, lookup_with};
use sila_rt::slots::{OwnedSlot, make};
use sila_rt::{op, thread};

/// The registry's only answer: to whatever service it is asked for, this capability, and that it is this publisher's.
fn answer_once(publisher: &str, gives: Option<Slot>) -> Outcome {
    let mut words = [0; NAME_WORDS + 1];
    put(&mut words, 0, &name_words(&name(publisher)?));
    let answer = Message::with(OK, &words);
    let answer = gives.into_iter().fold(answer, |answer, slot| answer.cap(slot));
    let registry = thread::spawn(4, move || {
        let asked = ipc::recv(HOSTILE_REGISTRY, 0, clock::after(5 * SECOND));
        if let Ok(Received::Message(Incoming { message, reply, .. })) = asked
            && message.label == LOOKUP
            && name_at(message.words(), 0).is_some()
        {
            let _ = reply.send(&answer);
        }
    });
    works("a thread", registry).map(|_| ())
}

fn find(publisher: &str, service: &str, gives: Option<Slot>) -> Result<Result<Found, ServiceError>, Failure> {
    answer_once(publisher, gives)?;
    Ok(lookup_with(HOSTILE_REGISTRY, &name(publisher)?, &name(service)?))
}

/// The client asks for this service, and refuses what it gets.
fn refuses(publisher: &str, service: &str, gives: Option<Slot>, want: ServiceError) -> Outcome {
    match find(publisher, service, gives)? {
        Err(error) => equal(&format!("a lookup of {publisher}/{service}"), error, want),
        Ok(_) => {
            Err(Failure::new(format!("a lookup of {publisher}/{service}"), format!("{want:?}"), "success"))
        }
    }
}

const MISMATCH: ServiceError = ServiceError::Registry(Some(RegistryError::LabelMismatch));

/// A send capability as the true registry gives it.
fn true_answer(service: &str) -> Result<OwnedSlot, Failure> {
    let found = lookup(&name("sila")?, &name(service)?);
    let found = found.map_err(|error| Failure::new(service, "registered", format!("{error:?}")))?;
    Ok(found.endpoint)
}

pub fn a_registry_that_tells_the_truth_is_believed(_: &Lab) -> Outcome {
    let _counter = load("counter")?;
    let endpoint = true_answer("counter")?;
    let found = find("sila", "counter", Some(endpoint.slot()))?;
    let label = found.map_err(|error| Failure::new("a lookup", "success", format!("{error:?}")))?.label;
    equal("whose it is", (label.publisher.as_str(), label.name.as_str()), ("sila", "counter"))
}

pub fn an_endpoint_of_another_service_is_refused(_: &Lab) -> Outcome {
    let _modules = [load("counter")?, load("wasm")?];
    let wasm = true_answer("wasm")?;
    refuses("sila", "counter", Some(wasm.slot()), MISMATCH)
}

pub fn a_service_of_that_name_by_another_publisher_is_refused(_: &Lab) -> Outcome {
    let _counter = load("counter")?;
    let counter = true_answer("counter")?;
    refuses("other", "counter", Some(counter.slot()), MISMATCH)
}

/// Neither one that has no label, nor one with the registry's own: so it can't stand between client and service.
pub fn an_endpoint_of_the_registry_itself_is_refused(lab: &Lab) -> Outcome {
    for flags in [0, 2] {
        let own = works("EndpointCreate", make(|dst| op::EndpointCreate(OWN_POOL, flags, 0, dst)))?;
        refuses("sila", "counter", Some(own.slot()), MISMATCH)?;
    }
    // Nor one that it had another module make, whose manifest says what it serves.
    let puppet = Puppet::new(lab, sealed(lab.data(PUPPET_PROOF)?)?.slot())?;
    let words = puppet.invoke(OWN_POOL, Op::EndpointCreate, &[2, 0, 40]);
    works("EndpointCreate by a puppet", words)?;
    let other = puppet.show(Slot(40))?;
    refuses("sila", "counter", Some(other.slot()), MISMATCH)
}

pub fn what_is_no_endpoint_is_refused(_: &Lab) -> Outcome {
    refuses("sila", "counter", None, ServiceError::Registry(None))?;
    let clock = works("a copy", copy(CLOCK, Rights::READ | Rights::COPY))?;
    refuses("sila", "counter", Some(clock.slot()), ServiceError::Kernel(Error::WrongType.into()))
}
