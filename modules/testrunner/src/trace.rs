//! The kernel's trace and counters: exactly what a test did comes out, whatever else the system does meanwhile.

use crate::lab::{Failure, Lab, Outcome, SYSTEM, equal, holds, refused, works};
use alloc::format;
use alloc::vec::Vec;
use probe::{Act, SURVIVED};
use sila_abi::ops::Op;
use sila_abi::protocol::layout::{OWN_POOL, OWN_PROCESS};
use sila_abi::syscall::{Call, Tag};
use sila_abi::trace::{ALL_KINDS, End, Kind, Record, bit};
use sila_abi::{Error, Slot};
use sila_rt::hostile::invoke;
use sila_rt::ipc::{self, Message, Received};
use sila_rt::slots::{make, reserve};
use sila_rt::system::{Audit, audit, counters, trace};
use sila_rt::{clock, op};

fn kinds(list: &[Kind]) -> u64 {
    list.iter().fold(0, |all, kind| all | bit(*kind))
}

/// Everything that is recorded of these kinds while `body` runs. The trace is off afterwards.
fn recorded(wanted: u64, body: impl FnOnce() -> Outcome) -> Result<Vec<Record>, Failure> {
    let mut at = works("SystemTrace", op::SystemTrace(SYSTEM, wanted))?.words[1];
    let result = body();
    let before = works("SystemTrace", op::SystemTrace(SYSTEM, 0))?.words[0];
    result?;
    equal("the kinds that were recorded", before, wanted)?;
    let mut records = Vec::new();
    loop {
        let piece = works("SystemTraceRead", trace(SYSTEM, at))?;
        equal("records lost", piece.lost, 0)?;
        if piece.records.is_empty() {
            return Ok(records);
        }
        records.extend(piece.records);
        at = piece.next;
    }
}

fn own_id() -> Result<u64, Failure> {
    Ok(works("ProcessUsage", op::ProcessUsage(OWN_PROCESS))?.words[0])
}

fn named(records: &[Record]) -> Vec<&'static str> {
    records.iter().map(|r| Kind::from_number(r.kind).map_or("?", Kind::name)).collect()
}

pub fn the_trace_shows_exactly_what_was_done(_: &Lab) -> Outcome {
    const AT: u64 = 0x3000_0000_0000;
    let own = own_id()?;
    let region = works("RegionCreate", make(|dst| op::RegionCreate(OWN_POOL, 3, dst)))?;
    let note = works("NotificationCreate", make(|dst| op::NotificationCreate(OWN_POOL, dst)))?;
    let place = works("a slot", reserve())?;
    let wanted = kinds(&[Kind::Enter, Kind::Leave, Kind::Map, Kind::Unmap, Kind::Revoke]);
    let records = recorded(wanted, || {
        works("Signal", op::Signal(note.slot(), 5))?;
        let map = [OWN_PROCESS.0.into(), AT, 1, 2, 1, place.slot().0.into()];
        works("RegionMap", invoke(region.slot(), Op::RegionMap, &map))?;
        refused("the same again", invoke(region.slot(), Op::RegionMap, &map), Error::SlotOccupied)?;
        works("MappingUnmap", invoke(place.slot(), Op::MappingUnmap, &[]))?;
        works("CapDelete", op::CapDelete(place.slot()))?;
        works("CapRevoke", op::CapRevoke(region.slot())).map(|_| ())
    })?;
    // The thread that ended the trace: others of the runner wake now and then.
    let last = records.last().ok_or_else(|| Failure::new("events", "some", "none"))?;
    let mine: Vec<(u32, [u64; 3])> = records
        .iter()
        .filter(|r| (r.process, r.thread) == (own, last.thread))
        .map(|r| (r.kind, r.words))
        .collect();
    let tag = |op: Op, words: u8| Tag::new(Call::Invoke, words, 0, op as u32).0;
    let enter = |op: Op, words: u8, slot: Slot, argument: u64| {
        (Kind::Enter as u32, [tag(op, words), slot.0.into(), argument])
    };
    let leave =
        |op: Op, words: u8, end: End, error: u64| (Kind::Leave as u32, [tag(op, words), end as u64, error]);
    let done = |op, words| leave(op, words, End::Done, 0);
    let map = u64::from(OWN_PROCESS.0);
    let want = [
        enter(Op::Signal, 1, note.slot(), 5),
        done(Op::Signal, 1),
        enter(Op::RegionMap, 6, region.slot(), map),
        (Kind::Map as u32, [own, AT, 2]),
        done(Op::RegionMap, 6),
        enter(Op::RegionMap, 6, region.slot(), map),
        leave(Op::RegionMap, 6, End::Refused, Error::SlotOccupied as u64),
        enter(Op::MappingUnmap, 0, place.slot(), 0),
        (Kind::Unmap as u32, [own, AT, 2]),
        done(Op::MappingUnmap, 0),
        enter(Op::CapDelete, 0, place.slot(), 0),
        done(Op::CapDelete, 0),
        enter(Op::CapRevoke, 0, region.slot(), 0),
        (Kind::Revoke as u32, [region.slot().0.into(), 0, 1]),
        done(Op::CapRevoke, 0),
        // What ends the trace has begun.
        enter(Op::SystemTrace, 1, SYSTEM, 0),
    ];
    equal("events of the runner", mine.len(), want.len())?;
    for (at, (got, want)) in mine.into_iter().zip(want).enumerate() {
        equal(&format!("event {at}"), got, want)?;
    }
    let sorted = records.windows(2).all(|pair| pair[0].time <= pair[1].time);
    holds("time never goes back", sorted)
}

