//! The invariant checker: holds the whole [`Kernel`] value against rules that must be true between any two
//! system calls, and names the first one that is broken.
//!
//! It shares no code with the paths that it checks. It reads objects, lists, links and frames as they are stored
//! and works out on its own what they must amount to; it changes nothing. It allocates nothing: what it has to
//! remember on the way stands in a [`Scratch`], which is made at boot, and only in test systems. Every walk is
//! bounded by marks or counts, so that it ends whatever it finds.

use alloc::boxed::Box;
use alloc::vec;
use sila_abi::ObjectType;

use crate::arena::Id;
use crate::arena::view::{ArenaView, SlotView};
use crate::cap::ObjRef;
use crate::cap::view::ALL_SLOTS;
use crate::kernel::Kernel;
use crate::machine::Machine;
use crate::objects::{PoolId, Priced, ProcessId, Region, Thread};

mod arenas;
mod budgets;
mod caps;
mod frames;
mod handovers;
mod ipc;
mod memory;
mod pools;
mod processes;
mod threads;

macro_rules! rules {
    ($($name:ident = $number:literal, $text:literal;)*) => {
        /// The rules.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub enum Rule { $(#[doc = $text] $name = $number),* }

        impl Rule {
            /// Every rule, in order of number.
            pub const ALL: &'static [Rule] = &[$(Rule::$name),*];

            /// What it demands.
            pub const fn text(self) -> &'static str {
                match self { $(Rule::$name => $text),* }
            }
        }
    };
}

