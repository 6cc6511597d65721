//! Messages, replies, notifications.

use super::*;
use sila_abi::syscall::NO_WAIT;

const EP: Slot = Slot(10);
const REPLY: u16 = 20;

/// A server with an endpoint and a client with a send capability of badge 7.
fn pair(w: &mut World) -> (Actor, Actor) {
    let server = w.actor(50);
    let client = w.actor(40);
    w.invoke(server, POOL, Op::EndpointCreate, &[0, 0, EP.0 as u64]).unwrap();
    w.share(server, EP, client, EP, Rights::SEND | Rights::GRANT | Rights::COPY, 7);
    (server, client)
}

fn called(w: &mut World, server: Actor, client: Actor) {
    w.message(server, Call::Recv, EP, forever(REPLY));
    let say = Say { label: 3, words: [1, 2, 3, 4, 5, 6], len: 6, deadline: FOREVER, ..Default::default() };
    w.message(client, Call::Call, EP, say);
    assert_eq!(w.state(client), ThreadState::AwaitingReply);
}

#[test]
fn call_carries_words_label_and_badge_and_reply_answers() {
    let mut w = World::new();
    let (server, client) = pair(&mut w);
    called(&mut w, server, client);
    let o = w.outcome(server);
    assert_eq!((o.status(), o.words(), o.label(), w.badge(server)), (Ok(()), 6, 3, 7));
    assert!(o.has_reply());
    assert_eq!(w.words(server), [1, 2, 3, 4, 5, 6]);
    let say = Say { words: [9, 0, 0, 0, 0, 0], len: 1, label: 8, ..Default::default() };
    assert_eq!(w.message(server, Call::Reply, Slot(REPLY), say).status(), Ok(()));
    let o = w.outcome(client);
    assert_eq!((o.status(), o.words(), o.label()), (Ok(()), 1, 8));
    assert_eq!(w.words(client)[0], 9);
    assert_eq!(w.message(server, Call::Reply, Slot(REPLY), say).status(), Err(Error::NoCapability));
}

#[test]
fn a_queued_call_is_received_later_by_priority() {
    let mut w = World::new();
    let (server, low) = pair(&mut w);
    let high = w.actor(90);
    w.share(server, EP, high, EP, Rights::SEND, 9);
    w.message(low, Call::Call, EP, Say { label: 1, deadline: FOREVER, ..Default::default() });
    w.message(high, Call::Call, EP, Say { label: 2, deadline: FOREVER, ..Default::default() });
    let o = w.message(server, Call::Recv, EP, forever(REPLY));
    assert_eq!((o.label(), w.badge(server)), (2, 9));
    assert_eq!(w.k.threads.get(server.thread).unwrap().effective, 90, "runs at its caller's priority");
    let o = w.message(server, Call::Recv, EP, forever(REPLY + 1));
    assert_eq!((o.label(), w.badge(server)), (1, 7));
}

#[test]
fn a_taken_reply_slot_leaves_the_message_queued() {
    let mut w = World::new();
    let (server, client) = pair(&mut w);
    w.message(client, Call::Call, EP, Say { deadline: FOREVER, ..Default::default() });
    let o = w.message(server, Call::Recv, EP, forever(POOL.0));
    assert_eq!(o.status(), Err(Error::ReplySlotTaken));
    assert!(matches!(w.state(client), ThreadState::Sending { .. }));
    assert_eq!(w.message(server, Call::Recv, EP, forever(REPLY)).status(), Ok(()));
}

#[test]
fn deleting_a_reply_tells_the_caller_that_its_peer_died() {
    let mut w = World::new();
    let (server, client) = pair(&mut w);
    called(&mut w, server, client);
    w.invoke(server, Slot(REPLY), Op::CapDelete, &[]).unwrap();
    assert_eq!(w.outcome(client).status(), Err(Error::PeerDiedDelivered));
}

