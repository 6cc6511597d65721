//! The manifest of a module: what it is, what it needs, who signed it (the book, Trust, "Manifest").
//!
//! One canonical encoding (see [`crate::record`]), at most [`MANIFEST_MAX`] bytes. [`Manifest::decode`] checks
//! everything that can be checked without other records; what needs keys, certificates, policy or the image is
//! checked by `sila_crypto::chain` and by the kernel.

extern crate alloc;
use crate::contract::{Contract, ContractError};
use crate::object::ObjectType;
use crate::protocol::layout::FIRST_DYNAMIC;
use crate::record::{
    Bounded, DecodeError, Digest, KeyId, Name, Version, VersionRange, decode_canonical, encode_canonical,
};
use crate::rights::Rights;
use crate::sif::{MAX_IMAGE_LEN, PAGE_SIZE, USER_WINDOW_END, USER_WINDOW_START};
use alloc::vec::Vec;
use borsh::io::{Error, Read, Write};
use borsh::{BorshDeserialize, BorshSerialize};

/// The format number of the manifest's encoding.
pub const MANIFEST_FORMAT: u16 = 1;
/// The longest manifest in bytes.
pub const MANIFEST_MAX: usize = 16 << 10;
/// The most capability requests of a manifest.
pub const MAX_REQUESTS: usize = 32;
/// The most dependencies of a manifest.
pub const MAX_DEPENDENCIES: usize = 16;
/// The highest slot that a request may name; slot 0 is never a capability, and those above are for run time.
pub const MAX_SLOT: u16 = FIRST_DYNAMIC.0 - 1;
/// The most pages of a module's first stack.
pub const MAX_STACK_PAGES: u32 = 4096;
/// The most threads of a process.
pub const MAX_PROCESS_THREADS: u16 = 64;
/// The longest init or prepare deadline, in milliseconds.
pub const MAX_DEADLINE_MS: u32 = 600_000;

/// What a module is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
pub enum ModuleKind {
    /// A process that serves others, or runs by itself.
    Service = 1,
    /// Code that other processes link; never a process.
    Library = 2,
    /// A part of the system itself.
    Agent = 3,
    /// Data of a prediction model; never executed.
    Model = 4,
}

/// How the payload of the package holds the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
pub enum Codec {
    /// The payload is the image.
    None = 0,
    /// One zstd frame with content size and checksum.
    Zstd = 1,
}

bitflags::bitflags! {
    /// Yes-or-no properties of a module.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct ManifestFlags: u32 {
        /// Code and constants may be mapped into several processes (spec: `is_sharable_readonly_code`).
        const SHARABLE_READONLY_CODE = 1 << 0;
        /// On a failed initialisation the previous version serves on (spec:
        /// `rollback_to_previous_on_init_failure`).
        const ROLLBACK_ON_INIT_FAILURE = 1 << 1;
        /// The publisher suggests pinning the image in the module cache.
        const PIN_HINT = 1 << 2;
    }
}

impl BorshSerialize for ManifestFlags {
    fn serialize<W: Write>(&self, writer: &mut W) -> Result<(), Error> {
        self.bits().serialize(writer)
    }
}

impl BorshDeserialize for ManifestFlags {
    fn deserialize_reader<R: Read>(reader: &mut R) -> Result<Self, Error> {
        u32::deserialize_reader(reader).map(Self::from_bits_retain)
    }
}

/// Where the source of a requested capability comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
pub enum Selector {
    /// The Pool that the new process is charged to.
    OwnPool = 1,
    /// The new process itself.
    OwnProcess = 2,
    /// The first thread of the new process.
    OwnThread = 3,
    /// A capability that whoever creates the process grants under this name.
    Grant(Name) = 4,
}

/// A capability that the module asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct CapRequest {
    /// Slot of the new CSpace, 1 to [`MAX_SLOT`]; unique in the manifest.
    pub slot: u16,
    /// [`ObjectType`] number; a `Reply` cannot be asked for.
    pub object: u8,
    /// Which object of that type.
    pub selector: Selector,
    /// Rights asked for, all of them or none: bits of [`Rights`]; never empty.
    pub rights: u16,
    /// The badge, if the object type has one.
    pub badge: Option<u64>,
    /// An amount, where the object type has one (frames of a Pool, bytes of a Region); else 0.
    pub amount: u64,
    /// Whether the creation fails if this is not granted.
    pub mandatory: bool,
}

