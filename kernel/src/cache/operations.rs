//! What capabilities to the module cache and its images can be used for.

use sila_abi::record::Digest;
use sila_abi::status::{CacheRecord, CachedRecord};
use sila_abi::{Error, ObjectType, Op, Slot};
use zerocopy::IntoBytes;

use super::{CACHED_RIGHTS, CachedImageId, Gone, InsertRequest};
use crate::create::Held;
use crate::introspect::padded;
use crate::invoke::{Flow, Invocation, pack};
use crate::kernel::{Fail, Kernel};
use crate::machine::Machine;
use crate::objects::*;
use crate::verify::{COPY_MAX, Wanted};

const _: () = assert!(size_of::<CacheRecord>() <= sila_abi::syscall::MAX_WORDS * 8);
const _: () = assert!(size_of::<CachedRecord>() <= sila_abi::syscall::MAX_WORDS * 8);

impl Kernel {
    pub(crate) fn cache_operation(
        &mut self,
        m: &mut impl Machine,
        op: Op,
        c: &Invocation,
    ) -> Result<Flow, Fail> {
        match op {
            Op::ModuleCacheInsert => self.begin_insert(m, c),
            Op::ModuleCacheFind => self.find_image(c),
            Op::ModuleCacheStatus => {
                let mut words = [0u64; size_of::<CacheRecord>() / 8];
                pack(&mut words, self.cache_record().as_bytes());
                self.long_result(m, c.thread, &words)
            }
            Op::ModuleCacheNext => {
                let later = self.cached.iter().filter(|(_, entry)| entry.number > c.args[0]);
                let next = later.min_by_key(|(_, entry)| entry.number).map(|(id, _)| id);
                self.image_result(m, c, next.ok_or(Error::NoMoreEntries)?)
            }
            Op::CachedImageStatus => self.image_result(m, c, c.id()),
            _ => {
                self.remove_image(c.id(), Gone::Evicted);
                Ok(Flow::words(&[]))
            }
        }
    }

    fn begin_insert(&mut self, m: &mut impl Machine, c: &Invocation) -> Result<Flow, Fail> {
        c.dst()?;
        let (image, proof): (RegionId, RegionId) = (c.arg_id(0)?, c.arg_id(1)?);
        self.regions.get(image).ok_or(Error::NotSealed)?.demand_sealed()?;
        if self.regions.get(proof).map_or(0, |r| r.pages as usize) * 4096 > COPY_MAX {
            return Err(Error::BadProof.into());
        }
        self.demand_admissible(image)?;
        if !self.can_verify(c.process) {
            return Err(Error::VerificationBusy.into());
        }
        self.count_insertion(m.now())?;
        let held = [Held { slot: c.slot, cap: c.found.cap }, c.held(0)?, c.held(1)?];
        let request = InsertRequest { image, proof, held, dst: Slot(c.args[2] as u16) };
        self.pin_region(image, true);
        self.pin_region(proof, true);
        self.queue_verification(c.thread, Wanted::Insert(request))?;
        // The last step makes room for the result, once there is one.
        self.shrink_grown();
        self.start_wait(c.thread, ThreadState::Verifying, u64::MAX);
        Ok(Flow::Blocked)
    }

    /// Takes one of the insertions that policy permits: as many as creations of processes in a Job, since each costs as
    /// much to verify.
    fn count_insertion(&mut self, now: u64) -> Result<(), Fail> {
        let limits = self.keyring.policy().map(|p| (p.policy.creation_burst, p.policy.creation_per_second));
        let Some((burst, rate)) = limits else { return Ok(()) };
        self.cache.insertions.take(now, burst, rate).map_err(|wait| Fail::with(Error::RateLimited, wait))
    }

    /// The image with a key. One that could no longer be loaded is taken out, whether or not the reaper has asked it yet.
    fn find_image(&mut self, c: &Invocation) -> Result<Flow, Fail> {
        let at = c.dst()?;
        let mut key: Digest = [0; 32];
        for (bytes, word) in key.as_chunks_mut::<8>().0.iter_mut().zip(c.args) {
            *bytes = word.to_le_bytes();
        }
        let found = self.cached_with(&key);
        if let Some(id) = found.filter(|id| !self.could_be_loaded(*id)) {
            self.remove_image(id, Gone::Killed);
        }
        match found.filter(|id| self.cached.get(*id).is_some()) {
            Some(id) => {
                self.use_image(id);
                self.cache.hits += 1;
                self.install_new(at, ObjectType::CachedImage, id, CACHED_RIGHTS)
            }
            None => {
                self.cache.misses += 1;
                Err(Error::NotCached.into())
            }
        }
    }

    fn cache_record(&self) -> CacheRecord {
        let (max_frames, max_entries) = self.cache_limits();
        let cache = &self.cache;
        CacheRecord {
            entries: self.cached.live().into(),
            max_entries: max_entries.into(),
            frames: cache.frames,
            max_frames,
            hits: cache.hits,
            misses: cache.misses,
            inserted: cache.inserted,
            evicted: cache.evicted,
            killed: cache.killed,
        }
    }

    fn image_result(
        &mut self,
        m: &mut impl Machine,
        c: &Invocation,
        id: CachedImageId,
    ) -> Result<Flow, Fail> {
        let entry = self.cached.get(id).ok_or(Error::ObjectGone)?;
        let manifest = &entry.load.as_ref().ok_or(Error::ObjectGone)?.manifest;
        let (name, publisher) = (manifest.name.as_bytes(), manifest.publisher.as_bytes());
        let record = CachedRecord {
            cursor: entry.number,
            frames: entry.frames,
            capabilities: entry.caps.into(),
            users: self.regions.get(entry.image).map_or(0, |r| u64::from(r.pins.saturating_sub(1))),
            made: entry.made,
            used: entry.used,
            version: manifest.version.to_word(),
            security_version: manifest.security_version.into(),
            module_id: entry.key,
            manifest_digest: entry.load.as_ref().map_or([0; 32], |load| load.digest),
            key_id: manifest.key_id,
            name_len: name.len() as u64,
            name: padded(name),
            publisher_len: publisher.len() as u64,
            publisher: padded(publisher),
        };
        let mut words = [0u64; size_of::<CachedRecord>() / 8];
        pack(&mut words, record.as_bytes());
        self.long_result(m, c.thread, &words)
    }
}
