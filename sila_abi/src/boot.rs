//! The boot bundle and the boot manifest: what the kernel starts (the book, Trust, "Root of trust").
//!
//! ```text
//! bundle: BundleHeader | BundleEntry × count | contents, each on a page of its own
//! ```
//!
//! Padding is zero. The bundle is read in place, without a heap; nothing in it is trusted before the boot
//! manifest's signatures are checked, and then only what that manifest's digests name.

use crate::device::{PciDevice, WINDOWS};
use crate::policy::Policy;
use crate::record::{Bounded, Digest, KeyId, NAME_MAX, Name, Version};
use crate::sif::PAGE_SIZE;
use crate::trust::{Certificate, Purpose, Record, RecordError, Revocation, check_sequence, has_duplicate};
use borsh::{BorshDeserialize, BorshSerialize};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// First bytes of every bundle.
pub const BUNDLE_MAGIC: [u8; 8] = *b"SILABNDL";
/// Format number of the bundle.
pub const BUNDLE_FORMAT: u32 = 1;
/// The most entries of a bundle.
pub const MAX_BUNDLE_ENTRIES: usize = 512;
/// Bytes of the bundle header, and of each directory entry.
pub const BUNDLE_RECORD_LEN: usize = 96;
/// Format number of the boot manifest.
pub const BOOT_FORMAT: u16 = 1;

/// What a bundle entry holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u16)]
pub enum EntryKind {
    /// A [`crate::trust::RootSet`]; exactly one.
    RootSet = 1,
    /// A [`BootManifest`]; exactly one.
    BootManifest = 2,
    /// A [`crate::trust::SignatureSet`] over the boot manifest; exactly one.
    BootSignature = 3,
    /// Encoded manifest of a bootstrap module.
    ModuleManifest = 4,
    /// Uncompressed SIF image of a bootstrap module.
    ModuleImage = 5,
    /// A package for ModuleManager. Name and version are hints.
    Package = 6,
    /// A [`crate::trust::SignedRecord`] of a [`Certificate`].
    Certificate = 7,
    /// A [`crate::trust::SignedRecord`] of a [`Revocation`].
    Revocation = 8,
    /// Data for in-guest tests.
    TestData = 9,
    /// A [`crate::trust::FloorRecord`] without signatures, as it was exported before; at most one.
    FloorRecord = 10,
}

impl EntryKind {
    /// The kind with this number.
    pub const fn from_number(number: u16) -> Option<Self> {
        Some(match number {
            1 => Self::RootSet,
            2 => Self::BootManifest,
            3 => Self::BootSignature,
            4 => Self::ModuleManifest,
            5 => Self::ModuleImage,
            6 => Self::Package,
            7 => Self::Certificate,
            8 => Self::Revocation,
            9 => Self::TestData,
            10 => Self::FloorRecord,
            _ => return None,
        })
    }

    /// The number in the directory.
    pub const fn number(self) -> u16 {
        self as u16
    }
}

/// First record of a bundle (96 bytes, little-endian).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct BundleHeader {
    /// [`BUNDLE_MAGIC`].
    pub magic: [u8; 8],
    /// [`BUNDLE_FORMAT`].
    pub format: U32,
    /// Directory entries, at most [`MAX_BUNDLE_ENTRIES`].
    pub count: U32,
    /// Bytes of the bundle, a whole number of pages.
    pub total_len: U64,
    /// Zero.
    pub reserved: [u8; 72],
}

/// A directory entry (96 bytes, little-endian).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct BundleEntry {
    /// [`EntryKind::number`].
    pub kind: U16,
    /// Major, minor, patch; a hint for packages.
    pub version: [U16; 3],
    /// Offset of the content; a multiple of 4096.
    pub off: U64,
    /// Bytes of the content; at least 1.
    pub len: U64,
    /// Zero.
    pub reserved: U64,
    /// Name, zero padded; a hint for packages.
    pub name: [u8; NAME_MAX],
}

const _: () = assert!(size_of::<BundleHeader>() == BUNDLE_RECORD_LEN);
const _: () = assert!(size_of::<BundleEntry>() == BUNDLE_RECORD_LEN);

