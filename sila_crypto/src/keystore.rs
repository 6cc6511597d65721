//! A plain list of publishers, revocations and floors: what ModuleManager, the host tool and tests ask, and what the
//! kernel's KeyRing is built on.

use crate::chain::{ChainError, KeySource, Publisher, Verified};
use crate::scheme::{Scheme, VerifyingKey};
use crate::secure_bool::IntegrityFault;
use alloc::vec::Vec;
use sila_abi::boot::{BootManifest, Floor};
use sila_abi::policy::Policy;
use sila_abi::record::{KeyId, Name, Version};
use sila_abi::trust::{Certificate, Purpose, Record, Revocation, RevokedItem};

/// The most publisher keys of a store; each holds 64 KiB.
pub const MAX_KEYS: usize = 64;
/// The most revocations of a store.
pub const MAX_REVOCATIONS: usize = 1024;
/// The most floors of a store.
pub const MAX_FLOORS: usize = 1024;

/// A publisher's certificate with its key decoded.
#[derive(Clone, Debug)]
pub struct StoredKey {
    /// What the root says about the key.
    pub certificate: Certificate,
    /// The key.
    pub key: VerifyingKey,
    /// The certificate's encoding.
    pub encoded: Vec<u8>,
}

impl StoredKey {
    /// Decodes the certificate's key.
    pub fn new(certificate: Certificate, encoded: Vec<u8>) -> Result<Self, ChainError> {
        let key = VerifyingKey::decode(certificate.key.algorithm, &certificate.key.bytes);
        let key = key.map_err(|_| ChainError::PublicKey)?;
        Ok(Self { certificate, key, encoded })
    }
}

/// Whether a policy allows the signature scheme of this number: it names it, and its level and sizes reach its minima.
pub fn allows_algorithm(policy: &Policy, number: u16) -> bool {
    let bits = policy.min_key_bits as usize;
    let strong = |s: &Scheme| s.is_at_least(policy.min_nist_level, bits);
    Scheme::find(number).is_ok_and(strong) && policy.algorithms.contains(&number)
}

/// Publishers with decoded keys, revocations, floors and policy.
pub struct KeyStore {
    purpose: Purpose,
    policy: Policy,
    keys: Vec<StoredKey>,
    revoked: Vec<RevokedItem>,
    revocation_sequence: u64,
    floors: Vec<Floor>,
}

impl KeyStore {
    /// A store without keys. Trust comes in by [`Self::add_certificate`] and [`Self::add_revocation`].
    pub fn new(purpose: Purpose, policy: Policy) -> Self {
        let (keys, revoked, floors) = (Vec::new(), Vec::new(), Vec::new());
        Self { purpose, policy, keys, revoked, revocation_sequence: 0, floors }
    }

    /// The store that a verified boot manifest describes.
    ///
    /// ```
    /// # use sila_abi::boot::BootManifest;
    /// # use sila_abi::trust::{Certificate, Revocation};
    /// # use sila_crypto::Verified;
    /// # use sila_crypto::keystore::KeyStore;
    /// fn step(boot: &Verified<BootManifest>) {
    ///     let _ = KeyStore::from_boot(boot);
    /// }
    /// ```
    /// Not of one that no root key signed:
    /// ```compile_fail,E0308
    /// # use sila_abi::boot::BootManifest;
    /// # use sila_abi::trust::{Certificate, Revocation};
    /// # use sila_crypto::Verified;
    /// # use sila_crypto::keystore::KeyStore;
    /// fn step(boot: &BootManifest) {
    ///     let _ = KeyStore::from_boot(boot);
    /// }
    /// ```
    pub fn from_boot(boot: &Verified<BootManifest>) -> Result<Self, ChainError> {
        let mut store = Self::new(boot.purpose, boot.policy.clone());
        for certificate in &boot.certificates {
            store.insert_certificate(certificate.clone())?;
        }
        for revocation in &boot.revocations {
            push(&mut store.revoked, revocation.item, MAX_REVOCATIONS)?;
            store.revocation_sequence = store.revocation_sequence.max(revocation.sequence);
        }
        for floor in &boot.floors {
            store.raise_floor(&floor.publisher, &floor.name, floor.security_version)?;
        }
        Ok(store)
    }

    /// Adds a publisher's certificate, or replaces the one of the same key. Its sequence must be above those of all
    /// the publisher's certificates.
    ///
    /// ```
    /// # use sila_abi::boot::BootManifest;
    /// # use sila_abi::trust::{Certificate, Revocation};
    /// # use sila_crypto::Verified;
    /// # use sila_crypto::keystore::KeyStore;
    /// fn step(store: &mut KeyStore, certificate: Verified<Certificate>) {
    ///     let _ = store.add_certificate(certificate);
    /// }
    /// ```
    /// Not one that no root key signed:
    /// ```compile_fail,E0308
    /// # use sila_abi::boot::BootManifest;
    /// # use sila_abi::trust::{Certificate, Revocation};
    /// # use sila_crypto::Verified;
    /// # use sila_crypto::keystore::KeyStore;
    /// fn step(store: &mut KeyStore, certificate: Certificate) {
    ///     let _ = store.add_certificate(certificate);
    /// }
    /// ```
    pub fn add_certificate(&mut self, certificate: Verified<Certificate>) -> Result<(), ChainError> {
        self.insert_certificate(certificate.into_inner())
    }

