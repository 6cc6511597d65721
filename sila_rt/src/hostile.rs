//! What only a hostile program does, for the in-guest tests: each act is one that the kernel must stop, or
//! survive. Feature `hostile`; nothing but the test programs has it.
//!
//! The functions are safe to call in the sense that the calling process may die of them, as it is meant to.

pub mod state;
pub mod system;

use crate::error::CallError;
use crate::op::{self, Words};
use crate::raw::Registers;
use sila_abi::{Op, Slot};

/// Any operation with any words.
///
/// # Errors
/// The kernel's. An operation that changes this process's own mappings is the caller's to answer for.
pub fn invoke(slot: Slot, operation: Op, words: &[u64]) -> Result<Words, CallError> {
    // SAFETY: test programs map and unmap in other processes, or at addresses that nothing of theirs uses.
    unsafe { op::invoke(slot, operation, words) }
}

/// Any system call with any registers.
pub fn syscall(registers: &mut Registers) {
    // SAFETY: as for `invoke`.
    unsafe { crate::raw::syscall(registers) }
}

/// Reads what the calling thread's message page holds, from word 6 on.
pub fn page_words(words: &mut [u64]) {
    if let Some(page) = crate::page::MessagePage::current() {
        page.read(words);
    }
}

/// Writes words into the calling thread's message page, from word 6 on.
pub fn set_page_words(words: &[u64]) {
    if let Some(page) = crate::page::MessagePage::current() {
        page.write(words);
    }
}

/// Makes system calls one after the other; returns how far the time-stamp counter went from the instruction before
/// the first one's stub to the one after the last's. Of each call only the outcome is read.
#[cfg(target_os = "none")]
#[inline(always)]
pub fn timed<const N: usize>(calls: &mut [Registers; N]) -> u64 {
    let start = crate::raw::time_stamp();
    for registers in calls {
        registers.rax = lean(registers);
    }
    crate::raw::time_stamp().wrapping_sub(start)
}

/// Makes a system call as a stub made for it would: no register is loaded but those that the tag asks for, and none is
/// read but the outcome. Where the tag is known to the compiler, so is what this comes to.
#[cfg(target_os = "none")]
#[inline(always)]
fn lean(r: &Registers) -> u64 {
    let mut outcome = r.rax;
    let w = &r.words;
    macro_rules! call {
        ([$($register:tt = $value:expr),*] [$($lost:tt),*]) => {
            // SAFETY: as for `invoke`.
            unsafe {
                core::arch::asm!(
                    "syscall", inlateout("rax") outcome, inlateout("rdi") r.rdi => _,
                    $(inlateout($register) $value => _,)* $(lateout($lost) _,)*
                    lateout("rcx") _, lateout("r11") _, options(nostack),
                );
            }
        };
    }
    // Invocations have neither deadline nor capabilities to send or receive.
    match (r.rax as u8 == sila_abi::syscall::Call::Invoke as u8, r.rax >> 8 & 0xff) {
        (true, 0) => call!([] ["rsi", "rdx", "r10", "r8", "r9", "r12"]),
        (true, 1) => call!(["rsi" = w[0]] ["rdx", "r10", "r8", "r9", "r12"]),
        (true, 2) => call!(["rsi" = w[0], "rdx" = w[1]] ["r10", "r8", "r9", "r12"]),
        (true, 3) => call!(["rsi" = w[0], "rdx" = w[1], "r10" = w[2]] ["r8", "r9", "r12"]),
        (true, 4) => call!(["rsi" = w[0], "rdx" = w[1], "r10" = w[2], "r8" = w[3]] ["r9", "r12"]),
        (true, 5) => call!(["rsi" = w[0], "rdx" = w[1], "r10" = w[2], "r8" = w[3], "r9" = w[4]]["r12"]),
        (true, _) => {
            call!(["rsi" = w[0], "rdx" = w[1], "r10" = w[2], "r8" = w[3], "r9" = w[4], "r12" = w[5]] [])
        }
        (false, 0) => call!(["r13" = r.r13, "r14" = r.r14] ["rsi", "rdx", "r10", "r8", "r9", "r12"]),
        (false, _) => call!(
            ["rsi" = w[0], "rdx" = w[1], "r10" = w[2], "r8" = w[3], "r9" = w[4], "r12" = w[5],
            "r13" = r.r13, "r14" = r.r14, "r15" = r.r15] []
        ),
    }
    outcome
}

