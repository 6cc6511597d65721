//! User-space runtime: entry, system calls, heap, IPC stubs, couriers, lifecycle.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
