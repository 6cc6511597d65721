//! Finds out about the processor and switches its protections on.
//!
//! Owns: CR0, CR4, EFER, PAT and the SYSCALL registers. Invariant: what is switched on is what CPUID
//! offers; the kernel runs with whatever is missing.

use core::arch::asm;

use kernel::cpu::{Facts, Features, Mitigations, Vendor};

use super::descriptors::{KERNEL_CODE, KERNEL_DATA};
use super::regs::{cpuid, msr, rdmsr, wrmsr};

/// Reads CPUID.
pub fn facts() -> Facts {
    let (zero, one, seven) = (cpuid(0, 0), cpuid(1, 0), cpuid(7, 0));
    let (ext1, ext7, ext8) = (cpuid(0x8000_0001, 0), cpuid(0x8000_0007, 0), cpuid(0x8000_0008, 0));
    let vendor = match (zero.ebx, zero.edx, zero.ecx) {
        (0x756e_6547, 0x4965_6e69, 0x6c65_746e) => Vendor::Intel,
        (0x6874_7541, 0x6974_6e65, 0x444d_4163) | (0x6f67_7948, 0x6e65_476e, 0x656e_6975) => Vendor::Amd,
        _ => Vendor::Other,
    };
    let mut family = (one.eax >> 8 & 15) as u16;
    let mut model = (one.eax >> 4 & 15) as u8;
    if family == 6 || family == 15 {
        model |= ((one.eax >> 16 & 15) as u8) << 4;
    }
    if family == 15 {
        family += (one.eax >> 20 & 255) as u16;
    }
    let bits = [
        (seven.ebx >> 7, Features::SMEP),
        (seven.ebx >> 20, Features::SMAP),
        (seven.ecx >> 2, Features::UMIP),
        (seven.ebx, Features::FSGSBASE),
        (one.ecx >> 26, Features::XSAVE),
        (ext1.edx >> 26, Features::GIB_PAGES),
        (one.edx >> 13, Features::GLOBAL_PAGES),
        (one.edx >> 16, Features::PAT),
        (ext7.edx >> 8, Features::INVARIANT_TSC),
        (one.ecx >> 31, Features::HYPERVISOR),
        (ext8.ebx >> 2, Features::X87_POINTERS),
        (seven.edx >> 26, Features::IBRS_IBPB),
        (ext8.ebx >> 12, Features::IBPB),
        (seven.edx >> 10, Features::MD_CLEAR),
        (seven.edx >> 29, Features::ARCH_CAPABILITIES),
    ];
    let mut features =
        bits.into_iter().filter(|(word, _)| word & 1 == 1).fold(Features::empty(), |all, (_, one)| all | one);
    if vendor == Vendor::Intel {
        // Intel always saves the pointers; the bit is AMD's.
        features |= Features::X87_POINTERS;
    }
    let capabilities = if features.contains(Features::ARCH_CAPABILITIES) {
        // SAFETY: CPUID says that the register exists.
        unsafe { rdmsr(msr::ARCH_CAPABILITIES) }
    } else {
        0
    };
    Facts { vendor, family, model, features, capabilities }
}

/// True if the processor has no NX bit: then SILA cannot keep its promises.
pub fn lacks_no_execute() -> bool {
    cpuid(0x8000_0001, 0).edx >> 20 & 1 == 0
}

/// Sets the control registers. The own page tables must be in use.
pub fn protect(features: Features, mitigations: Mitigations) {
    const CR0: u64 = 1 << 31 | 1 << 16 | 1 << 5 | 1 << 4 | 1 << 1 | 1;
    // PAE, MCE, OSFXSR, OSXMMEXCPT.
    let mut cr4: u64 = 1 << 5 | 1 << 6 | 1 << 9 | 1 << 10;
    let optional = [
        (Features::SMEP, 20),
        (Features::SMAP, 21),
        (Features::UMIP, 11),
        (Features::FSGSBASE, 16),
        (Features::XSAVE, 18),
    ];
    for (feature, bit) in optional {
        if features.contains(feature) {
            cr4 |= 1 << bit;
        }
    }
    if !mitigations.kpti && features.contains(Features::GLOBAL_PAGES) {
        cr4 |= 1 << 7;
    }
    // SAFETY: our page tables hold under every one of these bits: user pages are never read or run by
    // ring 0 (it uses the physical map), and nothing of the kernel is writable and read-only at once.
    unsafe {
        // Long mode as it is, NX, SYSCALL; not what the firmware may have left, such as AMD's short FXSAVE.
        wrmsr(msr::EFER, rdmsr(msr::EFER) & 0x500 | 1 << 11 | 1);
        // First without global pages, which empties the TLB of what the firmware left in it.
        asm!("mov cr0, {}", "mov cr4, {}", "mov cr4, {}", in(reg) CR0, in(reg) cr4 & !(1 << 7), in(reg) cr4,
            options(nostack));
        asm!("mov dr7, {}", in(reg) 0x400u64, options(nomem, nostack));
        if features.contains(Features::PAT) {
            // The reset value, with entry 4 as write-combining.
            wrmsr(msr::PAT, 0x0007_0401_0007_0406 & !(0xff << 32) | 1 << 32);
        }
        if mitigations.ibrs_always {
            wrmsr(msr::SPEC_CTRL, 1);
        }
    }
}

/// Points SYSCALL at a trampoline.
pub fn open_syscall(target: u64) {
    let star = u64::from(KERNEL_DATA) << 48 | u64::from(KERNEL_CODE) << 32;
    // SAFETY: the trampolines are mapped in every root; all flags but the fixed one are cleared on entry.
    unsafe {
        wrmsr(msr::STAR, star);
        wrmsr(msr::LSTAR, target);
        wrmsr(msr::CSTAR, target);
        wrmsr(msr::SFMASK, 0xffff_fffd);
        // SYSENTER has no way in here: with a null selector it faults, whatever the firmware left.
        wrmsr(msr::SYSENTER_CS, 0);
        wrmsr(msr::SYSENTER_ESP, 0);
        wrmsr(msr::SYSENTER_EIP, 0);
    }
}
