//! The number-theoretic transform (FIPS 204, algorithms 41 and 42) and products of what it gives.
//!
//! Two layers are done at a time, so that each coefficient is loaded and stored four times in all, and sums are not
//! reduced. How large they become is written beside each function.

use super::field::{Q64, factor, multiply, power, reduce, two_to_the_64};

/// Columns of a row: the seven of the matrix, and t.
pub const COLUMNS: usize = 8;
/// Coefficients of a polynomial.
pub const N: usize = 256;
/// A polynomial in work, or its transform.
pub type Wide = [u64; N];
/// A transform that is kept.
pub type Kept = [u32; N];

/// zeta of FIPS 204: a 512th root of unity.
const ZETA: u32 = 1753;

/// Factors of the roots zeta^brv(k), in the order in which [`transform`] meets them: the one of block b in the layer of
/// 2^n blocks is at 2^n + b.
static ROOTS: [u64; N] = roots();
/// The same for [`inverse`]: each undoes the one at the same place.
static INVERSE_ROOTS: [u64; N] = inverse_roots();
/// 1 / 256, and what [`product`] leaves to be done: a multiplication by -2^64.
const SCALE: u32 = (power(256, Q64 as u32 - 2) as u64 * (Q64 - two_to_the_64()) % Q64) as u32;

/// The exponent at place k: the bits of k in reverse.
const fn exponent(k: usize) -> u32 {
    (k as u8).reverse_bits() as u32
}

const fn roots() -> [u64; N] {
    let mut table = [0; N];
    let mut k = 0;
    while k < N {
        table[k] = factor(power(ZETA, exponent(k)));
        k += 1;
    }
    table
}

const fn inverse_roots() -> [u64; N] {
    let mut table = [0; N];
    let mut k = 0;
    while k < N {
        table[k] = factor(power(ZETA, 512 - exponent(k)));
        k += 1;
    }
    table
}

/// Transforms `f` in place. Coefficients below `b` become ones below b + 8q, which must not be above 2^40: each layer
/// adds a number below q, or q less such a one.
pub fn transform(f: &mut Wide) {
    transform_layers::<64>(f);
    transform_layers::<16>(f);
    transform_layers::<4>(f);
    transform_layers::<1>(f);
}

/// The layers of distance 2 * `LEN` and `LEN`.
fn transform_layers<const LEN: usize>(f: &mut Wide) {
    let blocks = N / (4 * LEN);
    let first = ROOTS.iter().skip(blocks);
    let (second, _) = ROOTS.as_chunks::<2>();
    let second = second.iter().skip(blocks);
    for ((block, &root), &[left, right]) in f.chunks_exact_mut(4 * LEN).zip(first).zip(second) {
        for [a, b, c, d] in quarters(block) {
            let (x, y) = forward(*a, *c, root);
            let (z, w) = forward(*b, *d, root);
            (*a, *b) = forward(x, z, left);
            (*c, *d) = forward(y, w, right);
        }
    }
}

/// a + root * b and a - root * b.
fn forward(a: u64, b: u64, root: u64) -> (u64, u64) {
    let product = multiply(b, root);
    (a.wrapping_add(product), a.wrapping_add(Q64).wrapping_sub(product))
}

/// Undoes [`transform`] in place, and what [`product`] leaves to be undone. Coefficients are below q, before and after.
/// In between each layer doubles their bound: 256q is below 2^31.
pub fn inverse(f: &mut Wide) {
    inverse_layers::<1>(f);
    inverse_layers::<4>(f);
    inverse_layers::<16>(f);
    inverse_layers::<64>(f);
}

/// The layers of distance `LEN` and 2 * `LEN`: coefficients below LEN * q become ones below 4 * LEN * q. After the last
/// one each is multiplied by `SCALE`.
fn inverse_layers<const LEN: usize>(f: &mut Wide) {
    const SCALE_FACTOR: u64 = factor(SCALE);
    const SCALED_ROOT: u64 = factor((power(ZETA, 512 - exponent(1)) as u64 * SCALE as u64 % Q64) as u32);
    let bound = LEN as u64 * Q64;
    let blocks = N / (4 * LEN);
    let last = INVERSE_ROOTS.iter().skip(blocks);
    let (first, _) = INVERSE_ROOTS.as_chunks::<2>();
    let first = first.iter().skip(blocks);
    for ((block, &[left, right]), &root) in f.chunks_exact_mut(4 * LEN).zip(first).zip(last) {
        let root = if blocks == 1 { SCALED_ROOT } else { root };
        for [a, b, c, d] in quarters(block) {
            let (x, y) = backward(*a, *b, bound, left);
            let (z, w) = backward(*c, *d, bound, right);
            (*a, *c) = backward(x, z, 2 * bound, root);
            (*b, *d) = backward(y, w, Q64, root);
            if blocks == 1 {
                *a = multiply(*a, SCALE_FACTOR);
                *b = multiply(*b, SCALE_FACTOR);
            }
        }
    }
}

/// a + b and (a - b) * root, for `b` not above `bound`, which is a multiple of q.
fn backward(a: u64, b: u64, bound: u64, root: u64) -> (u64, u64) {
    (a.wrapping_add(b), multiply(a.wrapping_add(bound).wrapping_sub(b), root))
}

/// Coefficients of a block that are a quarter of it apart, four by four.
fn quarters(block: &mut [u64]) -> impl Iterator<Item = [&mut u64; 4]> {
    let (left, right) = block.split_at_mut(block.len() / 2);
    let (a, b) = left.split_at_mut(left.len() / 2);
    let (c, d) = right.split_at_mut(right.len() / 2);
    a.iter_mut().zip(b).zip(c).zip(d).map(|(((a, b), c), d)| [a, b, c, d])
}

