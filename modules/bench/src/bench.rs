//! The client: calibrates, measures what the plan names, reports.

use crate::{latency, making, rows, trust};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use bench::{
    CASES, IMAGE, LARGE, LARGE_BYTES, MARK_BEGIN, MARK_END, MARK_NEXT, NAMES, PLAN, PROOFS, Plan, SMALL,
    STACK, Summary, Unit,
};
use core::hint::black_box;
use sila_abi::boot::{Bundle, EntryKind};
use sila_abi::protocol::layout::OWN_POOL;
use sila_abi::record::Name;
use sila_abi::syscall::{Call, FOREVER, Outcome, Tag};
use sila_abi::{Error, Op, Rights, Slot};
use sila_rt::memory::{OwnRegion, SealedRegion};
use sila_rt::raw::{Registers, count_down, time_stamp};
use sila_rt::slots::{OwnedSlot, make};
use sila_rt::{CallError, clock, hostile, ipc, op, system};

/// SystemControl.
pub const SYSTEM: Slot = Slot(8);
/// TestControl.
pub const TEST: Slot = Slot(9);
/// Where processes are made.
pub const JOB: Slot = Slot(10);
/// Pays for them.
pub const POOL: Slot = Slot(11);
/// The boot bundle.
pub const BUNDLE: Slot = Slot(12);
/// The peer's endpoint.
pub const ECHO: Slot = Slot(13);
/// The Notification that the peer waits for.
pub const PING: Slot = Slot(14);
/// The Notification that the peer signals.
pub const PONG: Slot = Slot(15);
/// ModuleManager.
pub const MANAGER: Slot = Slot(16);
/// The kernel's module cache.
pub const CACHE: Slot = Slot(17);
/// Slots that no one else uses: for what is made and deleted again.
pub const SPARE: [Slot; 4] = [Slot(40), Slot(41), Slot(42), Slot(43)];
/// A Notification of this process.
pub const OWN: Slot = Slot(44);

/// The label that makes the peer play with notifications.
pub const LABEL_PLAY: u32 = 0x706c_6179;
/// The flag that is played with.
pub const FLAG_PLAY: u64 = 1;
/// The flag that ends the game.
pub const FLAG_STOP: u64 = 2;

/// Rounds before the measured ones.
const WARM: usize = 16;
/// Rows that are measured less often than this are traced once.
const RARE: usize = 100;
/// The client's priority.
pub const PRIORITY: u64 = 110;

/// Why a row has no result.
pub type Reason = CallError;

/// What is done, not measured, before (true) and after (false) a row.
pub type Around = fn(&Client, bool) -> Result<(), Reason>;

/// One row of the table.
pub struct Row {
    /// Its name.
    pub name: &'static str,
    /// How often it is measured.
    pub n: usize,
    /// Measures once: ticks of the time-stamp counter.
    pub once: fn(&Client) -> Result<u64, Reason>,
    /// What to do before the first and after the last time.
    pub around: Option<Around>,
}

/// What the rows use.
pub struct Client {
    /// The machine's unit.
    pub unit: Unit,
    /// The peer's sealed image.
    pub image: OwnedSlot,
    proofs: [OwnedSlot; 8],
    small: OwnedSlot,
    small_image: &'static [u8],
    /// Bytes of the small image.
    pub small_bytes: usize,
    cases: [(OwnedSlot, u64); 2],
    image_bytes: &'static [u8],
    large_page: &'static [u8],
    plan: &'static str,
}

/// The load proofs, in the order of [`PROOFS`].
#[derive(Clone, Copy, Debug)]
pub enum Proof {
    /// A process that serves, or only shows what making it costs.
    Peer,
    /// One that holds many capabilities.
    Holder,
    /// One that uses all it may.
    Full,
    /// The large image's.
    Large,
    /// The small image's, for a process that asks for nothing.
    Small,
    /// The same for a process that asks for a capability.
    Caps1,
    /// For eight of them.
    Caps8,
    /// For as many as a manifest may ask for.
    Caps32,
}

/// The registers of an invocation.
#[inline(always)]
pub fn invocation(slot: Slot, operation: Op, arguments: &[u64]) -> Registers {
    let mut words = [0; 6];
    for (word, argument) in words.iter_mut().zip(arguments) {
        *word = *argument;
    }
    let rax = Tag::new(Call::Invoke, arguments.len() as u8, 0, operation as u32).0;
    Registers { rax, rdi: slot.0.into(), words, r14: FOREVER, ..Registers::default() }
}

/// Makes the calls in one window. Every one must succeed.
#[inline(always)]
pub fn window<const N: usize>(mut calls: [Registers; N]) -> Result<u64, Reason> {
    let ticks = hostile::timed(&mut calls);
    for call in calls {
        Outcome(call.rax).status()?;
    }
    Ok(ticks)
}

