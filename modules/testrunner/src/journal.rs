//! Journals from ring 3: what goes in comes out, and nothing else happens.

use crate::handover::rig::{PUPPET_PROOF, THING, exact};
use crate::lab::{EMPTY, Failure, Lab, Outcome, POOL, copy, equal, holds, refused, sealed, works};
use crate::puppet::Puppet;
use alloc::format;
use alloc::vec::Vec;
use sila_abi::protocol::layout::OWN_POOL;
use sila_abi::{Error, ObjectType, Op, Rights, Slot};
use sila_rt::memory::OwnRegion;
use sila_rt::op::{self, invoke_long};
use sila_rt::slots::{OwnedSlot, make};
use sila_rt::{CallError, hostile};

/// Bytes of a frame.
const FRAME: u64 = 4096;
/// Words of a record besides those of the call and the reply, and of its place in the index.
const OVERHEAD: u64 = 4;
/// The most words of call and reply together that the runner's message page takes at once.
const MOST: usize = 114;

/// A Journal of this many frames, charged to a Pool.
fn journal(pool: Slot, frames: u64) -> Result<OwnedSlot, CallError> {
    let region = make(|dst| op::RegionCreate(OWN_POOL, frames, dst))?;
    make(|dst| op::JournalCreate(pool, region.slot(), dst))
}

/// A record: badge, labels, call, reply.
type Record = (u64, u64, Vec<u64>, Vec<u64>);

/// A record with recognisable words.
fn record(number: u64, call: usize, reply: usize) -> Record {
    let words = |salt: u64, count: usize| (0..count as u64).map(|i| number << 32 | salt << 16 | i).collect();
    (number + 1, number << 32 | 5, words(1, call), words(2, reply))
}

fn append(journal: Slot, (badge, labels, call, reply): &Record) -> Result<u64, CallError> {
    let lengths = call.len() as u64 | (reply.len() as u64) << 8;
    let mut words = alloc::vec![*badge, *labels, lengths, 0, 0, 0];
    words.extend(call.iter().chain(reply));
    let mut out = [0; 1];
    invoke_long(journal, Op::JournalAppend, &words, &mut out)?;
    Ok(out[0])
}

fn read(journal: Slot, number: u64) -> Result<Record, CallError> {
    let mut words = [0; MOST];
    let [badge, labels, lengths, _, _, _] = op::JournalRead(journal, number)?.words;
    hostile::page_words(&mut words);
    let (call, reply) = ((lengths & 0xff) as usize, (lengths >> 8 & 0xff) as usize);
    let mut all = words.into_iter();
    let call = all.by_ref().take(call).collect();
    Ok((badge, labels, call, all.take(reply).collect()))
}

/// Records, bytes used, capacity, closed, largest record.
fn status(journal: Slot) -> Result<[u64; 5], Failure> {
    let [records, used, capacity, closed, largest, _] =
        works("JournalStatus", op::JournalStatus(journal))?.words;
    Ok([records, used, capacity, closed, largest])
}

/// What was appended is read back by number: badge, labels, and every word of call and reply.
pub fn a_journal_gives_back_what_was_appended(lab: &Lab) -> Outcome {
    exact(lab, |_| {
        let journal = works("a Journal", journal(POOL, 2))?;
        let lengths = [(0, 0), (1, 0), (0, 1), (6, 7), (MOST, 0), (0, MOST), (60, 54)];
        let records: Vec<Record> =
            (0..).zip(lengths).map(|(number, (call, reply))| record(number, call, reply)).collect();
        for (number, record) in (0..).zip(&records) {
            equal("the record's number", works("JournalAppend", append(journal.slot(), record))?, number)?;
        }
        for (at, record) in records.iter().enumerate().rev() {
            let number = at as u64;
            let got = works("JournalRead", read(journal.slot(), number))?;
            equal(&format!("record {number}"), &got, record)?;
        }
        let words: usize = records.iter().map(|(_, _, call, reply)| call.len() + reply.len()).sum();
        let used = 8 * (words as u64 + OVERHEAD * records.len() as u64);
        let [count, bytes, capacity, closed, _] = status(journal.slot())?;
        equal("the status", [count, bytes, capacity, closed], [records.len() as u64, used, 2 * FRAME, 0])?;
        let beyond = read(journal.slot(), records.len() as u64);
        refused("a record that is not there", beyond, Error::NoMoreEntries)?;
        refused("record u64::MAX", read(journal.slot(), u64::MAX), Error::NoMoreEntries)
    })
}

