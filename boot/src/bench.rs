//! The command `bench`: boots the benchmark image, where one instruction is 64 ns, and shows what operations cost.
use crate::bench_profile::{self, Profile};
use crate::bench_table::{self, Baseline, Results};
use crate::cli::BenchArgs;
use crate::guest::{Options, RunOutcome};
use crate::outcome::Outcome;
use crate::paths::{self, Scratch};
use crate::pkg::description::ModuleDescription;
use crate::pkg::keys::{KeySet, test_keys};
use crate::pkg::pack::{self, Parts};
use crate::pkg::sif_build::elf_to_sif;
use crate::qemu::Board;
use crate::system::{self, BundleOptions, Image};
use crate::{run, toolchain};
use anyhow::{Context, Result, anyhow, bail};
use sila_abi::manifest::Codec;
use sila_abi::package::{LoadProof, Package};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Names of the test data entries, as the program in the guest knows them.
const PLAN: &str = "bench.plan";
const IMAGE: &str = "bench.image";
const PROOF: &str = "bench.proof";
/// How long the guest may take.
const LIMIT: Duration = Duration::from_secs(900);
/// The CPU model that counts.
const CPU: &str = "max";

/// Runs the benchmarks; the answer is the tool's status.
pub fn run(args: &BenchArgs) -> Result<u8> {
    crate::qemu::find()?;
    crate::qemu::firmware()?;
    let scratch = Scratch::new()?;
    if let Some(name) = &args.profile {
        let profile = profile(name, &scratch)?;
        print!("{}", profile.text(name, args.top));
        return Ok(0);
    }
    let plan = args.only.iter().map(|name| format!("{name}\n")).collect::<String>() + "\n";
    let (image, _) = make_image(&plan, &scratch)?;
    let (results, outcome) = measure(&image)?;
    if results.rows.is_empty() || outcome.exit != Outcome::Well {
        run::report(&outcome, false);
        results.failures.iter().for_each(|failure| eprintln!("sila: bench: {failure}"));
        if results.rows.is_empty() {
            outcome.last_lines().iter().for_each(|line| eprintln!("    {line}"));
            bail!("the guest measured nothing");
        }
    }
    let version = toolchain::select()?.version;
    print!("{}", bench_table::table(&results));
    if let Some(path) = &args.json {
        write(path, &bench_table::json(&results)?)?;
    }
    if let Some(path) = &args.book {
        write(path, &bench_table::page(&results, &version, CPU))?;
    }
    let status = compare(args, &results, &bench_table::key(&version, CPU))?;
    Ok(if outcome.exit == Outcome::Well { status } else { outcome.exit.status() })
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn baseline_path() -> Result<PathBuf> {
    Ok(paths::root()?.join("boot/bench-baseline.json"))
}

/// Compares with the baseline, or makes this the baseline.
fn compare(args: &BenchArgs, results: &Results, key: &str) -> Result<u8> {
    let path = baseline_path()?;
    let mut baseline = match std::fs::read_to_string(&path) {
        Ok(text) => Baseline::parse(&text).with_context(|| format!("in {}", path.display()))?,
        Err(_) => Baseline::default(),
    };
    if args.update_baseline {
        baseline.update(key, results);
        write(&path, &baseline.text()?)?;
        println!("wrote {}", path.display());
        return Ok(0);
    }
    if !args.check {
        return Ok(0);
    }
    let Some(changes) = baseline.changes(key, results, args.only.is_empty()) else {
        println!("there is no baseline for {key}: nothing to compare with");
        return Ok(0);
    };
    for change in &changes {
        eprintln!("sila: bench: {change}");
    }
    Ok(u8::from(!changes.is_empty()))
}

/// The machine on which the virtual time counts instructions.
pub fn board() -> Board {
    let count = ["-icount", "shift=6,sleep=off"].map(String::from).to_vec();
    Board { cpu: CPU.into(), graphics: false, extra: count, ..Board::default() }
}

fn measure(image: &Image) -> Result<(Results, RunOutcome)> {
    let mut options = Options::new(&image.path);
    options.kernel = Some(image.kernel.clone());
    options.timeout = Some(LIMIT);
    options.board = board();
    let trace = std::env::var_os("SILA_TEST_TRACE").is_some();
    let outcome = crate::boot(&options, &mut |line| {
        if trace {
            eprintln!("{line}");
        }
    })?;
    let results = Results::read(outcome.results.iter().map(String::as_str));
    Ok((results, outcome))
}

fn profile(name: &str, scratch: &Scratch) -> Result<Profile> {
    let (image, program) = make_image(&format!("profile {name}\n"), scratch)?;
    let mut options = Options::new(&image.path);
    options.timeout = Some(Duration::from_secs(60));
    options.board = board();
    // Another build may replace these files while the guest runs.
    let (kernel, copy) = (scratch.join("kernel.elf"), scratch.join("bench.elf"));
    std::fs::copy(&image.kernel, &kernel).context("cannot copy the kernel")?;
    std::fs::copy(&program, &copy).context("cannot copy the program")?;
    bench_profile::record(options, &kernel, &copy, scratch)
}

/// The image of the benchmarks with this plan, and the program's ELF file.
fn make_image(plan: &str, scratch: &Scratch) -> Result<(Image, PathBuf)> {
    let description = Some(paths::root()?.join("boot/bundle-bench.toml"));
    let mut options = BundleOptions { description, ..BundleOptions::default() };
    let built = system::build(None, Some(&options))?;
    let keys = test_keys(&paths::state()?)?;
    let program = built.programs.get("bench").context("the benchmarks were not built")?.clone();
    let (image, proof) = peer(&program, &keys)?;
    let data = [(PLAN, plan.as_bytes().to_vec()), (IMAGE, image), (PROOF, proof)];
    options.test_data = data.map(|(name, bytes)| (name.to_string(), bytes)).to_vec();
    let bundle = system::make_bundle(&built, &options)?;
    Ok((system::write_image(&built, bundle, &scratch.join("bench.img"))?, program))
}

/// The peer's image and load proof, for the guest to make processes of.
fn peer(program: &Path, keys: &KeySet) -> Result<(Vec<u8>, Vec<u8>)> {
    let elf = std::fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    let image = elf_to_sif(&elf)?;
    let description = ModuleDescription::load(&paths::root()?.join("modules/bench/peer.toml"))?;
    let manifest = pack::manifest(&description, &image, &image, Codec::None, &keys.publisher)?;
    let package = Parts::sign(&manifest, &image, &keys.publisher.key)?.assemble()?;
    let package = Package::parse(&package).map_err(|error| anyhow!("{error}"))?;
    let proof = LoadProof::of_package(&package);
    let mut bytes = vec![0; proof.len()];
    proof.write(&mut bytes).map_err(|error| anyhow!("{error}"))?;
    Ok((image, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_counts_instructions() {
        let board = board();
        assert_eq!(board.extra, ["-icount", "shift=6,sleep=off"]);
        assert_eq!((board.cpu.as_str(), board.smp), ("max", 1));
    }
}
