//! Images, manifests, packages, boot bundles and trust records: every check by its own error.
#![allow(clippy::expect_used, reason = "helpers of tests, which Clippy does not see as tests")]
use proptest::prelude::*;
use sila_abi::boot::{
    BootGrant, BootManifest, BootModule, BootObject, BootObjectKind, Bundle, BundleEntry, BundleError,
    BundleHeader,
};
use sila_abi::contract::{Contract, ContractError, Node, Operation, Predicate, When};
use sila_abi::device::PciDevice;
use sila_abi::manifest::{
    CapRequest, Codec, Dependency, MAX_PROCESS_THREADS, Manifest, ManifestError, ManifestFlags, ModuleKind,
    Resources, Selector, ServiceDecl,
};
use sila_abi::package::{LoadProof, PACKAGE_HEADER_LEN, Package, PackageError, PackageHeader};
use sila_abi::policy::Policy;
use sila_abi::record::{Bounded, Name, NameError, Version, VersionRange};
use sila_abi::sif::{Perm, RawSegment, SIF_MAGIC, SifError, SifHeader, USER_WINDOW_END};
use sila_abi::trust::{
    Ceiling, Certificate, PublicKey, Purpose, Record, RecordError, Revocation, RevokedItem, RootSet,
    TypeCeiling,
};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromZeros, IntoBytes};

const IMAGE: u64 = 4 * 4096;

fn list<T: std::fmt::Debug, const N: usize>(items: Vec<T>) -> Bounded<T, N> {
    Bounded::from_vec(items).expect("short list")
}

fn name(text: &str) -> Name {
    Name::new(text).expect("name")
}

fn raw(vaddr: u64, mem_len: u64, file_off: u64, file_len: u64, perm: u32) -> RawSegment {
    RawSegment {
        vaddr: U64::new(vaddr),
        mem_len: U64::new(mem_len),
        file_off: U64::new(file_off),
        file_len: U64::new(file_len),
        perm: U32::new(perm),
        reserved: U32::ZERO,
    }
}

/// RX of 100 bytes, R of one page, RW of 10 bytes with bss to 3 pages.
fn header() -> SifHeader {
    let mut header = SifHeader::new_zeroed();
    header.magic = SIF_MAGIC;
    header.abi_version = U32::new(1);
    header.seg_count = U32::new(3);
    header.image_len = U64::new(IMAGE);
    header.entry = U64::new(0x20_0010);
    header.segments[0] = raw(0x20_0000, 100, 4096, 100, 5);
    header.segments[1] = raw(0x20_1000, 4096, 8192, 4096, 1);
    header.segments[2] = raw(0x20_2000, 3 * 4096, 12288, 10, 3);
    header
}

fn parse(change: impl FnOnce(&mut SifHeader)) -> Result<sila_abi::sif::Sif, SifError> {
    let mut header = header();
    change(&mut header);
    SifHeader::parse(header.as_bytes(), IMAGE)
}

#[test]
fn good_image_header_parses_and_lists_its_pages() {
    let sif = parse(|_| {}).expect("good");
    assert_eq!(sif.segments().len(), 3);
    assert_eq!(sif.private_pages(), 3);
    let pages: Vec<_> = sif.segments()[2].pages().map(|p| (p.vaddr, p.file_off, p.file_len)).collect();
    assert_eq!(pages, [(0x20_2000, Some(12288), 10), (0x20_3000, None, 0), (0x20_4000, None, 0)]);
    assert_eq!(sif.segments()[0].perm, Perm::RX);
}

type SifCase = (SifError, fn(&mut SifHeader));

