//! SIF, the image format that the kernel runs (the book, Trust, "Image").
//!
//! An image is a whole number of 4096-byte pages. Page 0 is the [`SifHeader`]; the file parts of the segments
//! follow without gap, each beginning on a page. All integers are little-endian.
//!
//! Bytes between the end of a segment's file part and the end of its page are zero. The kernel need not
//! look at them (the image's signature covers them, and R and RX pages are mapped from the very frames that were
//! hashed; of RW segments only `file_len` bytes are copied), but the host tool writes zeros and refuses others.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The ABI version that this crate defines; every image header carries the one it was built for.
pub const ABI_VERSION: u32 = 1;
/// Bytes of a page, and of the SIF header.
pub const PAGE_SIZE: u64 = 4096;
/// First bytes of every image.
pub const SIF_MAGIC: [u8; 8] = *b"SILASIF1";
/// The most segments an image has.
pub const MAX_SEGMENTS: usize = 8;
/// Lowest address a segment may occupy.
pub const USER_WINDOW_START: u64 = 0x0010_0000;
/// First address above the window that segments may occupy.
pub const USER_WINDOW_END: u64 = 0x0000_7000_0000_0000;
/// The longest image, header included, in bytes.
pub const MAX_IMAGE_LEN: u64 = 64 << 20;

const RESERVED_LEN: usize = 4096 - 32 - MAX_SEGMENTS * 40;

/// What a segment's pages allow. Writable and executable together cannot be expressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Perm {
    /// Read only: constants. Encoded as 1.
    R = 1,
    /// Read and write: data and bss, copied for each process. Encoded as 3.
    RW = 3,
    /// Read and execute: code. Encoded as 5.
    RX = 5,
}

impl Perm {
    /// The encoded form: bit 0 read, bit 1 write, bit 2 execute.
    pub const fn bits(self) -> u32 {
        self as u32
    }

    /// The inverse of [`Self::bits`].
    pub const fn from_bits(bits: u32) -> Result<Self, SifError> {
        match bits {
            1 => Ok(Self::R),
            3 => Ok(Self::RW),
            5 => Ok(Self::RX),
            b if b & 6 == 6 => Err(SifError::WritableAndExecutable),
            _ => Err(SifError::BadPermission),
        }
    }
}

/// One segment as it stands in the header (40 bytes).
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RawSegment {
    /// Address in the process; a multiple of 4096.
    pub vaddr: U64,
    /// Bytes occupied in memory; at least 1.
    pub mem_len: U64,
    /// Offset of the file part in the image; a multiple of 4096; 0 if there is none.
    pub file_off: U64,
    /// Bytes of the file part; equal to `mem_len` but for RW segments.
    pub file_len: U64,
    /// [`Perm::bits`].
    pub perm: U32,
    /// Zero.
    pub reserved: U32,
}

/// Page 0 of an image (4096 bytes).
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct SifHeader {
    /// [`SIF_MAGIC`].
    pub magic: [u8; 8],
    /// [`ABI_VERSION`] of the image's builder.
    pub abi_version: U32,
    /// Segments in use, 1 to [`MAX_SEGMENTS`].
    pub seg_count: U32,
    /// Bytes of the whole image, this page included.
    pub image_len: U64,
    /// Address of the first instruction.
    pub entry: U64,
    /// The segments, by rising `vaddr`; unused ones are all zero.
    pub segments: [RawSegment; MAX_SEGMENTS],
    /// Zero.
    pub reserved: [u8; RESERVED_LEN],
}

const _: () = assert!(size_of::<SifHeader>() == 4096);

/// A segment that passed every check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Address in the process; page aligned.
    pub vaddr: u64,
    /// Bytes in memory, at least 1.
    pub mem_len: u64,
    /// Offset in the image; page aligned.
    pub file_off: u64,
    /// Bytes that come from the image.
    pub file_len: u64,
    /// What the pages allow.
    pub perm: Perm,
}

