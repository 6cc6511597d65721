//! LoadScopes: what a requester may load, by the badge of the capability that it uses (the book, Load protocol). They
//! are a part of the signed policy.

use sila_abi::manifest::ModuleKind;
use sila_abi::policy::{LoadScope, covers};
use sila_abi::protocol::module_manager::LoadError;
use sila_abi::record::Name;

/// Grant names whose sources are ModuleManager's own; no requester gives them.
pub const RESERVED_GRANTS: [&str; 3] = [LIFECYCLE, REGISTRY, CLOCK];
/// Grant name of the capability to report to ModuleManager with.
pub const LIFECYCLE: &str = "lifecycle";
/// Grant name of ServiceRegistry.
pub const REGISTRY: &str = "registry";
/// Grant name of the Clock.
pub const CLOCK: &str = "clock";

/// The scope of a badge; without one it may do nothing.
///
/// # Errors
/// [`LoadError::NoScope`].
pub fn of(scopes: &[LoadScope], badge: u64) -> Result<&LoadScope, LoadError> {
    scopes.iter().find(|scope| scope.badge == badge).ok_or(LoadError::NoScope)
}

/// Checks a request before anything is read, of a requester who has so many modules.
///
/// # Errors
/// Which rule of the scope it breaks.
pub fn check_request(
    scope: &LoadScope,
    name: &Name,
    grants: &[Option<Name>],
    instances: usize,
) -> Result<(), LoadError> {
    if scope.names.is_some_and(|prefix| !covers(&prefix, name)) {
        return Err(LoadError::NameOutsideScope);
    }
    let reserved = |grant: &Name| RESERVED_GRANTS.contains(&grant.as_str());
    if grants.iter().flatten().any(|grant| !scope.grants || reserved(grant)) {
        return Err(LoadError::GrantOutsideScope);
    }
    if instances >= usize::from(scope.instances) {
        return Err(LoadError::TooManyInstances);
    }
    Ok(())
}

/// Checks the kind of a module that was verified.
///
/// # Errors
/// [`LoadError::NotAProcess`] or [`LoadError::KindOutsideScope`].
pub const fn check_kind(scope: &LoadScope, kind: ModuleKind) -> Result<(), LoadError> {
    match kind {
        ModuleKind::Library | ModuleKind::Model => Err(LoadError::NotAProcess),
        ModuleKind::Agent if !scope.agents => Err(LoadError::KindOutsideScope),
        ModuleKind::Agent | ModuleKind::Service => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn narrow() -> LoadScope {
        LoadScope {
            name: name("narrow"),
            badge: 7,
            names: Some(name("demo")),
            agents: false,
            instances: 2,
            grants: false,
            all: false,
            priority: 64,
        }
    }

    #[test]
    fn badges_without_a_scope_are_refused() {
        let scopes = [narrow()];
        for badge in [0, 6, 8, 1 << 32, u64::MAX] {
            assert_eq!(of(&scopes, badge), Err(LoadError::NoScope));
        }
        assert_eq!(of(&scopes, 7), Ok(&narrow()));
        assert_eq!(of(&[], 7), Err(LoadError::NoScope));
    }

    #[test]
    fn a_scope_bounds_names_instances_and_grants() {
        let scope = narrow();
        assert_eq!(check_request(&scope, &name("demo.a"), &[], 1), Ok(()));
        for other in ["other", "demolition", "dem"] {
            assert_eq!(check_request(&scope, &name(other), &[], 1), Err(LoadError::NameOutsideScope));
        }
        let any = LoadScope { names: None, ..scope };
        assert_eq!(check_request(&any, &name("other"), &[], 1), Ok(()));
        assert_eq!(check_request(&scope, &name("demo.a"), &[], 2), Err(LoadError::TooManyInstances));
        let grants = [Some(name("disk"))];
        assert_eq!(check_request(&scope, &name("demo.a"), &grants, 0), Err(LoadError::GrantOutsideScope));
    }

    #[test]
    fn nobody_grants_under_a_reserved_name() {
        let scope = LoadScope { grants: true, ..narrow() };
        assert_eq!(check_request(&scope, &name("demo.a"), &[Some(name("disk"))], 0), Ok(()));
        for reserved in RESERVED_GRANTS {
            let grants = [Some(name("disk")), Some(name(reserved))];
            assert_eq!(check_request(&scope, &name("demo.a"), &grants, 0), Err(LoadError::GrantOutsideScope));
        }
    }

    #[test]
    fn only_processes_of_permitted_kinds_are_loaded() {
        let scope = narrow();
        assert_eq!(check_kind(&scope, ModuleKind::Service), Ok(()));
        assert_eq!(check_kind(&scope, ModuleKind::Agent), Err(LoadError::KindOutsideScope));
        assert_eq!(check_kind(&LoadScope { agents: true, ..scope }, ModuleKind::Agent), Ok(()));
        assert_eq!(check_kind(&scope, ModuleKind::Library), Err(LoadError::NotAProcess));
        assert_eq!(check_kind(&scope, ModuleKind::Model), Err(LoadError::NotAProcess));
    }
}
