//! What the benchmarks' results become: rows, a table, JSON.
use crate::bench_profile::{Code, Expensive};
use crate::bench_trace::{Traced, total};
use anyhow::Result;
use serde::Serialize;

/// Name, seL4's figure, what SILA may take at most. seL4 16.0.0-dev, x86_64, fast path, counted the same way.
const FIGURES: [(&str, Option<u64>, u64); 27] = [
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
    ("hash_1mib", None, 20 << 20),
    ("load_kernel_35k", None, 4_500_000),
    ("load_whole_35k", None, 7_000_000),
    ("verification_stack", None, 128 << 10),
    ("dispatch_latency_verify", None, 20_000),
    ("dispatch_latency_hash", None, 20_000),
    ("dispatch_latency_zero", None, 20_000),
    ("dispatch_latency_revoke", None, 20_000),
    ("dispatch_latency_terminate", None, 20_000),
    ("dispatch_latency", None, 20_000),
];

/// By how many percent a traced round may differ from what was measured.
const DIFFERENCE: u64 = 3;

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
    /// Its expensive instructions by kind, in the middle one of the traced rounds; `None` if it was not traced.
    pub expensive: Option<Expensive>,
    /// The same (median, or worst latency) with the kernel's page tables apart from ring 3's.
    pub kpti: Option<u64>,
}

impl Row {
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let name = words.next()?.to_string();
        let numbers: Vec<u64> = words.map(str::parse).collect::<Result<_, _>>().ok()?;
        let [min, median, p99, max, n] = numbers.try_into().ok()?;
        let figure = FIGURES.iter().find(|figure| figure.0 == name);
        let (anchor, limit) = (figure.and_then(|f| f.1), figure.map(|f| f.2));
        Some(Self { name, min, median, p99, max, n, anchor, limit, expensive: None, kpti: None })
    }

    /// Whether the worst case counts, and not the median.
    pub fn is_latency(&self) -> bool {
        self.name.starts_with("dispatch_latency")
    }

    /// What the limit holds for.
    pub fn counts(&self) -> u64 {
        if self.is_latency() { self.max } else { self.median }
    }

    /// The expensive instructions in words.
    fn expensive_text(&self) -> String {
        let Some(expensive) = &self.expensive else { return "-".into() };
        expensive.iter().map(|(kind, count)| format!("{kind} {count}")).collect::<Vec<_>>().join(", ")
    }

    /// By how many percent it is dearer with the page tables apart.
    fn kpti_growth(&self) -> String {
        let of = self.counts().max(1) as f64;
        self.kpti.map_or("-".into(), |kpti| format!("{:+.1} %", (kpti as f64 / of - 1.0) * 100.0))
    }
}

/// What figures depend on, besides the source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Conditions {
    /// The compiler, as `rustc -V` says.
    pub compiler: String,
    /// QEMU's CPU model.
    pub cpu: String,
    /// Whether the kernel's page tables are apart from ring 3's.
    pub kpti: bool,
}

impl Conditions {
    /// What a baseline is valid for.
    pub fn key(&self) -> String {
        format!("{}, {}{}", self.compiler, self.cpu, if self.kpti { ", KPTI" } else { "" })
    }
}

/// What the guest said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Results {
    /// What was measured.
    pub rows: Vec<Row>,
    /// What could not be measured, and why.
    pub failures: Vec<String>,
    /// Rows whose traced round is not what was measured: their expensive instructions are not shown.
    pub untraced: Vec<String>,
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

/// Takes over what was traced, unless it differs from what was measured: then it was another path.
pub fn add_traces(results: &mut Results, traced: &[Traced], code: &Code) {
    for row in &mut results.rows {
        let Some(round) = traced.iter().find(|t| t.name == row.name).and_then(Traced::middle) else {
            continue;
        };
        let (count, slack) = (total(round), row.p99 * DIFFERENCE / 100 + 2);
        if count + slack < row.min || count > row.p99 + slack {
            let Row { name, min, p99, .. } = row;
            let why =
                format!("{name}: the traced round has {count} instructions, measured were {min} to {p99}");
            results.untraced.push(why);
        } else {
            row.expensive = Some(code.expensive(round));
        }
    }
    let lost = traced.iter().filter(|t| t.rounds.is_empty());
    results.failures.extend(lost.map(|t| format!("{}: no round was traced whole", t.name)));
}

