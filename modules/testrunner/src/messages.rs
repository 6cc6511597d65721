//! Calls, replies, badges, receivers.

use crate::lab::{Failure, Lab, Outcome, copy, equal, pause, refused, until, works};
use alloc::format;
use probe::{Act, SURVIVED};
use sila_abi::protocol::layout::{OWN_POOL, OWN_PROCESS, OWN_THREAD};
use sila_abi::syscall::{FOREVER, NO_WAIT, Receive, Tag};
use sila_abi::{Error, Rights, Slot};
use sila_rt::clock::{self, MILLISECOND};
use sila_rt::hostile::syscall;
use sila_rt::ipc::{self, Incoming, Message, Received};
use sila_rt::op;
use sila_rt::raw::Registers;
use sila_rt::slots::{OwnedSlot, make};

fn endpoint() -> Result<OwnedSlot, Failure> {
    works("EndpointCreate", make(|dst| op::EndpointCreate(OWN_POOL, 0, 0, dst)))
}

fn minted(slot: Slot, badge: u64) -> Result<OwnedSlot, Failure> {
    let rights = (Rights::SEND | Rights::GRANT | Rights::COPY).bits();
    works("CapMint", make(|dst| op::CapMint(slot, dst, rights.into(), badge)))
}

fn incoming(slot: Slot) -> Result<Incoming, Failure> {
    match works("recv", ipc::recv(slot, 0, clock::after(3 * clock::SECOND)))? {
        Received::Message(incoming) => Ok(incoming),
        Received::Flags(flags) => Err(Failure::new("recv", "a message", format!("flags {flags}"))),
    }
}

pub fn words_arrive_unchanged_at_every_length(lab: &Lab) -> Outcome {
    let endpoint = endpoint()?;
    for count in [0, 1, 5, 6, 7, 119, 120] {
        let child = lab.child()?;
        child.start(Act::Call, &[count, 1000, 0], &[endpoint.slot()])?;
        let Incoming { message, reply, .. } = incoming(endpoint.slot())?;
        let want: alloc::vec::Vec<u64> = (1000..1000 + count).collect();
        equal(&format!("{count} words"), message.words(), &want[..])?;
        works("the reply", reply.send(&message))?;
        child.exited(SURVIVED).map_err(|failure| failure.at(&format!("{count} words back")))?;
    }
    Ok(())
}

pub fn longer_messages_than_the_limit_are_refused(_: &Lab) -> Outcome {
    let endpoint = endpoint()?;
    for words in [121u8, 200, 255] {
        let tag = Tag::new(sila_abi::syscall::Call::Send, words, 0, 0);
        let mut registers = Registers { rax: tag.0, rdi: endpoint.slot().0.into(), ..Registers::default() };
        syscall(&mut registers);
        equal(&format!("{words} words"), registers.rax & 0xff, Error::InvalidArgument as u64)?;
    }
    Ok(())
}

pub fn a_badge_tells_the_receiver_who_calls(lab: &Lab) -> Outcome {
    let endpoint = endpoint()?;
    for badge in [1, 0xdead_beef, u64::MAX] {
        let minted = minted(endpoint.slot(), badge)?;
        let child = lab.child()?;
        child.start(Act::Call, &[1, badge, 0], &[minted.slot()])?;
        let call = incoming(endpoint.slot())?;
        equal("the badge", (call.badge, call.message.word(0)), (badge, badge))?;
        works("the reply", call.reply.send(&call.message))?;
        child.exited(SURVIVED)?;
    }
    Ok(())
}

pub fn replies_may_go_out_of_order(lab: &Lab) -> Outcome {
    let endpoint = endpoint()?;
    let children = [lab.child()?, lab.child()?, lab.child()?];
    let mut calls = alloc::vec::Vec::new();
    for (at, child) in children.iter().enumerate() {
        child.start(Act::Call, &[7, 100 * at as u64, 0], &[endpoint.slot()])?;
        calls.push(incoming(endpoint.slot())?);
    }
    for at in [1, 2, 0] {
        let Some(child) = children.get(at) else { continue };
        let found = calls.iter().position(|call| call.message.word(0) == 100 * at as u64);
        let call = found.map(|found| calls.remove(found));
        let call = call.ok_or_else(|| Failure::new("the calls", "one of each child", "fewer"))?;
        works("the reply", call.reply.send(&call.message))?;
        child.exited(SURVIVED)?;
    }
    Ok(())
}

pub fn a_reply_answers_once(lab: &Lab) -> Outcome {
    let endpoint = endpoint()?;
    let child = lab.child()?;
    child.start(Act::Call, &[1, 5, 0], &[endpoint.slot()])?;
    let free = works("a slot", sila_rt::slots::reserve())?;
    let mut registers = recv_into(endpoint.slot(), free.slot());
    equal("recv", registers.rax & 0xff, 0)?;
    let tag = Tag::new(sila_abi::syscall::Call::Reply, 1, 0, 0);
    let reply = Registers {
        rax: tag.0,
        rdi: free.slot().0.into(),
        words: [5, 0, 0, 0, 0, 0],
        ..Registers::default()
    };
    registers = reply;
    syscall(&mut registers);
    equal("the first reply", registers.rax & 0xff, 0)?;
    registers = reply;
    syscall(&mut registers);
    equal("the second reply", registers.rax & 0xff, Error::NoCapability as u64)?;
    child.exited(SURVIVED)
}

