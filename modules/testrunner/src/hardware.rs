//! Devices driven from ring 3: QEMU's `edu`, which computes factorials, interrupts and moves memory by itself, and
//! a serial port on the PCI bus. What moves memory by itself must not.

use crate::lab::{
    BUNDLE, EDU, EDU_IRQ, Failure, KEYS, Lab, NOTHING, Outcome, POOL, PORTS, PROBE_PRIORITY, SCREEN, SERIAL,
    SERIAL_IRQ, SYSTEM, TEST, TWIN, TWIN_IRQ, accounts, copy, create, equal, holds, pause, refused, sealed,
    until, works,
};
use alloc::format;
use alloc::vec::Vec;
use probe::{Act, DRIVE_AND_DIE, DRIVE_EXECUTE, DRIVE_WRITE};
use sila_abi::device::{DeviceRecord, WindowRecord};
use sila_abi::protocol::layout::{OWN_POOL, OWN_PROCESS};
use sila_abi::syscall::NO_WAIT;
use sila_abi::{Error, Op, Rights, Slot};
use sila_rt::clock::{self, MILLISECOND};
use sila_rt::device::Registers;
use sila_rt::hostile::invoke;
use sila_rt::memory::{OwnRegion, SealedRegion};
use sila_rt::slots::{OwnedSlot, make};
use sila_rt::{CallError, ipc, op, system};

const IDENTITY: usize = 0x00;
const LIVENESS: usize = 0x04;
const FACTORIAL: usize = 0x08;
const STATUS: usize = 0x20;
const RAISED: usize = 0x24;
const RAISE: usize = 0x60;
const LOWER: usize = 0x64;
const DMA_FROM: usize = 0x80;
const DMA_TO: usize = 0x88;
const DMA_COUNT: usize = 0x90;
const DMA_COMMAND: usize = 0x98;
/// Where the device's own memory is, as its DMA engine sees it.
const DMA_BUFFER: u64 = 0x4_0000;
/// Bytes of one transfer: the device stops QEMU for one that reaches the end of its memory.
const DMA_BYTES: u64 = 4096 - 8;
const DMA_START: u64 = 1;
const DMA_TO_MEMORY: u64 = 2;
const DMA_INTERRUPT: u64 = 4;
/// The interrupt that the end of a transfer raises.
const DMA_RAISED: u32 = 0x100;
/// The flag that the tests let interrupts set.
const FLAG: u64 = 1 << 5;

/// A driver of an `edu`: its registers, and a Notification for its interrupt.
struct Edu {
    registers: Registers,
    irq: Slot,
    note: OwnedSlot,
}

impl Drop for Edu {
    fn drop(&mut self) {
        // The next test finds the device as this one did.
        let _ = self.registers.write32(LOWER, u32::MAX);
        let _ = op::IrqUnbind(self.irq);
    }
}

fn notification() -> Result<OwnedSlot, Failure> {
    works("NotificationCreate", make(|dst| op::NotificationCreate(OWN_POOL, dst)))
}

impl Edu {
    fn open(region: Slot, irq: Slot) -> Result<Self, Failure> {
        let registers = works("mapping the registers", Registers::map(region, true))?;
        let note = notification()?;
        works("IrqBind", op::IrqBind(irq, note.slot(), FLAG))?;
        Ok(Self { registers, irq, note })
    }

    fn first() -> Result<Self, Failure> {
        Self::open(EDU, EDU_IRQ)
    }

    fn twin() -> Result<Self, Failure> {
        Self::open(TWIN, TWIN_IRQ)
    }

    fn read(&self, register: usize) -> Result<u32, Failure> {
        self.registers.read32(register).ok_or_else(|| Failure::new("reading a register", "a value", "none"))
    }

    fn write(&self, register: usize, value: u32) -> Outcome {
        holds("writing a register", self.registers.write32(register, value))
    }

    fn write_wide(&self, register: usize, value: u64) -> Outcome {
        holds("writing a wide register", self.registers.write64(register, value))
    }

    /// Waits for the interrupt.
    fn interrupted(&self) -> Outcome {
        let flags =
            works("waiting for the interrupt", ipc::wait(self.note.slot(), clock::after(clock::SECOND)))?;
        equal("the flags of the interrupt", flags, FLAG)
    }

