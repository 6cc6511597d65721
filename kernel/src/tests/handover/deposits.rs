//! States that are exported, and what is deposited.

use super::*;

#[test]
fn state_is_exported_once_by_the_quiet_service_itself() {
    let mut r = Rig::new(2);
    assert_eq!(r.export(0, true), Err(Error::NotClosed));
    r.call(0, 1);
    r.receive(r.v1[0], REPLY);
    r.manage(Op::HandoverClose, &[1]).unwrap();
    let again = |r: &mut Rig| r.w.invoke(r.v1[0], H, Op::HandoverExport, &[0, 77, STATE.0.into()]);
    assert_eq!(again(&mut r), Err(Error::RepliesOutstanding));
    assert_eq!(r.w.words(r.v1[0])[0], 1);
    r.reply(r.v1[0], REPLY, 0);
    assert_eq!(r.w.invoke(r.v1[1], H, Op::HandoverExport, &[0, 77, 0]), Err(Error::NoCapability));
    r.w.invoke(r.v1[1], POOL, Op::RegionCreate, &[1, STATE.0.into()]).unwrap();
    let foreign = r.w.invoke(r.v1[1], H, Op::HandoverExport, &[0, 77, STATE.0.into()]);
    assert_eq!(foreign, Err(Error::NotParticipant));
    again(&mut r).unwrap();
    assert_eq!(again(&mut r), Err(Error::AlreadyExported));
    r.balance("after exports");
}

#[test]
fn a_state_that_can_still_be_written_stops_the_commit_and_the_import() {
    let mut r = Rig::new(1);
    r.close();
    r.export(0, false).unwrap();
    let map = [PROCESS.0.into(), 0x80_0000, 0, 1, 1, 50];
    r.w.invoke(r.v1[0], STATE, Op::RegionMap, &map).unwrap();
    let take = |r: &mut Rig| r.w.invoke(r.v2[0], H, Op::HandoverState, &[0, STATE.0.into()]);
    assert_eq!(take(&mut r), Err(Error::NotSealed));
    let before = r.picture();
    assert_eq!(r.commit(), Err(Error::NotSealed));
    assert_eq!(r.picture(), before);
    assert_eq!(r.w.invoke(r.v1[0], STATE, Op::RegionSeal, &[]), Err(Error::StillWritable));
    r.w.invoke(r.v1[0], Slot(50), Op::MappingUnmap, &[]).unwrap();
    r.w.invoke(r.v1[0], STATE, Op::RegionSeal, &[]).unwrap();
    take(&mut r).unwrap();
    r.commit().unwrap();
    assert_eq!(
        r.w.invoke(r.v2[0], STATE, Op::RegionMap, &map),
        Err(Error::Sealed).or(Err(Error::MissingRight))
    );
    r.balance("after a late seal");
}

#[test]
fn the_exported_state_is_paid_by_the_service_and_outlives_its_author() {
    let mut r = Rig::new(1);
    r.close();
    r.export(0, true).unwrap();
    let pool = crate::kernel::id_of(&r.w.k.find(r.manager.process, SERVICE_POOL).unwrap().cap);
    let region = r.w.k.regions.iter().find(|(_, x)| x.pages == 2).unwrap().1.pool;
    assert_eq!(region, Some(pool));
    r.w.invoke(r.v2[0], H, Op::HandoverState, &[0, STATE.0.into()]).unwrap();
    // Revoking what it kept takes nothing from version 2.
    r.w.invoke(r.v1[0], STATE, Op::CapRevoke, &[]).unwrap();
    r.kill(r.v1[0]);
    assert!(r.w.k.find(r.v2[0].process, STATE).is_ok());
    r.commit().unwrap();
    assert_eq!(r.receiver(0), Some(r.v2[0].process));
    r.balance("after the author's death");
}

