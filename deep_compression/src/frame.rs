//! Reading a zstd frame's header and block structure, before any of it is decompressed (RFC 8878, 3.1.1).
//!
//! Nothing here allocates or trusts a length: the frame is walked block by block with checked
//! arithmetic, so that its exact end is known before the decoder sees the first byte.

use crate::engine::{DecompressError, Limits};

/// The first four bytes of a zstd frame, little endian.
pub const FRAME_MAGIC: u32 = 0xFD2F_B528;
/// Skippable frames have the magic numbers `0x184D2A50` to `0x184D2A5F`.
const SKIPPABLE_MAGIC: u32 = 0x184D_2A50;
/// Bytes of the content checksum after the last block.
const CHECKSUM_LEN: usize = 4;
/// Bytes of a block header.
const BLOCK_HEADER_LEN: usize = 3;
/// No block may be larger than this, however large the window.
const BLOCK_MAX: u64 = 128 * 1024;

/// What a frame's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Bytes of the header itself, magic number included.
    pub header_len: usize,
    /// The declared size of the decompressed content.
    pub content_size: Option<u64>,
    /// The window that a streaming decoder would need.
    pub window_size: u64,
    /// Whether a checksum of the content follows the last block.
    pub checksum: bool,
    /// Whether the header has a dictionary id field.
    pub dictionary: bool,
}

/// A cursor over the input whose every read is checked.
struct Cursor<'a> {
    rest: &'a [u8],
    taken: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], DecompressError> {
        let (head, tail) = self.rest.split_at_checked(len).ok_or(DecompressError::Truncated)?;
        self.rest = tail;
        self.taken = self.taken.saturating_add(len);
        Ok(head)
    }

    /// A little-endian number of up to eight bytes.
    fn number(&mut self, len: usize) -> Result<u64, DecompressError> {
        let bytes = self.take(len)?;
        Ok(bytes.iter().rev().fold(0u64, |value, byte| (value << 8) | u64::from(*byte)))
    }
}

/// Reads the header at the start of `src`. Says nothing about whether its values are acceptable.
///
/// # Errors
/// `EmptyInput`, `Truncated`, `SkippableFrame`, `BadMagic` or `UnsupportedHeader`.
pub fn read_header(src: &[u8]) -> Result<FrameHeader, DecompressError> {
    if src.is_empty() {
        return Err(DecompressError::EmptyInput);
    }
    let mut cursor = Cursor { rest: src, taken: 0 };
    let magic = cursor.number(4)?;
    if magic & !0xF == u64::from(SKIPPABLE_MAGIC) {
        return Err(DecompressError::SkippableFrame);
    }
    if magic != u64::from(FRAME_MAGIC) {
        return Err(DecompressError::BadMagic);
    }
    let descriptor = cursor.number(1)?;
    let single_segment = descriptor & 0x20 != 0;
    if descriptor & 0x18 != 0 {
        // Bit 3 is reserved, bit 4 unused: no encoder sets them, and one encoding is enough.
        return Err(DecompressError::UnsupportedHeader);
    }
    let mut window_size = 0;
    if !single_segment {
        let window = cursor.number(1)?;
        let base = 1u64 << (10 + (window >> 3));
        window_size = base + (base >> 3) * (window & 7);
    }
    let id_len = [0, 1, 2, 4][usize::from((descriptor & 3) as u8)];
    cursor.take(id_len)?;
    let content_size = match (descriptor >> 6, single_segment) {
        (0, false) => None,
        (0, true) => Some(cursor.number(1)?),
        (1, _) => Some(cursor.number(2)? + 256),
        (2, _) => Some(cursor.number(4)?),
        _ => Some(cursor.number(8)?),
    };
    if single_segment {
        window_size = content_size.unwrap_or(0);
    }
    Ok(FrameHeader {
        header_len: cursor.taken,
        content_size,
        window_size,
        checksum: descriptor & 4 != 0,
        dictionary: id_len != 0,
    })
}

/// The length of the frame at the start of `src`: header, blocks and checksum, found without decompressing.
///
/// # Errors
/// `Truncated`, or `Corrupt` for a block of the reserved type or beyond the block size limit.
pub fn frame_len(src: &[u8], header: &FrameHeader) -> Result<usize, DecompressError> {
    let mut cursor = Cursor { rest: src, taken: 0 };
    cursor.take(header.header_len)?;
    let block_max = header.window_size.min(BLOCK_MAX);
    loop {
        let block = cursor.number(BLOCK_HEADER_LEN)?;
        let last = block & 1 != 0;
        let size = block >> 3;
        if size > block_max {
            return Err(DecompressError::Corrupt);
        }
        let stored = match (block >> 1) & 3 {
            0 | 2 => size as usize,
            1 => 1,
            _ => return Err(DecompressError::Corrupt),
        };
        cursor.take(stored)?;
        if last {
            break;
        }
    }
    if header.checksum {
        cursor.take(CHECKSUM_LEN)?;
    }
    Ok(cursor.taken)
}

/// Everything that is decided before decompression: one frame, sized, checksummed, bounded, nothing after it.
///
/// # Errors
/// The first refusal that applies, in the order of the checks.
pub fn inspect(src: &[u8], expected_size: u64, limits: &Limits) -> Result<FrameHeader, DecompressError> {
    if src.len() as u64 > limits.max_input {
        return Err(DecompressError::InputTooLarge);
    }
    if expected_size > limits.max_output {
        return Err(DecompressError::OutputTooLarge);
    }
    let header = read_header(src)?;
    if header.dictionary {
        return Err(DecompressError::DictionaryRefused);
    }
    if !header.checksum {
        return Err(DecompressError::MissingChecksum);
    }
    let size = header.content_size.ok_or(DecompressError::MissingContentSize)?;
    if size != expected_size {
        return Err(DecompressError::ContentSizeMismatch);
    }
    if header.window_size > limits.max_window {
        return Err(DecompressError::WindowTooLarge);
    }
    let len = frame_len(src, &header)?;
    if len != src.len() {
        return Err(DecompressError::TrailingBytes);
    }
    Ok(header)
}
