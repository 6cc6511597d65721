//! Reads what the kernel needs from ACPI: interrupt routing, timers, how to switch off, and which addresses and
//! ports are the platform's own.
//!
//! Owns: the checked reads of firmware tables. Pure: memory is reached through [`PhysicalMemory`], and everything
//! is copied. Invariants: every read is inside a table whose length and checksum were checked; every loop is
//! bounded; a broken table leaves the defaults; what does not fit into a list is told ([`Tables::complete`]).

use crate::device_table::IsaLine;

/// I/O APICs that are used.
pub const MAX_IOAPICS: usize = 4;
/// Ranges that are kept, of addresses and of ports.
const MAX_KEPT: usize = 48;
/// Tables that the root table may list.
const MAX_TABLES: usize = 64;
/// The longest table.
const MAX_LENGTH: usize = 1 << 20;
/// Entries of one table.
const MAX_ENTRIES: usize = 1024;

/// Physical memory while the kernel starts.
pub trait PhysicalMemory {
    /// Bytes of memory; `None` where there can be no tables.
    fn bytes(&self, address: u64, length: usize) -> Option<&[u8]>;
}

/// Ranges, their ends exclusive.
#[derive(Clone, Copy, Debug)]
pub struct Kept {
    list: [(u64, u64); MAX_KEPT],
    count: usize,
    /// All ranges have found room.
    pub complete: bool,
}

impl Kept {
    const NONE: Self = Self { list: [(0, 0); MAX_KEPT], count: 0, complete: true };

    /// The ranges.
    pub fn list(&self) -> &[(u64, u64)] {
        self.list.get(..self.count).unwrap_or(&[])
    }

    /// Adds a range. One at address 0 is none.
    fn add(&mut self, start: u64, length: u64) {
        if start == 0 || length == 0 {
            return;
        }
        match self.list.get_mut(self.count) {
            Some(slot) => {
                *slot = (start, start.saturating_add(length));
                self.count += 1;
            }
            None => self.complete = false,
        }
    }
}

/// What the tables said.
#[derive(Clone, Copy, Debug)]
pub struct Tables {
    /// Physical address and first line of each I/O APIC; address 0 for none.
    pub ioapics: [(u64, u32); MAX_IOAPICS],
    /// ISA interrupts.
    pub isa: [IsaLine; 16],
    /// The ISA interrupt of power management events; 0 for none.
    pub sci: u8,
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
    /// Addresses of I/O APICs, HPET, configuration space, power management and IOMMUs.
    pub addresses: Kept,
    /// Ports of power management and reset.
    pub ports: Kept,
    /// PCI segments that only configuration space in memory reaches: their devices are not silenced.
    pub far_segments: u32,
}

/// A table: its bytes, header included.
#[derive(Clone, Copy)]
struct Table<'a>(&'a [u8]);

impl<'a> Table<'a> {
    /// The table at a physical address, if length and checksum are sane.
    fn at(memory: &'a impl PhysicalMemory, address: u64) -> Option<Self> {
        let length = Self(memory.bytes(address, 36)?).u32(4)? as usize;
        if !(36..=MAX_LENGTH).contains(&length) {
            return None;
        }
        let all = memory.bytes(address, length)?;
        let sum = all.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        (sum == 0).then_some(Self(all))
    }

    fn signature(self) -> &'a [u8] {
        self.0.get(..4).unwrap_or(&[])
    }

    fn u8(self, at: usize) -> Option<u8> {
        self.0.get(at).copied()
    }

    fn u16(self, at: usize) -> Option<u16> {
        Some(u16::from_le_bytes(self.0.get(at..at.checked_add(2)?)?.try_into().ok()?))
    }

    fn u32(self, at: usize) -> Option<u32> {
        Some(u32::from_le_bytes(self.0.get(at..at.checked_add(4)?)?.try_into().ok()?))
    }

    fn u64(self, at: usize) -> Option<u64> {
        Some(u64::from_le_bytes(self.0.get(at..at.checked_add(8)?)?.try_into().ok()?))
    }

    /// The entries from `start` on, whose lengths `length` reads.
    fn entries(
        self,
        start: usize,
        length: impl Fn(Table<'a>) -> Option<usize>,
    ) -> impl Iterator<Item = Table<'a>> {
        let mut rest = self.0.get(start..).unwrap_or(&[]);
        core::iter::from_fn(move || {
            let length = length(Table(rest)).filter(|length| *length >= 2)?;
            let (entry, after) = rest.split_at_checked(length)?;
            rest = after;
            Some(Table(entry))
        })
        .take(MAX_ENTRIES)
    }
}

impl Tables {
    /// What is assumed without tables.
    pub const NONE: Self = {
        let mut isa = [IsaLine { line: 0, level: false, low: false }; 16];
        let mut i = 0;
        while i < 16 {
            isa[i].line = i as u32;
            i += 1;
        }
        Self {
            ioapics: [(0, 0); MAX_IOAPICS],
            isa,
            sci: 0,
            pm_timer: 0,
            hpet: 0,
            pm1: [0; 2],
            s5: None,
            enable: (0, 0),
            addresses: Kept::NONE,
            ports: Kept::NONE,
            far_segments: 0,
        }
    };

    /// Reads all tables; what is missing keeps its default.
    pub fn read(memory: &impl PhysicalMemory, rsdp: Option<u64>) -> Self {
        let mut found = Self::NONE;
        if let Some(root) = rsdp.and_then(|rsdp| root_table(memory, rsdp)) {
            found.read_root(memory, root);
        }
        if found.ioapics[0].0 == 0 {
            found.ioapics[0] = (0xfec0_0000, 0);
        }
        found
    }

    /// Every range of addresses and ports that was found is in the lists.
    pub fn complete(&self) -> bool {
        self.addresses.complete && self.ports.complete
    }

