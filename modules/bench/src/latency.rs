//! Dispatch latency: how long after a timer's expiry the thread of highest priority executes its first instruction,
//! while a thread of low priority makes the kernel work.

use crate::bench::{Client, Reason, describe, report};
use crate::making;
use alloc::format;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};
use sila_abi::Slot;
use sila_abi::protocol::layout::{OWN_POOL, OWN_THREAD};
use sila_abi::syscall::{Call, Tag};
use sila_rt::raw::{Registers, time_stamp};
use sila_rt::{clock, hostile, op, thread};

/// What the worker keeps the kernel busy with.
const LOADS: [(&str, u32); 4] = [
    ("dispatch_latency_verify", 1),
    ("dispatch_latency_zero", 2),
    ("dispatch_latency_revoke", 3),
    ("dispatch_latency_terminate", TERMINATE),
];
const TERMINATE: u32 = 4;
/// Processes that are ended to measure what that keeps from running.
const ENDED: usize = 40;
/// Samples of each.
const N: usize = 300;
/// The worker's priority.
const LOW: u64 = 20;
/// Nobody signals this one.
const SILENT: Slot = Slot(47);
/// Wakes the worker.
const WORK: Slot = Slot(48);

static LOAD: AtomicU32 = AtomicU32::new(0);
static ROUNDS: AtomicU32 = AtomicU32::new(0);

/// The same instants in every run.
struct Random(u64);

impl Random {
    fn new() -> Self {
        Random(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end.max(1)
    }
}

/// Measures and reports; true if something failed.
pub fn measure(client: &'static Client) -> bool {
    match start(client) {
        Ok(()) => {}
        Err(error) => {
            report(&format!("bench fail dispatch_latency {}", describe(&error)));
            return true;
        }
    }
    let mut failed = false;
    let mut all = Vec::new();
    for (name, load) in LOADS {
        let samples = if load == TERMINATE { terminating(client) } else { under(load) };
        if let Ok(samples) = &samples {
            all.extend_from_slice(samples);
        }
        failed |= client.report(name, samples);
    }
    failed | client.report("dispatch_latency", Ok(all))
}

fn start(client: &'static Client) -> Result<(), Reason> {
    op::NotificationCreate(OWN_POOL, SILENT)?;
    op::NotificationCreate(OWN_POOL, WORK)?;
    let worker = thread::spawn(16, move || work(client))?;
    op::ThreadSetPriority(worker.slot(), LOW)?;
    op::ThreadSetPriority(OWN_THREAD, 120).map(|_| ())
}

fn under(load: u32) -> Result<Vec<u64>, Reason> {
    let before = ROUNDS.load(Ordering::Relaxed);
    LOAD.store(load, Ordering::Relaxed);
    op::Signal(WORK, 1)?;
    let mut random = Random::new();
    let mut samples = Vec::with_capacity(N);
    for _ in 0..N {
        samples.push(sample(200 * clock::MICROSECOND + random.below(20 * clock::MILLISECOND))?);
    }
    LOAD.store(0, Ordering::Relaxed);
    // The worker ends what it is at, so that the next load begins from nothing.
    let _ = sila_rt::ipc::wait(SILENT, clock::after(5 * clock::SECOND));
    if ROUNDS.load(Ordering::Relaxed) == before {
        return Err(sila_abi::Error::Timeout.into());
    }
    Ok(samples)
}

/// The end of a process is short: each one is met on purpose.
fn terminating(client: &Client) -> Result<Vec<u64>, Reason> {
    making::create_process(client)?;
    let span = making::end_process()?;
    let mut random = Random::new();
    let mut samples = Vec::with_capacity(ENDED);
    for _ in 0..ENDED {
        making::create_process(client)?;
        LOAD.store(TERMINATE, Ordering::Relaxed);
        op::Signal(WORK, 1)?;
        samples.push(sample(random.below(span + 20 * clock::MICROSECOND))?);
        let _ = sila_rt::ipc::wait(SILENT, clock::after(clock::SECOND));
    }
    Ok(samples)
}

/// Waits for a moment and sees how late it is. One nanosecond is one tick; the clock is read some instructions after
/// `here`, which adds at most one reading of the clock to the result.
fn sample(wait: u64) -> Result<u64, Reason> {
    let here = time_stamp();
    let now = clock::now().ok_or(sila_abi::Error::NoCapability)?;
    let mut registers = [Registers {
        rax: Tag::new(Call::Recv, 0, 0, 0).0,
        rdi: SILENT.0.into(),
        r14: now.saturating_add(wait),
        ..Registers::default()
    }];
    hostile::timed(&mut registers);
    Ok(time_stamp().wrapping_sub(here).saturating_sub(wait))
}

fn work(client: &Client) {
    loop {
        let load = LOAD.load(Ordering::Relaxed);
        let done = match load {
            0 => sila_rt::ipc::wait(WORK, sila_abi::syscall::FOREVER),
            1 => making::create_process(client).and_then(|_| making::end_process()),
            2 => making::large_region(),
            3 => making::revoke(),
            _ => {
                LOAD.store(0, Ordering::Relaxed);
                making::end_process()
            }
        };
        if let Err(error) = done {
            report(&format!("bench fail dispatch_latency load {load}: {}", describe(&error)));
            LOAD.store(0, Ordering::Relaxed);
        }
        if load != 0 {
            ROUNDS.fetch_add(1, Ordering::Relaxed);
        }
    }
}
