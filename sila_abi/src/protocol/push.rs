//! The link over which files are pushed into a running system: a serial port (the book, Agents, "The link").
//!
//! The sender cuts a file into frames and waits after each for a line of text. A frame is a [`FrameHeader`] and up to
//! [`MAX_PAYLOAD`] bytes. Frame 0 is [`BEGIN`] and carries an [`Announcement`]; the frames from 1 on are [`DATA`] and carry
//! the file's bytes in order, all but the last [`MAX_PAYLOAD`] of them.
//!
//! Answers are lines `depot TRANSFER ack N`, `depot TRANSFER nack N REASON` (send frame N again), `depot TRANSFER done
//! SENTENCE` and `depot TRANSFER refused SENTENCE`. A frame that comes twice is answered twice and counts once.
//!
//! A frame of kind [`FLOORS`] belongs to no transfer and disturbs none: it asks for the floor with its number. The answer
//! is `depot TRANSFER floor N CHANGES SEQUENCE PUBLISHER/NAME=V`, or, after the last one, the same without a floor: which
//! change of the KeyRing this holds for, and the sequence of the last signed floor record.

use crate::record::Digest;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// What a frame begins with; no text does.
pub const FRAME_MAGIC: [u8; 4] = *b"\x16\x05SF";
/// The most bytes after a header.
pub const MAX_PAYLOAD: usize = 1024;
/// Bytes of a [`FrameHeader`].
pub const FRAME_HEADER_LEN: usize = 24;
/// Kind of the frame that announces a file.
pub const BEGIN: u8 = 1;
/// Kind of a frame with a part of the file.
pub const DATA: u8 = 2;
/// Kind of the frame that asks for a floor of the running system.
pub const FLOORS: u8 = 3;
/// The longest file that the depot takes.
pub const MAX_FILE: u64 = 4 << 20;
/// The most bytes of an answer, its line end included.
pub const MAX_ANSWER: usize = 512;

/// The fixed front of a frame (24 bytes).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct FrameHeader {
    /// [`FRAME_MAGIC`].
    pub magic: [u8; 4],
    /// [`BEGIN`], [`DATA`] or [`FLOORS`].
    pub kind: u8,
    /// Zero.
    pub reserved: u8,
    /// Bytes that follow, at most [`MAX_PAYLOAD`].
    pub len: U16,
    /// The sender's number for this transfer; another one for the next.
    pub transfer: U32,
    /// The frame's number in the transfer, from 0.
    pub number: U32,
    /// The first 8 bytes of the bulk digest of the 16 bytes before this field and the payload.
    pub check: [u8; 8],
}

/// What [`BEGIN`] carries (40 bytes).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Announcement {
    /// Bytes of the file, 1 to [`MAX_FILE`].
    pub len: U64,
    /// Bulk digest of the file.
    pub digest: Digest,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_have_the_sizes_that_the_link_counts_on() {
        assert_eq!((size_of::<FrameHeader>(), size_of::<Announcement>()), (FRAME_HEADER_LEN, 40));
        assert!(MAX_PAYLOAD <= usize::from(u16::MAX));
        assert!(MAX_FILE.div_ceil(MAX_PAYLOAD as u64) < u64::from(u32::MAX));
    }
}
