//! The kernel's trace and counters as text for people. Pure.

use crate::render::{end, process_name};
use crate::table::{Align, Table};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use sila_rt::sila_abi::ops::Op;
use sila_rt::sila_abi::status::{CounterRecord, ProcessRecord};
use sila_rt::sila_abi::syscall::{Call, Tag};
use sila_rt::sila_abi::trace::{self, End, IDLE, Kind, Record, VERIFICATION};
use sila_rt::sila_abi::{Error, handover};

const L: Align = Align::Left;
const R: Align = Align::Right;

/// The lines of `counters`.
pub fn counters(record: &CounterRecord) -> String {
    let mut table = Table::new(&[(L, "COUNTER"), (R, "VALUE")]);
    for (name, value) in record.rows() {
        table.row([name.into(), value.to_string()]);
    }
    table.render()
}

/// The names of the kinds whose bits are set.
fn names(kinds: u64) -> String {
    let set = Kind::ALL.iter().filter(|kind| kinds & trace::bit(**kind) != 0);
    set.map(|kind| kind.name()).collect::<Vec<_>>().join(" ")
}

/// What `trace on` and `trace off` say.
pub fn switched(kinds: u64, next: u64) -> String {
    match kinds {
        0 => format!("nothing is recorded any more; {next} events were since boot\n"),
        kinds => format!("recorded from event {next} on: {}\n", names(kinds)),
    }
}

/// The table of `trace show`.
pub fn table(records: &[Record], processes: &[ProcessRecord], kinds: u64, lost: u64) -> String {
    if records.is_empty() && lost == 0 {
        return "no events were recorded\n".into();
    }
    let mut table = Table::new(&[(R, "TIME"), (L, "PROCESS"), (R, "THREAD"), (L, "EVENT"), (L, "WHAT")]);
    for record in records {
        let kind = Kind::from_number(record.kind);
        let idle = matches!(record.process, IDLE | VERIFICATION);
        table.row([
            format!("{}.{:06}", record.time / 1_000_000_000, record.time / 1_000 % 1_000_000),
            process(processes, record.process),
            if idle { "-".into() } else { record.thread.to_string() },
            kind.map_or("?", Kind::name).into(),
            kind.map_or_else(String::new, |kind| what(kind, record.words, processes)),
        ]);
    }
    let mut text = table.render();
    if lost > 0 {
        text.push_str(&format!("{lost} events before these are lost\n"));
    }
    if kinds != 0 {
        text.push_str(&format!("recorded: {}\n", names(kinds)));
    }
    text
}

fn process(processes: &[ProcessRecord], id: u64) -> String {
    match id {
        IDLE => "idle".into(),
        VERIFICATION => "verification".into(),
        id => process_name(processes, id).map_or_else(|| id.to_string(), |name| format!("{id} {name}")),
    }
}

/// The words of an event as people read them.
fn what(kind: Kind, words: [u64; 3], processes: &[ProcessRecord]) -> String {
    let [a, b, c] = words;
    let whose = |id| process(processes, id);
    match kind {
        Kind::Enter => format!("{} slot {b}, {c:#x}", call(a)),
        Kind::Leave => match End::from_number(b) {
            Some(End::Done) => format!("{} done", call(a)),
            Some(End::Refused) => format!("{} refused: {}", call(a), error(c)),
            Some(End::Waits) => format!("{} waits", call(a)),
            Some(End::Restarts) => format!("{} restarts", call(a)),
            None => call(a),
        },
        Kind::Switch => format!("to {}, thread {b}, priority {c}", whose(a)),
        Kind::Call | Kind::Send => format!("to {} by endpoint {b}, label {:#x}", whose(a), Tag(c).label()),
        Kind::Receive => format!("endpoint {a}"),
        Kind::Reply => format!("to {}, thread {b}, label {:#x}", whose(a), Tag(c).label()),
        Kind::Fault => format!("exception {a}, address {b:#x}, at {c:#x}"),
        Kind::Interrupt => format!("line {a}"),
        Kind::Map | Kind::Unmap | Kind::Protect => format!("{}: {b:#x}, {c} pages", whose(a)),
        Kind::ProcessCreate => format!("{}: {b} threads, {c} capabilities", whose(a)),
        Kind::ProcessEnd => format!("{}: {}", whose(a), end(b, c)),
        Kind::ProcessGone => whose(a),
        Kind::ThreadCreate => format!("{}: thread {b}, priority {c}", whose(a)),
        Kind::ThreadEnd => format!("{}: thread {b}", whose(a)),
        Kind::Revoke => format!("slot {a}: {b} deleted{}", if c == 1 { "" } else { " so far" }),
        Kind::VerifyQueue | Kind::VerifyBegin => format!("{}, priority {b}", wanted(a)),
        Kind::VerifyEnd if b == 0 => format!("{}: done", wanted(a)),
        Kind::VerifyEnd => format!("{}: {}", wanted(a), error(b)),
        Kind::Handover => {
            let state = handover::State::ALL.iter().find(|state| **state as u64 == b);
            format!("{a}: {}, epoch {c}", state.map_or_else(|| b.to_string(), |state| format!("{state:?}")))
        }
        Kind::Reap => format!("{a} steps"),
        Kind::Timer | Kind::VerifyDone => String::new(),
    }
}