/// One page of a segment, from [`Segment::pages`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentPage {
    /// Address in the process.
    pub vaddr: u64,
    /// Offset of the page in the image, if at least one of its bytes comes from there.
    pub file_off: Option<u64>,
    /// Bytes that come from the image (0 to 4096); the others of the page are zero.
    pub file_len: u64,
}

impl Segment {
    /// Pages in memory.
    pub const fn page_count(&self) -> u64 {
        self.mem_len.div_ceil(PAGE_SIZE)
    }

    /// Pages that take at least one byte from the image.
    pub const fn file_page_count(&self) -> u64 {
        self.file_len.div_ceil(PAGE_SIZE)
    }

    /// First address above the segment's pages.
    pub const fn end_page(&self) -> u64 {
        self.vaddr + self.page_count() * PAGE_SIZE
    }

    /// Whether `addr` lies in the part that comes from the image.
    pub const fn file_part_contains(&self, addr: u64) -> bool {
        addr >= self.vaddr && addr - self.vaddr < self.file_len
    }

    /// The pages in rising order.
    pub fn pages(&self) -> impl ExactSizeIterator<Item = SegmentPage> + '_ {
        // The page count of a checked segment is below 2^35, so the cast loses nothing on 64-bit machines.
        (0..self.page_count() as usize).map(move |index| {
            let off = index as u64 * PAGE_SIZE;
            let file_len = self.file_len.saturating_sub(off).min(PAGE_SIZE);
            SegmentPage {
                vaddr: self.vaddr + off,
                file_off: if file_len > 0 { Some(self.file_off + off) } else { None },
                file_len,
            }
        })
    }
}

/// A header that passed every check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sif {
    entry: u64,
    image_len: u64,
    segments: [Segment; MAX_SEGMENTS],
    count: usize,
}

/// Why a page is no valid image header. Each check has its own variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SifError {
    /// The page given is not 4096 bytes long.
    HeaderLength,
    /// The first bytes are not [`SIF_MAGIC`].
    BadMagic,
    /// Built for another ABI version.
    AbiVersion,
    /// A reserved field is not zero.
    ReservedNotZero,
    /// The header's `image_len` is not the length of the image given.
    ImageLength,
    /// `image_len` is not a whole number of pages.
    ImageNotPages,
    /// Longer than [`MAX_IMAGE_LEN`].
    ImageTooLong,
    /// No segment.
    NoSegments,
    /// More than [`MAX_SEGMENTS`] segments.
    TooManySegments,
    /// A segment beyond `seg_count` is not all zero.
    UnusedNotZero,
    /// A segment is both writable and executable.
    WritableAndExecutable,
    /// A permission that is none of R, RW, RX.
    BadPermission,
    /// A segment without memory.
    EmptySegment,
    /// `vaddr` is not page aligned.
    VaddrUnaligned,
    /// `file_off` is not page aligned.
    FileUnaligned,
    /// A segment reaches outside the user window, or wraps.
    OutsideWindow,
    /// `file_len` exceeds `mem_len`.
    FileExceedsMemory,
    /// Memory beyond the file part in a segment that is not RW.
    BssNotWritable,
    /// `file_off` is not 0 though there is no file part.
    FileOffWithoutFile,
    /// A file part reaches outside the image, or wraps.
    FileOutsideImage,
    /// A segment begins below its predecessor.
    Unsorted,
    /// Two segments share a page of memory.
    VaddrOverlap,
    /// Two file parts share a page, or one covers the header.
    FileOverlap,
    /// Pages of the image that belong to no segment.
    FileGap,
    /// No RX segment.
    NoCode,
    /// The entry is not in the file part of an RX segment.
    EntryOutsideCode,
}

