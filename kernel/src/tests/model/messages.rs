//! Messages in the reference model: who waits for whom, and which capabilities travel.

use std::vec::Vec;

use sila_abi::{Error, ObjectType, Rights};

use super::reference::{Course, Ended, Held, Model, Name, Nature, Received, Wait, Wants, What};

/// A message: its capabilities by slot, whether it is a call, whether it may wait and for ever.
#[derive(Clone, Debug)]
pub struct Letter {
    pub caps: Vec<u64>,
    pub call: bool,
    pub waits: bool,
    pub patience: bool,
    pub wants: Wants,
}

/// Whom a message that does not pass is to blame on.
enum Blame {
    Sender(Error),
    Receiver(Error),
}

impl Received {
    const fn from(badge: u64, caps: usize, call: Option<Name>) -> Self {
        Received { badge: Some(badge), caps, has_reply: call.is_some() }
    }
}

impl Model {
    /// Takes a process out of the queue that it waits in.
    pub fn stop_waiting(&mut self, process: Name) {
        let wait = self.people.get_mut(&process).and_then(|p| p.wait.take());
        let (Some(Wait::Send { endpoint, .. }) | Some(Wait::Receive { endpoint })) = wait else { return };
        if let Some(Nature::Endpoint { senders, receivers, .. }) = self.endpoint(endpoint) {
            senders.retain(|p| *p != process);
            receivers.retain(|p| *p != process);
        }
    }

    fn endpoint(&mut self, name: Name) -> Option<&mut Nature> {
        self.objects.get_mut(&name).map(|o| &mut o.nature)
    }

    fn wake(&mut self, process: Name, ended: Ended) {
        self.stop_waiting(process);
        self.woken.push((process, ended));
    }

    fn wake_with(&mut self, process: Name, error: Error) {
        self.wake(process, Ended::with(Err(error)));
    }

    fn queues(&self, endpoint: Name) -> (Vec<Name>, Vec<Name>) {
        match self.objects.get(&endpoint).map(|o| &o.nature) {
            Some(Nature::Endpoint { senders, receivers, .. }) => (senders.clone(), receivers.clone()),
            _ => Default::default(),
        }
    }

    fn fail_waiters(&mut self, endpoint: Name, error: Error) {
        let (senders, receivers) = self.queues(endpoint);
        senders.into_iter().chain(receivers).for_each(|process| self.wake_with(process, error));
    }

    pub fn end_endpoint(&mut self, endpoint: Name) {
        self.fail_waiters(endpoint, Error::ObjectGone);
        self.end_object(endpoint);
    }

    pub fn receiver_ended(&mut self, endpoint: Name, process: Name) {
        let mut spare = true;
        if let Some(Nature::Endpoint { receiver, durable, .. }) = self.endpoint(endpoint)
            && *receiver == Some(process)
        {
            *receiver = None;
            spare = *durable;
        }
        if !spare {
            self.fail_waiters(endpoint, Error::PeerDied);
        }
    }

    /// The right to answer a call is gone.
    pub fn answer_lost(&mut self, call: Name) {
        if let Some(caller) = self.caller_of(call) {
            self.wake_with(caller, Error::PeerDiedDelivered);
        }
    }

    pub fn caller_of(&self, call: Name) -> Option<Name> {
        let waits = |wait: &Option<Wait>| *wait == Some(Wait::Answer { call });
        self.people.iter().find(|(_, p)| waits(&p.wait)).map(|(name, _)| *name)
    }

    /// Every wait that ends by itself does.
    pub fn time_passes(&mut self) {
        let late: Vec<Name> =
            self.people.iter().filter(|(_, p)| p.wait.is_some() && !p.patience).map(|(n, _)| *n).collect();
        late.into_iter().for_each(|process| self.wake_with(process, Error::Timeout));
    }

