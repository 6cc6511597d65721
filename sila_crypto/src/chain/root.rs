//! From the root set to the boot manifest, certificates, revocations and bootstrap modules.

use super::{BinaryFacts, ChainError, KeySource, Verified, check_authority, statement};
use crate::hash::id_digest;
use crate::scheme::{Domain, Scheme, VerifyingKey};
use sila_abi::boot::{BootManifest, BootModule};
use sila_abi::manifest::Manifest;
use sila_abi::policy::Policy;
use sila_abi::record::Digest;
use sila_abi::trust::{
    Certificate, FloorRecord, MAX_SIGNED_FLOORS, Purpose, Record, RecordError, RecordKind, Revocation,
    RootSet, SignatureSet, SignedRecord,
};
use zerocopy::IntoBytes;

/// A root set in force. Its keys are decoded when a signature needs them: records are rare, and a decoded key is large.
#[derive(Clone, Debug)]
pub struct RootKeys {
    set: RootSet,
    digest: Digest,
}

impl RootKeys {
    /// Decodes a root set. Where it came from is for the caller to trust: at boot, the loader (decision 0013).
    pub fn decode(encoded: &[u8]) -> Result<Self, ChainError> {
        Self::of(RootSet::decode(encoded)?, encoded)
    }

    fn of(set: RootSet, encoded: &[u8]) -> Result<Self, ChainError> {
        for key in &set.keys {
            let scheme = Scheme::find(key.algorithm).map_err(|_| ChainError::PublicKey)?;
            if key.bytes.len() != scheme.key_len {
                return Err(ChainError::PublicKey);
            }
        }
        Ok(Self { set, digest: id_digest(encoded) })
    }

    /// The root set.
    pub const fn set(&self) -> &RootSet {
        &self.set
    }

    /// What the root set is for.
    pub const fn purpose(&self) -> Purpose {
        self.set.purpose
    }

    /// Id digest of the root set.
    pub const fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Checks that enough root keys signed `encoded` in `domain`. Every signature given must be valid.
    fn check(&self, domain: Domain, encoded: &[u8], set: &SignatureSet) -> Result<(), ChainError> {
        set.validate()?;
        if set.signatures.len() < usize::from(self.set.threshold) {
            return Err(ChainError::Threshold);
        }
        // All that costs no decoded key comes first: a decoded key takes memory that is bounded.
        for signature in &set.signatures {
            let key =
                self.set.keys.get(usize::from(signature.key_index)).ok_or(ChainError::UnknownRootKey)?;
            let scheme = Scheme::find(key.algorithm).map_err(|_| ChainError::PublicKey)?;
            if signature.bytes.len() != scheme.signature_len {
                return Err(ChainError::RecordSignature);
            }
        }
        for signature in &set.signatures {
            let key =
                self.set.keys.get(usize::from(signature.key_index)).ok_or(ChainError::UnknownRootKey)?;
            let key = VerifyingKey::decode(key.algorithm, &key.bytes).map_err(|_| ChainError::PublicKey)?;
            let message = statement::record(key.scheme().number, encoded);
            let verdict = key.verify(domain, message.as_bytes(), &signature.bytes);
            verdict.map_err(|_| ChainError::RecordSignature)?;
        }
        Ok(())
    }
}

/// A record whose root signatures were checked.
#[derive(Clone, Debug)]
pub enum VerifiedRecord {
    /// A certificate.
    Certificate(Verified<Certificate>),
    /// A revocation.
    Revocation(Verified<Revocation>),
    /// A successor of the root set.
    RootSet(Verified<RootSet>),
    /// A policy.
    Policy(Verified<Policy>),
    /// Floors.
    Floors(Verified<FloorRecord>),
}

impl VerifiedRecord {
    /// Its kind.
    pub const fn kind(&self) -> RecordKind {
        match self {
            Self::Certificate(_) => RecordKind::Certificate,
            Self::Revocation(_) => RecordKind::Revocation,
            Self::RootSet(_) => RecordKind::RootSet,
            Self::Policy(_) => RecordKind::Policy,
            Self::Floors(_) => RecordKind::Floors,
        }
    }

    /// Its sequence.
    pub fn sequence(&self) -> u64 {
        match self {
            Self::Certificate(record) => record.sequence,
            Self::Revocation(record) => record.sequence,
            Self::RootSet(record) => record.sequence,
            Self::Policy(record) => record.sequence,
            Self::Floors(record) => record.sequence,
        }
    }
}

/// Checks the root signatures over a record of any kind, then decodes it.
pub fn verify_record(signed: &SignedRecord, root: &RootKeys) -> Result<VerifiedRecord, ChainError> {
    Ok(match signed.kind {
        RecordKind::Certificate => VerifiedRecord::Certificate(verify_certificate(signed, root)?),
        RecordKind::Revocation => VerifiedRecord::Revocation(verify_revocation(signed, root)?),
        RecordKind::RootSet => VerifiedRecord::RootSet(verify_root_set(signed, root)?),
        RecordKind::Policy => VerifiedRecord::Policy(Verified(signed_by_root(signed, root)?)),
        RecordKind::Floors => {
            let floors: FloorRecord = signed_by_root(signed, root)?;
            if floors.floors.len() > MAX_SIGNED_FLOORS {
                return Err(RecordError::TooMany.into());
            }
            VerifiedRecord::Floors(Verified(floors))
        }
    })
}

