//! Processes and threads: their end returns everything.

use super::*;

#[test]
fn terminating_a_process_returns_every_frame_and_byte() {
    let mut w = World::new();
    let a = w.actor(50);
    w.invoke(a, POOL, Op::NotificationCreate, &[9]).unwrap();
    let before = w.baseline();
    let b = w.actor(40);
    w.invoke(b, POOL, Op::EndpointCreate, &[0, 0, 10]).unwrap();
    w.invoke(b, POOL, Op::RegionCreate, &[20, 200]).unwrap();
    w.invoke(b, Slot(200), Op::RegionMap, &[PROCESS.0 as u64, 0x80_0000, 0, 20, 1, 12]).unwrap();
    w.invoke(b, POOL, Op::PoolCreate, &[3, 300, 13]).unwrap();
    w.invoke(b, PROCESS, Op::ThreadCreate, &[0x10_0000, 0x20_0000, 0, 10, 0x50_0000, 14]).unwrap();
    w.share(b, Slot(10), a, Slot(30), Rights::SEND, 1);
    w.share(b, PROCESS, a, Slot(31), Rights::MANAGE | Rights::READ, 0);
    w.invoke(a, Slot(31), Op::ProcessWatch, &[9, 2]).unwrap();
    w.invoke(a, Slot(31), Op::ProcessTerminate, &[77]).unwrap();
    assert_eq!(w.invoke(a, Slot(31), Op::ProcessStatus, &[]).unwrap()[..3], [4, 2, 77]);
    assert_eq!(w.message(a, Call::Call, Slot(30), forever(0)).status(), Err(Error::ObjectGone));
    let o = w.message(a, Call::Recv, Slot(9), forever(0));
    assert!(o.is_flags() && w.words(a)[0] == 2);
    for slot in [30, 31] {
        w.invoke(a, Slot(slot), Op::CapDelete, &[]).unwrap();
    }
    w.settle();
    assert_eq!(w.baseline(), before);
}

#[test]
fn termination_restarts_when_preempted_and_ends_the_same() {
    let mut w = World::new();
    let a = w.actor(50);
    let before = w.baseline();
    let b = w.actor(40);
    w.share(b, PROCESS, a, Slot(31), Rights::MANAGE, 0);
    w.m.preempt_after = Some(0);
    let rip = w.k.threads.get(a.thread).unwrap().registers.rip;
    w.call(a, Tag::new(Call::Invoke, 1, 0, Op::ProcessTerminate as u32), |r| r.rdi = 31);
    assert_eq!(w.k.threads.get(a.thread).unwrap().registers.rip, rip.wrapping_sub(2));
    assert!(w.k.threads.get(b.thread).is_none(), "the commit stopped its threads");
    w.m.preempt_after = None;
    w.invoke(a, Slot(31), Op::ProcessTerminate, &[]).unwrap();
    w.invoke(a, Slot(31), Op::CapDelete, &[]).unwrap();
    w.settle();
    assert_eq!(w.baseline(), before);
}

#[test]
fn a_fault_ends_only_its_process_and_leaves_a_record() {
    let mut w = World::new();
    let a = w.actor(50);
    let b = w.actor(40);
    w.share(b, PROCESS, a, Slot(31), Rights::READ, 0);
    w.switch_to(b);
    w.k.enter(&mut w.m, Entry::Fault { vector: 14, error: 6, address: 0xdead_b000 });
    w.settle();
    let status = w.invoke(a, Slot(31), Op::ProcessStatus, &[]).unwrap();
    assert_eq!(status, [4, 3, 14, 0xdead_b000, 0x10_0000, 6]);
    assert!(w.k.threads.get(a.thread).is_some());
}

#[test]
fn threads_obey_ceiling_and_count() {
    let mut w = World::new();
    let a = w.actor(50);
    let create = |w: &mut World, priority: u64, page: u64, dst: u64| {
        w.invoke(a, PROCESS, Op::ThreadCreate, &[0x10_0000, 0x20_0000, 0, priority, page, dst])
    };
    assert_eq!(create(&mut w, 201, 0, 20), Err(Error::PriorityTooHigh));
    assert_eq!(create(&mut w, 256, 0, 20), Err(Error::InvalidArgument));
    assert_eq!(create(&mut w, 10, 0x40_0000, 20), Err(Error::AlreadyMapped));
    for dst in 20..23 {
        create(&mut w, 10, 0, dst).unwrap();
    }
    let before = w.baseline();
    assert_eq!(create(&mut w, 10, 0, 23), Err(Error::ArenaFull));
    assert_eq!(w.baseline(), before);
    w.invoke(a, Slot(20), Op::ThreadTerminate, &[]).unwrap();
    create(&mut w, 10, 0x60_0000, 24).unwrap();
}

#[test]
fn suspension_ends_a_wait_and_resumption_reports_it() {
    let mut w = World::new();
    let a = w.actor(50);
    let b = w.actor(40);
    w.give(a, Slot(30), reference(ObjectType::Thread, b.thread), Rights::MANAGE | Rights::READ);
    w.invoke(b, POOL, Op::NotificationCreate, &[12]).unwrap();
    w.message(b, Call::Recv, Slot(12), forever(0));
    w.invoke(a, Slot(30), Op::ThreadSuspend, &[]).unwrap();
    assert_eq!(w.state(b), ThreadState::Inactive);
    w.invoke(a, Slot(30), Op::ThreadResume, &[]).unwrap();
    assert_eq!(w.outcome(b).status(), Err(Error::Suspended));
}

#[test]
fn equals_take_turns_and_the_highest_runs() {
    let mut w = World::new();
    let a = w.actor(50);
    let b = w.actor(50);
    w.switch_to(a);
    w.m.time = 1;
    w.k.decide(&mut w.m);
    assert_eq!(w.k.running, Running::Thread(a.thread));
    w.m.time = 1 + 20_000_000;
    w.k.enter(&mut w.m, Entry::Timer);
    assert_eq!(w.k.running, Running::Thread(b.thread));
    let c = w.actor(60);
    w.k.enter(&mut w.m, Entry::Timer);
    assert_eq!(w.k.running, Running::Thread(c.thread));
}
