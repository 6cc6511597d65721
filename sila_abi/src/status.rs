//! Records of live kernel state, as introspection returns them.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// State of a process, for `ps`. Words 6 and up of a SystemProcess result, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ProcessRecord {
    /// Process id: never reused while the system runs.
    pub id: u64,
    /// 1 created, 2 running, 3 dying, 4 ended.
    pub state: u64,
    /// Module version: major in bits 32 up, minor in 16 to 31, patch in 0 to 15.
    pub version: u64,
    /// Frames charged for its memory.
    pub frames: u64,
    /// Object bytes charged for it.
    pub object_bytes: u64,
    /// Capabilities in its CSpace.
    pub capabilities: u64,
    /// Threads alive.
    pub threads: u64,
    /// Highest base priority of its threads.
    pub priority: u64,
    /// Length of the name in bytes.
    pub name_len: u64,
    /// The module's name.
    pub name: [u8; 64],
    /// Length of the publisher's name in bytes.
    pub publisher_len: u64,
    /// The publisher's name.
    pub publisher: [u8; 64],
}

/// Totals of memory, for `mem`. Words 0 and up of a SystemMemory result, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MemoryRecord {
    /// Frames that the kernel manages.
    pub frames_total: u64,
    /// Frames free.
    pub frames_free: u64,
    /// Frames in quarantine.
    pub frames_quarantined: u64,
    /// Object bytes in the reserve.
    pub bytes_total: u64,
    /// Object bytes charged.
    pub bytes_used: u64,
    /// Objects alive.
    pub objects: u64,
    /// Capabilities alive.
    pub capabilities: u64,
    /// Bytes of RAM that the firmware reported as usable.
    pub ram_bytes: u64,
}

