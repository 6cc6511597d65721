//! Messages: build, send, receive, call, reply.

use crate::error::CallError;
use crate::page::MessagePage;
use crate::raw::{Registers, syscall};
use crate::slots::{Caps, FreeRun, OwnedSlot, reserve};
use core::fmt;
use sila_abi::syscall::{
    Call, MAX_CAPS, MAX_WORDS, NO_WAIT, Outcome, REGISTER_WORDS, Receive, Tag, pack_caps,
};
use sila_abi::{Error, Slot};

/// A message: a label, up to 120 words, and the slots of up to four capabilities to send copies of.
#[derive(Clone)]
pub struct Message {
    /// What the message asks or answers.
    pub label: u32,
    words: [u64; MAX_WORDS],
    /// May exceed [`MAX_WORDS`]: then sending fails with `MessageTooLong`.
    len: usize,
    caps: [Slot; MAX_CAPS],
    caps_len: usize,
}

impl Message {
    /// A message without words.
    pub fn new(label: u32) -> Self {
        Message { label, words: [0; MAX_WORDS], len: 0, caps: [Slot::NONE; MAX_CAPS], caps_len: 0 }
    }

    /// A message with these words.
    pub fn with(label: u32, words: &[u64]) -> Self {
        let mut message = Message::new(label);
        message.extend(words);
        message
    }

    /// Appends a word.
    pub fn push(&mut self, word: u64) {
        if let Some(place) = self.words.get_mut(self.len) {
            *place = word;
        }
        self.len = self.len.saturating_add(1);
    }

    /// Appends words.
    pub fn extend(&mut self, words: &[u64]) {
        words.iter().for_each(|word| self.push(*word));
    }

    /// Sends a copy of this capability along.
    #[must_use]
    pub fn cap(mut self, slot: Slot) -> Self {
        if let Some(place) = self.caps.get_mut(self.caps_len) {
            *place = slot;
        }
        self.caps_len = self.caps_len.saturating_add(1);
        self
    }

    /// The words.
    pub fn words(&self) -> &[u64] {
        self.words.get(..self.len).unwrap_or(&self.words)
    }

    /// Word number `index`; 0 if the message is shorter.
    pub fn word(&self, index: usize) -> u64 {
        self.words().get(index).copied().unwrap_or(0)
    }

    fn is_too_long(&self) -> bool {
        self.len > MAX_WORDS || self.caps_len > MAX_CAPS
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("label", &self.label)
            .field("words", &self.words())
            .field("caps", &self.caps.get(..self.caps_len))
            .finish()
    }
}

impl PartialEq for Message {
    fn eq(&self, other: &Self) -> bool {
        self.label == other.label && self.words() == other.words() && self.caps == other.caps
    }
}

impl Eq for Message {}

/// What a system call brought back.
struct Arrived {
    outcome: Outcome,
    badge: u64,
    message: Message,
}

fn transact(
    call: Call,
    slot: Slot,
    message: Option<&Message>,
    receive: Receive,
    deadline: u64,
) -> Result<Arrived, CallError> {
    let mut registers =
        Registers { rdi: slot.0.into(), r13: receive.to_word(), r14: deadline, ..Registers::default() };
    let mut tag = Tag::new(call, 0, 0, 0);
    if let Some(message) = message {
        if message.is_too_long() {
            return Err(Error::MessageTooLong.into());
        }
        let words = message.words();
        if let Some(tail) = words.get(REGISTER_WORDS..).filter(|tail| !tail.is_empty()) {
            MessagePage::current().ok_or(Error::MessageTooLong)?.write(tail);
        }
        for (register, word) in registers.words.iter_mut().zip(words) {
            *register = *word;
        }
        registers.r15 = pack_caps(message.caps);
        tag = Tag::new(call, words.len() as u8, message.caps_len as u8, message.label);
    }
    registers.rax = tag.0;
    // SAFETY: messages change no mapping and start no thread.
    unsafe { syscall(&mut registers) };
    let outcome = Outcome(registers.rax);
    outcome.status().map_err(|error| CallError { error, words: registers.words })?;
    let mut arrived = Message::new(outcome.label());
    arrived.len = outcome.words().min(MAX_WORDS);
    for (word, register) in arrived.words.iter_mut().zip(registers.words) {
        *word = register;
    }
    let len = arrived.len;
    if let Some(tail) = arrived.words.get_mut(REGISTER_WORDS..len)
        && let Some(page) = MessagePage::current()
    {
        page.read(tail);
    }
    Ok(Arrived { outcome, badge: registers.rdi, message: arrived })
}

/// Sends a message and waits until it is received.
///
/// # Errors
/// The kernel's; nothing was sent.
pub fn send(endpoint: Slot, message: &Message, deadline: u64) -> Result<(), CallError> {
    transact(Call::Send, endpoint, Some(message), Receive::default(), deadline).map(|_| ())
}

/// A reply: its message and the capabilities that came with it.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// Label and words.
    pub message: Message,
    /// The capabilities.
    pub caps: Caps,
}

/// Calls and waits for the reply, with room for up to `caps` capabilities in it.
///
/// # Errors
/// The kernel's. After `Timeout` or `PeerDiedDelivered` the call may have had its effect.
pub fn call(endpoint: Slot, message: &Message, caps: u8, deadline: u64) -> Result<Answer, CallError> {
    let run = FreeRun::reserve(caps)?;
    let receive = Receive { reply: Slot::NONE, base: run.base(), count: run.count() };
    let arrived = transact(Call::Call, endpoint, Some(message), receive, deadline)?;
    Ok(Answer { message: arrived.message, caps: run.filled(arrived.outcome.caps()) })
}

