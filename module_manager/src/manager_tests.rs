use super::*;
use crate::event::Found;
use sila_abi::manifest::{Codec, Dependency, ModuleKind};
use sila_abi::policy::Policy;
use sila_abi::protocol::module_manager::Loaded;
use sila_abi::record::{Bounded, Digest, Name, VersionRange};
use std::collections::BTreeMap;

#[path = "manager_tests/cache.rs"]
mod cache;
#[path = "manager_tests/depot.rs"]
mod depot;
#[path = "manager_tests/policy.rs"]
mod policies;
#[path = "manager_tests/random.rs"]
mod random;
#[path = "manager_tests/world.rs"]
mod world;
use world::World;

const CONSOLE: u64 = 1;
const TESTS: u64 = 2;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub(crate) fn package(module: &str, minor: u16) -> PackageRef {
    PackageRef {
        origin: Origin::Bundle,
        name: name(module),
        version: Version::new(1, minor, 0),
        offset: 4096,
        len: 5000,
    }
}

pub(crate) fn facts_of(package: &PackageRef) -> Facts {
    Facts {
        name: package.name,
        version: package.version,
        publisher: name("pub"),
        kind: ModuleKind::Service,
        digest: [7; 32],
        codec: Codec::Zstd,
        image_len: 8192,
        payload_offset: package.offset + 128,
        payload_len: 1000,
        init_deadline_ms: 2000,
        max_priority: 50,
        key_id: [3; 32],
        terms: crate::contract::Terms {
            contract: sila_abi::contract::Contract::default(),
            asked: 0,
            mandatory: 0,
            own: 0,
            security_version: 0,
            max_threads: 1,
        },
        dependencies: Vec::new(),
        requests: Vec::new(),
    }
}

fn scope(badge: u64, grants: bool) -> LoadScope {
    let name = name(if grants { "tests" } else { "console" });
    LoadScope { name, badge, names: None, agents: true, instances: 24, grants, all: true, priority: 64 }
}

fn policy() -> Policy {
    Policy {
        max_decompressions: 2,
        max_window_log: 23,
        scopes: Bounded::from_vec(vec![scope(CONSOLE, false), scope(TESTS, true)]).unwrap(),
        ..crate::keys::tests::policy()
    }
}

fn counter() -> Load {
    Load::newest(name("counter"))
}

#[test]
fn a_load_goes_through_every_step_and_is_answered_when_ready() {
    let mut world = World::new();
    let request = world.load(CONSOLE, counter());
    let instance = world.run_to(Stage::Initialising);
    assert!(world.replies.is_empty());
    world.event(Event::Ready(instance)).unwrap();
    let loaded = world.loaded(request);
    assert_eq!((loaded.version, loaded.publisher), (Version::new(1, 3, 0), name("pub")));
    assert_eq!(world.exists[&instance], Held::OUTPUT | Held::PROCESS);
}

#[test]
fn a_failure_at_each_step_undoes_everything_and_is_reported() {
    let steps = [
        Stage::Verifying,
        Stage::Checking,
        Stage::Allocating,
        Stage::Submitting,
        Stage::Collecting,
        Stage::Sealing,
        Stage::Proving,
        Stage::Caching,
        Stage::Endowing,
        Stage::Creating,
        Stage::Confirming,
        Stage::Starting,
    ];
    for stage in steps {
        let mut world = World::new();
        let request = world.load(CONSOLE, counter());
        world.run_to(stage);
        let failure = Failure::kernel(LoadError::CreateRefused, sila_abi::Error::BinarySignature, 3);
        world.fail(failure);
        assert_eq!(world.failure(request), failure, "{stage:?}");
        world.assert_clean();
        assert!(world.unregistered.is_empty());
        assert_eq!(world.manager.list(CONSOLE, 0), Err(LoadError::NoMoreEntries));
    }
}

#[test]
fn a_stored_payload_is_copied_and_not_decompressed() {
    let mut world = World::new();
    let request = world.load(CONSOLE, counter());
    world.succeed_with(|facts| facts.codec = Codec::None);
    world.succeed();
    world.succeed();
    assert!(matches!(world.steps[..], [Action::Copy(..)]));
    world.run_to(Stage::Running);
    world.loaded(request);
    let mut world = World::new();
    let request = world.load(CONSOLE, counter());
    world.succeed_with(|facts| facts.codec = Codec::None);
    world.run_to(Stage::Copying);
    world.fail(LoadError::CopyRefused.into());
    assert_eq!(world.failure(request).error, LoadError::CopyRefused);
    world.assert_clean();
}

