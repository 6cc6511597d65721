//! What the invariant checker sees of the frame table: its lists as they are stored.

use super::{FrameTable, NONE, State};

impl FrameTable {
    /// Frames that the table knows of: 0 up to this.
    pub(crate) fn limit(&self) -> u32 {
        self.info.len() as u32
    }

    /// The first frame of the list of free ones, and of the quarantine.
    pub(crate) const fn heads(&self) -> (u32, u32) {
        (self.free, self.quarantine)
    }

    /// The state of a frame and the next one of its list; `None` at a list's end.
    pub(crate) fn listed(&self, frame: u32) -> Option<(State, u32)> {
        self.info.get(frame as usize).filter(|_| frame != NONE).map(|i| (i.state, i.next))
    }
}

/// Damage that tests do on purpose.
#[cfg(test)]
impl FrameTable {
    pub(crate) fn damage_free_list(&mut self) {
        self.info[self.free as usize].next = NONE;
    }
}
