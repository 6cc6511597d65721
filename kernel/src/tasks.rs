//! Operations on Jobs, processes and threads.

use sila_abi::syscall::{Outcome, REGISTER_WORDS, Slot};
use sila_abi::{Error, ObjectType, Op, Rights};

use crate::cache::CachedImageId;
use crate::create::{Basis, Held, LoadRequest};
use crate::invoke::{Flow, Invocation, permitted};
use crate::kernel::{Fail, Kernel, id_of};
use crate::machine::Machine;
use crate::memory::Progress;
use crate::objects::*;
use crate::thread::Start;
use crate::verify::{COPY_MAX, Wanted};

impl Kernel {
    pub(crate) fn process_operation(
        &mut self,
        m: &mut impl Machine,
        op: Op,
        c: &Invocation,
    ) -> Result<Flow, Fail> {
        match op {
            Op::ProcessCreate => self.process_create(m, c),
            Op::ProcessCreateCached => self.process_create_cached(m, c),
            Op::JobNext => self.job_next(c),
            Op::ProcessStart => self.process_start(c),
            Op::ProcessTerminate => {
                let exit = Exit { cause: 2, code: c.args[0], ..Exit::default() };
                match self.terminate(m, c.id(), exit)? {
                    Progress::Preempted => Ok(Flow::Restart),
                    Progress::Done if self.threads.get(c.thread).is_none() => Ok(Flow::Blocked),
                    Progress::Done => Ok(Flow::words(&[])),
                }
            }
            _ => {
                let p = self.processes.get(c.id()).ok_or(Error::ObjectGone)?;
                let e = p.exit;
                Ok(Flow::words(&[p.state as u64, e.cause, e.code, e.address, e.instruction, e.error]))
            }
        }
    }

    fn process_start(&mut self, c: &Invocation) -> Result<Flow, Fail> {
        let p = self.processes.get_mut(c.id()).ok_or(Error::ObjectGone)?;
        if p.retired {
            return Err(Error::HandedOver.into());
        }
        match p.state {
            ProcessState::Created => p.state = ProcessState::Running,
            ProcessState::Running => return Err(Error::AlreadyStarted.into()),
            _ => return Err(Error::Dying.into()),
        }
        if let Some(t) = p.initial {
            self.make_ready(t);
        }
        Ok(Flow::words(&[]))
    }

    fn job_next(&mut self, c: &Invocation) -> Result<Flow, Fail> {
        let job: JobId = c.id();
        let next = self
            .processes
            .iter()
            .filter(|(_, p)| p.job == job && p.number > c.args[0] && p.state != ProcessState::Embryo)
            .min_by_key(|(_, p)| p.number)
            .map(|(_, p)| [p.number, p.number, p.state as u64]);
        Ok(Flow::words(&next.ok_or(Error::NoMoreEntries)?))
    }

    fn process_create(&mut self, m: &mut impl Machine, c: &Invocation) -> Result<Flow, Fail> {
        let (image, proof): (RegionId, RegionId) = (c.arg_id(0)?, c.arg_id(1)?);
        let held = [c.held(0)?, c.held(1)?, c.held(2)?];
        let proof_pages = self.regions.get(proof).map_or(0, |r| r.pages as usize);
        if proof_pages * 4096 > COPY_MAX {
            return Err(Error::BadProof.into());
        }
        self.begin_creation(m, c, (image, Basis::Proof(proof)), held, 2)
    }

    fn process_create_cached(&mut self, m: &mut impl Machine, c: &Invocation) -> Result<Flow, Fail> {
        let cached: CachedImageId = c.arg_id(0)?;
        let image = self.cached.get(cached).map(|entry| entry.image).ok_or(Error::ObjectGone)?;
        let held = [c.held(0)?, c.held(0)?, c.held(1)?];
        self.begin_creation(m, c, (image, Basis::Cache(cached)), held, 1)
    }

