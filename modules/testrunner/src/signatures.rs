//! Outside test vectors for signatures, through the code that loads are checked with: as it was compiled for ring 3,
//! and as it was compiled for the kernel, in the verification context.

use crate::lab::{Failure, Lab, Outcome, TEST, equal, filled, holds, refused, works};
use alloc::format;
use sila_abi::Error;
use sila_abi::verify_case::VerifyCase;
use sila_crypto::scheme::VerifyingKey;
use sila_rt::{CallError, op};

/// Bytes in front of each case: its number, and whether its signature is valid.
const LABEL: usize = 8;

/// Calls `check` with each vector of the test data, in their encoding; each must come out as its label says.
fn vectors(lab: &Lab, check: impl Fn(&VerifyCase<'_>, &[u8]) -> Result<bool, Failure>) -> Outcome {
    let mut rest = lab.data(crate::VECTORS)?;
    let (mut valid, mut invalid) = (0, 0);
    while let Some((label, bytes)) = rest.split_at_checked(LABEL) {
        let word = label.iter().rev().fold(0u64, |word, byte| word << 8 | u64::from(*byte));
        let (number, right) = (word >> 1, word & 1 == 1);
        let cut = VerifyCase::parse(bytes);
        let (case, tail) = cut.map_err(|_| Failure::new("a vector", "a case", "other bytes"))?;
        let encoded = bytes.get(..bytes.len() - tail.len()).unwrap_or_default();
        equal(&format!("vector {number} is valid"), check(&case, encoded)?, right)?;
        *(if right { &mut valid } else { &mut invalid }) += 1;
        rest = tail;
    }
    equal("bytes behind the last vector", rest.len(), 0)?;
    equal("valid and invalid vectors", (valid, invalid), crate::VECTOR_COUNTS)
}

pub fn outside_vectors_hold_in_ring_3(lab: &Lab) -> Outcome {
    vectors(lab, |case, _| {
        let key = VerifyingKey::decode(case.algorithm, case.key);
        Ok(key.is_ok_and(|key| key.verify_in_context(case.context, case.message, case.signature).is_ok()))
    })
}

/// What the verification context says about a case.
fn verdict(bytes: &[u8]) -> Result<Result<(), CallError>, Failure> {
    let region = filled(bytes)?.into_region();
    Ok(op::TestVerify(TEST, region.slot(), bytes.len() as u64).map(|_| ()))
}

pub fn outside_vectors_hold_in_the_verification_context(lab: &Lab) -> Outcome {
    vectors(lab, |_, bytes| match verdict(bytes)? {
        Ok(()) => Ok(true),
        Err(error) if [Error::RecordSignature, Error::UnknownKey].contains(&error.error) => Ok(false),
        Err(error) => Err(error.into()),
    })
}

pub fn what_is_no_signature_to_be_checked_is_refused(lab: &Lab) -> Outcome {
    let data = lab.data(crate::VECTORS)?.get(LABEL..).unwrap_or_default();
    let (case, _) = VerifyCase::parse(data).map_err(|_| Failure::new("a vector", "a case", "other bytes"))?;
    let length = case.parts().iter().map(|part| part.len()).sum::<usize>() + size_of_val(&case.header());
    refused("half of a case", verdict(data.get(..length / 2).unwrap_or_default())?, Error::RecordMalformed)?;
    let mut other = data.get(..length).unwrap_or_default().to_vec();
    if let Some(algorithm) = other.first_mut() {
        *algorithm = 9;
    }
    refused("an unknown algorithm", verdict(&other)?, Error::UnknownKey)?;
    let region = filled(data.get(..4096).unwrap_or_default())?.into_region();
    for length in [0, 4097, u64::MAX] {
        let none = op::TestVerify(TEST, region.slot(), length);
        refused("a length outside the Region", none, Error::InvalidArgument)?;
    }
    Ok(())
}

/// The least that is left of the verification context's stack once everything above was checked on it.
const SPARE: u64 = 128 << 10;

pub fn verification_stays_far_from_the_end_of_its_stack(lab: &Lab) -> Outcome {
    works("a process", lab.child().map_err(|_| CallError::new(Error::NoCapability)))?;
    let bytes = lab.data(crate::VECTORS)?;
    let _ = verdict(bytes.get(LABEL..LABEL + 8192).unwrap_or_default())?;
    let peak = works("TestAccounting", op::TestAccounting(TEST))?.words[5];
    holds(&format!("{peak} bytes were used"), peak > 16 << 10 && peak + SPARE <= 256 << 10)
}
