//! What the kernel does with requests: queues them, hands them to the context, and carries out, step by step, what
//! follows a verdict.

use sila_abi::Error;
use sila_abi::syscall::Outcome;
use sila_abi::trace::Kind;

use super::{COPY_MAX, Job, QUEUE, QUEUE_OF_ONE, Request, Task, Verdict, Wanted, Work, chain_fail};
use crate::budget::Claim;
use crate::create::{Basis, LoadRequest};
use crate::kernel::{Attention, Fail, Kernel, Running};
use crate::machine::Machine;
use crate::objects::*;

/// What a step came to.
enum Step {
    /// Another one follows.
    More,
    /// Something must be reaped before it can be tried again.
    Reap,
    /// The answer.
    Done(Result<(), Fail>),
}

impl Kernel {
    /// The claim with which the context, or what follows it, wants to run; `None` if there is nothing to do. Who waits
    /// behind a job lends it its claim.
    #[inline]
    pub(crate) fn verification_claim(&self) -> Option<Claim> {
        if !self.verifier.is_busy() {
            return None;
        }
        self.verifier.wanting().map(|r| self.request_claim(r.thread, r.priority)).max()
    }

    /// Takes the request with the strongest claim; among equals the oldest.
    fn take_next_request(&mut self) -> Option<Request> {
        let claim = |r: &Request| self.request_claim(r.thread, r.priority);
        let best = self.verifier.queue.iter().map(claim).max()?;
        let at = self.verifier.queue.iter().position(|r| claim(r) == best)?;
        Some(self.verifier.queue.remove(at))
    }

    /// Queues a verification for a thread, which then waits for it. The Regions must be pinned already.
    pub(crate) fn queue_verification(&mut self, thread: ThreadId, wanted: Wanted) -> Result<(), Error> {
        if self.verifier.queue.len() >= self.queue_limit() {
            return Err(Error::VerificationBusy);
        }
        let priority = self.threads.get(thread).map_or(0, |t| t.effective);
        self.note_verification(Kind::VerifyQueue, &wanted, priority.into());
        self.verifier.queue.push(Request { thread: Some(thread), priority, wanted });
        self.attention |= Attention::SCHEDULE;
        Ok(())
    }

    /// Requests that may wait: as many as policy says, if there is room for them.
    fn queue_limit(&self) -> usize {
        self.keyring.policy().map_or(QUEUE, |p| usize::from(p.policy.max_verifications).min(QUEUE))
    }

    /// True if a process can queue another verification.
    pub(crate) fn can_verify(&self, process: ProcessId) -> bool {
        let of =
            |r: &&Request| r.thread.and_then(|t| self.threads.get(t)).is_some_and(|t| t.process == process);
        self.verifier.queue.len() < self.queue_limit()
            && self.verifier.queue.iter().filter(of).count() < QUEUE_OF_ONE
    }

    /// Gives the context its next job, if it has none.
    pub(crate) fn dispatch_verification(&mut self, m: &mut impl Machine) {
        if self.verifier.active.is_some() || self.verifier.idle.is_none() {
            return;
        }
        let Some(mut job) = self.verifier.vacant.pop() else { return };
        let Some(request) = self.take_next_request() else {
            self.verifier.vacant.push(job);
            return;
        };
        *job = Job { request, embryo: None, failed: None };
        if let Some(mut work) = self.verifier.idle.take() {
            self.fill_work(&mut work, &job.request.wanted);
            m.start_verification(work);
        }
        // For an image of the cache the context has nothing to verify.
        let cached = matches!(job.request.wanted, Wanted::Load(LoadRequest { basis: Basis::Cache(_), .. }));
        self.counters.verifications += u64::from(!cached);
        self.note_verification(Kind::VerifyBegin, &job.request.wanted, job.request.priority.into());
        self.verifier.active = Some(job);
    }

