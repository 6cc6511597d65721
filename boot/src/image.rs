//! The disk image: a GPT disk with one EFI system partition. The file is byte for byte what is flashed.
use anyhow::{Context, Result, bail};
use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions};
use gpt::disk::LogicalBlockSize;
use gpt::partition::Partition;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use uuid::Uuid;

/// What an image is called when nobody says otherwise.
pub const DEFAULT_NAME: &str = "sila.img";

const SECTOR: u64 = 512;
/// Where the partition starts: one mebibyte in, as every partitioning tool does it.
const START: u64 = 1024 * 1024;
/// The smallest partition: FAT32 needs some 33 MiB, and firmware reads FAT32 best.
const SMALLEST: u64 = 40 * 1024 * 1024;
/// What the loader reads: keep it and the screen quiet, the kernel has a log of its own.
const LOADER_CONFIG: &str =
    r#"{"frame_buffer":{},"log_level":"Warn","frame_buffer_logging":false,"serial_logging":true}"#;

/// What goes onto the disk.
#[derive(Debug, Clone)]
pub struct Contents {
    /// The UEFI loader.
    pub loader: Vec<u8>,
    /// The kernel's ELF file.
    pub kernel: Vec<u8>,
    /// The boot bundle.
    pub ramdisk: Vec<u8>,
}

/// Every file in an image has this date, so that the same contents give the same image.
#[derive(Debug)]
struct FixedDate;

static FIXED_DATE: FixedDate = FixedDate;

impl fatfs::TimeProvider for FixedDate {
    fn get_current_date(&self) -> fatfs::Date {
        fatfs::Date { year: 2026, month: 1, day: 1 }
    }

    fn get_current_date_time(&self) -> fatfs::DateTime {
        let time = fatfs::Time { hour: 0, min: 0, sec: 0, millis: 0 };
        fatfs::DateTime { date: self.get_current_date(), time }
    }
}

/// A part of a file that looks like a whole one.
struct Window<'a> {
    file: &'a mut File,
    start: u64,
    len: u64,
    at: u64,
}

impl<'a> Window<'a> {
    fn new(file: &'a mut File, start: u64, len: u64) -> Self {
        Self { file, start, len, at: 0 }
    }

    fn room(&self, want: usize) -> usize {
        usize::try_from(self.len.saturating_sub(self.at)).unwrap_or(usize::MAX).min(want)
    }
}

impl Read for Window<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let room = self.room(buf.len());
        self.file.seek(SeekFrom::Start(self.start + self.at))?;
        let n = self.file.read(buf.get_mut(..room).unwrap_or_default())?;
        self.at += n as u64;
        Ok(n)
    }
}

impl Write for Window<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let room = self.room(buf.len());
        self.file.seek(SeekFrom::Start(self.start + self.at))?;
        let n = self.file.write(buf.get(..room).unwrap_or_default())?;
        self.at += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for Window<'_> {
    fn seek(&mut self, pos: SeekFrom) -> io::Result<u64> {
        let target = match pos {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(off) => self.len.checked_add_signed(off),
            SeekFrom::Current(off) => self.at.checked_add_signed(off),
        };
        self.at =
            target.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "seek before the start"))?;
        Ok(self.at)
    }
}

/// A 64-bit digest that only names things (identifiers of the disk), nothing that must resist an attacker.
fn name_of(contents: &Contents, salt: u64) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64 ^ salt;
    for byte in [&contents.loader, &contents.kernel, &contents.ramdisk].into_iter().flatten() {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash
}

fn guid(contents: &Contents, salt: u64) -> Uuid {
    let (high, low) = (name_of(contents, salt), name_of(contents, !salt));
    uuid::Builder::from_custom_bytes(((u128::from(high) << 64) | u128::from(low)).to_be_bytes()).into_uuid()
}

/// The partition's size in bytes: the contents with room to spare, whole mebibytes.
pub fn partition_size(contents: &Contents) -> u64 {
    let bytes = (contents.loader.len() + contents.kernel.len() + contents.ramdisk.len()) as u64;
    let wanted = bytes + bytes / 16 + 4 * 1024 * 1024;
    wanted.max(SMALLEST).next_multiple_of(1024 * 1024)
}

fn write_table(file: &mut File, contents: &Contents, size: u64) -> Result<()> {
    let total = START + size + START;
    let lbas = u32::try_from(total / SECTOR - 1).unwrap_or(u32::MAX);
    gpt::mbr::ProtectiveMBR::with_lb_size(lbas)
        .overwrite_lba0(file)
        .context("cannot write the protective MBR")?;
    let mut disk = gpt::GptConfig::new()
        .writable(true)
        .logical_block_size(LogicalBlockSize::Lb512)
        .create_from_device(&mut *file, Some(guid(contents, 1)))
        .context("cannot make a GPT")?;
    let partition = Partition {
        part_type_guid: gpt::partition_types::EFI,
        part_guid: guid(contents, 2),
        first_lba: START / SECTOR,
        last_lba: (START + size) / SECTOR - 1,
        flags: 0,
        name: "SILA".into(),
    };
    disk.update_partitions([(1, partition)].into()).context("cannot enter the partition")?;
    disk.write().context("cannot write the GPT")?;
    Ok(())
}

