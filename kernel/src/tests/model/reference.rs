//! The reference model: capabilities as sets. Each capability knows the set of its ancestors by name, and nothing
//! else links it; what descends from it is whatever has it among its ancestors. What a Pool uses is added up anew
//! from everything it pays for, each time it is asked. Names are numbers that are never used twice.

use std::collections::{BTreeMap, BTreeSet};
use std::vec::Vec;

use sila_abi::{Error, ObjectType, Rights};

/// Names a capability, an object or a call.
pub type Name = u64;

/// Slots of a CSpace.
const CSPACE: u64 = 1024;
/// Slots that a CSpace grows by.
const CHUNK: u16 = 64;

/// What things cost, in object bytes, and how many of each type fit.
#[derive(Clone, Debug)]
pub struct Prices {
    pub bytes: BTreeMap<ObjectType, u64>,
    pub room: BTreeMap<ObjectType, usize>,
    pub chunk: u64,
}

/// What a capability names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    Object(Name),
    /// The right to answer this call.
    Reply(Name),
}

/// A capability.
#[derive(Clone, Debug)]
pub struct Held {
    pub holder: Name,
    pub slot: u16,
    pub what: What,
    pub kind: ObjectType,
    pub rights: Rights,
    pub badge: u64,
    pub ancestors: BTreeSet<Name>,
}

/// What is particular to an object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Nature {
    Pool { parent: Option<Name>, frames: u64, bytes: u64, dying: bool },
    Region { pages: u64, sealed: bool },
    Mapping { region: Name, process: Name, first: u64, pages: u64, writable: bool },
    Endpoint { receiver: Option<Name>, durable: bool, senders: Vec<Name>, receivers: Vec<Name> },
    Notification,
    Process,
    Thread,
}

/// An object.
#[derive(Clone, Debug)]
pub struct Object {
    pub payer: Option<Name>,
    pub nature: Nature,
}

/// Where a message's Reply and capabilities are to go.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Wants {
    pub reply: u64,
    pub base: u16,
    pub count: usize,
}

/// What a process's thread waits for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Wait {
    Send { endpoint: Name, badge: u64, call: bool, caps: Vec<u64> },
    Receive { endpoint: Name },
    Answer { call: Name },
}

/// A process that has not ended.
#[derive(Clone, Debug)]
pub struct Person {
    pub pool: Name,
    pub thread: Name,
    pub chunks: BTreeSet<u16>,
    /// Page tables but the root: level, and the addresses it covers.
    pub tables: BTreeSet<(u32, u64)>,
    pub pages: BTreeSet<u64>,
    pub wait: Option<Wait>,
    pub wants: Wants,
    /// Its wait ends by itself.
    pub patience: bool,
}

/// A message as its receiver sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Received {
    /// The sender's badge; an answer has none.
    pub badge: Option<u64>,
    pub caps: usize,
    pub has_reply: bool,
}

/// How a wait ended, or a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ended {
    pub result: Result<(), Error>,
    /// What was received, if anything.
    pub message: Option<Received>,
}

impl Ended {
    pub const fn with(result: Result<(), Error>) -> Self {
        Ended { result, message: None }
    }
}

/// What a call came to: its end, or a wait.
pub type Course = Option<Ended>;

/// Everything.
#[derive(Clone, Debug)]
pub struct Model {
    pub prices: Prices,
    pub caps: BTreeMap<Name, Held>,
    pub objects: BTreeMap<Name, Object>,
    pub people: BTreeMap<Name, Person>,
    pub root: Name,
    /// Whose wait ended during this call, and how.
    pub woken: Vec<(Name, Ended)>,
    pub grown: BTreeSet<(Name, u16)>,
    last: Name,
}

impl Model {
    /// Nothing but the root Pool.
    pub fn new(prices: Prices, frames: u64, bytes: u64) -> Self {
        let nature = Nature::Pool { parent: None, frames, bytes, dying: false };
        let objects = BTreeMap::from([(1, Object { payer: None, nature })]);
        Model {
            prices,
            caps: BTreeMap::new(),
            objects,
            people: BTreeMap::new(),
            root: 1,
            woken: Vec::new(),
            grown: BTreeSet::new(),
            last: 1,
        }
    }

    pub fn fresh(&mut self) -> Name {
        self.last += 1;
        self.last
    }

    // ---- Pools --------------------------------------------------------------------------------------

    fn price(&self, kind: ObjectType) -> u64 {
        self.prices.bytes.get(&kind).copied().unwrap_or(0)
    }

