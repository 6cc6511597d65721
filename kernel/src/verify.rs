//! The verification context: queue, job record, and the function that runs in it.
//!
//! [`run`] runs preemptibly, on its own stack, with interrupts on. It reads sealed frames, once the proof or record, its
//! job record and keys that never change; it touches no kernel object, and its only output is the verdict in its
//! job record. Ownership of the record ([`Work`]) passes from the kernel to the context and back, so the
//! type system keeps both from touching it at once.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use sila_abi::contract::{MAX_INIT_FAILURE_CODES, MAX_NODES, MAX_PREDICATES, Node, Predicate};
use sila_abi::facts::KernelFact;
use sila_abi::manifest::{CapRequest, Dependency, MAX_DEPENDENCIES, MAX_REQUESTS};
use sila_abi::package::LoadProof;
use sila_abi::record::Digest;
use sila_abi::trust::RecordError;
use sila_abi::verify_case::VerifyCase;
use sila_crypto::chain::{self, ChainError};
use sila_crypto::hash::{BulkHasher, id_digest, module_id};
use sila_crypto::scheme::VerifyingKey;

use crate::arena::Id;
use crate::cache::InsertRequest;
use crate::create::{LoadRequest, VerifiedLoad};
use crate::embryo::Embryo;
use crate::kernel::Fail;
use crate::keyring::{Trusted, VerifiedRecord};
use crate::machine::{FRAME_SIZE, FRAME_WORDS, Frame, FrameReader, Keep};
use crate::objects::*;

mod jobs;
mod view;

/// Bytes of a proof or record that the kernel copies into its own memory.
pub const COPY_MAX: usize = 128 << 10;
/// Requests that may wait.
const QUEUE: usize = 16;
/// Requests of one process that may wait.
const QUEUE_OF_ONE: usize = 4;

/// What a request wants verified.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::large_enum_variant, reason = "nothing is allocated after boot, so nothing can be boxed")]
pub enum Wanted {
    /// A manifest and an image, to make a process.
    Load(LoadRequest),
    /// A manifest and an image, for the module cache.
    Insert(InsertRequest),
    /// A root-signed record for the KeyRing.
    Record {
        /// The Region that holds it, pinned.
        region: RegionId,
        /// Its length in bytes.
        length: u64,
        /// Whether it is to be a policy.
        policy: bool,
    },
    /// A signature by itself, for a test.
    Case {
        /// The Region that holds it and all that belongs to it, pinned.
        region: RegionId,
        /// Its length in bytes.
        length: u64,
    },
}

/// A queued or running verification.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Who waits for it; `None` once that thread is gone.
    pub thread: Option<ThreadId>,
    /// The priority it runs at.
    pub priority: u8,
    /// What is wanted.
    pub wanted: Wanted,
}

/// What was verified: all that the last step of a load takes, so that there is none without the chain's proof.
///
/// ```
/// # use std::sync::Arc;
/// # use kernel::{create::VerifiedLoad, keyring::VerifiedRecord, verify::Verdict};
/// # use sila_abi::{manifest::Manifest, sif::Sif};
/// # use sila_crypto::{Verified, chain::BinaryFacts};
/// fn load(manifest: Verified<Manifest>, sif: Verified<Sif>, binary: Verified<BinaryFacts>, record: VerifiedRecord) {
///     let _ = Verdict::Load(Arc::new(VerifiedLoad { manifest, sif, binary, digest: [0; 32], resolved: [0; 64] }));
///     let _ = Verdict::Record(record);
/// }
/// ```
/// A manifest, an image header, a binary or a record that nobody verified is none:
/// ```compile_fail,E0308
/// # use std::sync::Arc;
/// # use kernel::{create::VerifiedLoad, verify::Verdict};
/// # use sila_abi::{manifest::Manifest, sif::Sif};
/// # use sila_crypto::{Verified, chain::BinaryFacts};
/// fn load(manifest: Manifest, sif: Verified<Sif>, binary: Verified<BinaryFacts>) {
///     let _ = Verdict::Load(Arc::new(VerifiedLoad { manifest, sif, binary, digest: [0; 32], resolved: [0; 64] }));
/// }
/// ```
/// ```compile_fail,E0308
/// # use std::sync::Arc;
/// # use kernel::{create::VerifiedLoad, verify::Verdict};
/// # use sila_abi::{manifest::Manifest, sif::Sif};
/// # use sila_crypto::{Verified, chain::BinaryFacts};
/// fn load(manifest: Verified<Manifest>, sif: Sif, binary: Verified<BinaryFacts>) {
///     let _ = Verdict::Load(Arc::new(VerifiedLoad { manifest, sif, binary, digest: [0; 32], resolved: [0; 64] }));
/// }
/// ```
/// ```compile_fail,E0308
/// # use std::sync::Arc;
/// # use kernel::{create::VerifiedLoad, verify::Verdict};
/// # use sila_abi::{manifest::Manifest, sif::Sif};
/// # use sila_crypto::{Verified, chain::BinaryFacts};
/// fn load(manifest: Verified<Manifest>, sif: Verified<Sif>, binary: BinaryFacts) {
///     let _ = Verdict::Load(Arc::new(VerifiedLoad { manifest, sif, binary, digest: [0; 32], resolved: [0; 64] }));
/// }
/// ```
/// ```compile_fail,E0308
/// # use kernel::verify::Verdict;
/// # use sila_abi::trust::Revocation;
/// fn install(revocation: Revocation) {
///     let _ = Verdict::Record(revocation);
/// }
/// ```
pub enum Verdict {
    /// A manifest, and the image that belongs to it.
    Load(Arc<VerifiedLoad>),
    /// The same, in memory that outlives the job, and the id under which the module cache will find it.
    Image(Arc<VerifiedLoad>, Digest),
    /// A record that the root signed.
    Record(VerifiedRecord),
    /// The signature of a test, which is valid. Nothing follows from it.
    Case,
}

