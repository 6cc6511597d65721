//! What the kernel's KeyRing and Policy hold, as records.

use crate::error::CallError;
use crate::op::{self, invoke_long};
use alloc::vec::Vec;
use sila_abi::boot::Floor;
use sila_abi::policy::{Policy, covers};
use sila_abi::protocol::wire;
use sila_abi::record::{KeyId, Name, decode_canonical};
use sila_abi::status::KeyRingRecord;
use sila_abi::syscall::{MAX_WORDS, REGISTER_WORDS};
use sila_abi::trust::{Certificate, RECORD_MAX, Record, RevokedItem};
use sila_abi::{Error, Op, Slot};
use zerocopy::{FromBytes, IntoBytes};

/// The most bytes of a revoked item or a floor.
const ITEM_MAX: usize = (MAX_WORDS - REGISTER_WORDS) * 8;
/// How often a ring that changes while it is read is read anew.
const TRIES: usize = 8;

/// A publisher's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertifiedKey {
    /// Its id.
    pub id: KeyId,
    /// Whether it is revoked.
    pub revoked: bool,
    /// What the root says about it.
    pub certificate: Certificate,
}

/// Everything that the KeyRing tells, as of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ring {
    /// Sequences and counts.
    pub state: KeyRingRecord,
    /// The publishers' keys.
    pub keys: Vec<CertifiedKey>,
    /// What is revoked.
    pub revocations: Vec<RevokedItem>,
    /// The floors, each with the number of its origin as `KeyRingFloor` gives it.
    pub floors: Vec<(Floor, u64)>,
}

impl Ring {
    /// The publisher whose modules and services may have this name: the one with a prefix that covers it, or else the
    /// one without prefixes. Keys that are revoked do not count.
    pub fn publisher_of(&self, name: &Name) -> Option<Name> {
        let valid = || self.keys.iter().filter(|key| !key.revoked).map(|key| &key.certificate);
        let covering = valid().find(|c| c.prefixes.iter().any(|prefix| covers(prefix, name)));
        covering.or_else(|| valid().find(|c| c.prefixes.is_empty())).map(|c| c.publisher)
    }
}

/// The KeyRing's sequences and counts.
///
/// # Errors
/// The kernel's.
pub fn ring_state(key_ring: Slot) -> Result<KeyRingRecord, CallError> {
    let mut words = [0; MAX_WORDS];
    invoke_long(key_ring, Op::KeyRingState, &[], &mut words)?;
    let (record, _) =
        KeyRingRecord::read_from_prefix(words.as_bytes()).map_err(|_| Error::RecordMalformed)?;
    Ok(record)
}

/// The whole KeyRing, as of one moment.
///
/// # Errors
/// The kernel's; `RecordStale` if it changes all the time.
pub fn ring(key_ring: Slot) -> Result<Ring, CallError> {
    for _ in 0..TRIES {
        let state = ring_state(key_ring)?;
        let ring = Ring {
            state,
            keys: every(|index| key(key_ring, index))?,
            revocations: every(|index| item(key_ring, Op::KeyRingRevocation, index).map(|(item, _)| item))?,
            floors: every(|index| item(key_ring, Op::KeyRingFloor, index))?,
        };
        if ring_state(key_ring)?.changes == state.changes {
            return Ok(ring);
        }
    }
    Err(Error::RecordStale.into())
}

/// Floor number `index`; `None` behind the last one.
///
/// # Errors
/// The kernel's.
pub fn floor(key_ring: Slot, index: u64) -> Result<Option<Floor>, CallError> {
    match item::<Floor>(key_ring, Op::KeyRingFloor, index) {
        Ok((floor, _)) => Ok(Some(floor)),
        Err(error) if error.error == Error::NoMoreEntries => Ok(None),
        Err(error) => Err(error),
    }
}

/// A process that runs what could not be loaded any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Affected {
    /// The process.
    pub process: u64,
    /// Why: 1 its key is revoked, 2 its version is, 3 it lies below the floor.
    pub why: u64,
}

/// Every process that runs what could not be loaded any more, in order.
///
/// # Errors
/// The kernel's.
pub fn affected(key_ring: Slot) -> Result<Vec<Affected>, CallError> {
    let mut cursor = 0;
    let all = every(|_| {
        let [next, process, why, ..] = op::KeyRingAffected(key_ring, cursor)?.words;
        cursor = next;
        Ok(Affected { process, why })
    })?;
    Ok(all.into_iter().filter(|found| found.why != 0).collect())
}

/// The policy in force.
///
/// # Errors
/// The kernel's; `RecordStale` if it was replaced while it was read, again and again.
pub fn policy(policy: Slot) -> Result<Policy, CallError> {
    for _ in 0..TRIES {
        let sequence = op::PolicyStatus(policy)?.words[0];
        let bytes = whole(|offset, words| invoke_long(policy, Op::PolicyRead, &[offset], words))?;
        if op::PolicyStatus(policy)?.words[0] == sequence {
            return Policy::decode(&bytes).map_err(|_| Error::RecordMalformed.into());
        }
    }
    Err(Error::RecordStale.into())
}

/// What `read` gives for 0, 1, 2 and so on, until there is no more.
fn every<T>(mut read: impl FnMut(u64) -> Result<T, CallError>) -> Result<Vec<T>, CallError> {
    let mut all = Vec::new();
    loop {
        match read(all.len() as u64) {
            Ok(one) => all.push(one),
            Err(error) if error.error == Error::NoMoreEntries => return Ok(all),
            Err(error) => return Err(error),
        }
    }
}

