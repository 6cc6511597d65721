//! Arithmetic modulo q = 8380417 (FIPS 204, section 2.3) without tables, branches or divisions at run time.
//!
//! Everything is unsigned. Numbers in work are of type `u64` and may be larger than q; each function says by how much.
//! One step multiplies and reduces: from `x` it makes the number below q that is congruent to -x / 2^64, for any
//! `x` there is. What is multiplied with a number that is known beforehand is multiplied with its [`factor`] instead,
//! where the -2^64 is already in: so it cancels out, and no number is ever kept in another form than its own.

/// The modulus: 2^23 - 2^13 + 1.
pub const Q: u32 = 8_380_417;
/// The modulus where numbers are wide.
pub const Q64: u64 = Q as u64;
/// 1 / q modulo 2^64.
const Q_INVERSE: u64 = inverse_of_q();

/// Newton's iteration: an inverse modulo 2^n becomes one modulo 2^2n. q is its own inverse modulo 2^3.
const fn inverse_of_q() -> u64 {
    let mut inverse = Q64;
    let mut bits = 3;
    while bits < 64 {
        inverse = inverse.wrapping_mul(2_u64.wrapping_sub(Q64.wrapping_mul(inverse)));
        bits *= 2;
    }
    inverse
}

/// -x / 2^64 modulo q, below q, for every `x`.
///
/// Let p = x / q modulo 2^64. Then p * q = k * 2^64 + x, since x is what the product leaves modulo 2^64; so k, the
/// product's high half, is congruent to -x / 2^64, and as p is below 2^64, k is below q.
pub const fn reduce(x: u64) -> u32 {
    let p = x.wrapping_mul(Q_INVERSE);
    high_half_of_multiple(p)
}

/// `x` times the number that `factor` was made of, modulo q and below q, for `x` below 2^40.
///
/// The factor is f / q modulo 2^64 with f below q. Below 2^40, x * f is below 2^63 and therefore exactly what `reduce`
/// would be given.
pub const fn multiply(x: u64, factor: u64) -> u64 {
    high_half_of_multiple(x.wrapping_mul(factor)) as u64
}

/// The high 64 bits of p * q, a number below q.
const fn high_half_of_multiple(p: u64) -> u32 {
    ((p as u128 * Q as u128) >> 64) as u32
}

/// What to give to [`multiply`] for a multiplication by `number`, which is below q.
pub const fn factor(number: u32) -> u64 {
    // -2^64 modulo q: it takes away what the reduction brings in.
    let correction = Q64 - two_to_the_64();
    // Below q^2, which is below 2^46.
    let corrected = number as u64 * correction % Q64;
    corrected.wrapping_mul(Q_INVERSE)
}

/// 2^64 modulo q.
pub const fn two_to_the_64() -> u64 {
    (u64::MAX % Q64 + 1) % Q64
}

/// `base` to the power `exponent` modulo q, for the tables.
pub const fn power(base: u32, exponent: u32) -> u32 {
    let (mut square, mut rest, mut result) = (base as u64, exponent, 1);
    while rest > 0 {
        if rest & 1 == 1 {
            result = result * square % Q64;
        }
        square = square * square % Q64;
        rest >>= 1;
    }
    result as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `x` times `y` modulo q, the plain way.
    fn product(x: u64, y: u64) -> u64 {
        (u128::from(x) * u128::from(y) % u128::from(Q)) as u64
    }

    /// Whether `reduce` keeps its word for `x`.
    fn reduces(x: u64) -> bool {
        let reduced = u64::from(reduce(x));
        reduced < Q64 && product(reduced, two_to_the_64()) == (Q64 - x % Q64) % Q64
    }

    /// Multiples of q and what lies around them, and powers of two and what lies around those.
    fn extremes() -> Vec<u64> {
        let multiples = [0, 1, 2, 255, 256, 257, u64::MAX / Q64 - 1, u64::MAX / Q64];
        let powers = (0..64).map(|bit| 1 << bit);
        let middles = multiples.into_iter().map(|n| n * Q64).chain(powers).chain([u64::MAX]);
        middles.flat_map(|m| [m.wrapping_sub(1), m, m.wrapping_add(1)]).collect()
    }

    #[test]
    fn constants_are_what_they_are_said_to_be() {
        assert_eq!(Q, (1 << 23) - (1 << 13) + 1);
        assert_eq!(Q64.wrapping_mul(Q_INVERSE), 1);
        assert_eq!(u128::from(two_to_the_64()), (1_u128 << 64) % u128::from(Q));
        // The root of unity of FIPS 204: of order 512.
        assert_eq!((power(1753, 256), power(1753, 512)), (Q - 1, 1));
    }

    #[test]
    fn reduction_holds_at_its_extremes() {
        for x in extremes() {
            assert!(reduces(x), "{x}");
        }
    }

    #[test]
    fn multiplication_holds_at_its_extremes() {
        for number in [0, 1, 2, 1753, Q / 2, Q / 2 + 1, Q - 2, Q - 1] {
            for x in extremes().into_iter().filter(|x| *x < 1 << 40).chain([(1 << 40) - 1]) {
                let result = multiply(x, factor(number));
                assert!(result < Q64);
                assert_eq!(result, product(x, u64::from(number)), "{x} times {number}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100_000))]

        #[test]
        fn reduction_holds_everywhere(x: u64) {
            prop_assert!(reduces(x));
        }

        #[test]
        fn multiplication_holds_everywhere(x in 0..1_u64 << 40, number in 0..Q) {
            prop_assert_eq!(multiply(x, factor(number)), product(x, u64::from(number)));
        }
    }
}
