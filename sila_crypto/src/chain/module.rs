//! From a package or load proof to a verified manifest and binary.

use super::{ChainError, KeySource, Verified, statement, usable_publisher};
use crate::hash::bulk_digest;
use crate::scheme::Domain;
use sila_abi::manifest::{Manifest, ModuleKind};
use sila_abi::package::{LoadProof, Package};
use sila_abi::record::{Digest, Name};
use sila_abi::rights::Rights;
use sila_abi::sif::{Perm, Sif, SifHeader};
use sila_abi::trust::{Ceiling, Certificate};
use zerocopy::IntoBytes;

/// Checks the package signature of `bytes`, which must be exactly one package. Nothing in it is parsed but the
/// header. ModuleManager's first step; what it proves is that the payload may be given to a decompressor.
pub fn verify_package<'a>(
    bytes: &'a [u8],
    keys: &dyn KeySource,
) -> Result<Verified<Package<'a>>, ChainError> {
    let package = Package::parse(bytes).map_err(ChainError::Package)?;
    let algorithm = package.header.algorithm.get();
    let key_id = &package.header.key_id;
    let publisher = usable_publisher(keys, key_id, algorithm)?;
    let digest = bulk_digest(package.signed);
    let message = statement::package(algorithm, key_id, package.signed.len() as u64, &digest);
    let verdict = publisher.key.verify(Domain::Package, message.as_bytes(), package.package_sig);
    verdict.map_err(|_| ChainError::PackageSignature)?;
    Ok(Verified(package))
}

/// Checks the manifest signature of `proof`, then decodes the manifest and checks all that key, certificate,
/// revocations and floor say about it.
pub fn verify_manifest(
    proof: &LoadProof<'_>,
    keys: &dyn KeySource,
) -> Result<Verified<Manifest>, ChainError> {
    let publisher = usable_publisher(keys, proof.key_id, proof.algorithm)?;
    let message = statement::manifest(proof.algorithm, proof.key_id, proof.manifest);
    let verdict = publisher.key.verify(Domain::Manifest, message.as_bytes(), proof.manifest_sig);
    verdict.map_err(|_| ChainError::ManifestSignature)?;
    let manifest = Manifest::decode(proof.manifest)?;
    if manifest.key_id != *proof.key_id {
        return Err(ChainError::KeyMismatch);
    }
    check_authority(&manifest, keys)?;
    Ok(Verified(manifest))
}

/// Checks everything about a manifest that may change after its signature was checked: key, revocations, purpose,
/// certificate, floor. The kernel calls it again in the last step of a load.
pub fn check_authority(manifest: &Manifest, keys: &dyn KeySource) -> Result<(), ChainError> {
    let publisher = usable_publisher(keys, &manifest.key_id, manifest.algorithm)?;
    check_certificate(manifest, publisher.certificate)?;
    let taken = |name: &Name| keys.is_claimed_by_another(&manifest.publisher, name);
    if taken(&manifest.name) || manifest.service.is_some_and(|service| taken(&service.name)) {
        return Err(ChainError::Namespace);
    }
    if keys.is_version_revoked(&manifest.publisher, &manifest.name, manifest.version) {
        return Err(ChainError::VersionRevoked);
    }
    if manifest.security_version < keys.floor(&manifest.publisher, &manifest.name) {
        return Err(ChainError::BelowFloor);
    }
    if manifest.image_len > keys.max_image_len() { Err(ChainError::ImageTooLong) } else { Ok(()) }
}

fn check_certificate(manifest: &Manifest, certificate: &Certificate) -> Result<(), ChainError> {
    if manifest.publisher != certificate.publisher {
        return Err(ChainError::PublisherMismatch);
    }
    let service = manifest.service.map(|service| service.name);
    if !certificate.covers_name(&manifest.name) || service.is_some_and(|s| !certificate.covers_name(&s)) {
        return Err(ChainError::Namespace);
    }
    if !certificate.versions.contains(manifest.version) {
        return Err(ChainError::VersionOutsideCertificate);
    }
    check_ceiling(manifest, &certificate.ceiling)
}

fn check_ceiling(manifest: &Manifest, ceiling: &Ceiling) -> Result<(), ChainError> {
    if manifest.kind == ModuleKind::Agent && !ceiling.agents {
        return Err(ChainError::AgentNotAllowed);
    }
    let resources = &manifest.resources;
    let beyond = resources.frames > ceiling.frames
        || resources.object_bytes > ceiling.object_bytes
        || resources.max_priority > ceiling.max_priority;
    if beyond {
        return Err(ChainError::ResourceCeiling);
    }
    for request in &manifest.requests {
        // ENDOW takes power away, so that no ceiling needs to allow it.
        let asked = request.rights & !Rights::ENDOW.bits();
        if asked & !ceiling.rights_of(request.object) != 0 {
            return Err(ChainError::RequestCeiling { slot: request.slot });
        }
    }
    Ok(())
}

