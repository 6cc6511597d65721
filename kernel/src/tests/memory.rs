//! Regions, mappings, sealing, quotas.

use super::*;
use crate::kernel::Capacities;

const REGION: u64 = 10;
const MAPPING: u64 = 11;
const AT: u64 = 0x80_0000;

fn region(w: &mut World, a: Actor, pages: u64) {
    w.invoke(a, POOL, Op::RegionCreate, &[pages, REGION]).unwrap();
}

fn map(w: &mut World, a: Actor, at: u64, pages: u64, writable: u64, dst: u64) -> Result<[u64; 6], Error> {
    w.invoke(a, Slot(REGION as u16), Op::RegionMap, &[PROCESS.0 as u64, at, 0, pages, writable, dst])
}

#[test]
fn a_writable_mapping_keeps_a_region_unsealed_and_a_sealed_one_is_never_written() {
    let mut w = World::new();
    let a = w.actor(50);
    region(&mut w, a, 3);
    map(&mut w, a, AT, 3, 1, MAPPING).unwrap();
    let r = Slot(REGION as u16);
    assert_eq!(w.invoke(a, r, Op::RegionSeal, &[]), Err(Error::StillWritable));
    w.invoke(a, Slot(MAPPING as u16), Op::MappingProtect, &[]).unwrap();
    w.invoke(a, r, Op::RegionSeal, &[]).unwrap();
    assert_eq!(map(&mut w, a, AT + 0x10_0000, 1, 1, 12), Err(Error::Sealed));
    map(&mut w, a, AT + 0x10_0000, 1, 0, 12).unwrap();
    let root = w.k.processes.get(a.process).unwrap().roots.unwrap().kernel;
    for at in [AT, AT + 0x10_0000] {
        let entry = crate::paging::entry(&mut w.m, root, at);
        assert_eq!(entry & crate::paging::WRITABLE, 0);
        assert_ne!(entry & crate::paging::NO_EXECUTE, 0);
    }
}

#[test]
fn mapping_checks_rights_ranges_and_overlap_and_changes_nothing_on_failure() {
    let mut w = World::new();
    let a = w.actor(50);
    region(&mut w, a, 2);
    map(&mut w, a, AT, 2, 0, MAPPING).unwrap();
    let before = w.baseline();
    let bad = [
        (AT + 0x1000, 1, 0, Error::AlreadyMapped),
        (AT + 0x10_0000, 3, 0, Error::InvalidArgument),
        (AT + 0x10_0001, 1, 0, Error::BadAddress),
        (0, 1, 0, Error::BadAddress),
        (!0xfff, 2, 0, Error::BadAddress),
        (0xffff_8000_0000_0000, 1, 0, Error::BadAddress),
        (AT + 0x10_0000, 0, 0, Error::BadAddress),
        (AT + 0x10_0000, 1, 2, Error::InvalidArgument),
    ];
    for (at, pages, writable, error) in bad {
        assert_eq!(map(&mut w, a, at, pages, writable, 12), Err(error), "{at:#x} {pages} {writable}");
        assert_eq!(w.baseline(), before);
    }
    w.invoke(a, Slot(REGION as u16), Op::CapCopy, &[13, Rights::READ.bits() as u64]).unwrap();
    let args = [PROCESS.0 as u64, AT + 0x10_0000, 0, 1, 1, 12];
    assert_eq!(w.invoke(a, Slot(13), Op::RegionMap, &args), Err(Error::MissingRight));
}

#[test]
fn unmapping_and_deleting_return_every_frame_and_byte() {
    for pages in [1, 8, 9, 100] {
        let mut w = World::new();
        let a = w.actor(50);
        map_warm(&mut w, a);
        let pool = w.invoke(a, POOL, Op::PoolStatus, &[]).unwrap();
        let free = w.k.frames.free_count();
        region(&mut w, a, pages);
        map(&mut w, a, AT, pages, 1, MAPPING).unwrap();
        w.invoke(a, Slot(REGION as u16), Op::CapDelete, &[]).unwrap();
        w.settle();
        assert!(w.k.frames.free_count() < free, "a mapped Region lives on");
        w.invoke(a, Slot(MAPPING as u16), Op::MappingUnmap, &[]).unwrap();
        w.settle();
        assert_eq!(w.k.frames.free_count(), free);
        assert_eq!(w.invoke(a, POOL, Op::PoolStatus, &[]).unwrap(), pool);
    }
}

/// Makes the page tables around [`AT`] exist, so that they do not count.
fn map_warm(w: &mut World, a: Actor) {
    w.invoke(a, POOL, Op::RegionCreate, &[1, 40]).unwrap();
    w.invoke(a, Slot(40), Op::RegionMap, &[PROCESS.0 as u64, AT + 0x1f_f000, 0, 1, 0, 41]).unwrap();
}

