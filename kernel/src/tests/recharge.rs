//! Recharging: what an object costs moves from Pool to Pool, whole or not at all.

use super::*;

/// A process with three Pools of its own making: one with room, one without frames, one without bytes.
fn rig(w: &mut World) -> Actor {
    let a = w.actor(50);
    for (slot, frames, bytes) in [(20, 40, 60_000), (21, 0, 60_000), (22, 40, 100)] {
        let pool = w.k.split_pool(w.k.root_pool, frames, bytes).unwrap();
        w.give(a, Slot(slot), reference(ObjectType::Pool, pool), Rights::USE);
    }
    a
}

fn used(w: &mut World, a: Actor, slot: u16) -> (u64, u64) {
    let [_, frames, _, bytes, ..] = w.invoke(a, Slot(slot), Op::PoolStatus, &[]).unwrap();
    (frames, bytes)
}

#[test]
fn each_kind_moves_exactly_what_it_costs_and_back() {
    let mut w = World::new();
    let a = rig(&mut w);
    let job = w.k.jobs.iter().next().unwrap().0;
    w.give(a, Slot(36), reference(ObjectType::Job, job), Rights::USE);
    w.invoke(a, POOL, Op::RegionCreate, &[20, 30]).unwrap();
    w.invoke(a, POOL, Op::EndpointCreate, &[0, 0, 31]).unwrap();
    w.invoke(a, POOL, Op::NotificationCreate, &[32]).unwrap();
    let other = w.k.split_pool(w.k.root_pool, 40, 60_000).unwrap();
    w.give(a, Slot(23), reference(ObjectType::Pool, other), Rights::USE);
    w.invoke(a, Slot(23), Op::HandoverCreate, &[36, u64::MAX, 33]).unwrap();
    w.invoke(a, Slot(23), Op::RegionCreate, &[10, 34]).unwrap();
    w.invoke(a, Slot(23), Op::JournalCreate, &[34, 35]).unwrap();
    let costs = [
        (30, 22, cost::<Region>()),
        (31, 0, cost::<Endpoint>()),
        (32, 0, cost::<Notification>()),
        (33, 0, cost::<crate::handover::Handover>()),
        (35, 12, cost::<Region>() + cost::<crate::journal::Journal>()),
        (36, 0, cost::<Job>()),
    ];
    for (slot, frames, bytes) in costs {
        let (empty, before) = (used(&mut w, a, 20), w.baseline());
        let total = |w: &World| (w.baseline()[0], w.baseline()[3], w.baseline()[4]);
        let (whole, charge) =
            (total(&w), |w: &mut World, pool| w.invoke(a, Slot(slot), Op::ChargeTransfer, &[pool]));
        if frames > 0 {
            assert_eq!(charge(&mut w, 21), Err(Error::OutOfFrames));
        }
        assert_eq!(charge(&mut w, 22), Err(Error::OutOfObjectBytes));
        assert_eq!(w.baseline(), before, "slot {slot}");
        charge(&mut w, 20).unwrap();
        let full = used(&mut w, a, 20);
        assert_eq!((full.0 - empty.0, full.1 - empty.1), (frames, bytes), "slot {slot}");
        assert_eq!(total(&w), whole);
        charge(&mut w, 20).unwrap();
        assert_eq!(used(&mut w, a, 20), full, "to the same Pool: nothing moves");
        charge(&mut w, 23).unwrap();
        assert_eq!(used(&mut w, a, 20), empty);
    }
}

#[test]
fn parts_of_a_process_and_pools_stay_where_they_are() {
    let mut w = World::new();
    let a = rig(&mut w);
    w.invoke(a, POOL, Op::RegionCreate, &[1, 30]).unwrap();
    w.invoke(a, Slot(30), Op::RegionMap, &[PROCESS.0.into(), 0x80_0000, 0, 1, 1, 31]).unwrap();
    w.give(a, Slot(32), reference(ObjectType::Thread, a.thread), Rights::MANAGE);
    for slot in [PROCESS.0, POOL.0, 31, 32] {
        let before = w.baseline();
        let got = w.invoke(a, Slot(slot), Op::ChargeTransfer, &[20]);
        assert_eq!(got, Err(Error::NotTransferable), "slot {slot}");
        assert_eq!(w.baseline(), before);
    }
}

#[test]
fn an_object_outlives_the_pool_of_its_maker() {
    let mut w = World::new();
    let keeper = rig(&mut w);
    let before = w.baseline();
    let maker = w.actor(50);
    w.invoke(maker, POOL, Op::EndpointCreate, &[1, 0, 31]).unwrap();
    w.share(maker, Slot(31), keeper, Slot(31), Rights::USE, 0);
    w.invoke(keeper, Slot(31), Op::ChargeTransfer, &[20]).unwrap();
    w.k.begin_end(&mut w.m, maker.process, Exit::default());
    w.settle();
    let call = w.message(keeper, Call::Send, Slot(31), Say { deadline: 0, ..Default::default() });
    assert_eq!(call.status(), Err(Error::Timeout), "it is there and has no receiver");
    w.invoke(keeper, Slot(31), Op::CapDelete, &[]).unwrap();
    assert_eq!(w.baseline(), before);
}

#[test]
fn what_a_dying_pool_paid_can_still_be_moved() {
    let mut w = World::new();
    let keeper = rig(&mut w);
    let before = w.baseline();
    let maker = w.actor(50);
    w.invoke(maker, POOL, Op::RegionCreate, &[9, 31]).unwrap();
    w.share(maker, Slot(31), keeper, Slot(31), Rights::USE, 0);
    w.k.begin_end(&mut w.m, maker.process, Exit::default());
    w.settle();
    assert!(w.k.pools.live() > 5, "the dead maker's Pool still pays");
    w.invoke(keeper, Slot(31), Op::ChargeTransfer, &[20]).unwrap();
    assert_eq!(used(&mut w, keeper, 20), (11, cost::<Region>()));
    w.invoke(keeper, Slot(31), Op::CapDelete, &[]).unwrap();
    w.settle();
    assert_eq!(w.baseline(), before);
}
