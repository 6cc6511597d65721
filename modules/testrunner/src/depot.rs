//! A depot that lies. In the test system the runner has the depot's endpoint: a thread of it answers ModuleManager, and
//! says what the test at hand wants it to say.

use crate::lab::{DEPOT, Failure, Lab, Outcome, equal, holds, name, settle, works};
use crate::loading::{load, load_with};
use alloc::format;
use core::sync::atomic::{AtomicU64, Ordering};
use sila_abi::Error;
use sila_abi::protocol::depot::{DepotError, LOCATE, Located};
use sila_abi::protocol::layout::CLOCK;
use sila_abi::protocol::module_manager::{Failure as LoadFailure, Load, LoadError};
use sila_abi::protocol::push::MAX_FILE;
use sila_abi::protocol::wire::OK;
use sila_abi::record::Version;
use sila_abi::syscall::FOREVER;
use sila_rt::CallError;
use sila_rt::ipc::{Incoming, Message, Received, recv};
use sila_rt::memory::OwnRegion;
use sila_rt::slots::OwnedSlot;
use sila_rt::thread;

/// What the depot says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
enum Lie {
    /// The truth: it has nothing.
    None,
    /// A package in a Region that it can still write.
    Unsealed,
    /// A package that is longer than its Region.
    TooLong,
    /// A Region longer than any package.
    TooLarge,
    /// A package without a Region.
    NoRegion,
    /// A Clock instead of a Region.
    NotARegion,
    /// Words that are no answer.
    Malformed,
    /// An error that does not exist.
    UnknownError,
    /// It gives the call up.
    Silence,
    /// Sealed rubbish, each time of a lower version.
    Rubbish,
}

const LIES: [Lie; 10] = [
    Lie::None,
    Lie::Unsealed,
    Lie::TooLong,
    Lie::TooLarge,
    Lie::NoRegion,
    Lie::NotARegion,
    Lie::Malformed,
    Lie::UnknownError,
    Lie::Silence,
    Lie::Rubbish,
];

static LIE: AtomicU64 = AtomicU64::new(Lie::None as u64);
static ASKED: AtomicU64 = AtomicU64::new(0);

/// Starts the thread that answers for the depot.
///
/// # Errors
/// The kernel's.
pub fn stand_in_for_the_depot() -> Result<(), CallError> {
    thread::spawn(8, || {
        loop {
            match recv(DEPOT, 0, FOREVER) {
                Ok(Received::Message(incoming)) => answer(incoming),
                Ok(Received::Flags(_)) => {}
                Err(error) if matches!(error.error, Error::Suspended | Error::TransferFailed) => {}
                Err(_) => return,
            }
        }
    })
    .map(|_| ())
}

fn answer(incoming: Incoming) {
    let asked = ASKED.fetch_add(1, Ordering::SeqCst);
    let number = LIE.load(Ordering::SeqCst);
    let lie = LIES.into_iter().find(|lie| *lie as u64 == number).unwrap_or(Lie::None);
    if lie == Lie::Silence {
        return;
    }
    let told = if incoming.message.label == LOCATE { tell(lie, asked) } else { Ok((nothing(), None)) };
    let (message, region) = told.unwrap_or((Message::new(99), None));
    let message = match &region {
        Some(region) => message.cap(region.slot()),
        None if lie == Lie::NotARegion => message.cap(CLOCK),
        None => message,
    };
    let _ = incoming.reply.send(&message);
}

fn nothing() -> Message {
    Message::new(DepotError::NoSuchPackage.number().into())
}

fn tell(lie: Lie, asked: u64) -> Result<(Message, Option<OwnedSlot>), CallError> {
    let patch = u16::MAX.saturating_sub(asked as u16);
    let located = |len| {
        let located = Located { version: Version::new(9, 0, patch), len, digest: [0; 32] };
        Message::with(OK, &located.to_words())
    };
    let sealed = |bytes: usize| OwnRegion::new(bytes).and_then(OwnRegion::seal).map(Some);
    Ok(match lie {
        Lie::None | Lie::Silence => (nothing(), None),
        Lie::Unsealed => (located(4096), Some(OwnRegion::new(4096)?.into_region())),
        Lie::TooLong => (located(4097), sealed(4096)?),
        Lie::TooLarge => (located(100), sealed(MAX_FILE as usize + 1)?),
        Lie::NoRegion | Lie::NotARegion => (located(100), None),
        Lie::Malformed => (Message::with(OK, &[u64::MAX; 2]), sealed(4096)?),
        Lie::UnknownError => (Message::new(77), None),
        Lie::Rubbish => {
            let mut region = OwnRegion::new(100)?;
            region.bytes_mut().fill(0xa5);
            (located(100), Some(region.seal()?))
        }
    })
}

