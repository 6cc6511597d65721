//! Records that root keys sign: certificates, revocations, successors of the root set, policies, floors.
//!
//! A record is checked as the system would check it before it is written, and no file is ever overwritten.

use super::description::{object_type, rights, version};
use super::keys::{list, name, write_new};
use super::roots::{RootFolder, Standing};
use super::trust::ending;
use super::{read, read_text};
use crate::missing::Usage;
use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;
use sila_abi::boot::Floor;
use sila_abi::record::{Name, VersionRange};
use sila_abi::rights::Rights;
use sila_abi::trust::{Ceiling, FloorRecord, Record, RecordKind, SignedRecord, TypeCeiling};
use sila_crypto::chain::{RootKeys, verify_record};
use std::path::{Path, PathBuf};

/// A ceiling as it is written: what a publisher's modules may ask for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CeilingText {
    frames: u64,
    object_bytes: u64,
    max_priority: u8,
    #[serde(default)]
    agents: bool,
    #[serde(default, rename = "type")]
    types: Vec<TypeText>,
}

/// `[[type]]`: the most rights of one object type.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TypeText {
    object: String,
    rights: Vec<String>,
}

/// Reads a ceiling.
pub fn read_ceiling(path: &Path) -> Result<Ceiling> {
    parse_ceiling(&read_text(path)?).with_context(|| format!("in {}", path.display()))
}

fn parse_ceiling(text: &str) -> Result<Ceiling> {
    let text: CeilingText = toml::from_str(text)?;
    let types = text.types.iter().map(TypeText::to_ceiling).collect::<Result<Vec<_>>>()?;
    Ok(Ceiling {
        types: list(types, "types")?,
        frames: text.frames,
        object_bytes: text.object_bytes,
        max_priority: text.max_priority,
        agents: text.agents,
    })
}

impl TypeText {
    fn to_ceiling(&self) -> Result<TypeCeiling> {
        let all = self.rights.iter().any(|text| text == "ALL");
        let rights = if all { Rights::USE.bits() } else { rights(&self.rights)? };
        Ok(TypeCeiling { object: object_type(&self.object)? as u8, rights })
    }
}

/// A range of versions: `LOW..HIGH`, both included.
pub fn parse_versions(text: &str) -> Result<VersionRange> {
    let ends = text.split_once("..").with_context(|| format!("{text:?} is no range (want LOW..HIGH)"))?;
    let versions = VersionRange { min: version(ends.0)?, max: version(ends.1)? };
    if !versions.is_ordered() {
        bail!("the range {text} holds no version");
    }
    Ok(versions)
}

/// A module: `PUBLISHER/NAME`.
pub fn parse_module(text: &str) -> Result<(Name, Name)> {
    let parts =
        text.split_once('/').with_context(|| format!("{text:?} is no module (want PUBLISHER/NAME)"))?;
    Ok((name(parts.0)?, name(parts.1)?))
}

/// A floor: `PUBLISHER/NAME=SECURITY_VERSION`.
pub fn parse_floor(text: &str) -> Result<Floor> {
    let wrong = || format!("{text:?} is no floor (want PUBLISHER/NAME=SECURITY_VERSION)");
    let (module, number) = text.split_once('=').with_context(wrong)?;
    let (publisher, name) = parse_module(module)?;
    Ok(Floor { publisher, name, security_version: number.parse().ok().with_context(wrong)? })
}

/// Writes a floor record without signatures to the new file `out`.
pub fn export_floors(record: &FloorRecord, out: &Path) -> Result<()> {
    check_out(out, RecordKind::Floors)?;
    let bytes = record.encode().map_err(|e| Usage(format!("the floor record: {e}")))?;
    write_new(out, 0o644, &bytes)
}

/// Signs `record` with the keys of `folder` and writes it to the new file `out`.
///
/// Without `partial` it must come out complete. A complete record is one that a system with this root set takes.
pub fn issue<T: Record>(
    folder: &RootFolder,
    kind: RecordKind,
    record: &T,
    out: &Path,
    partial: bool,
) -> Result<Standing> {
    check_out(out, kind)?;
    record.validate().map_err(|e| Usage(format!("the {}: {e}", kind.name())))?;
    let signed = folder.sign(kind, record)?;
    finish(folder, &signed, out, partial)
}

