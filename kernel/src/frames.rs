//! The frame table: which physical frames are free, used or in quarantine.
//!
//! Invariants: a frame is in exactly one state; only a free frame is handed out; a frame that user
//! space could write a moment ago is in quarantine until every CPU has flushed past the epoch in which
//! it was unmapped. Zeroing is the taker's task: frames are handed out with old contents.

use alloc::vec;
use alloc::vec::Vec;

use crate::machine::Frame;

mod view;

/// State of one frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Not the allocator's: firmware, kernel, bundle, devices.
    Unmanaged,
    /// In the free list.
    Free,
    /// Handed out.
    Used,
    /// Unmapped, but a CPU may still hold a stale translation.
    Quarantined,
}

#[derive(Clone, Copy)]
struct Info {
    next: u32,
    state: State,
}

const NONE: u32 = u32::MAX;

/// A moment in the history of unmapping; grows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Epoch(u64);

/// All physical frames up to the highest usable one.
pub struct FrameTable {
    info: Vec<Info>,
    free: u32,
    free_count: u32,
    quarantine: u32,
    quarantined: u32,
    total: u32,
    current: Epoch,
    flushed: Epoch,
}

impl FrameTable {
    /// A table over frames 0 to `limit` − 1, none of them managed yet.
    pub fn new(limit: u32) -> Self {
        FrameTable {
            info: vec![Info { next: NONE, state: State::Unmanaged }; limit as usize],
            free: NONE,
            free_count: 0,
            quarantine: NONE,
            quarantined: 0,
            total: 0,
            current: Epoch(1),
            flushed: Epoch(1),
        }
    }

    /// Gives an unmanaged frame to the allocator. Does nothing if it is managed or out of range.
    pub fn add(&mut self, frame: Frame) {
        if self.state(frame) == Some(State::Unmanaged) {
            self.push_free(frame);
            self.total += 1;
        }
    }

    /// The frame's state; `None` above the table.
    pub fn state(&self, frame: Frame) -> Option<State> {
        self.info.get(frame.0 as usize).map(|i| i.state)
    }

    /// True if the frame is the allocator's, free or not.
    pub fn is_managed(&self, frame: Frame) -> bool {
        self.state(frame).is_some_and(|s| s != State::Unmanaged)
    }

    /// Frames the allocator owns.
    pub const fn total(&self) -> u32 {
        self.total
    }
    /// Frames free.
    pub const fn free_count(&self) -> u32 {
        self.free_count
    }
    /// Frames in quarantine.
    pub const fn quarantined(&self) -> u32 {
        self.quarantined
    }

    /// Takes a free frame.
    #[inline(always)]
    pub fn take(&mut self) -> Option<Frame> {
        let frame = self.free;
        let info = self.info.get_mut(frame as usize)?;
        self.free = info.next;
        info.state = State::Used;
        self.free_count -= 1;
        Some(Frame(frame))
    }

    fn push_free(&mut self, frame: Frame) {
        let head = self.free;
        if let Some(info) = self.info.get_mut(frame.0 as usize) {
            *info = Info { next: head, state: State::Free };
            self.free = frame.0;
            self.free_count += 1;
        }
    }

    /// Gives back a frame that no CPU can reach by a stale translation. Only a used frame is taken back.
    pub fn put(&mut self, frame: Frame) -> bool {
        let used = self.state(frame) == Some(State::Used);
        if used {
            self.push_free(frame);
        }
        used
    }

    /// Gives back a frame that was mapped until now: it becomes free when the flush after this epoch is
    /// complete.
    pub fn quarantine(&mut self, frame: Frame) -> bool {
        let used = self.state(frame) == Some(State::Used);
        if used && let Some(info) = self.info.get_mut(frame.0 as usize) {
            *info = Info { next: self.quarantine, state: State::Quarantined };
            self.quarantine = frame.0;
            self.quarantined += 1;
        }
        used
    }

    /// Opens an epoch for translations that were just removed; they are gone once
    /// [`FrameTable::is_flushed`] holds for it.
    pub fn open_epoch(&mut self) -> Epoch {
        self.current = Epoch(self.current.0 + 1);
        self.current
    }

    /// True if every CPU has flushed past this epoch.
    pub fn is_flushed(&self, epoch: Epoch) -> bool {
        epoch <= self.flushed
    }

    /// Every CPU has flushed: all epochs so far are past, the quarantine is released.
    #[inline(always)]
    pub fn flush_complete(&mut self) {
        self.flushed = self.current;
        if self.quarantined > 0 {
            self.release();
        }
    }

    #[cold]
    fn release(&mut self) {
        while let Some(info) = self.info.get(self.quarantine as usize) {
            let (frame, next) = (self.quarantine, info.next);
            self.push_free(Frame(frame));
            self.quarantine = next;
            self.quarantined -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> FrameTable {
        let mut t = FrameTable::new(8);
        for f in 2..6 {
            t.add(Frame(f));
        }
        t
    }

    #[test]
    fn frames_are_handed_out_once_and_only_if_managed() {
        let mut t = table();
        let mut seen = std::vec::Vec::new();
        while let Some(f) = t.take() {
            assert!((2..6).contains(&f.0));
            assert!(!seen.contains(&f));
            seen.push(f);
        }
        assert_eq!(seen.len(), 4);
        assert!(!t.put(Frame(0)));
        assert!(t.put(Frame(3)));
        assert!(!t.put(Frame(3)), "a frame cannot be freed twice");
        assert_eq!(t.free_count(), 1);
    }

    #[test]
    fn quarantined_frames_are_not_reused_before_the_flush() {
        let mut t = table();
        let f = t.take().unwrap();
        while t.take().is_some() {}
        assert!(t.quarantine(f));
        assert_eq!(t.take(), None);
        assert!(!t.put(f));
        t.flush_complete();
        assert_eq!(t.take(), Some(f));
    }

    #[test]
    fn an_epoch_is_flushed_only_by_a_later_flush() {
        let mut t = table();
        let e = t.open_epoch();
        assert!(!t.is_flushed(e));
        t.flush_complete();
        assert!(t.is_flushed(e));
        assert!(!t.is_flushed(Epoch(e.0 + 1)));
    }
}
