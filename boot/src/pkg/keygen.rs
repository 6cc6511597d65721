//! `keygen`: new keys. Root keys and a publisher's key can be made in folders of their own, or on machines of their own.

use super::hex;
use super::keys::{
    KeygenOptions, generate_roots, keygen, list, make_folder, name, save_key, save_publisher, save_roots,
    write_new,
};
use super::public_key::{PublicKeyFile, purpose};
use super::verify::purpose_name;
use crate::missing::Usage;
use anyhow::{Result, anyhow, bail};
use clap::Args;
use sila_abi::record::Name;
use sila_abi::trust::{FIRST_SEQUENCE, Purpose, Record, RootSet};
use sila_crypto::sign::SigningKey;
use std::path::PathBuf;

/// The options of `keygen`.
#[derive(Debug, Clone, Args)]
pub struct KeygenArgs {
    /// The folder to make
    pub dir: PathBuf,
    /// The publisher's name
    #[arg(long, required_unless_present_any = ["root_only", "holder_only", "join"])]
    pub publisher: Option<String>,
    /// What the keys are for
    #[arg(long, default_value = "release", value_parser = ["test", "release"])]
    pub purpose: String,
    /// Number of root keys (default: 3)
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=8))]
    pub roots: Option<u8>,
    /// Root signatures that a record needs (default: 2)
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=8))]
    pub threshold: Option<u8>,
    /// Sequence of the root set: above the one that it is to take the place of (default: 1)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub sequence: Option<u64>,
    /// Name prefix of the publisher's modules (may be repeated; none: any name)
    #[arg(long = "prefix", value_name = "PREFIX")]
    pub prefixes: Vec<String>,
    /// Make root keys and a root set, and no publisher's key
    #[arg(long, conflicts_with_all = ["publisher", "prefixes"])]
    pub root_only: bool,
    /// Make a publisher's key, to be certified by who holds the root keys (see certify)
    #[arg(long, conflicts_with_all = ["root_only", "prefixes", "roots", "threshold", "sequence"])]
    pub publisher_only: bool,
    /// Make one root key of a set whose other keys others make (see --join)
    #[arg(long, conflicts_with_all = ["root_only", "publisher_only", "publisher", "prefixes", "roots", "threshold", "sequence"])]
    pub holder_only: bool,
    /// Make the root set of these public keys, in this order; no secret is needed (repeat for each FILE.pub)
    #[arg(long, value_name = "FILE.pub", conflicts_with_all = ["root_only", "publisher_only", "holder_only", "publisher", "prefixes", "roots"])]
    pub join: Vec<PathBuf>,
}

fn given(text: &str) -> Result<Name> {
    name(text).map_err(|e| Usage(format!("{e:#}")).into())
}

impl KeygenArgs {
    /// Makes the keys.
    pub fn run(&self) -> Result<()> {
        let purpose = purpose(&self.purpose)?;
        if !self.join.is_empty() {
            return self.join(purpose);
        }
        if self.holder_only {
            return self.holder(purpose);
        }
        if self.publisher_only {
            return self.publisher(purpose);
        }
        let (roots, threshold) = self.root_numbers()?;
        let sequence = self.sequence.unwrap_or(FIRST_SEQUENCE);
        if self.root_only {
            let folder = generate_roots(purpose, roots, threshold, sequence)?;
            make_folder(&self.dir)?;
            save_roots(&self.dir, &folder.keys, &folder.encoded)?;
            self.say(&format!("{roots} root keys ({threshold} must sign), root set {sequence}"));
            return Ok(());
        }
        if sequence != FIRST_SEQUENCE {
            bail!(Usage("a root set that takes the place of another is made with --root-only".into()));
        }
        let publisher = self.publisher_name()?;
        let prefixes = self.prefixes.iter().map(|p| given(p)).collect::<Result<Vec<_>>>()?;
        keygen(&self.dir, &KeygenOptions { publisher, purpose, roots, threshold, prefixes })?;
        self.say(&format!("{roots} root keys ({threshold} must sign), 1 publisher key for {publisher}"));
        Ok(())
    }

    fn say(&self, what: &str) {
        println!("made {} keys in {}: {what}", self.purpose, self.dir.display());
    }

    fn publisher_name(&self) -> Result<Name> {
        given(self.publisher.as_deref().ok_or_else(|| Usage("--publisher NAME is missing".into()))?)
    }

    fn root_numbers(&self) -> Result<(u8, u8)> {
        let roots = self.roots.unwrap_or(3);
        let threshold = self.threshold.unwrap_or(roots.min(2));
        if threshold > roots {
            bail!(Usage(format!("a threshold of {threshold} needs at least as many root keys, not {roots}")));
        }
        Ok((roots, threshold))
    }

    fn publisher(&self, purpose: Purpose) -> Result<()> {
        let publisher = self.publisher_name()?;
        let key = SigningKey::generate()?;
        make_folder(&self.dir)?;
        save_publisher(&self.dir, &key, publisher, purpose)?;
        self.say(&format!("1 publisher key for {publisher}, id {}", hex(&key.id())));
        println!(
            "next: who holds the root keys runs `sila certify` with {}",
            self.dir.join("publisher.pub").display()
        );
        Ok(())
    }

    fn holder(&self, purpose: Purpose) -> Result<()> {
        let key = SigningKey::generate()?;
        make_folder(&self.dir)?;
        save_key(&self.dir.join("root.key"), &key)?;
        let public = PublicKeyFile { publisher: None, purpose, key: key.public_key() };
        write_new(&self.dir.join("root.pub"), 0o644, public.to_text().as_bytes())?;
        self.say(&format!("1 root key, id {}", hex(&key.id())));
        Ok(())
    }

    /// A root set of keys that others made.
    fn join(&self, purpose: Purpose) -> Result<()> {
        let files = self.join.iter().map(|path| PublicKeyFile::load(path)).collect::<Result<Vec<_>>>()?;
        for (path, file) in self.join.iter().zip(&files) {
            if file.publisher.is_some() {
                bail!(Usage(format!("{} is a publisher's key", path.display())));
            }
            if file.purpose != purpose {
                let purpose = purpose_name(file.purpose);
                bail!(Usage(format!("{} is a {purpose} key (see --purpose)", path.display())));
            }
        }
        let threshold = self.threshold.ok_or_else(|| Usage("--join needs --threshold".into()))?;
        let sequence = self.sequence.unwrap_or(FIRST_SEQUENCE);
        let keys = list(files.iter().map(|file| file.key.clone()).collect(), "root keys")?;
        let set = RootSet { sequence, purpose, threshold, keys };
        let encoded = set.encode().map_err(|e| anyhow!(Usage(format!("{e}"))))?;
        make_folder(&self.dir)?;
        write_new(&self.dir.join("rootset.bin"), 0o644, &encoded)?;
        let count = files.len();
        println!("made root set {sequence} in {}: {count} keys ({threshold} must sign)", self.dir.display());
        println!("next: each holder puts a copy of rootset.bin beside their root.key");
        Ok(())
    }
}
