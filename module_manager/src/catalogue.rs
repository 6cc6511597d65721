//! Which package a request means: one of the boot bundle, or one of the depot.
//!
//! Names and versions in the bundle's directory, and those that the depot tells, are hints: they choose what is verified, and the verified manifest is
//! compared with the request afterwards.

use alloc::vec::Vec;
use sila_abi::boot::{Bundle, EntryKind};
use sila_abi::protocol::module_manager::LoadError;
use sila_abi::record::{Name, Version};

/// Where a package lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// In the boot bundle.
    Bundle,
    /// In a Region of its own, from the depot.
    Depot,
}

/// A package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackageRef {
    /// Where it lies.
    pub origin: Origin,
    /// Its name, as the directory or the depot has it.
    pub name: Name,
    /// Its version, as the directory or the depot has it.
    pub version: Version,
    /// Where it begins there.
    pub offset: u64,
    /// Its bytes.
    pub len: u64,
}

/// The packages of a bundle, in the directory's order. The host tool puts packages that were added to an image before
/// those that belong to it.
#[must_use]
pub fn packages(bundle: &Bundle<'_>) -> Vec<PackageRef> {
    let package = |entry: sila_abi::boot::Entry<'_>| PackageRef {
        origin: Origin::Bundle,
        name: entry.name,
        version: entry.version,
        offset: entry.off,
        len: entry.data.len() as u64,
    };
    bundle.of_kind(EntryKind::Package).map(package).collect()
}

/// The package that a request means: of those of the bundle with its name (and version, if it names one) the one with the highest
/// version, and of equals the first.
///
/// # Errors
/// [`LoadError::NoSuchModule`] or [`LoadError::NoSuchVersion`].
pub fn choose(
    packages: &[PackageRef],
    name: &Name,
    version: Option<Version>,
) -> Result<PackageRef, LoadError> {
    let mut known = false;
    let mut best: Option<PackageRef> = None;
    for package in packages.iter().filter(|package| package.name == *name) {
        known = true;
        let fits = version.is_none_or(|version| version == package.version);
        if fits && best.is_none_or(|best| package.version > best.version) {
            best = Some(*package);
        }
    }
    best.ok_or(if known { LoadError::NoSuchVersion } else { LoadError::NoSuchModule })
}

/// Of the bundle's package and the depot's the newer one, and of equals the bundle's.
#[must_use]
pub fn newest(bundle: Option<PackageRef>, depot: Option<PackageRef>) -> Option<PackageRef> {
    match (bundle, depot) {
        (Some(bundle), Some(depot)) => Some(if depot.version > bundle.version { depot } else { bundle }),
        (bundle, depot) => bundle.or(depot),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, minor: u16, offset: u64) -> PackageRef {
        let version = Version::new(1, minor, 0);
        PackageRef { origin: Origin::Bundle, name: Name::new(name).unwrap(), version, offset, len: 1 }
    }

    fn chosen(version: Option<Version>) -> Result<u64, LoadError> {
        let packages = [package("a", 2, 0), package("b", 9, 1), package("a", 5, 2), package("a", 5, 3)];
        choose(&packages, &Name::new("a").unwrap(), version).map(|package| package.offset)
    }

    #[test]
    fn the_newest_version_is_chosen_and_of_equals_the_first() {
        assert_eq!(chosen(None), Ok(2));
    }

    #[test]
    fn the_depot_s_package_is_taken_only_if_it_is_newer() {
        let depot = |minor| Some(PackageRef { origin: Origin::Depot, ..package("a", minor, 9) });
        let bundle = Some(package("a", 5, 2));
        let origin = |bundle, depot| newest(bundle, depot).map(|package| package.origin);
        assert_eq!(origin(bundle, depot(5)), Some(Origin::Bundle));
        assert_eq!(origin(bundle, depot(4)), Some(Origin::Bundle));
        assert_eq!(origin(bundle, depot(6)), Some(Origin::Depot));
        assert_eq!(origin(None, depot(0)), Some(Origin::Depot));
        assert_eq!(origin(bundle, None), Some(Origin::Bundle));
        assert_eq!(origin(None, None), None);
        let max = Some(PackageRef { version: Version::MAX, origin: Origin::Depot, ..package("a", 0, 9) });
        assert_eq!(
            newest(Some(PackageRef { version: Version::MAX, ..package("a", 0, 1) }), max).map(|p| p.offset),
            Some(1)
        );
    }

    #[test]
    fn an_exact_version_is_that_and_no_other() {
        assert_eq!(chosen(Some(Version::new(1, 2, 0))), Ok(0));
        assert_eq!(chosen(Some(Version::new(1, 9, 0))), Err(LoadError::NoSuchVersion));
    }

    #[test]
    fn an_unknown_name_is_not_an_unknown_version() {
        assert_eq!(choose(&[], &Name::new("a").unwrap(), None), Err(LoadError::NoSuchModule));
    }
}
