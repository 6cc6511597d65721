//! What ring 3 cannot reach, and that trying ends only the process that tried.

use crate::child::End;
use crate::lab::{Failure, Lab, Outcome, SYSTEM, equal, holds, works};
use alloc::format;
use alloc::vec::Vec;
use probe::{Act, SURVIVED};
use sila_abi::protocol::layout::{MESSAGE_PAGE, STACK_TOP};
use sila_rt::entry::PANIC_EXIT_CODE;
use sila_rt::hostile::INSTRUCTIONS;
use sila_rt::system::processes;

const PAGE_FAULT: u64 = 14;
const PROTECTION: u64 = 13;

/// Bits of a page fault's error code.
const PRESENT: u64 = 1;
const WRITE: u64 = 2;
const USER: u64 = 4;
const FETCH: u64 = 16;

/// Addresses of the kernel: memory, stacks, devices, image, entry area, the last page.
const KERNEL: [u64; 8] = [
    0xffff_8000_0000_0000,
    0xffff_8000_0010_0000,
    0xffff_fe80_0001_0000,
    0xffff_fe90_0000_0000,
    0xffff_ffff_8000_0000,
    0xffff_ffff_c000_0000,
    0xffff_ffff_c020_4000,
    0xffff_ffff_ffff_f000,
];

/// Ids of the processes that run.
fn running() -> Result<Vec<u64>, Failure> {
    let list = works("SystemProcess", processes(SYSTEM))?;
    Ok(list.iter().filter(|record| record.state == 2).map(|record| record.id).collect())
}

/// Lets a probe act, and checks that it and nobody else ended by this vector.
pub(crate) fn offends(lab: &Lab, what: &str, act: Act, words: &[u64], vector: u64) -> Result<End, Failure> {
    let inside = || {
        let before = running()?;
        let end = lab.child()?.run(act, words)?;
        equal("cause and vector of the offender's end", (end.cause, end.code), (3, vector))?;
        equal("the processes that run", running()?, before)?;
        Ok(end)
    };
    inside().map_err(|failure: Failure| failure.at(what))
}

fn faults_at(lab: &Lab, act: Act, addresses: &[u64], flags: u64) -> Outcome {
    for address in addresses {
        let end = offends(lab, &format!("{address:#x}"), act, &[*address], PAGE_FAULT)?;
        equal("the fault's address", end.address, *address)?;
        equal("the fault's kind", end.error & (WRITE | USER | FETCH), flags)?;
    }
    Ok(())
}

pub fn reading_the_kernel_ends_only_the_offender(lab: &Lab) -> Outcome {
    faults_at(lab, Act::Read, &KERNEL, USER)
}

pub fn writing_the_kernel_ends_only_the_offender(lab: &Lab) -> Outcome {
    faults_at(lab, Act::Write, &KERNEL, USER | WRITE)
}

pub fn executing_the_kernel_ends_only_the_offender(lab: &Lab) -> Outcome {
    faults_at(lab, Act::Execute, &KERNEL, USER | FETCH)
}

pub fn unmapped_memory_and_null_end_only_the_offender(lab: &Lab) -> Outcome {
    for address in [0, 8, 0xfff, 0xf_ffff, STACK_TOP, MESSAGE_PAGE + 4096, 0x7fff_ffff_e000] {
        for (act, flags) in [(Act::Read, USER), (Act::Write, USER | WRITE), (Act::Execute, USER | FETCH)] {
            faults_at(lab, act, &[address], flags)?;
        }
    }
    Ok(())
}

pub fn memory_of_another_process_is_not_there(lab: &Lab) -> Outcome {
    let owner = lab.child()?;
    owner.start(Act::Secret, &[], &[])?;
    let (secret, _) = owner.report(0)?;
    let address = secret.word(0);
    holds("the owner's secret lies in user memory", address > 0xf_ffff && address < STACK_TOP)?;
    faults_at(lab, Act::Read, &[address], USER)?;
    faults_at(lab, Act::Write, &[address], USER | WRITE)?;
    let [state, ..] = owner.status()?;
    equal("the state of the owner", state, 2)
}

pub fn own_code_and_constants_cannot_be_written(lab: &Lab) -> Outcome {
    for act in [Act::WriteOwnCode, Act::WriteOwnConstants] {
        let end = offends(lab, &format!("{act:?}"), act, &[], PAGE_FAULT)?;
        equal("the fault's kind", end.error & (PRESENT | WRITE | USER | FETCH), PRESENT | WRITE | USER)?;
    }
    Ok(())
}