#[test]
fn a_failed_initialisation_terminates_and_unregisters_before_the_reply() {
    let mut world = World::new();
    let request = world.load(CONSOLE, counter());
    let instance = world.run_to(Stage::Initialising);
    world.event(Event::ReportedFailure { instance, code: 77 }).unwrap();
    assert!(world.exists.is_empty() && world.replies.is_empty());
    world.succeed();
    assert_eq!(world.failure(request), Failure::with(LoadError::InitFailed, 77, 0));
    assert_eq!(world.unregistered, [instance]);
    world.assert_clean();
}

#[test]
fn a_module_that_dies_while_it_initialises_fails_its_load() {
    let mut world = World::new();
    let request = world.load(CONSOLE, counter());
    let instance = world.run_to(Stage::Initialising);
    world.event(Event::Died { instance, cause: 3, code: 14 }).unwrap();
    world.succeed();
    assert_eq!(world.failure(request), Failure::with(LoadError::InitDied, 3, 14));
    world.assert_clean();
}

#[test]
fn a_module_that_is_not_ready_in_time_fails_its_load() {
    let mut world = World::new();
    let request = world.load(CONSOLE, counter());
    let instance = world.run_to(Stage::Initialising);
    let deadline = world.manager.next_deadline().unwrap();
    assert_eq!(deadline, world.now + 2_000_000_000);
    world.now = deadline - 1;
    world.event(Event::Tick).unwrap();
    assert_eq!(world.manager.stage(instance), Some(Stage::Initialising));
    world.now = deadline;
    world.event(Event::Tick).unwrap();
    world.succeed();
    assert_eq!(world.failure(request).error, LoadError::InitDeadline);
    world.assert_clean();
    assert_eq!(world.manager.next_deadline(), None);
}

#[test]
fn a_decompression_that_never_ends_is_cancelled() {
    let mut world = World::new();
    let request = world.load(CONSOLE, counter());
    world.run_to(Stage::Decompressing);
    world.now = world.manager.next_deadline().unwrap();
    world.event(Event::Tick).unwrap();
    assert_eq!(world.failure(request).error, LoadError::DecompressionLost);
    world.assert_clean();
}

#[test]
fn an_early_signal_is_not_lost() {
    let mut world = World::new();
    world.load(CONSOLE, counter());
    let instance = world.run_to(Stage::Submitting);
    world.event(Event::Signalled).unwrap();
    world.succeed();
    assert_eq!(world.manager.stage(instance), Some(Stage::Collecting));
    world.event(Event::Signalled).unwrap();
    world.steps.clear();
    world.event(Event::Step { instance, result: Ok(Done::NotReady) }).unwrap();
    assert_eq!(world.manager.stage(instance), Some(Stage::Collecting));
    world.steps.clear();
    world.event(Event::Step { instance, result: Ok(Done::NotReady) }).unwrap();
    assert_eq!(world.manager.stage(instance), Some(Stage::Decompressing));
}

#[test]
fn the_signal_of_another_job_does_not_end_the_wait_or_its_deadline() {
    let mut world = World::new();
    world.load(CONSOLE, counter());
    let instance = world.run_to(Stage::Decompressing);
    let deadline = world.manager.next_deadline();
    world.now += 5;
    world.event(Event::Signalled).unwrap();
    assert_eq!(world.manager.next_deadline(), None);
    world.steps.clear();
    world.event(Event::Step { instance, result: Ok(Done::NotReady) }).unwrap();
    assert_eq!(world.manager.next_deadline(), deadline);
}

#[test]
fn concurrent_requests_for_the_same_content_share_one_load() {
    let mut world = World::new();
    let first = world.load(CONSOLE, counter());
    world.run_to(Stage::Creating);
    let second = world.load(CONSOLE, counter());
    let foreign = world.load(TESTS, counter());
    assert_eq!(world.exists.len(), 2, "another requester pays for its own");
    world.succeed();
    while world.replies.len() < 3 {
        for instance in world.manager.watched().collect::<Vec<_>>() {
            let _ = world.event(Event::Ready(instance));
        }
        let _ = world.event(Event::Signalled);
        if !world.steps.is_empty() {
            world.succeed();
        }
    }
    assert_eq!(world.loaded(first), world.loaded(second));
    assert_ne!(world.loaded(first).process, world.loaded(foreign).process);
}

