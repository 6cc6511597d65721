//! Gates: how a service stops receiving while its callers queue, and how it goes on.
//!
//! A shut endpoint has no receiver, so that receiving pays nothing for gates: who is refused looks whether it is
//! `from` whose gate is shut, or a stranger.

use sila_abi::handover::{Cause, MAX_DEPOSITS, MAX_SERVICES};
use sila_abi::{Error, ObjectType, Rights, Slot};

use super::{HandoverId, Service, State, place};
use crate::invoke::{Flow, Invocation};
use crate::ipc::Source;
use crate::kernel::{Fail, Kernel, id_of};
use crate::machine::Machine;
use crate::objects::*;
use crate::queue::Alarm;

/// Which threads wait, by their slot.
pub(super) type Callers = [bool; Thread::SLOTS as usize];

impl Kernel {
    pub(super) fn handover_close(&mut self, c: &Invocation, id: HandoverId) -> Result<Flow, Fail> {
        let h = self.handovers.get(id).ok_or(Error::ObjectGone)?;
        let (wanted, shut) = (c.args[0], h.bits(|s| s.shut));
        let all = h.bits(|_| true);
        if wanted == 0 || wanted & !all != 0 {
            return Err(Error::InvalidArgument.into());
        }
        if wanted & shut != 0 {
            return Err(Fail::with(Error::AlreadyClosed, (wanted & shut).trailing_zeros().into()));
        }
        let services = h.services;
        for (s, i) in services.into_iter().zip(0u8..) {
            if s.is_some() && wanted & 1 << i != 0 {
                self.change_service(id, i, |s| s.shut = true);
            }
        }
        self.each_covered(id, |k, e, i| {
            if wanted & 1 << i != 0
                && let Some(Some(s)) = services.get(usize::from(i))
            {
                k.shut_endpoint(e, s.from);
            }
        });
        if shut | wanted == all {
            self.set_state(id, State::Closed);
            self.announce(id);
        }
        let h = self.handovers.get(id).ok_or(Error::ObjectGone)?;
        Ok(Flow::words(&[h.state as u64, h.epoch]))
    }

    /// Visits every endpoint that a Handover covers, with the number of its service.
    pub(super) fn each_covered(
        &mut self,
        id: HandoverId,
        mut visit: impl FnMut(&mut Kernel, EndpointId, u8),
    ) {
        for index in 0..self.endpoints.capacity() {
            let found = self.endpoints.at(index).map(|(e, x)| (e, x.covered));
            if let Some((e, Some((of, service)))) = found
                && of == id
            {
                visit(self, e, service);
            }
        }
    }

    /// Keeps the receiver of an endpoint from receiving; who waits there learns it.
    pub(super) fn shut_endpoint(&mut self, id: EndpointId, from: ProcessId) {
        let Some(e) = self.endpoints.get_mut(id) else { return };
        (e.receiver, e.shut) = (None, Some(from));
        while let Some(t) = self.endpoints.get(id).and_then(|e| e.receivers.first()) {
            self.wake_error(self.threads.id_at(t), Error::Quiesced);
        }
    }

    /// Why a process may not receive from an endpoint whose receiver it is not: its gate is shut, or it is a stranger.
    pub(crate) fn refused_receiver(&self, id: EndpointId, process: ProcessId) -> Result<Source, Error> {
        let shut = self.endpoints.get(id).and_then(|e| e.shut);
        if shut == Some(process) { Ok(Source::Shut) } else { Err(Error::NotReceiver) }
    }

    pub(super) fn handover_reopen(&mut self, c: &Invocation, id: HandoverId) -> Result<Flow, Fail> {
        let h = self.handovers.get(id).ok_or(Error::ObjectGone)?;
        let entitled =
            c.found.cap.rights.contains(Rights::MANAGE) || h.services().any(|(_, s)| s.from == c.process);
        if !entitled {
            return Err(Error::NotParticipant.into());
        }
        if h.bits(|s| s.shut) == 0 {
            return Err(Error::NotClosed.into());
        }
        self.open_gates(id);
        self.set_state(id, State::Open);
        self.announce(id);
        Ok(Flow::words(&[self.handovers.get(id).map_or(0, |h| h.epoch)]))
    }

    /// Opens every gate: who served, serves on, and what was exported no longer holds.
    pub(super) fn open_gates(&mut self, id: HandoverId) {
        let Some(h) = self.handovers.get_mut(id) else { return };
        h.epoch += 1;
        let services = h.services;
        self.drop_exports(id);
        for i in 0..services.len() as u8 {
            self.change_service(id, i, |s| s.shut = false);
        }
        self.pass_endpoints(id, |s| Some(s.from), |_| true);
    }

