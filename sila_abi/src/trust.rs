//! The records that carry trust: root set, publisher certificates, revocations, policy, signatures
//! (the book, Trust, "Keys" and "Root of trust").
//!
//! All are canonical (see [`crate::record`]) and signed by the root keys, each kind in a domain of its own. What is
//! signed is the [`RecordStatement`] over the record's encoding.

extern crate alloc;
use crate::boot::Floor;
use crate::policy::covers;
use crate::record::{
    Bounded, DecodeError, Digest, KeyId, Name, Version, VersionRange, decode_canonical, encode_canonical,
};
use alloc::vec::Vec;
use borsh::{BorshDeserialize, BorshSerialize};
use zerocopy::little_endian::{U16, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The most keys of a root set.
pub const MAX_ROOT_KEYS: usize = 8;
/// The most bytes of an encoded public key.
pub const PUBLIC_KEY_MAX: usize = 16 << 10;
/// The most bytes of one signature in a [`SignatureSet`].
pub const RECORD_SIGNATURE_MAX: usize = 16 << 10;
/// The most bytes of a record of this module.
pub const RECORD_MAX: usize = 192 << 10;
/// The most namespace prefixes of a certificate.
pub const MAX_PREFIXES: usize = 16;
/// The most per-type ceilings of a certificate.
pub const MAX_CEILINGS: usize = 32;
/// The first sequence number of any record; 0 is never valid.
pub const FIRST_SEQUENCE: u64 = 1;

/// What keys and images are for. A test key is worth nothing in a release system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
pub enum Purpose {
    /// Development and tests.
    Test = 1,
    /// Release.
    Release = 2,
}

/// An encoded public key.
pub type PublicKeyBytes = Bounded<u8, PUBLIC_KEY_MAX>;

/// A public key and its scheme.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct PublicKey {
    /// Number of the signature scheme; 1 is ML-DSA-87.
    pub algorithm: u16,
    /// The key in the scheme's own encoding.
    pub bytes: PublicKeyBytes,
}

/// The keys that certify publishers.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct RootSet {
    /// Rises with every new root set.
    pub sequence: u64,
    /// What it is for.
    pub purpose: Purpose,
    /// Signatures that a record needs, 1 to the number of keys.
    pub threshold: u8,
    /// The keys, without duplicates.
    pub keys: Bounded<PublicKey, MAX_ROOT_KEYS>,
}

/// The most rights of one object type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct TypeCeiling {
    /// `ObjectType` number.
    pub object: u8,
    /// The rights that a request for it may name.
    pub rights: u16,
}

/// The most that modules of one publisher may ask for.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Ceiling {
    /// Rights by object type; types that are not named may not be asked for.
    pub types: Bounded<TypeCeiling, MAX_CEILINGS>,
    /// The most frames of a manifest's resources.
    pub frames: u64,
    /// The most object bytes of a manifest's resources.
    pub object_bytes: u64,
    /// The highest priority of a manifest's resources.
    pub max_priority: u8,
    /// Whether its modules may be of kind `Agent`.
    pub agents: bool,
}

/// What the root says about a publisher's key. Domain `sila/cert/v1`.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Certificate {
    /// Rises with every certificate of this publisher.
    pub sequence: u64,
    /// The publisher's name; the publisher part of labels and cache keys.
    pub publisher: Name,
    /// Its key.
    pub key: PublicKey,
    /// What the key may sign for.
    pub purpose: Purpose,
    /// The publisher's modules must have such a name, or one that goes on with `.` or `-` after it. Empty: any name.
    pub prefixes: Bounded<Name, MAX_PREFIXES>,
    /// What its modules may ask for.
    pub ceiling: Ceiling,
    /// The versions that its modules may have.
    pub versions: VersionRange,
}

/// What a revocation takes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
pub enum RevokedItem {
    /// A publisher key and all that it signed.
    Key(KeyId) = 1,
    /// Some versions of one module.
    Module {
        /// Its publisher.
        publisher: Name,
        /// Its name.
        name: Name,
        /// The versions.
        versions: VersionRange,
    } = 2,
}

