//! The page-table walker: reads live page tables and holds them against the objects that explain them.
//!
//! It shares no code with the mapping path: it walks the tables word by word, once for the tables themselves and once
//! for the pages. Run on request in systems that are audited (test systems, and those that were started so), and
//! before every such system switches off. It is the one thing that the kernel does at a stretch however long it
//! takes, and what it has to remember stands in [`Marks`], which are made at boot: other systems have neither.

use alloc::boxed::Box;
use alloc::vec;
use core::fmt::{self, Write};

use crate::frames::State;
use crate::kernel::Kernel;
use crate::machine::{Frame, Machine};
use crate::memory::frame_of;
use crate::objects::*;

const PRESENT: u64 = 1;
const WRITABLE: u64 = 2;
const USER: u64 = 4;
const UNCACHED: u64 = 3 << 3;
const ACCESSED: u64 = 1 << 5;
const LARGE: u64 = 1 << 7;
const OWNED: u64 = 1 << 9;
const NO_EXECUTE: u64 = 1 << 63;
const FRAME_BITS: u64 = 0x000f_ffff_ffff_f000;

/// A page that breaks a rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Which rule.
    pub rule: Rule,
    /// Number of the process.
    pub process: u64,
    /// Address of the page.
    pub address: u64,
}

/// The rules of every address space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Rule {
    /// No page is writable and executable.
    WriteXorExecute = 1,
    /// Every executable page shows a frame of the sealed, verified image that its process runs from.
    VerifiedCode = 2,
    /// Every writable page is the process's own, a message page, or lies in a writable mapping of an
    /// unsealed Region.
    NoWritableAlias = 3,
    /// Every other page lies in a mapping or shows the image.
    Explained = 4,
    /// The upper half is the kernel's template, unreachable from ring 3. So the kernel and the physical map are.
    KernelHalf = 5,
    /// Pages of device Regions are uncached, others are cached; none of the former is memory.
    DeviceUncached = 6,
    /// A writable page that no mapping explains is in use, the allocator's, and nothing else: no Region's, no page
    /// table, no thread's state, no other process's. No writable page at all is a page table or a thread's state.
    Exclusive = 7,
    /// Where ring 3 has a root of its own, its lower half is that of the kernel's root and its upper half the entry
    /// area's template, unreachable from ring 3; where the kernel half must be hidden, ring 3 has one.
    UserRoot = 8,
    /// No entry above the last level is a page.
    SmallPages = 9,
    /// What of the kernel a root of ring 3 shows lies in the entry area, is what the kernel's root shows there, and
    /// neither the allocator's nor both writable and executable; there are no more pages of it than trampolines,
    /// descriptors and stacks take.
    EntryArea = 10,
}

impl Rule {
    /// Every rule, in order of number.
    pub const ALL: [Rule; 10] = [
        Rule::WriteXorExecute,
        Rule::VerifiedCode,
        Rule::NoWritableAlias,
        Rule::Explained,
        Rule::KernelHalf,
        Rule::DeviceUncached,
        Rule::Exclusive,
        Rule::UserRoot,
        Rule::SmallPages,
        Rule::EntryArea,
    ];
}

/// Where the entry area begins: the only part of the kernel half that ring 3's own roots show.
pub const ENTRY_AREA: u64 = 0xffff_ffff_c000_0000;
/// The most pages that it shows there for one CPU.
const ENTRY_PAGES: u64 = 32;

/// A set of frames.
struct Set(Box<[u64]>);

impl Set {
    fn new(limit: u32) -> Self {
        Set(vec![0; (limit as usize).div_ceil(64)].into_boxed_slice())
    }

    fn add(&mut self, frame: Frame) {
        if let Some(word) = self.0.get_mut(frame.0 as usize / 64) {
            *word |= 1 << (frame.0 % 64);
        }
    }

    fn has(&self, frame: Frame) -> bool {
        self.0.get(frame.0 as usize / 64).is_some_and(|word| word & 1 << (frame.0 % 64) != 0)
    }
}

/// What frames are, as the walker works it out.
pub struct Marks {
    /// Of sealed Regions.
    sealed: Set,
    /// Of any Region.
    regions: Set,
    /// Page tables, threads' extended state, lists of frames.
    kernel: Set,
    /// Private pages seen so far.
    private: Set,
}

impl Marks {
    fn new(limit: u32) -> Self {
        Marks {
            sealed: Set::new(limit),
            regions: Set::new(limit),
            kernel: Set::new(limit),
            private: Set::new(limit),
        }
    }

    fn clear(&mut self) {
        for set in [&mut self.sealed, &mut self.regions, &mut self.kernel, &mut self.private] {
            set.0.fill(0);
        }
    }
}

