//! Dilithium5 (scheme 2, feature `dilithium5`): the C reference code of `pqcrypto-dilithium`, for the host tool and user
//! space only.
//!
//! It implements a draft that is neither round 3 nor FIPS 204, and has no context string. Domains are therefore a
//! prefix of what is signed, framed as FIPS 204 frames its context: a zero byte, the length, the context, the message.

use crate::scheme::KeyError;
use alloc::boxed::Box;
use alloc::vec::Vec;
use pqcrypto_dilithium::dilithium5 as c;
use pqcrypto_traits::sign::{DetachedSignature as _, PublicKey as _};

/// Bytes of a public key.
pub const KEY_LEN: usize = c::public_key_bytes();
/// Bytes of a signature.
pub const SIGNATURE_LEN: usize = c::signature_bytes();

/// A public key of the right length.
#[derive(Clone)]
pub struct PublicKey(Box<c::PublicKey>);

impl PublicKey {
    /// Takes the bytes of a public key.
    pub fn decode(bytes: &[u8]) -> Result<Self, KeyError> {
        c::PublicKey::from_bytes(bytes).map(|key| Self(Box::new(key))).map_err(|_| KeyError::Length)
    }

    /// Whether `signature` is one of this key over `message` in `context`; never, if the context is longer than 255
    /// bytes.
    pub fn verify(&self, context: &[u8], message: &[u8], signature: &[u8]) -> bool {
        let (Some(framed), Ok(signature)) =
            (framed(context, message), c::DetachedSignature::from_bytes(signature))
        else {
            return false;
        };
        c::verify_detached_signature(&signature, &framed, &self.0).is_ok()
    }
}

/// What is signed for `message` in `context`; `None` if the context is longer than 255 bytes or memory runs out.
fn framed(context: &[u8], message: &[u8]) -> Option<Vec<u8>> {
    let length = u8::try_from(context.len()).ok()?;
    let mut framed = Vec::new();
    framed.try_reserve_exact(context.len().checked_add(message.len())?.checked_add(2)?).ok()?;
    framed.extend([0, length]);
    framed.extend_from_slice(context);
    framed.extend_from_slice(message);
    Some(framed)
}

#[cfg(feature = "std")]
mod secret {
    use super::{c, framed};
    use crate::hash::key_id;
    use crate::scheme::{DILITHIUM5, Domain};
    use crate::sign::{SignError, Signer};
    use pqcrypto_traits::sign::{DetachedSignature as _, PublicKey as _, SecretKey as _};
    use sila_abi::record::KeyId;
    use sila_abi::trust::{PublicKey, PublicKeyBytes};

    /// A secret Dilithium5 key. The C code makes it from the system's random source; there is no seed.
    pub struct SigningKey {
        secret: c::SecretKey,
        public: Vec<u8>,
    }

    impl SigningKey {
        /// A new key.
        pub fn generate() -> Self {
            let (public, secret) = c::keypair();
            Self { secret, public: public.as_bytes().to_vec() }
        }

        /// The key with these secret and public bytes, as [`Self::secret_bytes`] and [`Self::public_bytes`] gave them.
        ///
        /// # Errors
        /// [`SignError::Failed`] if one of them has the wrong length.
        pub fn from_bytes(secret: &[u8], public: &[u8]) -> Result<Self, SignError> {
            let secret = c::SecretKey::from_bytes(secret).map_err(|_| SignError::Failed)?;
            c::PublicKey::from_bytes(public).map_err(|_| SignError::Failed)?;
            Ok(Self { secret, public: public.to_vec() })
        }

        /// The secret bytes.
        pub fn secret_bytes(&self) -> &[u8] {
            self.secret.as_bytes()
        }

        /// The public key's bytes.
        pub fn public_bytes(&self) -> &[u8] {
            &self.public
        }
    }

    impl Signer for SigningKey {
        fn algorithm(&self) -> u16 {
            DILITHIUM5
        }

        fn id(&self) -> KeyId {
            key_id(DILITHIUM5, &self.public)
        }

        fn public_key(&self) -> PublicKey {
            // A public key of 2592 bytes is below the list's bound, so the default is never taken.
            let bytes = PublicKeyBytes::from_vec(self.public.clone()).unwrap_or_default();
            PublicKey { algorithm: DILITHIUM5, bytes }
        }

        fn sign(&self, domain: Domain, message: &[u8]) -> Result<Vec<u8>, SignError> {
            let framed = framed(domain.context(), message).ok_or(SignError::Failed)?;
            Ok(c::detached_sign(&framed, &self.secret).as_bytes().to_vec())
        }
    }
}

