//! The one `Kernel` value: all objects, and the accounting that every module of the core uses.

use alloc::boxed::Box;
use alloc::vec::Vec;
use sila_abi::status::CounterRecord;
use sila_abi::{Error, ObjectType, Rights, Slot};
use sila_crypto::SecureBool;

use crate::arena::{Arena, Id};
use crate::budget::Budgets;
use crate::cache::{CachedImage, ModuleCache};
use crate::cap::{CSPACE, Cap, CapId, CapTable, MAX_CHUNKS, ObjRef};
use crate::contract;
use crate::device_table::DeviceTable;
use crate::failing::Failing;
use crate::frames::FrameTable;
use crate::handover::Handover;
use crate::interrupts::Interrupts;
use crate::journal::Journal;
use crate::keyring::KeyRing;
use crate::machine::{Frame, Machine};
use crate::objects::*;
use crate::queue::{ReadyQueues, Timers};
use crate::trace::Trace;
use crate::verify::Verifier;

/// How many objects of each type fit.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "each field counts what it names")]
pub struct Capacities {
    pub pools: u32,
    pub regions: u32,
    pub mappings: u32,
    pub endpoints: u32,
    pub notifications: u32,
    pub jobs: u32,
    pub handovers: u32,
    pub journals: u32,
    pub cached: u32,
    pub processes: u32,
    pub threads: u32,
    pub cap_chunks: u16,
}

impl Capacities {
    /// The arenas of a booted system.
    pub const BOOT: Capacities = Capacities {
        pools: Pool::SLOTS,
        regions: Region::SLOTS,
        mappings: Mapping::SLOTS,
        endpoints: Endpoint::SLOTS,
        notifications: Notification::SLOTS,
        jobs: Job::SLOTS,
        handovers: Handover::SLOTS - 1,
        journals: Journal::SLOTS,
        cached: CachedImage::SLOTS,
        // The last slots stand for none.
        processes: Process::SLOTS - 1,
        threads: Thread::SLOTS - 1,
        cap_chunks: (Process::SLOTS as u16 - 1) * MAX_CHUNKS as u16,
    };

    /// Object bytes that all arenas hold together: the reserve that Pools' byte quotas divide up.
    pub const fn reserve(&self) -> u64 {
        self.pools as u64 * cost::<Pool>()
            + self.regions as u64 * cost::<Region>()
            + self.mappings as u64 * cost::<Mapping>()
            + self.endpoints as u64 * cost::<Endpoint>()
            + self.notifications as u64 * cost::<Notification>()
            + self.jobs as u64 * cost::<Job>()
            + self.handovers as u64 * cost::<Handover>()
            + self.journals as u64 * cost::<Journal>()
            + self.cached as u64 * cost::<CachedImage>()
            + self.processes as u64 * cost::<Process>()
            + self.threads as u64 * cost::<Thread>()
            + self.cap_chunks as u64 * CapTable::CHUNK_BYTES
    }
}

/// A refusal: the error, and up to two words of detail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fail {
    /// What was wrong.
    pub error: Error,
    /// A detail (request index, rule of a format), where the error documents it.
    pub detail: Option<u64>,
    /// A second detail (rule of the policy), where the error documents it.
    pub more: Option<u64>,
}

impl From<Error> for Fail {
    fn from(error: Error) -> Self {
        Fail { error, detail: None, more: None }
    }
}

impl Fail {
    /// A refusal with one detail word.
    pub const fn with(error: Error, detail: u64) -> Self {
        Fail { error, detail: Some(detail), more: None }
    }

    /// A refusal with two detail words.
    pub const fn with_both(error: Error, detail: u64, more: u64) -> Self {
        Fail { error, detail: Some(detail), more: Some(more) }
    }

    /// The words that the caller gets: as many as there are.
    pub fn words(&self) -> ([u64; 2], usize) {
        let count = usize::from(self.detail.is_some()) + usize::from(self.more.is_some());
        ([self.detail.unwrap_or(0), self.more.unwrap_or(0)], count)
    }
}

