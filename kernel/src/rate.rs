//! Rate limits: a bucket of tokens that refills with time, kept as one number.

/// Nanoseconds between two tokens of a bucket that never refills in practice (about 104 days).
const NEVER: u64 = 1 << 53;

/// When the bucket would be full again if nothing were taken from now on, in ns since boot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Bucket(u64);

impl Bucket {
    /// Takes one of `burst` tokens that refill at `per_second`; if there is none, the nanoseconds until there is.
    pub fn take(&mut self, now: u64, burst: u32, per_second: u32) -> Result<(), u64> {
        let interval = 1_000_000_000u64.checked_div(per_second.into()).unwrap_or(NEVER);
        let room = interval.saturating_mul(u64::from(burst).saturating_sub(1));
        let full = self.0.max(now);
        match (full - now).saturating_sub(room) {
            0 => {
                self.0 = full.saturating_add(interval);
                Ok(())
            }
            wait => Err(wait),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_burst_is_granted_and_then_as_many_as_refill() {
        let mut bucket = Bucket::default();
        let start = 5_000_000_000;
        assert!((0..4).all(|_| bucket.take(start, 4, 10).is_ok()));
        assert_eq!(bucket.take(start, 4, 10), Err(100_000_000));
        assert_eq!(bucket.take(start + 99_999_999, 4, 10), Err(1));
        assert_eq!(bucket.take(start + 100_000_000, 4, 10), Ok(()));
        assert_eq!(bucket.take(start + 100_000_000, 4, 10), Err(100_000_000));
    }

    #[test]
    fn a_rate_of_zero_grants_the_burst_alone() {
        let mut bucket = Bucket::default();
        assert!(bucket.take(1, 2, 0).is_ok() && bucket.take(1, 2, 0).is_ok());
        assert!(bucket.take(3_600_000_000_000, 2, 0).is_err());
    }

    proptest! {
        #[test]
        fn never_more_than_burst_and_rate_allow(steps in proptest::collection::vec(0u64..400_000_000, 1..200), burst in 1u32..9, rate in 1u32..20) {
            let (mut bucket, mut now, mut granted) = (Bucket::default(), 0, 0u64);
            for step in steps {
                now += step;
                granted += u64::from(bucket.take(now, burst, rate).is_ok());
                let interval = 1_000_000_000 / u64::from(rate);
                prop_assert!(granted <= u64::from(burst) + now / interval);
            }
        }
    }
}
