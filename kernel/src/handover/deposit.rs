//! What passes through a Handover: the exported state, and capabilities that belong to one side at a time.
//!
//! Deposits lie in slots of nobody's CSpace. Whose they are follows from the Handover's state alone, so that a
//! commit or a rollback moves all of them without touching one.

use sila_abi::handover::MAX_DEPOSITS;
use sila_abi::{Error, ObjectType, Rights, Slot};

use super::{Export, Handover, HandoverId, State, UNUSED, place};
use crate::cap::{Cap, CapId, Origin};
use crate::invoke::{Flow, Invocation};
use crate::kernel::{Fail, Kernel, id_of, reference};
use crate::machine::Machine;
use crate::objects::*;

impl Kernel {
    pub(super) fn handover_export(&mut self, c: &Invocation, id: HandoverId) -> Result<Flow, Fail> {
        let region: RegionId = c.arg_id(2)?;
        let h = self.handovers.get(id).ok_or(Error::ObjectGone)?;
        let (index, s) = h.service(c.args[0])?;
        if s.from != c.process {
            return Err(Error::NotParticipant.into());
        }
        if !s.shut {
            return Err(Fail::with(Error::NotClosed, index.into()));
        }
        if s.export.is_some() {
            return Err(Error::AlreadyExported.into());
        }
        if !c.caps[2].is_some_and(|f| f.cap.rights.contains(Rights::READ)) {
            return Err(Error::MissingRight.into());
        }
        match self.unanswered(id, |i| i == index) {
            0 => {}
            n => return Err(Fail::with(Error::RepliesOutstanding, n)),
        }
        self.recharge_region(region, s.pool)?;
        self.pin_region(region, true);
        self.change_service(id, index, |s| s.export = Some(Export { region, schema: c.args[1] }));
        Ok(Flow::words(&[]))
    }

    pub(super) fn handover_state(&mut self, c: &Invocation, id: HandoverId) -> Result<Flow, Fail> {
        let at = c.dst()?;
        let h = self.handovers.get(id).ok_or(Error::ObjectGone)?;
        let (index, s) = h.service(c.args[0])?;
        let reader = if h.state == State::RolledBack { s.from } else { s.to };
        if reader != c.process {
            return Err(Error::NotParticipant.into());
        }
        let export = s.export.ok_or(Error::NotExported)?;
        let r = self.regions.get(export.region).ok_or(Error::ObjectGone)?;
        r.demand_sealed().map_err(|e| Fail::with(e, index.into()))?;
        let pages = r.pages.into();
        let object = reference(ObjectType::Region, export.region);
        // A root: what the service's Pool pays for, no capability of the other side takes away.
        self.install(at, Cap { object, rights: Rights::READ | Rights::COPY, badge: 0, origin: Origin::NONE });
        Ok(Flow::words(&[pages, export.schema]))
    }

    pub(super) fn handover_deposit(&mut self, c: &Invocation, id: HandoverId) -> Result<Flow, Fail> {
        let h = self.handovers.get(id).ok_or(Error::ObjectGone)?;
        let (index, s) = h.service(c.args[0])?;
        if s.from != c.process {
            return Err(Error::NotParticipant.into());
        }
        let found = self.find(c.process, Slot::from_word(c.args[1]).ok_or(Error::SlotOutOfRange)?)?;
        let empty = |at: &usize| self.caps.is_empty(place(id, *at));
        let deposit = (0..MAX_DEPOSITS).find(empty).ok_or(Error::HandoverFull)?;
        let into = place(id, deposit);
        if !found.cap.rights.usable() {
            return Err(Error::EndowOnly.into());
        }
        self.check_deposit(id, index, &found)?;
        if found.cap.object.kind == ObjectType::Endpoint {
            self.cover_session(id, index, id_of(&found.cap))?;
        }
        self.caps.relocate(found.id, into);
        if let Some(owner) = self.handovers.get_mut(id).and_then(|h| h.deposits.get_mut(deposit)) {
            *owner = index;
        }
        Ok(Flow::words(&[deposit as u64]))
    }

    /// True if a capability may pass from one side to the other.
    fn check_deposit(&self, id: HandoverId, index: u8, found: &Found) -> Result<(), Error> {
        let cap = found.cap;
        match cap.object.kind {
            ObjectType::Reply if self.caller_of(&cap).is_none() => Err(Error::CallerGone),
            ObjectType::Reply => Ok(()),
            ObjectType::IrqHandler | ObjectType::IoPorts if self.caps.first_child(found.id).is_some() => {
                Err(Error::NotExclusive)
            }
            ObjectType::IrqHandler | ObjectType::IoPorts => Ok(()),
            ObjectType::Endpoint => self.check_session(id, index, &cap),
            _ => Err(Error::WrongType),
        }
    }

