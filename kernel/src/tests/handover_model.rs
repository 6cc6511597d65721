//! Handovers against an independent model: what each participant can tell after any sequence of events.
//!
//! The model knows no kernel object: a service is a few facts, and each event has one rule.

use super::handover::{H, Rig};
use super::*;
use crate::handover::State;
use proptest::prelude::*;

const REPLY: u16 = 20;
const TAKEN: u16 = 31;

/// Where the client of a service stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Client {
    Idle,
    Queued,
    /// Received by this version, whose slot with the Reply is named.
    With(usize, u16),
    /// Its Reply is deposit number so and so.
    Deposited(u64),
}

#[derive(Clone, Debug)]
struct Service {
    client: Client,
    shut: bool,
    /// Whether it is sealed.
    export: Option<bool>,
    alive: [bool; 2],
    retired: [bool; 2],
    /// Which version receives.
    receiver: Option<usize>,
}

#[derive(Clone, Debug)]
struct Model {
    state: State,
    epoch: u64,
    managed: bool,
    services: Vec<Service>,
}

#[derive(Clone, Debug)]
enum Event {
    Call(usize),
    Receive(usize, usize),
    Reply(usize, usize),
    Deposit(usize),
    Take(usize, usize),
    Export(usize, bool),
    Seal(usize),
    Import(usize, usize),
    Close(u64),
    Reopen(Option<usize>),
    /// How old the epoch is that its author saw.
    Commit(u64),
    Rollback,
    Finalise,
    Abort,
    Kill(usize, usize),
    ManagerGone,
    Adopt,
}

type Answer = Result<(), Error>;

fn ended(state: State) -> Answer {
    match state {
        State::Finalised => Err(Error::HandoverFinalised),
        State::Aborted => Err(Error::HandoverAborted),
        State::RolledBack => Err(Error::HandoverRolledBack),
        _ => Ok(()),
    }
}

impl Model {
    fn new(count: usize) -> Self {
        let service = Service {
            client: Client::Idle,
            shut: false,
            export: None,
            alive: [true; 2],
            retired: [false; 2],
            receiver: Some(0),
        };
        Model { state: State::Open, epoch: 1, managed: true, services: std::vec![service; count] }
    }

    /// Before a commit: an error if it is not.
    fn before_commit(&self) -> Answer {
        ended(self.state)?;
        if self.state == State::Committed { Err(Error::AlreadyCommitted) } else { Ok(()) }
    }

    fn after_commit(&self) -> Answer {
        ended(self.state)?;
        if self.state == State::Committed { Ok(()) } else { Err(Error::NotCommitted) }
    }

    fn can_run(&self, i: usize, version: usize) -> bool {
        self.services[i].alive[version] && !self.services[i].retired[version]
    }

    fn pass(&mut self, version: usize) {
        for s in &mut self.services {
            s.receiver = s.alive[version].then_some(version);
        }
    }

    fn open(&mut self) {
        self.epoch += 1;
        self.pass(0);
        for s in &mut self.services {
            (s.shut, s.export) = (false, None);
        }
    }

    fn drop_orphans(&mut self) {
        let owner = usize::from(self.state == State::Finalised);
        for s in &mut self.services {
            if !s.alive[owner] && matches!(s.client, Client::Deposited(_)) {
                s.client = Client::Idle;
            }
        }
    }

    fn abort(&mut self) {
        self.open();
        self.state = State::Aborted;
        self.drop_orphans();
    }

    fn unanswered(&self, only: Option<usize>) -> usize {
        let counted = |(i, s): &(usize, &Service)| {
            matches!(s.client, Client::With(..)) && only.is_none_or(|only| only == *i)
        };
        self.services.iter().enumerate().filter(counted).count()
    }

    fn export(&mut self, i: usize, seal: bool) -> Answer {
        self.before_commit()?;
        let busy = self.unanswered(Some(i)) > 0;
        let s = &mut self.services[i];
        match (s.shut, s.export) {
            (false, _) => Err(Error::NotClosed),
            (_, Some(_)) => Err(Error::AlreadyExported),
            _ if busy => Err(Error::RepliesOutstanding),
            _ => {
                s.export = Some(seal);
                Ok(())
            }
        }
    }

    fn import(&self, i: usize, version: usize) -> Answer {
        if self.state != State::RolledBack {
            ended(self.state)?;
        }
        if version != usize::from(self.state != State::RolledBack) {
            return Err(Error::NotParticipant);
        }
        match self.services[i].export {
            None => Err(Error::NotExported),
            Some(false) => Err(Error::NotSealed),
            Some(true) => Ok(()),
        }
    }

