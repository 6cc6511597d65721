//! What the commands ask of the kernel and of other processes.

use crate::command::Process;
use crate::demo::Demo;
use crate::devices;
use crate::render;
use crate::slots::{CONTROL, KEY_RING, MANAGER, USER_POOL};
use crate::trace;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use sila_rt::CallError;
use sila_rt::clock::{self, SECOND};
use sila_rt::ipc::{self, Answer, Message};
use sila_rt::memory::OwnRegion;
use sila_rt::op;
use sila_rt::service::{self, ServiceError};
use sila_rt::sila_abi::Error;
use sila_rt::sila_abi::protocol::layout::REGISTRY;
use sila_rt::sila_abi::protocol::module_manager::{self, Failure, Load, LoadError, Loaded, ModuleRecord};
use sila_rt::sila_abi::protocol::registry::{self, RegistryError, Service};
use sila_rt::sila_abi::protocol::{text, wire};
use sila_rt::sila_abi::record::{Name, Version};
use sila_rt::slots::OwnedSlot;
use sila_rt::system::{self, Audit};

/// How long the console waits for an answer about what is there already.
pub(crate) const QUERY: u64 = 10 * SECOND;
/// How long a load or a stop may take.
const LOAD: u64 = 180 * SECOND;
/// How long a service's call may take.
const CALL: u64 = 120 * SECOND;
/// The most entries of a list that are asked for.
pub(crate) const MAX_LIST: usize = 4096;

/// What a command prints, or the sentence that says why it failed.
pub type Outcome = Result<String, String>;

pub(crate) fn refused(command: &str, what: &str, error: CallError) -> String {
    match error.error {
        Error::Timeout => format!("{command}: {what} did not answer in time"),
        _ => format!("{command}: {what} could not be asked: {error}"),
    }
}

/// `ps`.
pub fn ps() -> Outcome {
    let records = system::processes(CONTROL).map_err(|error| refused("ps", "the kernel", error))?;
    Ok(render::processes(&records))
}

/// `caps ID|NAME`.
pub fn caps(process: &Process) -> Outcome {
    let records = system::processes(CONTROL).map_err(|error| refused("caps", "the kernel", error))?;
    let (process, name) = render::find_process(&records, process).ok_or_else(|| match process {
        Process::Id(id) => format!("caps: there is no process {id}; `ps` lists them"),
        Process::Name(name) => format!("caps: there is no process named `{name}`; `ps` lists them"),
    })?;
    let records = system::capabilities(CONTROL, process)
        .map_err(|error| format!("caps: process {process} ({name}) could not be listed: {error}"))?;
    Ok(render::capabilities(&records, crate::trust::in_force().as_ref()))
}

/// `mem`.
pub fn mem() -> Outcome {
    let record = system::memory(CONTROL).map_err(|error| refused("mem", "the kernel", error))?;
    Ok(render::memory(&record))
}

/// `devices`.
pub fn devices() -> Outcome {
    let records = system::devices(CONTROL).map_err(|error| refused("devices", "the kernel", error))?;
    Ok(devices::table(&records))
}

/// `counters`.
pub fn counters() -> Outcome {
    let record = system::counters(CONTROL).map_err(|error| refused("counters", "the kernel", error))?;
    Ok(trace::counters(&record))
}

/// `trace on` and `trace off`.
pub fn trace(kinds: u64) -> Outcome {
    let words = op::SystemTrace(CONTROL, kinds).map_err(|error| refused("trace", "the kernel", error))?.words;
    Ok(trace::switched(kinds, words[1]))
}

/// `trace show`: the newest records, which it reads at once, so that they are of one moment.
pub fn trace_show(count: usize) -> Outcome {
    let failed = |error| refused("trace", "the kernel", error);
    let written = system::counters(CONTROL).map_err(failed)?.traced;
    let names = system::processes(CONTROL).map_err(failed)?;
    let mut at = written.saturating_sub(count as u64);
    let mut records = Vec::new();
    let (mut lost, mut kinds) = (0, 0);
    while at < written {
        let piece = system::trace(CONTROL, at).map_err(failed)?;
        lost += piece.lost;
        kinds = piece.kinds;
        if piece.records.is_empty() {
            break;
        }
        records.extend(piece.records);
        at = piece.next;
    }
    // Showing the records may have made some.
    let wanted = usize::try_from(written.saturating_sub(at.saturating_sub(records.len() as u64)));
    records.truncate(wanted.unwrap_or(0));
    Ok(trace::table(&records, &names, kinds, lost))
}

