//! Packages as they are delivered, and the proof that a loader hands the kernel (the book, Trust).
//!
//! ```text
//! package:    PackageHeader | manifest | payload | package_sig | manifest_sig | binary_sig
//! load proof: ProofHeader   | manifest | manifest_sig | binary_sig
//! ```
//!
//! The header is all that is read before a signature is checked. Its key id, algorithm and lengths must equal
//! the manifest's; `sila_crypto::chain` compares them.

use crate::manifest::MANIFEST_MAX;
use crate::record::{Digest, KeyId, NAME_MAX};
use crate::sif::MAX_IMAGE_LEN;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// First bytes of every package.
pub const PACKAGE_MAGIC: [u8; 8] = *b"SILAPKG1";
/// Format number of the package.
pub const PACKAGE_FORMAT: u16 = 1;
/// Bytes of the package header.
pub const PACKAGE_HEADER_LEN: usize = 128;
/// First bytes of every load proof.
pub const PROOF_MAGIC: [u8; 8] = *b"SILAPRF1";
/// Bytes of the load proof's header.
pub const PROOF_HEADER_LEN: usize = 64;
/// The longest signature of any scheme, in bytes.
pub const SIGNATURE_MAX: usize = 64 << 10;
/// The shortest signature: 4096 bits.
pub const SIGNATURE_MIN: usize = 512;
/// The longest payload in bytes.
pub const PAYLOAD_MAX: u64 = MAX_IMAGE_LEN + MAX_IMAGE_LEN / 256 + 64;

/// The fixed header of a package (128 bytes, little-endian).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct PackageHeader {
    /// [`PACKAGE_MAGIC`].
    pub magic: [u8; 8],
    /// [`PACKAGE_FORMAT`].
    pub format: U16,
    /// Number of the signature scheme of all three signatures.
    pub algorithm: U16,
    /// Bytes of the manifest, 1 to [`MANIFEST_MAX`].
    pub manifest_len: U32,
    /// Id of the publisher key that made the signatures.
    pub key_id: KeyId,
    /// Bytes of the payload, 1 to [`PAYLOAD_MAX`].
    pub payload_len: U64,
    /// Bytes of the whole package, this header included.
    pub total_len: U64,
    /// Bytes of each of the three signatures, [`SIGNATURE_MIN`] to [`SIGNATURE_MAX`].
    pub sig_len: U32,
    /// Zero.
    pub reserved: [u8; 60],
}

const _: () = assert!(size_of::<PackageHeader>() == PACKAGE_HEADER_LEN);

/// A package cut into its parts; nothing is verified yet.
#[derive(Clone, Copy, Debug)]
pub struct Package<'a> {
    /// The header as it stands.
    pub header: &'a PackageHeader,
    /// All bytes that the package signature covers: header, manifest, payload.
    pub signed: &'a [u8],
    /// The manifest's encoding.
    pub manifest: &'a [u8],
    /// The (compressed) image.
    pub payload: &'a [u8],
    /// Signature over the digest of `signed`.
    pub package_sig: &'a [u8],
    /// Signature over the digest of `manifest`.
    pub manifest_sig: &'a [u8],
    /// Signature over the [`BinaryStatement`].
    pub binary_sig: &'a [u8],
}

/// Why bytes are no package or no load proof. Each check has its own variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PackageError {
    /// Shorter than its header.
    HeaderTruncated,
    /// Another magic.
    BadMagic,
    /// Another format number.
    BadFormat,
    /// A reserved field is not zero.
    ReservedNotZero,
    /// `manifest_len` is 0 or above [`MANIFEST_MAX`].
    ManifestLength,
    /// `payload_len` is 0 or above [`PAYLOAD_MAX`].
    PayloadLength,
    /// `sig_len` is outside [`SIGNATURE_MIN`] to [`SIGNATURE_MAX`].
    SignatureLength,
    /// `total_len` is not the sum of the parts.
    TotalLength,
    /// Fewer bytes than `total_len`.
    Truncated,
    /// More bytes than `total_len`.
    TrailingBytes,
}

impl PackageError {
    /// Every rule, in order of number.
    pub const ALL: &'static [Self] = &[
        Self::HeaderTruncated,
        Self::BadMagic,
        Self::BadFormat,
        Self::ReservedNotZero,
        Self::ManifestLength,
        Self::PayloadLength,
        Self::SignatureLength,
        Self::TotalLength,
        Self::Truncated,
        Self::TrailingBytes,
    ];
}

impl core::fmt::Display for PackageError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::HeaderTruncated => "shorter than its header",
            Self::BadMagic => "not a SILA package",
            Self::BadFormat => "another format number",
            Self::ReservedNotZero => "a reserved field is not zero",
            Self::ManifestLength => "the manifest's length is not possible",
            Self::PayloadLength => "the payload's length is not possible",
            Self::SignatureLength => "the signatures' length is not possible",
            Self::TotalLength => "the total length is not the sum of the parts",
            Self::Truncated => "truncated",
            Self::TrailingBytes => "trailing bytes",
        })
    }
}

impl core::error::Error for PackageError {}

