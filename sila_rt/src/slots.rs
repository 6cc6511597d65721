//! Slots of this process's CSpace: which are free, and guards for those in use.

use crate::error::CallError;
use crate::lock::Lock;
use crate::op;
use sila_abi::protocol::layout::SLOTS_END;
use sila_abi::{Error, Slot};

const WORDS: usize = (SLOTS_END as usize).div_ceil(64);

/// The first slot that is handed out; the one below it is the locks' own.
const FIRST_FREE: u16 = crate::lock::NAP.0 + 1;

/// Which dynamic slots are taken.
struct SlotMap {
    taken: [u64; WORDS],
}

impl SlotMap {
    const fn new() -> Self {
        SlotMap { taken: [0; WORDS] }
    }

    fn is_taken(&self, slot: u16) -> bool {
        self.taken.get(usize::from(slot) / 64).is_none_or(|word| word & (1 << (slot % 64)) != 0)
    }

    fn set(&mut self, slot: u16, taken: bool) {
        if let Some(word) = self.taken.get_mut(usize::from(slot) / 64) {
            if taken {
                *word |= 1 << (slot % 64);
            } else {
                *word &= !(1 << (slot % 64));
            }
        }
    }

    /// The first run of `count` free slots, now taken.
    fn take_run(&mut self, count: u16) -> Option<u16> {
        let mut start = FIRST_FREE;
        let mut end = start;
        while end - start < count {
            if end >= SLOTS_END {
                return None;
            }
            end += 1;
            if self.is_taken(end - 1) {
                start = end;
            }
        }
        (start..end).for_each(|slot| self.set(slot, true));
        Some(start)
    }
}

static SLOTS: Lock<SlotMap> = Lock::new(SlotMap::new());

/// A slot set aside for a capability to come; free again when dropped.
#[derive(Debug)]
pub struct FreeSlot {
    slot: Slot,
}

/// Sets a slot aside.
///
/// # Errors
/// `SlotOutOfRange` when every slot is taken.
pub fn reserve() -> Result<FreeSlot, CallError> {
    let slot = SLOTS.lock().take_run(1).ok_or(Error::SlotOutOfRange)?;
    Ok(FreeSlot { slot: Slot(slot) })
}

impl FreeSlot {
    /// The slot's number.
    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// The slot now holds a capability.
    pub fn filled(self) -> OwnedSlot {
        let slot = self.slot;
        core::mem::forget(self);
        OwnedSlot { slot }
    }
}

impl Drop for FreeSlot {
    fn drop(&mut self) {
        SLOTS.lock().set(self.slot.0, false);
    }
}

/// A capability that this value owns: it is deleted with it.
#[derive(Debug, PartialEq, Eq)]
pub struct OwnedSlot {
    slot: Slot,
}

impl OwnedSlot {
    /// The slot's number.
    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// The slot is vacated already: the kernel took the capability out of it.
    pub fn vacated(self) -> FreeSlot {
        let slot = self.slot;
        core::mem::forget(self);
        FreeSlot { slot }
    }

    /// Keeps the capability for as long as the process lives.
    pub fn leak(self) -> Slot {
        let slot = self.slot;
        core::mem::forget(self);
        slot
    }
}

impl Drop for OwnedSlot {
    fn drop(&mut self) {
        // A slot whose capability has vanished meanwhile (revoked, or its object gone) is empty: as wanted.
        let _ = op::CapDelete(self.slot);
        SLOTS.lock().set(self.slot.0, false);
    }
}

/// Makes a capability with an operation that takes a destination slot.
///
/// # Errors
/// The operation's, or `SlotOutOfRange`.
pub fn make(operation: impl FnOnce(Slot) -> Result<op::Words, CallError>) -> Result<OwnedSlot, CallError> {
    let free = reserve()?;
    operation(free.slot())?;
    Ok(free.filled())
}

/// Neighbouring slots for the capabilities of a message; free again when dropped.
#[derive(Debug, Default)]
pub struct FreeRun {
    base: Slot,
    count: u8,
}

impl FreeRun {
    /// Sets `count` neighbouring slots aside (0 to 4).
    ///
    /// # Errors
    /// `SlotOutOfRange` when there is no such run.
    pub fn reserve(count: u8) -> Result<Self, CallError> {
        if count == 0 {
            return Ok(FreeRun::default());
        }
        let base = SLOTS.lock().take_run(count.into()).ok_or(Error::SlotOutOfRange)?;
        Ok(FreeRun { base: Slot(base), count })
    }

    /// The first slot.
    pub fn base(&self) -> Slot {
        self.base
    }

    /// How many slots.
    pub fn count(&self) -> u8 {
        self.count
    }

    /// The first `filled` slots now hold capabilities; the rest are free.
    pub fn filled(self, filled: usize) -> Caps {
        let mut caps = Caps::default();
        for (i, cap) in caps.slots.iter_mut().enumerate().take(usize::from(self.count)) {
            let slot = Slot(self.base.0 + i as u16);
            if i < filled {
                *cap = Some(OwnedSlot { slot });
            } else {
                drop(FreeSlot { slot });
            }
        }
        core::mem::forget(self);
        caps
    }
}

impl Drop for FreeRun {
    fn drop(&mut self) {
        let mut slots = SLOTS.lock();
        (0..u16::from(self.count)).for_each(|i| slots.set(self.base.0 + i, false));
    }
}

/// Capabilities that came with a message, in order. What is not taken is deleted.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Caps {
    slots: [Option<OwnedSlot>; 4],
}

impl Caps {
    /// Takes capability number `index`.
    pub fn take(&mut self, index: usize) -> Option<OwnedSlot> {
        self.slots.get_mut(index)?.take()
    }

    /// How many are there.
    pub fn len(&self) -> usize {
        self.slots.iter().flatten().count()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_handed_out_from_the_first_dynamic_one() {
        let mut map = SlotMap::new();
        assert_eq!(map.take_run(1), Some(FIRST_FREE));
        assert_eq!(map.take_run(4), Some(FIRST_FREE + 1));
        map.set(FIRST_FREE + 2, false);
        assert_eq!(map.take_run(2), Some(FIRST_FREE + 5));
        assert_eq!(map.take_run(1), Some(FIRST_FREE + 2));
    }

    #[test]
    fn slots_end_where_the_cspace_ends() {
        let mut map = SlotMap::new();
        for expected in FIRST_FREE..SLOTS_END {
            assert_eq!(map.take_run(1), Some(expected));
        }
        assert_eq!(map.take_run(1), None);
        map.set(SLOTS_END - 1, false);
        assert_eq!(map.take_run(2), None);
        assert_eq!(map.take_run(1), Some(SLOTS_END - 1));
    }

    #[test]
    fn a_run_splits_into_received_capabilities_and_free_slots() {
        let run = FreeRun::reserve(4).unwrap();
        let mut caps = run.filled(2);
        assert_eq!(caps.len(), 2);
        let first = caps.take(0).unwrap();
        let second = caps.take(1).unwrap();
        assert_eq!(second.slot().0, first.slot().0 + 1);
        assert!(caps.take(2).is_none() && caps.is_empty());
    }
}
