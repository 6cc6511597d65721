//! Which compiler builds the bare-metal parts: it needs its library's source (`rust-src`).
use crate::missing::Missing;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The oldest release that compiles the tree.
pub const OLDEST: (u32, u32) = (1, 95);

/// Where a toolchain came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// `SILA_CARGO` and `SILA_RUSTC`.
    Explicit,
    /// The active rustup toolchain (or whatever `rustc` is on the path).
    Active,
    /// Debian's packages `rustc-web`, `cargo-web`, `rust-web-src`.
    Debian,
}

/// A compiler with its library's source, and a linker.
#[derive(Debug, Clone)]
pub struct Toolchain {
    /// The cargo to call.
    pub cargo: PathBuf,
    /// The compiler it shall use.
    pub rustc: PathBuf,
    /// `rust-lld`, or LLVM's `lld`.
    pub linker: PathBuf,
    /// How it was found.
    pub origin: Origin,
    /// What `rustc -V` says.
    pub version: String,
}

/// What one candidate compiler says about itself.
struct Candidate {
    sysroot: PathBuf,
    version: String,
}

/// Reads the release out of `rustc -V`, as (major, minor).
pub fn release(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split_whitespace().nth(1)?.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn ask(rustc: &Path, args: &[&str]) -> Option<String> {
    let mut command = Command::new(rustc);
    crate::bare::scrub(&mut command);
    if let Ok(root) = crate::paths::root() {
        command.current_dir(root);
    }
    let out = command.args(args).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    out.status.success().then(|| String::from_utf8_lossy(&out.stdout).trim().to_string())
}

fn probe(rustc: &Path) -> Option<Candidate> {
    let sysroot = PathBuf::from(ask(rustc, &["--print", "sysroot"])?);
    Some(Candidate { sysroot, version: ask(rustc, &["-V"])? })
}

impl Candidate {
    fn fits(&self) -> bool {
        self.sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs").is_file()
            && release(&self.version).is_some_and(|release| release >= OLDEST)
    }

    fn linker(&self) -> Option<PathBuf> {
        let entries = std::fs::read_dir(self.sysroot.join("lib/rustlib")).ok()?;
        entries.flatten().map(|entry| entry.path().join("bin/rust-lld")).find(|path| path.is_file())
    }
}

/// Finds a program on the path.
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

fn any_linker(active: Option<&Candidate>) -> Result<PathBuf> {
    active
        .and_then(Candidate::linker)
        .or_else(|| on_path("ld.lld"))
        .or_else(|| on_path("lld"))
        .ok_or_else(|| Missing::new("the linker lld", "apt-get install lld").into())
}

fn explicit(cargo: PathBuf, rustc: PathBuf) -> Result<Toolchain> {
    let found = probe(&rustc).with_context(|| format!("SILA_RUSTC={} does not run", rustc.display()))?;
    if !found.fits() {
        bail!("SILA_RUSTC={} ({}) has no library source or is too old", rustc.display(), found.version);
    }
    let linker = found.linker().map_or_else(|| any_linker(probe(Path::new("rustc")).as_ref()), Ok)?;
    Ok(Toolchain { cargo, rustc, linker, origin: Origin::Explicit, version: found.version })
}

/// Picks the toolchain for the bare-metal crates, or names the command that installs one.
pub fn select() -> Result<Toolchain> {
    let (cargo, rustc) = (std::env::var_os("SILA_CARGO"), std::env::var_os("SILA_RUSTC"));
    if let (Some(cargo), Some(rustc)) = (&cargo, &rustc) {
        return explicit(cargo.into(), rustc.into());
    }
    if cargo.is_some() || rustc.is_some() {
        bail!("set both SILA_CARGO and SILA_RUSTC, or neither");
    }
    let active = probe(Path::new("rustc"));
    if let Some(found) = active.as_ref().filter(|found| found.fits()) {
        let bin = found.sysroot.join("bin");
        return Ok(Toolchain {
            cargo: bin.join("cargo"),
            rustc: bin.join("rustc"),
            linker: any_linker(Some(found))?,
            origin: Origin::Active,
            version: found.version.clone(),
        });
    }
    let (cargo, rustc) = (PathBuf::from("/usr/bin/cargo"), PathBuf::from("/usr/bin/rustc"));
    if let Some(found) = probe(&rustc).filter(|found| found.fits() && cargo.is_file()) {
        let linker = found.linker().map_or_else(|| any_linker(active.as_ref()), Ok)?;
        return Ok(Toolchain { cargo, rustc, linker, origin: Origin::Debian, version: found.version });
    }
    let command = if on_path("rustup").is_some() && std::env::var("RUSTUP_AUTO_INSTALL").as_deref() != Ok("0")
    {
        "rustup component add rust-src"
    } else {
        "apt-get install rustc-web cargo-web rust-web-src lld"
    };
    Err(Missing::new("a Rust compiler (1.95 or newer) with its library's source", command).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn release_is_read_from_rustc_version() {
        assert_eq!(release("rustc 1.95.0 (abc 2026-04-01)"), Some((1, 95)));
        assert_eq!(release("rustc 1.96.0-nightly (abc)"), Some((1, 96)));
        assert_eq!(release("nonsense"), None);
    }

    #[test]
    fn releases_compare_by_number_and_not_by_text() {
        assert!(release("rustc 1.100.0").is_some_and(|release| release >= OLDEST));
        assert!(release("rustc 1.85.1").is_some_and(|release| release < OLDEST));
    }
}
