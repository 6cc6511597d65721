//! Every operation of the ABI table against capabilities that must not do: made from the table itself, so that an
//! operation that is added is tested.

use crate::lab::{
    CACHE, EMPTY, ENDOW_ONLY, Failure, IRQ, JOB, KEYS, Lab, Outcome, POLICY, POOL, PORTS, SYSTEM, TEST, copy,
    equal, refused, works,
};
use alloc::format;
use alloc::vec::Vec;
use sila_abi::ops::{Arg, OpInfo, TABLE};
use sila_abi::protocol::layout::{CLOCK, OWN_POOL, OWN_PROCESS, OWN_THREAD};
use sila_abi::{Error, ObjectType, Op, Rights, Slot};
use sila_rt::hostile::invoke;
use sila_rt::op;
use sila_rt::slots::{OwnedSlot, make};

/// Where the zoo's Mapping shows its page.
const PLACE: u64 = 0x0000_6a00_0000_0000;

/// A capability of every object type that exists, but for Replies: those can be neither copied nor weakened.
struct Zoo {
    endpoint: OwnedSlot,
    notification: OwnedSlot,
    region: OwnedSlot,
    mapping: OwnedSlot,
    handover: OwnedSlot,
    journal: OwnedSlot,
    cached: OwnedSlot,
}

impl Zoo {
    fn new(lab: &Lab) -> Result<Self, Failure> {
        let frames = works("RegionCreate", make(|dst| op::RegionCreate(OWN_POOL, 1, dst)))?;
        let journal = works("JournalCreate", make(|dst| op::JournalCreate(OWN_POOL, frames.slot(), dst)))?;
        // The Journal has taken it.
        frames.leak();
        let region = works("RegionCreate", make(|dst| op::RegionCreate(OWN_POOL, 1, dst)))?;
        let map = |dst: Slot| {
            let words = [OWN_PROCESS.0.into(), PLACE, 0, 1, 0, u64::from(dst.0)];
            invoke(region.slot(), Op::RegionMap, &words)
        };
        Ok(Self {
            cached: crate::cache::probe(lab)?,
            mapping: works("RegionMap", make(map))?,
            handover: works("HandoverCreate", make(|dst| op::HandoverCreate(POOL, JOB, u64::MAX, dst)))?,
            journal,
            endpoint: works("EndpointCreate", make(|dst| op::EndpointCreate(OWN_POOL, 0, 0, dst)))?,
            notification: works("NotificationCreate", make(|dst| op::NotificationCreate(OWN_POOL, dst)))?,
            region,
        })
    }

    /// The capability of this type; `None` where there is none, or none that can be copied.
    fn of(&self, kind: ObjectType) -> Option<Slot> {
        Some(match kind {
            ObjectType::Pool => POOL,
            ObjectType::Region => self.region.slot(),
            ObjectType::Endpoint => self.endpoint.slot(),
            ObjectType::Notification => self.notification.slot(),
            ObjectType::Job => JOB,
            // The own one: to map, a process must be written, which its creator cannot.
            ObjectType::Process => OWN_PROCESS,
            ObjectType::Thread => OWN_THREAD,
            ObjectType::KeyRing => KEYS,
            ObjectType::Policy => POLICY,
            ObjectType::IrqHandler => IRQ,
            ObjectType::IoPorts => PORTS,
            ObjectType::Clock => CLOCK,
            ObjectType::SystemControl => SYSTEM,
            ObjectType::TestControl => TEST,
            ObjectType::Mapping => self.mapping.slot(),
            ObjectType::Handover => self.handover.slot(),
            ObjectType::Journal => self.journal.slot(),
            ObjectType::ModuleCache => CACHE,
            ObjectType::CachedImage => self.cached.slot(),
            _ => return None,
        })
    }

    /// A capability of another type than this, with every right it can have.
    fn other(&self, kind: ObjectType) -> Slot {
        if kind == ObjectType::Notification { self.endpoint.slot() } else { self.notification.slot() }
    }
}

impl Drop for Zoo {
    fn drop(&mut self) {
        // A mapping outlives its last capability.
        let _ = invoke(self.mapping.slot(), Op::MappingUnmap, &[]);
        let _ = op::CachedImageEvict(self.cached.slot());
    }
}

fn rights_of(slot: Slot) -> Result<Rights, Failure> {
    let status = works("CapStatus", op::CapStatus(slot))?;
    Ok(Rights::from_word(status.words[1]).unwrap_or(Rights::empty()))
}

/// A copy without one right; `None` if the capability has no other, or can't be copied: then nobody has a weaker one.
fn without(slot: Slot, right: Rights) -> Result<Option<OwnedSlot>, Failure> {
    let rights = rights_of(slot)?;
    let rest = rights.difference(right);
    if rest.is_empty() || !rights.contains(Rights::COPY) {
        return Ok(None);
    }
    Ok(Some(works("a copy with fewer rights", copy(slot, rest))?))
}

/// Words that pass every check before argument `upto`.
fn words(zoo: &Zoo, row: &OpInfo, upto: usize, free: Slot) -> Vec<u64> {
    let word = |(at, (_, kind)): (usize, &(&str, Arg))| match kind {
        Arg::Dst => free.0.into(),
        Arg::Cap(kind, _) if at < upto => zoo.of(*kind).unwrap_or(EMPTY).0.into(),
        _ => 0,
    };
    row.args.iter().enumerate().map(word).collect()
}