impl SifError {
    /// Every rule, in order of number.
    pub const ALL: &'static [Self] = &[
        Self::HeaderLength,
        Self::BadMagic,
        Self::AbiVersion,
        Self::ReservedNotZero,
        Self::ImageLength,
        Self::ImageNotPages,
        Self::ImageTooLong,
        Self::NoSegments,
        Self::TooManySegments,
        Self::UnusedNotZero,
        Self::WritableAndExecutable,
        Self::BadPermission,
        Self::EmptySegment,
        Self::VaddrUnaligned,
        Self::FileUnaligned,
        Self::OutsideWindow,
        Self::FileExceedsMemory,
        Self::BssNotWritable,
        Self::FileOffWithoutFile,
        Self::FileOutsideImage,
        Self::Unsorted,
        Self::VaddrOverlap,
        Self::FileOverlap,
        Self::FileGap,
        Self::NoCode,
        Self::EntryOutsideCode,
    ];
}

impl core::fmt::Display for SifError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::HeaderLength => "the image header is not one page",
            Self::BadMagic => "not a SIF image",
            Self::AbiVersion => "the image was built for another ABI version",
            Self::ReservedNotZero => "a reserved field of the image header is not zero",
            Self::ImageLength => "the image's declared length is not its real length",
            Self::ImageNotPages => "the image is not a whole number of pages",
            Self::ImageTooLong => "the image is too long",
            Self::NoSegments => "the image has no segments",
            Self::TooManySegments => "the image has more than 8 segments",
            Self::UnusedNotZero => "an unused segment is not zero",
            Self::WritableAndExecutable => "a segment is writable and executable",
            Self::BadPermission => "a segment has an unknown permission",
            Self::EmptySegment => "a segment is empty",
            Self::VaddrUnaligned => "a segment's address is not page aligned",
            Self::FileUnaligned => "a segment's file offset is not page aligned",
            Self::OutsideWindow => "a segment lies outside the user window",
            Self::FileExceedsMemory => "a segment's file part is longer than its memory",
            Self::BssNotWritable => "a read-only segment is longer than its file part",
            Self::FileOffWithoutFile => "a segment without file part has a file offset",
            Self::FileOutsideImage => "a segment's file part lies outside the image",
            Self::Unsorted => "the segments are not sorted",
            Self::VaddrOverlap => "two segments overlap in memory",
            Self::FileOverlap => "two segments overlap in the image",
            Self::FileGap => "the image has bytes that belong to no segment",
            Self::NoCode => "the image has no code",
            Self::EntryOutsideCode => "the entry is outside the code",
        })
    }
}

impl core::error::Error for SifError {}

impl SifHeader {
    /// Checks page 0 of an image of `image_len` bytes. Total: any bytes give an answer, none a panic.
    pub fn parse(page: &[u8], image_len: u64) -> Result<Sif, SifError> {
        let header = Self::ref_from_bytes(page).map_err(|_| SifError::HeaderLength)?;
        header.check_fixed(image_len)?;
        let count = header.seg_count.get() as usize;
        let mut sif = Sif { entry: header.entry.get(), image_len, segments: [UNUSED; MAX_SEGMENTS], count };
        let mut layout = Layout { min_vaddr: 0, last_vaddr: 0, next_file: PAGE_SIZE, image_len };
        for (raw, slot) in header.segments.iter().zip(&mut sif.segments).take(count) {
            *slot = raw.check(&mut layout)?;
        }
        if layout.next_file != image_len {
            return Err(SifError::FileGap);
        }
        sif.check_entry()?;
        Ok(sif)
    }

    fn check_fixed(&self, image_len: u64) -> Result<(), SifError> {
        let count = self.seg_count.get() as usize;
        let unused = self.segments.get(count..).unwrap_or_default();
        let checks = [
            (self.magic != SIF_MAGIC, SifError::BadMagic),
            (self.abi_version.get() != ABI_VERSION, SifError::AbiVersion),
            (self.reserved.iter().any(|&b| b != 0), SifError::ReservedNotZero),
            (self.image_len.get() != image_len, SifError::ImageLength),
            (!image_len.is_multiple_of(PAGE_SIZE), SifError::ImageNotPages),
            (image_len > MAX_IMAGE_LEN, SifError::ImageTooLong),
            (count == 0, SifError::NoSegments),
            (count > MAX_SEGMENTS, SifError::TooManySegments),
            (unused.as_bytes().iter().any(|&b| b != 0), SifError::UnusedNotZero),
        ];
        checks.into_iter().find(|(bad, _)| *bad).map_or(Ok(()), |(_, error)| Err(error))
    }
}

