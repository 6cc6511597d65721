//! The whole chain over a package, as ModuleManager, DeepCompression and the kernel together run it.

use super::policy::default_policy;
use super::sif_build;
use anyhow::{Result, anyhow};
use deep_compression::engine::{DecompressError, Limits, decompress_exact};
use sila_abi::manifest::{Codec, Manifest, ModuleKind};
use sila_abi::package::LoadProof;
use sila_abi::sif::PAGE_SIZE;
use sila_abi::trust::{Purpose, Record, SignedRecord};
use sila_crypto::chain::{
    self, ChainError, KeySource, RootKeys, Verified, verify_binary, verify_image_header, verify_manifest,
};
use sila_crypto::hash::bulk_digest;
use sila_crypto::keystore::KeyStore;
use std::fmt;

/// Why a package is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A rule of the chain of trust.
    Chain(ChainError),
    /// The payload is not what a publisher may ship.
    Payload(DecompressError),
    /// The image's padding is not zero.
    Padding,
}

impl Refusal {
    /// The rule's name, as tests and scripts compare it.
    pub fn name(&self) -> String {
        match self {
            Self::Chain(error) => error.name(),
            Self::Payload(error) => format!("Payload({error:?})"),
            Self::Padding => "Padding".into(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chain(error) => error.fmt(f),
            Self::Payload(error) => write!(f, "the payload is refused: {}", error.describe()),
            Self::Padding => f.write_str("the image's padding is not zero"),
        }
    }
}

impl std::error::Error for Refusal {}

impl From<ChainError> for Refusal {
    fn from(error: ChainError) -> Self {
        Self::Chain(error)
    }
}

/// A package that passed everything.
#[derive(Debug)]
pub struct Accepted {
    /// Its manifest.
    pub manifest: Verified<Manifest>,
    /// Its image.
    pub image: Vec<u8>,
}

/// Runs the whole chain over `bytes`.
pub fn verify_package(bytes: &[u8], keys: &dyn KeySource) -> Result<Accepted, Refusal> {
    let package = chain::verify_package(bytes, keys)?;
    let proof = LoadProof::of_package(&package);
    let manifest = verify_manifest(&proof, keys)?;
    chain::check_payload(&package, &manifest)?;
    let image = unpack(&manifest, package.payload).map_err(Refusal::Payload)?;
    let digest = bulk_digest(&image);
    let binary = verify_binary(&manifest, image.len() as u64, &digest, package.binary_sig, keys)?;
    if manifest.kind != ModuleKind::Model {
        let page = image.get(..PAGE_SIZE as usize).unwrap_or(&image);
        verify_image_header(&manifest, &binary, page)?;
        sif_build::check(&image).map_err(|_| Refusal::Padding)?;
    }
    Ok(Accepted { manifest, image })
}

/// The image in a payload; at most as long as the manifest says.
pub(crate) fn unpack(manifest: &Manifest, payload: &[u8]) -> Result<Vec<u8>, DecompressError> {
    if manifest.codec == Codec::None {
        return Ok(payload.to_vec());
    }
    let len = usize::try_from(manifest.image_len).map_err(|_| DecompressError::OutputTooLarge)?;
    let mut image = vec![0; len];
    decompress_exact(payload, &mut image, &Limits::DEFAULT)?;
    Ok(image)
}

/// A key store that trusts one root set and has one publisher.
pub fn key_store(root_set: &[u8], certificate: &[u8]) -> Result<KeyStore> {
    let root = RootKeys::decode(root_set).map_err(|e| anyhow!("the root set: {e}"))?;
    let signed = SignedRecord::decode(certificate).map_err(|e| anyhow!("the certificate: {e}"))?;
    store_of(&root, &signed)
}

pub(crate) fn store_of(root: &RootKeys, signed: &SignedRecord) -> Result<KeyStore> {
    let certificate = chain::verify_certificate(signed, root).map_err(|e| anyhow!("the certificate: {e}"))?;
    let mut store = KeyStore::new(root.purpose(), default_policy()?);
    store.add_certificate(certificate).map_err(|e| anyhow!("the certificate: {e}"))?;
    Ok(store)
}

/// The purpose's name in texts.
pub const fn purpose_name(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Test => "test",
        Purpose::Release => "release",
    }
}