/// Takes over the figures of a run with the page tables apart.
pub fn add_kpti(results: &mut Results, apart: &Results) {
    for row in &mut results.rows {
        row.kpti = apart.rows.iter().find(|other| other.name == row.name).map(Row::counts);
    }
    results.failures.extend(apart.failures.iter().map(|failure| format!("with KPTI: {failure}")));
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

/// The column that is not of numbers.
const EXPENSIVE: &str = "expensive";

/// A table's lines, the first with the names of the columns; every line has as many cells.
pub fn lines(results: &Results) -> Vec<Vec<String>> {
    let apart = results.rows.iter().any(|row| row.kpti.is_some());
    let traced = results.rows.iter().any(|row| row.expensive.is_some());
    let mut heads =
        ["operation", "min", "median", "p99", "max", "n", "seL4", "ratio", "limit", "of limit"].to_vec();
    heads.extend(["with KPTI", "more"].iter().filter(|_| apart));
    heads.extend([EXPENSIVE].iter().filter(|_| traced));
    let cells = |row: &Row| {
        let plain = [row.min, row.median, row.p99, row.max, row.n].map(|value| value.to_string());
        let mut cells = vec![row.name.clone()];
        cells.extend(plain);
        cells.extend([number(row.anchor), ratio(row.counts(), row.anchor)]);
        cells.extend([number(row.limit), ratio(row.counts(), row.limit)]);
        if apart {
            cells.extend([number(row.kpti), row.kpti_growth()]);
        }
        cells.extend(traced.then(|| row.expensive_text()));
        cells
    };
    let mut lines = vec![heads.into_iter().map(String::from).collect()];
    lines.extend(results.rows.iter().map(cells));
    lines
}

/// The table for people.
pub fn table(results: &Results) -> String {
    let lines = lines(results);
    let words = lines.first().and_then(|heads| heads.iter().position(|head| head == EXPENSIVE));
    let width =
        |column: usize| lines.iter().filter_map(|l| l.get(column)).map(String::len).max().unwrap_or(0);
    let mut text = String::new();
    for line in &lines {
        for (column, cell) in line.iter().enumerate() {
            let width = width(column);
            text += &match column {
                0 => format!("{cell:<width$}"),
                _ if Some(column) == words => format!("  {cell}"),
                _ => format!("  {cell:>width$}"),
            };
        }
        text.push('\n');
    }
    text += &format!("guest instructions; {}.{:03} ticks each\n", results.unit / 1000, results.unit % 1000);
    results.failures.iter().for_each(|failure| text += &format!("not measured: {failure}\n"));
    results.untraced.iter().for_each(|why| text += &format!("not traced: {why}\n"));
    text
}

/// The rows as JSON, with the conditions they were measured under.
pub fn json(results: &Results, conditions: &Conditions) -> Result<String> {
    let value = serde_json::json!({
        "rows": results.rows, "conditions": conditions, "failures": results.failures,
    });
    Ok(serde_json::to_string_pretty(&value)? + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: [&str; 5] = [
        "bench unit 64000 64",
        "bench row null_invocation 100 228 232 240 1000",
        "bench row yield 1 2 3 4 5",
        "bench fail cap_copy SlotTaken [0]",
        "bench done",
    ];

    /// The words of the line that begins so.
    fn words(text: &str, begin: &str) -> Vec<String> {
        let line = text.lines().find(|line| line.starts_with(begin)).unwrap();
        line.split_whitespace().map(String::from).collect()
    }

    fn conditions() -> Conditions {
        Conditions { compiler: "rustc 1".into(), cpu: "max".into(), kpti: false }
    }

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
        assert!(words(&text, "null_invocation").ends_with(&["457", "0.50", "140", "1.63"].map(String::from)));
        assert!(text.contains("not measured: cap_copy") && text.contains("64.000 ticks"), "{text}");
    }

    #[test]
    fn json_has_the_fields_that_readers_expect() {
        let value: serde_json::Value =
            serde_json::from_str(&json(&Results::read(LINES), &conditions()).unwrap()).unwrap();
        assert_eq!(value["conditions"]["cpu"], "max");
        let row = &value["rows"][0];
        for field in ["name", "min", "median", "p99", "n", "anchor", "limit"] {
            assert!(row.get(field).is_some(), "{field}");
        }
        assert_eq!(row["median"], 228);
    }

    #[test]
    fn the_worst_latency_is_held_to_the_limit() {
        let results = Results::read(["bench row dispatch_latency 1 2 3 30000 5", "bench done"]);
        assert_eq!(words(&table(&results), "dispatch_latency").last().unwrap(), "1.50");
    }

    #[test]
    fn a_baseline_is_valid_for_compiler_cpu_and_page_tables() {
        assert_eq!(conditions().key(), "rustc 1, max");
        assert_eq!(Conditions { kpti: true, ..conditions() }.key(), "rustc 1, max, KPTI");
    }

    fn traced(name: &str, instructions: u64) -> Traced {
        Traced { name: name.into(), rounds: vec![[(1, instructions - 2), (2, 2)].into()] }
    }

    #[test]
    fn traces_add_the_expensive_instructions_and_must_agree_with_what_was_measured() {
        let code = Code::of([(2, "cr3")]);
        let mut results = Results::read(LINES);
        results.failures.clear();
        add_traces(&mut results, &[traced("null_invocation", 230)], &code);
        assert_eq!(results.rows[0].expensive, Some(Expensive::from([("cr3", 2)])));
        assert_eq!((results.rows[1].expensive.clone(), results.failures.len()), (None, 0));
        assert!(table(&results).lines().any(|line| line.ends_with("cr3 2")));
        results.rows[0].expensive = None;
        add_traces(&mut results, &[traced("null_invocation", 300), traced("yield", 3)], &code);
        assert_eq!((results.rows[0].expensive.clone(), results.untraced.len()), (None, 1));
        assert!(table(&results).contains("not traced: null_invocation"));
        add_traces(&mut results, &[Traced { name: "yield".into(), rounds: vec![] }], &code);
        assert_eq!(results.failures.len(), 1, "{:?}", results.failures);
    }

    #[test]
    fn the_price_of_kpti_is_a_column() {
        let mut results = Results::read(LINES);
        let apart = Results::read(["bench row null_invocation 1 250 1 1 1", "bench done"]);
        add_kpti(&mut results, &apart);
        let text = table(&results);
        assert!(words(&text, "null_invocation").ends_with(&["250", "+9.6", "%"].map(String::from)), "{text}");
        assert!(words(&text, "yield").ends_with(&["-", "-"].map(String::from)), "{text}");
    }

    #[test]
    fn every_figure_belongs_to_a_row() {
        for (name, ..) in FIGURES {
            assert!(bench::NAMES.contains(&name), "{name}");
        }
    }
}
