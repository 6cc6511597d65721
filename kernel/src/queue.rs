//! Queues of threads and the timer heap. All storage is sized at boot.
//!
//! Invariant: a thread (by arena slot) is in at most one queue at a time; its link is part of it.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::arena::Arena;
use crate::handover::Handover;
use crate::objects::{Notification, Priced, Process, Thread};

mod view;

const NONE: u32 = u32::MAX;

/// A queue of threads, linked by their [`Link`]s.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Queue {
    head: u32,
    tail: u32,
}

impl Default for Queue {
    fn default() -> Self {
        Queue { head: NONE, tail: NONE }
    }
}

impl Queue {
    /// True if no thread waits.
    pub const fn is_empty(&self) -> bool {
        self.head == NONE
    }
    /// The only thread's slot; `None` if there are more. Of an empty queue it is one where there is no thread.
    #[inline(always)]
    pub const fn only_slot(&self) -> Option<u32> {
        if self.head == self.tail { Some(self.head) } else { None }
    }

    /// Empties the queue of its only thread.
    #[inline(always)]
    pub(crate) fn take_only(&mut self, link: &mut Link) {
        *self = Queue::default();
        link.queued = false;
    }

    /// Puts the only thread into an empty queue.
    #[inline(always)]
    pub(crate) fn put_only(&mut self, thread: u32, link: &mut Link, priority: u8) {
        *link = Link { prev: NONE, next: NONE, priority, queued: true };
        *self = Queue { head: thread, tail: thread };
    }

    /// The first thread's slot.
    pub const fn first(&self) -> Option<u32> {
        if self.head == NONE { None } else { Some(self.head) }
    }
}

/// A thread's place in the queue it is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link {
    prev: u32,
    next: u32,
    priority: u8,
    queued: bool,
}

impl Link {
    /// In no queue.
    pub const NONE: Link = Link { prev: NONE, next: NONE, priority: 0, queued: false };

    /// True if the thread is in a queue.
    pub const fn is_queued(&self) -> bool {
        self.queued
    }

    /// The priority it was queued with.
    pub const fn priority(&self) -> u8 {
        self.priority
    }
}

/// Slots of the arena of threads.
const THREADS: usize = Thread::SLOTS as usize;
/// Slots of the arena of notifications.
const NOTIFICATIONS: usize = Notification::SLOTS as usize;

/// Slots of the arena of Handovers.
const HANDOVERS: usize = Handover::SLOTS as usize;
/// Slots of the arena of processes.
const PROCESSES: usize = Process::SLOTS as usize;

/// Queues of the arena's threads.
impl<const N: usize> Arena<Thread, N> {
    #[inline(always)]
    fn link(&self, at: u32) -> &Link {
        &self.known(at).link
    }

    #[inline(always)]
    fn link_mut(&mut self, at: u32) -> &mut Link {
        &mut self.known_mut(at).link
    }

    /// The thread after this one in its queue.
    pub fn after(&self, thread: u32) -> Option<u32> {
        let next = self.link(thread).next;
        (next != NONE).then_some(next)
    }

    /// Links a thread in before `before`, or at the end.
    #[inline(always)]
    fn link_in(&mut self, q: &mut Queue, thread: u32, priority: u8, before: u32) {
        let prev = if before == NONE { q.tail } else { self.link(before).prev };
        *self.link_mut(thread) = Link { prev, next: before, priority, queued: true };
        if prev == NONE {
            q.head = thread
        } else {
            self.link_mut(prev).next = thread
        }
        if before == NONE { q.tail = thread } else { self.link_mut(before).prev = thread }
    }

    /// Puts the only thread into an empty queue.
    #[inline(always)]
    fn link_alone(&mut self, q: &mut Queue, thread: u32, priority: u8) {
        *self.link_mut(thread) = Link { prev: NONE, next: NONE, priority, queued: true };
        *q = Queue { head: thread, tail: thread };
    }

