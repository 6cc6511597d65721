//! Regions and mappings.
//!
//! Invariants: a Region's frames belong to it alone; `writable` counts the mappings through which ring 3
//! may write it; a sealed Region has none and never will; a Region that a process runs from or a
//! verification reads (`pins`) keeps its frames even when no capability names it any more.

use sila_abi::Error;
use sila_crypto::SecureBool;

use crate::frames::Epoch;
use crate::kernel::{Attention, Kernel};
use crate::machine::{FRAME_WORDS, Frame, Machine};
use crate::objects::*;
use crate::paging::{self, Access, UserRange};

/// The largest Region, in frames (256 MiB).
pub const MAX_REGION: u64 = 65_536;
/// The most pages that one RegionMap maps.
pub const MAX_MAP: u64 = 4096;
/// Frames zeroed between two looks at pending interrupts.
const FILL_STEP: u32 = 8;
/// Frames of a dead Region freed in one step.
const REAP_STEP: u32 = 32;
const INLINE: u32 = 8;

/// Frames that a Region of this many pages costs: its own, and those that list them.
pub const fn region_frames(pages: u64) -> u64 {
    if pages <= INLINE as u64 { pages } else { pages + 1 + pages.div_ceil(FRAME_WORDS as u64) }
}

/// What a step of a long operation came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Progress {
    /// Finished.
    Done,
    /// An interrupt waits; call again.
    Preempted,
}

impl Kernel {
    /// Begins a Region: everything is charged, no frame is in it yet.
    pub(crate) fn begin_region(
        &mut self,
        m: &mut impl Machine,
        pool: PoolId,
        pages: u64,
    ) -> Result<RegionId, Error> {
        if pages == 0 || pages > MAX_REGION {
            return Err(Error::InvalidArgument);
        }
        self.room(self.regions.has_room())?;
        let frames = region_frames(pages);
        self.charge(pool, frames, cost::<Region>())?;
        let backing = match self.begin_backing(m, pages) {
            Ok(backing) => backing,
            Err(e) => {
                self.refund(pool, frames, cost::<Region>());
                return Err(e);
            }
        };
        let region = Region {
            pool: Some(pool),
            caps: 0,
            backing,
            pages: pages as u32,
            filled: 0,
            sealed: SecureBool::DENY,
            dead: false,
            mappings: 0,
            writable: 0,
            pins: 0,
            epoch: Epoch::default(),
        };
        self.regions.insert(region).map_err(|_| Error::ArenaFull)
    }

    /// The empty list of frames of a Region, if there are frames for all of it.
    fn begin_backing(&mut self, m: &mut impl Machine, pages: u64) -> Result<Backing, Error> {
        self.frames_free(region_frames(pages))?;
        if pages <= INLINE as u64 {
            return Ok(Backing::Inline([Frame(0); INLINE as usize]));
        }
        let root = self.take_charged_frame()?;
        m.zero_frame(root);
        Ok(Backing::Indexed(root))
    }

    /// Adds zeroed frames until the Region is full or an interrupt waits.
    pub(crate) fn fill_region(&mut self, m: &mut impl Machine, id: RegionId) -> Result<Progress, Error> {
        loop {
            for _ in 0..FILL_STEP {
                let region = self.regions.get(id).ok_or(Error::ObjectGone)?;
                if region.filled == region.pages {
                    return Ok(Progress::Done);
                }
                let at = region.filled;
                let frame = self.take_charged_frame()?;
                m.zero_frame(frame);
                if let Err(e) = self.set_region_frame(m, id, at, frame) {
                    self.frames.put(frame);
                    return Err(e);
                }
            }
            if m.interrupt_pending() {
                return Ok(Progress::Preempted);
            }
        }
    }

    fn set_region_frame(
        &mut self,
        m: &mut impl Machine,
        id: RegionId,
        at: u32,
        frame: Frame,
    ) -> Result<(), Error> {
        let indexed = match self.regions.get(id).map(|r| r.backing) {
            Some(Backing::Indexed(root)) => Some(root),
            _ => None,
        };
        if let Some(root) = indexed {
            let (outer, inner) = (at as usize / FRAME_WORDS, at as usize % FRAME_WORDS);
            let mut list = m.frame(root)[outer & 511];
            if list == 0 {
                let fresh = self.take_charged_frame()?;
                m.zero_frame(fresh);
                list = fresh.0 as u64;
                m.frame(root)[outer & 511] = list;
            }
            m.frame(Frame(list as u32))[inner] = frame.0 as u64;
        }
        if let Some(r) = self.regions.get_mut(id) {
            if let Backing::Inline(frames) = &mut r.backing
                && let Some(f) = frames.get_mut(at as usize)
            {
                *f = frame;
            }
            r.filled = at + 1;
        }
        Ok(())
    }

