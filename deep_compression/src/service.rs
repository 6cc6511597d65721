//! The decompression queue as a pure state machine: [`Service::handle`] takes an [`Event`] and gives [`Actions`].
//!
//! A client submits a job (its compressed and destination regions stay with the binary, filed under the
//! job's slot), is signalled when it is done, and collects the verdict. One worker thread decompresses;
//! the event loop never does. Every (state, event) pair of a job has one row in [`JobState::after`]: an
//! illegal one is an error and changes nothing.

use core::fmt;

use crate::engine::{DecompressError, Limits};

/// The most jobs that exist at one time, in whatever state.
pub const CAPACITY: usize = 16;
/// The most jobs that one client may have at one time, collected ones not counted.
pub const PER_CLIENT: usize = 4;
/// The most actions that one event can cause: every job released, and one started.
pub const MAX_ACTIONS: usize = CAPACITY + 2;

/// A job's name: never reused while the service lives, and never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct JobId(pub u64);

/// The client's badge, as the kernel delivered it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client(pub u64);

/// Which queue a job waits in: a background job starts only when no foreground job waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// Somebody waits for this load.
    Foreground,
    /// A prefetch: it may wait as long as there is real work.
    Background,
}

/// What the client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobSpec {
    /// Bytes of the compressed payload.
    pub input_len: u64,
    /// The exact size of the decompressed content.
    pub output_len: u64,
    /// Which queue it waits in.
    pub priority: Priority,
}

/// What the worker found out about a job.
pub type Verdict = Result<(), DecompressError>;

/// What can happen to the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A client wants a payload decompressed.
    Submit {
        /// Who asks.
        client: Client,
        /// What for.
        spec: JobSpec,
    },
    /// The worker is done with a job.
    Completed {
        /// The job.
        job: JobId,
        /// What came of it.
        verdict: Verdict,
    },
    /// A client fetches the verdict of a job.
    Collect {
        /// Who asks.
        client: Client,
        /// The job.
        job: JobId,
    },
    /// A client gives a job up.
    Cancel {
        /// Who asks.
        client: Client,
        /// The job.
        job: JobId,
    },
    /// A client has died: its jobs go.
    ClientGone {
        /// The client.
        client: Client,
    },
}

/// What the binary must do, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Answer a submission; file the job's regions under `slot` (below [`CAPACITY`]).
    Accepted {
        /// The new job.
        job: JobId,
        /// Where its resources are kept until `Release` names the slot.
        slot: usize,
    },
    /// Hand the job to the worker thread.
    Start {
        /// The job.
        job: JobId,
        /// Where its resources are.
        slot: usize,
    },
    /// Signal the client, without data: it should collect.
    Notify {
        /// Whom.
        client: Client,
    },
    /// Answer a collection with the verdict.
    Deliver {
        /// The job.
        job: JobId,
        /// Its verdict.
        verdict: Verdict,
    },
    /// Unmap and drop the regions kept under `slot`.
    Release {
        /// The job.
        job: JobId,
        /// Where its resources are.
        slot: usize,
    },
}

/// Why an event was refused. Numbers are stable. A refused event has changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum ServiceError {
    /// All slots are taken: try again later.
    Busy = 101,
    /// This client has as many jobs as it may: collect one first.
    ClientLimit = 102,
    /// The payload is empty or larger than the service accepts.
    InputSize = 103,
    /// The destination is larger than the service accepts.
    OutputSize = 104,
    /// No such job, or it belongs to another client (the two are not told apart).
    NoSuchJob = 105,
    /// The job is not done yet.
    NotReady = 106,
    /// The worker reported a job that it was not working on.
    NotRunning = 107,
    /// All job ids are used up; restart the service.
    IdsExhausted = 108,
}

impl ServiceError {
    /// The stable number of this error.
    #[must_use]
    pub const fn code(self) -> u16 {
        self as u16
    }

    /// What happened, as the end of a sentence.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Busy => "the decompression queue is full",
            Self::ClientLimit => "this client has too many decompression jobs",
            Self::InputSize => "the compressed payload is empty or too large",
            Self::OutputSize => "the destination is too large",
            Self::NoSuchJob => "there is no such decompression job",
            Self::NotReady => "the decompression job is not done yet",
            Self::NotRunning => "the worker reported a job that does not run",
            Self::IdsExhausted => "no decompression job numbers are left",
        }
    }
}

impl fmt::Display for ServiceError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.describe())
    }
}

impl core::error::Error for ServiceError {}

