//! The kernel's own keys, revocations, floors, policy and seen versions: what "authorised" means at this moment.
//!
//! What the verification context reads ([`Trusted`]: keys, policy, root set) is behind counted references and never
//! changes in place: a job gets copies of the references, and the kernel may meanwhile put newer records in force.
//! Everything else is kept in lists that were sized at boot. The last step of every load asks for all of it anew.

use alloc::sync::Arc;
use alloc::vec::Vec;
use sila_abi::Error;
use sila_abi::boot::BootManifest;
use sila_abi::manifest::Manifest;
use sila_abi::policy::Policy;
use sila_abi::record::{Digest, KeyId, Name, Version};
use sila_abi::trust::{Purpose, Record, RevokedItem};
use sila_crypto::SecureBool;
use sila_crypto::chain::{ChainError, KeySource, Publisher, RootKeys, Verified};
use sila_crypto::keystore::{StoredKey, allows_algorithm};
use sila_crypto::secure_bool::IntegrityFault;

use crate::objects::{Identity, NotificationId};

mod floors;
mod operations;
mod records;

pub use records::Verified as VerifiedRecord;

use floors::Floors;

/// Publisher keys that the ring has room for; each takes about 80 KiB.
pub const MAX_KEYS: usize = 32;
/// Keys and ranges of versions that can be revoked.
const MAX_REVOKED: usize = 512;
/// Module versions whose content is remembered.
const MAX_SEEN: usize = 1024;
/// Those of one publisher, so that none keeps others from being loaded.
const MAX_SEEN_OF_ONE: usize = 256;
/// Who is told of installed records.
const MAX_WATCHERS: usize = 4;

/// Notifications and flags.
type Watchers = [Option<(NotificationId, u64)>; MAX_WATCHERS];

/// One version of a module and the content it was first seen with.
struct Seen {
    /// What most comparisons end with.
    print: u64,
    publisher: Name,
    name: Name,
    version: Version,
    manifest: Digest,
}

impl Seen {
    fn is(&self, manifest: &Manifest, print: u64) -> bool {
        self.print == print
            && self.publisher == manifest.publisher
            && self.name == manifest.name
            && self.version == manifest.version
    }
}

/// A number that two different modules rarely share.
fn fingerprint(manifest: &Manifest) -> u64 {
    let (names, version) = ([&manifest.publisher, &manifest.name], manifest.version);
    let start = u64::from(version.major) << 32 | u64::from(version.minor) << 16 | u64::from(version.patch);
    let words = names.into_iter().flat_map(|name| name.padded().as_chunks::<8>().0);
    words.fold(start, |sum, word| {
        (sum.rotate_left(5) ^ u64::from_le_bytes(*word)).wrapping_mul(0x517c_c1b7_2722_0a95)
    })
}

/// A publisher's key, and whether it may be used.
#[derive(Clone)]
pub struct Key {
    /// Certificate and decoded key.
    pub stored: Arc<StoredKey>,
    /// False once it is revoked.
    pub usable: SecureBool,
}

/// A policy, and its encoding for who reads it.
pub struct StoredPolicy {
    /// The policy.
    pub policy: Policy,
    /// Its encoding.
    pub encoded: Vec<u8>,
}

/// What the verification context reads.
#[derive(Clone, Default)]
pub struct Trusted {
    /// The root set in force.
    pub root: Option<Arc<RootKeys>>,
    /// The policy in force.
    pub policy: Option<Arc<StoredPolicy>>,
    keys: [Option<Key>; MAX_KEYS],
}

impl Trusted {
    fn keys(&self) -> impl Iterator<Item = &Key> {
        self.keys.iter().flatten()
    }

    fn key(&self, id: &KeyId) -> Option<&Key> {
        self.keys().find(|key| key.stored.key.id() == id)
    }
}

/// Keys, revocations, floors and policy.
pub struct KeyRing {
    trusted: Trusted,
    revoked: Vec<RevokedItem>,
    revocation_sequence: u64,
    floors: Floors,
    seen: Vec<Seen>,
    boot_sequence: u64,
    /// Rises with whatever is put in force.
    changes: u64,
    watchers: Watchers,
}

impl Default for KeyRing {
    fn default() -> Self {
        KeyRing {
            trusted: Trusted::default(),
            revoked: Vec::with_capacity(MAX_REVOKED),
            revocation_sequence: 0,
            floors: Floors::default(),
            seen: Vec::with_capacity(MAX_SEEN),
            boot_sequence: 0,
            changes: 1,
            watchers: [None; MAX_WATCHERS],
        }
    }
}

