//! The table of services: [`Registry::handle`] takes an [`Event`] and gives an [`Answer`].
//!
//! What an event does to a name depends on the name's [`Standing`] towards the caller alone, by the one table in
//! [`Standing::after`]: every pair has its line, and an illegal one is an error that changes nothing.

use sila_abi::protocol::registry::{MANAGER_BADGE, RegistryError, Service};
use sila_abi::record::Name;

/// The most services that can be registered at one time.
pub const CAPACITY: usize = 64;
/// The most services that one process may register.
pub const PER_REGISTRANT: usize = 8;

/// What the kernel says an endpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    /// Publisher of the module that made the endpoint.
    pub publisher: Name,
    /// The service that its manifest declares.
    pub name: Name,
}

/// What can happen to the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A process offers a service.
    Register {
        /// Badge of the caller.
        caller: u64,
        /// The service's name.
        name: Name,
        /// The label of the endpoint that came along; `None` if it has none.
        label: Option<Label>,
    },
    /// A client looks for a service.
    Lookup {
        /// The service's name.
        name: Name,
    },
    /// Somebody lists the services.
    List {
        /// Where to go on; 0 to start.
        cursor: u64,
    },
    /// A registrant has ended.
    Unregister {
        /// Badge of the caller.
        caller: u64,
        /// Badge of the registrant.
        instance: u64,
    },
}

/// What the binary must answer. The endpoint of the service in place *n* is kept under *n*.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Keep the endpoint in this place.
    Registered {
        /// The place.
        place: usize,
    },
    /// Give the client a copy of the endpoint in this place.
    Found {
        /// The place.
        place: usize,
        /// What is registered there.
        entry: Entry,
    },
    /// A record of the list.
    Record(Service),
    /// Drop the endpoints in these places: bit *n* is place *n*.
    Removed {
        /// The places.
        places: u64,
    },
}

/// A registered service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: Name,
    /// Its publisher, from the endpoint's label.
    pub publisher: Name,
    /// Badge of the process that registered it.
    pub registrant: u64,
}

/// How a name stands towards a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nobody has registered it.
    Absent,
    /// The caller itself has.
    Own,
    /// Another process has, of the same publisher.
    Sibling,
    /// A process of another publisher has.
    Foreign,
}

/// What can happen to a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameEvent {
    /// The caller offers it.
    Register,
    /// The caller looks for it.
    Lookup,
    /// The caller, a registrant, has ended.
    RegistrantEnded,
}

/// What becomes of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is registered by the caller from now on.
    Enter,
    /// It is answered, and stays as it is.
    Answer,
    /// It is absent from now on.
    Leave,
    /// It is none of this event's business.
    Stay,
}

impl Standing {
    /// The transition table.
    ///
    /// # Errors
    /// Why the event is illegal for a name of this standing.
    pub const fn after(self, event: NameEvent) -> Result<Step, RegistryError> {
        use NameEvent::{Lookup, Register, RegistrantEnded};
        match (self, event) {
            (Self::Absent, Register) => Ok(Step::Enter),
            (Self::Absent, Lookup) => Err(RegistryError::NoSuchService),
            (Self::Absent, RegistrantEnded) => Ok(Step::Stay),
            (Self::Own, Register) => Err(RegistryError::AlreadyRegistered),
            (Self::Own, Lookup) => Ok(Step::Answer),
            (Self::Own, RegistrantEnded) => Ok(Step::Leave),
            (Self::Sibling, Register) => Err(RegistryError::NameTaken),
            (Self::Sibling, Lookup) => Ok(Step::Answer),
            (Self::Sibling, RegistrantEnded) => Ok(Step::Stay),
            (Self::Foreign, Register) => Err(RegistryError::OtherPublisher),
            (Self::Foreign, Lookup) => Ok(Step::Answer),
            (Self::Foreign, RegistrantEnded) => Ok(Step::Stay),
        }
    }
}

