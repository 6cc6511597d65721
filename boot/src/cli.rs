//! The command line of `sila`.
use crate::kit::{BuildModuleArgs, NewModuleArgs};
use crate::missing::Usage;
use crate::mutants::MutantsArgs;
use crate::pkg::args::{InspectArgs, PackArgs, VerifyArgs};
use crate::pkg::ceremony_args::{
    AddSignatureArgs, CertifyArgs, FloorsArgs, PolicyArgs, RevokeArgs, RootsetArgs,
};
use crate::pkg::keygen::KeygenArgs;
use crate::push::{ExportFloorsArgs, PushArgs};
use crate::qemu::Board;
use crate::{image, script};
use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Builds, signs, runs and flashes SILA. Without a command it builds the system and runs it here.
#[derive(Debug, Parser)]
#[command(name = "sila", version, args_conflicts_with_subcommands = true, after_help = STATUSES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// What `run` takes.
    #[command(flatten)]
    pub run: RunArgs,
}

const STATUSES: &str = "Status: 0 all is well; 1 a command or test in the guest failed, or a build or another command of this tool; 2 the guest panicked, hung or \
did not report; 3 something is missing here (the command that installs it is printed); 64 wrong usage, \
or a file that cannot be read.";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Build the system and run it in QEMU (the default)
    Run(Box<RunArgs>),
    /// Build the system and write the bootable disk image
    Image(ImageArgs),
    /// Build everything that runs on the bare machine, and stop there
    Build,
    /// Lint everything that runs on the bare machine
    #[command(hide = true)]
    Clippy,
    /// Count what the kernel's operations cost, in guest instructions
    Bench(BenchArgs),
    /// Take away the kernel's defences one by one, and see that a test notices each
    Mutants(MutantsArgs),
    /// Make random system calls in ring 3 and hold the kernel against its rules
    Fuzz(FuzzArgs),
    /// Give packages that are nearly right to the code that checks them, here on the host
    FuzzPackage(FuzzPackageArgs),
    /// Make root keys, a publisher's key, or both
    Keygen(Box<KeygenArgs>),
    /// Certify a publisher's key: which names, versions and capabilities its modules may have
    Certify(Box<CertifyArgs>),
    /// Take back a publisher's key, or some versions of a module
    Revoke(RevokeArgs),
    /// Make a new root set the successor of an old one
    Rootset(RootsetArgs),
    /// Sign a system policy
    Policy(PolicyArgs),
    /// Sign a record that raises the floors of modules
    Floors(FloorsArgs),
    /// Add another root key's signature to a record
    AddSignature(AddSignatureArgs),
    /// Make a folder with a new module: a small service that builds, packs and runs as it is
    NewModule(NewModuleArgs),
    /// Build a module's folder, wherever it lies, and say where the ELF file is
    BuildModule(BuildModuleArgs),
    /// Make a signed and compressed package of a module's folder, or of a program
    Pack(PackArgs),
    /// Check a package by the very rules of the guest
    Verify(VerifyArgs),
    /// Show what a package, trust record, boot bundle or module image holds
    Inspect(InspectArgs),
    /// Send a package or signed record to a running system
    Push(PushArgs),
    /// Read the floors of a running system into a record for its next boot bundle
    ExportFloors(ExportFloorsArgs),
    /// Write an image to a removable disk and read it back
    Flash(FlashArgs),
    /// Say what this machine has and what it lacks
    Doctor,
}

/// What goes into the boot bundle.
#[derive(Debug, Clone, Default, Args)]
pub struct SystemArgs {
    /// Put this package file into the boot bundle, too (may be repeated)
    #[arg(long = "add-package", value_name = "FILE")]
    pub packages: Vec<PathBuf>,
    /// Put this certificate, revocation, policy or floor record into the boot manifest (may be repeated)
    #[arg(long = "add-record", value_name = "FILE")]
    pub records: Vec<PathBuf>,
    /// Sign with the keys in this folder instead of the test keys (see keygen)
    #[arg(long, value_name = "DIR")]
    pub keys: Option<PathBuf>,
    /// The folder with the publisher's key and certificate, if the root keys' folder has none
    #[arg(long, value_name = "DIR", requires = "keys")]
    pub publisher_keys: Option<PathBuf>,
    /// Describe the boot bundle by this file instead of boot/bundle.toml
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub bundle: Option<PathBuf>,
    /// Use this kernel ELF file instead of building one
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub kernel: Option<PathBuf>,
    /// Use this file as the boot bundle instead of packing one
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub ramdisk: Option<PathBuf>,
}

