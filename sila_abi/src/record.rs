//! Building blocks of the signed records: names, versions, bounded lists and the canonical codec.
//!
//! A signed record has exactly one encoding (borsh, little-endian, no optional forms). [`decode_canonical`]
//! decodes, re-encodes and compares, so that two different byte strings never mean the same record
//! (the book, Trust, "Manifest"). Lists are [`Bounded`]: their length is checked before anything is
//! allocated, so hostile input costs at most its own size.

extern crate alloc;
use alloc::vec::Vec;
use borsh::io::{Error, ErrorKind, Read, Write};
use borsh::{BorshDeserialize, BorshSerialize};
use core::fmt;

/// A SHA3-256 or bulk digest: 32 bytes. Which hash it is stands beside each use.
pub type Digest = [u8; 32];

/// Identity of a public key: the id hash (SHA3-256) over the scheme's number (u16, little-endian) and the key's bytes.
pub type KeyId = [u8; 32];

/// The most bytes a [`Name`] holds.
pub const NAME_MAX: usize = 64;

/// A name that people and policies use: `[a-z0-9.-]{1,64}`, compared byte for byte.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// Bytes after `len` are zero, so that derived comparison and hashing are exact.
    bytes: [u8; NAME_MAX],
    len: u8,
}

/// Why a string is no [`Name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameError {
    /// No byte at all.
    Empty,
    /// More than [`NAME_MAX`] bytes.
    TooLong,
    /// A byte outside `[a-z0-9.-]`.
    BadByte(u8),
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a name may not be empty"),
            Self::TooLong => f.write_str("a name has at most 64 bytes"),
            Self::BadByte(b) => write!(f, "byte {b:#04x} is not allowed in a name (a-z, 0-9, '.', '-')"),
        }
    }
}

impl core::error::Error for NameError {}

impl Name {
    /// Checks and copies `text`.
    pub const fn new(text: &str) -> Result<Self, NameError> {
        Self::from_bytes(text.as_bytes())
    }

    /// Checks and copies `raw`.
    pub const fn from_bytes(raw: &[u8]) -> Result<Self, NameError> {
        if raw.is_empty() {
            return Err(NameError::Empty);
        }
        if raw.len() > NAME_MAX {
            return Err(NameError::TooLong);
        }
        let mut bytes = [0; NAME_MAX];
        let mut i = 0;
        while i < raw.len() {
            let b = raw[i];
            if !(b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.' || b == b'-') {
                return Err(NameError::BadByte(b));
            }
            bytes[i] = b;
            i += 1;
        }
        Ok(Self { bytes, len: raw.len() as u8 })
    }

    /// Reads the fixed 64-byte form: the name, then zero bytes only.
    pub fn from_padded(raw: &[u8; NAME_MAX]) -> Result<Self, NameError> {
        let len = raw.iter().position(|&b| b == 0).unwrap_or(NAME_MAX);
        match raw[len..].iter().find(|&&b| b != 0) {
            Some(&b) => Err(NameError::BadByte(b)),
            None => Self::from_bytes(&raw[..len]),
        }
    }

    /// The fixed 64-byte form: the name, then zero bytes.
    pub const fn padded(&self) -> &[u8; NAME_MAX] {
        &self.bytes
    }

    /// The bytes of the name, without padding.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or(&self.bytes)
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        // Every byte was checked to be ASCII, so the fallback is never taken.
        core::str::from_utf8(self.as_bytes()).unwrap_or("")
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl BorshSerialize for Name {
    fn serialize<W: Write>(&self, writer: &mut W) -> Result<(), Error> {
        writer.write_all(&[self.len])?;
        writer.write_all(self.as_bytes())
    }
}

impl BorshDeserialize for Name {
    fn deserialize_reader<R: Read>(reader: &mut R) -> Result<Self, Error> {
        let len = usize::from(u8::deserialize_reader(reader)?);
        let mut raw = [0; NAME_MAX];
        let slot = raw.get_mut(..len).ok_or_else(bad_name)?;
        reader.read_exact(slot).map_err(|_| truncated())?;
        Self::from_bytes(slot).map_err(|_| bad_name())
    }
}

fn bad_name() -> Error {
    Error::new(ErrorKind::InvalidInput, "bad name")
}

fn truncated() -> Error {
    Error::new(ErrorKind::InvalidData, "truncated")
}

/// A version: ordered by major, then minor, then patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct Version {
    /// Raised by incompatible changes.
    pub major: u16,
    /// Raised by compatible additions.
    pub minor: u16,
    /// Raised by corrections.
    pub patch: u16,
}

impl Version {
    /// The lowest version.
    pub const MIN: Self = Self::new(0, 0, 0);
    /// The highest version.
    pub const MAX: Self = Self::new(u16::MAX, u16::MAX, u16::MAX);

    /// A version from its three numbers.
    pub const fn new(major: u16, minor: u16, patch: u16) -> Self {
        Self { major, minor, patch }
    }

    /// Reads `major.minor.patch`: three decimal numbers without sign, space or leading zero.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.').map(|part| {
            let plain = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            if !plain || (part.len() > 1 && part.starts_with('0')) { None } else { part.parse::<u16>().ok() }
        });
        let (major, minor, patch) = (parts.next()??, parts.next()??, parts.next()??);
        if parts.next().is_some() { None } else { Some(Self::new(major, minor, patch)) }
    }

    /// One word for message registers: `major << 32 | minor << 16 | patch`.
    pub const fn to_word(self) -> u64 {
        (self.major as u64) << 32 | (self.minor as u64) << 16 | self.patch as u64
    }

    /// The inverse of [`Self::to_word`]; `None` if bits above 47 are set.
    pub const fn from_word(word: u64) -> Option<Self> {
        if word >> 48 != 0 {
            return None;
        }
        Some(Self::new((word >> 32) as u16, (word >> 16) as u16, word as u16))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// All versions from `min` to `max`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub struct VersionRange {
    /// The lowest version that is in.
    pub min: Version,
    /// The highest version that is in.
    pub max: Version,
}

