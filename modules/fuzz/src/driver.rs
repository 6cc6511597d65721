//! The driver: makes orders up, hands them out, and holds the kernel against its rules.

use alloc::format;
use alloc::vec::{IntoIter, Vec};
use core::sync::atomic::{AtomicU64, Ordering};
use fuzz::generate::{self, SOON, STACK, View};
use fuzz::manage;
use fuzz::order::Order;
use fuzz::random::Random;
use fuzz::recipes::{Gift, Step, recipe};
use fuzz::tally::Tally;
use fuzz::{CHECK, EPOCH, GIVE, HUB, LANES, Plan, TAKE};
use sila_abi::protocol::layout::{OWN_POOL, OWN_THREAD};
use sila_abi::protocol::wire::digest_words;
use sila_abi::syscall::{FOREVER, NO_WAIT};
use sila_abi::{Op, Rights, Slot};
use sila_rt::slots::{OwnedSlot, make, reserve};
use sila_rt::{cache, clock, ipc, op, thread};

use crate::crew::{Kit, Worker};
use crate::hub::{Hub, Mail};
use crate::judge::Judge;
use crate::kernel::{CACHE, IRQ, JOB, POOL, Reason, SYSTEM, TEST, accounts, check, nap, report, works};
use crate::store::Store;

/// Workers at a time.
const WORKERS: usize = 4;
/// Capabilities that the driver keeps for others.
const STASH: usize = 16;
/// Calls that a lane may wait for something before it is got going.
const PATIENCE: u64 = 120;
/// Frames and object bytes for all that workers make.
const SANDBOX: (u64, u64) = (8000, 900_000);
/// How long nothing may happen.
const LIMIT: u64 = 30 * clock::SECOND;
/// Calls before the accounts are first taken: the driver's own heap and slots grow then.
const WARM_UP: u64 = 400;

/// The calls so far.
static CALLS: AtomicU64 = AtomicU64::new(0);

/// Runs the plan and switches the machine off.
pub fn run() -> u64 {
    let result = fuzz();
    if let Err(reason) = &result {
        report(&format!("fuzz FAIL {} {reason}", CALLS.load(Ordering::Relaxed)));
    }
    let _ = op::SystemPowerOff(SYSTEM, result.is_err().into());
    0
}

fn fuzz() -> Result<(), Reason> {
    watch()?;
    let (kit, plan) = Kit::open()?;
    make_room()?;
    let mut driver = Driver::new(kit, plan)?;
    driver.epoch(u64::MAX, WARM_UP)?;
    driver.tally = Tally::default();
    let before = settled(None)?;
    if plan.skip >= EPOCH {
        driver.kit.use_up()?;
    }
    let calls = plan.calls;
    for epoch in plan.skip / EPOCH..calls.div_ceil(EPOCH) {
        CALLS.store(epoch * EPOCH, Ordering::Relaxed);
        driver.epoch(epoch, EPOCH.min(calls - epoch * EPOCH))?;
        settled(Some(before))?;
    }
    driver.tally.lines().iter().for_each(|line| report(&format!("fuzz {line}")));
    if let Some(judge) = &driver.judge {
        judge.tell();
    }
    report(&format!("fuzz done {calls} {:016x} {}", driver.tally.digest(), driver.made));
    Ok(())
}

/// A thread that ends the run when nothing happens any more.
fn watch() -> Result<(), Reason> {
    let watcher = thread::spawn(4, || {
        let Ok(nothing) = make(|dst| op::NotificationCreate(OWN_POOL, dst)) else { return };
        let mut last = 0;
        loop {
            let _ = ipc::wait(nothing.slot(), clock::after(LIMIT));
            let now = CALLS.load(Ordering::Relaxed);
            if now == last {
                report(&format!("fuzz FAIL {now} the driver does not go on"));
                let _ = op::SystemPowerOff(SYSTEM, 1);
            }
            last = now;
        }
    });
    let watcher = works("the watcher", watcher)?;
    works("the watcher's priority", op::ThreadSetPriority(watcher.slot(), 120))?;
    works("the driver's priority", op::ThreadSetPriority(OWN_THREAD, 100)).map(|_| ())
}