/// Takes `len` bytes off the front of `rest`.
fn take<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], PackageError> {
    let (head, tail) = rest.split_at_checked(len).ok_or(PackageError::Truncated)?;
    *rest = tail;
    Ok(head)
}

fn check_lengths(manifest_len: u32, sig_len: u32) -> Result<(), PackageError> {
    if manifest_len == 0 || manifest_len as usize > MANIFEST_MAX {
        return Err(PackageError::ManifestLength);
    }
    if !(SIGNATURE_MIN..=SIGNATURE_MAX).contains(&(sig_len as usize)) {
        return Err(PackageError::SignatureLength);
    }
    Ok(())
}

impl PackageHeader {
    /// Reads and checks the header at the front of `bytes`; what follows need not be there.
    pub fn parse(bytes: &[u8]) -> Result<&Self, PackageError> {
        let (header, _) = Self::ref_from_prefix(bytes).map_err(|_| PackageError::HeaderTruncated)?;
        if header.magic != PACKAGE_MAGIC {
            return Err(PackageError::BadMagic);
        }
        if header.format.get() != PACKAGE_FORMAT {
            return Err(PackageError::BadFormat);
        }
        if header.reserved != [0; 60] {
            return Err(PackageError::ReservedNotZero);
        }
        check_lengths(header.manifest_len.get(), header.sig_len.get())?;
        if header.payload_len.get() == 0 || header.payload_len.get() > PAYLOAD_MAX {
            return Err(PackageError::PayloadLength);
        }
        if header.total_len.get() != header.sum() {
            return Err(PackageError::TotalLength);
        }
        Ok(header)
    }

    /// The sum of the parts. Cannot overflow: each part was bounded far below 2^32.
    fn sum(&self) -> u64 {
        let fixed = PACKAGE_HEADER_LEN as u64 + u64::from(self.manifest_len.get());
        fixed + self.payload_len.get() + 3 * u64::from(self.sig_len.get())
    }
}

impl<'a> Package<'a> {
    /// Cuts `bytes`, which must be exactly one package, into its parts.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, PackageError> {
        let header = PackageHeader::parse(bytes)?;
        let total = usize::try_from(header.total_len.get()).map_err(|_| PackageError::TotalLength)?;
        if bytes.len() > total {
            return Err(PackageError::TrailingBytes);
        }
        if bytes.len() < total {
            return Err(PackageError::Truncated);
        }
        let payload_len =
            usize::try_from(header.payload_len.get()).map_err(|_| PackageError::PayloadLength)?;
        let manifest_len = header.manifest_len.get() as usize;
        let sig_len = header.sig_len.get() as usize;
        let mut rest = bytes;
        let signed = take(&mut rest, PACKAGE_HEADER_LEN + manifest_len + payload_len)?;
        let mut inner = signed;
        take(&mut inner, PACKAGE_HEADER_LEN)?;
        Ok(Self {
            header,
            signed,
            manifest: take(&mut inner, manifest_len)?,
            payload: inner,
            package_sig: take(&mut rest, sig_len)?,
            manifest_sig: take(&mut rest, sig_len)?,
            binary_sig: take(&mut rest, sig_len)?,
        })
    }
}

/// What the package signature signs: a fixed record in the domain `sila/package/v1` (80 bytes).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct PackageStatement {
    /// Number of the signature scheme.
    pub algorithm: U16,
    /// Zero.
    pub reserved: [u8; 6],
    /// Id of the signing key.
    pub key_id: KeyId,
    /// Bytes covered: header, manifest and payload.
    pub signed_len: U64,
    /// Bulk digest of those bytes.
    pub digest: Digest,
}

/// What the manifest signature signs, in the domain `sila/manifest/v1` (80 bytes).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ManifestStatement {
    /// Number of the signature scheme.
    pub algorithm: U16,
    /// Zero.
    pub reserved: [u8; 6],
    /// Id of the signing key.
    pub key_id: KeyId,
    /// Bytes of the manifest's encoding.
    pub manifest_len: U64,
    /// Id hash (SHA3-256) of the manifest's encoding: the manifest's identity.
    pub digest: Digest,
}

/// What the binary signature signs, in the domain `sila/binary/v1` (224 bytes).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct BinaryStatement {
    /// Number of the signature scheme.
    pub algorithm: U16,
    /// Major, minor, patch.
    pub version: [U16; 3],
    /// Id of the signing key.
    pub key_id: KeyId,
    /// Publisher, zero padded.
    pub publisher: [u8; NAME_MAX],
    /// Module name, zero padded.
    pub name: [u8; NAME_MAX],
    /// Bytes of the image.
    pub image_len: U64,
    /// The manifest's security version.
    pub security_version: U32,
    /// Zero.
    pub reserved: [u8; 12],
    /// Bulk digest of the image.
    pub image_digest: Digest,
}

const _: () = assert!(size_of::<PackageStatement>() == 80);
const _: () = assert!(size_of::<ManifestStatement>() == 80);
const _: () = assert!(size_of::<BinaryStatement>() == 224);

