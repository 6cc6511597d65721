//! Processes from verified images: everything, or nothing.

use sila_abi::manifest::{MAX_REQUESTS, Manifest};
use sila_abi::record::Digest;
use sila_abi::sif::Sif;
use sila_abi::{Error, ObjectType, Rights, Slot};
use sila_crypto::chain::{BinaryFacts, Verified};

use crate::cache::CachedImageId;
use crate::cap::{Cap, Origin};
use crate::contract::Resolved;
use crate::embryo::{Check, Embryo, Recipe};
use crate::endow::{self, Authority, Source};
use crate::kernel::{Fail, Kernel, id_of, reference};
use crate::keyring::ChainOrReuse;
use crate::machine::Machine;
use crate::objects::*;
use crate::verify::chain_fail;

/// A capability that a request rests on: where it was and what it was. It must still be there at the end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Held {
    /// Slot of the creator.
    pub slot: Slot,
    /// What it held when the operation began.
    pub cap: Cap,
}

/// What vouches for the image of a load.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Basis {
    /// A proof that is to be verified: in this Region, pinned.
    Proof(RegionId),
    /// The verification by which it came into the module cache.
    Cache(CachedImageId),
}

/// A ProcessCreate or ProcessCreateCached that waits for its verification.
#[derive(Clone, Copy, Debug)]
pub struct LoadRequest {
    /// The sealed image, pinned.
    pub image: RegionId,
    /// What vouches for it.
    pub basis: Basis,
    /// Who pays.
    pub pool: PoolId,
    /// The Job it goes into.
    pub job: JobId,
    /// Job, image, proof and Pool capabilities of the caller. That to a cached image stands for image and proof.
    pub held: [Held; 4],
    /// Source for each request.
    pub grants: [Option<Held>; MAX_REQUESTS],
    /// Priority of the first thread.
    pub priority: u8,
    /// Where the Process capability goes.
    pub dst: Slot,
}

/// What the verification context found out about a load.
#[derive(Clone, Debug)]
pub struct VerifiedLoad {
    /// The manifest.
    pub manifest: Verified<Manifest>,
    /// The image's header.
    pub sif: Verified<Sif>,
    /// What was hashed.
    pub binary: Verified<BinaryFacts>,
    /// Id hash of the manifest's bytes.
    pub digest: Digest,
    /// Which facts the manifest's contract speaks of.
    pub resolved: Resolved,
}

impl LoadRequest {
    /// What its process is made from.
    fn recipe<'a>(&self, manifest: &'a Manifest, sif: &'a Sif, digest: Digest) -> Recipe<'a> {
        Recipe {
            manifest,
            sif,
            digest,
            image: self.image,
            payer: self.pool,
            quota: (manifest.resources.frames, manifest.resources.object_bytes),
            job: self.job,
            priority: self.priority,
        }
    }
}

