//! What the invariant checker sees of queues and timers: links and places as they are stored.

use super::{Alarm, Link, NONE, NOTIFICATIONS, Queue, ReadyQueues, THREADS, Timers};

const fn some(slot: u32) -> Option<u32> {
    if slot == NONE { None } else { Some(slot) }
}

impl Queue {
    /// First and last thread.
    pub(crate) const fn ends(&self) -> (Option<u32>, Option<u32>) {
        (some(self.head), some(self.tail))
    }
}

impl Link {
    /// The threads before and behind.
    pub(crate) const fn neighbours(&self) -> (Option<u32>, Option<u32>) {
        (some(self.prev), some(self.next))
    }
}

impl ReadyQueues {
    /// The queue of a priority, and whether the bitmap says that it holds a thread.
    pub(crate) fn level(&self, priority: u8) -> (&Queue, bool) {
        let bit = self.bitmap[usize::from(priority >> 6)] >> (priority & 63) & 1;
        (&self.queues[usize::from(priority)], bit == 1)
    }
}

impl Timers {
    /// The heap, earliest deadline first.
    pub(crate) fn heap(&self) -> &[(u64, Alarm)] {
        &self.heap
    }

    /// Where in the heap the alarm of a thread's or a notification's slot is said to be.
    pub(crate) fn place_of(&self, alarm: Alarm) -> Option<u32> {
        match alarm {
            Alarm::Thread(i) => some(self.thread_at[i as usize % THREADS]),
            Alarm::Notification(i) => some(self.notification_at[i as usize % NOTIFICATIONS]),
        }
    }
}