fn each_row(lab: &Lab, check: impl Fn(&Zoo, &OpInfo) -> Result<bool, Failure>) -> Outcome {
    let zoo = Zoo::new(lab)?;
    let mut checked = 0;
    for row in TABLE {
        checked += usize::from(check(&zoo, row).map_err(|failure| failure.at(row.name))?);
    }
    if checked < 2 { Err(Failure::new("rows checked", "many", format!("{checked}"))) } else { Ok(()) }
}

pub fn every_operation_needs_its_right(lab: &Lab) -> Outcome {
    each_row(lab, |zoo, row| {
        let Some(good) = zoo.of(row.object.unwrap_or(ObjectType::Pool)) else { return Ok(false) };
        let free = works("a slot", sila_rt::slots::reserve())?;
        let words = words(zoo, row, 6, free.slot());
        for right in row.rights.iter() {
            let Some(weak) = without(good, right)? else { continue };
            let want = if row.rights == Rights::COPY { Error::NotCopyable } else { Error::MissingRight };
            refused(&format!("without {right:?}"), invoke(weak.slot(), row.op, &words), want)?;
        }
        Ok(!row.rights.is_empty())
    })
}

pub fn every_operation_refuses_other_types(lab: &Lab) -> Outcome {
    each_row(lab, |zoo, row| {
        let Some(kind) = row.object else { return Ok(false) };
        let free = works("a slot", sila_rt::slots::reserve())?;
        let words = words(zoo, row, 6, free.slot());
        refused("another type", invoke(zoo.other(kind), row.op, &words), Error::WrongType)?;
        Ok(true)
    })
}

pub fn every_operation_refuses_an_empty_slot(lab: &Lab) -> Outcome {
    each_row(lab, |zoo, row| {
        let words = words(zoo, row, 6, Slot(901));
        refused("an empty slot", invoke(EMPTY, row.op, &words), Error::NoCapability)?;
        refused("slot 0", invoke(Slot(0), row.op, &words), Error::NoCapability)?;
        refused("a slot beyond the end", invoke(Slot(1024), row.op, &words), Error::SlotOutOfRange)?;
        Ok(true)
    })
}

pub fn every_operation_but_housekeeping_refuses_endow_only(lab: &Lab) -> Outcome {
    let before = works("CapStatus", op::CapStatus(ENDOW_ONLY))?.words;
    each_row(lab, |zoo, row| {
        let fits = row.object.is_none_or(|kind| kind == ObjectType::Endpoint);
        if row.endow_ok || !fits {
            return Ok(false);
        }
        let words = words(zoo, row, 6, Slot(901));
        refused("an endow-only capability", invoke(ENDOW_ONLY, row.op, &words), Error::EndowOnly)?;
        Ok(true)
    })?;
    let send = sila_rt::ipc::send(ENDOW_ONLY, &sila_rt::ipc::Message::new(1), 0);
    refused("send", send, Error::EndowOnly)?;
    let call = sila_rt::ipc::call(ENDOW_ONLY, &sila_rt::ipc::Message::new(1), 0, 0);
    refused("call", call, Error::EndowOnly)?;
    refused("recv", sila_rt::ipc::recv(ENDOW_ONLY, 0, 0).map(|_| ()), Error::EndowOnly)?;
    equal("the capability afterwards", works("CapStatus", op::CapStatus(ENDOW_ONLY))?.words, before)
}

pub fn every_capability_argument_needs_its_right(lab: &Lab) -> Outcome {
    each_row(lab, |zoo, row| {
        let Some(good) = zoo.of(row.object.unwrap_or(ObjectType::Pool)) else { return Ok(false) };
        let free = works("a slot", sila_rt::slots::reserve())?;
        let mut checked = false;
        for (at, (name, kind)) in row.args.iter().enumerate() {
            let Arg::Cap(kind, rights) = kind else { continue };
            let Some(argument) = zoo.of(*kind) else { continue };
            let mut words = words(zoo, row, at, free.slot());
            let mut attempt = |slot: Slot| {
                if let Some(word) = words.get_mut(at) {
                    *word = slot.0.into();
                }
                invoke(good, row.op, &words)
            };
            refused(&format!("{name} of another type"), attempt(zoo.other(*kind)), Error::WrongType)?;
            refused(&format!("{name} empty"), attempt(EMPTY), Error::NoCapability)?;
            for right in rights.iter() {
                let Some(weak) = without(argument, right)? else { continue };
                refused(&format!("{name} without {right:?}"), attempt(weak.slot()), Error::MissingRight)?;
            }
            checked = true;
        }
        Ok(checked)
    })
}

pub fn every_destination_must_be_a_free_slot(lab: &Lab) -> Outcome {
    each_row(lab, |zoo, row| {
        let Some(good) = zoo.of(row.object.unwrap_or(ObjectType::Pool)) else { return Ok(false) };
        if !row.args.iter().any(|(_, kind)| *kind == Arg::Dst) {
            return Ok(false);
        }
        for (slot, want) in [
            (OWN_POOL, Error::SlotOccupied),
            (Slot(0), Error::SlotOutOfRange),
            (Slot(1024), Error::SlotOutOfRange),
            (Slot(65535), Error::SlotOutOfRange),
        ] {
            let words = words(zoo, row, 6, slot);
            refused(&format!("destination {}", slot.0), invoke(good, row.op, &words), want)?;
        }
        Ok(true)
    })
}
