//! How a run ended, and the status the tool ends with.
use std::process::ExitStatus;

/// What the guest wrote to `isa-debug-exit`: all is well.
pub const CODE_WELL: i32 = 0x10;
/// A command or a test failed.
pub const CODE_FAILED: i32 = 0x11;
/// The kernel panicked.
pub const CODE_PANIC: i32 = 0x12;

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The guest said that all is well.
    Well,
    /// The guest said that a command or a test failed.
    Failed,
    /// The kernel panicked.
    Panicked,
    /// The guest did not report: why we think so.
    Silent(String),
}

impl Outcome {
    /// Reads the status QEMU ended with; `isa-debug-exit` makes it (code << 1) | 1.
    pub fn of_status(code: Option<i32>) -> Self {
        let status = |code: i32| (code << 1) | 1;
        match code {
            Some(code) if code == status(CODE_WELL) => Self::Well,
            Some(code) if code == status(CODE_FAILED) => Self::Failed,
            Some(code) if code == status(CODE_PANIC) => Self::Panicked,
            Some(0) => Self::Silent("the machine was reset or switched off without a report".into()),
            Some(code) => Self::Silent(format!("QEMU ended with status {code}")),
            None => Self::Silent("QEMU was killed".into()),
        }
    }

    /// The same from the standard library's type.
    pub fn of_exit(status: ExitStatus) -> Self {
        Self::of_status(status.code())
    }

    /// The status this tool ends with.
    pub fn status(&self) -> u8 {
        match self {
            Self::Well => 0,
            Self::Failed => 1,
            Self::Panicked | Self::Silent(_) => 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_codes_map_to_three_outcomes() {
        assert_eq!(Outcome::of_status(Some(33)), Outcome::Well);
        assert_eq!(Outcome::of_status(Some(35)), Outcome::Failed);
        assert_eq!(Outcome::of_status(Some(37)), Outcome::Panicked);
    }

    #[test]
    fn anything_else_is_no_report() {
        for code in [Some(0), Some(1), Some(34), Some(39), None] {
            let outcome = Outcome::of_status(code);
            assert!(matches!(outcome, Outcome::Silent(_)), "{code:?}");
            assert_eq!(outcome.status(), 2);
        }
    }

    #[test]
    fn tool_status_is_zero_one_or_two() {
        assert_eq!(Outcome::Well.status(), 0);
        assert_eq!(Outcome::Failed.status(), 1);
        assert_eq!(Outcome::Panicked.status(), 2);
    }
}
