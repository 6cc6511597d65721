//! Processes and Jobs: states, lists of threads and mappings, the reaper's list.

use sila_abi::ObjectType;

use super::{Broken, Rule, Scratch, demand, live_process};
use crate::kernel::Kernel;
use crate::objects::{MappingId, Process, ProcessId, ProcessState, ThreadId, ThreadState};

pub(super) fn check(k: &Kernel, s: &mut Scratch) -> Result<(), Broken> {
    for (id, p) in k.processes.iter() {
        state(id, p)?;
        number(k, id, p)?;
        threads(k, s, id, p)?;
        mappings(k, s, id, p)?;
        // The own Pool is the last that the reaper gives back.
        let freed = p.state == ProcessState::Dying && p.roots.is_none();
        let own = p.state == ProcessState::Ended || freed || super::is_live(k, p.pool);
        demand(own, Rule::PoolPayer, p.pool.index(), p.pool.generation().into())?;
        demand(k.jobs.get(p.job).is_some(), Rule::JobMembers, p.job.index(), id.index().into())?;
    }
    every_thread_is_listed(k, s)?;
    jobs(k)?;
    reaped(k)
}

fn state(id: ProcessId, p: &Process) -> Result<(), Broken> {
    let nothing = p.threads.is_none() && p.thread_count == 0;
    let fine = match p.state {
        ProcessState::Created | ProcessState::Running => p.roots.is_some() && p.thread_count > 0,
        ProcessState::Embryo => p.roots.is_some() && p.caps == 0,
        // The reaper has its threads for a while.
        ProcessState::Dying => p.roots.is_some() || nothing,
        ProcessState::Ended => {
            let freed = p.roots.is_none() && p.image.is_none() && p.mappings.is_none();
            nothing && freed && p.caps > 0
        }
    };
    demand(fine, Rule::ProcessState, id.index(), p.state as u64)
}

fn number(k: &Kernel, id: ProcessId, p: &Process) -> Result<(), Broken> {
    let unique = k.processes.iter().all(|(other, q)| other == id || q.number != p.number);
    demand(unique && p.number < k.next_process, Rule::ProcessNumber, id.index(), p.number)
}

fn threads(k: &Kernel, s: &mut Scratch, id: ProcessId, p: &Process) -> Result<(), Broken> {
    let mut before: Option<ThreadId> = None;
    let mut at = p.threads;
    let mut count = 0;
    while let Some(next) = at {
        let found = k.threads.at(next.index()).filter(|(found, _)| *found == next);
        let Some((_, t)) = found else { return demand(false, Rule::ThreadList, next.index(), 0) };
        let fresh = s.threads.get_mut(next.index() as usize);
        let fresh = fresh.is_some_and(|u| core::mem::replace(&mut u.listed, 1) == 0);
        demand(fresh && t.process == id && t.prev == before, Rule::ThreadList, next.index(), 1)?;
        let unable = matches!(p.state, ProcessState::Embryo | ProcessState::Dying);
        let still = !unable || t.state == ThreadState::Inactive;
        demand(still, Rule::ProcessState, id.index(), next.index().into())?;
        count += 1;
        (before, at) = (at, t.next);
    }
    let fits = count == p.thread_count && count <= p.max_threads;
    demand(fits, Rule::ThreadList, u32::MAX, id.index().into())
}

fn every_thread_is_listed(k: &Kernel, s: &Scratch) -> Result<(), Broken> {
    let listed = |id: ThreadId| s.threads.get(id.index() as usize).is_some_and(|u| u.listed == 1);
    k.threads.iter().try_for_each(|(id, _)| demand(listed(id), Rule::ThreadList, id.index(), 2))
}

fn mappings(k: &Kernel, s: &mut Scratch, id: ProcessId, p: &Process) -> Result<(), Broken> {
    let mut before: Option<MappingId> = None;
    let mut at = p.mappings;
    while let Some(next) = at {
        let found = k.mappings.at(next.index()).filter(|(found, _)| *found == next);
        let Some((_, map)) = found else { return demand(false, Rule::MappingList, next.index(), 0) };
        let fresh = s.mappings.set(next.index());
        demand(fresh && map.process == id && map.prev == before, Rule::MappingList, next.index(), 1)?;
        (before, at) = (at, map.next);
    }
    Ok(())
}

fn jobs(k: &Kernel) -> Result<(), Broken> {
    for (id, job) in k.jobs.iter() {
        let members = k.processes.iter().filter(|(_, p)| p.job == id).count();
        demand(members == job.members as usize, Rule::JobMembers, id.index(), members as u64)?;
        let kept = job.caps > 0 || job.members > 0 || k.boot_job == Some(id);
        demand(kept, Rule::Kept, ObjectType::Job as u64, id.index().into())?;
    }
    Ok(())
}

/// The reaper's list is as long as there are dying processes, and holds only such: each of them once.
fn reaped(k: &Kernel) -> Result<(), Broken> {
    let dying = k.processes.iter().filter(|(_, p)| p.state == ProcessState::Dying).count();
    let mut at = k.reap;
    for _ in 0..dying {
        let Some(id) = at else { return demand(false, Rule::ReapList, u32::MAX, dying as u64) };
        let p = live_process(k, id).filter(|p| p.state == ProcessState::Dying);
        let Some(p) = p else { return demand(false, Rule::ReapList, id.index(), 0) };
        at = p.reap_next;
    }
    demand(at.is_none(), Rule::ReapList, at.map_or(u32::MAX, |id| id.index()), 1)
}
