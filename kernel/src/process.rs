//! The end of processes: a bounded commit, then steps that the caller, the reaper or both carry on.

use sila_abi::Error;
use sila_abi::trace::Kind;

use crate::cap::{CHUNK, CapId, CapTable};
use crate::kernel::{Attention, Kernel};
use crate::machine::Machine;
use crate::memory::Progress;
use crate::objects::*;
use crate::paging::{self, Freed};

/// Threads freed in one teardown step.
const THREAD_STEP: u32 = 2;
/// Endpoints and notifications looked at in one teardown step.
const ENDPOINT_STEP: u32 = 8;
/// Waiting threads woken in one teardown step.
const WAKE_STEP: u32 = 4;
/// Slots of a CSpace emptied in one teardown step.
const SLOT_STEP: usize = 8;
/// Mappings forgotten in one teardown step.
const MAPPING_STEP: u32 = 8;
/// Private pages freed in one step, or one table, or none if the next is far.
const FREE_STEP: u32 = 4;
/// Steps of the reaper at a tick of the timer.
const STEPS_PER_TICK: u32 = 16;
/// Pools looked at in one step.
const POOL_STEP: u32 = 16;

impl Kernel {
    /// The commit of a process's end: from here on no capability reaches it but for its status, and none
    /// of its threads runs or waits. What it costs is bounded by the threads that a manifest may ask for.
    pub(crate) fn begin_end(&mut self, m: &mut impl Machine, id: ProcessId, exit: Exit) {
        let Some(p) = self.processes.get_mut(id) else { return };
        if matches!(p.state, ProcessState::Dying | ProcessState::Ended) {
            return;
        }
        p.state = ProcessState::Dying;
        p.exit = exit;
        p.reap_next = self.reap;
        self.reap = Some(id);
        self.attention |= Attention::REAP | Attention::SCHEDULE;
        if exit.cause != 0 {
            self.note(Kind::ProcessEnd, |k| [k.number_of(id), exit.cause, exit.code]);
        }
        let mut at = self.processes.get(id).and_then(|p| p.threads);
        while let Some((t, next)) = at.and_then(|t| self.threads.get(t).map(|thread| (t, thread.next))) {
            self.leave_wait(t);
            at = next;
        }
        self.lift_budget(id);
        if let Some(roots) = self.processes.get(id).and_then(|p| p.roots) {
            m.leave_root(roots.kernel);
        }
        self.participant_ended(m, id);
    }

    /// Ends a process and takes it apart, as far as interrupts allow.
    pub(crate) fn terminate(
        &mut self,
        m: &mut impl Machine,
        id: ProcessId,
        exit: Exit,
    ) -> Result<Progress, Error> {
        self.begin_end(m, id, exit);
        loop {
            match self.processes.get(id).map(|p| p.state) {
                None | Some(ProcessState::Ended) => return Ok(Progress::Done),
                _ => {}
            }
            if !self.reap_step(m) {
                return Ok(Progress::Done);
            }
            if m.interrupt_pending() {
                return Ok(Progress::Preempted);
            }
        }
    }

    /// Contributes a step to whatever is being reaped. The entry may be that of a thread of the highest priority, which
    /// has to wait for it: one step is all it pays.
    pub(crate) fn reap_some(&mut self, m: &mut impl Machine) {
        if !self.nothing_to_reap() && !m.interrupt_pending() {
            self.reap_step(m);
        }
        if self.nothing_to_reap() {
            self.attention -= Attention::REAP;
        }
    }

    /// The reaper's turn at a tick at which nobody else has one. The timer is not set meanwhile: that a deadline comes
    /// is seen by the clock.
    pub(crate) fn reap_for_a_while(&mut self, m: &mut impl Machine) {
        let next = self.timers.next().unwrap_or(u64::MAX);
        for _ in 0..STEPS_PER_TICK {
            if self.nothing_to_reap() || m.interrupt_pending() || m.now() >= next {
                return;
            }
            self.reap_step(m);
        }
    }

    /// True if neither a process nor a Region nor the module cache waits for the reaper.
    pub(crate) fn nothing_to_reap(&self) -> bool {
        self.reap.is_none()
            && self.dead_regions.is_empty()
            && !self.is_sweeping()
            && !self.verifier.is_abandoned()
    }

    /// One bounded step of reaping; false if nothing is left to do.
    pub(crate) fn reap_step(&mut self, m: &mut impl Machine) -> bool {
        if self.verifier.is_abandoned() {
            self.conclusion_step(m);
            return true;
        }
        self.reap_object_step(m)
    }

