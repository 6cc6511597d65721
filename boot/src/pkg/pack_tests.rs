//! `pack` from the command line: of a folder, of a program, and what it refuses.

use super::keys::{KeySet, keygen, name};
use super::tests::{elf, options};
use crate::cli::{Cli, Command};
use crate::missing::status;
use crate::paths::Scratch;
use clap::Parser;
use sila_abi::trust::Purpose;
use std::path::{Path, PathBuf};

const DESCRIPTION: &str = include_str!("../../../modules/counter/sila.toml");
const CRATE: &str = "[package]\nname = \"counter\"\nversion = \"1.0.0\"\nedition = \"2024\"\n[workspace]\n";

struct Desk {
    scratch: Scratch,
}

impl Desk {
    /// A module's folder as `build-module` leaves it, the program beside it, and keys.
    fn new() -> Self {
        let scratch = Scratch::new().unwrap();
        let release = scratch.join("m/target/x86_64-sila-user/release");
        std::fs::create_dir_all(scratch.join("m/src")).unwrap();
        std::fs::create_dir_all(&release).unwrap();
        let code = [0x90; 50];
        let program = elf(0x20_1000, &[(1, 5, 0x20_1000, &code, 50)]);
        for (file, bytes) in [
            ("m/Cargo.toml", CRATE.as_bytes()),
            ("m/src/main.rs", b""),
            ("m/sila.toml", DESCRIPTION.as_bytes()),
            ("elf", &program),
        ] {
            std::fs::write(scratch.join(file), bytes).unwrap();
        }
        std::fs::write(release.join("counter"), &program).unwrap();
        keygen(&scratch.join("keys"), &options(Purpose::Test)).unwrap();
        Self { scratch }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }

    fn pack(&self, words: &[&str]) -> Result<(), (u8, String)> {
        let word = |word: &&str| match word.strip_prefix('/') {
            Some(name) => self.path(name).display().to_string(),
            None => word.to_string(),
        };
        let line = ["sila", "pack"].iter().map(|w| w.to_string()).chain(words.iter().map(word));
        let cli = Cli::try_parse_from(line).map_err(|e| (64, e.to_string()))?;
        let Some(Command::Pack(args)) = cli.command else { panic!("not pack") };
        args.run().map_err(|error| (status(&error), format!("{error:#}")))
    }

    fn describe(&self, from: &str, to: &str) {
        assert!(DESCRIPTION.contains(from), "{from}");
        std::fs::write(self.path("m/sila.toml"), DESCRIPTION.replacen(from, to, 1)).unwrap();
    }
}

fn is_package(path: &Path) -> bool {
    std::fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"SILAPKG1"))
}

#[test]
fn a_folder_is_packed_under_its_name_and_version() {
    let desk = Desk::new();
    desk.pack(&["/m", "--keys", "/keys"]).unwrap();
    assert!(is_package(&desk.path("m/counter-0.1.0.sila")));
    desk.pack(&["/m", "--keys", "/keys", "--out", "/other.sila"]).unwrap();
    let both = ["m/counter-0.1.0.sila", "other.sila"].map(|name| std::fs::read(desk.path(name)).unwrap());
    assert!(both[0] == both[1]);
    desk.pack(&["/elf", "--description", "/m/sila.toml", "--keys", "/keys", "--out", "/third.sila"]).unwrap();
    assert!(std::fs::read(desk.path("third.sila")).unwrap() == both[0]);
}

#[test]
fn wrong_usage_is_refused_before_anything_is_written() {
    let desk = Desk::new();
    for (words, part) in [
        (&["/m", "--keys", "/keys", "--out", "/p.silapkg"][..], "ends in .sila"),
        (&["/m", "--keys", "/keys", "--out", "/p"], "ends in .sila"),
        (&["/m", "--keys", "/keys", "--description", "/m/sila.toml"], "its own sila.toml"),
        (&["/elf", "--keys", "/keys", "--out", "/p.sila"], "needs --description"),
        (&["/none", "--description", "/m/sila.toml", "--keys", "/keys", "--out", "/p.sila"], "none"),
        (&["/m", "--keys", "/none", "--out", "/p.sila"], "publisher.cert"),
    ] {
        let (status, text) = desk.pack(words).unwrap_err();
        assert!(text.contains(part), "{text}");
        assert_eq!(status, 64, "{text}");
    }
    assert!(!desk.path("p.sila").exists() && !desk.path("m/counter-0.1.0.sila").exists());
}

#[test]
fn a_description_that_names_a_publisher_is_signed_by_nobody_else() {
    let desk = Desk::new();
    desk.describe("name = \"counter\"", "publisher = \"acme\"\nname = \"counter\"");
    let (status, text) = desk.pack(&["/m", "--keys", "/keys"]).unwrap_err();
    assert!(status == 1 && text.contains("says that acme signs counter"), "{text}");
    desk.describe("name = \"counter\"", "publisher = \"sila\"\nname = \"counter\"");
    desk.pack(&["/m", "--keys", "/keys"]).unwrap();
}

#[test]
fn what_the_signers_own_root_refuses_is_not_written() {
    let desk = Desk::new();
    let narrow =
        super::keys::KeygenOptions { prefixes: vec![name("net").unwrap()], ..options(Purpose::Test) };
    KeySet::generate(&narrow).unwrap().save(&desk.path("narrow")).unwrap();
    let (status, text) = desk.pack(&["/m", "--keys", "/narrow"]).unwrap_err();
    assert!(status == 1 && text.contains("the package would be refused"), "{text}");
    assert!(!desk.path("m/counter-0.1.0.sila").exists());
    // Without a root set there is nothing to hold it against.
    std::fs::remove_file(desk.path("narrow/rootset.bin")).unwrap();
    desk.pack(&["/m", "--keys", "/narrow"]).unwrap();
}
