//! Time since boot.

use crate::op;
use sila_abi::protocol::layout::CLOCK;
use sila_abi::syscall::FOREVER;

/// A microsecond in nanoseconds.
pub const MICROSECOND: u64 = 1_000;
/// A millisecond in nanoseconds.
pub const MILLISECOND: u64 = 1_000_000;
/// A second in nanoseconds.
pub const SECOND: u64 = 1_000_000_000;

/// Nanoseconds since boot; `None` without a Clock capability.
pub fn now() -> Option<u64> {
    op::ClockNow(CLOCK).ok().map(|result| result.words[0])
}

/// The deadline that many nanoseconds from now. Without a Clock there are no deadlines: it never passes.
pub fn after(nanoseconds: u64) -> u64 {
    now().map_or(FOREVER, |now| now.saturating_add(nanoseconds))
}
