//! What trust records say, as text for a reviewer.

use super::description::object_name;
use super::hex;
use super::verify::purpose_name;
use anyhow::{Result, anyhow};
use sila_abi::policy::{LoadScope, Policy, PolicyRule};
use sila_abi::record::{Name, VersionRange};
use sila_abi::rights::Rights;
use sila_abi::trust::{
    Certificate, FloorRecord, PublicKey, Record, RecordKind, Revocation, RevokedItem, RootSet, SignatureSet,
    SignedRecord,
};
use sila_crypto::hash::{id_digest, key_id};
use sila_crypto::scheme::SCHEMES;
use std::fmt::Write;

/// The name of a signature scheme by its number.
pub fn algorithm_name(number: u16) -> String {
    let scheme = SCHEMES.iter().find(|scheme| scheme.number == number);
    scheme.map_or_else(|| format!("unknown algorithm {number}"), |scheme| scheme.name.to_string())
}

/// A signed record: its content, and who signed it. Nothing is checked.
pub fn write_signed(out: &mut String, signed: &SignedRecord) -> Result<()> {
    let encoded = &signed.record[..];
    let (kind, digest) = (signed.kind.name(), hex(&id_digest(encoded)));
    writeln!(out, "record         {kind}, {} bytes, digest {digest}", encoded.len())?;
    write_content(out, signed)?;
    write_signers(out, "signed", &signed.signatures)?;
    write_signers(out, "co-signed", &signed.successor_signatures)
}

fn write_content(out: &mut String, signed: &SignedRecord) -> Result<()> {
    let wrong = |e| anyhow!("the {}: {e}", signed.kind.name());
    match signed.kind {
        RecordKind::Certificate => {
            write_certificate(out, &Certificate::decode(&signed.record).map_err(wrong)?)
        }
        RecordKind::Revocation => write_revocation(out, &Revocation::decode(&signed.record).map_err(wrong)?),
        RecordKind::RootSet => write_root_set(out, &RootSet::decode(&signed.record).map_err(wrong)?),
        RecordKind::Policy => write_policy(out, &Policy::decode(&signed.record).map_err(wrong)?),
        RecordKind::Floors => write_floors(out, &FloorRecord::decode(&signed.record).map_err(wrong)?),
    }
}

fn write_signers(out: &mut String, title: &str, set: &SignatureSet) -> Result<()> {
    for signature in &set.signatures {
        writeln!(out, "{title:<14} by root key {}: {} bytes", signature.key_index, signature.bytes.len())?;
    }
    Ok(())
}

fn write_key(out: &mut String, title: &str, key: &PublicKey) -> Result<()> {
    let id = hex(&key_id(key.algorithm, &key.bytes));
    writeln!(out, "{title:<14} {}, id {id}", algorithm_name(key.algorithm))?;
    Ok(())
}

/// A root set.
pub fn write_root_set(out: &mut String, set: &RootSet) -> Result<()> {
    let purpose = purpose_name(set.purpose);
    writeln!(
        out,
        "root set       sequence {}, purpose {purpose}, {} of {} keys must sign",
        set.sequence,
        set.threshold,
        set.keys.len()
    )?;
    for (index, key) in set.keys.iter().enumerate() {
        write_key(out, &format!("  key {index}"), key)?;
    }
    Ok(())
}

/// A certificate.
pub fn write_certificate(out: &mut String, c: &Certificate) -> Result<()> {
    let purpose = purpose_name(c.purpose);
    writeln!(out, "certificate    {}, sequence {}, purpose {purpose}", c.publisher, c.sequence)?;
    write_key(out, "  key", &c.key)?;
    let prefixes: Vec<_> = c.prefixes.iter().map(Name::as_str).collect();
    let names = if prefixes.is_empty() { "any that nobody claims".into() } else { prefixes.join(" ") };
    writeln!(out, "  names        {names}")?;
    writeln!(out, "  versions     {}", range(&c.versions))?;
    let l = &c.ceiling;
    let agents = if l.agents { "agents, too" } else { "no agents" };
    writeln!(
        out,
        "  ceiling      {} frames, {} object bytes, priority {}, {agents}",
        l.frames, l.object_bytes, l.max_priority
    )?;
    // Types with the same rights share a line.
    for (place, t) in l.types.iter().enumerate() {
        if l.types.iter().take(place).any(|earlier| earlier.rights == t.rights) {
            continue;
        }
        let alike = l.types.iter().filter(|other| other.rights == t.rights);
        let names: Vec<_> = alike.map(|other| object_name(other.object)).collect();
        writeln!(out, "  ceiling      {} of {}", rights(t.rights), names.join(" "))?;
    }
    Ok(())
}

