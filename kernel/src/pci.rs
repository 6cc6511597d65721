//! PCI configuration space: silencing every function at boot, and finding out what there is.
//!
//! Owns: every rule by which the kernel touches configuration space, which nobody else ever does. Pure: the
//! registers are reached through [`ConfigSpace`]. Invariants: every loop is bounded, whatever the hardware
//! answers; nothing here ever switches bus mastering or message-signalled interrupts on; a base address
//! register is sized only while its function decodes nothing.

use alloc::vec::Vec;

use sila_abi::device::WINDOWS;

/// Functions that are listed. Those beyond are silenced all the same.
pub const MAX_FUNCTIONS: usize = 256;
/// Capabilities that one function's list is followed for: all that fit into its configuration space.
const MAX_CAPABILITIES: usize = 48;

const COMMAND: u8 = 0x04;
const CLASS: u8 = 0x08;
const HEADER: u8 = 0x0c;
const BARS: u8 = 0x10;
const IO_WINDOW: u8 = 0x1c;
const MEMORY_WINDOW: u8 = 0x20;
const PREFETCH_WINDOW: u8 = 0x24;
const PREFETCH_UPPER: [u8; 2] = [0x28, 0x2c];
const IO_WINDOW_UPPER: u8 = 0x30;
const CAPABILITIES: u8 = 0x34;
const INTERRUPT: u8 = 0x3c;

const DECODE_PORTS: u32 = 1 << 0;
const DECODE_MEMORY: u32 = 1 << 1;
const BUS_MASTER: u32 = 1 << 2;
const INTERRUPT_OFF: u32 = 1 << 10;
/// Status bits stand in the upper half of the command word; writing 0 to them changes none.
const COMMAND_BITS: u32 = 0xffff;
const INTERRUPT_RAISED: u32 = 1 << 19;
const HAS_CAPABILITIES: u32 = 1 << 20;

const MSI: u8 = 0x05;
const MSIX: u8 = 0x11;
const MSI_ON: u32 = 1 << 16;
const MSIX_ON: u32 = 1 << 31;

/// Names a function: bus, slot and function number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Function(u16);

impl Function {
    /// The function at a place; slot and function number beyond their ranges are cut.
    pub const fn new(bus: u8, slot: u8, function: u8) -> Self {
        Self((bus as u16) << 8 | (slot as u16 & 31) << 3 | (function as u16 & 7))
    }

    /// Bus in bits 8 to 15, slot in 3 to 7, function in 0 to 2.
    pub const fn number(self) -> u16 {
        self.0
    }

    /// Its bus.
    pub const fn bus(self) -> u8 {
        (self.0 >> 8) as u8
    }

    fn sibling(self, function: u8) -> Self {
        Self(self.0 & !7 | u16::from(function & 7))
    }

    /// The first function of every slot of every bus.
    fn slots() -> impl Iterator<Item = Self> {
        (0..=u16::MAX).step_by(8).map(Self)
    }
}

/// Configuration space as the kernel reaches it.
pub trait ConfigSpace {
    /// Reads the 32 bits at a register, a multiple of 4. All ones where no function answers.
    fn config_read(&mut self, function: Function, register: u8) -> u32;

    /// Writes the 32 bits at a register, a multiple of 4.
    fn config_write(&mut self, function: Function, register: u8, value: u32);
}

/// What a window is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Space {
    /// Registers in memory.
    Memory,
    /// I/O ports.
    Ports,
}

/// What a base address register says. A length of 0 marks one that makes no sense.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    /// What it is made of.
    pub space: Space,
    /// Physical address or port; 0 if the firmware gave none.
    pub base: u64,
    /// Bytes or ports, a power of two.
    pub length: u64,
}

/// What a bridge passes on to the bus behind it. Ends are exclusive; an empty range passes nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bridge {
    /// The bus behind it.
    pub secondary: u8,
    /// Memory.
    pub memory: (u64, u64),
    /// Prefetchable memory.
    pub prefetch: (u64, u64),
    /// Ports.
    pub ports: (u64, u64),
}

/// What a function says about itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Facts {
    /// Where it is.
    pub function: Function,
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// Class, subclass and programming interface.
    pub class: u32,
    /// Revision.
    pub revision: u8,
    /// Its windows, by base address register.
    pub windows: [Option<Window>; WINDOWS],
    /// The interrupt line that the firmware noted; 0 or 255 for none.
    pub line: u8,
    /// Its interrupt pin; 0 for none.
    pub pin: u8,
    /// If it is a bridge.
    pub bridge: Option<Bridge>,
    /// Bus mastering is off.
    pub quiet: bool,
    /// Its interrupt can be switched off by the function itself.
    pub can_disable: bool,
}

