//! The comparison: every capability, every ancestor, every Pool, every object.

use std::collections::BTreeMap;
use std::string::String;
use std::vec::Vec;

use sila_abi::ObjectType;

use super::driver::Driver;
use super::reference::{Held, Name, Nature, What};
use crate::cap::view::{ROOT, Way};
use crate::cap::{CSPACE, Cap, ObjRef, Origin};
use crate::kernel::{id_of, reference};
use crate::objects::*;

type Check = Result<(), String>;

macro_rules! demand {
    ($holds:expr, $($what:tt)*) => {
        if !$holds {
            return Err(std::format!($($what)*));
        }
    };
}

/// Holds the whole kernel against the model.
pub fn compare(d: &mut Driver) -> Check {
    let places = capabilities(d)?;
    descent(d, &places)?;
    objects(d)?;
    pools(d)?;
    people(d)
}

/// Every capability of the model is in its slot, and the kernel has no other. Gives the names by place.
fn capabilities(d: &mut Driver) -> Result<BTreeMap<u32, Name>, String> {
    let mut places = BTreeMap::new();
    for (name, held) in &d.model.caps {
        let process = d.actors[&held.holder].process.index();
        places.insert(process * CSPACE as u32 + u32::from(held.slot), *name);
    }
    let mut count = 0;
    for process in 0..d.w.k.processes.capacity() {
        for (at, cap) in d.w.k.caps.stored_in(process, d.w.k.caps.usable(process)) {
            let Some(name) = places.get(&at) else {
                return Err(std::format!("the kernel has {cap:?} at {at}, the model nothing"));
            };
            let held = &d.model.caps[name];
            same_capability(&mut d.refs, &mut d.calls, held, cap)?;
            count += 1;
        }
    }
    demand!(count == places.len(), "the kernel has {count} capabilities, the model {}", places.len());
    Ok(places)
}

/// Compares a capability; learns what object or call it names when it is the first to name it.
fn same_capability(
    refs: &mut BTreeMap<Name, ObjRef>,
    calls: &mut BTreeMap<Name, u64>,
    held: &Held,
    cap: &Cap,
) -> Check {
    let alike = (cap.object.kind, cap.rights) == (held.kind, held.rights);
    demand!(alike, "the kernel has {cap:?}, the model {held:?}");
    match held.what {
        What::Reply(call) => {
            let number = calls.entry(call).or_insert(cap.badge);
            demand!(*number == cap.badge, "the Reply of call {number} has number {}", cap.badge);
        }
        What::Object(object) => {
            demand!(cap.badge == held.badge, "the kernel has {cap:?}, the model {held:?}");
            if !refs.contains_key(&object) {
                let taken = refs.iter().find(|(_, r)| **r == cap.object);
                demand!(taken.is_none(), "{cap:?} names the object of {taken:?}, not a new one");
                refs.insert(object, cap.object);
            }
            demand!(refs[&object] == cap.object, "{cap:?} does not name object {object} {:?}", refs[&object]);
        }
    }
    Ok(())
}

/// Walks the kernel's forest: what is above each capability is the model's set of its ancestors.
fn descent(d: &Driver, places: &BTreeMap<u32, Name>) -> Check {
    let table = &d.w.k.caps;
    let mut above: Vec<Name> = Vec::new();
    let mut way = table.links(ROOT).first;
    let mut seen = 0;
    loop {
        match way {
            Way::To(at) => {
                let name = places.get(&at).copied().unwrap_or(0);
                let Some(held) = d.model.caps.get(&name) else {
                    return Err(std::format!("{at} is linked and holds nothing"));
                };
                // Whoever is above was there before: in the order of names.
                let same = held.ancestors.iter().eq(above.iter());
                demand!(same, "above {held:?} are {above:?}");
                seen += 1;
                let links = table.links(at);
                if links.first == Way::Nowhere {
                    way = links.next;
                } else {
                    above.push(name);
                    way = links.first;
                }
            }
            Way::Up(ROOT) | Way::Nowhere => break,
            Way::Up(at) => {
                above.pop();
                way = table.links(at).next;
            }
        }
    }
    let derived = d.model.caps.values().filter(|held| held.kind != ObjectType::Reply).count();
    demand!(seen == derived, "{seen} capabilities descend from the anchor, not {derived}");
    Ok(())
}

