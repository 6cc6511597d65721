//! Calls, answers and faults: direct switches between a caller and a server that waits.

use core::ptr::NonNull;
use core::sync::atomic::{Ordering, compiler_fence};

use sila_abi::syscall::{
    FAULT_RESUME, FAULT_SET_INSTRUCTION, FAULT_SET_STACK, FOREVER, MAX_CAPS, MAX_WORDS, Outcome,
    REGISTER_WORDS, Receive,
};
use sila_abi::{ObjectType, Rights};

use super::{
    Context, Endpoints, LONG, MORE, MORE_OR_LONG, RICH, Rest, SHORT, Threads, allows, length, place_of,
};
use crate::cap::{CSPACE, Cap, CapId};
use crate::ipc::put_words;
use crate::kernel::{Kernel, id_of};
use crate::machine::{Machine, Registers};
use crate::objects::*;
use crate::paging::USER_END;

/// True if a path takes a message with this tag; else which path may.
#[inline(always)]
fn suits<const PATH: u8>(tag: u64) -> Result<(), Rest> {
    let low = tag as u32;
    match PATH {
        // One word is added, so that seven are as many as eight.
        SHORT if low.wrapping_add(0x100) & MORE_OR_LONG == 0 => Ok(()),
        SHORT if low & MORE == 0 => Err(Rest::Long),
        SHORT => Err(Rest::Rich),
        // With the call's number below it, the length is as good as alone.
        LONG if low < ((MAX_WORDS as u32 + 1) << 8) => Ok(()),
        RICH if low & 0xfff8_0000 == 0 && caps(tag) <= MAX_CAPS && length(tag) <= MAX_WORDS => Ok(()),
        _ => Err(Rest::All),
    }
}

/// How many capabilities go along.
#[inline(always)]
const fn caps(tag: u64) -> usize {
    (tag >> 16 & 7) as usize
}

/// Copies what of a message does not fit the registers, if both sides have a page.
#[inline(always)]
fn copy_page(m: &mut impl Machine, tag: u64, from: &Thread, to: &Thread) -> Result<(), Rest> {
    let (Some((source, _)), Some((target, _))) = (from.message, to.message) else { return Err(Rest::All) };
    m.copy_words(source, target, REGISTER_WORDS, length(tag).wrapping_sub(REGISTER_WORDS));
    Ok(())
}

/// Copies the words of a message that the registers hold.
#[inline(always)]
fn copy_registers(tag: u64, from: &Thread, to: &mut Thread) {
    let count = tag as u32 & 0xff00;
    if count == 0 {
        return;
    }
    let (f, t) = (&from.context.registers, &mut to.context.registers);
    if count == 0x400 {
        // The length that most messages with words have, in as few instructions as it takes: the fence keeps the
        // compiler from sharing its last store with the other lengths, and costs nothing.
        (t.rsi, t.rdx, t.r10, t.r8) = (f.rsi, f.rdx, f.r10, f.r8);
        return compiler_fence(Ordering::Release);
    }
    put_words(t, &[f.rsi, f.rdx, f.r10, f.r8, f.r9, f.r12], length(tag));
}

/// A handler's answer that lets a thread go on: where, and with which stack.
#[derive(Clone, Copy)]
struct Resumption {
    instruction: Option<u64>,
    stack: Option<u64>,
}

impl Resumption {
    /// The answer in a handler's registers, if it is one that resumes, and permitted.
    #[inline(always)]
    fn of(r: &Registers) -> Option<Self> {
        let edits = r.rdx;
        if r.rsi != FAULT_RESUME || edits & !(FAULT_SET_INSTRUCTION | FAULT_SET_STACK) != 0 {
            return None;
        }
        let edit = |bit, value| (edits & bit != 0).then_some(value);
        let (instruction, stack) = (edit(FAULT_SET_INSTRUCTION, r.r10), edit(FAULT_SET_STACK, r.r8));
        let inside = |address: Option<u64>| address.is_none_or(|a| a < USER_END);
        (inside(instruction) && inside(stack)).then_some(Resumption { instruction, stack })
    }

    #[inline(always)]
    fn apply(self, c: &mut Thread) {
        c.fault = None;
        c.quirks -= Quirks::FAULTED;
        let r = &mut c.context.registers;
        (r.rip, r.rsp) = (self.instruction.unwrap_or(r.rip), self.stack.unwrap_or(r.rsp));
    }
}

