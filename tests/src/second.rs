//! The test system with the module that checks signatures of the second scheme, and with one that the host made.

use crate::image::{TestSystem, name};
use anyhow::{Context, Result};
use boot::pkg::bundle::Content;
use boot::pkg::description::ModuleDescription;
use boot::pkg::keys::test_keys;
use boot::pkg::pack::pack_elf;
use boot::{bare, paths, toolchain};
use sila_abi::boot::EntryKind;
use sila_abi::record::Version;
use sila_abi::verify_case::VerifyCase;
use sila_crypto::dilithium5::SigningKey;
use sila_crypto::scheme::{DILITHIUM5, Domain};
use sila_crypto::sign::Signer;
use zerocopy::IntoBytes;

/// The entries that the system needs beside its own.
fn entries() -> Result<Vec<Content>> {
    let elf = std::fs::read(bare::second_scheme(&toolchain::select()?)?)?;
    let description = ModuleDescription::load(&paths::root()?.join("modules/dilithium/sila.toml"))?;
    let package = pack_elf(&description, &elf, &test_keys(&paths::state()?)?.publisher)?;
    let version = Version::parse(&description.module.version).context("no version")?;
    let entry =
        |kind, text: &str, version, data| anyhow::Ok(Content { kind, name: name(text)?, version, data });
    Ok(vec![
        entry(EntryKind::Package, "dilithium", version, package)?,
        entry(EntryKind::TestData, testrunner::SECOND_CASE, Version::MIN, case()?)?,
    ])
}

/// A signature that the host made just now.
fn case() -> Result<Vec<u8>> {
    let key = SigningKey::generate();
    let (context, message) = (Domain::Manifest.context(), b"what the host signed");
    let signature = key.sign(Domain::Manifest, message)?;
    let algorithm = DILITHIUM5;
    let case = VerifyCase { algorithm, key: key.public_bytes(), context, message, signature: &signature };
    let header = case.header().context("a signature of 4 GiB")?;
    Ok([header.as_bytes(), &case.parts().concat()].concat())
}

/// This system with the second scheme.
pub fn system(base: &TestSystem) -> Result<TestSystem> {
    base.with_entries(entries()?)
}
