//! Command lines of `certify`, `revoke`, `rootset`, `policy`, `floors` and `add-signature`.

use super::ceremony::{self, NewRoot, parse_floor, parse_module, parse_versions, read_ceiling};
use super::keys::{list, name};
use super::policy_file::read_section;
use super::public_key::{PublicKeyFile, purpose, read_key_id};
use super::record_view;
use super::roots::{RootFolder, Standing, successor_set};
use super::verify::purpose_name;
use crate::missing::Usage;
use anyhow::{Context, Result, bail};
use clap::{ArgGroup, Args};
use sila_abi::record::VersionRange;
use sila_abi::trust::{Certificate, FloorRecord, RecordKind, Revocation, RevokedItem};
use std::path::PathBuf;

/// What every command that signs a record takes.
#[derive(Debug, Clone, Args)]
pub struct SigningArgs {
    /// The folder with the root set and secret root keys
    #[arg(long, value_name = "DIR")]
    pub keys: PathBuf,
    /// The record to write; it must not exist yet
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Write the record even if it lacks signatures, which others then add (see add-signature)
    #[arg(long)]
    pub partial: bool,
}

/// A value that makes no sense is wrong usage.
fn wrong(error: anyhow::Error) -> anyhow::Error {
    Usage(format!("{error:#}")).into()
}

impl SigningArgs {
    fn open(&self) -> Result<RootFolder> {
        RootFolder::load(&self.keys)
    }

    fn say(&self, kind: RecordKind, standing: Standing) {
        let Standing { have, need } = standing;
        println!(
            "wrote the {} {}: signed by {have} root keys, {need} needed",
            kind.name(),
            self.out.display()
        );
        if !standing.is_enough() {
            println!("next: other holders run `sila add-signature {} --keys DIR`", self.out.display());
        }
    }
}

/// The options of `certify`.
#[derive(Debug, Clone, Args)]
#[command(group = ArgGroup::new("names").required(true).args(["prefixes", "any_name"]))]
pub struct CertifyArgs {
    /// What signs, and where to.
    #[command(flatten)]
    pub signing: SigningArgs,
    /// The publisher's public key: publisher.pub, or the folder that it lies in
    #[arg(long, value_name = "FILE.pub")]
    pub publisher_key: PathBuf,
    /// The publisher's name, as you know it
    #[arg(long, value_name = "NAME")]
    pub publisher: String,
    /// A name that its modules may have, or begin with before a `.` or `-` (may be repeated)
    #[arg(long = "prefix", value_name = "PREFIX")]
    pub prefixes: Vec<String>,
    /// Its modules may have any name that no other publisher claims
    #[arg(long)]
    pub any_name: bool,
    /// Above that of the publisher's last certificate
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub sequence: u64,
    /// The versions that its modules may have, both ends included (default: all)
    #[arg(long, value_name = "LOW..HIGH")]
    pub versions: Option<String>,
    /// What its modules may ask for at most (see boot/ceiling-module.toml, boot/ceiling-system.toml)
    #[arg(long, value_name = "FILE.toml")]
    pub ceiling: PathBuf,
    /// What the key may sign for (default: what the root set is for)
    #[arg(long, value_parser = ["test", "release"])]
    pub purpose: Option<String>,
}

impl CertifyArgs {
    /// Writes the certificate.
    pub fn run(&self) -> Result<()> {
        let folder = self.signing.open()?;
        let certificate = self.certificate(&folder)?;
        let kind = RecordKind::Certificate;
        let standing = ceremony::issue(&folder, kind, &certificate, &self.signing.out, self.signing.partial)?;
        self.signing.say(kind, standing);
        println!("next: the publisher puts it beside publisher.key as publisher.cert");
        Ok(())
    }