    /// Checks that no interrupt has come.
    fn silent(&self) -> Outcome {
        refused("a flag", ipc::wait(self.note.slot(), NO_WAIT), Error::Timeout)
    }

    /// Deals with the interrupt.
    fn acknowledge(&self, bits: u32) -> Outcome {
        self.write(LOWER, bits)?;
        works("IrqAck", op::IrqAck(self.irq)).map(|_| ())
    }

    /// Lets the device move most of a page, and waits until it says that it has.
    fn transfer(&self, from: u64, to: u64, direction: u64) -> Outcome {
        self.write_wide(DMA_FROM, from)?;
        self.write_wide(DMA_TO, to)?;
        self.write_wide(DMA_COUNT, DMA_BYTES)?;
        self.write_wide(DMA_COMMAND, DMA_START | DMA_INTERRUPT | direction)?;
        self.interrupted()?;
        equal("what the device raised", self.read(RAISED)?, DMA_RAISED)?;
        self.acknowledge(DMA_RAISED)
    }
}

/// The physical address of a page, which only tests may know.
fn physical(region: Slot, page: u64) -> Result<u64, Failure> {
    Ok(works("TestPhysical", op::TestPhysical(TEST, region, page))?.words[0])
}

fn pattern(seed: u8) -> Vec<u8> {
    (0..4096u32).map(|i| (i as u8).wrapping_mul(31) ^ seed | 1).collect()
}

pub fn a_driver_maps_its_device_and_computes(_: &Lab) -> Outcome {
    for edu in [Edu::first()?, Edu::twin()?] {
        equal("the identity", edu.read(IDENTITY)?, 0x0100_00ed)?;
        for value in [0, 0x1234_5678, u32::MAX] {
            edu.write(LIVENESS, value)?;
            equal("the inverted value", edu.read(LIVENESS)?, !value)?;
        }
        for (number, want) in [(1, 1), (5, 120), (10, 3_628_800), (12, 479_001_600)] {
            edu.write(FACTORIAL, number)?;
            until("the computation ends", || edu.registers.read32(STATUS).is_some_and(|s| s & 1 == 0))?;
            equal(&format!("the factorial of {number}"), edu.read(FACTORIAL)?, want)?;
        }
        equal("a misaligned register", edu.registers.read32(2), None)?;
        equal("a register behind the end", edu.registers.read32(edu.registers.size()), None)?;
    }
    Ok(())
}

pub fn an_interrupt_of_a_device_reaches_its_driver(_: &Lab) -> Outcome {
    let edu = Edu::first()?;
    for bits in [1, 0x55, 0x8000_0000] {
        edu.silent()?;
        edu.write(RAISE, bits)?;
        edu.interrupted()?;
        equal("what is raised", edu.read(RAISED)?, bits)?;
        edu.acknowledge(bits)?;
    }
    edu.write(STATUS, 0x80)?;
    edu.write(FACTORIAL, 6)?;
    edu.interrupted()?;
    equal("the factorial", edu.read(FACTORIAL)?, 720)?;
    edu.write(STATUS, 0)?;
    edu.acknowledge(u32::MAX)?;
    pause(5 * MILLISECOND);
    edu.silent()
}

pub fn an_interrupt_that_nobody_acknowledges_stays_silent_and_harms_nobody(lab: &Lab) -> Outcome {
    let (edu, twin) = (Edu::first()?, Edu::twin()?);
    edu.write(RAISE, 1)?;
    edu.interrupted()?;
    // The device goes on raising its line: nothing comes of it.
    lab.child()?.exits(Act::Exit, &[7], &[], 7)?;
    pause(30 * MILLISECOND);
    edu.silent()?;
    for _ in 0..3 {
        twin.write(RAISE, 2)?;
        twin.interrupted()?;
        twin.acknowledge(2)?;
    }
    edu.silent()?;
    // Acknowledged to the kernel and not to the device: it interrupts again, once for each time.
    for _ in 0..20 {
        works("IrqAck", op::IrqAck(edu.irq))?;
        edu.interrupted()?;
        edu.silent()?;
    }
    edu.acknowledge(1)?;
    pause(5 * MILLISECOND);
    edu.silent()?;
    twin.silent()
}

