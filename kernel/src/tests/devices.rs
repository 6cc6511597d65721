//! Devices: what boot objects may stand for, device Regions, interrupts.

use super::memory::tamper;
use super::*;
use crate::boot::{BootError, BootInfo};
use crate::device_table::{DeviceTable, IsaLine, Platform, Reserved};
use crate::interrupts::MAX_STRAYS;
use crate::mint::NotMinted;
use crate::pci::{self, Function};
use crate::sim_config::{SimConfig, SimFunction};
use sila_abi::boot::{BootObject, BootObjectKind};
use sila_abi::device::{PciDevice, Refusal};

const EDU: Function = Function::new(0, 16, 0);
const TWIN: Function = Function::new(0, 20, 0);
const UART: Function = Function::new(0, 21, 0);
const LINE: usize = 11;
const REGION: Slot = Slot(10);
const IRQ: Slot = Slot(11);
const TWIN_IRQ: Slot = Slot(12);
const NOTE: Slot = Slot(14);
const TWIN_NOTE: Slot = Slot(15);
const AT: u64 = 0x80_0000;

fn edu(base: u32) -> SimFunction {
    SimFunction::new(0x1234, 0x11e8, 0x00_ff00).memory(0, base, 1 << 20).interrupt(LINE as u8)
}

/// A world with two equal devices that share a line, a serial card, and a graphics card.
pub fn world() -> World {
    let mut w = World::new();
    w.m.config = SimConfig::with([
        (EDU, edu(0xfe00_0000)),
        (TWIN, edu(0xfe10_0000)),
        (UART, SimFunction::new(0x1b36, 2, 0x07_0002).ports(0, 0xc000, 8).interrupt(LINE as u8)),
        (
            Function::new(0, 1, 0),
            SimFunction::new(0x1234, 0x1111, 0x03_0000).memory(0, 0x8000_0000, 16 << 20),
        ),
    ]);
    for f in w.m.config.functions.values_mut() {
        // As a firmware without a driver leaves it.
        f.words[1] &= !3;
    }
    pci::silence(&mut w.m);
    let mut found = Vec::new();
    assert!(pci::scan(&mut w.m, &mut found));
    let screen = Reserved { start: 0x8000_0000, end: 0x8030_0000, why: Refusal::Framebuffer };
    let platform = Platform {
        memory: &[screen],
        ports: &[(0x600, 0x680)],
        isa: core::array::from_fn(|i| IsaLine { line: i as u32, level: i > 8, low: false }),
        sci: 9,
        serial: [true; 4],
        complete: true,
    };
    w.k.devices = DeviceTable::new(&found, &platform);
    w
}

fn named(index: u8) -> PciDevice {
    PciDevice { vendor: 0x1234, device: 0x11e8, index }
}

fn object(w: &mut World, kind: BootObjectKind) -> Result<Option<Cap>, BootError> {
    let info = BootInfo { bundle: &[], bundle_frame: Frame(0), ram_bytes: 0, audit: false };
    w.k.boot_object(&mut w.m, &BootObject { name: Name::new("it").unwrap(), kind }, &info)
}

fn refusal(w: &mut World, kind: BootObjectKind) -> Refusal {
    match object(w, kind) {
        Err(BootError::Device(_, NotMinted::Device(refusal))) => refusal,
        other => panic!("{kind:?}: {:?}", other.map(|cap| cap.is_some())),
    }
}

fn mint(w: &mut World, a: Actor, slot: Slot, kind: BootObjectKind) {
    let cap = object(w, kind).unwrap().unwrap();
    w.give(a, slot, cap.object, Rights::USE);
}

fn region_kind(index: u8) -> BootObjectKind {
    BootObjectKind::DeviceRegion { device: named(index), bar: 0, optional: false }
}

fn irq_kind(index: u8) -> BootObjectKind {
    BootObjectKind::DeviceIrq { device: named(index), optional: false }
}

