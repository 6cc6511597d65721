//! CPU budgets: bounds, marks, bands, alarms, and who pays.

use super::{Broken, Rule, demand};
use crate::budget;
use crate::kernel::{Attention, Kernel, Running};
use crate::objects::{Process, ProcessId, ProcessState, Quirks, Thread, ThreadState};
use crate::queue::ReadyQueues;

pub(super) fn check(k: &Kernel) -> Result<(), Broken> {
    for (id, p) in k.processes.iter() {
        bounds(id, p)?;
        let alarm = k.timers.heap().iter().any(|(at, a)| {
            *a == crate::queue::Alarm::Budget(id.index()) && *at == p.budget.begun + p.budget.period
        });
        demand(alarm == p.budget.spent, Rule::Budget, id.index(), 1)?;
    }
    for (_, t) in k.threads.iter() {
        let Some((id, p)) = k.processes.at(t.process.index()) else { continue };
        let (limited, marked) = (p.budget.period != 0, t.quirks.contains(Quirks::BUDGETED));
        demand(limited == marked, Rule::Budget, id.index(), 2)?;
        let fast = t.state == ThreadState::Ready && t.slice_left == 0;
        demand(!(marked && fast), Rule::Budget, id.index(), 3)?;
    }
    band(k, &k.ready, false)?;
    band(k, &k.budgets.background, true)?;
    payer(k)
}

fn bounds(id: ProcessId, p: &Process) -> Result<(), Broken> {
    let b = p.budget;
    let lives = matches!(p.state, ProcessState::Created | ProcessState::Running);
    let fine = if b.period == 0 {
        b == budget::Budget::default()
    } else {
        let period = (budget::PERIOD_MIN..=budget::PERIOD_MAX).contains(&b.period);
        let amount = (budget::AMOUNT_MIN..=b.period).contains(&b.amount);
        lives && period && amount && b.spent == (b.used >= b.amount)
    };
    demand(fine, Rule::Budget, id.index(), 0)
}

/// The threads of a band are those of processes that are, or are not, spent.
fn band(k: &Kernel, queues: &ReadyQueues, spent: bool) -> Result<(), Broken> {
    for priority in 0..=u8::MAX {
        let mut at = queues.level(priority).0.ends().0;
        while let Some((_, t)) = at.and_then(|index| k.threads.at(index)) {
            let right = k.processes.at(t.process.index()).is_some_and(|(_, p)| p.budget.spent == spent);
            demand(right, Rule::Budget, t.process.index(), 4)?;
            at = t.link.neighbours().1;
        }
    }
    Ok(())
}

/// The process of what runs pays if it has a budget; nobody else does.
fn payer(k: &Kernel) -> Result<(), Broken> {
    let of = |t: &Thread| k.processes.at(t.process.index()).filter(|(_, p)| p.budget.period != 0);
    let runs = match k.running() {
        Running::Thread(id) => k.threads.at(id.index()).and_then(|(_, t)| of(t)),
        Running::Verification => {
            k.verifier.worked_on().and_then(|id| k.threads.at(id.index())).and_then(|(_, t)| of(t))
        }
        Running::Idle => None,
    };
    let right = k.budgets.payer == runs.map(|(id, _)| id);
    demand(right || k.attention.contains(Attention::SCHEDULE), Rule::Budget, u32::MAX, 5)
}
