//! What happens to ModuleManager, and what it does about it.

use crate::catalogue::PackageRef;
use crate::facts::Facts;
use crate::stage::Stage;
use alloc::boxed::Box;
use sila_abi::policy::Policy;
use sila_abi::protocol::depot::Wanted;
use sila_abi::protocol::module_manager::{Failure, Load, Loaded};
use sila_abi::record::Version;

/// A request, as the binary numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// A load and the module that comes of it: the badge under which it reports. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instance(pub u64);

bitflags::bitflags! {
    /// What exists for a load and must be released.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Held: u8 {
        /// The requester's Pool and named capabilities.
        const GRANTS = 1 << 0;
        /// The output Region, later the image.
        const OUTPUT = 1 << 1;
        /// A job of DeepCompression.
        const JOB = 1 << 2;
        /// The Region with the proof.
        const PROOF = 1 << 3;
        /// The capabilities minted for the module.
        const SOURCES = 1 << 4;
        /// The process.
        const PROCESS = 1 << 5;
        /// The depot's package.
        const PACKAGE = 1 << 6;
        /// The image in the module cache.
        const CACHED = 1 << 7;
    }
}

/// A package that the depot gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its version, as the depot has it.
    pub version: Version,
    /// Its bytes.
    pub len: u64,
}

/// What a step that succeeded brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// Nothing but its effect.
    Plain,
    /// The depot's package, mapped and sealed, or none.
    Located(Option<Found>),
    /// The facts of the verified package.
    Verified(Box<Facts>),
    /// The image in the module cache.
    Cached,
    /// DeepCompression's job.
    Submitted(u64),
    /// DeepCompression has no verdict yet.
    NotReady,
    /// The process id.
    Created(u64),
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Somebody wants a module.
    Load {
        /// The request.
        request: RequestId,
        /// The requester's badge.
        requester: u64,
        /// What it wants.
        target: Box<Load>,
    },
    /// Somebody wants a module to end.
    Stop {
        /// The request.
        request: RequestId,
        /// The requester's badge.
        requester: u64,
        /// The process.
        process: u64,
    },
    /// The step of a load's stage has ended.
    Step {
        /// The load.
        instance: Instance,
        /// How.
        result: Result<Done, Failure>,
    },
    /// DeepCompression signalled: some job is done.
    Signalled,
    /// A module reports `Ready`.
    Ready(Instance),
    /// A module reports that it can't do its work.
    ReportedFailure {
        /// The module.
        instance: Instance,
        /// Its own error code.
        code: u64,
    },
    /// A process ended by itself.
    Died {
        /// The module.
        instance: Instance,
        /// The cause, as ProcessStatus gives it.
        cause: u64,
        /// The code, as ProcessStatus gives it.
        code: u64,
    },
    /// A policy is in force, perhaps another one than before.
    Policy(Box<Policy>),
    /// Time went by.
    Tick,
}

/// What the binary must do. Those marked *step* end with an [`Event::Step`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The capabilities that came with the request are the load's from now on.
    Adopt(RequestId, Instance),
    /// Step: ask the depot for a package.
    Locate(Instance, Wanted),
    /// Step: verify the package and its manifest.
    Verify(Instance, PackageRef),
    /// Step: find the image in the module cache.
    Check(Instance, Box<Facts>),
    /// Step: make a Region for so many bytes, from the requester's Pool.
    CreateOutput(Instance, u64),
    /// Step: hand the payload to DeepCompression, with the largest window that policy permits (as a power of two).
    Submit(Instance, Box<Facts>, u8),
    /// Step: fetch the verdict of the job.
    Collect(Instance, u64),
    /// Step: copy the payload into the output Region.
    Copy(Instance, Box<Facts>),
    /// Step: take the output Region back from everybody and seal it.
    Seal(Instance),
    /// Step: write the proof.
    BuildProof(Instance, PackageRef),
    /// Step: offer image and proof to the module cache. That it does not take them is no failure.
    Cache(Instance),
    /// Step: mint the sources of the requests.
    Endow(Instance, Box<Facts>, Box<Load>),
    /// Step: let the kernel make the process, from the cached image or from the parts, with this priority.
    Create(Instance, u8),
    /// Step: hold the process, by its number, against the contract of loading and its own.
    Confirm(Instance, Box<Facts>, Box<Load>, u64),
    /// Step: watch and start the process.
    Start(Instance),
    /// Step: tell ServiceRegistry that the instance has ended.
    Unregister(Instance),
    /// Drop what is held: a process is terminated, a job (its number follows) cancelled, all else deleted. Always
    /// succeeds.
    Release(Instance, Held, u64),
    /// Answer a load.
    Loaded(RequestId, Instance, Loaded),
    /// Answer a stop.
    Stopped(RequestId),
    /// Answer with a failure.
    Refused(RequestId, Failure),
}

impl Done {
    /// Whether a step of this stage brings such a thing.
    pub(crate) const fn belongs_to(&self, stage: Stage) -> bool {
        match self {
            Self::Located(_) => matches!(stage, Stage::Locating),
            Self::Verified(_) => matches!(stage, Stage::Verifying),
            Self::Cached => matches!(stage, Stage::Checking | Stage::Caching),
            Self::Submitted(_) => matches!(stage, Stage::Submitting),
            Self::Created(_) => matches!(stage, Stage::Creating),
            Self::NotReady => matches!(stage, Stage::Collecting),
            Self::Plain => !matches!(
                stage,
                Stage::Locating | Stage::Verifying | Stage::Queued | Stage::Submitting | Stage::Creating
            ),
        }
    }
}
