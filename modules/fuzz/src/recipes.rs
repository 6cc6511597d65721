//! Orders that belong together: what chance alone would hardly bring about in the right sequence. Between any two of
//! them other orders come, and now and then one of them is left out.

use alloc::vec;
use alloc::vec::Vec;
use sila_abi::protocol::layout::{OWN_POOL, OWN_PROCESS, OWN_THREAD};
use sila_abi::syscall::{Call, FOREVER, NO_WAIT, Receive, Slot, Tag, pack_caps};
use sila_abi::{Op, Rights};

use crate::manage::Made;
use crate::order::Order;
use crate::random::Random;
use crate::{GIVE, HUB, IMAGE_SLOT, JOB, PROOF_SLOT, SANDBOX, TAKE};

/// What a TAKE brings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gift {
    /// What the last GIVE left.
    Given,
    /// The process of this worker, to manage.
    ProcessOf(usize),
    /// A piece of what a manager loads.
    Made(Made),
}

/// One step of a recipe.
#[derive(Clone, Debug)]
pub struct Step {
    /// Whose.
    pub worker: usize,
    /// What it is told to do.
    pub order: Order,
    /// What it gets if it is a TAKE.
    pub gifts: Vec<Gift>,
    /// The worker is ended first.
    pub end: bool,
}

/// The first slot of those that recipes use.
pub const FIRST: u16 = 40;
/// One past the last.
pub const LAST: u16 = 60;

/// Steps that are put together.
pub(crate) struct Script(pub(crate) Vec<Step>);

impl Script {
    pub(crate) fn push(&mut self, worker: usize, order: Order) -> &mut Step {
        let at = self.0.len();
        self.0.push(Step { worker, order, gifts: vec![], end: false });
        // It was pushed just now.
        &mut self.0[at]
    }

    pub(crate) fn op(&mut self, worker: usize, slot: u16, op: Op, args: &[u64]) {
        let mut words = [0; 6];
        words.iter_mut().zip(args).for_each(|(to, from)| *to = *from);
        self.push(worker, Order::invoke(slot.into(), op, words));
    }

    pub(crate) fn message(
        &mut self,
        worker: usize,
        call: Call,
        slot: u16,
        caps: &[u16],
        want: Receive,
        deadline: u64,
    ) {
        let mut order =
            Order::call(Tag::new(call, 2, caps.len() as u8, GIVE), slot.into(), [1, 2, 0, 0, 0, 0]);
        let slots = core::array::from_fn(|i| Slot(caps.get(i).copied().unwrap_or(0)));
        order.registers[8] = want.to_word();
        order.registers[9] = deadline;
        order.registers[10] = pack_caps(slots);
        self.push(worker, order);
    }

    pub(crate) fn give(&mut self, worker: usize, slot: u16) {
        self.message(worker, Call::Call, HUB.0, &[slot], Receive::default(), FOREVER);
    }

    pub(crate) fn take(&mut self, worker: usize, base: u16, gifts: &[Gift]) {
        let mut order = Order::call(Tag::new(Call::Call, 1, 0, TAKE), HUB.0.into(), [0; 6]);
        let want = Receive { reply: Slot::NONE, base: Slot(base), count: gifts.len() as u8 };
        order.registers[8] = want.to_word();
        order.registers[9] = FOREVER;
        self.push(worker, order).gifts = gifts.to_vec();
    }

    pub(crate) fn clear(&mut self, worker: usize, slots: core::ops::Range<u16>) {
        slots.for_each(|slot| self.op(worker, slot, Op::CapDelete, &[]));
    }

    pub(crate) fn end(&mut self, worker: usize) {
        self.push(worker, Order::call(Tag::new(Call::Yield, 0, 0, 0), 0, [0; 6])).end = true;
    }
}

/// A recipe for some of so many workers.
pub fn recipe(r: &mut Random, workers: usize) -> Vec<Step> {
    let first = r.below(workers as u64) as usize;
    let [a, b, m, other] = [0, 1, 2, 3].map(|i| (first + i) % workers.max(1));
    let mut s = Script(Vec::new());
    match r.below(8) {
        0..4 => handover(r, &mut s, a, b, m, other),
        4 => journal(r, &mut s, a),
        5 => orphan(&mut s, a, b),
        6 => child(r, &mut s, a),
        _ => faults(r, &mut s, a, b),
    }
    s.0
}

