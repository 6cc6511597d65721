//! What is really there: a new process as its page tables, its CSpace and its thread show it.
//!
//! Nothing here is used to make a process. Page tables are read entry by entry, capabilities slot by slot; what is expected
//! follows from the verified manifest and image alone.

use sila_abi::facts::KernelFact as F;
use sila_abi::manifest::{CapRequest, Manifest, Selector};
use sila_abi::protocol::layout::{MESSAGE_PAGE, STACK_TOP};
use sila_abi::sif::{Perm, Segment, Sif};
use sila_abi::{ObjectType, Slot};
use sila_crypto::chain::KeySource;

use super::Facts;
use crate::cache::InsertRequest;
use crate::create::{Held, LoadRequest, VerifiedLoad};
use crate::embryo::Recipe;
use crate::endow::Plan;
use crate::kernel::Kernel;
use crate::machine::{FRAME_SIZE, FRAME_WORDS, Frame, Machine};
use crate::objects::*;

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const NO_EXECUTE: u64 = 1 << 63;
/// Set where the frame is the process's own.
const OWNED: u64 = 1 << 9;
/// Bits of an entry that name its frame.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Entries of a root that belong to ring 3.
const LOWER: usize = FRAME_WORDS / 2;
/// Expected pages looked at in one step.
const PAGES_STEP: u64 = 32;
/// Table entries looked at in one step.
const ENTRIES_STEP: u32 = 1024;

/// How far the walk through a new process's page tables has come, and what it has found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Walk {
    /// Expected pages looked at.
    looked: u64,
    /// Those that are as expected.
    right: u64,
    /// Below this address every page was counted.
    address: u64,
    /// Pages that ring 3 is shown.
    mapped: u64,
    /// Both roots show ring 3 the same.
    agree: bool,
}

/// One past the last address of the lower half.
const END: u64 = 1 << 47;

/// What a page must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Page {
    /// This page of the image, with these flags.
    Image(u32, u64),
    /// A frame of the process's own, writable.
    Private,
    /// The first thread's message page.
    Message,
}

impl Kernel {
    /// One step of the walk; true once all was looked at.
    pub(crate) fn walk_step(
        &mut self,
        m: &mut impl Machine,
        id: ProcessId,
        r: &Recipe<'_>,
        walk: &mut Walk,
    ) -> bool {
        let Some(roots) = self.processes.get(id).and_then(|p| p.roots) else { return true };
        let expected = expected_pages(r.manifest, r.sif);
        if walk.looked < expected {
            let until = walk.looked.saturating_add(PAGES_STEP).min(expected);
            for at in walk.looked..until {
                walk.right += u64::from(self.is_right(m, id, roots.user, r, at));
            }
            walk.looked = until;
            return false;
        }
        if walk.address < END {
            let mut budget = ENTRIES_STEP;
            while walk.address < END && budget > 0 {
                let (shown, next) = next_span(m, roots.user, walk.address, &mut budget);
                walk.mapped += shown;
                walk.address = next;
            }
            return false;
        }
        let lower = |m: &mut _, root| lower_half(m, root);
        walk.agree = roots.kernel == roots.user || lower(m, roots.kernel) == lower(m, roots.user);
        true
    }

    /// Whether an expected page is shown as it must be.
    fn is_right(&self, m: &mut impl Machine, id: ProcessId, root: Frame, r: &Recipe<'_>, at: u64) -> bool {
        let Some((address, page)) = expected_page(r.manifest, r.sif, at) else { return false };
        let Some(entry) = shown(m, root, address) else { return false };
        let flags = entry & (WRITABLE | NO_EXECUTE);
        let frame = Frame::containing(entry & ADDRESS);
        match page {
            Page::Image(page, wanted) => {
                flags == wanted && frame.is_some() && frame == self.region_frame(m, r.image, page)
            }
            Page::Private => flags == WRITABLE | NO_EXECUTE && entry & OWNED != 0,
            Page::Message => {
                let thread = self.processes.get(id).and_then(|p| p.initial).and_then(|t| self.threads.get(t));
                let message = thread.and_then(|t| t.message).map(|(frame, _)| frame);
                flags == WRITABLE | NO_EXECUTE && frame.is_some() && frame == message
            }
        }
    }

