//! The local APIC: one-shot timer, end of interrupt, self-interrupts, pending check.
//!
//! Owns: the APIC's registers, through MMIO or, where the firmware left it in x2APIC mode, through
//! MSRs. Invariant: every vector that can wait lies in one 32-bit IRR word, so that "is an interrupt
//! pending?" is a single read.

use core::ops::RangeInclusive;

use super::regs::{self, msr};

/// Vectors of device lines, timer and inter-processor interrupts: exactly one IRR word.
pub const DEVICE_VECTORS: RangeInclusive<u8> = 0x60..=0x7f;
/// Vector of line 0; line n has the n-th one after it.
pub const LINE_VECTOR: u8 = 0x60;
/// Lines that have a vector.
pub const LINES: usize = 28;
/// The timer's vector.
pub const TIMER_VECTOR: u8 = 0x7f;
const SPURIOUS_VECTOR: u32 = 0xff;

const ID: u32 = 0x20;
const TASK_PRIORITY: u32 = 0x80;
const EOI: u32 = 0xb0;
const SPURIOUS: u32 = 0xf0;
const IRR_WORD_3: u32 = 0x230;
const COMMAND: u32 = 0x300;
const LVT_TIMER: u32 = 0x320;
const LVT_THERMAL: u32 = 0x330;
const LVT_COUNTER: u32 = 0x340;
const LVT_LINT0: u32 = 0x350;
const LVT_LINT1: u32 = 0x360;
const LVT_ERROR: u32 = 0x370;
const INITIAL_COUNT: u32 = 0x380;
const CURRENT_COUNT: u32 = 0x390;
const DIVIDE: u32 = 0x3e0;
const MASKED: u32 = 1 << 16;
const NMI_DELIVERY: u32 = 4 << 8;
const DIVIDE_BY_16: u32 = 3;

/// This CPU's local APIC.
#[derive(Clone, Copy)]
pub struct Lapic {
    /// Where its registers are mapped; 0 for x2APIC mode.
    base: u64,
}

/// What the APIC base register says.
pub enum Mode {
    /// Registers at this physical address.
    Memory(u64),
    /// Registers are MSRs: the firmware chose so, and there is no way back.
    Registers,
}

/// Finds how the APIC is reached, enabling it if it is off.
pub fn mode() -> Mode {
    // SAFETY: every x86_64 has this register; setting the enable bit takes nothing away.
    unsafe {
        let value = regs::rdmsr(msr::APIC_BASE);
        if value & (1 << 10) != 0 {
            return Mode::Registers;
        }
        regs::wrmsr(msr::APIC_BASE, value | 1 << 11);
        Mode::Memory(value & 0x000f_ffff_ffff_f000)
    }
}

impl Lapic {
    /// A placeholder that must not be used.
    pub const OFF: Self = Self { base: 0 };

    /// The APIC whose registers are mapped at `base` (0 for x2APIC mode).
    ///
    /// # Safety
    /// `base` must map the APIC's page, uncached, for good.
    pub const unsafe fn at(base: u64) -> Self {
        Self { base }
    }

    #[inline(always)]
    fn read(self, register: u32) -> u32 {
        // SAFETY: `at` promised the mapping; else the MSR exists in x2APIC mode. Registers are word-sized.
        unsafe {
            if self.base != 0 {
                ((self.base + u64::from(register)) as *const u32).read_volatile()
            } else {
                regs::rdmsr(0x800 + (register >> 4)) as u32
            }
        }
    }

    #[inline(always)]
    fn write(self, register: u32, value: u32) {
        // SAFETY: as for `read`; no register of the APIC changes memory.
        unsafe {
            if self.base != 0 {
                ((self.base + u64::from(register)) as *mut u32).write_volatile(value);
            } else {
                regs::wrmsr(0x800 + (register >> 4), u64::from(value));
            }
        }
    }

    /// Switches the APIC on with everything masked but NMIs.
    pub fn start(self) {
        self.write(SPURIOUS, SPURIOUS_VECTOR | 1 << 8);
        self.write(TASK_PRIORITY, 0);
        for register in [LVT_TIMER, LVT_THERMAL, LVT_COUNTER, LVT_LINT0, LVT_ERROR] {
            self.write(register, MASKED);
        }
        self.write(LVT_LINT1, NMI_DELIVERY);
        self.write(DIVIDE, DIVIDE_BY_16);
        self.write(INITIAL_COUNT, 0);
        self.write(LVT_TIMER, u32::from(TIMER_VECTOR));
        // What the firmware left in service would block everything below it.
        for _ in 0..8 {
            self.write(EOI, 0);
        }
    }

    /// This APIC's id.
    pub fn id(self) -> u8 {
        let id = self.read(ID);
        if self.base != 0 { (id >> 24) as u8 } else { id as u8 }
    }

    /// Ends the interrupt in service.
    #[inline(always)]
    pub fn end_of_interrupt(self) {
        self.write(EOI, 0);
    }

    /// Starts the timer; 0 stops it.
    #[inline(always)]
    pub fn start_timer(self, count: u32) {
        self.write(INITIAL_COUNT, count);
    }

    /// What is left of the timer's count.
    pub fn timer_left(self) -> u32 {
        self.read(CURRENT_COUNT)
    }

    /// True if any device, timer or inter-processor interrupt waits.
    #[inline(always)]
    pub fn pending(self) -> bool {
        self.read(IRR_WORD_3) != 0
    }

    /// Raises a vector on this CPU.
    pub fn interrupt_self(self, vector: u8) {
        if self.base != 0 {
            self.write(COMMAND, 1 << 18 | u32::from(vector));
        } else {
            // SAFETY: the self-IPI register of x2APIC mode.
            unsafe { regs::wrmsr(0x83f, u64::from(vector)) };
        }
    }
}

const _: () = assert!(DEVICE_VECTORS.start().is_multiple_of(32) && *DEVICE_VECTORS.end() as u32 % 32 == 31);
const _: () = assert!(LINE_VECTOR as usize + LINES <= TIMER_VECTOR as usize);