impl VersionRange {
    /// Every version.
    pub const ALL: Self = Self { min: Version::MIN, max: Version::MAX };

    /// Whether `version` is in the range. An inverted range holds nothing.
    pub fn contains(&self, version: Version) -> bool {
        self.min <= version && version <= self.max
    }

    /// Whether `min` is at most `max`.
    pub fn is_ordered(&self) -> bool {
        self.min <= self.max
    }
}

/// A list of at most `N` items. Decoding checks the length before it allocates.
#[derive(Clone, PartialEq, Eq)]
pub struct Bounded<T, const N: usize>(Vec<T>);

impl<T, const N: usize> Bounded<T, N> {
    /// An empty list.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Takes `items` if there are at most `N`; else gives them back.
    pub fn from_vec(items: Vec<T>) -> Result<Self, Vec<T>> {
        if items.len() > N { Err(items) } else { Ok(Self(items)) }
    }

    /// The items.
    pub fn as_slice(&self) -> &[T] {
        &self.0
    }
}

impl<T, const N: usize> Default for Bounded<T, N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T, const N: usize> core::ops::Deref for Bounded<T, N> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T: fmt::Debug, const N: usize> fmt::Debug for Bounded<T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'a, T, const N: usize> IntoIterator for &'a Bounded<T, N> {
    type Item = &'a T;
    type IntoIter = core::slice::Iter<'a, T>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<T: BorshSerialize, const N: usize> BorshSerialize for Bounded<T, N> {
    fn serialize<W: Write>(&self, writer: &mut W) -> Result<(), Error> {
        let count = u16::try_from(self.0.len()).map_err(|_| too_many())?;
        count.serialize(writer)?;
        self.0.iter().try_for_each(|item| item.serialize(writer))
    }
}

impl<T: BorshDeserialize, const N: usize> BorshDeserialize for Bounded<T, N> {
    fn deserialize_reader<R: Read>(reader: &mut R) -> Result<Self, Error> {
        let count = usize::from(u16::deserialize_reader(reader)?);
        if count > N {
            return Err(too_many());
        }
        let mut items = Vec::new();
        items.try_reserve_exact(count).map_err(|_| Error::new(ErrorKind::Other, "out of memory"))?;
        for _ in 0..count {
            items.push(T::deserialize_reader(reader)?);
        }
        Ok(Self(items))
    }
}

fn too_many() -> Error {
    Error::new(ErrorKind::OutOfMemory, "list too long")
}

/// Why bytes are no canonical record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// Longer than the record's maximum; nothing was decoded.
    TooLong,
    /// Cut short, trailing bytes, an unknown enum value or a bad bool.
    Malformed,
    /// A name outside `[a-z0-9.-]{1,64}`.
    BadName,
    /// A list with more items than its bound.
    TooMany,
    /// Decodes, but encodes to other bytes.
    NotCanonical,
    /// The heap had no room for the record.
    NoMemory,
}

impl From<&Error> for DecodeError {
    fn from(error: &Error) -> Self {
        match error.kind() {
            ErrorKind::InvalidInput => Self::BadName,
            ErrorKind::OutOfMemory => Self::TooMany,
            ErrorKind::Other => Self::NoMemory,
            _ => Self::Malformed,
        }
    }
}

/// Decodes `bytes` of at most `max` bytes, encodes the result again and compares.
pub fn decode_canonical<T: BorshSerialize + BorshDeserialize>(
    bytes: &[u8],
    max: usize,
) -> Result<T, DecodeError> {
    if bytes.len() > max {
        return Err(DecodeError::TooLong);
    }
    let value: T = borsh::from_slice(bytes).map_err(|e| DecodeError::from(&e))?;
    let mut rest = Comparer { rest: bytes };
    match value.serialize(&mut rest) {
        Ok(()) if rest.rest.is_empty() => Ok(value),
        _ => Err(DecodeError::NotCanonical),
    }
}

/// Writes a record's encoding to the front of `out`; its length, or `None` if there is too little room.
pub fn encode_into<T: BorshSerialize>(record: &T, out: &mut [u8]) -> Option<usize> {
    let room = out.len();
    let mut rest = out;
    record.serialize(&mut rest).ok()?;
    Some(room - rest.len())
}

/// Encodes a record; `None` if a list inside is too long for the format or it exceeds `max` bytes.
pub fn encode_canonical<T: BorshSerialize>(value: &T, max: usize) -> Option<Vec<u8>> {
    borsh::to_vec(value).ok().filter(|bytes| bytes.len() <= max)
}

/// A writer that compares what is written with `rest`, so that the canonical check allocates nothing.
struct Comparer<'a> {
    rest: &'a [u8],
}

impl Write for Comparer<'_> {
    fn write(&mut self, written: &[u8]) -> Result<usize, Error> {
        self.rest = self.rest.strip_prefix(written).ok_or_else(truncated)?;
        Ok(written.len())
    }

    fn flush(&mut self) -> Result<(), Error> {
        Ok(())
    }
}
