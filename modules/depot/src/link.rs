//! Frames and answers of the link, for both ends of it.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use sila_abi::protocol::push::{
    BEGIN, DATA, FLOORS, FRAME_HEADER_LEN, FRAME_MAGIC, FrameHeader, MAX_ANSWER, MAX_PAYLOAD,
};
use sila_crypto::hash::BulkHasher;
use zerocopy::{FromBytes, IntoBytes};

/// Bytes of a header that its check covers.
const CHECKED: usize = 16;
/// What every answer begins with.
const ANSWER: &str = "depot";

/// A frame that came whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// [`BEGIN`], [`DATA`] or [`FLOORS`].
    pub kind: u8,
    /// The sender's number for the transfer.
    pub transfer: u32,
    /// The frame's number in it.
    pub number: u32,
    /// What it carries, at most [`MAX_PAYLOAD`] bytes.
    pub payload: Vec<u8>,
}

impl Frame {
    /// The frame's bytes; `None` if it carries too much.
    #[must_use]
    pub fn encode(&self) -> Option<Vec<u8>> {
        let len = u16::try_from(self.payload.len()).ok().filter(|len| usize::from(*len) <= MAX_PAYLOAD)?;
        let mut header = FrameHeader {
            magic: FRAME_MAGIC,
            kind: self.kind,
            reserved: 0,
            len: len.into(),
            transfer: self.transfer.into(),
            number: self.number.into(),
            check: [0; 8],
        };
        header.check = check(header.as_bytes(), &self.payload);
        Some([header.as_bytes(), &self.payload].concat())
    }
}

/// The check of a frame with this header and payload.
fn check(header: &[u8], payload: &[u8]) -> [u8; 8] {
    let mut hasher = BulkHasher::new();
    hasher.update(header.get(..CHECKED).unwrap_or(header));
    hasher.update(payload);
    hasher.finalize().first_chunk().copied().unwrap_or_default()
}

/// What came over the link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A whole frame.
    Frame(Frame),
    /// Something that began as a frame and is none: why.
    Damaged(&'static str),
}

/// Finds frames in a stream of bytes. It keeps at most one frame's bytes, and finds the next frame after whatever
/// came before it.
#[derive(Debug, Default)]
pub struct Deframer {
    /// Begins as a frame does, or is empty.
    buffer: Vec<u8>,
}

/// What the front of the buffer is.
enum Front {
    Frame(Frame, usize),
    Partial,
    Bad(&'static str),
}

impl Deframer {
    /// A deframer that has seen nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { buffer: Vec::new() }
    }

    /// Whether a frame has begun and is not complete.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Takes bytes in; `heard` gets what they complete.
    pub fn feed(&mut self, bytes: &[u8], mut heard: impl FnMut(Heard)) {
        for piece in bytes.chunks(MAX_PAYLOAD) {
            for byte in piece {
                self.buffer.push(*byte);
                self.advance(&mut heard);
            }
        }
    }

    /// Nothing more has come for some time: what has begun stays incomplete. Frames inside of it are found.
    pub fn silence(&mut self, mut heard: impl FnMut(Heard)) {
        if !self.is_open() {
            return;
        }
        heard(Heard::Damaged("the frame was cut short"));
        while self.is_open() {
            self.skip();
            self.advance(&mut heard);
        }
    }

    fn advance(&mut self, heard: &mut impl FnMut(Heard)) {
        loop {
            self.align();
            match front(&self.buffer) {
                Front::Partial => return,
                Front::Bad(why) => {
                    heard(Heard::Damaged(why));
                    self.skip();
                }
                Front::Frame(frame, len) => {
                    self.buffer.drain(..len);
                    heard(Heard::Frame(frame));
                }
            }
        }
    }

    /// Gives the first byte up.
    fn skip(&mut self) {
        if !self.buffer.is_empty() {
            self.buffer.remove(0);
        }
        self.align();
    }

    /// Gives up what comes before the next thing that may be a frame.
    fn align(&mut self) {
        let may_begin = |at: &usize| {
            let rest = self.buffer.get(*at..).unwrap_or_default();
            rest.iter().zip(FRAME_MAGIC).all(|(byte, magic)| *byte == magic)
        };
        let at = (0..self.buffer.len()).find(may_begin).unwrap_or(self.buffer.len());
        self.buffer.drain(..at);
    }
}

