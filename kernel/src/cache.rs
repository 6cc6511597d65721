//! The module cache: verified images that later processes are made from without being verified again.
//!
//! There is one cache. It has a Pool of its own, from the boot manifest; an image that comes in is charged to it from
//! then on. An entry holds the sealed image and what the verification context found out about it, behind a counted
//! reference in a keeping (see [`crate::keyring`]). A capability to an entry is a handle: it dies when the entry does.
//!
//! What is cached is no authority. Whether a module may be loaded *now* is asked anew whenever an entry is found, and
//! in the first and last step of every creation; and whenever records come into force the reaper asks for each entry,
//! and takes out those that could no longer be loaded.

use alloc::sync::Arc;

use sila_abi::record::Digest;
use sila_abi::{Error, ObjectType, Rights};
use sila_crypto::chain::check_authority;

use crate::arena::{Id, Vacant};
use crate::cap::{Cap, Origin};
use crate::create::{Held, VerifiedLoad};
use crate::kernel::{Attention, Fail, Kernel, reference};
use crate::machine::Machine;
use crate::memory::region_frames;
use crate::objects::*;
use crate::rate::Bucket;

mod operations;

/// Names a [`CachedImage`].
pub type CachedImageId = Id<CachedImage>;

/// Rights of the first capability to a cached image.
const CACHED_RIGHTS: Rights = Rights::READ.union(Rights::COPY).union(Rights::MANAGE);

/// An image of the cache.
#[derive(Debug)]
pub struct CachedImage {
    /// Capabilities to it.
    pub caps: u32,
    /// Its number: images are counted as they come in.
    pub number: u64,
    /// Its module's id.
    pub key: Digest,
    /// The sealed image, pinned.
    pub image: RegionId,
    /// What was verified; `None` where nothing stands.
    pub load: Option<Arc<VerifiedLoad>>,
    /// Frames that the image costs.
    pub frames: u64,
    /// When it was used last, in uses of the cache.
    pub used: u64,
    /// Processes that were made from it.
    pub made: u64,
}

impl Vacant for CachedImage {
    fn vacant() -> Self {
        let image = Id::from_parts(0, 0);
        CachedImage { caps: 0, number: 0, key: [0; 32], image, load: None, frames: 0, used: 0, made: 0 }
    }
}

/// The cache as a whole.
#[derive(Debug, Default)]
pub struct ModuleCache {
    /// What pays for it; `None` in a system without a cache.
    pub pool: Option<PoolId>,
    /// The most frames that its images may take, by the boot manifest.
    max_frames: u64,
    /// The most images, by the boot manifest.
    max_entries: u32,
    /// Frames that its images take.
    pub frames: u64,
    /// Uses so far.
    uses: u64,
    hits: u64,
    misses: u64,
    inserted: u64,
    evicted: u64,
    killed: u64,
    /// The next entry that is to be asked whether it could still be loaded; behind the last one, whether all are within
    /// the limits.
    sweep: Option<u32>,
    /// How many more images may come in now.
    pub insertions: Bucket,
}

/// A ModuleCacheInsert that waits for its verification.
#[derive(Clone, Copy, Debug)]
pub struct InsertRequest {
    /// The sealed image, pinned.
    pub image: RegionId,
    /// The proof, pinned.
    pub proof: RegionId,
    /// Cache, image and proof capabilities of the caller.
    pub held: [Held; 3],
    /// Where the capability goes.
    pub dst: sila_abi::Slot,
}

/// Why an entry goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Gone {
    /// To make room, or because somebody wants it.
    Evicted,
    /// It could no longer be loaded.
    Killed,
}

impl Kernel {
    /// Makes the cache, at boot. There is one.
    pub(crate) fn make_cache(&mut self, frames: u64, entries: u32) -> Result<(), Error> {
        if self.cache.pool.is_some() || entries > CachedImage::SLOTS {
            return Err(Error::InvalidArgument);
        }
        let bytes = u64::from(entries) * (cost::<CachedImage>() + cost::<Region>());
        let pool = self.split_pool(self.root_pool, frames, bytes)?;
        let object = reference(ObjectType::Pool, pool);
        self.hold(&Cap { object, rights: Rights::USE, badge: 0, origin: Origin::NONE });
        self.cache =
            ModuleCache { pool: Some(pool), max_frames: frames, max_entries: entries, ..Default::default() };
        Ok(())
    }

    /// The most frames and images: what the boot manifest gave, or what policy permits if that is less.
    fn cache_limits(&self) -> (u64, u32) {
        let (frames, entries) = (self.cache.max_frames, self.cache.max_entries);
        match self.keyring.policy().map(|stored| &stored.policy) {
            Some(p) => (frames.min(p.cache_frames), entries.min(p.cache_entries)),
            None => (0, 0),
        }
    }

