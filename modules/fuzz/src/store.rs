//! What managers load: images, proofs, records, whole or spoilt.

use crate::judge::Judge;
use crate::kernel::{KEYS, Reason, works};
use alloc::format;
use alloc::vec::Vec;
use fuzz::manage::{Flaw, Kind, Made, Stock};
use fuzz::random::Random;
use fuzz::{MADE_IMAGES, MADE_PROOFS, MADE_RECORDS, MANAGER_PROOF};
use sila_abi::boot::{Bundle, EntryKind};
use sila_abi::manifest::Manifest;
use sila_abi::package::LoadProof;
use sila_abi::record::Name;
use sila_abi::{Error, Rights};
use sila_rt::memory::OwnRegion;
use sila_rt::op;
use sila_rt::slots::{OwnedSlot, make};

/// The most bits that are flipped in one piece.
const FLIPS: u64 = 3;

/// Bytes of a piece that count as its header.
const HEADER: usize = 64;

/// A piece as it was signed, and a frozen Region with it.
struct Piece {
    bytes: Vec<u8>,
    region: OwnedSlot,
}

/// All pieces.
pub struct Store {
    images: Vec<Piece>,
    proofs: Vec<Piece>,
    records: Vec<Piece>,
    image_of: Vec<usize>,
    requests: Vec<usize>,
    lengths: Vec<u64>,
    manifests: Vec<Manifest>,
    active: Manifest,
    current: usize,
}

fn piece(bytes: &[u8]) -> Result<Piece, Reason> {
    let region = works("freezing", filled(bytes).and_then(OwnRegion::seal))?;
    Ok(Piece { bytes: bytes.to_vec(), region })
}

fn filled(bytes: &[u8]) -> Result<OwnRegion, sila_rt::CallError> {
    let mut region = OwnRegion::new(bytes.len())?;
    region.bytes_mut().iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    Ok(region)
}

fn find<'a>(bundle: &Bundle<'a>, entry: &str) -> Option<&'a [u8]> {
    Some(bundle.find(EntryKind::TestData, &Name::new(entry).ok()?)?.data)
}

fn numbered<'a>(bundle: &Bundle<'a>, of: &str) -> Vec<&'a [u8]> {
    (0..).map_while(|at| find(bundle, &format!("{of}.{at}"))).collect()
}

fn manifest(proof: &[u8]) -> Result<Manifest, Reason> {
    let proof = LoadProof::parse(proof).map_err(|error| format!("a proof of the bundle: {error}"))?;
    Manifest::decode(proof.manifest).map_err(|error| format!("a manifest of the bundle: {error}"))
}

impl Store {
    /// Takes everything from the bundle.
    pub fn open(bundle: &Bundle<'_>) -> Result<Self, Reason> {
        let pieces = |of: Vec<&[u8]>| of.into_iter().map(piece).collect::<Result<Vec<_>, _>>();
        let mut image_of = Vec::new();
        let mut proofs = Vec::new();
        for entry in numbered(bundle, MADE_PROOFS) {
            let (number, proof) =
                entry.split_first_chunk::<8>().ok_or("a proof of the bundle is too short")?;
            image_of.push(u64::from_le_bytes(*number) as usize);
            proofs.push(proof);
        }
        let manifests = proofs.iter().map(|proof| manifest(proof)).collect::<Result<Vec<_>, _>>()?;
        let active = manifest(find(bundle, MANAGER_PROOF).ok_or("the bundle has no proof for managers")?)?;
        let records = numbered(bundle, MADE_RECORDS);
        let lengths = records.iter().map(|record| record.len() as u64).collect();
        let images = pieces(numbered(bundle, MADE_IMAGES))?;
        let (proofs, records) = (pieces(proofs)?, pieces(records)?);
        let requests = manifests.iter().map(|manifest| manifest.requests.len()).collect();
        Ok(Self { images, proofs, records, image_of, requests, lengths, manifests, active, current: 0 })
    }

    /// What the recipes need to know.
    pub fn stock(&self) -> Stock<'_> {
        Stock {
            images: self.images.len(),
            image_of: &self.image_of,
            requests: &self.requests,
            records: &self.lengths,
            current: self.current,
        }
    }

    /// Who holds the kernel against what these pieces allow.
    pub fn judge(&self) -> Result<Judge, Reason> {
        Judge::new(self.manifests.clone(), self.active.clone())
    }

    /// An epoch begins: all records of those before it are installed, so that it finds the same whether they ran or not.
    pub fn begin(&mut self, epoch: u64) -> Result<(), Reason> {
        // The warming up has no number.
        let epoch = usize::try_from(epoch.wrapping_add(1)).unwrap_or(usize::MAX);
        self.current = epoch.min(self.records.len().saturating_sub(1));
        let Some(last) = self.current.checked_sub(1) else { return Ok(()) };
        for at in 0..=last {
            let Some(record) = self.records.get(at) else { break };
            match op::KeyRingInstall(KEYS, record.region.slot(), record.bytes.len() as u64) {
                Err(error) if error.error == Error::RecordStale => {}
                installed => works("a record", installed).map(|_| ())?,
            }
        }
        Ok(())
    }

    /// A piece for a worker; none if there is no memory for it.
    pub fn make(&self, made: &Made) -> Option<OwnedSlot> {
        let pieces = match made.kind {
            Kind::Image => &self.images,
            Kind::Proof => &self.proofs,
            Kind::Record => &self.records,
        };
        let piece = pieces.get(made.at)?;
        // An image goes to the module cache, with what it costs: everybody gets one of their own.
        if made.flaw == Flaw::None && made.frozen && made.kind != Kind::Image {
            let rights = (Rights::READ | Rights::COPY | Rights::SEAL).bits().into();
            return make(|dst| op::CapCopy(piece.region.slot(), dst, rights)).ok();
        }
        let region = filled(&spoilt(&piece.bytes, made.flaw)).ok()?;
        if made.frozen { region.seal().ok() } else { Some(region.into_region()) }
    }
}

fn spoilt(bytes: &[u8], flaw: Flaw) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    match flaw {
        Flaw::None => {}
        Flaw::Bits(seed) | Flaw::Head(seed) => {
            let reach = if flaw == Flaw::Bits(seed) { bytes.len() } else { HEADER.min(bytes.len()) };
            let mut random = Random::new(seed);
            for _ in 0..=random.below(FLIPS) {
                let at = random.below(reach as u64) as usize;
                let bit = random.below(8);
                bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << bit);
            }
        }
        Flaw::Cut(part) => {
            let keep = bytes.len() * usize::from(part) / 256;
            bytes.iter_mut().skip(keep).for_each(|byte| *byte = 0);
        }
    }
    bytes
}