    fn close(&mut self, mask: u64) -> Answer {
        self.before_commit()?;
        if self.state == State::Closed {
            return Err(Error::AlreadyClosed);
        }
        let wanted = |i: usize| mask & 1 << i != 0;
        if mask == 0 || mask >> self.services.len() != 0 {
            return Err(Error::InvalidArgument);
        }
        if self.services.iter().enumerate().any(|(i, s)| wanted(i) && s.shut) {
            return Err(Error::AlreadyClosed);
        }
        for (_, s) in self.services.iter_mut().enumerate().filter(|(i, _)| wanted(*i)) {
            (s.shut, s.receiver) = (true, None);
        }
        if self.services.iter().all(|s| s.shut) {
            self.state = State::Closed;
        }
        Ok(())
    }

    fn reopen(&mut self) -> Answer {
        self.before_commit()?;
        if self.services.iter().all(|s| !s.shut) {
            return Err(Error::NotClosed);
        }
        self.open();
        self.state = State::Open;
        Ok(())
    }

    fn commit(&mut self, epoch: u64) -> Answer {
        self.before_commit()?;
        if self.state == State::Open {
            return Err(Error::NotClosed);
        }
        if epoch != self.epoch {
            return Err(Error::StaleEpoch);
        }
        for s in &self.services {
            match (s.alive, s.export) {
                ([_, false], _) | ([false, _], None) => return Err(Error::ParticipantDead),
                (_, Some(false)) => return Err(Error::NotSealed),
                _ => {}
            }
        }
        if self.unanswered(None) > 0 {
            return Err(Error::RepliesOutstanding);
        }
        self.pass(1);
        for s in &mut self.services {
            (s.retired[0], s.shut) = (true, false);
        }
        self.state = State::Committed;
        Ok(())
    }

    fn rollback(&mut self) -> Answer {
        self.after_commit()?;
        if self.services.iter().any(|s| !s.alive[0]) {
            return Err(Error::ParticipantDead);
        }
        self.pass(0);
        for s in &mut self.services {
            s.retired = [false, true];
            if matches!(s.client, Client::With(..)) {
                s.client = Client::Idle;
            }
        }
        self.state = State::RolledBack;
        Ok(())
    }

    fn finalise(&mut self) -> Answer {
        self.after_commit()?;
        self.state = State::Finalised;
        for s in &mut self.services {
            s.export = None;
        }
        self.drop_orphans();
        Ok(())
    }

    fn kill(&mut self, i: usize, version: usize) {
        let s = &mut self.services[i];
        s.alive[version] = false;
        if s.receiver == Some(version) {
            s.receiver = None;
        }
        if matches!(s.client, Client::With(v, _) if v == version) {
            s.client = Client::Idle;
        }
        if matches!(self.state, State::Aborted | State::Finalised | State::RolledBack) {
            self.drop_orphans();
        }
    }

    fn owner(&self) -> usize {
        usize::from(matches!(self.state, State::Committed | State::Finalised))
    }

    fn take(&mut self, i: usize, version: usize) -> Answer {
        if self.state == State::Closed {
            return Err(Error::AlreadyClosed);
        }
        if version != self.owner() {
            return Err(Error::NotParticipant);
        }
        if self.state == State::Open && self.services[i].shut {
            return Err(Error::AlreadyClosed);
        }
        self.services[i].client = Client::With(version, TAKEN);
        Ok(())
    }
}

/// Kernel and model side by side.
struct Pair {
    r: Rig,
    m: Model,
}

impl Pair {
    fn version(&self, i: usize, version: usize) -> Actor {
        if version == 0 { self.r.v1[i] } else { self.r.v2[i] }
    }

