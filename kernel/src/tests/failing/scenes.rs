//! A scene for each operation, in which it would succeed. What it makes goes to a chunk that its CSpace does not have.

use super::super::handover::{EP, Rig};
use super::super::signed::{self, OWNER, REQUEST_ENDPOINT, ROOT, SIGNED, bounded, name, signer};
use super::updates::*;
use super::*;
use crate::cap::ObjRef;
use crate::kernel::PERMANENT;
use crate::machine::Machine;
use sila_abi::trust::RecordKind;

/// What is done.
pub enum Act {
    Invoke(Slot, Op, Vec<u64>),
    Message(Call, Slot, Say),
}

/// A world, and what somebody is about to do in it.
pub struct Scene {
    pub w: World,
    pub who: Actor,
    pub act: Act,
    /// What its failing for lack of memory is called.
    pub errors: &'static [Error],
    /// It ends with InvalidOperation, as the simulated machine can't do what is asked.
    pub refused: bool,
}

/// A slot in a chunk of its own.
pub const FRESH: u64 = 700;
/// Address without any page table.
const FAR: u64 = 0x40_0000_0000 - 0x1000;
pub const KEYS: Slot = Slot(5);
const POLICY: Slot = Slot(14);
pub const SYSTEM: Slot = Slot(6);
pub const JOB: Slot = Slot(7);
pub const MADE: Slot = Slot(10);
const OTHER: Slot = Slot(11);
const NOTE: u64 = 12;

const CAPACITIES: Capacities = Capacities { processes: 8, threads: 16, ..super::super::CAPACITIES };

pub fn world() -> (World, Actor) {
    let mut w = World::sized(4000, CAPACITIES);
    w.k.keyring = SIGNED.keyring();
    let a = w.actor_with(50, (400, 120_000));
    furnish(&mut w, a);
    let job = w.k.jobs.iter().next().unwrap().0;
    w.give(a, JOB, reference(ObjectType::Job, job), Rights::USE);
    for (slot, kind) in [(KEYS, ObjectType::KeyRing), (SYSTEM, ObjectType::SystemControl)] {
        w.give(a, slot, ObjRef { kind, index: 0, generation: PERMANENT }, Rights::USE);
    }
    (w, a)
}

pub fn furnish(w: &mut World, a: Actor) {
    let test = ObjRef { kind: ObjectType::TestControl, index: 0, generation: PERMANENT };
    w.give(a, TEST, test, Rights::USE);
}

pub fn scene(w: World, who: Actor, slot: Slot, op: Op, args: &[u64]) -> Scene {
    let mut w = w;
    w.sound();
    // What is left of making it does not count as a change.
    w.settle();
    w.k.keep_grown();
    Scene { w, who, act: Act::Invoke(slot, op, args.to_vec()), errors: &EXHAUSTED, refused: false }
}

/// A scene whose operation needs nothing but what every process of a test has.
fn plain(slot: Slot, op: Op, args: &[u64]) -> Scene {
    let (w, a) = world();
    scene(w, a, slot, op, args)
}

/// A scene in which operations on the Pool come first.
fn after(before: &[(Slot, Op, &[u64])], slot: Slot, op: Op, args: &[u64]) -> Scene {
    let (mut w, a) = world();
    for (slot, op, args) in before {
        w.invoke(a, *slot, *op, args).unwrap();
    }
    scene(w, a, slot, op, args)
}

const ENDPOINT: (Slot, Op, &[u64]) = (POOL, Op::EndpointCreate, &[0, 0, MADE.0 as u64]);
const NOTIFICATION: (Slot, Op, &[u64]) = (POOL, Op::NotificationCreate, &[MADE.0 as u64]);
const REGION: (Slot, Op, &[u64]) = (POOL, Op::RegionCreate, &[3, MADE.0 as u64]);
const MAP: (Slot, Op, &[u64]) = (MADE, Op::RegionMap, &[PROCESS.0 as u64, FAR, 0, 2, 1, OTHER.0 as u64]);
const JOURNAL: (Slot, Op, &[u64]) = (POOL, Op::JournalCreate, &[MADE.0 as u64, OTHER.0 as u64]);

pub fn notification() -> Scene {
    plain(POOL, Op::NotificationCreate, &[FRESH])
}

pub fn small_region() -> Scene {
    plain(POOL, Op::RegionCreate, &[2, MADE.0.into()])
}

