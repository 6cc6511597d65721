//! Single flipped bits, spread over everything that a load is made of. The kernel is given them directly, so that what
//! refuses is its own check; whole packages go to ModuleManager.

use crate::lab::{Failure, Lab, Outcome, POOL, PROBE_PRIORITY, create, filled, works};
use crate::loading::bad_packages;
use alloc::format;
use sila_abi::Error;
use sila_abi::package::{LoadProof, PROOF_HEADER_LEN};
use sila_rt::op;
use sila_rt::slots::OwnedSlot;

/// Flips in a load proof, and in an image.
const PROOFS: usize = 300;
const IMAGES: usize = 150;

/// A sealed Region with these bytes, one bit of them flipped if there is one to flip.
fn sealed(bytes: &[u8], bit: Option<usize>) -> Result<OwnedSlot, Failure> {
    let mut region = filled(bytes)?;
    if let Some((byte, bit)) = bit.and_then(|bit| Some((region.bytes_mut().get_mut(bit / 8)?, bit % 8))) {
        *byte ^= 1 << bit;
    }
    works("sealing", region.seal())
}

/// Calls `check` with so many bits of something of this length, one from each stretch of it; which one changes from
/// stretch to stretch.
fn spread(length: usize, count: usize, check: impl Fn(usize) -> Outcome) -> Outcome {
    let stretch = length * 8 / count;
    (0..count).try_for_each(|at| check(at * stretch + at * 13 % stretch))
}

fn good(lab: &Lab) -> Result<(&'static [u8], &'static [u8]), Failure> {
    let (image, proof) = (lab.data(crate::TINY_IMAGE)?, lab.data(crate::TINY_PROOF)?);
    let made = create(sealed(image, None)?.slot(), sealed(proof, None)?.slot(), POOL, PROBE_PRIORITY, &[]);
    let made = works("the module without a flipped bit", made)?;
    works("ending it", op::ProcessTerminate(made.slot(), 0))?;
    Ok((image, proof))
}

/// The errors for a flipped bit of this byte of a proof.
fn expected(proof: &LoadProof<'_>, byte: usize) -> &'static [Error] {
    let manifest = PROOF_HEADER_LEN + proof.manifest.len();
    let signature = manifest + proof.manifest_sig.len();
    match byte {
        8..10 => &[Error::WeakAlgorithm],
        16..48 => &[Error::UnknownKey],
        _ if byte < PROOF_HEADER_LEN => &[Error::BadProof],
        _ if byte < signature => &[Error::ManifestSignature],
        _ => &[Error::BinarySignature],
    }
}

pub fn flipped_bits_of_load_proofs_are_refused_by_the_kernel(lab: &Lab) -> Outcome {
    let (image, bytes) = good(lab)?;
    let image = sealed(image, None)?;
    let proof = LoadProof::parse(bytes).map_err(|_| Failure::new("the proof", "a proof", "other bytes"))?;
    // Every bit of the header's first half, beside those that are spread over all of it.
    for bit in 0..128 {
        check_proof(&image, bytes, &proof, bit)?;
    }
    spread(bytes.len(), PROOFS, |bit| check_proof(&image, bytes, &proof, bit))
}

fn check_proof(image: &OwnedSlot, bytes: &[u8], proof: &LoadProof<'_>, bit: usize) -> Outcome {
    let flipped = sealed(bytes, Some(bit))?;
    let want = expected(proof, bit / 8);
    match create(image.slot(), flipped.slot(), POOL, PROBE_PRIORITY, &[]) {
        Err(error) if want.contains(&error.error) => Ok(()),
        Err(error) => Err(Failure::new(format!("bit {bit}"), format!("{want:?}"), error.error.name())),
        Ok(_) => Err(Failure::new(format!("bit {bit}"), format!("{want:?}"), "success")),
    }
}

pub fn flipped_bits_of_images_are_refused_by_the_kernel(lab: &Lab) -> Outcome {
    let (image, proof) = good(lab)?;
    let proof = sealed(proof, None)?;
    lab.balanced(|| {
        spread(image.len(), IMAGES, |bit| {
            let flipped = sealed(image, Some(bit))?;
            let made = create(flipped.slot(), proof.slot(), POOL, PROBE_PRIORITY, &[]);
            crate::lab::refused(&format!("bit {bit}"), made, Error::ImageDigest)
        })
    })
}

pub fn flipped_bits_of_packages_are_refused_on_the_way_to_a_process(lab: &Lab) -> Outcome {
    bad_packages(lab, "sampled")
}
