//! Scheduling: which context a CPU runs next.
//!
//! The highest priority runs; equals take turns in slices of [`SLICE`]; who has spent its budget comes after all others
//! (`budget`). The verification context takes part like a thread, at the priority of its most urgent requester. The
//! timer is only armed for a deadline, for an equal that waits, or for the end of a budget, so an idle CPU halts.

use core::ptr::NonNull;

use sila_abi::Error;
use sila_abi::syscall::{FOREVER, Outcome};

use crate::budget::{FRESH, in_foreground};
use crate::kernel::{Attention, Kernel, Running};
use crate::machine::{Machine, Next};
use crate::objects::*;
use crate::queue::Alarm;

/// Nanoseconds a thread runs before an equal takes its turn; up to twice as many if the equal came while the timer was
/// set for an earlier slice.
pub const SLICE: u64 = 10_000_000;
/// Timers that one entry runs.
const ALARMS_PER_ENTRY: u32 = 16;

/// Nanoseconds after which the reaper gets its turn though no thread enters the kernel.
pub const REAP_TICK: u64 = 1_000_000;

impl Kernel {
    /// The thread in an arena slot.
    pub(crate) fn thread_at(&self, index: u32) -> Option<ThreadId> {
        self.threads.at(index).map(|(id, _)| id)
    }

    /// Lets a thread that waits for nothing (any more) run.
    #[inline]
    pub(crate) fn make_ready(&mut self, id: ThreadId) {
        let Some(t) = self.threads.get_mut(id) else { return };
        t.state = ThreadState::Ready;
        let priority = t.effective;
        self.push_ready(id.index(), false);
        self.consider(priority);
    }

    /// Something of this priority wants to run: if nothing above it does, there is a choice to be made.
    #[inline(always)]
    fn consider(&mut self, priority: u8) {
        if let Running::Thread(now) = self.running() {
            let t = self.threads.known(now.index());
            // The tick lets equals take turns. A thread with a budget may run in the background.
            let behind = t.effective > priority || (self.ticking && t.effective == priority);
            if behind && !t.quirks.contains(Quirks::BUDGETED) {
                return;
            }
        }
        self.attention |= Attention::SCHEDULE;
    }

    /// Writes a system call's result into a thread's registers. Words that are not given keep their values.
    #[inline(always)]
    pub(crate) fn complete(&mut self, id: ThreadId, outcome: Outcome, badge: u64, words: &[u64]) {
        if let Some(t) = self.threads.get_mut(id) {
            let r = &mut t.context.registers;
            r.rax = outcome.0;
            r.rdi = badge;
            let places = [&mut r.rsi, &mut r.rdx, &mut r.r10, &mut r.r8, &mut r.r9, &mut r.r12];
            for (place, word) in places.into_iter().zip(words) {
                *place = *word;
            }
        }
    }

    /// Ends a thread's wait with a result.
    #[inline]
    pub(crate) fn wake(&mut self, id: ThreadId, outcome: Outcome, badge: u64, words: &[u64]) {
        self.leave_wait(id);
        self.complete(id, outcome, badge, words);
        self.make_ready(id);
    }

    /// Ends a thread's wait with an error. A thread that waits for its fault to be handled has nothing to
    /// go on with: its process ends.
    pub(crate) fn wake_error(&mut self, id: ThreadId, error: Error) {
        // Of a thread that has gone, what stands in its slot has no fault, and waking it does nothing.
        if self.threads.known(id.index()).fault.is_some() {
            self.leave_wait(id);
            self.doom(id);
            return;
        }
        self.wake(id, Outcome::error(error, 0), 0, &[]);
    }

    /// Takes a thread out of whatever it waits in; it is then in no queue and has no deadline.
    pub(crate) fn leave_wait(&mut self, id: ThreadId) {
        let Some(t) = self.threads.get(id) else { return };
        let (state, effective) = (t.state, t.effective);
        match state {
            ThreadState::Ready => self.remove_ready(id.index(), effective),
            ThreadState::Sending { endpoint, .. } => {
                if let Some(e) = self.endpoints.get_mut(endpoint) {
                    self.threads.dequeue(&mut e.senders, id.index());
                }
            }
            ThreadState::Receiving { endpoint } => {
                if let Some(e) = self.endpoints.get_mut(endpoint) {
                    self.threads.dequeue(&mut e.receivers, id.index());
                }
            }
            ThreadState::Waiting { notification } => {
                if let Some(n) = self.notifications.get_mut(notification) {
                    self.threads.dequeue(&mut n.waiters, id.index());
                }
            }
            ThreadState::Verifying => self.abandon_verification(id),
            ThreadState::Running if self.running() == Running::Thread(id) => {
                self.set_running(Running::Idle);
                self.attention |= Attention::SCHEDULE;
            }
            _ => {}
        }
        let t = self.threads.known_mut(id.index());
        t.state = ThreadState::Inactive;
        if t.quirks.contains(Quirks::TIMED) {
            t.quirks -= Quirks::TIMED;
            self.timers.cancel(Alarm::Thread(id.index()));
        }
    }

