//! The smallest module that packs: what tests spoil bit by bit, and what `fuzz-package` mutates.

use super::description::ModuleDescription;
use super::keys::PublisherKey;
use super::pack::{Parts, compress, manifest};
use super::sif_build::{self, SegmentInput};
use anyhow::Result;
use sila_abi::manifest::Codec;
use sila_abi::sif::Perm;

/// Where its code lies.
const CODE: u64 = 0x20_0000;

/// Its image: the header and one page of code, whose only instruction is undefined.
pub fn image() -> Result<Vec<u8>> {
    let code = SegmentInput { vaddr: CODE, mem_len: 2, perm: Perm::RX, data: vec![0x0f, 0x0b] };
    sif_build::build(CODE, &[code])
}

/// Its description: a service that asks for nothing.
pub fn description(name: &str, version: &str) -> Result<ModuleDescription> {
    let text = format!(
        "[module]\nname = {name:?}\nversion = {version:?}\nkind = \"service\"\nstack_pages = 1\n\
         [resources]\nframes = 64\nobject_bytes = 8192\nmax_priority = 100\nthreads = 1\n"
    );
    Ok(toml::from_str(&text)?)
}

/// The module with its parts: compressed, and signed by this publisher.
pub fn parts(name: &str, version: &str, publisher: &PublisherKey) -> Result<Parts> {
    let image = image()?;
    let payload = compress(&image)?;
    let manifest = manifest(&description(name, version)?, &image, &payload, Codec::Zstd, publisher)?;
    Parts::sign(&manifest, &payload, &publisher.key)
}