    fn insert_certificate(&mut self, certificate: Certificate) -> Result<(), ChainError> {
        let same = |stored: &&StoredKey| stored.certificate.publisher == certificate.publisher;
        if self.keys.iter().filter(same).any(|s| s.certificate.sequence >= certificate.sequence) {
            return Err(ChainError::StaleSequence);
        }
        let other = |stored: &StoredKey| stored.certificate.publisher != certificate.publisher;
        if self.keys.iter().any(|s| other(s) && s.certificate.overlaps(&certificate)) {
            return Err(ChainError::NamespaceOverlap);
        }
        let encoded = certificate.encode()?;
        let key = StoredKey::new(certificate, encoded)?;
        self.keys.retain(|stored| stored.key.id() != key.key.id());
        push(&mut self.keys, key, MAX_KEYS)
    }

    /// Adds a revocation. Its sequence must be above all earlier ones.
    ///
    /// ```
    /// # use sila_abi::boot::BootManifest;
    /// # use sila_abi::trust::{Certificate, Revocation};
    /// # use sila_crypto::Verified;
    /// # use sila_crypto::keystore::KeyStore;
    /// fn step(store: &mut KeyStore, revocation: Verified<Revocation>) {
    ///     let _ = store.add_revocation(revocation);
    /// }
    /// ```
    /// Not one that no root key signed:
    /// ```compile_fail,E0308
    /// # use sila_abi::boot::BootManifest;
    /// # use sila_abi::trust::{Certificate, Revocation};
    /// # use sila_crypto::Verified;
    /// # use sila_crypto::keystore::KeyStore;
    /// fn step(store: &mut KeyStore, revocation: Revocation) {
    ///     let _ = store.add_revocation(revocation);
    /// }
    /// ```
    pub fn add_revocation(&mut self, revocation: Verified<Revocation>) -> Result<(), ChainError> {
        if revocation.sequence <= self.revocation_sequence {
            return Err(ChainError::StaleSequence);
        }
        push(&mut self.revoked, revocation.item, MAX_REVOCATIONS)?;
        self.revocation_sequence = revocation.sequence;
        Ok(())
    }

    /// Raises the floor of a module; a lower value changes nothing.
    pub fn raise_floor(&mut self, publisher: &Name, name: &Name, to: u32) -> Result<(), ChainError> {
        let mut floors = self.floors.iter_mut();
        if let Some(floor) = floors.find(|f| f.publisher == *publisher && f.name == *name) {
            floor.security_version = floor.security_version.max(to);
            return Ok(());
        }
        let floor = Floor { publisher: *publisher, name: *name, security_version: to };
        push(&mut self.floors, floor, MAX_FLOORS)
    }

    /// The policy in force.
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The certificates in force.
    pub fn certificates(&self) -> impl Iterator<Item = &Certificate> {
        self.keys.iter().map(|stored| &stored.certificate)
    }

    /// What is revoked.
    pub fn revocations(&self) -> &[RevokedItem] {
        &self.revoked
    }
}

fn push<T>(list: &mut Vec<T>, item: T, max: usize) -> Result<(), ChainError> {
    if list.len() >= max || list.try_reserve(1).is_err() {
        return Err(ChainError::NoMemory);
    }
    list.push(item);
    Ok(())
}

impl KeySource for KeyStore {
    fn purpose(&self) -> Purpose {
        self.purpose
    }

    fn publisher(&self, id: &KeyId) -> Option<Publisher<'_>> {
        let stored = self.keys.iter().find(|stored| stored.key.id() == id)?;
        Some(Publisher { key: &stored.key, certificate: &stored.certificate })
    }

    fn is_claimed_by_another(&self, publisher: &Name, name: &Name) -> bool {
        let mut others = self.certificates().filter(|c| c.publisher != *publisher);
        others.any(|c| c.claims_name(name))
    }

    fn is_key_revoked(&self, id: &KeyId) -> Result<bool, IntegrityFault> {
        Ok(self.revoked.iter().any(|item| matches!(item, RevokedItem::Key(revoked) if revoked == id)))
    }

    fn is_version_revoked(&self, publisher: &Name, name: &Name, version: Version) -> bool {
        let mut modules = self.revoked.iter().filter(|item| matches!(item, RevokedItem::Module { .. }));
        modules.any(|item| item.covers(&[0; 32], publisher, name, version))
    }

    fn floor(&self, publisher: &Name, name: &Name) -> u32 {
        let floor = self.floors.iter().find(|f| f.publisher == *publisher && f.name == *name);
        floor.map_or(0, |f| f.security_version)
    }

    fn allows_algorithm(&self, number: u16) -> bool {
        allows_algorithm(&self.policy, number)
    }

    fn max_image_len(&self) -> u64 {
        self.policy.max_image_len
    }
}