    /// The last step of ModuleCacheInsert: every authorisation fact is read again, and the image comes in, or nothing
    /// changes.
    pub(crate) fn insert_image(
        &mut self,
        m: &mut impl Machine,
        thread: ThreadId,
        request: &InsertRequest,
        load: &Arc<VerifiedLoad>,
        key: &Digest,
    ) -> Result<(), Fail> {
        let caller = self.threads.get(thread).map(|t| t.process).ok_or(Error::ObjectGone)?;
        if !request.held.iter().all(|held| self.is_still_held(caller, held)) {
            return Err(Error::SourceGone.into());
        }
        self.regions.get(request.image).ok_or(Error::NotSealed)?.demand_sealed()?;
        self.demand_exclusive(request.image, 1)?;
        self.authorise_module(&load.manifest, load.digest)?;
        self.hold_to_cache_contract(m, request, load)?;
        let at = self.free_slot(caller, request.dst)?;
        let id = match self.cached_with(key) {
            Some(id) => id,
            None => {
                let id = self.enter_image(request.image, load, key)?;
                // From now on nobody can name the Region: what is evicted is given back.
                let [_, image, _] = &request.held;
                if let Ok(found) = self.find(caller, image.slot) {
                    self.delete(m, found.id);
                }
                id
            }
        };
        self.use_image(id);
        self.keyring.remember(&load.manifest, load.digest);
        let object = reference(ObjectType::CachedImage, id);
        self.install(at, Cap { object, rights: CACHED_RIGHTS, badge: 0, origin: Origin::NONE });
        Ok(())
    }

    /// Refuses an image that anybody else names, maps, runs from or has verified: what only the cache holds can be evicted.
    /// `pins`: those of the request itself.
    fn demand_exclusive(&self, image: RegionId, pins: u32) -> Result<(), Error> {
        let r = self.regions.get(image).ok_or(Error::ObjectGone)?;
        if r.caps == 1 && r.mappings == 0 && r.pins == pins { Ok(()) } else { Err(Error::NotExclusive) }
    }

    /// What is evident before anything is verified: a cache that has no room and cannot make any, an image that somebody
    /// else has a hold on.
    fn demand_admissible(&self, image: RegionId) -> Result<(), Error> {
        let pages = self.regions.get(image).ok_or(Error::NotSealed)?.pages;
        self.demand_exclusive(image, 0)?;
        self.demand_cache_room(region_frames(pages.into()))
    }

    fn enter_image(
        &mut self,
        image: RegionId,
        load: &Arc<VerifiedLoad>,
        key: &Digest,
    ) -> Result<CachedImageId, Error> {
        let pool = self.cache.pool.ok_or(Error::CacheFull)?;
        let frames = self.regions.get(image).map_or(0, |r| region_frames(r.pages.into()));
        self.make_cache_room(pool, frames)?;
        self.room(self.cached.has_room())?;
        self.charge(pool, 0, cost::<CachedImage>())?;
        if let Err(e) = self.recharge_region(image, pool) {
            self.refund(pool, 0, cost::<CachedImage>());
            return Err(e);
        }
        let entry = CachedImage {
            number: self.cache.inserted + 1,
            key: *key,
            image,
            load: Some(load.clone()),
            frames,
            ..CachedImage::vacant()
        };
        let id = self.cached.insert(entry).map_err(|_| Error::ArenaFull)?;
        self.pin_region(image, true);
        self.cache.frames += frames;
        self.cache.inserted += 1;
        Ok(id)
    }

    /// Images that nobody holds a capability to or runs from: with what they cost, and when they were used last.
    fn idle_images(&self) -> impl Iterator<Item = (CachedImageId, u64, u64)> {
        self.cached.iter().filter_map(|(id, entry)| {
            let alone = self.regions.get(entry.image).is_some_and(|r| r.pins == 1);
            (entry.caps == 0 && alone).then_some((id, entry.frames, entry.used))
        })
    }

    /// Whether another image of so many frames fits, once all that can go has gone.
    fn demand_cache_room(&self, frames: u64) -> Result<(), Error> {
        let (max_frames, max_entries) = self.cache_limits();
        let (mut entries, mut kept) = (self.cached.live(), self.cache.frames);
        for (_, frames, _) in self.idle_images() {
            (entries, kept) = (entries.saturating_sub(1), kept.saturating_sub(frames));
        }
        let fits = entries < max_entries && kept.saturating_add(frames) <= max_frames;
        if fits { Ok(()) } else { Err(Error::CacheFull) }
    }

