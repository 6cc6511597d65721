//! The kernel's own keys, revocations, floors and seen versions: what "authorised" means at this moment.
//!
//! Keys and certificates come from the boot manifest and never change in place, so that the verification
//! context may read them while the kernel runs. What can change (revocations, floors, versions seen) is
//! kept apart, in lists that were sized at boot; the last step of every load asks for it anew.

use alloc::boxed::Box;
use alloc::vec::Vec;
use sila_abi::Error;
use sila_abi::boot::{BootManifest, Floor};
use sila_abi::manifest::Manifest;
use sila_abi::record::{Digest, KeyId, Name, Version};
use sila_abi::trust::{Certificate, Purpose, Revocation, RevokedItem};
use sila_crypto::chain::{ChainError, KeySource, Publisher, RootKeys, Verified};
use sila_crypto::keystore::KeyStore;

use crate::objects::Identity;

/// Revocations that can be added while the system runs.
const MAX_REVOKED: usize = 256;
/// Module versions whose content is remembered.
const MAX_SEEN: usize = 1024;

/// One version of a module and the content it was first seen with.
struct Seen {
    publisher: Name,
    name: Name,
    version: Version,
    manifest: Digest,
}

impl Seen {
    fn is(&self, manifest: &Manifest) -> bool {
        self.publisher == manifest.publisher && self.name == manifest.name && self.version == manifest.version
    }
}

/// Keys, revocations and floors.
#[derive(Default)]
pub struct KeyRing {
    base: Option<&'static KeyStore>,
    root: Option<&'static RootKeys>,
    ids: Vec<KeyId>,
    revoked: Vec<RevokedItem>,
    sequence: u64,
    floors: Vec<Floor>,
    seen: Vec<Seen>,
}

impl KeyRing {
    /// The ring of a verified boot manifest. Called once, at boot; what it allocates stays.
    pub fn from_boot(boot: &Verified<BootManifest>, root: RootKeys) -> Result<Self, ChainError> {
        let store = KeyStore::from_boot(boot)?;
        let ids =
            store.certificates().map(|c| sila_crypto::hash::key_id(c.key.algorithm, &c.key.bytes)).collect();
        Ok(KeyRing {
            base: Some(Box::leak(Box::new(store))),
            root: Some(Box::leak(Box::new(root))),
            ids,
            revoked: Vec::with_capacity(MAX_REVOKED),
            sequence: boot.revocations.iter().map(|r| r.sequence).max().unwrap_or(0),
            floors: Vec::with_capacity(MAX_SEEN),
            seen: Vec::with_capacity(MAX_SEEN),
        })
    }

    /// What the verification context reads: keys and certificates as of boot.
    pub fn base(&self) -> Option<&'static KeyStore> {
        self.base
    }

    /// The decoded root keys.
    pub fn root(&self) -> Option<&'static RootKeys> {
        self.root
    }

    /// True if there is room for another revocation.
    pub fn can_revoke(&self) -> bool {
        self.revoked.len() < MAX_REVOKED
    }

    /// Adds a verified revocation, if it is newer than all before it.
    pub fn revoke(&mut self, revocation: &Revocation) -> Result<(), Error> {
        if revocation.sequence <= self.sequence {
            return Err(Error::RecordStale);
        }
        if !self.can_revoke() {
            return Err(Error::ArenaFull);
        }
        self.revoked.push(revocation.item);
        self.sequence = revocation.sequence;
        Ok(())
    }

    /// The certificate and key id number `index`, and how many there are.
    pub fn key(&self, index: usize) -> Option<(&KeyId, &Certificate, usize)> {
        let id = self.ids.get(index)?;
        let certificate = self.base?.certificates().nth(index)?;
        Some((id, certificate, self.ids.len()))
    }

    /// Every fact that authorises a load, asked anew.
    pub fn authorise(&self, manifest: &Manifest, digest: &Digest) -> Result<(), ChainOrReuse> {
        sila_crypto::chain::check_authority(manifest, self).map_err(ChainOrReuse::Chain)?;
        let reused = self.seen.iter().any(|s| s.is(manifest) && s.manifest != *digest);
        if reused {
            return Err(ChainOrReuse::Reuse);
        }
        // A list that forgot would let a version come back with other content.
        if self.seen.len() >= MAX_SEEN && !self.seen.iter().any(|s| s.is(manifest)) {
            return Err(ChainOrReuse::Full);
        }
        Ok(())
    }

    /// True if the floor of what a process runs lies below it and has no entry yet.
    pub fn needs_floor(&self, runs: &Identity) -> bool {
        self.floor(&runs.publisher, &runs.name) < runs.security_version
            && !self.floors.iter().any(|f| f.publisher == runs.publisher && f.name == runs.name)
    }

    /// How many modules can still get a floor of their own.
    pub fn floors_left(&self) -> usize {
        self.floors.capacity() - self.floors.len()
    }

    /// Raises the floor to what a process runs: nothing older of this name is loaded any more.
    pub fn raise_floor(&mut self, runs: &Identity) {
        if self.needs_floor(runs) && self.floors_left() > 0 {
            let (publisher, name, security_version) = (runs.publisher, runs.name, runs.security_version);
            self.floors.push(Floor { publisher, name, security_version });
        }
        let same = |f: &&mut Floor| f.publisher == runs.publisher && f.name == runs.name;
        if let Some(f) = self.floors.iter_mut().find(same) {
            f.security_version = f.security_version.max(runs.security_version);
        }
    }

    /// Remembers the content of a version that was loaded.
    pub fn remember(&mut self, manifest: &Manifest, digest: Digest) {
        let entry = Seen {
            publisher: manifest.publisher,
            name: manifest.name,
            version: manifest.version,
            manifest: digest,
        };
        if self.seen.len() < MAX_SEEN && !self.seen.iter().any(|s| s.is(manifest)) {
            self.seen.push(entry);
        }
    }
}

/// Why a load is not authorised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainOrReuse {
    /// A rule of the chain of trust.
    Chain(ChainError),
    /// The version was seen with other content.
    Reuse,
    /// No further version can be remembered.
    Full,
}

impl KeySource for KeyRing {
    fn purpose(&self) -> Purpose {
        self.base.map_or(Purpose::Release, |b| b.purpose())
    }

    fn publisher(&self, id: &KeyId) -> Option<Publisher<'_>> {
        self.base?.publisher(id)
    }

    fn is_key_revoked(&self, id: &KeyId) -> bool {
        self.base.is_none_or(|b| b.is_key_revoked(id))
            || self.revoked.iter().any(|item| matches!(item, RevokedItem::Key(k) if k == id))
    }

    fn is_version_revoked(&self, publisher: &Name, name: &Name, version: Version) -> bool {
        self.base.is_none_or(|b| b.is_version_revoked(publisher, name, version))
            || self.revoked.iter().any(|item| {
                matches!(item, RevokedItem::Module { .. }) && item.covers(&[0; 32], publisher, name, version)
            })
    }

    fn floor(&self, publisher: &Name, name: &Name) -> u32 {
        let base = self.base.map_or(u32::MAX, |b| b.floor(publisher, name));
        let raised = self.floors.iter().find(|f| f.publisher == *publisher && f.name == *name);
        base.max(raised.map_or(0, |f| f.security_version))
    }

    fn allows_algorithm(&self, number: u16) -> bool {
        self.base.is_some_and(|b| b.allows_algorithm(number))
    }

    fn max_image_len(&self) -> u64 {
        self.base.map_or(0, |b| b.max_image_len())
    }
}
