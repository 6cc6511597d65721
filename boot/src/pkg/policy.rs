//! Policies as TOML: the section `[policy]` of a bundle's description, and the files that `sila policy` signs.

use super::description::{object_type, rights};
use super::keys::{list, name};
use anyhow::{Context, Result};
use serde::Deserialize;
use sila_abi::object::ObjectType;
use sila_abi::policy::{LoadScope, Policy, PolicyRule};
use sila_abi::record::Name;
use sila_abi::rights::Rights;
use sila_abi::sif::MAX_IMAGE_LEN;
use sila_crypto::scheme::ML_DSA_87;

/// A policy as it is written; what is left out has its default.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicySection {
    /// Its sequence.
    pub sequence: Option<u64>,
    /// Numbers of the signature schemes in use.
    pub algorithms: Option<Vec<u16>>,
    /// Lowest NIST level of a scheme.
    pub min_nist_level: Option<u8>,
    /// Fewest bits of every public key and signature.
    pub min_key_bits: Option<u32>,
    /// Longest image in bytes.
    pub max_image_len: Option<u64>,
    /// Largest decompression window, as a power of two.
    pub max_window_log: Option<u8>,
    /// Decompressions at one time.
    pub max_decompressions: Option<u16>,
    /// Process creations that may come at once.
    pub creation_burst: Option<u32>,
    /// Process creations per second.
    pub creation_per_second: Option<u32>,
    /// Verification jobs that may wait.
    pub max_verifications: Option<u16>,
    /// Frames that the module cache may hold.
    pub cache_frames: Option<u64>,
    /// Entries that the module cache may hold.
    pub cache_entries: Option<u32>,
    /// `[[policy.rule]]`; none: the default ones.
    #[serde(rename = "rule")]
    pub rules: Vec<RuleSection>,
    /// `[[policy.scope]]`; none: the default ones.
    #[serde(rename = "scope")]
    pub scopes: Vec<ScopeSection>,
}

/// `[[policy.rule]]`: who may ask for what.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleSection {
    /// Its name.
    pub name: String,
    /// The publisher whose modules it is for; none: all.
    pub publisher: Option<String>,
    /// The modules it is for, by name or beginning of one; none: all.
    pub module: Option<String>,
    /// An object type, or `any`.
    pub object: String,
    /// Rights, or `ALL`.
    pub rights: Vec<String>,
    /// The most frames of a Pool or bytes of a Region; none: no limit.
    pub amount: Option<u64>,
}

/// `[[policy.scope]]`: what a requester may have loaded.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScopeSection {
    /// Its name.
    pub name: String,
    /// The badge that stands for it.
    pub badge: u64,
    /// Names or beginnings of names of modules; none: all.
    pub names: Option<String>,
    /// Whether it may load agents.
    #[serde(default)]
    pub agents: bool,
    /// Modules at one time.
    pub instances: u16,
    /// Whether it may grant capabilities by name.
    #[serde(default)]
    pub grants: bool,
    /// Whether it may stop and see the modules of others.
    #[serde(default)]
    pub all: bool,
    /// The priority of what it loads.
    pub priority: u8,
}

/// The policy of a system that says nothing about it.
pub fn default_policy() -> Result<Policy> {
    Ok(Policy {
        sequence: 1,
        algorithms: list(vec![ML_DSA_87], "algorithms")?,
        min_nist_level: 5,
        min_key_bits: 4096,
        max_image_len: MAX_IMAGE_LEN,
        max_window_log: 23,
        max_decompressions: 2,
        creation_burst: 32,
        creation_per_second: 16,
        max_verifications: 16,
        cache_frames: 4096,
        cache_entries: 32,
        rules: list(default_rules()?, "rules")?,
        scopes: list(default_scopes()?, "scopes")?,
    })
}

