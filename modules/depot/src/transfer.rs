//! The receiving end of the link: one transfer at a time, each frame once and in order.
//!
//! [`Receiver::handle`] takes an [`Event`] and gives [`Action`]s. Those marked *step* end with an event of their own.

use crate::link::{Answer, Frame, Verdict};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use sila_abi::protocol::push::{Announcement, BEGIN, FLOORS, MAX_FILE, MAX_PAYLOAD};
use sila_abi::record::Digest;
use sila_crypto::hash::BulkHasher;
use zerocopy::FromBytes;

/// What can happen.
#[derive(Clone, Debug)]
pub enum Event {
    /// A frame has come.
    Frame(Frame),
    /// Something has come that is no frame: why.
    Damaged(&'static str),
    /// The memory for the file is there, or is refused.
    Reserved(Result<(), String>),
    /// What became of the file.
    Judged(Result<String, String>),
    /// Nothing has come for so long that the sender has given up.
    Expired,
}

/// What the binary must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Step: set memory aside for so many bytes. Ends with [`Event::Reserved`].
    Reserve(u64),
    /// Put these bytes at this offset of the file.
    Write(u64, Vec<u8>),
    /// Step: the file is complete, this is its digest; keep it, or hand it on. Ends with [`Event::Judged`].
    Judge(Digest),
    /// Give the file's memory up.
    Discard,
    /// Tell the sender.
    Answer(Answer),
    /// Tell the sender, who asks under this number of a transfer, the floor with this number.
    Floor(u32, u32),
}

/// Where the receiver stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// It knows of no transfer.
    Idle,
    /// A file is announced; its memory is being set aside.
    Reserving,
    /// The file comes in.
    Receiving,
    /// The file is complete and is being judged.
    Judging,
    /// A transfer has ended; its last answer is kept for a sender that did not hear it.
    Ended,
}

impl Stage {
    /// Every stage, in order.
    pub const ALL: [Self; 5] = [Self::Idle, Self::Reserving, Self::Receiving, Self::Judging, Self::Ended];
}

/// A transfer.
#[derive(Clone)]
struct Transfer {
    id: u32,
    announced: Announcement,
    /// The number of the frame that comes next.
    next: u32,
    received: u64,
    hasher: BulkHasher,
    /// How it ended.
    end: Option<Verdict>,
}

impl Transfer {
    fn len(&self) -> u64 {
        self.announced.len.get()
    }

    /// How many bytes the next frame carries.
    fn due(&self) -> usize {
        let left = usize::try_from(self.len().saturating_sub(self.received)).unwrap_or(usize::MAX);
        left.min(MAX_PAYLOAD)
    }

    fn says(&self, verdict: Verdict) -> Action {
        Action::Answer(Answer { transfer: self.id, verdict })
    }
}

/// The receiving end.
#[derive(Clone)]
pub struct Receiver {
    stage: Stage,
    /// The transfer under way, or the one that has ended. Only in stage Idle there may be none.
    transfer: Option<Transfer>,
}

impl Default for Receiver {
    fn default() -> Self {
        Self::new()
    }
}

/// An answer to a frame of a transfer that is none of this receiver's.
fn stray(transfer: u32, why: &str) -> Vec<Action> {
    Vec::from([Action::Answer(Answer { transfer, verdict: Verdict::Refused(why.into()) })])
}

