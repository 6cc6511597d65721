//! PCI configuration space for host tests: functions with registers that behave as real ones do.

use std::collections::BTreeMap;
use std::vec::Vec;

use crate::pci::{ConfigSpace, Function};

/// A function's 256 bytes of registers, as words, and which of their bits can be written.
#[derive(Clone, Debug)]
pub struct SimFunction {
    /// What the registers hold.
    pub words: [u32; 64],
    /// Bits that a write changes.
    pub writable: [u32; 64],
    /// It raises its interrupt line.
    pub raising: bool,
}

impl SimFunction {
    /// An ordinary function without windows: command bits can be written, nothing else.
    pub fn new(vendor: u16, device: u16, class: u32) -> Self {
        let mut f = Self { words: [0; 64], writable: [0; 64], raising: false };
        f.words[0] = u32::from(device) << 16 | u32::from(vendor);
        f.words[2] = class << 8;
        f.writable[1] = 0x0407;
        f
    }

    /// With a memory window of this size (a power of two), and bus mastering and decoding on as firmware leaves them.
    pub fn memory(mut self, bar: usize, base: u32, length: u32) -> Self {
        self.words[4 + bar] = base;
        self.writable[4 + bar] = !(length - 1) & !15;
        self.words[1] |= 7;
        self
    }

    /// With a memory window that takes two registers.
    pub fn wide(mut self, bar: usize, base: u64, length: u64) -> Self {
        let mask = !(length - 1);
        self.words[4 + bar] = base as u32 | 4;
        self.words[5 + bar] = (base >> 32) as u32;
        self.writable[4 + bar] = mask as u32 & !15;
        self.writable[5 + bar] = (mask >> 32) as u32;
        self.words[1] |= 7;
        self
    }

    /// With a port window.
    pub fn ports(mut self, bar: usize, base: u16, length: u16) -> Self {
        self.words[4 + bar] = u32::from(base) | 1;
        self.writable[4 + bar] = u32::from(!(length - 1)) & 0xfffc;
        self.words[1] |= 7;
        self
    }

    /// With an interrupt pin, routed to an ISA line.
    pub fn interrupt(mut self, line: u8) -> Self {
        self.words[15] = 0x0100 | u32::from(line);
        self
    }

    /// A bridge to a bus that passes one megabyte-aligned range of memory on.
    pub fn bridge(secondary: u8, start: u32, end: u32) -> Self {
        let mut f = Self::new(0x1b36, 0x000c, 0x06_0400);
        f.words[3] = 1 << 16;
        f.words[6] = u32::from(secondary) << 8 | u32::from(secondary) << 16;
        f.words[8] = start >> 16 & 0xfff0 | (end - 1) & 0xfff0_0000;
        f.words[1] |= 7;
        f
    }

    /// True if it may master the bus.
    pub fn masters(&self) -> bool {
        self.words[1] & 4 != 0
    }

    /// True if it is kept from raising its line.
    pub fn held(&self) -> bool {
        self.words[1] & 0x400 != 0
    }
}

/// The functions there are. What none answers reads as all ones.
#[derive(Clone, Debug, Default)]
pub struct SimConfig {
    /// By place.
    pub functions: BTreeMap<Function, SimFunction>,
    /// Every write: function, register, value.
    pub writes: Vec<(Function, u8, u32)>,
    /// Writes to a base address register while its function decoded.
    pub unsafe_sizing: u32,
    /// Accesses so far.
    pub accesses: u64,
}

impl SimConfig {
    /// A space with these functions.
    pub fn with(functions: impl IntoIterator<Item = (Function, SimFunction)>) -> Self {
        Self { functions: functions.into_iter().collect(), ..Self::default() }
    }
}

impl ConfigSpace for SimConfig {
    fn config_read(&mut self, function: Function, register: u8) -> u32 {
        self.accesses += 1;
        let Some(f) = self.functions.get(&function) else { return u32::MAX };
        let raised = u32::from(register == 4 && f.raising) << 19;
        f.words[register as usize / 4] | raised
    }

    fn config_write(&mut self, function: Function, register: u8, value: u32) {
        self.accesses += 1;
        self.writes.push((function, register, value));
        let Some(f) = self.functions.get_mut(&function) else { return };
        let at = register as usize / 4;
        if (4..10).contains(&at) && f.words[1] & 3 != 0 {
            self.unsafe_sizing += 1;
        }
        f.words[at] = f.words[at] & !f.writable[at] | value & f.writable[at];
        // Status bits are cleared by writing ones to them.
        if at == 1 {
            f.words[1] &= !(value & 0xf900_0000);
        }
    }
}