    /// Lets both do something; `None` if it cannot happen in this moment.
    fn step(&mut self, event: &Event) -> Option<(Answer, Answer)> {
        let none = |r: Result<[u64; 6], Error>| r.map(|_| ());
        match *event {
            Event::Call(i) => {
                if self.m.services[i].client != Client::Idle {
                    return None;
                }
                self.r.call(i, 1);
                self.m.services[i].client = Client::Queued;
                None
            }
            Event::Receive(i, v) => self.receive(i, v),
            Event::Reply(i, v) => {
                let (Client::With(by, slot), true) = (self.m.services[i].client, self.m.can_run(i, v)) else {
                    return None;
                };
                let got = self.r.reply(self.version(i, v), slot, 2).status();
                if by == v {
                    self.m.services[i].client = Client::Idle;
                    return Some((got, Ok(())));
                }
                Some((got, Err(Error::NoCapability)))
            }
            Event::Deposit(i) => self.deposit(i),
            Event::Take(i, v) => {
                let Client::Deposited(at) = self.m.services[i].client else { return None };
                if !self.m.can_run(i, v) {
                    return None;
                }
                let got = self.r.w.invoke(self.version(i, v), H, Op::HandoverTake, &[at, TAKEN.into()]);
                Some((none(got), self.m.take(i, v)))
            }
            Event::Export(i, seal) => {
                if !self.m.can_run(i, 0) {
                    return None;
                }
                let got = if self.m.services[i].export.is_some() {
                    self.r.w.invoke(self.r.v1[i], H, Op::HandoverExport, &[i as u64, 77, 30])
                } else {
                    let _ = self.r.w.invoke(self.r.v1[i], Slot(30), Op::CapDelete, &[]);
                    self.r.export(i, seal)
                };
                Some((none(got), self.m.export(i, seal)))
            }
            Event::Seal(i) => {
                let s = &mut self.m.services[i];
                if s.export != Some(false) || !s.alive[0] || s.retired[0] {
                    return None;
                }
                s.export = Some(true);
                Some((none(self.r.w.invoke(self.r.v1[i], Slot(30), Op::RegionSeal, &[])), Ok(())))
            }
            Event::Import(i, v) => {
                if !self.m.can_run(i, v) {
                    return None;
                }
                let who = self.version(i, v);
                let got = self.r.w.invoke(who, H, Op::HandoverState, &[i as u64, 40]);
                let _ = self.r.w.invoke(who, Slot(40), Op::CapDelete, &[]);
                Some((none(got), self.m.import(i, v)))
            }
            Event::Reopen(Some(i)) => {
                if !self.m.can_run(i, 0) {
                    return None;
                }
                let got = self.r.w.invoke(self.r.v1[i], H, Op::HandoverReopen, &[]);
                Some((none(got), self.m.reopen()))
            }
            Event::Kill(i, v) => {
                if self.m.services[i].alive[v] {
                    self.r.kill(self.version(i, v));
                    self.m.kill(i, v);
                }
                None
            }
            _ => self.manage(event),
        }
    }

    fn receive(&mut self, i: usize, v: usize) -> Option<(Answer, Answer)> {
        let s = &self.m.services[i];
        let slot_taken = matches!(s.client, Client::With(by, REPLY) if by == v);
        if !self.m.can_run(i, v) || slot_taken {
            return None;
        }
        let want = match (s.receiver == Some(v), s.client) {
            (true, Client::Queued) => Ok(()),
            (true, _) => Err(Error::Timeout),
            (false, _) if s.shut && v == 0 => Err(Error::Quiesced),
            (false, _) => Err(Error::NotReceiver),
        };
        let got = self.r.receive(self.version(i, v), REPLY).status();
        if want.is_ok() {
            self.m.services[i].client = Client::With(v, REPLY);
        }
        Some((got, want))
    }

    fn deposit(&mut self, i: usize) -> Option<(Answer, Answer)> {
        if !self.m.can_run(i, 0) {
            return None;
        }
        let held = match self.m.services[i].client {
            Client::With(0, slot) => Some(slot),
            _ => None,
        };
        let slot = held.unwrap_or(REPLY);
        let got = self.r.w.invoke(self.r.v1[i], H, Op::HandoverDeposit, &[i as u64, slot.into()]);
        let want = self.m.before_commit().and(if held.is_some() { Ok(()) } else { Err(Error::NoCapability) });
        if let (Ok(words), Ok(())) = (got, want) {
            self.m.services[i].client = Client::Deposited(words[0]);
        }
        Some((got.map(|_| ()), want))
    }