/// The registry's whole state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registry {
    places: [Option<Entry>; CAPACITY],
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl Registry {
    /// An empty registry.
    #[must_use]
    pub const fn new() -> Self {
        Self { places: [None; CAPACITY] }
    }

    /// The services registered, with their places.
    pub fn entries(&self) -> impl Iterator<Item = (usize, &Entry)> + '_ {
        self.places.iter().enumerate().filter_map(|(place, entry)| Some((place, entry.as_ref()?)))
    }

    /// Takes one event and says how to answer it.
    ///
    /// # Errors
    /// The event is not legal now; the state is as it was.
    pub fn handle(&mut self, event: Event) -> Result<Answer, RegistryError> {
        match event {
            Event::Register { caller, name, label } => self.register(caller, name, label),
            Event::Lookup { name } => self.lookup(name),
            Event::List { cursor } => self.list(cursor),
            Event::Unregister { caller, instance } => self.unregister(caller, instance),
        }
    }

    /// Takes a registration back whose endpoint is gone.
    pub fn forget(&mut self, place: usize) {
        if let Some(entry) = self.places.get_mut(place) {
            *entry = None;
        }
    }

    fn find(&self, name: &Name) -> Option<(usize, Entry)> {
        self.entries().find(|(_, entry)| entry.name == *name).map(|(place, entry)| (place, *entry))
    }

    fn register(&mut self, caller: u64, name: Name, label: Option<Label>) -> Result<Answer, RegistryError> {
        let label = label.ok_or(RegistryError::Unlabelled)?;
        if label.name != name {
            return Err(RegistryError::LabelMismatch);
        }
        let offered = Entry { name, publisher: label.publisher, registrant: caller };
        let standing = match self.find(&name) {
            None => Standing::Absent,
            Some((_, entry)) if entry.publisher != offered.publisher => Standing::Foreign,
            Some((_, entry)) if entry.registrant != offered.registrant => Standing::Sibling,
            Some(_) => Standing::Own,
        };
        standing.after(NameEvent::Register)?;
        if self.entries().filter(|(_, entry)| entry.registrant == caller).count() >= PER_REGISTRANT {
            return Err(RegistryError::TooManyServices);
        }
        let place = self.places.iter().position(Option::is_none).ok_or(RegistryError::TableFull)?;
        if let Some(entry) = self.places.get_mut(place) {
            *entry = Some(offered);
        }
        Ok(Answer::Registered { place })
    }

    fn lookup(&self, name: Name) -> Result<Answer, RegistryError> {
        match self.find(&name) {
            None => Err(RegistryError::NoSuchService),
            Some((place, entry)) => Ok(Answer::Found { place, entry }),
        }
    }

    fn list(&self, cursor: u64) -> Result<Answer, RegistryError> {
        let start = usize::try_from(cursor).map_err(|_| RegistryError::NoMoreEntries)?;
        let next = self.entries().find(|(place, _)| *place >= start);
        let (place, entry) = next.ok_or(RegistryError::NoMoreEntries)?;
        Ok(Answer::Record(Service {
            cursor: place as u64 + 1,
            registrant: entry.registrant,
            name: entry.name,
            publisher: entry.publisher,
        }))
    }

    fn unregister(&mut self, caller: u64, instance: u64) -> Result<Answer, RegistryError> {
        if caller != MANAGER_BADGE {
            return Err(RegistryError::NotAuthorised);
        }
        let mut places = 0;
        for (place, slot) in self.places.iter_mut().enumerate() {
            let standing = match slot {
                None => Standing::Absent,
                Some(entry) if entry.registrant == instance => Standing::Own,
                Some(_) => Standing::Sibling,
            };
            if standing.after(NameEvent::RegistrantEnded)? == Step::Leave {
                *slot = None;
                places |= 1 << place;
            }
        }
        Ok(Answer::Removed { places })
    }
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
