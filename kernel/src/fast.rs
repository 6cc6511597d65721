//! The fast path: the commonest system calls in their commonest circumstances.
//!
//! It takes a system call only if nothing but the call itself has to be done: the thread has no quirks, no
//! deadline is set, nothing waits to be attended to, nothing can fail, no CSpace grows, no object ends.
//! Otherwise it has changed nothing and says `None`, and the general path decides, which also finds the error
//! that there may be. What it does is exactly what that path would do; a test makes both do the same.

use sila_abi::syscall::{Call, FAULT, FOREVER, MAX_WORDS, Outcome, REGISTER_WORDS, Receive};
use sila_abi::{ObjectType, Op, Rights};

use crate::cap::{CHUNK, Cap, CapId};
use crate::invoke::permitted;
use crate::ipc::{Outgoing, put_words};
use crate::kernel::{Kernel, Running, id_of, reference};
use crate::machine::{Machine, Next, Registers};
use crate::objects::*;

const INVOKE: u32 = Call::Invoke as u32;
const CALL: u32 = Call::Call as u32;
const RECV: u64 = Call::Recv as u64;
const REPLY_RECV: u32 = Call::ReplyRecv as u32;
const CAP_STATUS: u32 = Op::CapStatus as u32;
const CAP_COPY: u32 = Op::CapCopy as u32;
const CAP_MINT: u32 = Op::CapMint as u32;
const CAP_DELETE: u32 = Op::CapDelete as u32;
const SIGNAL: u32 = Op::Signal as u32;
const UNMAP: u32 = Op::MappingUnmap as u32;
const CLOCK_NOW: u32 = Op::ClockNow as u32;

/// The length of a message without capabilities, if the tag is well formed and of this system call.
#[inline(always)]
fn length(r: &Registers, call: u32) -> Option<usize> {
    let count = (r.rax >> 8) as u8 as usize;
    let plain = r.rax as u32 & !0xff00 == call && (r.rax >> 32) as u32 != FAULT;
    (plain && count <= MAX_WORDS).then_some(count)
}

/// True if a capability names an object of this type and has this right, to be used by its holder.
#[inline(always)]
fn allows(cap: &Cap, kind: ObjectType, right: Rights) -> bool {
    cap.object.kind == kind && cap.rights.bits() & (right | Rights::ENDOW).bits() == right.bits()
}

/// True if a message of this length can pass between two threads.
#[inline(always)]
fn fits(from: &Thread, to: &Thread, count: usize) -> bool {
    count <= REGISTER_WORDS || (from.message.is_some() && to.message.is_some())
}

impl Kernel {
    /// Carries out a system call at once, or changes nothing and says `None`.
    #[inline(always)]
    pub(crate) fn fast_path(&mut self, m: &mut impl Machine, id: ThreadId) -> Option<Next> {
        let t = self.threads.known(id.index());
        if !t.quirks.is_empty() || !self.attention.is_empty() {
            return None;
        }
        match u32::from(t.context.registers.rax as u8) {
            INVOKE => self.fast_invoke(m, id)?,
            CALL => return self.fast_call(m, id),
            REPLY_RECV => return self.fast_reply_recv(m, id),
            _ => self.fast_wait(id)?,
        }
        if self.attention.is_empty() { Some(self.resume_thread(id)) } else { Some(self.settle(m)) }
    }

    /// The place of a slot that the thread names by this word.
    #[inline(always)]
    fn place_of(&self, t: &Thread, slot: u64) -> Option<CapId> {
        if slot < CHUNK as u64 {
            return Some(CapId::in_chunk(t.chunk, slot as usize));
        }
        let p = self.processes.known(t.process.index());
        Some(CapId::in_chunk(*p.chunks.get(slot as usize / CHUNK)?, slot as usize))
    }

    /// A free slot that the thread names by this word.
    #[inline(always)]
    fn free_place_of(&self, t: &Thread, slot: u64) -> Option<CapId> {
        let at = self.place_of(t, slot)?;
        (slot != 0 && self.caps.is_free(at)).then_some(at)
    }

    #[inline(always)]
    fn registers_mut(&mut self, id: ThreadId) -> &mut Registers {
        &mut self.threads.known_mut(id.index()).context.registers
    }