/// Calls `visit` with every function that answers.
fn each(space: &mut impl ConfigSpace, mut visit: impl FnMut(&mut dyn ConfigSpace, Function)) {
    for first in Function::slots() {
        if !answers(space, first) {
            continue;
        }
        visit(space, first);
        let several = space.config_read(first, HEADER) >> 23 & 1 == 1;
        for function in (1..8).map(|n| first.sibling(n)).filter(|_| several) {
            if answers(space, function) {
                visit(space, function);
            }
        }
    }
}

fn answers(space: &mut (impl ConfigSpace + ?Sized), function: Function) -> bool {
    !matches!(space.config_read(function, 0) & 0xffff, 0 | 0xffff)
}

/// Takes bus mastering, message-signalled interrupts, the interrupt line and the option ROM from every
/// function. What the firmware left running can reach memory no more. Counts the functions.
pub fn silence(space: &mut impl ConfigSpace) -> u32 {
    let mut count = 0;
    each(space, |space, function| {
        silence_function(space, function);
        count += 1;
    });
    count
}

fn silence_function(space: &mut dyn ConfigSpace, function: Function) {
    command(space, function, 0, INTERRUPT_OFF);
    for (id, at) in capabilities(space, function) {
        let on = match id {
            MSI => MSI_ON,
            MSIX => MSIX_ON,
            _ => continue,
        };
        let control = space.config_read(function, at);
        space.config_write(function, at, control & !on);
    }
    let rom = match header(space, function) {
        0 => 0x30,
        1 => 0x38,
        _ => return,
    };
    let value = space.config_read(function, rom);
    space.config_write(function, rom, value & !1);
}

/// Changes command bits: the only way in which they are written, and bus mastering is off afterwards, whatever
/// was read.
fn command(space: &mut (impl ConfigSpace + ?Sized), function: Function, clear: u32, set: u32) {
    let before = space.config_read(function, COMMAND) & COMMAND_BITS;
    space.config_write(function, COMMAND, (before & !clear | set) & !BUS_MASTER);
}

fn header(space: &mut dyn ConfigSpace, function: Function) -> u8 {
    (space.config_read(function, HEADER) >> 16 & 0x7f) as u8
}

/// The capabilities of a function, by id and register, as far as its list is sound.
fn capabilities(space: &mut dyn ConfigSpace, function: Function) -> impl Iterator<Item = (u8, u8)> + use<> {
    let mut found = [(0, 0); MAX_CAPABILITIES];
    let mut at = 0;
    if space.config_read(function, COMMAND) & HAS_CAPABILITIES != 0 && header(space, function) < 2 {
        at = space.config_read(function, CAPABILITIES) as u8 & !3;
    }
    for entry in &mut found {
        if at < 0x40 {
            break;
        }
        let word = space.config_read(function, at);
        *entry = (word as u8, at);
        at = (word >> 8) as u8 & !3;
    }
    found.into_iter().filter(|(_, at)| *at != 0)
}

/// Finds out about every function, after [`silence`]. False if there are more than the list holds.
pub fn scan(space: &mut impl ConfigSpace, found: &mut Vec<Facts>) -> bool {
    let mut all = true;
    each(space, |space, function| {
        if found.len() < MAX_FUNCTIONS {
            let facts = examine(space, function);
            found.push(facts);
        } else {
            all = false;
        }
    });
    all
}

fn examine(space: &mut dyn ConfigSpace, function: Function) -> Facts {
    let (id, class) = (space.config_read(function, 0), space.config_read(function, CLASS));
    let (command, interrupt) = (space.config_read(function, COMMAND), space.config_read(function, INTERRUPT));
    let (kind, host_bridge) = (header(space, function), class >> 16 == 0x0600);
    let bars = match kind {
        // Memory itself may be behind a host bridge: it never stops decoding.
        _ if host_bridge => 0,
        0 => 6,
        1 => 2,
        _ => 0,
    };
    Facts {
        function,
        vendor: id as u16,
        device: (id >> 16) as u16,
        class: class >> 8,
        revision: class as u8,
        windows: size_windows(space, function, bars),
        line: interrupt as u8,
        pin: (interrupt >> 8) as u8,
        bridge: (kind == 1).then(|| read_bridge(space, function)),
        quiet: command & BUS_MASTER == 0,
        can_disable: command & INTERRUPT_OFF != 0,
    }
}

/// Reads the base address registers and, while nothing is decoded, how much each covers.
fn size_windows(space: &mut dyn ConfigSpace, function: Function, count: usize) -> [Option<Window>; WINDOWS] {
    let mut windows = [None; WINDOWS];
    if count == 0 {
        return windows;
    }
    let decoded = space.config_read(function, COMMAND) & (DECODE_PORTS | DECODE_MEMORY);
    command(space, function, decoded, 0);
    let still = space.config_read(function, COMMAND) & (DECODE_PORTS | DECODE_MEMORY) != 0;
    let mut words = [(0, 0); WINDOWS];
    for (bar, word) in words.iter_mut().enumerate().take(count) {
        let register = BARS + 4 * bar as u8;
        let value = space.config_read(function, register);
        if still {
            // It can't be sized without moving it: where it is is all that is known.
            windows[bar] = Some(nonsense(value)).filter(|_| value != 0);
            continue;
        }
        space.config_write(function, register, u32::MAX);
        *word = (value, space.config_read(function, register));
        space.config_write(function, register, value);
    }
    command(space, function, 0, decoded);
    if still {
        return windows;
    }
    let mut bar = 0;
    while let (Some(slot), Some(&word)) = (windows.get_mut(bar), words.get(bar)) {
        let wide = word.1 & 7 == 4;
        let upper = words.get(bar + 1).copied().filter(|_| bar + 1 < count);
        *slot = if bar < count { window(word, wide.then_some(upper)) } else { None };
        bar += if wide { 2 } else { 1 };
    }
    windows
}

