//! From validly signed packages to others: on the way, by somebody without keys, or before signing, by a publisher.

use super::corpus::{Corpus, Sample, describe};
use super::fields::{change, odd, scramble};
use crate::pkg::pack::{Parts, compress};
use anyhow::{Context, Result};
use fuzz::random::Random;
use sila_abi::manifest::{Codec, MANIFEST_MAX, Manifest};
use sila_abi::package::PACKAGE_HEADER_LEN;
use sila_abi::record::encode_canonical;
use sila_abi::sif::PAGE_SIZE;
use sila_crypto::chain::statement;
use sila_crypto::scheme::Domain;
use sila_crypto::sign::SigningKey;
use zerocopy::IntoBytes;

/// Offset and length of each field of a package's header.
const FIELDS: [(usize, usize); 9] =
    [(0, 8), (8, 2), (10, 2), (12, 4), (16, 32), (48, 8), (56, 8), (64, 4), (68, 60)];

/// What becomes of a sample.
pub struct Mutant {
    /// What was done to it.
    pub how: &'static str,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Whether a publisher's key signed anything of it anew.
    pub resigned: bool,
}

fn pick<'a>(r: &mut Random, corpus: &'a Corpus) -> Result<&'a Sample> {
    r.pick(&corpus.samples).context("no samples")
}

/// Overwrites a little-endian field.
pub fn put(bytes: &mut [u8], at: usize, length: usize, value: u64) {
    let raw = value.to_le_bytes();
    for (to, from) in bytes.iter_mut().skip(at).take(length).zip(raw.iter().chain(std::iter::repeat(&raw[0])))
    {
        *to = *from;
    }
}