    /// What holds before a process gets its capabilities.
    pub(crate) fn facts_before(
        &self,
        made_by: Option<(ProcessId, &LoadRequest)>,
        r: &Recipe<'_>,
        verified: bool,
        plan: &Plan,
    ) -> Facts {
        let mut facts = Facts::new();
        let image = self.regions.get(r.image);
        let held = |at: usize| {
            // A boot module's image and manifest are named by the root-signed boot manifest.
            let Some((caller, load)) = made_by else { return true };
            let Some(held) = load.held.get(at) else { return false };
            let found = self.find(caller, held.slot).ok().filter(|found| found.cap == held.cap);
            found
                .is_some_and(|f| f.cap.rights.contains(sila_abi::Rights::READ) && self.is_alive(f.cap.object))
        };
        facts.set(F::ImageReadable, held(1).into());
        facts.set(F::ProofHeld, held(2).into());
        self.image_facts(&mut facts, image, r.manifest, verified);
        self.request_facts(&mut facts, r.manifest, plan);
        manifest_facts(&mut facts, r.manifest, r.sif);
        facts.set(F::Frames, r.quota.0);
        facts.set(F::ObjectBytes, r.quota.1);
        facts.set(F::Priority, r.priority.into());
        facts
    }

    /// What holds of an image that is to come into the module cache: all that is known without a process.
    pub(crate) fn facts_of_image(&self, request: &InsertRequest, load: &VerifiedLoad) -> Facts {
        let mut facts = Facts::new();
        let VerifiedLoad { manifest, sif, binary, .. } = load;
        let readable = |held: &Held| held.cap.rights.contains(sila_abi::Rights::READ);
        let verified = binary.image_digest == manifest.image_digest && binary.image_len == manifest.image_len;
        let [_, image, proof] = &request.held;
        facts.set(F::ImageReadable, readable(image).into());
        facts.set(F::ProofHeld, readable(proof).into());
        self.image_facts(&mut facts, self.regions.get(request.image), manifest, verified);
        manifest_facts(&mut facts, manifest, sif);
        facts.set(F::Frames, manifest.resources.frames);
        facts.set(F::ObjectBytes, manifest.resources.object_bytes);
        facts
    }

    fn image_facts(&self, facts: &mut Facts, image: Option<&Region>, manifest: &Manifest, verified: bool) {
        let pages = image.map_or(0, |i| u64::from(i.pages));
        let key = self.keyring.is_key_revoked(&manifest.key_id);
        let whole = manifest.image_len.div_ceil(FRAME_SIZE as u64) == pages;
        facts.set(F::ImageSealed, image.is_some_and(|i| i.sealed.is_allowed()).into());
        facts.set(F::ImagePages, pages);
        facts.set(F::ImageBytes, manifest.image_len);
        facts.set(F::KeyUsable, (key == Ok(false)).into());
        facts.set(F::BinaryVerified, (verified && whole).into());
        facts.set(F::Floor, self.keyring.floor(&manifest.publisher, &manifest.name).into());
    }

    fn request_facts(&self, facts: &mut Facts, manifest: &Manifest, plan: &Plan) {
        let granted = |request: &CapRequest| plan.grants().any(|(slot, ..)| slot.0 == request.slot);
        // Without a policy it is the boot manifest that grants.
        let policy = self.keyring.policy().filter(|_| plan.policy != 0);
        let permitted = |r: &CapRequest| policy.is_none_or(|p| p.policy.permit(manifest, r).is_ok());
        let mandatory = || manifest.requests.iter().filter(|request| request.mandatory);
        facts.set(F::Requests, manifest.requests.len() as u64);
        facts.set(F::RequestsMandatory, mandatory().count() as u64);
        facts.set(F::MandatoryGranted, mandatory().filter(|r| granted(r) && permitted(r)).count() as u64);
        facts.set(F::RequestsGranted, manifest.requests.iter().filter(|r| granted(r)).count() as u64);
    }

