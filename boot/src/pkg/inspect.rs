//! What a package, bundle, image or trust record holds, as text for a reviewer. Inspecting proves nothing: `verify`
//! does, and `inspect --chain` says why.

use super::chain_view::{self, ChainReport};
use super::description::object_name;
use super::expression::{Expressions, moment};
use super::grants::{self, Yardstick};
use super::hex;
use super::record_view::{self, algorithm_name, range};
use super::trust::Trust;
use super::verify::{purpose_name, unpack};
use anyhow::{Result, anyhow, bail};
use sila_abi::boot::{BUNDLE_MAGIC, BootManifest, Bundle, EntryKind};
use sila_abi::contract::Contract;
use sila_abi::manifest::{CapRequest, Manifest, ModuleKind, Selector};
use sila_abi::package::{PACKAGE_MAGIC, Package};
use sila_abi::rights::Rights;
use sila_abi::sif::{PAGE_SIZE, SIF_MAGIC, Sif, SifHeader};
use sila_abi::trust::{FloorRecord, Record, RootSet, SignedRecord};
use sila_crypto::chain::KeySource;
use sila_crypto::hash::id_digest;
use std::fmt::Write;

/// What to look at a file with.
pub struct View<'a> {
    /// Keys and records; none: signatures are not checked.
    pub trust: Option<&'a Trust>,
    /// What requests are held against.
    pub yardstick: &'a Yardstick,
}

/// Describes a package, a boot bundle, an image or a trust record.
pub fn inspect(bytes: &[u8], view: &View<'_>) -> Result<String> {
    match bytes.get(..8) {
        Some(magic) if magic == PACKAGE_MAGIC => inspect_package(bytes, view),
        Some(magic) if magic == BUNDLE_MAGIC => inspect_bundle(bytes),
        Some(magic) if magic == SIF_MAGIC => inspect_image(bytes),
        _ => inspect_record(bytes),
    }
}

/// Describes the chain of trust of a package or a record.
pub fn inspect_chain(bytes: &[u8], trust: &Trust) -> Result<ChainReport> {
    if bytes.get(..8) == Some(&PACKAGE_MAGIC) {
        return chain_view::package_chain(bytes, trust);
    }
    let signed =
        SignedRecord::decode(bytes).map_err(|e| anyhow!("neither a package nor a signed record ({e})"))?;
    chain_view::record_chain(&signed, trust)
}

/// A signed record, or a root set as key folders hold it.
fn inspect_record(bytes: &[u8]) -> Result<String> {
    let mut out = String::new();
    if let Ok(signed) = SignedRecord::decode(bytes) {
        record_view::write_signed(&mut out, &signed)?;
    } else if let Ok(set) = RootSet::decode(bytes) {
        record_view::write_root_set(&mut out, &set)?;
        writeln!(out, "               without signatures: who uses it trusts where it came from")?;
    } else if let Ok(record) = FloorRecord::decode(bytes) {
        record_view::write_floors(&mut out, &record)?;
        writeln!(
            out,
            "               without signatures: raises a floor only as far as a package of the bundle"
        )?;
    } else {
        bail!("neither a package nor a boot bundle nor an image nor a trust record");
    }
    Ok(out)
}

fn inspect_package(bytes: &[u8], view: &View<'_>) -> Result<String> {
    let package = Package::parse(bytes).map_err(|e| anyhow!("the package: {e}"))?;
    let manifest = Manifest::decode(package.manifest)?;
    let mut out = String::new();
    writeln!(
        out,
        "package        {} bytes: manifest {}, payload {}, signatures 3 of {}",
        bytes.len(),
        package.manifest.len(),
        package.payload.len(),
        package.package_sig.len()
    )?;
    writeln!(out, "manifest       digest {}", hex(&id_digest(package.manifest)))?;
    write_signatures(&mut out, &package, view.trust)?;
    write_manifest(&mut out, &manifest)?;
    match image_of(&manifest, package.payload) {
        Ok(image) => write_image(&mut out, &image)?,
        Err(error) => writeln!(out, "segment        none shown: {error}")?,
    }
    grants::write_grants(&mut out, &manifest, view.yardstick)?;
    Ok(out)
}

