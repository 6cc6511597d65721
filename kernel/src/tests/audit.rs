//! The page-table walker: sound tables pass, and each rule is seen broken.

use super::memory::tamper;
use super::*;
use crate::audit::Rule;
use crate::machine::{Machine, PowerOff};
use crate::paging::{NO_EXECUTE, OWNED, PRESENT, USER, WRITABLE};
use std::string::ToString;

const AT: u64 = 0x80_0000;
const REGION: u64 = 10;
const MAPPING: u64 = 11;

/// A process with every kind of page: a read-only one of a sealed Region, one of code, one of its own, a message page,
/// and a writable one of another Region.
fn audited(w: &mut World) -> (Actor, Frame) {
    let a = w.actor(50);
    w.invoke(a, POOL, Op::RegionCreate, &[2, REGION]).unwrap();
    w.invoke(a, Slot(REGION as u16), Op::RegionSeal, &[]).unwrap();
    w.invoke(a, Slot(REGION as u16), Op::RegionMap, &[PROCESS.0.into(), AT, 0, 1, 0, MAPPING]).unwrap();
    w.invoke(a, POOL, Op::RegionCreate, &[3, 12]).unwrap();
    w.invoke(a, Slot(12), Op::RegionMap, &[PROCESS.0.into(), AT + 0x3000, 2, 1, 1, 13]).unwrap();
    let image = crate::kernel::id_of(&w.k.find(a.process, Slot(REGION as u16)).unwrap().cap);
    w.k.pin_region(image, true);
    w.k.processes.get_mut(a.process).unwrap().image = Some(image);
    let range = crate::paging::UserRange::new(AT + 0x1000, 1).unwrap();
    w.k.map_pages(&mut w.m, a.process, range, crate::paging::Access::Execute, |k, m, _| {
        k.region_frame(m, image, 1)
    })
    .unwrap();
    w.k.map_owned(&mut w.m, a.process, crate::paging::UserRange::new(AT + 0x2000, 1).unwrap()).unwrap();
    let root = w.k.processes.get(a.process).unwrap().roots.unwrap().kernel;
    (a, root)
}

fn leaf(w: &mut World, root: Frame, address: u64) -> u64 {
    let found = std::cell::Cell::new(0);
    tamper(w, root, address, |e| {
        found.set(e);
        e
    });
    found.get()
}

fn rule(w: &mut World) -> (Rule, u64) {
    let violation = w.k.audit(&mut w.m).unwrap_err();
    (violation.rule, violation.address)
}

