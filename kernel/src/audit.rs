//! The page-table walker: reads live page tables and holds them against the objects that explain them.
//!
//! It shares no code with the mapping path: it walks the tables word by word. Run on request in test
//! systems, and before every test system switches off.

use crate::kernel::Kernel;
use crate::machine::{Frame, Machine};
use crate::memory::frame_of;
use crate::objects::*;

const PRESENT: u64 = 1;
const WRITABLE: u64 = 2;
const USER: u64 = 4;
const UNCACHED: u64 = 3 << 3;
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
    /// The upper half is the kernel's template, unreachable from ring 3.
    KernelHalf = 5,
    /// Pages of device Regions are uncached, others are cached; none of the former is memory.
    DeviceUncached = 6,
}

impl Kernel {
    /// Walks every address space; counts the user pages, or names the first page that breaks a rule.
    pub fn audit(&mut self, m: &mut impl Machine) -> Result<u64, Violation> {
        let mut pages = 0;
        for index in 0..self.processes.capacity() {
            let Some((id, p)) = self.processes.at(index) else { continue };
            let (number, roots) = (p.number, p.roots);
            let Some(roots) = roots else { continue };
            self.audit_upper_half(m, number, roots.kernel)?;
            if self.processes.get(id).is_some_and(|p| p.state == ProcessState::Dying) {
                continue;
            }
            pages += self.audit_lower_half(m, id, number, roots.kernel)?;
        }
        Ok(pages)
    }

    fn audit_upper_half(&self, m: &mut impl Machine, process: u64, root: Frame) -> Result<(), Violation> {
        let template = *m.kernel_half();
        let upper = &m.frame(root)[256..];
        let same = upper.iter().zip(&template).all(|(a, b)| a | 0x20 == b | 0x20);
        let hidden = upper.iter().all(|e| e & PRESENT == 0 || e & USER == 0);
        if same && hidden {
            Ok(())
        } else {
            Err(Violation { rule: Rule::KernelHalf, process, address: 1 << 63 })
        }
    }

    fn audit_lower_half(
        &self,
        m: &mut impl Machine,
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
                        self.audit_page(m, id, address, *leaf).map_err(|rule| Violation {
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

    fn audit_page(&self, m: &mut impl Machine, id: ProcessId, address: u64, leaf: u64) -> Result<(), Rule> {
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
            let private = leaf & OWNED != 0 || self.is_message_page(id, address, frame);
            return if private || mapped == Some(true) { Ok(()) } else { Err(Rule::NoWritableAlias) };
        }
        if mapped.is_some() || self.in_image(m, id, frame) { Ok(()) } else { Err(Rule::Explained) }
    }

    /// True if the frame belongs to the sealed Region that the process runs from.
    fn in_image(&self, m: &mut impl Machine, id: ProcessId, frame: Frame) -> bool {
        let image = self.processes.get(id).and_then(|p| p.image).and_then(|r| self.regions.get(r));
        let Some(region) = image.filter(|r| r.sealed && r.writable == 0) else { return false };
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
                let owned = (0..region.filled).any(|page| frame_of(m, region.backing, page) == Some(frame));
                return owned.then_some(map.writable && !region.sealed);
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

    /// Audits and reports a test system; false if a rule is broken.
    pub(crate) fn audit_and_report(&mut self, m: &mut impl Machine) -> bool {
        match self.audit(m) {
            Ok(pages) => {
                m.log(format_args!("audit: {pages} user pages, every rule holds"));
                true
            }
            Err(v) => {
                m.log(format_args!(
                    "audit: {:?} broken by process {} at {:#x}",
                    v.rule, v.process, v.address
                ));
                m.report(b"audit: a page-table rule is broken; the log names it");
                false
            }
        }
    }

    /// The result of a TestAudit: pages; or the rule, process and address.
    pub(crate) fn audit_words(&mut self, m: &mut impl Machine) -> [u64; 4] {
        match self.audit(m) {
            Ok(pages) => [pages, 0, 0, 0],
            Err(v) => [0, v.rule as u64, v.process, v.address],
        }
    }
}

fn next_table(m: &mut impl Machine, table: Frame, index: u64) -> Option<Frame> {
    let entry = m.frame(table)[(index & 511) as usize];
    if entry & PRESENT == 0 { None } else { Frame::containing(entry & FRAME_BITS) }
}
