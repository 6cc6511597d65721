//! What the couriers do: everything that may take long, each with a deadline of its own.

use crate::depot::Package;
use crate::{BUNDLE, CACHE, DEEP_COMPRESSION, JOB, KEY_RING, POLICY};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use module_manager::catalogue::PackageRef;
use module_manager::check::verify;
use module_manager::event::{Done, Instance};
use module_manager::keys::Keys;
use sila_abi::protocol::deep_compression::{self, DecompressionError, Submit};
use sila_abi::protocol::layout::REGISTRY;
use sila_abi::protocol::module_manager::{Failure, LoadError};
use sila_abi::protocol::{registry, wire};
use sila_abi::{Error, Rights, Slot};
use sila_rt::courier::Courier;
use sila_rt::ipc::{self, Message};
use sila_rt::slots::{OwnedSlot, make};
use sila_rt::system::{process_create, process_create_cached};
use sila_rt::{CallError, clock, op, trust};

/// How long DeepCompression or ServiceRegistry may take to answer a call.
const PATIENCE: u64 = 5 * clock::SECOND;
/// DeepCompression's flag for finished jobs.
pub const SIGNALLED: u64 = 1 << 8;
/// The flag for ended processes.
pub const DIED: u64 = 1 << 9;

/// The result of a step.
pub type Outcome = Result<Done, Failure>;

/// A courier and the jobs that wait for it.
pub struct Queue<Req, Resp> {
    courier: Courier<Req, Resp>,
    waiting: VecDeque<Req>,
}

impl<Req: Send + 'static, Resp: Send + 'static> Queue<Req, Resp> {
    /// Starts a courier that sets `flag` when a job is done.
    pub fn start(
        stack_pages: u64,
        done: Slot,
        flag: u64,
        work: impl FnMut(Req) -> Resp + Send + 'static,
    ) -> Result<Self, CallError> {
        let courier = Courier::start(stack_pages, done, flag, work)?;
        Ok(Self { courier, waiting: VecDeque::new() })
    }

    /// Takes a job; it waits if the courier is busy.
    pub fn push(&mut self, job: Req) {
        self.waiting.push_back(job);
        self.next();
    }

    /// Takes the result of the job that is done, and gives the courier the next.
    pub fn take(&mut self) -> Option<Resp> {
        let result = self.courier.take();
        self.next();
        result
    }

    fn next(&mut self) {
        if let Some(job) = self.waiting.pop_front()
            && let Err(job) = self.courier.submit(job)
        {
            self.waiting.push_front(job);
        }
    }
}

/// Verify a package.
pub struct VerifyJob {
    /// The load.
    pub instance: Instance,
    /// Its package.
    pub package: PackageRef,
    /// The Region that it lies in, if that is not the bundle.
    pub region: Option<Arc<Package>>,
}

