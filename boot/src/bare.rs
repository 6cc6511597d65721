//! Builds the bare-metal parts by explicit nested cargo calls: the kernel, the user programs, the UEFI loader.
use crate::missing::Missing;
use crate::toolchain::{self, Toolchain};
use crate::{nested, paths};
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Every user program of the tree, in the order in which they are built.
pub const PROGRAMS: [&str; 12] = [
    "module_manager",
    "deep_compression",
    "service_registry",
    "supervisor",
    "console",
    "depot",
    "counter",
    "wasm",
    "probe",
    "testrunner",
    "bench",
    "fuzz",
];

/// What is built: each kind has a target folder and linker flags of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The kernel (`x86_64-sila.json`).
    Kernel,
    /// A user program (`x86_64-sila-user.json`).
    User,
    /// The UEFI loader (`x86_64-unknown-uefi`).
    Uefi,
}

/// The built system, before it is packed.
#[derive(Debug, Clone)]
pub struct Built {
    /// The kernel's ELF file, with debug information.
    pub kernel: PathBuf,
    /// Each program's name and ELF file.
    pub programs: BTreeMap<String, PathBuf>,
    /// The UEFI loader.
    pub loader: PathBuf,
}

/// Whether a nested cargo must not inherit this variable.
fn is_inherited_setting(name: &str) -> bool {
    let keep =
        ["CARGO_HOME", "CARGO_NET_", "CARGO_HTTP_", "CARGO_REGISTR", "CARGO_SOURCE_", "CARGO_TERM_COLOR"];
    if keep.iter().any(|prefix| name.starts_with(prefix)) {
        return false;
    }
    name == "CARGO"
        || name == "RUSTFLAGS"
        || name == "RUSTUP_TOOLCHAIN"
        || name == "LD_LIBRARY_PATH"
        || ["CARGO_", "RUSTC", "RUSTDOC", "CFLAGS", "DEP_"].iter().any(|prefix| name.starts_with(prefix))
}

/// Takes from a command what an outer cargo or rustup put into the environment; the rest stays.
pub fn scrub(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(is_inherited_setting) {
            command.env_remove(&name);
        }
    }
    command.env("RUSTUP_AUTO_INSTALL", "0");
}

fn link_args(root: &Path, kind: Kind) -> String {
    let script = match kind {
        Kind::Kernel => root.join("kernel/kernel.ld"),
        Kind::User => root.join("sila_rt/user.ld"),
        Kind::Uefi => return String::new(),
    };
    let mut flags =
        vec!["-Crelocation-model=static".to_string(), format!("-Clink-arg=-T{}", script.display())];
    // The kernel finds the way back by its stack's contents: its shortest paths have no instruction to spare.
    if !matches!(kind, Kind::Kernel) {
        flags.push("-Cforce-frame-pointers=yes".into());
    }
    let linker = ["-zmax-page-size=4096", "-znorelro", "-znognustack", "--no-dynamic-linker"];
    flags.extend(linker.iter().map(|arg| format!("-Clink-arg={arg}")));
    flags.push("-Clink-arg=--orphan-handling=error".into());
    flags.push(match kind {
        Kind::Kernel => "-Ccode-model=kernel".into(),
        _ => "-Ccode-model=small".into(),
    });
    // Unit separators, so that a path with spaces stays one flag.
    flags.join("\u{1f}")
}

/// The environment of a nested cargo call for one kind of code. Everything such a call needs is set here.
pub fn environment(tools: &Toolchain, kind: Kind) -> Result<Vec<(OsString, OsString)>> {
    let root = paths::root()?;
    let (folder, linker) = match kind {
        Kind::Kernel => ("bare-kernel", "CARGO_TARGET_X86_64_SILA_LINKER"),
        Kind::User => ("bare-user", "CARGO_TARGET_X86_64_SILA_USER_LINKER"),
        Kind::Uefi => ("uefi", "CARGO_TARGET_X86_64_UNKNOWN_UEFI_LINKER"),
    };
    let mut env: Vec<(OsString, OsString)> = vec![
        ("RUSTC".into(), tools.rustc.clone().into()),
        ("RUSTC_BOOTSTRAP".into(), "1".into()),
        ("CARGO_TARGET_DIR".into(), paths::target()?.join(folder).into()),
        (linker.into(), tools.linker.clone().into()),
    ];
    if kind == Kind::User {
        let c_env = crate::cc::c_env(&root, "x86_64-sila-user");
        env.extend(c_env.into_iter().map(|(name, value)| (name.into(), value.into())));
    }
    let flags = link_args(&root, kind);
    if !flags.is_empty() {
        env.push(("CARGO_ENCODED_RUSTFLAGS".into(), flags.into()));
    }
    Ok(env)
}

