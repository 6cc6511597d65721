//! Host tests of the core: processes without images make system calls on a simulated machine.

mod abuse;
mod audit;
mod budgets;
mod cache;
mod capabilities;
mod cases;
pub(crate) mod contract;
mod creating;
mod devices;
mod endowment;
mod failing;
mod flow;
mod handover;
mod handover_model;
mod invariants;
mod ipc;
mod journal;
mod meanwhile;
mod memory;
mod model;
mod priorities;
mod processes;
mod recharge;
pub(crate) mod refusals;
mod signed;
mod status;
mod trace;
mod trust;

use std::vec::Vec;

use sila_abi::record::{Name, Version};
use sila_abi::syscall::{Call, FOREVER, Outcome, Receive, Tag, pack_caps};
use sila_abi::{Error, ObjectType, Op, Rights, Slot};

use crate::budget::Budget;
use crate::cap::{Cap, Origin};
use crate::frames::FrameTable;
use crate::kernel::{Attention, Capacities, Kernel, Running, reference};
use crate::machine::{Entry, Frame, Registers};
use crate::objects::*;
use crate::paging::{Roots, init_roots};
use crate::rate::Bucket;
use crate::sim::SimMachine;
use crate::thread::Start;

/// Slots that every test process has.
pub const PROCESS: Slot = Slot(1);
/// See [`PROCESS`].
pub const POOL: Slot = Slot(3);

/// A kernel on a simulated machine.
pub struct World {
    pub k: Kernel,
    pub m: SimMachine,
    /// Check the invariants after each system call. Off in tests that do what no process can, such as letting a suspended
    /// thread run.
    pub checks: bool,
    /// Every system call takes the general path.
    pub general: bool,
}

/// A process of a test.
#[derive(Clone, Copy)]
pub struct Actor {
    pub process: ProcessId,
    pub thread: ThreadId,
}

pub const CAPACITIES: Capacities = Capacities {
    pools: 16,
    regions: 32,
    mappings: 32,
    endpoints: 80,
    notifications: 16,
    jobs: 4,
    handovers: 4,
    journals: 4,
    cached: 4,
    processes: 8,
    threads: 16,
    cap_chunks: 64,
};

/// A message to send.
#[derive(Clone, Copy, Default)]
pub struct Say {
    pub label: u32,
    pub words: [u64; 6],
    pub len: u8,
    pub caps: [Slot; 4],
    pub cap_count: u8,
    pub receive: Receive,
    pub deadline: u64,
}

impl World {
    pub fn new() -> Self {
        Self::sized(2000, CAPACITIES)
    }

    /// A world with this many frames and objects.
    pub fn sized(count: u32, capacities: Capacities) -> Self {
        let mut frames = FrameTable::new(count);
        (10..count).for_each(|f| frames.add(Frame(f)));
        let mut k = Kernel::new(frames, capacities).unwrap();
        k.test_hooks = sila_crypto::SecureBool::ALLOW;
        k.prepare_checks();
        k.prepare_audit();
        World { k, m: SimMachine::new(count as usize), checks: true, general: false }
    }

    /// A running process with one thread, its own Pool, and capabilities to itself and the Pool.
    pub fn actor(&mut self, priority: u8) -> Actor {
        self.actor_with(priority, (200, 16_000))
    }

    /// As [`World::actor`], with these quotas of frames and object bytes.
    pub fn actor_with(&mut self, priority: u8, (frames, bytes): (u64, u64)) -> Actor {
        let k = &mut self.k;
        let first = k.jobs.iter().next().map(|(id, _)| id);
        let job = match first {
            Some(job) => job,
            None => {
                k.charge(k.root_pool, 0, cost::<Job>()).unwrap();
                let job = k
                    .jobs
                    .insert(Job { pool: k.root_pool, caps: 1, members: 0, creations: Bucket::default() })
                    .unwrap();
                k.held.push(reference(ObjectType::Job, job));
                job
            }
        };
        k.charge(k.root_pool, 0, cost::<Process>()).unwrap();
        let pool = k.split_pool(k.root_pool, frames, bytes).unwrap();
        let root = k.take_frame(&mut self.m, pool).unwrap();
        let roots = Roots { kernel: root, user: root };
        init_roots(&mut self.m, roots);
        let number = k.next_process;
        k.next_process += 1;
        let identity = Identity {
            name: Name::new("actor").unwrap(),
            version: Version { major: 1, minor: 0, patch: 0 },
            security_version: 1,
            publisher: Name::new("test").unwrap(),
            key_id: [0; 32],
            service: None,
            manifest_digest: [0; 32],
            policy: 0,
        };
        let process = k
            .processes
            .insert(Process {
                number,
                payer: k.root_pool,
                pool,
                job,
                caps: 0,
                identity,
                state: ProcessState::Running,
                exit: Exit::default(),
                roots: Some(roots),
                ceiling: 200,
                max_threads: 4,
                thread_count: 0,
                initial: None,
                threads: None,
                mappings: None,
                image: None,
                handover: None,
                retired: false,
                watchers: [None; MAX_WATCHERS],
                end: Teardown::default(),
                reap_next: None,
                budget: Budget::default(),
            })
            .unwrap();
        k.jobs.get_mut(job).unwrap().members += 1;
        let start =
            Start { entry: 0x10_0000, stack: 0x20_0000, argument: 0, priority, message_page: 0x40_0000 };
        let thread = k.new_thread(&mut self.m, process, start).unwrap();
        let actor = Actor { process, thread };
        let own = Rights::READ | Rights::WRITE | Rights::MANAGE | Rights::COPY;
        self.give(actor, PROCESS, reference(ObjectType::Process, process), own);
        self.give(actor, POOL, reference(ObjectType::Pool, pool), Rights::USE);
        self.k.make_ready(thread);
        actor
    }

