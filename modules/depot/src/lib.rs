//! The depot: takes files that are pushed into the running system over a serial port, keeps packages for
//! ModuleManager, and hands signed records to the kernel.
//!
//! [`link`] are frames and answers, [`transfer`] the receiving end as a state machine, [`file`] tells what a file is,
//! [`store`] keeps the packages. All of it is pure; the binary beside this library has the port, the memory and the
//! kernel. Nobody believes the depot: packages are verified by who loads them, records by the kernel.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod file;
pub mod link;
pub mod store;
pub mod transfer;
