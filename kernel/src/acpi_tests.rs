//! Tables as firmware writes them, and as it should not.

use super::*;
use proptest::prelude::*;
use std::vec;
use std::vec::Vec;

/// Memory from address 0 on, of which the first page holds nothing.
struct Memory(Vec<u8>);

impl PhysicalMemory for Memory {
    fn bytes(&self, address: u64, length: usize) -> Option<&[u8]> {
        let start = usize::try_from(address).ok().filter(|start| *start != 0)?;
        self.0.get(start..start.checked_add(length)?)
    }
}

impl Memory {
    fn new() -> Self {
        Self(vec![0; 0x1000])
    }

    fn put(&mut self, bytes: &[u8]) -> u64 {
        let at = self.0.len();
        self.0.extend_from_slice(bytes);
        at as u64
    }

    /// A table with this signature and body behind its header.
    fn table(&mut self, signature: &[u8; 4], body: &[u8]) -> u64 {
        let mut all = vec![0; 36];
        all[..4].copy_from_slice(signature);
        all[4..8].copy_from_slice(&(36 + body.len() as u32).to_le_bytes());
        all.extend_from_slice(body);
        fix(&mut all);
        self.put(&all)
    }

    fn root(&mut self, tables: &[u64]) -> u64 {
        let body: Vec<u8> = tables.iter().flat_map(|t| t.to_le_bytes()).collect();
        let xsdt = self.table(b"XSDT", &body);
        let mut pointer = vec![0; 36];
        pointer[..8].copy_from_slice(b"RSD PTR ");
        pointer[15] = 2;
        pointer[24..32].copy_from_slice(&xsdt.to_le_bytes());
        self.put(&pointer)
    }
}

fn fix(table: &mut [u8]) {
    table[9] = 0;
    table[9] = table.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte));
}

fn madt() -> Vec<u8> {
    let mut body = vec![0; 8];
    for (id, address, line) in [(0, 0xfec0_0000u32, 0u32), (1, 0xfec1_0000, 24)] {
        body.extend([1, 12, id, 0]);
        body.extend(address.to_le_bytes());
        body.extend(line.to_le_bytes());
    }
    for (source, line, flags) in [(0u8, 2u32, 0u16), (11, 11, 0xd), (9, 20, 0xf), (200, 3, 0)] {
        body.extend([2, 10, 0, source]);
        body.extend(line.to_le_bytes());
        body.extend(flags.to_le_bytes());
    }
    body
}

fn fadt(dsdt: u64, length: usize) -> Vec<u8> {
    let mut all = vec![0u8; 244];
    let mut put = |at: usize, bytes: &[u8]| all[at..at + bytes.len()].copy_from_slice(bytes);
    put(40, &(dsdt as u32).to_le_bytes());
    put(46, &9u16.to_le_bytes());
    put(48, &0xb2u32.to_le_bytes());
    put(52, &[0xf1]);
    for (at, port) in [(56, 0x600u32), (64, 0x604), (76, 0x608), (80, 0x620)] {
        put(at, &port.to_le_bytes());
    }
    put(88, &[4, 2, 0, 4, 16, 0]);
    put(116, &[1, 8, 0, 1]);
    put(120, &0xcf9u64.to_le_bytes());
    put(148, &[0, 32, 0, 3]);
    put(152, &0xfed8_0800u64.to_le_bytes());
    all[36..length].to_vec()
}

fn dsdt(memory: &mut Memory, s5: &[u8]) -> u64 {
    memory.table(b"DSDT", &[&b"\x08_S5_\x12"[..], s5].concat())
}