/// A checked directory entry with its content.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// What it holds.
    pub kind: EntryKind,
    /// Its name; a hint for packages.
    pub name: Name,
    /// Its version; a hint for packages.
    pub version: Version,
    /// Offset of the content in the bundle; page aligned.
    pub off: u64,
    /// The content.
    pub data: &'a [u8],
}

/// Why bytes are no bundle. Each check has its own variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BundleError {
    /// Shorter than header and directory.
    Truncated,
    /// Another magic.
    BadMagic,
    /// Another format number.
    BadFormat,
    /// A reserved field is not zero.
    ReservedNotZero,
    /// More than [`MAX_BUNDLE_ENTRIES`] entries.
    TooManyEntries,
    /// `total_len` is not the number of bytes given, or not whole pages.
    TotalLength,
    /// An unknown kind.
    BadKind,
    /// A bad name.
    BadName,
    /// A content without bytes.
    EmptyContent,
    /// A content that does not begin on a page.
    Unaligned,
    /// A content that overlaps the directory or the content before it.
    Overlap,
    /// A content that reaches outside the bundle.
    OutsideBundle,
    /// Two entries of one kind and name where only one may be (all kinds but packages and test data), or a
    /// second root set, boot manifest or boot signature.
    Duplicate,
}

impl core::fmt::Display for BundleError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Truncated => "the bundle is shorter than its directory",
            Self::BadMagic => "not a SILA boot bundle",
            Self::BadFormat => "the bundle has another format number",
            Self::ReservedNotZero => "a reserved field of the bundle is not zero",
            Self::TooManyEntries => "the bundle has too many entries",
            Self::TotalLength => "the bundle's declared length is not its real length",
            Self::BadKind => "the bundle has an entry of unknown kind",
            Self::BadName => "a name in the bundle is not [a-z0-9.-]{1,64}",
            Self::EmptyContent => "the bundle has an empty entry",
            Self::Unaligned => "a bundle entry is not page aligned",
            Self::Overlap => "two bundle entries overlap",
            Self::OutsideBundle => "a bundle entry lies outside the bundle",
            Self::Duplicate => "the bundle has two entries of one name",
        })
    }
}

impl core::error::Error for BundleError {}

/// A bundle whose directory passed every check.
#[derive(Clone, Copy, Debug)]
pub struct Bundle<'a> {
    bytes: &'a [u8],
    entries: &'a [BundleEntry],
}

impl<'a> Bundle<'a> {
    /// Checks header and directory of `bytes`, which must be exactly one bundle.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BundleError> {
        let (header, rest) = BundleHeader::ref_from_prefix(bytes).map_err(|_| BundleError::Truncated)?;
        if header.magic != BUNDLE_MAGIC {
            return Err(BundleError::BadMagic);
        }
        if header.format.get() != BUNDLE_FORMAT {
            return Err(BundleError::BadFormat);
        }
        if header.reserved != [0; 72] {
            return Err(BundleError::ReservedNotZero);
        }
        let count = header.count.get() as usize;
        if count > MAX_BUNDLE_ENTRIES {
            return Err(BundleError::TooManyEntries);
        }
        let total = header.total_len.get();
        if total != bytes.len() as u64 || !total.is_multiple_of(PAGE_SIZE) {
            return Err(BundleError::TotalLength);
        }
        let (entries, _) =
            <[BundleEntry]>::ref_from_prefix_with_elems(rest, count).map_err(|_| BundleError::Truncated)?;
        let bundle = Self { bytes, entries };
        bundle.check_directory()?;
        Ok(bundle)
    }

    fn check_directory(&self) -> Result<(), BundleError> {
        let mut free = (BUNDLE_RECORD_LEN * (1 + self.entries.len())) as u64;
        for (index, raw) in self.entries.iter().enumerate() {
            let entry = raw.check(self.bytes)?;
            if entry.off < free {
                return Err(BundleError::Overlap);
            }
            free = entry.off + entry.data.len() as u64;
            let same = |other: &BundleEntry| raw.conflicts(other, entry.kind);
            if self.entries.iter().take(index).any(same) {
                return Err(BundleError::Duplicate);
            }
        }
        Ok(())
    }

    /// All entries in directory order.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'a>> + '_ {
        // Every entry was checked by `parse`, so none is left out.
        self.entries.iter().filter_map(|raw| raw.check(self.bytes).ok())
    }

    /// The entries of one kind in directory order.
    pub fn of_kind(&self, kind: EntryKind) -> impl Iterator<Item = Entry<'a>> + '_ {
        self.entries().filter(move |entry| entry.kind == kind)
    }

    /// The first entry of this kind.
    pub fn first(&self, kind: EntryKind) -> Option<Entry<'a>> {
        self.of_kind(kind).next()
    }

    /// The first entry of this kind and name.
    pub fn find(&self, kind: EntryKind, name: &Name) -> Option<Entry<'a>> {
        self.of_kind(kind).find(|entry| entry.name == *name)
    }

    /// The bytes of the whole bundle.
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

