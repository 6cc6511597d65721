//! Memory, threads, processes: what is made and unmade.

use crate::bench::{Client, JOB, POOL, Proof, Reason, Row, SPARE, invocation, window};
use core::sync::atomic::{AtomicU64, Ordering};
use sila_abi::protocol::layout::{OWN_POOL, OWN_PROCESS};
use sila_abi::syscall::Outcome;
use sila_abi::{Op, Slot};
use sila_rt::hostile::{invoke, syscall};
use sila_rt::raw::{exit_thread, time_stamp};
use sila_rt::{op, system};

const N: usize = 500;

/// A row about memory: in the page table that it uses, another page is mapped already.
const fn memory(name: &'static str, once: fn(&Client) -> Result<u64, Reason>) -> Row {
    Row { name, n: N, once, around: Some(prepare) }
}

const fn object(name: &'static str, once: fn(&Client) -> Result<u64, Reason>) -> Row {
    Row { name, n: N, once, around: None }
}

/// The rows.
pub const ROWS: &[Row] = &[
    memory("frame_alloc_map", alloc_map),
    memory("region_create", |_| made(&[1, REGION.0.into()], Op::RegionCreate)),
    Row { name: "region_create_2mib", n: 20, once: |_| large_region(), around: None },
    memory("page_map", page_map),
    memory("page_protect", |_| mapped(Op::MappingProtect)),
    memory("page_unmap", |_| mapped(Op::MappingUnmap)),
    memory("region_seal", seal),
    object("notification_create", |_| made(&[REGION.0.into()], Op::NotificationCreate)),
    object("endpoint_create", |_| made(&[0, 0, REGION.0.into()], Op::EndpointCreate)),
    memory("thread_create", create_thread),
    memory("thread_destroy", destroy_thread),
    memory("thread_suspend_resume", suspend_resume),
    Row { name: "process_create", n: 5, once: create, around: None },
    Row { name: "process_terminate", n: 5, once: terminate, around: None },
];

/// An address that the runtime does not use: pages of this program's own.
const PLACE: u64 = 0x0000_7000_0000_0000;
/// Where the measured threads have their stack.
const STACK: u64 = PLACE + 0x10_0000;
const STACK_PAGES: u64 = 2;
/// Entries by which the reaper has freed a large Region.
const REAPED: u32 = 64;
/// Above the client's priority: such a thread runs at once.
const HIGHER: u64 = 112;
/// Below it: such a thread does not run.
const LOWER: u64 = 20;
const REGION: Slot = SPARE[0];
const MAPPING: Slot = SPARE[1];
const THREAD: Slot = SPARE[2];
const PROCESS: Slot = SPARE[3];
const STACK_SLOTS: [Slot; 2] = [Slot(45), Slot(46)];

fn map(address: u64) -> [u64; 6] {
    [OWN_PROCESS.0.into(), address, 0, 1, 1, MAPPING.0.into()]
}

/// Ends the mapping, if it is still there, and the Region.
fn unmake() -> Result<(), Reason> {
    let _ = invoke(MAPPING, Op::MappingUnmap, &[]);
    let _ = op::CapDelete(MAPPING);
    op::CapDelete(REGION).map(|_| ())
}

fn alloc_map(_: &Client) -> Result<u64, Reason> {
    let create = invocation(OWN_POOL, Op::RegionCreate, &[1, REGION.0.into()]);
    let ticks = window([create, invocation(REGION, Op::RegionMap, &map(PLACE))])?;
    unmake()?;
    Ok(ticks)
}

/// Something that the Pool makes, in slot [`REGION`].
#[inline(always)]
fn made(words: &[u64], operation: Op) -> Result<u64, Reason> {
    let ticks = window([invocation(OWN_POOL, operation, words)])?;
    op::CapDelete(REGION)?;
    Ok(ticks)
}

