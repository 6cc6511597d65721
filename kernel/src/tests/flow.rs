//! Information flow: what a process can observe does not depend on the non-public parts of another module's manifest.
//!
//! Public are name, version, kind and publisher. One process loads a module; another asks for all that its capabilities let
//! it ask, before and after, up to the exhaustion of its own Pool. The answers are compared word for word.

use std::vec;

use sila_abi::contract::{Contract, Node, Operation, Predicate, When};
use sila_abi::manifest::{Dependency, Manifest, ManifestFlags};
use sila_abi::record::VersionRange;

use super::failing::scenes::{JOB, KEYS};
use super::signed::{OWNER, bounded, module, name, signer};
use super::trust::Trust;
use super::*;
use crate::cap::ObjRef;
use crate::kernel::PERMANENT;

const POLICY: Slot = Slot(30);
const CLOCK: Slot = Slot(31);

/// Every answer that somebody got.
#[derive(Default, PartialEq, Eq, Debug)]
struct Seen(Vec<(Op, u64, Vec<u64>)>);

struct Watcher {
    t: Trust,
    b: Actor,
    seen: Seen,
}

impl Watcher {
    fn new() -> Self {
        let mut t = Trust::new();
        let b = t.w.actor_with(40, (120, 60_000));
        let job = t.w.k.jobs.iter().next().unwrap().0;
        t.w.give(b, JOB, reference(ObjectType::Job, job), Rights::READ | Rights::CREATE);
        for (slot, kind) in
            [(KEYS, ObjectType::KeyRing), (POLICY, ObjectType::Policy), (CLOCK, ObjectType::Clock)]
        {
            t.w.give(b, slot, ObjRef { kind, index: 0, generation: PERMANENT }, Rights::READ);
        }
        Watcher { t, b, seen: Seen::default() }
    }

    /// Asks, and writes down outcome, register words, and what the message page holds.
    fn ask(&mut self, slot: Slot, op: Op, args: &[u64]) -> Result<[u64; 6], Error> {
        let answer = self.t.w.invoke(self.b, slot, op, args);
        let outcome = self.t.w.outcome(self.b);
        let words = outcome.words();
        let mut all = self.t.w.words(self.b)[..words.min(6)].to_vec();
        let page = self.t.w.k.threads.get(self.b.thread).unwrap().message.unwrap().0;
        if words > 6 {
            use crate::machine::Machine;
            all.extend_from_slice(&self.t.w.m.frame(page)[6..words]);
        }
        self.seen.0.push((op, outcome.0, all));
        answer
    }

    /// All that it can learn.
    fn look(&mut self) {
        self.ask(PROCESS, Op::ProcessStatus, &[]).unwrap();
        self.ask(PROCESS, Op::ProcessIdentity, &[]).unwrap();
        self.ask(PROCESS, Op::ProcessUsage, &[]).unwrap();
        self.ask(CLOCK, Op::ClockNow, &[]).unwrap();
        self.ask(JOB, Op::JobStatus, &[]).unwrap();
        let mut cursor = 0;
        while let Ok(words) = self.ask(JOB, Op::JobNext, &[cursor]) {
            cursor = words[0];
        }
        self.ask(KEYS, Op::KeyRingState, &[]).unwrap();
        self.ask(POLICY, Op::PolicyStatus, &[]).unwrap();
        self.ask(POLICY, Op::PolicyRead, &[0]).unwrap();
        for index in 0..3 {
            for op in [Op::KeyRingStatus, Op::KeyRingName, Op::KeyRingRevocation, Op::KeyRingFloor] {
                let _ = self.ask(KEYS, op, &[index]);
            }
            let _ = self.ask(KEYS, Op::KeyRingCertificate, &[index, 0]);
        }
        let _ = self.ask(KEYS, Op::KeyRingAffected, &[0]);
        for slot in 1..64 {
            let _ = self.ask(Slot(slot), Op::CapStatus, &[]);
        }
        self.make();
    }

