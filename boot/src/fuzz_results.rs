//! What a run of the fuzzer said.
use std::collections::BTreeMap;
use std::time::Duration;

/// Tried, succeeded.
type Count = (u64, u64);

/// Everything that a run said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Results {
    /// Calls so far, what their outcomes come to, and the nanoseconds since boot.
    pub at: Vec<(u64, String, u64)>,
    /// Operations by name.
    pub ops: BTreeMap<String, Count>,
    /// System calls by name.
    pub calls: BTreeMap<String, Count>,
    /// How often each error was seen.
    pub errors: BTreeMap<String, u64>,
    /// What the oracle of managers looked at: how often, processes, capabilities, floors that rose, labels.
    pub oracle: Option<[u64; 5]>,
    /// Whether workers were managers.
    pub manager: bool,
    /// At which call something was wrong, and what.
    pub failure: Option<(u64, String)>,
    /// Calls, digest, workers made.
    pub done: Option<(u64, String, u64)>,
}

impl Results {
    /// Reads the lines of the results channel.
    pub fn read<'a>(lines: impl IntoIterator<Item = &'a str>) -> Self {
        let mut results = Self::default();
        for line in lines {
            if let Some(rest) = line.strip_prefix("fuzz ") {
                // A line that is cut off says nothing.
                let _ = results.line(rest);
            }
        }
        results
    }

    fn line(&mut self, line: &str) -> Option<()> {
        let (kind, rest) = line.split_once(' ')?;
        let mut words = rest.split(' ');
        let mut word = || words.next();
        match kind {
            "at" => self.at.push((word()?.parse().ok()?, word()?.into(), word()?.parse().ok()?)),
            "op" | "call" => {
                let (name, count) = (word()?.into(), (word()?.parse().ok()?, word()?.parse().ok()?));
                if kind == "op" { &mut self.ops } else { &mut self.calls }.insert(name, count);
            }
            "error" => {
                self.errors.insert(word()?.into(), word()?.parse().ok()?);
            }
            "oracle" => {
                let mut number = || word()?.parse().ok();
                self.oracle = Some([number()?, number()?, number()?, number()?, number()?]);
            }
            "FAIL" => {
                let (call, reason) = rest.split_once(' ')?;
                self.failure = Some((call.parse().ok()?, reason.into()));
            }
            "done" => self.done = Some((word()?.parse().ok()?, word()?.into(), word()?.parse().ok()?)),
            _ => {}
        }
        Some(())
    }

    /// How far the run came, and its digest there.
    pub fn last(&self) -> Option<(u64, &str)> {
        self.at.last().map(|(calls, digest, _)| (*calls, digest.as_str()))
    }

    /// The first stretch at whose end two runs differ, be it in the time alone: its last call.
    pub fn first_difference(&self, other: &Self) -> Option<u64> {
        let mut both = self.at.iter().zip(&other.at);
        let apart = both.find(|(a, b)| a != b).map(|(a, _)| a.0);
        apart.or_else(|| (self.at.len() != other.at.len() || self.done != other.done).then_some(u64::MAX))
    }

    fn never(&self) -> impl Iterator<Item = &str> {
        self.ops.iter().filter(|(_, count)| count.1 == 0).map(|(name, _)| name.as_str())
    }

    /// Operations that should have succeeded in a run of this length, and never did.
    pub fn untried(&self) -> Vec<&str> {
        let thorough = self.done.as_ref().is_some_and(|(calls, ..)| *calls >= fuzz::THOROUGH);
        if self.manager {
            return if thorough { self.unmanaged() } else { Vec::new() };
        }
        let exempt = |name: &&str| fuzz::EXEMPT.iter().any(|(op, _)| op == name);
        self.never().filter(|name| thorough && !exempt(name)).collect()
    }

    /// What managers should have done, been refused or shown the oracle in a long run.
    fn unmanaged(&self) -> Vec<&str> {
        let done = |name: &&&str| self.ops.get(**name).is_some_and(|(_, done)| *done > 0);
        let undone = fuzz::MANAGED.iter().filter(|name| !done(name));
        let unseen = fuzz::REFUSED.iter().filter(|name| !self.errors.contains_key(**name));
        let looked = ["looks", "processes", "capabilities", "floors", "labels"]
            .iter()
            .zip(self.oracle.unwrap_or_default());
        let blind = looked.filter(|(_, count)| *count == 0).map(|(what, _)| what);
        undone.chain(unseen).chain(blind).copied().collect()
    }

    /// What came of it, for people.
    pub fn text(&self, seed: u64, took: Duration) -> String {
        let mut text = String::new();
        if let Some((calls, digest, workers)) = &self.done {
            let succeeded = self.ops.len() - self.never().count();
            text.push_str(&format!(
                "{calls} calls of seed {seed} in {} s, digest {digest}: {succeeded} of {} operations succeeded, \
                 {} different errors were seen, {workers} workers were made\n",
                took.as_secs(),
                self.ops.len(),
                self.errors.len()
            ));
            if let Some([looks, processes, capabilities, floors, labels]) = self.oracle {
                text.push_str(&format!(
                    "  the oracle looked {looks} times: at {capabilities} capabilities of {processes} processes, \
                     {floors} floors that rose, {labels} labels\n"
                ));
            }
            for name in self.never().filter(|_| !self.manager) {
                let reason = fuzz::EXEMPT.iter().find(|(op, _)| *op == name).map(|(_, why)| *why);
                text.push_str(&format!("  {name} never succeeded: {}\n", reason.unwrap_or("not yet")));
            }
        }
        if let Some((call, reason)) = &self.failure {
            text.push_str(&format!("seed {seed}, call {call}: {reason}\n"));
        }
        let untried = self.untried();
        if !untried.is_empty() {
            text.push_str(&format!("seed {seed}: these had to succeed: {}\n", untried.join(", ")));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: [&str; 8] = [
        "fuzz at 100000 00ff 9",
        "fuzz op CapCopy 10 4",
        "fuzz op JobNext 3 0",
        "fuzz op TestReport 3 0",
        "fuzz call Invoke 13 4",
        "fuzz error NoCapability 9",
        "fuzz done 100000 00ff 7",
        "something else",
    ];

    #[test]
    fn an_operation_that_never_succeeded_fails_a_long_run_unless_it_is_exempt() {
        let mut results = Results::read(LINES);
        assert_eq!(results.untried(), ["JobNext"]);
        let text = results.text(5, Duration::from_secs(9));
        assert!(text.contains("1 of 3 operations") && text.contains("1 different errors"), "{text}");
        assert!(text.contains("TestReport never succeeded: the results channel"), "{text}");
        assert!(text.contains("had to succeed: JobNext"), "{text}");
        results.done = Some((99_999, "00ff".into(), 7));
        assert_eq!(results.untried(), [""; 0]);
    }

    #[test]
    fn managers_must_have_tried_what_they_are_there_for() {
        let mut results =
            Results::read(["fuzz oracle 1 2 3 4 0", "fuzz error BelowFloor 3", "fuzz done 100000 00ff 7"]);
        results.manager = true;
        results.ops.insert("ProcessCreate".into(), (4, 1));
        let untried = results.untried();
        assert!(
            untried.contains(&"labels") && untried.contains(&"KeyRevoked") && untried.contains(&"RegionSeal")
        );
        assert!(
            !untried.contains(&"floors")
                && !untried.contains(&"BelowFloor")
                && !untried.contains(&"ProcessCreate")
        );
        assert!(results.text(1, Duration::ZERO).contains("3 capabilities of 2 processes"));
        results.done = Some((99_999, "00ff".into(), 7));
        assert_eq!(results.untried(), [""; 0]);
    }

    #[test]
    fn a_failure_names_seed_and_call() {
        let results = Results::read(["fuzz at 1000 aa 5", "fuzz FAIL 1234 invariant 18 is broken"]);
        assert_eq!(results.failure, Some((1234, "invariant 18 is broken".into())));
        assert!(results.text(77, Duration::ZERO).contains("seed 77, call 1234: invariant 18"));
        assert_eq!(results.done, None);
    }

    #[test]
    fn runs_that_differ_are_told_apart_where_they_do() {
        let a = Results::read(["fuzz at 1 aa 5", "fuzz at 2 bb 7", "fuzz done 2 bb 1"]);
        let b = Results::read(["fuzz at 1 aa 5", "fuzz at 2 bc 7", "fuzz done 2 bc 1"]);
        assert_eq!(a.first_difference(&a), None);
        assert_eq!(a.first_difference(&b), Some(2));
        assert_eq!(a.first_difference(&Results::read(["fuzz at 1 aa 5"])), Some(u64::MAX));
        let late = Results::read(["fuzz at 1 aa 5", "fuzz at 2 bb 8", "fuzz done 2 bb 1"]);
        assert_eq!(a.first_difference(&late), Some(2));
        assert_ne!(a, late);
    }
}
