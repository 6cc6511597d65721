//! Records that the root signed while the system runs: what is kept of them, and how they come into force.
//!
//! The context verifies a record against the root set as of then; the last step sees that this one is still in force,
//! and that the record's sequence is above the one before it.

use alloc::sync::Arc;
use alloc::vec::Vec;
use sila_abi::Error;
use sila_abi::trust::{FloorRecord, RecordKind, Revocation, RevokedItem, SignedRecord};
use sila_crypto::SecureBool;
use sila_crypto::chain::{self, ChainError, KeySource, RootKeys};
use sila_crypto::keystore::StoredKey;

use super::floors::Origin;
use super::{Key, KeyRing, MAX_REVOKED, StoredPolicy, Trusted};
use crate::machine::{FrameReader, Keep};

/// What comes into force, in memory that outlives the verification.
enum Kept {
    Certificate(Arc<StoredKey>),
    Revocation(Revocation),
    RootSet(Arc<RootKeys>),
    Policy(Arc<StoredPolicy>),
    Floors(FloorRecord),
}

/// A record whose signatures are those of the root set with this digest.
pub struct Verified {
    /// The root set that it was verified with.
    root: [u8; 32],
    /// What it says.
    kept: Kept,
}

impl Verified {
    /// Verifies an encoded [`SignedRecord`]; called by the verification context. What is to be kept of it is made
    /// while [`FrameReader::keep`] says so.
    pub fn of(bytes: &[u8], trusted: &Trusted, frames: &dyn FrameReader) -> Result<Self, ChainError> {
        use sila_abi::trust::Record;
        let root = trusted.root.as_ref().ok_or(ChainError::UnknownRootKey)?;
        let signed = SignedRecord::decode(bytes)?;
        let record = chain::verify_record(&signed, root)?;
        let keep = |make: &mut dyn FnMut() -> Result<Kept, ChainError>| {
            if !frames.keep(Some(Keep::Record)) {
                return Err(ChainError::NoMemory);
            }
            let kept = make();
            frames.keep(None);
            kept
        };
        let encoded = || signed.record.to_vec();
        let kept = match &record {
            chain::VerifiedRecord::Certificate(c) => {
                keep(&mut || Ok(Kept::Certificate(Arc::new(StoredKey::new(c.get().clone(), encoded())?))))?
            }
            chain::VerifiedRecord::RootSet(_) => {
                keep(&mut || Ok(Kept::RootSet(Arc::new(RootKeys::decode(&signed.record)?))))?
            }
            chain::VerifiedRecord::Policy(p) => keep(&mut || {
                Ok(Kept::Policy(Arc::new(StoredPolicy { policy: p.get().clone(), encoded: encoded() })))
            })?,
            chain::VerifiedRecord::Revocation(r) => Kept::Revocation(**r),
            chain::VerifiedRecord::Floors(f) => Kept::Floors(f.get().clone()),
        };
        Ok(Verified { root: *root.digest(), kept })
    }

    /// Kind and sequence.
    pub fn named(&self) -> (RecordKind, u64) {
        match &self.kept {
            Kept::Certificate(key) => (RecordKind::Certificate, key.certificate.sequence),
            Kept::Revocation(r) => (RecordKind::Revocation, r.sequence),
            Kept::RootSet(root) => (RecordKind::RootSet, root.set().sequence),
            Kept::Policy(stored) => (RecordKind::Policy, stored.policy.sequence),
            Kept::Floors(f) => (RecordKind::Floors, f.sequence),
        }
    }
}

fn newer(sequence: u64, than: u64) -> Result<(), Error> {
    if sequence > than { Ok(()) } else { Err(Error::RecordStale) }
}

impl KeyRing {
    /// Puts a verified record in force, or changes nothing.
    pub(crate) fn install(&mut self, record: &Verified) -> Result<(), Error> {
        // One that an earlier root set vouched for is worth nothing under a later one.
        if self.trusted.root.as_ref().is_none_or(|root| *root.digest() != record.root) {
            return Err(Error::RecordStale);
        }
        match &record.kept {
            Kept::Certificate(key) => {
                self.admit(key)?;
                self.put_key(key.clone());
            }
            Kept::Revocation(r) => {
                newer(r.sequence, self.revocation_sequence)?;
                if self.revoked.len() >= MAX_REVOKED {
                    return Err(Error::ArenaFull);
                }
                self.take_back(r.item);
                self.revocation_sequence = r.sequence;
            }
            Kept::RootSet(root) => {
                newer(root.set().sequence, self.root_sequence())?;
                self.trusted.root = Some(root.clone());
            }
            Kept::Policy(stored) => {
                newer(stored.policy.sequence, self.policy().map_or(0, |p| p.policy.sequence))?;
                self.trusted.policy = Some(stored.clone());
            }
            Kept::Floors(record) => {
                newer(record.sequence, self.floors.sequence)?;
                self.floors.raise_all(&record.floors, Origin::Record)?;
                self.floors.sequence = record.sequence;
            }
        }
        self.changes += 1;
        Ok(())
    }

