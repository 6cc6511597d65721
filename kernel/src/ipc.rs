//! Synchronous messages: send, receive, call, reply.
//!
//! A message moves straight from the sender's registers and message page to the receiver's; nothing is
//! stored in between. A transfer first checks everything on both sides and then cannot fail.

use sila_abi::syscall::{FAULT, MAX_CAPS, NO_WAIT, Outcome, REGISTER_WORDS, Receive, Slot, Tag, unpack_caps};
use sila_abi::{Error, ObjectType, Rights};

use crate::cap::{Cap, CapId};
use crate::invoke::Flow;
use crate::kernel::{Fail, Kernel, id_of, reference};
use crate::machine::{Machine, Registers};
use crate::objects::*;

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

fn words_of(r: &Registers) -> [u64; REGISTER_WORDS] {
    [r.rsi, r.rdx, r.r10, r.r8, r.r9, r.r12]
}

impl Kernel {
    fn registers(&self, id: ThreadId) -> Registers {
        self.threads.get(id).map_or_else(Registers::default, |t| t.registers)
    }

    fn process_of(&self, id: ThreadId) -> Option<ProcessId> {
        self.threads.get(id).map(|t| t.process)
    }

    /// `send` and `call`.
    pub(crate) fn send(&mut self, m: &mut impl Machine, id: ThreadId, call: bool) -> Result<Flow, Fail> {
        let regs = self.registers(id);
        let process = self.process_of(id).ok_or(Error::ObjectGone)?;
        let tag = Tag(regs.rax);
        if tag.label() == FAULT {
            return Err(Error::InvalidArgument.into());
        }
        let slot = Slot::from_word(regs.rdi).ok_or(Error::SlotOutOfRange)?;
        let found = self.find_typed(process, slot, ObjectType::Endpoint, Rights::SEND)?;
        let endpoint: EndpointId = id_of(&found.cap);
        let grant = found.cap.rights.contains(Rights::GRANT);
        if tag.caps() > 0 && !grant {
            return Err(Error::CannotGrant.into());
        }
        if tag.words() > REGISTER_WORDS && self.threads.get(id).is_none_or(|t| t.message.is_none()) {
            return Err(Error::MessageTooLong.into());
        }
        self.call_as(m, id, endpoint, found.cap.badge, call, grant, regs.r14)
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
        if e.receiver.is_none() && !e.durable {
            return Err(Error::PeerDied.into());
        }
        if deadline == NO_WAIT {
            return Err(Error::Timeout.into());
        }
        let priority = self.threads.get(id).map_or(0, |t| t.effective);
        self.links.insert(&mut e.senders, id.index(), priority);
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
        while let Some(receiver) =
            self.endpoints.get(endpoint).and_then(|e| e.receivers.first()).and_then(|i| self.thread_at(i))
        {
            match self.transfer(m, sender, receiver, badge, call) {
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
        let callers = self.threads.get(sender).map_or(0, |t| t.effective);
        let own = self.threads.get(receiver).map_or(0, |t| t.priority);
        self.set_effective(receiver, own.max(ceiling).max(callers));
    }

    /// True if a receive through this slot would be permitted.
    pub(crate) fn check_receive(&self, id: ThreadId, slot: Slot) -> Result<(), Error> {
        let process = self.process_of(id).ok_or(Error::ObjectGone)?;
        let kind = self.find(process, slot)?.cap.object.kind;
        let kind = if kind == ObjectType::Notification { kind } else { ObjectType::Endpoint };
        let found = self.find_typed(process, slot, kind, Rights::RECV)?;
        let mine = kind == ObjectType::Notification
            || self.endpoints.get(id_of(&found.cap)).and_then(|e| e.receiver) == Some(process);
        if mine { Ok(()) } else { Err(Error::NotReceiver) }
    }

    /// `recv`, on an endpoint or a notification.
    pub(crate) fn receive(&mut self, m: &mut impl Machine, id: ThreadId, slot: Slot) -> Result<Flow, Fail> {
        let regs = self.registers(id);
        let process = self.process_of(id).ok_or(Error::ObjectGone)?;
        let found = self.find(process, slot)?;
        let kind = found.cap.object.kind;
        if kind == ObjectType::Notification {
            let n = self.find_typed(process, slot, kind, Rights::RECV)?;
            return self.wait(id, id_of(&n.cap), regs.r14);
        }
        let found = self.find_typed(process, slot, ObjectType::Endpoint, Rights::RECV)?;
        let endpoint: EndpointId = id_of(&found.cap);
        if self.endpoints.get(endpoint).and_then(|e| e.receiver) != Some(process) {
            return Err(Error::NotReceiver.into());
        }
        let own = self.threads.get(id).map_or(0, |t| t.priority);
        self.set_effective(id, own);
        let flags = self.take_bound_flags(id);
        if flags != 0 {
            self.complete(id, Outcome::flags(), 0, [flags, 0, 0, 0, 0, 0]);
            return Ok(Flow::Completed);
        }
        self.check_reply_slot(process, Receive::from_word(regs.r13).reply)?;
        if self.take_from_senders(m, id, endpoint)? {
            return Ok(Flow::Completed);
        }
        if regs.r14 == NO_WAIT {
            return Err(Error::Timeout.into());
        }
        self.start_wait(id, ThreadState::Receiving { endpoint }, regs.r14);
        if let Some(e) = self.endpoints.get_mut(endpoint) {
            self.links.insert(&mut e.receivers, id.index(), own);
        }
        Ok(Flow::Blocked)
    }

    /// A reply slot, if one is named, must be free.
    fn check_reply_slot(&mut self, process: ProcessId, slot: Slot) -> Result<(), Error> {
        if slot == Slot::NONE {
            return Ok(());
        }
        match self.free_slot(process, slot) {
            Ok(_) => Ok(()),
            Err(Error::SlotOccupied) => Err(Error::ReplySlotTaken),
            Err(e) => Err(e),
        }
    }

    /// Takes the first message that can be delivered; senders to blame get their error.
    fn take_from_senders(
        &mut self,
        m: &mut impl Machine,
        receiver: ThreadId,
        endpoint: EndpointId,
    ) -> Result<bool, Fail> {
        while let Some(sender) =
            self.endpoints.get(endpoint).and_then(|e| e.senders.first()).and_then(|i| self.thread_at(i))
        {
            let Some(ThreadState::Sending { badge, call, .. }) = self.threads.get(sender).map(|t| t.state)
            else {
                break;
            };
            match self.transfer(m, sender, receiver, badge, call) {
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
            self.wake(sender, Outcome::message(0, 0, 0), 0, [0; 6]);
            return;
        }
        // The deadline covers the whole call, so its timer stays.
        if let Some(e) = self.endpoints.get_mut(endpoint) {
            self.links.remove(&mut e.senders, sender.index());
        }
        if let Some(t) = self.threads.get_mut(sender) {
            t.state = ThreadState::AwaitingReply;
        }
    }

    /// Moves one message, whole or not at all.
    fn transfer(
        &mut self,
        m: &mut impl Machine,
        sender: ThreadId,
        receiver: ThreadId,
        badge: u64,
        call: bool,
    ) -> Result<(), Blame> {
        let gone = Blame::Sender(Error::ObjectGone);
        let Some((to, from)) = self.process_of(receiver).zip(self.process_of(sender)) else {
            return Err(gone);
        };
        let want = Receive::from_word(self.registers(receiver).r13);
        let reply_at =
            if call { Some(self.reply_slot(to, want.reply).map_err(Blame::Receiver)?) } else { None };
        let regs = self.outgoing(sender);
        let plan = self.plan_caps(from, to, &regs, want, reply_at).map_err(Blame::Sender)?;
        self.check_length(sender, receiver, Tag(regs.rax)).map_err(Blame::Sender)?;
        self.move_caps(from, to, &plan);
        self.copy_words(m, sender, receiver, plan.count, badge);
        if let Some(at) = reply_at {
            self.make_reply(sender, to, at);
            if let Some(t) = self.threads.get_mut(receiver) {
                t.registers.rax = Outcome(t.registers.rax).with_reply().0;
            }
        }
        Ok(())
    }

    fn reply_slot(&mut self, process: ProcessId, slot: Slot) -> Result<CapId, Error> {
        if slot == Slot::NONE {
            return Err(Error::ReplySlotTaken);
        }
        self.free_slot(process, slot)
            .map_err(|e| if e == Error::SlotOccupied { Error::ReplySlotTaken } else { e })
    }

    fn make_reply(&mut self, caller: ThreadId, holder: ProcessId, at: CapId) {
        let Some(t) = self.threads.get_mut(caller) else { return };
        t.call += 1;
        let badge = t.call;
        let object = reference(ObjectType::Reply, caller);
        let reply = Cap { object, rights: Rights::SEND | Rights::GRANT, badge };
        if self.caps.insert_alone(at, reply) {
            self.count_cap(holder, object, 1);
        }
    }

    /// Checks the capabilities of a message against what the receiver made room for.
    fn plan_caps(
        &mut self,
        from: ProcessId,
        to: ProcessId,
        regs: &Registers,
        want: Receive,
        reply_at: Option<CapId>,
    ) -> Result<CapPlan, Error> {
        let count = Tag(regs.rax).caps();
        let mut plan = CapPlan::default();
        if count > want.count as usize {
            return Err(Error::TransferFailed);
        }
        for (i, slot) in unpack_caps(regs.r15).into_iter().take(count).enumerate() {
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

    fn move_caps(&mut self, from: ProcessId, to: ProcessId, plan: &CapPlan) {
        for (source, at) in plan.moves.iter().flatten().copied() {
            let Some(cap) = self.caps.get(source) else { continue };
            if cap.object.kind != ObjectType::Reply {
                self.derive(to, source, at, cap);
            } else if self.caps.relocate(source, at) {
                self.count_cap(from, cap.object, -1);
                self.count_cap(to, cap.object, 1);
            }
        }
    }

    fn check_length(&self, sender: ThreadId, receiver: ThreadId, tag: Tag) -> Result<(), Error> {
        let page = |t| self.threads.get(t).and_then(|t: &Thread| t.message);
        if tag.words() > REGISTER_WORDS && (page(sender).is_none() || page(receiver).is_none()) {
            return Err(Error::MessageTooLong);
        }
        Ok(())
    }

    /// Copies words and sets the receiver's result.
    fn copy_words(&mut self, m: &mut impl Machine, from: ThreadId, to: ThreadId, caps: u8, badge: u64) {
        let regs = self.outgoing(from);
        let tag = Tag(regs.rax);
        let mut words = words_of(&regs);
        for w in words.iter_mut().skip(tag.words()) {
            *w = 0;
        }
        self.complete(to, Outcome::message(tag.words() as u8, caps, tag.label()), badge, words);
        let page = |t| self.threads.get(t).and_then(|t: &Thread| t.message);
        if tag.words() > REGISTER_WORDS
            && let (Some((source, _)), Some((target, _))) = (page(from), page(to))
        {
            let range = REGISTER_WORDS..tag.words();
            let mut buffer = [0u64; sila_abi::syscall::MAX_WORDS];
            buffer[range.clone()].copy_from_slice(&m.frame(source)[range.clone()]);
            m.frame(target)[range.clone()].copy_from_slice(&buffer[range]);
        }
    }

    /// `reply`: answers the call whose Reply is in the slot. Never blocks.
    pub(crate) fn reply(&mut self, m: &mut impl Machine, id: ThreadId, slot: Slot) -> Result<(), Fail> {
        let process = self.process_of(id).ok_or(Error::ObjectGone)?;
        let found = self.find(process, slot)?;
        if found.cap.object.kind != ObjectType::Reply {
            return Err(Error::WrongType.into());
        }
        let caller: ThreadId = id_of(&found.cap);
        if !self.awaits(caller, found.cap.badge) {
            self.caps.remove(found.id);
            self.count_cap(process, found.cap.object, -1);
            return Err(Error::CallerGone.into());
        }
        let to = self.process_of(caller).ok_or(Error::ObjectGone)?;
        let regs = self.registers(id);
        if let Some(fault) = self.threads.get(caller).and_then(|t| t.fault) {
            self.answer_fault(m, caller, fault, &regs)?;
            self.caps.remove(found.id);
            self.count_cap(process, found.cap.object, -1);
            return Ok(());
        }
        let want = Receive::from_word(self.registers(caller).r13);
        let plan = self.plan_caps(process, to, &regs, want, None)?;
        if plan.moves.iter().flatten().any(|(s, _)| *s == found.id) {
            return Err(Error::NotCopyable.into());
        }
        self.check_length(id, caller, Tag(regs.rax))?;
        self.move_caps(process, to, &plan);
        self.copy_words(m, id, caller, plan.count, 0);
        self.caps.remove(found.id);
        self.count_cap(process, found.cap.object, -1);
        self.leave_wait(caller);
        self.make_ready(caller);
        Ok(())
    }

    fn awaits(&self, caller: ThreadId, number: u64) -> bool {
        self.threads.get(caller).is_some_and(|t| t.state == ThreadState::AwaitingReply && t.call == number)
    }

    /// A Reply was deleted: its caller learns that nobody will answer.
    pub(crate) fn drop_reply(&mut self, caller: ThreadId, number: u64) {
        if self.awaits(caller, number) {
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
        if let Some(e) = self.endpoints.remove(id) {
            self.refund(e.pool, 0, cost::<Endpoint>());
        }
    }

    fn fail_waiters(&mut self, id: EndpointId, error: Error) {
        while let Some(t) = self
            .endpoints
            .get(id)
            .and_then(|e| e.senders.first().or(e.receivers.first()))
            .and_then(|i| self.thread_at(i))
        {
            self.wake_error(t, error);
        }
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
        if !self.endpoints.has_room() {
            return Err(Error::ArenaFull);
        }
        self.charge(pool, 0, cost::<Endpoint>())?;
        let e = Endpoint {
            pool,
            caps: 0,
            receiver,
            label,
            durable,
            ceiling,
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
