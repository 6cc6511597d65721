//! Lays the kernel's address space out: image, physical map, stacks, entry area, devices.
//!
//! Owns: what is mapped where (the numbers are in `layout`). Invariants: W^X everywhere; the image's
//! frames are not in the physical map; every stack has unmapped space on both sides; user roots share
//! only the entry area.

use super::layout;
use super::memory_map::Ranges;
use super::paging::{self, DATA, DEVICE, FRAMEBUFFER, Flags, READ, Root, TEXT, translate};
use super::panic::fatal;
use super::{descriptors, percpu};

unsafe extern "C" {
    static __rodata_start: u8;
    static __rodata_end: u8;
    static __text_start: u8;
    static __text_end: u8;
    static __data_start: u8;
    static __data_end: u8;
    static __entry_text_start: u8;
    static __entry_text_end: u8;
}

/// The sections of the image, as the linker laid them out.
fn sections() -> [(u64, u64, Flags); 4] {
    let span = |start: *const u8, end: *const u8| (start as u64, end as u64);
    let (rodata, text) = (
        span(&raw const __rodata_start, &raw const __rodata_end),
        span(&raw const __text_start, &raw const __text_end),
    );
    let data = span(&raw const __data_start, &raw const __data_end);
    let entry = span(&raw const __entry_text_start, &raw const __entry_text_end);
    [(rodata.0, rodata.1, READ), (text.0, text.1, TEXT), (data.0, data.1, DATA), (entry.0, entry.1, TEXT)]
}

/// The kernel's text, but for the trampolines.
pub fn text() -> core::ops::Range<u64> {
    &raw const __text_start as u64..&raw const __text_end as u64
}

/// Calls `f` with every page of the image and its frame.
fn image_pages(mut f: impl FnMut(u64, u64, Flags)) {
    for (start, end, flags) in sections() {
        for page in (start & !4095..end).step_by(4096) {
            match translate(page) {
                Some(frame) => f(page, frame, flags),
                None => fatal("the loader did not map the whole kernel"),
            }
        }
    }
}

/// Takes the image's frames out of the free memory.
pub fn reserve_image(free: &mut Ranges) {
    image_pages(|_, frame, _| free.remove(frame, frame + 4096));
}

/// Takes the tables that the loader's root uses out of the free memory, as long as they are in use.
pub fn map_image(frames: &mut Ranges, root: &Root) {
    image_pages(|page, frame, flags| root.map(frames, page, frame, 4096, flags));
}

/// Maps all memory of the list; returns where it ends.
pub fn map_physical(frames: &mut Ranges, root: &Root, memory: &Ranges) -> u64 {
    let mut end = 0;
    for &(start, stop) in memory.list() {
        root.map(frames, layout::physmap(start), start, stop - start, DATA);
        end = end.max(stop);
    }
    end
}

/// Takes memory for a stack and maps it.
fn map_stack(frames: &mut Ranges, roots: &[&Root], address: u64, bytes: u64) -> u64 {
    let memory = frames.take_zeroed(bytes, 4096);
    for root in roots {
        root.map(frames, address, memory, bytes, DATA);
    }
    memory
}

/// Maps the kernel stack and the verification stack of a CPU.
pub fn map_stacks(frames: &mut Ranges, root: &Root, cpu: u64) {
    for (offset, bytes) in [layout::KERNEL_STACK, layout::VERIFICATION_STACK] {
        map_stack(frames, &[root], layout::STACKS + cpu * layout::STACKS_STEP + offset, bytes);
    }
}

/// The tops of a CPU's kernel stack and verification stack.
pub fn stack_tops(cpu: u64) -> (u64, u64) {
    let base = layout::STACKS + cpu * layout::STACKS_STEP;
    let top = |(offset, bytes): (u64, u64)| base + offset + bytes;
    (top(layout::KERNEL_STACK), top(layout::VERIFICATION_STACK))
}

/// Makes a CPU's entry area, in the kernel's root and in the template of user roots.
pub fn map_entry_area(frames: &mut Ranges, root: &Root, user: &Root, cpu: u64) {
    let area = percpu::address_of(cpu);
    image_pages(|page, frame, flags| {
        if page >= layout::ENTRY_CPUS - layout::ENTRY_STEP {
            user.map(frames, page, frame, 4096, flags);
        }
    });
    let page = map_stack(frames, &[root, user], area, 4096);
    let (kernel_stack, _) = stack_tops(cpu);
    let entry = layout::physmap(page) as *mut percpu::EntryPage;
    // SAFETY: the page is new, zeroed and ours; all-zero is a valid `EntryPage`.
    unsafe {
        (*entry).kernel_stack = kernel_stack;
        (*entry).entry_stack = area + 4096;
        (*entry).this = area as *mut percpu::PerCpu;
    }
    map_stack(frames, &[root], area + 4096, (layout::PER_CPU_PAGES - 1) * 4096);
    let segments = map_stack(frames, &[root, user], area + layout::DESCRIPTORS, 4096);
    let gates = map_stack(frames, &[root, user], area + layout::IDT, 4096);
    // SAFETY: both pages are new, zeroed and ours.
    unsafe {
        descriptors::write_segments(layout::physmap(segments) as *mut u64, area);
        descriptors::write_gates(layout::physmap(gates) as *mut u64);
    }
    for ist in 0..layout::IST_COUNT {
        let stack =
            map_stack(frames, &[root, user], area + layout::IST + ist * layout::IST_STEP, layout::IST_SIZE);
        let top = layout::physmap(stack + layout::IST_SIZE - 16) as *mut u64;
        // SAFETY: the last two words of a new stack of ours. `paranoid` in `entry` reads them.
        unsafe {
            top.write(root.physical);
            top.add(1).write(area);
        }
    }
    for root in [root, user] {
        root.protect(frames, area + layout::IDT, READ);
    }
    user.protect(frames, area + layout::DESCRIPTORS, READ);
}

/// After the TSS is loaded, nobody writes to GDT and TSS any more.
pub fn freeze_segments(frames: &mut Ranges, root: &Root, cpu: u64) {
    root.protect(frames, percpu::address_of(cpu) + layout::DESCRIPTORS, READ);
}

/// Device windows, one after the other.
pub struct Windows {
    next: u64,
}

impl Windows {
    /// None yet.
    pub const fn new() -> Self {
        Self { next: layout::DEVICES }
    }

    /// Maps a device's registers; 0 for address 0.
    pub fn registers(&mut self, frames: &mut Ranges, root: &Root, physical: u64, bytes: u64) -> u64 {
        self.add(frames, root, physical, bytes, DEVICE)
    }

    /// Maps a framebuffer.
    pub fn framebuffer(&mut self, frames: &mut Ranges, root: &Root, physical: u64, bytes: u64) -> u64 {
        self.add(frames, root, physical, bytes, FRAMEBUFFER)
    }

    fn add(&mut self, frames: &mut Ranges, root: &Root, physical: u64, bytes: u64, flags: Flags) -> u64 {
        if physical == 0 {
            return 0;
        }
        let offset = physical & 4095;
        let bytes = (bytes + offset).next_multiple_of(4096);
        let at = self.next;
        root.map(frames, at, physical - offset, bytes, flags);
        // An unmapped page between two windows.
        self.next += bytes + 4096;
        at + offset
    }
}

/// The frames of a mapped range, if they are contiguous.
pub fn contiguous(address: u64, bytes: u64) -> Option<u64> {
    let first = paging::translate(address)?;
    for offset in (0..bytes).step_by(4096) {
        if paging::translate(address + offset)? != first + offset {
            return None;
        }
    }
    Some(first)
}