    /// Puts a capability into a slot of a process.
    pub fn give(&mut self, a: Actor, slot: Slot, object: crate::cap::ObjRef, rights: Rights) {
        let at = self.k.free_slot(a.process, slot).unwrap();
        let cap = Cap { object, rights, badge: 0, origin: Origin::NONE };
        if object.kind == ObjectType::Reply {
            self.k.caps.insert_reply(at, cap);
        } else {
            self.k.install(at, cap);
        }
    }

    /// Copies a capability from one process to another, as a child, with those of the rights that it has.
    pub fn share(&mut self, from: Actor, slot: Slot, to: Actor, at: Slot, rights: Rights, badge: u64) {
        let source = self.k.find(from.process, slot).unwrap();
        let free = self.k.free_slot(to.process, at).unwrap();
        let rights = rights & (source.cap.rights | Rights::ENDOW);
        assert!(self.k.derive(source.id, free, Cap { rights, badge, ..source.cap }));
    }

    /// Makes the actor's thread the running one.
    fn switch_to(&mut self, a: Actor) {
        if let Running::Thread(t) = self.k.running() {
            if t == a.thread {
                return;
            }
            self.k.leave_wait(t);
            self.k.make_ready(t);
        }
        self.k.leave_wait(a.thread);
        self.k.threads.get_mut(a.thread).unwrap().state = ThreadState::Running;
        self.k.set_running(Running::Thread(a.thread));
        self.k.book(&mut self.m);
        self.k.charge_running(&mut self.m);
        // This was the choice that had to be made: the next system call may take the short path.
        self.k.attention -= Attention::SCHEDULE;
        if self.k.nothing_to_reap() {
            self.k.attention -= Attention::REAP;
        }
    }

    /// One system call; the answer is in the actor's registers unless it waits.
    pub fn call(&mut self, a: Actor, tag: Tag, set: impl FnOnce(&mut Registers)) -> Outcome {
        self.switch_to(a);
        if self.general {
            self.k.attention |= Attention::SCHEDULE;
        }
        let t = self.k.threads.get_mut(a.thread).unwrap();
        t.context.registers.rax = tag.0;
        set(&mut t.context.registers);
        self.k.enter(&mut self.m, Entry::Syscall);
        if self.checks {
            self.sound();
        }
        self.outcome(a)
    }

    /// Every invariant of the kernel holds.
    #[track_caller]
    pub fn sound(&mut self) {
        assert_eq!(self.k.check_invariants(&mut self.m), Ok(()));
    }

    pub fn outcome(&self, a: Actor) -> Outcome {
        self.k.threads.get(a.thread).map_or(Outcome(u64::MAX), |t| Outcome(t.context.registers.rax))
    }

    /// An operation with up to six words.
    pub fn invoke(&mut self, a: Actor, slot: Slot, op: Op, args: &[u64]) -> Result<[u64; 6], Error> {
        let mut w = [0; 6];
        w[..args.len()].copy_from_slice(args);
        let o = self.call(a, Tag::new(Call::Invoke, 6, 0, op as u32), |r| {
            r.rdi = slot.0 as u64;
            [r.rsi, r.rdx, r.r10, r.r8, r.r9, r.r12] = w;
        });
        o.status().map(|()| self.words(a))
    }

    pub fn words(&self, a: Actor) -> [u64; 6] {
        let r = &self.k.threads.get(a.thread).unwrap().context.registers;
        [r.rsi, r.rdx, r.r10, r.r8, r.r9, r.r12]
    }

    pub fn badge(&self, a: Actor) -> u64 {
        self.k.threads.get(a.thread).unwrap().context.registers.rdi
    }

    pub fn message(&mut self, a: Actor, call: Call, slot: Slot, say: Say) -> Outcome {
        self.call(a, Tag::new(call, say.len, say.cap_count, say.label), |r| {
            r.rdi = slot.0 as u64;
            [r.rsi, r.rdx, r.r10, r.r8, r.r9, r.r12] = say.words;
            r.r13 = say.receive.to_word();
            r.r14 = say.deadline;
            r.r15 = pack_caps(say.caps);
        })
    }

    pub fn state(&self, a: Actor) -> ThreadState {
        self.k.threads.get(a.thread).unwrap().state
    }

    /// What must be the same before and after: free frames, Pool balances of the root, objects, capabilities.
    pub fn baseline(&self) -> Vec<u64> {
        let root = self.k.pools.get(self.k.root_pool).unwrap();
        std::vec![
            self.k.frames.free_count() as u64,
            root.frames.used,
            root.bytes.used,
            self.k.live_objects(),
            self.k.caps.live() as u64,
        ]
    }

    /// Lets the reaper finish.
    pub fn settle(&mut self) {
        while self.k.reap_step(&mut self.m) {}
        if self.checks {
            self.sound();
        }
    }
}

/// Waits for ever.
pub fn forever(reply: u16) -> Say {
    Say {
        deadline: FOREVER,
        receive: Receive { reply: Slot(reply), ..Default::default() },
        ..Default::default()
    }
}
