//! Gates, epochs and deadlines.

use super::*;

#[test]
fn a_shut_gate_quiesces_its_own_receiver_only() {
    let mut r = Rig::new(2);
    assert_eq!(r.manage(Op::HandoverClose, &[0]), Err(Error::InvalidArgument));
    assert_eq!(r.manage(Op::HandoverClose, &[4]), Err(Error::InvalidArgument));
    let [state, epoch, ..] = r.manage(Op::HandoverClose, &[1]).unwrap();
    assert_eq!((state, epoch), (State::Open as u64, 1), "one gate is open");
    assert_eq!(r.receive(r.v1[0], REPLY).status(), Err(Error::Quiesced));
    assert_eq!(r.receive(r.v2[0], REPLY).status(), Err(Error::NotReceiver));
    assert_eq!(r.receive(r.v1[1], REPLY).status(), Err(Error::Timeout), "the other one serves");
    assert_eq!(r.manage(Op::HandoverClose, &[3]), Err(Error::AlreadyClosed));
    assert_eq!(detail(&r), 0);
    assert_eq!(r.manage(Op::HandoverClose, &[2]).unwrap()[0], State::Closed as u64);
    r.balance("with shut gates");
}

#[test]
fn an_answer_with_a_receive_leaves_before_the_gate_stops_the_receive() {
    let mut r = Rig::new(1);
    r.call(0, 5);
    assert_eq!(r.receive(r.v1[0], REPLY).status(), Ok(()));
    r.close();
    let say = Say { label: 6, deadline: FOREVER, ..forever(REPLY) };
    assert_eq!(r.w.message(r.v1[0], Call::ReplyRecv, EP, say).status(), Err(Error::Quiesced));
    let o = r.w.outcome(r.clients[0]);
    assert_eq!((o.status(), o.label()), (Ok(()), 6));
    r.balance("after an answer at a shut gate");
}

#[test]
fn callers_of_an_ordinary_endpoint_queue_too_while_its_gate_is_shut() {
    let mut r = Rig::new(1);
    let id = crate::kernel::id_of(&r.w.k.find(r.v1[0].process, EP).unwrap().cap);
    r.w.k.endpoints.get_mut(id).unwrap().durable = false;
    r.close();
    assert!(matches!(r.call(0, 1), ThreadState::Sending { .. }));
    r.kill(r.v1[0]);
    assert!(matches!(r.w.state(r.clients[0]), ThreadState::Sending { .. }));
    r.manage(Op::HandoverAbort, &[]).unwrap();
    assert_eq!(r.w.outcome(r.clients[0]).status(), Err(Error::PeerDied), "nobody is left to serve");
    r.balance("after an ordinary endpoint");
}

#[test]
fn a_commit_with_the_epoch_of_before_a_resumption_is_stale() {
    let mut r = Rig::new(1);
    r.close();
    r.export(0, true).unwrap();
    // Version 1 resumes by itself.
    let stranger = r.w.actor(30);
    r.share_handover(stranger);
    assert_eq!(r.w.invoke(stranger, H, Op::HandoverReopen, &[]), Err(Error::NotParticipant));
    assert_eq!(r.w.invoke(r.v2[0], H, Op::HandoverReopen, &[]), Err(Error::NotParticipant));
    assert_eq!(r.w.invoke(r.v1[0], H, Op::HandoverReopen, &[]).unwrap()[0], 2);
    assert_eq!(r.receiver(0), Some(r.v1[0].process));
    assert_eq!(r.manage(Op::HandoverCommit, &[1]), Err(Error::NotClosed));
    r.close();
    let before = r.picture();
    assert_eq!(r.manage(Op::HandoverCommit, &[1]), Err(Error::StaleEpoch));
    assert_eq!(detail(&r), 2);
    assert_eq!(r.picture(), before);
    let service = r.manage(Op::HandoverService, &[0]).unwrap();
    assert_eq!(service[2] & sila_abi::handover::EXPORTED, 0, "the export before the resumption is void");
    r.manage(Op::HandoverCommit, &[2]).unwrap();
    r.kill(stranger);
    r.balance("after a stale commit");
}

#[test]
fn the_deadline_aborts_what_is_not_committed() {
    for committed in [false, true] {
        let mut r = Rig::bare(1);
        assert_eq!(r.create(1), Err(Error::Timeout), "a time that has passed");
        r.create(1000).unwrap();
        r.add(0).unwrap();
        r.w.invoke(r.manager, HANDOVER_POOL, Op::NotificationCreate, &[42]).unwrap();
        r.manage(Op::HandoverWatch, &[42, 8]).unwrap();
        r.close();
        if committed {
            r.commit().unwrap();
        }
        r.w.message(r.manager, Call::Recv, Slot(42), Say { deadline: 0, ..Default::default() });
        r.w.m.time = 1000;
        r.w.k.enter(&mut r.w.m, Entry::Timer);
        let want =
            if committed { (State::Committed, 1, Cause::None) } else { (State::Aborted, 2, Cause::Deadline) };
        assert_eq!(r.status(), want);
        let told = r.w.message(r.manager, Call::Recv, Slot(42), Say { deadline: 0, ..Default::default() });
        assert_eq!(told.is_flags(), !committed);
        r.balance("after a deadline");
    }
}