rules! {
    ArenaSlots = 1, "Every slot of an arena holds a live object, is retired, or is once in the list of vacant slots; the count of live objects is right. Index: object type, detail: slot.";
    Chunks = 2, "Only the CSpace of a process that has not ended may use slots, and of nobody's the chunk of each Handover. Index: process slot, detail: its chunks, a bit each.";
    CapPlace = 3, "A capability lies in a chunk that its CSpace may use, and never in slot 0. Index: place in the table (process slot * 1024 + slot).";
    CapObject = 4, "A capability names an object of a type that exists, by a generation that its slot has reached. Index: place.";
    CapLinks = 5, "The links between parent, siblings and children agree in both directions. Index: place.";
    CapTree = 6, "Every capability but a Reply descends from the anchor, once; the count of capabilities is right. Index: place, or number found.";
    CapShrinks = 7, "A capability has no right that its parent to the same object lacks (ENDOW apart), and the parent's badge, if it has one; one to another object is a Pool split off the parent's. Index: place.";
    CapCount = 8, "An object that lives counts the capabilities that name it, those that the kernel holds, and, a process, the active Handovers that it takes part in; a dying Pool does not. Index: object type, detail: slot.";
    Reply = 9, "A thread that awaits a reply has exactly one Reply, somewhere; no Reply has a number that its caller has not reached. Index: thread.";
    Kept = 10, "Nothing lives that neither a capability nor its use keeps alive. Index: object type, detail: slot.";
    PoolTree = 11, "Every Pool but the root was split from a live one, and leads to the root. Index: Pool.";
    PoolPayer = 12, "Whoever pays for an object lives. Index: Pool, detail: its generation.";
    PoolFrames = 13, "The frames in use of a Pool are what its objects cost and what its children may use. Index: Pool, detail: the sum.";
    PoolBytes = 14, "The object bytes in use of a Pool are what its objects cost and what its children may use. Index: Pool, detail: the sum.";
    PoolLimit = 15, "No Pool uses more than its quota; a dying one uses all of it, and something. Index: Pool.";
    PoolReserve = 16, "The root's quotas are at most the frames and the reserve of object bytes that exist. Index: 0 frames, 1 bytes.";
    FrameLists = 17, "The lists of free and of quarantined frames hold what their counts say, each frame in the state that the list stands for. Index: frame.";
    FrameOwner = 18, "Every frame in use has exactly one owner, and every owner's frame is in use. Index: frame, detail: 0 claimed twice or not in use, 1 number of frames that nobody owns.";
    PageShown = 19, "A page of a live process shows a frame in use or one that is not the allocator's. Index: process slot, detail: address.";
    UserRoot = 20, "The lower half of a root that ring 3 uses is that of the kernel's root. Index: process slot, detail: entry.";
    MappingPages = 21, "Every page of a mapping is present, belongs to a Region and is writable only if the mapping is. Index: mapping, detail: address.";
    MappingList = 22, "Every mapping is once in the list of its process, which has not ended, and its Region lives. Index: mapping.";
    RegionCounts = 23, "A Region counts its mappings, its writable ones and its pins. Index: Region, detail: 0 mappings, 1 writable, 2 pins.";
    RegionState = 24, "A sealed Region is whole and has no writable mapping; one that is not whole is being made or taken apart. Index: Region.";
    RegionReaped = 25, "The reaper's list holds each dead Region once, and nothing else. Index: Region.";
    ThreadList = 26, "Every thread is once in the list of its process, which counts it and has not ended. Index: thread.";
    ThreadQueue = 27, "A thread is in exactly the queue that its state says, and in no other. Index: thread.";
    QueueOrder = 28, "A queue's links agree in both directions and its priorities fall; a ready queue's are its own. Index: thread.";
    ReadyMap = 29, "The map of ready queues and the highest priority are right. Index: priority.";
    Running = 30, "Exactly the running thread is in the state of one. Index: thread.";
    ThreadShape = 31, "A thread's priorities, quirks, roots and reply slot are those that its process and its state say. Index: thread, detail: 0 priority, 1 quirks, 2 no process, 3 roots, 4 reply slot.";
    Timers = 32, "The timers form a heap whose places are right, the hardware is set for the first, and exactly who waits with a deadline has one. Index: place, or thread.";
    Bound = 33, "A notification and the thread that it is bound to name each other. Index: notification, or thread.";
    Receiver = 34, "An endpoint's receiver lives, and its manifest declares the endpoint's label. Index: endpoint.";
    Rendezvous = 35, "Senders wait where somebody can receive, receivers are the receiver's own threads, and never both wait. Index: endpoint.";
    Signalled = 36, "Nobody waits for a notification whose flags are set. Index: notification.";
    ProcessState = 37, "A process has what its state says: roots, threads, image; a dying one's threads neither run nor wait; an ended one has nothing left. Index: process slot.";
    ProcessNumber = 38, "No two processes have one number, and none has one that is still to come. Index: process slot.";
    JobMembers = 39, "A Job counts its processes, and every process has a Job that lives. Index: Job.";
    ReapList = 40, "The reaper's list holds each dying process once, and no other. Index: process slot.";
    Verifying = 41, "Every thread that waits for a verification has one request, every request that is waited for such a thread, every process in the making a request, and the job record is where it should be. Index: thread.";
    Attention = 42, "What waits to be attended to is marked so. Index: the mark.";
    Handover = 43, "An active Handover names two processes that exist for each service and covers its endpoint; gates are shut in the states for it; it counts its managers. Index: Handover, detail: service, or 8 managers.";
    Deposit = 44, "A deposit belongs to a service, and is of a kind that passes on. Index: Handover, detail: deposit.";
    Gate = 45, "An endpoint is covered by an active Handover's service or none; its gate is shut exactly while that service's is, and then it has no receiver; it was made before calls that are still to come. Index: endpoint, detail: 0 covered, 1 shut, 2 made.";
    Retired = 46, "No thread of a process that passed its service on runs or waits, and only such are held back. Index: thread.";
    Journal = 47, "A Journal's storage is a Region of its own, paid by the same Pool, and its records and index fit. Index: Journal.";
    Budget = 48, "A budget keeps its bounds, a spent one has an alarm for the end of its period; exactly its process's threads are marked, and stand in the background band when they are ready exactly if it is spent; the process of what runs pays. Index: process slot, detail: 0 bounds, 1 alarm, 2 mark, 3 slice, 4 band, 5 payer.";
    Cached = 49, "Every image of the module cache has a sealed Region that it pins, what was verified of it, and a key that no other has; the cache counts their frames. Index: cached image, or 0 for the count.";
}

/// A rule that does not hold, and where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Broken {
    /// Which one.
    pub rule: Rule,
    /// The object, or what else the rule calls its index.
    pub index: u64,
    /// More about it.
    pub detail: u64,
}

/// Passes if a condition holds.
pub(crate) fn demand(holds: bool, rule: Rule, index: impl Into<u64>, detail: u64) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(Broken { rule, index: index.into(), detail }) }
}

