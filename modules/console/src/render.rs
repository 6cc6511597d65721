//! Records of live state as text for people. Pure.

use crate::command::{HELP, Process};
use crate::table::{Align, Table};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use sila_rt::sila_abi::policy::Policy;
use sila_rt::sila_abi::protocol::module_manager::{Failure, LoadError, Loaded, ModuleRecord};
use sila_rt::sila_abi::protocol::registry::Service;
use sila_rt::sila_abi::protocol::wire::FIRST_INSTANCE;
use sila_rt::sila_abi::record::{Name, Version};
use sila_rt::sila_abi::status::{MemoryRecord, ProcessRecord};
use sila_rt::sila_abi::{ObjectType, Rights};
use sila_rt::system::CapabilityRecord;

const FRAME: u64 = 4096;
const L: Align = Align::Left;
const R: Align = Align::Right;

/// An amount of memory in the largest unit that keeps it exact enough: `812 B`, `64 KiB`, `1.5 MiB`.
pub fn bytes(amount: u64) -> String {
    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;
    let tenths = |unit: u64| {
        let tenths = u128::from(amount) * 10 / u128::from(unit);
        match (tenths / 10, tenths % 10) {
            (whole, 0) => whole.to_string(),
            (whole, tenth) => format!("{whole}.{tenth}"),
        }
    };
    match amount {
        0..KIB => format!("{amount} B"),
        KIB..MIB => format!("{} KiB", tenths(KIB)),
        MIB..GIB => format!("{} MiB", tenths(MIB)),
        GIB.. => format!("{} GiB", tenths(GIB)),
    }
}

/// A text in a record: so many bytes of a fixed array.
fn text(bytes: &[u8], len: u64) -> String {
    let len = usize::try_from(len).unwrap_or(usize::MAX).min(bytes.len());
    String::from_utf8_lossy(bytes.get(..len).unwrap_or_default()).into_owned()
}

fn version(word: u64) -> String {
    Version::from_word(word).map_or_else(|| "?".into(), |version| version.to_string())
}

/// The name of a process's state.
pub const fn process_state(state: u64) -> &'static str {
    match state {
        1 => "created",
        2 => "running",
        3 => "dying",
        4 => "ended",
        _ => "?",
    }
}

/// What `help` says.
pub fn help() -> String {
    let width = HELP.iter().map(|(form, _)| form.chars().count()).max().unwrap_or(0);
    HELP.iter().map(|(form, text)| format!("{form:width$}  {text}\n")).collect()
}

/// The table of `ps`.
pub fn processes(records: &[ProcessRecord]) -> String {
    let mut table = Table::new(&[
        (R, "ID"),
        (L, "NAME"),
        (L, "VERSION"),
        (L, "STATE"),
        (R, "PRIORITY"),
        (R, "THREADS"),
        (R, "CAPS"),
        (R, "MEMORY"),
        (R, "OBJECTS"),
        (L, "PUBLISHER"),
    ]);
    for record in records {
        table.row([
            record.id.to_string(),
            text(&record.name, record.name_len),
            version(record.version),
            process_state(record.state).into(),
            record.priority.to_string(),
            record.threads.to_string(),
            record.capabilities.to_string(),
            bytes(record.frames.saturating_mul(FRAME)),
            bytes(record.object_bytes),
            text(&record.publisher, record.publisher_len),
        ]);
    }
    table.render()
}

/// The name of a process in a list of records.
pub fn process_name(records: &[ProcessRecord], id: u64) -> Option<String> {
    records.iter().find(|record| record.id == id).map(|record| text(&record.name, record.name_len))
}

/// The id and the name of a process in a list of records.
pub fn find_process(records: &[ProcessRecord], process: &Process) -> Option<(u64, String)> {
    let id = match process {
        Process::Id(id) => *id,
        Process::Name(name) => {
            let named = |record: &&ProcessRecord| text(&record.name, record.name_len) == name.as_str();
            records.iter().find(named)?.id
        }
    };
    process_name(records, id).map(|name| (id, name))
}

/// Rights as words.
pub fn rights(word: u64) -> String {
    let Some(rights) = Rights::from_word(word) else { return format!("{word:#x}") };
    let names: Vec<String> = rights.iter_names().map(|(name, _)| name.to_ascii_lowercase()).collect();
    if names.is_empty() { "none".into() } else { names.join(" ") }
}

/// Whence a capability came: the rule that permitted the request which it was endowed for. The name of a rule is known
/// while its policy is in force.
fn rule(record: &CapabilityRecord, policy: Option<&Policy>) -> String {
    let place = match (record.request, record.rule) {
        (0, _) => return "-".into(),
        (_, 0) => return "boot manifest".into(),
        (_, number) => number,
    };
    let in_force = policy.filter(|policy| policy.sequence == record.policy);
    let index = usize::try_from(place - 1).unwrap_or(usize::MAX);
    match in_force.and_then(|policy| policy.rules.get(index)) {
        Some(rule) => rule.name.to_string(),
        None => format!("rule {place} of policy {}", record.policy),
    }
}