/// What a CPU is busy with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Running {
    /// Nothing.
    Idle,
    /// A thread.
    Thread(ThreadId),
    /// The verification context.
    Verification,
}

bitflags::bitflags! {
    /// What a kernel entry has to see to before it may return to the thread that entered.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub(crate) struct Attention: u8 {
        /// Another context may have to run, or the timer to be set.
        const SCHEDULE = 1 << 0;
        /// A process or Region waits for the reaper.
        const REAP = 1 << 1;
        /// Frames are in quarantine.
        const QUARANTINE = 1 << 2;
        /// A process has a fault that nobody answers.
        const DOOMED = 1 << 3;
        /// A CSpace grew during this system call.
        const GROWN = 1 << 4;
        /// A test wants an allocation to fail.
        const FAILING = 1 << 5;
        /// Events are recorded: nothing may take a short path.
        const TRACE = 1 << 6;
    }
}

/// Stands for the slot of the running thread when none runs.
const IDLE: u32 = u32::MAX;
/// Stands for it when the verification context runs.
const VERIFICATION: u32 = u32::MAX - 1;

/// Global interrupt lines that devices may have.
pub const IRQ_LINES: usize = 24;

/// Chunks that one system call can make CSpaces grow by: a receiver's capability slots (two chunks at
/// most) and Reply, and a destination slot.
const GROWN: usize = 4;
/// Those chunks, by a slot of each.
pub(crate) type Grown = [Option<CapId>; GROWN];

/// Pools above one Pool, at most: what walks up the hierarchy is bounded by it.
pub const MAX_POOL_DEPTH: u32 = 16;

/// Generation of objects that live as long as the kernel.
pub const PERMANENT: u32 = 1;

/// The kernel.
pub struct Kernel {
    pub(crate) frames: FrameTable,
    pub(crate) capacities: Capacities,
    pub(crate) pools: Arena<Pool, { Pool::SLOTS as usize }>,
    pub(crate) regions: Arena<Region, { Region::SLOTS as usize }>,
    pub(crate) mappings: Arena<Mapping, { Mapping::SLOTS as usize }>,
    pub(crate) endpoints: Arena<Endpoint, { Endpoint::SLOTS as usize }>,
    pub(crate) notifications: Arena<Notification, { Notification::SLOTS as usize }>,
    pub(crate) jobs: Arena<Job, { Job::SLOTS as usize }>,
    pub(crate) handovers: Arena<Handover, { Handover::SLOTS as usize }>,
    pub(crate) journals: Arena<Journal, { Journal::SLOTS as usize }>,
    pub(crate) cached: Arena<CachedImage, { CachedImage::SLOTS as usize }>,
    pub(crate) processes: Arena<Process, { Process::SLOTS as usize }>,
    pub(crate) threads: Arena<Thread, { Thread::SLOTS as usize }>,
    pub(crate) caps: CapTable,
    pub(crate) ready: ReadyQueues,
    pub(crate) budgets: Budgets,
    pub(crate) timers: Timers,
    /// The running thread's slot, or [`IDLE`] or [`VERIFICATION`].
    pub(crate) current: u32,
    pub(crate) attention: Attention,
    /// The number of the last call.
    pub(crate) calls: u64,
    pub(crate) slice_end: u64,
    pub(crate) armed: u64,
    /// The timer is set for no later than one slice after it was set.
    pub(crate) ticking: bool,
    pub(crate) root_pool: PoolId,
    pub(crate) boot_job: Option<JobId>,
    pub(crate) keyring: KeyRing,
    pub(crate) cache: ModuleCache,
    /// What every creation of a process is held to.
    pub(crate) contract: contract::Own,
    pub(crate) verifier: Verifier,
    pub(crate) reap: Option<ProcessId>,
    pub(crate) dead_regions: Vec<RegionId>,
    pub(crate) doomed: Vec<ProcessId>,
    pub(crate) next_process: u64,
    pub(crate) next_handover: u64,
    pub(crate) devices: DeviceTable,
    pub(crate) interrupts: Interrupts,
    pub(crate) ports: Vec<(u16, u16)>,
    pub(crate) grown: Grown,
    pub(crate) ram_bytes: u64,
    /// Whether TestControl may be used: only under a test root set.
    pub(crate) test_hooks: SecureBool,
    /// The system was started to be audited.
    pub(crate) auditing: bool,
    /// Room for auditing the page tables, in systems that are audited.
    pub(crate) marks: Option<Box<crate::audit::Marks>>,
    pub(crate) counters: CounterRecord,
    pub(crate) trace: Trace,
    /// Objects to which the kernel itself holds a capability, once for each.
    pub(crate) held: Vec<ObjRef>,
    /// The allocation that a test wants to fail.
    pub(crate) failing: Failing,
    /// What a test breaks in the next process that is made, and what the contracts then found.
    #[cfg(test)]
    pub(crate) sabotage: crate::tests::contract::Sabotage,
    /// Room for checking the invariants, in test systems.
    pub(crate) scratch: Option<Box<crate::invariants::Scratch>>,
}

