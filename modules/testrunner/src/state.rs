//! The processor's state of a thread: its own, clean at first, and nothing of it reaches the kernel or another thread.

use crate::isolation::offends;
use crate::lab::{Failure, Lab, Outcome, equal, holds, refused, works};
use alloc::format;
use probe::{Act, SURVIVED};
use sila_abi::protocol::layout::{OWN_POOL, OWN_PROCESS};
use sila_abi::syscall::{FAULT_RESUME, FAULT_SET_INSTRUCTION, FAULT_SET_STACK};
use sila_abi::{Error, Op};
use sila_rt::clock::{self, MILLISECOND};
use sila_rt::hostile::state::{extended_control, features};
use sila_rt::hostile::system::{SYSTEM_INSTRUCTIONS, SystemInstruction, TELLTALES};
use sila_rt::hostile::{INSTRUCTIONS, Instruction, UNDEFINED_LEN, invoke};
use sila_rt::ipc::{self, Message, Received};
use sila_rt::op;
use sila_rt::slots::make;

const PROTECTION: u64 = 13;
const UNDEFINED: u64 = 6;
const PAGE_FAULT: u64 = 14;
const X87: u64 = 16;

/// Two patterns that have no bit in common.
const PATTERNS: [u64; 2] = [0x5555_aaaa_0f0f_3333, 0xaaaa_5555_f0f0_cccc];

pub fn registers_of_others_do_not_reach_a_new_thread(lab: &Lab) -> Outcome {
    // Made before anything runs: that takes longer than the rest.
    let (others, fresh) = ([lab.child()?, lab.child()?], [lab.child()?, lab.child()?, lab.child()?]);
    let until = clock::after(300 * MILLISECOND);
    for (other, pattern) in others.iter().zip(PATTERNS) {
        other.start(Act::Dirty, &[pattern, until], &[])?;
        other.report(0)?;
    }
    fresh.iter().try_for_each(|child| child.exits(Act::Fresh, &[], &[], SURVIVED))?;
    others.iter().try_for_each(|other| other.exited(SURVIVED))
}

pub fn floating_point_and_vector_state_is_each_threads_own(lab: &Lab) -> Outcome {
    let children = [lab.child()?, lab.child()?];
    let until = clock::after(200 * MILLISECOND);
    for (child, pattern) in children.iter().zip(PATTERNS) {
        child.start(Act::Dirty, &[pattern, until], &[])?;
        child.report(0)?;
    }
    children.iter().try_for_each(|child| child.exited(SURVIVED))
}

pub fn a_pending_floating_point_exception_is_the_threads_own(lab: &Lab) -> Outcome {
    let (other, offender) = (lab.child()?, lab.child()?);
    other.start(Act::Dirty, &[PATTERNS[0], clock::after(200 * MILLISECOND)], &[])?;
    other.report(0)?;
    let end = offender.run(Act::PendingException, &[100])?;
    equal("cause and vector of the offender's end", (end.cause, end.code), (3, X87))?;
    other.exited(SURVIVED)
}

/// Flags that ring 3 can try to set beside the arithmetic ones: DF, IOPL, NT, RF, AC, VIF, VIP, ID, and all at once. (The
/// trap flag has its own test.)
const FLAGS: [u64; 9] = [1 << 10, 3 << 12, 1 << 14, 1 << 16, 1 << 18, 1 << 19, 1 << 20, 1 << 21, 0x003d_7400];

pub fn flags_that_a_thread_sets_do_not_outlive_its_system_call(lab: &Lab) -> Outcome {
    for flags in FLAGS {
        lab.child()?
            .exits(Act::Flags, &[flags, 100_000], &[], SURVIVED)
            .map_err(|failure| failure.at(&format!("flags {flags:#x}")))?;
    }
    Ok(())
}