/// What the root takes back. Domain `sila/revoke/v1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Revocation {
    /// Rises with every revocation.
    pub sequence: u64,
    /// What it takes back.
    pub item: RevokedItem,
}

/// One root key's signature.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct RootSignature {
    /// Which key of the root set.
    pub key_index: u8,
    /// The signature.
    pub bytes: Bounded<u8, RECORD_SIGNATURE_MAX>,
}

/// The signatures of one record, by rising key index.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SignatureSet {
    /// At least the root set's threshold of them.
    pub signatures: Bounded<RootSignature, MAX_ROOT_KEYS>,
}

/// What a [`SignedRecord`] holds; each kind is signed in a domain of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
pub enum RecordKind {
    /// A [`Certificate`].
    Certificate = 1,
    /// A [`Revocation`].
    Revocation = 2,
    /// A [`RootSet`] that takes the place of the one in force.
    RootSet = 3,
    /// A [`crate::policy::Policy`].
    Policy = 4,
    /// A [`FloorRecord`].
    Floors = 5,
}

impl RecordKind {
    /// Every kind, in order of number.
    pub const ALL: [Self; 5] =
        [Self::Certificate, Self::Revocation, Self::RootSet, Self::Policy, Self::Floors];

    /// The kind's name in texts.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::Revocation => "revocation",
            Self::RootSet => "root set",
            Self::Policy => "policy",
            Self::Floors => "floor record",
        }
    }
}

/// The most floors of a signed [`FloorRecord`]: they come into force in one go.
pub const MAX_SIGNED_FLOORS: usize = 16;

/// Floors that the root raises. Domain `sila/floor/v1`. The boot bundle may hold one without signatures, as it was
/// exported before: that one raises a floor only as far as a version that the bundle holds.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct FloorRecord {
    /// Rises with every signed floor record.
    pub sequence: u64,
    /// The floors, each module once.
    pub floors: Bounded<Floor, MAX_RECORD_FLOORS>,
}

/// The most floors of a record: all that a running system can have.
pub const MAX_RECORD_FLOORS: usize = 1024;

/// The most bytes of the record in a [`SignedRecord`].
pub const SIGNED_MAX: usize = 32 << 10;

/// A record and its root signatures, as it is stored and delivered.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SignedRecord {
    /// What the record is.
    pub kind: RecordKind,
    /// The record's encoding.
    pub record: Bounded<u8, SIGNED_MAX>,
    /// The signatures over it by keys of the root set in force.
    pub signatures: SignatureSet,
    /// Of a root set: signatures over it by its own keys, which prove that it can be used. Else empty.
    pub successor_signatures: SignatureSet,
}

/// What a root key signs (48 bytes): length and digest of a record, in the record's domain.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RecordStatement {
    /// Number of the signature scheme.
    pub algorithm: U16,
    /// Zero.
    pub reserved: [u8; 6],
    /// Bytes of the record's encoding.
    pub record_len: U64,
    /// Id hash (SHA3-256) of the record's encoding.
    pub digest: Digest,
}

