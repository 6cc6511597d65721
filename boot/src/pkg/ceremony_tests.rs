//! The key ceremony from the command line: every command with good and bad input.

use super::ceremony::{parse_floor, parse_module, parse_versions};
use super::inspect;
use super::keys::KeySet;
use super::trust::{Trust, read_record};
use crate::cli::{Cli, Command};
use crate::missing::status;
use crate::paths::{Scratch, root};
use clap::Parser;
use sila_abi::trust::RecordKind;
use sila_crypto::chain::{KeySource, RootKeys, verify_record};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Runs a command line; an error is the status and what was said.
fn sila(args: &[&str]) -> Result<(), (u8, String)> {
    let cli = Cli::try_parse_from([&["sila"], args].concat()).map_err(|e| (64, e.to_string()))?;
    let result = match cli.command {
        Some(Command::Keygen(args)) => args.run(),
        Some(Command::Certify(args)) => args.run(),
        Some(Command::Revoke(args)) => args.run(),
        Some(Command::Rootset(args)) => args.run(),
        Some(Command::Policy(args)) => args.run(),
        Some(Command::Floors(args)) => args.run(),
        Some(Command::AddSignature(args)) => args.run(),
        Some(Command::Verify(args)) => args.run(),
        other => panic!("not a command of the ceremony: {other:?}"),
    };
    result.map_err(|error| (status(&error), format!("{error:#}")))
}

/// A scratch folder with `root` (2 of 3 keys), `publisher` of acme, and a ceiling.
struct Desk {
    scratch: Scratch,
}

impl Desk {
    fn new() -> Self {
        let this = Self { scratch: Scratch::new().unwrap() };
        this.good("keygen {root} --root-only");
        this.good("keygen {publisher} --publisher-only --publisher acme");
        this
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }

    /// Words, in which `{NAME}` is a path in the scratch folder, and `CEILING` the tree's example.
    fn run(&self, line: &str) -> Result<(), (u8, String)> {
        let ceiling = root().unwrap().join("boot/ceiling-module.toml").display().to_string();
        let word = |word: &str| match word.strip_prefix('{').and_then(|word| word.strip_suffix('}')) {
            Some(name) => self.path(name).display().to_string(),
            None if word == "CEILING" => ceiling.clone(),
            None => word.to_string(),
        };
        let words: Vec<String> = line.split_whitespace().map(word).collect();
        sila(&words.iter().map(String::as_str).collect::<Vec<_>>())
    }

    #[track_caller]
    fn good(&self, line: &str) {
        if let Err((status, text)) = self.run(line) {
            panic!("{line}: {status}: {text}");
        }
    }

    #[track_caller]
    fn bad(&self, line: &str, wanted: u8, part: &str) {
        let (status, text) = self.run(line).expect_err(line);
        assert!(text.contains(part), "{line}: {text}");
        assert_eq!(status, wanted, "{line}: {text}");
    }

    fn root_keys(&self, dir: &str) -> RootKeys {
        RootKeys::decode(&std::fs::read(self.path(dir).join("rootset.bin")).unwrap()).unwrap()
    }

    /// Copies the named files of `root` to a new folder.
    fn holder(&self, dir: &str, files: &[&str]) {
        std::fs::create_dir(self.path(dir)).unwrap();
        for file in files {
            std::fs::copy(self.path("root").join(file), self.path(dir).join(file)).unwrap();
        }
    }
}

const CERTIFY: &str = "certify --keys {root} --publisher-key {publisher} --publisher acme --prefix acme --sequence 1 --ceiling CEILING";

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn secrets_of_root_and_publisher_lie_apart_private_and_safe() {
    let desk = Desk::new();
    assert_eq!(names(&desk.path("root")), ["root-0.key", "root-1.key", "root-2.key", "rootset.bin"]);
    assert_eq!(names(&desk.path("publisher")), ["publisher.key", "publisher.pub"]);
    for (dir, file) in [("root", "root-0.key"), ("root", "root-2.key"), ("publisher", "publisher.key")] {
        assert_eq!(mode(&desk.path(dir)), 0o700);
        assert_eq!(mode(&desk.path(dir).join(file)), 0o600, "{file}");
    }
    let before = std::fs::read(desk.path("root/root-0.key")).unwrap();
    desk.bad("keygen {root} --root-only", 1, "never overwritten");
    desk.bad("keygen {publisher} --publisher-only --publisher acme", 1, "never overwritten");
    assert_eq!(std::fs::read(desk.path("root/root-0.key")).unwrap(), before);
}