/// Waits for a Notification's flags: the outcome and the flags.
#[cfg(target_os = "none")]
#[inline(always)]
pub fn wait(notification: Slot) -> (u64, u64) {
    let mut outcome = sila_abi::syscall::Tag::new(sila_abi::syscall::Call::Recv, 0, 0, 0).0;
    let flags: u64;
    // SAFETY: as for `invoke`.
    unsafe {
        core::arch::asm!(
            "syscall", inlateout("rax") outcome, inlateout("rdi") u64::from(notification.0) => _,
            in("r13") 0, in("r14") sila_abi::syscall::FOREVER, lateout("rsi") flags,
            lateout("rdx") _, lateout("r10") _, lateout("r8") _, lateout("r9") _, lateout("r12") _,
            lateout("rcx") _, lateout("r11") _, options(nostack),
        );
    }
    (outcome, flags)
}

/// Measures a call whose words are in their registers already, whatever they hold, and are not read afterwards: returns
/// how far the time-stamp counter went from the instruction before its stub to the one after, and the outcome.
#[cfg(target_os = "none")]
#[inline(always)]
pub fn timed_call(tag: u64, slot: Slot, receive: u64, caps: u64) -> (u64, u64) {
    let mut outcome = tag;
    let start = crate::raw::time_stamp();
    // SAFETY: a call changes registers, which are declared, and the message page, which counts as memory.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") outcome, inlateout("rdi") u64::from(slot.0) => _,
            in("r13") receive, in("r14") sila_abi::syscall::FOREVER, in("r15") caps,
            lateout("rsi") _, lateout("rdx") _, lateout("r10") _, lateout("r8") _, lateout("r9") _, lateout("r12") _,
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    (crate::raw::time_stamp().wrapping_sub(start), outcome)
}

/// Measures an undefined instruction in the same way: whoever handles the thread's faults lets it go on
/// [`UNDEFINED_LEN`] bytes later.
#[cfg(target_os = "none")]
#[inline(always)]
pub fn timed_fault() -> u64 {
    let start = crate::raw::time_stamp();
    // SAFETY: the instruction does nothing but fault. A handler that lets the thread go on changes at most memory,
    // which counts as clobbered.
    unsafe { core::arch::asm!("ud2", options(nostack)) };
    crate::raw::time_stamp().wrapping_sub(start)
}

/// Length of the instruction in [`timed_fault`].
pub const UNDEFINED_LEN: u64 = 2;

/// Reads a byte anywhere.
pub fn read(address: u64) -> u8 {
    // SAFETY: none: this is the attack. It faults, or reads a byte.
    unsafe { core::ptr::with_exposed_provenance::<u8>(address as usize).read_volatile() }
}

/// Writes a byte anywhere.
pub fn write(address: u64, value: u8) {
    // SAFETY: none: this is the attack. It faults, or hits what the caller chose.
    unsafe { core::ptr::with_exposed_provenance_mut::<u8>(address as usize).write_volatile(value) }
}

/// Instructions that ring 3 may not execute, or that must not reach the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
#[expect(missing_docs, reason = "each names its instruction")]
pub enum Instruction {
    Hlt = 0,
    Cli = 1,
    Sti = 2,
    MovToCr3 = 3,
    MovFromCr0 = 4,
    MovToCr4 = 5,
    Wrmsr = 6,
    Rdmsr = 7,
    Lgdt = 8,
    Lidt = 9,
    Ltr = 10,
    Invlpg = 11,
    MovToDr7 = 12,
    Clts = 13,
    Swapgs = 14,
    Sysret = 15,
    InPic = 16,
    OutPic = 17,
    OutResults = 18,
    OutPci = 19,
    OutExit = 20,
    Int8 = 21,
    Int14 = 22,
    Int32 = 23,
    Int128 = 24,
    Wbinvd = 25,
    Xsetbv = 26,
    Ud2 = 27,
    Divide = 28,
    IretToRing0 = 29,
}

