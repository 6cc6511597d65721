use super::*;

/// The stages that a load goes through, up to its end.
fn way(world: &mut World, instance: Instance) -> Vec<Stage> {
    let mut stages = Vec::new();
    for _ in 0..30 {
        let stage = world.manager.stage(instance).unwrap();
        stages.push(stage);
        match stage {
            Stage::Running => return stages,
            Stage::Decompressing => world.event(Event::Signalled).unwrap(),
            Stage::Initialising => world.event(Event::Ready(instance)).unwrap(),
            _ => world.succeed(),
        }
    }
    panic!("{stages:?}");
}

fn last(world: &World) -> Instance {
    world.manager.held().last().unwrap().0
}

#[test]
fn an_image_that_is_cached_is_neither_decompressed_nor_proved_again() {
    let mut world = World::new();
    world.in_cache.push([7; 32]);
    let request = world.load(CONSOLE, counter());
    let instance = last(&world);
    let stages = way(&mut world, instance);
    assert_eq!(
        stages,
        [
            Stage::Verifying,
            Stage::Checking,
            Stage::Endowing,
            Stage::Creating,
            Stage::Confirming,
            Stage::Starting,
            Stage::Initialising,
            Stage::Running,
        ]
    );
    world.loaded(request);
    // The handle is given back: an image that nobody holds can make room.
    assert_eq!(world.exists[&instance], Held::PROCESS);
}

#[test]
fn what_the_cache_takes_is_held_no_longer() {
    let mut world = World::new();
    world.has_cache = true;
    let request = world.load(CONSOLE, counter());
    let instance = world.run_to(Stage::Endowing);
    assert_eq!(world.exists[&instance], Held::GRANTS | Held::CACHED);
    way(&mut world, instance);
    world.loaded(request);
    assert_eq!(world.exists[&instance], Held::PROCESS);
}

#[test]
fn a_cache_that_takes_nothing_changes_nothing() {
    let mut world = World::new();
    let request = world.load(CONSOLE, counter());
    let instance = last(&world);
    let stages = way(&mut world, instance);
    assert!(stages.contains(&Stage::Caching) && stages.contains(&Stage::Checking));
    world.loaded(request);
    assert_eq!(world.exists[&instance], Held::OUTPUT | Held::PROCESS);
}

#[test]
fn a_load_from_the_cache_that_fails_undoes_everything() {
    for stage in [Stage::Endowing, Stage::Creating, Stage::Confirming, Stage::Starting] {
        for cached in [true, false] {
            let mut world = World::new();
            world.has_cache = true;
            world.in_cache.extend(cached.then_some([7; 32]));
            let request = world.load(CONSOLE, counter());
            world.run_to(stage);
            let failure = Failure::kernel(LoadError::CreateRefused, sila_abi::Error::KeyRevoked, 0);
            world.fail(failure);
            assert_eq!(world.failure(request), failure, "{stage:?}");
            world.assert_clean();
        }
    }
}
