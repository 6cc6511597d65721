//! Messages, notifications, capabilities, faults.

use crate::bench::{
    Client, ECHO, FLAG_PLAY, FLAG_STOP, LABEL_PLAY, OWN, PING, PONG, Reason, Row, SPARE, invocation, window,
};
use sila_abi::protocol::layout::{CLOCK, OWN_POOL, OWN_THREAD};
use sila_abi::syscall::{Call, FOREVER, Outcome, Receive, Tag, pack_caps};
use sila_abi::{Error, Op, Rights, Slot};
use sila_rt::ipc::{self, Message};
use sila_rt::raw::{Registers, yield_now};
use sila_rt::{hostile, op};

const N: usize = 1000;
/// A time that does not come.
const FAR: u64 = u64::MAX / 2;
/// The first of the slots that a revoke empties.
const CROWD: u16 = 124;
/// How many it empties.
const CROWD_LEN: u16 = 900;

const fn row(name: &'static str, once: fn(&Client) -> Result<u64, Reason>) -> Row {
    Row { name, n: N, once, around: None }
}

/// The rows.
pub const ROWS: &[Row] = &[
    row("ipc_call_reply_0w", |_| round_trip(0)),
    row("ipc_call_reply_4w", |_| round_trip(4)),
    row("ipc_call_reply_10w", |_| round_trip(10)),
    row("ipc_call_reply_64w", |_| round_trip(64)),
    row("ipc_call_reply_120w", |_| round_trip(120)),
    row("ipc_cap_transfer", transfer),
    Row { name: "ipc_send", n: N, once: send, around: None },
    row("null_invocation", |_| window([invocation(OWN, Op::CapStatus, &[])])),
    row("clock_now", |_| window([invocation(CLOCK, Op::ClockNow, &[])])),
    row("pool_status", |_| window([invocation(OWN_POOL, Op::PoolStatus, &[])])),
    row("yield", |_| window([plain(Call::Yield, Slot::NONE)])),
    row("signal_no_waiter", |_| window([invocation(OWN, Op::Signal, &[FLAG_PLAY])])),
    Row { name: "notify_ping_pong", n: N, once: ping_pong, around: Some(game) },
    row("alarm_set", |_| {
        let ticks = window([invocation(OWN, Op::NotificationAlarm, &[FAR, FLAG_PLAY])])?;
        op::NotificationAlarm(OWN, u64::MAX, 0)?;
        Ok(ticks)
    }),
    row("cap_copy", |_| made([invocation(OWN, Op::CapCopy, &[SPARE[0].0.into(), rights()])])),
    row("cap_mint", |_| made([invocation(OWN, Op::CapMint, &[SPARE[0].0.into(), rights(), 5])])),
    row("cap_move", |_| {
        op::CapCopy(OWN, SPARE[1], rights())?;
        made([invocation(SPARE[1], Op::CapMove, &[SPARE[0].0.into()])])
    }),
    row("cap_delete", delete),
    row("cap_revoke", |_| {
        op::CapCopy(OWN, SPARE[0], rights())?;
        window([invocation(OWN, Op::CapRevoke, &[])])
    }),
    Row { name: "revoke_900", n: 20, once: |_| revoke(), around: None },
    Row { name: "fault_round_trip", n: N, once: |_| Ok(hostile::timed_fault()), around: Some(handled) },
];

fn rights() -> u64 {
    Rights::SEND.bits().into()
}

/// A call to the peer and its answer.
#[inline(always)]
fn call(words: u8, caps: u8, first: Slot) -> Result<u64, Reason> {
    let caps_word = pack_caps([first, Slot::NONE, Slot::NONE, Slot::NONE]);
    let tag = Tag::new(Call::Call, words, caps, 0).0;
    let (ticks, outcome) = hostile::timed_call(tag, ECHO, Receive::default().to_word(), caps_word);
    Outcome(outcome).status()?;
    if Outcome(outcome).words() == words.into() { Ok(ticks) } else { Err(Error::InvalidArgument.into()) }
}

/// The registers of a call without words that waits for ever.
#[inline(always)]
fn plain(call: Call, slot: Slot) -> Registers {
    Registers { rax: Tag::new(call, 0, 0, 0).0, rdi: slot.0.into(), r14: FOREVER, ..Registers::default() }
}

fn round_trip(words: u8) -> Result<u64, Reason> {
    call(words, 0, Slot::NONE)
}

fn transfer(_: &Client) -> Result<u64, Reason> {
    call(0, 1, OWN)
}

/// A message to the peer, which waits for one, and waits again before the next round.
fn send(_: &Client) -> Result<u64, Reason> {
    let ticks = window([plain(Call::Send, ECHO)])?;
    yield_now();
    Ok(ticks)
}

/// Something that leaves a capability in the spare slot, which is emptied again.
#[inline(always)]
fn made(calls: [Registers; 1]) -> Result<u64, Reason> {
    let ticks = window(calls)?;
    op::CapDelete(SPARE[0])?;
    Ok(ticks)
}

fn delete(_: &Client) -> Result<u64, Reason> {
    op::CapCopy(OWN, SPARE[0], rights())?;
    window([invocation(SPARE[0], Op::CapDelete, &[])])
}

/// Revokes many capabilities at once.
fn revoke() -> Result<u64, Reason> {
    for slot in CROWD..CROWD + CROWD_LEN {
        op::CapCopy(OWN, Slot(slot), rights())?;
    }
    window([invocation(OWN, Op::CapRevoke, &[])])
}

fn ping_pong(_: &Client) -> Result<u64, Reason> {
    window([invocation(PING, Op::Signal, &[FLAG_PLAY]), plain(Call::Recv, PONG)])
}

/// Tells the peer that the game begins, or ends.
fn game(_: &Client, begins: bool) -> Result<(), Reason> {
    if begins {
        return ipc::call(ECHO, &Message::new(LABEL_PLAY), 0, FOREVER).map(|_| ());
    }
    op::Signal(PING, FLAG_STOP).map(|_| ())
}

/// Makes the peer the handler of this thread's faults.
fn handled(_: &Client, begins: bool) -> Result<(), Reason> {
    if begins {
        op::ThreadSetFaultEndpoint(OWN_THREAD, ECHO)
    } else {
        op::ThreadClearFaultEndpoint(OWN_THREAD)
    }
    .map(|_| ())
}