/// Why a trust record is ill-formed. Each check has its own variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordError {
    /// Longer than its maximum.
    TooLong,
    /// Cut short, trailing bytes, an unknown enum value or a bad bool.
    Malformed,
    /// A name outside `[a-z0-9.-]{1,64}`.
    BadName,
    /// A list with more items than its bound.
    TooMany,
    /// Decodes, but encodes to other bytes.
    NotCanonical,
    /// The heap had no room.
    NoMemory,
    /// A sequence number of 0.
    ZeroSequence,
    /// A root set without keys.
    NoKeys,
    /// One key twice.
    DuplicateKey,
    /// A threshold of 0 or above the number of keys.
    BadThreshold,
    /// A version range that holds nothing.
    EmptyVersionRange,
    /// Two ceilings for one object type.
    DuplicateCeiling,
    /// Root signatures not by rising key index.
    UnsortedSignatures,
    /// One name twice where names must differ.
    DuplicateName,
    /// A name that refers to nothing.
    UnknownName,
    /// An object's parameters make no sense (no frames, no ports, a line or priority out of range).
    BadObject,
    /// A TestControl object outside a test system.
    TestObjectInRelease,
    /// Another format number.
    BadFormat,
    /// A policy without algorithms, or with one twice.
    BadAlgorithms,
    /// A policy's limit of 0 where nothing could ever happen.
    BadLimit,
    /// A policy's rule for an unknown object type, without rights or with an unknown one.
    BadRule,
    /// A LoadScope with badge 0, a badge that another has, or no instances.
    BadScope,
    /// A record other than a root set with signatures by successors.
    SuperfluousSignatures,
}

impl From<DecodeError> for RecordError {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::TooLong => Self::TooLong,
            DecodeError::Malformed => Self::Malformed,
            DecodeError::BadName => Self::BadName,
            DecodeError::TooMany => Self::TooMany,
            DecodeError::NotCanonical => Self::NotCanonical,
            DecodeError::NoMemory => Self::NoMemory,
        }
    }
}

impl core::fmt::Display for RecordError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::TooLong => "the record is too long",
            Self::Malformed => "the record is malformed",
            Self::BadName => "a name in the record is not [a-z0-9.-]{1,64}",
            Self::TooMany => "a list in the record is too long",
            Self::NotCanonical => "the record is not in canonical form",
            Self::NoMemory => "no memory for the record",
            Self::ZeroSequence => "the record's sequence number is zero",
            Self::NoKeys => "the root set has no keys",
            Self::DuplicateKey => "the root set has one key twice",
            Self::BadThreshold => "the root set's threshold is not possible",
            Self::EmptyVersionRange => "a version range is empty",
            Self::DuplicateCeiling => "two ceilings name one object type",
            Self::UnsortedSignatures => "the root signatures are not sorted by key",
            Self::DuplicateName => "a name stands twice",
            Self::UnknownName => "a name refers to nothing",
            Self::BadObject => "an object's parameters make no sense",
            Self::TestObjectInRelease => "a test object in a release system",
            Self::BadFormat => "the record has another format number",
            Self::BadAlgorithms => "the policy names no algorithm, or one twice",
            Self::BadLimit => "a limit of the policy is zero",
            Self::BadRule => "a rule of the policy names an unknown type or right, or no right",
            Self::BadScope => "a load scope has a bad or repeated badge, or no instances",
            Self::SuperfluousSignatures => "only a root set is signed by its successors",
        })
    }
}

impl core::error::Error for RecordError {}

/// A record with one canonical encoding and checks of its own.
pub trait Record: BorshSerialize + BorshDeserialize {
    /// The longest encoding in bytes.
    const MAX_LEN: usize = RECORD_MAX;

    /// Every check that needs no other record.
    fn validate(&self) -> Result<(), RecordError>;

    /// Decodes the one canonical encoding and validates it.
    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let record: Self = decode_canonical(bytes, Self::MAX_LEN)?;
        record.validate()?;
        Ok(record)
    }

    /// Validates and encodes the record.
    fn encode(&self) -> Result<Vec<u8>, RecordError> {
        self.validate()?;
        encode_canonical(self, Self::MAX_LEN).ok_or(RecordError::TooLong)
    }
}

pub(crate) fn check_sequence(sequence: u64) -> Result<(), RecordError> {
    if sequence < FIRST_SEQUENCE { Err(RecordError::ZeroSequence) } else { Ok(()) }
}

/// Whether some item equals an earlier one.
pub(crate) fn has_duplicate<T: PartialEq>(items: impl Iterator<Item = T> + Clone) -> bool {
    items.clone().enumerate().any(|(index, item)| items.clone().take(index).any(|other| other == item))
}

