//! Keys, packages and boot bundles: what the host tool makes and checks.
//!
//! Everything that is checked here is checked by `sila_crypto::chain` and `deep_compression`, the same code that
//! runs in the guest.

pub mod args;
pub mod bundle;
pub mod bundle_records;
pub mod ceremony;
pub mod ceremony_args;
pub mod chain_view;
pub mod description;
pub mod expression;
pub mod grants;
pub mod inspect;
pub mod keygen;
pub mod keys;
pub mod pack;
pub mod policy;
pub mod policy_file;
pub mod public_key;
pub mod record_view;
pub mod roots;
pub mod sif_build;
pub mod tamper;
pub mod tiny;
pub mod trust;
pub mod verify;

#[cfg(test)]
mod ceremony_tests;
#[cfg(test)]
mod flip_tests;
#[cfg(test)]
mod inspect_tests;
#[cfg(test)]
mod pack_tests;
#[cfg(test)]
mod release_tests;
#[cfg(test)]
mod scheme_tests;
#[cfg(test)]
mod tests;

use crate::missing::Usage;
use anyhow::{Context, Result};
use std::path::Path;

/// Reads a whole file; the error names it.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| Usage(format!("cannot read {}", path.display())))
}

/// Reads a text file; the error names it.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| Usage(format!("cannot read {}", path.display())))
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The bytes that hexadecimal digits stand for.
pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let pairs = text.as_bytes().chunks_exact(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

/// 32 bytes from 64 hexadecimal digits.
pub(crate) fn unhex32(text: &str) -> Option<[u8; 32]> {
    unhex(text)?.try_into().ok()
}