    /// Puts another root set in force.
    #[cfg(test)]
    pub(crate) fn replace_root(&mut self, root: RootKeys) {
        self.trusted.root = Some(Arc::new(root));
    }

    /// Sequence of the root set in force.
    fn root_sequence(&self) -> u64 {
        self.trusted.root.as_ref().map_or(0, |root| root.set().sequence)
    }

    /// Whether a certificate may come into force: newer than all of its publisher, for a key that is no other
    /// publisher's, in a namespace that is no other publisher's, and with room for it.
    pub(super) fn admit(&self, key: &StoredKey) -> Result<(), Error> {
        let new = &key.certificate;
        let mut same_key = false;
        for known in self.trusted.keys() {
            let (id, certificate) = (known.stored.key.id(), &known.stored.certificate);
            if certificate.publisher == new.publisher {
                newer(new.sequence, certificate.sequence)?;
                same_key |= id == key.key.id();
            } else if id == key.key.id() {
                return Err(Error::WrongPublisher);
            } else if certificate.overlaps(new) {
                return Err(Error::Namespace);
            }
        }
        let room = same_key || self.trusted.keys.iter().any(Option::is_none);
        if room { Ok(()) } else { Err(Error::ArenaFull) }
    }

    /// Takes the place of the same key's certificate, or a free one.
    pub(super) fn put_key(&mut self, stored: Arc<StoredKey>) {
        let id = stored.key.id();
        let revoked = self.revoked.iter().any(|item| matches!(item, RevokedItem::Key(k) if k == id));
        let same = |k: &Option<Key>| k.as_ref().is_some_and(|k| k.stored.key.id() == id);
        let at = self.trusted.keys.iter().position(same);
        let at = at.or_else(|| self.trusted.keys.iter().position(Option::is_none));
        let usable = SecureBool::new(!revoked);
        if let Some(place) = at.and_then(|at| self.trusted.keys.get_mut(at)) {
            *place = Some(Key { stored, usable });
        }
    }

    /// Adds to what is revoked; there must be room.
    pub(crate) fn take_back(&mut self, item: RevokedItem) {
        self.revoked.push(item);
        if let RevokedItem::Key(id) = item {
            let keys = self.trusted.keys.iter_mut().flatten();
            keys.filter(|key| *key.stored.key.id() == id).for_each(|key| key.usable = SecureBool::DENY);
        }
    }

    /// The ring as a whole.
    pub(crate) fn record(&self) -> sila_abi::status::KeyRingRecord {
        let root = self.trusted.root.as_deref();
        sila_abi::status::KeyRingRecord {
            changes: self.changes,
            root_sequence: self.root_sequence(),
            root_keys: root.map_or(0, |r| r.set().keys.len() as u64),
            threshold: root.map_or(0, |r| r.set().threshold.into()),
            purpose: self.trusted.purpose() as u64,
            keys: self.trusted.keys().count() as u64,
            key_room: super::MAX_KEYS as u64,
            revocation_sequence: self.revocation_sequence,
            revocations: self.revoked.len() as u64,
            floor_sequence: self.floors.sequence,
            floors: self.floors.len() as u64,
            floors_imported: self.floors.imported,
            floors_clipped: self.floors.clipped,
            policy_sequence: self.policy().map_or(0, |p| p.policy.sequence),
            boot_sequence: self.boot_sequence,
            root_digest: root.map_or([0; 32], |r| *r.digest()),
        }
    }

    /// Raises the floors of an unsigned record, each at most to its entry in `present`: the highest security version of
    /// that module that the bundle holds. One that is not there at all raises nothing, so that nobody bricks a module so.
    pub(crate) fn import_floors(&mut self, record: &FloorRecord, present: &[u32]) -> Result<(), Error> {
        let clip = |(floor, present): (&sila_abi::boot::Floor, &u32)| {
            let security_version = floor.security_version.min(*present);
            sila_abi::boot::Floor { security_version, ..*floor }
        };
        let taken: Vec<_> = record.floors.iter().zip(present).map(clip).collect();
        let clipped = taken.iter().zip(record.floors.iter()).filter(|(t, f)| t != f).count();
        let higher = |f: &&sila_abi::boot::Floor| f.security_version > self.floors.of(&f.publisher, &f.name);
        let imported = taken.iter().filter(higher).count();
        self.floors.raise_all(&taken, Origin::Imported)?;
        (self.floors.imported, self.floors.clipped) = (imported as u64, clipped as u64);
        Ok(())
    }
}