    /// As [`Kernel::reap_step`], of what ended already.
    pub(crate) fn reap_object_step(&mut self, m: &mut impl Machine) -> bool {
        if !self.doomed.is_empty() {
            self.counters.reaper_steps += 1;
            self.end_doomed(m);
            return true;
        }
        if self.reap_region_step(m) || self.sweep_step() {
            self.counters.reaper_steps += 1;
            return true;
        }
        let Some(id) = self.reap else { return false };
        self.counters.reaper_steps += 1;
        if self.teardown_step(m, id) {
            self.reap = self.processes.get_mut(id).and_then(|p| p.reap_next.take());
            self.finish_end(m, id);
        }
        true
    }

    /// One step of taking a dying process apart; true when nothing is left.
    fn teardown_step(&mut self, m: &mut impl Machine, id: ProcessId) -> bool {
        let Some(p) = self.processes.get(id) else { return true };
        let (end, pool) = (p.end, p.pool);
        if p.threads.is_some() {
            self.free_threads(m, id);
            return false;
        }
        if end.endpoints < self.endpoints.capacity().max(self.notifications.capacity()) {
            self.release_endpoints(id, end.endpoints);
            return false;
        }
        if let Some(chunk) = self.caps.first_chunk(id.index()) {
            self.empty_chunk(m, id, pool, chunk);
            return false;
        }
        if p.mappings.is_some() {
            self.forget_mappings(id);
            return false;
        }
        if p.roots.is_some() {
            self.free_address_space(m, id, pool);
            return false;
        }
        if end.pools < self.pools.capacity() {
            self.release_pools(id, pool, end.pools);
            return false;
        }
        true
    }

    fn free_threads(&mut self, m: &mut impl Machine, id: ProcessId) {
        for _ in 0..THREAD_STEP {
            let Some(t) = self.processes.get(id).and_then(|p| p.threads) else { return };
            self.end_thread(m, t);
        }
    }

    /// The endpoints of one stretch of the arena lose this process as receiver; those it paid for end. Who
    /// waits in one is woken first, a few threads in each step.
    fn release_endpoints(&mut self, id: ProcessId, from: u32) {
        let Some(pool) = self.processes.get(id).map(|p| p.pool) else { return };
        let to = from.saturating_add(ENDPOINT_STEP);
        let mut wakes = WAKE_STEP;
        let mut at = from;
        while at < to && self.release_endpoint(id, pool, at, &mut wakes) {
            at += 1;
        }
        if let Some(p) = self.processes.get_mut(id) {
            p.end.endpoints = at;
        }
    }

    /// What stands in one slot of the arenas of endpoints and notifications; false if more threads are to be woken.
    fn release_endpoint(&mut self, id: ProcessId, pool: PoolId, at: u32, wakes: &mut u32) -> bool {
        if let Some((e, payer, receiver, durable)) =
            self.endpoints.at(at).map(|(e, x)| (e, x.pool, x.receiver, x.durable))
        {
            let ends = self.pool_is_within(payer, pool);
            let died = receiver == Some(id) && !durable;
            let error = if died { Error::PeerDied } else { Error::ObjectGone };
            if (ends || died) && !self.wake_some(e, error, wakes) {
                return false;
            }
            self.receiver_died(e, id);
            if ends {
                self.end_endpoint(e);
            }
        }
        if let Some((n, payer)) = self.notifications.at(at).map(|(n, x)| (n, x.pool))
            && self.pool_is_within(payer, pool)
        {
            return self.end_notification_step(n, wakes);
        }
        true
    }

    fn empty_chunk(&mut self, m: &mut impl Machine, id: ProcessId, pool: PoolId, chunk: CapId) {
        let done = self.processes.get(id).map_or(0, |p| p.end.slots);
        for at in CapTable::chunk_of(chunk).skip(done).take(SLOT_STEP) {
            self.delete(m, at);
        }
        let done = (done + SLOT_STEP) % CHUNK;
        // Something may have come into a slot that was emptied before: then once more.
        if done == 0 && CapTable::chunk_of(chunk).all(|at| self.caps.is_empty(at)) {
            self.caps.set_usable(chunk, false);
            self.refund(pool, 0, CapTable::CHUNK_BYTES);
        }
        if let Some(p) = self.processes.get_mut(id) {
            p.end.slots = done;
        }
    }

