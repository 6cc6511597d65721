//! Hashing, signature verification and (host only) signing for SILA.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