/// A record that does not fit is refused and changes nothing; one that fits exactly is taken, and then none.
pub fn a_full_journal_refuses_and_keeps_what_it_has(lab: &Lab) -> Outcome {
    exact(lab, |_| {
        let journal = works("a Journal", journal(POOL, 1))?;
        let at = journal.slot();
        let mut records = Vec::new();
        loop {
            let next = record(records.len() as u64, MOST, 0);
            match append(at, &next) {
                Ok(_) => records.push(next),
                Err(error) => {
                    equal("the refusal", error.error, Error::JournalFull)?;
                    let left = status(at)?[4] / 8;
                    equal("the words that would fit", error.words[0], left)?;
                    holds("it was refused for a reason", left < MOST as u64 + OVERHEAD - 1)?;
                    break;
                }
            }
        }
        let full = status(at)?;
        equal("records in one frame", records.len() as u64, FRAME / 8 / (MOST as u64 + OVERHEAD))?;
        // A record has a header of three words besides.
        let room = (full[4] / 8).saturating_sub(3) as usize;
        refused("one word more than fits", append(at, &record(9, room + 1, 0)), Error::JournalFull)?;
        equal("the status after refusals", status(at)?, full)?;
        let last = record(records.len() as u64, room, 0);
        works("what fits exactly", append(at, &last))?;
        records.push(last);
        equal("used and largest", [status(at)?[1], status(at)?[4]], [FRAME, 0])?;
        refused("an empty record", append(at, &record(9, 0, 0)), Error::JournalFull)?;
        for (number, record) in (0..).zip(&records) {
            equal(&format!("record {number}"), &works("JournalRead", read(at, number))?, record)?;
        }
        Ok(())
    })
}

/// A closed Journal takes no further record, for ever, and is read as before.
pub fn a_closed_journal_is_read_only(lab: &Lab) -> Outcome {
    exact(lab, |_| {
        let journal = works("a Journal", journal(POOL, 1))?;
        let (at, one) = (journal.slot(), record(0, 3, 4));
        works("JournalAppend", append(at, &one))?;
        let weak = works("a copy", copy(at, Rights::READ | Rights::WRITE | Rights::COPY))?;
        refused("closing without MANAGE", op::JournalClose(weak.slot()), Error::MissingRight)?;
        works("JournalClose", op::JournalClose(at))?;
        let closed = status(at)?;
        equal("closed", closed[3], 1)?;
        for which in [at, weak.slot()] {
            refused("an append", append(which, &one), Error::JournalClosed)?;
        }
        works("closing it again", op::JournalClose(at))?;
        equal("the status", status(at)?, closed)?;
        equal("what it has", works("JournalRead", read(weak.slot(), 0))?, one)
    })
}

/// Calls and replies longer than a message are refused, whatever else the word of lengths says.
pub fn an_append_that_is_too_long_is_refused(lab: &Lab) -> Outcome {
    exact(lab, |_| {
        let journal = works("a Journal", journal(POOL, 1))?;
        let before = status(journal.slot())?;
        for lengths in [121, 255, 121 << 8, 255 << 8, 1 << 16, 1 << 63, u64::MAX] {
            let append = op::JournalAppend(journal.slot(), 1, 2, lengths);
            refused(&format!("lengths {lengths:#x}"), append, Error::InvalidArgument)?;
        }
        equal("the status", status(journal.slot())?, before)?;
        let [number, left, ..] =
            works("the longest", op::JournalAppend(journal.slot(), 1, 2, 120 | 120 << 8))?.words;
        equal("its number, and the words left", (number, left), (0, FRAME / 8 - 243 - 2))
    })
}

