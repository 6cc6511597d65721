//! The driver's own dealings with the kernel: what it reports, and what it holds the kernel against.

use alloc::format;
use alloc::string::String;
use sila_abi::protocol::layout::OWN_POOL;
use sila_abi::{Op, Slot};
use sila_rt::slots::make;
use sila_rt::{CallError, clock, ipc, op, system};

/// SystemControl.
pub const SYSTEM: Slot = Slot(8);
/// TestControl.
pub const TEST: Slot = Slot(9);
/// The Job that workers are made in.
pub const JOB: Slot = Slot(10);
/// Pays for workers and all they make.
pub const POOL: Slot = Slot(11);
/// The kernel's keys.
pub const KEYS: Slot = Slot(12);
/// The kernel's policy.
pub const POLICY: Slot = Slot(16);
/// The module cache.
pub const CACHE: Slot = Slot(17);
/// The boot bundle.
pub const BUNDLE: Slot = Slot(13);
/// COM2's ports.
pub const PORTS: Slot = Slot(14);
/// COM2's interrupt.
pub const IRQ: Slot = Slot(15);

/// Why a run fails.
pub type Reason = String;

/// Names the step that a refusal belongs to.
pub fn works<T>(what: &str, result: Result<T, CallError>) -> Result<T, Reason> {
    result.map_err(|error| format!("{what}: {} {:?}", error.error.name(), error.words))
}

/// Sends a line to the results channel.
pub fn report(line: &str) {
    system::report(TEST, line);
}

/// Every invariant and every rule of the page tables holds.
pub fn check() -> Result<(), Reason> {
    let [rule, index, detail, ..] = works("TestInvariants", op::TestInvariants(TEST))?.words;
    if rule != 0 {
        return Err(format!("invariant {rule} is broken: index {index}, detail {detail}"));
    }
    let [_, rule, process, address, ..] = works("TestAudit", op::TestAudit(TEST))?.words;
    if rule != 0 {
        return Err(format!("page table rule {rule} is broken: process {process}, address {address:#x}"));
    }
    Ok(())
}

/// Free frames, object bytes, objects, capabilities, verifications held.
pub fn accounts() -> Result<[u64; 5], Reason> {
    let [a, b, c, d, e, _] = works("TestAccounting", op::TestAccounting(TEST))?.words;
    Ok([a, b, c, d, e])
}

/// Lets time pass, and others run.
pub fn nap(nanoseconds: u64) {
    let until = clock::after(nanoseconds);
    let Ok(nothing) = make(|dst| op::NotificationCreate(OWN_POOL, dst)) else { return };
    let _ = ipc::wait(nothing.slot(), until);
}
