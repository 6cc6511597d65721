//! Capabilities that travel with messages.

use crate::lab::{Failure, Lab, Outcome, accounts, copy, equal, refused, works};
use probe::{Act, SURVIVED};
use sila_abi::protocol::layout::OWN_POOL;
use sila_abi::syscall::{Call, NO_WAIT, Receive, Tag, pack_caps};
use sila_abi::{Error, ObjectType, Rights, Slot};
use sila_rt::hostile::syscall;
use sila_rt::ipc::{self, Message, Received};
use sila_rt::raw::Registers;
use sila_rt::slots::{OwnedSlot, make};
use sila_rt::{clock, op};

fn endpoint() -> Result<OwnedSlot, Failure> {
    works("EndpointCreate", make(|dst| op::EndpointCreate(OWN_POOL, 0, 0, dst)))
}

fn notification() -> Result<OwnedSlot, Failure> {
    works("NotificationCreate", make(|dst| op::NotificationCreate(OWN_POOL, dst)))
}

pub fn capabilities_travel_with_a_message(lab: &Lab) -> Outcome {
    let endpoint = endpoint()?;
    let gifts = [notification()?, notification()?];
    let minted = works("CapMint", make(|dst| op::CapMint(gifts[1].slot(), dst, 0x104, 2)))?;
    let child = lab.child()?;
    child.start(Act::Call, &[1, 9, 0], &[endpoint.slot(), gifts[0].slot(), minted.slot()])?;
    let received = works("recv", ipc::recv(endpoint.slot(), 4, clock::after(3 * clock::SECOND)))?;
    let Received::Message(mut call) = received else {
        return Err(Failure::new("recv", "a message", "flags"));
    };
    equal("capabilities received", call.caps.len(), 2)?;
    let (first, second) = (call.caps.take(0), call.caps.take(1));
    let status = |slot: &Option<OwnedSlot>| {
        let slot = slot.as_ref().map_or(Slot::NONE, OwnedSlot::slot);
        op::CapStatus(slot).map(|status| [status.words[0], status.words[1], status.words[2]])
    };
    let kind = ObjectType::Notification as u64;
    let all = (Rights::READ | Rights::SEND | Rights::RECV | Rights::MANAGE | Rights::COPY).bits();
    equal("the first capability", works("CapStatus", status(&first))?, [kind, all.into(), 0])?;
    equal("the second capability", works("CapStatus", status(&second))?, [kind, 0x104, 2])?;
    works("Signal", op::Signal(second.as_ref().map_or(Slot::NONE, OwnedSlot::slot), 7))?;
    equal("it is the same object", works("wait", ipc::wait(gifts[1].slot(), NO_WAIT))?, 2)?;
    works("the reply", call.reply.send(&call.message))?;
    child.exited(SURVIVED)
}

pub fn capabilities_need_the_grant_right_to_travel(_: &Lab) -> Outcome {
    let endpoint = endpoint()?;
    let plain = works("a copy", copy(endpoint.slot(), Rights::SEND | Rights::COPY))?;
    let gift = notification()?;
    let message = Message::new(1).cap(gift.slot());
    refused("send without GRANT", ipc::send(plain.slot(), &message, NO_WAIT), Error::CannotGrant)?;
    let call = ipc::call(plain.slot(), &message, 0, NO_WAIT);
    refused("call without GRANT", call, Error::CannotGrant)?;
    let bare = ipc::send(plain.slot(), &Message::new(1), NO_WAIT);
    refused("send without capabilities", bare, Error::Timeout)
}

/// Lets a probe send capabilities and receives them with this much room; the probe's exit code is the answer.
fn attempt(lab: &Lab, gifts: &[Slot], receive: Receive, code: u64) -> Outcome {
    let endpoint = endpoint()?;
    let child = lab.child()?;
    let caps: alloc::vec::Vec<Slot> = [endpoint.slot()].iter().chain(gifts).copied().collect();
    child.start(Act::Send, &[1, 9, clock::SECOND], &caps)?;
    let before = accounts()?.capabilities;
    let mut registers = Registers {
        rax: Tag::new(Call::Recv, 0, 0, 0).0,
        rdi: endpoint.slot().0.into(),
        r13: receive.to_word(),
        r14: clock::after(200 * clock::MILLISECOND),
        ..Registers::default()
    };
    syscall(&mut registers);
    if code != 0 {
        equal("recv", registers.rax & 0xff, Error::Timeout as u64)?;
        child.exited(code)?;
        let _ = before;
        for i in 0..u16::from(receive.count) {
            let at = Slot(receive.base.0 + i);
            if at != OWN_POOL {
                refused("a slot after a refused transfer", op::CapStatus(at), Error::NoCapability)?;
            }
        }
        return Ok(());
    }
    equal("recv", registers.rax & 0xff, 0)?;
    child.exited(0)
}

