//! What may be handed out of devices that are as they should be, and of every kind that is not.

use super::*;
use crate::pci::MAX_FUNCTIONS;
use proptest::prelude::*;
use std::vec;

const MIB: u64 = 1 << 20;
const HERE: Function = Function::new(0, 4, 0);

fn memory(base: u64, length: u64) -> Window {
    Window { space: Space::Memory, base, length }
}

fn ports(base: u64, length: u64) -> Window {
    Window { space: Space::Ports, base, length }
}

/// A function with these windows in its first registers.
fn function(place: Function, windows: &[Window]) -> Facts {
    let mut all = [None; WINDOWS];
    all.iter_mut().zip(windows).for_each(|(to, from)| *to = Some(*from));
    Facts {
        function: place,
        vendor: 0x1234,
        device: 0x11e8,
        class: 0xff_0000,
        revision: 0x10,
        windows: all,
        line: 11,
        pin: 1,
        bridge: None,
        quiet: true,
        can_disable: true,
    }
}

fn bridge(place: Function, secondary: u8, memory: (u64, u64), ports: (u64, u64)) -> Facts {
    let bridge = Bridge { secondary, memory, prefetch: (0, 0), ports };
    Facts { bridge: Some(bridge), class: 0x06_0400, ..function(place, &[]) }
}

fn isa() -> [IsaLine; 16] {
    core::array::from_fn(|i| IsaLine { line: i as u32, level: matches!(i, 5 | 9 | 10 | 11), low: false })
}

const RAM: [Reserved; 4] = [
    Reserved { start: MIB, end: 0x2000_0000, why: Refusal::Memory },
    Reserved { start: 0xe000_0000, end: 0xf000_0000, why: Refusal::Chipset },
    Reserved { start: 0x8000_0000, end: 0x8030_0000, why: Refusal::Framebuffer },
    Reserved { start: 1 << 32, end: 2 << 32, why: Refusal::Memory },
];

fn platform() -> Platform<'static> {
    Platform {
        memory: &RAM,
        ports: &[(0x600, 0x680), (0xb100, 0xb104)],
        isa: isa(),
        sci: 9,
        serial: [true, false, false, false],
        complete: true,
    }
}

const EDU: PciDevice = PciDevice { vendor: 0x1234, device: 0x11e8, index: 0 };

fn verdict(window: Window) -> Result<(), Refusal> {
    let facts = function(HERE, &[window]);
    DeviceTable::new(&[facts], &platform()).take_window(EDU, 0, window.space).map(|_| ())
}

#[test]
fn an_ordinary_device_gives_its_window_and_its_line_once() {
    let facts = function(HERE, &[memory(0xfe00_0000, MIB), ports(0xc000, 8)]);
    let mut table = DeviceTable::new(&[facts], &platform());
    let window = (HERE, memory(0xfe00_0000, MIB));
    assert_eq!(table.take_window(EDU, 0, Space::Memory), Ok(window));
    assert_eq!(table.take_window(EDU, 0, Space::Memory), Err(Refusal::Taken));
    assert_eq!(table.take_window(EDU, 1, Space::Memory), Err(Refusal::WrongSpace));
    assert_eq!(table.take_window(EDU, 1, Space::Ports), Ok((HERE, ports(0xc000, 8))));
    assert_eq!(table.take_line(EDU), Ok((HERE, 11)));
    assert_eq!(table.take_line(EDU), Err(Refusal::Taken));
    for bar in [2, 5, 6, 255] {
        assert_eq!(table.take_window(EDU, bar, Space::Memory), Err(Refusal::NoWindow), "{bar}");
    }
}

#[test]
fn devices_are_named_by_what_they_are_and_counted_by_place() {
    let at = |slot| Function::new(0, slot, 0);
    let all: Vec<_> = [(3, 0x8000_0000u64), (4, 0xfe00_0000), (7, 0xfe10_0000)]
        .map(|(slot, base)| Facts {
            device: if slot == 3 { 1 } else { 0x11e8 },
            ..function(at(slot), &[memory(base, MIB)])
        })
        .to_vec();
    let mut table = DeviceTable::new(&all, &platform());
    let of = |index| PciDevice { index, ..EDU };
    assert_eq!(table.take_window(of(1), 0, Space::Memory).map(|(f, _)| f), Ok(at(7)));
    assert_eq!(table.take_window(of(0), 0, Space::Memory).map(|(f, _)| f), Ok(at(4)));
    assert_eq!(table.take_window(of(2), 0, Space::Memory), Err(Refusal::Absent));
    assert_eq!(table.take_line(PciDevice { vendor: 0x1235, ..EDU }), Err(Refusal::Absent));
    // The serial ports stand in the list under no vendor: nobody names them so.
    assert_eq!(
        table.take_window(PciDevice { vendor: 0, device: 0, index: 0 }, 0, Space::Ports),
        Err(Refusal::Absent)
    );
}