/// What the kernel says about the device of this number among its like.
fn record(index: usize, vendor: u64, device: u64) -> Result<DeviceRecord, Failure> {
    let all = works("SystemDevice", system::devices(SYSTEM))?;
    let mut found = all.into_iter().filter(|d| (d.vendor, d.device) == (vendor, device));
    found.nth(index).ok_or_else(|| Failure::new("the device", "in the list", "absent"))
}

pub fn devices_that_share_a_line_do_not_hold_each_other_up(_: &Lab) -> Outcome {
    let lines = [record(0, 0x1234, 0x11e8)?, record(1, 0x1234, 0x11e8)?];
    equal("the lines of the two", lines[0].line, lines[1].line)?;
    equal("whether both were handed out", lines.map(|d| d.line_minted), [1, 1])?;
    let (edu, twin) = (Edu::first()?, Edu::twin()?);
    edu.write(RAISE, 1)?;
    twin.write(RAISE, 2)?;
    edu.interrupted()?;
    twin.interrupted()?;
    equal("what each raised", (edu.read(RAISED)?, twin.read(RAISED)?), (1, 2))?;
    twin.acknowledge(2)?;
    for bits in 3..20 {
        twin.write(RAISE, bits)?;
        twin.interrupted()?;
        twin.acknowledge(bits)?;
    }
    edu.silent()?;
    edu.acknowledge(1)?;
    // One that is unbound is silent, whatever it does.
    works("IrqUnbind", op::IrqUnbind(EDU_IRQ))?;
    edu.write(RAISE, 4)?;
    twin.write(RAISE, 8)?;
    twin.interrupted()?;
    edu.silent()?;
    twin.acknowledge(8)?;
    twin.silent()
}

pub fn dma_does_not_change_a_sealed_region(_: &Lab) -> Outcome {
    let edu = Edu::first()?;
    let bytes = pattern(0x5a);
    let region = sealed(&bytes)?;
    let target = physical(region.slot(), 0)?;
    holds("the address is one of memory", target != 0 && target & 4095 == 0)?;
    for _ in 0..2 {
        edu.transfer(DMA_BUFFER, target, DMA_TO_MEMORY)?;
    }
    let now = works("mapping it", SealedRegion::map(region, 4096))?;
    holds("the sealed bytes are as they were", now.bytes() == bytes)?;
    // The bundle that the system runs from is sealed from the start.
    let bundle = works("a copy", copy(BUNDLE, Rights::READ))?;
    let code = works("mapping the bundle", SealedRegion::map(bundle, 1 << 30))?;
    let before = code.bytes().get(..4096).unwrap_or_default().to_vec();
    edu.transfer(DMA_BUFFER, physical(BUNDLE, 0)?, DMA_TO_MEMORY)?;
    holds("the bundle is as it was", code.bytes().get(..4096) == Some(&before[..]))
}

pub fn dma_does_not_change_or_read_memory(_: &Lab) -> Outcome {
    let edu = Edu::first()?;
    let (from, to) = (crate::lab::filled(&pattern(0x11))?, crate::lab::filled(&pattern(0x22))?);
    let place = |region: &OwnRegion| physical(region.slot(), 0);
    edu.transfer(place(&from)?, DMA_BUFFER, 0)?;
    edu.transfer(DMA_BUFFER, place(&to)?, DMA_TO_MEMORY)?;
    holds("the bytes read are as they were", from.bytes() == pattern(0x11))?;
    holds("the bytes to be written are as they were", to.bytes() == pattern(0x22))
}

pub fn a_device_region_is_never_sealed(_: &Lab) -> Outcome {
    refused("sealing it", op::RegionSeal(EDU), Error::DeviceRegion)?;
    let registers = works("mapping it", Registers::map(EDU, false))?;
    refused("sealing it while it is read", op::RegionSeal(EDU), Error::DeviceRegion)?;
    let [pages, sealed, mappings, writable, device, _] = works("RegionStatus", op::RegionStatus(EDU))?.words;
    equal(
        "pages, sealed, mappings, writable, device",
        [pages, sealed, mappings, writable, device],
        [256, 0, 1, 0, 1],
    )?;
    drop(registers);
    works("mapping it to be written", Registers::map(EDU, true)).map(|_| ())
}

pub fn a_device_region_is_no_image_and_no_proof(lab: &Lab) -> Outcome {
    let before = accounts()?;
    for (image, proof) in [(EDU, lab.proof()), (lab.image(), EDU), (EDU, EDU)] {
        let process = create(image, proof, POOL, PROBE_PRIORITY, &[]);
        refused("ProcessCreate", process, Error::DeviceRegion)?;
    }
    equal("the accounts afterwards", accounts()?, before)
}