#[test]
fn a_device_region_is_mapped_uncached_and_never_executable() {
    let mut w = world();
    let a = w.actor(50);
    mint(&mut w, a, REGION, region_kind(0));
    assert_eq!(w.m.config.functions[&EDU].words[1] & 7, 2, "it answers, and masters nothing");
    assert_eq!(w.m.config.functions[&TWIN].words[1] & 7, 0, "its twin was not handed out");
    assert_eq!(w.invoke(a, REGION, Op::RegionStatus, &[]).unwrap()[..5], [256, 0, 0, 0, 1]);
    let root = w.k.processes.get(a.process).unwrap().roots.unwrap().kernel;
    for (writable, at) in [(0, AT), (1, AT + 0x10_0000)] {
        let args = [PROCESS.0 as u64, at, 255, 1, writable, 20 + writable];
        w.invoke(a, REGION, Op::RegionMap, &args).unwrap();
        let entry = crate::paging::entry(&mut w.m, root, at);
        assert_eq!(entry & 0x000f_ffff_ffff_f000, 0xfe0f_f000);
        assert_eq!(entry & crate::paging::UNCACHED, crate::paging::UNCACHED);
        assert_ne!(entry & crate::paging::NO_EXECUTE, 0);
        assert_eq!(entry & crate::paging::WRITABLE != 0, writable == 1);
        assert_eq!(entry & crate::paging::OWNED, 0);
    }
    for (offset, pages) in [(256, 1), (255, 2), (u64::MAX, 1)] {
        let args = [PROCESS.0 as u64, AT + 0x20_0000, offset, pages, 0, 22];
        assert_eq!(w.invoke(a, REGION, Op::RegionMap, &args), Err(Error::InvalidArgument));
    }
    assert!(w.k.audit(&mut w.m).is_ok());
    w.invoke(a, Slot(21), Op::MappingProtect, &[]).unwrap();
    assert!(w.k.audit(&mut w.m).is_ok());
}

#[test]
fn the_audit_names_memory_that_is_uncached_and_registers_that_are_not() {
    use crate::audit::Rule;
    let mut w = world();
    let a = w.actor(50);
    mint(&mut w, a, REGION, region_kind(0));
    w.invoke(a, POOL, Op::RegionCreate, &[1, 30]).unwrap();
    for (region, at, dst) in [(REGION, AT, 20), (Slot(30), AT + 0x10_0000, 21)] {
        w.invoke(a, region, Op::RegionMap, &[PROCESS.0 as u64, at, 0, 1, 1, dst]).unwrap();
    }
    assert!(w.k.audit(&mut w.m).is_ok());
    let root = w.k.processes.get(a.process).unwrap().roots.unwrap();
    for at in [AT, AT + 0x10_0000] {
        for bits in [crate::paging::UNCACHED, 1 << 3, 1 << 4] {
            tamper(&mut w, root.kernel, at, |entry| entry ^ bits);
            assert_eq!(w.k.audit(&mut w.m).unwrap_err().rule, Rule::DeviceUncached, "{at:#x} {bits:#x}");
            tamper(&mut w, root.kernel, at, |entry| entry ^ bits);
        }
    }
    // A device Region over memory that the kernel manages.
    let frame = w.k.frames.take().unwrap();
    tamper(&mut w, root.kernel, AT, |entry| entry & 0xfff | 1 << 63 | frame.address());
    assert_eq!(w.k.audit(&mut w.m).unwrap_err().rule, Rule::DeviceUncached);
}

#[test]
fn a_device_region_is_not_memory_to_any_operation() {
    let mut w = world();
    let a = w.actor(50);
    mint(&mut w, a, REGION, region_kind(0));
    w.invoke(a, POOL, Op::RegionCreate, &[1, 20]).unwrap();
    w.invoke(a, Slot(20), Op::RegionSeal, &[]).unwrap();
    for (slot, kind) in [(21, ObjectType::Job), (22, ObjectType::KeyRing), (23, ObjectType::TestControl)] {
        let object = crate::cap::ObjRef { kind, index: 0, generation: 1 };
        let job = w.k.jobs.iter().next().map(|(id, _)| reference(ObjectType::Job, id));
        w.give(a, Slot(slot), job.filter(|_| kind == ObjectType::Job).unwrap_or(object), Rights::USE);
    }
    let region = u64::from(REGION.0);
    let before = w.baseline();
    for (slot, op, args) in [
        (REGION, Op::RegionSeal, &[][..]),
        (Slot(21), Op::ProcessCreate, &[region, 20, 3, 10, 0, 40]),
        (Slot(21), Op::ProcessCreate, &[20, region, 3, 10, 0, 40]),
        (Slot(22), Op::KeyRingInstall, &[region, 100]),
        (Slot(23), Op::TestPhysical, &[region, 0]),
    ] {
        assert_eq!(w.invoke(a, slot, op, args), Err(Error::DeviceRegion), "{op:?}");
    }
    assert_eq!(w.baseline(), before);
    assert!(w.m.work.is_none(), "nothing was to be verified");
    assert_eq!(w.invoke(a, Slot(23), Op::TestPhysical, &[20, 0]).unwrap()[0] & 4095, 0);
    assert_eq!(w.invoke(a, Slot(23), Op::TestPhysical, &[20, 1]), Err(Error::InvalidArgument));
    assert_eq!(w.invoke(a, Slot(23), Op::TestPhysical, &[20, u64::MAX]), Err(Error::InvalidArgument));
}

