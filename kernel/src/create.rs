//! Processes from verified images: everything, or nothing.

use sila_abi::manifest::{MAX_REQUESTS, Manifest, Selector};
use sila_abi::protocol::layout::{MESSAGE_PAGE, STACK_TOP};
use sila_abi::record::Digest;
use sila_abi::sif::{Perm, Segment, Sif};
use sila_abi::{Error, ObjectType, Rights, Slot};
use sila_crypto::chain::Verified;

use crate::cap::Cap;
use crate::endow::{self, Grant, Plan, Source};
use crate::kernel::{Fail, Kernel, reference};
use crate::keyring::ChainOrReuse;
use crate::machine::{FRAME_SIZE, Frame, Machine};
use crate::objects::*;
use crate::paging::{self, Access, Roots, UserRange};
use crate::thread::Start;
use crate::verify::chain_fail;

/// The most private pages (data, bss and stack: 16 MiB) of a new process. Making one is not preempted.
pub const MAX_PRIVATE: u64 = 4096;

/// A capability that a request rests on: where it was and what it was. It must still be there at the end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Held {
    /// Slot of the creator.
    pub slot: Slot,
    /// What it held when the operation began.
    pub cap: Cap,
}

/// A ProcessCreate that waits for its verification.
#[derive(Clone, Copy, Debug)]
pub struct LoadRequest {
    /// The sealed image, pinned.
    pub image: RegionId,
    /// The proof, pinned.
    pub proof: RegionId,
    /// Who pays.
    pub pool: PoolId,
    /// The Job it goes into.
    pub job: JobId,
    /// Job, image, proof and Pool capabilities of the caller.
    pub held: [Held; 4],
    /// Source for each request.
    pub grants: [Option<Held>; MAX_REQUESTS],
    /// Priority of the first thread.
    pub priority: u8,
    /// Where the Process capability goes.
    pub dst: Slot,
}

/// What a process is made from.
pub(crate) struct Recipe<'a> {
    /// Verified.
    pub manifest: &'a Manifest,
    /// Verified.
    pub sif: &'a Sif,
    /// Id hash of the manifest.
    pub digest: Digest,
    /// The sealed Region.
    pub image: RegionId,
    /// Who pays for the record and the own Pool.
    pub payer: PoolId,
    /// Quotas of the own Pool: frames, object bytes.
    pub quota: (u64, u64),
    /// Its Job.
    pub job: JobId,
    /// Priority of the first thread.
    pub priority: u8,
    /// Its CSpace.
    pub plan: &'a Plan,
}

impl Kernel {
    /// The last step of ProcessCreate.
    pub(crate) fn finish_load(
        &mut self,
        m: &mut impl Machine,
        thread: ThreadId,
        load: &LoadRequest,
        manifest: &Verified<Manifest>,
        sif: &Verified<Sif>,
        digest: Digest,
    ) -> Result<(), Fail> {
        let caller = self.threads.get(thread).map(|t| t.process).ok_or(Error::ObjectGone)?;
        self.recheck(caller, load)?;
        self.keyring.authorise(manifest, &digest).map_err(|e| match e {
            ChainOrReuse::Chain(e) => chain_fail(e),
            ChainOrReuse::Reuse => Error::VersionReuse.into(),
            ChainOrReuse::Full => Error::ArenaFull.into(),
        })?;
        let at = self.free_slot(caller, load.dst)?;
        let requests = &manifest.requests[..];
        if let Some(extra) = load.grants.iter().skip(requests.len()).position(Option::is_some) {
            return Err(Fail::with(Error::GrantUnrequested, (requests.len() + extra) as u64));
        }
        let plan = endow::plan(requests, |i| {
            let held = load.grants.get(i).copied().flatten()?;
            let found = self.find(caller, held.slot).ok()?;
            Some(Source { cap: found.cap, parent: Some(found.id), alive: self.is_alive(found.cap.object) })
        })?;
        let recipe = Recipe {
            manifest,
            sif,
            digest,
            image: load.image,
            payer: load.pool,
            quota: (manifest.resources.frames, manifest.resources.object_bytes),
            job: load.job,
            priority: load.priority,
            plan: &plan,
        };
        let process = self.build_process(m, &recipe)?;
        self.keyring.remember(manifest, digest);
        let object = reference(ObjectType::Process, process);
        let rights = Rights::READ | Rights::MANAGE | Rights::COPY;
        self.install(at, Cap { object, rights, badge: 0 });
        Ok(())
    }

