//! Time: the TSC for reading, the local APIC's timer for waking.
//!
//! Owns: both scales. They are measured at boot against whichever reference ticks (ACPI timer, PIT,
//! HPET), with loops that end even if nothing does; then the processor's own word is taken, then a
//! guess. Invariant: `now` never goes back.

use super::acpi::Tables;
use super::lapic::Lapic;
use super::regs::{self, in8, in32, out8};

const NANOS: u64 = 1_000_000_000;
/// How long one measurement takes.
const MEASURE_NS: u64 = 10_000_000;
/// Turns after which a reference counts as dead.
const PATIENCE: u32 = 4_000_000;

/// The scales.
#[derive(Clone, Copy)]
pub struct Clock {
    start: u64,
    /// Nanoseconds per TSC tick, times 2^32.
    scale: u64,
    /// TSC ticks per second.
    pub tsc_hz: u64,
    /// Timer ticks per second.
    pub timer_hz: u64,
    /// Timer ticks per nanosecond, times 2^32.
    timer_scale: u64,
    /// Where the scales come from.
    pub source: &'static str,
}

fn scaled(value: u64, scale: u64) -> u64 {
    ((u128::from(value) * u128::from(scale)) >> 32) as u64
}

/// Waits at a reference: TSC ticks, timer ticks, nanoseconds.
type Sample = Option<(u64, u64, u64)>;

impl Clock {
    /// A clock that stands at 0.
    pub const OFF: Self = Self { start: 0, scale: 0, tsc_hz: 0, timer_hz: 0, timer_scale: 0, source: "none" };

    /// Measures. The timer must be masked or its interrupt off; `hpet` is where it is mapped, 0 for nowhere.
    pub fn measure(tables: &Tables, lapic: Lapic, hpet: u64) -> Self {
        let measured = with_pm_timer(tables.pm_timer, lapic)
            .map(|s| (s, "ACPI timer"))
            .or_else(|| with_pit(lapic).map(|s| (s, "PIT")))
            .or_else(|| with_hpet(hpet, lapic).map(|s| (s, "HPET")));
        let (tsc_hz, timer_hz, source) = match measured {
            Some(((tsc, timer, ns), source)) => (per_second(tsc, ns), per_second(timer, ns), source),
            None => match processor_says() {
                Some(hz) => (hz, timer_by_tsc(hz, lapic), "CPUID"),
                None => (2 * NANOS, timer_by_tsc(2 * NANOS, lapic), "a guess"),
            },
        };
        let scale_of = |hz: u64| ((u128::from(NANOS) << 32) / u128::from(hz.max(1))) as u64;
        Self {
            start: regs::tsc(),
            scale: scale_of(tsc_hz),
            tsc_hz,
            timer_hz,
            timer_scale: ((u128::from(timer_hz) << 32) / u128::from(NANOS)) as u64,
            source,
        }
    }

    /// Nanoseconds since `measure`.
    #[inline(always)]
    pub fn now(&self) -> u64 {
        scaled(regs::tsc().saturating_sub(self.start), self.scale)
    }

    /// Timer ticks for a span, at least one.
    #[inline(always)]
    pub fn timer_ticks(&self, nanoseconds: u64) -> u32 {
        // A span beyond a minute wakes early and is set again.
        let ticks = scaled(nanoseconds.min(60 * NANOS), self.timer_scale).saturating_add(1);
        u32::try_from(ticks).unwrap_or(u32::MAX)
    }
}

fn per_second(ticks: u64, nanoseconds: u64) -> u64 {
    ((u128::from(ticks) * u128::from(NANOS)) / u128::from(nanoseconds.max(1))) as u64
}

/// Runs a reference: `elapsed` gives its ticks since the start.
fn sample(lapic: Lapic, hz: u64, mut elapsed: impl FnMut() -> u64) -> Sample {
    let goal = per_second(hz, NANOS) * MEASURE_NS / NANOS;
    lapic.start_timer(u32::MAX);
    let (tsc, timer) = (regs::tsc(), lapic.timer_left());
    let first = elapsed();
    for turn in 0..PATIENCE {
        let ticks = elapsed().saturating_sub(first);
        if ticks >= goal {
            let (tsc, timer) = (regs::tsc() - tsc, timer - lapic.timer_left());
            lapic.start_timer(0);
            let sane = tsc > 1000 && timer > 10 && turn > 2;
            return sane.then_some((tsc, u64::from(timer), per_second(ticks, hz)));
        }
    }
    lapic.start_timer(0);
    None
}

fn with_pm_timer(port: u16, lapic: Lapic) -> Sample {
    if port == 0 {
        return None;
    }
    // SAFETY: the FADT names this port as the timer's; reading it changes nothing.
    let read = || u64::from(unsafe { in32(port) } & 0xff_ffff);
    let (mut last, mut total) = (read(), 0);
    sample(lapic, 3_579_545, move || {
        let now = read();
        total += now.wrapping_sub(last) & 0xff_ffff;
        last = now;
        total
    })
}

fn with_pit(lapic: Lapic) -> Sample {
    // SAFETY: the PIT's channel 2 and its gate belong to nobody else; the speaker stays off.
    unsafe {
        out8(0x61, in8(0x61) & !2 | 1);
        out8(0x43, 0b1011_0100);
        out8(0x42, 0xff);
        out8(0x42, 0xff);
    }
    let read = || {
        // SAFETY: latches and reads the counter of channel 2.
        unsafe {
            out8(0x43, 0b1000_0000);
            let low = in8(0x42);
            u16::from_le_bytes([low, in8(0x42)])
        }
    };
    let (mut last, mut total) = (read(), 0u64);
    sample(lapic, 1_193_182, move || {
        let now = read();
        total += u64::from(last.wrapping_sub(now));
        last = now;
        total
    })
}

fn with_hpet(base: u64, lapic: Lapic) -> Sample {
    if base == 0 {
        return None;
    }
    let register = |offset: u64| (base + offset) as *mut u64;
    // SAFETY: boot maps the HPET's page there; nobody else uses it.
    let femtoseconds = unsafe {
        register(0x10).write_volatile(register(0x10).read_volatile() | 1);
        register(0).read_volatile() >> 32
    };
    if !(100..=100_000_000).contains(&femtoseconds) {
        return None;
    }
    // SAFETY: as above.
    sample(lapic, 1_000_000_000_000_000 / femtoseconds, || unsafe { register(0xf0).read_volatile() })
}

fn processor_says() -> Option<u64> {
    let leaf = regs::cpuid(0x15, 0);
    if leaf.eax != 0 && leaf.ebx != 0 && leaf.ecx != 0 {
        return Some(u64::from(leaf.ecx) * u64::from(leaf.ebx) / u64::from(leaf.eax));
    }
    let mhz = regs::cpuid(0x16, 0).eax & 0xffff;
    (mhz != 0).then_some(u64::from(mhz) * 1_000_000)
}

fn timer_by_tsc(tsc_hz: u64, lapic: Lapic) -> u64 {
    let span = tsc_hz / 100;
    lapic.start_timer(u32::MAX);
    let start = regs::tsc();
    for _ in 0..PATIENCE {
        if regs::tsc().saturating_sub(start) >= span {
            break;
        }
    }
    let ticks = u64::from(u32::MAX - lapic.timer_left());
    lapic.start_timer(0);
    ticks.saturating_mul(100).max(1_000_000)
}
