//! Tests of what the chain makes of signature schemes: the algorithm is named in what is signed, so that none stands in
//! for another.

use super::description::ModuleDescription;
use super::keys::{KeySet, KeygenOptions, list, name};
use super::pack::{self, Parts};
use super::policy::default_policy;
use super::sif_build::{self, SegmentInput};
use super::verify::{Accepted, Refusal, verify_package};
use crate::paths::root;
use sila_abi::manifest::{Codec, Manifest};
use sila_abi::policy::Policy;
use sila_abi::sif::Perm;
use sila_abi::trust::{Certificate, Purpose, RecordKind};
use sila_crypto::chain::{ChainError, RootKeys, verify_certificate};
use sila_crypto::keystore::KeyStore;
use sila_crypto::scheme::{DILITHIUM5, ML_DSA_87};
use sila_crypto::sign::Signer;
use std::sync::LazyLock;

static KEYS: LazyLock<KeySet> = LazyLock::new(|| {
    let options = KeygenOptions {
        publisher: name("sila").unwrap(),
        purpose: Purpose::Test,
        roots: 1,
        threshold: 1,
        prefixes: Vec::new(),
    };
    KeySet::generate(&options).unwrap()
});

fn image() -> Vec<u8> {
    let code = SegmentInput { vaddr: 0x20_0000, mem_len: 64, perm: Perm::RX, data: vec![0x90; 64] };
    sif_build::build(0x20_0000, &[code]).unwrap()
}

fn description() -> ModuleDescription {
    ModuleDescription::load(&root().unwrap().join("modules/counter/sila.toml")).unwrap()
}

/// The module's manifest, as a key of this algorithm and id signs it.
fn manifest(algorithm: u16, id: [u8; 32]) -> Manifest {
    let made = pack::manifest(&description(), &image(), &image(), Codec::None, &KEYS.publisher).unwrap();
    Manifest { algorithm, key_id: id, ..made }
}

/// A package whose manifest says `inner` and whose header says `outer`, all of it signed by `key`.
fn package(key: &dyn Signer, inner: u16, outer: u16) -> Vec<u8> {
    let mut parts = Parts::sign(&manifest(inner, key.id()), &image(), key).unwrap();
    parts.algorithm = outer;
    parts.sign_manifest(key).unwrap();
    parts.sign_package(key).unwrap();
    parts.assemble().unwrap()
}

fn policy(algorithms: &[u16]) -> Policy {
    Policy { algorithms: list(algorithms.to_vec(), "algorithms").unwrap(), ..default_policy().unwrap() }
}

/// What a system with this policy, and this key as the publisher's, says about a package.
fn verdict(policy: Policy, key: &dyn Signer, package: &[u8]) -> Result<Accepted, Refusal> {
    let certificate = Certificate { key: key.public_key(), ..KEYS.publisher.certificate.clone() };
    let signed = KEYS.sign_record(RecordKind::Certificate, &certificate).unwrap();
    let root = RootKeys::decode(&KEYS.root_set_bytes).unwrap();
    let mut store = KeyStore::new(Purpose::Test, policy);
    store.add_certificate(verify_certificate(&signed, &root).unwrap()).unwrap();
    verify_package(package, &store)
}

fn refused(policy: Policy, key: &dyn Signer, package: &[u8]) -> Option<ChainError> {
    match verdict(policy, key, package).err()? {
        Refusal::Chain(error) => Some(error),
        other => panic!("{other}"),
    }
}

#[test]
fn a_key_of_one_algorithm_signs_nothing_that_names_another() {
    let key = &KEYS.publisher.key;
    let both = || policy(&[ML_DSA_87, DILITHIUM5]);
    assert_eq!(refused(both(), key, &package(key, ML_DSA_87, ML_DSA_87)), None);
    for (inner, outer) in [(DILITHIUM5, ML_DSA_87), (ML_DSA_87, DILITHIUM5), (DILITHIUM5, DILITHIUM5), (3, 3)]
    {
        let said = refused(both(), key, &package(key, inner, outer));
        assert_eq!(said, Some(ChainError::AlgorithmMismatch), "manifest {inner}, header {outer}");
    }
}

