//! The heap: TLSF (constant time), growing by Regions from the own Pool. The Pool is the limit.

use crate::lock::Lock;
use crate::op;
use crate::slots;
use crate::space::{HEAP_BASE, HEAP_END, PAGE};
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;
use rlsf::Tlsf;
use sila_abi::protocol::layout::{OWN_POOL, OWN_PROCESS};

/// The fewest pages that the heap grows by, and the most unless one block needs more.
const GROWTH: (u64, u64) = (16, 256);
/// What the allocator itself needs of a fresh piece, generously.
const OVERHEAD: u64 = 256;

struct Heap {
    tlsf: Tlsf<'static, u32, u32, 28, 16>,
    end: u64,
}

impl Heap {
    fn allocate(&mut self, layout: Layout) -> *mut u8 {
        loop {
            if let Some(block) = self.tlsf.allocate(layout) {
                return block.as_ptr();
            }
            if self.grow(layout).is_none() {
                return core::ptr::null_mut();
            }
        }
    }

    /// Adds memory in which this block fits.
    fn grow(&mut self, layout: Layout) -> Option<()> {
        let bytes = (layout.size() as u64).checked_add(layout.align() as u64)?.checked_add(OVERHEAD)?;
        // TLSF looks in the next larger size class: a sixteenth more is always enough.
        let needed = bytes.checked_add(bytes / 16)?.div_ceil(PAGE);
        let wished = ((self.end - HEAP_BASE) / PAGE / 2).clamp(GROWTH.0, GROWTH.1);
        self.add(needed.max(wished)).or_else(|| self.add(needed))
    }

    fn add(&mut self, pages: u64) -> Option<()> {
        let len = pages.checked_mul(PAGE)?;
        let end = self.end.checked_add(len).filter(|end| *end <= HEAP_END)?;
        let region = slots::make(|dst| op::RegionCreate(OWN_POOL, pages, dst)).ok()?;
        let record = slots::make(|dst| {
            // SAFETY: the heap's range is the heap's alone, and nothing is mapped above its end.
            unsafe { op::RegionMap(region.slot(), OWN_PROCESS, self.end, 0, pages, 1, dst) }
        });
        record.ok()?.leak();
        region.leak();
        let start = core::ptr::with_exposed_provenance_mut::<u8>(self.end as usize);
        let block = NonNull::new(core::ptr::slice_from_raw_parts_mut(start, len as usize))?;
        // SAFETY: fresh, mapped, writable memory of the heap's alone, and never unmapped.
        unsafe { self.tlsf.insert_free_block_ptr(block) }?;
        self.end = end;
        Some(())
    }
}

/// The process's allocator.
pub struct Allocator {
    heap: Lock<Heap>,
}

// SAFETY: TLSF gives disjoint blocks of the layout asked for; the lock makes calls exclusive.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.heap.lock().allocate(layout)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if let Some(block) = NonNull::new(block) {
            // SAFETY: the caller passes a block of this allocator and its layout.
            unsafe { self.heap.lock().tlsf.deallocate(block, layout.align()) };
        }
    }
}

#[cfg_attr(target_os = "none", global_allocator)]
static HEAP: Allocator = Allocator { heap: Lock::new(Heap { tlsf: Tlsf::new(), end: HEAP_BASE }) };

/// Bytes that the heap has taken from the Pool so far.
pub fn size() -> u64 {
    HEAP.heap.lock().end - HEAP_BASE
}
