//! Capability operations and the checks of the ABI table.

use super::trust::Trust;
use super::*;
use sila_abi::ops::{Arg, TABLE};

#[test]
fn copy_mint_move_delete_follow_the_rules() {
    let mut w = World::new();
    let a = w.actor(50);
    w.invoke(a, POOL, Op::EndpointCreate, &[0, 0, 10]).unwrap();
    let e = Slot(10);
    let (send, copy) = (Rights::SEND.bits() as u64, Rights::COPY.bits() as u64);
    w.invoke(a, e, Op::CapMint, &[11, send | copy, 5]).unwrap();
    assert_eq!(w.invoke(a, Slot(11), Op::CapStatus, &[]).unwrap()[..3], [4, send | copy, 5]);
    assert_eq!(w.invoke(a, Slot(11), Op::CapMint, &[12, send, 6]), Err(Error::AlreadyBadged));
    let more = Rights::RECV.bits() as u64;
    assert_eq!(w.invoke(a, Slot(11), Op::CapCopy, &[12, more]), Err(Error::MissingRight));
    assert_eq!(w.invoke(a, Slot(11), Op::CapCopy, &[12, 1 << 12]), Err(Error::InvalidArgument));
    assert_eq!(w.invoke(a, Slot(11), Op::CapCopy, &[10, send]), Err(Error::SlotOccupied));
    assert_eq!(w.invoke(a, Slot(11), Op::CapCopy, &[0, send]), Err(Error::SlotOutOfRange));
    assert_eq!(w.invoke(a, Slot(11), Op::CapCopy, &[1024, send]), Err(Error::SlotOutOfRange));
    w.invoke(a, Slot(11), Op::CapCopy, &[12, send]).unwrap();
    assert_eq!(w.invoke(a, Slot(12), Op::CapCopy, &[13, send]), Err(Error::NotCopyable));
    w.invoke(a, Slot(12), Op::CapMove, &[13]).unwrap();
    assert_eq!(w.invoke(a, Slot(12), Op::CapStatus, &[]), Err(Error::NoCapability));
    w.invoke(a, e, Op::CapRevoke, &[]).unwrap();
    for slot in [11, 13] {
        assert_eq!(w.invoke(a, Slot(slot), Op::CapStatus, &[]), Err(Error::NoCapability));
    }
    assert!(w.invoke(a, e, Op::CapStatus, &[]).is_ok());
}

#[test]
fn deleting_a_capability_hands_its_children_to_its_parent() {
    let mut w = World::new();
    let a = w.actor(50);
    let b = w.actor(40);
    w.invoke(a, POOL, Op::EndpointCreate, &[0, 0, 10]).unwrap();
    w.share(a, Slot(10), b, Slot(10), Rights::SEND | Rights::COPY, 0);
    w.invoke(b, Slot(10), Op::CapCopy, &[11, Rights::SEND.bits() as u64]).unwrap();
    w.invoke(b, Slot(10), Op::CapDelete, &[]).unwrap();
    assert!(w.k.find(b.process, Slot(11)).is_ok());
    w.invoke(a, Slot(10), Op::CapRevoke, &[]).unwrap();
    assert!(w.k.find(b.process, Slot(11)).is_err(), "revoke reaches what the deleted one derived");
}

#[test]
fn revoke_is_preempted_and_goes_on() {
    let mut w = World::new();
    let a = w.actor(50);
    w.invoke(a, POOL, Op::EndpointCreate, &[0, 0, 10]).unwrap();
    for slot in 64..128 {
        w.invoke(a, Slot(10), Op::CapCopy, &[slot, Rights::SEND.bits() as u64]).unwrap();
    }
    w.m.preempt_after = Some(0);
    let rip = w.k.threads.get(a.thread).unwrap().context.registers.rip;
    w.call(a, Tag::new(Call::Invoke, 0, 0, Op::CapRevoke as u32), |r| r.rdi = 10);
    assert_eq!(w.k.threads.get(a.thread).unwrap().context.registers.rip, rip.wrapping_sub(2));
    w.m.preempt_after = None;
    w.invoke(a, Slot(10), Op::CapRevoke, &[]).unwrap();
    assert!((64..128).all(|s| w.k.find(a.process, Slot(s)).is_err()));
}