/// A line of text.
struct Line {
    bytes: [u8; 96],
    length: usize,
}

impl Default for Line {
    fn default() -> Self {
        Line { bytes: [0; 96], length: 0 }
    }
}

impl Line {
    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes.get_mut(self.length..).unwrap_or_default();
        let taken = room.iter_mut().zip(text.bytes()).map(|(to, from)| *to = from).count();
        self.length += taken;
        if taken == text.len() { Ok(()) } else { Err(fmt::Error) }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(core::str::from_utf8(self.bytes()).unwrap_or_default())
    }
}

impl Kernel {
    /// Makes room for auditing, at the boot of a system that is audited or for a host test.
    pub fn prepare_audit(&mut self) {
        self.marks = Some(Box::new(Marks::new(self.frames.limit())));
    }

    /// Walks every address space; counts the user pages, or names the first page that breaks a rule.
    pub fn audit(&mut self, m: &mut impl Machine) -> Result<u64, Violation> {
        // Without room every set is empty, and what they would have shown goes unnoticed.
        let mut marks = self.marks.take().unwrap_or_else(|| Box::new(Marks::new(0)));
        marks.clear();
        let result = self.audit_with(m, &mut marks);
        self.marks = Some(marks);
        result
    }

    fn audit_with(&self, m: &mut impl Machine, marks: &mut Marks) -> Result<u64, Violation> {
        for (_, r) in self.regions.iter() {
            self.mark_region(m, marks, r);
        }
        for (_, t) in self.threads.iter() {
            marks.kernel.add(t.fpu);
        }
        for (_, p) in self.processes.iter() {
            let Some(roots) = p.roots else { continue };
            audit_roots(m, p.number, roots)?;
            for root in [roots.kernel, roots.user] {
                marks.kernel.add(root);
            }
            mark_tables(m, marks, p.number, roots.kernel)?;
        }
        if let Some(entry) = m.entry_half().copied() {
            self.audit_entry_area(m, &entry)?;
        }
        let mut pages = 0;
        for (id, p) in self.processes.iter() {
            let Some(roots) = p.roots else { continue };
            if p.state != ProcessState::Dying {
                pages += self.audit_lower_half(m, marks, id, p.number, roots.kernel)?;
            }
        }
        Ok(pages)
    }