#[test]
fn every_operation_on_or_with_a_region_but_mapping_and_status_refuses_a_device() {
    use sila_abi::ops::{Arg, TABLE};
    let mut w = world();
    let a = w.actor_with(50, (200, 80_000));
    mint(&mut w, a, REGION, region_kind(0));
    let job = w.k.jobs.iter().next().map(|(id, _)| id).unwrap();
    w.give(a, Slot(41), reference(ObjectType::Job, job), Rights::USE);
    w.invoke(a, POOL, Op::HandoverCreate, &[41, u64::MAX, 42]).unwrap();
    let region = u64::from(REGION.0);
    let mut tried = 0;
    for row in TABLE {
        let with = row.args.iter().position(|(_, arg)| matches!(arg, Arg::Cap(ObjectType::Region, _)));
        let on =
            row.object == Some(ObjectType::Region) && !matches!(row.op, Op::RegionMap | Op::RegionStatus);
        if !on && with.is_none() {
            continue;
        }
        let slot = match row.object {
            _ if on => REGION,
            Some(ObjectType::Pool) => POOL,
            Some(ObjectType::Process) => PROCESS,
            Some(ObjectType::Job) => Slot(41),
            Some(ObjectType::Handover) => Slot(42),
            _ => Slot(40),
        };
        if slot == Slot(40) {
            let object = crate::cap::ObjRef { kind: row.object.unwrap(), index: 0, generation: 1 };
            let _ = w.k.find(a.process, slot).map(|f| w.k.delete(&mut w.m, f.id));
            w.give(a, slot, object, Rights::USE);
        }
        let mut args = [region; 6];
        for (word, (_, arg)) in args.iter_mut().zip(row.args) {
            match arg {
                Arg::Cap(ObjectType::Pool, _) => *word = POOL.0.into(),
                Arg::Cap(ObjectType::Process, _) => *word = PROCESS.0.into(),
                Arg::Dst => *word = 50,
                _ => {}
            }
        }
        assert_eq!(w.invoke(a, slot, row.op, &args), Err(Error::DeviceRegion), "{}", row.name);
        tried += 1;
    }
    assert!(tried >= 4, "{tried}");
}

#[test]
fn a_device_region_that_nobody_names_any_more_frees_nothing() {
    let mut w = world();
    let a = w.actor(50);
    mint(&mut w, a, REGION, region_kind(0));
    w.invoke(a, REGION, Op::RegionMap, &[PROCESS.0 as u64, AT, 0, 256, 1, 20]).unwrap();
    let free = w.k.frames.free_count();
    let process = a.process;
    w.k.begin_end(&mut w.m, process, Exit::default());
    w.settle();
    assert!(w.k.frames.free_count() > free, "the process's own frames come back");
    assert_eq!(w.k.frames.state(Frame(0xfe000)), None);
    assert_eq!(w.k.regions.live(), 1, "the kernel keeps the Region");
}

