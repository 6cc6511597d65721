//! The SILA capability microkernel: a pure, host-testable core and the x86_64 edge.
//!
//! Everything in this library is plain data and logic over the [`machine::Machine`] trait: no hardware,
//! no unsafe code. The binary beside it (`main.rs`, `arch/`) joins it to x86_64.
#![cfg_attr(not(any(test, feature = "sim")), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod acpi;
pub mod arena;
pub mod audit;
pub mod boot;
pub mod budget;
pub mod cache;
pub mod calibrate;
pub mod cap;
pub mod contract;
pub mod cpu;
pub mod create;
mod cspace;
pub mod device_table;
mod devices;
pub mod embryo;
pub mod endow;
pub mod entry;
mod failing;
pub mod fast;
mod fault;
pub mod frames;
pub mod handover;
pub mod interrupts;
mod introspect;
pub mod invariants;
mod invoke;
mod ipc;
pub mod journal;
pub mod kernel;
pub mod keyring;
pub mod log;
pub mod machine;
mod memory;
pub mod mint;
mod notification;
pub mod objects;
pub mod paging;
pub mod pci;
mod process;
pub mod queue;
mod rate;
mod recharge;
mod sched;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
#[cfg(any(test, feature = "sim"))]
pub mod sim_config;
mod status;
mod tasks;
#[cfg(test)]
mod tests;
mod thread;
pub mod trace;
pub mod verify;

pub use kernel::{Capacities, Kernel};

/// The second scheme is unmaintained C: it has no place in ring 0.
const _: () = assert!(!sila_crypto::scheme::CONTAINS_C, "the kernel is built without the feature dilithium5");
