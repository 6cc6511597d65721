//! Files that are pushed into a running system: what becomes of good and bad ones, on the real path from the host tool
//! over the serial port and the depot to ModuleManager and the kernel.
use anyhow::{Context, Result};
use boot::paths::{self, Scratch};
use boot::pkg::description::ModuleDescription;
use boot::pkg::keys::{KeySet, PublisherKey, test_keys};
use boot::pkg::pack::pack;
use boot::pkg::sif_build::elf_to_sif;
use boot::system::{BundleOptions, build};
use libtest_mimic::{Arguments, Failed, Trial};
use sila_tests::tool::{Ran, sila};
use std::path::PathBuf;
use std::sync::OnceLock;

#[path = "push/floors.rs"]
mod floors;
#[path = "push/link.rs"]
mod link;
#[path = "push/outside.rs"]
mod outside;
#[path = "push/publisher.rs"]
mod publisher;

/// The counter's image, and the keys of the system, to make packages with.
struct Maker {
    image: Vec<u8>,
    description: ModuleDescription,
    keys: KeySet,
}

impl Maker {
    fn new() -> Result<Self> {
        let built = build(None, Some(&BundleOptions::default()))?;
        let elf = std::fs::read(built.programs.get("counter").context("counter was not built")?)?;
        let description = ModuleDescription::load(&paths::root()?.join("modules/counter/sila.toml"))?;
        Ok(Self { image: elf_to_sif(&elf)?, description, keys: test_keys(&paths::state()?)? })
    }

    /// A package of the counter under this name and version, with a service of that name.
    fn package(&self, name: &str, version: &str, publisher: &PublisherKey) -> Result<Vec<u8>> {
        let mut description = self.description.clone();
        description.module.name = name.into();
        description.module.version = version.into();
        if let Some(service) = &mut description.service {
            service.name = name.into();
        }
        pack(&description, &self.image, publisher)
    }

    fn own(&self, name: &str, version: &str) -> Result<Vec<u8>> {
        self.package(name, version, &self.keys.publisher)
    }
}

/// The same package with a byte of its payload flipped: manifest and hints are as they were.
fn spoilt(mut package: Vec<u8>) -> Result<Vec<u8>> {
    let at = package.len() / 4;
    *package.get_mut(at).context("an empty package")? ^= 1;
    Ok(package)
}

/// Files in a folder that vanishes, as scripts name them.
struct Files(Scratch);

impl Files {
    fn new() -> Result<Self> {
        Ok(Self(Scratch::new()?))
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<PathBuf> {
        let path = self.0.join(name);
        std::fs::write(&path, bytes)?;
        Ok(path)
    }

    /// Runs a script, in which `%NAME` is the file of that name.
    fn run(&self, script: &str, options: &[&str]) -> Result<Ran> {
        let script = script.replace('%', &format!("{}/", self.0.join("").display()).replace("//", "/"));
        let mut ran = sila(&[&["run", "--script", &script], options].concat())?;
        // What is printed names files as the test does.
        ran.out = ran.out.replace(&format!("{}/", self.0.join("").display()).replace("//", "/"), "%");
        Ok(ran)
    }
}

/// The one line that a command printed.
fn line<'a>(ran: &'a Ran, command: &str) -> &'a str {
    ran.printed(command).first().copied().unwrap_or_default()
}

fn session() -> Result<&'static Ran, Failed> {
    static SESSION: OnceLock<Result<Ran, String>> = OnceLock::new();
    let run = || good_and_bad().map_err(|error| format!("{error:#}"));
    SESSION.get_or_init(run).as_ref().map_err(Failed::from)
}

