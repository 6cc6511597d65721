//! The command `flash`: writes an image to a removable disk, and reads it back.
use crate::cli::FlashArgs;
use crate::missing::{Missing, Usage};
use crate::{image, toolchain};
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What keys the modules of an image are signed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Keys made for tests: anybody may have them.
    Test,
    /// Keys that someone guards.
    Release,
}

/// One disk of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Its device file.
    pub device: PathBuf,
    /// Vendor and model, for people.
    pub label: String,
    /// Size in bytes.
    pub size: u64,
    /// The kernel calls it removable, or it hangs on USB.
    pub removable: bool,
    /// Read-only.
    pub locked: bool,
    /// Where it or a partition of it is mounted (or used as swap).
    pub mounts: BTreeSet<String>,
}

/// Where disks come from: this machine, or a stage for tests.
#[derive(Debug, Clone)]
pub struct Machine {
    /// `/sys/block`.
    pub blocks: PathBuf,
    /// `/proc/mounts`.
    pub mounts: PathBuf,
    /// `/proc/swaps`.
    pub swaps: PathBuf,
    /// `/dev`.
    pub devices: PathBuf,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            blocks: "/sys/block".into(),
            mounts: "/proc/mounts".into(),
            swaps: "/proc/swaps".into(),
            devices: "/dev".into(),
        }
    }
}

/// Why a disk is not written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Not a disk of this machine.
    NoSuchDisk,
    /// Not removable: it could be the system's.
    NotRemovable,
    /// The running system stands on it.
    System(String),
    /// It is mounted.
    Mounted(String),
    /// It is read-only.
    ReadOnly,
    /// It is smaller than the image.
    TooSmall,
    /// The image's modules are signed with test keys.
    TestKeys,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoSuchDisk => write!(f, "it is not a whole disk of this machine"),
            Self::NotRemovable => write!(f, "it is not removable"),
            Self::System(place) => write!(f, "the running system uses it ({place})"),
            Self::Mounted(place) => write!(f, "it is mounted on {place}; unmount it first"),
            Self::ReadOnly => write!(f, "it is read-only"),
            Self::TooSmall => write!(f, "it is smaller than the image"),
            Self::TestKeys => {
                write!(
                    f,
                    "the image is signed with test keys, which anybody may have; --allow-test-keys writes it"
                )
            }
        }
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).map(|text| text.trim().to_string()).unwrap_or_default()
}

impl Machine {
    /// Device file and place of everything that is mounted or swapped to.
    fn uses(&self) -> Vec<(String, String)> {
        let word = |line: &str, n: usize| line.split_whitespace().nth(n).unwrap_or_default().to_string();
        let real = |name: String| match std::fs::canonicalize(&name) {
            Ok(path) => path.display().to_string(),
            Err(_) => name,
        };
        let mounts = read(&self.mounts);
        let swaps = read(&self.swaps);
        let mounted = mounts.lines().map(|line| (real(word(line, 0)), word(line, 1)));
        let swapped = swaps.lines().skip(1).map(|line| (real(word(line, 0)), "[swap]".to_string()));
        mounted.chain(swapped).filter(|(device, _)| device.starts_with('/')).collect()
    }

