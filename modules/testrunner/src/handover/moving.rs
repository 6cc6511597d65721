//! Services that move from version to version and back.

use super::rig::{EP, H, REPLY, Rig, STATE, exact};
use crate::lab::{Failure, Lab, Outcome, POOL, PROBE_PRIORITY, create, equal, refused, sealed, works};
use crate::puppet::Puppet;
use alloc::vec::Vec;
use probe::REQUEST_COMMAND;
use sila_abi::handover::{EXPORTED, FROM_LIVES, SEALED, SHUT, State, TO_LIVES};
use sila_abi::protocol::layout::OWN_POOL;
use sila_abi::syscall::{FOREVER, NO_WAIT};
use sila_abi::{Error, Op};
use sila_rt::ipc;
use sila_rt::op;
use sila_rt::slots::make;

/// Callers queue at the shut gates; after one commit each new version has its state and answers its callers.
fn services_move(lab: &Lab, count: usize) -> Outcome {
    let rig = Rig::new(lab, count)?;
    let clients = (0..count).map(|at| rig.client(at)).collect::<Result<Vec<_>, _>>()?;
    rig.close()?;
    for (at, client) in clients.iter().enumerate() {
        client.call(EP, 10 + at as u32, FOREVER)?;
        client.waits("a call to a shut gate")?;
        rig.export(at)?;
    }
    works("HandoverCommit", rig.commit())?;
    for (at, client) in clients.iter().enumerate() {
        let service = rig.at(at)?;
        client.waits("a call that nobody has received")?;
        rig.import(&service.new, at)?;
        rig.serves(&service.new, at, client, 10 + at as u32)?;
    }
    rig.finalise()?;
    // Whoever served before does not, and the old version's receive does not even return.
    for service in &rig.services {
        let resumed = op::ProcessStart(service.old.process());
        refused("starting a version that passed its service on", resumed, Error::HandedOver)?;
    }
    Ok(())
}

/// Two services move in one commit, with their states and their callers.
pub fn two_services_move_in_one_commit(lab: &Lab) -> Outcome {
    exact(lab, |lab| services_move(lab, 2))
}

/// Three services move in one commit, with their states and their callers.
pub fn three_services_move_in_one_commit(lab: &Lab) -> Outcome {
    exact(lab, |lab| services_move(lab, 3))
}

/// Eight services move in one commit, with their states and their callers.
pub fn eight_services_move_in_one_commit(lab: &Lab) -> Outcome {
    exact(lab, |lab| services_move(lab, 8))
}

/// Callers that queue while the gate is shut are answered by the new version in the order in which they came.
pub fn callers_queue_at_a_shut_gate_in_order(lab: &Lab) -> Outcome {
    exact(lab, |lab| {
        let rig = Rig::new(lab, 1)?;
        rig.close()?;
        let clients = (0..3).map(|_| rig.client(0)).collect::<Result<Vec<_>, _>>()?;
        for at in [2, 0, 1] {
            let client = clients.get(at).ok_or_else(|| Failure::new("a client", "there", "missing"))?;
            client.call(EP, 30 + at as u32, FOREVER)?;
        }
        let (old, new) = (&rig.at(0)?.old, &rig.at(0)?.new);
        refused("the old version's receive", old.receive(EP, REPLY), Error::Quiesced)?;
        refused("the new version's receive before the commit", new.receive(EP, REPLY), Error::NotReceiver)?;
        works("HandoverCommit", rig.commit())?;
        for at in [2, 0, 1] {
            let client = clients.get(at).ok_or_else(|| Failure::new("a client", "there", "missing"))?;
            rig.serves(new, 0, client, 30 + at as u32)?;
        }
        rig.finalise()
    })
}

/// A receive that waits when the gate is shut ends with `Quiesced`; a call that was received before is still answered.
pub fn a_shut_gate_ends_a_receive_and_lets_the_answer_out(lab: &Lab) -> Outcome {
    exact(lab, |lab| {
        let rig = Rig::new(lab, 2)?;
        let client = rig.client(0)?;
        let [busy, idle] = [&rig.at(0)?.old, &rig.at(1)?.old];
        client.call(EP, 5, FOREVER)?;
        equal("the call", works("recv", busy.receive(EP, REPLY))?.label, 5)?;
        idle.listen(EP, REPLY, FOREVER)?;
        idle.waits("a receive at an open gate")?;
        rig.close()?;
        refused("the receive that waited", idle.heard(), Error::Quiesced)?;
        works("the late answer", busy.reply(REPLY, 6))?;
        equal("the caller's answer", works("the call", client.answer())?, 6)?;
        works("HandoverAbort", op::HandoverAbort(rig.handover()))?;
        refused("the old version receives again", busy.receive(EP, REPLY), Error::Timeout)
    })
}

