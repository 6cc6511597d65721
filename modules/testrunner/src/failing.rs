//! Every allocation that an operation makes is made to fail once: the operation is refused for lack of memory, nothing
//! has changed, and then it succeeds.

use crate::exhaustion::sound;
use crate::lab::{
    Accounts, Failure, JOB, KEYS, Lab, Outcome, POOL, PROBE_PRIORITY, TEST, accounts, create_in, equal,
    refused, sealed, settle, works,
};
use core::sync::atomic::{AtomicU64, Ordering};
use probe::{REQUEST_CLOCK, REQUEST_COMMAND};
use sila_abi::protocol::layout::{CLOCK, OWN_POOL, OWN_PROCESS, OWN_THREAD, SLOTS_END};
use sila_abi::syscall::{Call, FOREVER, NO_WAIT, Outcome as Answer, Receive, Tag};
use sila_abi::{Error, Op, Rights, Slot};
use sila_rt::hostile::{invoke, syscall};
use sila_rt::ipc::{self, Message};
use sila_rt::raw::Registers;
use sila_rt::slots::{OwnedSlot, make, reserve};
use sila_rt::{CallError, op, thread};

/// A slot in a chunk that no test makes the CSpace grow by.
const FRESH: Slot = Slot(1000);
/// More allocations than any operation makes.
const MANY: u64 = 100;
/// What a lack of memory is called.
const EXHAUSTED: [Error; 3] = [Error::OutOfFrames, Error::OutOfObjectBytes, Error::ArenaFull];

/// Everything that ring 3 can see of what an operation may have changed.
#[derive(Debug, PartialEq, Eq)]
struct Picture {
    accounts: Accounts,
    pools: [[u64; 6]; 2],
    cspace: u64,
}

impl Picture {
    fn new() -> Result<Self, Failure> {
        let pool = |slot| works("PoolStatus", op::PoolStatus(slot)).map(|status| status.words);
        let mut cspace = 0u64;
        for slot in 1..SLOTS_END {
            let words = op::CapStatus(Slot(slot)).map_or([0; 6], |status| status.words);
            for word in words.into_iter().take(3) {
                cspace = (cspace ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(7);
            }
        }
        Ok(Self { accounts: accounts()?, pools: [pool(OWN_POOL)?, pool(POOL)?], cspace })
    }
}

/// Lets the allocation with this number fail; true if the one asked for before has failed.
fn arm(nth: u64) -> Result<bool, Failure> {
    Ok(works("TestFailAllocation", op::TestFailAllocation(TEST, nth))?.words[0] == 1)
}

/// Runs something with one allocation failing; `None` if it has not come to that.
fn strike<T>(nth: u64, run: impl FnOnce() -> Result<T, CallError>) -> Result<Option<CallError>, Failure> {
    let before = Picture::new()?;
    arm(nth)?;
    let result = run();
    if !arm(0)? {
        works("what nothing was in the way of", result)?;
        return Ok(None);
    }
    let error = match result {
        Ok(_) => return Err(Failure::new("what an allocation failed of", "a refusal", "success")),
        Err(error) => error,
    };
    equal("everything afterwards", Picture::new()?, before)?;
    sound()?;
    let [_, rule, process, address, ..] = works("TestAudit", op::TestAudit(TEST))?.words;
    equal("page tables: rule, process, address", (rule, process, address), (0, 0, 0))?;
    Ok(Some(error))
}

/// Something that can be tried again and again.
struct Trial<P, A, U> {
    /// What has to be there before.
    prepare: P,
    /// The operation, with the slot for what it makes.
    attempt: A,
    /// Takes back what it made.
    undo: U,
}

impl<P, A, T, U> Trial<P, A, U>
where
    P: FnMut() -> Outcome,
    A: FnMut(Slot) -> Result<T, CallError>,
    U: FnMut(Slot) -> Result<(), CallError>,
{
    /// Lets each allocation fail in turn. Where the operation makes a capability, the first is that of a chunk of slots.
    fn each(&mut self, makes: bool, least: u64) -> Outcome {
        settle()?;
        let free = works("a slot", reserve())?;
        if makes {
            (self.prepare)()?;
            let error = strike(1, || (self.attempt)(FRESH))?.map(|e| e.error);
            equal("the answer without memory for more slots", error, Some(Error::OutOfObjectBytes))?;
        }
        for nth in 1..MANY {
            (self.prepare)()?;
            let Some(error) = strike(nth, || (self.attempt)(free.slot()))? else {
                works("taking it back", (self.undo)(free.slot()))?;
                return crate::lab::holds("it allocates at all", nth > least);
            };
            crate::lab::holds(error.error.name(), EXHAUSTED.contains(&error.error))?;
            works("undisturbed", (self.attempt)(free.slot()))?;
            works("taking it back", (self.undo)(free.slot()))?;
        }
        Err(Failure::new("allocations of one operation", "an end", "none"))
    }
}

/// An operation that makes a capability, of at least so many allocations.
fn making<T>(least: u64, attempt: impl FnMut(Slot) -> Result<T, CallError>) -> Outcome {
    Trial { prepare: || Ok(()), attempt, undo: delete }.each(true, least)
}

fn delete(slot: Slot) -> Result<(), CallError> {
    op::CapDelete(slot).map(|_| ())
}

/// An address whose last three tables nobody has used.
fn far() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(2);
    NEXT.fetch_add(1, Ordering::Relaxed) << 39
}

