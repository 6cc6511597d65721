//! The fast path: the commonest system calls in their commonest circumstances.
//!
//! It takes a system call only if nothing but the call itself has to be done: the thread has no quirks, no
//! deadline is set, nothing waits to be attended to, nothing can fail, no CSpace grows, no object ends.
//! Otherwise it has changed nothing and says `None`, and the general path decides, which also finds the error
//! that there may be. What it does is exactly what that path would do; a test makes both do the same.

use core::ptr::NonNull;
use core::sync::atomic::{Ordering, compiler_fence};

use sila_abi::syscall::{Call, FOREVER, MAX_WORDS, Outcome, REGISTER_WORDS, Receive};
use sila_abi::{ObjectType, Op, Rights};

use crate::arena::Arena;
use crate::cap::{CSPACE, Cap, CapId};
use crate::invoke::permitted;
use crate::ipc::put_words;
use crate::kernel::{Kernel, id_of};
use crate::machine::{Machine, Registers};
use crate::objects::*;

const INVOKE: u32 = Call::Invoke as u32;
const RECV: u64 = Call::Recv as u64;
const CAP_STATUS: u32 = Op::CapStatus as u32;
const CAP_COPY: u32 = Op::CapCopy as u32;
const CAP_MINT: u32 = Op::CapMint as u32;
const CAP_DELETE: u32 = Op::CapDelete as u32;
const SIGNAL: u32 = Op::Signal as u32;
const UNMAP: u32 = Op::MappingUnmap as u32;
const CLOCK_NOW: u32 = Op::ClockNow as u32;

/// The part of a tag that is zero if no capability goes along.
const MORE: u32 = 0xffff_0000;
/// The part of a tag, one word added, that is zero if, besides, the words fit the registers.
const MORE_OR_LONG: u32 = 0xffff_f800;

/// True if a capability that names an object of the right type has this right, to be used by its holder.
#[inline(always)]
fn allows(cap: &Cap, right: Rights) -> bool {
    cap.rights.bits() & (right | Rights::ENDOW).bits() == right.bits()
}

/// The place of a slot that the thread names by this word.
#[inline(always)]
fn place_of(t: &Thread, slot: u64) -> Option<CapId> {
    (slot < CSPACE as u64).then(|| CapId::in_cspace(t.process.index(), slot as usize))
}

/// True if a tag is that of a message without capabilities; the path for `LONG` messages takes short ones, too.
#[inline(always)]
fn suits<const LONG: bool>(tag: u64) -> Result<(), Rest> {
    // One word is added, so that seven are as many as eight.
    let low = tag as u32;
    let unsuitable = if LONG { low & MORE } else { low.wrapping_add(0x100) & MORE_OR_LONG };
    match (LONG, unsuitable) {
        (_, 0) => Ok(()),
        (false, _) => Err(Rest::Long),
        (true, _) => Err(Rest::All),
    }
}

/// The length of a message in words.
#[inline(always)]
fn length(tag: u64) -> usize {
    (tag >> 8) as u8 as usize
}

/// Copies what of a message does not fit the registers, if both sides have room for it.
#[inline(always)]
fn copy_page(m: &mut impl Machine, tag: u64, from: &Thread, to: &Thread) -> Result<(), Rest> {
    let count = length(tag);
    if count <= REGISTER_WORDS {
        return Ok(());
    }
    match (from.message, to.message) {
        (Some((source, _)), Some((target, _))) if count <= MAX_WORDS => {
            m.copy_words(source, target, REGISTER_WORDS, count);
            Ok(())
        }
        _ => Err(Rest::All),
    }
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

/// The arena of threads.
type Threads = Arena<Thread, { Thread::SLOTS as usize }>;
/// The context to go on with.
type Context = NonNull<crate::machine::Context>;

/// Why the fast path does not say what to go on with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rest {
    /// Nothing was done: the general path is to carry the system call out.
    All,
    /// Nothing was done: the message is longer than the registers, which the fast path takes in a way of its own.
    Long,
    /// The system call is done, and there is something to attend to.
    Settle,
}

impl Kernel {
    /// The running thread's slot, if nothing keeps it from the fast path.
    #[inline(always)]
    fn fast_caller(&self) -> Option<u32> {
        let me = Threads::within(self.current);
        let quirks = self.threads.known(me).quirks;
        (self.attention.bits() | quirks.bits() == 0).then_some(me)
    }