    /// Names of the block devices that a disk is made of or that are made of it: partitions, and what holds them.
    fn family(&self, name: &str) -> BTreeSet<String> {
        let mut family = BTreeSet::from([name.to_string()]);
        let mut folders = vec![self.blocks.join(name)];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
                let part = entry.file_name().to_string_lossy().into_owned();
                if entry.path().join("partition").exists() && family.insert(part) {
                    folders.push(entry.path());
                }
            }
            for entry in std::fs::read_dir(folder.join("holders")).into_iter().flatten().flatten() {
                let holder = entry.file_name().to_string_lossy().into_owned();
                let place = self.blocks.join(&holder);
                if family.insert(holder) {
                    folders.push(place);
                }
            }
        }
        family
    }

    /// Every disk of this machine.
    pub fn disks(&self) -> Vec<Disk> {
        let uses = self.uses();
        let mut disks = Vec::new();
        for entry in std::fs::read_dir(&self.blocks).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let folder = entry.path();
            let size = read(&folder.join("size")).parse::<u64>().unwrap_or(0) * 512;
            if size == 0
                || ["loop", "ram", "zram", "dm-", "md", "sr"].iter().any(|kind| name.starts_with(kind))
            {
                continue;
            }
            let on_usb =
                std::fs::canonicalize(&folder).is_ok_and(|path| path.to_string_lossy().contains("/usb"));
            let family: BTreeSet<PathBuf> =
                self.family(&name).iter().map(|part| self.devices.join(part)).collect();
            let label =
                format!("{} {}", read(&folder.join("device/vendor")), read(&folder.join("device/model")));
            disks.push(Disk {
                device: self.devices.join(&name),
                label: label.trim().to_string(),
                size,
                removable: read(&folder.join("removable")) == "1" || on_usb,
                locked: read(&folder.join("ro")) == "1",
                mounts: uses
                    .iter()
                    .filter(|(device, _)| family.contains(Path::new(device)))
                    .map(|(_, place)| place.clone())
                    .collect(),
            });
        }
        disks.sort_by(|a, b| a.device.cmp(&b.device));
        disks
    }
}

/// Decides whether an image may go onto a disk.
pub fn check(
    disk: Option<&Disk>,
    image_size: u64,
    purpose: Purpose,
    allow_test: bool,
) -> Result<(), Refusal> {
    let disk = disk.ok_or(Refusal::NoSuchDisk)?;
    let is_system = |place: &&String| {
        ["/", "/boot", "/boot/efi", "/usr", "/var", "/home", "[swap]"].contains(&place.as_str())
    };
    if let Some(place) = disk.mounts.iter().find(is_system) {
        return Err(Refusal::System(place.clone()));
    }
    if let Some(place) = disk.mounts.first() {
        return Err(Refusal::Mounted(place.clone()));
    }
    if !disk.removable {
        return Err(Refusal::NotRemovable);
    }
    if disk.locked {
        return Err(Refusal::ReadOnly);
    }
    if disk.size < image_size {
        return Err(Refusal::TooSmall);
    }
    if purpose == Purpose::Test && !allow_test {
        return Err(Refusal::TestKeys);
    }
    Ok(())
}

/// What an image is written to.
pub trait Target: Read + Write + Seek {
    /// Sees to it that reads from now on say what the medium holds, not what a cache remembers.
    fn settle(&mut self) -> Result<()>;
}

/// `O_EXCL`: Linux refuses it for a block device that is mounted or otherwise held.
const EXCLUSIVE: i32 = 0o200;

/// A disk's device file. It stays open exclusively until the comparison is over.
#[derive(Debug)]
pub struct Device {
    path: PathBuf,
    writer: File,
    reader: Option<File>,
    /// Drops the page cache; `None` for a plain file.
    flusher: Option<PathBuf>,
}

impl Device {
    /// Opens a disk, or a plain file in its place.
    pub fn open(path: &Path) -> Result<Self> {
        let is_block = std::fs::metadata(path).is_ok_and(|data| data.file_type().is_block_device());
        let flusher = if is_block {
            let found = toolchain::on_path("blockdev")
                .or_else(|| Some(PathBuf::from("/usr/sbin/blockdev")).filter(|path| path.is_file()));
            Some(found.ok_or_else(|| Missing::new("blockdev", "apt-get install util-linux"))?)
        } else {
            None
        };
        let writer = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(if is_block { EXCLUSIVE } else { 0 })
            .open(path)
            .with_context(|| format!("cannot write {} (are you root? is it in use?)", path.display()))?;
        Ok(Self { path: path.to_path_buf(), writer, reader: None, flusher })
    }
}

impl Read for Device {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        self.reader.as_mut().unwrap_or(&mut self.writer).read(buf)
    }
}

impl Write for Device {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        self.writer.write(buf)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.writer.flush()
    }
}

impl Seek for Device {
    fn seek(&mut self, pos: SeekFrom) -> std::io::Result<u64> {
        self.reader.as_mut().unwrap_or(&mut self.writer).seek(pos)
    }
}

