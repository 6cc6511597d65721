//! The bad packages of `boot::pkg::tamper` as entries of the test bundle, each with the error that ModuleManager must
//! answer.

use crate::image::name;
use anyhow::{Result, bail};
use boot::pkg::bundle::Content;
use boot::pkg::description::ModuleDescription;
use boot::pkg::keys::KeySet;
use boot::pkg::tamper::{Variant, test_system, variants};
use boot::pkg::tiny;
use boot::pkg::verify::{Refusal, verify_package};
use module_manager::check::failure;
use sila_abi::Error;
use sila_abi::boot::EntryKind;
use sila_abi::package::{LoadProof, Package};
use sila_abi::protocol::module_manager::{Failure, LoadError};
use sila_abi::record::{Name, Version};
use sila_abi::sif::PAGE_SIZE;
use sila_crypto::chain::{self, ChainError};
use sila_crypto::hash::bulk_digest;
use sila_crypto::keystore::KeyStore;
use std::collections::BTreeMap;

/// What ModuleManager itself refuses; `None` if the package gets past it.
fn refused_by_manager(bytes: &[u8], keys: &KeyStore) -> Option<ChainError> {
    let package = match chain::verify_package(bytes, keys) {
        Ok(package) => package,
        Err(error) => return Some(error),
    };
    let manifest = match chain::verify_manifest(&LoadProof::of_package(package.get()), keys) {
        Ok(manifest) => manifest,
        Err(error) => return Some(error),
    };
    chain::check_payload(&package, &manifest).err()
}

/// The answer that a variant must get.
fn expected(variant: &Variant, keys: &KeyStore) -> Result<Option<(bool, Failure)>> {
    let Some((refusal, answer)) = answer(&variant.name, &variant.bytes, keys)? else { return Ok(None) };
    if refusal.name() != variant.expected {
        bail!("{}: refused as {} instead of {}", variant.name, refusal.name(), variant.expected);
    }
    Ok(answer)
}

/// Why a package is refused, whether ModuleManager itself does it, and its answer, if there is one for that.
type Answer = (Refusal, Option<(bool, Failure)>);

/// The answer that a package must get; `None` if there is no package.
fn answer(what: &str, bytes: &[u8], keys: &KeyStore) -> Result<Option<Answer>> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let refusal = match verify_package(bytes, keys) {
        Ok(_) => bail!("{what}: not refused"),
        Err(refusal) => refusal,
    };
    if let Some(error) = refused_by_manager(bytes, keys) {
        return Ok(Some((refusal, Some((true, failure(error))))));
    }
    let late = (
        false,
        match refusal {
            Refusal::Payload(error) => Failure::with(LoadError::DecompressionRefused, error.code().into(), 0),
            Refusal::Chain(error) => {
                Failure::kernel(LoadError::CreateRefused, error.kernel_error(), error.detail())
            }
            Refusal::Padding => return Ok(Some((refusal, None))),
        },
    );
    Ok(Some((refusal, Some(late))))
}

/// The group of a variant: the in-guest test that loads it.
fn group(variant: &str) -> &'static str {
    let has = |part: &str| variant.contains(part);
    if has("flipped bit") {
        "flipped"
    } else if has("payload of another") || has("resigned") || has("another version") || has("another image") {
        "mixed"
    } else if variant.starts_with("payload ") && !has("length") || has("declared image size") {
        "payload"
    } else if variant.starts_with("truncated")
        || has("trailing byte") && !has("signed")
        || has("two packages")
    {
        "truncated"
    } else if has("length zero") || has("length maximal") {
        "header"
    } else if has("key") || has("algorithm") {
        "key"
    } else if variant.starts_with("signed ") {
        "manifest"
    } else if has("signature") || has("domain") {
        "signature"
    } else {
        "authority"
    }
}

/// Name and version of the manifest in a package, if they can be read.
fn names(bytes: &[u8]) -> Option<(Name, Version)> {
    let package = Package::parse(bytes).ok()?;
    let manifest = sila_abi::manifest::Manifest::decode(package.manifest).ok()?;
    Some((manifest.name, manifest.version))
}

/// How many packages have a sampled bit flipped.
const SAMPLED: usize = 100;

/// So many small packages, each with a name of its own and one bit flipped: spread over all of a package.
fn sampled(keys: &KeySet) -> Result<Vec<Variant>> {
    let mut all = Vec::new();
    for at in 0..SAMPLED {
        let mut bytes = tiny::parts(&format!("flip.{at}"), "1.0.0", &keys.publisher)?.assemble()?;
        let stretch = bytes.len() * 8 / SAMPLED;
        let bit = at * stretch + at * 13 % stretch;
        if let Some(byte) = bytes.get_mut(bit / 8) {
            *byte ^= 1 << (bit % 8);
        }
        all.push(Variant { name: format!("bit {bit} of flip.{at}"), bytes, expected: "" });
    }
    Ok(all)
}