#[test]
fn every_image_rule_has_its_own_error() {
    let cases: [SifCase; 24] = [
        (SifError::BadMagic, |h| h.magic[0] ^= 1),
        (SifError::AbiVersion, |h| h.abi_version = U32::new(2)),
        (SifError::ReservedNotZero, |h| h.reserved[3000] = 1),
        (SifError::ReservedNotZero, |h| h.segments[1].reserved = U32::new(1)),
        (SifError::ImageLength, |h| h.image_len = U64::new(IMAGE + 4096)),
        (SifError::NoSegments, |h| h.seg_count = U32::ZERO),
        (SifError::TooManySegments, |h| h.seg_count = U32::new(9)),
        (SifError::UnusedNotZero, |h| h.segments[7].perm = U32::new(1)),
        (SifError::WritableAndExecutable, |h| h.segments[0].perm = U32::new(7)),
        (SifError::BadPermission, |h| h.segments[1].perm = U32::new(0)),
        (SifError::EmptySegment, |h| h.segments[1].mem_len = U64::ZERO),
        (SifError::VaddrUnaligned, |h| h.segments[1].vaddr = U64::new(0x20_1001)),
        (SifError::FileUnaligned, |h| h.segments[1].file_off = U64::new(8193)),
        (SifError::OutsideWindow, |h| h.segments[0].vaddr = U64::new(0xf_f000)),
        (SifError::OutsideWindow, |h| h.segments[2].vaddr = U64::new(USER_WINDOW_END - 4096)),
        (SifError::OutsideWindow, |h| h.segments[2].mem_len = U64::new(u64::MAX)),
        (SifError::FileExceedsMemory, |h| h.segments[2].mem_len = U64::new(9)),
        (SifError::BssNotWritable, |h| h.segments[0].mem_len = U64::new(101)),
        (SifError::FileOutsideImage, |h| h.segments[2].file_off = U64::new(u64::MAX - 4095)),
        (SifError::Unsorted, |h| h.segments[2].vaddr = U64::new(0x20_0000)),
        (SifError::VaddrOverlap, |h| h.segments[2].vaddr = U64::new(0x20_1000)),
        (SifError::FileOverlap, |h| h.segments[1].file_off = U64::new(4096)),
        (SifError::FileOverlap, |h| h.segments[0].file_off = U64::ZERO),
        (SifError::FileGap, |h| h.segments[1].file_off = U64::new(12288)),
    ];
    for (expected, change) in cases {
        assert_eq!(parse(change).err(), Some(expected));
    }
}

#[test]
fn entry_must_lie_in_the_file_part_of_code() {
    assert_eq!(parse(|h| h.entry = U64::new(0x20_0064)).err(), Some(SifError::EntryOutsideCode));
    assert_eq!(parse(|h| h.entry = U64::new(0x20_1000)).err(), Some(SifError::EntryOutsideCode));
    assert_eq!(parse(|h| h.entry = U64::new(u64::MAX)).err(), Some(SifError::EntryOutsideCode));
    assert_eq!(parse(|h| h.segments[0].perm = U32::new(1)).err(), Some(SifError::NoCode));
}

#[test]
fn image_length_must_be_whole_pages_within_the_limit_and_used_up() {
    let parse_len = |len: u64| {
        let mut header = header();
        header.image_len = U64::new(len);
        SifHeader::parse(header.as_bytes(), len).err()
    };
    assert_eq!(parse_len(IMAGE + 1), Some(SifError::ImageNotPages));
    assert_eq!(parse_len(1 << 40), Some(SifError::ImageTooLong));
    assert_eq!(parse_len(IMAGE + 4096), Some(SifError::FileGap));
    assert_eq!(parse_len(IMAGE - 4096), Some(SifError::FileOutsideImage));
    assert_eq!(SifHeader::parse(&[0; 4095], IMAGE).err(), Some(SifError::HeaderLength));
}

#[test]
fn bss_without_file_part_has_no_offset() {
    let bss = |off| {
        parse(|h| {
            h.seg_count = U32::new(4);
            h.segments[3] = raw(0x21_0000, 4096, off, 0, 3);
        })
    };
    assert!(bss(0).is_ok());
    assert_eq!(bss(4096).err(), Some(SifError::FileOffWithoutFile));
}

fn manifest() -> Manifest {
    Manifest {
        format: 1,
        name: name("counter"),
        version: Version::new(1, 2, 3),
        security_version: 1,
        kind: ModuleKind::Service,
        publisher: name("sila"),
        key_id: [1; 32],
        algorithm: 1,
        image_digest: [2; 32],
        image_len: 8192,
        payload_digest: [3; 32],
        payload_len: 1000,
        codec: Codec::Zstd,
        entry: 0x20_0000,
        stack_pages: 4,
        requests: list(vec![
            request(1, Selector::OwnProcess, 7),
            request(4, Selector::Grant(name("clock")), 18),
        ]),
        dependencies: list(vec![dependency("logger")]),
        flags: ManifestFlags::ROLLBACK_ON_INIT_FAILURE,
        init_deadline_ms: 100,
        prepare_deadline_ms: 100,
        resources: Resources { frames: 10, object_bytes: 1000, max_priority: 9, threads: 1 },
        service: Some(ServiceDecl { name: name("counter"), durable: true }),
        contract: contract(),
        state_schema: 1,
    }
}

