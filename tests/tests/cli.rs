//! The host tool from the outside: what it prints and the status that it ends with.
use anyhow::{Context, Result};
use boot::paths::{self, Scratch};
use boot::pkg::description::ModuleDescription;
use boot::pkg::keys::test_keys;
use boot::pkg::pack::pack_elf;
use boot::system::{BundleOptions, build};
use libtest_mimic::{Arguments, Failed, Trial};
use sila_tests::tool::{Ran, sila, sila_in};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

fn session() -> Result<&'static Ran, Failed> {
    static SESSION: OnceLock<Result<Ran, String>> = OnceLock::new();
    let script = "ps; load counter; call counter add 5; call counter read; load wasm; \
                  call wasm run fib 10 @fib; services; ps; mem; poweroff";
    let run = || sila(&["run", "--script", script]).map_err(|error| format!("{error:#}"));
    SESSION.get_or_init(run).as_ref().map_err(Failed::from)
}

fn a_session_ends_with_status_0() -> Result<(), Failed> {
    let ran = session()?;
    ran.want(ran.status == 0, "the session should end with status 0")
}

fn ps_shows_console_supervisor_and_agents() -> Result<(), Failed> {
    let ran = session()?;
    for name in ["console", "supervisor", "module-manager", "deep-compression", "service-registry"] {
        let lines = ran.out.lines().filter(|line| line.split_whitespace().any(|word| word == name)).count();
        ran.want(lines >= 2, &format!("{name} should stand in both lists"))?;
    }
    Ok(())
}

fn the_counter_reads_5() -> Result<(), Failed> {
    let ran = session()?;
    let fives = ran.out.lines().filter(|line| line.trim() == "sila/counter: 5").count();
    ran.want(fives == 2, "add and read should print 5")
}

fn wasm_computes_a_fibonacci_number() -> Result<(), Failed> {
    let ran = session()?;
    ran.want(ran.out.lines().any(|line| line.trim().starts_with("sila/wasm: 55 ")), "fib 10 should be 55")
}

fn loaded_modules_stand_in_the_second_ps() -> Result<(), Failed> {
    let ran = session()?;
    let after = ran.out.rfind("call wasm").or(ran.out.rfind("services")).unwrap_or(0);
    let second = ran.out.get(after..).unwrap_or_default();
    for name in ["counter", "wasm"] {
        let listed = second.lines().any(|line| line.split_whitespace().any(|word| word == name));
        ran.want(listed, &format!("{name} should stand in the second list"))?;
    }
    Ok(())
}

fn introspection() -> Result<&'static Ran, Failed> {
    static SESSION: OnceLock<Result<Ran, String>> = OnceLock::new();
    let script = "trace; trace on call reply process-create verify-end; load counter; call counter add 5; trace off; \
                  trace show 1000; counters; caps counter; devices; audit; poweroff";
    let run = || sila(&["run", "--audit-mappings", "--script", script]).map_err(|error| format!("{error:#}"));
    SESSION.get_or_init(run).as_ref().map_err(Failed::from)
}

fn the_trace_shows_a_load_in_order() -> Result<(), Failed> {
    let ran = introspection()?;
    ran.want(ran.printed("trace") == ["no events were recorded"], "nothing is recorded at first")?;
    let shown = ran.printed("trace show 1000");
    let of = |event: &str, part: &str| {
        let found = |line: &&str| line.split_whitespace().any(|word| word == event) && line.contains(part);
        shown.iter().position(found)
    };
    let made = of("process-create", "counter: 1 threads");
    let verified = of("verify-end", "a process: done");
    let called = shown
        .iter()
        .position(|line| line.contains("console") && line.contains(" call ") && line.contains("counter"));
    let order = made.is_some() && made < verified && verified < called;
    ran.want(order, "a process should be made, its verification end, and the console call it")?;
    let answered =
        shown.iter().any(|line| line.contains(" reply ") && line.contains("to ") && line.contains("console"));
    ran.want(answered, "the answer should be there")?;
    ran.want(
        !shown.iter().any(|line| line.contains(" enter ")),
        "kinds that nobody asked for are not recorded",
    )
}

fn counters_and_capabilities_are_listed() -> Result<(), Failed> {
    let ran = introspection()?;
    let counted = ran.printed("counters");
    let value = |name: &str| {
        let line = counted.iter().find(|line| line.starts_with(name))?;
        line.split_whitespace().last()?.parse::<u64>().ok()
    };
    ran.want(value("processes made").is_some_and(|made| made >= 6), "five agents and a module were made")?;
    ran.want(value("verifications begun") == Some(1), "one verification was begun")?;
    ran.want(value("trace records written").is_some_and(|n| n > 4), "events were recorded")?;
    let caps = ran.printed("caps counter");
    for object in ["Process", "Thread", "Pool", "Endpoint"] {
        ran.want(caps.iter().any(|line| line.contains(object)), &format!("counter should hold a {object}"))?;
    }
    ran.want(ran.printed("devices").len() > 4, "devices should be listed")
}