#[test]
fn every_window_that_is_not_harmless_is_refused_for_its_own_reason() {
    use Refusal::*;
    for (window, want) in [
        (memory(0xfe00_0000, MIB), None),
        (memory(0x8_0000_0000, 0x1000_0000), None),
        (memory(0xfe00_0000, 16), None),
        (memory(0xfe00_0000, 0), Some(Malformed)),
        (memory(0, MIB), Some(Unassigned)),
        (memory(0xfe00_0800, 0x800), Some(Unaligned)),
        (memory(0x8_0000_0000, 0x2000_0000), Some(TooLarge)),
        (memory(1 << 44, MIB), Some(OutOfReach)),
        (memory((1 << 44) - MIB, 2 * MIB), Some(OutOfReach)),
        (memory(!0xfff, 0x1000), Some(OutOfReach)),
        (memory(!0xfff, 1 << 63), Some(OutOfReach)),
        // RAM, its first and last page, what reaches into it from both sides, and what lies around it.
        (memory(0x10_0000, 0x1000), Some(Memory)),
        (memory(0x1fff_f000, 0x1000), Some(Memory)),
        (memory(0x2000_0000, 0x1000), None),
        (memory(0xffff_f000, 0x2000), Some(Memory)),
        (memory(0x1_ffff_f000, 0x1000), Some(Memory)),
        (memory(0x2_0000_0000, 0x1000), None),
        // Local APIC, I/O APIC, HPET, message addresses, flash, what lies below 1 MiB.
        (memory(0xfee0_0000, 0x1000), Some(Chipset)),
        (memory(0xfec0_0000, 0x1000), Some(Chipset)),
        (memory(0xfed0_0000, 0x400), Some(Chipset)),
        (memory(0xfeef_f000, 0x1000), Some(Chipset)),
        (memory(0xfff0_0000, 0x1000), Some(Chipset)),
        (memory(0xfebf_f000, 0x2000), Some(Chipset)),
        (memory(0xfebf_f000, 0x1000), None),
        (memory(0x0a_0000, 0x1000), Some(Chipset)),
        (memory(0x1000, 0x1000), Some(Chipset)),
        // Configuration space in memory, and the framebuffer.
        (memory(0xe000_0000, 0x1000), Some(Chipset)),
        (memory(0xefff_f000, 0x1000), Some(Chipset)),
        (memory(0x8000_0000, 16 * MIB), Some(Framebuffer)),
        (memory(0x7fff_0000, 0x10_0000), Some(Framebuffer)),
        (memory(0x802f_f000, 0x1000), Some(Framebuffer)),
        (memory(0x8030_0000, 0x1000), None),
        // Ports.
        (ports(0xc000, 0x100), None),
        (ports(0xfff8, 8), None),
        (ports(0xfff8, 16), Some(OutOfReach)),
        (ports(0x1_c000, 8), Some(OutOfReach)),
        (ports(0xfffc, u64::MAX), Some(OutOfReach)),
        (ports(0xc000, 0), Some(Malformed)),
        (ports(0, 8), Some(Unassigned)),
        (ports(0xb100, 4), Some(ReservedPorts)),
        (ports(0xb0f0, 0x20), Some(ReservedPorts)),
        (ports(0xb004, 2), Some(ReservedPorts)),
        (ports(0xae10, 4), Some(ReservedPorts)),
        (ports(0x1000, 8), None),
        (ports(0xff8, 8), Some(ReservedPorts)),
    ] {
        assert_eq!(verdict(window), want.map_or(Ok(()), Err), "{window:x?}");
    }
}

#[test]
fn a_page_that_the_platform_keeps_a_part_of_is_kept_whole() {
    for (start, end, kept) in [(0x800, 0x900, true), (0xfff, 0x1000, true), (0x1000, 0x1100, false)] {
        let part = Reserved { start: 0xfe00_0000 + start, end: 0xfe00_0000 + end, why: Refusal::Chipset };
        let window = memory(0xfe00_0000, 0x100);
        let platform = Platform { memory: &[part], ..platform() };
        let verdict = judge_window(&window, (0, 0), &[function(HERE, &[window])], &platform);
        assert_eq!(verdict.err(), kept.then_some(Refusal::Chipset), "{start:#x}");
    }
}

