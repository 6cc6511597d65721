//! A thread's own processor state: what it finds in its registers when it begins, what it may put there, and what is
//! left of that after other threads have run.

use super::invoke;
use crate::error::CallError;
use crate::slots::make;
use alloc::boxed::Box;
use core::arch::x86_64::__cpuid_count;
use sila_abi::protocol::layout::OWN_PROCESS;
use sila_abi::{Op, Slot};

/// What of the processor's features the tests have to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// XSAVE, switched on by the kernel.
    pub xsave: bool,
    /// The registers ymm0 to ymm15, switched on by the kernel.
    pub avx: bool,
    /// RDFSBASE and its kin.
    pub fsgsbase: bool,
    /// User mode instruction prevention.
    pub umip: bool,
}

/// The processor's features, as it states them to ring 3.
pub fn features() -> Features {
    let (one, seven) = (__cpuid_count(1, 0), __cpuid_count(7, 0));
    let xsave = one.ecx >> 27 & 1 == 1;
    Features {
        xsave,
        avx: xsave && one.ecx >> 28 & 1 == 1 && target::xcr0() & 4 != 0,
        fsgsbase: seven.ebx & 1 == 1,
        umip: seven.ecx >> 2 & 1 == 1,
    }
}

/// XCR0; 0 without XSAVE.
pub fn extended_control() -> u64 {
    if features().xsave { target::xcr0() } else { 0 }
}

/// Words of an area that XSAVE or FXSAVE writes.
pub const AREA_WORDS: usize = 512;
/// The word that holds FCW, FSW and the tags of x87.
pub const X87_CONTROL: usize = 0;
/// The word whose lower half is MXCSR.
pub const MXCSR: usize = 3;
/// The words of the x87 and SSE registers.
pub const REGISTERS: core::ops::Range<usize> = 4..52;
/// The words of the upper halves of ymm0 to ymm15.
pub const UPPER_HALVES: core::ops::Range<usize> = 72..104;
/// FCW as the architecture's default, everything else 0.
pub const CLEAN_X87: u64 = 0x037f;
/// MXCSR as the architecture's default.
pub const CLEAN_MXCSR: u64 = 0x1f80;

/// An area that XSAVE or FXSAVE writes.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub struct Area(pub [u64; AREA_WORDS]);

impl Area {
    /// All zero.
    pub const EMPTY: Self = Self([0; AREA_WORDS]);

    /// A state in which every register holds this pattern, with odd control words.
    pub fn filled(pattern: u64) -> Self {
        let mut area = Self::EMPTY;
        // Round to zero with single precision, all exceptions masked; all eight registers in use.
        area.0[X87_CONTROL] = 0x0c7f | 0xff << 32;
        // Round up, flush to zero, all exceptions masked.
        area.0[MXCSR] = 0xdf80;
        area.0[REGISTERS].fill(pattern);
        // An x87 register has ten bytes, the other six of its place are not loaded.
        (0..8).for_each(|register| area.0[5 + 2 * register] &= 0xffff);
        area.0[64] = 3;
        if features().avx {
            area.0[UPPER_HALVES].fill(pattern.rotate_left(8));
            area.0[64] = 7;
        }
        area
    }

    /// True if the registers of two areas are the same: x87, SSE, and AVX if there is.
    pub fn same(&self, other: &Self) -> bool {
        let equal = |range: core::ops::Range<usize>| self.0.get(range.clone()) == other.0.get(range);
        let low = |area: &Self| area.0[MXCSR] as u32;
        equal(X87_CONTROL..1) && low(self) == low(other) && equal(REGISTERS) && equal(UPPER_HALVES)
    }

    /// What of the state is not as a new thread's must be: 1 x87 control, 2 MXCSR, 4 instruction and data pointers,
    /// 8 x87 or SSE registers, 16 extended registers.
    pub fn unclean(&self) -> u64 {
        let zero =
            |range: core::ops::Range<usize>| self.0.get(range).is_some_and(|w| w.iter().all(|w| *w == 0));
        let wrong = [
            self.0[X87_CONTROL] != CLEAN_X87,
            self.0[MXCSR] & 0xffff_ffff != CLEAN_MXCSR,
            !zero(1..3),
            !zero(REGISTERS),
            !zero(72..AREA_WORDS),
        ];
        wrong.iter().zip(0..).map(|(wrong, bit)| u64::from(*wrong) << bit).sum()
    }
}

