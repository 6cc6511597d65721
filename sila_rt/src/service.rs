//! A service: a labelled endpoint, registered, with a loop that answers calls.

use crate::clock;
use crate::error::CallError;
use crate::ipc::{self, Incoming, Message, Received};
use crate::op;
use crate::slots::{self, Caps};
use crate::system;
use core::fmt;
use sila_abi::protocol::layout::{OWN_POOL, REGISTRY};
use sila_abi::protocol::registry::{self, RegistryError};
use sila_abi::protocol::text;
use sila_abi::protocol::wire;
use sila_abi::record::Name;
use sila_abi::syscall::FOREVER;
use sila_abi::{Error, Rights, Slot};

/// How long a registration may take.
const PATIENCE: u64 = 5 * clock::SECOND;

/// Why a service did not come up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceError {
    /// The kernel refused something.
    Kernel(CallError),
    /// The manifest declares no service.
    Unlabelled,
    /// ServiceRegistry refused.
    Registry(Option<RegistryError>),
}

impl From<CallError> for ServiceError {
    fn from(error: CallError) -> Self {
        ServiceError::Kernel(error)
    }
}

impl ServiceError {
    /// A number for [`crate::lifecycle::failed`].
    pub fn code(self) -> u64 {
        match self {
            ServiceError::Kernel(error) => error.error as u64,
            ServiceError::Unlabelled => 1000,
            ServiceError::Registry(error) => 1001 + error.map_or(0, |error| u64::from(error.number())),
        }
    }
}

impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServiceError::Kernel(error) => fmt::Display::fmt(error, f),
            ServiceError::Unlabelled => f.write_str("the manifest declares no service"),
            ServiceError::Registry(Some(error)) => fmt::Display::fmt(error, f),
            ServiceError::Registry(None) => f.write_str("ServiceRegistry gave an unknown answer"),
        }
    }
}

/// A service's receiving end.
#[derive(Debug)]
pub struct Service {
    endpoint: Slot,
}

impl Service {
    /// Makes the endpoint that the manifest declares and registers it. `grant`: clients may send capabilities.
    ///
    /// # Errors
    /// Which step was refused.
    pub fn register(grant: bool) -> Result<Self, ServiceError> {
        let service = Self::labelled()?;
        service.announce(grant)?;
        Ok(service)
    }

    /// Makes the endpoint that the manifest declares: durable and labelled.
    ///
    /// # Errors
    /// The kernel's.
    pub fn labelled() -> Result<Self, CallError> {
        let endpoint = slots::make(|dst| op::EndpointCreate(OWN_POOL, 1 | 2, 0, dst))?;
        Ok(Service { endpoint: endpoint.leak() })
    }

    /// Serves on an endpoint that exists already.
    pub fn on(endpoint: Slot) -> Self {
        Service { endpoint }
    }

    /// The endpoint.
    pub fn endpoint(&self) -> Slot {
        self.endpoint
    }

    /// Registers the endpoint under its label's name with ServiceRegistry.
    ///
    /// # Errors
    /// Which step was refused.
    pub fn announce(&self, grant: bool) -> Result<(), ServiceError> {
        let label = system::endpoint_label(self.endpoint)?.ok_or(ServiceError::Unlabelled)?;
        let rights =
            if grant { Rights::SEND | Rights::COPY | Rights::GRANT } else { Rights::SEND | Rights::COPY };
        let public = slots::make(|dst| op::CapCopy(self.endpoint, dst, rights.bits().into()))?;
        let request = Message::with(registry::REGISTER, &wire::name_words(&label.name)).cap(public.slot());
        let answer = ipc::call(REGISTRY, &request, 0, clock::after(PATIENCE))?;
        // The registry's copy is a child of this one, which therefore stays.
        public.leak();
        match answer.message.label {
            wire::OK => Ok(()),
            code => {
                Err(ServiceError::Registry(u16::try_from(code).ok().and_then(RegistryError::from_number)))
            }
        }
    }

