//! The driver's endpoint: workers leave capabilities there and get others, and some have their faults handled.

use alloc::vec::Vec;
use sila_abi::Error;
use sila_abi::protocol::layout::OWN_POOL;
use sila_abi::syscall::{Call, MAX_CAPS, Outcome, Receive, Slot, Tag, pack_caps};
use sila_rt::hostile::syscall;
use sila_rt::raw::Registers;
use sila_rt::slots::{FreeRun, FreeSlot, OwnedSlot, make, reserve};
use sila_rt::{CallError, op};

/// The endpoint, and where its messages' capabilities go.
pub struct Hub {
    endpoint: OwnedSlot,
    room: FreeRun,
    reply: FreeSlot,
}

/// What came.
pub struct Mail {
    /// Its label.
    pub label: u32,
    /// Words 0 to 5.
    pub words: [u64; 6],
    /// The capabilities that came along.
    pub caps: Vec<OwnedSlot>,
    /// It wants an answer.
    pub call: bool,
    /// It is the kernel's report of a fault.
    pub fault: bool,
}

impl Hub {
    /// Makes the endpoint.
    pub fn new() -> Result<Self, CallError> {
        Ok(Hub {
            endpoint: make(|dst| op::EndpointCreate(OWN_POOL, 0, 0, dst))?,
            room: FreeRun::reserve(MAX_CAPS as u8)?,
            reply: reserve()?,
        })
    }

    /// The endpoint's capability.
    pub fn slot(&self) -> Slot {
        self.endpoint.slot()
    }

    /// The next message, if one comes before the deadline.
    pub fn receive(&self, deadline: u64) -> Result<Option<Mail>, CallError> {
        let want = Receive { reply: self.reply.slot(), base: self.room.base(), count: self.room.count() };
        let mut registers = Registers {
            rax: Tag::new(Call::Recv, 0, 0, 0).0,
            rdi: self.endpoint.slot().0.into(),
            r13: want.to_word(),
            r14: deadline,
            ..Registers::default()
        };
        syscall(&mut registers);
        let (outcome, words) = (Outcome(registers.rax), registers.words);
        match outcome.status() {
            Err(Error::Timeout) => return Ok(None),
            Err(error) => return Err(CallError { error, words }),
            Ok(()) => {}
        }
        let mut caps = Vec::new();
        for at in 0..outcome.caps() as u16 {
            caps.push(make(|dst| op::CapMove(Slot(self.room.base().0 + at), dst))?);
        }
        let (call, fault) = (outcome.has_reply(), outcome.is_fault());
        Ok(Some(Mail { label: outcome.label(), words, caps, call, fault }))
    }

    /// Answers the message that came last, without capabilities if it has no room for them. True if it was taken.
    pub fn answer(&self, words: &[u64], caps: &[Slot]) -> bool {
        self.try_answer(words, caps) || (!caps.is_empty() && self.try_answer(words, &[])) || self.drop_reply()
    }

    fn try_answer(&self, words: &[u64], caps: &[Slot]) -> bool {
        let slots = core::array::from_fn(|i| caps.get(i).copied().unwrap_or_default());
        let count = caps.len().min(MAX_CAPS) as u8;
        let mut registers = Registers {
            rax: Tag::new(Call::Reply, words.len().min(6) as u8, count, 0).0,
            rdi: self.reply.slot().0.into(),
            r15: pack_caps(slots),
            ..Registers::default()
        };
        registers.words.iter_mut().zip(words).for_each(|(to, from)| *to = *from);
        syscall(&mut registers);
        Outcome(registers.rax).status().is_ok()
    }

    /// Lets the caller learn that nobody will answer.
    pub fn drop_reply(&self) -> bool {
        // An answer that came too late has emptied the slot.
        let _ = op::CapDelete(self.reply.slot());
        false
    }
}
