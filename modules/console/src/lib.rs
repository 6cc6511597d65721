//! The console: a line editor on the serial port, and the commands that people type there.
//!
//! Editor, command reader and tables are pure and tested on the host; [`system`] asks the
//! kernel and the other processes, [`session`] is the loop around all of it.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod cache;
pub mod command;
pub mod demo;
pub mod depot;
pub mod devices;
pub mod editor;
pub mod render;
pub mod session;
pub mod slots;
pub mod system;
pub mod table;
pub mod trace;
pub mod trust;
