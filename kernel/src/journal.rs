//! Journals: an append-only, bounded record of calls and their replies.
//!
//! A Journal's storage is a Region that it took over: nobody names or maps it any more. It is filled from both
//! ends. From the beginning on lie the records: a header of three words (badge; labels; lengths, as JournalAppend
//! got them), the call's words, the reply's words. From the last word down lies the index: where each record begins.
//! So any record is found in one step, whatever its length.
//!
//! Invariants: records and index never overlap; a record that was appended never changes; a refused append changes
//! nothing; the Journal and its frames are charged to the same Pool.

use sila_abi::syscall::{MAX_WORDS, REGISTER_WORDS};
use sila_abi::{Error, ObjectType, Op, Rights};

use crate::arena::{Id, Vacant};
use crate::invoke::{Flow, Invocation};
use crate::kernel::{Fail, Kernel};
use crate::machine::{FRAME_WORDS, Frame, Machine};
use crate::objects::*;

/// Names a [`Journal`].
pub type JournalId = Id<Journal>;

/// Words of a record before those of the call.
const HEADER: usize = 3;
/// The longest record.
const MAX_RECORD: usize = HEADER + 2 * MAX_WORDS;

const JOURNAL_RIGHTS: Rights = Rights::READ.union(Rights::WRITE).union(Rights::MANAGE).union(Rights::COPY);

const _: () = assert!(REGISTER_WORDS + 2 * MAX_WORDS <= FRAME_WORDS, "a record fits the message page");

/// An append-only record.
#[derive(Debug)]
pub struct Journal {
    /// Who paid.
    pub pool: PoolId,
    /// Capabilities to it.
    pub caps: u32,
    /// Its storage, pinned.
    pub region: RegionId,
    /// Room, in words.
    pub capacity: u64,
    /// Records appended.
    pub records: u64,
    /// Words that they take, without the index.
    pub used: u64,
    /// Takes no further record.
    pub closed: bool,
}

impl Priced for Journal {
    const SLOTS: u32 = 64;
}

impl Vacant for Journal {
    fn vacant() -> Self {
        let (pool, region) = (Id::from_parts(0, 0), Id::from_parts(0, 0));
        Journal { pool, caps: 0, region, capacity: 0, records: 0, used: 0, closed: true }
    }
}

impl Journal {
    /// Words that the next record may have.
    fn left(&self) -> u64 {
        self.capacity.saturating_sub(self.used).saturating_sub(self.records + 1)
    }

    /// Where the index has the beginning of a record.
    fn index_of(&self, record: u64) -> u64 {
        self.capacity.saturating_sub(1 + record)
    }
}

/// The lengths of a record's call and reply, from the word that has both.
fn lengths(word: u64) -> Result<(usize, usize), Error> {
    let (call, reply) = (word as u8 as usize, (word >> 8) as u8 as usize);
    if word >> 16 != 0 || call > MAX_WORDS || reply > MAX_WORDS {
        return Err(Error::InvalidArgument);
    }
    Ok((call, reply))
}

impl Kernel {
    pub(crate) fn journal_operation(
        &mut self,
        m: &mut impl Machine,
        op: Op,
        c: &Invocation,
    ) -> Result<Flow, Fail> {
        match op {
            Op::JournalCreate => self.journal_create(m, c),
            Op::JournalAppend => self.journal_append(m, c),
            Op::JournalRead => self.journal_read(m, c),
            Op::JournalStatus => {
                let j = self.journals.get(c.id()).ok_or(Error::ObjectGone)?;
                let largest = j.left().min(MAX_RECORD as u64) * 8;
                let used = (j.used + j.records) * 8;
                Ok(Flow::words(&[j.records, used, j.capacity * 8, j.closed.into(), largest]))
            }
            _ => {
                let j = self.journals.get_mut(c.id()).ok_or(Error::ObjectGone)?;
                j.closed = true;
                Ok(Flow::words(&[]))
            }
        }
    }

    fn journal_create(&mut self, m: &mut impl Machine, c: &Invocation) -> Result<Flow, Fail> {
        let (at, pool): (_, PoolId) = (c.dst()?, c.id());
        let frames = c.caps[0].ok_or(Error::NoCapability)?;
        let region: RegionId = c.arg_id(0)?;
        let r = self.regions.get(region).ok_or(Error::ObjectGone)?;
        if r.caps != 1 || r.mappings > 0 || r.pins > 0 {
            return Err(Error::NotExclusive.into());
        }
        if !self.frames.is_flushed(r.epoch) {
            return Err(Error::StillWritable.into());
        }
        r.demand_unsealed()?;
        let pages = u64::from(r.pages);
        self.room(self.journals.has_room())?;
        self.charge(pool, 0, cost::<Journal>())?;
        if let Err(e) = self.recharge_region(region, pool) {
            self.refund(pool, 0, cost::<Journal>());
            return Err(e.into());
        }
        self.pin_region(region, true);
        self.delete(m, frames.id);
        let capacity = pages * FRAME_WORDS as u64;
        let fresh = Journal { pool, region, capacity, closed: false, ..Journal::vacant() };
        let id = self.journals.insert(fresh).map_err(|_| Error::ArenaFull)?;
        self.install_new(at, ObjectType::Journal, id, JOURNAL_RIGHTS)
    }