/// Every module may have what processes are made of and talk with; the rest of the system is for the publisher `sila`.
fn default_rules() -> Result<Vec<PolicyRule>> {
    let use_all = Rights::USE;
    let plain = [
        ("process", ObjectType::Process, Rights::READ | Rights::WRITE | Rights::MANAGE | Rights::COPY, 0),
        ("thread", ObjectType::Thread, Rights::READ | Rights::MANAGE | Rights::COPY, 0),
        ("pool", ObjectType::Pool, Rights::READ | Rights::CREATE | Rights::COPY | Rights::GRANT, 1 << 16),
        ("endpoint", ObjectType::Endpoint, use_all, 0),
        ("notification", ObjectType::Notification, use_all, 0),
        ("region", ObjectType::Region, use_all, MAX_IMAGE_LEN),
        ("clock", ObjectType::Clock, Rights::READ | Rights::COPY, 0),
    ];
    let rule = |(text, object, rights, amount): (&str, ObjectType, Rights, u64)| {
        Ok(PolicyRule {
            name: name(text)?,
            publisher: None,
            module: None,
            object: object as u8,
            rights: rights.bits(),
            amount,
        })
    };
    let mut rules = plain.into_iter().map(rule).collect::<Result<Vec<_>>>()?;
    rules.push(PolicyRule {
        name: name("system")?,
        publisher: Some(name("sila")?),
        module: None,
        object: 0,
        rights: use_all.bits(),
        amount: u64::MAX,
    });
    Ok(rules)
}

/// The console, the in-guest tests and the supervisor.
fn default_scopes() -> Result<Vec<LoadScope>> {
    let scope = |text: &str, badge, instances, grants, priority| {
        let all = LoadScope {
            name: name(text)?,
            badge,
            names: None,
            agents: true,
            instances,
            grants,
            all: true,
            priority,
        };
        Ok(all)
    };
    [("console", 1, 24, false, 64), ("tests", 2, 24, true, 64), ("supervisor", 3, 8, false, 96)]
        .into_iter()
        .map(|(text, badge, instances, grants, priority)| scope(text, badge, instances, grants, priority))
        .collect()
}

impl PolicySection {
    /// The policy that it describes.
    pub fn to_policy(&self) -> Result<Policy> {
        let base = default_policy()?;
        let algorithms = match &self.algorithms {
            Some(numbers) => list(numbers.clone(), "algorithms")?,
            None => base.algorithms,
        };
        let rules = match &self.rules[..] {
            [] => base.rules,
            rules => list(rules.iter().map(RuleSection::to_rule).collect::<Result<_>>()?, "rules")?,
        };
        let scopes = match &self.scopes[..] {
            [] => base.scopes,
            scopes => list(scopes.iter().map(ScopeSection::to_scope).collect::<Result<_>>()?, "scopes")?,
        };
        Ok(Policy {
            sequence: self.sequence.unwrap_or(base.sequence),
            algorithms,
            min_nist_level: self.min_nist_level.unwrap_or(base.min_nist_level),
            min_key_bits: self.min_key_bits.unwrap_or(base.min_key_bits),
            max_image_len: self.max_image_len.unwrap_or(base.max_image_len),
            max_window_log: self.max_window_log.unwrap_or(base.max_window_log),
            max_decompressions: self.max_decompressions.unwrap_or(base.max_decompressions),
            creation_burst: self.creation_burst.unwrap_or(base.creation_burst),
            creation_per_second: self.creation_per_second.unwrap_or(base.creation_per_second),
            max_verifications: self.max_verifications.unwrap_or(base.max_verifications),
            cache_frames: self.cache_frames.unwrap_or(base.cache_frames),
            cache_entries: self.cache_entries.unwrap_or(base.cache_entries),
            rules,
            scopes,
        })
    }
}

fn optional_name(text: Option<&String>) -> Result<Option<Name>> {
    text.map(|text| name(text)).transpose()
}

impl RuleSection {
    fn to_rule(&self) -> Result<PolicyRule> {
        let within = || format!("in the rule {:?}", self.name);
        let object =
            if self.object == "any" { 0 } else { object_type(&self.object).with_context(within)? as u8 };
        let all = self.rights.iter().any(|text| text == "ALL");
        let rights = if all { Rights::USE.bits() } else { rights(&self.rights).with_context(within)? };
        Ok(PolicyRule {
            name: name(&self.name)?,
            publisher: optional_name(self.publisher.as_ref()).with_context(within)?,
            module: optional_name(self.module.as_ref()).with_context(within)?,
            object,
            rights,
            amount: self.amount.unwrap_or(u64::MAX),
        })
    }
}

impl ScopeSection {
    fn to_scope(&self) -> Result<LoadScope> {
        Ok(LoadScope {
            name: name(&self.name)?,
            badge: self.badge,
            names: optional_name(self.names.as_ref())
                .with_context(|| format!("in the scope {:?}", self.name))?,
            agents: self.agents,
            instances: self.instances,
            grants: self.grants,
            all: self.all,
            priority: self.priority,
        })
    }
}
