//! `bench --profile NAME`: QEMU writes down each instruction of an operation; here they get names.
use crate::guest::Options;
use crate::paths::Scratch;
use crate::toolchain::on_path;
use anyhow::{Context, Result, bail};
use object::{Object, ObjectSymbol};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The function in the guest's program that begins each round.
const ROUND: &str = "::profile_round";
/// How long the guest is watched, and how much it may say meanwhile.
const WATCH: Duration = Duration::from_secs(3);
const MOST_BYTES: u64 = 400 << 20;
/// Instructions whose price is far from that of the rest, as the disassembler spells them.
const EXPENSIVE: [(&str, &[&str]); 13] = [
    ("mov cr3", &[]),
    ("invlpg", &["invlpg", "invpcid"]),
    ("wrmsr", &["wrmsr"]),
    ("rdmsr", &["rdmsr"]),
    ("xsave", &["xsave", "fxsave"]),
    ("xrstor", &["xrstor", "fxrstor"]),
    ("fs/gs base", &["wrfsbase", "wrgsbase", "rdfsbase", "rdgsbase"]),
    ("swapgs", &["swapgs"]),
    ("iret", &["iret"]),
    ("sysret", &["sysret"]),
    ("locked", &["lock", "xchg"]),
    ("port I/O", &["in ", "out "]),
    ("rep", &["rep "]),
];

/// Where an operation's instructions are, for one round.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Profile {
    /// Rounds that were traced whole.
    pub rounds: usize,
    /// Instructions in ring 3, in all rounds.
    pub user: u64,
    /// Instructions in the kernel, in all rounds.
    pub kernel: u64,
    /// Expensive ones, by kind.
    pub expensive: BTreeMap<&'static str, u64>,
    /// By the function they are in after inlining.
    pub functions: BTreeMap<String, u64>,
    /// By the function that the source has them in.
    pub sources: BTreeMap<String, u64>,
}

/// Runs the guest, looks on for a while, and sums up.
pub fn record(mut options: Options, kernel: &Path, program: &Path, scratch: &Scratch) -> Result<Profile> {
    let (socket, log) = (scratch.join("watch"), scratch.join("trace"));
    let chardev = format!("socket,id=watch,path={},server=on,wait=off", socket.display());
    options.board.extra.extend(["-chardev".into(), chardev]);
    options.board.extra.extend(["-mon", "chardev=watch,mode=readline"].map(String::from));
    let mut watched = Err(anyhow::anyhow!("the guest did not begin the operation"));
    crate::boot(&options, &mut |line| match line.strip_prefix("bench ") {
        Some(rest) if rest.starts_with("profile ") => watched = watch(&socket, &log),
        Some(rest) if rest.starts_with("fail ") => watched = Err(anyhow::anyhow!("{rest}")),
        _ => {}
    })?;
    watched?;
    let names = Names::new(kernel, program)?;
    let file = std::fs::File::open(&log).context("QEMU wrote no trace")?;
    let lines = BufReader::new(file).lines().map_while(std::result::Result::ok);
    let mut profile = Profile::default();
    let (rounds, counts) = windows(lines.filter_map(|line| address(&line)), &names);
    profile.rounds = rounds;
    for (place, count) in counts {
        names.add(&mut profile, place, count);
    }
    if rounds == 0 {
        bail!("the operation did not come round while it was watched");
    }
    Ok(profile)
}

/// Has QEMU trace for a while, and ends it.
fn watch(socket: &Path, log: &Path) -> Result<()> {
    let mut monitor = UnixStream::connect(socket).context("QEMU's monitor")?;
    monitor.set_read_timeout(Some(Duration::from_secs(3)))?;
    let logfile = format!("logfile {}", log.display());
    for command in [logfile.as_str(), "singlestep on", "log exec,nochain"] {
        tell(&mut monitor, command)?;
    }
    let until = Instant::now() + WATCH;
    let size = || std::fs::metadata(log).map_or(0, |file| file.len());
    while Instant::now() < until && size() < MOST_BYTES {
        std::thread::sleep(Duration::from_millis(50));
    }
    tell(&mut monitor, "log none")?;
    tell(&mut monitor, "quit")
}

