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
