//! Configuration space through the ports 0xcf8 and 0xcfc, and the DMA controllers that no configuration shows.
//!
//! Owns: both ports; nothing else uses them. Invariant: one access is address, then data, with interrupts off.

use alloc::vec::Vec;

use kernel::acpi::Tables;
use kernel::device_table::{DeviceTable, Platform, Reserved, SERIAL};
use kernel::pci::{ConfigSpace, Function};
use sila_abi::device::Refusal;

use super::lapic::{self, Mode};
use super::memory_map::Ranges;
use super::regs::{in32, out8, out32};
use super::serial;

const ADDRESS: u16 = 0xcf8;
const DATA: u16 = 0xcfc;
const ENABLE: u32 = 1 << 31;
/// Mask registers of both legacy DMA controllers, with all channels masked.
const DMA_MASKS: [(u16, u8); 2] = [(0x0f, 0x0f), (0xde, 0x0f)];

/// The way to configuration space.
#[derive(Clone, Copy)]
pub struct ConfigPorts;

fn select(function: Function, register: u8) {
    let address = ENABLE | u32::from(function.number()) << 8 | u32::from(register & !3);
    // SAFETY: the address port does nothing but hold an address.
    unsafe { out32(ADDRESS, address) };
}

impl ConfigSpace for ConfigPorts {
    fn config_read(&mut self, function: Function, register: u8) -> u32 {
        select(function, register);
        // SAFETY: reading configuration registers has no effect on memory.
        unsafe { in32(DATA) }
    }

    fn config_write(&mut self, function: Function, register: u8, value: u32) {
        select(function, register);
        // SAFETY: the core's rules about configuration space (`kernel::pci`) never let a function reach memory.
        unsafe { out32(DATA, value) };
    }
}

/// Keeps every device from reaching memory by itself; counts the PCI functions.
pub fn silence() -> u32 {
    for (port, value) in DMA_MASKS {
        // SAFETY: a masked channel moves nothing; where there is no controller nothing listens.
        unsafe { out8(port, value) };
    }
    kernel::pci::silence(&mut ConfigPorts)
}

/// Finds out about every device, and what of each may be handed out. `firmware`: all that the memory map names;
/// `screen`: the framebuffer. Devices stop decoding one after the other while this runs.
pub fn table(tables: &Tables, firmware: &Ranges, screen: Option<(u64, u64)>) -> DeviceTable {
    let mut functions = Vec::new();
    let all = kernel::pci::scan(&mut ConfigPorts, &mut functions);
    let apic = match lapic::mode() {
        Mode::Memory(address) => Some((address, address + 4096)),
        Mode::Registers => None,
    };
    let reserve = |why| move |&(start, end): &(u64, u64)| Reserved { start, end, why };
    let memory: Vec<Reserved> = (screen.iter().map(reserve(Refusal::Framebuffer)))
        .chain(firmware.list().iter().map(reserve(Refusal::Memory)))
        .chain(tables.addresses.list().iter().chain(&apic).map(reserve(Refusal::Chipset)))
        .collect();
    let platform = Platform {
        memory: &memory,
        ports: tables.ports.list(),
        isa: tables.isa,
        sci: tables.sci,
        serial: SERIAL.map(|(base, _)| serial::answers(base)),
        complete: all && firmware.complete && tables.complete(),
    };
    DeviceTable::new(&functions, &platform)
}
