//! Security decisions in memory (the book, Trust, "Secure booleans").

use core::fmt;

/// A stored security decision: two 32-bit patterns, 32 bits apart. Any other value denies.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct SecureBool(u32);

/// A stored decision holds neither pattern: memory is corrupt. Treat as denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IntegrityFault;

impl fmt::Display for IntegrityFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a stored security decision is corrupt")
    }
}

impl core::error::Error for IntegrityFault {}

const YES: u32 = 0xa5c3_69d2;
const NO: u32 = !YES;

impl SecureBool {
    /// Allowed.
    pub const ALLOW: Self = Self(YES);
    /// Denied.
    pub const DENY: Self = Self(NO);

    /// The pattern for `allowed`.
    pub const fn new(allowed: bool) -> Self {
        if allowed { Self::ALLOW } else { Self::DENY }
    }

    /// A value as it stands in memory; it need not be one of the two patterns.
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The value as it stands in memory.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// The decision, or the fault.
    pub const fn read(self) -> Result<bool, IntegrityFault> {
        match self.0 {
            YES => Ok(true),
            NO => Ok(false),
            _ => Err(IntegrityFault),
        }
    }

    /// Whether it is exactly the allowing pattern.
    pub const fn is_allowed(self) -> bool {
        self.0 == YES
    }
}

impl Default for SecureBool {
    fn default() -> Self {
        Self::DENY
    }
}

impl fmt::Debug for SecureBool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.read() {
            Ok(true) => "allow",
            Ok(false) => "deny",
            Err(IntegrityFault) => "corrupt",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secure_bool_round_trips_and_defaults_to_deny() {
        assert_eq!(SecureBool::new(true).read(), Ok(true));
        assert_eq!(SecureBool::new(false).read(), Ok(false));
        assert!(!SecureBool::default().is_allowed());
    }

    #[test]
    fn every_one_and_two_bit_flip_of_a_secure_bool_is_a_fault() {
        for start in [SecureBool::ALLOW, SecureBool::DENY] {
            for a in 0..32 {
                for b in 0..32 {
                    let flipped =
                        SecureBool::from_bits(start.bits() ^ (1 << a) ^ if a == b { 0 } else { 1 << b });
                    assert_eq!(flipped.read(), Err(IntegrityFault));
                    assert!(!flipped.is_allowed());
                }
            }
        }
    }

    #[test]
    fn secure_bool_denies_zero_and_ones() {
        assert_eq!(SecureBool::from_bits(0).read(), Err(IntegrityFault));
        assert_eq!(SecureBool::from_bits(u32::MAX).read(), Err(IntegrityFault));
    }
}