    /// `send` and `call`.
    pub fn send(&mut self, from: Name, slot: u64, letter: &Letter) -> Result<Course, Error> {
        let (_, cap) = self.usable(from, slot, ObjectType::Endpoint, Rights::SEND)?;
        let What::Object(endpoint) = cap.what else { return Err(Error::WrongType) };
        if !letter.caps.is_empty() && !cap.rights.contains(Rights::GRANT) {
            return Err(Error::CannotGrant);
        }
        self.set_wants(from, letter);
        for receiver in self.queues(endpoint).1 {
            match self.pass(from, receiver, &letter.caps, letter.call) {
                Ok((count, call)) => {
                    let message = Some(Received::from(cap.badge, count, call));
                    self.wake(receiver, Ended { result: Ok(()), message });
                    return Ok(self.sent(from, call));
                }
                Err(Blame::Sender(error)) => return Err(error),
                Err(Blame::Receiver(error)) => self.wake_with(receiver, error),
            }
        }
        let hopeless =
            matches!(self.endpoint(endpoint), Some(Nature::Endpoint { receiver: None, durable: false, .. }));
        if hopeless {
            return Err(Error::PeerDied);
        }
        if !letter.waits {
            return Err(Error::Timeout);
        }
        if let Some(Nature::Endpoint { senders, .. }) = self.endpoint(endpoint) {
            senders.push(from);
        }
        let wait = Wait::Send { endpoint, badge: cap.badge, call: letter.call, caps: letter.caps.clone() };
        self.begin_wait(from, wait);
        Ok(None)
    }

    fn set_wants(&mut self, process: Name, letter: &Letter) {
        if let Some(person) = self.people.get_mut(&process) {
            (person.wants, person.patience) = (letter.wants, letter.patience);
        }
    }

    fn begin_wait(&mut self, process: Name, wait: Wait) {
        if let Some(person) = self.people.get_mut(&process) {
            person.wait = Some(wait);
        }
    }

    /// What a sender does once its message was received.
    fn sent(&mut self, from: Name, call: Option<Name>) -> Course {
        let Some(call) = call else { return Some(Ended::with(Ok(()))) };
        self.begin_wait(from, Wait::Answer { call });
        None
    }

    /// Passes a message's capabilities, all or none, and makes the Reply of a call. Says how many went, and the call.
    fn pass(
        &mut self,
        from: Name,
        to: Name,
        caps: &[u64],
        call: bool,
    ) -> Result<(usize, Option<Name>), Blame> {
        let wants = self.people[&to].wants;
        let reply_at = if call { Some(self.reply_place(to, wants).map_err(Blame::Receiver)?) } else { None };
        let before = self.grown.clone();
        let plan = self.plan(from, to, caps, wants, reply_at);
        if plan.is_err() {
            // A message that is refused costs its receiver nothing.
            self.close_but(before);
        }
        let plan = plan.map_err(Blame::Sender)?;
        self.carry_out(to, &plan);
        let Some(slot) = reply_at else { return Ok((plan.len(), None)) };
        let call = self.fresh();
        self.install(to, slot, What::Reply(call), ObjectType::Reply, Rights::SEND | Rights::GRANT);
        Ok((plan.len(), Some(call)))
    }

    fn reply_place(&mut self, to: Name, wants: Wants) -> Result<u16, Error> {
        if wants.reply == 0 {
            return Err(Error::ReplySlotTaken);
        }
        self.reply_slot(to, wants.reply)
    }

    fn reply_slot(&mut self, to: Name, slot: u64) -> Result<u16, Error> {
        self.free(to, slot).map_err(|e| if e == Error::SlotOccupied { Error::ReplySlotTaken } else { e })
    }

    /// Which capability goes to which slot.
    fn plan(
        &mut self,
        from: Name,
        to: Name,
        caps: &[u64],
        wants: Wants,
        reply_at: Option<u16>,
    ) -> Result<Vec<(Name, u16)>, Error> {
        let mut plan: Vec<(Name, u16)> = Vec::new();
        if caps.len() > wants.count {
            return Err(Error::TransferFailed);
        }
        for (i, slot) in caps.iter().enumerate() {
            let (name, cap) = self.find(from, *slot)?;
            self.may_travel(&cap)?;
            let at = self.free(to, u64::from(wants.base) + i as u64).map_err(|_| Error::TransferFailed)?;
            let twice = cap.kind == ObjectType::Reply && plan.iter().any(|(other, _)| *other == name);
            if Some(at) == reply_at || twice {
                return Err(Error::TransferFailed);
            }
            plan.push((name, at));
        }
        Ok(plan)
    }

