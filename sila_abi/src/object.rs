//! Kernel object types (the book, Concepts).

macro_rules! object_types {
    ($($(#[$doc:meta])* $name:ident = $num:literal),* $(,)?) => {
        /// The type of a kernel object, as a capability names it.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum ObjectType { $($(#[$doc])* $name = $num),* }

        impl ObjectType {
            /// Every object type, in order of number.
            pub const ALL: &'static [ObjectType] = &[$(ObjectType::$name),*];

            /// The type with this number.
            pub const fn from_number(number: u8) -> Option<Self> {
                match number { $($num => Some(ObjectType::$name),)* _ => None }
            }

            /// The type's name as the command line and the book print it.
            pub const fn name(self) -> &'static str {
                match self { $(ObjectType::$name => stringify!($name)),* }
            }
        }
    };
}

object_types! {
    /// An account of frames and object bytes from which everything is paid.
    Pool = 1,
    /// A set of frames from one Pool.
    Region = 2,
    /// A record that a range of a Region is mapped in a process.
    Mapping = 3,
    /// A rendezvous for synchronous messages with at most one receiver process.
    Endpoint = 4,
    /// A word of flags that threads wait for; signalling never blocks.
    Notification = 5,
    /// A group of processes that can be enumerated.
    Job = 6,
    /// An isolated address space with its CSpace and threads, made from a verified image.
    Process = 7,
    /// An execution context of a process.
    Thread = 8,
    /// A live update of up to eight services: moves them from process to process at once, or not.
    Handover = 9,
    /// An append-only, bounded record of calls and replies.
    Journal = 10,
    /// A verified image that the module cache keeps for later loads.
    CachedImage = 11,
    /// Reserved for sharing: one copy of a library's code for many processes.
    SharedLibrary = 12,
    /// The kernel's cache of verified images.
    ModuleCache = 13,
    /// Public keys, certificates and revocations that verification rests on.
    KeyRing = 14,
    /// The signed system policy.
    Policy = 15,
    /// One device interrupt line.
    IrqHandler = 16,
    /// A range of x86 I/O ports.
    IoPorts = 17,
    /// Time since boot.
    Clock = 18,
    /// Reserved: the kernel's append-only audit records.
    AuditLog = 19,
    /// Introspection of the whole system, and switching it off.
    SystemControl = 20,
    /// Hooks for tests; exists only under a test RootSet.
    TestControl = 21,
    /// The right to answer one call, once. Lives in a slot; never copied.
    Reply = 22,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_type_numbers_round_trip() {
        for &t in ObjectType::ALL {
            assert_eq!(ObjectType::from_number(t as u8), Some(t));
        }
        assert_eq!(ObjectType::from_number(0), None);
        assert_eq!(ObjectType::from_number(23), None);
    }
}
