//! `sila.toml`: what a person writes about a module. The host tool adds digests, lengths, entry and key.
//!
//! ```toml
//! [module]
//! name = "counter"
//! version = "1.0.0"
//! kind = "service"            # service, library, agent or model
//! stack_pages = 8
//!
//! [resources]
//! frames = 256                # 4 KiB each
//! object_bytes = 65536
//! max_priority = 100
//! threads = 2
//!
//! [service]
//! name = "counter"
//! durable = true
//!
//! [[request]]
//! slot = 4
//! object = "Notification"
//! grant = "wake"              # or: own = "pool" | "process" | "thread"
//! rights = ["SEND"]
//! ```

use super::keys::{list, name};
use super::unhex32;
use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;
use sila_abi::contract::{Contract, Node, Operation, Predicate, When};
use sila_abi::manifest::{
    CapRequest, Codec, Dependency, MANIFEST_FORMAT, Manifest, ManifestFlags, ModuleKind, Resources, Selector,
    ServiceDecl,
};
use sila_abi::object::ObjectType;
use sila_abi::record::{Name, Version, VersionRange};
use sila_abi::rights::Rights;
use std::path::Path;

/// A whole `sila.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModuleDescription {
    /// The module itself.
    pub module: ModuleSection,
    /// Upper limits of a process.
    pub resources: ResourceSection,
    /// The label it may receive for.
    pub service: Option<ServiceSection>,
    /// The capabilities asked for.
    #[serde(default, rename = "request")]
    pub requests: Vec<RequestSection>,
    /// The modules called or linked.
    #[serde(default, rename = "dependency")]
    pub dependencies: Vec<DependencySection>,
    /// Conditions, fault entry, failure codes.
    #[serde(default)]
    pub contract: ContractSection,
}

/// `[module]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModuleSection {
    /// Name: `[a-z0-9.-]{1,64}`.
    pub name: String,
    /// `major.minor.patch`.
    pub version: String,
    /// Who is to sign it; left out: whoever packs it.
    pub publisher: Option<String>,
    /// Compared with the floor.
    #[serde(default = "one")]
    pub security_version: u32,
    /// `service`, `library`, `agent` or `model`.
    pub kind: String,
    /// Pages of the first stack.
    #[serde(default)]
    pub stack_pages: u32,
    /// Milliseconds until `Ready`.
    #[serde(default = "two_seconds")]
    pub init_deadline_ms: u32,
    /// Milliseconds for preparing an update.
    #[serde(default = "two_seconds")]
    pub prepare_deadline_ms: u32,
    /// Version of the exported state.
    #[serde(default)]
    pub state_schema: u32,
    /// `sharable-readonly-code`, `rollback-on-init-failure`, `pin-hint`.
    #[serde(default)]
    pub flags: Vec<String>,
}

fn one() -> u32 {
    1
}

fn two_seconds() -> u32 {
    2000
}

/// `[resources]`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResourceSection {
    /// Frames of 4 KiB.
    pub frames: u64,
    /// Bytes of kernel objects.
    pub object_bytes: u64,
    /// Highest thread priority.
    pub max_priority: u8,
    /// Threads.
    pub threads: u16,
}

/// `[service]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceSection {
    /// The service's name.
    pub name: String,
    /// Whether waiting callers outlive the process.
    #[serde(default)]
    pub durable: bool,
}

/// `[[request]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestSection {
    /// Slot of the new CSpace.
    pub slot: u16,
    /// Name of the object type.
    pub object: String,
    /// Grant name; or `own`.
    pub grant: Option<String>,
    /// `pool`, `process` or `thread`; or `grant`.
    pub own: Option<String>,
    /// Names of rights.
    pub rights: Vec<String>,
    /// The badge.
    pub badge: Option<u64>,
    /// The amount.
    #[serde(default)]
    pub amount: u64,
    /// Whether the module runs without it.
    #[serde(default)]
    pub optional: bool,
}

/// `[[dependency]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DependencySection {
    /// Its publisher.
    pub publisher: String,
    /// Its name.
    pub name: String,
    /// Lowest version.
    pub min: String,
    /// Highest version.
    pub max: String,
    /// 64 hexadecimal digits: the library's export table.
    pub export_digest: Option<String>,
}