impl KeyRing {
    /// The ring of a verified boot manifest. Called once, at boot.
    pub fn from_boot(boot: &Verified<BootManifest>, root: RootKeys) -> Result<Self, ChainError> {
        let mut ring = KeyRing { boot_sequence: boot.sequence, ..Self::default() };
        ring.trusted.root = Some(Arc::new(root));
        let encoded = boot.policy.encode()?;
        ring.trusted.policy = Some(Arc::new(StoredPolicy { policy: boot.policy.clone(), encoded }));
        for certificate in boot.certificates.iter() {
            let stored = Arc::new(StoredKey::new(certificate.clone(), certificate.encode()?)?);
            ring.admit(&stored).map_err(|_| ChainError::NamespaceOverlap)?;
            ring.put_key(stored);
        }
        for revocation in boot.revocations.iter() {
            if ring.revoked.len() >= MAX_REVOKED {
                return Err(ChainError::NoMemory);
            }
            ring.take_back(revocation.item);
            ring.revocation_sequence = ring.revocation_sequence.max(revocation.sequence);
        }
        for floor in boot.floors.iter() {
            ring.floors.raise(floor, floors::Origin::Boot).map_err(|_| ChainError::NoMemory)?;
        }
        Ok(ring)
    }

    /// What a verification may rest on.
    pub fn trusted(&self) -> Trusted {
        self.trusted.clone()
    }

    /// The policy in force.
    pub fn policy(&self) -> Option<&StoredPolicy> {
        self.trusted.policy.as_deref()
    }

    /// The certificate and key id number `index`, and how many there are.
    pub fn key(&self, index: usize) -> Option<(&Key, usize)> {
        Some((self.trusted.keys().nth(index)?, self.trusted.keys().count()))
    }

    /// What is revoked, in the order in which it was.
    pub fn revocations(&self) -> &[RevokedItem] {
        &self.revoked
    }

    /// The floors.
    pub fn floors(&self) -> &Floors {
        &self.floors
    }

    /// Every fact that authorises a load, asked anew.
    pub fn authorise(&self, manifest: &Manifest, digest: &Digest) -> Result<(), ChainOrReuse> {
        sila_crypto::chain::check_authority(manifest, self).map_err(ChainOrReuse::Chain)?;
        let print = fingerprint(manifest);
        match self.seen.iter().find(|s| s.is(manifest, print)) {
            Some(seen) if seen.manifest != *digest => Err(ChainOrReuse::Reuse),
            // A list that forgot would let a version come back with other content.
            None if !self.has_room_for(manifest) => Err(ChainOrReuse::Full),
            _ => Ok(()),
        }
    }

    /// Whether another version of this publisher can be remembered.
    fn has_room_for(&self, manifest: &Manifest) -> bool {
        let of_one = self.seen.iter().filter(|s| s.publisher == manifest.publisher).count();
        self.seen.len() < MAX_SEEN && of_one < MAX_SEEN_OF_ONE
    }

    /// Why what a process runs could not be loaded any more: 1 its key was revoked, 2 its version, 3 the floor rose.
    pub fn objection(&self, runs: &Identity) -> Option<u64> {
        let revoked =
            self.revoked.iter().find(|i| i.covers(&runs.key_id, &runs.publisher, &runs.name, runs.version));
        match revoked {
            Some(RevokedItem::Key(_)) => Some(1),
            Some(RevokedItem::Module { .. }) => Some(2),
            None => (runs.security_version < self.floors.of(&runs.publisher, &runs.name)).then_some(3),
        }
    }

    /// True if the floor of what a process runs lies below it and has no entry yet.
    pub fn needs_floor(&self, runs: &Identity) -> bool {
        self.floors.needs(&runs.publisher, &runs.name, runs.security_version)
    }

    /// How many modules can still get a floor of their own.
    pub fn floors_left(&self) -> usize {
        self.floors.left()
    }

    /// Raises the floor to what a process runs: nothing older of this name is loaded any more.
    pub fn raise_floor(&mut self, runs: &Identity) {
        let (publisher, name, security_version) = (runs.publisher, runs.name, runs.security_version);
        let floor = sila_abi::boot::Floor { publisher, name, security_version };
        if self.floors.raise(&floor, floors::Origin::Finalised) == Ok(true) {
            self.changes += 1;
        }
    }

