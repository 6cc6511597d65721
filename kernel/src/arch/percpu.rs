//! All state of one CPU, in one struct that GS points to while the CPU is in ring 0.
//!
//! Owns: [`PerCpu`]. Its first page is the entry page, which alone user roots may map when KPTI is on:
//! it holds what the trampolines need before they have changed the root, and the small entry stack.
//! Everything after it is kernel-only. Invariant: `current` always names the save area of the context
//! that the CPU last left ring 0 for (a thread's registers, the verification context or idle).

use core::arch::asm;
use core::cell::UnsafeCell;
use core::mem::offset_of;
use core::sync::atomic::AtomicU64;

use kernel::machine::{Context, Registers};

use super::layout;

/// What the trampolines read and write.
#[repr(C, align(4096))]
pub struct EntryPage {
    /// CR3 for ring 0, or 0 when KPTI is off and the entry must not touch CR3.
    pub kernel_root: u64,
    /// CR3 for ring 3 (KPTI only).
    pub user_root: u64,
    /// Holds a register while the trampoline has none free.
    pub scratch: u64,
    /// Where the registers of the running context are saved on the next entry.
    pub current: *mut Registers,
    /// Top of the kernel stack.
    pub kernel_stack: u64,
    /// Top of the entry stack, in this page.
    pub entry_stack: u64,
    /// Address of this struct.
    pub this: *mut PerCpu,
    /// The trampoline that leads to ring 3.
    pub exit: u64,
    /// What handles an exception of ring 3.
    pub fault: u64,
    /// A selector for VERW.
    pub selector: u64,
    stack: [u64; 502],
}

/// Everything of one CPU.
#[repr(C)]
pub struct PerCpu {
    /// The page that trampolines use.
    pub entry: EntryPage,
    /// Whose root, extended state and segment bases are loaded, while the current context is not a thread's.
    absent: *mut Context,
    /// Takes the place of the owner when that is gone.
    pub nobody: Context,
    /// Save area of the verification context.
    pub verification: Registers,
    /// Save area of idle.
    pub idle: Registers,
    /// NMIs seen.
    pub nmis: AtomicU64,
    /// NMIs that have been reported.
    pub nmis_reported: u64,
    /// Interrupts on vectors that nobody uses.
    pub spurious: u64,
}

const _: () = assert!(size_of::<EntryPage>() == 4096);
const _: () = assert!(size_of::<PerCpu>() as u64 <= layout::PER_CPU_PAGES * 4096);

/// Offsets for the entry code.
pub const KERNEL_ROOT: usize = offset_of!(EntryPage, kernel_root);
pub const USER_ROOT: usize = offset_of!(EntryPage, user_root);
pub const SCRATCH: usize = offset_of!(EntryPage, scratch);
pub const CURRENT: usize = offset_of!(EntryPage, current);
pub const KERNEL_STACK: usize = offset_of!(EntryPage, kernel_stack);
pub const ENTRY_STACK: usize = offset_of!(EntryPage, entry_stack);
pub const SELECTOR: usize = offset_of!(EntryPage, selector);
pub const FAULT: usize = offset_of!(EntryPage, fault);
pub const EXIT: usize = offset_of!(EntryPage, exit);
pub const THIS: usize = offset_of!(EntryPage, this);

/// Address of the struct of a CPU.
pub const fn address_of(cpu: u64) -> u64 {
    layout::ENTRY_CPUS + cpu * layout::ENTRY_STEP
}

/// Where the extended state of threads that are gone is put.
#[repr(C, align(4096))]
struct Lost(UnsafeCell<[u64; 512]>);

// SAFETY: only the processor writes to it, and nobody reads it.
unsafe impl Sync for Lost {}

static LOST: Lost = Lost(UnsafeCell::new([0; 512]));

impl PerCpu {
    /// Whose root, extended state and segment bases are loaded: a thread that lives, or nobody.
    #[inline(always)]
    pub fn owner(&mut self) -> *mut Context {
        let current = self.entry.current;
        if current == &raw mut self.verification || current == &raw mut self.idle {
            self.absent
        } else {
            current.cast()
        }
    }

    /// A context that is not a thread's is about to become the current one.
    pub fn stay_owner(&mut self) {
        self.absent = self.owner();
    }

    /// What is loaded, with this root, belongs to nobody any more.
    pub fn disown(&mut self, root: u64) {
        self.nobody = Context { root, user_root: root, extended: LOST.0.get() as u64, ..Context::default() };
        self.absent = &raw mut self.nobody;
        self.entry.current = &raw mut self.idle;
    }
}

/// This CPU's struct.
///
/// Valid once GS is set up. The pointer may be turned into a reference only by the entry glue (`trap`),
/// which runs with interrupts off, one entry at a time.
#[inline(always)]
pub fn this() -> *mut PerCpu {
    let pointer;
    // SAFETY: in ring 0 GS points to this CPU's struct, whose field `this` never changes.
    unsafe {
        asm!("mov {}, gs:[{offset}]", out(reg) pointer, offset = const THIS,
            options(nostack, preserves_flags, readonly));
    }
    pointer
}

/// The save area of the current context.
#[inline(always)]
pub fn current() -> *mut Registers {
    let pointer;
    // SAFETY: in ring 0 GS points to this CPU's struct.
    unsafe {
        asm!("mov {}, gs:[{offset}]", out(reg) pointer, offset = const CURRENT,
            options(nostack, preserves_flags, readonly));
    }
    pointer
}

/// Makes another context the current one.
#[inline(always)]
pub fn set_current(registers: *mut Registers) {
    // SAFETY: in ring 0 GS points to this CPU's struct; the field is read by the next entry only.
    unsafe {
        asm!("mov gs:[{offset}], {}", in(reg) registers, offset = const CURRENT, options(nostack, preserves_flags));
    }
}