    fn forget_mappings(&mut self, id: ProcessId) {
        for _ in 0..MAPPING_STEP {
            let Some(mapping) = self.processes.get(id).and_then(|p| p.mappings) else { return };
            self.forget_mapping(mapping);
        }
    }

    fn free_address_space(&mut self, m: &mut impl Machine, id: ProcessId, pool: PoolId) {
        let Some((roots, mut at)) = self.processes.get(id).and_then(|p| Some((p.roots?, p.end.address)))
        else {
            return;
        };
        for _ in 0..FREE_STEP {
            match paging::teardown_step(m, roots.kernel, &mut at) {
                Freed::Page(f) => self.put_frame(pool, f),
                Freed::Table(f) => {
                    self.put_frame(pool, f);
                    break;
                }
                Freed::Moved => break,
                Freed::Nothing => {
                    if roots.user != roots.kernel {
                        self.put_frame(pool, roots.user);
                    }
                    self.put_frame(pool, roots.kernel);
                    if let Some(p) = self.processes.get_mut(id) {
                        p.roots = None;
                    }
                    break;
                }
            }
        }
        if let Some(p) = self.processes.get_mut(id) {
            p.end.address = at;
        }
    }

    /// The process's own Pool and those that were split from it end, a stretch of the arena at a time, until there is
    /// none that could be split further: who has a capability to one may do so meanwhile, but only from one that has not
    /// ended, and only so deep.
    fn release_pools(&mut self, id: ProcessId, pool: PoolId, from: u32) {
        let to = from.saturating_add(POOL_STEP);
        let mut found = false;
        for index in from..to {
            if let Some((child, dying)) = self.pools.at(index).map(|(child, p)| (child, p.dying))
                && !dying
                && self.pool_is_within(child, pool)
            {
                found = true;
                self.end_pool(child);
            }
        }
        let capacity = self.pools.capacity();
        if let Some(p) = self.processes.get_mut(id) {
            p.end.found |= found;
            p.end.pools = if to >= capacity && core::mem::take(&mut p.end.found) { 0 } else { to };
        }
    }

    /// Everything of the process is back; its Pool follows, its record stays for who asks.
    fn finish_end(&mut self, m: &mut impl Machine, id: ProcessId) {
        let Some(p) = self.processes.get_mut(id) else { return };
        p.state = ProcessState::Ended;
        let (number, cause) = (p.number, p.exit.cause);
        let (image, watchers) = (p.image.take(), p.watchers);
        if let Some(image) = image {
            self.pin_region(image, false);
        }
        // What never came to be has no cause.
        if cause != 0 {
            self.counters.processes_ended += 1;
            self.note(Kind::ProcessGone, |_| [number, 0, 0]);
        }
        for (n, flags) in watchers.into_iter().flatten() {
            self.signal(n, flags);
        }
        self.drop_process(m, id);
    }

    /// The process, unless it is ending or has ended.
    pub(crate) fn live_process(&self, id: ProcessId) -> Result<&Process, Error> {
        let p = self.processes.get(id).ok_or(Error::ObjectGone)?;
        match p.state {
            ProcessState::Created | ProcessState::Running => Ok(p),
            _ => Err(Error::Dying),
        }
    }

    /// How many capabilities to itself a process holds that has not run: they lie where it was endowed.
    fn own_caps(&self, id: ProcessId) -> u32 {
        let own = crate::kernel::reference(sila_abi::ObjectType::Process, id);
        let slots = self.caps.usable_slots(id.index());
        slots.filter(|at| self.caps.get(*at).is_some_and(|cap| cap.object == own)).count() as u32
    }

    /// Removes the record of an ended process that no capability names. A process that was made, not
    /// started, and that nobody but itself names can never be started: it ends.
    pub(crate) fn drop_process(&mut self, m: &mut impl Machine, id: ProcessId) {
        let state = self.processes.get(id).map(|p| (p.state, p.caps));
        if let Some((ProcessState::Created, caps)) = state
            && caps == self.own_caps(id)
        {
            self.begin_end(m, id, Exit { cause: 2, ..Exit::default() });
            return;
        }
        let gone = self.processes.get(id).is_some_and(|p| p.caps == 0 && p.state == ProcessState::Ended);
        if !gone {
            return;
        }
        if let Some(p) = self.processes.remove(id) {
            self.refund(p.payer, 0, cost::<Process>());
            if let Some(j) = self.jobs.get_mut(p.job) {
                j.members = j.members.saturating_sub(1);
            }
            self.drop_job(m, p.job);
        }
    }
}
