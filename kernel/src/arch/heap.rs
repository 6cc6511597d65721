//! The two heaps: one for boot, one for the verification context.
//!
//! Owns: all dynamic memory of the kernel. The boot heap serves until `seal`; afterwards ordinary
//! kernel code that allocates gets nothing, which is a bug and ends in a panic. The verification
//! context has a scratch arena that only grows, and is emptied before each job. Which heap is meant is
//! told by the stack the caller runs on (boot itself borrows the context's). Invariant: the two never lend to each other.

use core::alloc::{GlobalAlloc, Layout};
use core::arch::asm;
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use linked_list_allocator::Heap;
use spin::Mutex;

use super::layout::{STACKS, VERIFICATION_STACK};

/// Bytes of the scratch arena.
pub const SCRATCH: u64 = 512 * 1024;

struct KernelHeap {
    boot: Mutex<Heap>,
    sealed: AtomicBool,
    scratch: AtomicU64,
    next: AtomicU64,
}

#[global_allocator]
static HEAP: KernelHeap = KernelHeap {
    boot: Mutex::new(Heap::empty()),
    sealed: AtomicBool::new(false),
    scratch: AtomicU64::new(0),
    next: AtomicU64::new(0),
};

/// Bytes of boot heap for a machine with this much memory.
pub fn boot_size(memory: u64) -> u64 {
    (6 << 20) + memory / 64
}

/// Gives both heaps their memory.
///
/// # Safety
/// Both ranges must be mapped, writable and used by nobody else, for good.
pub unsafe fn start(boot: u64, size: u64, scratch: u64) {
    // SAFETY: the caller's promise.
    unsafe { HEAP.boot.lock().init(boot as *mut u8, size as usize) };
    HEAP.scratch.store(scratch, Ordering::Relaxed);
    HEAP.next.store(scratch, Ordering::Relaxed);
}

/// Bytes used and left in the boot heap.
pub fn usage() -> (usize, usize) {
    let heap = HEAP.boot.lock();
    (heap.used(), heap.free())
}

/// Boot is over: nothing is allocated from the boot heap any more.
pub fn seal() {
    HEAP.sealed.store(true, Ordering::Relaxed);
}

/// Empties the scratch arena; the verification context calls it between jobs.
pub fn reset_scratch() {
    HEAP.next.store(HEAP.scratch.load(Ordering::Relaxed), Ordering::Relaxed);
}

fn in_verification_context() -> bool {
    let rsp: u64;
    // SAFETY: only reads a register.
    unsafe { asm!("mov {}, rsp", out(reg) rsp, options(nomem, nostack, preserves_flags)) };
    let start = STACKS + VERIFICATION_STACK.0;
    (start..start + VERIFICATION_STACK.1).contains(&rsp)
}

impl KernelHeap {
    fn bump(&self, layout: Layout) -> *mut u8 {
        let end = self.scratch.load(Ordering::Relaxed) + SCRATCH;
        let align = layout.align() as u64;
        let start = self.next.load(Ordering::Relaxed).next_multiple_of(align);
        match start.checked_add(layout.size() as u64) {
            Some(next) if next <= end => {
                self.next.store(next, Ordering::Relaxed);
                start as *mut u8
            }
            _ => null_mut(),
        }
    }
}

// SAFETY: blocks come from a list allocator behind a lock, or from an arena that only its one context
// uses and that is emptied when nothing of the last job is left.
unsafe impl GlobalAlloc for KernelHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if self.sealed.load(Ordering::Relaxed) {
            return if in_verification_context() { self.bump(layout) } else { null_mut() };
        }
        self.boot.lock().allocate_first_fit(layout).map_or(null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let scratch = self.scratch.load(Ordering::Relaxed);
        if (scratch..scratch + SCRATCH).contains(&(block as u64)) {
            // The last block can be given back, which lets a growing vector reuse its place.
            let end = block as u64 + layout.size() as u64;
            let _moved = self.next.compare_exchange(end, block as u64, Ordering::Relaxed, Ordering::Relaxed);
            return;
        }
        // After boot nothing is worth giving back, and the walk through the list would not be bounded.
        if self.sealed.load(Ordering::Relaxed) {
            return;
        }
        if let (Some(block), Some(mut heap)) = (NonNull::new(block), self.boot.try_lock()) {
            // SAFETY: the block came from this heap with this layout.
            unsafe { heap.deallocate(block, layout) };
        }
    }
}
