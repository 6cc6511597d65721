//! The one error that ends with status 3: something is missing on this machine.
use std::fmt;

/// Something the host lacks, with the command that installs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// What is missing, as a noun phrase.
    pub what: String,
    /// The command that installs it.
    pub command: String,
}

impl Missing {
    /// Names what is missing and the command that installs it.
    pub fn new(what: impl Into<String>, command: impl Into<String>) -> Self {
        Self { what: what.into(), command: command.into() }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "missing here: {}\ninstall it with:\n    {}", self.what, self.command)
    }
}

impl std::error::Error for Missing {}
