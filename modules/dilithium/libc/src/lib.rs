//! The C types that bindings name.
#![no_std]
#![forbid(unsafe_code)]
#![allow(non_camel_case_types)]

pub use core::ffi::c_int;

/// C's `size_t`.
pub type size_t = usize;
