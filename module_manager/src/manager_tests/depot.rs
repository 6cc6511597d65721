//! Loads from the depot: it is asked, and not believed.

use super::*;
use sila_abi::protocol::depot::{Versions, Wanted};

const LEN: u64 = 700;

fn found(version: Version) -> Option<Result<Option<Found>, Failure>> {
    Some(Ok(Some(Found { version, len: LEN })))
}

fn pushed() -> Version {
    Version::new(2, 0, 0)
}

fn verified(world: &World) -> PackageRef {
    match world.steps.first() {
        Some(Action::Verify(_, package)) => *package,
        other => panic!("not verifying: {other:?}"),
    }
}

#[test]
fn a_newer_package_of_the_depot_is_loaded_and_its_region_kept_until_the_module_runs() {
    let mut world = World::new();
    world.depot = found(pushed());
    let request = world.load(CONSOLE, counter());
    let package = verified(&world);
    assert_eq!(
        (package.origin, package.version, package.offset, package.len),
        (Origin::Depot, pushed(), 0, LEN)
    );
    let instance = world.run_to(Stage::Initialising);
    assert!(world.exists[&instance].contains(Held::PACKAGE));
    world.run_to(Stage::Running);
    assert_eq!(world.loaded(request).version, pushed());
    assert_eq!(world.exists[&instance], Held::OUTPUT | Held::PROCESS);
}

#[test]
fn a_package_of_the_depot_that_is_not_newer_is_given_back_at_once() {
    for version in [Version::new(1, 3, 0), Version::MIN] {
        let mut world = World::new();
        world.depot = found(version);
        world.load(CONSOLE, counter());
        assert_eq!(verified(&world).origin, Origin::Bundle);
        let (instance, _) = world.manager.held().last().unwrap();
        assert_eq!(world.exists[&instance], Held::GRANTS);
    }
}

#[test]
fn a_name_that_only_the_depot_knows_is_loaded_from_there_or_fails() {
    let other = || Load::newest(name("pushed"));
    let mut world = World::new();
    world.depot = found(pushed());
    let request = world.load(CONSOLE, other());
    world.run_to(Stage::Running);
    assert_eq!(world.loaded(request).version, pushed());
    let mut world = World::new();
    world.depot = Some(Err(LoadError::DepotLost.into()));
    let request = world.load(CONSOLE, other());
    assert_eq!(world.failure(request).error, LoadError::DepotLost);
    world.assert_clean();
}

#[test]
fn a_depot_that_does_not_answer_stops_no_load_of_the_bundle() {
    let mut world = World::new();
    world.depot = Some(Err(LoadError::DepotLost.into()));
    let request = world.load(CONSOLE, counter());
    world.run_to(Stage::Running);
    assert_eq!(world.loaded(request).version, Version::new(1, 3, 0));
    let exact = Load { version: Some(Version::new(1, 0, 0)), ..counter() };
    world.depot = None;
    world.load(CONSOLE, exact);
    assert_eq!(verified(&world).version, Version::new(1, 0, 0), "nobody asks the depot");
}

#[test]
fn an_unfit_package_is_followed_by_an_older_one_and_that_by_the_bundle_s() {
    let mut world = World::new();
    world.depot = found(Version::MAX);
    let request = world.load(CONSOLE, counter());
    world.depot = None;
    world.fail(LoadError::PackageSignature.into());
    let wanted = Wanted { name: name("counter"), versions: Versions::Below(Version::MAX) };
    assert!(matches!(world.steps[..], [Action::Locate(_, asked)] if asked == wanted), "{:?}", world.steps);
    world.depot = found(pushed());
    world.locate();
    assert_eq!(verified(&world).version, pushed());
    world.depot = Some(Ok(None));
    // Not what the depot said it was.
    world.succeed_with(|facts| facts.name = name("other"));
    world.locate();
    assert_eq!(verified(&world).origin, Origin::Bundle);
    world.run_to(Stage::Running);
    assert_eq!(world.loaded(request).version, Version::new(1, 3, 0));
}

#[test]
fn a_load_that_only_unfit_packages_answer_fails_with_the_first_one_s_reason() {
    let mut world = World::new();
    world.depot = found(Version::MAX);
    let request = world.load(CONSOLE, Load::newest(name("pushed")));
    world.depot = Some(Ok(None));
    world.fail(LoadError::PackageKeyRevoked.into());
    world.locate();
    assert_eq!(world.failure(request).error, LoadError::PackageKeyRevoked);
    world.assert_clean();
}

#[test]
fn a_depot_that_always_has_another_unfit_package_does_not_keep_a_load_for_ever() {
    let mut world = World::new();
    let request = {
        world.depot = found(Version::MAX);
        world.load(CONSOLE, counter())
    };
    for minor in (0..u16::from(crate::search::MAX_ATTEMPTS)).rev() {
        assert_eq!(verified(&world).origin, Origin::Depot);
        world.depot = found(Version::new(9, minor, 0));
        world.fail(LoadError::PackageSignature.into());
        world.locate();
    }
    assert_eq!(verified(&world).origin, Origin::Bundle);
    world.run_to(Stage::Running);
    world.loaded(request);
}

#[test]
fn only_the_depot_s_answer_ends_the_search() {
    let mut world = World::new();
    world.depot = None;
    world.load(CONSOLE, counter());
    let (instance, _) = world.manager.held().last().unwrap();
    assert_eq!(world.manager.stage(instance), Some(Stage::Locating));
    for done in [
        Done::Plain,
        Done::Created(4),
        Done::NotReady,
        Done::Verified(Box::new(facts_of(&package("counter", 3)))),
    ] {
        assert_eq!(world.event(Event::Step { instance, result: Ok(done) }), Err(Illegal::Step));
    }
    assert_eq!(world.event(Event::Ready(instance)), Err(Illegal::Report));
    world.succeed();
    assert_eq!(world.manager.stage(instance), Some(Stage::Verifying));
}
