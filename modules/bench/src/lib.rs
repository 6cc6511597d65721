//! What the benchmarks share with the host tool, and arithmetic that needs no kernel.
//!
//! Lines on the results channel, each beginning with `bench `:
//! `unit TICKS/1000 INSTRUCTIONS` (how far the time-stamp counter goes in so many thousandths of instructions),
//! `row NAME MIN MEDIAN P99 MAX N` in instructions, `trace NAME ROUNDS`, `fail NAME REASON`, `done`.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::vec::Vec;

/// The test data entry that says what to measure: names, one a line, all if there is none, and perhaps [`TRACE`].
pub const PLAN: &str = "bench.plan";
/// The line of a plan that has each row repeated for the host to trace. It may name the number of rounds.
pub const TRACE: &str = "trace";
/// The test data entry with the image of the peer and of the helpers.
pub const IMAGE: &str = "bench.image";
/// The test data entry with the first page of an image of [`LARGE_BYTES`]: [`IMAGE`], then a segment of zeros.
pub const LARGE: &str = "bench.large";
/// The test data entry with an image of 36,864 bytes (35.5 KB are not a whole number of pages).
pub const SMALL: &str = "bench.small";
/// The module in the bundle that has this image.
pub const SMALL_MODULE: &str = "benchsmall";
/// The test data entries with load proofs: the peer's, a holder's, a full process's, the large image's, and those of the
/// small image for processes that ask for 0, 1, 8 and 32 capabilities.
pub const PROOFS: [&str; 8] = [
    "bench.proof",
    "bench.proof.holder",
    "bench.proof.full",
    "bench.proof.large",
    "bench.proof.small",
    "bench.proof.caps1",
    "bench.proof.caps8",
    "bench.proof.caps32",
];
/// The test data entries with a signature to be checked (`sila_abi::verify_case`), and with the same one cut short.
pub const CASES: [&str; 2] = ["bench.case", "bench.case.short"];
/// The row that is no count of instructions: bytes of the verification context's stack.
pub const STACK: &str = "verification_stack";
/// Bytes of the large image.
pub const LARGE_BYTES: usize = 16 << 20;

/// What the function that marks the rounds of a trace is called with: these bits and one of the marks below.
pub const MARK: u64 = 0x6265_6e63_685f_0000;
/// The trace of a row begins, with its first round.
pub const MARK_BEGIN: u64 = MARK | 1;
/// The next round begins.
pub const MARK_NEXT: u64 = MARK | 2;
/// The trace of a row has ended.
pub const MARK_END: u64 = MARK | 3;

/// Every row, in the order in which they are measured.
pub const NAMES: &[&str] = &[
    "ipc_call_reply_0w",
    "ipc_call_reply_4w",
    "ipc_call_reply_10w",
    "ipc_call_reply_64w",
    "ipc_call_reply_120w",
    "ipc_cap_transfer",
    "ipc_send",
    "null_invocation",
    "clock_now",
    "pool_status",
    "yield",
    "signal_no_waiter",
    "notify_ping_pong",
    "alarm_set",
    "cap_copy",
    "cap_mint",
    "cap_move",
    "cap_delete",
    "cap_revoke",
    "revoke_900",
    "fault_round_trip",
    "frame_alloc_map",
    "region_create",
    "region_create_2mib",
    "page_map",
    "page_protect",
    "page_unmap",
    "region_seal",
    "notification_create",
    "endpoint_create",
    "thread_create",
    "thread_destroy",
    "thread_suspend_resume",
    "process_create",
    "process_terminate",
    "key_decode",
    "signature_verify",
    "hash_1mib",
    "load_kernel_35k",
    "load_kernel_cached_35k",
    "load_whole_35k",
    "load_whole_cached_35k",
    "process_create_1_cap",
    "process_create_8_caps",
    "process_create_32_caps",
    STACK,
    "interrupt_to_thread",
    "dispatch_latency_verify",
    "dispatch_latency_hash",
    "dispatch_latency_zero",
    "dispatch_latency_revoke",
    "dispatch_latency_terminate",
    "dispatch_latency",
];

/// Whether this name of a plan means that row. A name stands for itself and what it begins, up to an underscore.
pub fn names(name: &str, row: &str) -> bool {
    row.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
}