/// A job's state. An absent job has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobState {
    /// It waits for the worker.
    Queued,
    /// The worker has it.
    Running,
    /// The worker has it, and nobody wants it any more: it is released when the worker lets go.
    Abandoned,
    /// It is done and waits to be collected.
    Done(Verdict),
}

/// What can happen to one job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobEvent {
    /// The worker takes it.
    Start,
    /// The worker is done with it.
    Complete(Verdict),
    /// Its client collects it.
    Collect,
    /// Its client gives it up, or died.
    Drop,
}

/// What becomes of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It is in this state now.
    State(JobState),
    /// It ends, and its resources are released.
    Gone,
}

impl JobState {
    /// The transition table: every pair has its line.
    ///
    /// # Errors
    /// The reason why the event is illegal in this state.
    pub const fn after(self, event: JobEvent) -> Result<Next, ServiceError> {
        use JobState::{Abandoned, Done, Queued, Running};
        match (self, event) {
            (Queued, JobEvent::Start) => Ok(Next::State(Running)),
            (Queued, JobEvent::Complete(_)) => Err(ServiceError::NotRunning),
            (Queued, JobEvent::Collect) => Err(ServiceError::NotReady),
            (Queued, JobEvent::Drop) => Ok(Next::Gone),
            (Running, JobEvent::Start) => Err(ServiceError::NotReady),
            (Running, JobEvent::Complete(verdict)) => Ok(Next::State(Done(verdict))),
            (Running, JobEvent::Collect) => Err(ServiceError::NotReady),
            (Running, JobEvent::Drop) => Ok(Next::State(Abandoned)),
            (Abandoned, JobEvent::Start) => Err(ServiceError::NoSuchJob),
            (Abandoned, JobEvent::Complete(_)) => Ok(Next::Gone),
            (Abandoned, JobEvent::Collect) => Err(ServiceError::NoSuchJob),
            (Abandoned, JobEvent::Drop) => Err(ServiceError::NoSuchJob),
            (Done(_), JobEvent::Start) => Err(ServiceError::NotReady),
            (Done(_), JobEvent::Complete(_)) => Err(ServiceError::NotRunning),
            (Done(_), JobEvent::Collect) => Ok(Next::Gone),
            (Done(_), JobEvent::Drop) => Ok(Next::Gone),
        }
    }
}

/// A job in its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    /// Its name.
    pub id: JobId,
    /// Whose it is.
    pub client: Client,
    /// What was asked.
    pub spec: JobSpec,
    /// Where it stands.
    pub state: JobState,
}

/// The actions that one event caused, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Actions {
    items: [Option<Action>; MAX_ACTIONS],
    len: usize,
}

impl Actions {
    const fn new() -> Self {
        Self { items: [None; MAX_ACTIONS], len: 0 }
    }

    /// [`MAX_ACTIONS`] bounds what any event pushes; `no_event_overflows_the_action_list` tests it.
    fn push(&mut self, action: Action) {
        if let Some(slot) = self.items.get_mut(self.len) {
            *slot = Some(action);
            self.len += 1;
        }
    }

    /// The actions, first to last.
    pub fn iter(&self) -> impl Iterator<Item = Action> + '_ {
        self.items.iter().flatten().copied()
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// The service's whole state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    limits: Limits,
    jobs: [Option<Job>; CAPACITY],
    next_id: u64,
}

impl Service {
    /// An idle service with these bounds on a job.
    #[must_use]
    pub const fn new(limits: Limits) -> Self {
        Self { limits, jobs: [None; CAPACITY], next_id: 1 }
    }