fn good_and_bad() -> Result<Ran> {
    let (maker, files) = (Maker::new()?, Files::new()?);
    let good = maker.own("pushed", "1.0.0")?;
    files.put("good", &good)?;
    files.put("other", &spoilt(good.clone())?)?;
    files.put("cut", good.get(..good.len() - 1).context("an empty package")?)?;
    files.put("longer", &[&good[..], b"x"].concat())?;
    files.put("garbage", &[0x16, 5, b'S', b'F'].repeat(2000))?;
    files.put("huge", &vec![1; (4 << 20) + 1])?;
    files.put("older", &maker.own("counter", "0.0.9")?)?;
    files.put("same", &maker.own("counter", "0.1.0")?)?;
    files.put("max", &spoilt(maker.own("counter", "65535.65535.65535")?)?)?;
    let script = "depot; load pushed; !push %good; depot; load pushed; call pushed add 5; stop 7; \
                  !push %good; !push %other; !push %cut; !push %longer; !push %garbage; !push %huge; !push %absent; \
                  !push %older; !push %same; load counter; stop 8; load counter@0.0.9; stop 9; \
                  !push %max; load counter; stop 10; load counter@65535.65535.65535; \
                  depot remove pushed@1.0.0; load pushed; depot remove pushed@1.0.0; modules";
    files.run(script, &[])
}

fn a_pushed_package_is_loaded_called_and_stopped() -> Result<(), Failed> {
    let ran = session()?;
    let loads = ran.answers("load pushed");
    let said = |at: usize| loads.get(at).and_then(|lines| lines.first()).copied().unwrap_or_default();
    ran.want(line(ran, "depot") == "the depot is empty", "the depot should be empty at first")?;
    ran.want(said(0).contains("no module named `pushed`"), "before the push there should be no such module")?;
    ran.want(
        line(ran, "!push %good").starts_with("push: the depot keeps pushed 1.0.0,"),
        "it should be kept",
    )?;
    ran.want(said(1).starts_with("pushed 1.0.0 by sila runs as process 7"), "it should load")?;
    ran.want(line(ran, "call pushed add 5") == "sila/pushed: 5", "it should answer")?;
    ran.want(line(ran, "stop 7") == "process 7 has ended", "it should stop")?;
    let listed = ran.answers("depot").pop().unwrap_or_default();
    let row = |line: &&str| ["pushed", "1.0.0", "service", "sila"].iter().all(|word| line.contains(word));
    ran.want(listed.len() == 2 && listed.iter().any(row), "depot should list it")
}

fn what_was_pushed_can_be_pushed_again_but_not_changed() -> Result<(), Failed> {
    let ran = session()?;
    let again = ran.answers("!push %good").pop().unwrap_or_default();
    ran.want(
        again.first() == Some(&"push: the depot keeps pushed 1.0.0 already"),
        "the same should do nothing",
    )?;
    ran.want(
        line(ran, "!push %other").contains("pushed 1.0.0 with other content"),
        "other content is refused",
    )?;
    ran.want(line(ran, "depot remove pushed@1.0.0").contains("no longer"), "it can be removed")?;
    let gone = ran.answers("load pushed").pop().unwrap_or_default();
    ran.want(gone.first().is_some_and(|line| line.contains("no module named")), "then it is gone")?;
    let twice = ran.answers("depot remove pushed@1.0.0").pop().unwrap_or_default();
    ran.want(twice.first().is_some_and(|line| line.contains("keeps no pushed 1.0.0")), "removed twice")
}

fn files_that_are_no_packages_are_refused_with_their_reason() -> Result<(), Failed> {
    let ran = session()?;
    for (file, reason) in [
        ("cut", "refused it: the package is malformed: truncated"),
        ("longer", "refused it: the package is malformed: trailing bytes"),
        ("garbage", "refused it: the file is no package, and as a signed record: "),
        ("huge", "%huge has 4194305 bytes; a system takes at most 4194304"),
        ("absent", "cannot read %absent"),
    ] {
        let said = line(ran, &format!("!push %{file}"));
        ran.want(said.contains(reason), &format!("{file} should be refused: {reason}; not: {said}"))?;
    }
    ran.want(ran.status == 1, "a push that fails makes the run fail")
}