#[test]
fn keygen_refuses_options_that_contradict_each_other() {
    let desk = Desk::new();
    for line in [
        "keygen {new}",
        "keygen {new} --root-only --publisher acme",
        "keygen {new} --root-only --publisher-only",
        "keygen {new} --root-only --prefix a",
        "keygen {new} --publisher-only",
        "keygen {new} --publisher-only --publisher acme --roots 3",
        "keygen {new} --publisher-only --publisher acme --prefix a",
        "keygen {new} --publisher-only --publisher ACME",
        "keygen {new} --publisher acme --sequence 2",
        "keygen {new} --root-only --sequence 0",
        "keygen {new} --root-only --roots 2 --threshold 3",
        "keygen {new} --root-only --roots 9",
        "keygen {new} --holder-only --publisher acme",
        "keygen {new} --join {root/none.pub} --roots 2",
        "keygen {new} --join {publisher/publisher.pub}",
        "keygen {new} --join {publisher/publisher.pub} --threshold 1",
    ] {
        desk.bad(line, 64, "");
        assert!(!desk.path("new").exists(), "{line}");
    }
}

#[test]
fn a_certified_publisher_signs_what_its_root_accepts() {
    let desk = Desk::new();
    desk.good(&format!(
        "{CERTIFY} --versions 1.0.0..1.9.9 --purpose release --out {{publisher/publisher.cert}}"
    ));
    let signed = read_record(&desk.path("publisher/publisher.cert")).unwrap();
    assert_eq!((signed.kind, signed.signatures.signatures.len()), (RecordKind::Certificate, 2));
    assert!(verify_record(&signed, &desk.root_keys("root")).is_ok());
    let keys = KeySet::load_both(&desk.path("root"), &desk.path("publisher")).unwrap();
    assert_eq!(keys.publisher.certificate.publisher.as_str(), "acme");
    assert_eq!(keys.publisher.certificate.versions, parse_versions("1.0.0..1.9.9").unwrap());
    assert!(!keys.publisher.certificate.ceiling.agents);
    let error = KeySet::load(&desk.path("root")).unwrap_err();
    assert!(format!("{error:#}").contains("publisher.cert"), "{error:#}");
    desk.holder("anna", &["rootset.bin", "root-0.key"]);
    let error = KeySet::load_both(&desk.path("anna"), &desk.path("publisher")).unwrap_err();
    assert!(error.to_string().contains("holds 1 root keys, and 2 must sign"), "{error}");
}