    /// Queues a creation. The arguments from `pool` on: Pool, priority, grants, destination.
    fn begin_creation(
        &mut self,
        m: &mut impl Machine,
        c: &Invocation,
        (image, basis): (RegionId, Basis),
        [image_held, proof_held, pool_held]: [Held; 3],
        pool: usize,
    ) -> Result<Flow, Fail> {
        c.dst()?;
        let priority = c.priority(pool + 1)?;
        if self.processes.get(c.process).is_none_or(|p| priority > p.ceiling) {
            return Err(Error::PriorityTooHigh.into());
        }
        self.regions.get(image).ok_or(Error::NotSealed)?.demand_sealed()?;
        let grants = self.read_grants(m, c, c.args[pool + 2])?;
        if !self.can_verify(c.process) {
            return Err(Error::VerificationBusy.into());
        }
        self.count_creation(m.now(), c.id())?;
        let job_held = Held { slot: c.slot, cap: c.found.cap };
        let load = LoadRequest {
            image,
            basis,
            pool: c.arg_id(pool)?,
            job: c.id(),
            held: [job_held, image_held, proof_held, pool_held],
            grants,
            priority,
            dst: Slot(c.args[pool + 3] as u16),
        };
        self.pin_region(image, true);
        if let Basis::Proof(proof) = basis {
            self.pin_region(proof, true);
        }
        self.queue_verification(c.thread, Wanted::Load(load))?;
        // The last step makes room for the result, once there is one.
        self.shrink_grown();
        self.start_wait(c.thread, ThreadState::Verifying, u64::MAX);
        Ok(Flow::Blocked)
    }

    /// Takes one of the creations that policy lets a Job have. What is refused later has been one: it costs as much.
    fn count_creation(&mut self, now: u64, job: JobId) -> Result<(), Fail> {
        let limits = self.keyring.policy().map(|p| (p.policy.creation_burst, p.policy.creation_per_second));
        let (Some((burst, rate)), Some(job)) = (limits, self.jobs.get_mut(job)) else { return Ok(()) };
        job.creations.take(now, burst, rate).map_err(|wait| Fail::with(Error::RateLimited, wait))
    }

    /// Reads the grant words of a creation, once, from the message page.
    fn read_grants(
        &mut self,
        m: &mut impl Machine,
        c: &Invocation,
        count: u64,
    ) -> Result<[Option<Held>; sila_abi::manifest::MAX_REQUESTS], Fail> {
        let mut grants = [None; sila_abi::manifest::MAX_REQUESTS];
        if count as usize > grants.len() || c.words < REGISTER_WORDS + count as usize {
            return Err(Error::InvalidArgument.into());
        }
        if count == 0 {
            return Ok(grants);
        }
        let (frame, _) = self.threads.get(c.thread).and_then(|t| t.message).ok_or(Error::MessageTooLong)?;
        let mut words = [0u64; sila_abi::manifest::MAX_REQUESTS];
        words[..count as usize].copy_from_slice(&m.frame(frame)[6..6 + count as usize]);
        for word in &words[..count as usize] {
            let (index, slot) = ((word >> 16) as usize, Slot(*word as u16));
            let entry = grants.get_mut(index).ok_or(Fail::with(Error::GrantUnrequested, index as u64))?;
            if entry.is_some() {
                return Err(Fail::with(Error::InvalidArgument, index as u64));
            }
            let found = self.find(c.process, slot).map_err(|e| Fail::with(e, index as u64))?;
            *entry = Some(Held { slot, cap: found.cap });
        }
        Ok(grants)
    }