fn the_newest_of_bundle_and_depot_is_loaded() -> Result<(), Failed> {
    let ran = session()?;
    for file in ["older", "same"] {
        ran.want(line(ran, &format!("!push %{file}")).contains("the depot keeps counter"), "it is kept")?;
    }
    ran.want(line(ran, "load counter").starts_with("counter 0.1.0 by sila runs"), "the bundle's is newer")?;
    ran.want(
        line(ran, "load counter@0.0.9").starts_with("counter 0.0.9 by sila runs"),
        "the older one is there",
    )
}

fn a_bad_package_of_the_highest_version_bricks_nothing() -> Result<(), Failed> {
    let ran = session()?;
    ran.want(line(ran, "!push %max").contains("counter 65535.65535.65535"), "the depot believes it")?;
    let loads = ran.answers("load counter");
    let second = loads.get(1).and_then(|lines| lines.first()).copied().unwrap_or_default();
    ran.want(second.starts_with("counter 0.1.0 by sila runs"), "the good one should be loaded")?;
    let exact = line(ran, "load counter@65535.65535.65535");
    ran.want(exact.contains("the package's signature is invalid"), "who insists is told why not")
}

/// What no signature covers but the binary signature itself: only who checks that one sees it.
fn a_newer_package_with_a_damaged_binary_signature_bricks_nothing() -> Result<(), Failed> {
    let (maker, files) = (Maker::new()?, Files::new()?);
    let mut package = maker.own("counter", "9.0.0")?;
    *package.last_mut().context("an empty package")? ^= 1;
    files.put("signature", &package)?;
    let ran = files.run("!push %signature; load counter; load counter@9.0.0", &[])?;
    ran.want(line(&ran, "!push %signature").contains("counter 9.0.0"), "the depot believes it")?;
    ran.want(line(&ran, "load counter").starts_with("counter 0.1.0 by sila runs"), "the good one loads")?;
    let exact = line(&ran, "load counter@9.0.0");
    ran.want(exact.contains("the binary's signature is invalid"), "who insists is told why not")
}

/// More packages than the depot keeps, all of them small.
fn the_depot_keeps_so_many_packages_and_no_more() -> Result<(), Failed> {
    let (maker, files) = (Maker::new()?, Files::new()?);
    let mut script = String::new();
    for number in 0..=depot::store::MAX_PACKAGES {
        files.put(&format!("p{number}"), &small(&maker, number)?)?;
        script.push_str(&format!("!push %p{number}; "));
    }
    let ran = files.run(&(script + "depot remove p3@0.1.0; !push %p16; load counter"), &[])?;
    ran.want(line(&ran, "!push %p15").contains("the depot keeps p15"), "sixteen should fit")?;
    ran.want(
        line(&ran, "!push %p16").contains("the depot is full: it keeps 16 packages"),
        "one more should not",
    )?;
    let again = ran.answers("!push %p16").pop().unwrap_or_default();
    ran.want(
        again.first().is_some_and(|line| line.contains("the depot keeps p16")),
        "after a removal it should",
    )?;
    ran.want(line(&ran, "load counter").contains("runs as process"), "a full depot hinders nobody")
}

/// A package that is well-formed, and whose payload is no module.
fn small(maker: &Maker, number: usize) -> Result<Vec<u8>> {
    use boot::pkg::pack::{Parts, manifest};
    let mut description = maker.description.clone();
    description.module.name = format!("p{number}");
    let codec = sila_abi::manifest::Codec::Zstd;
    let publisher = &maker.keys.publisher;
    let manifest = manifest(&description, &maker.image, b"x", codec, publisher)?;
    Parts::sign(&manifest, b"x", &publisher.key)?.assemble()
}

/// A module that holds the receiver's side of the depot's endpoint, and never looks at it.
const DEAF: &str = r#"
[[module]]
program = "wasm"
description = "modules/wasm/sila.toml"
priority = 64
frames = 512
object_bytes = 131072
job = "root-job"
receives = ["depot"]

[[module.grant]]
request = "lifecycle"
rights = ["SEND", "GRANT"]
badge = 7

[[module.grant]]
request = "clock"
rights = ["READ"]