#[test]
fn a_late_reply_is_refused_frees_its_slot_and_transfers_nothing() {
    let mut w = World::new();
    let (server, client) = pair(&mut w);
    w.message(server, Call::Recv, EP, forever(REPLY));
    let receive = Receive { base: Slot(30), count: 1, ..Default::default() };
    w.message(client, Call::Call, EP, Say { deadline: 100, receive, ..Default::default() });
    w.m.time = 101;
    w.k.enter(&mut w.m, Entry::Timer);
    assert_eq!(w.outcome(client).status(), Err(Error::Timeout));
    let say = Say { caps: [POOL, Slot(0), Slot(0), Slot(0)], cap_count: 1, ..Default::default() };
    assert_eq!(w.message(server, Call::Reply, Slot(REPLY), say).status(), Err(Error::CallerGone));
    assert!(w.k.find(client.process, Slot(30)).is_err());
    assert!(w.k.find(server.process, Slot(REPLY)).is_err());
}

#[test]
fn replies_answer_out_of_order_and_can_be_moved_but_not_copied() {
    let mut w = World::new();
    let (server, first) = pair(&mut w);
    let second = w.actor(40);
    w.share(server, EP, second, EP, Rights::SEND, 8);
    called(&mut w, server, first);
    w.message(second, Call::Call, EP, Say { deadline: FOREVER, ..Default::default() });
    w.message(server, Call::Recv, EP, forever(REPLY + 1));
    assert_eq!(w.invoke(server, Slot(REPLY), Op::CapCopy, &[40, 4]), Err(Error::NotCopyable));
    w.invoke(server, Slot(REPLY), Op::CapMove, &[41]).unwrap();
    w.message(server, Call::Reply, Slot(REPLY + 1), Say { label: 2, ..Default::default() });
    w.message(server, Call::Reply, Slot(41), Say { label: 1, ..Default::default() });
    assert_eq!((w.outcome(second).label(), w.outcome(first).label()), (2, 1));
}

#[test]
fn capabilities_travel_all_or_none() {
    let mut w = World::new();
    let (server, client) = pair(&mut w);
    let receive = Receive { reply: Slot(REPLY), base: Slot(30), count: 2 };
    w.message(server, Call::Recv, EP, Say { receive, deadline: FOREVER, ..Default::default() });
    let mut say = Say {
        caps: [PROCESS, POOL, PROCESS, Slot(0)],
        cap_count: 3,
        deadline: FOREVER,
        ..Default::default()
    };
    assert_eq!(w.message(client, Call::Call, EP, say).status(), Err(Error::TransferFailed));
    say.caps[1] = Slot(63);
    say.cap_count = 2;
    assert_eq!(w.message(client, Call::Call, EP, say).status(), Err(Error::NoCapability));
    assert!(w.k.find(server.process, Slot(30)).is_err());
    say.caps[1] = POOL;
    w.message(client, Call::Call, EP, say);
    assert_eq!(w.outcome(server).caps(), 2);
    let got = w.k.find(server.process, Slot(31)).unwrap().cap;
    assert_eq!(got.object, w.k.find(client.process, POOL).unwrap().cap.object);
}

#[test]
fn sending_capabilities_needs_the_grant_right() {
    let mut w = World::new();
    let (server, client) = pair(&mut w);
    w.share(server, EP, client, Slot(11), Rights::SEND, 7);
    let say = Say {
        caps: [POOL, Slot(0), Slot(0), Slot(0)],
        cap_count: 1,
        deadline: FOREVER,
        ..Default::default()
    };
    assert_eq!(w.message(client, Call::Call, Slot(11), say).status(), Err(Error::CannotGrant));
}

#[test]
fn messages_need_the_right_of_their_direction() {
    let mut w = World::new();
    let (server, client) = (w.actor(50), w.actor(40));
    w.invoke(server, POOL, Op::EndpointCreate, &[0, 0, 10]).unwrap();
    w.share(server, Slot(10), server, Slot(11), Rights::SEND, 0);
    w.share(server, Slot(10), client, Slot(10), Rights::RECV | Rights::GRANT, 0);
    for call in [Call::Send, Call::Call] {
        let o = w.message(client, call, Slot(10), Say { deadline: FOREVER, ..Default::default() });
        assert_eq!(o.status(), Err(Error::MissingRight), "{call:?}");
    }
    assert_eq!(w.message(server, Call::Recv, Slot(11), forever(20)).status(), Err(Error::MissingRight));
    w.message(server, Call::Recv, Slot(10), forever(20));
    assert!(matches!(w.state(server), ThreadState::Receiving { .. }));
}

