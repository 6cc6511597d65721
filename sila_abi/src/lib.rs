//! The SILA contract: everything that crosses a boundary, defined once.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod boot;
pub mod contract;
pub mod device;
pub mod error;
pub mod facts;
pub mod handover;
pub mod manifest;
pub mod object;
pub mod ops;
pub mod package;
pub mod policy;
pub mod protocol;
pub mod record;
pub mod refusals;
pub mod rights;
pub mod sif;
pub mod status;
pub mod syscall;
pub mod trace;
pub mod trust;
pub mod verify_case;

pub use error::Error;
pub use object::ObjectType;
pub use ops::Op;
pub use rights::Rights;
pub use syscall::Slot;
