//! ModuleManager: loads, starts and stops verified modules.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
