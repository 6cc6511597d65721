//! Keys, packages and boot bundles: what the host tool makes and checks.
//!
//! Everything that is checked here is checked by `sila_crypto::chain` and `deep_compression`, the same code that
//! runs in the guest.

pub mod args;
pub mod bundle;
pub mod description;
pub mod inspect;
pub mod keys;
pub mod pack;
pub mod policy;
pub mod sif_build;
pub mod tamper;
pub mod tiny;
pub mod verify;

#[cfg(test)]
mod flip_tests;
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

/// 32 bytes from 64 hexadecimal digits.
pub(crate) fn unhex32(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut out = [0; 32];
    for (slot, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *slot = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(out)
}