    /// Everything the request rests on must be as it was when the operation began.
    fn recheck(&self, caller: ProcessId, load: &LoadRequest) -> Result<(), Fail> {
        let unchanged =
            |h: &Held| self.find(caller, h.slot).is_ok_and(|f| f.cap == h.cap && self.is_alive(f.cap.object));
        if !load.held.iter().all(unchanged) {
            return Err(Error::SourceGone.into());
        }
        for (i, held) in load.grants.iter().enumerate() {
            if held.as_ref().is_some_and(|h| !unchanged(h)) {
                return Err(Fail::with(Error::SourceGone, i as u64));
            }
        }
        if !self.regions.get(load.image).is_some_and(|r| r.sealed) {
            return Err(Error::NotSealed.into());
        }
        Ok(())
    }

    /// Makes a process, or changes nothing.
    pub(crate) fn build_process(&mut self, m: &mut impl Machine, r: &Recipe<'_>) -> Result<ProcessId, Fail> {
        if r.priority > r.manifest.resources.max_priority {
            return Err(Error::PriorityTooHigh.into());
        }
        let private = r.sif.private_pages().saturating_add(r.manifest.stack_pages as u64);
        if private > MAX_PRIVATE {
            return Err(Error::ImageTooLarge.into());
        }
        let id = self.new_process(m, r)?;
        match self.furnish(m, id, r) {
            Ok(()) => Ok(id),
            Err(e) => {
                self.undo_process(m, id);
                Err(e)
            }
        }
    }

    /// The record, the own Pool and empty page tables.
    fn new_process(&mut self, m: &mut impl Machine, r: &Recipe<'_>) -> Result<ProcessId, Error> {
        if !self.processes.has_room() {
            return Err(Error::ArenaFull);
        }
        self.charge(r.payer, 0, cost::<Process>())?;
        let pool = match self.split_pool(r.payer, r.quota.0, r.quota.1) {
            Ok(pool) => pool,
            Err(e) => {
                self.refund(r.payer, 0, cost::<Process>());
                return Err(e);
            }
        };
        let roots = match self.new_roots(m, pool) {
            Ok(roots) => roots,
            Err(e) => {
                self.end_pool(pool);
                self.refund(r.payer, 0, cost::<Process>());
                return Err(e);
            }
        };
        let number = self.next_process;
        self.next_process += 1;
        let process = Process {
            number,
            payer: r.payer,
            pool,
            job: r.job,
            caps: 0,
            identity: identity(r.manifest, r.digest),
            state: ProcessState::Created,
            exit: Exit::default(),
            roots: Some(roots),
            ceiling: r.manifest.resources.max_priority,
            max_threads: r.manifest.resources.threads,
            thread_count: 0,
            initial: None,
            threads: None,
            mappings: None,
            image: Some(r.image),
            handover: None,
            retired: false,
            watchers: [None; MAX_WATCHERS],
            end: Teardown::default(),
            reap_next: None,
        };
        self.pin_region(r.image, true);
        if let Some(j) = self.jobs.get_mut(r.job) {
            j.members += 1;
        }
        self.processes.insert(process).map_err(|_| Error::ArenaFull)
    }

    fn new_roots(&mut self, m: &mut impl Machine, pool: PoolId) -> Result<Roots, Error> {
        let kernel = self.take_frame(m, pool)?;
        let user = if m.entry_half().is_some() {
            match self.take_frame(m, pool) {
                Ok(f) => f,
                Err(e) => {
                    self.put_frame(pool, kernel);
                    return Err(e);
                }
            }
        } else {
            kernel
        };
        let roots = Roots { kernel, user };
        paging::init_roots(m, roots);
        Ok(roots)
    }

    /// Image, stack, first thread, CSpace.
    fn furnish(&mut self, m: &mut impl Machine, id: ProcessId, r: &Recipe<'_>) -> Result<(), Fail> {
        for segment in r.sif.segments() {
            self.map_segment(m, id, r.image, segment)?;
        }
        let pages = r.manifest.stack_pages as u64;
        let bottom = pages
            .checked_mul(FRAME_SIZE as u64)
            .and_then(|bytes| STACK_TOP.checked_sub(bytes))
            .ok_or(Error::BadAddress)?;
        self.map_owned(m, id, UserRange::new(bottom, pages)?)?;
        let start = Start {
            entry: r.sif.entry(),
            stack: STACK_TOP,
            argument: 0,
            priority: r.priority,
            message_page: MESSAGE_PAGE,
        };
        let thread = self.new_thread(m, id, start)?;
        if let Some(p) = self.processes.get_mut(id) {
            p.initial = Some(thread);
        }
        self.endow(id, thread, r.plan)?;
        Ok(())
    }