/// Checks the root signatures over a record in the domain of its kind, then decodes it.
fn signed_by_root<T: Record>(signed: &SignedRecord, root: &RootKeys) -> Result<T, ChainError> {
    root.check(Domain::of(signed.kind), &signed.record, &signed.signatures)?;
    Ok(T::decode(&signed.record)?)
}

fn is_kind(signed: &SignedRecord, kind: RecordKind) -> Result<(), ChainError> {
    if signed.kind == kind { Ok(()) } else { Err(ChainError::RecordKind) }
}

/// Checks that the keys in force, and enough of its own, signed a new root set. It is for the same purpose, and its
/// sequence is above the one in force.
pub fn verify_root_set(signed: &SignedRecord, root: &RootKeys) -> Result<Verified<RootSet>, ChainError> {
    is_kind(signed, RecordKind::RootSet)?;
    let set: RootSet = signed_by_root(signed, root)?;
    if set.purpose != root.purpose() {
        return Err(ChainError::WrongPurpose);
    }
    if set.sequence <= root.set.sequence {
        return Err(ChainError::StaleSequence);
    }
    let successor = RootKeys::of(set, &signed.record)?;
    let own = successor.check(Domain::RootSet, &signed.record, &signed.successor_signatures);
    own.map_err(|e| if e == ChainError::Threshold { ChainError::SuccessorThreshold } else { e })?;
    Ok(Verified(successor.set))
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
    let others = manifest.certificates.iter().any(|c| c.purpose != root.purpose());
    if manifest.purpose != root.purpose() || others {
        return Err(ChainError::WrongPurpose);
    }
    Ok(Verified(manifest))
}

/// Checks the root signatures over a certificate, then decodes it. Its purpose must be the root set's.
pub fn verify_certificate(
    signed: &SignedRecord,
    root: &RootKeys,
) -> Result<Verified<Certificate>, ChainError> {
    is_kind(signed, RecordKind::Certificate)?;
    let certificate: Certificate = signed_by_root(signed, root)?;
    if certificate.purpose != root.purpose() {
        return Err(ChainError::WrongPurpose);
    }
    Ok(Verified(certificate))
}

/// Checks the root signatures over a revocation, then decodes it.
pub fn verify_revocation(signed: &SignedRecord, root: &RootKeys) -> Result<Verified<Revocation>, ChainError> {
    is_kind(signed, RecordKind::Revocation)?;
    Ok(Verified(signed_by_root(signed, root)?))
}

/// Checks that `encoded` is the manifest that the boot manifest lists for `module`, and its publisher's authority.
/// The root signature over the boot manifest vouches for it by digest.
///
/// ```
/// # use sila_abi::boot::{BootManifest, BootModule};
/// # use sila_abi::manifest::Manifest;
/// # use sila_crypto::Verified;
/// # use sila_crypto::chain::*;
/// fn step(boot: &Verified<BootManifest>, module: &BootModule, encoded: &[u8], keys: &dyn KeySource) {
///     let _ = verify_boot_module(boot, module, encoded, keys);
/// }
/// ```
/// Not by a boot manifest that no root key signed:
/// ```compile_fail,E0308
/// # use sila_abi::boot::{BootManifest, BootModule};
/// # use sila_abi::manifest::Manifest;
/// # use sila_crypto::Verified;
/// # use sila_crypto::chain::*;
/// fn step(boot: &BootManifest, module: &BootModule, encoded: &[u8], keys: &dyn KeySource) {
///     let _ = verify_boot_module(boot, module, encoded, keys);
/// }
/// ```
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
///
/// ```
/// # use sila_abi::boot::{BootManifest, BootModule};
/// # use sila_abi::manifest::Manifest;
/// # use sila_crypto::Verified;
/// # use sila_crypto::chain::*;
/// fn step(manifest: &Verified<Manifest>, boot: &Verified<BootManifest>, digest: &[u8; 32]) {
///     let _ = check_boot_image(manifest, boot, 4096, digest);
/// }
/// ```
/// Not by a manifest that nobody verified:
/// ```compile_fail,E0308
/// # use sila_abi::boot::{BootManifest, BootModule};
/// # use sila_abi::manifest::Manifest;
/// # use sila_crypto::Verified;
/// # use sila_crypto::chain::*;
/// fn step(manifest: &Manifest, boot: &Verified<BootManifest>, digest: &[u8; 32]) {
///     let _ = check_boot_image(manifest, boot, 4096, digest);
/// }
/// ```
/// nor by a boot manifest that no root key signed:
/// ```compile_fail,E0308
/// # use sila_abi::boot::{BootManifest, BootModule};
/// # use sila_abi::manifest::Manifest;
/// # use sila_crypto::Verified;
/// # use sila_crypto::chain::*;
/// fn step(manifest: &Verified<Manifest>, boot: &BootManifest, digest: &[u8; 32]) {
///     let _ = check_boot_image(manifest, boot, 4096, digest);
/// }
/// ```
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