pub fn a_device_region_is_no_signed_record(_: &Lab) -> Outcome {
    for length in [1, 4096, 65_536] {
        refused("KeyRingInstall", op::KeyRingInstall(KEYS, EDU, length), Error::DeviceRegion)?;
    }
    refused("TestPhysical", op::TestPhysical(TEST, EDU, 0), Error::DeviceRegion)
}

pub fn a_device_region_is_never_executable_nor_written_through_a_readable_mapping(lab: &Lab) -> Outcome {
    for access in [2, 3, 4, 5, 8, u64::MAX] {
        let mapped = map(EDU, 0, 1, access);
        refused(&format!("access {access:#x}"), mapped, Error::InvalidArgument)?;
    }
    // Present, from ring 3: a write, and the fetch of an instruction.
    for (mode, error) in [(DRIVE_WRITE, 7), (DRIVE_EXECUTE, 0x15)] {
        let child = lab.child()?;
        child.start(Act::Drive, &[mode], &[EDU, EDU_IRQ])?;
        let end = child.end()?;
        equal("cause, vector and error code", (end.cause, end.code, end.error), (3, 14, error))?;
    }
    Ok(())
}

/// Where test mappings go: nothing else is there.
const PLACE: u64 = 0x6100_0000_0000;

fn map(region: Slot, offset: u64, pages: u64, writable: u64) -> Result<OwnedSlot, CallError> {
    make(|dst| {
        let words = [OWN_PROCESS.0.into(), PLACE, offset, pages, writable, dst.0.into()];
        invoke(region, Op::RegionMap, &words)
    })
}

fn unmap(mapping: &OwnedSlot) -> Outcome {
    works("MappingUnmap", invoke(mapping.slot(), Op::MappingUnmap, &[])).map(|_| ())
}

pub fn a_device_region_ends_where_the_device_ends(_: &Lab) -> Outcome {
    for (offset, pages) in [(256, 1), (255, 2), (0, 257), (u64::MAX, 1), (1 << 52, 1), (0x10_0000, 1)] {
        let mapped = map(EDU, offset, pages, 0);
        refused(&format!("{pages} pages from page {offset}"), mapped, Error::InvalidArgument)?;
    }
    unmap(&works("the last page", map(EDU, 255, 1, 1))?)?;
    unmap(&works("all pages", map(EDU, 0, 256, 1))?)
}

pub fn a_device_region_needs_its_rights(_: &Lab) -> Outcome {
    let readable = works("a copy", copy(EDU, Rights::READ | Rights::COPY))?;
    refused("mapping it to be written", map(readable.slot(), 0, 1, 1), Error::MissingRight)?;
    refused("more rights", copy(readable.slot(), Rights::READ | Rights::WRITE), Error::MissingRight)?;
    let writable = works("a copy", copy(EDU, Rights::WRITE))?;
    refused("mapping it to be read", map(writable.slot(), 0, 1, 0), Error::MissingRight)?;
    unmap(&works("mapping it to be read", map(readable.slot(), 0, 1, 0))?)
}

pub fn device_regions_cost_and_free_no_frames(lab: &Lab) -> Outcome {
    lab.balanced(|| {
        let copies = [
            works("a copy", copy(EDU, Rights::READ | Rights::WRITE))?,
            works("a copy", copy(EDU, Rights::READ))?,
        ];
        let mapping = works("mapping one", map(copies[0].slot(), 0, 256, 1))?;
        drop(copies);
        unmap(&mapping)?;
        let child = lab.child()?;
        child.start(Act::Drive, &[DRIVE_EXECUTE], &[EDU, EDU_IRQ])?;
        child.end().map(|_| ())
    })?;
    let edu = Edu::first()?;
    equal("the identity afterwards", edu.read(IDENTITY)?, 0x0100_00ed)
}

fn port_read(ports: Slot, offset: u64) -> Result<u64, Failure> {
    Ok(works("PortRead", op::PortRead(ports, offset, 1))?.words[0])
}

fn port_write(ports: Slot, offset: u64, value: u64) -> Outcome {
    works("PortWrite", op::PortWrite(ports, offset, 1, value)).map(|_| ())
}

