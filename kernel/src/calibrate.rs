//! How fast the clocks of the processor run: measured against references whose rate is known.
//!
//! Owns: when a measurement is over, and which of several is believed. Pure: the edge reads the registers and
//! passes what it read. Invariants: a measurement ends after a bounded number of readings, whatever they say; no
//! rate outside of what processors have is ever believed; two references that agree outweigh one that does not; a rate
//! differs from the measured one by no more than the measurement may be wrong.

/// How long one measurement takes.
pub const MEASURE_NS: u64 = 10_000_000;
const NANOS: u64 = 1_000_000_000;
/// Readings after which a measurement is given up.
pub const MAX_READINGS: u32 = 2_000_000;
/// Readings without a change after which a reference counts as dead.
pub const MAX_STILL: u32 = 20_000;
/// Measurements that may begin again because something came in between.
pub const MAX_RESTARTS: u32 = 20;
/// Readings of which the narrowest is where a measurement begins.
const BEGIN: u32 = 8;

/// Rates that time stamp counters have.
const TSC_HZ: core::ops::RangeInclusive<u64> = 50_000_000..=20_000_000_000;
/// Rates that local APIC timers have, divided by 16.
const TIMER_HZ: core::ops::RangeInclusive<u64> = 10_000..=1_000_000_000;
/// What processors' rates are made to be multiples of, the roundest first.
const ROUND: [u64; 4] = [100_000_000, 10_000_000, 1_000_000, 100_000];
/// The rate that is taken where nothing is known.
const GUESS_HZ: u64 = 2 * NANOS;

/// What the registers held at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// The time stamp counter just before the reference was read.
    pub before: u64,
    /// Ticks of the reference since some start.
    pub ticks: u64,
    /// What is left of the timer's count.
    pub timer: u32,
    /// The time stamp counter just after.
    pub after: u64,
}

impl Reading {
    fn width(&self) -> u64 {
        self.after.wrapping_sub(self.before)
    }
}

/// A measurement's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Ticks of the time stamp counter.
    pub tsc: u64,
    /// Ticks of the timer.
    pub timer: u64,
    /// Nanoseconds.
    pub ns: u64,
    /// By how many nanoseconds that may be wrong: a tick of the reference at either end.
    pub doubt: u64,
    /// Something kept coming in between.
    pub shaky: bool,
}

/// What a reading leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Read again.
    More,
    /// The measurement is over.
    Done(Sample),
    /// The reference does not tick, or not forwards.
    Dead,
}

/// A measurement under way.
#[derive(Clone, Copy, Debug)]
pub struct Measurement {
    hz: u64,
    goal: u64,
    begin: Option<Reading>,
    begun: u32,
    last: Option<Reading>,
    widest_gap: u64,
    still: u32,
    readings: u32,
    restarts: u32,
}

impl Measurement {
    /// A measurement against a reference of this rate.
    pub fn new(hz: u64) -> Self {
        let goal = per_second(hz, NANOS, MEASURE_NS).max(1);
        Self {
            hz,
            goal,
            begin: None,
            begun: 0,
            last: None,
            widest_gap: 0,
            still: 0,
            readings: 0,
            restarts: 0,
        }
    }

    /// Takes a reading.
    pub fn step(&mut self, now: Reading) -> Step {
        self.readings += 1;
        let last = self.last.replace(now);
        let backwards = last.is_some_and(|last| now.ticks < last.ticks || now.before < last.before);
        let stands = last.is_some_and(|last| now.ticks == last.ticks);
        self.still = if stands { self.still + 1 } else { 0 };
        if self.readings > MAX_READINGS || self.still > MAX_STILL || backwards || now.after < now.before {
            return Step::Dead;
        }
        let Some(begin) = self.begin.filter(|_| self.begun >= BEGIN) else { return self.settle(now) };
        if let Some(last) = last {
            self.widest_gap = self.widest_gap.max(now.before - last.before);
        }
        let ticks = now.ticks - begin.ticks;
        if ticks < self.goal {
            return Step::More;
        }
        let tsc = now.before.wrapping_sub(begin.before);
        // What was read far apart, or not for long in between, was not measured but missed.
        let clean = now.width().max(begin.width()) <= tsc / 64 && self.widest_gap <= tsc / 4;
        if !clean && self.restarts < MAX_RESTARTS {
            self.restarts += 1;
            (self.begin, self.begun, self.widest_gap) = (None, 0, 0);
            return Step::More;
        }
        let timer = u64::from(begin.timer.saturating_sub(now.timer));
        let ns = per_second(ticks, self.hz, NANOS);
        let doubt = (2 * NANOS).div_ceil(self.hz.max(1));
        Step::Done(Sample { tsc, timer, ns, doubt, shaky: !clean })
    }

