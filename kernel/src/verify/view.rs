//! What the invariant checker sees of the verifier: who waits, and where the job record is.

use super::{Request, Verifier};

impl Verifier {
    /// Every request that has not been answered.
    pub(crate) fn requests(&self) -> impl Iterator<Item = &Request> {
        self.queue.iter().chain(&self.active).chain(self.parked.iter().map(|(request, _)| request))
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
