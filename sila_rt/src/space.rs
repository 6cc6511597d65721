//! Which addresses of the dynamic range are in use. Pure arithmetic.

use sila_abi::protocol::layout::{DYNAMIC_BASE, STACK_TOP};

/// Bytes of a page.
pub const PAGE: u64 = 4096;
/// The heap grows upwards from here to [`HEAP_END`].
pub(crate) const HEAP_BASE: u64 = DYNAMIC_BASE;
/// One past the last address of the heap.
pub(crate) const HEAP_END: u64 = DYNAMIC_BASE + (1 << 40);
/// Regions are mapped from here on.
const REGIONS_BASE: u64 = DYNAMIC_BASE + (2 << 40);
/// One past the last address for Regions.
const REGIONS_END: u64 = STACK_TOP - (1 << 40);
/// Holes that are remembered; more are forgotten, which costs address space only.
const HOLES: usize = 64;

/// The addresses for Regions: a frontier, and holes below it.
pub(crate) struct AddressSpace {
    frontier: u64,
    holes: [(u64, u64); HOLES],
    count: usize,
}

impl AddressSpace {
    pub(crate) const fn new() -> Self {
        AddressSpace { frontier: REGIONS_BASE, holes: [(0, 0); HOLES], count: 0 }
    }

    /// A range for so many pages, a guard page above included.
    pub(crate) fn take(&mut self, pages: u64) -> Option<u64> {
        let len = pages.checked_add(1)?.checked_mul(PAGE)?;
        let holes = self.holes.get_mut(..self.count)?;
        if let Some(hole) = holes.iter_mut().find(|hole| hole.1 >= len) {
            let address = hole.0;
            *hole = (hole.0 + len, hole.1 - len);
            return Some(address);
        }
        let address = self.frontier;
        let end = address.checked_add(len).filter(|end| *end <= REGIONS_END)?;
        self.frontier = end;
        Some(address)
    }

    /// Gives a range back that [`AddressSpace::take`] gave.
    pub(crate) fn give(&mut self, address: u64, pages: u64) {
        let len = (pages + 1) * PAGE;
        if address + len == self.frontier {
            self.frontier = address;
            return;
        }
        let holes = self.holes.get_mut(..self.count).unwrap_or_default();
        if let Some(hole) = holes.iter_mut().find(|hole| hole.0 + hole.1 == address) {
            hole.1 += len;
        } else if let Some(hole) = holes.iter_mut().find(|hole| address + len == hole.0) {
            *hole = (address, hole.1 + len);
        } else if let Some(hole) = holes.iter_mut().find(|hole| hole.1 == 0) {
            *hole = (address, len);
        } else if let Some(hole) = self.holes.get_mut(self.count) {
            *hole = (address, len);
            self.count += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_do_not_touch_and_come_back() {
        let mut space = AddressSpace::new();
        let a = space.take(1).unwrap();
        let b = space.take(3).unwrap();
        assert_eq!((a, b), (REGIONS_BASE, REGIONS_BASE + 2 * PAGE));
        let c = space.take(1).unwrap();
        space.give(b, 3);
        assert_eq!(space.take(1), Some(b));
        assert_eq!(space.take(1), Some(b + 2 * PAGE));
        space.give(c, 1);
        assert_eq!(space.take(7), Some(c));
    }

    #[test]
    fn neighbouring_holes_join() {
        let mut space = AddressSpace::new();
        let ranges: Vec<u64> = (0..4).map(|_| space.take(1).unwrap()).collect();
        space.give(ranges[0], 1);
        space.give(ranges[1], 1);
        assert_eq!(space.take(3), Some(ranges[0]));
    }

    #[test]
    fn address_space_is_bounded() {
        let mut space = AddressSpace::new();
        assert_eq!(space.take(u64::MAX), None);
        assert_eq!(space.take((REGIONS_END - REGIONS_BASE) / PAGE), None);
        assert!(space.take((REGIONS_END - REGIONS_BASE) / PAGE - 1).is_some());
        assert_eq!(space.take(1), None);
    }

    #[test]
    fn more_holes_than_remembered_lose_addresses_only() {
        let mut space = AddressSpace::new();
        let ranges: Vec<u64> = (0..4 * HOLES).map(|_| space.take(1).unwrap()).collect();
        ranges.iter().step_by(2).for_each(|range| space.give(*range, 1));
        let mut again: Vec<u64> = (0..HOLES).map(|_| space.take(1).unwrap()).collect();
        again.sort_unstable();
        again.dedup();
        assert_eq!(again.len(), HOLES);
        assert!(again.iter().all(|range| ranges.iter().step_by(2).any(|free| free == range)));
    }
}