#[test]
fn boot_refuses_what_the_table_refuses_and_leaves_out_what_is_optional() {
    let mut w = world();
    let screen = PciDevice { vendor: 0x1234, device: 0x1111, index: 0 };
    let nobody = PciDevice { vendor: 0x4321, device: 1, index: 0 };
    for (device, bar, want) in [
        (screen, 0, Refusal::Framebuffer),
        (screen, 1, Refusal::NoWindow),
        (nobody, 0, Refusal::Absent),
        (named(2), 0, Refusal::Absent),
    ] {
        let before = w.baseline();
        let kind = |optional| BootObjectKind::DeviceRegion { device, bar, optional };
        assert_eq!(refusal(&mut w, kind(false)), want);
        assert!(object(&mut w, kind(true)).unwrap().is_none());
        assert!(w.m.log.last().unwrap().contains(want.sentence()));
        assert_eq!(w.baseline(), before);
    }
    let ports = |optional| BootObjectKind::DevicePorts { device: named(0), bar: 0, optional };
    assert_eq!(refusal(&mut w, ports(false)), Refusal::WrongSpace);
    let irq = BootObjectKind::DeviceIrq { device: screen, optional: true };
    assert!(object(&mut w, irq).unwrap().is_none());
    object(&mut w, region_kind(0)).unwrap().unwrap();
    assert_eq!(refusal(&mut w, region_kind(0)), Refusal::Taken);
    for line in (0..16).filter(|line| !matches!(line, 3 | 4)) {
        assert_eq!(refusal(&mut w, BootObjectKind::IrqHandler { line }), Refusal::LineKept, "{line}");
    }
    for base in [0x20, 0x40, 0x60, 0x64, 0x70, 0x92, 0xa0, 0xcf8, 0xcf9, 0xcfc, 0x510, 0x604] {
        for len in [1, 2, 4, 8] {
            let kind = BootObjectKind::IoPorts { base, len };
            assert_eq!(refusal(&mut w, kind), Refusal::ReservedPorts, "{base:#x}");
        }
    }
    object(&mut w, BootObjectKind::IoPorts { base: 0x3f8, len: 8 }).unwrap().unwrap();
    assert_eq!(refusal(&mut w, BootObjectKind::IoPorts { base: 0x3fa, len: 1 }), Refusal::Taken);
}

#[test]
fn ports_of_a_device_end_where_it_ends() {
    let mut w = world();
    let a = w.actor(50);
    let device = PciDevice { vendor: 0x1b36, device: 2, index: 0 };
    mint(&mut w, a, IRQ, BootObjectKind::DevicePorts { device, bar: 0, optional: false });
    assert_eq!(w.m.config.functions[&UART].words[1] & 7, 1);
    for (offset, width) in [(0, 1), (0, 4), (7, 1), (6, 2), (4, 4)] {
        w.invoke(a, IRQ, Op::PortRead, &[offset, width]).unwrap();
    }
    for (offset, width) in [(8, 1), (7, 2), (5, 4), (u64::MAX, 1), (u64::MAX - 1, 4), (0x1_0000, 1)] {
        assert_eq!(w.invoke(a, IRQ, Op::PortRead, &[offset, width]), Err(Error::PortOutOfRange));
        assert_eq!(w.invoke(a, IRQ, Op::PortWrite, &[offset, width, 0]), Err(Error::PortOutOfRange));
    }
}

/// A world whose actor drives both twins, bound to a Notification each.
fn driven() -> (World, Actor) {
    let mut w = world();
    let a = w.actor(50);
    mint(&mut w, a, IRQ, irq_kind(0));
    mint(&mut w, a, TWIN_IRQ, irq_kind(1));
    for (irq, note, flag) in [(IRQ, NOTE, 1), (TWIN_IRQ, TWIN_NOTE, 2)] {
        w.invoke(a, POOL, Op::NotificationCreate, &[note.0.into()]).unwrap();
        w.invoke(a, irq, Op::IrqBind, &[note.0.into(), flag]).unwrap();
    }
    (w, a)
}

/// The line arrives, masked, as the edge has it.
fn arrive(w: &mut World, line: usize) {
    w.m.masked[line] = true;
    w.k.enter(&mut w.m, Entry::Interrupt { line: line as u8 });
}

fn raise(w: &mut World, f: Function, raising: bool) {
    w.m.config.functions.get_mut(&f).unwrap().raising = raising;
}

fn held(w: &World, f: Function) -> bool {
    w.m.config.functions[&f].held()
}