fn notification() -> Result<OwnedSlot, Failure> {
    works("NotificationCreate", make(|dst| op::NotificationCreate(OWN_POOL, dst)))
}

pub fn no_memory_for_a_copy_changes_nothing(_: &Lab) -> Outcome {
    making(0, |dst| op::CapCopy(POOL, dst, Rights::READ.bits().into()))
}

pub fn no_memory_for_a_mint_changes_nothing(_: &Lab) -> Outcome {
    making(0, |dst| op::CapMint(POOL, dst, Rights::READ.bits().into(), 7))
}

pub fn no_memory_for_a_move_changes_nothing(_: &Lab) -> Outcome {
    let source = works("a slot", reserve())?;
    let from = source.slot();
    Trial {
        // It is still there if the move was refused.
        prepare: || op::CapCopy(POOL, from, Rights::READ.bits().into()).map(|_| ()).or(Ok(())),
        attempt: |dst| op::CapMove(from, dst),
        undo: delete,
    }
    .each(true, 0)
}

pub fn no_memory_for_a_pool_changes_nothing(_: &Lab) -> Outcome {
    making(2, |dst| op::PoolCreate(POOL, 10, 1000, dst))
}

pub fn no_memory_for_a_small_region_changes_nothing(_: &Lab) -> Outcome {
    // A place, a charge, frames that are there, and each of them.
    making(6, |dst| op::RegionCreate(POOL, 4, dst))
}

pub fn no_memory_for_a_large_region_changes_nothing(_: &Lab) -> Outcome {
    making(24, |dst| op::RegionCreate(POOL, 20, dst))
}

pub fn no_memory_for_an_endpoint_changes_nothing(_: &Lab) -> Outcome {
    making(2, |dst| op::EndpointCreate(POOL, 0, 0, dst))
}

pub fn no_memory_for_a_notification_changes_nothing(_: &Lab) -> Outcome {
    making(2, |dst| op::NotificationCreate(POOL, dst))
}

pub fn no_memory_for_a_mapping_changes_nothing(_: &Lab) -> Outcome {
    let region = works("RegionCreate", make(|dst| op::RegionCreate(OWN_POOL, 3, dst)))?;
    let attempt = |dst: Slot| {
        let words = [OWN_PROCESS.0.into(), far(), 0, 3, 1, dst.0.into()];
        invoke(region.slot(), Op::RegionMap, &words)
    };
    let undo = |dst| invoke(dst, Op::MappingUnmap, &[]).and_then(|_| delete(dst));
    Trial { prepare: || Ok(()), attempt, undo }.each(true, 4)
}