pub fn ports_of_a_device_end_where_it_ends(_: &Lab) -> Outcome {
    for (offset, width) in [(8, 1), (7, 2), (5, 4), (0xffff, 1), (u64::MAX, 1), (u64::MAX - 3, 4)] {
        refused("a read", op::PortRead(SERIAL, offset, width), Error::PortOutOfRange)?;
        refused("a write", op::PortWrite(SERIAL, offset, width, 0), Error::PortOutOfRange)?;
    }
    for width in [0, 3, 8] {
        refused("an odd width", op::PortRead(SERIAL, 0, width), Error::InvalidArgument)?;
    }
    let card = record(0, 0x1b36, 2)?.windows[0];
    equal("kind, length and whether it was handed out", (card.kind, card.length, card.minted), (2, 8, 1))
}

/// Registers of a 16550.
const DATA: u64 = 0;
const INTERRUPTS: u64 = 1;
const LINE: u64 = 3;
const MODEM: u64 = 4;
const LINE_STATUS: u64 = 5;
const SCRATCH: u64 = 7;

pub fn a_serial_port_on_the_bus_is_driven_by_its_ports_and_interrupt(_: &Lab) -> Outcome {
    for value in [0x5a, 0xa5] {
        port_write(SERIAL, SCRATCH, value)?;
        equal("the scratch register", port_read(SERIAL, SCRATCH)?, value)?;
    }
    let note = notification()?;
    works("IrqBind", op::IrqBind(SERIAL_IRQ, note.slot(), FLAG))?;
    // Eight bits; what is sent comes back; an interrupt for each byte that does; the line driver on.
    for (register, value) in [(LINE, 3), (MODEM, 0x18), (INTERRUPTS, 1)] {
        port_write(SERIAL, register, value)?;
    }
    for byte in [0x41, 0x00, 0xff] {
        port_write(SERIAL, DATA, byte)?;
        let flags = works("waiting for the byte", ipc::wait(note.slot(), clock::after(clock::SECOND)))?;
        equal("the flags", flags, FLAG)?;
        equal("a byte has come", port_read(SERIAL, LINE_STATUS)? & 1, 1)?;
        equal("the byte", port_read(SERIAL, DATA)?, byte)?;
        works("IrqAck", op::IrqAck(SERIAL_IRQ))?;
    }
    port_write(SERIAL, INTERRUPTS, 0)?;
    works("IrqUnbind", op::IrqUnbind(SERIAL_IRQ)).map(|_| ())
}

pub fn binding_an_interrupt_twice_is_refused(_: &Lab) -> Outcome {
    let edu = Edu::first()?;
    let other = notification()?;
    for note in [other.slot(), edu.note.slot()] {
        refused("binding again", op::IrqBind(EDU_IRQ, note, 1), Error::AlreadyBound)?;
    }
    let same = works("a copy of the capability", copy(EDU_IRQ, Rights::READ | Rights::MANAGE))?;
    refused("binding by a copy", op::IrqBind(same.slot(), other.slot(), 1), Error::AlreadyBound)?;
    edu.write(RAISE, 1)?;
    edu.interrupted()?;
    edu.acknowledge(1)?;
    works("IrqUnbind", op::IrqUnbind(EDU_IRQ))?;
    works("binding to another", op::IrqBind(same.slot(), other.slot(), 2))?;
    edu.write(RAISE, 1)?;
    let flags = works("its interrupt", ipc::wait(other.slot(), clock::after(clock::SECOND)))?;
    equal("the flags", flags, 2)?;
    edu.silent()
}

pub fn an_interrupt_without_a_binding_cannot_be_acknowledged(_: &Lab) -> Outcome {
    for (irq, region) in [(EDU_IRQ, EDU), (TWIN_IRQ, TWIN)] {
        refused("IrqAck", op::IrqAck(irq), Error::NotBound)?;
        refused("IrqUnbind", op::IrqUnbind(irq), Error::NotBound)?;
        drop(Edu::open(region, irq)?);
        refused("IrqAck after IrqUnbind", op::IrqAck(irq), Error::NotBound)?;
    }
    refused("IrqAck of a serial port", op::IrqAck(SERIAL_IRQ), Error::NotBound)
}