    /// What only a manager does.
    fn manage(&mut self, event: &Event) -> Option<(Answer, Answer)> {
        if matches!(event, Event::Adopt) {
            return self.adopt();
        }
        if !self.m.managed {
            return None;
        }
        let (op, args, want) = match *event {
            Event::Close(mask) => (Op::HandoverClose, mask, self.m.close(mask)),
            Event::Reopen(_) => (Op::HandoverReopen, 0, self.m.reopen()),
            Event::Commit(age) => {
                let epoch = self.m.epoch.saturating_sub(age);
                (Op::HandoverCommit, epoch, self.m.commit(epoch))
            }
            Event::Rollback => (Op::HandoverRollback, 0, self.m.rollback()),
            Event::Finalise => (Op::HandoverFinalise, 0, self.m.finalise()),
            Event::Abort => {
                let want = self.m.before_commit();
                want.is_ok().then(|| self.m.abort());
                (Op::HandoverAbort, 0, want)
            }
            _ => {
                self.m.managed = false;
                if matches!(self.m.state, State::Open | State::Closed) {
                    self.m.abort();
                }
                (Op::CapDelete, 0, Ok(()))
            }
        };
        Some((self.r.manage(op, &[args]).map(|_| ()), want))
    }

    fn adopt(&mut self) -> Option<(Answer, Answer)> {
        let gone = self.r.w.k.handovers.live() == 0;
        if self.m.managed || gone {
            return None;
        }
        let got = self.r.w.invoke(self.r.manager, Slot(4), Op::JobHandover, &[0, H.0.into()]);
        self.m.managed = true;
        Some((got.map(|_| ()), Ok(())))
    }

    /// What can be observed is the same.
    fn compare(&self) -> Result<(), TestCaseError> {
        if self.r.w.k.handovers.live() > 0 {
            let (state, epoch, _) = self.r.status();
            prop_assert_eq!((state, epoch), (self.m.state, self.m.epoch));
        }
        for (i, s) in self.m.services.iter().enumerate() {
            for v in 0..2 {
                let p = self.r.w.k.live_process(self.version(i, v).process);
                prop_assert_eq!(p.is_ok(), s.alive[v]);
                prop_assert_eq!(p.is_ok_and(|p| p.retired), s.retired[v] && s.alive[v]);
            }
            let receiver = s.receiver.map(|v| self.version(i, v).process);
            prop_assert_eq!(self.r.receiver(i), receiver, "service {}", i);
            let want = match s.client {
                Client::Idle => 'i',
                Client::Queued => 'q',
                Client::With(..) | Client::Deposited(_) => 'w',
            };
            let got = match self.r.w.state(self.r.clients[i]) {
                ThreadState::Sending { .. } => 'q',
                ThreadState::AwaitingReply => 'w',
                _ => 'i',
            };
            prop_assert_eq!(got, want, "the client of service {}", i);
        }
        Ok(())
    }
}

fn event(count: usize) -> impl Strategy<Value = Event> {
    let (i, v) = (0..count, 0..2usize);
    prop_oneof![
        4 => i.clone().prop_map(Event::Call),
        6 => (i.clone(), v.clone()).prop_map(|(i, v)| Event::Receive(i, v)),
        3 => (i.clone(), v.clone()).prop_map(|(i, v)| Event::Reply(i, v)),
        2 => i.clone().prop_map(Event::Deposit),
        3 => (i.clone(), v.clone()).prop_map(|(i, v)| Event::Take(i, v)),
        3 => (i.clone(), any::<bool>()).prop_map(|(i, s)| Event::Export(i, s)),
        2 => i.clone().prop_map(Event::Seal),
        2 => (i.clone(), v.clone()).prop_map(|(i, v)| Event::Import(i, v)),
        2 => (0..1u64 << (count + 1)).prop_map(Event::Close),
        5 => Just(Event::Close((1 << count) - 1)),
        1 => proptest::option::of(i.clone()).prop_map(Event::Reopen),
        1 => Just(Event::Commit(1)),
        5 => Just(Event::Commit(0)),
        1 => Just(Event::Rollback),
        1 => Just(Event::Finalise),
        1 => Just(Event::Abort),
        1 => (i, v).prop_map(|(i, v)| Event::Kill(i, v)),
        1 => Just(Event::ManagerGone),
        2 => Just(Event::Adopt),
    ]
}

fn runs() -> impl Strategy<Value = (usize, Vec<Event>)> {
    (2..=8usize).prop_flat_map(|count| (Just(count), proptest::collection::vec(event(count), 1..70)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn handovers_agree_with_the_model((count, events) in runs()) {
        let mut pair = Pair { r: Rig::new(count), m: Model::new(count) };
        for event in &events {
            if let Some((got, want)) = pair.step(event) {
                prop_assert_eq!(got, want, "{:?} in {:?}", event, pair.m);
            }
            pair.compare()?;
        }
        pair.r.balance("after a run");
    }
}
