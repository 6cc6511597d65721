//! What the invariant checker sees of the verifier: who waits, and where the job record is.

use super::{Job, Request, Verifier};
use crate::objects::ProcessId;

impl Verifier {
    /// Every request that has not been answered.
    pub(crate) fn requests(&self) -> impl Iterator<Item = &Request> {
        self.queue.iter().chain(self.jobs().map(|job| &job.request))
    }

    fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.active.iter().chain(self.parked.iter().map(|(job, _)| job)).map(|job| &**job)
    }

    /// Every process that is being made.
    pub(crate) fn embryos(&self) -> impl Iterator<Item = ProcessId> {
        self.jobs().filter_map(|job| job.embryo).map(|embryo| embryo.process)
    }

    /// Requests that wait for the context.
    pub(crate) fn waiting(&self) -> &[Request] {
        &self.queue
    }

    /// True if the job record is with the context, or back from it, exactly while a request is being worked on.
    pub(crate) fn record_is_where_it_should(&self) -> bool {
        let work = self.active.is_some();
        self.idle.is_some() != work && (work || self.finished.is_none())
    }
}
