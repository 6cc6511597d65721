//! What a hostile process tries: each was once possible.

use super::*;
use crate::budget::foreground;
use crate::machine::Next;

fn keyring(w: &mut World, a: Actor) {
    w.give(
        a,
        Slot(20),
        crate::cap::ObjRef { kind: ObjectType::KeyRing, index: 0, generation: 1 },
        Rights::USE,
    );
    w.invoke(a, POOL, Op::RegionCreate, &[1, 21]).unwrap();
}
fn install(w: &mut World, a: Actor) {
    w.call(a, Tag::new(Call::Invoke, 2, 0, Op::KeyRingInstall as u32), |r| {
        r.rdi = 20;
        r.rsi = 21;
        r.rdx = 100;
    });
}

#[test]
fn a_second_queued_verification_gets_its_own_job() {
    let mut w = World::new();
    let a = w.actor(50);
    let b = w.actor(50);
    keyring(&mut w, a);
    keyring(&mut w, b);
    install(&mut w, a);
    install(&mut w, b);
    w.k.decide(&mut w.m);
    w.m.run_verification();
    let n = w.k.enter(&mut w.m, Entry::VerificationDone);
    assert!(n != Next::Verification || w.m.work.is_some(), "arch would be fatal: verification without a job");
}

#[test]
fn yielding_does_not_starve_verification() {
    let mut w = World::new();
    let a = w.actor(50);
    let b = w.actor(50);
    keyring(&mut w, a);
    install(&mut w, a);
    // b now spins in yield
    w.switch_to(b);
    let mut started = 0;
    for _ in 0..1000 {
        w.m.time += 1_000_000; // 1 ms each
        let t = w.k.threads.get_mut(b.thread).unwrap();
        t.context.registers.rax = Tag::new(Call::Yield, 0, 0, 0).0;
        let n = w.k.enter(&mut w.m, Entry::Syscall);
        if n == Next::Verification {
            started += 1;
            break;
        }
    }
    assert!(started > 0, "one second of yields: the verification never ran");
}

#[test]
fn an_endpoint_is_not_bound_to_a_dead_process() {
    let mut w = World::new();
    let a = w.actor(50);
    let b = w.actor(40);
    w.share(b, PROCESS, a, Slot(31), Rights::MANAGE | Rights::READ, 0);
    let e = w.k.new_endpoint(w.k.root_pool, None, None, false, 0).unwrap();
    w.give(a, Slot(10), reference(ObjectType::Endpoint, e), Rights::USE);
    w.invoke(a, Slot(31), Op::ProcessTerminate, &[1]).unwrap();
    w.settle();
    let r = w.invoke(a, Slot(10), Op::EndpointBind, &[31]);
    assert_eq!(r, Err(Error::Dying));
    assert!(w.invoke(a, Slot(10), Op::EndpointBind, &[PROCESS.0 as u64]).is_ok());
}

#[test]
fn one_kept_page_does_not_lock_a_dead_quota() {
    let mut w = World::new();
    let a = w.actor(50);
    let b = w.actor(40);
    let root = |w: &World| w.k.pools.get(w.k.root_pool).unwrap().frames.used;
    w.invoke(b, POOL, Op::RegionCreate, &[1, 20]).unwrap();
    w.share(b, Slot(20), a, Slot(20), Rights::READ, 0);
    let before = root(&w);
    w.k.begin_end(&mut w.m, b.process, Exit::default());
    w.settle();
    assert!(before - root(&w) >= 199);
}

#[test]
fn who_loads_a_module_cannot_map_into_it_or_make_threads_in_it() {
    let mut w = World::new();
    let mm = w.actor(50);
    let victim = w.actor(40);
    w.share(victim, PROCESS, mm, Slot(31), Rights::MANAGE | Rights::READ | Rights::COPY, 0);
    w.invoke(mm, POOL, Op::RegionCreate, &[1, 20]).unwrap();
    let m = w.invoke(mm, Slot(20), Op::RegionMap, &[31, 0x7000_0000, 0, 1, 1, 22]);
    let t = w.invoke(mm, Slot(31), Op::ThreadCreate, &[0x10_0123, 0x7000_1000, 7, 10, 0, 23]);
    assert!(m.is_err() && t.is_err());
}

#[test]
fn process_start_starts_the_initial_thread() {
    let mut w = World::new();
    let mm = w.actor(50);
    let v = w.actor(40);
    w.k.leave_wait(v.thread);
    w.k.processes.get_mut(v.process).unwrap().state = ProcessState::Created;
    w.k.processes.get_mut(v.process).unwrap().initial = Some(v.thread);
    w.share(v, PROCESS, mm, Slot(31), Rights::MANAGE | Rights::WRITE, 0);
    w.invoke(mm, Slot(31), Op::ThreadCreate, &[0x10_0123, 0x7000_1000, 7, 10, 0, 23]).unwrap();
    w.invoke(mm, Slot(31), Op::ProcessStart, &[]).unwrap();
    assert_eq!(w.state(v), ThreadState::Ready, "the initial thread");
}

