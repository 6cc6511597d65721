//! DeepCompression: bounded decompression of one zstd frame into a Region of exactly the declared size
//! (specification 5.1: `SILA_DeepDecompress_Request_Record`).

use super::wire::service_errors;

/// `Submit`: a [`Submit`]; capabilities: 0 the source Region (READ), 1 the output Region (READ, WRITE), 2 the
/// Notification (SEND) that is signalled when the job is done. Success: word 0 the job.
pub const SUBMIT: u32 = 1;
/// `Collect`: word 0 the job. Success means that the output is complete and that DeepCompression has unmapped it and
/// dropped every capability of the job. A failed job is reported in the same way, and is gone as well.
/// [`DecompressionError::NotReady`]: wait for the signal.
pub const COLLECT: u32 = 2;
/// `Cancel`: word 0 the job; it is dropped as soon as the worker lets go of it.
pub const CANCEL: u32 = 3;

/// Words of a [`Submit`].
pub const SUBMIT_WORDS: usize = 6;

/// What to decompress: word 0 offset of the payload in the source Region in bytes, 1 its length, 2 the exact size of
/// the content, 3 the flags to signal, 4 the queue (0 foreground, 1 background), 5 the largest window as a power of
/// two (DeepCompression's own limit holds as well). The output starts at the beginning of the output Region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Submit {
    /// Byte offset of the payload in the source Region.
    pub offset: u64,
    /// Bytes of the payload.
    pub len: u64,
    /// Bytes of the content.
    pub output_len: u64,
    /// Flags for the Notification.
    pub flags: u64,
    /// A prefetch, which waits as long as there is real work.
    pub background: bool,
    /// The largest window that the frame may declare, as a power of two.
    pub max_window_log: u8,
}

impl Submit {
    /// The request in words.
    pub const fn to_words(&self) -> [u64; SUBMIT_WORDS] {
        [
            self.offset,
            self.len,
            self.output_len,
            self.flags,
            self.background as u64,
            self.max_window_log as u64,
        ]
    }

    /// The request from words.
    pub fn from_words(words: &[u64]) -> Option<Self> {
        let &[offset, len, output_len, flags, queue, window] = words.first_chunk::<SUBMIT_WORDS>()?;
        let background = match queue {
            0 => false,
            1 => true,
            _ => return None,
        };
        offset.checked_add(len)?;
        let max_window_log = u8::try_from(window).ok()?;
        Some(Self { offset, len, output_len, flags, background, max_window_log })
    }
}

service_errors! {
    /// Why a payload or a request was refused. 1 to 99: the payload; 100 to 199: the queue; 200 up: the request.
    DecompressionError {
        EmptyInput = 1, "the compressed payload is empty";
        InputTooLarge = 2, "the compressed payload is larger than the limit";
        OutputTooLarge = 3, "the decompressed size is larger than the limit";
        BadMagic = 4, "the payload is not a zstd frame";
        SkippableFrame = 5, "the payload starts with a skippable frame";
        UnsupportedHeader = 6, "the zstd frame header has reserved bits set";
        DictionaryRefused = 7, "the zstd frame wants a dictionary";
        MissingChecksum = 8, "the zstd frame has no content checksum";
        MissingContentSize = 9, "the zstd frame does not declare its content size";
        ContentSizeMismatch = 10, "the zstd frame declares another size than the manifest";
        WindowTooLarge = 11, "the zstd frame's window is larger than the limit";
        Truncated = 12, "the compressed payload is truncated";
        TrailingBytes = 13, "bytes follow the zstd frame";
        Corrupt = 14, "the compressed payload is corrupt";
        ChecksumMismatch = 15, "the content checksum does not match";
        WrongSize = 16, "the payload decompresses to another size than declared";
        OutOfMemory = 17, "no memory for the decoder";
        Internal = 18, "the decoder failed unexpectedly";
        Busy = 101, "the decompression queue is full";
        ClientLimit = 102, "this client has too many decompression jobs";
        InputSize = 103, "the compressed payload is empty or too large";
        OutputSize = 104, "the destination is too large";
        NoSuchJob = 105, "there is no such decompression job";
        NotReady = 106, "the decompression job is not done yet";
        NotRunning = 107, "the worker reported a job that does not run";
        IdsExhausted = 108, "no decompression job numbers are left";
        UnknownRequest = 201, "DeepCompression has no such request";
        Malformed = 202, "the request to DeepCompression is malformed";
        MissingCapability = 203, "a job needs a source Region, an output Region and a Notification";
        RegionTooSmall = 204, "the payload or the content does not fit its Region";
        Kernel = 205, "the kernel refused an operation that DeepCompression needs (word 0 names the error)";
        WorkerLost = 206, "the decompression worker does not answer";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn submit_round_trips_and_refuses_wrapping_ranges() {
        let submit = Submit {
            offset: 4096,
            len: 77,
            output_len: 8192,
            flags: 1 << 40,
            background: true,
            max_window_log: 23,
        };
        assert_eq!(Submit::from_words(&submit.to_words()), Some(submit));
        assert_eq!(Submit::from_words(&[u64::MAX, 1, 1, 1, 0, 23]), None);
        assert_eq!(Submit::from_words(&[0, 1, 1, 1, 2, 23]), None);
        assert_eq!(Submit::from_words(&[0, 1, 1, 1, 0, 256]), None);
        assert_eq!(Submit::from_words(&[0, 1, 1, 1, 0]), None);
    }

    #[test]
    fn decompression_error_numbers_round_trip() {
        for &e in DecompressionError::ALL {
            assert_eq!(DecompressionError::from_number(e.number()), Some(e));
        }
    }
}