impl Record for RootSet {
    fn validate(&self) -> Result<(), RecordError> {
        check_sequence(self.sequence)?;
        if self.keys.is_empty() {
            return Err(RecordError::NoKeys);
        }
        if has_duplicate(self.keys.iter()) {
            return Err(RecordError::DuplicateKey);
        }
        if self.threshold == 0 || usize::from(self.threshold) > self.keys.len() {
            return Err(RecordError::BadThreshold);
        }
        Ok(())
    }
}

impl Record for Certificate {
    fn validate(&self) -> Result<(), RecordError> {
        check_sequence(self.sequence)?;
        if !self.versions.is_ordered() {
            return Err(RecordError::EmptyVersionRange);
        }
        if has_duplicate(self.ceiling.types.iter().map(|t| t.object)) {
            return Err(RecordError::DuplicateCeiling);
        }
        if has_duplicate(self.prefixes.iter()) { Err(RecordError::DuplicateName) } else { Ok(()) }
    }
}

impl Record for Revocation {
    fn validate(&self) -> Result<(), RecordError> {
        check_sequence(self.sequence)?;
        match &self.item {
            RevokedItem::Module { versions, .. } if !versions.is_ordered() => {
                Err(RecordError::EmptyVersionRange)
            }
            _ => Ok(()),
        }
    }
}

impl Record for SignatureSet {
    fn validate(&self) -> Result<(), RecordError> {
        let rising = self.signatures.is_sorted_by(|a, b| a.key_index < b.key_index);
        if rising { Ok(()) } else { Err(RecordError::UnsortedSignatures) }
    }
}

impl Record for FloorRecord {
    fn validate(&self) -> Result<(), RecordError> {
        check_sequence(self.sequence)?;
        if has_duplicate(self.floors.iter().map(|floor| (floor.publisher, floor.name))) {
            return Err(RecordError::DuplicateName);
        }
        Ok(())
    }
}

impl Record for SignedRecord {
    fn validate(&self) -> Result<(), RecordError> {
        self.signatures.validate()?;
        self.successor_signatures.validate()?;
        let superfluous =
            self.kind != RecordKind::RootSet && !self.successor_signatures.signatures.is_empty();
        if superfluous { Err(RecordError::SuperfluousSignatures) } else { Ok(()) }
    }
}

impl Certificate {
    /// Whether the publisher may use `name` for a module: one of its prefixes, or one that goes on with `.` or
    /// `-` after a prefix. So `net` covers `net.dns` and `net-tools`, not `network`.
    pub fn covers_name(&self, name: &Name) -> bool {
        self.prefixes.is_empty() || self.claims_name(name)
    }

    /// Whether the name lies in one of the publisher's prefixes. A publisher without prefixes claims none: it may use
    /// the names that nobody claims.
    pub fn claims_name(&self, name: &Name) -> bool {
        self.prefixes.iter().any(|prefix| covers(prefix, name))
    }

    /// Whether this certificate's namespace and another publisher's have a name in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        let meet = |a: &Name, b: &Name| covers(a, b) || covers(b, a);
        match (self.prefixes.is_empty(), other.prefixes.is_empty()) {
            (true, true) => true,
            (false, false) => self.prefixes.iter().any(|a| other.prefixes.iter().any(|b| meet(a, b))),
            _ => false,
        }
    }
}

impl Ceiling {
    /// The rights that a request for `object` may name; none for a type that is not listed.
    pub fn rights_of(&self, object: u8) -> u16 {
        self.types.iter().find(|t| t.object == object).map_or(0, |t| t.rights)
    }
}

impl RevokedItem {
    /// Whether this takes back version `version` of `name` by `publisher`, signed with key `key_id`.
    pub fn covers(&self, key_id: &KeyId, publisher: &Name, name: &Name, version: Version) -> bool {
        match self {
            Self::Key(id) => id == key_id,
            Self::Module { publisher: p, name: n, versions } => {
                p == publisher && n == name && versions.contains(version)
            }
        }
    }
}
