//! Loads through ModuleManager: what works, and what is refused for which reason.

use crate::lab::{
    Failure, Lab, MANAGER, Outcome, POOL, SYSTEM, accounts, equal, filled, holds, name, settle, works,
};
use alloc::format;
use alloc::string::String;
use sila_abi::protocol::layout::CLOCK;
use sila_abi::protocol::module_manager::{
    Failure as LoadFailure, LIST, LOAD, Load, LoadError, Loaded, ModuleRecord, ModuleState, STOP,
};
use sila_abi::protocol::text;
use sila_abi::record::Version;
use sila_rt::clock::{self, SECOND};
use sila_rt::ipc::{self, Message};
use sila_rt::service::lookup;
use sila_rt::slots::OwnedSlot;
use sila_rt::system::processes;

/// Exports `fib`: the Fibonacci number of its argument, by recursion.
const FIB: &[u8] =
    b"\x00asm\x01\x00\x00\x00\x01\x06\x01\x60\x01\x7e\x01\x7e\x03\x02\x01\x00\x07\x07\x01\x03fib\x00\
    \x00\x0a\x1e\x01\x1c\x00\x20\x00B\x02T\x04\x7e\x20\x00\x05\x20\x00B\x01\x7d\x10\x00\x20\x00B\x02\
    \x7d\x10\x00\x7c\x0b\x0b";

/// A module that this test loaded; stopped when dropped.
pub(crate) struct Module {
    pub loaded: Loaded,
    _process: Option<OwnedSlot>,
}

impl Drop for Module {
    fn drop(&mut self) {
        let _ = stop(self.loaded.process);
    }
}

pub(crate) fn load_with(load: &Load, pool: bool) -> Result<Result<Module, LoadFailure>, Failure> {
    let request = Message::with(LOAD, &load.to_words());
    let request = if pool { request.cap(POOL) } else { request };
    let request = load.grants.iter().flatten().fold(request, |request, _| request.cap(CLOCK));
    let mut answer =
        works("calling ModuleManager", ipc::call(MANAGER, &request, 1, clock::after(30 * SECOND)))?;
    if answer.message.label == 0 {
        let loaded = Loaded::from_words(answer.message.words());
        let loaded = loaded.ok_or_else(|| Failure::new("the answer to Load", "a Loaded", "other words"))?;
        return Ok(Ok(Module { loaded, _process: answer.caps.take(0) }));
    }
    let failure = LoadFailure::from_reply(answer.message.label, answer.message.words());
    let number = answer.message.label;
    failure.map(Err).ok_or_else(|| Failure::new("the answer to Load", "an error", format!("label {number}")))
}

pub(crate) fn load(module: &str) -> Result<Module, Failure> {
    let load = Load::newest(name(module)?);
    load_with(&load, true)?
        .map_err(|failure| Failure::new(format!("loading {module}"), "success", format!("{failure:?}")))
}

fn refused(what: &str, load: &Load, pool: bool, want: LoadError) -> Outcome {
    match load_with(load, pool)? {
        Err(failure) => equal(what, failure.error, want),
        Ok(_) => Err(Failure::new(what, want.name(), "success")),
    }
}

fn stop(process: u64) -> Outcome {
    let request = Message::with(STOP, &[process]);
    let answer = works("calling ModuleManager", ipc::call(MANAGER, &request, 0, clock::after(10 * SECOND)))?;
    equal("the answer to Stop", answer.message.label, 0)
}

pub(crate) fn ask(service: &str, question: &str, program: Option<&[u8]>) -> Result<String, Failure> {
    let found = lookup(&name("sila")?, &name(service)?);
    let found = found
        .map_err(|error| Failure::new(format!("looking up {service}"), "success", format!("{error:?}")))?;
    let mut message = Message::with(text::TEXT_CALL, text::encode(question).words());
    let region = match program {
        Some(program) => Some(works("sealing", filled(program)?.seal())?),
        None => None,
    };
    if let Some(region) = &region {
        message = message.cap(region.slot());
    }
    let answer = works(
        "calling the service",
        ipc::call(found.endpoint.slot(), &message, 0, clock::after(20 * SECOND)),
    )?;
    let said = text::decode(answer.message.words()).unwrap_or("no text");
    match answer.message.label {
        text::OK => Ok(said.into()),
        label => Err(Failure::new(question, "an answer", format!("label {label}: {said}"))),
    }
}

