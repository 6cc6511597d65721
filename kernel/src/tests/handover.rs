//! Handovers: each refusal, each state with each operation, deaths in each state with exact accounts.

use super::*;
use crate::handover::{ANSWERS, State, answer};
use sila_abi::handover::{Cause, DEAD_TO};
use sila_abi::manifest::ServiceDecl;

/// The Handover, in every process of a rig.
pub const H: Slot = Slot(9);
/// The service's endpoint, in its versions and its client.
pub const EP: Slot = Slot(10);
/// The slots that the manager has for each service: endpoint, from, to.
const MANAGED: u16 = 100;
const JOB: Slot = Slot(4);
const SERVICE_POOL: Slot = Slot(5);
const HANDOVER_POOL: Slot = Slot(6);
const REPLY: u16 = 20;
const STATE: Slot = Slot(30);
const TAKEN: Slot = Slot(31);
const SESSION: Slot = Slot(32);
const DEVICE: Slot = Slot(33);

const WIDE: Capacities = Capacities {
    pools: 64,
    regions: 64,
    mappings: 32,
    endpoints: 80,
    notifications: 16,
    jobs: 4,
    handovers: 4,
    journals: 4,
    processes: 48,
    threads: 64,
    cap_chunks: 200,
};

/// Services with two versions and a client each, and a manager.
pub struct Rig {
    pub w: World,
    pub manager: Actor,
    pub v1: Vec<Actor>,
    pub v2: Vec<Actor>,
    pub clients: Vec<Actor>,
    anchor: Actor,
    before: Vec<u64>,
}

impl Rig {
    /// Services that no Handover covers yet.
    pub fn bare(count: usize) -> Self {
        let mut w = World::sized(8000, WIDE);
        // It keeps the Job alive.
        let anchor = w.actor(1);
        let before = w.baseline();
        let manager = w.actor(60);
        let root = w.k.root_pool;
        for (slot, bytes) in [(SERVICE_POOL, 30_000), (HANDOVER_POOL, 110_000)] {
            let pool = w.k.split_pool(root, 100, bytes).unwrap();
            w.give(manager, slot, reference(ObjectType::Pool, pool), Rights::USE);
        }
        let job = w.k.jobs.iter().next().unwrap().0;
        w.give(manager, JOB, reference(ObjectType::Job, job), Rights::USE);
        let mut rig = Rig { w, manager, v1: Vec::new(), v2: Vec::new(), clients: Vec::new(), anchor, before };
        (0..count).for_each(|i| rig.service(i));
        rig
    }

    fn service(&mut self, i: usize) {
        let (w, manager) = (&mut self.w, self.manager);
        let [v1, v2, client] = [50, 50, 40].map(|priority| w.actor(priority));
        for version in [v1, v2] {
            declare(w, version, i);
        }
        w.invoke(v1, POOL, Op::EndpointCreate, &[3, 0, EP.0.into()]).unwrap();
        w.share(v1, EP, manager, managed(i, 0), Rights::USE, 0);
        w.share(v1, EP, v2, EP, Rights::RECV, 0);
        w.share(v1, EP, client, EP, Rights::SEND | Rights::GRANT, 7);
        w.share(v1, PROCESS, manager, managed(i, 1), Rights::READ | Rights::MANAGE, 0);
        w.share(v2, PROCESS, manager, managed(i, 2), Rights::READ | Rights::MANAGE, 0);
        self.v1.push(v1);
        self.v2.push(v2);
        self.clients.push(client);
    }

    /// Services that an open Handover covers.
    pub fn new(count: usize) -> Self {
        let mut rig = Self::bare(count);
        rig.create(u64::MAX).unwrap();
        for i in 0..count {
            assert_eq!(rig.add(i).unwrap()[0], i as u64);
            rig.share_handover(rig.v1[i]);
            rig.share_handover(rig.v2[i]);
        }
        rig
    }

    pub fn share_handover(&mut self, with: Actor) {
        self.w.share(self.manager, H, with, H, Rights::READ | Rights::WRITE, 0);
    }

    fn create(&mut self, deadline: u64) -> Result<[u64; 6], Error> {
        let args = [JOB.0.into(), deadline, H.0.into()];
        self.w.invoke(self.manager, HANDOVER_POOL, Op::HandoverCreate, &args)
    }

    fn add(&mut self, i: usize) -> Result<[u64; 6], Error> {
        let [e, from, to] = [0, 1, 2].map(|at| managed(i, at).0.into());
        self.w.invoke(self.manager, H, Op::HandoverAdd, &[e, from, to, SERVICE_POOL.0.into()])
    }

    /// An operation of the manager on the Handover.
    pub fn manage(&mut self, op: Op, args: &[u64]) -> Result<[u64; 6], Error> {
        self.w.invoke(self.manager, H, op, args)
    }

    pub fn close(&mut self) {
        let all = (1u64 << self.v1.len()) - 1;
        let [state, epoch, ..] = self.manage(Op::HandoverClose, &[all]).unwrap();
        assert_eq!((state, epoch), (State::Closed as u64, self.epoch()));
    }

    pub fn status(&self) -> (State, u64, Cause) {
        let h = self.w.k.handovers.iter().next().unwrap().1;
        (h.state, h.epoch, h.cause)
    }

    pub fn epoch(&self) -> u64 {
        self.status().1
    }

    /// Version 1 of a service exports a Region with this word at its beginning.
    pub fn export(&mut self, i: usize, seal: bool) -> Result<[u64; 6], Error> {
        let (w, v1) = (&mut self.w, self.v1[i]);
        w.invoke(v1, POOL, Op::RegionCreate, &[2, STATE.0.into()]).unwrap();
        if seal {
            w.invoke(v1, STATE, Op::RegionSeal, &[]).unwrap();
        }
        w.invoke(v1, H, Op::HandoverExport, &[i as u64, 77, STATE.0.into()])
    }

    pub fn commit(&mut self) -> Result<[u64; 6], Error> {
        let epoch = self.epoch();
        self.manage(Op::HandoverCommit, &[epoch])
    }

    /// A client's call, and its state then.
    pub fn call(&mut self, i: usize, label: u32) -> ThreadState {
        self.w.message(
            self.clients[i],
            Call::Call,
            EP,
            Say { label, deadline: FOREVER, ..Default::default() },
        );
        self.w.state(self.clients[i])
    }

    /// A receive that does not wait.
    pub fn receive(&mut self, who: Actor, reply: u16) -> Outcome {
        let say = Say { deadline: 0, ..forever(reply) };
        self.w.message(who, Call::Recv, EP, say)
    }

    pub fn reply(&mut self, who: Actor, reply: u16, label: u32) -> Outcome {
        self.w.message(who, Call::Reply, Slot(reply), Say { label, ..Default::default() })
    }

    pub fn receiver(&self, i: usize) -> Option<ProcessId> {
        let cap = self.w.k.find(self.clients[i].process, EP).unwrap().cap;
        self.w.k.endpoints.get(crate::kernel::id_of(&cap)).unwrap().receiver
    }

    pub fn kill(&mut self, who: Actor) {
        self.w.k.begin_end(&mut self.w.m, who.process, Exit { cause: 2, ..Exit::default() });
        self.w.settle();
    }

