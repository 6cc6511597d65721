//! Synchronous messages: send, receive, call, reply.
//!
//! A message moves straight from the sender's registers and message page to the receiver's; nothing is
//! stored in between. A transfer first checks everything on both sides and then cannot fail.

use sila_abi::syscall::{MAX_CAPS, NO_WAIT, Outcome, REGISTER_WORDS, Receive, Slot, Tag, unpack_caps};
use sila_abi::trace::Kind;
use sila_abi::{Error, ObjectType, Rights};

use crate::cap::{Cap, CapId};
use crate::invoke::Flow;
use crate::kernel::{Fail, Kernel, id_of};
use crate::machine::{Machine, Registers};
use crate::objects::*;

/// What a receive is on.
pub(crate) enum Source {
    /// Messages.
    Endpoint(EndpointId),
    /// Flags.
    Notification(NotificationId),
    /// Nothing, while a Handover keeps the gate shut.
    Shut,
}

/// Whom a failed transfer is to blame on.
enum Blame {
    /// The sender gets this error; the receiver goes on waiting.
    Sender(Error),
    /// The receiver gets this error; the message stays queued.
    Receiver(Error),
}

/// A checked plan for the capabilities of one message.
#[derive(Default)]
struct CapPlan {
    moves: [Option<(CapId, CapId)>; MAX_CAPS],
    count: u8,
}

/// What a message says besides capabilities: the tag and the words that travel in registers.
#[derive(Clone, Copy)]
pub(crate) struct Outgoing {
    pub tag: Tag,
    pub words: [u64; REGISTER_WORDS],
}

impl Outgoing {
    /// The message in a thread's registers.
    #[inline(always)]
    pub(crate) fn of(r: &Registers) -> Self {
        Outgoing { tag: Tag(r.rax), words: [r.rsi, r.rdx, r.r10, r.r8, r.r9, r.r12] }
    }
}

/// Copies the first `count` words from registers to registers; the others keep what the receiver had there.
#[inline(always)]
pub(crate) fn put_words(r: &mut Registers, words: &[u64; REGISTER_WORDS], count: usize) {
    let [w0, w1, w2, w3, w4, w5] = *words;
    if count == 0 {
        return;
    }
    r.rsi = w0;
    if count == 1 {
        return;
    }
    r.rdx = w1;
    if count == 2 {
        return;
    }
    r.r10 = w2;
    if count == 3 {
        return;
    }
    r.r8 = w3;
    if count == 4 {
        return;
    }
    r.r9 = w4;
    if count > 5 {
        r.r12 = w5;
    }
}

impl Kernel {
    /// The registers of a thread that is known to live.
    #[inline(always)]
    pub(crate) fn registers(&self, id: ThreadId) -> &Registers {
        &self.threads.known(id.index()).context.registers
    }

    fn process_of(&self, id: ThreadId) -> Option<ProcessId> {
        self.threads.get(id).map(|t| t.process)
    }

    /// `send` and `call`.
    pub(crate) fn send(&mut self, m: &mut impl Machine, id: ThreadId, call: bool) -> Result<Flow, Fail> {
        let t = self.threads.get(id).ok_or(Error::ObjectGone)?;
        let (process, has_page, deadline) = (t.process, t.message.is_some(), t.context.registers.r14);
        let tag = Tag(t.context.registers.rax);
        let slot = Slot::from_word(t.context.registers.rdi).ok_or(Error::SlotOutOfRange)?;
        let found = self.find_typed(process, slot, ObjectType::Endpoint, Rights::SEND)?;
        let endpoint: EndpointId = id_of(&found.cap);
        let grant = found.cap.rights.contains(Rights::GRANT);
        if tag.caps() > 0 && !grant {
            return Err(Error::CannotGrant.into());
        }
        if tag.words() > REGISTER_WORDS && !has_page {
            return Err(Error::MessageTooLong.into());
        }
        self.call_as(m, id, endpoint, found.cap.badge, call, grant, deadline)
    }