impl Kernel {
    /// A kernel that owns the frames of the table and nothing else.
    pub fn new(frames: FrameTable, capacities: Capacities) -> Option<Self> {
        let mut pools = Arena::new(capacities.pools)?;
        let root = Pool {
            parent: None,
            frames: Quota { limit: frames.total() as u64, used: 0 },
            bytes: Quota { limit: capacities.reserve(), used: cost::<Pool>() },
            caps: 1,
            dying: false,
        };
        let root_pool = pools.insert(root).ok()?;
        Some(Kernel {
            frames,
            capacities,
            pools,
            regions: Arena::new(capacities.regions)?,
            mappings: Arena::new(capacities.mappings)?,
            endpoints: Arena::new(capacities.endpoints)?,
            notifications: Arena::new(capacities.notifications)?,
            jobs: Arena::new(capacities.jobs)?,
            handovers: Arena::new(capacities.handovers)?,
            journals: Arena::new(capacities.journals)?,
            cached: Arena::new(capacities.cached)?,
            processes: Arena::new(capacities.processes)?,
            threads: Arena::new(capacities.threads)?,
            caps: CapTable::new()?,
            ready: ReadyQueues::default(),
            budgets: Budgets::default(),
            timers: Timers::default(),
            current: IDLE,
            attention: Attention::empty(),
            calls: 0,
            slice_end: 0,
            armed: u64::MAX,
            ticking: false,
            root_pool,
            boot_job: None,
            keyring: KeyRing::default(),
            cache: ModuleCache::default(),
            contract: contract::Own::new()?,
            verifier: Verifier::default(),
            reap: None,
            dead_regions: Vec::with_capacity(capacities.regions as usize),
            doomed: Vec::with_capacity(capacities.threads as usize),
            next_process: 1,
            next_handover: 1,
            devices: DeviceTable::default(),
            interrupts: Interrupts::default(),
            ports: Vec::with_capacity(32),
            grown: [None; GROWN],
            ram_bytes: 0,
            test_hooks: SecureBool::DENY,
            auditing: false,
            marks: None,
            counters: CounterRecord::default(),
            trace: Trace::default(),
            held: [reference(ObjectType::Pool, root_pool)].into(),
            failing: Failing::default(),
            #[cfg(test)]
            sabotage: Default::default(),
            scratch: None,
        })
    }

    /// True in a system whose keys are test keys. A decision that is corrupt is none.
    pub(crate) const fn is_test_system(&self) -> bool {
        self.test_hooks.is_allowed()
    }

    /// What the CPU is busy with.
    #[inline(always)]
    pub(crate) fn running(&self) -> Running {
        match self.current {
            IDLE => Running::Idle,
            VERIFICATION => Running::Verification,
            index => Running::Thread(self.threads.id_at(index)),
        }
    }

    #[inline(always)]
    pub(crate) fn set_running(&mut self, running: Running) {
        self.current = match running {
            Running::Idle => IDLE,
            Running::Verification => VERIFICATION,
            Running::Thread(id) => id.index(),
        };
    }

    // ---- accounting -------------------------------------------------------------------------------

