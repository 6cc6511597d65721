//! The kernel objects as plain records. What happens to them is in the modules named after them.

use sila_abi::manifest::ServiceDecl;
use sila_abi::record::{Digest, KeyId, Name, Version};

use crate::arena::{Id, Vacant};
use crate::budget::Budget;
use crate::cache::CachedImage;
use crate::cap::CapId;
use crate::frames::Epoch;
use crate::handover::HandoverId;
use crate::machine::{Context, Frame};
use crate::paging::{Roots, UserRange};
use crate::queue::{Link, Queue};
use crate::rate::Bucket;
use sila_abi::{Error, Slot};
use sila_crypto::SecureBool;

/// Names a [`Pool`].
pub type PoolId = Id<Pool>;
/// Names a [`Region`].
pub type RegionId = Id<Region>;
/// Names a [`Mapping`].
pub type MappingId = Id<Mapping>;
/// Names an [`Endpoint`].
pub type EndpointId = Id<Endpoint>;
/// Names a [`Notification`].
pub type NotificationId = Id<Notification>;
/// Names a [`Job`].
pub type JobId = Id<Job>;
/// Names a [`Process`].
pub type ProcessId = Id<Process>;
/// Names a [`Thread`].
pub type ThreadId = Id<Thread>;

/// Object types that are charged. The price is what an arena slot takes, and at least an equal share of
/// [`SHARE`] bytes for each slot of the type, so that nobody exhausts an arena for everybody with a few
/// cheap objects.
pub trait Priced: Sized {
    /// Slots of the type's arena in a booted system.
    const SLOTS: u32;
}

/// Bytes of the reserve that all objects of one type cost together, at least.
pub const SHARE: u64 = 512 << 10;

macro_rules! priced {
    ($($name:ident = $slots:literal),* $(,)?) => { $(impl Priced for $name { const SLOTS: u32 = $slots; })* };
}

priced! {
    Pool = 256, Region = 2048, Mapping = 4096, Endpoint = 512, Notification = 512, Job = 32,
    Process = 128, Thread = 512, CachedImage = 32,
}

/// The object bytes that one object of this type costs.
pub const fn cost<T: Priced>() -> u64 {
    let size = (size_of::<T>() as u64 + 16).next_multiple_of(16);
    let share = SHARE / T::SLOTS as u64;
    if size > share { size } else { share }
}

/// An amount that may be spent up to a limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Quota {
    /// The most that may be in use.
    pub limit: u64,
    /// In use now.
    pub used: u64,
}

impl Quota {
    /// What is left.
    pub const fn left(self) -> u64 {
        self.limit.saturating_sub(self.used)
    }
}

/// An account of frames and object bytes.
#[derive(Debug)]
pub struct Pool {
    /// The Pool this one was split from, which paid for both quotas.
    pub parent: Option<PoolId>,
    /// Frames of 4096 bytes.
    pub frames: Quota,
    /// Object bytes.
    pub bytes: Quota,
    /// Capabilities to it.
    pub caps: u32,
    /// Ends as soon as nothing is charged to it.
    pub dying: bool,
}

/// Where a Region's frames are listed.
#[derive(Clone, Copy, Debug)]
pub enum Backing {
    /// Up to eight frames, here.
    Inline([Frame; 8]),
    /// A root frame of 512 words, each naming a frame of 512 frame numbers.
    Indexed(Frame),
    /// Adjacent frames that no Pool paid for (the boot bundle).
    Contiguous(Frame),
    /// Adjacent pages of a device's registers: never read by the kernel, never freed.
    Device(Frame),
}

/// A set of frames.
#[derive(Debug)]
pub struct Region {
    /// Who paid; `None` for the boot bundle and for devices.
    pub pool: Option<PoolId>,
    /// Capabilities to it.
    pub caps: u32,
    /// Its frames.
    pub backing: Backing,
    /// Its length.
    pub pages: u32,
    /// Frames present so far; less than `pages` while the Region is being made.
    pub filled: u32,
    /// Immutable for ever.
    pub sealed: SecureBool,
    /// Nothing names, maps or pins it any more: the reaper has it.
    pub dead: bool,
    /// Mapping records of it.
    pub mappings: u32,
    /// Writable ones among them.
    pub writable: u32,
    /// Processes that run from it and verifications that read it.
    pub pins: u32,
    /// When a writable page of it was last unmapped or downgraded.
    pub epoch: Epoch,
}

impl Region {
    /// Whether it is sealed; neither, if the decision is corrupt.
    pub fn is_sealed(&self) -> Result<bool, Error> {
        self.sealed.read().map_err(|_| Error::IntegrityFault)
    }

