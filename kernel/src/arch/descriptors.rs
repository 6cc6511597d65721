//! GDT, TSS and IDT of a CPU, on pages of their own in its entry area.
//!
//! Owns: the layout of selectors. Invariants: ring 3 has one code and one data segment, in the order
//! that SYSRET wants; only the breakpoint gate is open to ring 3; NMI, #MC, #DF and #DB have a stack
//! each. The tables are written through the physical map and are read-only where the CPU reads them,
//! once the TSS is loaded.

use core::arch::asm;
use x86_64::VirtAddr;
use x86_64::instructions::tables::{lgdt, lidt, load_tss};
use x86_64::structures::DescriptorTablePointer;
use x86_64::structures::gdt::SegmentSelector;

use super::entry;
use super::layout;

/// Ring-0 code.
pub const KERNEL_CODE: u16 = 0x08;
/// Ring-0 data.
pub const KERNEL_DATA: u16 = 0x10;
/// Ring-3 data.
pub const USER_DATA: u16 = 0x1b;
/// Ring-3 code.
pub const USER_CODE: u16 = 0x23;
const TSS: u16 = 0x28;
/// Offset of the TSS in the descriptor page.
const TSS_OFFSET: u64 = 0x100;
const TSS_LIMIT: u64 = 103;

/// Vectors with a stack of their own, and the stack's number (from 1).
const OWN_STACK: [(usize, u64); 4] = [(2, 1), (18, 2), (8, 3), (1, 4)];

/// Writes GDT and TSS of the CPU whose entry area is at `area` into the page seen at `page`.
///
/// # Safety
/// `page` must be a writable, unused page.
pub unsafe fn write_segments(page: *mut u64, area: u64) {
    let tss = area + layout::DESCRIPTORS + TSS_OFFSET;
    // Accessed bits are set beforehand, so that the processor never writes to the table.
    let low = TSS_LIMIT | (tss & 0xff_ffff) << 16 | 0x89 << 40 | (tss >> 24 & 0xff) << 56;
    let gdt = [
        0,
        0x00af_9b00_0000_ffff,
        0x00cf_9300_0000_ffff,
        0x00cf_f300_0000_ffff,
        0x00af_fb00_0000_ffff,
        low,
        tss >> 32,
    ];
    // SAFETY: the caller's promise; both tables fit into the page.
    unsafe {
        for (index, entry) in gdt.into_iter().enumerate() {
            page.add(index).write(entry);
        }
        // RSP0 is at byte 4, IST1 at byte 36, the I/O map's offset at byte 102.
        let tss = page.byte_add(TSS_OFFSET as usize);
        tss.byte_add(4).write_unaligned(area + 4096);
        for ist in 0..layout::IST_COUNT {
            let top = area + layout::IST + ist * layout::IST_STEP + layout::IST_SIZE - 16;
            tss.byte_add(36 + 8 * ist as usize).write_unaligned(top);
        }
        tss.byte_add(102).cast::<u16>().write_unaligned(TSS_LIMIT as u16 + 1);
    }
}

/// Writes the IDT into the page seen at `page`.
///
/// # Safety
/// `page` must be a writable, unused page.
pub unsafe fn write_gates(page: *mut u64) {
    for vector in 0..256 {
        let handler = entry::vector_address(vector);
        let stack = OWN_STACK.iter().find(|(v, _)| *v == vector).map_or(0, |(_, s)| *s);
        let ring = if vector == 3 { 3 } else { 0 };
        let low = handler & 0xffff
            | u64::from(KERNEL_CODE) << 16
            | stack << 32
            | 0x8e << 40
            | ring << 45
            | (handler >> 16 & 0xffff) << 48;
        // SAFETY: the caller's promise; 256 gates of 16 bytes fill the page exactly.
        unsafe {
            page.add(2 * vector).write(low);
            page.add(2 * vector + 1).write(handler >> 32);
        }
    }
}

/// Makes the CPU use the tables of the entry area at `area`.
///
/// # Safety
/// The tables must be written and mapped there for good; the descriptor page still writable.
pub unsafe fn load(area: u64) {
    let gdt =
        DescriptorTablePointer { base: VirtAddr::new_truncate(area + layout::DESCRIPTORS), limit: 7 * 8 - 1 };
    let idt = DescriptorTablePointer { base: VirtAddr::new_truncate(area + layout::IDT), limit: 4095 };
    // SAFETY: the caller's promise; the selectors are those of the new table.
    unsafe {
        lgdt(&gdt);
        asm!(
            "push {code}",
            "lea {t}, [rip + 2f]",
            "push {t}",
            "retfq",
            "2:",
            "mov ss, {data:e}",
            "xor {t:e}, {t:e}",
            "mov ds, {t:e}",
            "mov es, {t:e}",
            "mov fs, {t:e}",
            "mov gs, {t:e}",
            "lldt {t:x}",
            code = const KERNEL_CODE as i32, data = in(reg) u32::from(KERNEL_DATA), t = out(reg) _,
        );
        load_tss(SegmentSelector(TSS));
        lidt(&idt);
    }
}