/// What a thread stores as its very first act.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub struct Picture {
    /// x87, SSE and all that XCR0 enables.
    pub area: Area,
    /// All general registers but rdi, which holds the argument, and rsp.
    pub general: [u64; 14],
    /// The flags.
    pub flags: u64,
    /// DS, ES, FS, GS, SS, CS.
    pub selectors: [u64; 6],
    /// The bases of FS and GS, where ring 3 can read them.
    pub bases: [u64; 2],
    /// What is to be stored: 1 by XSAVE, 2 the bases.
    pub how: u64,
    /// Becomes 1 when all is stored.
    pub done: u64,
}

impl Picture {
    /// Nothing yet.
    pub fn new() -> Self {
        let found = features();
        Self {
            area: Area::EMPTY,
            general: [0; 14],
            flags: 0,
            selectors: [0; 6],
            bases: [0; 2],
            how: u64::from(found.xsave) | u64::from(found.fsgsbase) << 1,
            done: 0,
        }
    }

    /// What of it is not as a new thread's must be: what [`Area::unclean`] says, 32 general registers, 64 flags, 128
    /// selectors, 256 bases.
    pub fn unclean(&self) -> u64 {
        // SYSRET leaves the thread's own first instruction and flags in rcx and r11.
        let (rcx, r11) = (self.general[2], self.general[9]);
        let (mut others, own) = (self.general, target::picture_entry());
        (others[2], others[9]) = (0, 0);
        let wrong = [
            others != [0; 14] || (rcx != 0 && rcx != own) || (r11 != 0 && r11 != self.flags),
            self.flags != 0x202,
            self.selectors != [0, 0, 0, 0, 0x1b, 0x23],
            self.bases != [0; 2],
        ];
        let own: u64 = wrong.iter().zip(5..).map(|(wrong, bit)| u64::from(*wrong) << bit).sum();
        own | self.area.unclean()
    }
}

impl Default for Picture {
    fn default() -> Self {
        Self::new()
    }
}

/// A picture that a thread is about to take.
pub struct Pending(*mut Picture);

impl Pending {
    /// The picture, once the thread has stored everything.
    pub fn taken(&self) -> Option<Picture> {
        // SAFETY: it is never freed. The thread writes while this one looks, hence volatile; once it has written the
        // last word, it writes no more.
        unsafe { ((&raw const (*self.0).done).read_volatile() == 1).then(|| self.0.read_volatile()) }
    }
}

/// Starts a thread that stores what it finds in its registers, and ends.
///
/// # Errors
/// The kernel's.
pub fn start_picture(priority: u64) -> Result<Pending, CallError> {
    let picture = Box::into_raw(Box::new(Picture::new()));
    let top = Box::leak(Box::new([0u64; 64])).as_mut_ptr_range().end;
    let (argument, top) = (picture.expose_provenance() as u64, top.expose_provenance() as u64);
    let thread = make(|dst: Slot| {
        let words = [target::picture_entry(), top, argument, priority, 0, dst.0.into()];
        invoke(OWN_PROCESS, Op::ThreadCreate, &words)
    })?;
    thread.leak();
    Ok(Pending(picture))
}

#[cfg(not(target_os = "none"))]
mod target {
    pub fn xcr0() -> u64 {
        0
    }
    pub fn picture_entry() -> u64 {
        0
    }
}

#[cfg(target_os = "none")]
pub use target::{
    bases, exercise, flags_after, load_selector, pending_exception, selectors, set_bases, spin_with_flags,
};

#[cfg(target_os = "none")]
mod target {
    use super::{Area, Picture};
    use core::arch::{asm, naked_asm};
    use core::mem::offset_of;
    use sila_abi::syscall::{Call, Tag};

