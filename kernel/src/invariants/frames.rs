//! Frames: lists, and an owner for every frame in use.

use super::{Broken, Rule, Scratch, demand};
use crate::frames::State;
use crate::kernel::Kernel;
use crate::machine::{Frame, Machine};
use crate::objects::{Backing, Process, ProcessId, ProcessState, Region};

const PRESENT: u64 = 1;
const ACCESSED: u64 = 1 << 5;
const OWNED: u64 = 1 << 9;

/// The frame that a table entry names.
pub(super) fn frame_in(entry: u64) -> Option<Frame> {
    Frame::containing(entry & 0x000f_ffff_ffff_f000)
}

/// Claims every frame for its owner, books those of address spaces, and compares with the frame table.
pub(super) fn check(k: &Kernel, m: &mut impl Machine, s: &mut Scratch) -> Result<(), Broken> {
    lists(k)?;
    k.regions.iter().try_for_each(|(_, r)| region(k, m, s, r))?;
    for (_, t) in k.threads.iter() {
        let Some((_, p)) = k.processes.at(t.process.index()) else { continue };
        for frame in [Some(t.fpu), t.message.map(|(frame, _)| frame)].into_iter().flatten() {
            claim(k, s, frame)?;
            s.pay(k, p.pool, 1, 0)?;
        }
    }
    for (id, p) in k.processes.iter() {
        address_space(k, m, s, id, p)?;
    }
    let used = k.frames.total().saturating_sub(k.frames.free_count()).saturating_sub(k.frames.quarantined());
    let unowned = u64::from(used) != u64::from(s.claimed);
    demand(!unowned, Rule::FrameOwner, first_unowned(k, s, unowned), 1)
}

/// The first frame in use that nobody claimed.
fn first_unowned(k: &Kernel, s: &Scratch, look: bool) -> u32 {
    let used = |f: &u32| k.frames.listed(*f).is_some_and(|(state, _)| state == State::Used);
    let found = || (0..k.frames.limit()).find(|f| used(f) && !s.frames.is_set(*f));
    if look { found().unwrap_or(u32::MAX) } else { 0 }
}

/// A list of so many steps, each to a frame of this state, that then ends, holds each frame once.
fn list(k: &Kernel, head: u32, count: u32, wanted: State) -> Result<(), Broken> {
    let mut at = head;
    for _ in 0..count {
        match k.frames.listed(at) {
            Some((state, next)) if state == wanted => at = next,
            _ => return demand(false, Rule::FrameLists, at, wanted as u64),
        }
    }
    demand(k.frames.listed(at).is_none(), Rule::FrameLists, at, wanted as u64)
}

fn lists(k: &Kernel) -> Result<(), Broken> {
    let (free, quarantine) = k.frames.heads();
    list(k, free, k.frames.free_count(), State::Free)?;
    list(k, quarantine, k.frames.quarantined(), State::Quarantined)
}

/// Claims a frame in use for an owner.
fn claim(k: &Kernel, s: &mut Scratch, frame: Frame) -> Result<(), Broken> {
    let used = k.frames.listed(frame.0).is_some_and(|(state, _)| state == State::Used);
    demand(used && s.frames.set(frame.0), Rule::FrameOwner, frame.0, 0)?;
    s.claimed += 1;
    Ok(())
}

fn region(k: &Kernel, m: &mut impl Machine, s: &mut Scratch, r: &Region) -> Result<(), Broken> {
    match r.backing {
        Backing::Inline(frames) => {
            frames.into_iter().take(r.filled as usize).try_for_each(|frame| claim(k, s, frame))
        }
        Backing::Indexed(root) => {
            claim(k, s, root)?;
            (0..r.pages.div_ceil(512)).try_for_each(|list| listed_frames(k, m, s, r, (root, list)))
        }
        Backing::Contiguous(first) | Backing::Device(first) => {
            let outside = |page: u32| {
                let state = k.frames.listed(first.0.saturating_add(page)).map(|(state, _)| state);
                state.is_none_or(|state| state == State::Unmanaged)
            };
            demand((0..r.pages).all(outside), Rule::FrameOwner, first.0, 2)
        }
    }
}

/// The frames that one list of a Region names, and the list's own.
fn listed_frames(
    k: &Kernel,
    m: &mut impl Machine,
    s: &mut Scratch,
    r: &Region,
    (root, list): (Frame, u32),
) -> Result<(), Broken> {
    let word = m.frame(root)[list as usize % 512];
    let pages = r.filled.saturating_sub(list * 512).min(512);
    if word == 0 {
        return demand(pages == 0, Rule::FrameOwner, root.0, 3);
    }
    let list = Frame(u32::try_from(word).unwrap_or(u32::MAX));
    claim(k, s, list)?;
    for page in 0..pages as usize {
        let word = m.frame(list)[page % 512];
        claim(k, s, Frame(u32::try_from(word).unwrap_or(u32::MAX)))?;
    }
    Ok(())
}

/// Roots, tables and pages of a process.
fn address_space(
    k: &Kernel,
    m: &mut impl Machine,
    s: &mut Scratch,
    id: ProcessId,
    p: &Process,
) -> Result<(), Broken> {
    let Some(roots) = p.roots else { return Ok(()) };
    let mut own = |frame: Frame| {
        claim(k, s, frame)?;
        s.pay(k, p.pool, 1, 0)
    };
    own(roots.kernel)?;
    if roots.user != roots.kernel {
        own(roots.user)?;
    }
    // Of a dying process nothing is reached any more, though its tables may still show it.
    let live = p.state != ProcessState::Dying;
    walk(m, roots.kernel, (3, 0), &mut |level, address, entry| {
        let frame = frame_in(entry).unwrap_or(Frame(u32::MAX));
        if level > 0 || entry & OWNED != 0 {
            return own(frame);
        }
        let state = k.frames.listed(frame.0).map(|(state, _)| state);
        let shown = matches!(state, None | Some(State::Used | State::Unmanaged));
        demand(shown || !live, Rule::PageShown, id.index(), address)
    })?;
    if live { user_root(m, id, (roots.kernel, roots.user)) } else { Ok(()) }
}

/// Visits every present entry below a table of this level: the table that it leads to, or the page.
fn walk(
    m: &mut impl Machine,
    table: Frame,
    (level, base): (u32, u64),
    visit: &mut dyn FnMut(u32, u64, u64) -> Result<(), Broken>,
) -> Result<(), Broken> {
    let mut at = 0;
    while let Some(found) = next_present(m, table, if level == 3 { 256 } else { 512 }, at) {
        let entry = m.frame(table)[found % 512];
        let address = base | (found as u64) << (12 + 9 * level);
        visit(level, address, entry)?;
        if level > 0
            && let Some(below) = frame_in(entry)
        {
            walk(m, below, (level - 1, address), visit)?;
        }
        at = found + 1;
    }
    Ok(())
}

/// The next present entry of a table.
fn next_present(m: &mut impl Machine, table: Frame, end: usize, from: usize) -> Option<usize> {
    let left = m.frame(table).get(from..end)?;
    left.iter().position(|entry| entry & PRESENT != 0).map(|at| from + at)
}

/// The root that ring 3 uses leads to the same tables.
fn user_root(m: &mut impl Machine, id: ProcessId, (kernel, user): (Frame, Frame)) -> Result<(), Broken> {
    if kernel == user {
        return Ok(());
    }
    for at in 0..256 {
        // The processor marks what it has used.
        let same = m.frame(kernel)[at] | ACCESSED == m.frame(user)[at] | ACCESSED;
        demand(same, Rule::UserRoot, id.index(), at as u64)?;
    }
    Ok(())
}