/// Flags of an Endpoint, as EndpointStatus returns them.
pub mod endpoint {
    /// Waiting callers outlive the receiver.
    pub const DURABLE: u64 = 1 << 0;
    /// It carries a service label.
    pub const LABELLED: u64 = 1 << 1;
    /// A Handover covers it.
    pub const COVERED: u64 = 1 << 2;
    /// The Handover has shut its gate.
    pub const SHUT: u64 = 1 << 3;
}

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident = $label:literal,)*) => {
        /// What the kernel has counted since boot, for `counters`. Words 0 and up of a SystemCounters result, in
        /// order.
        ///
        /// The short paths count nothing: what is said to be exact follows from numbers that they hand out, or
        /// cannot happen there.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
        #[repr(C)]
        pub struct CounterRecord { $($(#[doc = $doc])+ pub $name: u64,)* }

        impl CounterRecord {
            /// Each counter with the words that name it.
            pub fn rows(&self) -> [(&'static str, u64); CounterRecord::COUNT] {
                [$(($label, self.$name)),*]
            }

            /// How many counters there are.
            pub const COUNT: usize = size_of::<CounterRecord>() / 8;
        }
    };
}

counters! {
    /// System calls that no short path took.
    general_calls = "system calls by the general path",
    /// System calls that ended with an error. Exact.
    refused_calls = "system calls refused",
    /// System calls that were preempted and begun anew. Exact.
    restarted_calls = "system calls restarted",
    /// System calls refused for want of frames, object bytes or room in an arena. Exact.
    exhausted_calls = "refused for want of memory",
    /// Calls, and faults reported as calls, that were received. Exact.
    received = "calls received",
    /// Those among them that no short path took. Exact.
    received_generally = "received by the general path",
    /// Times that the scheduler chose a thread. A direct switch between caller and server is none.
    thread_choices = "threads chosen by the scheduler",
    /// Times that the scheduler chose the verification context. Exact.
    verification_choices = "verification chosen by the scheduler",
    /// Times that the scheduler found nothing to run. Exact.
    idle_choices = "idle chosen by the scheduler",
    /// Interrupts of the timer. Exact.
    timer_interrupts = "interrupts of the timer",
    /// Interrupts of devices. Exact.
    device_interrupts = "interrupts of devices",
    /// Faults of threads that no short path made calls.
    general_faults = "faults by the general path",
    /// Times that translations were flushed after unmapping or protecting pages, but for short unmaps.
    flushes = "flushes of translations",
    /// Verifications that were begun. Exact.
    verifications = "verifications begun",
    /// Verifications whose verdict was a refusal, or came to nothing. Exact.
    verifications_refused = "verifications refused",
    /// Processes that were made. Exact.
    processes_made = "processes made",
    /// Processes that have ended and returned everything. Exact.
    processes_ended = "processes ended",
    /// Threads that were made. Exact.
    threads_made = "threads made",
    /// Steps of the reaper. Exact.
    reaper_steps = "steps of the reaper",
    /// Records of the trace that were written. Exact.
    traced = "trace records written",
}

/// What [`crate::ops::Op::KeyRingState`] returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct KeyRingRecord {
    /// Rises whenever a record is installed or a floor is raised: who keeps a copy reads it anew then.
    pub changes: u64,
    /// Sequence of the root set in force.
    pub root_sequence: u64,
    /// Keys of the root set.
    pub root_keys: u64,
    /// Root signatures that a record needs.
    pub threshold: u64,
    /// What keys and images are for: 1 test, 2 release.
    pub purpose: u64,
    /// Publisher keys in the ring.
    pub keys: u64,
    /// Publisher keys that the ring has room for.
    pub key_room: u64,
    /// Sequence of the last revocation; 0 if there was none.
    pub revocation_sequence: u64,
    /// What is revoked: keys and ranges of versions.
    pub revocations: u64,
    /// Sequence of the last signed floor record; 0 if there was none.
    pub floor_sequence: u64,
    /// Modules that have a floor.
    pub floors: u64,
    /// Floors that the boot bundle's unsigned floor record raised. Floors that rise while the system runs last until it
    /// is switched off, unless they are exported and come back so.
    pub floors_imported: u64,
    /// Floors of that record that were not taken whole: above every version that the bundle holds.
    pub floors_clipped: u64,
    /// Sequence of the policy in force.
    pub policy_sequence: u64,
    /// Sequence of the boot manifest.
    pub boot_sequence: u64,
    /// Id digest of the root set in force.
    pub root_digest: [u8; 32],
}

/// What [`crate::ops::Op::ProcessIdentity`] returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct IdentityRecord {
    /// The process's number.
    pub id: u64,
    /// Its state, as `ProcessStatus` gives it.
    pub state: u64,
    /// Major << 32 | minor << 16 | patch.
    pub version: u64,
    /// The manifest's security version.
    pub security_version: u64,
    /// Which requests of the manifest its CSpace holds a capability for, a bit each: those endowed and still there.
    pub endowed: u64,
    /// Capabilities in its CSpace.
    pub capabilities: u64,
    /// Threads.
    pub threads: u64,
    /// Id digest of the manifest.
    pub manifest_digest: [u8; 32],
    /// Id of the key that signed it.
    pub key_id: [u8; 32],
    /// Bytes of the name.
    pub name_len: u64,
    /// The name, padded with zeros.
    pub name: [u8; 64],
    /// Bytes of the publisher's name.
    pub publisher_len: u64,
    /// The publisher's name, padded with zeros.
    pub publisher: [u8; 64],
}

/// What [`crate::ops::Op::ModuleCacheStatus`] returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CacheRecord {
    /// Images in the cache.
    pub entries: u64,
    /// The most there may be: what the boot manifest gave it, or what policy permits if that is less.
    pub max_entries: u64,
    /// Frames of these images.
    pub frames: u64,
    /// The most there may be, by boot manifest and policy.
    pub max_frames: u64,
    /// Searches that found an image.
    pub hits: u64,
    /// Searches that found none.
    pub misses: u64,
    /// Images that came into the cache.
    pub inserted: u64,
    /// Images that made room for others, or were taken out by somebody.
    pub evicted: u64,
    /// Images that could no longer be loaded: revoked, below a floor, or against a newer certificate or policy.
    pub killed: u64,
}

/// An image of the module cache, as [`crate::ops::Op::ModuleCacheNext`] and
/// [`crate::ops::Op::CachedImageStatus`] return it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CachedRecord {
    /// Its number, which is what to pass to the next ModuleCacheNext: images are counted as they come in.
    pub cursor: u64,
    /// Frames that the image takes.
    pub frames: u64,
    /// Capabilities to it.
    pub capabilities: u64,
    /// Processes that run from it, and creations under way.
    pub users: u64,
    /// Processes that were made from it.
    pub made: u64,
    /// Rises with each use of any image: the one with the lowest number makes room first.
    pub used: u64,
    /// Major << 32 | minor << 16 | patch.
    pub version: u64,
    /// The manifest's security version.
    pub security_version: u64,
    /// Its module's id, by which ModuleCacheFind finds it.
    pub module_id: [u8; 32],
    /// Id digest of the manifest.
    pub manifest_digest: [u8; 32],
    /// Id of the key that signed it.
    pub key_id: [u8; 32],
    /// Bytes of the name.
    pub name_len: u64,
    /// The name, padded with zeros.
    pub name: [u8; 64],
    /// Bytes of the publisher's name.
    pub publisher_len: u64,
    /// The publisher's name, padded with zeros.
    pub publisher: [u8; 64],
}