    /// Delivers a thread's message, or lets the thread wait until it is received.
    #[expect(clippy::too_many_arguments, reason = "one message: who, where, as whom, how")]
    pub(crate) fn call_as(
        &mut self,
        m: &mut impl Machine,
        id: ThreadId,
        endpoint: EndpointId,
        badge: u64,
        call: bool,
        grant: bool,
        deadline: u64,
    ) -> Result<Flow, Fail> {
        if self.offer_to_receivers(m, id, endpoint, badge, call)? {
            return Ok(self.after_delivery(id, call, deadline));
        }
        let e = self.endpoints.get_mut(endpoint).ok_or(Error::ObjectGone)?;
        if e.receiver.is_none() && !e.durable && e.shut.is_none() {
            return Err(Error::PeerDied.into());
        }
        if deadline == NO_WAIT {
            return Err(Error::Timeout.into());
        }
        let priority = self.threads.known(id.index()).effective;
        self.threads.enqueue(&mut e.senders, id.index(), priority);
        self.start_wait(id, ThreadState::Sending { endpoint, badge, call, grant }, deadline);
        Ok(Flow::Blocked)
    }

    /// Hands the message to the first receiver that can take it; false if none waits.
    fn offer_to_receivers(
        &mut self,
        m: &mut impl Machine,
        sender: ThreadId,
        endpoint: EndpointId,
        badge: u64,
        call: bool,
    ) -> Result<bool, Fail> {
        while let Some(first) = self.endpoints.get(endpoint).and_then(|e| e.receivers.first()) {
            let receiver = self.threads.id_at(first);
            match self.transfer(m, sender, receiver, endpoint, badge, call) {
                Ok(()) => {
                    self.leave_wait(receiver);
                    self.raise(receiver, sender, endpoint, call);
                    self.make_ready(receiver);
                    return Ok(true);
                }
                Err(Blame::Sender(e)) => return Err(e.into()),
                Err(Blame::Receiver(e)) => self.wake_error(receiver, e),
            }
        }
        Ok(false)
    }

    /// What becomes of the sender once its message was received.
    fn after_delivery(&mut self, sender: ThreadId, call: bool, deadline: u64) -> Flow {
        if !call {
            return Flow::words(&[]);
        }
        self.start_wait(sender, ThreadState::AwaitingReply, deadline);
        Flow::Blocked
    }

    /// Lets a receiver run at the endpoint's ceiling and its caller's priority until its next receive.
    fn raise(&mut self, receiver: ThreadId, sender: ThreadId, endpoint: EndpointId, call: bool) {
        if !call {
            return;
        }
        let ceiling = self.endpoints.get(endpoint).map_or(0, |e| e.ceiling);
        let callers = self.threads.known(sender.index()).effective;
        let own = self.threads.known(receiver.index()).priority;
        self.set_effective(receiver, own.max(ceiling).max(callers));
    }

    /// What a receive through this slot would be on, if it is permitted.
    pub(crate) fn check_receive(&self, id: ThreadId, slot: Slot) -> Result<Source, Error> {
        let process = self.process_of(id).ok_or(Error::ObjectGone)?;
        let cap = self.find(process, slot)?.cap;
        if cap.object.kind == ObjectType::Notification {
            let found = self.find_typed(process, slot, ObjectType::Notification, Rights::RECV)?;
            return Ok(Source::Notification(id_of(&found.cap)));
        }
        let found = self.find_typed(process, slot, ObjectType::Endpoint, Rights::RECV)?;
        let endpoint = id_of(&found.cap);
        let mine = self.endpoints.get(endpoint).and_then(|e| e.receiver) == Some(process);
        if mine { Ok(Source::Endpoint(endpoint)) } else { self.refused_receiver(endpoint, process) }
    }

