//! Typed arenas: fixed storage for kernel objects, named by index and generation.
//!
//! Invariants: storage is reserved once, at boot, and never moves or grows; a slot's generation rises
//! each time its object ends, so an old [`Id`] never finds a new object, and a vacant slot's generation is
//! one that no `Id` carries yet; a slot whose generation would wrap is retired. The number of slots is a
//! power of two known when the kernel is compiled: an index is masked, not compared, and never out of bounds.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::marker::PhantomData;

pub(crate) mod view;

/// Names an object of an [`Arena`]; stale once the object ended.
pub struct Id<T> {
    index: u32,
    generation: u32,
    of: PhantomData<fn() -> T>,
}

impl<T> Id<T> {
    /// An id from its parts, as a capability stores them.
    pub const fn from_parts(index: u32, generation: u32) -> Self {
        Id { index, generation, of: PhantomData }
    }
    /// The slot of the arena.
    pub const fn index(self) -> u32 {
        self.index
    }
    /// The generation of the slot.
    pub const fn generation(self) -> u32 {
        self.generation
    }
}

impl<T> Clone for Id<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Id<T> {}
impl<T> PartialEq for Id<T> {
    fn eq(&self, other: &Self) -> bool {
        self.index == other.index && self.generation == other.generation
    }
}
impl<T> Eq for Id<T> {}
impl<T> core::fmt::Debug for Id<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}.{}", self.index, self.generation)
    }
}

/// Types that an arena can hold: each has a value that stands in a vacant slot.
pub trait Vacant {
    /// The value of a vacant slot. It owns nothing.
    fn vacant() -> Self;
}

struct Entry<T> {
    generation: u32,
    /// [`LIVE`] while an object stands here, else the next vacant slot.
    next: u32,
    value: T,
}

const NONE: u32 = u32::MAX;
/// Marks a slot whose object lives.
const LIVE: u32 = u32::MAX - 1;
/// No [`Id`] has this generation: a retired slot carries it.
const RETIRED: u32 = 0;

/// `N` slots, a power of two, for objects of one type.
pub struct Arena<T, const N: usize> {
    entries: Box<[Entry<T>; N]>,
    vacant: u32,
    live: u32,
    capacity: u32,
}

impl<T: Vacant, const N: usize> Arena<T, N> {
    const MASK: usize = {
        assert!(N.is_power_of_two() && N <= 1 << 16, "an arena has a power of two of slots");
        N - 1
    };

    /// An arena that lets the first `capacity` of its slots be used; `None` without memory for it.
    pub fn new(capacity: u32) -> Option<Self> {
        let capacity = capacity.min(N as u32);
        let mut entries = Vec::with_capacity(N);
        for i in 0..N as u32 {
            let next = if i + 1 < capacity { i + 1 } else { NONE };
            entries.push(Entry { generation: 1, next, value: T::vacant() });
        }
        let entries = entries.into_boxed_slice().try_into().ok()?;
        Some(Arena { entries, vacant: if capacity == 0 { NONE } else { 0 }, live: 0, capacity })
    }

    #[inline(always)]
    fn entry(&self, index: u32) -> &Entry<T> {
        &self.entries[index as usize & Self::MASK]
    }

    #[inline(always)]
    fn entry_mut(&mut self, index: u32) -> &mut Entry<T> {
        &mut self.entries[index as usize & Self::MASK]
    }

    /// Objects alive.
    pub const fn live(&self) -> u32 {
        self.live
    }

    /// Room in objects.
    pub const fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Stores an object; gives it back if the arena is full.
    #[inline]
    pub fn insert(&mut self, value: T) -> Result<Id<T>, T> {
        let index = self.vacant;
        if index == NONE {
            return Err(value);
        }
        self.live += 1;
        let entry = self.entry_mut(index);
        let (next, generation) = (core::mem::replace(&mut entry.next, LIVE), entry.generation);
        entry.value = value;
        self.vacant = next;
        Ok(Id::from_parts(index, generation))
    }

    /// True if another object fits.
    pub const fn has_room(&self) -> bool {
        self.vacant != NONE
    }

    /// Ends an object, whose value stays behind unread; false if it had ended before.
    #[inline(always)]
    pub fn end(&mut self, id: Id<T>) -> bool {
        let vacant = self.vacant;
        let entry = self.entry_mut(id.index);
        if entry.generation != id.generation || entry.next != LIVE {
            return false;
        }
        match entry.generation.checked_add(1) {
            Some(generation) => {
                entry.generation = generation;
                entry.next = vacant;
                self.vacant = id.index;
            }
            None => {
                entry.generation = RETIRED;
                entry.next = NONE;
            }
        }
        self.live -= 1;
        true
    }

