//! Carries acts out by system calls on the simulated machine, and holds the kernel against the reference model.

use std::collections::BTreeMap;
use std::string::String;
use std::vec::Vec;

use sila_abi::manifest::{CapRequest, Selector};
use sila_abi::record::Name as ModuleName;
use sila_abi::syscall::{Call, FOREVER, NO_WAIT, Receive, Tag};
use sila_abi::{Error, ObjectType, Op, Slot};

use super::acts::{Act, MESSAGE_PAGE, QUOTA, Request};
use super::messages::Letter;
use super::reference::{Course, Ended, Model, Name, Nature, Prices, Received, Wait};
use crate::cap::{CapTable, ObjRef};
use crate::endow::{self, Source};
use crate::kernel::reference;
use crate::machine::{Entry, Registers};
use crate::objects::*;
use crate::tests::{Actor, CAPACITIES, POOL, PROCESS, World};

/// How long a wait with a deadline lasts, ns.
const WAIT: u64 = 1000;

/// The kernel, the model, and which of the one is which of the other.
pub struct Driver {
    pub w: World,
    pub model: Model,
    pub actors: BTreeMap<Name, Actor>,
    pub refs: BTreeMap<Name, ObjRef>,
    /// Numbers of calls.
    pub calls: BTreeMap<Name, u64>,
}

fn prices() -> Prices {
    let c = CAPACITIES;
    let bytes = [
        (ObjectType::Pool, cost::<Pool>()),
        (ObjectType::Region, cost::<Region>()),
        (ObjectType::Mapping, cost::<Mapping>()),
        (ObjectType::Endpoint, cost::<Endpoint>()),
        (ObjectType::Notification, cost::<Notification>()),
        (ObjectType::Process, cost::<Process>()),
        (ObjectType::Thread, cost::<Thread>()),
    ];
    let room = [
        (ObjectType::Pool, c.pools),
        (ObjectType::Region, c.regions),
        (ObjectType::Mapping, c.mappings),
        (ObjectType::Endpoint, c.endpoints),
        (ObjectType::Notification, c.notifications),
        (ObjectType::Process, c.processes),
        (ObjectType::Thread, c.threads),
    ];
    let room = room.map(|(kind, room)| (kind, room as usize));
    Prices { bytes: bytes.into(), room: room.into(), chunk: CapTable::CHUNK_BYTES }
}

impl Driver {
    pub fn new() -> Self {
        // Each act ends with a check of everything; its system calls need none of their own.
        let w = World { checks: false, ..World::new() };
        let root = w.k.root_pool;
        let limit = w.k.pools.get(root).map(|p| (p.frames.limit, p.bytes.limit)).unwrap();
        // The Job that all processes share is the test's own, and outside the model.
        let model = Model::new(prices(), limit.0, limit.1 - cost::<Job>());
        let refs = BTreeMap::from([(model.root, reference(ObjectType::Pool, root))]);
        let mut driver = Driver { w, model, actors: BTreeMap::new(), refs, calls: BTreeMap::new() };
        let first = driver.model.spawn(QUOTA, MESSAGE_PAGE);
        driver.model.own(first);
        let actor = driver.make_actor();
        driver.actors.insert(first, actor);
        driver
    }

    fn make_actor(&mut self) -> Actor {
        let actor = self.w.actor_with(50, QUOTA);
        let rights = sila_abi::Rights::READ | sila_abi::Rights::MANAGE | sila_abi::Rights::COPY;
        self.w.give(actor, Slot(2), reference(ObjectType::Thread, actor.thread), rights);
        self.w.k.keep_grown();
        debug_assert!(self.w.k.find(actor.process, PROCESS).is_ok());
        debug_assert!(self.w.k.find(actor.process, POOL).is_ok());
        actor
    }

    /// True if another process can be made at all.
    pub fn can_spawn(&self) -> bool {
        let room = |kind: ObjectType| self.model.prices.room[&kind] > self.model.live(kind);
        let bytes = QUOTA.1 + cost::<Pool>() + cost::<Process>();
        room(ObjectType::Process)
            && room(ObjectType::Thread)
            && room(ObjectType::Pool)
            && self.model.afford(self.model.root, QUOTA.0, bytes).is_ok()
    }

    /// One act: in the kernel, in the model, and the comparison.
    pub fn step(&mut self, who: Name, act: &Act) -> Result<Course, String> {
        let people: Vec<Name> = self.model.people.keys().copied().collect();
        let expected = self.model.act(who, act);
        let found = self.perform(who, act)?;
        self.w.m.preempt_after = None;
        self.w.settle();
        self.w.sound();
        self.new_process(&people);
        if found.map(|e| e.result) != expected.map(|e| e.result) {
            return Err(std::format!("the kernel says {found:?}, the model {expected:?}"));
        }
        if let Some(Ended { message: Some(message), .. }) = expected {
            self.same_message(who, message)?;
        }
        for (process, ended) in self.model.woken.clone() {
            // Who ended in this very act has no registers any more.
            if self.model.people.contains_key(&process) {
                self.woke(process, ended)?;
            }
        }
        self.answers(who, act, expected)?;
        super::compare::compare(self)?;
        Ok(expected)
    }