pub fn own_data_and_stack_cannot_be_executed(lab: &Lab) -> Outcome {
    for act in [Act::ExecuteOwnData, Act::ExecuteOwnStack] {
        let end = offends(lab, &format!("{act:?}"), act, &[], PAGE_FAULT)?;
        equal("the fault's kind", end.error & (PRESENT | USER | FETCH), PRESENT | USER | FETCH)?;
    }
    Ok(())
}

fn instructions(lab: &Lab, wanted: impl Fn(&str) -> bool) -> Outcome {
    let mut seen = 0;
    for (number, (which, vector)) in INSTRUCTIONS.iter().enumerate() {
        let text = format!("{which:?}");
        if wanted(&text) {
            // TCG faults earlier than a processor does when IRETQ names ring 0.
            let early =
                text == "IretToRing0" && lab.child()?.run(Act::Instruction, &[number as u64])?.code == 14;
            let vector = if early { PAGE_FAULT } else { *vector };
            offends(lab, &text, Act::Instruction, &[number as u64], vector)?;
            seen += 1;
        }
    }
    holds("there are such instructions", seen > 0)
}

fn is_port(text: &str) -> bool {
    text.starts_with("In") && !text.starts_with("Int") && text != "Invlpg" || text.starts_with("Out")
}

fn is_vector(text: &str) -> bool {
    text.starts_with("Int")
}

pub fn privileged_instructions_end_only_the_offender(lab: &Lab) -> Outcome {
    instructions(lab, |text| !is_port(text) && !is_vector(text))
}

pub fn ports_without_a_capability_end_only_the_offender(lab: &Lab) -> Outcome {
    instructions(lab, is_port)
}

pub fn interrupt_vectors_of_the_kernel_are_closed_to_ring_3(lab: &Lab) -> Outcome {
    instructions(lab, is_vector)
}

pub fn jumps_to_addresses_that_are_none_end_only_the_offender(lab: &Lab) -> Outcome {
    for address in [0x8000_0000_0000, 0x8000_0000_0000_0000, 0xffff_7fff_ffff_ffff, 0xdead_beef_dead_beef] {
        offends(lab, &format!("{address:#x}"), Act::Jump, &[address], PROTECTION)?;
    }
    Ok(())
}

pub fn any_stack_pointer_at_a_system_call_does_no_harm(lab: &Lab) -> Outcome {
    // A thread is resumed with a stack pointer of the lower half only; any other ends it.
    for stack in [0x8000_0000_0000_0000, 0xffff_8000_0000_1000, 0xffff_ffff_8000_0000, u64::MAX] {
        offends(lab, &format!("{stack:#x}"), Act::BadStack, &[stack], PROTECTION)?;
    }
    for stack in [0, 8, 0xf_f000, STACK_TOP] {
        lab.child()?
            .exits(Act::BadStack, &[stack], &[], SURVIVED)
            .map_err(|failure| failure.at(&format!("{stack:#x}")))?;
    }
    Ok(())
}

pub fn trap_and_alignment_flags_do_no_harm(lab: &Lab) -> Outcome {
    offends(lab, "the trap flag", Act::TrapFlag, &[0], 1)?;
    // A system call may take the flag away; it must not stop the kernel.
    let end = lab.child()?.run(Act::TrapFlag, &[1])?;
    let expected = (end.cause, end.code) == (1, SURVIVED) || (end.cause, end.code) == (3, 1);
    holds(&format!("the trap flag at a system call: exit or vector 1, not {end:?}"), expected)?;
    // Whether ring 3 gets alignment checks is the kernel's choice; that it lives on is not.
    let before = running()?;
    let end = lab.child()?.run(Act::AlignmentCheck, &[])?;
    let expected = (end.cause, end.code) == (1, SURVIVED) || (end.cause, end.code) == (3, 17);
    holds(&format!("the alignment check flag: exit or vector 17, not {end:?}"), expected)?;
    equal("the processes that run", running()?, before)
}

pub fn the_direction_flag_does_no_harm(lab: &Lab) -> Outcome {
    lab.child()?.exits(Act::DirectionFlag, &[], &[], SURVIVED)
}

pub fn stack_overflow_hits_the_guard_page(lab: &Lab) -> Outcome {
    let end = offends(lab, "recursion", Act::Recurse, &[0], PAGE_FAULT)?;
    let bottom = STACK_TOP - 8 * 4096;
    holds(
        &format!("the fault {:#x} lies in the page below the stack", end.address),
        (bottom - 4096..bottom).contains(&end.address),
    )
}

pub fn a_panic_ends_the_process_with_its_own_code(lab: &Lab) -> Outcome {
    lab.child()?.exits(Act::Panic, &[], &[], PANIC_EXIT_CODE)
}