/// Lets heap and CSpace grow now, so that they do not later.
fn make_room() -> Result<(), Reason> {
    // The compiler must not see that nobody uses it.
    drop(core::hint::black_box(Vec::<u8>::with_capacity(1 << 20)));
    let slots: Vec<_> = (0..300).map_while(|_| reserve().ok()).collect();
    for slot in slots.iter().step_by(32) {
        works("room", op::CapCopy(TEST, slot.slot(), Rights::READ.bits().into()))?;
        works("room", op::CapDelete(slot.slot()))?;
    }
    Ok(())
}

/// The accounts once they stand still; they must be these, if any are given.
fn settled(want: Option<[u64; 5]>) -> Result<[u64; 5], Reason> {
    let mut last = accounts()?;
    for _ in 0..100 {
        nap(10 * clock::MILLISECOND);
        let now = accounts()?;
        if want.map_or(now == last, |want| now == want) {
            return Ok(now);
        }
        last = now;
    }
    Err(format!("frames, bytes, objects, capabilities, held are {last:?} instead of {want:?}"))
}

/// Takes out of the module cache what the workers put there.
fn empty_cache() -> Result<(), Reason> {
    for image in works("the module cache", cache::images(CACHE))? {
        let [a, b, c, d] = digest_words(&image.module_id);
        // One that a record of this epoch forbids has left the cache when it is looked for.
        if let Ok(image) = make(|dst| op::ModuleCacheFind(CACHE, a, b, c, d, dst)) {
            works("taking an image out", op::CachedImageEvict(image.slot()))?;
        }
    }
    Ok(())
}

struct Driver {
    kit: Kit,
    plan: Plan,
    hub: Hub,
    random: Random,
    tally: Tally,
    workers: Vec<Worker>,
    sandbox: Option<OwnedSlot>,
    stash: Vec<OwnedSlot>,
    given: Option<OwnedSlot>,
    hand: Vec<OwnedSlot>,
    script: IntoIter<Step>,
    made: u64,
    /// Of managers.
    judge: Option<Judge>,
    /// A process was made, and not looked at yet.
    made_one: bool,
}

impl Driver {
    fn new(kit: Kit, plan: Plan) -> Result<Self, Reason> {
        let judge = kit.store.as_ref().map(Store::judge).transpose()?;
        Ok(Driver {
            judge,
            made_one: false,
            kit,
            plan,
            hub: works("the hub", Hub::new())?,
            random: Random::new(0),
            tally: Tally::default(),
            workers: Vec::with_capacity(WORKERS),
            sandbox: None,
            stash: Vec::with_capacity(STASH + 4),
            given: None,
            hand: Vec::with_capacity(4),
            script: Vec::new().into_iter(),
            made: 0,
        })
    }

    /// So many calls in a world that is made for them and taken apart afterwards.
    fn epoch(&mut self, number: u64, calls: u64) -> Result<(), Reason> {
        self.random = Random::new(self.plan.seed_of(number));
        if let Some(store) = &mut self.kit.store {
            store.begin(number)?;
        }
        // Workers may have moved what it costs to a Pool of theirs.
        works("recharging the Job", op::ChargeTransfer(JOB, OWN_POOL))?;
        let pool = works("the sandbox", make(|dst| op::PoolCreate(POOL, SANDBOX.0, SANDBOX.1, dst)))?;
        self.sandbox = Some(pool);
        for _ in 0..WORKERS {
            let worker = self.recruit()?;
            self.workers.push(worker);
        }
        for _ in 0..calls {
            let call = CALLS.fetch_add(1, Ordering::Relaxed) + 1;
            self.step(call)?;
            if core::mem::take(&mut self.made_one) {
                self.judge.as_mut().map_or(Ok(()), Judge::processes)?;
            }
            if call.is_multiple_of(self.plan.check) {
                check()?;
                self.judge.as_mut().map_or(Ok(()), Judge::look)?;
            }
            if call.is_multiple_of(CHECK) {
                let now = clock::now().unwrap_or(0);
                report(&format!("fuzz at {call} {:016x} {now}", self.tally.digest()));
            }
        }
        self.take_apart()?;
        empty_cache()
    }