impl BundleEntry {
    fn check<'a>(&self, bundle: &'a [u8]) -> Result<Entry<'a>, BundleError> {
        let kind = EntryKind::from_number(self.kind.get()).ok_or(BundleError::BadKind)?;
        let name = Name::from_padded(&self.name).map_err(|_| BundleError::BadName)?;
        if self.reserved.get() != 0 {
            return Err(BundleError::ReservedNotZero);
        }
        let (off, len) = (self.off.get(), self.len.get());
        if len == 0 {
            return Err(BundleError::EmptyContent);
        }
        if !off.is_multiple_of(PAGE_SIZE) {
            return Err(BundleError::Unaligned);
        }
        let end = off.checked_add(len).filter(|&end| end <= bundle.len() as u64);
        let data = end.and_then(|end| bundle.get(usize::try_from(off).ok()?..usize::try_from(end).ok()?));
        let [major, minor, patch] = self.version.map(U16::get);
        let version = Version { major, minor, patch };
        Ok(Entry { kind, name, version, off, data: data.ok_or(BundleError::OutsideBundle)? })
    }

    fn conflicts(&self, other: &Self, kind: EntryKind) -> bool {
        use EntryKind::{
            BootManifest, BootSignature, Certificate, FloorRecord, Package, Revocation, RootSet, TestData,
        };
        match kind {
            Package | TestData | Certificate | Revocation => false,
            RootSet | BootManifest | BootSignature | FloorRecord => self.kind == other.kind,
            _ => self.kind == other.kind && self.name == other.name,
        }
    }
}

/// What kind of object the kernel makes at boot, with its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
pub enum BootObjectKind {
    /// Memory for others to spend.
    Pool {
        /// Frames of 4096 bytes.
        frames: u64,
        /// Bytes of kernel objects.
        object_bytes: u64,
    } = 1,
    /// An endpoint.
    Endpoint {
        /// Its priority ceiling.
        ceiling: u8,
        /// Whether waiting callers outlive the receiver.
        durable: bool,
    } = 2,
    /// A notification.
    Notification = 3,
    /// A Job, in which processes are made.
    Job = 4,
    /// Ports of a serial port, if the kernel's device table allows it.
    IoPorts {
        /// First port.
        base: u16,
        /// Number of ports.
        len: u16,
    } = 5,
    /// The interrupt line of a serial port.
    IrqHandler {
        /// The ISA line, 0 to 15; the kernel maps it as ACPI says.
        line: u8,
    } = 6,
    /// The kernel's publisher keys and revocations.
    KeyRing = 7,
    /// The kernel's policy.
    Policy = 8,
    /// Power, statistics, enumeration.
    SystemControl = 9,
    /// Test hooks; only under a test root set.
    TestControl = 10,
    /// The whole boot bundle as a sealed read-only Region.
    BundleRegion = 11,
    /// The clock.
    Clock = 12,
    /// The framebuffer's memory as a Region; left out if there is none.
    Framebuffer = 13,
    /// The audit log.
    AuditLog = 14,
    /// The module cache.
    ModuleCache {
        /// Frames of 4096 bytes it may hold.
        frames: u64,
        /// Entries it may hold.
        entries: u32,
    } = 15,
    /// A memory window of a PCI function as a device Region, if the kernel's device table allows it.
    DeviceRegion {
        /// Which function.
        device: PciDevice,
        /// Number of the base address register.
        bar: u8,
        /// Whether the system starts without it.
        optional: bool,
    } = 16,
    /// A port window of a PCI function, if the kernel's device table allows it.
    DevicePorts {
        /// Which function.
        device: PciDevice,
        /// Number of the base address register.
        bar: u8,
        /// Whether the system starts without it.
        optional: bool,
    } = 17,
    /// The interrupt line of a PCI function, if the kernel knows it.
    DeviceIrq {
        /// Which function.
        device: PciDevice,
        /// Whether the system starts without it.
        optional: bool,
    } = 18,
}

