//! References that tick, and that do not: no measurement runs for ever, and none is believed that can't be.

use super::*;
use proptest::prelude::*;

/// A machine of known rates, on which a reading takes some time and something may come in between.
struct World {
    ns: u64,
    tsc_hz: u64,
    timer_hz: u64,
    reference_hz: u64,
    /// Nanoseconds that pass between two readings.
    pace: u64,
    readings: u32,
}

impl World {
    fn new(tsc_hz: u64, reference_hz: u64) -> Self {
        Self { ns: 5_000, tsc_hz, timer_hz: 62_500_000, reference_hz, pace: 1_000, readings: 0 }
    }

    fn scaled(&self, hz: u64) -> u64 {
        (u128::from(self.ns) * u128::from(hz) / 1_000_000_000) as u64
    }

    fn read(&mut self, between: u64) -> Reading {
        self.readings += 1;
        self.ns += self.pace;
        let before = self.scaled(self.tsc_hz);
        self.ns += between;
        let (ticks, timer) = (self.scaled(self.reference_hz), u32::MAX - self.scaled(self.timer_hz) as u32);
        self.ns += 50;
        Reading { before, ticks, timer, after: self.scaled(self.tsc_hz) }
    }
}

/// Runs a measurement to its end; the pauses come inside or between readings.
fn measure(world: &mut World, inside: impl Fn(u32) -> u64, between: impl Fn(u32) -> u64) -> Option<Sample> {
    let mut m = Measurement::new(world.reference_hz);
    for turn in 0..=MAX_READINGS {
        world.ns += between(turn);
        match m.step(world.read(inside(turn))) {
            Step::More => {}
            Step::Done(sample) => return Some(sample),
            Step::Dead => return None,
        }
    }
    panic!("it ran for ever");
}

fn named(name: &'static str, tsc_hz: u64) -> Named {
    (name, Some(Sample { tsc: tsc_hz / 100, timer: 625_000, ns: 10_000_000, doubt: 0, shaky: false }))
}

const PM: u64 = 3_579_545;

#[test]
fn rates_are_found_within_a_thousandth_on_every_machine() {
    for tsc_hz in [100_000_000, 1_000_000_000, 2_400_000_000, 5_700_000_000] {
        for reference in [PM, 1_193_182, 14_318_180, 100_000_000] {
            let sample = measure(&mut World::new(tsc_hz, reference), |_| 0, |_| 0);
            let found = rates(&("x", sample)).unwrap();
            assert!(near(found.tsc_hz, tsc_hz, 1000), "{tsc_hz} {reference} {found:?}");
            assert!(near(found.timer_hz, 62_500_000, 1000), "{found:?}");
            assert!(!sample.unwrap().shaky);
        }
    }
}

#[test]
fn one_machine_has_one_rate_wherever_between_two_ticks_a_measurement_begins() {
    for (tsc_hz, timer_hz) in
        [(1_000_000_000, 62_500_000), (2_593_000_000, 1_500_000), (3_700_000_000, 6_250_000)]
    {
        for ns in 5_000..5_300 {
            let mut world = World { ns, timer_hz, ..World::new(tsc_hz, PM) };
            let found = rates(&("x", measure(&mut world, |_| 0, |_| 0))).unwrap();
            assert_eq!((found.tsc_hz, found.timer_hz), (tsc_hz, timer_hz), "{ns}");
        }
    }
}

#[test]
fn a_rate_that_the_measurement_denies_is_not_rounded_to() {
    let rate = |tsc, doubt| {
        let sample = Sample { tsc, timer: 625_000, ns: 10_000_000, doubt, shaky: false };
        rates(&("x", Some(sample))).unwrap().tsc_hz
    };
    assert_eq!(rate(10_000_123, 0), 1_000_012_300);
    assert_eq!(rate(10_000_123, 100), 1_000_012_300);
    assert_eq!(rate(10_000_123, 200), 1_000_000_000);
    assert_eq!(rate(25_920_700, 560), 2_592_000_000);
    assert_eq!(rate(19_967_900, 560), 1_996_800_000);
    assert_eq!(rate(19_968_000, 20), 1_996_800_000);
}