    fn recruit(&mut self) -> Result<Worker, Reason> {
        // A verification that is held would keep the new one's from its end.
        works("letting verifications go on", op::TestHoldVerification(TEST, 0))?;
        self.hear()?;
        self.made += 1;
        let pool = self.sandbox.as_ref().map_or(Slot::NONE, OwnedSlot::slot);
        Worker::new(&mut self.kit, &self.hub, pool)
    }

    fn replace(&mut self, at: usize) -> Result<(), Reason> {
        if let Some(worker) = self.workers.get(at) {
            let _ = op::ProcessTerminate(worker.process(), 0);
        }
        // What it called is answered by nobody.
        self.hear()?;
        let worker = self.recruit()?;
        if let Some(old) = self.workers.get_mut(at) {
            *old = worker;
        }
        Ok(())
    }

    fn step(&mut self, call: u64) -> Result<(), Reason> {
        let rarity = if self.kit.store.is_some() { 40 } else { 120 };
        if self.script.len() == 0 && self.random.once_in(rarity) {
            let managed = self.kit.store.as_ref().filter(|_| !self.random.clone().once_in(5));
            self.script = match managed {
                Some(store) => manage::recipe(&mut self.random, WORKERS, &store.stock()),
                None => recipe(&mut self.random, WORKERS),
            }
            .into_iter();
        }
        if self.script.len() > 0
            && self.random.once_in(2)
            && let Some(step) = self.script.next()
        {
            return self.follow(step, call);
        }
        let (worker, lane) = self.idle_lane()?;
        let order = self.make_up(worker);
        self.give_order(worker, lane, &order, call)
    }

    /// A step of a recipe, or what is done in its place.
    fn follow(&mut self, step: Step, call: u64) -> Result<(), Reason> {
        let at = step.worker;
        if step.end {
            self.replace(at)?;
        }
        if self.workers.get(at).is_some_and(|w| w.lanes[0].busy.is_some()) {
            self.rescue(at, 0)?;
        }
        let order = if self.random.once_in(25) { self.make_up(at) } else { step.order };
        self.hand.clear();
        for gift in &step.gifts {
            let source = match *gift {
                Gift::Made(made) => {
                    self.hand.extend(self.kit.store.as_ref().and_then(|store| store.make(&made)));
                    continue;
                }
                Gift::Given => self.given.as_ref().map(OwnedSlot::slot),
                Gift::ProcessOf(worker) => self.workers.get(worker).map(Worker::process),
            };
            let copy = source.and_then(|slot| {
                let rights = op::CapStatus(slot).ok()?.words[1];
                make(|dst| op::CapCopy(slot, dst, rights)).ok()
            });
            self.hand.extend(copy);
        }
        self.give_order(at, 0, &order, call)
    }

    fn make_up(&mut self, at: usize) -> Order {
        let processes: Vec<u64> = self.workers.iter().map(|w| w.id).collect();
        let Some(worker) = self.workers.get_mut(at) else { return Order::invoke(0, Op::CapStatus, [0; 6]) };
        worker.look();
        let (entry, stacks) = worker.places;
        let now = clock::now().unwrap_or(0);
        let view =
            View { caps: &worker.caps, now, entry, stacks, processes: &processes, record: worker.record };
        generate::order(&mut self.random, &view)
    }

