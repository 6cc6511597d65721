//! The courier to the depot, and packages that come from there.

use crate::DEPOT;
use crate::couriers::kernel_failure;
use alloc::sync::Arc;
use module_manager::event::{Found, Instance};
use sila_abi::protocol::depot::{DepotError, LOCATE, Located, Wanted};
use sila_abi::protocol::module_manager::{Failure, LoadError};
use sila_abi::protocol::push::MAX_FILE;
use sila_abi::protocol::wire::OK;
use sila_abi::{Error, Slot};
use sila_rt::clock;
use sila_rt::ipc::{self, Answer, Message};
use sila_rt::memory::SealedRegion;

/// How long the depot may take to answer.
const PATIENCE: u64 = 2 * clock::SECOND;

/// A package of the depot: in a Region that the kernel says is sealed, so that the depot can't change it after it was
/// verified. It stays mapped whatever the depot does.
pub struct Package {
    region: SealedRegion,
    found: Found,
}

impl Package {
    /// What the depot said of it.
    pub const fn found(&self) -> Found {
        self.found
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        let len = usize::try_from(self.found.len).unwrap_or(0);
        self.region.bytes().get(..len).unwrap_or_default()
    }

    /// The Region.
    pub fn slot(&self) -> Slot {
        self.region.slot()
    }
}

/// Ask for a package.
pub struct LocateJob {
    /// The load.
    pub instance: Instance,
    /// Which.
    pub wanted: Wanted,
}

/// What the depot gave.
pub type Outcome = Result<Option<Arc<Package>>, Failure>;

/// The courier. A system without depot has no package in it.
pub fn locate(job: LocateJob) -> (Instance, Outcome) {
    let request = Message::with(LOCATE, &job.wanted.to_words());
    let result = match ipc::call(DEPOT, &request, 1, clock::after(PATIENCE)) {
        Ok(answer) => located(answer),
        Err(error) if error.error == Error::NoCapability => Ok(None),
        Err(error) => Err(kernel_failure(LoadError::DepotLost, &error)),
    };
    (job.instance, result)
}

fn located(mut answer: Answer) -> Outcome {
    if answer.message.label == DepotError::NoSuchPackage.number().into() {
        return Ok(None);
    }
    let located = Located::from_words(answer.message.words()).filter(|_| answer.message.label == OK);
    let (located, region) = located.zip(answer.caps.take(0)).ok_or(LoadError::DepotRefused)?;
    let refused = |error| kernel_failure(LoadError::DepotRefused, &error);
    let region = SealedRegion::map(region, MAX_FILE as usize).map_err(refused)?;
    if located.len > region.bytes().len() as u64 {
        return Err(LoadError::DepotRefused.into());
    }
    let found = Found { version: located.version, len: located.len };
    Ok(Some(Arc::new(Package { region, found })))
}
