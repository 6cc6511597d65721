//! Tests of keys, packing, checking and bundles. Test systems are made once: keys cost time.

use super::bundle::{BundleDescription, BundleInput, added_package, build, layout, manifest_of, purpose_of};
use super::description::ModuleDescription;
use super::grants::Yardstick;
use super::inspect::View;
use super::keys::{KeySet, KeygenOptions, keygen, name, test_keys};
use super::sif_build::{self, SegmentInput};
use super::verify::{Refusal, verify_package};
use super::{inspect, pack, tamper};
use crate::paths::{Scratch, root};
use proptest::prelude::*;
use sila_abi::boot::{BootObjectKind, Bundle, EntryKind};
use sila_abi::device::PciDevice;
use sila_abi::manifest::{Codec, Manifest};
use sila_abi::package::{LoadProof, Package, PackageError};
use sila_abi::sif::{PAGE_SIZE, Perm};
use sila_abi::trust::{Purpose, Record, RecordKind, RootSet, SignatureSet};
use sila_crypto::chain::{
    self, ChainError, RootKeys, check_boot_image, verify_boot_manifest, verify_boot_module,
    verify_certificate, verify_revocation,
};
use sila_crypto::hash::bulk_digest;
use sila_crypto::keystore::KeyStore;
use sila_crypto::scheme::Domain;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::sync::LazyLock;

pub(super) static KEYS: LazyLock<KeySet> =
    LazyLock::new(|| KeySet::generate(&options(Purpose::Test)).unwrap());
static STORE: LazyLock<KeyStore> = LazyLock::new(|| tamper::test_system(&KEYS).unwrap());
static PACKAGE: LazyLock<Vec<u8>> =
    LazyLock::new(|| pack::pack(&description(), &image(), &KEYS.publisher).unwrap());

pub(super) fn options(purpose: Purpose) -> KeygenOptions {
    KeygenOptions { publisher: name("sila").unwrap(), purpose, roots: 3, threshold: 2, prefixes: Vec::new() }
}

