//! Configuration space that behaves, and some that does not.

use super::*;
use crate::sim_config::{SimConfig, SimFunction};
use proptest::prelude::*;
use std::vec;

const EDU: u32 = 0x00_ff00;

fn at(bus: u8, slot: u8, function: u8) -> Function {
    Function::new(bus, slot, function)
}

fn edu(base: u32) -> SimFunction {
    SimFunction::new(0x1234, 0x11e8, EDU).memory(0, base, 1 << 20).interrupt(11)
}

/// A list of capabilities at these registers.
fn capable(mut f: SimFunction, list: &[(u8, u8)]) -> SimFunction {
    f.words[1] |= HAS_CAPABILITIES;
    f.words[13] = list.first().map_or(0, |(_, at)| u32::from(*at));
    for (i, (id, at)) in list.iter().enumerate() {
        let next = list.get(i + 1).map_or(0, |(_, at)| *at);
        let on = match *id {
            MSI => MSI_ON,
            MSIX => MSIX_ON,
            _ => 0,
        };
        f.words[usize::from(*at) / 4] = u32::from(*id) | u32::from(next) << 8 | on;
        f.writable[usize::from(*at) / 4] = 0xffff_0000;
    }
    f
}

fn scanned(space: &mut SimConfig) -> Vec<Facts> {
    silence(space);
    let mut found = Vec::new();
    assert!(scan(space, &mut found));
    found
}

#[test]
fn after_silence_no_function_masters_the_bus_or_sends_messages() {
    let mut several = edu(0xfe00_0000);
    several.words[3] |= 1 << 23;
    let mut space = SimConfig::with([
        (at(0, 0, 0), several),
        (at(0, 0, 3), capable(edu(0xfe10_0000), &[(1, 0x40), (MSI, 0x50), (MSIX, 0x70), (0x10, 0x90)])),
        (at(0, 31, 0), SimFunction::bridge(1, 0xfd00_0000, 0xfe00_0000)),
        (at(1, 2, 0), edu(0xfd00_0000)),
        (at(200, 5, 0), capable(edu(0xfd80_0000), &[(MSIX, 0xfc)])),
    ]);
    for f in space.functions.values_mut() {
        f.words[12] = 0xfff0_0001;
        f.writable[12] = 0xffff_0001;
    }
    assert_eq!(silence(&mut space), 5);
    for (place, f) in &space.functions {
        assert!(!f.masters(), "{place:?}");
        assert!(f.held(), "{place:?}");
        assert_eq!(f.words[1] & 3, 3, "{place:?} still decodes");
        if f.words[3] >> 16 & 0x7f == 0 {
            assert_eq!(f.words[12] & 1, 0, "{place:?}: the option ROM");
        }
    }
    let words = |place: Function, register: usize| space.functions[&place].words[register / 4];
    assert_eq!(words(at(0, 0, 3), 0x50) & MSI_ON, 0);
    assert_eq!(words(at(0, 0, 3), 0x70) & MSIX_ON, 0);
    assert_eq!(words(at(200, 5, 0), 0xfc) & MSIX_ON, 0);
}

#[test]
fn nothing_that_the_kernel_does_later_switches_bus_mastering_on() {
    let mut space = SimConfig::with([(at(0, 4, 0), edu(0xfe00_0000))]);
    scanned(&mut space);
    let f = at(0, 4, 0);
    // What a driver might get a device to do to itself.
    space.functions.get_mut(&f).unwrap().words[1] |= BUS_MASTER;
    for step in 0..4 {
        match step {
            0 => decode(&mut space, f, Space::Memory),
            1 => decode(&mut space, f, Space::Ports),
            2 => hold_interrupt(&mut space, f, true),
            _ => hold_interrupt(&mut space, f, false),
        }
        assert!(!space.functions[&f].masters(), "step {step}");
        space.functions.get_mut(&f).unwrap().words[1] |= BUS_MASTER;
    }
    let command =
        |(_, register, value): &(Function, u8, u32)| *register == COMMAND && value & BUS_MASTER != 0;
    assert!(!space.writes.iter().any(command));
}