impl Kernel {
    /// A call to a server that waits: a direct switch. The server runs at no less than the caller's priority,
    /// so that nobody else has a better claim; it goes on with the caller's slice. The tag must be a call's.
    #[inline(always)]
    pub fn fast_call<const PATH: u8>(&mut self, m: &mut impl Machine) -> Result<Context, Rest> {
        let me = self.fast_caller()?;
        let t = self.threads.known(me);
        let r = &t.context.registers;
        let tag = r.rax;
        suits::<PATH>(tag)?;
        if r.r14 != FOREVER {
            return Err(Rest::All);
        }
        let at = place_of(t, r.rdi).ok_or(Rest::All)?;
        let cap = self.caps.peek_typed(at, ObjectType::Endpoint).ok_or(Rest::All)?;
        if !allows(cap, Rights::SEND) {
            return Err(Rest::All);
        }
        let (badge, endpoint) = (cap.badge, id_of(cap));
        if PATH == RICH {
            if !cap.rights.contains(Rights::GRANT) {
                return Err(Rest::All);
            }
            let e = self.endpoints.get(endpoint).ok_or(Rest::All)?;
            let server = Threads::within(e.receivers.only_slot().ok_or(Rest::All)?);
            self.send_caps(m, me, server)?;
        }
        let e = self.endpoints.get_mut(endpoint).ok_or(Rest::All)?;
        let server = Threads::within(e.receivers.only_slot().ok_or(Rest::All)?);
        let (t, s) = self.threads.known_pair_mut(me, server).ok_or(Rest::All)?;
        let at = s.reply_at;
        if !s.quirks.is_empty() || !self.caps.is_empty(at) {
            return Err(Rest::All);
        }
        if PATH == LONG {
            copy_page(m, tag, t, s)?;
        }
        // From here on nothing fails.
        let number = self.calls.wrapping_add(1);
        self.calls = number;
        self.caps.put_reply(at, Cap::reply(me, Endpoints::within(endpoint.index()), number));
        t.call = number;
        t.state = ThreadState::AwaitingReply;
        s.effective = u32::from(s.priority).max(e.ceiling.into()).max(t.effective.into()) as u8;
        s.state = ThreadState::Running;
        s.context.registers.rdi = badge;
        s.context.registers.rax = Outcome::of_plain_call(tag).0;
        e.receivers.take_only(&mut s.link);
        self.current = server;
        copy_registers(tag, t, s);
        Ok(NonNull::from(&mut s.context))
    }

    /// Checks everything that a call with capabilities needs, and then copies the words of its page and makes the
    /// receiver's capabilities.
    #[inline(always)]
    fn send_caps(&mut self, m: &mut impl Machine, me: u32, server: u32) -> Result<(), Rest> {
        let (t, s) = (self.threads.known(me), self.threads.known(server));
        let tag = t.context.registers.rax;
        let (count, slots) = (caps(tag), t.context.registers.r15);
        let want = Receive::from_word(s.context.registers.r13);
        let base = want.base.0 as usize;
        if count > want.count as usize || base == 0 || base + count > CSPACE || me == server {
            return Err(Rest::All);
        }
        if !s.quirks.is_empty() || !self.caps.is_empty(s.reply_at) {
            return Err(Rest::All);
        }
        let (from, to) = (t.process.index(), CapId::in_cspace(s.process.index(), base));
        for i in 0..count {
            let slot = (slots >> (16 * i)) as u16 as usize;
            let cap =
                self.caps.peek(CapId::in_cspace(from, slot)).filter(|_| slot < CSPACE).ok_or(Rest::All)?;
            let travels = cap.rights.contains(Rights::COPY) && cap.object.kind != ObjectType::Reply;
            let at = to.after(i);
            if !travels || !self.is_alive(cap.object) || !self.caps.is_free(at) || at == s.reply_at {
                return Err(Rest::All);
            }
        }
        if length(tag) > REGISTER_WORDS {
            copy_page(m, tag, t, s)?;
        }
        for i in 0..count {
            let source = CapId::in_cspace(from, (slots >> (16 * i)) as u16 as usize);
            if let Some(cap) = self.caps.get(source) {
                self.gained(&cap);
                self.caps.put_child(source, to.after(i), cap);
            }
        }
        Ok(())
    }

