//! Whoever dies, and whenever.

use super::*;

#[test]
fn the_last_manager_s_end_aborts_what_is_not_committed() {
    for closed in [false, true] {
        let mut r = Rig::new(2);
        if closed {
            r.close();
            r.export(0, true).unwrap();
        }
        // A second manager, and one that may only pass it on.
        let second = r.w.actor(30);
        r.w.share(r.manager, H, second, H, Rights::MANAGE, 0);
        r.w.share(r.manager, H, second, Slot(50), Rights::MANAGE | Rights::ENDOW, 0);
        r.kill(r.manager);
        assert_ne!(r.status().0, State::Aborted, "one manager is left");
        r.w.invoke(second, H, Op::CapDelete, &[]).unwrap();
        assert_eq!(r.status(), (State::Aborted, 2, Cause::Unmanaged));
        for i in 0..2 {
            assert_eq!(r.receiver(i), Some(r.v1[i].process));
            assert_eq!(r.receive(r.v1[i], REPLY).status(), Err(Error::Timeout));
        }
        r.kill(second);
        r.balance("after the managers' end");
    }
}

#[test]
fn a_commit_outlives_its_managers_and_is_adopted_through_the_job() {
    for roll_back in [false, true] {
        let mut r = Rig::new(2);
        r.close();
        r.export(0, true).unwrap();
        r.commit().unwrap();
        let next = r.w.actor(55);
        let job = r.w.k.jobs.iter().next().unwrap().0;
        r.w.give(next, JOB, reference(ObjectType::Job, job), Rights::MANAGE | Rights::READ);
        for who in [r.manager, r.v2[0], r.v2[1]] {
            let _ = r.w.invoke(who, H, Op::CapDelete, &[]);
        }
        r.kill(r.manager);
        assert_eq!(r.status().0, State::Committed);
        let cursor = r.w.invoke(next, JOB, Op::JobHandover, &[0, H.0.into()]).unwrap()[0];
        assert_eq!(r.w.invoke(next, JOB, Op::JobHandover, &[cursor, 60]), Err(Error::NoMoreEntries));
        let service = r.w.invoke(next, H, Op::HandoverService, &[0]).unwrap();
        r.w.invoke(next, JOB, Op::JobAdopt, &[service[0], 61]).unwrap();
        assert_eq!(r.w.k.find(next.process, Slot(61)).unwrap().cap.object.index, r.v1[0].process.index());
        assert_eq!(r.w.invoke(next, JOB, Op::JobAdopt, &[u64::MAX, 62]), Err(Error::ObjectGone));
        let op = if roll_back { Op::HandoverRollback } else { Op::HandoverFinalise };
        r.w.invoke(next, H, op, &[]).unwrap();
        let want = if roll_back { r.v1[1].process } else { r.v2[1].process };
        assert_eq!(r.receiver(1), Some(want));
        r.kill(next);
        r.balance("after an adoption");
    }
}

#[test]
fn a_commit_that_nobody_can_find_any_more_becomes_final() {
    let mut r = Rig::new(1);
    let lost = r
        .w
        .k
        .jobs
        .insert(Job { pool: r.w.k.root_pool, caps: 0, members: 0, creations: crate::rate::Bucket::default() })
        .unwrap();
    r.w.k.charge(r.w.k.root_pool, 0, cost::<Job>()).unwrap();
    r.w.give(r.manager, Slot(80), reference(ObjectType::Job, lost), Rights::USE);
    let id = r.w.k.handovers.iter().next().unwrap().0;
    r.w.k.handovers.get_mut(id).unwrap().job = lost;
    r.close();
    r.export(0, true).unwrap();
    r.commit().unwrap();
    for who in [r.v1[0], r.v2[0]] {
        r.w.k.delete(&mut r.w.m, r.w.k.find(who.process, H).unwrap().id);
    }
    r.w.invoke(r.manager, H, Op::CapDelete, &[]).unwrap();
    assert_eq!(r.status().0, State::Committed, "its Job can still be asked");
    r.w.invoke(r.manager, Slot(80), Op::CapDelete, &[]).unwrap();
    assert_eq!(r.w.k.handovers.live(), 0);
    assert_eq!(r.receiver(0), Some(r.v2[0].process));
    r.balance("after a commit was lost");
}

