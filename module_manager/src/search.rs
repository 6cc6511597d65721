//! The search for the package that a load means: what the depot is asked, and what is taken.
//!
//! The depot may say anything. A package of its that turns out unfit costs the load one question more, for an older
//! one; whatever the depot does, a load that the boot bundle can satisfy gets there.

use crate::catalogue::{Origin, PackageRef, choose, newest};
use crate::event::Found;
use sila_abi::protocol::depot::{Versions, Wanted};
use sila_abi::protocol::module_manager::{Failure, Load, LoadError};
use sila_abi::record::Name;

/// How many packages of the depot one load tries.
pub const MAX_ATTEMPTS: u8 = 4;

/// The search of one load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Search {
    name: Name,
    versions: Versions,
    /// What the boot bundle has, or why it has nothing.
    bundle: Result<PackageRef, LoadError>,
    attempts: u8,
    /// What was wrong with the depot's first package.
    failure: Option<Failure>,
}

impl Search {
    /// The search for what a request means, beside these packages of the bundle.
    #[must_use]
    pub fn new(packages: &[PackageRef], target: &Load) -> Self {
        Self {
            name: target.name,
            versions: target.version.map_or(Versions::Any, Versions::Exactly),
            bundle: choose(packages, &target.name, target.version),
            attempts: 0,
            failure: None,
        }
    }

    /// What the bundle has.
    #[must_use]
    pub fn bundle(&self) -> Option<PackageRef> {
        self.bundle.ok()
    }

    /// What to ask the depot; `None` if it can't help, or was asked often enough.
    #[must_use]
    pub fn question(&self) -> Option<Wanted> {
        let settled = self.bundle.is_ok() && matches!(self.versions, Versions::Exactly(_));
        if settled || self.attempts >= MAX_ATTEMPTS {
            return None;
        }
        Some(Wanted { name: self.name, versions: self.versions })
    }

    /// The package to verify, now that the depot has answered, or has not.
    ///
    /// # Errors
    /// There is none: what was wrong with the depot's first one, or that it does not answer, or that nobody has any.
    pub fn pick(&self, found: Result<Option<Found>, Failure>) -> Result<PackageRef, Failure> {
        let depot = found.map(|found| found.filter(|found| self.versions.hold(found.version)));
        let package = |Found { version, len }| PackageRef {
            origin: Origin::Depot,
            name: self.name,
            version,
            offset: 0,
            len,
        };
        let lost = depot.err();
        let depot = depot.ok().flatten().map(package);
        newest(self.bundle(), depot).ok_or_else(|| {
            let absent = self.bundle.err().unwrap_or(LoadError::NoSuchModule).into();
            self.failure.or(lost).unwrap_or(absent)
        })
    }

    /// Takes note that a package can't be loaded; true if another one may do.
    pub fn unfit(&mut self, package: &PackageRef, failure: Failure) -> bool {
        let exact = matches!(self.versions, Versions::Exactly(_));
        if package.origin != Origin::Depot || exact || !blames_the_package(failure.error) {
            return false;
        }
        self.failure.get_or_insert(failure);
        self.versions = Versions::Below(package.version);
        self.attempts = self.attempts.saturating_add(1);
        self.question().is_some() || self.bundle.is_ok()
    }
}

