//! What the system trusts, and how far: keys, floors and policy as text for people. Pure but for the questions.

use crate::depot::short;
use crate::render::{bytes, rights};
use crate::slots::{KEY_RING, POLICY};
use crate::system::{Outcome, refused};
use crate::table::{Align, Table};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use sila_rt::sila_abi::ObjectType;
use sila_rt::sila_abi::policy::Policy;
use sila_rt::sila_abi::record::{Name, Version, VersionRange};
use sila_rt::sila_abi::status::KeyRingRecord;
use sila_rt::sila_abi::trust::{Certificate, RevokedItem};
use sila_rt::trust::{self, Affected, CertifiedKey, Ring};

const L: Align = Align::Left;
const R: Align = Align::Right;

/// `keys`.
pub fn keys() -> Outcome {
    let failed = |error| refused("keys", "the kernel", error);
    let ring = trust::ring(KEY_RING).map_err(failed)?;
    let affected = trust::affected(KEY_RING).map_err(failed)?;
    Ok(keys_text(&ring, &affected))
}

/// `floors`.
pub fn floors() -> Outcome {
    trust::ring(KEY_RING)
        .map(|ring| floors_text(&ring))
        .map_err(|error| refused("floors", "the kernel", error))
}

/// `policy`.
pub fn policy() -> Outcome {
    let policy = trust::policy(POLICY).map_err(|error| refused("policy", "the kernel", error))?;
    Ok(policy_text(&policy))
}

/// The policy in force, for whoever shows rules by name.
pub fn in_force() -> Option<Policy> {
    trust::policy(POLICY).ok()
}

fn purpose(number: u64) -> &'static str {
    match number {
        1 => "test",
        2 => "release",
        _ => "?",
    }
}

fn algorithm(number: u16) -> String {
    if number == 1 { "ML-DSA-87".into() } else { format!("scheme {number}") }
}

fn versions(range: VersionRange) -> String {
    match (range.min, range.max) {
        (Version::MIN, Version::MAX) => "all".into(),
        (min, max) if min == max => min.to_string(),
        (min, max) => format!("{min} to {max}"),
    }
}

fn names(certificate: &Certificate) -> String {
    let prefixes: Vec<&str> = certificate.prefixes.iter().map(Name::as_str).collect();
    if prefixes.is_empty() { "any".into() } else { prefixes.join(" ") }
}

/// What `keys` says.
pub fn keys_text(ring: &Ring, affected: &[Affected]) -> String {
    let columns = [
        (L, "PUBLISHER"),
        (L, "KEY"),
        (L, "ALGORITHM"),
        (L, "PURPOSE"),
        (R, "SEQUENCE"),
        (L, "VERSIONS"),
        (L, "NAMES"),
        (L, "STATE"),
    ];
    let mut table = Table::new(&columns);
    for CertifiedKey { id, revoked, certificate } in &ring.keys {
        table.row([
            certificate.publisher.to_string(),
            short(id),
            algorithm(certificate.key.algorithm),
            purpose(certificate.purpose as u64).into(),
            certificate.sequence.to_string(),
            versions(certificate.versions),
            names(certificate),
            if *revoked { "revoked" } else { "valid" }.into(),
        ]);
    }
    let KeyRingRecord { root_sequence, threshold, root_keys, key_room, revocation_sequence, .. } = ring.state;
    let mut text = table.render();
    text.push_str(&format!(
        "root set {root_sequence} ({}): {threshold} of {root_keys} keys sign; {} of {key_room} publisher keys\n",
        purpose(ring.state.purpose),
        ring.keys.len(),
    ));
    if !ring.revocations.is_empty() {
        text.push_str(&format!("\n{}", revocations(&ring.revocations)));
        text.push_str(&format!("last revocation: {revocation_sequence}\n"));
    }
    for one in affected {
        text.push_str(&format!("process {} runs on, though {}\n", one.process, why(one.why)));
    }
    text
}

fn revocations(items: &[RevokedItem]) -> String {
    let mut table = Table::new(&[(L, "REVOKED"), (L, "WHAT"), (L, "VERSIONS")]);
    for item in items {
        table.row(match item {
            RevokedItem::Key(id) => ["key".into(), short(id), "all that it signed".into()],
            RevokedItem::Module { publisher, name, versions: range } => {
                ["module".into(), format!("{publisher}/{name}"), versions(*range)]
            }
        });
    }
    table.render()
}

fn why(number: u64) -> &'static str {
    match number {
        1 => "its key is revoked",
        2 => "its version is revoked",
        3 => "its security version lies below the floor",
        _ => "it could not be loaded any more",
    }
}

