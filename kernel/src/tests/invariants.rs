//! Each invariant is seen to fail when it is broken, and the book explains each.

use super::handover::Rig;
use super::*;
use crate::cap::CapId;
use crate::handover::Handover;
use crate::invariants::Rule;
use crate::kernel::Attention;
use crate::machine::Machine;
use crate::objects::Quota;
use crate::queue::Alarm;

/// Actors, by what they are doing.
struct Busy {
    w: World,
    /// Owns endpoint 10, notification 11, Regions 12 (inline) and 13 (indexed), mappings 14 and 15, Pool 16.
    owner: Actor,
    /// Awaits the owner's reply.
    caller: Actor,
    /// Waits to send to the owner's endpoint, until a deadline.
    sender: Actor,
    /// Waits for the owner's notification.
    waiter: Actor,
}

fn busy() -> Busy {
    let mut w = World::new();
    let [owner, caller, sender, waiter] = [90, 40, 30, 20].map(|priority| w.actor(priority));
    let make = |w: &mut World, op, words: &[u64]| w.invoke(owner, POOL, op, words).unwrap();
    make(&mut w, Op::EndpointCreate, &[0, 0, 10]);
    make(&mut w, Op::NotificationCreate, &[11]);
    make(&mut w, Op::RegionCreate, &[3, 12]);
    make(&mut w, Op::RegionCreate, &[20, 13]);
    make(&mut w, Op::PoolCreate, &[10, 4000, 16]);
    for (region, address, writable, at) in [(12, 0x80_0000, 1, 14), (13, 0x90_0000, 0, 15)] {
        let words = [PROCESS.0.into(), address, 0, 2, writable, at];
        w.invoke(owner, Slot(region), Op::RegionMap, &words).unwrap();
    }
    w.invoke(owner, Slot(10), Op::CapCopy, &[17, Rights::SEND.bits().into()]).unwrap();
    for a in [caller, sender] {
        w.share(owner, Slot(10), a, Slot(10), Rights::SEND, 7);
    }
    w.share(owner, Slot(11), waiter, Slot(11), Rights::RECV, 0);
    w.message(waiter, Call::Recv, Slot(11), forever(0));
    w.message(caller, Call::Call, Slot(10), forever(0));
    w.message(owner, Call::Recv, Slot(10), forever(20));
    w.message(sender, Call::Call, Slot(10), Say { deadline: 1 << 40, ..forever(0) });
    w.invoke(owner, Slot(11), Op::NotificationAlarm, &[1 << 50, 1]).unwrap();
    Busy { w, owner, caller, sender, waiter }
}

impl Busy {
    fn place(&self, slot: u16) -> CapId {
        self.w.k.find(self.owner.process, Slot(slot)).unwrap().id
    }
    fn object<T>(&self, slot: u16) -> crate::arena::Id<T> {
        crate::kernel::id_of(&self.w.k.find(self.owner.process, Slot(slot)).unwrap().cap)
    }
    fn endpoint(&mut self) -> &mut Endpoint {
        let id = self.object(10);
        self.w.k.endpoints.get_mut(id).unwrap()
    }
    fn notification(&mut self) -> &mut Notification {
        let id = self.object(11);
        self.w.k.notifications.get_mut(id).unwrap()
    }
    fn region(&mut self, slot: u16) -> &mut Region {
        let id = self.object(slot);
        self.w.k.regions.get_mut(id).unwrap()
    }
    fn pool(&mut self) -> &mut Pool {
        let id = self.object(16);
        self.w.k.pools.get_mut(id).unwrap()
    }
    fn process(&mut self) -> &mut Process {
        self.w.k.processes.get_mut(self.owner.process).unwrap()
    }
    fn thread(&mut self, a: Actor) -> &mut Thread {
        self.w.k.threads.get_mut(a.thread).unwrap()
    }
    /// The entry of the owner's page at an address.
    fn page(&mut self, address: u64) -> &mut u64 {
        let mut table = self.process().roots.unwrap().kernel;
        for shift in [39, 30, 21] {
            let entry = self.w.m.frame(table)[(address >> shift) as usize & 511];
            table = Frame::containing(entry & 0x000f_ffff_ffff_f000).unwrap();
        }
        &mut self.w.m.frame(table)[(address >> 12) as usize & 511]
    }
}

type Damage = fn(&mut Busy);
type RigDamage = fn(&mut Rig);

