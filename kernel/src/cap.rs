//! Capabilities and their derivation.
//!
//! Every slot of every CSpace lives in one table: a process's slots stand together, at a place that its own slot
//! in the arena says. A CSpace grows by chunks of [`CHUNK`] slots, which it may use and pays for; what lies beyond is
//! empty. Occupied slots form a forest: a copy, mint, transfer or endowment is a child of its source. The forest is
//! threaded: the first child's `prev` and the last child's `next` lead to the parent, so that insertion, removal
//! (which hands the children to the parent) and moving take the same few steps however many relatives there are.
//!
//! The table's length is known when the kernel is compiled: a place is masked, not compared, and never out of bounds.
//! The last process slot of the arena is nobody's; its first slots here stand for what is no capability.

use alloc::boxed::Box;
use alloc::vec;
use sila_abi::{ObjectType, Rights};

use crate::objects::{Priced, Process};

pub(crate) mod view;

/// Slots in a chunk.
pub const CHUNK: usize = 64;
/// Slots in the largest CSpace.
pub const CSPACE: usize = 1024;
/// Chunks in the largest CSpace.
pub const MAX_CHUNKS: usize = CSPACE / CHUNK;

/// Names a kernel object of any type.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct ObjRef {
    /// Its type.
    pub kind: ObjectType,
    /// Slot in the type's arena.
    pub index: u32,
    /// Generation of that slot.
    pub generation: u32,
}

/// Why a process was given a capability when it was made: by which request of its manifest and which rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Origin {
    /// The request, from 1; 0: it came by itself to it, later.
    pub request: u8,
    /// The rule of the policy, from 1; 0: the boot manifest.
    pub rule: u8,
}

impl Origin {
    /// Of what a process was not endowed with.
    pub const NONE: Origin = Origin { request: 0, rule: 0 };
}

/// What a slot holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cap {
    /// The object.
    pub object: ObjRef,
    /// What the holder may do.
    pub rights: Rights,
    /// Why the holder has it. A copy is no endowment; what is moved remains one.
    pub origin: Origin,
    /// The badge, 0 if none was set. Of a Reply: the number of the call.
    pub badge: u64,
}

impl Cap {
    /// The right to answer a call: the slot of the caller's thread, the slot of the endpoint that was called, and the
    /// call's number.
    #[inline(always)]
    pub const fn reply(caller: u32, endpoint: u32, number: u64) -> Cap {
        let object = ObjRef { kind: ObjectType::Reply, index: caller, generation: endpoint };
        Cap { object, rights: Rights::SEND.union(Rights::GRANT), badge: number, origin: Origin::NONE }
    }
}

/// A slot of the table, whichever CSpace it belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub struct CapId(u32);

impl CapId {
    /// A place of nobody's where no capability can be put.
    pub const NOWHERE: CapId = CapId(ANCHOR + 1);

    /// A slot of a process's CSpace; the number must be below [`CSPACE`].
    #[inline(always)]
    pub const fn in_cspace(process: u32, slot: usize) -> Self {
        CapId(process << CSPACE.trailing_zeros() | (slot % CSPACE) as u32)
    }

    /// The slot `count` places further; it must lie in the same CSpace.
    #[inline(always)]
    pub const fn after(self, count: usize) -> Self {
        CapId(self.0.wrapping_add(count as u32))
    }

    /// The slot in the arena of the process whose CSpace it is.
    pub const fn process(self) -> u32 {
        self.0 / CSPACE as u32
    }

    /// The slot in the CSpace.
    pub const fn slot(self) -> usize {
        self.0 as usize % CSPACE
    }
}

/// Slots of the arena of processes.
const PROCESSES: usize = Process::SLOTS as usize;
/// Slots of all CSpaces together, and nobody's.
const SLOTS: usize = PROCESSES * CSPACE;
/// Stands at [`CapId::NOWHERE`]: a Reply that no caller waits for.
const OCCUPIED: Cap = Cap {
    object: ObjRef { kind: ObjectType::Reply, index: 0, generation: 0 },
    rights: Rights::empty(),
    badge: 0,
    origin: Origin::NONE,
};

const NONE: u32 = u32::MAX;
/// The parent of all roots; no slot of a process.
const ANCHOR: u32 = (SLOTS - CSPACE) as u32;
/// Marks a link to the parent instead of a sibling.
const UP: u32 = 1 << 31;

