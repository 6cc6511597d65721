//! LoadScopes: what a requester may load, by the badge of the capability that it uses (the book, Load protocol).

use sila_abi::manifest::ModuleKind;
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

/// Which names a scope covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// All.
    Any,
    /// Those that begin so.
    Prefix(&'static str),
}

impl Names {
    fn cover(self, name: &Name) -> bool {
        match self {
            Self::Any => true,
            Self::Prefix(prefix) => name.as_str().starts_with(prefix),
        }
    }
}

/// What a requester may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scope {
    /// The badge that stands for it.
    pub badge: u64,
    /// Names of modules that it may load.
    pub names: Names,
    /// Whether it may load agents, besides services.
    pub agents: bool,
    /// How many modules it may have at one time.
    pub instances: usize,
    /// Whether it may grant capabilities of its own by name.
    pub grants: bool,
    /// Whether it may stop and see the modules of others.
    pub all: bool,
    /// The priority of what it loads, unless the manifest's ceiling is lower.
    pub priority: u8,
}

/// The badge of the console.
pub const CONSOLE: u64 = 1;
/// The badge of the in-guest tests.
pub const TESTS: u64 = 2;
/// The badge of the root supervisor.
pub const SUPERVISOR: u64 = 3;

/// The scopes there are. A badge without a scope may do nothing.
pub const SCOPES: [Scope; 3] = [
    Scope {
        badge: CONSOLE,
        names: Names::Any,
        agents: true,
        instances: 24,
        grants: false,
        all: true,
        priority: 64,
    },
    Scope {
        badge: TESTS,
        names: Names::Any,
        agents: true,
        instances: 24,
        grants: true,
        all: true,
        priority: 64,
    },
    Scope {
        badge: SUPERVISOR,
        names: Names::Any,
        agents: true,
        instances: 8,
        grants: false,
        all: true,
        priority: 96,
    },
];

impl Scope {
    /// The scope of a badge.
    ///
    /// # Errors
    /// [`LoadError::NoScope`].
    pub fn of(badge: u64) -> Result<&'static Self, LoadError> {
        SCOPES.iter().find(|scope| scope.badge == badge).ok_or(LoadError::NoScope)
    }

    /// Checks a request before anything is read.
    ///
    /// # Errors
    /// Which rule it breaks.
    pub fn check_request(
        &self,
        name: &Name,
        grants: &[Option<Name>],
        instances: usize,
    ) -> Result<(), LoadError> {
        if !self.names.cover(name) {
            return Err(LoadError::NameOutsideScope);
        }
        let reserved = |grant: &Name| RESERVED_GRANTS.contains(&grant.as_str());
        if grants.iter().flatten().any(|grant| !self.grants || reserved(grant)) {
            return Err(LoadError::GrantOutsideScope);
        }
        if instances >= self.instances {
            return Err(LoadError::TooManyInstances);
        }
        Ok(())
    }

    /// Checks the kind of a module that was verified.
    ///
    /// # Errors
    /// [`LoadError::NotAProcess`] or [`LoadError::KindOutsideScope`].
    pub const fn check_kind(&self, kind: ModuleKind) -> Result<(), LoadError> {
        match kind {
            ModuleKind::Library | ModuleKind::Model => Err(LoadError::NotAProcess),
            ModuleKind::Agent if !self.agents => Err(LoadError::KindOutsideScope),
            ModuleKind::Agent | ModuleKind::Service => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn narrow() -> Scope {
        let [console, ..] = SCOPES;
        Scope { names: Names::Prefix("demo."), agents: false, instances: 2, ..console }
    }

    #[test]
    fn badges_without_a_scope_are_refused() {
        for badge in [0, 4, 1 << 32, u64::MAX] {
            assert_eq!(Scope::of(badge), Err(LoadError::NoScope));
        }
        for scope in SCOPES {
            assert_eq!(Scope::of(scope.badge).map(|s| s.badge), Ok(scope.badge));
        }
    }

    #[test]
    fn a_scope_bounds_names_instances_and_grants() {
        let scope = narrow();
        assert_eq!(scope.check_request(&name("demo.a"), &[], 1), Ok(()));
        assert_eq!(scope.check_request(&name("other"), &[], 1), Err(LoadError::NameOutsideScope));
        assert_eq!(scope.check_request(&name("demo.a"), &[], 2), Err(LoadError::TooManyInstances));
        let grants = [Some(name("disk"))];
        assert_eq!(scope.check_request(&name("demo.a"), &grants, 0), Err(LoadError::GrantOutsideScope));
    }

    #[test]
    fn nobody_grants_under_a_reserved_name() {
        let scope = Scope { grants: true, ..narrow() };
        assert_eq!(scope.check_request(&name("demo.a"), &[Some(name("disk"))], 0), Ok(()));
        for reserved in RESERVED_GRANTS {
            let grants = [Some(name("disk")), Some(name(reserved))];
            assert_eq!(scope.check_request(&name("demo.a"), &grants, 0), Err(LoadError::GrantOutsideScope));
        }
    }

    #[test]
    fn only_processes_of_permitted_kinds_are_loaded() {
        let scope = narrow();
        assert_eq!(scope.check_kind(ModuleKind::Service), Ok(()));
        assert_eq!(scope.check_kind(ModuleKind::Agent), Err(LoadError::KindOutsideScope));
        assert_eq!(scope.check_kind(ModuleKind::Library), Err(LoadError::NotAProcess));
        assert_eq!(scope.check_kind(ModuleKind::Model), Err(LoadError::NotAProcess));
    }
}
