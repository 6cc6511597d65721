//! The host tool from the outside: what it prints and the status that it ends with.
use libtest_mimic::{Arguments, Failed, Trial};

fn main() {
    let args = Arguments::from_args();
    let trials: Vec<Trial> = Vec::new();
    let _: Option<Failed> = None;
    libtest_mimic::run(&args, trials).exit();
}
