//! Every single-bit flip of a complete small package is refused by the whole chain, and so are those of what the kernel
//! alone sees: the load proof and the sealed image.

use super::keys::{KeySet, KeygenOptions, name};
use super::pack::Parts;
use super::tiny;
use super::verify::{Refusal, store_of, verify_package};
use sila_abi::package::{LoadProof, PACKAGE_HEADER_LEN, PROOF_HEADER_LEN};
use sila_abi::trust::Purpose;
use sila_crypto::chain::{self, ChainError, RootKeys};
use sila_crypto::hash::{BulkHasher, bulk_digest};
use sila_crypto::keystore::KeyStore;
use std::sync::LazyLock;

struct Small {
    store: KeyStore,
    parts: Parts,
    image: Vec<u8>,
}

static SMALL: LazyLock<Small> = LazyLock::new(|| {
    let options = KeygenOptions {
        publisher: name("sila").unwrap(),
        purpose: Purpose::Test,
        roots: 1,
        threshold: 1,
        prefixes: Vec::new(),
    };
    let keys = KeySet::generate(&options).unwrap();
    let root = RootKeys::decode(&keys.root_set_bytes).unwrap();
    let store = store_of(&root, &keys.signed_certificate).unwrap();
    let parts = tiny::parts("tiny", "1.0.0", &keys.publisher).unwrap();
    Small { store, parts, image: tiny::image().unwrap() }
});

/// Calls `check` with each single-bit flip of `bytes`, on every core. `check` gets the byte's place, too.
fn flip_all(bytes: &[u8], check: impl Fn(usize, &[u8]) + Sync) {
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (mut flipped, check) = (bytes.to_vec(), &check);
            scope.spawn(move || {
                for bit in (thread..bytes.len() * 8).step_by(threads) {
                    flipped[bit / 8] ^= 1 << (bit % 8);
                    check(bit / 8, &flipped);
                    flipped[bit / 8] ^= 1 << (bit % 8);
                }
            });
        }
    });
}

/// The part of a file at this place, by the parts' lengths.
fn part_at(place: usize, parts: &[(&'static str, usize)]) -> &'static str {
    let mut end = 0;
    for (name, length) in parts {
        end += length;
        if place < end {
            return name;
        }
    }
    panic!("byte {place} lies beyond the last part")
}

#[test]
fn every_single_bit_flip_of_a_package_is_refused() {
    let Small { store, parts, .. } = &*SMALL;
    let bytes = parts.assemble().unwrap();
    assert!(verify_package(&bytes, store).is_ok());
    let layout = [
        ("header", PACKAGE_HEADER_LEN),
        ("content", parts.manifest.len() + parts.payload.len()),
        ("package signature", parts.package_sig.len()),
        ("manifest signature", parts.manifest_sig.len()),
        ("binary signature", parts.binary_sig.len()),
    ];
    assert_eq!(layout.iter().map(|part| part.1).sum::<usize>(), bytes.len());
    flip_all(&bytes, |place, flipped| {
        let part = part_at(place, &layout);
        let refusal = verify_package(flipped, store).err();
        let right = match (part, &refusal) {
            ("header", Some(Refusal::Chain(error))) => matches!(
                error,
                ChainError::Package(_)
                    | ChainError::AlgorithmMismatch
                    | ChainError::UnknownKey
                    | ChainError::PackageSignature
            ),
            ("content" | "package signature", Some(Refusal::Chain(ChainError::PackageSignature))) => true,
            ("manifest signature", Some(Refusal::Chain(ChainError::ManifestSignature))) => true,
            ("binary signature", Some(Refusal::Chain(ChainError::BinarySignature))) => true,
            _ => false,
        };
        assert!(right, "a bit of byte {place}, {part}: {refusal:?}");
    });
}

/// What the kernel does with a proof and an image.
fn kernel(proof: &[u8], image: &[u8], store: &KeyStore) -> Result<(), ChainError> {
    let proof = LoadProof::parse(proof).map_err(ChainError::Proof)?;
    let manifest = chain::verify_manifest(&proof, store)?;
    let digest = bulk_digest(image);
    let binary = chain::verify_binary(&manifest, image.len() as u64, &digest, proof.binary_sig, store)?;
    chain::verify_image_header(&manifest, &binary, &image[..4096]).map(|_| ())
}

/// Of the signatures, which the test above flips bit by bit, every fourth byte.
#[test]
fn single_bit_flips_of_a_load_proof_are_refused() {
    let Small { store, parts, image } = &*SMALL;
    let bytes = parts.proof().unwrap();
    assert_eq!(kernel(&bytes, image, store), Ok(()));
    let layout = [
        ("header", PROOF_HEADER_LEN),
        ("manifest", parts.manifest.len()),
        ("manifest signature", parts.manifest_sig.len()),
        ("binary signature", parts.binary_sig.len()),
    ];
    assert_eq!(layout.iter().map(|part| part.1).sum::<usize>(), bytes.len());
    flip_all(&bytes, |place, flipped| {
        let part = part_at(place, &layout);
        if part.contains("signature") && !place.is_multiple_of(4) {
            return;
        }
        let refusal = kernel(flipped, image, store).err();
        let right = match part {
            "header" => matches!(
                refusal,
                Some(ChainError::Proof(_) | ChainError::AlgorithmMismatch | ChainError::UnknownKey)
            ),
            "binary signature" => refusal == Some(ChainError::BinarySignature),
            _ => refusal == Some(ChainError::ManifestSignature),
        };
        assert!(right, "a bit of byte {place}, {part}: {refusal:?}");
    });
}

/// By the digest, which is why only this step runs for each of them.
#[test]
fn every_single_bit_flip_of_an_image_is_refused() {
    let Small { store, parts, image } = &*SMALL;
    let proof = parts.proof().unwrap();
    let proof = LoadProof::parse(&proof).unwrap();
    let manifest = chain::verify_manifest(&proof, store).unwrap();
    flip_all(image, |place, flipped| {
        let mut hasher = BulkHasher::new();
        flipped.chunks(4096).for_each(|page| hasher.update(page));
        let (length, digest) = (flipped.len() as u64, hasher.finalize());
        let refusal = chain::verify_binary(&manifest, length, &digest, proof.binary_sig, store).err();
        assert_eq!(refusal, Some(ChainError::ImageDigest), "a bit of byte {place}");
    });
}
