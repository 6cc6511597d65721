//! Handovers: a live update of up to eight services as one decision of the kernel.
//!
//! A Handover covers services. Each has the labelled endpoint that its clients hold, the process that serves it
//! (`from`), the one that is to serve it (`to`), and the Pool that pays for what outlives both. What happens is in
//! the modules below: [`gate`] closes and opens, [`deposit`] keeps what passes from one process to the other,
//! [`transfer`] commits, rolls back and finalises, [`recovery`] deals with the death of managers and participants.
//!
//! Invariants: while a Handover is active, no other one covers its endpoints or processes; the gate of a service
//! is shut exactly if its endpoints have no receiver and name `from` as shut out; a commit, a rollback and an abort
//! happen whole or not at all; what is in a deposit is in no CSpace; only [`ANSWERS`] decides which operation is
//! possible in which state.

mod deposit;
mod gate;
mod recovery;
mod transfer;

use sila_abi::handover::{Cause, EXPORTED, FROM_LIVES, MAX_DEPOSITS, MAX_SERVICES, SEALED, SHUT, TO_LIVES};
use sila_abi::trace::Kind;
use sila_abi::{Error, ObjectType, Op, Rights};

pub use sila_abi::handover::State;

use crate::arena::{Id, Vacant};
use crate::cap::{CHUNK, CSPACE, CapId};
use crate::invoke::{Flow, Invocation, label_words, permitted};
use crate::kernel::{Attention, Fail, Kernel, id_of};
use crate::machine::Machine;
use crate::objects::*;
use crate::queue::Alarm;

/// Names a [`Handover`].
pub type HandoverId = Id<Handover>;

/// Whom a Handover tells of its changes, at most.
pub const MAX_WATCHERS: usize = 10;
/// The service number of an unused deposit.
const UNUSED: u8 = u8::MAX;

const HANDOVER_RIGHTS: Rights = Rights::READ.union(Rights::WRITE).union(Rights::MANAGE).union(Rights::COPY);

/// The state that a service hands on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Export {
    /// Where it is, pinned.
    pub region: RegionId,
    /// The version of its schema.
    pub schema: u64,
}

/// A service that a Handover covers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Service {
    /// What its clients call.
    pub endpoint: EndpointId,
    /// Who served it.
    pub from: ProcessId,
    /// Who is to serve it.
    pub to: ProcessId,
    /// Who pays for what outlives both.
    pub pool: PoolId,
    /// `from` no longer receives.
    pub shut: bool,
    /// What `from` hands on.
    pub export: Option<Export>,
}

/// A live update.
#[derive(Debug)]
pub struct Handover {
    /// Its number, never reused.
    pub number: u64,
    /// Who paid.
    pub pool: PoolId,
    /// Capabilities to it.
    pub caps: u32,
    /// Those among them whose holder can manage it.
    pub managers: u32,
    /// The Job through which it is found when its managers have gone.
    pub job: JobId,
    /// Where it stands.
    pub state: State,
    /// Rises each time gates are opened.
    pub epoch: u64,
    /// When it aborts by itself.
    pub deadline: u64,
    /// Why it was aborted.
    pub cause: Cause,
    /// What it covers.
    pub services: [Option<Service>; MAX_SERVICES],
    /// Which service each deposit belongs to.
    pub deposits: [u8; MAX_DEPOSITS],
    /// Whom its changes are signalled to.
    pub watchers: [Option<(NotificationId, u64)>; MAX_WATCHERS],
}

impl Priced for Handover {
    const SLOTS: u32 = 16;
}

impl Vacant for Handover {
    fn vacant() -> Self {
        Handover {
            number: 0,
            pool: Id::from_parts(0, 0),
            caps: 0,
            managers: 0,
            job: Id::from_parts(0, 0),
            state: State::Finalised,
            epoch: 0,
            deadline: 0,
            cause: Cause::None,
            services: [None; MAX_SERVICES],
            deposits: [UNUSED; MAX_DEPOSITS],
            watchers: [None; MAX_WATCHERS],
        }
    }
}

const _: () = assert!(MAX_DEPOSITS == CHUNK && Handover::SLOTS as usize * CHUNK <= CSPACE);

/// The place of a deposit. Nobody's CSpace has a chunk for each Handover but the last, behind its own first one.
fn place(id: HandoverId, deposit: usize) -> CapId {
    CapId::in_cspace(Process::SLOTS - 1, (id.index() as usize + 1) * CHUNK + deposit % CHUNK)
}