    /// The frame of a page of a Region.
    pub(crate) fn region_frame(&self, m: &mut impl Machine, id: RegionId, page: u32) -> Option<Frame> {
        let r = self.regions.get(id).filter(|r| page < r.filled)?;
        frame_of(m, r.backing, page)
    }

    /// Freezes a Region for ever.
    pub(crate) fn seal(&mut self, id: RegionId) -> Result<(), Error> {
        let flushed = |k: &Kernel, e| k.frames.is_flushed(e);
        let r = self.regions.get(id).ok_or(Error::ObjectGone)?;
        r.is_sealed()?;
        if r.writable > 0 || !flushed(self, r.epoch) {
            return Err(Error::StillWritable);
        }
        if let Some(r) = self.regions.get_mut(id) {
            r.sealed = SecureBool::ALLOW;
        }
        Ok(())
    }

    /// Maps pages of a Region into a process and makes the record of it, or changes nothing.
    pub(crate) fn map_region(
        &mut self,
        m: &mut impl Machine,
        region: RegionId,
        process: ProcessId,
        range: UserRange,
        offset: u64,
        writable: bool,
    ) -> Result<MappingId, Error> {
        let r = self.regions.get(region).ok_or(Error::ObjectGone)?;
        let end = offset.checked_add(range.pages()).ok_or(Error::InvalidArgument)?;
        if end > r.pages as u64 || range.pages() > MAX_MAP {
            return Err(Error::InvalidArgument);
        }
        // Only the boot bundle could be longer than a Region may be.
        let first = u16::try_from(offset).map_err(|_| Error::InvalidArgument)?;
        if writable {
            r.demand_unsealed()?;
        }
        let access = Access::to(r.is_device(), writable);
        self.room(self.mappings.has_room())?;
        let pool = self.live_process(process)?.pool;
        self.charge(pool, 0, cost::<Mapping>())?;
        if let Err(e) = self
            .map_pages(m, process, range, access, |k, m, i| k.region_frame(m, region, (offset + i) as u32))
        {
            self.refund(pool, 0, cost::<Mapping>());
            return Err(e);
        }
        let root = self.live_process(process)?.roots.map(|r| r.kernel);
        let table = root.and_then(|root| paging::only_table(m, root, range));
        self.record_mapping(pool, region, process, (range, first), writable, table)
    }

    fn record_mapping(
        &mut self,
        pool: PoolId,
        region: RegionId,
        process: ProcessId,
        (range, offset): (UserRange, u16),
        writable: bool,
        table: Option<Frame>,
    ) -> Result<MappingId, Error> {
        let next = self.processes.get(process).and_then(|p| p.mappings);
        let mapping =
            Mapping { pool, caps: 0, region, process, range, offset, writable, table, prev: None, next };
        let id = self.mappings.insert(mapping).map_err(|_| Error::ArenaFull)?;
        self.link_mapping(id, process, next, region, writable);
        Ok(id)
    }

    /// Makes a new mapping the first of its process's list, before `next`, and books it for its Region.
    #[inline(always)]
    pub(crate) fn link_mapping(
        &mut self,
        id: MappingId,
        process: ProcessId,
        next: Option<MappingId>,
        region: RegionId,
        writable: bool,
    ) {
        if let Some(n) = next.and_then(|n| self.mappings.get_mut(n)) {
            n.prev = Some(id);
        }
        if let Some(p) = self.processes.get_mut(process) {
            p.mappings = Some(id);
        }
        if let Some(r) = self.regions.get_mut(region) {
            r.mappings = r.mappings.wrapping_add(1);
            r.writable = r.writable.wrapping_add(writable.into());
        }
    }

