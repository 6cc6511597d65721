//! What `inspect` shows a reviewer, and that it shows what is wrong.

use super::description::ModuleDescription;
use super::grants::Yardstick;
use super::inspect::{View, inspect, inspect_chain};
use super::keys::PublisherKey;
use super::pack;
use super::policy::PolicySection;
use super::tests::{KEYS, image};
use super::trust::Trust;
use crate::paths::Scratch;
use sila_abi::record::VersionRange;
use sila_abi::trust::{Certificate, Record, RecordKind, Revocation, RevokedItem};

const DESCRIPTION: &str = r#"
[module]
name = "acme.show"
version = "1.2.3"
security_version = 4
kind = "service"
publisher = "acme"
stack_pages = 8
init_deadline_ms = 1500
prepare_deadline_ms = 700
state_schema = 3
flags = ["pin-hint"]

[resources]
frames = 256
object_bytes = 65536
max_priority = 100
threads = 2

[service]
name = "acme.show"
durable = true

[[request]]
slot = 3
object = "Pool"
own = "pool"
rights = ["READ", "CREATE"]

[[request]]
slot = 9
object = "Notification"
grant = "wake"
rights = ["SEND"]
badge = 7

[[request]]
slot = 10
object = "SystemControl"
grant = "system"
rights = ["WRITE"]
optional = true

[[request]]
slot = 11
object = "Region"
grant = "data"
rights = ["READ"]
amount = 8192

[[dependency]]
publisher = "sila"
name = "counter"
min = "0.1.0"
max = "0.9.9"

[contract]
init_failure_codes = [3, 5]
nodes = ["fact frames", "const 256", "le 0 1", "fact threads", "eq 3 1", "or 2 4"]

[[contract.predicate]]
name = "small-enough"
operation = "create"
when = "before"
root = 5
"#;

fn description() -> ModuleDescription {
    ModuleDescription::parse(DESCRIPTION).unwrap()
}

/// A folder of trust with the root set, `sila`, and `acme` with every right.
struct Desk {
    scratch: Scratch,
    acme: PublisherKey,
}

impl Desk {
    fn new() -> Self {
        let scratch = Scratch::new().unwrap();
        KEYS.save(&scratch.join("trust")).unwrap();
        let PublisherKey { key, certificate } = KEYS.test_publisher("acme", &["acme"]).unwrap();
        let ceiling = KEYS.publisher.certificate.ceiling.clone();
        let certificate = Certificate { ceiling, versions: VersionRange::ALL, ..certificate };
        let this = Self { scratch, acme: PublisherKey { key, certificate } };
        this.add(RecordKind::Certificate, &this.acme.certificate, "acme.cert");
        this
    }

    fn add<T: Record>(&self, kind: RecordKind, record: &T, file: &str) {
        let bytes = KEYS.sign_record(kind, record).unwrap().encode().unwrap();
        std::fs::write(self.scratch.join("trust").join(file), bytes).unwrap();
    }

    fn trust(&self) -> Trust {
        Trust::load(&self.scratch.join("trust")).unwrap()
    }

    fn package(&self) -> Vec<u8> {
        pack::pack(&description(), &image(), &self.acme).unwrap()
    }
}

fn shown(bytes: &[u8], trust: Option<&Trust>) -> String {
    let yardstick = Yardstick::choose(None, trust).unwrap();
    inspect(bytes, &View { trust, yardstick: &yardstick }).unwrap()
}

#[track_caller]
fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
}

#[test]
fn everything_that_a_reviewer_wants_is_shown() {
    let desk = Desk::new();
    let text = shown(&desk.package(), Some(&desk.trust()));
    has(
        &text,
        &[
            "acme.show 1.2.3 (Service) by acme",
            "security       4",
            "deadlines      init 1500 ms, prepare 700 ms",
            "256 frames, 65536 object bytes, priority 100, 2 threads, 8 stack pages",
            "flags          PIN_HINT",
            "service        acme.show (durable)",
            "state schema   3",
            "dependency     sila/counter, versions 0.1.0 to 0.9.9",
            "certified      for acme, sequence 1, purpose test",
            "ML-DSA-87",
            "signature      package: valid",
            "signature      manifest: valid",
            "signature      binary: valid",
            "slot 3: Pool from its own Pool, READ+CREATE, mandatory",
            "slot 9: Notification from grant wake, SEND, badge 0x7, mandatory",
            "slot 11: Region from grant data, READ, amount 8192, mandatory",
            "segment        RX 0x000000201000..",
            "init fails   with 3, 5",
            "small-enough before a process is created: frames <= 256 or threads = 256",
        ],
    );
}