    /// Carries out an invocation or any other system call but `call` and `reply_recv` at once, or changes nothing.
    #[inline(always)]
    pub fn fast_other(&mut self, m: &mut impl Machine) -> Result<(), Rest> {
        let me = self.fast_caller().ok_or(Rest::All)?;
        let tag = self.threads.known(me).context.registers.rax;
        let done = if tag as u8 == INVOKE as u8 { self.fast_invoke(m, me) } else { self.fast_wait(me) };
        match done {
            None => Err(Rest::All),
            Some(()) if self.attention.is_empty() => Ok(()),
            Some(()) => Err(Rest::Settle),
        }
    }

    /// A free slot that the thread names by this word.
    #[inline(always)]
    fn free_place_of(&self, t: &Thread, slot: u64) -> Option<CapId> {
        let at = place_of(t, slot)?;
        (slot != 0 && self.caps.is_free(at)).then_some(at)
    }

    #[inline(always)]
    fn registers_mut(&mut self, me: u32) -> &mut Registers {
        &mut self.threads.known_mut(me).context.registers
    }

    #[inline(always)]
    fn succeed(&mut self, me: u32) {
        self.registers_mut(me).rax = Outcome::message(0, 0, 0).0;
    }

    #[inline(always)]
    fn fast_invoke(&mut self, m: &mut impl Machine, me: u32) -> Option<()> {
        let t = self.threads.known(me);
        let r = &t.context.registers;
        // No capability, at most seven words.
        if r.rax as u32 & !0x700 != INVOKE {
            return None;
        }
        let at = place_of(t, r.rdi)?;
        let cap = self.caps.peek(at)?;
        match (r.rax >> 32) as u32 {
            CAP_STATUS => {
                let cap = *cap;
                let badge = if cap.object.kind == ObjectType::Reply { 0 } else { cap.badge };
                let r = self.registers_mut(me);
                r.rax = Outcome::message(3, 0, 0).0;
                (r.rsi, r.rdx, r.r10) = (cap.object.kind as u64, cap.rights.bits().into(), badge);
            }
            CAP_COPY => {
                let badge = cap.badge;
                self.fast_derive(me, at, badge)?;
            }
            CAP_MINT => {
                let badge = r.r10;
                if cap.badge != 0 {
                    return None;
                }
                self.fast_derive(me, at, badge)?;
            }
            CAP_DELETE => {
                let object = cap.object;
                // What happens when the last capability goes, the general path knows.
                let count =
                    self.cap_counter(object).filter(|c| **c > 1 && object.kind != ObjectType::Process)?;
                *count -= 1;
                self.caps.remove(at);
                self.succeed(me);
            }
            SIGNAL if cap.object.kind == ObjectType::Notification && allows(cap, Rights::SEND) => {
                let (n, flags) = (id_of(cap), permitted(cap, r.rsi));
                self.notifications.get(n)?;
                self.succeed(me);
                self.signal(n, flags);
            }
            UNMAP if cap.object.kind == ObjectType::Mapping && allows(cap, Rights::MANAGE) => {
                let mapping = id_of(cap);
                self.mappings.get(mapping)?;
                self.succeed(me);
                self.unmap(m, mapping);
            }
            CLOCK_NOW if cap.object.kind == ObjectType::Clock && allows(cap, Rights::READ) => {
                let now = m.now();
                let r = self.registers_mut(me);
                (r.rax, r.rsi) = (Outcome::message(1, 0, 0).0, now);
            }
            _ => return None,
        }
        Some(())
    }

    /// Makes a child of a capability in the slot that word 0 names, with the rights of word 1.
    #[inline(always)]
    fn fast_derive(&mut self, me: u32, from: CapId, badge: u64) -> Option<()> {
        let t = self.threads.known(me);
        let r = &t.context.registers;
        let cap = *self.caps.peek(from)?;
        let rights = Rights::from_word(r.rdx)?;
        let copyable = cap.rights.contains(Rights::COPY) && cap.rights.usable();
        if !copyable || !cap.rights.contains(rights.difference(Rights::ENDOW)) {
            return None;
        }
        let at = self.free_place_of(t, r.rsi)?;
        *self.cap_counter(cap.object)? += 1;
        self.caps.insert_child(from, at, Cap { rights, badge, ..cap });
        self.succeed(me);
        Some(())
    }

