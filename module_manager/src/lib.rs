//! ModuleManager: loads, starts and stops verified modules.
//!
//! [`manager`] is the load logic as a pure state machine, with [`stage`] its one transition table; [`catalogue`] and [`search`] find
//! packages, [`check`] verifies them by [`keys`], [`facts`] says what matters of a verified one, [`scope`] what a requester may do. The binary beside this
//! library carries the actions out. Nothing here is trusted by the kernel, which verifies for itself.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod catalogue;
pub mod check;
pub mod contract;
mod entry;
pub mod event;
pub mod facts;
pub mod keys;
pub mod manager;
pub mod scope;
pub mod search;
pub mod stage;
