//! Makes up orders: operations of the ABI table with arguments that fit, that nearly fit, and that fit nothing.

use sila_abi::ops::{Arg, OpInfo, TABLE};
use sila_abi::protocol::layout::SLOTS_END;
use sila_abi::syscall::{Call, FOREVER, MAX_CAPS, MAX_WORDS, NO_WAIT, Receive, Slot, Tag, pack_caps};
use sila_abi::{ObjectType, Op, Rights};

use crate::order::{Act, Order, TAIL};
use crate::random::Random;
use crate::{CEILING, DAMAGED, IMAGE_SLOT, PROOF_SLOT, RECORD, SANDBOX};

/// A capability that a worker holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Held {
    /// Its slot.
    pub slot: u16,
    /// The object's type, by number.
    pub kind: u8,
    /// The rights.
    pub rights: Rights,
}

/// What is known of the worker whose order is made up.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Its capabilities, not long ago.
    pub caps: &'a [Held],
    /// Nanoseconds since boot.
    pub now: u64,
    /// Code that a thread may be started at.
    pub entry: u64,
    /// Memory of its own, for stacks and pointers.
    pub stacks: u64,
    /// Numbers of processes.
    pub processes: &'a [u64],
    /// Bytes of the record in [`RECORD`].
    pub record: u64,
}

/// Bytes of a stack, and how many there are.
pub const STACK: (u64, u64) = (1024, 32);
/// A deadline that is soon.
pub const SOON: u64 = 200_000;
/// What a time from now on is counted from until it is known when now is: what is made up follows from the seed alone.
const NOW: u64 = 1 << 62;
/// Odd times up to this one stand for one that has passed; it may or may not have when the first order is made up.
const PAST: u64 = 1 << 32;
/// Where Regions are mapped.
const MAPS: u64 = 0x0000_1000_0000_0000;

/// An order.
pub fn order(r: &mut Random, v: &View<'_>) -> Order {
    let mut order = match r.below(1000) {
        0..620 => operation(r, v),
        620..840 => message(r, v),
        840..940 => damaged(r, v),
        940..990 => garbage(r, v),
        _ => rare(r, v),
    };
    if ends_the_run(&order) {
        // There is no capability in slot 0.
        order.registers[1] = 0;
    }
    let times = TIMES.map(|at| is_time(&order, at).then_some(at));
    for at in times.into_iter().flatten() {
        let Some(time) = order.registers.get_mut(at) else { continue };
        *time = match *time {
            NOW..=UNTIL => v.now + (*time - NOW),
            // When these come depends on how long the machine took to start, and on nothing that a seed decides.
            0 => 0,
            1..=PAST => 1,
            other => other.max(NEVER),
        };
    }
    order
}

/// What nobody may do but the driver, whoever has the capability for it.
fn ends_the_run(order: &Order) -> bool {
    let tag = order.tag();
    let op = Op::from_number(tag.label()).filter(|_| tag.call() == Call::Invoke as u8);
    matches!(op, Some(Op::SystemPowerOff | Op::SystemReleaseSerial))
}

/// Registers that may hold a time.
const TIMES: [usize; 3] = [2, 3, 9];
/// The last time that is soon.
const UNTIL: u64 = NOW + SOON;
/// A time that no run sees.
const NEVER: u64 = u64::MAX - 1;

fn is_time(order: &Order, at: usize) -> bool {
    let tag = order.tag();
    let op = Op::from_number(tag.label()).filter(|_| tag.call() == Call::Invoke as u8);
    match at {
        2 => op == Some(Op::NotificationAlarm),
        3 => op == Some(Op::HandoverCreate),
        _ => op.is_none(),
    }
}

/// An order of which some registers are odd.
fn damaged(r: &mut Random, v: &View<'_>) -> Order {
    let mut order = if r.once_in(3) { message(r, v) } else { operation(r, v) };
    for _ in 0..=r.below(2) {
        let (at, word) = (r.below(11) as usize, odd(r, v));
        if let Some(register) = order.registers.get_mut(at) {
            *register = match at {
                0 => *register ^ 1 << r.below(64),
                _ => word,
            };
        }
    }
    order
}

