//! `boot/bench-baseline.json`: figures of an earlier run, by the conditions they depend on.
use crate::bench_table::{Results, Row};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// By how many percent a figure may grow.
const TOLERANCE: u64 = 5;

/// Medians, and worst latencies, by [`crate::bench_table::Conditions::key`] and the row's name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Baseline(BTreeMap<String, BTreeMap<String, u64>>);

impl Baseline {
    /// Reads a baseline's file.
    pub fn parse(text: &str) -> Result<Self> {
        serde_json::from_str(text).context("not a baseline")
    }

    /// The file's text.
    pub fn text(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// Takes these results over. A whole run also ends what is measured no more.
    pub fn update(&mut self, key: &str, results: &Results, whole: bool) {
        let known = self.0.entry(key.to_string()).or_default();
        if whole {
            known.clear();
        }
        known.extend(results.rows.iter().map(|row| (row.name.clone(), row.counts())));
    }

    /// What became worse; `None` if nothing is known about this key. Only a whole run misses rows.
    pub fn changes(&self, key: &str, results: &Results, whole: bool) -> Option<Vec<String>> {
        let known = self.0.get(key)?;
        let mut changes = Vec::new();
        for (name, &old) in known {
            match results.rows.iter().find(|row| row.name == *name) {
                Some(row) if is_worse(row, old) => {
                    changes.push(format!("{name} went from {old} to {} instructions", row.counts()));
                }
                Some(_) => {}
                None if whole => changes.push(format!("{name} was not measured")),
                None => {}
            }
        }
        Some(changes)
    }
}

/// A worst case differs from build to build by chance: it counts beyond its limit only.
fn is_worse(row: &Row, old: u64) -> bool {
    let excused = row.is_latency() && row.limit.is_some_and(|limit| row.counts() <= limit);
    !excused && row.counts() * 100 > old * (100 + TOLERANCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: [&str; 3] =
        ["bench row null_invocation 100 228 130 200 1000", "bench row yield 1 2 3 4 5", "bench done"];

    #[test]
    fn only_growth_beyond_the_tolerance_fails_and_only_for_a_known_key() {
        let results = Results::read(LINES);
        let mut baseline = Baseline::default();
        assert_eq!(baseline.changes("a", &results, true), None);
        baseline.update("a", &results, true);
        assert_eq!(baseline.changes("a", &results, true), Some(vec![]));
        assert_eq!(baseline.changes("b", &results, true), None);
        let mut worse = results.clone();
        worse.rows[0].median = 239;
        assert_eq!(baseline.changes("a", &worse, true), Some(vec![]));
        worse.rows[0].median = 240;
        assert_eq!(baseline.changes("a", &worse, true).unwrap().len(), 1);
        worse.rows.remove(0);
        assert_eq!(baseline.changes("a", &worse, true).unwrap(), ["null_invocation was not measured"]);
        assert_eq!(baseline.changes("a", &worse, false), Some(vec![]));
        assert_eq!(Baseline::parse(&baseline.text().unwrap()).unwrap(), baseline);
    }

    #[test]
    fn a_whole_run_forgets_rows_and_part_of_one_does_not() {
        let mut baseline = Baseline::default();
        baseline.update("a", &Results::read(LINES), true);
        let fewer = Results::read(["bench row yield 1 9 3 4 5", "bench done"]);
        baseline.update("a", &fewer, false);
        assert_eq!(baseline.0["a"], BTreeMap::from([("null_invocation".into(), 228), ("yield".into(), 9)]));
        baseline.update("a", &fewer, true);
        assert_eq!(baseline.0["a"], BTreeMap::from([("yield".into(), 9)]));
    }

    #[test]
    fn a_worst_latency_counts_beyond_its_limit() {
        let worst = |most: u64| {
            Results::read([format!("bench row dispatch_latency 1 2 3 {most} 5").as_str(), "bench done"])
        };
        let mut baseline = Baseline::default();
        baseline.update("a", &worst(10_000), true);
        assert_eq!(baseline.changes("a", &worst(20_000), true).unwrap().len(), 0);
        assert_eq!(baseline.changes("a", &worst(20_001), true).unwrap().len(), 1);
        baseline.update("a", &worst(30_000), true);
        assert_eq!(baseline.changes("a", &worst(31_000), true).unwrap().len(), 0);
    }
}