    /// Appends a thread.
    #[inline(always)]
    pub fn push_back(&mut self, q: &mut Queue, thread: u32, priority: u8) {
        if q.is_empty() {
            return self.link_alone(q, thread, priority);
        }
        self.link_in(q, thread, priority, NONE);
    }

    /// Puts a thread first.
    pub fn push_front(&mut self, q: &mut Queue, thread: u32, priority: u8) {
        self.link_in(q, thread, priority, q.head);
    }

    /// Inserts a thread behind all of at least its priority.
    #[inline(always)]
    pub fn enqueue(&mut self, q: &mut Queue, thread: u32, priority: u8) {
        if q.is_empty() {
            return self.link_alone(q, thread, priority);
        }
        self.enqueue_among(q, thread, priority);
    }

    fn enqueue_among(&mut self, q: &mut Queue, thread: u32, priority: u8) {
        let mut at = q.tail;
        let mut before = NONE;
        while at != NONE && self.link(at).priority < priority {
            before = at;
            at = self.link(at).prev;
        }
        self.link_in(q, thread, priority, before);
    }

    /// Takes a thread out of its queue; false if it is in none.
    #[inline(always)]
    pub fn dequeue(&mut self, q: &mut Queue, thread: u32) -> bool {
        let l = self.link_mut(thread);
        if !l.queued {
            return false;
        }
        l.queued = false;
        let (prev, next) = (l.prev, l.next);
        if prev == NONE && next == NONE {
            *q = Queue::default();
            return true;
        }
        self.unlink(q, prev, next);
        true
    }

    fn unlink(&mut self, q: &mut Queue, prev: u32, next: u32) {
        if prev == NONE {
            q.head = next
        } else {
            self.link_mut(prev).next = next
        }
        if next == NONE { q.tail = prev } else { self.link_mut(next).prev = prev }
    }

    /// Takes the first thread.
    pub fn pop(&mut self, q: &mut Queue) -> Option<u32> {
        let first = q.first()?;
        self.dequeue(q, first);
        Some(first)
    }
}

/// The runnable threads: one queue a priority and a bitmap of the non-empty ones.
pub struct ReadyQueues {
    queues: Box<[Queue; 256]>,
    bitmap: [u64; 4],
    /// The highest non-empty priority, or −1.
    top: i32,
    /// As `top`, or the priority of what else wants to run, if that is higher.
    rival: i32,
    /// The priority of what else wants to run, or −1.
    other: i32,
}

impl Default for ReadyQueues {
    fn default() -> Self {
        ReadyQueues {
            queues: Box::new([Queue::default(); 256]),
            bitmap: [0; 4],
            top: -1,
            rival: -1,
            other: -1,
        }
    }
}

impl ReadyQueues {
    /// Adds a thread behind (or, `first`, before) its equals.
    #[inline(always)]
    pub fn push<const N: usize>(
        &mut self,
        threads: &mut Arena<Thread, N>,
        thread: u32,
        priority: u8,
        first: bool,
    ) {
        let q = &mut self.queues[priority as usize];
        if first {
            threads.push_front(q, thread, priority);
        } else {
            threads.push_back(q, thread, priority);
        }
        self.bitmap[(priority >> 6) as usize] |= 1 << (priority & 63);
        self.top = self.top.max(priority.into());
        self.rival = self.rival.max(priority.into());
    }

    /// Removes a thread that was pushed with this priority.
    #[inline(always)]
    pub fn remove<const N: usize>(&mut self, threads: &mut Arena<Thread, N>, thread: u32, priority: u8) {
        let q = &mut self.queues[priority as usize];
        threads.dequeue(q, thread);
        if q.is_empty() {
            self.emptied(priority);
        }
    }