/// A module that this one calls or links.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Dependency {
    /// Its publisher.
    pub publisher: Name,
    /// Its name.
    pub name: Name,
    /// The versions that will do.
    pub versions: VersionRange,
    /// Id hash (SHA3-256) of the library's export table; all zero for a service.
    pub export_digest: Digest,
}

/// The label for which the module's processes may receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ServiceDecl {
    /// Name of the service; the label is (publisher, this name).
    pub name: Name,
    /// Whether waiting callers outlive the receiving process.
    pub durable: bool,
}

/// What a process of the module may use at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Resources {
    /// Frames of 4096 bytes.
    pub frames: u64,
    /// Bytes of kernel objects.
    pub object_bytes: u64,
    /// Highest thread priority.
    pub max_priority: u8,
    /// Threads, the first one included; at least 1 but for models and libraries.
    pub threads: u16,
}

/// What a publisher says and signs about one version of one module. Field order is encoding order.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Manifest {
    /// [`MANIFEST_FORMAT`].
    pub format: u16,
    /// Name of the module, unique for its publisher.
    pub name: Name,
    /// Version of the module.
    pub version: Version,
    /// Compared with the floor of (publisher, name): lower ones are refused.
    pub security_version: u32,
    /// What the module is.
    pub kind: ModuleKind,
    /// Who signs; must be the name in the certificate of `key_id`.
    pub publisher: Name,
    /// Id of the signing key.
    pub key_id: KeyId,
    /// Number of the signature scheme (`sila_crypto::scheme`); 1 is ML-DSA-87.
    pub algorithm: u16,
    /// Bulk digest of the whole image.
    pub image_digest: Digest,
    /// Bytes of the image.
    pub image_len: u64,
    /// Bulk digest of the payload as it stands in the package.
    pub payload_digest: Digest,
    /// Bytes of the payload.
    pub payload_len: u64,
    /// How the payload holds the image.
    pub codec: Codec,
    /// Address of the first instruction; equal to the image header's. 0 for models.
    pub entry: u64,
    /// Pages of the first thread's stack, 1 to [`MAX_STACK_PAGES`]; 0 for models and libraries.
    pub stack_pages: u32,
    /// The capabilities asked for.
    pub requests: Bounded<CapRequest, MAX_REQUESTS>,
    /// The modules called or linked.
    pub dependencies: Bounded<Dependency, MAX_DEPENDENCIES>,
    /// Yes-or-no properties.
    pub flags: ManifestFlags,
    /// Time until `Ready` after the start, in milliseconds, 1 to [`MAX_DEADLINE_MS`].
    pub init_deadline_ms: u32,
    /// Time for preparing an update, in milliseconds, 1 to [`MAX_DEADLINE_MS`].
    pub prepare_deadline_ms: u32,
    /// Upper limits of a process.
    pub resources: Resources,
    /// The label this module may receive for.
    pub service: Option<ServiceDecl>,
    /// Conditions of its operations, fault entry, init-failure codes.
    pub contract: Contract,
    /// Version of the state that it exports and imports.
    pub state_schema: u32,
}

/// Why bytes are no manifest. Each check has its own variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ManifestError {
    /// Longer than [`MANIFEST_MAX`].
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
    /// Another format number.
    BadFormat,
    /// A flag bit that has no meaning.
    UnknownFlags,
    /// The image is empty, too long or not a whole number of pages (models: any length but 0).
    ImageLength,
    /// The payload is empty, or longer than a compressed image can be.
    PayloadLength,
    /// Without codec the payload must be the image: same length, same digest.
    CodecMismatch,
    /// The entry lies outside the user window, or a model has one.
    BadEntry,
    /// Stack pages outside their range for this kind.
    BadStack,
    /// A request names slot 0 or one above [`MAX_SLOT`].
    BadSlot,
    /// Two requests name one slot.
    DuplicateSlot,
    /// A request names an object type that does not exist.
    BadObjectType,
    /// A request without rights (`ENDOW` alone is none).
    NoRights,
    /// A request with a right that does not exist.
    UnknownRights,
    /// Two requests use one grant name for different object types.
    GrantTypeConflict,
    /// A dependency's version range holds nothing.
    EmptyVersionRange,
    /// Two dependencies on one module.
    DuplicateDependency,
    /// A module that depends on itself.
    SelfDependency,
    /// A deadline of 0 or above [`MAX_DEADLINE_MS`].
    BadDeadline,
    /// Threads that do not fit the kind: none for a process, or some for a model or library.
    BadThreads,
    /// A library or model that declares a service.
    ServiceNotAllowed,
    /// A model or library that asks for capabilities.
    RequestsNotAllowed,
    /// The contract is ill-formed.
    Contract(ContractError),
}

