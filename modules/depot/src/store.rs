//! The packages that are kept, within limits. Pure over the handle of a package's memory.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use sila_abi::protocol::depot::{Located, Stored, Wanted};
use sila_abi::record::{Digest, Name, Version};

/// The most packages.
pub const MAX_PACKAGES: usize = 16;
/// The most bytes of all packages together.
pub const MAX_BYTES: u64 = 6 << 20;

/// What a package's manifest says of itself. Nobody has verified it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hints {
    /// The module's name.
    pub name: Name,
    /// Its version.
    pub version: Version,
    /// Who is said to have signed it.
    pub publisher: Name,
    /// Number of the module's kind.
    pub kind: u64,
}

/// A package.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry<H> {
    cursor: u64,
    /// What it is.
    pub hints: Hints,
    /// Its bytes.
    pub len: u64,
    /// Bulk digest of these.
    pub digest: Digest,
    /// Its memory.
    pub handle: H,
}

impl<H> Entry<H> {
    /// The record of what was found.
    pub fn located(&self) -> Located {
        Located { version: self.hints.version, len: self.len, digest: self.digest }
    }

    fn is(&self, name: &Name, version: Version) -> bool {
        self.hints.name == *name && self.hints.version == version
    }
}

/// What became of a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It is new.
    New,
    /// The very same was there.
    Same,
}

/// The packages, in the order in which they came.
#[derive(Debug, PartialEq, Eq)]
pub struct Store<H> {
    entries: Vec<Entry<H>>,
    last: u64,
}

impl<H> Default for Store<H> {
    fn default() -> Self {
        Self { entries: Vec::new(), last: 0 }
    }
}

impl<H> Store<H> {
    /// An empty store.
    #[must_use]
    pub const fn new() -> Self {
        Self { entries: Vec::new(), last: 0 }
    }

