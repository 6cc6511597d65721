//! The command `doctor`: what this machine has, what it lacks, and the command that installs it.
use crate::missing::Missing;
use crate::toolchain::{self, Origin};
use crate::{paths, qemu};
use anyhow::{Result, anyhow};
use std::fs::OpenOptions;

/// One thing looked at.
#[derive(Debug)]
pub struct Finding {
    /// What it is for.
    pub name: &'static str,
    /// What was found, or why it does not do.
    pub found: Result<String>,
    /// Whether SILA cannot be built or run without it.
    pub needed: bool,
}

impl Finding {
    fn new(name: &'static str, needed: bool, found: Result<String>) -> Self {
        Self { name, found, needed }
    }

    /// One line (or a few) about it.
    pub fn line(&self) -> String {
        match &self.found {
            Ok(found) => format!("ok       {:<24}{found}", self.name),
            Err(error) => {
                let word = if self.needed { "MISSING " } else { "without " };
                let why = error.to_string().replace('\n', "\n                                 ");
                format!("{word} {:<24}{why}", self.name)
            }
        }
    }
}

fn program(name: &'static str, package: &str) -> Result<String> {
    toolchain::on_path(name)
        .map(|path| path.display().to_string())
        .ok_or_else(|| Missing::new(name, format!("apt-get install {package}")).into())
}

fn bare_metal_compiler() -> Result<String> {
    let tools = toolchain::select()?;
    let origin = match tools.origin {
        Origin::Explicit => "SILA_RUSTC",
        Origin::Active => "the active toolchain",
        Origin::Debian => "Debian's packages",
    };
    Ok(format!("{}, from {origin}: {}", tools.version, tools.rustc.display()))
}

fn kvm() -> Result<String> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .map(|_| "/dev/kvm opens (--accel kvm; it may still be unable to run a guest)".to_string())
        .map_err(|error| anyhow!("/dev/kvm: {error}; --accel tcg, the default, does without"))
}

/// Looks at everything.
pub fn examine() -> Vec<Finding> {
    vec![
        Finding::new("source tree", true, paths::root().map(|path| path.display().to_string())),
        Finding::new("bare-metal compiler", true, bare_metal_compiler()),
        Finding::new("linker", true, toolchain::select().map(|tools| tools.linker.display().to_string())),
        Finding::new(
            "C compiler (user space)",
            true,
            program("gcc", "gcc").or_else(|_| program("clang", "gcc")),
        ),
        Finding::new("objdump", true, program("objdump", "binutils")),
        Finding::new("QEMU", true, qemu::find().map(|path| path.display().to_string())),
        Finding::new(
            "UEFI firmware",
            true,
            qemu::firmware().map(|firmware| firmware.code.display().to_string()),
        ),
        Finding::new("KVM", false, kvm()),
    ]
}

/// Prints the findings; true if nothing needed is missing.
pub fn run() -> bool {
    let findings = examine();
    for finding in &findings {
        println!("{}", finding.line());
    }
    let missing = findings.iter().filter(|finding| finding.needed && finding.found.is_err()).count();
    if missing > 0 {
        println!(
            "\n{missing} thing(s) missing; ./setup installs them on Debian and says what to install elsewhere"
        );
    }
    missing == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said_with_its_command() {
        let finding = Finding::new("QEMU", true, Err(Missing::new("qemu", "apt-get install qemu").into()));
        let line = finding.line();
        assert!(line.starts_with("MISSING") && line.contains("apt-get install qemu"), "{line}");
    }

    #[test]
    fn what_is_only_nice_to_have_is_not_called_missing() {
        let finding = Finding::new("KVM", false, Err(anyhow!("no")));
        assert!(finding.line().starts_with("without"));
    }
}
