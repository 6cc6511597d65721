//! The test system: `boot/bundle-test.toml` with the data that the in-guest tests need.

use crate::{bad, vectors};
use anyhow::{Context, Result, anyhow};
use boot::bare::Built;
use boot::paths::{self, Scratch};
use boot::pkg::bundle::{Content, layout};
use boot::pkg::description::ModuleDescription;
use boot::pkg::keys::{KeySet, PublisherKey, test_keys};
use boot::pkg::pack::{Parts, compress, manifest};
use boot::pkg::sif_build::elf_to_sif;
use boot::pkg::tiny;
use boot::system::{BundleOptions, Image, build, make_bundle, write_image};
use sila_abi::boot::{Bundle, EntryKind};
use sila_abi::manifest::{CapRequest, Codec, Manifest, Resources, Selector, ServiceDecl};
use sila_abi::object::ObjectType;
use sila_abi::package::{LoadProof, Package};
use sila_abi::record::{Bounded, Name, Version};
use sila_abi::rights::Rights;
use sila_abi::trust::{Record, RecordKind, Revocation, RevokedItem, SignedRecord};
use sila_crypto::scheme::Domain;
use std::path::{Path, PathBuf};

/// The publisher whose key an in-guest test revokes.
pub const BRIEF: &str = "brief";

/// The test system, built and ready to be packed with a plan.
pub struct TestSystem {
    built: Built,
    bundle: Vec<u8>,
}

/// The description of the test system.
pub fn description_path() -> Result<PathBuf> {
    Ok(paths::root()?.join("boot/bundle-test.toml"))
}

impl TestSystem {
    /// Builds everything but the plan.
    pub fn build() -> Result<Self> {
        let mut options =
            BundleOptions { description: Some(description_path()?), ..BundleOptions::default() };
        let built = build(None, Some(&options))?;
        let keys = test_keys(&paths::state()?)?;
        let data = TestData::new(&built, &keys)?;
        let (packages, list) = bad::packages(&keys, &data.description, &data.image)?;
        options.test_data = data.entries(&keys)?;
        options.test_data.push((testrunner::BAD_PACKAGES.into(), list.into_bytes()));
        let bypasses = bad::bypasses(&packages, &keys, &data.image)?;
        options.test_data.push((testrunner::BYPASSES.into(), bypasses.into_bytes()));
        let base = make_bundle(&built, &options)?;
        let mut contents = contents(&base)?;
        contents.extend(packages.into_iter().map(|(content, _)| content));
        contents.push(data.prey(&keys.publisher)?);
        Ok(Self { built, bundle: layout(&contents)? })
    }

    /// This system with more boot objects, in the words of a `bundle.toml`: a bundle that is signed and complete.
    pub fn with_objects(&self, objects: &str) -> Result<Self> {
        let scratch = Scratch::new()?;
        let path = scratch.join("bundle.toml");
        let text = format!("sequence = 1\ninclude = {:?}\n{objects}", description_path()?);
        std::fs::write(&path, text)?;
        let options = BundleOptions { description: Some(path), ..BundleOptions::default() };
        let bundle = make_bundle(&self.built, &options)?;
        Ok(Self { built: self.built.clone(), bundle })
    }

    /// This system with more entries in its bundle.
    pub fn with_entries(&self, entries: Vec<Content>) -> Result<Self> {
        let mut contents = contents(&self.bundle)?;
        contents.extend(entries);
        Ok(Self { built: self.built.clone(), bundle: layout(&contents)? })
    }

    /// A disk image that runs these tests.
    pub fn image(&self, plan: &[&str], out: &Path) -> Result<Image> {
        let mut contents = contents(&self.bundle)?;
        let text = plan.iter().map(|name| format!("{name}\n")).collect::<String>() + "\n";
        contents.push(Content {
            kind: EntryKind::TestData,
            name: name(testrunner::PLAN)?,
            version: Version::MIN,
            data: text.into_bytes(),
        });
        write_image(&self.built, layout(&contents)?, out)
    }

    /// The boot bundle without a plan.
    pub fn bundle(&self) -> &[u8] {
        &self.bundle
    }

    /// A disk image with this boot bundle.
    pub fn image_of(&self, bundle: Vec<u8>, out: &Path) -> Result<Image> {
        write_image(&self.built, bundle, out)
    }
}