    /// Finds where to begin: at the narrowest of a few readings.
    fn settle(&mut self, now: Reading) -> Step {
        let narrower = self.begin.is_none_or(|begin| now.width() <= begin.width());
        if narrower {
            self.begin = Some(now);
            self.widest_gap = 0;
        }
        self.begun += 1;
        Step::More
    }
}

/// `count` events in `per` units, in `wanted` units.
fn per_second(count: u64, per: u64, wanted: u64) -> u64 {
    let scaled = u128::from(count) * u128::from(wanted) / u128::from(per.max(1));
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

/// Rates, and where they come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Ticks of the time stamp counter per second.
    pub tsc_hz: u64,
    /// Ticks of the timer per second.
    pub timer_hz: u64,
    /// The reference.
    pub source: &'static str,
}

/// A measurement's result and its reference's name.
pub type Named = (&'static str, Option<Sample>);

fn rates(named: &Named) -> Option<Rates> {
    let sample = named.1?;
    let hz = |ticks| per_second(ticks, sample.ns, NANOS);
    let measured = (hz(sample.tsc), hz(sample.timer));
    let meant = (nominal(measured.0, 1, &sample), nominal(measured.1, 16, &sample));
    let can_be = |(tsc, timer)| TSC_HZ.contains(&tsc) && TIMER_HZ.contains(&timer);
    let plausible = sample.ns > 0 && can_be(measured) && can_be(meant);
    let rates = Rates { tsc_hz: meant.0, timer_hz: meant.1, source: named.0 };
    plausible.then_some(rates)
}

/// The roundest rate that the measurement is not exact enough to deny, of a clock that was `divided`; else what was
/// measured. So it does not matter where between two ticks of the reference the measurement began, and a machine's
/// clock goes the same in each of its runs.
fn nominal(hz: u64, divided: u64, sample: &Sample) -> u64 {
    // What was counted is wrong by one, too.
    let doubt = u128::from(hz) * u128::from(sample.doubt) + u128::from(NANOS);
    let near = |round: &u64| u128::from(hz.abs_diff(*round)) * u128::from(sample.ns) <= doubt;
    let round = |step: u64| hz.saturating_add(step / 2) / step * step;
    ROUND.iter().map(|step| round(step / divided)).find(near).unwrap_or(hz)
}

fn near(a: u64, b: u64, fraction: u64) -> bool {
    a.abs_diff(b) <= a.max(b) / fraction
}

/// The rates that two references agree on, so that no more need be asked: the first one's.
pub fn settled(measured: &[Named]) -> Option<Rates> {
    let agree = |a: &Rates, b: &Rates| near(a.tsc_hz, b.tsc_hz, 64) && near(a.timer_hz, b.timer_hz, 64);
    let mut rest = measured;
    while let Some((first, others)) = rest.split_first() {
        if let Some(a) = rates(first)
            && others.iter().filter_map(rates).any(|b| agree(&a, &b))
        {
            return Some(a);
        }
        rest = others;
    }
    None
}

/// The rates to believe, after every reference was asked; `None` if none can be believed. `stated`: what the
/// processor says about its time stamp counter.
pub fn choose(measured: &[Named], stated: Option<u64>) -> Option<Rates> {
    let plausible = || measured.iter().filter(|m| rates(m).is_some());
    let stated = stated_rate(stated);
    let by_statement = || {
        let hz = stated?;
        plausible().filter_map(rates).find(|r| near(r.tsc_hz, hz, 16))
    };
    let steady = || plausible().find(|m| m.1.is_some_and(|s| !s.shaky)).and_then(rates);
    settled(measured).or_else(by_statement).or_else(steady).or_else(|| plausible().find_map(rates))
}

/// What the processor says, if a time stamp counter can have that rate.
pub fn stated_rate(stated: Option<u64>) -> Option<u64> {
    stated.filter(|hz| TSC_HZ.contains(hz))
}

/// The rate of the time stamp counter where no reference ticks, and its source.
pub fn without_reference(stated: Option<u64>) -> (u64, &'static str) {
    stated_rate(stated).map_or((GUESS_HZ, "a guess"), |hz| (hz, "CPUID"))
}

/// The timer's rate from a measurement against a time stamp counter of an assumed rate: never zero.
pub fn timer_rate(sample: Option<Sample>) -> u64 {
    let hz = sample.map_or(0, |s| per_second(s.timer, s.ns, NANOS));
    hz.clamp(*TIMER_HZ.start(), *TIMER_HZ.end())
}

#[cfg(test)]
#[path = "calibrate_tests.rs"]
mod tests;
