//! Every operation in every state.

use super::*;

/// An operation with arguments that are right in some state.
fn attempt(r: &mut Rig, op: Op) -> Result<[u64; 6], Error> {
    let (v2, epoch) = (r.v2[0], r.epoch());
    // Version 1 does not run any more after a commit; what is asked is refused before it matters who asks.
    let retired = r.w.k.processes.get(r.v1[0].process).unwrap().retired;
    let v1 = if retired { r.manager } else { r.v1[0] };
    match op {
        Op::HandoverAdd => r.add(1),
        Op::HandoverReplace => r.manage(op, &[0, managed(1, 2).0.into()]),
        Op::HandoverClose => r.manage(op, &[3]),
        Op::HandoverExport => {
            r.w.invoke(v1, POOL, Op::RegionCreate, &[1, 40]).unwrap();
            r.w.invoke(v1, H, op, &[0, 1, 40])
        }
        Op::HandoverState if r.status().0 == State::RolledBack => r.w.invoke(v1, H, op, &[0, 41]),
        Op::HandoverState => r.w.invoke(v2, H, op, &[0, 41]),
        Op::HandoverDeposit => r.w.invoke(v1, H, op, &[0, POOL.0.into()]),
        Op::HandoverTake => r.w.invoke(v2, H, op, &[0, 41]),
        Op::HandoverCommit => r.manage(op, &[epoch]),
        Op::HandoverService => r.manage(op, &[0]),
        Op::HandoverWatch => {
            r.w.invoke(r.manager, HANDOVER_POOL, Op::NotificationCreate, &[42]).unwrap();
            r.manage(op, &[42, 1])
        }
        _ => r.manage(op, &[]),
    }
}

const STATE_ERRORS: [Error; 7] = [
    Error::NotClosed,
    Error::AlreadyClosed,
    Error::NotCommitted,
    Error::AlreadyCommitted,
    Error::HandoverFinalised,
    Error::HandoverAborted,
    Error::HandoverRolledBack,
];

#[test]
fn every_operation_answers_in_every_state_as_the_table_says() {
    for &(op, row) in ANSWERS {
        for (&state, &want) in State::ALL.iter().zip(&row) {
            let mut r = Rig::in_state(state);
            let before = r.picture().1;
            // In some states it is tried by threads that are suspended.
            r.w.checks = false;
            let got = attempt(&mut r, op);
            let what = std::format!("{op:?} in {state:?}");
            match want {
                Some(error) => {
                    assert_eq!(got, Err(error), "{what}");
                    assert_eq!(r.picture().1, before, "{what}");
                }
                // These two say the same of one service as the table says of all.
                None if matches!((op, state), (Op::HandoverReopen | Op::HandoverExport, State::Open)) => {
                    assert_eq!(got, Err(Error::NotClosed), "{what}")
                }
                None if (op, state) == (Op::HandoverReplace, State::Committed) => {
                    assert_eq!(got, Err(Error::AlreadyCommitted), "{what}")
                }
                None => assert!(got.err().is_none_or(|e| !STATE_ERRORS.contains(&e)), "{what}: {got:?}"),
            }
            r.balance(&what);
        }
    }
}

#[test]
fn every_operation_of_a_handover_is_in_the_table_once() {
    let all = sila_abi::ops::TABLE.iter().filter(|row| row.object == Some(ObjectType::Handover));
    let mut count = 0;
    for row in all {
        assert_eq!(ANSWERS.iter().filter(|(op, _)| *op == row.op).count(), 1, "{}", row.name);
        count += 1;
    }
    assert_eq!(count, ANSWERS.len());
    assert_eq!(answer(Op::PoolStatus, State::Open), Err(Error::InvalidOperation));
}

#[test]
fn the_book_s_table_is_the_kernel_s() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/handover.md")).unwrap();
    let rows: Vec<Vec<&str>> = page
        .lines()
        .filter(|line| line.starts_with("| `Handover"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    assert_eq!(rows.len(), ANSWERS.len());
    for ((op, answers), row) in ANSWERS.iter().zip(rows) {
        assert_eq!(row[0], std::format!("`{}`", op.info().name));
        let want: Vec<_> =
            answers.iter().map(|a| a.map_or("yes".into(), |e| std::format!("`{}`", e.name()))).collect();
        assert_eq!(row[1..], want[..], "{}", op.info().name);
    }
}
