//! The depot: keeps the packages that were pushed into the running system (the book, Agents, "Depot").
//!
//! Nobody believes it. Name and version of what it keeps are hints from manifests that nobody verified; whoever takes
//! a package from it verifies that package, in a Region that is sealed.

use super::wire::{
    self, DIGEST_WORDS, NAME_WORDS, digest_at, digest_words, name_at, name_words, service_errors,
};
use crate::record::{Digest, Name, Version};

/// `Locate`: a [`Wanted`]. Success: a [`Located`] and capability 0, the sealed Region (READ, COPY) that begins with the
/// package. Of several that fit it is the one with the highest version.
pub const LOCATE: u32 = 1;
/// `List`: word 0 a cursor, 0 to start. Success: a [`Stored`]. [`DepotError::NoMoreEntries`] ends it.
pub const LIST: u32 = 2;
/// `Remove`: a [`Wanted`] with an exact version. Success has no words. Who has mapped the package keeps it.
pub const REMOVE: u32 = 3;

/// Words of a [`Wanted`].
pub const WANTED_WORDS: usize = 2 + NAME_WORDS;
/// Words of a [`Located`].
pub const LOCATED_WORDS: usize = 2 + DIGEST_WORDS;
/// Words of a [`Stored`].
pub const STORED_WORDS: usize = 4 + DIGEST_WORDS + 2 * NAME_WORDS;

const EXACT: u64 = 1 << 0;
const BELOW: u64 = 1 << 1;

/// Which versions fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Versions {
    /// All.
    Any,
    /// This one.
    Exactly(Version),
    /// Those below this one.
    Below(Version),
}

impl Versions {
    /// Whether this version fits.
    pub fn hold(self, version: Version) -> bool {
        match self {
            Self::Any => true,
            Self::Exactly(wanted) => version == wanted,
            Self::Below(limit) => version < limit,
        }
    }
}

/// Which package is meant. Word 0: bit 0 the version in word 1 and no other, bit 1 versions below the one in word 1;
/// word 1 the version, or zero; words 2 to 9 the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The module.
    pub name: Name,
    /// Its versions.
    pub versions: Versions,
}

impl Wanted {
    /// The request in words.
    pub fn to_words(&self) -> [u64; WANTED_WORDS] {
        let (flags, version) = match self.versions {
            Versions::Any => (0, 0),
            Versions::Exactly(version) => (EXACT, version.to_word()),
            Versions::Below(version) => (BELOW, version.to_word()),
        };
        let mut words = [0; WANTED_WORDS];
        wire::put(&mut words, 0, &[flags, version]);
        wire::put(&mut words, 2, &name_words(&self.name));
        words
    }

    /// The request from words; `None` if it is malformed.
    pub fn from_words(words: &[u64]) -> Option<Self> {
        let &[flags, version] = words.first_chunk::<2>()?;
        let versions = match (flags, version) {
            (0, 0) => Versions::Any,
            (EXACT, version) => Versions::Exactly(Version::from_word(version)?),
            (BELOW, version) => Versions::Below(Version::from_word(version)?),
            _ => return None,
        };
        Some(Self { name: name_at(words, 2)?, versions })
    }
}

/// A package that was found: word 0 its version, as its manifest has it, word 1 its length in bytes, words 2 to 5 its bulk
/// digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located {
    /// Its version.
    pub version: Version,
    /// Its bytes, at the beginning of the Region.
    pub len: u64,
    /// Bulk digest of these.
    pub digest: Digest,
}

impl Located {
    /// The record in words.
    pub fn to_words(&self) -> [u64; LOCATED_WORDS] {
        let mut words = [0; LOCATED_WORDS];
        wire::put(&mut words, 0, &[self.version.to_word(), self.len]);
        wire::put(&mut words, 2, &digest_words(&self.digest));
        words
    }

    /// The record from words.
    pub fn from_words(words: &[u64]) -> Option<Self> {
        let &[version, len] = words.first_chunk::<2>()?;
        Some(Self { version: Version::from_word(version)?, len, digest: digest_at(words, 2)? })
    }
}