/// An object of each type that a process can be given here, which holds a cached image already.
fn objects(w: &mut World, a: Actor) -> Vec<(ObjectType, crate::cap::ObjRef)> {
    w.invoke(a, POOL, Op::EndpointCreate, &[0, 0, 50]).unwrap();
    w.invoke(a, POOL, Op::NotificationCreate, &[51]).unwrap();
    w.invoke(a, POOL, Op::RegionCreate, &[1, 52]).unwrap();
    w.invoke(a, Slot(52), Op::RegionMap, &[PROCESS.0 as u64, 0x80_0000, 0, 1, 0, 53]).unwrap();
    let pool = w.k.split_pool(w.k.root_pool, 4, 60_000).unwrap();
    w.give(a, Slot(54), reference(ObjectType::Pool, pool), Rights::USE);
    let job = w.k.jobs.iter().next().unwrap().0;
    w.give(a, Slot(55), reference(ObjectType::Job, job), Rights::USE);
    w.invoke(a, Slot(54), Op::HandoverCreate, &[55, u64::MAX, 56]).unwrap();
    w.invoke(a, Slot(54), Op::RegionCreate, &[1, 57]).unwrap();
    w.invoke(a, Slot(54), Op::JournalCreate, &[57, 58]).unwrap();
    let mut found: Vec<_> =
        [PROCESS, POOL, Slot(50), Slot(51), Slot(52), Slot(53), Slot(55), Slot(56), Slot(58)]
            .into_iter()
            .map(|s| w.k.find(a.process, s).unwrap().cap.object)
            .collect();
    found.push(reference(ObjectType::Thread, a.thread));
    w.k.ports.push((0x3f8, 8));
    for kind in [
        ObjectType::KeyRing,
        ObjectType::Policy,
        ObjectType::IrqHandler,
        ObjectType::IoPorts,
        ObjectType::Clock,
        ObjectType::SystemControl,
        ObjectType::TestControl,
        ObjectType::ModuleCache,
    ] {
        found.push(crate::cap::ObjRef { kind, index: 0, generation: 1 });
    }
    found.push(w.k.find(a.process, super::cache::CACHED).unwrap().cap.object);
    // The Reply to a call that was answered.
    found.push(Cap::reply(a.thread.index(), 0, 0).object);
    found.into_iter().map(|o| (o.kind, o)).collect()
}

#[test]
fn every_operation_wants_its_type_its_right_and_a_usable_capability() {
    let Trust { mut w, a } = super::cache::with_image();
    let objects = objects(&mut w, a);
    let at = Slot(80);
    for row in TABLE {
        let Some((_, object)) = objects.iter().find(|(k, _)| row.object.is_none_or(|o| o == *k)).copied()
        else {
            panic!("no object for {}", row.name)
        };
        let args = [81u64; 6];
        if !row.rights.is_empty() {
            w.give(a, at, object, Rights::USE.difference(row.rights));
            let want = if row.rights == Rights::COPY { Error::NotCopyable } else { Error::MissingRight };
            assert_eq!(w.invoke(a, at, row.op, &args), Err(want), "{} without its right", row.name);
            w.invoke(a, at, Op::CapDelete, &[]).unwrap();
        }
        if !row.endow_ok {
            w.give(a, at, object, Rights::USE | Rights::ENDOW);
            assert_eq!(w.invoke(a, at, row.op, &args), Err(Error::EndowOnly), "{} endow-only", row.name);
            w.invoke(a, at, Op::CapDelete, &[]).unwrap();
        }
        for (kind, other) in objects.iter().filter(|(k, _)| row.object.is_some_and(|o| o != *k)) {
            w.give(a, at, *other, Rights::USE);
            assert_eq!(w.invoke(a, at, row.op, &args), Err(Error::WrongType), "{} on {kind:?}", row.name);
            w.invoke(a, at, Op::CapDelete, &[]).unwrap();
        }
        assert_eq!(w.invoke(a, at, row.op, &args), Err(Error::NoCapability), "{}", row.name);
    }
}

#[test]
fn capability_arguments_are_checked_by_type_and_right() {
    let Trust { mut w, a } = super::cache::with_image();
    let objects = objects(&mut w, a);
    let (at, arg) = (Slot(80), Slot(81));
    for row in TABLE {
        let Some((_, object)) = objects.iter().find(|(k, _)| row.object == Some(*k)).copied() else {
            continue;
        };
        for (i, (name, kind)) in row.args.iter().enumerate() {
            let Arg::Cap(kind, rights) = kind else { continue };
            // Everything before the argument under test is right.
            let mut words = [0u64; 6];
            for (j, (_, k)) in row.args.iter().enumerate().take(i) {
                if let Arg::Cap(k, _) = k {
                    let (_, o) = objects.iter().find(|(t, _)| t == k).copied().unwrap();
                    w.give(a, Slot(70 + j as u16), o, Rights::USE);
                    words[j] = 70 + j as u64;
                }
            }
            words[i] = arg.0 as u64;
            w.give(a, at, object, Rights::USE);
            assert_eq!(w.invoke(a, at, row.op, &words), Err(Error::NoCapability), "{} {name}", row.name);
            let (_, right) = objects.iter().find(|(k, _)| k == kind).copied().unwrap();
            let (_, wrong) = objects.iter().find(|(k, _)| k != kind).copied().unwrap();
            for (object, held, want) in [
                (wrong, Rights::USE, Error::WrongType),
                (right, Rights::USE.difference(*rights), Error::MissingRight),
                (right, Rights::USE | Rights::ENDOW, Error::EndowOnly),
            ] {
                w.give(a, arg, object, held);
                assert_eq!(w.invoke(a, at, row.op, &words), Err(want), "{} {name}", row.name);
                w.invoke(a, arg, Op::CapDelete, &[]).unwrap();
            }
            w.invoke(a, at, Op::CapDelete, &[]).unwrap();
            for j in 0..i {
                let _ = w.invoke(a, Slot(70 + j as u16), Op::CapDelete, &[]);
            }
        }
    }
}