/// The flags that are set, taken; 0 for none.
fn flags(w: &mut World, a: Actor, note: Slot) -> u64 {
    let say = Say { deadline: sila_abi::syscall::NO_WAIT, ..Say::default() };
    let outcome = w.message(a, Call::Recv, note, say);
    if outcome.status() == Err(Error::Timeout) { 0 } else { w.words(a)[0] }
}

#[test]
fn an_interrupt_is_signalled_once_and_again_after_its_acknowledgement() {
    let (mut w, a) = driven();
    assert!(!w.m.masked[LINE] && !held(&w, EDU) && !held(&w, TWIN));
    raise(&mut w, EDU, true);
    arrive(&mut w, LINE);
    assert_eq!((flags(&mut w, a, NOTE), flags(&mut w, a, TWIN_NOTE)), (1, 0));
    assert!(held(&w, EDU) && !held(&w, TWIN) && !w.m.masked[LINE], "the line goes on for the others");
    arrive(&mut w, LINE);
    assert_eq!(flags(&mut w, a, NOTE), 0, "what is held is not heard again");
    raise(&mut w, TWIN, true);
    arrive(&mut w, LINE);
    assert_eq!((flags(&mut w, a, NOTE), flags(&mut w, a, TWIN_NOTE)), (0, 2));
    w.invoke(a, IRQ, Op::IrqAck, &[]).unwrap();
    assert!(!held(&w, EDU) && held(&w, TWIN));
    arrive(&mut w, LINE);
    assert_eq!((flags(&mut w, a, NOTE), flags(&mut w, a, TWIN_NOTE)), (1, 0));
    for f in [EDU, TWIN, UART] {
        assert!(!w.m.config.functions[&f].masters());
    }
}

#[test]
fn a_line_that_nobody_explains_is_given_up_until_a_driver_asks() {
    let (mut w, a) = driven();
    for _ in 1..MAX_STRAYS {
        arrive(&mut w, LINE);
        assert!(!w.m.masked[LINE]);
    }
    arrive(&mut w, LINE);
    assert!(w.m.masked[LINE], "given up");
    for _ in 0..300 {
        arrive(&mut w, LINE);
        assert!(w.m.masked[LINE]);
    }
    w.invoke(a, IRQ, Op::IrqAck, &[]).unwrap();
    assert!(!w.m.masked[LINE]);
    arrive(&mut w, LINE);
    assert!(!w.m.masked[LINE], "counted from the start");
    // One that is explained in between, too, whoever acknowledges it.
    for _ in 2..MAX_STRAYS {
        arrive(&mut w, LINE);
    }
    raise(&mut w, TWIN, true);
    arrive(&mut w, LINE);
    arrive(&mut w, LINE);
    assert!(!w.m.masked[LINE]);
    assert_eq!(flags(&mut w, a, TWIN_NOTE), 2);
    for _ in 0..3 * MAX_STRAYS {
        arrive(&mut w, LINE);
        w.invoke(a, IRQ, Op::IrqAck, &[]).unwrap();
        raise(&mut w, EDU, true);
        arrive(&mut w, LINE);
        assert!(!w.m.masked[LINE]);
    }
    assert_eq!(flags(&mut w, a, TWIN_NOTE), 0);
}

#[test]
fn lines_that_nobody_has_stay_masked() {
    let (mut w, a) = driven();
    for line in (0..32).filter(|line| *line != LINE) {
        arrive(&mut w, line);
        assert!(w.m.masked[line]);
    }
    assert_eq!((flags(&mut w, a, NOTE), flags(&mut w, a, TWIN_NOTE)), (0, 0));
}

#[test]
fn binding_twice_is_refused_while_the_first_notification_lives() {
    let (mut w, a) = driven();
    for note in [NOTE, TWIN_NOTE] {
        let again = w.invoke(a, IRQ, Op::IrqBind, &[note.0.into(), 4]);
        assert_eq!(again, Err(Error::AlreadyBound));
    }
    raise(&mut w, EDU, true);
    arrive(&mut w, LINE);
    assert_eq!(flags(&mut w, a, NOTE), 1, "the first binding holds");
    w.invoke(a, NOTE, Op::CapDelete, &[]).unwrap();
    w.invoke(a, IRQ, Op::IrqAck, &[]).unwrap();
    arrive(&mut w, LINE);
    assert!(held(&w, EDU) && !w.m.masked[LINE], "signalled to nobody, and silent");
    w.invoke(a, IRQ, Op::IrqBind, &[TWIN_NOTE.0.into(), 4]).unwrap();
    arrive(&mut w, LINE);
    assert_eq!(flags(&mut w, a, TWIN_NOTE), 4);
}

