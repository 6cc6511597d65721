//! What policy says about loads holds from when it is in force.

use super::*;

fn grants(number: usize) -> Load {
    Load { grants: [Some(name(["a", "b", "c", "d"][number])), None, None], ..counter() }
}

/// Loads that are ready to be decompressed, and how many of them are.
fn crowd(policy: Policy) -> World {
    let mut world = World::new();
    world.event(Event::Policy(Box::new(policy))).unwrap();
    for number in 0..MAX_LOADS {
        world.load(TESTS, grants(number));
    }
    for _ in 0..3 * MAX_LOADS {
        let early =
            |step: &Action| matches!(step, Action::Verify(..) | Action::Check(..) | Action::CreateOutput(..));
        let at = world.steps.iter().position(early).unwrap();
        world.steps.rotate_left(at);
        world.succeed();
    }
    world
}

fn submitted(world: &World) -> usize {
    world.steps.iter().filter(|step| matches!(step, Action::Submit(..))).count()
}

#[test]
fn no_more_decompressions_are_under_way_than_policy_permits() {
    for limit in 1..=3 {
        let mut world = crowd(Policy { max_decompressions: limit, ..policy() });
        assert_eq!((submitted(&world), world.steps.len()), (usize::from(limit), usize::from(limit)));
        // A load that fails makes room for the next one, in order.
        world.fail(LoadError::DecompressionLost.into());
        assert_eq!(submitted(&world), usize::from(limit));
        // So does one that is collected.
        world.succeed();
        world.event(Event::Signalled).unwrap();
        let collects = |step: &Action| matches!(step, Action::Collect(..));
        let at = world.steps.iter().position(collects).unwrap();
        world.steps.rotate_left(at);
        let before = submitted(&world);
        world.succeed();
        let queued = MAX_LOADS - 1 - usize::from(limit);
        assert_eq!(submitted(&world), before + queued.min(1));
    }
}

#[test]
fn a_policy_that_permits_more_lets_who_waits_go_on_at_once() {
    let mut world = crowd(Policy { max_decompressions: 1, ..policy() });
    assert_eq!(submitted(&world), 1);
    world.event(Event::Policy(Box::new(Policy { max_decompressions: 3, ..policy() }))).unwrap();
    assert_eq!(submitted(&world), 3);
}

#[test]
fn without_a_policy_nobody_loads_and_a_new_one_holds_for_the_next_request() {
    let mut manager = Manager::new(vec![package("counter", 0)], Vec::new());
    let event = |request| Event::Load { request, requester: CONSOLE, target: Box::new(counter()) };
    let refused = |actions: Vec<Action>| matches!(actions[..], [Action::Refused(_, failure)] if failure.error == LoadError::NoScope);
    assert!(refused(manager.handle(1, event(RequestId(1))).unwrap()));
    manager.handle(1, Event::Policy(Box::new(policy()))).unwrap();
    assert!(!refused(manager.handle(1, event(RequestId(2))).unwrap()));
    let nobody = Policy { scopes: Bounded::from_vec(Vec::new()).unwrap(), ..policy() };
    manager.handle(1, Event::Policy(Box::new(nobody))).unwrap();
    assert!(refused(manager.handle(1, event(RequestId(3))).unwrap()));
}

#[test]
fn a_scope_that_is_taken_away_ends_the_loads_that_are_not_verified_yet() {
    let mut world = World::new();
    let request = world.load(CONSOLE, counter());
    let nobody = Policy { scopes: Bounded::from_vec(vec![scope(TESTS, true)]).unwrap(), ..policy() };
    world.event(Event::Policy(Box::new(nobody))).unwrap();
    world.succeed();
    assert_eq!(world.failure(request).error, LoadError::NoScope);
    world.assert_clean();
}

#[test]
fn the_scope_s_names_and_priority_hold() {
    let mut world = World::new();
    let narrow = LoadScope { names: Some(name("wasm")), priority: 7, ..scope(CONSOLE, false) };
    let narrow = Policy { scopes: Bounded::from_vec(vec![narrow]).unwrap(), ..policy() };
    world.event(Event::Policy(Box::new(narrow))).unwrap();
    let outside = world.load(CONSOLE, counter());
    assert_eq!(world.failure(outside).error, LoadError::NameOutsideScope);
    world.load(CONSOLE, Load::newest(name("wasm")));
    world.run_to(Stage::Creating);
    assert!(matches!(world.steps[..], [Action::Create(_, 7)]));
}
