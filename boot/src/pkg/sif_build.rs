//! From an ELF file to a SIF image.
//!
//! Only program headers count: `p_flags` say what a page allows (section flags are not looked at). The result is
//! checked by the same parser that the kernel uses.

use anyhow::{Context, Result, anyhow, bail};
use object::elf::{PF_W, PF_X, PT_DYNAMIC, PT_INTERP, PT_LOAD};
use object::read::elf::{ElfFile64, FileHeader, ProgramHeader};
use sila_abi::sif::{ABI_VERSION, MAX_SEGMENTS, PAGE_SIZE, Perm, RawSegment, SIF_MAGIC, Sif, SifHeader};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromZeros, IntoBytes};

/// One segment to be placed in an image.
#[derive(Clone, Debug)]
pub struct SegmentInput {
    /// Address in the process.
    pub vaddr: u64,
    /// Bytes in memory.
    pub mem_len: u64,
    /// What the pages allow.
    pub perm: Perm,
    /// The file part.
    pub data: Vec<u8>,
}

/// Turns a static, page-aligned ELF file into an image.
pub fn elf_to_sif(elf: &[u8]) -> Result<Vec<u8>> {
    let (entry, segments) = elf_segments(elf)?;
    build(entry, &segments)
}

/// Entry and segments of a static, page-aligned ELF file.
pub fn elf_segments(elf: &[u8]) -> Result<(u64, Vec<SegmentInput>)> {
    let file = ElfFile64::<object::Endianness>::parse(elf).context("not a 64-bit ELF file")?;
    let endian = file.endian();
    let mut segments = Vec::new();
    for header in file.elf_program_headers() {
        match header.p_type(endian) {
            PT_INTERP | PT_DYNAMIC => {
                bail!("the program is not static (link without -pie and without libraries)")
            }
            PT_LOAD if header.p_memsz(endian) > 0 => {
                let data =
                    header.data(endian, elf).map_err(|()| anyhow!("a segment reaches beyond the file"))?;
                segments.push(SegmentInput {
                    vaddr: header.p_vaddr(endian),
                    mem_len: header.p_memsz(endian),
                    perm: perm_of(header.p_flags(endian))?,
                    data: data.to_vec(),
                });
            }
            _ => {}
        }
    }
    segments.sort_by_key(|segment| segment.vaddr);
    Ok((file.elf_header().e_entry(endian), segments))
}

fn perm_of(flags: object::elf::ProgramFlags) -> Result<Perm> {
    match (flags.contains(PF_W), flags.contains(PF_X)) {
        (true, true) => bail!("a segment is writable and executable"),
        (false, true) => Ok(Perm::RX),
        (true, false) => Ok(Perm::RW),
        (false, false) => Ok(Perm::R),
    }
}

/// Lays out an image, fills its padding with zeros and checks it.
pub fn build(entry: u64, segments: &[SegmentInput]) -> Result<Vec<u8>> {
    if segments.len() > MAX_SEGMENTS {
        bail!("{} segments are more than the {MAX_SEGMENTS} of an image", segments.len());
    }
    let mut header = SifHeader::new_zeroed();
    let mut image = vec![0; PAGE_SIZE as usize];
    for (slot, segment) in header.segments.iter_mut().zip(segments) {
        let file_off = if segment.data.is_empty() { 0 } else { image.len() as u64 };
        *slot = RawSegment {
            vaddr: U64::new(segment.vaddr),
            mem_len: U64::new(segment.mem_len),
            file_off: U64::new(file_off),
            file_len: U64::new(segment.data.len() as u64),
            perm: U32::new(segment.perm.bits()),
            reserved: U32::ZERO,
        };
        image.extend_from_slice(&segment.data);
        image.resize(image.len().next_multiple_of(PAGE_SIZE as usize), 0);
    }
    header.magic = SIF_MAGIC;
    header.abi_version = U32::new(ABI_VERSION);
    header.seg_count = U32::new(u32::try_from(segments.len())?);
    header.image_len = U64::new(image.len() as u64);
    header.entry = U64::new(entry);
    image[..PAGE_SIZE as usize].copy_from_slice(header.as_bytes());
    check(&image)?;
    Ok(image)
}

/// Checks an image as the kernel does, and that its padding is zero.
pub fn check(image: &[u8]) -> Result<Sif> {
    let page = image.get(..PAGE_SIZE as usize).context("the image is shorter than its header")?;
    let sif = SifHeader::parse(page, image.len() as u64)?;
    for segment in sif.segments().iter().filter(|s| s.file_len > 0) {
        let start = usize::try_from(segment.file_off + segment.file_len)?;
        let end = usize::try_from(segment.file_off + segment.file_page_count() * PAGE_SIZE)?;
        if image.get(start..end).is_none_or(|padding| padding.iter().any(|&b| b != 0)) {
            bail!("the padding after the segment at {:#x} is not zero", segment.vaddr);
        }
    }
    Ok(sif)
}