/// What the context is to do.
#[derive(Default)]
enum Task {
    /// Nothing.
    #[default]
    Nothing,
    /// Verify a manifest and an image.
    Load,
    /// Verify them, and keep what was found out.
    Image,
    /// Hand on what was verified when the image came into the cache; `None` if it is gone from there.
    Cached(Option<Arc<VerifiedLoad>>),
    /// Verify a record.
    Record,
    /// Verify a test's signature.
    Case,
}

/// The job record: all that the context sees.
pub struct Work {
    /// Room for a copy of the proof or record.
    bytes: Box<[u8]>,
    /// How much of it was copied.
    length: usize,
    /// Where the proof or record lies, its pages, and how many bytes are wanted.
    source: Option<(Backing, u32, u64)>,
    image: Option<(Backing, u32)>,
    /// What is to be done.
    task: Task,
    /// No other job's verdict is waited with: what came of earlier ones may be forgotten.
    alone: bool,
    trusted: Trusted,
    verdict: Option<Result<Verdict, ChainError>>,
}

impl Work {
    fn new() -> Self {
        Work {
            bytes: vec![0; COPY_MAX].into_boxed_slice(),
            length: 0,
            source: None,
            image: None,
            task: Task::Nothing,
            alone: true,
            trusted: Trusted::default(),
            verdict: None,
        }
    }

    /// Kind and sequence of the record that was verified.
    fn installed(&self) -> Option<[u64; 2]> {
        let Some(Ok(Verdict::Record(record))) = &self.verdict else { return None };
        let (kind, sequence) = record.named();
        Some([kind as u64, sequence])
    }

    /// True if scratch memory may be emptied before the job: nothing of an earlier one is in use any more. (A test can
    /// put a verdict aside while further jobs run.)
    pub const fn is_alone(&self) -> bool {
        self.alone
    }

    /// Lets go of what the job rested on, and of what came of it.
    fn clear(&mut self) {
        self.trusted = Trusted::default();
        self.task = Task::Nothing;
        self.verdict = None;
    }
}

/// Runs a job to its verdict; there is none for an image that has left the cache.
pub fn run(work: &mut Work, frames: &dyn FrameReader) {
    copy_source(work, frames);
    work.verdict = match core::mem::take(&mut work.task) {
        Task::Nothing => None,
        Task::Load => Some(verify_load(work, frames).map(|load| Verdict::Load(Arc::new(load)))),
        Task::Image => Some(verify_image(work, frames)),
        Task::Cached(load) => load.map(|load| Ok(Verdict::Load(load))),
        Task::Record => Some(verify_record(work, frames)),
        Task::Case => Some(verify_case(work)),
    };
}

/// Copies, once, what is to be verified: ring 3 may write to the original meanwhile.
fn copy_source(work: &mut Work, frames: &dyn FrameReader) {
    let Some((backing, pages, wanted)) = work.source.take() else { return };
    let length = (wanted as usize).min(work.bytes.len()).min(pages as usize * FRAME_SIZE);
    for (page, chunk) in (0..).zip(work.bytes[..length].chunks_mut(FRAME_SIZE)) {
        frames.copy(read_frame(backing, page, frames), chunk);
    }
    work.length = length;
}