    /// Charges frames and bytes to a Pool, or changes nothing.
    #[inline]
    pub(crate) fn charge(&mut self, pool: PoolId, frames: u64, bytes: u64) -> Result<(), Error> {
        let fails = frames | bytes > 0 && self.allocation_fails();
        let p = self.pools.get_mut(pool).filter(|p| !p.dying).ok_or(Error::ObjectGone)?;
        if frames > p.frames.left() || (fails && frames > 0) {
            return Err(Error::OutOfFrames);
        }
        if bytes > p.bytes.left() || fails {
            return Err(Error::OutOfObjectBytes);
        }
        p.frames.used += frames;
        p.bytes.used += bytes;
        Ok(())
    }

    /// Gives back what was charged. A dying Pool passes it on to its parent at once, and ends when nothing
    /// is charged to it any more.
    #[inline(always)]
    pub(crate) fn refund(&mut self, pool: PoolId, frames: u64, bytes: u64) {
        let Some(p) = self.pools.get_mut(pool) else { return };
        p.frames.used = p.frames.used.saturating_sub(frames);
        p.bytes.used = p.bytes.used.saturating_sub(bytes);
        if p.dying {
            self.pass_on(pool, frames, bytes);
        }
    }

    /// Passes what was given back to a dying Pool on to its parent, and so on. The loop's length is the depth of the
    /// hierarchy.
    #[cold]
    fn pass_on(&mut self, pool: PoolId, frames: u64, bytes: u64) {
        let mut at = (pool, frames, bytes);
        loop {
            let (id, frames, bytes) = at;
            let Some(p) = self.pools.get_mut(id).filter(|p| p.dying) else { return };
            (p.frames.limit, p.bytes.limit) = (p.frames.used, p.bytes.used);
            let (parent, empty) = (p.parent, p.frames.used == 0 && p.bytes.used == 0);
            if empty {
                self.pools.end(id);
            }
            let bytes = bytes + if empty { cost::<Pool>() } else { 0 };
            let Some(up) = parent else { return };
            let Some(p) = self.pools.get_mut(up) else { return };
            p.frames.used = p.frames.used.saturating_sub(frames);
            p.bytes.used = p.bytes.used.saturating_sub(bytes);
            at = (up, frames, bytes);
        }
    }

    /// Marks a Pool as dying: what is not in use goes back to its parent at once, the rest as it is
    /// refunded; nothing can be charged any more.
    pub(crate) fn end_pool(&mut self, id: PoolId) {
        let Some(p) = self.pools.get_mut(id).filter(|p| !p.dying) else { return };
        p.dying = true;
        let (frames, bytes) = (p.frames.left(), p.bytes.left());
        (p.frames.limit, p.bytes.limit) = (p.frames.used, p.bytes.used);
        let (parent, empty) = (p.parent, p.frames.used == 0 && p.bytes.used == 0);
        if empty {
            self.pools.remove(id);
        }
        if let Some(up) = parent {
            self.refund(up, frames, bytes + if empty { cost::<Pool>() } else { 0 });
        }
    }

    /// How many Pools stand above this one.
    fn pool_depth(&self, pool: PoolId) -> u32 {
        let (mut at, mut depth) = (self.pools.get(pool).and_then(|p| p.parent), 0);
        while let Some(id) = at {
            depth += 1;
            at = self.pools.get(id).and_then(|p| p.parent);
        }
        depth
    }

    /// True if a Pool is another one or was split from it, however deep.
    pub(crate) fn pool_is_within(&self, pool: PoolId, of: PoolId) -> bool {
        let mut at = Some(pool);
        while let Some(id) = at {
            if id == of {
                return true;
            }
            at = self.pools.get(id).and_then(|p| p.parent);
        }
        false
    }