/// The verifier: keeps the decoded keys between its jobs.
pub fn verifier(bundle: &'static [u8]) -> impl FnMut(VerifyJob) -> (Instance, Outcome) + Send + 'static {
    let mut keys: Option<Keys> = None;
    move |job| {
        let bytes = job.region.as_ref().map_or(bundle, |region| region.bytes());
        let result = known_keys(&mut keys).and_then(|keys| verify(bytes, &job.package, keys));
        (job.instance, result.map(|facts| Done::Verified(Box::new(facts))))
    }
}

/// The keys, read anew whenever the KeyRing has changed.
fn known_keys(keys: &mut Option<Keys>) -> Result<&mut Keys, Failure> {
    let unreadable = |error| kernel_failure(LoadError::KeyRingUnreadable, &error);
    let state = trust::ring_state(KEY_RING).map_err(unreadable)?;
    if keys.as_ref().is_none_or(|keys| !keys.are_current(&state)) {
        let ring = trust::ring(KEY_RING).map_err(unreadable)?;
        let policy = trust::policy(POLICY).map_err(unreadable)?;
        match keys {
            Some(keys) => keys.refresh(ring, policy),
            None => *keys = Some(Keys::new(ring, policy)),
        }
    }
    keys.as_mut().ok_or(LoadError::KeyRingUnreadable.into())
}

/// What a process is made from.
pub enum Image {
    /// An image of the module cache.
    Cached(Slot),
    /// Image and proof, which the kernel verifies.
    Parts {
        /// The sealed image.
        image: Slot,
        /// The proof.
        proof: Slot,
    },
}

/// Let the kernel verify an image and keep it.
pub struct CacheJob {
    /// The load.
    pub instance: Instance,
    /// The sealed image.
    pub image: Slot,
    /// The proof.
    pub proof: Slot,
}

/// What the courier to the kernel is asked for.
pub enum KernelJob {
    /// See [`CacheJob`].
    Cache(CacheJob),
    /// See [`CreateJob`].
    Create(CreateJob),
}

/// What comes of it.
pub enum KernelDone {
    /// The cached image; `None` if the cache did not take it. Why is no matter: what is wrong with the image, the creation
    /// finds, too.
    Cached(Instance, Option<OwnedSlot>),
    /// The process with its number, or why there is none.
    Created(Instance, Result<(OwnedSlot, u64), Failure>),
}

/// The courier to the kernel.
pub fn kernel(job: KernelJob) -> KernelDone {
    match job {
        KernelJob::Cache(CacheJob { instance, image, proof }) => {
            let cached = make(|dst| op::ModuleCacheInsert(CACHE, image, proof, dst));
            KernelDone::Cached(instance, cached.ok())
        }
        KernelJob::Create(job) => KernelDone::Created(job.instance, create(job)),
    }
}

/// Let the kernel make a process. The capabilities stay with the main thread, which deletes none of them before the
/// courier is back.
pub struct CreateJob {
    /// The load.
    pub instance: Instance,
    /// What it is made from.
    pub image: Image,
    /// Who pays.
    pub pool: Slot,
    /// Of the first thread.
    pub priority: u8,
    /// Request and source.
    pub grants: Vec<(u16, Slot)>,
}

/// Makes a process, which comes with its id.
fn create(job: CreateJob) -> Result<(OwnedSlot, u64), Failure> {
    let CreateJob { image, pool, priority, grants, .. } = job;
    let made = make(|dst| {
        match image {
            Image::Cached(image) => process_create_cached(JOB, image, pool, priority.into(), &grants, dst)?,
            Image::Parts { image, proof } => {
                process_create(JOB, image, proof, pool, priority.into(), &grants, dst)?;
            }
        }
        Ok(op::Words::default())
    });
    let result = made.and_then(|process| Ok((process, newest_process()?)));
    result.map_err(|error| kernel_failure(LoadError::CreateRefused, &error))
}

/// Process ids rise, and only this courier makes processes in the Job: the last one is the newest.
fn newest_process() -> Result<u64, CallError> {
    let mut newest = 0;
    loop {
        match op::JobNext(JOB, newest) {
            Ok(next) if next.words[1] > newest => newest = next.words[1],
            Err(error) if error.error != Error::NoMoreEntries => return Err(error),
            _ => return Ok(newest),
        }
    }
}

/// A failure with what the kernel said.
pub fn kernel_failure(error: LoadError, cause: &CallError) -> Failure {
    Failure::kernel(error, cause.error, cause.words[0])
}

/// Something to ask of DeepCompression.
pub enum DecompressJob {
    /// Take this payload of the bundle, or of a package from the depot.
    Submit {
        /// The load.
        instance: Instance,
        /// The package's Region, if that is not the bundle.
        region: Option<Arc<Package>>,
        /// The words.
        request: Submit,
        /// The output Region.
        output: Slot,
        /// What to signal.
        notification: Slot,
    },
    /// Give the verdict.
    Collect {
        /// The load.
        instance: Instance,
        /// The job.
        job: u64,
    },
    /// Give the job up.
    Cancel {
        /// The job.
        job: u64,
    },
}

/// The courier to DeepCompression. A cancellation has no outcome.
pub fn decompress(job: DecompressJob) -> Option<(Instance, Outcome)> {
    match job {
        DecompressJob::Submit { instance, region, request, output, notification } => {
            let source = region.as_ref().map_or(BUNDLE, |region| region.slot());
            Some((instance, submit(&request, source, output, notification)))
        }
        DecompressJob::Collect { instance, job } => {
            let result = match ask(&Message::with(deep_compression::COLLECT, &[job])) {
                Ok(_) => Ok(Done::Plain),
                Err(failure) if failure.decompression_error() == Some(DecompressionError::NotReady) => {
                    Ok(Done::NotReady)
                }
                Err(failure) => Err(failure),
            };
            Some((instance, result))
        }
        DecompressJob::Cancel { job } => {
            let _ = ask(&Message::with(deep_compression::CANCEL, &[job]));
            None
        }
    }
}

fn submit(request: &Submit, source: Slot, output: Slot, notification: Slot) -> Outcome {
    let lend = |slot: Slot, rights: Rights| {
        let rights = u64::from((rights | Rights::COPY).bits());
        make(|dst| op::CapCopy(slot, dst, rights)).map_err(|e| kernel_failure(LoadError::OutputRefused, &e))
    };
    let source = lend(source, Rights::READ)?;
    let output = lend(output, Rights::READ | Rights::WRITE)?;
    let notification = lend(notification, Rights::SEND)?;
    let message = Message::with(deep_compression::SUBMIT, &request.to_words())
        .cap(source.slot())
        .cap(output.slot())
        .cap(notification.slot());
    ask(&message).map(|answer| Done::Submitted(answer.word(0)))
}

fn ask(message: &Message) -> Result<Message, Failure> {
    let answer = ipc::call(DEEP_COMPRESSION, message, 0, clock::after(PATIENCE));
    let answer = answer.map_err(|e| kernel_failure(LoadError::DecompressionLost, &e))?.message;
    match answer.label {
        wire::OK => Ok(answer),
        error => Err(Failure::with(LoadError::DecompressionRefused, error.into(), answer.word(0))),
    }
}

/// The courier to ServiceRegistry: the instance has ended.
pub fn unregister(instance: Instance) -> (Instance, Outcome) {
    let message = Message::with(registry::UNREGISTER, &[instance.0]);
    let result = match ipc::call(REGISTRY, &message, 0, clock::after(PATIENCE)) {
        Ok(answer) if answer.message.label == wire::OK => Ok(Done::Plain),
        _ => Err(LoadError::UnknownRequest.into()),
    };
    (instance, result)
}