#[test]
fn only_the_receiver_process_may_receive() {
    let mut w = World::new();
    let (server, client) = pair(&mut w);
    w.share(server, EP, client, Slot(11), Rights::RECV, 0);
    assert_eq!(w.message(client, Call::Recv, Slot(11), forever(REPLY)).status(), Err(Error::NotReceiver));
}

#[test]
fn no_wait_never_blocks() {
    let mut w = World::new();
    let (server, client) = pair(&mut w);
    for call in [Call::Send, Call::Call] {
        let say = Say { deadline: NO_WAIT, ..Default::default() };
        assert_eq!(w.message(client, call, EP, say).status(), Err(Error::Timeout));
    }
    let say = Say { deadline: NO_WAIT, ..forever(REPLY) };
    assert_eq!(w.message(server, Call::Recv, EP, say).status(), Err(Error::Timeout));
}

#[test]
fn long_messages_need_message_pages_and_move_120_words() {
    let mut w = World::new();
    let (server, client) = pair(&mut w);
    let page = w.k.threads.get(client.thread).unwrap().message.unwrap().0;
    use crate::machine::Machine;
    for i in 6..120 {
        w.m.frame(page)[i] = i as u64;
    }
    w.message(server, Call::Recv, EP, forever(REPLY));
    w.message(client, Call::Call, EP, Say { len: 120, deadline: FOREVER, ..Default::default() });
    let there = w.k.threads.get(server.thread).unwrap().message.unwrap().0;
    assert!((6..120).all(|i| w.m.frame(there)[i] == i as u64));
    assert_eq!(w.outcome(server).words(), 120);
}

#[test]
fn a_dead_receiver_fails_ordinary_callers_and_keeps_durable_ones() {
    for durable in [false, true] {
        let mut w = World::new();
        let server = w.actor(50);
        let client = w.actor(40);
        let keeper = w.actor(30);
        let e = w.k.new_endpoint(w.k.root_pool, Some(server.process), None, durable, 0).unwrap();
        let object = reference(ObjectType::Endpoint, e);
        w.give(client, EP, object, Rights::SEND);
        w.give(keeper, EP, object, Rights::SEND);
        w.message(client, Call::Call, EP, Say { deadline: FOREVER, ..Default::default() });
        w.k.begin_end(&mut w.m, server.process, Exit { cause: 2, ..Exit::default() });
        w.settle();
        match durable {
            false => assert_eq!(w.outcome(client).status(), Err(Error::PeerDied)),
            true => assert!(matches!(w.state(client), ThreadState::Sending { .. })),
        }
    }
}

#[test]
fn the_death_of_a_reply_holder_fails_its_caller_as_delivered() {
    let mut w = World::new();
    let (server, client) = pair(&mut w);
    called(&mut w, server, client);
    w.k.begin_end(&mut w.m, server.process, Exit { cause: 2, ..Exit::default() });
    w.settle();
    assert_eq!(w.outcome(client).status(), Err(Error::PeerDiedDelivered));
}

#[test]
fn a_bound_notification_interrupts_a_receive() {
    let mut w = World::new();
    let (server, _) = pair(&mut w);
    w.give(server, Slot(2), reference(ObjectType::Thread, server.thread), Rights::MANAGE);
    w.invoke(server, POOL, Op::NotificationCreate, &[12]).unwrap();
    w.invoke(server, Slot(12), Op::NotificationBind, &[2]).unwrap();
    w.message(server, Call::Recv, EP, forever(REPLY));
    let other = w.actor(30);
    w.share(server, Slot(12), other, Slot(12), Rights::SEND, 0b110);
    w.invoke(other, Slot(12), Op::Signal, &[0b011]).unwrap();
    let o = w.outcome(server);
    assert!(o.is_flags());
    assert_eq!(w.words(server)[0], 0b010, "a badge masks the flags");
}