    /// What a Pool uses: frames and object bytes.
    pub fn used(&self, pool: Name) -> (u64, u64) {
        let mut sum = (0, 0);
        for (name, object) in self.objects.iter().filter(|(_, o)| o.payer == Some(pool)) {
            sum.1 += self.price(object.nature.kind());
            let more = match &object.nature {
                Nature::Pool { .. } => self.limit(*name),
                Nature::Region { pages, .. } if *pages <= 8 => (*pages, 0),
                Nature::Region { pages, .. } => (pages + 1 + pages.div_ceil(512), 0),
                _ => (0, 0),
            };
            sum = (sum.0 + more.0, sum.1 + more.1);
        }
        for person in self.people.values().filter(|p| p.pool == pool) {
            // A root, an area for vector registers, a message page.
            sum.0 += 3 + person.tables.len() as u64;
            sum.1 += person.chunks.len() as u64 * self.prices.chunk;
        }
        if pool == self.root { (sum.0, sum.1 + self.price(ObjectType::Pool)) } else { sum }
    }

    /// What a Pool may use; a dying one no more than it does.
    pub fn limit(&self, pool: Name) -> (u64, u64) {
        match self.objects.get(&pool).map(|o| &o.nature) {
            Some(Nature::Pool { dying: true, .. }) => self.used(pool),
            Some(Nature::Pool { frames, bytes, .. }) => (*frames, *bytes),
            _ => (0, 0),
        }
    }

    pub fn afford(&self, pool: Name, frames: u64, bytes: u64) -> Result<(), Error> {
        match self.objects.get(&pool).map(|o| &o.nature) {
            Some(Nature::Pool { dying: false, .. }) => {}
            _ => return Err(Error::ObjectGone),
        }
        let (limit, used) = (self.limit(pool), self.used(pool));
        if used.0 + frames > limit.0 {
            return Err(Error::OutOfFrames);
        }
        if used.1 + bytes > limit.1 { Err(Error::OutOfObjectBytes) } else { Ok(()) }
    }

    pub fn live(&self, kind: ObjectType) -> usize {
        self.objects.values().filter(|o| o.nature.kind() == kind).count()
    }

    fn has_room(&self, kind: ObjectType) -> Result<(), Error> {
        let room = self.prices.room.get(&kind).copied().unwrap_or(0);
        if self.live(kind) < room { Ok(()) } else { Err(Error::ArenaFull) }
    }

    fn within(&self, pool: Name, of: Name) -> bool {
        let mut at = Some(pool);
        while let Some(name) = at {
            if name == of {
                return true;
            }
            at = match self.objects.get(&name).map(|o| &o.nature) {
                Some(Nature::Pool { parent, .. }) => *parent,
                _ => None,
            };
        }
        false
    }

    fn end_pool(&mut self, pool: Name) {
        if let Some(Object { nature: Nature::Pool { dying, .. }, .. }) = self.objects.get_mut(&pool) {
            *dying = true;
        }
        self.sweep();
    }

    /// Dying Pools that pay for nothing go.
    fn sweep(&mut self) {
        loop {
            let spent = self.objects.iter().find(|(name, o)| {
                matches!(o.nature, Nature::Pool { dying: true, .. }) && self.used(**name) == (0, 0)
            });
            let Some(name) = spent.map(|(name, _)| *name) else { return };
            self.objects.remove(&name);
        }
    }

    // ---- slots --------------------------------------------------------------------------------------

    pub fn at(&self, holder: Name, slot: u64) -> Option<(Name, &Held)> {
        let found = self.caps.iter().find(|(_, cap)| cap.holder == holder && u64::from(cap.slot) == slot);
        found.map(|(name, cap)| (*name, cap))
    }

    pub fn find(&self, holder: Name, slot: u64) -> Result<(Name, Held), Error> {
        if slot >= CSPACE {
            return Err(Error::SlotOutOfRange);
        }
        self.at(holder, slot).map(|(name, cap)| (name, cap.clone())).ok_or(Error::NoCapability)
    }

    /// A capability to use: of a type, with a right, to an object that lives.
    pub fn usable(
        &self,
        holder: Name,
        slot: u64,
        kind: ObjectType,
        right: Rights,
    ) -> Result<(Name, Held), Error> {
        let (name, cap) = self.find(holder, slot)?;
        if cap.kind != kind {
            return Err(Error::WrongType);
        }
        self.allows(&cap, right)?;
        Ok((name, cap))
    }

    /// What the table demands of a capability that is invoked.
    pub fn allows(&self, cap: &Held, right: Rights) -> Result<(), Error> {
        if cap.rights.contains(Rights::ENDOW) {
            return Err(Error::EndowOnly);
        }
        if !cap.rights.contains(right) {
            return Err(if right == Rights::COPY { Error::NotCopyable } else { Error::MissingRight });
        }
        if self.is_alive(cap) { Ok(()) } else { Err(Error::ObjectGone) }
    }

