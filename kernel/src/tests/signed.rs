//! Keys, a signed image and a signed revocation, so that host tests go the whole way through the chain of trust.

use std::sync::LazyLock;
use std::vec;

use sila_abi::boot::{BOOT_FORMAT, BootManifest};
use sila_abi::contract::Contract;
use sila_abi::manifest::{
    CapRequest, Codec, MANIFEST_FORMAT, Manifest, ManifestFlags, ModuleKind, Resources, Selector,
};
use sila_abi::package::{LoadProof, PACKAGE_FORMAT, PACKAGE_MAGIC, Package, PackageHeader};
use sila_abi::policy::{Policy, PolicyRule};
use sila_abi::record::{Bounded, VersionRange};
use sila_abi::sif::{ABI_VERSION, Perm, RawSegment, SIF_MAGIC, SifHeader};
use sila_abi::trust::{
    Ceiling, Certificate, Purpose, Record, RecordKind, Revocation, RevokedItem, RootSet, RootSignature,
    SignatureSet, SignedRecord, TypeCeiling,
};
use sila_abi::verify_case::VerifyCase;
use sila_crypto::chain::{RootKeys, statement, verify_boot_manifest};
use sila_crypto::hash::{bulk_digest, id_digest};
use sila_crypto::scheme::Domain;
use sila_crypto::sign::SigningKey;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromZeros, IntoBytes};

use super::*;
use crate::keyring::KeyRing;

const PUBLISHER: &str = "test";
/// The request for an endpoint to send to; the others are the process's own.
pub const REQUEST_ENDPOINT: u64 = 3;

/// What was signed once for all tests.
pub struct Signed {
    pub image: Vec<u8>,
    pub proof: Vec<u8>,
    pub manifest: Manifest,
    pub revocation: Vec<u8>,
    boot: Vec<u8>,
    root: Vec<u8>,
    signatures: SignatureSet,
}

/// A valid signature over this message, as `TestVerify` takes it.
pub fn case(message: &[u8]) -> Vec<u8> {
    let key = SigningKey::from_seed(&[2; 32]);
    let signature = key.sign(Domain::Binary, message).unwrap();
    let (key, context) = (key.public_bytes(), Domain::Binary.context());
    let case = VerifyCase { algorithm: 1, key, context, message, signature: &signature };
    let parts = case.parts().concat();
    [case.header().unwrap().as_bytes(), &parts].concat()
}

/// See [`Signed`].
pub static SIGNED: LazyLock<Signed> = LazyLock::new(Signed::new);

impl Signed {
    fn new() -> Self {
        let (root_key, key) = (signer(ROOT), signer(OWNER));
        let root = root_set(1, &root_key).encode().unwrap();
        let boot = boot_manifest(&root, &key).encode().unwrap();
        let signatures = root_signatures(&root_key, Domain::Boot, &boot);
        let image = image();
        let manifest = manifest(&image, &key);
        let item = RevokedItem::Module {
            publisher: name(PUBLISHER),
            name: name("other"),
            versions: VersionRange { min: Version::MIN, max: Version::MIN },
        };
        let revocation = record(RecordKind::Revocation, &Revocation { sequence: 5, item }, &root_key, None);
        Signed { proof: proof(&manifest, &image, &key), manifest, image, revocation, boot, root, signatures }
    }

    /// The key ring of a system that trusts these keys.
    pub fn keyring(&self) -> KeyRing {
        let root = RootKeys::decode(&self.root).unwrap();
        let boot = verify_boot_manifest(&self.boot, &self.signatures, &root).unwrap();
        KeyRing::from_boot(&boot, root).unwrap()
    }
}

/// Seed of the root key.
pub const ROOT: u8 = 1;
/// Seed of the publisher's key.
pub const OWNER: u8 = 2;

