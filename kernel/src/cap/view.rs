//! What the invariant checker sees of the table of capabilities: slots, links and chunks as they are stored.

use super::{ANCHOR, CHUNK, CSPACE, Cap, CapId, CapTable, NONE, PROCESSES, SLOTS, UP};

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

    /// Every capability in these chunks, a bit each, of the CSpace that stands at the place of the process in this
    /// slot, with its number.
    pub(crate) fn stored_in(&self, process: u32, chunks: u16) -> impl Iterator<Item = (u32, &Cap)> {
        let first = process as usize * CSPACE;
        let all = self.entries.get(first..first + CSPACE).unwrap_or_default().chunks(CHUNK).enumerate();
        all.filter(move |(chunk, _)| chunks >> chunk & 1 == 1).flat_map(move |(chunk, entries)| {
            let at = (first + chunk * CHUNK) as u32;
            entries.iter().zip(at..).filter_map(|(e, at)| Some((at, e.cap.as_ref()?)))
        })
    }

    /// Every capability in a chunk that its CSpace may use.
    pub(crate) fn stored_everywhere(&self) -> impl Iterator<Item = (u32, &Cap)> {
        (0..PROCESSES as u32).flat_map(|process| {
            // What stands for no capability is in a chunk that nobody may use.
            self.stored_in(process, self.usable(process))
        })
    }

    /// The links of a slot; none behind the table's end.
    pub(crate) fn links(&self, at: u32) -> Links {
        let of = |e: &super::Entry| [e.prev, e.next, e.first, e.last].map(way);
        let [prev, next, first, last] = self.entries.get(at as usize).map_or([Way::Nowhere; 4], of);
        Links { prev, next, first, last }
    }

    /// The chunks that the CSpace of the process in this slot may use, a bit each.
    pub(crate) fn usable(&self, process: u32) -> u16 {
        self.chunks.get(process as usize).copied().unwrap_or(0)
    }
}

impl CapId {
    /// The slot's number in the table.
    pub(crate) const fn number(self) -> u32 {
        self.0
    }
}

/// Damage that tests do on purpose.
#[cfg(test)]
impl CapTable {
    pub(crate) fn damage_first_child(&mut self, at: CapId) {
        self.entries[at.0 as usize].first = NONE;
    }
    pub(crate) fn damage_chunks(&mut self, process: u32, chunks: u16) {
        self.chunks[process as usize] = chunks;
    }
    pub(crate) fn damage_live(&mut self) {
        self.live += 1;
    }
    pub(crate) fn damage_cap(&mut self, at: CapId, change: impl FnOnce(&mut Option<Cap>)) {
        change(&mut self.entries[at.0 as usize].cap);
    }
    /// Lets two capabilities be each other's only child, cut off from the rest.
    pub(crate) fn damage_by_a_ring(&mut self, a: CapId, b: CapId) {
        for (one, other) in [(a, b), (b, a)] {
            let up = other.0 | UP;
            let e = &mut self.entries[one.0 as usize];
            (e.prev, e.next, e.first, e.last) = (up, up, other.0, other.0);
        }
    }
}