/// `audit`.
pub fn audit() -> Outcome {
    match system::audit(CONTROL) {
        Ok(Audit::Sound(pages)) => Ok(format!("{pages} user pages, every rule holds\n")),
        Ok(Audit::Broken(rule, process, address)) => {
            Err(format!("audit: rule {rule} is broken by process {process} at {address:#x}"))
        }
        Err(error) if error.error == Error::InvalidOperation => {
            Err("audit: the system was not started to be audited (run --audit-mappings)".into())
        }
        Err(error) => Err(refused("audit", "the kernel", error)),
    }
}

/// `uptime`.
pub fn uptime() -> Outcome {
    clock::now().map(render::uptime).ok_or_else(|| "uptime: the console holds no Clock".into())
}

/// `modules`.
pub fn modules() -> Outcome {
    let mut records: Vec<ModuleRecord> = Vec::new();
    let mut cursor = 0;
    while records.len() < MAX_LIST {
        let request = Message::with(module_manager::LIST, &[cursor]);
        let answer = ipc::call(MANAGER, &request, 0, clock::after(QUERY))
            .map_err(|error| refused("modules", "ModuleManager", error))?;
        if let Some(failure) = manager_failure(&answer) {
            match failure.error {
                LoadError::NoMoreEntries => break,
                _ => return Err(format!("modules: ModuleManager could not list them: {failure}")),
            }
        }
        let record = ModuleRecord::from_words(answer.message.words())
            .ok_or("modules: ModuleManager's answer is malformed")?;
        cursor = record.cursor;
        records.push(record);
    }
    Ok(render::modules(&records))
}

/// The failure in ModuleManager's answer, if it reports one.
fn manager_failure(answer: &Answer) -> Option<Failure> {
    if answer.message.label == wire::OK {
        return None;
    }
    let failure = Failure::from_reply(answer.message.label, answer.message.words());
    Some(failure.unwrap_or(LoadError::UnknownRequest.into()))
}

/// `services`.
pub fn services() -> Outcome {
    let mut records: Vec<Service> = Vec::new();
    let mut cursor = 0;
    while records.len() < MAX_LIST {
        let request = Message::with(registry::LIST, &[cursor]);
        let answer = ipc::call(REGISTRY, &request, 0, clock::after(QUERY))
            .map_err(|error| refused("services", "ServiceRegistry", error))?;
        if answer.message.label != wire::OK {
            match u16::try_from(answer.message.label).ok().and_then(RegistryError::from_number) {
                Some(RegistryError::NoMoreEntries) => break,
                Some(error) => return Err(format!("services: ServiceRegistry could not list them: {error}")),
                None => return Err("services: ServiceRegistry gave an unknown answer".into()),
            }
        }
        let record = Service::from_words(answer.message.words())
            .ok_or("services: ServiceRegistry's answer is malformed")?;
        cursor = record.cursor;
        records.push(record);
    }
    Ok(render::services(&records))
}

/// `load NAME[@VERSION]`.
pub fn load(name: &Name, version: Option<Version>) -> Outcome {
    let request = Load { version, ..Load::newest(*name) };
    let message = Message::with(module_manager::LOAD, &request.to_words()).cap(USER_POOL);
    let answer = ipc::call(MANAGER, &message, 1, clock::after(LOAD))
        .map_err(|error| refused("load", &format!("ModuleManager, about `{name}`,"), error))?;
    if let Some(failure) = manager_failure(&answer) {
        return Err(render::load_failed(name, version, &failure));
    }
    let loaded = Loaded::from_words(answer.message.words())
        .ok_or_else(|| format!("load: ModuleManager's answer about `{name}` is malformed"))?;
    Ok(render::loaded(name, &loaded))
}

/// `stop ID`.
pub fn stop(process: u64) -> Outcome {
    let request = Message::with(module_manager::STOP, &[process]);
    let answer = ipc::call(MANAGER, &request, 0, clock::after(LOAD))
        .map_err(|error| refused("stop", &format!("ModuleManager, about process {process},"), error))?;
    match manager_failure(&answer) {
        Some(failure) => Err(render::stop_failed(process, &failure)),
        None => Ok(format!("process {process} has ended\n")),
    }
}

