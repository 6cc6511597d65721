//! What is mutated: validly signed packages of different kinds, and the system that they are valid in.

use crate::pkg::keys::{KeySet, PublisherKey, list, name};
use crate::pkg::pack::{self, Parts, compress};
use crate::pkg::sif_build::{self, SegmentInput};
use crate::pkg::tamper::{self, OTHER};
use crate::pkg::tiny;
use anyhow::Result;
use sila_abi::contract::{Contract, Node, Operation, Predicate, When};
use sila_abi::manifest::{CapRequest, Codec, Dependency, Manifest, ModuleKind, Selector, ServiceDecl};
use sila_abi::object::ObjectType;
use sila_abi::record::{Name, Version, VersionRange};
use sila_abi::rights::Rights;
use sila_abi::sif::Perm;
use sila_crypto::keystore::KeyStore;

/// A validly signed package.
pub struct Sample {
    /// Its parts.
    pub parts: Parts,
    /// Its manifest.
    pub manifest: Manifest,
    /// Its image.
    pub image: Vec<u8>,
    /// Which of [`Corpus::publishers`] signed it.
    pub publisher: usize,
    /// The package.
    pub bytes: Vec<u8>,
    /// Its load proof.
    pub proof: Vec<u8>,
}

/// All of them.
pub struct Corpus {
    /// What the system knows.
    pub store: KeyStore,
    /// Who may sign: one for whatever it likes, one for little.
    pub publishers: Vec<PublisherKey>,
    /// Name, versions and floors that the system refuses of the first publisher's modules.
    pub samples: Vec<Sample>,
}

impl Corpus {
    /// Signs everything with these keys.
    pub fn new(keys: KeySet) -> Result<Self> {
        let store = tamper::test_system(&keys)?;
        let publishers = vec![keys.test_publisher(OTHER, &[OTHER])?, keys.publisher];
        let publishers: Vec<PublisherKey> = publishers.into_iter().rev().collect();
        let mut corpus = Self { store, publishers, samples: Vec::new() };
        let (small, large) = (tiny::image()?, large_image()?);
        corpus.add(0, "tiny", "1.0.0", &small, Codec::Zstd, |_| Ok(()))?;
        corpus.add(0, "tiny", "1.1.0", &small, Codec::Zstd, |m| {
            m.security_version = 2;
            Ok(())
        })?;
        corpus.add(0, "plain", "2.0.1", &small, Codec::None, |_| Ok(()))?;
        corpus.add(0, "rich", "0.3.0", &large, Codec::Zstd, enrich)?;
        corpus.add(1, "other-tiny", "1.0.0", &small, Codec::Zstd, |_| Ok(()))?;
        let model: Vec<u8> = (0..9_001u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 28) as u8).collect();
        corpus.add(0, "weights", "1.0.0", &model, Codec::Zstd, |m| {
            (m.kind, m.entry, m.stack_pages, m.resources.threads) = (ModuleKind::Model, 0, 0, 0);
            Ok(())
        })?;
        Ok(corpus)
    }

    fn add(
        &mut self,
        publisher: usize,
        module: &str,
        version: &str,
        image: &[u8],
        codec: Codec,
        change: impl FnOnce(&mut Manifest) -> Result<()>,
    ) -> Result<()> {
        let key = &self.publishers[publisher];
        let payload = if codec == Codec::None { image.to_vec() } else { compress(image)? };
        let mut manifest = tiny_manifest(module, version, key)?;
        describe(&mut manifest, image, &payload, codec);
        change(&mut manifest)?;
        let parts = Parts::sign(&manifest, &payload, &key.key)?;
        let (bytes, proof) = (parts.assemble()?, parts.proof()?);
        self.samples.push(Sample { parts, manifest, image: image.to_vec(), publisher, bytes, proof });
        Ok(())
    }
}

fn tiny_manifest(module: &str, version: &str, publisher: &PublisherKey) -> Result<Manifest> {
    let image = tiny::image()?;
    pack::manifest(&tiny::description(module, version)?, &image, &image, Codec::None, publisher)
}

/// Makes the manifest one of this image and payload; the entry is the image header's, whatever that says.
pub fn describe(manifest: &mut Manifest, image: &[u8], payload: &[u8], codec: Codec) {
    let entry = image.get(24..32).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
    if manifest.kind != ModuleKind::Model {
        manifest.entry = entry;
    }
    manifest.image_digest = sila_crypto::hash::bulk_digest(image);
    manifest.image_len = image.len() as u64;
    manifest.payload_digest = sila_crypto::hash::bulk_digest(payload);
    manifest.payload_len = payload.len() as u64;
    manifest.codec = codec;
}

/// An image with a segment of each kind.
fn large_image() -> Result<Vec<u8>> {
    let code: Vec<u8> = (0..9000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let segments = [
        SegmentInput { vaddr: 0x20_0000, mem_len: 100, perm: Perm::R, data: vec![1; 100] },
        SegmentInput { vaddr: 0x20_1000, mem_len: 9000, perm: Perm::RX, data: code },
        SegmentInput { vaddr: 0x20_4000, mem_len: 5000, perm: Perm::RW, data: vec![2; 10] },
        SegmentInput { vaddr: 0x20_6000, mem_len: 8192, perm: Perm::RW, data: vec![] },
    ];
    sif_build::build(0x20_1010, &segments)
}

/// Fills every list and option of a manifest.
fn enrich(manifest: &mut Manifest) -> Result<()> {
    let request = |slot, object: ObjectType, selector, rights: Rights| CapRequest {
        slot,
        object: object as u8,
        selector,
        rights: rights.bits(),
        badge: None,
        amount: 0,
        mandatory: true,
    };
    let granted = CapRequest {
        badge: Some(7),
        mandatory: false,
        ..request(9, ObjectType::Endpoint, Selector::Grant(name("peer")?), Rights::SEND | Rights::GRANT)
    };
    let requests = vec![
        request(1, ObjectType::Process, Selector::OwnProcess, Rights::READ | Rights::WRITE),
        request(2, ObjectType::Thread, Selector::OwnThread, Rights::READ),
        request(3, ObjectType::Pool, Selector::OwnPool, Rights::CREATE),
        granted,
    ];
    manifest.requests = list(requests, "requests")?;
    let versions = VersionRange { min: Version::new(1, 0, 0), max: Version::new(1, 9, 0) };
    let dependency =
        Dependency { publisher: name("sila")?, name: name("tiny")?, versions, export_digest: [0; 32] };
    manifest.dependencies = list(vec![dependency], "dependencies")?;
    manifest.service = Some(ServiceDecl { name: manifest.name, durable: true });
    manifest.contract = contract()?;
    Ok(())
}

fn contract() -> Result<Contract> {
    let fact: Name = name("frames-free")?;
    let nodes = vec![Node::Fact(fact), Node::Const(3), Node::Le(1, 0), Node::Not(2), Node::Or(2, 3)];
    let predicate =
        Predicate { name: name("room")?, operation: Operation::Create, when: When::Before, root: 4 };
    Ok(Contract {
        fault_entry: Some(0x20_1020),
        init_failure_codes: list(vec![1, 2], "codes")?,
        nodes: list(nodes, "nodes")?,
        predicates: list(vec![predicate], "predicates")?,
    })
}
