//! Builds the kernel's own page tables.
//!
//! Owns: the boot root and the entry-area half of user roots. Invariants: nothing is writable and
//! executable; kernel entries 256 to 511 never change after boot, so every process root can copy them;
//! every large page is wholly inside one kind of memory.

use bitflags::bitflags;

use super::layout::physmap;
use super::memory_map::Ranges;
use super::regs;

bitflags! {
    /// Bits of a page-table entry.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Flags: u64 {
        const PRESENT = 1 << 0;
        const WRITE = 1 << 1;
        const WRITE_THROUGH = 1 << 3;
        const UNCACHED = 1 << 4;
        const ACCESSED = 1 << 5;
        const DIRTY = 1 << 6;
        /// In a level-1 entry this bit selects the upper half of the PAT; above, a large page.
        const LARGE = 1 << 7;
        const GLOBAL = 1 << 8;
        const NO_EXECUTE = 1 << 63;
    }
}

/// Kernel text.
pub const TEXT: Flags = Flags::PRESENT.union(Flags::ACCESSED);
/// Constant data.
pub const READ: Flags = TEXT.union(Flags::NO_EXECUTE);
/// Data and stacks.
pub const DATA: Flags = READ.union(Flags::WRITE).union(Flags::DIRTY);
/// Device registers.
pub const DEVICE: Flags = DATA.union(Flags::UNCACHED).union(Flags::WRITE_THROUGH);
/// A framebuffer: PAT entry 4, which boot sets to write-combining.
pub const FRAMEBUFFER: Flags = DATA.union(Flags::LARGE);

const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const LINK: u64 = 0x63;

type Table = [u64; 512];

fn table(physical: u64) -> *mut Table {
    physmap(physical) as *mut Table
}

/// A root under construction.
pub struct Root {
    /// Its physical address.
    pub physical: u64,
    global: bool,
    gib_pages: bool,
}

impl Root {
    /// An empty root. `global`: kernel entries survive a change of root.
    pub fn new(frames: &mut Ranges, global: bool, gib_pages: bool) -> Self {
        Self { physical: frames.take_zeroed(4096, 4096), global, gib_pages }
    }

    /// The entry for `address` at `level` (1 = page), making tables on the way.
    fn entry(&self, frames: &mut Ranges, address: u64, level: u32) -> *mut u64 {
        let mut at = self.physical;
        let mut here = 4;
        loop {
            let index = (address >> (12 + 9 * (here - 1))) as usize & 511;
            // SAFETY: `at` is a table of this root, made by us and reached through the physical map; boot
            // runs on one CPU and nobody else holds a reference into it.
            let entry = unsafe { &mut (*table(at))[index] };
            if here == level {
                return entry;
            }
            if *entry == 0 {
                *entry = frames.take_zeroed(4096, 4096) | LINK;
            }
            at = *entry & ADDRESS;
            here -= 1;
        }
    }

    /// Maps `bytes` at `address` to `physical`, with pages as large as both allow.
    pub fn map(&self, frames: &mut Ranges, address: u64, physical: u64, bytes: u64, flags: Flags) {
        let large_allowed = !flags.contains(Flags::LARGE);
        let flags = if self.global { flags | Flags::GLOBAL } else { flags };
        let mut done = 0;
        while done < bytes {
            let (va, pa, left) = (address + done, physical + done, bytes - done);
            let fits = |size: u64| large_allowed && (va | pa) & (size - 1) == 0 && left >= size;
            let (level, size) = if self.gib_pages && fits(1 << 30) {
                (3, 1 << 30)
            } else if fits(1 << 21) {
                (2, 1 << 21)
            } else {
                (1, 4096)
            };
            let large = if level > 1 { Flags::LARGE.bits() } else { 0 };
            let entry = self.entry(frames, va, level);
            // SAFETY: `entry` points into a table of ours, see `entry`.
            unsafe { *entry = pa | flags.bits() | large };
            done += size;
        }
    }

    /// Replaces the flags of one mapped 4 KiB page and drops it from the TLB.
    pub fn protect(&self, frames: &mut Ranges, address: u64, flags: Flags) {
        let entry = self.entry(frames, address, 1);
        // SAFETY: as in `map`; the page keeps its frame.
        unsafe { *entry = (*entry & ADDRESS) | flags.bits() };
        regs::invlpg(address);
    }

    /// Entries 256 to 511.
    pub fn upper_half(&self) -> [u64; 256] {
        let mut half = [0; 256];
        // SAFETY: the root is a table of ours; see `entry`.
        let all = unsafe { &*table(self.physical) };
        half.copy_from_slice(&all[256..]);
        half
    }
}

/// Finds what the root in use maps `address` to; `None` if nothing.
pub fn translate(address: u64) -> Option<u64> {
    let mut at = regs::cr3() & ADDRESS;
    for level in (1..=4).rev() {
        let shift = 12 + 9 * (level - 1);
        // SAFETY: tables in use are valid and the loader maps all physical memory; we only read.
        let entry = unsafe { (*table(at))[(address >> shift) as usize & 511] };
        if entry & 1 == 0 {
            return None;
        }
        if level == 1 || entry & Flags::LARGE.bits() != 0 && level < 4 {
            let offset = (1u64 << shift) - 1;
            return Some((entry & ADDRESS & !offset) | (address & offset));
        }
        at = entry & ADDRESS;
    }
    None
}
