//! The fast path: a short call to a server that waits, and its answer, as a direct switch.
//!
//! It takes a system call only if nothing but the message itself has to be done: no capability travels, no
//! deadline is set, nobody of at least the same priority waits, nothing is being reaped. Otherwise it has
//! changed nothing, and the general path decides. What it does is exactly what that path would do.

use sila_abi::syscall::{Call, FAULT, FOREVER, Outcome, REGISTER_WORDS, Receive, Slot, Tag};
use sila_abi::{ObjectType, Rights};

use crate::cap::{CHUNK, Cap, CapId};
use crate::kernel::{Kernel, Running, id_of, reference};
use crate::machine::{Next, Registers};
use crate::objects::*;
use crate::queue::Alarm;

/// A message of at most six words.
#[derive(Clone, Copy)]
struct Short {
    words: [u64; REGISTER_WORDS],
    count: u8,
    label: u32,
}

impl Short {
    /// The message in a thread's registers, if it is short and carries no capability.
    #[inline]
    fn of(r: &Registers) -> Option<Short> {
        let tag = Tag(r.rax);
        let count = (r.rax >> 8) as u8;
        if r.rax & 0xffff_0000 != 0 || count as usize > REGISTER_WORDS || tag.label() == FAULT {
            return None;
        }
        let mut words = [r.rsi, r.rdx, r.r10, r.r8, r.r9, r.r12];
        words[count as usize..].fill(0);
        Some(Short { words, count, label: tag.label() })
    }

    #[inline]
    fn deliver(&self, r: &mut Registers, outcome: Outcome, badge: u64) {
        r.rax = outcome.0;
        r.rdi = badge;
        [r.rsi, r.rdx, r.r10, r.r8, r.r9, r.r12] = self.words;
    }
}

impl Kernel {
    /// Carries out a call or reply_recv at once, or changes nothing and says `None`.
    #[inline]
    pub(crate) fn fast_path(&mut self) -> Option<Next> {
        let Running::Thread(id) = self.running else { return None };
        let t = self.threads.get(id)?;
        let call = t.registers.rax as u8;
        let plain = t.registers.r14 == FOREVER && t.building.is_none();
        if !plain || !self.nothing_to_reap() || self.frames.quarantined() > 0 {
            return None;
        }
        if call == Call::Call as u8 {
            self.fast_call(id)
        } else if call == Call::ReplyRecv as u8 {
            self.fast_reply_recv(id)
        } else {
            None
        }
    }

    /// The capability in a slot that the CSpace has already grown to.
    #[inline]
    fn slot_of(&self, p: &Process, slot: u16) -> Option<(CapId, Option<Cap>)> {
        let chunk = *p.chunks.get(slot as usize / CHUNK)?;
        if chunk == NO_CHUNK || slot == 0 {
            return None;
        }
        let id = CapId::in_chunk(chunk, slot as usize % CHUNK);
        Some((id, self.caps.get(id)))
    }

    /// The endpoint that a slot names with this right.
    #[inline]
    fn endpoint_of(&self, p: &Process, slot: u64, right: Rights) -> Option<(EndpointId, u64)> {
        let cap = self.slot_of(p, u16::try_from(slot).ok()?)?.1?;
        let usable = cap.rights.contains(right) && cap.rights.usable();
        (cap.object.kind == ObjectType::Endpoint && usable).then(|| (id_of(&cap), cap.badge))
    }

    /// True if a thread of this priority runs next whatever else waits, and no timer has to be set.
    #[inline]
    fn runs_unrivalled(&self, priority: u8) -> bool {
        self.ready.highest().max(self.verifier.priority()) < Some(priority)
            && self.armed == self.timers.next().unwrap_or(FOREVER)
    }