/// A system call by its tag.
fn call(tag: u64) -> String {
    let tag = Tag(tag);
    match Call::from_number(tag.call()) {
        Some(Call::Invoke) => match Op::from_number(tag.label()) {
            Some(op) => op.info().name.into(),
            None => format!("operation {}", tag.label()),
        },
        Some(call) => format!("{call:?} {:#x}", tag.label()),
        None => format!("call {}", tag.call()),
    }
}

fn error(number: u64) -> String {
    let error = u16::try_from(number).ok().and_then(Error::from_number);
    error.map_or_else(|| format!("error {number}"), |error| error.name().into())
}

fn wanted(what: u64) -> &'static str {
    match what {
        trace::wanted::LOAD => "a process",
        trace::wanted::RECORD => "a record",
        trace::wanted::CASE => "a test's signature",
        trace::wanted::CACHE => "an image for the cache",
        _ => "?",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sila_rt::sila_abi::trace::bit;

    fn record(kind: Kind, words: [u64; 3]) -> Record {
        Record { time: 1_500_000_000, process: 3, thread: 2, kind: kind as u32, words }
    }

    #[test]
    fn every_kind_of_event_is_shown_by_its_name() {
        let records: Vec<Record> = Kind::ALL.iter().map(|kind| record(*kind, [1, 2, 3])).collect();
        let shown = table(&records, &[], 0, 0);
        let lines: Vec<&str> = shown.lines().skip(1).collect();
        assert_eq!(lines.len(), Kind::ALL.len());
        for (kind, line) in Kind::ALL.iter().zip(lines) {
            assert!(line.split_whitespace().any(|word| word == kind.name()), "{line}");
            assert!(line.contains("1.500000"));
        }
    }

    #[test]
    fn words_are_shown_as_what_they_mean() {
        let tag = Tag::new(Call::Invoke, 1, 0, Op::Signal as u32).0;
        for (event, part) in [
            (record(Kind::Enter, [tag, 70, 16]), "Signal slot 70, 0x10"),
            (record(Kind::Leave, [tag, End::Refused as u64, 3]), "Signal refused: MissingRight"),
            (record(Kind::ProcessEnd, [9, 3, 14]), "9: fault 14"),
            (record(Kind::VerifyEnd, [trace::wanted::LOAD, 0, 0]), "a process: done"),
            (record(Kind::Switch, [IDLE, 0, 0]), "to idle"),
        ] {
            let shown = table(&[event], &[], 0, 0);
            assert!(shown.contains(part), "{shown}");
        }
    }

    #[test]
    fn lost_events_and_what_is_recorded_are_told() {
        let shown = table(&[record(Kind::Timer, [0; 3])], &[], bit(Kind::Timer) | bit(Kind::Map), 7);
        assert!(shown.contains("7 events before these are lost") && shown.ends_with("recorded: timer map\n"));
        assert_eq!(table(&[], &[], 0, 0), "no events were recorded\n");
    }

    #[test]
    fn each_counter_has_a_line() {
        let counted = CounterRecord { refused_calls: 12345, ..CounterRecord::default() };
        let shown = counters(&counted);
        assert_eq!(shown.lines().count(), CounterRecord::COUNT + 1);
        assert!(shown.lines().any(|line| line.contains("refused") && line.ends_with("12345")));
    }
}
