//! The chain of trust of a package or record, link by link: what holds, and the exact rule of what does not.

use super::hex;
use super::record_view::{algorithm_name, write_root_set};
use super::roots::successor_set;
use super::trust::{Held, Trust};
use super::verify::{purpose_name, verify_package};
use anyhow::{Result, anyhow};
use sila_abi::manifest::Manifest;
use sila_abi::package::{LoadProof, Package};
use sila_abi::trust::{Certificate, PublicKey, Record, RecordKind, RootSet, SignatureSet, SignedRecord};
use sila_crypto::chain::{self, ChainError, KeySource, VerifiedRecord, statement, verify_record};
use sila_crypto::hash::bulk_digest;
use sila_crypto::scheme::{Domain, VerifyingKey};
use std::fmt::Write;
use zerocopy::IntoBytes;

/// A report, and the rule that broke first.
pub struct ChainReport {
    /// The text.
    pub text: String,
    /// The first rule that does not hold.
    pub broken: Option<String>,
}

/// What became of one signature.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is the key's, over these bytes, in this domain.
    Valid,
    /// It is not.
    Invalid,
    /// There is no usable key to check it with.
    NoKey,
}

impl Verdict {
    /// As a word in a report.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Invalid => "INVALID",
            Self::NoKey => "not checked: no key",
        }
    }
}

/// The three signatures of a package and what they come to under a key, by name.
pub fn package_signatures(package: &Package<'_>, key: Option<&VerifyingKey>) -> [(&'static str, Verdict); 3] {
    let (algorithm, id) = (package.header.algorithm.get(), &package.header.key_id);
    let check = |domain, message: &[u8], signature: &[u8]| match key {
        Some(key) if key.scheme().number == algorithm => match key.verify(domain, message, signature) {
            Ok(()) => Verdict::Valid,
            Err(_) => Verdict::Invalid,
        },
        _ => Verdict::NoKey,
    };
    let digest = bulk_digest(package.signed);
    let whole = statement::package(algorithm, id, package.signed.len() as u64, &digest);
    let manifest = statement::manifest(algorithm, id, package.manifest);
    let binary = match Manifest::decode(package.manifest) {
        Ok(manifest) => check(Domain::Binary, statement::binary(&manifest).as_bytes(), package.binary_sig),
        Err(_) => Verdict::Invalid,
    };
    [
        ("package", check(Domain::Package, whole.as_bytes(), package.package_sig)),
        ("manifest", check(Domain::Manifest, manifest.as_bytes(), package.manifest_sig)),
        ("binary", binary),
    ]
}

/// The chain from the root set to a package.
pub fn package_chain(bytes: &[u8], trust: &Trust) -> Result<ChainReport> {
    let mut out = String::new();
    write_root(&mut out, trust)?;
    let package = match Package::parse(bytes) {
        Ok(package) => package,
        Err(error) => {
            let error = ChainError::Package(error);
            writeln!(out, "package        {}", refused(error))?;
            return Ok(ChainReport { text: out, broken: Some(rule(error)) });
        }
    };
    let id = &package.header.key_id;
    let publisher = trust.store.publisher(id);
    write_publisher(&mut out, trust, &package)?;
    for (what, verdict) in package_signatures(&package, publisher.map(|publisher| publisher.key)) {
        writeln!(out, "{:<14} {}", format!("{what} sig."), verdict.word())?;
    }
    write_authority(&mut out, &package, trust)?;
    let broken = match verify_package(bytes, &trust.store) {
        Ok(accepted) => {
            let m = &accepted.manifest;
            writeln!(out, "image          ok: {} bytes, digest, header and padding", accepted.image.len())?;
            writeln!(out, "verdict        {} {} by {} is good", m.name, m.version, m.publisher)?;
            None
        }
        Err(refusal) => {
            writeln!(out, "verdict        REFUSED by {}: {refusal}", refusal.name())?;
            Some(refusal.name())
        }
    };
    Ok(ChainReport { text: out, broken })
}

fn rule(error: ChainError) -> String {
    format!("{} (rule {:#x})", error.name(), error.number())
}

fn refused(error: ChainError) -> String {
    format!("REFUSED by {}: {error}", rule(error))
}

fn outcome(result: Result<(), ChainError>) -> String {
    result.map_or_else(refused, |()| "ok".into())
}

/// The root set in force, and how it came to be.
fn write_root(out: &mut String, trust: &Trust) -> Result<()> {
    write_root_set(out, trust.root.set())?;
    writeln!(out, "  anchor       {}, trusted as it is found", trust.dir.join("rootset.bin").display())?;
    for held in trust.held.iter().filter(|held| held.signed.kind == RecordKind::RootSet) {
        writeln!(out, "  successor    sequence {} ({}): ok", held.record.sequence(), held.path.display())?;
    }
    Ok(())
}

