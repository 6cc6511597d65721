//! Handovers: each refusal, each state with each operation, deaths in each state with exact accounts.

mod adding;
mod commit;
mod deaths;
mod deposits;
mod gates;
mod states;
mod way;

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
    cached: 4,
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