/// Every arena, by the type of its objects.
fn arenas(k: &Kernel) -> [(ObjectType, &dyn ArenaView); ARENAS] {
    [
        (ObjectType::Pool, &k.pools),
        (ObjectType::Region, &k.regions),
        (ObjectType::Mapping, &k.mappings),
        (ObjectType::Endpoint, &k.endpoints),
        (ObjectType::Notification, &k.notifications),
        (ObjectType::Job, &k.jobs),
        (ObjectType::Process, &k.processes),
        (ObjectType::Thread, &k.threads),
        (ObjectType::Handover, &k.handovers),
        (ObjectType::Journal, &k.journals),
        (ObjectType::CachedImage, &k.cached),
    ]
}

const ARENAS: usize = 11;
/// Object types have numbers below this.
const TYPES: usize = 32;

/// What an object of a type in an arena counts of the capabilities that name it.
fn counted(k: &Kernel, kind: ObjectType, index: u32) -> Option<u32> {
    Some(match kind {
        ObjectType::Pool => k.pools.at(index).filter(|(_, p)| !p.dying)?.1.caps,
        ObjectType::Region => k.regions.at(index)?.1.caps,
        ObjectType::Mapping => k.mappings.at(index)?.1.caps,
        ObjectType::Endpoint => k.endpoints.at(index)?.1.caps,
        ObjectType::Notification => k.notifications.at(index)?.1.caps,
        ObjectType::Job => k.jobs.at(index)?.1.caps,
        ObjectType::Process => k.processes.at(index)?.1.caps,
        ObjectType::Thread => k.threads.at(index)?.1.caps,
        ObjectType::Handover => k.handovers.at(index)?.1.caps,
        ObjectType::Journal => k.journals.at(index)?.1.caps,
        ObjectType::CachedImage => k.cached.at(index)?.1.caps,
        _ => return None,
    })
}

/// A bit for each of so many numbers.
struct Marks(Box<[u64]>);

impl Marks {
    fn new(count: usize) -> Self {
        Marks(vec![0; count.div_ceil(64)].into_boxed_slice())
    }

    fn clear(&mut self) {
        self.0.fill(0);
    }

    /// Sets a mark; false if it was set, or there is no such number.
    fn set(&mut self, number: u32) -> bool {
        let Some(word) = self.0.get_mut(number as usize / 64) else { return false };
        let bit = 1 << (number % 64);
        let fresh = *word & bit == 0;
        *word |= bit;
        fresh
    }

    fn is_set(&self, number: u32) -> bool {
        self.0.get(number as usize / 64).is_some_and(|word| word >> (number % 64) & 1 == 1)
    }
}

/// What the objects found so far cost a Pool.
#[derive(Clone, Copy, Default)]
struct Bill {
    frames: u64,
    bytes: u64,
}

/// What was found of a Region.
#[derive(Clone, Copy, Default)]
struct RegionUse {
    mappings: u32,
    writable: u32,
    pins: u32,
    dead: bool,
    begun: bool,
}

/// What was found of a thread.
#[derive(Clone, Copy, Default)]
struct ThreadUse {
    /// Times in its process's list.
    listed: u8,
    /// Times in a queue.
    queued: u8,
    /// Requests to the verifier.
    requests: u8,
    /// Replies to the call it makes.
    replies: u8,
}

/// What the checker remembers on its way.
pub struct Scratch {
    caps: Box<[u32]>,
    first: [u32; TYPES],
    places: Marks,
    frames: Marks,
    mappings: Marks,
    claimed: u32,
    pools: Box<[Bill]>,
    regions: Box<[RegionUse]>,
    threads: Box<[ThreadUse]>,
}

impl Scratch {
    /// Room for checking this kernel.
    pub fn new(k: &Kernel) -> Self {
        let mut first = [u32::MAX; TYPES];
        let mut total = 0;
        for (kind, arena) in arenas(k) {
            if let Some(place) = first.get_mut(kind as usize) {
                *place = total;
            }
            total += arena.slots();
        }
        Scratch {
            caps: vec![0; total as usize].into_boxed_slice(),
            first,
            places: Marks::new(ALL_SLOTS),
            frames: Marks::new(k.frames.limit() as usize),
            mappings: Marks::new(k.mappings.capacity() as usize),
            claimed: 0,
            pools: vec![Bill::default(); k.pools.capacity() as usize].into_boxed_slice(),
            regions: vec![RegionUse::default(); Region::SLOTS as usize].into_boxed_slice(),
            threads: vec![ThreadUse::default(); Thread::SLOTS as usize].into_boxed_slice(),
        }
    }