#[test]
fn no_port_of_the_platform_can_be_had_in_any_window() {
    for port in
        [0x20, 0x21, 0x40, 0x43, 0x60, 0x64, 0x70, 0x92, 0xa0, 0xb2, 0xcf8, 0xcf9, 0xcfc, 0x510, 0x514, 0x604]
    {
        for length in [1, 2, 4, 8, 16, 256] {
            for base in (port + 1 - length.min(port + 1)..=port).filter(|base| *base > 0) {
                assert_eq!(verdict(ports(base, length)), Err(Refusal::ReservedPorts), "{base:#x} {length}");
            }
        }
        let mut table = DeviceTable::new(&[], &platform());
        for length in [0, 1, 2, 8, 0xffff] {
            assert_eq!(table.take_serial_ports(port as u16, length), Err(Refusal::ReservedPorts));
        }
    }
}

#[test]
fn a_device_that_is_not_to_be_trusted_gives_nothing() {
    let good = function(HERE, &[memory(0xfe00_0000, MIB)]);
    let refused = |facts: Facts, platform: &Platform<'_>| {
        let mut table = DeviceTable::new(&[facts], platform);
        let window = table.take_window(EDU, 0, Space::Memory).map(|_| ());
        assert_eq!(table.take_line(EDU).map(|_| ()), window);
        window.err()
    };
    assert_eq!(refused(good, &platform()), None);
    assert_eq!(refused(Facts { quiet: false, ..good }, &platform()), Some(Refusal::MasterStuck));
    let incomplete = Platform { complete: false, ..platform() };
    assert_eq!(refused(good, &incomplete), Some(Refusal::Incomplete));
    for (class, kept) in [
        (0x05_0000, true),
        (0x05_8000, true),
        (0x06_0100, true),
        (0x06_0400, true),
        (0x08_0020, true),
        (0x08_0600, true),
        (0x0c_0500, true),
        (0x0c_0700, true),
        (0x0c_0330, false),
        (0x03_0000, false),
        (0x01_0601, false),
        (0x02_0000, false),
        (0x00_ff00, false),
    ] {
        let want = kept.then_some(Refusal::Kept);
        assert_eq!(refused(Facts { class, ..good }, &platform()), want, "{class:06x}");
    }
    let behind = bridge(HERE, 1, (0, u64::MAX), (0, 0));
    let lying = Facts { class: 0x02_0000, windows: good.windows, ..behind };
    assert_eq!(refused(lying, &platform()), Some(Refusal::Kept));
}

#[test]
fn a_page_or_port_of_two_windows_is_nobodys() {
    let near = Function::new(0, 5, 0);
    for (mine, other, shared) in [
        (memory(0xfe00_0000, 0x1000), memory(0xfe00_1000, 0x1000), false),
        (memory(0xfe00_0000, 0x1000), memory(0xfe00_0000, 0x1000), true),
        (memory(0xfe00_0000, 0x100), memory(0xfe00_0100, 0x100), true),
        (memory(0xfe00_0000, 0x100), memory(0xfe00_0ff0, 0x10), true),
        (memory(0xfe00_0000, 0x4000), memory(0xfe00_3f00, 0x100), true),
        (memory(0xfe00_2000, 0x1000), memory(0xfe00_0000, 0x4000), true),
        // One that the firmware gave no address decodes nothing; one that makes no sense is somewhere there.
        (memory(0xfe00_0000, 0x1000), memory(0, 0x1000), false),
        (memory(0xfe00_0000, 0x1000), memory(0xfe00_0800, 0), true),
        (memory(0xfe00_0000, 0x1000), memory(u64::MAX - 0xff, 0x1000), false),
        (memory(0xfe00_0000, 0x1000), memory(0xfd00_0000, u64::MAX), true),
        // Ports and memory never meet.
        (memory(0xc000, 0x1000), ports(0xc000, 8), false),
        (ports(0xc000, 8), ports(0xc008, 8), false),
        (ports(0xc000, 8), ports(0xc007, 1), true),
        (ports(0xc000, 16), ports(0xc004, 4), true),
    ] {
        let mut own = function(HERE, &[mine]);
        let apart = [own, Facts { device: 1, ..function(near, &[other]) }];
        let verdict =
            |all: &[Facts]| judge_window(&mine, (0, 0), all, &Platform { memory: &[], ..platform() }).err();
        // Below 1 MiB is the chipset's, which is told first.
        let low = mine.space == Space::Memory && mine.base < MIB;
        let want = if low { Some(Refusal::Chipset) } else { shared.then_some(Refusal::Shared) };
        assert_eq!(verdict(&apart), want, "{mine:x?} {other:x?}");
        own.windows[3] = Some(other);
        assert_eq!(verdict(&[own]), want, "of one function: {mine:x?} {other:x?}");
    }
}