/// Gives QEMU's monitor a command and reads what it says until it falls silent, asks for more, or is gone.
fn tell(monitor: &mut UnixStream, command: &str) -> Result<()> {
    writeln!(monitor, "{command}")?;
    let (mut said, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(n @ 1..) = monitor.read(&mut buffer) {
        said.extend_from_slice(buffer.get(..n).unwrap_or_default());
        if said.ends_with(b"\n(qemu) ") {
            break;
        }
    }
    if std::env::var_os("SILA_TEST_TRACE").is_some() {
        eprintln!("{}", String::from_utf8_lossy(&said));
    }
    Ok(())
}

/// The address in a line of the trace.
fn address(line: &str) -> Option<u64> {
    let inside = line.strip_prefix("Trace ")?.split_once('[')?.1;
    u64::from_str_radix(inside.split('/').nth(1)?, 16).ok()
}

/// Counts the instructions between the first and the second reading of the time-stamp counter in each whole round.
fn windows(trace: impl Iterator<Item = u64>, names: &Names) -> (usize, HashMap<u64, u64>) {
    let mut counts: HashMap<u64, u64> = HashMap::new();
    let mut open: Option<(usize, Vec<u64>)> = None;
    let mut rounds = 0;
    for place in trace {
        if place == names.round {
            open = Some((0, Vec::new()));
        } else if let Some((readings, window)) = &mut open {
            let reading = names.readings.contains(&place);
            *readings += usize::from(reading);
            if *readings == 2 {
                window.drain(..).for_each(|place| *counts.entry(place).or_default() += 1);
                rounds += 1;
                open = None;
            } else if *readings == 1 && !reading {
                window.push(place);
            }
        }
    }
    (rounds, counts)
}

/// Names of addresses.
struct Names {
    round: u64,
    readings: Vec<u64>,
    instructions: HashMap<u64, String>,
    kernel: Option<addr2line::Loader>,
    program: Option<addr2line::Loader>,
}

fn is_kernel(place: u64) -> bool {
    place >> 63 == 1
}

impl Names {
    fn new(kernel: &Path, program: &Path) -> Result<Self> {
        let bytes = std::fs::read(program)?;
        let elf = object::File::parse(&*bytes).context("the benchmarks' ELF file")?;
        let is_round =
            |symbol: &object::Symbol<'_, '_>| symbol.name().is_ok_and(|name| demangle(name).ends_with(ROUND));
        let round = elf.symbols().find(is_round).context("the benchmarks have no rounds")?.address();
        let mut readings = Vec::new();
        for (place, text) in disassemble(program)? {
            if text.starts_with("rdtsc") {
                readings.push(place);
            }
        }
        Ok(Self {
            round,
            readings,
            instructions: disassemble(kernel)?,
            kernel: addr2line::Loader::new(kernel).ok(),
            program: addr2line::Loader::new(program).ok(),
        })
    }

    fn add(&self, profile: &mut Profile, place: u64, count: u64) {
        let loader = if is_kernel(place) { &self.kernel } else { &self.program };
        if is_kernel(place) {
            profile.kernel += count;
            if let Some(kind) = self.instructions.get(&place).and_then(|text| expensive(text)) {
                *profile.expensive.entry(kind).or_default() += count;
            }
        } else {
            profile.user += count;
        }
        let mut chain = Vec::new();
        if let Some(mut frames) = loader.as_ref().and_then(|loader| loader.find_frames(place).ok()) {
            while let Ok(Some(frame)) = frames.next() {
                chain.extend(frame.function.and_then(|name| name.raw_name().ok().map(|raw| demangle(&raw))));
            }
        }
        let symbol = loader.as_ref().and_then(|loader| loader.find_symbol(place)).map(demangle);
        let outer = symbol.or_else(|| chain.last().cloned()).unwrap_or_else(|| "?".into());
        let inner = chain.first().cloned().unwrap_or_else(|| outer.clone());
        let ring = if is_kernel(place) { "" } else { "ring 3: " };
        *profile.functions.entry(format!("{ring}{outer}")).or_default() += count;
        *profile.sources.entry(format!("{ring}{inner}")).or_default() += count;
    }
}

fn demangle(name: &str) -> String {
    format!("{:#}", rustc_demangle::demangle(name))
}

/// Every instruction of an ELF file by its address.
fn disassemble(elf: &Path) -> Result<HashMap<u64, String>> {
    let objdump: PathBuf = on_path("objdump").context("objdump (binutils) is missing")?;
    let mut command = Command::new(objdump);
    command.args(["-d", "--no-show-raw-insn"]).arg(elf).stderr(Stdio::null());
    let out = command.output()?;
    Ok(String::from_utf8_lossy(&out.stdout).lines().filter_map(instruction).collect())
}

/// Address and text of a line of a disassembly.
fn instruction(line: &str) -> Option<(u64, String)> {
    let (place, text) = line.split_once(":\t")?;
    Some((u64::from_str_radix(place.trim(), 16).ok()?, text.trim().to_string()))
}

/// The kind of an expensive instruction.
fn expensive(text: &str) -> Option<&'static str> {
    if text.starts_with("mov") && text.ends_with(",%cr3") {
        return Some("mov cr3");
    }
    // An exchange with memory is locked, one of registers is not.
    if text.starts_with("xchg") && !text.contains('(') {
        return None;
    }
    let starts = |names: &&[&str]| names.iter().any(|name| text.starts_with(name));
    EXPENSIVE.iter().find(|(_, names)| starts(names)).map(|(kind, _)| *kind)
}

