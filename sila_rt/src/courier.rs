//! Couriers: threads that make calls for a main thread which itself blocks only in `recv`.
//!
//! A courier has at most one job. When the job is done it sets its flag on a Notification that the main thread
//! has bound to itself; the main thread then takes the result. The job's calls carry deadlines, so a slow peer
//! delays only its own courier.

use crate::error::CallError;
use crate::ipc;
use crate::lock::Lock;
use crate::op;
use crate::slots;
use crate::thread;
use alloc::sync::Arc;
use sila_abi::Slot;
use sila_abi::protocol::layout::{OWN_POOL, OWN_THREAD};
use sila_abi::syscall::FOREVER;

/// Where the one job is.
enum Desk<Req, Resp> {
    Idle,
    Submitted(Req),
    Working,
    Done(Resp),
}

struct Shared<Req, Resp> {
    desk: Lock<Desk<Req, Resp>>,
    /// Wakes the worker.
    wake: Slot,
}

/// The main thread's side.
pub struct Courier<Req, Resp> {
    shared: Arc<Shared<Req, Resp>>,
}

/// Makes a Notification bound to the calling thread: its flags come out of the thread's `recv`.
///
/// # Errors
/// The kernel's.
pub fn bound_notification() -> Result<Slot, CallError> {
    let notification = slots::make(|dst| op::NotificationCreate(OWN_POOL, dst))?;
    op::NotificationBind(notification.slot(), OWN_THREAD)?;
    Ok(notification.leak())
}

impl<Req: Send + 'static, Resp: Send + 'static> Courier<Req, Resp> {
    /// Starts a courier that handles jobs with `work` and reports each by setting `flags` on `done`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn start(
        stack_pages: u64,
        done: Slot,
        flags: u64,
        work: impl FnMut(Req) -> Resp + Send + 'static,
    ) -> Result<Self, CallError> {
        let wake = slots::make(|dst| op::NotificationCreate(OWN_POOL, dst))?;
        let shared = Arc::new(Shared { desk: Lock::new(Desk::Idle), wake: wake.slot() });
        let worker = Arc::clone(&shared);
        thread::spawn(stack_pages, move || serve(&worker, done, flags, work))?;
        wake.leak();
        Ok(Courier { shared })
    }

    /// Gives the courier a job.
    ///
    /// # Errors
    /// The job comes back if the last one is not finished and taken.
    pub fn submit(&self, job: Req) -> Result<(), Req> {
        {
            let mut desk = self.shared.desk.lock();
            if !matches!(*desk, Desk::Idle) {
                return Err(job);
            }
            *desk = Desk::Submitted(job);
        }
        let _ = op::Signal(self.shared.wake, 1);
        Ok(())
    }

    /// Takes the result, if the job is done.
    pub fn take(&self) -> Option<Resp> {
        let mut desk = self.shared.desk.lock();
        match core::mem::replace(&mut *desk, Desk::Idle) {
            Desk::Done(result) => Some(result),
            other => {
                *desk = other;
                None
            }
        }
    }

    /// True if a job can be given.
    pub fn is_idle(&self) -> bool {
        matches!(*self.shared.desk.lock(), Desk::Idle)
    }
}

fn serve<Req, Resp>(shared: &Shared<Req, Resp>, done: Slot, flags: u64, mut work: impl FnMut(Req) -> Resp) {
    while ipc::wait(shared.wake, FOREVER).is_ok() {
        let Some(job) = start_job(&shared.desk) else { continue };
        let result = work(job);
        *shared.desk.lock() = Desk::Done(result);
        let _ = op::Signal(done, flags);
    }
}

fn start_job<Req, Resp>(desk: &Lock<Desk<Req, Resp>>) -> Option<Req> {
    let mut desk = desk.lock();
    match core::mem::replace(&mut *desk, Desk::Working) {
        Desk::Submitted(job) => Some(job),
        other => {
            *desk = other;
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn courier() -> Courier<u32, u32> {
        Courier { shared: Arc::new(Shared { desk: Lock::new(Desk::Idle), wake: Slot(70) }) }
    }

    #[test]
    fn a_courier_has_one_job_at_a_time() {
        let courier = courier();
        assert!(courier.is_idle() && courier.take().is_none());
        assert_eq!(courier.submit(1), Ok(()));
        assert_eq!(courier.submit(2), Err(2));
        assert_eq!(start_job(&courier.shared.desk), Some(1));
        assert_eq!(courier.submit(3), Err(3));
        assert!(courier.take().is_none() && !courier.is_idle());
    }

    #[test]
    fn a_result_is_taken_once() {
        let courier = courier();
        *courier.shared.desk.lock() = Desk::Done(9);
        assert_eq!(courier.submit(3), Err(3));
        assert_eq!(courier.take(), Some(9));
        assert_eq!(courier.take(), None);
        assert_eq!(courier.submit(4), Ok(()));
        assert_eq!(start_job(&courier.shared.desk), Some(4));
        assert_eq!(start_job(&courier.shared.desk), None);
    }
}
