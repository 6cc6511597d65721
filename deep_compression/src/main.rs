//! The event loop around [`deep_compression::service`]: receives, keeps the regions, lets one worker decompress.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

use deep_compression::engine::{DecompressError, Limits, decompress_exact};
use deep_compression::service::{
    Action, Actions, CAPACITY, Client, Event, JobId, JobSpec, Priority, Service, ServiceError,
};
use sila_abi::protocol::deep_compression::{self as protocol, DecompressionError, Submit};
use sila_abi::protocol::layout::FIRST_OTHER;
use sila_abi::protocol::wire::OK;
use sila_abi::syscall::FOREVER;
use sila_abi::{Error, ObjectType, Rights, Slot};
use sila_rt::courier::{Courier, bound_notification};
use sila_rt::ipc::{Incoming, Message, Received, Reply, recv};
use sila_rt::memory::{OwnRegion, SealedRegion, SharedRegion, region_info};
use sila_rt::slots::{Caps, OwnedSlot};
use sila_rt::{CallError, PAGE, lifecycle, op};

sila_rt::entry!(main);

/// The endpoint that requests arrive on.
const ENDPOINT: Slot = FIRST_OTHER;
/// The worker's flag.
const WORKER_DONE: u64 = 1;
/// Pages of the worker's stack.
const WORKER_STACK: u64 = 32;
/// The most bytes that the Region around a payload may have.
const MAX_SOURCE: usize = 1 << 30;
/// What a job may be: the service's own Pool holds one output at a time.
const LIMITS: Limits = Limits { max_output: 8 << 20, ..Limits::DEFAULT };

/// A refusal with its word 0.
#[derive(Clone, Copy)]
struct Refusal {
    error: DecompressionError,
    detail: u64,
}

impl From<DecompressionError> for Refusal {
    fn from(error: DecompressionError) -> Self {
        Self { error, detail: 0 }
    }
}

impl From<CallError> for Refusal {
    fn from(error: CallError) -> Self {
        Self { error: DecompressionError::Kernel, detail: error.error as u64 }
    }
}

impl From<ServiceError> for Refusal {
    fn from(error: ServiceError) -> Self {
        DecompressionError::from_number(error.code()).unwrap_or(DecompressionError::Internal).into()
    }
}

impl From<DecompressError> for Refusal {
    fn from(error: DecompressError) -> Self {
        DecompressionError::from_number(error.code()).unwrap_or(DecompressionError::Internal).into()
    }
}

/// What the worker needs. It maps and drops the regions itself, so that both are gone when a job is done.
struct Work {
    job: JobId,
    request: Submit,
    source: OwnedSlot,
    output: OwnedSlot,
}

struct Finished {
    job: JobId,
    result: Result<(), Refusal>,
}

/// What is kept for a job.
struct Kept {
    job: JobId,
    client: Client,
    flags: u64,
    notification: OwnedSlot,
    /// Until the worker takes it.
    work: Option<Work>,
    /// When the worker is done.
    result: Result<(), Refusal>,
}

struct Server {
    service: Service,
    kept: [Option<Kept>; CAPACITY],
    worker: Courier<Work, Finished>,
}

fn main() -> u64 {
    let worker =
        bound_notification().and_then(|done| Courier::start(WORKER_STACK, done, WORKER_DONE, finish));
    let worker = match worker {
        Ok(worker) => worker,
        Err(error) => {
            let _ = lifecycle::failed(error.error as u64, "the decompression worker did not start");
            return 1;
        }
    };
    let mut server = Server { service: Service::new(LIMITS), kept: [const { None }; CAPACITY], worker };
    if lifecycle::ready().is_err() {
        return 1;
    }
    loop {
        match recv(ENDPOINT, 3, FOREVER) {
            Ok(Received::Message(incoming)) => server.answer(incoming),
            Ok(Received::Flags(_)) => server.worker_done(),
            Err(error) if matches!(error.error, Error::Suspended | Error::TransferFailed) => {}
            Err(_) => return 2,
        }
    }
}