    fn map_segment(
        &mut self,
        m: &mut impl Machine,
        id: ProcessId,
        image: RegionId,
        segment: &Segment,
    ) -> Result<(), Error> {
        let range = UserRange::new(segment.vaddr, segment.page_count())?;
        let first = segment.file_off / FRAME_SIZE as u64;
        let access = match segment.perm {
            Perm::RX => Access::Execute,
            Perm::R => Access::Read,
            Perm::RW => {
                self.map_owned(m, id, range)?;
                return self.copy_data(m, id, image, segment);
            }
        };
        self.map_pages(m, id, range, access, |k, m, i| k.region_frame(m, image, (first + i) as u32))
    }

    /// Copies the initial contents of a writable segment into the process's own frames.
    fn copy_data(
        &mut self,
        m: &mut impl Machine,
        id: ProcessId,
        image: RegionId,
        segment: &Segment,
    ) -> Result<(), Error> {
        let root = self.processes.get(id).and_then(|p| p.roots).ok_or(Error::ObjectGone)?.kernel;
        for page in segment.pages() {
            let Some(offset) = page.file_off else { continue };
            let source = self.region_frame(m, image, (offset / FRAME_SIZE as u64) as u32);
            let entry = paging::entry(m, root, page.vaddr);
            let target = Frame::containing(entry & 0x000f_ffff_ffff_f000);
            let (Some(source), Some(target)) = (source, target) else { return Err(Error::BadImage) };
            m.copy_frame(source, target);
            clear_tail(m.frame(target), page.file_len as usize);
        }
        Ok(())
    }

    pub(crate) fn endow(&mut self, id: ProcessId, thread: ThreadId, plan: &Plan) -> Result<(), Error> {
        let pool = self.processes.get(id).ok_or(Error::ObjectGone)?.pool;
        for (slot, grant) in plan.grants() {
            let at = self.free_slot(id, slot)?;
            match grant {
                Grant::Own(selector, rights) => {
                    let object = match selector {
                        Selector::OwnPool => reference(ObjectType::Pool, pool),
                        Selector::OwnProcess => reference(ObjectType::Process, id),
                        _ => reference(ObjectType::Thread, thread),
                    };
                    self.install(at, Cap { object, rights, badge: 0 });
                }
                Grant::Child { cap, parent: Some(parent) } => {
                    self.derive(parent, at, cap);
                }
                Grant::Child { cap, parent: None } => self.install(at, cap),
            }
        }
        Ok(())
    }

    /// Takes a half-made process apart at once. Its size is bounded by its own Pool.
    fn undo_process(&mut self, m: &mut impl Machine, id: ProcessId) {
        self.begin_end(m, id, Exit::default());
        while self.processes.get(id).is_some_and(|p| p.state == ProcessState::Dying) {
            self.reap_step(m);
        }
    }
}

fn identity(manifest: &Manifest, manifest_digest: Digest) -> Identity {
    Identity {
        name: manifest.name,
        version: manifest.version,
        security_version: manifest.security_version,
        publisher: manifest.publisher,
        key_id: manifest.key_id,
        service: manifest.service,
        manifest_digest,
    }
}

/// Zeroes what lies behind the first `keep` bytes of a frame.
fn clear_tail(words: &mut [u64; 512], keep: usize) {
    let whole = keep / 8;
    for (i, w) in words.iter_mut().enumerate().skip(whole) {
        let bits = if i == whole { (keep % 8) * 8 } else { 0 };
        *w &= (1u64 << bits) - 1;
    }
}

#[cfg(test)]
mod tests {
    use super::clear_tail;

    #[test]
    fn clear_tail_keeps_exactly_the_bytes_asked_for() {
        for keep in [0usize, 1, 7, 8, 9, 4095, 4096] {
            let mut words = [u64::MAX; 512];
            clear_tail(&mut words, keep);
            let bytes: std::vec::Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
            assert!(bytes[..keep].iter().all(|b| *b == 0xff), "{keep}");
            assert!(bytes[keep..].iter().all(|b| *b == 0), "{keep}");
        }
    }
}
