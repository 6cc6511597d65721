//! What the guest says on the results channel, read into one verdict for each test.

use std::collections::BTreeMap;

/// How one test ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// An explicit PASS.
    Pass,
    /// A failure, and why.
    Fail(String),
}

/// What a run's lines say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Verdicts by name.
    pub verdicts: BTreeMap<String, Verdict>,
    /// The test that had begun and not ended.
    pub open: Option<String>,
    /// Whether the runner came to its end.
    pub done: bool,
    /// What the runner said about itself.
    pub remarks: Vec<String>,
}

impl Report {
    /// Reads the lines of the results channel.
    pub fn read<'a>(lines: impl IntoIterator<Item = &'a str>) -> Self {
        let mut report = Self::default();
        for line in lines {
            report.line(line);
        }
        report
    }

    fn line(&mut self, line: &str) {
        let said = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... "));
        match said {
            Some((name, "started")) => self.open = Some(name.into()),
            Some((name, verdict)) => {
                let verdict = match verdict.strip_prefix("FAIL ") {
                    Some(reason) => Verdict::Fail(reason.into()),
                    None if verdict == "PASS" || verdict.starts_with("PASS ") => Verdict::Pass,
                    None => Verdict::Fail(format!("an odd report: {verdict}")),
                };
                // A second verdict about one test is no pass.
                let first = self.verdicts.insert(name.into(), verdict).is_none();
                if !first {
                    let twice = Verdict::Fail("the test reported twice".into());
                    self.verdicts.insert(name.into(), twice);
                }
                self.open = None;
            }
            None if line == "DONE" => self.done = true,
            None if !line.is_empty() => self.remarks.push(line.into()),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_explicit_pass_passes() {
        let lines = [
            "test a ... started",
            "test a ... PASS 3 ms",
            "test b ... FAIL x: expected 1, got 2",
            "test c ... PASSED",
            "DONE",
        ];
        let report = Report::read(lines);
        assert_eq!(report.verdicts["a"], Verdict::Pass);
        assert_eq!(report.verdicts["b"], Verdict::Fail("x: expected 1, got 2".into()));
        assert!(matches!(&report.verdicts["c"], Verdict::Fail(_)));
        assert!(report.done && report.open.is_none());
    }

    #[test]
    fn a_test_that_began_and_said_no_more_is_open() {
        let report = Report::read(["test a ... PASS", "test b ... started", "HUNG the test did not end"]);
        assert_eq!(report.open.as_deref(), Some("b"));
        assert_eq!(report.remarks, ["HUNG the test did not end"]);
        assert!(!report.done);
    }

    #[test]
    fn two_verdicts_are_none() {
        let report = Report::read(["test a ... FAIL x", "test a ... PASS"]);
        assert!(matches!(&report.verdicts["a"], Verdict::Fail(_)));
    }
}