fn key(key_ring: Slot, index: u64) -> Result<CertifiedKey, CallError> {
    let status = op::KeyRingStatus(key_ring, index)?.words;
    let read =
        |offset, words: &mut [u64]| invoke_long(key_ring, Op::KeyRingCertificate, &[index, offset], words);
    let certificate = Certificate::decode(&whole(read)?).map_err(|_| Error::RecordMalformed)?;
    let id = wire::digest_at(&status, 0).unwrap_or_default();
    Ok(CertifiedKey { id, revoked: status[4] & 1 != 0, certificate })
}

/// A short record of a list, and word 1 beside it.
fn item<T: borsh::BorshSerialize + borsh::BorshDeserialize>(
    key_ring: Slot,
    op: Op,
    index: u64,
) -> Result<(T, u64), CallError> {
    let mut words = [0; MAX_WORDS];
    invoke_long(key_ring, op, &[index], &mut words)?;
    let [length, beside, ..] = words;
    let bytes = words.get(REGISTER_WORDS..).unwrap_or_default().as_bytes();
    let bytes = usize::try_from(length).ok().and_then(|length| bytes.get(..length));
    let record = decode_canonical(bytes.ok_or(Error::RecordMalformed)?, ITEM_MAX);
    Ok((record.map_err(|_| Error::RecordMalformed)?, beside))
}

/// A long record, piece by piece: `read` fills the words from a word offset on. Word 0: how many follow in words 6
/// up, word 1: the record's length in bytes.
fn whole(mut read: impl FnMut(u64, &mut [u64]) -> Result<usize, CallError>) -> Result<Vec<u8>, CallError> {
    let mut bytes = Vec::new();
    loop {
        let mut words = [0; MAX_WORDS];
        read((bytes.len() / 8) as u64, &mut words)?;
        let [count, length, ..] = words;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let piece = words.get(REGISTER_WORDS..).unwrap_or_default();
        let piece = usize::try_from(count).ok().and_then(|count| piece.get(..count));
        let piece = piece.filter(|piece| !piece.is_empty()).ok_or(Error::RecordMalformed)?;
        bytes.extend_from_slice(piece.as_bytes());
        if length > RECORD_MAX {
            return Err(Error::RecordMalformed.into());
        }
        if bytes.len() >= length {
            bytes.truncate(length);
            return Ok(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sila_abi::record::{Bounded, VersionRange};
    use sila_abi::trust::{Ceiling, PublicKey, Purpose};
    use zerocopy::FromZeros;

    fn pieces(record: &[u8], offset: u64, words: &mut [u64]) -> Result<usize, CallError> {
        let rest = &record[(offset as usize * 8).min(record.len())..];
        let piece = &rest[..rest.len().min(112 * 8)];
        words[0] = piece.len().div_ceil(8) as u64;
        words[1] = record.len() as u64;
        words[REGISTER_WORDS..].as_mut_bytes()[..piece.len()].copy_from_slice(piece);
        Ok(MAX_WORDS)
    }

    #[test]
    fn long_records_are_put_together() {
        for len in [1, 7, 8, 895, 896, 897, 5000] {
            let record: Vec<u8> = (0..len).map(|i| i as u8).collect();
            assert_eq!(whole(|offset, words| pieces(&record, offset, words)).unwrap(), record);
        }
    }

    #[test]
    fn records_that_never_end_or_are_too_long_are_refused() {
        let endless = whole(|_, words| {
            words[1] = 100;
            Ok(MAX_WORDS)
        });
        assert_eq!(endless.unwrap_err().error, Error::RecordMalformed);
        let long = whole(|_, words| {
            (words[0], words[1]) = (1, u64::MAX);
            Ok(MAX_WORDS)
        });
        assert_eq!(long.unwrap_err().error, Error::RecordMalformed);
    }

    #[test]
    fn a_name_belongs_to_the_publisher_that_covers_it() {
        let key = |publisher: &str, prefixes: &[&str], revoked| {
            let prefixes = prefixes.iter().map(|prefix| Name::new(prefix).unwrap()).collect();
            let certificate = Certificate {
                sequence: 1,
                publisher: Name::new(publisher).unwrap(),
                key: PublicKey { algorithm: 1, bytes: Bounded::default() },
                purpose: Purpose::Test,
                prefixes: Bounded::from_vec(prefixes).unwrap(),
                ceiling: Ceiling {
                    types: Bounded::default(),
                    frames: 0,
                    object_bytes: 0,
                    max_priority: 0,
                    agents: false,
                },
                versions: VersionRange::ALL,
            };
            CertifiedKey { id: [0; 32], revoked, certificate }
        };
        let keys =
            vec![key("sila", &[], false), key("old", &["net"], true), key("acme", &["net", "disk"], false)];
        let mut ring = Ring { state: KeyRingRecord::new_zeroed(), keys, revocations: vec![], floors: vec![] };
        let of =
            |ring: &Ring, name| ring.publisher_of(&Name::new(name).unwrap()).map(|name| name.to_string());
        for (name, publisher) in
            [("net.dns", "acme"), ("disk", "acme"), ("network", "sila"), ("counter", "sila")]
        {
            assert_eq!(of(&ring, name).as_deref(), Some(publisher), "{name}");
        }
        ring.keys.remove(0);
        assert_eq!(of(&ring, "counter"), None);
    }

    #[test]
    fn without_a_kernel_there_is_no_ring() {
        assert_eq!(ring(Slot(10)).unwrap_err().error, Error::InvalidOperation);
        assert_eq!(policy(Slot(10)).unwrap_err().error, Error::InvalidOperation);
    }
}
