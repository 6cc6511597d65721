//! Which errors each operation may end with: those that its row of the ABI table implies, and its own.
//!
//! The kernel's host tests hold every refusal that they meet against this table.

use crate::error::Error::{self, *};
use crate::object::ObjectType;
use crate::ops::{Arg, Op};
use crate::rights::Rights;

/// What an operation refuses besides what its row implies. The order is that of the table.
pub const fn own(op: Op) -> &'static [Error] {
    match op {
        Op::CapCopy => &[InvalidArgument, MissingRight],
        Op::CapMint => &[InvalidArgument, MissingRight, AlreadyBadged],
        Op::PoolCreate => &[OutOfFrames, OutOfObjectBytes, ArenaFull, PoolTooDeep],
        Op::RegionCreate => &[InvalidArgument, OutOfFrames, OutOfObjectBytes, ArenaFull],
        Op::EndpointCreate => &[InvalidArgument, OutOfObjectBytes, ArenaFull, LabelMismatch, PriorityTooHigh],
        Op::NotificationCreate => &[OutOfObjectBytes, ArenaFull],
        Op::RegionMap => &[
            InvalidArgument,
            MissingRight,
            OutOfFrames,
            OutOfObjectBytes,
            ArenaFull,
            BadAddress,
            AlreadyMapped,
            Sealed,
            Dying,
            IntegrityFault,
        ],
        Op::RegionStatus => &[IntegrityFault],
        Op::RegionSeal => &[StillWritable, IntegrityFault],
        Op::EndpointLabel => &[MessageTooLong],
        Op::EndpointBind => &[LabelMismatch, AlreadyBound, Dying, AlreadyCovered],
        Op::NotificationBind => &[AlreadyBound],
        Op::ProcessCreate => &[
            InvalidArgument,
            OutOfFrames,
            OutOfObjectBytes,
            ArenaFull,
            BadAddress,
            AlreadyMapped,
            NotSealed,
            MessageTooLong,
            Suspended,
            VerificationBusy,
            PriorityTooHigh,
            BadProof,
            BadImage,
            ImageSize,
            ImageDigest,
            ManifestMalformed,
            ManifestSignature,
            BinarySignature,
            UnknownKey,
            KeyRevoked,
            VersionRevoked,
            WeakAlgorithm,
            Namespace,
            BelowFloor,
            WrongPurpose,
            VersionReuse,
            EntryOutsideCode,
            RequestNotGranted,
            RequestWrongType,
            RequestRights,
            RequestCeiling,
            RequestPolicy,
            RequestAmount,
            RequestBadge,
            RateLimited,
            ContractViolated,
            SourceGone,
            RecordMalformed,
            IntegrityFault,
            AbiVersion,
            WrongPublisher,
            GrantUnrequested,
            ImageTooLarge,
            PoolTooDeep,
        ],
        Op::ProcessCreateCached => &[
            InvalidArgument,
            OutOfFrames,
            OutOfObjectBytes,
            ArenaFull,
            BadAddress,
            AlreadyMapped,
            NotSealed,
            MessageTooLong,
            Suspended,
            VerificationBusy,
            PriorityTooHigh,
            ImageSize,
            UnknownKey,
            KeyRevoked,
            VersionRevoked,
            WeakAlgorithm,
            Namespace,
            BelowFloor,
            WrongPurpose,
            VersionReuse,
            RequestNotGranted,
            RequestWrongType,
            RequestRights,
            RequestCeiling,
            RequestPolicy,
            RequestAmount,
            RequestBadge,
            RateLimited,
            ContractViolated,
            SourceGone,
            RecordMalformed,
            IntegrityFault,
            WrongPublisher,
            GrantUnrequested,
            ImageTooLarge,
            PoolTooDeep,
        ],
        Op::ModuleCacheInsert => &[
            OutOfFrames,
            OutOfObjectBytes,
            ArenaFull,
            NotSealed,
            Suspended,
            VerificationBusy,
            BadProof,
            BadImage,
            ImageSize,
            ImageDigest,
            ManifestMalformed,
            ManifestSignature,
            BinarySignature,
            UnknownKey,
            KeyRevoked,
            VersionRevoked,
            WeakAlgorithm,
            Namespace,
            BelowFloor,
            WrongPurpose,
            VersionReuse,
            EntryOutsideCode,
            RequestCeiling,
            RateLimited,
            ContractViolated,
            SourceGone,
            RecordMalformed,
            IntegrityFault,
            AbiVersion,
            WrongPublisher,
            NotExclusive,
            NotTransferable,
            CacheFull,
        ],
        Op::ModuleCacheFind => &[NotCached],
        Op::ModuleCacheStatus | Op::CachedImageStatus => &[MessageTooLong],
        Op::KeyRingStatus => &[NoMoreEntries, IntegrityFault],
        Op::JobNext => &[NoMoreEntries],
        Op::ProcessStart => &[Dying, AlreadyStarted, HandedOver],
        Op::ProcessWatch => &[ArenaFull],
        Op::ThreadCreate => &[
            InvalidArgument,
            OutOfFrames,
            OutOfObjectBytes,
            ArenaFull,
            BadAddress,
            AlreadyMapped,
            Dying,
            PriorityTooHigh,
            HandedOver,
        ],
        Op::ProcessSetBudget => &[InvalidArgument, Dying, OwnBudget],
        Op::ThreadResume => &[Dying, NotStarted, HandedOver],
        Op::ThreadSetPriority => &[InvalidArgument, PriorityTooHigh],
        Op::KeyRingInstall | Op::PolicyInstall => &[
            InvalidArgument,
            WrongRecord,
            Namespace,
            WrongPublisher,
            OutOfObjectBytes,
            ArenaFull,
            Suspended,
            VerificationBusy,
            UnknownKey,
            WeakAlgorithm,
            WrongPurpose,
            RecordMalformed,
            RecordSignature,
            RecordStale,
            IntegrityFault,
        ],
        Op::TestVerify => {
            &[InvalidArgument, Suspended, VerificationBusy, UnknownKey, RecordMalformed, RecordSignature]
        }
        Op::KeyRingKey | Op::KeyRingCertificate => &[InvalidArgument, MessageTooLong, NoMoreEntries],
        Op::KeyRingWatch => &[ArenaFull],
        Op::KeyRingAffected => &[NoMoreEntries],
        Op::PolicyRead => &[InvalidArgument, MessageTooLong],
        Op::KeyRingRevocation
        | Op::KeyRingFloor
        | Op::KeyRingName
        | Op::SystemProcess
        | Op::SystemDevice
        | Op::JournalRead => &[MessageTooLong, NoMoreEntries],
        Op::IrqBind => &[AlreadyBound],
        Op::IrqAck | Op::IrqUnbind => &[NotBound],
        Op::PortRead | Op::PortWrite => &[InvalidArgument, PortOutOfRange],
        Op::SystemPowerOff | Op::SystemAudit => &[InvalidOperation],
        Op::SystemLog | Op::SystemMemory | Op::SystemCounters | Op::KeyRingState | Op::ProcessIdentity => {
            &[MessageTooLong]
        }
        Op::SystemCapability | Op::ModuleCacheNext => &[MessageTooLong, NoMoreEntries],
        Op::JobHandover => &[NoMoreEntries],
        Op::SystemTrace | Op::TestHoldVerification | Op::TestPhysical => &[InvalidArgument],
        Op::SystemTraceRead | Op::TestReport | Op::HandoverService => &[InvalidArgument, MessageTooLong],
        Op::HandoverCreate => &[OutOfObjectBytes, ArenaFull, Timeout],
        Op::HandoverAdd => &[
            InvalidArgument,
            OutOfObjectBytes,
            NotReceiver,
            LabelMismatch,
            Dying,
            HandedOver,
            AlreadyClosed,
            AlreadyCommitted,
            HandoverFinalised,
            HandoverAborted,
            HandoverRolledBack,
            AlreadyCovered,
            HandoverFull,
            NotLabelled,
        ],
        Op::HandoverReplace => &[
            InvalidArgument,
            LabelMismatch,
            Dying,
            HandedOver,
            AlreadyCommitted,
            HandoverFinalised,
            HandoverAborted,
            HandoverRolledBack,
            AlreadyCovered,
        ],
        Op::HandoverClose => &[
            InvalidArgument,
            AlreadyClosed,
            AlreadyCommitted,
            HandoverFinalised,
            HandoverAborted,
            HandoverRolledBack,
        ],
        Op::HandoverReopen => &[
            NotClosed,
            AlreadyCommitted,
            HandoverFinalised,
            HandoverAborted,
            HandoverRolledBack,
            NotParticipant,
        ],
        Op::HandoverExport => &[
            InvalidArgument,
            MissingRight,
            OutOfFrames,
            OutOfObjectBytes,
            NotClosed,
            AlreadyCommitted,
            HandoverFinalised,
            HandoverAborted,
            HandoverRolledBack,
            RepliesOutstanding,
            NotParticipant,
            AlreadyExported,
            NotTransferable,
        ],
        Op::HandoverState => &[
            InvalidArgument,
            NotSealed,
            IntegrityFault,
            HandoverFinalised,
            HandoverAborted,
            NotParticipant,
            NotExported,
        ],
        Op::HandoverDeposit => &[
            NoCapability,
            WrongType,
            MissingRight,
            EndowOnly,
            SlotOutOfRange,
            InvalidArgument,
            OutOfObjectBytes,
            CallerGone,
            NotReceiver,
            LabelMismatch,
            ObjectGone,
            AlreadyCommitted,
            HandoverFinalised,
            HandoverAborted,
            HandoverRolledBack,
            NotParticipant,
            AlreadyCovered,
            HandoverFull,
            NotExclusive,
        ],
        Op::HandoverTake => &[NoCapability, InvalidArgument, AlreadyClosed, NotParticipant, AlreadyTaken],
        Op::HandoverCommit => &[
            LabelMismatch,
            NotSealed,
            IntegrityFault,
            NotStarted,
            NotClosed,
            AlreadyCommitted,
            HandoverFinalised,
            HandoverAborted,
            HandoverRolledBack,
            StaleEpoch,
            RepliesOutstanding,
            ParticipantDead,
        ],
        Op::HandoverRollback => {
            &[NotCommitted, HandoverFinalised, HandoverAborted, HandoverRolledBack, ParticipantDead]
        }
        Op::HandoverFinalise => {
            &[ArenaFull, NotCommitted, HandoverFinalised, HandoverAborted, HandoverRolledBack]
        }
        Op::HandoverAbort => &[AlreadyCommitted, HandoverFinalised, HandoverAborted, HandoverRolledBack],
        Op::HandoverWatch => &[HandoverFull],
        Op::JournalCreate => &[
            OutOfFrames,
            OutOfObjectBytes,
            ArenaFull,
            StillWritable,
            Sealed,
            IntegrityFault,
            NotExclusive,
            NotTransferable,
        ],
        Op::JournalAppend => &[InvalidArgument, MessageTooLong, JournalFull, JournalClosed],
        Op::ChargeTransfer => &[OutOfFrames, OutOfObjectBytes, AlreadyCovered, NotTransferable],
        _ => &[],
    }
}

