//! The load logic: [`Manager::handle`] takes an [`Event`] and gives [`Action`]s, in order.
//!
//! The binary carries the actions out and reports each step's result as another event. What exists for a load is
//! recorded in [`Held`]; whatever way a load ends, each of these is released once, and each request gets one reply.

use crate::catalogue::{Origin, PackageRef};
use crate::contract::before_loading;
use crate::entry::Entry;
use crate::event::{Action, Done, Event, Held, Instance, RequestId};
use crate::facts::{Facts, Provider, check_dependencies};
use crate::scope;
use crate::search::Search;
use crate::stage::{Illegal, Next, Stage, Trigger};
use alloc::vec::Vec;
use sila_abi::policy::LoadScope;
use sila_abi::protocol::module_manager::{Failure, Load, LoadError, ModuleRecord};
use sila_abi::protocol::wire::FIRST_INSTANCE;
use sila_abi::record::Version;

/// The most modules that are listed, ended ones included.
pub const MAX_MODULES: usize = 32;
/// The most loads under way at one time; DeepCompression takes as many jobs from one client.
pub const MAX_LOADS: usize = 4;
/// The most requests that share one load.
pub const MAX_WAITERS: usize = 4;
/// The cause of an end by `Stop`, as ProcessStatus numbers it.
const TERMINATED: u64 = 2;

/// The whole state of ModuleManager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manager {
    packages: Vec<PackageRef>,
    /// The modules that run from boot on.
    resident: Vec<Provider>,
    /// Who may have what loaded.
    scopes: Vec<LoadScope>,
    /// Decompressions at one time.
    max_decompressions: usize,
    /// Their largest window, as a power of two.
    max_window_log: u8,
    /// In order of instance.
    entries: Vec<Entry>,
    next: u64,
}

impl Manager {
    /// A manager of these packages, beside the modules that the kernel started. Until it is told a policy nobody may
    /// have anything loaded.
    #[must_use]
    pub const fn new(packages: Vec<PackageRef>, resident: Vec<Provider>) -> Self {
        Self {
            packages,
            resident,
            scopes: Vec::new(),
            max_decompressions: 1,
            max_window_log: 0,
            entries: Vec::new(),
            next: FIRST_INSTANCE,
        }
    }

    /// Takes one event and says what to do about it. A load or a stop is always answered.
    ///
    /// # Errors
    /// The event is not legal now; the state is as it was.
    pub fn handle(&mut self, now: u64, event: Event) -> Result<Vec<Action>, Illegal> {
        let mut actions = Vec::new();
        match event {
            Event::Load { request, requester, target } => {
                if let Err(error) = self.load(request, requester, *target, &mut actions) {
                    actions.push(Action::Refused(request, error.into()));
                }
            }
            Event::Stop { request, requester, process } => {
                if let Err(error) = self.stop(request, requester, process, &mut actions) {
                    actions.push(Action::Refused(request, error.into()));
                }
            }
            Event::Step { instance, result } => self.step(now, instance, result, &mut actions)?,
            Event::Signalled => self.each(now, Trigger::Signal, |_| true, &mut actions),
            Event::Ready(instance) => {
                self.fire(now, instance, Trigger::Ready, None, &mut actions).map_err(as_report)?;
            }
            Event::ReportedFailure { instance, code } => {
                let failure = Failure::with(LoadError::InitFailed, code, 0);
                self.fire(now, instance, Trigger::ReportedFailure, Some(failure), &mut actions)
                    .map_err(as_report)?;
            }
            Event::Died { instance, cause, code } => self.died(now, instance, cause, code, &mut actions)?,
            Event::Policy(policy) => {
                self.scopes = policy.scopes.iter().copied().collect();
                self.max_decompressions = policy.max_decompressions.into();
                self.max_window_log = policy.max_window_log;
            }
            Event::Tick => {
                let passed = |entry: &Entry| entry.deadline.is_some_and(|deadline| deadline <= now);
                self.each(now, Trigger::Deadline, passed, &mut actions);
            }
        }
        self.take_turns(now, &mut actions);
        Ok(actions)
    }