/// A nested `cargo build --release --locked` for one kind of code, run in `dir`.
pub fn cargo(tools: &Toolchain, kind: Kind, dir: &Path) -> Result<Command> {
    let mut command = Command::new(&tools.cargo);
    scrub(&mut command);
    command.args(["build", "--release"]);
    prepare(&mut command, tools, kind, dir)?;
    Ok(command)
}

/// Environment, library, target and features of a nested call for a crate of the tree, whose lock file holds.
fn prepare(command: &mut Command, tools: &Toolchain, kind: Kind, dir: &Path) -> Result<()> {
    command.arg("--locked");
    if kind != Kind::Uefi {
        command.args(["--features", "bare-metal"]);
    }
    aim(command, tools, kind, dir)
}

/// Environment, library and target of a nested call for a crate in `dir`.
fn aim(command: &mut Command, tools: &Toolchain, kind: Kind, dir: &Path) -> Result<()> {
    command.envs(environment(tools, kind)?).current_dir(dir);
    command.arg("-Zbuild-std-features=compiler-builtins-mem");
    let root = paths::root()?;
    match kind {
        Kind::Uefi => command.args(["-Zbuild-std=core", "--target", "x86_64-unknown-uefi"]),
        Kind::Kernel | Kind::User => {
            let target = if kind == Kind::Kernel { "x86_64-sila.json" } else { "x86_64-sila-user.json" };
            command.args(["-Zbuild-std=core,alloc,compiler_builtins", "-Zjson-target-spec", "--target"]);
            command.arg(root.join(target))
        }
    };
    Ok(())
}

/// Environment, library and target of a nested call for a user program outside the tree.
pub fn user_target(command: &mut Command, tools: &Toolchain, dir: &Path) -> Result<()> {
    aim(command, tools, Kind::User, dir)
}

/// Lints the bare-metal programs with the toolchain's own clippy.
pub fn lint(tools: &Toolchain) -> Result<()> {
    let root = paths::root()?;
    let clippy = tools.cargo.with_file_name("cargo-clippy");
    if !clippy.is_file() {
        let command = match tools.origin {
            toolchain::Origin::Debian => "apt-get install rust-web-clippy",
            _ => "rustup component add clippy",
        };
        return Err(Missing::new(format!("clippy for {}", tools.version), command).into());
    }
    for kind in [Kind::Kernel, Kind::User] {
        let names: &[&str] = if kind == Kind::Kernel { &["kernel"] } else { &PROGRAMS };
        let mut command = Command::new(&clippy);
        scrub(&mut command);
        command.env("CARGO", &tools.cargo).args(["clippy", "--release"]);
        prepare(&mut command, tools, kind, &root)?;
        for name in names {
            command.args(["-p", name, "--bin", name]);
        }
        // Warnings fail through the workspace's lint table, not through flags that would rebuild the library.
        let title = if kind == Kind::Kernel { "linting the kernel" } else { "linting the user programs" };
        nested::run(command, title)?;
    }
    Ok(())
}

/// A copy of an ELF file without symbols and debug information.
pub fn strip(elf: &Path, to: &Path) -> Result<()> {
    let objcopy = toolchain::on_path("objcopy")
        .ok_or_else(|| Missing::new("objcopy (binutils)", "apt-get install binutils"))?;
    let status = Command::new(objcopy).arg("--strip-all").arg(elf).arg(to).stdin(Stdio::null()).status()?;
    if !status.success() {
        bail!("objcopy cannot strip {}", elf.display());
    }
    Ok(())
}

/// Builds the kernel and checks that it touches no vector register.
pub fn kernel(tools: &Toolchain) -> Result<PathBuf> {
    let root = paths::root()?;
    let mut command = cargo(tools, Kind::Kernel, &root)?;
    command.args(["-p", "kernel", "--bin", "kernel"]);
    let made = nested::run(command, "building the kernel")?;
    let (_, path) = made.into_iter().find(|(name, _)| name == "kernel").context("cargo named no kernel")?;
    check_no_vectors(&path)?;
    Ok(path)
}

/// Builds user programs, all in one cargo call.
pub fn programs(tools: &Toolchain, names: &[&str]) -> Result<BTreeMap<String, PathBuf>> {
    let root = paths::root()?;
    let mut command = cargo(tools, Kind::User, &root)?;
    for name in names {
        command.args(["-p", name, "--bin", name]);
    }
    let made: BTreeMap<String, PathBuf> =
        nested::run(command, "building the user programs")?.into_iter().collect();
    if let Some(name) = names.iter().find(|name| !made.contains_key(**name)) {
        bail!("cargo built no program {name}");
    }
    Ok(made)
}