/// `call SERVICE WORDS…`.
pub fn call(name: &Name, words: &str, program: Option<Demo>) -> Outcome {
    if words.len() > text::MAX_TEXT {
        return Err(format!("call: `{name}` takes at most {} bytes of text", text::MAX_TEXT));
    }
    // Whose service of that name is meant says the kernel's KeyRing, and not the registry.
    let ring = sila_rt::trust::ring(KEY_RING)
        .map_err(|error| refused("call", &format!("the kernel, about `{name}`,"), error))?;
    let publisher =
        ring.publisher_of(name).ok_or_else(|| format!("call: no publisher may use the name `{name}`"))?;
    let found = service::lookup(&publisher, name).map_err(|error| not_found(name, error))?;
    let region = program
        .map(sealed)
        .transpose()
        .map_err(|error| format!("call: no memory for the program that `{name}` is to run: {error}"))?;
    let mut request = Message::with(text::TEXT_CALL, text::encode(words).words());
    if let Some(region) = &region {
        request = request.cap(region.slot());
    }
    let answer = ipc::call(found.endpoint.slot(), &request, 0, clock::after(CALL))
        .map_err(|error| refused("call", &format!("{publisher}/{name}"), error))?;
    let said = text::decode(answer.message.words())
        .ok_or_else(|| format!("call: the answer of {publisher}/{name} is malformed"))?;
    let said = render::harmless(said.as_bytes());
    match answer.message.label {
        text::OK => Ok(format!("{publisher}/{name}: {said}\n")),
        _ => Err(format!("call: {publisher}/{name} refused: {said}")),
    }
}

fn not_found(name: &Name, error: ServiceError) -> String {
    match error {
        ServiceError::Registry(Some(RegistryError::NoSuchService)) => {
            format!("call: no service named `{name}` is registered; `services` lists them")
        }
        ServiceError::Registry(Some(RegistryError::LabelMismatch)) => {
            format!("call: what ServiceRegistry gave for `{name}` does not carry that service's label")
        }
        error => format!("call: `{name}` could not be looked up: {error}"),
    }
}

/// A program in a Region that nobody can change.
fn sealed(program: Demo) -> Result<OwnedSlot, CallError> {
    let bytes = program.bytes();
    let mut region = OwnRegion::new(bytes.len())?;
    for (to, from) in region.bytes_mut().iter_mut().zip(bytes) {
        *to = *from;
    }
    region.seal()
}

/// `log`: everything that the kernel's ring still holds.
pub fn log() -> Outcome {
    let mut cursor = 0;
    let text = log_after(&mut cursor).map_err(|error| refused("log", "the kernel", error))?;
    Ok(text)
}

/// What the kernel has logged from a sequence number on, which moves to the end.
pub fn log_after(sequence: &mut u64) -> Result<String, CallError> {
    let mut bytes = Vec::new();
    let mut lost = 0u64;
    // The log may grow while it is read, but not for ever.
    for _ in 0..MAX_LIST {
        let piece = system::log(CONTROL, *sequence)?;
        lost = lost.saturating_add(piece.lost);
        *sequence = piece.next;
        if piece.bytes.is_empty() {
            break;
        }
        bytes.extend_from_slice(&piece.bytes);
    }
    let mut text = String::new();
    if lost > 0 {
        text = format!("[{lost} bytes of the log are lost]\n");
    }
    text.push_str(&render::harmless(&bytes));
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_kernel_every_command_fails_with_its_own_sentence() {
        let name = Name::new("counter").unwrap();
        for (outcome, parts) in [
            (ps(), &["ps: ", "the kernel"][..]),
            (caps(&Process::Id(3)), &["caps: "]),
            (counters(), &["counters: ", "the kernel"]),
            (trace(2), &["trace: ", "the kernel"]),
            (trace_show(5), &["trace: ", "the kernel"]),
            (audit(), &["audit: "]),
            (mem(), &["mem: "]),
            (devices(), &["devices: ", "the kernel"]),
            (uptime(), &["uptime: "]),
            (modules(), &["modules: ", "ModuleManager"]),
            (services(), &["services: ", "ServiceRegistry"]),
            (load(&name, None), &["load: ", "`counter`"]),
            (stop(9), &["stop: ", "process 9"]),
            (call(&name, "read", None), &["call: ", "`counter`"]),
            (log(), &["log: "]),
        ] {
            let error = outcome.unwrap_err();
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        }
    }

    #[test]
    fn lookups_that_fail_say_how() {
        let name = Name::new("nosuch").unwrap();
        let error = |error| not_found(&name, ServiceError::Registry(Some(error)));
        assert!(error(RegistryError::NoSuchService).contains("no service named `nosuch`"));
        assert!(error(RegistryError::LabelMismatch).contains("label"));
        assert!(not_found(&name, CallError::new(Error::Timeout).into()).contains("deadline"));
    }
}
