//! A helper: a process that holds what the client wants it to hold. It asks by a call, whose answer is the order.

use sila_abi::protocol::layout::{OWN_POOL, OWN_PROCESS, SLOTS_END};
use sila_abi::syscall::FOREVER;
use sila_abi::{Error, Op, Rights, Slot};
use sila_rt::hostile::invoke;
use sila_rt::ipc::{self, Message};
use sila_rt::{CallError, op, thread};

/// The endpoint that it asks.
pub const COMMAND: Slot = Slot(16);
/// The manifest's request for it.
pub const REQUEST_COMMAND: u16 = 3;
/// Label of its calls; word 0 counts what it made.
pub const ASK: u32 = 0x6173_6b21;
/// The order to copy the capability that comes along word 0 times.
pub const COPY: u32 = 1;
/// The order to use up all that it has.
pub const FILL: u32 = 2;
/// The first slot for what it makes; the runtime's own are below.
const FIRST: u16 = 192;
/// A Notification that nobody signals, for the threads of a full process.
const SILENT: Slot = Slot(40);
/// How many copies fit.
pub const ROOM: u64 = (SLOTS_END - FIRST) as u64;
/// Where a full process maps its pages, each 4 KiB on its own.
const PLACE: u64 = 0x0000_7000_0000_0000;
/// What a full process may have left of its frames.
const SPARE_FRAMES: u64 = 16;
/// Slots that a full process has left when it begins to make Regions of all its frames.
const RESERVED: u16 = 64;

/// Serves until there is no one to ask.
pub fn serve() -> u64 {
    let mut made = 0;
    loop {
        let Ok(mut order) = ipc::call(COMMAND, &Message::with(ASK, &[made]), 1, FOREVER) else { return 0 };
        let done = match (order.message.label, order.caps.take(0)) {
            (COPY, Some(source)) => copy(source.leak(), order.message.word(0)),
            (FILL, _) => fill(),
            _ => return 1,
        };
        match done {
            Ok(count) => made = count,
            Err(error) => return error.error as u64,
        }
    }
}

fn copy(source: Slot, count: u64) -> Result<u64, CallError> {
    for at in 0..count.min(ROOM) {
        op::CapCopy(source, Slot(FIRST + at as u16), Rights::SEND.bits().into())?;
    }
    Ok(count.min(ROOM))
}

/// Threads, small Regions with a mapping each, endpoints and notifications; then Regions of all frames that are left,
/// mapped as long as there are page tables; then copies in every slot that is left.
fn fill() -> Result<u64, CallError> {
    op::NotificationCreate(OWN_POOL, SILENT)?;
    while thread::spawn(1, || {
        let _ = ipc::wait(SILENT, FOREVER);
    })
    .is_ok()
    {}
    let mut next = Fill { slot: FIRST, page: 0 };
    while next.slot < SLOTS_END - RESERVED && next.mapped(1) {
        if !(next.other(Op::NotificationCreate, &[]) && next.other(Op::EndpointCreate, &[0, 0])) {
            break;
        }
    }
    for pages in [2048, 1024, 512, 256, 128, 64, 32, 16, 8, 4, 2, 1] {
        next.mapped(pages);
    }
    while next.slot < SLOTS_END && next.copy() {}
    let [limit, used, ..] = op::PoolStatus(OWN_POOL)?.words;
    // A few frames may be too few for anything.
    if next.slot < SLOTS_END || used + SPARE_FRAMES < limit {
        Err(Error::InvalidArgument.into())
    } else {
        Ok(used)
    }
}

/// How far a process is filled.
struct Fill {
    slot: u16,
    page: u64,
}

impl Fill {
    fn slots(&mut self, count: u16) -> Option<u16> {
        let first = self.slot;
        let next = first.checked_add(count).filter(|end| *end <= SLOTS_END)?;
        self.slot = next;
        Some(first)
    }

    /// A Region of this size and its mapping; true if both came to be.
    fn mapped(&mut self, pages: u64) -> bool {
        let Some(region) = self.slots(2) else { return false };
        if op::RegionCreate(OWN_POOL, pages, Slot(region)).is_err() {
            return false;
        }
        let words = [OWN_PROCESS.0.into(), PLACE + self.page * 4096, 0, pages, 1, u64::from(region) + 1];
        self.page += pages;
        invoke(Slot(region), Op::RegionMap, &words).is_ok()
    }

    /// Something that the Pool makes of these words and a slot.
    fn other(&mut self, operation: Op, words: &[u64]) -> bool {
        let Some(slot) = self.slots(1) else { return false };
        let mut all = [0; 6];
        let count = words.len().min(5);
        all.iter_mut().zip(words).for_each(|(to, from)| *to = *from);
        if let Some(place) = all.get_mut(count) {
            *place = slot.into();
        }
        invoke(OWN_POOL, operation, all.get(..=count).unwrap_or_default()).is_ok()
    }

    fn copy(&mut self) -> bool {
        let Some(slot) = self.slots(1) else { return false };
        op::CapCopy(COMMAND, Slot(slot), Rights::SEND.bits().into()).is_ok()
    }
}
