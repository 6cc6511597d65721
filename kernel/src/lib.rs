//! The SILA capability microkernel: a pure, host-testable core and the x86_64 edge.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