#[test]
fn a_waiting_request_lends_its_priority_to_the_job_before_it() {
    let mut w = World::new();
    let low = w.actor(5);
    let mid = w.actor(50);
    let high = w.actor(100);
    keyring(&mut w, low);
    keyring(&mut w, high);
    // low submits and the context begins
    w.switch_to(mid);
    w.k.leave_wait(mid.thread);
    w.k.leave_wait(high.thread);
    install(&mut w, low);
    assert_eq!(w.k.running(), Running::Verification);
    install(&mut w, high); // switch_to with running Verification
    w.k.make_ready(mid.thread);
    w.k.decide(&mut w.m);
    assert_eq!(w.k.verification_claim(), Some(foreground(100)));
}

#[test]
fn a_fault_whose_handler_dies_on_an_idle_machine_ends_the_process() {
    let mut w = World::new();
    let handler = w.actor(60);
    let victim = w.actor(40);
    w.invoke(handler, POOL, Op::EndpointCreate, &[0, 0, 10]).unwrap();
    w.share(handler, Slot(10), victim, Slot(10), Rights::SEND, 5);
    w.give(victim, Slot(2), reference(ObjectType::Thread, victim.thread), Rights::MANAGE);
    w.invoke(victim, Slot(2), Op::ThreadSetFaultEndpoint, &[10]).unwrap();
    w.message(handler, Call::Recv, Slot(10), forever(20));
    w.switch_to(victim);
    w.k.enter(&mut w.m, Entry::Fault { vector: 14, error: 4, address: 0xbad0 });
    // handler exits; CPU idle
    w.switch_to(handler);
    let t = w.k.threads.get_mut(handler.thread).unwrap();
    t.context.registers.rax = Tag::new(Call::Exit, 1, 0, 0).0;
    w.k.enter(&mut w.m, Entry::Syscall);
    let st = w.k.processes.get(victim.process).map(|p| p.state);
    assert_ne!(st, Some(ProcessState::Running));
}

#[test]
fn a_revoked_fault_endpoint_receives_nothing() {
    let mut w = World::new();
    let handler = w.actor(60);
    let victim = w.actor(40);
    w.invoke(handler, POOL, Op::EndpointCreate, &[0, 0, 10]).unwrap();
    w.share(handler, Slot(10), victim, Slot(10), Rights::SEND, 5);
    w.give(victim, Slot(2), reference(ObjectType::Thread, victim.thread), Rights::MANAGE);
    w.invoke(victim, Slot(2), Op::ThreadSetFaultEndpoint, &[10]).unwrap();
    w.invoke(handler, Slot(10), Op::CapRevoke, &[]).unwrap();
    assert!(w.k.find(victim.process, Slot(10)).is_err());
    w.message(handler, Call::Recv, Slot(10), forever(20));
    w.switch_to(victim);
    w.k.enter(&mut w.m, Entry::Fault { vector: 14, error: 4, address: 0xbad0 });
    assert_ne!(w.badge(handler), 5);
}

#[test]
fn a_huge_bss_is_refused_before_it_is_walked() {
    let mut w = World::new();
    let a = w.actor(50);
    let range = crate::paging::UserRange::new(0x1000_0000, 1 << 34).unwrap();
    assert_eq!(w.k.map_owned(&mut w.m, a.process, range), Err(Error::OutOfFrames));
}

#[test]
fn an_equal_runs_although_a_higher_priority_interrupts_often() {
    let mut w = World::new();
    let a = w.actor(50);
    let b = w.actor(50);
    let h = w.actor(90);
    w.k.leave_wait(h.thread);
    w.switch_to(a);
    let mut saw_b = false;
    for _ in 0..200 {
        w.m.time += 6_000_000;
        w.k.make_ready(h.thread);
        w.k.enter(&mut w.m, Entry::Timer); // h preempts
        w.k.leave_wait(h.thread);
        w.m.time += 100_000;
        w.k.enter(&mut w.m, Entry::Timer);
        if w.k.running() == Running::Thread(b.thread) {
            saw_b = true;
            break;
        }
    }
    assert!(saw_b, "b never ran in 1.2 s");
}

