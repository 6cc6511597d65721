//! One stub per operation of the ABI, made from its table.
//!
//! A stub has the operation's own name and arguments: slots for capabilities and destinations, plain words
//! for the rest. A slot is a plain number: who deletes or moves a capability that another part of the program
//! owns ([`crate::slots::OwnedSlot`]) takes it away from there. Operations that change the address space or start a thread are `unsafe`; [`crate::memory`]
//! and [`crate::thread`] wrap them.

use crate::error::CallError;
use crate::page::MessagePage;
use crate::raw::{Registers, syscall};
use sila_abi::syscall::{Call, FOREVER, MAX_WORDS, Outcome, REGISTER_WORDS, Tag};
use sila_abi::{Error, Op, Slot};

/// What an operation returned.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Words {
    /// Words 0 to 5.
    pub words: [u64; 6],
    /// How many words there are, those of the message page included.
    pub len: usize,
    /// The label.
    pub label: u32,
}

trait Argument {
    fn word(self) -> u64;
}
impl Argument for u64 {
    fn word(self) -> u64 {
        self
    }
}
impl Argument for Slot {
    fn word(self) -> u64 {
        self.0.into()
    }
}

/// Any operation with any words, up to 120.
///
/// # Safety
/// As for [`syscall`]: an operation that maps, unmaps or starts a thread is for the caller to answer for.
pub unsafe fn invoke(slot: Slot, op: Op, words: &[u64]) -> Result<Words, CallError> {
    let mut registers = Registers { rdi: slot.word(), r14: FOREVER, ..Registers::default() };
    if words.len() > MAX_WORDS {
        return Err(Error::MessageTooLong.into());
    }
    if let Some(tail) = words.get(REGISTER_WORDS..) {
        MessagePage::current().ok_or(Error::MessageTooLong)?.write(tail);
    }
    for (register, word) in registers.words.iter_mut().zip(words) {
        *register = *word;
    }
    registers.rax = Tag::new(Call::Invoke, words.len() as u8, 0, op as u32).0;
    // SAFETY: passed on to the caller.
    unsafe { syscall(&mut registers) };
    let outcome = Outcome(registers.rax);
    outcome.status().map_err(|error| CallError { error, words: registers.words })?;
    Ok(Words { words: registers.words, len: outcome.words(), label: outcome.label() })
}

/// Operations with long results or arguments, whose words 6 and up are copied from the message page at once.
/// Returns how many words of `out` were filled.
pub fn invoke_long(slot: Slot, op: Op, words: &[u64], out: &mut [u64]) -> Result<usize, CallError> {
    if matches!(op, Op::RegionMap | Op::MappingUnmap | Op::MappingProtect | Op::ThreadCreate) {
        return Err(Error::InvalidOperation.into());
    }
    // SAFETY: the operations that touch the address space or start threads were refused just now.
    let result = unsafe { invoke(slot, op, words)? };
    let count = result.len.min(out.len()).min(MAX_WORDS);
    for (to, from) in out.iter_mut().zip(result.words).take(count) {
        *to = from;
    }
    if count > REGISTER_WORDS
        && let (Some(page), Some(tail)) = (MessagePage::current(), out.get_mut(REGISTER_WORDS..count))
    {
        page.read(tail);
    }
    Ok(count)
}

macro_rules! type_of {
    (Word) => {
        u64
    };
    (Dst) => {
        Slot
    };
    (Cap) => {
        Slot
    };
}

macro_rules! stub {
    (RegionMap $($rest:tt)*) => { stub!(@unsafe RegionMap $($rest)*); };
    (MappingUnmap $($rest:tt)*) => { stub!(@unsafe MappingUnmap $($rest)*); };
    (MappingProtect $($rest:tt)*) => { stub!(@unsafe MappingProtect $($rest)*); };
    (ThreadCreate $($rest:tt)*) => { stub!(@unsafe ThreadCreate $($rest)*); };
    (@unsafe $name:ident $doc:literal ($($arg:ident: $kind:ident),*)) => {
        #[doc = $doc]
        ///
        /// # Safety
        /// The caller answers for what becomes of the memory: no live object may be unmapped or made read-only,
        /// no Region mapped where something else expects its own, no thread started but at code made for it.
        #[allow(non_snake_case, clippy::too_many_arguments, reason = "the table's own names and arguments")]
        pub unsafe fn $name(slot: Slot $(, $arg: type_of!($kind))*) -> Result<Words, CallError> {
            // SAFETY: passed on to the caller.
            unsafe { invoke(slot, Op::$name, &[$($arg.word()),*]) }
        }
    };
    ($name:ident $doc:literal ($($arg:ident: $kind:ident),*)) => {
        #[doc = $doc]
        #[allow(non_snake_case, clippy::too_many_arguments, reason = "the table's own names and arguments")]
        pub fn $name(slot: Slot $(, $arg: type_of!($kind))*) -> Result<Words, CallError> {
            // SAFETY: none of these operations changes the address space or starts a thread.
            unsafe { invoke(slot, Op::$name, &[$($arg.word()),*]) }
        }
    };
}

macro_rules! stubs {
    ($($num:literal $name:ident($obj:ident, $right:ident, $mode:ident)
        ($($arg:ident: $kind:ident $(($($inner:ident),*))?),*) $doc:literal;)*) => {
        $( stub!($name $doc ($($arg: $kind),*)); )*
    };
}

sila_abi::for_each_operation!(stubs);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stubs_are_refused_where_there_is_no_kernel() {
        let error = ClockNow(Slot(5)).unwrap_err();
        assert_eq!(error.error, Error::InvalidOperation);
        assert_eq!(PoolCreate(Slot(3), 1, 2, Slot(70)).unwrap_err().error, Error::InvalidOperation);
    }

    #[test]
    fn the_safe_long_form_refuses_operations_on_memory() {
        for op in [Op::RegionMap, Op::MappingUnmap, Op::MappingProtect, Op::ThreadCreate] {
            assert_eq!(invoke_long(Slot(1), op, &[], &mut []), Err(Error::InvalidOperation.into()));
        }
    }
}