/// The options of `run`.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// Boot without a window, type these commands ("CMD; CMD"), print what comes, power off; "!push FILE" pushes a file
    #[arg(long, value_name = "CMD; CMD")]
    pub script: Option<String>,
    /// What goes into the boot bundle.
    #[command(flatten)]
    pub system: SystemArgs,
    /// Run this image instead of building one
    #[arg(long, value_name = "FILE", conflicts_with_all = ["packages", "records", "ramdisk"])]
    pub image: Option<PathBuf>,
    /// QEMU's machine type
    #[arg(long, default_value = "q35")]
    pub machine: String,
    /// QEMU's CPU model
    #[arg(long, default_value = "max")]
    pub cpu: String,
    /// Memory, for example 512M or 4G
    #[arg(long, default_value = "512M", value_parser = memory)]
    pub memory: String,
    /// Number of CPUs
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=255))]
    pub smp: u32,
    /// How QEMU runs the guest; kvm falls back to tcg where it does not work
    #[arg(long, default_value = "tcg", value_parser = ["tcg", "kvm"])]
    pub accel: String,
    /// Boot from a USB stick on an xHCI controller
    #[arg(long)]
    pub usb: bool,
    /// Stop the guest after this many seconds (with a script the default is 120)
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u64>,
    /// Wait for a debugger on TCP port 1234
    #[arg(long)]
    pub gdb: bool,
    /// Show the framebuffer in a window, for example gtk or sdl
    #[arg(long, value_name = "KIND", conflicts_with = "headless")]
    pub display: Option<String>,
    /// No window (the default)
    #[arg(long)]
    pub headless: bool,
    /// No graphics card, and so no framebuffer
    #[arg(long)]
    pub no_graphics: bool,
    /// No serial port
    #[arg(long, conflicts_with = "script")]
    pub no_serial: bool,
    /// Write a picture of the screen to this PNG file just before the script's last command
    #[arg(long, value_name = "FILE.png", requires = "script")]
    pub screenshot: Option<PathBuf>,
    /// Walk every page table before the machine switches off, and at the console's `audit`; a broken rule is a failure
    #[arg(long)]
    pub audit_mappings: bool,
    /// Keep the kernel's page tables apart from ring 3's, or together, whatever the processor is
    #[arg(long, value_name = "on|off", value_enum)]
    pub kpti: Option<Switch>,
    /// One more argument for QEMU (may be repeated)
    #[arg(long = "qemu", value_name = "ARG", allow_hyphen_values = true, hide_short_help = true)]
    pub extra: Vec<String>,
}

/// What tells the kernel to audit its page tables. Firmware configuration exists under a hypervisor only: whoever can
/// set it controls the machine anyway.
const AUDIT: &str = "audit=on";

/// Refuses a file that cannot be read or is empty, before a long build.
pub fn readable(path: &Path) -> anyhow::Result<()> {
    let wrong = || Usage(format!("cannot read {}", path.display()));
    let data = std::fs::File::open(path).and_then(|file| file.metadata()).with_context(wrong)?;
    if data.is_dir() {
        anyhow::bail!(Usage(format!("{} is a folder", path.display())));
    }
    if data.is_file() && data.len() == 0 {
        anyhow::bail!(Usage(format!("{} is empty", path.display())));
    }
    Ok(())
}

impl SystemArgs {
    /// Refuses input files that cannot be read.
    pub fn check_files(&self) -> anyhow::Result<()> {
        let others = [&self.bundle, &self.kernel].into_iter().flatten();
        let given = self.packages.iter().chain(&self.records);
        given.chain(others).try_for_each(|path| readable(path))
    }
}