/// Each signature: by which key, whether it is valid, and whose certificate says so.
fn write_signatures(out: &mut String, package: &Package<'_>, trust: Option<&Trust>) -> Result<()> {
    let id = &package.header.key_id;
    let algorithm = algorithm_name(package.header.algorithm.get());
    writeln!(out, "key            {algorithm}, id {}", hex(id))?;
    let publisher = trust.and_then(|trust| trust.store.publisher(id));
    match publisher.map(|publisher| publisher.certificate) {
        Some(c) => {
            let revoked = trust.is_some_and(|trust| trust.is_revoked(id));
            let standing = if revoked { ", REVOKED" } else { "" };
            let purpose = purpose_name(c.purpose);
            writeln!(
                out,
                "certified      for {}, sequence {}, purpose {purpose}{standing}",
                c.publisher, c.sequence
            )?;
        }
        None => writeln!(out, "certified      by nobody known here (--keys DIR names a folder of keys)")?,
    }
    let verdicts = chain_view::package_signatures(package, publisher.map(|publisher| publisher.key));
    for (what, verdict) in verdicts {
        writeln!(out, "signature      {what}: {}", verdict.word())?;
    }
    Ok(())
}

/// The layout of the image inside a package.
fn image_of(manifest: &Manifest, payload: &[u8]) -> Result<Sif> {
    if manifest.kind == ModuleKind::Model {
        bail!("a model has no segments");
    }
    let image =
        unpack(manifest, payload).map_err(|e| anyhow!("the payload cannot be unpacked: {}", e.describe()))?;
    Ok(SifHeader::parse(image.get(..PAGE_SIZE as usize).unwrap_or_default(), image.len() as u64)?)
}

fn inspect_image(bytes: &[u8]) -> Result<String> {
    let sif = SifHeader::parse(bytes.get(..PAGE_SIZE as usize).unwrap_or_default(), bytes.len() as u64)?;
    let mut out = format!("image          {} bytes, entry {:#x}\n", bytes.len(), sif.entry());
    write_image(&mut out, &sif)?;
    Ok(out)
}

fn write_image(out: &mut String, sif: &Sif) -> Result<()> {
    for s in sif.segments() {
        let (end, perm) = (s.vaddr + s.mem_len, format!("{:?}", s.perm));
        writeln!(
            out,
            "segment        {perm:<2} {:#014x}..{end:#014x}, {} bytes from the image",
            s.vaddr, s.file_len
        )?;
    }
    Ok(())
}

/// Writes all fields of a manifest.
pub fn write_manifest(out: &mut String, m: &Manifest) -> Result<()> {
    writeln!(out, "module         {} {} ({:?}) by {}", m.name, m.version, m.kind, m.publisher)?;
    writeln!(out, "security       {}", m.security_version)?;
    writeln!(
        out,
        "image          {} bytes, entry {:#x}, digest {}",
        m.image_len,
        m.entry,
        hex(&m.image_digest)
    )?;
    writeln!(
        out,
        "payload        {} bytes, {:?}, digest {}",
        m.payload_len,
        m.codec,
        hex(&m.payload_digest)
    )?;
    let r = &m.resources;
    writeln!(
        out,
        "resources      {} frames, {} object bytes, priority {}, {} threads, {} stack pages",
        r.frames, r.object_bytes, r.max_priority, r.threads, m.stack_pages
    )?;
    writeln!(out, "deadlines      init {} ms, prepare {} ms", m.init_deadline_ms, m.prepare_deadline_ms)?;
    let flags: Vec<_> = m.flags.iter_names().map(|(name, _)| name).collect();
    writeln!(out, "flags          {}", if flags.is_empty() { "none".into() } else { flags.join(" ") })?;
    if let Some(service) = &m.service {
        let durable = if service.durable { "durable" } else { "not durable" };
        writeln!(out, "service        {} ({durable})", service.name)?;
    }
    for request in &m.requests {
        write_request(out, request)?;
    }
    for d in &m.dependencies {
        let table = if d.export_digest == [0; 32] {
            String::new()
        } else {
            format!(", exports {}", hex(&d.export_digest))
        };
        writeln!(out, "dependency     {}/{}, versions {}{table}", d.publisher, d.name, range(&d.versions))?;
    }
    writeln!(out, "state schema   {}", m.state_schema)?;
    write_contract(out, &m.contract)
}

