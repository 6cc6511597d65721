//! The devices of the machine, and what of each may be handed out.
//!
//! Owns: the one list of what boot objects can stand for: ports, interrupt lines and device Regions come from
//! nowhere else. Pure: a verdict about every window and line is a function of what the functions say and of what
//! the platform keeps. Invariants: no window that may be handed out touches memory, the chipset, the framebuffer
//! or a page of another window; a device whose bus mastering cannot be switched off gives nothing; nothing is
//! handed out twice; whatever is not known to be harmless is refused.

use alloc::vec::Vec;

use sila_abi::device::{DeviceRecord, PciDevice, Refusal, WINDOWS, WindowRecord};

use crate::kernel::IRQ_LINES;
use crate::memory::MAX_REGION;
use crate::pci::{Bridge, Facts, Function, Space, Window};

const PAGE: u64 = 4096;
/// Frame numbers have 32 bits.
const REACH: u64 = 1 << 44;
/// First port that PCI functions may have; those below are the platform's, and their aliases.
const FIRST_PORT: u64 = 0x1000;
/// One past the last port.
const PORTS_END: u64 = 0x1_0000;

/// Addresses that hold the platform itself on every PC: what lies below 1 MiB, and from the I/O APICs up to the
/// firmware's flash.
const CHIPSET: [(u64, u64); 2] = [(0, 0x10_0000), (0xfec0_0000, 0x1_0000_0000)];
/// Ports that hold power management and hot plugging on emulated machines, whatever their tables say.
const CHIPSET_PORTS: [(u64, u64); 1] = [(0xae00, 0xb040)];

/// The serial ports of a PC: first port, and ISA interrupt.
pub const SERIAL: [(u16, u8); 4] = [(0x3f8, 4), (0x2f8, 3), (0x3e8, 4), (0x2e8, 3)];
const SERIAL_PORTS: u16 = 8;
/// Class of a serial port like the 16550.
const SERIAL_CLASS: u32 = 0x07_0002;

/// A range of addresses that nobody gets, its end exclusive, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reserved {
    /// First address.
    pub start: u64,
    /// One past the last.
    pub end: u64,
    /// What a window that touches it is told.
    pub why: Refusal,
}

/// How an ISA interrupt arrives.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct IsaLine {
    /// Its global line.
    pub line: u32,
    /// Level-triggered.
    pub level: bool,
    /// Active low.
    pub low: bool,
}

/// What the machine's tables say about itself.
#[derive(Clone, Copy, Debug)]
pub struct Platform<'a> {
    /// Memory, APICs, timers, configuration space, the framebuffer.
    pub memory: &'a [Reserved],
    /// Ports of power management and reset: first, and one past the last.
    pub ports: &'a [(u64, u64)],
    /// ISA interrupts.
    pub isa: [IsaLine; 16],
    /// The ISA interrupt of power management events; 0 for none.
    pub sci: u8,
    /// Which serial ports answer.
    pub serial: [bool; 4],
    /// Whether the lists above, and that of the functions, hold all there is.
    pub complete: bool,
}

/// Something that may be handed out at most once.
#[derive(Clone, Copy, Debug)]
struct Part<T> {
    what: T,
    verdict: Result<(), Refusal>,
    minted: bool,
}

impl<T: Copy> Part<T> {
    fn new(what: T, verdict: Result<(), Refusal>) -> Self {
        Self { what, verdict, minted: false }
    }

    fn take(&mut self) -> Result<T, Refusal> {
        self.verdict?;
        if core::mem::replace(&mut self.minted, true) { Err(Refusal::Taken) } else { Ok(self.what) }
    }
}

#[derive(Clone, Debug)]
struct Device {
    /// `None`: a serial port of the platform.
    function: Option<Function>,
    vendor: u16,
    device: u16,
    class: u32,
    revision: u8,
    present: bool,
    windows: [Option<Part<Window>>; WINDOWS],
    line: Part<Option<u8>>,
}

/// The list.
#[derive(Debug, Default)]
pub struct DeviceTable {
    devices: Vec<Device>,
    isa: [IsaLine; 16],
}

