//! The verification of packages: what ModuleManager itself checks before anything is decompressed.
//!
//! The kernel trusts none of this and checks manifest and binary again. These checks keep unsigned bytes from the
//! decompressor, and tell a requester early and exactly what is wrong.

use crate::catalogue::{Origin, PackageRef};
use crate::facts::Facts;
use crate::keys::Keys;
use sila_abi::package::{LoadProof, PACKAGE_HEADER_LEN, Package, PackageHeader};
use sila_abi::protocol::module_manager::{Failure, LoadError};
use sila_crypto::chain::{ChainError, check_payload, verify_binary, verify_manifest, verify_package};
use sila_crypto::hash::id_digest;

/// The bytes of a package in the bundle, or in its own Region.
#[must_use]
pub fn package_bytes<'a>(bundle: &'a [u8], package: &PackageRef) -> Option<&'a [u8]> {
    let start = usize::try_from(package.offset).ok()?;
    let len = usize::try_from(package.len).ok()?;
    bundle.get(start..start.checked_add(len)?)
}

/// Verifies a package: its signature before anything in it is read but the header, then the manifest, then that the
/// payload is the manifest's.
///
/// # Errors
/// The rule that it breaks.
pub fn verify(bundle: &[u8], package: &PackageRef, keys: &mut Keys) -> Result<Facts, Failure> {
    let bytes = package_bytes(bundle, package).ok_or(LoadError::BundleUnreadable)?;
    if let Ok(header) = PackageHeader::parse(bytes) {
        keys.prepare(&header.key_id).map_err(failure)?;
    }
    let keys = &*keys;
    let verified = verify_package(bytes, keys).map_err(failure)?;
    let manifest = verify_manifest(&LoadProof::of_package(verified.get()), keys).map_err(failure)?;
    check_payload(&verified, &manifest).map_err(failure)?;
    if package.origin == Origin::Depot {
        // The package signature does not cover this one, so that somebody could have damaged it on the way; the kernel
        // would see it, and too late for another package to be tried.
        let (length, digest) = (manifest.image_len, manifest.image_digest);
        verify_binary(&manifest, length, &digest, verified.binary_sig, keys).map_err(failure)?;
    }
    let payload = package.offset + (PACKAGE_HEADER_LEN + verified.manifest.len()) as u64;
    Ok(Facts::of(&manifest, id_digest(verified.manifest), payload))
}

/// The proof of a load that follows from a package, for the kernel.
///
/// # Errors
/// [`LoadError::BundleUnreadable`].
pub fn proof_of<'a>(bundle: &'a [u8], package: &PackageRef) -> Result<LoadProof<'a>, LoadError> {
    let bytes = package_bytes(bundle, package).ok_or(LoadError::BundleUnreadable)?;
    let parts = Package::parse(bytes).map_err(|_| LoadError::PackageMalformed)?;
    Ok(LoadProof::of_package(&parts))
}

/// The failure that a rule of the chain means. Word 0 is the rule's number, so that nothing is lost.
#[must_use]
pub fn failure(error: ChainError) -> Failure {
    let kind = match error {
        ChainError::Package(_) => LoadError::PackageMalformed,
        ChainError::Manifest(_) => LoadError::ManifestMalformed,
        ChainError::UnknownKey => LoadError::PackageKeyUnknown,
        ChainError::KeyRevoked => LoadError::PackageKeyRevoked,
        ChainError::WrongPurpose => LoadError::WrongPurpose,
        ChainError::AlgorithmMismatch | ChainError::AlgorithmNotAllowed => LoadError::PackageAlgorithm,
        ChainError::PackageSignature => LoadError::PackageSignature,
        ChainError::ManifestSignature => LoadError::ManifestSignature,
        ChainError::KeyMismatch | ChainError::PayloadLength => LoadError::PackageHeaderMismatch,
        ChainError::PayloadDigest => LoadError::PayloadDigest,
        ChainError::PublisherMismatch => LoadError::WrongPublisher,
        ChainError::Namespace => LoadError::Namespace,
        ChainError::VersionOutsideCertificate => LoadError::PublisherVersion,
        _ => LoadError::PackageRejected,
    };
    Failure::with(kind, error.number().into(), 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sila_abi::package::PackageError;
    use sila_abi::record::{Name, Version};

    #[test]
    fn rules_without_an_error_of_their_own_show_as_their_sentences() {
        use ChainError::{AgentNotAllowed, BelowFloor, NoMemory, ResourceCeiling, VersionRevoked};
        for rule in [VersionRevoked, BelowFloor, ResourceCeiling, AgentNotAllowed, NoMemory] {
            let shown = failure(rule).to_string();
            assert!(shown.ends_with(&format!(": {rule}")), "{shown}");
        }
    }

    #[test]
    fn each_rule_of_the_chain_keeps_its_number() {
        let cases = [
            (ChainError::Package(PackageError::Truncated), LoadError::PackageMalformed),
            (ChainError::UnknownKey, LoadError::PackageKeyUnknown),
            (ChainError::KeyRevoked, LoadError::PackageKeyRevoked),
            (ChainError::PackageSignature, LoadError::PackageSignature),
            (ChainError::ManifestSignature, LoadError::ManifestSignature),
            (ChainError::PayloadDigest, LoadError::PayloadDigest),
            (ChainError::PublisherMismatch, LoadError::WrongPublisher),
            (ChainError::Namespace, LoadError::Namespace),
            (ChainError::BelowFloor, LoadError::PackageRejected),
        ];
        for (rule, error) in cases {
            assert_eq!(failure(rule), Failure::with(error, rule.number().into(), 0), "{rule}");
        }
    }

    #[test]
    fn a_package_outside_the_bundle_is_not_read() {
        let package = |offset, len| PackageRef {
            origin: crate::catalogue::Origin::Bundle,
            name: Name::new("a").unwrap(),
            version: Version::MIN,
            offset,
            len,
        };
        let bundle = [0; 100];
        assert_eq!(package_bytes(&bundle, &package(90, 10)).map(<[u8]>::len), Some(10));
        for (offset, len) in [(90, 11), (101, 0), (u64::MAX, 1), (1, u64::MAX)] {
            assert_eq!(package_bytes(&bundle, &package(offset, len)), None);
            assert_eq!(proof_of(&bundle, &package(offset, len)).err(), Some(LoadError::BundleUnreadable));
        }
        assert_eq!(proof_of(&bundle, &package(0, 100)).err(), Some(LoadError::PackageMalformed));
    }
}