    /// Remembers the content of a version that was loaded.
    pub fn remember(&mut self, manifest: &Manifest, digest: Digest) {
        let print = fingerprint(manifest);
        let entry = Seen {
            print,
            publisher: manifest.publisher,
            name: manifest.name,
            version: manifest.version,
            manifest: digest,
        };
        if self.has_room_for(manifest) && !self.seen.iter().any(|s| s.is(manifest, print)) {
            self.seen.push(entry);
        }
    }

    /// Who is told of installed records, and by which flags.
    pub fn watchers(&self) -> Watchers {
        self.watchers
    }

    /// Tells these from now on.
    pub fn set_watchers(&mut self, watchers: Watchers) {
        self.watchers = watchers;
    }

    /// Versions that are remembered.
    #[cfg(test)]
    pub(crate) fn seen_count(&self) -> usize {
        self.seen.len()
    }

    /// Every stored decision, for the test that flips their bits.
    #[cfg(test)]
    pub(crate) fn decisions(&mut self) -> impl Iterator<Item = &mut SecureBool> {
        self.trusted.keys.iter_mut().flatten().map(|key| &mut key.usable)
    }
}

/// Puts a watcher in its own place, or in one that is free or whose Notification has ended.
fn watch(
    watchers: &mut Watchers,
    who: NotificationId,
    flags: u64,
    lives: impl Fn(NotificationId) -> bool,
) -> Result<(), Error> {
    let same = watchers.iter().position(|w| w.is_some_and(|(id, _)| id == who));
    let free = || watchers.iter().position(|w| w.is_none_or(|(id, _)| !lives(id)));
    let at = same.or_else(free).ok_or(Error::ArenaFull)?;
    if let Some(place) = watchers.get_mut(at) {
        *place = Some((who, flags));
    }
    Ok(())
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

/// What the context can ask. What changes while it runs (revoked versions, floors) is left to the last step, which asks
/// the ring itself.
impl KeySource for Trusted {
    fn purpose(&self) -> Purpose {
        self.root.as_ref().map_or(Purpose::Release, |root| root.purpose())
    }

    fn publisher(&self, id: &KeyId) -> Option<Publisher<'_>> {
        let stored = &self.key(id)?.stored;
        Some(Publisher { key: &stored.key, certificate: &stored.certificate })
    }

    fn is_claimed_by_another(&self, publisher: &Name, name: &Name) -> bool {
        let mut others = self.keys().map(|k| &k.stored.certificate).filter(|c| c.publisher != *publisher);
        others.any(|c| c.claims_name(name))
    }

    fn is_key_revoked(&self, id: &KeyId) -> Result<bool, IntegrityFault> {
        self.key(id).map_or(Ok(true), |key| key.usable.read().map(|usable| !usable))
    }

    fn is_version_revoked(&self, _: &Name, _: &Name, _: Version) -> bool {
        false
    }

    fn floor(&self, _: &Name, _: &Name) -> u32 {
        0
    }

    fn allows_algorithm(&self, number: u16) -> bool {
        self.policy.as_ref().is_some_and(|stored| allows_algorithm(&stored.policy, number))
    }

    fn max_image_len(&self) -> u64 {
        self.policy.as_ref().map_or(0, |stored| stored.policy.max_image_len)
    }
}

impl KeySource for KeyRing {
    fn purpose(&self) -> Purpose {
        self.trusted.purpose()
    }

    fn publisher(&self, id: &KeyId) -> Option<Publisher<'_>> {
        self.trusted.publisher(id)
    }

    fn is_claimed_by_another(&self, publisher: &Name, name: &Name) -> bool {
        self.trusted.is_claimed_by_another(publisher, name)
    }

    fn is_key_revoked(&self, id: &KeyId) -> Result<bool, IntegrityFault> {
        let listed = self.revoked.iter().any(|item| matches!(item, RevokedItem::Key(k) if k == id));
        Ok(listed | self.trusted.is_key_revoked(id)?)
    }

    fn is_version_revoked(&self, publisher: &Name, name: &Name, version: Version) -> bool {
        let mut modules = self.revoked.iter().filter(|item| matches!(item, RevokedItem::Module { .. }));
        modules.any(|item| item.covers(&[0; 32], publisher, name, version))
    }

    fn floor(&self, publisher: &Name, name: &Name) -> u32 {
        self.floors.of(publisher, name)
    }

    fn allows_algorithm(&self, number: u16) -> bool {
        self.trusted.allows_algorithm(number)
    }

    fn max_image_len(&self) -> u64 {
        self.trusted.max_image_len()
    }
}