impl DeviceTable {
    /// Judges every window and line.
    pub fn new(functions: &[Facts], platform: &Platform<'_>) -> Self {
        let serial = SERIAL.into_iter().zip(platform.serial);
        let legacy = serial.map(|((base, isa), present)| serial_port(base, isa, present, platform));
        let pci = (0..functions.len()).filter_map(|at| judge(functions, at, platform));
        Self { devices: legacy.chain(pci).collect(), isa: platform.isa }
    }

    /// How many devices there are.
    pub fn len(&self) -> usize {
        self.devices.len()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.devices.is_empty()
    }

    /// Hands a window of a PCI function out.
    pub fn take_window(
        &mut self,
        name: PciDevice,
        bar: u8,
        space: Space,
    ) -> Result<(Function, Window), Refusal> {
        let (function, device) = self.find(name)?;
        let part = device.windows.get_mut(usize::from(bar)).and_then(Option::as_mut);
        let part = part.ok_or(Refusal::NoWindow)?;
        if part.what.space != space {
            return Err(Refusal::WrongSpace);
        }
        Ok((function, part.take()?))
    }

    /// Hands the interrupt line of a PCI function out: its global number.
    pub fn take_line(&mut self, name: PciDevice) -> Result<(Function, u8), Refusal> {
        let (function, device) = self.find(name)?;
        Ok((function, device.line.take()?.ok_or(Refusal::NoLine)?))
    }

    fn find(&mut self, name: PciDevice) -> Result<(Function, &mut Device), Refusal> {
        let same =
            |d: &&mut Device| d.function.is_some() && (d.vendor, d.device) == (name.vendor, name.device);
        let device = self.devices.iter_mut().filter(same).nth(usize::from(name.index));
        let device = device.ok_or(Refusal::Absent)?;
        Ok((device.function.ok_or(Refusal::Absent)?, device))
    }

    /// Hands ports of a serial port out.
    pub fn take_serial_ports(&mut self, base: u16, length: u16) -> Result<(), Refusal> {
        let (start, end) = (u64::from(base), u64::from(base) + u64::from(length));
        let inside = |w: &Window| start >= w.base && end <= w.base + w.length && start < end;
        let legacy = self.devices.iter_mut().filter(|d| d.function.is_none());
        let part = legacy.flat_map(|d| d.windows.iter_mut().flatten()).find(|part| inside(&part.what));
        part.ok_or(Refusal::ReservedPorts)?.take().map(|_| ())
    }

    /// Hands the interrupt line of a serial port out, by its ISA number: its global number.
    pub fn take_serial_line(&mut self, isa: u8) -> Result<u8, Refusal> {
        let global = self.isa.get(usize::from(isa)).ok_or(Refusal::LineKept)?.line;
        if !SERIAL.iter().any(|(_, line)| *line == isa) {
            return Err(Refusal::LineKept);
        }
        let mut taken = Err(Refusal::NoLine);
        // Two serial ports share each line: both have given it away then.
        for device in self.devices.iter_mut().filter(|d| d.function.is_none()) {
            if device.line.what.is_some_and(|line| u32::from(line) == global) {
                taken = device.line.take();
            }
        }
        taken?.ok_or(Refusal::NoLine)
    }

    /// What introspection shows of the device after number `cursor`; its own number is one more.
    pub fn record(&self, cursor: usize) -> Option<DeviceRecord> {
        let d = self.devices.get(cursor)?;
        let mut windows = [WindowRecord::default(); WINDOWS];
        for (to, part) in windows.iter_mut().zip(&d.windows) {
            let Some(part) = part else { continue };
            *to = WindowRecord {
                kind: if part.what.space == Space::Memory { 1 } else { 2 },
                base: part.what.base,
                length: part.what.length,
                refusal: number(part.verdict),
                minted: part.minted.into(),
            };
        }
        Some(DeviceRecord {
            id: cursor as u64 + 1,
            place: d.function.map_or(DeviceRecord::LEGACY, |f| f.number().into()),
            vendor: d.vendor.into(),
            device: d.device.into(),
            class: d.class.into(),
            revision: d.revision.into(),
            present: d.present.into(),
            line: d.line.what.map_or(DeviceRecord::NO_LINE, u64::from),
            line_refusal: number(d.line.verdict),
            line_minted: d.line.minted.into(),
            windows,
        })
    }
}

