//! Release systems: what of a test system has no place in one, and how records come into a boot bundle.

use super::bundle::{BundleDescription, BundleInput, build};
use super::keys::{KeySet, PublisherKey};
use super::tests::{KEYS, description, elf, image, options};
use super::trust::Trust;
use super::verify::verify_package;
use super::{bundle_records, pack};
use crate::paths::{Scratch, root};
use anyhow::Result;
use sila_abi::boot::{BootManifest, Bundle, EntryKind};
use sila_abi::trust::{FloorRecord, Purpose, Record, RecordKind, Revocation, RevokedItem, SignatureSet};
use sila_crypto::chain::{KeySource, RootKeys};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::LazyLock;

static RELEASE: LazyLock<KeySet> = LazyLock::new(|| KeySet::generate(&options(Purpose::Release)).unwrap());

/// A bundle of a small ELF file for every program.
fn bundle(keys: &KeySet, text: &str, packages: &[PathBuf], records: &[PathBuf]) -> Result<Vec<u8>> {
    let scratch = Scratch::new()?;
    let file = scratch.join("program");
    let code = [0x90; 50];
    std::fs::write(&file, elf(0x20_1000, &[(1, 5, 0x20_1000, &code, 50)]))?;
    let programs: BTreeMap<_, _> =
        crate::bare::PROGRAMS.iter().map(|name| (name.to_string(), file.clone())).collect();
    let root = root()?;
    let mut description = BundleDescription::load(&root.join("boot/bundle.toml"))?;
    let more: BundleDescription = toml::from_str(&format!("sequence = 1\n{text}"))?;
    description.objects.extend(more.objects);
    build(&BundleInput {
        root: &root,
        description: &description,
        programs: &programs,
        packages,
        records,
        test_data: &[],
        keys,
    })
}

fn said<T>(result: Result<T>) -> String {
    result.map_or_else(|error| format!("{error:#}"), |_| "accepted".into())
}

/// Writes a package of counter by this publisher.
fn package(scratch: &Scratch, publisher: &PublisherKey) -> PathBuf {
    let path = scratch.join("p.sila");
    let mut description = description();
    description.module.name = format!("{}.counter", publisher.certificate.publisher);
    if let Some(service) = &mut description.service {
        service.name = description.module.name.clone();
    }
    std::fs::write(&path, pack::pack(&description, &image(), publisher).unwrap()).unwrap();
    path
}

/// Writes a record signed by `keys`.
fn record<T: Record>(scratch: &Scratch, keys: &KeySet, kind: RecordKind, record: &T, name: &str) -> PathBuf {
    let path = scratch.join(name);
    std::fs::write(&path, keys.sign_record(kind, record).unwrap().encode().unwrap()).unwrap();
    path
}

const TEST_CONTROL: &str = "[[object]]\nname = \"test\"\nkind = \"test-control\"\n";

#[test]
fn the_keys_purpose_decides_what_a_system_is() {
    for (keys, purpose) in [(&*KEYS, Purpose::Test), (&*RELEASE, Purpose::Release)] {
        let bytes = bundle(keys, "", &[], &[]).unwrap();
        assert_eq!(super::bundle::purpose_of(&bytes).unwrap(), purpose);
    }
}

#[test]
fn test_control_exists_under_test_keys_only() {
    assert_eq!(said(bundle(&KEYS, TEST_CONTROL, &[], &[])), "accepted");
    let refused = said(bundle(&RELEASE, TEST_CONTROL, &[], &[]));
    assert!(refused.contains("a test object in a release system"), "{refused}");
}

#[test]
fn a_test_keys_package_is_refused_for_a_release_image_and_by_its_verify() {
    let scratch = Scratch::new().unwrap();
    let path = package(&scratch, &KEYS.publisher);
    assert_eq!(said(bundle(&KEYS, "", std::slice::from_ref(&path), &[])), "accepted");
    let refused = said(bundle(&RELEASE, "", std::slice::from_ref(&path), &[]));
    assert!(refused.contains("release system would refuse it"), "{refused}");
    RELEASE.save(&scratch.join("release")).unwrap();
    let trust = Trust::load(&scratch.join("release")).unwrap();
    let refusal = verify_package(&std::fs::read(&path).unwrap(), &trust.store).err().unwrap();
    assert_eq!(refusal.name(), "UnknownKey");
    let own = package(&scratch, &RELEASE.publisher);
    assert_eq!(said(bundle(&RELEASE, "", &[own], &[])), "accepted");
}

#[test]
fn a_test_certificate_under_a_release_root_gives_nothing() {
    let scratch = Scratch::new().unwrap();
    let certificate = &KEYS.publisher.certificate;
    let path = record(&scratch, &RELEASE, RecordKind::Certificate, certificate, "test.cert");
    let refused = said(bundle(&RELEASE, "", &[], &[path]));
    assert!(refused.contains("another purpose"), "{refused}");
}

