//! What a Handover covers.

use super::*;

#[test]
fn a_service_is_covered_only_if_everything_fits() {
    let mut r = Rig::bare(3);
    r.create(u64::MAX).unwrap();
    let plain = Slot(40);
    r.w.invoke(r.manager, SERVICE_POOL, Op::EndpointCreate, &[1, 0, plain.0.into()]).unwrap();
    let [e, from, to] = [0, 1, 2].map(|at| u64::from(managed(0, at).0));
    let pool = u64::from(SERVICE_POOL.0);
    let own = 41;
    let object = reference(ObjectType::Pool, r.w.k.processes.get(r.v1[0].process).unwrap().pool);
    r.w.give(r.manager, Slot(own), object, Rights::USE);
    let before = r.picture();
    let cases = [
        ([plain.0.into(), PROCESS.0.into(), to, pool], Error::NotLabelled),
        ([e, to, from, pool], Error::NotReceiver),
        ([e, from, from, pool], Error::InvalidArgument),
        ([e, from, managed(1, 2).0.into(), pool], Error::LabelMismatch),
        ([e, from, to, own.into()], Error::InvalidArgument),
        ([e, from, to, POOL.0.into()], Error::OutOfObjectBytes),
    ];
    let manager = r.manager;
    for (args, want) in cases {
        let got = drained(&mut r, manager, |r| r.manage(Op::HandoverAdd, &args));
        assert_eq!(got, Err(want), "{args:?}");
        assert_eq!(r.picture(), before, "{args:?}");
    }
    r.add(0).unwrap();
    assert_ne!(r.picture(), before);
    r.balance("after refused additions");
}

#[test]
fn two_handovers_never_cover_the_same_endpoint_or_process() {
    let mut r = Rig::new(2);
    assert_eq!(r.add(0), Err(Error::AlreadyCovered));
    let second = Slot(45);
    let args = [JOB.0.into(), u64::MAX, second.0.into()];
    r.w.invoke(r.manager, HANDOVER_POOL, Op::HandoverCreate, &args).unwrap();
    let [e, from, to] = [0, 1, 2].map(|at| u64::from(managed(0, at).0));
    let pool = SERVICE_POOL.0.into();
    assert_eq!(
        r.w.invoke(r.manager, second, Op::HandoverAdd, &[e, from, to, pool]),
        Err(Error::AlreadyCovered)
    );
    // Another endpoint of the same service: its receiver is covered.
    r.w.invoke(r.v1[0], POOL, Op::EndpointCreate, &[3, 0, 46]).unwrap();
    r.w.share(r.v1[0], Slot(46), r.manager, Slot(46), Rights::USE, 0);
    assert_eq!(
        r.w.invoke(r.manager, second, Op::HandoverAdd, &[46, from, to, pool]),
        Err(Error::AlreadyCovered)
    );
    r.manage(Op::HandoverAbort, &[]).unwrap();
    r.w.invoke(r.manager, second, Op::HandoverAdd, &[e, from, to, pool]).unwrap();
    r.balance("after a second Handover");
}

#[test]
fn a_covered_endpoint_is_neither_bound_nor_recharged_by_others() {
    let mut r = Rig::new(1);
    let stranger = r.w.actor(30);
    declare(&mut r.w, stranger, 0);
    r.w.share(stranger, PROCESS, r.manager, Slot(40), Rights::MANAGE, 0);
    r.kill(r.v1[0]);
    assert_eq!(r.receiver(0), None);
    let e = managed(0, 0);
    assert_eq!(r.w.invoke(r.manager, e, Op::EndpointBind, &[40]), Err(Error::AlreadyCovered));
    let charge = r.w.invoke(r.manager, e, Op::ChargeTransfer, &[POOL.0.into()]);
    assert_eq!(charge, Err(Error::AlreadyCovered));
    r.manage(Op::HandoverAbort, &[]).unwrap();
    r.w.invoke(r.manager, e, Op::EndpointBind, &[40]).unwrap();
    assert_eq!(r.receiver(0), Some(stranger.process));
    r.kill(stranger);
    r.balance("after a stranger");
}