    /// `recv`, on an endpoint or a notification.
    pub(crate) fn receive(&mut self, m: &mut impl Machine, id: ThreadId, slot: Slot) -> Result<Flow, Fail> {
        let r = self.registers(id);
        let (deadline, want) = (r.r14, Receive::from_word(r.r13));
        match self.check_receive(id, slot)? {
            Source::Notification(n) => self.wait(id, n, deadline),
            Source::Endpoint(e) => self.receive_from(m, id, e, want, deadline),
            Source::Shut => Err(Error::Quiesced.into()),
        }
    }

    fn receive_from(
        &mut self,
        m: &mut impl Machine,
        id: ThreadId,
        endpoint: EndpointId,
        want: Receive,
        deadline: u64,
    ) -> Result<Flow, Fail> {
        let t = self.threads.known(id.index());
        let (process, own) = (t.process, t.priority);
        self.set_effective(id, own);
        let flags = self.take_bound_flags(id);
        if flags != 0 {
            self.complete(id, Outcome::flags(), 0, &[flags]);
            return Ok(Flow::Completed);
        }
        let reply_at = self.check_reply_slot(process, want.reply)?;
        let t = self.threads.known_mut(id.index());
        (t.reply_slot, t.reply_at) = (want.reply.0, reply_at);
        if self.take_from_senders(m, id, endpoint)? {
            return Ok(Flow::Completed);
        }
        if deadline == NO_WAIT {
            return Err(Error::Timeout.into());
        }
        self.note(Kind::Receive, |_| [endpoint.index().into(), 0, 0]);
        self.start_wait(id, ThreadState::Receiving { endpoint }, deadline);
        if let Some(e) = self.endpoints.get_mut(endpoint) {
            self.threads.enqueue(&mut e.receivers, id.index(), own);
        }
        Ok(Flow::Blocked)
    }

    /// A reply slot, if one is named, must be free. Returns its place.
    fn check_reply_slot(&mut self, process: ProcessId, slot: Slot) -> Result<CapId, Error> {
        if slot == Slot::NONE {
            return Ok(CapId::NOWHERE);
        }
        self.free_slot(process, slot)
            .map_err(|e| if e == Error::SlotOccupied { Error::ReplySlotTaken } else { e })
    }

    /// Takes the first message that can be delivered; senders to blame get their error.
    fn take_from_senders(
        &mut self,
        m: &mut impl Machine,
        receiver: ThreadId,
        endpoint: EndpointId,
    ) -> Result<bool, Fail> {
        while let Some(first) = self.endpoints.get(endpoint).and_then(|e| e.senders.first()) {
            let sender = self.threads.id_at(first);
            let ThreadState::Sending { badge, call, .. } = self.threads.known(first).state else {
                break;
            };
            match self.transfer(m, sender, receiver, endpoint, badge, call) {
                Ok(()) => {
                    self.raise(receiver, sender, endpoint, call);
                    self.sender_delivered(sender, endpoint, call);
                    return Ok(true);
                }
                Err(Blame::Sender(e)) => self.wake_error(sender, e),
                Err(Blame::Receiver(e)) => return Err(e.into()),
            }
        }
        Ok(false)
    }

    fn sender_delivered(&mut self, sender: ThreadId, endpoint: EndpointId, call: bool) {
        if !call {
            self.wake(sender, Outcome::message(0, 0, 0), 0, &[]);
            return;
        }
        // The deadline covers the whole call, so its timer stays.
        if let Some(e) = self.endpoints.get_mut(endpoint) {
            self.threads.dequeue(&mut e.senders, sender.index());
        }
        self.threads.known_mut(sender.index()).state = ThreadState::AwaitingReply;
    }