    /// What holds of a process that has its capabilities and that nobody can name yet. `before` counts the capabilities
    /// of the whole system before it got any.
    pub(crate) fn facts_after(
        &self,
        facts: &mut Facts,
        id: ProcessId,
        r: &Recipe<'_>,
        walk: &Walk,
        sources: impl Fn(usize) -> Option<crate::cap::ObjRef>,
        before: u32,
    ) {
        facts.set(F::PagesExpected, expected_pages(r.manifest, r.sif));
        facts.set(F::PagesRight, walk.right);
        facts.set(F::PagesMapped, walk.mapped);
        facts.set(F::RootsAgree, walk.agree.into());
        facts.set(F::CapabilitiesMade, self.caps.live().wrapping_sub(before).into());
        let Some(p) = self.processes.get(id) else { return };
        let named = |i: &Identity| {
            let m = r.manifest;
            let same = i.name == m.name && i.publisher == m.publisher && i.version == m.version;
            same && i.key_id == m.key_id && i.manifest_digest == r.digest && i.service == m.service
        };
        facts.set(F::ProcessFound, (p.job == r.job && named(&p.identity) && p.image == Some(r.image)).into());
        facts.set(F::SpaceIsOwn, self.has_own_space(id, p).into());
        self.thread_facts(facts, p);
        self.capability_facts(facts, id, p, r.manifest, sources);
    }

    /// Whether nobody else has one of the process's roots.
    fn has_own_space(&self, id: ProcessId, p: &Process) -> bool {
        let Some(own) = p.roots else { return false };
        let others = self.processes.iter().filter(|(other, _)| *other != id);
        let mut roots = others.filter_map(|(_, other)| other.roots);
        !roots.any(|r| [r.kernel, r.user].iter().any(|f| [own.kernel, own.user].contains(f)))
    }

    fn thread_facts(&self, facts: &mut Facts, p: &Process) {
        let mut count = 0;
        let mut at = p.threads;
        while let Some(t) = at.and_then(|t| self.threads.get(t)) {
            count += 1;
            at = t.next;
        }
        facts.set(F::Threads, count);
        let Some(first) = p.initial.and_then(|t| self.threads.get(t)) else { return };
        let r = &first.context.registers;
        facts.set(F::ThreadWaits, (first.state == ThreadState::Inactive).into());
        facts.set(F::ThreadEntry, r.rip);
        facts.set(F::ThreadStack, r.rsp);
        facts.set(F::Priority, first.priority.into());
    }

    fn capability_facts(
        &self,
        facts: &mut Facts,
        id: ProcessId,
        p: &Process,
        manifest: &Manifest,
        sources: impl Fn(usize) -> Option<crate::cap::ObjRef>,
    ) {
        let (mut all, mut of_its_own) = (0u64, 0u64);
        let thread = p.initial;
        let is_own = |object: crate::cap::ObjRef| match object.kind {
            ObjectType::Process => object.index == id.index() && object.generation == id.generation(),
            ObjectType::Pool => object.index == p.pool.index() && object.generation == p.pool.generation(),
            ObjectType::Thread => {
                thread.is_some_and(|t| object.index == t.index() && object.generation == t.generation())
            }
            _ => false,
        };
        for at in self.caps.usable_slots(id.index()) {
            if let Some(cap) = self.caps.get(at) {
                all += 1;
                of_its_own += u64::from(is_own(cap.object));
            }
        }
        let right = |(index, request): (usize, &CapRequest)| {
            let Ok(found) = self.find(id, Slot(request.slot)) else { return false };
            let cap = found.cap;
            let object = match request.selector {
                Selector::Grant(_) => sources(index) == Some(cap.object),
                _ => is_own(cap.object),
            };
            object
                && cap.object.kind as u8 == request.object
                && cap.rights.bits() == request.rights
                && request.badge.is_none_or(|badge| badge == cap.badge)
                && usize::from(cap.origin.request) == index + 1
        };
        let right = manifest.requests.iter().enumerate().filter(|r| right(*r)).count();
        let pool = self.pools.get(p.pool).map_or(0, |pool| pool.caps);
        let thread = thread.and_then(|t| self.threads.get(t)).map_or(0, |t| t.caps);
        let named = u64::from(p.caps) + u64::from(pool) + u64::from(thread);
        facts.set(F::Capabilities, all);
        facts.set(F::CapabilitiesRight, right as u64);
        facts.set(F::ForeignCapabilities, named.abs_diff(of_its_own));
    }
}