    /// Says in the job record what is to be verified, and by which keys.
    fn fill_work(&mut self, work: &mut Work, wanted: &Wanted) {
        let whole = COPY_MAX as u64;
        let (source, image, task) = match wanted {
            Wanted::Load(LoadRequest { image, basis: Basis::Proof(proof), .. }) => {
                (Some((*proof, whole)), Some(*image), Task::Load)
            }
            Wanted::Load(LoadRequest { basis: Basis::Cache(id), .. }) => {
                (None, None, Task::Cached(self.cached_load(*id)))
            }
            Wanted::Insert(insert) => (Some((insert.proof, whole)), Some(insert.image), Task::Image),
            Wanted::Record { region, length, .. } => (Some((*region, *length)), None, Task::Record),
            Wanted::Case { region, length } => (Some((*region, *length)), None, Task::Case),
        };
        work.verdict = None;
        work.length = 0;
        work.trusted = self.keyring.trusted();
        work.source = source
            .and_then(|(region, length)| self.regions.get(region).map(|r| (r.backing, r.filled, length)));
        work.image = image.and_then(|image| self.regions.get(image).map(|r| (r.backing, r.pages)));
        work.task = task;
        work.alone = self.verifier.parked.is_none();
    }

    /// The context has finished its job; what follows is done in steps that the scheduler asks for.
    pub(crate) fn verification_done(&mut self, m: &mut impl Machine) {
        self.verifier.finished = m.finish_verification();
        self.leave_verification();
    }

    /// The scheduler chooses anew what the context, or what follows it, does.
    fn leave_verification(&mut self) {
        self.attention |= Attention::SCHEDULE;
        if self.running() == Running::Verification {
            self.set_running(Running::Idle);
        }
    }

    /// Test hook: keeps loads from their last step, or no longer.
    pub(crate) fn hold_verification(&mut self, hold: bool) {
        self.verifier.hold = hold;
        self.verifier.park();
        self.verifier.unpark();
        self.leave_verification();
    }

    /// One bounded step of what follows the active job's verdict.
    pub(crate) fn conclusion_step(&mut self, m: &mut impl Machine) {
        let undone = |job: &Job| {
            let embryo = job.failed.and(job.embryo)?;
            // Nobody names what did not come to be; if somebody does nevertheless, its record stays like any other's.
            self.processes.get(embryo.process).filter(|p| p.state != ProcessState::Ended)
        };
        if self.verifier.active.as_deref().and_then(undone).is_some() {
            self.reap_object_step(m);
            return;
        }
        let Some(mut job) = self.verifier.active.take() else { return };
        let Some(work) = self.verifier.finished.take() else {
            self.verifier.active = Some(job);
            return;
        };
        // Nothing in here ends a thread, which might look for its job.
        let step = self.advance(m, &mut job, &work);
        if let Step::Done(result) = step {
            let error = result.as_ref().err().map_or(0, |f| f.error as u64);
            self.counters.verifications_refused += u64::from(error != 0);
            self.note_verification(Kind::VerifyEnd, &job.request.wanted, error);
            self.release_request(&job.request.wanted);
            if let Some(thread) = job.request.thread {
                self.answer_verified(thread, result, work.installed());
            }
            let mut work = work;
            work.clear();
            self.verifier.idle = Some(work);
            self.verifier.vacant.push(job);
            self.verifier.unpark();
            self.leave_verification();
            return;
        }
        (self.verifier.active, self.verifier.finished) = (Some(job), Some(work));
        self.verifier.park();
        if self.verifier.active.is_none() {
            self.leave_verification();
        }
        if let Step::Reap = step {
            self.reap_object_step(m);
        }
    }