    /// Refuses what is not sealed.
    pub fn demand_sealed(&self) -> Result<(), Error> {
        if self.is_sealed()? { Ok(()) } else { Err(Error::NotSealed) }
    }

    /// Refuses what is sealed.
    pub fn demand_unsealed(&self) -> Result<(), Error> {
        if self.is_sealed()? { Err(Error::Sealed) } else { Ok(()) }
    }

    /// True if it is a device's registers.
    pub const fn is_device(&self) -> bool {
        matches!(self.backing, Backing::Device(_))
    }
}

/// A range of a Region mapped in a process.
#[derive(Debug)]
pub struct Mapping {
    /// Who paid.
    pub pool: PoolId,
    /// Capabilities to it.
    pub caps: u32,
    /// What is mapped.
    pub region: RegionId,
    /// Where.
    pub process: ProcessId,
    /// At which addresses.
    pub range: UserRange,
    /// The page of the Region that comes first. Two bytes leave the record as long as it would be without.
    pub offset: u16,
    /// Whether the process may write.
    pub writable: bool,
    /// The last-level page table that all its pages stand in, if it is one.
    pub table: Option<Frame>,
    /// Neighbours in the process's list.
    pub prev: Option<MappingId>,
    /// Neighbours in the process's list.
    pub next: Option<MappingId>,
}

/// A service's identity: the publisher and the name that its verified manifest declares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Label {
    /// Publisher.
    pub publisher: Name,
    /// Service name.
    pub name: Name,
}

/// A rendezvous for messages.
#[derive(Debug)]
pub struct Endpoint {
    /// Who paid.
    pub pool: PoolId,
    /// Capabilities to it.
    pub caps: u32,
    /// The only process that may receive.
    pub receiver: Option<ProcessId>,
    /// The service it belongs to, set when it was made.
    pub label: Option<Label>,
    /// Waiting callers outlive the receiver.
    pub durable: bool,
    /// Least priority at which its calls are served.
    pub ceiling: u8,
    /// The Handover that covers it, and which of its services it belongs to.
    pub covered: Option<(HandoverId, u8)>,
    /// Who may not receive while a Handover keeps its gate shut; it has no receiver then.
    pub shut: Option<ProcessId>,
    /// The number of the last call before it was made.
    pub made_at: u64,
    /// Threads with a message to deliver.
    pub senders: Queue,
    /// Threads of the receiver that wait.
    pub receivers: Queue,
}

/// A word of flags.
#[derive(Debug)]
pub struct Notification {
    /// Who paid.
    pub pool: PoolId,
    /// Capabilities to it.
    pub caps: u32,
    /// Flags set and not yet taken.
    pub flags: u64,
    /// Threads that wait for it alone.
    pub waiters: Queue,
    /// The thread whose receives it interrupts.
    pub bound: Option<ThreadId>,
    /// Flags that its alarm will set.
    pub alarm_flags: u64,
}

/// A group of processes.
#[derive(Debug)]
pub struct Job {
    /// Who paid.
    pub pool: PoolId,
    /// Capabilities to it.
    pub caps: u32,
    /// Processes in it, ended ones included.
    pub members: u32,
    /// How many more may be made in it now.
    pub creations: Bucket,
}

/// How a process came to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Exit {
    /// 0 not ended, 1 exit, 2 terminated, 3 fault.
    pub cause: u64,
    /// Exit code, or exception vector.
    pub code: u64,
    /// Faulting address.
    pub address: u64,
    /// Instruction pointer at the fault.
    pub instruction: u64,
    /// The processor's error code.
    pub error: u64,
}

/// Where a process stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum ProcessState {
    /// Being made: nothing names it, and nothing shows it.
    Embryo = 0,
    /// Made, not started.
    Created = 1,
    /// Started.
    Running = 2,
    /// Being taken apart; no capability reaches it for anything but its status.
    Dying = 3,
    /// Gone but for its record.
    Ended = 4,
}

/// Watchers of one process.
pub const MAX_WATCHERS: usize = 4;

/// What the verified manifest says that the kernel keeps.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// Module name.
    pub name: Name,
    /// Version.
    pub version: Version,
    /// Anti-rollback version.
    pub security_version: u32,
    /// Publisher.
    pub publisher: Name,
    /// Id of the key that signed it.
    pub key_id: KeyId,
    /// The service it may receive for.
    pub service: Option<ServiceDecl>,
    /// Id hash of the manifest.
    pub manifest_digest: Digest,
    /// Sequence of the policy that its capabilities were granted by; 0 for a module of the boot manifest.
    pub policy: u64,
}

