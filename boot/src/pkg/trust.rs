//! A folder of trust: a root set and the records under it, as a system would hold them after it had installed all.
//!
//! ```text
//! DIR/
//!   rootset.bin      the root set that is trusted as it is found
//!   *.rootset        its successors, by rising sequence
//!   *.cert  *.revocation  *.policy  *.floors
//! ```

use super::policy::default_policy;
use super::read;
use anyhow::{Context, Result, anyhow, bail};
use sila_abi::policy::Policy;
use sila_abi::record::KeyId;
use sila_abi::trust::{Record, RecordKind, RevokedItem, SignedRecord};
use sila_crypto::chain::{KeySource, RootKeys, VerifiedRecord, verify_record};
use sila_crypto::keystore::KeyStore;
use std::path::{Path, PathBuf};

/// What a file of each kind of record ends with.
pub const ENDINGS: [(RecordKind, &str); 5] = [
    (RecordKind::Certificate, "cert"),
    (RecordKind::Revocation, "revocation"),
    (RecordKind::RootSet, "rootset"),
    (RecordKind::Policy, "policy"),
    (RecordKind::Floors, "floors"),
];

/// What a file with a record of this kind ends with.
pub fn ending(kind: RecordKind) -> &'static str {
    ENDINGS.iter().find(|(k, _)| *k == kind).map_or("record", |(_, ending)| ending)
}

/// The kind of record that a file's name speaks of.
fn kind_of(path: &Path) -> Option<RecordKind> {
    let text = path.extension()?.to_str()?;
    ENDINGS.iter().find(|(_, ending)| *ending == text).map(|(kind, _)| *kind)
}

/// A record and its signatures as they stand in a file.
pub fn read_record(path: &Path) -> Result<SignedRecord> {
    SignedRecord::decode(&read(path)?).map_err(|e| anyhow!("{}: {e}", path.display()))
}

/// A record of a folder, found good.
pub struct Held {
    /// Its file.
    pub path: PathBuf,
    /// As it stands in the file.
    pub signed: SignedRecord,
    /// What it says.
    pub record: VerifiedRecord,
}

/// A root set and all records of a folder.
pub struct Trust {
    /// The folder.
    pub dir: PathBuf,
    /// The root set in force.
    pub root: RootKeys,
    /// The records, by kind and sequence; root sets first.
    pub held: Vec<Held>,
    /// The policy in force: the newest of the folder, or the default one.
    pub policy: Policy,
    /// What a system that holds all this knows.
    pub store: KeyStore,
}

impl Trust {
    /// Reads a folder. A record that its root set refuses, or that contradicts another one, is an error that names it.
    pub fn load(dir: &Path) -> Result<Self> {
        let anchor = dir.join("rootset.bin");
        let root = RootKeys::decode(&read(&anchor)?).map_err(|e| anyhow!("{}: {e}", anchor.display()))?;
        let mut files = record_files(dir)?;
        let mut held = Vec::new();
        let sets: Vec<_> = files.extract_if(.., |file| file.1.kind == RecordKind::RootSet).collect();
        let root = successors(root, sets, &mut held)?;
        for (path, signed) in files {
            let record = verified(&path, &signed, &root)?;
            held.push(Held { path, signed, record });
        }
        held.sort_by_key(|held| (order(held.signed.kind), held.record.sequence()));
        let policy = match held.iter().rev().find_map(|held| policy_of(&held.record)) {
            Some(policy) => policy.clone(),
            None => default_policy()?,
        };
        let mut store = KeyStore::new(root.purpose(), policy.clone());
        for held in &held {
            install(&mut store, &held.record)
                .with_context(|| format!("{} is refused", held.path.display()))?;
        }
        Ok(Self { dir: dir.to_path_buf(), root, held, policy, store })
    }

    /// Whether a revocation of the folder takes this key back.
    pub fn is_revoked(&self, id: &KeyId) -> bool {
        self.held.iter().any(|held| match &held.record {
            VerifiedRecord::Revocation(revocation) => revocation.item == RevokedItem::Key(*id),
            _ => false,
        })
    }

    /// The certificate in force for the key with this id, and its file.
    pub fn certificate(&self, id: &KeyId) -> Option<&Held> {
        let certificate = self.store.publisher(id)?.certificate;
        let is_it = |held: &&Held| match &held.record {
            VerifiedRecord::Certificate(found) => found.get() == certificate,
            _ => false,
        };
        self.held.iter().find(is_it)
    }
}

/// Root sets come first; then what the others refer to.
fn order(kind: RecordKind) -> u8 {
    if kind == RecordKind::RootSet { 0 } else { kind as u8 }
}

fn policy_of(record: &VerifiedRecord) -> Option<&Policy> {
    if let VerifiedRecord::Policy(policy) = record { Some(policy.get()) } else { None }
}

/// The record files of a folder, by name.
fn record_files(dir: &Path) -> Result<Vec<(PathBuf, SignedRecord)>> {
    let entries = std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("cannot read {}", dir.display()))?.path();
        if kind_of(&path).is_some() {
            paths.push(path);
        }
    }
    paths.sort();
    paths.into_iter().map(|path| read_named(&path).map(|signed| (path, signed))).collect()
}

/// A record whose kind is the one that the file's name speaks of.
fn read_named(path: &Path) -> Result<SignedRecord> {
    let signed = read_record(path)?;
    if kind_of(path).is_some_and(|kind| kind != signed.kind) {
        bail!("{} holds a {}", path.display(), signed.kind.name());
    }
    Ok(signed)
}

fn verified(path: &Path, signed: &SignedRecord, root: &RootKeys) -> Result<VerifiedRecord> {
    verify_record(signed, root).with_context(|| format!("{} is refused", path.display()))
}

/// Follows root sets by rising sequence, each signed by the one before it.
fn successors(first: RootKeys, sets: Vec<(PathBuf, SignedRecord)>, held: &mut Vec<Held>) -> Result<RootKeys> {
    let mut sets = sets;
    let sequence =
        |signed: &SignedRecord| sila_abi::trust::RootSet::decode(&signed.record).map(|set| set.sequence);
    sets.sort_by_key(|(_, signed)| sequence(signed).unwrap_or(0));
    let mut root = first;
    for (path, signed) in sets {
        if RootKeys::decode(&signed.record).is_ok_and(|set| set.digest() == root.digest()) {
            // The folder's rootset.bin is this one already.
            continue;
        }
        let record = verified(&path, &signed, &root)?;
        root = RootKeys::decode(&signed.record).with_context(|| path.display().to_string())?;
        held.push(Held { path, signed, record });
    }
    Ok(root)
}

fn install(store: &mut KeyStore, record: &VerifiedRecord) -> Result<()> {
    match record {
        VerifiedRecord::Certificate(certificate) => store.add_certificate(certificate.clone())?,
        VerifiedRecord::Revocation(revocation) => store.add_revocation(*revocation)?,
        VerifiedRecord::Floors(record) => {
            for floor in &record.floors {
                store.raise_floor(&floor.publisher, &floor.name, floor.security_version)?;
            }
        }
        VerifiedRecord::RootSet(_) | VerifiedRecord::Policy(_) => {}
    }
    Ok(())
}