fn number(verdict: Result<(), Refusal>) -> u64 {
    verdict.err().map_or(0, |refusal| refusal as u64)
}

/// A serial port of the platform: it may be handed out whether or not it answers, as nothing else can be there.
fn serial_port(base: u16, isa: u8, present: bool, platform: &Platform<'_>) -> Device {
    let line = platform.isa.get(usize::from(isa)).and_then(|isa| line_number(isa.line));
    let window = Window { space: Space::Ports, base: base.into(), length: SERIAL_PORTS.into() };
    let mut windows = [None; WINDOWS];
    if let Some(first) = windows.first_mut() {
        *first = Some(Part::new(window, Ok(())));
    }
    Device {
        function: None,
        vendor: 0,
        device: 0,
        class: SERIAL_CLASS,
        revision: 0,
        present,
        windows,
        line: Part::new(line, line.map(|_| ()).ok_or(Refusal::NoLine)),
    }
}

/// A global line that the kernel has a vector for.
fn line_number(line: u32) -> Option<u8> {
    u8::try_from(line).ok().filter(|line| usize::from(*line) < IRQ_LINES)
}

fn judge(all: &[Facts], at: usize, platform: &Platform<'_>) -> Option<Device> {
    let facts = all.get(at)?;
    let whole = judge_device(facts, platform);
    let mut windows = [None; WINDOWS];
    for (bar, (to, window)) in windows.iter_mut().zip(&facts.windows).enumerate() {
        *to = window.map(|w| Part::new(w, whole.and_then(|()| judge_window(&w, (at, bar), all, platform))));
    }
    let line = global_line(facts, platform);
    let verdict = whole.and_then(|()| judge_line(facts, line, platform));
    Some(Device {
        function: Some(facts.function),
        vendor: facts.vendor,
        device: facts.device,
        class: facts.class,
        revision: facts.revision,
        present: true,
        windows,
        line: Part::new(line.map(|(line, _)| line), verdict),
    })
}

/// What stands against every part of a device.
fn judge_device(facts: &Facts, platform: &Platform<'_>) -> Result<(), Refusal> {
    if !platform.complete {
        return Err(Refusal::Incomplete);
    }
    if facts.bridge.is_some() || is_kept(facts.class) {
        return Err(Refusal::Kept);
    }
    if !facts.quiet {
        return Err(Refusal::MasterStuck);
    }
    Ok(())
}

/// Memory controllers, bridges and system peripherals are the platform itself; SMBus and IPMI reach its power.
const fn is_kept(class: u32) -> bool {
    matches!(class >> 16, 0x05 | 0x06 | 0x08) || matches!(class >> 8, 0x0c05 | 0x0c07)
}

/// Whether one window may be handed out. `own`: whose it is, and which.
pub(crate) fn judge_window(
    window: &Window,
    own: (usize, usize),
    all: &[Facts],
    platform: &Platform<'_>,
) -> Result<(), Refusal> {
    if window.length == 0 {
        return Err(Refusal::Malformed);
    }
    if window.base == 0 {
        return Err(Refusal::Unassigned);
    }
    let range = match window.space {
        Space::Memory => memory_range(window)?,
        Space::Ports => port_range(window, platform)?,
    };
    if window.space == Space::Memory {
        let chipset =
            CHIPSET.iter().map(|(start, end)| Reserved { start: *start, end: *end, why: Refusal::Chipset });
        let hit = platform.memory.iter().copied().chain(chipset).find(|r| overlap(range, (r.start, r.end)));
        if let Some(reserved) = hit {
            return Err(reserved.why);
        }
    }
    let others = all.iter().enumerate().flat_map(|(at, facts)| {
        let windows = facts.windows.iter().enumerate();
        windows.filter_map(move |(bar, w)| w.as_ref().filter(|_| (at, bar) != own))
    });
    if others.filter(|w| w.space == window.space).any(|w| overlap(range, footprint(w))) {
        return Err(Refusal::Shared);
    }
    let bus = all.get(own.0).map_or(0, |facts| facts.function.bus());
    if passes_bridges(window, bus, all) { Ok(()) } else { Err(Refusal::OutsideBridge) }
}

