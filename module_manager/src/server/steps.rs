//! The steps that the main thread takes itself: none blocks, each is bounded.

use crate::couriers::{CacheJob, CreateJob, DIED, Image, Outcome, kernel_failure};
use crate::depot::Package;
use crate::{CACHE, ENDPOINT};
use alloc::sync::Arc;
use alloc::vec::Vec;
use module_manager::catalogue::PackageRef;
use module_manager::check::proof_of;
use module_manager::contract::{Observed, after_creation};
use module_manager::event::{Done, Held, Instance};
use module_manager::facts::{Facts, Source, sources};
use sila_abi::protocol::layout::{CLOCK, REGISTRY};
use sila_abi::protocol::module_manager::{Failure, Load, LoadError, MAX_NAMED_GRANTS};
use sila_abi::protocol::wire::digest_words;
use sila_abi::{Error, Rights, Slot};
use sila_crypto::hash::module_id;
use sila_rt::memory::{OwnRegion, SharedRegion, pages_for};
use sila_rt::slots::{Caps, OwnedSlot, make};
use sila_rt::{CallError, cache, op, system};

/// Exit code of a process that ModuleManager ends.
const TERMINATED: u64 = 0;

/// The capabilities of one load.
#[derive(Default)]
pub struct Resources {
    pool: Option<OwnedSlot>,
    grants: [Option<OwnedSlot>; MAX_NAMED_GRANTS],
    package: Option<Arc<Package>>,
    output: Option<OwnedSlot>,
    proof: Option<OwnedSlot>,
    cached: Option<OwnedSlot>,
    sources: Vec<(u16, OwnedSlot)>,
    process: Option<OwnedSlot>,
}

fn slot_of(owned: &Option<OwnedSlot>, error: LoadError) -> Result<Slot, Failure> {
    let gone = Failure::kernel(error, Error::NoCapability, 0);
    owned.as_ref().map(OwnedSlot::slot).ok_or(gone)
}

fn refused(error: LoadError) -> impl Fn(CallError) -> Failure {
    move |cause| kernel_failure(error, &cause)
}

impl Resources {
    /// The capabilities that came with a request.
    pub fn adopt(pool: Option<OwnedSlot>, mut caps: Caps) -> Self {
        let grants = [caps.take(1), caps.take(2), caps.take(3)];
        Self { pool, grants, ..Self::default() }
    }

    /// The output Region.
    pub fn output(&self) -> Result<Slot, Failure> {
        slot_of(&self.output, LoadError::OutputRefused)
    }

    /// Keeps the depot's package.
    pub fn keep_package(&mut self, package: Arc<Package>) {
        self.package = Some(package);
    }

    /// The depot's package; `None` if the bundle's is loaded.
    pub fn package(&self) -> Option<Arc<Package>> {
        self.package.clone()
    }

    /// What the package lies in.
    fn package_source<'a>(&'a self, bundle: &'a [u8]) -> &'a [u8] {
        self.package.as_ref().map_or(bundle, |package| package.bytes())
    }

    /// The process.
    pub fn process(&self) -> Option<Slot> {
        self.process.as_ref().map(OwnedSlot::slot)
    }

    /// Keeps the process that the kernel made.
    pub fn keep_process(&mut self, process: OwnedSlot) {
        self.process = Some(process);
    }

    /// A Region for the image, from the requester's Pool.
    pub fn create_output(&mut self, bytes: u64) -> Outcome {
        let pool = slot_of(&self.pool, LoadError::OutputRefused)?;
        let pages = usize::try_from(bytes).map(pages_for).unwrap_or(u64::MAX).max(1);
        let region = make(|dst| op::RegionCreate(pool, pages, dst));
        self.output = Some(region.map_err(refused(LoadError::OutputRefused))?);
        Ok(Done::Plain)
    }

