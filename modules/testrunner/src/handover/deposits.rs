//! What a Handover keeps for its services: Replies, session endpoints, devices.

use super::rig::{EP, H, REPLY, Rig, SECOND, THING, exact};
use crate::lab::{Lab, Outcome, PORTS, copy, equal, refused, works};
use crate::puppet::{Heard, Puppet};
use alloc::format;
use sila_abi::handover::MAX_DEPOSITS;
use sila_abi::protocol::layout::OWN_POOL;
use sila_abi::syscall::FOREVER;
use sila_abi::{Error, ObjectType, Op, Rights, Slot};
use sila_rt::op;
use sila_rt::slots::make;

/// Where puppets keep the session's endpoint.
const SESSION: Slot = Slot(32);

fn deposit(who: &Puppet, slot: Slot) -> Result<u64, sila_rt::CallError> {
    who.invoke(H, Op::HandoverDeposit, &[0, slot.0.into()]).map(|words| words[0])
}

fn take(who: &Puppet, deposit: u64, to: Slot) -> Result<u64, sila_rt::CallError> {
    who.invoke(H, Op::HandoverTake, &[deposit, to.0.into()]).map(|words| words[0])
}

/// A deposited Reply is out of the old version's reach, and answered by the new one.
pub fn a_deposited_reply_is_answered_by_the_new_version(lab: &Lab) -> Outcome {
    exact(lab, |lab| {
        let rig = Rig::new(lab, 1)?;
        let (service, client) = (rig.at(0)?, rig.client(0)?);
        client.call(EP, 1, FOREVER)?;
        works("recv", service.old.receive(EP, REPLY))?;
        rig.close()?;
        refused("a commit before the deposit", rig.commit(), Error::RepliesOutstanding)?;
        let number = works("HandoverDeposit", deposit(&service.old, REPLY))?;
        refused("the old version's answer", service.old.reply(REPLY, 2), Error::NoCapability)?;
        let early = take(&service.new, number, REPLY);
        refused("the new version's take before the commit", early, Error::AlreadyClosed)?;
        works("the commit", rig.commit())?;
        let kind = works("HandoverTake", take(&service.new, number, REPLY))?;
        equal("what it took", kind, ObjectType::Reply as u64)?;
        refused("taking it again", take(&service.new, number, SECOND), Error::NoCapability)?;
        works("the new version's answer", service.new.reply(REPLY, 3))?;
        equal("the answer", works("the call", client.answer())?, 3)?;
        rig.finalise()
    })
}

/// A rollback returns the Replies that the new version did not take.
pub fn a_rollback_returns_deposited_replies(lab: &Lab) -> Outcome {
    exact(lab, |lab| {
        let rig = Rig::new(lab, 2)?;
        let (service, other) = (rig.at(0)?, rig.at(1)?);
        let (waits, dies) = (rig.client(0)?, rig.client(0)?);
        for (client, reply) in [(&waits, REPLY), (&dies, SECOND)] {
            client.call(EP, 1, FOREVER)?;
            works("recv", service.old.receive(EP, reply))?;
        }
        rig.close()?;
        let kept = works("HandoverDeposit", deposit(&service.old, REPLY))?;
        let taken = works("HandoverDeposit", deposit(&service.old, SECOND))?;
        works("the commit", rig.commit())?;
        let foreign = take(&other.new, kept, REPLY);
        refused("a take by another service's version", foreign, Error::NotParticipant)?;
        works("HandoverTake of the other", take(&service.new, taken, REPLY))?;
        works("HandoverRollback", op::HandoverRollback(rig.handover()))?;
        refused("the call whose Reply the new version had taken", dies.answer(), Error::PeerDiedDelivered)?;
        waits.waits("the call whose Reply nobody took")?;
        service.old.revived()?;
        works("HandoverTake by the old version", take(&service.old, kept, REPLY))?;
        works("the old version's answer", service.old.reply(REPLY, 4))?;
        equal("the answer", works("the call", waits.answer())?, 4)
    })
}

/// A Handover that ends tells callers at once when nobody can take their Reply any more.
pub fn callers_learn_that_nobody_will_take_their_reply(lab: &Lab) -> Outcome {
    exact(lab, |lab| {
        let rig = Rig::new(lab, 1)?;
        let (service, client) = (rig.at(0)?, rig.client(0)?);
        client.call(EP, 1, FOREVER)?;
        works("recv", service.old.receive(EP, REPLY))?;
        rig.close()?;
        works("HandoverDeposit", deposit(&service.old, REPLY))?;
        service.old.kill()?;
        client.waits("a call whose Reply may still be committed")?;
        works("HandoverAbort", op::HandoverAbort(rig.handover()))?;
        refused("the call", client.answer(), Error::PeerDiedDelivered)
    })
}