/// Gates shut one by one: a service whose gate is open serves on until its own is shut, and only then can all move.
pub fn gates_shut_one_by_one(lab: &Lab) -> Outcome {
    exact(lab, |lab| {
        let rig = Rig::new(lab, 2)?;
        let (h, client) = (rig.handover(), rig.client(1)?);
        let [state, epoch, ..] = works("HandoverClose of one", op::HandoverClose(h, 1))?.words;
        equal("state and epoch with one gate open", (state, epoch), (State::Open as u64, 1))?;
        let [shut, open] = [&rig.at(0)?.old, &rig.at(1)?.old];
        refused("the one receives", shut.receive(EP, REPLY), Error::Quiesced)?;
        client.call(EP, 3, FOREVER)?;
        rig.serves(open, 1, &client, 3)?;
        refused("a commit with one gate open", rig.commit(), Error::NotClosed)?;
        let twice = op::HandoverClose(h, 3);
        equal("the gate that is shut already", twice.err().map(|e| e.words[0]), Some(0))?;
        refused("shutting it again", op::HandoverClose(h, 3), Error::AlreadyClosed)?;
        for none in [0, 4, u64::MAX] {
            refused("shutting gates that are not there", op::HandoverClose(h, none), Error::InvalidArgument)?;
        }
        let [state, ..] = works("HandoverClose of the other", op::HandoverClose(h, 2))?.words;
        equal("the state", state, State::Closed as u64)?;
        works("HandoverCommit", rig.commit())?;
        rig.finalise()
    })
}

/// A rollback is the commit's inverse: the old versions receive, get their states back and run on; the new ones stop.
pub fn a_rollback_returns_receivers_and_states(lab: &Lab) -> Outcome {
    exact(lab, |lab| {
        let rig = Rig::new(lab, 2)?;
        rig.move_all()?;
        rig.import(&rig.at(0)?.new, 0)?;
        works("HandoverRollback", op::HandoverRollback(rig.handover()))?;
        rig.is(State::RolledBack)?;
        for at in 0..2 {
            let (client, service) = (rig.client(at)?, rig.at(at)?);
            service.old.revived()?;
            client.call(EP, 40, FOREVER)?;
            works("dropping what it exported", service.old.invoke(STATE, Op::CapDelete, &[]))?;
            rig.import(&service.old, at)?;
            rig.serves(&service.old, at, &client, 40)?;
            let resumed = op::ProcessStart(service.new.process());
            refused("starting the version that was rolled back", resumed, Error::HandedOver)?;
        }
        refused("a second rollback", op::HandoverRollback(rig.handover()), Error::HandoverRolledBack)
    })
}

/// A call that the new version received and did not answer ends with `PeerDiedDelivered` at a rollback; one that it
/// did not receive is the old version's.
pub fn a_rollback_ends_calls_in_hand_and_keeps_those_that_wait(lab: &Lab) -> Outcome {
    exact(lab, |lab| {
        let rig = Rig::new(lab, 1)?;
        let (first, second, service) = (rig.client(0)?, rig.client(0)?, rig.at(0)?);
        rig.move_all()?;
        first.call(EP, 1, FOREVER)?;
        second.call(EP, 2, FOREVER)?;
        let heard = works("recv of the new version", service.new.receive(EP, REPLY))?;
        equal("what it received", (heard.label, heard.word), (1, 1))?;
        works("HandoverRollback", op::HandoverRollback(rig.handover()))?;
        refused("the call in hand", first.answer(), Error::PeerDiedDelivered)?;
        second.waits("a call that waits at a rollback")?;
        service.old.revived()?;
        rig.serves(&service.old, 0, &second, 2)
    })
}

/// A version that resumes by itself makes the commit stale, and what it had exported void.
pub fn a_resumption_makes_the_commit_stale(lab: &Lab) -> Outcome {
    exact(lab, |lab| {
        let rig = Rig::new(lab, 1)?;
        let (h, service, client) = (rig.handover(), rig.at(0)?, rig.client(0)?);
        rig.close()?;
        rig.export(0)?;
        let flags = works("HandoverService", op::HandoverService(h, 0))?.words[2];
        equal("the service's flags", flags, SHUT | EXPORTED | SEALED | FROM_LIVES | TO_LIVES)?;
        refused(
            "a resumption by the new one",
            service.new.invoke(H, Op::HandoverReopen, &[]),
            Error::NotParticipant,
        )?;
        client.call(EP, 8, FOREVER)?;
        let epoch = works("HandoverReopen", service.old.invoke(H, Op::HandoverReopen, &[]))?[0];
        equal("the epoch", epoch, 2)?;
        rig.serves(&service.old, 0, &client, 8)?;
        rig.close()?;
        let stale = op::HandoverCommit(h, 1);
        equal("the epoch in force", stale.err().map(|e| e.words[0]), Some(2))?;
        refused("the commit of before", stale, Error::StaleEpoch)?;
        rig.is(State::Closed)?;
        let flags = works("HandoverService", op::HandoverService(h, 0))?.words[2];
        equal("the service's flags", flags, SHUT | FROM_LIVES | TO_LIVES)?;
        refused(
            "the import of what is void",
            service.new.invoke(H, Op::HandoverState, &[0, 31]),
            Error::NotExported,
        )?;
        works("the commit of now", op::HandoverCommit(h, 2))?;
        rig.finalise()
    })
}

