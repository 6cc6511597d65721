//! The commands `push` and `export-floors`: files to a running system over its second serial port, and floors from it.
use crate::cli::readable;
use crate::missing::Usage;
use crate::pkg::ceremony::{self, parse_floor};
use crate::pkg::keys::list;
use crate::{paths, push_link};
use anyhow::{Context, Result, bail};
use clap::Args;
use sila_abi::protocol::push::MAX_FILE;
use sila_abi::trust::{FloorRecord, RecordKind};
use std::path::{Path, PathBuf};

/// The options of `push`.
#[derive(Debug, Clone, Args)]
pub struct PushArgs {
    /// The file: a package, or a signed record (certificate, revocation, root set, policy, floors)
    pub file: PathBuf,
    /// The system's socket, or a serial port such as /dev/ttyUSB0; without it the one system that runs here
    #[arg(long, value_name = "SOCKET|TTY")]
    pub to: Option<PathBuf>,
}

impl PushArgs {
    /// Sends the file and prints what the system says.
    pub fn run(&self) -> Result<()> {
        let bytes = contents(&self.file)?;
        let to = match &self.to {
            Some(to) => to.clone(),
            None => running()?,
        };
        println!("{}", send(&self.file, &bytes, &to)?);
        Ok(())
    }
}

/// The options of `export-floors`.
#[derive(Debug, Clone, Args)]
pub struct ExportFloorsArgs {
    /// The floor record to write; it must not exist yet
    #[arg(value_name = "FILE")]
    pub out: PathBuf,
    /// The system's socket, or a serial port such as /dev/ttyUSB0; without it the one system that runs here
    #[arg(long, value_name = "SOCKET|TTY")]
    pub from: Option<PathBuf>,
}

impl ExportFloorsArgs {
    /// Writes the record and prints what is in it.
    pub fn run(&self) -> Result<()> {
        let from = match &self.from {
            Some(from) => from.clone(),
            None => running()?,
        };
        println!("{}", export_floors(&self.out, &from)?);
        Ok(())
    }
}

/// Reads the floors of the system behind this socket or serial port and writes them to the new file `out`, as a record
/// without signatures. The answer says what was written.
pub fn export_floors(out: &Path, from: &Path) -> Result<String> {
    ceremony::check_out(out, RecordKind::Floors)?;
    let mut wire = push_link::open(from)?;
    let (floors, sequence) = push_link::floors(&mut *wire).context("cannot read the floors of the system")?;
    if floors.is_empty() {
        bail!("the system has no floors; there is nothing to write");
    }
    let floors = floors.iter().map(|text| parse_floor(text)).collect::<Result<Vec<_>>>()?;
    let count = floors.len();
    let record = FloorRecord { sequence: sequence.saturating_add(1), floors: list(floors, "floors")? };
    ceremony::export_floors(&record, out)?;
    Ok(format!("wrote {count} floors without signatures to {}", out.display()))
}

/// Sends a file to the system behind this socket or serial port. The answer is what the system says.
pub fn push_file(file: &Path, to: &Path) -> Result<String> {
    send(file, &contents(file)?, to)
}

fn contents(file: &Path) -> Result<Vec<u8>> {
    readable(file)?;
    let bytes = std::fs::read(file).with_context(|| Usage(format!("cannot read {}", file.display())))?;
    let len = bytes.len() as u64;
    if len > MAX_FILE {
        bail!(Usage(format!("{} has {len} bytes; a system takes at most {MAX_FILE}", file.display())));
    }
    Ok(bytes)
}

fn send(file: &Path, bytes: &[u8], to: &Path) -> Result<String> {
    let mut wire = push_link::open(to)?;
    push_link::transfer(&mut *wire, bytes).with_context(|| format!("cannot push {}", file.display()))
}

/// The folder in which running systems are listed: a link for each, named after the process of its tool, to its socket.
fn listing() -> Result<PathBuf> {
    Ok(paths::state()?.join("push"))
}

