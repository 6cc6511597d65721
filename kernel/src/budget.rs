//! CPU budgets: how long the threads of a process may run in each period before those of all others come first.
//!
//! A process that has run for its amount is *spent*: until its next period its threads compete in the background band,
//! below every thread of a process that is not. What runs is booked at every choice of the scheduler ([`Kernel::book`])
//! to one payer: the process of the running thread, or that of the request that the verification context works on.
//! Nothing is booked on the fast paths: the threads of a process with a budget carry [`Quirks::BUDGETED`], which keeps
//! them on the general path, whose every switch passes the scheduler.
//!
//! Invariants: while it is ready, a thread stands in the band that its process competes in; a spent process has an
//! alarm for the end of its period, and no other process has one.

use sila_abi::Error;

use crate::invoke::{Flow, Invocation};
use crate::kernel::{Attention, Fail, Kernel, Running};
use crate::machine::Machine;
use crate::objects::*;
use crate::queue::{Alarm, ReadyQueues};

/// The shortest period, ns.
pub const PERIOD_MIN: u64 = 100_000;
/// The longest period, ns.
pub const PERIOD_MAX: u64 = 10_000_000_000;
/// The smallest amount, ns.
pub const AMOUNT_MIN: u64 = 10_000;

/// Marks a slice that has not begun, in [`Thread::slice_left`]: the fast path leaves a ready thread alone whose value is
/// not 0.
pub(crate) const FRESH: u64 = u64::MAX;

/// How long a process may run in each period, and how long it has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Budget {
    /// Length of a period, ns; 0 if the process has no budget.
    pub period: u64,
    /// How long its threads may run in a period, ns.
    pub amount: u64,
    /// When the current period began.
    pub begun: u64,
    /// How long they have run in it, and what they ran too long before, ns.
    pub used: u64,
    /// The amount was used up: until the next period its threads run in the background.
    pub spent: bool,
}

impl Budget {
    /// A budget whose first period begins now; `None` outside of the bounds.
    pub fn new(period: u64, amount: u64, now: u64) -> Option<Self> {
        let fits = (PERIOD_MIN..=PERIOD_MAX).contains(&period) && (AMOUNT_MIN..=period).contains(&amount);
        fits.then_some(Budget { period, amount, begun: now, used: 0, spent: false })
    }

    /// True if there is one.
    pub const fn is_set(&self) -> bool {
        self.period != 0
    }

    /// When the current period ends.
    pub const fn end(&self) -> u64 {
        self.begun.saturating_add(self.period)
    }

    /// What is left of the amount.
    pub const fn left(&self) -> u64 {
        self.amount.saturating_sub(self.used)
    }

    /// Begins the period that it is now, if another one is under way. What was run beyond the amount of a period counts
    /// in the next ones; what was not run is lost.
    pub fn renew(&mut self, now: u64) {
        if now >= self.end() {
            let more = now.saturating_sub(self.end()).checked_div(self.period).unwrap_or(0);
            self.pass(more.saturating_add(1));
        }
    }

    /// So many periods have passed.
    fn pass(&mut self, periods: u64) {
        self.begun = self.begun.saturating_add(self.period.saturating_mul(periods));
        self.used = self.used.saturating_sub(self.amount.saturating_mul(periods));
    }

    /// Books the time from `from` to `now`, which ran; true if the amount is used up now.
    pub fn book(&mut self, from: u64, now: u64) -> bool {
        self.renew(from);
        let end = self.end();
        if now >= end {
            // It ran to the period's end, and through every period since then but the last.
            self.used = self.used.saturating_add(end.saturating_sub(from));
            self.pass(1);
            self.used = self.used.saturating_add(now.saturating_sub(end));
            self.pass(now.saturating_sub(end).checked_div(self.period).unwrap_or(0));
        } else {
            self.used = self.used.saturating_add(now.saturating_sub(from));
        }
        self.spent = self.used >= self.amount;
        self.spent
    }
}

/// What a context competes with for the CPU: its priority, and 256 more unless it stands in the background band.
pub(crate) type Claim = u16;