fn contents(bundle: &[u8]) -> Result<Vec<Content>> {
    let bundle = Bundle::parse(bundle)?;
    let content = |e: sila_abi::boot::Entry<'_>| Content {
        kind: e.kind,
        name: e.name,
        version: e.version,
        data: e.data.to_vec(),
    };
    Ok(bundle.entries().map(content).collect())
}

/// A name.
pub fn name(text: &str) -> Result<Name> {
    Name::new(text).map_err(|e| anyhow!("bad name {text:?}: {e}"))
}

/// What the data of the in-guest tests is made from.
struct TestData {
    description: ModuleDescription,
    image: Vec<u8>,
}

impl TestData {
    fn new(built: &Built, keys: &KeySet) -> Result<Self> {
        let _ = keys;
        let description = ModuleDescription::load(&paths::root()?.join("modules/probe/sila.toml"))?;
        let elf = std::fs::read(built.programs.get("probe").context("the probe was not built")?)?;
        Ok(Self { description, image: elf_to_sif(&elf)? })
    }

    fn manifest(&self, publisher: &PublisherKey) -> Result<Manifest> {
        manifest(&self.description, &self.image, &self.image, Codec::None, publisher)
    }

    fn entries(&self, keys: &KeySet) -> Result<Vec<(String, Vec<u8>)>> {
        let good = self.manifest(&keys.publisher)?;
        let parts = self.sign(&good, &keys.publisher)?;
        let mut all = vec![
            (testrunner::PROBE_IMAGE.to_string(), self.image.clone()),
            (testrunner::PROBE_PROOF.to_string(), proof(&parts)?),
            (testrunner::TINY_IMAGE.to_string(), tiny::image()?),
            (testrunner::TINY_PROOF.to_string(), tiny::parts("tiny", "1.0.0", &keys.publisher)?.proof()?),
            (testrunner::VECTORS.to_string(), vectors::ml_dsa_87()?),
        ];
        let mut reuse = good.clone();
        reuse.init_deadline_ms += 1;
        all.push(("reuse.proof".into(), proof(&self.sign(&reuse, &keys.publisher)?)?));
        all.extend(self.puppets(&good, &keys.publisher)?);
        all.extend(self.revocation(keys)?);
        all.extend(self.forbidden(keys)?);
        all.extend(self.bad_proofs(keys, &good, &parts)?);
        Ok(all)
    }

    fn sign(&self, manifest: &Manifest, publisher: &PublisherKey) -> Result<Parts> {
        Parts::sign(manifest, &self.image, &publisher.key)
    }

    /// Modules that are the probe's image under names of their own, each with the service of that name: of one of them
    /// two versions.
    fn puppets(&self, good: &Manifest, publisher: &PublisherKey) -> Result<Vec<(String, Vec<u8>)>> {
        let all = [
            ("puppet.proof", "puppet", 1),
            ("stranger.proof", "stranger", 1),
            ("rising.old", "rising", 1),
            ("rising.new", "rising", 2),
        ];
        let made = all.into_iter().map(|(entry, module, version)| {
            let mut manifest = good.clone();
            manifest.name = name(module)?;
            manifest.version = Version::new(version, 0, 0);
            manifest.security_version = version.into();
            manifest.service = Some(ServiceDecl { name: manifest.name, durable: true });
            manifest.resources = Resources { frames: 96, object_bytes: 9216, max_priority: 120, threads: 2 };
            Ok((entry.into(), proof(&self.sign(&manifest, publisher)?)?))
        });
        made.collect()
    }

    /// The package whose decompression the tests of hostile agents take over.
    fn prey(&self, publisher: &PublisherKey) -> Result<Content> {
        let payload = compress(&self.image)?;
        let mut good = manifest(&self.description, &self.image, &payload, Codec::Zstd, publisher)?;
        good.name = name(testrunner::PREY)?;
        good.service = None;
        let data = Parts::sign(&good, &payload, &publisher.key)?.assemble()?;
        Ok(Content { kind: EntryKind::Package, name: good.name, version: good.version, data })
    }