    fn advance(&mut self, m: &mut impl Machine, job: &mut Job, work: &Work) -> Step {
        if let Some(why) = job.failed {
            return Step::Done(Err(why));
        }
        let result = match job.request.thread {
            Some(thread) => {
                self.count_allocations(thread);
                self.conclude(m, thread, job, work)
            }
            None => Err(Error::Suspended.into()),
        };
        let made_to_fail = self.was_made_to_fail();
        self.stop_counting();
        if result.is_err() {
            self.shrink_grown()
        } else {
            self.keep_grown()
        }
        match result {
            Ok(true) => Step::Done(Ok(())),
            Ok(false) => Step::More,
            Err(f) if f.error.is_exhaustion() && !self.nothing_to_reap() && !made_to_fail => Step::Reap,
            Err(f) => {
                job.failed = Some(f);
                if let Some(embryo) = job.embryo {
                    self.begin_end(m, embryo.process, Exit::default());
                }
                Step::More
            }
        }
    }

    /// Does what a verdict allows; true once all is done.
    fn conclude(
        &mut self,
        m: &mut impl Machine,
        thread: ThreadId,
        job: &mut Job,
        work: &Work,
    ) -> Result<bool, Fail> {
        match (&job.request.wanted, &work.verdict) {
            (Wanted::Load(load), Some(Ok(Verdict::Load(verified)))) => {
                self.load_step(m, thread, load, verified, &mut job.embryo)
            }
            (Wanted::Insert(request), Some(Ok(Verdict::Image(image, key)))) => {
                self.insert_image(m, thread, request, image, key)?;
                Ok(true)
            }
            // The image has left the cache since it was asked for.
            (Wanted::Load(_), None) => Err(Error::SourceGone.into()),
            (Wanted::Record { policy, .. }, Some(Ok(Verdict::Record(record)))) => {
                self.install_record(record, *policy)?;
                Ok(true)
            }
            (Wanted::Case { .. }, Some(Ok(Verdict::Case))) => Ok(true),
            (_, Some(Err(why))) => Err(chain_fail(*why)),
            _ => Err(Error::RecordMalformed.into()),
        }
    }

    /// Tells the thread that waited; of a record that came into force its kind and sequence.
    fn answer_verified(&mut self, thread: ThreadId, result: Result<(), Fail>, record: Option<[u64; 2]>) {
        #[cfg(test)]
        if let Err(f) = &result {
            crate::tests::refusals::met(sila_abi::syscall::Tag(self.registers(thread).rax), f.error);
        }
        match result {
            Ok(()) => {
                let words = record.as_ref().map_or(&[][..], |words| &words[..]);
                self.wake(thread, Outcome::message(words.len() as u8, 0, 0), 0, words);
            }
            Err(f) => {
                let (words, count) = f.words();
                let words = words.get(..count).unwrap_or_default();
                self.wake(thread, Outcome::error(f.error, count as u8), 0, words);
            }
        }
    }

    /// Lets go of the Regions that a request pinned.
    pub(crate) fn release_request(&mut self, wanted: &Wanted) {
        match wanted {
            Wanted::Load(load) => {
                self.pin_region(load.image, false);
                if let Basis::Proof(proof) = load.basis {
                    self.pin_region(proof, false);
                }
            }
            Wanted::Insert(insert) => {
                self.pin_region(insert.image, false);
                self.pin_region(insert.proof, false);
            }
            Wanted::Record { region, .. } | Wanted::Case { region, .. } => self.pin_region(*region, false),
        }
    }

    /// The thread that waits for a verification is gone or was suspended: its job is dropped.
    pub(crate) fn abandon_verification(&mut self, thread: ThreadId) {
        let jobs = self.verifier.active.iter_mut().chain(self.verifier.parked.iter_mut().map(|(job, _)| job));
        for job in jobs.filter(|job| job.request.thread == Some(thread)) {
            job.request.thread = None;
            // What it has begun to become is taken apart by the reaper.
            self.attention |= Attention::REAP;
        }
        if let Some(at) = self.verifier.queue.iter().position(|r| r.thread == Some(thread)) {
            let request = self.verifier.queue.remove(at);
            self.release_request(&request.wanted);
        }
    }
}