/// A package in the depot, as `List` gives it: word 0 the next cursor, 1 the version, 2 the length in bytes, 3 the
/// number of the module's kind, 4 to 7 the bulk digest, 8 to 15 the name, 16 to 23 the publisher; all but length and
/// digest as the manifest has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// What to pass to the next `List`.
    pub cursor: u64,
    /// Its version.
    pub version: Version,
    /// Its bytes.
    pub len: u64,
    /// Number of the module's kind, as manifests have it.
    pub kind: u64,
    /// Bulk digest of the package.
    pub digest: Digest,
    /// The module's name.
    pub name: Name,
    /// Who is said to have signed it.
    pub publisher: Name,
}

impl Stored {
    /// The record in words.
    pub fn to_words(&self) -> [u64; STORED_WORDS] {
        let mut words = [0; STORED_WORDS];
        wire::put(&mut words, 0, &[self.cursor, self.version.to_word(), self.len, self.kind]);
        wire::put(&mut words, 4, &digest_words(&self.digest));
        wire::put(&mut words, 8, &name_words(&self.name));
        wire::put(&mut words, 16, &name_words(&self.publisher));
        words
    }

    /// The record from words.
    pub fn from_words(words: &[u64]) -> Option<Self> {
        let &[cursor, version, len, kind] = words.first_chunk::<4>()?;
        Some(Self {
            cursor,
            version: Version::from_word(version)?,
            len,
            kind,
            digest: digest_at(words, 4)?,
            name: name_at(words, 8)?,
            publisher: name_at(words, 16)?,
        })
    }
}

service_errors! {
    /// Why the depot refused a request of another process. What is wrong with a file that is pushed, it says on the link.
    DepotError {
        UnknownRequest = 1, "the depot has no such request";
        Malformed = 2, "the request to the depot is malformed";
        NoSuchPackage = 3, "the depot has no package of this name and version";
        NoMoreEntries = 4, "the enumeration has ended";
        Kernel = 5, "the kernel refused an operation that the depot needs (word 0 names the error)";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    #[test]
    fn requests_round_trip_and_contradictions_are_refused() {
        let version = Version::new(1, 2, 3);
        for versions in [Versions::Any, Versions::Exactly(version), Versions::Below(Version::MAX)] {
            let wanted = Wanted { name: name("net.dns"), versions };
            assert_eq!(Wanted::from_words(&wanted.to_words()), Some(wanted));
            assert_eq!(Wanted::from_words(&wanted.to_words()[..9]), None);
        }
        let good = Wanted { name: name("a"), versions: Versions::Exactly(version) }.to_words();
        for (at, word) in [(0, 3), (0, 0), (0, 4), (1, u64::MAX), (2, u64::MAX)] {
            let mut words = good;
            words[at] = word;
            assert_eq!(Wanted::from_words(&words), None, "word {at} {word:#x}");
        }
    }

    #[test]
    fn versions_fit_to_the_very_ends() {
        let (low, high) = (Version::MIN, Version::MAX);
        assert!(Versions::Any.hold(low) && Versions::Any.hold(high));
        assert!(Versions::Exactly(high).hold(high) && !Versions::Exactly(high).hold(low));
        assert!(Versions::Below(high).hold(low) && !Versions::Below(high).hold(high));
        assert!(!Versions::Below(low).hold(low));
    }

    #[test]
    fn records_round_trip() {
        let located = Located { version: Version::MAX, len: 77, digest: [9; 32] };
        assert_eq!(Located::from_words(&located.to_words()), Some(located));
        assert_eq!(Located::from_words(&located.to_words()[..5]), None);
        let stored = Stored {
            cursor: 4,
            version: Version::new(0, 1, 0),
            len: 4711,
            kind: 1,
            digest: [3; 32],
            name: name("counter"),
            publisher: name("sila"),
        };
        assert_eq!(Stored::from_words(&stored.to_words()), Some(stored));
        assert_eq!(Stored::from_words(&stored.to_words()[..23]), None);
    }

    #[test]
    fn depot_error_numbers_are_dense() {
        for (i, &e) in DepotError::ALL.iter().enumerate() {
            assert_eq!(usize::from(e.number()), i + 1);
            assert_eq!(DepotError::from_number(e.number()), Some(e));
        }
    }
}