    fn message_page(&self, thread: ThreadId) -> Result<Frame, Error> {
        self.threads.get(thread).and_then(|t| t.message).map(|(frame, _)| frame).ok_or(Error::MessageTooLong)
    }

    fn journal_append(&mut self, m: &mut impl Machine, c: &Invocation) -> Result<Flow, Fail> {
        let j = self.journals.get(c.id()).ok_or(Error::ObjectGone)?;
        let (call, reply) = lengths(c.args[2])?;
        let (region, start, index) = (j.region, j.used, j.index_of(j.records));
        let length = HEADER + call + reply;
        if j.closed {
            return Err(Error::JournalClosed.into());
        }
        if length as u64 > j.left() {
            return Err(Fail::with(Error::JournalFull, j.left()));
        }
        let page = self.message_page(c.thread)?;
        let mut record = [0u64; MAX_RECORD];
        record[..HEADER].copy_from_slice(&c.args[..HEADER]);
        let words = REGISTER_WORDS..REGISTER_WORDS + call + reply;
        record[HEADER..length].copy_from_slice(&m.frame(page)[words]);
        self.write_words(m, region, start, &record[..length])?;
        self.write_words(m, region, index, &[start])?;
        let j = self.journals.get_mut(c.id()).ok_or(Error::ObjectGone)?;
        j.used += length as u64;
        j.records += 1;
        Ok(Flow::words(&[j.records - 1, j.left()]))
    }

    fn journal_read(&mut self, m: &mut impl Machine, c: &Invocation) -> Result<Flow, Fail> {
        let j = self.journals.get(c.id()).ok_or(Error::ObjectGone)?;
        let (region, records) = (j.region, j.records);
        if c.args[0] >= records {
            return Err(Error::NoMoreEntries.into());
        }
        let mut start = [0];
        let index = j.index_of(c.args[0]);
        let page = self.message_page(c.thread)?;
        self.read_words(m, region, index, &mut start)?;
        let mut record = [0u64; MAX_RECORD];
        self.read_words(m, region, start[0], &mut record[..HEADER])?;
        let (call, reply) = lengths(record[2])?;
        let length = HEADER + call + reply;
        self.read_words(m, region, start[0] + HEADER as u64, &mut record[HEADER..length])?;
        let words = REGISTER_WORDS..REGISTER_WORDS + call + reply;
        m.frame(page)[words].copy_from_slice(&record[HEADER..length]);
        Ok(Flow::words(&[record[0], record[1], record[2], records]))
    }

    /// The frame and offset of a word of a Region.
    fn word_at(&self, m: &mut impl Machine, region: RegionId, at: u64) -> Result<(Frame, usize), Error> {
        let page = u32::try_from(at / FRAME_WORDS as u64).map_err(|_| Error::InvalidArgument)?;
        let frame = self.region_frame(m, region, page).ok_or(Error::InvalidArgument)?;
        Ok((frame, at as usize % FRAME_WORDS))
    }

    fn write_words(
        &self,
        m: &mut impl Machine,
        region: RegionId,
        mut at: u64,
        mut words: &[u64],
    ) -> Result<(), Error> {
        while !words.is_empty() {
            let (frame, offset) = self.word_at(m, region, at)?;
            let (now, rest) = words.split_at(words.len().min(FRAME_WORDS - offset));
            m.frame(frame)[offset..offset + now.len()].copy_from_slice(now);
            (at, words) = (at + now.len() as u64, rest);
        }
        Ok(())
    }

    fn read_words(
        &self,
        m: &mut impl Machine,
        region: RegionId,
        mut at: u64,
        mut words: &mut [u64],
    ) -> Result<(), Error> {
        while !words.is_empty() {
            let (frame, offset) = self.word_at(m, region, at)?;
            let count = words.len().min(FRAME_WORDS - offset);
            let (now, rest) = words.split_at_mut(count);
            now.copy_from_slice(&m.frame(frame)[offset..offset + count]);
            (at, words) = (at + count as u64, rest);
        }
        Ok(())
    }

    /// The last capability has gone: the frames are free again.
    pub(crate) fn drop_journal(&mut self, id: JournalId) {
        if let Some(j) = self.journals.get(id).filter(|j| j.caps == 0) {
            let (pool, region) = (j.pool, j.region);
            self.journals.remove(id);
            self.pin_region(region, false);
            self.refund(pool, 0, cost::<Journal>());
        }
    }
}
