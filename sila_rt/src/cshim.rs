//! `malloc`, `calloc` and `free` for the C code in user space (zstd), over this process's Rust heap.
//!
//! Every block is preceded by a header that holds its whole size, because C's `free` is not told it.
//! Failure is a null pointer, as C code expects, never a panic. `memcpy` and its kin come from
//! `compiler_builtins`. The symbols are exported only on the bare-metal target: on the host, where the
//! tests run, they are plain functions and the C library's own stay in place.
#![allow(unsafe_code)]

use alloc::alloc::{alloc, alloc_zeroed, dealloc};
use core::alloc::Layout;
use core::ptr;

/// What `malloc` promises: any C object fits, SSE vectors too.
const ALIGN: usize = 16;
/// The size of the header; a multiple of [`ALIGN`], so that the block behind it is aligned as well.
const HEADER: usize = 16;

/// The layout of a block of `size` bytes with its header; none if that overflows.
fn layout(size: usize) -> Option<Layout> {
    Layout::from_size_align(size.checked_add(HEADER)?, ALIGN).ok()
}

/// Allocates with the given allocator function, writes the header and returns the address behind it.
///
/// # Safety
/// `allocate` must be `alloc` or `alloc_zeroed`.
unsafe fn allocate_with(size: usize, allocate: unsafe fn(Layout) -> *mut u8) -> *mut u8 {
    let Some(layout) = layout(size) else { return ptr::null_mut() };
    // SAFETY: the layout's size is at least HEADER, so it is not zero.
    let base = unsafe { allocate(layout) };
    if base.is_null() {
        return base;
    }
    // SAFETY: `base` points at `layout.size() >= HEADER` bytes aligned to ALIGN, which suffices for a usize,
    // and `base + HEADER` is within or one past them.
    unsafe {
        base.cast::<usize>().write(layout.size());
        base.add(HEADER)
    }
}

/// C's `malloc`: `size` bytes aligned to 16, or null. Zero bytes give a block of their own.
#[cfg_attr(target_os = "none", unsafe(no_mangle))]
pub extern "C" fn malloc(size: usize) -> *mut u8 {
    // SAFETY: `alloc` is one of the two functions that `allocate_with` takes.
    unsafe { allocate_with(size, alloc) }
}

/// C's `calloc`: `count * size` zeroed bytes aligned to 16, or null, also where the product overflows.
#[cfg_attr(target_os = "none", unsafe(no_mangle))]
pub extern "C" fn calloc(count: usize, size: usize) -> *mut u8 {
    let Some(total) = count.checked_mul(size) else { return ptr::null_mut() };
    // SAFETY: `alloc_zeroed` is one of the two functions that `allocate_with` takes.
    unsafe { allocate_with(total, alloc_zeroed) }
}

/// C's `free`: gives a block back; null is ignored.
///
/// # Safety
/// `block` must be null or come from `malloc` or `calloc` above, not freed since.
#[cfg_attr(target_os = "none", unsafe(no_mangle))]
pub unsafe extern "C" fn free(block: *mut u8) {
    if block.is_null() {
        return;
    }
    // SAFETY: by the contract the block has a header of HEADER bytes before it, which `allocate_with` wrote:
    // the size of a valid layout with ALIGN, with which the block was allocated.
    unsafe {
        let base = block.sub(HEADER);
        let size = base.cast::<usize>().read();
        dealloc(base, Layout::from_size_align_unchecked(size, ALIGN));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c_blocks_are_aligned_writable_and_freed() {
        for size in [0, 1, 15, 16, 17, 4096, 95_976] {
            let block = malloc(size);
            assert!(!block.is_null());
            assert_eq!(block as usize % ALIGN, 0);
            // SAFETY: the block has `size` bytes, and is freed once.
            unsafe {
                block.write_bytes(0xA5, size);
                free(block);
            }
        }
    }

    #[test]
    fn c_zeroed_blocks_are_zero() {
        let block = calloc(100, 7);
        assert!(!block.is_null());
        // SAFETY: the block has 700 initialised bytes, and is freed after the slice's last use.
        unsafe {
            assert!(core::slice::from_raw_parts(block, 700).iter().all(|byte| *byte == 0));
            free(block);
        }
    }

    #[test]
    fn c_impossible_sizes_give_null() {
        for size in [usize::MAX, usize::MAX - HEADER, isize::MAX as usize] {
            assert!(malloc(size).is_null());
        }
        assert!(calloc(usize::MAX, 2).is_null());
        assert!(calloc(1 << 33, 1 << 33).is_null());
        // SAFETY: null is allowed.
        unsafe { free(ptr::null_mut()) };
    }
}