    /// Copies a payload without codec into the output Region.
    pub fn copy(&self, bundle: &[u8], facts: &Facts) -> Outcome {
        let range = usize::try_from(facts.payload_offset).ok().zip(usize::try_from(facts.payload_len).ok());
        let payload =
            range.and_then(|(start, len)| self.package_source(bundle).get(start..start.checked_add(len)?));
        let payload = payload.ok_or(LoadError::BundleUnreadable)?;
        let output = self.output()?;
        let rights = (Rights::READ | Rights::WRITE).bits();
        let copy = make(|dst| op::CapCopy(output, dst, rights.into()));
        let copy = copy.map_err(refused(LoadError::CopyRefused))?;
        let mut region =
            SharedRegion::map(copy, true, payload.len()).map_err(refused(LoadError::CopyRefused))?;
        if region.write(0, payload) { Ok(Done::Plain) } else { Err(LoadError::PayloadDigest.into()) }
    }

    /// Takes the image back from DeepCompression, whatever that still has, and freezes it.
    pub fn seal(&self) -> Outcome {
        let output = self.output()?;
        op::CapRevoke(output).map_err(refused(LoadError::SealRefused))?;
        op::RegionSeal(output).map_err(refused(LoadError::SealRefused))?;
        Ok(Done::Plain)
    }

    /// A Region with the proof, for the kernel to read once.
    pub fn build_proof(&mut self, bundle: &[u8], package: &PackageRef) -> Outcome {
        let proof = proof_of(self.package_source(bundle), package)?;
        let mut region = OwnRegion::new(proof.len()).map_err(refused(LoadError::ProofRefused))?;
        proof.write(region.bytes_mut()).map_err(|_| LoadError::PackageMalformed)?;
        self.proof = Some(region.seal().map_err(refused(LoadError::ProofRefused))?);
        Ok(Done::Plain)
    }

    /// Finds the image in the module cache. Whatever speaks against it, the load goes the long way.
    pub fn find_cached(&mut self, facts: &Facts) -> Outcome {
        let id = digest_words(&module_id(&facts.publisher, &facts.name, facts.version));
        let found = make(|dst| op::ModuleCacheFind(CACHE, id[0], id[1], id[2], id[3], dst));
        let Ok(cached) = found else { return Ok(Done::Plain) };
        // An older version's image under the same number would be another module: the kernel refuses to keep two, and
        // what was verified here is what is to run.
        let same = cache::image(cached.slot()).is_ok_and(|kept| kept.manifest_digest == facts.digest);
        if !same {
            return Ok(Done::Plain);
        }
        self.cached = Some(cached);
        Ok(Done::Cached)
    }

    /// Image and proof, for the module cache.
    pub fn cache_job(&self, instance: Instance) -> Result<CacheJob, Failure> {
        Ok(CacheJob {
            instance,
            image: slot_of(&self.output, LoadError::CreateRefused)?,
            proof: slot_of(&self.proof, LoadError::CreateRefused)?,
        })
    }

    /// Keeps the image that the cache took.
    pub fn keep_cached(&mut self, cached: OwnedSlot) {
        self.cached = Some(cached);
    }

    /// Makes the source of every request that has one. Nothing stays if one of them cannot be made.
    pub fn endow(&mut self, instance: Instance, facts: &Facts, target: &Load) -> Outcome {
        let mut made = Vec::new();
        for (request, source) in sources(&facts.requests, &target.grants) {
            let slot = self.source(instance, source);
            let refuse =
                |cause: CallError| Failure::kernel(LoadError::EndowmentRefused, cause.error, request.into());
            made.push((request, slot.map_err(refuse)?));
        }
        self.sources = made;
        Ok(Done::Plain)
    }

