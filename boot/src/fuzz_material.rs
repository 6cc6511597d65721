//! What the fuzzer's managers load: images, load proofs good and bad, and records for the KeyRing.

use crate::paths;
use crate::pkg::description::ModuleDescription;
use crate::pkg::keys::{KeySet, PublisherKey, name};
use crate::pkg::pack::{Parts, manifest};
use crate::pkg::sif_build::{self, SegmentInput, elf_to_sif};
use anyhow::{Result, anyhow};
use sila_abi::boot::Floor;
use sila_abi::manifest::Codec;
use sila_abi::record::Bounded;
use sila_abi::sif::Perm;
use sila_abi::trust::{Certificate, FloorRecord, Record, RecordKind, Revocation, RevokedItem};

/// Where the code of the modules lies.
const CODE: u64 = 0x20_0000;
/// How many records there are, of every kind in turn.
const RECORDS: u64 = 64;
/// The sequence before that of the first record.
const BEFORE: u64 = 2000;

/// Who signs a module.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Sila,
    Other,
    Revoked,
    Ample,
    Nobody,
}

/// A module: which image, who signs it, name, version, security version, and what else its description says.
struct Module(usize, By, &'static str, &'static str, u32, &'static str);

/// A request for a Region or another capability of the creator.
macro_rules! request {
    ($slot:literal, $object:literal, $grant:literal, $rights:literal, $more:literal) => {
        concat!(
            "[[request]]\nslot = ",
            $slot,
            "\nobject = \"",
            $object,
            "\"\ngrant = \"",
            $grant,
            "\"\nrights = [",
            $rights,
            "]\n",
            $more,
            "\n"
        )
    };
}

const OWN: &str =
    "[[request]]\nslot = 3\nobject = \"Pool\"\nown = \"pool\"\nrights = [\"READ\", \"CREATE\"]\n";
const LINK: &str = request!(8, "Endpoint", "link", "\"SEND\", \"GRANT\"", "badge = 5");
const MAY_LINK: &str = request!(8, "Endpoint", "link", "\"SEND\", \"GRANT\"", "badge = 5\noptional = true");
const CLOCK: &str = request!(5, "Clock", "clock", "\"READ\"", "optional = true");
const MEMORY: &str = request!(9, "Region", "memory", "\"READ\"", "amount = 8192\noptional = true");
const RING: &str = request!(10, "KeyRing", "ring", "\"READ\"", "optional = true");
const MUST_RING: &str = request!(10, "KeyRing", "ring", "\"READ\"", "");

const MODULES: &[Module] = &[
    Module(0, By::Sila, "alpha", "1.0.0", 1, "own may-link clock memory ring"),
    Module(0, By::Sila, "alpha", "1.1.0", 2, "own link clock memory ring"),
    Module(1, By::Sila, "alpha", "1.0.0", 1, "own"),
    Module(1, By::Sila, "beta", "1.0.0", 3, "own link clock memory service"),
    Module(2, By::Sila, "beta", "2.0.0", 4, "own may-link service"),
    Module(0, By::Sila, "gamma", "1.0.0", 4, "own"),
    Module(0, By::Sila, "gamma", "1.1.0", 5, "own"),
    Module(0, By::Sila, "delta", "1.0.0", 1, "own"),
    Module(1, By::Sila, "epsilon", "1.0.0", 1, "own may-link"),
    Module(1, By::Sila, "epsilon", "2.0.0", 3, "own link"),
    Module(1, By::Sila, "epsilon", "3.0.0", 8, "own link clock"),
    Module(0, By::Other, "other.good", "1.0.0", 1, "own"),
    Module(0, By::Other, "other.greedy", "1.0.0", 1, "own link"),
    Module(0, By::Other, "elsewhere", "1.0.0", 1, "own"),
    Module(0, By::Revoked, "revoked.good", "1.0.0", 1, "own"),
    Module(0, By::Ample, "ample.must", "1.0.0", 1, "own may-link clock memory must-ring"),
    Module(0, By::Ample, "ample.may", "1.0.0", 1, "own may-link clock memory ring"),
    Module(0, By::Nobody, "nobody.good", "1.0.0", 1, "own"),
];

impl Module {
    fn description(&self) -> Result<ModuleDescription> {
        let Self(_, _, name, version, security_version, more) = self;
        let mut text = format!(
            "[module]\nname = {name:?}\nversion = {version:?}\nsecurity_version = {security_version}\n\
             kind = \"service\"\nstack_pages = 1\n[resources]\nframes = 48\nobject_bytes = 8192\n\
             max_priority = 100\nthreads = 1\n"
        );
        if more.contains("service") {
            text.push_str(&format!("[service]\nname = {name:?}\ndurable = true\n"));
        }
        for word in more.split(' ') {
            text.push_str(match word {
                "own" => OWN,
                "link" => LINK,
                "may-link" => MAY_LINK,
                "clock" => CLOCK,
                "memory" => MEMORY,
                "ring" => RING,
                "must-ring" => MUST_RING,
                _ => "",
            });
        }
        Ok(toml::from_str(&text)?)
    }
}

/// Three images: two of one size, one of which runs for ever, and a larger one.
fn images() -> Result<[Vec<u8>; 3]> {
    let code = |data: Vec<u8>| SegmentInput { vaddr: CODE, mem_len: data.len() as u64, perm: Perm::RX, data };
    let wide = code([vec![0x0f, 0x0b], vec![0x90; 5000]].concat());
    Ok([
        sif_build::build(CODE, &[code(vec![0x0f, 0x0b])])?,
        sif_build::build(CODE, &[code(vec![0xeb, 0xfe])])?,
        sif_build::build(CODE, &[wide])?,
    ])
}

/// All of it, and the proof of the managers themselves, whose program is this.
pub fn test_data(elf: &[u8], keys: &KeySet) -> Result<Vec<(String, Vec<u8>)>> {
    let mut data = Vec::new();
    let image = elf_to_sif(elf)?;
    let description = ModuleDescription::load(&paths::root()?.join("modules/fuzz/manager.toml"))?;
    let own = manifest(&description, &image, &image, Codec::None, &keys.publisher)?;
    data.push((fuzz::MANAGER_PROOF.into(), Parts::sign(&own, &image, &keys.publisher.key)?.proof()?));
    let images = images()?;
    for (at, module) in MODULES.iter().enumerate() {
        data.push((format!("{}.{at}", fuzz::MADE_PROOFS), proof(module, &images, keys)?));
    }
    for (at, image) in images.into_iter().enumerate() {
        data.push((format!("{}.{at}", fuzz::MADE_IMAGES), image));
    }
    for at in 0..RECORDS {
        data.push((format!("{}.{at}", fuzz::MADE_RECORDS), record(at, keys)?));
    }
    Ok(data)
}

/// The number of its image, and the load proof.
fn proof(module: &Module, images: &[Vec<u8>; 3], keys: &KeySet) -> Result<Vec<u8>> {
    let Module(image, by, ..) = module;
    let bytes = images.get(*image).ok_or_else(|| anyhow!("there is no image {image}"))?;
    let made = match by {
        By::Sila => None,
        By::Other => Some(keys.test_publisher("other", &["other"])?),
        By::Revoked => Some(keys.test_publisher("revoked", &["revoked"])?),
        By::Ample => Some(keys.ample(keys.test_publisher("ample", &["ample"])?)),
        By::Nobody => Some(keys.test_publisher("nobody", &["nobody"])?),
    };
    let publisher: &PublisherKey = made.as_ref().unwrap_or(&keys.publisher);
    let manifest = manifest(&module.description()?, bytes, bytes, Codec::None, publisher)?;
    let proof = Parts::sign(&manifest, bytes, &publisher.key)?.proof()?;
    Ok([&(*image as u64).to_le_bytes()[..], &proof].concat())
}

/// Floors for the most part, some of which would lower one; now and then a revocation or a new certificate.
fn record(at: u64, keys: &KeySet) -> Result<Vec<u8>> {
    let sequence = BEFORE + at;
    let signed = match at % 4 {
        2 => {
            let item = RevokedItem::Key([at as u8 + 100; 32]);
            keys.sign_record(RecordKind::Revocation, &Revocation { sequence, item })?
        }
        3 => {
            let other = keys.test_publisher("other", &["other"])?.certificate;
            keys.sign_record(RecordKind::Certificate, &Certificate { sequence, ..other })?
        }
        even => {
            let rising = u32::try_from(at / 8)?.min(7);
            let security_version = if even == 1 { rising / 2 } else { rising + 1 };
            let floor = Floor { publisher: name("sila")?, name: name("epsilon")?, security_version };
            let floors = Bounded::from_vec(vec![floor]).map_err(|_| anyhow!("one floor is too many"))?;
            keys.sign_record(RecordKind::Floors, &FloorRecord { sequence, floors })?
        }
    };
    Ok(signed.encode()?)
}