/// A session of the service: an endpoint of the old version whose client calls with a badge.
fn session(rig: &Rig<'_>) -> Result<Puppet, crate::lab::Failure> {
    let old = &rig.at(0)?.old;
    works("EndpointCreate", old.invoke(OWN_POOL, Op::EndpointCreate, &[1, 0, SESSION.0.into()]))?;
    let endpoint = old.show(SESSION)?;
    let rights = (Rights::SEND | Rights::GRANT | Rights::COPY).bits().into();
    let send = works("CapMint", make(|dst| op::CapMint(endpoint.slot(), dst, rights, 9)))?;
    let client = rig.puppet()?;
    client.give(&[(send.slot(), SESSION)])?;
    Ok(client)
}

fn serves_session(who: &Puppet, at: Slot, client: &Puppet, label: u32) -> Outcome {
    let heard = works("recv from the session", who.receive(at, REPLY))?;
    equal("the call", heard, Heard { label, badge: 9, word: label.into() })?;
    works("the answer", who.reply(REPLY, label + 1))?;
    equal("the answer", works("the call", client.answer())?, label + 1)
}

/// A deposited session endpoint shares its service's gate and passes to the new version, whose it stays.
pub fn a_session_endpoint_passes_with_its_service(lab: &Lab) -> Outcome {
    exact(lab, |lab| {
        let rig = Rig::new(lab, 1)?;
        let (service, client) = (rig.at(0)?, session(&rig)?);
        let copied = [THING.0.into(), Rights::RECV.bits().into()];
        works("a copy that stays outside", service.old.invoke(SESSION, Op::CapCopy, &copied))?;
        let number = works("HandoverDeposit", deposit(&service.old, SESSION))?;
        let bits = works("HandoverService", op::HandoverService(rig.handover(), 0))?.words[4];
        equal("the service's deposits", bits, 1 << number)?;
        refused("an open session", service.old.receive(THING, REPLY), Error::Timeout)?;
        rig.close()?;
        refused("a shut session", service.old.receive(THING, REPLY), Error::Quiesced)?;
        client.call(SESSION, 5, FOREVER)?;
        works("the commit", rig.commit())?;
        client.waits("a session's call during the update")?;
        let kind = works("HandoverTake", take(&service.new, number, SESSION))?;
        equal("what it took", kind, ObjectType::Endpoint as u64)?;
        serves_session(&service.new, SESSION, &client, 5)?;
        rig.finalise()?;
        // What the service's Pool pays for does not end with its author.
        service.old.kill()?;
        client.call(SESSION, 7, FOREVER)?;
        serves_session(&service.new, SESSION, &client, 7)
    })
}

/// A rollback returns a session endpoint to the old version.
pub fn a_rollback_returns_a_session_endpoint(lab: &Lab) -> Outcome {
    exact(lab, |lab| {
        let rig = Rig::new(lab, 1)?;
        let (service, client) = (rig.at(0)?, session(&rig)?);
        rig.close()?;
        // It joins a service that is shut already.
        let number = works("HandoverDeposit", deposit(&service.old, SESSION))?;
        works("the commit", rig.commit())?;
        works("HandoverTake", take(&service.new, number, SESSION))?;
        client.call(SESSION, 5, FOREVER)?;
        works("HandoverRollback", op::HandoverRollback(rig.handover()))?;
        client.waits("a session's call that nobody received")?;
        service.old.revived()?;
        works("HandoverTake by the old version", take(&service.old, number, SESSION))?;
        serves_session(&service.old, SESSION, &client, 5)
    })
}

