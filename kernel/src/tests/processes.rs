//! Processes and threads: their end returns everything.

use super::*;
use crate::kernel::Capacities;
use crate::machine::Next;

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

/// An ended process is taken apart though the only thread that runs never enters the kernel.
#[test]
fn the_reaper_gets_its_turn_while_a_thread_spins() {
    let mut w = World::new();
    let spinner = w.actor(50);
    let b = w.actor(40);
    w.share(b, PROCESS, spinner, Slot(31), Rights::READ, 0);
    w.switch_to(b);
    w.k.leave_wait(spinner.thread);
    w.k.make_ready(spinner.thread);
    w.m.timer = u64::MAX;
    let t = w.k.threads.get_mut(b.thread).unwrap();
    t.context.registers.rax = Tag::new(Call::Exit, 1, 0, 0).0;
    w.k.enter(&mut w.m, Entry::Syscall);
    assert_eq!(w.k.running(), Running::Thread(spinner.thread));
    let ended = |w: &World| w.k.processes.get(b.process).unwrap().state == ProcessState::Ended;
    let mut ticks = 0;
    while !ended(&w) {
        assert!(w.m.timer <= w.m.time + crate::sched::REAP_TICK && ticks < 100, "{ticks}");
        w.m.time = w.m.timer;
        w.m.timer = u64::MAX;
        w.k.enter(&mut w.m, Entry::Timer);
        ticks += 1;
    }
    w.m.timer = u64::MAX;
    w.k.enter(&mut w.m, Entry::Timer);
    assert_eq!(w.m.timer, u64::MAX, "no tick without need");
}

/// What comes into a CSpace that is being emptied goes, too, and the CSpace grows no more.
#[test]
fn a_slot_that_is_filled_behind_the_reaper_is_emptied_again() {
    let mut w = World::new();
    let a = w.actor(50);
    let before = w.baseline();
    let b = w.actor(40);
    w.k.begin_end(&mut w.m, b.process, Exit::default());
    while w.k.processes.get(b.process).unwrap().end.slots == 0 {
        w.k.reap_step(&mut w.m);
    }
    let pool = w.k.processes.get(a.process).unwrap().pool;
    w.give(b, Slot(2), reference(ObjectType::Pool, pool), Rights::READ);
    assert_eq!(w.k.free_slot(b.process, Slot(700)), Err(Error::Dying));
    w.settle();
    assert_eq!(w.baseline(), before);
}

#[test]
fn a_thread_of_a_process_that_is_ending_is_not_resumed() {
    let mut w = World::new();
    let a = w.actor(50);
    let b = w.actor(40);
    w.give(a, Slot(10), reference(ObjectType::Thread, b.thread), Rights::USE);
    w.switch_to(a);
    w.k.begin_end(&mut w.m, b.process, Exit::default());
    let t = w.k.threads.get(a.thread).unwrap();
    assert_eq!(t.state, ThreadState::Running);
    assert_eq!(w.k.resume(b.thread), Err(Error::Dying));
    assert_eq!(w.k.threads.get(b.thread).unwrap().state, ThreadState::Inactive);
    w.settle();
    assert_eq!(w.invoke(a, Slot(10), Op::ThreadResume, &[]), Err(Error::ObjectGone));
}

/// Who waits for a process that ends is woken a few at a time.
#[test]
fn a_step_of_the_reaper_wakes_few() {
    let mut w = World::new();
    let server = w.actor(40);
    w.invoke(server, POOL, Op::EndpointCreate, &[0, 0, 10]).unwrap();
    let clients: Vec<Actor> = (0..6).map(|_| w.actor(50)).collect();
    for client in &clients {
        w.share(server, Slot(10), *client, Slot(10), Rights::SEND, 0);
        w.message(*client, Call::Call, Slot(10), forever(0));
    }
    let waiting = |w: &World| {
        let state = |c: &Actor| w.k.threads.get(c.thread).unwrap().state;
        clients.iter().filter(|c| matches!(state(c), ThreadState::Sending { .. })).count()
    };
    assert_eq!(waiting(&w), 6);
    w.k.begin_end(&mut w.m, server.process, Exit::default());
    while waiting(&w) > 0 {
        let before = waiting(&w);
        w.k.reap_step(&mut w.m);
        assert!(before - waiting(&w) <= 4, "{before} waited, {} do", waiting(&w));
    }
    w.settle();
}