    #[inline(always)]
    fn succeed(&mut self, id: ThreadId) {
        self.registers_mut(id).rax = Outcome::message(0, 0, 0).0;
    }

    #[inline(always)]
    fn fast_invoke(&mut self, m: &mut impl Machine, id: ThreadId) -> Option<()> {
        let t = self.threads.known(id.index());
        let r = &t.context.registers;
        // No capability, at most seven words.
        if r.rax as u32 & !0x700 != INVOKE {
            return None;
        }
        let at = self.place_of(t, r.rdi)?;
        let cap = self.caps.peek(at)?;
        match (r.rax >> 32) as u32 {
            CAP_STATUS => {
                let cap = *cap;
                let badge = if cap.object.kind == ObjectType::Reply { 0 } else { cap.badge };
                let r = self.registers_mut(id);
                r.rax = Outcome::message(3, 0, 0).0;
                (r.rsi, r.rdx, r.r10) = (cap.object.kind as u64, cap.rights.bits().into(), badge);
            }
            CAP_COPY => {
                let badge = cap.badge;
                self.fast_derive(id, at, badge)?;
            }
            CAP_MINT => {
                let badge = r.r10;
                if cap.badge != 0 {
                    return None;
                }
                self.fast_derive(id, at, badge)?;
            }
            CAP_DELETE => {
                let object = cap.object;
                // What happens when the last capability goes, the general path knows.
                let count =
                    self.cap_counter(object).filter(|c| **c > 1 && object.kind != ObjectType::Process)?;
                *count -= 1;
                self.caps.remove(at);
                self.succeed(id);
            }
            SIGNAL if allows(cap, ObjectType::Notification, Rights::SEND) => {
                let (n, flags) = (id_of(cap), permitted(cap, r.rsi));
                self.notifications.get(n)?;
                self.succeed(id);
                self.signal(n, flags);
            }
            UNMAP if allows(cap, ObjectType::Mapping, Rights::MANAGE) => {
                let mapping = id_of(cap);
                self.mappings.get(mapping)?;
                self.succeed(id);
                self.unmap(m, mapping);
            }
            CLOCK_NOW if allows(cap, ObjectType::Clock, Rights::READ) => {
                let now = m.now();
                let r = self.registers_mut(id);
                (r.rax, r.rsi) = (Outcome::message(1, 0, 0).0, now);
            }
            _ => return None,
        }
        Some(())
    }

    /// Makes a child of a capability in the slot that word 0 names, with the rights of word 1.
    #[inline(always)]
    fn fast_derive(&mut self, id: ThreadId, from: CapId, badge: u64) -> Option<()> {
        let t = self.threads.known(id.index());
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
        self.succeed(id);
        Some(())
    }

    /// A wait for a notification without a deadline.
    #[inline(always)]
    fn fast_wait(&mut self, id: ThreadId) -> Option<()> {
        let t = self.threads.known(id.index());
        let r = &t.context.registers;
        if r.rax != RECV || r.r14 != FOREVER {
            return None;
        }
        let cap = self.caps.peek(self.place_of(t, r.rdi)?)?;
        if !allows(cap, ObjectType::Notification, Rights::RECV) {
            return None;
        }
        let (n, priority) = (id_of(cap), t.effective);
        let notification = self.notifications.get_mut(n)?;
        let flags = core::mem::take(&mut notification.flags);
        if flags != 0 {
            let r = self.registers_mut(id);
            (r.rax, r.rdi, r.rsi) = (Outcome::flags().0, 0, flags);
            return Some(());
        }
        self.threads.enqueue(&mut notification.waiters, id.index(), priority);
        self.start_wait(id, ThreadState::Waiting { notification: n }, FOREVER);
        Some(())
    }