/// What the kernel says to the parts of packages that nobody checked, one after the other, with the probe's image.
struct Bypass<'a> {
    store: &'a KeyStore,
    image: &'a [u8],
    started: BTreeMap<(Name, Version), Vec<u8>>,
}

impl Bypass<'_> {
    /// The error that the parts of this package must get; `none` if they are good.
    fn verdict(&mut self, package: &Package<'_>) -> &'static str {
        match self.check(package) {
            Ok(()) => "none",
            Err(error) => error.name(),
        }
    }

    fn check(&mut self, package: &Package<'_>) -> std::result::Result<(), Error> {
        let proof = LoadProof::of_package(package);
        let manifest = chain::verify_manifest(&proof, self.store).map_err(ChainError::kernel_error)?;
        let (len, digest) = (self.image.len() as u64, bulk_digest(self.image));
        let binary = chain::verify_binary(&manifest, len, &digest, proof.binary_sig, self.store)
            .map_err(ChainError::kernel_error)?;
        let page = self.image.get(..PAGE_SIZE as usize).ok_or(Error::BadImage)?;
        chain::verify_image_header(&manifest, &binary, page).map_err(ChainError::kernel_error)?;
        let seen = self.started.entry((manifest.name, manifest.version));
        if seen.or_insert_with(|| package.manifest.to_vec()) == package.manifest {
            Ok(())
        } else {
            Err(Error::VersionReuse)
        }
    }
}

/// The list of [`testrunner::BYPASSES`] for these packages.
pub fn bypasses(contents: &[(Content, String)], keys: &KeySet, image: &[u8]) -> Result<String> {
    let store = test_system(keys)?;
    let mut bypass = Bypass { store: &store, image, started: BTreeMap::new() };
    let mut list = String::new();
    for (content, what) in contents {
        let Ok(package) = Package::parse(&content.data) else { continue };
        let Version { major, minor, patch } = content.version;
        let verdict = bypass.verdict(&package);
        list.push_str(&format!("{verdict} {} {major}.{minor}.{patch} {what}\n", content.name));
    }
    Ok(list)
}

/// Bundle entries, each with what is wrong with it, and the list that tells the tests about them.
pub fn packages(
    keys: &KeySet,
    description: &ModuleDescription,
    image: &[u8],
) -> Result<(Vec<(Content, String)>, String)> {
    // A version that no other test has loaded with another manifest.
    let mut bypassed = description.clone();
    bypassed.module.name = "bypassed".into();
    let description = &bypassed;
    let store = test_system(keys)?;
    let (mut contents, mut list) = (Vec::new(), String::new());
    let mut add = |group: &str, hint: Name, version: Version, failure: Failure, variant: &Variant| {
        let Version { major, minor, patch } = version;
        list.push_str(&format!(
            "{} {hint} {major}.{minor}.{patch} {} {} {} {}\n",
            group,
            failure.error.number(),
            failure.detail,
            failure.more,
            variant.name
        ));
        let data = variant.bytes.clone();
        contents
            .push((Content { kind: EntryKind::Package, name: hint, version, data }, variant.name.clone()));
    };
    let mut late = Vec::new();
    for (at, variant) in variants(keys, description, image)?.iter().enumerate() {
        match expected(variant, &store)? {
            Some((true, failure)) => {
                add(group(&variant.name), name(&format!("bad.{at}"))?, Version::MIN, failure, variant);
            }
            // ModuleManager compares name and version with what was asked for: these need a name of their own.
            Some((false, _)) => late.push(at),
            None => {}
        }
    }
    for at in late {
        let mut named = description.clone();
        named.module.name = format!("bad.{at}");
        let all = variants(keys, &named, image)?;
        let Some(variant) = all.get(at) else { bail!("variant {at} vanished") };
        let Some((false, failure)) = expected(variant, &store)? else {
            bail!("{}: another answer under another name", variant.name)
        };
        let (hint, version) = names(&variant.bytes).unwrap_or((name(&named.module.name)?, Version::MIN));
        add(group(&variant.name), hint, version, failure, variant);
    }
    for (at, variant) in sampled(keys)?.iter().enumerate() {
        let Some((_, Some((_, failure)))) = answer(&variant.name, &variant.bytes, &store)? else {
            bail!("{}: there is no answer to it", variant.name)
        };
        add("sampled", name(&format!("flip.{at}"))?, Version::new(1, 0, 0), failure, variant);
    }
    Ok((contents, list))
}
