//! What the load logic needs to know of a verified package.

use crate::contract::Terms;
use crate::scope::{CLOCK, LIFECYCLE, REGISTRY};
use alloc::vec::Vec;
use sila_abi::manifest::{Codec, Dependency, Manifest, ModuleKind, Selector};
use sila_abi::protocol::module_manager::{LoadError, MAX_NAMED_GRANTS};
use sila_abi::record::{Digest, KeyId, Name, Version};
use sila_crypto::Verified;

/// The facts. They are made from a manifest that was verified, and from nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Name of the module.
    pub name: Name,
    /// Its version.
    pub version: Version,
    /// Who signed it.
    pub publisher: Name,
    /// What it is.
    pub kind: ModuleKind,
    /// Id hash of the manifest.
    pub digest: Digest,
    /// How the payload holds the image.
    pub codec: Codec,
    /// Bytes of the image.
    pub image_len: u64,
    /// Where the payload begins in the bundle.
    pub payload_offset: u64,
    /// Bytes of the payload.
    pub payload_len: u64,
    /// Time until `Ready`, in milliseconds.
    pub init_deadline_ms: u32,
    /// Highest thread priority.
    pub max_priority: u8,
    /// Id of the key that signed it.
    pub key_id: KeyId,
    /// Its contract, and what that speaks of.
    pub terms: Terms,
    /// The modules that must run.
    pub dependencies: Vec<Dependency>,
    /// The capabilities asked for by grant name: index of the request, and the name.
    pub requests: Vec<(u16, Name)>,
}

impl Facts {
    /// The facts of a package: its manifest (verified), the manifest's digest, and where its payload lies.
    pub(crate) fn of(manifest: &Verified<Manifest>, digest: Digest, payload_offset: u64) -> Self {
        let named = |(index, selector): (usize, Selector)| match selector {
            Selector::Grant(name) => u16::try_from(index).ok().map(|index| (index, name)),
            Selector::OwnPool | Selector::OwnProcess | Selector::OwnThread => None,
        };
        let selectors = manifest.requests.iter().map(|request| request.selector);
        Self {
            name: manifest.name,
            version: manifest.version,
            publisher: manifest.publisher,
            kind: manifest.kind,
            digest,
            codec: manifest.codec,
            image_len: manifest.image_len,
            payload_offset,
            payload_len: manifest.payload_len,
            init_deadline_ms: manifest.init_deadline_ms,
            max_priority: manifest.resources.max_priority,
            key_id: manifest.key_id,
            terms: Terms::of(manifest),
            dependencies: manifest.dependencies.iter().copied().collect(),
            requests: selectors.enumerate().filter_map(named).collect(),
        }
    }
}

/// Where the source of a grant comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A fresh copy of ModuleManager's own endpoint, badged with the instance.
    Lifecycle,
    /// A fresh copy of the capability to call ServiceRegistry, badged with the instance.
    Registry,
    /// A copy of the Clock.
    Clock,
    /// The requester's capability of this number, after the Pool.
    Requester(usize),
}

/// The source of every request that has one. A mandatory request without one is refused by the kernel, which names
/// it; an optional one is left out.
#[must_use]
pub fn sources(requests: &[(u16, Name)], granted: &[Option<Name>; MAX_NAMED_GRANTS]) -> Vec<(u16, Source)> {
    let source = |name: &Name| match name.as_str() {
        LIFECYCLE => Some(Source::Lifecycle),
        REGISTRY => Some(Source::Registry),
        CLOCK => Some(Source::Clock),
        _ => granted.iter().position(|grant| grant.as_ref() == Some(name)).map(Source::Requester),
    };
    requests.iter().filter_map(|(index, name)| Some((*index, source(name)?))).collect()
}

/// A module that runs, as far as dependencies go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Provider {
    /// Its publisher.
    pub publisher: Name,
    /// Its name.
    pub name: Name,
    /// Its version.
    pub version: Version,
}

/// Checks that each dependency runs. What a module depends on runs before it, so dependencies form no cycle: of
/// modules that need one another, none is ever loaded.
///
/// # Errors
/// The first dependency that is not met, by its index.
pub fn check_dependencies<'a>(
    dependencies: &[Dependency],
    providers: impl Iterator<Item = Provider> + Clone + 'a,
) -> Result<(), (LoadError, u64)> {
    for (index, wanted) in dependencies.iter().enumerate() {
        let same = |p: &Provider| p.publisher == wanted.publisher && p.name == wanted.name;
        let mut running = providers.clone().filter(same).peekable();
        if running.peek().is_none() {
            return Err((LoadError::DependencyMissing, index as u64));
        }
        if !running.any(|p| wanted.versions.contains(p.version)) {
            return Err((LoadError::DependencyVersion, index as u64));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use sila_abi::record::VersionRange;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    #[test]
    fn reserved_names_have_the_managers_own_sources() {
        let requests = [(0, name("registry")), (2, name("lifecycle")), (3, name("clock")), (7, name("disk"))];
        let granted = [Some(name("registry")), Some(name("disk")), None];
        let expected =
            [(0, Source::Registry), (2, Source::Lifecycle), (3, Source::Clock), (7, Source::Requester(1))];
        assert_eq!(sources(&requests, &granted), expected);
    }

    #[test]
    fn a_request_that_nobody_grants_has_no_source() {
        assert_eq!(sources(&[(4, name("disk"))], &[None; MAX_NAMED_GRANTS]), []);
    }

    #[test]
    fn dependencies_must_run_in_a_fitting_version() {
        let provider = |minor| Provider {
            publisher: name("pub"),
            name: name("store"),
            version: Version::new(1, minor, 0),
        };
        let range = VersionRange { min: Version::new(1, 2, 0), max: Version::new(1, 9, 0) };
        let wanted = Dependency {
            publisher: name("pub"),
            name: name("store"),
            versions: range,
            export_digest: [0; 32],
        };
        let check = |running: &[Provider]| check_dependencies(&[wanted], running.iter().copied());
        assert_eq!(check(&[provider(1), provider(2)]), Ok(()));
        assert_eq!(check(&[provider(1)]), Err((LoadError::DependencyVersion, 0)));
        assert_eq!(check(&[]), Err((LoadError::DependencyMissing, 0)));
        let foreign = Provider { publisher: name("evil"), ..provider(2) };
        assert_eq!(check(&[foreign]), Err((LoadError::DependencyMissing, 0)));
    }
}
