//! ServiceRegistry: which service is reached by which endpoint.
//!
//! A registrant proves nothing by itself: the registry reads the endpoint's service label from the kernel, which
//! set it from the verified manifest of the process that made the endpoint. A client that does not trust the
//! registry reads the label of the capability it got in the same way.
//!
//! The registry knows a caller by its badge: 0 is ModuleManager (which alone holds the unbadged capability and mints
//! all others), an instance's number from [`super::wire::FIRST_INSTANCE`] on, or a boot module's number below it.

use super::wire::{self, NAME_WORDS, name_at, name_words, service_errors};
use crate::record::Name;

/// `Register`: words 0 to 7 the service's name; capability 0: the labelled endpoint (SEND, COPY, and GRANT if
/// clients are to send capabilities). Success has no words.
pub const REGISTER: u32 = 1;
/// `Lookup`: words 0 to 7 the service's name. Success: words 0 to 7 the publisher, word 8 the registrant;
/// capability 0: a send capability, badged with the caller's own badge.
pub const LOOKUP: u32 = 2;
/// `List`: word 0 a cursor, 0 to start. Success: a [`Service`]. [`RegistryError::NoMoreEntries`] ends it.
pub const LIST: u32 = 3;
/// `Unregister`: word 0 the instance that has ended: all its services go. Success: word 0 how many these were.
/// Only ModuleManager may do this.
pub const UNREGISTER: u32 = 4;

/// The badge of ModuleManager's capability: none.
pub const MANAGER_BADGE: u64 = 0;

/// Words of a [`Service`].
pub const SERVICE_WORDS: usize = 2 + 2 * NAME_WORDS;

/// A registered service, as `List` gives it: word 0 the next cursor, word 1 the registrant's badge, words 2 to 9
/// the name, words 10 to 17 the publisher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// What to pass to the next `List`.
    pub cursor: u64,
    /// Badge of the process that registered it.
    pub registrant: u64,
    /// The service's name.
    pub name: Name,
    /// Its publisher, from the endpoint's label.
    pub publisher: Name,
}

impl Service {
    /// The record in words.
    pub fn to_words(&self) -> [u64; SERVICE_WORDS] {
        let mut words = [0; SERVICE_WORDS];
        wire::put(&mut words, 0, &[self.cursor, self.registrant]);
        wire::put(&mut words, 2, &name_words(&self.name));
        wire::put(&mut words, 10, &name_words(&self.publisher));
        words
    }

    /// The record from words.
    pub fn from_words(words: &[u64]) -> Option<Self> {
        Some(Self {
            cursor: *words.first()?,
            registrant: *words.get(1)?,
            name: name_at(words, 2)?,
            publisher: name_at(words, 10)?,
        })
    }
}

service_errors! {
    /// Why the registry refused. The table is as if the call had not been made.
    RegistryError {
        UnknownRequest = 1, "ServiceRegistry has no such request";
        Malformed = 2, "the request to ServiceRegistry is malformed";
        NoEndpoint = 3, "a registration must carry the capability of an endpoint that can be sent to and copied";
        Unlabelled = 4, "the endpoint carries no service label";
        LabelMismatch = 5, "the endpoint's service label names another service";
        AlreadyRegistered = 6, "this process has registered the service already";
        NameTaken = 7, "another process has registered a service of this name";
        OtherPublisher = 8, "a service of this name by another publisher is registered";
        TableFull = 9, "ServiceRegistry has no room for another service";
        NoSuchService = 10, "no service of this name is registered";
        NotAuthorised = 11, "only ModuleManager may remove registrations";
        NoMoreEntries = 12, "the enumeration has ended";
        Kernel = 13, "the kernel refused an operation that ServiceRegistry needs (word 0 names the error)";
        TooManyServices = 14, "this process has registered as many services as it may";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_record_round_trips() {
        let service = Service {
            cursor: 4,
            registrant: 1 << 32,
            name: Name::new("counter").unwrap(),
            publisher: Name::new("sila.demo").unwrap(),
        };
        assert_eq!(Service::from_words(&service.to_words()), Some(service));
        assert_eq!(Service::from_words(&service.to_words()[..17]), None);
    }

    #[test]
    fn registry_error_numbers_are_dense() {
        for (i, &e) in RegistryError::ALL.iter().enumerate() {
            assert_eq!(usize::from(e.number()), i + 1);
            assert_eq!(RegistryError::from_number(e.number()), Some(e));
        }
    }
}
