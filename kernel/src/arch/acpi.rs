//! Reads what the kernel needs from ACPI: interrupt routing, timers, how to switch off.
//!
//! Owns: the checked reads of firmware tables. They are read once, while the loader's map of all
//! physical memory is in use, and copied; nothing keeps a pointer into them. Invariants: every read is
//! inside a table whose length and checksum were checked; every loop is bounded; a broken table leaves
//! the defaults.

use super::layout::physmap;

/// I/O APICs that are used.
pub const MAX_IOAPICS: usize = 4;

/// How ISA interrupt `i` arrives.
#[derive(Clone, Copy)]
pub struct IsaLine {
    /// Its global line.
    pub line: u32,
    level: bool,
    low: bool,
}

/// What the tables said.
pub struct Tables {
    /// Physical address and first line of each I/O APIC; address 0 for none.
    pub ioapics: [(u64, u32); MAX_IOAPICS],
    /// ISA interrupts.
    pub isa: [IsaLine; 16],
    /// Port of the power management timer; 0 for none.
    pub pm_timer: u16,
    /// Physical address of the HPET; 0 for none.
    pub hpet: u64,
    /// Ports of PM1a and PM1b control; 0 for none.
    pub pm1: [u16; 2],
    /// Sleep type for S5 on each, if the DSDT has it.
    pub s5: Option<[u8; 2]>,
    /// Port and value that make the firmware hand over ACPI control; port 0 for none.
    pub enable: (u16, u8),
}

/// A table: its bytes, header included.
#[derive(Clone, Copy)]
struct Table(&'static [u8]);

impl Table {
    /// The table at a physical address, if length and checksum are sane.
    fn at(address: u64) -> Option<Self> {
        let header = bytes(address, 36)?;
        let table = Self(header);
        let length = table.u32(4)? as usize;
        if !(36..=1 << 20).contains(&length) {
            return None;
        }
        let all = bytes(address, length)?;
        let sum = all.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        (sum == 0).then_some(Self(all))
    }

    fn signature(&self) -> &[u8] {
        self.0.get(..4).unwrap_or(&[])
    }

    fn u8(&self, at: usize) -> Option<u8> {
        self.0.get(at).copied()
    }

    fn u16(&self, at: usize) -> Option<u16> {
        Some(u16::from_le_bytes(self.0.get(at..at.checked_add(2)?)?.try_into().ok()?))
    }

    fn u32(&self, at: usize) -> Option<u32> {
        Some(u32::from_le_bytes(self.0.get(at..at.checked_add(4)?)?.try_into().ok()?))
    }

    fn u64(&self, at: usize) -> Option<u64> {
        Some(u64::from_le_bytes(self.0.get(at..at.checked_add(8)?)?.try_into().ok()?))
    }
}

/// Physical memory as the loader maps it: the first 4 GiB at least.
fn bytes(address: u64, length: usize) -> Option<&'static [u8]> {
    let end = address.checked_add(length as u64)?;
    if address == 0 || end > 1 << 32 {
        return None;
    }
    // SAFETY: the loader maps the first 4 GiB of physical memory; firmware tables are not written while
    // the kernel starts, and nobody keeps the slice beyond that.
    Some(unsafe { core::slice::from_raw_parts(physmap(address) as *const u8, length) })
}

impl Tables {
    const NONE: Self = {
        let mut isa = [IsaLine { line: 0, level: false, low: false }; 16];
        let mut i = 0;
        while i < 16 {
            isa[i].line = i as u32;
            i += 1;
        }
        Self {
            ioapics: [(0, 0); MAX_IOAPICS],
            isa,
            pm_timer: 0,
            hpet: 0,
            pm1: [0; 2],
            s5: None,
            enable: (0, 0),
        }
    };