#[test]
fn watching_obeys_the_badge_of_the_notification() {
    let mut w = World::new();
    let a = w.actor(50);
    let b = w.actor(40);
    let dead = w.actor(10);
    w.share(dead, PROCESS, b, Slot(31), Rights::READ, 0);
    w.invoke(a, POOL, Op::NotificationCreate, &[12]).unwrap();
    w.share(a, Slot(12), b, Slot(12), Rights::SEND, 1); // may only set flag 1
    w.invoke(b, Slot(12), Op::Signal, &[0xff]).unwrap();
    assert!(w.message(a, Call::Recv, Slot(12), forever(0)).is_flags());
    assert_eq!(w.words(a)[0], 1);
    w.k.begin_end(&mut w.m, dead.process, Exit::default());
    w.settle();
    w.invoke(b, Slot(31), Op::ProcessWatch, &[12, 0xf0]).unwrap();
    w.message(a, Call::Recv, Slot(12), forever(0));
    assert_eq!(w.words(a)[0] & !1, 0);
}

#[test]
fn a_replys_status_shows_no_call_number() {
    let mut w = World::new();
    let a = w.actor(50);
    let b = w.actor(40);
    w.invoke(a, POOL, Op::EndpointCreate, &[0, 0, 10]).unwrap();
    w.share(a, Slot(10), b, Slot(10), Rights::SEND, 0);
    for _ in 0..3 {
        w.message(a, Call::Recv, Slot(10), forever(20));
        w.message(b, Call::Call, Slot(10), forever(0));
        assert_eq!(w.invoke(a, Slot(20), Op::CapStatus, &[]).unwrap()[2], 0);
        w.message(a, Call::Reply, Slot(20), Say::default());
    }
}

#[test]
fn a_region_half_made_is_dropped_by_any_other_call() {
    let mut w = World::new();
    let a = w.actor(50);
    w.invoke(a, POOL, Op::NotificationCreate, &[12]).unwrap();
    w.m.preempt_after = Some(0);
    w.call(a, Tag::new(Call::Invoke, 2, 0, Op::RegionCreate as u32), |r| {
        r.rdi = 3;
        r.rsi = 100;
        r.rdx = 20;
    });
    w.m.preempt_after = None;
    for _ in 0..10 {
        w.invoke(a, Slot(12), Op::Signal, &[1]).unwrap();
    }
    w.settle();
    let s = w.invoke(a, POOL, Op::PoolStatus, &[]).unwrap();
    assert!(s[1] < 50);
}

#[test]
fn a_process_never_started_ends_with_its_last_capability() {
    let mut w = World::new();
    let a = w.actor(50);
    let b = w.actor(40);
    w.k.leave_wait(b.thread);
    w.k.processes.get_mut(b.process).unwrap().state = ProcessState::Created;
    w.share(b, PROCESS, a, Slot(31), Rights::MANAGE, 0);
    let src = w.k.find(b.process, PROCESS).unwrap();
    w.k.delete(&mut w.m, src.id);
    w.invoke(a, Slot(31), Op::CapDelete, &[]).unwrap();
    w.settle();
    let p = w.k.processes.get(b.process).map(|p| (p.caps, p.state));
    assert!(p.is_none());
}

#[test]
fn one_pool_cannot_take_every_slot_of_an_arena() {
    let mut w = World::new();
    let a = w.actor(50);
    let b = w.actor(40);
    let mut n = 0;
    while w.invoke(a, POOL, Op::PoolCreate, &[0, 0, 100 + n]).is_ok() {
        n += 1;
    }
    let r = w.invoke(b, POOL, Op::PoolCreate, &[0, 0, 100]);
    assert!(r.is_ok());
}

/// A ReplyRecv whose second half fails after its first succeeded.
#[test]
fn reply_recv_with_a_bad_endpoint_answers_nobody() {
    let mut w = World::new();
    let a = w.actor(50);
    let b = w.actor(40);
    w.invoke(a, POOL, Op::EndpointCreate, &[0, 0, 10]).unwrap();
    w.share(a, Slot(10), b, Slot(10), Rights::SEND, 0);
    w.message(a, Call::Recv, Slot(10), forever(20));
    w.message(b, Call::Call, Slot(10), forever(0));
    let o = w.message(a, Call::ReplyRecv, Slot(99), forever(20));
    assert_eq!(o.status(), Err(Error::NoCapability));
    assert_eq!(w.state(b), ThreadState::AwaitingReply, "state as before the failed call");
}

/// PoolStatus shows, and a dying pool's frames; frames used by nothing after many rounds.
#[test]
fn dead_watchers_make_room() {
    let mut w = World::new();
    let a = w.actor(50);
    let b = w.actor(40);
    w.share(b, PROCESS, a, Slot(31), Rights::READ, 0);
    w.invoke(a, POOL, Op::NotificationCreate, &[12]).unwrap();
    for _ in 0..4 {
        w.invoke(a, Slot(31), Op::ProcessWatch, &[12, 1]).unwrap();
    }
    w.invoke(a, Slot(12), Op::CapDelete, &[]).unwrap();
    w.invoke(a, POOL, Op::NotificationCreate, &[12]).unwrap();
    let r = w.invoke(a, Slot(31), Op::ProcessWatch, &[12, 1]);
    assert!(r.is_ok());
}

