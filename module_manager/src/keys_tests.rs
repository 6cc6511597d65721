use super::*;
use sila_abi::boot::Floor;
use sila_abi::record::{Bounded, VersionRange};
use sila_abi::trust::{Ceiling, PublicKey};
use sila_crypto::hash::key_id;
use sila_crypto::scheme::ML_DSA_87;
use sila_crypto::sign::SigningKey;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn list<T, const N: usize>(items: Vec<T>) -> Bounded<T, N> {
    Bounded::from_vec(items).ok().unwrap()
}

fn key(seed: u8, publisher: &str, prefixes: &[&str]) -> CertifiedKey {
    let key = SigningKey::from_seed(&[seed; 32]).public_key();
    certified(key, publisher, prefixes)
}

fn certified(key: PublicKey, publisher: &str, prefixes: &[&str]) -> CertifiedKey {
    let ceiling = Ceiling { types: list(vec![]), frames: 1, object_bytes: 1, max_priority: 1, agents: false };
    let id = key_id(key.algorithm, &key.bytes);
    let certificate = Certificate {
        sequence: 1,
        publisher: name(publisher),
        key,
        purpose: Purpose::Test,
        prefixes: list(prefixes.iter().map(|prefix| name(prefix)).collect()),
        ceiling,
        versions: VersionRange::ALL,
    };
    CertifiedKey { id, revoked: false, certificate }
}

pub(crate) fn policy() -> Policy {
    Policy {
        sequence: 1,
        algorithms: list(vec![ML_DSA_87]),
        min_nist_level: 5,
        min_key_bits: 4096,
        max_image_len: 4711,
        max_window_log: 23,
        max_decompressions: 2,
        creation_burst: 1,
        creation_per_second: 1,
        max_verifications: 1,
        cache_frames: 0,
        cache_entries: 0,
        rules: list(vec![]),
        scopes: list(vec![]),
    }
}

fn ring(keys: Vec<CertifiedKey>) -> Ring {
    let state = KeyRingRecord { changes: 1, purpose: 1, ..KeyRingRecord::default() };
    Ring { state, keys, revocations: Vec::new(), floors: Vec::new() }
}

#[test]
fn a_key_is_used_once_it_is_prepared_and_only_if_the_ring_has_it() {
    let (known, other) = (key(1, "pub", &["pub"]), key(2, "other", &["other"]));
    let mut keys = Keys::new(ring(vec![known.clone()]), policy());
    keys.prepare(&other.id).unwrap();
    let publisher = keys.publisher(&known.id).unwrap();
    assert_eq!((publisher.key.id(), publisher.certificate.publisher), (&known.id, name("pub")));
    assert!(keys.publisher(&other.id).is_none());
    assert_eq!(keys.is_key_revoked(&other.id), Ok(true), "what nobody knows is worth nothing");
    // A newly certified publisher is known from the next look on; one that is gone is not.
    assert!(!keys.are_current(&KeyRingRecord { changes: 2, ..KeyRingRecord::default() }));
    keys.refresh(ring(vec![other.clone()]), policy());
    assert!(keys.publisher(&known.id).is_none() && keys.publisher(&other.id).is_none());
    keys.prepare(&other.id).unwrap();
    assert!(keys.publisher(&other.id).is_some());
}

#[test]
fn revocations_hold_by_the_key_s_flag_or_by_the_list() {
    let known = key(1, "pub", &[]);
    let keys = Keys::new(ring(vec![known.clone()]), policy());
    assert_eq!(keys.is_key_revoked(&known.id), Ok(false));
    let flagged = Keys::new(ring(vec![CertifiedKey { revoked: true, ..known.clone() }]), policy());
    assert_eq!(flagged.is_key_revoked(&known.id), Ok(true));
    let mut listed = ring(vec![known.clone()]);
    let versions = VersionRange { min: Version::MIN, max: Version::new(1, 0, 0) };
    let module = RevokedItem::Module { publisher: name("pub"), name: name("a"), versions };
    listed.revocations = vec![RevokedItem::Key(known.id), module];
    let listed = Keys::new(listed, policy());
    assert_eq!(listed.is_key_revoked(&known.id), Ok(true));
    assert!(listed.is_version_revoked(&name("pub"), &name("a"), Version::new(1, 0, 0)));
    assert!(!listed.is_version_revoked(&name("pub"), &name("a"), Version::new(1, 0, 1)));
    assert!(!listed.is_version_revoked(&name("other"), &name("a"), Version::MIN));
}

#[test]
fn namespaces_floors_and_limits_are_the_ring_s_and_the_policy_s() {
    let mut both = ring(vec![key(1, "pub", &[]), key(2, "other", &["net"])]);
    let floor = Floor { publisher: name("pub"), name: name("a"), security_version: 7 };
    both.floors = vec![(floor, 1)];
    let keys = Keys::new(both, policy());
    assert!(keys.is_claimed_by_another(&name("pub"), &name("net.dns")));
    assert!(!keys.is_claimed_by_another(&name("other"), &name("net.dns")));
    assert!(!keys.is_claimed_by_another(&name("other"), &name("a")), "who has no prefixes claims nothing");
    assert_eq!(keys.floor(&name("pub"), &name("a")), 7);
    assert_eq!(keys.floor(&name("pub"), &name("b")) + keys.floor(&name("other"), &name("a")), 0);
    assert_eq!((keys.max_image_len(), keys.purpose()), (4711, Purpose::Test));
    assert!(keys.allows_algorithm(ML_DSA_87) && !keys.allows_algorithm(2));
    let strict = Keys::new(ring(vec![]), Policy { min_key_bits: u32::MAX, ..policy() });
    assert!(!strict.allows_algorithm(ML_DSA_87));
    let odd = Ring { state: KeyRingRecord { purpose: 9, ..KeyRingRecord::default() }, ..ring(vec![]) };
    assert_eq!(Keys::new(odd, policy()).purpose(), Purpose::Release);
}

#[test]
fn decoded_keys_are_bounded_and_the_one_in_use_is_never_given_up() {
    let all: Vec<_> = (0..MAX_DECODED as u8 + 2).map(|seed| key(seed, "pub", &[])).collect();
    let mut keys = Keys::new(ring(all.clone()), policy());
    assert_eq!(keys.decoded.len(), MAX_DECODED);
    for one in &all {
        keys.prepare(&all[0].id).unwrap();
        keys.prepare(&one.id).unwrap();
        assert!(keys.publisher(&one.id).is_some());
        assert!(keys.decoded.len() <= MAX_DECODED);
    }
    assert!(keys.publisher(&all[0].id).is_some(), "it was used again and again");
    assert!(keys.publisher(&all[1].id).is_none());
}

#[test]
fn a_key_that_cannot_be_decoded_is_an_error_of_its_own() {
    let broken = PublicKey { algorithm: ML_DSA_87, bytes: list(vec![1; 10]) };
    let broken = certified(broken, "pub", &[]);
    let mut keys = Keys::new(ring(vec![broken.clone()]), policy());
    assert_eq!(keys.prepare(&broken.id), Err(ChainError::PublicKey));
}