impl Handover {
    /// The services, with their numbers.
    pub fn services(&self) -> impl Iterator<Item = (u8, Service)> + '_ {
        self.services.iter().zip(0u8..).filter_map(|(s, i)| s.map(|s| (i, s)))
    }

    /// A service by the word that names it.
    fn service(&self, word: u64) -> Result<(u8, Service), Error> {
        self.services().find(|(i, _)| u64::from(*i) == word).ok_or(Error::InvalidArgument)
    }

    /// The bits of the services for which something holds.
    fn bits(&self, holds: impl Fn(&Service) -> bool) -> u64 {
        self.services().filter(|(_, s)| holds(s)).fold(0, |bits, (i, _)| bits | 1 << i)
    }

    /// Who may take the deposits of a service in this state.
    fn owner(&self, service: &Service) -> ProcessId {
        match self.state {
            State::Committed | State::Finalised => service.to,
            _ => service.from,
        }
    }
}

/// An operation and what it answers in each state, in order of [`State::ALL`]; `None`: it is possible.
pub type Answers = (Op, [Option<Error>; 6]);

const fn answers(op: Op, open: Option<Error>, closed: Option<Error>, committed: Option<Error>) -> Answers {
    let [finalised, aborted, rolled_back] = ENDED;
    (op, [open, closed, committed, finalised, aborted, rolled_back])
}

const ENDED: [Option<Error>; 3] =
    [Some(Error::HandoverFinalised), Some(Error::HandoverAborted), Some(Error::HandoverRolledBack)];
const CLOSED: Option<Error> = Some(Error::AlreadyClosed);
const NOT_CLOSED: Option<Error> = Some(Error::NotClosed);
const COMMITTED: Option<Error> = Some(Error::AlreadyCommitted);
const NOT_COMMITTED: Option<Error> = Some(Error::NotCommitted);

/// The state machine: which operation is possible in which state, and the refusal where it is not.
pub const ANSWERS: &[Answers] = &[
    answers(Op::HandoverAdd, None, CLOSED, COMMITTED),
    answers(Op::HandoverReplace, None, None, None),
    answers(Op::HandoverClose, None, CLOSED, COMMITTED),
    answers(Op::HandoverReopen, None, None, COMMITTED),
    answers(Op::HandoverExport, None, None, COMMITTED),
    (Op::HandoverState, [None, None, None, ENDED[0], ENDED[1], None]),
    answers(Op::HandoverDeposit, None, None, COMMITTED),
    (Op::HandoverTake, [None, CLOSED, None, None, None, None]),
    answers(Op::HandoverCommit, NOT_CLOSED, None, COMMITTED),
    answers(Op::HandoverRollback, NOT_COMMITTED, NOT_COMMITTED, None),
    answers(Op::HandoverFinalise, NOT_COMMITTED, NOT_COMMITTED, None),
    answers(Op::HandoverAbort, None, None, COMMITTED),
    (Op::HandoverStatus, [None; 6]),
    (Op::HandoverService, [None; 6]),
    (Op::HandoverWatch, [None; 6]),
];

/// Whether an operation is possible in a state.
pub fn answer(op: Op, state: State) -> Result<(), Error> {
    let row = ANSWERS.iter().find(|(o, _)| *o == op).map(|(_, row)| row);
    match row.and_then(|row| row.get(state as usize - 1)) {
        Some(None) => Ok(()),
        Some(Some(error)) => Err(*error),
        None => Err(Error::InvalidOperation),
    }
}

impl Kernel {
    pub(crate) fn handover_operation(
        &mut self,
        m: &mut impl Machine,
        op: Op,
        c: &Invocation,
    ) -> Result<Flow, Fail> {
        if op == Op::HandoverCreate {
            return self.handover_create(m, c);
        }
        let id: HandoverId = c.id();
        answer(op, self.handovers.get(id).ok_or(Error::ObjectGone)?.state)?;
        match op {
            Op::HandoverAdd => self.handover_add(c, id),
            Op::HandoverReplace => self.handover_replace(m, c, id),
            Op::HandoverClose => self.handover_close(c, id),
            Op::HandoverReopen => self.handover_reopen(c, id),
            Op::HandoverExport => self.handover_export(c, id),
            Op::HandoverState => self.handover_state(c, id),
            Op::HandoverDeposit => self.handover_deposit(c, id),
            Op::HandoverTake => self.handover_take(c, id),
            Op::HandoverCommit => self.handover_commit(c, id),
            Op::HandoverRollback => self.handover_rollback(m, c, id),
            Op::HandoverFinalise => self.handover_finalise(m, id),
            Op::HandoverAbort => {
                self.abort_handover(m, id, Cause::Manager);
                Ok(Flow::words(&[]))
            }
            Op::HandoverStatus => self.handover_status(id),
            Op::HandoverService => self.handover_service(m, c, id),
            _ => self.handover_watch(c, id),
        }
    }