    fn clear(&mut self) {
        self.caps.fill(0);
        for marks in [&mut self.places, &mut self.frames, &mut self.mappings] {
            marks.clear();
        }
        self.claimed = 0;
        self.pools.fill(Bill::default());
        self.regions.fill(RegionUse::default());
        self.threads.fill(ThreadUse::default());
    }

    /// The counter of capabilities to the object in this slot.
    fn caps_of(&mut self, kind: ObjectType, index: u32) -> Option<&mut u32> {
        let first = *self.first.get(kind as usize)?;
        self.caps.get_mut(first.checked_add(index)? as usize)
    }

    /// Books what something costs its payer, who must live.
    fn pay(&mut self, k: &Kernel, pool: PoolId, frames: u64, bytes: u64) -> Result<(), Broken> {
        demand(is_live(k, pool), Rule::PoolPayer, pool.index(), pool.generation().into())?;
        if let Some(bill) = self.pools.get_mut(pool.index() as usize) {
            bill.frames = bill.frames.saturating_add(frames);
            bill.bytes = bill.bytes.saturating_add(bytes);
        }
        Ok(())
    }
}

fn is_live(k: &Kernel, pool: PoolId) -> bool {
    k.pools.slot(pool.index()) == Some(SlotView::Live(pool.generation()))
}

/// The live process with this id.
fn live_process(k: &Kernel, id: ProcessId) -> Option<&crate::objects::Process> {
    k.processes.at(id.index()).filter(|(found, _)| *found == id).map(|(_, p)| p)
}

/// The id by which a capability names an object.
fn id<T>(object: &ObjRef) -> Id<T> {
    Id::from_parts(object.index, object.generation)
}

/// Checks every rule; names the first one that does not hold.
pub fn check(k: &Kernel, m: &mut impl Machine, s: &mut Scratch) -> Result<(), Broken> {
    s.clear();
    arenas::check(k)?;
    caps::check(k, s)?;
    processes::check(k, s)?;
    threads::check(k, s)?;
    budgets::check(k)?;
    ipc::check(k, s)?;
    handovers::check(k, s)?;
    memory::check(k, m, s)?;
    cached(k)?;
    pools::check(k, s)?;
    frames::check(k, m, s)?;
    pools::settle(k, s)
}

/// The module cache. (Pins are counted with those of all Regions.)
fn cached(k: &Kernel) -> Result<(), Broken> {
    let mut frames = 0;
    for (id, entry) in k.cached.iter() {
        let sealed = k.regions.get(entry.image).is_some_and(|r| r.sealed.is_allowed());
        demand(sealed && entry.load.is_some(), Rule::Cached, id.index(), 0)?;
        let alone = k.cached.iter().filter(|(_, other)| other.key == entry.key).count() == 1;
        demand(alone, Rule::Cached, id.index(), 1)?;
        frames += entry.frames;
    }
    demand(frames == k.cache.frames, Rule::Cached, 0u64, frames)
}

impl Kernel {
    /// Makes room for checking, at the boot of a test system or for a host test.
    pub fn prepare_checks(&mut self) {
        self.scratch = Some(Box::new(Scratch::new(self)));
    }

    /// Checks every rule between two system calls, or as the last thing that one does.
    ///
    /// # Errors
    /// The first rule that does not hold. [`Kernel::prepare_checks`] must have been called, else nothing is checked.
    pub fn check_invariants(&mut self, m: &mut impl Machine) -> Result<(), Broken> {
        let Some(mut scratch) = self.scratch.take() else { return Ok(()) };
        let result = check(self, m, &mut scratch);
        self.scratch = Some(scratch);
        result
    }

    /// The result of a TestInvariants: rule, index and detail; all 0 if every rule holds.
    pub(crate) fn invariant_words(&mut self, m: &mut impl Machine) -> [u64; 3] {
        match self.check_invariants(m) {
            Ok(()) => [0; 3],
            Err(b) => [b.rule as u64, b.index, b.detail],
        }
    }
}