    fn fast_call(&mut self, id: ThreadId) -> Option<Next> {
        let t = self.threads.get(id)?;
        let message = Short::of(&t.registers)?;
        let (endpoint, badge) =
            self.endpoint_of(self.processes.get(t.process)?, t.registers.rdi, Rights::SEND)?;
        let e = self.endpoints.get(endpoint)?;
        let (server, s) = self.threads.at(e.receivers.first()?)?;
        let reply = Receive::from_word(s.registers.r13).reply;
        let host = s.process;
        let (at, held) = self.slot_of(self.processes.get(host)?, reply.0)?;
        let priority = s.priority.max(e.ceiling).max(t.effective);
        let timed = self.timers.is_set(Alarm::Thread(server.index()));
        if held.is_some() || reply == Slot::NONE || timed || !self.runs_unrivalled(priority) {
            return None;
        }
        // From here on nothing fails.
        let t = self.threads.get_mut(id)?;
        t.call += 1;
        t.state = ThreadState::AwaitingReply;
        let number = t.call;
        if let Some(e) = self.endpoints.get_mut(endpoint) {
            self.links.remove(&mut e.receivers, server.index());
        }
        let object = reference(ObjectType::Reply, id);
        self.caps.insert_alone(at, Cap { object, rights: Rights::SEND | Rights::GRANT, badge: number });
        let p = self.processes.get_mut(host)?;
        p.cap_count += 1;
        let roots = p.roots?;
        let outcome = Outcome::message(message.count, 0, message.label).with_reply();
        let s = self.threads.get_mut(server)?;
        s.effective = priority;
        message.deliver(&mut s.registers, outcome, badge);
        Some(self.switch_directly(server, roots))
    }

    fn fast_reply_recv(&mut self, id: ThreadId) -> Option<Next> {
        let t = self.threads.get(id)?;
        let message = Short::of(&t.registers)?;
        let (process, own) = (t.process, t.priority);
        let p = self.processes.get(process)?;
        let (endpoint, _) = self.endpoint_of(p, t.registers.rdi, Rights::RECV)?;
        let (at, held) = self.slot_of(p, Receive::from_word(t.registers.r13).reply.0)?;
        let reply = held.filter(|c| c.object.kind == ObjectType::Reply)?;
        let caller: ThreadId = id_of(&reply);
        let c = self.threads.get(caller)?;
        let waits = c.state == ThreadState::AwaitingReply && c.call == reply.badge && c.fault.is_none();
        let e = self.endpoints.get(endpoint)?;
        let quiet = e.receiver == Some(process)
            && e.senders.is_empty()
            && t.bound.is_none_or(|n| self.notifications.get(n).is_none_or(|n| n.flags == 0));
        let timed = self.timers.is_set(Alarm::Thread(caller.index()));
        if !waits || !quiet || timed || !self.runs_unrivalled(c.effective) {
            return None;
        }
        let roots = self.processes.get(c.process)?.roots?;
        // From here on nothing fails.
        self.caps.remove(at);
        if let Some(p) = self.processes.get_mut(process) {
            p.cap_count = p.cap_count.saturating_sub(1);
        }
        let t = self.threads.get_mut(id)?;
        t.effective = own;
        t.state = ThreadState::Receiving { endpoint };
        if let Some(e) = self.endpoints.get_mut(endpoint) {
            self.links.insert(&mut e.receivers, id.index(), own);
        }
        let outcome = Outcome::message(message.count, 0, message.label);
        message.deliver(&mut self.threads.get_mut(caller)?.registers, outcome, 0);
        Some(self.switch_directly(caller, roots))
    }

    #[inline]
    fn switch_directly(&mut self, to: ThreadId, roots: crate::paging::Roots) -> Next {
        self.running = Running::Thread(to);
        self.slice_end = 0;
        match self.threads.get_mut(to) {
            Some(t) => {
                t.state = ThreadState::Running;
                Next::Thread {
                    root: roots.kernel,
                    user_root: roots.user,
                    fpu: t.fpu,
                    registers: &raw mut t.registers,
                }
            }
            None => Next::Idle,
        }
    }
}