#[derive(Clone, Copy)]
struct Entry {
    cap: Option<Cap>,
    prev: u32,
    next: u32,
    first: u32,
    last: u32,
}

const EMPTY: Entry = Entry { cap: None, prev: NONE, next: NONE, first: NONE, last: NONE };

/// All slots of all CSpaces.
pub struct CapTable {
    entries: Box<[Entry; SLOTS]>,
    /// For each process the chunks that its CSpace may use, a bit each.
    chunks: Box<[u16; PROCESSES]>,
    live: u32,
}

impl CapTable {
    /// A table in which no CSpace has a chunk; `None` without memory for it.
    pub fn new() -> Option<Self> {
        let mut entries = vec![EMPTY; SLOTS];
        entries[CapId::NOWHERE.0 as usize].cap = Some(OCCUPIED);
        let entries = entries.into_boxed_slice().try_into().ok()?;
        Some(CapTable { entries, chunks: Box::new([0; PROCESSES]), live: 0 })
    }

    /// Bytes of table that one chunk takes.
    pub const CHUNK_BYTES: u64 = (CHUNK * size_of::<Entry>()) as u64;

    /// Capabilities alive, Replies not among them.
    pub const fn live(&self) -> u32 {
        self.live
    }

    /// True if the CSpace that a slot lies in may use it.
    #[inline(always)]
    pub fn is_usable(&self, at: CapId) -> bool {
        self.chunks[at.process() as usize % PROCESSES] >> (at.slot() / CHUNK) & 1 == 1
    }

    /// Lets a CSpace use the chunk that a slot lies in, or no longer use it.
    pub fn set_usable(&mut self, at: CapId, usable: bool) {
        let (chunks, bit) = (&mut self.chunks[at.process() as usize % PROCESSES], 1 << (at.slot() / CHUNK));
        if usable {
            *chunks |= bit;
        } else {
            *chunks &= !bit;
        }
    }

    /// The first slot of the first chunk that a process's CSpace may use.
    pub fn first_chunk(&self, process: u32) -> Option<CapId> {
        let chunks = self.chunks[process as usize % PROCESSES];
        (chunks != 0).then(|| CapId::in_cspace(process, chunks.trailing_zeros() as usize * CHUNK))
    }

    /// Every slot that a process's CSpace may use.
    pub fn usable_slots(&self, process: u32) -> impl Iterator<Item = CapId> {
        let chunks = self.chunks[process as usize % PROCESSES];
        let usable = (0..MAX_CHUNKS).filter(move |chunk| chunks >> chunk & 1 == 1);
        usable.flat_map(move |chunk| (0..CHUNK).map(move |i| CapId::in_cspace(process, chunk * CHUNK + i)))
    }

    /// The slots of the chunk that this one lies in.
    pub fn chunk_of(at: CapId) -> impl Iterator<Item = CapId> {
        let first = at.slot() / CHUNK * CHUNK;
        (first..first + CHUNK).map(move |slot| CapId::in_cspace(at.process(), slot))
    }

    #[inline(always)]
    fn entry(&self, id: u32) -> &Entry {
        &self.entries[id as usize % SLOTS]
    }

    #[inline(always)]
    fn entry_mut(&mut self, id: u32) -> &mut Entry {
        &mut self.entries[id as usize % SLOTS]
    }

    #[inline(always)]
    fn update(&mut self, id: u32, change: impl FnOnce(&mut Entry)) {
        change(self.entry_mut(id));
    }

    /// The capability in a slot.
    #[inline(always)]
    pub fn get(&self, id: CapId) -> Option<Cap> {
        self.entry(id.0).cap
    }

    /// As [`CapTable::get`], without copying it.
    #[inline(always)]
    pub fn peek(&self, id: CapId) -> Option<&Cap> {
        self.entry(id.0).cap.as_ref()
    }

    /// The capability in a slot, if it names an object of this type.
    #[inline(always)]
    pub fn peek_typed(&self, id: CapId, kind: ObjectType) -> Option<&Cap> {
        if self.kind(id) == kind as u8 { self.peek(id) } else { None }
    }