    fn handover_create(&mut self, m: &mut impl Machine, c: &Invocation) -> Result<Flow, Fail> {
        let (at, pool, job, deadline) = (c.dst()?, c.id(), c.arg_id(0)?, c.args[1]);
        if deadline <= m.now() {
            return Err(Error::Timeout.into());
        }
        self.room(self.handovers.has_room())?;
        self.charge(pool, 0, cost::<Handover>())?;
        let number = self.next_handover;
        self.next_handover += 1;
        let fresh =
            Handover { number, pool, job, state: State::Open, epoch: 1, deadline, ..Handover::vacant() };
        let id = self.handovers.insert(fresh).map_err(|_| Error::ArenaFull)?;
        self.note(Kind::Handover, |_| [number, State::Open as u64, 1]);
        self.caps.set_usable(place(id, 0), true);
        if deadline != u64::MAX {
            self.timers.set(Alarm::Handover(id.index()), deadline);
            self.attention |= Attention::SCHEDULE;
        }
        self.install_new(at, ObjectType::Handover, id, HANDOVER_RIGHTS)
    }

    fn handover_add(&mut self, c: &Invocation, id: HandoverId) -> Result<Flow, Fail> {
        let (endpoint, from, to, pool) = (c.arg_id(0)?, c.arg_id(1)?, c.arg_id(2)?, c.arg_id(3)?);
        let e = self.endpoints.get(endpoint).ok_or(Error::ObjectGone)?;
        let (label, covered, receiver) = (e.label, e.covered.is_some(), e.receiver);
        if label.is_none() {
            return Err(Error::NotLabelled.into());
        }
        if covered {
            return Err(Error::AlreadyCovered.into());
        }
        if receiver != Some(from) {
            return Err(Error::NotReceiver.into());
        }
        if from == to {
            return Err(Error::InvalidArgument.into());
        }
        self.check_participant(from, pool)?;
        self.check_participant(to, pool)?;
        if !self.may_receive(to, label) {
            return Err(Error::LabelMismatch.into());
        }
        let h = self.handovers.get(id).ok_or(Error::ObjectGone)?;
        let index = h.services.iter().position(Option::is_none).ok_or(Error::HandoverFull)?;
        self.recharge_endpoint(endpoint, pool)?;
        if let Some(e) = self.endpoints.get_mut(endpoint) {
            e.covered = Some((id, index as u8));
        }
        for process in [from, to] {
            self.name_participant(process, id);
        }
        let service = Service { endpoint, from, to, pool, shut: false, export: None };
        if let Some(place) = self.handovers.get_mut(id).and_then(|h| h.services.get_mut(index)) {
            *place = Some(service);
        }
        Ok(Flow::words(&[index as u64]))
    }

    /// A process that may take part in a Handover whose service this Pool pays for: it lives, it did not pass its
    /// service on before, no other Handover covers it, and its end does not take the Pool along.
    pub(crate) fn check_participant(&self, process: ProcessId, pool: PoolId) -> Result<(), Error> {
        let p = self.live_process(process)?;
        if p.retired {
            return Err(Error::HandedOver);
        }
        if p.handover.and_then(|h| self.handovers.get(h)).is_some_and(|h| h.state.is_active()) {
            return Err(Error::AlreadyCovered);
        }
        if self.pool_is_within(pool, p.pool) { Err(Error::InvalidArgument) } else { Ok(()) }
    }

    /// A Handover names its participants like a capability does, so that their records are there to the end.
    fn name_participant(&mut self, process: ProcessId, id: HandoverId) {
        if let Some(p) = self.processes.get_mut(process) {
            p.handover = Some(id);
            p.caps += 1;
        }
    }

    fn forget_participant(&mut self, m: &mut impl Machine, process: ProcessId) {
        if let Some(p) = self.processes.get_mut(process) {
            p.caps = p.caps.saturating_sub(1);
        }
        self.drop_process(m, process);
    }

