//! Hashing, signature verification and (host only) signing for SILA: one place, one API.
//!
//! - [`hash`]: the id hash (SHA3-256) and the bulk hash (TurboSHAKE).
//! - `ml_dsa_87`: the verification of ML-DSA-87.
//! - [`scheme`]: signature schemes, decoded keys, domains.
//! - [`chain`]: the chain from the root set to a verified manifest and binary. ModuleManager, the kernel and
//!   the host tool all use these same functions.
//! - [`keystore`]: the plain list of keys, revocations and floors that the chain asks.
//! - [`secure_bool`]: security decisions that survive a flipped bit by denying.
//! - `sign` (feature `std`): key generation and signing.
//! - `dilithium5` (feature of that name): a second scheme, in C. Never in the kernel.
//!
//! No assembly, no run-time CPU detection and no floating point: all of it runs in ring 0 on the soft-float
//! target. Verification takes no heap and about 20 KiB of stack; a decoded ML-DSA-87 key holds 64 KiB of its owner's heap.
#![cfg_attr(not(any(test, feature = "std")), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod chain;
#[cfg(feature = "dilithium5")]
pub mod dilithium5;
pub mod hash;
pub mod keystore;
mod ml_dsa_87;
pub mod scheme;
pub mod secure_bool;
#[cfg(feature = "std")]
pub mod sign;

pub use chain::{ChainError, Verified};
pub use secure_bool::SecureBool;
