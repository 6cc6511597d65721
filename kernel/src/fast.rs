//! The fast path: the commonest system calls in their commonest circumstances.
//!
//! It takes a system call only if nothing but the call itself has to be done: the thread has no quirks, no
//! deadline is set, nothing waits to be attended to, nothing can fail, no CSpace grows, no object ends.
//! Otherwise it has changed nothing and says `None`, and the general path decides, which also finds the error
//! that there may be. What it does is exactly what that path would do; a test makes both do the same.

use core::ptr::NonNull;

use sila_abi::syscall::{Call, FOREVER, MAX_WORDS, Outcome, REGISTER_WORDS, Receive};
use sila_abi::{ObjectType, Op, Rights};

use crate::cap::{CSPACE, Cap, CapId};
use crate::invoke::permitted;
use crate::kernel::{Kernel, id_of, reference};
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

/// Copies the words of a message, if both sides have room for them.
#[inline(always)]
fn copy_message(m: &mut impl Machine, tag: u64, from: &Thread, to: &mut Thread) -> Option<()> {
    if tag & 0xff00 == 0 {
        return Some(());
    }
    let count = (tag >> 8) as u8 as usize;
    let (f, t) = (&from.context.registers, &mut to.context.registers);
    match count {
        0 | 1 => t.rsi = f.rsi,
        2 => (t.rsi, t.rdx) = (f.rsi, f.rdx),
        3 => (t.rsi, t.rdx, t.r10) = (f.rsi, f.rdx, f.r10),
        4 => (t.rsi, t.rdx, t.r10, t.r8) = (f.rsi, f.rdx, f.r10, f.r8),
        5 => (t.rsi, t.rdx, t.r10, t.r8, t.r9) = (f.rsi, f.rdx, f.r10, f.r8, f.r9),
        6 => (t.rsi, t.rdx, t.r10, t.r8, t.r9, t.r12) = (f.rsi, f.rdx, f.r10, f.r8, f.r9, f.r12),
        _ => return copy_long(m, count, from, to),
    }
    Some(())
}

/// Copies the words of a message that is longer than the registers.
#[inline(never)]
fn copy_long(m: &mut impl Machine, count: usize, from: &Thread, to: &mut Thread) -> Option<()> {
    let (Some((source, _)), Some((target, _))) = (from.message, to.message) else { return None };
    if count > MAX_WORDS {
        return None;
    }
    m.copy_words(source, target, REGISTER_WORDS, count);
    let (f, t) = (&from.context.registers, &mut to.context.registers);
    (t.rsi, t.rdx, t.r10, t.r8, t.r9, t.r12) = (f.rsi, f.rdx, f.r10, f.r8, f.r9, f.r12);
    Some(())
}

/// The context to go on with.
type Context = NonNull<crate::machine::Context>;

/// Why the fast path does not say what to go on with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rest {
    /// Nothing was done: the general path is to carry the system call out.
    All,
    /// The system call is done, and there is something to attend to.
    Settle,
}

impl Kernel {
    /// The running thread's slot, if nothing keeps it from the fast path.
    #[inline(always)]
    fn fast_caller(&self) -> Option<u32> {
        let me = self.current;
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
    pub fn fast_call(&mut self, m: &mut impl Machine) -> Option<Context> {
        let me = self.fast_caller()?;
        let t = self.threads.known(me);
        let r = &t.context.registers;
        let tag = r.rax;
        if tag as u32 & MORE != 0 || r.r14 != FOREVER {
            return None;
        }
        let cap = self.caps.peek_typed(place_of(t, r.rdi)?, ObjectType::Endpoint)?;
        if !allows(cap, Rights::SEND) {
            return None;
        }
        let badge = cap.badge;
        let e = self.endpoints.get_mut(id_of(cap))?;
        let (server, ceiling) = (e.receivers.only_slot()?, e.ceiling);
        let object = reference(ObjectType::Reply, self.threads.id_at(me));
        let (t, s) = self.threads.known_pair_mut(me, server)?;
        let at = s.reply_at;
        if !s.quirks.is_empty() || !self.caps.is_empty(at) {
            return None;
        }
        copy_message(m, tag, t, s)?;
        // From here on nothing fails.
        let number = t.call.wrapping_add(1);
        self.caps.put_reply(at, Cap { object, rights: Rights::SEND.union(Rights::GRANT), badge: number });
        t.call = number;
        t.state = ThreadState::AwaitingReply;
        s.effective = s.priority.max(ceiling).max(t.effective);
        s.state = ThreadState::Running;
        s.context.registers.rdi = badge;
        s.context.registers.rax = Outcome::of_plain_tag(tag, Call::Call).with_reply().0;
        e.receivers.take_only(&mut s.link);
        self.current = server;
        Some(NonNull::from(&mut s.context))
    }

    /// The answer to a caller that waits, and the wait for the next call: a direct switch back. The tag must be a
    /// reply_recv's.
    #[inline(always)]
    pub fn fast_reply_recv(&mut self, m: &mut impl Machine) -> Option<Context> {
        let me = self.fast_caller()?;
        let t = self.threads.known(me);
        let r = &t.context.registers;
        let tag = r.rax;
        if tag as u32 & MORE != 0 || r.r14 != FOREVER {
            return None;
        }
        if Receive::from_word(r.r13).reply.0 != t.reply_slot {
            return None;
        }
        let cap = self.caps.peek_typed(place_of(t, r.rdi)?, ObjectType::Endpoint)?;
        if !allows(cap, Rights::RECV) {
            return None;
        }
        let (endpoint, at): (EndpointId, CapId) = (id_of(cap), t.reply_at);
        let reply = self.caps.peek_typed(at, ObjectType::Reply)?;
        let (caller, number): (ThreadId, u64) = (id_of(reply), reply.badge);
        let e = self.endpoints.get_mut(endpoint)?;
        // A receiver is forgotten before its slot in the arena is used again: the slot tells it. Whoever receives
        // with nobody else waiting is the only one who does.
        let mine = e.receiver?.index() == t.process.index();
        if !mine || !e.senders.is_empty() || !e.receivers.is_empty() || t.bound.is_some() {
            return None;
        }
        let c = self.threads.get(caller)?;
        if c.state != ThreadState::AwaitingReply || c.call != number || !c.quirks.is_empty() {
            return None;
        }
        if self.ready.rival() >= c.effective.into() {
            return None;
        }
        let (t, c) = self.threads.known_pair_mut(me, caller.index())?;
        copy_message(m, tag, t, c)?;
        // From here on nothing fails.
        self.caps.take_reply(at);
        let own = t.priority;
        t.effective = own;
        t.state = ThreadState::Receiving { endpoint };
        c.state = ThreadState::Running;
        c.context.registers.rax = Outcome::of_plain_tag(tag, Call::ReplyRecv).0;
        e.receivers.put_only(me, &mut t.link, own);
        self.current = caller.index();
        Some(NonNull::from(&mut c.context))
    }
}
