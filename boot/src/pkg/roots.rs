//! The folder of a root: its root set, and those of the secret keys that this holder has.
//!
//! Whoever keeps all keys has `root-0.key`, `root-1.key` and so on beside `rootset.bin`; a holder of one key has that
//! one. Which key of the set a file holds is seen by the key itself.

use super::keys::{list, load_key};
use super::read;
use anyhow::{Context, Result, anyhow, bail};
use sila_abi::trust::{
    PublicKey, Record, RecordKind, RootSet, RootSignature, SIGNED_MAX, SignatureSet, SignedRecord,
};
use sila_crypto::chain::{RootKeys, statement};
use sila_crypto::scheme::Domain;
use sila_crypto::sign::SigningKey;
use std::path::{Path, PathBuf};
use zerocopy::IntoBytes;

/// A secret root key and its place in the root set.
#[derive(Debug)]
pub struct RootKey {
    /// Index in the root set.
    pub index: u8,
    /// The secret key.
    pub key: SigningKey,
}

/// A root set and the secret keys at hand.
#[derive(Debug)]
pub struct RootFolder {
    /// The root set.
    pub set: RootSet,
    /// Its encoding.
    pub encoded: Vec<u8>,
    /// The secret keys at hand, by index.
    pub keys: Vec<RootKey>,
}

/// How far a record is from what its root set demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Signatures that it has.
    pub have: usize,
    /// Signatures that it needs.
    pub need: usize,
}

impl Standing {
    /// Whether there are enough.
    pub const fn is_enough(self) -> bool {
        self.have >= self.need
    }
}

impl RootFolder {
    /// Reads a root's folder: its root set, and at least one secret key of it.
    pub fn load(dir: &Path) -> Result<Self> {
        let path = dir.join("rootset.bin");
        let encoded = read(&path)?;
        let set = RootSet::decode(&encoded).map_err(|e| anyhow!("{}: {e}", path.display()))?;
        let mut keys = Vec::<RootKey>::new();
        for file in key_files(dir)? {
            let key = load_key(&file)?;
            let index = index_of(&set, &key)?
                .with_context(|| format!("{} is no key of the root set beside it", file.display()))?;
            if keys.iter().all(|other| other.index != index) {
                keys.push(RootKey { index, key });
            }
        }
        if keys.is_empty() {
            bail!("{} holds no secret root key", dir.display());
        }
        keys.sort_by_key(|root| root.index);
        Ok(Self { set, encoded, keys })
    }

    /// The root set as the chain of trust uses it.
    pub fn root(&self) -> Result<RootKeys> {
        RootKeys::decode(&self.encoded).map_err(|e| anyhow!("the root set: {e}"))
    }

    /// A record signed with the keys at hand, at most as many as the root set demands.
    pub fn sign<T: Record>(&self, kind: RecordKind, record: &T) -> Result<SignedRecord> {
        sign_record(&self.keys, self.set.threshold, kind, record)
    }

    /// How many of the needed signatures by this root a record has.
    pub fn standing(&self, signed: &SignedRecord) -> Standing {
        Standing { have: signed.signatures.signatures.len(), need: self.set.threshold.into() }
    }

    /// Adds the signatures of the keys at hand that a record does not have yet; the answer is how many there were.
    /// A root set that this folder belongs to gets them as its successor's.
    pub fn cosign(&self, signed: &mut SignedRecord) -> Result<usize> {
        let mut added = 0;
        let own = successor_set(signed)?;
        if own.as_ref() != Some(&self.set) {
            added += add(&mut signed.signatures, &self.set, &self.keys, signed.kind, &signed.record)?;
        }
        if let Some(set) = own {
            added += add(&mut signed.successor_signatures, &set, &self.keys, signed.kind, &signed.record)?;
        }
        Ok(added)
    }
}

/// The root set that a record holds, if it is one.
pub fn successor_set(signed: &SignedRecord) -> Result<Option<RootSet>> {
    if signed.kind != RecordKind::RootSet {
        return Ok(None);
    }
    let set = RootSet::decode(&signed.record).map_err(|e| anyhow!("the record's root set: {e}"))?;
    Ok(Some(set))
}

fn add(
    to: &mut SignatureSet,
    set: &RootSet,
    keys: &[RootKey],
    kind: RecordKind,
    encoded: &[u8],
) -> Result<usize> {
    let mut all = to.signatures.to_vec();
    for root in keys {
        let Some(index) = index_of(set, &root.key)? else { continue };
        if all.iter().all(|signature| signature.key_index != index) {
            all.push(signature(index, &root.key, Domain::of(kind), encoded)?);
        }
    }
    let added = all.len() - to.signatures.len();
    all.sort_by_key(|signature| signature.key_index);
    *to = SignatureSet { signatures: list(all, "signatures")? };
    Ok(added)
}

/// The place of a secret key in a root set.
fn index_of(set: &RootSet, key: &SigningKey) -> Result<Option<u8>> {
    let public: PublicKey = key.public_key();
    let place = set.keys.iter().position(|other| *other == public);
    place.map(|place| u8::try_from(place).context("a root set of more than 256 keys")).transpose()
}

/// `root.key`, `root-0.key` and so on, by name.
fn key_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("cannot read {}", dir.display()))?.path();
        let text = path.file_name().and_then(|text| text.to_str()).unwrap_or_default();
        if text == "root.key" || (text.starts_with("root-") && text.ends_with(".key")) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn signature(index: u8, key: &SigningKey, domain: Domain, encoded: &[u8]) -> Result<RootSignature> {
    let message = statement::record(key.algorithm(), encoded);
    let bytes = list(key.sign(domain, message.as_bytes())?, "signature bytes")?;
    Ok(RootSignature { key_index: index, bytes })
}

/// A record signed with the first keys, at most as many as `threshold`.
pub(super) fn sign_record<T: Record>(
    keys: &[RootKey],
    threshold: u8,
    kind: RecordKind,
    record: &T,
) -> Result<SignedRecord> {
    let encoded = record.encode()?;
    if encoded.len() > SIGNED_MAX {
        bail!("the {} takes {} bytes, and {SIGNED_MAX} is the most", kind.name(), encoded.len());
    }
    let signatures = root_signatures(keys, threshold, Domain::of(kind), &encoded)?;
    let successor_signatures = SignatureSet::default();
    Ok(SignedRecord { kind, record: list(encoded, "record bytes")?, signatures, successor_signatures })
}

/// Signatures of an encoded record by the first keys, at most as many as `threshold`.
pub(super) fn root_signatures(
    keys: &[RootKey],
    threshold: u8,
    domain: Domain,
    encoded: &[u8],
) -> Result<SignatureSet> {
    let signers = keys.iter().take(usize::from(threshold));
    let made = signers.map(|root| signature(root.index, &root.key, domain, encoded));
    Ok(SignatureSet { signatures: list(made.collect::<Result<Vec<_>>>()?, "signatures")? })
}