    /// Takes out what was used longest ago if another image of so many frames does not fit: one image, and what it cost
    /// is given back by the reaper before this is tried again. Nothing goes if that would not suffice.
    fn make_cache_room(&mut self, pool: PoolId, frames: u64) -> Result<(), Error> {
        self.demand_cache_room(frames)?;
        let (max_frames, max_entries) = self.cache_limits();
        let fits = self.cached.live() < max_entries && self.cache.frames.saturating_add(frames) <= max_frames;
        let left = self.pools.get(pool).map_or(0, |p| p.frames.left());
        if fits && left >= frames {
            return Ok(());
        }
        if fits && !self.nothing_to_reap() {
            return Err(Error::OutOfFrames);
        }
        // Images that were killed while processes run from them can still take frames of the Pool.
        if self.evict_oldest() { Err(Error::OutOfFrames) } else { Err(Error::CacheFull) }
    }

    /// Takes out what was used longest ago of all that can go; false if nothing can.
    fn evict_oldest(&mut self) -> bool {
        let oldest = self.idle_images().min_by_key(|(_, _, used)| *used);
        let Some((id, ..)) = oldest else { return false };
        self.remove_image(id, Gone::Evicted);
        true
    }

    /// Ends an entry: from here on no capability reaches it. Who runs from the image goes on.
    fn remove_image(&mut self, id: CachedImageId, why: Gone) {
        let Some(entry) = self.cached.remove(id) else { return };
        match why {
            Gone::Evicted => self.cache.evicted += 1,
            Gone::Killed => self.cache.killed += 1,
        }
        self.cache.frames = self.cache.frames.saturating_sub(entry.frames);
        if let Some(pool) = self.cache.pool {
            self.refund(pool, 0, cost::<CachedImage>());
        }
        self.pin_region(entry.image, false);
    }

    /// The entry of the module with this id.
    fn cached_with(&self, key: &Digest) -> Option<CachedImageId> {
        self.cached.iter().find(|(_, entry)| entry.key == *key).map(|(id, _)| id)
    }

    /// Books a use.
    fn use_image(&mut self, id: CachedImageId) {
        self.cache.uses += 1;
        let now = self.cache.uses;
        if let Some(entry) = self.cached.get_mut(id) {
            entry.used = now;
        }
    }

    /// A process was made from an entry.
    pub(crate) fn made_from_cache(&mut self, id: CachedImageId) {
        self.use_image(id);
        if let Some(entry) = self.cached.get_mut(id) {
            entry.made += 1;
        }
    }

    /// Whether an entry could still be loaded.
    fn could_be_loaded(&self, id: CachedImageId) -> bool {
        let load = self.cached.get(id).and_then(|entry| entry.load.as_ref());
        load.is_some_and(|load| check_authority(&load.manifest, &self.keyring).is_ok())
    }

    /// What authorises modules has changed: every entry is asked whether it could still be loaded, by the reaper.
    pub(crate) fn sweep_cache(&mut self) {
        if self.cached.live() > 0 {
            self.cache.sweep = Some(0);
            self.attention |= Attention::REAP;
        }
    }

    /// Nothing older than what a process runs is loaded any more.
    pub(crate) fn raise_floor(&mut self, runs: &Identity) {
        self.keyring.raise_floor(runs);
        self.sweep_cache();
    }

    /// Takes an image out, as if it had to make room.
    #[cfg(test)]
    pub(crate) fn evict_for_test(&mut self, id: CachedImageId) {
        self.remove_image(id, Gone::Evicted);
    }

    /// True if entries are still to be asked.
    pub(crate) const fn is_sweeping(&self) -> bool {
        self.cache.sweep.is_some()
    }

    /// Asks one entry, or takes one out that is too many under the policy in force. True if there was something to do.
    pub(crate) fn sweep_step(&mut self) -> bool {
        let Some(from) = self.cache.sweep else { return false };
        let next = (from..self.cached.capacity()).find_map(|at| self.cached.at(at).map(|(id, _)| (at, id)));
        if let Some((at, id)) = next {
            self.cache.sweep = Some(at + 1);
            if !self.could_be_loaded(id) {
                self.remove_image(id, Gone::Killed);
            }
            return true;
        }
        let (max_frames, max_entries) = self.cache_limits();
        let beyond = self.cached.live() > max_entries || self.cache.frames > max_frames;
        if !(beyond && self.evict_oldest()) {
            self.cache.sweep = None;
        }
        true
    }

    /// What the context verified when this entry came in, if it still is in the cache.
    pub(crate) fn cached_load(&self, id: CachedImageId) -> Option<Arc<VerifiedLoad>> {
        self.cached.get(id).and_then(|entry| entry.load.clone())
    }
}