    pub fn is_alive(&self, cap: &Held) -> bool {
        match cap.what {
            What::Object(name) => {
                self.objects.get(&name).is_some_and(|o| !matches!(o.nature, Nature::Pool { dying: true, .. }))
            }
            What::Reply(_) => true,
        }
    }

    /// Makes sure that a slot can be filled; the CSpace grows to it.
    pub fn free(&mut self, holder: Name, slot: u64) -> Result<u16, Error> {
        if slot == 0 || slot >= CSPACE {
            return Err(Error::SlotOutOfRange);
        }
        let slot = slot as u16;
        let person = self.people.get(&holder).ok_or(Error::ObjectGone)?;
        if !person.chunks.contains(&(slot / CHUNK)) {
            self.afford(person.pool, 0, self.prices.chunk)?;
            self.grown.insert((holder, slot / CHUNK));
            if let Some(person) = self.people.get_mut(&holder) {
                person.chunks.insert(slot / CHUNK);
            }
        }
        if self.at(holder, slot.into()).is_some() { Err(Error::SlotOccupied) } else { Ok(slot) }
    }

    /// What a failed call made CSpaces grow by goes back, unless something lies in it.
    pub fn close(&mut self, failed: bool) {
        if failed { self.close_but(BTreeSet::new()) } else { self.grown.clear() }
    }

    /// The same for a part of a call, but for what CSpaces grew by before it.
    pub fn close_but(&mut self, kept: BTreeSet<(Name, u16)>) {
        for (holder, chunk) in core::mem::replace(&mut self.grown, kept.clone()) {
            let used = self.caps.values().any(|c| c.holder == holder && c.slot / CHUNK == chunk);
            if !used
                && !kept.contains(&(holder, chunk))
                && let Some(person) = self.people.get_mut(&holder)
            {
                person.chunks.remove(&chunk);
            }
        }
    }

    // ---- capabilities ---------------------------------------------------------------------------------

    /// A capability without ancestors.
    pub fn install(&mut self, holder: Name, slot: u16, what: What, kind: ObjectType, rights: Rights) -> Name {
        let held = Held { holder, slot, what, kind, rights, badge: 0, ancestors: BTreeSet::new() };
        let name = self.fresh();
        self.caps.insert(name, held);
        name
    }

    /// A child of another capability.
    pub fn derive(&mut self, parent: Name, holder: Name, slot: u16, rights: Rights, badge: u64) -> Name {
        let name = self.fresh();
        let source = self.caps[&parent].clone();
        let mut ancestors = source.ancestors.clone();
        ancestors.insert(parent);
        self.caps.insert(name, Held { holder, slot, rights, badge, ancestors, ..source });
        name
    }

    /// Removes a capability; what descended from it descends from its ancestors only.
    pub fn delete(&mut self, name: Name) {
        let Some(cap) = self.caps.remove(&name) else { return };
        for other in self.caps.values_mut() {
            other.ancestors.remove(&name);
        }
        match cap.what {
            What::Reply(call) => self.answer_lost(call),
            What::Object(object) => self.lost(object),
        }
    }

    pub fn names_left(&self, object: Name) -> usize {
        self.caps.values().filter(|cap| cap.what == What::Object(object)).count()
    }

    /// One capability to an object less.
    fn lost(&mut self, object: Name) {
        if self.names_left(object) > 0 {
            return;
        }
        match self.objects.get(&object).map(|o| o.nature.kind()) {
            Some(ObjectType::Pool) => self.end_pool(object),
            Some(ObjectType::Region) => self.end_region_if_unused(object),
            Some(ObjectType::Endpoint) => self.end_endpoint(object),
            Some(ObjectType::Notification) => self.end_object(object),
            Some(ObjectType::Process) if !self.people.contains_key(&object) => self.end_object(object),
            _ => {}
        }
    }

    pub fn end_object(&mut self, object: Name) {
        self.objects.remove(&object);
        self.sweep();
    }

    fn end_region_if_unused(&mut self, region: Name) {
        let mapped = self
            .objects
            .values()
            .any(|o| matches!(o.nature, Nature::Mapping { region: r, .. } if r == region));
        if !mapped && self.names_left(region) == 0 {
            self.end_object(region);
        }
    }

    // ---- memory ---------------------------------------------------------------------------------------

    /// Mappings of a Region, and how many of them are writable.
    pub fn mappings(&self, region: Name) -> (u64, u64) {
        let mut count = (0, 0);
        for o in self.objects.values() {
            if let Nature::Mapping { region: r, writable, .. } = o.nature
                && r == region
            {
                count = (count.0 + 1, count.1 + u64::from(writable));
            }
        }
        count
    }

    /// Page tables that addresses need and that are not there.
    pub fn tables_missing(&self, process: Name, first: u64, pages: u64) -> BTreeSet<(u32, u64)> {
        let here = self.people.get(&process).map(|p| p.tables.clone()).unwrap_or_default();
        tables(first, pages).difference(&here).copied().collect()
    }