/// Another process, with capabilities to it and its thread.
fn with_other(op: Op, on_thread: bool, args: &[u64]) -> Scene {
    let (mut w, a) = world();
    let b = w.actor(40);
    w.share(b, PROCESS, a, MADE, Rights::USE, 0);
    w.give(a, OTHER, reference(ObjectType::Thread, b.thread), Rights::USE);
    w.invoke(a, POOL, Op::NotificationCreate, &[NOTE]).unwrap();
    w.invoke(a, POOL, Op::EndpointCreate, &[0, 0, 13]).unwrap();
    if op == Op::ThreadResume {
        w.invoke(a, OTHER, Op::ThreadSuspend, &[]).unwrap();
    }
    scene(w, a, if on_thread { OTHER } else { MADE }, op, args)
}

/// A Region with these bytes.
pub fn with_bytes(w: &mut World, a: Actor, slot: Slot, bytes: &[u8], seal: bool) {
    let pages = bytes.len().div_ceil(4096);
    w.invoke(a, POOL, Op::RegionCreate, &[pages as u64, slot.0.into()]).unwrap();
    let region = crate::kernel::id_of(&w.k.find(a.process, slot).unwrap().cap);
    for (page, bytes) in bytes.chunks(4096).enumerate() {
        let frame = w.k.region_frame(&mut w.m, region, page as u32).unwrap();
        for (word, bytes) in w.m.frame(frame).iter_mut().zip(bytes.chunks(8)) {
            let mut raw = [0; 8];
            raw[..bytes.len()].copy_from_slice(bytes);
            *word = u64::from_le_bytes(raw);
        }
    }
    if seal {
        w.invoke(a, slot, Op::RegionSeal, &[]).unwrap();
    }
}

/// A load of the signed module that leads to this slot.
pub fn creation(dst: u64) -> Scene {
    let (mut w, a) = world();
    with_bytes(&mut w, a, MADE, &SIGNED.image, true);
    with_bytes(&mut w, a, OTHER, &SIGNED.proof, true);
    w.invoke(a, POOL, Op::EndpointCreate, &[0, 0, 13]).unwrap();
    let grant = REQUEST_ENDPOINT << 16 | 13;
    let page = w.k.threads.get(a.thread).unwrap().message.unwrap().0;
    w.m.frame(page)[6] = grant;
    scene(w, a, JOB, Op::ProcessCreate, &[MADE.0.into(), OTHER.0.into(), POOL.0.into(), 30, 1, dst])
}

fn created(op: Op) -> Scene {
    let mut s = creation(20);
    s.perform().unwrap();
    scene(s.w, s.who, Slot(20), op, &[])
}

fn install() -> Scene {
    let (mut w, a) = world();
    with_bytes(&mut w, a, MADE, &SIGNED.revocation, true);
    scene(w, a, KEYS, Op::KeyRingInstall, &[MADE.0.into(), SIGNED.revocation.len() as u64])
}

/// A scene of the trust that there is: a floor, a revocation, a policy.
fn trusting(slot: Slot, op: Op, args: &[u64]) -> Scene {
    let (mut w, a) = world();
    let floor = sila_abi::boot::Floor { publisher: name("test"), name: name("old"), security_version: 2 };
    let record = sila_abi::trust::FloorRecord { sequence: 1, floors: bounded([floor].into()) };
    w.k.keyring.import_floors(&record, &[2]).unwrap();
    let item = sila_abi::trust::RevokedItem::Key([7; 32]);
    w.k.keyring.take_back(item);
    let object = ObjRef { kind: ObjectType::Policy, index: 0, generation: PERMANENT };
    w.give(a, POLICY, object, Rights::USE);
    w.invoke(a, POOL, Op::NotificationCreate, &[NOTE]).unwrap();
    scene(w, a, slot, op, args)
}

const CACHE: Slot = Slot(15);
const CACHED: Slot = Slot(16);