/// A doomed thread that is resumed before it is ended, and what it then says.
#[test]
fn a_doomed_thread_is_not_resumed() {
    let mut w = World::new();
    let handler = w.actor(60);
    let victim = w.actor(40);
    let other = w.actor(30);
    w.invoke(other, POOL, Op::EndpointCreate, &[0, 0, 10]).unwrap();
    w.share(other, Slot(10), victim, Slot(11), Rights::SEND, 9);
    w.message(other, Call::Recv, Slot(10), forever(20));
    w.give(other, Slot(30), reference(ObjectType::Thread, victim.thread), Rights::MANAGE);
    w.invoke(handler, POOL, Op::EndpointCreate, &[0, 0, 10]).unwrap();
    w.share(handler, Slot(10), victim, Slot(10), Rights::SEND, 5);
    w.give(victim, Slot(2), reference(ObjectType::Thread, victim.thread), Rights::MANAGE);
    w.invoke(victim, Slot(2), Op::ThreadSetFaultEndpoint, &[10]).unwrap();
    w.message(handler, Call::Recv, Slot(10), forever(20));
    w.switch_to(victim);
    w.k.enter(&mut w.m, Entry::Fault { vector: 14, error: 4, address: 0xbad0 });
    w.switch_to(handler);
    let t = w.k.threads.get_mut(handler.thread).unwrap();
    t.context.registers.rax = Tag::new(Call::Exit, 1, 0, 0).0;
    w.k.enter(&mut w.m, Entry::Syscall); // idle reaping dooms the victim
    // next entry: somebody resumes it
    assert!(w.invoke(other, Slot(30), Op::ThreadResume, &[]).is_err());
    let t = w.k.threads.get(victim.thread).map(|t| (t.state, t.fault));
    assert!(t.is_none());
}

/// A tail of a destroyed pool: child pool handed away survives its parent's owner.
#[test]
fn child_pools_end_with_their_owner() {
    let mut w = World::new();
    let a = w.actor(50);
    let b = w.actor(40);
    w.invoke(b, POOL, Op::PoolCreate, &[150, 4000, 20]).unwrap();
    w.share(b, Slot(20), a, Slot(20), Rights::CREATE | Rights::READ, 0);
    w.k.begin_end(&mut w.m, b.process, Exit::default());
    w.settle();
    let r = w.invoke(a, Slot(20), Op::RegionCreate, &[100, 21]);
    assert!(r.is_err());
}

/// A frame that another CPU may still reach by an old translation is neither sealed nor reused.
#[test]
fn an_unflushed_region_is_quarantined() {
    let mut w = World::new();
    let a = w.actor(50);
    w.invoke(a, POOL, Op::RegionCreate, &[2, 20]).unwrap();
    w.invoke(a, Slot(20), Op::RegionMap, &[PROCESS.0 as u64, 0x80_0000, 0, 2, 1, 21]).unwrap();
    w.m.lazy_flush = true;
    w.invoke(a, Slot(21), Op::MappingUnmap, &[]).unwrap();
    assert_eq!(w.invoke(a, Slot(20), Op::RegionSeal, &[]), Err(Error::StillWritable));
    let free = w.k.frames.free_count();
    w.invoke(a, Slot(20), Op::CapDelete, &[]).unwrap();
    w.settle();
    assert_eq!((w.k.frames.free_count(), w.k.frames.quarantined()), (free, 2));
    w.m.lazy_flush = false;
    w.k.enter(&mut w.m, Entry::Timer);
    assert_eq!((w.k.frames.free_count(), w.k.frames.quarantined()), (free + 2, 0));
}

#[test]
fn a_user_message_cannot_pose_as_a_fault() {
    let mut w = World::new();
    let a = w.actor(50);
    let b = w.actor(40);
    w.invoke(a, POOL, Op::EndpointCreate, &[0, 0, 10]).unwrap();
    w.share(a, Slot(10), b, Slot(10), Rights::SEND, 0);
    w.message(a, Call::Recv, Slot(10), forever(20));
    for label in [0, u32::MAX] {
        let say = Say { label, len: 6, ..forever(0) };
        w.message(b, Call::Call, Slot(10), say);
        assert!(w.outcome(a).has_reply() && !w.outcome(a).is_fault());
        let reply = Say { receive: Receive { reply: Slot(20), ..Default::default() }, ..forever(20) };
        w.message(a, Call::ReplyRecv, Slot(10), reply);
    }
}