    /// Moves one message, whole or not at all.
    fn transfer(
        &mut self,
        m: &mut impl Machine,
        sender: ThreadId,
        receiver: ThreadId,
        endpoint: EndpointId,
        badge: u64,
        call: bool,
    ) -> Result<(), Blame> {
        // Who stands in a queue lives, and who calls does.
        let (to, from) =
            (self.threads.known(receiver.index()).process, self.threads.known(sender.index()).process);
        let want = Receive::from_word(self.registers(receiver).r13);
        let reply_at =
            if call { Some(self.reply_place(to, want.reply).map_err(Blame::Receiver)?) } else { None };
        let (out, caps) = self.outgoing(sender);
        let plan = self.plan_caps(from, to, out.tag, caps, want, reply_at).map_err(Blame::Sender)?;
        self.check_length(sender, receiver, out.tag).map_err(Blame::Sender)?;
        self.move_caps(&plan);
        let mut outcome = Outcome::message(out.tag.words() as u8, plan.count, out.tag.label());
        if self.threads.known(sender.index()).fault.is_some() {
            outcome = outcome.with_fault();
        }
        if let Some(at) = reply_at {
            self.make_reply(sender, endpoint, at);
            outcome = outcome.with_reply();
        }
        self.copy_words(m, sender, receiver, &out, outcome, Some(badge));
        self.note_message(sender, to, endpoint, out.tag, call);
        Ok(())
    }

    fn reply_place(&mut self, process: ProcessId, slot: Slot) -> Result<CapId, Error> {
        let at = self.check_reply_slot(process, slot)?;
        if at == CapId::NOWHERE { Err(Error::ReplySlotTaken) } else { Ok(at) }
    }

    fn make_reply(&mut self, caller: ThreadId, endpoint: EndpointId, at: CapId) {
        self.calls = self.calls.wrapping_add(1);
        self.counters.received_generally += 1;
        self.threads.known_mut(caller.index()).call = self.calls;
        self.caps.insert_reply(at, Cap::reply(caller.index(), endpoint.index(), self.calls));
    }

    /// Checks the capabilities of a message against what the receiver made room for.
    fn plan_caps(
        &mut self,
        from: ProcessId,
        to: ProcessId,
        tag: Tag,
        slots: u64,
        want: Receive,
        reply_at: Option<CapId>,
    ) -> Result<CapPlan, Error> {
        if tag.caps() == 0 {
            return Ok(CapPlan::default());
        }
        let before = self.grown;
        let plan = self.plan_some_caps(from, to, tag.caps(), slots, want, reply_at);
        if plan.is_err() {
            self.shrink_to(before);
        }
        plan
    }

    fn plan_some_caps(
        &mut self,
        from: ProcessId,
        to: ProcessId,
        count: usize,
        slots: u64,
        want: Receive,
        reply_at: Option<CapId>,
    ) -> Result<CapPlan, Error> {
        let mut plan = CapPlan::default();
        if count > want.count as usize {
            return Err(Error::TransferFailed);
        }
        for (i, slot) in unpack_caps(slots).into_iter().take(count).enumerate() {
            let source = self.find(from, slot)?;
            self.check_sendable(&source.cap)?;
            let at = want.base.0.checked_add(i as u16).ok_or(Error::TransferFailed)?;
            let free = self.free_slot(to, Slot(at)).map_err(|_| Error::TransferFailed)?;
            let twice = plan.moves.iter().flatten().any(|(s, _)| *s == source.id);
            if Some(free) == reply_at || (twice && source.cap.object.kind == ObjectType::Reply) {
                return Err(Error::TransferFailed);
            }
            if let Some(entry) = plan.moves.get_mut(i) {
                *entry = Some((source.id, free));
                plan.count += 1;
            }
        }
        Ok(plan)
    }

    fn check_sendable(&self, cap: &Cap) -> Result<(), Error> {
        // An endow-only capability with the copy right travels, and stays endow-only: so a requester gives a
        // loader what the loader is to pass on and not to use.
        if !cap.rights.usable() && !cap.rights.contains(Rights::COPY) {
            return Err(Error::EndowOnly);
        }
        if cap.object.kind == ObjectType::Reply || cap.rights.contains(Rights::COPY) {
            return if self.is_alive(cap.object) { Ok(()) } else { Err(Error::ObjectGone) };
        }
        Err(Error::NotCopyable)
    }

