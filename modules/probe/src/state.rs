//! Acts on the processor's state: registers that are filled, looked at, or must not be had.

use probe::{COMMAND, REPORT, SURVIVED, WRONG};
use sila_abi::protocol::layout::OWN_THREAD;
use sila_abi::syscall::FOREVER;
use sila_rt::hostile::state::{self, Area};
use sila_rt::hostile::system::{SystemInstruction, system_instruction};
use sila_rt::hostile::{self, Instruction};
use sila_rt::ipc::{self, Answer, Message};
use sila_rt::raw::yield_now;
use sila_rt::{clock, op};

/// Flags that a thread keeps: the arithmetic ones, DF and ID, the interrupt flag and the bit that is one.
const KEPT: u64 = 0x20_0ed7;

/// What a new thread finds in its registers: [`SURVIVED`] if nothing of anybody.
pub fn fresh() -> u64 {
    let Ok(status) = op::ThreadStatus(OWN_THREAD) else { return WRONG };
    let Ok(pending) = state::start_picture(status.words[1]) else { return WRONG };
    let until = clock::after(clock::SECOND);
    while clock::now().is_some_and(|now| now < until) {
        yield_now();
        if let Some(picture) = pending.taken() {
            let unclean = picture.unclean();
            return if unclean == 0 { SURVIVED } else { 0x1000 | unclean };
        }
    }
    WRONG
}

/// Fills its registers with a pattern, yields, and looks at them, until a time.
pub fn dirty(pattern: u64, until: u64) -> u64 {
    let filled = Area::filled(pattern);
    if ipc::call(COMMAND, &Message::new(REPORT), 0, FOREVER).is_err() {
        return WRONG;
    }
    while clock::now().is_some_and(|now| now < until) {
        if !state::exercise(&filled, 100).same(&filled) {
            return WRONG;
        }
    }
    SURVIVED
}

/// Sets these flags, makes a system call, and then runs on with them for a while: the flags that it still has after
/// the call and must not have.
pub fn flags(flags: u64, rounds: u64) -> u64 {
    let left = state::flags_after(flags) & !KEPT;
    state::spin_with_flags(flags, rounds);
    if left == 0 { SURVIVED } else { left }
}

/// Sets the bases of FS and GS and looks at them until a time.
pub fn bases(fs: u64, gs: u64, until: u64) -> u64 {
    if !state::features().fsgsbase {
        return SURVIVED;
    }
    if state::bases() != (0, 0) {
        return WRONG;
    }
    state::set_bases(fs, gs);
    while clock::now().is_some_and(|now| now < until) {
        yield_now();
        if state::bases() != (fs, gs) {
            return WRONG;
        }
    }
    SURVIVED
}

/// Loads a selector, lets others run, and looks at all: SS is as ever, the others are null or what was loaded.
pub fn selector(which: u64, selector: u64) -> u64 {
    state::load_selector(which, selector);
    for _ in 0..10 {
        yield_now();
    }
    let [data @ .., stack] = state::selectors();
    let fine = stack == 0x1b && data.iter().all(|found| *found == 0 || *found == selector);
    if fine { SURVIVED } else { WRONG }
}

/// Executes an instruction on system state.
pub fn system(number: u64) -> u64 {
    if let Some(which) = SystemInstruction::from_number(number) {
        system_instruction(which);
    }
    SURVIVED
}

/// Makes its thread's faults calls to the endpoint that came along, faults, and goes on.
pub fn faulty(order: &mut Answer) -> u64 {
    let Some(handler) = order.caps.take(0) else { return WRONG };
    if op::ThreadSetFaultEndpoint(OWN_THREAD, handler.slot()).is_err() {
        return WRONG;
    }
    hostile::instruction(Instruction::Ud2);
    SURVIVED
}