#[test]
fn the_policys_verdict_stands_beside_every_request() {
    let desk = Desk::new();
    let text = shown(&desk.package(), None);
    has(
        &text,
        &[
            "policy         the default (sequence 1)",
            "slot 3       Pool READ+CREATE, amount 256: granted by rule `pool`",
            "slot 10      SystemControl WRITE: REFUSED: no rule is for this module and type, so it runs without",
            "slot 11      Region READ, amount 8192: granted by rule `region`",
        ],
    );
    let manifest = description().to_manifest().unwrap();
    assert!(super::grants::refusals(&manifest, &super::policy::default_policy().unwrap()).is_empty());
    let strict = "sequence = 9\n\
        [[rule]]\nname = \"few\"\nobject = \"Region\"\nrights = [\"ALL\"]\namount = 4096\n\
        [[rule]]\nname = \"watch\"\nobject = \"Notification\"\nrights = [\"RECV\"]\n\
        [[rule]]\nname = \"mine\"\npublisher = \"acme\"\nmodule = \"acme\"\nobject = \"Pool\"\nrights = [\"ALL\"]\n";
    let policy = toml::from_str::<PolicySection>(strict).unwrap().to_policy().unwrap();
    let refused = super::grants::refusals(&manifest, &policy);
    assert_eq!(refused.len(), 2, "{refused:?}");
    assert!(refused[0].starts_with("slot 9, Notification SEND: REFUSED: rule `watch`"), "{refused:?}");
    let yardstick = Yardstick { policy, source: "strict.toml".into() };
    let text = inspect(&desk.package(), &View { trust: None, yardstick: &yardstick }).unwrap();
    has(
        &text,
        &[
            "policy         strict.toml (sequence 9)",
            "granted by rule `mine`",
            "REFUSED: rule `watch` does not give all these rights, so the module does not load",
            "REFUSED: rule `few` gives 4096 at most, so the module does not load",
        ],
    );
}

#[test]
fn policies_come_from_a_text_a_record_or_the_folder_of_trust() {
    let desk = Desk::new();
    let text = desk.scratch.join("p.toml");
    std::fs::write(&text, "[policy]\nsequence = 8\n").unwrap();
    assert_eq!(Yardstick::choose(Some(&text), None).unwrap().policy.sequence, 8);
    let section = toml::from_str::<PolicySection>("sequence = 12").unwrap();
    desk.add(RecordKind::Policy, &section.to_policy().unwrap(), "p.policy");
    let record = desk.scratch.join("trust/p.policy");
    assert_eq!(Yardstick::choose(Some(&record), None).unwrap().policy.sequence, 12);
    assert_eq!(Yardstick::choose(None, Some(&desk.trust())).unwrap().policy.sequence, 12);
    assert_eq!(Yardstick::choose(Some(&text), Some(&desk.trust())).unwrap().policy.sequence, 8);
    for (bad, text) in
        [("a.toml", "[policy]\nx = 1"), ("b.toml", "[policy]\nmax_verifications = 0"), ("c.policy", "no")]
    {
        let path = desk.scratch.join(bad);
        std::fs::write(&path, text).unwrap();
        assert!(Yardstick::choose(Some(&path), None).is_err(), "{bad}");
    }
    std::fs::copy(desk.scratch.join("trust/acme.cert"), desk.scratch.join("d.policy")).unwrap();
    let error = Yardstick::choose(Some(&desk.scratch.join("d.policy")), None).err().unwrap();
    assert!(error.to_string().contains("holds a certificate"), "{error}");
}