fn write_revocation(out: &mut String, revocation: &Revocation) -> Result<()> {
    let what = match &revocation.item {
        RevokedItem::Key(id) => format!("the key {} and all that it signed", hex(id)),
        RevokedItem::Module { publisher, name, versions } => {
            format!("{publisher}/{name}, versions {}", range(versions))
        }
    };
    writeln!(out, "revocation     sequence {}: {what}", revocation.sequence)?;
    Ok(())
}

/// A floor record.
pub fn write_floors(out: &mut String, record: &FloorRecord) -> Result<()> {
    writeln!(out, "floors         sequence {}, {} modules", record.sequence, record.floors.len())?;
    for floor in &record.floors {
        let module = format!("{}/{}", floor.publisher, floor.name);
        writeln!(out, "  floor        {module}: security version {} or above", floor.security_version)?;
    }
    Ok(())
}

fn write_policy(out: &mut String, p: &Policy) -> Result<()> {
    writeln!(out, "policy         sequence {}", p.sequence)?;
    let algorithms: Vec<_> = p.algorithms.iter().map(|number| algorithm_name(*number)).collect();
    writeln!(
        out,
        "  algorithms   {}; NIST level {} and {} bits at least",
        algorithms.join(" "),
        p.min_nist_level,
        p.min_key_bits
    )?;
    writeln!(out, "  images       {} bytes, window 2^{} at most", p.max_image_len, p.max_window_log)?;
    writeln!(
        out,
        "  at one time  {} decompressions, {} verifications",
        p.max_decompressions, p.max_verifications
    )?;
    writeln!(out, "  creations    {} at once, {} a second", p.creation_burst, p.creation_per_second)?;
    writeln!(out, "  cache        {} frames, {} entries", p.cache_frames, p.cache_entries)?;
    p.rules.iter().try_for_each(|rule| write_rule(out, rule))?;
    p.scopes.iter().try_for_each(|scope| write_scope(out, scope))
}

fn write_rule(out: &mut String, rule: &PolicyRule) -> Result<()> {
    let any = |name: &Option<Name>| name.map_or_else(|| "any".to_string(), |name| name.to_string());
    let object = if rule.object == 0 { "any object".into() } else { object_name(rule.object) };
    let amount = if rule.amount == u64::MAX { String::new() } else { format!(", amount {}", rule.amount) };
    writeln!(
        out,
        "  rule         {}: publisher {}, module {}: {object}, {}{amount}",
        rule.name,
        any(&rule.publisher),
        any(&rule.module),
        rights(rule.rights)
    )?;
    Ok(())
}

fn write_scope(out: &mut String, scope: &LoadScope) -> Result<()> {
    let names = scope.names.map_or_else(|| "any".to_string(), |name| name.to_string());
    let may = [(scope.agents, "agents"), (scope.grants, "grants"), (scope.all, "others' modules")];
    let may: Vec<_> = may.iter().filter(|(yes, _)| *yes).map(|(_, text)| *text).collect();
    let may = if may.is_empty() { "nothing more".into() } else { may.join(", ") };
    writeln!(
        out,
        "  scope        {} (badge {}): modules {names}, {} at one time, priority {}; {may}",
        scope.name, scope.badge, scope.instances, scope.priority
    )?;
    Ok(())
}

/// Names of rights.
pub fn rights(bits: u16) -> String {
    if bits == Rights::USE.bits() {
        return "all rights".into();
    }
    let names: Vec<_> = Rights::from_bits_retain(bits).iter_names().map(|(name, _)| name).collect();
    if names.is_empty() { "none".into() } else { names.join("+") }
}

/// A version range.
pub fn range(versions: &VersionRange) -> String {
    if *versions == VersionRange::ALL {
        return "all".into();
    }
    format!("{} to {}", versions.min, versions.max)
}
