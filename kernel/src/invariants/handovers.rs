//! Handovers and Journals: whom they cover, what they keep, what they hold on to.

use sila_abi::ObjectType;

use super::{Broken, Rule, Scratch, demand, live_process};
use crate::cap::{CHUNK, CSPACE};
use crate::handover::{Handover, HandoverId, State};
use crate::kernel::Kernel;
use crate::objects::{Endpoint, EndpointId, Priced, Process, Quirks, ThreadState};
use crate::queue::Alarm;

/// The CSpace that is nobody's.
pub(super) const NOBODYS: u32 = Process::SLOTS - 1;

pub(super) fn check(k: &Kernel, s: &mut Scratch) -> Result<(), Broken> {
    for (id, h) in k.handovers.iter() {
        let committed = h.state == State::Committed && k.jobs.get(h.job).is_some();
        demand(h.caps > 0 || committed, Rule::Kept, ObjectType::Handover as u64, id.index().into())?;
        services(k, id, h)?;
        deposits(k, id, h)?;
        deadline(k, id, h)?;
    }
    k.endpoints.iter().try_for_each(|(id, e)| gate(k, id, e))?;
    nobodys_chunks(k)?;
    retired(k)?;
    journals(k, s)
}

const fn is_active(state: State) -> bool {
    matches!(state, State::Open | State::Closed | State::Committed)
}

/// The processes that an active Handover names, each as often as it does.
pub(super) fn participants(k: &Kernel) -> impl Iterator<Item = crate::objects::ProcessId> {
    let active = k.handovers.iter().filter(|(_, h)| is_active(h.state));
    active.flat_map(|(_, h)| h.services.iter().flatten()).flat_map(|s| [s.from, s.to])
}

/// The Regions that services have exported.
pub(super) fn exports(k: &Kernel) -> impl Iterator<Item = crate::objects::RegionId> {
    let services = k.handovers.iter().flat_map(|(_, h)| h.services.iter().flatten());
    services.filter_map(|s| s.export.map(|x| x.region))
}

fn services(k: &Kernel, id: HandoverId, h: &Handover) -> Result<(), Broken> {
    let broken =
        |detail: usize| Broken { rule: Rule::Handover, index: id.index().into(), detail: detail as u64 };
    for (i, service) in h.services.iter().enumerate() {
        let Some(s) = service else { continue };
        let both = [s.from, s.to].iter().all(|p| live_process(k, *p).is_some());
        if is_active(h.state) && (!both || s.from == s.to) {
            return Err(broken(i));
        }
        let covers = k.endpoints.get(s.endpoint).is_none_or(|e| e.covered == Some((id, i as u8)));
        if is_active(h.state) && !covers {
            return Err(broken(i));
        }
        let may_be_shut = matches!(h.state, State::Open | State::Closed);
        if (s.shut && !may_be_shut) || (!s.shut && h.state == State::Closed) {
            return Err(broken(i));
        }
    }
    let managers = k.caps.stored_everywhere().filter(|(_, cap)| {
        let own = cap.object.kind == ObjectType::Handover
            && (cap.object.index, cap.object.generation) == (id.index(), id.generation());
        own && cap.rights.usable() && cap.rights.contains(sila_abi::Rights::MANAGE)
    });
    demand(managers.count() == h.managers as usize, Rule::Handover, id.index(), 8)
}

/// What is deposited belongs to a service, and is of a kind that passes on.
fn deposits(k: &Kernel, id: HandoverId, h: &Handover) -> Result<(), Broken> {
    let first = NOBODYS * CSPACE as u32 + (id.index() + 1) * CHUNK as u32;
    for (owner, at) in h.deposits.iter().zip(first..) {
        let Some(cap) = k.caps.stored(at) else { continue };
        let service = h.services.get(usize::from(*owner)).is_some_and(Option::is_some);
        let passes = matches!(
            cap.object.kind,
            ObjectType::Reply | ObjectType::Endpoint | ObjectType::IrqHandler | ObjectType::IoPorts
        );
        demand(service && passes, Rule::Deposit, id.index(), (at - first).into())?;
    }
    Ok(())
}

fn deadline(k: &Kernel, id: HandoverId, h: &Handover) -> Result<(), Broken> {
    let waits = matches!(h.state, State::Open | State::Closed) && h.deadline != u64::MAX;
    let timed = k.timers.heap().iter().any(|(_, alarm)| *alarm == Alarm::Handover(id.index()));
    demand(!timed || waits, Rule::Timers, id.index(), 3)
}

/// An endpoint's gate is shut exactly while its service's is, and then nobody receives.
fn gate(k: &Kernel, id: EndpointId, e: &Endpoint) -> Result<(), Broken> {
    let service = match e.covered {
        None => None,
        Some((handover, i)) => {
            let h = k.handovers.get(handover).filter(|h| is_active(h.state));
            let service = h.and_then(|h| h.services.get(usize::from(i)).copied().flatten());
            demand(service.is_some(), Rule::Gate, id.index(), 0)?;
            service
        }
    };
    let from = service.filter(|s| s.shut).map(|s| s.from);
    demand(e.shut == from && (from.is_none() || e.receiver.is_none()), Rule::Gate, id.index(), 1)?;
    demand(e.made_at <= k.calls, Rule::Gate, id.index(), 2)
}

/// Of the CSpace that is nobody's, each Handover uses the chunk of its own.
fn nobodys_chunks(k: &Kernel) -> Result<(), Broken> {
    let used = k.handovers.iter().fold(0u32, |bits, (id, _)| bits | 2 << id.index());
    let usable = u32::from(k.caps.usable(NOBODYS));
    demand(used == usable, Rule::Chunks, NOBODYS, usable.into())
}

/// Nothing of a process runs that passed its service on, and what is held back is so for that reason.
fn retired(k: &Kernel) -> Result<(), Broken> {
    for (id, t) in k.threads.iter() {
        let retired = live_process(k, t.process).is_some_and(|p| p.retired);
        let held = t.quirks.contains(Quirks::HELD);
        let still = t.state == ThreadState::Inactive;
        demand((!retired || still) && (!held || retired), Rule::Retired, id.index(), held.into())?;
    }
    Ok(())
}

fn journals(k: &Kernel, s: &mut Scratch) -> Result<(), Broken> {
    for (id, j) in k.journals.iter() {
        demand(j.caps > 0, Rule::Kept, ObjectType::Journal as u64, id.index().into())?;
        let Some(r) = k.regions.get(j.region) else { return demand(false, Rule::Journal, id.index(), 0) };
        let own = r.caps == 0 && r.mappings == 0 && r.pins == 1 && r.pool == Some(j.pool);
        demand(own, Rule::Journal, id.index(), 1)?;
        // Records from one end, a word of index for each from the other.
        let fits = j.capacity == u64::from(r.pages) * 512 && j.used.saturating_add(j.records) <= j.capacity;
        demand(fits, Rule::Journal, id.index(), 2)?;
        super::memory::pin(k, s, j.region)?;
    }
    for region in exports(k) {
        super::memory::pin(k, s, region)?;
    }
    Ok(())
}