/// A version that passed its service on does not run again, whoever tries to make it.
pub fn a_version_that_passed_its_service_on_stays_stopped(lab: &Lab) -> Outcome {
    exact(lab, |lab| {
        let rig = Rig::new(lab, 1)?;
        let (service, pool) = (rig.at(0)?, rig.pool.slot());
        service.old.listen(EP, REPLY, FOREVER)?;
        rig.close()?;
        works("HandoverCommit", rig.commit())?;
        for what in ["committed", "finalised"] {
            let old = service.old.process();
            refused(what, op::ProcessStart(old), Error::HandedOver)?;
            if what == "committed" {
                rig.finalise()?;
            }
        }
        // Nor does it take part in another update, in either role.
        let other = works("a second Handover", super::rig::create(FOREVER))?;
        let (new, old) = (service.new.process(), service.old.process());
        let again = op::HandoverAdd(other.slot(), service.endpoint.slot(), new, old, pool);
        refused("moving the service back with a new Handover", again, Error::HandedOver)?;
        service.old.kill()
    })
}

/// Finalising raises the version floor to what serves now, a rollback does not; nothing older is loaded any more.
pub fn finalising_raises_the_floor_and_a_rollback_does_not(lab: &Lab) -> Outcome {
    let [old_proof, new_proof] = [sealed(lab.data("rising.old")?)?, sealed(lab.data("rising.new")?)?];
    let command = works("EndpointCreate", make(|dst| op::EndpointCreate(OWN_POOL, 0, 0, dst)))?;
    let loads = || {
        let grants = [(REQUEST_COMMAND, command.slot())];
        create(lab.image(), old_proof.slot(), POOL, PROBE_PRIORITY, &grants)
            .inspect(|made| {
                let _ = op::ProcessTerminate(made.slot(), 0);
            })
            .map(|_| ())
    };
    let pool = works("PoolCreate", make(|dst| op::PoolCreate(POOL, 8, 20_000, dst)))?;
    let old = Puppet::new(lab, old_proof.slot())?;
    works("EndpointCreate", old.invoke(OWN_POOL, Op::EndpointCreate, &[3, 0, EP.0.into()]))?;
    let endpoint = old.show(EP)?;
    let update = |old: &Puppet| -> Result<_, Failure> {
        let new = Puppet::new(lab, new_proof.slot())?;
        let h = works("HandoverCreate", super::rig::create(FOREVER))?;
        let add = op::HandoverAdd(h.slot(), endpoint.slot(), old.process(), new.process(), pool.slot());
        works("HandoverAdd", add)?;
        works("HandoverClose", op::HandoverClose(h.slot(), 1))?;
        works("HandoverCommit", op::HandoverCommit(h.slot(), 1))?;
        works("loading the old version after the commit", loads())?;
        Ok((new, h))
    };
    let (_new, h) = update(&old)?;
    works("HandoverRollback", op::HandoverRollback(h.slot()))?;
    works("loading the old version after a rollback", loads())?;
    old.revived()?;
    let (_new, h) = update(&old)?;
    works("HandoverFinalise", op::HandoverFinalise(h.slot()))?;
    refused("loading the old version after finalising", loads(), Error::BelowFloor)
}

/// Every change of a Handover is signalled to who watches it, and nothing else is.
pub fn watchers_are_told_of_every_change(lab: &Lab) -> Outcome {
    exact(lab, |lab| {
        let rig = Rig::new(lab, 1)?;
        let note = works("NotificationCreate", make(|dst| op::NotificationCreate(OWN_POOL, dst)))?;
        works("HandoverWatch", op::HandoverWatch(rig.handover(), note.slot(), 6))?;
        let told = |what: &str| equal(what, works(what, ipc::wait(note.slot(), NO_WAIT))?, 6);
        refused("nothing has changed", ipc::wait(note.slot(), NO_WAIT), Error::Timeout)?;
        rig.close()?;
        told("the gates shut")?;
        let stale = op::HandoverCommit(rig.handover(), 9);
        refused("a commit that is refused", stale, Error::StaleEpoch)?;
        refused("a refusal is no change", ipc::wait(note.slot(), NO_WAIT), Error::Timeout)?;
        works("HandoverCommit", rig.commit())?;
        told("the commit")?;
        works("HandoverRollback", op::HandoverRollback(rig.handover()))?;
        told("the rollback")?;
        let [_, _, deadline, services, shut, cause] = rig.status()?;
        equal("deadline, services, shut gates, cause", (deadline, services, shut, cause), (FOREVER, 1, 0, 0))
    })
}