    /// Maps a range whose frames `source` yields; tables are charged beforehand. Whole or not at all.
    pub(crate) fn map_pages<M: Machine>(
        &mut self,
        m: &mut M,
        process: ProcessId,
        range: UserRange,
        access: Access,
        source: impl Fn(&Kernel, &mut M, u64) -> Option<Frame>,
    ) -> Result<(), Error> {
        let p = self.processes.get(process).ok_or(Error::ObjectGone)?;
        let (pool, roots) = (p.pool, p.roots.ok_or(Error::Dying)?);
        let tables = paging::tables_needed(m, roots.kernel, range)?;
        self.charge(pool, tables, 0)?;
        if let Err(e) = self.frames_free(tables) {
            self.refund(pool, tables, 0);
            return Err(e);
        }
        let mut pages = 0..;
        for part in range.parts() {
            let frames = &mut self.frames;
            let Some(table) = paging::make_tables(m, roots, part.start(), &mut || frames.take()) else {
                break;
            };
            for (address, i) in part.addresses().zip(&mut pages) {
                if let Some(frame) = source(self, m, i) {
                    paging::show(m, table, address, frame, access, false);
                }
            }
        }
        Ok(())
    }

    /// Maps fresh zeroed frames that belong to the process alone. Whole or not at all.
    pub(crate) fn map_owned(
        &mut self,
        m: &mut impl Machine,
        process: ProcessId,
        range: UserRange,
    ) -> Result<(), Error> {
        let p = self.processes.get(process).ok_or(Error::ObjectGone)?;
        let (pool, roots) = (p.pool, p.roots.ok_or(Error::Dying)?);
        if range.pages() > self.pools.get(pool).map_or(0, |p| p.frames.left()) {
            return Err(Error::OutOfFrames);
        }
        let frames = paging::tables_needed(m, roots.kernel, range)? + range.pages();
        self.charge(pool, frames, 0)?;
        if let Err(e) = self.frames_free(frames) {
            self.refund(pool, frames, 0);
            return Err(e);
        }
        for part in range.parts() {
            let frames = &mut self.frames;
            let Some(table) = paging::make_tables(m, roots, part.start(), &mut || frames.take()) else {
                break;
            };
            for address in part.addresses() {
                let Some(frame) = self.frames.take() else { continue };
                m.zero_frame(frame);
                paging::show(m, table, address, frame, Access::ReadWrite, true);
            }
        }
        Ok(())
    }

    /// Removes a mapping and its record. Ring 3 can no longer reach the pages when this returns.
    #[inline(always)]
    pub(crate) fn unmap(&mut self, m: &mut impl Machine, id: MappingId) {
        let Some(map) = self.mappings.get(id) else { return };
        let (process, range, region, table) = (map.process, map.range, map.region, map.table);
        if let Some(root) = self.processes.get(process).and_then(|p| p.roots).map(|r| r.kernel) {
            match table {
                Some(table) => paging::clear_table(m.frame(table), range),
                None => paging::unmap(m, root, range),
            }
            let epoch = self.flush(m, root, range);
            self.quarantine_region(region, epoch);
        }
        self.forget_mapping(id);
    }

    /// Makes the changes in a range visible on every CPU; what was quarantined becomes free.
    /// Returns the epoch after which no CPU holds a stale translation.
    #[inline(always)]
    fn flush(&mut self, m: &mut impl Machine, root: Frame, range: UserRange) -> Epoch {
        self.counters.flushes += 1;
        let epoch = self.frames.open_epoch();
        if range.pages() <= 16 {
            for address in range.addresses() {
                m.flush_page(root, address);
            }
        } else {
            m.flush_root(root);
        }
        self.settle_flushes(m);
        epoch
    }

    /// Releases what was quarantined, once every CPU has flushed.
    pub(crate) fn settle_flushes(&mut self, m: &impl Machine) {
        if m.flushes_done() {
            self.frames.flush_complete();
        }
    }

    /// Until this epoch is past, a CPU may still reach the Region's frames through an old translation.
    #[inline(always)]
    fn quarantine_region(&mut self, id: RegionId, epoch: Epoch) {
        if let Some(r) = self.regions.get_mut(id) {
            r.epoch = r.epoch.max(epoch);
        }
    }

    /// Drops the record of a mapping whose pages are unreachable already.
    #[inline(always)]
    pub(crate) fn forget_mapping(&mut self, id: MappingId) {
        let Some(map) = self.mappings.get(id) else { return };
        let (prev, next, process, pool) = (map.prev, map.next, map.process, map.pool);
        let (region, writable) = (map.region, map.writable);
        self.mappings.end(id);
        if prev.is_none()
            && let Some(p) = self.processes.get_mut(process)
        {
            p.mappings = next;
        }
        self.join_mappings(prev, next);
        self.refund(pool, 0, cost::<Mapping>());
        if let Some(r) = self.regions.get_mut(region) {
            r.mappings = r.mappings.saturating_sub(1);
            r.writable = r.writable.saturating_sub(u32::from(writable));
            if r.caps == 0 {
                self.drop_region(region);
            }
        }
    }