/// Receives with the Reply in a slot of the caller's choice.
fn recv_into(endpoint: Slot, reply: Slot) -> Registers {
    let receive = Receive { reply, base: Slot::NONE, count: 0 };
    let mut registers = Registers {
        rax: Tag::new(sila_abi::syscall::Call::Recv, 0, 0, 0).0,
        rdi: endpoint.0.into(),
        r13: receive.to_word(),
        r14: clock::after(2 * clock::SECOND),
        ..Registers::default()
    };
    syscall(&mut registers);
    registers
}

pub fn a_dropped_reply_tells_the_caller(lab: &Lab) -> Outcome {
    let endpoint = endpoint()?;
    let child = lab.child()?;
    child.start(Act::Call, &[1, 5, 0], &[endpoint.slot()])?;
    drop(incoming(endpoint.slot())?.reply);
    child.exited(Error::PeerDiedDelivered as u64)
}

pub fn a_late_reply_finds_no_caller(lab: &Lab) -> Outcome {
    let endpoint = endpoint()?;
    let child = lab.child()?;
    child.start(Act::Call, &[1, 5, 50 * MILLISECOND], &[endpoint.slot()])?;
    let call = incoming(endpoint.slot())?;
    child.exited(Error::Timeout as u64)?;
    refused("the late reply", call.reply.send(&call.message), Error::CallerGone)?;
    let child = lab.child()?;
    child.start(Act::Call, &[1, 5, 0], &[endpoint.slot()])?;
    let call = incoming(endpoint.slot())?;
    works("ending the caller", op::ProcessTerminate(child.process(), 0))?;
    refused("a reply to the dead", call.reply.send(&call.message), Error::CallerGone)
}

pub fn the_death_of_a_receiver_ends_waiting_calls(lab: &Lab) -> Outcome {
    let server = lab.child()?;
    server.start(Act::Serve, &[2], &[])?;
    let (_, mut caps) = server.report(1)?;
    let service = caps.take(0).ok_or_else(|| Failure::new("the server's report", "a capability", "none"))?;
    let waiting = ipc::call(service.slot(), &Message::new(1), 0, clock::after(3 * clock::SECOND));
    refused("a call that was not received", waiting, Error::PeerDied)?;
    server.exited(SURVIVED)?;
    let after = ipc::call(service.slot(), &Message::new(1), 0, NO_WAIT);
    // The endpoint was paid by the server's own Pool.
    refused("a later call", after, Error::ObjectGone)
}

pub fn the_death_of_a_receiver_ends_delivered_calls_apart(lab: &Lab) -> Outcome {
    let server = lab.child()?;
    server.start(Act::Serve, &[1], &[])?;
    let (_, mut caps) = server.report(1)?;
    let service = caps.take(0).ok_or_else(|| Failure::new("the server's report", "a capability", "none"))?;
    let call = ipc::call(service.slot(), &Message::new(1), 0, clock::after(3 * clock::SECOND));
    refused("a call that was received", call, Error::PeerDiedDelivered)?;
    let dropper = lab.child()?;
    dropper.start(Act::Serve, &[3], &[])?;
    let (_, mut caps) = dropper.report(1)?;
    let service = caps.take(0).ok_or_else(|| Failure::new("the server's report", "a capability", "none"))?;
    let call = ipc::call(service.slot(), &Message::new(1), 0, clock::after(3 * clock::SECOND));
    refused("a call whose Reply was dropped", call, Error::PeerDiedDelivered)
}

pub fn only_the_receiver_receives(lab: &Lab) -> Outcome {
    let endpoint = endpoint()?;
    let shared = works("a copy", copy(endpoint.slot(), Rights::RECV | Rights::SEND | Rights::COPY))?;
    let child = lab.child()?;
    child.exits(Act::Receive, &[], &[shared.slot()], Error::NotReceiver as u64)?;
    let child = lab.child()?;
    let bind = op::EndpointBind(endpoint.slot(), child.process());
    refused("binding an endpoint that has a receiver", bind, Error::AlreadyBound)
}

pub fn a_taken_reply_slot_leaves_the_message_queued(lab: &Lab) -> Outcome {
    let endpoint = endpoint()?;
    let child = lab.child()?;
    child.start(Act::Call, &[1, 5, 0], &[endpoint.slot()])?;
    let registers = recv_into(endpoint.slot(), OWN_POOL);
    equal("recv with an occupied slot", registers.rax & 0xff, Error::ReplySlotTaken as u64)?;
    let registers = recv_into(endpoint.slot(), Slot::NONE);
    equal("recv with no slot", registers.rax & 0xff, Error::ReplySlotTaken as u64)?;
    let call = incoming(endpoint.slot())?;
    equal("the message", call.message.words(), &[5][..])?;
    works("the reply", call.reply.send(&call.message))?;
    child.exited(SURVIVED)
}