    const YIELD: u64 = Tag::new(Call::Yield, 0, 0, 0).0;

    /// XCR0. CPUID must say that XSAVE is on.
    pub fn xcr0() -> u64 {
        let (low, high): (u32, u32);
        // SAFETY: reads a register; the caller has looked at CPUID.
        unsafe { asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nomem, nostack)) };
        u64::from(high) << 32 | u64::from(low)
    }

    /// Where a thread begins that fills in the [`Picture`] which its argument points to.
    pub fn picture_entry() -> u64 {
        picture as *const () as u64
    }

    #[unsafe(naked)]
    unsafe extern "C" fn picture() -> ! {
        naked_asm!(
            "mov [rdi + {general}], rax", "mov [rdi + {general} + 8], rbx", "mov [rdi + {general} + 16], rcx",
            "mov [rdi + {general} + 24], rdx", "mov [rdi + {general} + 32], rsi", "mov [rdi + {general} + 40], rbp",
            "mov [rdi + {general} + 48], r8", "mov [rdi + {general} + 56], r9", "mov [rdi + {general} + 64], r10",
            "mov [rdi + {general} + 72], r11", "mov [rdi + {general} + 80], r12", "mov [rdi + {general} + 88], r13",
            "mov [rdi + {general} + 96], r14", "mov [rdi + {general} + 104], r15",
            "pushfq", "pop qword ptr [rdi + {flags}]",
            "xor eax, eax",
            "mov ax, ds", "mov [rdi + {selectors}], rax", "mov ax, es", "mov [rdi + {selectors} + 8], rax",
            "mov ax, fs", "mov [rdi + {selectors} + 16], rax", "mov ax, gs", "mov [rdi + {selectors} + 24], rax",
            "mov ax, ss", "mov [rdi + {selectors} + 32], rax", "mov ax, cs", "mov [rdi + {selectors} + 40], rax",
            "test byte ptr [rdi + {how}], 2", "jz 2f",
            "rdfsbase rax", "mov [rdi + {bases}], rax", "rdgsbase rax", "mov [rdi + {bases} + 8], rax",
            "2:", "test byte ptr [rdi + {how}], 1", "jz 3f",
            "mov eax, -1", "mov edx, -1", "xsave64 [rdi]", "jmp 4f",
            "3:", "fxsave64 [rdi]",
            "4:", "mov qword ptr [rdi + {done}], 1",
            "mov eax, {exit}", "syscall", "ud2",
            general = const offset_of!(Picture, general),
            flags = const offset_of!(Picture, flags),
            selectors = const offset_of!(Picture, selectors),
            bases = const offset_of!(Picture, bases),
            how = const offset_of!(Picture, how),
            done = const offset_of!(Picture, done),
            exit = const Tag::new(Call::ExitThread, 0, 0, 0).0 as u32,
        )
    }

    /// Loads a state into the registers, yields so many times, and says what they hold then.
    pub fn exercise(state: &Area, yields: u64) -> Area {
        let (mut before, mut after) = (Area::EMPTY, Area::EMPTY);
        let (state, own, found) = (core::ptr::from_ref(state), &raw mut before, &raw mut after);
        let extended = super::features().xsave;
        // SAFETY: the areas are as large and aligned as the instructions want, the state is one that they take; the
        // registers are as before when compiled code goes on. A Yield changes nothing but registers that are declared.
        unsafe {
            macro_rules! through {
                ($save:literal, $load:literal) => {
                    asm!(
                        "mov eax, -1", "mov edx, -1", concat!($save, " [r14]"),
                        "mov eax, -1", "mov edx, -1", concat!($load, " [r13]"),
                        "2:", "mov eax, {YIELD}", "syscall", "dec r15", "jnz 2b",
                        "mov eax, -1", "mov edx, -1", concat!($save, " [r8]"),
                        "mov eax, -1", "mov edx, -1", concat!($load, " [r14]"),
                        YIELD = const YIELD, in("r13") state, in("r14") own, in("r8") found,
                        inout("r15") yields.max(1) => _, out("rax") _, out("rdx") _, out("rcx") _, out("r11") _,
                        out("rdi") _, out("rsi") _, out("r9") _, out("r10") _, out("r12") _,
                    )
                };
            }
            if extended { through!("xsave64", "xrstor64") } else { through!("fxsave64", "fxrstor64") }
        }
        after
    }

    /// Divides by zero on x87 with that exception unmasked, yields, and then waits for the exception, which faults.
    pub fn pending_exception(yields: u64) {
        let control = 0x037bu16;
        // SAFETY: none: this is the attack. It faults.
        unsafe {
            asm!("fninit", "fldcw word ptr [{c}]", "fld1", "fldz", "fdivp st(1), st", "2:", "mov eax, {YIELD}", "syscall",
                "dec r15", "jnz 2b", "fwait", "fninit", c = in(reg) &control, YIELD = const YIELD,
                inout("r15") yields.max(1) => _, out("rax") _, out("rcx") _, out("r11") _, out("rdi") _, out("rsi") _,
                out("rdx") _, out("r10") _, out("r8") _, out("r9") _, out("r12") _)
        }
    }

    /// Sets flags beside the interrupt flag, makes a Yield, and returns the flags that are set then.
    pub fn flags_after(flags: u64) -> u64 {
        let after: u64;
        // SAFETY: the flags that compiled code relies on are cleared before it goes on.
        unsafe {
            asm!("push {f}", "popfq", "syscall", "pushfq", "pop {f}", "push 0x202", "popfq",
                f = inout(reg) flags | 0x202 => after, inout("rax") YIELD => _, out("rcx") _, out("r11") _,
                out("rdi") _, out("rsi") _, out("rdx") _, out("r10") _, out("r8") _, out("r9") _, out("r12") _)
        }
        after
    }

    /// Sets flags and runs on with them for so many rounds, without a system call.
    pub fn spin_with_flags(flags: u64, rounds: u64) {
        // SAFETY: as in `flags_after`.
        unsafe {
            asm!("push {f}", "popfq", "2:", "dec {r}", "jnz 2b", "push 0x202", "popfq",
                f = in(reg) flags | 0x202, r = inout(reg) rounds.max(1) => _)
        }
    }

    /// Sets the bases of FS and GS.
    pub fn set_bases(fs: u64, gs: u64) {
        // SAFETY: nothing in these programs uses either. A base that is not canonical faults, as it is meant to.
        unsafe { asm!("wrfsbase {}", "wrgsbase {}", in(reg) fs, in(reg) gs, options(nomem, nostack)) }
    }

    /// The bases of FS and GS.
    pub fn bases() -> (u64, u64) {
        let (fs, gs);
        // SAFETY: reads registers.
        unsafe { asm!("rdfsbase {}", "rdgsbase {}", out(reg) fs, out(reg) gs, options(nomem, nostack)) };
        (fs, gs)
    }

    /// Loads a selector into segment register number `which`: DS, ES, FS, GS, SS.
    pub fn load_selector(which: u64, selector: u64) {
        // SAFETY: ring 3 needs none of these but SS, which takes no other value than its own.
        unsafe {
            match which {
                0 => asm!("mov ds, {:x}", in(reg) selector),
                1 => asm!("mov es, {:x}", in(reg) selector),
                2 => asm!("mov fs, {:x}", in(reg) selector),
                3 => asm!("mov gs, {:x}", in(reg) selector),
                _ => asm!("mov ss, {:x}", in(reg) selector),
            }
        }
    }

    /// DS, ES, FS, GS and SS.
    pub fn selectors() -> [u64; 5] {
        let (ds, es, fs, gs, ss): (u64, u64, u64, u64, u64);
        // SAFETY: reads registers.
        unsafe {
            asm!("mov {:r}, ds", "mov {:r}, es", "mov {:r}, fs", "mov {:r}, gs", "mov {:r}, ss",
                out(reg) ds, out(reg) es, out(reg) fs, out(reg) gs, out(reg) ss, options(nomem, nostack))
        }
        [ds, es, fs, gs, ss].map(|selector| selector & 0xffff)
    }
}