/// `[contract]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContractSection {
    /// Address of the fault handler.
    pub fault_entry: Option<u64>,
    /// Codes of failed initialisation.
    #[serde(default)]
    pub init_failure_codes: Vec<u32>,
    /// `const N`, `fact NAME`, `and A B`, `or A B`, `not A`, `eq A B`, `lt A B`, `le A B`.
    #[serde(default)]
    pub nodes: Vec<String>,
    /// `[[contract.predicate]]`.
    #[serde(default, rename = "predicate")]
    pub predicates: Vec<PredicateSection>,
}

/// `[[contract.predicate]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PredicateSection {
    /// Its name.
    pub name: String,
    /// `create`, `cache` or `load`.
    pub operation: String,
    /// `before` or `after`.
    pub when: String,
    /// The node whose truth it is.
    pub root: u8,
}

/// Rights by their names in `sila_abi::Rights`.
pub fn rights(names: &[String]) -> Result<u16> {
    let mut bits = Rights::empty();
    for text in names {
        let right = Rights::from_name(text);
        bits |= right.with_context(|| {
            let known: Vec<_> = Rights::all().iter_names().map(|(name, _)| name).collect();
            format!("unknown right {text:?} (known: {})", known.join(", "))
        })?;
    }
    Ok(bits.bits())
}

/// An object type by its name.
pub fn object_type(text: &str) -> Result<ObjectType> {
    let found = ObjectType::ALL.iter().find(|t| t.name() == text);
    found.copied().with_context(|| {
        let known: Vec<_> = ObjectType::ALL.iter().map(|t| t.name()).collect();
        format!("unknown object type {text:?} (known: {})", known.join(", "))
    })
}

/// A version, or an error that shows it.
pub fn version(text: &str) -> Result<Version> {
    Version::parse(text).with_context(|| format!("bad version {text:?} (want MAJOR.MINOR.PATCH)"))
}

impl ModuleDescription {
    /// Reads a `sila.toml`.
    pub fn load(path: &Path) -> Result<Self> {
        Self::parse(&super::read_text(path)?).with_context(|| format!("in {}", path.display()))
    }

    /// Reads the text of a `sila.toml`.
    pub fn parse(text: &str) -> Result<Self> {
        Ok(toml::from_str(text)?)
    }

    /// The module's name.
    pub fn name(&self) -> Result<Name> {
        name(&self.module.name)
    }

    /// The manifest as far as a person decides it: key, digests, lengths, entry and codec are still empty.
    pub fn to_manifest(&self) -> Result<Manifest> {
        let module = &self.module;
        let resources = &self.resources;
        let requests = self.requests.iter().map(RequestSection::to_request).collect::<Result<Vec<_>>>()?;
        let dependencies = self.dependencies.iter().map(DependencySection::to_dependency);
        Ok(Manifest {
            format: MANIFEST_FORMAT,
            name: self.name()?,
            version: version(&module.version)?,
            security_version: module.security_version,
            kind: kind(&module.kind)?,
            publisher: name(module.publisher.as_deref().unwrap_or("unsigned"))?,
            key_id: [0; 32],
            algorithm: 0,
            image_digest: [0; 32],
            image_len: 0,
            payload_digest: [0; 32],
            payload_len: 0,
            codec: Codec::None,
            entry: 0,
            stack_pages: module.stack_pages,
            requests: list(requests, "requests")?,
            dependencies: list(dependencies.collect::<Result<Vec<_>>>()?, "dependencies")?,
            flags: flags(&module.flags)?,
            init_deadline_ms: module.init_deadline_ms,
            prepare_deadline_ms: module.prepare_deadline_ms,
            resources: Resources {
                frames: resources.frames,
                object_bytes: resources.object_bytes,
                max_priority: resources.max_priority,
                threads: resources.threads,
            },
            service: self.service.as_ref().map(ServiceSection::to_decl).transpose()?,
            contract: self.contract.to_contract()?,
            state_schema: module.state_schema,
        })
    }
}

fn kind(text: &str) -> Result<ModuleKind> {
    Ok(match text {
        "service" => ModuleKind::Service,
        "library" => ModuleKind::Library,
        "agent" => ModuleKind::Agent,
        "model" => ModuleKind::Model,
        _ => bail!("unknown kind {text:?} (known: service, library, agent, model)"),
    })
}

