//! QEMU writes down every instruction of some rounds of each row of the benchmarks.
//!
//! The guest calls a function between the rounds. QEMU's debugger port stops it there, so that its monitor can switch
//! the log of executed instructions on and off in time; the log goes through a pipe and is counted as it comes.
use crate::gdb::Gdb;
use crate::guest::{Options, RunOutcome};
use crate::paths::Scratch;
use crate::toolchain::on_path;
use anyhow::{Context, Result, anyhow, bail};
use bench::{MARK_BEGIN, MARK_END, MARK_NEXT};
use object::{Object, ObjectSymbol};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// The function in the guest's program that is called between the rounds.
const MARKER: &str = "::trace_mark";

/// The instruction that reads the time-stamp counter.
const RDTSC: [u8; 2] = [0x0f, 0x31];

/// How often each address was executed in the window of one round.
pub type Counts = HashMap<u64, u64>;

/// The traced rounds of a row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traced {
    /// The row.
    pub name: String,
    /// Its rounds.
    pub rounds: Vec<Counts>,
}

/// Instructions in a round.
pub fn total(round: &Counts) -> u64 {
    round.values().sum()
}

impl Traced {
    /// The round in the middle, by its length.
    pub fn middle(&self) -> Option<&Counts> {
        let mut rounds: Vec<&Counts> = self.rounds.iter().collect();
        rounds.sort_by_key(|round| total(round));
        rounds.get(rounds.len().checked_sub(1)? / 2).copied()
    }
}

/// Where a program marks its rounds and reads the time-stamp counter.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Marks {
    marker: u64,
    readings: Vec<u64>,
}

impl Marks {
    fn of(program: &Path) -> Result<Self> {
        let bytes = std::fs::read(program)?;
        let elf = object::File::parse(&*bytes).context("the benchmarks' ELF file")?;
        let marks =
            |symbol: &object::Symbol<'_, '_>| symbol.name().is_ok_and(|n| demangle(n).ends_with(MARKER));
        let marker = elf.symbols().find(marks).context("the benchmarks mark no rounds")?.address();
        let reads = |(place, text): (u64, String)| text.starts_with("rdtsc").then_some(place);
        Ok(Self { marker, readings: disassemble(program)?.into_iter().filter_map(reads).collect() })
    }
}

/// A symbol's name as the source has it.
pub fn demangle(name: &str) -> String {
    format!("{:#}", rustc_demangle::demangle(name))
}

/// Boots, and has QEMU trace what the guest says it traces. `on_result` gets the results channel's lines as they come.
pub fn boot(
    mut options: Options,
    program: &Path,
    scratch: &Scratch,
    on_result: &mut dyn FnMut(&str),
) -> Result<(RunOutcome, Vec<Traced>)> {
    let (port, monitor) = (scratch.join("gdb"), scratch.join("watch"));
    let extra = &mut options.board.extra;
    extra.extend(["-gdb".into(), format!("unix:{},server=on,wait=off", port.display())]);
    extra.extend([
        "-chardev".into(),
        format!("socket,id=watch,path={},server=on,wait=off", monitor.display()),
    ]);
    extra.extend(["-mon", "chardev=watch,mode=control"].map(String::from));
    let marks = Marks::of(program)?;
    let folder = scratch.join("");
    let tracer = std::thread::spawn(move || Tracer::connect(&port, &monitor, marks, folder)?.trace());
    let mut names = Vec::new();
    let outcome = crate::boot(&options, &mut |line| {
        names.extend(
            line.strip_prefix("bench trace ").and_then(|rest| rest.split(' ').next()).map(String::from),
        );
        on_result(line);
    })?;
    let rows = tracer.join().map_err(|_| anyhow!("tracing the guest failed"))??;
    let traced = names.into_iter().zip(rows).map(|(name, rounds)| Traced { name, rounds }).collect();
    Ok((outcome, traced))
}