/// An object that the kernel makes at boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct BootObject {
    /// The name that grants use; unique.
    pub name: Name,
    /// What it is.
    pub kind: BootObjectKind,
}

/// A capability for a bootstrap module: it satisfies the module's request `Grant(request)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct BootGrant {
    /// Grant name in the module's manifest.
    pub request: Name,
    /// The boot object.
    pub object: Name,
    /// The rights granted; at least those requested.
    pub rights: u16,
    /// The badge; 0 is none.
    pub badge: u64,
}

/// The most boot objects of a [`BootManifest`].
pub const MAX_BOOT_OBJECTS: usize = 128;
/// The most modules of a [`BootManifest`].
pub const MAX_BOOT_MODULES: usize = 32;
/// The most endpoints that one bootstrap module receives on.
pub const MAX_RECEIVES: usize = 8;
/// The most grants of a bootstrap module.
pub const MAX_GRANTS: usize = 48;
/// The most certificates of a [`BootManifest`].
pub const MAX_CERTIFICATES: usize = 16;
/// The most revocations of a [`BootManifest`].
pub const MAX_REVOCATIONS: usize = 256;
/// The most floors of a [`BootManifest`].
pub const MAX_FLOORS: usize = 256;

/// A module that the kernel starts by itself.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct BootModule {
    /// Name of the bundle's `ModuleManifest` and `ModuleImage` entries; equal to the manifest's name.
    pub name: Name,
    /// Id hash (SHA3-256) of its manifest.
    pub manifest_digest: Digest,
    /// Bulk digest of its image.
    pub image_digest: Digest,
    /// Priority of its first thread.
    pub priority: u8,
    /// Frames of its own Pool.
    pub frames: u64,
    /// Object bytes of its own Pool.
    pub object_bytes: u64,
    /// The Job it is made in; none: the root Job.
    pub job: Option<Name>,
    /// The endpoints whose receiver it is.
    pub receives: Bounded<Name, MAX_RECEIVES>,
    /// What satisfies its grant requests.
    pub grants: Bounded<BootGrant, MAX_GRANTS>,
    /// Whether the kernel starts its first thread; else it is only made.
    pub autostart: bool,
}

/// The lowest security version that may run of one module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Floor {
    /// The module's publisher.
    pub publisher: Name,
    /// The module's name.
    pub name: Name,
    /// Lower security versions are refused.
    pub security_version: u32,
}

/// What a system is: what runs, with which capabilities, under which keys. Root-signed in the domain
/// `sila/boot/v1`.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct BootManifest {
    /// [`BOOT_FORMAT`].
    pub format: u16,
    /// Rises with every image.
    pub sequence: u64,
    /// What the image is for; equal to the root set's.
    pub purpose: Purpose,
    /// Id hash (SHA3-256) of the root set's encoding.
    pub root_set_digest: Digest,
    /// Limits for everyone.
    pub policy: Policy,
    /// The publishers' certificates; the signature over this manifest covers them.
    pub certificates: Bounded<Certificate, MAX_CERTIFICATES>,
    /// What was revoked before this image was made.
    pub revocations: Bounded<Revocation, MAX_REVOCATIONS>,
    /// Floors at boot.
    pub floors: Bounded<Floor, MAX_FLOORS>,
    /// The objects made at boot, in this order.
    pub objects: Bounded<BootObject, MAX_BOOT_OBJECTS>,
    /// The modules made at boot, in this order.
    pub modules: Bounded<BootModule, MAX_BOOT_MODULES>,
}