/// A Journal is charged to its Pool, frames and bytes, and refunded; a Pool that cannot pay makes none.
pub fn a_journal_is_charged_and_refunded(lab: &Lab) -> Outcome {
    exact(lab, |_| {
        let pool = works("a Pool", make(|dst| op::PoolCreate(POOL, 3, 20_000, dst)))?;
        let poor = works("a Pool", make(|dst| op::PoolCreate(POOL, 3, 100, dst)))?;
        let few = works("a Pool", make(|dst| op::PoolCreate(POOL, 2, 20_000, dst)))?;
        let used = |pool: &OwnedSlot| {
            works("PoolStatus", op::PoolStatus(pool.slot())).map(|s| (s.words[1], s.words[3]))
        };
        let region = works("a Region", make(|dst| op::RegionCreate(OWN_POOL, 3, dst)))?;
        for (pool, error) in [(&poor, Error::OutOfObjectBytes), (&few, Error::OutOfFrames)] {
            let made = make(|dst| op::JournalCreate(pool.slot(), region.slot(), dst));
            refused("a Journal from a Pool that cannot pay", made, error)?;
            equal("what that Pool paid", used(pool)?, (0, 0))?;
        }
        works("the Region is still there", op::RegionStatus(region.slot()))?;
        let journal = works("a Journal", make(|dst| op::JournalCreate(pool.slot(), region.slot(), dst)))?;
        let (frames, bytes) = used(&pool)?;
        equal("frames paid", frames, 3)?;
        holds("bytes paid", bytes > 0)?;
        let other = works("a Pool", make(|dst| op::PoolCreate(POOL, 3, 20_000, dst)))?;
        works("ChargeTransfer", op::ChargeTransfer(journal.slot(), other.slot()))?;
        equal("what each paid", (used(&pool)?, used(&other)?), ((0, 0), (frames, bytes)))?;
        refused(
            "a transfer to a Pool that cannot pay",
            op::ChargeTransfer(journal.slot(), few.slot()),
            Error::OutOfFrames,
        )?;
        equal("what each paid after a refusal", (used(&few)?, used(&other)?), ((0, 0), (frames, bytes)))?;
        drop(journal);
        equal("what is left", used(&other)?, (0, 0))
    })
}

/// A Journal takes its Region over: it is nobody else's, unmapped and unsealed before, and not reachable after.
pub fn a_journal_takes_its_region_over(lab: &Lab) -> Outcome {
    exact(lab, |_| {
        let make_from = |region: Slot| make(|dst| op::JournalCreate(POOL, region, dst));
        let region = works("a Region", make(|dst| op::RegionCreate(OWN_POOL, 1, dst)))?;
        let shared = works("a copy", copy(region.slot(), Rights::READ))?;
        refused("a Region with two capabilities", make_from(region.slot()), Error::NotExclusive)?;
        drop(shared);
        let mapped = works("a mapped Region", OwnRegion::new(1))?;
        refused("a mapped Region", make_from(mapped.slot()), Error::NotExclusive)?;
        let frozen = sealed(&[1, 2, 3])?;
        refused("a sealed Region", make_from(frozen.slot()), Error::Sealed)?;
        let journal = works("a Journal", make_from(region.slot()))?;
        refused("the Region", op::RegionStatus(region.slot()), Error::NoCapability)?;
        let map = hostile::invoke(journal.slot(), Op::RegionMap, &[1, 0x80_0000, 0, 1, 0, EMPTY.0.into()]);
        refused("mapping the Journal", map, Error::WrongType)?;
        let [kind, rights, _, ..] = works("CapStatus", op::CapStatus(journal.slot()))?.words;
        let all = (Rights::READ | Rights::WRITE | Rights::MANAGE | Rights::COPY).bits();
        equal("type and rights", (kind, rights), (ObjectType::Journal as u64, all.into()))
    })
}

/// A Journal survives its writer: what was appended before the death is read by whoever holds it.
pub fn a_journal_survives_its_writer(lab: &Lab) -> Outcome {
    exact(lab, |lab| {
        let journal = works("a Journal", journal(POOL, 1))?;
        let proof = sealed(lab.data(PUPPET_PROOF)?)?;
        let writer = Puppet::new(lab, proof.slot())?;
        let write = works("a copy", copy(journal.slot(), Rights::WRITE | Rights::COPY))?;
        writer.give(&[(write.slot(), THING)])?;
        for number in 0..3u64 {
            let words = works(
                "its append",
                writer.invoke(THING, Op::JournalAppend, &[40 + number, number << 32, 0]),
            )?;
            equal("the record's number", words[0], number)?;
        }
        let read_back = writer.invoke(THING, Op::JournalRead, &[0]);
        refused("a read with WRITE only", read_back, Error::MissingRight)?;
        writer.kill()?;
        for number in 0..3u64 {
            let got = works("JournalRead", read(journal.slot(), number))?;
            equal("the record", got, (40 + number, number << 32, Vec::new(), Vec::new()))?;
        }
        equal("records", status(journal.slot())?[0], 3)
    })
}