pub fn no_memory_for_a_thread_changes_nothing(_: &Lab) -> Outcome {
    // It never runs: the runner's priority is above its, and ends it first.
    let attempt = |dst: Slot| {
        let words = [0x10_0000, 0x20_0000, 0, 1, far(), dst.0.into()];
        invoke(OWN_PROCESS, Op::ThreadCreate, &words)
    };
    let undo = |dst| op::ThreadTerminate(dst).and_then(|_| delete(dst));
    Trial { prepare: || Ok(()), attempt, undo }.each(true, 6)
}

pub fn no_memory_for_a_process_changes_nothing(lab: &Lab) -> Outcome {
    let command = works("EndpointCreate", make(|dst| op::EndpointCreate(OWN_POOL, 0, 0, dst)))?;
    let grants = [(REQUEST_CLOCK, CLOCK), (REQUEST_COMMAND, command.slot())];
    // The heap grows now and not in between.
    drop(works("a probe", crate::lab::create(lab.image(), lab.proof(), POOL, PROBE_PRIORITY, &grants))?);
    let attempt = |dst| create_in(lab.image(), lab.proof(), POOL, PROBE_PRIORITY, &grants, dst);
    let undo = |dst| op::ProcessTerminate(dst, 0).and_then(|_| delete(dst));
    Trial { prepare: || Ok(()), attempt, undo }.each(true, 15)
}

pub fn no_memory_for_a_handover_changes_nothing(_: &Lab) -> Outcome {
    making(2, |dst| op::HandoverCreate(POOL, JOB, u64::MAX, dst))
}

pub fn no_memory_for_finding_a_handover_changes_nothing(_: &Lab) -> Outcome {
    let _handover = works("HandoverCreate", make(|dst| op::HandoverCreate(POOL, JOB, u64::MAX, dst)))?;
    making(0, |dst| op::JobHandover(JOB, 0, dst))
}

pub fn no_memory_for_adopting_a_process_changes_nothing(lab: &Lab) -> Outcome {
    let _child = lab.child()?;
    let mut cursor = 0;
    let mut newest = 0;
    while let Ok(next) = op::JobNext(JOB, cursor) {
        [cursor, newest, ..] = next.words;
    }
    making(0, |dst| op::JobAdopt(JOB, newest, dst))
}

pub fn no_memory_for_a_journal_changes_nothing(_: &Lab) -> Outcome {
    let frames = works("a slot", reserve())?;
    let from = frames.slot();
    Trial {
        // It is still there if there was no Journal.
        prepare: || op::RegionCreate(OWN_POOL, 10, from).map(|_| ()).or(Ok(())),
        attempt: |dst| op::JournalCreate(POOL, from, dst),
        undo: delete,
    }
    .each(true, 2)
}

pub fn no_memory_for_a_recharge_changes_nothing(_: &Lab) -> Outcome {
    let region = works("RegionCreate", make(|dst| op::RegionCreate(OWN_POOL, 10, dst)))?;
    let attempt = |_| op::ChargeTransfer(region.slot(), POOL);
    let undo = |_| op::ChargeTransfer(region.slot(), OWN_POOL).map(|_| ());
    Trial { prepare: || Ok(()), attempt, undo }.each(false, 1)
}

pub fn no_memory_for_a_watcher_changes_nothing(lab: &Lab) -> Outcome {
    let (child, told) = (lab.child()?, notification()?);
    let attempt = |_| op::ProcessWatch(child.process(), told.slot(), 2);
    Trial { prepare: || Ok(()), attempt, undo: |_| Ok(()) }.each(false, 1)
}

pub fn no_memory_for_a_revocation_changes_nothing(lab: &Lab) -> Outcome {
    let bytes = lab.data("revocation.spare")?;
    let record = sealed(bytes)?;
    settle()?;
    let attempt = || op::KeyRingInstall(KEYS, record.slot(), bytes.len() as u64);
    let error = strike(1, attempt)?.map(|e| e.error);
    equal("the answer without room for it", error, Some(Error::ArenaFull))?;
    works("undisturbed", attempt())?;
    refused("the same once more", attempt(), Error::RecordStale)
}