pub fn counter_loads_and_counts(_: &Lab) -> Outcome {
    let module = load("counter")?;
    equal("the publisher", module.loaded.publisher.as_str(), "sila")?;
    equal("add 5", ask("counter", "add 5", None)?.as_str(), "5")?;
    equal("add 7", ask("counter", "add 7", None)?.as_str(), "12")?;
    equal("read", ask("counter", "read", None)?.as_str(), "12")?;
    let wrong = ask("counter", "divide", None);
    holds("an unknown operation is an error", wrong.is_err())?;
    stop(module.loaded.process)?;
    holds("the service is gone", lookup(&name("sila")?, &name("counter")?).is_err())
}

pub fn wasm_loads_and_runs_a_program(_: &Lab) -> Outcome {
    let _module = load("wasm")?;
    let answer = ask("wasm", "run fib 15", Some(FIB))?;
    holds(&format!("fib 15 is 610: {answer}"), answer.starts_with("610 "))?;
    let tired = ask("wasm", "run fib 30 fuel=1000", Some(FIB));
    holds("too little fuel is an error", tired.is_err())?;
    holds("no program is an error", ask("wasm", "run fib 3", Some(b"rubbish")).is_err())?;
    let answer = ask("wasm", "run fib 10", Some(FIB))?;
    holds(&format!("fib 10 is 55: {answer}"), answer.starts_with("55 "))
}

pub fn loaded_modules_are_enumerated(_: &Lab) -> Outcome {
    let modules = [load("counter")?, load("wasm")?];
    let list = works("SystemProcess", processes(SYSTEM))?;
    for module in &modules {
        let record = list.iter().find(|record| record.id == module.loaded.process);
        equal("the state of its process", record.map(|record| record.state), Some(2))?;
        equal("what ModuleManager says", state_of(module.loaded.process)?, Some(ModuleState::Running))?;
    }
    let gone = modules.map(|module| module.loaded.process);
    let list = works("SystemProcess", processes(SYSTEM))?;
    holds(
        "both have ended",
        gone.iter().all(|id| list.iter().all(|record| record.id != *id || record.state > 2)),
    )
}

fn state_of(process: u64) -> Result<Option<ModuleState>, Failure> {
    let mut cursor = 0;
    for _ in 0..100 {
        let request = Message::with(LIST, &[cursor]);
        let answer = works("List", ipc::call(MANAGER, &request, 0, clock::after(5 * SECOND)))?;
        let Some(record) =
            ModuleRecord::from_words(answer.message.words()).filter(|_| answer.message.label == 0)
        else {
            return Ok(None);
        };
        if record.process == process {
            return Ok(Some(record.state));
        }
        cursor = record.cursor;
    }
    Ok(None)
}

pub fn load_and_stop_of_counter_return_every_frame_and_byte(lab: &Lab) -> Outcome {
    lab.balanced(|| {
        let module = load("counter")?;
        equal("add 5", ask("counter", "add 5", None)?.as_str(), "5")?;
        drop(module);
        settle()
    })
}

pub fn load_and_stop_of_wasm_return_every_frame_and_byte(lab: &Lab) -> Outcome {
    lab.balanced(|| {
        let module = load("wasm")?;
        let answer = ask("wasm", "run fib 5", Some(FIB))?;
        holds(&format!("fib 5 is 5: {answer}"), answer.starts_with("5 "))?;
        drop(module);
        settle()
    })
}

pub fn an_unknown_module_is_refused_by_name(_: &Lab) -> Outcome {
    let unknown = Load::newest(name("nosuch")?);
    refused("an unknown module", &unknown, true, LoadError::NoSuchModule)?;
    let version = Load { version: Some(Version::new(99, 0, 0)), ..Load::newest(name("counter")?) };
    refused("an unknown version", &version, true, LoadError::NoSuchVersion)
}

pub fn a_load_without_a_pool_is_refused(_: &Lab) -> Outcome {
    refused("no Pool", &Load::newest(name("counter")?), false, LoadError::MissingPool)?;
    let malformed = Message::with(LOAD, &[u64::MAX; 4]).cap(POOL);
    let answer = works("calling ModuleManager", ipc::call(MANAGER, &malformed, 1, clock::after(5 * SECOND)))?;
    equal("a malformed request", answer.message.label, LoadError::Malformed.number().into())?;
    let unknown =
        works("calling ModuleManager", ipc::call(MANAGER, &Message::new(77), 1, clock::after(5 * SECOND)))?;
    equal("an unknown request", unknown.message.label, LoadError::UnknownRequest.number().into())
}