impl Kernel {
    /// The next step of a load whose image and manifest were verified; true if the process exists. Each step but the
    /// last changes the embryo alone. A step that fails changes nothing.
    pub(crate) fn load_step(
        &mut self,
        m: &mut impl Machine,
        thread: ThreadId,
        load: &LoadRequest,
        verified: &VerifiedLoad,
        embryo: &mut Option<Embryo>,
    ) -> Result<bool, Fail> {
        let VerifiedLoad { manifest, sif, digest, .. } = verified;
        let digest = *digest;
        let recipe = load.recipe(manifest, sif, digest);
        match embryo {
            None => {
                self.authorise_load(thread, load, manifest, digest)?;
                *embryo = Some(self.conceive(m, &recipe)?);
            }
            Some(embryo) if !embryo.is_whole() => self.grow_embryo(m, embryo, &recipe)?,
            Some(whole) => {
                self.commit_load(m, thread, load, verified, whole)?;
                *embryo = None;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The last step of ProcessCreate: every authorisation fact is read again.
    fn commit_load(
        &mut self,
        m: &mut impl Machine,
        thread: ThreadId,
        load: &LoadRequest,
        verified: &VerifiedLoad,
        embryo: &Embryo,
    ) -> Result<(), Fail> {
        let VerifiedLoad { manifest, sif, binary, digest, resolved } = verified;
        let digest = *digest;
        let caller = self.authorise_load(thread, load, manifest, digest)?;
        let at = self.free_slot(caller, load.dst)?;
        let policy = self.keyring.policy().ok_or(Error::RequestPolicy)?;
        let plan = endow::plan(&manifest.requests, Authority::Policy(&policy.policy, manifest), |i| {
            let held = load.grants.get(i).copied().flatten()?;
            let found = self.find(caller, held.slot).ok()?;
            let alive = self.is_alive(found.cap.object);
            let (amount, whole) = self.amount_of(&found.cap);
            Some(Source { cap: found.cap, parent: Some(found.id), alive, amount, whole })
        })?;
        #[cfg(test)]
        let plan = self.spoil(m, load, embryo, plan);
        let hashed = binary.image_digest == manifest.image_digest && binary.image_len == manifest.image_len;
        let sources = |i: usize| load.grants.get(i).copied().flatten().map(|held: Held| held.cap.object);
        let made_by = Some((caller, load));
        let check = Check { made_by, verified: hashed, resolved, sources: &sources };
        let process = self.bear(m, embryo, &plan, &load.recipe(manifest, sif, digest), &check)?;
        self.keyring.remember(manifest, digest);
        if let Basis::Cache(id) = load.basis {
            self.made_from_cache(id);
        }
        let object = reference(ObjectType::Process, process);
        let rights = Rights::READ | Rights::MANAGE | Rights::COPY;
        self.install(at, Cap { object, rights, badge: 0, origin: Origin::NONE });
        Ok(())
    }

    /// The caller, if the request is still as it was made, and the chain of trust still allows the module.
    fn authorise_load(
        &self,
        thread: ThreadId,
        load: &LoadRequest,
        manifest: &Verified<Manifest>,
        digest: Digest,
    ) -> Result<ProcessId, Fail> {
        let caller = self.threads.get(thread).map(|t| t.process).ok_or(Error::ObjectGone)?;
        self.recheck(caller, load)?;
        self.authorise_module(manifest, digest)?;
        let requests = manifest.requests.len();
        if let Some(extra) = load.grants.iter().skip(requests).position(Option::is_some) {
            return Err(Fail::with(Error::GrantUnrequested, (requests + extra) as u64));
        }
        Ok(caller)
    }

    /// Asks whether a module may be loaded now.
    pub(crate) fn authorise_module(&self, manifest: &Verified<Manifest>, digest: Digest) -> Result<(), Fail> {
        self.keyring.authorise(manifest, &digest).map_err(|e| match e {
            ChainOrReuse::Chain(e) => chain_fail(e),
            ChainOrReuse::Reuse => Error::VersionReuse.into(),
            ChainOrReuse::Full => Error::ArenaFull.into(),
        })
    }

    /// How much a source can give, and how much comes with it.
    pub(crate) fn amount_of(&self, cap: &Cap) -> (u64, u64) {
        match cap.object.kind {
            ObjectType::Pool => {
                self.pools.get(id_of(cap)).map_or((0, 0), |p| (p.frames.left(), p.frames.limit))
            }
            ObjectType::Region => {
                let bytes = self.regions.get(id_of(cap)).map_or(0, |r| u64::from(r.pages) * 4096);
                (bytes, bytes)
            }
            _ => (u64::MAX, 0),
        }
    }

    /// Whether a capability is still where it was, and names what lives.
    pub(crate) fn is_still_held(&self, caller: ProcessId, held: &Held) -> bool {
        let found = self.find(caller, held.slot);
        found.is_ok_and(|found| found.cap == held.cap && self.is_alive(found.cap.object))
    }

    /// Everything the request rests on must be as it was when the operation began.
    fn recheck(&self, caller: ProcessId, load: &LoadRequest) -> Result<(), Fail> {
        if !load.held.iter().all(|held| self.is_still_held(caller, held)) {
            return Err(Error::SourceGone.into());
        }
        for (i, held) in load.grants.iter().enumerate() {
            if held.as_ref().is_some_and(|held| !self.is_still_held(caller, held)) {
                return Err(Fail::with(Error::SourceGone, i as u64));
            }
        }
        Ok(self.regions.get(load.image).ok_or(Error::NotSealed)?.demand_sealed()?)
    }
}
