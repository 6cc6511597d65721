//! The book's chapters on kernel objects: their tables are what `sila_abi` and the kernel's constants say, and every
//! kind that has operations has a chapter.
//!
//! `SILA_WRITE_BOOK=1 cargo test -p sila_abi --test objects` writes the tables anew; the text around them stays.
#![allow(clippy::expect_used, clippy::panic, reason = "helpers of tests, which Clippy does not see as tests")]

use sila_abi::object::ObjectType;
use sila_abi::ops::{OpInfo, TABLE};
use sila_abi::syscall::{MAX_CAPS, MAX_WORDS, REGISTER_WORDS};
use sila_abi::trace::Kind;
use sila_abi::{handover, manifest, refusals};
use std::fmt::Write as _;
use std::fs;
use table::{arguments, compare, doc_of, mode, page_of, plain, rights, root, source};

mod table;

const BEGIN: &str = "<!-- Generated: SILA_WRITE_BOOK=1 cargo test -p sila_abi --test objects -->";
const END: &str = "<!-- End of what is generated -->";

/// The operations that tell the state of an object of each kind.
const STATUS: &[(ObjectType, &[&str])] = &[
    (ObjectType::Pool, &["PoolStatus"]),
    (ObjectType::Region, &["RegionStatus"]),
    (ObjectType::Mapping, &["MappingStatus"]),
    (ObjectType::Endpoint, &["EndpointStatus", "EndpointLabel"]),
    (ObjectType::Notification, &["NotificationStatus"]),
    (ObjectType::Job, &["JobStatus", "JobNext"]),
    (ObjectType::Process, &["ProcessStatus", "ProcessUsage", "ProcessIdentity"]),
    (ObjectType::Thread, &["ThreadStatus"]),
    (ObjectType::Handover, &["HandoverStatus", "HandoverService"]),
    (ObjectType::Journal, &["JournalStatus"]),
    (
        ObjectType::KeyRing,
        &["KeyRingState", "KeyRingStatus", "KeyRingName", "KeyRingKey", "KeyRingCertificate"],
    ),
    (ObjectType::Policy, &["PolicyStatus", "PolicyRead"]),
    (ObjectType::ModuleCache, &["ModuleCacheStatus", "ModuleCacheNext"]),
    (ObjectType::CachedImage, &["CachedImageStatus"]),
    (ObjectType::IrqHandler, &["IrqStatus"]),
    (ObjectType::IoPorts, &["PortStatus"]),
    (ObjectType::Clock, &["ClockNow"]),
    (ObjectType::SystemControl, &["SystemMemory", "SystemCounters", "SystemTraceRead"]),
    (ObjectType::TestControl, &["TestAccounting"]),
    (ObjectType::Reply, &["ReplyStatus"]),
];

