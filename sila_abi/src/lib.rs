//! The SILA contract: everything that crosses a boundary, defined once.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
