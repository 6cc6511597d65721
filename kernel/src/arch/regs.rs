//! Thin wrappers around single instructions: ports, MSRs, control registers, CPUID, the clock.
//!
//! Owns no state. Each wrapper that can break memory safety is `unsafe` and says what it asks for.

use core::arch::asm;
use core::arch::x86_64::{__cpuid, __cpuid_count, _rdtsc, CpuidResult};
use x86_64::instructions::port::Port;
use x86_64::registers::model_specific::Msr;

/// Model-specific registers that the kernel names.
pub mod msr {
    pub const APIC_BASE: u32 = 0x1b;
    pub const SPEC_CTRL: u32 = 0x48;
    pub const PRED_CMD: u32 = 0x49;
    pub const ARCH_CAPABILITIES: u32 = 0x10a;
    pub const PAT: u32 = 0x277;
    pub const EFER: u32 = 0xc000_0080;
    pub const STAR: u32 = 0xc000_0081;
    pub const LSTAR: u32 = 0xc000_0082;
    /// Code selector of SYSENTER.
    pub const SYSENTER_CS: u32 = 0x174;
    /// Stack pointer of SYSENTER.
    pub const SYSENTER_ESP: u32 = 0x175;
    /// Instruction pointer of SYSENTER.
    pub const SYSENTER_EIP: u32 = 0x176;
    pub const CSTAR: u32 = 0xc000_0083;
    pub const SFMASK: u32 = 0xc000_0084;
    pub const FS_BASE: u32 = 0xc000_0100;
    pub const GS_BASE: u32 = 0xc000_0101;
    pub const KERNEL_GS_BASE: u32 = 0xc000_0102;
}

/// Reads a byte from a port.
///
/// # Safety
/// Reading must have no effect on memory that Rust knows of.
pub unsafe fn in8(port: u16) -> u8 {
    // SAFETY: the caller's promise.
    unsafe { Port::new(port).read() }
}

/// Reads 16 bits from a port.
///
/// # Safety
/// As for [`in8`].
pub unsafe fn in16(port: u16) -> u16 {
    // SAFETY: the caller's promise.
    unsafe { Port::new(port).read() }
}

/// Reads 32 bits from a port.
///
/// # Safety
/// As for [`in8`].
pub unsafe fn in32(port: u16) -> u32 {
    // SAFETY: the caller's promise.
    unsafe { Port::new(port).read() }
}

/// Writes a byte to a port.
///
/// # Safety
/// Writing must have no effect on memory that Rust knows of.
pub unsafe fn out8(port: u16, value: u8) {
    // SAFETY: the caller's promise.
    unsafe { Port::new(port).write(value) }
}

/// Writes 16 bits to a port.
///
/// # Safety
/// As for [`out8`].
pub unsafe fn out16(port: u16, value: u16) {
    // SAFETY: the caller's promise.
    unsafe { Port::new(port).write(value) }
}

/// Writes 32 bits to a port.
///
/// # Safety
/// As for [`out8`].
pub unsafe fn out32(port: u16, value: u32) {
    // SAFETY: the caller's promise.
    unsafe { Port::new(port).write(value) }
}

/// Reads a model-specific register.
///
/// # Safety
/// The register must exist.
pub unsafe fn rdmsr(register: u32) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { Msr::new(register).read() }
}

/// Writes a model-specific register.
///
/// # Safety
/// The register must exist, and the value must not take away what running code relies on.
pub unsafe fn wrmsr(register: u32, value: u64) {
    // SAFETY: the caller's promise.
    unsafe { Msr::new(register).write(value) }
}

/// The time stamp counter.
#[inline(always)]
pub fn tsc() -> u64 {
    // SAFETY: every x86_64 has a TSC and ring 0 may always read it.
    unsafe { _rdtsc() }
}

/// One leaf of CPUID; zero where the leaf does not exist.
pub fn cpuid(leaf: u32, sub: u32) -> CpuidResult {
    let top = __cpuid(leaf & 0xffff_0000).eax;
    if leaf > top {
        return CpuidResult { eax: 0, ebx: 0, ecx: 0, edx: 0 };
    }
    __cpuid_count(leaf, sub)
}

/// Physical address of the root in use.
#[inline(always)]
pub fn cr3() -> u64 {
    let value: u64;
    // SAFETY: reading CR3 has no effect.
    unsafe { asm!("mov {}, cr3", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Changes the root.
///
/// # Safety
/// The root must map the kernel exactly as the present one does.
#[inline(always)]
pub unsafe fn set_cr3(root: u64) {
    // SAFETY: the caller's promise.
    unsafe { asm!("mov cr3, {}", in(reg) root, options(nostack, preserves_flags)) };
}

/// The address of the last page fault.
#[inline(always)]
pub fn cr2() -> u64 {
    let value: u64;
    // SAFETY: reading CR2 has no effect.
    unsafe { asm!("mov {}, cr2", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Drops one page from the TLB.
#[inline(always)]
pub fn invlpg(address: u64) {
    // SAFETY: forgetting a translation is always allowed.
    unsafe { asm!("invlpg [{}]", in(reg) address, options(nostack, preserves_flags)) };
}

/// Stops this CPU for ever.
pub fn halt_for_ever() -> ! {
    loop {
        // SAFETY: with interrupts off only an NMI or SMI wakes it, and the loop halts again.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
    }
}
