//! Records that come to a boot bundle from outside: they become part of the boot manifest, which the root signs.

use super::read;
use super::trust::read_record;
use super::verify::verify_package;
use anyhow::{Context, Result, anyhow, bail};
use sila_abi::boot::{BootManifest, Floor};
use sila_abi::record::Name;
use sila_abi::trust::{Certificate, FloorRecord, Purpose, Record, SignatureSet};
use sila_crypto::chain::{RootKeys, VerifiedRecord, verify_boot_manifest, verify_record};
use sila_crypto::keystore::KeyStore;
use std::path::{Path, PathBuf};

/// Puts the records in `files` into a boot manifest that is to be signed by `root`. The answer is an unsigned floor
/// record among them, which a bundle holds beside its manifest.
pub fn add_records(boot: &mut BootManifest, files: &[PathBuf], root: &RootKeys) -> Result<Option<Vec<u8>>> {
    let mut records = Vec::new();
    let mut exported = None;
    for path in files {
        if let Some(bytes) = unsigned_floors(path)? {
            if exported.replace(bytes).is_some() {
                bail!("{}: a boot bundle holds one unsigned floor record only", path.display());
            }
            continue;
        }
        let signed = read_record(path)?;
        let record =
            verify_record(&signed, root).with_context(|| format!("{} is refused", path.display()))?;
        records.push((path, record));
    }
    records.sort_by_key(|(_, record)| record.sequence());
    for (path, record) in records {
        add(boot, record).with_context(|| format!("{} cannot go into the boot bundle", path.display()))?;
    }
    Ok(exported)
}

/// A floor record without signatures, if the file holds one.
fn unsigned_floors(path: &Path) -> Result<Option<Vec<u8>>> {
    let bytes = read(path)?;
    Ok(FloorRecord::decode(&bytes).is_ok().then_some(bytes))
}

fn add(boot: &mut BootManifest, record: VerifiedRecord) -> Result<()> {
    match record {
        VerifiedRecord::Certificate(certificate) => add_certificate(boot, certificate.into_inner()),
        VerifiedRecord::Revocation(revocation) => {
            let full = |_| anyhow!("the boot manifest has no room for another revocation");
            let mut all = boot.revocations.to_vec();
            all.push(revocation.into_inner());
            boot.revocations = super::keys::list(all, "revocations").map_err(full)?;
            Ok(())
        }
        VerifiedRecord::Floors(record) => record.floors.iter().try_for_each(|floor| raise_floor(boot, floor)),
        VerifiedRecord::Policy(policy) if policy.sequence > boot.policy.sequence => {
            boot.policy = policy.into_inner();
            Ok(())
        }
        VerifiedRecord::Policy(policy) => {
            let (is, has) = (policy.sequence, boot.policy.sequence);
            bail!("its sequence {is} is not above {has}, that of the bundle's own policy")
        }
        VerifiedRecord::RootSet(_) => {
            bail!("an image has the root set that signs it: sign it with the new keys")
        }
    }
}

fn add_certificate(boot: &mut BootManifest, new: Certificate) -> Result<()> {
    let mut all = boot.certificates.to_vec();
    if let Some(old) = all.iter().find(|old| old.publisher == new.publisher && old.sequence >= new.sequence) {
        let publisher: &Name = &old.publisher;
        bail!("{publisher} has certificate {} already, and this is {}", old.sequence, new.sequence);
    }
    all.retain(|old| old.key != new.key);
    all.push(new);
    boot.certificates = super::keys::list(all, "certificates")?;
    Ok(())
}

fn raise_floor(boot: &mut BootManifest, new: &Floor) -> Result<()> {
    let mut all = boot.floors.to_vec();
    match all.iter_mut().find(|old| old.publisher == new.publisher && old.name == new.name) {
        Some(old) => old.security_version = old.security_version.max(new.security_version),
        None => all.push(*new),
    }
    boot.floors = super::keys::list(all, "floors")?;
    Ok(())
}

/// What a system that boots with this manifest knows. An error is what its kernel would refuse.
pub fn store_of_boot(encoded: &[u8], signatures: &SignatureSet, root: &RootKeys) -> Result<KeyStore> {
    let boot =
        verify_boot_manifest(encoded, signatures, root).map_err(|e| anyhow!("the boot manifest: {e}"))?;
    KeyStore::from_boot(&boot).map_err(|e| anyhow!("the boot manifest: {e}"))
}

/// Refuses a package that a release system would refuse. A test system takes anything: its tests load bad packages.
pub fn check_added(path: &Path, package: &[u8], purpose: Purpose, store: &KeyStore) -> Result<()> {
    if purpose == Purpose::Test {
        return Ok(());
    }
    let refused = || format!("{}: the release system would refuse it", path.display());
    verify_package(package, store).map(|_| ()).with_context(refused)
}