/// Lets the depot lie while `test` runs.
fn while_it_tells(lie: Lie, test: impl FnOnce() -> Outcome) -> Outcome {
    ASKED.store(0, Ordering::SeqCst);
    LIE.store(lie as u64, Ordering::SeqCst);
    let outcome = test();
    LIE.store(Lie::None as u64, Ordering::SeqCst);
    outcome.map_err(|failure| failure.at(&format!("{lie:?}")))
}

/// The bundle's counter loads, and a module that only the depot has fails so.
fn fails_only_what_needs_it(lie: Lie, error: LoadError, kernel: Option<Error>) -> Outcome {
    while_it_tells(lie, || {
        let module = load("counter")?;
        equal("the version", module.loaded.version, Version::new(0, 1, 0))?;
        drop(module);
        let failure = only_there()?;
        equal("the failure", (failure.error, failure.kernel_error()), (error, kernel))?;
        holds("the depot was asked", ASKED.load(Ordering::SeqCst) >= 2)
    })
}

fn only_there() -> Result<LoadFailure, Failure> {
    match load_with(&Load::newest(name("only-there")?), true)? {
        Err(failure) => Ok(failure),
        Ok(_) => Err(Failure::new("a module that is nowhere", "a failure", "success")),
    }
}

pub fn a_package_of_the_depot_that_could_still_change_is_not_read(lab: &Lab) -> Outcome {
    let test = || fails_only_what_needs_it(Lie::Unsealed, LoadError::DepotRefused, Some(Error::NotSealed));
    test()?;
    lab.balanced(|| test().and_then(|()| settle()))
}

pub fn a_depot_that_lies_fails_only_loads_that_need_it(lab: &Lab) -> Outcome {
    let cases = [
        (Lie::None, LoadError::NoSuchModule, None),
        (Lie::TooLong, LoadError::DepotRefused, None),
        (Lie::TooLarge, LoadError::DepotRefused, Some(Error::InvalidArgument)),
        (Lie::NoRegion, LoadError::DepotRefused, None),
        (Lie::NotARegion, LoadError::DepotRefused, Some(Error::WrongType)),
        (Lie::Malformed, LoadError::DepotRefused, None),
        (Lie::UnknownError, LoadError::DepotRefused, None),
        (Lie::Silence, LoadError::DepotLost, Some(Error::PeerDiedDelivered)),
    ];
    let test = || {
        cases.into_iter().try_for_each(|(lie, error, kernel)| fails_only_what_needs_it(lie, error, kernel))
    };
    test()?;
    lab.balanced(|| test().and_then(|()| settle()))
}

pub fn rubbish_of_the_depot_is_tried_a_few_times_and_no_more(lab: &Lab) -> Outcome {
    let test = || {
        fails_only_what_needs_it(Lie::Rubbish, LoadError::PackageMalformed, None)?;
        while_it_tells(Lie::Rubbish, || {
            only_there()?;
            equal("how often it was asked", ASKED.load(Ordering::SeqCst), 4)
        })
    };
    test()?;
    lab.balanced(|| test().and_then(|()| settle()))
}

/// The bundle's own version is loaded without asking anybody.
pub fn an_exact_version_of_the_bundle_is_loaded_without_the_depot(_: &Lab) -> Outcome {
    while_it_tells(Lie::Silence, || {
        let load = Load { version: Some(Version::new(0, 1, 0)), ..Load::newest(name("counter")?) };
        let module = load_with(&load, true)?;
        works("loading it", module.map_err(|_| CallError::new(Error::PeerDied)))?;
        equal("questions to the depot", ASKED.load(Ordering::SeqCst), 0)
    })
}
