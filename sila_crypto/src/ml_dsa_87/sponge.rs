//! SHAKE128 and SHAKE256 (FIPS 202), in lanes of 64 bits, around the permutation of the crate `keccak`.

use keccak::{Keccak, State1600};

/// Bytes of a lane.
const LANE: usize = 8;
/// Lanes of a block of SHAKE128.
pub const SHAKE128: usize = 21;
/// Lanes of a block of SHAKE256.
pub const SHAKE256: usize = 17;

/// A sponge that takes in.
pub struct Sponge<const LANES: usize> {
    state: State1600,
    /// Bytes of the block that were taken in: fewer than it has.
    taken: usize,
}

impl<const LANES: usize> Sponge<LANES> {
    /// One that has seen nothing.
    pub const fn new() -> Self {
        Self { state: [0; 25], taken: 0 }
    }

    /// Takes in `bytes`.
    pub fn absorb(&mut self, bytes: &[u8]) {
        let (mut lanes, mut rest) = bytes.as_chunks::<LANE>();
        if !self.taken.is_multiple_of(LANE) {
            (lanes, rest) = (&[], bytes);
        }
        for lane in lanes {
            self.absorb_lane(u64::from_le_bytes(*lane));
        }
        for byte in rest {
            self.add(u64::from(*byte) << (8 * (self.taken % LANE)), 1);
        }
    }

    /// Takes in eight bytes, the lowest first; what was taken in before must be whole lanes.
    pub fn absorb_lane(&mut self, lane: u64) {
        self.add(lane, LANE);
    }

    /// Adds `bits`, which stand for so many bytes, to the lane that is next.
    fn add(&mut self, bits: u64, bytes: usize) {
        if let Some(lane) = self.state.get_mut(self.taken / LANE) {
            *lane ^= bits;
        }
        // At most one block.
        self.taken = self.taken.wrapping_add(bytes);
        if self.taken >= LANES * LANE {
            permute(&mut self.state);
            self.taken = 0;
        }
    }

    /// Ends the input.
    pub fn finish(mut self) -> Output<LANES> {
        if let Some(lane) = self.state.get_mut(self.taken / LANE) {
            // SHAKE's 1111 and the first bit of the padding.
            *lane ^= 0x1f << (8 * (self.taken % LANE));
        }
        if let Some(lane) = self.state.get_mut(LANES - 1) {
            *lane ^= 1 << 63;
        }
        permute(&mut self.state);
        Output { state: self.state }
    }
}

/// A sponge that gives out, block by block.
pub struct Output<const LANES: usize> {
    state: State1600,
}

impl<const LANES: usize> Output<LANES> {
    /// One whose first block is the beginning of `state`.
    #[cfg(test)]
    pub const fn of(state: State1600) -> Self {
        Self { state }
    }

    /// The block that is next.
    pub fn block(&self) -> &[u64; LANES] {
        const { assert!(LANES < 25) };
        self.state.first_chunk().unwrap_or(&[0; LANES])
    }

    /// Goes on to the block after it.
    pub fn advance(&mut self) {
        permute(&mut self.state);
    }

    /// The first 64 bytes.
    pub fn digest(&self) -> [u8; 64] {
        let mut digest = [0; 64];
        for (bytes, lane) in digest.as_chunks_mut().0.iter_mut().zip(self.block()) {
            *bytes = lane.to_le_bytes();
        }
        digest
    }
}

fn permute(state: &mut State1600) {
    Keccak::new().with_f1600(|f| f(state));
}

#[cfg(test)]
mod tests {
    use super::*;
    use shake::digest::{ExtendableOutput, Update, XofReader};
    use shake::{Shake128, Shake256};

    /// Our output against another implementation's: inputs of many lengths, in two pieces, and three blocks of output.
    fn compare<const LANES: usize, Other: Default + Update + ExtendableOutput>() {
        let input: Vec<u8> = (0..600_u32).map(|i| (i * 7 + 3) as u8).collect();
        for len in 0..input.len() {
            let (first, second) = input[..len].split_at(len * len % (len + 1));
            let mut sponge = Sponge::<LANES>::new();
            sponge.absorb(first);
            sponge.absorb(second);
            let mut ours = sponge.finish();
            let mut other = Other::default();
            other.update(&input[..len]);
            let mut other = other.finalize_xof();
            for block in 0..3 {
                for lane in ours.block() {
                    let mut bytes = [0; 8];
                    other.read(&mut bytes);
                    assert_eq!(lane.to_le_bytes(), bytes, "{len} bytes, block {block}");
                }
                ours.advance();
            }
        }
    }

    #[test]
    fn both_sponges_are_shake() {
        compare::<SHAKE128, Shake128>();
        compare::<SHAKE256, Shake256>();
    }

    #[test]
    fn a_digest_is_the_first_64_bytes() {
        let mut digest = [0; 64];
        Shake256::default().finalize_xof().read(&mut digest);
        assert_eq!(Sponge::<SHAKE256>::new().finish().digest(), digest);
    }
}