/// What to measure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan<'a> {
    only: Vec<&'a str>,
    /// How many rounds to repeat each row, so that the host can trace them; `None` if it will not.
    pub trace: Option<usize>,
}

impl<'a> Plan<'a> {
    /// Reads a plan.
    pub fn parse(text: &'a str) -> Self {
        let mut plan = Plan::default();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            match line.strip_prefix(TRACE) {
                Some(rounds) => plan.trace = Some(rounds.trim().parse().unwrap_or(1)),
                None => plan.only.push(line),
            }
        }
        plan
    }

    /// Whether this row is to be measured.
    pub fn wants(&self, row: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| names(name, row))
    }
}

/// The machine's unit: what one instruction, and an empty window, add to the time-stamp counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Ticks in a thousand instructions.
    pub per_thousand: u64,
    /// Ticks of a window around nothing.
    pub empty: u64,
}

impl Unit {
    /// From the ticks that two loops took, of which the second executes `more` instructions more.
    pub fn of_loops(first: u64, second: u64, more: u64, empty: u64) -> Self {
        let per_thousand = (second.saturating_sub(first) * 1000 + more / 2) / more.max(1);
        Self { per_thousand: per_thousand.max(1), empty }
    }

    /// Ticks of a window as instructions, without those of the window itself.
    pub fn instructions(&self, ticks: u64) -> u64 {
        (ticks.saturating_sub(self.empty) * 1000 + self.per_thousand / 2) / self.per_thousand
    }
}

/// What became of many measurements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The least.
    pub min: u64,
    /// The one in the middle.
    pub median: u64,
    /// All but one in a hundred are at most this.
    pub p99: u64,
    /// The most.
    pub max: u64,
    /// How many.
    pub n: usize,
}

impl Summary {
    /// Of these measurements, which get sorted; `None` if there are none.
    pub fn of(values: &mut [u64]) -> Option<Self> {
        values.sort_unstable();
        let n = values.len();
        let at = |index: usize| values.get(index).copied();
        let p99 = at((n * 99).div_ceil(100).saturating_sub(1))?;
        Some(Self { min: at(0)?, median: at(n.saturating_sub(1) / 2)?, p99, max: at(n.checked_sub(1)?)?, n })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_names_rows_and_families_of_rows() {
        let plan = Plan::parse("ipc_call_reply\n\ncap_copy\n");
        assert!(plan.wants("ipc_call_reply_0w") && plan.wants("cap_copy"));
        assert!(!plan.wants("cap_copying") && !plan.wants("cap_mint"));
        assert!(Plan::parse("").wants("anything"));
    }

    #[test]
    fn a_plan_may_ask_for_traces_of_all_or_of_some_rows() {
        assert_eq!(Plan::parse("cap_mint").trace, None);
        let plan = Plan::parse(
            "trace 3
cap_mint",
        );
        assert_eq!(plan.trace, Some(3));
        assert!(plan.wants("cap_mint") && !plan.wants("trace") && Plan::parse("trace").wants("yield"));
    }

    #[test]
    fn rows_have_names_of_their_own() {
        for (at, name) in NAMES.iter().enumerate() {
            assert!(!NAMES[..at].contains(name) && !names(TRACE, name), "{name}");
        }
    }

    #[test]
    fn the_unit_comes_from_a_difference_and_the_empty_window_is_taken_off() {
        let unit = Unit::of_loops(64 * 205, 64 * 2205, 2000, 64);
        assert_eq!(unit, Unit { per_thousand: 64_000, empty: 64 });
        assert_eq!((unit.instructions(64), unit.instructions(64 * 11), unit.instructions(0)), (0, 10, 0));
        let odd = Unit::of_loops(0, 134_000, 2000, 0);
        assert_eq!(odd.instructions(6700), 100);
    }

    #[test]
    fn a_summary_has_the_middle_and_the_tail() {
        let mut values: Vec<u64> = (1..=1000).rev().collect();
        let expected = Summary { min: 1, median: 500, p99: 990, max: 1000, n: 1000 };
        assert_eq!(Summary::of(&mut values), Some(expected));
        assert_eq!(Summary::of(&mut [7]).map(|s| (s.min, s.median, s.p99, s.max)), Some((7, 7, 7, 7)));
        assert_eq!(Summary::of(&mut []), None);
    }
}
