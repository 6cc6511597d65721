//! Commit, rollback, finalise. Each first checks everything and then cannot fail.

use sila_abi::Error;
use sila_abi::handover::DEAD_TO;

use super::{HandoverId, Service, State};
use crate::invoke::{Flow, Invocation};
use crate::kernel::{Fail, Kernel};
use crate::machine::Machine;
use crate::objects::*;
use crate::queue::Alarm;

impl Kernel {
    pub(super) fn handover_commit(&mut self, c: &Invocation, id: HandoverId) -> Result<Flow, Fail> {
        let h = self.handovers.get(id).ok_or(Error::ObjectGone)?;
        if c.args[0] != h.epoch {
            return Err(Fail::with(Error::StaleEpoch, h.epoch));
        }
        for (index, service) in h.services() {
            self.may_pass(index, &service)?;
        }
        match self.unanswered(id, |_| true) {
            0 => {}
            n => return Err(Fail::with(Error::RepliesOutstanding, n)),
        }
        let services = h.services;
        self.timers.cancel(Alarm::Handover(id.index()));
        self.pass_endpoints(id, |s| Some(s.to), |_| true);
        for (service, i) in services.iter().zip(0u8..) {
            let Some(service) = service else { continue };
            self.retire(service.from);
            self.change_service(id, i, |s| s.shut = false);
        }
        self.set_state(id, State::Committed);
        self.announce(id);
        Ok(self.unless_suspended(c))
    }

    /// The checks of a commit for one service.
    fn may_pass(&self, index: u8, s: &Service) -> Result<(), Fail> {
        let fail = |e| Fail::with(e, index.into());
        let e = self.endpoints.get(s.endpoint).ok_or(fail(Error::ObjectGone))?;
        let to = self
            .live_process(s.to)
            .map_err(|_| Fail::with(Error::ParticipantDead, DEAD_TO | u64::from(index)))?;
        if to.state != ProcessState::Running {
            return Err(fail(Error::NotStarted));
        }
        if !self.may_receive(s.to, e.label) {
            return Err(fail(Error::LabelMismatch));
        }
        match s.export {
            // Who has exported everything may have ended since.
            Some(x) => {
                let region = self.regions.get(x.region).ok_or(Error::NotSealed);
                region.and_then(Region::demand_sealed).map_err(fail)
            }
            None => self.live_process(s.from).map(|_| ()).map_err(|_| fail(Error::ParticipantDead)),
        }
    }

    /// The outcome for a caller that may belong to a process that was just suspended.
    fn unless_suspended(&mut self, c: &Invocation) -> Flow {
        let runs = self.threads.get(c.thread).is_some_and(|t| t.state == ThreadState::Running);
        if !runs {
            self.complete(c.thread, sila_abi::syscall::Outcome::message(0, 0, 0), 0, &[]);
            return Flow::Blocked;
        }
        Flow::words(&[])
    }

    pub(super) fn handover_rollback(
        &mut self,
        m: &mut impl Machine,
        c: &Invocation,
        id: HandoverId,
    ) -> Result<Flow, Fail> {
        let h = self.handovers.get(id).ok_or(Error::ObjectGone)?;
        for (index, s) in h.services() {
            let fail = |e| Fail::with(e, index.into());
            self.endpoints.get(s.endpoint).ok_or(fail(Error::ObjectGone))?;
            self.live_process(s.from).map_err(|_| fail(Error::ParticipantDead))?;
        }
        let services = h.services;
        self.fail_unanswered(id);
        for service in services.iter().flatten() {
            self.retire(service.to);
        }
        self.pass_endpoints(id, |s| Some(s.from), |_| true);
        self.uncover(m, id);
        self.recall_devices(m, id);
        for service in services.iter().flatten() {
            self.reinstate(service.from);
        }
        self.set_state(id, State::RolledBack);
        self.drop_orphaned_deposits(m, id);
        self.announce(id);
        Ok(self.unless_suspended(c))
    }

    /// Ends the calls that `to` received and has not answered: whatever it still answers comes too late.
    fn fail_unanswered(&mut self, id: HandoverId) {
        let waits = self.unanswered_callers(id, |_| true);
        for (index, _) in (0u32..).zip(waits).filter(|(_, waits)| *waits) {
            self.wake_error(self.threads.id_at(index), Error::PeerDiedDelivered);
        }
    }

    /// Suspends every thread of a process until it is reinstated.
    fn retire(&mut self, process: ProcessId) {
        let Some(p) = self.processes.get_mut(process) else { return };
        p.retired = true;
        let mut at = p.threads;
        while let Some((id, t)) = at.and_then(|id| self.threads.get(id).map(|t| (id, t))) {
            let (next, runs) = (t.next, t.state != ThreadState::Inactive);
            if runs {
                self.suspend(id);
                self.threads.known_mut(id.index()).quirks |= Quirks::HELD;
            }
            at = next;
        }
    }

    /// Lets the threads run on that ran when the process was retired.
    fn reinstate(&mut self, process: ProcessId) {
        let Some(p) = self.processes.get_mut(process) else { return };
        p.retired = false;
        let mut at = p.threads;
        while let Some((id, t)) = at.and_then(|id| self.threads.get_mut(id).map(|t| (id, t))) {
            let next = t.next;
            if t.quirks.contains(Quirks::HELD) {
                t.quirks -= Quirks::HELD;
                // Its process runs and it waits for nothing: nothing speaks against it.
                let _ = self.resume(id);
            }
            at = next;
        }
    }

    pub(super) fn handover_finalise(&mut self, m: &mut impl Machine, id: HandoverId) -> Result<Flow, Fail> {
        let h = self.handovers.get(id).ok_or(Error::ObjectGone)?;
        let mut risen = 0;
        for (_, s) in h.services() {
            let to = self.processes.get(s.to);
            risen += usize::from(to.is_some_and(|to| self.keyring.needs_floor(&to.identity)));
        }
        self.room(risen <= self.keyring.floors_left())?;
        self.finish_commit(m, id);
        Ok(Flow::words(&[]))
    }

    /// Makes a commit irrevocable.
    pub(super) fn finish_commit(&mut self, m: &mut impl Machine, id: HandoverId) {
        let Some(services) = self.handovers.get(id).map(|h| h.services) else { return };
        for service in services.iter().flatten() {
            if let Some(identity) = self.processes.get(service.to).map(|p| p.identity) {
                self.raise_floor(&identity);
            }
        }
        self.drop_exports(id);
        self.set_state(id, State::Finalised);
        self.uncover(m, id);
        self.drop_orphaned_deposits(m, id);
        self.announce(id);
    }
}
