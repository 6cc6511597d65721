//! Processes in the making: from verified image to first thread, in bounded steps.
//!
//! An [`Embryo`] is a process that nothing names yet: no capability, no list of processes shows it, and none of its
//! threads runs. It either comes to be ([`Kernel::bear`]) or is taken apart like any process that ends.

use sila_abi::contract::When;
use sila_abi::manifest::{Manifest, Selector};
use sila_abi::protocol::layout::{MESSAGE_PAGE, STACK_TOP};
use sila_abi::record::Digest;
use sila_abi::sif::{Perm, Segment, Sif};
use sila_abi::trace::Kind;
use sila_abi::{Error, ObjectType};

use crate::arena::Vacant;
use crate::cap::{Cap, ObjRef, Origin};
use crate::contract::Resolved;
use crate::contract::readback::Walk;
use crate::create::LoadRequest;
use crate::endow::{Grant, Plan};
use crate::kernel::{Fail, Kernel, reference};
use crate::machine::{FRAME_SIZE, FRAME_WORDS, Frame, Machine};
use crate::objects::*;
use crate::paging::{self, Access, Roots, UserRange};
use crate::thread::Start;

/// The most private pages (data, bss and stack: 16 MiB) of a new process.
pub const MAX_PRIVATE: u64 = 4096;
/// Private pages made in one step.
const OWNED_STEP: u64 = 4;
/// Pages of the image mapped in one step.
const MAPPED_STEP: u64 = 32;

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
}

/// A process in the making, and what comes next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Embryo {
    /// Its record.
    pub process: ProcessId,
    stage: Stage,
    /// What is found when the page tables are read back.
    pub walk: Walk,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// Pages of a segment of the image from this one on.
    Segment(usize, u64),
    /// Pages of the first stack from this one on.
    Stack(u64),
    /// The first thread.
    Thread,
    /// What was made is looked at.
    Walk,
    /// Nothing but its capabilities.
    Whole,
}

impl Embryo {
    /// True if nothing but its capabilities is missing.
    pub fn is_whole(&self) -> bool {
        self.stage == Stage::Whole
    }
}

/// What the last step holds a creation against, besides the contracts.
pub(crate) struct Check<'a> {
    /// Who asked, and for what; none at boot.
    pub made_by: Option<(ProcessId, &'a LoadRequest)>,
    /// The image's frames were hashed to what the manifest names.
    pub verified: bool,
    /// Which facts the module's contract speaks of.
    pub resolved: &'a Resolved,
    /// The object that stands for a request, by its index.
    pub sources: &'a dyn Fn(usize) -> Option<ObjRef>,
}

impl Kernel {
    /// Begins a process, or changes nothing.
    pub(crate) fn conceive(&mut self, m: &mut impl Machine, r: &Recipe<'_>) -> Result<Embryo, Fail> {
        if r.priority > r.manifest.resources.max_priority {
            return Err(Error::PriorityTooHigh.into());
        }
        let private = r.sif.private_pages().saturating_add(r.manifest.stack_pages.into());
        if private > MAX_PRIVATE {
            return Err(Error::ImageTooLarge.into());
        }
        let process = self.new_process(m, r)?;
        Ok(Embryo { process, stage: Stage::Segment(0, 0), walk: Walk::default() })
    }

    /// One step of making a process; it changes nothing if it fails.
    pub(crate) fn grow_embryo(
        &mut self,
        m: &mut impl Machine,
        embryo: &mut Embryo,
        r: &Recipe<'_>,
    ) -> Result<(), Fail> {
        let id = embryo.process;
        embryo.stage = match embryo.stage {
            Stage::Segment(at, from) => match r.sif.segments().get(at) {
                Some(segment) => match self.map_segment(m, id, r.image, segment, from)? {
                    Some(from) => Stage::Segment(at, from),
                    None => Stage::Segment(at + 1, 0),
                },
                None => Stage::Stack(0),
            },
            Stage::Stack(from) => {
                let pages = u64::from(r.manifest.stack_pages);
                let bytes = pages.checked_mul(FRAME_SIZE as u64).ok_or(Error::BadAddress)?;
                let bottom = STACK_TOP.checked_sub(bytes).ok_or(Error::BadAddress)?;
                match stretch(bottom, pages, from, OWNED_STEP)? {
                    Some((range, next)) => {
                        self.map_owned(m, id, range)?;
                        Stage::Stack(next)
                    }
                    None => Stage::Thread,
                }
            }
            Stage::Thread => {
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
                Stage::Walk
            }
            #[cfg(test)]
            Stage::Walk if self.strike(m, id, crate::tests::contract::Moment::Built) => Stage::Walk,
            Stage::Walk if self.walk_step(m, id, r, &mut embryo.walk) => Stage::Whole,
            Stage::Walk => Stage::Walk,
            Stage::Whole => Stage::Whole,
        };
        Ok(())
    }