#[test]
fn requests_that_share_a_load_share_its_failure() {
    let mut world = World::new();
    let requests: Vec<_> = (0..MAX_WAITERS).map(|_| world.load(CONSOLE, counter())).collect();
    let late = world.load(CONSOLE, counter());
    assert_eq!(world.failure(late).error, LoadError::Busy);
    world.fail(LoadError::PackageSignature.into());
    for request in requests {
        assert_eq!(world.failure(request).error, LoadError::PackageSignature);
    }
    world.assert_clean();
}

#[test]
fn loads_with_other_digests_or_grants_are_not_shared() {
    let mut world = World::new();
    world.load(TESTS, counter());
    world.load(TESTS, Load { digest: Some([7; 32]), ..counter() });
    world.load(TESTS, Load { grants: [Some(name("disk")), None, None], ..counter() });
    world.load(TESTS, Load { grants: [Some(name("disk")), None, None], ..counter() });
    assert_eq!(world.exists.len(), 4);
}

#[test]
fn a_verified_package_must_be_the_one_that_was_meant() {
    type Change = fn(&mut Facts);
    let cases: [(Change, LoadError); 4] = [
        (|facts| facts.name = name("other"), LoadError::NameMismatch),
        (|facts| facts.version = Version::new(1, 0, 0), LoadError::VersionMismatch),
        (|facts| facts.digest = [8; 32], LoadError::DigestMismatch),
        (|facts| facts.kind = ModuleKind::Library, LoadError::NotAProcess),
    ];
    for (change, error) in cases {
        let mut world = World::new();
        let request = world.load(CONSOLE, Load { digest: Some([7; 32]), ..counter() });
        world.succeed_with(change);
        assert_eq!(world.failure(request).error, error);
        world.assert_clean();
    }
}

#[test]
fn dependencies_must_run_before() {
    let wanted = Dependency {
        publisher: name("pub"),
        name: name("wasm"),
        versions: VersionRange { min: Version::MIN, max: Version::MAX },
        export_digest: [0; 32],
    };
    let mut world = World::new();
    let request = world.load(CONSOLE, counter());
    world.succeed_with(|facts| facts.dependencies = vec![wanted]);
    assert_eq!(world.failure(request), Failure::with(LoadError::DependencyMissing, 0, 0));
    world.assert_clean();
    world.load(CONSOLE, Load::newest(name("wasm")));
    world.run_to(Stage::Running);
    world.load(CONSOLE, counter());
    world.succeed_with(|facts| facts.dependencies = vec![wanted]);
    let instance = world.run_to(Stage::Running);
    assert_eq!(world.manager.stage(instance), Some(Stage::Running));
}

#[test]
fn unknown_names_versions_and_requesters_are_refused_at_once() {
    let mut world = World::new();
    let nosuch = world.load(CONSOLE, Load::newest(name("nosuch")));
    let version = world.load(CONSOLE, Load { version: Some(Version::new(9, 0, 0)), ..counter() });
    let stranger = world.load(99, counter());
    let grant = world.load(CONSOLE, Load { grants: [Some(name("disk")), None, None], ..counter() });
    assert_eq!(world.failure(nosuch).error, LoadError::NoSuchModule);
    assert_eq!(world.failure(version).error, LoadError::NoSuchVersion);
    assert_eq!(world.failure(stranger).error, LoadError::NoScope);
    assert_eq!(world.failure(grant).error, LoadError::GrantOutsideScope);
    world.assert_clean();
}

#[test]
fn loads_under_way_are_limited() {
    let mut world = World::new();
    for _ in 0..MAX_LOADS {
        world.load(TESTS, Load { grants: [Some(name("disk")), None, None], ..counter() });
    }
    let late = world.load(CONSOLE, counter());
    assert_eq!(world.failure(late).error, LoadError::Busy);
    assert_eq!(world.exists.len(), MAX_LOADS);
}

