//! Key folders: root keys, the publisher's key, and the records that tie them together.
//!
//! ```text
//! DIR/                0700
//!   root-0.key ...    0600  64 hexadecimal digits: the seed of a root key
//!   publisher.key     0600  the same for the publisher
//!   rootset.bin             the root set
//!   publisher.pub           the publisher's public key, to be certified
//!   publisher.cert          the publisher's certificate with the root keys' signatures
//! ```

use super::public_key::PublicKeyFile;
use super::roots::{RootFolder, RootKey, root_signatures, sign_record};
use super::trust::read_record;
use super::{hex, read_text, unhex32};
use anyhow::{Context, Result, anyhow, bail};
use sila_abi::object::ObjectType;
use sila_abi::record::{Bounded, Name, VersionRange};
use sila_abi::rights::Rights;
use sila_abi::trust::{
    Ceiling, Certificate, FIRST_SEQUENCE, Purpose, Record, RecordKind, RootSet, SignatureSet, SignedRecord,
    TypeCeiling,
};
use sila_crypto::chain::verify_certificate;
use sila_crypto::hash::id_digest;
use sila_crypto::scheme::Domain;
use sila_crypto::sign::SigningKey;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// What `keygen` makes.
#[derive(Clone, Debug)]
pub struct KeygenOptions {
    /// The publisher's name.
    pub publisher: Name,
    /// What the keys are for.
    pub purpose: Purpose,
    /// Number of root keys.
    pub roots: u8,
    /// Root signatures that a record needs.
    pub threshold: u8,
    /// Name prefixes of the publisher's modules; none: any name.
    pub prefixes: Vec<Name>,
}

/// A publisher that can sign.
#[derive(Debug)]
pub struct PublisherKey {
    /// The secret key.
    pub key: SigningKey,
    /// What the root says about it.
    pub certificate: Certificate,
}

impl PublisherKey {
    /// Reads a publisher's key and certificate, which must belong together; root keys need not be there.
    pub fn load(dir: &Path) -> Result<Self> {
        let signed = read_record(&dir.join("publisher.cert"))?;
        let certificate = Certificate::decode(&signed.record).map_err(|e| anyhow!("publisher.cert: {e}"))?;
        Self::of(dir, certificate)
    }

    fn of(dir: &Path, certificate: Certificate) -> Result<Self> {
        let key = load_key(&dir.join("publisher.key"))?;
        if key.public_key() != certificate.key {
            bail!("the publisher key in {} is not that of its certificate", dir.display());
        }
        Ok(Self { key, certificate })
    }
}

/// A whole key folder in memory.
#[derive(Debug)]
pub struct KeySet {
    /// The secret root keys at hand, by index.
    pub roots: Vec<RootKey>,
    /// The root set.
    pub root_set: RootSet,
    /// The root set's encoding.
    pub root_set_bytes: Vec<u8>,
    /// The publisher.
    pub publisher: PublisherKey,
    /// The publisher's certificate as it is delivered.
    pub signed_certificate: SignedRecord,
}

/// New root keys and their root set.
pub fn generate_roots(purpose: Purpose, count: u8, threshold: u8, sequence: u64) -> Result<RootFolder> {
    let number = |index| Ok(RootKey { index, key: SigningKey::generate()? });
    let keys = (0..count).map(number).collect::<Result<Vec<_>>>()?;
    let public = keys.iter().map(|root| root.key.public_key()).collect();
    let set = RootSet { sequence, purpose, threshold, keys: list(public, "root keys")? };
    let encoded = set.encode()?;
    Ok(RootFolder { set, encoded, keys })
}

/// Makes a folder for keys, which must not exist yet, and those above it.
pub fn make_folder(dir: &Path) -> Result<()> {
    if dir.symlink_metadata().is_ok() {
        bail!("{} exists; keys are never overwritten", dir.display());
    }
    if let Some(parent) = dir.parent().filter(|p| !p.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    }
    let made = std::fs::DirBuilder::new().mode(0o700).create(dir);
    made.with_context(|| format!("cannot make {} (keys are never overwritten)", dir.display()))
}

/// Writes root keys and their root set into a new folder.
pub fn save_roots(dir: &Path, roots: &[RootKey], root_set: &[u8]) -> Result<()> {
    for root in roots {
        save_key(&dir.join(format!("root-{}.key", root.index)), &root.key)?;
    }
    write_new(&dir.join("rootset.bin"), 0o644, root_set)
}

