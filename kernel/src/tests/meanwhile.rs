//! Loads whose authority changes when all of it is verified, and nothing done yet: the last step reads it again.

use std::vec::Vec;

use sila_abi::boot::Floor;
use sila_abi::policy::Policy;
use sila_abi::record::VersionRange;
use sila_abi::trust::{FloorRecord, RecordKind, Revocation, RevokedItem};

use super::failing::scenes::KEYS;
use super::signed::{OWNER, bounded, module, name, policy, signer};
use super::trust::{POLICY, Trust, revoke_key, signed};
use super::*;

/// The error of a load that finds another KeyRing once it is verified.
fn load_between(t: &mut Trust, (image, proof): &(Vec<u8>, Vec<u8>), other: &mut Trust) -> Error {
    t.begin_create(image, proof);
    t.w.k.schedule(&mut t.w.m);
    t.w.m.run_verification();
    core::mem::swap(&mut t.w.k.keyring, &mut other.w.k.keyring);
    t.w.k.enter(&mut t.w.m, Entry::VerificationDone);
    let error = t.w.outcome(t.a).status().unwrap_err();
    t.forget_parts();
    error
}

#[test]
fn what_changes_between_verification_and_last_step_counts() {
    let owner = signer(OWNER);
    let good = module(&owner, |_| {});
    let version = Version { major: 1, minor: 0, patch: 0 };
    let versions = VersionRange { min: version, max: version };
    let item = RevokedItem::Module { publisher: name("test"), name: name("probe"), versions };
    let floors =
        || bounded(vec![Floor { publisher: name("test"), name: name("probe"), security_version: 9 }]);
    let policy = Policy { rules: bounded(Vec::new()), ..policy(2, &owner) };
    let changes = [
        (KEYS, signed(RecordKind::Floors, &FloorRecord { sequence: 1, floors: floors() }), Error::BelowFloor),
        (KEYS, signed(RecordKind::Revocation, &Revocation { sequence: 1, item }), Error::VersionRevoked),
        (KEYS, revoke_key(1, &owner), Error::KeyRevoked),
        (POLICY, signed(RecordKind::Policy, &policy), Error::RequestPolicy),
    ];
    for (slot, record, want) in changes {
        let (mut t, mut other) = (Trust::new(), Trust::new());
        let op = if slot == KEYS { Op::KeyRingInstall } else { Op::PolicyInstall };
        other.install_by(slot, op, &record).unwrap();
        t.load(&good).unwrap();
        let before = t.w.baseline();
        assert_eq!(load_between(&mut t, &good, &mut other), want);
        assert_eq!(t.w.baseline(), before, "{want:?}");
    }
}
