//! The system call instruction and the registers around it.

use sila_abi::syscall::{Call, Tag};

/// The registers of a system call, before and after ([`sila_abi::syscall`] has the table).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// Tag, then outcome.
    pub rax: u64,
    /// Slot, then badge.
    pub rdi: u64,
    /// Words 0 to 5.
    pub words: [u64; 6],
    /// Where to receive.
    pub r13: u64,
    /// The deadline.
    pub r14: u64,
    /// Capabilities to send.
    pub r15: u64,
}

/// Makes a system call with exactly these registers.
///
/// # Safety
/// The call must not change memory that Rust objects use: an unmapping, a mapping or a new thread is for
/// the caller to answer for. (Capabilities and messages alone can't do harm here.)
#[cfg(target_os = "none")]
#[inline(always)]
pub unsafe fn syscall(registers: &mut Registers) {
    // SAFETY: the instruction's effects on registers are declared below, memory counts as clobbered, the
    // kernel uses no user stack; the caller answers for what the call itself does.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") registers.rax,
            inlateout("rdi") registers.rdi,
            inlateout("rsi") registers.words[0],
            inlateout("rdx") registers.words[1],
            inlateout("r10") registers.words[2],
            inlateout("r8") registers.words[3],
            inlateout("r9") registers.words[4],
            inlateout("r12") registers.words[5],
            in("r13") registers.r13,
            in("r14") registers.r14,
            in("r15") registers.r15,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
}

/// On a host there is no kernel: every call is refused as an unknown one.
///
/// # Safety
/// None needed; the signature is the target's.
#[cfg(not(target_os = "none"))]
pub unsafe fn syscall(registers: &mut Registers) {
    registers.rax = sila_abi::syscall::Outcome::error(sila_abi::Error::InvalidOperation, 0).0;
}

/// The time-stamp counter, for measurements: what it counts, and how fast, differs between machines.
#[inline(always)]
pub fn time_stamp() -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        let (low, high): (u64, u64);
        // SAFETY: the instruction changes the two registers only. Memory counts as clobbered, so that what is
        // measured stays between two of these.
        unsafe { core::arch::asm!("rdtsc", out("rax") low, out("rdx") high, options(nostack)) };
        high << 32 | low
    }
    #[cfg(not(target_arch = "x86_64"))]
    0
}

/// Executes exactly `2 * rounds` instructions, and a few around them.
#[inline(never)]
pub fn count_down(rounds: u64) {
    let rounds = rounds.max(1);
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a loop in one register.
    unsafe {
        core::arch::asm!("2: dec {0}", "jnz 2b", inout(reg) rounds => _, options(nostack));
    }
}

/// Lets other threads of the same priority run.
pub fn yield_now() {
    let mut registers = Registers { rax: Tag::new(Call::Yield, 0, 0, 0).0, ..Registers::default() };
    // SAFETY: Yield changes no memory.
    unsafe { syscall(&mut registers) };
}

/// Ends the process with an exit code.
pub fn exit(code: u64) -> ! {
    let mut registers = Registers {
        rax: Tag::new(Call::Exit, 1, 0, 0).0,
        words: [code, 0, 0, 0, 0, 0],
        ..Registers::default()
    };
    loop {
        // SAFETY: Exit ends the process; nothing of it runs on.
        unsafe { syscall(&mut registers) };
    }
}

/// Ends the calling thread only.
pub fn exit_thread() -> ! {
    let mut registers = Registers { rax: Tag::new(Call::ExitThread, 0, 0, 0).0, ..Registers::default() };
    loop {
        // SAFETY: the thread's stack is never used again, and nothing else borrows from it: what a spawned
        // thread runs is 'static.
        unsafe { syscall(&mut registers) };
    }
}