/// A little-endian field of at most eight bytes.
pub fn get(bytes: &[u8], at: usize, length: usize) -> u64 {
    let field = bytes.get(at..at + length.min(8)).unwrap_or_default();
    field.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// Something that whoever carries a package could make of it.
pub fn carried(r: &mut Random, corpus: &Corpus) -> Result<Mutant> {
    let (base, other) = (pick(r, corpus)?, pick(r, corpus)?);
    let (how, bytes) = match r.below(9) {
        0 => ("flip", flip(r, base)),
        1 => ("header", header(r, base)),
        2 => ("cut", cut(r, base, other)),
        3 => ("swap", swap(r, base, other)?),
        4 => ("sections", sections(r, base, other)),
        5 => ("borders", borders(r, base)),
        6 => ("manifest", manifest(r, base, other)?),
        7 => ("payload", payload(r, base)?),
        _ => ("signatures", signatures(r, base, other)?),
    };
    Ok(Mutant { how, bytes, resigned: false })
}

fn flip(r: &mut Random, base: &Sample) -> Vec<u8> {
    let mut bytes = base.bytes.clone();
    for _ in 0..=r.below(4) {
        let at = r.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << r.below(8);
    }
    bytes
}

fn header(r: &mut Random, base: &Sample) -> Vec<u8> {
    let mut bytes = base.bytes.clone();
    for _ in 0..=r.below(2) {
        let (at, length) = r.pick(&FIELDS).copied().unwrap_or((0, 8));
        let value = odd(r, get(&bytes, at, length));
        put(&mut bytes, at, length, value);
    }
    bytes
}

/// Where each section begins, and the end.
fn starts(base: &Sample) -> [usize; 7] {
    let parts = &base.parts;
    let lengths = [
        PACKAGE_HEADER_LEN,
        parts.manifest.len(),
        parts.payload.len(),
        parts.package_sig.len(),
        parts.manifest_sig.len(),
        parts.binary_sig.len(),
    ];
    let mut starts = [0; 7];
    for (at, length) in lengths.iter().enumerate() {
        starts[at + 1] = starts[at] + length;
    }
    starts
}

fn cut(r: &mut Random, base: &Sample, other: &Sample) -> Vec<u8> {
    let mut bytes = base.bytes.clone();
    match r.below(4) {
        0 => bytes.truncate(r.below(bytes.len() as u64) as usize),
        1 => {
            let border = r.pick(&starts(base)).copied().unwrap_or(0);
            bytes.truncate((border + r.below(4) as usize).saturating_sub(2));
        }
        2 => bytes.extend((0..=r.below(20)).map(|_| 0)),
        _ => bytes.extend_from_slice(&other.bytes),
    }
    bytes
}

/// Parts of one package in another; the header fits.
fn swap(r: &mut Random, base: &Sample, other: &Sample) -> Result<Vec<u8>> {
    let mut parts = base.parts.clone();
    let from = &other.parts;
    for _ in 0..=r.below(3) {
        match r.below(7) {
            0 => parts.manifest = from.manifest.clone(),
            1 => parts.payload = from.payload.clone(),
            2 => parts.package_sig = from.package_sig.clone(),
            3 => parts.manifest_sig = from.manifest_sig.clone(),
            4 => parts.binary_sig = from.binary_sig.clone(),
            5 => parts.key_id = from.key_id,
            _ => parts.algorithm = odd(r, parts.algorithm.into()) as u16,
        }
    }
    parts.assemble()
}

/// Sections doubled, dropped, moved, or taken from another package; perhaps with lengths that fit again.
fn sections(r: &mut Random, base: &Sample, other: &Sample) -> Vec<u8> {
    let of = |sample: &Sample| -> Vec<Vec<u8>> {
        let starts = starts(sample);
        starts.windows(2).map(|pair| sample.bytes[pair[0]..pair[1]].to_vec()).collect()
    };
    let (mut all, from) = (of(base), of(other));
    for _ in 0..=r.below(2) {
        let (a, b) = (r.below(all.len() as u64) as usize, r.below(all.len() as u64) as usize);
        match r.below(4) {
            0 => all.insert(a, all[b].clone()),
            1 => drop(all.remove(a)),
            2 => all.swap(a, b),
            _ => all[a] = from[a.min(from.len() - 1)].clone(),
        }
        if all.is_empty() {
            break;
        }
    }
    let mut bytes = all.concat();
    if r.once_in(2) && bytes.len() >= PACKAGE_HEADER_LEN {
        let fixed = PACKAGE_HEADER_LEN as u64 + get(&bytes, 12, 4) + 3 * get(&bytes, 64, 4);
        let total = bytes.len() as u64;
        put(&mut bytes, 48, 8, total.wrapping_sub(fixed));
        put(&mut bytes, 56, 8, total);
    }
    bytes
}

/// The borders between the parts, moved so that the sum stays.
fn borders(r: &mut Random, base: &Sample) -> Vec<u8> {
    let mut bytes = base.bytes.clone();
    let by = odd(r, 1) % 4096;
    let (manifest, payload, signature) = (get(&bytes, 12, 4), get(&bytes, 48, 8), get(&bytes, 64, 4));
    match r.below(3) {
        0 => {
            put(&mut bytes, 12, 4, manifest.wrapping_add(by));
            put(&mut bytes, 48, 8, payload.wrapping_sub(by));
        }
        1 => {
            put(&mut bytes, 12, 4, manifest.wrapping_sub(by));
            put(&mut bytes, 48, 8, payload.wrapping_add(by));
        }
        _ => {
            put(&mut bytes, 64, 4, signature.wrapping_sub(by));
            put(&mut bytes, 48, 8, payload.wrapping_add(3 * by));
        }
    }
    bytes
}

/// The bytes of a manifest whose fields or bytes were changed; it need not be valid.
pub fn other_manifest(r: &mut Random, base: &Manifest, other: &Manifest) -> Vec<u8> {
    let mut manifest = base.clone();
    if !r.once_in(3) {
        change(r, &mut manifest, other);
    }
    let mut bytes = encode_canonical(&manifest, MANIFEST_MAX).unwrap_or_default();
    if r.once_in(3) {
        scramble(r, &mut bytes);
    }
    bytes
}

fn manifest(r: &mut Random, base: &Sample, other: &Sample) -> Result<Vec<u8>> {
    let manifest = other_manifest(r, &base.manifest, &other.manifest);
    Parts { manifest, ..base.parts.clone() }.assemble()
}

fn payload(r: &mut Random, base: &Sample) -> Result<Vec<u8>> {
    let mut parts = base.parts.clone();
    scramble(r, &mut parts.payload);
    parts.assemble()
}

fn signatures(r: &mut Random, base: &Sample, other: &Sample) -> Result<Vec<u8>> {
    let mut parts = base.parts.clone();
    let zero = vec![0; parts.binary_sig.len()];
    match r.below(7) {
        0 => parts.package_sig = zero,
        1 => parts.manifest_sig = zero,
        2 => parts.binary_sig = zero,
        3 => std::mem::swap(&mut parts.package_sig, &mut parts.manifest_sig),
        4 => std::mem::swap(&mut parts.manifest_sig, &mut parts.binary_sig),
        5 => std::mem::swap(&mut parts.package_sig, &mut parts.binary_sig),
        _ => {
            let from = &other.parts;
            (parts.package_sig, parts.manifest_sig) = (from.package_sig.clone(), from.manifest_sig.clone());
            parts.binary_sig = from.binary_sig.clone();
        }
    }
    parts.assemble()
}

/// Something that a publisher could sign by mistake or malice.
pub fn resigned(r: &mut Random, corpus: &Corpus) -> Result<Mutant> {
    let (base, other) = (pick(r, corpus)?, pick(r, corpus)?);
    let mut parts = base.parts.clone();
    let mut manifest = base.manifest.clone();
    let how = match r.below(4) {
        0 => {
            change(r, &mut manifest, &other.manifest);
            "signed manifest"
        }
        1 => {
            scramble(r, &mut parts.payload);
            describe(&mut manifest, &base.image, &parts.payload, base.manifest.codec);
            "signed payload"
        }
        2 => {
            let image = other_image(r, base);
            parts.payload = if manifest.codec == Codec::None { image.clone() } else { compress(&image)? };
            describe(&mut manifest, &image, &parts.payload, base.manifest.codec);
            "signed image"
        }
        _ => "signed by another",
    };
    let by = if how == "signed by another" || r.once_in(8) { r.below(2) as usize } else { base.publisher };
    let publisher = corpus.publishers.get(by).context("no such publisher")?;
    if r.once_in(2) {
        (manifest.publisher, manifest.key_id) = (publisher.certificate.publisher, publisher.key.id());
    }
    parts.manifest = encode_canonical(&manifest, MANIFEST_MAX).unwrap_or_default();
    if r.once_in(8) {
        scramble(r, &mut parts.manifest);
    }
    parts.key_id = if r.once_in(16) { manifest.key_id } else { publisher.key.id() };
    sign(r, &mut parts, &manifest, &publisher.key)?;
    Ok(Mutant { how, bytes: parts.assemble()?, resigned: true })
}

/// Signs everything, but for one signature now and then.
fn sign(r: &mut Random, parts: &mut Parts, manifest: &Manifest, key: &SigningKey) -> Result<()> {
    let forgotten = r.below(16);
    if forgotten != 0 {
        parts.binary_sig = key.sign(Domain::Binary, statement::binary(manifest).as_bytes())?;
    }
    if forgotten != 1 {
        parts.sign_manifest(key)?;
    }
    if forgotten != 2 {
        parts.sign_package(key)?;
    }
    Ok(())
}

/// An image whose header, or bytes, were changed.
pub fn other_image(r: &mut Random, base: &Sample) -> Vec<u8> {
    let mut image = base.image.clone();
    for _ in 0..=r.below(3) {
        let segment = 32 + 40 * r.below(8) as usize;
        let (at, length) = match r.below(10) {
            0 => (0, 8),
            1 => (8, 4),
            2 => (12, 4),
            3 => (16, 8),
            4 => (24, 8),
            5 => (352 + r.below(3744) as usize, 1),
            field => {
                (segment + [0, 8, 16, 24, 32, 36][field as usize % 6], if field % 6 < 4 { 8 } else { 4 })
            }
        };
        let value = match r.below(3) {
            0 => odd(r, get(&image, at, length)),
            1 => (odd(r, get(&image, at, length)) / PAGE_SIZE).wrapping_mul(PAGE_SIZE),
            _ => r.pick(&[1, 3, 5, 7, 0x20_0000, 0x20_1000, 0x1000, 0x2000]).copied().unwrap_or(0),
        };
        put(&mut image, at, length, value);
    }
    if r.once_in(4) {
        let at = r.below(image.len() as u64) as usize;
        image[at] ^= 1 << r.below(8);
    }
    image
}