/// Sends capabilities to a thread whose room for them lies in two chunks that the CSpace does not have.
pub fn no_memory_for_received_capabilities_changes_nothing(_: &Lab) -> Outcome {
    let endpoint = works("EndpointCreate", make(|dst| op::EndpointCreate(OWN_POOL, 0, 0, dst)))?.leak();
    let room = Receive { reply: Slot::NONE, base: Slot(831), count: 2 };
    let waits = works(
        "a thread",
        thread::spawn(2, move || {
            let mut registers = recv(endpoint, room, FOREVER);
            syscall(&mut registers);
        }),
    )?;
    let receiving = || op::ThreadStatus(waits.slot()).is_ok_and(|status| status.words[0] == 4);
    crate::lab::until("it waits", receiving)?;
    let gifts = Message::new(1).cap(POOL).cap(OWN_POOL);
    settle()?;
    for nth in [1, 2] {
        let error = strike(nth, || ipc::send(endpoint, &gifts, NO_WAIT))?.map(|e| e.error);
        equal("the sender's answer", error, Some(Error::TransferFailed))?;
        crate::lab::holds("the receiver waits on", receiving())?;
    }
    works("a message without capabilities", ipc::send(endpoint, &Message::new(1), NO_WAIT))?;
    works("CapDelete", op::CapDelete(endpoint)).map(|_| ())
}

fn recv(endpoint: Slot, room: Receive, deadline: u64) -> Registers {
    Registers {
        rax: Tag::new(Call::Recv, 0, 0, 0).0,
        rdi: endpoint.0.into(),
        r13: room.to_word(),
        r14: deadline,
        ..Registers::default()
    }
}

pub fn no_memory_for_a_reply_slot_changes_nothing(_: &Lab) -> Outcome {
    let endpoint = works("EndpointCreate", make(|dst| op::EndpointCreate(OWN_POOL, 0, 0, dst)))?;
    settle()?;
    let attempt = || {
        let room = Receive { reply: FRESH, ..Receive::default() };
        let mut registers = recv(endpoint.slot(), room, NO_WAIT);
        syscall(&mut registers);
        let words = registers.words;
        Answer(registers.rax).status().map_err(|error| CallError { error, words })
    };
    let error = strike(1, attempt)?.map(|e| e.error);
    equal("the answer", error, Some(Error::OutOfObjectBytes))
}

/// What needs no memory succeeds without any.
pub fn alarms_signals_and_status_need_no_memory(lab: &Lab) -> Outcome {
    let (child, note) = (lab.child()?, notification()?);
    let endpoint = works("EndpointCreate", make(|dst| op::EndpointCreate(OWN_POOL, 0, 0, dst)))?;
    let copy = works("CapCopy", make(|dst| op::CapCopy(note.slot(), dst, Rights::SEND.bits().into())))?;
    let free = |what: &str, result: Result<op::Words, CallError>| works(what, result).map(|_| ());
    arm(1)?;
    let results = [
        free("NotificationAlarm", op::NotificationAlarm(note.slot(), u64::MAX - 1, 1)),
        free("NotificationAlarm off", op::NotificationAlarm(note.slot(), u64::MAX, 0)),
        free("Signal", op::Signal(note.slot(), 1)),
        free("CapStatus", op::CapStatus(note.slot())),
        free("CapRevoke", op::CapRevoke(note.slot())),
        free("ThreadSetFaultEndpoint", op::ThreadSetFaultEndpoint(OWN_THREAD, endpoint.slot())),
        free("ThreadClearFaultEndpoint", op::ThreadClearFaultEndpoint(OWN_THREAD)),
        free("ProcessTerminate", op::ProcessTerminate(child.process(), 0)),
        free("ClockNow", op::ClockNow(CLOCK)),
    ];
    equal("an allocation failed", arm(0)?, false)?;
    drop(copy);
    results.into_iter().collect()
}