#[test]
fn a_reply_kept_across_the_commit_stops_it_and_a_deposited_one_passes() {
    let mut r = Rig::new(2);
    for i in 0..2 {
        r.call(i, 1);
        r.receive(r.v1[i], REPLY);
    }
    r.close();
    assert_eq!(r.commit(), Err(Error::RepliesOutstanding));
    assert_eq!(detail(&r), 2);
    // Hiding it with an accomplice does not help.
    let accomplice = r.w.actor(30);
    r.w.invoke(accomplice, POOL, Op::EndpointCreate, &[0, 0, EP.0.into()]).unwrap();
    r.w.share(accomplice, EP, r.v1[0], Slot(60), Rights::SEND | Rights::GRANT, 0);
    let receive = Receive { reply: Slot(REPLY), base: Slot(30), count: 1 };
    r.w.message(accomplice, Call::Recv, EP, Say { receive, deadline: FOREVER, ..Default::default() });
    let caps = [Slot(REPLY), Slot(0), Slot(0), Slot(0)];
    let say = Say { caps, cap_count: 1, deadline: FOREVER, ..Default::default() };
    assert_eq!(r.w.message(r.v1[0], Call::Send, Slot(60), say).status(), Ok(()));
    assert_eq!(r.commit(), Err(Error::RepliesOutstanding));
    let o = r.w.message(accomplice, Call::Reply, Slot(30), Say { label: 4, ..Default::default() });
    assert_eq!(o.status(), Ok(()));
    let deposit = r.w.invoke(r.v1[1], H, Op::HandoverDeposit, &[1, REPLY.into()]).unwrap()[0];
    assert_eq!(r.reply(r.v1[1], REPLY, 3).status(), Err(Error::NoCapability), "it is out of reach");
    assert_eq!(r.w.invoke(r.v2[1], H, Op::HandoverTake, &[deposit, 41]), Err(Error::AlreadyClosed));
    r.commit().unwrap();
    assert_eq!(r.w.invoke(r.v2[0], H, Op::HandoverTake, &[deposit, 41]), Err(Error::NotParticipant));
    r.w.invoke(r.v2[1], H, Op::HandoverTake, &[deposit, 41]).unwrap();
    assert_eq!(r.w.invoke(r.v2[1], H, Op::HandoverTake, &[deposit, 42]), Err(Error::NoCapability));
    assert_eq!(r.reply(r.v2[1], 41, 9).status(), Ok(()));
    assert_eq!(r.w.outcome(r.clients[1]).label(), 9);
    r.kill(accomplice);
    r.balance("after Replies");
}

#[test]
fn a_reply_that_an_accomplice_hides_stops_export_and_commit() {
    let mut r = Rig::new(1);
    let v1 = r.v1[0];
    let accomplice = hide(&mut r, v1);
    r.close();
    r.w.invoke(r.v1[0], POOL, Op::RegionCreate, &[1, STATE.0.into()]).unwrap();
    assert_eq!(
        r.w.invoke(r.v1[0], H, Op::HandoverExport, &[0, 77, STATE.0.into()]),
        Err(Error::RepliesOutstanding)
    );
    assert_eq!(r.commit(), Err(Error::RepliesOutstanding));
    assert_eq!(detail(&r), 1);
    let o = r.w.message(accomplice, Call::Reply, Slot(30), Say { label: 4, ..Default::default() });
    assert_eq!(o.status(), Ok(()));
    r.commit().unwrap();
    r.kill(accomplice);
    r.balance("after a hidden Reply");
}

/// A client's call, whose Reply the server gives to an accomplice.
fn hide(r: &mut Rig, server: Actor) -> Actor {
    r.call(0, 1);
    r.receive(server, REPLY);
    let accomplice = r.w.actor(30);
    r.w.invoke(accomplice, POOL, Op::EndpointCreate, &[0, 0, EP.0.into()]).unwrap();
    r.w.share(accomplice, EP, server, Slot(60), Rights::SEND | Rights::GRANT, 0);
    let receive = Receive { reply: Slot(REPLY), base: Slot(30), count: 1 };
    r.w.message(accomplice, Call::Recv, EP, Say { receive, deadline: FOREVER, ..Default::default() });
    let caps = [Slot(REPLY), Slot(0), Slot(0), Slot(0)];
    let say = Say { caps, cap_count: 1, deadline: FOREVER, ..Default::default() };
    assert_eq!(r.w.message(server, Call::Send, Slot(60), say).status(), Ok(()));
    accomplice
}

#[test]
fn a_call_counts_though_its_caller_let_go_of_the_endpoint() {
    let mut r = Rig::new(1);
    r.call(0, 1);
    r.receive(r.v1[0], REPLY);
    let client = r.w.k.find(r.clients[0].process, EP).unwrap().id;
    r.w.k.delete(&mut r.w.m, client);
    r.close();
    assert_eq!(r.commit(), Err(Error::RepliesOutstanding));
    r.reply(r.v1[0], REPLY, 2);
    r.commit().unwrap();
    r.balance("after a caller that let go");
}

#[test]
fn a_rollback_beats_a_reply_that_an_accomplice_hides() {
    let mut r = Rig::new(1);
    r.close();
    r.commit().unwrap();
    let v2 = r.v2[0];
    let accomplice = hide(&mut r, v2);
    r.manage(Op::HandoverRollback, &[]).unwrap();
    assert_eq!(r.w.outcome(r.clients[0]).status(), Err(Error::PeerDiedDelivered));
    let o = r.w.message(accomplice, Call::Reply, Slot(30), Say { label: 4, ..Default::default() });
    assert_eq!(o.status(), Err(Error::CallerGone));
    r.kill(accomplice);
    r.balance("after a hidden Reply and a rollback");
}

