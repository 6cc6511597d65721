//! Which physical memory is whose while the kernel starts: ranges, and the boot frame allocator.
//!
//! Owns: the list of free ranges until it is handed to the core. Invariants: ranges are whole frames,
//! above 1 MiB, sorted by nothing, never overlapping; what the boot allocator gives out is no longer in
//! the list. Never holds the kernel image, the bundle or firmware memory.

use super::layout;
use super::panic::fatal;

const FRAME: u64 = 4096;
/// Memory below is left alone: firmware and CPU start-up code live there.
const LOW: u64 = 0x10_0000;
/// The core names frames by 32 bits.
const HIGH: u64 = 1 << 44;
/// Ranges that can be held.
const MAX: usize = 256;

/// A list of physical ranges, `start..end` in bytes.
#[derive(Clone, Copy)]
pub struct Ranges {
    list: [(u64, u64); MAX],
    count: usize,
    /// No range was lost for want of room.
    pub complete: bool,
}

impl Ranges {
    /// No memory at all.
    pub const fn new() -> Self {
        Self { list: [(0, 0); MAX], count: 0, complete: true }
    }

    /// The ranges.
    pub fn list(&self) -> &[(u64, u64)] {
        self.list.get(..self.count).unwrap_or(&[])
    }

    /// Bytes in all ranges.
    pub fn total(&self) -> u64 {
        self.list().iter().map(|(start, end)| end - start).sum()
    }

    /// Adds a range, shrunk to whole frames that the kernel can name. A list that is full loses the range:
    /// memory is then unused, never misused.
    pub fn add(&mut self, start: u64, end: u64) {
        let start = start.max(LOW).next_multiple_of(FRAME);
        let end = end.min(HIGH) & !(FRAME - 1);
        if start >= end {
            return;
        }
        for range in self.list.iter_mut().take(self.count) {
            if range.1 == start {
                range.1 = end;
                return;
            }
        }
        self.keep(start, end);
    }

    /// Adds a range, grown to whole frames.
    pub fn cover(&mut self, start: u64, end: u64) {
        self.add(start & !(FRAME - 1), end.checked_next_multiple_of(FRAME).unwrap_or(HIGH));
    }

    /// Takes a range out, splitting what it cuts.
    pub fn remove(&mut self, start: u64, end: u64) {
        let start = start & !(FRAME - 1);
        let end = end.next_multiple_of(FRAME);
        let mut index = 0;
        while index < self.count {
            let (from, to) = self.list[index];
            if to <= start || end <= from {
                index += 1;
                continue;
            }
            self.count -= 1;
            self.list[index] = self.list[self.count];
            self.keep(from, start.min(to));
            self.keep(end.max(from), to);
            index = 0;
        }
    }

    fn keep(&mut self, from: u64, to: u64) {
        if from >= to {
            return;
        }
        match self.list.get_mut(self.count) {
            Some(slot) => {
                *slot = (from, to);
                self.count += 1;
            }
            None => self.complete = false,
        }
    }

    /// Takes `bytes` of contiguous memory, at an address that is a multiple of `align`, from the largest
    /// range that the first 4 GiB hold.
    pub fn take(&mut self, bytes: u64, align: u64) -> u64 {
        let bytes = bytes.next_multiple_of(FRAME);
        let mut best: Option<(u64, u64)> = None;
        for &(start, end) in self.list() {
            let end = end.min(1 << 32);
            let at = end.saturating_sub(bytes) & !(align.max(FRAME) - 1);
            let better = best.is_none_or(|(s, e)| end.saturating_sub(start) > e - s);
            if end > start && at >= start && better {
                best = Some((start, end));
            }
        }
        let Some((_, end)) = best else { fatal("not enough memory to start") };
        let at = (end - bytes) & !(align.max(FRAME) - 1);
        self.remove(at, at + bytes);
        at
    }

    /// As [`Ranges::take`], filled with zeros.
    pub fn take_zeroed(&mut self, bytes: u64, align: u64) -> u64 {
        let bytes = bytes.next_multiple_of(FRAME);
        let at = self.take(bytes, align);
        // SAFETY: the memory was in no use, is ours now, and the physical map covers the first 4 GiB.
        unsafe { core::ptr::write_bytes(layout::physmap(at) as *mut u8, 0, bytes as usize) };
        at
    }
}