/// Every instruction with the vector that it must end in.
pub const INSTRUCTIONS: &[(Instruction, u64)] = &[
    (Instruction::Hlt, 13),
    (Instruction::Cli, 13),
    (Instruction::Sti, 13),
    (Instruction::MovToCr3, 13),
    (Instruction::MovFromCr0, 13),
    (Instruction::MovToCr4, 13),
    (Instruction::Wrmsr, 13),
    (Instruction::Rdmsr, 13),
    (Instruction::Lgdt, 13),
    (Instruction::Lidt, 13),
    (Instruction::Ltr, 13),
    (Instruction::Invlpg, 13),
    (Instruction::MovToDr7, 13),
    (Instruction::Clts, 13),
    (Instruction::Swapgs, 13),
    (Instruction::Sysret, 13),
    (Instruction::InPic, 13),
    (Instruction::OutPic, 13),
    (Instruction::OutResults, 13),
    (Instruction::OutPci, 13),
    (Instruction::OutExit, 13),
    (Instruction::Int8, 13),
    (Instruction::Int14, 13),
    (Instruction::Int32, 13),
    (Instruction::Int128, 13),
    (Instruction::Wbinvd, 13),
    (Instruction::Xsetbv, 13),
    (Instruction::Ud2, 6),
    (Instruction::Divide, 0),
    (Instruction::IretToRing0, 13),
];

#[cfg(target_os = "none")]
pub use target::{
    alignment_check, execute, flags_survive, instruction, jump, preserve_vectors, syscall_with_stack,
    trap_flag,
};

#[cfg(target_os = "none")]
mod target {
    use super::Instruction;
    use core::arch::asm;

    /// Calls an address.
    pub fn execute(address: u64) {
        // SAFETY: none: this is the attack. It faults.
        unsafe { asm!("call {}", in(reg) address, clobber_abi("C")) }
    }

    /// Jumps to an address by `ret`, which takes any value.
    pub fn jump(address: u64) -> ! {
        // SAFETY: none: this is the attack. It faults.
        unsafe { asm!("push {}", "ret", in(reg) address, options(noreturn)) }
    }

    /// Executes an instruction that must fault.
    pub fn instruction(which: Instruction) {
        let table = [0u64; 2];
        let table = table.as_ptr();
        // SAFETY: none: these are attacks. Each faults.
        unsafe {
            match which {
                Instruction::Hlt => asm!("hlt"),
                Instruction::Cli => asm!("cli"),
                Instruction::Sti => asm!("sti"),
                Instruction::MovToCr3 => asm!("mov cr3, {}", in(reg) 0u64),
                Instruction::MovFromCr0 => asm!("mov {}, cr0", out(reg) _),
                Instruction::MovToCr4 => asm!("mov cr4, {}", in(reg) 0u64),
                Instruction::Wrmsr => {
                    asm!("wrmsr", in("ecx") 0xc000_0082u32, in("eax") 0, in("edx") 0)
                }
                Instruction::Rdmsr => {
                    asm!("rdmsr", in("ecx") 0xc000_0082u32, out("eax") _, out("edx") _)
                }
                Instruction::Lgdt => asm!("lgdt [{}]", in(reg) table),
                Instruction::Lidt => asm!("lidt [{}]", in(reg) table),
                Instruction::Ltr => asm!("ltr {:x}", in(reg) 0u64),
                Instruction::Invlpg => asm!("invlpg [{}]", in(reg) table),
                Instruction::MovToDr7 => asm!("mov dr7, {}", in(reg) 0u64),
                Instruction::Clts => asm!("clts"),
                Instruction::Swapgs => asm!("swapgs"),
                Instruction::Sysret => asm!("sysretq"),
                Instruction::InPic => asm!("in al, 0x21", out("al") _),
                Instruction::OutPic => asm!("out 0x21, al", in("al") 0xffu8),
                Instruction::OutResults => asm!("out 0xe9, al", in("al") b'x'),
                Instruction::OutPci => asm!("out dx, eax", in("dx") 0xcf8u16, in("eax") 0x8000_0000u32),
                Instruction::OutExit => asm!("out dx, al", in("dx") 0xf4u16, in("al") 0x10u8),
                Instruction::Int8 => asm!("int 8"),
                Instruction::Int14 => asm!("int 14"),
                Instruction::Int32 => asm!("int 32"),
                Instruction::Int128 => asm!("int 128"),
                Instruction::Wbinvd => asm!("wbinvd"),
                Instruction::Xsetbv => asm!("xsetbv", in("ecx") 0, in("eax") 1, in("edx") 0),
                Instruction::Ud2 => asm!("ud2"),
                Instruction::Divide => {
                    asm!("div {0:e}", in(reg) 0u32, inout("eax") 1 => _, inout("edx") 0 => _)
                }
                Instruction::IretToRing0 => iret_to_ring0(),
            }
        }
    }