/// Where a bound comes from.
enum Bound {
    /// A constant of `sila_abi`.
    Abi(u64, &'static str),
    /// A constant of the kernel: file and name.
    Kernel(&'static str, &'static str),
    /// Slots of the arena of objects of this type: the file that says so.
    Slots(&'static str),
}

use Bound::{Abi, Kernel, Slots};

const OBJECTS: &str = "kernel/src/objects.rs";

fn bounds(kind: Option<ObjectType>) -> Vec<(&'static str, Bound)> {
    let Some(kind) = kind else {
        return vec![
            ("Slots of a CSpace", Kernel("kernel/src/cap.rs", "CSPACE")),
            ("Slots that a CSpace grows by", Kernel("kernel/src/cap.rs", "CHUNK")),
        ];
    };
    let own = match kind {
        ObjectType::Pool => vec![("Pools above one Pool", Kernel("kernel/src/kernel.rs", "MAX_POOL_DEPTH"))],
        ObjectType::Region => vec![("Frames of a Region", Kernel("kernel/src/memory.rs", "MAX_REGION"))],
        ObjectType::Mapping => vec![("Pages of a mapping", Kernel("kernel/src/memory.rs", "MAX_MAP"))],
        ObjectType::Endpoint => vec![
            ("Words of a message", Abi(MAX_WORDS as u64, "MAX_WORDS")),
            ("Words of it in registers", Abi(REGISTER_WORDS as u64, "REGISTER_WORDS")),
            ("Capabilities of a message", Abi(MAX_CAPS as u64, "MAX_CAPS")),
        ],
        ObjectType::Process => vec![
            ("Requests of a manifest", Abi(manifest::MAX_REQUESTS as u64, "MAX_REQUESTS")),
            (
                "Private pages of a new process: data, bss, stack",
                Kernel("kernel/src/embryo.rs", "MAX_PRIVATE"),
            ),
            ("Watchers", Kernel(OBJECTS, "MAX_WATCHERS")),
            ("Nanoseconds of a period of its CPU budget", Kernel("kernel/src/budget.rs", "PERIOD_MAX")),
            ("Bytes of a load proof", Kernel("kernel/src/verify.rs", "COPY_MAX")),
            ("Verifications that wait", Kernel("kernel/src/verify.rs", "QUEUE")),
            ("Verifications of one process that wait", Kernel("kernel/src/verify.rs", "QUEUE_OF_ONE")),
        ],
        ObjectType::Thread => vec![("Nanoseconds of a time slice", Kernel("kernel/src/sched.rs", "SLICE"))],
        ObjectType::Handover => vec![
            ("Services", Abi(handover::MAX_SERVICES as u64, "MAX_SERVICES")),
            ("Deposits", Abi(handover::MAX_DEPOSITS as u64, "MAX_DEPOSITS")),
            ("Watchers", Kernel("kernel/src/handover.rs", "MAX_WATCHERS")),
        ],
        ObjectType::IrqHandler => {
            vec![("Arrivals in a row that nobody explains", Kernel("kernel/src/interrupts.rs", "MAX_STRAYS"))]
        }
        ObjectType::SystemControl => {
            vec![("Records that the trace keeps", Kernel("kernel/src/trace.rs", "RECORDS"))]
        }
        _ => Vec::new(),
    };
    let slots = match kind {
        ObjectType::Handover => Some("kernel/src/handover.rs"),
        ObjectType::Journal => Some("kernel/src/journal.rs"),
        ObjectType::CachedImage => Some(OBJECTS),
        kind if (kind as u8) < ObjectType::Handover as u8 => Some(OBJECTS),
        _ => None,
    };
    own.into_iter().chain(slots.map(|file| ("Objects of this type", Slots(file)))).collect()
}

/// The value of a constant expression: a number, or two joined by `<<` or `*`.
fn value(text: &str) -> Option<u64> {
    let text = text.trim();
    for (sign, join) in [("<<", (|a, b| a << b) as fn(u64, u64) -> u64), ("*", |a, b| a * b)] {
        if let Some((a, b)) = text.split_once(sign) {
            return Some(join(value(a)?, value(b)?));
        }
    }
    text.replace('_', "").parse().ok()
}

/// A constant of a source file.
fn constant(file: &str, name: &str) -> u64 {
    let text = source(file);
    let found = text.lines().find_map(|line| {
        let (head, expression) = line.trim().trim_end_matches(';').split_once(" = ")?;
        head.contains(&format!("const {name}: ")).then(|| value(expression))?
    });
    found.unwrap_or_else(|| panic!("{file} has no constant {name} that is a number"))
}

/// How many objects of a type the kernel has room for.
fn slots(file: &str, kind: ObjectType) -> u64 {
    if file != OBJECTS {
        return constant(file, "SLOTS");
    }
    let text = source(file);
    let (_, list) = text.split_once("priced! {").expect("a list of prices");
    let (list, _) = list.split_once('}').expect("its end");
    let entry = list.split(',').filter_map(|entry| entry.trim().split_once(" = "));
    let found = entry.filter(|(name, _)| *name == kind.name()).find_map(|(_, n)| value(n));
    found.unwrap_or_else(|| panic!("no number of slots for {}", kind.name()))
}

fn rows(kind: Option<ObjectType>) -> Vec<&'static OpInfo> {
    TABLE.iter().copied().filter(|row| row.object == kind).collect()
}

/// The generated part of a chapter.
fn tables(kind: Option<ObjectType>) -> String {
    let mut out = format!("{BEGIN}\n\n");
    if let Some(kind) = kind {
        let doc = doc_of(&source("sila_abi/src/object.rs"), &format!("{} = {},", kind.name(), kind as u8));
        let _ = write!(out, "Object type {}: {doc}\n\n", kind as u8);
    }
    out.push_str("## Operations\n\n| Number | Operation | Needs | Arguments | Mode | What it does |\n|---|---|---|---|---|---|\n");
    for row in rows(kind) {
        let (needs, arguments) = (rights(row.rights), arguments(row));
        let (number, name, mode, doc) = (row.op as u32, row.name, mode(row), plain(row.doc));
        let _ = writeln!(out, "| {number} | `{name}` | {needs} | {arguments} | {mode} | {doc} |");
    }
    out.push_str("\n## Errors\n\n| Operation | Errors |\n|---|---|\n");
    for row in rows(kind) {
        let errors: Vec<String> = refusals::of(row.op).map(|error| format!("`{}`", error.name())).collect();
        let _ = writeln!(out, "| `{}` | {} |", row.name, errors.join(", "));
    }
    let bounds = bounds(kind);
    if !bounds.is_empty() {
        out.push_str("\n## Bounds\n\n| What | At most | Constant |\n|---|---|---|\n");
        for (what, bound) in bounds {
            let (most, name) = match bound {
                Abi(value, name) => (value, name),
                Kernel(file, name) => (constant(file, name), name),
                Slots(file) => (slots(file, kind.expect("a type")), "SLOTS"),
            };
            let _ = writeln!(out, "| {what} | {most} | `{name}` |");
        }
    }
    let _ = write!(out, "\n{END}");
    out
}

fn with_chapters() -> Vec<Option<ObjectType>> {
    let kinds = ObjectType::ALL.iter().copied().map(Some);
    std::iter::once(None).chain(kinds).filter(|kind| !rows(*kind).is_empty()).collect()
}

#[test]
fn the_tables_of_every_chapter_are_what_the_sources_say() {
    for kind in with_chapters() {
        let name = kind.map_or_else(|| "capability".into(), page_of);
        let path = root().join(format!("docs/objects/{name}.md"));
        let found = fs::read_to_string(&path).unwrap_or_else(|_| panic!("{} is missing", path.display()));
        let (before, rest) = found.split_once(BEGIN).unwrap_or_else(|| panic!("{name}: no generated part"));
        let (_, after) = rest.split_once(END).unwrap_or_else(|| panic!("{name}: it does not end"));
        assert!(before.lines().count() > 3, "{name}: nothing says what it is");
        let wanted = format!("{before}{}{after}", tables(kind));
        compare(&path, &wanted, "cargo test -p sila_abi --test objects");
    }
}

#[test]
fn the_kinds_of_the_trace_are_listed_where_people_choose_them() {
    let path = root().join("docs/console.md");
    let found = source("docs/console.md");
    let (before, rest) = found.split_once(BEGIN).expect("a generated part");
    let (_, after) = rest.split_once(END).expect("its end");
    let mut table = format!("{BEGIN}\n\n| Kind | Number | When | Words |\n|---|---|---|---|\n");
    for kind in Kind::ALL {
        let words: Vec<&str> = kind.words().into_iter().filter(|word| !word.is_empty()).collect();
        let (name, number, when) = (kind.name(), *kind as u32, kind.sentence());
        let _ = writeln!(table, "| `{name}` | {number} | {when} | {} |", words.join(", "));
    }
    let wanted = format!("{before}{table}\n{END}{after}");
    compare(&path, &wanted, "cargo test -p sila_abi --test objects");
}

#[test]
fn every_kind_of_object_tells_its_state() {
    for kind in with_chapters().into_iter().flatten() {
        let told = STATUS.iter().find(|(k, _)| *k == kind).map(|(_, names)| *names);
        let names = told.unwrap_or_else(|| panic!("{} does not tell its state", kind.name()));
        for name in names {
            assert!(rows(Some(kind)).iter().any(|row| row.name == *name), "{name} is no operation on it");
        }
    }
}

#[test]
fn constants_are_read_from_sources() {
    assert_eq!(
        (value("65_536"), value("64 << 10"), value("4 * 1_000")),
        (Some(65536), Some(65536), Some(4000))
    );
    assert_eq!((value("CSPACE / CHUNK"), value("")), (None, None));
    assert_eq!(constant("kernel/src/memory.rs", "MAX_REGION"), 65_536);
}