const UNUSED: Segment = Segment { vaddr: 0, mem_len: 0, file_off: 0, file_len: 0, perm: Perm::R };

/// Where the next segment may begin.
struct Layout {
    min_vaddr: u64,
    last_vaddr: u64,
    next_file: u64,
    image_len: u64,
}

impl RawSegment {
    fn check(&self, layout: &mut Layout) -> Result<Segment, SifError> {
        let segment = Segment {
            vaddr: self.vaddr.get(),
            mem_len: self.mem_len.get(),
            file_off: self.file_off.get(),
            file_len: self.file_len.get(),
            perm: Perm::from_bits(self.perm.get())?,
        };
        if self.reserved.get() != 0 {
            return Err(SifError::ReservedNotZero);
        }
        segment.check_memory(layout)?;
        segment.check_file(layout)?;
        Ok(segment)
    }
}

impl Segment {
    fn check_memory(&self, layout: &mut Layout) -> Result<(), SifError> {
        if self.mem_len == 0 {
            return Err(SifError::EmptySegment);
        }
        if !self.vaddr.is_multiple_of(PAGE_SIZE) {
            return Err(SifError::VaddrUnaligned);
        }
        let end =
            self.vaddr.checked_add(self.mem_len).and_then(|end| end.checked_next_multiple_of(PAGE_SIZE));
        let end = end.filter(|&end| self.vaddr >= USER_WINDOW_START && end <= USER_WINDOW_END);
        let end = end.ok_or(SifError::OutsideWindow)?;
        if self.vaddr < layout.last_vaddr {
            return Err(SifError::Unsorted);
        }
        if self.vaddr < layout.min_vaddr {
            return Err(SifError::VaddrOverlap);
        }
        layout.last_vaddr = self.vaddr;
        layout.min_vaddr = end;
        Ok(())
    }

    fn check_file(&self, layout: &mut Layout) -> Result<(), SifError> {
        if !self.file_off.is_multiple_of(PAGE_SIZE) {
            return Err(SifError::FileUnaligned);
        }
        if self.file_len > self.mem_len {
            return Err(SifError::FileExceedsMemory);
        }
        if self.file_len < self.mem_len && self.perm != Perm::RW {
            return Err(SifError::BssNotWritable);
        }
        if self.file_len == 0 {
            return if self.file_off == 0 { Ok(()) } else { Err(SifError::FileOffWithoutFile) };
        }
        let end = self.file_off.checked_add(self.file_len);
        let end = end.and_then(|end| end.checked_next_multiple_of(PAGE_SIZE));
        let end = end.filter(|&end| end <= layout.image_len).ok_or(SifError::FileOutsideImage)?;
        if self.file_off < layout.next_file {
            return Err(SifError::FileOverlap);
        }
        if self.file_off > layout.next_file {
            return Err(SifError::FileGap);
        }
        layout.next_file = end;
        Ok(())
    }
}

impl Sif {
    /// Address of the first instruction; inside the file part of an RX segment.
    pub const fn entry(&self) -> u64 {
        self.entry
    }

    /// Bytes of the whole image.
    pub const fn image_len(&self) -> u64 {
        self.image_len
    }

    /// The segments by rising address.
    pub fn segments(&self) -> &[Segment] {
        self.segments.get(..self.count).unwrap_or_default()
    }

    /// Pages that a process needs of its own: those of RW segments.
    pub fn private_pages(&self) -> u64 {
        self.segments().iter().filter(|s| s.perm == Perm::RW).map(Segment::page_count).sum()
    }

    fn check_entry(&self) -> Result<(), SifError> {
        let mut code = self.segments().iter().filter(|s| s.perm == Perm::RX).peekable();
        if code.peek().is_none() {
            return Err(SifError::NoCode);
        }
        if code.any(|s| s.file_part_contains(self.entry)) { Ok(()) } else { Err(SifError::EntryOutsideCode) }
    }
}
