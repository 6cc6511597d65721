//! ServiceRegistry: names of services and their labelled endpoints.
//!
//! [`registry`] is the whole decision logic as a pure state machine: events in, answers out, no input or output. The
//! binary beside this library carries the answers out and keeps the capabilities, each under the number of its place.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod registry;
