//! The depot: what was pushed into the system, listed and removed.

use crate::render::bytes;
use crate::slots::DEPOT;
use crate::system::{MAX_LIST, Outcome, QUERY, refused};
use crate::table::{Align, Table};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use sila_rt::ipc::{self, Answer, Message};
use sila_rt::sila_abi::Error;
use sila_rt::sila_abi::protocol::depot::{DepotError, LIST, REMOVE, Stored, Versions, Wanted};
use sila_rt::sila_abi::protocol::wire;
use sila_rt::sila_abi::record::{Digest, Name, Version};
use sila_rt::{CallError, clock};

const L: Align = Align::Left;
const R: Align = Align::Right;

/// `depot`.
pub fn list() -> Outcome {
    let mut records = Vec::new();
    let mut cursor = 0;
    while records.len() < MAX_LIST {
        let answer = ask(&Message::with(LIST, &[cursor]))?;
        match error(&answer) {
            None => {}
            Some(Ok(DepotError::NoMoreEntries)) => break,
            Some(Ok(error)) => return Err(format!("depot: {error}")),
            Some(Err(number)) => return Err(format!("depot: the depot gave an unknown answer ({number})")),
        }
        let record =
            Stored::from_words(answer.message.words()).ok_or("depot: the depot's answer is malformed")?;
        cursor = record.cursor;
        records.push(record);
    }
    Ok(table(&records))
}

/// `depot remove NAME@VERSION`.
pub fn remove(name: &Name, version: Version) -> Outcome {
    let wanted = Wanted { name: *name, versions: Versions::Exactly(version) };
    let answer = ask(&Message::with(REMOVE, &wanted.to_words()))?;
    match error(&answer) {
        None => Ok(format!("the depot keeps {name} {version} no longer\n")),
        Some(Ok(DepotError::NoSuchPackage)) => {
            Err(format!("depot: it keeps no {name} {version}; `depot` lists what it keeps"))
        }
        Some(Ok(error)) => Err(format!("depot: {name} {version} was not removed: {error}")),
        Some(Err(number)) => Err(format!("depot: the depot gave an unknown answer ({number})")),
    }
}

fn ask(request: &Message) -> Result<Answer, String> {
    ipc::call(DEPOT, request, 0, clock::after(QUERY)).map_err(not_asked)
}

fn not_asked(error: CallError) -> String {
    match error.error {
        Error::NoCapability => "depot: this system has no depot".into(),
        _ => refused("depot", "the depot", error),
    }
}

/// The error that an answer reports, or the number of one that nobody knows; `None` if it is a success.
fn error(answer: &Answer) -> Option<Result<DepotError, u32>> {
    let number = answer.message.label;
    let known = || u16::try_from(number).ok().and_then(DepotError::from_number).ok_or(number);
    (number != wire::OK).then(known)
}

/// The name of a module's kind.
const fn kind(number: u64) -> &'static str {
    match number {
        1 => "service",
        2 => "library",
        3 => "agent",
        4 => "model",
        _ => "?",
    }
}

/// As much of a digest as people compare.
pub fn short(digest: &Digest) -> String {
    let digits: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("{digits}…")
}

/// The table of `depot`.
pub fn table(records: &[Stored]) -> String {
    let columns =
        [(L, "NAME"), (L, "VERSION"), (L, "KIND"), (R, "SIZE"), (L, "DIGEST"), (L, "SAYS IT IS BY")];
    let mut table = Table::new(&columns);
    for record in records {
        table.row([
            record.name.to_string(),
            record.version.to_string(),
            kind(record.kind).into(),
            bytes(record.len),
            short(&record.digest),
            record.publisher.to_string(),
        ]);
    }
    if table.is_empty() { "the depot is empty\n".into() } else { table.render() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    #[test]
    fn what_is_kept_is_listed_with_what_it_says_of_itself() {
        let record = Stored {
            cursor: 1,
            version: Version::new(1, 2, 3),
            len: 31_190,
            kind: 1,
            digest: [0xab; 32],
            name: name("hello"),
            publisher: name("guest"),
        };
        let shown = table(&[record, Stored { kind: 77, ..record }]);
        for part in ["hello", "1.2.3", "service", "30.4 KiB", "abababababababab…", "guest", "?"] {
            assert!(shown.contains(part), "{part} not in {shown}");
        }
        assert_eq!(table(&[]), "the depot is empty\n");
    }

    #[test]
    fn a_system_without_depot_says_so_and_others_why_not() {
        assert_eq!(not_asked(Error::NoCapability.into()), "depot: this system has no depot");
        assert!(not_asked(Error::Timeout.into()).contains("did not answer"));
        for outcome in [list(), remove(&name("a"), Version::MIN)] {
            assert!(outcome.unwrap_err().starts_with("depot: "));
        }
    }
}
