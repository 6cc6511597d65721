use super::*;
use crate::entry::DECOMPRESSION_LIMIT;
use proptest::prelude::*;

fn random_step(world: &mut World, op: u8, pick: usize) {
    let steps = world.steps.len();
    world.depot = match pick % 5 {
        0 => Some(Ok(None)),
        1 => Some(Err(LoadError::DepotLost.into())),
        2 => None,
        minor => Some(Ok(Some(Found { version: Version::new(minor as u16, 0, 0), len: 9 }))),
    };
    match op {
        0 => {
            let _ = world.load([CONSOLE, TESTS, 99][pick % 3], counter());
        }
        1 => {
            let _ = world.load(CONSOLE, Load::newest(name(["wasm", "nosuch"][pick % 2])));
        }
        2..=6 if steps > 0 => {
            world.steps.rotate_left(pick % steps);
            world.succeed();
        }
        7 if steps > 0 => {
            world.steps.rotate_left(pick % steps);
            world.fail(Failure::with(LoadError::SealRefused, 21, 0));
        }
        8 => world.event(Event::Signalled).unwrap(),
        9 => {
            world.now += (pick as u64) * 1_000_000_000;
            world.event(Event::Tick).unwrap();
        }
        10 => {
            if let Some(process) = world.processes.values().nth(pick % 8).copied() {
                let _ = world.stop([CONSOLE, TESTS, 99][pick % 3], process);
            }
        }
        op => {
            let instance = Instance(FIRST_INSTANCE + (pick % 12) as u64);
            let event = match op {
                11 | 12 => Event::Ready(instance),
                13 => Event::ReportedFailure { instance, code: 1 },
                14 => Event::Died { instance, cause: 3, code: 13 },
                _ => Event::Step { instance, result: Ok(Done::NotReady) },
            };
            let collects = matches!(&event, Event::Step { .. });
            if world.event(event).is_ok() && collects {
                // The result that was reported is that of a step under way, which is over now.
                let stale = |step: &Action| matches!(step, Action::Collect(i, _) if *i == instance);
                if let Some(at) = world.steps.iter().position(stale) {
                    world.steps.remove(at);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever happens in whatever order: no resource is lost or released twice (checked at each event), and each
    /// request gets exactly one reply.
    #[test]
    fn random_events_leak_nothing_and_answer_every_request(
        script in proptest::collection::vec((0u8..16, 0usize..64), 1..300),
    ) {
        let mut world = World::new();
        for (op, pick) in script {
            random_step(&mut world, op, pick);
        }
        for _ in 0..1000 {
            while !world.steps.is_empty() {
                world.fail(LoadError::VerifierLost.into());
            }
            world.now += DECOMPRESSION_LIMIT;
            world.event(Event::Tick).unwrap();
            for process in world.processes.values().copied().collect::<Vec<_>>() {
                world.stop(CONSOLE, process);
            }
            if world.exists.is_empty() && world.steps.is_empty() {
                break;
            }
        }
        world.assert_clean();
    }
}