fn write_files(file: &mut File, contents: &Contents, size: u64) -> Result<()> {
    let volume = u32::try_from(name_of(contents, 3) >> 32).unwrap_or(0);
    let options = FormatVolumeOptions::new()
        .fat_type(FatType::Fat32)
        .bytes_per_cluster(512)
        .volume_label(*b"SILA       ")
        .volume_id(volume);
    let mut window = Window::new(file, START, size);
    fatfs::format_volume(&mut window, options).context("cannot format the partition")?;
    window.seek(SeekFrom::Start(0))?;
    let options = FsOptions::new().time_provider(&FIXED_DATE);
    let fs = FileSystem::new(window, options).context("cannot open the new file system")?;
    let root = fs.root_dir();
    root.create_dir("EFI")?.create_dir("BOOT")?;
    let files: [(&str, &[u8]); 4] = [
        ("EFI/BOOT/BOOTX64.EFI", &contents.loader),
        ("kernel-x86_64", &contents.kernel),
        ("ramdisk", &contents.ramdisk),
        ("boot.json", LOADER_CONFIG.as_bytes()),
    ];
    // The loader cannot read an empty file; a missing bundle it reports to the kernel.
    for (name, bytes) in files.into_iter().filter(|(_, bytes)| !bytes.is_empty()) {
        let mut entry = root.create_file(name)?;
        entry.write_all(bytes).with_context(|| format!("cannot write {name} into the image"))?;
        entry.flush()?;
    }
    drop(root);
    fs.unmount().context("cannot finish the file system")?;
    Ok(())
}

/// Writes a bootable image. The same contents give the same bytes.
pub fn write(out: &Path, contents: &Contents) -> Result<()> {
    let size = partition_size(contents);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(out)
        .with_context(|| format!("cannot write {}", out.display()))?;
    file.set_len(START + size + START)?;
    write_table(&mut file, contents, size)?;
    write_files(&mut file, contents, size)?;
    file.sync_all()?;
    Ok(())
}

/// Reads one file from an image's EFI system partition.
pub fn read_file(image: &mut File, name: &str) -> Result<Vec<u8>> {
    let (start, len) = {
        let disk = gpt::GptConfig::new()
            .logical_block_size(LogicalBlockSize::Lb512)
            .open_from_device(&mut *image)
            .context("not a GPT disk image")?;
        let Some(partition) =
            disk.partitions().values().find(|part| part.part_type_guid == gpt::partition_types::EFI)
        else {
            bail!("the image has no EFI system partition");
        };
        (partition.first_lba * SECTOR, (partition.last_lba + 1 - partition.first_lba) * SECTOR)
    };
    let fs =
        FileSystem::new(Window::new(image, start, len), FsOptions::new()).context("not a FAT partition")?;
    let mut bytes = Vec::new();
    let mut entry = fs.root_dir().open_file(name).with_context(|| format!("the image has no file {name}"))?;
    entry.read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paths::Scratch;

    fn contents(n: usize) -> Contents {
        Contents {
            loader: vec![1; 3000],
            kernel: vec![2; n],
            ramdisk: (0..70_000_u32).map(|i| i as u8).collect(),
        }
    }

    #[test]
    fn image_holds_the_files_byte_for_byte() {
        let dir = Scratch::new().unwrap();
        let path = dir.join("a.img");
        write(&path, &contents(50_000)).unwrap();
        let mut file = File::open(&path).unwrap();
        assert_eq!(read_file(&mut file, "EFI/BOOT/BOOTX64.EFI").unwrap(), vec![1; 3000]);
        assert_eq!(read_file(&mut file, "kernel-x86_64").unwrap(), vec![2; 50_000]);
        assert_eq!(read_file(&mut file, "ramdisk").unwrap(), contents(1).ramdisk);
        assert!(read_file(&mut file, "nothing").is_err());
    }

    #[test]
    fn same_contents_give_the_same_image() {
        let dir = Scratch::new().unwrap();
        let (a, b) = (dir.join("a.img"), dir.join("b.img"));
        write(&a, &contents(100)).unwrap();
        write(&b, &contents(100)).unwrap();
        assert!(std::fs::read(a).unwrap() == std::fs::read(b).unwrap());
    }

    #[test]
    fn partition_grows_with_its_contents() {
        assert_eq!(partition_size(&contents(10)), SMALLEST);
        let big = partition_size(&contents(100 * 1024 * 1024));
        assert!(big > 104 * 1024 * 1024 && big.is_multiple_of(1024 * 1024));
    }

    #[test]
    fn partition_is_aligned_and_both_tables_are_valid() {
        let dir = Scratch::new().unwrap();
        let path = dir.join("a.img");
        write(&path, &contents(10)).unwrap();
        let disk = gpt::GptConfig::new().open(&path).unwrap();
        assert!(disk.primary_header().is_ok() && disk.backup_header().is_ok());
        let first = disk.partitions().get(&1).unwrap().first_lba;
        assert_eq!(first * SECTOR, START);
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes[510..512], [0x55, 0xaa]);
    }

    #[test]
    fn a_file_that_is_no_image_is_refused_by_name_of_the_problem() {
        let dir = Scratch::new().unwrap();
        let path = dir.join("x");
        std::fs::write(&path, vec![0; 100_000]).unwrap();
        let error = read_file(&mut File::open(&path).unwrap(), "ramdisk").unwrap_err();
        assert!(error.to_string().contains("not a GPT disk image"));
    }
}
