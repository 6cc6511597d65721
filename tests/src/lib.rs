//! The harness of the integration tests: builds the test system, boots it in QEMU, reads what it reports.
#![forbid(unsafe_code)]

pub mod bad;
pub mod image;
pub mod report;
pub mod run;
#[cfg(feature = "dilithium5")]
pub mod second;
pub mod tool;
pub mod vectors;