#[test]
fn a_rollback_beats_a_late_reply_and_leaves_deposited_calls_alone() {
    let mut r = Rig::new(2);
    r.call(0, 1);
    r.receive(r.v1[0], REPLY);
    r.close();
    let deposit = r.w.invoke(r.v1[0], H, Op::HandoverDeposit, &[0, REPLY.into()]).unwrap()[0];
    r.commit().unwrap();
    r.call(1, 2);
    assert_eq!(r.receive(r.v2[1], REPLY).status(), Ok(()));
    r.manage(Op::HandoverRollback, &[]).unwrap();
    assert_eq!(r.w.outcome(r.clients[1]).status(), Err(Error::PeerDiedDelivered));
    // Its thread is suspended; here it answers all the same.
    r.w.checks = false;
    assert_eq!(r.reply(r.v2[1], REPLY, 3).status(), Err(Error::CallerGone));
    assert_eq!(r.w.state(r.clients[0]), ThreadState::AwaitingReply);
    assert_eq!(r.w.invoke(r.v2[0], H, Op::HandoverTake, &[deposit, 41]), Err(Error::NotParticipant));
    r.w.invoke(r.v1[0], H, Op::HandoverTake, &[deposit, 41]).unwrap();
    assert_eq!(r.reply(r.v1[0], 41, 8).status(), Ok(()));
    assert_eq!(r.w.outcome(r.clients[0]).label(), 8);
    r.balance("after a late reply");
}

#[test]
fn a_session_endpoint_follows_its_service() {
    let mut r = Rig::new(1);
    let (v1, v2, client) = (r.v1[0], r.v2[0], r.clients[0]);
    r.w.invoke(v1, POOL, Op::EndpointCreate, &[1, 0, SESSION.0.into()]).unwrap();
    r.w.share(v1, SESSION, client, SESSION, Rights::SEND, 3);
    r.w.share(v1, SESSION, v1, Slot(61), Rights::SEND, 0);
    let deposit = |r: &mut Rig, slot: u64| r.w.invoke(v1, H, Op::HandoverDeposit, &[0, slot]);
    assert_eq!(deposit(&mut r, 61), Err(Error::MissingRight));
    assert_eq!(deposit(&mut r, EP.0.into()), Err(Error::AlreadyCovered));
    assert_eq!(deposit(&mut r, POOL.0.into()), Err(Error::WrongType));
    let number = deposit(&mut r, SESSION.0.into()).unwrap()[0];
    assert_eq!(r.manage(Op::HandoverService, &[0]).unwrap()[4], 1 << number);
    r.close();
    r.commit().unwrap();
    let say = Say { label: 5, deadline: FOREVER, ..Default::default() };
    r.w.message(client, Call::Call, SESSION, say);
    assert!(matches!(r.w.state(client), ThreadState::Sending { .. }));
    r.w.invoke(v2, H, Op::HandoverTake, &[number, SESSION.0.into()]).unwrap();
    let o = r.w.message(v2, Call::Recv, SESSION, forever(REPLY));
    assert_eq!((o.status(), o.label(), r.w.badge(v2)), (Ok(()), 5, 3));
    // The author's end does not end what its service's Pool pays for.
    r.kill(v1);
    r.reply(v2, REPLY, 6);
    assert_eq!(r.w.outcome(client).label(), 6);
    r.balance("after a session");
}

#[test]
fn a_session_endpoint_that_joins_a_shut_service_is_shut() {
    let mut r = Rig::new(2);
    let v1 = r.v1[0];
    r.w.invoke(v1, POOL, Op::EndpointCreate, &[1, 0, SESSION.0.into()]).unwrap();
    r.w.invoke(v1, SESSION, Op::CapCopy, &[62, Rights::RECV.bits().into()]).unwrap();
    r.manage(Op::HandoverClose, &[1]).unwrap();
    let number = r.w.invoke(v1, H, Op::HandoverDeposit, &[0, SESSION.0.into()]).unwrap()[0];
    assert_eq!(r.w.message(v1, Call::Recv, Slot(62), forever(REPLY)).status(), Err(Error::Quiesced));
    assert_eq!(r.w.invoke(v1, H, Op::HandoverTake, &[number, 41]), Err(Error::AlreadyClosed));
    r.w.invoke(v1, H, Op::HandoverReopen, &[]).unwrap();
    r.w.invoke(v1, H, Op::HandoverTake, &[number, 41]).unwrap();
    let say = Say { deadline: 0, ..forever(REPLY) };
    assert_eq!(r.w.message(v1, Call::Recv, Slot(41), say).status(), Err(Error::Timeout), "it serves again");
    r.balance("after a session that came late");
}