fn verify_load(work: &Work, frames: &dyn FrameReader) -> Result<VerifiedLoad, ChainError> {
    let keys = &work.trusted;
    let (backing, pages) = work.image.ok_or(ChainError::ImageLength)?;
    let proof =
        LoadProof::parse(work.bytes.get(..work.length).unwrap_or_default()).map_err(ChainError::Proof)?;
    let manifest = chain::verify_manifest(&proof, keys)?;
    let length = manifest.image_len;
    if length == 0 || length.div_ceil(FRAME_SIZE as u64) != pages as u64 {
        return Err(ChainError::ImageLength);
    }
    let digest = hash_image(backing, length, frames);
    let binary = chain::verify_binary(&manifest, length, &digest, proof.binary_sig, keys)?;
    let first = read_frame(backing, 0, frames);
    let sif = chain::verify_image_header(&manifest, &binary, frames.bytes(first))?;
    let resolved = manifest.contract.resolve(KernelFact::find);
    let digest = id_digest(proof.manifest);
    Ok(VerifiedLoad { manifest, sif, binary, digest, resolved })
}

/// The most that is kept of an image: its lists, as long as they may be, and a little for each of them.
const IMAGE_KEPT: usize = size_of::<VerifiedLoad>()
    + MAX_REQUESTS * size_of::<CapRequest>()
    + MAX_DEPENDENCIES * size_of::<Dependency>()
    + MAX_INIT_FAILURE_CODES * size_of::<u32>()
    + MAX_NODES * size_of::<Node>()
    + MAX_PREDICATES * size_of::<Predicate>()
    + 6 * 32;
/// Bytes of a keeping for an image.
pub const IMAGE_KEEPING: usize = 24 << 10;
const _: () = assert!(IMAGE_KEPT <= IMAGE_KEEPING);

/// Verifies an image for the module cache. What is kept has exactly as much room as it needs.
fn verify_image(work: &Work, frames: &dyn FrameReader) -> Result<Verdict, ChainError> {
    let load = verify_load(work, frames)?;
    let manifest = &load.manifest;
    let key = module_id(&manifest.publisher, &manifest.name, manifest.version);
    if !frames.keep(Some(Keep::Image)) {
        return Err(ChainError::NoMemory);
    }
    let kept = Arc::new(load.clone());
    frames.keep(None);
    Ok(Verdict::Image(kept, key))
}

/// The bulk digest of the first `length` bytes of a Region.
fn hash_image(backing: Backing, length: u64, frames: &dyn FrameReader) -> Digest {
    let mut hasher = BulkHasher::new();
    let mut left = length;
    let mut page = 0;
    while left > 0 {
        let bytes = frames.bytes(read_frame(backing, page, frames));
        let take = left.min(FRAME_SIZE as u64) as usize;
        hasher.update(bytes.get(..take).unwrap_or_default());
        left -= take as u64;
        page += 1;
    }
    hasher.finalize()
}

