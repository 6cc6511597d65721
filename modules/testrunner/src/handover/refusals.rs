//! The conditions of each operation: who may do it, and what must be so.

use super::rig::{EP, H, REPLY, Rig, SECOND, STATE, STRANGER_PROOF, THING, create, exact, schema};
use crate::lab::{Failure, JOB, Lab, Outcome, POOL, copy, equal, refused, sealed, works};
use crate::puppet::Puppet;
use alloc::format;
use alloc::vec::Vec;
use sila_abi::handover::State;
use sila_abi::protocol::layout::{OWN_POOL, OWN_PROCESS};
use sila_abi::syscall::FOREVER;
use sila_abi::{Error, Op, Rights};
use sila_rt::op;
use sila_rt::slots::make;

/// Only who holds MANAGE decides: a participant can neither close, commit, roll back, finalise nor abort.
pub fn only_a_manager_decides(lab: &Lab) -> Outcome {
    exact(lab, |lab| {
        let rig = Rig::new(lab, 1)?;
        let process = u64::from(OWN_PROCESS.0);
        let decisions: [(Op, &[u64]); 6] = [
            (Op::HandoverClose, &[1]),
            (Op::HandoverCommit, &[1]),
            (Op::HandoverRollback, &[]),
            (Op::HandoverFinalise, &[]),
            (Op::HandoverAbort, &[]),
            (Op::HandoverReplace, &[0, process]),
        ];
        let service = rig.at(0)?;
        for who in [&service.old, &service.new] {
            for (operation, args) in decisions {
                refused(operation.info().name, who.invoke(H, operation, args), Error::MissingRight)?;
            }
        }
        rig.is(State::Open)?;
        let onlooker = rig.puppet()?;
        let read = works("a copy", copy(rig.handover(), Rights::READ | Rights::COPY))?;
        onlooker.give(&[(read.slot(), H)])?;
        works("HandoverStatus with READ", onlooker.invoke(H, Op::HandoverStatus, &[]))?;
        let reopen = onlooker.invoke(H, Op::HandoverReopen, &[]);
        refused("a reopening with READ only", reopen, Error::MissingRight)
    })
}

/// Only the old version exports its state, and only the new one imports it.
pub fn only_the_versions_themselves_export_and_import(lab: &Lab) -> Outcome {
    exact(lab, |lab| {
        let rig = Rig::new(lab, 2)?;
        rig.close()?;
        for at in 0..2 {
            rig.prepare(at, true)?;
        }
        let [mine, other] = [rig.at(0)?, rig.at(1)?];
        let foreign = other.old.invoke(H, Op::HandoverExport, &[0, 1, STATE.0.into()]);
        refused("an export by another service", foreign, Error::NotParticipant)?;
        let region = mine.old.show(STATE)?;
        let manager = op::HandoverExport(rig.handover(), 0, 1, region.slot());
        refused("an export by the manager", manager, Error::NotParticipant)?;
        works("HandoverExport", rig.export_prepared(0))?;
        for (what, who) in [("another new version", &other.new), ("the old version", &mine.old)] {
            let import = who.invoke(H, Op::HandoverState, &[0, THING.0.into()]);
            refused(&format!("an import by {what}"), import, Error::NotParticipant)?;
        }
        let manager = make(|dst| op::HandoverState(rig.handover(), 0, dst));
        refused("an import by the manager", manager, Error::NotParticipant)?;
        let nothing = other.new.invoke(H, Op::HandoverState, &[1, THING.0.into()]);
        refused("an import of what was not exported", nothing, Error::NotExported)?;
        rig.import(&mine.new, 0)
    })
}