pub fn a_labelled_endpoint_goes_to_its_own_service_only(lab: &Lab) -> Outcome {
    let labelled = works("a labelled endpoint", make(|dst| op::EndpointCreate(OWN_POOL, 2, 0, dst)))?;
    let label = works("EndpointLabel", sila_rt::system::endpoint_label(labelled.slot()))?;
    let label = label.map(|label| (label.publisher.as_str() == "sila", label.name.as_str() == "testrunner"));
    equal("publisher and name of the label", label, Some((true, true)))?;
    let plain = endpoint()?;
    equal(
        "the label of a plain one",
        works("EndpointLabel", sila_rt::system::endpoint_label(plain.slot()))?,
        None,
    )?;
    let flags = make(|dst| op::EndpointCreate(OWN_POOL, 4, 0, dst));
    refused("an unknown flag", flags, Error::InvalidArgument)?;
    let ceiling = make(|dst| op::EndpointCreate(OWN_POOL, 0, 121, dst));
    refused("a ceiling above the own one", ceiling, Error::PriorityTooHigh)?;
    let child = lab.child()?;
    refused("binding it to a probe", op::EndpointBind(labelled.slot(), child.process()), Error::AlreadyBound)
}

pub fn bound_flags_interrupt_a_receive(_: &Lab) -> Outcome {
    let endpoint = endpoint()?;
    let bound = works("NotificationCreate", make(|dst| op::NotificationCreate(OWN_POOL, dst)))?;
    works("NotificationBind", op::NotificationBind(bound.slot(), OWN_THREAD))?;
    let second = works("NotificationCreate", make(|dst| op::NotificationCreate(OWN_POOL, dst)))?;
    let twice = op::NotificationBind(second.slot(), OWN_THREAD);
    refused("a second notification for the thread", twice, Error::AlreadyBound)?;
    works("NotificationAlarm", op::NotificationAlarm(bound.slot(), clock::after(10 * MILLISECOND), 32))?;
    match works("recv", ipc::recv(endpoint.slot(), 0, clock::after(clock::SECOND)))? {
        Received::Flags(flags) => equal("the flags", flags, 32)?,
        Received::Message(_) => return Err(Failure::new("recv", "flags", "a message")),
    }
    works("Signal", op::Signal(bound.slot(), 3))?;
    match works("recv", ipc::recv(endpoint.slot(), 0, NO_WAIT))? {
        Received::Flags(flags) => equal("the flags that were set before", flags, 3),
        Received::Message(_) => Err(Failure::new("recv", "flags", "a message")),
    }
}

pub fn a_badged_notification_sets_only_its_own_flags(_: &Lab) -> Outcome {
    let all = works("NotificationCreate", make(|dst| op::NotificationCreate(OWN_POOL, dst)))?;
    let rights = Rights::SEND.bits().into();
    let some = works("CapMint", make(|dst| op::CapMint(all.slot(), dst, rights, 6)))?;
    works("Signal", op::Signal(some.slot(), u64::MAX))?;
    equal("the flags", works("wait", ipc::wait(all.slot(), NO_WAIT))?, 6)?;
    works("Signal", op::Signal(all.slot(), 1))?;
    works("Signal", op::Signal(some.slot(), 2))?;
    equal("flags of two signals", works("wait", ipc::wait(all.slot(), FOREVER))?, 3)
}

pub fn malformed_system_calls_are_refused(lab: &Lab) -> Outcome {
    for tag in [1 << 19, 0xff80_0000, 5 << 16 | 2, 121 << 8 | 4, 1 << 31] {
        let mut registers = Registers { rax: tag, rdi: OWN_PROCESS.0.into(), ..Registers::default() };
        syscall(&mut registers);
        equal(&format!("tag {tag:#x}"), registers.rax & 0xff, Error::InvalidArgument as u64)?;
    }
    for number in [9u64, 10, 127, 255] {
        let child = lab.child()?;
        child.exits(Act::RawCall, &[number], &[], Error::InvalidOperation as u64)?;
    }
    let mut registers =
        Registers { rax: 7 | 0xffff << 32, rdi: OWN_PROCESS.0.into(), ..Registers::default() };
    syscall(&mut registers);
    equal("an unknown operation", registers.rax & 0xff, Error::InvalidOperation as u64)?;
    for slot in [1024u64, 65535, 65536, u64::MAX] {
        let mut registers = Registers { rax: 7 | 6 << 32, rdi: slot, ..Registers::default() };
        syscall(&mut registers);
        equal(&format!("slot {slot}"), registers.rax & 0xff, Error::SlotOutOfRange as u64)?;
    }
    pause(MILLISECOND);
    until("the runner goes on", || clock::now().is_some())
}
