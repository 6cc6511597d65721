//! The command `mutants`: takes one of the kernel's defences away at a time, in a copy of the tree, and runs the test
//! that must notice.
use crate::missing::Usage;
use crate::{bare, paths};
use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long building and running one test may take.
const LIMIT: Duration = Duration::from_secs(3600);
/// How many of the last lines a failure shows.
const LAST_LINES: usize = 20;

/// The options of `mutants`.
#[derive(Debug, Clone, Args)]
pub struct MutantsArgs {
    /// Try only this mutant, or those that begin so (may be repeated)
    #[arg(long, value_name = "NAME")]
    pub only: Vec<String>,
}

/// Where a test runs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// A test of the kernel's core on this machine, by its path.
    Host(String),
    /// A test of `sila_crypto` on this machine, by its path.
    Crypto(String),
    /// A test in the guest, by its name.
    Guest(String),
}

impl Place {
    /// The program that the test is in, as `cargo test -p` takes it.
    const fn program(&self) -> &'static [&'static str] {
        match self {
            Self::Host(_) => &["kernel", "--lib"],
            Self::Crypto(_) => &["sila_crypto", "--lib"],
            Self::Guest(_) => &["sila_tests", "--test", "in_guest"],
        }
    }

    /// The test in it.
    fn name(&self) -> &str {
        let (Self::Host(name) | Self::Crypto(name) | Self::Guest(name)) = self;
        name
    }
}

/// A change to the kernel that takes a defence away.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mutant {
    /// Its name.
    pub name: String,
    /// What it takes away.
    pub defence: String,
    /// The file that it changes, from the root of the tree.
    pub file: PathBuf,
    /// The text that it replaces: it occurs once.
    pub text: String,
    /// What stands there instead.
    pub replacement: String,
    /// The test that must fail.
    pub test: Place,
}

/// The committed list, `tests/mutants.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mutants {
    /// In the order in which they are tried.
    #[serde(rename = "mutant")]
    pub all: Vec<Mutant>,
}

impl Mutants {
    /// Reads the list of the tree at `root`.
    pub fn read(root: &Path) -> Result<Self> {
        let path = root.join("tests/mutants.toml");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let list: Self = toml::from_str(&text).with_context(|| format!("in {}", path.display()))?;
        let names: BTreeSet<&str> = list.all.iter().map(|mutant| mutant.name.as_str()).collect();
        if names.len() != list.all.len() {
            bail!("{} names a mutant twice", path.display());
        }
        Ok(list)
    }
}

impl Mutant {
    /// The file's text with the change made.
    pub fn applied(&self, text: &str) -> Result<String> {
        match text.matches(&self.text).count() {
            1 if self.replacement != self.text => Ok(text.replacen(&self.text, &self.replacement, 1)),
            1 => bail!("its replacement changes nothing"),
            count => bail!("its text occurs {count} times in {}", self.file.display()),
        }
    }
}

/// What became of a mutant.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fate {
    /// The test failed, as it must.
    Caught,
    /// Nobody noticed.
    Survived,
    /// It cannot be tried, for this reason.
    Broken(String),
}

/// How many tests passed and failed, by what a test program said; `None` if nothing was built or run.
fn counts(output: &str) -> Option<(usize, usize)> {
    // In the guest a failure to build fails the test, too.
    if output.contains("the first error is:") {
        return None;
    }
    let mut results = output.lines().filter_map(|line| line.strip_prefix("test result: "));
    let (result, None) = (results.next()?, results.next()) else { return None };
    let count = |what: &str| {
        let (before, _) = result.split_once(what)?;
        before.split_whitespace().next_back()?.parse().ok()
    };
    Some((count(" passed;")?, count(" failed;")?))
}

