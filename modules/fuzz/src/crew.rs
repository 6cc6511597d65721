//! Workers: how they are made, told what to do, and got going again.

use alloc::format;
use alloc::vec::Vec;
use fuzz::generate::Held;
use fuzz::order::{ANSWER_AT, ANSWER_WORDS, LANE_BYTES, ORDER_WORDS, Order, from_bytes, to_bytes};
use fuzz::{DAMAGED_PROOF, HELLO, IMAGE, LANES, MANAGER_PROOF, PROOF, Plan, RECORDS};
use sila_abi::boot::{Bundle, EntryKind};
use sila_abi::protocol::layout::{CLOCK, OWN_POOL};
use sila_abi::record::Name;
use sila_abi::syscall::Outcome;
use sila_abi::{Error, ObjectType, Rights, Slot};
use sila_rt::memory::{OwnRegion, SealedRegion, SharedRegion};
use sila_rt::slots::{OwnedSlot, make};
use sila_rt::system::{capabilities, process_create};
use sila_rt::{clock, op};

use crate::hub::Hub;
use crate::kernel::{BUNDLE, CACHE, IRQ, JOB, KEYS, POLICY, POOL, PORTS, Reason, SYSTEM, TEST, works};
use crate::store::Store;

/// Priority of workers, above the driver's.
const PRIORITY: u64 = 112;

/// What workers are made from.
pub struct Kit {
    image: OwnedSlot,
    proof: OwnedSlot,
    damaged: Vec<OwnedSlot>,
    records: Vec<(OwnedSlot, u64)>,
    made: usize,
    newest: u64,
    /// For workers that are managers: what they load, and what else they hold.
    pub store: Option<Store>,
}

fn data(bundle: &Bundle<'_>, entry: &str) -> Option<Result<(OwnedSlot, u64), Reason>> {
    let name = Name::new(entry).ok()?;
    let bytes = bundle.find(EntryKind::TestData, &name)?.data;
    Some(sealed(bytes).map(|slot| (slot, bytes.len() as u64)))
}

fn sealed(bytes: &[u8]) -> Result<OwnedSlot, Reason> {
    let mut region = works("a Region", OwnRegion::new(bytes.len()))?;
    region.bytes_mut().iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    works("sealing it", region.seal())
}

impl Kit {
    /// Takes it from the bundle, with the plan.
    pub fn open() -> Result<(Self, Plan), Reason> {
        let copy = make(|dst| op::CapCopy(BUNDLE, dst, Rights::READ.bits().into()));
        let region = works("the bundle", SealedRegion::map(works("the bundle", copy)?, 1 << 30))?;
        let bundle = Bundle::parse(region.bytes()).map_err(|e| format!("the bundle: {e}"))?;
        let must =
            |entry: &str| data(&bundle, entry).unwrap_or_else(|| Err(format!("no {entry} in the bundle")));
        let several =
            |of: &str| (0..).map_while(|i| data(&bundle, &format!("{of}.{i}"))).collect::<Result<_, _>>();
        let damaged: Vec<(OwnedSlot, u64)> = several(DAMAGED_PROOF)?;
        let mut kit = Kit {
            image: must(IMAGE)?.0,
            proof: must(PROOF)?.0,
            damaged: damaged.into_iter().map(|(slot, _)| slot).collect(),
            records: several(RECORDS)?,
            made: 0,
            newest: 0,
            store: None,
        };
        let name = Name::new(fuzz::PLAN).map_err(|_| format!("no {}", fuzz::PLAN))?;
        let plan = bundle.find(EntryKind::TestData, &name).map(|e| core::str::from_utf8(e.data));
        let plan = plan.and_then(Result::ok).and_then(Plan::parse);
        let plan = plan.ok_or("the bundle has no plan")?;
        if plan.manager {
            kit.proof = must(MANAGER_PROOF)?.0;
            kit.store = Some(Store::open(&bundle)?);
        }
        Ok((kit, plan))
    }
}

