//! Typed arenas: fixed storage for kernel objects, named by index and generation.
//!
//! Invariants: storage is reserved once, at boot, and never moves or grows; a slot's generation rises
//! each time its object ends, so an old [`Id`] never finds a new object; a slot whose generation would
//! wrap is retired.

use alloc::vec::Vec;
use core::marker::PhantomData;

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

struct Entry<T> {
    generation: u32,
    next_free: u32,
    value: Option<T>,
}

const NONE: u32 = u32::MAX;

/// A fixed number of slots for objects of one type.
pub struct Arena<T> {
    entries: Vec<Entry<T>>,
    free: u32,
    live: u32,
}

impl<T> Arena<T> {
    /// An arena with room for `capacity` objects.
    pub fn new(capacity: u32) -> Self {
        let mut entries = Vec::with_capacity(capacity as usize);
        for i in 0..capacity {
            let next_free = if i + 1 < capacity { i + 1 } else { NONE };
            entries.push(Entry { generation: 1, next_free, value: None });
        }
        Arena { entries, free: if capacity == 0 { NONE } else { 0 }, live: 0 }
    }

    /// Objects alive.
    pub const fn live(&self) -> u32 {
        self.live
    }

    /// Room in objects.
    pub fn capacity(&self) -> u32 {
        self.entries.len() as u32
    }

    /// Stores an object; gives it back if the arena is full.
    pub fn insert(&mut self, value: T) -> Result<Id<T>, T> {
        let index = self.free;
        let Some(entry) = self.entries.get_mut(index as usize) else {
            return Err(value);
        };
        self.free = entry.next_free;
        entry.value = Some(value);
        self.live += 1;
        Ok(Id::from_parts(index, entry.generation))
    }

    /// True if another object fits.
    pub const fn has_room(&self) -> bool {
        self.free != NONE
    }

    /// Ends an object and gives back its value.
    pub fn remove(&mut self, id: Id<T>) -> Option<T> {
        let entry = self.entries.get_mut(id.index as usize).filter(|e| e.generation == id.generation)?;
        let value = entry.value.take()?;
        self.live -= 1;
        if let Some(next) = entry.generation.checked_add(1) {
            entry.generation = next;
            entry.next_free = self.free;
            self.free = id.index;
        }
        Some(value)
    }

    /// The object, if it still lives.
    pub fn get(&self, id: Id<T>) -> Option<&T> {
        self.entries.get(id.index as usize).filter(|e| e.generation == id.generation)?.value.as_ref()
    }

    /// The object, if it still lives, for changing.
    pub fn get_mut(&mut self, id: Id<T>) -> Option<&mut T> {
        self.entries.get_mut(id.index as usize).filter(|e| e.generation == id.generation)?.value.as_mut()
    }

    /// The object in a slot, whatever its generation, with its id.
    pub fn at(&self, index: u32) -> Option<(Id<T>, &T)> {
        let entry = self.entries.get(index as usize)?;
        entry.value.as_ref().map(|v| (Id::from_parts(index, entry.generation), v))
    }

    /// All objects alive, in slot order.
    pub fn iter(&self) -> impl Iterator<Item = (Id<T>, &T)> {
        (0..self.capacity()).filter_map(|i| self.at(i))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arena_refuses_stale_ids_after_reuse() {
        let mut a = Arena::new(1);
        let first = a.insert(1).unwrap();
        assert_eq!(a.insert(2), Err(2));
        assert_eq!(a.remove(first), Some(1));
        let second = a.insert(3).unwrap();
        assert_eq!(first.index(), second.index());
        assert_eq!(a.get(first), None);
        assert_eq!(a.remove(first), None);
        assert_eq!(a.get(second), Some(&3));
    }

    #[test]
    fn arena_retires_a_slot_whose_generation_is_spent() {
        let mut a = Arena::new(1);
        a.entries[0].generation = u32::MAX;
        let id = a.insert(1).unwrap();
        a.remove(id);
        assert!(!a.has_room());
        assert_eq!(a.live(), 0);
    }
}