/// How far the end of a process has come, beyond what its own lists and tables tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Teardown {
    /// Slots of the endpoint and notification arenas that were looked at.
    pub endpoints: u32,
    /// Slots of the CSpace chunk in hand that were emptied.
    pub slots: usize,
    /// Below this address nothing is mapped any more.
    pub address: u64,
    /// Slots of the arena of Pools that were looked at.
    pub pools: u32,
    /// A Pool that had not ended was among them.
    pub found: bool,
}

/// An isolated address space with its CSpace and threads.
#[derive(Debug)]
pub struct Process {
    /// Its number, never reused.
    pub number: u64,
    /// Who paid for this record: the creator's Pool.
    pub payer: PoolId,
    /// Its own Pool, from which everything else of it is paid.
    pub pool: PoolId,
    /// Its Job.
    pub job: JobId,
    /// Capabilities to it.
    pub caps: u32,
    /// From its manifest.
    pub identity: Identity,
    /// Where it stands.
    pub state: ProcessState,
    /// How it ended.
    pub exit: Exit,
    /// Page-table roots; `None` once freed.
    pub roots: Option<Roots>,
    /// Highest priority its threads may have.
    pub ceiling: u8,
    /// Most threads.
    pub max_threads: u16,
    /// Threads alive.
    pub thread_count: u16,
    /// The thread that ProcessStart lets run.
    pub initial: Option<ThreadId>,
    /// First of its threads.
    pub threads: Option<ThreadId>,
    /// First of its mappings.
    pub mappings: Option<MappingId>,
    /// The sealed Region it runs from, pinned.
    pub image: Option<RegionId>,
    /// The last Handover that covered it.
    pub handover: Option<HandoverId>,
    /// It passed its service on and does not run any more.
    pub retired: bool,
    /// Whom its end is signalled to.
    pub watchers: [Option<(NotificationId, u64)>; MAX_WATCHERS],
    /// How far its end has come.
    pub end: Teardown,
    /// Next on the reaper's list.
    pub reap_next: Option<ProcessId>,
    /// How long its threads may run in each period.
    pub budget: Budget,
}

/// A processor exception in ring 3.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// Exception vector.
    pub vector: u8,
    /// The processor's error code.
    pub error: u64,
    /// Faulting address.
    pub address: u64,
}

/// What a thread is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ThreadState {
    /// Not started, or suspended.
    Inactive,
    /// In a ready queue.
    Ready,
    /// On a CPU.
    Running,
    /// Waits to deliver a message.
    Sending {
        /// Where.
        endpoint: EndpointId,
        /// Badge of the capability it used.
        badge: u64,
        /// It then waits for a reply.
        call: bool,
        /// The capability carries the right to send capabilities.
        grant: bool,
    },
    /// Waits for a message.
    Receiving {
        /// Where.
        endpoint: EndpointId,
    },
    /// Waits for flags.
    Waiting {
        /// On what.
        notification: NotificationId,
    },
    /// Its call was received; it waits for the reply.
    AwaitingReply,
    /// Waits for a verification.
    Verifying,
}

bitflags::bitflags! {
    /// What keeps a thread from the fast path.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Quirks: u8 {
        /// Its wait has a deadline.
        const TIMED = 1 << 0;
        /// It waits for a fault to be handled.
        const FAULTED = 1 << 1;
        /// It is making a Region that an interrupt kept from being finished.
        const BUILDING = 1 << 2;
        /// There is no thread here.
        const ABSENT = 1 << 3;
        /// It ran when a Handover suspended its process.
        const HELD = 1 << 4;
        /// Its process has a budget.
        const BUDGETED = 1 << 5;
    }
}