    /// Modules whose publisher's ceiling allows what the policy does not: the KeyRing, mandatory and optional.
    fn forbidden(&self, keys: &KeySet) -> Result<Vec<(String, Vec<u8>)>> {
        let ample = keys.ample(keys.test_publisher("ample", &["ample"])?);
        let made = [("ample.mandatory", "ample-one", true), ("ample.optional", "ample-other", false)]
            .into_iter()
            .map(|(entry, module, mandatory)| {
                let mut manifest = self.manifest(&ample)?;
                manifest.name = name(module)?;
                manifest.service = None;
                let ring = CapRequest {
                    slot: 10,
                    object: ObjectType::KeyRing as u8,
                    selector: Selector::Grant(name("key-ring")?),
                    rights: Rights::READ.bits(),
                    badge: None,
                    amount: 0,
                    mandatory,
                };
                let requests = Bounded::from_vec(vec![own_pool(), ring]);
                manifest.requests = requests.map_err(|_| anyhow!("two requests are too many"))?;
                Ok((entry.into(), proof(&self.sign(&manifest, &ample)?)?))
            });
        made.collect()
    }

    /// A module of a publisher of its own, and records that revoke its key, rightly and wrongly.
    fn revocation(&self, keys: &KeySet) -> Result<Vec<(String, Vec<u8>)>> {
        let brief = keys.test_publisher(BRIEF, &[BRIEF])?;
        let mut manifest = self.manifest(&brief)?;
        manifest.name = name("brief-probe")?;
        manifest.service = None;
        manifest.requests =
            Bounded::from_vec(vec![own_pool()]).map_err(|_| anyhow!("one request is too many"))?;
        let item = RevokedItem::Key(brief.key.id());
        let signed = |sequence| keys.sign_record(RecordKind::Revocation, &Revocation { sequence, item });
        let record = signed(100)?;
        // It takes back what nobody has, after all others.
        let item = RevokedItem::Key([1; 32]);
        let spare = keys.sign_record(RecordKind::Revocation, &Revocation { sequence: 1000, item })?;
        let mut forged = record.clone();
        let mut bytes = forged.record.to_vec();
        *bytes.last_mut().context("an empty record")? ^= 1;
        forged.record = Bounded::from_vec(bytes).map_err(|_| anyhow!("the record grew"))?;
        Ok(vec![
            ("revocable.proof".into(), proof(&self.sign(&manifest, &brief)?)?),
            ("revocation.record".into(), record.encode()?),
            ("revocation.forged".into(), forged.encode()?),
            ("revocation.stale".into(), signed(1)?.encode()?),
            ("revocation.spare".into(), spare.encode()?),
            ("revocation.self".into(), self_signed(keys, &record)?.encode()?),
        ])
    }

