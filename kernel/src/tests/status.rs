//! What holders of capabilities learn of their objects, and what they do not.

use super::*;
use sila_abi::status::endpoint::{DURABLE, LABELLED};
use sila_abi::syscall::{MAX_WORDS, REGISTER_WORDS};

const EP: Slot = Slot(10);
const NOTE: Slot = Slot(11);
const WEAK: Slot = Slot(12);
const REGION: Slot = Slot(13);
const MAPPING: Slot = Slot(14);
const REPLY: Slot = Slot(20);

fn number(w: &World, a: Actor) -> u64 {
    w.k.processes.get(a.process).unwrap().number
}

#[test]
fn a_mapping_tells_where_it_is_and_what_it_shows() {
    let mut w = World::new();
    let a = w.actor(50);
    for pages in [6u64, 40] {
        w.invoke(a, POOL, Op::RegionCreate, &[pages, REGION.0.into()]).unwrap();
        let args = [PROCESS.0.into(), 0x80_0000, 2, 3, 1, MAPPING.0.into()];
        w.invoke(a, REGION, Op::RegionMap, &args).unwrap();
        let status = w.invoke(a, MAPPING, Op::MappingStatus, &[]).unwrap();
        assert_eq!(status, [number(&w, a), 0x80_0000, 3, 1, 2, 0], "a Region of {pages} pages");
        w.invoke(a, MAPPING, Op::MappingProtect, &[]).unwrap();
        assert_eq!(w.invoke(a, MAPPING, Op::MappingStatus, &[]).unwrap()[3], 0);
        w.invoke(a, MAPPING, Op::MappingUnmap, &[]).unwrap();
        assert_eq!(w.invoke(a, MAPPING, Op::MappingStatus, &[]), Err(Error::ObjectGone));
        for slot in [MAPPING, REGION] {
            w.invoke(a, slot, Op::CapDelete, &[]).unwrap();
        }
    }
}

#[test]
fn an_endpoint_tells_who_receives_and_how_many_wait() {
    let mut w = World::new();
    let server = w.actor(50);
    w.invoke(server, POOL, Op::EndpointCreate, &[1, 77, EP.0.into()]).unwrap();
    let status = |w: &mut World| w.invoke(server, EP, Op::EndpointStatus, &[]).unwrap();
    assert_eq!(status(&mut w)[..5], [DURABLE, 77, number(&w, server), 0, 0]);
    let clients = [w.actor(40), w.actor(30), w.actor(40)];
    for client in clients {
        w.share(server, EP, client, EP, Rights::SEND, 1);
        w.message(client, Call::Call, EP, Say { deadline: FOREVER, ..Default::default() });
    }
    assert_eq!(status(&mut w)[3..5], [3, 0]);
    // Who may only send learns nothing of the others.
    let refused = w.invoke(clients[0], EP, Op::EndpointStatus, &[]);
    assert_eq!(refused, Err(Error::MissingRight));
}

#[test]
fn an_endpoint_tells_its_waiting_receivers_its_label_and_that_nobody_receives() {
    let mut w = World::new();
    let (server, other) = (w.actor(50), w.actor(40));
    super::handover::declare(&mut w, server, 0);
    w.invoke(server, POOL, Op::EndpointCreate, &[2, 0, EP.0.into()]).unwrap();
    w.share(server, EP, other, EP, Rights::READ, 0);
    w.message(server, Call::Recv, EP, forever(REPLY.0));
    assert_eq!(
        w.invoke(other, EP, Op::EndpointStatus, &[]).unwrap()[..5],
        [LABELLED, 0, number(&w, server), 0, 1]
    );
    let id = w.k.endpoints.iter().next().unwrap().0;
    w.k.receiver_died(id, server.process);
    assert_eq!(w.invoke(other, EP, Op::EndpointStatus, &[]).unwrap()[2..5], [0, 0, 0]);
}

#[test]
fn a_notification_tells_its_flags_without_taking_them() {
    let mut w = World::new();
    let a = w.actor(50);
    w.invoke(a, POOL, Op::NotificationCreate, &[NOTE.0.into()]).unwrap();
    let status = |w: &mut World, slot| w.invoke(a, slot, Op::NotificationStatus, &[]).unwrap();
    assert_eq!(status(&mut w, NOTE)[..5], [0, 0, 0, u64::MAX, 0]);
    w.invoke(a, NOTE, Op::Signal, &[0b1100]).unwrap();
    w.invoke(a, NOTE, Op::NotificationAlarm, &[5_000_000, 0b10001]).unwrap();
    for _ in 0..2 {
        assert_eq!(status(&mut w, NOTE)[..5], [0b1100, 0, 0, 5_000_000, 0b10001]);
    }
    // A badge hides the others' flags, and an alarm that sets none of its own.
    let rights = u64::from(Rights::READ.bits());
    for (badge, want) in [(0b0101, [0b0100, 0, 0, 5_000_000, 1]), (0b1000, [0b1000, 0, 0, u64::MAX, 0])] {
        w.invoke(a, NOTE, Op::CapMint, &[WEAK.0.into(), rights, badge]).unwrap();
        assert_eq!(status(&mut w, WEAK)[..5], want, "badge {badge:#b}");
        w.invoke(a, WEAK, Op::CapDelete, &[]).unwrap();
    }
    w.invoke(a, NOTE, Op::NotificationAlarm, &[u64::MAX, 0]).unwrap();
    assert_eq!(status(&mut w, NOTE)[3..5], [u64::MAX, 0]);
    assert_eq!(w.message(a, Call::Recv, NOTE, forever(0)).status(), Ok(()), "they are still there");
    assert_eq!(w.words(a)[0], 0b1100);
}

