//! More threads in this process.

use crate::error::CallError;
use crate::lock::Lock;
use crate::op;
use crate::page::{THREAD_AREA, THREADS_BASE};
use crate::slots::{self, OwnedSlot};
use crate::space::PAGE;
use alloc::boxed::Box;
use sila_abi::protocol::layout::{OWN_POOL, OWN_PROCESS, OWN_THREAD};
use sila_abi::{Error, Slot};

/// The largest stack, in pages: the area less the message page and a guard.
pub const MAX_STACK_PAGES: u64 = THREAD_AREA / PAGE - 2;

/// Which of the 64 areas for threads are taken. An area is never used again: the thread in it may be
/// running its last instructions for any length of time.
static AREAS: Lock<u64> = Lock::new(0);

type Body = Box<dyn FnOnce() + Send>;

/// A thread of this process. Dropping this does not end it.
#[derive(Debug)]
pub struct Thread {
    thread: Slot,
}

impl Thread {
    /// Its capability.
    pub fn slot(&self) -> Slot {
        self.thread
    }
}

/// Starts a thread with a stack of that many pages, a guard below it and a message page of its own. It has the
/// initial thread's priority.
///
/// # Errors
/// `ArenaFull` if 64 threads were started, `InvalidArgument` for the stack's size, or the kernel's.
pub fn spawn(stack_pages: u64, body: impl FnOnce() + Send + 'static) -> Result<Thread, CallError> {
    if stack_pages == 0 || stack_pages > MAX_STACK_PAGES {
        return Err(Error::InvalidArgument.into());
    }
    let priority = op::ThreadStatus(OWN_THREAD)?.words[1];
    let area = take_area().ok_or(Error::ArenaFull)?;
    match start(area, stack_pages, priority, Box::new(body)) {
        Ok(thread) => Ok(thread),
        Err(error) => {
            give_area(area);
            Err(error)
        }
    }
}

fn take_area() -> Option<u64> {
    let mut areas = AREAS.lock();
    let index = (!*areas).trailing_zeros();
    *areas |= 1u64.checked_shl(index)?;
    Some(THREADS_BASE + u64::from(index) * THREAD_AREA)
}

fn give_area(area: u64) {
    *AREAS.lock() &= !(1 << ((area - THREADS_BASE) / THREAD_AREA));
}

fn start(area: u64, pages: u64, priority: u64, body: Body) -> Result<Thread, CallError> {
    let top = area + THREAD_AREA;
    let region = slots::make(|dst| op::RegionCreate(OWN_POOL, pages, dst))?;
    let stack: OwnedSlot = slots::make(|dst| {
        // SAFETY: the area was set aside for this thread alone.
        unsafe { op::RegionMap(region.slot(), OWN_PROCESS, top - pages * PAGE, 0, pages, 1, dst) }
    })?;
    let body = Box::into_raw(Box::new(body));
    let thread = slots::make(|dst| {
        // SAFETY: `run` is made to be started so: its argument is a Body that it takes over, its stack is
        // fresh, and 8 below a multiple of 16 as after a call.
        unsafe {
            let entry = run as extern "C" fn(*mut Body) -> !;
            let (entry, argument) = (entry as usize as u64, body.expose_provenance() as u64);
            op::ThreadCreate(OWN_PROCESS, entry, top - 8, argument, priority, area, dst)
        }
    });
    match thread {
        Ok(thread) => {
            region.leak();
            stack.leak();
            Ok(Thread { thread: thread.leak() })
        }
        Err(error) => {
            // SAFETY: the thread that would have taken the body over does not exist.
            drop(unsafe { Box::from_raw(body) });
            Err(error)
        }
    }
}

extern "C" fn run(body: *mut Body) -> ! {
    // SAFETY: `start` made this pointer from a Box and passed it to this thread alone.
    let body = unsafe { Box::from_raw(body) };
    (*body)();
    crate::raw::exit_thread()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thread_areas_are_bounded_and_disjoint() {
        let mut areas: Vec<u64> = core::iter::from_fn(take_area).take(100).collect();
        assert_eq!(areas.len(), 64);
        areas.dedup();
        assert!(areas.iter().all(|area| area % THREAD_AREA == 0));
        assert_eq!(areas.len(), 64);
        areas.iter().for_each(|area| give_area(*area));
        assert_eq!(take_area(), Some(THREADS_BASE));
        give_area(THREADS_BASE);
    }
}