    fn move_caps(&mut self, plan: &CapPlan) {
        for (source, at) in plan.moves.iter().take(plan.count.into()).flatten().copied() {
            let Some(cap) = self.caps.get(source) else { continue };
            if cap.object.kind == ObjectType::Reply {
                self.caps.relocate(source, at);
            } else {
                self.derive(source, at, cap);
            }
        }
    }

    fn check_length(&self, sender: ThreadId, receiver: ThreadId, tag: Tag) -> Result<(), Error> {
        let page = |t: ThreadId| self.threads.known(t.index()).message;
        if tag.words() > REGISTER_WORDS && (page(sender).is_none() || page(receiver).is_none()) {
            return Err(Error::MessageTooLong);
        }
        Ok(())
    }

    /// Copies words and sets the receiver's result.
    #[inline]
    fn copy_words(
        &mut self,
        m: &mut impl Machine,
        from: ThreadId,
        to: ThreadId,
        out: &Outgoing,
        outcome: Outcome,
        badge: Option<u64>,
    ) {
        let count = out.tag.words();
        let source = self.threads.known(from.index()).message;
        let t = self.threads.known_mut(to.index());
        t.context.registers.rax = outcome.0;
        if let Some(badge) = badge {
            t.context.registers.rdi = badge;
        }
        put_words(&mut t.context.registers, &out.words, count);
        if count > REGISTER_WORDS
            && let (Some((source, _)), Some((target, _))) = (source, t.message)
        {
            m.copy_words(source, target, REGISTER_WORDS, count.saturating_sub(REGISTER_WORDS));
        }
    }

    /// `reply`: answers the call whose Reply is in the slot. Never blocks.
    pub(crate) fn reply(&mut self, m: &mut impl Machine, id: ThreadId, slot: Slot) -> Result<(), Fail> {
        let process = self.process_of(id).ok_or(Error::ObjectGone)?;
        let found = self.find(process, slot)?;
        if found.cap.object.kind != ObjectType::Reply {
            return Err(Error::WrongType.into());
        }
        let Some(caller) = self.caller_of(&found.cap) else {
            self.caps.remove(found.id);
            return Err(Error::CallerGone.into());
        };
        let to = self.process_of(caller).ok_or(Error::ObjectGone)?;
        let (out, caps) = (Outgoing::of(self.registers(id)), self.registers(id).r15);
        if let Some(fault) = self.threads.known(caller.index()).fault {
            self.note_reply(caller, out.tag);
            self.answer_fault(m, caller, fault, &out.words)?;
            self.caps.remove(found.id);
            return Ok(());
        }
        let want = Receive::from_word(self.registers(caller).r13);
        let plan = self.plan_caps(process, to, out.tag, caps, want, None)?;
        if plan.moves.iter().flatten().any(|(s, _)| *s == found.id) {
            return Err(Error::NotCopyable.into());
        }
        self.check_length(id, caller, out.tag)?;
        self.move_caps(&plan);
        let outcome = Outcome::message(out.tag.words() as u8, plan.count, out.tag.label());
        self.copy_words(m, id, caller, &out, outcome, None);
        self.note_reply(caller, out.tag);
        self.caps.remove(found.id);
        self.leave_wait(caller);
        self.make_ready(caller);
        Ok(())
    }

    #[inline(always)]
    fn note_reply(&mut self, caller: ThreadId, tag: Tag) {
        self.note(Kind::Reply, |k| {
            [k.number_of(k.threads.known(caller.index()).process), caller.index().into(), tag.0]
        });
    }

