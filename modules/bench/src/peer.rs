//! The peer: answers every call with as many words, deletes what capabilities come, and returns notifications.

use crate::bench::{ECHO, FLAG_PLAY, FLAG_STOP, LABEL_PLAY, PING, PONG, invocation};
use sila_abi::syscall::{Call, FAULT_RESUME, FAULT_SET_INSTRUCTION, FOREVER, Outcome, Receive, Tag};
use sila_abi::{Op, Slot};
use sila_rt::hostile::{UNDEFINED_LEN, syscall, timed, wait};
use sila_rt::raw::Registers;

const REPLY: Slot = Slot(40);
const RECEIVED: Slot = Slot(41);

/// What an outcome says of a plain call besides its length: a Reply came along, no capability, no fault, label 0.
const PLAIN: u64 = !0xff00;

/// Serves for ever; the exit code is the error that ended it.
pub fn serve() -> u64 {
    let receive = Receive { reply: REPLY, base: RECEIVED, count: 1 }.to_word();
    let mut registers = Registers {
        rax: Tag::new(Call::Recv, 0, 0, 0).0,
        rdi: ECHO.0.into(),
        r13: receive,
        r14: FOREVER,
        ..Registers::default()
    };
    let plain = Outcome::message(0, 0, 0).with_reply().0;
    let with_cap = Outcome::message(0, 1, 0).with_reply().0;
    let fault = Outcome::message(6, 0, 0).with_reply().with_fault().0;
    loop {
        syscall(&mut registers);
        // The words are the answer: they stay where they are.
        while registers.rax & PLAIN == plain {
            registers.rax = (registers.rax & 0xff00) | Call::ReplyRecv as u64;
            registers.rdi = ECHO.0.into();
            syscall(&mut registers);
        }
        while registers.rax == with_cap {
            delete_received();
            registers.rax = Call::ReplyRecv as u64;
            registers.rdi = ECHO.0.into();
            syscall(&mut registers);
        }
        while registers.rax == fault {
            let next = registers.words[3].wrapping_add(UNDEFINED_LEN);
            registers.rax = Tag::new(Call::ReplyRecv, 3, 0, 0).0;
            registers.rdi = ECHO.0.into();
            (registers.words[0], registers.words[1], registers.words[2]) =
                (FAULT_RESUME, FAULT_SET_INSTRUCTION, next);
            syscall(&mut registers);
        }
        if let Err(end) = serve_oddly(&mut registers) {
            return end;
        }
    }
}

#[inline(always)]
fn delete_received() {
    let mut delete = invocation(RECEIVED, Op::CapDelete, &[]);
    syscall(&mut delete);
}

/// Prepares the answer to a call that is none of the measured ones.
#[inline(never)]
fn serve_oddly(registers: &mut Registers) -> Result<(), u64> {
    let outcome = Outcome(registers.rax);
    if outcome.status().is_err() {
        return Err(outcome.number().into());
    }
    if outcome.caps() != 0 {
        delete_received();
    }
    registers.rax = Tag::new(Call::ReplyRecv, outcome.words() as u8, 0, 0).0;
    registers.rdi = ECHO.0.into();
    if outcome.is_fault() {
        let next = registers.words[3].wrapping_add(UNDEFINED_LEN);
        registers.rax = Tag::new(Call::ReplyRecv, 3, 0, 0).0;
        registers.words = [FAULT_RESUME, FAULT_SET_INSTRUCTION, next, 0, 0, 0];
    }
    if outcome.label() == LABEL_PLAY {
        let mut answer = *registers;
        answer.rax = Tag::new(Call::Reply, 0, 0, 0).0;
        answer.rdi = REPLY.0.into();
        syscall(&mut answer);
        play();
    }
    // What was sent, or answered already, has no Reply.
    if outcome.label() == LABEL_PLAY || !outcome.has_reply() {
        registers.rax = Tag::new(Call::Recv, 0, 0, 0).0;
    }
    Ok(())
}

/// Returns every ping until one says stop.
fn play() {
    loop {
        let (outcome, flags) = wait(PING);
        if Outcome(outcome).status().is_err() || flags & FLAG_STOP != 0 {
            return;
        }
        timed(&mut [invocation(PONG, Op::Signal, &[FLAG_PLAY])]);
    }
}
