//! Regions and mappings: counts, states, the reaper's list, the pages of each mapping.

use sila_abi::ObjectType;
use sila_crypto::SecureBool;

use super::{Broken, Rule, Scratch, demand, live_process};
use crate::cache::InsertRequest;
use crate::create::{Basis, LoadRequest};
use crate::kernel::Kernel;
use crate::machine::{Frame, Machine};
use crate::objects::{Mapping, ProcessState, Region, RegionId};
use crate::verify::Wanted;

pub(super) fn check(k: &Kernel, m: &mut impl Machine, s: &mut Scratch) -> Result<(), Broken> {
    mappings(k, m, s)?;
    pins(k, s)?;
    reaped(k, s)?;
    for (_, t) in k.threads.iter() {
        if let Some(region) = t.building {
            let found = regions_use(s, k, region).filter(|found| !found.begun);
            let Some(found) = found else { return demand(false, Rule::RegionState, region.index(), 0) };
            found.begun = true;
        }
    }
    k.regions.iter().try_for_each(|(id, r)| region(s, id, r))
}

fn regions_use<'a>(s: &'a mut Scratch, k: &Kernel, id: RegionId) -> Option<&'a mut super::RegionUse> {
    k.regions.get(id)?;
    s.regions.get_mut(id.index() as usize)
}

fn mappings(k: &Kernel, m: &mut impl Machine, s: &mut Scratch) -> Result<(), Broken> {
    for (id, map) in k.mappings.iter() {
        let live = live_process(k, map.process).is_some_and(|p| p.state != ProcessState::Ended);
        demand(live && s.mappings.is_set(id.index()), Rule::MappingList, id.index(), 2)?;
        let Some(found) = regions_use(s, k, map.region) else {
            return demand(false, Rule::MappingList, id.index(), 3);
        };
        found.mappings += 1;
        found.writable += u32::from(map.writable);
        if let Err(address) = pages(k, m, map) {
            return demand(false, Rule::MappingPages, id.index(), address);
        }
    }
    Ok(())
}

/// Names a page of a mapping that is not as it should be. A dying process has none that anybody reaches.
fn pages(k: &Kernel, m: &mut impl Machine, map: &Mapping) -> Result<(), u64> {
    let Some(p) = live_process(k, map.process).filter(|p| p.state != ProcessState::Dying) else {
        return Ok(());
    };
    let root = p.roots.ok_or(0u64)?.kernel;
    let mut table = None;
    if let Some(only) = map.table
        && (0..map.range.pages())
            .any(|page| leaf_table(m, root, map.range.start() + page * 4096) != Some(only))
    {
        return Err(map.range.start());
    }
    for page in 0..map.range.pages() {
        let address = map.range.start() + page * 4096;
        if page == 0 || address.is_multiple_of(1 << 21) {
            table = leaf_table(m, root, address);
        }
        let entry = table.map_or(0, |t| m.frame(t)[(address >> 12) as usize % 512]);
        // Present and for ring 3, not the process's own, writable as the record says.
        let fine = entry & 0x5 == 0x5 && entry & 0x200 == 0 && (entry & 0x2 != 0) == map.writable;
        if !fine {
            return Err(address);
        }
    }
    Ok(())
}

fn leaf_table(m: &mut impl Machine, root: Frame, address: u64) -> Option<Frame> {
    let mut table = root;
    for shift in [39, 30, 21] {
        let entry = m.frame(table)[(address >> shift) as usize % 512];
        table = Some(entry).filter(|e| e & 1 != 0).and_then(super::frames::frame_in)?;
    }
    Some(table)
}

/// Regions that processes run from, and that verifications read.
fn pins(k: &Kernel, s: &mut Scratch) -> Result<(), Broken> {
    for (id, p) in k.processes.iter() {
        let Some(image) = p.image else { continue };
        demand(
            k.regions.get(image).is_some_and(|r| r.sealed.is_allowed()),
            Rule::ProcessState,
            id.index(),
            5,
        )?;
        pin(k, s, image)?;
    }
    for (_, entry) in k.cached.iter() {
        pin(k, s, entry.image)?;
    }
    for request in k.verifier.requests() {
        match &request.wanted {
            Wanted::Load(LoadRequest { image, basis, .. }) => {
                pin(k, s, *image)?;
                if let Basis::Proof(proof) = basis {
                    pin(k, s, *proof)?;
                }
            }
            Wanted::Insert(InsertRequest { image, proof, .. }) => {
                pin(k, s, *image)?;
                pin(k, s, *proof)?;
            }
            Wanted::Record { region, .. } | Wanted::Case { region, .. } => pin(k, s, *region)?,
        }
    }
    Ok(())
}

pub(super) fn pin(k: &Kernel, s: &mut Scratch, id: RegionId) -> Result<(), Broken> {
    match regions_use(s, k, id) {
        Some(found) => {
            found.pins += 1;
            Ok(())
        }
        None => demand(false, Rule::RegionCounts, id.index(), 2),
    }
}

fn reaped(k: &Kernel, s: &mut Scratch) -> Result<(), Broken> {
    for id in &k.dead_regions {
        let found = regions_use(s, k, *id).filter(|found| !found.dead);
        let Some(found) = found else { return demand(false, Rule::RegionReaped, id.index(), 0) };
        found.dead = true;
    }
    Ok(())
}

fn region(s: &Scratch, id: RegionId, r: &Region) -> Result<(), Broken> {
    let found = s.regions.get(id.index() as usize).copied().unwrap_or_default();
    for (says, is, detail) in
        [(r.mappings, found.mappings, 0), (r.writable, found.writable, 1), (r.pins, found.pins, 2)]
    {
        demand(says == is, Rule::RegionCounts, id.index(), detail)?;
    }
    let unused = r.caps == 0 && r.mappings == 0 && r.pins == 0;
    demand(!found.dead || (unused && r.pool.is_some() && !found.begun), Rule::RegionReaped, id.index(), 1)?;
    demand(found.dead == r.dead, Rule::RegionReaped, id.index(), 2)?;
    let kept = !unused || r.pool.is_none() || found.dead || found.begun;
    demand(kept, Rule::Kept, ObjectType::Region as u64, id.index().into())?;
    let whole = r.filled == r.pages;
    let sealed = r.sealed == SecureBool::DENY || (r.writable == 0 && (whole || found.dead));
    let begun = whole || found.dead || found.begun;
    demand(sealed && begun && r.filled <= r.pages, Rule::RegionState, id.index(), 1)
}