/// What breaks each rule, and is noticed as that and not as something else.
const DAMAGES: &[(Rule, Damage)] = &[
    (Rule::ArenaSlots, |b| b.w.k.jobs.damage_vacant_list()),
    (Rule::Chunks, |b| b.w.k.caps.damage_chunks(7, 1)),
    (Rule::CapPlace, |b| b.w.k.caps.damage_chunks(b.owner.process.index(), 0)),
    (Rule::CapObject, |b| {
        let at = b.place(11);
        b.w.k.caps.damage_cap(at, |cap| cap.as_mut().unwrap().object.generation += 1);
    }),
    (Rule::CapLinks, |b| {
        let at = b.place(10);
        b.w.k.caps.damage_first_child(at);
    }),
    (Rule::CapTree, |b| b.w.k.caps.damage_live()),
    (Rule::CapShrinks, |b| {
        let at = b.place(17);
        b.w.k.caps.damage_cap(at, |cap| cap.as_mut().unwrap().rights |= Rights::SEAL);
    }),
    (Rule::CapCount, |b| b.endpoint().caps += 1),
    (Rule::Reply, |b| {
        let at = b.place(20);
        b.w.k.caps.damage_cap(at, |cap| *cap = None);
    }),
    (Rule::Kept, |b| {
        let pool = b.w.k.root_pool;
        b.w.k.new_notification(pool).unwrap();
    }),
    (Rule::PoolTree, |b| b.pool().parent = Some(crate::arena::Id::from_parts(9, 7))),
    (Rule::PoolPayer, |b| b.endpoint().pool = crate::arena::Id::from_parts(9, 7)),
    (Rule::PoolFrames, |b| b.pool().frames.used += 1),
    (Rule::PoolBytes, |b| b.pool().bytes.used += 1),
    (Rule::PoolLimit, |b| b.pool().dying = true),
    (Rule::PoolReserve, |b| {
        let root = b.w.k.root_pool;
        b.w.k.pools.get_mut(root).unwrap().bytes.limit += 1;
    }),
    (Rule::FrameLists, |b| b.w.k.frames.damage_free_list()),
    (Rule::FrameOwner, |b| {
        b.w.k.frames.take();
    }),
    (Rule::PageShown, |b| *b.page(0x40_0000) = 10 << 12 | 7),
    (Rule::UserRoot, |b| {
        let pool = b.process().pool;
        let user = b.w.k.take_frame(&mut b.w.m, pool).unwrap();
        b.process().roots.as_mut().unwrap().user = user;
        b.thread(b.owner).context.user_root = user.address();
    }),
    (Rule::MappingPages, |b| *b.page(0x80_1000) = 0),
    (Rule::MappingList, |b| b.process().mappings = None),
    (Rule::RegionCounts, |b| b.region(12).writable = 0),
    (Rule::RegionState, |b| b.region(12).sealed = sila_crypto::SecureBool::ALLOW),
    (Rule::RegionReaped, |b| {
        let id = b.object(12);
        b.w.k.dead_regions.push(id);
        b.w.k.attention |= Attention::REAP;
    }),
    (Rule::ThreadList, |b| b.process().thread_count = 3),
    (Rule::ThreadQueue, |b| b.thread(b.waiter).state = ThreadState::Inactive),
    (Rule::QueueOrder, |b| b.endpoint().senders.damage_tail()),
    (Rule::ReadyMap, |b| b.w.k.ready.damage_bitmap()),
    (Rule::Running, |b| b.thread(b.caller).state = ThreadState::Running),
    (Rule::ThreadShape, |b| b.thread(b.owner).effective = 0),
    (Rule::Timers, |b| b.w.k.timers.damage_order()),
    (Rule::Bound, |b| b.notification().bound = Some(b.owner.thread)),
    (Rule::Receiver, |b| {
        b.endpoint().receiver = Some(crate::arena::Id::from_parts(7, 1));
    }),
    (Rule::Rendezvous, |b| b.endpoint().receiver = None),
    (Rule::Signalled, |b| b.notification().flags = 1),
    (Rule::ProcessState, |b| b.process().state = ProcessState::Dying),
    (Rule::ProcessNumber, |b| b.process().number = 1 << 40),
    (Rule::JobMembers, |b| {
        let job = b.process().job;
        b.w.k.jobs.get_mut(job).unwrap().members = 0;
    }),
    (Rule::ReapList, |b| {
        b.w.k.reap = Some(b.owner.process);
        b.w.k.attention |= Attention::REAP;
    }),
    (Rule::Verifying, |b| {
        b.w.k.leave_wait(b.caller.thread);
        b.thread(b.caller).state = ThreadState::Verifying;
    }),
    (Rule::Attention, |b| b.w.k.doomed.push(b.owner.process)),
];