fn request(slot: u16, selector: Selector, object: u8) -> CapRequest {
    CapRequest { slot, object, selector, rights: 1, badge: Some(5), amount: 0, mandatory: true }
}

fn dependency(module: &str) -> Dependency {
    let (publisher, name) = (name("sila"), name(module));
    Dependency { publisher, name, versions: VersionRange::ALL, export_digest: [0; 32] }
}

fn contract() -> Contract {
    let predicate =
        Predicate { name: name("small"), operation: Operation::Create, when: When::Before, root: 2 };
    Contract {
        fault_entry: None,
        init_failure_codes: list(vec![1, 2]),
        nodes: list(vec![Node::Fact(name("frames")), Node::Const(100), Node::Le(0, 1)]),
        predicates: list(vec![predicate]),
    }
}

#[test]
fn manifest_round_trips() {
    let bytes = manifest().encode().expect("good");
    assert_eq!(Manifest::decode(&bytes), Ok(manifest()));
}

type ManifestCase = (ManifestError, fn(&mut Manifest));

#[test]
fn every_manifest_rule_has_its_own_error() {
    let cases: [ManifestCase; 28] = [
        (ManifestError::BadFormat, |m| m.format = 2),
        (ManifestError::UnknownFlags, |m| m.flags = ManifestFlags::from_bits_retain(1 << 9)),
        (ManifestError::ImageLength, |m| m.image_len = 0),
        (ManifestError::ImageLength, |m| m.image_len = 8193),
        (ManifestError::ImageLength, |m| m.image_len = u64::MAX),
        (ManifestError::PayloadLength, |m| m.payload_len = 0),
        (ManifestError::PayloadLength, |m| m.payload_len = 9000),
        (ManifestError::CodecMismatch, |m| m.codec = Codec::None),
        (ManifestError::BadEntry, |m| m.entry = 0),
        (ManifestError::BadEntry, |m| m.entry = USER_WINDOW_END),
        (ManifestError::BadStack, |m| m.stack_pages = 0),
        (ManifestError::BadThreads, |m| m.resources.threads = 0),
        (ManifestError::BadThreads, |m| m.resources.threads = MAX_PROCESS_THREADS + 1),
        (ManifestError::BadDeadline, |m| m.init_deadline_ms = 0),
        (ManifestError::BadDeadline, |m| m.prepare_deadline_ms = u32::MAX),
        (ManifestError::BadSlot, |m| m.requests = list(vec![request(0, Selector::OwnPool, 1)])),
        (ManifestError::BadSlot, |m| m.requests = list(vec![request(64, Selector::OwnPool, 1)])),
        (ManifestError::BadObjectType, |m| m.requests = list(vec![request(1, Selector::OwnPool, 0)])),
        (ManifestError::BadObjectType, |m| m.requests = list(vec![request(1, Selector::OwnPool, 22)])),
        (ManifestError::NoRights, |m| {
            m.requests = list(vec![CapRequest { rights: 1 << 15, ..request(1, Selector::OwnPool, 1) }])
        }),
        (ManifestError::UnknownRights, |m| {
            m.requests = list(vec![CapRequest { rights: 1 << 12, ..request(1, Selector::OwnPool, 1) }])
        }),
        (ManifestError::DuplicateSlot, |m| {
            m.requests = list(vec![request(1, Selector::OwnPool, 1), request(1, Selector::OwnProcess, 7)])
        }),
        (ManifestError::GrantTypeConflict, |m| {
            let grant = Selector::Grant(name("x"));
            m.requests = list(vec![request(1, grant, 1), request(2, grant, 2)])
        }),
        (ManifestError::SelfDependency, |m| m.dependencies = list(vec![dependency("counter")])),
        (ManifestError::DuplicateDependency, |m| {
            m.dependencies = list(vec![dependency("a"), dependency("a")])
        }),
        (ManifestError::EmptyVersionRange, |m| {
            let versions = VersionRange { min: Version::MAX, max: Version::MIN };
            m.dependencies = list(vec![Dependency { versions, ..dependency("a") }])
        }),
        (ManifestError::Contract(ContractError::ForwardReference), |m| {
            m.contract.nodes = list(vec![Node::Not(0)])
        }),
        (ManifestError::Contract(ContractError::BadRoot), |m| m.contract.nodes = list(vec![Node::Const(1)])),
    ];
    for (expected, change) in cases {
        let mut manifest = manifest();
        change(&mut manifest);
        assert_eq!(manifest.validate(), Err(expected));
        let bytes = borsh::to_vec(&manifest).expect("encodes");
        assert_eq!(Manifest::decode(&bytes), Err(expected));
    }
}

