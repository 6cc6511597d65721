//! Copy, mint, move, delete, revoke, and what they must not do.

use crate::lab::{Failure, Lab, Outcome, POOL, PORTS, copy, equal, refused, works};
use alloc::format;
use sila_abi::protocol::layout::OWN_POOL;
use sila_abi::{Error, Rights, Slot};
use sila_rt::op;
use sila_rt::slots::{OwnedSlot, make};

fn endpoint() -> Result<OwnedSlot, Failure> {
    works("EndpointCreate", make(|dst| op::EndpointCreate(OWN_POOL, 0, 0, dst)))
}

const ALL: Rights =
    Rights::SEND.union(Rights::RECV).union(Rights::GRANT).union(Rights::MANAGE).union(Rights::COPY);

fn is_gone(what: &str, slot: Slot) -> Outcome {
    refused(what, op::CapStatus(slot), Error::NoCapability)
}

fn is_there(what: &str, slot: Slot) -> Outcome {
    works(what, op::CapStatus(slot)).map(|_| ())
}

pub fn rights_only_shrink(_: &Lab) -> Outcome {
    let endpoint = endpoint()?;
    let weak = works("a copy", copy(endpoint.slot(), Rights::SEND | Rights::COPY))?;
    let status = works("CapStatus", op::CapStatus(weak.slot()))?.words[1];
    equal("its rights", status, (Rights::SEND | Rights::COPY).bits().into())?;
    for more in [Rights::RECV, Rights::GRANT, Rights::MANAGE, Rights::READ, Rights::SEAL] {
        let wider = copy(weak.slot(), Rights::SEND | more);
        refused(&format!("asking for {more:?} as well"), wider, Error::MissingRight)?;
        let minted = make(|dst| op::CapMint(weak.slot(), dst, (Rights::SEND | more).bits().into(), 5));
        refused(&format!("minting {more:?} as well"), minted, Error::MissingRight)?;
    }
    for unknown in [1 << 12, 1 << 16, u64::MAX] {
        let odd = make(|dst| op::CapCopy(weak.slot(), dst, unknown));
        refused("rights that do not exist", odd, Error::InvalidArgument)?;
    }
    Ok(())
}

pub fn a_badge_is_set_once(_: &Lab) -> Outcome {
    let endpoint = endpoint()?;
    let rights = u64::from((Rights::SEND | Rights::COPY).bits());
    let badged = works("CapMint", make(|dst| op::CapMint(endpoint.slot(), dst, rights, 7)))?;
    let again = make(|dst| op::CapMint(badged.slot(), dst, rights, 8));
    refused("another badge", again, Error::AlreadyBadged)?;
    let copied = works("a copy", copy(badged.slot(), Rights::SEND))?;
    equal("the copy's badge", works("CapStatus", op::CapStatus(copied.slot()))?.words[2], 7)
}

pub fn move_keeps_the_place_in_the_derivation(_: &Lab) -> Outcome {
    let endpoint = endpoint()?;
    let middle = works("a copy", copy(endpoint.slot(), ALL))?;
    let leaf = works("a copy of it", copy(middle.slot(), Rights::SEND))?;
    let place = works("a slot", sila_rt::slots::reserve())?;
    works("CapMove", op::CapMove(middle.slot(), place.slot()))?;
    is_gone("the old slot", middle.slot())?;
    let onto = op::CapMove(place.slot(), OWN_POOL);
    refused("moving onto another", onto, Error::SlotOccupied)?;
    works("CapRevoke of the moved", op::CapRevoke(place.slot()))?;
    is_gone("its child", leaf.slot())?;
    is_there("the moved", place.slot())?;
    works("CapRevoke of the first", op::CapRevoke(endpoint.slot()))?;
    is_gone("the moved", place.slot())
}

pub fn delete_hands_the_children_to_the_parent(_: &Lab) -> Outcome {
    let endpoint = endpoint()?;
    let middle = works("a copy", copy(endpoint.slot(), ALL))?;
    let leaf = works("a copy of it", copy(middle.slot(), Rights::SEND | Rights::COPY))?;
    works("CapDelete", op::CapDelete(middle.slot()))?;
    is_there("the grandchild", leaf.slot())?;
    works("CapRevoke", op::CapRevoke(endpoint.slot()))?;
    is_gone("the grandchild", leaf.slot())
}

pub fn revoke_deletes_all_descendants_and_no_more(_: &Lab) -> Outcome {
    let endpoint = endpoint()?;
    let first = works("a copy", copy(endpoint.slot(), ALL))?;
    let second = works("another copy", copy(endpoint.slot(), ALL))?;
    let mut below = alloc::vec::Vec::new();
    for _ in 0..40 {
        let child = works("a copy", copy(first.slot(), ALL))?;
        below.push(works("a copy of that", copy(child.slot(), Rights::SEND))?);
        below.push(child);
    }
    works("CapRevoke", op::CapRevoke(first.slot()))?;
    for cap in &below {
        is_gone("a descendant", cap.slot())?;
    }
    is_there("the capability itself", first.slot())?;
    is_there("its sibling", second.slot())?;
    let weak = works("a copy", copy(endpoint.slot(), Rights::SEND | Rights::COPY))?;
    refused("revoking without MANAGE", op::CapRevoke(weak.slot()), Error::MissingRight)
}

pub fn a_capability_to_a_dead_object_is_refused(lab: &Lab) -> Outcome {
    let child = lab.child()?;
    child.start(probe::Act::Serve, &[4], &[])?;
    let (_, mut caps) = child.report(1)?;
    let stale = caps.take(0).ok_or_else(|| Failure::new("the report", "a capability", "none"))?;
    child.exited(probe::SURVIVED)?;
    let copied = copy(stale.slot(), Rights::SEND);
    refused("copying it", copied, Error::ObjectGone)?;
    let sent = sila_rt::ipc::send(stale.slot(), &sila_rt::ipc::Message::new(1), 0);
    refused("sending to it", sent, Error::ObjectGone)?;
    refused("its label", op::EndpointLabel(stale.slot()), Error::ObjectGone)?;
    // Another object takes its place in the arena: the old capability must not reach that.
    let _fresh = [endpoint()?, endpoint()?, endpoint()?];
    refused("its label again", op::EndpointLabel(stale.slot()), Error::ObjectGone)?;
    let pool = works("PoolCreate", make(|dst| op::PoolCreate(POOL, 4, 4096, dst)))?;
    works("CapDelete", op::CapDelete(pool.slot()))?;
    refused("a Pool that was deleted", op::PoolStatus(pool.slot()), Error::NoCapability)
}

pub fn ports_outside_the_range_are_refused(_: &Lab) -> Outcome {
    works("reading COM2's scratch register", op::PortRead(PORTS, 7, 1))?;
    for (offset, width, want) in [
        (8, 1, Error::PortOutOfRange),
        (7, 2, Error::PortOutOfRange),
        (5, 4, Error::PortOutOfRange),
        (u64::MAX, 1, Error::PortOutOfRange),
        (0x10000, 1, Error::PortOutOfRange),
        (0, 0, Error::InvalidArgument),
        (0, 3, Error::InvalidArgument),
        (0, 8, Error::InvalidArgument),
    ] {
        refused(&format!("reading {offset} {width}"), op::PortRead(PORTS, offset, width), want)?;
        refused(&format!("writing {offset} {width}"), op::PortWrite(PORTS, offset, width, 0), want)?;
    }
    refused("a value that does not fit", op::PortWrite(PORTS, 7, 1, 1 << 32), Error::InvalidArgument)
}