#[test]
fn stop_ends_a_module_and_answers_when_it_is_unregistered() {
    let mut world = World::new();
    world.load(CONSOLE, counter());
    let instance = world.run_to(Stage::Running);
    let process = world.processes[&instance];
    let stop = world.stop(CONSOLE, process);
    assert!(world.exists.is_empty() && !world.replies.contains_key(&stop));
    let again = world.stop(CONSOLE, process);
    assert_eq!(world.failure(again).error, LoadError::AlreadyEnding);
    world.succeed();
    assert!(matches!(world.replies[&stop], Action::Stopped(_)));
    let record = world.manager.list(CONSOLE, 0).unwrap();
    assert_eq!((record.state.name(), record.cause, record.process), ("ended", TERMINATED, process));
    let late = world.stop(CONSOLE, process);
    assert_eq!(world.failure(late).error, LoadError::NoSuchProcess);
    world.assert_clean();
}

#[test]
fn stop_during_initialisation_answers_both() {
    let mut world = World::new();
    let load = world.load(CONSOLE, counter());
    let instance = world.run_to(Stage::Initialising);
    let stop = world.stop(TESTS, world.processes[&instance]);
    world.succeed();
    assert_eq!(world.failure(load).error, LoadError::Stopped);
    assert!(matches!(world.replies[&stop], Action::Stopped(_)));
    world.assert_clean();
}

#[test]
fn nothing_but_a_process_can_be_stopped() {
    let mut world = World::new();
    let none = world.stop(CONSOLE, 0);
    let strange = world.stop(CONSOLE, 4711);
    let unknown = world.stop(99, 4711);
    assert_eq!(world.failure(none).error, LoadError::NoSuchProcess);
    assert_eq!(world.failure(strange).error, LoadError::NoSuchProcess);
    assert_eq!(world.failure(unknown).error, LoadError::NoScope);
    world.load(CONSOLE, counter());
    world.run_to(Stage::Creating);
    let early = world.stop(CONSOLE, 0);
    assert_eq!(world.failure(early).error, LoadError::NoSuchProcess);
}

#[test]
fn a_module_that_dies_is_unregistered_and_listed_with_its_cause() {
    let mut world = World::new();
    world.load(CONSOLE, counter());
    let instance = world.run_to(Stage::Running);
    world.event(Event::Died { instance, cause: 3, code: 14 }).unwrap();
    world.fail(LoadError::UnknownRequest.into());
    assert_eq!(world.unregistered, [instance]);
    let record = world.manager.list(CONSOLE, 0).unwrap();
    assert_eq!((record.state.name(), record.cause, record.code), ("ended", 3, 14));
    world.assert_clean();
}

#[test]
fn reports_out_of_place_are_refused() {
    let mut world = World::new();
    world.load(CONSOLE, counter());
    let instance = world.run_to(Stage::Creating);
    let stranger = Instance(FIRST_INSTANCE + 99);
    for who in [instance, stranger] {
        assert_eq!(world.event(Event::Ready(who)), Err(Illegal::Report));
        assert_eq!(world.event(Event::ReportedFailure { instance: who, code: 1 }), Err(Illegal::Report));
        assert_eq!(world.event(Event::Died { instance: who, cause: 1, code: 0 }), Err(Illegal::NoProcess));
    }
    world.run_to(Stage::Running);
    assert_eq!(world.event(Event::Ready(instance)), Err(Illegal::Report));
}

#[test]
fn results_that_belong_to_no_step_are_refused() {
    let mut world = World::new();
    world.load(CONSOLE, counter());
    let instance = world.run_to(Stage::Verifying);
    for done in [Done::Plain, Done::Created(4), Done::Submitted(4), Done::NotReady, Done::Located(None)] {
        assert_eq!(world.event(Event::Step { instance, result: Ok(done) }), Err(Illegal::Step));
    }
    let stranger = Instance(1);
    let result = Err(LoadError::Busy.into());
    assert_eq!(world.event(Event::Step { instance: stranger, result }), Err(Illegal::Step));
}

#[test]
fn the_table_forgets_the_oldest_ended_module_and_no_other() {
    let mut world = World::new();
    for _ in 0..MAX_MODULES + 3 {
        world.load(CONSOLE, counter());
        let instance = world.run_to(Stage::Running);
        world.event(Event::Died { instance, cause: 1, code: 0 }).unwrap();
        world.succeed();
    }
    let first = world.manager.list(CONSOLE, 0).unwrap();
    assert_eq!(first.cursor, FIRST_INSTANCE + 3);
    world.assert_clean();
}
