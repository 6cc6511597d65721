//! Endpoints, notifications, verifications, and what is marked to be attended to.

use sila_abi::ObjectType;

use super::{Broken, Rule, Scratch, demand, live_process};
use crate::kernel::{Attention, Kernel};
use crate::objects::{Endpoint, EndpointId, ProcessState, ThreadState};

pub(super) fn check(k: &Kernel, s: &mut Scratch) -> Result<(), Broken> {
    for (id, e) in k.endpoints.iter() {
        receiver(k, id, e)?;
        rendezvous(k, id, e)?;
        demand(e.caps > 0, Rule::Kept, ObjectType::Endpoint as u64, id.index().into())?;
    }
    notifications(k)?;
    bound(k)?;
    verifying(k, s)?;
    replies(k, s)?;
    attention(k)
}

fn receiver(k: &Kernel, id: EndpointId, e: &Endpoint) -> Result<(), Broken> {
    let Some(process) = e.receiver else { return Ok(()) };
    let Some(p) = live_process(k, process) else { return demand(false, Rule::Receiver, id.index(), 0) };
    let passed = p.state == ProcessState::Ended
        || (p.state == ProcessState::Dying && id.index() < p.end.endpoints.min(k.endpoints.capacity()));
    demand(!passed, Rule::Receiver, id.index(), 1)?;
    let declared = e.label.is_none_or(|label| {
        let service = p.identity.service.map(|service| service.name);
        label.publisher == p.identity.publisher && service == Some(label.name)
    });
    demand(declared, Rule::Receiver, id.index(), 2)
}

fn rendezvous(k: &Kernel, id: EndpointId, e: &Endpoint) -> Result<(), Broken> {
    let (sends, receives) = (e.senders.ends().0.is_some(), e.receivers.ends().0.is_some());
    let alone = !(sends && receives);
    let hopeful = !sends || e.receiver.is_some() || e.durable || e.shut.is_some();
    demand(alone && hopeful, Rule::Rendezvous, id.index(), 0)?;
    let waiting = k.threads.iter().filter(|(_, t)| t.state == ThreadState::Receiving { endpoint: id });
    let own = waiting.into_iter().all(|(_, t)| e.receiver == Some(t.process));
    demand(own, Rule::Rendezvous, id.index(), 1)
}

fn notifications(k: &Kernel) -> Result<(), Broken> {
    for (id, n) in k.notifications.iter() {
        let taken = |t: &crate::objects::Thread| {
            t.bound == Some(id) && matches!(t.state, ThreadState::Receiving { .. })
        };
        let waits =
            n.waiters.ends().0.is_some() || n.bound.and_then(|bound| k.threads.get(bound)).is_some_and(taken);
        demand(n.flags == 0 || !waits, Rule::Signalled, id.index(), n.flags)?;
        demand(n.caps > 0, Rule::Kept, ObjectType::Notification as u64, id.index().into())?;
    }
    Ok(())
}

fn bound(k: &Kernel) -> Result<(), Broken> {
    for (id, n) in k.notifications.iter() {
        let mutual = n.bound.is_none_or(|t| k.threads.get(t).is_some_and(|t| t.bound == Some(id)));
        demand(mutual, Rule::Bound, id.index(), 0)?;
    }
    for (id, t) in k.threads.iter() {
        let mutual = t.bound.is_none_or(|n| k.notifications.get(n).is_some_and(|n| n.bound == Some(id)));
        demand(mutual, Rule::Bound, id.index(), 1)?;
    }
    Ok(())
}

fn verifying(k: &Kernel, s: &mut Scratch) -> Result<(), Broken> {
    demand(k.verifier.record_is_where_it_should(), Rule::Verifying, u32::MAX, 0)?;
    for (id, _) in k.processes.iter().filter(|(_, p)| p.state == ProcessState::Embryo) {
        demand(k.verifier.embryos().any(|embryo| embryo == id), Rule::Verifying, id.index(), 3)?;
    }
    let nobodys = k.verifier.waiting().iter().any(|request| request.thread.is_none());
    demand(!nobodys, Rule::Verifying, u32::MAX, 1)?;
    for thread in k.verifier.requests().filter_map(|request| request.thread) {
        let waits = k.threads.get(thread).is_some_and(|t| t.state == ThreadState::Verifying);
        demand(waits, Rule::Verifying, thread.index(), 2)?;
        if let Some(used) = s.threads.get_mut(thread.index() as usize) {
            used.requests = used.requests.saturating_add(1);
        }
    }
    for (id, t) in k.threads.iter().filter(|(_, t)| t.state == ThreadState::Verifying) {
        let one = s.threads.get(id.index() as usize).is_some_and(|used| used.requests == 1);
        demand(one, Rule::Verifying, id.index(), t.priority.into())?;
    }
    Ok(())
}

/// Who awaits a reply can be answered, by one Reply.
fn replies(k: &Kernel, s: &Scratch) -> Result<(), Broken> {
    for (id, t) in k.threads.iter().filter(|(_, t)| t.state == ThreadState::AwaitingReply) {
        let one = s.threads.get(id.index() as usize).is_some_and(|used| used.replies == 1);
        demand(one, Rule::Reply, id.index(), t.call)?;
    }
    Ok(())
}

fn attention(k: &Kernel) -> Result<(), Broken> {
    for (waits, mark) in [
        (k.reap.is_some() || !k.dead_regions.is_empty(), Attention::REAP),
        (k.frames.quarantined() > 0, Attention::QUARANTINE),
        (!k.doomed.is_empty(), Attention::DOOMED),
        (k.grown.iter().any(Option::is_some), Attention::GROWN),
    ] {
        demand(!waits || k.attention.contains(mark), Rule::Attention, mark.bits(), 0)?;
    }
    Ok(())
}