    /// Ends everybody and checks that everything has come back.
    pub fn balance(mut self, what: &str) {
        for who in self.v1.clone().into_iter().chain(self.v2.clone()).chain(self.clients.clone()) {
            self.kill(who);
        }
        self.kill(self.manager);
        // A commit stays for whoever recovers.
        let job = self.w.k.jobs.iter().next().unwrap().0;
        self.w.give(self.anchor, JOB, reference(ObjectType::Job, job), Rights::MANAGE);
        while self.w.invoke(self.anchor, JOB, Op::JobHandover, &[0, 11]).is_ok() {
            self.w.invoke(self.anchor, Slot(11), Op::HandoverFinalise, &[]).unwrap();
            self.w.invoke(self.anchor, Slot(11), Op::CapDelete, &[]).unwrap();
        }
        self.w.invoke(self.anchor, JOB, Op::CapDelete, &[]).unwrap();
        self.w.settle();
        assert_eq!(self.w.baseline(), self.before, "{what}");
    }

    /// What a refused operation must not change.
    fn picture(&self) -> (Vec<u64>, std::string::String) {
        let k = &self.w.k;
        let h: Vec<_> = k.handovers.iter().map(|(_, h)| std::format!("{h:?}")).collect();
        let e: Vec<_> = k.endpoints.iter().map(|(_, e)| (e.receiver, e.shut, e.covered)).collect();
        let t: Vec<_> = k.threads.iter().map(|(id, t)| (id, t.state == ThreadState::Inactive)).collect();
        (self.w.baseline(), std::format!("{h:?} {e:?} {t:?}"))
    }

    /// Brings a new rig of two services to a state, with an export and, where they can be, deposits.
    fn in_state(state: State) -> Self {
        let mut r = Rig::new(2);
        if state == State::Open {
            return r;
        }
        r.close();
        r.export(0, true).unwrap();
        if state == State::Aborted {
            r.manage(Op::HandoverAbort, &[]).unwrap();
        }
        if matches!(state, State::Committed | State::Finalised | State::RolledBack) {
            r.commit().unwrap();
        }
        if state == State::Finalised {
            r.manage(Op::HandoverFinalise, &[]).unwrap();
        }
        if state == State::RolledBack {
            r.manage(Op::HandoverRollback, &[]).unwrap();
        }
        assert_eq!(r.status().0, state);
        r
    }

    fn device(&mut self, who: Actor) {
        let object = crate::cap::ObjRef { kind: ObjectType::IrqHandler, index: 3, generation: 1 };
        self.w.give(who, DEVICE, object, Rights::MANAGE | Rights::READ | Rights::COPY);
    }
}

fn managed(i: usize, at: u16) -> Slot {
    Slot(MANAGED + 4 * i as u16 + at)
}

/// Lets a process's manifest declare service number `i`.
pub fn declare(w: &mut World, who: Actor, i: usize) {
    let name = Name::new(&std::format!("service-{i}")).unwrap();
    let p = w.k.processes.get_mut(who.process).unwrap();
    p.identity.service = Some(ServiceDecl { name, durable: true });
}

fn detail(r: &Rig) -> u64 {
    r.w.words(r.manager)[0]
}

// ---- the whole way ----------------------------------------------------------------------------------------

#[test]
fn two_to_eight_services_move_at_once_and_callers_notice_nothing() {
    for count in 2..=8 {
        let mut r = Rig::new(count);
        r.close();
        for i in 0..count {
            assert!(matches!(r.call(i, i as u32), ThreadState::Sending { .. }), "callers queue");
            r.export(i, true).unwrap();
        }
        r.commit().unwrap();
        for i in 0..count {
            assert_eq!(r.receiver(i), Some(r.v2[i].process));
            assert!(r.w.k.processes.get(r.v1[i].process).unwrap().retired);
            assert_eq!(r.w.state(r.v1[i]), ThreadState::Inactive);
            let words = r.w.invoke(r.v2[i], H, Op::HandoverState, &[i as u64, STATE.0.into()]).unwrap();
            assert_eq!(words[..2], [2, 77]);
            let o = r.receive(r.v2[i], REPLY);
            assert_eq!((o.status(), o.label(), r.w.badge(r.v2[i])), (Ok(()), i as u32, 7));
            r.reply(r.v2[i], REPLY, 90 + i as u32);
            assert_eq!(r.w.outcome(r.clients[i]).label(), 90 + i as u32);
        }
        r.manage(Op::HandoverFinalise, &[]).unwrap();
        r.balance("after a whole update");
    }
}

#[test]
fn a_ninth_service_does_not_fit() {
    let mut r = Rig::bare(9);
    r.create(u64::MAX).unwrap();
    (0..8).for_each(|i| {
        r.add(i).unwrap();
    });
    let before = r.picture();
    assert_eq!(r.add(8), Err(Error::HandoverFull));
    assert_eq!(r.picture(), before);
    r.balance("after a Handover that was full");
}

#[test]
fn a_rollback_is_the_inverse_of_a_commit() {
    let mut r = Rig::new(3);
    let blocked = r.v1[1];
    r.w.message(blocked, Call::Recv, EP, forever(REPLY));
    r.close();
    assert_eq!(r.w.outcome(blocked).status(), Err(Error::Quiesced), "who waits is told");
    (0..3).for_each(|i| {
        r.export(i, true).unwrap();
    });
    // One thread was suspended before and must not run after the rollback.
    r.w.k.suspend(r.v1[2].thread);
    let states: Vec<_> = r.v1.iter().map(|a| r.w.state(*a) == ThreadState::Inactive).collect();
    r.commit().unwrap();
    assert!(r.v1.iter().all(|a| r.w.state(*a) == ThreadState::Inactive));
    r.manage(Op::HandoverRollback, &[]).unwrap();
    let after: Vec<_> = r.v1.iter().map(|a| r.w.state(*a) == ThreadState::Inactive).collect();
    assert_eq!(after, states);
    for i in 0..3 {
        assert_eq!(r.receiver(i), Some(r.v1[i].process));
        assert_eq!(r.w.state(r.v2[i]), ThreadState::Inactive, "the new version is suspended");
        assert!(r.w.k.processes.get(r.v2[i].process).unwrap().retired);
        assert!(!r.w.k.processes.get(r.v1[i].process).unwrap().retired);
    }
    // What it had exported is there for a replay.
    assert_eq!(r.w.invoke(r.v1[0], H, Op::HandoverState, &[0, TAKEN.0.into()]).unwrap()[..2], [2, 77]);
    r.balance("after a rollback");
}

// ---- every state and operation ----------------------------------------------------------------------------

/// An operation with arguments that are right in some state.
fn attempt(r: &mut Rig, op: Op) -> Result<[u64; 6], Error> {
    let (v2, epoch) = (r.v2[0], r.epoch());
    // Version 1 does not run any more after a commit; what is asked is refused before it matters who asks.
    let retired = r.w.k.processes.get(r.v1[0].process).unwrap().retired;
    let v1 = if retired { r.manager } else { r.v1[0] };
    match op {
        Op::HandoverAdd => r.add(1),
        Op::HandoverReplace => r.manage(op, &[0, managed(1, 2).0.into()]),
        Op::HandoverClose => r.manage(op, &[3]),
        Op::HandoverExport => {
            r.w.invoke(v1, POOL, Op::RegionCreate, &[1, 40]).unwrap();
            r.w.invoke(v1, H, op, &[0, 1, 40])
        }
        Op::HandoverState if r.status().0 == State::RolledBack => r.w.invoke(v1, H, op, &[0, 41]),
        Op::HandoverState => r.w.invoke(v2, H, op, &[0, 41]),
        Op::HandoverDeposit => r.w.invoke(v1, H, op, &[0, POOL.0.into()]),
        Op::HandoverTake => r.w.invoke(v2, H, op, &[0, 41]),
        Op::HandoverCommit => r.manage(op, &[epoch]),
        Op::HandoverService => r.manage(op, &[0]),
        Op::HandoverWatch => {
            r.w.invoke(r.manager, HANDOVER_POOL, Op::NotificationCreate, &[42]).unwrap();
            r.manage(op, &[42, 1])
        }
        _ => r.manage(op, &[]),
    }
}