/// An execution context.
#[derive(Debug)]
pub struct Thread {
    /// What the processor is loaded with when it runs.
    pub context: Context,
    /// Its process.
    pub process: ProcessId,
    /// Capabilities to it.
    pub caps: u32,
    /// What it is doing.
    pub state: ThreadState,
    /// Its own priority.
    pub priority: u8,
    /// The priority it runs at.
    pub effective: u8,
    /// Its place in a queue.
    pub link: Link,
    /// What keeps it from the fast path.
    pub quirks: Quirks,
    /// The reply slot of its last receive.
    pub reply_slot: u16,
    /// The place of that slot.
    pub reply_at: CapId,
    /// Frame of its XSAVE area.
    pub fpu: Frame,
    /// Its message page.
    pub message: Option<(Frame, u64)>,
    /// Number of its current call; a Reply with another number is late.
    pub call: u64,
    /// The Region it is making, if that was preempted.
    pub building: Option<RegionId>,
    /// The notification that interrupts its receives.
    pub bound: Option<NotificationId>,
    /// What is left of its time slice, ns, if a higher priority took the CPU; else 0, or [`crate::budget::FRESH`] of a
    /// ready thread with a budget.
    pub slice_left: u64,
    /// The capability, in a process's slot, that its faults are reported through.
    pub fault_endpoint: Option<(ProcessId, Slot)>,
    /// The fault it waits to be resumed from; its registers stay as they were.
    pub fault: Option<Fault>,
    /// Neighbours in the process's list.
    pub prev: Option<ThreadId>,
    /// Neighbours in the process's list.
    pub next: Option<ThreadId>,
}

/// A capability found by slot, with the place it was found in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found {
    /// The slot of the table.
    pub id: CapId,
    /// What it holds.
    pub cap: crate::cap::Cap,
}

/// Stands for the name of no module.
#[allow(clippy::panic, reason = "decided when the kernel is compiled")]
const NAMELESS: Name = match Name::new("-") {
    Ok(name) => name,
    Err(_) => panic!("`-` is a name"),
};

const NOBODY: ProcessId = Id::from_parts(0, 0);
const NO_POOL: PoolId = Id::from_parts(0, 0);

impl Vacant for Pool {
    fn vacant() -> Self {
        Pool { parent: None, frames: Quota::default(), bytes: Quota::default(), caps: 0, dying: true }
    }
}

impl Vacant for Region {
    fn vacant() -> Self {
        Region {
            pool: None,
            caps: 0,
            backing: Backing::Contiguous(Frame(0)),
            pages: 0,
            filled: 0,
            sealed: SecureBool::DENY,
            dead: false,
            mappings: 0,
            writable: 0,
            pins: 0,
            epoch: Epoch::default(),
        }
    }
}

impl Vacant for Mapping {
    fn vacant() -> Self {
        Mapping {
            pool: NO_POOL,
            caps: 0,
            region: Id::from_parts(0, 0),
            process: NOBODY,
            range: UserRange::NONE,
            offset: 0,
            writable: false,
            table: None,
            prev: None,
            next: None,
        }
    }
}

impl Vacant for Endpoint {
    fn vacant() -> Self {
        Endpoint {
            pool: NO_POOL,
            caps: 0,
            receiver: None,
            label: None,
            durable: false,
            ceiling: 0,
            covered: None,
            shut: None,
            made_at: 0,
            senders: Queue::default(),
            receivers: Queue::default(),
        }
    }
}

impl Vacant for Notification {
    fn vacant() -> Self {
        Notification {
            pool: NO_POOL,
            caps: 0,
            flags: 0,
            waiters: Queue::default(),
            bound: None,
            alarm_flags: 0,
        }
    }
}

impl Vacant for Job {
    fn vacant() -> Self {
        Job { pool: NO_POOL, caps: 0, members: 0, creations: Bucket::default() }
    }
}

impl Vacant for Process {
    fn vacant() -> Self {
        let identity = Identity {
            name: NAMELESS,
            version: Version::MIN,
            security_version: 0,
            publisher: NAMELESS,
            key_id: [0; 32],
            service: None,
            manifest_digest: [0; 32],
            policy: 0,
        };
        Process {
            number: 0,
            payer: NO_POOL,
            pool: NO_POOL,
            job: Id::from_parts(0, 0),
            caps: 0,
            identity,
            state: ProcessState::Ended,
            exit: Exit::default(),
            roots: None,
            ceiling: 0,
            max_threads: 0,
            thread_count: 0,
            initial: None,
            threads: None,
            mappings: None,
            image: None,
            handover: None,
            retired: false,
            watchers: [None; MAX_WATCHERS],
            end: Teardown::default(),
            reap_next: None,
            budget: Budget::default(),
        }
    }
}

impl Vacant for Thread {
    fn vacant() -> Self {
        Thread {
            context: Context::default(),
            process: NOBODY,
            caps: 0,
            state: ThreadState::Inactive,
            priority: 0,
            effective: 0,
            link: Link::NONE,
            quirks: Quirks::ABSENT,
            reply_slot: 0,
            reply_at: CapId::NOWHERE,
            fpu: Frame(0),
            message: None,
            call: 0,
            building: None,
            bound: None,
            slice_left: 0,
            fault_endpoint: None,
            fault: None,
            prev: None,
            next: None,
        }
    }
}