/// The socket of the one system that runs here.
fn running() -> Result<PathBuf> {
    one_of(&listing()?)
}

fn one_of(listing: &Path) -> Result<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(listing).into_iter().flatten().flatten() {
        let owner = entry.file_name().to_str().and_then(|name| name.split('-').next()?.parse::<u32>().ok());
        let gone = owner.is_none_or(paths::is_gone);
        match std::fs::read_link(entry.path()) {
            Ok(socket) if !gone && socket.exists() => found.push(socket),
            // An interrupted run leaves its link behind.
            _ => drop(std::fs::remove_file(entry.path())),
        }
    }
    found.sort();
    match found.as_slice() {
        [] => bail!(
            "no system runs here; `sila run` starts one, and --to names the socket or serial port of another"
        ),
        [socket] => Ok(socket.clone()),
        several => {
            let names: Vec<String> = several.iter().map(|socket| socket.display().to_string()).collect();
            bail!("several systems run here: name one by --to: {}", names.join(", "))
        }
    }
}

/// A running system's place in the listing; gone when dropped.
#[derive(Debug)]
pub struct Listed(PathBuf);

impl Listed {
    /// Lists the system behind this socket.
    pub fn new(socket: &Path) -> Result<Self> {
        Self::below(&listing()?, socket)
    }

    fn below(listing: &Path, socket: &Path) -> Result<Self> {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        std::fs::create_dir_all(listing).with_context(|| format!("cannot make {}", listing.display()))?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let link = listing.join(format!("{}-{number}", std::process::id()));
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(socket, &link)
            .with_context(|| format!("cannot make {}", link.display()))?;
        Ok(Self(link))
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::missing::status;
    use crate::paths::Scratch;

    #[test]
    fn files_that_cannot_be_pushed_are_refused_before_anything_is_sent() {
        let scratch = Scratch::new().unwrap();
        let nowhere = scratch.join("nowhere");
        for (name, len, part) in [("empty", 0, "is empty"), ("long", MAX_FILE + 1, "at most 4194304")] {
            let path = scratch.join(name);
            std::fs::File::create(&path).unwrap().set_len(len).unwrap();
            let error = push_file(&path, &nowhere).unwrap_err();
            assert!(format!("{error:#}").contains(part), "{error:#}");
            assert_eq!(status(&error), 64);
        }
        for path in [scratch.join("absent"), scratch.join("")] {
            assert_eq!(status(&push_file(&path, &nowhere).unwrap_err()), 64);
        }
        let good = scratch.join("good");
        std::fs::write(&good, "x").unwrap();
        let error = push_file(&good, &nowhere).unwrap_err();
        assert!(format!("{error:#}").contains("nowhere"), "{error:#}");
    }

    #[test]
    fn the_one_running_system_is_found_and_what_is_left_of_others_removed() {
        let scratch = Scratch::new().unwrap();
        let listing = scratch.join("push");
        let none = one_of(&listing).unwrap_err();
        assert!(none.to_string().contains("no system runs here"), "{none}");
        let (first, second) = (scratch.join("one"), scratch.join("two"));
        std::fs::write(&first, "").unwrap();
        std::fs::write(&second, "").unwrap();
        let listed = Listed::below(&listing, &first).unwrap();
        let dead = listing.join("4294967294-0");
        std::os::unix::fs::symlink(&second, &dead).unwrap();
        std::os::unix::fs::symlink(
            scratch.join("gone"),
            listing.join(format!("{}-9999", std::process::id())),
        )
        .unwrap();
        assert_eq!(one_of(&listing).unwrap(), first);
        assert_eq!(std::fs::read_dir(&listing).unwrap().count(), 1);
        let other = Listed::below(&listing, &second).unwrap();
        let several = one_of(&listing).unwrap_err().to_string();
        assert!(several.contains("one") && several.contains("two") && several.contains("--to"), "{several}");
        drop(other);
        drop(listed);
        assert!(one_of(&listing).is_err());
    }
}