/// Tries the mutants; the answer is the tool's status.
pub fn run(args: &MutantsArgs) -> Result<u8> {
    let root = paths::root()?;
    let list = Mutants::read(&root)?;
    let wanted = |mutant: &&Mutant| {
        args.only.is_empty() || args.only.iter().any(|name| mutant.name.starts_with(name.as_str()))
    };
    let chosen: Vec<&Mutant> = list.all.iter().filter(wanted).collect();
    if let Some(name) =
        args.only.iter().find(|name| !chosen.iter().any(|mutant| mutant.name.starts_with(name.as_str())))
    {
        return Err(Usage(format!("no mutant's name begins with {name}")).into());
    }
    let began = Instant::now();
    let scratch = Scratch::new(&root)?;
    scratch.check_tests(&chosen)?;
    let mut failed = 0;
    for mutant in &chosen {
        let since = Instant::now();
        let fate = scratch.fate(mutant)?;
        let (said, test) = (since.elapsed().as_secs(), mutant.test.name());
        match &fate {
            Fate::Caught => println!("{:<28} caught by {test} ({said} s)", mutant.name),
            Fate::Survived => println!("{:<28} SURVIVED {test}: {}", mutant.name, mutant.defence),
            Fate::Broken(why) => println!("{:<28} CANNOT BE TRIED: {why}", mutant.name),
        }
        failed += usize::from(fate != Fate::Caught);
    }
    let took = began.elapsed().as_secs();
    println!("{} mutants, {} caught, {took} s", chosen.len(), chosen.len() - failed);
    Ok(u8::from(failed > 0))
}

/// A copy of the tree with a build directory of its own, kept from run to run so that little is built anew.
struct Scratch {
    tree: PathBuf,
    target: PathBuf,
}

impl Scratch {
    fn new(root: &Path) -> Result<Self> {
        let target = paths::target()?;
        let scratch = Self { tree: target.join("mutants/tree"), target: target.join("mutants/target") };
        fs::create_dir_all(&scratch.target)?;
        mirror(root, &scratch.tree, &[target, root.join("target"), root.join(".git")])?;
        Ok(scratch)
    }

    /// Every test that is to fail passes as long as nothing is changed.
    fn check_tests(&self, chosen: &[&Mutant]) -> Result<()> {
        // Those of one program on this machine run together, those in the guest one by one.
        let mut together: BTreeMap<&[&str], BTreeSet<&str>> = BTreeMap::new();
        let mut alone = BTreeSet::new();
        for test in chosen.iter().map(|mutant| &mutant.test) {
            match test {
                Place::Guest(name) => drop(alone.insert((test.program(), name.as_str()))),
                _ => drop(together.entry(test.program()).or_default().insert(test.name())),
            }
        }
        let together = together.into_iter().map(|(program, names)| (program, names.into_iter().collect()));
        let alone = alone.into_iter().map(|(program, name)| (program, vec![name]));
        for (program, names) in together.chain(alone) {
            let names: Vec<&str> = names;
            let output = self.run(program, &names)?;
            if counts(&output) != Some((names.len(), 0)) {
                let passed = |name: &&&str| {
                    let mut said = output.lines().filter_map(|line| line.strip_prefix("test "));
                    said.any(|line| line.split_whitespace().next() == Some(name) && line.ends_with("... ok"))
                };
                let left: Vec<_> = names.iter().filter(|name| !passed(name)).collect();
                bail!("without any mutant, {left:?} do not pass:\n{}", end_of(&output));
            }
        }
        Ok(())
    }

    fn fate(&self, mutant: &Mutant) -> Result<Fate> {
        let path = self.tree.join(&mutant.file);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let changed = match mutant.applied(&text) {
            Ok(changed) => changed,
            Err(why) => return Ok(Fate::Broken(format!("{why}"))),
        };
        fs::write(&path, changed)?;
        let output = self.run(mutant.test.program(), &[mutant.test.name()]);
        fs::write(&path, text)?;
        let output = output?;
        Ok(match counts(&output) {
            Some((0, 1)) => Fate::Caught,
            Some((1, 0)) => Fate::Survived,
            _ => Fate::Broken(format!("its test did not run:\n{}", end_of(&output))),
        })
    }

