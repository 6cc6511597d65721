//! A lock between the threads of one process.

use spin::mutex::SpinMutex;
use spin::relax::RelaxStrategy;

/// Gives the processor to the thread that holds the lock.
pub struct YieldToOthers;

impl RelaxStrategy for YieldToOthers {
    fn relax() {
        crate::raw::yield_now();
    }
}

/// Held for a few instructions at a time, never across a system call that blocks. Threads that share one have
/// the same priority ([`crate::thread::spawn`] sees to it), so that yielding reaches the holder.
pub type Lock<T> = SpinMutex<T, YieldToOthers>;
