//! Floors that rose while a system ran, read off it over the link and put into the next boot bundle.
use super::{Files, Maker, line};
use anyhow::{Context, Result};
use libtest_mimic::Failed;
use sila_abi::boot::Floor;
use sila_abi::record::{Bounded, Name};
use sila_abi::trust::{FloorRecord, Record, RecordKind};
use sila_tests::tool::Ran;

/// A floor for a module of the system's own publisher.
fn floor(name: &str, security_version: u32) -> Result<Floor> {
    let named = |text| Name::new(text).map_err(|_| anyhow::anyhow!("{text} is no name"));
    Ok(Floor { publisher: named("sila")?, name: named(name)?, security_version })
}

fn sessions() -> Result<(Ran, FloorRecord, Ran)> {
    let (maker, files) = (Maker::new()?, Files::new()?);
    let security_version = maker.description.module.security_version;
    let floors = vec![floor("counter", security_version)?, floor("nobody", 9)?];
    let floors = Bounded::from_vec(floors).map_err(|_| anyhow::anyhow!("two floors are too many"))?;
    let record = maker.keys.sign_record(RecordKind::Floors, &FloorRecord { sequence: 5, floors })?;
    files.put("floors", &record.encode()?)?;
    let script = "!export-floors %none.floors; !push %floors; floors; !export-floors %out.floors; !export-floors %out.floors";
    let first = files.run(script, &[])?;
    let exported = std::fs::read(files.0.join("out.floors")).context("nothing was exported")?;
    let exported = FloorRecord::decode(&exported).context("what was exported is no floor record")?;
    let out = files.0.join("out.floors").display().to_string();
    let second = files.run("floors; load counter", &["--add-record", &out])?;
    Ok((first, exported, second))
}

pub fn floors_are_read_off_a_running_system_and_hold_in_the_next() -> Result<(), Failed> {
    let (first, exported, second) = sessions().map_err(|error| format!("{error:#}"))?;
    let nothing = line(&first, "!export-floors %none.floors");
    first.want(nothing.contains("the system has no floors"), "at first there is nothing to export")?;
    first.want(line(&first, "!push %floors").contains("the kernel took the floor"), "taken")?;
    let outs = first.answers("!export-floors %out.floors");
    let said = |at: usize| outs.get(at).and_then(|lines| lines.first()).copied().unwrap_or_default();
    first.want(said(0).contains("wrote 2 floors without signatures"), "exported")?;
    first.want(said(1).contains("exists"), "nothing is overwritten")?;
    first.want(exported.sequence == 6 && exported.floors.len() == 2, "what the record holds")?;
    let text = second.printed("floors");
    let shown = |parts: &[&str]| text.iter().any(|line| parts.iter().all(|part| line.contains(part)));
    second.want(shown(&["counter", "imported at boot"]), "the floor holds in the next system")?;
    second.want(!shown(&["nobody", "9"]), "but not above what the bundle has")?;
    second.want(line(&second, "load counter").contains("runs as process"), "which loads")
}