#[test]
fn a_device_has_one_master_at_a_time() {
    let mut r = Rig::new(1);
    let (v1, v2) = (r.v1[0], r.v2[0]);
    r.device(v1);
    r.w.invoke(v1, DEVICE, Op::CapCopy, &[60, Rights::MANAGE.bits().into()]).unwrap();
    let deposit = |r: &mut Rig| r.w.invoke(v1, H, Op::HandoverDeposit, &[0, DEVICE.0.into()]);
    assert_eq!(deposit(&mut r), Err(Error::NotExclusive));
    r.w.invoke(v1, Slot(60), Op::CapDelete, &[]).unwrap();
    let number = deposit(&mut r).unwrap()[0];
    r.close();
    r.commit().unwrap();
    let take = |r: &mut Rig, who, slot: u64| r.w.invoke(who, H, Op::HandoverTake, &[number, slot]);
    take(&mut r, v2, 41).unwrap();
    assert_eq!(take(&mut r, v2, 42), Err(Error::AlreadyTaken));
    let copy = r.w.invoke(v2, Slot(41), Op::CapCopy, &[42, 0]);
    assert_eq!(copy, Err(Error::NotCopyable), "what may have to go back has no second copy");
    r.manage(Op::HandoverRollback, &[]).unwrap();
    assert!(r.w.k.find(v2.process, Slot(41)).is_err());
    take(&mut r, v1, 41).unwrap();
    assert!(r.w.k.find(v1.process, Slot(41)).unwrap().cap.rights.contains(Rights::COPY));
    r.balance("after a device");
}

#[test]
fn a_finalised_device_is_its_new_master_s_for_good() {
    let mut r = Rig::new(1);
    let (v1, v2) = (r.v1[0], r.v2[0]);
    r.device(v1);
    let number = r.w.invoke(v1, H, Op::HandoverDeposit, &[0, DEVICE.0.into()]).unwrap()[0];
    r.close();
    r.commit().unwrap();
    r.w.invoke(v2, H, Op::HandoverTake, &[number, 41]).unwrap();
    r.manage(Op::HandoverFinalise, &[]).unwrap();
    r.w.invoke(v2, H, Op::HandoverTake, &[number, 42]).unwrap();
    assert!(r.w.k.find(v2.process, Slot(42)).unwrap().cap.rights.contains(Rights::COPY));
    r.balance("after a finalised device");
}

#[test]
fn deposits_are_bounded_and_a_revoked_one_is_gone() {
    let mut r = Rig::new(1);
    let v1 = r.v1[0];
    for at in 0..65u64 {
        r.device(v1);
        let got = r.w.invoke(v1, H, Op::HandoverDeposit, &[0, DEVICE.0.into()]);
        assert_eq!(got.map(|w| w[0]), if at < 64 { Ok(at) } else { Err(Error::HandoverFull) });
    }
    r.w.invoke(v1, H, Op::HandoverTake, &[3, 41]).unwrap();
    assert_eq!(r.w.invoke(v1, H, Op::HandoverTake, &[3, 42]), Err(Error::NoCapability));
    assert_eq!(r.w.invoke(v1, H, Op::HandoverTake, &[64, 42]), Err(Error::InvalidArgument));
    assert_eq!(r.w.invoke(v1, H, Op::HandoverTake, &[u64::MAX, 42]), Err(Error::InvalidArgument));
    r.w.invoke(v1, H, Op::HandoverDeposit, &[0, DEVICE.0.into()]).unwrap();
    // Whoever gave the device to the service takes it away.
    r.w.give(r.manager, Slot(70), r.w.k.find(v1.process, Slot(41)).unwrap().cap.object, Rights::USE);
    r.w.invoke(v1, H, Op::HandoverTake, &[7, 43]).unwrap();
    r.w.invoke(v1, Slot(43), Op::CapDelete, &[]).unwrap();
    r.w.share(r.manager, Slot(70), v1, Slot(43), Rights::MANAGE, 0);
    assert_eq!(r.w.invoke(v1, H, Op::HandoverDeposit, &[0, 43]).unwrap()[0], 7);
    r.w.invoke(r.manager, Slot(70), Op::CapRevoke, &[]).unwrap();
    assert_eq!(r.w.invoke(v1, H, Op::HandoverTake, &[7, 44]), Err(Error::NoCapability));
    assert_eq!(r.manage(Op::HandoverService, &[0]).unwrap()[4], !(1 << 7));
    r.balance("after many deposits");
}