#[test]
fn a_malformed_tag_or_number_is_refused() {
    let mut w = World::new();
    let a = w.actor(50);
    assert_eq!(w.call(a, Tag(1 << 20), |_| {}).status(), Err(Error::InvalidArgument));
    assert_eq!(w.call(a, Tag(250), |_| {}).status(), Err(Error::InvalidOperation));
    let tag = Tag::new(Call::Invoke, 0, 0, 9999);
    assert_eq!(w.call(a, tag, |r| r.rdi = 1).status(), Err(Error::InvalidOperation));
    let tag = Tag::new(Call::Invoke, 0, 0, Op::CapStatus as u32);
    assert_eq!(w.call(a, tag, |r| r.rdi = 1 << 16).status(), Err(Error::SlotOutOfRange));
}

#[test]
fn a_stale_capability_never_reaches_a_new_object() {
    let mut w = World::new();
    let a = w.actor(50);
    let b = w.actor(40);
    w.invoke(b, POOL, Op::EndpointCreate, &[0, 0, 10]).unwrap();
    w.share(b, Slot(10), a, Slot(10), Rights::SEND | Rights::MANAGE, 0);
    w.k.begin_end(&mut w.m, b.process, Exit { cause: 2, ..Exit::default() });
    w.settle();
    w.invoke(a, POOL, Op::EndpointCreate, &[0, 0, 11]).unwrap();
    let (old, new) = (w.k.find(a.process, Slot(10)).unwrap(), w.k.find(a.process, Slot(11)).unwrap());
    assert_eq!(old.cap.object.index, new.cap.object.index, "the slot was reused");
    assert_eq!(w.message(a, Call::Call, Slot(10), forever(0)).status(), Err(Error::ObjectGone));
    assert_eq!(w.invoke(a, Slot(10), Op::EndpointBind, &[1]), Err(Error::ObjectGone));
}

#[test]
fn a_failed_call_does_not_leave_a_grown_cspace() {
    let mut w = World::new();
    let a = w.actor(50);
    let before = w.invoke(a, POOL, Op::PoolStatus, &[]).unwrap();
    let all = w.baseline();
    assert_eq!(w.invoke(a, POOL, Op::RegionCreate, &[0, 300]), Err(Error::InvalidArgument));
    assert_eq!(w.invoke(a, POOL, Op::PoolCreate, &[1 << 40, 0, 500]), Err(Error::OutOfFrames));
    assert_eq!(w.invoke(a, POOL, Op::PoolStatus, &[]).unwrap(), before);
    assert_eq!(w.baseline(), all);
    w.invoke(a, POOL, Op::NotificationCreate, &[300]).unwrap();
    assert!(w.invoke(a, POOL, Op::PoolStatus, &[]).unwrap()[3] > before[3], "a call that succeeds keeps it");
}

/// The path for common calls must see that a Pool is dying, though it still pays for something.
#[test]
fn a_capability_to_a_dying_pool_is_not_copied() {
    let mut w = World::new();
    let a = w.actor(50);
    let b = w.actor(40);
    w.invoke(b, POOL, Op::PoolCreate, &[4, 3000, 10]).unwrap();
    w.invoke(b, Slot(10), Op::RegionCreate, &[1, 11]).unwrap();
    w.share(b, Slot(10), a, Slot(10), Rights::COPY | Rights::READ, 0);
    w.share(b, Slot(11), a, Slot(11), Rights::READ, 0);
    w.k.begin_end(&mut w.m, b.process, Exit::default());
    w.settle();
    let found = w.k.find(a.process, Slot(10)).unwrap();
    assert!(w.k.pools.get(crate::kernel::id_of(&found.cap)).is_some_and(|p| p.dying));
    for op in [Op::CapCopy, Op::CapMint] {
        let copied = w.invoke(a, Slot(10), op, &[12, Rights::READ.bits().into(), 1]);
        assert_eq!(copied, Err(Error::ObjectGone), "{op:?}");
    }
    w.invoke(a, Slot(10), Op::CapDelete, &[]).unwrap();
    w.invoke(a, Slot(11), Op::CapDelete, &[]).unwrap();
    w.settle();
    assert_eq!(w.k.pools.live(), 2, "with its last object the Pool goes");
}
