//! The bytes of keys and signatures (FIPS 204, algorithms 18 to 28), and what depends on how they are rounded
//! (algorithms 36, 37 and 40).

use super::field::Q64;
use super::ntt::{N, Wide};
use super::sponge::{SHAKE256, Sponge};

/// Rows of the matrix: polynomials of t, w and the hint.
pub const ROWS: usize = 8;
/// Polynomials of z.
pub const Z_LEN: usize = 7;
/// Bits that were dropped from t.
const D: u32 = 13;
/// Bytes of a polynomial of t: ten bits for each coefficient.
pub const T_BYTES: usize = N * 10 / 8;
/// Bytes of a polynomial of z: twenty bits for each coefficient.
pub const Z_BYTES: usize = N * 20 / 8;
/// Most ones of the hint.
pub const OMEGA: usize = 75;
/// Bytes of the hint.
pub const HINT_BYTES: usize = OMEGA + ROWS;

/// Coefficients of z were drawn from this down to its negative, that one not included.
const GAMMA_1: u64 = 1 << 19;
/// tau * eta: how far a coefficient must stay away from both ends.
const BETA: u64 = 60 * 2;
/// (q - 1) / 32.
const GAMMA_2: u64 = (Q64 - 1) / 32;
/// w is rounded to multiples of this.
const STEP: u64 = 2 * GAMMA_2;

/// Minus a polynomial of t times 2^d, from its bytes: coefficients from 1 to q.
pub fn unpack_t_negated(bytes: &[u8; T_BYTES], polynomial: &mut Wide) {
    let (groups, _) = bytes.as_chunks::<5>();
    for (coefficients, group) in polynomial.as_chunks_mut::<4>().0.iter_mut().zip(groups) {
        let bits = bits_of(group);
        for (i, coefficient) in coefficients.iter_mut().enumerate() {
            // Ten bits times 2^13 are at most q - 1.
            *coefficient = Q64 - ((bits >> (10 * i) & 0x3ff) << D);
        }
    }
}

/// A polynomial of z from its bytes: z + q, coefficients below 2q. False if one of them is not below gamma1 - beta
/// in absolute value.
pub fn unpack_z(bytes: &[u8; Z_BYTES], polynomial: &mut Wide) -> bool {
    let (groups, _) = bytes.as_chunks::<5>();
    let mut in_range = true;
    for (coefficients, group) in polynomial.as_chunks_mut::<2>().0.iter_mut().zip(groups) {
        let bits = bits_of(group);
        for (i, coefficient) in coefficients.iter_mut().enumerate() {
            // gamma1 - z, of twenty bits.
            let below = bits >> (20 * i) & 0xf_ffff;
            in_range &= (BETA + 1..2 * GAMMA_1 - BETA).contains(&below);
            *coefficient = Q64 + GAMMA_1 - below;
        }
    }
    in_range
}

fn bits_of([a, b, c, d, e]: &[u8; 5]) -> u64 {
    u64::from(u32::from_le_bytes([*a, *b, *c, *d])) | u64::from(*e) << 32
}

/// For each row the places of its hints, strictly rising; `None` for bytes that are no hint's only encoding.
pub fn unpack_hint(bytes: &[u8; HINT_BYTES]) -> Option<[&[u8]; ROWS]> {
    let (places, ends) = bytes.split_first_chunk::<OMEGA>()?;
    let mut hints: [&[u8]; ROWS] = [&[]; ROWS];
    let mut start = 0;
    for (hint, end) in hints.iter_mut().zip(ends) {
        let end = usize::from(*end);
        // Nothing for an end that lies before the start, or behind the last place.
        let row = places.get(start..end)?;
        if !row.is_sorted_by(|a, b| a < b) {
            return None;
        }
        (*hint, start) = (row, end);
    }
    places.get(start..)?.iter().all(|byte| *byte == 0).then_some(hints)
}

/// Lets `sponge` take in w1: each coefficient of `w`, which is below q, rounded as the hint says, in four bits.
pub fn absorb_rounded(w: &mut Wide, hint: &[u8], sponge: &mut Sponge<SHAKE256>) {
    for place in hint {
        let coefficient = &mut w[usize::from(*place)];
        *coefficient = STEP * use_hint(*coefficient);
    }
    let (groups, _) = w.as_chunks::<16>();
    for group in groups {
        sponge.absorb_lane(group.iter().rev().fold(0, |lane, r| lane << 4 | high_bits(*r)));
    }
}

