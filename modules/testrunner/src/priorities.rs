//! Priorities and ceilings: of threads, of processes, of endpoints.

use crate::budgets::turns;
use crate::child::Child;
use crate::lab::{Failure, Lab, Outcome, equal, holds, pause, refused, works};
use alloc::format;
use alloc::vec::Vec;
use probe::{Act, REPORT};
use sila_abi::protocol::layout::{OWN_POOL, OWN_PROCESS, OWN_THREAD};
use sila_abi::{Error, Rights};
use sila_rt::clock::MILLISECOND;
use sila_rt::ipc::{self, Message, Received};
use sila_rt::slots::{OwnedSlot, make};
use sila_rt::{clock, hostile, op};

/// The ceiling of the runner's process.
const CEILING: u64 = 120;

fn own_priorities() -> Result<(u64, u64), Failure> {
    let words = works("ThreadStatus", op::ThreadStatus(OWN_THREAD))?.words;
    Ok((words[1], words[2]))
}

pub fn every_priority_up_to_the_ceiling_can_be_had(_: &Lab) -> Outcome {
    let (own, _) = own_priorities()?;
    let tried = (0..=CEILING).try_for_each(|priority| {
        works("ThreadSetPriority", op::ThreadSetPriority(OWN_THREAD, priority))?;
        equal("own and effective priority", own_priorities()?, (priority, priority))
    });
    works("the own priority again", op::ThreadSetPriority(OWN_THREAD, own))?;
    tried?;
    for priority in CEILING + 1..=255 {
        refused("above it", op::ThreadSetPriority(OWN_THREAD, priority), Error::PriorityTooHigh)?;
    }
    for priority in [256, 1 << 32, u64::MAX] {
        refused("no priority", op::ThreadSetPriority(OWN_THREAD, priority), Error::InvalidArgument)?;
    }
    equal("the priority after refusals", own_priorities()?, (own, own))
}

pub fn no_thread_or_endpoint_is_made_above_the_ceiling(_: &Lab) -> Outcome {
    for priority in [CEILING + 1, 255] {
        let thread = make(|dst| {
            let words = [0x10_0000, 0x20_0000, 0, priority, 0, dst.0.into()];
            hostile::invoke(OWN_PROCESS, sila_abi::Op::ThreadCreate, &words)
        });
        refused(&format!("a thread of priority {priority}"), thread, Error::PriorityTooHigh)?;
        let endpoint = make(|dst| op::EndpointCreate(OWN_POOL, 0, priority, dst));
        refused(&format!("an endpoint of ceiling {priority}"), endpoint, Error::PriorityTooHigh)?;
    }
    works("an endpoint of the ceiling", make(|dst| op::EndpointCreate(OWN_POOL, 0, CEILING, dst))).map(|_| ())
}

/// A server of a priority, with its endpoint of a ceiling.
fn server(lab: &Lab, priority: u64, ceiling: u64) -> Result<(Child, OwnedSlot), Failure> {
    let child = lab.child_at(priority)?;
    child.start(Act::Priorities, &[ceiling], &[])?;
    let (_, mut caps) = child.report(1)?;
    let service = caps.take(0).ok_or_else(|| Failure::new("the service", "its capability", "none"))?;
    Ok((child, service))
}

pub fn a_receiver_runs_at_the_highest_of_its_own_the_ceiling_and_the_callers_priority(lab: &Lab) -> Outcome {
    let (runner, _) = own_priorities()?;
    // Own priority, ceiling, the caller's priority.
    for (own, ceiling, caller) in [(50, 0, 70), (50, 80, 70), (90, 10, 70), (50, 60, 40), (90, 100, 110)] {
        let (_child, service) = server(lab, own, ceiling)?;
        works("ThreadSetPriority", op::ThreadSetPriority(OWN_THREAD, caller))?;
        let call = || ipc::call(service.slot(), &Message::new(1), 0, clock::after(clock::SECOND));
        let answers = [call(), call()];
        works("the own priority again", op::ThreadSetPriority(OWN_THREAD, runner))?;
        for answer in answers {
            let answer = works("a call", answer)?.message;
            let got = (answer.word(0), answer.word(1), answer.word(2));
            let wanted = (own, own.max(ceiling).max(caller), own);
            equal("the server's own priority, that of the call, that of its receive", got, wanted)?;
        }
    }
    Ok(())
}

pub fn callers_are_received_by_priority_then_by_arrival(lab: &Lab) -> Outcome {
    let endpoint = works("EndpointCreate", make(|dst| op::EndpointCreate(OWN_POOL, 0, 0, dst)))?;
    let mut callers = Vec::new();
    for (badge, priority) in [(1, 30), (2, 20), (3, 30), (4, 40), (5, 20), (6, 40)] {
        let child = lab.child_at(priority)?;
        let rights = (Rights::SEND | Rights::COPY).bits().into();
        let send = works("CapMint", make(|dst| op::CapMint(endpoint.slot(), dst, rights, badge)))?;
        child.start(Act::Call, &[1, badge, 0], &[send.slot()])?;
        // It calls as soon as nobody else runs.
        pause(20 * MILLISECOND);
        callers.push(child);
    }
    let mut order = Vec::new();
    while order.len() < callers.len() {
        let Received::Message(incoming) =
            works("recv", ipc::recv(endpoint.slot(), 0, clock::after(clock::SECOND)))?
        else {
            return Err(Failure::new("recv", "a message", "flags"));
        };
        equal("the label", incoming.message.label, REPORT)?;
        order.push(incoming.badge);
        let echo = incoming.message.clone();
        works("reply", incoming.reply.send(&echo))?;
    }
    equal("the order of arrival within priorities", order, alloc::vec![4, 6, 1, 3, 2, 5])?;
    callers.iter().try_for_each(|child| child.exited(probe::SURVIVED))
}

pub fn equals_take_turns_of_the_same_length(lab: &Lab) -> Outcome {
    let shares = turns(lab, 3)?;
    let (least, most) = (shares.iter().min().copied(), shares.iter().max().copied());
    let fair = least.zip(most).is_some_and(|(least, most)| least > 0 && most <= 2 * least);
    holds(&format!("none of {shares:?} ns is more than twice another"), fair)
}