const STATE_ERRORS: [Error; 7] = [
    Error::NotClosed,
    Error::AlreadyClosed,
    Error::NotCommitted,
    Error::AlreadyCommitted,
    Error::HandoverFinalised,
    Error::HandoverAborted,
    Error::HandoverRolledBack,
];

#[test]
fn every_operation_answers_in_every_state_as_the_table_says() {
    for &(op, row) in ANSWERS {
        for (&state, &want) in State::ALL.iter().zip(&row) {
            let mut r = Rig::in_state(state);
            let before = r.picture().1;
            // In some states it is tried by threads that are suspended.
            r.w.checks = false;
            let got = attempt(&mut r, op);
            let what = std::format!("{op:?} in {state:?}");
            match want {
                Some(error) => {
                    assert_eq!(got, Err(error), "{what}");
                    assert_eq!(r.picture().1, before, "{what}");
                }
                // These two say the same of one service as the table says of all.
                None if matches!((op, state), (Op::HandoverReopen | Op::HandoverExport, State::Open)) => {
                    assert_eq!(got, Err(Error::NotClosed), "{what}")
                }
                None if (op, state) == (Op::HandoverReplace, State::Committed) => {
                    assert_eq!(got, Err(Error::AlreadyCommitted), "{what}")
                }
                None => assert!(got.err().is_none_or(|e| !STATE_ERRORS.contains(&e)), "{what}: {got:?}"),
            }
            r.balance(&what);
        }
    }
}

#[test]
fn every_operation_of_a_handover_is_in_the_table_once() {
    let all = sila_abi::ops::TABLE.iter().filter(|row| row.object == Some(ObjectType::Handover));
    let mut count = 0;
    for row in all {
        assert_eq!(ANSWERS.iter().filter(|(op, _)| *op == row.op).count(), 1, "{}", row.name);
        count += 1;
    }
    assert_eq!(count, ANSWERS.len());
    assert_eq!(answer(Op::PoolStatus, State::Open), Err(Error::InvalidOperation));
}