    /// Sets the badge in place (for a capability the kernel just made).
    pub fn set_badge(&mut self, id: CapId, badge: u64) {
        self.update(id.0, |e| {
            if let Some(cap) = &mut e.cap {
                cap.badge = badge;
            }
        });
    }

    /// The first child, for revocation.
    pub fn first_child(&self, id: CapId) -> Option<CapId> {
        let entry = self.entry(id.0);
        // What stands alone has no links.
        let linked = entry.cap.is_some_and(|c| c.object.kind != ObjectType::Reply);
        (linked && entry.first != NONE).then_some(CapId(entry.first))
    }

    /// True if its CSpace may use the slot, and it is empty.
    #[inline(always)]
    pub fn is_free(&self, at: CapId) -> bool {
        self.is_usable(at) && self.is_empty(at)
    }

    /// True if a slot is empty.
    #[inline(always)]
    pub fn is_empty(&self, at: CapId) -> bool {
        self.entry(at.0).cap.is_none()
    }

    /// The number of the type of the object that the capability in a slot names; 0 if the slot is empty.
    #[inline(always)]
    pub fn kind(&self, at: CapId) -> u8 {
        self.entry(at.0).cap.as_ref().map_or(0, |c| c.object.kind as u8)
    }

    /// Puts a capability without parent into an empty slot; false (and no change) if it is occupied.
    pub fn insert_root(&mut self, at: CapId, cap: Cap) -> bool {
        self.link_below(ANCHOR, at, cap)
    }

    /// Puts a child of the capability in `parent` into an empty slot; false (and no change) if the slot
    /// is occupied or the parent is not.
    pub fn insert_child(&mut self, parent: CapId, at: CapId, cap: Cap) -> bool {
        self.get(parent).is_some() && self.link_below(parent.0, at, cap)
    }

    /// Puts a Reply, which takes no part in derivation, into an empty slot.
    #[inline(always)]
    pub fn insert_reply(&mut self, at: CapId, cap: Cap) -> bool {
        let free = self.is_free(at);
        if free {
            self.put_reply(at, cap);
        }
        free
    }

    /// As [`CapTable::insert_reply`], into a slot of a CSpace that is known to be empty.
    #[inline(always)]
    pub fn put_reply(&mut self, at: CapId, cap: Cap) {
        self.entry_mut(at.0).cap = Some(cap);
    }

    /// Empties a slot that is known to hold a Reply.
    #[inline(always)]
    pub fn take_reply(&mut self, at: CapId) {
        self.entry_mut(at.0).cap = None;
    }

    /// As [`CapTable::insert_child`], of a capability that is known to be there into a slot that is known to be free.
    #[inline(always)]
    pub fn put_child(&mut self, parent: CapId, at: CapId, cap: Cap) {
        self.put_below(parent.0, at, cap);
    }

    /// As [`CapTable::insert_root`], into a slot that is known to be free.
    #[inline(always)]
    pub fn put_root(&mut self, at: CapId, cap: Cap) {
        self.put_below(ANCHOR, at, cap);
    }

    /// Changes a capability in its slot, behind everybody's back.
    #[cfg(test)]
    pub fn change(&mut self, at: CapId, change: impl FnOnce(&mut Cap)) {
        change(self.entry_mut(at.0).cap.as_mut().unwrap());
    }

    /// Says of a capability that its holder was endowed with it.
    pub fn set_origin(&mut self, at: CapId, origin: Origin) {
        if let Some(cap) = &mut self.entry_mut(at.0).cap {
            cap.origin = origin;
        }
    }

    fn link_below(&mut self, parent: u32, at: CapId, cap: Cap) -> bool {
        let free = self.is_free(at);
        if free {
            self.put_below(parent, at, cap);
        }
        free
    }

    #[inline(always)]
    fn put_below(&mut self, parent: u32, at: CapId, cap: Cap) {
        let old_first = self.entry(parent).first;
        let next = if old_first == NONE { parent | UP } else { old_first };
        self.update(at.0, |e| {
            *e = Entry { cap: Some(Cap { origin: Origin::NONE, ..cap }), prev: parent | UP, next, ..EMPTY }
        });
        self.update(parent, |e| {
            e.first = at.0;
            if old_first == NONE {
                e.last = at.0;
            }
        });
        if old_first != NONE {
            self.update(old_first, |e| e.prev = at.0);
        }
        self.live = self.live.wrapping_add(1);
    }