    /// Learns which process an endowment made.
    fn new_process(&mut self, before: &[Name]) {
        let new = self.model.people.keys().find(|name| !before.contains(name)).copied();
        if let Some((name, actor)) = new.zip(self.actors.remove(&0)) {
            self.actors.insert(name, actor);
        }
    }

    fn woke(&self, process: Name, ended: Ended) -> Result<(), String> {
        let actor = self.actors[&process];
        let outcome = self.w.outcome(actor);
        if outcome.status() != ended.result {
            return Err(std::format!("process {process} woke with {outcome:?}, not {ended:?}"));
        }
        match ended.message {
            Some(message) => self.same_message(process, message),
            None => Ok(()),
        }
    }

    fn same_message(&self, process: Name, want: Received) -> Result<(), String> {
        let actor = self.actors[&process];
        let outcome = self.w.outcome(actor);
        let badge = want.badge.map(|_| self.w.badge(actor));
        let found = Received { badge, caps: outcome.caps(), has_reply: outcome.has_reply() };
        if found == want {
            Ok(())
        } else {
            Err(std::format!("process {process} got {found:?}, not {want:?}"))
        }
    }

    /// What status operations say.
    fn answers(&self, who: Name, act: &Act, course: Course) -> Result<(), String> {
        let Act::Invoke { slot, op, .. } = act else { return Ok(()) };
        if course.is_none_or(|ended| ended.result.is_err()) {
            return Ok(());
        }
        let Ok((_, cap)) = self.model.find(who, *slot) else { return Ok(()) };
        let words = self.w.words(self.actors[&who]);
        let object = if let super::reference::What::Object(name) = cap.what { name } else { 0 };
        let want = match (op, self.model.objects.get(&object).map(|o| &o.nature)) {
            (Op::CapStatus, _) => {
                let badge = if cap.kind == ObjectType::Reply { 0 } else { cap.badge };
                [cap.kind as u64, cap.rights.bits().into(), badge].to_vec()
            }
            (Op::PoolStatus, Some(Nature::Pool { frames, bytes, .. })) => {
                let used = self.model.used(object);
                let own = if object == self.model.root { cost::<Job>() } else { 0 };
                [*frames, used.0, bytes + own, used.1 + own].to_vec()
            }
            (Op::RegionStatus, Some(Nature::Region { pages, sealed })) => {
                let mapped = self.model.mappings(object);
                [*pages, u64::from(*sealed), mapped.0, mapped.1].to_vec()
            }
            _ => return Ok(()),
        };
        if words[..want.len()] == want[..] {
            return Ok(());
        }
        Err(std::format!("{op:?} says {words:?}, the model {want:?}"))
    }

    // ---- the kernel's side ------------------------------------------------------------------------------

    fn perform(&mut self, who: Name, act: &Act) -> Result<Course, String> {
        match act {
            Act::Endow { requests } => return Ok(Some(Ended::with(self.endow(who, requests)))),
            Act::Time => {
                self.w.m.time += 2 * WAIT;
                self.w.k.enter(&mut self.w.m, Entry::Timer);
                return Ok(Some(Ended::with(Ok(()))));
            }
            Act::Fault => {
                let process = self.actors[&who].process;
                self.w.k.begin_end(&mut self.w.m, process, Exit { cause: 3, ..Exit::default() });
                return Ok(None);
            }
            _ => {}
        }
        let actor = self.actors[&who];
        let (tag, registers) = self.registers(act);
        let mut interrupts = if let Act::Invoke { interrupts, .. } = act { *interrupts } else { 0 };
        loop {
            self.w.m.preempt_after = (interrupts > 0).then_some(0);
            self.clear_the_stage(actor);
            let before = self.rip(actor);
            self.w.call(actor, tag, |r| {
                let (rip, rsp) = (r.rip, r.rsp);
                *r = Registers { rax: tag.0, rip, rsp, ..registers };
            });
            match self.rip(actor) {
                Some(rip) if before.is_some_and(|b| b.wrapping_sub(rip) == 2) => {
                    self.w.k.threads.get_mut(actor.thread).unwrap().context.registers.rip = rip + 2;
                    interrupts = interrupts.saturating_sub(1);
                    // A restarted call has done a part of its work: that must be sound, too.
                    self.w.sound();
                }
                None => return Ok(None),
                Some(_) => break,
            }
        }
        let waits = !is_free(self.w.state(actor));
        Ok((!waits).then(|| Ended::with(self.w.outcome(actor).status())))
    }

    /// Lets an actor run, and nobody else be ready, so that the kernel may switch directly to whom it answers.
    fn clear_the_stage(&mut self, actor: Actor) {
        self.w.switch_to(actor);
        for other in self.actors.values() {
            let state = self.w.k.threads.get(other.thread).map(|t| t.state);
            if other.thread != actor.thread && state == Some(ThreadState::Ready) {
                self.w.k.leave_wait(other.thread);
            }
        }
    }