#[test]
fn windows_behind_bridges_must_be_passed_on_by_each() {
    let deep = Function::new(2, 1, 0);
    let outer = |range| bridge(Function::new(0, 1, 0), 1, range, (0xc000, 0xe000));
    let inner = |range| bridge(Function::new(1, 0, 0), 2, range, (0xd000, 0xe000));
    let (wide, narrow) = ((0xfd00_0000, 0xfe80_0000), (0xfe00_0000, 0xfe10_0000));
    let verdict = |window: Window, all: &[Facts]| {
        let facts = function(deep, &[window]);
        let all: Vec<_> = all.iter().copied().chain([facts]).collect();
        judge_window(&window, (all.len() - 1, 0), &all, &platform())
    };
    let fine = memory(0xfe00_0000, 0x1000);
    assert_eq!(verdict(fine, &[outer(wide), inner(narrow)]), Ok(()));
    for all in [
        [outer(wide), inner((0, 0))],
        [outer((0, 0)), inner(narrow)],
        [outer(wide), inner((0xfe00_1000, 0xfe10_0000))],
        [outer((0xfd00_0000, 0xfe00_0800)), inner(wide)],
    ] {
        assert_eq!(verdict(fine, &all), Err(Refusal::OutsideBridge));
    }
    assert_eq!(verdict(ports(0xd000, 8), &[outer(wide), inner(narrow)]), Ok(()));
    assert_eq!(verdict(ports(0xc000, 8), &[outer(wide), inner(narrow)]), Err(Refusal::OutsideBridge));
    let prefetch = |mut facts: Facts| {
        let bridge = facts.bridge.as_mut().unwrap();
        (bridge.memory, bridge.prefetch) = ((0, 0), bridge.memory);
        facts
    };
    assert_eq!(verdict(fine, &[prefetch(outer(wide)), inner(narrow)]), Ok(()));
}

#[test]
fn bridges_in_circles_and_twins_pass_nothing_and_end() {
    let window = memory(0xfe00_0000, 0x1000);
    let all = (0, u64::MAX);
    let verdict = |bus, bridges: &[Facts]| {
        let facts = function(Function::new(bus, 1, 0), &[window]);
        let all: Vec<_> = bridges.iter().copied().chain([facts]).collect();
        judge_window(&window, (bridges.len(), 0), &all, &platform())
    };
    let b = |bus, secondary, range| bridge(Function::new(bus, 0, 0), secondary, range, (0, 0));
    assert_eq!(verdict(2, &[b(2, 2, all)]), Err(Refusal::OutsideBridge));
    assert_eq!(verdict(2, &[b(3, 2, all), b(2, 3, all)]), Err(Refusal::OutsideBridge));
    assert_eq!(verdict(2, &[b(0, 2, all), b(1, 2, (0, 0)), b(0, 1, all)]), Err(Refusal::OutsideBridge));
    assert_eq!(verdict(2, &[b(0, 2, all)]), Ok(()));
    // A bus that no bridge leads to is a root.
    assert_eq!(verdict(64, &[]), Ok(()));
    let chain: Vec<_> = (0..255).map(|bus| b(bus, bus + 1, all)).collect();
    assert_eq!(verdict(255, &chain), Ok(()));
}

