//! x86-64 page tables of user address spaces, as plain data.
//!
//! The lower half of a root belongs to a process; the upper half is the kernel's and is copied from a
//! template. Table frames are taken from a list that the caller filled and paid for beforehand, so that
//! mapping a range either changes nothing or succeeds whole. A leaf marked [`OWNED`] holds a frame that
//! belongs to the process alone; every other leaf shows a frame of a Region.

use sila_abi::Error;

use crate::machine::{FRAME_SIZE, FRAME_WORDS, Frame, Machine};

/// Entry flag: present.
pub const PRESENT: u64 = 1;
/// Entry flag: writable.
pub const WRITABLE: u64 = 1 << 1;
/// Entry flag: reachable from ring 3.
pub const USER: u64 = 1 << 2;
/// Entry flag of SILA's own (ignored by the processor): the frame belongs to the process alone.
pub const OWNED: u64 = 1 << 9;
/// Entry flags: neither cached nor combined (entry 3 of the PAT, as at reset).
pub const UNCACHED: u64 = 3 << 3;
/// Entry flag: not executable.
pub const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// First address a user mapping may have (the pages below stay unmapped: null pointers fault).
pub const USER_MIN: u64 = 0x10_0000;
/// One past the last address a user mapping may have.
pub const USER_END: u64 = 0x0000_7fff_ffff_f000;

/// What a user page allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Read only.
    Read,
    /// Read and write, never execute.
    ReadWrite,
    /// Read and execute, never write.
    Execute,
    /// Read a device's registers, uncached.
    DeviceRead,
    /// Read and write a device's registers, uncached; never execute.
    DeviceReadWrite,
}

impl Access {
    /// Access to a device's registers or to memory.
    pub const fn to(device: bool, writable: bool) -> Self {
        match (device, writable) {
            (false, false) => Access::Read,
            (false, true) => Access::ReadWrite,
            (true, false) => Access::DeviceRead,
            (true, true) => Access::DeviceReadWrite,
        }
    }

    const fn bits(self) -> u64 {
        PRESENT
            | USER
            | match self {
                Access::Read => NO_EXECUTE,
                Access::ReadWrite => WRITABLE | NO_EXECUTE,
                Access::Execute => 0,
                Access::DeviceRead => UNCACHED | NO_EXECUTE,
                Access::DeviceReadWrite => UNCACHED | WRITABLE | NO_EXECUTE,
            }
    }
}

/// A page-aligned range of user addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UserRange {
    start: u64,
    pages: u64,
}

impl UserRange {
    /// No page.
    pub(crate) const NONE: UserRange = UserRange { start: 0, pages: 0 };

    /// Checks alignment, overflow and bounds.
    pub fn new(start: u64, pages: u64) -> Result<Self, Error> {
        let bytes = pages.checked_mul(FRAME_SIZE as u64).ok_or(Error::BadAddress)?;
        let end = start.checked_add(bytes).ok_or(Error::BadAddress)?;
        if pages == 0 || start & 0xfff != 0 || start < USER_MIN || end > USER_END {
            return Err(Error::BadAddress);
        }
        Ok(UserRange { start, pages })
    }
    /// First address.
    pub const fn start(self) -> u64 {
        self.start
    }
    /// Length in pages.
    pub const fn pages(self) -> u64 {
        self.pages
    }
    /// The parts of the range that stand in one last-level table each.
    pub fn parts(self) -> impl Iterator<Item = UserRange> {
        let mut left = self;
        core::iter::from_fn(move || {
            let pages = left.pages.min(FRAME_WORDS as u64 - index(left.start, 0) as u64);
            let part = UserRange { start: left.start, pages };
            left = UserRange { start: left.start + pages * FRAME_SIZE as u64, pages: left.pages - pages };
            (pages > 0).then_some(part)
        })
    }

    /// The entries of a range that stands in one last-level table.
    fn entries(self, table: &[u64; FRAME_WORDS]) -> &[u64] {
        let first = index(self.start, 0);
        table.get(first..first + self.pages as usize).unwrap_or_default()
    }

    /// The address of each page.
    pub fn addresses(self) -> impl Iterator<Item = u64> {
        (0..self.pages).map(move |i| self.start + i * FRAME_SIZE as u64)
    }
}