/// True if what the operation's row of the table says makes it refuse with this error.
pub fn implied(op: Op, error: Error) -> bool {
    let row = op.info();
    let caps = || {
        row.args.iter().filter_map(|(_, arg)| {
            if let Arg::Cap(kind, rights) = arg { Some((*kind, *rights)) } else { None }
        })
    };
    let takes_cap = caps().next().is_some();
    let makes_cap = row.args.iter().any(|(_, arg)| *arg == Arg::Dst);
    let reads_region = row.object == Some(ObjectType::Region)
        && !matches!(op, Op::RegionMap | Op::RegionStatus)
        || caps().any(|(kind, _)| kind == ObjectType::Region);
    match error {
        SlotOutOfRange | NoCapability => true,
        WrongType => row.object.is_some() || takes_cap,
        EndowOnly | ObjectGone => !row.endow_ok || takes_cap || makes_cap,
        NotCopyable => row.rights == Rights::COPY,
        MissingRight => {
            !row.rights.is_empty() && row.rights != Rights::COPY
                || caps().any(|(_, rights)| !rights.is_empty())
        }
        SlotOccupied | OutOfObjectBytes => makes_cap,
        DeviceRegion => reads_region,
        IntegrityFault | InvalidOperation => row.object == Some(ObjectType::TestControl),
        _ => false,
    }
}