#[test]
fn lines_must_be_routed_level_free_and_silenceable() {
    let good = function(HERE, &[]);
    let line = |facts: Facts, platform: &Platform<'_>| DeviceTable::new(&[facts], platform).take_line(EDU);
    assert_eq!(line(good, &platform()), Ok((HERE, 11)));
    for pin in 1..=4 {
        assert_eq!(line(Facts { pin, ..good }, &platform()), Ok((HERE, 11)));
    }
    for (number, want) in (0..=255u8).map(|number| {
        (
            number,
            match number {
                5 | 10 | 11 => None,
                0 | 16..=255 => Some(Refusal::NoLine),
                1..=4 | 8 | 9 => Some(Refusal::LineKept),
                _ => Some(Refusal::NotLevel),
            },
        )
    }) {
        let got = line(Facts { line: number, ..good }, &platform());
        assert_eq!(got.err(), want, "line {number}");
    }
    assert_eq!(line(Facts { pin: 0, ..good }, &platform()), Err(Refusal::NoLine));
    assert_eq!(line(Facts { can_disable: false, ..good }, &platform()), Err(Refusal::NoDisable));
    // Routed elsewhere: to a line without a vector, or to one that wraps to a good number in eight bits.
    for global in [24, 255, 256 + 11, u32::MAX] {
        let mut odd = platform();
        odd.isa[11].line = global;
        assert_eq!(line(good, &odd), Err(Refusal::NoLine), "{global}");
    }
    let mut moved = platform();
    moved.isa[11].line = 20;
    assert_eq!(line(good, &moved), Ok((HERE, 20)));
    // Two ISA interrupts on one line: the kept one decides.
    let mut joined = platform();
    joined.isa[11].line = 4;
    assert_eq!(line(good, &joined), Err(Refusal::LineKept));
}

#[test]
fn serial_ports_give_what_is_theirs_once() {
    let mut table = DeviceTable::new(&[], &platform());
    assert_eq!(table.len(), 4);
    for (base, length) in
        [(0x3f8, 9), (0x3f7, 8), (0x3f0, 16), (0x2f8, 0x108), (0xcf8, 8), (0x3f8, 0), (0xfff8, 8)]
    {
        assert_eq!(table.take_serial_ports(base, length), Err(Refusal::ReservedPorts), "{base:#x} {length}");
    }
    for base in [0x3f8, 0x2f8, 0x3e8, 0x2e8] {
        assert_eq!(table.take_serial_ports(base, 8), Ok(()));
        assert_eq!(table.take_serial_ports(base + 1, 2), Err(Refusal::Taken));
    }
    for isa in (0..=255).filter(|isa| !matches!(isa, 3 | 4)) {
        assert_eq!(table.take_serial_line(isa), Err(Refusal::LineKept), "{isa}");
    }
    assert_eq!(table.take_serial_line(4), Ok(4));
    assert_eq!(table.take_serial_line(4), Err(Refusal::Taken));
    assert_eq!(table.take_serial_line(3), Ok(3));
    let mut moved = Platform { serial: [false; 4], ..platform() };
    moved.isa[4].line = 300;
    assert_eq!(DeviceTable::new(&[], &moved).take_serial_line(4), Err(Refusal::NoLine));
}

#[test]
fn records_tell_what_there_is_and_what_became_of_it() {
    let facts = function(HERE, &[memory(0xfe00_0000, MIB), ports(0xcf8, 4)]);
    let mut table = DeviceTable::new(&[facts], &platform());
    table.take_window(EDU, 0, Space::Memory).unwrap();
    table.take_serial_line(4).unwrap();
    let serial = table.record(0).unwrap();
    assert_eq!((serial.id, serial.place, serial.present), (1, DeviceRecord::LEGACY, 1));
    assert_eq!(
        (serial.windows[0].base, serial.windows[0].length, serial.line, serial.line_minted),
        (0x3f8, 8, 4, 1)
    );
    assert_eq!(table.record(1).unwrap().present, 0);
    let edu = table.record(4).unwrap();
    assert_eq!((edu.vendor, edu.device, edu.class, edu.revision), (0x1234, 0x11e8, 0xff_0000, 0x10));
    assert_eq!((edu.id, edu.place, edu.line, edu.line_minted), (5, 4 << 3, 11, 0));
    let first = WindowRecord { kind: 1, base: 0xfe00_0000, length: MIB, refusal: 0, minted: 1 };
    let refusal = Refusal::ReservedPorts as u64;
    assert_eq!(edu.windows[0], first);
    assert_eq!(edu.windows[1], WindowRecord { kind: 2, base: 0xcf8, length: 4, refusal, minted: 0 });
    assert_eq!(edu.windows[2], WindowRecord::default());
    assert_eq!(table.record(5), None);
    assert_eq!(table.record(usize::MAX), None);
}