const fn index(address: u64, level: u32) -> usize {
    ((address >> (12 + 9 * level)) & 511) as usize
}

fn frame_of(entry: u64) -> Option<Frame> {
    if entry & PRESENT == 0 { None } else { Frame::containing(entry & ADDRESS) }
}

/// The two roots of an address space: one for ring 0, one for ring 3 (the same when KPTI is off).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Roots {
    /// Loaded in ring 0.
    pub kernel: Frame,
    /// Loaded in ring 3.
    pub user: Frame,
}

/// Fills fresh roots: empty lower half, the kernel's upper half.
pub fn init_roots(m: &mut impl Machine, roots: Roots) {
    let half = *m.kernel_half();
    fill_root(m, roots.kernel, &half);
    if roots.user != roots.kernel
        && let Some(entry) = m.entry_half().copied()
    {
        fill_root(m, roots.user, &entry);
    }
}

fn fill_root(m: &mut impl Machine, root: Frame, upper: &[u64; 256]) {
    let words = m.frame(root);
    words[..256].fill(0);
    words[256..].copy_from_slice(upper);
}

/// Walks to the last-level table that covers an address.
#[inline]
fn leaf_table(m: &mut impl Machine, root: Frame, address: u64) -> Option<Frame> {
    let mut table = root;
    for level in [3, 2, 1] {
        table = frame_of(m.frame(table)[index(address, level)])?;
    }
    Some(table)
}

/// The last-level table that a whole range stands in, if it exists and is one.
#[inline]
pub fn only_table(m: &mut impl Machine, root: Frame, range: UserRange) -> Option<Frame> {
    let last = range.start + (range.pages.saturating_sub(1)) * FRAME_SIZE as u64;
    if range.start >> 21 != last >> 21 {
        return None;
    }
    leaf_table(m, root, range.start)
}

/// Shows frames in a range that stands in one last-level table; false (and no change) if a page of it is in use.
#[inline]
pub fn fill_table(
    m: &mut impl Machine,
    table: Frame,
    range: UserRange,
    access: Access,
    frames: impl Iterator<Item = Frame>,
) -> bool {
    let first = index(range.start, 0);
    let entries = m.frame(table).get_mut(first..).unwrap_or_default();
    let entries = entries.get_mut(..range.pages as usize).unwrap_or_default();
    if entries.iter().any(|e| *e != 0) {
        return false;
    }
    for (entry, frame) in entries.iter_mut().zip(frames) {
        *entry = frame.address() | access.bits();
    }
    true
}

/// Clears a range that stands in one last-level table. The caller flushes.
#[inline(always)]
pub fn clear_table(table: &mut [u64; FRAME_WORDS], range: UserRange) {
    for address in range.addresses() {
        table[index(address, 0)] = 0;
    }
}

/// The leaf entry for an address; 0 if nothing is mapped there.
pub fn entry(m: &mut impl Machine, root: Frame, address: u64) -> u64 {
    match leaf_table(m, root, address) {
        Some(t) => m.frame(t)[index(address, 0)],
        None => 0,
    }
}

/// Counts the table frames that mapping a range will need; `AlreadyMapped` if a page of it is in use.
pub fn tables_needed(m: &mut impl Machine, root: Frame, range: UserRange) -> Result<u64, Error> {
    let mut missing = 0;
    let mut last = [u64::MAX; 3];
    for part in range.parts() {
        let mut table = Some(root);
        for (i, level) in [3u32, 2, 1].into_iter().enumerate() {
            table = match table {
                Some(t) => frame_of(m.frame(t)[index(part.start, level)]),
                None => None,
            };
            let span = part.start >> (12 + 9 * level);
            if table.is_none() && last[i] != span {
                last[i] = span;
                missing += 1;
            }
        }
        if let Some(t) = table
            && find(part.entries(m.frame(t)), u64::MAX).is_some()
        {
            return Err(Error::AlreadyMapped);
        }
    }
    Ok(missing)
}