    /// A lane that waits for an order: any, or the one that has waited longest for something else.
    fn idle_lane(&mut self) -> Result<(usize, usize), Reason> {
        loop {
            let all = || (0..WORKERS).flat_map(|w| (0..LANES).map(move |l| (w, l)));
            let busy = |(w, l): (usize, usize)| self.workers.get(w).and_then(|x| x.lanes[l].busy);
            let now = CALLS.load(Ordering::Relaxed);
            let late = all().find(|at| busy(*at).is_some_and(|(_, since)| now > since + PATIENCE));
            if let Some((worker, lane)) = late {
                self.rescue(worker, lane)?;
                continue;
            }
            let idle: Vec<_> = all().filter(|at| busy(*at).is_none()).collect();
            if let Some(at) = self.random.pick(&idle) {
                return Ok(*at);
            }
            let worker = self.random.below(WORKERS as u64) as usize;
            self.rescue(worker, self.random.clone().below(LANES as u64) as usize)?;
        }
    }

    fn rescue(&mut self, worker: usize, lane: usize) -> Result<(), Reason> {
        let helped = self.workers.get_mut(worker).is_some_and(|w| w.rescue(lane));
        // Those of low priority run, too.
        nap(SOON);
        self.hear()?;
        self.collect()?;
        let busy = self.workers.get(worker).is_some_and(|w| w.lanes[lane % LANES].busy.is_some());
        if !helped || (busy && self.random.once_in(4)) {
            self.replace(worker)?;
        }
        Ok(())
    }

    fn give_order(&mut self, worker: usize, lane: usize, order: &Order, call: u64) -> Result<(), Reason> {
        if call >= self.plan.show {
            let [tag, slot, words @ ..] = order.registers;
            let what = Op::from_number(order.tag().label()).map_or("-", |op| op.info().name);
            report(&format!("fuzz show {call}: {worker}.{lane} {what} {tag:x} {slot} {words:x?}"));
        }
        if let Some(w) = self.workers.get_mut(worker) {
            w.tell(lane, order, call)?;
        }
        let waits = self.workers.iter().any(|w| w.lanes.iter().any(|l| l.busy.is_some()));
        self.collect()?;
        if waits {
            self.hear()?;
            self.collect()?;
        }
        if timed(order) {
            // Whatever comes of its time comes before the next order.
            nap(2 * SOON);
            self.hear()?;
            self.collect()?;
        }
        let busy = self.workers.get(worker).is_some_and(|w| w.lanes[lane % LANES].busy.is_some());
        if busy {
            if self.random.once_in(8) {
                nap(SOON);
                self.collect()?;
            }
            self.bury()?;
        }
        Ok(())
    }

    /// Replaces workers that have ended.
    fn bury(&mut self) -> Result<(), Reason> {
        for at in 0..self.workers.len() {
            if self.workers.get(at).is_some_and(|w| !w.lives()) {
                self.tally.mix(at as u64);
                self.replace(at)?;
            }
        }
        Ok(())
    }

    /// Books every answer there is.
    fn collect(&mut self) -> Result<(), Reason> {
        for worker in &mut self.workers {
            for lane in 0..LANES {
                if let Some((order, outcome)) = worker.answer(lane) {
                    self.tally.book(&order, outcome);
                    self.made_one |= makes_process(&order) && outcome.status().is_ok();
                    if CALLS.load(Ordering::Relaxed) >= self.plan.show {
                        report(&format!(
                            "fuzz show   {}.{lane}: {:x} {:?}",
                            worker.id,
                            outcome.0,
                            outcome.status()
                        ));
                    }
                }
            }
        }
        Ok(())
    }

    /// Deals with all that came to the hub.
    fn hear(&mut self) -> Result<(), Reason> {
        while let Some(mail) = works("the hub", self.hub.receive(NO_WAIT))? {
            self.tally.mix(mail.label.into());
            self.deal_with(mail);
        }
        Ok(())
    }

