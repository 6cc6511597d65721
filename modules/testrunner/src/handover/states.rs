//! The state machine from outside: in each state, every operation that does not fit is refused by its own error.

use super::rig::{Rig, exact};
use crate::lab::{EMPTY, Lab, Outcome, equal, refused, works};
use alloc::format;
use sila_abi::handover::State;
use sila_abi::protocol::layout::OWN_POOL;
use sila_abi::{Error, Op};
use sila_rt::slots::make;
use sila_rt::{CallError, op};

/// What can be asked of a Handover and is possible in some states only.
const OPERATIONS: [Op; 12] = [
    Op::HandoverAdd,
    Op::HandoverReplace,
    Op::HandoverClose,
    Op::HandoverReopen,
    Op::HandoverExport,
    Op::HandoverState,
    Op::HandoverDeposit,
    Op::HandoverTake,
    Op::HandoverCommit,
    Op::HandoverRollback,
    Op::HandoverFinalise,
    Op::HandoverAbort,
];

/// An operation by a manager, with arguments that are right in some state.
fn attempt(rig: &Rig<'_>, operation: Op) -> Result<(), CallError> {
    let (h, new) = (rig.handover(), rig.services.first().map_or(EMPTY, |s| s.new.process()));
    let done = match operation {
        Op::HandoverAdd => rig.add(0),
        Op::HandoverReplace => op::HandoverReplace(h, 0, new),
        Op::HandoverClose => op::HandoverClose(h, 1),
        Op::HandoverReopen => op::HandoverReopen(h),
        Op::HandoverExport => {
            let region = make(|dst| op::RegionCreate(OWN_POOL, 1, dst))?;
            op::HandoverExport(h, 0, 1, region.slot())
        }
        Op::HandoverState => op::HandoverState(h, 0, EMPTY),
        Op::HandoverDeposit => op::HandoverDeposit(h, 0, OWN_POOL.0.into()),
        Op::HandoverTake => op::HandoverTake(h, 0, EMPTY),
        Op::HandoverCommit => rig.commit(),
        Op::HandoverRollback => op::HandoverRollback(h),
        Op::HandoverFinalise => op::HandoverFinalise(h),
        _ => op::HandoverAbort(h),
    };
    done.map(|_| ())
}

/// In a Handover that `bring` brought to a state, these operations are refused with these errors, and change nothing.
fn refuses(lab: &Lab, state: State, bring: impl Fn(&Rig<'_>) -> Outcome, answers: &[(Op, Error)]) -> Outcome {
    exact(lab, |lab| {
        let rig = Rig::new(lab, 1)?;
        bring(&rig)?;
        rig.is(state)?;
        let before = rig.status()?;
        for (operation, error) in answers {
            let what = format!("{} in {}", operation.info().name, state.name());
            refused(&what, attempt(&rig, *operation), *error)?;
            equal(&format!("the status after {what}"), rig.status()?, before)?;
        }
        Ok(())
    })
}

/// All operations but some, with one error.
fn all_but(but: &[Op], error: Error) -> alloc::vec::Vec<(Op, Error)> {
    OPERATIONS.into_iter().filter(|op| !but.contains(op)).map(|op| (op, error)).collect()
}

/// While it is open, nothing can be committed, rolled back, finalised or opened.
pub fn an_open_handover_commits_nothing(lab: &Lab) -> Outcome {
    let answers = [
        (Op::HandoverCommit, Error::NotClosed),
        (Op::HandoverReopen, Error::NotClosed),
        (Op::HandoverRollback, Error::NotCommitted),
        (Op::HandoverFinalise, Error::NotCommitted),
    ];
    refuses(lab, State::Open, |_| Ok(()), &answers)
}

/// Once it is closed, no service joins, no gate is shut again, no deposit is taken, nothing is rolled back or final.
pub fn a_closed_handover_takes_no_service_and_gives_no_deposit(lab: &Lab) -> Outcome {
    let answers = [
        (Op::HandoverAdd, Error::AlreadyClosed),
        (Op::HandoverClose, Error::AlreadyClosed),
        (Op::HandoverTake, Error::AlreadyClosed),
        (Op::HandoverRollback, Error::NotCommitted),
        (Op::HandoverFinalise, Error::NotCommitted),
    ];
    // The state decides before it is asked who takes part.
    refuses(lab, State::Closed, |rig| rig.close(), &answers)
}

/// Once it is committed, only a rollback or finalising changes it: no second commit, no abort, no export, no deposit.
pub fn a_committed_handover_is_rolled_back_or_finalised_only(lab: &Lab) -> Outcome {
    let but = [Op::HandoverState, Op::HandoverTake, Op::HandoverRollback, Op::HandoverFinalise];
    refuses(
        lab,
        State::Committed,
        |rig| {
            rig.close()?;
            works("HandoverCommit", rig.commit()).map(|_| ())
        },
        &all_but(&but, Error::AlreadyCommitted),
    )?;
    // The refusals stood in the way of neither.
    exact(lab, |lab| {
        let rig = Rig::new(lab, 1)?;
        rig.move_all()?;
        refused("a second commit", rig.commit(), Error::AlreadyCommitted)?;
        rig.finalise()?;
        refused(
            "a rollback after finalising",
            op::HandoverRollback(rig.handover()),
            Error::HandoverFinalised,
        )?;
        refused("finalising twice", op::HandoverFinalise(rig.handover()), Error::HandoverFinalised)
    })
}

/// A finalised Handover is final: nothing but the taking of deposits is left.
pub fn a_finalised_handover_is_final(lab: &Lab) -> Outcome {
    let bring = |rig: &Rig<'_>| {
        rig.move_all()?;
        rig.finalise()
    };
    refuses(lab, State::Finalised, bring, &all_but(&[Op::HandoverTake], Error::HandoverFinalised))
}

/// An aborted Handover moves nothing any more.
pub fn an_aborted_handover_is_over(lab: &Lab) -> Outcome {
    let bring = |rig: &Rig<'_>| {
        rig.close()?;
        works("HandoverAbort", op::HandoverAbort(rig.handover())).map(|_| ())
    };
    refuses(lab, State::Aborted, bring, &all_but(&[Op::HandoverTake], Error::HandoverAborted))
}

/// A Handover that was rolled back moves nothing any more.
pub fn a_handover_that_was_rolled_back_is_over(lab: &Lab) -> Outcome {
    let bring = |rig: &Rig<'_>| {
        rig.move_all()?;
        works("HandoverRollback", op::HandoverRollback(rig.handover())).map(|_| ())
    };
    let but = [Op::HandoverTake, Op::HandoverState];
    refuses(lab, State::RolledBack, bring, &all_but(&but, Error::HandoverRolledBack))
}