/// Follows the guest from mark to mark.
struct Tracer {
    gdb: Gdb,
    monitor: Monitor,
    marks: Marks,
    folder: PathBuf,
    /// Windows so far.
    windows: usize,
}

impl Tracer {
    fn connect(port: &Path, monitor: &Path, marks: Marks, folder: PathBuf) -> Result<Self> {
        let gdb = Gdb::connect(port)?;
        Ok(Self { gdb, monitor: Monitor::connect(monitor)?, marks, folder, windows: 0 })
    }

    /// The rounds of each row, until the guest ends. An error ends it.
    fn trace(mut self) -> Result<Vec<Vec<Counts>>> {
        let rows = self.follow();
        if rows.is_err() {
            self.tell("quit")?;
        }
        rows
    }

    fn follow(&mut self) -> Result<Vec<Vec<Counts>>> {
        let (mut rows, mut rounds) = (Vec::new(), Vec::new());
        while self.gdb.run_to(&[self.marks.marker])? {
            match self.gdb.first_argument()? {
                MARK_BEGIN => rounds = vec![self.window()?],
                MARK_NEXT => rounds.push(self.window()?),
                MARK_END => rows.push(core::mem::take(&mut rounds)),
                _ => {}
            }
        }
        Ok(rows)
    }

    /// Has everything logged, into a pipe, from the next reading of the time-stamp counter to the one after.
    fn window(&mut self) -> Result<Counts> {
        if !self.reach_reading()? {
            bail!("the guest ended in a round");
        }
        let pipe = self.folder.join(format!("trace{}", self.windows));
        self.windows += 1;
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).context("a pipe")?;
        let path = pipe.clone();
        let reader = std::thread::spawn(move || -> std::io::Result<Counts> {
            Ok(counts(BufReader::with_capacity(1 << 20, File::open(path)?)))
        });
        // QEMU opens the pipe at once, and waits until somebody reads.
        self.tell(&format!("logfile {}", pipe.display()))?;
        self.tell("singlestep on")?;
        self.tell("log exec,nochain")?;
        self.reach_reading()?;
        self.tell("log none")?;
        self.tell("singlestep off")?;
        // QEMU closes a log when it gets another one.
        self.tell("logfile /dev/null")?;
        reader.join().map_err(|_| anyhow!("reading a trace failed"))?.context("reading a trace")
    }

    /// Lets the guest go on to the next reading; false if it has ended.
    fn reach_reading(&mut self) -> Result<bool> {
        while self.gdb.run_to(&self.marks.readings)? {
            // Another program may have other instructions at these addresses.
            if self.gdb.stands_at(&RDTSC)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn tell(&mut self, command: &str) -> Result<()> {
        self.monitor.tell(command)
    }
}

/// QEMU's monitor, in its form for programs.
struct Monitor {
    to: UnixStream,
    from: BufReader<UnixStream>,
}

impl Monitor {
    fn connect(socket: &Path) -> Result<Self> {
        let to = UnixStream::connect(socket).context("QEMU's monitor")?;
        to.set_read_timeout(Some(Duration::from_secs(20)))?;
        let mut monitor = Self { from: BufReader::new(to.try_clone()?), to };
        monitor.ask(&json!({ "execute": "qmp_capabilities" }))?;
        Ok(monitor)
    }

    /// Gives it a command as one for people.
    fn tell(&mut self, command: &str) -> Result<()> {
        self.ask(&json!({ "execute": "human-monitor-command", "arguments": { "command-line": command } }))
    }

    /// Asks, and waits for the answer; events may come before.
    fn ask(&mut self, question: &Value) -> Result<()> {
        writeln!(self.to, "{question}").context("QEMU's monitor")?;
        let mut line = String::new();
        while self.from.read_line(&mut line).context("QEMU's monitor")? > 0 {
            let answer: Value = serde_json::from_str(&line).unwrap_or_default();
            match (answer.get("return"), answer.get("error")) {
                (Some(_), _) => return Ok(()),
                (_, Some(error)) => bail!("QEMU's monitor refuses {question}: {error}"),
                _ => line.clear(),
            }
        }
        bail!("QEMU's monitor is gone")
    }
}

/// What a line of the log means.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    /// This address is executed.
    Executed(u64),
    /// The last one was not after all, and comes again.
    Stopped,
    Other,
}

