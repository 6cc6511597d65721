//! Tests of `flash` on plain files.
use super::flash::*;
use crate::cli::FlashArgs;
use crate::image::{self, Contents};
use crate::paths::Scratch;
use std::collections::BTreeSet;
use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};
use std::path::Path;

fn stick() -> Disk {
    Disk {
        device: "/dev/sdz".into(),
        label: "Stick".into(),
        size: 1 << 30,
        removable: true,
        locked: false,
        mounts: BTreeSet::new(),
    }
}

fn verdict(disk: &Disk) -> Result<(), Refusal> {
    check(Some(disk), 1 << 20, Purpose::Release, false)
}

#[test]
fn a_removable_unmounted_disk_is_accepted() {
    assert_eq!(verdict(&stick()), Ok(()));
}

#[test]
fn mounted_and_system_disks_are_refused() {
    let mounted = Disk { mounts: ["/media/x".to_string()].into(), ..stick() };
    assert_eq!(verdict(&mounted), Err(Refusal::Mounted("/media/x".into())));
    let system = Disk { mounts: ["/".to_string(), "/a".to_string()].into(), ..stick() };
    assert_eq!(verdict(&system), Err(Refusal::System("/".into())));
}

#[test]
fn fixed_locked_small_and_unknown_disks_are_refused() {
    assert_eq!(verdict(&Disk { removable: false, ..stick() }), Err(Refusal::NotRemovable));
    assert_eq!(verdict(&Disk { locked: true, ..stick() }), Err(Refusal::ReadOnly));
    assert_eq!(verdict(&Disk { size: 1000, ..stick() }), Err(Refusal::TooSmall));
    assert_eq!(check(None, 1, Purpose::Release, true), Err(Refusal::NoSuchDisk));
}

#[test]
fn test_keys_are_refused_unless_allowed() {
    let disk = stick();
    assert_eq!(check(Some(&disk), 1, Purpose::Test, false), Err(Refusal::TestKeys));
    assert_eq!(check(Some(&disk), 1, Purpose::Test, true), Ok(()));
}

#[test]
fn an_image_is_written_and_read_back() {
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|i| (i / 7) as u8).collect();
    let mut device = Cursor::new(vec![0xee; 4_000_000]);
    assert_eq!(write_and_compare(&mut Cursor::new(&bytes), &mut device).unwrap(), 3_000_000);
    assert!(device.get_ref()[..3_000_000] == bytes);
    assert_eq!(device.get_ref()[3_000_000], 0xee);
}

impl Target for Cursor<Vec<u8>> {
    fn settle(&mut self) -> anyhow::Result<()> {
        Ok(())
    }
}

/// A disk with one bad byte, which shows only once the caches are dropped.
struct BadDisk(Cursor<Vec<u8>>, bool);

impl Target for BadDisk {
    fn settle(&mut self) -> anyhow::Result<()> {
        self.1 = true;
        Ok(())
    }
}

impl Read for BadDisk {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let at = self.0.position();
        let n = self.0.read(buf)?;
        if self.1 && (at..at + n as u64).contains(&70_000) {
            buf[70_000 - at as usize] ^= 1;
        }
        Ok(n)
    }
}

impl Write for BadDisk {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.write(buf)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for BadDisk {
    fn seek(&mut self, pos: SeekFrom) -> io::Result<u64> {
        self.0.seek(pos)
    }
}

#[test]
fn a_bad_disk_is_noticed_at_the_byte() {
    let mut device = BadDisk(Cursor::new(vec![0; 200_000]), false);
    let error = write_and_compare(&mut Cursor::new(vec![9; 100_000]), &mut device).unwrap_err();
    assert!(error.to_string().contains("at byte 70000"), "{error}");
}

/// A machine made of plain files, with one stick `sdz`.
fn stage(dir: &Scratch, mounts: &str) -> Machine {
    let write = |path: &Path, text: &str| {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let block = dir.join("block/sdz");
    for (name, text) in [
        ("size", "200000"),
        ("removable", "1"),
        ("ro", "0"),
        ("device/model", "Stick"),
        ("sdz1/partition", "1"),
    ] {
        write(&block.join(name), text);
    }
    write(&dir.join("dev/sdz"), "");
    write(&dir.join("dev/sdz1"), "");
    std::fs::File::options().write(true).open(dir.join("dev/sdz")).unwrap().set_len(200_000 * 512).unwrap();
    write(&dir.join("mounts"), &mounts.replace("DEV", &dir.join("dev").display().to_string()));
    write(&dir.join("swaps"), "Filename Type\n");
    Machine {
        blocks: dir.join("block"),
        mounts: dir.join("mounts"),
        swaps: dir.join("swaps"),
        devices: dir.join("dev"),
    }
}

fn flash(dir: &Scratch, machine: &Machine, allow_test_keys: bool) -> anyhow::Result<()> {
    let image = dir.join("sila.img");
    image::write(&image, &Contents { loader: vec![1], kernel: vec![2], ramdisk: b"bundle".to_vec() })?;
    let args = FlashArgs { disk: Some(dir.join("dev/sdz")), image, allow_test_keys, yes: true };
    run(&args, machine, &|bundle| {
        assert_eq!(bundle, b"bundle");
        Ok(Purpose::Test)
    })
}

#[test]
fn flash_writes_the_very_image_to_a_staged_stick() {
    let dir = Scratch::new().unwrap();
    let machine = stage(&dir, "proc /proc proc rw 0 0\n");
    assert!(flash(&dir, &machine, false).unwrap_err().to_string().contains("test keys"));
    flash(&dir, &machine, true).unwrap();
    let image = std::fs::read(dir.join("sila.img")).unwrap();
    assert!(std::fs::read(dir.join("dev/sdz")).unwrap()[..image.len()] == image);
}

#[test]
fn flash_refuses_a_stick_with_a_mounted_partition() {
    let dir = Scratch::new().unwrap();
    let machine = stage(&dir, "DEV/sdz1 /media/stick vfat rw 0 0\n");
    assert_eq!(machine.disks()[0].mounts.first().map(String::as_str), Some("/media/stick"));
    let error = flash(&dir, &machine, true).unwrap_err();
    assert!(error.to_string().contains("mounted on /media/stick"), "{error}");
}

#[test]
fn a_mount_behind_two_mappings_is_found() {
    let dir = Scratch::new().unwrap();
    let machine = stage(&dir, "DEV/dm-1 /media/secret ext4 rw 0 0\n");
    assert!(machine.disks()[0].mounts.is_empty());
    for folder in ["sdz/sdz1/holders/dm-0", "dm-0/holders/dm-1", "dm-1/holders/dm-0"] {
        std::fs::create_dir_all(dir.join("block").join(folder)).unwrap();
    }
    std::fs::write(dir.join("dev/dm-1"), "").unwrap();
    let stick = machine.disks().into_iter().find(|disk| disk.device.ends_with("sdz")).unwrap();
    assert_eq!(stick.mounts.first().map(String::as_str), Some("/media/secret"));
}