#[test]
fn what_comes_in_between_is_not_measured() {
    // The host takes the processor away for 7 ms, in the midst of a reading or between two.
    for at in [3, 9, 200, 3_000, 9_000, 9_990] {
        let pause = |turn| if turn == at { 7_000_000 } else { 0 };
        for (inside, between) in [(true, false), (false, true)] {
            let mut world = World::new(2_000_000_000, PM);
            let sample = measure(
                &mut world,
                |turn| if inside { pause(turn) } else { 0 },
                |turn| if between { pause(turn) } else { 0 },
            );
            let found = rates(&("x", sample)).unwrap();
            assert!(near(found.tsc_hz, 2_000_000_000, 500), "{at} {inside} {found:?}");
        }
    }
    // It does so all the time: then the result is called shaky.
    let mut world = World::new(2_000_000_000, PM);
    let sample = measure(&mut world, |turn| if turn % 10 == 0 { 4_000_000 } else { 0 }, |_| 0).unwrap();
    assert!(sample.shaky);
}

#[test]
fn references_that_do_not_tick_are_dead_after_few_readings() {
    let run = |read: &mut dyn FnMut(u32) -> Reading| {
        let mut m = Measurement::new(PM);
        for turn in 0..=MAX_READINGS {
            match m.step(read(turn)) {
                Step::More => {}
                Step::Done(sample) => return (turn, Some(sample)),
                Step::Dead => return (turn, None),
            }
        }
        panic!("it ran for ever");
    };
    let at = |turn: u32, ticks| Reading {
        before: u64::from(turn) * 1000,
        after: u64::from(turn) * 1000 + 100,
        ticks,
        timer: u32::MAX - turn,
    };
    for stuck in [0, 0xff_ffff, u64::MAX] {
        let (turns, sample) = run(&mut |turn| at(turn, stuck));
        assert!(sample.is_none() && turns <= MAX_STILL + 1);
    }
    // It stops in the midst.
    assert!(run(&mut |turn| at(turn, u64::from(turn.min(1000)))).1.is_none());
    // It goes back.
    assert!(run(&mut |turn| at(turn, 1_000_000 - u64::from(turn))).1.is_none());
    // It creeps: never still for long, and never there.
    let (turns, sample) = run(&mut |turn| at(turn, u64::from(turn / 19_000)));
    assert!(sample.is_none() && turns <= MAX_READINGS);
    // The time stamp counter stands or goes back: nothing to believe.
    let (_, sample) = run(&mut |turn| Reading { before: 7, after: 7, ..at(turn, u64::from(turn) * 10) });
    assert_eq!(rates(&("x", sample)), None);
    let back = |turn: u32| Reading { before: 1 << (40 - turn % 30), ..at(turn, u64::from(turn)) };
    assert!(run(&mut |turn| back(turn)).1.is_none());
}

#[test]
fn rates_that_no_processor_has_are_not_believed() {
    for (tsc, timer, ns, good) in [
        (10_000_000, 625_000, 10_000_000, true),
        (0, 625_000, 10_000_000, false),
        (10_000_000, 0, 10_000_000, false),
        (10_000_000, 625_000, 0, false),
        (499_999, 625_000, 10_000_000, false),
        (200_000_001, 625_000, 10_000_000, false),
        (10_000_000, 99, 10_000_000, false),
        (10_000_000, 10_000_001, 10_000_000, false),
        (u64::MAX, u64::MAX, 1, false),
        (u64::MAX, 625_000, u64::MAX, false),
    ] {
        let sample = Some(Sample { tsc, timer, ns, doubt: 0, shaky: false });
        assert_eq!(rates(&("x", sample)).is_some(), good, "{tsc} {timer} {ns}");
    }
}

