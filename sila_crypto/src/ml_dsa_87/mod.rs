//! Verification of ML-DSA-87 (FIPS 204), for public data only.
//!
//! Keys, signatures and messages are public, so nothing here takes care to run in constant time, and nothing that is
//! secret may be given to it. The names are those of FIPS 204. A key is decoded once: its matrix is drawn and its t
//! transformed. A verification allocates nothing.
//!
//! - [`field`]: numbers modulo q;
//! - [`ntt`]: polynomials and their transforms;
//! - [`sponge`]: SHAKE128 and SHAKE256;
//! - [`sampling`]: matrix and challenge;
//! - [`encoding`]: bytes, rounding, hints.

mod encoding;
mod field;
mod ntt;
mod sampling;
mod sponge;

use alloc::boxed::Box;
use alloc::vec;
use encoding::{HINT_BYTES, ROWS, T_BYTES, Z_BYTES, Z_LEN};
use ntt::{COLUMNS, Kept, N};
use sponge::{SHAKE256, Sponge};

/// Bytes of a public key.
pub const KEY_LEN: usize = 32 + ROWS * T_BYTES;
/// Bytes of a signature.
pub const SIGNATURE_LEN: usize = 64 + Z_LEN * Z_BYTES + HINT_BYTES;

const _: () = assert!(KEY_LEN == 2592 && SIGNATURE_LEN == 4627 && COLUMNS == Z_LEN + 1);

/// A decoded public key: 64 KiB of heap.
#[derive(Clone)]
pub struct PublicKey {
    /// Each row of the matrix, and behind it minus that row's t times 2^d: all as transforms.
    rows: Box<[[Kept; COLUMNS]]>,
    /// tr, the hash of the key.
    hash: [u8; 64],
}

impl PublicKey {
    /// Decodes a public key; any bytes are one (FIPS 204, algorithm 23).
    pub fn decode(bytes: &[u8; KEY_LEN]) -> Self {
        let mut rows = vec![[[0; N]; COLUMNS]; ROWS].into_boxed_slice();
        let mut sponge = Sponge::<SHAKE256>::new();
        sponge.absorb(bytes);
        if let Some((rho, t)) = bytes.split_first_chunk() {
            let mut wide = [0; N];
            for ((row, t), i) in rows.iter_mut().zip(t.as_chunks().0).zip(0..) {
                let [matrix @ .., last] = row;
                for (entry, j) in matrix.iter_mut().zip(0..) {
                    sampling::matrix_entry(rho, i, j, entry);
                }
                encoding::unpack_t_negated(t, &mut wide);
                ntt::transform(&mut wide);
                // Below 9q, which is below 2^27.
                last.iter_mut().zip(wide).for_each(|(kept, number)| *kept = number as u32);
            }
        }
        Self { rows, hash: sponge.finish().digest() }
    }

    /// Whether `signature` is one of this key over `message` in `context`; never, if the context is longer than 255
    /// bytes (FIPS 204, algorithms 3 and 8).
    pub fn verify(&self, context: &[u8], message: &[u8], signature: &[u8; SIGNATURE_LEN]) -> bool {
        self.check(context, message, signature).is_some_and(|valid| valid)
    }

    /// The same; `None` if something is malformed.
    fn check(&self, context: &[u8], message: &[u8], signature: &[u8; SIGNATURE_LEN]) -> Option<bool> {
        let context_len = u8::try_from(context.len()).ok()?;
        let (seed, rest) = signature.split_first_chunk::<64>()?;
        let (z, hint) = rest.split_last_chunk::<HINT_BYTES>()?;
        let hints = encoding::unpack_hint(hint)?;

        // The transforms of z, and behind them that of the challenge.
        let mut column = [[0; N]; COLUMNS];
        let [polynomials @ .., challenge] = &mut column;
        for (polynomial, bytes) in polynomials.iter_mut().zip(z.as_chunks().0) {
            if !encoding::unpack_z(bytes, polynomial) {
                return None;
            }
        }
        sampling::challenge(seed, challenge);
        column.iter_mut().for_each(ntt::transform);

        let mut sponge = Sponge::<SHAKE256>::new();
        sponge.absorb(&self.hash);
        sponge.absorb(&[0, context_len]);
        sponge.absorb(context);
        sponge.absorb(message);
        let message_hash = sponge.finish().digest();

        let mut sponge = Sponge::<SHAKE256>::new();
        sponge.absorb(&message_hash);
        let mut w = [0; N];
        for (row, hint) in self.rows.iter().zip(hints) {
            ntt::product(row, &column, &mut w);
            ntt::inverse(&mut w);
            encoding::absorb_rounded(&mut w, hint, &mut sponge);
        }
        Some(sponge.finish().digest() == *seed)
    }
}

#[cfg(test)]
mod tests;