#[test]
fn records_become_part_of_the_boot_manifest() {
    let scratch = Scratch::new().unwrap();
    let acme = KEYS.test_publisher("acme", &["acme"]).unwrap();
    let (publisher, name) = super::ceremony::parse_module("acme/acme.counter").unwrap();
    let floor = super::ceremony::parse_floor("acme/acme.counter=3").unwrap();
    let floors = FloorRecord { sequence: 1, floors: super::keys::list(vec![floor], "floors").unwrap() };
    let versions = super::ceremony::parse_versions("1.0.0..2.0.0").unwrap();
    let item = RevokedItem::Module { publisher, name, versions };
    let mut policy = super::policy::default_policy().unwrap();
    policy.sequence = 2;
    policy.max_verifications = 5;
    let files = [
        record(&scratch, &KEYS, RecordKind::Certificate, &acme.certificate, "a.cert"),
        record(&scratch, &KEYS, RecordKind::Floors, &floors, "a.floors"),
        record(&scratch, &KEYS, RecordKind::Revocation, &Revocation { sequence: 1, item }, "a.revocation"),
        record(&scratch, &KEYS, RecordKind::Policy, &policy, "a.policy"),
    ];
    let bytes = bundle(&KEYS, "", &[], &files).unwrap();
    let parsed = Bundle::parse(&bytes).unwrap();
    let encoded = parsed.first(EntryKind::BootManifest).unwrap().data;
    let boot = BootManifest::decode(encoded).unwrap();
    assert_eq!(boot.policy, policy);
    let signatures = SignatureSet::decode(parsed.first(EntryKind::BootSignature).unwrap().data).unwrap();
    let root = RootKeys::decode(&KEYS.root_set_bytes).unwrap();
    let store = bundle_records::store_of_boot(encoded, &signatures, &root).unwrap();
    assert!(store.publisher(&acme.key.id()).is_some());
    assert_eq!(store.floor(&publisher, &name), 3);
    assert_eq!(boot.revocations.len(), 1);
}

#[test]
fn an_unsigned_floor_record_lies_beside_the_manifest_and_changes_nothing_in_it() {
    let scratch = Scratch::new().unwrap();
    let floor = super::ceremony::parse_floor("sila/counter=9").unwrap();
    let record = FloorRecord { sequence: 1, floors: super::keys::list(vec![floor], "floors").unwrap() };
    let path = scratch.join("x.floors");
    super::ceremony::export_floors(&record, &path).unwrap();
    let bytes = bundle(&KEYS, "", &[], std::slice::from_ref(&path)).unwrap();
    let parsed = Bundle::parse(&bytes).unwrap();
    let entry = parsed.first(EntryKind::FloorRecord).unwrap();
    assert_eq!(FloorRecord::decode(entry.data).unwrap(), record);
    let boot = BootManifest::decode(parsed.first(EntryKind::BootManifest).unwrap().data).unwrap();
    assert!(boot.floors.is_empty());
    let twice = said(bundle(&KEYS, "", &[], &[path.clone(), path]));
    assert!(twice.contains("one unsigned floor record only"), "{twice}");
}

#[test]
fn records_that_do_not_fit_the_bundle_are_named() {
    let scratch = Scratch::new().unwrap();
    let refused = |path: PathBuf, part: &str| {
        let text = said(bundle(&KEYS, "", &[], &[path]));
        assert!(text.contains(part), "{text}");
    };
    let own = &KEYS.publisher.certificate;
    refused(record(&scratch, &KEYS, RecordKind::Certificate, own, "own.cert"), "has certificate 1 already");
    let acme = KEYS.test_publisher("acme", &["acme"]).unwrap();
    refused(
        record(&scratch, &RELEASE, RecordKind::Certificate, &acme.certificate, "foreign.cert"),
        "is refused",
    );
    let policy = super::policy::default_policy().unwrap();
    refused(record(&scratch, &KEYS, RecordKind::Policy, &policy, "old.policy"), "not above 1");
    let mut set = KEYS.root_set.clone();
    set.sequence = 2;
    let mut signed = KEYS.sign_record(RecordKind::RootSet, &set).unwrap();
    signed.successor_signatures = signed.signatures.clone();
    let path = scratch.join("2.rootset");
    std::fs::write(&path, signed.encode().unwrap()).unwrap();
    refused(path, "sign it with the new keys");
    let greedy = KEYS.test_publisher("greedy", &[]).unwrap();
    refused(record(&scratch, &KEYS, RecordKind::Certificate, &greedy.certificate, "greedy.cert"), "overlaps");
}