/// The module cache, and an image that is to come into it or, if `held`, has done so.
fn caching(held: bool, slot: Slot, op: Op, args: &[u64]) -> Scene {
    let (mut w, a) = world();
    w.k.make_cache(100, 2).unwrap();
    let object = ObjRef { kind: ObjectType::ModuleCache, index: 0, generation: PERMANENT };
    w.give(a, CACHE, object, Rights::USE);
    with_bytes(&mut w, a, MADE, &SIGNED.image, true);
    with_bytes(&mut w, a, OTHER, &SIGNED.proof, true);
    w.invoke(a, POOL, Op::EndpointCreate, &[0, 0, 13]).unwrap();
    let page = w.k.threads.get(a.thread).unwrap().message.unwrap().0;
    w.m.frame(page)[6] = REQUEST_ENDPOINT << 16 | 13;
    let insert = [MADE.0.into(), OTHER.0.into(), if held { CACHED.0.into() } else { FRESH }];
    let mut s = scene(w, a, CACHE, Op::ModuleCacheInsert, &insert);
    if !held {
        return s;
    }
    s.perform().unwrap();
    scene(s.w, s.who, slot, op, args)
}

/// The id of the signed module, in words.
fn module_words(dst: u64) -> [u64; 5] {
    let version = sila_abi::record::Version { major: 1, minor: 0, patch: 0 };
    let id = sila_crypto::hash::module_id(&name("test"), &name("probe"), version);
    let word = |at: usize| u64::from_le_bytes(id[at * 8..at * 8 + 8].try_into().unwrap());
    [word(0), word(1), word(2), word(3), dst]
}

/// Somebody runs what is revoked meanwhile.
fn affected() -> Scene {
    let (mut w, a) = world();
    w.k.keyring.take_back(sila_abi::trust::RevokedItem::Key([0; 32]));
    scene(w, a, KEYS, Op::KeyRingAffected, &[0])
}

fn install_policy() -> Scene {
    let bytes = signed::record(RecordKind::Policy, &signed::policy(2, &signer(OWNER)), &signer(ROOT), None);
    let mut s = trusting(POLICY, Op::PolicyInstall, &[MADE.0.into(), bytes.len() as u64]);
    with_bytes(&mut s.w, s.who, MADE, &bytes, true);
    s.w.settle();
    s.w.k.keep_grown();
    s
}

/// A signature with what belongs to it, for the context to check.
pub fn signature_case(case: &[u8]) -> Scene {
    let (mut w, a) = world();
    with_bytes(&mut w, a, MADE, case, true);
    scene(w, a, TEST, Op::TestVerify, &[MADE.0.into(), case.len() as u64])
}

fn device(op: Op, args: &[u64]) -> Scene {
    let (mut w, a) = world();
    let line = w.k.interrupts.add(5, None);
    let irq = ObjRef { kind: ObjectType::IrqHandler, index: line, generation: PERMANENT };
    w.k.ports.push((0x3f8, 8));
    let ports = ObjRef { kind: ObjectType::IoPorts, index: 0, generation: PERMANENT };
    let clock = ObjRef { kind: ObjectType::Clock, index: 0, generation: PERMANENT };
    w.invoke(a, POOL, Op::NotificationCreate, &[NOTE]).unwrap();
    for (slot, object) in [(20, irq), (21, ports), (22, clock)] {
        w.give(a, Slot(slot), object, Rights::USE);
    }
    if matches!(op, Op::IrqAck | Op::IrqUnbind) {
        w.invoke(a, Slot(20), Op::IrqBind, &[NOTE, 1]).unwrap();
    }
    let slot = match op {
        Op::ClockNow => 22,
        Op::PortRead | Op::PortWrite | Op::PortStatus => 21,
        _ => 20,
    };
    scene(w, a, Slot(slot), op, args)
}

fn devices() -> Scene {
    let mut s = plain(SYSTEM, Op::SystemDevice, &[0]);
    s.w.k.devices = super::super::devices::world().k.devices;
    s
}

