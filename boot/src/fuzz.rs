//! The command `fuzz`: boots the fuzzer, which makes system calls of ring 3 from a seed, and shows what came of them.
use crate::cli::FuzzArgs;
use crate::fuzz_material;
use crate::fuzz_results::Results;
use crate::guest::{Options, RunOutcome};
use crate::outcome::Outcome;
use crate::paths::{self, Scratch};
use crate::pkg::description::ModuleDescription;
use crate::pkg::keys::{KeySet, test_keys};
use crate::pkg::pack::{self, Parts};
use crate::pkg::sif_build::elf_to_sif;
use crate::qemu::Board;
use crate::run;
use crate::system::{self, BundleOptions, Image};
use anyhow::{Context, Result};
use fuzz::Plan;
use sila_abi::manifest::Codec;
use sila_abi::trust::{Record, RecordKind, Revocation, RevokedItem};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long the guest may take before the first call, and for each thousand.
const LIMIT: (u64, u64) = (120, 4);
/// The same for managers, whose loads are verified.
const MANAGER_LIMIT: (u64, u64) = (120, 20);
/// The sequence of the first record that workers install.
const FIRST_RECORD: u64 = 1000;
/// How many there are.
const RECORDS: u64 = 8;

/// Runs the fuzzer; the answer is the tool's status.
pub fn run(args: &FuzzArgs) -> Result<u8> {
    crate::qemu::find()?;
    crate::qemu::firmware()?;
    let fuzzer = Fuzzer::new()?;
    let show = args.show.unwrap_or(u64::MAX);
    let manager = args.manager;
    let plan = Plan { skip: args.skip, check: args.check, show, manager, ..Plan::new(args.calls, args.seed) };
    let first = fuzzer.run(&plan, &mut |line| eprintln!("{line}"))?;
    print!("{}", first.text());
    let mut status = first.status();
    if args.replay && status == 0 {
        let second = fuzzer.run(&plan, &mut |_| {})?;
        status = status.max(second.status());
        match first.results.first_difference(&second.results) {
            None => println!("a second run of the seed came to the same"),
            Some(call) => {
                eprintln!("sila: fuzz: seed {}: two runs differ before call {call}", args.seed);
                status = status.max(1);
            }
        }
    }
    Ok(status)
}

/// The machine, on which runs repeat.
pub fn board() -> Board {
    Board { graphics: false, counted: true, ..Board::default() }
}

/// The fuzzer, built.
pub struct Fuzzer {
    built: crate::bare::Built,
    options: BundleOptions,
}

/// How one run went.
pub struct Run {
    /// What it made up its calls from.
    pub seed: u64,
    /// What the guest said.
    pub results: Results,
    /// How it ended.
    pub outcome: RunOutcome,
    /// How long it took.
    pub took: Duration,
}

impl Fuzzer {
    /// Builds everything but the plan.
    pub fn new() -> Result<Self> {
        let description = Some(paths::root()?.join("boot/bundle-fuzz.toml"));
        let mut options = BundleOptions { description, ..BundleOptions::default() };
        let built = system::build(None, Some(&options))?;
        let program = built.programs.get("fuzz").context("the fuzzer was not built")?;
        options.test_data = test_data(program, &test_keys(&paths::state()?)?)?;
        Ok(Self { built, options })
    }

    fn image(&self, plan: &Plan, out: &Path) -> Result<Image> {
        let mut options = self.options.clone();
        options.test_data.push((fuzz::PLAN.into(), plan.text().into_bytes()));
        system::write_image(&self.built, system::make_bundle(&self.built, &options)?, out)
    }

    /// One run; `progress` gets lines as they come.
    pub fn run(&self, plan: &Plan, progress: &mut dyn FnMut(&str)) -> Result<Run> {
        let scratch = Scratch::new()?;
        let image = self.image(plan, &scratch.join("fuzz.img"))?;
        let mut options = Options::new(&image.path);
        options.kernel = Some(image.kernel);
        options.board = board();
        let limit = if plan.manager { MANAGER_LIMIT } else { LIMIT };
        options.timeout = Some(Duration::from_secs(limit.0 + plan.calls / 1000 * limit.1));
        let begun = Instant::now();
        let outcome = crate::guest::boot(&options, &mut |line| {
            let at = line.strip_prefix("fuzz at ").and_then(|at| at.rsplit_once(' '));
            if let Some((at, _)) = at.filter(|(at, _)| at.contains("0000 ")) {
                progress(&format!("sila: fuzz: {at}"));
            }
            if let Some(shown) = line.strip_prefix("fuzz show ") {
                progress(shown);
            }
        })?;
        let mut results = Results::read(outcome.results.iter().map(String::as_str));
        results.manager = plan.manager;
        Ok(Run { seed: plan.seed, results, outcome, took: begun.elapsed() })
    }
}

impl Run {
    /// The tool's status: whether the kernel held, and everything was tried that must be.
    pub fn status(&self) -> u8 {
        let right = self.results.done.is_some() && self.results.failure.is_none();
        self.outcome.exit.status().max(u8::from(!right || !self.results.untried().is_empty()))
    }

    /// What came of it, for people.
    pub fn text(&self) -> String {
        let mut text = self.results.text(self.seed, self.took);
        if self.outcome.exit != Outcome::Well && self.results.failure.is_none() {
            run::report(&self.outcome, false);
            let calls = self.results.last().map_or(0, |(calls, _)| calls);
            text.push_str(&format!("seed {}: the run ended after call {calls}\n", self.seed));
        }
        text
    }
}

/// What workers are made from, and what they install.
fn test_data(program: &Path, keys: &KeySet) -> Result<Vec<(String, Vec<u8>)>> {
    let elf = std::fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    let image = elf_to_sif(&elf)?;
    let path = paths::root()?.join("modules/fuzz/worker.toml");
    let manifest =
        pack::manifest(&ModuleDescription::load(&path)?, &image, &image, Codec::None, &keys.publisher)?;
    let proof = Parts::sign(&manifest, &image, &keys.publisher.key)?.proof()?;
    let mut data = vec![(fuzz::IMAGE.to_string(), image)];
    let flipped = [0, proof.len() / 4, proof.len() / 2, proof.len() - 1].map(|at| {
        let mut bytes = proof.clone();
        bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1);
        bytes
    });
    let cut = proof.iter().take(proof.len() / 2).copied().collect();
    let damaged = flipped.into_iter().chain([cut]).enumerate();
    data.extend(damaged.map(|(i, bytes)| (format!("{}.{i}", fuzz::DAMAGED_PROOF), bytes)));
    data.push((fuzz::PROOF.to_string(), proof));
    data.extend(fuzz_material::test_data(&elf, keys)?);
    for i in 0..RECORDS {
        let item = RevokedItem::Key([i as u8 + 1; 32]);
        let record =
            keys.sign_record(RecordKind::Revocation, &Revocation { sequence: FIRST_RECORD + i, item })?;
        data.push((format!("{}.{i}", fuzz::RECORDS), record.encode()?));
    }
    Ok(data)
}