    fn source(&self, instance: Instance, source: Source) -> Result<OwnedSlot, CallError> {
        let mint = |slot: Slot, rights: Rights| {
            let rights = u64::from((rights | Rights::COPY).bits());
            make(|dst| op::CapMint(slot, dst, rights, instance.0))
        };
        let copy = |slot: Slot, rights: u64| make(|dst| op::CapCopy(slot, dst, rights));
        match source {
            Source::Lifecycle => mint(ENDPOINT, Rights::SEND | Rights::GRANT),
            Source::Registry => mint(REGISTRY, Rights::SEND | Rights::GRANT),
            Source::Clock => copy(CLOCK, (Rights::READ | Rights::COPY).bits().into()),
            Source::Requester(index) => {
                let granted = self.grants.get(index).and_then(Option::as_ref);
                let granted = granted.ok_or(CallError::new(Error::NoCapability))?.slot();
                copy(granted, op::CapStatus(granted)?.words[1])
            }
        }
    }

    /// What the kernel courier needs.
    pub fn create_job(&self, instance: Instance, priority: u8) -> Result<CreateJob, Failure> {
        let image = match &self.cached {
            Some(cached) => Image::Cached(cached.slot()),
            None => Image::Parts {
                image: slot_of(&self.output, LoadError::CreateRefused)?,
                proof: slot_of(&self.proof, LoadError::CreateRefused)?,
            },
        };
        Ok(CreateJob {
            instance,
            image,
            pool: slot_of(&self.pool, LoadError::CreateRefused)?,
            priority,
            grants: self.sources.iter().map(|(request, slot)| (*request, slot.slot())).collect(),
        })
    }

    /// Holds the process that was made against the contracts, by what the kernel says of it.
    pub fn confirm(&self, facts: &Facts, target: &Load, process: u64) -> Outcome {
        let slot = slot_of(&self.process, LoadError::StartRefused)?;
        let identity = system::identity(slot).map_err(refused(LoadError::StartRefused))?;
        after_creation(facts, target, &Observed { identity: &identity, process })?;
        Ok(Done::Plain)
    }

    /// Watches the process, and lets it run.
    pub fn start(&self, notification: Slot) -> Outcome {
        let process = slot_of(&self.process, LoadError::StartRefused)?;
        op::ProcessWatch(process, notification, DIED).map_err(refused(LoadError::StartRefused))?;
        op::ProcessStart(process).map_err(refused(LoadError::StartRefused))?;
        Ok(Done::Plain)
    }

    /// A capability to the process for its requester: to see its state and no more.
    pub fn lend_process(&self) -> Result<OwnedSlot, Failure> {
        let process = slot_of(&self.process, LoadError::ReplyRefused)?;
        let rights = u64::from((Rights::READ | Rights::COPY).bits());
        make(|dst| op::CapCopy(process, dst, rights)).map_err(refused(LoadError::ReplyRefused))
    }

    /// Cause and code of the process's end, if it has ended.
    pub fn end(&self) -> Option<(u64, u64)> {
        let [state, cause, code, ..] = op::ProcessStatus(self.process()?).ok()?.words;
        (state >= 3).then_some((cause, code))
    }

    /// Drops what is held. (A job of DeepCompression is not here.)
    pub fn release(&mut self, what: Held) {
        if what.contains(Held::PROCESS)
            && let Some(process) = self.process.take()
        {
            // Fails only if the process has ended: as wanted.
            let _ = op::ProcessTerminate(process.slot(), TERMINATED);
        }
        if what.contains(Held::SOURCES) {
            self.sources = Vec::new();
        }
        if what.contains(Held::CACHED) {
            self.cached = None;
        }
        if what.contains(Held::PROOF) {
            self.proof = None;
        }
        if what.contains(Held::OUTPUT)
            && let Some(output) = self.output.take()
        {
            // Whoever else still has it loses it.
            let _ = op::CapRevoke(output.slot());
        }
        if what.contains(Held::PACKAGE) {
            self.package = None;
        }
        if what.contains(Held::GRANTS) {
            self.pool = None;
            self.grants = [const { None }; MAX_NAMED_GRANTS];
        }
    }
}