fn transfer(make: (Slot, Op, &'static [u64])) -> Scene {
    after(&[make, (POOL, Op::PoolCreate, &[60, 60_000, 30])], MADE, Op::ChargeTransfer, &[30])
}

fn transfer_of(kind: ObjectType) -> Scene {
    let (mut w, a) = world();
    w.invoke(a, POOL, Op::PoolCreate, &[60, 60_000, 30]).unwrap();
    if kind == ObjectType::Job {
        return scene(w, a, JOB, Op::ChargeTransfer, &[30]);
    }
    if kind == ObjectType::Handover {
        w.invoke(a, POOL, Op::HandoverCreate, &[JOB.0.into(), u64::MAX, MADE.0.into()]).unwrap();
        return scene(w, a, MADE, Op::ChargeTransfer, &[30]);
    }
    for (slot, op, args) in [REGION, JOURNAL] {
        w.invoke(a, slot, op, args).unwrap();
    }
    scene(w, a, OTHER, Op::ChargeTransfer, &[30])
}

/// An operation, which of its ways this is, and its scene.
pub type Case = (Op, &'static str, fn() -> Scene);

pub const SCENES: &[Case] = &[
    (Op::CapCopy, "", || plain(POOL, Op::CapCopy, &[FRESH, Rights::READ.bits().into()])),
    (Op::CapMint, "", || plain(POOL, Op::CapMint, &[FRESH, Rights::READ.bits().into(), 5])),
    (Op::CapMove, "", || after(&[NOTIFICATION], MADE, Op::CapMove, &[FRESH])),
    (Op::CapDelete, "", || after(&[NOTIFICATION], MADE, Op::CapDelete, &[])),
    (Op::CapRevoke, "", || after(&[NOTIFICATION], MADE, Op::CapRevoke, &[])),
    (Op::CapStatus, "", || plain(POOL, Op::CapStatus, &[])),
    (Op::PoolCreate, "", || plain(POOL, Op::PoolCreate, &[3, 300, FRESH])),
    (Op::PoolStatus, "", || plain(POOL, Op::PoolStatus, &[])),
    (Op::RegionCreate, "with frames listed in it", || plain(POOL, Op::RegionCreate, &[5, FRESH])),
    (Op::RegionCreate, "with frames listed elsewhere", || plain(POOL, Op::RegionCreate, &[20, FRESH])),
    (Op::EndpointCreate, "", || plain(POOL, Op::EndpointCreate, &[0, 0, FRESH])),
    (Op::NotificationCreate, "", notification),
    (Op::RegionMap, "across two tables", || {
        after(&[REGION], MADE, Op::RegionMap, &[PROCESS.0.into(), FAR, 0, 3, 1, FRESH])
    }),
    (Op::RegionMap, "in a table that exists", || {
        after(&[REGION], MADE, Op::RegionMap, &[PROCESS.0.into(), 0x41_0000, 0, 3, 1, FRESH])
    }),
    (Op::RegionSeal, "", || after(&[REGION], MADE, Op::RegionSeal, &[])),
    (Op::RegionStatus, "", || after(&[REGION], MADE, Op::RegionStatus, &[])),
    (Op::MappingUnmap, "", || after(&[REGION, MAP], OTHER, Op::MappingUnmap, &[])),
    (Op::MappingProtect, "", || after(&[REGION, MAP], OTHER, Op::MappingProtect, &[])),
    (Op::MappingStatus, "", || after(&[REGION, MAP], OTHER, Op::MappingStatus, &[])),
    (Op::EndpointStatus, "", || after(&[ENDPOINT], MADE, Op::EndpointStatus, &[])),
    (Op::NotificationStatus, "", || after(&[NOTIFICATION], MADE, Op::NotificationStatus, &[])),
    (Op::ReplyStatus, "", || {
        let (mut w, server, client) = pair();
        w.message(client, Call::Call, EP, forever(0));
        w.message(server, Call::Recv, EP, forever(20));
        scene(w, server, Slot(20), Op::ReplyStatus, &[])
    }),
    (Op::EndpointLabel, "", || after(&[ENDPOINT], MADE, Op::EndpointLabel, &[])),
    (Op::EndpointBind, "", || {
        let mut s = after(&[ENDPOINT], MADE, Op::EndpointBind, &[PROCESS.0.into()]);
        let id = s.w.k.endpoints.iter().next().unwrap().0;
        s.w.k.endpoints.get_mut(id).unwrap().receiver = None;
        s
    }),
    (Op::Signal, "", || after(&[NOTIFICATION], MADE, Op::Signal, &[1])),
    (Op::NotificationBind, "", || {
        let mut s = after(&[NOTIFICATION], MADE, Op::NotificationBind, &[OTHER.0.into()]);
        let thread = s.who.thread;
        s.w.give(s.who, OTHER, reference(ObjectType::Thread, thread), Rights::USE);
        s
    }),
    (Op::NotificationAlarm, "", || after(&[NOTIFICATION], MADE, Op::NotificationAlarm, &[1 << 40, 1])),
    (Op::ProcessCreate, "", || creation(FRESH)),
    (Op::ProcessCreateCached, "", || {
        caching(true, JOB, Op::ProcessCreateCached, &[CACHED.0.into(), POOL.0.into(), 30, 1, FRESH])
    }),
    (Op::ModuleCacheInsert, "", || caching(false, CACHE, Op::ModuleCacheInsert, &[])),
    (Op::ModuleCacheFind, "", || caching(true, CACHE, Op::ModuleCacheFind, &module_words(FRESH))),
    (Op::ModuleCacheStatus, "", || caching(true, CACHE, Op::ModuleCacheStatus, &[])),
    (Op::ModuleCacheNext, "", || caching(true, CACHE, Op::ModuleCacheNext, &[0])),
    (Op::CachedImageStatus, "", || caching(true, CACHED, Op::CachedImageStatus, &[])),
    (Op::CachedImageEvict, "", || caching(true, CACHED, Op::CachedImageEvict, &[])),
    (Op::JobStatus, "", || plain(JOB, Op::JobStatus, &[])),
    (Op::ProcessIdentity, "", || plain(PROCESS, Op::ProcessIdentity, &[])),
    (Op::ProcessUsage, "", || plain(PROCESS, Op::ProcessUsage, &[])),
    (Op::JobNext, "", || plain(JOB, Op::JobNext, &[0])),
    (Op::ProcessStart, "", || created(Op::ProcessStart)),
    (Op::ProcessTerminate, "", || with_other(Op::ProcessTerminate, false, &[3])),
    (Op::ProcessStatus, "", || with_other(Op::ProcessStatus, false, &[])),
    (Op::ProcessSetBudget, "", || with_other(Op::ProcessSetBudget, false, &[1_000_000, 500_000])),
    (Op::ProcessBudget, "", || with_other(Op::ProcessBudget, false, &[])),
    (Op::ProcessWatch, "", || with_other(Op::ProcessWatch, false, &[NOTE, 1])),
    (Op::ThreadCreate, "with a message page in fresh tables", || {
        plain(PROCESS, Op::ThreadCreate, &[0x10_0000, 0x20_0000, 0, 10, FAR, FRESH])
    }),
    (Op::ThreadCreate, "without a message page", || {
        plain(PROCESS, Op::ThreadCreate, &[0x10_0000, 0x20_0000, 0, 10, 0, FRESH])
    }),
    (Op::ThreadStatus, "", || with_other(Op::ThreadStatus, true, &[])),
    (Op::ThreadSuspend, "", || with_other(Op::ThreadSuspend, true, &[])),
    (Op::ThreadResume, "", || with_other(Op::ThreadResume, true, &[])),
    (Op::ThreadSetPriority, "", || with_other(Op::ThreadSetPriority, true, &[20])),
    (Op::ThreadTerminate, "", || with_other(Op::ThreadTerminate, true, &[])),
    (Op::ThreadSetFaultEndpoint, "", || with_other(Op::ThreadSetFaultEndpoint, true, &[13])),
    (Op::ThreadClearFaultEndpoint, "", || with_other(Op::ThreadClearFaultEndpoint, true, &[])),
    (Op::KeyRingInstall, "", install),
    (Op::KeyRingStatus, "", || plain(KEYS, Op::KeyRingStatus, &[0])),
    (Op::KeyRingKey, "", || plain(KEYS, Op::KeyRingKey, &[0, 0])),
    (Op::KeyRingName, "", || plain(KEYS, Op::KeyRingName, &[0])),
    (Op::KeyRingState, "", || trusting(KEYS, Op::KeyRingState, &[])),
    (Op::KeyRingRevocation, "", || trusting(KEYS, Op::KeyRingRevocation, &[0])),
    (Op::KeyRingFloor, "", || trusting(KEYS, Op::KeyRingFloor, &[0])),
    (Op::KeyRingAffected, "", affected),
    (Op::KeyRingWatch, "", || trusting(KEYS, Op::KeyRingWatch, &[NOTE, 1])),
    (Op::KeyRingCertificate, "", || trusting(KEYS, Op::KeyRingCertificate, &[0, 112])),
    (Op::PolicyInstall, "", install_policy),
    (Op::PolicyStatus, "", || trusting(POLICY, Op::PolicyStatus, &[])),
    (Op::PolicyRead, "", || trusting(POLICY, Op::PolicyRead, &[0])),
    (Op::IrqBind, "", || device(Op::IrqBind, &[NOTE, 1])),
    (Op::IrqAck, "", || device(Op::IrqAck, &[])),
    (Op::IrqUnbind, "", || device(Op::IrqUnbind, &[])),
    (Op::IrqStatus, "", || device(Op::IrqStatus, &[])),
    (Op::PortStatus, "", || device(Op::PortStatus, &[])),
    (Op::PortRead, "", || device(Op::PortRead, &[0, 1])),
    (Op::PortWrite, "", || device(Op::PortWrite, &[0, 1, 0])),
    (Op::ClockNow, "", || device(Op::ClockNow, &[])),
    (Op::SystemPowerOff, "", || Scene { refused: true, ..plain(SYSTEM, Op::SystemPowerOff, &[0]) }),
    (Op::SystemLog, "", || plain(SYSTEM, Op::SystemLog, &[0])),
    (Op::SystemProcess, "", || plain(SYSTEM, Op::SystemProcess, &[0])),
    (Op::SystemCapability, "", || plain(SYSTEM, Op::SystemCapability, &[1, 0])),
    (Op::SystemMemory, "", || plain(SYSTEM, Op::SystemMemory, &[])),
    (Op::SystemReleaseSerial, "", || plain(SYSTEM, Op::SystemReleaseSerial, &[])),
    (Op::SystemDevice, "", devices),
    (Op::SystemCounters, "", || plain(SYSTEM, Op::SystemCounters, &[])),
    (Op::SystemTrace, "", || plain(SYSTEM, Op::SystemTrace, &[2])),
    (Op::SystemTraceRead, "", || plain(SYSTEM, Op::SystemTraceRead, &[0])),
    (Op::SystemAudit, "", || {
        let mut s = plain(SYSTEM, Op::SystemAudit, &[]);
        s.w.k.test_hooks = sila_crypto::SecureBool::ALLOW;
        s
    }),
    (Op::TestReport, "", || plain(TEST, Op::TestReport, &[0])),
    (Op::TestHoldVerification, "", || plain(TEST, Op::TestHoldVerification, &[0])),
    (Op::TestAccounting, "", || plain(TEST, Op::TestAccounting, &[])),
    (Op::TestAudit, "", || plain(TEST, Op::TestAudit, &[])),
    (Op::TestInvariants, "", || plain(TEST, Op::TestInvariants, &[])),
    (Op::TestFailAllocation, "", || plain(TEST, Op::TestFailAllocation, &[0])),
    (Op::TestVerify, "", || signature_case(&crate::tests::signed::case(b"message"))),
    (Op::TestPhysical, "", || after(&[REGION], TEST, Op::TestPhysical, &[MADE.0.into(), 0])),
    (Op::HandoverCreate, "", handover_create),
    (Op::HandoverAdd, "", handover_add),
    (Op::HandoverReplace, "", handover_replace),
    (Op::HandoverClose, "", || managed(Rig::new(1), Op::HandoverClose, &[1])),
    (Op::HandoverReopen, "", || managed(closed(), Op::HandoverReopen, &[])),
    (Op::HandoverExport, "", handover_export),
    (Op::HandoverState, "", || by_version(committed(), false, Op::HandoverState, &[0, FRESH])),
    (Op::HandoverDeposit, "of a Reply", || handover_deposit(false)),
    (Op::HandoverDeposit, "of a session", || handover_deposit(true)),
    (Op::HandoverTake, "back", || handover_take(false)),
    (Op::HandoverTake, "of what is lent", || handover_take(true)),
    (Op::HandoverCommit, "", || {
        let mut rig = closed();
        rig.export(0, true).unwrap();
        managed(rig, Op::HandoverCommit, &[1])
    }),
    (Op::HandoverRollback, "", || managed(committed(), Op::HandoverRollback, &[])),
    (Op::HandoverFinalise, "", || managed(committed(), Op::HandoverFinalise, &[])),
    (Op::HandoverAbort, "", || managed(closed(), Op::HandoverAbort, &[])),
    (Op::HandoverStatus, "", || managed(closed(), Op::HandoverStatus, &[])),
    (Op::HandoverService, "", || managed(closed(), Op::HandoverService, &[0])),
    (Op::HandoverWatch, "", handover_watch),
    (Op::JournalCreate, "from another payer's frames", || {
        after(
            &[REGION, (POOL, Op::PoolCreate, &[60, 60_000, 30])],
            Slot(30),
            Op::JournalCreate,
            &[MADE.0.into(), FRESH],
        )
    }),
    (Op::JournalAppend, "", || after(&[REGION, JOURNAL], OTHER, Op::JournalAppend, &[1, 0, 0])),
    (Op::JournalRead, "", || {
        after(&[REGION, JOURNAL, (OTHER, Op::JournalAppend, &[1, 0, 0])], OTHER, Op::JournalRead, &[0])
    }),
    (Op::JournalStatus, "", || after(&[REGION, JOURNAL], OTHER, Op::JournalStatus, &[])),
    (Op::JournalClose, "", || after(&[REGION, JOURNAL], OTHER, Op::JournalClose, &[])),
    (Op::ChargeTransfer, "of a Region", || transfer(REGION)),
    (Op::ChargeTransfer, "of an Endpoint", || transfer(ENDPOINT)),
    (Op::ChargeTransfer, "of a Notification", || transfer(NOTIFICATION)),
    (Op::ChargeTransfer, "of a Job", || transfer_of(ObjectType::Job)),
    (Op::ChargeTransfer, "of a Handover", || transfer_of(ObjectType::Handover)),
    (Op::ChargeTransfer, "of a Journal", || transfer_of(ObjectType::Journal)),
    (Op::JobHandover, "", job_handover),
    (Op::JobAdopt, "", || plain(JOB, Op::JobAdopt, &[1, FRESH])),
];

// ---- messages ---------------------------------------------------------------------------------------------

/// The last slot of a chunk: two capabilities received there lie in two chunks.
const EDGE: u16 = 10 * 64 - 1;

/// A server whose endpoint a client can send to.
fn pair() -> (World, Actor, Actor) {
    let (mut w, server) = world();
    let client = w.actor_with(40, (100, 60_000));
    furnish(&mut w, client);
    w.invoke(server, POOL, Op::EndpointCreate, &[0, 0, EP.0.into()]).unwrap();
    w.share(server, EP, client, EP, Rights::SEND | Rights::GRANT, 7);
    (w, server, client)
}

fn message(w: World, who: Actor, call: Call, slot: Slot, say: Say, errors: &'static [Error]) -> Scene {
    Scene { act: Act::Message(call, slot, say), errors, ..scene(w, who, slot, Op::CapStatus, &[]) }
}

fn room_for_two(reply: u16) -> Receive {
    Receive { reply: Slot(reply), base: Slot(EDGE), count: 2 }
}

fn two_caps(deadline: u64) -> Say {
    Say { caps: [POOL, POOL, Slot(0), Slot(0)], cap_count: 2, deadline, ..Default::default() }
}

/// A scene by what is done in it.
type Named = (&'static str, fn() -> Scene);

const REFUSED: [Error; 1] = [Error::TransferFailed];

pub const MESSAGES: &[Named] = &[
    ("send to a receiver that waits with room in fresh chunks", || {
        let (mut w, server, client) = pair();
        let say = Say { receive: room_for_two(0), ..forever(0) };
        w.message(server, Call::Recv, EP, say);
        message(w, client, Call::Send, EP, two_caps(0), &REFUSED)
    }),
    ("call to a receiver that waits with room in fresh chunks", || {
        let (mut w, server, client) = pair();
        let say = Say { receive: room_for_two(20), ..forever(20) };
        w.message(server, Call::Recv, EP, say);
        message(w, client, Call::Call, EP, two_caps(FOREVER), &REFUSED)
    }),
    ("reply to a caller with room in fresh chunks", || {
        let (mut w, server, client) = pair();
        let say = Say { receive: room_for_two(0), ..forever(0) };
        w.message(client, Call::Call, EP, say);
        w.message(server, Call::Recv, EP, forever(20));
        message(w, server, Call::Reply, Slot(20), two_caps(0), &REFUSED)
    }),
    ("recv with a reply slot in a fresh chunk", || {
        let (mut w, server, client) = pair();
        w.message(client, Call::Call, EP, forever(0));
        message(w, server, Call::Recv, EP, forever(EDGE), &EXHAUSTED)
    }),
];

/// A receiver with room in two fresh chunks, and a sender that waits to give it two capabilities.
pub fn queued() -> (World, Actor, Actor) {
    let (mut w, server, client) = pair();
    w.message(client, Call::Send, EP, two_caps(FOREVER));
    (w, server, client)
}

/// How the receiver receives.
pub fn receive_two() -> Say {
    Say { receive: room_for_two(0), ..forever(0) }
}
