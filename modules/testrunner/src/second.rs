//! The second signature scheme, in ring 3: the module that checks it is in the bundle only if it was asked for.

use crate::lab::{Lab, Outcome, equal};
use crate::loading::{ask, load};
use alloc::format;
use sila_abi::verify_case::VerifyCase;

/// Bits of the signature that are flipped, far from each other.
const FLIPS: usize = 20;

pub fn a_signature_of_the_second_scheme_is_told_from_flipped_ones(lab: &Lab) -> Outcome {
    let _module = load("dilithium")?;
    let good = lab.data(crate::SECOND_CASE)?;
    equal("what the host signed", ask("dilithium", "verify", Some(good))?.as_str(), "valid")?;
    let length = VerifyCase::parse(good).map_or(0, |(case, _)| case.signature.len());
    let begin = good.len().saturating_sub(length);
    for at in 0..FLIPS {
        let bit = at * (length * 8 / FLIPS) + at % 8;
        let mut flipped = good.to_vec();
        if let Some(byte) = flipped.get_mut(begin + bit / 8) {
            *byte ^= 1 << (bit % 8);
        }
        let said = ask("dilithium", "verify", Some(&flipped))?;
        equal(&format!("bit {bit} flipped"), said.as_str(), "the signature is invalid")?;
    }
    // The byte before the signature is the message's last one; the first two name the scheme.
    for (at, what) in [(begin.saturating_sub(1), "another message"), (0, "the same key for the other scheme")]
    {
        let mut other = good.to_vec();
        if let Some(byte) = other.get_mut(at) {
            *byte = if at == 0 { 1 } else { *byte ^ 1 };
        }
        equal(what, ask("dilithium", "verify", Some(&other))?.as_str(), "the signature is invalid")?;
    }
    Ok(())
}
