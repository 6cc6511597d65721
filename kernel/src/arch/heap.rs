//! The heaps: one for boot, two kinds for the verification context.
//!
//! Owns: all dynamic memory of the kernel. The boot heap serves until `seal`; afterwards ordinary
//! kernel code that allocates gets nothing, which is a bug and ends in a panic. The verification
//! context has a scratch arena that only grows, and is emptied before each job (while a test holds the verdict of an
//! earlier one, it grows on). What is to outlive a job (keys, policies,
//! root sets that come into force) it puts into a keeping: an arena that counts its blocks and is begun anew only when
//! none of them is left. Which heap is meant is told by the stack the caller runs on (boot itself borrows the context's)
//! and by `keep`. Invariant: they never lend to each other.

use core::alloc::{GlobalAlloc, Layout};
use core::arch::asm;
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use kernel::cache::CachedImage;
use kernel::machine::Keep;
use kernel::objects::Priced;
use linked_list_allocator::Heap;
use spin::Mutex;

use super::layout::{STACKS, VERIFICATION_STACK};

/// Bytes of the scratch arena. Each root signature leaves 64 KiB behind, the decoded key: a root set of eight keys that
/// eight others sign, too, takes 1 MiB.
pub const SCRATCH: u64 = 2 * 1024 * 1024;
/// Bytes of a keeping for a record: a certificate with its decoded key, and what decoding takes for a while.
const RECORD: u64 = 128 * 1024;
/// Keepings for records: one for each key of the ring, two for policy and root set, and some for those on their way in
/// and for the older ones that a job still reads.
const RECORDS: usize = 40;
const _: () = assert!(RECORDS >= kernel::keyring::MAX_KEYS + 2 + 4);
/// Bytes of a keeping for what was verified of a cached image.
const IMAGE: u64 = kernel::verify::IMAGE_KEEPING as u64;
/// Keepings for images: one for each entry of the module cache, and some for those on their way in and for what creations
/// still rest on.
const IMAGES: usize = <CachedImage as Priced>::SLOTS as usize + 4;
const KEEPINGS: usize = RECORDS + IMAGES;
/// Where those for images begin.
const FIRST_IMAGE: u64 = RECORD * RECORDS as u64;
/// Bytes of all of them.
pub const KEPT: u64 = FIRST_IMAGE + IMAGE * IMAGES as u64;

/// Offset and bytes of a keeping.
const fn extent(at: usize) -> (u64, u64) {
    match at.checked_sub(RECORDS) {
        None => (at as u64 * RECORD, RECORD),
        Some(image) => (FIRST_IMAGE + image as u64 * IMAGE, IMAGE),
    }
}

/// The keeping that an offset lies in.
const fn keeping_at(offset: u64) -> usize {
    match offset.checked_sub(FIRST_IMAGE) {
        None => (offset / RECORD) as usize,
        Some(offset) => RECORDS + (offset / IMAGE) as usize,
    }
}

/// An arena of blocks that outlive the job that made them.
struct Keeping {
    /// Where the next block goes.
    next: AtomicU64,
    /// Blocks that live. Without any it may begin anew.
    live: AtomicU64,
}

struct KernelHeap {
    boot: Mutex<Heap>,
    sealed: AtomicBool,
    scratch: AtomicU64,
    next: AtomicU64,
    kept: AtomicU64,
    keepings: [Keeping; KEEPINGS],
    /// The keeping in use, from 1; 0: none.
    keeping: AtomicUsize,
}

#[global_allocator]
static HEAP: KernelHeap = KernelHeap {
    boot: Mutex::new(Heap::empty()),
    sealed: AtomicBool::new(false),
    scratch: AtomicU64::new(0),
    next: AtomicU64::new(0),
    kept: AtomicU64::new(0),
    keepings: [const { Keeping { next: AtomicU64::new(0), live: AtomicU64::new(0) } }; KEEPINGS],
    keeping: AtomicUsize::new(0),
};