#[test]
fn libraries_and_models_have_no_process() {
    let library = |change: fn(&mut Manifest)| {
        let mut m = manifest();
        m.kind = ModuleKind::Library;
        m.stack_pages = 0;
        m.resources.threads = 0;
        m.service = None;
        m.requests = Bounded::new();
        change(&mut m);
        m.validate()
    };
    assert_eq!(library(|_| {}), Ok(()));
    assert_eq!(library(|m| m.stack_pages = 1), Err(ManifestError::BadStack));
    assert_eq!(library(|m| m.resources.threads = 1), Err(ManifestError::BadThreads));
    assert_eq!(library(|m| m.service = manifest().service), Err(ManifestError::ServiceNotAllowed));
    assert_eq!(library(|m| m.requests = manifest().requests), Err(ManifestError::RequestsNotAllowed));
    assert_eq!(library(|m| m.kind = ModuleKind::Model), Err(ManifestError::BadEntry));
}

#[test]
fn manifest_errors_have_distinct_numbers() {
    let mut numbers: Vec<u16> = [
        ManifestError::TooLong,
        ManifestError::Malformed,
        ManifestError::BadName,
        ManifestError::TooMany,
        ManifestError::NotCanonical,
        ManifestError::RequestsNotAllowed,
        ManifestError::Contract(ContractError::ForwardReference),
        ManifestError::Contract(ContractError::UnknownFact),
    ]
    .map(ManifestError::number)
    .to_vec();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 8);
}

#[test]
fn long_lists_and_long_manifests_are_refused_before_they_are_read() {
    let bytes = manifest().encode().expect("good");
    let count = bytes.windows(4).position(|w| w == [2, 0, 1, 0]).expect("request count");
    let mut many = bytes.clone();
    many[count..count + 2].copy_from_slice(&u16::MAX.to_le_bytes());
    assert_eq!(Manifest::decode(&many), Err(ManifestError::TooMany));
    assert_eq!(Manifest::decode(&vec![0; 16385]), Err(ManifestError::TooLong));
    assert_eq!(Manifest::decode(&[]), Err(ManifestError::Malformed));
}

#[test]
fn names_and_versions_have_one_form() {
    assert_eq!(Name::new(""), Err(NameError::Empty));
    assert_eq!(Name::new(&"a".repeat(65)), Err(NameError::TooLong));
    for bad in ["A", "a_b", "a b", "é", "a\0"] {
        assert!(matches!(Name::new(bad), Err(NameError::BadByte(_))), "{bad:?}");
    }
    let mut padded = *name("ab").padded();
    assert_eq!(Name::from_padded(&padded), Ok(name("ab")));
    padded[5] = b'x';
    assert_eq!(Name::from_padded(&padded), Err(NameError::BadByte(b'x')));
    for bad in ["1.2", "1.2.3.4", "01.2.3", "+1.2.3", "1.2.65536", "1..3", " 1.2.3"] {
        assert_eq!(Version::parse(bad), None, "{bad:?}");
    }
    assert_eq!(Version::from_word(Version::new(1, 2, 3).to_word()), Version::parse("1.2.3"));
    assert_eq!(Version::from_word(1 << 48), None);
}

#[test]
fn predicates_evaluate_and_unknown_facts_deny() {
    let contract = contract();
    let value = |fact: Option<u64>| contract.evaluate(&contract.predicates[0], &|_| fact);
    assert_eq!(value(Some(100)), Ok(true));
    assert_eq!(value(Some(101)), Ok(false));
    assert_eq!(value(None), Err(ContractError::UnknownFact));
    let mixed = Contract { nodes: list(vec![Node::Const(1), Node::Not(0)]), ..Contract::default() };
    assert_eq!(mixed.validate(), Err(ContractError::TypeMismatch));
}

#[test]
fn certificate_prefixes_end_at_a_dot_or_dash() {
    let certificate = certificate();
    for (text, covered) in
        [("net", true), ("net.dns", true), ("net-tools", true), ("network", false), ("ne", false)]
    {
        assert_eq!(certificate.covers_name(&name(text)), covered, "{text}");
    }
}