#[test]
fn windows_are_sized_while_nothing_is_decoded_and_stay_as_they_were() {
    let f = SimFunction::new(0x8086, 1, 0x02_0000)
        .memory(0, 0xfe00_0000, 0x2_0000)
        .ports(1, 0xc000, 0x40)
        .wide(2, 0x8_0000_0000, 1 << 33)
        .memory(4, 0, 0x1000)
        .memory(5, 0xfebf_1010, 16);
    let mut space = SimConfig::with([(at(0, 3, 0), f.clone())]);
    let facts = scanned(&mut space)[0];
    let memory = |base, length| Some(Window { space: Space::Memory, base, length });
    assert_eq!(
        facts.windows,
        [
            memory(0xfe00_0000, 0x2_0000),
            Some(Window { space: Space::Ports, base: 0xc000, length: 0x40 }),
            memory(0x8_0000_0000, 1 << 33),
            None,
            memory(0, 0x1000),
            memory(0xfebf_1010, 16),
        ]
    );
    assert_eq!(space.unsafe_sizing, 0);
    assert_eq!(space.functions[&at(0, 3, 0)].words[4..10], f.words[4..10]);
    assert_eq!(space.functions[&at(0, 3, 0)].words[1] & 7, 3, "decoding goes on, mastering does not");
    assert!(facts.quiet && facts.can_disable);
}

#[test]
fn what_does_not_obey_is_told() {
    let mut master = edu(0xfe00_0000);
    master.writable[1] = 0x0403;
    let mut deaf = edu(0xfe20_0000);
    deaf.writable[1] = 0x0404;
    let mut loud = edu(0xfe10_0000);
    loud.writable[1] = 0x0007;
    let mut space = SimConfig::with([(at(0, 1, 0), master), (at(0, 2, 0), loud), (at(0, 3, 0), deaf)]);
    let found = scanned(&mut space);
    assert!(!found[0].quiet && found[0].can_disable);
    assert!(found[1].quiet && !found[1].can_disable);
    let stuck = Window { space: Space::Memory, base: 0xfe20_0000, length: 0 };
    assert_eq!(found[2].windows, [Some(stuck), None, None, None, None, None]);
    assert_eq!(space.unsafe_sizing, 0);
}

#[test]
fn base_address_registers_that_make_no_sense_have_no_length() {
    let nonsense = |space, base| Some(Window { space, base, length: 0 });
    let memory = |base, length| Some(Window { space: Space::Memory, base, length });
    let ports = |base, length| Some(Window { space: Space::Ports, base, length });
    for (word, upper, want) in [
        ((0, 0), None, None),
        // Ports: 16 bits decoded or 32; a hole in the mask.
        ((0xc001, 0xffff_ffc1), None, ports(0xc000, 64)),
        ((0xc001, 0x0000_ffc1), None, ports(0xc000, 64)),
        ((0x1_c001, 0xffff_ffc1), None, ports(0x1_c000, 64)),
        ((0xc001, 0xffff_0fc1), None, nonsense(Space::Ports, 0xc000)),
        ((0xc001, 0x0000_0001), None, nonsense(Space::Ports, 0xc000)),
        ((0xc001, 0xffff_ffff), None, ports(0xc000, 4)),
        // Memory of 32 bits.
        ((0xfe00_0008, 0xfff0_0008), None, memory(0xfe00_0000, 1 << 20)),
        ((0xfe00_0000, 0xff0f_0000), None, nonsense(Space::Memory, 0xfe00_0000)),
        ((0, 8), None, nonsense(Space::Memory, 0)),
        ((0, 0x8000_0000), None, memory(0, 1 << 31)),
        ((6, 0xffff_fff6), None, nonsense(Space::Memory, 0)),
        // Memory of 64 bits: in two registers, cut off at the last one, with a hole, of no size.
        ((4, 0xfff0_0004), Some(Some((1, u32::MAX))), memory(1 << 32, 1 << 20)),
        ((4, 4), Some(Some((2, 0xffff_fffe))), memory(2 << 32, 2 << 32)),
        ((4, 0xfff0_0004), Some(None), nonsense(Space::Memory, 0)),
        ((4, 0xfff0_0004), Some(Some((1, 0xffff_0fff))), nonsense(Space::Memory, 0)),
        ((4, 4), Some(Some((0, 0))), nonsense(Space::Memory, 0)),
    ] {
        assert_eq!(window(word, upper), want, "{word:x?} {upper:x?}");
    }
}

#[test]
fn bridges_pass_on_what_their_registers_say() {
    let mut bridge = SimFunction::bridge(3, 0xfd00_0000, 0xfe20_0000);
    bridge.words[7] = 0x2010;
    bridge.words[9] = 0x0011_0001;
    bridge.words[10] = 8;
    bridge.words[11] = 9;
    let mut space = SimConfig::with([(at(0, 7, 0), bridge)]);
    let facts = scanned(&mut space)[0];
    let read = facts.bridge.unwrap();
    assert_eq!(read.secondary, 3);
    assert_eq!(read.memory, (0xfd00_0000, 0xfe20_0000));
    assert_eq!(read.prefetch, (8 << 32, (9 << 32) + 0x20_0000));
    assert_eq!(read.ports, (0x1000, 0x3000));
}

