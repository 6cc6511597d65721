//! Where a load stands, and the one transition table: every (stage, trigger) pair has its line.

use sila_abi::protocol::module_manager::{LoadError, ModuleState};

/// Where a load, and then its module, stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// The depot is asked for a package.
    Locating,
    /// The verifier checks package and manifest.
    Verifying,
    /// The kernel's module cache is searched.
    Checking,
    /// The output Region is being made.
    Allocating,
    /// The load waits until policy permits one more decompression.
    Queued,
    /// The payload is being handed to DeepCompression.
    Submitting,
    /// DeepCompression works.
    Decompressing,
    /// The verdict is being fetched.
    Collecting,
    /// A payload without codec is being copied.
    Copying,
    /// The image is being sealed.
    Sealing,
    /// The proof of the load is being written.
    Proving,
    /// The image is offered to the module cache, where the kernel verifies it.
    Caching,
    /// The sources of the module's capabilities are being made.
    Endowing,
    /// The kernel makes the process; if the image is not from the cache, it verifies it first.
    Creating,
    /// The process is held against the contracts.
    Confirming,
    /// The process is being watched and started.
    Starting,
    /// The module initialises.
    Initialising,
    /// The module is ready.
    Running,
    /// The process has ended; its services are being unregistered.
    Ending,
    /// The process has ended.
    Ended,
}

/// What can happen to a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trigger {
    /// The stage's step succeeded.
    Done,
    /// The stage's step succeeded, and the payload is stored without codec.
    DoneStored,
    /// The stage's step found the image in the module cache.
    DoneCached,
    /// The stage's step failed.
    Failed,
    /// The stage's step failed because of the depot's package, and another one may do.
    Unfit,
    /// Policy permits one more decompression.
    Turn,
    /// There is no verdict yet.
    NotReady,
    /// DeepCompression signalled.
    Signal,
    /// The stage's deadline passed.
    Deadline,
    /// The module reports `Ready`.
    Ready,
    /// The module reports that it can't do its work.
    ReportedFailure,
    /// The process ended by itself.
    Died,
    /// Somebody stops the module.
    Stop,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// This stage.
    To(Stage),
    /// The load fails: everything made is undone.
    Fail,
    /// The module ends: everything is given back.
    End,
    /// Nothing now; the signal counts when the stage is left.
    Remember,
    /// Nothing.
    Stay,
}

/// Why an event is illegal now. It has changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Illegal {
    /// No such step is under way.
    Step,
    /// The report does not come from a module that is starting.
    Report,
    /// There is no process to stop.
    NoProcess,
    /// The module is being stopped already.
    AlreadyEnding,
}

impl Illegal {
    /// The error for whoever caused the event.
    #[must_use]
    pub const fn error(self) -> LoadError {
        match self {
            Self::Step | Self::Report => LoadError::NotAnInstance,
            Self::NoProcess => LoadError::NoSuchProcess,
            Self::AlreadyEnding => LoadError::AlreadyEnding,
        }
    }
}

impl Stage {
    /// Every stage, in order.
    pub const ALL: [Self; 20] = [
        Self::Locating,
        Self::Verifying,
        Self::Checking,
        Self::Allocating,
        Self::Queued,
        Self::Submitting,
        Self::Decompressing,
        Self::Collecting,
        Self::Copying,
        Self::Sealing,
        Self::Proving,
        Self::Caching,
        Self::Endowing,
        Self::Creating,
        Self::Confirming,
        Self::Starting,
        Self::Initialising,
        Self::Running,
        Self::Ending,
        Self::Ended,
    ];

    /// The stage as the protocol names it.
    #[must_use]
    pub const fn public(self) -> ModuleState {
        match self {
            Self::Initialising => ModuleState::Initialising,
            Self::Running => ModuleState::Running,
            Self::Ending => ModuleState::Ending,
            Self::Ended => ModuleState::Ended,
            _ => ModuleState::Loading,
        }
    }

    /// Whether a decompression is under way, as policy counts them.
    #[must_use]
    pub const fn is_decompressing(self) -> bool {
        matches!(self, Self::Submitting | Self::Decompressing | Self::Collecting)
    }

    /// Whether the load is under way: neither ready nor over.
    #[must_use]
    pub fn is_loading(self) -> bool {
        self <= Self::Initialising
    }

