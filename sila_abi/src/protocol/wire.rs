//! How names, digests and error numbers travel in message words. All services of SILA use these forms.

use crate::record::{Digest, NAME_MAX, Name};

/// Words of a name: 64 bytes, zero padded, little-endian.
pub const NAME_WORDS: usize = NAME_MAX / 8;
/// Words of a digest: 32 bytes, little-endian.
pub const DIGEST_WORDS: usize = 4;
/// The label of a reply that reports success; any other label is the number of the service's error.
pub const OK: u32 = 0;

/// Badges of module instances start here; what is below names requesters that exist from boot on.
pub const FIRST_INSTANCE: u64 = 1 << 32;

/// Copies bytes into words, as many as there are words.
fn pack<const N: usize>(bytes: &[u8]) -> [u64; N] {
    let mut words = [0; N];
    for (word, chunk) in words.iter_mut().zip(bytes.chunks(8)) {
        let mut raw = [0; 8];
        for (to, from) in raw.iter_mut().zip(chunk) {
            *to = *from;
        }
        *word = u64::from_le_bytes(raw);
    }
    words
}

/// The inverse of [`pack`]; missing words read as zero.
fn unpack<const B: usize>(words: &[u64]) -> [u8; B] {
    let mut bytes = [0; B];
    for (chunk, word) in bytes.chunks_mut(8).zip(words) {
        for (to, from) in chunk.iter_mut().zip(word.to_le_bytes()) {
            *to = from;
        }
    }
    bytes
}

/// A name in words.
pub fn name_words(name: &Name) -> [u64; NAME_WORDS] {
    pack(name.padded())
}

/// A name from the words at `at`; `None` if they are missing or no name.
pub fn name_at(words: &[u64], at: usize) -> Option<Name> {
    let words = words.get(at..at.checked_add(NAME_WORDS)?)?;
    Name::from_padded(&unpack(words)).ok()
}

/// A digest in words.
pub fn digest_words(digest: &Digest) -> [u64; DIGEST_WORDS] {
    pack(digest)
}

/// A digest from the words at `at`; `None` if they are missing.
pub fn digest_at(words: &[u64], at: usize) -> Option<Digest> {
    Some(unpack(words.get(at..at.checked_add(DIGEST_WORDS)?)?))
}

/// Copies `part` into `words` at `at`; does nothing if there is no room.
pub fn put(words: &mut [u64], at: usize, part: &[u64]) {
    let end = at.checked_add(part.len());
    if let Some(place) = end.and_then(|end| words.get_mut(at..end)) {
        place.copy_from_slice(part);
    }
}

/// Defines a service's errors: an enum with stable numbers and one sentence each.
macro_rules! service_errors {
    ($(#[$doc:meta])* $kind:ident { $($name:ident = $num:literal, $text:literal;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        #[repr(u16)]
        pub enum $kind { $(#[doc = $text] $name = $num),* }

        impl $kind {
            /// Every error, in order of number.
            pub const ALL: &'static [$kind] = &[$($kind::$name),*];

            /// The error with this number; 0 is success and names none.
            pub const fn from_number(number: u16) -> Option<Self> {
                match number { $($num => Some($kind::$name),)* _ => None }
            }

            /// The stable number: the label of the reply that reports the error.
            pub const fn number(self) -> u16 {
                self as u16
            }

            /// The error's name.
            pub const fn name(self) -> &'static str {
                match self { $($kind::$name => stringify!($name)),* }
            }

            /// A sentence that names the cause.
            pub const fn sentence(self) -> &'static str {
                match self { $($kind::$name => $text),* }
            }
        }

        impl core::fmt::Display for $kind {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(self.sentence())
            }
        }

        impl core::error::Error for $kind {}
    };
}
pub(crate) use service_errors;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_digests_round_trip_through_words() {
        let name = Name::new("net.dns-cache").unwrap();
        let mut words = [7; 20];
        put(&mut words, 3, &name_words(&name));
        put(&mut words, 11, &digest_words(&[0xa5; 32]));
        assert_eq!(name_at(&words, 3), Some(name));
        assert_eq!(digest_at(&words, 11), Some([0xa5; 32]));
        assert_eq!(name_at(&words, 13), None);
        assert_eq!(name_at(&words, usize::MAX), None);
        assert_eq!(digest_at(&words, 17), None);
        assert_eq!(name_at(&[0; 8], 0), None);
    }
}