    /// Walks the template of what ring 3's own roots show of the kernel.
    fn audit_entry_area(&self, m: &mut impl Machine, entry: &[u64; 256]) -> Result<(), Violation> {
        let kernel = *m.kernel_half();
        let mut pages = 0;
        for (a, top) in (256u64..).zip(entry) {
            for b in 0..512 {
                let Some(second) = below(m, *top, b) else { continue };
                for c in 0..512 {
                    let Some(third) = below(m, second, c) else { continue };
                    for d in 0..512 {
                        let Some(leaf) = below(m, third, d) else { continue };
                        let address = 0xffff_u64 << 48 | a << 39 | b << 30 | c << 21 | d << 12;
                        pages += 1;
                        let tables = *top | second | third;
                        let plain = (tables | leaf) & USER == 0 && (second | third) & LARGE == 0;
                        let executes = leaf & (WRITABLE | NO_EXECUTE) == WRITABLE;
                        let frame = Frame::containing(leaf & FRAME_BITS);
                        let own = frame.is_some_and(|frame| !self.frames.is_managed(frame));
                        let shown = shown_at(m, &kernel, [a, b, c, d]) == Some(leaf & FRAME_BITS);
                        if address < ENTRY_AREA || pages > ENTRY_PAGES || executes || !plain || !own || !shown
                        {
                            return Err(Violation { rule: Rule::EntryArea, process: 0, address });
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn mark_region(&self, m: &mut impl Machine, marks: &mut Marks, r: &Region) {
        if r.is_device() {
            return;
        }
        for page in 0..r.filled {
            let Some(frame) = frame_of(m, r.backing, page) else { continue };
            marks.regions.add(frame);
            if r.sealed.is_allowed() {
                marks.sealed.add(frame);
            }
        }
        if let Backing::Indexed(root) = r.backing {
            marks.kernel.add(root);
            for word in m.frame(root).iter().filter(|word| **word != 0) {
                marks.kernel.add(Frame(u32::try_from(*word).unwrap_or(u32::MAX)));
            }
        }
    }

    fn audit_lower_half(
        &self,
        m: &mut impl Machine,
        marks: &mut Marks,
        id: ProcessId,
        number: u64,
        root: Frame,
    ) -> Result<u64, Violation> {
        let mut pages = 0;
        for a in 0..256u64 {
            let Some(l3) = next_table(m, root, a) else { continue };
            for b in 0..512u64 {
                let Some(l2) = next_table(m, l3, b) else { continue };
                for c in 0..512u64 {
                    let Some(l1) = next_table(m, l2, c) else { continue };
                    let leaves = *m.frame(l1);
                    for (d, leaf) in leaves.iter().enumerate().filter(|(_, e)| **e & PRESENT != 0) {
                        let address = a << 39 | b << 30 | c << 21 | (d as u64) << 12;
                        self.audit_page(m, marks, id, address, *leaf).map_err(|rule| Violation {
                            rule,
                            process: number,
                            address,
                        })?;
                        pages += 1;
                    }
                }
            }
        }
        Ok(pages)
    }

    fn audit_page(
        &self,
        m: &mut impl Machine,
        marks: &mut Marks,
        id: ProcessId,
        address: u64,
        leaf: u64,
    ) -> Result<(), Rule> {
        let Some(frame) = Frame::containing(leaf & FRAME_BITS) else { return Err(Rule::Explained) };
        let (writable, executable) = (leaf & WRITABLE != 0, leaf & NO_EXECUTE == 0);
        if writable && executable {
            return Err(Rule::WriteXorExecute);
        }
        if self.shows_device(id, address) != (leaf & UNCACHED == UNCACHED)
            || leaf & UNCACHED != 0 && self.frames.is_managed(frame)
        {
            return Err(Rule::DeviceUncached);
        }
        if executable {
            return if self.in_image(m, id, frame) { Ok(()) } else { Err(Rule::VerifiedCode) };
        }
        let mapped = self.mapping_explains(m, id, address, frame);
        if writable {
            if marks.sealed.has(frame) {
                return Err(Rule::NoWritableAlias);
            }
            if marks.kernel.has(frame) {
                return Err(Rule::Exclusive);
            }
            if mapped == Some(true) {
                return Ok(());
            }
            let private = leaf & OWNED != 0 || self.is_message_page(id, address, frame);
            return if private { self.audit_private(marks, frame) } else { Err(Rule::NoWritableAlias) };
        }
        if mapped.is_some() || self.in_image(m, id, frame) { Ok(()) } else { Err(Rule::Explained) }
    }

    /// A page of a process's own is nobody else's.
    fn audit_private(&self, marks: &mut Marks, frame: Frame) -> Result<(), Rule> {
        let used = self.frames.state(frame) == Some(State::Used);
        if !used || marks.regions.has(frame) || marks.private.has(frame) {
            return Err(Rule::Exclusive);
        }
        marks.private.add(frame);
        Ok(())
    }

    /// True if the frame belongs to the sealed Region that the process runs from.
    fn in_image(&self, m: &mut impl Machine, id: ProcessId, frame: Frame) -> bool {
        let image = self.processes.get(id).and_then(|p| p.image).and_then(|r| self.regions.get(r));
        let Some(region) = image.filter(|r| r.sealed.is_allowed() && r.writable == 0) else { return false };
        (0..region.filled).any(|page| frame_of(m, region.backing, page) == Some(frame))
    }

    /// The mapping record that explains a page; whether it lets the page be written.
    fn mapping_explains(
        &self,
        m: &mut impl Machine,
        id: ProcessId,
        address: u64,
        frame: Frame,
    ) -> Option<bool> {
        let mut at = self.processes.get(id)?.mappings;
        while let Some(map) = at.and_then(|x| self.mappings.get(x)) {
            let (start, pages) = (map.range.start(), map.range.pages());
            if address >= start && (address - start) >> 12 < pages {
                let region = self.regions.get(map.region)?;
                let page = u32::try_from(u64::from(map.offset) + ((address - start) >> 12)).ok()?;
                let shown = page < region.filled && frame_of(m, region.backing, page) == Some(frame);
                return shown.then_some(map.writable && !region.sealed.is_allowed());
            }
            at = map.next;
        }
        None
    }

    /// True if the mapping record at an address is of a device Region.
    fn shows_device(&self, id: ProcessId, address: u64) -> bool {
        let mut at = self.processes.get(id).and_then(|p| p.mappings);
        while let Some(map) = at.and_then(|x| self.mappings.get(x)) {
            let (start, pages) = (map.range.start(), map.range.pages());
            if address >= start && (address - start) >> 12 < pages {
                return self.regions.get(map.region).is_some_and(Region::is_device);
            }
            at = map.next;
        }
        false
    }

    fn is_message_page(&self, id: ProcessId, address: u64, frame: Frame) -> bool {
        let mut at = self.processes.get(id).and_then(|p| p.threads);
        while let Some(t) = at.and_then(|t| self.threads.get(t)) {
            if t.message == Some((frame, address)) {
                return true;
            }
            at = t.next;
        }
        false
    }

    /// True if the page tables are held against the rules on request, and before the system switches off.
    pub(crate) const fn audited(&self) -> bool {
        self.is_test_system() || self.auditing
    }

    /// Audits and reports, to the log and, if the system was started so, to the results channel; false if a rule is
    /// broken.
    pub(crate) fn audit_and_report(&mut self, m: &mut impl Machine) -> bool {
        let mut line = Line::default();
        let result = self.audit(m);
        // What is too long is cut.
        let _ = match result {
            Ok(pages) => write!(line, "audit: {pages} user pages, every rule holds"),
            Err(v) => write!(line, "audit: {:?} broken by process {} at {:#x}", v.rule, v.process, v.address),
        };
        m.log(format_args!("{line}"));
        if self.auditing || result.is_err() {
            m.report(line.bytes());
        }
        result.is_ok()
    }

    /// The result of a TestAudit: pages; or the rule, process and address.
    pub(crate) fn audit_words(&mut self, m: &mut impl Machine) -> [u64; 4] {
        match self.audit(m) {
            Ok(pages) => [pages, 0, 0, 0],
            Err(v) => [0, v.rule as u64, v.process, v.address],
        }
    }
}

/// The halves of the roots that no process may change, and what ring 3 sees of them.
fn audit_roots(m: &mut impl Machine, process: u64, roots: crate::paging::Roots) -> Result<(), Violation> {
    let violation = |rule| Violation { rule, process, address: 1 << 63 };
    let kernel = *m.frame(roots.kernel);
    let template = *m.kernel_half();
    if !is_hidden(&kernel[256..], &template) {
        return Err(violation(Rule::KernelHalf));
    }
    let Some(entry) = m.entry_half().copied() else {
        return if roots.user == roots.kernel { Ok(()) } else { Err(violation(Rule::UserRoot)) };
    };
    let user = *m.frame(roots.user);
    let lower = user.iter().zip(&kernel).take(256).all(|(a, b)| a | ACCESSED == b | ACCESSED);
    if roots.user == roots.kernel || !lower || !is_hidden(&user[256..], &entry) {
        return Err(violation(Rule::UserRoot));
    }
    Ok(())
}

/// True if a root's upper half is the template, and no entry is for ring 3.
fn is_hidden(upper: &[u64], template: &[u64; 256]) -> bool {
    let same = upper.iter().zip(template).all(|(a, b)| a | ACCESSED == b | ACCESSED);
    same && upper.iter().all(|e| e & PRESENT == 0 || e & USER == 0)
}

/// Marks the tables below a root.
fn mark_tables(m: &mut impl Machine, marks: &mut Marks, process: u64, root: Frame) -> Result<(), Violation> {
    let mut table = |m: &mut _, above: Frame, index: u64, address: u64| {
        if Machine::frame(m, above)[(index & 511) as usize] & (PRESENT | LARGE) == PRESENT | LARGE {
            return Err(Violation { rule: Rule::SmallPages, process, address });
        }
        let found = next_table(m, above, index);
        found.into_iter().for_each(|frame| marks.kernel.add(frame));
        Ok(found)
    };
    for a in 0..256u64 {
        let Some(l3) = table(m, root, a, a << 39)? else { continue };
        for b in 0..512u64 {
            let Some(l2) = table(m, l3, b, a << 39 | b << 30)? else { continue };
            for c in 0..512u64 {
                table(m, l2, c, a << 39 | b << 30 | c << 21)?;
            }
        }
    }
    Ok(())
}

/// An entry of the table that another entry names, if both are present.
fn below(m: &mut impl Machine, entry: u64, index: u64) -> Option<u64> {
    let table = Frame::containing(entry & FRAME_BITS).filter(|_| entry & PRESENT != 0)?;
    let found = m.frame(table)[(index & 511) as usize];
    (found & PRESENT != 0).then_some(found)
}

/// The frame that a root with this kernel half shows at a place, as an address.
fn shown_at(m: &mut impl Machine, kernel: &[u64; 256], [a, b, c, d]: [u64; 4]) -> Option<u64> {
    let top = *kernel.get(a.checked_sub(256)? as usize)?;
    let leaf = [b, c, d].into_iter().try_fold(top, |entry, index| below(m, entry, index))?;
    Some(leaf & FRAME_BITS)
}

fn next_table(m: &mut impl Machine, table: Frame, index: u64) -> Option<Frame> {
    let entry = m.frame(table)[(index & 511) as usize];
    if entry & PRESENT == 0 { None } else { Frame::containing(entry & FRAME_BITS) }
}
