//! Command lines of `keygen`, `pack`, `verify` and `inspect`. Each `run` prints what it did.

use super::description::ModuleDescription;
use super::keys::{KeySet, KeygenOptions, keygen, name, test_keys};
use super::{inspect, pack, read, verify};
use crate::missing::Usage;
use crate::paths;
use anyhow::{Context, Result, bail};
use clap::Args;
use sila_abi::trust::Purpose;
use std::path::PathBuf;

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

fn load_keys(dir: Option<&PathBuf>) -> Result<KeySet> {
    match dir {
        Some(dir) => KeySet::load(dir),
        None => test_keys(&paths::state()?),
    }
}

/// The options of `pack`.
#[derive(Debug, Clone, Args)]
pub struct PackArgs {
    /// The program: a static ELF file
    pub elf: PathBuf,
    /// Its sila.toml
    #[arg(long, value_name = "FILE")]
    pub description: PathBuf,
    /// The key folder (default: the test keys)
    #[arg(long, value_name = "DIR")]
    pub keys: Option<PathBuf>,
    /// The package to write
    #[arg(long, value_name = "FILE.sila")]
    pub out: PathBuf,
}

impl PackArgs {
    /// Packs and signs.
    pub fn run(&self) -> Result<()> {
        let description = ModuleDescription::load(&self.description)?;
        let keys = load_keys(self.keys.as_ref())?;
        let package = pack::pack_elf(&description, &read(&self.elf)?, &keys)?;
        std::fs::write(&self.out, &package)
            .with_context(|| format!("cannot write {}", self.out.display()))?;
        let module = &description.module;
        println!(
            "packed {} {}: {} bytes in {}",
            module.name,
            module.version,
            package.len(),
            self.out.display()
        );
        Ok(())
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