impl ManifestError {
    /// The rule's number, for message words and audit records. Numbers are never reused.
    pub const fn number(self) -> u16 {
        match self {
            Self::TooLong => 1,
            Self::Malformed => 2,
            Self::BadName => 3,
            Self::TooMany => 4,
            Self::NotCanonical => 5,
            Self::NoMemory => 6,
            Self::BadFormat => 7,
            Self::UnknownFlags => 8,
            Self::ImageLength => 9,
            Self::PayloadLength => 10,
            Self::CodecMismatch => 11,
            Self::BadEntry => 12,
            Self::BadStack => 13,
            Self::BadSlot => 14,
            Self::DuplicateSlot => 15,
            Self::BadObjectType => 16,
            Self::NoRights => 17,
            Self::UnknownRights => 18,
            Self::GrantTypeConflict => 19,
            Self::EmptyVersionRange => 20,
            Self::DuplicateDependency => 21,
            Self::SelfDependency => 22,
            Self::BadDeadline => 23,
            Self::BadThreads => 24,
            Self::ServiceNotAllowed => 25,
            Self::RequestsNotAllowed => 26,
            Self::Contract(error) => 0x80 + error as u16,
        }
    }
}

impl From<DecodeError> for ManifestError {
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

impl ManifestError {
    /// Every rule but the contract's, in order of number.
    pub const ALL: &'static [Self] = &[
        Self::TooLong,
        Self::Malformed,
        Self::BadName,
        Self::TooMany,
        Self::NotCanonical,
        Self::NoMemory,
        Self::BadFormat,
        Self::UnknownFlags,
        Self::ImageLength,
        Self::PayloadLength,
        Self::CodecMismatch,
        Self::BadEntry,
        Self::BadStack,
        Self::BadSlot,
        Self::DuplicateSlot,
        Self::BadObjectType,
        Self::NoRights,
        Self::UnknownRights,
        Self::GrantTypeConflict,
        Self::EmptyVersionRange,
        Self::DuplicateDependency,
        Self::SelfDependency,
        Self::BadDeadline,
        Self::BadThreads,
        Self::ServiceNotAllowed,
        Self::RequestsNotAllowed,
    ];
}

impl core::fmt::Display for ManifestError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::TooLong => "the manifest is longer than 16 KiB",
            Self::Malformed => "the manifest is malformed",
            Self::BadName => "a name in the manifest is not [a-z0-9.-]{1,64}",
            Self::TooMany => "a list in the manifest is too long",
            Self::NotCanonical => "the manifest is not in canonical form",
            Self::NoMemory => "no memory for the manifest",
            Self::BadFormat => "the manifest has another format number",
            Self::UnknownFlags => "the manifest has unknown flags",
            Self::ImageLength => "the manifest's image length is not possible",
            Self::PayloadLength => "the manifest's payload length is not possible",
            Self::CodecMismatch => "without codec, payload and image must be the same",
            Self::BadEntry => "the manifest's entry is outside the user window",
            Self::BadStack => "the manifest's stack size does not fit its kind",
            Self::BadSlot => "a capability request names an impossible slot",
            Self::DuplicateSlot => "two capability requests name one slot",
            Self::BadObjectType => "a capability request names an unknown object type",
            Self::NoRights => "a capability request asks for no rights",
            Self::UnknownRights => "a capability request asks for an unknown right",
            Self::GrantTypeConflict => "one grant name is used for two object types",
            Self::EmptyVersionRange => "a dependency's version range is empty",
            Self::DuplicateDependency => "two dependencies name one module",
            Self::SelfDependency => "the module depends on itself",
            Self::BadDeadline => "a deadline is zero or above ten minutes",
            Self::BadThreads => "the number of threads is more than 64, or does not fit the module's kind",
            Self::ServiceNotAllowed => "only services and agents may declare a service",
            Self::RequestsNotAllowed => "only services and agents may ask for capabilities",
            Self::Contract(e) => return core::fmt::Display::fmt(e, f),
        })
    }
}

impl core::error::Error for ManifestError {}

impl ModuleKind {
    /// Whether a process can be made from it.
    pub const fn is_process(self) -> bool {
        matches!(self, Self::Service | Self::Agent)
    }
}

