//! Every in-guest test under its own name. The system boots once for all that are selected, and only if one is.
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

fn says(verdict: &Verdict, text: &str) -> bool {
    matches!(verdict, Verdict::Fail(reason) if reason.contains(text))
}
