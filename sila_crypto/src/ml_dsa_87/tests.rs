//! Our verification against the crate `ml-dsa`, which signs here, and what no signature may be.

use super::*;
use ml_dsa::signature::Keypair;
use ml_dsa::{B32, EncodedSignature, ExpandedSigningKey, MlDsa87};
use std::vec::Vec;

/// One key, in both implementations.
struct Pair {
    ours: PublicKey,
    theirs: ml_dsa::VerifyingKey<MlDsa87>,
    secret: ExpandedSigningKey<MlDsa87>,
}

type Signature = [u8; SIGNATURE_LEN];

impl Pair {
    fn new(seed: u8) -> Self {
        let secret = ml_dsa::SigningKey::<MlDsa87>::from_seed(&B32::from([seed; 32]));
        let theirs = secret.verifying_key();
        let ours = PublicKey::decode(theirs.encode()[..].try_into().expect("the length of a key"));
        Self { ours, theirs, secret: secret.expanded_key().clone() }
    }

    fn sign(&self, context: &[u8], message: &[u8]) -> Signature {
        let signature = self.secret.sign_deterministic(message, context).expect("a signature");
        signature.encode()[..].try_into().expect("the length of a signature")
    }

    fn theirs_accepts(&self, context: &[u8], message: &[u8], signature: &Signature) -> bool {
        let encoded =
            EncodedSignature::<MlDsa87>::try_from(&signature[..]).expect("the length of a signature");
        ml_dsa::Signature::<MlDsa87>::decode(&encoded)
            .is_some_and(|signature| self.theirs.verify_with_context(message, context, &signature))
    }

    /// What both say.
    fn accepts(&self, context: &[u8], message: &[u8], signature: &Signature) -> bool {
        let ours = self.ours.verify(context, message, signature);
        assert_eq!(ours, self.theirs_accepts(context, message, signature));
        ours
    }
}

/// Bytes that follow from a number.
fn bytes(number: usize, len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + number * 17 + i * i / 7) as u8).collect()
}

#[test]
fn both_accept_what_either_key_signed_and_nothing_near_it() {
    let pairs: Vec<Pair> = (0..12).map(Pair::new).collect();
    for (number, pair) in pairs.iter().enumerate() {
        for (round, context_len) in [0, 1, 2, 15, 128, 254, 255].into_iter().enumerate() {
            let context = bytes(number, context_len);
            let message = bytes(number + round, number * 97 + round * round * 41);
            let signature = pair.sign(&context, &message);
            assert!(pair.accepts(&context, &message, &signature), "key {number}, context {context_len}");
            assert!(!pair.accepts(&context, &[&message[..], &[0]].concat(), &signature));
            assert!(!pair.accepts(&[&context[1.min(context_len)..], b"x"].concat(), &message, &signature));
            assert!(!pairs[(number + 1) % pairs.len()].accepts(&context, &message, &signature));
        }
        // What moves from the context to the message is another statement.
        let signature = pair.sign(b"con", b"text");
        assert!(pair.accepts(b"con", b"text", &signature));
        assert!(!pair.accepts(b"cont", b"ext", &signature) && !pair.accepts(b"", b"context", &signature));
    }
}

/// A context of 256 bytes would have a length that reads as zero: nothing is signed for it, whoever signs it.
#[test]
fn a_context_of_256_bytes_is_refused() {
    let pair = Pair::new(1);
    let context = bytes(1, 256);
    let signature = pair.secret.sign_internal(&[&[0, 0], &context, b"message"], &B32::default());
    let signature: Signature = signature.encode()[..].try_into().expect("the length of a signature");
    // It is a valid one of what stands behind an empty context.
    assert!(pair.accepts(&[], &[&context[..], b"message"].concat(), &signature));
    assert!(!pair.accepts(&context, b"message", &signature));
    assert!(!pair.accepts(&bytes(1, 1000), b"message", &signature));
    assert!(pair.accepts(&context[..255], b"message", &pair.sign(&context[..255], b"message")));
}

/// Nobody can make a second signature out of a first by a bit: all 37,016 are tried, those of the hint and each
/// sixteenth of the others with `ml-dsa`, too.
#[test]
fn every_single_bit_flip_is_refused() {
    let pair = Pair::new(2);
    let signature = pair.sign(b"context", b"message");
    assert!(pair.accepts(b"context", b"message", &signature));
    let hint = 8 * (SIGNATURE_LEN - HINT_BYTES);
    for bit in 0..8 * SIGNATURE_LEN {
        let mut flipped = signature;
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(!pair.ours.verify(b"context", b"message", &flipped), "bit {bit}");
        if bit >= hint || bit % 16 == 5 {
            assert!(!pair.theirs_accepts(b"context", b"message", &flipped), "bit {bit}");
        }
    }
}