/// Which multiple of 2 * gamma2 is closest to `r`, which is below q; the lower one if two are. From 0 to 16.
const fn closest(r: u64) -> u64 {
    // Below 2^24.
    ((r as u32).wrapping_add(GAMMA_2 as u32 - 1) / STEP as u32) as u64
}

/// HighBits: the sixteenth multiple is q - 1, and counts as zero.
const fn high_bits(r: u64) -> u64 {
    closest(r) % 16
}

/// UseHint for a hint of 1: the multiple on the other side of `r`, which is below q.
const fn use_hint(r: u64) -> u64 {
    let closest = closest(r);
    (if r > closest * STEP { closest + 1 } else { closest + 15 }) % 16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ml_dsa_87::field::Q;

    /// `values` of so many bits each, one after the other, the lowest bit first.
    fn packed<const LEN: usize>(values: &[u64; N], bits: usize) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        for (at, value) in values.iter().enumerate() {
            for bit in 0..bits {
                let place = at * bits + bit;
                bytes[place / 8] |= ((value >> bit & 1) as u8) << (place % 8);
            }
        }
        bytes
    }

    #[test]
    fn t_is_unpacked_in_order_and_negated() {
        for first in [0, 1, 511, 512, 1022, 1023] {
            let values = core::array::from_fn(|i| (first + i as u64 * 37) % 1024);
            let mut t = [0; N];
            unpack_t_negated(&packed(&values, 10), &mut t);
            assert_eq!(t, values.map(|value| Q64 - value * 8192));
        }
        let mut t = [0; N];
        unpack_t_negated(&[0xff; T_BYTES], &mut t);
        assert_eq!(t, [1; N]);
    }

    #[test]
    fn z_is_unpacked_in_order() {
        let values = core::array::from_fn(|i| 121 + i as u64 * 4001);
        let mut z = [0; N];
        assert!(unpack_z(&packed(&values, 20), &mut z));
        assert_eq!(z, values.map(|value| Q64 + (1 << 19) - value));
    }

    /// The norm must be below gamma1 - beta = 524,168: at each place, on both sides.
    #[test]
    fn z_at_the_bound_is_refused_at_each_place() {
        const BOUND: i64 = 524_168;
        for n in 0..N {
            for (coefficient, expected) in [
                (0, true),
                (BOUND - 1, true),
                (1 - BOUND, true),
                (BOUND, false),
                (-BOUND, false),
                (BOUND + 1, false),
                (-BOUND - 1, false),
                (1 << 19, false),
                (1 - (1 << 19), false),
            ] {
                let mut values = [1 << 19; N];
                values[n] = ((1 << 19) - coefficient) as u64;
                let mut z = [0; N];
                let accepted = unpack_z(&packed(&values, 20), &mut z);
                assert_eq!(accepted, expected, "{coefficient} at {n}");
                assert_eq!(z[n] as i64, i64::from(Q) + coefficient);
            }
        }
    }

    /// Algorithm 21, as it is written: the ones of each row.
    fn hint_of_the_standard(y: &[u8; HINT_BYTES]) -> Option<[[bool; N]; ROWS]> {
        let mut hint = [[false; N]; ROWS];
        let mut index = 0;
        for i in 0..ROWS {
            let end = usize::from(y[OMEGA + i]);
            if end < index || end > OMEGA {
                return None;
            }
            let first = index;
            while index < end {
                if index > first && y[index - 1] >= y[index] {
                    return None;
                }
                hint[i][usize::from(y[index])] = true;
                index += 1;
            }
        }
        y[index..OMEGA].iter().all(|byte| *byte == 0).then_some(hint)
    }

    fn hint(bytes: &[u8; HINT_BYTES]) -> Option<[[bool; N]; ROWS]> {
        let ours = unpack_hint(bytes).map(|rows| {
            rows.map(|row| {
                let mut ones = [false; N];
                row.iter().for_each(|place| ones[usize::from(*place)] = true);
                ones
            })
        });
        assert_eq!(ours, hint_of_the_standard(bytes), "{bytes:?}");
        ours
    }

    fn encoded(places: &[u8], ends: [u8; ROWS]) -> [u8; HINT_BYTES] {
        let mut bytes = [0; HINT_BYTES];
        bytes[..places.len()].copy_from_slice(places);
        bytes[OMEGA..].copy_from_slice(&ends);
        bytes
    }

    #[test]
    fn hints_have_one_encoding() {
        let good = [
            encoded(&[], [0; ROWS]),
            encoded(&[0], [0, 1, 1, 1, 1, 1, 1, 1]),
            encoded(&[255], [1; ROWS]),
            encoded(&[3, 4, 255, 0, 1, 9, 2], [3, 3, 5, 6, 6, 6, 6, 7]),
            encoded(&core::array::from_fn::<u8, 75, _>(|i| i as u8), [75; ROWS]),
        ];
        for bytes in &good {
            assert!(hint(bytes).is_some());
        }
        for (why, bytes) in [
            ("not in order", encoded(&[4, 3], [2; ROWS])),
            ("twice", encoded(&[3, 3], [2; ROWS])),
            ("twice zero", encoded(&[0, 0], [2; ROWS])),
            ("not in order in the last row", encoded(&[9, 4, 3], [0, 0, 0, 0, 0, 0, 1, 3])),
            ("an end before the one before it", encoded(&[1, 2, 3], [3, 2, 3, 3, 3, 3, 3, 3])),
            ("the last end before the one before it", encoded(&[1, 2, 3], [3, 3, 3, 3, 3, 3, 3, 0])),
            ("an end behind the last place", encoded(&[], [0, 0, 0, 0, 0, 0, 0, 76])),
            ("an end of 255", encoded(&[], [0, 0, 0, 0, 0, 0, 0, 255])),
            ("more than there may be", encoded(&core::array::from_fn::<u8, 75, _>(|i| i as u8), [76; ROWS])),
            ("something behind the last place", encoded(&[1, 2, 3, 1], [3; ROWS])),
            ("something at the very end", {
                let mut bytes = encoded(&[1], [1; ROWS]);
                bytes[OMEGA - 1] = 1;
                bytes
            }),
        ] {
            assert_eq!(hint(&bytes), None, "{why}");
        }
        // Any other single byte in place of each: as the standard says.
        let mut accepted = 0;
        for bytes in good {
            for at in 0..HINT_BYTES {
                for value in 0..=255 {
                    let mut bytes = bytes;
                    bytes[at] = value;
                    accepted += usize::from(hint(&bytes).is_some());
                }
            }
        }
        assert!(accepted > 1000);
    }

    /// Algorithms 36, 37 and 40 as they are written, for every number below q.
    #[test]
    fn every_number_is_rounded_as_the_standard_says() {
        let (alpha, q) = (2 * (i64::from(Q) - 1) / 32, i64::from(Q));
        for r in 0..q {
            let mut low = r % alpha;
            if low > alpha / 2 {
                low -= alpha;
            }
            let high = if r - low == q - 1 { 0 } else { (r - low) / alpha };
            if r - low == q - 1 {
                low -= 1;
            }
            assert_eq!(high_bits(r as u64) as i64, high, "{r}");
            let hinted = if low > 0 { (high + 1) % 16 } else { (high + 15) % 16 };
            assert_eq!(use_hint(r as u64) as i64, hinted, "{r}");
        }
    }

    /// w1Encode: four bits for each coefficient; hints change those that they name and no others.
    #[test]
    fn rounded_coefficients_are_absorbed_in_order() {
        let w: Wide = core::array::from_fn(|i| (i as u64 * 32_749 + 77) % Q64);
        for hint in [&[][..], &[0], &[255], &[1, 2, 3, 100, 254]] {
            let values = core::array::from_fn(|i| {
                if hint.contains(&(i as u8)) { use_hint(w[i]) } else { high_bits(w[i]) }
            });
            let (mut ours, mut plain) = (Sponge::new(), Sponge::<SHAKE256>::new());
            absorb_rounded(&mut { w }, hint, &mut ours);
            plain.absorb(&packed::<128>(&values, 4));
            assert_eq!(ours.finish().digest(), plain.finish().digest());
        }
    }
}