    fn scan(&self) -> i32 {
        let [w0, w1, w2, w3] = self.bitmap;
        let top = |word: u64, base: i32| base | word.checked_ilog2().unwrap_or(0) as i32;
        if w3 != 0 {
            top(w3, 192)
        } else if w2 != 0 {
            top(w2, 128)
        } else if w1 != 0 {
            top(w1, 64)
        } else if w0 != 0 {
            top(w0, 0)
        } else {
            -1
        }
    }

    /// The highest priority at which a thread is runnable.
    #[inline(always)]
    pub fn highest(&self) -> Option<u8> {
        u8::try_from(self.top).ok()
    }

    /// What else wants to run besides threads.
    pub fn set_other(&mut self, priority: Option<u8>) {
        self.other = priority.map_or(-1, i32::from);
        self.rival = self.top.max(self.other);
    }

    /// The highest priority of all that wants to run; −1 if nothing does.
    #[inline(always)]
    pub const fn rival(&self) -> i32 {
        self.rival
    }

    /// Takes the first thread of the highest priority, if nothing else has to be thought of: nobody but threads wants
    /// to run, none of them goes on with a slice of its own, and, unless the timer is `ticking`, no equal waits.
    #[inline(always)]
    pub fn take_simply<const N: usize>(
        &mut self,
        threads: &mut Arena<Thread, N>,
        ticking: bool,
    ) -> Option<u32> {
        let top = usize::try_from(self.top).ok().filter(|_| self.other < 0)?;
        let q = &mut self.queues[top % 256];
        let first = Arena::<Thread, N>::within(q.head);
        let t = threads.known_mut(first);
        if t.slice_left != 0 {
            return None;
        }
        if q.head == q.tail {
            q.take_only(&mut t.link);
            self.emptied(top as u8);
        } else if ticking {
            self.remove(threads, first, top as u8);
        } else {
            return None;
        }
        Some(first)
    }

    /// A queue has become empty.
    #[inline(always)]
    fn emptied(&mut self, priority: u8) {
        self.bitmap[(priority >> 6) as usize] &= !(1 << (priority & 63));
        if self.top == priority.into() {
            self.top = self.scan();
            self.rival = self.top.max(self.other);
        }
    }

    /// Takes the first thread of the highest priority.
    #[inline(always)]
    pub fn pop_highest<const N: usize>(&mut self, threads: &mut Arena<Thread, N>) -> Option<u32> {
        let priority = self.highest()?;
        let thread = self.queues[priority as usize].first()?;
        self.remove(threads, thread, priority);
        Some(thread)
    }

    /// Moves the threads that `moves` picks to other queues, in their order.
    pub(crate) fn move_to<const N: usize>(
        &mut self,
        other: &mut ReadyQueues,
        threads: &mut Arena<Thread, N>,
        moves: impl Fn(&Thread) -> bool,
    ) {
        for (base, mut levels) in [0u8, 64, 128, 192].into_iter().zip(self.bitmap) {
            while levels != 0 {
                let priority = base | levels.trailing_zeros() as u8;
                levels &= levels - 1;
                let mut at = self.queues[priority as usize].first();
                while let Some(thread) = at {
                    at = threads.after(thread);
                    if moves(threads.known(thread)) {
                        self.remove(threads, thread, priority);
                        other.push(threads, thread, priority, false);
                    }
                }
            }
        }
    }
}

/// Whom a timer wakes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Alarm {
    /// A thread's wait times out (arena slot).
    Thread(u32),
    /// A notification's alarm (arena slot).
    Notification(u32),
    /// A Handover's deadline (arena slot).
    Handover(u32),
    /// The end of a period whose amount a process has spent (arena slot).
    Budget(u32),
}

/// A binary heap of deadlines, at most one for each thread, notification, Handover and process.
pub struct Timers {
    heap: Vec<(u64, Alarm)>,
    thread_at: Box<[u32; THREADS]>,
    notification_at: Box<[u32; NOTIFICATIONS]>,
    handover_at: Box<[u32; HANDOVERS]>,
    budget_at: Box<[u32; PROCESSES]>,
}