    /// Returns to the kernel's code selector.
    fn iret_to_ring0() {
        // SAFETY: none: this is an attack. It faults.
        unsafe {
            asm!("push 0x10", "push rsp", "pushfq", "push 0x08", "lea {0}, [rip + 2f]", "push {0}", "iretq",
                "2:", out(reg) _)
        }
    }

    /// A Yield with this stack pointer; it comes back with the stack as it was.
    pub fn syscall_with_stack(stack: u64) {
        // SAFETY: the stack pointer is restored before anything uses it; Yield changes nothing.
        unsafe {
            asm!("mov r15, rsp", "mov rsp, {stack}", "syscall", "mov rsp, r15", stack = in(reg) stack,
                inout("rax") 0u64 => _, out("rcx") _, out("r11") _, out("r15") _, out("rdi") _, out("rsi") _,
                out("rdx") _, out("r10") _, out("r8") _, out("r9") _, out("r12") _)
        }
    }

    /// Sets the trap flag: the next instruction ends in a debug exception, unless the kernel takes it for its own.
    pub fn trap_flag(with_syscall: bool) {
        // SAFETY: none: this is the attack.
        unsafe {
            if with_syscall {
                asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq", "syscall", "nop",
                    inout("rax") 0u64 => _, out("rcx") _, out("r11") _, out("rdi") _, out("rsi") _, out("rdx") _,
                out("r10") _, out("r8") _, out("r9") _, out("r12") _)
            } else {
                asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq", "nop", "nop")
            }
        }
    }

    /// Sets the alignment check flag, makes a system call, reads unaligned, and clears it. True if it lived.
    pub fn alignment_check() -> bool {
        let words = [0u64; 2];
        // SAFETY: the read lies inside the array; it faults or not.
        unsafe {
            asm!("pushfq", "or qword ptr [rsp], 0x40000", "popfq", "syscall", "mov {t}, [{p} + 1]", "pushfq",
                "and qword ptr [rsp], 0xfffffffffffbffff", "popfq", p = in(reg) words.as_ptr(), t = out(reg) _,
                inout("rax") 0u64 => _, out("rcx") _, out("r11") _, out("rdi") _, out("rsi") _, out("rdx") _,
                out("r10") _, out("r8") _, out("r9") _, out("r12") _)
        }
        true
    }

    /// Makes a Yield with the direction flag set; true if the flag is as it was afterwards and all went well.
    pub fn flags_survive() -> bool {
        let after: u64;
        // SAFETY: the direction flag is cleared again before compiled code runs.
        unsafe {
            asm!("std", "syscall", "pushfq", "pop {f}", "cld", f = out(reg) after,
                inout("rax") 0u64 => _, out("rcx") _, out("r11") _, out("rdi") _, out("rsi") _, out("rdx") _,
                out("r10") _, out("r8") _, out("r9") _, out("r12") _)
        }
        after & 0x400 != 0
    }

    /// Fills every vector register with a pattern and looks at them `rounds` times; true if they stayed so.
    pub fn preserve_vectors(pattern: u64, rounds: u64) -> bool {
        let bad: u64;
        // SAFETY: only registers that are declared; no memory.
        unsafe {
            asm!(
                "movq xmm0, {p}", "punpcklqdq xmm0, xmm0",
                "movdqa xmm1, xmm0", "movdqa xmm2, xmm0", "movdqa xmm3, xmm0", "movdqa xmm4, xmm0",
                "movdqa xmm5, xmm0", "movdqa xmm6, xmm0", "movdqa xmm7, xmm0", "movdqa xmm8, xmm0",
                "movdqa xmm9, xmm0", "movdqa xmm10, xmm0", "movdqa xmm11, xmm0", "movdqa xmm12, xmm0",
                "movdqa xmm13, xmm0", "movdqa xmm14, xmm0",
                "xor {b}, {b}",
                "2:",
                "movq {t}, xmm0", "xor {t}, {p}", "or {b}, {t}",
                "movq {t}, xmm7", "xor {t}, {p}", "or {b}, {t}",
                "movhlps xmm15, xmm14", "movq {t}, xmm15", "xor {t}, {p}", "or {b}, {t}",
                "dec {r}", "jnz 2b",
                p = in(reg) pattern, b = out(reg) bad, t = out(reg) _, r = inout(reg) rounds.max(1) => _,
                out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _,
                out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
                out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
            )
        }
        bad == 0
    }
}