    /// Lets another process stand in for `to`: before the commit, or because `to` has ended.
    fn handover_replace(
        &mut self,
        m: &mut impl Machine,
        c: &Invocation,
        id: HandoverId,
    ) -> Result<Flow, Fail> {
        let to: ProcessId = c.arg_id(1)?;
        let h = self.handovers.get(id).ok_or(Error::ObjectGone)?;
        let ((index, old), state) = (h.service(c.args[0])?, h.state);
        if state == State::Committed && self.live_process(old.to).is_ok() {
            return Err(Fail::with(Error::AlreadyCommitted, index.into()));
        }
        let e = self.endpoints.get(old.endpoint).ok_or(Error::ObjectGone)?;
        let label = e.label;
        self.check_participant(to, old.pool)?;
        if !self.may_receive(to, label) {
            return Err(Error::LabelMismatch.into());
        }
        if let Some(p) = self.processes.get_mut(old.to) {
            p.handover = None;
        }
        self.forget_participant(m, old.to);
        self.name_participant(to, id);
        self.change_service(id, index, |s| s.to = to);
        if state == State::Committed {
            self.pass_endpoints(id, |_| Some(to), |i| i == index);
        }
        Ok(Flow::words(&[]))
    }

    fn change_service(&mut self, id: HandoverId, index: u8, change: impl FnOnce(&mut Service)) {
        let h = self.handovers.get_mut(id);
        if let Some(Some(s)) = h.and_then(|h| h.services.get_mut(usize::from(index))) {
            change(s);
        }
    }

    fn set_state(&mut self, id: HandoverId, state: State) {
        if let Some(h) = self.handovers.get_mut(id) {
            h.state = state;
            let words = [h.number, state as u64, h.epoch];
            self.note(Kind::Handover, |_| words);
        }
    }

    /// Tells all watchers that something has changed.
    fn announce(&mut self, id: HandoverId) {
        let Some(watchers) = self.handovers.get(id).map(|h| h.watchers) else { return };
        for (n, flags) in watchers.into_iter().flatten() {
            self.signal(n, flags);
        }
    }

    fn handover_watch(&mut self, c: &Invocation, id: HandoverId) -> Result<Flow, Fail> {
        let found = c.caps[0].ok_or(Error::NoCapability)?;
        let n: NotificationId = id_of(&found.cap);
        let flags = permitted(&found.cap, c.args[1]);
        let h = self.handovers.get(id).ok_or(Error::ObjectGone)?;
        let usable = |w: &Option<(NotificationId, u64)>| {
            w.is_none_or(|(other, _)| other == n || self.notifications.get(other).is_none())
        };
        let own = h.watchers.iter().position(|w| w.is_some_and(|(other, _)| other == n));
        let at = own.or_else(|| h.watchers.iter().position(usable)).ok_or(Error::HandoverFull)?;
        if let Some(w) = self.handovers.get_mut(id).and_then(|h| h.watchers.get_mut(at)) {
            *w = Some((n, flags | w.filter(|(other, _)| *other == n).map_or(0, |(_, flags)| flags)));
        }
        Ok(Flow::words(&[]))
    }

    fn handover_status(&self, id: HandoverId) -> Result<Flow, Fail> {
        let h = self.handovers.get(id).ok_or(Error::ObjectGone)?;
        let count = h.services().count() as u64;
        let shut = h.bits(|s| s.shut);
        Ok(Flow::words(&[h.state as u64, h.epoch, h.deadline, count, shut, h.cause as u64]))
    }

    fn handover_service(
        &mut self,
        m: &mut impl Machine,
        c: &Invocation,
        id: HandoverId,
    ) -> Result<Flow, Fail> {
        let h = self.handovers.get(id).ok_or(Error::ObjectGone)?;
        let (index, s) = h.service(c.args[0])?;
        let number = |p| self.processes.get(p).map_or(0, |p| p.number);
        let region = s.export.and_then(|x| self.regions.get(x.region));
        let flags = [
            (SHUT, s.shut),
            (EXPORTED, s.export.is_some()),
            (SEALED, region.is_some_and(|r| r.sealed.is_allowed())),
            (FROM_LIVES, self.live_process(s.from).is_ok()),
            (TO_LIVES, self.live_process(s.to).is_ok()),
        ];
        let flags = flags.into_iter().filter(|(_, set)| *set).fold(0, |all, (flag, _)| all | flag);
        let mut words = [0u64; 25];
        words[..6].copy_from_slice(&[
            number(s.from),
            number(s.to),
            flags,
            self.unanswered(id, |i| i == index),
            self.deposit_bits(id, h, index),
            s.export.map_or(0, |x| x.schema),
        ]);
        words[6] = region.map_or(0, |r| r.pages.into());
        if let Some(label) = self.endpoints.get(s.endpoint).and_then(|e| e.label) {
            words[7..].copy_from_slice(&label_words(&label));
        }
        self.long_result(m, c.thread, &words)
    }
}