/// The sum of the products of row and column, coefficient by coefficient, divided by -2^64, into `sum`: below q.
///
/// Coefficients are below 16q: eight products of such are below 2^57.
pub fn product(row: &[Kept; COLUMNS], column: &[Wide; COLUMNS], sum: &mut Wide) {
    for (n, place) in sum.iter_mut().enumerate() {
        let products = row.iter().zip(column).map(|(a, b)| u64::from(a[n]).wrapping_mul(b[n]));
        *place = u64::from(reduce(products.fold(0, u64::wrapping_add)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers below `bound` that follow from `seed`.
    fn numbers(seed: u64, bound: u64) -> impl Iterator<Item = u64> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        core::iter::from_fn(move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            Some((state >> 20) % bound)
        })
    }

    fn polynomial(seed: u64, bound: u64) -> Wide {
        let mut numbers = numbers(seed, bound);
        core::array::from_fn(|_| numbers.next().unwrap_or(0))
    }

    /// The product modulo x^256 + 1 and q, the plain way.
    fn schoolbook(a: &Wide, b: &Wide) -> Wide {
        let mut product = [0; N];
        for (i, x) in a.iter().enumerate() {
            for (j, y) in b.iter().enumerate() {
                let part = x % Q64 * (y % Q64) % Q64;
                let place = &mut product[(i + j) % N];
                *place = (*place + if i + j < N { part } else { Q64 - part }) % Q64;
            }
        }
        product
    }

    fn kept(f: &Wide) -> Kept {
        f.map(|c| c as u32)
    }

    /// A row of transforms times a column of such, and back.
    fn multiplied(row: &[Wide; COLUMNS], column: &[Wide; COLUMNS]) -> Wide {
        let transformed = |f: &Wide| {
            let mut f = *f;
            transform(&mut f);
            f
        };
        let mut sum = [0; N];
        product(
            &row.each_ref().map(|f| kept(&transformed(f))),
            &column.each_ref().map(transformed),
            &mut sum,
        );
        inverse(&mut sum);
        sum
    }

    /// Algorithm 41 says: the value of the polynomial at zeta^(2 brv(k) + 1), at place k.
    #[test]
    fn a_transform_is_the_values_at_the_roots() {
        for seed in 0..20 {
            let f = polynomial(seed, 2 * Q64);
            let mut transformed = f;
            transform(&mut transformed);
            for (k, value) in transformed.into_iter().enumerate() {
                let root = u64::from(power(ZETA, 2 * exponent(k) + 1));
                let expected = f.iter().rev().fold(0, |sum, c| (sum * root + c) % Q64);
                assert_eq!(value % Q64, expected, "{k}");
            }
        }
    }

    #[test]
    fn products_are_those_of_the_schoolbook() {
        for seed in 0..12 {
            let row = core::array::from_fn(|i| polynomial(seed * 100 + i as u64, Q64 + 1));
            let column = core::array::from_fn(|i| polynomial(seed * 100 + 50 + i as u64, 2 * Q64));
            let mut expected = [0; N];
            for (a, b) in row.iter().zip(&column) {
                let product = schoolbook(a, b);
                expected.iter_mut().zip(product).for_each(|(sum, c)| *sum = (*sum + c) % Q64);
            }
            assert_eq!(multiplied(&row, &column), expected, "{seed}");
        }
    }

    /// The largest coefficients that there are, and x^n for every n, which no cancellation hides.
    #[test]
    fn products_hold_at_their_extremes() {
        let (zero, largest) = ([0; N], [2 * Q64 - 1; N]);
        let mut expected = schoolbook(&[Q64 - 1; N], &largest);
        expected.iter_mut().for_each(|c| *c = *c * COLUMNS as u64 % Q64);
        assert_eq!(multiplied(&[[Q64 - 1; N]; COLUMNS], &[largest; COLUMNS]), expected);
        let f = polynomial(1, Q64);
        for n in 0..N {
            let mut power = zero;
            power[n] = 1;
            let at = n % COLUMNS;
            let (mut row, mut column) = ([zero; COLUMNS], [zero; COLUMNS]);
            (row[at], column[at]) = (f, power);
            assert_eq!(multiplied(&row, &column), schoolbook(&f, &power), "{n}");
        }
    }

    /// What the bounds beside the functions say.
    #[test]
    fn coefficients_stay_within_their_bounds() {
        for seed in 0..50 {
            let bound = if seed == 0 { 1 } else { 2 * Q64 };
            let mut f = polynomial(seed, bound).map(|c| 2 * Q64 - 1 - c);
            transform(&mut f);
            assert!(f.iter().all(|c| *c < 10 * Q64));
            let mut g = polynomial(seed, if seed == 0 { 1 } else { Q64 }).map(|c| Q64 - 1 - c);
            inverse(&mut g);
            assert!(g.iter().all(|c| *c < Q64));
        }
        // Eight products of the largest numbers that the function is made for.
        let mut sum = [0; N];
        product(&[[16 * Q64 as u32 - 1; N]; COLUMNS], &[[16 * Q64 - 1; N]; COLUMNS], &mut sum);
        let exact = 8 * u128::from(16 * Q64 - 1).pow(2);
        assert!(exact < 1 << 57);
        assert_eq!(sum, [u64::from(reduce(exact as u64)); N]);
    }
}