/// The whole pages of a memory window.
fn memory_range(window: &Window) -> Result<(u64, u64), Refusal> {
    let end = window.base.checked_add(window.length).filter(|end| *end <= REACH);
    let end = end.ok_or(Refusal::OutOfReach)?.next_multiple_of(PAGE);
    if !window.base.is_multiple_of(PAGE) {
        return Err(Refusal::Unaligned);
    }
    if (end - window.base) / PAGE > MAX_REGION {
        return Err(Refusal::TooLarge);
    }
    Ok((window.base, end))
}

fn port_range(window: &Window, platform: &Platform<'_>) -> Result<(u64, u64), Refusal> {
    let end = window.base.checked_add(window.length).filter(|end| *end <= PORTS_END);
    let range = (window.base, end.ok_or(Refusal::OutOfReach)?);
    let reserved = platform.ports.iter().chain(&CHIPSET_PORTS).any(|r| overlap(range, *r));
    if window.base < FIRST_PORT || reserved { Err(Refusal::ReservedPorts) } else { Ok(range) }
}

/// What another window takes; one that has no address takes nothing.
fn footprint(window: &Window) -> (u64, u64) {
    // Of one that makes no sense at least the place that it names.
    let end = window.base.saturating_add(window.length.max(1));
    if window.base == 0 { (0, 0) } else { (window.base, end) }
}

const fn overlap(a: (u64, u64), b: (u64, u64)) -> bool {
    a.0 < b.1 && b.0 < a.1
}

/// True if every bridge between a bus and its root passes the window on.
fn passes_bridges(window: &Window, mut bus: u8, all: &[Facts]) -> bool {
    loop {
        let mut above = None;
        for facts in all {
            let Some(bridge) = facts.bridge.as_ref().filter(|b| b.secondary == bus) else { continue };
            // Firmware numbers buses from the root up; what does not is not followed.
            if facts.function.bus() >= bus || !passes(bridge, window) {
                return false;
            }
            above = Some(facts.function.bus());
        }
        match above {
            Some(up) => bus = up,
            None => return true,
        }
    }
}

fn passes(bridge: &Bridge, window: &Window) -> bool {
    let Some(end) = window.base.checked_add(window.length) else { return false };
    let inside = |range: (u64, u64)| window.base >= range.0 && end <= range.1;
    match window.space {
        Space::Memory => inside(bridge.memory) || inside(bridge.prefetch),
        Space::Ports => inside(bridge.ports),
    }
}

/// The global line that the firmware routed a function's interrupt to, and whether it is level-triggered.
fn global_line(facts: &Facts, platform: &Platform<'_>) -> Option<(u8, bool)> {
    if facts.pin == 0 || facts.line == 0 {
        return None;
    }
    let isa = platform.isa.get(usize::from(facts.line))?;
    Some((line_number(isa.line)?, isa.level))
}

fn judge_line(facts: &Facts, line: Option<(u8, bool)>, platform: &Platform<'_>) -> Result<(), Refusal> {
    let (line, level) = line.ok_or(Refusal::NoLine)?;
    let is = |isa: u8| platform.isa.get(usize::from(isa)).is_some_and(|i| i.line == u32::from(line));
    // The timer, the keyboard, the cascade, the clock, and power management.
    let kept = [0, 1, 2, 8].into_iter().chain(Some(platform.sci).filter(|sci| *sci != 0));
    if kept.chain(SERIAL.map(|(_, isa)| isa)).any(is) {
        return Err(Refusal::LineKept);
    }
    if !level {
        return Err(Refusal::NotLevel);
    }
    if !facts.can_disable { Err(Refusal::NoDisable) } else { Ok(()) }
}

#[cfg(test)]
#[path = "device_table_tests.rs"]
mod tests;