/// Builds the module that checks signatures of the second scheme, from the lock file in `modules/dilithium`.
///
/// Its C asks the crate `getrandom` for random bytes, which are the runtime's to give; the flag that says so would have
/// everything else built anew, so it has a target folder of its own.
pub fn second_scheme(tools: &Toolchain) -> Result<PathBuf> {
    let root = paths::root()?;
    let mut command = cargo(tools, Kind::User, &root.join("modules/dilithium"))?;
    let flags = link_args(&root, Kind::User) + "\u{1f}--cfg\u{1f}getrandom_backend=\"custom\"";
    command.env("CARGO_ENCODED_RUSTFLAGS", flags);
    command.env("CARGO_TARGET_DIR", paths::target()?.join("bare-dilithium"));
    command.args(["-p", "dilithium", "--bin", "dilithium"]);
    let made = nested::run(command, "building the module of the second scheme")?;
    let found = made.into_iter().find(|(name, _)| name == "dilithium");
    found.map(|(_, path)| path).context("cargo named no program dilithium")
}

/// Builds the UEFI loader from the lock file in `boot/uefi`.
pub fn loader(tools: &Toolchain) -> Result<PathBuf> {
    let mut command = cargo(tools, Kind::Uefi, &paths::root()?.join("boot/uefi"))?;
    command.args(["-p", "bootloader-x86_64-uefi"]);
    nested::run(command, "building the UEFI loader")?;
    let path = paths::target()?.join("uefi/x86_64-unknown-uefi/release/bootloader-x86_64-uefi.efi");
    if !path.is_file() {
        bail!("cargo left no {}", path.display());
    }
    Ok(path)
}

/// Builds everything that runs without an operating system below it.
pub fn everything() -> Result<Built> {
    nested::new_log()?;
    let tools = toolchain::select()?;
    Ok(Built { loader: loader(&tools)?, kernel: kernel(&tools)?, programs: programs(&tools, &PROGRAMS)? })
}

/// The one function of the kernel that may use a vector register: it keeps the thread's value and puts it back.
const KEEPS_VECTORS: &str = "<zero_words>:";

/// The first line of a disassembly that names a vector register outside the function that may.
fn first_vector_use(disassembly: &str) -> Option<&str> {
    let mut within = "";
    disassembly.lines().find(|line| {
        if line.ends_with(">:") {
            within = line;
        }
        !within.ends_with(KEEPS_VECTORS)
            && ["%xmm", "%ymm", "%zmm"].iter().any(|register| line.contains(register))
    })
}

/// Fails if the kernel's code names a vector register: user processes' state would be lost in it.
fn check_no_vectors(kernel: &Path) -> Result<()> {
    let objdump = toolchain::on_path("objdump")
        .ok_or_else(|| Missing::new("objdump (binutils)", "apt-get install binutils"))?;
    let out = Command::new(objdump)
        .args(["-d", "--no-show-raw-insn"])
        .arg(kernel)
        .stderr(Stdio::null())
        .output()?;
    if !out.status.success() {
        bail!("objdump cannot read {}", kernel.display());
    }
    match first_vector_use(&String::from_utf8_lossy(&out.stdout)) {
        Some(line) => bail!("the kernel uses a vector register:\n{}", line.trim()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_cargo_keeps_registries_and_drops_outer_settings() {
        for name in ["CARGO", "CARGO_TARGET_DIR", "RUSTC", "RUSTC_WRAPPER", "RUSTFLAGS", "RUSTUP_TOOLCHAIN"] {
            assert!(is_inherited_setting(name), "{name}");
        }
        for name in ["PATH", "HOME", "CARGO_HOME", "CARGO_REGISTRIES_X_INDEX", "RUSTUP_HOME", "HTTPS_PROXY"] {
            assert!(!is_inherited_setting(name), "{name}");
        }
    }

    #[test]
    fn user_programs_are_linked_static_with_whole_page_segments() {
        let flags = link_args(Path::new("/src with space"), Kind::User);
        let flags: Vec<&str> = flags.split('\u{1f}').collect();
        assert!(flags.contains(&"-Clink-arg=-T/src with space/sila_rt/user.ld"));
        assert!(flags.contains(&"-Crelocation-model=static"));
        assert!(flags.contains(&"-Clink-arg=-zmax-page-size=4096"));
        assert!(flags.contains(&"-Ccode-model=small"));
    }

    #[test]
    fn kernel_uses_the_kernel_code_model_and_the_loader_no_script() {
        assert!(link_args(Path::new("/s"), Kind::Kernel).contains("-Ccode-model=kernel"));
        assert!(link_args(Path::new("/s"), Kind::Uefi).is_empty());
    }

    #[test]
    fn vector_registers_in_the_kernel_are_found() {
        assert_eq!(first_vector_use("mov %rax,%rbx\nret"), None);
        assert_eq!(first_vector_use("ret\nmovaps %xmm0,(%rax)"), Some("movaps %xmm0,(%rax)"));
        let kept = "00a0 <zero_words>:\nmovaps %xmm0,(%rdi)\nret\n";
        assert_eq!(first_vector_use(kept), None);
        assert!(first_vector_use(&format!("{kept}00b0 <other>:\nmovaps %xmm1,(%rdi)")).is_some());
    }
}