/// A live update from `a` to `b`, managed by `m`.
fn handover(r: &mut Random, s: &mut Script, a: usize, b: usize, m: usize, other: usize) {
    let sandbox = u64::from(SANDBOX);
    [a, b, m].into_iter().for_each(|w| s.clear(w, FIRST..FIRST + 9));
    s.op(a, SANDBOX, Op::EndpointCreate, &[3, r.below(100), 40]);
    s.give(a, 40);
    s.take(m, 41, &[Gift::Given, Gift::ProcessOf(a), Gift::ProcessOf(b), Gift::ProcessOf(other)]);
    s.op(m, 41, Op::EndpointLabel, &[]);
    s.op(m, SANDBOX, Op::HandoverCreate, &[JOB.into(), FOREVER, 45]);
    s.op(m, 45, Op::HandoverAdd, &[41, 42, 43, sandbox]);
    s.op(m, OWN_POOL.0, Op::NotificationCreate, &[46]);
    s.op(m, 45, Op::HandoverWatch, &[46, 1]);
    s.give(m, 45);
    s.take(a, 41, &[Gift::Given]);
    s.take(b, 41, &[Gift::Given]);
    s.op(a, OWN_POOL.0, Op::EndpointCreate, &[0, 0, 42]);
    s.op(a, 41, Op::HandoverDeposit, &[0, 42]);
    if r.once_in(3) {
        s.op(a, 41, Op::HandoverTake, &[0, 43]);
    }
    if r.once_in(3) {
        s.op(m, 45, Op::HandoverReplace, &[0, 44]);
    }
    s.op(m, 45, Op::HandoverClose, &[1]);
    s.op(m, 45, Op::HandoverStatus, &[]);
    let mut epoch = 1;
    if r.once_in(3) {
        s.op(if r.once_in(2) { a } else { m }, if r.once_in(2) { 41 } else { 45 }, Op::HandoverReopen, &[]);
        s.op(m, 45, Op::HandoverReopen, &[]);
        s.op(m, 45, Op::HandoverClose, &[1]);
        epoch = 2;
    }
    s.op(a, SANDBOX, Op::RegionCreate, &[2, 44]);
    s.op(a, 41, Op::HandoverExport, &[0, 7, 44]);
    s.op(a, 44, Op::RegionSeal, &[]);
    s.op(m, 45, Op::HandoverService, &[0]);
    s.op(m, JOB, Op::JobHandover, &[0, 47]);
    if r.once_in(5) {
        s.op(m, 45, Op::HandoverAbort, &[]);
        return;
    }
    s.op(m, 45, Op::HandoverCommit, &[epoch]);
    s.op(b, 41, Op::HandoverState, &[0, 42]);
    s.op(b, 41, Op::HandoverTake, &[0, 43]);
    match r.below(4) {
        0 => {}
        1 => {
            s.op(m, 45, Op::HandoverRollback, &[]);
            s.op(a, 41, Op::HandoverState, &[0, 46]);
        }
        _ => s.op(m, 45, Op::HandoverFinalise, &[]),
    }
    s.op(m, 45, Op::ChargeTransfer, &[sandbox]);
}

/// A record of calls that is filled and read.
fn journal(r: &mut Random, s: &mut Script, a: usize) {
    s.clear(a, 50..54);
    s.op(a, SANDBOX, Op::RegionCreate, &[1 + r.below(3), 50]);
    s.op(a, SANDBOX, Op::JournalCreate, &[50, 51]);
    for i in 0..r.below(12) {
        s.op(a, 51, Op::JournalAppend, &[i, 3 | 4 << 32, r.below(121) | r.below(121) << 8]);
        s.op(a, 51, Op::JournalRead, &[r.below(i + 2)]);
    }
    s.op(a, 51, Op::JournalStatus, &[]);
    s.op(a, 51, Op::ChargeTransfer, &[OWN_POOL.0.into()]);
    s.op(a, 51, Op::JournalClose, &[]);
}

/// An endpoint that outlives its receiver and gets another one.
fn orphan(s: &mut Script, a: usize, b: usize) {
    s.clear(a, 54..55);
    s.clear(b, 54..55);
    s.op(a, SANDBOX, Op::EndpointCreate, &[1, 0, 54]);
    s.give(a, 54);
    s.take(b, 54, &[Gift::Given]);
    s.message(b, Call::Send, 54, &[], Receive::default(), NO_WAIT);
    s.end(a);
    s.op(b, 54, Op::EndpointBind, &[OWN_PROCESS.0.into()]);
    s.message(b, Call::Recv, 54, &[], Receive::default(), NO_WAIT);
}

/// A process that is made, watched, started, and perhaps ended.
fn child(r: &mut Random, s: &mut Script, a: usize) {
    s.clear(a, 55..57);
    let words = [IMAGE_SLOT.into(), PROOF_SLOT.into(), SANDBOX.into(), 1 + r.below(100), 0, 55];
    s.op(a, JOB, Op::ProcessCreate, &words);
    s.op(a, OWN_POOL.0, Op::NotificationCreate, &[56]);
    s.op(a, 55, Op::ProcessWatch, &[56, 2]);
    s.op(a, 55, Op::ProcessStatus, &[]);
    s.op(a, 55, Op::ProcessStart, &[]);
    if r.once_in(2) {
        s.op(a, 55, Op::ProcessTerminate, &[3]);
    }
    s.op(a, 55, Op::ProcessStatus, &[]);
    s.message(a, Call::Recv, 56, &[], Receive::default(), NO_WAIT);
}

/// A thread whose faults somebody else handles.
fn faults(r: &mut Random, s: &mut Script, a: usize, b: usize) {
    s.clear(a, 57..60);
    s.clear(b, 57..60);
    s.op(b, OWN_POOL.0, Op::EndpointCreate, &[0, 50, 57]);
    s.give(b, 57);
    s.take(a, 57, &[Gift::Given]);
    s.op(a, OWN_THREAD.0, Op::ThreadSetFaultEndpoint, &[57]);
    let mut fault = Order::call(Tag::new(Call::Yield, 0, 0, 0), 0, [0; 6]);
    fault.act = crate::order::Act::Undefined;
    s.push(a, fault);
    let want = Receive { reply: Slot(58), ..Receive::default() };
    s.message(b, Call::Recv, 57, &[], want, NO_WAIT);
    // Word 0 ends the process or lets the thread go on, into the same fault.
    s.message(b, if r.once_in(2) { Call::Reply } else { Call::ReplyRecv }, 58, &[], want, NO_WAIT);
    s.op(b, 58, Op::CapCopy, &[59, Rights::SEND.bits().into()]);
    s.op(b, 58, Op::CapDelete, &[]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipes_stay_among_their_workers_and_slots() {
        let mut r = Random::new(4);
        for workers in 1..6 {
            for _ in 0..200 {
                let steps = recipe(&mut r, workers);
                assert!(!steps.is_empty());
                assert!(steps.iter().all(|step| step.worker < workers && step.gifts.len() <= 4));
            }
        }
    }
}
