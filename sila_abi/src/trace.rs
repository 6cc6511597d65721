//! The kernel's trace: typed records of what it did, as SystemTraceRead returns them.
//!
//! While kinds are recorded, every system call and fault takes the general path, so that none is missed. While none
//! is, the trace costs nothing.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

macro_rules! kinds {
    ($($name:ident = $num:literal, $text:literal, $doc:literal, [$a:literal, $b:literal, $c:literal];)*) => {
        /// What an event was.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
        #[repr(u32)]
        pub enum Kind { $(#[doc = $doc] $name = $num),* }

        impl Kind {
            /// Every kind, in order of number.
            pub const ALL: &'static [Kind] = &[$(Kind::$name),*];

            /// The kind with this number.
            pub const fn from_number(number: u32) -> Option<Self> {
                match number { $($num => Some(Kind::$name),)* _ => None }
            }

            /// The name by which people choose it.
            pub const fn name(self) -> &'static str {
                match self { $(Kind::$name => $text),* }
            }

            /// What its three words mean; empty: nothing.
            pub const fn words(self) -> [&'static str; 3] {
                match self { $(Kind::$name => [$a, $b, $c]),* }
            }

            /// When it is recorded.
            pub const fn sentence(self) -> &'static str {
                match self { $(Kind::$name => $doc),* }
            }
        }
    };
}

kinds! {
    Enter = 1, "enter", "A system call begins, for the first time or after a restart.", ["tag", "slot", "argument"];
    Leave = 2, "leave", "A system call has come to something.", ["tag", "end", "error"];
    Switch = 3, "switch", "Another context runs; the record's process and thread are those that ran before.", ["process", "thread", "priority"];
    Send = 4, "send", "A message was received that asks for no reply; the record's are the sender's.", ["receiver", "endpoint", "tag"];
    Call = 5, "call", "A call was received; the record's process and thread are the caller's.", ["receiver", "endpoint", "tag"];
    Receive = 6, "receive", "A thread begins to wait for a message.", ["endpoint", "", ""];
    Reply = 7, "reply", "A call was answered.", ["caller", "thread", "tag"];
    Fault = 8, "fault", "A thread raised a processor exception.", ["vector", "address", "instruction"];
    Timer = 9, "timer", "The timer has fired.", ["", "", ""];
    Interrupt = 10, "interrupt", "A device has interrupted.", ["line", "", ""];
    Map = 11, "map", "Pages of a Region were mapped.", ["process", "address", "pages"];
    Unmap = 12, "unmap", "A mapping was removed.", ["process", "address", "pages"];
    Protect = 13, "protect", "A mapping was made read-only.", ["process", "address", "pages"];
    ProcessCreate = 14, "process-create", "A process was made.", ["process", "threads", "capabilities"];
    ProcessEnd = 15, "process-end", "A process has begun to end: nothing of it runs any more.", ["process", "cause", "code"];
    ProcessGone = 16, "process-gone", "Everything that a process held was returned.", ["process", "", ""];
    ThreadCreate = 17, "thread-create", "A thread was made in a process that exists.", ["process", "thread", "priority"];
    ThreadEnd = 18, "thread-end", "A thread was ended in a process that goes on.", ["process", "thread", ""];
    Revoke = 19, "revoke", "Descendants of a capability were deleted, all or as many as interrupts allowed.", ["slot", "deleted", "all"];
    VerifyQueue = 20, "verify-queue", "A verification was asked for.", ["wanted", "priority", ""];
    VerifyBegin = 21, "verify-begin", "The verification context was given a job.", ["wanted", "priority", ""];
    VerifyDone = 22, "verify-done", "The verification context has come to a verdict.", ["", "", ""];
    VerifyEnd = 23, "verify-end", "The operation that wanted the verification was concluded or refused.", ["wanted", "error", ""];
    Handover = 24, "handover", "A Handover has changed its state.", ["handover", "state", "epoch"];
    Reap = 25, "reap", "The reaper took steps.", ["steps", "", ""];
}

/// How a system call came to its end: the word `end` of [`Kind::Leave`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum End {
    /// It succeeded.
    Done = 0,
    /// It was refused.
    Refused = 1,
    /// The caller waits, or is gone.
    Waits = 2,
    /// It was preempted and will begin anew.
    Restarts = 3,
}

impl End {
    /// The end with this number.
    pub const fn from_number(number: u64) -> Option<Self> {
        match number {
            0 => Some(End::Done),
            1 => Some(End::Refused),
            2 => Some(End::Waits),
            3 => Some(End::Restarts),
            _ => None,
        }
    }
}

/// What a verification is for: the word `wanted`.
pub mod wanted {
    /// A process to be made.
    pub const LOAD: u64 = 1;
    /// A signed record for the KeyRing.
    pub const RECORD: u64 = 2;
    /// A signature that a test knows the verdict of.
    pub const CASE: u64 = 3;
    /// An image for the module cache.
    pub const CACHE: u64 = 4;
}

/// Stands for the process that the idle CPU runs.
pub const IDLE: u64 = 0;
/// Stands for the process of the verification context.
pub const VERIFICATION: u64 = u64::MAX;

/// One event. Its sequence number follows from its place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Record {
    /// When the kernel was entered for it, ns since boot.
    pub time: u64,
    /// Id of the process that it is about, [`IDLE`] or [`VERIFICATION`].
    pub process: u64,
    /// Number of the thread, as SystemCapability gives it as the object index.
    pub thread: u32,
    /// What it was: a [`Kind`].
    pub kind: u32,
    /// Words, as [`Kind::words`] names them.
    pub words: [u64; 3],
}

/// Words of a record.
pub const RECORD_WORDS: usize = size_of::<Record>() / 8;

/// The bit of a kind in SystemTrace's word.
pub const fn bit(kind: Kind) -> u64 {
    1 << kind as u32
}

/// Every kind's bit.
pub const ALL_KINDS: u64 = {
    let mut all = 0;
    let mut at = 0;
    while at < Kind::ALL.len() {
        all |= bit(Kind::ALL[at]);
        at += 1;
    }
    all
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_numbers_and_names_of_their_own() {
        for (at, &kind) in Kind::ALL.iter().enumerate() {
            assert_eq!(kind as usize, at + 1);
            assert_eq!(Kind::from_number(kind as u32), Some(kind));
            assert!(Kind::ALL[..at].iter().all(|other| other.name() != kind.name()), "{kind:?}");
        }
        assert_eq!(ALL_KINDS.count_ones() as usize, Kind::ALL.len());
        assert_eq!(Kind::from_number(0), None);
        assert!((0..4).all(|n| End::from_number(n).is_some_and(|end| end as u64 == n)));
        assert_eq!(End::from_number(4), None);
    }
}