/// The last-level table that covers an address; `tables` yields zeroed frames for missing ones. None if it ran dry,
/// which a caller that counted with [`tables_needed`] never sees.
pub fn make_tables(
    m: &mut impl Machine,
    roots: Roots,
    address: u64,
    tables: &mut impl FnMut() -> Option<Frame>,
) -> Option<Frame> {
    let mut table = roots.kernel;
    for level in [3, 2, 1] {
        let at = index(address, level);
        table = match frame_of(m.frame(table)[at]) {
            Some(t) => t,
            None => {
                let fresh = tables()?;
                m.zero_frame(fresh);
                let link = fresh.address() | PRESENT | WRITABLE | USER;
                m.frame(table)[at] = link;
                if level == 3 && roots.user != roots.kernel {
                    m.frame(roots.user)[at] = link;
                }
                fresh
            }
        };
    }
    Some(table)
}

/// Shows a frame at an address that a last-level table covers.
#[inline]
pub fn show(m: &mut impl Machine, table: Frame, address: u64, frame: Frame, access: Access, owned: bool) {
    m.frame(table)[index(address, 0)] = frame.address() | access.bits() | if owned { OWNED } else { 0 };
}

/// The first entry that has a bit of this mask, looked for eight at a time.
fn find(entries: &[u64], mask: u64) -> Option<usize> {
    let marked = |part: &&[u64]| part.iter().fold(0, |all, e| all | e) & mask != 0;
    let (at, part) = entries.chunks(8).enumerate().find(|(_, part)| marked(part))?;
    part.iter().position(|e| e & mask != 0).map(|i| at * 8 + i)
}

/// Removes the pages of a range. The caller flushes.
pub fn unmap(m: &mut impl Machine, root: Frame, range: UserRange) {
    for part in range.parts() {
        if let Some(table) = leaf_table(m, root, part.start) {
            clear_table(m.frame(table), part);
        }
    }
}

/// Makes the pages of a range read-only. The caller flushes.
pub fn protect(m: &mut impl Machine, root: Frame, range: UserRange) {
    for part in range.parts() {
        if let Some(table) = leaf_table(m, root, part.start) {
            let entries = m.frame(table).get_mut(index(part.start, 0)..).unwrap_or_default();
            entries.iter_mut().take(part.pages as usize).for_each(|e| *e &= !WRITABLE);
        }
    }
}

/// What a [`teardown_step`] came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Freed {
    /// This page was the address space's own; it is shown no more.
    Page(Frame),
    /// This table, of which nothing was left.
    Table(Frame),
    /// The next page or table is further on.
    Moved,
    /// Nothing is left below the roots.
    Nothing,
}

/// Takes an address space apart from the lowest address up: detaches the next table or owned page at or above `at`.
/// Below `at`, which it moves on, nothing is mapped any more. Costs at most a scan of one table. The roots must not be in
/// use by any CPU.
pub fn teardown_step(m: &mut impl Machine, root: Frame, at: &mut u64) -> Freed {
    let (mut table, mut above, mut link) = (root, root, 0);
    for level in [3u32, 2, 1] {
        let limit = if level == 3 { 256 } else { 512 };
        let first = index(*at, level);
        match next_present(m, table, first, limit) {
            Some((i, child)) if i == first => (table, above, link) = (child, table, i),
            Some((i, _)) => {
                *at = start_of(*at, level, i);
                return Freed::Moved;
            }
            None if level == 3 => return Freed::Nothing,
            None => return detach(m, above, link, table),
        }
    }
    free_leaf(m, table, at).unwrap_or_else(|| detach(m, above, link, table))
}

/// The address at which entry `i` of a table of this level begins, the tables above being those of `at`.
const fn start_of(at: u64, level: u32, i: usize) -> u64 {
    let span = 12 + 9 * level;
    at >> (span + 9) << (span + 9) | (i as u64) << span
}

fn next_present(m: &mut impl Machine, table: Frame, first: usize, limit: usize) -> Option<(usize, Frame)> {
    let entries = m.frame(table).get(first..limit).unwrap_or_default();
    let i = find(entries, PRESENT)?;
    frame_of(entries[i]).map(|f| (first + i, f))
}

