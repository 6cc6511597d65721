//! Errors that the kernel returns (the status field of the result register).

macro_rules! errors {
    ($($name:ident = $num:literal, $text:literal;)*) => {
        /// Why a system call was refused. The state is as if the call had not been made.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        #[repr(u16)]
        pub enum Error { $(#[doc = $text] $name = $num),* }

        impl Error {
            /// Every error, in order of number.
            pub const ALL: &'static [Error] = &[$(Error::$name),*];

            /// The error with this number; 0 is success and names none.
            pub const fn from_number(number: u16) -> Option<Self> {
                match number { $($num => Some(Error::$name),)* _ => None }
            }

            /// The error's name.
            pub const fn name(self) -> &'static str {
                match self { $(Error::$name => stringify!($name)),* }
            }

            /// A sentence that names the cause.
            pub const fn sentence(self) -> &'static str {
                match self { $(Error::$name => $text),* }
            }

            /// True if something ran out, which may be there again later.
            pub const fn is_exhaustion(self) -> bool {
                matches!(self, Error::OutOfFrames | Error::OutOfObjectBytes | Error::ArenaFull)
            }
        }

        impl core::fmt::Display for Error {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(self.sentence())
            }
        }
    };
}

errors! {
    NoCapability = 1, "the slot holds no capability";
    WrongType = 2, "the capability names an object of another type";
    MissingRight = 3, "the capability lacks a right that the operation needs";
    EndowOnly = 4, "the capability may only be passed on at process creation";
    SlotOccupied = 5, "the destination slot already holds a capability";
    SlotOutOfRange = 6, "the slot number lies outside the CSpace";
    InvalidArgument = 7, "an argument is outside its permitted range";
    InvalidOperation = 8, "no such system call or operation exists";
    OutOfFrames = 9, "the Pool has too few frames left";
    OutOfObjectBytes = 10, "the Pool has too few object bytes left";
    ArenaFull = 11, "the kernel has no room for another object of this type";
    Timeout = 12, "the deadline passed";
    PeerDied = 13, "the peer ended before it received the message";
    PeerDiedDelivered = 14, "the peer received the call and ended before it answered";
    CallerGone = 15, "the caller no longer waits for this reply";
    NotReceiver = 16, "the process is not the endpoint's receiver";
    LabelMismatch = 17, "the process's manifest does not declare this service";
    ReplySlotTaken = 18, "the slot named for the Reply is occupied";
    BadAddress = 19, "the address range is not page-aligned, wraps or leaves user space";
    AlreadyMapped = 20, "the address range overlaps an existing mapping";
    StillWritable = 21, "a writable mapping or a pending kernel write keeps the Region unsealed";
    Sealed = 22, "the Region is sealed and can never be written again";
    NotSealed = 23, "the Region is not sealed";
    MessageTooLong = 24, "the message is longer than 120 words, or no message page exists";
    ObjectGone = 25, "the object no longer exists";
    AlreadyBadged = 26, "the capability already carries a badge";
    Suspended = 27, "the thread is suspended";
    VerificationBusy = 28, "too many verifications are queued";
    NotCopyable = 29, "the capability lacks the copy right or is of a kind that is never copied";
    CannotGrant = 30, "the endpoint capability does not carry the right to send capabilities";
    TransferFailed = 31, "the receiver has no free slots for the capabilities sent";
    AlreadyBound = 32, "the object is already bound or has a receiver";
    NotBound = 33, "the object is not bound";
    Dying = 34, "the object is being destroyed";
    NotStarted = 35, "the process was not started";
    AlreadyStarted = 36, "the process was already started";
    PriorityTooHigh = 37, "the priority lies above the ceiling";
    BadProof = 38, "the load proof is malformed or longer than its Region";
    BadImage = 39, "the image header is invalid (word 0 names the rule)";
    ImageSize = 40, "the image's size differs from the manifest";
    ImageDigest = 41, "the image's digest differs from the manifest";
    ManifestMalformed = 42, "the manifest is malformed or not canonical (word 0 names the rule)";
    ManifestSignature = 43, "the manifest's signature is invalid";
    BinarySignature = 44, "the binary's signature is invalid";
    UnknownKey = 45, "the publisher's key is not in the KeyRing";
    KeyRevoked = 46, "the publisher's key is revoked";
    VersionRevoked = 47, "this version of the module is revoked";
    WeakAlgorithm = 48, "the signature algorithm is unknown or too weak";
    Namespace = 49, "the publisher may not sign modules of this name";
    BelowFloor = 50, "the security version lies below the floor";
    WrongPurpose = 51, "a key of another purpose (test or release) signed this";
    VersionReuse = 52, "the same version was seen with other content";
    EntryOutsideCode = 53, "the manifest's entry differs from the image's";
    RequestNotGranted = 54, "a mandatory capability request has no source (word 0 names the request)";
    RequestWrongType = 55, "the source for a request is of another type (word 0 names the request)";
    RequestRights = 56, "the source for a request lacks rights it asks for (word 0 names the request)";
    RequestCeiling = 57, "a request exceeds the publisher's ceiling (word 0 names the request)";
    RequestPolicy = 58, "no rule of the policy permits a request (word 0 names the request, word 1 the closest rule, from 1)";
    RequestAmount = 59, "a request asks for more than the Pool holds (word 0 names the request)";
    RequestBadge = 60, "the source for a request carries another badge (word 0 names the request)";
    SourceGone = 61, "a source capability changed or vanished while the load was under way";
    RecordMalformed = 62, "the signed record is malformed or not canonical";
    RecordSignature = 63, "the record's signature is invalid";
    RecordStale = 64, "the record's sequence is not newer than the one in force";
    IntegrityFault = 65, "a stored security decision is corrupt";
    AbiVersion = 66, "the image was built for another ABI version";
    PortOutOfRange = 67, "the port lies outside the capability's range";
    NoMoreEntries = 68, "the enumeration has ended";
    WrongPublisher = 69, "the manifest's publisher is not the one its key is certified for";
    GrantUnrequested = 70, "a grant names a request that the manifest does not hold";
    PoolInUse = 71, "the Pool still pays for objects";
    ImageTooLarge = 72, "data and stack exceed the 16 MiB that a new process may have";
    Quiesced = 73, "a Handover has shut the endpoint's gate";
    HandedOver = 74, "the process passed its service on and stays suspended";
    NotClosed = 75, "the gate of a service is not shut (word 0 names the service)";
    AlreadyClosed = 76, "the gate of the service is shut";
    NotCommitted = 77, "the Handover was not committed";
    AlreadyCommitted = 78, "the Handover was committed";
    HandoverFinalised = 79, "the Handover was finalised";
    HandoverAborted = 80, "the Handover was aborted";
    HandoverRolledBack = 81, "the Handover was rolled back";
    StaleEpoch = 82, "a gate was opened since this epoch (word 0 names the epoch in force)";
    RepliesOutstanding = 83, "calls that the service received are not answered (word 0: how many)";
    ParticipantDead = 84, "a process of the Handover has ended (word 0 names the service)";
    NotParticipant = 85, "the process is not the one of the Handover that may do this";
    AlreadyCovered = 86, "another service or another Handover covers this endpoint or process";
    HandoverFull = 87, "the Handover has no room for another service, deposit or watcher";
    NotLabelled = 88, "the endpoint carries no service label";
    NotExclusive = 89, "other capabilities are derived from this one, or name the same object";
    AlreadyTaken = 90, "the deposit was taken";
    AlreadyExported = 91, "the service's state was exported";
    NotExported = 92, "the service's state was not exported";
    NotTransferable = 93, "what the object costs cannot be charged to another Pool";
    JournalFull = 94, "the Journal has too little room for this record";
    JournalClosed = 95, "the Journal is closed";
    DeviceRegion = 96, "the Region is a device's registers and not memory";
    PoolTooDeep = 97, "too many Pools stand above the new one";
    OwnBudget = 98, "a process does not set its own CPU budget";
    RateLimited = 99, "policy lets no further process be made in this Job yet (word 0: nanoseconds until it does)";
    ContractViolated = 100, "a predicate of a contract does not hold (word 0 names it)";
    WrongRecord = 101, "the record is of a kind that this operation does not install";
    NotCached = 102, "the module cache has no such image that could still be loaded";
    CacheFull = 103, "the module cache has no room: what it keeps is in use, or the image is larger than it may be";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_numbers_round_trip_and_are_dense() {
        for (i, &e) in Error::ALL.iter().enumerate() {
            assert_eq!(e as usize, i + 1);
            assert_eq!(Error::from_number(e as u16), Some(e));
            assert!(e as u16 <= 0xff, "an outcome has eight bits for it");
        }
        assert_eq!(Error::from_number(0), None);
    }
}