/// Writes a publisher's secret key, and its public one as it is handed out, into a new folder.
pub fn save_publisher(dir: &Path, key: &SigningKey, publisher: Name, purpose: Purpose) -> Result<()> {
    save_key(&dir.join("publisher.key"), key)?;
    let public = PublicKeyFile { publisher: Some(publisher.to_string()), purpose, key: key.public_key() };
    write_new(&dir.join("publisher.pub"), 0o644, public.to_text().as_bytes())
}

/// Every right on every type that a module can ask for.
pub fn full_ceiling() -> Result<Ceiling> {
    let all = Rights::USE.bits();
    let types = ObjectType::ALL.iter().filter(|t| **t != ObjectType::Reply);
    let types = types.map(|t| TypeCeiling { object: *t as u8, rights: all }).collect();
    Ok(Ceiling {
        types: list(types, "ceilings")?,
        frames: 1 << 20,
        object_bytes: 1 << 30,
        max_priority: 255,
        agents: true,
    })
}

/// A bounded list, or an error that says which one is too long.
pub(crate) fn list<T, const N: usize>(items: Vec<T>, what: &str) -> Result<Bounded<T, N>> {
    let count = items.len();
    Bounded::from_vec(items).map_err(|_| anyhow!("{count} {what} are more than the {N} allowed"))
}

/// A name, or an error that shows it.
pub(crate) fn name(text: &str) -> Result<Name> {
    Name::new(text).map_err(|e| anyhow!("bad name {text:?}: {e}"))
}

impl KeySet {
    /// New keys from the system's random source.
    pub fn generate(options: &KeygenOptions) -> Result<Self> {
        let RootFolder { set: root_set, encoded: root_set_bytes, keys: roots } =
            generate_roots(options.purpose, options.roots, options.threshold, FIRST_SEQUENCE)?;
        let key = SigningKey::generate()?;
        let certificate = Certificate {
            sequence: 1,
            publisher: options.publisher,
            key: key.public_key(),
            purpose: options.purpose,
            prefixes: list(options.prefixes.clone(), "prefixes")?,
            ceiling: full_ceiling()?,
            versions: VersionRange::ALL,
        };
        let signed_certificate =
            sign_record(&roots, options.threshold, RecordKind::Certificate, &certificate)?;
        let publisher = PublisherKey { key, certificate };
        Ok(Self { roots, root_set, root_set_bytes, publisher, signed_certificate })
    }

    /// Reads a folder that holds root and publisher, and checks that its parts belong together.
    pub fn load(dir: &Path) -> Result<Self> {
        Self::load_both(dir, dir)
    }

    /// Reads a root's folder and a publisher's, which must belong together. As many root keys must be there as the
    /// root set demands signatures.
    pub fn load_both(root_dir: &Path, publisher_dir: &Path) -> Result<Self> {
        let folder = RootFolder::load(root_dir)?;
        let (have, need) = (folder.keys.len(), folder.set.threshold);
        if have < usize::from(need) {
            bail!("{} holds {have} root keys, and {need} must sign", root_dir.display());
        }
        let file = publisher_dir.join("publisher.cert");
        let signed = read_record(&file)?;
        let certificate = verify_certificate(&signed, &folder.root()?);
        let certificate = certificate.map_err(|e| anyhow!("{}: {e}", file.display()))?;
        let publisher = PublisherKey::of(publisher_dir, certificate.into_inner())?;
        let RootFolder { set: root_set, encoded: root_set_bytes, keys: roots } = folder;
        Ok(Self { roots, root_set, root_set_bytes, publisher, signed_certificate: signed })
    }

    /// Writes a key folder that must not exist yet.
    pub fn save(&self, dir: &Path) -> Result<()> {
        make_folder(dir)?;
        save_roots(dir, &self.roots, &self.root_set_bytes)?;
        let name = self.publisher.certificate.publisher;
        save_publisher(dir, &self.publisher.key, name, self.root_set.purpose)?;
        write_new(&dir.join("publisher.cert"), 0o644, &self.signed_certificate.encode()?)
    }

    /// Signs a record with as many root keys as the root set demands.
    pub fn sign_record<T: Record>(&self, kind: RecordKind, record: &T) -> Result<SignedRecord> {
        sign_record(&self.roots, self.root_set.threshold, kind, record)
    }