/// Checks that a package's payload is the one its manifest names. After this it may be decompressed.
///
/// ```
/// # use sila_abi::manifest::Manifest;
/// # use sila_abi::package::Package;
/// # use sila_crypto::Verified;
/// # use sila_crypto::chain::*;
/// fn step(package: &Verified<Package<'_>>, manifest: &Verified<Manifest>) {
///     let _ = check_payload(package, manifest);
/// }
/// ```
/// Not of a package whose signature was not checked:
/// ```compile_fail,E0308
/// # use sila_abi::manifest::Manifest;
/// # use sila_abi::package::Package;
/// # use sila_crypto::Verified;
/// # use sila_crypto::chain::*;
/// fn step(package: &Package<'_>, manifest: &Verified<Manifest>) {
///     let _ = check_payload(package, manifest);
/// }
/// ```
/// nor by a manifest that nobody verified:
/// ```compile_fail,E0308
/// # use sila_abi::manifest::Manifest;
/// # use sila_abi::package::Package;
/// # use sila_crypto::Verified;
/// # use sila_crypto::chain::*;
/// fn step(package: &Verified<Package<'_>>, manifest: &Manifest) {
///     let _ = check_payload(package, manifest);
/// }
/// ```
pub fn check_payload(
    package: &Verified<Package<'_>>,
    manifest: &Verified<Manifest>,
) -> Result<(), ChainError> {
    if package.header.key_id != manifest.key_id {
        return Err(ChainError::KeyMismatch);
    }
    if package.header.algorithm.get() != manifest.algorithm {
        return Err(ChainError::AlgorithmMismatch);
    }
    if package.payload.len() as u64 != manifest.payload_len {
        return Err(ChainError::PayloadLength);
    }
    if bulk_digest(package.payload) != manifest.payload_digest {
        Err(ChainError::PayloadDigest)
    } else {
        Ok(())
    }
}

/// An image whose length, digest and signature are those of its manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BinaryFacts {
    /// Bytes of the image.
    pub image_len: u64,
    /// Bulk digest of the image.
    pub image_digest: Digest,
}

/// Checks the binary signature against what was really hashed: `image_len` bytes with bulk digest `digest`.
///
/// ```
/// # use sila_abi::manifest::Manifest;
/// # use sila_abi::package::Package;
/// # use sila_crypto::Verified;
/// # use sila_crypto::chain::*;
/// fn step(manifest: &Verified<Manifest>, digest: &[u8; 32], signature: &[u8], keys: &dyn KeySource) {
///     let _ = verify_binary(manifest, 4096, digest, signature, keys);
/// }
/// ```
/// Not against a manifest that nobody verified:
/// ```compile_fail,E0308
/// # use sila_abi::manifest::Manifest;
/// # use sila_abi::package::Package;
/// # use sila_crypto::Verified;
/// # use sila_crypto::chain::*;
/// fn step(manifest: &Manifest, digest: &[u8; 32], signature: &[u8], keys: &dyn KeySource) {
///     let _ = verify_binary(manifest, 4096, digest, signature, keys);
/// }
/// ```
pub fn verify_binary(
    manifest: &Verified<Manifest>,
    image_len: u64,
    digest: &Digest,
    signature: &[u8],
    keys: &dyn KeySource,
) -> Result<Verified<BinaryFacts>, ChainError> {
    if image_len != manifest.image_len {
        return Err(ChainError::ImageLength);
    }
    if *digest != manifest.image_digest {
        return Err(ChainError::ImageDigest);
    }
    let publisher = usable_publisher(keys, &manifest.key_id, manifest.algorithm)?;
    let message = statement::binary(manifest);
    let verdict = publisher.key.verify(Domain::Binary, message.as_bytes(), signature);
    verdict.map_err(|_| ChainError::BinarySignature)?;
    Ok(Verified(BinaryFacts { image_len, image_digest: *digest }))
}

/// Checks the first page of a verified image: header, entry, fault entry.
///
/// ```
/// # use sila_abi::manifest::Manifest;
/// # use sila_abi::package::Package;
/// # use sila_crypto::Verified;
/// # use sila_crypto::chain::*;
/// fn step(manifest: &Verified<Manifest>, binary: &Verified<BinaryFacts>, page: &[u8]) {
///     let _ = verify_image_header(manifest, binary, page);
/// }
/// ```
/// Not by a manifest that nobody verified:
/// ```compile_fail,E0308
/// # use sila_abi::manifest::Manifest;
/// # use sila_abi::package::Package;
/// # use sila_crypto::Verified;
/// # use sila_crypto::chain::*;
/// fn step(manifest: &Manifest, binary: &Verified<BinaryFacts>, page: &[u8]) {
///     let _ = verify_image_header(manifest, binary, page);
/// }
/// ```
/// nor before the binary's signature was checked:
/// ```compile_fail,E0308
/// # use sila_abi::manifest::Manifest;
/// # use sila_abi::package::Package;
/// # use sila_crypto::Verified;
/// # use sila_crypto::chain::*;
/// fn step(manifest: &Verified<Manifest>, binary: &BinaryFacts, page: &[u8]) {
///     let _ = verify_image_header(manifest, binary, page);
/// }
/// ```
pub fn verify_image_header(
    manifest: &Verified<Manifest>,
    binary: &Verified<BinaryFacts>,
    page: &[u8],
) -> Result<Verified<Sif>, ChainError> {
    let sif = SifHeader::parse(page, binary.image_len)?;
    if sif.entry() != manifest.entry {
        return Err(ChainError::EntryMismatch);
    }
    let in_code = |addr: u64| sif.segments().iter().any(|s| s.perm == Perm::RX && s.file_part_contains(addr));
    if manifest.contract.fault_entry.is_some_and(|addr| !in_code(addr)) {
        return Err(ChainError::FaultEntryOutsideCode);
    }
    Ok(Verified(sif))
}
