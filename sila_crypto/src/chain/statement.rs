//! The fixed records that are signed, made the same way by signer and verifier.

use crate::hash::id_digest;
use sila_abi::manifest::Manifest;
use sila_abi::package::{BinaryStatement, ManifestStatement, PackageStatement};
use sila_abi::record::{Digest, KeyId};
use sila_abi::trust::RecordStatement;
use zerocopy::little_endian::{U16, U32, U64};

/// What the package signature signs. `digest` is the bulk digest of header, manifest and payload.
pub fn package(algorithm: u16, key_id: &KeyId, signed_len: u64, digest: &Digest) -> PackageStatement {
    PackageStatement {
        algorithm: U16::new(algorithm),
        reserved: [0; 6],
        key_id: *key_id,
        signed_len: U64::new(signed_len),
        digest: *digest,
    }
}

/// What the manifest signature signs.
pub fn manifest(algorithm: u16, key_id: &KeyId, encoded: &[u8]) -> ManifestStatement {
    ManifestStatement {
        algorithm: U16::new(algorithm),
        reserved: [0; 6],
        key_id: *key_id,
        manifest_len: U64::new(encoded.len() as u64),
        digest: id_digest(encoded),
    }
}

/// What the binary signature signs: the manifest's facts about the image.
pub fn binary(manifest: &Manifest) -> BinaryStatement {
    let version = manifest.version;
    BinaryStatement {
        algorithm: U16::new(manifest.algorithm),
        version: [version.major, version.minor, version.patch].map(U16::new),
        key_id: manifest.key_id,
        publisher: *manifest.publisher.padded(),
        name: *manifest.name.padded(),
        image_len: U64::new(manifest.image_len),
        security_version: U32::new(manifest.security_version),
        reserved: [0; 12],
        image_digest: manifest.image_digest,
    }
}

/// What a root key signs.
pub fn record(algorithm: u16, encoded: &[u8]) -> RecordStatement {
    RecordStatement {
        algorithm: U16::new(algorithm),
        reserved: [0; 6],
        record_len: U64::new(encoded.len() as u64),
        digest: id_digest(encoded),
    }
}