fn front(buffer: &[u8]) -> Front {
    let Ok((header, rest)) = FrameHeader::ref_from_prefix(buffer) else { return Front::Partial };
    let len = usize::from(header.len.get());
    if header.reserved != 0 || !matches!(header.kind, BEGIN | DATA | FLOORS) {
        return Front::Bad("the frame is of an unknown kind");
    }
    if len > MAX_PAYLOAD {
        return Front::Bad("the frame is too long");
    }
    let Some(payload) = rest.get(..len) else { return Front::Partial };
    if check(header.as_bytes(), payload) != header.check {
        return Front::Bad("the frame's check does not match");
    }
    let frame = Frame {
        kind: header.kind,
        transfer: header.transfer.get(),
        number: header.number.get(),
        payload: payload.to_vec(),
    };
    Front::Frame(frame, FRAME_HEADER_LEN + len)
}

/// What the receiver says about a transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The transfer; 0 if the receiver knows of none.
    pub transfer: u32,
    /// What it says.
    pub verdict: Verdict,
}

/// What an answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// This frame has come.
    Ack(u32),
    /// This frame is to be sent again: why.
    Nack(u32, String),
    /// The file was taken: what became of it.
    Done(String),
    /// The file was not taken: why.
    Refused(String),
    /// A floor of the running system.
    Floor(FloorAnswer),
}

/// The answer to a question for a floor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FloorAnswer {
    /// Which was asked for, from 0.
    pub number: u32,
    /// The change of the KeyRing that it holds for: answers with the same one belong together.
    pub changes: u64,
    /// Sequence of the last signed floor record.
    pub sequence: u64,
    /// `PUBLISHER/NAME=V`; `None` behind the last one.
    pub floor: Option<String>,
}

impl FloorAnswer {
    fn parse(rest: &str) -> Option<Self> {
        let mut words = rest.split(' ');
        let number = words.next()?.parse().ok()?;
        let changes = words.next()?.parse().ok()?;
        let sequence = words.next()?.parse().ok()?;
        let floor = words.next().map(ToString::to_string);
        if words.next().is_some() { None } else { Some(Self { number, changes, sequence, floor }) }
    }

    fn said(&self) -> String {
        let Self { number, changes, sequence, floor } = self;
        match floor {
            Some(floor) => format!("floor {number} {changes} {sequence} {}", plain(floor)),
            None => format!("floor {number} {changes} {sequence}"),
        }
    }
}

/// Text of one line: what would end or disturb it is replaced, what is too long is cut off.
fn plain(text: &str) -> String {
    let tame = |char: char| if char.is_control() { '?' } else { char };
    let mut plain: String = text.chars().map(tame).collect();
    while plain.len() > MAX_ANSWER - 64 {
        plain.pop();
    }
    plain
}

impl Answer {
    /// The answer as a line, with its end.
    #[must_use]
    pub fn line(&self) -> String {
        let said = match &self.verdict {
            Verdict::Ack(number) => format!("ack {number}"),
            Verdict::Nack(number, why) => format!("nack {number} {}", plain(why)),
            Verdict::Done(what) => format!("done {}", plain(what)),
            Verdict::Refused(why) => format!("refused {}", plain(why)),
            Verdict::Floor(answer) => answer.said(),
        };
        format!("{ANSWER} {} {said}\n", self.transfer)
    }

    /// Reads a line; `None` if it is no answer.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.trim_end_matches(['\r', '\n']).splitn(4, ' ');
        if words.next() != Some(ANSWER) {
            return None;
        }
        let transfer = words.next()?.parse().ok()?;
        let (verb, rest) = (words.next()?, words.next().unwrap_or(""));
        let verdict = match verb {
            "ack" => Verdict::Ack(rest.parse().ok()?),
            // Whoever is at the other end: what is shown to people must not steer their terminal.
            "nack" => {
                let (number, why) = rest.split_once(' ').unwrap_or((rest, ""));
                Verdict::Nack(number.parse().ok()?, plain(why))
            }
            "done" => Verdict::Done(plain(rest)),
            "refused" => Verdict::Refused(plain(rest)),
            "floor" => Verdict::Floor(FloorAnswer::parse(rest)?),
            _ => return None,
        };
        Some(Self { transfer, verdict })
    }
}

#[cfg(test)]
#[path = "link_tests.rs"]
mod tests;
