//! What the invariant checker sees of queues and timers: links and places as they are stored.

use super::{Alarm, HANDOVERS, Link, NONE, NOTIFICATIONS, PROCESSES, Queue, ReadyQueues, THREADS, Timers};

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
        let word = self.bitmap[usize::from(priority >> 6)];
        (&self.queues[usize::from(priority)], word >> (priority & 63) & 1 == 1)
    }

    /// The highest priority of a thread, of what else wants to run, and of both; −1 if there is none.
    pub(crate) const fn tops(&self) -> (i32, i32, i32) {
        (self.top, self.other, self.rival)
    }
}

impl Timers {
    /// The heap, earliest deadline first.
    pub(crate) fn heap(&self) -> &[(u64, Alarm)] {
        &self.heap
    }

    /// Where in the heap an alarm is said to be.
    pub(crate) fn place_of(&self, alarm: Alarm) -> Option<u32> {
        match alarm {
            Alarm::Thread(i) => some(self.thread_at[i as usize % THREADS]),
            Alarm::Notification(i) => some(self.notification_at[i as usize % NOTIFICATIONS]),
            Alarm::Handover(i) => some(self.handover_at[i as usize % HANDOVERS]),
            Alarm::Budget(i) => some(self.budget_at[i as usize % PROCESSES]),
        }
    }
}

/// Damage that tests do on purpose.
#[cfg(test)]
impl Queue {
    pub(crate) fn damage_tail(&mut self) {
        self.tail = 0;
    }
}

#[cfg(test)]
impl ReadyQueues {
    pub(crate) fn damage_bitmap(&mut self) {
        self.bitmap[0] |= 1;
    }
}

#[cfg(test)]
impl Timers {
    pub(crate) fn damage_order(&mut self) {
        self.heap[0].0 = u64::MAX;
    }
}