/// The table of `caps`.
pub fn capabilities(records: &[CapabilityRecord], policy: Option<&Policy>) -> String {
    let columns = [
        (R, "SLOT"),
        (L, "OBJECT"),
        (R, "INDEX"),
        (R, "BADGE"),
        (R, "CHILDREN"),
        (R, "REQUEST"),
        (L, "RULE"),
        (L, "RIGHTS"),
    ];
    let mut table = Table::new(&columns);
    for record in records {
        let object = u8::try_from(record.object_type).ok().and_then(ObjectType::from_number);
        table.row([
            record.slot.to_string(),
            object.map_or("?", ObjectType::name).into(),
            record.index.to_string(),
            badge(record.badge),
            record.children.to_string(),
            if record.request == 0 { "-".into() } else { record.request.to_string() },
            rule(record, policy),
            rights(record.rights),
        ]);
    }
    table.render()
}

/// A badge; instances of modules are counted from one.
fn badge(badge: u64) -> String {
    match badge.checked_sub(FIRST_INSTANCE) {
        _ if badge == 0 => "-".into(),
        Some(instance) => format!("instance {instance}"),
        None => badge.to_string(),
    }
}

/// The lines of `mem`.
pub fn memory(record: &MemoryRecord) -> String {
    let used = record.frames_total.saturating_sub(record.frames_free);
    let frames = |count: u64| bytes(count.saturating_mul(FRAME));
    let mut table = Table::new(&[(L, "MEMORY"), (R, "AMOUNT"), (R, "FRAMES")]);
    for (what, count) in [
        ("managed", record.frames_total),
        ("used", used),
        ("free", record.frames_free),
        ("quarantined", record.frames_quarantined),
    ] {
        table.row([what.into(), frames(count), count.to_string()]);
    }
    table.row(["usable RAM".into(), bytes(record.ram_bytes), (record.ram_bytes / FRAME).to_string()]);
    table.row(["kernel objects used".into(), bytes(record.bytes_used), String::new()]);
    table.row(["kernel objects reserved".into(), bytes(record.bytes_total), String::new()]);
    table.row(["objects alive".into(), record.objects.to_string(), String::new()]);
    table.row(["capabilities alive".into(), record.capabilities.to_string(), String::new()]);
    table.render()
}

/// The table of `modules`.
pub fn modules(records: &[ModuleRecord]) -> String {
    let mut table = Table::new(&[
        (R, "PROCESS"),
        (L, "NAME"),
        (L, "VERSION"),
        (L, "STATE"),
        (L, "PUBLISHER"),
        (R, "REQUESTER"),
        (L, "END"),
    ]);
    for record in records {
        table.row([
            if record.process == 0 { "-".into() } else { record.process.to_string() },
            record.name.to_string(),
            record.version.to_string(),
            record.state.name().into(),
            record.publisher.map_or_else(|| "-".into(), |publisher| publisher.to_string()),
            badge(record.requester),
            end(record.cause, record.code),
        ]);
    }
    if table.is_empty() { "no modules were loaded\n".into() } else { table.render() }
}

/// How a process ended.
pub fn end(cause: u64, code: u64) -> String {
    match cause {
        0 => String::new(),
        1 => format!("exit {code}"),
        2 => "terminated".into(),
        3 => format!("fault {code}"),
        _ => format!("cause {cause}, code {code}"),
    }
}

/// The table of `services`.
pub fn services(records: &[Service]) -> String {
    let mut table = Table::new(&[(L, "SERVICE"), (L, "PUBLISHER"), (R, "REGISTERED BY")]);
    for record in records {
        table.row([record.name.to_string(), record.publisher.to_string(), badge(record.registrant)]);
    }
    if table.is_empty() { "no services are registered\n".into() } else { table.render() }
}

/// What a successful `load` says.
pub fn loaded(name: &Name, loaded: &Loaded) -> String {
    let digest: String = loaded.digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!(
        "{name} {} by {} runs as process {} (manifest {digest}…)\n",
        loaded.version, loaded.publisher, loaded.process
    )
}

/// What a failed `load` says.
pub fn load_failed(name: &Name, version: Option<Version>, failure: &Failure) -> String {
    match (failure.error, version) {
        (LoadError::NoSuchModule, _) => format!("load: no module named `{name}` is known"),
        (LoadError::NoSuchVersion, Some(version)) => {
            format!("load: module `{name}` is known, but not in version {version}")
        }
        (_, Some(version)) => format!("load: `{name}` {version} was not loaded: {failure}"),
        (_, None) => format!("load: `{name}` was not loaded: {failure}"),
    }
}

/// What a failed `stop` says.
pub fn stop_failed(process: u64, failure: &Failure) -> String {
    match failure.error {
        LoadError::NoSuchProcess => {
            format!("stop: no module runs in process {process}; `modules` lists them")
        }
        _ => format!("stop: process {process} was not stopped: {failure}"),
    }
}

/// The time since boot, to the millisecond.
pub fn uptime(nanoseconds: u64) -> String {
    let (seconds, millis) = (nanoseconds / 1_000_000_000, nanoseconds / 1_000_000 % 1_000);
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    match (hours, minutes) {
        (0, 0) => format!("up {seconds}.{millis:03} s\n"),
        (0, _) => format!("up {minutes} min {}.{millis:03} s\n", seconds % 60),
        _ => format!("up {hours} h {minutes} min {}.{millis:03} s\n", seconds % 60),
    }
}

/// Bytes that came from elsewhere (the log, a service) as a terminal may show them: what could move its cursor
/// or change its state is replaced.
pub fn harmless(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars()
        .map(|char| if char.is_control() && !matches!(char, '\n' | '\t') { '?' } else { char })
        .collect()
}

#[cfg(test)]
#[path = "render_tests.rs"]
mod tests;