impl Default for Timers {
    fn default() -> Self {
        Timers {
            heap: Vec::with_capacity(THREADS + NOTIFICATIONS + HANDOVERS + PROCESSES),
            thread_at: Box::new([NONE; THREADS]),
            notification_at: Box::new([NONE; NOTIFICATIONS]),
            handover_at: Box::new([NONE; HANDOVERS]),
            budget_at: Box::new([NONE; PROCESSES]),
        }
    }
}

impl Timers {
    #[inline(always)]
    fn place(&mut self, alarm: Alarm) -> &mut u32 {
        match alarm {
            Alarm::Thread(i) => &mut self.thread_at[i as usize % THREADS],
            Alarm::Notification(i) => &mut self.notification_at[i as usize % NOTIFICATIONS],
            Alarm::Handover(i) => &mut self.handover_at[i as usize % HANDOVERS],
            Alarm::Budget(i) => &mut self.budget_at[i as usize % PROCESSES],
        }
    }

    fn put(&mut self, at: usize, item: (u64, Alarm)) {
        if let Some(slot) = self.heap.get_mut(at) {
            *slot = item;
            *self.place(item.1) = at as u32;
        }
    }

    /// Sets (or replaces) a deadline.
    pub fn set(&mut self, alarm: Alarm, deadline: u64) {
        self.cancel(alarm);
        self.heap.push((deadline, alarm));
        self.sift_up(self.heap.len() - 1, (deadline, alarm));
    }

    /// Forgets a deadline, if one was set.
    #[inline(always)]
    pub fn cancel(&mut self, alarm: Alarm) {
        let at = core::mem::replace(self.place(alarm), NONE) as usize;
        if at < self.heap.len() {
            self.take_out(at);
        }
    }

    #[cold]
    fn take_out(&mut self, at: usize) {
        let Some(last) = self.heap.pop() else { return };
        if at < self.heap.len() {
            self.put(at, last);
            self.sift_down(at, last);
            let p = *self.place(last.1) as usize;
            self.sift_up(p, last);
        }
    }

    /// An alarm's deadline, if one is set.
    pub fn deadline(&self, alarm: Alarm) -> Option<u64> {
        let at = self.place_of(alarm)?;
        self.heap.get(at as usize).map(|(deadline, _)| *deadline)
    }

    /// The earliest deadline.
    pub fn next(&self) -> Option<u64> {
        self.heap.first().map(|t| t.0)
    }

    /// Takes the earliest deadline if it is not after `now`.
    pub fn pop_due(&mut self, now: u64) -> Option<Alarm> {
        let &(deadline, alarm) = self.heap.first()?;
        if deadline > now {
            return None;
        }
        self.cancel(alarm);
        Some(alarm)
    }

    fn sift_up(&mut self, mut at: usize, item: (u64, Alarm)) {
        while at > 0 {
            let parent = (at - 1) / 2;
            let above = self.heap[parent];
            if above.0 <= item.0 {
                break;
            }
            self.put(at, above);
            at = parent;
        }
        self.put(at, item);
    }