    fn may_travel(&self, cap: &Held) -> Result<(), Error> {
        let copy = cap.rights.contains(Rights::COPY);
        if cap.rights.contains(Rights::ENDOW) && !copy {
            return Err(Error::EndowOnly);
        }
        if !copy && cap.kind != ObjectType::Reply {
            return Err(Error::NotCopyable);
        }
        if self.is_alive(cap) { Ok(()) } else { Err(Error::ObjectGone) }
    }

    fn carry_out(&mut self, to: Name, plan: &[(Name, u16)]) {
        for (name, slot) in plan {
            let cap = self.caps[name].clone();
            if cap.kind == ObjectType::Reply {
                self.caps.insert(*name, Held { holder: to, slot: *slot, ..cap });
            } else {
                self.derive(*name, to, *slot, cap.rights, cap.badge);
            }
        }
    }

    /// `recv`.
    pub fn receive(&mut self, to: Name, slot: u64, letter: &Letter) -> Result<Course, Error> {
        let endpoint = self.may_receive(to, slot)?;
        if letter.wants.reply != 0 {
            self.reply_slot(to, letter.wants.reply)?;
        }
        self.set_wants(to, letter);
        for sender in self.queues(endpoint).0 {
            let Some(Wait::Send { badge, call, caps, .. }) = self.people[&sender].wait.clone() else {
                continue;
            };
            match self.pass(sender, to, &caps, call) {
                Ok((count, call)) => {
                    self.stop_waiting(sender);
                    if let Some(ended) = self.sent(sender, call) {
                        self.woken.push((sender, ended));
                    }
                    let message = Some(Received::from(badge, count, call));
                    return Ok(Some(Ended { result: Ok(()), message }));
                }
                Err(Blame::Sender(error)) => self.wake_with(sender, error),
                Err(Blame::Receiver(error)) => return Err(error),
            }
        }
        if !letter.waits {
            return Err(Error::Timeout);
        }
        if let Some(Nature::Endpoint { receivers, .. }) = self.endpoint(endpoint) {
            receivers.push(to);
        }
        self.begin_wait(to, Wait::Receive { endpoint });
        Ok(None)
    }

    fn may_receive(&self, to: Name, slot: u64) -> Result<Name, Error> {
        let (_, cap) = self.usable(to, slot, ObjectType::Endpoint, Rights::RECV)?;
        let What::Object(endpoint) = cap.what else { return Err(Error::WrongType) };
        match self.objects.get(&endpoint).map(|o| &o.nature) {
            Some(Nature::Endpoint { receiver, .. }) if *receiver == Some(to) => Ok(endpoint),
            _ => Err(Error::NotReceiver),
        }
    }

    /// `reply`.
    pub fn reply(&mut self, from: Name, slot: u64, caps: &[u64]) -> Result<(), Error> {
        let (name, cap) = self.find(from, slot)?;
        let What::Reply(call) = cap.what else { return Err(Error::WrongType) };
        let Some(caller) = self.caller_of(call) else {
            self.caps.remove(&name);
            return Err(Error::CallerGone);
        };
        let wants = self.people[&caller].wants;
        let plan = self.plan(from, caller, caps, wants, None)?;
        if plan.iter().any(|(other, _)| *other == name) {
            return Err(Error::NotCopyable);
        }
        self.carry_out(caller, &plan);
        self.caps.remove(&name);
        let message = Some(Received { badge: None, caps: plan.len(), has_reply: false });
        self.wake(caller, Ended { result: Ok(()), message });
        Ok(())
    }

    /// `reply_recv`.
    pub fn reply_receive(&mut self, from: Name, slot: u64, letter: &Letter) -> Result<Course, Error> {
        self.may_receive(from, slot)?;
        self.reply(from, letter.wants.reply, &letter.caps)?;
        self.receive(from, slot, letter)
    }
}
