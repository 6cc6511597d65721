//! The host tool as a library: building, packing, signing, imaging and running SILA.
#![forbid(unsafe_code)]

pub mod backtrace;
pub mod bare;
pub mod bench;
pub mod bench_baseline;
pub mod bench_page;
pub mod bench_profile;
pub mod bench_small;
pub mod bench_table;
pub mod bench_trace;
pub mod cc;
pub mod cli;
pub mod doctor;
pub mod flash;
#[cfg(test)]
mod flash_tests;
pub mod fuzz;
pub mod fuzz_material;
pub mod fuzz_package;
pub mod fuzz_results;
pub mod gdb;
pub mod guest;
pub mod image;
pub mod kit;
pub mod missing;
pub mod mutants;
pub mod nested;
pub mod outcome;
pub mod paths;
pub mod pkg;
pub mod progress;
pub mod push;
pub mod push_link;
pub mod qemu;
pub mod run;
pub mod screen;
pub mod screenshot;
pub mod script;
pub mod system;
pub mod toolchain;

pub use guest::{Guest, Options, RunOutcome, boot};
pub use outcome::Outcome;
