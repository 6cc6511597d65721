//! What a policy would grant of a package's requests, for a reviewer.

use super::description::object_name;
use super::policy::default_policy;
use super::policy_file::read_policy;
use super::trust::Trust;
use anyhow::Result;
use sila_abi::manifest::{CapRequest, Manifest};
use sila_abi::policy::{Forbidden, Policy, amount_of};
use sila_abi::rights::Rights;
use std::fmt::Write;
use std::path::Path;

/// A policy to look at packages with, and where it comes from.
pub struct Yardstick {
    /// The policy.
    pub policy: Policy,
    /// Where it comes from.
    pub source: String,
}

impl Yardstick {
    /// The policy in `file`, or that of the folder of trust, or the default one.
    pub fn choose(file: Option<&Path>, trust: Option<&Trust>) -> Result<Self> {
        if let Some(file) = file {
            let policy = read_policy(file)?;
            return Ok(Self { policy, source: file.display().to_string() });
        }
        match trust {
            Some(trust) if trust.policy != default_policy()? => {
                Ok(Self { policy: trust.policy.clone(), source: trust.dir.display().to_string() })
            }
            _ => Ok(Self { policy: default_policy()?, source: "the default".into() }),
        }
    }
}

/// Writes one line for each request: which rule grants it, or why none does and what comes of that.
pub fn write_grants(out: &mut String, manifest: &Manifest, yardstick: &Yardstick) -> Result<()> {
    let policy = &yardstick.policy;
    writeln!(out, "policy         {} (sequence {})", yardstick.source, policy.sequence)?;
    if !policy.algorithms.contains(&manifest.algorithm) {
        writeln!(out, "  algorithm    {} is not allowed", manifest.algorithm)?;
    }
    if manifest.image_len > policy.max_image_len {
        writeln!(out, "  image        longer than the {} bytes allowed", policy.max_image_len)?;
    }
    for request in &manifest.requests {
        let verdict = verdict(policy, manifest, request);
        writeln!(out, "  slot {:<7} {}: {verdict}", request.slot, asked(manifest, request))?;
    }
    Ok(())
}

/// One sentence for each mandatory request that the policy refuses: a system with this policy does not load the module.
pub fn refusals(manifest: &Manifest, policy: &Policy) -> Vec<String> {
    let refused = |request: &&CapRequest| request.mandatory && policy.permit(manifest, request).is_err();
    let all = manifest.requests.iter().filter(refused);
    all.map(|r| format!("slot {}, {}: {}", r.slot, asked(manifest, r), verdict(policy, manifest, r)))
        .collect()
}

/// What a request asks for, in short.
fn asked(manifest: &Manifest, request: &CapRequest) -> String {
    let rights: Vec<_> =
        Rights::from_bits_retain(request.rights).iter_names().map(|(name, _)| name).collect();
    let amount = match amount_of(manifest, request) {
        0 => String::new(),
        amount => format!(", amount {amount}"),
    };
    format!("{} {}{amount}", object_name(request.object), rights.join("+"))
}

fn verdict(policy: &Policy, manifest: &Manifest, request: &CapRequest) -> String {
    let rule = |place: u8| policy.rules.get(usize::from(place)).map_or("?", |rule| rule.name.as_str());
    let why = match policy.permit(manifest, request) {
        Ok(place) => return format!("granted by rule `{}`", rule(place)),
        Err(Forbidden::NoRule) => "no rule is for this module and type".to_string(),
        Err(Forbidden::Rights(place)) => format!("rule `{}` does not give all these rights", rule(place)),
        Err(Forbidden::Amount(place)) => {
            let most = policy.rules.get(usize::from(place)).map_or(0, |rule| rule.amount);
            format!("rule `{}` gives {most} at most", rule(place))
        }
    };
    let then = if request.mandatory { "so the module does not load" } else { "so it runs without" };
    format!("REFUSED: {why}, {then}")
}
