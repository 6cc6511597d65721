//! The extended state of ring-3 threads: x87, SSE, AVX and AVX-512, saved and restored whole.
//!
//! Owns: XCR0 and the choice between XSAVE and FXSAVE. The kernel itself is built without any of these
//! registers. Invariants: the state never exceeds one frame; no thread sees another's registers, not
//! even the x87 pointers that some processors leave behind.

use core::arch::asm;
use kernel::cpu::Features;

use super::regs::cpuid;

/// x87, SSE, AVX and the three parts of AVX-512.
const WANTED: u64 = 0b1110_0111;

/// How this machine saves a thread's extended state.
#[derive(Clone, Copy)]
pub struct Fpu {
    /// XCR0, or 0 where only FXSAVE exists.
    mask: u64,
    /// The processor leaves x87 pointers behind when no exception is pending.
    leaks_pointers: bool,
}

impl Fpu {
    /// A placeholder until [`Fpu::start`] has run.
    pub const OFF: Self = Self { mask: 0, leaks_pointers: false };

    /// Chooses the components and sets XCR0. CR4.OSXSAVE is set already if the feature is there.
    pub fn start(features: Features) -> Self {
        let leaks_pointers = !features.contains(Features::X87_POINTERS);
        if !features.contains(Features::XSAVE) {
            return Self { mask: 0, leaks_pointers };
        }
        let leaf = cpuid(0xd, 0);
        let mut mask = (u64::from(leaf.edx) << 32 | u64::from(leaf.eax)) & WANTED | 3;
        if mask & 0b1110_0000 != 0b1110_0000 {
            mask &= 0b111;
        }
        set_xcr0(mask);
        // Leaf 0xD tells the size for what XCR0 enables: step down until it fits a frame.
        for smaller in [0b111, 0b11] {
            if cpuid(0xd, 0).ebx <= 4096 {
                break;
            }
            mask &= smaller;
            set_xcr0(mask);
        }
        Self { mask, leaks_pointers }
    }

    /// The enabled components (XCR0), 0 for FXSAVE.
    pub fn mask(&self) -> u64 {
        self.mask
    }

    /// Writes a clean state into a zeroed frame.
    pub fn init(frame: &mut [u64; 512]) {
        frame[0] = 0x037f;
        frame[3] = 0x1f80;
    }

    /// True if XSAVE is used.
    pub fn extends(&self) -> bool {
        self.mask != 0
    }

    /// True if the processor leaves x87 pointers behind when it restores a state.
    pub fn leaks_pointers(&self) -> bool {
        self.leaks_pointers
    }

    /// Saves the registers into one area and loads them from another.
    ///
    /// # Safety
    /// Both must be areas of threads, written only by `init` and by exchanging.
    pub unsafe fn exchange(&self, from: u64, to: u64) {
        // SAFETY: the caller's promise, for areas that FXSAVE writes as for those that XSAVE does.
        unsafe {
            match (self.extends(), self.leaks_pointers) {
                (true, leaks) => exchange_extended(from, to, leaks),
                (false, leaks) => {
                    asm!("fxsave64 [{}]", in(reg) from, options(nostack, preserves_flags));
                    if leaks {
                        hide_pointers();
                    }
                    asm!("fxrstor64 [{}]", in(reg) to, options(nostack, preserves_flags));
                }
            }
        }
    }
}

/// As [`Fpu::exchange`], where XSAVE is used and x87 pointers have to be hidden, or not. All that XCR0 enables: the
/// masks say so.
///
/// # Safety
/// As for [`Fpu::exchange`].
#[inline(always)]
pub unsafe fn exchange_extended(from: u64, to: u64, hide: bool) {
    // SAFETY: the areas are whole frames, aligned, and the enabled state fits them; what is loaded is a valid state
    // (the caller's promise), so no instruction faults.
    unsafe {
        asm!("xsave64 [{}]", in(reg) from, in("eax") -1, in("edx") -1, options(nostack, preserves_flags));
        if hide {
            hide_pointers();
        }
        asm!("xrstor64 [{}]", in(reg) to, in("eax") -1, in("edx") -1, options(nostack, preserves_flags));
    }
}

/// Gives the x87 pointers a value that says nothing, where restoring may not overwrite them.
///
/// # Safety
/// The registers must have been saved.
#[inline(always)]
unsafe fn hide_pointers() {
    static ZERO: u32 = 0;
    // SAFETY: the caller's promise; the state is clean of exceptions when the load executes.
    unsafe {
        asm!("fnclex", "ffree st(7)", "fild dword ptr [{}]", sym ZERO, options(nostack, preserves_flags));
    }
}

fn set_xcr0(mask: u64) {
    // SAFETY: only bits that CPUID offers, x87 and SSE always among them; CR4.OSXSAVE is set.
    unsafe {
        asm!("xsetbv", in("ecx") 0, in("eax") mask as u32, in("edx") (mask >> 32) as u32, options(nomem, nostack));
    }
}