/// Every object of the model lives, and no other.
fn objects(d: &Driver) -> Check {
    let k = &d.w.k;
    for (kind, live) in [
        (ObjectType::Pool, k.pools.live()),
        (ObjectType::Region, k.regions.live()),
        (ObjectType::Mapping, k.mappings.live()),
        (ObjectType::Endpoint, k.endpoints.live()),
        (ObjectType::Notification, k.notifications.live()),
        (ObjectType::Process, k.processes.live()),
        (ObjectType::Thread, k.threads.live()),
    ] {
        let want = d.model.live(kind);
        demand!(live as usize == want, "{live} objects of type {kind:?} live, not {want}");
    }
    for (name, object) in &d.model.objects {
        if let Some(found) = d.refs.get(name) {
            let dying = matches!(object.nature, Nature::Pool { dying: true, .. });
            demand!(dying || k.is_alive(*found), "object {name} {object:?} is gone");
            state(d, *found, &object.nature)?;
        }
    }
    Ok(())
}

fn state(d: &Driver, found: ObjRef, nature: &Nature) -> Check {
    let k = &d.w.k;
    let cap = Cap { object: found, rights: sila_abi::Rights::empty(), badge: 0, origin: Origin::NONE };
    match nature {
        Nature::Region { pages, sealed } => {
            let r = k.regions.get(id_of(&cap)).map(|r| (u64::from(r.pages), r.sealed.is_allowed()));
            demand!(r == Some((*pages, *sealed)), "a Region is {r:?}, not {nature:?}");
        }
        Nature::Mapping { writable, pages, first, .. } => {
            let m = k.mappings.get(id_of(&cap));
            let m = m.map(|m| (m.writable, m.range.pages(), m.range.start() >> 12));
            demand!(m == Some((*writable, *pages, *first)), "a mapping is {m:?}, not {nature:?}");
        }
        Nature::Endpoint { receiver, durable, senders, receivers } => {
            let Some(e) = k.endpoints.get(id_of(&cap)) else { return Err("no endpoint".into()) };
            let want = receiver.map(|name| d.actors[&name].process);
            demand!(e.receiver == want && e.durable == *durable, "an endpoint is {e:?}, not {nature:?}");
            let slots = |names: &[Name]| -> Vec<u32> {
                names.iter().map(|name| d.actors[name].thread.index()).collect()
            };
            let (s, r) = (queue(d, &e.senders), queue(d, &e.receivers));
            let same = s == slots(senders) && r == slots(receivers);
            demand!(same, "at an endpoint wait {s:?} and {r:?}, not {nature:?}");
        }
        _ => {}
    }
    Ok(())
}

fn queue(d: &Driver, q: &crate::queue::Queue) -> Vec<u32> {
    core::iter::successors(q.first(), |at| d.w.k.threads.after(*at)).collect()
}

/// Every Pool has the balance that the model adds up.
fn pools(d: &Driver) -> Check {
    let mut known = 0;
    for (name, object) in &d.model.objects {
        let Nature::Pool { dying, .. } = object.nature else { continue };
        let own = d.model.people.iter().find(|(_, p)| p.pool == *name);
        let own = own.and_then(|(process, _)| d.w.k.processes.get(d.actors[process].process));
        let found = d.refs.get(name).copied().or(own.map(|p| reference(ObjectType::Pool, p.pool)));
        let Some(found) = found else { continue };
        known += 1;
        let cap = Cap { object: found, rights: sila_abi::Rights::empty(), badge: 0, origin: Origin::NONE };
        let pool: PoolId = id_of(&cap);
        let Some(p) = d.w.k.pools.get(pool) else { return Err(std::format!("Pool {name} is gone")) };
        // The Job of the test is paid by the root.
        let job = if *name == d.model.root { cost::<Job>() } else { 0 };
        let (used, limit) = (d.model.used(*name), d.model.limit(*name));
        let want = (used.0, used.1 + job, limit.0, limit.1 + job, dying);
        let is = (p.frames.used, p.bytes.used, p.frames.limit, p.bytes.limit, p.dying);
        demand!(is == want, "Pool {name} is {is:?}, not {want:?}");
    }
    let want = d.model.live(ObjectType::Pool);
    demand!(known == want, "{known} Pools were compared, not {want}");
    Ok(())
}

fn people(d: &Driver) -> Check {
    for (name, person) in &d.model.people {
        demand!(d.waits_alike(*name), "process {name} does not wait as {:?}", person.wait);
        let chunks = d.w.k.caps.usable(d.actors[name].process.index());
        let want: u16 = person.chunks.iter().map(|chunk| 1 << chunk).sum();
        demand!(chunks == want, "process {name} has chunks {chunks:#b}, not {want:#b}");
    }
    Ok(())
}