fn page_map(_: &Client) -> Result<u64, Reason> {
    op::RegionCreate(OWN_POOL, 1, REGION)?;
    let ticks = window([invocation(REGION, Op::RegionMap, &map(PLACE))])?;
    unmake()?;
    Ok(ticks)
}

/// An operation on the mapping of one writable page.
#[inline(always)]
fn mapped(operation: Op) -> Result<u64, Reason> {
    op::RegionCreate(OWN_POOL, 1, REGION)?;
    invoke(REGION, Op::RegionMap, &map(PLACE))?;
    let ticks = window([invocation(MAPPING, operation, &[])])?;
    unmake()?;
    Ok(ticks)
}

fn seal(_: &Client) -> Result<u64, Reason> {
    op::RegionCreate(OWN_POOL, 1, REGION)?;
    let ticks = window([invocation(REGION, Op::RegionSeal, &[])])?;
    op::CapDelete(REGION)?;
    Ok(ticks)
}

/// Zeroes 2 MiB.
pub fn large_region() -> Result<u64, Reason> {
    let ticks = window([invocation(OWN_POOL, Op::RegionCreate, &[512, PROCESS.0.into()])])?;
    op::CapDelete(PROCESS)?;
    // Each entry lets the reaper free a part of it; the next window is to begin without.
    for _ in 0..REAPED {
        op::PoolStatus(OWN_POOL)?;
    }
    Ok(ticks)
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
    let mut call = invocation(OWN_PROCESS, Op::ThreadCreate, &thread_words(HIGHER));
    let start = time_stamp();
    syscall(&mut call);
    Outcome(call.rax).status()?;
    let _ = op::CapDelete(THREAD);
    Ok(BEGAN.load(Ordering::Relaxed).wrapping_sub(start))
}

fn destroy_thread(_: &Client) -> Result<u64, Reason> {
    invoke(OWN_PROCESS, Op::ThreadCreate, &thread_words(LOWER))?;
    window([invocation(THREAD, Op::ThreadTerminate, &[]), invocation(THREAD, Op::CapDelete, &[])])
}

fn suspend_resume(_: &Client) -> Result<u64, Reason> {
    invoke(OWN_PROCESS, Op::ThreadCreate, &thread_words(LOWER))?;
    let ticks =
        window([invocation(THREAD, Op::ThreadSuspend, &[]), invocation(THREAD, Op::ThreadResume, &[])])?;
    op::ThreadTerminate(THREAD)?;
    op::CapDelete(THREAD)?;
    Ok(ticks)
}

/// Makes a process that does not start, with its Process capability in `dst`. The price is the verification's.
pub fn new_process(
    client: &Client,
    image: Slot,
    proof: Proof,
    grants: &[(u16, Slot)],
    dst: Slot,
) -> Result<(), Reason> {
    system::process_create(JOB, image, client.proof(proof), POOL, LOWER, grants, dst)
}

/// As [`new_process`], from an image of the module cache.
pub fn new_cached_process(image: Slot, dst: Slot) -> Result<(), Reason> {
    system::process_create_cached(JOB, image, POOL, LOWER, &[], dst)
}

/// Ends a process; this capability goes with it.
pub fn end_process(process: Slot) -> Result<u64, Reason> {
    let ticks = window([invocation(process, Op::ProcessTerminate, &[0])])?;
    op::CapDelete(process)?;
    Ok(ticks)
}

fn create(client: &Client) -> Result<u64, Reason> {
    let start = time_stamp();
    new_process(client, client.image.slot(), Proof::Peer, &[], PROCESS)?;
    let ticks = time_stamp().wrapping_sub(start);
    op::ProcessTerminate(PROCESS, 0)?;
    op::CapDelete(PROCESS)?;
    Ok(ticks)
}

fn terminate(client: &Client) -> Result<u64, Reason> {
    new_process(client, client.image.slot(), Proof::Peer, &[], PROCESS)?;
    end_process(PROCESS)
}
