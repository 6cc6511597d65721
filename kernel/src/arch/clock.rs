//! Time: the TSC for reading, the local APIC's timer for waking.
//!
//! Owns: both scales. They are measured at boot against whichever references tick (ACPI timer, HPET, PIT); when a
//! measurement is over and what is believed is decided by `kernel::calibrate`, which bounds every loop here.
//! Invariant: `now` never goes back.

use kernel::acpi::Tables;
use kernel::calibrate::{self, Measurement, Named, Rates, Reading, Sample, Step};

use super::lapic::Lapic;
use super::regs::{self, in8, in32, out8};

const NANOS: u64 = 1_000_000_000;

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

impl Clock {
    /// A clock that stands at 0.
    pub const OFF: Self = Self { start: 0, scale: 0, tsc_hz: 0, timer_hz: 0, timer_scale: 0, source: "none" };

    /// Measures. The timer must be masked or its interrupt off; `hpet` is where it is mapped, 0 for nowhere.
    pub fn measure(tables: &Tables, lapic: Lapic, hpet: u64) -> Self {
        let Rates { tsc_hz, timer_hz, source } = rates(tables, lapic, hpet);
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

/// Asks one reference after the other until two agree.
fn rates(tables: &Tables, lapic: Lapic, hpet: u64) -> Rates {
    let mut measured: [Named; 3] = [("ACPI timer", None), ("HPET", None), ("PIT", None)];
    for asked in 0..measured.len() {
        measured[asked].1 = match asked {
            0 => with_pm_timer(tables.pm_timer, lapic),
            1 => with_hpet(hpet, lapic),
            _ => with_pit(lapic),
        };
        if let Some(rates) = calibrate::settled(&measured) {
            return rates;
        }
    }
    let stated = processor_says();
    calibrate::choose(&measured, stated).unwrap_or_else(|| {
        let (tsc_hz, source) = calibrate::without_reference(stated);
        let sample = sample(lapic, tsc_hz, regs::tsc);
        Rates { tsc_hz, timer_hz: calibrate::timer_rate(sample), source }
    })
}

/// Runs a reference to the end of a measurement: `elapsed` gives its ticks.
fn sample(lapic: Lapic, hz: u64, mut elapsed: impl FnMut() -> u64) -> Option<Sample> {
    let mut measurement = Measurement::new(hz);
    lapic.start_timer(u32::MAX);
    let sample = loop {
        let before = regs::tsc();
        let (ticks, timer) = (elapsed(), lapic.timer_left());
        match measurement.step(Reading { before, ticks, timer, after: regs::tsc() }) {
            Step::More => {}
            Step::Done(sample) => break Some(sample),
            Step::Dead => break None,
        }
    };
    lapic.start_timer(0);
    sample
}

/// Turns a counter of so many bits that wraps into one that does not.
fn unwrapped(mut read: impl FnMut() -> u64, bits: u32) -> impl FnMut() -> u64 {
    let (mut last, mut total) = (read(), 0u64);
    move || {
        let now = read();
        total = total.wrapping_add(now.wrapping_sub(last) & ((1 << bits) - 1));
        last = now;
        total
    }
}

fn with_pm_timer(port: u16, lapic: Lapic) -> Option<Sample> {
    if port == 0 {
        return None;
    }
    // SAFETY: the FADT names this port as the timer's; reading it changes nothing.
    let read = || u64::from(unsafe { in32(port) });
    sample(lapic, 3_579_545, unwrapped(read, 24))
}

fn with_pit(lapic: Lapic) -> Option<Sample> {
    // SAFETY: the PIT's channel 2 and its gate belong to nobody else; the speaker stays off.
    unsafe {
        out8(0x61, in8(0x61) & !2 | 1);
        out8(0x43, 0b1011_0100);
        out8(0x42, 0xff);
        out8(0x42, 0xff);
    }
    // It counts down.
    let read = || {
        // SAFETY: latches and reads the counter of channel 2.
        unsafe {
            out8(0x43, 0b1000_0000);
            let low = in8(0x42);
            u64::from(!u16::from_le_bytes([low, in8(0x42)]))
        }
    };
    sample(lapic, 1_193_182, unwrapped(read, 16))
}

fn with_hpet(base: u64, lapic: Lapic) -> Option<Sample> {
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
    // The counter of some is 32 bits wide.
    // SAFETY: as above.
    let read = || unsafe { register(0xf0).read_volatile() };
    sample(lapic, 1_000_000_000_000_000 / femtoseconds, unwrapped(read, 32))
}

fn processor_says() -> Option<u64> {
    let leaf = regs::cpuid(0x15, 0);
    if leaf.eax != 0 && leaf.ebx != 0 && leaf.ecx != 0 {
        return Some(u64::from(leaf.ecx) * u64::from(leaf.ebx) / u64::from(leaf.eax));
    }
    let mhz = regs::cpuid(0x16, 0).eax & 0xffff;
    (mhz != 0).then_some(u64::from(mhz) * 1_000_000)
}
