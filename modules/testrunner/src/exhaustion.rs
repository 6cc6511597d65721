//! Everything that runs out: to the last one, then freed, then the exact baseline again.

use crate::lab::{Lab, Outcome, TEST, equal, works};
use sila_rt::op;

/// Every invariant of the kernel holds.
pub fn sound() -> Outcome {
    let [rule, index, detail, ..] = works("TestInvariants", op::TestInvariants(TEST))?.words;
    equal("broken rule, index, detail", (rule, index, detail), (0, 0, 0))
}

pub fn the_invariants_of_the_kernel_hold(lab: &Lab) -> Outcome {
    sound()?;
    let child = lab.child()?;
    child.start(probe::Act::Serve, &[0], &[])?;
    let _service = child.report(1)?;
    sound().map_err(|failure| failure.at("with a process that serves"))
}
