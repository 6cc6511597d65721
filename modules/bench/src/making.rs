//! Memory, threads, processes: what is made and unmade.

use crate::bench::{Client, JOB, OWN, POOL, Reason, Row, SPARE, invocation, window};
use core::sync::atomic::{AtomicU64, Ordering};
use sila_abi::protocol::layout::{OWN_POOL, OWN_PROCESS};
use sila_abi::{Op, Rights, Slot};
use sila_rt::hostile::{invoke, timed};
use sila_rt::raw::{exit_thread, time_stamp};
use sila_rt::{op, system};

/// The rows.
pub const ROWS: &[Row] = &[
    Row { name: "frame_alloc_map", n: 500, once: alloc_map, around: Some(prepare) },
    Row { name: "page_unmap", n: 500, once: unmap, around: Some(prepare) },
    Row { name: "region_create_2mib", n: 20, once: |_| large_region(), around: None },
    Row { name: "revoke_900", n: 20, once: |_| revoke(), around: None },
    Row { name: "thread_create", n: 500, once: create_thread, around: Some(prepare) },
    Row { name: "thread_destroy", n: 500, once: destroy_thread, around: Some(prepare) },
    Row { name: "verify", n: 5, once: verify, around: None },
    Row { name: "process_terminate", n: 5, once: terminate, around: None },
];

/// An address that the runtime does not use: pages of this program's own.
const PLACE: u64 = 0x0000_7000_0000_0000;
/// Where the measured threads have their stack.
const STACK: u64 = PLACE + 0x10_0000;
const STACK_PAGES: u64 = 2;
/// Above the client's priority: such a thread runs at once.
const HIGHER: u64 = 112;
/// Below it: such a thread does not run.
const LOWER: u64 = 20;
const REGION: Slot = SPARE[0];
const MAPPING: Slot = SPARE[1];
const THREAD: Slot = SPARE[2];
const STACK_SLOTS: [Slot; 2] = [Slot(45), Slot(46)];
/// The first of the slots that a revoke empties.
const CROWD: u16 = 100;
/// How many it empties.
const CROWD_LEN: u16 = 900;

fn map(address: u64) -> [u64; 6] {
    [OWN_PROCESS.0.into(), address, 0, 1, 1, MAPPING.0.into()]
}

fn alloc_map(_: &Client) -> Result<u64, Reason> {
    let create = invocation(OWN_POOL, Op::RegionCreate, &[1, REGION.0.into()]);
    let ticks = window([create, invocation(REGION, Op::RegionMap, &map(PLACE))])?;
    invoke(MAPPING, Op::MappingUnmap, &[])?;
    let _ = op::CapDelete(MAPPING);
    op::CapDelete(REGION)?;
    Ok(ticks)
}

fn unmap(_: &Client) -> Result<u64, Reason> {
    op::RegionCreate(OWN_POOL, 1, REGION)?;
    invoke(REGION, Op::RegionMap, &map(PLACE))?;
    let ticks = window([invocation(MAPPING, Op::MappingUnmap, &[])])?;
    let _ = op::CapDelete(MAPPING);
    op::CapDelete(REGION)?;
    Ok(ticks)
}

/// Zeroes 2 MiB.
pub fn large_region() -> Result<u64, Reason> {
    let ticks = window([invocation(OWN_POOL, Op::RegionCreate, &[512, SPARE[3].0.into()])])?;
    op::CapDelete(SPARE[3])?;
    Ok(ticks)
}

/// Revokes many capabilities at once.
pub fn revoke() -> Result<u64, Reason> {
    for slot in CROWD..CROWD + CROWD_LEN {
        op::CapCopy(OWN, Slot(slot), Rights::SEND.bits().into())?;
    }
    window([invocation(OWN, Op::CapRevoke, &[])])
}

/// Maps the measured threads' stack. It lies in the table of the measured page, too, whose tables are so in place.
fn stack() -> Result<(), Reason> {
    let [region, mapping] = STACK_SLOTS;
    if op::RegionStatus(region).is_ok() {
        return Ok(());
    }
    op::RegionCreate(OWN_POOL, STACK_PAGES, region)?;
    let words = [OWN_PROCESS.0.into(), STACK, 0, STACK_PAGES, 1, mapping.0.into()];
    invoke(region, Op::RegionMap, &words).map(|_| ())
}

fn prepare(_: &Client, begins: bool) -> Result<(), Reason> {
    if begins { stack() } else { Ok(()) }
}

/// When the measured thread began.
static BEGAN: AtomicU64 = AtomicU64::new(0);

extern "C" fn begin() -> ! {
    BEGAN.store(time_stamp(), Ordering::Relaxed);
    exit_thread()
}

fn thread_words(priority: u64) -> [u64; 6] {
    let entry = begin as extern "C" fn() -> ! as usize as u64;
    [entry, STACK + STACK_PAGES * 4096 - 8, 0, priority, 0, THREAD.0.into()]
}

fn create_thread(_: &Client) -> Result<u64, Reason> {
    let mut calls = [invocation(OWN_PROCESS, Op::ThreadCreate, &thread_words(HIGHER))];
    let start = time_stamp();
    timed(&mut calls);
    for call in calls {
        sila_abi::syscall::Outcome(call.rax).status()?;
    }
    let _ = op::CapDelete(THREAD);
    Ok(BEGAN.load(Ordering::Relaxed).wrapping_sub(start))
}

fn destroy_thread(_: &Client) -> Result<u64, Reason> {
    invoke(OWN_PROCESS, Op::ThreadCreate, &thread_words(LOWER))?;
    window([invocation(THREAD, Op::ThreadTerminate, &[]), invocation(THREAD, Op::CapDelete, &[])])
}

/// Makes a process of the peer's image that never starts: the price is the verification's.
pub fn create_process(client: &Client) -> Result<u64, Reason> {
    let start = time_stamp();
    system::process_create(JOB, client.image.slot(), client.proof.slot(), POOL, LOWER, &[], SPARE[3])?;
    Ok(time_stamp().wrapping_sub(start))
}

/// Ends that process.
pub fn end_process() -> Result<u64, Reason> {
    let ticks = window([invocation(SPARE[3], Op::ProcessTerminate, &[0])])?;
    op::CapDelete(SPARE[3])?;
    Ok(ticks)
}

fn verify(client: &Client) -> Result<u64, Reason> {
    let ticks = create_process(client)?;
    end_process()?;
    Ok(ticks)
}

fn terminate(client: &Client) -> Result<u64, Reason> {
    create_process(client)?;
    end_process()
}
