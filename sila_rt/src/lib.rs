//! The user-space runtime: how a module starts, calls the kernel, sends messages, uses memory and threads.
//!
//! `unsafe` is confined to the files that meet the kernel or raw memory: [`raw`], [`entry!`], [`op`], [`ipc`]'s
//! system call, the message page, [`memory`], [`device`], [`heap`] and [`thread`]. A program names its main with [`entry!`]:
//! the runtime brings the panic handler and the global allocator.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod cache;
pub mod clock;
pub mod courier;
#[cfg(feature = "c-alloc")]
pub mod cshim;
pub mod device;
pub mod entry;
mod error;
pub mod heap;
#[cfg(feature = "hostile")]
pub mod hostile;
pub mod ipc;
pub mod lifecycle;
mod lock;
pub mod memory;
#[cfg(feature = "no-random")]
pub mod no_random;
pub mod op;
mod page;
pub mod raw;
pub mod service;
pub mod slots;
mod space;
pub mod system;
mod text;
pub mod thread;
pub mod trust;
pub mod uart;

pub use error::CallError;
pub use lock::{Lock, YieldToOthers};
pub use sila_abi;
pub use space::PAGE;
pub use text::TextBuffer;
