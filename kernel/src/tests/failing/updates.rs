//! Scenes of live updates: a service with two versions, and whoever manages its Handover.

use super::super::handover::{H, Rig};
use super::scenes::{FRESH, Scene, furnish, scene};
use super::*;

const MANAGERS_JOB: Slot = Slot(4);
const SERVICE_POOL: u64 = 5;
const HANDOVER_POOL: Slot = Slot(6);
/// The manager's capabilities to the endpoint, the old version and the new one.
const MANAGED: [u64; 3] = [100, 101, 102];

pub fn managed(mut rig: Rig, op: Op, args: &[u64]) -> Scene {
    let manager = rig.manager;
    furnish(&mut rig.w, manager);
    scene(rig.w, manager, H, op, args)
}

/// As [`managed`], by a version of the service.
pub fn by_version(mut rig: Rig, old: bool, op: Op, args: &[u64]) -> Scene {
    let who = if old { rig.v1[0] } else { rig.v2[0] };
    furnish(&mut rig.w, who);
    scene(rig.w, who, H, op, args)
}

pub fn closed() -> Rig {
    let mut rig = Rig::new(1);
    rig.close();
    rig
}

pub fn committed() -> Rig {
    let mut rig = closed();
    rig.export(0, true).unwrap();
    rig.commit().unwrap();
    rig
}

pub fn handover_create() -> Scene {
    let mut rig = Rig::bare(1);
    let manager = rig.manager;
    furnish(&mut rig.w, manager);
    let args = [MANAGERS_JOB.0.into(), 1 << 40, FRESH];
    scene(rig.w, manager, HANDOVER_POOL, Op::HandoverCreate, &args)
}

pub fn handover_add() -> Scene {
    let mut rig = Rig::bare(1);
    let args = [MANAGERS_JOB.0.into(), u64::MAX, H.0.into()];
    rig.w.invoke(rig.manager, HANDOVER_POOL, Op::HandoverCreate, &args).unwrap();
    let [endpoint, from, to] = MANAGED;
    managed(rig, Op::HandoverAdd, &[endpoint, from, to, SERVICE_POOL])
}

pub fn handover_replace() -> Scene {
    let mut rig = Rig::new(1);
    let heir = rig.w.actor(30);
    super::super::handover::declare(&mut rig.w, heir, 0);
    rig.w.share(heir, PROCESS, rig.manager, Slot(20), Rights::MANAGE, 0);
    managed(rig, Op::HandoverReplace, &[0, 20])
}

pub fn handover_export() -> Scene {
    let mut rig = closed();
    rig.w.invoke(rig.v1[0], POOL, Op::RegionCreate, &[10, 30]).unwrap();
    by_version(rig, true, Op::HandoverExport, &[0, 7, 30])
}

pub fn handover_deposit(session: bool) -> Scene {
    let mut rig = Rig::new(1);
    let v1 = rig.v1[0];
    if session {
        rig.w.invoke(v1, POOL, Op::EndpointCreate, &[0, 0, 20]).unwrap();
    } else {
        rig.call(0, 1);
        assert_eq!(rig.receive(v1, 20).status(), Ok(()));
    }
    by_version(rig, true, Op::HandoverDeposit, &[0, 20])
}

pub fn handover_take(lent: bool) -> Scene {
    let mut rig = Rig::new(1);
    let v1 = rig.v1[0];
    rig.w.invoke(v1, POOL, Op::EndpointCreate, &[0, 0, 20]).unwrap();
    rig.w.invoke(v1, H, Op::HandoverDeposit, &[0, 20]).unwrap();
    if lent {
        rig.close();
        rig.export(0, true).unwrap();
        rig.commit().unwrap();
    }
    by_version(rig, !lent, Op::HandoverTake, &[0, FRESH])
}

pub fn handover_watch() -> Scene {
    let mut rig = Rig::new(1);
    rig.w.invoke(rig.manager, POOL, Op::NotificationCreate, &[20]).unwrap();
    managed(rig, Op::HandoverWatch, &[20, 1])
}

pub fn job_handover() -> Scene {
    let mut rig = Rig::new(1);
    let manager = rig.manager;
    furnish(&mut rig.w, manager);
    scene(rig.w, manager, MANAGERS_JOB, Op::JobHandover, &[0, FRESH])
}
