//! CPU budgets: how long a process runs in each period, whatever it does.

use crate::child::Child;
use crate::lab::{
    Failure, JOB, Lab, Outcome, PROBE_PRIORITY, copy, equal, holds, pause, refused, until, works,
};
use alloc::format;
use alloc::vec::Vec;
use probe::{Act, WORK_APART, WORK_CALLING, WORK_PLAIN, WORK_RESTARTING, WORK_THREADS, WORK_YIELDING};
use sila_abi::protocol::layout::OWN_PROCESS;
use sila_abi::syscall::FOREVER;
use sila_abi::{Error, Rights, Slot};
use sila_rt::clock::{self, MICROSECOND, MILLISECOND, SECOND};
use sila_rt::ipc::{self, Message};
use sila_rt::op;

const PERIOD: u64 = 10 * MILLISECOND;
const AMOUNT: u64 = 2 * MILLISECOND;
/// How long processes compete.
const WINDOW: u64 = 30 * PERIOD;
/// What a process with the budget may run in the window: it begins and ends within a period.
const MOST: u64 = (WINDOW / PERIOD + 2) * AMOUNT;
/// A wait between two readings of the clock that is another's time.
const GAP: u64 = 4 * MILLISECOND;

/// How long a thread stays suspended.
const SUSPENDED: u64 = MILLISECOND / 2;

/// The words of a budget.
#[derive(Clone, Copy, Debug)]
struct Budget {
    period: u64,
    amount: u64,
    used: u64,
    spent: u64,
    end: u64,
}

fn budget(process: Slot) -> Result<Budget, Failure> {
    let [period, amount, used, spent, end, _] = works("ProcessBudget", op::ProcessBudget(process))?.words;
    Ok(Budget { period, amount, used, spent, end })
}

fn limit(child: &Child, period: u64, amount: u64) -> Outcome {
    works("ProcessSetBudget", op::ProcessSetBudget(child.process(), period, amount)).map(|_| ())
}

/// When processes that are started now are to work.
fn window() -> (u64, u64) {
    let from = clock::after(60 * MILLISECOND);
    (from, from + WINDOW)
}

fn work(child: &Child, (from, until): (u64, u64), manner: u64, gap: u64) -> Outcome {
    child.start(Act::Work, &[from, until, manner, gap], &[])
}

/// How long a process says that it ran.
fn ran(child: &Child) -> Result<u64, Failure> {
    let end = child.end()?;
    equal("how a process that worked ended", end.cause, 1)?;
    Ok(end.code)
}

/// What a process with a budget, that works in a manner, and one of a lower priority got of the window.
fn shares(lab: &Lab, manner: u64) -> Result<(u64, u64), Failure> {
    let (low, high) = (lab.child_at(PROBE_PRIORITY - 10)?, lab.child()?);
    limit(&high, PERIOD, AMOUNT)?;
    let window = window();
    work(&low, window, WORK_PLAIN, AMOUNT / 2)?;
    // A thread that is suspended for a moment does not run.
    work(&high, window, manner, if manner == WORK_APART { SUSPENDED / 2 } else { GAP })?;
    if manner == WORK_APART {
        suspend_and_resume(&high, window.1)?;
    }
    let shares = (ran(&high)?, ran(&low)?);
    Ok(shares)
}

/// Suspends and resumes the thread that a process reports, over and over.
fn suspend_and_resume(child: &Child, until: u64) -> Outcome {
    let (_, mut caps) = child.report(1)?;
    let thread = caps.take(0).ok_or_else(|| Failure::new("the worker", "its capability", "none"))?;
    // The thread ends by itself at that time.
    while clock::now().is_some_and(|now| now + PERIOD < until) {
        pause(MILLISECOND);
        works("ThreadSuspend", op::ThreadSuspend(thread.slot()))?;
        pause(SUSPENDED);
        works("ThreadResume", op::ThreadResume(thread.slot()))?;
    }
    Ok(())
}

