//! Every in-guest test under its own name. The system boots once for all that are selected, and only if one is.
use boot::qemu::Board;
use libtest_mimic::{Arguments, Failed, Trial};
use sila_tests::image::TestSystem;
use sila_tests::report::Verdict;
use sila_tests::run;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use testrunner::{CONTROLS, TESTS};

type Verdicts = Result<BTreeMap<String, Verdict>, String>;

/// What is built and run once, by whichever test comes first.
#[derive(Default)]
struct Shared {
    system: OnceLock<Result<TestSystem, String>>,
    verdicts: OnceLock<Verdicts>,
    control: OnceLock<Verdicts>,
}

impl Shared {
    fn system(&self) -> Result<&TestSystem, String> {
        let build = || TestSystem::build().map_err(|error| format!("{error:#}"));
        self.system.get_or_init(build).as_ref().map_err(String::clone)
    }

    fn run(&self, once: &OnceLock<Verdicts>, plan: &[&'static str], name: &str) -> Result<Verdict, Failed> {
        let run = || run::run(self.system()?, plan).map_err(|error| format!("{error:#}"));
        let verdicts = once.get_or_init(run).as_ref().map_err(Failed::from)?;
        verdicts.get(name).cloned().ok_or_else(|| "the test was not in the plan".into())
    }
}

fn selected(args: &Arguments) -> Vec<&'static str> {
    let matches = |name: &str, filter: &str| if args.exact { name == filter } else { name.contains(filter) };
    let wanted = |name: &str| {
        args.filter.as_ref().is_none_or(|filter| matches(name, filter))
            && !args.skip.iter().any(|skip| matches(name, skip))
    };
    TESTS.iter().map(|test| test.name).filter(|name| wanted(name)).collect()
}

fn main() {
    let args = Arguments::from_args();
    let shared = Arc::new(Shared::default());
    let plan: Arc<Vec<&'static str>> = Arc::new(selected(&args));
    let mut trials: Vec<Trial> = TESTS
        .iter()
        .map(|test| {
            let (shared, plan) = (Arc::clone(&shared), Arc::clone(&plan));
            Trial::test(test.name, move || match shared.run(&shared.verdicts, &plan, test.name)? {
                Verdict::Pass => Ok(()),
                Verdict::Fail(reason) => Err(reason.into()),
            })
        })
        .collect();
    trials.extend(controls(&shared));
    trials.extend(machines(&shared));
    trials.push(counted(&shared));
    #[cfg(feature = "dilithium5")]
    trials.push(second(&shared));
    libtest_mimic::run(&args, trials).exit();
}

/// The harness's own tests: what fails, hangs or panics in the guest must be seen to, and the rest go on.
fn controls(shared: &Arc<Shared>) -> Vec<Trial> {
    type Case = (&'static str, &'static str, fn(&Verdict) -> bool);
    let cases: [Case; 4] = [
        ("harness_sees_a_pass", "control_passes", |v| *v == Verdict::Pass),
        ("harness_sees_a_failure", "control_fails", |v| says(v, "made to fail")),
        ("harness_sees_a_hang", "control_hangs", |v| says(v, "HUNG")),
        ("harness_sees_a_panic", "control_panics", |v| says(v, "DIED")),
    ];
    let trial = |(name, control, right): (&'static str, &'static str, fn(&Verdict) -> bool)| {
        let shared = Arc::clone(shared);
        Trial::test(name, move || {
            let plan: Vec<&str> = CONTROLS.iter().map(|test| test.name).collect();
            let verdict = shared.run(&shared.control, &plan, control)?;
            if right(&verdict) { Ok(()) } else { Err(format!("the harness saw {verdict:?}").into()) }
        })
    };
    cases.into_iter().map(trial).collect()
}

/// Boot objects that no machine may have, and what the kernel says about them.
const REFUSED: [(&str, &str, &str); 5] = [
    (
        "a_bundle_that_asks_for_configuration_ports_is_refused",
        "kind = \"io-ports\"\nbase = 0xcf8\nlen = 8",
        "the ports are the platform's",
    ),
    (
        "a_bundle_that_asks_for_the_timer_s_interrupt_is_refused",
        "kind = \"irq-handler\"\nline = 0",
        "the line is the platform's own",
    ),
    (
        "a_bundle_that_asks_for_the_framebuffer_is_refused",
        "kind = \"device-region\"\nvendor = 0x1234\ndevice = 0x1111\nbar = 0",
        "the window overlaps the framebuffer",
    ),
    (
        "a_bundle_that_asks_for_a_device_twice_is_refused",
        "kind = \"device-region\"\nvendor = 0x1234\ndevice = 0x11e8\nbar = 0",
        "it was handed out already",
    ),
    (
        "a_bundle_that_needs_an_absent_device_is_refused",
        "kind = \"device-irq\"\nvendor = 0x1234\ndevice = 0xffff",
        "the machine has no such device",
    ),
];

