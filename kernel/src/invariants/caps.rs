//! Capabilities: where they lie, how they descend from each other, what they name.

use sila_abi::{ObjectType, Rights};

use super::handovers::{NOBODYS, participants};
use super::{Broken, Rule, Scratch, arenas, demand, id};
use crate::arena::view::SlotView;
use crate::cap::view::{Links, ROOT, Way};
use crate::cap::{CHUNK, CSPACE, Cap, ObjRef};
use crate::kernel::Kernel;
use crate::objects::{PoolId, ProcessState, Thread, ThreadState};

pub(super) fn check(k: &Kernel, s: &mut Scratch) -> Result<(), Broken> {
    chunks(k)?;
    let linked = places(k, s)?;
    chains(k, s)?;
    tree(k, linked)?;
    for held in &k.held {
        if let Some(count) = s.caps_of(held.kind, held.index).filter(|_| exists(k, held)) {
            *count += 1;
        }
    }
    for process in participants(k) {
        if let Some(count) = s.caps_of(ObjectType::Process, process.index()) {
            *count += 1;
        }
    }
    super::arenas::counts(k, s)
}

/// A CSpace may use slots only while its process has not ended.
fn chunks(k: &Kernel) -> Result<(), Broken> {
    for process in 0..k.processes.capacity() {
        let lives = k.processes.at(process).is_some_and(|(_, p)| p.state != ProcessState::Ended);
        let usable = k.caps.usable(process);
        demand(lives || usable == 0, Rule::Chunks, process, usable.into())?;
    }
    Ok(())
}

/// Everybody's CSpaces, and nobody's.
fn cspaces(k: &Kernel) -> impl Iterator<Item = u32> + use<> {
    (0..k.processes.capacity().min(NOBODYS)).chain([NOBODYS])
}

/// Looks at every slot; counts capabilities that take part in derivation.
fn places(k: &Kernel, s: &mut Scratch) -> Result<u32, Broken> {
    let mut linked = 0;
    for process in cspaces(k) {
        let usable = k.caps.usable(process);
        // The first chunk of nobody's CSpace stands for what is no capability.
        let looked_at = if process == NOBODYS { u16::MAX << 1 } else { u16::MAX };
        for (at, cap) in k.caps.stored_in(process, looked_at) {
            let slot = at as usize % CSPACE;
            let placed = slot != 0 && usable >> (slot / CHUNK) & 1 == 1;
            demand(placed, Rule::CapPlace, at, 0)?;
            named(k, s, at, cap)?;
            linked += u32::from(cap.object.kind != ObjectType::Reply);
        }
    }
    Ok(linked)
}

/// True if the object that a capability names lives.
fn exists(k: &Kernel, object: &ObjRef) -> bool {
    let arena = arenas(k).into_iter().find(|(kind, _)| *kind == object.kind);
    arena.is_some_and(|(_, a)| a.slot(object.index) == Some(SlotView::Live(object.generation)))
}

/// The object that a capability names: it lives, or has lived.
fn named(k: &Kernel, s: &mut Scratch, at: u32, cap: &Cap) -> Result<(), Broken> {
    let object = &cap.object;
    if object.kind == ObjectType::Reply {
        return reply(k, s, at, cap);
    }
    let Some((_, arena)) = arenas(k).into_iter().find(|(kind, _)| *kind == object.kind) else {
        return Ok(());
    };
    let reached = match arena.slot(object.index) {
        Some(SlotView::Live(now)) => {
            if now == object.generation
                && let Some(count) = s.caps_of(object.kind, object.index)
            {
                *count += 1;
            }
            object.generation <= now
        }
        Some(SlotView::Vacant(next, _)) => object.generation < next,
        Some(SlotView::Retired) => true,
        None => false,
    };
    demand(reached && object.generation > 0, Rule::CapObject, at, object.index.into())
}

