//! The kernel's virtual address space, in one place.
//!
//! ```text
//! PML4 256..  PHYSMAP   all RAM that the kernel owns, RW NX, without the kernel image itself
//! PML4 509    STACKS    guard-paged stacks of each CPU;  DEVICES  uncached device windows
//! PML4 511    0xffff_ffff_8000_0000  the kernel image
//!             0xffff_ffff_c000_0000  the entry area: trampoline text, then one slot per CPU
//! ```
//! The entry area alone stands in user roots when KPTI is on; it has page tables of its own there.

/// Physical memory is mapped here, by the loader and by us.
pub const PHYSMAP: u64 = 0xffff_8000_0000_0000;
/// Where the kernel image is linked.
pub const IMAGE: u64 = 0xffff_ffff_8000_0000;
/// Stacks of CPU n start at `STACKS + n * STACKS_STEP`.
pub const STACKS: u64 = 0xffff_fe80_0000_0000;
/// Address space for one CPU's stacks.
pub const STACKS_STEP: u64 = 0x10_0000;
/// Offset and size of the kernel stack; what lies around it is never mapped.
pub const KERNEL_STACK: (u64, u64) = (0x1_0000, 0x1_0000);
/// Offset and size of the verification context's stack.
pub const VERIFICATION_STACK: (u64, u64) = (0x4_0000, 0x4_0000);
/// Device windows.
pub const DEVICES: u64 = 0xffff_fe90_0000_0000;
/// The entry area of CPU n is at `ENTRY_CPUS + n * ENTRY_STEP`.
pub const ENTRY_CPUS: u64 = 0xffff_ffff_c020_0000;
const _: () = assert!(ENTRY_CPUS - ENTRY_STEP == kernel::audit::ENTRY_AREA);
/// Address space of one CPU's entry area.
pub const ENTRY_STEP: u64 = 0x20_0000;
/// Offset of the kernel-only part of the per-CPU struct, in pages after the entry page.
pub const PER_CPU_PAGES: u64 = 4;
/// Offset of the page with GDT and TSS.
pub const DESCRIPTORS: u64 = 0x4000;
/// Offset of the IDT's page.
pub const IDT: u64 = 0x5000;
/// Offset of the first IST stack; the next ones follow at `IST_STEP`, so that each has a guard.
pub const IST: u64 = 0x1_0000;
/// Distance between IST stacks.
pub const IST_STEP: u64 = 0x8000;
/// Size of an IST stack; it is aligned to this, which the entry code relies on.
pub const IST_SIZE: u64 = 0x4000;
/// How many IST stacks there are: NMI, #MC, #DF, #DB.
pub const IST_COUNT: u64 = 4;
/// First address that no user pointer reaches.
pub const USER_END: u64 = 0x0000_8000_0000_0000;

/// Where a physical address is mapped.
pub const fn physmap(address: u64) -> u64 {
    PHYSMAP.wrapping_add(address)
}