#[test]
fn an_alarm_sets_its_flags_at_its_time() {
    let mut w = World::new();
    let a = w.actor(50);
    w.invoke(a, POOL, Op::NotificationCreate, &[12]).unwrap();
    w.invoke(a, Slot(12), Op::NotificationAlarm, &[500, 4]).unwrap();
    w.message(a, Call::Recv, Slot(12), forever(0));
    w.m.time = 499;
    w.k.enter(&mut w.m, Entry::Timer);
    assert!(matches!(w.state(a), ThreadState::Waiting { .. }));
    w.m.time = 500;
    w.k.enter(&mut w.m, Entry::Timer);
    assert!(w.outcome(a).is_flags());
    assert_eq!(w.words(a)[0], 4);
}

#[test]
fn a_sent_message_comes_without_a_reply() {
    let mut w = World::new();
    let (server, client) = pair(&mut w);
    w.message(server, Call::Recv, EP, forever(REPLY));
    let say = Say { label: 4, deadline: FOREVER, ..Default::default() };
    assert_eq!(w.message(client, Call::Send, EP, say).status(), Ok(()));
    let o = w.outcome(server);
    assert_eq!((o.label(), o.has_reply()), (4, false));
    assert!(w.k.find(server.process, Slot(REPLY)).is_err());
}

#[test]
fn an_endow_only_capability_travels_only_with_the_copy_right_and_stays_so() {
    let mut w = World::new();
    let (server, client) = pair(&mut w);
    let give = Rights::CREATE | Rights::ENDOW;
    w.invoke(client, POOL, Op::CapCopy, &[40, (give | Rights::COPY).bits().into()]).unwrap();
    w.invoke(client, POOL, Op::CapCopy, &[41, give.bits().into()]).unwrap();
    let receive = Receive { reply: Slot(REPLY), base: Slot(30), count: 1 };
    w.message(server, Call::Recv, EP, Say { receive, deadline: FOREVER, ..Default::default() });
    let mut say = Say {
        caps: [Slot(41), Slot(0), Slot(0), Slot(0)],
        cap_count: 1,
        deadline: FOREVER,
        ..Default::default()
    };
    assert_eq!(w.message(client, Call::Call, EP, say).status(), Err(Error::EndowOnly));
    say.caps[0] = Slot(40);
    w.message(client, Call::Call, EP, say);
    assert_eq!(w.outcome(server).caps(), 1);
    assert_eq!(w.invoke(server, Slot(30), Op::RegionCreate, &[1, 31]), Err(Error::EndowOnly));
    assert_eq!(w.invoke(server, Slot(30), Op::CapCopy, &[31, 0]), Err(Error::EndowOnly));
}

/// The short path of reply_recv looks at the caller's slot: that the caller waits again does not make an old Reply
/// good.
#[test]
fn a_late_reply_answers_no_later_call() {
    let mut w = World::new();
    let [caller, slow, other] = [40, 60, 60].map(|priority| w.actor(priority));
    for (server, slot) in [(slow, 10), (other, 11)] {
        w.invoke(server, POOL, Op::EndpointCreate, &[0, 0, 10]).unwrap();
        w.share(server, Slot(10), caller, Slot(slot), Rights::SEND, 0);
        w.message(server, Call::Recv, Slot(10), forever(20));
    }
    let hasty = Say { deadline: w.m.time + 1000, ..forever(0) };
    w.message(caller, Call::Call, Slot(10), hasty);
    w.m.time += 2000;
    w.k.enter(&mut w.m, Entry::Timer);
    assert_eq!(w.outcome(caller).status(), Err(Error::Timeout));
    w.message(caller, Call::Call, Slot(11), forever(0));
    assert_eq!(w.state(caller), ThreadState::AwaitingReply);
    let late = w.message(slow, Call::ReplyRecv, Slot(10), forever(20));
    assert_eq!(late.status(), Err(Error::CallerGone));
    assert_eq!(w.state(caller), ThreadState::AwaitingReply, "it waits for the other server");
    w.message(other, Call::ReplyRecv, Slot(10), forever(20));
    assert_eq!(w.outcome(caller).status(), Ok(()));
}
