//! Tests of the fuzzer: it runs, the same seed does the same, and it finds what it is for.

use super::*;
use crate::pkg::keys::{KeySet, KeygenOptions, name};
use sila_abi::manifest::MANIFEST_MAX;
use sila_abi::record::decode_canonical;
use sila_abi::trust::Purpose;
use sila_crypto::chain::{self, ChainError};
use std::sync::LazyLock;

static CORPUS: LazyLock<Corpus> = LazyLock::new(|| {
    let options = KeygenOptions {
        publisher: name("sila").unwrap(),
        purpose: Purpose::Test,
        roots: 1,
        threshold: 1,
        prefixes: Vec::new(),
    };
    Corpus::new(KeySet::generate(&options).unwrap()).unwrap()
});

#[test]
fn the_oracle_has_nothing_against_the_originals() {
    for sample in &CORPUS.samples {
        assert_eq!(oracle::acceptable(&sample.bytes, &CORPUS), Ok(()), "{}", sample.manifest.name);
        assert!(verify_package(&sample.bytes, &CORPUS.store).is_ok(), "{}", sample.manifest.name);
    }
}

#[test]
fn a_seed_finds_nothing_meets_every_step_and_does_the_same_again() {
    let tally = fuzz(&CORPUS, REAL, 1, 0..20_000);
    assert_eq!(tally.findings, BTreeMap::new());
    for step in ["manifest", "image", "payload", "package", "proof", "chain"] {
        let of = |answer: &&String| answer.starts_with(step);
        assert!(tally.answers.keys().filter(of).count() >= 5, "{step}: {:?}", tally.answers);
    }
    let text = tally.text(1, 1.0);
    assert!(text.contains("rightly signed, accepted") && text.contains("20000 runs"), "{text}");
    let part = fuzz(&CORPUS, REAL, 1, 0..500);
    assert_eq!(part, fuzz(&CORPUS, REAL, 1, 0..500));
    assert_ne!(part, fuzz(&CORPUS, REAL, 2, 0..500));
}

/// What a broken target makes the fuzzer find.
fn found(target: Target, what: &str) {
    let tally = fuzz(&CORPUS, target, 1, 0..20_000);
    assert!(tally.findings.values().any(|finding| finding.contains(what)), "{what}: {:?}", tally.findings);
}

fn without_binary_signature(bytes: &[u8], store: &KeyStore) -> Result<Accepted, Refusal> {
    match verify_package(bytes, store) {
        Err(Refusal::Chain(ChainError::BinarySignature)) => {
            let package = chain::verify_package(bytes, store)?;
            let manifest = chain::verify_manifest(&LoadProof::of_package(&package), store)?;
            Ok(Accepted { manifest, image: Vec::new() })
        }
        other => other,
    }
}

/// Whatever the chain says against the manifest's content or the image is let through.
fn without_rules(bytes: &[u8], store: &KeyStore) -> Result<Accepted, Refusal> {
    match verify_package(bytes, store) {
        Err(Refusal::Chain(ChainError::PayloadDigest | ChainError::ImageDigest | ChainError::Image(_))) => {
            let package = chain::verify_package(bytes, store)?;
            let manifest = chain::verify_manifest(&LoadProof::of_package(&package), store)?;
            Ok(Accepted { manifest, image: Vec::new() })
        }
        other => other,
    }
}

#[test]
fn a_chain_that_forgets_a_check_is_found() {
    found(Target { chain: without_binary_signature, ..REAL }, "what nobody signed is accepted");
    found(Target { chain: without_rules, ..REAL }, "accepted against the rule on: digest");
    found(Target { chain: |_, _| Err(Refusal::Padding), ..REAL }, "an original is refused");
}

#[test]
fn a_step_that_forgets_a_rule_or_panics_is_found() {
    let unchecked = |bytes: &[u8]| Ok(decode_canonical::<Manifest>(bytes, MANIFEST_MAX)?);
    found(Target { manifest: unchecked, ..REAL }, "manifest");
    let lax = |page: &[u8], length| match (REAL.image)(page, length) {
        Err(SifError::EntryOutsideCode) => Ok(()),
        other => other,
    };
    found(Target { image: lax, ..REAL }, "image: accepted against the rule on: entry");
    let forgiving = |frame: &[u8], out: &mut [u8]| match (REAL.payload)(frame, out) {
        Err(DecompressError::ChecksumMismatch) => Ok(()),
        other => other,
    };
    found(Target { payload: forgiving, ..REAL }, "payload: accepted against the rule on: checksum");
    let fragile = |frame: &[u8], out: &mut [u8]| match (REAL.payload)(frame, out) {
        Err(DecompressError::Corrupt) => panic!("a corrupt frame"),
        other => other,
    };
    found(Target { payload: fragile, ..REAL }, "panic: a corrupt frame");
}
