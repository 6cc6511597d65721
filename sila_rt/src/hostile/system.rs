//! More instructions that ring 3 may not execute: what describes or changes the processor's own state.

/// An instruction on system state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
#[expect(missing_docs, reason = "each names its instruction")]
pub enum SystemInstruction {
    MovFromDr7 = 0,
    MovToDr0 = 1,
    MovFromDr6 = 2,
    MovFromCr2 = 3,
    MovFromCr3 = 4,
    MovFromCr4 = 5,
    MovToCr0 = 6,
    MovFromCr8 = 7,
    MovToCr8 = 8,
    Lmsw = 9,
    Lldt = 10,
    Rdpmc = 11,
    Invd = 12,
    RdmsrGsBase = 13,
    WrmsrEfer = 14,
    Clac = 15,
    Stac = 16,
    RetfToRing0 = 17,
    CallToTss = 18,
    IntoKernelData = 19,
    Monitor = 20,
    Sgdt = 21,
    Sidt = 22,
    Sldt = 23,
    Str = 24,
    Smsw = 25,
}

use SystemInstruction::*;

/// Every one that faults on each processor, with its vector.
pub const SYSTEM_INSTRUCTIONS: &[(SystemInstruction, u64)] = &[
    (MovFromDr7, 13),
    (MovToDr0, 13),
    (MovFromDr6, 13),
    (MovFromCr2, 13),
    (MovFromCr3, 13),
    (MovFromCr4, 13),
    (MovToCr0, 13),
    (MovFromCr8, 13),
    (MovToCr8, 13),
    (Lmsw, 13),
    (Lldt, 13),
    (Rdpmc, 13),
    (Invd, 13),
    (RdmsrGsBase, 13),
    (WrmsrEfer, 13),
    (Clac, 6),
    (Stac, 6),
    (RetfToRing0, 13),
    (CallToTss, 13),
    (IntoKernelData, 13),
    (Monitor, 6),
];

/// Those that tell where the kernel keeps its tables: they fault (13) where the processor has UMIP.
pub const TELLTALES: &[SystemInstruction] = &[Sgdt, Sidt, Sldt, Str, Smsw];

impl SystemInstruction {
    /// The instruction with this number.
    pub fn from_number(number: u64) -> Option<Self> {
        let all = SYSTEM_INSTRUCTIONS.iter().map(|(which, _)| which).chain(TELLTALES);
        all.copied().find(|which| *which as u64 == number)
    }
}

/// Executes an instruction that must fault.
#[cfg(target_os = "none")]
pub fn system_instruction(which: SystemInstruction) {
    use core::arch::asm;
    let mut table = [0u64; 2];
    let table = table.as_mut_ptr();
    // SAFETY: none: these are attacks. Each faults; where one does not, it writes to `table` at most.
    unsafe {
        match which {
            MovFromDr7 => asm!("mov {}, dr7", out(reg) _),
            MovToDr0 => asm!("mov dr0, {}", in(reg) 0u64),
            MovFromDr6 => asm!("mov {}, dr6", out(reg) _),
            MovFromCr2 => asm!("mov {}, cr2", out(reg) _),
            MovFromCr3 => asm!("mov {}, cr3", out(reg) _),
            MovFromCr4 => asm!("mov {}, cr4", out(reg) _),
            MovToCr0 => asm!("mov cr0, {}", in(reg) 0u64),
            MovFromCr8 => asm!("mov {}, cr8", out(reg) _),
            MovToCr8 => asm!("mov cr8, {}", in(reg) 0u64),
            Lmsw => asm!("lmsw {:x}", in(reg) 0u64),
            Lldt => asm!("lldt {:x}", in(reg) 0u64),
            Rdpmc => asm!("rdpmc", in("ecx") 0, out("eax") _, out("edx") _),
            Invd => asm!("invd"),
            RdmsrGsBase => asm!("rdmsr", in("ecx") 0xc000_0101u32, out("eax") _, out("edx") _),
            WrmsrEfer => asm!("wrmsr", in("ecx") 0xc000_0080u32, in("eax") 0, in("edx") 0),
            Clac => asm!("clac"),
            Stac => asm!("stac"),
            RetfToRing0 => asm!("push 0x08", "lea {0}, [rip + 2f]", "push {0}", "retfq", "2:", out(reg) _),
            CallToTss => {
                table.write(0x28 << 32);
                asm!("call fword ptr [{}]", in(reg) table);
            }
            IntoKernelData => asm!("mov ss, {:x}", in(reg) 0x10u64),
            Monitor => asm!("monitor", in("rax") table, in("ecx") 0, in("edx") 0),
            Sgdt => asm!("sgdt [{}]", in(reg) table),
            Sidt => asm!("sidt [{}]", in(reg) table),
            Sldt => asm!("sldt {:x}", out(reg) _),
            Str => asm!("str {:x}", out(reg) _),
            Smsw => asm!("smsw {:x}", out(reg) _),
        }
    }
}