pub fn the_trace_shows_a_process_from_its_making_to_its_end(lab: &Lab) -> Outcome {
    let wanted = kinds(&[
        Kind::Fault,
        Kind::ProcessCreate,
        Kind::ProcessEnd,
        Kind::ProcessGone,
        Kind::VerifyQueue,
        Kind::VerifyBegin,
        Kind::VerifyDone,
        Kind::VerifyEnd,
    ]);
    let records = recorded(wanted, || {
        let child = lab.child()?;
        let end = child.run(Act::Read, &[0])?;
        equal("cause and vector", (end.cause, end.code), (3, 14))
    })?;
    let want = [
        "verify-queue",
        "verify-begin",
        "verify-done",
        "process-create",
        "verify-end",
        "fault",
        "process-end",
        "process-gone",
    ];
    equal("the events", named(&records), want.to_vec())?;
    let id = records[3].words[0];
    equal("who faulted", (records[5].process, records[5].words[0]), (id, 14))?;
    equal("who ended, of what", records[6].words, [id, 3, 14])?;
    equal("who has gone", records[7].words[0], id)
}

pub fn the_trace_shows_a_call_to_another_process_and_its_answer(lab: &Lab) -> Outcome {
    let own = own_id()?;
    let endpoint = works("EndpointCreate", make(|dst| op::EndpointCreate(OWN_POOL, 0, 0, dst)))?;
    let child = lab.child()?;
    let id = works("ProcessUsage", op::ProcessUsage(child.process()))?.words[0];
    child.start(Act::Call, &[0, 0, 0], &[endpoint.slot()])?;
    let records = recorded(kinds(&[Kind::Call, Kind::Reply, Kind::Switch]), || {
        match works("recv", ipc::recv(endpoint.slot(), 0, clock::after(clock::SECOND)))? {
            Received::Message(incoming) => works("the answer", incoming.reply.send(&Message::new(0)))?,
            Received::Flags(_) => return Err(Failure::new("recv", "a message", "flags")),
        }
        child.exited(SURVIVED)
    })?;
    let ours = |r: &&Record| r.process == own || r.process == id;
    let talk: Vec<(&str, u64, u64)> = records
        .iter()
        .filter(ours)
        .filter(|r| r.kind != Kind::Switch as u32)
        .map(|r| (Kind::from_number(r.kind).map_or("?", Kind::name), r.process, r.words[0]))
        .collect();
    equal("call and answer", talk, alloc::vec![("call", id, own), ("reply", own, id)])?;
    let switched = |from: u64, to: u64| {
        records.iter().any(|r| r.kind == Kind::Switch as u32 && r.process == from && r.words[0] == to)
    };
    holds(
        "the CPU passed to the probe, or from it",
        switched(own, id) || switched(id, own) || switched(0, id),
    )
}