    pub(crate) fn thread_operation(
        &mut self,
        m: &mut impl Machine,
        op: Op,
        c: &Invocation,
    ) -> Result<Flow, Fail> {
        let ok = Ok(Flow::words(&[]));
        match op {
            Op::ProcessWatch => {
                self.watch(c)?;
                ok
            }
            Op::ThreadCreate => self.thread_create(m, c),
            Op::ThreadStatus => {
                let t = self.threads.get(c.id()).ok_or(Error::ObjectGone)?;
                Ok(Flow::words(&[state_number(t.state), t.priority as u64, t.effective as u64]))
            }
            Op::ThreadSuspend => {
                let target: ThreadId = c.id();
                if target == c.thread {
                    self.complete(target, Outcome::message(0, 0, 0), 0, &[]);
                    self.suspend(target);
                    return Ok(Flow::Blocked);
                }
                self.suspend(target);
                ok
            }
            Op::ThreadResume => {
                self.resume(c.id())?;
                ok
            }
            Op::ThreadSetFaultEndpoint => {
                let slot = Slot(c.args[0] as u16);
                if let Some(t) = self.threads.get_mut(c.id()) {
                    t.fault_endpoint = Some((c.process, slot));
                }
                ok
            }
            Op::ThreadClearFaultEndpoint => {
                if let Some(t) = self.threads.get_mut(c.id()) {
                    t.fault_endpoint = None;
                }
                ok
            }
            Op::ThreadSetPriority => {
                let (id, priority): (ThreadId, u8) = (c.id(), c.priority(0)?);
                let t = self.threads.get(id).ok_or(Error::ObjectGone)?;
                if self.processes.get(t.process).is_none_or(|p| priority > p.ceiling) {
                    return Err(Error::PriorityTooHigh.into());
                }
                let (effective, lent) = (t.effective, t.effective > t.priority);
                if let Some(t) = self.threads.get_mut(id) {
                    t.priority = priority;
                }
                // A priority lent by a caller or an endpoint's ceiling stays until the next receive.
                self.set_effective(id, if lent { effective.max(priority) } else { priority });
                ok
            }
            _ => {
                let target: ThreadId = c.id();
                self.end_one_thread(m, target);
                if target == c.thread { Ok(Flow::Blocked) } else { ok }
            }
        }
    }

    fn watch(&mut self, c: &Invocation) -> Result<(), Error> {
        let found = c.caps[0].ok_or(Error::NoCapability)?;
        let n: NotificationId = id_of(&found.cap);
        let flags = permitted(&found.cap, c.args[1]);
        let p = self.processes.get(c.id()).ok_or(Error::ObjectGone)?;
        if p.state == ProcessState::Ended {
            self.signal(n, flags);
            return Ok(());
        }
        let mut watchers = p.watchers;
        let stale = |w: &Option<(NotificationId, u64)>| {
            w.is_none_or(|(other, _)| other == n || self.notifications.get(other).is_none())
        };
        let at = watchers.iter().position(stale);
        self.room(at.is_some())?;
        let at = at.ok_or(Error::ArenaFull)?;
        watchers[at] = Some((n, flags | watchers[at].filter(|w| w.0 == n).map_or(0, |w| w.1)));
        if let Some(p) = self.processes.get_mut(c.id()) {
            p.watchers = watchers;
        }
        Ok(())
    }

    fn thread_create(&mut self, m: &mut impl Machine, c: &Invocation) -> Result<Flow, Fail> {
        let at = c.dst()?;
        let process: ProcessId = c.id();
        let start = Start {
            entry: c.args[0],
            stack: c.args[1],
            argument: c.args[2],
            priority: c.priority(3)?,
            message_page: c.args[4],
        };
        let state = self.processes.get(process).map(|p| p.state).ok_or(Error::ObjectGone)?;
        if !matches!(state, ProcessState::Created | ProcessState::Running) {
            return Err(Error::Dying.into());
        }
        if self.processes.get(process).is_some_and(|p| p.retired) {
            return Err(Error::HandedOver.into());
        }
        let id = self.new_thread(m, process, start)?;
        if state == ProcessState::Running {
            self.make_ready(id);
        }
        self.install_new(at, ObjectType::Thread, id, Rights::READ | Rights::MANAGE | Rights::COPY)
    }
}

fn state_number(s: ThreadState) -> u64 {
    match s {
        ThreadState::Inactive => 0,
        ThreadState::Ready => 1,
        ThreadState::Running => 2,
        ThreadState::Sending { .. } => 3,
        ThreadState::Receiving { .. } => 4,
        ThreadState::Waiting { .. } => 5,
        ThreadState::AwaitingReply => 6,
        ThreadState::Verifying => 7,
    }
}
