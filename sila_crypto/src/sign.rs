//! Key generation and signing. Host only (feature `std`).

use crate::hash::key_id;
use crate::scheme::{Domain, ML_DSA_87};
use core::fmt;
use ml_dsa::{B32, MlDsa87, signature::Keypair};
use sila_abi::record::KeyId;
use sila_abi::trust::{PublicKey, PublicKeyBytes};

/// Bytes of a secret seed, from which the whole key follows.
pub const SEED_LEN: usize = 32;

/// Why a key could not be made or used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignError {
    /// The system gave no random bytes.
    NoRandom,
    /// The signing function failed.
    Failed,
}

impl fmt::Display for SignError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoRandom => "the system gave no random bytes",
            Self::Failed => "signing failed",
        })
    }
}

impl std::error::Error for SignError {}

/// A secret key of whatever scheme.
pub trait Signer {
    /// Number of the scheme.
    fn algorithm(&self) -> u16;
    /// The public key's id.
    fn id(&self) -> KeyId;
    /// The public key as records hold it.
    fn public_key(&self) -> PublicKey;
    /// Signs `message` in `domain`.
    ///
    /// # Errors
    /// [`SignError::Failed`] if the signing function does.
    fn sign(&self, domain: Domain, message: &[u8]) -> Result<Vec<u8>, SignError>;
}

impl Signer for SigningKey {
    fn algorithm(&self) -> u16 {
        self.algorithm()
    }

    fn id(&self) -> KeyId {
        self.id()
    }

    fn public_key(&self) -> PublicKey {
        self.public_key()
    }

    fn sign(&self, domain: Domain, message: &[u8]) -> Result<Vec<u8>, SignError> {
        self.sign(domain, message)
    }
}

/// A secret ML-DSA-87 key. Zeroed when dropped; `Debug` shows the id only.
pub struct SigningKey {
    seed: B32,
    key: ml_dsa::SigningKey<MlDsa87>,
    public: Vec<u8>,
}

impl SigningKey {
    /// A new key from the system's random source.
    pub fn generate() -> Result<Self, SignError> {
        let mut seed = [0; SEED_LEN];
        getrandom::fill(&mut seed).map_err(|_| SignError::NoRandom)?;
        Ok(Self::from_seed(&seed))
    }

    /// The key that follows from `seed`.
    pub fn from_seed(seed: &[u8; SEED_LEN]) -> Self {
        let seed = B32::from(*seed);
        let key = ml_dsa::SigningKey::from_seed(&seed);
        let public = key.verifying_key().encode().to_vec();
        Self { seed, key, public }
    }

    /// The secret seed.
    pub fn seed(&self) -> [u8; SEED_LEN] {
        self.seed.into()
    }

    /// Number of the scheme.
    pub const fn algorithm(&self) -> u16 {
        ML_DSA_87
    }

    /// The public key's bytes.
    pub fn public_bytes(&self) -> &[u8] {
        &self.public
    }

    /// The public key as records hold it.
    pub fn public_key(&self) -> PublicKey {
        // A public key of 2592 bytes is below the list's bound, so the default is never taken.
        let bytes = PublicKeyBytes::from_vec(self.public.clone()).unwrap_or_default();
        PublicKey { algorithm: ML_DSA_87, bytes }
    }

    /// The public key's id.
    pub fn id(&self) -> KeyId {
        key_id(ML_DSA_87, &self.public)
    }

    /// Signs `message` in `domain`. The same input gives the same signature, so that builds are reproducible.
    pub fn sign(&self, domain: Domain, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let signature = self.key.expanded_key().sign_deterministic(message, domain.context());
        Ok(signature.map_err(|_| SignError::Failed)?.encode().to_vec())
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.id();
        write!(f, "secret key {a:02x}{b:02x}{c:02x}{d:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheme::{VerifyError, VerifyingKey};

    #[test]
    fn signature_verifies_in_its_own_domain_only() {
        let key = SigningKey::from_seed(&[1; 32]);
        let public = VerifyingKey::decode(ML_DSA_87, key.public_bytes()).expect("key");
        for signed in Domain::ALL {
            let signature = key.sign(signed, b"message").expect("sign");
            for used in Domain::ALL {
                let expected = if signed == used { Ok(()) } else { Err(VerifyError::Invalid) };
                assert_eq!(public.verify(used, b"message", &signature), expected);
            }
        }
    }

    #[test]
    fn empty_short_and_zero_signatures_are_refused() {
        let key = SigningKey::from_seed(&[1; 32]);
        let public = VerifyingKey::decode(ML_DSA_87, key.public_bytes()).expect("key");
        assert_eq!(public.verify(Domain::Package, b"m", &[]), Err(VerifyError::Length));
        assert_eq!(public.verify(Domain::Package, b"m", &[0; 4626]), Err(VerifyError::Length));
        assert_eq!(public.verify(Domain::Package, b"m", &[0; 4628]), Err(VerifyError::Length));
        assert_eq!(public.verify(Domain::Package, b"m", &[0; 4627]), Err(VerifyError::Invalid));
    }

    #[test]
    fn another_key_or_message_is_refused() {
        let key = SigningKey::from_seed(&[1; 32]);
        let other = SigningKey::from_seed(&[2; 32]);
        let public = VerifyingKey::decode(ML_DSA_87, other.public_bytes()).expect("key");
        let signature = key.sign(Domain::Binary, b"m").expect("sign");
        assert_eq!(public.verify(Domain::Binary, b"m", &signature), Err(VerifyError::Invalid));
        let public = VerifyingKey::decode(ML_DSA_87, key.public_bytes()).expect("key");
        assert_eq!(public.verify(Domain::Binary, b"n", &signature), Err(VerifyError::Invalid));
        assert_eq!(public.id(), &key.id());
    }

    #[test]
    fn generated_keys_differ_and_seeds_reproduce_them() {
        let (a, b) = (SigningKey::generate().expect("key"), SigningKey::generate().expect("key"));
        assert_ne!(a.id(), b.id());
        assert_eq!(SigningKey::from_seed(&a.seed()).id(), a.id());
        assert_eq!(format!("{a:?}").len(), "secret key 01234567".len());
    }
}