    /// Lets the neighbours (or the parent) of a place point at `first` and `last` instead.
    #[inline(always)]
    fn relink(&mut self, prev: u32, next: u32, first: u32, last: u32) {
        if prev & UP != 0 {
            self.update(prev & !UP, |e| e.first = if first & UP != 0 { NONE } else { first });
        } else {
            self.update(prev, |e| e.next = first);
        }
        if next & UP != 0 {
            self.update(next & !UP, |e| e.last = if last & UP != 0 { NONE } else { last });
        } else {
            self.update(next, |e| e.prev = last);
        }
    }

    /// Empties a slot. The capability's children become its parent's, in its place.
    #[inline]
    pub fn remove(&mut self, id: CapId) -> Option<Cap> {
        let cap = self.entry(id.0).cap?;
        if cap.object.kind == ObjectType::Reply {
            self.take_reply(id);
        } else {
            self.remove_linked(id);
        }
        Some(cap)
    }

    /// As [`CapTable::remove`], of a capability that is known to be there and no Reply.
    #[inline(always)]
    pub fn remove_linked(&mut self, id: CapId) {
        let e = self.entry_mut(id.0);
        let (prev, next, first, last) = (e.prev, e.next, e.first, e.last);
        e.cap = None;
        self.live = self.live.wrapping_sub(1);
        if first == NONE {
            self.relink(prev, next, next, prev);
        } else {
            self.update(first, |e| e.prev = prev);
            self.update(last, |e| e.next = next);
            self.relink(prev, next, first, last);
        }
    }