/// A size as QEMU reads it: a whole number, perhaps with a unit.
fn memory(text: &str) -> Result<String, String> {
    let digits = text.strip_suffix(|c: char| "bkmgtBKMGT".contains(c)).unwrap_or(text);
    match digits.parse::<u32>() {
        Ok(n) if n > 0 && !digits.starts_with('+') => Ok(text.to_string()),
        _ => Err("not a size such as 512M or 4G".into()),
    }
}

impl RunArgs {
    /// The machine these options describe.
    pub fn board(&self) -> Board {
        let kpti = self.kpti.map(|kpti| format!("kpti={}", kpti.word()));
        let audit = self.audit_mappings.then(|| AUDIT.into());
        Board {
            machine: self.machine.clone(),
            cpu: self.cpu.clone(),
            memory: self.memory.clone(),
            smp: self.smp,
            accel: self.accel.clone(),
            usb: self.usb,
            display: self.display.clone().unwrap_or_else(|| "none".into()),
            graphics: !self.no_graphics,
            serial: !self.no_serial,
            gdb: self.gdb,
            counted: false,
            kernel_flags: kpti.into_iter().chain(audit).collect(),
            extra: self.extra.clone(),
        }
    }

    /// The commands to type, if there is a script.
    pub fn commands(&self) -> Option<Vec<String>> {
        self.script.as_deref().map(script::split)
    }

    /// How long the guest may run. A debugger stops the clock.
    pub fn time_limit(&self) -> Option<Duration> {
        let default = (self.script.is_some() && !self.gdb).then_some(120);
        self.timeout.or(default).map(Duration::from_secs)
    }
}

/// The options of `image`.
#[derive(Debug, Clone, Args)]
pub struct ImageArgs {
    /// The file to write
    #[arg(long, value_name = "FILE", default_value = image::DEFAULT_NAME)]
    pub out: PathBuf,
    /// What goes into the boot bundle.
    #[command(flatten)]
    pub system: SystemArgs,
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// On.
    On,
    /// Off.
    Off,
}

impl Switch {
    /// As the kernel's boot flags say it.
    pub const fn word(self) -> &'static str {
        match self {
            Switch::On => "on",
            Switch::Off => "off",
        }
    }
}

/// Whether the kernel's page tables are apart from ring 3's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Kpti {
    /// Apart.
    On,
    /// Together.
    #[default]
    Off,
    /// One run each way.
    Both,
}

/// The options of `bench`.
#[derive(Debug, Clone, Default, Args)]
pub struct BenchArgs {
    /// Write the rows to this file as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Measure only this row, or the rows that begin so (may be repeated)
    #[arg(long, value_name = "NAME")]
    pub only: Vec<String>,
    /// Fail if a median has grown by more than 5 % since the baseline (boot/bench-baseline.json)
    #[arg(long)]
    pub check: bool,
    /// Make these medians the baseline
    #[arg(long, conflicts_with = "check")]
    pub update_baseline: bool,
    /// Write the book's page on performance
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub book: Option<PathBuf>,
    /// Measure with the kernel's page tables apart from ring 3's, or together, or both in one table
    #[arg(long, value_name = "on|off|both", value_enum, default_value_t = Kpti::Off, hide_possible_values = true)]
    pub kpti: Kpti,
    /// Instead of measuring, trace this row and say in which functions its instructions are
    #[arg(long, value_name = "NAME", conflicts_with_all = ["json", "only", "check", "update_baseline", "book"])]
    pub profile: Option<String>,
    /// How many functions a profile names
    #[arg(long, default_value_t = 40, hide_short_help = true)]
    pub top: usize,
}

