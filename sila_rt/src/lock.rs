//! A lock between the threads of one process.

use crate::{clock, ipc, op, raw};
use sila_abi::Slot;
use sila_abi::protocol::layout::{FIRST_DYNAMIC, OWN_POOL};
use spin::mutex::SpinMutex;
use spin::relax::RelaxStrategy;

/// A Notification that nobody signals, to wait on. Made when two threads first meet at a lock.
pub(crate) const NAP: Slot = FIRST_DYNAMIC;
/// How long a thread lets the holder of a lock run before it looks again.
const PAUSE: u64 = 20 * clock::MICROSECOND;

/// Lets the thread that holds the lock run, whatever its priority.
///
/// Giving way to equals is not enough: a thread that serves a call runs at its caller's priority, and would keep
/// the holder of a lock from the processor for ever. So it waits.
pub struct YieldToOthers;

impl RelaxStrategy for YieldToOthers {
    fn relax() {
        let Some(now) = clock::now() else { return raw::yield_now() };
        if ipc::wait(NAP, now.saturating_add(PAUSE)).is_err_and(|e| e.error == sila_abi::Error::NoCapability)
        {
            // If this is refused there is nothing to wait on: all that remains is to try again.
            let _ = op::NotificationCreate(OWN_POOL, NAP);
            raw::yield_now();
        }
    }
}

/// Held for a few instructions or one allocation at a time, never across a system call that waits for others.
pub type Lock<T> = SpinMutex<T, YieldToOthers>;