    /// A wait for a notification without a deadline.
    #[inline(always)]
    fn fast_wait(&mut self, me: u32) -> Option<()> {
        let t = self.threads.known(me);
        let r = &t.context.registers;
        if r.rax != RECV || r.r14 != FOREVER {
            return None;
        }
        let cap = self.caps.peek_typed(place_of(t, r.rdi)?, ObjectType::Notification)?;
        if !allows(cap, Rights::RECV) {
            return None;
        }
        let (n, priority) = (id_of(cap), t.effective);
        let notification = self.notifications.get_mut(n)?;
        let flags = core::mem::take(&mut notification.flags);
        if flags != 0 {
            let r = self.registers_mut(me);
            (r.rax, r.rdi, r.rsi) = (Outcome::flags().0, 0, flags);
            return Some(());
        }
        self.threads.enqueue(&mut notification.waiters, me, priority);
        let id = self.threads.id_at(me);
        self.start_wait(id, ThreadState::Waiting { notification: n }, FOREVER);
        Some(())
    }

    /// A call to a server that waits: a direct switch. The server runs at no less than the caller's priority,
    /// so that nobody else has a better claim; it goes on with the caller's slice. The tag must be a call's.
    #[inline(always)]
    pub fn fast_call<const LONG: bool>(&mut self, m: &mut impl Machine) -> Result<Context, Rest> {
        let me = self.fast_caller().ok_or(Rest::All)?;
        let t = self.threads.known(me);
        let r = &t.context.registers;
        let tag = r.rax;
        suits::<LONG>(tag)?;
        if r.r14 != FOREVER {
            return Err(Rest::All);
        }
        let at = place_of(t, r.rdi).ok_or(Rest::All)?;
        let cap = self.caps.peek_typed(at, ObjectType::Endpoint).ok_or(Rest::All)?;
        if !allows(cap, Rights::SEND) {
            return Err(Rest::All);
        }
        let badge = cap.badge;
        let endpoint = id_of(cap);
        let e = self.endpoints.get_mut(endpoint).ok_or(Rest::All)?;
        let server = Threads::within(e.receivers.only_slot().ok_or(Rest::All)?);
        let (t, s) = self.threads.known_pair_mut(me, server).ok_or(Rest::All)?;
        let at = s.reply_at;
        if !s.quirks.is_empty() || !self.caps.is_empty(at) {
            return Err(Rest::All);
        }
        if LONG {
            copy_page(m, tag, t, s)?;
        }
        // From here on nothing fails.
        let number = self.calls.wrapping_add(1);
        self.calls = number;
        self.caps.put_reply(at, Cap::reply(me, number));
        t.call = number;
        t.state = ThreadState::AwaitingReply;
        t.called = endpoint;
        s.effective = u32::from(s.priority).max(e.ceiling.into()).max(t.effective.into()) as u8;
        s.state = ThreadState::Running;
        s.context.registers.rdi = badge;
        s.context.registers.rax = Outcome::of_plain_call(tag).0;
        e.receivers.take_only(&mut s.link);
        self.current = server;
        copy_registers(tag, t, s);
        Ok(NonNull::from(&mut s.context))
    }

    /// The answer to a caller that waits, and the wait for the next call: a direct switch back. The tag must be a
    /// reply_recv's.
    #[inline(always)]
    pub fn fast_reply_recv<const LONG: bool>(&mut self, m: &mut impl Machine) -> Result<Context, Rest> {
        let me = self.fast_caller().ok_or(Rest::All)?;
        let t = self.threads.known(me);
        let r = &t.context.registers;
        let tag = r.rax;
        suits::<LONG>(tag)?;
        if r.r14 != FOREVER {
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
        if c.state != ThreadState::AwaitingReply || c.call != reply.badge || !c.quirks.is_empty() {
            return Err(Rest::All);
        }
        if self.ready.rival() >= c.effective.into() {
            return Err(Rest::All);
        }
        let (t, c) = self.threads.known_pair_mut(me, caller).ok_or(Rest::All)?;
        if LONG {
            copy_page(m, tag, t, c)?;
        }
        // From here on nothing fails.
        let own = t.priority;
        t.effective = own;
        t.state = ThreadState::Receiving { endpoint: id_of(cap) };
        self.caps.take_reply(at);
        c.state = ThreadState::Running;
        c.context.registers.rax = Outcome::of_plain_reply_recv(tag).0;
        e.receivers.put_only(me, &mut t.link, own);
        self.current = caller;
        copy_registers(tag, t, c);
        Ok(NonNull::from(&mut c.context))
    }
}