    /// Reads all tables; what is missing keeps its default.
    pub fn read(rsdp: Option<u64>) -> Self {
        let mut found = Self::NONE;
        let Some(root) = rsdp.and_then(root_table) else { return found };
        let wide = root.signature() == b"XSDT";
        let step = if wide { 8 } else { 4 };
        for index in 0..64 {
            let at = 36 + index * step;
            let address = if wide { root.u64(at) } else { root.u32(at).map(u64::from) };
            let Some(address) = address else { break };
            let Some(table) = Table::at(address) else { continue };
            // A table that ends early keeps what was read of it until then.
            let _complete = match table.signature() {
                b"APIC" => found.read_madt(table),
                b"FACP" => found.read_fadt(table),
                b"HPET" => found.read_hpet(table),
                _ => Some(()),
            };
        }
        if found.ioapics[0].0 == 0 {
            found.ioapics[0] = (0xfec0_0000, 0);
        }
        found
    }

    fn read_madt(&mut self, table: Table) -> Option<()> {
        let mut at = 44;
        let mut apics = 0;
        for _ in 0..1024 {
            let (kind, length) = (table.u8(at)?, usize::from(table.u8(at + 1)?));
            if length < 2 {
                return None;
            }
            match kind {
                1 if apics < MAX_IOAPICS => {
                    self.ioapics[apics] = (u64::from(table.u32(at + 4)?), table.u32(at + 8)?);
                    apics += 1;
                }
                2 => {
                    let (source, line, flags) = (table.u8(at + 3)?, table.u32(at + 4)?, table.u16(at + 8)?);
                    if let Some(isa) = self.isa.get_mut(usize::from(source)) {
                        *isa = IsaLine { line, level: flags >> 2 & 3 == 3, low: flags & 3 == 3 };
                    }
                }
                _ => {}
            }
            at += length;
        }
        Some(())
    }

    fn read_hpet(&mut self, table: Table) -> Option<()> {
        // Address space 0 is memory.
        if table.u8(40)? == 0 {
            self.hpet = table.u64(44)?;
        }
        Some(())
    }

    fn read_fadt(&mut self, table: Table) -> Option<()> {
        self.enable = (port(table.u32(48)?), table.u8(52)?);
        self.pm1 = [port(table.u32(64)?), port(table.u32(68)?)];
        self.pm_timer = port(table.u32(76)?);
        let wide = table.u64(140).filter(|address| *address != 0);
        let dsdt = wide.or(table.u32(40).map(u64::from))?;
        self.s5 = Table::at(dsdt).and_then(sleep_types);
        Some(())
    }

    /// Whether a global line is level-triggered, and active low.
    pub fn line_mode(&self, line: u32) -> (bool, bool) {
        match self.isa.iter().find(|isa| isa.line == line) {
            Some(isa) => (isa.level, isa.low),
            None => (line >= 16, line >= 16),
        }
    }
}

fn port(address: u32) -> u16 {
    u16::try_from(address).unwrap_or(0)
}

fn root_table(rsdp: u64) -> Option<Table> {
    let pointer = Table(bytes(rsdp, 36)?);
    if pointer.0.get(..8)? != b"RSD PTR " {
        return None;
    }
    if pointer.u8(15)? >= 2
        && let Some(table) = Table::at(pointer.u64(24)?)
    {
        return Some(table);
    }
    Table::at(u64::from(pointer.u32(16)?))
}

/// The values of `_S5_`: looked for in the byte code, as running it would take an interpreter.
fn sleep_types(dsdt: Table) -> Option<[u8; 2]> {
    let at = dsdt.0.windows(5).position(|w| w.starts_with(b"_S5_") && w[4] == 0x12)?;
    let package = dsdt.0.get(at + 5..)?;
    // Package length (1 to 4 bytes), number of elements, then the elements.
    let mut at = 2 + usize::from(package.first()? >> 6);
    let mut types = [0; 2];
    for value in &mut types {
        match *package.get(at)? {
            0x0a => {
                *value = *package.get(at + 1)?;
                at += 2;
            }
            small @ 0..=1 => {
                *value = small;
                at += 1;
            }
            _ => return None,
        }
    }
    Some(types)
}
