//! A puppet: a probe that does what each answer to its reports says. So a test decides step by step what a process
//! with a label, a CSpace and threads of its own does, and sees what the kernel says to it.

use crate::{COMMAND, REPORT, WRONG};
use sila_abi::syscall::FOREVER;
use sila_abi::{Error, Slot};
use sila_rt::hostile::syscall;
use sila_rt::ipc::{self, Answer, Message};
use sila_rt::op;
use sila_rt::raw::Registers;

/// Label of an order: make a system call. Words: [`to_words`]; the report has them as they were afterwards.
pub const SYSCALL: u32 = 1;
/// Label of an order: move the capabilities that came with it into the slots in its words, one each.
pub const KEEP: u32 = 2;
/// Label of an order: send a copy of the capability in the slot in word 0 along with the next report.
pub const SHOW: u32 = 3;
/// Label of an order: exit with the code in word 0.
pub const EXIT: u32 = 4;

/// How many words registers take in a message.
pub const REGISTERS: usize = 11;

/// Registers as words of a message.
#[must_use]
pub fn to_words(r: &Registers) -> [u64; REGISTERS] {
    let [a, b, c, d, e, f] = r.words;
    [r.rax, r.rdi, a, b, c, d, e, f, r.r13, r.r14, r.r15]
}

/// The inverse of [`to_words`].
#[must_use]
pub fn from_words(message: &Message) -> Registers {
    let word = |at| message.word(at);
    Registers {
        rax: word(0),
        rdi: word(1),
        words: [word(2), word(3), word(4), word(5), word(6), word(7)],
        r13: word(8),
        r14: word(9),
        r15: word(10),
    }
}

/// Does as it is told until it is told to exit.
pub fn perform() -> u64 {
    let mut report = Message::new(REPORT);
    loop {
        let order = match ipc::call(COMMAND, &report, 4, FOREVER) {
            Ok(order) => order,
            // A commit stopped it here, and a rollback let it go on: it reports that.
            Err(error) if error.error == Error::Suspended => {
                report = Message::new(REPORT);
                continue;
            }
            Err(_) => return WRONG,
        };
        report = match order.message.label {
            SYSCALL => {
                let mut registers = from_words(&order.message);
                syscall(&mut registers);
                Message::with(REPORT, &to_words(&registers))
            }
            KEEP => match keep(order) {
                Some(report) => report,
                None => return WRONG,
            },
            SHOW => Message::new(REPORT).cap(slot(&order.message, 0)),
            EXIT => return order.message.word(0),
            _ => return WRONG,
        };
    }
}

fn slot(message: &Message, at: usize) -> Slot {
    Slot::from_word(message.word(at)).unwrap_or(Slot::NONE)
}

fn keep(mut order: Answer) -> Option<Message> {
    for at in 0..order.message.words().len() {
        let cap = order.caps.take(at)?;
        op::CapMove(cap.slot(), slot(&order.message, at)).ok()?;
        drop(cap.vacated());
    }
    Some(Message::new(REPORT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_pass_through_a_message() {
        let registers = Registers { rax: 1, rdi: 2, words: [3, 4, 5, 6, 7, 8], r13: 9, r14: 10, r15: 11 };
        assert_eq!(from_words(&Message::with(SYSCALL, &to_words(&registers))), registers);
    }
}