    fn certificate(&self, folder: &RootFolder) -> Result<Certificate> {
        let file = self.key_file()?;
        let purpose = self.purpose.as_deref().map_or(Ok(folder.set.purpose), purpose)?;
        if file.purpose != purpose {
            let (is, wanted) = (purpose_name(file.purpose), purpose_name(purpose));
            bail!(Usage(format!("{} is a {is} key, not a {wanted} key", self.publisher_key.display())));
        }
        let prefixes = self.prefixes.iter().map(|p| name(p)).collect::<Result<Vec<_>>>().map_err(wrong)?;
        let versions =
            self.versions.as_deref().map_or(Ok(VersionRange::ALL), parse_versions).map_err(wrong)?;
        Ok(Certificate {
            sequence: self.sequence,
            publisher: name(&self.publisher).map_err(wrong)?,
            key: file.key,
            purpose,
            prefixes: list(prefixes, "prefixes").map_err(wrong)?,
            ceiling: read_ceiling(&self.ceiling)?,
            versions,
        })
    }

    fn key_file(&self) -> Result<PublicKeyFile> {
        let inside = self.publisher_key.join("publisher.pub");
        let path = if self.publisher_key.is_dir() { &inside } else { &self.publisher_key };
        let file = PublicKeyFile::load(path)?;
        match &file.publisher {
            Some(publisher) if *publisher == self.publisher => Ok(file),
            Some(other) => {
                bail!(Usage(format!("{} is a key of {other}, not of {}", path.display(), self.publisher)))
            }
            None => bail!(Usage(format!("{} is a root key", path.display()))),
        }
    }
}

/// The options of `revoke`.
#[derive(Debug, Clone, Args)]
#[command(group = ArgGroup::new("what").required(true).args(["key", "module"]))]
pub struct RevokeArgs {
    /// What signs, and where to.
    #[command(flatten)]
    pub signing: SigningArgs,
    /// Above that of the last revocation
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub sequence: u64,
    /// A publisher's key and all that it signed: its id, or a .pub or .cert file
    #[arg(long, value_name = "KEYID", conflicts_with = "versions")]
    pub key: Option<String>,
    /// Some versions of a module
    #[arg(long, value_name = "PUBLISHER/NAME", requires = "versions")]
    pub module: Option<String>,
    /// Which versions, both ends included
    #[arg(long, value_name = "LOW..HIGH", requires = "module")]
    pub versions: Option<String>,
}

impl RevokeArgs {
    /// Writes the revocation.
    pub fn run(&self) -> Result<()> {
        let folder = self.signing.open()?;
        let revocation = Revocation { sequence: self.sequence, item: self.item()? };
        let kind = RecordKind::Revocation;
        let standing = ceremony::issue(&folder, kind, &revocation, &self.signing.out, self.signing.partial)?;
        self.signing.say(kind, standing);
        Ok(())
    }

    fn item(&self) -> Result<RevokedItem> {
        if let Some(key) = &self.key {
            return Ok(RevokedItem::Key(read_key_id(key).map_err(wrong)?));
        }
        let (Some(module), Some(versions)) = (&self.module, &self.versions) else {
            bail!(Usage("--key KEYID or --module PUBLISHER/NAME --versions LOW..HIGH is missing".into()));
        };
        let (publisher, name) = parse_module(module).map_err(wrong)?;
        Ok(RevokedItem::Module { publisher, name, versions: parse_versions(versions).map_err(wrong)? })
    }
}

/// The options of `rootset`.
#[derive(Debug, Clone, Args)]
pub struct RootsetArgs {
    /// What signs, and where to.
    #[command(flatten)]
    pub signing: SigningArgs,
    /// The folder of the new root (see keygen --root-only)
    #[arg(long, value_name = "DIR")]
    pub new: PathBuf,
    /// The new root set's sequence: the one that keygen gave it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub sequence: u64,
}

impl RootsetArgs {
    /// Writes the successor of the root set.
    pub fn run(&self) -> Result<()> {
        let SigningArgs { out, partial, .. } = &self.signing;
        let old = self.signing.open()?;
        let new = NewRoot::load(&self.new, *partial)?;
        let has = new.sequence();
        if has != self.sequence {
            bail!(Usage(format!(
                "the root set in {} has sequence {has} (keygen --root-only --sequence {} makes another)",
                self.new.display(),
                self.sequence
            )));
        }
        let standing = ceremony::succeed(&old, &new, out, *partial)?;
        self.signing.say(RecordKind::RootSet, standing);
        Ok(())
    }
}

