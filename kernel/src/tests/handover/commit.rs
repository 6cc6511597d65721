//! Commits, and what comes after them.

use super::*;

#[test]
fn a_commit_checks_every_participant_and_changes_nothing_when_one_fails() {
    for dead in 0..3 {
        for new in [false, true] {
            let mut r = Rig::new(3);
            r.close();
            r.kill(if new { r.v2[dead] } else { r.v1[dead] });
            let before = r.picture();
            assert_eq!(r.commit(), Err(Error::ParticipantDead));
            assert_eq!(detail(&r), dead as u64 | if new { DEAD_TO } else { 0 });
            assert_eq!(r.picture(), before);
            r.balance("with a dead participant");
        }
    }
    let mut r = Rig::new(2);
    r.close();
    let p = r.w.k.processes.get_mut(r.v2[1].process).unwrap();
    p.state = ProcessState::Created;
    assert_eq!(r.commit(), Err(Error::NotStarted));
    r.w.k.processes.get_mut(r.v2[1].process).unwrap().state = ProcessState::Running;
    declare(&mut r.w, r.v2[1], 5);
    assert_eq!(r.commit(), Err(Error::LabelMismatch));
    assert_eq!(detail(&r), 1);
    declare(&mut r.w, r.v2[1], 1);
    r.commit().unwrap();
    r.balance("after a commit at last");
}

#[test]
fn a_handed_over_process_stays_suspended_whoever_tries_to_wake_it() {
    let mut r = Rig::new(1);
    let (v1, accomplice) = (r.v1[0], r.w.actor(30));
    r.w.give(accomplice, Slot(40), reference(ObjectType::Thread, v1.thread), Rights::MANAGE);
    r.w.give(accomplice, Slot(41), reference(ObjectType::Process, v1.process), Rights::USE);
    r.close();
    r.commit().unwrap();
    let create = [0x10_0000, 0x20_0000, 0, 10, 0, 42];
    let attempts = |r: &mut Rig| {
        assert_eq!(r.w.invoke(accomplice, Slot(40), Op::ThreadResume, &[]), Err(Error::HandedOver));
        assert_eq!(r.w.invoke(accomplice, Slot(41), Op::ThreadCreate, &create), Err(Error::HandedOver));
        assert_eq!(r.w.invoke(accomplice, Slot(41), Op::ProcessStart, &[]), Err(Error::HandedOver));
        assert_eq!(r.w.state(v1), ThreadState::Inactive);
    };
    attempts(&mut r);
    let e = managed(0, 0);
    assert_eq!(
        r.w.invoke(r.manager, e, Op::EndpointBind, &[managed(0, 1).0.into()]),
        Err(Error::AlreadyCovered)
    );
    r.manage(Op::HandoverFinalise, &[]).unwrap();
    attempts(&mut r);
    assert_eq!(
        r.w.invoke(r.manager, e, Op::EndpointBind, &[managed(0, 1).0.into()]),
        Err(Error::AlreadyBound)
    );
    // It takes part in no other Handover either.
    let args = [JOB.0.into(), u64::MAX, 46];
    r.w.invoke(r.manager, HANDOVER_POOL, Op::HandoverCreate, &args).unwrap();
    let [from, to] = [2, 1].map(|at| u64::from(managed(0, at).0));
    let again = [e.0.into(), from, to, SERVICE_POOL.0.into()];
    assert_eq!(r.w.invoke(r.manager, Slot(46), Op::HandoverAdd, &again), Err(Error::HandedOver));
    r.kill(accomplice);
    r.balance("after attempts to resume");
}

#[test]
fn a_thread_suspended_by_others_during_the_commit_stays_so_after_a_rollback() {
    let mut r = Rig::new(1);
    r.close();
    r.commit().unwrap();
    r.w.k.suspend(r.v1[0].thread);
    r.manage(Op::HandoverRollback, &[]).unwrap();
    assert_eq!(r.w.state(r.v1[0]), ThreadState::Inactive);
    r.balance("after a suspension");
}

#[test]
fn a_manager_that_is_itself_handed_over_stops_with_its_commit_done() {
    let mut r = Rig::new(1);
    r.w.share(r.manager, H, r.v1[0], Slot(63), Rights::USE, 0);
    r.close();
    assert!(r.w.invoke(r.v1[0], Slot(63), Op::HandoverCommit, &[1]).is_ok());
    assert_eq!((r.status().0, r.w.state(r.v1[0])), (State::Committed, ThreadState::Inactive));
    assert!(r.w.k.running() != Running::Thread(r.v1[0].thread));
    r.balance("after a commit by version 1");
}

#[test]
fn a_dead_new_version_is_replaced_from_the_last_state() {
    let mut r = Rig::new(2);
    r.close();
    r.export(0, true).unwrap();
    r.commit().unwrap();
    let fresh = r.w.actor(50);
    declare(&mut r.w, fresh, 1);
    r.w.share(fresh, PROCESS, r.manager, Slot(40), Rights::MANAGE, 0);
    r.share_handover(fresh);
    assert_eq!(r.manage(Op::HandoverReplace, &[0, 40]), Err(Error::AlreadyCommitted));
    r.kill(r.v2[0]);
    assert_eq!(r.receiver(0), None);
    r.call(0, 3);
    assert_eq!(r.manage(Op::HandoverReplace, &[0, 40]), Err(Error::LabelMismatch));
    declare(&mut r.w, fresh, 0);
    r.manage(Op::HandoverReplace, &[0, 40]).unwrap();
    assert_eq!(r.receiver(0), Some(fresh.process));
    assert_eq!(r.receiver(1), Some(r.v2[1].process), "the other service is untouched");
    r.w.invoke(fresh, H, Op::HandoverState, &[0, STATE.0.into()]).unwrap();
    assert_eq!(r.manage(Op::HandoverReplace, &[0, managed(1, 2).0.into()]), Err(Error::AlreadyCommitted));
    r.manage(Op::HandoverRollback, &[]).unwrap();
    assert!(r.w.k.processes.get(fresh.process).unwrap().retired);
    r.kill(fresh);
    r.balance("after a replacement");
}

#[test]
fn finalising_raises_the_floor_and_frees_the_state() {
    let mut r = Rig::new(1);
    r.close();
    r.export(0, true).unwrap();
    r.commit().unwrap();
    let region = r.w.k.regions.iter().next().unwrap().0;
    r.kill(r.v1[0]);
    assert!(r.w.k.regions.get(region).is_some(), "kept for a rollback");
    r.manage(Op::HandoverFinalise, &[]).unwrap();
    r.w.settle();
    assert!(r.w.k.regions.get(region).is_none());
    assert_eq!(r.manage(Op::HandoverRollback, &[]), Err(Error::HandoverFinalised));
    r.balance("after finalising");
}
