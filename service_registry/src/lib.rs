//! ServiceRegistry: names of services and their labelled endpoints.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