/// The options of `fuzz`.
#[derive(Debug, Clone, Args)]
pub struct FuzzArgs {
    /// How many system calls
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub calls: u64,
    /// What they follow from: the same seed makes the same calls
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
    /// Run the seed twice and compare
    #[arg(long)]
    pub replay: bool,
    /// Leave the first calls out: as many epochs (20,000 calls) as fit in this number
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub skip: u64,
    /// Look at the kernel's invariants every so many calls
    #[arg(long, value_name = "N", default_value_t = fuzz::CHECK, value_parser = clap::value_parser!(u64).range(1..))]
    pub check: u64,
    /// Show each call, with its outcome, from this one on
    #[arg(long, value_name = "CALL")]
    pub show: Option<u64>,
    /// Let the workers hold what ModuleManager holds, and load, endow and install as it would if it were hostile
    #[arg(long)]
    pub manager: bool,
}

/// The options of `fuzz-package`.
#[derive(Debug, Clone, Args)]
pub struct FuzzPackageArgs {
    /// How many packages or parts of packages
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub runs: u64,
    /// What they follow from: the same seed makes the same changes
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
    /// Only this run of the seed
    #[arg(long, value_name = "RUN")]
    pub only: Option<u64>,
}

/// The options of `flash`.
#[derive(Debug, Clone, Args)]
pub struct FlashArgs {
    /// The disk to overwrite, for example /dev/sdb; without it the removable disks are listed
    pub disk: Option<PathBuf>,
    /// The image to write
    #[arg(long, value_name = "FILE", default_value = image::DEFAULT_NAME)]
    pub image: PathBuf,
    /// Write an image whose modules are signed with test keys
    #[arg(long)]
    pub allow_test_keys: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(args: &[&str]) -> Cli {
        Cli::try_parse_from([&["sila"], args].concat()).unwrap()
    }

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_command_means_run_with_the_defaults() {
        let cli = parse(&[]);
        assert!(cli.command.is_none());
        assert_eq!(cli.run.board(), Board::default());
        assert_eq!(cli.run.time_limit(), None);
    }

    #[test]
    fn run_options_pass_through() {
        let Some(Command::Run(run)) =
            parse(&["run", "--script", "ps", "--machine", "pc", "--memory", "4G", "--usb", "--smp", "2"])
                .command
        else {
            panic!("not run")
        };
        let board = run.board();
        assert_eq!(
            (board.machine.as_str(), board.memory.as_str(), board.smp, board.usb),
            ("pc", "4G", 2, true)
        );
        assert_eq!(run.commands().unwrap(), ["ps", "poweroff"]);
    }

    #[test]
    fn boot_flags_choose_kpti_and_an_audit() {
        let flags = |args: &[&str]| parse(args).run.board().kernel_flags;
        assert_eq!(flags(&["--kpti", "on"]), ["kpti=on"]);
        assert_eq!(flags(&["--audit-mappings", "--kpti", "off"]), ["kpti=off", AUDIT]);
        assert!(flags(&[]).is_empty(), "the kernel decides by the processor");
        assert!(Cli::try_parse_from(["sila", "--kpti", "maybe"]).is_err());
    }

    #[test]
    fn scripts_have_a_time_limit_that_can_be_changed() {
        assert_eq!(parse(&["--script", "ps"]).run.time_limit(), Some(Duration::from_secs(120)));
        assert_eq!(
            parse(&["--script", "ps", "--timeout", "7"]).run.time_limit(),
            Some(Duration::from_secs(7))
        );
        assert_eq!(parse(&["--script", "ps", "--gdb"]).run.time_limit(), None);
    }

    #[test]
    fn packages_add_up_and_contradictions_are_refused() {
        let cli = parse(&["--add-package", "a.sila", "--add-package", "b.sila"]);
        assert_eq!(cli.run.system.packages.len(), 2);
        for bad in [
            &["--accel", "xen"][..],
            &["--image", "x", "--add-package", "y"],
            &["--screenshot", "x.png"],
            &["--smp", "0"],
            &["--memory", "xx"],
            &["--memory", "0M"],
            &["run", "--memory", "M"],
        ] {
            assert!(Cli::try_parse_from([&["sila"], bad].concat()).is_err(), "{bad:?}");
        }
    }
}