/// Bytes of boot heap for a machine with this much memory.
pub fn boot_size(memory: u64) -> u64 {
    (6 << 20) + memory / 64
}

/// Gives the heaps their memory: `size` bytes for boot, [`SCRATCH`] and [`KEPT`] for the others.
///
/// # Safety
/// All ranges must be mapped, writable and used by nobody else, for good.
pub unsafe fn start(boot: u64, size: u64, scratch: u64, kept: u64) {
    HEAP.kept.store(kept, Ordering::Relaxed);
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
    keep(None);
    HEAP.next.store(HEAP.scratch.load(Ordering::Relaxed), Ordering::Relaxed);
}

/// From now on the verification context allocates from a keeping for this, or no longer. False if none is free.
pub fn keep(what: Option<Keep>) -> bool {
    let range = match what {
        None => {
            HEAP.keeping.store(0, Ordering::Relaxed);
            return true;
        }
        Some(Keep::Record) => 0..RECORDS,
        Some(Keep::Image) => RECORDS..KEEPINGS,
    };
    let mut ours = HEAP.keepings.iter().enumerate().filter(|(at, _)| range.contains(at));
    let free = |(_, k): &(usize, &Keeping)| k.live.load(Ordering::Relaxed) == 0;
    let Some((at, keeping)) = ours.find(free) else { return false };
    // Nothing lives in it: its blocks may be given out anew.
    keeping.next.store(0, Ordering::Relaxed);
    HEAP.keeping.store(at + 1, Ordering::Relaxed);
    true
}

fn in_verification_context() -> bool {
    let rsp: u64;
    // SAFETY: only reads a register.
    unsafe { asm!("mov {}, rsp", out(reg) rsp, options(nomem, nostack, preserves_flags)) };
    let start = STACKS + VERIFICATION_STACK.0;
    (start..start + VERIFICATION_STACK.1).contains(&rsp)
}

impl KernelHeap {
    /// A block from the keeping in use.
    fn keep(&self, at: usize, layout: Layout) -> *mut u8 {
        let Some(keeping) = self.keepings.get(at) else { return null_mut() };
        let (offset, size) = extent(at);
        let base = self.kept.load(Ordering::Relaxed) + offset;
        let start = (base + keeping.next.load(Ordering::Relaxed)).next_multiple_of(layout.align() as u64);
        match start.checked_add(layout.size() as u64) {
            Some(end) if end <= base + size => {
                keeping.next.store(end - base, Ordering::Relaxed);
                keeping.live.fetch_add(1, Ordering::Relaxed);
                start as *mut u8
            }
            _ => null_mut(),
        }
    }

    /// Gives a block back to the keeping it is from; false if it is from none.
    fn give_back(&self, block: u64, layout: Layout) -> bool {
        let Some(offset) = block.checked_sub(self.kept.load(Ordering::Relaxed)).filter(|o| *o < KEPT) else {
            return false;
        };
        let at = keeping_at(offset);
        if let Some(keeping) = self.keepings.get(at) {
            // The last block's place can be used again, which lets a growing vector stay.
            let start = offset - extent(at).0;
            let end = start + layout.size() as u64;
            let _moved = keeping.next.compare_exchange(end, start, Ordering::Relaxed, Ordering::Relaxed);
            keeping.live.fetch_sub(1, Ordering::Relaxed);
        }
        true
    }

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
// uses and that is emptied when nothing of the last job is left, or from one that counts its blocks and begins anew only
// when none is left.
unsafe impl GlobalAlloc for KernelHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if self.sealed.load(Ordering::Relaxed) {
            if !in_verification_context() {
                return null_mut();
            }
            return match self.keeping.load(Ordering::Relaxed).checked_sub(1) {
                Some(at) => self.keep(at, layout),
                None => self.bump(layout),
            };
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
        if self.give_back(block as u64, layout) {
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