#[test]
fn an_exhausted_pool_refuses_and_stays_as_it_was() {
    let mut w = World::new();
    let a = w.actor(50);
    let before = w.invoke(a, POOL, Op::PoolStatus, &[]).unwrap();
    let all = w.baseline();
    let left = before[0] - before[1];
    assert_eq!(w.invoke(a, POOL, Op::RegionCreate, &[left + 1, REGION]), Err(Error::OutOfFrames));
    assert_eq!(w.invoke(a, POOL, Op::PoolCreate, &[0, 1 << 40, REGION]), Err(Error::OutOfObjectBytes));
    assert_eq!(w.invoke(a, POOL, Op::PoolCreate, &[0, u64::MAX, REGION]), Err(Error::OutOfObjectBytes));
    for pages in [0, 65_537, u64::MAX] {
        assert_eq!(w.invoke(a, POOL, Op::RegionCreate, &[pages, REGION]), Err(Error::InvalidArgument));
    }
    assert_eq!(w.invoke(a, POOL, Op::PoolStatus, &[]).unwrap(), before);
    assert_eq!(w.baseline(), all);
}

#[test]
fn making_a_region_is_preempted_and_goes_on() {
    let mut w = World::new();
    let a = w.actor(50);
    w.m.preempt_after = Some(0);
    let rip = w.k.threads.get(a.thread).unwrap().context.registers.rip;
    let args = |w: &mut World| {
        w.call(a, Tag::new(Call::Invoke, 2, 0, Op::RegionCreate as u32), |r| {
            (r.rdi, r.rsi, r.rdx) = (POOL.0 as u64, 100, REGION);
        })
    };
    args(&mut w);
    let t = w.k.threads.get(a.thread).unwrap();
    assert_eq!(t.context.registers.rip, rip.wrapping_sub(2), "the instruction runs again");
    assert!(t.building.is_some());
    w.m.preempt_after = None;
    assert_eq!(args(&mut w).status(), Ok(()));
    assert_eq!(w.invoke(a, Slot(REGION as u16), Op::RegionStatus, &[]).unwrap()[0], 100);
}

#[test]
fn a_region_half_made_by_a_dying_thread_is_returned() {
    let mut w = World::new();
    let a = w.actor(50);
    let b = w.actor(40);
    let before = w.k.frames.free_count();
    let pool = w.invoke(a, POOL, Op::PoolStatus, &[]).unwrap();
    w.share(a, POOL, b, Slot(5), Rights::CREATE, 0);
    w.m.preempt_after = Some(0);
    w.call(b, Tag::new(Call::Invoke, 2, 0, Op::RegionCreate as u32), |r| {
        (r.rdi, r.rsi, r.rdx) = (5, 100, REGION);
    });
    assert!(w.k.frames.free_count() < before);
    w.m.preempt_after = None;
    w.k.begin_end(&mut w.m, b.process, Exit { cause: 2, ..Exit::default() });
    w.settle();
    assert_eq!(w.invoke(a, POOL, Op::PoolStatus, &[]).unwrap(), pool);
}

/// Changes the leaf of one page.
pub fn tamper(w: &mut World, root: crate::machine::Frame, address: u64, change: impl Fn(u64) -> u64) {
    use crate::machine::Machine;
    let mut table = root;
    for level in [3, 2, 1] {
        let e = w.m.frame(table)[(address >> (12 + 9 * level)) as usize & 511];
        table = crate::machine::Frame::containing(e & 0x000f_ffff_ffff_f000).unwrap();
    }
    let leaf = &mut w.m.frame(table)[(address >> 12) as usize & 511];
    *leaf = change(*leaf);
}

#[test]
fn pools_are_nested_only_so_deep() {
    let mut w = World::sized(2000, Capacities { pools: 32, ..CAPACITIES });
    let a = w.actor(50);
    let nested = crate::kernel::MAX_POOL_DEPTH as u64;
    let mut parent = Slot(19);
    w.give(a, parent, reference(ObjectType::Pool, w.k.root_pool), Rights::CREATE);
    for i in 0..nested {
        let bytes = (nested - i) * (cost::<Pool>() + 16);
        w.invoke(a, parent, Op::PoolCreate, &[0, bytes, 20 + i]).unwrap();
        parent = Slot(20 + i as u16);
    }
    let before = w.k.pools.live();
    assert_eq!(w.invoke(a, parent, Op::PoolCreate, &[0, 0, 50]), Err(Error::PoolTooDeep));
    assert_eq!(w.k.pools.live(), before);
}

#[test]
fn a_region_is_given_to_the_reaper_once() {
    let mut w = World::new();
    let a = w.actor(50);
    let before = w.baseline();
    w.invoke(a, POOL, Op::RegionCreate, &[40, 20]).unwrap();
    let id: RegionId = crate::kernel::id_of(&w.k.find(a.process, Slot(20)).unwrap().cap);
    let at = w.k.find(a.process, Slot(20)).unwrap().id;
    w.k.delete(&mut w.m, at);
    w.k.drop_region(id);
    w.sound();
    w.settle();
    assert_eq!(w.baseline(), before);
}