/// An order of which nothing is meant.
fn garbage(r: &mut Random, v: &View<'_>) -> Order {
    let registers = core::array::from_fn(|_| odd(r, v));
    let mut order = Order { act: Act::Call, registers, tail: [0; TAIL], fill: r.draw() };
    if r.once_in(2) {
        // At least the kernel looks beyond the tag.
        let call = Call::ALL.get(r.below(Call::ALL.len() as u64) as usize).copied().unwrap_or(Call::Yield);
        let call = if matches!(call, Call::Exit | Call::ExitThread) { Call::Invoke } else { call };
        order.registers = core::array::from_fn(|i| match i {
            0 => Tag::new(call, r.below(8) as u8, r.below(5) as u8, r.below(150) as u32).0,
            1 => r.below(1100),
            9 => NO_WAIT,
            _ => odd(r, v),
        });
    }
    let ends = matches!(Call::from_number(order.tag().call()), Some(Call::Exit | Call::ExitThread));
    if ends {
        order.registers = [0xff; 11];
    }
    order
}

/// What ends a thread or a process now and then.
fn rare(r: &mut Random, v: &View<'_>) -> Order {
    let call = |call| Order::call(Tag::new(call, 1, 0, 0), 0, [7, 0, 0, 0, 0, 0]);
    let touch =
        |act, address| Order { act, registers: [0, address, 0, 0, 0, 0, 0, 0, 0, 0, 0], ..call(Call::Yield) };
    match r.below(100) {
        0..5 => call(Call::Exit),
        5..10 => call(Call::ExitThread),
        10..14 => touch(Act::Read, odd(r, v)),
        14..18 => touch(Act::Write, MAPS + r.below(4096) * 4096),
        18..22 => touch(Act::Undefined, 0),
        _ => call(Call::Yield),
    }
}

/// A word at some edge.
pub fn odd(r: &mut Random, v: &View<'_>) -> u64 {
    const EDGES: [u64; 26] = [
        0,
        1,
        2,
        63,
        64,
        65,
        255,
        256,
        1023,
        1024,
        4095,
        4096,
        0xffff,
        0x1_0000,
        0x7fff_ffff,
        0xffff_ffff,
        0x1_0000_0000,
        0x10_0000,
        0x0000_7fff_ffff_e000,
        0x0000_7fff_ffff_f000,
        0x0000_8000_0000_0000,
        0xffff_7fff_ffff_ffff,
        0xffff_8000_0000_0000,
        0xffff_ffff_8000_0000,
        0x7fff_ffff_ffff_ffff,
        u64::MAX,
    ];
    match r.below(8) {
        0..4 => r.pick(&EDGES).copied().unwrap_or(0),
        4 => v.stacks + r.below(STACK.0 * STACK.1),
        5 => r.below(64),
        6 => 0xffff_8000_0000_0000 | r.draw() >> 20,
        _ => r.draw(),
    }
}

/// A slot with a capability of this type and these rights; mostly.
fn slot_of(r: &mut Random, v: &View<'_>, kind: Option<ObjectType>, rights: Rights) -> Option<u16> {
    let fits = |held: &&Held| kind.is_none_or(|kind| held.kind == kind as u8) && held.rights.contains(rights);
    let count = v.caps.iter().filter(fits).count() as u64;
    let at = r.below(count) as usize;
    v.caps.iter().filter(fits).nth(at).map(|held| held.slot)
}

fn any_slot(r: &mut Random, v: &View<'_>) -> u64 {
    let held = r.pick(v.caps).map_or(0, |held| held.slot.into());
    if r.once_in(4) { r.below(SLOTS_END.into()) } else { held }
}

