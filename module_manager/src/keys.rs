//! The keys that packages are verified with: those of the kernel's KeyRing, under the policy in force.
//!
//! ModuleManager keeps a copy, which it reads anew whenever the KeyRing has changed: a publisher who was certified a
//! moment ago is known, a key that was revoked a moment ago is not used.

use alloc::vec::Vec;
use sila_abi::policy::Policy;
use sila_abi::record::{KeyId, Name, Version};
use sila_abi::status::KeyRingRecord;
use sila_abi::trust::{Certificate, Purpose, RevokedItem};
use sila_crypto::chain::{ChainError, KeySource, Publisher};
use sila_crypto::keystore::allows_algorithm;
use sila_crypto::scheme::VerifyingKey;
use sila_crypto::secure_bool::IntegrityFault;
use sila_rt::trust::{CertifiedKey, Ring};

/// The most keys that are kept decoded; each takes about 72 KiB.
pub const MAX_DECODED: usize = 4;

/// A copy of what the kernel trusts.
pub struct Keys {
    ring: Ring,
    policy: Policy,
    /// Those that were used last, the newest at the end.
    decoded: Vec<VerifyingKey>,
}

impl Keys {
    /// The keys of this ring. The first of them are decoded at once, so that loads cost as much time and memory at first
    /// as later.
    #[must_use]
    pub fn new(ring: Ring, policy: Policy) -> Self {
        let mut keys = Self { ring, policy, decoded: Vec::new() };
        let first: Vec<KeyId> = keys.ring.keys.iter().take(MAX_DECODED).map(|key| key.id).collect();
        for id in first {
            // One that can't be decoded fails who uses it.
            let _ = keys.prepare(&id);
        }
        keys
    }

    /// Whether the KeyRing is still as it was when it was read.
    #[must_use]
    pub const fn are_current(&self, state: &KeyRingRecord) -> bool {
        self.ring.state.changes == state.changes
    }

    /// Takes over what the kernel trusts now. A key's id is that of its bytes: what is decoded stays so.
    pub fn refresh(&mut self, ring: Ring, policy: Policy) {
        (self.ring, self.policy) = (ring, policy);
    }

    /// Decodes this key, if the ring has it and it was not used lately.
    ///
    /// # Errors
    /// [`ChainError::PublicKey`].
    pub fn prepare(&mut self, id: &KeyId) -> Result<(), ChainError> {
        if let Some(at) = self.decoded.iter().position(|key| key.id() == id) {
            let key = self.decoded.remove(at);
            self.decoded.push(key);
            return Ok(());
        }
        let Some(known) = self.certified(id) else { return Ok(()) };
        let public = &known.certificate.key;
        let key = VerifyingKey::decode(public.algorithm, &public.bytes).map_err(|_| ChainError::PublicKey)?;
        if self.decoded.len() >= MAX_DECODED {
            self.decoded.remove(0);
        }
        self.decoded.push(key);
        Ok(())
    }

    fn certified(&self, id: &KeyId) -> Option<&CertifiedKey> {
        self.ring.keys.iter().find(|key| key.id == *id)
    }

    fn certificates(&self) -> impl Iterator<Item = &Certificate> {
        self.ring.keys.iter().map(|key| &key.certificate)
    }
}

impl KeySource for Keys {
    fn purpose(&self) -> Purpose {
        if self.ring.state.purpose == Purpose::Test as u64 { Purpose::Test } else { Purpose::Release }
    }

    /// Only of a key that was prepared.
    fn publisher(&self, id: &KeyId) -> Option<Publisher<'_>> {
        let certificate = &self.certified(id)?.certificate;
        let key = self.decoded.iter().find(|key| key.id() == id)?;
        Some(Publisher { key, certificate })
    }

    fn is_claimed_by_another(&self, publisher: &Name, name: &Name) -> bool {
        let mut others = self.certificates().filter(|certificate| certificate.publisher != *publisher);
        others.any(|certificate| certificate.claims_name(name))
    }

    fn is_key_revoked(&self, id: &KeyId) -> Result<bool, IntegrityFault> {
        let listed =
            self.ring.revocations.iter().any(|item| matches!(item, RevokedItem::Key(key) if key == id));
        Ok(listed || self.certified(id).is_none_or(|key| key.revoked))
    }

    fn is_version_revoked(&self, publisher: &Name, name: &Name, version: Version) -> bool {
        let modules = |item: &&RevokedItem| matches!(item, RevokedItem::Module { .. });
        let mut modules = self.ring.revocations.iter().filter(modules);
        modules.any(|item| item.covers(&[0; 32], publisher, name, version))
    }

    fn floor(&self, publisher: &Name, name: &Name) -> u32 {
        let same =
            |(floor, _): &&(sila_abi::boot::Floor, u64)| floor.publisher == *publisher && floor.name == *name;
        self.ring.floors.iter().find(same).map_or(0, |(floor, _)| floor.security_version)
    }

    fn allows_algorithm(&self, number: u16) -> bool {
        allows_algorithm(&self.policy, number)
    }

    fn max_image_len(&self) -> u64 {
        self.policy.max_image_len
    }
}

#[cfg(test)]
#[path = "keys_tests.rs"]
pub(crate) mod tests;
