//! Priorities: who runs, at what, and in which order those who wait are served.

use super::*;

const EP: Slot = Slot(10);
const NOTE: Slot = Slot(11);
const REPLY: u16 = 20;

/// A process whose thread's capability the manager has, too, in slot 40 and up.
fn managed(w: &mut World, manager: Actor, priority: u8, slot: u16) -> Actor {
    let a = w.actor(priority);
    let rights = Rights::MANAGE | Rights::READ;
    w.give(manager, Slot(slot), reference(ObjectType::Thread, a.thread), rights);
    a
}

fn set(w: &mut World, manager: Actor, slot: u16, priority: u64) {
    w.invoke(manager, Slot(slot), Op::ThreadSetPriority, &[priority]).unwrap();
}

#[test]
fn a_waiting_sender_takes_the_place_of_its_new_priority() {
    let mut w = World::new();
    let server = w.actor(100);
    w.invoke(server, POOL, Op::EndpointCreate, &[0, 0, EP.0.into()]).unwrap();
    let senders: Vec<Actor> =
        [50, 40, 30].into_iter().zip(40..).map(|(p, s)| managed(&mut w, server, p, s)).collect();
    for (badge, a) in (1..).zip(&senders) {
        w.share(server, EP, *a, EP, Rights::SEND, badge);
        w.message(*a, Call::Call, EP, forever(0));
    }
    // The last one comes first, and the first one behind the one it is equal to now.
    set(&mut w, server, 42, 60);
    set(&mut w, server, 40, 40);
    let order: Vec<u64> = (REPLY..REPLY + 3)
        .map(|reply| {
            assert_eq!(w.message(server, Call::Recv, EP, forever(reply)).status(), Ok(()));
            w.badge(server)
        })
        .collect();
    assert_eq!(order, [3, 2, 1]);
}

#[test]
fn a_waiting_receiver_takes_the_place_of_its_new_priority() {
    let mut w = World::new();
    let manager = w.actor(100);
    let server = managed(&mut w, manager, 50, 40);
    w.invoke(server, POOL, Op::EndpointCreate, &[0, 0, EP.0.into()]).unwrap();
    let start = Start { entry: 0x10_0000, stack: 0x20_0000, argument: 0, priority: 30, message_page: 0 };
    let thread = w.k.new_thread(&mut w.m, server.process, start).unwrap();
    let second = Actor { process: server.process, thread };
    w.k.make_ready(thread);
    w.give(manager, Slot(41), reference(ObjectType::Thread, thread), Rights::MANAGE);
    w.message(server, Call::Recv, EP, forever(REPLY));
    w.message(second, Call::Recv, EP, forever(REPLY + 1));
    set(&mut w, manager, 41, 70);
    w.share(server, EP, manager, EP, Rights::SEND, 1);
    w.message(manager, Call::Call, EP, forever(0));
    assert!(matches!(w.state(server), ThreadState::Receiving { .. }));
    assert!(!matches!(w.state(second), ThreadState::Receiving { .. }), "the higher one received it");
    assert_eq!(w.k.threads.get(thread).unwrap().effective, 100, "at its caller's priority");
}

#[test]
fn a_waiter_for_flags_takes_the_place_of_its_new_priority() {
    let mut w = World::new();
    let manager = w.actor(100);
    w.invoke(manager, POOL, Op::NotificationCreate, &[NOTE.0.into()]).unwrap();
    let waiters: Vec<Actor> =
        [50, 40].into_iter().zip(40..).map(|(p, s)| managed(&mut w, manager, p, s)).collect();
    for a in &waiters {
        w.share(manager, NOTE, *a, NOTE, Rights::RECV, 0);
        w.message(*a, Call::Recv, NOTE, forever(0));
    }
    set(&mut w, manager, 41, 51);
    w.invoke(manager, NOTE, Op::Signal, &[2]).unwrap();
    assert!(matches!(w.state(waiters[0]), ThreadState::Waiting { .. }));
    assert_eq!((w.outcome(waiters[1]).is_flags(), w.words(waiters[1])[0]), (true, 2));
}

#[test]
fn a_queued_verification_takes_the_priority_of_who_waits_for_it() {
    let mut w = World::new();
    let manager = w.actor(100);
    let a = managed(&mut w, manager, 50, 40);
    let ring = crate::cap::ObjRef { kind: ObjectType::KeyRing, index: 0, generation: 1 };
    w.give(a, Slot(20), ring, Rights::USE);
    w.invoke(a, POOL, Op::RegionCreate, &[1, 21]).unwrap();
    w.call(a, Tag::new(Call::Invoke, 2, 0, Op::KeyRingInstall as u32), |r| {
        (r.rdi, r.rsi, r.rdx) = (20, 21, 100);
    });
    assert_eq!(w.k.verification_claim(), Some(crate::budget::foreground(50)));
    set(&mut w, manager, 40, 90);
    assert_eq!(w.k.verification_claim(), Some(crate::budget::foreground(90)));
}

#[test]
fn lowering_a_running_threads_priority_lets_others_run() {
    let mut w = World::new();
    let a = w.actor(50);
    let b = w.actor(40);
    w.give(a, Slot(2), reference(ObjectType::Thread, a.thread), Rights::MANAGE);
    set(&mut w, a, 2, 30);
    assert_eq!(w.k.running(), Running::Thread(b.thread));
    assert_eq!(w.invoke(a, Slot(2), Op::ThreadSetPriority, &[201]), Err(Error::PriorityTooHigh));
    assert_eq!(w.k.threads.get(a.thread).unwrap().priority, 30);
}

#[test]
fn a_lent_priority_ends_at_the_next_receive_whatever_the_own_one_became() {
    let mut w = World::new();
    let client = w.actor(90);
    let server = managed(&mut w, client, 50, 40);
    w.invoke(server, POOL, Op::EndpointCreate, &[0, 70, EP.0.into()]).unwrap();
    w.share(server, EP, client, EP, Rights::SEND, 1);
    let third = managed(&mut w, client, 20, 41);
    w.share(server, EP, third, EP, Rights::SEND, 2);
    let runs_at = |w: &World| w.k.threads.get(server.thread).unwrap().effective;
    w.message(server, Call::Recv, EP, forever(REPLY));
    w.message(third, Call::Call, EP, forever(0));
    assert_eq!(runs_at(&w), 70, "the ceiling");
    set(&mut w, client, 40, 60);
    assert_eq!(runs_at(&w), 70, "what was lent stays");
    set(&mut w, client, 40, 80);
    assert_eq!(runs_at(&w), 80, "more than what was lent");
    set(&mut w, client, 40, 55);
    w.message(server, Call::Reply, Slot(REPLY), Say::default());
    w.message(server, Call::Recv, EP, forever(REPLY));
    assert_eq!(runs_at(&w), 55);
}