/// What the kernel starts with on other machines and bundles, and what it does not.
fn machines(shared: &Arc<Shared>) -> Vec<Trial> {
    let refused = |(name, object, reason): (&'static str, &'static str, &'static str)| {
        let shared = Arc::clone(shared);
        Trial::test(name, move || {
            let boots = || -> anyhow::Result<(bool, bool, String)> {
                let system = shared.system().map_err(|e| anyhow::anyhow!("{e:?}"))?;
                let _alone = run::alone();
                let odd = system.with_objects(&format!("[[object]]\nname = \"odd\"\n{object}"))?;
                let (report, outcome) = run::boot(&odd, &[])?;
                let told = |line: &String| line.contains("boot object odd:") && line.contains(reason);
                let refused = outcome.results.iter().any(|line| line == "BOOT REFUSED");
                let said = outcome.console.iter().any(told);
                Ok((refused, said, run::describe(&report, &outcome)))
            };
            match boots().map_err(|error| format!("{error:#}"))? {
                (true, true, _) => Ok(()),
                (refused, said, what) => {
                    Err(format!("refused: {refused}, for the reason: {said}; {what}").into())
                }
            }
        })
    };
    let mut trials: Vec<Trial> = REFUSED.into_iter().map(refused).collect();
    let shared = Arc::clone(shared);
    trials.push(Trial::test("the_system_starts_without_its_optional_devices", move || {
        let plan = ["control_passes", "an_interrupt_without_a_binding_cannot_be_acknowledged"];
        let board = Board { extra: Vec::new(), ..run::board() };
        let _alone = run::alone();
        let (report, outcome) = run::boot_on(shared.system()?, &plan, board).map_err(|e| format!("{e:#}"))?;
        let lacks = report.verdicts.get(plan[1]).is_some_and(|v| says(v, "NoCapability"));
        match report.verdicts.get(plan[0]) {
            Some(Verdict::Pass) if lacks => Ok(()),
            _ => Err(run::describe(&report, &outcome).into()),
        }
    }));
    trials
}

/// Everything that has to do with entries and time once more, with KPTI and a clock that goes by instructions. One
/// trial, so that who selects a test boots once.
fn counted(shared: &Arc<Shared>) -> Trial {
    let shared = Arc::clone(shared);
    Trial::test("entries_and_budgets_hold_with_kpti_and_a_counted_clock", move || {
        let plan = testrunner::counted_plan();
        let system = shared.system()?;
        let _alone = run::alone();
        let (report, outcome) =
            run::boot_on(system, &plan, run::counted_board()).map_err(|e| format!("{e:#}"))?;
        if !outcome.console.iter().any(|line| line.contains("kpti: true")) {
            return Err("the kernel does not say that KPTI is on".into());
        }
        let failed: Vec<String> = report
            .verdicts
            .iter()
            .filter_map(|(name, verdict)| match verdict {
                Verdict::Pass => None,
                Verdict::Fail(reason) => Some(format!("{name}: {reason}")),
            })
            .collect();
        match (report.done && report.verdicts.len() == plan.len(), failed.is_empty()) {
            (true, true) => Ok(()),
            (true, false) => Err(failed.join("\n").into()),
            (false, _) => Err(run::describe(&report, &outcome).into()),
        }
    })
}

/// Signatures of the second scheme in ring 3.
#[cfg(feature = "dilithium5")]
fn second(shared: &Arc<Shared>) -> Trial {
    let shared = Arc::clone(shared);
    let test = &testrunner::SECOND[0];
    Trial::test(test.name, move || {
        let system = sila_tests::second::system(shared.system()?).map_err(|e| format!("{e:#}"))?;
        match run::run(&system, &[test.name]).map_err(|e| format!("{e:#}"))?.get(test.name) {
            Some(Verdict::Pass) => Ok(()),
            other => Err(format!("{other:?}").into()),
        }
    })
}

fn says(verdict: &Verdict, text: &str) -> bool {
    matches!(verdict, Verdict::Fail(reason) if reason.contains(text))
}
