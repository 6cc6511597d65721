//! Command lines of `pack`, `verify` and `inspect`. Each `run` prints what it did.

use super::description::ModuleDescription;
use super::grants::{self, Yardstick};
use super::inspect::View;
use super::keys::{PublisherKey, test_keys};
use super::trust::Trust;
use super::{inspect, pack, read, verify};
use crate::kit::ModuleFolder;
use crate::missing::Usage;
use crate::paths;
use anyhow::{Context, Result, bail};
use clap::Args;
use sila_crypto::keystore::KeyStore;
use std::path::{Path, PathBuf};

/// Who signs a package, and a store to hold it against if the key folder has a root set.
struct Signer {
    publisher: PublisherKey,
    store: Option<KeyStore>,
}

impl Signer {
    fn load(dir: Option<&Path>) -> Result<Self> {
        let dir = match dir {
            Some(dir) => dir.to_path_buf(),
            None => {
                test_keys(&paths::state()?)?;
                paths::state()?.join("test-keys")
            }
        };
        let publisher = PublisherKey::load(&dir)?;
        let has_root = dir.join("rootset.bin").exists();
        let store = if has_root { Some(Trust::load(&dir)?.store) } else { None };
        Ok(Self { publisher, store })
    }
}

/// What the name of every package ends with.
const ENDING: &str = "sila";

/// The options of `pack`.
#[derive(Debug, Clone, Args)]
pub struct PackArgs {
    /// A module's folder that `build-module` has built, or a program: a static ELF file
    #[arg(value_name = "DIR|ELF")]
    pub from: PathBuf,
    /// The sila.toml of an ELF file (a folder has its own)
    #[arg(long, value_name = "FILE")]
    pub description: Option<PathBuf>,
    /// The publisher's key folder (default: the test keys)
    #[arg(long, value_name = "DIR")]
    pub keys: Option<PathBuf>,
    /// The package to write (default: NAME-VERSION.sila in the folder, or here)
    #[arg(long, value_name = "FILE.sila")]
    pub out: Option<PathBuf>,
}

impl PackArgs {
    /// Packs and signs. What the signer's own root set refuses is not written.
    pub fn run(&self) -> Result<()> {
        self.check()?;
        let (elf, description) = self.input()?;
        let signer = Signer::load(self.keys.as_deref())?;
        let package = pack::pack_elf(&description, &read(&elf)?, &signer.publisher)?;
        if let Some(store) = &signer.store {
            verify::verify_package(&package, store).context("the package would be refused")?;
        }
        let module = &description.module;
        let out = self.out.clone().unwrap_or_else(|| {
            let file = format!("{}-{}.{ENDING}", module.name, module.version);
            if self.from.is_dir() { self.from.join(file) } else { file.into() }
        });
        std::fs::write(&out, &package).with_context(|| format!("cannot write {}", out.display()))?;
        println!("packed {} {}: {} bytes in {}", module.name, module.version, package.len(), out.display());
        Ok(())
    }

    /// Refuses what cannot work before anything is read.
    fn check(&self) -> Result<()> {
        let ending = |out: &PathBuf| out.extension().is_some_and(|ending| ending == ENDING);
        if let Some(out) = self.out.as_ref().filter(|out| !ending(out)) {
            bail!(Usage(format!("{}: a package's name ends in .{ENDING}", out.display())));
        }
        match (self.from.is_dir(), &self.description) {
            (true, Some(_)) => bail!(Usage("a folder has its own sila.toml: leave --description out".into())),
            (false, None) => bail!(Usage("a program needs --description FILE (a folder does not)".into())),
            _ => Ok(()),
        }
    }

    /// The ELF file and its description.
    fn input(&self) -> Result<(PathBuf, ModuleDescription)> {
        match &self.description {
            Some(file) => Ok((self.from.clone(), ModuleDescription::load(file)?)),
            None => {
                let folder = ModuleFolder::open(&self.from)?;
                Ok((folder.built()?, folder.description))
            }
        }
    }
}

/// The options of `verify`.
#[derive(Debug, Clone, Args)]
pub struct VerifyArgs {
    /// The package
    pub package: PathBuf,
    /// A folder with rootset.bin and records; secret keys need not be there (default: the test keys)
    #[arg(long, value_name = "DIR")]
    pub keys: Option<PathBuf>,
}

impl VerifyArgs {
    /// Runs the whole chain; an error is the refusal.
    pub fn run(&self) -> Result<()> {
        let trust = Trust::load(&trust_folder(self.keys.as_deref())?)?;
        let accepted = verify::verify_package(&read(&self.package)?, &trust.store)
            .with_context(|| format!("{} is refused", self.package.display()))?;
        let manifest = &accepted.manifest;
        println!("{} {} by {} is good", manifest.name, manifest.version, manifest.publisher);
        // Another system may have another policy, so that this is no verdict on the package.
        for line in grants::refusals(manifest, &trust.policy) {
            eprintln!("sila: by the policy of {}, {line}", trust.dir.display());
        }
        Ok(())
    }
}

/// The folder of keys and records that was named, or the test keys'.
fn trust_folder(given: Option<&Path>) -> Result<PathBuf> {
    given.map_or_else(|| Ok(paths::state()?.join("test-keys")), |dir| Ok(dir.to_path_buf()))
}

/// The options of `inspect`.
#[derive(Debug, Clone, Args)]
pub struct InspectArgs {
    /// A package, trust record, boot bundle or image
    pub file: PathBuf,
    /// A folder with rootset.bin and records to check signatures with (default: the test keys, if there are any)
    #[arg(long, value_name = "DIR")]
    pub keys: Option<PathBuf>,
    /// Show the chain of trust of a package or record, link by link; a broken one is a failure
    #[arg(long, conflicts_with = "policy")]
    pub chain: bool,
    /// Say what this policy would grant: a text with the section [policy], or a .policy record
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
}

impl InspectArgs {
    /// Prints what the file holds; with `--chain`, an error is the rule that is broken.
    pub fn run(&self) -> Result<()> {
        let bytes = read(&self.file)?;
        let dir = trust_folder(self.keys.as_deref())?;
        if self.chain {
            let report = inspect::inspect_chain(&bytes, &Trust::load(&dir)?)?;
            print!("{}", report.text);
            return match report.broken {
                Some(rule) => bail!("the chain of {} does not hold: {rule}", self.file.display()),
                None => Ok(()),
            };
        }
        let known = self.keys.is_some() || dir.join("rootset.bin").exists();
        let trust = if known { Some(Trust::load(&dir)?) } else { None };
        let yardstick = Yardstick::choose(self.policy.as_deref(), trust.as_ref())?;
        print!("{}", inspect::inspect(&bytes, &View { trust: trust.as_ref(), yardstick: &yardstick })?);
        Ok(())
    }
}
