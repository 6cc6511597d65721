//! What the benchmarks' results become: a table, JSON, a page of the book, a comparison with the baseline.
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Name, seL4's figure, what SILA may take at most. seL4 16.0.0-dev, x86_64, fast path, counted the same way.
const FIGURES: [(&str, Option<u64>, u64); 18] = [
    ("ipc_call_reply_0w", Some(405), 360),
    ("ipc_call_reply_4w", Some(447), 380),
    ("ipc_call_reply_10w", Some(1580), 520),
    ("ipc_call_reply_64w", Some(2120), 640),
    ("ipc_call_reply_120w", Some(2680), 760),
    ("ipc_cap_transfer", Some(2100), 800),
    ("null_invocation", Some(457), 140),
    ("signal_no_waiter", Some(358), 150),
    ("notify_ping_pong", Some(1990), 750),
    ("cap_copy", Some(766), 220),
    ("cap_mint", Some(816), 220),
    ("cap_delete", Some(705), 220),
    ("frame_alloc_map", Some(4470), 1100),
    ("page_unmap", Some(571), 220),
    ("fault_round_trip", Some(1303), 600),
    ("thread_create", Some(11303), 2000),
    ("thread_destroy", Some(2711), 800),
    ("dispatch_latency", None, 20_000),
];

/// By how many percent a median may grow.
const TOLERANCE: u64 = 5;

/// One row, in instructions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The operation.
    pub name: String,
    /// The least.
    pub min: u64,
    /// The median.
    pub median: u64,
    /// The 99th percentile.
    pub p99: u64,
    /// The most.
    pub max: u64,
    /// How many were measured.
    pub n: u64,
    /// seL4's figure.
    pub anchor: Option<u64>,
    /// What it may be at most; for a latency the limit of the worst case.
    pub limit: Option<u64>,
}

impl Row {
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let name = words.next()?.to_string();
        let numbers: Vec<u64> = words.map(str::parse).collect::<Result<_, _>>().ok()?;
        let [min, median, p99, max, n] = numbers.try_into().ok()?;
        let figure = FIGURES.iter().find(|figure| figure.0 == name);
        let (anchor, limit) = (figure.and_then(|f| f.1), figure.map(|f| f.2));
        Some(Self { name, min, median, p99, max, n, anchor, limit })
    }

    /// What the limit holds for.
    fn counts(&self) -> u64 {
        if self.name.starts_with("dispatch_latency") { self.max } else { self.median }
    }
}

/// What the guest said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Results {
    /// What was measured.
    pub rows: Vec<Row>,
    /// What could not be measured, and why.
    pub failures: Vec<String>,
    /// Ticks of the time-stamp counter in a thousand instructions.
    pub unit: u64,
}

impl Results {
    /// Reads the lines of the results channel.
    pub fn read<'a>(lines: impl IntoIterator<Item = &'a str>) -> Self {
        let mut results = Self::default();
        let mut done = false;
        for line in lines.into_iter().filter_map(|line| line.strip_prefix("bench ")) {
            match line.split_once(' ') {
                Some(("row", rest)) => match Row::parse(rest) {
                    Some(row) => results.rows.push(row),
                    None => results.failures.push(format!("an odd row: {rest}")),
                },
                Some(("fail", rest)) => results.failures.push(rest.to_string()),
                Some(("unit", rest)) => {
                    results.unit = rest.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0);
                }
                _ => done |= line == "done",
            }
        }
        if !done {
            results.failures.push("the guest did not come to its end".into());
        }
        results
    }
}

fn number(value: Option<u64>) -> String {
    value.map_or("-".into(), |value| value.to_string())
}

fn ratio(value: u64, of: Option<u64>) -> String {
    match of {
        Some(of) if of > 0 => format!("{:.2}", value as f64 / of as f64),
        _ => "-".into(),
    }
}

const HEADS: [&str; 10] =
    ["operation", "min", "median", "p99", "max", "n", "seL4", "ratio", "limit", "of limit"];