/// An interrupt that the core never hears of does not leave an idle CPU with work undone.
#[test]
fn an_idle_cpu_comes_back_to_what_an_interrupt_interrupted() {
    let mut w = World::new();
    let a = w.actor(50);
    w.switch_to(a);
    w.m.preempt_after = Some(0);
    w.m.timer = u64::MAX;
    let t = w.k.threads.get_mut(a.thread).unwrap();
    t.context.registers.rax = Tag::new(Call::Exit, 1, 0, 0).0;
    assert_eq!(w.k.enter(&mut w.m, Entry::Syscall), Next::Idle);
    assert!(!w.k.nothing_to_reap() && w.m.timer <= w.m.time);
}

/// Who holds a Pool that was split from an ending process's own splits it further, behind the reaper's back.
#[test]
fn a_pool_that_is_split_during_the_end_of_its_owner_ends_too() {
    let mut w = World::sized(2000, Capacities { pools: 64, ..CAPACITIES });
    let q = w.actor(50);
    let b = w.actor(40);
    let root = Slot(19);
    w.give(q, root, reference(ObjectType::Pool, w.k.root_pool), Rights::CREATE);
    // The process's Pool gets a late place in the arena, and the early ones are free again.
    for slot in 20..60 {
        w.invoke(q, root, Op::PoolCreate, &[0, 0, slot]).unwrap();
    }
    w.invoke(b, POOL, Op::PoolCreate, &[50, 6000, 20]).unwrap();
    w.share(b, Slot(20), q, Slot(18), Rights::CREATE | Rights::READ, 0);
    for slot in (20..60).rev() {
        w.invoke(q, Slot(slot), Op::CapDelete, &[]).unwrap();
    }
    w.k.begin_end(&mut w.m, b.process, Exit::default());
    while w.k.processes.get(b.process).unwrap().end.pools < 16 {
        w.k.reap_step(&mut w.m);
    }
    w.invoke(q, Slot(18), Op::PoolCreate, &[10, 2000, 30]).unwrap();
    w.settle();
    assert_eq!(w.invoke(q, Slot(30), Op::PoolStatus, &[]), Err(Error::ObjectGone));
    assert_eq!(w.invoke(q, Slot(18), Op::PoolStatus, &[]), Err(Error::ObjectGone));
}

#[test]
fn termination_restarts_when_preempted_and_ends_the_same() {
    let mut w = World::new();
    let a = w.actor(50);
    let before = w.baseline();
    let b = w.actor(40);
    w.share(b, PROCESS, a, Slot(31), Rights::MANAGE, 0);
    w.m.preempt_after = Some(0);
    let rip = w.k.threads.get(a.thread).unwrap().context.registers.rip;
    w.call(a, Tag::new(Call::Invoke, 1, 0, Op::ProcessTerminate as u32), |r| r.rdi = 31);
    assert_eq!(w.k.threads.get(a.thread).unwrap().context.registers.rip, rip.wrapping_sub(2));
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
    assert_eq!(w.k.running(), Running::Thread(a.thread));
    w.m.time = 1 + 20_000_000;
    w.k.enter(&mut w.m, Entry::Timer);
    assert_eq!(w.k.running(), Running::Thread(b.thread));
    let c = w.actor(60);
    w.k.enter(&mut w.m, Entry::Timer);
    assert_eq!(w.k.running(), Running::Thread(c.thread));
}

const HANDLER: Slot = Slot(10);

/// A handler process with an endpoint that waits, and a thread whose faults go there.
fn handled(w: &mut World) -> (Actor, Actor) {
    let handler = w.actor(60);
    let victim = w.actor(40);
    w.invoke(handler, POOL, Op::EndpointCreate, &[0, 0, HANDLER.0 as u64]).unwrap();
    w.share(handler, HANDLER, victim, HANDLER, Rights::SEND, 5);
    w.give(victim, Slot(2), reference(ObjectType::Thread, victim.thread), Rights::MANAGE);
    w.invoke(victim, Slot(2), Op::ThreadSetFaultEndpoint, &[HANDLER.0 as u64]).unwrap();
    w.message(handler, Call::Recv, HANDLER, forever(20));
    w.switch_to(victim);
    w.k.threads.get_mut(victim.thread).unwrap().context.registers.rbx = 77;
    w.k.enter(&mut w.m, Entry::Fault { vector: 14, error: 4, address: 0xbad0 });
    (handler, victim)
}

#[test]
fn a_fault_is_a_call_whose_answer_edits_and_resumes() {
    let mut w = World::new();
    let (handler, victim) = handled(&mut w);
    assert_eq!((w.outcome(handler).is_fault(), w.badge(handler)), (true, 5));
    assert_eq!(w.words(handler)[..4], [14, 4, 0xbad0, 0x10_0000]);
    let mut say = Say { words: [1, 3, 1 << 47, 0x30_0000, 0, 0], len: 4, ..Default::default() };
    assert_eq!(w.message(handler, Call::Reply, Slot(20), say).status(), Err(Error::BadAddress));
    say.words[2] = 0x11_0000;
    assert_eq!(w.message(handler, Call::Reply, Slot(20), say).status(), Ok(()));
    let t = w.k.threads.get(victim.thread).unwrap();
    assert_eq!(
        (t.context.registers.rip, t.context.registers.rsp, t.context.registers.rbx),
        (0x11_0000, 0x30_0000, 77)
    );
    assert_eq!((t.fault, t.state), (None, ThreadState::Ready));
    assert!(w.k.find(handler.process, Slot(20)).is_err());
}