    /// Splits a child off a Pool. The child has no capability yet.
    pub(crate) fn split_pool(&mut self, parent: PoolId, frames: u64, bytes: u64) -> Result<PoolId, Error> {
        if self.pool_depth(parent) >= MAX_POOL_DEPTH {
            return Err(Error::PoolTooDeep);
        }
        self.room(self.pools.has_room())?;
        let total = bytes.checked_add(cost::<Pool>()).ok_or(Error::OutOfObjectBytes)?;
        self.charge(parent, frames, total)?;
        let child = Pool {
            parent: Some(parent),
            frames: Quota { limit: frames, used: 0 },
            bytes: Quota { limit: bytes, used: 0 },
            caps: 0,
            dying: false,
        };
        self.pools.insert(child).map_err(|_| Error::ArenaFull)
    }

    /// Takes a frame that was charged already. Since all quotas together are at most the frames that
    /// exist, this fails only while frames wait in quarantine.
    pub(crate) fn take_charged_frame(&mut self) -> Result<Frame, Error> {
        self.frames_free(1)?;
        self.frames.take().ok_or(Error::OutOfFrames)
    }

    /// Charges and takes one zeroed frame.
    pub(crate) fn take_frame(&mut self, m: &mut impl Machine, pool: PoolId) -> Result<Frame, Error> {
        self.charge(pool, 1, 0)?;
        match self.take_charged_frame() {
            Ok(f) => {
                m.zero_frame(f);
                Ok(f)
            }
            Err(e) => {
                self.refund(pool, 1, 0);
                Err(e)
            }
        }
    }

    /// Gives back one charged frame.
    pub(crate) fn put_frame(&mut self, pool: PoolId, frame: Frame) {
        if self.frames.put(frame) {
            self.refund(pool, 1, 0);
        }
    }

    // ---- capabilities -----------------------------------------------------------------------------

    /// The place of a slot in the table.
    #[inline(always)]
    pub(crate) fn place(&self, process: ProcessId, slot: Slot) -> Result<CapId, Error> {
        // The place belongs to whoever stands in the arena's slot now.
        self.processes.get(process).ok_or(Error::ObjectGone)?;
        let slot = slot.0 as usize;
        if slot < CSPACE { Ok(CapId::in_cspace(process.index(), slot)) } else { Err(Error::SlotOutOfRange) }
    }

    /// The capability in a slot of a process.
    #[inline(always)]
    pub(crate) fn find(&self, process: ProcessId, slot: Slot) -> Result<Found, Error> {
        let id = self.place(process, slot)?;
        let cap = self.caps.get(id).ok_or(Error::NoCapability)?;
        Ok(Found { id, cap })
    }

    /// As [`Kernel::find`], of a type, with rights, usable, its object alive.
    pub(crate) fn find_typed(
        &self,
        process: ProcessId,
        slot: Slot,
        kind: ObjectType,
        rights: Rights,
    ) -> Result<Found, Error> {
        let found = self.find(process, slot)?;
        if found.cap.object.kind != kind {
            return Err(Error::WrongType);
        }
        if !found.cap.rights.usable() {
            return Err(Error::EndowOnly);
        }
        if !found.cap.rights.contains(rights) {
            return Err(Error::MissingRight);
        }
        if !self.is_alive(found.cap.object) {
            return Err(Error::ObjectGone);
        }
        Ok(found)
    }

    /// An empty slot; grows the CSpace by a chunk, charged to the process's Pool, if it lies beyond.
    #[inline(always)]
    pub(crate) fn free_slot(&mut self, process: ProcessId, slot: Slot) -> Result<CapId, Error> {
        let id = self.place(process, slot)?;
        if slot == Slot::NONE {
            return Err(Error::SlotOutOfRange);
        }
        if !self.caps.is_usable(id) {
            self.grow(process, id)?;
        }
        if self.caps.is_empty(id) { Ok(id) } else { Err(Error::SlotOccupied) }
    }

    /// Gives a CSpace the chunk that a slot lies in.
    #[cold]
    fn grow(&mut self, process: ProcessId, at: CapId) -> Result<(), Error> {
        let p = self.processes.get(process).ok_or(Error::ObjectGone)?;
        if matches!(p.state, ProcessState::Dying | ProcessState::Ended) {
            return Err(Error::Dying);
        }
        self.charge(p.pool, 0, CapTable::CHUNK_BYTES)?;
        self.caps.set_usable(at, true);
        if let Some(entry) = self.grown.iter_mut().find(|g| g.is_none()) {
            *entry = Some(at);
            self.attention |= Attention::GROWN;
        }
        Ok(())
    }

