//! The command `bench`: boots the benchmark image, where one instruction is 64 ns, and shows what operations cost.
use crate::bench_baseline::Baseline;
use crate::bench_profile::{Code, Profile};
use crate::bench_table::{self, Conditions, Results};
use crate::bench_trace::{self, Traced};
use crate::cli::{BenchArgs, Kpti};
use crate::guest::{Options, RunOutcome};
use crate::missing::Usage;
use crate::outcome::Outcome;
use crate::paths::{self, Scratch};
use crate::pkg::description::ModuleDescription;
use crate::pkg::keys::{KeySet, test_keys};
use crate::pkg::pack::{self, Parts};
use crate::pkg::sif_build::{SegmentInput, build, elf_segments, elf_to_sif};
use crate::qemu::Board;
use crate::system::{self, BundleOptions, Image};
use crate::{bench_page, bench_small, run, toolchain};
use anyhow::{Context, Result, bail};
use bench::TRACE;
use sila_abi::manifest::Codec;
use sila_abi::sif::{PAGE_SIZE, Perm};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the guest may take.
const LIMIT: Duration = Duration::from_secs(900);
/// The CPU model that counts.
const CPU: &str = "max";
/// Rounds of each row that are traced, and for a profile.
const ROUNDS: usize = 3;
const PROFILE_ROUNDS: usize = 20;

/// Runs the benchmarks; the answer is the tool's status.
pub fn run(args: &BenchArgs) -> Result<u8> {
    args.only.iter().chain(&args.profile).try_for_each(|name| known(name))?;
    crate::qemu::find()?;
    crate::qemu::firmware()?;
    let scratch = Scratch::new()?;
    let rounds = if args.profile.is_some() { PROFILE_ROUNDS } else { ROUNDS };
    let wanted = args.only.iter().chain(&args.profile);
    let plan = wanted.map(|name| format!("{name}\n")).collect::<String>() + &format!("{TRACE} {rounds}\n");
    let bench = Bench::new(&plan, scratch)?;
    if let Some(name) = &args.profile {
        let run = bench.measure(args.kpti == Kpti::On)?;
        let traced = run.traced.iter().find(|traced| traced.name == *name);
        let traced = traced.with_context(|| run.why_nothing("traced"))?;
        print!("{}", Profile::of(traced, &bench.kernel, &bench.program)?.text(name, args.top));
        return Ok(0);
    }
    let kpti = if args.book.is_some() { Kpti::Both } else { args.kpti };
    let (results, status) = bench.figures(kpti)?;
    let conditions =
        Conditions { compiler: toolchain::select()?.version, cpu: CPU.into(), kpti: kpti == Kpti::On };
    print!("{}", bench_table::table(&results));
    if let Some(path) = &args.json {
        write(path, &bench_table::json(&results, &conditions)?)?;
    }
    if let Some(path) = &args.book {
        write(path, &bench_page::page(&results, &conditions))?;
    }
    Ok(compare(args, &results, &conditions.key())?.max(status))
}

/// Refuses a name that means no row.
fn known(name: &str) -> Result<()> {
    if bench::NAMES.iter().any(|row| bench::names(name, row)) {
        return Ok(());
    }
    bail!(Usage(format!("there is no row {name}; the rows are {}", bench::NAMES.join(", "))))
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
    let whole = args.only.is_empty();
    if args.update_baseline {
        baseline.update(key, results, whole);
        write(&path, &baseline.text()?)?;
        println!("wrote {}", path.display());
        return Ok(0);
    }
    if !args.check {
        return Ok(0);
    }
    let Some(changes) = baseline.changes(key, results, whole) else {
        println!("there is no baseline for {key}: nothing to compare with");
        return Ok(0);
    };
    for change in &changes {
        eprintln!("sila: bench: {change}");
    }
    Ok(u8::from(!changes.is_empty()))
}

/// The machine on which the virtual time counts instructions.
pub fn board(kpti: bool) -> Board {
    let flag = format!("kpti={}", if kpti { "on" } else { "off" });
    Board { cpu: CPU.into(), graphics: false, kernel_flags: vec![flag], counted: true, ..Board::default() }
}

/// The benchmarks, built.
struct Bench {
    image: Image,
    /// Copies (in the folder below): another build may replace the files while the guest runs.
    kernel: PathBuf,
    program: PathBuf,
    _scratch: Scratch,
}

/// A run of the guest.
struct Run {
    results: Results,
    traced: Vec<Traced>,
    outcome: RunOutcome,
}

impl Run {
    fn why_nothing(&self, what: &str) -> String {
        let failures = self.results.failures.iter().chain(self.outcome.last_lines());
        format!(
            "the guest {what} nothing\n{}",
            failures.map(|line| format!("    {line}\n")).collect::<String>()
        )
    }
}

impl Bench {
    fn new(plan: &str, scratch: Scratch) -> Result<Self> {
        let description = Some(paths::root()?.join("boot/bundle-bench.toml"));
        let mut options = BundleOptions { description, ..BundleOptions::default() };
        let built = system::build(None, Some(&options))?;
        let keys = test_keys(&paths::state()?)?;
        let program = built.programs.get("bench").context("the benchmarks were not built")?;
        options.test_data = test_data(program, &keys)?;
        options.packages.push(small_package(program, &keys, &scratch)?);
        options.test_data.push((bench::PLAN.into(), plan.as_bytes().to_vec()));
        let bundle = system::make_bundle(&built, &options)?;
        let image = system::write_image(&built, bundle, &scratch.join("bench.img"))?;
        let (kernel, copy) = (scratch.join("kernel.elf"), scratch.join("bench.elf"));
        std::fs::copy(&built.kernel, &kernel).context("cannot copy the kernel")?;
        std::fs::copy(program, &copy).context("cannot copy the program")?;
        Ok(Self { image, kernel, program: copy, _scratch: scratch })
    }

