//! Boots the test system with a plan, again where a test took the whole system down.

use crate::image::TestSystem;
use crate::report::{Report, Verdict};
use anyhow::Result;
use boot::outcome::Outcome;
use boot::paths::Scratch;
use boot::qemu::Board;
use boot::{Options, RunOutcome};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Boots after which no more are tried.
const MOST_BOOTS: usize = 4;
/// How many of the last lines a failure shows.
const LAST_LINES: usize = 20;

/// One machine at a time: tests that wait for different runs must not slow each other into their time limits.
static MACHINE: Mutex<()> = Mutex::new(());

/// Waits until no other machine runs, and keeps others from running.
pub fn alone() -> MutexGuard<'static, ()> {
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs these tests; every one has a verdict.
pub fn run(system: &TestSystem, plan: &[&str]) -> Result<BTreeMap<String, Verdict>> {
    let _alone = alone();
    let mut verdicts = BTreeMap::new();
    let mut left: Vec<&str> = plan.to_vec();
    for _ in 0..MOST_BOOTS {
        if left.is_empty() {
            break;
        }
        let (report, outcome) = boot(system, &left)?;
        let stuck = report
            .open
            .clone()
            .or_else(|| left.iter().find(|n| !report.verdicts.contains_key(**n)).map(|n| n.to_string()));
        verdicts.extend(report.verdicts.clone());
        if report.done && report.open.is_none() {
            break;
        }
        if report.open.is_none() && report.verdicts.is_empty() {
            // The runner did not even begin: it will not the next time.
            let reason = describe(&report, &outcome);
            verdicts.extend(left.iter().map(|name| (name.to_string(), Verdict::Fail(reason.clone()))));
            break;
        }
        if let Some(name) = stuck {
            verdicts.insert(name, Verdict::Fail(describe(&report, &outcome)));
        }
        left.retain(|name| !verdicts.contains_key(*name));
    }
    for name in plan {
        let missing = || Verdict::Fail("the test did not report".into());
        verdicts.entry((*name).into()).or_insert_with(missing);
    }
    Ok(verdicts)
}

/// The devices that the tests drive, in QEMU's words: two of one kind whose slots share an interrupt line, and a
/// serial port that leads nowhere. `edu` by itself aims at 28 bits of addresses only.
pub const DEVICES: [&str; 8] = [
    "-device",
    "edu,addr=0x10,dma_mask=0xffffffffffffffff",
    "-device",
    "edu,addr=0x14,dma_mask=0xffffffffffffffff",
    "-chardev",
    "null,id=nowhere",
    "-device",
    "pci-serial,addr=0x15,chardev=nowhere",
];

/// The machine that tests run on, with [`DEVICES`]; the environment can name another kind.
pub fn board() -> Board {
    let base = Board::default();
    let choice = |name: &str, default: String| std::env::var(name).unwrap_or(default);
    Board {
        machine: choice("SILA_TEST_MACHINE", base.machine.clone()),
        cpu: choice("SILA_TEST_CPU", base.cpu.clone()),
        memory: choice("SILA_TEST_MEMORY", base.memory.clone()),
        kernel_flags: std::env::var("SILA_TEST_KPTI").iter().map(|kpti| format!("kpti={kpti}")).collect(),
        extra: DEVICES.map(String::from).to_vec(),
        ..base
    }
}

/// The same machine with the kernel's page tables apart from ring 3's, whatever its processor is, and with a clock that
/// goes on by instructions: what takes time takes the same time on every host.
pub fn counted_board() -> Board {
    Board { kernel_flags: vec!["kpti=on".into()], counted: true, ..board() }
}

/// One boot with this plan.
pub fn boot(system: &TestSystem, plan: &[&str]) -> Result<(Report, RunOutcome)> {
    boot_on(system, plan, board())
}

/// One boot with this plan on this machine.
pub fn boot_on(system: &TestSystem, plan: &[&str], board: Board) -> Result<(Report, RunOutcome)> {
    let scratch = Scratch::new()?;
    let image = system.image(plan, &scratch.join("test.img"))?;
    let mut options = Options::new(image.path);
    options.board = board;
    options.kernel = Some(image.kernel);
    options.timeout = Some(Duration::from_secs(60 + plan.len() as u64));
    options.script = None;
    let trace = std::env::var_os("SILA_TEST_TRACE").is_some();
    let outcome = boot::boot(&options, &mut |line| {
        if trace {
            eprintln!("{line}");
        }
    })?;
    Ok((Report::read(outcome.results.iter().map(String::as_str)), outcome))
}

/// Why a run did not come to its end.
pub fn describe(report: &Report, outcome: &RunOutcome) -> String {
    let how = match &outcome.exit {
        Outcome::Well => "the guest reported success before the tests had ended".to_string(),
        Outcome::Failed => "the guest gave up".to_string(),
        Outcome::Panicked => "the kernel panicked".to_string(),
        Outcome::Silent(why) => why.clone(),
    };
    let tail = |lines: &[String]| {
        let from = lines.len().saturating_sub(LAST_LINES);
        lines.get(from..).unwrap_or_default().iter().map(|line| format!("    {line}\n")).collect::<String>()
    };
    format!(
        "{how}; {}\nbacktrace:\n{}console:\n{}results:\n{}",
        report.remarks.join("; "),
        tail(&outcome.backtrace),
        tail(&outcome.console),
        tail(&outcome.results)
    )
}
