//! The depot's process: one thread that waits for requests and for its serial port.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

mod desk;
mod port;

use alloc::format;
use depot::store::Store;
use desk::Desk;
use port::Port;
use sila_abi::protocol::depot::{DepotError, LIST, LOCATE, REMOVE, Versions, Wanted};
use sila_abi::protocol::layout::FIRST_OTHER;
use sila_abi::protocol::wire::OK;
use sila_abi::syscall::FOREVER;
use sila_abi::{Error, Rights, Slot};
use sila_rt::courier::bound_notification;
use sila_rt::ipc::{Incoming, Message, Received, recv};
use sila_rt::slots::{OwnedSlot, make};
use sila_rt::{CallError, lifecycle, op};

sila_rt::entry!(main);

/// The endpoint that ModuleManager and the console call.
const ENDPOINT: Slot = FIRST_OTHER;
/// The kernel's KeyRing.
const KEY_RING: Slot = Slot(FIRST_OTHER.0 + 1);
/// The system's policy.
const POLICY: Slot = Slot(FIRST_OTHER.0 + 2);
/// The ports of the serial port, if there is one.
const PORTS: Slot = Slot(FIRST_OTHER.0 + 3);
/// Its interrupt.
const IRQ: Slot = Slot(FIRST_OTHER.0 + 4);

fn main() -> u64 {
    match run() {
        Ok(()) => 0,
        Err(error) => {
            let _ = lifecycle::failed(error.error as u64, &format!("depot: {error}"));
            1
        }
    }
}

fn run() -> Result<(), CallError> {
    let notification = bound_notification()?;
    let mut port = Port::open(notification)?;
    let mut desk = Desk::new();
    // The depot serves, whoever takes note of it.
    let _ = lifecycle::ready();
    loop {
        let deadline = port.as_ref().map_or(FOREVER, Port::deadline);
        match recv(ENDPOINT, 0, deadline) {
            Ok(Received::Message(incoming)) => answer(&mut desk, incoming),
            Ok(Received::Flags(_)) => {}
            Err(error)
                if matches!(error.error, Error::Timeout | Error::Suspended | Error::TransferFailed) => {}
            Err(error) => return Err(error),
        }
        if let Some(port) = &mut port {
            port.serve(&mut desk);
        }
    }
}

fn answer(desk: &mut Desk, incoming: Incoming) {
    let result = match incoming.message.label {
        LOCATE => locate(&desk.store, &incoming.message),
        LIST => match desk.store.list(incoming.message.word(0)) {
            Some(stored) => Ok((Message::with(OK, &stored.to_words()), None)),
            None => Err(DepotError::NoMoreEntries.into()),
        },
        REMOVE => remove(&mut desk.store, &incoming.message),
        _ => Err(DepotError::UnknownRequest.into()),
    };
    // The capability is deleted when the reply has left.
    let (message, _lent) = match result {
        Ok(answer) => answer,
        Err(Refusal(error, detail)) => (Message::with(error.number().into(), &[detail]), None),
    };
    // Who does not wait any more needs no answer.
    let _ = incoming.reply.send(&message);
}

struct Refusal(DepotError, u64);

impl From<DepotError> for Refusal {
    fn from(error: DepotError) -> Self {
        Self(error, 0)
    }
}

type Reply = Result<(Message, Option<OwnedSlot>), Refusal>;

fn locate(store: &Store<OwnedSlot>, message: &Message) -> Reply {
    let wanted = Wanted::from_words(message.words()).ok_or(DepotError::Malformed)?;
    let entry = store.locate(&wanted).ok_or(DepotError::NoSuchPackage)?;
    let rights = u64::from((Rights::READ | Rights::COPY).bits());
    let lent = make(|dst| op::CapCopy(entry.handle.slot(), dst, rights));
    let lent = lent.map_err(|error| Refusal(DepotError::Kernel, error.error as u64))?;
    Ok((Message::with(OK, &entry.located().to_words()).cap(lent.slot()), Some(lent)))
}

fn remove(store: &mut Store<OwnedSlot>, message: &Message) -> Reply {
    match Wanted::from_words(message.words()) {
        Some(Wanted { name, versions: Versions::Exactly(version) }) => {
            store.remove(&name, version).ok_or(DepotError::NoSuchPackage)?;
            Ok((Message::new(OK), None))
        }
        _ => Err(DepotError::Malformed.into()),
    }
}
