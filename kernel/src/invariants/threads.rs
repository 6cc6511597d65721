//! Threads: queues, the running one, shape, timers.

use super::{Broken, Rule, Scratch, demand};
use crate::cap::{CHUNK, CSPACE, CapId};
use crate::kernel::{Attention, Kernel, Running};
use crate::objects::{Quirks, Thread, ThreadId, ThreadState};
use crate::queue::{Alarm, Queue, ReadyQueues};

pub(super) fn check(k: &Kernel, s: &mut Scratch) -> Result<(), Broken> {
    ready(k, s, &k.ready)?;
    ready(k, s, &k.budgets.background)?;
    let (top, other, rival) = k.budgets.background.tops();
    demand(other < 0 && rival == top, Rule::ReadyMap, u8::MAX, 3)?;
    let (_, other, _) = k.ready.tops();
    let verifier = k.verification_claim().map_or(-1, i32::from).wrapping_sub(256);
    demand(other >= verifier || k.attention.contains(Attention::SCHEDULE), Rule::ReadyMap, u8::MAX, 2)?;
    for (id, e) in k.endpoints.iter() {
        queue(
            k,
            s,
            &e.senders,
            |t| matches!(t.state, ThreadState::Sending { endpoint, .. } if endpoint == id),
        )?;
        queue(k, s, &e.receivers, |t| t.state == ThreadState::Receiving { endpoint: id })?;
    }
    for (id, n) in k.notifications.iter() {
        queue(k, s, &n.waiters, |t| t.state == ThreadState::Waiting { notification: id })?;
    }
    for (id, t) in k.threads.iter() {
        let queued = s.threads.get(id.index() as usize).is_some_and(|u| u.queued == 1);
        let wanted = is_queued(t.state);
        demand(queued == wanted && t.link.is_queued() == wanted, Rule::ThreadQueue, id.index(), 1)?;
        running(k, id, t)?;
        shape(k, id, t)?;
    }
    if let Running::Thread(id) = k.running() {
        demand(k.threads.at(k.current).is_some(), Rule::Running, id.index(), 0)?;
    }
    timers(k)
}

fn is_queued(state: ThreadState) -> bool {
    match state {
        ThreadState::Ready
        | ThreadState::Sending { .. }
        | ThreadState::Receiving { .. }
        | ThreadState::Waiting { .. } => true,
        ThreadState::Inactive
        | ThreadState::Running
        | ThreadState::AwaitingReply
        | ThreadState::Verifying => false,
    }
}

/// Walks a queue whose threads must all be in this state.
fn queue(k: &Kernel, s: &mut Scratch, q: &Queue, fits: impl Fn(&Thread) -> bool) -> Result<(), Broken> {
    let (first, last) = q.ends();
    let (mut before, mut at, mut priority) = (None, first, u8::MAX);
    while let Some(index) = at {
        let Some((_, t)) = k.threads.at(index) else { return demand(false, Rule::ThreadQueue, index, 0) };
        let used = s.threads.get_mut(index as usize);
        let fresh = used.is_some_and(|u| core::mem::replace(&mut u.queued, 1) == 0);
        demand(fresh && fits(t), Rule::ThreadQueue, index, 0)?;
        let (prev, next) = t.link.neighbours();
        demand(prev == before && t.link.priority() <= priority, Rule::QueueOrder, index, 0)?;
        priority = t.link.priority();
        (before, at) = (at, next);
    }
    demand(before == last, Rule::QueueOrder, last.unwrap_or(u32::MAX), 1)
}

fn ready(k: &Kernel, s: &mut Scratch, band: &ReadyQueues) -> Result<(), Broken> {
    let mut highest = -1;
    for priority in 0..=u8::MAX {
        let (q, marked) = band.level(priority);
        demand(marked != (q.ends().0.is_none()), Rule::ReadyMap, priority, 0)?;
        if marked {
            highest = i32::from(priority);
        }
        queue(k, s, q, |t| {
            t.state == ThreadState::Ready && t.effective == priority && t.link.priority() == priority
        })?;
    }
    let (top, other, rival) = band.tops();
    demand(top == highest && rival == top.max(other), Rule::ReadyMap, u8::MAX, 1)
}

fn running(k: &Kernel, id: ThreadId, t: &Thread) -> Result<(), Broken> {
    let is = k.running() == Running::Thread(id);
    demand(is == (t.state == ThreadState::Running), Rule::Running, id.index(), 1)
}

fn shape(k: &Kernel, id: ThreadId, t: &Thread) -> Result<(), Broken> {
    let broken = |detail: u64| Broken { rule: Rule::ThreadShape, index: id.index().into(), detail };
    let (_, p) = k.processes.at(t.process.index()).ok_or(broken(2))?;
    if t.priority > p.ceiling || t.effective < t.priority {
        return Err(broken(0));
    }
    let waits = !matches!(t.state, ThreadState::Inactive | ThreadState::Ready | ThreadState::Running);
    let quirks = !t.quirks.contains(Quirks::ABSENT)
        && t.quirks.contains(Quirks::FAULTED) == t.fault.is_some()
        && t.quirks.contains(Quirks::BUILDING) == t.building.is_some()
        && (waits || !t.quirks.contains(Quirks::TIMED));
    if !quirks {
        return Err(broken(1));
    }
    let roots = p.roots.map(|r| (r.kernel.address(), r.user.address()));
    if roots != Some((t.context.root, t.context.user_root)) {
        return Err(broken(3));
    }
    if reply_slot(k, t) { Ok(()) } else { Err(broken(4)) }
}

/// A thread's place for Replies is none, or the one of the slot that it named; while it waits to receive, one that
/// its CSpace may use.
fn reply_slot(k: &Kernel, t: &Thread) -> bool {
    if t.reply_at == CapId::NOWHERE {
        return true;
    }
    let (process, slot) = (t.process.index(), usize::from(t.reply_slot));
    let place = process as usize * CSPACE + slot;
    let usable = k.caps.usable(process) >> (slot / CHUNK % 16) & 1 == 1;
    let waits = matches!(t.state, ThreadState::Receiving { .. });
    slot != 0 && slot < CSPACE && t.reply_at.number() as usize == place && (usable || !waits)
}

fn timers(k: &Kernel) -> Result<(), Broken> {
    let heap = k.timers.heap();
    let mut threads = 0;
    for (at, (deadline, alarm)) in heap.iter().enumerate() {
        let above = heap.get(at.saturating_sub(1) / 2).is_some_and(|(above, _)| above <= deadline);
        let right = k.timers.place_of(*alarm) == Some(at as u32);
        let waits = match alarm {
            Alarm::Thread(i) => {
                threads += 1;
                k.threads.at(*i).is_some_and(|(_, t)| t.quirks.contains(Quirks::TIMED))
            }
            Alarm::Notification(i) => k.notifications.at(*i).is_some(),
            Alarm::Handover(i) => k.handovers.at(*i).is_some(),
            Alarm::Budget(i) => k.processes.at(*i).is_some_and(|(_, p)| p.budget.spent),
        };
        demand(above && right && waits, Rule::Timers, at as u64, *deadline)?;
    }
    let timed = k.threads.iter().filter(|(_, t)| t.quirks.contains(Quirks::TIMED)).count();
    demand(timed == threads, Rule::Timers, u32::MAX, timed as u64)?;
    let first = heap.first().map_or(u64::MAX, |(deadline, _)| *deadline);
    demand(k.armed <= first, Rule::Timers, u32::MAX, first)
}
