//! The chain of trust: root set → boot manifest and certificates → package → manifest → binary.
//!
//! ModuleManager, the kernel and the host tool call the same functions. [`Verified`] values are made only here, so
//! that a function which takes a `Verified<Manifest>` cannot be called with one that was not checked
//! (the book, Trust, "Chain").
//!
//! Order of checks: key known, key not revoked, purpose, algorithm, signature; only then is anything parsed.

mod error;
mod module;
mod root;
pub mod statement;

pub use error::ChainError;
pub use module::{
    BinaryFacts, check_authority, check_payload, verify_binary, verify_image_header, verify_manifest,
    verify_package,
};
pub use root::{
    RootKeys, VerifiedRecord, check_boot_image, verify_boot_manifest, verify_boot_module, verify_certificate,
    verify_record, verify_revocation, verify_root_set,
};

use crate::scheme::VerifyingKey;
use crate::secure_bool::IntegrityFault;
use sila_abi::record::{KeyId, Name, Version};
use sila_abi::trust::{Certificate, Purpose};

/// A value that passed every check of its kind. Only this module makes one: the field is private, there is no
/// constructor, and what was verified cannot be changed afterwards. Each function of the chain that builds on a step
/// takes that step's result; beside it stands, as a test, what does not compile.
///
/// ```
/// fn read(manifest: &sila_crypto::Verified<u32>) -> u32 {
///     **manifest + *manifest.get()
/// }
/// ```
/// ```compile_fail,E0423
/// let forged = sila_crypto::Verified(7u32);
/// ```
/// ```compile_fail,E0594
/// fn change(manifest: &mut sila_crypto::Verified<u32>) {
///     **manifest = 7;
/// }
/// ```
/// ```compile_fail,E0277
/// let converted: sila_crypto::Verified<u32> = 7u32.into();
/// ```
/// ```compile_fail,E0277
/// fn default<T: Default>() -> T {
///     T::default()
/// }
/// let default: sila_crypto::Verified<u32> = default();
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Verified<T>(T);

impl<T> Verified<T> {
    /// The value.
    pub const fn get(&self) -> &T {
        &self.0
    }

    /// The value, without its proof.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> core::ops::Deref for Verified<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

/// A publisher's key and what the root says about it.
#[derive(Clone, Copy, Debug)]
pub struct Publisher<'a> {
    /// The decoded key.
    pub key: &'a VerifyingKey,
    /// The certificate it came with.
    pub certificate: &'a Certificate,
}

/// What the chain asks about keys and limits. The kernel's KeyRing and [`crate::keystore::KeyStore`] answer.
pub trait KeySource {
    /// Purpose of the running system.
    fn purpose(&self) -> Purpose;
    /// The publisher whose key has this id.
    fn publisher(&self, id: &KeyId) -> Option<Publisher<'_>>;
    /// Whether another publisher than this one claims the name by a prefix of its certificate.
    fn is_claimed_by_another(&self, publisher: &Name, name: &Name) -> bool;
    /// Whether the key is revoked; a stored decision that is corrupt denies.
    fn is_key_revoked(&self, id: &KeyId) -> Result<bool, IntegrityFault>;
    /// Whether this version is revoked, whatever its key.
    fn is_version_revoked(&self, publisher: &Name, name: &Name, version: Version) -> bool;
    /// Lowest security version of the module that may run.
    fn floor(&self, publisher: &Name, name: &Name) -> u32;
    /// Whether policy allows the signature scheme of this number.
    fn allows_algorithm(&self, number: u16) -> bool;
    /// Longest image that policy allows, in bytes.
    fn max_image_len(&self) -> u64;
}

/// The publisher of key `id`, if that key may be used now, with algorithm `algorithm`.
fn usable_publisher<'a>(
    keys: &'a dyn KeySource,
    id: &KeyId,
    algorithm: u16,
) -> Result<Publisher<'a>, ChainError> {
    let publisher = keys.publisher(id).ok_or(ChainError::UnknownKey)?;
    if keys.is_key_revoked(id).map_err(|_| ChainError::IntegrityFault)? {
        return Err(ChainError::KeyRevoked);
    }
    if publisher.certificate.purpose != keys.purpose() {
        return Err(ChainError::WrongPurpose);
    }
    if publisher.key.scheme().number != algorithm {
        return Err(ChainError::AlgorithmMismatch);
    }
    if !keys.allows_algorithm(algorithm) {
        return Err(ChainError::AlgorithmNotAllowed);
    }
    Ok(publisher)
}