pub fn flags_of_one_thread_do_not_reach_another(lab: &Lab) -> Outcome {
    let (spinner, fresh) = (lab.child()?, [lab.child()?, lab.child()?, lab.child()?]);
    // Long enough to be preempted, which it is by whoever looks at its own.
    spinner.start(Act::Flags, &[0x003d_7400, 8_000_000], &[])?;
    fresh.iter().try_for_each(|child| child.exits(Act::Fresh, &[], &[], SURVIVED))?;
    spinner.exited(SURVIVED)
}

pub fn segment_bases_are_each_threads_own(lab: &Lab) -> Outcome {
    let children = [lab.child()?, lab.child()?, lab.child()?];
    let until = clock::after(100 * MILLISECOND);
    for (child, bases) in children.iter().zip([[1, 2], [0x7fff_ffff_ffff, 0], [0, 0xffff_8000_0000_0000]]) {
        let [fs, gs] = bases;
        child.start(Act::Bases, &[fs, gs, until], &[])?;
    }
    children.iter().try_for_each(|child| child.exited(SURVIVED))
}

pub fn segment_bases_that_are_no_addresses_do_no_harm(lab: &Lab) -> Outcome {
    for base in [0x8000_0000_0000, 0x8000_0000_0000_0000, 0xffff_7fff_ffff_ffff] {
        for (fs, gs) in [(base, 0), (0, base)] {
            // A processor refuses them; TCG takes them, and then they are the thread's own like any others.
            let children = [lab.child()?, lab.child()?];
            let until = clock::after(20 * MILLISECOND);
            children[0].start(Act::Bases, &[fs, gs, until], &[])?;
            children[1].start(Act::Bases, &[1, 2, until], &[])?;
            let end = children[0].end()?;
            let fine = matches!((end.cause, end.code), (3, PROTECTION) | (1, SURVIVED));
            holds(&format!("FS {fs:#x}, GS {gs:#x} end in a fault or in nothing, not in {end:?}"), fine)?;
            children[1].exited(SURVIVED)?;
        }
    }
    Ok(())
}

pub fn segment_selectors_do_no_harm(lab: &Lab) -> Outcome {
    let named = |which: u64, selector: u64| format!("selector {selector:#x} in register {which}");
    for which in 0..4 {
        // Null, and what ring 3 runs with.
        for selector in [0, 3, 0x1b, 0x23] {
            lab.child()?
                .exits(Act::Selector, &[which, selector], &[], SURVIVED)
                .map_err(|failure| failure.at(&named(which, selector)))?;
        }
        // The kernel's data and code, the task's state, a local table, beyond the table's end.
        for selector in [0x10, 0x0b, 0x2b, 0x7, 0xfffb] {
            offends(lab, &named(which, selector), Act::Selector, &[which, selector], PROTECTION)?;
        }
    }
    lab.child()?.exits(Act::Selector, &[4, 0x1b], &[], SURVIVED)?;
    for selector in [0, 3, 0x10, 0x18, 0x23, 0xfffb] {
        offends(lab, &named(4, selector), Act::Selector, &[4, selector], PROTECTION)?;
    }
    Ok(())
}

fn system(lab: &Lab, which: SystemInstruction, vector: u64) -> Outcome {
    offends(lab, &format!("{which:?}"), Act::System, &[which as u64], vector).map(|_| ())
}

pub fn instructions_on_system_state_end_only_the_offender(lab: &Lab) -> Outcome {
    for (which, vector) in SYSTEM_INSTRUCTIONS {
        if *which == SystemInstruction::RetfToRing0 {
            // TCG faults earlier than a processor does: it cannot read what lies behind.
            let end = lab.child()?.run(Act::System, &[*which as u64])?;
            let fine = end.cause == 3 && matches!(end.code, PROTECTION | PAGE_FAULT);
            holds(&format!("{which:?} ends in a fault, not {end:?}"), fine)?;
            continue;
        }
        system(lab, *which, *vector)?;
    }
    Ok(())
}