impl Record for BootManifest {
    fn validate(&self) -> Result<(), RecordError> {
        if self.format != BOOT_FORMAT {
            return Err(RecordError::BadFormat);
        }
        check_sequence(self.sequence)?;
        self.policy.validate()?;
        self.certificates.iter().try_for_each(Record::validate)?;
        self.revocations.iter().try_for_each(Record::validate)?;
        let publishers = has_duplicate(self.certificates.iter().map(|c| &c.key));
        let floors = has_duplicate(self.floors.iter().map(|f| (f.publisher, f.name)));
        let objects = has_duplicate(self.objects.iter().map(|o| o.name));
        let modules = has_duplicate(self.modules.iter().map(|m| m.name));
        if publishers {
            return Err(RecordError::DuplicateKey);
        }
        if floors || objects || modules {
            return Err(RecordError::DuplicateName);
        }
        self.objects.iter().try_for_each(|object| object.validate(self.purpose))?;
        self.modules.iter().try_for_each(|module| module.validate(self))?;
        if has_duplicate(self.modules.iter().flat_map(|m| m.receives.iter())) {
            return Err(RecordError::DuplicateName);
        }
        Ok(())
    }
}

impl BootObject {
    fn validate(&self, purpose: Purpose) -> Result<(), RecordError> {
        let sensible = match self.kind {
            BootObjectKind::Pool { frames, object_bytes } => frames > 0 || object_bytes > 0,
            BootObjectKind::IoPorts { base, len } => len > 0 && base.checked_add(len - 1).is_some(),
            BootObjectKind::IrqHandler { line } => line < 16,
            BootObjectKind::DeviceRegion { device, bar, .. }
            | BootObjectKind::DevicePorts { device, bar, .. } => {
                device.is_sensible() && usize::from(bar) < WINDOWS
            }
            BootObjectKind::DeviceIrq { device, .. } => device.is_sensible(),
            BootObjectKind::ModuleCache { frames, entries } => frames > 0 && entries > 0,
            BootObjectKind::TestControl if purpose == Purpose::Release => {
                return Err(RecordError::TestObjectInRelease);
            }
            _ => true,
        };
        if sensible { Ok(()) } else { Err(RecordError::BadObject) }
    }
}

impl BootModule {
    fn validate(&self, boot: &BootManifest) -> Result<(), RecordError> {
        let kind_of = |name: &Name| boot.object(name).map(|object| object.kind);
        for name in &self.receives {
            match kind_of(name).ok_or(RecordError::UnknownName)? {
                BootObjectKind::Endpoint { .. } => {}
                _ => return Err(RecordError::BadObject),
            }
        }
        if let Some(job) = &self.job
            && kind_of(job).ok_or(RecordError::UnknownName)? != BootObjectKind::Job
        {
            return Err(RecordError::BadObject);
        }
        for grant in &self.grants {
            kind_of(&grant.object).ok_or(RecordError::UnknownName)?;
            if grant.rights == 0 {
                return Err(RecordError::BadObject);
            }
        }
        let twice = has_duplicate(self.grants.iter().map(|grant| grant.request));
        if twice { Err(RecordError::DuplicateName) } else { Ok(()) }
    }
}

impl BootManifest {
    /// The boot object of this name.
    pub fn object(&self, name: &Name) -> Option<&BootObject> {
        self.objects.iter().find(|object| object.name == *name)
    }

    /// The bootstrap module of this name.
    pub fn module(&self, name: &Name) -> Option<&BootModule> {
        self.modules.iter().find(|module| module.name == *name)
    }

    /// The floor of a module; 0 if none is set.
    pub fn floor(&self, publisher: &Name, name: &Name) -> u32 {
        let floor = self.floors.iter().find(|f| f.publisher == *publisher && f.name == *name);
        floor.map_or(0, |f| f.security_version)
    }

    /// Whether a revocation of this manifest covers the version, or its key.
    pub fn is_revoked(&self, key_id: &KeyId, publisher: &Name, name: &Name, version: Version) -> bool {
        self.revocations.iter().any(|r| r.item.covers(key_id, publisher, name, version))
    }
}