/// Every window of one and two pages' worth at every quarter page of a small world, beside every other one: what is
/// handed out never touches a page of another window or of memory. The oracle is a list of pages.
#[test]
fn in_a_small_world_nothing_that_is_handed_out_touches_anything_else() {
    const START: u64 = 0xfd00_0000;
    let reserved = [Reserved { start: START + 0x2000, end: START + 0x3000, why: Refusal::Memory }];
    let platform = Platform { memory: &reserved, ..platform() };
    let lengths = [0x400, 0x800, 0x1000, 0x2000];
    let windows = || (0..20).flat_map(move |at| lengths.map(|length| memory(START + at * 0x400, length)));
    let pages = |w: &Window| (w.base >> 12)..=((w.base + w.length - 1) >> 12);
    let (mut given, mut refused) = (0, 0);
    for mine in windows() {
        for other in windows() {
            let all = [function(HERE, &[mine]), function(Function::new(0, 5, 0), &[other])];
            let alone = pages(&mine).all(|p| !pages(&other).contains(&p) && p != (START + 0x2000) >> 12);
            let want = alone && mine.base.is_multiple_of(0x1000);
            assert_eq!(judge_window(&mine, (0, 0), &all, &platform).is_ok(), want, "{mine:x?} {other:x?}");
            if want { given += 1 } else { refused += 1 }
        }
    }
    assert!(given > 500 && refused > 500, "{given} {refused}");
}

fn any_window() -> impl Strategy<Value = Window> {
    let base = prop_oneof![
        (0u64..24).prop_map(|n| 0xfd00_0000 + n * 0x800),
        (0u64..24).prop_map(|n| 0xfd00_0000 + n * 0x1000),
        (0u64..1 << 20).prop_map(|n| n << 12),
        any::<u64>(),
        0u64..0x1_0000,
    ];
    let length = prop_oneof![(8u32..14).prop_map(|n| 1 << n), (0u32..64).prop_map(|n| 1 << n), any::<u64>()];
    (any::<bool>(), base, length)
        .prop_map(|(m, base, length)| if m { memory(base, length) } else { ports(base, length) })
}

fn any_facts() -> impl Strategy<Value = Facts> {
    let bridge = (0u8..4, any::<u64>(), any::<u64>());
    let places = (0u8..4, 0u8..4, 0u8..3);
    (
        places,
        proptest::collection::vec(any_window(), 0..7),
        proptest::option::weighted(0.2, bridge),
        prop_oneof![Just(11), any::<u8>()],
        (0u8..5, any::<bool>(), any::<bool>(), 0u32..0x10_0000),
    )
        .prop_map(|((bus, slot, f), windows, bridge, line, (pin, quiet, can_disable, class))| Facts {
            bridge: bridge.map(|(secondary, start, end)| Bridge {
                secondary,
                memory: (start.min(end), start.max(end)),
                prefetch: (0, u64::MAX),
                ports: (end, start),
            }),
            line,
            pin,
            quiet,
            can_disable,
            class: class << 4,
            ..function(Function::new(bus, slot, f), &windows)
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn whatever_the_functions_say_what_is_handed_out_is_apart(all in proptest::collection::vec(any_facts(), 0..8)) {
        let platform = platform();
        let mut table = DeviceTable::new(&all, &platform);
        let mut taken: Vec<(Space, u64, u64)> = vec![];
        for index in 0..=255 {
            for bar in 0..WINDOWS as u8 {
                for space in [Space::Memory, Space::Ports] {
                    let Ok((f, w)) = table.take_window(PciDevice { index, ..EDU }, bar, space) else { continue };
                    let facts = all.iter().find(|facts| facts.function == f).unwrap();
                    prop_assert!(all.iter().any(|facts| facts.function == f && facts.quiet && facts.bridge.is_none()));
                    let range = match w.space {
                        Space::Memory => (w.base / PAGE * PAGE, (w.base + w.length).next_multiple_of(PAGE)),
                        Space::Ports => (w.base, w.base + w.length),
                    };
                    prop_assert!(w.length > 0 && range.0 < range.1);
                    if w.space == Space::Memory {
                        let kept = [(0, MIB), (0xfec0_0000, 1 << 32), (1 << 44, u64::MAX)];
                        let reserved = RAM.iter().map(|r| (r.start, r.end)).chain(kept);
                        for (start, end) in reserved {
                            prop_assert!(range.1 <= start || range.0 >= end, "{:x?} {:x?}", w, facts);
                        }
                        prop_assert!(range.1 - range.0 <= MAX_REGION * PAGE);
                    } else {
                        prop_assert!(range.0 >= 0x1000 && range.1 <= 0x1_0000);
                    }
                    prop_assert!(taken.iter().all(|(s, a, b)| *s != w.space || range.1 <= *a || range.0 >= *b));
                    taken.push((w.space, range.0, range.1));
                }
            }
        }
        prop_assert!(all.len() <= MAX_FUNCTIONS);
    }
}