fn good() -> (Memory, u64) {
    let mut m = Memory::new();
    let dsdt = dsdt(&mut m, &[6, 4, 0x0a, 5, 1, 0, 0]);
    let mut hpet = vec![0; 20];
    hpet[8..16].copy_from_slice(&0xfed0_0000u64.to_le_bytes());
    let mut mcfg = vec![0; 8];
    for (base, segment) in [(0xe000_0000u64, 0u16), (0x10_0000_0000, 1)] {
        mcfg.extend(base.to_le_bytes());
        mcfg.extend(segment.to_le_bytes());
        mcfg.extend([0, 255, 0, 0, 0, 0]);
    }
    let mut dmar = vec![0; 12];
    dmar.extend([0, 0, 16, 0, 0, 0, 0, 0]);
    dmar.extend(0xfed9_0000u64.to_le_bytes());
    let mut ivrs = vec![0; 12];
    ivrs.extend([0x11, 0, 16, 0, 0, 0, 0, 0]);
    ivrs.extend(0xfeb8_0000u64.to_le_bytes());
    let tables = [
        m.table(b"FACP", &fadt(dsdt, 244)),
        m.table(b"APIC", &madt()),
        m.table(b"HPET", &hpet),
        m.table(b"MCFG", &mcfg),
        m.table(b"DMAR", &dmar),
        m.table(b"IVRS", &ivrs),
        m.table(b"SSDT", b"whatever"),
    ];
    let rsdp = m.root(&tables);
    (m, rsdp)
}

#[test]
fn good_tables_are_read() {
    let (memory, rsdp) = good();
    let t = Tables::read(&memory, Some(rsdp));
    assert_eq!(t.ioapics, [(0xfec0_0000, 0), (0xfec1_0000, 24), (0, 0), (0, 0)]);
    assert_eq!(t.isa[0], IsaLine { line: 2, level: false, low: false });
    assert_eq!(t.isa[11], IsaLine { line: 11, level: true, low: false });
    assert_eq!(t.isa[9], IsaLine { line: 20, level: true, low: true });
    assert_eq!(t.isa[4], IsaLine { line: 4, level: false, low: false });
    assert_eq!(
        (t.line_mode(20), t.line_mode(11), t.line_mode(4)),
        ((true, true), (true, false), (false, false))
    );
    assert_eq!((t.line_mode(2), t.line_mode(17)), ((false, false), (true, true)));
    assert_eq!((t.sci, t.pm_timer, t.hpet, t.pm1), (9, 0x608, 0xfed0_0000, [0x604, 0]));
    assert_eq!((t.s5, t.enable, t.far_segments), (Some([5, 1]), (0xb2, 0xf1), 1));
    for range in [
        (0xfec0_0000, 0xfec0_1000),
        (0xfec1_0000, 0xfec1_1000),
        (0xfed0_0000, 0xfed0_1000),
        (0xe000_0000, 0xf000_0000),
        (0x10_0000_0000, 0x10_1000_0000),
        (0xfed9_0000, 0xfed9_1000),
        (0xfeb8_0000, 0xfec0_0000),
        (0xfed8_0000, 0xfed8_2000),
    ] {
        assert!(t.addresses.list().contains(&range), "{range:x?} {:x?}", t.addresses.list());
    }
    for range in
        [(0xb2, 0xb4), (0x600, 0x604), (0x604, 0x608), (0x608, 0x60c), (0x620, 0x630), (0xcf9, 0xcfd)]
    {
        assert!(t.ports.list().contains(&range), "{range:x?} {:x?}", t.ports.list());
    }
    assert!(t.complete());
}

#[test]
fn without_tables_there_are_defaults() {
    let t = Tables::read(&Memory::new(), None);
    assert_eq!(t.ioapics[0], (0xfec0_0000, 0));
    assert_eq!((t.pm_timer, t.hpet, t.s5, t.sci), (0, 0, None, 0));
    assert!((0..16).all(|i| t.isa[i].line == i as u32 && !t.isa[i].level));
    for rsdp in [0, 0x1000, u64::MAX, u64::MAX - 35] {
        assert_eq!(Tables::read(&Memory::new(), Some(rsdp)).isa, t.isa);
    }
}

#[test]
fn an_old_fadt_that_ends_early_still_switches_off() {
    for (length, s5) in [(116, true), (244, true), (94, true), (80, false)] {
        let mut m = Memory::new();
        let dsdt = dsdt(&mut m, &[6, 4, 0x0a, 5, 0x0a, 7, 0]);
        let table = m.table(b"FACP", &fadt(dsdt, length));
        let rsdp = m.root(&[table]);
        let t = Tables::read(&m, Some(rsdp));
        assert_eq!(t.s5, s5.then_some([5, 7]), "{length}");
        assert_eq!(t.pm_timer, 0x608);
    }
}