    /// Builds and runs tests of one program in the copy, and gives what they said; of those in the guest, one.
    fn run(&self, program: &[&str], names: &[&str]) -> Result<String> {
        let mut command = Command::new("cargo");
        bare::scrub(&mut command);
        command.current_dir(&self.tree).env("CARGO_TARGET_DIR", &self.target);
        command.env("SILA_ROOT", &self.tree).env("CARGO_INCREMENTAL", "1");
        // What is built to run one test once is better built fast.
        command.env("CARGO_PROFILE_DEV_DEBUG", "0");
        command.args(["--config", "profile.dev.package.kernel.opt-level=0", "test", "--locked", "-p"]);
        command.args(program).args(["--", "--exact"]).args(names);
        let path = self.target.join("output");
        let log = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        let mut child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        let deadline = Instant::now() + LIMIT;
        while child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                child.kill()?;
                child.wait()?;
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(String::from_utf8_lossy(&fs::read(&path)?).into_owned())
    }
}

/// Makes `to` hold what `from` holds, but for some folders. Files that are the same are left alone, so that what was
/// built from them stays good.
fn mirror(from: &Path, to: &Path, but: &[PathBuf]) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    let mut kept = BTreeSet::new();
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let (source, target) =
            (entry.as_ref().map(fs::DirEntry::path), entry.as_ref().map(|e| to.join(e.file_name())));
        let (Ok(source), Ok(target)) = (source, target) else { continue };
        if but.contains(&source) {
            continue;
        }
        kept.insert(target.clone());
        if source.is_dir() {
            mirror(&source, &target, but)?;
        } else if source.is_file() {
            let bytes = fs::read(&source)?;
            if fs::read(&target).ok().as_ref() != Some(&bytes) {
                fs::write(&target, bytes)?;
            }
            fs::set_permissions(&target, fs::metadata(&source)?.permissions())?;
        }
    }
    for entry in fs::read_dir(to)?.flatten().map(|entry| entry.path()).filter(|path| !kept.contains(path)) {
        if entry.is_dir() { fs::remove_dir_all(&entry)? } else { fs::remove_file(&entry)? }
    }
    Ok(())
}

/// The last lines of a text.
fn end_of(output: &str) -> String {
    let lines: Vec<&str> = output.lines().collect();
    lines.get(lines.len().saturating_sub(LAST_LINES)..).unwrap_or_default().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mutant(text: &str, replacement: &str) -> Mutant {
        Mutant {
            name: "m".into(),
            defence: "d".into(),
            file: "f".into(),
            text: text.into(),
            replacement: replacement.into(),
            test: Place::Guest("t".into()),
        }
    }

    #[test]
    fn a_mutant_applies_where_its_text_occurs_once() {
        assert_eq!(mutant("b", "x").applied("abc").unwrap(), "axc");
        for (text, replacement) in [("z", "x"), ("a", "x"), ("b", "b")] {
            assert!(mutant(text, replacement).applied("aba").is_err(), "{text}");
        }
    }

    #[test]
    fn only_an_explicit_result_counts() {
        let line = "x\ntest result: FAILED. 2 passed; 31 failed; 0 ignored; 0 measured\n";
        assert_eq!(counts(line), Some((2, 31)));
        assert_eq!(counts("error: could not compile"), None);
        assert_eq!(counts(&format!("{line}{line}")), None, "two programs ran");
        assert_eq!(counts(&format!("building failed; the first error is: x\n{line}")), None);
        assert_eq!(counts("test result: odd"), None);
    }

    #[test]
    fn a_mirror_follows_changes_and_leaves_alone_what_is_the_same() {
        let scratch = crate::paths::Scratch::new().unwrap();
        let (from, to) = (scratch.join("from"), scratch.join("to"));
        fs::create_dir_all(from.join("deep")).unwrap();
        fs::create_dir_all(from.join("target/x")).unwrap();
        fs::write(from.join("same"), "1").unwrap();
        fs::write(from.join("deep/other"), "2").unwrap();
        let but = [from.join("target")];
        mirror(&from, &to, &but).unwrap();
        assert!(!to.join("target").exists());
        let before = fs::metadata(to.join("same")).unwrap().modified().unwrap();
        fs::write(from.join("deep/other"), "3").unwrap();
        fs::write(to.join("stale"), "4").unwrap();
        mirror(&from, &to, &but).unwrap();
        assert_eq!(fs::read_to_string(to.join("deep/other")).unwrap(), "3");
        assert!(!to.join("stale").exists());
        assert_eq!(fs::metadata(to.join("same")).unwrap().modified().unwrap(), before);
    }
}