impl Target for Device {
    fn settle(&mut self) -> Result<()> {
        self.writer.sync_all().context("writing to the disk failed")?;
        if let Some(flusher) = &self.flusher {
            let status = Command::new(flusher).arg("--flushbufs").arg(&self.path).status();
            if !status.with_context(|| format!("cannot run {}", flusher.display()))?.success() {
                bail!(
                    "the cache of {} cannot be dropped: what was written is not checked",
                    self.path.display()
                );
            }
        }
        // A second handle, because closing the first would let others mount the disk before it is compared.
        self.reader = Some(File::open(&self.path).context("reading the disk back failed")?);
        Ok(())
    }
}

/// Writes an image to a device and compares what the device then holds.
pub fn write_and_compare(image: &mut (impl Read + Seek), device: &mut impl Target) -> Result<u64> {
    const CHUNK: usize = 1 << 20;
    image.seek(SeekFrom::Start(0))?;
    device.seek(SeekFrom::Start(0))?;
    let written = std::io::copy(image, device).context("writing to the disk failed")?;
    device.flush().context("writing to the disk failed")?;
    device.settle()?;
    image.seek(SeekFrom::Start(0))?;
    device.seek(SeekFrom::Start(0))?;
    let (mut wanted, mut found) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut at = 0;
    while at < written {
        let n = usize::try_from(written - at).unwrap_or(CHUNK).min(CHUNK);
        let (wanted, found) =
            (wanted.get_mut(..n).unwrap_or_default(), found.get_mut(..n).unwrap_or_default());
        image.read_exact(wanted)?;
        device.read_exact(found).context("reading the disk back failed")?;
        if let Some(offset) = wanted.iter().zip(found.iter()).position(|(a, b)| a != b) {
            bail!("the disk holds something else at byte {}: do not use it", at + offset as u64);
        }
        at += n as u64;
    }
    Ok(written)
}

fn gibibytes(size: u64) -> String {
    let tenths = size * 10 / (1 << 30);
    format!("{}.{} GiB", tenths / 10, tenths % 10)
}

fn list(disks: &[Disk]) {
    let mut none = true;
    for disk in disks.iter().filter(|disk| disk.removable) {
        none = false;
        let mounts: Vec<&str> = disk.mounts.iter().map(String::as_str).collect();
        let note =
            if mounts.is_empty() { String::new() } else { format!("  mounted on {}", mounts.join(", ")) };
        println!("{}  {}  {}{note}", disk.device.display(), gibibytes(disk.size), disk.label);
    }
    if none {
        println!("no removable disk is plugged in");
    } else {
        println!("write the image with: sila flash DISK");
    }
}

fn confirmed(disk: &Disk, input: &mut impl BufRead) -> Result<bool> {
    eprint!(
        "All of {} ({}, {}) will be lost. Type yes to go on: ",
        disk.device.display(),
        disk.label,
        gibibytes(disk.size)
    );
    let mut answer = String::new();
    input.read_line(&mut answer)?;
    Ok(answer.trim() == "yes")
}

/// Runs the command; `purpose_of` reads from a boot bundle what keys it is signed with.
pub fn run(args: &FlashArgs, machine: &Machine, purpose_of: &dyn Fn(&[u8]) -> Result<Purpose>) -> Result<()> {
    let disks = machine.disks();
    let Some(target) = &args.disk else {
        list(&disks);
        return Ok(());
    };
    let mut image = File::open(&args.image)
        .with_context(|| Usage(format!("cannot read {}; `sila image` writes one", args.image.display())))?;
    let size = image.metadata()?.len();
    let bundle = image::read_file(&mut image, "ramdisk")
        .with_context(|| format!("{} is not an image of SILA", args.image.display()))?;
    let purpose = purpose_of(&bundle)?;
    let real =
        std::fs::canonicalize(target).with_context(|| Usage(format!("no disk {}", target.display())))?;
    let disk = disks.iter().find(|disk| disk.device == real);
    if let Err(refusal) = check(disk, size, purpose, args.allow_test_keys) {
        bail!("{} is not written to: {refusal}", target.display());
    }
    let disk = disk.context("no such disk")?;
    if !args.yes && !confirmed(disk, &mut std::io::stdin().lock())? {
        bail!("nothing was written");
    }
    let written = write_and_compare(&mut image, &mut Device::open(&real)?)?;
    println!("{written} bytes written to {} and read back", real.display());
    Ok(())
}