fn an_audited_session_says_that_every_rule_holds() -> Result<(), Failed> {
    let ran = introspection()?;
    ran.want(ran.status == 0, "the session should end with status 0")?;
    let sound = |line: &&str| line.ends_with("user pages, every rule holds");
    ran.want(ran.printed("audit").iter().any(|line| sound(&line.trim())), "audit should say so")?;
    ran.want(
        ran.err.lines().any(|line| line.starts_with("sila: audit: ") && sound(&line)),
        "and the tool at the end",
    )
}

fn an_unknown_module_ends_with_status_1_and_its_name() -> Result<(), Failed> {
    let ran = sila(&["run", "--script", "load nosuch; poweroff"])?;
    ran.want(ran.status == 1, "the status should be 1")?;
    let named = ran
        .out
        .lines()
        .chain(ran.err.lines())
        .any(|line| line.contains("nosuch") && !line.contains("load nosuch"));
    ran.want(named, "an error should name nosuch")
}

fn a_package_with_a_flipped_byte_is_refused_and_the_system_serves_on() -> Result<(), Failed> {
    let scratch = Scratch::new()?;
    let file = scratch.join("spoilt.sila");
    std::fs::write(&file, spoilt()?)?;
    let script = "load spoilt; load counter; call counter add 3; poweroff";
    let ran = sila(&["run", "--add-package", file.to_str().unwrap_or_default(), "--script", script])?;
    ran.want(ran.status == 1, "the status should be 1")?;
    ran.want(ran.says("signature"), "the reason should be given")?;
    ran.want(ran.out.lines().any(|line| line.trim() == "sila/counter: 3"), "the counter should answer 3")
}

/// The counter under another name, signed with the test keys.
fn test_package(name: &str) -> Result<Vec<u8>> {
    let options = BundleOptions::default();
    let built = build(None, Some(&options))?;
    let mut description = ModuleDescription::load(&paths::root()?.join("modules/counter/sila.toml"))?;
    description.module.name = name.into();
    let elf = std::fs::read(built.programs.get("counter").context("counter was not built")?)?;
    pack_elf(&description, &elf, &test_keys(&paths::state()?)?.publisher)
}

/// A package named `spoilt` with one byte of its payload flipped.
fn spoilt() -> Result<Vec<u8>> {
    let mut package = test_package("spoilt")?;
    let at = package.len() / 4;
    *package.get_mut(at).context("an empty package")? ^= 1;
    Ok(package)
}

fn a_module_of_a_new_publisher_outside_the_tree_is_built_packed_and_called() -> Result<(), Failed> {
    let scratch = Scratch::new()?;
    let (dir, keys) = (scratch.join("a module"), scratch.join("acme"));
    let (at, acme) = (dir.to_str().unwrap_or_default(), keys.to_str().unwrap_or_default());
    let made = sila(&["new-module", at, "--name", "greeter", "--publisher", "acme"])?;
    made.want(made.status == 0, "new-module should make the folder")?;
    let early = sila(&["pack", at])?;
    early.want(early.status == 1 && early.says("build-module"), "pack should want a built program")?;
    broken_source_is_shown_as_cargo_shows_it(&dir)?;
    let built = sila(&["build-module", at])?;
    built.want(built.status == 0 && built.says("x86_64-sila-user/release/greeter"), "it should build")?;
    let foreign = sila(&["pack", at])?;
    foreign
        .want(foreign.status == 1 && foreign.says("acme signs greeter"), "the test keys are not acme's")?;
    let certificate = certify_publisher(&keys, "acme", "greeter")?;
    let packed = sila(&["pack", at, "--keys", acme])?;
    packed.want(packed.status == 0, "it should be packed")?;
    let package = dir.join("greeter-0.1.0.sila");
    let file = package.to_str().unwrap_or_default();
    for command in [&["verify"][..], &["inspect", "--chain"]] {
        let ran = sila(&[command, &[file, "--keys", acme]].concat())?;
        ran.want(ran.status == 0 && ran.says("greeter 0.1.0 by acme is good"), "the chain should hold")?;
    }
    let stranger = sila(&["verify", file])?;
    stranger.want(stranger.status == 1 && stranger.says("not known"), "others do not know acme")?;
    let script = "load greeter; call greeter world; poweroff";
    let certificate = certificate.to_str().unwrap_or_default();
    let ran = sila(&["run", "--add-package", file, "--add-record", certificate, "--script", script])?;
    ran.want(ran.status == 0, "the session should end with status 0")?;
    let answer = "acme/greeter: hello, world; you are number 1";
    ran.want(ran.out.lines().any(|line| line.trim() == answer), "the module should answer")
}

