//! Device interrupt lines: the I/O APICs, the legacy PICs they replace, and masking.
//!
//! Owns: which line is masked. Invariants: a line that has arrived stays masked until it is unmasked
//! by `set_masked`. An edge line is masked in software only, because the I/O APIC forgets edges that
//! come while it masks; one that comes meanwhile is remembered and raised again at unmasking.

use kernel::acpi::{MAX_IOAPICS, Tables};

use super::lapic::{LINE_VECTOR, LINES, Lapic};
use super::regs::{in8, out8};

/// One I/O APIC.
#[derive(Clone, Copy)]
struct Ioapic {
    window: u64,
    first: u32,
    count: u32,
}

#[derive(Clone, Copy)]
struct Line {
    level: bool,
    masked: bool,
    missed: bool,
    entry: u32,
}

/// All lines.
pub struct Lines {
    apics: [Option<Ioapic>; MAX_IOAPICS],
    lines: [Line; LINES],
}

const MASKED: u32 = 1 << 16;

impl Ioapic {
    fn read(self, register: u32) -> u32 {
        // SAFETY: `window` maps the I/O APIC, uncached, for good; select and data registers are words.
        unsafe {
            (self.window as *mut u32).write_volatile(register);
            ((self.window + 0x10) as *const u32).read_volatile()
        }
    }

    fn write(self, register: u32, value: u32) {
        // SAFETY: as for `read`; routing is decided by the callers, and no vector of ours is an exception.
        unsafe {
            (self.window as *mut u32).write_volatile(register);
            ((self.window + 0x10) as *mut u32).write_volatile(value);
        }
    }
}

impl Lines {
    /// No lines.
    pub const OFF: Self = Self {
        apics: [None; MAX_IOAPICS],
        lines: [Line { level: false, masked: true, missed: false, entry: 0 }; LINES],
    };

    /// Routes every line to this CPU, masked. `windows` are where the I/O APICs are mapped.
    ///
    /// # Safety
    /// Each window must map the I/O APIC of the same index in the tables, uncached, for good.
    pub unsafe fn start(&mut self, tables: &Tables, windows: &[u64; MAX_IOAPICS], apic_id: u8) {
        silence_pics();
        for (index, slot) in self.apics.iter_mut().enumerate() {
            let (_, first) = tables.ioapics[index];
            if windows[index] == 0 {
                continue;
            }
            let mut apic = Ioapic { window: windows[index], first, count: 0 };
            apic.count = (apic.read(1) >> 16 & 0xff) + 1;
            for pin in 0..apic.count {
                apic.write(0x10 + 2 * pin, MASKED);
            }
            *slot = Some(apic);
        }
        for line in 0..LINES {
            let (level, low) = tables.line_mode(line as u32);
            let entry =
                (u32::from(LINE_VECTOR) + line as u32) | u32::from(low) << 13 | u32::from(level) << 15;
            self.lines[line] = Line { level, masked: true, missed: false, entry };
            if let Some((apic, pin)) = self.find(line as u32) {
                apic.write(0x11 + 2 * pin, u32::from(apic_id) << 24);
                apic.write(0x10 + 2 * pin, entry | MASKED);
            }
        }
    }

    fn find(&self, line: u32) -> Option<(Ioapic, u32)> {
        let apic = self.apics.iter().flatten().find(|a| line >= a.first && line - a.first < a.count)?;
        Some((*apic, line - apic.first))
    }

    fn hardware_mask(&self, line: usize, masked: bool) {
        if let (Some((apic, pin)), Some(state)) = (self.find(line as u32), self.lines.get(line)) {
            apic.write(0x10 + 2 * pin, state.entry | if masked { MASKED } else { 0 });
        }
    }

    /// A line's vector arrived. True if the core is to hear of it.
    pub fn arrived(&mut self, line: usize) -> bool {
        let Some(state) = self.lines.get_mut(line) else { return false };
        let tell = !state.masked;
        state.missed |= !tell;
        state.masked = true;
        let level = state.level;
        // A level line would come again at once. An edge line is shut off only when it chatters.
        if level || !tell {
            self.hardware_mask(line, true);
        }
        tell
    }

    /// Masks or unmasks a line for good. Lines without a vector are ignored.
    pub fn set_masked(&mut self, line: u8, masked: bool, lapic: Lapic) {
        let line = usize::from(line);
        let Some(state) = self.lines.get_mut(line) else { return };
        state.masked = masked;
        let again = !masked && core::mem::take(&mut state.missed) && !state.level;
        let level = state.level;
        if masked && !level {
            return;
        }
        self.hardware_mask(line, masked);
        if again {
            lapic.interrupt_self(LINE_VECTOR + line as u8);
        }
    }
}

/// Moves the legacy PICs away from the exceptions' vectors and masks them.
fn silence_pics() {
    const SEQUENCE: [(u16, u8); 10] = [
        (0x20, 0x11),
        (0xa0, 0x11),
        (0x21, 0x20),
        (0xa1, 0x28),
        (0x21, 4),
        (0xa1, 2),
        (0x21, 1),
        (0xa1, 1),
        (0x21, 0xff),
        (0xa1, 0xff),
    ];
    for (port, value) in SEQUENCE {
        // SAFETY: the PICs' own ports; where there are no PICs nothing listens. Port 0x80 only takes time.
        unsafe {
            out8(port, value);
            in8(0x80);
        }
    }
}