/// Removes a table from the entry that leads to it.
fn detach(m: &mut impl Machine, above: Frame, link: usize, table: Frame) -> Freed {
    m.frame(above)[link & 511] = 0;
    Freed::Table(table)
}

/// Removes the first owned page from `at` on, to which `at` moves. Pages of Regions stay shown: the table's own end
/// is theirs.
fn free_leaf(m: &mut impl Machine, table: Frame, at: &mut u64) -> Option<Freed> {
    let first = index(*at, 0);
    let entries = m.frame(table).get_mut(first..).unwrap_or_default();
    let i = find(entries, OWNED)?;
    let frame = frame_of(core::mem::take(&mut entries[i]))?;
    *at = start_of(*at, 0, first + i);
    Some(Freed::Page(frame))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::SimMachine;

    fn map(
        m: &mut SimMachine,
        roots: Roots,
        address: u64,
        (frame, access, owned): (Frame, Access, bool),
        tables: &mut impl FnMut() -> Option<Frame>,
    ) -> bool {
        let table = make_tables(m, roots, address, tables);
        table.inspect(|table| show(m, *table, address, frame, access, owned)).is_some()
    }

    #[test]
    fn user_ranges_are_aligned_bounded_and_never_wrap() {
        assert!(UserRange::new(USER_MIN, 1).is_ok());
        for (start, pages) in
            [(0, 1), (USER_MIN + 1, 1), (USER_MIN, 0), (USER_END, 1), (USER_MIN, u64::MAX), (!0xfff, 2)]
        {
            assert_eq!(UserRange::new(start, pages), Err(Error::BadAddress), "{start:#x} {pages}");
        }
    }

    #[test]
    fn mapping_needs_exactly_the_tables_counted_and_teardown_frees_them() {
        let mut m = SimMachine::new(64);
        let roots = Roots { kernel: Frame(0), user: Frame(0) };
        init_roots(&mut m, roots);
        let range = UserRange::new(0x1f_f000, 3).unwrap();
        let need = tables_needed(&mut m, roots.kernel, range).unwrap();
        assert_eq!(need, 4);
        let mut next = 1;
        let mut used = 0;
        for a in range.addresses() {
            assert!(map(&mut m, roots, a, (Frame(50), Access::ReadWrite, a == 0x20_0000), &mut || {
                used += 1;
                next += 1;
                Some(Frame(next))
            }));
        }
        assert_eq!(used, need);
        assert_eq!(tables_needed(&mut m, roots.kernel, range), Err(Error::AlreadyMapped));
        let mut freed = std::vec::Vec::new();
        let mut at = 0;
        loop {
            match teardown_step(&mut m, roots.kernel, &mut at) {
                Freed::Page(f) | Freed::Table(f) => freed.push(f.0),
                Freed::Moved => {}
                Freed::Nothing => break,
            }
        }
        freed.sort_unstable();
        assert_eq!(freed, [2, 3, 4, 5, 50]);
    }

    #[test]
    fn no_access_is_both_writable_and_executable() {
        for a in
            [Access::Read, Access::ReadWrite, Access::Execute, Access::DeviceRead, Access::DeviceReadWrite]
        {
            let b = a.bits();
            assert!(b & WRITABLE == 0 || b & NO_EXECUTE != 0);
            assert!(b & USER != 0);
        }
        for writable in [false, true] {
            assert_eq!(Access::to(true, writable).bits() & UNCACHED, UNCACHED);
            assert_eq!(Access::to(false, writable).bits() & UNCACHED, 0);
        }
    }

    #[test]
    fn kpti_user_root_shares_the_lower_half() {
        let mut m = SimMachine::new(64);
        m.kpti = true;
        let roots = Roots { kernel: Frame(0), user: Frame(1) };
        init_roots(&mut m, roots);
        let mut next = 1;
        assert!(map(&mut m, roots, 0x40_0000, (Frame(50), Access::Read, false), &mut || {
            next += 1;
            Some(Frame(next))
        }));
        assert_eq!(entry(&mut m, roots.user, 0x40_0000), entry(&mut m, roots.kernel, 0x40_0000));
        let kernel_last = m.frame(Frame(0))[511];
        assert_ne!(kernel_last, m.frame(Frame(1))[511]);
    }
}