#[test]
fn everything_comes_back_whoever_dies_first_in_whatever_state() {
    for &state in State::ALL {
        for order in 0..6 {
            let mut r = Rig::in_state(state);
            r.call(0, 1);
            let (v1, v2, manager, client) = (r.v1[0], r.v2[0], r.manager, r.clients[0]);
            let all = [v1, v2, manager, client];
            for step in 0..4 {
                r.kill(all[(order + step * (1 + order % 2 * 2)) % 4]);
                if let Some((_, h)) = r.w.k.handovers.iter().next() {
                    assert!(h.caps > 0 || h.state == State::Committed);
                }
            }
            r.manager = r.v1[1];
            r.balance(&std::format!("{state:?}, order {order}"));
        }
    }
}

#[test]
fn callers_learn_at_once_that_nobody_will_take_their_reply() {
    for state in [State::Aborted, State::Finalised] {
        let mut r = Rig::new(1);
        r.call(0, 1);
        r.receive(r.v1[0], REPLY);
        r.close();
        r.w.invoke(r.v1[0], H, Op::HandoverDeposit, &[0, REPLY.into()]).unwrap();
        if state == State::Aborted {
            r.kill(r.v1[0]);
            assert_eq!(r.w.state(r.clients[0]), ThreadState::AwaitingReply, "it may still be committed");
            r.manage(Op::HandoverAbort, &[]).unwrap();
        } else {
            r.commit().unwrap();
            r.manage(Op::HandoverFinalise, &[]).unwrap();
            assert_eq!(r.w.state(r.clients[0]), ThreadState::AwaitingReply);
            r.kill(r.v2[0]);
        }
        assert_eq!(r.w.outcome(r.clients[0]).status(), Err(Error::PeerDiedDelivered), "{state:?}");
        r.balance("after an orphaned Reply");
    }
}

#[test]
fn a_rollback_needs_every_old_version() {
    let mut r = Rig::new(3);
    r.close();
    r.commit().unwrap();
    r.kill(r.v1[2]);
    let before = r.picture();
    assert_eq!(r.manage(Op::HandoverRollback, &[]), Err(Error::ParticipantDead));
    assert_eq!(detail(&r), 2);
    assert_eq!(r.picture(), before);
    r.manage(Op::HandoverFinalise, &[]).unwrap();
    r.balance("after a rollback that was refused");
}

#[test]
fn making_a_handover_fails_whole() {
    let mut r = Rig::bare(1);
    let (before, manager) = (r.picture(), r.manager);
    let args = [JOB.0.into(), u64::MAX, H.0.into()];
    let refused = drained(&mut r, manager, |r| r.w.invoke(manager, POOL, Op::HandoverCreate, &args));
    assert_eq!(refused, Err(Error::OutOfObjectBytes));
    assert_eq!(r.picture(), before);
    for slot in 50..54u64 {
        let got = r.w.invoke(r.manager, HANDOVER_POOL, Op::HandoverCreate, &[JOB.0.into(), u64::MAX, slot]);
        assert_eq!(got.is_ok(), slot < 53, "{got:?}");
    }
    r.balance("after many Handovers");
}

#[test]
fn watchers_are_told_and_bounded() {
    let mut r = Rig::new(1);
    for slot in 60..71u64 {
        r.w.invoke(r.manager, HANDOVER_POOL, Op::NotificationCreate, &[slot]).unwrap();
        let got = r.manage(Op::HandoverWatch, &[slot, 2]);
        assert_eq!(got.err(), (slot == 70).then_some(Error::HandoverFull));
    }
    r.manage(Op::HandoverWatch, &[61, 4]).unwrap();
    r.close();
    let o = r.w.message(r.manager, Call::Recv, Slot(61), Say { deadline: 0, ..Default::default() });
    assert!(o.is_flags());
    assert_eq!(r.w.words(r.manager)[0], 6, "both requests of one watcher hold");
    r.balance("after watchers");
}