/// The contract: each condition as a person reads it.
fn write_contract(out: &mut String, contract: &Contract) -> Result<()> {
    if *contract == Contract::default() {
        writeln!(out, "contract       none")?;
        return Ok(());
    }
    let count = |list: usize, what: &str| format!("{list} {what}{}", if list == 1 { "" } else { "s" });
    let (predicates, nodes) = (contract.predicates.len(), contract.nodes.len());
    writeln!(out, "contract       {} over {}", count(predicates, "predicate"), count(nodes, "node"))?;
    if let Some(entry) = contract.fault_entry {
        writeln!(out, "  fault entry  {entry:#x}")?;
    }
    if !contract.init_failure_codes.is_empty() {
        let codes: Vec<_> = contract.init_failure_codes.iter().map(u32::to_string).collect();
        writeln!(out, "  init fails   with {}", codes.join(", "))?;
    }
    let expressions = Expressions::of(contract);
    for predicate in &contract.predicates {
        writeln!(out, "  {} {}: {}", predicate.name, moment(predicate), expressions.condition(predicate))?;
    }
    for (number, text) in expressions.steps() {
        writeln!(out, "  #{number:<11} {text}")?;
    }
    Ok(())
}

fn write_request(out: &mut String, request: &CapRequest) -> Result<()> {
    let source = match request.selector {
        Selector::OwnPool => "its own Pool".into(),
        Selector::OwnProcess => "its own process".into(),
        Selector::OwnThread => "its own first thread".into(),
        Selector::Grant(name) => format!("grant {name}"),
    };
    let rights: Vec<_> =
        Rights::from_bits_retain(request.rights).iter_names().map(|(name, _)| name).collect();
    let need = if request.mandatory { "mandatory" } else { "optional" };
    let badge = request.badge.map(|b| format!(", badge {b:#x}")).unwrap_or_default();
    let amount = if request.amount == 0 { String::new() } else { format!(", amount {}", request.amount) };
    writeln!(
        out,
        "request        slot {}: {} from {source}, {}{badge}{amount}, {need}",
        request.slot,
        object_name(request.object),
        rights.join("+")
    )?;
    Ok(())
}

fn inspect_bundle(bytes: &[u8]) -> Result<String> {
    let bundle = Bundle::parse(bytes)?;
    let mut out = format!("boot bundle    {} bytes, signatures not checked\n", bytes.len());
    if let Some(entry) = bundle.first(EntryKind::BootManifest) {
        let boot = BootManifest::decode(entry.data).map_err(|e| anyhow!("the boot manifest: {e}"))?;
        let purpose = purpose_name(boot.purpose);
        writeln!(
            out,
            "boot manifest  sequence {}, purpose {purpose}, {} objects",
            boot.sequence,
            boot.objects.len()
        )?;
        for c in &boot.certificates {
            writeln!(out, "publisher      {} ({})", c.publisher, purpose_name(c.purpose))?;
        }
        for module in &boot.modules {
            let grants = module.grants.len();
            writeln!(out, "starts         {} at priority {}, {grants} grants", module.name, module.priority)?;
        }
    }
    for entry in bundle.entries() {
        let kind = format!("{:?}", entry.kind);
        writeln!(out, "{kind:<14} {} {}: {} bytes", entry.name, entry.version, entry.data.len())?;
    }
    Ok(out)
}