fn key(byte: u8) -> PublicKey {
    PublicKey { algorithm: 1, bytes: list(vec![byte; 2592]) }
}

fn certificate() -> Certificate {
    Certificate {
        sequence: 1,
        publisher: name("sila"),
        key: key(1),
        purpose: Purpose::Test,
        prefixes: list(vec![name("net")]),
        ceiling: Ceiling {
            types: list(vec![TypeCeiling { object: 1, rights: 3 }]),
            frames: 1,
            object_bytes: 1,
            max_priority: 1,
            agents: false,
        },
        versions: VersionRange::ALL,
    }
}

#[test]
fn root_sets_certificates_and_revocations_are_checked() {
    let set = |threshold, keys: Vec<PublicKey>, sequence| {
        RootSet { sequence, purpose: Purpose::Test, threshold, keys: list(keys) }.validate()
    };
    assert_eq!(set(2, vec![key(1), key(2)], 1), Ok(()));
    assert_eq!(set(0, vec![key(1)], 1), Err(RecordError::BadThreshold));
    assert_eq!(set(2, vec![key(1)], 1), Err(RecordError::BadThreshold));
    assert_eq!(set(2, vec![key(1), key(1)], 1), Err(RecordError::DuplicateKey));
    assert_eq!(set(1, vec![], 1), Err(RecordError::NoKeys));
    assert_eq!(set(1, vec![key(1)], 0), Err(RecordError::ZeroSequence));
    let mut double = certificate();
    double.ceiling.types = list(vec![TypeCeiling { object: 1, rights: 1 }; 2]);
    assert_eq!(double.validate(), Err(RecordError::DuplicateCeiling));
    let versions = VersionRange { min: Version::MAX, max: Version::MIN };
    assert_eq!(Certificate { versions, ..certificate() }.validate(), Err(RecordError::EmptyVersionRange));
    let item = RevokedItem::Module { publisher: name("a"), name: name("b"), versions };
    assert_eq!(Revocation { sequence: 1, item }.validate(), Err(RecordError::EmptyVersionRange));
}

fn boot() -> BootManifest {
    let grant = BootGrant { request: name("r"), object: name("ep"), rights: 1, badge: 0 };
    BootManifest {
        format: 1,
        sequence: 1,
        purpose: Purpose::Test,
        root_set_digest: [0; 32],
        policy: Policy {
            sequence: 1,
            algorithms: list(vec![1]),
            min_nist_level: 5,
            min_key_bits: 4096,
            max_image_len: 1,
            max_window_log: 23,
            max_decompressions: 1,
            creation_burst: 1,
            creation_per_second: 1,
            max_verifications: 1,
            cache_frames: 1,
            cache_entries: 1,
            rules: Bounded::new(),
            scopes: Bounded::new(),
        },
        certificates: list(vec![certificate()]),
        revocations: Bounded::new(),
        floors: Bounded::new(),
        objects: list(vec![
            BootObject { name: name("ep"), kind: BootObjectKind::Endpoint { ceiling: 1, durable: false } },
            BootObject { name: name("tc"), kind: BootObjectKind::TestControl },
        ]),
        modules: list(vec![BootModule {
            name: name("m"),
            manifest_digest: [0; 32],
            image_digest: [0; 32],
            priority: 1,
            frames: 1,
            object_bytes: 1,
            job: None,
            receives: list(vec![name("ep")]),
            grants: list(vec![grant]),
            autostart: true,
        }]),
    }
}