    /// Sets the deadline of the wait a thread is about to begin.
    #[inline]
    pub(crate) fn start_wait(&mut self, id: ThreadId, state: ThreadState, deadline: u64) {
        let Some(t) = self.threads.get_mut(id) else { return };
        t.state = state;
        if deadline != FOREVER {
            t.quirks |= Quirks::TIMED;
            self.timers.set(Alarm::Thread(id.index()), deadline);
            self.attention |= Attention::SCHEDULE;
        }
        if self.running() == Running::Thread(id) {
            self.set_running(Running::Idle);
            self.attention |= Attention::SCHEDULE;
        }
    }

    /// Changes the priority a thread runs at, and its place in the queue it waits in: behind those of that priority.
    #[inline]
    pub(crate) fn set_effective(&mut self, id: ThreadId, priority: u8) {
        let Some(t) = self.threads.get_mut(id) else { return };
        let old = core::mem::replace(&mut t.effective, priority);
        if old == priority {
            return;
        }
        match t.state {
            ThreadState::Ready => {
                self.remove_ready(id.index(), old);
                self.push_ready(id.index(), false);
            }
            ThreadState::Running | ThreadState::Inactive | ThreadState::AwaitingReply => {}
            state => self.requeue(id, state, priority),
        }
        self.attention |= Attention::SCHEDULE;
    }

    /// Gives a waiting thread the place in its queue that its new priority deserves.
    #[cold]
    fn requeue(&mut self, id: ThreadId, state: ThreadState, priority: u8) {
        let queue = match state {
            ThreadState::Sending { endpoint, .. } => self.endpoints.get_mut(endpoint).map(|e| &mut e.senders),
            ThreadState::Receiving { endpoint } => self.endpoints.get_mut(endpoint).map(|e| &mut e.receivers),
            ThreadState::Waiting { notification } => {
                self.notifications.get_mut(notification).map(|n| &mut n.waiters)
            }
            ThreadState::Verifying => return self.verifier.reprioritise(id, priority),
            _ => None,
        };
        if let Some(queue) = queue
            && self.threads.dequeue(queue, id.index())
        {
            self.threads.enqueue(queue, id.index(), priority);
        }
    }

    /// Runs timers that are due; true if there was one. Those that are left make the timer fire again at once.
    pub(crate) fn run_timers(&mut self, m: &mut impl Machine) -> bool {
        let now = m.now();
        for done in 0..ALARMS_PER_ENTRY {
            let Some(alarm) = self.timers.pop_due(now) else { return done > 0 };
            match alarm {
                Alarm::Thread(i) => {
                    if let Some(id) = self.thread_at(i) {
                        self.threads.known_mut(i).quirks -= Quirks::TIMED;
                        self.wake_error(id, Error::Timeout);
                    }
                }
                Alarm::Notification(i) => {
                    if let Some((id, flags)) = self.notifications.at(i).map(|(id, n)| (id, n.alarm_flags)) {
                        self.signal(id, flags);
                    }
                }
                Alarm::Handover(i) => self.handover_deadline(m, i),
                Alarm::Budget(i) => {
                    // As much work as many of the others.
                    self.begin_period(i, now);
                    return true;
                }
            }
        }
        true
    }

    /// Chooses what the CPU does next and arms the timer for it.
    pub(crate) fn schedule(&mut self, m: &mut impl Machine) -> Next {
        self.book(m);
        self.attention -= Attention::SCHEDULE;
        self.ready.set_other(self.verification_claim().and_then(in_foreground));
        if self.running() != Running::Idle {
            self.put_back_preempted(m);
        }
        if self.running() == Running::Idle {
            self.pick(m);
        }
        self.charge_running(m);
        self.arm_timer(m);
        match self.running() {
            Running::Idle => Next::Idle,
            Running::Verification => Next::Verification,
            Running::Thread(id) => self.resume_thread(id),
        }
    }