/// What the manifest and the image's header say, for contracts of modules.
fn manifest_facts(facts: &mut Facts, m: &Manifest, sif: &Sif) {
    let pages = |perm: Perm| sif.segments().iter().filter(|s| s.perm == perm).map(Segment::page_count).sum();
    let version =
        u64::from(m.version.major) << 32 | u64::from(m.version.minor) << 16 | u64::from(m.version.patch);
    facts.set(F::Entry, m.entry);
    facts.set(F::StackTop, STACK_TOP);
    facts.set(F::CodePages, pages(Perm::RX));
    facts.set(F::ConstantPages, pages(Perm::R));
    facts.set(F::DataPages, pages(Perm::RW));
    facts.set(F::StackPages, m.stack_pages.into());
    facts.set(F::Segments, sif.segments().len() as u64);
    facts.set(F::MaxPriority, m.resources.max_priority.into());
    facts.set(F::MaxThreads, m.resources.threads.into());
    facts.set(F::Version, version);
    facts.set(F::SecurityVersion, m.security_version.into());
}

/// Pages that image, stack and message page take.
fn expected_pages(manifest: &Manifest, sif: &Sif) -> u64 {
    let image: u64 = sif.segments().iter().map(Segment::page_count).sum();
    image.saturating_add(manifest.stack_pages.into()).saturating_add(1)
}

/// The address of an expected page, and what it must be.
fn expected_page(manifest: &Manifest, sif: &Sif, at: u64) -> Option<(u64, Page)> {
    let mut left = at;
    let page = FRAME_SIZE as u64;
    for segment in sif.segments() {
        let pages = segment.page_count();
        if left < pages {
            let address = segment.vaddr.checked_add(left.checked_mul(page)?)?;
            let of_image = |flags| Page::Image((segment.file_off / page + left) as u32, flags);
            let what = match segment.perm {
                Perm::RX => of_image(0),
                Perm::R => of_image(NO_EXECUTE),
                Perm::RW => Page::Private,
            };
            return Some((address, what));
        }
        left -= pages;
    }
    let stack = u64::from(manifest.stack_pages);
    if left < stack {
        return Some((STACK_TOP.checked_sub(left.checked_add(1)?.checked_mul(page)?)?, Page::Private));
    }
    (left == stack).then_some((MESSAGE_PAGE, Page::Message))
}

/// The place of an address in the table of a level, 3 for a root.
const fn place(address: u64, level: u32) -> usize {
    ((address >> (12 + 9 * level)) & 511) as usize
}

/// The entry that shows ring 3 an address, with what the tables above it allow; `None` if it is not shown.
fn shown(m: &mut impl Machine, root: Frame, address: u64) -> Option<u64> {
    let mut table = root;
    let (mut writable, mut blocked) = (WRITABLE, 0);
    for level in [3, 2, 1, 0] {
        let entry = *m.frame(table).get(place(address, level))?;
        if entry & PRESENT == 0 || entry & USER == 0 {
            return None;
        }
        writable &= entry;
        blocked |= entry & NO_EXECUTE;
        if level == 0 {
            return Some(entry & (ADDRESS | OWNED) | writable | blocked | PRESENT);
        }
        table = Frame::containing(entry & ADDRESS)?;
    }
    None
}

/// How many pages are shown to ring 3 from an address on, and up to where they were counted: to the next entry that leads
/// further down, or through the rest of a last-level table. Each entry looked at takes one off the budget.
fn next_span(m: &mut impl Machine, root: Frame, address: u64, budget: &mut u32) -> (u64, u64) {
    let mut table = root;
    for level in [3u32, 2, 1, 0] {
        let span = 1u64 << (12 + 9 * level);
        let first = place(address, level);
        let entries = m.frame(table).get(first..).unwrap_or_default();
        // Empty entries of an upper table are passed over here; of a last one all are looked at.
        let shown = |entry: &u64| entry & PRESENT != 0;
        let (count, looked) = match level {
            0 => (entries.iter().filter(|entry| shown(entry)).count(), entries.len()),
            _ => (0, entries.iter().take_while(|entry| !shown(entry)).count()),
        };
        *budget = budget.saturating_sub(looked as u32 + 1);
        if level == 0 || looked > 0 {
            let behind = (address & !(span - 1)).saturating_add(span.saturating_mul(looked as u64));
            return (count as u64, behind);
        }
        match entries.first().and_then(|entry| Frame::containing(entry & ADDRESS)) {
            Some(next) => table = next,
            None => return (0, (address & !(span - 1)).saturating_add(span)),
        }
    }
    (0, END)
}

/// The part of a root that ring 3 sees.
fn lower_half(m: &mut impl Machine, root: Frame) -> [u64; LOWER] {
    let mut lower = [0; LOWER];
    lower.iter_mut().zip(m.frame(root).iter()).for_each(|(to, from)| *to = *from);
    lower
}