    fn deal_with(&mut self, mut mail: Mail) {
        if mail.fault {
            let (entry, stacks) = self.workers.first().map_or((0, 0), |w| w.places);
            let edits = self.random.below(4);
            let words = [u64::from(!self.random.once_in(3)), edits, entry, stacks + STACK.0 - 8];
            if self.random.once_in(5) {
                self.hub.drop_reply();
            } else {
                self.hub.answer(&words, &[]);
            }
            return;
        }
        if let Some(judge) = &mut self.judge {
            mail.caps.iter().for_each(|cap| judge.witness(cap.slot()));
        }
        if mail.label == GIVE {
            self.given = mail.caps.pop().or(self.given.take());
        }
        self.stash.append(&mut mail.caps);
        while self.stash.len() > STASH {
            let at = self.random.below(self.stash.len() as u64) as usize;
            self.stash.swap_remove(at);
        }
        if !mail.call {
            return;
        }
        if mail.label == TAKE {
            let caps: Vec<Slot> = self.hand.iter().map(OwnedSlot::slot).collect();
            self.hub.answer(&[], &caps);
            self.hand.clear();
            return;
        }
        let count = self.random.below(4) as usize;
        let caps: Vec<Slot> =
            (0..count).filter_map(|_| self.random.pick(&self.stash)).map(OwnedSlot::slot).collect();
        self.hub.answer(&mail.words, &caps);
    }

    /// Ends everything that this epoch brought about.
    fn take_apart(&mut self) -> Result<(), Reason> {
        works("letting verifications go on", op::TestHoldVerification(TEST, 0))?;
        self.script = Vec::new().into_iter();
        self.workers.clear();
        self.hear()?;
        self.hand.clear();
        self.stash.clear();
        self.given = None;
        if let Some(judge) = &mut self.judge {
            judge.dismiss();
        }
        // What workers made goes on without them.
        let free = works("a slot", reserve())?;
        let mut cursor = 0;
        while let Ok(next) = op::JobNext(JOB, cursor) {
            cursor = next.words[0];
            if op::JobAdopt(JOB, cursor, free.slot()).is_ok() {
                let _ = op::ProcessTerminate(free.slot(), 0);
                works("deleting an adopted process", op::CapDelete(free.slot()))?;
            }
        }
        let mut cursor = 0;
        while let Ok(next) = op::JobHandover(JOB, cursor, free.slot()) {
            cursor = next.words[0];
            let _ = op::HandoverFinalise(free.slot());
            let _ = op::HandoverAbort(free.slot());
            works("deleting a Handover", op::CapDelete(free.slot()))?;
        }
        works("recharging the Job", op::ChargeTransfer(JOB, OWN_POOL))?;
        // Nothing is bound to it if nobody was told to.
        let _ = op::IrqUnbind(IRQ);
        if let Some(pool) = &self.sandbox {
            works("revoking the sandbox", op::CapRevoke(pool.slot()))?;
        }
        self.sandbox = None;
        check()
    }
}

/// True if this makes a process, if it succeeds.
fn makes_process(order: &Order) -> bool {
    let tag = order.tag();
    tag.call() == sila_abi::syscall::Call::Invoke as u8
        && [Op::ProcessCreate, Op::ProcessCreateCached].iter().any(|op| tag.label() == *op as u32)
}

/// True if something happens at a time that the order names.
fn timed(order: &Order) -> bool {
    let [_, slot, time, ..] = order.registers;
    let soon = |deadline: u64| deadline != NO_WAIT && deadline != FOREVER;
    let tag = order.tag();
    let invoke = tag.call() == sila_abi::syscall::Call::Invoke as u8;
    match Op::from_number(tag.label()).filter(|_| invoke) {
        Some(Op::NotificationAlarm) => time != u64::MAX,
        Some(Op::HandoverCreate) => order.registers.get(3).is_some_and(|deadline| *deadline != FOREVER),
        Some(_) => false,
        None => soon(order.registers.get(9).copied().unwrap_or(0)) || slot == u64::from(HUB.0),
    }
}
