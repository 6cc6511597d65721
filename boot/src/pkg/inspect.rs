//! What a package, bundle or image holds, as text for a reviewer. Inspecting proves nothing: `verify` does.

use super::description::object_name;
use super::hex;
use super::verify::purpose_name;
use anyhow::{Result, anyhow, bail};
use sila_abi::boot::{BUNDLE_MAGIC, BootManifest, Bundle, EntryKind};
use sila_abi::manifest::{CapRequest, Manifest, Selector};
use sila_abi::package::{PACKAGE_MAGIC, Package};
use sila_abi::rights::Rights;
use sila_abi::sif::{PAGE_SIZE, SIF_MAGIC, Sif, SifHeader};
use sila_abi::trust::Record;
use sila_crypto::hash::id_digest;
use std::fmt::Write;

/// Describes a package, a boot bundle or an image.
pub fn inspect(bytes: &[u8]) -> Result<String> {
    match bytes.get(..8) {
        Some(magic) if magic == PACKAGE_MAGIC => inspect_package(bytes),
        Some(magic) if magic == BUNDLE_MAGIC => inspect_bundle(bytes),
        Some(magic) if magic == SIF_MAGIC => inspect_image(bytes),
        _ => bail!("neither a package nor a boot bundle nor an image"),
    }
}

fn inspect_package(bytes: &[u8]) -> Result<String> {
    let package = Package::parse(bytes).map_err(|e| anyhow!("the package: {e}"))?;
    let manifest = Manifest::decode(package.manifest)?;
    let mut out = String::new();
    writeln!(out, "package        {} bytes, signatures not checked (see `verify`)", bytes.len())?;
    writeln!(out, "key            {} (algorithm {})", hex(&package.header.key_id), package.header.algorithm)?;
    writeln!(
        out,
        "manifest       {} bytes, digest {}",
        package.manifest.len(),
        hex(&id_digest(package.manifest))
    )?;
    for (what, signature) in
        [("package", package.package_sig), ("manifest", package.manifest_sig), ("binary", package.binary_sig)]
    {
        writeln!(
            out,
            "signature      {what}: {} bytes, id {}",
            signature.len(),
            hex(&id_digest(signature)[..8])
        )?;
    }
    write_manifest(&mut out, &manifest)?;
    if let Ok(image) = image_of(&manifest, package.payload) {
        write_image(&mut out, &image)?;
    }
    Ok(out)
}

fn image_of(manifest: &Manifest, payload: &[u8]) -> Result<Sif> {
    let limit = usize::try_from(manifest.image_len)?;
    let image = match manifest.codec {
        sila_abi::manifest::Codec::None => payload.to_vec(),
        sila_abi::manifest::Codec::Zstd => zstd::bulk::decompress(payload, limit)?,
    };
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
        writeln!(out, "dependency     {}/{} {}..={}", d.publisher, d.name, d.versions.min, d.versions.max)?;
    }
    let c = &m.contract;
    let (nodes, codes) = (c.nodes.len(), c.init_failure_codes.len());
    writeln!(
        out,
        "contract       {} predicates over {nodes} nodes, {codes} failure codes",
        c.predicates.len()
    )?;
    writeln!(out, "state schema   {}", m.state_schema)?;
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
    writeln!(
        out,
        "request        slot {}: {} from {source}, {}{badge}, {need}",
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