#[test]
fn a_bridge_that_is_closed_passes_nothing() {
    let mut bridge = SimFunction::bridge(3, 0xfd00_0000, 0xfe20_0000);
    (bridge.words[7], bridge.words[8], bridge.words[9]) = (0x00f0, 0x0000_fff0, 0x0000_fff0);
    let mut space = SimConfig::with([(at(0, 7, 0), bridge)]);
    let read = scanned(&mut space)[0].bridge.unwrap();
    assert_eq!((read.memory, read.prefetch, read.ports), ((0, 0), (0, 0), (0, 0)));
}

#[test]
fn host_bridges_and_odd_headers_are_never_sized() {
    let mut host = SimFunction::new(0x8086, 0x29c0, 0x06_0000).memory(0, 0xe000_0000, 1 << 20);
    host.writable[1] = 0;
    let mut odd = edu(0xfe00_0000);
    odd.words[3] = 0x7f << 16;
    let mut space = SimConfig::with([(at(0, 0, 0), host), (at(0, 1, 0), odd)]);
    let found = scanned(&mut space);
    assert!(found.iter().all(|f| f.windows == [None; WINDOWS]));
    assert!(space.writes.iter().all(|(_, register, _)| !(0x10..0x28).contains(register)));
}

#[test]
fn an_interrupt_counts_only_while_it_is_let() {
    let mut space = SimConfig::with([(at(0, 4, 0), edu(0xfe00_0000))]);
    let f = at(0, 4, 0);
    scanned(&mut space);
    space.functions.get_mut(&f).unwrap().raising = true;
    assert!(!raises(&mut space, f), "it is held since boot");
    hold_interrupt(&mut space, f, false);
    assert!(raises(&mut space, f));
    space.functions.get_mut(&f).unwrap().raising = false;
    assert!(!raises(&mut space, f));
    assert!(!raises(&mut space, at(9, 9, 1)), "nobody is there");
}

#[test]
fn more_functions_than_the_list_holds_are_silenced_and_told() {
    let places = (0..=255).flat_map(|bus| (0..2).map(move |slot| at(bus, slot, 0)));
    let mut space = SimConfig::with(places.map(|place| (place, edu(0xfe00_0000))));
    assert_eq!(silence(&mut space), 512);
    assert!(space.functions.values().all(|f| !f.masters()));
    let mut found = Vec::new();
    assert!(!scan(&mut space, &mut found));
    assert_eq!(found.len(), MAX_FUNCTIONS);
}

/// Configuration space that answers anything, and notices bus mastering being switched on.
struct Hostile {
    seed: u64,
    accesses: u64,
}

impl ConfigSpace for Hostile {
    fn config_read(&mut self, function: Function, register: u8) -> u32 {
        self.accesses += 1;
        let mut x = self.seed ^ u64::from(function.number()) << 8 ^ u64::from(register) ^ self.accesses << 40;
        x ^= x >> 33;
        x = x.wrapping_mul(0xff51_afd7_ed55_8ccd);
        x ^= x >> 29;
        x as u32
    }
    fn config_write(&mut self, _: Function, register: u8, value: u32) {
        self.accesses += 1;
        assert!(register != COMMAND || value & BUS_MASTER == 0);
        assert_eq!(register % 4, 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]
    #[test]
    fn space_that_answers_anything_is_left_after_a_bounded_time(seed: u64) {
        let mut space = Hostile { seed, accesses: 0 };
        silence(&mut space);
        let mut found = vec![];
        scan(&mut space, &mut found);
        prop_assert!(found.len() <= MAX_FUNCTIONS);
        prop_assert!(space.accesses < 2 * 65_536 * 80, "{}", space.accesses);
    }

    #[test]
    fn a_capability_list_that_leads_in_circles_ends(next in proptest::collection::vec(0u8.., 64)) {
        let mut f = edu(0xfe00_0000);
        f.words[1] |= HAS_CAPABILITIES;
        for (i, word) in f.words.iter_mut().enumerate().skip(13) {
            *word = u32::from(next[i]) << 8 | u32::from(next[63 - i]);
        }
        let mut space = SimConfig::with([(at(0, 0, 0), f)]);
        silence(&mut space);
        prop_assert!(!space.functions[&at(0, 0, 0)].masters());
        prop_assert!(space.accesses < 3 * 8192);
    }
}