    /// Signs an encoded record with as many root keys as the root set demands.
    pub fn root_signatures(&self, domain: Domain, encoded: &[u8]) -> Result<SignatureSet> {
        root_signatures(&self.roots, self.root_set.threshold, domain, encoded)
    }

    /// Another publisher under the same root, with a key that follows from this folder's. For tests.
    pub fn test_publisher(&self, publisher: &str, prefixes: &[&str]) -> Result<PublisherKey> {
        if self.root_set.purpose != Purpose::Test {
            bail!("only test keys have test publishers");
        }
        let seed = id_digest(&[&self.publisher.key.seed()[..], publisher.as_bytes()].concat());
        let key = SigningKey::from_seed(&seed);
        let prefixes = prefixes.iter().map(|p| name(p)).collect::<Result<Vec<_>>>()?;
        let certificate = Certificate {
            sequence: 1,
            publisher: name(publisher)?,
            key: key.public_key(),
            purpose: Purpose::Test,
            prefixes: list(prefixes, "prefixes")?,
            ceiling: narrow_ceiling()?,
            versions: VersionRange::ALL,
        };
        Ok(PublisherKey { key, certificate })
    }

    /// A publisher with this one's ceiling.
    pub fn ample(&self, publisher: PublisherKey) -> PublisherKey {
        let ceiling = self.publisher.certificate.ceiling.clone();
        PublisherKey { certificate: Certificate { ceiling, ..publisher.certificate }, ..publisher }
    }
}

/// What a publisher of tests may ask for: notifications to signal, its own pool, and no agents.
fn narrow_ceiling() -> Result<Ceiling> {
    let types = vec![
        TypeCeiling { object: ObjectType::Notification as u8, rights: Rights::SEND.bits() },
        TypeCeiling { object: ObjectType::Pool as u8, rights: Rights::CREATE.bits() | Rights::READ.bits() },
    ];
    let types = list(types, "ceilings")?;
    Ok(Ceiling { types, frames: 1024, object_bytes: 1 << 20, max_priority: 128, agents: false })
}

/// Makes keys and writes them to the new folder `dir`.
pub fn keygen(dir: &Path, options: &KeygenOptions) -> Result<KeySet> {
    let keys = KeySet::generate(options)?;
    keys.save(dir)?;
    Ok(keys)
}

/// The test keys in `state`/test-keys: those of the last time, or new ones. Publisher `sila`, one root key.
pub fn test_keys(state: &Path) -> Result<KeySet> {
    let dir = state.join("test-keys");
    if dir.join("publisher.cert").exists() {
        let advice = || format!("test keys of another version? Remove {}: they are made anew", dir.display());
        return KeySet::load(&dir).with_context(advice);
    }
    let options = KeygenOptions {
        publisher: name("sila")?,
        purpose: Purpose::Test,
        roots: 1,
        threshold: 1,
        prefixes: Vec::new(),
    };
    // Made aside and moved in whole: two builds at once must not mix their keys, and a broken-off one leaves none.
    let aside = state.join(format!("test-keys.{}", std::process::id()));
    let keys = keygen(&aside, &options)?;
    match std::fs::rename(&aside, &dir) {
        Ok(()) => Ok(keys),
        Err(_) if dir.join("publisher.cert").exists() => {
            std::fs::remove_dir_all(&aside).with_context(|| format!("cannot remove {}", aside.display()))?;
            KeySet::load(&dir)
        }
        Err(e) => Err(e).with_context(|| format!("cannot make {}", dir.display())),
    }
}

/// A secret key from its file.
pub(crate) fn load_key(path: &Path) -> Result<SigningKey> {
    let text = read_text(path)?;
    let seed = unhex32(text.trim()).with_context(|| format!("{} is no key", path.display()))?;
    Ok(SigningKey::from_seed(&seed))
}

/// Writes a secret key to a new file that only its owner can read.
pub(crate) fn save_key(path: &Path, key: &SigningKey) -> Result<()> {
    write_new(path, 0o600, format!("{}\n", hex(&key.seed())).as_bytes())
}

/// Writes a file that must not exist yet.
pub(crate) fn write_new(path: &Path, mode: u32, bytes: &[u8]) -> Result<()> {
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let mut file = file.with_context(|| format!("cannot make {}", path.display()))?;
    file.write_all(bytes).with_context(|| format!("cannot write {}", path.display()))
}
