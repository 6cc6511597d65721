//! Dispatch latency: how long after a timer's expiry the thread of highest priority executes its first instruction,
//! while a thread of low priority makes the kernel work.

use crate::bench::{Client, Reason, describe, report};
use crate::loads::{Helpers, LOADS, Load};
use alloc::format;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use sila_abi::protocol::layout::{OWN_POOL, OWN_THREAD};
use sila_abi::syscall::{Call, FOREVER, Tag};
use sila_abi::{Error, Slot};
use sila_rt::raw::{Registers, time_stamp};
use sila_rt::{clock, hostile, ipc, op, thread};

/// The row of all samples that count.
pub const ALL: &str = "dispatch_latency";
/// Samples of each load.
const N: usize = 300;
/// The worker's priority.
const LOW: u64 = 20;
/// The client's meanwhile: above that of everything else in the system, which has something to do now and then.
const HIGH: u64 = 255;
/// Nobody signals this one.
const SILENT: Slot = Slot(47);
/// Wakes the worker.
const WORK: Slot = Slot(48);
/// Tells that it is done.
const DONE: Slot = Slot(52);
/// How long a load may take.
const PATIENCE: u64 = 120 * clock::SECOND;

static LOAD: AtomicUsize = AtomicUsize::new(0);
static BUSY: AtomicBool = AtomicBool::new(false);

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

/// Measures what is wanted and reports; true if something failed.
pub fn measure(client: &'static Client, wanted: impl Fn(&str) -> bool) -> bool {
    let wanted = |load: &Load| wanted(load.name) || load.counts && wanted(ALL);
    if !LOADS.iter().any(wanted) {
        return false;
    }
    let mut helpers = match start(client) {
        Ok(helpers) => helpers,
        Err(error) => {
            report(&format!("bench fail {ALL} {}", describe(&error)));
            return true;
        }
    };
    let (mut failed, mut all) = (false, Vec::new());
    for (at, load) in LOADS.iter().enumerate().filter(|(_, load)| wanted(load)) {
        let samples = under(client, &mut helpers, at, load);
        if let Ok(samples) = &samples
            && load.counts
        {
            all.extend_from_slice(samples);
        }
        failed |= client.report(load.name, samples);
    }
    failed |= !all.is_empty() && client.report(ALL, Ok(all));
    // What measures from here on has the CPU for itself again.
    failed | op::ThreadSetPriority(OWN_THREAD, crate::bench::PRIORITY).is_err()
}

fn start(client: &'static Client) -> Result<Helpers, Reason> {
    for slot in [SILENT, WORK, DONE] {
        op::NotificationCreate(OWN_POOL, slot)?;
    }
    let worker = thread::spawn(16, move || work(client))?;
    op::ThreadSetPriority(worker.slot(), LOW)?;
    op::ThreadSetPriority(OWN_THREAD, HIGH)?;
    Helpers::new(client)
}

/// Samples while the worker does the load, as often as it takes.
fn under(client: &Client, helpers: &mut Helpers, at: usize, load: &Load) -> Result<Vec<u64>, Reason> {
    let mut random = Random::new();
    let mut samples = Vec::with_capacity(N);
    while samples.len() < N {
        (load.before)(client, helpers)?;
        LOAD.store(at, Ordering::Relaxed);
        BUSY.store(true, Ordering::Relaxed);
        op::Signal(WORK, 1)?;
        while samples.len() < N {
            let late = sample(random.below(load.span))?;
            // The load may have ended before the moment came.
            if !BUSY.load(Ordering::Relaxed) {
                break;
            }
            samples.push(late);
        }
        if ipc::wait(DONE, clock::after(PATIENCE))? != 1 {
            return Err(Error::InvalidOperation.into());
        }
        (load.after)()?;
    }
    Ok(samples)
}

/// Waits for a moment and sees how late it is. One nanosecond is one tick; the clock is read some instructions after
/// `here`, which adds at most one reading of the clock to the result.
fn sample(wait: u64) -> Result<u64, Reason> {
    let here = time_stamp();
    let now = clock::now().ok_or(Error::NoCapability)?;
    let mut registers = [Registers {
        rax: Tag::new(Call::Recv, 0, 0, 0).0,
        rdi: SILENT.0.into(),
        r14: now.saturating_add(wait),
        ..Registers::default()
    }];
    hostile::timed(&mut registers);
    Ok(time_stamp().wrapping_sub(here).saturating_sub(wait))
}

/// The worker: signals 1 for a load that went well, 2 for one that did not.
fn work(client: &Client) {
    loop {
        let _ = ipc::wait(WORK, FOREVER);
        let Some(load) = LOADS.get(LOAD.load(Ordering::Relaxed)) else { continue };
        let done = (load.work)(client);
        BUSY.store(false, Ordering::Relaxed);
        if let Err(error) = &done {
            report(&format!("bench fail {} {}", load.name, describe(error)));
        }
        let _ = op::Signal(DONE, if done.is_ok() { 1 } else { 2 });
    }
}
