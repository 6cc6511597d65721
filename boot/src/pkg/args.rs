//! Command lines of `keygen`, `pack`, `verify` and `inspect`. Each `run` prints what it did.

use super::description::ModuleDescription;
use super::keys::{KeygenOptions, PublisherKey, keygen, name, test_keys};
use super::{inspect, pack, read, verify};
use crate::kit::ModuleFolder;
use crate::missing::Usage;
use crate::paths;
use anyhow::{Context, Result, bail};
use clap::Args;
use sila_abi::trust::Purpose;
use sila_crypto::keystore::KeyStore;
use std::path::{Path, PathBuf};

/// The options of `keygen`.
#[derive(Debug, Clone, Args)]
pub struct KeygenArgs {
    /// The folder to make
    pub dir: PathBuf,
    /// The publisher's name
    #[arg(long)]
    pub publisher: String,
    /// What the keys are for
    #[arg(long, default_value = "release", value_parser = ["test", "release"])]
    pub purpose: String,
    /// Number of root keys
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=8))]
    pub roots: u8,
    /// Root signatures that a record needs
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=8))]
    pub threshold: u8,
    /// Name prefix of the publisher's modules (may be repeated; none: any name)
    #[arg(long = "prefix", value_name = "PREFIX")]
    pub prefixes: Vec<String>,
}

impl KeygenArgs {
    /// Makes the keys.
    pub fn run(&self) -> Result<()> {
        if self.threshold > self.roots {
            bail!(Usage(format!(
                "a threshold of {} needs at least as many root keys, not {}",
                self.threshold, self.roots
            )));
        }
        let given = |text: &str| name(text).map_err(|e| Usage(format!("{e:#}")));
        let prefixes = self.prefixes.iter().map(|p| given(p)).collect::<Result<Vec<_>, _>>()?;
        let purpose = if self.purpose == "test" { Purpose::Test } else { Purpose::Release };
        let publisher = given(&self.publisher)?;
        let (roots, threshold) = (self.roots, self.threshold);
        keygen(&self.dir, &KeygenOptions { publisher, purpose, roots, threshold, prefixes })?;
        println!(
            "made {} keys for {publisher} in {}: {roots} root keys ({threshold} must sign), 1 publisher key",
            self.purpose,
            self.dir.display()
        );
        Ok(())
    }
}

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
        let root_set = dir.join("rootset.bin");
        let store = match root_set.exists() {
            true => Some(verify::key_store(&read(&root_set)?, &read(&dir.join("publisher.cert"))?)?),
            false => None,
        };
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
    /// The key folder; rootset.bin and publisher.cert are enough (default: the test keys)
    #[arg(long, value_name = "DIR")]
    pub keys: Option<PathBuf>,
}

impl VerifyArgs {
    /// Runs the whole chain; an error is the refusal.
    pub fn run(&self) -> Result<()> {
        let dir = match &self.keys {
            Some(dir) => dir.clone(),
            None => paths::state()?.join("test-keys"),
        };
        let store = verify::key_store(&read(&dir.join("rootset.bin"))?, &read(&dir.join("publisher.cert"))?)?;
        let accepted = verify::verify_package(&read(&self.package)?, &store)
            .with_context(|| format!("{} is refused", self.package.display()))?;
        let manifest = &accepted.manifest;
        println!("{} {} by {} is good", manifest.name, manifest.version, manifest.publisher);
        Ok(())
    }
}

/// The options of `inspect`.
#[derive(Debug, Clone, Args)]
pub struct InspectArgs {
    /// A package, boot bundle or image
    pub file: PathBuf,
}

impl InspectArgs {
    /// Prints what the file holds.
    pub fn run(&self) -> Result<()> {
        print!("{}", inspect::inspect(&read(&self.file)?)?);
        Ok(())
    }
}