    pub fn unmap(&mut self, mapping: Name) {
        let Some(Object { nature: Nature::Mapping { region, process, first, pages, .. }, .. }) =
            self.objects.remove(&mapping)
        else {
            return;
        };
        if let Some(person) = self.people.get_mut(&process) {
            person.pages.retain(|page| *page < first || *page >= first + pages);
        }
        self.end_region_if_unused(region);
        self.sweep();
    }

    // ---- processes ------------------------------------------------------------------------------------

    /// A running process: its name. Slots 1, 2 and 3 hold itself, its thread and its Pool.
    pub fn spawn(&mut self, quota: (u64, u64), message_page: u64) -> Name {
        let [process, pool, thread] = [(); 3].map(|()| self.fresh());
        let (frames, bytes) = quota;
        let root = Some(self.root);
        let nature = Nature::Pool { parent: root, frames, bytes, dying: false };
        self.objects.insert(pool, Object { payer: root, nature });
        self.objects.insert(process, Object { payer: root, nature: Nature::Process });
        self.objects.insert(thread, Object { payer: Some(pool), nature: Nature::Thread });
        let person = Person {
            pool,
            thread,
            chunks: BTreeSet::from([0]),
            tables: tables(message_page >> 12, 1),
            pages: BTreeSet::from([message_page >> 12]),
            wait: None,
            wants: Wants::default(),
            patience: false,
        };
        self.people.insert(process, person);
        process
    }

    /// The end of a process, whoever asked for it.
    pub fn end_process(&mut self, process: Name) {
        let Some(person) = self.people.get(&process).cloned() else { return };
        self.stop_waiting(process);
        self.objects.remove(&person.thread);
        for endpoint in self.named(ObjectType::Endpoint) {
            self.receiver_ended(endpoint, process);
            if self.paid_within(endpoint, person.pool) {
                self.end_endpoint(endpoint);
            }
        }
        for notification in self.named(ObjectType::Notification) {
            if self.paid_within(notification, person.pool) {
                self.end_object(notification);
            }
        }
        let own: Vec<Name> =
            self.caps.iter().filter(|(_, cap)| cap.holder == process).map(|(name, _)| *name).collect();
        own.into_iter().for_each(|name| self.delete(name));
        for mapping in self.named(ObjectType::Mapping) {
            if matches!(self.objects[&mapping].nature, Nature::Mapping { process: p, .. } if p == process) {
                self.unmap(mapping);
            }
        }
        self.people.remove(&process);
        for pool in self.named(ObjectType::Pool) {
            if self.within(pool, person.pool) {
                self.end_pool(pool);
            }
        }
        self.sweep();
        self.lost(process);
    }

    fn paid_within(&self, object: Name, pool: Name) -> bool {
        self.objects.get(&object).and_then(|o| o.payer).is_some_and(|payer| self.within(payer, pool))
    }

    /// Every object of a type.
    pub fn named(&self, kind: ObjectType) -> Vec<Name> {
        self.objects.iter().filter(|(_, o)| o.nature.kind() == kind).map(|(name, _)| *name).collect()
    }

    /// Makes an object that a Pool pays for.
    pub fn make(&mut self, pool: Name, nature: Nature) -> Result<Name, Error> {
        let kind = nature.kind();
        self.has_room(kind)?;
        let frames = match &nature {
            Nature::Pool { frames, .. } => *frames,
            Nature::Region { pages, .. } if *pages <= 8 => *pages,
            Nature::Region { pages, .. } => pages + 1 + pages.div_ceil(512),
            _ => 0,
        };
        let quota = if let Nature::Pool { bytes, .. } = &nature { *bytes } else { 0 };
        self.afford(pool, frames, quota.checked_add(self.price(kind)).ok_or(Error::OutOfObjectBytes)?)?;
        let name = self.fresh();
        self.objects.insert(name, Object { payer: Some(pool), nature });
        Ok(name)
    }
}

impl Nature {
    pub const fn kind(&self) -> ObjectType {
        match self {
            Nature::Pool { .. } => ObjectType::Pool,
            Nature::Region { .. } => ObjectType::Region,
            Nature::Mapping { .. } => ObjectType::Mapping,
            Nature::Endpoint { .. } => ObjectType::Endpoint,
            Nature::Notification => ObjectType::Notification,
            Nature::Process => ObjectType::Process,
            Nature::Thread => ObjectType::Thread,
        }
    }
}

/// The tables below the root that cover these pages.
fn tables(first: u64, pages: u64) -> BTreeSet<(u32, u64)> {
    let covers = |page: u64| [1, 2, 3].map(|level| (level, page >> (9 * level)));
    (first..first + pages).flat_map(covers).collect()
}