#[test]
fn keys_with_a_flipped_bit_accept_nothing() {
    let pair = Pair::new(3);
    let signature = pair.sign(b"", b"message");
    let key: [u8; KEY_LEN] = pair.theirs.encode()[..].try_into().expect("the length of a key");
    for bit in (0..8 * KEY_LEN).step_by(61) {
        let mut flipped = key;
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(!PublicKey::decode(&flipped).verify(b"", b"message", &signature), "bit {bit}");
    }
}

/// The places and ends of a signature's hint.
fn hint_of(signature: &Signature) -> ([u8; encoding::OMEGA], [u8; ROWS]) {
    let (places, ends) = signature[SIGNATURE_LEN - HINT_BYTES..].split_at(encoding::OMEGA);
    (places.try_into().expect("places"), ends.try_into().expect("ends"))
}

fn with_hint(signature: &Signature, places: &[u8], ends: &[u8]) -> Signature {
    let mut changed = *signature;
    changed[SIGNATURE_LEN - HINT_BYTES..].copy_from_slice(&[places, ends].concat());
    changed
}

/// Other encodings of the very same hint: the signature would hold if they were taken.
#[test]
fn a_hint_encoded_in_another_way_is_refused() {
    let pair = Pair::new(4);
    let (mut swapped, mut doubled, mut padded) = (0, 0, 0);
    for number in 0..6 {
        let message = bytes(number, 40);
        let signature = pair.sign(b"", &message);
        assert!(pair.accepts(b"", &message, &signature));
        let (places, ends) = hint_of(&signature);
        let starts = [&[0], &ends[..]].concat();
        let count = usize::from(ends[ROWS - 1]);
        for (row, (start, end)) in starts.iter().zip(&ends).enumerate() {
            let (start, end) = (usize::from(*start), usize::from(*end));
            for at in start..end.saturating_sub(1) {
                let mut changed = places;
                changed.swap(at, at + 1);
                assert!(!pair.accepts("".as_bytes(), &message, &with_hint(&signature, &changed, &ends)));
                swapped += 1;
            }
            if count < encoding::OMEGA && start < end {
                // The row's last place once more.
                let mut changed = places.to_vec();
                changed.insert(end, places[end - 1]);
                changed.truncate(encoding::OMEGA);
                let mut ends = ends;
                ends[row..].iter_mut().for_each(|end| *end += 1);
                assert!(!pair.accepts(b"", &message, &with_hint(&signature, &changed, &ends)));
                doubled += 1;
            }
        }
        for at in count..encoding::OMEGA {
            for value in [1, 128, 255] {
                let mut changed = places;
                changed[at] = value;
                assert!(!pair.accepts(b"", &message, &with_hint(&signature, &changed, &ends)));
                padded += 1;
            }
        }
    }
    assert!(swapped > 100 && doubled > 10 && padded > 10, "{swapped}, {doubled}, {padded}");
}

#[test]
fn ends_that_fall_or_lie_too_far_are_refused() {
    let pair = Pair::new(5);
    let signature = pair.sign(b"", b"message");
    let (places, ends) = hint_of(&signature);
    for row in 0..ROWS {
        for end in 0..=255 {
            let mut changed = ends;
            changed[row] = end;
            let accepted = pair.accepts(b"", b"message", &with_hint(&signature, &places, &changed));
            assert_eq!(accepted, changed == ends, "row {row}, end {end}");
        }
    }
}

/// A coefficient of z at and beyond the bound: at both its ends and in each polynomial.
#[test]
fn z_out_of_bounds_is_refused_by_both() {
    let pair = Pair::new(6);
    let signature = pair.sign(b"", b"message");
    for polynomial in 0..Z_LEN {
        for below in [0, 1, 119, 120, 121, 1_048_455, 1_048_456, 1_048_457, 1_048_575_u32] {
            let mut changed = signature;
            let at = 64 + polynomial * Z_BYTES;
            let [low, middle, high, ..] = below.to_le_bytes();
            changed[at] = low;
            changed[at + 1] = middle;
            changed[at + 2] = changed[at + 2] & 0xf0 | high;
            assert!(!pair.accepts(b"", b"message", &changed), "{below} in polynomial {polynomial}");
        }
    }
}

#[test]
fn signatures_and_keys_of_one_byte_only_are_refused() {
    let pair = Pair::new(7);
    for byte in 0..=255 {
        assert!(!pair.accepts(b"", b"message", &[byte; SIGNATURE_LEN]), "{byte}");
    }
    let signature = pair.sign(b"", b"message");
    for byte in [0, 1, 127, 128, 255] {
        assert!(!PublicKey::decode(&[byte; KEY_LEN]).verify(b"", b"message", &signature), "{byte}");
    }
}
