//! The module of 35.5 KB whose loads are measured: nine pages of real code and data, which reports that it serves.

use crate::pkg::description::ModuleDescription;
use crate::pkg::keys::KeySet;
use crate::pkg::pack::{self, Parts};
use crate::pkg::sif_build::{SegmentInput, build, elf_segments};
use anyhow::{Context, Result};
use sila_abi::manifest::Codec;
use sila_abi::protocol::layout::LIFECYCLE;
use sila_abi::protocol::lifecycle::READY;
use sila_abi::sif::{PAGE_SIZE, Perm};
use sila_abi::syscall::{Call, FOREVER, Tag};
use sila_abi::verify_case::VerifyCase;
use sila_crypto::scheme::Domain;
use zerocopy::IntoBytes;

/// Where it lies.
const BASE: u64 = 0x20_0000;
/// Pages of constants, code and data; the header is one more.
const PAGES: [usize; 3] = [3, 4, 1];

/// Machine code: a call to the lifecycle endpoint that says `READY`, then a loop without end.
fn code() -> Vec<u8> {
    let mut code = vec![0x48, 0xb8];
    code.extend(Tag::new(Call::Call, 0, 0, READY).0.to_le_bytes());
    // edi: the slot; r15d and r13d: no capabilities, nothing received; r14: no deadline.
    code.push(0xbf);
    code.extend(u32::from(LIFECYCLE.0).to_le_bytes());
    code.extend([0x45, 0x31, 0xff, 0x45, 0x31, 0xed, 0x49, 0xbe]);
    code.extend(FOREVER.to_le_bytes());
    // syscall; pause; jump back to the pause.
    code.extend([0x0f, 0x05, 0xf3, 0x90, 0xeb, 0xfc]);
    code
}

/// The image: so that it compresses as programs do, it is filled with pieces of this one's.
pub fn image(elf: &[u8]) -> Result<Vec<u8>> {
    let page = PAGE_SIZE as usize;
    let (_, segments) = elf_segments(elf)?;
    let of = |perm: Perm| {
        let found = segments.iter().find(|segment| segment.perm == perm);
        found.map(|segment| segment.data.clone()).with_context(|| format!("no segment {perm:?}"))
    };
    let mut made = Vec::new();
    let mut vaddr = BASE;
    for (pages, perm) in PAGES.into_iter().zip([Perm::R, Perm::RX, Perm::RW]) {
        let mut data: Vec<u8> = of(perm)?.into_iter().cycle().take(pages * page).collect();
        if perm == Perm::RX {
            data.splice(..code().len(), code());
        }
        made.push(SegmentInput { vaddr, mem_len: data.len() as u64, perm, data });
        vaddr += (pages * page) as u64;
    }
    build(BASE + (PAGES[0] * page) as u64, &made)
}

/// The module's description; beside the report's endpoint it may ask for capabilities.
fn description(name: &str, caps: usize, lifecycle: bool) -> Result<ModuleDescription> {
    let mut text = format!(
        "[module]\nname = {name:?}\nversion = \"1.0.0\"\nkind = \"service\"\nstack_pages = 4\n\
         [resources]\nframes = 64\nobject_bytes = 16384\nmax_priority = 100\nthreads = 1\n"
    );
    if lifecycle {
        text += "[[request]]\nslot = 4\nobject = \"Endpoint\"\ngrant = \"lifecycle\"\nrights = [\"SEND\", \"GRANT\"]\n";
    }
    for at in 0..caps {
        text += &format!(
            "[[request]]\nslot = {}\nobject = \"Notification\"\ngrant = \"n{at}\"\nrights = [\"SEND\"]\n",
            10 + at
        );
    }
    Ok(toml::from_str(&text)?)
}

/// The load proof for a process that asks for so many capabilities.
pub fn proof(image: &[u8], caps: usize, keys: &KeySet) -> Result<Vec<u8>> {
    let description = description(&format!("benchcaps{caps}"), caps, false)?;
    let manifest = pack::manifest(&description, image, image, Codec::None, &keys.publisher)?;
    Parts::sign(&manifest, image, &keys.publisher.key)?.proof()
}

/// The package.
pub fn package(image: &[u8], keys: &KeySet) -> Result<Vec<u8>> {
    pack::pack(&description(bench::SMALL_MODULE, 0, true)?, image, &keys.publisher)
}

/// A valid signature over as many bytes as a manifest's statement has, and the same one without its last byte.
pub fn cases(keys: &KeySet) -> Result<Vec<(String, Vec<u8>)>> {
    let key = &keys.publisher.key;
    let (message, context) = ([7; 80], Domain::Manifest.context());
    let signature = key.sign(Domain::Manifest, &message)?;
    let short = signature.split_last().context("no signature")?.1;
    let encoded = bench::CASES.iter().zip([&signature[..], short]).map(|(name, signature)| {
        let algorithm = key.algorithm();
        let case = VerifyCase { algorithm, key: key.public_bytes(), context, message: &message, signature };
        let header = case.header().context("a signature of 4 GiB")?;
        Ok((name.to_string(), [header.as_bytes(), &case.parts().concat()].concat()))
    });
    encoded.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_what_it_should_be() {
        let code = code();
        assert_eq!(&code[..2], [0x48, 0xb8]);
        assert_eq!(&code[code.len() - 6..], [0x0f, 0x05, 0xf3, 0x90, 0xeb, 0xfc]);
        assert_eq!(code.len(), 10 + 5 + 6 + 10 + 6);
        assert_eq!(PAGES.iter().sum::<usize>() + 1, 9);
    }
}