    /// A call has failed: chunks that it made CSpaces grow by, and that nothing lies in, go back.
    pub(crate) fn shrink_grown(&mut self) {
        self.shrink_to([None; GROWN]);
        self.attention -= Attention::GROWN;
    }

    /// As [`Kernel::shrink_grown`], but for what a call made CSpaces grow by before a part of it failed.
    pub(crate) fn shrink_to(&mut self, kept: Grown) {
        let grown = core::mem::replace(&mut self.grown, kept);
        for at in grown.into_iter().filter(|at| !kept.contains(at)).flatten() {
            let pool = self.processes.known(at.process()).pool;
            if CapTable::chunk_of(at).all(|slot| self.caps.is_empty(slot)) {
                self.caps.set_usable(at, false);
                self.refund(pool, 0, CapTable::CHUNK_BYTES);
            }
        }
    }

    /// A call has succeeded: what CSpaces grew by stays.
    pub(crate) fn keep_grown(&mut self) {
        if self.attention.contains(Attention::GROWN) {
            self.grown = Default::default();
            self.attention -= Attention::GROWN;
        }
    }

    /// Puts a capability for a new object into an empty slot.
    #[inline]
    pub(crate) fn install(&mut self, at: CapId, cap: Cap) {
        if self.caps.insert_root(at, cap) {
            self.gained(&cap);
        }
    }

    /// Puts a child of `parent` into an empty slot.
    #[inline]
    pub(crate) fn derive(&mut self, parent: CapId, at: CapId, cap: Cap) -> bool {
        let done = self.caps.insert_child(parent, at, cap);
        if done {
            self.gained(&cap);
        }
        done
    }

    /// Books one capability more. A Handover also counts who manages it.
    #[inline(always)]
    pub(crate) fn gained(&mut self, cap: &Cap) {
        if cap.object.kind == ObjectType::Handover {
            self.handover_gained(cap)
        } else {
            self.count_cap(cap.object, 1)
        }
    }

    /// Books one capability more (or, `by` −1, less) for the object.
    #[inline(always)]
    pub(crate) fn count_cap(&mut self, object: ObjRef, by: i32) {
        if let Some(count) = self.cap_counter(object) {
            *count = count.wrapping_add_signed(by);
        }
    }

    /// How many capabilities name an object, if it lives and its type counts them. A dying Pool is past that.
    #[inline(always)]
    pub(crate) fn cap_counter(&mut self, o: ObjRef) -> Option<&mut u32> {
        let (i, g) = (o.index, o.generation);
        match o.kind {
            ObjectType::Pool => {
                self.pools.get_mut(Id::from_parts(i, g)).filter(|x| !x.dying).map(|x| &mut x.caps)
            }
            ObjectType::Region => self.regions.get_mut(Id::from_parts(i, g)).map(|x| &mut x.caps),
            ObjectType::Mapping => self.mappings.get_mut(Id::from_parts(i, g)).map(|x| &mut x.caps),
            ObjectType::Endpoint => self.endpoints.get_mut(Id::from_parts(i, g)).map(|x| &mut x.caps),
            ObjectType::Notification => self.notifications.get_mut(Id::from_parts(i, g)).map(|x| &mut x.caps),
            ObjectType::Job => self.jobs.get_mut(Id::from_parts(i, g)).map(|x| &mut x.caps),
            ObjectType::Process => self.processes.get_mut(Id::from_parts(i, g)).map(|x| &mut x.caps),
            ObjectType::Thread => self.threads.get_mut(Id::from_parts(i, g)).map(|x| &mut x.caps),
            ObjectType::Journal => self.journals.get_mut(Id::from_parts(i, g)).map(|x| &mut x.caps),
            ObjectType::CachedImage => self.cached.get_mut(Id::from_parts(i, g)).map(|x| &mut x.caps),
            _ => None,
        }
    }