#[test]
fn certify_refuses_what_it_should_not_sign() {
    let desk = Desk::new();
    desk.good("keygen {test} --publisher-only --publisher acme --purpose test");
    desk.good("keygen {one} --holder-only");
    let out = "--out {a.cert}";
    let with = |from: &str, to: &str| format!("{} {out}", CERTIFY.replace(from, to));
    for (line, status, part) in [
        (with("--sequence 1", "--sequence 0"), 64, "0 is not in"),
        (with("--prefix acme", ""), 64, "--prefix"),
        (with("--prefix acme", "--prefix acme --any-name"), 64, "cannot be used"),
        (with("--prefix acme", "--prefix acme --prefix acme"), 64, "stands twice"),
        (with("--prefix acme", "--prefix Acme"), 64, "bad name"),
        (with("--publisher acme", "--publisher other"), 64, "a key of acme"),
        (with("--keys {root}", "--keys {publisher}"), 64, "rootset.bin"),
        (with("--publisher-key {publisher}", "--publisher-key {root}"), 64, "publisher.pub"),
        (with("--publisher-key {publisher}", "--publisher-key {one/root.pub}"), 64, "root key"),
        (with("--publisher-key {publisher}", "--publisher-key {test}"), 64, "test key"),
        (with("CEILING", "{none.toml}"), 64, "none.toml"),
        (with("--sequence 1", "--sequence 1 --versions 2.0.0..1.0.0"), 64, "no version"),
        (with("--sequence 1", "--sequence 1 --versions 2"), 64, "LOW..HIGH"),
        (format!("{CERTIFY} --purpose test {out}"), 64, "not a test key"),
        (with("{publisher}", "{test}").replace(out, &format!("--purpose test {out}")), 1, "another purpose"),
        (format!("{CERTIFY} --out {{a.bin}}"), 64, "ends in .cert"),
        (CERTIFY.to_string(), 64, "--out"),
    ] {
        desk.bad(&line, status, part);
        assert!(!desk.path("a.cert").exists(), "{line}");
    }
    desk.good(&format!("{CERTIFY} {out}"));
    let before = std::fs::read(desk.path("a.cert")).unwrap();
    desk.bad(&format!("{CERTIFY} {out}"), 64, "never overwritten");
    assert_eq!(std::fs::read(desk.path("a.cert")).unwrap(), before);
}

#[test]
fn ceilings_name_what_is_wrong() {
    let desk = Desk::new();
    let good = std::fs::read_to_string(root().unwrap().join("boot/ceiling-module.toml")).unwrap();
    for (from, to, part) in [
        ("\"Clock\"", "\"Watch\"", "unknown object type"),
        ("\"Clock\"", "\"Pool\"", "two ceilings"),
        ("\"SEAL\"", "\"RULE\"", "unknown right"),
        ("frames =", "frame =", "unknown field"),
        ("frames = 16384", "", "missing field"),
    ] {
        assert!(good.contains(from), "{from}");
        std::fs::write(desk.path("c.toml"), good.replace(from, to)).unwrap();
        let line = format!("{} --out {{a.cert}}", CERTIFY.replace("CEILING", "{c.toml}"));
        let (_, text) = desk.run(&line).unwrap_err();
        assert!(text.contains(part), "{text}");
        assert!(!desk.path("a.cert").exists());
    }
}

#[test]
fn the_systems_ceiling_is_the_one_that_keygen_gives() {
    let path = root().unwrap().join("boot/ceiling-system.toml");
    assert_eq!(super::ceremony::read_ceiling(&path).unwrap(), super::keys::full_ceiling().unwrap());
}

#[test]
fn holders_of_single_keys_sign_one_after_the_other() {
    let desk = Desk::new();
    desk.holder("anna", &["rootset.bin", "root-0.key"]);
    desk.holder("ben", &["rootset.bin", "root-2.key"]);
    let anna = CERTIFY.replace("{root}", "{anna}");
    desk.bad(&format!("{anna} --out {{a.cert}}"), 1, "--partial");
    assert!(!desk.path("a.cert").exists());
    desk.good(&format!("{anna} --out {{a.cert}} --partial"));
    let root = desk.root_keys("root");
    assert!(verify_record(&read_record(&desk.path("a.cert")).unwrap(), &root).is_err());
    desk.bad("add-signature {a.cert} --keys {anna}", 1, "already");
    desk.good("add-signature {a.cert} --keys {ben}");
    let signed = read_record(&desk.path("a.cert")).unwrap();
    let indices: Vec<u8> = signed.signatures.signatures.iter().map(|s| s.key_index).collect();
    assert_eq!(indices, [0, 2]);
    assert!(verify_record(&signed, &root).is_ok());
    assert!(names(&desk.path("")).iter().all(|name| !name.starts_with("a.cert.")), "nothing is left aside");
}

