//! The event loop around [`service_registry::registry`]: receives, asks the kernel for labels, keeps the endpoints.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

use service_registry::registry::{Answer, CAPACITY, Event, Label, Registry};
use sila_abi::protocol::layout::FIRST_OTHER;
use sila_abi::protocol::registry::{self as protocol, RegistryError};
use sila_abi::protocol::wire::{NAME_WORDS, OK, name_at, name_words, put};
use sila_abi::record::{NAME_MAX, Name};
use sila_abi::syscall::FOREVER;
use sila_abi::{Error, Op, Rights, Slot};
use sila_rt::CallError;
use sila_rt::ipc::{Incoming, Message, Received, recv};
use sila_rt::slots::{OwnedSlot, make};
use sila_rt::{lifecycle, op};

sila_rt::entry!(main);

/// The endpoint that requests arrive on.
const ENDPOINT: Slot = FIRST_OTHER;
/// What a client gets of a service's endpoint, as far as the service gave it.
const CLIENT_RIGHTS: Rights = Rights::SEND.union(Rights::GRANT).union(Rights::COPY);
/// Words of an endpoint's label.
const LABEL_WORDS: usize = 2 + 2 * NAME_WORDS;

/// A refusal with its word 0.
struct Refusal {
    error: RegistryError,
    detail: u64,
}

impl From<RegistryError> for Refusal {
    fn from(error: RegistryError) -> Self {
        Self { error, detail: 0 }
    }
}

impl From<CallError> for Refusal {
    fn from(error: CallError) -> Self {
        Self { error: RegistryError::Kernel, detail: error.error as u64 }
    }
}

/// The answer to a request, and a capability that is deleted once it was sent.
struct Outgoing {
    message: Message,
    lent: Option<OwnedSlot>,
}

impl Outgoing {
    fn words(words: &[u64]) -> Self {
        Self { message: Message::with(OK, words), lent: None }
    }
}

struct Server {
    registry: Registry,
    endpoints: [Option<OwnedSlot>; CAPACITY],
}

fn main() -> u64 {
    let mut server = Server { registry: Registry::new(), endpoints: [const { None }; CAPACITY] };
    if lifecycle::ready().is_err() {
        return 1;
    }
    loop {
        match recv(ENDPOINT, 1, FOREVER) {
            Ok(Received::Message(incoming)) => server.answer(incoming),
            Ok(Received::Flags(_)) => {}
            // A suspended thread that runs again, or a message whose capabilities found no room.
            Err(error) if matches!(error.error, Error::Suspended | Error::TransferFailed) => {}
            Err(_) => return 2,
        }
    }
}

impl Server {
    fn answer(&mut self, mut incoming: Incoming) {
        let outgoing = match self.dispatch(&mut incoming) {
            Ok(outgoing) => outgoing,
            Err(Refusal { error, detail }) => {
                Outgoing { message: Message::with(error.number().into(), &[detail]), lent: None }
            }
        };
        // A caller that is gone, or has no slot for the capability, has only itself to blame.
        let _ = incoming.reply.send(&outgoing.message);
        drop(outgoing.lent);
    }

    fn dispatch(&mut self, incoming: &mut Incoming) -> Result<Outgoing, Refusal> {
        let caller = incoming.badge;
        let words = incoming.message.words();
        match incoming.message.label {
            protocol::REGISTER => {
                let name = name_at(words, 0).ok_or(RegistryError::Malformed)?;
                self.register(caller, name, incoming.caps.take(0))
            }
            protocol::LOOKUP => {
                let name = name_at(words, 0).ok_or(RegistryError::Malformed)?;
                self.lookup(caller, name)
            }
            protocol::LIST => match self.registry.handle(Event::List { cursor: incoming.message.word(0) })? {
                Answer::Record(service) => Ok(Outgoing::words(&service.to_words())),
                _ => Err(RegistryError::Malformed.into()),
            },
            protocol::UNREGISTER => {
                let event = Event::Unregister { caller, instance: incoming.message.word(0) };
                match self.registry.handle(event)? {
                    Answer::Removed { places } => Ok(self.remove(places)),
                    _ => Err(RegistryError::Malformed.into()),
                }
            }
            _ => Err(RegistryError::UnknownRequest.into()),
        }
    }