pub fn instructions_that_tell_where_the_kernel_keeps_its_tables_are_refused(lab: &Lab) -> Outcome {
    // Where there is no UMIP, every system lets them through.
    if !features().umip {
        return Ok(());
    }
    TELLTALES.iter().try_for_each(|which| system(lab, *which, PROTECTION))
}

pub fn the_extended_control_register_stays_as_it_is(lab: &Lab) -> Outcome {
    let before = extended_control();
    if !features().xsave {
        return Ok(());
    }
    holds(&format!("XCR0 {before:#x} has x87 and SSE"), before & 3 == 3)?;
    // What holds user state, and nothing that only rings below use.
    holds(&format!("XCR0 {before:#x} has nothing that is not switched"), before & !0xe7 == 0)?;
    let at = INSTRUCTIONS.iter().position(|(which, _)| *which == Instruction::Xsetbv).unwrap_or(0);
    offends(lab, "XSETBV", Act::Instruction, &[at as u64], PROTECTION)?;
    equal("XCR0 afterwards", extended_control(), before)
}

pub fn the_answer_to_a_fault_sets_nothing_but_instruction_and_stack(lab: &Lab) -> Outcome {
    let handler = works("EndpointCreate", make(|dst| op::EndpointCreate(OWN_POOL, 0, 0, dst)))?;
    let child = lab.child()?;
    child.start(Act::Faulty, &[], &[handler.slot()])?;
    let Received::Message(fault) =
        works("the fault", ipc::recv(handler.slot(), 0, clock::after(clock::SECOND)))?
    else {
        return Err(Failure::new("the fault", "a message", "flags"));
    };
    let (vector, instruction) = (fault.message.word(0), fault.message.word(3));
    let (stack, flags) = (fault.message.word(4), fault.message.word(5));
    equal("the vector", vector, UNDEFINED)?;
    equal("flags beside the arithmetic ones", flags & !0x8d5, 0x202)?;
    let mut reply = fault.reply;
    let bad = |edits: u64, instruction: u64, stack: u64, error: Error| (edits, instruction, stack, error);
    let mut answers = alloc::vec![
        bad(4, instruction, stack, Error::InvalidArgument),
        bad(8, instruction, stack, Error::InvalidArgument),
        bad(u64::MAX, instruction, stack, Error::InvalidArgument),
    ];
    for address in [0x7fff_ffff_f000, 0x8000_0000_0000, 0xffff_8000_0000_0000, u64::MAX] {
        answers.push(bad(FAULT_SET_INSTRUCTION, address, stack, Error::BadAddress));
        answers.push(bad(FAULT_SET_STACK, instruction, address, Error::BadAddress));
    }
    for (edits, instruction, stack, error) in answers {
        let message = Message::with(0, &[FAULT_RESUME, edits, instruction, stack]);
        reply = match reply.try_send(&message) {
            Err((found, Some(left))) if found.error == error => left,
            other => {
                let got = format!("{:?}", other.map_err(|(found, _)| found.error));
                return Err(Failure::new(
                    format!("edits {edits:#x}, {instruction:#x}, {stack:#x}"),
                    error.name(),
                    got,
                ));
            }
        };
    }
    let onward = Message::with(0, &[FAULT_RESUME, FAULT_SET_INSTRUCTION, instruction + UNDEFINED_LEN, 0]);
    works("the answer that resumes it", reply.send(&onward))?;
    child.exited(SURVIVED)
}

pub fn threads_begin_at_addresses_of_ring_3_only(_: &Lab) -> Outcome {
    let good = 0x10_0000;
    for address in [0x8000_0000_0000, 0xffff_8000_0000_0000, 0xffff_ffff_8000_0000, u64::MAX] {
        for (entry, stack) in [(address, good), (good, address)] {
            let thread = make(|dst| {
                let words = [entry, stack, 0, 1, 0, dst.0.into()];
                invoke(OWN_PROCESS, Op::ThreadCreate, &words)
            });
            refused(&format!("entry {entry:#x}, stack {stack:#x}"), thread, Error::BadAddress)?;
        }
    }
    Ok(())
}