/// A device is lent to the new version without the copy right until the commit is final; a rollback takes it back.
pub fn a_device_has_one_master_at_a_time(lab: &Lab) -> Outcome {
    exact(lab, |lab| {
        for final_ in [false, true] {
            let rig = Rig::new(lab, 1)?;
            let service = rig.at(0)?;
            let ports = works("a copy", copy(PORTS, Rights::READ | Rights::WRITE | Rights::COPY))?;
            service.old.give(&[(ports.slot(), THING)])?;
            let copied = [SECOND.0.into(), Rights::READ.bits().into()];
            works("a copy of the device", service.old.invoke(THING, Op::CapCopy, &copied))?;
            refused("a shared device", deposit(&service.old, THING), Error::NotExclusive)?;
            works("deleting the copy", service.old.invoke(SECOND, Op::CapDelete, &[]))?;
            let number = works("HandoverDeposit", deposit(&service.old, THING))?;
            rig.close()?;
            works("the commit", rig.commit())?;
            works("HandoverTake", take(&service.new, number, THING))?;
            refused("taking it twice", take(&service.new, number, SECOND), Error::AlreadyTaken)?;
            let copied = service.new.invoke(THING, Op::CapCopy, &copied);
            refused("a copy of what may have to go back", copied, Error::NotCopyable)?;
            if final_ {
                rig.finalise()?;
                works("HandoverTake of the original", take(&service.new, number, SECOND))?;
                let status = works("CapStatus", service.new.invoke(SECOND, Op::CapStatus, &[]))?;
                let rights = (Rights::READ | Rights::WRITE | Rights::COPY).bits();
                equal(
                    "type and rights",
                    [status[0], status[1]],
                    [ObjectType::IoPorts as u64, rights.into()],
                )?;
            } else {
                works("HandoverRollback", op::HandoverRollback(rig.handover()))?;
                service.old.revived()?;
                works("HandoverTake by the old version", take(&service.old, number, THING))?;
                let copied = [SECOND.0.into(), Rights::READ.bits().into()];
                works("a copy of what came back", service.old.invoke(THING, Op::CapCopy, &copied))?;
            }
        }
        Ok(())
    })
}

/// Sixty-four deposits fit; the next one is refused and stays where it was.
pub fn a_sixty_fifth_deposit_is_refused(lab: &Lab) -> Outcome {
    exact(lab, |lab| {
        let rig = Rig::new(lab, 1)?;
        let old = &rig.at(0)?.old;
        let ports = works("a copy", copy(PORTS, Rights::READ | Rights::COPY))?;
        for at in 0..=MAX_DEPOSITS as u64 {
            old.give(&[(ports.slot(), THING)])?;
            match deposit(old, THING) {
                Ok(number) => equal("the deposit's number", number, at)?,
                Err(error) if at == MAX_DEPOSITS as u64 => {
                    equal("the refusal", error.error, Error::HandoverFull)?
                }
                other => works(&format!("deposit {at}"), other).map(|_| ())?,
            }
        }
        works("what was refused is still there", old.invoke(THING, Op::CapDelete, &[]))?;
        works("HandoverTake while it is open", take(old, 17, THING))?;
        for none in [17, 64, u64::MAX] {
            let want = if none == 17 { Error::NoCapability } else { Error::InvalidArgument };
            refused(&format!("taking {none}"), take(old, none, SECOND), want)?;
        }
        equal("the place is used again", works("HandoverDeposit", deposit(old, THING))?, 17)?;
        let bits = works("HandoverService", op::HandoverService(rig.handover(), 0))?.words[4];
        equal("the service's deposits", bits, u64::MAX)
    })
}

/// Only the old version deposits, and only what can belong to one side at a time.
pub fn what_cannot_pass_is_not_deposited(lab: &Lab) -> Outcome {
    exact(lab, |lab| {
        let rig = Rig::new(lab, 1)?;
        let (service, client) = (rig.at(0)?, rig.client(0)?);
        let old = &service.old;
        refused("a Pool", deposit(old, OWN_POOL), Error::WrongType)?;
        refused("an empty slot", deposit(old, SECOND), Error::NoCapability)?;
        refused("a slot that is none", deposit(old, Slot(u16::MAX)), Error::SlotOutOfRange)?;
        refused("the service's own endpoint", deposit(old, EP), Error::AlreadyCovered)?;
        refused("a deposit by the new version", deposit(&service.new, EP), Error::NotParticipant)?;
        let manager = op::HandoverDeposit(rig.handover(), 0, OWN_POOL.0.into());
        refused("a deposit by the manager", manager, Error::NotParticipant)?;
        let elsewhere = works("an endpoint", make(|dst| op::EndpointCreate(OWN_POOL, 1, 0, dst)))?;
        let receive = works("a copy", copy(elsewhere.slot(), Rights::RECV | Rights::COPY))?;
        let send = works("a copy", copy(elsewhere.slot(), Rights::SEND | Rights::COPY))?;
        old.give(&[(receive.slot(), SECOND), (send.slot(), THING)])?;
        refused("an endpoint that another receives from", deposit(old, SECOND), Error::NotReceiver)?;
        refused("an endpoint to send to", deposit(old, THING), Error::MissingRight)?;
        client.call(EP, 1, FOREVER)?;
        works("recv", old.receive(EP, REPLY))?;
        client.kill()?;
        refused("a Reply whose caller has gone", deposit(old, REPLY), Error::CallerGone)
    })
}