/// Writes a signed record to a new file.
pub fn finish(folder: &RootFolder, signed: &SignedRecord, out: &Path, partial: bool) -> Result<Standing> {
    let standing = check(folder, signed, partial)?;
    write_new(out, 0o644, &signed.encode().map_err(|e| anyhow!("{e}"))?)?;
    Ok(standing)
}

/// Refuses a record that its own root would not take, or that lacks signatures while that is not meant to be.
fn check(folder: &RootFolder, signed: &SignedRecord, partial: bool) -> Result<Standing> {
    let standing = folder.standing(signed);
    match verify_record(signed, &folder.root()?) {
        Ok(_) => Ok(standing),
        Err(error) if is_short_of_signatures(error) && partial => Ok(standing),
        Err(error) if is_short_of_signatures(error) => bail!(
            "the {} would be refused: {error}; with --partial it is written for others to add their signatures",
            signed.kind.name()
        ),
        Err(error) => bail!("the {} would be refused: {error}", signed.kind.name()),
    }
}

fn is_short_of_signatures(error: sila_crypto::ChainError) -> bool {
    use sila_crypto::ChainError::{SuccessorThreshold, Threshold};
    matches!(error, Threshold | SuccessorThreshold)
}

/// Refuses an output file that exists, or whose ending speaks of another kind of record.
pub fn check_out(out: &Path, kind: RecordKind) -> Result<()> {
    let wanted = ending(kind);
    if out.extension().is_none_or(|ending| ending != wanted) {
        bail!(Usage(format!("{}: the name of a {} ends in .{wanted}", out.display(), kind.name())));
    }
    if out.symlink_metadata().is_ok() {
        bail!(Usage(format!("{} exists; records are never overwritten", out.display())));
    }
    Ok(())
}

/// The successor of a root set, signed by both sides as far as their keys are at hand.
pub fn succeed(old: &RootFolder, new: &NewRoot, out: &Path, partial: bool) -> Result<Standing> {
    check_out(out, RecordKind::RootSet)?;
    let mut signed = old.sign(RecordKind::RootSet, &new.set)?;
    if let Some(folder) = &new.folder {
        folder.cosign(&mut signed)?;
    }
    finish(old, &signed, out, partial)
}

/// A root set that is to take the place of another; its secret keys may be elsewhere.
pub struct NewRoot {
    set: sila_abi::trust::RootSet,
    folder: Option<RootFolder>,
}

impl NewRoot {
    /// Reads a root's folder.
    pub fn load(dir: &Path, partial: bool) -> Result<Self> {
        let encoded = read(&dir.join("rootset.bin"))?;
        let root =
            RootKeys::decode(&encoded).map_err(|e| anyhow!("{}: {e}", dir.join("rootset.bin").display()))?;
        let folder = match RootFolder::load(dir) {
            Ok(folder) => Some(folder),
            Err(_) if partial => None,
            Err(error) => return Err(error),
        };
        Ok(Self { set: root.set().clone(), folder })
    }

    /// Its sequence.
    pub fn sequence(&self) -> u64 {
        self.set.sequence
    }
}

/// Adds the signatures of `folder` to the record in `path`, in place: a file with all of them takes its place at once.
pub fn add_signatures(folder: &RootFolder, path: &Path) -> Result<(SignedRecord, usize)> {
    let mut signed = super::trust::read_record(path)?;
    let verdicts = super::chain_view::all_signatures(&signed, &folder.set)?;
    if verdicts.iter().any(|(_, verdict)| *verdict != super::chain_view::Verdict::Valid) {
        bail!("{} has a signature that this root set does not know as valid", path.display());
    }
    let added = folder.cosign(&mut signed)?;
    if added == 0 {
        bail!("{} has the signatures of all keys of this folder already", path.display());
    }
    replace(path, &signed.encode().map_err(|e| anyhow!("{e}"))?)?;
    Ok((signed, added))
}

/// Puts new content in the place of a file, whole or not at all.
fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".{}", std::process::id()));
    let aside = PathBuf::from(aside);
    write_new(&aside, 0o644, bytes)?;
    std::fs::rename(&aside, path).with_context(|| format!("cannot replace {}", path.display()))
}