[[module.grant]]
request = "registry"
rights = ["SEND", "GRANT"]
badge = 7
"#;

/// A system without depot, or with that module in its place.
fn without_depot(instead: &str, reason: &str) -> Result<(), Failed> {
    let files = Files::new()?;
    let base = paths::root()?.join("boot/bundle.toml");
    let text = format!("sequence = 1\ninclude = {base:?}\n[[withhold]]\nprogram = \"depot\"\n{instead}");
    let bundle = files.put("bundle.toml", text.as_bytes())?;
    let bundle = bundle.to_str().context("an odd folder")?;
    let script = "load nosuch; load counter; call counter add 2";
    let ran = files.run(script, &["--bundle", bundle])?;
    let nosuch = line(&ran, "load nosuch");
    ran.want(
        nosuch.contains(&format!("the depot does not answer: {reason}")),
        "what only it could have fails",
    )?;
    ran.want(line(&ran, "load counter").contains("runs as process"), "the bundle's loads")?;
    ran.want(line(&ran, "call counter add 2") == "sila/counter: 2", "and answers")
}

fn a_depot_that_has_ended_stops_no_load_of_the_bundle() -> Result<(), Failed> {
    without_depot("", "the peer ended")
}

fn a_depot_that_hangs_stops_no_load_of_the_bundle() -> Result<(), Failed> {
    without_depot(DEAF, "the deadline passed")
}

fn without_a_running_system_a_push_fails() -> Result<(), Failed> {
    let files = Files::new()?;
    let file = files.put("x", b"x")?;
    let (file, nowhere) =
        (file.to_string_lossy().into_owned(), files.0.join("nowhere").display().to_string());
    let ran = sila(&["push", &file, "--to", &nowhere])?;
    ran.want(ran.status == 64 && ran.err.contains("nowhere"), "a socket that is not there")?;
    let ran = sila(&["push", &nowhere])?;
    ran.want(ran.status == 64 && ran.err.contains("nowhere"), "a file that is not there")?;
    let ran = sila(&["export-floors", &format!("{nowhere}.floors"), "--from", &nowhere])?;
    ran.want(ran.status == 64 && ran.err.contains("nowhere"), "a system that is not there has no floors")?;
    let ran = sila(&["run", "--script", "!push"])?;
    ran.want(ran.status == 64 && ran.err.contains("!push FILE"), "a step without its file")
}

fn main() {
    let args = Arguments::from_args();
    macro_rules! trials {
        ($($name:ident)+) => { vec![$(Trial::test(stringify!($name), $name)),+] };
    }
    let mut trials = trials![
        a_pushed_package_is_loaded_called_and_stopped
        what_was_pushed_can_be_pushed_again_but_not_changed
        files_that_are_no_packages_are_refused_with_their_reason
        the_newest_of_bundle_and_depot_is_loaded
        a_bad_package_of_the_highest_version_bricks_nothing
        a_newer_package_with_a_damaged_binary_signature_bricks_nothing
        the_depot_keeps_so_many_packages_and_no_more
        a_depot_that_has_ended_stops_no_load_of_the_bundle
        a_depot_that_hangs_stops_no_load_of_the_bundle
        without_a_running_system_a_push_fails
    ];
    macro_rules! more {
        ($($module:ident::$name:ident)+) => { [$(Trial::test(stringify!($name), $module::$name)),+] };
    }
    trials.extend(more![
        floors::floors_are_read_off_a_running_system_and_hold_in_the_next
        link::garbage_on_the_link_stops_no_push
        outside::a_module_from_outside_the_tree_is_pushed_loaded_called_stopped_and_revoked
        publisher::a_module_of_an_unknown_publisher_waits_for_the_certificate
        publisher::what_the_certificate_does_not_cover_stays_refused
        publisher::a_pushed_revocation_ends_what_its_key_could_do
        publisher::keys_floors_and_policy_are_shown
        publisher::a_pushed_policy_holds_for_the_next_load
    ]);
    libtest_mimic::run(&args, trials).exit();
}