#[test]
fn boot_manifests_name_only_what_they_make() {
    assert_eq!(BootManifest::decode(&boot().encode().expect("good")), Ok(boot()));
    let with = |change: fn(&mut BootModule)| {
        let mut boot = boot();
        let mut module = boot.modules[0].clone();
        change(&mut module);
        boot.modules = list(vec![module]);
        boot.validate()
    };
    assert_eq!(with(|m| m.receives = list(vec![name("no")])), Err(RecordError::UnknownName));
    assert_eq!(with(|m| m.receives = list(vec![name("tc")])), Err(RecordError::BadObject));
    assert_eq!(with(|m| m.receives = list(vec![name("ep"); 2])), Err(RecordError::DuplicateName));
    assert_eq!(with(|m| m.job = Some(name("ep"))), Err(RecordError::BadObject));
    assert_eq!(with(|m| m.grants = list(vec![m.grants[0]; 2])), Err(RecordError::DuplicateName));
    let release = BootManifest { purpose: Purpose::Release, ..boot() };
    assert_eq!(release.validate(), Err(RecordError::TestObjectInRelease));
    let objects = |kind| BootManifest {
        objects: list(vec![boot().objects[0], BootObject { name: name("p"), kind }]),
        ..boot()
    };
    for kind in [
        BootObjectKind::IoPorts { base: 0xffff, len: 2 },
        BootObjectKind::IoPorts { base: 1, len: 0 },
        BootObjectKind::IrqHandler { line: 16 },
        BootObjectKind::Pool { frames: 0, object_bytes: 0 },
        BootObjectKind::DeviceRegion { device: pci(0x1234), bar: 6, optional: true },
        BootObjectKind::DeviceRegion { device: pci(0), bar: 0, optional: true },
        BootObjectKind::DevicePorts { device: pci(0x1234), bar: 255, optional: false },
        BootObjectKind::DevicePorts { device: pci(0xffff), bar: 0, optional: false },
        BootObjectKind::DeviceIrq { device: pci(0xffff), optional: true },
    ] {
        assert_eq!(objects(kind).validate(), Err(RecordError::BadObject));
    }
    for kind in [
        BootObjectKind::DeviceRegion { device: pci(0x1234), bar: 5, optional: true },
        BootObjectKind::DevicePorts { device: pci(0x1234), bar: 0, optional: false },
        BootObjectKind::DeviceIrq { device: pci(0x1234), optional: true },
    ] {
        let boot = objects(kind);
        assert_eq!(BootManifest::decode(&boot.encode().expect("good")), Ok(boot));
    }
}

fn pci(vendor: u16) -> PciDevice {
    PciDevice { vendor, device: 0x11e8, index: 1 }
}

fn package(change: impl FnOnce(&mut PackageHeader)) -> Vec<u8> {
    let (manifest, payload, sig) = (vec![1; 10], vec![2; 20], vec![3; 600]);
    let mut header = PackageHeader::new_zeroed();
    header.magic = *b"SILAPKG1";
    header.format = U16::new(1);
    header.manifest_len = U32::new(10);
    header.payload_len = U64::new(20);
    header.sig_len = U32::new(600);
    header.total_len = U64::new((PACKAGE_HEADER_LEN + 10 + 20 + 3 * 600) as u64);
    change(&mut header);
    [header.as_bytes(), &manifest, &payload, &sig, &sig, &sig].concat()
}

#[test]
fn package_parts_are_found_and_every_header_rule_has_its_error() {
    let good = package(|_| {});
    let parts = Package::parse(&good).expect("good");
    assert_eq!((parts.manifest, parts.payload), (&[1; 10][..], &[2; 20][..]));
    assert_eq!(parts.signed.len(), PACKAGE_HEADER_LEN + 30);
    type Case = (PackageError, fn(&mut PackageHeader));
    let cases: [Case; 8] = [
        (PackageError::BadMagic, |h| h.magic[7] = 0),
        (PackageError::BadFormat, |h| h.format = U16::new(2)),
        (PackageError::ReservedNotZero, |h| h.reserved[59] = 1),
        (PackageError::ManifestLength, |h| h.manifest_len = U32::new(16385)),
        (PackageError::PayloadLength, |h| h.payload_len = U64::new(u64::MAX)),
        (PackageError::SignatureLength, |h| h.sig_len = U32::new(511)),
        (PackageError::TotalLength, |h| h.total_len = U64::new(u64::MAX)),
        (PackageError::TotalLength, |h| h.manifest_len = U32::new(11)),
    ];
    for (expected, change) in cases {
        assert_eq!(Package::parse(&package(change)).err(), Some(expected));
    }
}

fn bundle(change: impl FnOnce(&mut BundleHeader, &mut [BundleEntry; 2])) -> Vec<u8> {
    let mut header = BundleHeader::new_zeroed();
    header.magic = *b"SILABNDL";
    header.format = U32::new(1);
    header.count = U32::new(2);
    header.total_len = U64::new(3 * 4096);
    let entry = |kind, off, text: &str| BundleEntry {
        kind: U16::new(kind),
        version: [U16::ZERO; 3],
        off: U64::new(off),
        len: U64::new(100),
        reserved: U64::ZERO,
        name: *name(text).padded(),
    };
    let mut entries = [entry(4, 4096, "a"), entry(4, 8192, "b")];
    change(&mut header, &mut entries);
    let mut bytes = [header.as_bytes(), entries.as_bytes()].concat();
    bytes.resize(3 * 4096, 7);
    bytes
}