/// Certificate, key and revocations of whoever signed.
fn write_publisher(out: &mut String, trust: &Trust, package: &Package<'_>) -> Result<()> {
    let id = &package.header.key_id;
    let (Some(Held { path, signed, record: VerifiedRecord::Certificate(c) }), Some(publisher)) =
        (trust.certificate(id), trust.store.publisher(id))
    else {
        writeln!(out, "certificate    {} (key id {})", refused(ChainError::UnknownKey), hex(id))?;
        return Ok(());
    };
    let purpose = purpose_name(c.purpose);
    writeln!(
        out,
        "certificate    {}, sequence {}, {purpose} ({}): ok",
        c.publisher,
        c.sequence,
        path.display()
    )?;
    write_signatures(out, signed, &signed.signatures, trust.root.set())?;
    let algorithm = package.header.algorithm.get();
    let checks = [
        ("  revoked", !trust.is_revoked(id), ChainError::KeyRevoked),
        ("  purpose", c.purpose == trust.store.purpose(), ChainError::WrongPurpose),
        ("  algorithm", publisher.key.scheme().number == algorithm, ChainError::AlgorithmMismatch),
        ("  policy", trust.store.allows_algorithm(algorithm), ChainError::AlgorithmNotAllowed),
    ];
    for (what, holds, error) in checks {
        writeln!(out, "{what:<14} {}", outcome(if holds { Ok(()) } else { Err(error) }))?;
    }
    Ok(())
}

/// What certificate, revocations and floors say about the manifest, whoever signed it.
fn write_authority(out: &mut String, package: &Package<'_>, trust: &Trust) -> Result<()> {
    let decoded = Manifest::decode(package.manifest).map_err(ChainError::Manifest);
    let result = decoded.and_then(|manifest| {
        let proof = LoadProof::of_package(package);
        if manifest.key_id != *proof.key_id {
            return Err(ChainError::KeyMismatch);
        }
        chain::check_authority(&manifest, &trust.store)
    });
    writeln!(out, "authority      {}", outcome(result))?;
    Ok(())
}

/// Each root signature of a record, checked by itself.
fn write_signatures(
    out: &mut String,
    signed: &SignedRecord,
    set: &SignatureSet,
    root: &RootSet,
) -> Result<()> {
    for (index, verdict) in record_signatures(signed, set, root) {
        writeln!(out, "  root key {index:<3} {}", verdict.word())?;
    }
    Ok(())
}

/// What became of each root signature: index of its key and verdict.
pub fn record_signatures(signed: &SignedRecord, set: &SignatureSet, root: &RootSet) -> Vec<(u8, Verdict)> {
    let domain = Domain::of(signed.kind);
    let decode = |key: &PublicKey| VerifyingKey::decode(key.algorithm, &key.bytes).ok();
    let each = set.signatures.iter().map(|signature| {
        let key = root.keys.get(usize::from(signature.key_index)).and_then(decode);
        let verdict = key.map_or(Verdict::NoKey, |key| {
            let message = statement::record(key.scheme().number, &signed.record);
            match key.verify(domain, message.as_bytes(), &signature.bytes) {
                Ok(()) => Verdict::Valid,
                Err(_) => Verdict::Invalid,
            }
        });
        (signature.key_index, verdict)
    });
    each.collect()
}

/// What became of every signature of a record that can be checked with this root set: it is the one in force, or
/// the one that the record holds.
pub fn all_signatures(signed: &SignedRecord, set: &RootSet) -> Result<Vec<(u8, Verdict)>> {
    let own = successor_set(signed)?;
    let mut verdicts = Vec::new();
    if own.as_ref() != Some(set) {
        verdicts.extend(record_signatures(signed, &signed.signatures, set));
    }
    if let Some(own) = own {
        verdicts.extend(record_signatures(signed, &signed.successor_signatures, &own));
    }
    Ok(verdicts)
}

/// The chain from the root set to a record.
pub fn record_chain(signed: &SignedRecord, trust: &Trust) -> Result<ChainReport> {
    let mut out = String::new();
    write_root(&mut out, trust)?;
    writeln!(
        out,
        "signatures     {} of the {} needed",
        signed.signatures.signatures.len(),
        trust.root.set().threshold
    )?;
    write_signatures(&mut out, signed, &signed.signatures, trust.root.set())?;
    if let Some(set) = successor_set(signed)? {
        let own = &signed.successor_signatures;
        writeln!(out, "co-signatures  {} of the {} needed", own.signatures.len(), set.threshold)?;
        write_signatures(&mut out, signed, own, &set)?;
    }
    let result = verify_record(signed, &trust.root).map(|_| ());
    writeln!(
        out,
        "verdict        the {} is {}",
        signed.kind.name(),
        if result.is_ok() { "good" } else { "refused" }
    )?;
    let broken = result.err().map(|error| {
        let _ = writeln!(out, "               {}", refused(error));
        rule(error)
    });
    if let (None, RecordKind::Certificate) = (&broken, signed.kind) {
        write_standing(&mut out, signed, trust)?;
    }
    Ok(ChainReport { text: out, broken })
}

/// What the folder's other records say about a good certificate.
fn write_standing(out: &mut String, signed: &SignedRecord, trust: &Trust) -> Result<()> {
    let certificate = Certificate::decode(&signed.record).map_err(|e| anyhow!("the certificate: {e}"))?;
    let id = sila_crypto::hash::key_id(certificate.key.algorithm, &certificate.key.bytes);
    let revoked = if trust.is_revoked(&id) { "revoked" } else { "not revoked" };
    writeln!(out, "key            {}, {revoked}", algorithm_name(certificate.key.algorithm))?;
    Ok(())
}
