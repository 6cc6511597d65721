//! One load and the module that comes of it: what it holds, and what entering each stage brings.

use crate::catalogue::PackageRef;
use crate::event::{Action, Held, Instance, RequestId};
use crate::facts::Facts;
use crate::search::Search;
use crate::stage::Stage;
use alloc::boxed::Box;
use alloc::vec::Vec;
use sila_abi::manifest::Codec;
use sila_abi::protocol::module_manager::{Failure, Load, LoadError, Loaded};

/// How long a decompression may take, in nanoseconds.
pub const DECOMPRESSION_LIMIT: u64 = 30_000_000_000;

/// A load under way, or a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub instance: Instance,
    pub requester: u64,
    pub target: Load,
    /// Of what it loads, by its scope.
    pub priority: u8,
    pub search: Search,
    /// What is verified, or was; `None` until it is located.
    pub package: Option<PackageRef>,
    pub stage: Stage,
    pub facts: Option<Box<Facts>>,
    pub process: u64,
    pub job: u64,
    pub held: Held,
    pub signalled: bool,
    pub deadline: Option<u64>,
    pub loaders: Vec<RequestId>,
    pub stoppers: Vec<RequestId>,
    pub failure: Option<Failure>,
    pub cause: u64,
    pub code: u64,
}

impl Entry {
    pub fn is_stored(&self) -> bool {
        self.facts.as_deref().is_some_and(|facts| facts.codec == Codec::None)
    }

    /// Whether the package failed so that another one is to be tried.
    pub fn is_unfit(&mut self, failure: Failure) -> bool {
        self.package.is_some_and(|package| self.search.unfit(&package, failure))
    }

    /// A load that failed, or was never more than a load, is forgotten when it is over.
    pub fn is_over(&self) -> bool {
        self.stage == Stage::Ended && self.failure.is_some()
    }

    pub fn release(&mut self, what: Held, actions: &mut Vec<Action>) {
        let order = [
            Held::PROCESS,
            Held::SOURCES,
            Held::CACHED,
            Held::PROOF,
            Held::JOB,
            Held::OUTPUT,
            Held::PACKAGE,
            Held::GRANTS,
        ];
        for one in order.into_iter().filter(|one| what.contains(*one)) {
            if self.held.contains(one) {
                self.held.remove(one);
                actions.push(Action::Release(self.instance, one, self.job));
            }
        }
    }

    pub fn enter(&mut self, now: u64, stage: Stage, actions: &mut Vec<Action>) {
        let again = stage == Stage::Decompressing && self.stage == Stage::Collecting;
        self.stage = stage;
        let instance = self.instance;
        if !again && stage != Stage::Collecting {
            self.deadline = self.deadline_of(now);
        }
        let facts = self.facts.clone();
        match (stage, facts) {
            (Stage::Locating, _) => match self.search.question() {
                Some(wanted) => actions.push(Action::Locate(instance, wanted)),
                None => {
                    self.package = self.search.bundle();
                    self.enter(now, Stage::Verifying, actions);
                }
            },
            (Stage::Verifying, _) => {
                actions.extend(self.package.map(|package| Action::Verify(instance, package)));
            }
            (Stage::Checking, Some(facts)) => actions.push(Action::Check(instance, facts)),
            (Stage::Caching, _) => actions.push(Action::Cache(instance)),
            (Stage::Allocating, Some(facts)) => actions.push(Action::CreateOutput(instance, facts.image_len)),
            (Stage::Decompressing, _) if self.signalled => {
                self.signalled = false;
                self.stage = Stage::Collecting;
                actions.push(Action::Collect(instance, self.job));
            }
            (Stage::Collecting, _) => {
                self.signalled = false;
                actions.push(Action::Collect(instance, self.job));
            }
            (Stage::Copying, Some(facts)) => actions.push(Action::Copy(instance, facts)),
            (Stage::Sealing, _) => actions.push(Action::Seal(instance)),
            (Stage::Proving, _) => {
                actions.extend(self.package.map(|package| Action::BuildProof(instance, package)));
            }
            (Stage::Endowing, Some(facts)) => {
                actions.push(Action::Endow(instance, facts, Box::new(self.target)));
            }
            (Stage::Creating, Some(facts)) => {
                actions.push(Action::Create(instance, facts.max_priority.min(self.priority)));
            }
            (Stage::Confirming, Some(facts)) => {
                actions.push(Action::Confirm(instance, facts, Box::new(self.target), self.process));
            }
            (Stage::Starting, _) => actions.push(Action::Start(instance)),
            (Stage::Running, Some(facts)) => self.run(&facts, actions),
            (Stage::Ending, _) => actions.push(Action::Unregister(instance)),
            (Stage::Ended, _) => self.finish(actions),
            _ => {}
        }
    }

    pub fn deadline_of(&self, now: u64) -> Option<u64> {
        let milliseconds = self.facts.as_deref().map_or(0, |facts| facts.init_deadline_ms);
        match self.stage {
            Stage::Decompressing => Some(now.saturating_add(DECOMPRESSION_LIMIT)),
            Stage::Initialising => Some(now.saturating_add(u64::from(milliseconds) * 1_000_000)),
            _ => None,
        }
    }

    pub fn run(&mut self, facts: &Facts, actions: &mut Vec<Action>) {
        self.release(Held::GRANTS | Held::PROOF | Held::SOURCES | Held::PACKAGE | Held::CACHED, actions);
        let loaded = Loaded {
            process: self.process,
            version: facts.version,
            instance: self.instance.0,
            publisher: facts.publisher,
            digest: facts.digest,
        };
        for request in self.loaders.drain(..) {
            actions.push(Action::Loaded(request, self.instance, loaded));
        }
    }

    pub fn end(&mut self, actions: &mut Vec<Action>) {
        self.release(Held::all(), actions);
        self.enter(0, Stage::Ending, actions);
    }

    /// Undoes everything. What has run may have registered services: then the replies wait until these are gone.
    pub fn fail(&mut self, actions: &mut Vec<Action>) {
        let ran = self.stage == Stage::Initialising;
        self.release(Held::all(), actions);
        self.enter(0, if ran { Stage::Ending } else { Stage::Ended }, actions);
    }

    pub fn finish(&mut self, actions: &mut Vec<Action>) {
        let failure = self.failure.unwrap_or(Failure::new(LoadError::Stopped));
        for request in self.loaders.drain(..) {
            actions.push(Action::Refused(request, failure));
        }
        for request in self.stoppers.drain(..) {
            actions.push(Action::Stopped(request));
        }
    }
}