impl Server {
    fn answer(&mut self, incoming: Incoming) {
        let Incoming { badge, message, caps, reply, .. } = incoming;
        let client = Client(badge);
        let refused = match message.label {
            protocol::SUBMIT => self.submit(client, &message, caps, reply),
            protocol::COLLECT => self.collect(client, JobId(message.word(0)), reply),
            protocol::CANCEL => self.cancel(client, JobId(message.word(0)), reply),
            _ => Err((reply, DecompressionError::UnknownRequest.into())),
        };
        if let Err((reply, refusal)) = refused {
            answer_with(reply, Err(refusal), &[]);
        }
    }

    fn submit(
        &mut self,
        client: Client,
        message: &Message,
        caps: Caps,
        reply: Reply,
    ) -> Result<(), (Reply, Refusal)> {
        let (request, source, output, notification) = match checked(message, caps) {
            Ok(checked) => checked,
            Err(refusal) => return Err((reply, refusal)),
        };
        let priority = if request.background { Priority::Background } else { Priority::Foreground };
        let spec = JobSpec { input_len: request.len, output_len: request.output_len, priority };
        let event = Event::Submit { client, spec };
        let handled = self.service.handle(event).or_else(|error| {
            // Whoever died may have left jobs behind that are in the way.
            self.drop_dead_clients();
            if error == ServiceError::Busy { self.service.handle(event) } else { Err(error) }
        });
        let actions = match handled {
            Ok(actions) => actions,
            Err(error) => return Err((reply, error.into())),
        };
        for action in actions.iter() {
            if let Action::Accepted { job, slot } = action {
                let work = Some(Work { job, request, source, output });
                let flags = request.flags;
                if let Some(place) = self.kept.get_mut(slot) {
                    *place = Some(Kept { job, client, flags, notification, work, result: Ok(()) });
                }
                answer_with(reply, Ok(()), &[job.0]);
                break;
            }
        }
        self.perform(&actions);
        Ok(())
    }

    fn collect(&mut self, client: Client, job: JobId, reply: Reply) -> Result<(), (Reply, Refusal)> {
        let result = self.kept_job(job).map_or(Ok(()), |kept| kept.result);
        match self.service.handle(Event::Collect { client, job }) {
            Ok(actions) => {
                self.perform(&actions);
                answer_with(reply, result, &[]);
                Ok(())
            }
            Err(error) => Err((reply, error.into())),
        }
    }

    fn cancel(&mut self, client: Client, job: JobId, reply: Reply) -> Result<(), (Reply, Refusal)> {
        match self.service.handle(Event::Cancel { client, job }) {
            Ok(actions) => {
                self.perform(&actions);
                answer_with(reply, Ok(()), &[]);
                Ok(())
            }
            Err(error) => Err((reply, error.into())),
        }
    }

    fn worker_done(&mut self) {
        let Some(Finished { job, result }) = self.worker.take() else { return };
        if let Some(kept) = self.kept_job(job) {
            kept.result = result;
        }
        // The exact error is kept beside the job; the state machine needs to know only that there is one.
        let verdict = result.map_err(|refusal| {
            DecompressError::from_code(refusal.error.number()).unwrap_or(DecompressError::Internal)
        });
        if let Ok(actions) = self.service.handle(Event::Completed { job, verdict }) {
            let notify = actions.iter().any(|action| matches!(action, Action::Notify { .. }));
            if let Some(kept) = self.kept_job(job).filter(|_| notify) {
                let gone = op::Signal(kept.notification.slot(), kept.flags).is_err();
                if gone {
                    self.drop_dead_clients();
                }
            }
            self.perform(&actions);
        }
    }

    /// Carries out what needs no reply: starts and releases.
    fn perform(&mut self, actions: &Actions) {
        for action in actions.iter() {
            match action {
                Action::Start { job, slot } => self.start(job, slot),
                Action::Release { job, slot } => {
                    if let Some(place) = self.kept.get_mut(slot)
                        && place.as_ref().is_some_and(|kept| kept.job == job)
                    {
                        *place = None;
                    }
                }
                Action::Accepted { .. } | Action::Notify { .. } | Action::Deliver { .. } => {}
            }
        }
    }