/// The claim of a priority outside of the background band.
pub(crate) fn foreground(priority: u8) -> Claim {
    Claim::from(priority) | 256
}

/// The priority of a claim that is not of the background band.
pub(crate) fn in_foreground(claim: Claim) -> Option<u8> {
    (claim > u8::MAX.into()).then_some(priority_of(claim))
}

/// The priority of a claim, in whichever band.
pub(crate) const fn priority_of(claim: Claim) -> u8 {
    claim as u8
}

/// What the scheduler knows of budgets.
#[derive(Default)]
pub(crate) struct Budgets {
    /// The ready threads of spent processes.
    pub background: ReadyQueues,
    /// Whose budget pays for what runs.
    pub payer: Option<ProcessId>,
    /// Up to when it was booked.
    pub since: u64,
}

impl Kernel {
    /// True if a thread stands in the background band when it is ready.
    #[inline(always)]
    fn is_spent(&self, t: &Thread) -> bool {
        t.quirks.contains(Quirks::BUDGETED) && self.processes.known(t.process.index()).budget.spent
    }

    /// Puts a thread, whose state says that it is ready, behind (or, `first`, before) its equals.
    #[inline(always)]
    pub(crate) fn push_ready(&mut self, index: u32, first: bool) {
        let t = self.threads.known(index);
        let (priority, budgeted) = (t.effective, t.quirks.contains(Quirks::BUDGETED));
        if budgeted {
            return self.push_budgeted(index, first);
        }
        self.ready.push(&mut self.threads, index, priority, first);
    }

    #[cold]
    fn push_budgeted(&mut self, index: u32, first: bool) {
        let spent = self.is_spent(self.threads.known(index));
        let t = self.threads.known_mut(index);
        let priority = t.effective;
        if t.slice_left == 0 {
            t.slice_left = FRESH;
        }
        let band = if spent { &mut self.budgets.background } else { &mut self.ready };
        band.push(&mut self.threads, index, priority, first);
    }

    /// Takes a ready thread, queued with this priority, out of its band.
    #[inline(always)]
    pub(crate) fn remove_ready(&mut self, index: u32, priority: u8) {
        if self.is_spent(self.threads.known(index)) {
            return self.budgets.background.remove(&mut self.threads, index, priority);
        }
        self.ready.remove(&mut self.threads, index, priority);
    }

    /// Takes the ready thread with the strongest claim.
    #[inline(always)]
    pub(crate) fn pop_ready(&mut self) -> Option<u32> {
        match self.ready.pop_highest(&mut self.threads) {
            None => self.budgets.background.pop_highest(&mut self.threads),
            found => found,
        }
    }

    /// The strongest claim of a ready thread.
    #[inline(always)]
    pub(crate) fn ready_claim(&self) -> Option<Claim> {
        match self.ready.highest() {
            Some(priority) => Some(foreground(priority)),
            None => self.budgets.background.highest().map(Claim::from),
        }
    }

    /// A thread's claim.
    #[inline(always)]
    pub(crate) fn thread_claim(&self, t: &Thread) -> Claim {
        if self.is_spent(t) { t.effective.into() } else { foreground(t.effective) }
    }

    /// The claim of a verification that a thread asked for.
    pub(crate) fn request_claim(&self, thread: Option<ThreadId>, priority: u8) -> Claim {
        match thread.and_then(|t| self.threads.get(t)) {
            Some(t) if self.is_spent(t) => priority.into(),
            Some(_) => foreground(priority),
            // A job nobody waits for any more.
            None => foreground(0),
        }
    }

    /// Whose budget is to pay for what runs.
    #[inline(always)]
    fn next_payer(&self) -> Option<ProcessId> {
        let thread = match self.running() {
            Running::Thread(id) => self.threads.known(id.index()),
            Running::Verification => self.threads.get(self.verifier.worked_on()?)?,
            Running::Idle => return None,
        };
        thread.quirks.contains(Quirks::BUDGETED).then_some(thread.process)
    }

    /// Before a choice: books what has run since the last one.
    #[inline(always)]
    pub(crate) fn book(&mut self, m: &mut impl Machine) {
        if self.budgets.payer.is_some() {
            self.book_payer(m);
        }
    }