#[test]
fn a_wrong_checksum_or_length_drops_the_table_alone() {
    let (good, rsdp) = good();
    let at = good.0.windows(4).position(|w| w == b"HPET").unwrap();
    for (offset, value) in [(20, 1), (4, 35), (4, 0), (7, 0xff), (6, 0x20)] {
        let mut memory = Memory(good.0.clone());
        memory.0[at + offset] = value;
        let t = Tables::read(&memory, Some(rsdp));
        assert_eq!((t.hpet, t.pm_timer), (0, 0x608), "{offset}");
    }
}

#[test]
fn an_entry_too_short_to_be_one_ends_its_table() {
    for length in [0, 1] {
        // What follows would be an I/O APIC if the entry were skipped by its length.
        let mut body = vec![0, 0, 0, 0, 0, 0, 0, 0, 9, length];
        body.extend(if length == 1 { &[12u8, 0, 0][..] } else { &[][..] });
        body.extend([0, 0, 0xc1, 0xfe, 0, 0, 0, 0, 1, 12, 0, 0, 0, 0, 0xc2, 0xfe, 0, 0, 0, 0]);
        let mut m = Memory::new();
        let table = m.table(b"APIC", &body);
        let rsdp = m.root(&[table]);
        assert_eq!(Tables::read(&m, Some(rsdp)).ioapics[0], (0xfec0_0000, 0), "{length}");
    }
}

#[test]
fn more_than_the_lists_hold_is_told() {
    let mut body = vec![0; 8];
    for i in 0..60u32 {
        body.extend([1, 12, 0, 0]);
        body.extend((0xfe00_0000 + i * 4096).to_le_bytes());
        body.extend(i.to_le_bytes());
    }
    let mut m = Memory::new();
    let table = m.table(b"APIC", &body);
    let rsdp = m.root(&[table]);
    let t = Tables::read(&m, Some(rsdp));
    assert!(!t.complete());
    assert_eq!(t.addresses.list().len(), MAX_KEPT);
    assert_eq!(t.ioapics.map(|(_, line)| line), [0, 1, 2, 3]);
}

#[test]
fn sleep_types_are_read_in_both_codings_and_nothing_else() {
    for (bytes, want) in [
        (&[6, 4, 0x0a, 5, 0x0a, 6][..], Some([5, 6])),
        (&[6, 2, 0, 1], Some([0, 1])),
        (&[0x46, 0, 2, 1, 0], Some([1, 0])),
        (&[6, 4, 0x0b, 5, 0], None),
        (&[6, 4, 0x0a], None),
        (&[6], None),
        (&[], None),
    ] {
        let mut m = Memory::new();
        let at = dsdt(&mut m, bytes);
        assert_eq!(Table::at(&m, at).and_then(sleep_types), want, "{bytes:?}");
    }
}

proptest! {
    #[test]
    fn tables_with_any_bytes_changed_are_read_to_an_end(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        mend: bool,
    ) {
        let (Memory(mut bytes), rsdp) = good();
        let starts: Vec<usize> = [b"XSDT", b"APIC", b"FACP", b"HPET", b"MCFG", b"DMAR", b"IVRS", b"DSDT"]
            .iter()
            .map(|s| bytes.windows(4).position(|w| w == *s).unwrap())
            .collect();
        let first = starts.iter().min().copied().unwrap();
        for (index, value) in changes {
            let at = first + index.index(bytes.len() - first);
            bytes[at] = value;
        }
        if mend {
            // With sound checksums, so that what is inside is looked at.
            for start in starts {
                let length = u32::from_le_bytes(bytes[start + 4..start + 8].try_into().unwrap()) as usize;
                if let Some(table) = bytes.get_mut(start..start.saturating_add(length)).filter(|t| t.len() >= 36) {
                    fix(table);
                }
            }
        }
        let t = Tables::read(&Memory(bytes), Some(rsdp));
        prop_assert!(t.addresses.list().iter().chain(t.ports.list()).all(|(start, end)| *start != 0 && end > start));
        prop_assert!(t.sci < 16);
    }

    #[test]
    fn memory_of_nothing_but_noise_is_read_to_an_end(bytes in proptest::collection::vec(any::<u8>(), 0x1000..0x2000), at in 0u64..0x2000) {
        let mut bytes = bytes;
        let at = (at as usize).min(bytes.len() - 36);
        bytes[at..at + 8].copy_from_slice(b"RSD PTR ");
        Tables::read(&Memory(bytes), Some(at as u64));
    }
}
