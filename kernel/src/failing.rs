//! Fault injection: in a test system one allocation can be made to fail as if nothing were left.
//!
//! An allocation is whatever a lack of memory can refuse: a charge to a Pool, frames, a place in an arena, room in a
//! list of fixed size. Those count that the kernel makes for the thread that armed the failure, in its system calls and
//! in the last step of its verifications; what others do meanwhile does not shift the count. While a failure is armed
//! its mark in [`Attention`] keeps every system call from the short paths, which allocate on their own.

use sila_abi::Error;

use crate::invoke::{Flow, Invocation};
use crate::kernel::{Attention, Fail, Kernel};
use crate::objects::ThreadId;

/// The allocation that is to fail.
#[derive(Default)]
pub(crate) struct Failing {
    /// Whose allocations count.
    thread: Option<ThreadId>,
    /// Allocations up to the one that fails, itself included; 0: none is to fail.
    left: u64,
    /// The kernel works for that thread.
    working: bool,
    /// It has failed since it was armed.
    struck: bool,
}

impl Kernel {
    pub(crate) fn fail_allocation(&mut self, c: &Invocation) -> Result<Flow, Fail> {
        let (nth, struck) = (c.args[0], self.failing.struck);
        self.failing = Failing { thread: Some(c.thread), left: nth, ..Failing::default() };
        self.attention.set(Attention::FAILING, nth > 0);
        Ok(Flow::words(&[struck.into()]))
    }

    /// The kernel works for this thread until [`Kernel::stop_counting`].
    pub(crate) fn count_allocations(&mut self, of: ThreadId) {
        if self.attention.contains(Attention::FAILING) {
            self.failing.working = self.failing.thread == Some(of);
        }
    }

    /// What the kernel does from here on, it does for nobody in particular.
    pub(crate) fn stop_counting(&mut self) {
        self.failing.working = false;
    }

    /// Takes the mark away once the failure has struck, or can't any more.
    pub(crate) fn settle_failing(&mut self) {
        let armed = self.failing.left > 0;
        if !armed || self.failing.thread.is_none_or(|t| self.threads.get(t).is_none()) {
            self.failing.left = 0;
            self.attention -= Attention::FAILING;
        }
    }

    /// True if an allocation of the present system call failed because a test wanted it to.
    pub(crate) fn was_made_to_fail(&self) -> bool {
        self.failing.working && self.failing.struck
    }

    /// Counts an allocation; true if it is to fail.
    #[inline(always)]
    pub(crate) fn allocation_fails(&mut self) -> bool {
        self.failing.working && self.failing.counts_down()
    }

    /// Passes if there is room, and no test says that there is none.
    #[inline(always)]
    pub(crate) fn room(&mut self, there_is: bool) -> Result<(), Error> {
        if there_is && !self.allocation_fails() { Ok(()) } else { Err(Error::ArenaFull) }
    }

    /// Passes if so many frames are free, and no test says that they are not.
    #[inline(always)]
    pub(crate) fn frames_free(&mut self, count: u64) -> Result<(), Error> {
        let there_are = count <= self.frames.free_count() as u64;
        if there_are && (count == 0 || !self.allocation_fails()) { Ok(()) } else { Err(Error::OutOfFrames) }
    }
}

impl Failing {
    #[cold]
    fn counts_down(&mut self) -> bool {
        let strikes = self.left == 1;
        self.left = self.left.saturating_sub(1);
        self.struck |= strikes;
        strikes
    }
}