    /// The state machine starts one job at a time, and the worker's last one was taken: it is idle.
    fn start(&mut self, job: JobId, slot: usize) {
        let place = self.kept.get_mut(slot).and_then(Option::as_mut).filter(|kept| kept.job == job);
        if let Some(work) = place.and_then(|kept| kept.work.take()) {
            let _ = self.worker.submit(work);
        }
    }

    fn kept_job(&mut self, job: JobId) -> Option<&mut Kept> {
        self.kept.iter_mut().flatten().find(|kept| kept.job == job)
    }

    /// A Notification dies with the process that paid for it: so do that client's jobs.
    fn drop_dead_clients(&mut self) {
        for slot in 0..CAPACITY {
            let kept = self.kept.get(slot).and_then(Option::as_ref);
            let gone = kept.filter(|kept| op::CapStatus(kept.notification.slot()).is_err());
            let Some(client) = gone.map(|kept| kept.client) else { continue };
            if let Ok(actions) = self.service.handle(Event::ClientGone { client }) {
                self.perform(&actions);
            }
        }
    }
}

fn answer_with(reply: Reply, result: Result<(), Refusal>, words: &[u64]) {
    let message = match result {
        Ok(()) => Message::with(OK, words),
        Err(refusal) => Message::with(refusal.error.number().into(), &[refusal.detail]),
    };
    // A client that no longer waits needs no answer.
    let _ = reply.send(&message);
}

/// A submission whose capabilities are what they should be and large enough.
fn checked(message: &Message, mut caps: Caps) -> Result<(Submit, OwnedSlot, OwnedSlot, OwnedSlot), Refusal> {
    let request = Submit::from_words(message.words()).ok_or(DecompressionError::Malformed)?;
    let mut take = |index| caps.take(index).ok_or(DecompressionError::MissingCapability);
    let (source, output, notification) = (take(0)?, take(1)?, take(2)?);
    let status = op::CapStatus(notification.slot())?;
    let rights = Rights::from_word(status.words[1]).unwrap_or(Rights::empty());
    if status.words[0] != ObjectType::Notification as u64 || !rights.contains(Rights::SEND) {
        return Err(DecompressionError::MissingCapability.into());
    }
    let fits = |region: &OwnedSlot, bytes: u64| -> Result<bool, CallError> {
        Ok(region_info(region.slot())?.frames.saturating_mul(PAGE) >= bytes)
    };
    let end = request.offset.saturating_add(request.len);
    if !fits(&source, end)? || !fits(&output, request.output_len)? {
        return Err(DecompressionError::RegionTooSmall.into());
    }
    Ok((request, source, output, notification))
}

/// The worker's part.
fn finish(work: Work) -> Finished {
    let Work { job, request, source, output } = work;
    Finished { job, result: decompress(&request, source, output) }
}

/// Decompresses into memory that is this process's alone, and copies the whole result out. Both regions are unmapped
/// and dropped at the end, whatever comes of it. The source must be sealed: it is read more than once.
fn decompress(request: &Submit, source: OwnedSlot, output: OwnedSlot) -> Result<(), Refusal> {
    let size = |word: u64| usize::try_from(word).map_err(|_| Refusal::from(DecompressionError::Malformed));
    let (offset, len, output_len) = (size(request.offset)?, size(request.len)?, size(request.output_len)?);
    let source = SealedRegion::map(source, MAX_SOURCE)?;
    let payload = source.bytes().get(offset..offset.saturating_add(len));
    let payload = payload.ok_or(DecompressionError::RegionTooSmall)?;
    let mut content = OwnRegion::new(output_len)?;
    let space = content.bytes_mut().get_mut(..output_len).ok_or(DecompressionError::RegionTooSmall)?;
    decompress_exact(payload, space, &LIMITS.with_window(request.max_window_log))?;
    let mut output = SharedRegion::map(output, true, MAX_SOURCE)?;
    if output.write(0, space) { Ok(()) } else { Err(DecompressionError::RegionTooSmall.into()) }
}