    /// True if the object of a capability still lives. A Reply is checked where it is used.
    #[inline(always)]
    pub(crate) fn is_alive(&self, o: ObjRef) -> bool {
        let (i, g) = (o.index, o.generation);
        match o.kind {
            ObjectType::Pool => self.pools.get(Id::from_parts(i, g)).is_some_and(|p| !p.dying),
            ObjectType::Region => self.regions.get(Id::from_parts(i, g)).is_some(),
            ObjectType::Mapping => self.mappings.get(Id::from_parts(i, g)).is_some(),
            ObjectType::Endpoint => self.endpoints.get(Id::from_parts(i, g)).is_some(),
            ObjectType::Notification => self.notifications.get(Id::from_parts(i, g)).is_some(),
            ObjectType::Job => self.jobs.get(Id::from_parts(i, g)).is_some(),
            ObjectType::Process => self.processes.get(Id::from_parts(i, g)).is_some(),
            ObjectType::Thread => self.threads.get(Id::from_parts(i, g)).is_some(),
            ObjectType::Handover => self.handovers.get(Id::from_parts(i, g)).is_some(),
            ObjectType::Journal => self.journals.get(Id::from_parts(i, g)).is_some(),
            ObjectType::CachedImage => self.cached.get(Id::from_parts(i, g)).is_some(),
            _ => true,
        }
    }

    /// Deletes a capability: its children go to its parent; the last one may end the object.
    pub(crate) fn delete(&mut self, m: &mut impl Machine, at: CapId) -> bool {
        let Some(cap) = self.caps.remove(at) else { return false };
        self.count_cap(cap.object, -1);
        self.after_delete(m, cap);
        true
    }

    /// What the type table asks for when a capability has gone.
    fn after_delete(&mut self, m: &mut impl Machine, cap: Cap) {
        let (i, g) = (cap.object.index, cap.object.generation);
        match cap.object.kind {
            ObjectType::Reply => self.drop_reply(&cap),
            ObjectType::Pool => self.drop_pool(Id::from_parts(i, g)),
            ObjectType::Region => self.drop_region(Id::from_parts(i, g)),
            ObjectType::Endpoint => self.drop_endpoint(Id::from_parts(i, g)),
            ObjectType::Notification => self.drop_notification(Id::from_parts(i, g)),
            ObjectType::Job => self.drop_job(m, Id::from_parts(i, g)),
            ObjectType::Process => self.drop_process(m, Id::from_parts(i, g)),
            ObjectType::Handover => self.handover_lost(m, &cap),
            ObjectType::Journal => self.drop_journal(Id::from_parts(i, g)),
            _ => {}
        }
    }

    fn drop_pool(&mut self, id: PoolId) {
        if self.pools.get(id).is_some_and(|p| p.caps == 0) {
            self.end_pool(id);
        }
    }

    pub(crate) fn drop_job(&mut self, m: &mut impl Machine, id: JobId) {
        if let Some(pool) = self.jobs.get(id).filter(|j| j.caps == 0 && j.members == 0).map(|j| j.pool) {
            self.jobs.remove(id);
            self.refund(pool, 0, cost::<Job>());
            self.job_ended(m, id);
        }
    }

    /// Objects alive in all arenas.
    pub(crate) fn live_objects(&self) -> u64 {
        [
            self.pools.live(),
            self.regions.live(),
            self.mappings.live(),
            self.endpoints.live(),
            self.notifications.live(),
            self.jobs.live(),
            self.processes.live(),
            self.threads.live(),
            self.handovers.live(),
            self.journals.live(),
            self.cached.live(),
        ]
        .into_iter()
        .map(u64::from)
        .sum()
    }
}

/// The reference by which a capability names this object.
pub(crate) fn reference<T>(kind: ObjectType, id: Id<T>) -> ObjRef {
    ObjRef { kind, index: id.index(), generation: id.generation() }
}

/// The id of an object of this type, from a capability that was checked to name one.
pub(crate) fn id_of<T>(cap: &Cap) -> Id<T> {
    Id::from_parts(cap.object.index, cap.object.generation)
}