    /// Moves a capability to an empty slot; it keeps its place in the forest.
    pub fn relocate(&mut self, from: CapId, to: CapId) -> bool {
        let node = *self.entry(from.0);
        let Some(cap) = node.cap.filter(|_| self.is_free(to)) else { return false };
        self.update(to.0, |e| *e = node);
        self.update(from.0, |e| *e = EMPTY);
        if cap.object.kind == ObjectType::Reply {
            return true;
        }
        self.relink(node.prev, node.next, to.0, to.0);
        if node.first != NONE {
            self.update(node.first, |e| e.prev = to.0 | UP);
            self.update(node.last, |e| e.next = to.0 | UP);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    /// An independent model: a parent map over slots, no links.
    #[derive(Default)]
    struct Model {
        parent: BTreeMap<u32, Option<u32>>,
    }

    impl Model {
        fn descendants(&self, of: u32) -> BTreeSet<u32> {
            let mut found = BTreeSet::new();
            loop {
                let more: Vec<u32> = self
                    .parent
                    .iter()
                    .filter(|&(s, p)| !found.contains(s) && p.is_some_and(|p| p == of || found.contains(&p)))
                    .map(|(s, _)| *s)
                    .collect();
                if more.is_empty() {
                    return found;
                }
                found.extend(more);
            }
        }
        fn remove(&mut self, slot: u32) {
            if let Some(up) = self.parent.remove(&slot) {
                for p in self.parent.values_mut().filter(|p| **p == Some(slot)) {
                    *p = up;
                }
            }
        }
    }

    fn table() -> CapTable {
        let mut t = CapTable::new().unwrap();
        t.set_usable(CapId(0), true);
        t.set_usable(CapId(64), true);
        t
    }

    fn cap(n: u64) -> Cap {
        let object = ObjRef { kind: ObjectType::Endpoint, index: 0, generation: 1 };
        Cap { object, rights: Rights::SEND, badge: n, origin: Origin::NONE }
    }

    fn children_of(t: &CapTable, id: u32) -> BTreeSet<u32> {
        let mut found = BTreeSet::new();
        let mut at = t.entry(id).first;
        let mut before = id | UP;
        while at != NONE && at & UP == 0 {
            assert_eq!(t.entry(at).prev, before, "prev mirrors next");
            assert!(found.insert(at));
            before = at;
            at = t.entry(at).next;
        }
        if !found.is_empty() {
            assert_eq!(at, id | UP, "the last child leads to its parent");
            assert_eq!(t.entry(id).last, before);
        }
        found
    }

    fn agrees(t: &CapTable, m: &Model) {
        assert_eq!(t.live() as usize, m.parent.len());
        let mut reached = BTreeSet::new();
        for parent in [None].into_iter().chain(m.parent.keys().map(|k| Some(*k))) {
            let want: BTreeSet<u32> =
                m.parent.iter().filter(|(_, p)| **p == parent).map(|(s, _)| *s).collect();
            let got = children_of(t, parent.unwrap_or(ANCHOR));
            assert_eq!(got, want);
            reached.extend(got);
        }
        assert_eq!(reached.len(), m.parent.len());
    }

    proptest! {
        #[test]
        fn derivation_forest_agrees_with_a_parent_map(ops in proptest::collection::vec((0u8..5, 65u32..104, 65u32..104), 1..200)) {
            let mut t = table();
            let mut m = Model::default();
            for (op, a, b) in ops {
                match op {
                    0 => {
                        let fresh = !m.parent.contains_key(&a);
                        prop_assert_eq!(t.insert_root(CapId(a), cap(1)), fresh);
                        if fresh { m.parent.insert(a, None); }
                    }
                    1 => {
                        let ok = m.parent.contains_key(&a) && !m.parent.contains_key(&b);
                        prop_assert_eq!(t.insert_child(CapId(a), CapId(b), cap(2)), ok);
                        if ok { m.parent.insert(b, Some(a)); }
                    }
                    2 => {
                        prop_assert_eq!(t.remove(CapId(a)).is_some(), m.parent.contains_key(&a));
                        m.remove(a);
                    }
                    3 => {
                        let ok = m.parent.contains_key(&a) && !m.parent.contains_key(&b);
                        prop_assert_eq!(t.relocate(CapId(a), CapId(b)), ok);
                        if ok {
                            let up = m.parent.remove(&a).unwrap();
                            m.parent.insert(b, up);
                            for p in m.parent.values_mut().filter(|p| **p == Some(a)) { *p = Some(b); }
                        }
                    }
                    _ => {
                        let doomed = m.descendants(a);
                        while let Some(child) = t.first_child(CapId(a)) { t.remove(child); }
                        for d in doomed { m.parent.remove(&d); }
                    }
                }
                agrees(&t, &m);
            }
        }
    }

    #[test]
    fn a_reply_moves_and_goes_without_touching_the_forest() {
        let mut t = table();
        let reply = |n| Cap { object: ObjRef { kind: ObjectType::Reply, ..cap(1).object }, ..cap(n) };
        t.insert_root(CapId(65), cap(1));
        assert!(t.insert_reply(CapId(66), reply(2)));
        assert!(!t.insert_reply(CapId(66), reply(3)));
        assert!(t.relocate(CapId(66), CapId(67)));
        assert_eq!(t.first_child(CapId(67)), None);
        assert_eq!(t.remove(CapId(67)), Some(reply(2)));
        assert_eq!(children_of(&t, ANCHOR), BTreeSet::from([65]));
        assert_eq!(t.live(), 1);
    }

    #[test]
    fn a_cspace_may_use_the_chunks_it_was_given() {
        let mut t = CapTable::new().unwrap();
        let at = |slot| CapId::in_cspace(3, slot);
        assert!(!t.is_free(at(70)) && !t.insert_root(at(70), cap(1)) && t.first_chunk(3).is_none());
        t.set_usable(at(70), true);
        assert!(t.is_free(at(64)) && t.is_free(at(127)) && !t.is_free(at(63)) && !t.is_free(at(128)));
        assert!(!t.is_free(CapId::in_cspace(4, 70)));
        assert_eq!((at(70).process(), at(70).slot(), t.first_chunk(3)), (3, 70, Some(at(64))));
        assert_eq!(
            CapTable::chunk_of(at(70)).map(|c| c.slot()).collect::<Vec<_>>(),
            (64..128).collect::<Vec<_>>()
        );
        t.set_usable(at(64), false);
        assert!(t.first_chunk(3).is_none());
    }

    #[test]
    fn nowhere_is_never_free() {
        let mut t = CapTable::new().unwrap();
        assert!(!t.is_free(CapId::NOWHERE) && !t.is_empty(CapId::NOWHERE));
        assert!(!t.insert_reply(CapId::NOWHERE, cap(1)));
    }
}