#[test]
fn a_notification_tells_who_waits_and_that_it_is_bound() {
    let mut w = World::new();
    let (a, b) = (w.actor(50), w.actor(40));
    w.invoke(a, POOL, Op::NotificationCreate, &[NOTE.0.into()]).unwrap();
    w.share(a, NOTE, b, NOTE, Rights::RECV, 0);
    w.message(b, Call::Recv, NOTE, forever(0));
    assert_eq!(w.invoke(a, NOTE, Op::NotificationStatus, &[]).unwrap()[1..3], [1, 0]);
    w.give(a, Slot(2), reference(ObjectType::Thread, a.thread), Rights::MANAGE);
    w.invoke(a, NOTE, Op::NotificationBind, &[2]).unwrap();
    assert_eq!(w.invoke(a, NOTE, Op::NotificationStatus, &[]).unwrap()[1..3], [1, 1]);
}

#[test]
fn a_job_counts_its_processes_and_handovers() {
    let mut w = World::new();
    let (a, b) = (w.actor(50), w.actor(40));
    let job = w.k.jobs.iter().next().unwrap().0;
    w.give(a, Slot(4), reference(ObjectType::Job, job), Rights::USE);
    assert_eq!(w.invoke(a, Slot(4), Op::JobStatus, &[]).unwrap()[..3], [2, 0, 0]);
    w.share(b, PROCESS, a, Slot(31), Rights::MANAGE | Rights::READ, 0);
    w.invoke(a, Slot(31), Op::ProcessTerminate, &[1]).unwrap();
    w.settle();
    assert_eq!(w.invoke(a, Slot(4), Op::JobStatus, &[]).unwrap()[..3], [2, 1, 0]);
    let usage = w.invoke(a, Slot(31), Op::ProcessUsage, &[]).unwrap();
    assert_eq!((usage[0] > 0, &usage[1..]), (true, &[0; 5][..]), "nothing is left of it");
    w.invoke(a, Slot(31), Op::CapDelete, &[]).unwrap();
    assert_eq!(w.invoke(a, Slot(4), Op::JobStatus, &[]).unwrap()[..3], [1, 0, 0]);
    let root = w.k.root_pool;
    let pool = w.k.split_pool(root, 10, 110_000).unwrap();
    w.give(a, Slot(6), reference(ObjectType::Pool, pool), Rights::USE);
    w.invoke(a, Slot(6), Op::HandoverCreate, &[4, u64::MAX, 9]).unwrap();
    assert_eq!(w.invoke(a, Slot(4), Op::JobStatus, &[]).unwrap()[..3], [1, 0, 1]);
}

#[test]
fn a_process_tells_what_it_uses() {
    let mut w = World::new();
    let a = w.actor(50);
    let usage = |w: &mut World| w.invoke(a, PROCESS, Op::ProcessUsage, &[]).unwrap();
    let before = usage(&mut w);
    assert_eq!((before[0], before[1], before[2], before[4]), (number(&w, a), 1, 200, 16_000));
    w.invoke(a, POOL, Op::RegionCreate, &[5, REGION.0.into()]).unwrap();
    let after = usage(&mut w);
    assert_eq!((after[3] - before[3], after[5] - before[5]), (5, cost::<Region>()));
}

#[test]
fn a_reply_tells_whether_its_caller_waits_and_what_it_takes() {
    let mut w = World::new();
    let (server, client) = (w.actor(50), w.actor(40));
    w.invoke(server, POOL, Op::EndpointCreate, &[0, 0, EP.0.into()]).unwrap();
    w.share(server, EP, client, EP, Rights::SEND, 0);
    w.message(server, Call::Recv, EP, forever(REPLY.0));
    let receive = Receive { base: Slot(40), count: 3, ..Default::default() };
    w.message(client, Call::Call, EP, Say { deadline: FOREVER, receive, ..Default::default() });
    let status = |w: &mut World| w.invoke(server, REPLY, Op::ReplyStatus, &[]).unwrap();
    assert_eq!(status(&mut w)[..4], [1, 0, MAX_WORDS as u64, 3]);
    w.k.threads.get_mut(client.thread).unwrap().message = None;
    w.checks = false;
    assert_eq!(status(&mut w)[2], REGISTER_WORDS as u64);
    w.k.wake_error(client.thread, Error::Timeout);
    assert_eq!(status(&mut w)[..4], [0; 4]);
}

#[test]
fn the_reply_to_a_fault_says_so() {
    let mut w = World::new();
    let (handler, a) = (w.actor(50), w.actor(40));
    w.invoke(handler, POOL, Op::EndpointCreate, &[0, 0, EP.0.into()]).unwrap();
    w.share(handler, EP, a, EP, Rights::SEND, 0);
    w.give(a, Slot(2), reference(ObjectType::Thread, a.thread), Rights::MANAGE);
    w.invoke(a, Slot(2), Op::ThreadSetFaultEndpoint, &[EP.0.into()]).unwrap();
    w.message(handler, Call::Recv, EP, forever(REPLY.0));
    w.switch_to(a);
    w.k.enter(&mut w.m, Entry::Fault { vector: 6, error: 0, address: 0 });
    assert_eq!(w.invoke(handler, REPLY, Op::ReplyStatus, &[]).unwrap()[..2], [1, 1]);
}

#[test]
fn ports_tell_how_many_there_are() {
    let mut w = World::new();
    let a = w.actor(50);
    w.k.ports.push((0x3f8, 8));
    let object =
        crate::cap::ObjRef { kind: ObjectType::IoPorts, index: 0, generation: crate::kernel::PERMANENT };
    w.give(a, Slot(30), object, Rights::READ);
    let status = w.invoke(a, Slot(30), Op::PortStatus, &[]).unwrap();
    assert_eq!(status[0], 8);
    assert!(!status.contains(&0x3f8), "where they are is nobody's business");
}