    /// The transition table, one row for each trigger.
    ///
    /// # Errors
    /// Why the trigger is illegal in this stage.
    pub const fn after(self, trigger: Trigger) -> Result<Next, Illegal> {
        match trigger {
            Trigger::Done => self.after_done(),
            Trigger::DoneStored => match self {
                Self::Allocating => Ok(Next::To(Self::Copying)),
                _ => Err(Illegal::Step),
            },
            Trigger::DoneCached => match self {
                Self::Checking => Ok(Next::To(Self::Endowing)),
                _ => Err(Illegal::Step),
            },
            Trigger::Failed => match self {
                Self::Queued | Self::Decompressing | Self::Initialising | Self::Running | Self::Ended => {
                    Err(Illegal::Step)
                }
                Self::Ending => Ok(Next::To(Self::Ended)),
                _ => Ok(Next::Fail),
            },
            Trigger::Unfit => match self {
                Self::Verifying => Ok(Next::To(Self::Locating)),
                _ => Err(Illegal::Step),
            },
            Trigger::Turn => match self {
                Self::Queued => Ok(Next::To(Self::Submitting)),
                _ => Err(Illegal::Step),
            },
            Trigger::NotReady => match self {
                Self::Collecting => Ok(Next::To(Self::Decompressing)),
                _ => Err(Illegal::Step),
            },
            Trigger::Signal => match self {
                Self::Decompressing => Ok(Next::To(Self::Collecting)),
                Self::Submitting | Self::Collecting => Ok(Next::Remember),
                _ => Ok(Next::Stay),
            },
            Trigger::Deadline => match self {
                Self::Decompressing | Self::Initialising => Ok(Next::Fail),
                _ => Ok(Next::Stay),
            },
            Trigger::Ready => match self {
                Self::Initialising => Ok(Next::To(Self::Running)),
                _ => Err(Illegal::Report),
            },
            Trigger::ReportedFailure => match self {
                Self::Initialising => Ok(Next::Fail),
                Self::Running => Ok(Next::Stay),
                _ => Err(Illegal::Report),
            },
            Trigger::Died => match self {
                Self::Initialising => Ok(Next::Fail),
                Self::Running => Ok(Next::End),
                Self::Ending | Self::Ended => Ok(Next::Stay),
                _ => Err(Illegal::NoProcess),
            },
            Trigger::Stop => match self {
                Self::Initialising => Ok(Next::Fail),
                Self::Running => Ok(Next::End),
                Self::Ending => Err(Illegal::AlreadyEnding),
                _ => Err(Illegal::NoProcess),
            },
        }
    }

    const fn after_done(self) -> Result<Next, Illegal> {
        Ok(Next::To(match self {
            Self::Locating => Self::Verifying,
            Self::Verifying => Self::Checking,
            Self::Checking => Self::Allocating,
            Self::Allocating => Self::Queued,
            Self::Submitting => Self::Decompressing,
            Self::Collecting | Self::Copying => Self::Sealing,
            Self::Sealing => Self::Proving,
            Self::Proving => Self::Caching,
            Self::Caching => Self::Endowing,
            Self::Endowing => Self::Creating,
            Self::Creating => Self::Confirming,
            Self::Confirming => Self::Starting,
            Self::Starting => Self::Initialising,
            Self::Ending => Self::Ended,
            Self::Queued | Self::Decompressing | Self::Initialising | Self::Running | Self::Ended => {
                return Err(Illegal::Step);
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRIGGERS: [Trigger; 13] = [
        Trigger::Done,
        Trigger::DoneStored,
        Trigger::DoneCached,
        Trigger::Failed,
        Trigger::Unfit,
        Trigger::Turn,
        Trigger::NotReady,
        Trigger::Signal,
        Trigger::Deadline,
        Trigger::Ready,
        Trigger::ReportedFailure,
        Trigger::Died,
        Trigger::Stop,
    ];

    #[test]
    fn every_pair_is_answered_and_only_the_end_is_final() {
        for stage in Stage::ALL {
            let leaves = TRIGGERS
                .iter()
                .any(|trigger| matches!(stage.after(*trigger), Ok(Next::To(_) | Next::Fail | Next::End)));
            assert_eq!(leaves, stage != Stage::Ended, "{stage:?}");
        }
    }

    #[test]
    fn every_stage_can_be_reached() {
        let mut reached = vec![Stage::Locating];
        let mut at = 0;
        while let Some(&stage) = reached.get(at) {
            for trigger in TRIGGERS {
                let next = match stage.after(trigger) {
                    Ok(Next::To(next)) => next,
                    Ok(Next::End) => Stage::Ending,
                    _ => continue,
                };
                if !reached.contains(&next) {
                    reached.push(next);
                }
            }
            at += 1;
        }
        assert_eq!(reached.len(), Stage::ALL.len());
    }

    #[test]
    fn running_is_reached_by_ready_alone() {
        for stage in Stage::ALL {
            for trigger in TRIGGERS {
                let runs = stage.after(trigger) == Ok(Next::To(Stage::Running));
                assert_eq!(runs, (stage, trigger) == (Stage::Initialising, Trigger::Ready));
            }
        }
    }

    #[test]
    fn a_process_is_made_only_on_the_one_path() {
        for stage in Stage::ALL {
            for trigger in TRIGGERS {
                match stage.after(trigger) {
                    Ok(Next::To(Stage::Allocating)) => assert_eq!(stage, Stage::Checking),
                    Ok(Next::To(Stage::Checking)) => assert_eq!(stage, Stage::Verifying),
                    Ok(Next::To(Stage::Verifying)) => assert_eq!(stage, Stage::Locating),
                    Ok(Next::To(Stage::Starting)) => assert_eq!(stage, Stage::Confirming),
                    Ok(Next::To(Stage::Confirming)) => assert_eq!(stage, Stage::Creating),
                    Ok(Next::To(Stage::Creating)) => assert_eq!(stage, Stage::Endowing),
                    Ok(Next::To(Stage::Endowing)) => {
                        assert!(matches!(stage, Stage::Checking | Stage::Caching));
                    }
                    Ok(Next::To(Stage::Caching)) => assert_eq!(stage, Stage::Proving),
                    Ok(Next::To(Stage::Proving)) => assert_eq!(stage, Stage::Sealing),
                    Ok(Next::To(Stage::Sealing)) => {
                        assert!(matches!(stage, Stage::Collecting | Stage::Copying));
                    }
                    _ => {}
                }
            }
        }
    }
}