/// A service exports only with its gate shut, once, and with no call unanswered.
pub fn a_service_exports_once_when_it_is_quiet(lab: &Lab) -> Outcome {
    exact(lab, |lab| {
        let rig = Rig::new(lab, 1)?;
        let (old, clients) = (&rig.at(0)?.old, [rig.client(0)?, rig.client(0)?]);
        rig.prepare(0, true)?;
        refused("an export at an open gate", rig.export_prepared(0), Error::NotClosed)?;
        for (client, reply) in clients.iter().zip([REPLY, SECOND]) {
            client.call(EP, 1, FOREVER)?;
            works("recv", old.receive(EP, reply))?;
        }
        rig.close()?;
        for (left, reply) in [(2, REPLY), (1, SECOND)] {
            let export = rig.export_prepared(0);
            equal("unanswered calls", export.err().map(|e| e.words[0]), Some(left))?;
            refused("an export with calls unanswered", export, Error::RepliesOutstanding)?;
            let commit = rig.commit();
            equal("unanswered calls", commit.err().map(|e| e.words[0]), Some(left))?;
            refused("a commit with calls unanswered", commit, Error::RepliesOutstanding)?;
            works("the answer", old.reply(reply, 2))?;
        }
        works("HandoverExport", rig.export_prepared(0))?;
        refused("a second export", rig.export_prepared(0), Error::AlreadyExported)?;
        works("HandoverCommit", rig.commit())?;
        for client in &clients {
            equal("the answer", works("the call", client.answer())?, 2)?;
        }
        rig.finalise()
    })
}

/// A state that can still be written is neither imported nor committed.
pub fn an_unsealed_state_stops_import_and_commit(lab: &Lab) -> Outcome {
    exact(lab, |lab| {
        let rig = Rig::new(lab, 3)?;
        rig.close()?;
        rig.export(0)?;
        rig.prepare(1, false)?;
        works("HandoverExport of an unsealed state", rig.export_prepared(1))?;
        let (h, late) = (rig.handover(), rig.at(1)?);
        let import = late.new.invoke(H, Op::HandoverState, &[1, THING.0.into()]);
        refused("an import", import, Error::NotSealed)?;
        let commit = rig.commit();
        equal("whose state is not sealed", commit.err().map(|e| e.words[0]), Some(1))?;
        refused("a commit", commit, Error::NotSealed)?;
        // None of the three has moved.
        rig.is(State::Closed)?;
        for at in 0..3 {
            let service = rig.at(at)?;
            refused("a receive of a new version", service.new.receive(EP, REPLY), Error::NotReceiver)?;
            refused("a receive of an old version", service.old.receive(EP, REPLY), Error::Quiesced)?;
        }
        works("RegionSeal", late.old.invoke(STATE, Op::RegionSeal, &[]))?;
        rig.import(&late.new, 1)?;
        works("the commit", rig.commit())?;
        let words = works("HandoverService", op::HandoverService(h, 1))?.words;
        equal("the schema", words[5], schema(1))?;
        rig.finalise()
    })
}

/// A process whose manifest does not declare the endpoint's label is not to serve it.
pub fn a_version_without_the_label_is_refused(lab: &Lab) -> Outcome {
    exact(lab, |lab| {
        let rig = Rig::bare(lab, 1)?;
        let proof = sealed(lab.data(STRANGER_PROOF)?)?;
        let stranger = Puppet::new(lab, proof.slot())?;
        let (h, service) = (rig.handover(), rig.at(0)?);
        let (endpoint, pool) = (service.endpoint.slot(), rig.pool.slot());
        let add = op::HandoverAdd(h, endpoint, service.old.process(), stranger.process(), pool);
        refused("covering it with a stranger", add, Error::LabelMismatch)?;
        rig.cover()?;
        let replace = op::HandoverReplace(h, 0, stranger.process());
        refused("a stranger as a stand-in", replace, Error::LabelMismatch)?;
        // Nor does it deposit a session that only its own service may receive from.
        rig.close()?;
        works("HandoverCommit", rig.commit())?;
        service.new.kill()?;
        let replace = op::HandoverReplace(h, 0, stranger.process());
        refused("a stranger after the commit", replace, Error::LabelMismatch)?;
        rig.finalise()
    })
}