    fn register(&mut self, caller: u64, name: Name, cap: Option<OwnedSlot>) -> Result<Outgoing, Refusal> {
        let cap = cap.ok_or(RegistryError::NoEndpoint)?;
        let status = op::CapStatus(cap.slot())?;
        let rights = Rights::from_word(status.words[1]).ok_or(RegistryError::NoEndpoint)?;
        let badged = status.words[2] != 0;
        if badged || !rights.usable() || !rights.contains(Rights::SEND | Rights::COPY) {
            return Err(RegistryError::NoEndpoint.into());
        }
        // Fails with WrongType, and so with NoEndpoint, if this is no endpoint.
        let label = label_of(cap.slot()).map_err(|_| RegistryError::NoEndpoint)?;
        self.forget_dead(&name);
        match self.registry.handle(Event::Register { caller, name, label })? {
            Answer::Registered { place } => {
                if let Some(kept) = self.endpoints.get_mut(place) {
                    *kept = Some(cap);
                }
                Ok(Outgoing::words(&[]))
            }
            _ => Err(RegistryError::Malformed.into()),
        }
    }

    /// Takes a service of this name out whose endpoint is gone: its process has ended, though ModuleManager has not
    /// said so yet.
    fn forget_dead(&mut self, name: &Name) {
        let Ok(Answer::Found { place, .. }) = self.registry.handle(Event::Lookup { name: *name }) else {
            return;
        };
        let Some(kept) = self.endpoints.get_mut(place) else { return };
        let gone = |error: CallError| matches!(error.error, Error::ObjectGone | Error::NoCapability);
        if kept.as_ref().is_none_or(|endpoint| label_of(endpoint.slot()).is_err_and(gone)) {
            *kept = None;
            self.registry.forget(place);
        }
    }

    /// The client's copy carries the client's badge, so that the service tells its clients apart.
    fn lookup(&mut self, caller: u64, name: Name) -> Result<Outgoing, Refusal> {
        let Answer::Found { place, entry } = self.registry.handle(Event::Lookup { name })? else {
            return Err(RegistryError::Malformed.into());
        };
        let endpoint =
            self.endpoints.get(place).and_then(Option::as_ref).ok_or(RegistryError::NoSuchService)?;
        let held = Rights::from_word(op::CapStatus(endpoint.slot())?.words[1]).unwrap_or(Rights::SEND);
        let rights = u64::from((held & CLIENT_RIGHTS).bits());
        let lent = match caller {
            protocol::MANAGER_BADGE => make(|dst| op::CapCopy(endpoint.slot(), dst, rights))?,
            badge => make(|dst| op::CapMint(endpoint.slot(), dst, rights, badge))?,
        };
        let mut words = [0; NAME_WORDS + 1];
        put(&mut words, 0, &name_words(&entry.publisher));
        put(&mut words, NAME_WORDS, &[entry.registrant]);
        Ok(Outgoing { message: Message::with(OK, &words).cap(lent.slot()), lent: Some(lent) })
    }

    fn remove(&mut self, places: u64) -> Outgoing {
        for (place, kept) in self.endpoints.iter_mut().enumerate() {
            if places & (1 << place) != 0 {
                *kept = None;
            }
        }
        Outgoing::words(&[places.count_ones().into()])
    }
}

/// The label that the kernel gives for an endpoint; `None` if it has none.
fn label_of(endpoint: Slot) -> Result<Option<Label>, CallError> {
    let mut words = [0; LABEL_WORDS];
    op::invoke_long(endpoint, Op::EndpointLabel, &[], &mut words)?;
    let name = |length: usize, at: usize| {
        let fits = words.get(length).is_some_and(|len| (1..=NAME_MAX as u64).contains(len));
        if fits { name_at(&words, at) } else { None }
    };
    Ok(name(0, 2).zip(name(1, 2 + NAME_WORDS)).map(|(publisher, name)| Label { publisher, name }))
}
