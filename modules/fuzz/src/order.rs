//! What a worker is told to do, and what it says of it: words in memory that it shares with the driver.

use sila_abi::syscall::{Call, Tag};

/// Words of a message page that an order names; the others follow from its fill.
pub const TAIL: usize = 6;
/// Words of an order.
pub const ORDER_WORDS: usize = 15 + TAIL;
/// Words of an answer.
pub const ANSWER_WORDS: usize = 9;
/// Bytes that an order takes in the block; its answer follows.
pub const ANSWER_AT: usize = 256;
/// Bytes of a lane's part of the block.
pub const LANE_BYTES: usize = 512;

const _: () = assert!(ORDER_WORDS * 8 <= ANSWER_AT && ANSWER_AT + ANSWER_WORDS * 8 <= LANE_BYTES);

/// What kind of thing an order is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Act {
    /// A system call with its registers.
    Call,
    /// Read a byte at the address in `rdi`.
    Read,
    /// Write a byte there.
    Write,
    /// An instruction that is none.
    Undefined,
}

impl Act {
    const ALL: [Act; 4] = [Act::Call, Act::Read, Act::Write, Act::Undefined];
}

/// What a worker is told to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Order {
    /// Which kind.
    pub act: Act,
    /// `rax`, `rdi`, words 0 to 5, `r13`, `r14`, `r15`.
    pub registers: [u64; 11],
    /// Words 6 up of the message page.
    pub tail: [u64; TAIL],
    /// Where those behind them come from.
    pub fill: u64,
}

impl Order {
    /// A system call.
    pub fn call(tag: Tag, slot: u64, words: [u64; 6]) -> Self {
        let [a, b, c, d, e, f] = words;
        let registers = [tag.0, slot, a, b, c, d, e, f, 0, 0, 0];
        Order { act: Act::Call, registers, tail: [0; TAIL], fill: 0 }
    }

    /// An operation on an object.
    pub fn invoke(slot: u64, op: sila_abi::Op, words: [u64; 6]) -> Self {
        Self::call(Tag::new(Call::Invoke, 6, 0, op as u32), slot, words)
    }

    /// Its tag.
    pub fn tag(&self) -> Tag {
        let [tag, ..] = self.registers;
        Tag(tag)
    }

    /// The words that stand for it, with its number.
    pub fn encode(&self, number: u64) -> [u64; ORDER_WORDS] {
        let mut words = [0; ORDER_WORDS];
        let act = Act::ALL.iter().position(|a| *a == self.act).unwrap_or(0) as u64;
        let all = [number, act, self.fill].into_iter().chain(self.registers).chain(self.tail);
        words.iter_mut().zip(all).for_each(|(to, from)| *to = from);
        words
    }

    /// The inverse.
    pub fn decode(words: &[u64; ORDER_WORDS]) -> (u64, Self) {
        let at = |i: usize| words.get(i).copied().unwrap_or(0);
        let act = Act::ALL.get(at(1) as usize).copied().unwrap_or(Act::Call);
        let registers = core::array::from_fn(|i| at(3 + i));
        let tail = core::array::from_fn(|i| at(14 + i));
        (at(0), Order { act, registers, tail, fill: at(2) })
    }
}

/// Words as bytes, for memory that is shared.
pub fn to_bytes<const N: usize, const B: usize>(words: &[u64; N]) -> [u8; B] {
    let mut bytes = [0; B];
    let all = words.iter().flat_map(|w| w.to_le_bytes());
    bytes.iter_mut().zip(all).for_each(|(to, from)| *to = from);
    bytes
}

/// The inverse.
pub fn from_bytes<const N: usize>(bytes: &[u8]) -> [u64; N] {
    let mut words = [0; N];
    for (word, chunk) in words.iter_mut().zip(bytes.chunks(8)) {
        let mut raw = [0; 8];
        raw.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
        *word = u64::from_le_bytes(raw);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_survive_their_way_through_memory() {
        for act in Act::ALL {
            let registers = core::array::from_fn(|i| i as u64 * 0x0101_0101_0101_0101);
            let order = Order { act, registers, tail: [9, 8, 7, 6, 5, 4], fill: 77 };
            let bytes: [u8; ORDER_WORDS * 8] = to_bytes(&order.encode(5));
            assert_eq!(Order::decode(&from_bytes(&bytes)), (5, order));
        }
    }
}