#[test]
fn a_fault_goes_only_where_the_holder_may_send() {
    let mut w = World::new();
    let (handler, victim) = (w.actor(60), w.actor(40));
    w.invoke(handler, POOL, Op::EndpointCreate, &[0, 0, HANDLER.0 as u64]).unwrap();
    w.share(handler, HANDLER, victim, HANDLER, Rights::SEND, 5);
    w.give(victim, Slot(2), reference(ObjectType::Thread, victim.thread), Rights::MANAGE);
    w.invoke(victim, Slot(2), Op::ThreadSetFaultEndpoint, &[HANDLER.0 as u64]).unwrap();
    // Another capability stands in the slot by now.
    w.invoke(victim, HANDLER, Op::CapDelete, &[]).unwrap();
    w.share(handler, HANDLER, victim, HANDLER, Rights::RECV, 5);
    w.message(handler, Call::Recv, HANDLER, forever(20));
    w.switch_to(victim);
    w.k.enter(&mut w.m, Entry::Fault { vector: 14, error: 4, address: 0xbad0 });
    assert!(matches!(w.state(handler), ThreadState::Receiving { .. }), "it is told nothing");
    let state = w.k.processes.get(victim.process).map(|p| p.state);
    assert_ne!(state, Some(ProcessState::Running));
}

#[test]
fn a_fault_nobody_answers_ends_the_process() {
    for deed in 0..4 {
        let mut w = World::new();
        let (handler, victim) = handled(&mut w);
        let keeper = w.actor(10);
        w.share(victim, PROCESS, keeper, Slot(40), Rights::READ, 0);
        match deed {
            0 => {
                let say = Say { words: [0; 6], len: 1, ..Default::default() };
                assert_eq!(w.message(handler, Call::Reply, Slot(20), say).status(), Ok(()));
            }
            1 => {
                w.invoke(handler, Slot(20), Op::CapDelete, &[]).unwrap();
            }
            2 => {
                w.k.begin_end(&mut w.m, handler.process, Exit { cause: 2, ..Exit::default() });
                w.settle();
                w.k.enter(&mut w.m, Entry::Timer);
            }
            _ => {
                w.call(handler, Tag::new(Call::Exit, 1, 0, 0), |r| r.rsi = 0);
                w.settle();
                w.k.enter(&mut w.m, Entry::Timer);
            }
        }
        let exit = w.k.processes.get(victim.process).map(|p| (p.exit.cause, p.exit.code, p.exit.address));
        assert_eq!(exit, Some((3, 14, 0xbad0)), "deed {deed}");
    }
}

#[test]
fn a_faulted_thread_that_is_suspended_runs_its_instruction_again() {
    let mut w = World::new();
    let (handler, victim) = handled(&mut w);
    w.give(handler, Slot(31), reference(ObjectType::Thread, victim.thread), Rights::MANAGE);
    w.invoke(handler, Slot(31), Op::ThreadSuspend, &[]).unwrap();
    w.invoke(handler, Slot(31), Op::ThreadResume, &[]).unwrap();
    let t = w.k.threads.get(victim.thread).unwrap();
    assert_eq!(
        (t.context.registers.rip, t.context.registers.rbx, t.state),
        (0x10_0000, 77, ThreadState::Ready)
    );
    assert_eq!(w.message(handler, Call::Reply, Slot(20), Say::default()).status(), Err(Error::CallerGone));
}

#[test]
fn a_watcher_is_told_of_the_end() {
    let mut w = World::new();
    let (a, b) = (w.actor(50), w.actor(40));
    w.share(b, PROCESS, a, Slot(31), Rights::READ, 0);
    w.invoke(a, POOL, Op::NotificationCreate, &[12]).unwrap();
    w.invoke(a, Slot(31), Op::ProcessWatch, &[12, 4]).unwrap();
    let wait = |w: &mut World| {
        w.message(a, Call::Recv, Slot(12), Say { deadline: 0, ..Default::default() }).is_flags()
    };
    assert!(!wait(&mut w));
    w.k.begin_end(&mut w.m, b.process, Exit::default());
    w.settle();
    assert!(wait(&mut w));
    assert_eq!(w.words(a)[0], 4);
}
