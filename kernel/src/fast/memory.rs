//! Small Regions and mappings in tables that exist.

use sila_abi::{ObjectType, Rights};
use sila_crypto::SecureBool;

use super::{allows, place_of};
use crate::cap::{Cap, CapId, Origin};
use crate::frames::Epoch;
use crate::invoke::{MAPPING_RIGHTS, REGION_RIGHTS};
use crate::kernel::{Kernel, id_of, reference};
use crate::machine::{Frame, Machine};
use crate::objects::*;
use crate::paging::{self, Access, UserRange};

/// The most pages of a Region that is made here: those whose frames it lists itself.
const SMALL: usize = 8;

impl Kernel {
    /// Makes a Region of a few zeroed frames, paid from the Pool in slot `at`.
    #[inline(always)]
    pub(super) fn fast_region_create(&mut self, m: &mut impl Machine, me: u32, at: CapId) -> Option<()> {
        let t = self.threads.known(me);
        let (pages, dst) = (t.context.registers.rsi, t.context.registers.rdx);
        let cap = self.caps.peek_typed(at, ObjectType::Pool).filter(|c| allows(c, Rights::CREATE))?;
        let at = place_of(t, dst).filter(|at| dst != 0 && self.caps.is_free(*at))?;
        let pool = id_of(cap);
        let p = self.pools.get_mut(pool).filter(|p| !p.dying)?;
        let suits = pages.wrapping_sub(1) < SMALL as u64 && pages <= self.frames.free_count() as u64;
        let paid = pages <= p.frames.left() && cost::<Region>() <= p.bytes.left();
        if !suits || !paid || !self.regions.has_room() {
            return None;
        }
        // From here on nothing fails.
        p.frames.used = p.frames.used.wrapping_add(pages);
        p.bytes.used = p.bytes.used.wrapping_add(cost::<Region>());
        let mut frames = [Frame(0); SMALL];
        for entry in frames.iter_mut().take(pages as usize) {
            *entry = self.frames.take()?;
            m.zero_frame(*entry);
        }
        let region = Region {
            pool: Some(pool),
            caps: 1,
            backing: Backing::Inline(frames),
            pages: pages as u32,
            filled: pages as u32,
            sealed: SecureBool::DENY,
            dead: false,
            mappings: 0,
            writable: 0,
            pins: 0,
            epoch: Epoch::default(),
        };
        let id = self.regions.insert(region).ok()?;
        let object = reference(ObjectType::Region, id);
        self.caps.put_root(at, Cap { object, rights: REGION_RIGHTS, badge: 0, origin: Origin::NONE });
        Some(())
    }

    /// Maps pages of the small Region in slot `at` where the last table exists and has room.
    #[inline(always)]
    pub(super) fn fast_region_map(&mut self, m: &mut impl Machine, me: u32, at: CapId) -> Option<()> {
        let t = self.threads.known(me);
        let r = &t.context.registers;
        let (offset, writable, dst) = (r.r10, r.r9, r.r12);
        let range = UserRange::new(r.rdx, r.r8).ok().filter(|r| r.pages() <= SMALL as u64)?;
        let cap = self.caps.peek_typed(at, ObjectType::Region).filter(|c| allows(c, Rights::READ))?;
        let process = self.caps.peek_typed(place_of(t, r.rsi)?, ObjectType::Process)?;
        let at = place_of(t, dst).filter(|at| dst != 0 && self.caps.is_free(*at))?;
        if !allows(process, Rights::WRITE) || writable > 1 || (writable == 1 && !allows(cap, Rights::WRITE)) {
            return None;
        }
        let (writable, region, process): (bool, RegionId, ProcessId) =
            (writable == 1, id_of(cap), id_of(process));
        let r = self.regions.get(region)?;
        let Backing::Inline(frames) = r.backing else { return None };
        if (writable && r.sealed != SecureBool::DENY) || offset.checked_add(range.pages())? > r.pages.into() {
            return None;
        }
        let p = self.processes.get(process)?;
        if !matches!(p.state, ProcessState::Created | ProcessState::Running) {
            return None;
        }
        let (pool, root, next) = (p.pool, p.roots?.kernel, p.mappings);
        let table = paging::only_table(m, root, range)?;
        let payer = self.pools.get_mut(pool).filter(|p| !p.dying)?;
        if cost::<Mapping>() > payer.bytes.left() || !self.mappings.has_room() {
            return None;
        }
        let access = if writable { Access::ReadWrite } else { Access::Read };
        let shown = frames.iter().copied().skip(offset as usize);
        if !paging::fill_table(m, table, range, access, shown) {
            return None;
        }
        // From here on nothing fails.
        payer.bytes.used = payer.bytes.used.wrapping_add(cost::<Mapping>());
        let table = Some(table);
        let offset = offset as u16;
        let mapping =
            Mapping { pool, caps: 1, region, process, range, offset, writable, table, prev: None, next };
        let id = self.mappings.insert(mapping).ok()?;
        self.link_mapping(id, process, next, region, writable);
        let object = reference(ObjectType::Mapping, id);
        self.caps.put_root(at, Cap { object, rights: MAPPING_RIGHTS, badge: 0, origin: Origin::NONE });
        Some(())
    }

    /// Takes a mapping of few pages in one table back: nothing is left to flush or to end afterwards.
    #[inline(always)]
    pub(super) fn fast_unmap(&mut self, m: &mut impl Machine, id: MappingId) -> Option<()> {
        let map = self.mappings.get(id)?;
        let (range, writable, prev, next) = (map.range, map.writable, map.prev, map.next);
        let process = self.processes.get_mut(map.process)?;
        let root = process.roots?.kernel;
        let payer = self.pools.get_mut(map.pool).filter(|p| !p.dying)?;
        let region = self.regions.get_mut(map.region).filter(|r| r.caps > 0)?;
        let table = map.table?;
        if range.pages() > SMALL as u64 || !m.flushes_done() {
            return None;
        }
        // From here on nothing fails.
        paging::clear_table(m.frame(table), range);
        for address in range.addresses() {
            m.flush_page(root, address);
        }
        payer.bytes.used = payer.bytes.used.wrapping_sub(cost::<Mapping>());
        region.mappings = region.mappings.wrapping_sub(1);
        region.writable = region.writable.wrapping_sub(writable.into());
        if prev.is_none() {
            process.mappings = next;
        }
        self.join_mappings(prev, next);
        self.mappings.end(id);
        Some(())
    }
}