/// Header of a load proof (64 bytes, little-endian).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ProofHeader {
    /// [`PROOF_MAGIC`].
    pub magic: [u8; 8],
    /// Number of the signature scheme of both signatures; must equal the manifest's.
    pub algorithm: U16,
    /// Zero.
    pub reserved: [u8; 2],
    /// Bytes of the manifest.
    pub manifest_len: U32,
    /// Id of the publisher key; must equal the manifest's.
    pub key_id: KeyId,
    /// Bytes of the whole proof.
    pub total_len: U64,
    /// Bytes of each of the two signatures.
    pub sig_len: U32,
    /// Zero.
    pub reserved2: [u8; 4],
}

const _: () = assert!(size_of::<ProofHeader>() == PROOF_HEADER_LEN);

/// What a loader hands the kernel, in a Region, to make a process or a cache entry from a sealed image.
#[derive(Clone, Copy, Debug)]
pub struct LoadProof<'a> {
    /// Number of the signature scheme.
    pub algorithm: u16,
    /// Id of the publisher key.
    pub key_id: &'a KeyId,
    /// The manifest's encoding.
    pub manifest: &'a [u8],
    /// The publisher's signature over the manifest.
    pub manifest_sig: &'a [u8],
    /// The publisher's signature over the binary.
    pub binary_sig: &'a [u8],
}

/// The longest load proof in bytes.
pub const PROOF_MAX: usize = PROOF_HEADER_LEN + MANIFEST_MAX + 2 * SIGNATURE_MAX;

impl ProofHeader {
    /// Reads and checks the header at the front of `bytes`; what follows need not be there.
    pub fn parse(bytes: &[u8]) -> Result<&Self, PackageError> {
        let (header, _) = Self::ref_from_prefix(bytes).map_err(|_| PackageError::HeaderTruncated)?;
        if header.magic != PROOF_MAGIC {
            return Err(PackageError::BadMagic);
        }
        if header.reserved != [0; 2] || header.reserved2 != [0; 4] {
            return Err(PackageError::ReservedNotZero);
        }
        check_lengths(header.manifest_len.get(), header.sig_len.get())?;
        if header.total_len.get() != proof_len(header.manifest_len.get(), header.sig_len.get()) {
            return Err(PackageError::TotalLength);
        }
        Ok(header)
    }
}

/// Bytes of a proof with these parts; both were bounded, so this cannot overflow.
const fn proof_len(manifest_len: u32, sig_len: u32) -> u64 {
    PROOF_HEADER_LEN as u64 + manifest_len as u64 + 2 * sig_len as u64
}

impl<'a> LoadProof<'a> {
    /// Cuts a proof into its parts. A Region is a whole number of pages: bytes after `total_len` are ignored.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, PackageError> {
        let header = ProofHeader::parse(bytes)?;
        let sig_len = header.sig_len.get() as usize;
        let mut rest = bytes;
        take(&mut rest, PROOF_HEADER_LEN)?;
        Ok(Self {
            algorithm: header.algorithm.get(),
            key_id: &header.key_id,
            manifest: take(&mut rest, header.manifest_len.get() as usize)?,
            manifest_sig: take(&mut rest, sig_len)?,
            binary_sig: take(&mut rest, sig_len)?,
        })
    }

    /// The proof that follows from a package.
    pub fn of_package(package: &Package<'a>) -> Self {
        Self {
            algorithm: package.header.algorithm.get(),
            key_id: &package.header.key_id,
            manifest: package.manifest,
            manifest_sig: package.manifest_sig,
            binary_sig: package.binary_sig,
        }
    }

    /// Bytes that [`Self::write`] needs.
    pub const fn len(&self) -> usize {
        PROOF_HEADER_LEN + self.manifest.len() + self.manifest_sig.len() + self.binary_sig.len()
    }

    /// Whether there is nothing to prove: never, for a proof that was parsed.
    pub const fn is_empty(&self) -> bool {
        self.manifest.is_empty()
    }

    /// Writes the proof to the front of `out` and returns its length.
    pub fn write(&self, out: &mut [u8]) -> Result<usize, PackageError> {
        let manifest_len = u32::try_from(self.manifest.len()).map_err(|_| PackageError::ManifestLength)?;
        let sig_len = u32::try_from(self.manifest_sig.len()).map_err(|_| PackageError::SignatureLength)?;
        check_lengths(manifest_len, sig_len)?;
        if self.binary_sig.len() != self.manifest_sig.len() {
            return Err(PackageError::SignatureLength);
        }
        let header = ProofHeader {
            magic: PROOF_MAGIC,
            algorithm: U16::new(self.algorithm),
            reserved: [0; 2],
            manifest_len: U32::new(manifest_len),
            key_id: *self.key_id,
            total_len: U64::new(proof_len(manifest_len, sig_len)),
            sig_len: U32::new(sig_len),
            reserved2: [0; 4],
        };
        let mut at = 0;
        for part in [header.as_bytes(), self.manifest, self.manifest_sig, self.binary_sig] {
            let end = at + part.len();
            out.get_mut(at..end).ok_or(PackageError::Truncated)?.copy_from_slice(part);
            at = end;
        }
        Ok(at)
    }
}