    fn sift_down(&mut self, mut at: usize, item: (u64, Alarm)) {
        loop {
            let (left, right) = (2 * at + 1, 2 * at + 2);
            let smaller = match (self.heap.get(left), self.heap.get(right)) {
                (Some(l), Some(r)) if r.0 < l.0 => right,
                (Some(_), _) => left,
                _ => break,
            };
            let below = self.heap[smaller];
            if below.0 >= item.0 {
                break;
            }
            self.put(at, below);
            at = smaller;
        }
        self.put(at, item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn queue_orders_by_priority_then_arrival() {
        let mut l: Arena<Thread, 512> = Arena::new(8).unwrap();
        let mut q = Queue::default();
        for (t, p) in [(0, 5), (1, 9), (2, 5), (3, 9), (4, 1)] {
            l.enqueue(&mut q, t, p);
        }
        assert!(l.dequeue(&mut q, 2));
        assert!(!l.dequeue(&mut q, 2));
        let order: Vec<u32> = core::iter::from_fn(|| l.pop(&mut q)).collect();
        assert_eq!(order, [1, 3, 0, 4]);
    }

    #[test]
    fn ready_queues_yield_the_highest_first_and_rotate() {
        let mut l: Arena<Thread, 512> = Arena::new(8).unwrap();
        let mut r = ReadyQueues::default();
        r.push(&mut l, 0, 10, false);
        r.push(&mut l, 1, 255, false);
        r.push(&mut l, 2, 10, false);
        r.push(&mut l, 3, 10, true);
        r.remove(&mut l, 0, 10);
        let order: Vec<u32> = core::iter::from_fn(|| r.pop_highest(&mut l)).collect();
        assert_eq!(order, [1, 3, 2]);
        assert_eq!(r.highest(), None);
    }

    #[test]
    fn every_one_of_256_priorities_has_its_place() {
        let mut l: Arena<Thread, 512> = Arena::new(256).unwrap();
        let mut r = ReadyQueues::default();
        for t in 0..256u32 {
            // An odd factor visits every priority once.
            r.push(&mut l, t, (t * 77) as u8, false);
        }
        for priority in (0..=255u8).rev() {
            assert_eq!(r.highest(), Some(priority));
            let first = r.pop_highest(&mut l).unwrap();
            assert_eq!((first * 77) as u8, priority);
        }
        assert_eq!(r.highest(), None);
    }

    #[test]
    fn moving_to_other_queues_keeps_the_order_and_leaves_the_rest() {
        let mut l: Arena<Thread, 512> = Arena::new(16).unwrap();
        let (mut from, mut to) = (ReadyQueues::default(), ReadyQueues::default());
        for (t, p) in [(0, 255), (1, 64), (2, 255), (3, 0), (4, 64), (5, 255)] {
            l.known_mut(t).call = u64::from(t != 2 && t != 4);
            from.push(&mut l, t, p, false);
        }
        from.move_to(&mut to, &mut l, |t| t.call == 1);
        let mut order =
            |r: &mut ReadyQueues| -> Vec<u32> { core::iter::from_fn(|| r.pop_highest(&mut l)).collect() };
        assert_eq!(order(&mut to), [0, 5, 1, 3]);
        assert_eq!(order(&mut from), [2, 4]);
        assert_eq!((from.highest(), to.highest()), (None, None));
    }

    proptest! {
        #[test]
        fn timers_agree_with_a_sorted_list(ops in proptest::collection::vec((0u8..3, 0u32..18, 0u64..50), 1..200)) {
            let mut t = Timers::default();
            let mut model: std::collections::BTreeMap<u32, u64> = Default::default();
            for (op, who, when) in ops {
                let alarm = match who {
                    0..8 => Alarm::Thread(who),
                    8..12 => Alarm::Notification(who - 8),
                    12..15 => Alarm::Handover(who - 12),
                    _ => Alarm::Budget(who - 15),
                };
                match op {
                    0 => { t.set(alarm, when); model.insert(who, when); }
                    1 => { t.cancel(alarm); model.remove(&who); }
                    _ => {
                        let due = t.pop_due(when);
                        let first = model.values().min().copied().filter(|d| *d <= when);
                        prop_assert_eq!(due.is_some(), first.is_some());
                        if let Some(a) = due {
                            let key = match a {
                                Alarm::Thread(i) => i,
                                Alarm::Notification(i) => i + 8,
                                Alarm::Handover(i) => i + 12,
                                Alarm::Budget(i) => i + 15,
                            };
                            prop_assert_eq!(model.remove(&key), first);
                        }
                    }
                }
                prop_assert_eq!(t.next(), model.values().min().copied());
            }
        }
    }
}