pub fn a_driver_that_dies_leaves_its_device_silent(lab: &Lab) -> Outcome {
    let twin = Edu::twin()?;
    let child = lab.child()?;
    child.exits(Act::Drive, &[DRIVE_AND_DIE], &[EDU, EDU_IRQ], 4)?;
    // Its Notification is gone with it, its device still raises the line: the twin does not notice.
    for bits in 1..4 {
        twin.write(RAISE, bits)?;
        twin.interrupted()?;
        twin.acknowledge(bits)?;
    }
    pause(5 * MILLISECOND);
    twin.silent()?;
    // The next driver hears at once what the last one left.
    let edu = Edu::first()?;
    edu.interrupted()?;
    equal("what the dead driver raised", edu.read(RAISED)?, 1)?;
    edu.acknowledge(1)
}

pub fn absent_and_kept_devices_are_not_granted(_: &Lab) -> Outcome {
    for slot in [NOTHING, SCREEN] {
        refused("a device that was left out", op::CapStatus(slot), Error::NoCapability)?;
    }
    let screen = record(0, 0x1234, 0x1111)?.windows[0];
    holds("the framebuffer's window is kept", screen.kind == 1 && screen.refusal != 0 && screen.minted == 0)
}

fn takes(window: &WindowRecord, kind: u64, start: u64, end: u64) -> bool {
    window.kind == kind && window.base < end && start < window.base.saturating_add(window.length)
}

pub fn what_the_platform_keeps_is_never_handed_out(_: &Lab) -> Outcome {
    let records = works("SystemDevice", system::devices(SYSTEM))?;
    let free: Vec<WindowRecord> =
        records.iter().flat_map(|d| d.windows).filter(|w| w.kind != 0 && w.refusal == 0).collect();
    holds("there are windows to be had", free.iter().filter(|w| w.kind == 1).count() >= 2)?;
    let mut memory = alloc::vec![physical(BUNDLE, 0)?];
    for _ in 0..4 {
        let region = works("a Region", OwnRegion::new(1 << 20))?;
        memory.extend((0..256).map(|page| physical(region.slot(), page)).collect::<Result<Vec<_>, _>>()?);
    }
    let fixed = [0xfee0_0000, 0xfec0_0000, 0xfed0_0000, 0xfffc_0000, 0xa_0000];
    let config = [(0xb000_0000, 0xc000_0000), (0xe000_0000, 0xf000_0000)];
    for window in &free {
        for address in memory.iter().chain(&fixed) {
            let what = format!("{address:#x} is not in {window:x?}");
            holds(&what, !takes(window, 1, *address & !0xfff, (*address | 0xfff) + 1))?;
        }
        for port in [
            0x20, 0x21, 0x40, 0x43, 0x60, 0x64, 0x70, 0x92, 0xa0, 0xb2, 0xcf8, 0xcf9, 0xcfc, 0x510, 0x514,
            0x604, 0xb004,
        ] {
            holds(&format!("port {port:#x} is not in {window:x?}"), !takes(window, 2, port, port + 1))?;
        }
        for (start, end) in config {
            holds("configuration space is not in it", !takes(window, 1, start, end))?;
        }
    }
    for (at, one) in free.iter().enumerate() {
        let apart = |other: &WindowRecord| {
            !takes(one, other.kind, other.base & !0xfff, (other.base + other.length).next_multiple_of(4096))
        };
        let others = free.iter().skip(at + 1).filter(|w| w.kind == 1);
        holds("no two windows share a page", others.into_iter().all(apart))?;
    }
    Ok(())
}

pub fn reserved_ports_are_out_of_reach_of_every_range(_: &Lab) -> Outcome {
    let ranges = [(PORTS, 0x2f8), (SERIAL, record(0, 0x1b36, 2)?.windows[0].base)];
    for (ports, base) in ranges {
        for port in [0x20u64, 0x40, 0x64, 0x92, 0xcf8, 0xcf9, 0xcfc, 0x604] {
            // As near as the width allows, around the end of the ports, and around the end of the words.
            let offset = port.wrapping_sub(base);
            for offset in [offset, offset & 0xffff, offset & 0xffff | 0x1_0000, offset & 0xffff_ffff, port] {
                for width in [1, 2, 4] {
                    refused("a read", op::PortRead(ports, offset, width), Error::PortOutOfRange)?;
                    refused("a write", op::PortWrite(ports, offset, width, 0), Error::PortOutOfRange)?;
                }
            }
        }
    }
    Ok(())
}