/// Makes a page show a frame that it must not, and says which entry that is and what rule it breaks.
type Framed = fn(&mut World, Actor, Frame) -> (u64, Rule);
/// What is done to the tables, and its name.
type Damage = (&'static str, fn(&mut World));

#[test]
fn sound_tables_pass_with_and_without_a_root_of_ring_3() {
    let mut w = World::new();
    audited(&mut w);
    assert_eq!(w.k.audit(&mut w.m), Ok(5), "code, two mappings, data and message page");
    // Twice: what one walk has marked does not disturb the next.
    assert_eq!(w.k.audit(&mut w.m), Ok(5));
}

#[test]
fn each_rule_of_a_page_is_seen_broken() {
    type Change = fn(u64) -> u64;
    let cases: [(u64, Change, Rule); 6] = [
        (AT + 0x1000, |e| e | WRITABLE, Rule::WriteXorExecute),
        (AT + 0x2000, |e| e & !NO_EXECUTE & !WRITABLE, Rule::VerifiedCode),
        (AT, |e| e | WRITABLE, Rule::NoWritableAlias),
        (AT + 0x2000, |e| e & !OWNED, Rule::NoWritableAlias),
        (AT + 0x2000, |e| e & !OWNED & !WRITABLE, Rule::Explained),
        // Memory of nobody.
        (AT + 0x2000, |e| e & 0xfff | NO_EXECUTE | 5 << 12, Rule::Exclusive),
    ];
    for (address, change, broken) in cases {
        let mut w = World::new();
        let (_, root) = audited(&mut w);
        tamper(&mut w, root, address, change);
        assert_eq!(rule(&mut w), (broken, address));
    }
}

/// Lets the process's own page show the frame of another entry.
fn alias(w: &mut World, root: Frame, frame: u64) {
    tamper(w, root, AT + 0x2000, |e| e & !0x000f_ffff_ffff_f000 | frame);
}

#[test]
fn no_frame_of_something_else_passes_as_a_page_of_the_process_s_own() {
    const FRAME: u64 = 0x000f_ffff_ffff_f000;
    let frames: [Framed; 6] = [
        |w, _, root| (leaf(w, root, AT) & FRAME, Rule::NoWritableAlias),
        |w, _, root| (leaf(w, root, AT + 0x1000) & FRAME, Rule::NoWritableAlias),
        |w, _, root| (leaf(w, root, AT + 0x3000) & FRAME, Rule::Exclusive),
        |_, _, root| (root.address(), Rule::Exclusive),
        |w, _, root| (w.m.frame(root)[0] & FRAME, Rule::Exclusive),
        |w, a, _| (w.k.threads.get(a.thread).unwrap().fpu.address(), Rule::Exclusive),
    ];
    for (at, frame) in frames.into_iter().enumerate() {
        let mut w = World::new();
        let (a, root) = audited(&mut w);
        let (frame, broken) = frame(&mut w, a, root);
        alias(&mut w, root, frame);
        assert_eq!(rule(&mut w), (broken, AT + 0x2000), "case {at}");
    }
    // Another process's own page.
    let mut w = World::new();
    let (_, root) = audited(&mut w);
    let (_, other) = audited(&mut w);
    let frame = leaf(&mut w, other, AT + 0x2000) & FRAME;
    alias(&mut w, root, frame);
    assert_eq!(rule(&mut w).0, Rule::Exclusive);
    // A table, through a writable mapping of a Region.
    let mut w = World::new();
    let (a, root) = audited(&mut w);
    let region = crate::kernel::id_of(&w.k.find(a.process, Slot(12)).unwrap().cap);
    if let Some(Backing::Inline(frames)) = w.k.regions.get_mut(region).map(|r| &mut r.backing) {
        frames[2] = root;
    }
    tamper(&mut w, root, AT + 0x3000, |e| e & !FRAME | root.address());
    assert_eq!(rule(&mut w), (Rule::Exclusive, AT + 0x3000));
}

#[test]
fn a_mapping_must_show_the_pages_that_it_records() {
    let mut w = World::new();
    let (a, _) = audited(&mut w);
    let mapping = crate::kernel::id_of(&w.k.find(a.process, Slot(13)).unwrap().cap);
    w.k.mappings.get_mut(mapping).unwrap().offset = 1;
    assert_eq!(rule(&mut w), (Rule::NoWritableAlias, AT + 0x3000));
}

#[test]
fn the_kernel_half_and_large_pages_are_seen() {
    let changes: [(usize, u64, Rule); 3] = [
        (300, 7, Rule::KernelHalf),
        (511, 0xdead_0003 | USER, Rule::KernelHalf),
        (5, PRESENT | USER | 1 << 7, Rule::SmallPages),
    ];
    for (entry, value, broken) in changes {
        let mut w = World::new();
        let (_, root) = audited(&mut w);
        w.m.frame(root)[entry] = value;
        assert_eq!(rule(&mut w).0, broken);
    }
}

/// A process whose ring 3 has a root of its own.
fn apart() -> (World, Frame) {
    let mut w = World::new();
    let (a, root) = audited(&mut w);
    w.m.kpti = true;
    let pool = w.k.processes.get(a.process).unwrap().pool;
    let user = w.k.take_frame(&mut w.m, pool).unwrap();
    let lower = *w.m.frame(root);
    let entry = *w.m.entry_half().unwrap();
    w.m.frame(user)[..256].copy_from_slice(&lower[..256]);
    w.m.frame(user)[256..].copy_from_slice(&entry);
    w.k.processes.get_mut(a.process).unwrap().roots = Some(Roots { kernel: root, user });
    (w, user)
}

#[test]
fn the_root_of_ring_3_shows_the_process_and_the_entry_area_only() {
    let (mut w, _) = apart();
    assert_eq!(w.k.audit(&mut w.m), Ok(5));
    for (entry, value) in [(511, 0xdead_0003), (3, PRESENT | USER), (256, PRESENT | USER)] {
        let (mut w, user) = apart();
        w.m.frame(user)[entry] = value;
        assert_eq!(rule(&mut w).0, Rule::UserRoot, "{entry}");
    }
    // With the kernel to be hidden, one root for both is none.
    let mut w = World::new();
    audited(&mut w);
    w.m.kpti = true;
    assert_eq!(rule(&mut w).0, Rule::UserRoot);
}

/// As [`apart`], with an entry area of one page, in frame 7, that the kernel shows at the same place.
fn with_entry_area() -> World {
    let (mut w, user) = apart();
    let kernel = w.k.processes.iter().next().unwrap().1.roots.unwrap().kernel;
    for (table, index, entry) in [(4, 511, 5 << 12 | 3), (5, 0, 6 << 12 | 3), (6, 0, 7 << 12 | 1)] {
        w.m.frame(Frame(table))[index] = entry;
    }
    (w.m.upper[255], w.m.entry[255]) = (4 << 12 | 3, 4 << 12 | 3);
    for root in [kernel, user] {
        w.m.frame(root)[511] = 4 << 12 | 3;
    }
    w
}

#[test]
fn the_entry_area_shows_nothing_else_of_the_kernel() {
    let mut w = with_entry_area();
    assert_eq!(w.k.audit(&mut w.m), Ok(5));
    let damages: [Damage; 7] = [
        ("a page of ring 3", |w| w.m.frame(Frame(6))[0] |= USER),
        ("a table of ring 3", |w| w.m.frame(Frame(5))[0] |= USER),
        ("writable and executable", |w| w.m.frame(Frame(6))[0] |= WRITABLE),
        ("a frame of the allocator", |w| w.m.frame(Frame(6))[0] = 20 << 12 | 1),
        ("a large page", |w| w.m.frame(Frame(5))[0] |= 1 << 7),
        ("a page below the entry area", |w| w.m.frame(Frame(4))[510] = 5 << 12 | 3),
        ("too many pages", |w| w.m.frame(Frame(6))[..33].fill(7 << 12 | 1)),
    ];
    for (what, damage) in damages {
        let mut w = with_entry_area();
        damage(&mut w);
        assert_eq!(rule(&mut w).0, Rule::EntryArea, "{what}");
    }
    // What the kernel shows elsewhere, or something else.
    let mut w = with_entry_area();
    w.m.frame(Frame(8))[511] = 5 << 12 | 3;
    w.m.entry[255] = 8 << 12 | 3;
    w.m.frame(Frame(5))[0] = 9 << 12 | 3;
    w.m.frame(Frame(9))[1] = 7 << 12 | 1;
    w.m.frame(Frame(4))[511] = 0;
    let user = w.k.processes.iter().next().unwrap().1.roots.unwrap().user;
    w.m.frame(user)[511] = 8 << 12 | 3;
    assert_eq!(rule(&mut w).0, Rule::EntryArea);
}

#[test]
fn only_systems_that_are_audited_can_be_asked() {
    let mut w = World::new();
    w.k.test_hooks = sila_crypto::SecureBool::DENY;
    let (a, root) = audited(&mut w);
    let object = crate::cap::ObjRef {
        kind: ObjectType::SystemControl,
        index: 0,
        generation: crate::kernel::PERMANENT,
    };
    w.give(a, Slot(40), object, Rights::MANAGE);
    assert_eq!(w.invoke(a, Slot(40), Op::SystemAudit, &[]), Err(Error::InvalidOperation));
    w.k.auditing = true;
    assert_eq!(w.invoke(a, Slot(40), Op::SystemAudit, &[]).unwrap()[..2], [5, 0]);
    w.checks = false;
    tamper(&mut w, root, AT, |e| e | WRITABLE);
    let number = w.k.processes.get(a.process).unwrap().number;
    let found = w.invoke(a, Slot(40), Op::SystemAudit, &[]).unwrap();
    assert_eq!(found[..4], [0, Rule::NoWritableAlias as u64, number, AT]);
}

#[test]
fn an_audited_system_reports_before_it_switches_off() {
    let mut w = World::new();
    w.k.test_hooks = sila_crypto::SecureBool::DENY;
    let (a, root) = audited(&mut w);
    let object = crate::cap::ObjRef {
        kind: ObjectType::SystemControl,
        index: 0,
        generation: crate::kernel::PERMANENT,
    };
    w.give(a, Slot(40), object, Rights::MANAGE);
    let off = |w: &mut World| {
        w.m.log.clear();
        let _ = w.invoke(a, Slot(40), Op::SystemPowerOff, &[0]);
        (w.m.log.clone(), w.m.off.take())
    };
    assert_eq!(off(&mut w), (Vec::new(), Some(PowerOff::Success)));
    w.k.auditing = true;
    let sound = "audit: 5 user pages, every rule holds".to_string();
    assert_eq!(off(&mut w), (std::vec![sound.clone(), sound], Some(PowerOff::Success)));
    w.checks = false;
    tamper(&mut w, root, AT, |e| e | WRITABLE);
    let (log, how) = off(&mut w);
    assert_eq!((log.len(), how), (2, Some(PowerOff::Failure)));
    assert!(log[1].starts_with("audit: NoWritableAlias broken by process"), "{log:?}");
}