pub fn a_load_beyond_the_scope_is_refused(_: &Lab) -> Outcome {
    let counter = name("counter")?;
    for reserved in ["clock", "registry", "lifecycle"] {
        let grants = [Some(name(reserved)?), None, None];
        let load = Load { grants, ..Load::newest(counter) };
        refused(reserved, &load, true, LoadError::GrantOutsideScope)?;
    }
    let foreign = Message::with(STOP, &[1]);
    let answer = works("calling ModuleManager", ipc::call(MANAGER, &foreign, 0, clock::after(5 * SECOND)))?;
    equal("stopping the supervisor", answer.message.label, LoadError::NoSuchProcess.number().into())
}

pub fn a_load_with_another_digest_is_refused(_: &Lab) -> Outcome {
    let load = Load { digest: Some([7; 32]), ..Load::newest(name("counter")?) };
    refused("another digest", &load, true, LoadError::DigestMismatch)
}

/// Loads every bad package of a group; each must be refused for its reason and leave nothing.
pub(crate) fn bad_packages(lab: &Lab, group: &str) -> Outcome {
    let mut seen = 0;
    let mut before = None;
    // What every process on the way needs for a whole load is there from then on.
    drop(load("counter")?);
    for line in lab.text(crate::BAD_PACKAGES)?.lines().filter(|line| line.split(' ').next() == Some(group)) {
        let bad = BadPackage::parse(line)
            .ok_or_else(|| Failure::new("the list of bad packages", "a line", line))?;
        let load = Load { version: Some(bad.version), ..Load::newest(name(bad.hint)?) };
        match load_with(&load, true)? {
            Ok(_) => return Err(Failure::new(bad.what, "a refusal", "success")),
            Err(failure) => {
                let got = (failure.error.number().into(), failure.detail, failure.more);
                if got != (bad.label, bad.detail, bad.more) {
                    let want = format!("error {} words {} {}", bad.label, bad.detail, bad.more);
                    return Err(Failure::new(bad.what, want, format!("{failure:?}")));
                }
            }
        }
        seen += 1;
        // The first one grows heaps and slots.
        settle()?;
        let now = accounts()?;
        if let Some(before) = before.filter(|_| seen > 2) {
            equal(&format!("the accounts after: {}", bad.what), now, before)?;
        }
        before = Some(now);
    }
    holds("there are such packages", seen > 0)
}

/// A line of the list.
struct BadPackage<'a> {
    hint: &'a str,
    version: Version,
    label: u64,
    detail: u64,
    more: u64,
    what: &'a str,
}

impl<'a> BadPackage<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut words = line.splitn(7, ' ').skip(1);
        Some(Self {
            hint: words.next()?,
            version: Version::parse(words.next()?)?,
            label: words.next()?.parse().ok()?,
            detail: words.next()?.parse().ok()?,
            more: words.next()?.parse().ok()?,
            what: words.next()?,
        })
    }
}

pub fn packages_with_a_flipped_bit_are_refused(lab: &Lab) -> Outcome {
    bad_packages(lab, "flipped")
}

pub fn truncated_packages_are_refused(lab: &Lab) -> Outcome {
    bad_packages(lab, "truncated")
}

pub fn packages_with_bad_headers_are_refused(lab: &Lab) -> Outcome {
    bad_packages(lab, "header")
}

pub fn packages_with_bad_signatures_are_refused(lab: &Lab) -> Outcome {
    bad_packages(lab, "signature")
}

pub fn packages_with_bad_keys_are_refused(lab: &Lab) -> Outcome {
    bad_packages(lab, "key")
}

pub fn packages_with_bad_manifests_are_refused(lab: &Lab) -> Outcome {
    bad_packages(lab, "manifest")
}

pub fn packages_with_mixed_parts_are_refused(lab: &Lab) -> Outcome {
    bad_packages(lab, "mixed")
}

pub fn packages_with_bad_payloads_are_refused(lab: &Lab) -> Outcome {
    bad_packages(lab, "payload")
}

pub fn packages_beyond_their_authority_are_refused(lab: &Lab) -> Outcome {
    bad_packages(lab, "authority")
}
