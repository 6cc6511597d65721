//! The bootable kernel: the pure core of the library on the x86_64 edge. See `arch`.
#![no_std]
#![no_main]

extern crate alloc;

mod arch;