#[test]
fn policy_refuses_algorithms_that_it_does_not_list_or_that_are_too_weak_for_it() {
    let key = &KEYS.publisher.key;
    let good = package(key, ML_DSA_87, ML_DSA_87);
    let said = |policy| refused(policy, key, &good);
    let not_allowed = Some(ChainError::AlgorithmNotAllowed);
    assert_eq!(said(policy(&[DILITHIUM5])), not_allowed);
    // A key has 20,736 bits, a signature more.
    assert_eq!(said(Policy { min_key_bits: 20_736, ..policy(&[ML_DSA_87]) }), None);
    assert_eq!(said(Policy { min_key_bits: 20_737, ..policy(&[ML_DSA_87]) }), not_allowed);
    assert_eq!(said(Policy { min_nist_level: 6, ..policy(&[ML_DSA_87]) }), not_allowed);
}

#[test]
fn certificates_for_keys_of_unknown_algorithms_are_refused() {
    let root = RootKeys::decode(&KEYS.root_set_bytes).unwrap();
    for algorithm in [0, 3, u16::MAX] {
        let mut certificate = KEYS.publisher.certificate.clone();
        certificate.key.algorithm = algorithm;
        let signed = KEYS.sign_record(RecordKind::Certificate, &certificate).unwrap();
        let mut store = KeyStore::new(Purpose::Test, policy(&[ML_DSA_87]));
        let added = verify_certificate(&signed, &root).and_then(|c| store.add_certificate(c));
        assert_eq!(added, Err(ChainError::PublicKey), "{algorithm}");
    }
}

#[cfg(feature = "dilithium5")]
mod dilithium5 {
    use super::*;
    use sila_crypto::dilithium5::SigningKey;
    use sila_crypto::scheme::Domain;

    #[test]
    fn a_package_of_the_second_scheme_is_accepted_where_policy_lists_it() {
        let key = SigningKey::generate();
        let good = package(&key, DILITHIUM5, DILITHIUM5);
        let accepted = verdict(policy(&[ML_DSA_87, DILITHIUM5]), &key, &good).unwrap();
        assert_eq!((accepted.manifest.algorithm, accepted.image), (DILITHIUM5, image()));
        let said = refused(policy(&[ML_DSA_87]), &key, &good);
        assert_eq!(said, Some(ChainError::AlgorithmNotAllowed));
    }

    #[test]
    fn neither_scheme_passes_for_the_other() {
        let both = || policy(&[ML_DSA_87, DILITHIUM5]);
        let (second, first) = (SigningKey::generate(), &KEYS.publisher.key);
        for (inner, outer) in [(ML_DSA_87, DILITHIUM5), (DILITHIUM5, ML_DSA_87), (ML_DSA_87, ML_DSA_87)] {
            let said = refused(both(), &second, &package(&second, inner, outer));
            assert_eq!(said, Some(ChainError::AlgorithmMismatch), "manifest {inner}, header {outer}");
        }
        // The other scheme's signatures are as long as these.
        let mut parts = Parts::sign(&manifest(DILITHIUM5, second.id()), &image(), &second).unwrap();
        let statement = sila_crypto::chain::statement::manifest(DILITHIUM5, &second.id(), &parts.manifest);
        parts.manifest_sig = first.sign(Domain::Manifest, zerocopy::IntoBytes::as_bytes(&statement)).unwrap();
        let said = refused(both(), &second, &parts.assemble().unwrap());
        assert_eq!(said, Some(ChainError::ManifestSignature));
        // The same key bytes, certified for the other scheme, are another key.
        let mut certificate = KEYS.publisher.certificate.clone();
        certificate.key = second.public_key();
        certificate.key.algorithm = ML_DSA_87;
        let signed = KEYS.sign_record(RecordKind::Certificate, &certificate).unwrap();
        let root = RootKeys::decode(&KEYS.root_set_bytes).unwrap();
        let mut store = KeyStore::new(Purpose::Test, both());
        store.add_certificate(verify_certificate(&signed, &root).unwrap()).unwrap();
        let said = verify_package(&package(&second, DILITHIUM5, DILITHIUM5), &store).err();
        assert_eq!(said, Some(Refusal::Chain(ChainError::UnknownKey)));
    }

    #[test]
    fn flipped_bits_of_such_a_package_are_refused() {
        let key = SigningKey::generate();
        let good = package(&key, DILITHIUM5, DILITHIUM5);
        for bit in (0..good.len() * 8).step_by(911) {
            let mut flipped = good.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(refused(policy(&[DILITHIUM5]), &key, &flipped).is_some(), "bit {bit}");
        }
    }
}
