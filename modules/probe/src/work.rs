//! Acts that use the CPU and say how much of it they got.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};
use probe::{
    COMMAND, REPORT, WORK_APART, WORK_CALLING, WORK_PLAIN, WORK_RESTARTING, WORK_THREADS, WORK_YIELDING,
    WRONG,
};
use sila_abi::protocol::layout::{OWN_POOL, OWN_THREAD};
use sila_abi::syscall::{FOREVER, NO_WAIT};
use sila_rt::ipc::{self, Answer, Message, Received};
use sila_rt::raw::yield_now;
use sila_rt::slots::make;
use sila_rt::{clock, op, thread};

/// Pages of the Regions that `WORK_RESTARTING` makes.
const PAGES: u64 = 64;

/// When to work, and which gaps are somebody else's time.
#[derive(Clone, Copy)]
struct Shift {
    from: u64,
    until: u64,
    gap: u64,
}

impl Shift {
    /// Does something over and over; returns how long this thread ran.
    fn work(self, mut act: impl FnMut()) -> u64 {
        let now = || clock::now().unwrap_or(u64::MAX);
        let (mut last, mut ran) = (now(), 0u64);
        while last < self.until {
            act();
            let at = now();
            let gap = at.saturating_sub(last);
            if last >= self.from && gap < self.gap {
                ran = ran.saturating_add(gap);
            }
            last = at;
        }
        ran
    }
}

pub fn work(order: &mut Answer) -> u64 {
    let [from, until, manner, gap] = [0, 1, 2, 3].map(|at| order.message.word(at));
    let shift = Shift { from, until, gap };
    match manner {
        WORK_PLAIN => shift.work(|| {}),
        WORK_YIELDING => shift.work(yield_now),
        WORK_THREADS => in_threads(shift, 2, true),
        WORK_APART => in_threads(shift, 1, false),
        WORK_CALLING => calling(shift),
        WORK_RESTARTING => shift.work(|| {
            let _ = make(|dst| op::RegionCreate(OWN_POOL, PAGES, dst));
        }),
        _ => WRONG,
    }
}

/// Works in so many more threads, and perhaps in this one; otherwise reports the first one's capability.
fn in_threads(shift: Shift, more: u64, here: bool) -> u64 {
    let Ok(done) = make(|dst| op::NotificationCreate(OWN_POOL, dst)) else { return WRONG };
    let done = done.leak();
    let sum = Arc::new(AtomicU64::new(0));
    for number in 0..more {
        let sum = Arc::clone(&sum);
        let other = thread::spawn(2, move || {
            sum.fetch_add(shift.work(|| {}), Ordering::Relaxed);
            let _ = op::Signal(done, 1 << number);
        });
        let Ok(other) = other else { return WRONG };
        if !here && ipc::call(COMMAND, &Message::new(REPORT).cap(other.slot()), 0, FOREVER).is_err() {
            return WRONG;
        }
    }
    if here {
        sum.fetch_add(shift.work(|| {}), Ordering::Relaxed);
    }
    let mut left = (1 << more) - 1;
    while left != 0 {
        left &= !ipc::wait(done, FOREVER).unwrap_or(left);
    }
    sum.load(Ordering::Relaxed)
}

/// Calls another thread of this process, which answers.
fn calling(shift: Shift) -> u64 {
    let Ok(endpoint) = make(|dst| op::EndpointCreate(OWN_POOL, 0, 0, dst)) else { return WRONG };
    let endpoint = endpoint.leak();
    let server = thread::spawn(2, move || {
        while let Ok(Received::Message(incoming)) = ipc::recv(endpoint, 0, FOREVER) {
            let _ = incoming.reply.send(&Message::new(0));
        }
    });
    match server {
        Ok(_) => shift.work(|| {
            let _ = ipc::call(endpoint, &Message::new(1), 0, FOREVER);
        }),
        Err(_) => WRONG,
    }
}

/// The own priority and the one that this thread runs at.
fn own_priorities() -> (u64, u64) {
    op::ThreadStatus(OWN_THREAD).map_or((WRONG, WRONG), |status| (status.words[1], status.words[2]))
}

pub fn priorities(ceiling: u64) -> u64 {
    let Ok(endpoint) = make(|dst| op::EndpointCreate(OWN_POOL, 0, ceiling, dst)) else { return WRONG };
    let report = Message::new(REPORT).cap(endpoint.slot());
    if ipc::call(COMMAND, &report, 0, FOREVER).is_err() {
        return WRONG;
    }
    loop {
        // A receive that finds nothing gives a lent priority back, too.
        let nothing = ipc::recv(endpoint.slot(), 0, NO_WAIT);
        let (own, runs_at) = own_priorities();
        // If it found the next call already, that has lent its priority.
        let before = if nothing.is_ok() { own } else { runs_at };
        let received = if nothing.is_ok() { nothing } else { ipc::recv(endpoint.slot(), 0, FOREVER) };
        let Ok(Received::Message(incoming)) = received else { return WRONG };
        let (own, runs_at) = own_priorities();
        let _ = incoming.reply.send(&Message::with(0, &[own, runs_at, before]));
    }
}