    /// Makes objects until its Pool has nothing left, and lets them go.
    fn make(&mut self) {
        let mut slots: Vec<u16> = (100..200).collect();
        let mut made = Vec::new();
        let ops: [(Op, &[u64]); 4] = [
            (Op::EndpointCreate, &[0, 0]),
            (Op::NotificationCreate, &[]),
            (Op::RegionCreate, &[7]),
            (Op::PoolCreate, &[1, 500]),
        ];
        'all: loop {
            for (op, args) in ops {
                let slot = slots.pop().unwrap();
                let args = [args, &[slot.into()]].concat();
                self.ask(POOL, Op::PoolStatus, &[]).unwrap();
                if self.ask(POOL, op, &args).is_err() {
                    break 'all;
                }
                made.push(slot);
                let _ = self.ask(Slot(slot), Op::RegionStatus, &[]);
                let _ = self.ask(Slot(slot), Op::EndpointStatus, &[]);
            }
        }
        for slot in made {
            self.ask(Slot(slot), Op::CapDelete, &[]).unwrap();
        }
        self.t.w.settle();
        self.ask(POOL, Op::PoolStatus, &[]).unwrap();
    }
}

/// What the watcher sees around loads of these modules by somebody else.
fn seen(changes: &[&dyn Fn(&mut Manifest)]) -> Seen {
    let mut w = Watcher::new();
    w.look();
    for (patch, change) in (1..).zip(changes) {
        let made = module(&signer(OWNER), |m| {
            m.version.patch = patch;
            change(m);
        });
        w.t.load_and_keep(&made);
        w.look();
        w.t.end();
        w.look();
    }
    w.seen
}

#[test]
fn what_another_s_manifest_keeps_to_itself_is_seen_by_nobody() {
    let plain = seen(&[&|_| {}, &|_| {}]);
    assert!(plain.0.len() > 500, "{} answers only", plain.0.len());
    let contract = || {
        let nodes = bounded(vec![Node::Const(1), Node::Eq(0, 0)]);
        let operation = Operation::Create;
        let predicate = Predicate { name: name("p"), operation, when: When::Before, root: 1 };
        Contract { nodes, predicates: bounded(vec![predicate]), ..Contract::default() }
    };
    let other = Dependency {
        publisher: name("test"),
        name: name("elsewhere"),
        versions: VersionRange::ALL,
        export_digest: [0; 32],
    };
    let secrets: [&dyn Fn(&mut Manifest); 10] = [
        &|m| {
            let mut requests = m.requests.to_vec();
            requests[0].rights = Rights::READ.bits();
            m.requests = bounded(requests);
        },
        &|m| {
            m.requests = bounded(
                m.requests
                    .iter()
                    .map(|r| sila_abi::manifest::CapRequest { slot: r.slot + 20, ..*r })
                    .collect(),
            )
        },
        &|m| {
            m.requests = bounded(
                m.requests
                    .iter()
                    .map(|r| sila_abi::manifest::CapRequest { mandatory: false, ..*r })
                    .collect(),
            )
        },
        &|m| m.resources.frames = 40,
        &|m| m.resources.object_bytes = 15 << 10,
        &|m| m.resources.threads = 1,
        &|m| (m.stack_pages, m.state_schema) = (5, 9),
        &|m| m.contract = contract(),
        &|m| m.dependencies = bounded(vec![other]),
        &|m| {
            (m.flags, m.security_version) = (ManifestFlags::ROLLBACK_ON_INIT_FAILURE, 7);
            (m.init_deadline_ms, m.prepare_deadline_ms) = (7, 8);
        },
    ];
    for (at, secret) in secrets.iter().enumerate() {
        assert_eq!(seen(&[secret, &|_| {}]), plain, "change {at} is seen");
        assert_eq!(seen(&[&|_| {}, secret]), plain, "change {at} is seen later");
    }
    // The comparison would notice something: another number of processes, for one.
    assert_ne!(seen(&[&|_| {}]), plain);
}