fn flags(names: &[String]) -> Result<ManifestFlags> {
    names.iter().try_fold(ManifestFlags::empty(), |flags, text| {
        Ok(flags
            | match text.as_str() {
                "sharable-readonly-code" => ManifestFlags::SHARABLE_READONLY_CODE,
                "rollback-on-init-failure" => ManifestFlags::ROLLBACK_ON_INIT_FAILURE,
                "pin-hint" => ManifestFlags::PIN_HINT,
                _ => bail!(
                    "unknown flag {text:?} (known: sharable-readonly-code, rollback-on-init-failure, pin-hint)"
                ),
            })
    })
}

impl ServiceSection {
    fn to_decl(&self) -> Result<ServiceDecl> {
        Ok(ServiceDecl { name: name(&self.name)?, durable: self.durable })
    }
}

impl RequestSection {
    fn to_request(&self) -> Result<CapRequest> {
        let selector = match (&self.grant, self.own.as_deref()) {
            (Some(grant), None) => Selector::Grant(name(grant)?),
            (None, Some("pool")) => Selector::OwnPool,
            (None, Some("process")) => Selector::OwnProcess,
            (None, Some("thread")) => Selector::OwnThread,
            _ => bail!(
                "the request for slot {} needs either grant = NAME or own = \"pool\", \"process\" or \"thread\"",
                self.slot
            ),
        };
        let rights =
            rights(&self.rights).with_context(|| format!("in the request for slot {}", self.slot))?;
        Ok(CapRequest {
            slot: self.slot,
            object: object_type(&self.object)? as u8,
            selector,
            rights,
            badge: self.badge,
            amount: self.amount,
            mandatory: !self.optional,
        })
    }
}

impl DependencySection {
    fn to_dependency(&self) -> Result<Dependency> {
        let export_digest = match &self.export_digest {
            Some(text) => unhex32(text).with_context(|| format!("bad export_digest {text:?}"))?,
            None => [0; 32],
        };
        Ok(Dependency {
            publisher: name(&self.publisher)?,
            name: name(&self.name)?,
            versions: VersionRange { min: version(&self.min)?, max: version(&self.max)? },
            export_digest,
        })
    }
}

impl ContractSection {
    fn to_contract(&self) -> Result<Contract> {
        let nodes = self.nodes.iter().map(|text| node(text)).collect::<Result<Vec<_>>>()?;
        let predicates = self.predicates.iter().map(PredicateSection::to_predicate);
        let contract = Contract {
            fault_entry: self.fault_entry,
            init_failure_codes: list(self.init_failure_codes.clone(), "init failure codes")?,
            nodes: list(nodes, "contract nodes")?,
            predicates: list(predicates.collect::<Result<Vec<_>>>()?, "predicates")?,
        };
        contract.validate().map_err(|e| anyhow!("in [contract]: {e}"))?;
        Ok(contract)
    }
}

impl PredicateSection {
    fn to_predicate(&self) -> Result<Predicate> {
        let operation = match self.operation.as_str() {
            "create" => Operation::Create,
            "cache" => Operation::Cache,
            "load" => Operation::Load,
            other => bail!("unknown operation {other:?} (known: create, cache, load)"),
        };
        let when = match self.when.as_str() {
            "before" => When::Before,
            "after" => When::After,
            other => bail!("unknown time {other:?} (known: before, after)"),
        };
        Ok(Predicate { name: name(&self.name)?, operation, when, root: self.root })
    }
}

fn node(text: &str) -> Result<Node> {
    let words: Vec<_> = text.split_whitespace().collect();
    let index = |word: &str| word.parse::<u8>().with_context(|| format!("bad node index in {text:?}"));
    Ok(match words.as_slice() {
        ["const", n] => Node::Const(n.parse().with_context(|| format!("bad number in {text:?}"))?),
        ["fact", fact] => Node::Fact(name(fact)?),
        ["not", a] => Node::Not(index(a)?),
        ["and", a, b] => Node::And(index(a)?, index(b)?),
        ["or", a, b] => Node::Or(index(a)?, index(b)?),
        ["eq", a, b] => Node::Eq(index(a)?, index(b)?),
        ["lt", a, b] => Node::Lt(index(a)?, index(b)?),
        ["le", a, b] => Node::Le(index(a)?, index(b)?),
        _ => bail!("bad contract node {text:?}"),
    })
}

/// The name of an object type by its number; the number itself if there is none.
pub fn object_name(number: u8) -> String {
    ObjectType::from_number(number).map_or_else(|| format!("type {number}"), |t| t.name().to_string())
}