#[test]
fn two_that_agree_outweigh_one_and_the_processor_s_word_decides_a_tie() {
    let (right, wrong, odd) = (2_000_000_000, 2_600_000_000, 1_500_000_000);
    let source = |measured: &[Named], stated| choose(measured, stated).map(|r| r.source);
    assert_eq!(source(&[named("a", right), named("b", right)], None), Some("a"));
    assert_eq!(source(&[named("a", wrong), named("b", right), named("c", right)], None), Some("b"));
    assert_eq!(source(&[named("a", right), named("b", wrong), named("c", right)], None), Some("a"));
    assert_eq!(source(&[("a", None), named("b", right)], None), Some("b"));
    assert_eq!(source(&[named("a", wrong), named("b", right), named("c", odd)], None), Some("a"));
    assert_eq!(
        source(&[named("a", wrong), named("b", right), named("c", odd)], Some(right + 9_000_000)),
        Some("b")
    );
    assert_eq!(
        source(&[named("a", wrong), named("b", right)], Some(7)),
        Some("a"),
        "an absurd word counts for nothing"
    );
    let shaky = |(name, sample): Named| (name, sample.map(|s| Sample { shaky: true, ..s }));
    assert_eq!(source(&[shaky(named("a", wrong)), named("b", right)], None), Some("b"));
    assert_eq!(source(&[shaky(named("a", wrong)), ("b", None)], None), Some("a"));
    assert_eq!(source(&[("a", None), ("b", None)], Some(right)), None);
    assert_eq!(source(&[], None), None);
    // Agreement is about both clocks.
    let mut other = named("b", right);
    other.1 = other.1.map(|s| Sample { timer: 2 * s.timer, ..s });
    assert!(settled(&[named("a", right), other]).is_none());
    assert!(settled(&[named("a", right), named("b", right + right / 70)]).is_some());
    assert!(settled(&[named("a", right), named("b", right + right / 50)]).is_none());
}

#[test]
fn without_any_reference_there_is_still_a_rate() {
    assert_eq!(without_reference(Some(3_000_000_000)), (3_000_000_000, "CPUID"));
    for stated in [None, Some(0), Some(1), Some(u64::MAX)] {
        assert_eq!(without_reference(stated), (GUESS_HZ, "a guess"));
    }
    assert_eq!(timer_rate(None), 10_000);
    let sample = |timer| Some(Sample { tsc: 1, timer, ns: 10_000_000, doubt: 0, shaky: false });
    assert_eq!(timer_rate(sample(625_000)), 62_500_000);
    assert_eq!((timer_rate(sample(0)), timer_rate(sample(u64::MAX))), (10_000, 1_000_000_000));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_is_read_a_measurement_ends(hz: u64, seed: u64, tame: bool) {
        let mut m = Measurement::new(hz);
        let mut x = seed | 1;
        let mut sum = [0u64; 3];
        let mut ended = false;
        for _ in 0..=MAX_READINGS {
            let mut next = |i: usize| {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                sum[i] = if tame { sum[i].saturating_add(x >> 58) } else { x };
                sum[i]
            };
            let reading = Reading { before: next(0), ticks: next(1), timer: next(2) as u32, after: next(0) };
            if m.step(reading) != Step::More {
                ended = true;
                break;
            }
        }
        prop_assert!(ended);
    }

    #[test]
    fn whatever_was_measured_what_is_chosen_can_be(
        samples in proptest::collection::vec((any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>(), any::<bool>()), 0..4),
        stated: Option<u64>,
    ) {
        let measured: std::vec::Vec<Named> =
            samples.into_iter().map(|(tsc, timer, ns, doubt, shaky)| ("x", Some(Sample { tsc, timer, ns, doubt, shaky }))).collect();
        if let Some(r) = choose(&measured, stated) {
            prop_assert!(TSC_HZ.contains(&r.tsc_hz) && TIMER_HZ.contains(&r.timer_hz));
        }
        prop_assert!(TSC_HZ.contains(&without_reference(stated).0));
    }
}