    /// Proofs that the kernel must refuse, with the error for each.
    fn bad_proofs(&self, keys: &KeySet, good: &Manifest, parts: &Parts) -> Result<Vec<(String, Vec<u8>)>> {
        let mut all = Vec::new();
        let mut list = String::new();
        let bytes = proof(parts)?;
        let mut add = |error: &str, what: &str, bytes: Vec<u8>| {
            let entry = format!("proof.{}", all.len());
            list.push_str(&format!("{error} {entry} {} {what}\n", testrunner::PROBE_IMAGE));
            all.push((entry, bytes));
        };
        for (what, error, at) in self.flips(&bytes, parts) {
            let mut flipped = bytes.clone();
            *flipped.get_mut(at).with_context(|| format!("no byte {at}"))? ^= 1;
            add(error, &format!("flipped bit in {what}"), flipped);
        }
        let half = bytes.get(..bytes.len() / 2).context("a short proof")?;
        add("BadProof", "a proof cut in half", half.to_vec());
        let changed = |change: fn(&mut Manifest)| -> Result<Parts> {
            let mut manifest = good.clone();
            change(&mut manifest);
            self.sign(&manifest, &keys.publisher)
        };
        add("EntryOutsideCode", "another entry", proof(&changed(|m| m.entry += 16)?)?);
        let digest = changed(|m| {
            m.codec = Codec::Zstd;
            m.image_digest = [3; 32];
        })?;
        add("ImageDigest", "the digest of another image", proof(&digest)?);
        let longer = changed(|m| {
            m.codec = Codec::Zstd;
            m.image_len += 4096;
        })?;
        add("ImageSize", "a longer image", proof(&longer)?);
        let swapped = Parts { binary_sig: changed(|m| m.version.patch = 9)?.binary_sig, ..parts.clone() };
        add("BinarySignature", "the binary signature of another version", proof(&swapped)?);
        let swapped = Parts { manifest: changed(|m| m.version.patch = 9)?.manifest, ..parts.clone() };
        add("ManifestSignature", "the manifest of another version", proof(&swapped)?);
        let revoked = keys.test_publisher(boot::pkg::tamper::REVOKED, &[])?;
        let mut manifest = self.manifest(&revoked)?;
        manifest.requests = Bounded::default();
        add("KeyRevoked", "a revoked key", proof(&self.sign(&manifest, &revoked)?)?);
        let other = keys.test_publisher(boot::pkg::tamper::OTHER, &[boot::pkg::tamper::OTHER])?;
        let mut manifest = self.manifest(&other)?;
        manifest.requests = Bounded::default();
        add("Namespace", "a name outside the namespace", proof(&self.sign(&manifest, &other)?)?);
        manifest = self.manifest(&other)?;
        manifest.name = name("other-probe")?;
        manifest.service = None;
        add("RequestCeiling", "requests beyond the ceiling", proof(&self.sign(&manifest, &other)?)?);
        let mut floored = good.clone();
        floored.name = name(boot::pkg::tamper::FLOORED)?;
        floored.security_version = 4;
        add("BelowFloor", "below the floor", proof(&self.sign(&floored, &keys.publisher)?)?);
        let mut recalled = good.clone();
        recalled.name = name(boot::pkg::tamper::RECALLED)?;
        recalled.version = Version::new(1, 0, 0);
        add("VersionRevoked", "a revoked version", proof(&self.sign(&recalled, &keys.publisher)?)?);
        all.push((testrunner::BAD_PROOFS.into(), list.into_bytes()));
        Ok(all)
    }

    fn flips(&self, bytes: &[u8], parts: &Parts) -> [(&'static str, &'static str, usize); 6] {
        let sig = parts.binary_sig.len();
        let manifest = bytes.len() - 2 * sig - parts.manifest.len();
        [
            ("the magic", "BadProof", 0),
            ("the first manifest byte", "ManifestSignature", manifest),
            ("the last manifest byte", "ManifestSignature", manifest + parts.manifest.len() - 1),
            ("the manifest signature", "ManifestSignature", bytes.len() - 2 * sig + 9),
            ("the binary signature", "BinarySignature", bytes.len() - sig + 9),
            ("the last byte", "BinarySignature", bytes.len() - 1),
        ]
    }
}

/// A request for the own Pool.
fn own_pool() -> CapRequest {
    CapRequest {
        slot: 3,
        object: ObjectType::Pool as u8,
        selector: Selector::OwnPool,
        rights: (Rights::READ | Rights::CREATE).bits(),
        badge: None,
        amount: 0,
        mandatory: true,
    }
}

/// The same record, signed by the publisher's key instead of the root's.
fn self_signed(keys: &KeySet, record: &SignedRecord) -> Result<SignedRecord> {
    let message = sila_crypto::chain::statement::record(keys.publisher.key.algorithm(), &record.record);
    let message = boot_bytes(&message);
    let mut wrong = record.clone();
    let mut signatures = wrong.signatures.signatures.to_vec();
    let first = signatures.first_mut().context("no signature")?;
    let signature = keys.publisher.key.sign(Domain::Revocation, &message)?;
    first.bytes = Bounded::from_vec(signature).map_err(|_| anyhow!("the signature is too long"))?;
    wrong.signatures.signatures =
        Bounded::from_vec(signatures).map_err(|_| anyhow!("too many signatures"))?;
    Ok(wrong)
}

fn boot_bytes<T: zerocopy::IntoBytes + zerocopy::Immutable>(record: &T) -> Vec<u8> {
    record.as_bytes().to_vec()
}

/// The load proof of these parts.
fn proof(parts: &Parts) -> Result<Vec<u8>> {
    let bytes = parts.assemble()?;
    let package = Package::parse(&bytes).map_err(|e| anyhow!("{e}"))?;
    let proof = LoadProof::of_package(&package);
    let mut out = vec![0; proof.len()];
    proof.write(&mut out).map_err(|e| anyhow!("{e}"))?;
    Ok(out)
}