    fn check_session(&self, id: HandoverId, index: u8, cap: &Cap) -> Result<(), Error> {
        let e = self.endpoints.get(id_of(cap)).ok_or(Error::ObjectGone)?;
        let (_, s) = self.handovers.get(id).ok_or(Error::ObjectGone)?.service(index.into())?;
        if !cap.rights.contains(Rights::RECV) {
            return Err(Error::MissingRight);
        }
        if e.covered.is_some() {
            return Err(Error::AlreadyCovered);
        }
        if e.receiver != Some(s.from) {
            return Err(Error::NotReceiver);
        }
        if self.may_receive(s.to, e.label) { Ok(()) } else { Err(Error::LabelMismatch) }
    }

    /// A session's endpoint shares the fate of its service from now on.
    fn cover_session(&mut self, id: HandoverId, index: u8, endpoint: EndpointId) -> Result<(), Error> {
        let (_, s) = self.handovers.get(id).ok_or(Error::ObjectGone)?.service(index.into())?;
        self.recharge_endpoint(endpoint, s.pool)?;
        if let Some(e) = self.endpoints.get_mut(endpoint) {
            e.covered = Some((id, index));
        }
        if s.shut {
            self.shut_endpoint(endpoint, s.from);
        }
        Ok(())
    }

    pub(super) fn handover_take(&mut self, c: &Invocation, id: HandoverId) -> Result<Flow, Fail> {
        let at = c.dst()?;
        let h = self.handovers.get(id).ok_or(Error::ObjectGone)?;
        let deposit = usize::try_from(c.args[0]).map_err(|_| Error::InvalidArgument)?;
        let owner = *h.deposits.get(deposit).ok_or(Error::InvalidArgument)?;
        let (index, s) = h.service(owner.into()).map_err(|_| Error::NoCapability)?;
        let (kept, state) = (place(id, deposit), h.state);
        if h.owner(&s) != c.process {
            return Err(Error::NotParticipant.into());
        }
        if state == State::Open && s.shut {
            return Err(Fail::with(Error::AlreadyClosed, index.into()));
        }
        let cap = self.caps.get(kept).ok_or(Error::NoCapability)?;
        let kind = cap.object.kind;
        if state == State::Committed && kind != ObjectType::Reply {
            self.lend(kept, at, cap)?;
            return Ok(Flow::words(&[kind as u64]));
        }
        self.caps.relocate(kept, at);
        if kind == ObjectType::Endpoint
            && let Some(e) =
                self.endpoints.get_mut(id_of(&cap)).filter(|e| e.covered.is_some_and(|x| x.0 == id))
        {
            e.covered = None;
        }
        Ok(Flow::words(&[kind as u64]))
    }

    /// Gives `to` the use of what may still have to go back.
    fn lend(&mut self, kept: CapId, at: CapId, cap: Cap) -> Result<(), Error> {
        let device = cap.object.kind != ObjectType::Endpoint;
        if device && self.caps.first_child(kept).is_some() {
            return Err(Error::AlreadyTaken);
        }
        let held_back = if device { Rights::COPY | Rights::GRANT } else { Rights::empty() };
        self.derive(kept, at, Cap { rights: cap.rights.difference(held_back), ..cap });
        Ok(())
    }

    /// The bits of a service's deposits.
    pub(super) fn deposit_bits(&self, id: HandoverId, h: &Handover, service: u8) -> u64 {
        let there = |at: &usize| h.deposits.get(*at) == Some(&service) && !self.caps.is_empty(place(id, *at));
        (0..MAX_DEPOSITS).filter(there).fold(0, |bits, at| bits | 1 << at)
    }

    /// Takes back what was lent of devices.
    pub(super) fn recall_devices(&mut self, m: &mut impl Machine, id: HandoverId) {
        for at in 0..MAX_DEPOSITS {
            let kept = place(id, at);
            let device = self.caps.peek(kept).is_some_and(|c| c.object.kind != ObjectType::Endpoint);
            // What is lent cannot be copied, so there is one at most.
            if device && let Some(lent) = self.caps.first_child(kept) {
                self.delete(m, lent);
            }
        }
    }

    /// Once a Handover has ended its work: deletes deposits whose owner has ended, so that callers who wait for an
    /// answer learn that none will come.
    pub(super) fn drop_orphaned_deposits(&mut self, m: &mut impl Machine, id: HandoverId) {
        self.drop_deposits(m, id, |k, h, at| {
            let service = h.deposits.get(at).map(|s| h.service(u64::from(*s)));
            !h.state.is_active()
                && matches!(service, Some(Ok((_, s))) if k.live_process(h.owner(&s)).is_err())
        });
    }

    /// Deletes the deposits for which something holds.
    pub(super) fn drop_deposits(
        &mut self,
        m: &mut impl Machine,
        id: HandoverId,
        which: impl Fn(&Kernel, &Handover, usize) -> bool,
    ) {
        for at in 0..MAX_DEPOSITS {
            let Some(h) = self.handovers.get(id) else { return };
            let kept = place(id, at);
            if !self.caps.is_empty(kept) && which(self, h, at) {
                self.delete(m, kept);
            }
            if self.caps.is_empty(kept)
                && let Some(owner) = self.handovers.get_mut(id).and_then(|h| h.deposits.get_mut(at))
            {
                *owner = UNUSED;
            }
        }
    }
}