impl Manifest {
    /// Decodes the one canonical encoding and runs every check of [`Self::validate`].
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        let manifest: Self = decode_canonical(bytes, MANIFEST_MAX)?;
        manifest.validate()?;
        Ok(manifest)
    }

    /// Checks the manifest and encodes it.
    pub fn encode(&self) -> Result<Vec<u8>, ManifestError> {
        self.validate()?;
        encode_canonical(self, MANIFEST_MAX).ok_or(ManifestError::TooLong)
    }

    /// Every check that needs no other record.
    pub fn validate(&self) -> Result<(), ManifestError> {
        if self.format != MANIFEST_FORMAT {
            return Err(ManifestError::BadFormat);
        }
        if ManifestFlags::from_bits(self.flags.bits()).is_none() {
            return Err(ManifestError::UnknownFlags);
        }
        self.check_content()?;
        self.check_process()?;
        self.check_requests()?;
        self.check_dependencies()?;
        self.contract.validate().map_err(ManifestError::Contract)
    }

    fn check_content(&self) -> Result<(), ManifestError> {
        let paged = self.kind == ModuleKind::Model || self.image_len.is_multiple_of(PAGE_SIZE);
        if self.image_len == 0 || self.image_len > MAX_IMAGE_LEN || !paged {
            return Err(ManifestError::ImageLength);
        }
        // zstd's worst case is the content, 3 bytes for each 128 KiB block, and frame header and checksum.
        if self.payload_len == 0 || self.payload_len > self.image_len + self.image_len / 256 + 64 {
            return Err(ManifestError::PayloadLength);
        }
        let same = self.payload_len == self.image_len && self.payload_digest == self.image_digest;
        if self.codec == Codec::None && !same { Err(ManifestError::CodecMismatch) } else { Ok(()) }
    }

    fn check_process(&self) -> Result<(), ManifestError> {
        let in_window = (USER_WINDOW_START..USER_WINDOW_END).contains(&self.entry);
        if in_window == (self.kind == ModuleKind::Model) || (!in_window && self.entry != 0) {
            return Err(ManifestError::BadEntry);
        }
        let process = self.kind.is_process();
        let stack = if process { 1..=MAX_STACK_PAGES } else { 0..=0 };
        if !stack.contains(&self.stack_pages) {
            return Err(ManifestError::BadStack);
        }
        let threads = if process { 1..=MAX_PROCESS_THREADS } else { 0..=0 };
        if !threads.contains(&self.resources.threads) {
            return Err(ManifestError::BadThreads);
        }
        let deadlines = [self.init_deadline_ms, self.prepare_deadline_ms];
        if deadlines.iter().any(|d| !(1..=MAX_DEADLINE_MS).contains(d)) {
            return Err(ManifestError::BadDeadline);
        }
        if !process && self.service.is_some() {
            return Err(ManifestError::ServiceNotAllowed);
        }
        if !process && !self.requests.is_empty() { Err(ManifestError::RequestsNotAllowed) } else { Ok(()) }
    }

    fn check_requests(&self) -> Result<(), ManifestError> {
        for (index, request) in self.requests.iter().enumerate() {
            if request.slot == 0 || request.slot > MAX_SLOT {
                return Err(ManifestError::BadSlot);
            }
            match ObjectType::from_number(request.object) {
                None | Some(ObjectType::Reply) => return Err(ManifestError::BadObjectType),
                Some(_) => {}
            }
            match Rights::from_bits(request.rights) {
                None => return Err(ManifestError::UnknownRights),
                Some(rights) if rights.difference(Rights::ENDOW).is_empty() => {
                    return Err(ManifestError::NoRights);
                }
                Some(_) => {}
            }
            for earlier in self.requests.iter().take(index) {
                if earlier.slot == request.slot {
                    return Err(ManifestError::DuplicateSlot);
                }
                if earlier.selector == request.selector && earlier.object != request.object {
                    return Err(ManifestError::GrantTypeConflict);
                }
            }
        }
        Ok(())
    }

    fn check_dependencies(&self) -> Result<(), ManifestError> {
        for (index, dependency) in self.dependencies.iter().enumerate() {
            if !dependency.versions.is_ordered() {
                return Err(ManifestError::EmptyVersionRange);
            }
            let module = (dependency.publisher, dependency.name);
            if module == (self.publisher, self.name) {
                return Err(ManifestError::SelfDependency);
            }
            if self.dependencies.iter().take(index).any(|d| (d.publisher, d.name) == module) {
                return Err(ManifestError::DuplicateDependency);
            }
        }
        Ok(())
    }
}
