//! One compressed frame in, exactly the declared content out, or one named reason why not.
//!
//! Decompression is one-shot into a destination of the exact size, so no window is allocated and no
//! input can make the process allocate more than the decoder's fixed context (about 96 KB).

use core::fmt;

use zstd_safe::zstd_sys::ZSTD_ErrorCode as Code;

use crate::frame;

/// Bounds on one job. Those in the signed policy may be tighter; these are the service's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most compressed bytes that one job may have.
    pub max_input: u64,
    /// The most decompressed bytes that one job may ask for.
    pub max_output: u64,
    /// The largest window that a frame may declare (level 19 uses up to 8 MiB).
    pub max_window: u64,
}

impl Limits {
    /// 64 MiB in, 64 MiB out, a window of 8 MiB.
    pub const DEFAULT: Limits = Limits { max_input: 64 << 20, max_output: 64 << 20, max_window: 8 << 20 };
}

impl Limits {
    /// These limits, with a window of at most so much, as a power of two.
    #[must_use]
    pub fn with_window(self, log: u8) -> Limits {
        let wished = 1u64.checked_shl(log.into()).unwrap_or(u64::MAX);
        Limits { max_window: self.max_window.min(wished), ..self }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Why a payload was refused. The numbers are stable: they cross process boundaries and stand in audit records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum DecompressError {
    /// There are no bytes at all (zstd itself would call that a success).
    EmptyInput = 1,
    /// The compressed payload is larger than the limit.
    InputTooLarge = 2,
    /// The declared size is larger than the limit.
    OutputTooLarge = 3,
    /// The payload does not start with zstd's magic number.
    BadMagic = 4,
    /// The payload starts with a skippable frame.
    SkippableFrame = 5,
    /// Bits are set in the frame header that no encoder sets.
    UnsupportedHeader = 6,
    /// The frame names a dictionary.
    DictionaryRefused = 7,
    /// The frame has no content checksum.
    MissingChecksum = 8,
    /// The frame does not declare its content's size.
    MissingContentSize = 9,
    /// The frame declares another size than the one asked for.
    ContentSizeMismatch = 10,
    /// The frame declares a window above the limit.
    WindowTooLarge = 11,
    /// The payload ends inside the frame.
    Truncated = 12,
    /// Bytes follow the frame: another frame, or anything else.
    TrailingBytes = 13,
    /// The frame's structure or its compressed data are damaged.
    Corrupt = 14,
    /// The content came out whole and its checksum does not match.
    ChecksumMismatch = 15,
    /// The data decompress to another size than the frame declares.
    WrongSize = 16,
    /// The decoder's own context could not be allocated.
    OutOfMemory = 17,
    /// The decoder failed in a way that it should not; its own code is not passed on.
    Internal = 18,
}

impl DecompressError {
    /// Every error, in the order of their numbers.
    pub const ALL: [DecompressError; 18] = [
        Self::EmptyInput,
        Self::InputTooLarge,
        Self::OutputTooLarge,
        Self::BadMagic,
        Self::SkippableFrame,
        Self::UnsupportedHeader,
        Self::DictionaryRefused,
        Self::MissingChecksum,
        Self::MissingContentSize,
        Self::ContentSizeMismatch,
        Self::WindowTooLarge,
        Self::Truncated,
        Self::TrailingBytes,
        Self::Corrupt,
        Self::ChecksumMismatch,
        Self::WrongSize,
        Self::OutOfMemory,
        Self::Internal,
    ];

    /// The stable number of this error.
    #[must_use]
    pub const fn code(self) -> u16 {
        self as u16
    }

    /// The error with this number.
    #[must_use]
    pub fn from_code(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|error| error.code() == code)
    }

    /// What happened, as the end of a sentence.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::EmptyInput => "the compressed payload is empty",
            Self::InputTooLarge => "the compressed payload is larger than the limit",
            Self::OutputTooLarge => "the decompressed size is larger than the limit",
            Self::BadMagic => "the payload is not a zstd frame",
            Self::SkippableFrame => "the payload starts with a skippable frame",
            Self::UnsupportedHeader => "the zstd frame header has reserved bits set",
            Self::DictionaryRefused => "the zstd frame wants a dictionary",
            Self::MissingChecksum => "the zstd frame has no content checksum",
            Self::MissingContentSize => "the zstd frame does not declare its content size",
            Self::ContentSizeMismatch => "the zstd frame declares another size than the manifest",
            Self::WindowTooLarge => "the zstd frame's window is larger than the limit",
            Self::Truncated => "the compressed payload is truncated",
            Self::TrailingBytes => "bytes follow the zstd frame",
            Self::Corrupt => "the compressed payload is corrupt",
            Self::ChecksumMismatch => "the content checksum does not match",
            Self::WrongSize => "the payload decompresses to another size than declared",
            Self::OutOfMemory => "no memory for the decoder",
            Self::Internal => "the decoder failed unexpectedly",
        }
    }
}

impl fmt::Display for DecompressError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.describe())
    }
}

impl core::error::Error for DecompressError {}

/// Decompresses the one frame that `src` is into `dst`, whose length must be the frame's content size.
///
/// The frame must declare that size, carry a checksum, name no dictionary, keep to the window limit, and
/// end where `src` ends. The header and the block structure are inspected before anything is decompressed.
/// After an error `dst` is all zero: no caller can use half of a result.
///
/// # Errors
/// One [`DecompressError`] for each way to fail.
pub fn decompress_exact(src: &[u8], dst: &mut [u8], limits: &Limits) -> Result<(), DecompressError> {
    let result = try_decompress(src, dst, limits);
    if result.is_err() {
        dst.fill(0);
    }
    result
}

fn try_decompress(src: &[u8], dst: &mut [u8], limits: &Limits) -> Result<(), DecompressError> {
    frame::inspect(src, dst.len() as u64, limits)?;
    let mut context = zstd_safe::DCtx::try_create().ok_or(DecompressError::OutOfMemory)?;
    match context.decompress(dst, src) {
        Ok(written) if written == dst.len() => Ok(()),
        Ok(_) => Err(DecompressError::WrongSize),
        Err(code) => Err(classify(code)),
    }
}

/// Our error for one of zstd's. What the inspection has ruled out is `Corrupt` if it comes all the same.
fn classify(code: usize) -> DecompressError {
    const KINDS: [(Code, DecompressError); 9] = [
        (Code::ZSTD_error_checksum_wrong, DecompressError::ChecksumMismatch),
        (Code::ZSTD_error_dstSize_tooSmall, DecompressError::WrongSize),
        (Code::ZSTD_error_memory_allocation, DecompressError::OutOfMemory),
        (Code::ZSTD_error_srcSize_wrong, DecompressError::Truncated),
        (Code::ZSTD_error_frameParameter_windowTooLarge, DecompressError::WindowTooLarge),
        (Code::ZSTD_error_dictionary_wrong, DecompressError::DictionaryRefused),
        (Code::ZSTD_error_GENERIC, DecompressError::Internal),
        (Code::ZSTD_error_stage_wrong, DecompressError::Internal),
        (Code::ZSTD_error_init_missing, DecompressError::Internal),
    ];
    KINDS
        .into_iter()
        .find(|(kind, _)| zstd_safe::is_error_kind(code, *kind))
        .map_or(DecompressError::Corrupt, |(_, error)| error)
}