    /// Lets as many loads decompress as policy permits, in their order.
    fn take_turns(&mut self, now: u64, actions: &mut Vec<Action>) {
        let busy = self.entries.iter().filter(|entry| entry.stage.is_decompressing()).count();
        let free = self.max_decompressions.saturating_sub(busy);
        let window = self.max_window_log;
        for entry in self.entries.iter_mut().filter(|entry| entry.stage == Stage::Queued).take(free) {
            entry.enter(now, Stage::Submitting, actions);
            actions.extend(entry.facts.clone().map(|facts| Action::Submit(entry.instance, facts, window)));
        }
    }

    /// When to come back with [`Event::Tick`].
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        let waits = |entry: &&Entry| matches!(entry.stage, Stage::Decompressing | Stage::Initialising);
        self.entries.iter().filter(waits).filter_map(|entry| entry.deadline).min()
    }

    /// The modules whose process may end by itself.
    pub fn watched(&self) -> impl Iterator<Item = Instance> + '_ {
        let live = |entry: &&Entry| matches!(entry.stage, Stage::Initialising | Stage::Running);
        self.entries.iter().filter(live).map(|entry| entry.instance)
    }

    /// What exists for each load.
    pub fn held(&self) -> impl Iterator<Item = (Instance, Held)> + '_ {
        self.entries.iter().map(|entry| (entry.instance, entry.held))
    }

    /// The stage of a load.
    #[must_use]
    pub fn stage(&self, instance: Instance) -> Option<Stage> {
        self.entry(instance).map(|entry| entry.stage)
    }

    /// The next module after `cursor`, as far as the requester may see it.
    ///
    /// # Errors
    /// [`LoadError::NoScope`] or [`LoadError::NoMoreEntries`].
    pub fn list(&self, requester: u64, cursor: u64) -> Result<ModuleRecord, LoadError> {
        let scope = scope::of(&self.scopes, requester)?;
        let visible =
            |entry: &&Entry| entry.instance.0 > cursor && (scope.all || entry.requester == requester);
        let entry = self.entries.iter().find(visible).ok_or(LoadError::NoMoreEntries)?;
        let facts = entry.facts.as_deref();
        Ok(ModuleRecord {
            cursor: entry.instance.0,
            process: entry.process,
            state: entry.stage.public(),
            version: facts.map_or(Version::MIN, |facts| facts.version),
            requester: entry.requester,
            cause: entry.cause,
            code: entry.code,
            name: entry.target.name,
            publisher: facts.map(|facts| facts.publisher),
        })
    }

    fn entry(&self, instance: Instance) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.instance == instance)
    }

    fn entry_mut(&mut self, instance: Instance) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.instance == instance)
    }

    fn load(
        &mut self,
        request: RequestId,
        requester: u64,
        target: Load,
        actions: &mut Vec<Action>,
    ) -> Result<(), LoadError> {
        let scope = *scope::of(&self.scopes, requester)?;
        let shares = |entry: &&mut Entry| {
            let plain = target.grant_count() == 0;
            plain && entry.stage.is_loading() && entry.requester == requester && entry.target == target
        };
        if let Some(entry) = self.entries.iter_mut().find(shares) {
            if entry.loaders.len() >= MAX_WAITERS {
                return Err(LoadError::Busy);
            }
            entry.loaders.push(request);
            return Ok(());
        }
        let own = |entry: &&Entry| entry.requester == requester && entry.stage != Stage::Ended;
        let instances = self.entries.iter().filter(own).count();
        scope::check_request(&scope, &target.name, &target.grants, instances)?;
        if self.entries.iter().filter(|entry| entry.stage.is_loading()).count() >= MAX_LOADS {
            return Err(LoadError::Busy);
        }
        self.make_room()?;
        let instance = Instance(self.next);
        self.next = self.next.checked_add(1).ok_or(LoadError::TableFull)?;
        let mut entry = Entry {
            instance,
            requester,
            search: Search::new(&self.packages, &target),
            target,
            priority: scope.priority,
            package: None,
            stage: Stage::Locating,
            facts: None,
            process: 0,
            job: 0,
            held: Held::GRANTS,
            signalled: false,
            deadline: None,
            loaders: Vec::from([request]),
            stoppers: Vec::new(),
            failure: None,
            cause: 0,
            code: 0,
        };
        actions.push(Action::Adopt(request, instance));
        entry.enter(0, Stage::Locating, actions);
        self.entries.push(entry);
        Ok(())
    }

    /// Forgets the module that ended longest ago, if the table is full.
    fn make_room(&mut self) -> Result<(), LoadError> {
        if self.entries.len() < MAX_MODULES {
            return Ok(());
        }
        let ended = self.entries.iter().position(|entry| entry.stage == Stage::Ended);
        self.entries.remove(ended.ok_or(LoadError::TableFull)?);
        Ok(())
    }

    fn stop(
        &mut self,
        request: RequestId,
        requester: u64,
        process: u64,
        actions: &mut Vec<Action>,
    ) -> Result<(), LoadError> {
        let scope = *scope::of(&self.scopes, requester)?;
        let named = |entry: &&mut Entry| entry.process == process && process != 0;
        let entry = self.entries.iter_mut().find(named).ok_or(LoadError::NoSuchProcess)?;
        if !scope.all && entry.requester != requester {
            return Err(LoadError::NotYours);
        }
        entry.stage.after(Trigger::Stop).map_err(Illegal::error)?;
        entry.stoppers.push(request);
        entry.cause = TERMINATED;
        let instance = entry.instance;
        let failure = Failure::new(LoadError::Stopped);
        self.fire(0, instance, Trigger::Stop, Some(failure), actions).map_err(Illegal::error)
    }

    fn died(
        &mut self,
        now: u64,
        instance: Instance,
        cause: u64,
        code: u64,
        actions: &mut Vec<Action>,
    ) -> Result<(), Illegal> {
        let entry = self.entry_mut(instance).ok_or(Illegal::NoProcess)?;
        if entry.stage.after(Trigger::Died)? != Next::Stay {
            (entry.cause, entry.code) = (cause, code);
        }
        let failure = Failure::with(LoadError::InitDied, cause, code);
        self.fire(now, instance, Trigger::Died, Some(failure), actions)
    }

    /// Fires a trigger that no load minds at every load that `wanted` picks.
    fn each(
        &mut self,
        now: u64,
        trigger: Trigger,
        wanted: impl Fn(&Entry) -> bool,
        actions: &mut Vec<Action>,
    ) {
        let picked: Vec<_> =
            self.entries.iter().filter(|e| wanted(e)).map(|e| (e.instance, e.stage)).collect();
        for (instance, stage) in picked {
            let error = match stage {
                Stage::Decompressing => LoadError::DecompressionLost,
                _ => LoadError::InitDeadline,
            };
            // Signals and deadlines are legal in every stage.
            let _ = self.fire(now, instance, trigger, Some(error.into()), actions);
        }
    }

    fn step(
        &mut self,
        now: u64,
        instance: Instance,
        result: Result<Done, Failure>,
        actions: &mut Vec<Action>,
    ) -> Result<(), Illegal> {
        let entry = self.entry_mut(instance).ok_or(Illegal::Step)?;
        let stage = entry.stage;
        if stage == Stage::Locating {
            return self.located(now, instance, result, actions);
        }
        let trigger = match (&result, stage) {
            (Err(_), _) => Trigger::Failed,
            (Ok(Done::NotReady), _) => Trigger::NotReady,
            (Ok(Done::Plain), Stage::Allocating) if entry.is_stored() => Trigger::DoneStored,
            (Ok(Done::Cached), Stage::Checking) => Trigger::DoneCached,
            (Ok(done), _) if done.belongs_to(stage) => Trigger::Done,
            (Ok(_), _) => return Err(Illegal::Step),
        };
        stage.after(trigger)?;
        let mut trigger = trigger;
        let mut failure = result.as_ref().err().copied();
        if let Ok(done) = result {
            if let Err(refused) = self.take(instance, done) {
                (trigger, failure) = (Trigger::Failed, Some(refused));
            }
        } else if let Some(entry) = self.entry_mut(instance).filter(|entry| entry.stage == Stage::Collecting)
        {
            // A job that was collected is gone, whatever the verdict.
            entry.held.remove(Held::JOB);
        }
        if let (Stage::Verifying, Some(failure)) = (stage, failure)
            && let Some(entry) = self.entry_mut(instance)
            && entry.is_unfit(failure)
        {
            entry.release(Held::PACKAGE, actions);
            trigger = Trigger::Unfit;
        }
        if trigger == Trigger::Done
            && let Some(entry) = self.entry_mut(instance)
            && entry.held.contains(Held::CACHED)
        {
            // The cache has the image now, and pays for it.
            entry.release(Held::OUTPUT | Held::PROOF, actions);
        }
        self.fire(now, instance, trigger, failure, actions)
    }

    /// The depot has answered, or is lost: takes its package, or the bundle's.
    fn located(
        &mut self,
        now: u64,
        instance: Instance,
        result: Result<Done, Failure>,
        actions: &mut Vec<Action>,
    ) -> Result<(), Illegal> {
        let found = match result {
            Ok(Done::Located(found)) => Ok(found),
            Ok(_) => return Err(Illegal::Step),
            Err(failure) => Err(failure),
        };
        let entry = self.entry_mut(instance).ok_or(Illegal::Step)?;
        if let Ok(Some(_)) = found {
            entry.held.insert(Held::PACKAGE);
        }
        let picked = entry.search.pick(found);
        entry.package = picked.ok();
        if entry.package.is_some_and(|package| package.origin == Origin::Bundle) {
            entry.release(Held::PACKAGE, actions);
        }
        let trigger = if picked.is_ok() { Trigger::Done } else { Trigger::Failed };
        self.fire(now, instance, trigger, picked.err(), actions)
    }

    /// Records what a step brought, and checks a verified package against the request.
    fn take(&mut self, instance: Instance, done: Done) -> Result<(), Failure> {
        if let Done::Verified(facts) = &done {
            self.check(instance, facts)?;
        }
        let Some(entry) = self.entry_mut(instance) else { return Ok(()) };
        match done {
            Done::Verified(facts) => entry.facts = Some(facts),
            Done::Submitted(job) => {
                entry.job = job;
                entry.held.insert(Held::JOB);
            }
            Done::Created(process) => {
                entry.process = process;
                entry.held.insert(Held::PROCESS);
            }
            Done::Cached => entry.held.insert(Held::CACHED),
            Done::NotReady | Done::Located(_) => {}
            Done::Plain => match entry.stage {
                Stage::Allocating => entry.held.insert(Held::OUTPUT),
                Stage::Collecting => entry.held.remove(Held::JOB),
                Stage::Proving => entry.held.insert(Held::PROOF),
                Stage::Endowing => entry.held.insert(Held::SOURCES),
                _ => {}
            },
        }
        Ok(())
    }

    /// Whether a verified package is what the request means, and may be loaded.
    fn check(&self, instance: Instance, facts: &Facts) -> Result<(), Failure> {
        let Some(entry) = self.entry(instance) else { return Ok(()) };
        if facts.name != entry.target.name {
            return Err(LoadError::NameMismatch.into());
        }
        let hinted = entry.target.version.or(entry.package.map(|package| package.version));
        if hinted != Some(facts.version) {
            return Err(LoadError::VersionMismatch.into());
        }
        if entry.target.digest.is_some_and(|digest| digest != facts.digest) {
            return Err(LoadError::DigestMismatch.into());
        }
        before_loading(facts)?;
        scope::check_kind(scope::of(&self.scopes, entry.requester)?, facts.kind)?;
        let running = self.entries.iter().filter(|entry| entry.stage == Stage::Running);
        let loaded = running.filter_map(|entry| entry.facts.as_deref()).map(|facts| Provider {
            publisher: facts.publisher,
            name: facts.name,
            version: facts.version,
        });
        check_dependencies(&facts.dependencies, loaded.chain(self.resident.iter().copied()))
            .map_err(|(error, index)| Failure::with(error, index, 0))
    }

    fn fire(
        &mut self,
        now: u64,
        instance: Instance,
        trigger: Trigger,
        failure: Option<Failure>,
        actions: &mut Vec<Action>,
    ) -> Result<(), Illegal> {
        let place = self.entries.iter().position(|entry| entry.instance == instance).ok_or(Illegal::Step)?;
        let Some(entry) = self.entries.get_mut(place) else { return Err(Illegal::Step) };
        match entry.stage.after(trigger)? {
            Next::Stay => {}
            Next::Remember => entry.signalled = true,
            Next::To(stage) => entry.enter(now, stage, actions),
            Next::End => entry.end(actions),
            Next::Fail => {
                entry.failure = failure.or(Some(LoadError::Malformed.into()));
                entry.fail(actions);
            }
        }
        if entry.is_over() {
            self.entries.remove(place);
        }
        Ok(())
    }
}

/// A report from a badge that names no load at all is no better than one out of place.
const fn as_report(_: Illegal) -> Illegal {
    Illegal::Report
}

#[cfg(test)]
#[path = "manager_tests.rs"]
pub(crate) mod tests;