/// A slot that is free, mostly: near the others, or in a chunk of its own.
fn free_slot(r: &mut Random, v: &View<'_>) -> u64 {
    for _ in 0..4 {
        let slot = if r.once_in(12) { 64 + r.below(960) } else { 100 + r.below(220) };
        if !v.caps.iter().any(|held| u64::from(held.slot) == slot) {
            return slot;
        }
    }
    r.below(SLOTS_END.into())
}

/// How rarely an operation is chosen: once in so many times that it comes up.
fn rarity(op: Op) -> u64 {
    match op {
        // It takes a while.
        Op::ProcessCreate | Op::ModuleCacheInsert => 8,
        Op::TestAudit | Op::TestInvariants | Op::SystemAudit => 40,
        Op::ProcessTerminate | Op::ThreadTerminate => 12,
        Op::ThreadSuspend | Op::TestHoldVerification | Op::CapRevoke => 3,
        _ => 1,
    }
}

/// An operation whose arguments fit, as far as is known.
fn operation(r: &mut Random, v: &View<'_>) -> Order {
    for _ in 0..6 {
        let Some(row) = r.pick(TABLE) else { break };
        let rare = rarity(row.op);
        if rare > 1 && !r.once_in(rare) {
            continue;
        }
        if let Some(slot) = slot_of(r, v, row.object, row.rights) {
            return on(r, v, row, slot);
        }
    }
    // Of the wrong type, or without the right.
    let Some(row) = r.pick(TABLE) else { return garbage(r, v) };
    let slot = any_slot(r, v) as u16;
    on(r, v, row, slot)
}

fn on(r: &mut Random, v: &View<'_>, row: &OpInfo, slot: u16) -> Order {
    let mut words = [0; 6];
    for (at, (_, kind)) in row.args.iter().enumerate() {
        let word = match kind {
            Arg::Dst => free_slot(r, v),
            Arg::Cap(kind, rights) => {
                let fits = slot_of(r, v, Some(*kind), *rights).map(u64::from);
                fits.unwrap_or_else(|| any_slot(r, v))
            }
            Arg::Word => plain(r, v, row.op, at, slot),
        };
        if let Some(to) = words.get_mut(at) {
            *to = if r.once_in(60) { odd(r, v) } else { word };
        }
    }
    let mut order = Order::invoke(slot.into(), row.op, words);
    special(r, v, row.op, &mut order);
    order
}