impl Receiver {
    /// A receiver that has seen nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { stage: Stage::Idle, transfer: None }
    }

    /// Where it stands.
    #[must_use]
    pub const fn stage(&self) -> Stage {
        self.stage
    }

    /// Takes an event and says what to do about it.
    pub fn handle(&mut self, event: Event) -> Vec<Action> {
        match event {
            Event::Frame(frame) => self.frame(&frame),
            Event::Damaged(why) => self.damaged(why),
            Event::Reserved(result) => self.reserved(result),
            Event::Judged(result) => self.judged(result),
            Event::Expired => self.expired(),
        }
    }

    fn frame(&mut self, frame: &Frame) -> Vec<Action> {
        if frame.kind == FLOORS {
            return match frame.payload.is_empty() {
                true => Vec::from([Action::Floor(frame.transfer, frame.number)]),
                false => stray(frame.transfer, "a question for a floor carries nothing"),
            };
        }
        let known = self.transfer.as_ref().is_some_and(|transfer| transfer.id == frame.transfer);
        match self.stage {
            // The step's own event says how it goes on; a sender that does not wait is answered then.
            Stage::Reserving | Stage::Judging => Vec::new(),
            Stage::Receiving | Stage::Ended if known => self.continued(frame),
            _ if frame.kind == BEGIN => self.begin(frame),
            _ => stray(frame.transfer, "the transfer was not announced, or another one was since"),
        }
    }

    /// A file is announced. What was under way is given up.
    fn begin(&mut self, frame: &Frame) -> Vec<Action> {
        let mut actions = self.abandon();
        let announced = Announcement::read_from_bytes(&frame.payload).ok().filter(|_| frame.number == 0);
        let Some(announced) = announced else {
            actions.extend(stray(frame.transfer, "the announcement is malformed"));
            return actions;
        };
        let (id, hasher) = (frame.transfer, BulkHasher::new());
        self.transfer = Some(Transfer { id, announced, next: 0, received: 0, hasher, end: None });
        self.stage = Stage::Reserving;
        match announced.len.get() {
            0 => actions.extend(self.end(Verdict::Refused("the file is empty".into()))),
            len if len > MAX_FILE => {
                let why = format!("the file has {len} bytes, and the depot takes at most {MAX_FILE}");
                actions.extend(self.end(Verdict::Refused(why)));
            }
            len => actions.push(Action::Reserve(len)),
        }
        actions
    }

    /// A frame of the transfer that is known.
    fn continued(&mut self, frame: &Frame) -> Vec<Action> {
        let stage = self.stage;
        let Some(transfer) = &mut self.transfer else { return Vec::new() };
        if let Some(end) = &transfer.end {
            return Vec::from([transfer.says(end.clone())]);
        }
        if frame.number < transfer.next {
            return Vec::from([transfer.says(Verdict::Ack(frame.number))]);
        }
        if stage != Stage::Receiving || frame.number > transfer.next {
            let why = format!("frame {} was expected", transfer.next);
            return Vec::from([transfer.says(Verdict::Nack(transfer.next, why))]);
        }
        if frame.kind == BEGIN || frame.payload.len() != transfer.due() {
            let why =
                format!("frame {} does not carry the {} bytes that are due", frame.number, transfer.due());
            return self.refuse(why);
        }
        let at = transfer.received;
        transfer.hasher.update(&frame.payload);
        transfer.received = at.saturating_add(frame.payload.len() as u64);
        transfer.next = transfer.next.saturating_add(1);
        let mut actions = Vec::from([Action::Write(at, frame.payload.clone())]);
        if transfer.received < transfer.len() {
            actions.push(transfer.says(Verdict::Ack(frame.number)));
            return actions;
        }
        let digest = transfer.hasher.clone().finalize();
        if digest == transfer.announced.digest {
            self.stage = Stage::Judging;
            actions.push(Action::Judge(digest));
        } else {
            actions.extend(self.refuse("the file's digest is not the one that was announced".into()));
        }
        actions
    }

    fn damaged(&mut self, why: &str) -> Vec<Action> {
        let (transfer, number) = match (&self.transfer, self.stage) {
            (_, Stage::Reserving | Stage::Judging) => return Vec::new(),
            (Some(transfer), Stage::Receiving) => (transfer.id, transfer.next),
            (Some(transfer), Stage::Ended) => (transfer.id, transfer.next.saturating_sub(1)),
            _ => (0, 0),
        };
        Vec::from([Action::Answer(Answer { transfer, verdict: Verdict::Nack(number, why.into()) })])
    }

    fn reserved(&mut self, result: Result<(), String>) -> Vec<Action> {
        let Some(transfer) = self.transfer.as_mut().filter(|_| self.stage == Stage::Reserving) else {
            return Vec::new();
        };
        match result {
            Ok(()) => {
                self.stage = Stage::Receiving;
                transfer.next = 1;
                Vec::from([transfer.says(Verdict::Ack(0))])
            }
            Err(why) => self.end(Verdict::Refused(why)),
        }
    }

    fn judged(&mut self, result: Result<String, String>) -> Vec<Action> {
        match (self.stage, result) {
            (Stage::Judging, Ok(what)) => self.end(Verdict::Done(what)),
            (Stage::Judging, Err(why)) => self.end(Verdict::Refused(why)),
            _ => Vec::new(),
        }
    }

    fn expired(&mut self) -> Vec<Action> {
        if self.stage == Stage::Receiving {
            self.refuse("nothing came for too long".into())
        } else {
            Vec::new()
        }
    }

    /// Ends the transfer under way and gives its memory up.
    fn refuse(&mut self, why: String) -> Vec<Action> {
        let mut actions = Vec::from([Action::Discard]);
        actions.extend(self.end(Verdict::Refused(why)));
        actions
    }

    fn end(&mut self, verdict: Verdict) -> Vec<Action> {
        self.stage = Stage::Ended;
        let Some(transfer) = &mut self.transfer else { return Vec::new() };
        transfer.end = Some(verdict.clone());
        Vec::from([transfer.says(verdict)])
    }

    fn abandon(&mut self) -> Vec<Action> {
        let open = self.stage == Stage::Receiving;
        self.stage = Stage::Idle;
        self.transfer = None;
        if open { Vec::from([Action::Discard]) } else { Vec::new() }
    }
}

#[cfg(test)]
#[path = "transfer_tests.rs"]
mod tests;
