//! Tests of the harness: what must be seen to fail.

use crate::lab::{Failure, Lab, Outcome, pause};
use sila_rt::clock;

pub fn control_passes(_: &Lab) -> Outcome {
    Ok(())
}

pub fn control_fails(_: &Lab) -> Outcome {
    Err(Failure::new("a test that is made to fail", "nothing", "this"))
}

pub fn control_hangs(_: &Lab) -> Outcome {
    loop {
        pause(clock::SECOND);
    }
}

#[allow(clippy::panic, reason = "the harness must see it")]
pub fn control_panics(_: &Lab) -> Outcome {
    panic!("a test that is made to panic")
}