#[test]
fn signatures_are_added_to_sound_records_of_this_root_only() {
    let desk = Desk::new();
    desk.good("keygen {other} --root-only");
    desk.good(&format!("{CERTIFY} --out {{a.cert}}"));
    let before = std::fs::read(desk.path("a.cert")).unwrap();
    desk.bad("add-signature {a.cert} --keys {other}", 1, "does not know as valid");
    let mut spoilt = before.clone();
    let last = spoilt.len() - 10;
    spoilt[last] ^= 1;
    std::fs::write(desk.path("b.cert"), &spoilt).unwrap();
    desk.bad("add-signature {b.cert} --keys {root}", 1, "valid");
    std::fs::write(desk.path("c.cert"), "text").unwrap();
    desk.bad("add-signature {c.cert} --keys {root}", 1, "c.cert");
    desk.bad("add-signature {none.cert} --keys {root}", 64, "none.cert");
    desk.bad("add-signature {a.cert} --keys {publisher}", 64, "rootset.bin");
    assert_eq!(std::fs::read(desk.path("a.cert")).unwrap(), before);
    assert_eq!(std::fs::read(desk.path("b.cert")).unwrap(), spoilt);
}

#[test]
fn root_folders_hold_keys_of_their_own_set() {
    let desk = Desk::new();
    desk.good("keygen {other} --root-only");
    desk.holder("none", &["rootset.bin"]);
    desk.bad(&format!("{} --out {{a.cert}}", CERTIFY.replace("{root}", "{none}")), 1, "no secret root key");
    desk.holder("mixed", &["rootset.bin", "root-0.key"]);
    std::fs::copy(desk.path("other/root-1.key"), desk.path("mixed/root-1.key")).unwrap();
    desk.bad(
        &format!("{} --out {{a.cert}}", CERTIFY.replace("{root}", "{mixed}")),
        1,
        "no key of the root set",
    );
    desk.holder("twice", &["rootset.bin", "root-0.key"]);
    std::fs::copy(desk.path("root/root-0.key"), desk.path("twice/root-1.key")).unwrap();
    desk.bad(&format!("{} --out {{a.cert}}", CERTIFY.replace("{root}", "{twice}")), 1, "fewer root keys");
}

#[test]
fn revocations_take_back_keys_and_versions() {
    let desk = Desk::new();
    let revoke = "revoke --keys {root} --sequence";
    desk.good(&format!("{revoke} 1 --key {{publisher/publisher.pub}} --out {{1.revocation}}"));
    desk.good(&format!("{revoke} 2 --module acme/x --versions 1.0.0..1.2.0 --out {{2.revocation}}"));
    let root = desk.root_keys("root");
    for file in ["1.revocation", "2.revocation"] {
        assert!(verify_record(&read_record(&desk.path(file)).unwrap(), &root).is_ok(), "{file}");
    }
    let id = "ab".repeat(32);
    for (rest, part) in [
        ("0 --key ID", "0 is not in"),
        ("3", "required"),
        ("3 --key 12", "no key id"),
        ("3 --key ID --module acme/x --versions 1.0.0..2.0.0", "cannot be used"),
        ("3 --key ID --versions 1.0.0..2.0.0", "cannot be used"),
        ("3 --module acme/x", "--versions"),
        ("3 --module acme --versions 1.0.0..2.0.0", "PUBLISHER/NAME"),
        ("3 --module acme/x --versions 2.0.0..1.0.0", "no version"),
    ] {
        desk.bad(&format!("{revoke} {} --out {{3.revocation}}", rest.replace("ID", &id)), 64, part);
        assert!(!desk.path("3.revocation").exists(), "{rest}");
    }
    desk.bad(&format!("{revoke} 3 --key {id} --out {{3.cert}}"), 64, "ends in .revocation");
}

