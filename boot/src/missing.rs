//! Errors with a status of their own: something is missing on this machine (3), or the tool was used wrongly (64).
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

/// The tool was used wrongly: a file that cannot be read, or an option's value that means nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage(pub String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// The status that this tool ends with after an error; 2 is for guests only.
pub fn status(error: &anyhow::Error) -> u8 {
    if error.is::<Missing>() {
        3
    } else if error.is::<Usage>() {
        64
    } else {
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{Context, anyhow};

    #[test]
    fn each_kind_of_error_has_its_status_under_any_context() {
        assert_eq!(status(&anyhow!("a build failed")), 1);
        assert_eq!(status(&anyhow::Error::from(Missing::new("qemu", "x")).context("running")), 3);
        let unreadable = std::fs::read("/no/such").context(Usage("cannot read".into())).context("packing");
        assert_eq!(status(&unreadable.unwrap_err()), 64);
    }
}