/// The frame of a page, read through the context's own view of memory.
fn read_frame(backing: Backing, page: u32, frames: &dyn FrameReader) -> Frame {
    let word = |frame: Frame, at: usize| {
        let bytes = frames.bytes(frame);
        bytes.get(at * 8..at * 8 + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
    };
    match backing {
        Backing::Inline(list) => list.get(page as usize).copied().unwrap_or(Frame(0)),
        // A device's registers are no image: they can't be sealed.
        Backing::Contiguous(first) | Backing::Device(first) => Frame(first.0.saturating_add(page)),
        Backing::Indexed(root) => {
            let list = word(root, (page as usize / FRAME_WORDS) & 511);
            Frame(word(Frame(list), page as usize % FRAME_WORDS))
        }
    }
}

fn verify_record(work: &Work, frames: &dyn FrameReader) -> Result<Verdict, ChainError> {
    let bytes = work.bytes.get(..work.length).unwrap_or_default();
    Ok(Verdict::Record(VerifiedRecord::of(bytes, &work.trusted, frames)?))
}

/// Checks a test's signature by the function that every other signature is checked by.
fn verify_case(work: &Work) -> Result<Verdict, ChainError> {
    let bytes = work.bytes.get(..work.length).unwrap_or_default();
    let (case, _) = VerifyCase::parse(bytes).map_err(|_| ChainError::Record(RecordError::Malformed))?;
    let key = VerifyingKey::decode(case.algorithm, case.key).map_err(|_| ChainError::UnknownKey)?;
    let verdict = key.verify_in_context(case.context, case.message, case.signature);
    verdict.map(|()| Verdict::Case).map_err(|_| ChainError::RecordSignature)
}

/// A request that is being worked on, and what has come of it.
struct Job {
    request: Request,
    /// The process that a load has begun to become.
    embryo: Option<Embryo>,
    /// Why nothing comes of it.
    failed: Option<Fail>,
}

impl Job {
    fn new() -> Box<Self> {
        let nothing = Wanted::Record { region: Id::from_parts(0, 0), length: 0, policy: false };
        Box::new(Job {
            request: Request { thread: None, priority: 0, wanted: nothing },
            embryo: None,
            failed: None,
        })
    }

    /// True if nothing but the last step of a load is missing.
    fn is_ripe(&self) -> bool {
        self.failed.is_none() && self.embryo.as_ref().is_some_and(Embryo::is_whole)
    }
}

/// The queue in front of the context.
pub struct Verifier {
    queue: Vec<Request>,
    active: Option<Box<Job>>,
    /// The active job's record, back from the context.
    finished: Option<Box<Work>>,
    idle: Option<Box<Work>>,
    /// A second job record, so that the context serves on while a job is held; only in test systems.
    spare: Option<Box<Work>>,
    parked: Option<(Box<Job>, Box<Work>)>,
    /// Room for jobs that are neither active nor parked.
    #[expect(clippy::vec_box, reason = "a job moves between its places as a pointer")]
    vacant: Vec<Box<Job>>,
    /// Test hook: loads wait before their last step.
    hold: bool,
    /// At equal priority the context runs next.
    pub turn: bool,
}

impl Default for Verifier {
    fn default() -> Self {
        Verifier {
            queue: Vec::with_capacity(QUEUE),
            active: None,
            finished: None,
            idle: Some(Box::new(Work::new())),
            spare: None,
            parked: None,
            vacant: vec![Job::new(), Job::new()],
            hold: false,
            turn: false,
        }
    }
}

impl Verifier {
    /// True if there is work, running or waiting.
    #[inline(always)]
    pub(crate) fn is_busy(&self) -> bool {
        self.active.is_some() || !self.queue.is_empty()
    }

    /// The requests that the context, or what follows it, wants to run for.
    fn wanting(&self) -> impl Iterator<Item = &Request> {
        let held = self.is_held();
        let active = self.active.iter().map(|job| &job.request);
        self.queue.iter().chain(active).filter(move |_| !held)
    }

    /// Who waits for the active job.
    pub(crate) fn worked_on(&self) -> Option<ThreadId> {
        self.active.as_ref()?.request.thread
    }

    /// The thread that waits for a verification has another priority.
    pub(crate) fn reprioritise(&mut self, thread: ThreadId, priority: u8) {
        let active = self.active.iter_mut().map(|job| &mut job.request);
        let requests = self.queue.iter_mut().chain(active);
        requests.filter(|r| r.thread == Some(thread)).for_each(|r| r.priority = priority);
    }

    /// True if the active job has its verdict, and what follows can go on.
    #[inline]
    pub(crate) fn is_concluding(&self) -> bool {
        self.finished.is_some() && self.active.is_some() && !self.is_held()
    }

    /// True if nobody waits any more for what the active job has begun to become.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.finished.is_some() && self.active.as_ref().is_some_and(|job| job.request.thread.is_none())
    }

    /// True if the test hook keeps the active job from its last step.
    fn is_held(&self) -> bool {
        self.hold && self.finished.is_some() && self.active.as_ref().is_some_and(|job| job.is_ripe())
    }

    /// Jobs that the test hook keeps from their last step.
    pub fn held(&self) -> u64 {
        u64::from(self.is_held() || self.parked.is_some())
    }

    /// Makes the second job record, at the boot of a test system.
    pub(crate) fn prepare_hold(&mut self) {
        self.spare = Some(Box::new(Work::new()));
    }

    /// Puts a held job aside, so that a revocation can be verified and applied before its last step.
    fn park(&mut self) {
        if self.is_held() && self.spare.is_some() {
            self.parked = self.active.take().zip(self.finished.take());
            self.idle = self.spare.take();
        }
    }

    /// Takes up again what was put aside.
    fn unpark(&mut self) {
        if self.hold || self.active.is_some() {
            return;
        }
        if let Some((job, work)) = self.parked.take() {
            (self.active, self.finished) = (Some(job), Some(work));
            self.spare = self.idle.take();
        }
    }
}

/// A refusal of the chain of trust as the caller sees it.
pub(crate) fn chain_fail(e: ChainError) -> Fail {
    Fail::with(e.kernel_error(), e.detail())
}