/// The damage is seen as this rule's, and not only in passing: without it all rules hold.
#[track_caller]
fn noticed(rule: Rule, what: &str, damage: &Damage) {
    let mut b = busy();
    b.w.sound();
    damage(&mut b);
    let found = b.w.k.check_invariants(&mut b.w.m);
    assert_eq!(found.map_err(|broken| broken.rule), Err(rule), "{what}");
}

#[test]
fn a_busy_kernel_is_sound() {
    let mut b = busy();
    b.w.sound();
    assert!(matches!(b.w.state(b.sender), ThreadState::Sending { .. }));
    assert_eq!(b.w.state(b.caller), ThreadState::AwaitingReply);
    assert!(matches!(b.w.state(b.waiter), ThreadState::Waiting { .. }));
}

/// A service with an open Handover, an unanswered call in deposit, and a Journal.
fn handed() -> Rig {
    let mut rig = Rig::new(1);
    let v1 = rig.v1[0];
    rig.call(0, 1);
    assert_eq!(rig.receive(v1, 20).status(), Ok(()));
    rig.w.invoke(v1, handover::H, Op::HandoverDeposit, &[0, 20]).unwrap();
    rig.w.invoke(v1, POOL, Op::RegionCreate, &[1, 40]).unwrap();
    rig.w.invoke(v1, POOL, Op::JournalCreate, &[40, 41]).unwrap();
    rig
}

fn the_handover(rig: &mut Rig) -> &mut Handover {
    let id = rig.w.k.handovers.iter().next().unwrap().0;
    rig.w.k.handovers.get_mut(id).unwrap()
}

/// As [`DAMAGES`], to a Handover, a Journal and a budget.
const HANDED: &[(Rule, RigDamage)] = &[
    (Rule::Handover, |rig| the_handover(rig).managers += 1),
    (Rule::Deposit, |rig| the_handover(rig).deposits[0] = u8::MAX),
    (Rule::Gate, |rig| {
        let from = rig.v1[0].process;
        let id = the_handover(rig).services[0].unwrap().endpoint;
        rig.w.k.endpoints.get_mut(id).unwrap().shut = Some(from);
    }),
    (Rule::Retired, |rig| {
        let process = rig.v1[0].process;
        rig.w.k.processes.get_mut(process).unwrap().retired = true;
    }),
    (Rule::Journal, |rig| {
        let id = rig.w.k.journals.iter().next().unwrap().0;
        rig.w.k.journals.get_mut(id).unwrap().records = 1 << 20;
    }),
    (Rule::Budget, |rig| {
        let process = rig.v1[0].process;
        rig.w.k.processes.get_mut(process).unwrap().budget.amount = 1;
    }),
    (Rule::Cached, |rig| rig.w.k.cache.frames += 1),
];

#[test]
fn every_rule_notices_what_breaks_it() {
    for (rule, damage) in DAMAGES {
        noticed(*rule, "alone", damage);
    }
    for (rule, damage) in HANDED {
        let mut rig = handed();
        rig.w.sound();
        damage(&mut rig);
        let found = rig.w.k.check_invariants(&mut rig.w.m);
        assert_eq!(found.map_err(|broken| broken.rule), Err(*rule));
    }
    let mut covered: Vec<Rule> = DAMAGES.iter().map(|(rule, _)| *rule).collect();
    covered.extend(HANDED.iter().map(|(rule, _)| *rule));
    assert_eq!(covered, Rule::ALL, "each rule has its damage, in order");
}

