//! `counter`: a small stateful service. `add(n)` adds, `read()` reads; a sum that does not fit is refused.
//!
//! This is the whole service as a pure state machine; the binary only carries messages to it.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod command;

use core::fmt;

/// What a call asks for. The number is the first word of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Opcode {
    /// `add(n)`: adds `n`, answers the new value.
    Add = 1,
    /// `read()`: answers the value.
    Read = 2,
}

impl Opcode {
    /// The opcode with this number.
    #[must_use]
    pub const fn from_word(word: u64) -> Option<Self> {
        match word {
            1 => Some(Self::Add),
            2 => Some(Self::Read),
            _ => None,
        }
    }

    /// The opcode that a person calls so.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "add" => Some(Self::Add),
            "read" => Some(Self::Read),
            _ => None,
        }
    }

    /// The number that crosses the boundary.
    #[must_use]
    pub const fn word(self) -> u64 {
        self as u64
    }

    /// How many argument words it takes.
    #[must_use]
    pub const fn arguments(self) -> usize {
        match self {
            Self::Add => 1,
            Self::Read => 0,
        }
    }
}

/// Why a call was refused. The numbers are stable; a refused call has changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum CounterError {
    /// The message names no operation of this service.
    UnknownOpcode = 1,
    /// The operation takes another number of arguments.
    ArgumentCount = 2,
    /// The sum does not fit in 64 bits.
    Overflow = 3,
}

impl CounterError {
    /// The stable number of this error.
    #[must_use]
    pub const fn code(self) -> u16 {
        self as u16
    }

    /// The error with this number.
    #[must_use]
    pub const fn from_code(code: u16) -> Option<Self> {
        match code {
            1 => Some(Self::UnknownOpcode),
            2 => Some(Self::ArgumentCount),
            3 => Some(Self::Overflow),
            _ => None,
        }
    }

    /// What happened, as the end of a sentence.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::UnknownOpcode => "counter has no such operation (it has add and read)",
            Self::ArgumentCount => "add takes one number, read takes none",
            Self::Overflow => "the sum does not fit in 64 bits",
        }
    }
}

impl fmt::Display for CounterError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.describe())
    }
}

impl core::error::Error for CounterError {}

/// The service's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    value: u64,
}

impl Counter {
    /// A counter at zero.
    #[must_use]
    pub const fn new() -> Self {
        Self { value: 0 }
    }

    /// Adds, and answers the new value.
    ///
    /// # Errors
    /// `Overflow`; the value is as it was.
    pub fn add(&mut self, amount: u64) -> Result<u64, CounterError> {
        self.value = self.value.checked_add(amount).ok_or(CounterError::Overflow)?;
        Ok(self.value)
    }

    /// The value.
    #[must_use]
    pub const fn read(&self) -> u64 {
        self.value
    }

    /// Answers one message: the opcode's word and the argument words.
    ///
    /// # Errors
    /// The call is refused and has changed nothing.
    pub fn handle(&mut self, opcode: u64, arguments: &[u64]) -> Result<u64, CounterError> {
        let opcode = Opcode::from_word(opcode).ok_or(CounterError::UnknownOpcode)?;
        match (opcode, arguments) {
            (Opcode::Add, [amount]) => self.add(*amount),
            (Opcode::Read, []) => Ok(self.read()),
            _ => Err(CounterError::ArgumentCount),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn counter_starts_at_zero_and_adds() {
        let mut counter = Counter::new();
        assert_eq!(counter.handle(Opcode::Read.word(), &[]), Ok(0));
        assert_eq!(counter.handle(Opcode::Add.word(), &[5]), Ok(5));
        assert_eq!(counter.handle(Opcode::Add.word(), &[0]), Ok(5));
        assert_eq!(counter.handle(Opcode::Read.word(), &[]), Ok(5));
    }

    #[test]
    fn counter_refuses_overflow_and_keeps_its_value() {
        let mut counter = Counter::new();
        assert_eq!(counter.add(u64::MAX - 1), Ok(u64::MAX - 1));
        assert_eq!(counter.add(2), Err(CounterError::Overflow));
        assert_eq!(counter.read(), u64::MAX - 1);
        assert_eq!(counter.add(1), Ok(u64::MAX));
    }

    #[test]
    fn counter_refuses_unknown_opcodes_and_wrong_argument_counts() {
        let mut counter = Counter::new();
        for opcode in [0, 3, u64::MAX] {
            assert_eq!(counter.handle(opcode, &[1]), Err(CounterError::UnknownOpcode));
        }
        for opcode in [Opcode::Add, Opcode::Read] {
            for count in (0..4).filter(|count| *count != opcode.arguments()) {
                let arguments = vec![1; count];
                assert_eq!(counter.handle(opcode.word(), &arguments), Err(CounterError::ArgumentCount));
            }
        }
        assert_eq!(counter, Counter::new());
    }

    #[test]
    fn counter_names_and_numbers_agree() {
        for (name, opcode) in [("add", Opcode::Add), ("read", Opcode::Read)] {
            assert_eq!(Opcode::from_name(name), Some(opcode));
            assert_eq!(Opcode::from_word(opcode.word()), Some(opcode));
        }
        assert_eq!(Opcode::from_name("ADD"), None);
        for code in 0..=u16::MAX {
            assert!(CounterError::from_code(code).is_none_or(|error| error.code() == code));
        }
    }

    proptest! {
        #[test]
        fn counter_equals_a_wide_sum_of_the_accepted_adds(amounts in prop::collection::vec(any::<u64>(), 0..40)) {
            let mut counter = Counter::new();
            let mut model: u128 = 0;
            for amount in amounts {
                let sum = model + u128::from(amount);
                match counter.add(amount) {
                    Ok(value) => { model = sum; prop_assert_eq!(u128::from(value), model); }
                    Err(_) => prop_assert!(sum > u128::from(u64::MAX)),
                }
                prop_assert_eq!(u128::from(counter.read()), model);
            }
        }
    }
}