    /// Bytes of all packages.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.entries.iter().map(|entry| entry.len).sum()
    }

    /// Keeps a package. One of the same name and version stays as it is: it is the same, or the new one is refused.
    ///
    /// # Errors
    /// The sentence for whoever pushed it; nothing was changed.
    pub fn keep(&mut self, hints: Hints, len: u64, digest: Digest, handle: H) -> Result<Kept, String> {
        let Hints { name, version, .. } = hints;
        if let Some(there) = self.entries.iter().find(|entry| entry.is(&name, version)) {
            return if there.digest == digest {
                Ok(Kept::Same)
            } else {
                Err(format!("the depot has {name} {version} with other content; remove that first"))
            };
        }
        if self.entries.len() >= MAX_PACKAGES {
            return Err(format!("the depot is full: it keeps {MAX_PACKAGES} packages"));
        }
        if self.bytes().saturating_add(len) > MAX_BYTES {
            return Err(format!("the depot is full: it keeps {MAX_BYTES} bytes of packages"));
        }
        self.last = self.last.saturating_add(1);
        self.entries.push(Entry { cursor: self.last, hints, len, digest, handle });
        Ok(Kept::New)
    }

    /// Of the packages that fit the one with the highest version.
    #[must_use]
    pub fn locate(&self, wanted: &Wanted) -> Option<&Entry<H>> {
        let fits =
            |entry: &&Entry<H>| entry.hints.name == wanted.name && wanted.versions.hold(entry.hints.version);
        self.entries.iter().filter(fits).max_by_key(|entry| entry.hints.version)
    }

    /// Gives a package up.
    pub fn remove(&mut self, name: &Name, version: Version) -> Option<Entry<H>> {
        let at = self.entries.iter().position(|entry| entry.is(name, version))?;
        Some(self.entries.remove(at))
    }

    /// The next package after `cursor`.
    #[must_use]
    pub fn list(&self, cursor: u64) -> Option<Stored> {
        let entry = self.entries.iter().find(|entry| entry.cursor > cursor)?;
        Some(Stored {
            cursor: entry.cursor,
            version: entry.hints.version,
            len: entry.len,
            kind: entry.hints.kind,
            digest: entry.digest,
            name: entry.hints.name,
            publisher: entry.hints.publisher,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sila_abi::protocol::depot::Versions;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn hints(module: &str, version: Version) -> Hints {
        Hints { name: name(module), version, publisher: name("pub"), kind: 1 }
    }

    fn v(minor: u16) -> Version {
        Version::new(1, minor, 0)
    }

    fn filled() -> Store<u32> {
        let mut store = Store::new();
        for (handle, (module, version)) in
            [("a", v(2)), ("b", v(9)), ("a", Version::MAX), ("a", v(5))].into_iter().enumerate()
        {
            let digest = [handle as u8; 32];
            assert_eq!(store.keep(hints(module, version), 10, digest, handle as u32), Ok(Kept::New));
        }
        store
    }

    fn found(store: &Store<u32>, module: &str, versions: Versions) -> Option<u32> {
        store.locate(&Wanted { name: name(module), versions }).map(|entry| entry.handle)
    }

    #[test]
    fn the_highest_version_that_fits_is_found() {
        let store = filled();
        assert_eq!(found(&store, "a", Versions::Any), Some(2));
        assert_eq!(found(&store, "a", Versions::Below(Version::MAX)), Some(3));
        assert_eq!(found(&store, "a", Versions::Below(v(5))), Some(0));
        assert_eq!(found(&store, "a", Versions::Below(v(2))), None);
        assert_eq!(found(&store, "a", Versions::Exactly(v(2))), Some(0));
        assert_eq!(found(&store, "a", Versions::Exactly(v(9))), None);
        assert_eq!(found(&store, "c", Versions::Any), None);
    }

    #[test]
    fn a_version_keeps_its_content_until_it_is_removed() {
        let mut store = filled();
        assert_eq!(store.keep(hints("a", v(2)), 10, [0; 32], 77), Ok(Kept::Same));
        let error = store.keep(hints("a", v(2)), 10, [9; 32], 78).unwrap_err();
        assert!(error.contains("a 1.2.0") && error.contains("other content"), "{error}");
        assert_eq!(found(&store, "a", Versions::Exactly(v(2))), Some(0));
        assert_eq!(store.remove(&name("a"), v(2)).map(|entry| entry.handle), Some(0));
        assert_eq!(store.remove(&name("a"), v(2)), None);
        assert_eq!(store.keep(hints("a", v(2)), 10, [9; 32], 78), Ok(Kept::New));
    }

    #[test]
    fn packages_and_bytes_are_limited_and_a_refused_one_changes_nothing() {
        let mut store = Store::new();
        for at in 0..MAX_PACKAGES {
            store.keep(hints("a", v(at as u16)), 1, [1; 32], ()).unwrap();
        }
        let error = store.keep(hints("b", v(0)), 1, [1; 32], ()).unwrap_err();
        assert!(error.contains("16 packages"), "{error}");
        assert_eq!(store.bytes(), MAX_PACKAGES as u64);
        let mut store = Store::new();
        store.keep(hints("a", v(0)), MAX_BYTES - 1, [1; 32], ()).unwrap();
        for len in [2, u64::MAX] {
            let error = store.keep(hints("b", v(0)), len, [1; 32], ()).unwrap_err();
            assert!(error.contains("bytes"), "{error}");
        }
        store.keep(hints("b", v(0)), 1, [1; 32], ()).unwrap();
        assert_eq!(store.bytes(), MAX_BYTES);
    }

    #[test]
    fn listing_goes_through_all_and_stays_in_place_when_some_are_removed() {
        let mut store = filled();
        let first = store.list(0).unwrap();
        assert_eq!((first.name, first.version, first.len, first.digest), (name("a"), v(2), 10, [0; 32]));
        let second = store.list(first.cursor).unwrap();
        store.remove(&second.name, second.version);
        let third = store.list(second.cursor).unwrap();
        assert_eq!(third.version, Version::MAX);
        let fourth = store.list(third.cursor).unwrap();
        assert_eq!(store.list(fourth.cursor), None);
    }
}