fn cells(row: &Row) -> [String; 10] {
    let plain = |value: u64| value.to_string();
    [
        row.name.clone(),
        plain(row.min),
        plain(row.median),
        plain(row.p99),
        plain(row.max),
        plain(row.n),
        number(row.anchor),
        ratio(row.counts(), row.anchor),
        number(row.limit),
        ratio(row.counts(), row.limit),
    ]
}

/// The table for people.
pub fn table(results: &Results) -> String {
    let mut lines = vec![HEADS.map(String::from)];
    lines.extend(results.rows.iter().map(cells));
    let width =
        |column: usize| lines.iter().filter_map(|l| l.get(column)).map(String::len).max().unwrap_or(0);
    let mut text = String::new();
    for line in &lines {
        for (column, cell) in line.iter().enumerate() {
            let width = width(column);
            text += &if column == 0 { format!("{cell:<width$}") } else { format!("  {cell:>width$}") };
        }
        text.push('\n');
    }
    text += &format!("guest instructions; {}.{:03} ticks each\n", results.unit / 1000, results.unit % 1000);
    results.failures.iter().for_each(|failure| text += &format!("not measured: {failure}\n"));
    text
}

/// The rows as JSON.
pub fn json(results: &Results) -> Result<String> {
    let value = serde_json::json!({ "rows": results.rows });
    Ok(serde_json::to_string_pretty(&value)? + "\n")
}

/// The page of the book.
pub fn page(results: &Results, compiler: &str, cpu: &str) -> String {
    let mut text = format!(
        "# Performance\n\n<!-- Made by `cargo run -- bench --book docs/performance.md`. -->\n\n{INTRODUCTION}\n\
         Compiler: `{compiler}`. CPU model: `{cpu}`. One instruction is {}.{:03} ticks of the time-stamp \
         counter.\n\n",
        results.unit / 1000,
        results.unit % 1000
    );
    text += &format!("| {} |\n|---|{}\n", HEADS.join(" | "), "---:|".repeat(HEADS.len() - 1));
    for row in &results.rows {
        text += &format!("| {} |\n", cells(row).join(" | "));
    }
    text + REMARKS
}

const INTRODUCTION: &str = "\
What the kernel's operations cost, in guest instructions. `cargo run -- bench` boots a system whose two benchmark
processes (`modules/bench`) measure each other through the public ABI, under QEMU's `-icount shift=6,sleep=off`:
there every instruction takes 64 ns of virtual time, so that differences of the time-stamp counter count
instructions. The counts are the same in every run and on every host. The program calibrates itself with a loop of
known length and takes off what an empty window costs. A window goes from the ring-3 instruction before the stub to
the one after it, loading and storing the stub's registers included.
";

const REMARKS: &str = "
`ratio` compares the median with seL4's (16.0.0-dev, x86_64, with its fast path, counted the same way); `of limit`
with the most that SILA allows itself, for a latency by the worst case. Rows without such figures have none.

* `ipc_call_reply_Nw`: a call with N words, and as many back, between two processes of the same priority, the
  server's `reply_recv` included. The words are in place and are not read.
* `ipc_cap_transfer`: the same without words, with one capability, which the server deletes before it answers.
* `notify_ping_pong`: a signal to another process and the wait for its signal back.
* `frame_alloc_map`: `RegionCreate` of one frame, which is zeroed, and `RegionMap` beside a page that is mapped
  already. `page_unmap`: `MappingUnmap` alone.
* `thread_create`: `ThreadCreate` without message page, up to the first instruction of the new thread, which has a
  higher priority. `thread_destroy`: `ThreadTerminate` and `CapDelete`.
* `fault_round_trip`: an undefined instruction, the handler in another process, and back behind the instruction.
* `verify`: `ProcessCreate` of the benchmarks' own image, both signatures and the hash included;
  `process_terminate` is its end.
* `dispatch_latency`: from a timer's expiry at a random instant to the first ring-3 instruction of the thread of
  highest priority, while one of low priority makes the kernel verify an image, zero 2 MiB, revoke 900 capabilities
  or end a process. The expiry is known to within one reading of the clock, which is added.

