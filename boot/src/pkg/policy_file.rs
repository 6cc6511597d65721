//! Policies in files of their own: the text that `sila policy` signs, or a signed record.

use super::policy::PolicySection;
use super::read_text;
use super::trust::read_record;
use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;
use sila_abi::policy::Policy;
use sila_abi::trust::{Record, RecordKind};
use std::path::Path;

/// A file with the section `[policy]`, as a boot bundle's description has it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyText {
    policy: PolicySection,
}

/// The section `[policy]` of a file that holds nothing else.
pub fn read_section(path: &Path) -> Result<PolicySection> {
    let text: PolicyText =
        toml::from_str(&read_text(path)?).with_context(|| format!("in {}", path.display()))?;
    Ok(text.policy)
}

/// The policy in a file: a signed record (whose signatures are not checked) if it ends in `.policy`, else a text.
pub fn read_policy(path: &Path) -> Result<Policy> {
    if path.extension().is_none_or(|ending| ending != "policy") {
        let policy = read_section(path)?.to_policy().with_context(|| format!("in {}", path.display()))?;
        policy.validate().map_err(|e| anyhow!("{}: {e}", path.display()))?;
        return Ok(policy);
    }
    let signed = read_record(path)?;
    if signed.kind != RecordKind::Policy {
        bail!("{} holds a {}", path.display(), signed.kind.name());
    }
    Policy::decode(&signed.record).map_err(|e| anyhow!("{}: {e}", path.display()))
}