    /// The thread that waits for the answer to the call of a Reply. A call's number is no other's, whichever thread
    /// stands in the slot now.
    pub(crate) fn caller_of(&self, reply: &Cap) -> Option<ThreadId> {
        let (caller, t) = self.threads.at(reply.object.index)?;
        (t.state == ThreadState::AwaitingReply && t.call == reply.badge).then_some(caller)
    }

    /// The endpoint whose call a Reply answers, unless it has ended. One that was made after the call is another.
    pub(crate) fn called_endpoint(&self, reply: &Cap) -> Option<EndpointId> {
        self.endpoints.at(reply.object.generation).filter(|(_, e)| e.made_at < reply.badge).map(|(id, _)| id)
    }

    /// A Reply was deleted: its caller learns that nobody will answer.
    pub(crate) fn drop_reply(&mut self, reply: &Cap) {
        if let Some(caller) = self.caller_of(reply) {
            self.wake_error(caller, Error::PeerDiedDelivered);
        }
    }

    /// The last capability to an endpoint has gone: fail who waits, end it.
    pub(crate) fn drop_endpoint(&mut self, id: EndpointId) {
        if self.endpoints.get(id).is_some_and(|e| e.caps == 0) {
            self.end_endpoint(id);
        }
    }

    /// Ends an endpoint, whoever holds capabilities to it.
    pub(crate) fn end_endpoint(&mut self, id: EndpointId) {
        self.fail_waiters(id, Error::ObjectGone);
        if let Some(pool) = self.endpoints.get(id).map(|e| e.pool) {
            self.endpoints.end(id);
            self.refund(pool, 0, cost::<Endpoint>());
        }
    }

    pub(crate) fn fail_waiters(&mut self, id: EndpointId, error: Error) {
        while let Some(t) = self.endpoints.get(id).and_then(|e| e.senders.first().or(e.receivers.first())) {
            self.wake_error(self.threads.id_at(t), error);
        }
    }

    /// Ends the wait of some who wait for an endpoint; true if nobody is left.
    pub(crate) fn wake_some(&mut self, id: EndpointId, error: Error, wakes: &mut u32) -> bool {
        while let Some(t) = self.endpoints.get(id).and_then(|e| e.senders.first().or(e.receivers.first())) {
            let Some(left) = wakes.checked_sub(1) else { return false };
            *wakes = left;
            self.wake_error(self.threads.id_at(t), error);
        }
        true
    }

    /// The receiver process of an endpoint has ended: unless it is durable, who waits fails.
    pub(crate) fn receiver_died(&mut self, id: EndpointId, process: ProcessId) {
        let Some(e) = self.endpoints.get_mut(id).filter(|e| e.receiver == Some(process)) else { return };
        e.receiver = None;
        if !e.durable {
            self.fail_waiters(id, Error::PeerDied);
        }
    }

    /// Makes an endpoint, charged; it has no capability yet.
    pub(crate) fn new_endpoint(
        &mut self,
        pool: PoolId,
        receiver: Option<ProcessId>,
        label: Option<Label>,
        durable: bool,
        ceiling: u8,
    ) -> Result<EndpointId, Error> {
        self.room(self.endpoints.has_room())?;
        self.charge(pool, 0, cost::<Endpoint>())?;
        let e = Endpoint {
            pool,
            caps: 0,
            receiver,
            label,
            durable,
            ceiling,
            covered: None,
            shut: None,
            made_at: self.calls,
            senders: Default::default(),
            receivers: Default::default(),
        };
        self.endpoints.insert(e).map_err(|_| Error::ArenaFull)
    }

    /// True if a process's manifest lets it receive for this label.
    pub(crate) fn may_receive(&self, process: ProcessId, label: Option<Label>) -> bool {
        let Some(label) = label else { return true };
        self.processes.get(process).is_some_and(|p| {
            p.identity.publisher == label.publisher
                && p.identity.service.is_some_and(|s| s.name == label.name)
        })
    }
}
