//! What was tried and how it went: counts, and a digest that two runs of a seed have in common.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use sila_abi::ops::TABLE;
use sila_abi::syscall::{Call, Outcome, Tag};
use sila_abi::{Error, Op};

use crate::order::{Act, Order};

/// Tried, succeeded.
type Count = (u64, u64);

/// All counts of a run.
#[derive(Clone, Debug)]
pub struct Tally {
    ops: Vec<Count>,
    calls: Vec<Count>,
    errors: Vec<u64>,
    digest: u64,
}

impl Default for Tally {
    fn default() -> Self {
        Tally {
            ops: vec![(0, 0); TABLE.len()],
            calls: vec![(0, 0); Call::ALL.len()],
            errors: vec![0; 256],
            digest: 0xcbf2_9ce4_8422_2325,
        }
    }
}

impl Tally {
    /// What all results so far come to.
    pub const fn digest(&self) -> u64 {
        self.digest
    }

    /// Mixes something that a run of the same seed repeats into the digest.
    pub fn mix(&mut self, word: u64) {
        self.digest = (self.digest ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(17);
    }

    /// Books an order and its outcome.
    pub fn book(&mut self, order: &Order, outcome: Outcome) {
        // Times and addresses of memory are in the words, not in the outcome.
        self.mix(order.tag().0);
        self.mix(outcome.0);
        if order.act != Act::Call {
            return;
        }
        let fine = u64::from(outcome.status().is_ok());
        let tag = order.tag();
        let Some(call) = Call::from_number(tag.call()) else { return self.error(outcome) };
        if let Some(count) = Call::ALL.iter().position(|c| *c == call).and_then(|at| self.calls.get_mut(at)) {
            *count = (count.0 + 1, count.1 + fine);
        }
        if call == Call::Invoke {
            self.operation(tag, fine);
        }
        self.error(outcome);
    }

    fn operation(&mut self, tag: Tag, fine: u64) {
        let at = Op::from_number(tag.label()).and_then(|op| TABLE.iter().position(|row| row.op == op));
        if let Some(count) = at.and_then(|at| self.ops.get_mut(at)) {
            *count = (count.0 + 1, count.1 + fine);
        }
    }

    fn error(&mut self, outcome: Outcome) {
        if let Some(count) = self.errors.get_mut(usize::from(outcome.number())) {
            *count += 1;
        }
    }

    /// The counts as lines: `op NAME TRIED DONE`, `call NAME TRIED DONE`, `error NAME COUNT`.
    pub fn lines(&self) -> Vec<String> {
        let ops = TABLE.iter().zip(&self.ops).map(|(row, (t, d))| format!("op {} {t} {d}", row.name));
        let calls = Call::ALL.iter().zip(&self.calls).map(|(call, (t, d))| format!("call {call:?} {t} {d}"));
        let seen = self.errors.iter().enumerate().skip(1).filter(|(_, count)| **count > 0);
        let errors = seen.map(|(number, count)| {
            let name = Error::from_number(number as u16).map_or("unknown", |e| e.name());
            format!("error {name} {count}")
        });
        ops.chain(calls).chain(errors).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn successes_and_errors_are_told_apart_and_every_result_changes_the_digest() {
        let mut tally = Tally::default();
        let order = Order::invoke(3, Op::PoolStatus, [0; 6]);
        tally.book(&order, Outcome::message(4, 0, 0));
        let first = tally.digest();
        tally.book(&order, Outcome::error(Error::ObjectGone, 0));
        assert_ne!(tally.digest(), first);
        let lines = tally.lines();
        assert!(lines.contains(&"op PoolStatus 2 1".into()));
        assert!(lines.contains(&"call Invoke 2 1".into()));
        assert!(lines.contains(&"error ObjectGone 1".into()));
        assert_eq!(lines.iter().filter(|line| line.starts_with("op ")).count(), TABLE.len());
        let mut other = Tally::default();
        other.book(&order, Outcome::error(Error::ObjectGone, 0));
        other.book(&order, Outcome::message(4, 0, 0));
        assert_ne!(other.digest(), tally.digest());
    }
}