/// A Handover covers a labelled endpoint with its receiver, from one process to another, paid from outside both.
pub fn what_does_not_fit_is_not_covered(lab: &Lab) -> Outcome {
    exact(lab, |lab| {
        let rig = Rig::bare(lab, 1)?;
        let (h, service, pool) = (rig.handover(), rig.at(0)?, rig.pool.slot());
        let (old, new) = (service.old.process(), service.new.process());
        let endpoint = service.endpoint.slot();
        let plain = works("an endpoint", make(|dst| op::EndpointCreate(OWN_POOL, 1, 0, dst)))?;
        let unlabelled = op::HandoverAdd(h, plain.slot(), OWN_PROCESS, new, pool);
        refused("an endpoint without label", unlabelled, Error::NotLabelled)?;
        let swapped = op::HandoverAdd(h, endpoint, new, old, pool);
        refused("a process that does not receive", swapped, Error::NotReceiver)?;
        let same = op::HandoverAdd(h, endpoint, old, old, pool);
        refused("from a process to itself", same, Error::InvalidArgument)?;
        let own = works("a Pool", make(|dst| op::PoolCreate(POOL, 1, 500, dst)))?;
        let poor = op::HandoverAdd(h, endpoint, old, new, own.slot());
        refused("a Pool that cannot pay", poor, Error::OutOfObjectBytes)?;
        let weak = works("a copy", copy(endpoint, Rights::SEND | Rights::RECV | Rights::COPY))?;
        let weak = op::HandoverAdd(h, weak.slot(), old, new, pool);
        refused("an endpoint without MANAGE", weak, Error::MissingRight)?;
        equal("services covered", rig.status()?[3], 0)?;
        rig.cover()
    })
}

/// Eight services fit, a ninth is refused and stays as it was.
pub fn a_ninth_service_is_refused(lab: &Lab) -> Outcome {
    exact(lab, |lab| {
        let rig = Rig::bare(lab, 9)?;
        for at in 0..8 {
            works("HandoverAdd", rig.add(at))?;
        }
        refused("the ninth", rig.add(8), Error::HandoverFull)?;
        let ninth = &rig.at(8)?.old;
        refused("the ninth serves on", ninth.receive(EP, REPLY), Error::Timeout)?;
        equal("services covered", rig.status()?[3], 8)?;
        refused("shutting its gate", op::HandoverClose(rig.handover(), 1 << 8), Error::InvalidArgument)
    })
}

/// While a Handover is active, no other one covers its endpoints or its processes.
pub fn two_handovers_share_no_endpoint_and_no_process(lab: &Lab) -> Outcome {
    exact(lab, |lab| {
        let rig = Rig::new(lab, 1)?;
        let second = works("a second Handover", create(FOREVER))?;
        let (h, service, pool) = (second.slot(), rig.at(0)?, rig.pool.slot());
        refused("the same service", rig.add_to(h, 0), Error::AlreadyCovered)?;
        refused("the same service in the same Handover", rig.add(0), Error::AlreadyCovered)?;
        // Another endpoint of the same processes.
        let args = [3, 0, THING.0.into()];
        works("EndpointCreate", service.old.invoke(OWN_POOL, Op::EndpointCreate, &args))?;
        let endpoint = service.old.show(THING)?;
        let third = rig.puppet()?;
        let (old, new) = (service.old.process(), service.new.process());
        let from = op::HandoverAdd(h, endpoint.slot(), old, third.process(), pool);
        refused("a process that hands over already", from, Error::AlreadyCovered)?;
        works("EndpointCreate", third.invoke(OWN_POOL, Op::EndpointCreate, &args))?;
        let endpoint = third.show(THING)?;
        let to = op::HandoverAdd(h, endpoint.slot(), third.process(), new, pool);
        refused("a process that takes over already", to, Error::AlreadyCovered)?;
        works("HandoverAbort", op::HandoverAbort(rig.handover()))?;
        works("once the first has ended", rig.add_to(h, 0)).map(|_| ())
    })
}