/// Every error that an operation may end with, in order of number. A tag that is malformed, and a number that names
/// no operation, are refused before (`InvalidArgument`, `InvalidOperation`).
pub fn of(op: Op) -> impl Iterator<Item = Error> {
    Error::ALL.iter().copied().filter(move |error| may_refuse(op, *error))
}

/// True if an operation may end with this error.
pub fn may_refuse(op: Op, error: Error) -> bool {
    implied(op, error) || own(op).contains(&error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::TABLE;

    #[test]
    fn own_refusals_stand_once() {
        for row in TABLE {
            let own = own(row.op);
            for (at, error) in own.iter().enumerate() {
                assert!(!own[..at].contains(error), "{} {error:?}", row.name);
            }
        }
    }

    #[test]
    fn rows_imply_what_dispatch_checks() {
        assert!(implied(Op::PoolCreate, SlotOccupied) && !implied(Op::PoolStatus, SlotOccupied));
        assert!(implied(Op::CapCopy, NotCopyable) && !implied(Op::CapCopy, WrongType));
        assert!(implied(Op::RegionSeal, DeviceRegion) && !implied(Op::RegionMap, DeviceRegion));
        assert!(implied(Op::JournalCreate, DeviceRegion) && !implied(Op::CapStatus, EndowOnly));
        assert!(implied(Op::RegionStatus, ObjectGone) && !implied(Op::RegionStatus, MissingRight));
    }
}