#[test]
fn policies_and_floors_are_signed_records_of_their_kind() {
    let desk = Desk::new();
    let text = "[policy]\nsequence = 5\nmax_verifications = 3\n\n[[policy.rule]]\nname = \"all\"\nobject = \"any\"\nrights = [\"ALL\"]\n";
    std::fs::write(desk.path("p.toml"), text).unwrap();
    desk.good("policy {p.toml} --keys {root} --out {a.policy}");
    desk.good("policy {p.toml} --keys {root} --sequence 6 --out {b.policy}");
    desk.good("floors --keys {root} --sequence 1 --floor acme/x=3 --floor acme/y=4 --out {a.floors}");
    let root = desk.root_keys("root");
    for (file, kind, sequence) in [
        ("a.policy", RecordKind::Policy, 5),
        ("b.policy", RecordKind::Policy, 6),
        ("a.floors", RecordKind::Floors, 1),
    ] {
        let record = verify_record(&read_record(&desk.path(file)).unwrap(), &root).unwrap();
        assert_eq!((record.kind(), record.sequence()), (kind, sequence), "{file}");
    }
    for (from, to, status, part) in [
        ("sequence = 5\n", "", 64, "no sequence"),
        ("sequence = 5", "sequence = 0", 64, "sequence number is zero"),
        ("max_verifications = 3", "max_verifications = 0", 64, "limit"),
        ("\"any\"", "\"thing\"", 1, "unknown object type"),
        ("[policy]", "[polity]", 1, "unknown field"),
    ] {
        std::fs::write(desk.path("bad.toml"), text.replace(from, to)).unwrap();
        desk.bad("policy {bad.toml} --keys {root} --out {c.policy}", status, part);
        assert!(!desk.path("c.policy").exists(), "{to}");
    }
    desk.bad("policy {none.toml} --keys {root} --out {c.policy}", 64, "none.toml");
    let floors = "floors --keys {root} --out {b.floors} --sequence";
    for (rest, part) in [
        ("0 --floor acme/x=1", "0 is not in"),
        ("2", "--floor"),
        ("2 --floor acme/x", "SECURITY_VERSION"),
        ("2 --floor acme/x=-1", "SECURITY_VERSION"),
        ("2 --floor acme=1", "PUBLISHER/NAME"),
        ("2 --floor acme/x=1 --floor acme/x=2", "stands twice"),
    ] {
        desk.bad(&format!("{floors} {rest}"), 64, part);
        assert!(!desk.path("b.floors").exists(), "{rest}");
    }
    let many: String = (0..17).map(|i| format!(" --floor acme/m{i}=1")).collect();
    desk.bad(&format!("{floors} 2{many}"), 1, "would be refused");
}

#[test]
fn floors_without_signatures_are_marked_as_such() {
    let desk = Desk::new();
    let floors = "floors --sequence 1 --floor acme/x=3 --out";
    desk.bad(&format!("{floors} {{a.floors}}"), 64, "--keys");
    desk.bad(&format!("{floors} {{a.floors}} --keys {{root}} --unsigned"), 64, "cannot be used");
    desk.bad(&format!("{floors} {{a.floors}} --partial --unsigned"), 64, "cannot be used");
    desk.bad(&format!("{floors} {{a.bin}} --unsigned"), 64, "ends in .floors");
    desk.good(&format!("{floors} {{a.floors}} --unsigned"));
    desk.bad(&format!("{floors} {{a.floors}} --unsigned"), 64, "never overwritten");
    let bytes = std::fs::read(desk.path("a.floors")).unwrap();
    let yardstick = super::grants::Yardstick::choose(None, None).unwrap();
    let view = inspect::View { trust: None, yardstick: &yardstick };
    let text = inspect::inspect(&bytes, &view).unwrap();
    assert!(text.contains("acme/x: security version 3") && text.contains("without signatures"), "{text}");
    assert!(read_record(&desk.path("a.floors")).is_err(), "nobody takes it for a signed one");
}