/// A covered endpoint is bound and recharged by its Handover only.
pub fn a_covered_endpoint_is_bound_by_nobody_else(lab: &Lab) -> Outcome {
    exact(lab, |lab| {
        let rig = Rig::new(lab, 1)?;
        let (service, third) = (rig.at(0)?, rig.puppet()?);
        let endpoint = service.endpoint.slot();
        rig.close()?;
        let bind = || op::EndpointBind(endpoint, third.process());
        refused("binding an endpoint whose gate is shut", bind(), Error::AlreadyCovered)?;
        refused("recharging it", op::ChargeTransfer(endpoint, OWN_POOL), Error::AlreadyCovered)?;
        service.old.kill()?;
        refused("binding it after the receiver's death", bind(), Error::AlreadyCovered)?;
        works("HandoverAbort", op::HandoverAbort(rig.handover()))?;
        works("binding it afterwards", bind()).map(|_| ())
    })
}

/// An unanswered call stops the commit wherever its Reply lies: giving it to an accomplice hides nothing.
pub fn a_reply_that_is_hidden_stops_the_commit(lab: &Lab) -> Outcome {
    exact(lab, |lab| {
        let rig = Rig::new(lab, 1)?;
        let (old, client, accomplice) = (&rig.at(0)?.old, rig.client(0)?, rig.puppet()?);
        client.call(EP, 1, FOREVER)?;
        works("recv", old.receive(EP, REPLY))?;
        // The runner passes it on: to itself, and from there to the accomplice.
        let reply = old.show(REPLY)?;
        rig.close()?;
        let hidden = |what: &str| -> Outcome {
            let commit = rig.commit();
            equal(what, commit.err().map(|e| (e.error, e.words[0])), Some((Error::RepliesOutstanding, 1)))?;
            rig.prepare(0, true)?;
            refused(what, rig.export_prepared(0), Error::RepliesOutstanding)?;
            works("dropping the state", old.invoke(STATE, Op::CapDelete, &[])).map(|_| ())
        };
        hidden("with the Reply at the manager's")?;
        accomplice.give(&[(reply.slot(), REPLY)])?;
        drop(reply);
        hidden("with the Reply at an accomplice's")?;
        works("the accomplice's answer", accomplice.reply(REPLY, 2))?;
        equal("the answer", works("the call", client.answer())?, 2)?;
        works("the commit", rig.commit())?;
        rig.finalise()
    })
}

/// A new version that has not started does not take over.
pub fn a_version_that_does_not_run_takes_nothing_over(lab: &Lab) -> Outcome {
    exact(lab, |lab| {
        let rig = Rig::new(lab, 1)?;
        let proof = sealed(lab.data(super::rig::PUPPET_PROOF)?)?;
        let fresh = Puppet::unstarted(lab, proof.slot())?;
        works("HandoverReplace", op::HandoverReplace(rig.handover(), 0, fresh.process()))?;
        rig.close()?;
        refused("a commit to it", rig.commit(), Error::NotStarted)?;
        fresh.start()?;
        works("a commit once it runs", rig.commit())?;
        rig.finalise()
    })
}

/// A Handover is made whole or not at all: no bytes, a time that has passed, and no room leave nothing.
pub fn a_handover_is_made_whole_or_not_at_all(lab: &Lab) -> Outcome {
    exact(lab, |_| {
        refused("a deadline that has passed", create(1), Error::Timeout)?;
        let poor = works("a Pool", make(|dst| op::PoolCreate(POOL, 1, 1000, dst)))?;
        let made = make(|dst| op::HandoverCreate(poor.slot(), JOB, FOREVER, dst));
        refused("a Pool that cannot pay", made, Error::OutOfObjectBytes)?;
        let weak = works("a copy", copy(JOB, Rights::READ | Rights::COPY))?;
        let made = make(|dst| op::HandoverCreate(POOL, weak.slot(), FOREVER, dst));
        refused("a Job without CREATE", made, Error::MissingRight)?;
        let mut all = Vec::new();
        let refusal = loop {
            match create(FOREVER) {
                Ok(handover) => all.push(handover),
                Err(error) => break error,
            }
            if all.len() > 64 {
                return Err(Failure::new("Handovers", "an end", "64 of them"));
            }
        };
        let exhausted = matches!(refusal.error, Error::OutOfObjectBytes | Error::ArenaFull);
        equal("the last one's refusal is exhaustion", exhausted, true)?;
        drop(all.pop());
        works("one more once one has gone", create(FOREVER)).map(|_| ())
    })
}