    /// Goes on with a thread that is known to live.
    #[inline(always)]
    pub(crate) fn resume_thread(&mut self, id: ThreadId) -> Next {
        Next::Thread(NonNull::from(&mut self.threads.known_mut(id.index()).context))
    }

    /// Puts the running context back if something else should run.
    fn put_back_preempted(&mut self, m: &mut impl Machine) {
        let best = self.ready_claim();
        let verification = self.verification_claim();
        match self.running() {
            Running::Thread(id) => {
                let Some(own) = self.threads.get(id).map(|t| self.thread_claim(t)) else {
                    self.set_running(Running::Idle);
                    return;
                };
                let own = Some(own);
                let rival = best.max(verification);
                if rival < own {
                    return;
                }
                let expired = self.slice_is_over(m);
                if rival > own || expired {
                    let left = if expired { 0 } else { self.slice_left(m) };
                    let t = self.threads.known_mut(id.index());
                    t.state = ThreadState::Ready;
                    t.slice_left = left;
                    self.push_ready(id.index(), !expired);
                    self.set_running(Running::Idle);
                }
            }
            Running::Verification => {
                let expired = best == verification && self.slice_is_over(m);
                if verification.is_none() || best > verification || expired {
                    self.set_running(Running::Idle);
                }
            }
            Running::Idle => {}
        }
    }

    /// True if the running context has had its slice; a slice begins when an equal begins to wait.
    fn slice_is_over(&mut self, m: &mut impl Machine) -> bool {
        let now = m.now();
        if self.slice_end == 0 {
            self.slice_end = now + SLICE;
        }
        now >= self.slice_end
    }

    /// What is left of the running thread's slice; 0 if none has begun.
    fn slice_left(&self, m: &mut impl Machine) -> u64 {
        if self.slice_end == 0 { 0 } else { self.slice_end.saturating_sub(m.now()).max(1) }
    }

    fn pick(&mut self, m: &mut impl Machine) {
        let best = self.ready_claim();
        let verification = self.verification_claim();
        let tie = verification.is_some() && verification == best;
        let verify = verification > best || (tie && self.verifier.turn);
        if tie {
            // Equals take turns whatever made this choice necessary.
            self.verifier.turn = !self.verifier.turn;
        }
        self.slice_end = 0;
        if verify {
            self.dispatch_verification(m);
            self.set_running(Running::Verification);
            self.counters.verification_choices += 1;
            return;
        }
        let Some(index) = self.pop_ready() else {
            self.counters.idle_choices += 1;
            return;
        };
        self.counters.thread_choices += 1;
        let t = self.threads.known_mut(index);
        t.state = ThreadState::Running;
        let left = core::mem::take(&mut t.slice_left);
        if left != 0 && left != FRESH {
            self.slice_end = m.now() + left;
        }
        self.set_running(Running::Thread(self.threads.id_at(index)));
    }

    fn arm_timer(&mut self, m: &mut impl Machine) {
        let own = match self.running() {
            Running::Thread(id) => Some(self.thread_claim(self.threads.known(id.index()))),
            Running::Verification => self.verification_claim(),
            Running::Idle => None,
        };
        let mut deadline = self.timers.next().unwrap_or(FOREVER);
        if let Some(spent) = self.payer_spent_at() {
            deadline = deadline.min(spent);
        }
        let rival = if self.running() == Running::Verification {
            self.ready_claim()
        } else {
            self.ready_claim().max(self.verification_claim())
        };
        if own.is_some() && rival == own && !(self.ticking && self.slice_end == 0) {
            if self.slice_end == 0 {
                self.slice_end = m.now() + SLICE;
            }
            deadline = deadline.min(self.slice_end);
            self.ticking = true;
        }
        if !self.nothing_to_reap() {
            deadline = deadline.min(m.now().saturating_add(REAP_TICK));
        }
        // A timer that is set for an earlier time finds nothing due, and is then set anew; only an idle CPU is not to be
        // woken for nothing.
        let idle = self.running() == Running::Idle;
        if deadline < self.armed || (idle && deadline != self.armed) {
            self.ticking &= !idle;
            self.armed = deadline;
            m.set_timer(deadline);
        }
    }
}
