//! Runs the planned tests one by one, reports each, and switches the machine off.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::format;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};
use sila_abi::protocol::layout::OWN_POOL;
use sila_rt::slots::make;
use sila_rt::{clock, ipc, op, thread};
use testrunner::{Lab, PLAN, Test, planned, report, system};

sila_rt::entry!(main);

/// How long one test may take.
const LIMIT: u64 = 20 * clock::SECOND;

fn main() -> u64 {
    let failed = match Lab::open() {
        Ok(lab) => run(&lab),
        Err(failure) => {
            report(&format!("RUNNER FAILED {failure}"));
            true
        }
    };
    report("DONE");
    let _ = op::SystemPowerOff(system(), u64::from(failed));
    0
}

/// Runs the plan; true if a test failed.
fn run(lab: &Lab) -> bool {
    let plan = match lab.text(PLAN) {
        Ok(plan) => plan,
        Err(failure) => {
            report(&format!("RUNNER FAILED {failure}"));
            return true;
        }
    };
    let started = Arc::new(AtomicU64::new(clock::now().unwrap_or(0)));
    watch(Arc::clone(&started));
    if let Err(error) = testrunner::stand_in_for_the_depot() {
        report(&format!("RUNNER FAILED nobody answers for the depot: {error}"));
        return true;
    }
    let guard = testrunner::guard(lab);
    if let Err(failure) = &guard {
        report(&format!("RUNNER FAILED {failure}"));
        return true;
    }
    let mut failed = false;
    for test in planned(plan) {
        started.store(clock::now().unwrap_or(0), Ordering::Relaxed);
        failed |= match test {
            Ok(test) => !passes(test, lab),
            Err(name) => {
                report(&format!("test {name} ... FAIL there is no such test"));
                true
            }
        };
    }
    failed
}

fn passes(test: &Test, lab: &Lab) -> bool {
    report(&format!("test {} ... started", test.name));
    let started = clock::now().unwrap_or(0);
    let outcome = (test.run)(lab);
    let took = clock::now().unwrap_or(0).saturating_sub(started) / clock::MILLISECOND;
    match &outcome {
        Ok(()) => report(&format!("test {} ... PASS {took} ms", test.name)),
        Err(failure) => report(&format!("test {} ... FAIL {failure}", test.name)),
    }
    outcome.is_ok()
}

/// A thread that ends the run when a test takes too long.
fn watch(started: Arc<AtomicU64>) {
    let watcher = thread::spawn(8, move || {
        let Ok(nothing) = make(|dst| op::NotificationCreate(OWN_POOL, dst)) else { return };
        loop {
            let _ = ipc::wait(nothing.slot(), clock::after(clock::SECOND));
            let late = clock::now().unwrap_or(0).saturating_sub(started.load(Ordering::Relaxed)) > LIMIT;
            if late {
                report("HUNG the test did not end within its time limit");
                let _ = op::SystemPowerOff(system(), 1);
            }
        }
    });
    if watcher.is_err() {
        report("RUNNER FAILED no watcher thread");
    }
}
