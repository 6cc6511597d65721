//! Why a system call failed.

use core::fmt;
use sila_abi::Error;

/// The kernel's error and the details that came with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CallError {
    /// The reason.
    pub error: Error,
    /// What the error's description says of its words; 0 elsewhere.
    pub words: [u64; 6],
}

impl CallError {
    /// An error without details.
    pub const fn new(error: Error) -> Self {
        CallError { error, words: [0; 6] }
    }
}

impl From<Error> for CallError {
    fn from(error: Error) -> Self {
        CallError::new(error)
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.error, f)
    }
}

impl core::error::Error for CallError {}