#[test]
fn a_root_set_is_followed_by_one_that_both_sides_signed() {
    let desk = Desk::new();
    desk.good("keygen {next} --root-only --sequence 2 --roots 2 --threshold 2");
    desk.good("keygen {stale} --root-only");
    desk.good("keygen {toy} --root-only --sequence 3 --purpose test");
    let rootset = "rootset --keys {root} --out {2.rootset}";
    desk.bad(&format!("{rootset} --new {{next}} --sequence 3"), 64, "has sequence 2");
    desk.bad(&format!("{rootset} --new {{next}} --sequence 0"), 64, "0 is not in");
    desk.bad(&format!("{rootset} --new {{stale}} --sequence 1"), 1, "not newer");
    desk.bad(&format!("{rootset} --new {{toy}} --sequence 3"), 1, "another purpose");
    desk.bad(&format!("{rootset} --new {{publisher}} --sequence 2"), 64, "rootset.bin");
    assert!(!desk.path("2.rootset").exists());
    desk.good(&format!("{rootset} --new {{next}} --sequence 2"));
    let signed = read_record(&desk.path("2.rootset")).unwrap();
    assert!(verify_record(&signed, &desk.root_keys("root")).is_ok());
    assert_eq!(&signed.record[..], std::fs::read(desk.path("next/rootset.bin")).unwrap());
    assert_eq!(signed.successor_signatures.signatures.len(), 2);
}

#[test]
fn holders_of_old_and_new_root_keys_sign_a_succession_in_any_order() {
    let desk = Desk::new();
    for holder in ["carl", "dora"] {
        desk.good(&format!("keygen {{{holder}}} --holder-only"));
    }
    desk.good("keygen {next} --join {carl/root.pub} --join {dora/root.pub} --threshold 2 --sequence 2");
    desk.bad(
        "keygen {twice} --join {carl/root.pub} --join {carl/root.pub} --threshold 1",
        64,
        "one key twice",
    );
    desk.bad("keygen {much} --join {carl/root.pub} --threshold 2", 64, "threshold");
    desk.bad("keygen {toy} --join {carl/root.pub} --threshold 1 --purpose test", 64, "release key");
    for holder in ["carl", "dora"] {
        std::fs::copy(desk.path("next/rootset.bin"), desk.path(holder).join("rootset.bin")).unwrap();
    }
    desk.bad("rootset --keys {root} --new {next} --sequence 2 --out {2.rootset}", 1, "no secret root key");
    desk.good("rootset --keys {root} --new {next} --sequence 2 --out {2.rootset} --partial");
    let root = desk.root_keys("root");
    desk.good("add-signature {2.rootset} --keys {dora}");
    assert!(verify_record(&read_record(&desk.path("2.rootset")).unwrap(), &root).is_err());
    desk.good("add-signature {2.rootset} --keys {carl}");
    assert!(verify_record(&read_record(&desk.path("2.rootset")).unwrap(), &root).is_ok());
}

#[test]
fn a_folder_of_trust_holds_what_its_records_say() {
    let desk = Desk::new();
    desk.holder("trust", &["rootset.bin"]);
    desk.good(&format!("{CERTIFY} --out {{trust/acme.cert}}"));
    desk.good("floors --keys {root} --sequence 1 --floor acme/x=3 --out {trust/1.floors}");
    let trust = Trust::load(&desk.path("trust")).unwrap();
    let (publisher, module) = parse_module("acme/x").unwrap();
    assert_eq!(trust.store.floor(&publisher, &module), 3);
    let id = sila_crypto::hash::key_id(
        1,
        super::public_key::PublicKeyFile::load(&desk.path("publisher/publisher.pub"))
            .unwrap()
            .key
            .bytes
            .as_slice(),
    );
    assert!(trust.certificate(&id).is_some_and(|held| held.path.ends_with("acme.cert")));
    assert!(!trust.is_revoked(&id));
    desk.good("revoke --keys {root} --sequence 1 --key {publisher/publisher.pub} --out {trust/1.revocation}");
    assert!(Trust::load(&desk.path("trust")).unwrap().is_revoked(&id));
    // A root set that takes the first one's place takes its certificates' place, too.
    desk.good("keygen {next} --root-only --sequence 2");
    desk.good("rootset --keys {root} --new {next} --sequence 2 --out {trust/2.rootset}");
    let error = format!("{:#}", Trust::load(&desk.path("trust")).err().unwrap());
    assert!(error.contains("is refused"), "{error}");
    for file in ["acme.cert", "1.floors", "1.revocation"] {
        std::fs::remove_file(desk.path("trust").join(file)).unwrap();
    }
    desk.good(&format!("{} --out {{trust/acme.cert}}", CERTIFY.replace("{root}", "{next}")));
    let trust = Trust::load(&desk.path("trust")).unwrap();
    assert_eq!((trust.root.set().sequence, trust.held.len()), (2, 2));
}