impl Kit {
    /// Installs the newest record, as the first workers have done when later ones come.
    pub fn use_up(&mut self) -> Result<(), Reason> {
        if self.store.is_some() {
            return Ok(());
        }
        self.made = self.records.len();
        let Some((record, length)) = self.records.last() else { return Ok(()) };
        match op::KeyRingInstall(KEYS, record.slot(), *length) {
            Err(error) if error.error == Error::RecordStale => Ok(()),
            installed => works("the newest record", installed).map(|_| ()),
        }
    }
}

/// A thread of a worker.
#[derive(Default)]
pub struct Lane {
    number: u64,
    /// What it was told and has not answered, and at which call that was.
    pub busy: Option<(Order, u64)>,
    /// How often it was got going since.
    pub rescues: u32,
}

/// A worker.
pub struct Worker {
    process: OwnedSlot,
    /// Its process's number.
    pub id: u64,
    block: SharedRegion,
    bells: Vec<OwnedSlot>,
    threads: Vec<OwnedSlot>,
    /// Its threads.
    pub lanes: [Lane; LANES],
    /// Where threads may start, and memory for their stacks.
    pub places: (u64, u64),
    /// Bytes of its record.
    pub record: u64,
    /// What it held when that was last looked at.
    pub caps: Vec<Held>,
    /// Slots of what it can't work without.
    vital: Vec<u16>,
    age: u32,
}

/// Looks at a worker's capabilities of which one shows what it can't work without, too.
const RECKLESS: u32 = 16;

impl Worker {
    /// Makes and starts a worker that can use this Pool, and does not depend on what others leave of it.
    pub fn new(kit: &mut Kit, hub: &Hub, sandbox: Slot) -> Result<Self, Reason> {
        let region = works("a block", make(|dst| op::RegionCreate(OWN_POOL, 1, dst)))?;
        let block = region.slot();
        let bell = || works("a bell", make(|dst| op::NotificationCreate(OWN_POOL, dst)));
        let bells: Vec<OwnedSlot> = (0..LANES).map(|_| bell()).collect::<Result<_, _>>()?;
        let nth = kit.made;
        kit.made += 1;
        let (damaged, record) = (kit.damaged.get(nth % kit.damaged.len().max(1)), kit.records.get(nth));
        let record = record.or(kit.records.last());
        // Requests of worker.toml that others than itself fulfil, in its order.
        let bell = |at: usize| bells.get(at).map_or(Slot::NONE, OwnedSlot::slot);
        let grants = [
            Some(CLOCK),
            Some(block),
            Some(bell(0)),
            Some(bell(1)),
            Some(sandbox),
            Some(JOB),
            Some(hub.slot()),
            Some(KEYS),
            Some(SYSTEM),
            Some(TEST),
            Some(PORTS),
            Some(IRQ),
            Some(kit.image.slot()),
            Some(kit.proof.slot()),
            damaged.map(OwnedSlot::slot),
            record.map(|(slot, _)| slot.slot()),
            Some(POLICY),
            Some(CACHE),
        ];
        let managed = [
            Some(CLOCK),
            Some(block),
            Some(bell(0)),
            Some(bell(1)),
            Some(sandbox),
            Some(JOB),
            Some(hub.slot()),
            Some(KEYS),
            Some(kit.image.slot()),
            Some(kit.proof.slot()),
            Some(POLICY),
            // The other agents, and what is only to be passed on: all of them are the driver.
            Some(hub.slot()),
            Some(hub.slot()),
            Some(hub.slot()),
            Some(hub.slot()),
            Some(hub.slot()),
            Some(hub.slot()),
            Some(BUNDLE),
            Some(CACHE),
        ];
        let grants = if kit.store.is_some() { &managed[..] } else { &grants[..] };
        let grants: Vec<(u16, Slot)> =
            (3..).zip(grants).filter_map(|(i, slot)| Some((i, (*slot)?))).collect();
        let make_it = |dst| {
            process_create(JOB, kit.image.slot(), kit.proof.slot(), POOL, PRIORITY, &grants, dst)
                .map(|()| op::Words::default())
        };
        let process = works("a worker", make(make_it))?;
        while let Ok(next) = op::JobNext(JOB, kit.newest) {
            kit.newest = next.words[0];
        }
        works("starting a worker", op::ProcessStart(process.slot()))?;
        let hello = loop {
            let mail = works("a worker's first call", hub.receive(clock::after(clock::SECOND)))?;
            let mail = mail.ok_or("a new worker says nothing")?;
            if mail.label == HELLO && !mail.fault && mail.caps.len() == LANES {
                break mail;
            }
            // Another one's, whose turn came while this one was made.
            hub.drop_reply();
        };
        hub.answer(&[], &[]);
        let [entry, stacks, ..] = hello.words;
        let record = record.map_or(0, |(_, length)| *length);
        let mut worker = Worker {
            process,
            id: kit.newest,
            block: works("mapping a block", SharedRegion::map(region, true, LANES * LANE_BYTES))?,
            bells,
            threads: hello.caps,
            lanes: Default::default(),
            places: (entry, stacks),
            record,
            caps: Vec::new(),
            vital: Vec::new(),
            age: 0,
        };
        worker.look();
        let vital = [ObjectType::Mapping as u8, ObjectType::Notification as u8];
        let born_with = worker.caps.iter().filter(|held| vital.contains(&held.kind));
        worker.vital = born_with.map(|held| held.slot).collect();
        let vital = &worker.vital;
        worker.caps.retain(|held| !vital.contains(&held.slot));
        Ok(worker)
    }