impl Profile {
    /// The profile for people, with the `top` functions of each list.
    pub fn text(&self, name: &str, top: usize) -> String {
        let each = |count: u64| count as f64 / self.rounds.max(1) as f64;
        let mut text = format!(
            "{name}: {:.1} instructions in a round ({:.1} in ring 3, {:.1} in the kernel), {} rounds\n",
            each(self.user + self.kernel),
            each(self.user),
            each(self.kernel),
            self.rounds
        );
        let expensive: Vec<String> =
            self.expensive.iter().map(|(kind, count)| format!("{kind} {:.1}", each(*count))).collect();
        let _ = writeln!(text, "expensive: {}", expensive.join(", "));
        for (title, list) in [("after inlining", &self.functions), ("in the source", &self.sources)] {
            let _ = writeln!(text, "\nfunctions {title}:");
            let mut list: Vec<(&String, &u64)> = list.iter().collect();
            list.sort_by(|a, b| b.1.cmp(a.1));
            for (function, count) in list.into_iter().take(top) {
                let _ = writeln!(text, "{:>9.1}  {function}", each(*count));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        Names {
            round: 0x10,
            readings: vec![0x20],
            instructions: HashMap::from([(1 << 63, "mov    %rax,%cr3".into())]),
            kernel: None,
            program: None,
        }
    }

    #[test]
    fn addresses_are_read_from_the_trace() {
        let line = "Trace 0: 0x7fe1a0000100 [0000000000000000/ffffffff80001234/0000c0b3/ff000001] ";
        assert_eq!(address(line), Some(0xffff_ffff_8000_1234));
        assert_eq!(address("Stopped execution of TB chain before 0x7f [12] "), None);
    }

    #[test]
    fn only_what_is_between_the_two_readings_counts() {
        let trace = [0x30, 0x10, 0x31, 0x20, 0x32, 1 << 63, 0x20, 0x33, 0x20, 0x10, 0x20, 0x34];
        let (rounds, counts) = windows(trace.into_iter(), &names());
        assert_eq!((rounds, counts.len(), counts.get(&0x32)), (1, 2, Some(&1)));
        let mut profile = Profile { rounds, ..Profile::default() };
        counts.into_iter().for_each(|(place, count)| names().add(&mut profile, place, count));
        assert_eq!((profile.user, profile.kernel), (1, 1));
        assert_eq!(profile.expensive, BTreeMap::from([("mov cr3", 1)]));
        let text = profile.text("x", 5);
        assert!(text.contains("2.0 instructions") && text.contains("mov cr3 1.0"), "{text}");
    }

    #[test]
    fn expensive_instructions_are_told_from_cheap_ones() {
        for (text, kind) in [
            ("mov    %rax,%cr3", Some("mov cr3")),
            ("mov    %cr3,%rax", None),
            ("xsaveopt64 (%rdi)", Some("xsave")),
            ("xrstor64 (%rdi)", Some("xrstor")),
            ("lock xadd %rax,(%rdi)", Some("locked")),
            ("xchg   %ax,%ax", None),
            ("xchg   %al,(%rdi)", Some("locked")),
            ("in     (%dx),%al", Some("port I/O")),
            ("inc    %rax", None),
            ("iretq", Some("iret")),
            ("rep stos %rax,%es:(%rdi)", Some("rep")),
        ] {
            assert_eq!(expensive(text), kind, "{text}");
        }
    }

    #[test]
    fn a_disassembly_is_read() {
        let line = "ffffffff80001000:\tmov    %rax,%rbx";
        assert_eq!(instruction(line), Some((0xffff_ffff_8000_1000, "mov    %rax,%rbx".into())));
        assert_eq!(instruction("ffffffff80001000 <x>:"), None);
    }
}
