//! From an image and a description to a signed package.

use super::description::ModuleDescription;
use super::keys::PublisherKey;
use super::sif_build;
use anyhow::{Context, Result, anyhow, bail};
use sila_abi::manifest::{Codec, Manifest, ModuleKind};
use sila_abi::package::{LoadProof, PACKAGE_FORMAT, PACKAGE_MAGIC, Package, PackageHeader};
use sila_crypto::chain::statement;
use sila_crypto::hash::bulk_digest;
use sila_crypto::scheme::Domain;
use sila_crypto::sign::Signer;
use std::io::Write;
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32, U64};

/// The zstd level of every package.
pub const ZSTD_LEVEL: i32 = 19;

/// Compresses an image: one frame, with content size and checksum.
pub fn compress(image: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), ZSTD_LEVEL)?;
    encoder.include_checksum(true)?;
    encoder.include_contentsize(true)?;
    encoder.set_pledged_src_size(Some(image.len() as u64))?;
    encoder.write_all(image)?;
    encoder.finish().context("cannot compress the image")
}

/// The manifest of `image` in `payload`, signed by nobody yet.
pub fn manifest(
    description: &ModuleDescription,
    image: &[u8],
    payload: &[u8],
    codec: Codec,
    publisher: &PublisherKey,
) -> Result<Manifest> {
    let mut manifest = description.to_manifest()?;
    if manifest.kind != ModuleKind::Model {
        manifest.entry = sif_build::check(image)?.entry();
    }
    let signer = publisher.certificate.publisher;
    if description.module.publisher.is_some() && manifest.publisher != signer {
        bail!(
            "sila.toml says that {} signs {}, and the key is {signer}'s",
            manifest.publisher,
            manifest.name
        );
    }
    manifest.publisher = signer;
    manifest.key_id = publisher.key.id();
    manifest.algorithm = publisher.key.algorithm();
    manifest.image_digest = bulk_digest(image);
    manifest.image_len = image.len() as u64;
    manifest.payload_digest = bulk_digest(payload);
    manifest.payload_len = payload.len() as u64;
    manifest.codec = codec;
    manifest.validate().map_err(|e| anyhow!("{}: {e}", manifest.name))?;
    Ok(manifest)
}

/// The bytes of a package, before or after signing.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Key id and algorithm of the header.
    pub key_id: [u8; 32],
    /// Algorithm of the header.
    pub algorithm: u16,
    /// The manifest's encoding.
    pub manifest: Vec<u8>,
    /// The payload.
    pub payload: Vec<u8>,
    /// The package signature.
    pub package_sig: Vec<u8>,
    /// The manifest signature.
    pub manifest_sig: Vec<u8>,
    /// The binary signature.
    pub binary_sig: Vec<u8>,
}

impl Parts {
    /// Signs `manifest` and `payload` three times.
    pub fn sign(manifest: &Manifest, payload: &[u8], key: &dyn Signer) -> Result<Self> {
        let encoded = manifest.encode().map_err(|e| anyhow!("{}: {e}", manifest.name))?;
        let statement = statement::binary(manifest);
        let mut parts = Self {
            key_id: key.id(),
            algorithm: key.algorithm(),
            manifest: encoded,
            payload: payload.to_vec(),
            package_sig: Vec::new(),
            manifest_sig: Vec::new(),
            binary_sig: key.sign(Domain::Binary, statement.as_bytes())?,
        };
        parts.sign_manifest(key)?;
        parts.sign_package(key)?;
        Ok(parts)
    }

    /// Signs the manifest anew.
    pub fn sign_manifest(&mut self, key: &dyn Signer) -> Result<()> {
        let message = statement::manifest(self.algorithm, &self.key_id, &self.manifest);
        self.manifest_sig = key.sign(Domain::Manifest, message.as_bytes())?;
        Ok(())
    }

    /// Signs the package anew.
    pub fn sign_package(&mut self, key: &dyn Signer) -> Result<()> {
        // Every signature of the scheme has the length of the binary signature.
        let signed = self.signed_bytes(self.binary_sig.len())?;
        let message =
            statement::package(self.algorithm, &self.key_id, signed.len() as u64, &bulk_digest(&signed));
        self.package_sig = key.sign(Domain::Package, message.as_bytes())?;
        Ok(())
    }

    fn signed_bytes(&self, sig_len: usize) -> Result<Vec<u8>> {
        let total = size_of::<PackageHeader>() + self.manifest.len() + self.payload.len() + 3 * sig_len;
        let header = PackageHeader {
            magic: PACKAGE_MAGIC,
            format: U16::new(PACKAGE_FORMAT),
            algorithm: U16::new(self.algorithm),
            manifest_len: U32::new(u32::try_from(self.manifest.len())?),
            key_id: self.key_id,
            payload_len: U64::new(self.payload.len() as u64),
            total_len: U64::new(total as u64),
            sig_len: U32::new(u32::try_from(sig_len)?),
            reserved: [0; 60],
        };
        Ok([header.as_bytes(), &self.manifest, &self.payload].concat())
    }

    /// The load proof of the package.
    pub fn proof(&self) -> Result<Vec<u8>> {
        let bytes = self.assemble()?;
        let proof = LoadProof::of_package(&Package::parse(&bytes).map_err(|error| anyhow!("{error}"))?);
        let mut out = vec![0; proof.len()];
        proof.write(&mut out).map_err(|error| anyhow!("{error}"))?;
        Ok(out)
    }

    /// The package.
    pub fn assemble(&self) -> Result<Vec<u8>> {
        let signed = self.signed_bytes(self.binary_sig.len())?;
        Ok([&signed[..], &self.package_sig, &self.manifest_sig, &self.binary_sig].concat())
    }
}

/// A signed and compressed package of `image`.
pub fn pack(description: &ModuleDescription, image: &[u8], publisher: &PublisherKey) -> Result<Vec<u8>> {
    let payload = compress(image)?;
    let manifest = manifest(description, image, &payload, Codec::Zstd, publisher)?;
    Parts::sign(&manifest, &payload, &publisher.key)?.assemble()
}

/// A signed and compressed package of the program in an ELF file.
pub fn pack_elf(description: &ModuleDescription, elf: &[u8], publisher: &PublisherKey) -> Result<Vec<u8>> {
    let image = sif_build::elf_to_sif(elf).with_context(|| description.module.name.clone())?;
    pack(description, &image, publisher)
}