    fn rip(&self, actor: Actor) -> Option<u64> {
        self.w.k.threads.get(actor.thread).map(|t| t.context.registers.rip)
    }

    /// What the registers hold when a process makes the system call of an act.
    fn registers(&self, act: &Act) -> (Tag, Registers) {
        let none = Registers::default();
        match act {
            Act::Invoke { slot, op, words: [a, b, c, d, e, f], .. } => {
                let r = Registers { rdi: *slot, rsi: *a, rdx: *b, r10: *c, r8: *d, r9: *e, r12: *f, ..none };
                (Tag::new(Call::Invoke, 6, 0, *op as u32), r)
            }
            Act::Send { slot, letter } => {
                self.letter(if letter.call { Call::Call } else { Call::Send }, *slot, letter)
            }
            Act::Receive { slot, letter } => self.letter(Call::Recv, *slot, letter),
            Act::ReplyReceive { slot, letter } => self.letter(Call::ReplyRecv, *slot, letter),
            Act::Reply { slot, caps } => {
                let r = Registers { rdi: *slot, r15: packed(caps), ..none };
                (Tag::new(Call::Reply, 0, caps.len() as u8, 0), r)
            }
            _ => (Tag::new(Call::Exit, 1, 0, 0), none),
        }
    }

    fn letter(&self, call: Call, slot: u64, letter: &Letter) -> (Tag, Registers) {
        let wants = letter.wants;
        let receive =
            Receive { reply: Slot(wants.reply as u16), base: Slot(wants.base), count: wants.count as u8 };
        let deadline = match (letter.waits, letter.patience) {
            (false, _) => NO_WAIT,
            (true, true) => FOREVER,
            (true, false) => self.w.m.time + WAIT,
        };
        let r = Registers {
            rdi: slot,
            r13: receive.to_word(),
            r14: deadline,
            r15: packed(&letter.caps),
            ..Registers::default()
        };
        let sends = if call == Call::Recv { 0 } else { letter.caps.len() as u8 };
        (Tag::new(call, 0, sends, 0), r)
    }

    /// A process with the grants that the kernel's own endowment decides on.
    fn endow(&mut self, who: Name, requests: &[Request]) -> Result<(), Error> {
        let creator = self.actors[&who].process;
        let wanted: Vec<CapRequest> = requests.iter().map(manifest_request).collect();
        let plan = endow::plan(&wanted, endow::Authority::BootManifest, |i| {
            let slot = Slot::from_word(requests.get(i)?.source?)?;
            let found = self.w.k.find(creator, slot).ok()?;
            let alive = self.w.k.is_alive(found.cap.object);
            let (amount, whole) = self.w.k.amount_of(&found.cap);
            Some(Source { cap: found.cap, parent: Some(found.id), alive, amount, whole })
        })
        .map_err(|fail| fail.error)?;
        let actor = self.make_actor();
        self.w.k.endow(actor.process, actor.thread, &plan)?;
        self.w.k.keep_grown();
        self.actors.insert(0, actor);
        Ok(())
    }

    /// True if a process waits in the way that the model says.
    pub fn waits_alike(&self, process: Name) -> bool {
        let state = self.w.k.threads.get(self.actors[&process].thread).map(|t| (t.state, t.call));
        match (&self.model.people[&process].wait, state) {
            (None, Some((state, _))) => is_free(state),
            (Some(Wait::Send { badge, call, .. }), Some((state, _))) => {
                matches!(state, ThreadState::Sending { badge: b, call: c, .. } if b == *badge && c == *call)
            }
            (Some(Wait::Receive { .. }), Some((ThreadState::Receiving { .. }, _))) => true,
            (Some(Wait::Answer { call }), Some((ThreadState::AwaitingReply, number))) => {
                self.calls.get(call) == Some(&number)
            }
            _ => false,
        }
    }
}

/// True if a thread waits for nothing.
fn is_free(state: ThreadState) -> bool {
    matches!(state, ThreadState::Ready | ThreadState::Running | ThreadState::Inactive)
}

fn packed(caps: &[u64]) -> u64 {
    caps.iter().enumerate().fold(0, |word, (i, slot)| word | (slot & 0xffff) << (16 * i))
}

fn manifest_request(r: &Request) -> CapRequest {
    CapRequest {
        slot: r.slot,
        object: r.kind as u8,
        selector: Selector::Grant(ModuleName::new("x").unwrap()),
        rights: r.rights.bits(),
        badge: r.badge,
        amount: 0,
        mandatory: r.mandatory,
    }
}

/// What an outcome is called in the statistics.
pub fn outcome_name(course: Course) -> &'static str {
    match course {
        None => "waits",
        Some(Ended { result: Ok(()), .. }) => "Ok",
        Some(Ended { result: Err(error), .. }) => error.name(),
    }
}