#[cfg(feature = "std")]
pub use secret::SigningKey;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheme::{DILITHIUM5, Domain, ML_DSA_87, VerifyError, VerifyingKey};
    use crate::sign::{self, Signer};

    fn public(key: &SigningKey) -> VerifyingKey {
        VerifyingKey::decode(DILITHIUM5, key.public_bytes()).expect("key")
    }

    #[test]
    fn signature_verifies_in_its_own_domain_only() {
        let key = SigningKey::generate();
        for signed in Domain::ALL {
            let signature = key.sign(signed, b"message").expect("sign");
            for used in Domain::ALL {
                let expected = if signed == used { Ok(()) } else { Err(VerifyError::Invalid) };
                assert_eq!(public(&key).verify(used, b"message", &signature), expected);
            }
        }
    }

    /// Neither can a byte move from the context to the message, nor can a message that begins with a frame pass for one
    /// in another context.
    #[test]
    fn context_and_message_are_told_apart() {
        let key = SigningKey::generate();
        let signature = key.sign(Domain::Binary, b"message").expect("sign");
        let context = Domain::Binary.context();
        let (short, last) = context.split_at(context.len() - 1);
        let moved = [last, b"message"].concat();
        let framed = framed(context, b"message").expect("short");
        let key = public(&key);
        assert_eq!(key.verify_in_context(context, b"message", &signature), Ok(()));
        assert_eq!(key.verify_in_context(short, &moved, &signature), Err(VerifyError::Invalid));
        assert_eq!(key.verify_in_context(&[], &framed, &signature), Err(VerifyError::Invalid));
        assert_eq!(key.verify_in_context(&[0; 256], b"message", &signature), Err(VerifyError::Invalid));
    }

    /// Every bit of a signature, and the message, counts.
    #[test]
    fn tampered_signatures_are_refused() {
        let key = SigningKey::generate();
        let signature = key.sign(Domain::Manifest, b"message").expect("sign");
        let key = public(&key);
        for bit in (0..SIGNATURE_LEN * 8).step_by(37) {
            let mut flipped = signature.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let verdict = key.verify(Domain::Manifest, b"message", &flipped);
            assert_eq!(verdict, Err(VerifyError::Invalid), "bit {bit}");
        }
        assert_eq!(key.verify(Domain::Manifest, b"messagf", &signature), Err(VerifyError::Invalid));
        for length in [0, SIGNATURE_LEN - 1, SIGNATURE_LEN + 1] {
            let cut: Vec<u8> = signature.iter().copied().cycle().take(length).collect();
            assert_eq!(key.verify(Domain::Manifest, b"message", &cut), Err(VerifyError::Length));
        }
    }

    /// Keys and signatures of both schemes have the same lengths: nothing but the number tells them apart.
    #[test]
    fn a_key_of_one_scheme_is_worth_nothing_under_the_other() {
        let (second, first) = (SigningKey::generate(), sign::SigningKey::from_seed(&[1; 32]));
        let of_second = second.sign(Domain::Package, b"m").expect("sign");
        let of_first = first.sign(Domain::Package, b"m").expect("sign");
        assert_eq!((of_first.len(), first.public_bytes().len()), (SIGNATURE_LEN, KEY_LEN));
        let taken_for = |algorithm, bytes: &[u8], signature: &[u8]| {
            let key = VerifyingKey::decode(algorithm, bytes).expect("key");
            (*key.id(), key.verify(Domain::Package, b"m", signature))
        };
        assert_eq!(taken_for(DILITHIUM5, second.public_bytes(), &of_second), (second.id(), Ok(())));
        assert_eq!(taken_for(ML_DSA_87, first.public_bytes(), &of_first), (first.id(), Ok(())));
        let (id, verdict) = taken_for(ML_DSA_87, second.public_bytes(), &of_second);
        assert_eq!(verdict, Err(VerifyError::Invalid));
        assert_ne!(id, second.id());
        let (id, verdict) = taken_for(DILITHIUM5, first.public_bytes(), &of_first);
        assert_eq!(verdict, Err(VerifyError::Invalid));
        assert_ne!(id, first.id());
    }

    #[test]
    fn keys_are_made_anew_and_kept_as_bytes() {
        let key = SigningKey::generate();
        assert_ne!(key.id(), SigningKey::generate().id());
        let again = SigningKey::from_bytes(key.secret_bytes(), key.public_bytes()).expect("key");
        let signature = again.sign(Domain::Binary, b"m").expect("sign");
        assert_eq!(public(&key).verify(Domain::Binary, b"m", &signature), Ok(()));
        assert!(SigningKey::from_bytes(&key.secret_bytes()[1..], key.public_bytes()).is_err());
        assert!(SigningKey::from_bytes(key.secret_bytes(), &key.public_bytes()[1..]).is_err());
        assert_eq!(VerifyingKey::decode(DILITHIUM5, &[0; 2591]).err(), Some(KeyError::Length));
    }
}
