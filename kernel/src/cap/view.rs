//! What the invariant checker sees of the table of capabilities: slots, links and chunks as they are stored.

use super::{ANCHOR, CHUNK, Cap, CapId, CapTable, NONE, SLOTS, UP};
use crate::objects::ProcessId;

/// Slots of the whole table.
pub(crate) const ALL_SLOTS: usize = SLOTS;
/// The parent of all roots.
pub(crate) const ROOT: u32 = ANCHOR;

/// Where a link leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    /// Nowhere.
    Nowhere,
    /// To a sibling or child.
    To(u32),
    /// Up to the parent.
    Up(u32),
}

/// The links of a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Links {
    pub prev: Way,
    pub next: Way,
    pub first: Way,
    pub last: Way,
}

const fn way(link: u32) -> Way {
    match link {
        NONE => Way::Nowhere,
        up if up & UP != 0 => Way::Up(up & !UP),
        at => Way::To(at),
    }
}

impl CapTable {
    /// The capability in a slot of the table; `None` behind its end.
    pub(crate) fn stored(&self, at: u32) -> Option<&Cap> {
        self.entries.get(at as usize)?.cap.as_ref()
    }

    /// The links of a slot; none behind the table's end.
    pub(crate) fn links(&self, at: u32) -> Links {
        let of = |e: &super::Entry| [e.prev, e.next, e.first, e.last].map(way);
        let [prev, next, first, last] = self.entries.get(at as usize).map_or([Way::Nowhere; 4], of);
        Links { prev, next, first, last }
    }

    /// The owners of all chunks, by number; chunk 0 is nobody's.
    pub(crate) fn owners(&self) -> &[Option<ProcessId>] {
        &self.owners
    }

    /// The chunks that are free.
    pub(crate) fn free_chunks(&self) -> &[u16] {
        &self.free_chunks
    }
}

impl CapId {
    /// The slot's number in the table.
    pub(crate) const fn number(self) -> u32 {
        self.0
    }
}

/// The chunk of a slot of the table, and its place there.
pub(crate) const fn chunk_and_offset(at: u32) -> (usize, usize) {
    (at as usize / CHUNK, at as usize % CHUNK)
}