/// The process with the budget ran no longer than that, the lower one had more.
fn held_back(lab: &Lab, manner: u64) -> Result<u64, Failure> {
    let (high, low) = shares(lab, manner)?;
    // A machine that is busy with other things lets the timer come late (what a process then runs too long it lacks
    // later) and takes time away from both.
    let shares = format!("{high} ns with the budget, {low} ns below it");
    holds(&format!("{shares}: at most {MOST} and a period more"), high <= MOST + PERIOD)?;
    holds(&format!("{shares}: the lower one has more"), low > high)?;
    Ok(high)
}

fn stays_within(lab: &Lab, manner: u64) -> Outcome {
    let high = held_back(lab, manner)?;
    // It goes on in every period: without that it had the first one's amount alone.
    holds(&format!("{high} ns are more than one period's amount"), high > 2 * AMOUNT)
}

pub fn a_spinning_process_leaves_the_rest_to_a_lower_priority(lab: &Lab) -> Outcome {
    stays_within(lab, WORK_PLAIN)
}

pub fn a_budget_is_not_evaded_by_yielding(lab: &Lab) -> Outcome {
    stays_within(lab, WORK_YIELDING)
}

pub fn a_budget_is_not_evaded_by_threads(lab: &Lab) -> Outcome {
    stays_within(lab, WORK_THREADS)
}

pub fn a_budget_is_not_evaded_by_calls(lab: &Lab) -> Outcome {
    stays_within(lab, WORK_CALLING)
}

pub fn a_budget_is_not_evaded_by_operations_that_restart(lab: &Lab) -> Outcome {
    held_back(lab, WORK_RESTARTING).map(|_| ())
}

pub fn a_budget_survives_suspension(lab: &Lab) -> Outcome {
    held_back(lab, WORK_APART).map(|_| ())
}

pub fn a_spent_process_is_not_stopped(lab: &Lab) -> Outcome {
    let alone = lab.child()?;
    limit(&alone, PERIOD, AMOUNT)?;
    work(&alone, window(), WORK_PLAIN, GAP)?;
    let ran = ran(&alone)?;
    holds(&format!("it ran {ran} ns, more than {MOST}, with nobody else"), ran > MOST + PERIOD)
}

pub fn a_spent_thread_goes_on_at_the_next_period(lab: &Lab) -> Outcome {
    let (low, high) = (lab.child_at(PROBE_PRIORITY - 10)?, lab.child()?);
    limit(&high, 500 * MILLISECOND, 20 * MILLISECOND)?;
    low.start(Act::Spin, &[], &[])?;
    let spends = || -> Result<u64, Failure> {
        until("the amount is spent", || budget(high.process()).is_ok_and(|b| b.spent == 1))?;
        let b = budget(high.process())?;
        let now = clock::now().unwrap_or(0);
        holds(&format!("used {} of {}", b.used, b.amount), b.used >= b.amount)?;
        holds(&format!("the period's end {} lies within one from {now}", b.end), b.end <= now + b.period)?;
        Ok(b.end)
    };
    high.start(Act::Spin, &[], &[])?;
    let first = spends()?;
    pause(first.saturating_sub(clock::now().unwrap_or(0)) + MILLISECOND);
    until("it goes on", || budget(high.process()).is_ok_and(|b| b.end > first && b.used > 0))?;
    let second = spends()?;
    holds(&format!("{second} is a period later than {first}"), second >= first + 500 * MILLISECOND)
}

pub fn a_spent_server_answers_once_nobody_else_runs(lab: &Lab) -> Outcome {
    let (spinner, server) = (lab.child_at(PROBE_PRIORITY - 40)?, lab.child()?);
    server.start(Act::Serve, &[0], &[])?;
    let (_, mut caps) = server.report(1)?;
    let service = caps.take(0).ok_or_else(|| Failure::new("the service", "its capability", "none"))?;
    let ask = |deadline| ipc::call(service.slot(), &Message::with(1, &[7]), 0, deadline);
    limit(&server, 10 * SECOND, 10 * MICROSECOND)?;
    until("the server has spent its amount", || {
        let _ = ask(clock::after(SECOND));
        budget(server.process()).is_ok_and(|b| b.spent == 1)
    })?;
    works("a call while nobody else runs", ask(clock::after(SECOND)))?;
    spinner.start(Act::Spin, &[], &[])?;
    let late = ask(clock::after(100 * MILLISECOND));
    refused("a call while a lower priority runs", late.map(|_| ()), Error::Timeout)?;
    works("ending the spinner", op::ProcessTerminate(spinner.process(), 0))?;
    works("a call when it has gone", ask(clock::after(SECOND)))?;
    works("lifting the budget", op::ProcessSetBudget(server.process(), 0, 0))?;
    works("a call without a budget", ask(FOREVER)).map(|_| ())
}