/// Runs everything, and switches the machine off.
pub fn run() -> u64 {
    let failed = match Client::open() {
        Ok(client) => Box::leak(Box::new(client)).measure(),
        Err(error) => {
            report(&format!("bench fail setup {}", describe(&error)));
            true
        }
    };
    report("bench done");
    let _ = op::SystemPowerOff(SYSTEM, u64::from(failed));
    0
}

/// An error in words.
pub fn describe(error: &CallError) -> String {
    format!("{} {:?}", error.error.name(), error.words)
}

impl Client {
    fn open() -> Result<Self, Reason> {
        let copy = make(|dst| op::CapCopy(BUNDLE, dst, Rights::READ.bits().into()))?;
        let region: &'static SealedRegion = Box::leak(Box::new(SealedRegion::map(copy, 1 << 30)?));
        let bundle = Bundle::parse(region.bytes()).map_err(|_| Error::InvalidArgument)?;
        let plan = core::str::from_utf8(data(&bundle, PLAN)?).map_err(|_| Error::InvalidArgument)?;
        op::NotificationCreate(OWN_POOL, OWN)?;
        // The system's own modules come to rest first.
        pause(3 * clock::SECOND);
        let (image_bytes, large_page) = (data(&bundle, IMAGE)?, data(&bundle, LARGE)?);
        let [p0, p1, p2, p3, p4, p5, p6, p7] = PROOFS.map(|name| data(&bundle, name).and_then(sealed));
        let (image, proofs) = (sealed(image_bytes)?, [p0?, p1?, p2?, p3?, p4?, p5?, p6?, p7?]);
        let case = |name| -> Result<(OwnedSlot, u64), Reason> {
            let bytes = data(&bundle, name)?;
            Ok((sealed(bytes)?, bytes.len() as u64))
        };
        let [whole, short] = CASES;
        let cases = [case(whole)?, case(short)?];
        let small_image = data(&bundle, SMALL)?;
        let (small, small_bytes) = (sealed(small_image)?, small_image.len());
        let unit = calibrate();
        Ok(Self {
            unit,
            image,
            proofs,
            small,
            small_image,
            small_bytes,
            cases,
            image_bytes,
            large_page,
            plan,
        })
    }

    /// The slot of a proof.
    pub fn proof(&self, which: Proof) -> Slot {
        let [peer, holder, full, large, small, caps1, caps8, caps32] = &self.proofs;
        match which {
            Proof::Peer => peer,
            Proof::Holder => holder,
            Proof::Full => full,
            Proof::Large => large,
            Proof::Small => small,
            Proof::Caps1 => caps1,
            Proof::Caps8 => caps8,
            Proof::Caps32 => caps32,
        }
        .slot()
    }

    /// The sealed small image.
    pub fn small(&self) -> Slot {
        self.small.slot()
    }

    /// A sealed Region of its own with the small image.
    pub fn small_copy(&self) -> Result<OwnedSlot, Reason> {
        sealed(self.small_image)
    }

    /// A Region with a signature to be checked, or with one that is cut short, and how many bytes it has.
    pub fn case(&self, whole: bool) -> (Slot, u64) {
        let [good, short] = &self.cases;
        let (region, length) = if whole { good } else { short };
        (region.slot(), *length)
    }

    /// A sealed Region with the large image.
    pub fn large(&self) -> Result<OwnedSlot, Reason> {
        let mut region = OwnRegion::new(LARGE_BYTES)?;
        let rest = self.image_bytes.get(self.large_page.len()..).unwrap_or_default();
        for (to, from) in region.bytes_mut().iter_mut().zip(self.large_page.iter().chain(rest)) {
            *to = *from;
        }
        region.seal()
    }

    fn measure(&'static self) -> bool {
        report(&format!("bench unit {} {}", self.unit.per_thousand, self.unit.empty));
        let plan = Plan::parse(self.plan);
        let rows = || rows::ROWS.iter().chain(making::ROWS).chain(trust::ROWS);
        let mut failed = false;
        for row in rows().filter(|row| plan.wants(row.name)) {
            failed |= self.report(row.name, self.row(row));
        }
        if plan.wants(STACK) {
            failed |= self.report_stack();
        }
        failed |= latency::measure(self, |name| plan.wants(name));
        if let Some(rounds) = plan.trace {
            for row in rows().filter(|row| plan.wants(row.name)) {
                failed |= self.trace(row, if row.n < RARE { 1 } else { rounds });
            }
        }
        failed
    }

    /// Reports how much of the verification context's stack was used, in bytes; true if that failed.
    fn report_stack(&self) -> bool {
        match trust::stack_peak(self) {
            Ok(peak) => {
                report(&format!("bench row {STACK} {peak} {peak} {peak} {peak} 1"));
                false
            }
            Err(error) => {
                report(&format!("bench fail {STACK} {}", describe(&error)));
                true
            }
        }
    }