/// Makes a key for a publisher in `keys` and certifies it with the test keys; the answer is the certificate's file.
fn certify_publisher(keys: &Path, publisher: &str, prefix: &str) -> Result<PathBuf, Failed> {
    test_keys(&paths::state()?)?;
    let root = paths::state()?.join("test-keys");
    let names = ["--purpose", "test", "--prefix", prefix, "--ceiling", "boot/ceiling-module.toml"];
    certified(&root, keys, publisher, &names)
}

/// Makes a key for a publisher in `keys` and certifies it with the root keys in `root`. `how`: purpose, names, and the
/// ceiling within the tree.
fn certified(root: &Path, keys: &Path, publisher: &str, how: &[&str]) -> Result<PathBuf, Failed> {
    let text = |path: &Path| path.display().to_string();
    let (purpose, how) = how.split_at_checked(2).context("no purpose")?;
    let dir = text(keys);
    let keygen = ["keygen", &dir, "--publisher-only", "--publisher", publisher];
    let made = sila(&[&keygen[..], purpose].concat())?;
    made.want(made.status == 0, "keygen should make the publisher's key")?;
    let (root_dir, out) = (text(root), keys.join("publisher.cert"));
    let out_file = text(&out);
    let fixed = [
        "certify",
        "--keys",
        &root_dir,
        "--publisher-key",
        &dir,
        "--publisher",
        publisher,
        "--sequence",
        "1",
    ];
    let signed = sila_in(&paths::root()?, &[&fixed[..], how, &["--out", &out_file]].concat())?;
    signed.want(signed.status == 0, "the root should certify it")?;
    std::fs::copy(root.join("rootset.bin"), keys.join("rootset.bin"))?;
    Ok(out)
}

fn a_release_system_of_separate_keys_runs_and_takes_no_test_package() -> Result<(), Failed> {
    let scratch = Scratch::new()?;
    let (root, ours) = (scratch.join("root"), scratch.join("ours"));
    let text = |path: &Path| path.display().to_string();
    let (root_dir, ours_dir) = (text(&root), text(&ours));
    let made = sila(&["keygen", &root_dir, "--root-only"])?;
    made.want(made.status == 0, "keygen should make root keys")?;
    let how = ["--purpose", "release", "--any-name", "--ceiling", "boot/ceiling-system.toml"];
    certified(&root, &ours, "sila", &how)?;
    let keys = ["--keys", &root_dir, "--publisher-keys", &ours_dir];
    let script = "load counter; call counter add 5; poweroff";
    let ran = sila(&[&["run", "--script", script][..], &keys].concat())?;
    ran.want(ran.status == 0 && ran.says("(Release)"), "the release system should run")?;
    ran.want(ran.out.lines().any(|line| line.trim() == "sila/counter: 5"), "the counter should answer 5")?;
    let package = scratch.join("test.sila");
    std::fs::write(&package, test_package("counter")?)?;
    let (package, out) = (text(&package), text(&scratch.join("x.img")));
    let image = sila(&[&["image", "--out", &out, "--add-package", &package][..], &keys].concat())?;
    image.want(
        image.status == 1 && image.says("would refuse it"),
        "a test key's package has no place in it",
    )?;
    image.want(!Path::new(&out).exists(), "no image should be written")?;
    let verified = sila(&["verify", &package, "--keys", &ours_dir])?;
    verified.want(verified.status == 1 && verified.says("not known"), "and verify says so, too")
}

/// A type error in the module: the compiler's own words come through, and the status is 1.
fn broken_source_is_shown_as_cargo_shows_it(dir: &Path) -> Result<(), Failed> {
    let main = dir.join("src/main.rs");
    let good = std::fs::read_to_string(&main)?;
    std::fs::write(&main, good.replace("0_u64", "\"zero\""))?;
    let ran = sila(&["build-module", dir.to_str().unwrap_or_default()])?;
    ran.want(ran.status == 1, "a module that does not compile is a failure")?;
    ran.want(ran.err.contains("src/main.rs:") && ran.err.contains("error["), "the compiler should be heard")?;
    std::fs::write(&main, good)?;
    Ok(())
}

fn main() {
    let args = Arguments::from_args();
    macro_rules! trials {
        ($($name:ident)+) => { vec![$(Trial::test(stringify!($name), $name)),+] };
    }
    let trials = trials![
        a_session_ends_with_status_0
        ps_shows_console_supervisor_and_agents
        the_counter_reads_5
        wasm_computes_a_fibonacci_number
        loaded_modules_stand_in_the_second_ps
        the_trace_shows_a_load_in_order
        counters_and_capabilities_are_listed
        an_audited_session_says_that_every_rule_holds
        an_unknown_module_ends_with_status_1_and_its_name
        a_package_with_a_flipped_byte_is_refused_and_the_system_serves_on
        a_module_of_a_new_publisher_outside_the_tree_is_built_packed_and_called
        a_release_system_of_separate_keys_runs_and_takes_no_test_package
    ];
    libtest_mimic::run(&args, trials).exit();
}