    /// Makes neighbours of two mappings of a process, whatever was between them.
    pub(crate) fn join_mappings(&mut self, prev: Option<MappingId>, next: Option<MappingId>) {
        if let Some(p) = prev.and_then(|p| self.mappings.get_mut(p)) {
            p.next = next;
        }
        if let Some(n) = next.and_then(|n| self.mappings.get_mut(n)) {
            n.prev = prev;
        }
    }

    /// Makes a mapping read-only.
    pub(crate) fn protect(&mut self, m: &mut impl Machine, id: MappingId) {
        let Some(map) = self.mappings.get_mut(id).filter(|x| x.writable) else { return };
        map.writable = false;
        let (process, range, region) = (map.process, map.range, map.region);
        if let Some(root) = self.processes.get(process).and_then(|p| p.roots).map(|r| r.kernel) {
            paging::protect(m, root, range);
            let epoch = self.flush(m, root, range);
            self.quarantine_region(region, epoch);
        }
        if let Some(r) = self.regions.get_mut(region) {
            r.writable = r.writable.saturating_sub(1);
        }
    }

    /// Keeps a Region's frames alive, or lets go of them.
    pub(crate) fn pin_region(&mut self, id: RegionId, pin: bool) {
        if let Some(r) = self.regions.get_mut(id) {
            r.pins = if pin { r.pins + 1 } else { r.pins.saturating_sub(1) };
        }
        if !pin {
            self.drop_region(id);
        }
    }

    /// Ends a Region that nothing names, maps or pins. Its frames are freed by the reaper.
    pub(crate) fn drop_region(&mut self, id: RegionId) {
        let unused = |r: &&mut Region| r.caps == 0 && r.mappings == 0 && r.pins == 0 && r.pool.is_some();
        if let Some(r) = self.regions.get_mut(id).filter(|r| unused(r) && !r.dead) {
            r.dead = true;
            self.dead_regions.push(id);
            self.attention |= Attention::REAP;
        }
    }

    /// Frees some frames of a dead Region; true when one was finished.
    pub(crate) fn reap_region_step(&mut self, m: &mut impl Machine) -> bool {
        let Some(&id) = self.dead_regions.last() else { return false };
        for _ in 0..REAP_STEP {
            let Some(r) = self.regions.get_mut(id) else {
                self.dead_regions.pop();
                return true;
            };
            if r.filled == 0 {
                self.finish_region(m, id);
                self.dead_regions.pop();
                return true;
            }
            let (page, backing, epoch) = (r.filled - 1, r.backing, r.epoch);
            r.filled = page;
            if let Some(f) = frame_of(m, backing, page) {
                if self.frames.is_flushed(epoch) {
                    self.frames.put(f);
                } else {
                    self.frames.quarantine(f);
                    self.attention |= Attention::QUARANTINE;
                }
            }
        }
        true
    }

    fn finish_region(&mut self, m: &mut impl Machine, id: RegionId) {
        let Some(r) = self.regions.remove(id) else { return };
        if let Backing::Indexed(root) = r.backing {
            for i in 0..(r.pages as usize).div_ceil(FRAME_WORDS) {
                let list = m.frame(root)[i & 511];
                if list != 0 {
                    self.frames.put(Frame(list as u32));
                }
            }
            self.frames.put(root);
        }
        if let Some(pool) = r.pool {
            self.refund(pool, region_frames(r.pages as u64), cost::<Region>());
        }
    }
}

/// The frame that a backing lists for a page.
pub(crate) fn frame_of(m: &mut impl Machine, backing: Backing, page: u32) -> Option<Frame> {
    match backing {
        Backing::Inline(frames) => frames.get(page as usize).copied(),
        Backing::Contiguous(first) | Backing::Device(first) => first.0.checked_add(page).map(Frame),
        Backing::Indexed(root) => {
            let list = m.frame(root)[(page as usize / FRAME_WORDS) & 511];
            let frame = m.frame(Frame(list as u32))[page as usize % FRAME_WORDS];
            Some(Frame(frame as u32))
        }
    }
}