    /// Gives the endpoints of some services to the process that `heir` names; one that has ended receives nothing.
    pub(super) fn pass_endpoints(
        &mut self,
        id: HandoverId,
        heir: impl Fn(&Service) -> Option<ProcessId>,
        which: impl Fn(u8) -> bool,
    ) {
        let Some(services) = self.handovers.get(id).map(|h| h.services) else { return };
        self.each_covered(id, |k, endpoint, i| {
            let service = services.get(usize::from(i)).copied().flatten().filter(|_| which(i));
            let Some(service) = service else { return };
            let heir = heir(&service).filter(|p| k.live_process(*p).is_ok());
            let Some(e) = k.endpoints.get_mut(endpoint) else { return };
            (e.receiver, e.shut) = (heir, None);
            if heir.is_none() && !e.durable {
                k.fail_waiters(endpoint, Error::PeerDied);
            }
        });
    }

    /// Forgets what was exported.
    pub(super) fn drop_exports(&mut self, id: HandoverId) {
        let Some(h) = self.handovers.get_mut(id) else { return };
        let exports = h.services.each_mut().map(|s| s.as_mut().and_then(|s| s.export.take()));
        for export in exports.into_iter().flatten() {
            self.pin_region(export.region, false);
        }
    }

    /// Lets go of every endpoint that a Handover covers, and of its participants.
    pub(super) fn uncover(&mut self, m: &mut impl Machine, id: HandoverId) {
        let services = self.handovers.get(id).map_or([None; MAX_SERVICES], |h| h.services);
        for service in services.into_iter().flatten() {
            self.forget_participant(m, service.from);
            self.forget_participant(m, service.to);
        }
        self.each_covered(id, |k, e, _| {
            if let Some(e) = k.endpoints.get_mut(e) {
                e.covered = None;
            }
        });
    }

    /// Opens every gate for good. For a Handover that is open or closed.
    pub(crate) fn abort_handover(&mut self, m: &mut impl Machine, id: HandoverId, cause: Cause) {
        self.timers.cancel(Alarm::Handover(id.index()));
        self.open_gates(id);
        self.uncover(m, id);
        if let Some(h) = self.handovers.get_mut(id) {
            h.cause = cause;
        }
        self.set_state(id, State::Aborted);
        self.drop_orphaned_deposits(m, id);
        self.announce(id);
    }

    /// The deadline of a Handover passed.
    pub(crate) fn handover_deadline(&mut self, m: &mut impl Machine, index: u32) {
        let due = self.handovers.at(index).map(|(id, h)| (id, h.state));
        if let Some((id, State::Open | State::Closed)) = due {
            self.abort_handover(m, id, Cause::Deadline);
        }
    }

    /// Calls that services of a Handover received and nobody has answered, but for those whose Reply is deposited.
    pub(super) fn unanswered(&self, id: HandoverId, which: impl Fn(u8) -> bool) -> u64 {
        self.unanswered_callers(id, which).into_iter().filter(|waits| *waits).count() as u64
    }

    /// The slots of the threads whose calls those are, wherever the Replies lie. Each is found at its caller, who waits
    /// and called by a capability of its own; and, should that be gone, at its Reply if a participant holds it.
    pub(super) fn unanswered_callers(&self, id: HandoverId, which: impl Fn(u8) -> bool) -> Callers {
        let covered = |endpoint| {
            let e: &Endpoint = self.endpoints.get(endpoint)?;
            e.covered.filter(|(of, service)| *of == id && which(*service))
        };
        let mut waiting = [false; Thread::SLOTS as usize];
        let mut mark = |t: ThreadId, waits| {
            if let Some(place) = waiting.get_mut(t.index() as usize) {
                *place = waits;
            }
        };
        for (t, _) in self.threads.iter().filter(|(_, t)| t.state == ThreadState::AwaitingReply) {
            if self.endpoint_of_call(t).and_then(covered).is_some() {
                mark(t, true);
            }
        }
        let Some(h) = self.handovers.get(id) else { return waiting };
        let served = |process: &ProcessId| h.services().any(|(_, s)| s.from == *process || s.to == *process);
        let processes = self.processes.iter().map(|(process, _)| process).filter(served);
        for at in processes.flat_map(|p| self.caps.usable_slots(p.index())) {
            if let Some(reply) = self.caps.peek_typed(at, ObjectType::Reply)
                && let Some(caller) = self.caller_of(reply)
                && self.called_endpoint(reply).and_then(covered).is_some()
            {
                mark(caller, true);
            }
        }
        for deposit in 0..MAX_DEPOSITS {
            if let Some(reply) = self.caps.peek_typed(place(id, deposit), ObjectType::Reply)
                && let Some(caller) = self.caller_of(reply)
            {
                mark(caller, false);
            }
        }
        waiting
    }

    /// The endpoint that a thread which awaits a reply called, by the capability that it called it with.
    fn endpoint_of_call(&self, thread: ThreadId) -> Option<EndpointId> {
        let t = self.threads.get(thread)?;
        let (holder, slot) = match t.fault {
            Some(_) => t.fault_endpoint?,
            None => (t.process, Slot::from_word(t.context.registers.rdi)?),
        };
        let cap = self.find(holder, slot).ok()?.cap;
        (cap.object.kind == ObjectType::Endpoint).then(|| id_of(&cap))
    }
}