#[test]
fn without_a_binding_there_is_nothing_to_acknowledge() {
    let mut w = world();
    let a = w.actor(50);
    mint(&mut w, a, IRQ, irq_kind(0));
    assert!(held(&w, EDU));
    for op in [Op::IrqAck, Op::IrqUnbind] {
        assert_eq!(w.invoke(a, IRQ, op, &[]), Err(Error::NotBound));
    }
    assert!(held(&w, EDU) && w.m.masked[LINE]);
    let (mut w, a) = driven();
    w.invoke(a, IRQ, Op::IrqUnbind, &[]).unwrap();
    assert!(held(&w, EDU) && !held(&w, TWIN) && !w.m.masked[LINE]);
    assert_eq!(w.invoke(a, IRQ, Op::IrqAck, &[]), Err(Error::NotBound));
    raise(&mut w, EDU, true);
    arrive(&mut w, LINE);
    assert_eq!(flags(&mut w, a, NOTE), 0);
    w.invoke(a, IRQ, Op::IrqBind, &[NOTE.0.into(), 8]).unwrap();
    arrive(&mut w, LINE);
    assert_eq!(flags(&mut w, a, NOTE), 8);
}

#[test]
fn the_line_of_a_serial_port_stays_masked_until_its_driver_acknowledges() {
    let mut w = world();
    let a = w.actor(50);
    mint(&mut w, a, IRQ, BootObjectKind::IrqHandler { line: 4 });
    w.invoke(a, POOL, Op::NotificationCreate, &[NOTE.0.into()]).unwrap();
    assert_eq!(w.invoke(a, IRQ, Op::IrqAck, &[]), Err(Error::NotBound));
    let status = |w: &mut World| w.invoke(a, IRQ, Op::IrqStatus, &[]).unwrap();
    assert_eq!(status(&mut w)[..3], [0, 1, 0]);
    w.invoke(a, IRQ, Op::IrqBind, &[NOTE.0.into(), 1]).unwrap();
    assert!(!w.m.masked[4]);
    assert_eq!(status(&mut w)[..3], [1, 0, 0]);
    for count in 1..=40 {
        arrive(&mut w, 4);
        assert!(w.m.masked[4]);
        assert_eq!(flags(&mut w, a, NOTE), 1);
        assert_eq!(status(&mut w)[..3], [1, 1, count]);
    }
    w.invoke(a, IRQ, Op::IrqAck, &[]).unwrap();
    assert!(!w.m.masked[4]);
    assert_eq!(status(&mut w)[1], 0);
    w.invoke(a, IRQ, Op::IrqUnbind, &[]).unwrap();
    assert!(w.m.masked[4]);
    assert_eq!(status(&mut w)[..2], [0, 1]);
    arrive(&mut w, 4);
    assert_eq!(flags(&mut w, a, NOTE), 0);
}

#[test]
fn the_list_of_devices_is_walked_to_its_end() {
    let mut w = world();
    let a = w.actor(50);
    mint(&mut w, a, REGION, region_kind(0));
    let object = crate::cap::ObjRef { kind: ObjectType::SystemControl, index: 0, generation: 1 };
    w.give(a, Slot(40), object, Rights::USE);
    let mut cursor = 0;
    let mut seen = 0;
    while let Ok(words) = w.invoke(a, Slot(40), Op::SystemDevice, &[cursor]) {
        assert_eq!(words[0], cursor + 1);
        cursor = words[0];
        seen += 1;
    }
    assert_eq!(seen, 4 + 4);
    for cursor in [8, u64::MAX] {
        assert_eq!(w.invoke(a, Slot(40), Op::SystemDevice, &[cursor]), Err(Error::NoMoreEntries));
    }
}