/// Damage to what rules hold together, beyond the one kind that each is tried with above.
const MORE: &[(&str, Rule, Damage)] = &[
    ("a ring of capabilities", Rule::CapTree, |b| {
        let pool = b.object(16);
        let reference = reference::<Pool>(ObjectType::Pool, pool);
        b.w.give(b.owner, Slot(30), reference, Rights::READ);
        b.w.give(b.owner, Slot(31), reference, Rights::READ);
        // Two roots, first and second in the anchor's chain, leave it for a ring of their own.
        let [x, y] = [30, 31].map(|slot| b.place(slot));
        for at in [x, y] {
            let cap = b.w.k.caps.remove(at);
            b.w.k.caps.damage_cap(at, |place| *place = cap);
            b.w.k.caps.damage_live();
        }
        b.w.k.caps.damage_by_a_ring(x, y);
    }),
    ("two Replies to one call", Rule::Reply, |b| {
        let reply = b.w.k.find(b.owner.process, Slot(20)).unwrap().cap;
        let at = b.w.k.free_slot(b.owner.process, Slot(21)).unwrap();
        assert!(b.w.k.caps.insert_reply(at, reply));
    }),
    ("a badge that the parent does not have", Rule::CapShrinks, |b| {
        let at = b.w.k.find(b.caller.process, Slot(10)).unwrap().id;
        b.w.invoke(b.owner, Slot(10), Op::CapMint, &[30, Rights::all().bits().into(), 3]).unwrap_err();
        b.w.k.caps.damage_cap(at, |cap| cap.as_mut().unwrap().rights |= Rights::COPY);
        let free = b.w.k.free_slot(b.owner.process, Slot(30)).unwrap();
        let cap = b.w.k.caps.get(at).unwrap();
        b.w.k.derive(at, free, Cap { badge: 8, rights: Rights::SEND, ..cap });
    }),
    ("one frame in two Regions", Rule::FrameOwner, |b| {
        let Backing::Inline(mut frames) = b.region(12).backing else { panic!() };
        frames[1] = frames[0];
        b.region(12).backing = Backing::Inline(frames);
    }),
    ("a writable page of a read-only mapping", Rule::MappingPages, |b| *b.page(0x90_0000) |= 2),
    ("a table that is free", Rule::FrameOwner, |b| {
        let root = b.process().roots.unwrap().kernel;
        b.w.m.frame(root)[100] = 10 << 12 | 7;
    }),
    ("a timer that nobody waits for", Rule::Timers, |b| {
        b.w.k.timers.set(Alarm::Thread(b.owner.thread.index()), 1 << 60);
    }),
    ("a deadline without a timer", Rule::Timers, |b| {
        b.w.k.timers.cancel(Alarm::Thread(b.sender.thread.index()));
    }),
    ("hardware that is set for too late", Rule::Timers, |b| b.w.k.armed = u64::MAX),
    ("a Pool beyond its quota", Rule::PoolLimit, |b| {
        let own = b.process().pool;
        let pool = b.w.k.pools.get_mut(own).unwrap();
        pool.frames = Quota { limit: pool.frames.used - 1, ..pool.frames };
        // What the parent gave is less then, too.
        let root = b.w.k.root_pool;
        let given = b.w.k.pools.get(own).unwrap().frames.limit;
        b.w.k.pools.get_mut(root).unwrap().frames.used -= 200 - given;
    }),
    ("a sealed image that is written", Rule::RegionState, |b| {
        b.region(12).sealed = sila_crypto::SecureBool::ALLOW
    }),
    ("a labelled endpoint of another service", Rule::Receiver, |b| {
        let name = Name::new("other").unwrap();
        b.endpoint().label = Some(Label { publisher: name, name });
    }),
    ("a reply slot of another process", Rule::ThreadShape, |b| {
        let other = b.w.k.find(b.caller.process, Slot(10)).unwrap().id;
        b.thread(b.owner).reply_at = other;
    }),
    ("the roots of another process", Rule::ThreadShape, |b| b.thread(b.owner).context.root ^= 4096),
    ("a Region that its record alone calls dead", Rule::RegionReaped, |b| b.region(12).dead = true),
    ("an address space without owner", Rule::ProcessState, |b| b.process().roots = None),
];

#[test]
fn rules_notice_finer_damage() {
    for (what, rule, damage) in MORE {
        noticed(*rule, what, damage);
    }
}

#[test]
fn the_book_explains_every_rule() {
    let page = include_str!("../../../docs/invariants.md");
    for rule in Rule::ALL {
        let row = std::format!("| {} | `{rule:?}` | {} |", *rule as u8, rule.text());
        assert!(page.contains(&row), "docs/invariants.md lacks the row\n{row}");
    }
}
