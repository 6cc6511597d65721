//! A short run of the fuzzer, and that a seed replays.
use boot::fuzz::Fuzzer;
use fuzz::Plan;
use sila_tests::run::alone;
use std::sync::OnceLock;

/// The fuzzer, built once.
fn fuzzer() -> Result<&'static Fuzzer, String> {
    static FUZZER: OnceLock<Result<Fuzzer, String>> = OnceLock::new();
    let build = || Fuzzer::new().map_err(|error| format!("{error:#}"));
    FUZZER.get_or_init(build).as_ref().map_err(String::clone)
}

#[test]
fn twenty_thousand_calls_leave_the_kernel_sound_and_its_accounts_exact() {
    let _alone = alone();
    let run = fuzzer().unwrap().run(&Plan::new(20_000, 1), &mut |_| {}).unwrap();
    assert_eq!(run.status(), 0, "{}", run.text());
    let done = |name: &str| run.results.calls.get(name).is_some_and(|(_, done)| *done > 0);
    for call in ["Invoke", "Call", "Send", "Recv", "Reply"] {
        assert!(done(call), "{call} never succeeded");
    }
    let succeeded = run.results.ops.values().filter(|(_, done)| *done > 0).count();
    assert!(succeeded * 4 > run.results.ops.len() * 3, "{succeeded} of {}", run.results.ops.len());
}

#[test]
fn hostile_managers_gain_nothing() {
    let _alone = alone();
    let plan = Plan { manager: true, ..Plan::new(20_000, 1) };
    let run = fuzzer().unwrap().run(&plan, &mut |_| {}).unwrap();
    assert_eq!(run.status(), 0, "{}", run.text());
    let done = |name: &str| run.results.ops.get(name).is_some_and(|(_, done)| *done > 0);
    for name in ["ProcessCreate", "KeyRingInstall", "RegionSeal", "EndpointBind"] {
        assert!(done(name), "{name} never succeeded");
    }
    for error in ["ManifestSignature", "ImageDigest", "BelowFloor", "RequestNotGranted", "StillWritable"] {
        assert!(run.results.errors.contains_key(error), "{error} was never seen");
    }
    let looked = run.results.oracle.unwrap();
    assert!(looked.iter().all(|count| *count > 0), "{looked:?}");
}

#[test]
fn two_runs_of_a_seed_come_to_the_same_and_another_seed_to_something_else() {
    let _alone = alone();
    let [a, b, c] = [7, 7, 8].map(|seed| fuzzer().unwrap().run(&Plan::new(2000, seed), &mut |_| {}).unwrap());
    for run in [&a, &b, &c] {
        assert_eq!(run.status(), 0, "{}", run.text());
    }
    assert_eq!(a.results, b.results);
    assert_ne!(a.results.done, c.results.done);
    let plan = Plan { manager: true, ..Plan::new(2000, 7) };
    let [a, b] = [(), ()].map(|()| fuzzer().unwrap().run(&plan, &mut |_| {}).unwrap());
    assert_eq!(a.status(), 0, "{}", a.text());
    assert_eq!(a.results, b.results);
}