fn origin(number: u64) -> &'static str {
    match number {
        1 => "boot manifest",
        2 => "finalised update",
        3 => "signed record",
        4 => "imported at boot",
        _ => "?",
    }
}

/// What `floors` says.
pub fn floors_text(ring: &Ring) -> String {
    let mut table = Table::new(&[(L, "PUBLISHER"), (L, "MODULE"), (R, "FLOOR"), (L, "ORIGIN")]);
    for (floor, from) in &ring.floors {
        table.row([
            floor.publisher.to_string(),
            floor.name.to_string(),
            floor.security_version.to_string(),
            origin(*from).into(),
        ]);
    }
    let mut text = if table.is_empty() { "no module has a floor\n".into() } else { table.render() };
    let KeyRingRecord { floor_sequence, floors_imported, floors_clipped, .. } = ring.state;
    if floor_sequence > 0 {
        text.push_str(&format!("last signed floor record: {floor_sequence}\n"));
    }
    if floors_imported + floors_clipped > 0 {
        text.push_str(&format!(
            "imported at boot: {floors_imported} raised, {floors_clipped} not taken whole\n"
        ));
    }
    text
}

fn anyone(name: Option<Name>) -> String {
    name.map_or_else(|| "any".into(), |name| name.to_string())
}

fn yes(value: bool) -> String {
    if value { "yes" } else { "no" }.into()
}

/// What `policy` says.
pub fn policy_text(policy: &Policy) -> String {
    format!("{}\n{}\n{}", limits(policy), rules(policy), scopes(policy))
}

fn limits(policy: &Policy) -> String {
    let algorithms: Vec<String> = policy.algorithms.iter().map(|number| algorithm(*number)).collect();
    let mut table = Table::new(&[(L, "POLICY"), (L, "VALUE")]);
    for (what, value) in [
        ("sequence", policy.sequence.to_string()),
        ("algorithms", algorithms.join(" ")),
        ("lowest NIST level", policy.min_nist_level.to_string()),
        ("shortest key and signature", format!("{} bits", policy.min_key_bits)),
        ("longest image", bytes(policy.max_image_len)),
        ("largest decompression window", window(policy.max_window_log)),
        ("decompressions at one time", policy.max_decompressions.to_string()),
        ("waiting verifications", policy.max_verifications.to_string()),
        (
            "processes made in a Job",
            format!("{} at once, {} a second", policy.creation_burst, policy.creation_per_second),
        ),
        ("module cache", format!("{} frames, {} entries", policy.cache_frames, policy.cache_entries)),
    ] {
        table.row([what.into(), value]);
    }
    table.render()
}

fn window(log: u8) -> String {
    1u64.checked_shl(log.into()).map_or_else(|| format!("2^{log} B"), bytes)
}

fn rules(policy: &Policy) -> String {
    let columns = [(L, "RULE"), (L, "PUBLISHER"), (L, "MODULE"), (L, "OBJECT"), (R, "AMOUNT"), (L, "RIGHTS")];
    let mut table = Table::new(&columns);
    for rule in &policy.rules {
        let object = match rule.object {
            0 => "any",
            number => ObjectType::from_number(number).map_or("?", ObjectType::name),
        };
        table.row([
            rule.name.to_string(),
            anyone(rule.publisher),
            anyone(rule.module),
            object.into(),
            if rule.amount == u64::MAX { "any".into() } else { rule.amount.to_string() },
            rights(rule.rights.into()),
        ]);
    }
    if table.is_empty() { "no rule permits anything\n".into() } else { table.render() }
}

fn scopes(policy: &Policy) -> String {
    let columns = [
        (L, "SCOPE"),
        (R, "BADGE"),
        (L, "MODULES"),
        (L, "AGENTS"),
        (R, "INSTANCES"),
        (L, "GRANTS"),
        (L, "SEES ALL"),
        (R, "PRIORITY"),
    ];
    let mut table = Table::new(&columns);
    for scope in &policy.scopes {
        table.row([
            scope.name.to_string(),
            scope.badge.to_string(),
            anyone(scope.names),
            yes(scope.agents),
            scope.instances.to_string(),
            yes(scope.grants),
            yes(scope.all),
            scope.priority.to_string(),
        ]);
    }
    if table.is_empty() { "nobody may have modules loaded\n".into() } else { table.render() }
}

#[cfg(test)]
#[path = "trust_tests.rs"]
pub(crate) mod tests;