#[test]
fn each_damaged_signature_is_named_and_unknown_keys_are_not_called_valid() {
    let desk = Desk::new();
    let (package, trust) = (desk.package(), desk.trust());
    let sig = 4627;
    for (from_end, what) in [(3, "package"), (2, "manifest"), (1, "binary")] {
        let mut bytes = package.clone();
        let at = bytes.len() - from_end * sig + 100;
        bytes[at] ^= 1;
        let text = shown(&bytes, Some(&trust));
        has(&text, &[&format!("signature      {what}: INVALID")]);
        assert_eq!(text.matches("INVALID").count(), 1, "{text}");
        let report = inspect_chain(&bytes, &trust).unwrap();
        let rule = format!("{}{}Signature", what[..1].to_uppercase(), &what[1..]);
        assert_eq!(report.broken.as_deref(), Some(rule.as_str()), "{}", report.text);
        has(&report.text, &["INVALID", "REFUSED by"]);
    }
    let text = shown(&package, None);
    assert_eq!(text.matches("not checked: no key").count(), 3, "{text}");
    has(&text, &["certified      by nobody known here"]);
}

#[test]
fn the_chain_of_a_good_package_holds_link_by_link() {
    let desk = Desk::new();
    let report = inspect_chain(&desk.package(), &desk.trust()).unwrap();
    assert_eq!(report.broken, None, "{}", report.text);
    has(
        &report.text,
        &[
            "root set       sequence 1, purpose test, 2 of 3 keys must sign",
            "trusted as it is found",
            "acme.cert): ok",
            "root key 0   valid",
            "revoked      ok",
            "authority      ok",
            "verdict        acme.show 1.2.3 by acme is good",
        ],
    );
}

#[test]
fn the_chain_names_the_rule_that_breaks_it() {
    let desk = Desk::new();
    let package = desk.package();
    let broken = |rule: &str, part: &str| {
        let report = inspect_chain(&package, &desk.trust()).unwrap();
        assert!(report.broken.as_deref().is_some_and(|text| text.starts_with(rule)), "{}", report.text);
        has(&report.text, &[part]);
    };
    let floors = sila_abi::trust::FloorRecord {
        sequence: 1,
        floors: super::keys::list(vec![super::ceremony::parse_floor("acme/acme.show=5").unwrap()], "floors")
            .unwrap(),
    };
    desk.add(RecordKind::Floors, &floors, "1.floors");
    broken("BelowFloor", "authority      REFUSED by BelowFloor");
    std::fs::remove_file(desk.scratch.join("trust/1.floors")).unwrap();
    let revoke = |sequence, item| {
        desk.add(RecordKind::Revocation, &Revocation { sequence, item }, &format!("{sequence}.revocation"));
    };
    let (publisher, name) = super::ceremony::parse_module("acme/acme.show").unwrap();
    revoke(1, RevokedItem::Module { publisher, name, versions: VersionRange::ALL });
    broken("VersionRevoked", "this version of the module is revoked");
    revoke(2, RevokedItem::Key(desk.acme.key.id()));
    broken("KeyRevoked", "revoked      REFUSED by KeyRevoked");
    for file in ["1.revocation", "2.revocation", "acme.cert"] {
        std::fs::remove_file(desk.scratch.join("trust").join(file)).unwrap();
    }
    broken("UnknownKey", "certificate    REFUSED by UnknownKey");
    let report = inspect_chain(&package[..package.len() - 1], &desk.trust()).err();
    assert!(report.is_none(), "a truncated package is a broken chain, not a crash");
}

#[test]
fn records_of_every_kind_are_shown_in_words() {
    let desk = Desk::new();
    let (publisher, name) = super::ceremony::parse_module("acme/acme.show").unwrap();
    let item = RevokedItem::Module { publisher, name, versions: VersionRange::ALL };
    desk.add(RecordKind::Revocation, &Revocation { sequence: 6, item }, "r.revocation");
    let policy = super::policy::default_policy().unwrap();
    desk.add(RecordKind::Policy, &policy, "p.policy");
    for (file, parts) in [
        (
            "acme.cert",
            &["certificate    acme, sequence 1", "names        acme", "signed         by root key 1"][..],
        ),
        ("r.revocation", &["revocation     sequence 6: acme/acme.show, versions all"]),
        (
            "p.policy",
            &[
                "policy         sequence 1",
                "rule         pool: publisher any",
                "scope        console (badge 1)",
            ],
        ),
        ("rootset.bin", &["2 of 3 keys must sign", "key 2", "trusts where it came from"]),
    ] {
        has(&shown(&std::fs::read(desk.scratch.join("trust").join(file)).unwrap(), None), parts);
    }
    let yardstick = Yardstick::choose(None, None).unwrap();
    for nothing in [&b""[..], b"something", &[1; 300]] {
        assert!(inspect(nothing, &View { trust: None, yardstick: &yardstick }).is_err());
    }
}
