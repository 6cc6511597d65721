//! DeepCompression: bounded zstd decompression as an isolated service.
//!
//! [`engine`] decompresses exactly one frame into exactly the declared space, or says why not.
//! [`service`] is the job queue as a pure state machine: events in, actions out, no input or output.
//! The binary beside this library is a thin event loop that carries the actions out.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod engine;
pub mod frame;
pub mod service;

#[cfg(test)]
mod engine_tests;
#[cfg(test)]
mod service_tests;
