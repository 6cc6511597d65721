//! What the invariant checker sees of an arena: its slots as they are stored.

use super::{Arena, LIVE, NONE, RETIRED, Vacant};

/// A slot of an arena.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SlotView {
    /// A live object with this generation.
    Live(u32),
    /// Vacant; the next object gets this generation. The next slot of the list of vacant ones follows.
    Vacant(u32, Option<u32>),
    /// Never used again.
    Retired,
}

/// An arena of objects of any type.
pub(crate) trait ArenaView {
    /// Slots that may be used.
    fn slots(&self) -> u32;
    /// How many objects the arena believes to be alive.
    fn live_count(&self) -> u32;
    /// The first vacant slot.
    fn first_vacant(&self) -> Option<u32>;
    /// A slot; `None` behind the last one.
    fn slot(&self, index: u32) -> Option<SlotView>;
}

const fn link(next: u32) -> Option<u32> {
    if next == NONE { None } else { Some(next) }
}

impl<T: Vacant, const N: usize> ArenaView for Arena<T, N> {
    fn slots(&self) -> u32 {
        self.capacity
    }
    fn live_count(&self) -> u32 {
        self.live
    }
    fn first_vacant(&self) -> Option<u32> {
        link(self.vacant)
    }
    fn slot(&self, index: u32) -> Option<SlotView> {
        let entry = self.entries.get(index as usize).filter(|_| index < self.capacity)?;
        Some(match (entry.next, entry.generation) {
            (LIVE, generation) => SlotView::Live(generation),
            (_, RETIRED) => SlotView::Retired,
            (next, generation) => SlotView::Vacant(generation, link(next)),
        })
    }
}

/// Damage that tests do on purpose.
#[cfg(test)]
impl<T: Vacant, const N: usize> Arena<T, N> {
    pub(crate) fn damage_vacant_list(&mut self) {
        if let Some(entry) = self.entries.get_mut(self.vacant as usize) {
            entry.next = NONE;
        }
    }
}