    /// The answer to a caller that waits, and the wait for the next call: a direct switch back. The tag must be a
    /// reply_recv's. Of what only the rich path takes, it takes the answers to faults, and no capabilities.
    #[inline(always)]
    pub fn fast_reply_recv<const PATH: u8>(&mut self, m: &mut impl Machine) -> Result<Context, Rest> {
        let me = self.fast_caller()?;
        let t = self.threads.known(me);
        let r = &t.context.registers;
        let tag = r.rax;
        suits::<PATH>(tag)?;
        if r.r14 != FOREVER || (PATH == RICH && tag as u32 & MORE != 0) {
            return Err(Rest::All);
        }
        if Receive::from_word(r.r13).reply.0 != t.reply_slot {
            return Err(Rest::All);
        }
        let at = place_of(t, r.rdi).ok_or(Rest::All)?;
        let cap = self.caps.peek_typed(at, ObjectType::Endpoint).ok_or(Rest::All)?;
        if !allows(cap, Rights::RECV) {
            return Err(Rest::All);
        }
        let at = t.reply_at;
        let reply = self.caps.peek_typed(at, ObjectType::Reply).ok_or(Rest::All)?;
        let caller = Threads::within(reply.object.index);
        let e = self.endpoints.get_mut(id_of(cap)).ok_or(Rest::All)?;
        // A receiver is forgotten before its slot in the arena is used again: the slot tells it. Whoever receives
        // with nobody else waiting is the only one who does.
        let mine = e.receiver.is_some_and(|r| r.index() == t.process.index());
        if !mine || !e.senders.is_empty() || !e.receivers.is_empty() || t.bound.is_some() {
            return Err(Rest::All);
        }
        // The number of a call is no other's.
        let c = self.threads.known(caller);
        if c.state != ThreadState::AwaitingReply || c.call != reply.badge {
            return Err(Rest::All);
        }
        match PATH {
            RICH if c.quirks != Quirks::FAULTED => return Err(Rest::All),
            SHORT | LONG if !c.quirks.is_empty() => return Err(Rest::Rich),
            _ => {}
        }
        if self.ready.rival() >= c.effective.into() {
            return Err(Rest::All);
        }
        let (t, c) = self.threads.known_pair_mut(me, caller).ok_or(Rest::All)?;
        let mut resumption = None;
        if PATH == RICH {
            resumption = Some(Resumption::of(&t.context.registers).ok_or(Rest::All)?);
        }
        if PATH == LONG {
            copy_page(m, tag, t, c)?;
        }
        // From here on nothing fails.
        let own = t.priority;
        t.effective = own;
        t.state = ThreadState::Receiving { endpoint: id_of(cap) };
        self.caps.take_reply(at);
        c.state = ThreadState::Running;
        e.receivers.put_only(me, &mut t.link, own);
        self.current = caller;
        match resumption {
            Some(resumption) => resumption.apply(c),
            _ => {
                c.context.registers.rax = Outcome::of_plain_reply_recv(tag).0;
                copy_registers(tag, t, c);
            }
        }
        Ok(NonNull::from(&mut c.context))
    }

    /// A fault whose handler waits: a call that the kernel makes for the thread.
    #[inline(always)]
    pub fn fast_fault(&mut self, fault: Fault) -> Option<Context> {
        let me = self.fast_caller().ok()?;
        let t = self.threads.known(me);
        let (holder, slot) = t.fault_endpoint?;
        let at = self.place(holder, slot).ok()?;
        let cap = self.caps.peek_typed(at, ObjectType::Endpoint).filter(|c| allows(c, Rights::SEND))?;
        let (badge, endpoint) = (cap.badge, id_of(cap));
        let e = self.endpoints.get_mut(endpoint)?;
        let server = Threads::within(e.receivers.only_slot()?);
        let (t, s) = self.threads.known_pair_mut(me, server)?;
        let at = s.reply_at;
        if !s.quirks.is_empty() || !self.caps.is_empty(at) {
            return None;
        }
        // From here on nothing fails.
        let number = self.calls.wrapping_add(1);
        self.calls = number;
        self.caps.put_reply(at, Cap::reply(me, Endpoints::within(endpoint.index()), number));
        t.call = number;
        t.state = ThreadState::AwaitingReply;
        t.fault = Some(fault);
        t.quirks |= Quirks::FAULTED;
        s.effective = s.priority.max(e.ceiling).max(t.effective);
        s.state = ThreadState::Running;
        let (f, r) = (&t.context.registers, &mut s.context.registers);
        r.rax = Outcome::message(6, 0, 0).with_reply().with_fault().0;
        r.rdi = badge;
        (r.rsi, r.rdx, r.r10) = (fault.vector.into(), fault.error, fault.address);
        (r.r8, r.r9, r.r12) = (f.rip, f.rsp, f.rflags);
        e.receivers.take_only(&mut s.link);
        self.current = server;
        Some(NonNull::from(&mut s.context))
    }
}
