//! What is drawn from a seed: the matrix and the challenge (FIPS 204, algorithms 29, 30 and 32).

use super::field::{Q, Q64};
use super::ntt::{Kept, N, Wide};
use super::sponge::{Output, SHAKE128, SHAKE256, Sponge};

/// Coefficients of the challenge that are not zero.
const TAU: usize = 60;

/// The polynomial of the matrix at `row` and `column`, as its transform, into `polynomial`.
pub fn matrix_entry(rho: &[u8; 32], row: u8, column: u8, polynomial: &mut Kept) {
    let mut sponge = Sponge::<SHAKE128>::new();
    sponge.absorb(rho);
    sponge.absorb(&[column, row]);
    let mut output = sponge.finish();
    let mut places = polynomial.iter_mut();
    // Each block fills at most 56 places: five of them are needed, more than six nearly never.
    while !fill(&mut places, &output) {
        output.advance();
    }
}

/// Puts the numbers below q of one block into `places`; true if there was one for each.
fn fill(places: &mut core::slice::IterMut<u32>, output: &Output<SHAKE128>) -> bool {
    let (groups, _) = output.block().as_chunks::<3>();
    for &[a, b, c] in groups {
        let numbers = [a, a >> 24, a >> 48 | b << 16, b >> 8, b >> 32, b >> 56 | c << 8, c >> 16, c >> 40];
        for number in numbers {
            let number = number as u32 & 0x7f_ffff;
            if number < Q {
                let Some(place) = places.next() else { return true };
                *place = number;
            }
        }
    }
    places.len() == 0
}

/// The challenge that follows from `seed`, into `polynomial`: coefficients 0, 1 and q - 1.
pub fn challenge(seed: &[u8; 64], polynomial: &mut Wide) {
    let mut sponge = Sponge::<SHAKE256>::new();
    sponge.absorb(seed);
    let mut bytes = Bytes { output: sponge.finish(), at: 8 };
    let [mut signs, ..] = *bytes.output.block();
    polynomial.fill(0);
    for i in N - TAU..N {
        let mut j = bytes.next();
        while j > i {
            j = bytes.next();
        }
        if let Some(&moved) = polynomial.get(j) {
            polynomial[i] = moved;
        }
        if let Some(place) = polynomial.get_mut(j) {
            *place = if signs & 1 == 0 { 1 } else { Q64 - 1 };
        }
        signs >>= 1;
    }
}

/// Output of SHAKE256, byte by byte.
struct Bytes {
    output: Output<SHAKE256>,
    /// Bytes of the block that are spent.
    at: usize,
}

impl Bytes {
    fn next(&mut self) -> usize {
        if self.at >= 8 * SHAKE256 {
            self.output.advance();
            self.at = 0;
        }
        let lane = self.output.block().get(self.at / 8).map_or(0, |lane| *lane);
        let byte = lane >> (8 * (self.at % 8)) & 0xff;
        // At most the length of a block.
        self.at = self.at.wrapping_add(1);
        byte as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shake::digest::{ExtendableOutput, Update, XofReader};
    use shake::{Shake128, Shake256};

    fn seed<const LEN: usize>(number: u32) -> [u8; LEN] {
        core::array::from_fn(|i| (number >> (8 * (i % 4))) as u8 ^ i as u8)
    }

    /// Bytes of another implementation, one by one.
    fn bytes_of(reader: &mut impl XofReader) -> u8 {
        let mut byte = [0];
        reader.read(&mut byte);
        byte[0]
    }

    /// Algorithm 30, as it is written.
    #[test]
    fn matrix_entries_are_those_of_the_standard() {
        for number in 0..300 {
            let (rho, row, column) = (seed(number), (number % 8) as u8, (number % 7) as u8);
            let mut entry = [0; N];
            matrix_entry(&rho, row, column, &mut entry);
            let mut shake = Shake128::default();
            shake.update(&rho);
            shake.update(&[column, row]);
            let mut shake = shake.finalize_xof();
            for (n, coefficient) in entry.into_iter().enumerate() {
                let expected = loop {
                    let [low, middle, high] = core::array::from_fn(|_| u32::from(bytes_of(&mut shake)));
                    let number = (high & 127) << 16 | middle << 8 | low;
                    if number < Q {
                        break number;
                    }
                };
                assert_eq!(coefficient, expected, "seed {number}, coefficient {n}");
            }
        }
    }

    /// A block in which numbers from q on fill nothing, and one that has more numbers than there are places.
    #[test]
    fn numbers_from_q_on_are_left_out() {
        let number = |n: u32| -> [u8; 3] { core::array::from_fn(|i| (n >> (8 * i)) as u8) };
        let numbers = [Q, Q - 1, 0x7f_ffff, 0x80_0000, 0xff_ffff, 0x80_0000 | (Q - 1), 0x80_0000 | Q, 5];
        let bytes: Vec<u8> = numbers.into_iter().flat_map(number).cycle().take(168).collect();
        let lanes = bytes.as_chunks().0.iter().map(|lane| u64::from_le_bytes(*lane));
        let mut state = [0; 25];
        state.iter_mut().zip(lanes).for_each(|(place, lane)| *place = lane);
        let output = Output::of(state);
        let mut places = [1; 40];
        let mut left = places.iter_mut();
        assert!(!fill(&mut left, &output));
        assert_eq!(left.len(), 40 - 7 * 4);
        assert_eq!(places[..8], [Q - 1, 0, Q - 1, 5, Q - 1, 0, Q - 1, 5]);
        let mut places = [1; 3];
        assert!(fill(&mut places.iter_mut(), &output));
        assert_eq!(places, [Q - 1, 0, Q - 1]);
    }

    /// Algorithm 29, as it is written.
    #[test]
    fn challenges_are_those_of_the_standard() {
        for number in 0..2000 {
            let seed = seed(number);
            let mut ours = [7; N];
            challenge(&seed, &mut ours);
            let mut shake = Shake256::default();
            shake.update(&seed);
            let mut shake = shake.finalize_xof();
            let signs: [u8; 8] = core::array::from_fn(|_| bytes_of(&mut shake));
            let mut expected = [0; N];
            for i in N - TAU..N {
                let j = loop {
                    let byte = usize::from(bytes_of(&mut shake));
                    if byte <= i {
                        break byte;
                    }
                };
                expected[i] = expected[j];
                let sign = i + TAU - N;
                expected[j] = if signs[sign / 8] >> (sign % 8) & 1 == 1 { Q64 - 1 } else { 1 };
            }
            assert_eq!(ours, expected, "seed {number}");
            assert_eq!(ours.iter().filter(|c| **c != 0).count(), TAU);
        }
    }

    /// A challenge that needs more than one block goes on in the next.
    #[test]
    fn bytes_go_on_from_block_to_block() {
        let mut ours = Bytes { output: Sponge::<SHAKE256>::new().finish(), at: 0 };
        let mut shake = Shake256::default().finalize_xof();
        for _ in 0..400 {
            assert_eq!(ours.next(), usize::from(bytes_of(&mut shake)));
        }
    }
}
