//! A publisher who is certified while the system runs, and whose key is revoked while it runs.
use super::{Files, Maker, line};
use anyhow::Result;
use boot::pkg::keys::full_ceiling;
use boot::pkg::policy::default_policy;
use libtest_mimic::Failed;
use sila_abi::policy::LoadScope;
use sila_abi::record::{Bounded, Name};
use sila_abi::trust::{Record, RecordKind, Revocation, RevokedItem, SignedRecord};
use sila_tests::tool::Ran;
use std::sync::OnceLock;

fn session() -> Result<&'static Ran, Failed> {
    static SESSION: OnceLock<Result<Ran, String>> = OnceLock::new();
    let run = || certified_and_revoked().map_err(|error| format!("{error:#}"));
    SESSION.get_or_init(run).as_ref().map_err(Failed::from)
}

fn certified_and_revoked() -> Result<Ran> {
    let (maker, files) = (Maker::new()?, Files::new()?);
    let mut guest = maker.keys.test_publisher("guest", &["guest"])?;
    guest.certificate.ceiling = full_ceiling()?;
    let sign = |sequence, item| -> Result<SignedRecord> {
        maker.keys.sign_record(RecordKind::Revocation, &Revocation { sequence, item })
    };
    files.put("module", &maker.package("guest.counter", "1.0.0", &guest)?)?;
    files.put("foreign", &maker.package("foreign", "1.0.0", &guest)?)?;
    let certificate = maker.keys.sign_record(RecordKind::Certificate, &guest.certificate)?;
    files.put("certificate", &certificate.encode()?)?;
    files.put("forged", &forged(certificate)?.encode()?)?;
    files.put("revocation", &sign(5, RevokedItem::Key(guest.key.id()))?.encode()?)?;
    files.put("stale", &sign(5, RevokedItem::Key([9; 32]))?.encode()?)?;
    let script = "!push %module; !push %foreign; load guest.counter; \
                  !push %forged; load guest.counter; !push %certificate; keys; \
                  load guest.counter; call guest.counter add 4; caps guest.counter; load foreign; \
                  !push %certificate; !push %revocation; keys; stop 7; load guest.counter; \
                  !push %stale; floors; policy; load counter";
    files.run(script, &[])
}

/// The same record with a byte of a signature flipped.
fn forged(mut record: SignedRecord) -> Result<SignedRecord> {
    let mut all: Vec<_> = record.signatures.signatures.iter().cloned().collect();
    if let Some(first) = all.first_mut() {
        let mut bytes = first.bytes.to_vec();
        bytes.iter_mut().take(1).for_each(|byte| *byte ^= 1);
        first.bytes = Bounded::from_vec(bytes).map_err(|_| anyhow::anyhow!("the signature grew"))?;
    }
    record.signatures.signatures =
        Bounded::from_vec(all).map_err(|_| anyhow::anyhow!("one more signature"))?;
    Ok(record)
}

fn load(ran: &Ran, at: usize) -> &str {
    let loads = ran.answers("load guest.counter");
    loads.get(at).and_then(|lines| lines.first()).copied().unwrap_or_default()
}

pub fn a_module_of_an_unknown_publisher_waits_for_the_certificate() -> Result<(), Failed> {
    let ran = session()?;
    ran.want(line(ran, "!push %module").contains("the depot keeps guest.counter 1.0.0"), "it is kept")?;
    let unknown = "signed with a key that the system does not know";
    ran.want(load(ran, 0).contains(unknown), "before the certificate it is refused")?;
    let said = line(ran, "!push %forged");
    ran.want(
        said.contains("the kernel refused the certificate") && said.contains("RecordSignature"),
        "forged",
    )?;
    ran.want(load(ran, 1).contains(unknown), "a forged certificate changes nothing")?;
    ran.want(
        line(ran, "!push %certificate").contains("the kernel took the certificate of sequence 1"),
        "taken",
    )?;
    ran.want(load(ran, 2).starts_with("guest.counter 1.0.0 by guest runs as process 7"), "then it loads")?;
    ran.want(line(ran, "call guest.counter add 4") == "guest/guest.counter: 4", "and answers")
}

pub fn what_the_certificate_does_not_cover_stays_refused() -> Result<(), Failed> {
    let ran = session()?;
    let foreign = line(ran, "load foreign");
    ran.want(
        foreign.contains("the publisher may not sign modules of this name"),
        "a name outside the prefixes",
    )?;
    let again = ran.answers("!push %certificate").pop().unwrap_or_default();
    ran.want(again.first().is_some_and(|said| said.contains("RecordStale")), "the same sequence once more")
}

