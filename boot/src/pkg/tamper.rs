//! Bad packages for tests: from one good module, every way to get it wrong, each with the rule that must refuse it.
//!
//! Variants that a publisher could sign by mistake or malice are validly signed; those that an attacker makes on the
//! way are not. The test system that the expectations refer to is [`test_system`]; `boot/bundle-test.toml` describes
//! the same publishers, floors and revocations.

use super::description::ModuleDescription;
use super::keys::{KeySet, PublisherKey, name};
use super::pack::{Parts, ZSTD_LEVEL, compress, manifest};
use super::verify::store_of;
use anyhow::{Context, Result, anyhow, bail};
use sila_abi::manifest::{Codec, Manifest, ModuleKind};
use sila_abi::package::PACKAGE_HEADER_LEN;
use sila_abi::record::{Version, VersionRange};
use sila_abi::trust::{RecordKind, Revocation, RevokedItem};
use sila_crypto::chain::{RootKeys, statement, verify_certificate, verify_revocation};
use sila_crypto::hash::bulk_digest;
use sila_crypto::keystore::KeyStore;
use sila_crypto::scheme::Domain;
use sila_crypto::sign::SigningKey;
use std::io::Write;
use zerocopy::IntoBytes;

/// Publisher with prefix `other` and a narrow ceiling.
pub const OTHER: &str = "other";
/// Publisher whose key is revoked.
pub const REVOKED: &str = "revoked";
/// Module of the main publisher with a floor of 5.
pub const FLOORED: &str = "floored";
/// Module of the main publisher whose version 1.0.0 is revoked.
pub const RECALLED: &str = "recalled";

/// A bad package.
#[derive(Clone, Debug)]
pub struct Variant {
    /// What is wrong with it.
    pub name: String,
    /// The package.
    pub bytes: Vec<u8>,
    /// [`super::verify::Refusal::name`] of the refusal.
    pub expected: &'static str,
}

/// A good module and the keys to spoil it with.
pub struct Tamper<'a> {
    keys: &'a KeySet,
    description: &'a ModuleDescription,
    image: &'a [u8],
    payload: Vec<u8>,
    good: Parts,
    other: PublisherKey,
    revoked: PublisherKey,
    variants: Vec<Variant>,
}

/// The keys, floors and revocations that the variants' expectations refer to.
pub fn test_system(keys: &KeySet) -> Result<KeyStore> {
    let root = RootKeys::decode(&keys.root_set_bytes).map_err(|e| anyhow!("{e}"))?;
    let mut store = store_of(&root, &keys.signed_certificate)?;
    let (other, revoked) = test_publishers(keys)?;
    for publisher in [&other, &revoked] {
        let signed = keys.sign_record(RecordKind::Certificate, &publisher.certificate)?;
        store.add_certificate(verify_certificate(&signed, &root)?)?;
    }
    let module = RevokedItem::Module {
        publisher: keys.publisher.certificate.publisher,
        name: name(RECALLED)?,
        versions: VersionRange { min: Version::new(1, 0, 0), max: Version::new(1, 0, 0) },
    };
    for (item, sequence) in [RevokedItem::Key(revoked.key.id()), module].into_iter().zip(1..) {
        let signed = keys.sign_record(RecordKind::Revocation, &Revocation { sequence, item })?;
        store.add_revocation(verify_revocation(&signed, &root)?)?;
    }
    store.raise_floor(&keys.publisher.certificate.publisher, &name(FLOORED)?, 5)?;
    Ok(store)
}

fn test_publishers(keys: &KeySet) -> Result<(PublisherKey, PublisherKey)> {
    Ok((keys.test_publisher(OTHER, &[OTHER])?, keys.test_publisher(REVOKED, &[REVOKED])?))
}

/// Every bad variant of the module `image` with `description`, whose manifest must be of kind service.
pub fn variants(keys: &KeySet, description: &ModuleDescription, image: &[u8]) -> Result<Vec<Variant>> {
    let payload = compress(image)?;
    let good = manifest(description, image, &payload, Codec::Zstd, &keys.publisher)?;
    let good = Parts::sign(&good, &payload, &keys.publisher.key)?;
    let (other, revoked) = test_publishers(keys)?;
    let mut tamper = Tamper { keys, description, image, payload, good, other, revoked, variants: Vec::new() };
    tamper.flipped_bits()?;
    tamper.truncated()?;
    tamper.bad_header()?;
    tamper.swapped_signatures()?;
    tamper.bad_keys()?;
    tamper.bad_manifests()?;
    tamper.mixed()?;
    tamper.bad_payloads()?;
    tamper.beyond_authority()?;
    Ok(tamper.variants)
}

