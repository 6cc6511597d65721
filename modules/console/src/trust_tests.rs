use super::*;
use sila_rt::sila_abi::Rights;
use sila_rt::sila_abi::boot::Floor;
use sila_rt::sila_abi::policy::{LoadScope, PolicyRule};
use sila_rt::sila_abi::record::Bounded;
use sila_rt::sila_abi::trust::{Ceiling, PublicKey, Purpose};

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn list<T, const N: usize>(items: Vec<T>) -> Bounded<T, N> {
    Bounded::from_vec(items).ok().unwrap()
}

fn key(publisher: &str, prefixes: &[&str], revoked: bool) -> CertifiedKey {
    let certificate = Certificate {
        sequence: 7,
        publisher: name(publisher),
        key: PublicKey { algorithm: 1, bytes: list(vec![1]) },
        purpose: Purpose::Test,
        prefixes: list(prefixes.iter().map(|prefix| name(prefix)).collect()),
        ceiling: Ceiling { types: list(vec![]), frames: 1, object_bytes: 1, max_priority: 1, agents: false },
        versions: VersionRange { min: Version::new(1, 0, 0), max: Version::new(2, 0, 0) },
    };
    CertifiedKey { id: [0xcd; 32], revoked, certificate }
}

fn ring() -> Ring {
    let state = KeyRingRecord {
        root_sequence: 3,
        root_keys: 5,
        threshold: 2,
        purpose: 1,
        key_room: 32,
        revocation_sequence: 9,
        ..KeyRingRecord::default()
    };
    let keys = vec![key("sila", &[], false), key("guest", &["guest", "net"], true)];
    Ring { state, keys, revocations: Vec::new(), floors: Vec::new() }
}

fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} not in:\n{text}");
    }
}

#[test]
fn keys_are_listed_with_what_they_may_sign_and_whether_they_are_good() {
    let shown = keys_text(&ring(), &[]);
    has(&shown, &["sila", "cdcdcdcdcdcdcdcd…", "ML-DSA-87", "test", "7", "1.0.0 to 2.0.0", "any", "valid"]);
    has(&shown, &["guest net", "revoked", "root set 3 (test): 2 of 5 keys sign; 2 of 32 publisher keys"]);
    assert!(!shown.contains("REVOKED") && !shown.contains("process"));
}

#[test]
fn revocations_and_what_runs_in_spite_of_them_are_named() {
    let mut ring = ring();
    let module = |versions| RevokedItem::Module { publisher: name("sila"), name: name("old"), versions };
    let one = VersionRange { min: Version::MAX, max: Version::MAX };
    ring.revocations = vec![RevokedItem::Key([0xab; 32]), module(VersionRange::ALL), module(one)];
    let affected = [1, 2, 3, 9].map(|why| Affected { process: 40 + why, why });
    let shown = keys_text(&ring, &affected);
    has(&shown, &["abababababababab…", "sila/old", "all\n", "65535.65535.65535", "last revocation: 9"]);
    has(
        &shown,
        &["process 41 runs on, though its key is revoked", "process 42", "below the floor", "process 49"],
    );
}

#[test]
fn floors_tell_where_they_come_from() {
    let mut ring = ring();
    assert_eq!(floors_text(&ring), "no module has a floor\n");
    let floor = |module| Floor { publisher: name("sila"), name: name(module), security_version: 12 };
    ring.floors = (0..6).map(|origin| (floor("counter"), origin)).collect();
    ring.state = KeyRingRecord { floor_sequence: 4, floors_imported: 2, floors_clipped: 1, ..ring.state };
    let shown = floors_text(&ring);
    has(
        &shown,
        &["counter", "12", "boot manifest", "finalised update", "signed record", "imported at boot", "?"],
    );
    has(&shown, &["last signed floor record: 4", "2 raised, 1 not taken whole"]);
}

pub(crate) fn policy() -> Policy {
    let rule = PolicyRule {
        name: name("pool"),
        publisher: Some(name("guest")),
        module: None,
        object: ObjectType::Pool as u8,
        rights: (Rights::READ | Rights::CREATE).bits(),
        amount: 64,
    };
    let scope = LoadScope {
        name: name("console"),
        badge: 1,
        names: Some(name("net")),
        agents: true,
        instances: 24,
        grants: false,
        all: true,
        priority: 65,
    };
    Policy {
        sequence: 77,
        algorithms: list(vec![1, 9]),
        min_nist_level: 5,
        min_key_bits: 4096,
        max_image_len: 64 << 20,
        max_window_log: 23,
        max_decompressions: 2,
        creation_burst: 31,
        creation_per_second: 16,
        max_verifications: 15,
        cache_frames: 4097,
        cache_entries: 33,
        rules: list(vec![rule, PolicyRule { object: 0, amount: u64::MAX, ..rule }]),
        scopes: list(vec![scope]),
    }
}

#[test]
fn a_policy_is_shown_with_limits_rules_and_scopes() {
    let policy = policy();
    let shown = policy_text(&policy);
    has(
        &shown,
        &[
            "77",
            "ML-DSA-87 scheme 9",
            "4096 bits",
            "64 MiB",
            "8 MiB",
            "31 at once, 16 a second",
            "4097 frames",
        ],
    );
    has(&shown, &["guest", "Pool", "64", "read create", "any"]);
    has(&shown, &["console", "net", "yes", "no", "24", "65"]);
    let none = Policy { rules: list(vec![]), scopes: list(vec![]), max_window_log: 200, ..policy };
    has(&policy_text(&none), &["no rule permits anything", "nobody may have modules loaded", "2^200 B"]);
}

#[test]
fn without_a_kernel_each_command_fails_with_its_own_sentence() {
    for (outcome, verb) in [(keys(), "keys: "), (floors(), "floors: "), (super::policy(), "policy: ")] {
        let error = outcome.unwrap_err();
        assert!(error.starts_with(verb) && error.contains("the kernel"), "{error}");
    }
}