pub fn a_process_that_ends_while_it_is_spent_returns_everything(lab: &Lab) -> Outcome {
    lab.balanced(|| {
        let (low, high) = (lab.child_at(PROBE_PRIORITY - 10)?, lab.child()?);
        low.start(Act::Spin, &[], &[])?;
        high.start(Act::Spin, &[], &[])?;
        limit(&high, 10 * SECOND, 100 * MICROSECOND)?;
        until("the amount is spent", || budget(high.process()).is_ok_and(|b| b.spent == 1))?;
        works("ProcessTerminate", op::ProcessTerminate(high.process(), 1))?;
        let left = budget(high.process())?;
        equal("the budget of an ended process", (left.period, left.used, left.spent, left.end), (0, 0, 0, 0))
    })?;
    crate::exhaustion::sound()
}

pub fn a_budget_needs_a_manager_and_bounds(lab: &Lab) -> Outcome {
    let child = lab.child()?;
    let reader = works("a copy", copy(child.process(), Rights::READ))?;
    refused("without MANAGE", op::ProcessSetBudget(reader.slot(), PERIOD, AMOUNT), Error::MissingRight)?;
    refused("of another type", op::ProcessSetBudget(JOB, PERIOD, AMOUNT), Error::WrongType)?;
    for (period, amount) in
        [(0, PERIOD), (PERIOD, 0), (PERIOD, PERIOD + 1), (PERIOD, 1), (MICROSECOND, MICROSECOND)]
    {
        let set = op::ProcessSetBudget(child.process(), period, amount);
        refused(&format!("{amount} ns in {period} ns"), set, Error::InvalidArgument)?;
    }
    let large = op::ProcessSetBudget(child.process(), u64::MAX, u64::MAX);
    refused("the largest numbers", large, Error::InvalidArgument)?;
    for (period, amount) in [(PERIOD, AMOUNT), (0, 0)] {
        refused("one's own", op::ProcessSetBudget(OWN_PROCESS, period, amount), Error::OwnBudget)?;
    }
    equal("the period after refusals", budget(child.process())?.period, 0)?;
    limit(&child, PERIOD, AMOUNT)?;
    let b = budget(reader.slot())?;
    equal("period, amount, used, spent", (b.period, b.amount, b.used, b.spent), (PERIOD, AMOUNT, 0, 0))?;
    works("ending it", op::ProcessTerminate(child.process(), 0))?;
    refused("of an ended process", op::ProcessSetBudget(child.process(), PERIOD, AMOUNT), Error::Dying)
}

/// Only where time goes by instructions: the shares are exact.
pub fn the_shares_of_a_budget_are_exact(lab: &Lab) -> Outcome {
    for manner in [WORK_PLAIN, WORK_YIELDING, WORK_CALLING] {
        let (high, low) = shares(lab, manner)?;
        let (wants_high, wants_low) = (WINDOW / PERIOD * AMOUNT, WINDOW / PERIOD * (PERIOD - AMOUNT));
        let what = format!("manner {manner}: {high} of {wants_high} ns, {low} of {wants_low} ns");
        let exact = high <= wants_high + wants_high / 50 && low.abs_diff(wants_low) <= wants_low / 50;
        // What it did when its amount ended, which may be a call and its answer, does not count for it.
        holds(&what, exact && high >= wants_high / 2)?;
    }
    Ok(())
}

/// What processes of one priority got of a window that they competed in.
pub fn turns(lab: &Lab, count: usize) -> Result<Vec<u64>, Failure> {
    let children = (0..count).map(|_| lab.child()).collect::<Result<Vec<_>, _>>()?;
    let window = window();
    children.iter().try_for_each(|child| work(child, window, WORK_PLAIN, GAP))?;
    children.iter().map(ran).collect()
}