#[test]
fn the_book_s_table_is_the_kernel_s() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/handover.md")).unwrap();
    let rows: Vec<Vec<&str>> = page
        .lines()
        .filter(|line| line.starts_with("| `Handover"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    assert_eq!(rows.len(), ANSWERS.len());
    for ((op, answers), row) in ANSWERS.iter().zip(rows) {
        assert_eq!(row[0], std::format!("`{}`", op.info().name));
        let want: Vec<_> =
            answers.iter().map(|a| a.map_or("yes".into(), |e| std::format!("`{}`", e.name()))).collect();
        assert_eq!(row[1..], want[..], "{}", op.info().name);
    }
}

// ---- adding -----------------------------------------------------------------------------------------------

#[test]
fn a_service_is_covered_only_if_everything_fits() {
    let mut r = Rig::bare(3);
    r.create(u64::MAX).unwrap();
    let plain = Slot(40);
    r.w.invoke(r.manager, SERVICE_POOL, Op::EndpointCreate, &[1, 0, plain.0.into()]).unwrap();
    let [e, from, to] = [0, 1, 2].map(|at| u64::from(managed(0, at).0));
    let pool = u64::from(SERVICE_POOL.0);
    let own = 41;
    let object = reference(ObjectType::Pool, r.w.k.processes.get(r.v1[0].process).unwrap().pool);
    r.w.give(r.manager, Slot(own), object, Rights::USE);
    let before = r.picture();
    let cases = [
        ([plain.0.into(), PROCESS.0.into(), to, pool], Error::NotLabelled),
        ([e, to, from, pool], Error::NotReceiver),
        ([e, from, from, pool], Error::InvalidArgument),
        ([e, from, managed(1, 2).0.into(), pool], Error::LabelMismatch),
        ([e, from, to, own.into()], Error::InvalidArgument),
        ([e, from, to, POOL.0.into()], Error::OutOfObjectBytes),
    ];
    let manager = r.manager;
    for (args, want) in cases {
        let got = drained(&mut r, manager, |r| r.manage(Op::HandoverAdd, &args));
        assert_eq!(got, Err(want), "{args:?}");
        assert_eq!(r.picture(), before, "{args:?}");
    }
    r.add(0).unwrap();
    assert_ne!(r.picture(), before);
    r.balance("after refused additions");
}

/// Runs something while a process's own Pool has no object byte left.
fn drained<T>(r: &mut Rig, who: Actor, run: impl FnOnce(&mut Rig) -> T) -> T {
    let pool = r.w.k.processes.get(who.process).unwrap().pool;
    let left = r.w.k.pools.get(pool).unwrap().bytes.left();
    r.w.k.charge(pool, 0, left).unwrap();
    r.w.checks = false;
    let result = run(r);
    r.w.checks = true;
    r.w.k.refund(pool, 0, left);
    result
}

#[test]
fn two_handovers_never_cover_the_same_endpoint_or_process() {
    let mut r = Rig::new(2);
    assert_eq!(r.add(0), Err(Error::AlreadyCovered));
    let second = Slot(45);
    let args = [JOB.0.into(), u64::MAX, second.0.into()];
    r.w.invoke(r.manager, HANDOVER_POOL, Op::HandoverCreate, &args).unwrap();
    let [e, from, to] = [0, 1, 2].map(|at| u64::from(managed(0, at).0));
    let pool = SERVICE_POOL.0.into();
    assert_eq!(
        r.w.invoke(r.manager, second, Op::HandoverAdd, &[e, from, to, pool]),
        Err(Error::AlreadyCovered)
    );
    // Another endpoint of the same service: its receiver is covered.
    r.w.invoke(r.v1[0], POOL, Op::EndpointCreate, &[3, 0, 46]).unwrap();
    r.w.share(r.v1[0], Slot(46), r.manager, Slot(46), Rights::USE, 0);
    assert_eq!(
        r.w.invoke(r.manager, second, Op::HandoverAdd, &[46, from, to, pool]),
        Err(Error::AlreadyCovered)
    );
    r.manage(Op::HandoverAbort, &[]).unwrap();
    r.w.invoke(r.manager, second, Op::HandoverAdd, &[e, from, to, pool]).unwrap();
    r.balance("after a second Handover");
}

#[test]
fn a_covered_endpoint_is_neither_bound_nor_recharged_by_others() {
    let mut r = Rig::new(1);
    let stranger = r.w.actor(30);
    declare(&mut r.w, stranger, 0);
    r.w.share(stranger, PROCESS, r.manager, Slot(40), Rights::MANAGE, 0);
    r.kill(r.v1[0]);
    assert_eq!(r.receiver(0), None);
    let e = managed(0, 0);
    assert_eq!(r.w.invoke(r.manager, e, Op::EndpointBind, &[40]), Err(Error::AlreadyCovered));
    let charge = r.w.invoke(r.manager, e, Op::ChargeTransfer, &[POOL.0.into()]);
    assert_eq!(charge, Err(Error::AlreadyCovered));
    r.manage(Op::HandoverAbort, &[]).unwrap();
    r.w.invoke(r.manager, e, Op::EndpointBind, &[40]).unwrap();
    assert_eq!(r.receiver(0), Some(stranger.process));
    r.kill(stranger);
    r.balance("after a stranger");
}

// ---- gates ------------------------------------------------------------------------------------------------

#[test]
fn a_shut_gate_quiesces_its_own_receiver_only() {
    let mut r = Rig::new(2);
    assert_eq!(r.manage(Op::HandoverClose, &[0]), Err(Error::InvalidArgument));
    assert_eq!(r.manage(Op::HandoverClose, &[4]), Err(Error::InvalidArgument));
    let [state, epoch, ..] = r.manage(Op::HandoverClose, &[1]).unwrap();
    assert_eq!((state, epoch), (State::Open as u64, 1), "one gate is open");
    assert_eq!(r.receive(r.v1[0], REPLY).status(), Err(Error::Quiesced));
    assert_eq!(r.receive(r.v2[0], REPLY).status(), Err(Error::NotReceiver));
    assert_eq!(r.receive(r.v1[1], REPLY).status(), Err(Error::Timeout), "the other one serves");
    assert_eq!(r.manage(Op::HandoverClose, &[3]), Err(Error::AlreadyClosed));
    assert_eq!(detail(&r), 0);
    assert_eq!(r.manage(Op::HandoverClose, &[2]).unwrap()[0], State::Closed as u64);
    r.balance("with shut gates");
}

#[test]
fn an_answer_with_a_receive_leaves_before_the_gate_stops_the_receive() {
    let mut r = Rig::new(1);
    r.call(0, 5);
    assert_eq!(r.receive(r.v1[0], REPLY).status(), Ok(()));
    r.close();
    let say = Say { label: 6, deadline: FOREVER, ..forever(REPLY) };
    assert_eq!(r.w.message(r.v1[0], Call::ReplyRecv, EP, say).status(), Err(Error::Quiesced));
    let o = r.w.outcome(r.clients[0]);
    assert_eq!((o.status(), o.label()), (Ok(()), 6));
    r.balance("after an answer at a shut gate");
}

#[test]
fn callers_of_an_ordinary_endpoint_queue_too_while_its_gate_is_shut() {
    let mut r = Rig::new(1);
    let id = crate::kernel::id_of(&r.w.k.find(r.v1[0].process, EP).unwrap().cap);
    r.w.k.endpoints.get_mut(id).unwrap().durable = false;
    r.close();
    assert!(matches!(r.call(0, 1), ThreadState::Sending { .. }));
    r.kill(r.v1[0]);
    assert!(matches!(r.w.state(r.clients[0]), ThreadState::Sending { .. }));
    r.manage(Op::HandoverAbort, &[]).unwrap();
    assert_eq!(r.w.outcome(r.clients[0]).status(), Err(Error::PeerDied), "nobody is left to serve");
    r.balance("after an ordinary endpoint");
}

#[test]
fn a_commit_with_the_epoch_of_before_a_resumption_is_stale() {
    let mut r = Rig::new(1);
    r.close();
    r.export(0, true).unwrap();
    // Version 1 resumes by itself.
    let stranger = r.w.actor(30);
    r.share_handover(stranger);
    assert_eq!(r.w.invoke(stranger, H, Op::HandoverReopen, &[]), Err(Error::NotParticipant));
    assert_eq!(r.w.invoke(r.v2[0], H, Op::HandoverReopen, &[]), Err(Error::NotParticipant));
    assert_eq!(r.w.invoke(r.v1[0], H, Op::HandoverReopen, &[]).unwrap()[0], 2);
    assert_eq!(r.receiver(0), Some(r.v1[0].process));
    assert_eq!(r.manage(Op::HandoverCommit, &[1]), Err(Error::NotClosed));
    r.close();
    let before = r.picture();
    assert_eq!(r.manage(Op::HandoverCommit, &[1]), Err(Error::StaleEpoch));
    assert_eq!(detail(&r), 2);
    assert_eq!(r.picture(), before);
    let service = r.manage(Op::HandoverService, &[0]).unwrap();
    assert_eq!(service[2] & sila_abi::handover::EXPORTED, 0, "the export before the resumption is void");
    r.manage(Op::HandoverCommit, &[2]).unwrap();
    r.kill(stranger);
    r.balance("after a stale commit");
}

#[test]
fn the_deadline_aborts_what_is_not_committed() {
    for committed in [false, true] {
        let mut r = Rig::bare(1);
        assert_eq!(r.create(1), Err(Error::Timeout), "a time that has passed");
        r.create(1000).unwrap();
        r.add(0).unwrap();
        r.w.invoke(r.manager, HANDOVER_POOL, Op::NotificationCreate, &[42]).unwrap();
        r.manage(Op::HandoverWatch, &[42, 8]).unwrap();
        r.close();
        if committed {
            r.commit().unwrap();
        }
        r.w.message(r.manager, Call::Recv, Slot(42), Say { deadline: 0, ..Default::default() });
        r.w.m.time = 1000;
        r.w.k.enter(&mut r.w.m, Entry::Timer);
        let want =
            if committed { (State::Committed, 1, Cause::None) } else { (State::Aborted, 2, Cause::Deadline) };
        assert_eq!(r.status(), want);
        let told = r.w.message(r.manager, Call::Recv, Slot(42), Say { deadline: 0, ..Default::default() });
        assert_eq!(told.is_flags(), !committed);
        r.balance("after a deadline");
    }
}

// ---- exports and deposits ---------------------------------------------------------------------------------

#[test]
fn state_is_exported_once_by_the_quiet_service_itself() {
    let mut r = Rig::new(2);
    assert_eq!(r.export(0, true), Err(Error::NotClosed));
    r.call(0, 1);
    r.receive(r.v1[0], REPLY);
    r.manage(Op::HandoverClose, &[1]).unwrap();
    let again = |r: &mut Rig| r.w.invoke(r.v1[0], H, Op::HandoverExport, &[0, 77, STATE.0.into()]);
    assert_eq!(again(&mut r), Err(Error::RepliesOutstanding));
    assert_eq!(r.w.words(r.v1[0])[0], 1);
    r.reply(r.v1[0], REPLY, 0);
    assert_eq!(r.w.invoke(r.v1[1], H, Op::HandoverExport, &[0, 77, 0]), Err(Error::NoCapability));
    r.w.invoke(r.v1[1], POOL, Op::RegionCreate, &[1, STATE.0.into()]).unwrap();
    let foreign = r.w.invoke(r.v1[1], H, Op::HandoverExport, &[0, 77, STATE.0.into()]);
    assert_eq!(foreign, Err(Error::NotParticipant));
    again(&mut r).unwrap();
    assert_eq!(again(&mut r), Err(Error::AlreadyExported));
    r.balance("after exports");
}

#[test]
fn a_state_that_can_still_be_written_stops_the_commit_and_the_import() {
    let mut r = Rig::new(1);
    r.close();
    r.export(0, false).unwrap();
    let map = [PROCESS.0.into(), 0x80_0000, 0, 1, 1, 50];
    r.w.invoke(r.v1[0], STATE, Op::RegionMap, &map).unwrap();
    let take = |r: &mut Rig| r.w.invoke(r.v2[0], H, Op::HandoverState, &[0, STATE.0.into()]);
    assert_eq!(take(&mut r), Err(Error::NotSealed));
    let before = r.picture();
    assert_eq!(r.commit(), Err(Error::NotSealed));
    assert_eq!(r.picture(), before);
    assert_eq!(r.w.invoke(r.v1[0], STATE, Op::RegionSeal, &[]), Err(Error::StillWritable));
    r.w.invoke(r.v1[0], Slot(50), Op::MappingUnmap, &[]).unwrap();
    r.w.invoke(r.v1[0], STATE, Op::RegionSeal, &[]).unwrap();
    take(&mut r).unwrap();
    r.commit().unwrap();
    assert_eq!(
        r.w.invoke(r.v2[0], STATE, Op::RegionMap, &map),
        Err(Error::Sealed).or(Err(Error::MissingRight))
    );
    r.balance("after a late seal");
}

#[test]
fn the_exported_state_is_paid_by_the_service_and_outlives_its_author() {
    let mut r = Rig::new(1);
    r.close();
    r.export(0, true).unwrap();
    let pool = crate::kernel::id_of(&r.w.k.find(r.manager.process, SERVICE_POOL).unwrap().cap);
    let region = r.w.k.regions.iter().find(|(_, x)| x.pages == 2).unwrap().1.pool;
    assert_eq!(region, Some(pool));
    r.w.invoke(r.v2[0], H, Op::HandoverState, &[0, STATE.0.into()]).unwrap();
    // Revoking what it kept takes nothing from version 2.
    r.w.invoke(r.v1[0], STATE, Op::CapRevoke, &[]).unwrap();
    r.kill(r.v1[0]);
    assert!(r.w.k.find(r.v2[0].process, STATE).is_ok());
    r.commit().unwrap();
    assert_eq!(r.receiver(0), Some(r.v2[0].process));
    r.balance("after the author's death");
}

#[test]
fn a_reply_kept_across_the_commit_stops_it_and_a_deposited_one_passes() {
    let mut r = Rig::new(2);
    for i in 0..2 {
        r.call(i, 1);
        r.receive(r.v1[i], REPLY);
    }
    r.close();
    assert_eq!(r.commit(), Err(Error::RepliesOutstanding));
    assert_eq!(detail(&r), 2);
    // Hiding it with an accomplice does not help.
    let accomplice = r.w.actor(30);
    r.w.invoke(accomplice, POOL, Op::EndpointCreate, &[0, 0, EP.0.into()]).unwrap();
    r.w.share(accomplice, EP, r.v1[0], Slot(60), Rights::SEND | Rights::GRANT, 0);
    let receive = Receive { reply: Slot(REPLY), base: Slot(30), count: 1 };
    r.w.message(accomplice, Call::Recv, EP, Say { receive, deadline: FOREVER, ..Default::default() });
    let caps = [Slot(REPLY), Slot(0), Slot(0), Slot(0)];
    let say = Say { caps, cap_count: 1, deadline: FOREVER, ..Default::default() };
    assert_eq!(r.w.message(r.v1[0], Call::Send, Slot(60), say).status(), Ok(()));
    assert_eq!(r.commit(), Err(Error::RepliesOutstanding));
    let o = r.w.message(accomplice, Call::Reply, Slot(30), Say { label: 4, ..Default::default() });
    assert_eq!(o.status(), Ok(()));
    let deposit = r.w.invoke(r.v1[1], H, Op::HandoverDeposit, &[1, REPLY.into()]).unwrap()[0];
    assert_eq!(r.reply(r.v1[1], REPLY, 3).status(), Err(Error::NoCapability), "it is out of reach");
    assert_eq!(r.w.invoke(r.v2[1], H, Op::HandoverTake, &[deposit, 41]), Err(Error::AlreadyClosed));
    r.commit().unwrap();
    assert_eq!(r.w.invoke(r.v2[0], H, Op::HandoverTake, &[deposit, 41]), Err(Error::NotParticipant));
    r.w.invoke(r.v2[1], H, Op::HandoverTake, &[deposit, 41]).unwrap();
    assert_eq!(r.w.invoke(r.v2[1], H, Op::HandoverTake, &[deposit, 42]), Err(Error::NoCapability));
    assert_eq!(r.reply(r.v2[1], 41, 9).status(), Ok(()));
    assert_eq!(r.w.outcome(r.clients[1]).label(), 9);
    r.kill(accomplice);
    r.balance("after Replies");
}

#[test]
fn a_reply_that_an_accomplice_hides_stops_export_and_commit() {
    let mut r = Rig::new(1);
    let v1 = r.v1[0];
    let accomplice = hide(&mut r, v1);
    r.close();
    r.w.invoke(r.v1[0], POOL, Op::RegionCreate, &[1, STATE.0.into()]).unwrap();
    assert_eq!(
        r.w.invoke(r.v1[0], H, Op::HandoverExport, &[0, 77, STATE.0.into()]),
        Err(Error::RepliesOutstanding)
    );
    assert_eq!(r.commit(), Err(Error::RepliesOutstanding));
    assert_eq!(detail(&r), 1);
    let o = r.w.message(accomplice, Call::Reply, Slot(30), Say { label: 4, ..Default::default() });
    assert_eq!(o.status(), Ok(()));
    r.commit().unwrap();
    r.kill(accomplice);
    r.balance("after a hidden Reply");
}

/// A client's call, whose Reply the server gives to an accomplice.
fn hide(r: &mut Rig, server: Actor) -> Actor {
    r.call(0, 1);
    r.receive(server, REPLY);
    let accomplice = r.w.actor(30);
    r.w.invoke(accomplice, POOL, Op::EndpointCreate, &[0, 0, EP.0.into()]).unwrap();
    r.w.share(accomplice, EP, server, Slot(60), Rights::SEND | Rights::GRANT, 0);
    let receive = Receive { reply: Slot(REPLY), base: Slot(30), count: 1 };
    r.w.message(accomplice, Call::Recv, EP, Say { receive, deadline: FOREVER, ..Default::default() });
    let caps = [Slot(REPLY), Slot(0), Slot(0), Slot(0)];
    let say = Say { caps, cap_count: 1, deadline: FOREVER, ..Default::default() };
    assert_eq!(r.w.message(server, Call::Send, Slot(60), say).status(), Ok(()));
    accomplice
}

#[test]
fn a_call_counts_though_its_caller_let_go_of_the_endpoint() {
    let mut r = Rig::new(1);
    r.call(0, 1);
    r.receive(r.v1[0], REPLY);
    let client = r.w.k.find(r.clients[0].process, EP).unwrap().id;
    r.w.k.delete(&mut r.w.m, client);
    r.close();
    assert_eq!(r.commit(), Err(Error::RepliesOutstanding));
    r.reply(r.v1[0], REPLY, 2);
    r.commit().unwrap();
    r.balance("after a caller that let go");
}

#[test]
fn a_rollback_beats_a_reply_that_an_accomplice_hides() {
    let mut r = Rig::new(1);
    r.close();
    r.commit().unwrap();
    let v2 = r.v2[0];
    let accomplice = hide(&mut r, v2);
    r.manage(Op::HandoverRollback, &[]).unwrap();
    assert_eq!(r.w.outcome(r.clients[0]).status(), Err(Error::PeerDiedDelivered));
    let o = r.w.message(accomplice, Call::Reply, Slot(30), Say { label: 4, ..Default::default() });
    assert_eq!(o.status(), Err(Error::CallerGone));
    r.kill(accomplice);
    r.balance("after a hidden Reply and a rollback");
}

#[test]
fn a_rollback_beats_a_late_reply_and_leaves_deposited_calls_alone() {
    let mut r = Rig::new(2);
    r.call(0, 1);
    r.receive(r.v1[0], REPLY);
    r.close();
    let deposit = r.w.invoke(r.v1[0], H, Op::HandoverDeposit, &[0, REPLY.into()]).unwrap()[0];
    r.commit().unwrap();
    r.call(1, 2);
    assert_eq!(r.receive(r.v2[1], REPLY).status(), Ok(()));
    r.manage(Op::HandoverRollback, &[]).unwrap();
    assert_eq!(r.w.outcome(r.clients[1]).status(), Err(Error::PeerDiedDelivered));
    // Its thread is suspended; here it answers all the same.
    r.w.checks = false;
    assert_eq!(r.reply(r.v2[1], REPLY, 3).status(), Err(Error::CallerGone));
    assert_eq!(r.w.state(r.clients[0]), ThreadState::AwaitingReply);
    assert_eq!(r.w.invoke(r.v2[0], H, Op::HandoverTake, &[deposit, 41]), Err(Error::NotParticipant));
    r.w.invoke(r.v1[0], H, Op::HandoverTake, &[deposit, 41]).unwrap();
    assert_eq!(r.reply(r.v1[0], 41, 8).status(), Ok(()));
    assert_eq!(r.w.outcome(r.clients[0]).label(), 8);
    r.balance("after a late reply");
}

#[test]
fn a_session_endpoint_follows_its_service() {
    let mut r = Rig::new(1);
    let (v1, v2, client) = (r.v1[0], r.v2[0], r.clients[0]);
    r.w.invoke(v1, POOL, Op::EndpointCreate, &[1, 0, SESSION.0.into()]).unwrap();
    r.w.share(v1, SESSION, client, SESSION, Rights::SEND, 3);
    r.w.share(v1, SESSION, v1, Slot(61), Rights::SEND, 0);
    let deposit = |r: &mut Rig, slot: u64| r.w.invoke(v1, H, Op::HandoverDeposit, &[0, slot]);
    assert_eq!(deposit(&mut r, 61), Err(Error::MissingRight));
    assert_eq!(deposit(&mut r, EP.0.into()), Err(Error::AlreadyCovered));
    assert_eq!(deposit(&mut r, POOL.0.into()), Err(Error::WrongType));
    let number = deposit(&mut r, SESSION.0.into()).unwrap()[0];
    assert_eq!(r.manage(Op::HandoverService, &[0]).unwrap()[4], 1 << number);
    r.close();
    r.commit().unwrap();
    let say = Say { label: 5, deadline: FOREVER, ..Default::default() };
    r.w.message(client, Call::Call, SESSION, say);
    assert!(matches!(r.w.state(client), ThreadState::Sending { .. }));
    r.w.invoke(v2, H, Op::HandoverTake, &[number, SESSION.0.into()]).unwrap();
    let o = r.w.message(v2, Call::Recv, SESSION, forever(REPLY));
    assert_eq!((o.status(), o.label(), r.w.badge(v2)), (Ok(()), 5, 3));
    // The author's end does not end what its service's Pool pays for.
    r.kill(v1);
    r.reply(v2, REPLY, 6);
    assert_eq!(r.w.outcome(client).label(), 6);
    r.balance("after a session");
}

#[test]
fn a_session_endpoint_that_joins_a_shut_service_is_shut() {
    let mut r = Rig::new(2);
    let v1 = r.v1[0];
    r.w.invoke(v1, POOL, Op::EndpointCreate, &[1, 0, SESSION.0.into()]).unwrap();
    r.w.invoke(v1, SESSION, Op::CapCopy, &[62, Rights::RECV.bits().into()]).unwrap();
    r.manage(Op::HandoverClose, &[1]).unwrap();
    let number = r.w.invoke(v1, H, Op::HandoverDeposit, &[0, SESSION.0.into()]).unwrap()[0];
    assert_eq!(r.w.message(v1, Call::Recv, Slot(62), forever(REPLY)).status(), Err(Error::Quiesced));
    assert_eq!(r.w.invoke(v1, H, Op::HandoverTake, &[number, 41]), Err(Error::AlreadyClosed));
    r.w.invoke(v1, H, Op::HandoverReopen, &[]).unwrap();
    r.w.invoke(v1, H, Op::HandoverTake, &[number, 41]).unwrap();
    let say = Say { deadline: 0, ..forever(REPLY) };
    assert_eq!(r.w.message(v1, Call::Recv, Slot(41), say).status(), Err(Error::Timeout), "it serves again");
    r.balance("after a session that came late");
}

#[test]
fn a_device_has_one_master_at_a_time() {
    let mut r = Rig::new(1);
    let (v1, v2) = (r.v1[0], r.v2[0]);
    r.device(v1);
    r.w.invoke(v1, DEVICE, Op::CapCopy, &[60, Rights::MANAGE.bits().into()]).unwrap();
    let deposit = |r: &mut Rig| r.w.invoke(v1, H, Op::HandoverDeposit, &[0, DEVICE.0.into()]);
    assert_eq!(deposit(&mut r), Err(Error::NotExclusive));
    r.w.invoke(v1, Slot(60), Op::CapDelete, &[]).unwrap();
    let number = deposit(&mut r).unwrap()[0];
    r.close();
    r.commit().unwrap();
    let take = |r: &mut Rig, who, slot: u64| r.w.invoke(who, H, Op::HandoverTake, &[number, slot]);
    take(&mut r, v2, 41).unwrap();
    assert_eq!(take(&mut r, v2, 42), Err(Error::AlreadyTaken));
    let copy = r.w.invoke(v2, Slot(41), Op::CapCopy, &[42, 0]);
    assert_eq!(copy, Err(Error::NotCopyable), "what may have to go back has no second copy");
    r.manage(Op::HandoverRollback, &[]).unwrap();
    assert!(r.w.k.find(v2.process, Slot(41)).is_err());
    take(&mut r, v1, 41).unwrap();
    assert!(r.w.k.find(v1.process, Slot(41)).unwrap().cap.rights.contains(Rights::COPY));
    r.balance("after a device");
}

#[test]
fn a_finalised_device_is_its_new_master_s_for_good() {
    let mut r = Rig::new(1);
    let (v1, v2) = (r.v1[0], r.v2[0]);
    r.device(v1);
    let number = r.w.invoke(v1, H, Op::HandoverDeposit, &[0, DEVICE.0.into()]).unwrap()[0];
    r.close();
    r.commit().unwrap();
    r.w.invoke(v2, H, Op::HandoverTake, &[number, 41]).unwrap();
    r.manage(Op::HandoverFinalise, &[]).unwrap();
    r.w.invoke(v2, H, Op::HandoverTake, &[number, 42]).unwrap();
    assert!(r.w.k.find(v2.process, Slot(42)).unwrap().cap.rights.contains(Rights::COPY));
    r.balance("after a finalised device");
}

#[test]
fn deposits_are_bounded_and_a_revoked_one_is_gone() {
    let mut r = Rig::new(1);
    let v1 = r.v1[0];
    for at in 0..65u64 {
        r.device(v1);
        let got = r.w.invoke(v1, H, Op::HandoverDeposit, &[0, DEVICE.0.into()]);
        assert_eq!(got.map(|w| w[0]), if at < 64 { Ok(at) } else { Err(Error::HandoverFull) });
    }
    r.w.invoke(v1, H, Op::HandoverTake, &[3, 41]).unwrap();
    assert_eq!(r.w.invoke(v1, H, Op::HandoverTake, &[3, 42]), Err(Error::NoCapability));
    assert_eq!(r.w.invoke(v1, H, Op::HandoverTake, &[64, 42]), Err(Error::InvalidArgument));
    assert_eq!(r.w.invoke(v1, H, Op::HandoverTake, &[u64::MAX, 42]), Err(Error::InvalidArgument));
    r.w.invoke(v1, H, Op::HandoverDeposit, &[0, DEVICE.0.into()]).unwrap();
    // Whoever gave the device to the service takes it away.
    r.w.give(r.manager, Slot(70), r.w.k.find(v1.process, Slot(41)).unwrap().cap.object, Rights::USE);
    r.w.invoke(v1, H, Op::HandoverTake, &[7, 43]).unwrap();
    r.w.invoke(v1, Slot(43), Op::CapDelete, &[]).unwrap();
    r.w.share(r.manager, Slot(70), v1, Slot(43), Rights::MANAGE, 0);
    assert_eq!(r.w.invoke(v1, H, Op::HandoverDeposit, &[0, 43]).unwrap()[0], 7);
    r.w.invoke(r.manager, Slot(70), Op::CapRevoke, &[]).unwrap();
    assert_eq!(r.w.invoke(v1, H, Op::HandoverTake, &[7, 44]), Err(Error::NoCapability));
    assert_eq!(r.manage(Op::HandoverService, &[0]).unwrap()[4], !(1 << 7));
    r.balance("after many deposits");
}

// ---- commit and after -------------------------------------------------------------------------------------

#[test]
fn a_commit_checks_every_participant_and_changes_nothing_when_one_fails() {
    for dead in 0..3 {
        for new in [false, true] {
            let mut r = Rig::new(3);
            r.close();
            r.kill(if new { r.v2[dead] } else { r.v1[dead] });
            let before = r.picture();
            assert_eq!(r.commit(), Err(Error::ParticipantDead));
            assert_eq!(detail(&r), dead as u64 | if new { DEAD_TO } else { 0 });
            assert_eq!(r.picture(), before);
            r.balance("with a dead participant");
        }
    }
    let mut r = Rig::new(2);
    r.close();
    let p = r.w.k.processes.get_mut(r.v2[1].process).unwrap();
    p.state = ProcessState::Created;
    assert_eq!(r.commit(), Err(Error::NotStarted));
    r.w.k.processes.get_mut(r.v2[1].process).unwrap().state = ProcessState::Running;
    declare(&mut r.w, r.v2[1], 5);
    assert_eq!(r.commit(), Err(Error::LabelMismatch));
    assert_eq!(detail(&r), 1);
    declare(&mut r.w, r.v2[1], 1);
    r.commit().unwrap();
    r.balance("after a commit at last");
}

#[test]
fn a_handed_over_process_stays_suspended_whoever_tries_to_wake_it() {
    let mut r = Rig::new(1);
    let (v1, accomplice) = (r.v1[0], r.w.actor(30));
    r.w.give(accomplice, Slot(40), reference(ObjectType::Thread, v1.thread), Rights::MANAGE);
    r.w.give(accomplice, Slot(41), reference(ObjectType::Process, v1.process), Rights::USE);
    r.close();
    r.commit().unwrap();
    let create = [0x10_0000, 0x20_0000, 0, 10, 0, 42];
    let attempts = |r: &mut Rig| {
        assert_eq!(r.w.invoke(accomplice, Slot(40), Op::ThreadResume, &[]), Err(Error::HandedOver));
        assert_eq!(r.w.invoke(accomplice, Slot(41), Op::ThreadCreate, &create), Err(Error::HandedOver));
        assert_eq!(r.w.invoke(accomplice, Slot(41), Op::ProcessStart, &[]), Err(Error::HandedOver));
        assert_eq!(r.w.state(v1), ThreadState::Inactive);
    };
    attempts(&mut r);
    let e = managed(0, 0);
    assert_eq!(
        r.w.invoke(r.manager, e, Op::EndpointBind, &[managed(0, 1).0.into()]),
        Err(Error::AlreadyCovered)
    );
    r.manage(Op::HandoverFinalise, &[]).unwrap();
    attempts(&mut r);
    assert_eq!(
        r.w.invoke(r.manager, e, Op::EndpointBind, &[managed(0, 1).0.into()]),
        Err(Error::AlreadyBound)
    );
    // It takes part in no other Handover either.
    let args = [JOB.0.into(), u64::MAX, 46];
    r.w.invoke(r.manager, HANDOVER_POOL, Op::HandoverCreate, &args).unwrap();
    let [from, to] = [2, 1].map(|at| u64::from(managed(0, at).0));
    let again = [e.0.into(), from, to, SERVICE_POOL.0.into()];
    assert_eq!(r.w.invoke(r.manager, Slot(46), Op::HandoverAdd, &again), Err(Error::HandedOver));
    r.kill(accomplice);
    r.balance("after attempts to resume");
}

#[test]
fn a_thread_suspended_by_others_during_the_commit_stays_so_after_a_rollback() {
    let mut r = Rig::new(1);
    r.close();
    r.commit().unwrap();
    r.w.k.suspend(r.v1[0].thread);
    r.manage(Op::HandoverRollback, &[]).unwrap();
    assert_eq!(r.w.state(r.v1[0]), ThreadState::Inactive);
    r.balance("after a suspension");
}

#[test]
fn a_manager_that_is_itself_handed_over_stops_with_its_commit_done() {
    let mut r = Rig::new(1);
    r.w.share(r.manager, H, r.v1[0], Slot(63), Rights::USE, 0);
    r.close();
    assert!(r.w.invoke(r.v1[0], Slot(63), Op::HandoverCommit, &[1]).is_ok());
    assert_eq!((r.status().0, r.w.state(r.v1[0])), (State::Committed, ThreadState::Inactive));
    assert!(r.w.k.running() != Running::Thread(r.v1[0].thread));
    r.balance("after a commit by version 1");
}

#[test]
fn a_dead_new_version_is_replaced_from_the_last_state() {
    let mut r = Rig::new(2);
    r.close();
    r.export(0, true).unwrap();
    r.commit().unwrap();
    let fresh = r.w.actor(50);
    declare(&mut r.w, fresh, 1);
    r.w.share(fresh, PROCESS, r.manager, Slot(40), Rights::MANAGE, 0);
    r.share_handover(fresh);
    assert_eq!(r.manage(Op::HandoverReplace, &[0, 40]), Err(Error::AlreadyCommitted));
    r.kill(r.v2[0]);
    assert_eq!(r.receiver(0), None);
    r.call(0, 3);
    assert_eq!(r.manage(Op::HandoverReplace, &[0, 40]), Err(Error::LabelMismatch));
    declare(&mut r.w, fresh, 0);
    r.manage(Op::HandoverReplace, &[0, 40]).unwrap();
    assert_eq!(r.receiver(0), Some(fresh.process));
    assert_eq!(r.receiver(1), Some(r.v2[1].process), "the other service is untouched");
    r.w.invoke(fresh, H, Op::HandoverState, &[0, STATE.0.into()]).unwrap();
    assert_eq!(r.manage(Op::HandoverReplace, &[0, managed(1, 2).0.into()]), Err(Error::AlreadyCommitted));
    r.manage(Op::HandoverRollback, &[]).unwrap();
    assert!(r.w.k.processes.get(fresh.process).unwrap().retired);
    r.kill(fresh);
    r.balance("after a replacement");
}

#[test]
fn finalising_raises_the_floor_and_frees_the_state() {
    let mut r = Rig::new(1);
    r.close();
    r.export(0, true).unwrap();
    r.commit().unwrap();
    let region = r.w.k.regions.iter().next().unwrap().0;
    r.kill(r.v1[0]);
    assert!(r.w.k.regions.get(region).is_some(), "kept for a rollback");
    r.manage(Op::HandoverFinalise, &[]).unwrap();
    r.w.settle();
    assert!(r.w.k.regions.get(region).is_none());
    assert_eq!(r.manage(Op::HandoverRollback, &[]), Err(Error::HandoverFinalised));
    r.balance("after finalising");
}

// ---- deaths -----------------------------------------------------------------------------------------------

#[test]
fn the_last_manager_s_end_aborts_what_is_not_committed() {
    for closed in [false, true] {
        let mut r = Rig::new(2);
        if closed {
            r.close();
            r.export(0, true).unwrap();
        }
        // A second manager, and one that may only pass it on.
        let second = r.w.actor(30);
        r.w.share(r.manager, H, second, H, Rights::MANAGE, 0);
        r.w.share(r.manager, H, second, Slot(50), Rights::MANAGE | Rights::ENDOW, 0);
        r.kill(r.manager);
        assert_ne!(r.status().0, State::Aborted, "one manager is left");
        r.w.invoke(second, H, Op::CapDelete, &[]).unwrap();
        assert_eq!(r.status(), (State::Aborted, 2, Cause::Unmanaged));
        for i in 0..2 {
            assert_eq!(r.receiver(i), Some(r.v1[i].process));
            assert_eq!(r.receive(r.v1[i], REPLY).status(), Err(Error::Timeout));
        }
        r.kill(second);
        r.balance("after the managers' end");
    }
}

#[test]
fn a_commit_outlives_its_managers_and_is_adopted_through_the_job() {
    for roll_back in [false, true] {
        let mut r = Rig::new(2);
        r.close();
        r.export(0, true).unwrap();
        r.commit().unwrap();
        let next = r.w.actor(55);
        let job = r.w.k.jobs.iter().next().unwrap().0;
        r.w.give(next, JOB, reference(ObjectType::Job, job), Rights::MANAGE | Rights::READ);
        for who in [r.manager, r.v2[0], r.v2[1]] {
            let _ = r.w.invoke(who, H, Op::CapDelete, &[]);
        }
        r.kill(r.manager);
        assert_eq!(r.status().0, State::Committed);
        let cursor = r.w.invoke(next, JOB, Op::JobHandover, &[0, H.0.into()]).unwrap()[0];
        assert_eq!(r.w.invoke(next, JOB, Op::JobHandover, &[cursor, 60]), Err(Error::NoMoreEntries));
        let service = r.w.invoke(next, H, Op::HandoverService, &[0]).unwrap();
        r.w.invoke(next, JOB, Op::JobAdopt, &[service[0], 61]).unwrap();
        assert_eq!(r.w.k.find(next.process, Slot(61)).unwrap().cap.object.index, r.v1[0].process.index());
        assert_eq!(r.w.invoke(next, JOB, Op::JobAdopt, &[u64::MAX, 62]), Err(Error::ObjectGone));
        let op = if roll_back { Op::HandoverRollback } else { Op::HandoverFinalise };
        r.w.invoke(next, H, op, &[]).unwrap();
        let want = if roll_back { r.v1[1].process } else { r.v2[1].process };
        assert_eq!(r.receiver(1), Some(want));
        r.kill(next);
        r.balance("after an adoption");
    }
}

#[test]
fn a_commit_that_nobody_can_find_any_more_becomes_final() {
    let mut r = Rig::new(1);
    let lost = r.w.k.jobs.insert(Job { pool: r.w.k.root_pool, caps: 0, members: 0 }).unwrap();
    r.w.k.charge(r.w.k.root_pool, 0, cost::<Job>()).unwrap();
    r.w.give(r.manager, Slot(80), reference(ObjectType::Job, lost), Rights::USE);
    let id = r.w.k.handovers.iter().next().unwrap().0;
    r.w.k.handovers.get_mut(id).unwrap().job = lost;
    r.close();
    r.export(0, true).unwrap();
    r.commit().unwrap();
    for who in [r.v1[0], r.v2[0]] {
        r.w.k.delete(&mut r.w.m, r.w.k.find(who.process, H).unwrap().id);
    }
    r.w.invoke(r.manager, H, Op::CapDelete, &[]).unwrap();
    assert_eq!(r.status().0, State::Committed, "its Job can still be asked");
    r.w.invoke(r.manager, Slot(80), Op::CapDelete, &[]).unwrap();
    assert_eq!(r.w.k.handovers.live(), 0);
    assert_eq!(r.receiver(0), Some(r.v2[0].process));
    r.balance("after a commit was lost");
}

#[test]
fn everything_comes_back_whoever_dies_first_in_whatever_state() {
    for &state in State::ALL {
        for order in 0..6 {
            let mut r = Rig::in_state(state);
            r.call(0, 1);
            let (v1, v2, manager, client) = (r.v1[0], r.v2[0], r.manager, r.clients[0]);
            let all = [v1, v2, manager, client];
            for step in 0..4 {
                r.kill(all[(order + step * (1 + order % 2 * 2)) % 4]);
                if let Some((_, h)) = r.w.k.handovers.iter().next() {
                    assert!(h.caps > 0 || h.state == State::Committed);
                }
            }
            r.manager = r.v1[1];
            r.balance(&std::format!("{state:?}, order {order}"));
        }
    }
}

#[test]
fn callers_learn_at_once_that_nobody_will_take_their_reply() {
    for state in [State::Aborted, State::Finalised] {
        let mut r = Rig::new(1);
        r.call(0, 1);
        r.receive(r.v1[0], REPLY);
        r.close();
        r.w.invoke(r.v1[0], H, Op::HandoverDeposit, &[0, REPLY.into()]).unwrap();
        if state == State::Aborted {
            r.kill(r.v1[0]);
            assert_eq!(r.w.state(r.clients[0]), ThreadState::AwaitingReply, "it may still be committed");
            r.manage(Op::HandoverAbort, &[]).unwrap();
        } else {
            r.commit().unwrap();
            r.manage(Op::HandoverFinalise, &[]).unwrap();
            assert_eq!(r.w.state(r.clients[0]), ThreadState::AwaitingReply);
            r.kill(r.v2[0]);
        }
        assert_eq!(r.w.outcome(r.clients[0]).status(), Err(Error::PeerDiedDelivered), "{state:?}");
        r.balance("after an orphaned Reply");
    }
}

#[test]
fn a_rollback_needs_every_old_version() {
    let mut r = Rig::new(3);
    r.close();
    r.commit().unwrap();
    r.kill(r.v1[2]);
    let before = r.picture();
    assert_eq!(r.manage(Op::HandoverRollback, &[]), Err(Error::ParticipantDead));
    assert_eq!(detail(&r), 2);
    assert_eq!(r.picture(), before);
    r.manage(Op::HandoverFinalise, &[]).unwrap();
    r.balance("after a rollback that was refused");
}

#[test]
fn making_a_handover_fails_whole() {
    let mut r = Rig::bare(1);
    let (before, manager) = (r.picture(), r.manager);
    let args = [JOB.0.into(), u64::MAX, H.0.into()];
    let refused = drained(&mut r, manager, |r| r.w.invoke(manager, POOL, Op::HandoverCreate, &args));
    assert_eq!(refused, Err(Error::OutOfObjectBytes));
    assert_eq!(r.picture(), before);
    for slot in 50..54u64 {
        let got = r.w.invoke(r.manager, HANDOVER_POOL, Op::HandoverCreate, &[JOB.0.into(), u64::MAX, slot]);
        assert_eq!(got.is_ok(), slot < 53, "{got:?}");
    }
    r.balance("after many Handovers");
}

#[test]
fn watchers_are_told_and_bounded() {
    let mut r = Rig::new(1);
    for slot in 60..71u64 {
        r.w.invoke(r.manager, HANDOVER_POOL, Op::NotificationCreate, &[slot]).unwrap();
        let got = r.manage(Op::HandoverWatch, &[slot, 2]);
        assert_eq!(got.err(), (slot == 70).then_some(Error::HandoverFull));
    }
    r.manage(Op::HandoverWatch, &[61, 4]).unwrap();
    r.close();
    let o = r.w.message(r.manager, Call::Recv, Slot(61), Say { deadline: 0, ..Default::default() });
    assert!(o.is_flags());
    assert_eq!(r.w.words(r.manager)[0], 6, "both requests of one watcher hold");
    r.balance("after watchers");
}