    fn measure(&self, kpti: bool) -> Result<Run> {
        let mut options = Options::new(&self.image.path);
        options.kernel = Some(self.kernel.clone());
        options.timeout = Some(LIMIT);
        options.board = board(kpti);
        let trace = std::env::var_os("SILA_TEST_TRACE").is_some();
        let folder = Scratch::new()?;
        let (outcome, traced) = bench_trace::boot(options, &self.program, &folder, &mut |line| {
            if trace {
                eprintln!("{line}");
            }
        })?;
        let results = Results::read(outcome.results.iter().map(String::as_str));
        Ok(Run { results, traced, outcome })
    }

    /// Everything that was asked for, in one table, and the status so far.
    fn figures(&self, kpti: Kpti) -> Result<(Results, u8)> {
        let code = Code::new(&self.kernel, &self.program)?;
        let mut tables = Vec::new();
        let mut status = 0;
        for apart in [false, true] {
            if kpti == (if apart { Kpti::Off } else { Kpti::On }) {
                continue;
            }
            let mut run = self.measure(apart)?;
            if run.results.rows.is_empty() {
                run::report(&run.outcome, false);
                bail!(run.why_nothing("measured"));
            }
            bench_table::add_traces(&mut run.results, &run.traced, &code);
            if run.outcome.exit != Outcome::Well {
                run::report(&run.outcome, false);
            }
            status = status.max(run.outcome.exit.status()).max(u8::from(!run.results.failures.is_empty()));
            tables.push(run.results);
        }
        let apart = (tables.len() > 1).then(|| tables.pop()).flatten();
        let mut results = tables.pop().context("nothing was measured")?;
        if let Some(apart) = apart {
            bench_table::add_kpti(&mut results, &apart);
        }
        Ok((results, status))
    }
}

/// The images and load proofs that the guest makes processes of.
fn test_data(program: &Path, keys: &KeySet) -> Result<Vec<(String, Vec<u8>)>> {
    let elf = std::fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    let (image, large) = (elf_to_sif(&elf)?, large_image(&elf)?);
    let page = large.get(..4096).context("an image without a header")?.to_vec();
    let mut data = vec![(bench::IMAGE.to_string(), image.clone()), (bench::LARGE.to_string(), page)];
    let small = bench_small::image(&elf)?;
    for (name, description) in bench::PROOFS.iter().zip(["peer", "holder", "full", "large"]) {
        let of = if description == "large" { &large } else { &image };
        data.push((name.to_string(), proof(description, of, keys)?));
    }
    for (name, caps) in bench::PROOFS.iter().skip(4).zip([0, 1, 8, 32]) {
        data.push((name.to_string(), bench_small::proof(&small, caps, keys)?));
    }
    data.extend(bench_small::cases(keys)?);
    data.push((bench::SMALL.to_string(), small));
    Ok(data)
}

/// The package that is loaded by ModuleManager, as a file.
fn small_package(program: &Path, keys: &KeySet, scratch: &Scratch) -> Result<PathBuf> {
    let elf = std::fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    let path = scratch.join("benchsmall.sila");
    std::fs::write(&path, bench_small::package(&bench_small::image(&elf)?, keys)?)?;
    Ok(path)
}

/// The same program with so many zeros behind it that it is 16 MiB long.
fn large_image(elf: &[u8]) -> Result<Vec<u8>> {
    let (entry, mut segments) = elf_segments(elf)?;
    let length = build(entry, &segments)?.len();
    let end = segments.last().map(|last| last.vaddr + last.mem_len).context("no segments")?;
    let data = vec![0; bench::LARGE_BYTES.checked_sub(length).context("the program is too large")?];
    segments.push(SegmentInput {
        vaddr: end.next_multiple_of(PAGE_SIZE),
        mem_len: data.len() as u64,
        perm: Perm::R,
        data,
    });
    build(entry, &segments)
}

fn proof(description: &str, image: &[u8], keys: &KeySet) -> Result<Vec<u8>> {
    let path = paths::root()?.join(format!("modules/bench/{description}.toml"));
    let manifest =
        pack::manifest(&ModuleDescription::load(&path)?, image, image, Codec::None, &keys.publisher)?;
    Parts::sign(&manifest, image, &keys.publisher.key)?.proof()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_counts_instructions() {
        let board = board(true);
        assert!(board.counted);
        assert_eq!(board.kernel_flags, ["kpti=on"]);
        assert_eq!((board.cpu.as_str(), board.smp), ("max", 1));
    }

    #[test]
    fn names_of_rows_and_families_of_rows_are_known_and_no_others() {
        for name in ["yield", "ipc_call_reply", "dispatch_latency_hash"] {
            known(name).unwrap();
        }
        for name in ["", "ipc_", "yields", "ipc_call_reply_5w"] {
            let error = known(name).unwrap_err();
            assert!(error.is::<Usage>() && error.to_string().contains("null_invocation"), "{name}");
        }
    }
}
