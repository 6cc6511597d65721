//! Where things are: the source tree and the build directory.
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// The root of the source tree: `SILA_ROOT`, or where this tool was built from.
pub fn root() -> Result<PathBuf> {
    if let Some(root) = std::env::var_os("SILA_ROOT") {
        return Ok(PathBuf::from(root));
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("boot/ has no parent folder")?;
    if !root.join("Cargo.toml").is_file() {
        bail!("the source tree {} is gone; set SILA_ROOT to where it is now", root.display());
    }
    Ok(root.to_path_buf())
}

/// The build directory: `CARGO_TARGET_DIR`, or `target` in the source tree.
pub fn target() -> Result<PathBuf> {
    let root = root()?;
    Ok(match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root.join(dir),
        None => root.join("target"),
    })
}

/// The tool's own folder in the build directory (logs, images); made if it is not there.
pub fn state() -> Result<PathBuf> {
    let dir = target()?.join("sila");
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}

/// A short-named folder that vanishes with this value.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes a new folder below the system's temporary one, which keeps socket paths short.
    pub fn new() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        sweep(&std::env::temp_dir());
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("sila-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        Ok(Self(dir))
    }

    /// A path inside the folder.
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

/// The process that a scratch folder's name says it belongs to.
fn owner(name: &str) -> Option<u32> {
    name.strip_prefix("sila-")?.split_once('-')?.0.parse().ok()
}

/// Whether this process has ended, as far as can be told here.
pub fn is_gone(pid: u32) -> bool {
    Path::new("/proc/self").exists() && !Path::new(&format!("/proc/{pid}")).exists()
}

/// Removes what interrupted runs left behind: folders of processes that are gone.
fn sweep(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name.to_str().and_then(owner).is_some_and(is_gone) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scratch_folders_vanish_with_their_value() {
        let scratch = Scratch::new().unwrap();
        let dir = scratch.join("");
        assert!(dir.is_dir());
        drop(scratch);
        assert!(!dir.exists());
    }

    #[test]
    fn what_dead_processes_left_is_swept_and_the_rest_stays() {
        let scratch = Scratch::new().unwrap();
        let (dead, alive, other) = ("sila-4294967294-0", format!("sila-{}-7", std::process::id()), "sila-x");
        for name in [dead, &alive, other] {
            std::fs::create_dir(scratch.join(name)).unwrap();
        }
        sweep(&scratch.join(""));
        assert!(!scratch.join(dead).exists());
        assert!(scratch.join(&alive).exists() && scratch.join(other).exists());
    }
}