pub fn a_pushed_revocation_ends_what_its_key_could_do() -> Result<(), Failed> {
    let ran = session()?;
    ran.want(
        line(ran, "!push %revocation").contains("the kernel took the revocation of sequence 5"),
        "taken",
    )?;
    ran.want(line(ran, "stop 7") == "process 7 has ended", "what runs can be stopped")?;
    ran.want(load(ran, 3).contains("the package is signed with a revoked key"), "the next load is refused")?;
    ran.want(line(ran, "!push %stale").contains("RecordStale"), "sequences rise")?;
    ran.want(line(ran, "load counter").contains("runs as process"), "others load as before")
}

pub fn keys_floors_and_policy_are_shown() -> Result<(), Failed> {
    let ran = session()?;
    let keys = ran.answers("keys");
    let shown = |at: usize, parts: &[&str]| {
        let lines = keys.get(at).map(Vec::as_slice).unwrap_or_default();
        lines.iter().any(|line| parts.iter().all(|part| line.contains(part)))
    };
    ran.want(shown(0, &["guest", "ML-DSA-87", "test", "valid"]), "the new publisher")?;
    ran.want(shown(0, &["root set 1 (test): 1 of 1 keys sign; 2 of 32"]), "the root set")?;
    ran.want(shown(1, &["guest", "revoked"]), "its key is revoked")?;
    ran.want(shown(1, &["key", "all that it signed"]), "the revocation is listed")?;
    ran.want(shown(1, &["process 7 runs on, though its key is revoked"]), "so is what runs under it")?;
    ran.want(line(ran, "floors") == "no module has a floor", "there are no floors")?;
    let policy = ran.printed("policy");
    for part in ["largest decompression window", "endpoint", "console", "processes made in a Job"] {
        ran.want(policy.iter().any(|line| line.starts_with(part)), &format!("policy should show {part}"))?;
    }
    let caps = ran.printed("caps guest.counter");
    let given = |line: &&str| line.contains("Endpoint") && line.contains(" endpoint ");
    ran.want(caps.iter().any(given), "caps should name the rule")
}

fn policies() -> Result<Ran> {
    let (maker, files) = (Maker::new()?, Files::new()?);
    let mut policy = default_policy()?;
    policy.sequence = 2;
    let narrow = |scope: &LoadScope| LoadScope { names: Name::new("counter").ok(), ..*scope };
    let scopes: Vec<LoadScope> = policy.scopes.iter().map(narrow).collect();
    policy.scopes = Bounded::from_vec(scopes).map_err(|_| anyhow::anyhow!("one more scope"))?;
    files.put("narrow", &maker.keys.sign_record(RecordKind::Policy, &policy)?.encode()?)?;
    policy.sequence = 3;
    policy.max_window_log = 10;
    files.put("tight", &maker.keys.sign_record(RecordKind::Policy, &policy)?.encode()?)?;
    files.put("two", &maker.own("counter.two", "1.0.0")?)?;
    let script = "load wasm; stop 7; !push %narrow; policy; load wasm; load counter; stop 8; \
                  !push %tight; !push %two; load counter.two; load counter; !push %narrow";
    files.run(script, &[])
}

pub fn a_pushed_policy_holds_for_the_next_load() -> Result<(), Failed> {
    let ran = policies().map_err(|error| format!("{error:#}"))?;
    ran.want(line(&ran, "load wasm").contains("runs as process 7"), "at first it loads")?;
    ran.want(line(&ran, "!push %narrow").contains("the kernel took the policy of sequence 2"), "taken")?;
    let shown = ran.printed("policy");
    ran.want(shown.iter().any(|line| line.starts_with("sequence") && line.ends_with(" 2")), "it is shown")?;
    let second = ran.answers("load wasm").pop().unwrap_or_default();
    let outside = "the requester may not load a module of this name";
    ran.want(second.first().is_some_and(|line| line.contains(outside)), "the scope is narrower")?;
    let counters = ran.answers("load counter");
    let said = |at: usize| counters.get(at).and_then(|lines| lines.first()).copied().unwrap_or_default();
    ran.want(said(0).contains("runs as process 8"), "and covers what it names")?;
    ran.want(line(&ran, "!push %tight").contains("policy of sequence 3"), "the next one")?;
    let two = line(&ran, "load counter.two");
    ran.want(two.contains("window is larger than the limit"), "DeepCompression keeps to it")?;
    ran.want(said(1).contains("runs as process"), "what is cached needs no decompression")?;
    let stale = ran.answers("!push %narrow").pop().unwrap_or_default();
    ran.want(stale.first().is_some_and(|line| line.contains("RecordStale")), "sequences rise")
}