/// Waits for a Notification that no thread is bound to, and takes its flags.
///
/// # Errors
/// The kernel's: `Timeout` when the deadline passed.
pub fn wait(notification: Slot, deadline: u64) -> Result<u64, CallError> {
    transact(Call::Recv, notification, None, Receive::default(), deadline)
        .map(|arrived| arrived.message.word(0))
}

/// The right to answer one call. Dropping it tells the caller `PeerDied`.
///
/// What came by `send` has a Reply as well, but answering it does nothing: it returns `NoCapability`.
#[derive(Debug)]
pub struct Reply {
    slot: OwnedSlot,
}

impl Reply {
    /// Its slot, for operations that ask about it.
    pub fn slot(&self) -> Slot {
        self.slot.slot()
    }

    /// Answers the call. Never blocks.
    ///
    /// # Errors
    /// `CallerGone`, `NoCapability` (there was no call), or why the message can't be sent: then the caller sees
    /// `PeerDied`.
    pub fn send(self, message: &Message) -> Result<(), CallError> {
        self.try_send(message).map_err(|(error, _)| error)
    }

    /// As [`Reply::send`], but gives the Reply back if this message can't be sent and another might.
    ///
    /// # Errors
    /// The error, and the Reply unless it is used up.
    pub fn try_send(self, message: &Message) -> Result<(), (CallError, Option<Reply>)> {
        match transact(Call::Reply, self.slot.slot(), Some(message), Receive::default(), NO_WAIT) {
            Ok(_) => {
                drop(self.slot.vacated());
                Ok(())
            }
            Err(error) if matches!(error.error, Error::CallerGone | Error::NoCapability) => {
                drop(self.slot.vacated());
                Err((error, None))
            }
            Err(error) => Err((error, Some(self))),
        }
    }
}

/// A message as it was received.
#[derive(Debug)]
pub struct Incoming {
    /// The badge of the capability that the sender used.
    pub badge: u64,
    /// Label and words.
    pub message: Message,
    /// The capabilities that came along.
    pub caps: Caps,
    /// True if the sender waits for an answer; what came by `send` is answered by nothing.
    pub is_call: bool,
    /// For the answer.
    pub reply: Reply,
}

/// What `recv` brings.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "it lives on the receiving thread's stack, one at a time")]
pub enum Received {
    /// A message.
    Message(Incoming),
    /// Flags of the Notification that is bound to this thread.
    Flags(u64),
}

/// Receives from an endpoint, with up to `caps` capabilities a message.
///
/// # Errors
/// The kernel's: `Timeout` when the deadline passed.
pub fn recv(endpoint: Slot, caps: u8, deadline: u64) -> Result<Received, CallError> {
    let run = FreeRun::reserve(caps)?;
    let reply = reserve()?;
    let receive = Receive { reply: reply.slot(), base: run.base(), count: run.count() };
    let arrived = transact(Call::Recv, endpoint, None, receive, deadline)?;
    Ok(received(arrived, reply.filled(), run))
}

fn received(arrived: Arrived, reply: OwnedSlot, run: FreeRun) -> Received {
    if arrived.outcome.is_flags() {
        drop(reply.vacated());
        return Received::Flags(arrived.message.word(0));
    }
    Received::Message(Incoming {
        badge: arrived.badge,
        caps: run.filled(arrived.outcome.caps()),
        message: arrived.message,
        is_call: arrived.outcome.has_reply(),
        reply: Reply { slot: reply },
    })
}

/// Answers a call and receives the next message in one system call.
///
/// # Errors
/// The kernel's; whether the answer went out can't be told then. Use [`Reply::send`] and [`recv`] where that
/// matters.
pub fn reply_recv(
    endpoint: Slot,
    reply: Reply,
    message: &Message,
    caps: u8,
    deadline: u64,
) -> Result<Received, CallError> {
    let run = FreeRun::reserve(caps)?;
    let receive = Receive { reply: reply.slot.slot(), base: run.base(), count: run.count() };
    let arrived = transact(Call::ReplyRecv, endpoint, Some(message), receive, deadline)?;
    Ok(received(arrived, reply.slot, run))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_keeps_its_words() {
        let mut message = Message::with(7, &[1, 2, 3]);
        message.push(4);
        assert_eq!((message.label, message.words()), (7, &[1, 2, 3, 4][..]));
        assert_eq!((message.word(3), message.word(4), message.word(4000)), (4, 0, 0));
    }

    #[test]
    fn a_message_that_is_too_long_is_refused_and_not_cut() {
        let message = Message::with(1, &[9; MAX_WORDS + 1]);
        assert_eq!(message.words().len(), MAX_WORDS);
        assert_eq!(send(Slot(70), &message, NO_WAIT), Err(Error::MessageTooLong.into()));
        let crowded = (0..5).fold(Message::new(1), |message, slot| message.cap(Slot(slot)));
        assert_eq!(send(Slot(70), &crowded, NO_WAIT), Err(Error::MessageTooLong.into()));
    }

    #[test]
    fn calls_without_a_kernel_fail_and_leak_no_slot() {
        for _ in 0..2000 {
            assert_eq!(
                call(Slot(70), &Message::new(1), 4, NO_WAIT).unwrap_err().error,
                Error::InvalidOperation
            );
            assert!(recv(Slot(70), 4, NO_WAIT).is_err());
        }
    }
}