#[test]
fn every_bundle_rule_has_its_own_error() {
    assert!(Bundle::parse(&bundle(|_, _| {})).is_ok());
    type Case = (BundleError, fn(&mut BundleHeader, &mut [BundleEntry; 2]));
    let cases: [Case; 14] = [
        (BundleError::BadMagic, |h, _| h.magic[0] = 0),
        (BundleError::BadFormat, |h, _| h.format = U32::new(2)),
        (BundleError::ReservedNotZero, |h, _| h.reserved[0] = 1),
        (BundleError::ReservedNotZero, |_, e| e[1].reserved = U64::new(1)),
        (BundleError::TooManyEntries, |h, _| h.count = U32::new(u32::MAX)),
        (BundleError::Truncated, |h, _| h.count = U32::new(500)),
        (BundleError::TotalLength, |h, _| h.total_len = U64::new(4096)),
        (BundleError::BadKind, |_, e| e[0].kind = U16::new(99)),
        (BundleError::BadName, |_, e| e[0].name = [0; 64]),
        (BundleError::EmptyContent, |_, e| e[1].len = U64::ZERO),
        (BundleError::Unaligned, |_, e| e[1].off = U64::new(8193)),
        (BundleError::Overlap, |_, e| e[1].off = U64::new(4096)),
        (BundleError::OutsideBundle, |_, e| e[1].len = U64::new(u64::MAX)),
        (BundleError::Duplicate, |_, e| e[1].name = e[0].name),
    ];
    for (expected, change) in cases {
        assert_eq!(Bundle::parse(&bundle(change)).err(), Some(expected));
    }
}

proptest! {
    #[test]
    fn image_parser_answers_any_bytes(page in proptest::collection::vec(any::<u8>(), 4096), len: u64) {
        let _ = SifHeader::parse(&page, len);
    }

    /// Fields are replaced by edge values; whatever is accepted keeps every promise.
    #[test]
    fn accepted_image_headers_keep_their_promises(
        field in 0usize..20,
        value in prop_oneof![any::<u64>(), 0u64..0x40_0000, (0u64..1024).prop_map(|p| p * 4096)],
    ) {
        let mut header = header();
        let segment = &mut header.segments[field % 3];
        match field / 3 {
            0 => segment.vaddr = U64::new(value),
            1 => segment.mem_len = U64::new(value),
            2 => segment.file_off = U64::new(value),
            3 => segment.file_len = U64::new(value),
            4 => segment.perm = U32::new(value as u32 % 9),
            _ => header.entry = U64::new(value),
        }
        if let Ok(sif) = SifHeader::parse(header.as_bytes(), IMAGE) {
            let mut end = 0x10_0000;
            for s in sif.segments() {
                prop_assert!(s.vaddr >= end && s.file_len <= s.mem_len);
                prop_assert!(s.file_off + s.file_len <= IMAGE);
                prop_assert!(s.file_len == s.mem_len || s.perm == Perm::RW);
                prop_assert_eq!(s.pages().map(|p| p.file_len).sum::<u64>(), s.file_len);
                end = s.end_page();
            }
            prop_assert!(end <= USER_WINDOW_END);
        }
    }

    /// Whatever a mutated manifest decodes to encodes to the very same bytes.
    #[test]
    fn accepted_manifests_are_canonical(at: usize, value: u8, cut in 0usize..3) {
        let mut bytes = manifest().encode().expect("good");
        let at = at % bytes.len();
        bytes[at] = value;
        bytes.truncate(bytes.len() - cut);
        if let Ok(decoded) = Manifest::decode(&bytes) {
            prop_assert_eq!(decoded.encode().expect("valid"), bytes);
        }
    }

    #[test]
    fn parsers_answer_any_bytes(bytes: Vec<u8>) {
        let _ = Package::parse(&bytes);
        let _ = LoadProof::parse(&bytes);
        let _ = Bundle::parse(&bytes);
        let _ = Manifest::decode(&bytes);
        let _ = BootManifest::decode(&bytes);
    }
}
