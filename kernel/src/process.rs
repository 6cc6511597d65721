//! The end of processes: a bounded commit, then steps that the caller, the reaper or both carry on.

use sila_abi::Error;
use sila_abi::Slot;

use crate::cap::{CSPACE, CapId, CapTable};
use crate::kernel::{Attention, Kernel};
use crate::machine::Machine;
use crate::memory::Progress;
use crate::objects::*;
use crate::paging::{self, Freed};

/// Endpoints looked at in one teardown step.
const ENDPOINT_STEP: u32 = 64;
/// Pages of a process's private frames and tables freed in one step.
const FREE_STEP: u32 = 8;
/// Teardown steps that every kernel entry contributes while something is being reaped.
const STEPS_PER_ENTRY: u32 = 4;

impl Kernel {
    /// The commit of a process's end: from here on no capability reaches it but for its status, and none
    /// of its threads runs.
    pub(crate) fn begin_end(&mut self, m: &mut impl Machine, id: ProcessId, exit: Exit) {
        let Some(p) = self.processes.get_mut(id) else { return };
        if !matches!(p.state, ProcessState::Created | ProcessState::Running) {
            return;
        }
        p.state = ProcessState::Dying;
        p.exit = exit;
        p.reap_next = self.reap;
        self.reap = Some(id);
        self.attention |= Attention::REAP | Attention::SCHEDULE;
        while let Some(t) = self.processes.get(id).and_then(|p| p.threads) {
            self.end_thread(m, t);
        }
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

    /// Contributes a few steps to whatever is being reaped.
    pub(crate) fn reap_some(&mut self, m: &mut impl Machine) {
        for _ in 0..STEPS_PER_ENTRY {
            if self.nothing_to_reap() || m.interrupt_pending() || !self.reap_step(m) {
                break;
            }
        }
        if self.nothing_to_reap() {
            self.attention -= Attention::REAP;
        }
    }

    /// True if neither a process nor a Region waits for the reaper.
    pub(crate) fn nothing_to_reap(&self) -> bool {
        self.reap.is_none() && self.dead_regions.is_empty()
    }

    /// One bounded step of reaping; false if nothing is left to do.
    pub(crate) fn reap_step(&mut self, m: &mut impl Machine) -> bool {
        if self.reap_region_step(m) {
            return true;
        }
        let Some(id) = self.reap else { return false };
        if self.teardown_step(m, id) {
            self.reap = self.processes.get_mut(id).and_then(|p| p.reap_next.take());
            self.finish_end(m, id);
        }
        if !self.doomed.is_empty() {
            self.end_doomed(m);
        }
        true
    }

    /// One step of taking a dying process apart; true when nothing is left.
    fn teardown_step(&mut self, m: &mut impl Machine, id: ProcessId) -> bool {
        let Some(p) = self.processes.get(id) else { return true };
        let (cursor, pool) = (p.teardown, p.pool);
        if cursor < self.endpoints.capacity().max(self.notifications.capacity()) {
            self.release_endpoints(id, cursor);
            return false;
        }
        if let Some(chunk) = self.caps.first_chunk(id.index()) {
            self.empty_chunk(m, pool, chunk);
            return false;
        }
        if let Some(mapping) = p.mappings {
            self.forget_mapping(mapping);
            return false;
        }
        self.free_address_space(m, id, pool)
    }

    /// The endpoints of one stretch of the arena lose this process as receiver; those it paid for end.
    fn release_endpoints(&mut self, id: ProcessId, from: u32) {
        let Some(pool) = self.processes.get(id).map(|p| p.pool) else { return };
        let to = from.saturating_add(ENDPOINT_STEP);
        for i in from..to {
            if let Some((e, payer)) = self.endpoints.at(i).map(|(e, x)| (e, x.pool)) {
                self.receiver_died(e, id);
                if self.pool_is_within(payer, pool) {
                    self.end_endpoint(e);
                }
            }
            if let Some((n, payer)) = self.notifications.at(i).map(|(n, x)| (n, x.pool))
                && self.pool_is_within(payer, pool)
            {
                self.end_notification(n);
            }
        }
        if let Some(p) = self.processes.get_mut(id) {
            p.teardown = to;
        }
    }

    fn empty_chunk(&mut self, m: &mut impl Machine, pool: PoolId, chunk: CapId) {
        for at in CapTable::chunk_of(chunk) {
            self.delete(m, at);
        }
        self.caps.set_usable(chunk, false);
        self.refund(pool, 0, CapTable::CHUNK_BYTES);
    }

    fn free_address_space(&mut self, m: &mut impl Machine, id: ProcessId, pool: PoolId) -> bool {
        let Some(roots) = self.processes.get(id).and_then(|p| p.roots) else { return true };
        for _ in 0..FREE_STEP {
            match paging::teardown_step(m, roots.kernel) {
                Freed::Frame(f) => self.put_frame(pool, f),
                Freed::Nothing => {
                    if roots.user != roots.kernel {
                        self.put_frame(pool, roots.user);
                    }
                    self.put_frame(pool, roots.kernel);
                    if let Some(p) = self.processes.get_mut(id) {
                        p.roots = None;
                    }
                    return true;
                }
            }
        }
        false
    }

    /// Everything of the process is back; its Pool follows, its record stays for who asks.
    fn finish_end(&mut self, m: &mut impl Machine, id: ProcessId) {
        let Some(p) = self.processes.get_mut(id) else { return };
        p.state = ProcessState::Ended;
        let (image, pool, watchers) = (p.image.take(), p.pool, p.watchers);
        if let Some(image) = image {
            self.pin_region(image, false);
        }
        self.end_pool_tree(pool);
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

    /// How many capabilities to itself a process holds.
    fn own_caps(&self, id: ProcessId) -> u32 {
        let own = |slot: &u16| {
            self.find(id, Slot(*slot))
                .is_ok_and(|f| f.cap.object == crate::kernel::reference(sila_abi::ObjectType::Process, id))
        };
        (1..CSPACE as u16).filter(own).count() as u32
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