    /// The last step: the capabilities of a whole embryo, which is a process from now on if it keeps the contracts. If
    /// not, it has some capabilities and is no process: whoever asked for it takes it apart.
    pub(crate) fn bear(
        &mut self,
        m: &mut impl Machine,
        embryo: &Embryo,
        plan: &Plan,
        r: &Recipe<'_>,
        check: &Check<'_>,
    ) -> Result<ProcessId, Fail> {
        let id = embryo.process;
        let p = self.processes.get(id).ok_or(Error::ObjectGone)?;
        let (pool, thread) = (p.pool, p.initial.filter(|_| embryo.is_whole()).ok_or(Error::ObjectGone)?);
        // Whoever pays may have ended meanwhile.
        if self.pools.get(pool).is_none_or(|pool| pool.dying) {
            return Err(Error::ObjectGone.into());
        }
        let mut facts = self.facts_before(check.made_by, r, check.verified, plan);
        let contract = &r.manifest.contract;
        self.hold_to_contracts(m, contract, check.resolved, When::Before, &facts)?;
        let before = self.caps.live();
        self.endow(id, thread, plan)?;
        #[cfg(test)]
        self.strike(m, id, crate::tests::contract::Moment::Endowed);
        self.facts_after(&mut facts, id, r, &embryo.walk, check.sources, before);
        self.hold_to_contracts(m, contract, check.resolved, When::After, &facts)?;
        if let Some(p) = self.processes.get_mut(id) {
            p.state = ProcessState::Created;
            p.identity.policy = plan.policy;
        }
        self.counters.processes_made += 1;
        self.note(Kind::ProcessCreate, |k| [k.number_of(id), 1, plan.grants().count() as u64]);
        Ok(id)
    }

    /// The record, the own Pool and empty page tables.
    fn new_process(&mut self, m: &mut impl Machine, r: &Recipe<'_>) -> Result<ProcessId, Error> {
        self.room(self.processes.has_room())?;
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
            identity: identity(r),
            state: ProcessState::Embryo,
            roots: Some(roots),
            ceiling: r.manifest.resources.max_priority,
            max_threads: r.manifest.resources.threads,
            image: Some(r.image),
            ..Process::vacant()
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

    /// Maps a stretch of a segment from a page on; the page that comes next, if any.
    fn map_segment(
        &mut self,
        m: &mut impl Machine,
        id: ProcessId,
        image: RegionId,
        segment: &Segment,
        from: u64,
    ) -> Result<Option<u64>, Error> {
        let pages = segment.page_count();
        let (access, step) = match segment.perm {
            Perm::RX => (Access::Execute, MAPPED_STEP),
            Perm::R => (Access::Read, MAPPED_STEP),
            Perm::RW => (Access::ReadWrite, OWNED_STEP),
        };
        let Some((range, next)) = stretch(segment.vaddr, pages, from, step)? else { return Ok(None) };
        if access == Access::ReadWrite {
            self.map_owned(m, id, range)?;
            self.copy_data(m, id, image, segment, (from, next))?;
        } else {
            let first = segment.file_off / FRAME_SIZE as u64 + from;
            self.map_pages(m, id, range, access, |k, m, i| k.region_frame(m, image, (first + i) as u32))?;
        }
        Ok((next < pages).then_some(next))
    }

    /// Copies the initial contents of some pages of a writable segment into the process's own frames.
    fn copy_data(
        &mut self,
        m: &mut impl Machine,
        id: ProcessId,
        image: RegionId,
        segment: &Segment,
        (from, to): (u64, u64),
    ) -> Result<(), Error> {
        let root = self.processes.get(id).and_then(|p| p.roots).ok_or(Error::ObjectGone)?.kernel;
        for page in segment.pages().skip(from as usize).take((to - from) as usize) {
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
        for (slot, grant, origin) in plan.grants() {
            let at = self.free_slot(id, slot)?;
            match grant {
                Grant::Own(selector, rights) => {
                    let object = match selector {
                        Selector::OwnPool => reference(ObjectType::Pool, pool),
                        Selector::OwnProcess => reference(ObjectType::Process, id),
                        _ => reference(ObjectType::Thread, thread),
                    };
                    self.install(at, Cap { object, rights, badge: 0, origin: Origin::NONE });
                }
                Grant::Child { cap, parent: Some(parent) } => {
                    self.derive(parent, at, cap);
                }
                Grant::Child { cap, parent: None } => self.install(at, cap),
            }
            self.caps.set_origin(at, origin);
        }
        Ok(())
    }
}

/// The next stretch of a range of pages: at most `step` from page `from` on, and where the one after it begins.
fn stretch(start: u64, pages: u64, from: u64, step: u64) -> Result<Option<(UserRange, u64)>, Error> {
    let next = from.saturating_add(step).min(pages);
    if from >= next {
        return Ok(None);
    }
    let first = from.checked_mul(FRAME_SIZE as u64).and_then(|bytes| start.checked_add(bytes));
    let range = UserRange::new(first.ok_or(Error::BadAddress)?, next - from)?;
    Ok(Some((range, next)))
}

fn identity(r: &Recipe<'_>) -> Identity {
    let manifest = r.manifest;
    Identity {
        name: manifest.name,
        version: manifest.version,
        security_version: manifest.security_version,
        publisher: manifest.publisher,
        key_id: manifest.key_id,
        service: manifest.service,
        manifest_digest: r.digest,
        policy: 0,
    }
}

/// Zeroes what lies behind the first `keep` bytes of a frame.
fn clear_tail(words: &mut [u64; FRAME_WORDS], keep: usize) {
    let mut tail = words.iter_mut().skip(keep / 8);
    if !keep.is_multiple_of(8)
        && let Some(word) = tail.next()
    {
        *word &= (1u64 << (keep % 8 * 8)) - 1;
    }
    tail.for_each(|word| *word = 0);
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