    #[cold]
    fn book_payer(&mut self, m: &mut impl Machine) {
        let now = m.now();
        let from = core::mem::replace(&mut self.budgets.since, now);
        let Some(id) = self.budgets.payer else { return };
        let Some(budget) = self.processes.get_mut(id).map(|p| &mut p.budget) else { return };
        if budget.is_set() && !budget.spent && budget.book(from, now) {
            self.spend(id);
        }
    }

    /// After a choice: from now on the process of what runs pays, if it has a budget.
    #[inline(always)]
    pub(crate) fn charge_running(&mut self, m: &mut impl Machine) {
        let payer = self.next_payer();
        if payer != self.budgets.payer {
            self.budgets.since = m.now();
            self.budgets.payer = payer;
        }
    }

    /// When what runs will have spent its process's amount.
    #[inline(always)]
    pub(crate) fn payer_spent_at(&self) -> Option<u64> {
        let budget = self.processes.get(self.budgets.payer?)?.budget;
        (budget.is_set() && !budget.spent).then(|| self.budgets.since.saturating_add(budget.left()))
    }

    /// A process has used its amount up: its ready threads go to the background until the next period.
    fn spend(&mut self, id: ProcessId) {
        let Some(p) = self.processes.get(id) else { return };
        self.timers.set(Alarm::Budget(id.index()), p.budget.end());
        self.ready.move_to(&mut self.budgets.background, &mut self.threads, |t| t.process == id);
        self.attention |= Attention::SCHEDULE;
    }

    /// Its threads come back from the background.
    fn restore(&mut self, id: ProcessId) {
        self.budgets.background.move_to(&mut self.ready, &mut self.threads, |t| t.process == id);
        self.attention |= Attention::SCHEDULE;
    }

    /// The alarm of a spent process: its next period begins.
    pub(crate) fn begin_period(&mut self, index: u32, now: u64) {
        let Some(id) = self.processes.at(index).map(|(id, _)| id) else { return };
        let Some(p) = self.processes.get_mut(id) else { return };
        p.budget.renew(now);
        if p.budget.left() == 0 {
            let end = p.budget.end();
            self.timers.set(Alarm::Budget(index), end);
            return;
        }
        p.budget.spent = false;
        if self.budgets.payer == Some(id) {
            // Running in the background cost nothing.
            self.budgets.since = now;
        }
        self.restore(id);
    }

    /// Gives a process a budget, whose first period begins now, or lifts the one it has.
    pub(crate) fn set_budget(&mut self, id: ProcessId, budget: Budget) -> Result<(), Error> {
        self.live_process(id)?;
        self.lift_budget(id);
        if !budget.is_set() {
            return Ok(());
        }
        if let Some(p) = self.processes.get_mut(id) {
            p.budget = budget;
        }
        self.mark_threads(id, true);
        Ok(())
    }

    /// A process has no budget any more.
    pub(crate) fn lift_budget(&mut self, id: ProcessId) {
        let Some(p) = self.processes.get_mut(id).filter(|p| p.budget.is_set()) else { return };
        let old = core::mem::take(&mut p.budget);
        if old.spent {
            self.timers.cancel(Alarm::Budget(id.index()));
            self.restore(id);
        }
        self.mark_threads(id, false);
    }

    /// Keeps the threads of a process from the fast path, or lets them have it. There are as few as a manifest may ask
    /// for.
    fn mark_threads(&mut self, id: ProcessId, budgeted: bool) {
        let mut at = self.processes.get(id).and_then(|p| p.threads);
        while let Some(t) = at.and_then(|t| self.threads.get_mut(t)) {
            t.quirks.set(Quirks::BUDGETED, budgeted);
            let (has, gets) = if budgeted { (0, FRESH) } else { (FRESH, 0) };
            if t.state == ThreadState::Ready && t.slice_left == has {
                t.slice_left = gets;
            }
            at = t.next;
        }
        // Who pays may be another from now on.
        self.attention |= Attention::SCHEDULE;
    }