/// The options of `policy`.
#[derive(Debug, Clone, Args)]
pub struct PolicyArgs {
    /// The policy as text: the section [policy], as a boot bundle's description has it
    #[arg(value_name = "FILE.toml")]
    pub text: PathBuf,
    /// What signs, and where to.
    #[command(flatten)]
    pub signing: SigningArgs,
    /// Above that of the policy in force (default: what the text says)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub sequence: Option<u64>,
}

impl PolicyArgs {
    /// Writes the signed policy.
    pub fn run(&self) -> Result<()> {
        let folder = self.signing.open()?;
        let mut section = read_section(&self.text)?;
        section.sequence = self.sequence.or(section.sequence);
        if section.sequence.is_none() {
            bail!(Usage(format!("{} names no sequence: use --sequence", self.text.display())));
        }
        let policy = section.to_policy().with_context(|| format!("in {}", self.text.display()))?;
        let kind = RecordKind::Policy;
        let standing = ceremony::issue(&folder, kind, &policy, &self.signing.out, self.signing.partial)?;
        self.signing.say(kind, standing);
        Ok(())
    }
}

/// The options of `floors`.
#[derive(Debug, Clone, Args)]
pub struct FloorsArgs {
    /// The folder with the root set and secret root keys
    #[arg(long, value_name = "DIR", required_unless_present = "unsigned")]
    pub keys: Option<PathBuf>,
    /// The record to write; it must not exist yet
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Write the record even if it lacks signatures, which others then add (see add-signature)
    #[arg(long, conflicts_with = "unsigned")]
    pub partial: bool,
    /// Write what a system's console showed without signatures: in a boot bundle it raises a floor only as far as
    /// the bundle's own packages
    #[arg(long, conflicts_with = "keys")]
    pub unsigned: bool,
    /// Above that of the last floor record
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub sequence: u64,
    /// The lowest security version of a module that may run (may be repeated)
    #[arg(long = "floor", value_name = "PUBLISHER/NAME=V", required = true)]
    pub floors: Vec<String>,
}

impl FloorsArgs {
    /// Writes the floor record.
    pub fn run(&self) -> Result<()> {
        let floors = self.floors.iter().map(|text| parse_floor(text)).collect::<Result<Vec<_>>>();
        let floors = list(floors.map_err(wrong)?, "floors").map_err(wrong)?;
        let record = FloorRecord { sequence: self.sequence, floors };
        let Some(keys) = &self.keys else {
            ceremony::export_floors(&record, &self.out)?;
            println!("wrote {} floors without signatures to {}", record.floors.len(), self.out.display());
            return Ok(());
        };
        let signing = SigningArgs { keys: keys.clone(), out: self.out.clone(), partial: self.partial };
        let standing =
            ceremony::issue(&signing.open()?, RecordKind::Floors, &record, &self.out, self.partial)?;
        signing.say(RecordKind::Floors, standing);
        Ok(())
    }
}

/// The options of `add-signature`.
#[derive(Debug, Clone, Args)]
pub struct AddSignatureArgs {
    /// The record; look at it first (see inspect)
    pub record: PathBuf,
    /// The folder with the root set and the root keys to sign with
    #[arg(long, value_name = "DIR")]
    pub keys: PathBuf,
}

impl AddSignatureArgs {
    /// Shows the record and adds the signatures.
    pub fn run(&self) -> Result<()> {
        let folder = RootFolder::load(&self.keys)?;
        let (signed, added) = ceremony::add_signatures(&folder, &self.record)?;
        let mut text = String::new();
        record_view::write_signed(&mut text, &signed)?;
        print!("{text}");
        println!("added {added} signatures to {}", self.record.display());
        self.say_what_is_missing(&folder, &signed)
    }

    fn say_what_is_missing(&self, folder: &RootFolder, signed: &sila_abi::trust::SignedRecord) -> Result<()> {
        let own = successor_set(signed)?;
        if own.as_ref() != Some(&folder.set) {
            let Standing { have, need } = folder.standing(signed);
            println!("signed by {have} keys of the root set in force, {need} needed");
        }
        if let Some(set) = own {
            let have = signed.successor_signatures.signatures.len();
            println!("signed by {have} keys of the new root set, {} needed", set.threshold);
        }
        Ok(())
    }
}