/// A Reply names a caller and the endpoint called by their slots, and the call by a number that no other has.
fn reply(k: &Kernel, s: &mut Scratch, at: u32, cap: &Cap) -> Result<(), Broken> {
    let (caller, endpoint) = (cap.object.index, cap.object.generation);
    let exist = caller < k.threads.capacity() && endpoint < k.endpoints.capacity();
    demand(exist, Rule::CapObject, at, caller.into())?;
    demand(cap.badge <= k.calls, Rule::Reply, caller, cap.badge)?;
    let waits = |t: &Thread| t.state == ThreadState::AwaitingReply && t.call == cap.badge;
    if k.threads.at(caller).is_some_and(|(_, t)| waits(t))
        && let Some(found) = s.threads.get_mut(caller as usize)
    {
        found.replies = found.replies.saturating_add(1);
    }
    Ok(())
}

/// Walks the children of every capability and of the anchor: each slot is in one chain, between the links of its
/// parent.
fn chains(k: &Kernel, s: &mut Scratch) -> Result<(), Broken> {
    chain(k, s, ROOT)?;
    for process in cspaces(k) {
        // Nothing lies elsewhere.
        let derived = |cap: &Cap| cap.object.kind != ObjectType::Reply;
        let usable = k.caps.usable(process);
        for (at, _) in k.caps.stored_in(process, usable).filter(|(_, cap)| derived(cap)) {
            chain(k, s, at)?;
        }
    }
    Ok(())
}

fn chain(k: &Kernel, s: &mut Scratch, parent: u32) -> Result<(), Broken> {
    let Links { first, last, .. } = k.caps.links(parent);
    let mut before = Way::Up(parent);
    let mut way = first;
    while let Way::To(at) = way {
        let cap = k.caps.stored(at).filter(|cap| cap.object.kind != ObjectType::Reply);
        let links = k.caps.links(at);
        demand(cap.is_some() && links.prev == before && s.places.set(at), Rule::CapLinks, at, 0)?;
        descends(k, parent, at)?;
        (before, way) = (Way::To(at), links.next);
    }
    let ends = match before {
        Way::To(_) => way == Way::Up(parent) && last == before,
        _ => first == Way::Nowhere && last == Way::Nowhere,
    };
    demand(ends, Rule::CapLinks, parent, 1)
}

fn descends(k: &Kernel, parent: u32, child: u32) -> Result<(), Broken> {
    let (Some(p), Some(c)) = (k.caps.stored(parent), k.caps.stored(child)) else { return Ok(()) };
    let shrinks = if p.object == c.object {
        let rights = p.rights.contains(c.rights.difference(Rights::ENDOW));
        rights && (p.badge == 0 || p.badge == c.badge)
    } else {
        p.object.kind == ObjectType::Pool && c.object.kind == ObjectType::Pool && splits(k, p, c)
    };
    demand(shrinks, Rule::CapShrinks, child, parent.into())
}

/// True if the child's Pool was split from the parent's, or one of the two is gone.
fn splits(k: &Kernel, parent: &Cap, child: &Cap) -> bool {
    let (top, mut at): (PoolId, PoolId) = (id(&parent.object), id(&child.object));
    if k.pools.get(top).is_none() {
        return true;
    }
    for _ in 0..k.pools.capacity() {
        match k.pools.get(at).map(|p| p.parent) {
            Some(Some(up)) if up == top => return true,
            Some(Some(up)) => at = up,
            Some(None) => return false,
            None => return true,
        }
    }
    false
}

/// Walks the whole forest from the anchor: every capability that takes part in derivation is reached.
fn tree(k: &Kernel, linked: u32) -> Result<(), Broken> {
    demand(linked == k.caps.live(), Rule::CapTree, linked, k.caps.live().into())?;
    let mut reached = 0;
    let mut way = k.caps.links(ROOT).first;
    // Chains are whole: each step goes to a slot for the first time, or back up from one, once.
    for _ in 0..=2 * u64::from(linked) {
        way = match way {
            Way::To(at) => {
                reached += 1;
                let Links { first, next, .. } = k.caps.links(at);
                if first == Way::Nowhere { next } else { first }
            }
            Way::Up(ROOT) | Way::Nowhere => break,
            Way::Up(at) => k.caps.links(at).next,
        }
    }
    demand(reached == linked, Rule::CapTree, reached, linked.into())
}