impl Tamper<'_> {
    fn add(&mut self, name: &str, bytes: Vec<u8>, expected: &'static str) {
        self.variants.push(Variant { name: name.into(), bytes, expected });
    }

    fn good_manifest(&self) -> Result<Manifest> {
        manifest(self.description, self.image, &self.payload, Codec::Zstd, &self.keys.publisher)
    }

    /// A validly signed package whose manifest was changed before signing.
    fn signed_with(&self, change: impl FnOnce(&mut Manifest)) -> Result<Vec<u8>> {
        let mut manifest = self.good_manifest()?;
        change(&mut manifest);
        Parts::sign(&manifest, &self.payload, &self.keys.publisher.key)?.assemble()
    }

    fn flipped_bits(&mut self) -> Result<()> {
        let bytes = self.good.assemble()?;
        let sig = self.good.binary_sig.len();
        let manifest = PACKAGE_HEADER_LEN;
        let payload = manifest + self.good.manifest.len();
        let package_sig = bytes.len() - 3 * sig;
        let places = [
            ("magic", 0, "Package(BadMagic)"),
            ("format", 8, "Package(BadFormat)"),
            ("algorithm", 10, "AlgorithmMismatch"),
            ("manifest length", 12, "Package(TotalLength)"),
            ("key id", 16, "UnknownKey"),
            ("payload length", 48, "Package(TotalLength)"),
            ("total length", 56, "Package(TotalLength)"),
            ("signature length", 64, "Package(TotalLength)"),
            ("reserved bytes", 100, "Package(ReservedNotZero)"),
            ("first manifest byte", manifest, "PackageSignature"),
            ("last manifest byte", payload - 1, "PackageSignature"),
            ("first payload byte", payload, "PackageSignature"),
            ("last payload byte", package_sig - 1, "PackageSignature"),
            ("package signature", package_sig + 7, "PackageSignature"),
            ("manifest signature", package_sig + sig + 7, "ManifestSignature"),
            ("binary signature", package_sig + 2 * sig + 7, "BinarySignature"),
            ("last byte", bytes.len() - 1, "BinarySignature"),
        ];
        for (place, at, expected) in places {
            let mut flipped = bytes.clone();
            *flipped.get_mut(at).context("place beyond the package")? ^= 1;
            self.add(&format!("flipped bit in {place}"), flipped, expected);
        }
        Ok(())
    }

    fn truncated(&mut self) -> Result<()> {
        let bytes = self.good.assemble()?;
        let sig = self.good.binary_sig.len();
        let payload = PACKAGE_HEADER_LEN + self.good.manifest.len();
        let cuts = [
            ("to nothing", 0),
            ("in the magic", 4),
            ("before the key id", 16),
            ("before the lengths", 48),
            ("in the reserved bytes", PACKAGE_HEADER_LEN - 1),
            ("after the header", PACKAGE_HEADER_LEN),
            ("in the manifest", PACKAGE_HEADER_LEN + 1),
            ("before the payload", payload),
            ("in the payload", payload + 1),
            ("before the package signature", bytes.len() - 3 * sig),
            ("before the manifest signature", bytes.len() - 2 * sig),
            ("before the binary signature", bytes.len() - sig),
            ("by one byte", bytes.len() - 1),
        ];
        for (place, len) in cuts {
            let expected =
                if len < PACKAGE_HEADER_LEN { "Package(HeaderTruncated)" } else { "Package(Truncated)" };
            let cut = bytes.get(..len).context("cut beyond the package")?.to_vec();
            self.add(&format!("truncated {place}"), cut, expected);
        }
        let trailing = [&bytes[..], &[0]].concat();
        self.add("trailing byte", trailing, "Package(TrailingBytes)");
        self.add("two packages in one file", bytes.repeat(2), "Package(TrailingBytes)");
        Ok(())
    }

    /// Headers with lengths that no package has. Everything is refused before a signature is looked at.
    fn bad_header(&mut self) -> Result<()> {
        let bytes = self.good.assemble()?;
        let cases: [(&str, usize, &[u8], &'static str); 6] = [
            ("manifest length zero", 12, &[0; 4], "Package(ManifestLength)"),
            ("manifest length maximal", 12, &[0xff; 4], "Package(ManifestLength)"),
            ("payload length zero", 48, &[0; 8], "Package(PayloadLength)"),
            ("payload length maximal", 48, &[0xff; 8], "Package(PayloadLength)"),
            ("signature length zero", 64, &[0; 4], "Package(SignatureLength)"),
            ("signature length maximal", 64, &[0xff; 4], "Package(SignatureLength)"),
        ];
        for (what, at, value, expected) in cases {
            let mut bad = bytes.clone();
            let field = bad.get_mut(at..at + value.len()).context("field beyond the package")?;
            field.copy_from_slice(value);
            self.add(what, bad, expected);
        }
        Ok(())
    }

    fn swapped_signatures(&mut self) -> Result<()> {
        let key = &self.keys.publisher.key;
        let good = &self.good;
        let (package, manifest, binary) = (&good.package_sig, &good.manifest_sig, &good.binary_sig);
        let zero = vec![0; binary.len()];
        let message = statement::manifest(good.algorithm, &good.key_id, &good.manifest);
        let manifest_as_package = key.sign(Domain::Package, message.as_bytes())?;
        let message = statement::binary(&self.good_manifest()?);
        let binary_as_manifest = key.sign(Domain::Manifest, message.as_bytes())?;
        let of_package = |sig: &[u8]| Parts { package_sig: sig.to_vec(), ..good.clone() };
        let of_manifest = |sig: &[u8]| Parts { manifest_sig: sig.to_vec(), ..good.clone() };
        let of_binary = |sig: &[u8]| Parts { binary_sig: sig.to_vec(), ..good.clone() };
        let cases = [
            ("zero package signature", of_package(&zero), "PackageSignature"),
            ("zero manifest signature", of_manifest(&zero), "ManifestSignature"),
            ("zero binary signature", of_binary(&zero), "BinarySignature"),
            ("package signature in place of the manifest's", of_manifest(package), "ManifestSignature"),
            ("manifest signature in place of the binary's", of_binary(manifest), "BinarySignature"),
            ("binary signature in place of the package's", of_package(binary), "PackageSignature"),
            (
                "manifest signed in the package's domain",
                of_manifest(&manifest_as_package),
                "ManifestSignature",
            ),
            ("binary signed in the manifest's domain", of_binary(&binary_as_manifest), "BinarySignature"),
        ];
        for (what, parts, expected) in cases {
            self.add(what, parts.assemble()?, expected);
        }
        Ok(())
    }

    fn bad_keys(&mut self) -> Result<()> {
        let stranger = SigningKey::from_seed(&bulk_digest(&self.keys.publisher.key.seed()));
        let mut manifest = self.good_manifest()?;
        manifest.key_id = stranger.id();
        let unknown = Parts::sign(&manifest, &self.payload, &stranger)?.assemble()?;
        self.add("signed by an unknown key", unknown, "UnknownKey");

        let mut forged = Parts::sign(&self.good_manifest()?, &self.payload, &stranger)?;
        forged.key_id = self.keys.publisher.key.id();
        forged.sign_manifest(&stranger)?;
        forged.sign_package(&stranger)?;
        self.add("signed by another key than named", forged.assemble()?, "PackageSignature");

        let bytes = self.signed_by(&self.revoked, "revoked-module", |_| {})?;
        self.add("signed by a revoked key", bytes, "KeyRevoked");

        // The header and its signatures name the other publisher's key, the manifest the main one's.
        let mut parts = Parts::sign(&self.good_manifest()?, &self.payload, &self.other.key)?;
        parts.sign_package(&self.other.key)?;
        self.add("header and manifest name different keys", parts.assemble()?, "KeyMismatch");

        let mut parts = self.good.clone();
        parts.algorithm = 2;
        parts.sign_manifest(&self.keys.publisher.key)?;
        parts.sign_package(&self.keys.publisher.key)?;
        self.add("swapped algorithm", parts.assemble()?, "AlgorithmMismatch");
        Ok(())
    }

    /// The module under another name, signed by another publisher.
    fn signed_by(
        &self,
        publisher: &PublisherKey,
        module: &str,
        change: impl FnOnce(&mut Manifest),
    ) -> Result<Vec<u8>> {
        let mut manifest = self.good_manifest()?;
        manifest.publisher = publisher.certificate.publisher;
        manifest.key_id = publisher.key.id();
        manifest.name = name(module)?;
        manifest.service = None;
        change(&mut manifest);
        Parts::sign(&manifest, &self.payload, &publisher.key)?.assemble()
    }

    /// Manifests that are validly signed and malformed.
    fn bad_manifests(&mut self) -> Result<()> {
        let key = &self.keys.publisher.key;
        let encoded = self.good.manifest.clone();
        let mut cases: Vec<(&str, Vec<u8>, &'static str)> = Vec::new();
        cases.push((
            "signed trailing byte in the manifest",
            [&encoded[..], &[0]].concat(),
            "Manifest(Malformed)",
        ));
        let short = encoded.get(..encoded.len() - 1).context("empty manifest")?;
        cases.push(("signed manifest cut short", short.to_vec(), "Manifest(Malformed)"));
        let mut other = encoded.clone();
        *other.first_mut().context("empty manifest")? ^= 2;
        cases.push(("signed manifest of another format", other, "Manifest(BadFormat)"));
        let mut named = encoded.clone();
        *named.get_mut(3).context("short manifest")? = b'A';
        cases.push(("signed manifest with a bad name", named, "Manifest(BadName)"));
        for (what, manifest, expected) in cases {
            let mut parts = Parts { manifest, ..self.good.clone() };
            parts.sign_manifest(key)?;
            parts.sign_package(key)?;
            let bytes = parts.assemble()?;
            self.variants.push(Variant { name: what.into(), bytes, expected });
        }
        Ok(())
    }

    /// Parts of two validly signed packages put together.
    fn mixed(&mut self) -> Result<()> {
        let key = &self.keys.publisher.key;
        let mut newer = self.good_manifest()?;
        newer.version = Version { patch: newer.version.patch.wrapping_add(1), ..newer.version };
        let newer = Parts::sign(&newer, &self.payload, key)?;
        let mixed = Parts { binary_sig: newer.binary_sig.clone(), ..self.good.clone() };
        self.add("binary signature of another version", mixed.assemble()?, "BinarySignature");

        let mut mixed = self.good.clone();
        mixed.manifest = newer.manifest;
        mixed.sign_package(key)?;
        self.add("manifest of another version, package resigned", mixed.assemble()?, "ManifestSignature");

        let mut image = self.image.to_vec();
        let last = image.last_mut().context("empty image")?;
        *last ^= 1;
        let mut mixed = Parts { payload: compress(&image)?, ..self.good.clone() };
        if mixed.payload.len() != self.payload.len() {
            // A checksum is part of the payload, so that equal length never means equal content.
            mixed.payload.resize(self.payload.len(), 0);
        }
        mixed.sign_package(key)?;
        self.add("payload of another binary, package resigned", mixed.assemble()?, "PayloadDigest");

        let mut longer = self.good.clone();
        longer.payload.push(0);
        longer.sign_package(key)?;
        self.add("longer payload, package resigned", longer.assemble()?, "PayloadLength");

        let mut manifest = self.good_manifest()?;
        manifest.image_digest = bulk_digest(&image);
        let bytes = Parts::sign(&manifest, &self.payload, key)?.assemble()?;
        self.add("manifest with the digest of another image", bytes, "ImageDigest");
        Ok(())
    }

    /// Payloads that a publisher signed and that must not be decompressed, or not to the end.
    fn bad_payloads(&mut self) -> Result<()> {
        let plain = encode(self.image, false, true)?;
        let sizeless = encode(self.image, true, false)?;
        let cut = self.payload.get(..self.payload.len() - 5).context("short payload")?.to_vec();
        let mut wrong_sum = self.payload.clone();
        *wrong_sum.last_mut().context("empty payload")? ^= 1;
        let bomb = compress(&vec![0; 32 << 20])?;
        let cases = [
            ("payload without checksum", plain, "Payload(MissingChecksum)"),
            ("payload without content size", sizeless, "Payload(MissingContentSize)"),
            ("payload truncated by the publisher", cut, "Payload(Truncated)"),
            ("payload with a wrong checksum", wrong_sum, "Payload(ChecksumMismatch)"),
            ("payload of two frames", self.payload.repeat(2), "Payload(TrailingBytes)"),
            ("payload with trailing bytes", [&self.payload[..], b"x"].concat(), "Payload(TrailingBytes)"),
            ("payload that is a bomb", bomb, "Payload(ContentSizeMismatch)"),
            ("payload with too large a window", with_window(&self.payload, 27)?, "Payload(WindowTooLarge)"),
            ("payload that is no zstd frame", vec![0x55; 64], "Payload(BadMagic)"),
        ];
        for (what, payload, expected) in cases {
            let manifest =
                manifest(self.description, self.image, &payload, Codec::Zstd, &self.keys.publisher)?;
            let bytes = Parts::sign(&manifest, &payload, &self.keys.publisher.key)?.assemble()?;
            self.add(what, bytes, expected);
        }
        let page = sila_abi::sif::PAGE_SIZE;
        let bytes = self.signed_with(|m| m.image_len += page)?;
        self.add("declared image size too large", bytes, "Payload(ContentSizeMismatch)");
        let bytes = self.signed_with(|m| m.image_len -= page)?;
        self.add("declared image size too small", bytes, "Payload(ContentSizeMismatch)");
        Ok(())
    }

    /// Validly signed packages that go beyond what their publisher, the floors or the image allow.
    fn beyond_authority(&mut self) -> Result<()> {
        let bytes = self.signed_by(&self.other, "counter", |m| m.requests = Default::default())?;
        self.add("name outside the publisher's namespace", bytes, "Namespace");
        let bytes = self.signed_by(&self.other, "other-agent", |m| {
            m.requests = Default::default();
            m.kind = ModuleKind::Agent;
        })?;
        self.add("agent of a publisher that may not sign agents", bytes, "AgentNotAllowed");
        let bytes = self.signed_by(&self.other, "other-big", |m| {
            m.requests = Default::default();
            m.resources.frames = 1 << 30;
        })?;
        self.add("more frames than the ceiling", bytes, "ResourceCeiling");
        if !self.good_manifest()?.requests.is_empty() {
            let bytes = self.signed_by(&self.other, "other-greedy", |m| {
                m.resources.frames = 1;
                m.resources.object_bytes = 1;
                m.resources.max_priority = 1;
            })?;
            self.add("capability request beyond the ceiling", bytes, "RequestCeiling");
        }
        let publisher = self.other.certificate.publisher;
        let bytes = self.signed_with(|m| m.publisher = publisher)?;
        self.add("publisher of another certificate", bytes, "PublisherMismatch");
        let (floored, recalled) = (name(FLOORED)?, name(RECALLED)?);
        let bytes = self.signed_with(|m| {
            m.name = floored;
            m.security_version = 4;
        })?;
        self.add("security version below the floor", bytes, "BelowFloor");
        let bytes = self.signed_with(|m| {
            m.name = recalled;
            m.version = Version::new(1, 0, 0);
        })?;
        self.add("revoked version", bytes, "VersionRevoked");
        let bytes = self.signed_with(|m| m.entry += 1)?;
        self.add("entry of the manifest differs from the image's", bytes, "EntryMismatch");
        let entry = self.good_manifest()?.entry;
        let bytes = self.signed_with(|m| m.contract.fault_entry = Some(entry ^ (1 << 40)))?;
        self.add("fault entry outside the code", bytes, "FaultEntryOutsideCode");
        let mut image = self.image.to_vec();
        *image.get_mut(8).context("short image")? = 99;
        let bytes = self.signed_image(&image)?;
        self.add("image of another ABI version", bytes, "Image(AbiVersion)");
        Ok(())
    }

    /// A validly signed package of an image that `manifest` would refuse to describe.
    fn signed_image(&self, image: &[u8]) -> Result<Vec<u8>> {
        let payload = compress(image)?;
        let mut manifest = self.good_manifest()?;
        manifest.image_digest = bulk_digest(image);
        manifest.image_len = image.len() as u64;
        manifest.payload_digest = bulk_digest(&payload);
        manifest.payload_len = payload.len() as u64;
        Parts::sign(&manifest, &payload, &self.keys.publisher.key)?.assemble()
    }
}

fn encode(image: &[u8], checksum: bool, size: bool) -> Result<Vec<u8>> {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), ZSTD_LEVEL)?;
    encoder.include_checksum(checksum)?;
    encoder.include_contentsize(size)?;
    if size {
        encoder.set_pledged_src_size(Some(image.len() as u64))?;
    }
    encoder.write_all(image)?;
    Ok(encoder.finish()?)
}

/// The same frame, saying that a decoder needs a window of 2^`log` bytes.
fn with_window(frame: &[u8], log: u8) -> Result<Vec<u8>> {
    let [m0, m1, m2, m3, descriptor, rest @ ..] = frame else { bail!("short frame") };
    if descriptor & 0x20 == 0 || descriptor >> 6 == 0 {
        bail!("the frame has a window already, or a size of one byte");
    }
    let head = [*m0, *m1, *m2, *m3, descriptor & !0x20, (log - 10) << 3];
    Ok([&head[..], rest].concat())
}