/// A plain word that means something to an operation.
fn plain(r: &mut Random, v: &View<'_>, op: Op, at: usize, slot: u16) -> u64 {
    let rights = v.caps.iter().find(|held| held.slot == slot).map_or(0, |held| held.rights.bits().into());
    match (op, at) {
        (Op::CapCopy | Op::CapMint, 1) if r.once_in(3) => rights & r.draw(),
        (Op::CapCopy | Op::CapMint, 1) => rights,
        (Op::CapMint, 2) => r.below(9),
        // The whole of every period: what a worker may use decides nothing about when its calls are made.
        (Op::ProcessSetBudget, 0 | 1) => 1_000_000,
        (Op::PoolCreate, 0) => r.below(60),
        (Op::PoolCreate, 1) => r.below(20_000),
        (Op::RegionCreate, 0) if r.once_in(20) => r.below(1500),
        (Op::RegionCreate, 0) => 1 + r.below(12),
        (Op::EndpointCreate, 0) => r.below(4),
        (Op::EndpointCreate, 1) => r.below(CEILING + 4),
        (Op::RegionMap, 1) if r.once_in(10) => MAPS + (r.below(64) << 30),
        (Op::RegionMap, 1) => MAPS + r.below(4096) * 4096,
        (Op::RegionMap, 2) => r.below(3),
        (Op::RegionMap, 3) => 1 + r.below(4),
        (Op::RegionMap, 4) => r.below(2),
        (Op::NotificationAlarm, 0) => match r.below(3) {
            0 => u64::MAX,
            1 => NOW + r.below(SOON),
            _ => r.below(2),
        },
        (Op::ProcessCreate, 3) | (Op::ProcessCreateCached, 2) => r.below(CEILING + 2),
        (Op::ProcessCreateCached, 3) => 0,
        (Op::ThreadCreate, 0) if r.once_in(12) => odd(r, v),
        (Op::ThreadCreate, 0) => v.entry,
        (Op::ThreadCreate, 1) if r.once_in(20) => odd(r, v),
        (Op::ThreadCreate, 1) => v.stacks + STACK.0 * (1 + r.below(STACK.1)) - 8,
        (Op::ThreadCreate, 2) => any_slot(r, v),
        (Op::ThreadCreate | Op::ThreadSetPriority, 3 | 0) => r.below(CEILING + 2),
        (Op::ThreadCreate, 4) if r.once_in(2) => 0,
        (Op::ThreadCreate, 4) => MAPS + (r.below(64) << 30) + (1 << 29),
        (Op::KeyRingInstall, 1) => v.record,
        (Op::KeyRingKey | Op::KeyRingCertificate, 1) => r.below(400),
        (Op::PolicyRead, 0) => r.below(200),
        (Op::KeyRingRevocation | Op::KeyRingFloor, 0) => r.below(3),
        (Op::PortRead | Op::PortWrite, 0) => r.below(8),
        (Op::PortRead | Op::PortWrite, 1) => 1 << r.below(3),
        (Op::PortWrite, 2) => r.below(256),
        (Op::SystemCapability | Op::JobAdopt, 0) => r.pick(v.processes).copied().unwrap_or(0),
        (Op::TestFailAllocation, 0) => r.below(8),
        (Op::TestHoldVerification, 0) => u64::from(r.once_in(4)),
        (Op::HandoverCreate, 1) if r.once_in(4) => NOW + r.below(SOON),
        (Op::HandoverCreate, 1) => FOREVER,
        (Op::HandoverDeposit, 1) => any_slot(r, v),
        (Op::HandoverCommit, 0) => 1 + r.below(3),
        (Op::HandoverClose, 0) => 1 + r.below(3),
        (Op::JournalAppend, 2) => r.below(20) | r.below(20) << 8,
        (Op::TestPhysical, 1) => 0,
        _ => r.below(5),
    }
}

/// What operations need that are more than their registers, or in certain slots.
fn special(r: &mut Random, v: &View<'_>, op: Op, order: &mut Order) {
    order.fill = r.draw();
    let [_, _, w0, w1, w2, _, w4, ..] = &mut order.registers;
    match op {
        Op::ProcessCreate => {
            *w0 = IMAGE_SLOT.into();
            *w1 = if r.once_in(4) { DAMAGED } else { PROOF_SLOT }.into();
            *w2 = SANDBOX.into();
            let count = r.below(3);
            *w4 = count;
            order.tail = core::array::from_fn(|_| r.below(20) << 16 | any_slot(r, v));
            order.registers[0] = Tag::new(Call::Invoke, 6 + count as u8, 0, op as u32).0;
        }
        Op::KeyRingInstall => *w0 = RECORD.into(),
        _ => {}
    }
}

