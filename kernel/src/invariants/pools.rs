//! Pools: who pays for what, and the hierarchy of quotas.

use sila_abi::ObjectType;

use super::{Broken, Rule, Scratch, demand};
use crate::cache::CachedImage;
use crate::cap::CapTable;
use crate::handover::Handover;
use crate::journal::Journal;
use crate::kernel::Kernel;
use crate::objects::{
    Backing, Endpoint, Job, Mapping, Notification, Pool, PoolId, Process, Region, Thread, cost,
};

/// Books what every object costs, frames of address spaces apart.
pub(super) fn check(k: &Kernel, s: &mut Scratch) -> Result<(), Broken> {
    hierarchy(k, s)?;
    for (_, r) in k.regions.iter() {
        // What only the kernel holds over frames that nobody paid for stands in the root's books.
        match r.pool {
            Some(pool) => s.pay(k, pool, region_frames(r), cost::<Region>())?,
            None => s.pay(k, k.root_pool, 0, cost::<Region>())?,
        }
    }
    k.mappings.iter().try_for_each(|(_, x)| s.pay(k, x.pool, 0, cost::<Mapping>()))?;
    k.endpoints.iter().try_for_each(|(_, x)| s.pay(k, x.pool, 0, cost::<Endpoint>()))?;
    k.notifications.iter().try_for_each(|(_, x)| s.pay(k, x.pool, 0, cost::<Notification>()))?;
    k.jobs.iter().try_for_each(|(_, x)| s.pay(k, x.pool, 0, cost::<Job>()))?;
    k.handovers.iter().try_for_each(|(_, x)| s.pay(k, x.pool, 0, cost::<Handover>()))?;
    k.journals.iter().try_for_each(|(_, x)| s.pay(k, x.pool, 0, cost::<Journal>()))?;
    if let Some(pool) = k.cache.pool {
        k.cached.iter().try_for_each(|_| s.pay(k, pool, 0, cost::<CachedImage>()))?;
    }
    for (id, p) in k.processes.iter() {
        s.pay(k, p.payer, 0, cost::<Process>())?;
        let chunks = u64::from(k.caps.usable(id.index()).count_ones());
        let threads = p.thread_count.into();
        if chunks > 0 || p.thread_count > 0 {
            let bytes = chunks * CapTable::CHUNK_BYTES + cost::<Thread>().saturating_mul(threads);
            s.pay(k, p.pool, 0, bytes)?;
        }
    }
    Ok(())
}

/// Frames of a Region and those that list them: a root and lists of 512 if there are more than eight.
fn region_frames(r: &Region) -> u64 {
    let pages = u64::from(r.pages);
    match r.backing {
        Backing::Inline(_) => pages,
        Backing::Indexed(_) => pages + 1 + pages.div_ceil(512),
        Backing::Contiguous(_) | Backing::Device(_) => 0,
    }
}

fn hierarchy(k: &Kernel, s: &mut Scratch) -> Result<(), Broken> {
    s.pay(k, k.root_pool, 0, cost::<Pool>())?;
    for (id, p) in k.pools.iter() {
        demand(leads_to_root(k, id), Rule::PoolTree, id.index(), 0)?;
        if let Some(parent) = p.parent {
            s.pay(k, parent, p.frames.limit, p.bytes.limit.saturating_add(cost::<Pool>()))?;
        }
        let kept = p.caps > 0 || p.dying || k.processes.iter().any(|(_, x)| x.pool == id);
        demand(kept, Rule::Kept, ObjectType::Pool as u64, id.index().into())?;
    }
    Ok(())
}

fn leads_to_root(k: &Kernel, from: PoolId) -> bool {
    let mut at = from;
    for _ in 0..k.pools.capacity() {
        if at == k.root_pool {
            return true;
        }
        match k.pools.get(at).and_then(|p| p.parent) {
            Some(parent) => at = parent,
            None => return false,
        }
    }
    false
}

/// Compares what Pools say with what was booked.
pub(super) fn settle(k: &Kernel, s: &Scratch) -> Result<(), Broken> {
    for (id, p) in k.pools.iter() {
        let bill = s.pools.get(id.index() as usize).copied().unwrap_or_default();
        demand(p.frames.used == bill.frames, Rule::PoolFrames, id.index(), bill.frames)?;
        demand(p.bytes.used == bill.bytes, Rule::PoolBytes, id.index(), bill.bytes)?;
        demand(p.frames.used <= p.frames.limit, Rule::PoolLimit, id.index(), 0)?;
        demand(p.bytes.used <= p.bytes.limit, Rule::PoolLimit, id.index(), 1)?;
        let spent = p.frames.used == p.frames.limit && p.bytes.used == p.bytes.limit;
        let something = p.frames.used > 0 || p.bytes.used > 0;
        demand(!p.dying || (spent && something), Rule::PoolLimit, id.index(), 2)?;
    }
    let root = k.pools.get(k.root_pool).map(|p| (p.frames.limit, p.bytes.limit)).unwrap_or_default();
    demand(root.0 <= k.frames.total().into(), Rule::PoolReserve, 0u64, root.0)?;
    demand(root.1 <= k.capacities.reserve(), Rule::PoolReserve, 1u64, root.1)
}