    /// A call to a server that waits: a direct switch. The server runs at no less than the caller's priority,
    /// so that nobody else has a better claim; it goes on with the caller's slice.
    #[inline(always)]
    fn fast_call(&mut self, m: &mut impl Machine, id: ThreadId) -> Option<Next> {
        let t = self.threads.known(id.index());
        let r = &t.context.registers;
        let count = length(r, CALL)?;
        let cap = self.caps.peek(self.place_of(t, r.rdi)?)?;
        if !allows(cap, ObjectType::Endpoint, Rights::SEND) || r.r14 != FOREVER {
            return None;
        }
        let badge = cap.badge;
        let e = self.endpoints.get_mut(id_of(cap))?;
        let server = e.receivers.first()?;
        let s = self.threads.known(server);
        let at = s.reply_at;
        if !s.quirks.is_empty() || !self.caps.is_free(at) || !fits(t, s, count) {
            return None;
        }
        // From here on nothing fails.
        let priority = s.priority.max(e.ceiling).max(t.effective);
        self.threads.dequeue(&mut e.receivers, server);
        let t = self.threads.known_mut(id.index());
        t.call = t.call.wrapping_add(1);
        t.state = ThreadState::AwaitingReply;
        let label = t.context.registers.rax & 0xffff_ffff_0000_0000;
        let reply = Cap {
            object: reference(ObjectType::Reply, id),
            rights: Rights::SEND.union(Rights::GRANT),
            badge: t.call,
        };
        self.caps.put_alone(at, reply);
        self.copy_message(m, id.index(), server, count);
        let s = self.threads.known_mut(server);
        s.effective = priority;
        s.context.registers.rax = Outcome::message(count as u8, 0, 0).with_reply().0 | label;
        s.context.registers.rdi = badge;
        Some(self.switch_directly(server))
    }

    /// The answer to a caller that waits, and the wait for the next call: a direct switch back.
    #[inline(always)]
    fn fast_reply_recv(&mut self, m: &mut impl Machine, id: ThreadId) -> Option<Next> {
        let t = self.threads.known(id.index());
        let r = &t.context.registers;
        let count = length(r, REPLY_RECV)?;
        let cap = self.caps.peek(self.place_of(t, r.rdi)?)?;
        let at = t.reply_at;
        let reply = self.caps.peek(at)?;
        let known = Receive::from_word(r.r13).reply.0 == t.reply_slot && r.r14 == FOREVER;
        if !allows(cap, ObjectType::Endpoint, Rights::RECV)
            || !known
            || reply.object.kind != ObjectType::Reply
        {
            return None;
        }
        let endpoint: EndpointId = id_of(cap);
        let (caller, number): (ThreadId, u64) = (id_of(reply), reply.badge);
        let c = self.threads.get(caller)?;
        let waits = c.state == ThreadState::AwaitingReply && c.call == number && c.quirks.is_empty();
        let (process, own) = (t.process, t.priority);
        let e = self.endpoints.get_mut(endpoint)?;
        let quiet = e.receiver == Some(process) && e.senders.is_empty() && t.bound.is_none();
        let unrivalled = self.ready.top() < c.effective.into() && self.verifier.priority().is_none();
        if !waits || !quiet || !unrivalled || !fits(t, c, count) {
            return None;
        }
        // From here on nothing fails.
        self.threads.enqueue(&mut e.receivers, id.index(), own);
        self.caps.take_alone(at);
        let t = self.threads.known_mut(id.index());
        t.effective = own;
        t.state = ThreadState::Receiving { endpoint };
        let label = t.context.registers.rax & 0xffff_ffff_0000_0000;
        self.copy_message(m, id.index(), caller.index(), count);
        let c = self.registers_mut(caller);
        c.rax = Outcome::message(count as u8, 0, 0).0 | label;
        c.rdi = 0;
        Some(self.switch_directly(caller.index()))
    }

    #[inline(always)]
    fn copy_message(&mut self, m: &mut impl Machine, from: u32, to: u32, count: usize) {
        if count == 0 {
            return;
        }
        let t = self.threads.known(from);
        let (words, source) = (Outgoing::of(&t.context.registers).words, t.message);
        let t = self.threads.known_mut(to);
        put_words(&mut t.context.registers, &words, count);
        if count > REGISTER_WORDS
            && let (Some((source, _)), Some((target, _))) = (source, t.message)
        {
            m.copy_words(source, target, REGISTER_WORDS, count);
        }
    }

    #[inline(always)]
    fn switch_directly(&mut self, to: u32) -> Next {
        let id = self.threads.id_at(to);
        self.running = Running::Thread(id);
        let t = self.threads.known_mut(to);
        t.state = ThreadState::Running;
        Next::Thread(&raw mut t.context)
    }
}