pub fn a_full_trace_counts_what_is_lost(_: &Lab) -> Outcome {
    let own = own_id()?;
    let from = works("SystemTrace", op::SystemTrace(SYSTEM, bit(Kind::Leave)))?.words[1];
    let kept = works("SystemTraceRead", trace(SYSTEM, from))?.kept;
    for _ in 0..kept + 100 {
        works("CapStatus", op::CapStatus(OWN_POOL))?;
    }
    works("SystemTrace", op::SystemTrace(SYSTEM, 0))?;
    let first = works("SystemTraceRead", trace(SYSTEM, from))?;
    let end = counters(SYSTEM)?.traced;
    equal("records lost", first.lost, end - kept - from)?;
    holds("at least as many as were too many", first.lost >= 100)?;
    let mut at = from + first.lost;
    let mut found = 0;
    let mut mine = 0;
    loop {
        let piece = works("SystemTraceRead", trace(SYSTEM, at))?;
        equal("lost afterwards", piece.lost, 0)?;
        if piece.records.is_empty() {
            break;
        }
        found += piece.records.len() as u64;
        mine += piece.records.iter().filter(|r| r.process == own).count();
        at = piece.next;
    }
    equal("records kept", found, kept)?;
    holds("most of them are the runner's", mine as u64 > kept / 2)?;
    let beyond = trace(SYSTEM, end + 1);
    refused("records that are still to come", beyond, Error::InvalidArgument)
}

pub fn kinds_that_do_not_exist_are_refused(_: &Lab) -> Outcome {
    for kinds in [1, u64::MAX, ALL_KINDS << 1] {
        refused("SystemTrace", op::SystemTrace(SYSTEM, kinds), Error::InvalidArgument)?;
    }
    Ok(())
}

pub fn counters_rise_by_what_they_count(lab: &Lab) -> Outcome {
    let before = works("SystemCounters", counters(SYSTEM))?;
    let child = lab.child()?;
    child.exits(Act::Exit, &[0], &[], 0)?;
    for _ in 0..10 {
        refused("CapStatus", op::CapStatus(crate::lab::EMPTY), Error::NoCapability)?;
    }
    let huge = make(|dst| op::RegionCreate(OWN_POOL, 60_000, dst));
    refused("a Region that is too large", huge, Error::OutOfFrames)?;
    let after = works("SystemCounters", counters(SYSTEM))?;
    equal("processes made", after.processes_made - before.processes_made, 1)?;
    equal("processes ended", after.processes_ended - before.processes_ended, 1)?;
    equal("verifications", after.verifications - before.verifications, 1)?;
    equal("of them refused", after.verifications_refused - before.verifications_refused, 0)?;
    holds("refusals", after.refused_calls - before.refused_calls >= 11)?;
    holds("want of memory", after.exhausted_calls > before.exhausted_calls)?;
    holds("calls", after.received > before.received && after.received >= after.received_generally)?;
    for (at, ((name, was), (_, is))) in before.rows().into_iter().zip(after.rows()).enumerate() {
        holds(&format!("counter {at} ({name}) never falls"), is >= was)?;
    }
    Ok(())
}

pub fn the_page_tables_pass_the_audit(lab: &Lab) -> Outcome {
    let before = works("SystemAudit", audit(SYSTEM))?;
    let child = lab.child()?;
    child.start(Act::Serve, &[0], &[])?;
    let _service = child.report(1)?;
    let with = works("SystemAudit", audit(SYSTEM))?;
    match (before, with) {
        (Audit::Sound(before), Audit::Sound(with)) if with > before => Ok(()),
        other => Err(Failure::new("the audit", "more pages, every rule", format!("{other:?}"))),
    }
}
