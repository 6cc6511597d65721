//! What `TestVerify` checks: a signature with all that belongs to it, as outside test vectors state it.

use core::fmt;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Header of a case (20 bytes, little-endian). Key, context, message and signature follow without gap; what comes behind
/// them belongs to something else.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct VerifyCaseHeader {
    /// Number of the signature scheme.
    pub algorithm: U16,
    /// Zero.
    pub reserved: [u8; 2],
    /// Bytes of the public key.
    pub key_len: U32,
    /// Bytes of the context.
    pub context_len: U32,
    /// Bytes of the message.
    pub message_len: U32,
    /// Bytes of the signature.
    pub signature_len: U32,
}

/// The parts of a case. Each may be of any length, right or wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifyCase<'a> {
    /// Number of the signature scheme.
    pub algorithm: u16,
    /// The public key.
    pub key: &'a [u8],
    /// The context.
    pub context: &'a [u8],
    /// The message.
    pub message: &'a [u8],
    /// The signature.
    pub signature: &'a [u8],
}

/// The bytes end before the case does, or a reserved field is not zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoCase;

impl fmt::Display for NoCase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a signature to be checked")
    }
}

impl core::error::Error for NoCase {}

impl<'a> VerifyCase<'a> {
    /// The case at the front of `bytes`, and what follows it.
    ///
    /// # Errors
    /// [`NoCase`].
    pub fn parse(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), NoCase> {
        let (header, mut rest) = VerifyCaseHeader::ref_from_prefix(bytes).map_err(|_| NoCase)?;
        if header.reserved != [0; 2] {
            return Err(NoCase);
        }
        let mut take = |length: U32| {
            let (part, tail) = rest.split_at_checked(length.get() as usize).ok_or(NoCase)?;
            rest = tail;
            Ok(part)
        };
        let case = Self {
            algorithm: header.algorithm.get(),
            key: take(header.key_len)?,
            context: take(header.context_len)?,
            message: take(header.message_len)?,
            signature: take(header.signature_len)?,
        };
        Ok((case, rest))
    }

    /// The case's header; `None` if a part has 4 GiB or more.
    pub fn header(&self) -> Option<VerifyCaseHeader> {
        let length = |part: &[u8]| u32::try_from(part.len()).ok().map(U32::new);
        Some(VerifyCaseHeader {
            algorithm: U16::new(self.algorithm),
            reserved: [0; 2],
            key_len: length(self.key)?,
            context_len: length(self.context)?,
            message_len: length(self.message)?,
            signature_len: length(self.signature)?,
        })
    }

    /// The parts, in the order in which they follow the header.
    pub const fn parts(&self) -> [&'a [u8]; 4] {
        [self.key, self.context, self.message, self.signature]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    extern crate alloc;

    #[test]
    fn a_case_survives_its_encoding_and_ends_where_it_ends() {
        let case =
            VerifyCase { algorithm: 1, key: b"key", context: b"", message: b"m", signature: b"signed" };
        let mut bytes: Vec<u8> = case.header().unwrap().as_bytes().to_vec();
        case.parts().iter().for_each(|part| bytes.extend_from_slice(part));
        let length = bytes.len();
        bytes.extend_from_slice(b"next");
        assert_eq!(VerifyCase::parse(&bytes), Ok((case, &b"next"[..])));
        for cut in 0..length {
            assert_eq!(VerifyCase::parse(&bytes[..cut]), Err(NoCase), "{cut}");
        }
        for (at, value) in [(2, 1), (4, 0xff), (7, 0xff), (19, 0xff)] {
            let mut other = bytes.clone();
            other[at] = value;
            assert_eq!(VerifyCase::parse(&other), Err(NoCase), "byte {at}");
        }
    }
}
