//! Death of managers and participants, and how a successor finds what they left behind.

use sila_abi::handover::Cause;
use sila_abi::{Error, ObjectType, Op, Rights};

use super::{HANDOVER_RIGHTS, Handover, HandoverId, State, place};
use crate::cap::{Cap, Origin};
use crate::invoke::{Flow, Invocation};
use crate::kernel::{Fail, Kernel, id_of, reference};
use crate::machine::Machine;
use crate::objects::*;
use crate::queue::Alarm;

/// True if the holder of a capability to a Handover manages it.
fn manages(cap: &Cap) -> bool {
    cap.rights.usable() && cap.rights.contains(Rights::MANAGE)
}

impl Kernel {
    /// One capability to a Handover more.
    pub(crate) fn handover_gained(&mut self, cap: &Cap) {
        if let Some(h) = self.handovers.get_mut(id_of(cap)) {
            h.caps += 1;
            h.managers += u32::from(manages(cap));
        }
    }

    /// One capability to a Handover less. When nobody manages it any more it aborts, but for a commit, which stays
    /// for whoever recovers.
    pub(crate) fn handover_lost(&mut self, m: &mut impl Machine, cap: &Cap) {
        let id: HandoverId = id_of(cap);
        let Some(h) = self.handovers.get_mut(id) else { return };
        h.caps = h.caps.saturating_sub(1);
        h.managers = h.managers.saturating_sub(u32::from(manages(cap)));
        if h.managers == 0 && matches!(h.state, State::Open | State::Closed) {
            self.abort_handover(m, id, Cause::Unmanaged);
        }
        self.drop_handover(m, id);
    }

    /// Ends a Handover that no capability names and nobody can find.
    fn drop_handover(&mut self, m: &mut impl Machine, id: HandoverId) {
        let Some(h) = self.handovers.get(id).filter(|h| h.caps == 0) else { return };
        if h.state == State::Committed {
            if self.jobs.get(h.job).is_some() {
                return;
            }
            self.finish_commit(m, id);
        }
        self.drop_deposits(m, id, |_, _, _| true);
        self.drop_exports(id);
        self.timers.cancel(Alarm::Handover(id.index()));
        if let Some(h) = self.handovers.remove(id) {
            self.caps.set_usable(place(id, 0), false);
            self.refund(h.pool, 0, cost::<Handover>());
        }
    }

    /// A Job has ended: commits that could only have been found through it become irrevocable.
    pub(crate) fn job_ended(&mut self, m: &mut impl Machine, job: JobId) {
        for index in 0..self.handovers.capacity() {
            if let Some(id) = self.handovers.at(index).filter(|(_, h)| h.job == job).map(|(id, _)| id) {
                self.drop_handover(m, id);
            }
        }
    }

    /// A process has ended: what only it could have taken out of a Handover is dropped.
    pub(crate) fn participant_ended(&mut self, m: &mut impl Machine, process: ProcessId) {
        if let Some(id) = self.processes.get(process).and_then(|p| p.handover) {
            self.drop_orphaned_deposits(m, id);
        }
    }

    pub(crate) fn recovery_operation(&mut self, op: Op, c: &Invocation) -> Result<Flow, Fail> {
        match op {
            Op::JobHandover => self.job_handover(c),
            Op::JobAdopt => self.job_adopt(c),
            _ => self.charge_transfer(c),
        }
    }

    fn job_handover(&mut self, c: &Invocation) -> Result<Flow, Fail> {
        let (job, cursor, at): (JobId, u64, _) = (c.id(), c.args[0], c.dst()?);
        let found = self.handovers.iter().filter(|(_, h)| h.job == job && h.number > cursor);
        let (id, number) =
            found.map(|(id, h)| (id, h.number)).min_by_key(|(_, n)| *n).ok_or(Error::NoMoreEntries)?;
        let object = reference(ObjectType::Handover, id);
        self.install(at, Cap { object, rights: HANDOVER_RIGHTS, badge: 0, origin: Origin::NONE });
        Ok(Flow::words(&[number]))
    }

    fn job_adopt(&mut self, c: &Invocation) -> Result<Flow, Fail> {
        let (job, number, at): (JobId, u64, _) = (c.id(), c.args[0], c.dst()?);
        let born = |p: &Process| p.state != ProcessState::Embryo;
        let found = self.processes.iter().find(|(_, p)| p.job == job && p.number == number && born(p));
        let (id, _) = found.ok_or(Error::ObjectGone)?;
        let object = reference(ObjectType::Process, id);
        self.install(
            at,
            Cap {
                object,
                rights: Rights::READ | Rights::MANAGE | Rights::COPY,
                badge: 0,
                origin: Origin::NONE,
            },
        );
        Ok(Flow::words(&[]))
    }
}