    /// Reports a row; true if it failed.
    pub fn report(&self, name: &str, ticks: Result<Vec<u64>, Reason>) -> bool {
        let summary = ticks.map(|mut values| {
            values.iter_mut().for_each(|ticks| *ticks = self.unit.instructions(*ticks));
            Summary::of(&mut values)
        });
        match summary {
            Ok(Some(Summary { min, median, p99, max, n })) => {
                report(&format!("bench row {name} {min} {median} {p99} {max} {n}"));
                false
            }
            Ok(None) => {
                report(&format!("bench fail {name} nothing was measured"));
                true
            }
            Err(error) => {
                report(&format!("bench fail {name} {}", describe(&error)));
                true
            }
        }
    }

    fn row(&self, row: &Row) -> Result<Vec<u64>, Reason> {
        if let Some(around) = row.around {
            around(self, true)?;
        }
        let mut values = Vec::with_capacity(row.n);
        let warm = WARM.min(row.n);
        for round in 0..row.n + warm {
            let ticks = (row.once)(self)?;
            if round >= warm {
                values.push(ticks);
            }
        }
        if let Some(around) = row.around {
            around(self, false)?;
        }
        Ok(values)
    }

    /// Repeats a row between marks, for the host; true if it failed.
    fn trace(&self, row: &Row, rounds: usize) -> bool {
        let repeat = || {
            if let Some(around) = row.around {
                around(self, true)?;
            }
            report(&format!("bench trace {} {rounds}", row.name));
            // What the report left over, or took on itself, of the kernel's work is gone by the time of the mark.
            for _ in 0..WARM.min(row.n) {
                (row.once)(self)?;
            }
            for round in 0..rounds {
                trace_mark(if round == 0 { MARK_BEGIN } else { MARK_NEXT });
                (row.once)(self)?;
            }
            trace_mark(MARK_END);
            row.around.map_or(Ok(()), |around| around(self, false))
        };
        match repeat() {
            Ok(()) => false,
            Err(error) => {
                report(&format!("bench fail {} traced: {}", row.name, describe(&error)));
                true
            }
        }
    }
}

/// The host stops the machine here and reads the mark from the first argument's register.
#[inline(never)]
extern "C" fn trace_mark(mark: u64) {
    black_box(mark);
}

const fn is_name(name: &str) -> bool {
    let mut at = 0;
    while at < NAMES.len() {
        let (a, b) = (NAMES[at].as_bytes(), name.as_bytes());
        let mut i = 0;
        while i < a.len() && i < b.len() && a[i] == b[i] {
            i += 1;
        }
        if i == a.len() && i == b.len() {
            return true;
        }
        at += 1;
    }
    false
}

/// The host knows every row.
const _: () = {
    let lists = [rows::ROWS, making::ROWS, trust::ROWS];
    let (mut list, mut count) = (0, 0);
    while list < lists.len() {
        let mut at = 0;
        while at < lists[list].len() {
            assert!(is_name(lists[list][at].name));
            at += 1;
        }
        count += at;
        list += 1;
    }
    // All latencies together, and the stack.
    assert!(NAMES.len() == count + crate::loads::LOADS.len() + 2);
};

fn calibrate() -> Unit {
    const ROUNDS: u64 = 100_000;
    let time = |rounds| {
        let start = time_stamp();
        count_down(rounds);
        time_stamp().wrapping_sub(start)
    };
    let least = |measure: &dyn Fn() -> u64| (0..8).map(|_| measure()).min().unwrap_or(0);
    let empty = least(&|| {
        let start = time_stamp();
        time_stamp().wrapping_sub(start)
    });
    let (first, second) = (least(&|| time(ROUNDS)), least(&|| time(2 * ROUNDS)));
    Unit::of_loops(first, second, 2 * ROUNDS, empty)
}

fn data(bundle: &Bundle<'static>, entry: &str) -> Result<&'static [u8], Reason> {
    let name = Name::new(entry).map_err(|_| Error::InvalidArgument)?;
    let found = bundle.find(EntryKind::TestData, &name).ok_or(Error::NoMoreEntries)?;
    Ok(found.data)
}

fn sealed(bytes: &[u8]) -> Result<OwnedSlot, Reason> {
    let mut region = OwnRegion::new(bytes.len())?;
    for (to, from) in region.bytes_mut().iter_mut().zip(bytes) {
        *to = *from;
    }
    region.seal()
}

/// Lets time pass, others run.
pub fn pause(nanoseconds: u64) {
    let _ = ipc::wait(OWN, clock::after(nanoseconds));
}

/// Sends a line to the results channel.
pub fn report(line: &str) {
    system::report(TEST, line);
}
