//! The two hashes.
//!
//! The **id hash** is SHA3-256; it identifies records and keys. The **bulk hash** is TurboSHAKE128 with 32 bytes
//! of output (RFC 9861, domain byte 0x42); it covers images and packages. Why these two, with the counts, is decision
//! 0010 in the book.

use sha3::{Digest as _, Sha3_256};
use sila_abi::record::{Digest, KeyId, Name, Version};
use turboshake::CTurboShake128;
use turboshake::digest::{ExtendableOutput, Update, XofReader};

/// Separates SILA's bulk digests from other uses of TurboSHAKE.
const BULK_DOMAIN: u8 = 0x42;

/// The bulk hash, fed piece by piece. How the input is cut into pieces does not change the digest.
#[derive(Clone, Default)]
pub struct BulkHasher {
    state: CTurboShake128<BULK_DOMAIN>,
}

impl BulkHasher {
    /// A hasher that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.state.update(piece);
    }

    /// The digest of all pieces.
    pub fn finalize(self) -> Digest {
        let mut digest = [0; 32];
        self.state.finalize_xof().read(&mut digest);
        digest
    }
}

/// The bulk digest of `bytes`.
pub fn bulk_digest(bytes: &[u8]) -> Digest {
    let mut hasher = BulkHasher::new();
    hasher.update(bytes);
    hasher.finalize()
}

/// The id digest (SHA3-256) of `bytes`.
pub fn id_digest(bytes: &[u8]) -> Digest {
    Sha3_256::digest(bytes).into()
}

/// The id of a public key: the id digest of scheme number (u16, little-endian) and key bytes.
pub fn key_id(algorithm: u16, key: &[u8]) -> KeyId {
    let mut hasher = Sha3_256::new();
    sha3::Digest::update(&mut hasher, algorithm.to_le_bytes());
    sha3::Digest::update(&mut hasher, key);
    hasher.finalize().into()
}

/// The id of one version of a module, by which the module cache finds it (specification:
/// `module_identifier_hash`): the id digest of the lengths and bytes of publisher and name, and of the version.
pub fn module_id(publisher: &Name, name: &Name, version: Version) -> Digest {
    let mut hasher = Sha3_256::new();
    for name in [publisher, name] {
        let bytes = name.as_bytes();
        sha3::Digest::update(&mut hasher, [bytes.len() as u8]);
        sha3::Digest::update(&mut hasher, bytes);
    }
    sha3::Digest::update(&mut hasher, version.to_word().to_le_bytes());
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn id_digest_is_sha3_256() {
        let hex: String = id_digest(b"abc").iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, "3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532");
    }

    #[test]
    fn key_id_depends_on_the_algorithm() {
        assert_ne!(key_id(1, b"key"), key_id(2, b"key"));
    }

    proptest! {
        #[test]
        fn bulk_digest_does_not_depend_on_pieces(data: Vec<u8>, cut in 0usize..600) {
            let cut = cut.min(data.len());
            let mut hasher = BulkHasher::new();
            hasher.update(&data[..cut]);
            hasher.update(&data[cut..]);
            prop_assert_eq!(hasher.finalize(), bulk_digest(&data));
        }

        #[test]
        fn bulk_digest_changes_with_any_bit(mut data in proptest::collection::vec(any::<u8>(), 1..600), bit: usize) {
            let before = bulk_digest(&data);
            let bit = bit % (data.len() * 8);
            data[bit / 8] ^= 1 << (bit % 8);
            prop_assert_ne!(bulk_digest(&data), before);
        }
    }
}