#[test]
fn a_folder_of_trust_refuses_records_that_are_not_what_they_seem() {
    let desk = Desk::new();
    desk.good("keygen {other} --root-only");
    desk.holder("trust", &["rootset.bin"]);
    desk.good(&format!("{} --out {{trust/foreign.cert}}", CERTIFY.replace("{root}", "{other}")));
    let refused = |part: &str| {
        let error = format!("{:#}", Trust::load(&desk.path("trust")).err().expect(part));
        assert!(error.contains(part), "{error}");
    };
    refused("foreign.cert is refused");
    std::fs::rename(desk.path("trust/foreign.cert"), desk.path("trust/foreign.revocation")).unwrap();
    refused("holds a certificate");
    std::fs::write(desk.path("trust/foreign.revocation"), "text").unwrap();
    refused("foreign.revocation");
    std::fs::remove_file(desk.path("trust/foreign.revocation")).unwrap();
    desk.good(&format!("{CERTIFY} --out {{trust/a.cert}}"));
    desk.good(&format!("{CERTIFY} --out {{trust/b.cert}}"));
    refused("not newer");
    std::fs::remove_file(desk.path("trust/b.cert")).unwrap();
    assert!(Trust::load(&desk.path("trust")).is_ok());
    std::fs::remove_file(desk.path("trust/rootset.bin")).unwrap();
    refused("rootset.bin");
}

#[test]
fn the_chain_of_a_record_is_shown_with_every_signature() {
    let desk = Desk::new();
    desk.holder("trust", &["rootset.bin"]);
    desk.good(&format!("{CERTIFY} --out {{trust/a.cert}}"));
    let trust = Trust::load(&desk.path("trust")).unwrap();
    let bytes = std::fs::read(desk.path("trust/a.cert")).unwrap();
    let report = inspect::inspect_chain(&bytes, &trust).unwrap();
    assert_eq!(report.broken, None, "{}", report.text);
    for part in
        ["2 of 3 keys", "root key 0   valid", "root key 1   valid", "certificate is good", "not revoked"]
    {
        assert!(report.text.contains(part), "{part:?} is missing in\n{}", report.text);
    }
    let mut spoilt = bytes.clone();
    let last = spoilt.len() - 10;
    spoilt[last] ^= 1;
    let report = inspect::inspect_chain(&spoilt, &trust).unwrap();
    assert!(report.text.contains("root key 0   valid") && report.text.contains("root key 1   INVALID"));
    assert!(report.broken.is_some_and(|rule| rule.starts_with("RecordSignature")));
}

#[test]
fn words_of_the_command_line_are_read_exactly() {
    assert!(parse_versions("1.2.3..1.2.3").is_ok());
    for bad in ["", "..", "1.0.0..", "1.0.0", "1.0.0...2.0.0", "1.0..2.0", "2.0.0..1.9.9"] {
        assert!(parse_versions(bad).is_err(), "{bad}");
    }
    for bad in ["", "/", "acme", "acme/", "/x", "acme/x/y", "Acme/x"] {
        assert!(parse_module(bad).is_err(), "{bad}");
    }
    assert_eq!(parse_floor("acme/x=7").unwrap().security_version, 7);
    for bad in ["acme/x", "acme/x=", "acme/x=4294967296", "acme/x= 1", "=1"] {
        assert!(parse_floor(bad).is_err(), "{bad}");
    }
}