fn line(text: &[u8]) -> Line {
    let address = || {
        let inside = text.split(|byte| *byte == b'[').nth(1)?;
        let hex = std::str::from_utf8(inside.split(|byte| *byte == b'/').nth(1)?).ok()?;
        u64::from_str_radix(hex, 16).ok()
    };
    if text.starts_with(b"Stopped") {
        return Line::Stopped;
    }
    let traced = text.starts_with(b"Trace ").then(address).flatten();
    traced.map_or(Line::Other, Line::Executed)
}

/// Counts what was executed after the first instruction, the reading that begins the window.
fn counts(mut log: impl BufRead) -> Counts {
    let mut counts = Counts::new();
    let (mut text, mut last) = (Vec::new(), None);
    let mut first = true;
    let mut count = |place: u64| {
        if !core::mem::take(&mut first) {
            *counts.entry(place).or_default() += 1;
        }
    };
    while log.read_until(b'\n', &mut text).is_ok_and(|n| n > 0) {
        match line(&text) {
            Line::Executed(place) => last.replace(place).into_iter().for_each(&mut count),
            Line::Stopped => last = None,
            Line::Other => {}
        }
        text.clear();
    }
    last.into_iter().for_each(count);
    counts
}

/// Every instruction of an ELF file by its address.
pub fn disassemble(elf: &Path) -> Result<HashMap<u64, String>> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn log(places: &[u64]) -> String {
        let line = |place: &u64| format!("Trace 0: 0x7fe1 [0000000000000000/{place:016x}/0000c0b3/ff00]\n");
        places.iter().map(line).collect()
    }

    #[test]
    fn lines_of_the_log_are_read() {
        let text = b"Trace 0: 0x7fe1a0000100 [0000000000000000/ffffffff80001234/0000c0b3/ff000001] name\n";
        assert_eq!(line(text), Line::Executed(0xffff_ffff_8000_1234));
        assert_eq!(line(b"Stopped execution of TB chain before 0x7f [12] x"), Line::Stopped);
        assert_eq!(line(b"cpu_io_recompile: rewound execution of TB to [1/2/3]"), Line::Other);
    }

    #[test]
    fn all_but_the_reading_counts() {
        let text = log(&[0x20, 0x32, 0x33, 0x32, 0x20]);
        assert_eq!(counts(text.as_bytes()), Counts::from([(0x32, 2), (0x33, 1), (0x20, 1)]));
        assert_eq!(counts(&b""[..]), Counts::new());
    }

    #[test]
    fn an_instruction_that_was_put_off_counts_once() {
        let text = log(&[0x20, 0x32]) + "Stopped execution of TB chain before 0x7f [32] \n" + &log(&[0x32]);
        assert_eq!(counts(text.as_bytes()), Counts::from([(0x32, 1)]));
    }

    #[test]
    fn the_round_in_the_middle_stands_for_the_row() {
        let round = |n| Counts::from([(1, n)]);
        let traced = Traced { name: "x".into(), rounds: vec![round(9), round(5), round(7)] };
        assert_eq!(traced.middle(), Some(&round(7)));
        assert_eq!(Traced::default().middle(), None);
    }

    #[test]
    fn a_disassembly_is_read() {
        let line = "ffffffff80001000:\tmov    %rax,%rbx";
        assert_eq!(instruction(line), Some((0xffff_ffff_8000_1000, "mov    %rax,%rbx".into())));
        assert_eq!(instruction("ffffffff80001000 <x>:"), None);
    }
}
