//! Arenas: vacant, live and retired slots.

use super::{Broken, Rule, arenas, demand};
use crate::arena::view::{ArenaView, SlotView};
use crate::kernel::Kernel;

pub(super) fn check(k: &Kernel) -> Result<(), Broken> {
    for (kind, arena) in arenas(k) {
        let broken = |slot: u32| Broken { rule: Rule::ArenaSlots, index: kind as u64, detail: slot.into() };
        slots(arena).map_err(broken)?;
    }
    Ok(())
}

/// Names a slot at which something is wrong.
fn slots(arena: &dyn ArenaView) -> Result<(), u32> {
    let (mut live, mut vacant) = (0, 0);
    for index in 0..arena.slots() {
        match arena.slot(index).ok_or(index)? {
            SlotView::Live(generation) if generation > 0 => live += 1,
            SlotView::Live(_) => return Err(index),
            SlotView::Vacant(..) => vacant += 1,
            SlotView::Retired => {}
        }
    }
    if live != arena.live_count() {
        return Err(live);
    }
    // A list of as many steps as there are vacant slots, all vacant, that then ends, holds each of them once.
    let mut at = arena.first_vacant();
    for _ in 0..vacant {
        let index = at.ok_or(u32::MAX)?;
        match arena.slot(index) {
            Some(SlotView::Vacant(_, next)) => at = next,
            _ => return Err(index),
        }
    }
    at.map_or(Ok(()), Err)
}

/// Passes if every object of every arena is counted as often as it is named.
pub(super) fn counts(k: &Kernel, s: &mut super::Scratch) -> Result<(), Broken> {
    for (kind, arena) in arenas(k) {
        for index in 0..arena.slots() {
            let found = s.caps_of(kind, index).map_or(0, |count| *count);
            let says = super::counted(k, kind, index);
            demand(says.is_none_or(|says| says == found), Rule::CapCount, kind as u64, index.into())?;
        }
    }
    Ok(())
}
