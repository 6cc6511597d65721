//! The verification context: queue, job record, and the function that runs in it.
//!
//! [`run`] runs preemptibly, on its own stack, with interrupts on. It reads sealed frames, once the proof or record, its
//! job record and keys that never change; it touches no kernel object, and its only output is the verdict in its
//! job record. Ownership of the record ([`Work`]) passes from the kernel to the context and back, so the
//! type system keeps both from touching it at once.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use sila_abi::Error;
use sila_abi::manifest::Manifest;
use sila_abi::package::LoadProof;
use sila_abi::record::Digest;
use sila_abi::sif::Sif;
use sila_abi::syscall::Outcome;
use sila_abi::trust::{Record, Revocation, SignedRecord};
use sila_crypto::chain::{self, ChainError, RootKeys, Verified};
use sila_crypto::hash::{BulkHasher, id_digest};
use sila_crypto::keystore::KeyStore;

use crate::create::LoadRequest;
use crate::kernel::{Attention, Fail, Kernel, Running};
use crate::machine::{FRAME_SIZE, FRAME_WORDS, Frame, FrameReader, Machine};
use crate::objects::*;

mod view;

/// Bytes of a proof or record that the kernel copies into its own memory.
pub const COPY_MAX: usize = 64 << 10;
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
    /// A root-signed record for the KeyRing.
    Record {
        /// The Region that holds it, pinned.
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

/// What was verified.
#[expect(clippy::large_enum_variant, reason = "one verdict exists at a time, inside its job record")]
pub enum Verdict {
    /// A manifest, and the image that belongs to it.
    Load {
        /// The manifest.
        manifest: Verified<Manifest>,
        /// The image's header.
        sif: Verified<Sif>,
        /// Id hash of the manifest's bytes.
        digest: Digest,
    },
    /// A revocation.
    Revocation(Verified<Revocation>),
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
    keys: Option<&'static KeyStore>,
    root: Option<&'static RootKeys>,
    verdict: Option<Result<Verdict, ChainError>>,
}

impl Work {
    fn new() -> Self {
        Work {
            bytes: vec![0; COPY_MAX].into_boxed_slice(),
            length: 0,
            source: None,
            image: None,
            keys: None,
            root: None,
            verdict: None,
        }
    }
}

/// Runs a job to its verdict.
pub fn run(work: &mut Work, frames: &dyn FrameReader) {
    copy_source(work, frames);
    let verdict = match work.image {
        Some((backing, pages)) => verify_load(work, backing, pages, frames),
        None => verify_record(work),
    };
    work.verdict = Some(verdict);
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

fn verify_load(
    work: &Work,
    backing: Backing,
    pages: u32,
    frames: &dyn FrameReader,
) -> Result<Verdict, ChainError> {
    let keys = work.keys.ok_or(ChainError::UnknownKey)?;
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
    Ok(Verdict::Load { digest: id_digest(proof.manifest), manifest, sif })
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

fn verify_record(work: &Work) -> Result<Verdict, ChainError> {
    let root = work.root.ok_or(ChainError::UnknownRootKey)?;
    let bytes = work.bytes.get(..work.length).unwrap_or_default();
    let signed = SignedRecord::decode(bytes)?;
    Ok(Verdict::Revocation(chain::verify_revocation(&signed, root)?))
}

/// The queue in front of the context.
pub struct Verifier {
    queue: Vec<Request>,
    active: Option<Request>,
    finished: Option<Box<Work>>,
    idle: Option<Box<Work>>,
    /// A second job record, so that the context serves on while a job is held; only in test systems.
    spare: Option<Box<Work>>,
    parked: Option<(Request, Box<Work>)>,
    /// Test hook: finished loads wait before their last step.
    pub hold: bool,
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
            hold: false,
            turn: false,
        }
    }
}

impl Verifier {
    /// True if there is work, running or waiting.
    #[inline(always)]
    pub fn is_busy(&self) -> bool {
        self.active.is_some() || !self.queue.is_empty()
    }

    /// The priority at which the context wants to run; `None` if it has nothing to do.
    #[inline]
    pub fn priority(&self) -> Option<u8> {
        if !self.is_busy() {
            return None;
        }
        let queued = self.queue.iter().map(|r| r.priority).max();
        match (&self.active, &self.finished) {
            (Some(_), Some(_)) => None,
            // Who waits behind a job lends it its priority; a job nobody waits for any more has the lowest.
            (Some(r), None) => Some(r.thread.map_or(0, |_| r.priority).max(queued.unwrap_or(0))),
            (None, _) => queued,
        }
    }

    /// Jobs that are finished and held back by the test hook.
    pub fn held(&self) -> u64 {
        u64::from(self.finished.is_some() || self.parked.is_some())
    }

    /// Makes the second job record, at the boot of a test system.
    pub(crate) fn prepare_hold(&mut self) {
        self.spare = Some(Box::new(Work::new()));
    }

    /// Puts a finished load aside, so that a revocation can be verified and applied before its last step.
    fn park(&mut self) {
        let load = self.active.as_ref().is_some_and(|r| matches!(r.wanted, Wanted::Load(_)));
        if !load || self.finished.is_none() || self.spare.is_none() {
            return;
        }
        self.parked = self.active.take().zip(self.finished.take());
        self.idle = self.spare.take();
    }

    fn take_next(&mut self) -> Option<Request> {
        let best = self.queue.iter().map(|r| r.priority).max()?;
        let at = self.queue.iter().position(|r| r.priority == best)?;
        Some(self.queue.remove(at))
    }
}

impl Kernel {
    /// Queues a verification for a thread, which then waits for it. The Regions must be pinned already.
    pub(crate) fn queue_verification(&mut self, thread: ThreadId, wanted: Wanted) -> Result<(), Error> {
        if self.verifier.queue.len() >= QUEUE {
            return Err(Error::VerificationBusy);
        }
        let priority = self.threads.get(thread).map_or(0, |t| t.effective);
        self.verifier.queue.push(Request { thread: Some(thread), priority, wanted });
        self.attention |= Attention::SCHEDULE;
        Ok(())
    }

    /// True if a process can queue another verification.
    pub(crate) fn can_verify(&self, process: ProcessId) -> bool {
        let of =
            |r: &&Request| r.thread.and_then(|t| self.threads.get(t)).is_some_and(|t| t.process == process);
        self.verifier.queue.len() < QUEUE && self.verifier.queue.iter().filter(of).count() < QUEUE_OF_ONE
    }

    /// Gives the context its next job, if it has none.
    pub(crate) fn dispatch_verification(&mut self, m: &mut impl Machine) {
        if self.verifier.active.is_some() {
            return;
        }
        let Some(request) = self.verifier.take_next() else { return };
        let Some(mut work) = self.verifier.idle.take() else { return };
        self.fill_work(&mut work, &request.wanted);
        self.verifier.active = Some(request);
        m.start_verification(work);
    }

    /// Says in the job record what is to be verified, and by which keys.
    fn fill_work(&mut self, work: &mut Work, wanted: &Wanted) {
        let (region, length) = match wanted {
            Wanted::Load(load) => (load.proof, COPY_MAX as u64),
            Wanted::Record { region, length } => (*region, *length),
        };
        work.verdict = None;
        work.length = 0;
        work.keys = self.keyring.base();
        work.root = self.keyring.root();
        work.source = self.regions.get(region).map(|r| (r.backing, r.filled, length));
        work.image = match wanted {
            Wanted::Load(load) => self.regions.get(load.image).map(|r| (r.backing, r.pages)),
            Wanted::Record { .. } => None,
        };
    }

    /// The context has finished its job.
    pub(crate) fn verification_done(&mut self, m: &mut impl Machine) {
        self.verifier.finished = m.finish_verification();
        self.attention |= Attention::SCHEDULE;
        // The next job, if one waits, is chosen and handed over by the scheduler.
        if self.running() == Running::Verification {
            self.set_running(Running::Idle);
        }
        self.complete_verification(m);
    }

    /// The last step of the operation that asked: bounded, not preemptible, and every authorisation fact
    /// is read again.
    pub(crate) fn complete_verification(&mut self, m: &mut impl Machine) {
        if self.verifier.hold {
            self.verifier.park();
            let record = |r: &Request| matches!(r.wanted, Wanted::Record { .. });
            if !self.verifier.active.as_ref().is_some_and(record) {
                return;
            }
        } else if let Some((request, mut work)) = self.verifier.parked.take() {
            self.last_step(m, &request, &mut work);
            self.verifier.spare = Some(work);
        }
        let Some(mut work) = self.verifier.finished.take() else { return };
        if let Some(request) = self.verifier.active.take() {
            self.last_step(m, &request, &mut work);
        }
        self.verifier.idle = Some(work);
    }

    fn last_step(&mut self, m: &mut impl Machine, request: &Request, work: &mut Work) {
        let verdict = work.verdict.take().unwrap_or(Err(ChainError::NoMemory));
        let result = match request.thread {
            Some(thread) => self.conclude(m, thread, &request.wanted, verdict),
            None => Ok(()),
        };
        if result.is_err() {
            self.shrink_grown()
        } else {
            self.keep_grown()
        }
        self.release_request(&request.wanted);
        if let Some(thread) = request.thread {
            self.answer_verified(thread, result);
        }
    }

    fn conclude(
        &mut self,
        m: &mut impl Machine,
        thread: ThreadId,
        wanted: &Wanted,
        verdict: Result<Verdict, ChainError>,
    ) -> Result<(), Fail> {
        let verdict = verdict.map_err(chain_fail)?;
        match (wanted, verdict) {
            (Wanted::Load(load), Verdict::Load { manifest, sif, digest }) => {
                self.finish_load(m, thread, load, &manifest, &sif, digest)
            }
            (Wanted::Record { .. }, Verdict::Revocation(r)) => Ok(self.keyring.revoke(&r)?),
            _ => Err(Error::RecordMalformed.into()),
        }
    }

    fn answer_verified(&mut self, thread: ThreadId, result: Result<(), Fail>) {
        match result {
            Ok(()) => self.wake(thread, Outcome::message(0, 0, 0), 0, &[]),
            Err(f) => {
                self.wake(thread, Outcome::error(f.error, f.detail.is_some().into()), 0, f.detail.as_slice());
            }
        }
    }

    /// Lets go of the Regions that a request pinned.
    pub(crate) fn release_request(&mut self, wanted: &Wanted) {
        match wanted {
            Wanted::Load(load) => {
                self.pin_region(load.image, false);
                self.pin_region(load.proof, false);
            }
            Wanted::Record { region, .. } => self.pin_region(*region, false),
        }
    }

    /// The thread that waits for a verification is gone or was suspended: its job is dropped.
    pub(crate) fn abandon_verification(&mut self, thread: ThreadId) {
        if let Some(r) = self.verifier.active.as_mut().filter(|r| r.thread == Some(thread)) {
            r.thread = None;
        }
        if let Some((r, _)) = self.verifier.parked.as_mut().filter(|(r, _)| r.thread == Some(thread)) {
            r.thread = None;
        }
        if let Some(at) = self.verifier.queue.iter().position(|r| r.thread == Some(thread)) {
            let request = self.verifier.queue.remove(at);
            self.release_request(&request.wanted);
        }
    }
}

/// A refusal of the chain of trust as the caller sees it.
pub(crate) fn chain_fail(e: ChainError) -> Fail {
    Fail::with(e.kernel_error(), e.detail())
}