    /// ProcessSetBudget.
    pub(crate) fn process_set_budget(&mut self, m: &mut impl Machine, c: &Invocation) -> Result<Flow, Fail> {
        let [period, amount, ..] = c.args;
        if c.process == c.id() {
            return Err(Error::OwnBudget.into());
        }
        let budget = match (period, amount) {
            (0, 0) => Budget::default(),
            _ => Budget::new(period, amount, m.now()).ok_or(Error::InvalidArgument)?,
        };
        self.set_budget(c.id(), budget)?;
        Ok(Flow::words(&[]))
    }

    /// ProcessBudget.
    pub(crate) fn process_budget(&mut self, m: &mut impl Machine, c: &Invocation) -> Result<Flow, Fail> {
        let id: ProcessId = c.id();
        let mut b = self.processes.get(id).ok_or(Error::ObjectGone)?.budget;
        if b.is_set() && !b.spent {
            let now = m.now();
            b.renew(now);
            if self.budgets.payer == Some(id) {
                b.book(self.budgets.since, now);
            }
        }
        let end = if b.is_set() { b.end() } else { 0 };
        Ok(Flow::words(&[b.period, b.amount, b.used, b.spent.into(), end]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const P: u64 = 10_000_000;
    const A: u64 = 2_000_000;

    fn budget() -> Budget {
        Budget::new(P, A, 0).unwrap()
    }

    #[test]
    fn periods_and_amounts_have_bounds() {
        for (period, amount, fits) in [
            (PERIOD_MIN, AMOUNT_MIN, true),
            (PERIOD_MIN, PERIOD_MIN, true),
            (PERIOD_MAX, PERIOD_MAX, true),
            (PERIOD_MIN - 1, AMOUNT_MIN, false),
            (PERIOD_MAX + 1, AMOUNT_MIN, false),
            (u64::MAX, u64::MAX, false),
            (PERIOD_MIN, AMOUNT_MIN - 1, false),
            (PERIOD_MIN, PERIOD_MIN + 1, false),
            (P, 0, false),
            (0, A, false),
        ] {
            assert_eq!(Budget::new(period, amount, 5).is_some(), fits, "{period} {amount}");
        }
    }

    #[test]
    fn an_amount_is_spent_at_its_last_nanosecond() {
        let mut b = budget();
        assert!(!b.book(0, A - 1));
        assert_eq!(b.left(), 1);
        assert!(b.book(A - 1, A));
    }

    #[test]
    fn a_stretch_over_a_boundary_counts_in_both_periods() {
        let mut b = budget();
        assert!(!b.book(P - 5, P + 7));
        assert_eq!((b.used, b.begun), (7, P));
    }

    #[test]
    fn what_was_not_run_is_lost_and_what_was_run_too_long_is_not() {
        let mut b = budget();
        b.renew(5 * P + 3);
        assert_eq!((b.used, b.begun), (0, 5 * P));
        assert!(b.book(5 * P, 5 * P + 3 * A));
        b.renew(6 * P);
        assert_eq!((b.used, b.left()), (2 * A, 0));
        b.renew(8 * P);
        assert_eq!(b.left(), A);
    }

    proptest! {
        /// Against a model that goes on one step of time after the other.
        #[test]
        fn booking_agrees_with_a_step_by_step_model(
            stretches in proptest::collection::vec((0u64..250, 0u64..250), 1..40),
            amount in 1u64..100,
        ) {
            let mut b = Budget { period: 100, amount, begun: 0, used: 0, spent: false };
            let (mut now, mut used) = (0u64, 0u64);
            for (idle, run) in stretches {
                let from = now + idle;
                for at in now..from + run {
                    if at > 0 && at % 100 == 0 && at > now {
                        used = used.saturating_sub(amount);
                    }
                    used += u64::from(at >= from);
                }
                now = from + run;
                b.book(from, now);
                if now % 100 == 0 && idle + run > 0 {
                    used = used.saturating_sub(amount);
                }
                prop_assert_eq!((b.used, b.begun), (used, now / 100 * 100));
                prop_assert_eq!(b.spent, used >= amount);
            }
        }
    }
}