    /// Ends an object and gives back its value.
    pub fn remove(&mut self, id: Id<T>) -> Option<T> {
        let ended = self.end(id);
        ended.then(|| core::mem::replace(&mut self.entry_mut(id.index).value, T::vacant()))
    }

    /// The object, if it still lives.
    #[inline(always)]
    pub fn get(&self, id: Id<T>) -> Option<&T> {
        let entry = self.entry(id.index);
        (entry.generation == id.generation).then_some(&entry.value)
    }

    /// The object, if it still lives, for changing.
    #[inline(always)]
    pub fn get_mut(&mut self, id: Id<T>) -> Option<&mut T> {
        let entry = self.entry_mut(id.index);
        (entry.generation == id.generation).then_some(&mut entry.value)
    }

    /// An index as it is used: within bounds.
    #[inline(always)]
    pub const fn within(index: u32) -> u32 {
        index & Self::MASK as u32
    }

    /// The object in a slot that is known to hold a live one, such as a queue's member; elsewhere what a vacant
    /// slot holds.
    #[inline(always)]
    pub fn known(&self, index: u32) -> &T {
        &self.entry(index).value
    }

    /// As [`Arena::known`], for changing.
    #[inline(always)]
    pub fn known_mut(&mut self, index: u32) -> &mut T {
        &mut self.entry_mut(index).value
    }

    /// Two objects at once, in slots that are known to hold live ones; `None` if the slots are the same.
    #[inline(always)]
    pub fn known_pair_mut(&mut self, a: u32, b: u32) -> Option<(&mut T, &mut T)> {
        let places = [a as usize & Self::MASK, b as usize & Self::MASK];
        let [a, b] = self.entries.get_disjoint_mut(places).ok()?;
        Some((&mut a.value, &mut b.value))
    }

    /// The id of the object in a slot that is known to hold a live one.
    #[inline(always)]
    pub fn id_at(&self, index: u32) -> Id<T> {
        Id::from_parts(index, self.entry(index).generation)
    }

    /// The object in a slot, whatever its generation, with its id.
    pub fn at(&self, index: u32) -> Option<(Id<T>, &T)> {
        let entry = self.entries.get(index as usize).filter(|e| e.next == LIVE)?;
        Some((Id::from_parts(index, entry.generation), &entry.value))
    }

    /// All objects alive, in slot order.
    pub fn iter(&self) -> impl Iterator<Item = (Id<T>, &T)> {
        (0..self.capacity()).filter_map(|i| self.at(i))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Vacant for u8 {
        fn vacant() -> u8 {
            0
        }
    }

    #[test]
    fn arena_refuses_stale_ids_after_reuse() {
        let mut a: Arena<u8, 4> = Arena::new(1).unwrap();
        let first = a.insert(1).unwrap();
        assert_eq!(a.insert(2), Err(2));
        assert_eq!(a.remove(first), Some(1));
        assert_eq!(a.get(first), None);
        assert_eq!(a.remove(first), None);
        assert!(!a.end(first));
        let second = a.insert(3).unwrap();
        assert_eq!(first.index(), second.index());
        assert_eq!(a.get(first), None);
        assert_eq!(a.remove(first), None);
        assert_eq!(a.get(second), Some(&3));
        assert_eq!(a.live(), 1);
    }

    #[test]
    fn a_vacant_slot_is_found_by_no_id_that_was_handed_out() {
        let mut a: Arena<u8, 2> = Arena::new(2).unwrap();
        let id = a.insert(7).unwrap();
        assert!(a.end(id));
        // The next object's id is not known to anybody yet; even a forged one ends nothing.
        assert!(!a.end(Id::from_parts(id.index(), id.generation() + 1)));
        assert_eq!(a.get_mut(id), None);
        assert!(a.at(id.index()).is_none());
        assert_eq!(a.iter().count(), 0);
    }

    #[test]
    fn arena_retires_a_slot_whose_generation_is_spent() {
        let mut a: Arena<u8, 1> = Arena::new(1).unwrap();
        a.entries[0].generation = u32::MAX;
        let id = a.insert(1).unwrap();
        a.remove(id);
        assert!(!a.has_room());
        assert_eq!((a.live(), a.get(id)), (0, None));
    }
}
