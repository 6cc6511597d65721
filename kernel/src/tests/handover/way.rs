//! The whole way, from the first service to the last decision.

use super::*;

#[test]
fn two_to_eight_services_move_at_once_and_callers_notice_nothing() {
    for count in 2..=8 {
        let mut r = Rig::new(count);
        r.close();
        for i in 0..count {
            assert!(matches!(r.call(i, i as u32), ThreadState::Sending { .. }), "callers queue");
            r.export(i, true).unwrap();
        }
        r.commit().unwrap();
        for i in 0..count {
            assert_eq!(r.receiver(i), Some(r.v2[i].process));
            assert!(r.w.k.processes.get(r.v1[i].process).unwrap().retired);
            assert_eq!(r.w.state(r.v1[i]), ThreadState::Inactive);
            let words = r.w.invoke(r.v2[i], H, Op::HandoverState, &[i as u64, STATE.0.into()]).unwrap();
            assert_eq!(words[..2], [2, 77]);
            let o = r.receive(r.v2[i], REPLY);
            assert_eq!((o.status(), o.label(), r.w.badge(r.v2[i])), (Ok(()), i as u32, 7));
            r.reply(r.v2[i], REPLY, 90 + i as u32);
            assert_eq!(r.w.outcome(r.clients[i]).label(), 90 + i as u32);
        }
        r.manage(Op::HandoverFinalise, &[]).unwrap();
        r.balance("after a whole update");
    }
}

#[test]
fn a_ninth_service_does_not_fit() {
    let mut r = Rig::bare(9);
    r.create(u64::MAX).unwrap();
    (0..8).for_each(|i| {
        r.add(i).unwrap();
    });
    let before = r.picture();
    assert_eq!(r.add(8), Err(Error::HandoverFull));
    assert_eq!(r.picture(), before);
    r.balance("after a Handover that was full");
}

#[test]
fn a_rollback_is_the_inverse_of_a_commit() {
    let mut r = Rig::new(3);
    let blocked = r.v1[1];
    r.w.message(blocked, Call::Recv, EP, forever(REPLY));
    r.close();
    assert_eq!(r.w.outcome(blocked).status(), Err(Error::Quiesced), "who waits is told");
    (0..3).for_each(|i| {
        r.export(i, true).unwrap();
    });
    // One thread was suspended before and must not run after the rollback.
    r.w.k.suspend(r.v1[2].thread);
    let states: Vec<_> = r.v1.iter().map(|a| r.w.state(*a) == ThreadState::Inactive).collect();
    r.commit().unwrap();
    assert!(r.v1.iter().all(|a| r.w.state(*a) == ThreadState::Inactive));
    r.manage(Op::HandoverRollback, &[]).unwrap();
    let after: Vec<_> = r.v1.iter().map(|a| r.w.state(*a) == ThreadState::Inactive).collect();
    assert_eq!(after, states);
    for i in 0..3 {
        assert_eq!(r.receiver(i), Some(r.v1[i].process));
        assert_eq!(r.w.state(r.v2[i]), ThreadState::Inactive, "the new version is suspended");
        assert!(r.w.k.processes.get(r.v2[i].process).unwrap().retired);
        assert!(!r.w.k.processes.get(r.v1[i].process).unwrap().retired);
    }
    // What it had exported is there for a replay.
    assert_eq!(r.w.invoke(r.v1[0], H, Op::HandoverState, &[0, TAKEN.0.into()]).unwrap()[..2], [2, 77]);
    r.balance("after a rollback");
}