pub fn a_transfer_of_four_is_all_or_nothing(lab: &Lab) -> Outcome {
    let gifts = [notification()?, notification()?, notification()?];
    let slots = [gifts[0].slot(), gifts[1].slot(), gifts[2].slot()];
    let run = Slot(900);
    let room = |count| Receive { reply: Slot::NONE, base: run, count };
    attempt(lab, &slots, room(2), Error::TransferFailed as u64).map_err(|f| f.at("room for two of three"))?;
    attempt(lab, &slots, room(0), Error::TransferFailed as u64).map_err(|f| f.at("no room"))?;
    attempt(lab, &slots, room(3), 0).map_err(|f| f.at("room for three"))?;
    for i in 0..3 {
        works("a capability that arrived", op::CapDelete(Slot(run.0 + i)))?;
    }
    Ok(())
}

pub fn occupied_slots_refuse_a_transfer(lab: &Lab) -> Outcome {
    let gifts = [notification()?, notification()?, notification()?];
    let slots = [gifts[0].slot(), gifts[1].slot(), gifts[2].slot()];
    // The second of the three slots is occupied.
    let blocker = Slot(911);
    works("CapCopy", op::CapCopy(gifts[0].slot(), blocker, 0x104))?;
    let endpoint_room = Receive { reply: Slot::NONE, base: Slot(910), count: 3 };
    let endpoint = endpoint()?;
    let child = lab.child()?;
    let caps = [endpoint.slot(), slots[0], slots[1], slots[2]];
    child.start(Act::Send, &[1, 9, clock::SECOND], &caps)?;
    let mut registers = Registers {
        rax: Tag::new(Call::Recv, 0, 0, 0).0,
        rdi: endpoint.slot().0.into(),
        r13: endpoint_room.to_word(),
        r14: clock::after(200 * clock::MILLISECOND),
        ..Registers::default()
    };
    syscall(&mut registers);
    equal("recv", registers.rax & 0xff, Error::Timeout as u64)?;
    child.exited(Error::TransferFailed as u64)?;
    refused("the slot before", op::CapStatus(Slot(910)), Error::NoCapability)?;
    refused("the slot after", op::CapStatus(Slot(912)), Error::NoCapability)?;
    works("the occupied slot", op::CapDelete(blocker))?;
    Ok(())
}

pub fn endow_only_capabilities_do_not_travel(_: &Lab) -> Outcome {
    let endpoint = endpoint()?;
    let tag = Tag::new(Call::Send, 0, 1, 0);
    // Without the copy right; with it, it would travel and stay endow-only.
    let marked = works("an endow-only copy", copy(endpoint.slot(), Rights::SEND | Rights::ENDOW))?;
    let (sent, done, offered) = (endpoint.slot(), notification()?, marked.slot());
    let signal = done.slot();
    let sender = sila_rt::thread::spawn(2, move || {
        let mut registers = Registers {
            rax: tag.0,
            rdi: sent.0.into(),
            r14: clock::after(clock::SECOND),
            r15: pack_caps([offered, Slot::NONE, Slot::NONE, Slot::NONE]),
            ..Registers::default()
        };
        syscall(&mut registers);
        let _ = op::Signal(signal, 1 << (registers.rax & 0x3f));
    });
    works("a thread", sender)?;
    let recv = ipc::recv(endpoint.slot(), 4, clock::after(200 * clock::MILLISECOND));
    refused("recv", recv.map(|_| ()), Error::Timeout)?;
    let flags = works("the sender's error", ipc::wait(done.slot(), clock::after(clock::SECOND)))?;
    equal("the sender's error", flags, 1 << Error::EndowOnly as u64)
}

pub fn a_reply_can_be_passed_on_and_not_copied(lab: &Lab) -> Outcome {
    let endpoint = endpoint()?;
    let child = lab.child()?;
    child.start(Act::Call, &[2, 5, 0], &[endpoint.slot()])?;
    let reply = works("a slot", sila_rt::slots::reserve())?;
    let mut registers = Registers {
        rax: Tag::new(Call::Recv, 0, 0, 0).0,
        rdi: endpoint.slot().0.into(),
        r13: Receive { reply: reply.slot(), base: Slot::NONE, count: 0 }.to_word(),
        r14: clock::after(2 * clock::SECOND),
        ..Registers::default()
    };
    syscall(&mut registers);
    equal("recv", registers.rax & 0xff, 0)?;
    let copy = make(|dst| op::CapCopy(reply.slot(), dst, Rights::SEND.bits().into()));
    refused("copying a Reply", copy, Error::NotCopyable)?;
    let mint = make(|dst| op::CapMint(reply.slot(), dst, Rights::SEND.bits().into(), 3));
    refused("minting a Reply", mint, Error::NotCopyable)?;
    let other = works("a slot", sila_rt::slots::reserve())?;
    works("moving a Reply", op::CapMove(reply.slot(), other.slot()))?;
    refused("the old slot", op::CapStatus(reply.slot()), Error::NoCapability)?;
    let mut registers = Registers {
        rax: Tag::new(Call::Reply, 2, 0, 0).0,
        rdi: other.slot().0.into(),
        words: [5, 6, 0, 0, 0, 0],
        ..Registers::default()
    };
    syscall(&mut registers);
    equal("reply from the new slot", registers.rax & 0xff, 0)?;
    child.exited(SURVIVED)
}