    /// Answers calls for ever. Each message goes to `handle` with up to `caps` capabilities; what that returns is
    /// the reply. Capabilities that it does not take are deleted before the reply leaves.
    ///
    /// # Errors
    /// The kernel's, when receiving fails.
    pub fn run(
        &self,
        caps: u8,
        mut handle: impl FnMut(&mut Request<'_>) -> Message,
    ) -> Result<(), CallError> {
        let receive = || ipc::recv(self.endpoint, caps, FOREVER);
        let mut next = receive();
        loop {
            next = match next {
                Ok(Received::Message(Incoming { badge, message, caps: sent, reply, .. })) => {
                    let mut request = Request { badge, message: &message, caps: sent };
                    let answer = handle(&mut request);
                    drop(request);
                    // If the answer can't be sent, the caller has gone or is told so, and the next one waits.
                    ipc::reply_recv(self.endpoint, reply, &answer, caps, FOREVER).or_else(|_| receive())
                }
                Ok(Received::Flags(_)) => receive(),
                Err(error) if matches!(error.error, Error::Suspended | Error::TransferFailed) => receive(),
                Err(error) => return Err(error),
            };
        }
    }

    /// Answers text calls for ever: `handle` gets the text and the capabilities. Other calls get an error.
    ///
    /// # Errors
    /// The kernel's, when receiving fails.
    pub fn run_text(
        &self,
        caps: u8,
        mut handle: impl FnMut(&str, &mut Caps) -> Result<alloc::string::String, alloc::string::String>,
    ) -> Result<(), CallError> {
        self.run(caps, |request| match request.text() {
            Some(text) => text_reply(handle(text, &mut request.caps)),
            None => text_reply(Err::<&str, _>("the service takes text calls only")),
        })
    }
}

/// A call as a service's handler sees it.
#[derive(Debug)]
pub struct Request<'a> {
    /// Who calls.
    pub badge: u64,
    /// The message.
    pub message: &'a Message,
    /// What came along.
    pub caps: Caps,
}

impl<'a> Request<'a> {
    /// The text, if this is a well-formed text call.
    pub fn text(&self) -> Option<&'a str> {
        if self.message.label != text::TEXT_CALL {
            return None;
        }
        text::decode(self.message.words())
    }
}

/// The reply to a text call.
pub fn text_reply(result: Result<impl AsRef<str>, impl AsRef<str>>) -> Message {
    match result {
        Ok(answer) => Message::with(text::OK, text::encode(answer.as_ref()).words()),
        Err(error) => Message::with(text::ERROR, text::encode(error.as_ref()).words()),
    }
}

/// A service found through ServiceRegistry.
#[derive(Debug)]
pub struct Found {
    /// A send capability.
    pub endpoint: slots::OwnedSlot,
    /// Its label, as the kernel tells it.
    pub label: system::Label,
}

/// Looks a publisher's service up, and checks with the kernel that what the registry gave carries that service's label.
///
/// # Errors
/// `Registry(NoSuchService)`, `Registry(LabelMismatch)` if the registry lied, and so on.
pub fn lookup(publisher: &Name, name: &Name) -> Result<Found, ServiceError> {
    lookup_with(REGISTRY, publisher, name)
}

/// The same of a registry that is reached by another capability than the usual one.
///
/// # Errors
/// As [`lookup`].
pub fn lookup_with(registry: Slot, publisher: &Name, name: &Name) -> Result<Found, ServiceError> {
    let request = Message::with(registry::LOOKUP, &wire::name_words(name));
    let mut answer = ipc::call(registry, &request, 1, clock::after(PATIENCE))?;
    if answer.message.label != wire::OK {
        let error = u16::try_from(answer.message.label).ok().and_then(RegistryError::from_number);
        return Err(ServiceError::Registry(error));
    }
    let endpoint = answer.caps.take(0).ok_or(ServiceError::Registry(None))?;
    let label = system::endpoint_label(endpoint.slot())?
        .filter(|label| label.publisher == *publisher && label.name == *name)
        .ok_or(ServiceError::Registry(Some(RegistryError::LabelMismatch)))?;
    Ok(Found { endpoint, label })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_calls_are_told_from_others() {
        let good = Message::with(text::TEXT_CALL, text::encode("add 5").words());
        let request = |message| Request { badge: 1, message, caps: Caps::default() };
        assert_eq!(request(&good).text(), Some("add 5"));
        let other = Message::with(3, text::encode("add 5").words());
        assert_eq!(request(&other).text(), None);
        let broken = Message::with(text::TEXT_CALL, &[99]);
        assert_eq!(request(&broken).text(), None);
    }

    #[test]
    fn text_replies_carry_result_or_error() {
        let ok = text_reply(Ok::<_, &str>("5"));
        assert_eq!((ok.label, text::decode(ok.words())), (text::OK, Some("5")));
        let error = text_reply(Err::<&str, _>("no"));
        assert_eq!((error.label, text::decode(error.words())), (text::ERROR, Some("no")));
    }
}