/// Whether another package of the same name may well load where this one failed so.
const fn blames_the_package(error: LoadError) -> bool {
    use LoadError::{DependencyMissing, DependencyVersion, NotAProcess};
    matches!(error.number(), 20..60) && !matches!(error, NotAProcess | DependencyMissing | DependencyVersion)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sila_abi::record::Version;

    const UNSIGNED: Failure = Failure::new(LoadError::PackageSignature);

    fn v(minor: u16) -> Version {
        Version::new(1, minor, 0)
    }

    fn search(version: Option<Version>) -> Search {
        let name = Name::new("a").unwrap();
        let package = PackageRef { origin: Origin::Bundle, name, version: v(3), offset: 1, len: 1 };
        Search::new(&[package], &Load { version, ..Load::newest(name) })
    }

    fn alone(version: Option<Version>) -> Search {
        Search::new(&[], &Load { version, ..Load::newest(Name::new("a").unwrap()) })
    }

    fn found(version: Version) -> Result<Option<Found>, Failure> {
        Ok(Some(Found { version, len: 9 }))
    }

    fn picked(
        search: &Search,
        answer: Result<Option<Found>, Failure>,
    ) -> Result<(Origin, Version), LoadError> {
        search.pick(answer).map(|package| (package.origin, package.version)).map_err(|failure| failure.error)
    }

    #[test]
    fn the_newest_of_bundle_and_depot_is_picked() {
        let search = search(None);
        assert_eq!(search.question().map(|wanted| wanted.versions), Some(Versions::Any));
        assert_eq!(picked(&search, found(v(4))), Ok((Origin::Depot, v(4))));
        assert_eq!(picked(&search, found(v(3))), Ok((Origin::Bundle, v(3))));
        assert_eq!(picked(&search, Ok(None)), Ok((Origin::Bundle, v(3))));
        assert_eq!(picked(&search, found(Version::MAX)), Ok((Origin::Depot, Version::MAX)));
    }

    #[test]
    fn a_depot_that_is_lost_fails_only_what_needs_it() {
        let lost = Err(Failure::new(LoadError::DepotLost));
        assert_eq!(picked(&search(None), lost), Ok((Origin::Bundle, v(3))));
        assert_eq!(picked(&alone(None), lost), Err(LoadError::DepotLost));
        assert_eq!(picked(&alone(None), Ok(None)), Err(LoadError::NoSuchModule));
        assert_eq!(picked(&search(Some(v(9))), Ok(None)), Err(LoadError::NoSuchVersion));
    }

    #[test]
    fn an_exact_version_of_the_bundle_needs_no_depot() {
        assert_eq!(search(Some(v(3))).question(), None);
        let other = search(Some(v(9)));
        assert_eq!(other.question().map(|wanted| wanted.versions), Some(Versions::Exactly(v(9))));
        assert_eq!(picked(&other, found(v(9))), Ok((Origin::Depot, v(9))));
        assert_eq!(
            picked(&other, found(v(8))),
            Err(LoadError::NoSuchVersion),
            "another one than was asked for"
        );
    }

    #[test]
    fn after_an_unfit_package_an_older_one_is_tried_and_then_the_bundle_s() {
        let mut search = search(None);
        let first = search.pick(found(Version::MAX)).unwrap();
        assert!(search.unfit(&first, UNSIGNED));
        assert_eq!(search.question().map(|wanted| wanted.versions), Some(Versions::Below(Version::MAX)));
        assert_eq!(picked(&search, found(Version::MAX)), Ok((Origin::Bundle, v(3))), "not the same again");
        assert_eq!(picked(&search, found(v(7))), Ok((Origin::Depot, v(7))));
    }

    #[test]
    fn the_first_package_s_failure_is_what_a_load_fails_with() {
        let mut search = alone(None);
        let first = search.pick(found(v(7))).unwrap();
        assert!(search.unfit(&first, UNSIGNED));
        let second = search.pick(found(v(6))).unwrap();
        assert!(search.unfit(&second, LoadError::PackageMalformed.into()));
        assert_eq!(search.pick(Ok(None)), Err(UNSIGNED));
        assert_eq!(search.pick(Err(LoadError::DepotLost.into())), Err(UNSIGNED));
    }

    #[test]
    fn a_depot_full_of_rubbish_is_asked_so_often_and_no_more() {
        for (mut search, ends) in
            [(search(None), Ok((Origin::Bundle, v(3)))), (alone(None), Err(UNSIGNED.error))]
        {
            let mut asked = 0;
            let mut version = 60_000;
            while search.question().is_some() {
                asked += 1;
                version -= 1;
                let package = search.pick(found(v(version))).unwrap();
                let more = search.unfit(&package, UNSIGNED);
                assert_eq!(more, search.question().is_some() || search.bundle().is_some());
            }
            assert_eq!(asked, MAX_ATTEMPTS);
            assert_eq!(picked(&search, Ok(None)), ends);
        }
    }

    #[test]
    fn a_failure_that_is_not_the_package_s_or_not_the_depot_s_is_final() {
        let mut search = search(None);
        let depot = search.pick(found(v(7))).unwrap();
        let bundle = search.bundle().unwrap();
        assert!(!search.unfit(&bundle, UNSIGNED));
        for error in [LoadError::VerifierLost, LoadError::DependencyMissing, LoadError::NotAProcess] {
            assert!(!search.unfit(&depot, error.into()), "{error:?}");
        }
        let mut exact = alone(Some(v(7)));
        let package = exact.pick(found(v(7))).unwrap();
        assert!(!exact.unfit(&package, UNSIGNED), "no other version will do");
    }
}
