//! From the root set to the boot manifest, certificates, revocations and bootstrap modules.

use super::{BinaryFacts, ChainError, KeySource, Verified, check_authority, statement};
use crate::hash::id_digest;
use crate::scheme::{Domain, VerifyingKey};
use alloc::vec::Vec;
use sila_abi::boot::{BootManifest, BootModule};
use sila_abi::manifest::Manifest;
use sila_abi::record::Digest;
use sila_abi::trust::{Certificate, Purpose, Record, Revocation, RootSet, SignatureSet, SignedRecord};
use zerocopy::IntoBytes;

/// A root set with its keys decoded.
pub struct RootKeys {
    keys: Vec<VerifyingKey>,
    threshold: usize,
    purpose: Purpose,
    digest: Digest,
}

impl RootKeys {
    /// Decodes a root set. Where it came from is for the caller to trust: at boot, the loader (decision 0013).
    pub fn decode(encoded: &[u8]) -> Result<Self, ChainError> {
        let set = RootSet::decode(encoded)?;
        let mut keys = Vec::new();
        keys.try_reserve_exact(set.keys.len()).map_err(|_| ChainError::NoMemory)?;
        for key in &set.keys {
            keys.push(VerifyingKey::decode(key.algorithm, &key.bytes).map_err(|_| ChainError::PublicKey)?);
        }
        Ok(Self {
            keys,
            threshold: usize::from(set.threshold),
            purpose: set.purpose,
            digest: id_digest(encoded),
        })
    }

    /// What the root set is for.
    pub const fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// Id digest of the root set.
    pub const fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Checks that enough root keys signed `encoded` in `domain`. Every signature given must be valid.
    fn check(&self, domain: Domain, encoded: &[u8], set: &SignatureSet) -> Result<(), ChainError> {
        set.validate()?;
        if set.signatures.len() < self.threshold {
            return Err(ChainError::Threshold);
        }
        for signature in &set.signatures {
            let key = self.keys.get(usize::from(signature.key_index)).ok_or(ChainError::UnknownRootKey)?;
            let message = statement::record(key.scheme().number, encoded);
            let verdict = key.verify(domain, message.as_bytes(), &signature.bytes);
            verdict.map_err(|_| ChainError::RecordSignature)?;
        }
        Ok(())
    }
}

/// Checks the root signatures over a boot manifest, then decodes it. Its purpose, its root set and the purposes of
/// its certificates must be the root set's.
pub fn verify_boot_manifest(
    encoded: &[u8],
    signatures: &SignatureSet,
    root: &RootKeys,
) -> Result<Verified<BootManifest>, ChainError> {
    root.check(Domain::Boot, encoded, signatures)?;
    let manifest = BootManifest::decode(encoded)?;
    if manifest.root_set_digest != root.digest {
        return Err(ChainError::RootSetMismatch);
    }
    let others = manifest.certificates.iter().any(|c| c.purpose != root.purpose);
    if manifest.purpose != root.purpose || others {
        return Err(ChainError::WrongPurpose);
    }
    Ok(Verified(manifest))
}

/// Checks the root signatures over a certificate, then decodes it. Its purpose must be the root set's.
pub fn verify_certificate(
    signed: &SignedRecord,
    root: &RootKeys,
) -> Result<Verified<Certificate>, ChainError> {
    root.check(Domain::Certificate, &signed.record, &signed.signatures)?;
    let certificate = Certificate::decode(&signed.record)?;
    if certificate.purpose != root.purpose {
        return Err(ChainError::WrongPurpose);
    }
    Ok(Verified(certificate))
}

/// Checks the root signatures over a revocation, then decodes it.
pub fn verify_revocation(signed: &SignedRecord, root: &RootKeys) -> Result<Verified<Revocation>, ChainError> {
    root.check(Domain::Revocation, &signed.record, &signed.signatures)?;
    Ok(Verified(Revocation::decode(&signed.record)?))
}

/// Checks that `encoded` is the manifest that the boot manifest lists for `module`, and its publisher's authority.
/// The root signature over the boot manifest vouches for it by digest.
pub fn verify_boot_module(
    boot: &Verified<BootManifest>,
    module: &BootModule,
    encoded: &[u8],
    keys: &dyn KeySource,
) -> Result<Verified<Manifest>, ChainError> {
    let listed = boot.module(&module.name).ok_or(ChainError::UnknownBootModule)?;
    if id_digest(encoded) != listed.manifest_digest {
        return Err(ChainError::BootModuleDigest);
    }
    let manifest = Manifest::decode(encoded)?;
    if manifest.name != listed.name || manifest.image_digest != listed.image_digest {
        return Err(ChainError::BootModuleDigest);
    }
    check_authority(&manifest, keys)?;
    Ok(Verified(manifest))
}

/// Checks that what was hashed of a bootstrap module's image is what its verified manifest names. The root signature
/// over the boot manifest stands in for a binary signature.
pub fn check_boot_image(
    manifest: &Verified<Manifest>,
    boot: &Verified<BootManifest>,
    image_len: u64,
    digest: &Digest,
) -> Result<Verified<BinaryFacts>, ChainError> {
    let listed = boot.module(&manifest.name).ok_or(ChainError::UnknownBootModule)?;
    if image_len != manifest.image_len {
        return Err(ChainError::ImageLength);
    }
    if *digest != manifest.image_digest || *digest != listed.image_digest {
        return Err(ChainError::ImageDigest);
    }
    Ok(Verified(BinaryFacts { image_len, image_digest: *digest }))
}