    /// Its process.
    pub fn process(&self) -> Slot {
        self.process.slot()
    }

    /// True if it can still do anything.
    pub fn lives(&self) -> bool {
        op::ProcessStatus(self.process.slot()).is_ok_and(|status| status.words[0] == 2)
    }

    /// Looks at what it holds, now and then.
    pub fn look(&mut self) {
        self.age += 1;
        if self.age % 6 == 1 {
            let list = capabilities(SYSTEM, self.id).unwrap_or_default();
            let all = list.iter().map(|cap| Held {
                slot: cap.slot as u16,
                kind: cap.object_type as u8,
                rights: Rights::from_bits_truncate(cap.rights as u16),
            });
            let reckless = self.age % (6 * RECKLESS) == 1;
            self.caps.clear();
            self.caps.extend(all.filter(|held| reckless || !self.vital.contains(&held.slot)));
        }
    }

    /// Tells a lane what to do; it does it before this returns, unless it has to wait.
    pub fn tell(&mut self, lane: usize, order: &Order, call: u64) -> Result<(), Reason> {
        let Some(l) = self.lanes.get_mut(lane) else { return Ok(()) };
        l.number += 1;
        (l.busy, l.rescues) = (Some((*order, call)), 0);
        let bytes: [u8; ORDER_WORDS * 8] = to_bytes(&order.encode(l.number));
        if !self.block.write(lane * LANE_BYTES, &bytes) {
            return Err("the driver's own block is gone".into());
        }
        let bell = self.bells.get(lane).map_or(Slot::NONE, OwnedSlot::slot);
        works("ringing", op::Signal(bell, 1)).map(|_| ())
    }

    /// What a lane has answered, if it has.
    pub fn answer(&mut self, lane: usize) -> Option<(Order, Outcome)> {
        let l = self.lanes.get_mut(lane)?;
        let (order, _) = l.busy?;
        let mut bytes = [0; ANSWER_WORDS * 8];
        if !self.block.read(lane * LANE_BYTES + ANSWER_AT, &mut bytes) {
            return None;
        }
        let [number, outcome, ..]: [u64; ANSWER_WORDS] = from_bytes(&bytes);
        if number != l.number {
            return None;
        }
        l.busy = None;
        Some((order, Outcome(outcome)))
    }

    /// Ends the wait of a lane; false if that does not help any more.
    pub fn rescue(&mut self, lane: usize) -> bool {
        let thread = self.threads.get(lane).map_or(Slot::NONE, OwnedSlot::slot);
        let Some(l) = self.lanes.get_mut(lane) else { return false };
        l.rescues += 1;
        op::ThreadSuspend(thread).is_ok() && op::ThreadResume(thread).is_ok() && l.rescues < 4
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended already: as wanted.
        let _ = op::ProcessTerminate(self.process.slot(), 0);
    }
}