/// The key that follows from a seed.
pub fn signer(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

/// A root set of one key.
pub fn root_set(sequence: u64, key: &SigningKey) -> RootSet {
    RootSet { sequence, purpose: Purpose::Test, threshold: 1, keys: bounded(vec![key.public_key()]) }
}

/// A record as it is installed, signed by the root key and, if it is a root set, by its own.
pub fn record<T: Record>(
    kind: RecordKind,
    record: &T,
    root: &SigningKey,
    own: Option<&SigningKey>,
) -> Vec<u8> {
    let encoded = record.encode().unwrap();
    let sign = |key| root_signatures(key, Domain::of(kind), &encoded);
    let (signatures, successor_signatures) = (sign(root), own.map(sign).unwrap_or_default());
    let signed = SignedRecord { kind, record: bounded(encoded.clone()), signatures, successor_signatures };
    signed.encode().unwrap()
}

/// Image and proof of the signed module with another manifest, by this key.
pub fn module(key: &SigningKey, change: impl FnOnce(&mut Manifest)) -> (Vec<u8>, Vec<u8>) {
    let image = image();
    let mut manifest = manifest(&image, key);
    change(&mut manifest);
    (image.clone(), proof(&manifest, &image, key))
}

pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub fn bounded<T: Clone, const N: usize>(items: Vec<T>) -> Bounded<T, N> {
    Bounded::from_vec(items).ok().unwrap()
}

fn root_signatures(key: &SigningKey, domain: Domain, encoded: &[u8]) -> SignatureSet {
    let message = statement::record(key.algorithm(), encoded);
    let bytes = bounded(key.sign(domain, message.as_bytes()).unwrap());
    SignatureSet { signatures: bounded(vec![RootSignature { key_index: 0, bytes }]) }
}

fn boot_manifest(root: &[u8], key: &SigningKey) -> BootManifest {
    BootManifest {
        format: BOOT_FORMAT,
        sequence: 1,
        purpose: Purpose::Test,
        root_set_digest: id_digest(root),
        policy: policy(1, key),
        certificates: bounded(vec![certificate(PUBLISHER, key, 1, &[])]),
        revocations: Bounded::default(),
        floors: Bounded::default(),
        objects: Bounded::default(),
        modules: Bounded::default(),
    }
}

/// A certificate that allows nearly all, within these prefixes.
pub fn certificate(publisher: &str, key: &SigningKey, sequence: u64, prefixes: &[&str]) -> Certificate {
    let types = (1..=30).map(|object| TypeCeiling { object, rights: Rights::all().bits() }).collect();
    Certificate {
        sequence,
        publisher: name(publisher),
        key: key.public_key(),
        purpose: Purpose::Test,
        prefixes: bounded(prefixes.iter().map(|p| name(p)).collect()),
        ceiling: Ceiling {
            types: bounded(types),
            frames: 1000,
            object_bytes: 1 << 20,
            max_priority: 200,
            agents: false,
        },
        versions: VersionRange { min: Version::MIN, max: Version { major: 9, minor: 9, patch: 9 } },
    }
}

/// A policy that allows nearly all.
pub fn policy(sequence: u64, key: &SigningKey) -> Policy {
    Policy {
        sequence,
        algorithms: bounded(vec![key.algorithm()]),
        min_nist_level: 5,
        min_key_bits: 4096,
        max_image_len: 1 << 20,
        max_window_log: 20,
        max_decompressions: 1,
        creation_burst: 1 << 20,
        creation_per_second: 1,
        max_verifications: 16,
        cache_frames: 100,
        cache_entries: 4,
        rules: bounded(vec![PolicyRule {
            name: name("all"),
            publisher: None,
            module: None,
            object: 0,
            rights: Rights::USE.bits(),
            amount: 1 << 20,
        }]),
        scopes: Bounded::default(),
    }
}

/// Code, constants, and data with zeros behind, so that every kind of segment is there.
fn image() -> Vec<u8> {
    let mut header = SifHeader::new_zeroed();
    let segments = [
        (0x40_0000, 4096, 4096, Perm::RX),
        (0x60_0000, 4096, 4096, Perm::R),
        (0x80_0000, 3 * 4096, 4096, Perm::RW),
    ];
    let mut image = vec![0; 4096];
    for (i, (vaddr, mem_len, file_len, perm)) in segments.into_iter().enumerate() {
        header.segments[i] = RawSegment {
            vaddr: U64::new(vaddr),
            mem_len: U64::new(mem_len),
            file_off: U64::new(image.len() as u64),
            file_len: U64::new(file_len),
            perm: U32::new(perm.bits()),
            reserved: U32::ZERO,
        };
        image.resize(image.len() + file_len as usize, i as u8 + 1);
    }
    header.magic = SIF_MAGIC;
    header.abi_version = U32::new(ABI_VERSION);
    header.seg_count = U32::new(segments.len() as u32);
    header.image_len = U64::new(image.len() as u64);
    header.entry = U64::new(0x40_0000);
    image[..4096].copy_from_slice(header.as_bytes());
    image
}

fn manifest(image: &[u8], key: &SigningKey) -> Manifest {
    let request = |slot, object: ObjectType, selector, rights: Rights| CapRequest {
        slot,
        object: object as u8,
        selector,
        rights: rights.bits(),
        badge: None,
        amount: 0,
        mandatory: true,
    };
    let requests = vec![
        request(1, ObjectType::Process, Selector::OwnProcess, Rights::READ | Rights::WRITE),
        request(2, ObjectType::Thread, Selector::OwnThread, Rights::READ),
        request(3, ObjectType::Pool, Selector::OwnPool, Rights::CREATE),
        request(8, ObjectType::Endpoint, Selector::Grant(name("server")), Rights::SEND),
    ];
    Manifest {
        format: MANIFEST_FORMAT,
        name: name("probe"),
        version: Version { major: 1, minor: 0, patch: 0 },
        security_version: 1,
        kind: ModuleKind::Service,
        publisher: name(PUBLISHER),
        key_id: key.id(),
        algorithm: key.algorithm(),
        image_digest: bulk_digest(image),
        image_len: image.len() as u64,
        payload_digest: bulk_digest(image),
        payload_len: image.len() as u64,
        codec: Codec::None,
        entry: 0x40_0000,
        stack_pages: 2,
        requests: bounded(requests),
        dependencies: Bounded::default(),
        flags: ManifestFlags::empty(),
        init_deadline_ms: 1,
        prepare_deadline_ms: 1,
        resources: Resources { frames: 64, object_bytes: 16 << 10, max_priority: 60, threads: 2 },
        service: None,
        contract: Contract {
            fault_entry: None,
            init_failure_codes: Bounded::default(),
            nodes: Bounded::default(),
            predicates: Bounded::default(),
        },
        state_schema: 1,
    }
}

fn proof(manifest: &Manifest, image: &[u8], key: &SigningKey) -> Vec<u8> {
    let encoded = manifest.encode().unwrap();
    let statement = statement::manifest(key.algorithm(), &key.id(), &encoded);
    let manifest_sig = key.sign(Domain::Manifest, statement.as_bytes()).unwrap();
    let binary_sig = key.sign(Domain::Binary, statement::binary(manifest).as_bytes()).unwrap();
    // The kernel never looks at the package's own signature.
    let package_sig = vec![0; binary_sig.len()];
    let total = size_of::<PackageHeader>() + encoded.len() + image.len() + 3 * binary_sig.len();
    let header = PackageHeader {
        magic: PACKAGE_MAGIC,
        format: U16::new(PACKAGE_FORMAT),
        algorithm: U16::new(key.algorithm()),
        manifest_len: U32::new(encoded.len() as u32),
        key_id: key.id(),
        payload_len: U64::new(image.len() as u64),
        total_len: U64::new(total as u64),
        sig_len: U32::new(binary_sig.len() as u32),
        reserved: [0; 60],
    };
    let bytes = [header.as_bytes(), &encoded, image, &package_sig, &manifest_sig, &binary_sig].concat();
    let proof = LoadProof::of_package(&Package::parse(&bytes).unwrap());
    let mut out = vec![0; proof.len()];
    proof.write(&mut out).unwrap();
    out
}