    fn read_root<'a>(&mut self, memory: &'a impl PhysicalMemory, root: Table<'a>) {
        let wide = root.signature() == b"XSDT";
        let step = if wide { 8 } else { 4 };
        for index in 0..MAX_TABLES {
            let at = 36 + index * step;
            let address = if wide { root.u64(at) } else { root.u32(at).map(u64::from) };
            let Some(address) = address else { break };
            let Some(table) = Table::at(memory, address) else { continue };
            // A table that ends early keeps what was read of it until then.
            let _complete = match table.signature() {
                b"APIC" => self.read_madt(table),
                b"FACP" => self.read_fadt(memory, table),
                b"HPET" => self.read_hpet(table),
                b"MCFG" => self.read_mcfg(table),
                b"DMAR" => self.read_dmar(table),
                b"IVRS" => self.read_ivrs(table),
                _ => Some(()),
            };
        }
    }

    fn read_madt(&mut self, table: Table<'_>) -> Option<()> {
        let mut apics = self.ioapics.iter_mut();
        for entry in table.entries(44, |rest| rest.u8(1).map(usize::from)) {
            match entry.u8(0)? {
                1 => {
                    let (address, line) = (u64::from(entry.u32(4)?), entry.u32(8)?);
                    self.addresses.add(address, 4096);
                    if let Some(slot) = apics.next() {
                        *slot = (address, line);
                    }
                }
                2 => {
                    let (source, line, flags) = (entry.u8(3)?, entry.u32(4)?, entry.u16(8)?);
                    if let Some(isa) = self.isa.get_mut(usize::from(source)) {
                        *isa = IsaLine { line, level: flags >> 2 & 3 == 3, low: flags & 3 == 3 };
                    }
                }
                _ => {}
            }
        }
        Some(())
    }

    fn read_hpet(&mut self, table: Table<'_>) -> Option<()> {
        // Address space 0 is memory.
        if table.u8(40)? == 0 {
            self.hpet = table.u64(44)?;
            self.addresses.add(self.hpet, 4096);
        }
        Some(())
    }

    fn read_mcfg(&mut self, table: Table<'_>) -> Option<()> {
        for entry in table.entries(44, |_| Some(16)) {
            let (base, segment, last) = (entry.u64(0)?, entry.u16(8)?, entry.u8(11)?);
            self.addresses.add(base, (u64::from(last) + 1) << 20);
            self.far_segments += u32::from(segment != 0);
        }
        Some(())
    }

    /// IOMMUs of Intel.
    fn read_dmar(&mut self, table: Table<'_>) -> Option<()> {
        for entry in table.entries(48, |rest| rest.u16(2).map(usize::from)) {
            if entry.u16(0)? == 0 {
                self.addresses.add(entry.u64(8)?, 4096);
            }
        }
        Some(())
    }

    /// IOMMUs of AMD.
    fn read_ivrs(&mut self, table: Table<'_>) -> Option<()> {
        for entry in table.entries(48, |rest| rest.u16(2).map(usize::from)) {
            if matches!(entry.u8(0)?, 0x10 | 0x11 | 0x40) {
                self.addresses.add(entry.u64(8)?, 0x8_0000);
            }
        }
        Some(())
    }

    fn read_fadt(&mut self, memory: &impl PhysicalMemory, table: Table<'_>) -> Option<()> {
        self.sci = u8::try_from(table.u16(46)?).ok().filter(|sci| *sci < 16).unwrap_or(0);
        self.enable = (port(table.u32(48)?), table.u8(52)?);
        self.pm1 = [port(table.u32(64)?), port(table.u32(68)?)];
        self.pm_timer = port(table.u32(76)?);
        self.ports.add(table.u32(48)?.into(), 2);
        // Event and control blocks, the timer, general events; and how long each is.
        for (at, length) in [(56, 88), (60, 88), (64, 89), (68, 89), (72, 90), (76, 91), (80, 92), (84, 93)] {
            self.ports.add(table.u32(at)?.into(), table.u8(length)?.max(4).into());
        }
        let wide = table.u64(140).filter(|address| *address != 0);
        let dsdt = wide.or(table.u32(40).map(u64::from))?;
        self.s5 = Table::at(memory, dsdt).and_then(sleep_types);
        // The reset register, and the blocks again, as generic addresses.
        for at in [116, 148, 160, 172, 184, 196, 208, 220, 232] {
            self.keep_generic(table, at)?;
        }
        Some(())
    }

    /// Keeps what a generic address names, wherever it is.
    fn keep_generic(&mut self, table: Table<'_>, at: usize) -> Option<()> {
        let (space, bits, address) = (table.u8(at)?, table.u8(at + 1)?, table.u64(at + 4)?);
        match space {
            0 => self.addresses.add(address & !4095, 8192),
            1 => self.ports.add(address, u64::from(bits / 8).max(4)),
            _ => {}
        }
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

fn root_table(memory: &impl PhysicalMemory, rsdp: u64) -> Option<Table<'_>> {
    let pointer = Table(memory.bytes(rsdp, 36)?);
    if pointer.0.get(..8)? != b"RSD PTR " {
        return None;
    }
    if pointer.u8(15)? >= 2
        && let Some(table) = Table::at(memory, pointer.u64(24)?)
    {
        return Some(table);
    }
    Table::at(memory, u64::from(pointer.u32(16)?))
}

/// The values of `_S5_`: looked for in the byte code, as running it would take an interpreter.
fn sleep_types(dsdt: Table<'_>) -> Option<[u8; 2]> {
    let at = dsdt.0.windows(5).position(|w| w.starts_with(b"_S5_") && w.ends_with(&[0x12]))?;
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

#[cfg(test)]
#[path = "acpi_tests.rs"]
mod tests;