/// A window of which only the place is known.
fn nonsense(value: u32) -> Window {
    let (space, kept) = if value & 1 == 1 { (Space::Ports, !3) } else { (Space::Memory, !15) };
    Window { space, base: u64::from(value & kept), length: 0 }
}

/// A window from what its register held and what it kept of all ones. `upper`: the same of the register that
/// a wide one goes on in, which may be missing.
fn window(word: (u32, u32), upper: Option<Option<(u32, u32)>>) -> Option<Window> {
    let (value, mask) = word;
    if mask == 0 {
        return None;
    }
    let nonsense = Some(nonsense(value));
    if mask & 1 == 1 {
        let kept = mask & 0xfffc | 0xffff_0000;
        let length = (!kept & 0xffff) + 1;
        let sound = mask & 0xfffc != 0 && is_run(u64::from(!kept));
        let whole = Window { space: Space::Ports, base: u64::from(value & !3), length: length.into() };
        return if sound { Some(whole) } else { nonsense };
    }
    let low = (u64::from(value & !15), u64::from(mask & !15));
    let (base, kept) = match upper {
        None if mask >> 1 & 3 == 3 || low.1 == 0 => return nonsense,
        None => (low.0, low.1 | 0xffff_ffff << 32),
        Some(None) => return nonsense,
        Some(Some((value, mask))) => (low.0 | u64::from(value) << 32, low.1 | u64::from(mask) << 32),
    };
    match (!kept).checked_add(1) {
        Some(length) if is_run(!kept) && length >= 16 => Some(Window { space: Space::Memory, base, length }),
        _ => nonsense,
    }
}

/// True if the bits that are set are the lowest ones.
const fn is_run(bits: u64) -> bool {
    bits & bits.wrapping_add(1) == 0
}

fn read_bridge(space: &mut dyn ConfigSpace, function: Function) -> Bridge {
    let mut read = |register| space.config_read(function, register);
    let (io, memory, prefetch) = (read(IO_WINDOW), read(MEMORY_WINDOW), read(PREFETCH_WINDOW));
    let upper = PREFETCH_UPPER.map(|register| u64::from(read(register)));
    let io_upper = read(IO_WINDOW_UPPER);
    let pages = |word: u32| (u64::from(word & 0xfff0) << 16, u64::from(word >> 16 & 0xfff0) << 16);
    let range = |first: u64, last: u64, unit: u64| if last >= first { (first, last + unit) } else { (0, 0) };
    let (first, last) = pages(memory);
    let (low, high) = pages(prefetch);
    let wide = if prefetch & 15 == 1 { upper } else { [0; 2] };
    let io_wide = if io & 15 == 1 { [io_upper & 0xffff, io_upper >> 16] } else { [0; 2] };
    let ports = [io & 0xf0, io >> 8 & 0xf0].map(|bits| u64::from(bits) << 8);
    Bridge {
        secondary: (read(0x18) >> 8) as u8,
        memory: range(first, last, 1 << 20),
        prefetch: range(low | wide[0] << 32, high | wide[1] << 32, 1 << 20),
        ports: range(ports[0] | u64::from(io_wide[0]) << 16, ports[1] | u64::from(io_wide[1]) << 16, 1 << 12),
    }
}

/// Lets a function answer in a space.
pub fn decode(m: &mut impl ConfigSpace, function: Function, space: Space) {
    let bit = match space {
        Space::Memory => DECODE_MEMORY,
        Space::Ports => DECODE_PORTS,
    };
    command(m, function, 0, bit);
}

/// Keeps a function from raising its interrupt line, or lets it.
pub fn hold_interrupt(m: &mut impl ConfigSpace, function: Function, hold: bool) {
    let (clear, set) = if hold { (0, INTERRUPT_OFF) } else { (INTERRUPT_OFF, 0) };
    command(m, function, clear, set);
}

/// True if it is this function that raises its line at this moment.
pub fn raises(m: &mut impl ConfigSpace, function: Function) -> bool {
    m.config_read(function, COMMAND) & (INTERRUPT_RAISED | INTERRUPT_OFF) == INTERRUPT_RAISED
}

#[cfg(test)]
#[path = "pci_tests.rs"]
pub(crate) mod tests;