fn segments() -> Vec<SegmentInput> {
    let code: Vec<u8> = (0..9000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    vec![
        SegmentInput { vaddr: 0x20_0000, mem_len: 100, perm: Perm::R, data: vec![1; 100] },
        SegmentInput { vaddr: 0x20_1000, mem_len: 9000, perm: Perm::RX, data: code },
        SegmentInput { vaddr: 0x20_4000, mem_len: 5000, perm: Perm::RW, data: vec![2; 10] },
        SegmentInput { vaddr: 0x20_6000, mem_len: 8192, perm: Perm::RW, data: vec![] },
    ]
}

pub(super) fn image() -> Vec<u8> {
    sif_build::build(0x20_1010, &segments()).unwrap()
}

pub(super) fn description() -> ModuleDescription {
    ModuleDescription::load(&root().unwrap().join("modules/counter/sila.toml")).unwrap()
}

fn refusal(bytes: &[u8]) -> String {
    verify_package(bytes, &*STORE).map_or_else(|e| e.name(), |_| "accepted".into())
}

/// A static ELF file with these program headers: (type, flags, vaddr, data, mem_len).
pub(super) fn elf(entry: u64, headers: &[(u32, u32, u64, &[u8], u64)]) -> Vec<u8> {
    let mut out = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    out.extend([2u16, 62].iter().flat_map(|v| v.to_le_bytes()));
    out.extend(1u32.to_le_bytes());
    out.extend([entry, 64, 0].iter().flat_map(|v| v.to_le_bytes()));
    out.extend(0u32.to_le_bytes());
    let count = u16::try_from(headers.len()).unwrap();
    out.extend([64u16, 56, count, 64, 0, 0].iter().flat_map(|v| v.to_le_bytes()));
    let mut off = 64 + 56 * headers.len() as u64;
    for (kind, flags, vaddr, data, mem_len) in headers {
        out.extend([*kind, *flags].iter().flat_map(|v| v.to_le_bytes()));
        let len = data.len() as u64;
        out.extend([off, *vaddr, *vaddr, len, *mem_len, 4096].iter().flat_map(|v| v.to_le_bytes()));
        off += len;
    }
    headers.iter().for_each(|h| out.extend(h.3));
    out
}

#[test]
fn every_tampered_package_is_refused_by_its_own_rule() {
    let variants = tamper::variants(&KEYS, &description(), &image()).unwrap();
    assert!(variants.len() >= 70, "only {} variants", variants.len());
    for variant in &variants {
        assert_eq!(refusal(&variant.bytes), variant.expected, "variant {:?}", variant.name);
    }
}

#[test]
fn tampered_packages_have_distinct_names_and_differ_from_the_good_one() {
    let variants = tamper::variants(&KEYS, &description(), &image()).unwrap();
    for (index, variant) in variants.iter().enumerate() {
        assert_ne!(variant.bytes, *PACKAGE, "{}", variant.name);
        assert!(variants[..index].iter().all(|other| other.name != variant.name), "{}", variant.name);
    }
}

#[test]
fn good_package_is_accepted_and_gives_the_image_back() {
    let accepted = verify_package(&PACKAGE, &*STORE).unwrap();
    assert_eq!(accepted.image, image());
    assert_eq!(accepted.manifest.name.as_str(), "counter");
    assert_eq!(accepted.manifest.publisher.as_str(), "sila");
}

#[test]
fn packing_twice_gives_the_same_bytes() {
    assert_eq!(*PACKAGE, pack::pack(&description(), &image(), &KEYS.publisher).unwrap());
}

#[test]
fn package_without_codec_is_accepted() {
    let manifest = pack::manifest(&description(), &image(), &image(), Codec::None, &KEYS.publisher).unwrap();
    let package = pack::Parts::sign(&manifest, &image(), &KEYS.publisher.key).unwrap().assemble().unwrap();
    assert_eq!(refusal(&package), "accepted");
}

#[test]
fn package_for_a_test_system_is_refused_by_a_release_system() {
    let release = KeyStore::new(Purpose::Release, super::policy::default_policy().unwrap());
    let root = RootKeys::decode(&KEYS.root_set_bytes).unwrap();
    let mut store = release;
    store.add_certificate(verify_certificate(&KEYS.signed_certificate, &root).unwrap()).unwrap();
    assert_eq!(verify_package(&PACKAGE, &store).err(), Some(Refusal::Chain(ChainError::WrongPurpose)));
}

#[test]
fn policy_without_the_algorithm_refuses_it() {
    let mut policy = super::policy::default_policy().unwrap();
    policy.algorithms = super::keys::list(vec![9], "algorithms").unwrap();
    let root = RootKeys::decode(&KEYS.root_set_bytes).unwrap();
    let mut store = KeyStore::new(Purpose::Test, policy);
    store.add_certificate(verify_certificate(&KEYS.signed_certificate, &root).unwrap()).unwrap();
    assert_eq!(verify_package(&PACKAGE, &store).err(), Some(Refusal::Chain(ChainError::AlgorithmNotAllowed)));
}

#[test]
fn authority_is_read_again_after_the_signature() {
    let root = RootKeys::decode(&KEYS.root_set_bytes).unwrap();
    let mut store = super::verify::store_of(&root, &KEYS.signed_certificate).unwrap();
    let manifest = verify_package(&PACKAGE, &store).unwrap().manifest;
    assert_eq!(chain::check_authority(&manifest, &store), Ok(()));
    store.raise_floor(&manifest.publisher, &manifest.name, 2).unwrap();
    assert_eq!(chain::check_authority(&manifest, &store), Err(ChainError::BelowFloor));
    store.raise_floor(&manifest.publisher, &manifest.name, 1).unwrap();
    assert_eq!(store_floor(&store, &manifest), 2);
    let item = sila_abi::trust::RevokedItem::Key(manifest.key_id);
    let signed =
        KEYS.sign_record(RecordKind::Revocation, &sila_abi::trust::Revocation { sequence: 1, item }).unwrap();
    store.add_revocation(verify_revocation(&signed, &root).unwrap()).unwrap();
    assert_eq!(chain::check_authority(&manifest, &store), Err(ChainError::KeyRevoked));
    let again = verify_revocation(&signed, &root).unwrap();
    assert_eq!(store.add_revocation(again), Err(ChainError::StaleSequence));
}

fn store_floor(store: &KeyStore, manifest: &Manifest) -> u32 {
    use sila_crypto::chain::KeySource;
    store.floor(&manifest.publisher, &manifest.name)
}

#[test]
fn load_proof_of_a_package_verifies_and_refuses_other_images() {
    let package = Package::parse(&PACKAGE).unwrap();
    let proof = LoadProof::of_package(&package);
    let mut region = vec![0xee; proof.len().next_multiple_of(4096)];
    assert_eq!(proof.write(&mut region), Ok(proof.len()));
    let parsed = LoadProof::parse(&region).unwrap();
    let manifest = chain::verify_manifest(&parsed, &*STORE).unwrap();
    let (image, len) = (image(), image().len() as u64);
    let digest = bulk_digest(&image);
    let check = |len, digest: &_, sig| chain::verify_binary(&manifest, len, digest, sig, &*STORE).err();
    assert_eq!(check(len, &digest, parsed.binary_sig), None);
    assert_eq!(check(len + PAGE_SIZE, &digest, parsed.binary_sig), Some(ChainError::ImageLength));
    assert_eq!(check(len, &[0; 32], parsed.binary_sig), Some(ChainError::ImageDigest));
    assert_eq!(check(len, &digest, parsed.manifest_sig), Some(ChainError::BinarySignature));
    assert_eq!(LoadProof::parse(&region[..proof.len() - 1]).err(), Some(PackageError::Truncated));
}

#[test]
fn certificate_and_revocation_signatures_do_not_stand_for_each_other() {
    let root = RootKeys::decode(&KEYS.root_set_bytes).unwrap();
    let certificate = &KEYS.publisher.certificate;
    let mut wrong = KEYS.sign_record(RecordKind::Revocation, certificate).unwrap();
    assert_eq!(verify_certificate(&wrong, &root).err(), Some(ChainError::RecordKind));
    wrong.kind = RecordKind::Certificate;
    assert_eq!(verify_certificate(&wrong, &root).err(), Some(ChainError::RecordSignature));
    assert!(verify_certificate(&KEYS.signed_certificate, &root).is_ok());
    assert!(verify_revocation(&KEYS.signed_certificate, &root).is_err());
}

#[test]
fn fewer_root_signatures_than_the_threshold_are_refused() {
    let root = RootKeys::decode(&KEYS.root_set_bytes).unwrap();
    let mut signed = KEYS.signed_certificate.clone();
    let one = signed.signatures.signatures[..1].to_vec();
    signed.signatures = SignatureSet { signatures: super::keys::list(one, "signatures").unwrap() };
    assert_eq!(verify_certificate(&signed, &root).err(), Some(ChainError::Threshold));
}

#[test]
fn one_root_key_cannot_sign_twice() {
    let root = RootKeys::decode(&KEYS.root_set_bytes).unwrap();
    let mut signed = KEYS.signed_certificate.clone();
    let first = signed.signatures.signatures[0].clone();
    let twice = super::keys::list(vec![first.clone(), first], "signatures").unwrap();
    signed.signatures = SignatureSet { signatures: twice };
    let expected = ChainError::Record(sila_abi::trust::RecordError::UnsortedSignatures);
    assert_eq!(verify_certificate(&signed, &root).err(), Some(expected));
}

#[test]
fn certificates_of_another_root_or_an_old_sequence_are_refused() {
    let root = RootKeys::decode(&KEYS.root_set_bytes).unwrap();
    let stranger = KeySet::generate(&options(Purpose::Test)).unwrap();
    let refused = verify_certificate(&stranger.signed_certificate, &root).err();
    assert_eq!(refused, Some(ChainError::RecordSignature));
    let mut store = super::verify::store_of(&root, &KEYS.signed_certificate).unwrap();
    let again = verify_certificate(&KEYS.signed_certificate, &root).unwrap();
    assert_eq!(store.add_certificate(again), Err(ChainError::StaleSequence));
}

#[test]
fn key_folders_are_private_and_never_overwritten() {
    let scratch = Scratch::new().unwrap();
    let dir = scratch.join("keys");
    let made = keygen(&dir, &options(Purpose::Release)).unwrap();
    let mode = |file: &str| std::fs::metadata(dir.join(file)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(""), 0o700);
    for file in ["root-0.key", "root-1.key", "root-2.key", "publisher.key"] {
        assert_eq!(mode(file), 0o600, "{file}");
    }
    let loaded = KeySet::load(&dir).unwrap();
    assert_eq!(loaded.publisher.key.id(), made.publisher.key.id());
    let error = keygen(&dir, &options(Purpose::Release)).unwrap_err().to_string();
    assert!(error.contains("never overwritten"), "{error}");
}

#[test]
fn key_folder_with_a_foreign_key_is_refused() {
    let scratch = Scratch::new().unwrap();
    let dir = scratch.join("keys");
    keygen(&dir, &options(Purpose::Release)).unwrap();
    std::fs::copy(dir.join("root-0.key"), dir.join("publisher.key")).unwrap();
    let error = KeySet::load(&dir).unwrap_err().to_string();
    assert!(error.contains("not that of its certificate"), "{error}");
}

#[test]
fn test_keys_are_made_once_and_then_reused() {
    let scratch = Scratch::new().unwrap();
    let first = test_keys(&scratch.join("state")).unwrap();
    let second = test_keys(&scratch.join("state")).unwrap();
    assert_eq!(first.publisher.key.id(), second.publisher.key.id());
    assert_eq!(first.root_set.purpose, Purpose::Test);
}

#[test]
fn elf_becomes_an_image_by_its_program_headers() {
    let code = [0x90; 50];
    let program = elf(
        0x20_1004,
        &[
            (1, 5, 0x20_1000, &code, 50),
            (1, 4, 0x20_0000, b"constants", 9),
            (1, 6, 0x20_2000, b"data", 5000),
            (0x6474_e551, 6, 0, &[], 0),
        ],
    );
    let image = sif_build::elf_to_sif(&program).unwrap();
    let sif = sif_build::check(&image).unwrap();
    let perms: Vec<_> = sif.segments().iter().map(|s| (s.vaddr, s.perm, s.file_len)).collect();
    let expected = [(0x20_0000, Perm::R, 9), (0x20_1000, Perm::RX, 50), (0x20_2000, Perm::RW, 4)];
    assert_eq!(perms, expected);
    assert_eq!(sif.entry(), 0x20_1004);
}

#[test]
fn elf_that_is_not_static_or_breaks_w_xor_x_is_refused() {
    let code = [0x90; 50];
    let both = elf(0x20_1000, &[(1, 7, 0x20_1000, &code, 50)]);
    assert!(sif_build::elf_to_sif(&both).unwrap_err().to_string().contains("writable and executable"));
    let dynamic = elf(0x20_1000, &[(1, 5, 0x20_1000, &code, 50), (2, 6, 0, &[], 0)]);
    assert!(sif_build::elf_to_sif(&dynamic).unwrap_err().to_string().contains("not static"));
    assert!(sif_build::elf_to_sif(b"no elf").is_err());
}

#[test]
fn image_padding_is_zero_and_must_stay_so() {
    let mut image = image();
    assert!(sif_build::check(&image).is_ok());
    let padding = PAGE_SIZE as usize + 100;
    image[padding] = 1;
    assert!(sif_build::check(&image).unwrap_err().to_string().contains("padding"));
    let manifest =
        pack::manifest(&description(), &self::image(), &self::image(), Codec::None, &KEYS.publisher).unwrap();
    let digest = bulk_digest(&image);
    let manifest = Manifest { image_digest: digest, payload_digest: digest, ..manifest };
    let package = pack::Parts::sign(&manifest, &image, &KEYS.publisher.key).unwrap().assemble().unwrap();
    assert_eq!(refusal(&package), "Padding");
}

#[test]
fn descriptions_name_what_is_wrong() {
    let good = include_str!("../../../modules/counter/sila.toml");
    let cases = [
        ("kind = \"service\"", "kind = \"demon\"", "unknown kind"),
        ("\"READ\", \"MANAGE\"", "\"READ\", \"RULE\"", "unknown right"),
        ("object = \"Process\"", "object = \"Proces\"", "unknown object type"),
        ("name = \"counter\"", "name = \"Counter\"", "bad name"),
        ("version = \"0.1.0\"", "version = \"0.01.0\"", "bad version"),
        ("own = \"process\"", "own = \"house\"", "needs either grant"),
        ("stack_pages = 8", "stack_page = 8", "unknown field"),
    ];
    for (from, to, expected) in cases {
        assert!(good.contains(from), "{from}");
        let result = ModuleDescription::parse(&good.replacen(from, to, 1));
        let error = result.and_then(|d| d.to_manifest()).map(|_| ()).unwrap_err();
        assert!(format!("{error:#}").contains(expected), "{error:#}");
    }
}

fn object_kind(text: &str) -> anyhow::Result<BootObjectKind> {
    let text = format!("sequence = 1\n[[object]]\nname = \"it\"\n{text}");
    let description: BundleDescription = toml::from_str(&text).unwrap();
    description.objects[0].to_kind()
}

#[test]
fn parts_of_devices_are_described_by_name_window_and_need() {
    let device = |index| PciDevice { vendor: 0x1234, device: 0x11e8, index };
    for (text, kind) in [
        (
            "kind = \"device-region\"\nvendor = 0x1234\ndevice = 0x11e8\nbar = 0",
            BootObjectKind::DeviceRegion { device: device(0), bar: 0, optional: false },
        ),
        (
            "kind = \"device-ports\"\nvendor = 0x1234\ndevice = 0x11e8\nbar = 5\nindex = 3\noptional = true",
            BootObjectKind::DevicePorts { device: device(3), bar: 5, optional: true },
        ),
        (
            "kind = \"device-irq\"\nvendor = 0x1234\ndevice = 0x11e8\nindex = 1",
            BootObjectKind::DeviceIrq { device: device(1), optional: false },
        ),
    ] {
        assert_eq!(object_kind(text).unwrap(), kind);
    }
    for (text, expected) in [
        ("kind = \"device-region\"\nvendor = 1\ndevice = 1", "bar = 0 to 5"),
        ("kind = \"device-ports\"\nvendor = 1\ndevice = 1", "bar = 0 to 5"),
        ("kind = \"device-irq\"\nvendor = 1\ndevice = 1\nbar = 0", "no parameter \"bar\""),
        ("kind = \"device-irq\"\nvendor = 1", "missing field `device`"),
        ("kind = \"device-irq\"\nvendor = 70000\ndevice = 1", "u16"),
        ("kind = \"device-region\"\nvendor = 1\ndevice = 1\nbar = 0\nbase = 1", "unknown field `base`"),
    ] {
        let error = object_kind(text).unwrap_err();
        assert!(format!("{error:#}").contains(expected), "{error:#}");
    }
}

/// A bundle of the sample description in which every program is the same small ELF file.
fn sample_bundle(description: &str, packages: &[std::path::PathBuf]) -> Vec<u8> {
    let scratch = Scratch::new().unwrap();
    let file = scratch.join("program");
    let code = [0x90; 50];
    std::fs::write(&file, elf(0x20_1000, &[(1, 5, 0x20_1000, &code, 50)])).unwrap();
    let programs = crate::bare::PROGRAMS.iter().map(|p| (p.to_string(), file.clone()));
    let programs: BTreeMap<_, _> = programs.collect();
    let root = root().unwrap();
    let description = BundleDescription::load(&root.join(description)).unwrap();
    let test_data = [("sample".to_string(), b"data".to_vec())];
    build(&BundleInput {
        root: &root,
        description: &description,
        programs: &programs,
        packages,
        records: &[],
        test_data: &test_data,
        keys: &KEYS,
    })
    .unwrap()
}

fn signatures(bundle: &Bundle<'_>) -> SignatureSet {
    SignatureSet::decode(bundle.first(EntryKind::BootSignature).unwrap().data).unwrap()
}

#[test]
fn bundle_boots_by_the_chain_that_the_kernel_uses() {
    let bytes = sample_bundle("boot/bundle-test.toml", &[]);
    let bundle = Bundle::parse(&bytes).unwrap();
    let root = RootKeys::decode(bundle.first(EntryKind::RootSet).unwrap().data).unwrap();
    let boot = bundle.first(EntryKind::BootManifest).unwrap();
    let boot = verify_boot_manifest(boot.data, &signatures(&bundle), &root).unwrap();
    let store = KeyStore::from_boot(&boot).unwrap();
    assert!(boot.modules.len() >= 5);
    for module in &boot.modules {
        let manifest = bundle.find(EntryKind::ModuleManifest, &module.name).unwrap();
        let manifest = verify_boot_module(&boot, module, manifest.data, &store).unwrap();
        let image = bundle.find(EntryKind::ModuleImage, &module.name).unwrap().data;
        let binary = check_boot_image(&manifest, &boot, image.len() as u64, &bulk_digest(image)).unwrap();
        assert!(chain::verify_image_header(&manifest, &binary, &image[..4096]).is_ok());
    }
    assert_eq!(purpose_of(&bytes).unwrap(), Purpose::Test);
    let yardstick = Yardstick::choose(None, None).unwrap();
    let view = View { trust: None, yardstick: &yardstick };
    assert!(inspect::inspect(&bytes, &view).unwrap().contains("purpose test"));
}

#[test]
fn every_mandatory_grant_request_of_a_bootstrap_module_is_granted() {
    let bytes = sample_bundle("boot/bundle.toml", &[]);
    let bundle = Bundle::parse(&bytes).unwrap();
    let boot = bundle.first(EntryKind::BootManifest).unwrap().data;
    let boot = sila_abi::boot::BootManifest::decode(boot).unwrap();
    for module in &boot.modules {
        let manifest = bundle.find(EntryKind::ModuleManifest, &module.name).unwrap();
        for request in &Manifest::decode(manifest.data).unwrap().requests {
            let sila_abi::manifest::Selector::Grant(wanted) = request.selector else { continue };
            let grant = module.grants.iter().find(|g| g.request == wanted);
            let enough = grant.is_some_and(|g| request.rights & !g.rights == 0);
            assert!(enough || !request.mandatory, "{} lacks {wanted}", module.name);
        }
    }
}

#[test]
fn older_agent_in_a_bundle_is_refused() {
    let bytes = sample_bundle("boot/bundle.toml", &[]);
    let bundle = Bundle::parse(&bytes).unwrap();
    let root = RootKeys::decode(&KEYS.root_set_bytes).unwrap();
    let boot = bundle.first(EntryKind::BootManifest).unwrap().data;
    let boot = verify_boot_manifest(boot, &signatures(&bundle), &root).unwrap();
    let store = KeyStore::from_boot(&boot).unwrap();
    let module = &boot.modules[0];
    let entry = bundle.find(EntryKind::ModuleManifest, &module.name).unwrap();
    let mut older = Manifest::decode(entry.data).unwrap();
    older.version.minor = 0;
    let refused = verify_boot_module(&boot, module, &older.encode().unwrap(), &store).err();
    assert_eq!(refused, Some(ChainError::BootModuleDigest));
    let manifest = verify_boot_module(&boot, module, entry.data, &store).unwrap();
    let refused = check_boot_image(&manifest, &boot, manifest.image_len, &[7; 32]).err();
    assert_eq!(refused, Some(ChainError::ImageDigest));
}

#[test]
fn boot_manifest_is_bound_to_its_root_set_and_signature() {
    let bytes = sample_bundle("boot/bundle.toml", &[]);
    let bundle = Bundle::parse(&bytes).unwrap();
    let root = RootKeys::decode(&KEYS.root_set_bytes).unwrap();
    let boot = bundle.first(EntryKind::BootManifest).unwrap().data;
    let mut flipped = boot.to_vec();
    flipped[20] ^= 1;
    let refused = verify_boot_manifest(&flipped, &signatures(&bundle), &root).err();
    assert_eq!(refused, Some(ChainError::RecordSignature));
    // The same keys in a root set of another sequence: the signatures are good, the root set is not.
    let other = RootSet { sequence: 2, ..KEYS.root_set.clone() }.encode().unwrap();
    let other = RootKeys::decode(&other).unwrap();
    let refused = verify_boot_manifest(boot, &signatures(&bundle), &other).err();
    assert_eq!(refused, Some(ChainError::RootSetMismatch));
}

#[test]
fn test_keys_in_a_release_bundle_are_refused() {
    let bytes = sample_bundle("boot/bundle.toml", &[]);
    let bundle = Bundle::parse(&bytes).unwrap();
    let boot = bundle.first(EntryKind::BootManifest).unwrap().data;
    let mut boot = sila_abi::boot::BootManifest::decode(boot).unwrap();
    let release = RootSet { purpose: Purpose::Release, ..KEYS.root_set.clone() }.encode().unwrap();
    let root = RootKeys::decode(&release).unwrap();
    boot.root_set_digest = *root.digest();
    boot.purpose = Purpose::Release;
    let encoded = boot.encode().unwrap();
    let signed = KEYS.root_signatures(Domain::Boot, &encoded).unwrap();
    assert_eq!(verify_boot_manifest(&encoded, &signed, &root).err(), Some(ChainError::WrongPurpose));
}

#[test]
fn added_packages_come_first_and_keep_their_bytes() {
    let scratch = Scratch::new().unwrap();
    let good = scratch.join("whatever.sila");
    std::fs::write(&good, &*PACKAGE).unwrap();
    let odd = scratch.join("Odd Name.sila");
    std::fs::write(&odd, b"no package").unwrap();
    let bytes = sample_bundle("boot/bundle.toml", &[good, odd]);
    let bundle = Bundle::parse(&bytes).unwrap();
    let packages: Vec<_> = bundle.of_kind(EntryKind::Package).collect();
    assert_eq!(packages[0].name.as_str(), "counter");
    assert_eq!(packages[0].data, *PACKAGE);
    assert_eq!(packages[1].name.as_str(), "odd-name");
    assert_eq!(packages[1].data, b"no package");
    assert_eq!(packages.len(), 4);
}

#[test]
fn empty_added_package_is_refused() {
    let scratch = Scratch::new().unwrap();
    let file = scratch.join("empty.sila");
    std::fs::write(&file, b"").unwrap();
    let error = added_package(&file).unwrap_err();
    assert!(error.to_string().contains("is empty"));
    assert_eq!(crate::missing::status(&error), 64);
    let error = added_package(&file.with_file_name("nonexistent")).unwrap_err();
    assert_eq!(crate::missing::status(&error), 64);
    assert!(manifest_of(b"text").unwrap_err().to_string().starts_with("not a package"));
}

#[test]
fn empty_bundle_is_one_page() {
    assert_eq!(layout(&[]).unwrap().len() as u64, PAGE_SIZE);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_flipped_bit_of_a_package_is_refused(bit: usize) {
        let mut bytes = PACKAGE.clone();
        let bit = bit % (bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(verify_package(&bytes, &*STORE).is_err());
    }

    #[test]
    fn any_truncation_of_a_package_is_refused(len: usize) {
        let len = len % PACKAGE.len();
        let refused = refusal(&PACKAGE[..len]);
        prop_assert!(refused.starts_with("Package("), "{}", refused);
    }
}
