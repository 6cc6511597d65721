//! Public keys in files that people send each other: text, so that it can be read aloud and compared.

use super::hex;
use super::verify::purpose_name;
use super::{read_text, unhex};
use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;
use sila_abi::record::KeyId;
use sila_abi::trust::{Certificate, PublicKey, PublicKeyBytes, Purpose, Record, RecordKind};
use sila_crypto::hash::key_id;
use sila_crypto::scheme::VerifyingKey;
use std::path::Path;

/// What a `.pub` file holds.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    publisher: Option<String>,
    purpose: String,
    algorithm: u16,
    id: String,
    key: String,
}

/// A public key as its owner hands it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKeyFile {
    /// The publisher that it belongs to; none: a root key.
    pub publisher: Option<String>,
    /// What it is for.
    pub purpose: Purpose,
    /// The key.
    pub key: PublicKey,
}

impl PublicKeyFile {
    /// The key's id.
    pub fn id(&self) -> KeyId {
        key_id(self.key.algorithm, &self.key.bytes)
    }

    /// The file's text.
    pub fn to_text(&self) -> String {
        let owner =
            self.publisher.as_ref().map(|name| format!("publisher = \"{name}\"\n")).unwrap_or_default();
        format!(
            "# A public key for SILA. Compare the id by another way before you sign anything about it.\n\
             {owner}purpose = \"{}\"\nalgorithm = {}\nid = \"{}\"\nkey = \"{}\"\n",
            purpose_name(self.purpose),
            self.key.algorithm,
            hex(&self.id()),
            hex(&self.key.bytes)
        )
    }

    /// Reads a `.pub` file and checks that the key is one, and that its id is right.
    pub fn load(path: &Path) -> Result<Self> {
        Self::parse(&read_text(path)?).with_context(|| format!("in {}", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let text: Text = toml::from_str(text)?;
        let bytes = unhex(&text.key).context("the key is not hexadecimal")?;
        VerifyingKey::decode(text.algorithm, &bytes).map_err(|e| anyhow!("{e}"))?;
        let bytes = PublicKeyBytes::from_vec(bytes).map_err(|_| anyhow!("the key is too long"))?;
        let key = PublicKey { algorithm: text.algorithm, bytes };
        let this = Self { publisher: text.publisher, purpose: purpose(&text.purpose)?, key };
        if hex(&this.id()) != text.id {
            bail!("the id is not that of the key: one of them was changed");
        }
        Ok(this)
    }
}

/// A purpose by its name.
pub fn purpose(text: &str) -> Result<Purpose> {
    match text {
        "test" => Ok(Purpose::Test),
        "release" => Ok(Purpose::Release),
        _ => bail!("unknown purpose {text:?} (known: test, release)"),
    }
}

/// A key id: 64 hexadecimal digits, or that of the key in a `.pub` or `.cert` file.
pub fn read_key_id(text: &str) -> Result<KeyId> {
    if let Some(id) = super::unhex32(text) {
        return Ok(id);
    }
    let path = Path::new(text);
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("pub") => Ok(PublicKeyFile::load(path)?.id()),
        Some("cert") => {
            let signed = super::trust::read_record(path)?;
            if signed.kind != RecordKind::Certificate {
                bail!("{text} holds a {}", signed.kind.name());
            }
            let certificate = Certificate::decode(&signed.record).map_err(|e| anyhow!("{text}: {e}"))?;
            Ok(key_id(certificate.key.algorithm, &certificate.key.bytes))
        }
        _ => bail!("{text:?} is no key id: 64 hexadecimal digits, or a .pub or .cert file"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paths::Scratch;
    use sila_crypto::sign::SigningKey;

    fn file() -> PublicKeyFile {
        let key = SigningKey::from_seed(&[7; 32]).public_key();
        PublicKeyFile { publisher: Some("acme".into()), purpose: Purpose::Release, key }
    }

    #[test]
    fn public_keys_survive_their_text() {
        assert_eq!(PublicKeyFile::parse(&file().to_text()).unwrap(), file());
        let root = PublicKeyFile { publisher: None, purpose: Purpose::Test, ..file() };
        assert_eq!(PublicKeyFile::parse(&root.to_text()).unwrap(), root);
    }

    #[test]
    fn a_changed_key_or_id_is_noticed() {
        let text = file().to_text();
        let id = hex(&file().id());
        for (bad, expected) in [
            (text.replace(&id[..8], "00000000"), "id is not that of the key"),
            (text.replace("key = \"", "key = \"0"), "not hexadecimal"),
            (text.replace("key = \"", "key = \"00"), "wrong length"),
            (text.replace("algorithm = 1", "algorithm = 7"), "unknown"),
            (text.replace("release", "sale"), "unknown purpose"),
            (text.replace("id =", "ID ="), "unknown field"),
        ] {
            let error = format!("{:#}", PublicKeyFile::parse(&bad).unwrap_err());
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn key_ids_are_given_as_digits_or_by_a_file() {
        let scratch = Scratch::new().unwrap();
        let path = scratch.join("acme.pub");
        std::fs::write(&path, file().to_text()).unwrap();
        assert_eq!(read_key_id(path.to_str().unwrap()).unwrap(), file().id());
        assert_eq!(read_key_id(&hex(&file().id())).unwrap(), file().id());
        for bad in ["", "12", "acme", "no-such.pub", "no-such.cert"] {
            assert!(read_key_id(bad).is_err(), "{bad}");
        }
    }
}