What the counts leave out: caches, TLBs and pipelines do not exist in this emulation, and a `rep` instruction counts
once for each iteration, a write to CR3, XSAVE, WRMSR or SYSCALL once. `cargo run -- bench --profile NAME` traces one
operation, says in which functions its instructions are, and counts the expensive ones it executed.

`boot/bench-baseline.json` holds the medians of earlier runs by compiler and CPU model; `bench --check` fails when one
has grown by more than 5 %, and `bench --update-baseline` writes them.
";

/// What a baseline is valid for.
pub fn key(compiler: &str, cpu: &str) -> String {
    format!("{compiler}, {cpu}")
}

/// Medians by key and name.
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

    /// Takes these results' medians over.
    pub fn update(&mut self, key: &str, results: &Results) {
        let medians = self.0.entry(key.to_string()).or_default();
        medians.extend(results.rows.iter().map(|row| (row.name.clone(), row.median)));
    }

    /// What became worse; `None` if nothing is known about this key. Only a whole run misses rows.
    pub fn changes(&self, key: &str, results: &Results, whole: bool) -> Option<Vec<String>> {
        let known = self.0.get(key)?;
        let mut changes = Vec::new();
        for (name, &old) in known {
            match results.rows.iter().find(|row| row.name == *name) {
                Some(row) if row.median * 100 > old * (100 + TOLERANCE) => {
                    changes.push(format!("{name} went from {old} to {} instructions", row.median));
                }
                Some(_) => {}
                None if whole => changes.push(format!("{name} was not measured")),
                None => {}
            }
        }
        Some(changes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: [&str; 5] = [
        "bench unit 64000 64",
        "bench row null_invocation 100 228 130 200 1000",
        "bench row yield 1 2 3 4 5",
        "bench fail cap_copy SlotTaken [0]",
        "bench done",
    ];

    #[test]
    fn results_are_read_with_their_figures() {
        let results = Results::read(LINES);
        assert_eq!((results.unit, results.rows.len()), (64_000, 2));
        let row = &results.rows[0];
        assert_eq!((row.median, row.n, row.anchor, row.limit), (228, 1000, Some(457), Some(140)));
        assert_eq!((results.rows[1].anchor, results.rows[1].limit), (None, None));
        assert_eq!(results.failures, ["cap_copy SlotTaken [0]"]);
    }

    #[test]
    fn a_run_that_breaks_off_and_an_odd_row_are_failures() {
        let results = Results::read(["bench row x 1 2", "other"]);
        assert_eq!(results.failures.len(), 2);
    }

    #[test]
    fn the_table_has_ratios_and_names_what_is_missing() {
        let text = table(&Results::read(LINES));
        let line = text.lines().find(|line| line.starts_with("null_invocation")).unwrap();
        let cells: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(cells[cells.len() - 4..], ["457", "0.50", "140", "1.63"], "{line}");
        assert!(text.contains("not measured: cap_copy") && text.contains("64.000 ticks"), "{text}");
    }

    #[test]
    fn json_has_the_fields_that_readers_expect() {
        let value: serde_json::Value = serde_json::from_str(&json(&Results::read(LINES)).unwrap()).unwrap();
        let row = &value["rows"][0];
        for field in ["name", "min", "median", "p99", "n", "anchor", "limit"] {
            assert!(row.get(field).is_some(), "{field}");
        }
        assert_eq!(row["median"], 228);
    }

    #[test]
    fn the_worst_latency_is_held_to_the_limit() {
        let row = Row::parse("dispatch_latency 1 2 3 30000 5").unwrap();
        assert_eq!(cells(&row)[9], "1.50");
    }

    #[test]
    fn only_growth_beyond_the_tolerance_fails_and_only_for_a_known_key() {
        let results = Results::read(LINES);
        let mut baseline = Baseline::default();
        assert_eq!(baseline.changes("a", &results, true), None);
        baseline.update("a", &results);
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
    fn the_page_is_a_table() {
        let text = page(&Results::read(LINES), "rustc 1", "max");
        assert!(text.contains("| null_invocation | 100 | 228 |") && text.contains("`rustc 1`"));
    }
}