    /// The bounds on a job, as the worker needs them.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The jobs that exist, in slot order.
    pub fn jobs(&self) -> impl Iterator<Item = &Job> + '_ {
        self.jobs.iter().flatten()
    }

    /// The job in a slot.
    #[must_use]
    pub fn job_in(&self, slot: usize) -> Option<&Job> {
        self.jobs.get(slot).and_then(Option::as_ref)
    }

    /// Takes one event and says what to do about it.
    ///
    /// # Errors
    /// The event is not legal now; the state is as it was.
    pub fn handle(&mut self, event: Event) -> Result<Actions, ServiceError> {
        let mut actions = Actions::new();
        match event {
            Event::Submit { client, spec } => self.submit(client, spec, &mut actions)?,
            Event::Completed { job, verdict } => self.completed(job, verdict, &mut actions)?,
            Event::Collect { client, job } => self.collect(client, job, &mut actions)?,
            Event::Cancel { client, job } => {
                let slot = self.slot_of(client, job)?;
                self.step(slot, JobEvent::Drop, &mut actions)?;
            }
            Event::ClientGone { client } => self.client_gone(client, &mut actions),
        }
        self.start_next(&mut actions);
        Ok(actions)
    }

    fn submit(&mut self, client: Client, spec: JobSpec, actions: &mut Actions) -> Result<(), ServiceError> {
        if spec.input_len == 0 || spec.input_len > self.limits.max_input {
            return Err(ServiceError::InputSize);
        }
        if spec.output_len > self.limits.max_output {
            return Err(ServiceError::OutputSize);
        }
        let counted = |job: &&Job| job.client == client && job.state != JobState::Abandoned;
        if self.jobs().filter(counted).count() >= PER_CLIENT {
            return Err(ServiceError::ClientLimit);
        }
        let slot = self.jobs.iter().position(Option::is_none).ok_or(ServiceError::Busy)?;
        let id = JobId(self.next_id);
        let next_id = self.next_id.checked_add(1).ok_or(ServiceError::IdsExhausted)?;
        if let Some(place) = self.jobs.get_mut(slot) {
            *place = Some(Job { id, client, spec, state: JobState::Queued });
        }
        self.next_id = next_id;
        actions.push(Action::Accepted { job: id, slot });
        Ok(())
    }

    fn completed(&mut self, job: JobId, verdict: Verdict, actions: &mut Actions) -> Result<(), ServiceError> {
        let slot = self.find(|candidate| candidate.id == job).ok_or(ServiceError::NotRunning)?;
        let client = self.step(slot, JobEvent::Complete(verdict), actions)?.client;
        if self.job_in(slot).is_some() {
            actions.push(Action::Notify { client });
        }
        Ok(())
    }

    fn collect(&mut self, client: Client, job: JobId, actions: &mut Actions) -> Result<(), ServiceError> {
        let slot = self.slot_of(client, job)?;
        if let Some(JobState::Done(verdict)) = self.job_in(slot).map(|job| job.state) {
            actions.push(Action::Deliver { job, verdict });
        }
        self.step(slot, JobEvent::Collect, actions)?;
        Ok(())
    }

    /// Never fails: a client without jobs leaves nothing behind.
    fn client_gone(&mut self, client: Client, actions: &mut Actions) {
        for slot in 0..CAPACITY {
            if self.job_in(slot).is_some_and(|job| job.client == client) {
                // An abandoned job stays abandoned until the worker lets go of it.
                let _ = self.step(slot, JobEvent::Drop, actions);
            }
        }
    }

    /// Applies the table to the job in `slot`, and gives the job as it was before.
    fn step(&mut self, slot: usize, event: JobEvent, actions: &mut Actions) -> Result<Job, ServiceError> {
        let place = self.jobs.get_mut(slot).ok_or(ServiceError::NoSuchJob)?;
        let job = place.ok_or(ServiceError::NoSuchJob)?;
        match job.state.after(event)? {
            Next::State(state) => *place = Some(Job { state, ..job }),
            Next::Gone => {
                *place = None;
                actions.push(Action::Release { job: job.id, slot });
            }
        }
        Ok(job)
    }

    /// Gives the worker the oldest foreground job, else the oldest background one, if it is idle.
    fn start_next(&mut self, actions: &mut Actions) {
        let busy = |job: &Job| matches!(job.state, JobState::Running | JobState::Abandoned);
        if self.find(busy).is_some() {
            return;
        }
        let waiting = |(slot, job): (usize, &Option<Job>)| {
            job.filter(|job| job.state == JobState::Queued)
                .map(|job| (job.spec.priority == Priority::Background, job.id, slot))
        };
        if let Some((_, id, slot)) = self.jobs.iter().enumerate().filter_map(waiting).min()
            && self.step(slot, JobEvent::Start, actions).is_ok()
        {
            actions.push(Action::Start { job: id, slot });
        }
    }

    fn find(&self, wanted: impl Fn(&Job) -> bool) -> Option<usize> {
        self.jobs.iter().position(|job| job.as_ref().is_some_and(&wanted))
    }

    /// The slot of a client's job. Abandoned ones are no client's any more.
    fn slot_of(&self, client: Client, job: JobId) -> Result<usize, ServiceError> {
        self.find(|candidate| candidate.id == job && candidate.client == client)
            .ok_or(ServiceError::NoSuchJob)
    }
}