/// A message, or a receive.
fn message(r: &mut Random, v: &View<'_>) -> Order {
    let call = match r.below(100) {
        0..30 => Call::Send,
        30..58 => Call::Recv,
        58..75 => Call::Call,
        75..90 => Call::Reply,
        _ => Call::ReplyRecv,
    };
    let (kind, right) = match call {
        Call::Reply => (ObjectType::Reply, Rights::empty()),
        Call::Recv if r.once_in(3) => (ObjectType::Notification, Rights::RECV),
        Call::Recv | Call::ReplyRecv => (ObjectType::Endpoint, Rights::RECV),
        _ => (ObjectType::Endpoint, Rights::SEND),
    };
    let slot = slot_of(r, v, Some(kind), right).map_or_else(|| any_slot(r, v), u64::from);
    let length = if r.once_in(3) { r.below(MAX_WORDS as u64 + 2) } else { r.below(7) };
    let count = if r.once_in(3) { r.below(MAX_CAPS as u64 + 1) } else { 0 };
    let caps = core::array::from_fn(|_| {
        let copyable = slot_of(r, v, None, Rights::COPY).unwrap_or(0);
        Slot(if r.once_in(16) { any_slot(r, v) as u16 } else { copyable })
    });
    let reply = match slot_of(r, v, Some(ObjectType::Reply), Rights::empty()) {
        Some(slot) if call == Call::ReplyRecv => slot,
        _ => free_slot(r, v) as u16,
    };
    let reply = Slot(if r.once_in(10) { 0 } else { reply });
    let want = Receive { reply, base: Slot(free_slot(r, v) as u16), count: r.below(5) as u8 };
    let mut order = Order::call(
        Tag::new(call, length as u8, count as u8, r.draw() as u32),
        slot,
        // Word 0 of the answer to a fault lets the thread go on; the instruction is one that ends it.
        [r.below(2), r.below(4), v.entry, v.stacks + STACK.0 - 8, odd(r, v), odd(r, v)],
    );
    order.registers[8] = want.to_word();
    order.registers[9] = match r.below(10) {
        0..5 => NO_WAIT,
        5..8 => FOREVER,
        _ => NOW + r.below(SOON),
    };
    order.registers[10] = pack_caps(caps);
    order.fill = r.draw();
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn caps() -> Vec<Held> {
        let all = ObjectType::ALL.iter().zip(30..);
        all.map(|(kind, slot)| Held { slot, kind: *kind as u8, rights: Rights::USE }).collect()
    }

    fn view(caps: &[Held]) -> View<'_> {
        View { caps, now: 5, entry: 0x40_1000, stacks: 0x60_0000, processes: &[1, 2], record: 100 }
    }

    #[test]
    fn every_operation_comes_up_and_every_system_call() {
        let caps = caps();
        let mut r = Random::new(3);
        let (mut ops, mut calls) = (BTreeSet::new(), BTreeSet::new());
        for _ in 0..200_000 {
            let order = order(&mut r, &view(&caps));
            if let Some(call) = Call::from_number(order.tag().call()) {
                calls.insert(call as u8);
                if call == Call::Invoke && order.act == Act::Call {
                    ops.extend(Op::from_number(order.tag().label()));
                }
            }
        }
        let missing: Vec<_> = TABLE.iter().filter(|row| !ops.contains(&row.op)).map(|row| row.name).collect();
        assert!(missing.is_empty(), "{missing:?}");
        assert_eq!(calls.len(), Call::ALL.len());
    }

    #[test]
    fn orders_follow_from_the_seed() {
        let caps = caps();
        let orders = |seed| {
            let mut r = Random::new(seed);
            (0..500).map(|_| order(&mut r, &view(&caps))).collect::<Vec<_>>()
        };
        assert_eq!(orders(1), orders(1));
        assert_ne!(orders(1), orders(2));
    }

    #[test]
    fn no_order_names_a_time_that_comes_later_in_the_run() {
        let caps = caps();
        let mut r = Random::new(5);
        let mut soon = 0;
        for _ in 0..100_000 {
            let order = order(&mut r, &view(&caps));
            for at in TIMES.into_iter().filter(|at| is_time(&order, *at)) {
                let time = order.registers[at];
                assert!(time <= 5 + SOON || time >= NEVER, "{order:?}");
                soon += u64::from(time > 5 && time <= 5 + SOON);
            }
        }
        assert!(soon > 100);
    }

    #[test]
    fn no_order_ends_the_run() {
        let caps = caps();
        let mut r = Random::new(6);
        let orders = (0..200_000).map(|_| order(&mut r, &view(&caps)));
        let ends: Vec<_> = orders.filter(ends_the_run).collect();
        assert!(!ends.is_empty() && ends.iter().all(|order| order.registers[1] == 0));
    }

    #[test]
    fn nothing_held_is_no_reason_to_stop() {
        let mut r = Random::new(9);
        (0..10_000).for_each(|_| {
            order(&mut r, &view(&[]));
        });
    }
}
