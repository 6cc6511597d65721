//! Who dies when, and what becomes of the update.

use super::rig::{EP, H, REPLY, Rig, create, exact};
use crate::lab::{Failure, JOB, Lab, Outcome, copy, equal, holds, pause, refused, works};
use crate::puppet::Puppet;
use alloc::vec::Vec;
use sila_abi::handover::{Cause, DEAD_TO, State};
use sila_abi::syscall::FOREVER;
use sila_abi::{Error, Op, Rights, Slot};
use sila_rt::clock::{self, MILLISECOND};
use sila_rt::op;
use sila_rt::slots::{OwnedSlot, make};

/// Checks which participant a commit found dead.
fn dead(rig: &Rig<'_>, which: u64) -> Outcome {
    let commit = rig.commit();
    equal("who is dead", commit.err().map(|e| e.words[0]), Some(which))?;
    refused("the commit", commit, Error::ParticipantDead)?;
    rig.is(State::Closed)
}

/// A version that dies before its export stops the commit of all; its callers wait for whoever serves next.
pub fn an_old_version_that_dies_before_its_export_stops_the_commit(lab: &Lab) -> Outcome {
    exact(lab, |lab| {
        let rig = Rig::new(lab, 2)?;
        let (lost, other) = (rig.at(1)?, rig.at(0)?);
        let clients = [rig.client(0)?, rig.client(1)?];
        rig.close()?;
        rig.export(0)?;
        for (client, label) in clients.iter().zip([20, 21]) {
            client.call(EP, label, FOREVER)?;
        }
        lost.old.kill()?;
        dead(&rig, 1)?;
        works("HandoverAbort", op::HandoverAbort(rig.handover()))?;
        let [first, second] = &clients;
        rig.serves(&other.old, 0, first, 20)?;
        second.waits("a call to a service without receiver")?;
        works("EndpointBind", op::EndpointBind(lost.endpoint.slot(), lost.new.process()))?;
        rig.serves(&lost.new, 1, second, 21)
    })
}

/// A version that dies after its export does not stop the commit: its state outlives it.
pub fn an_old_version_that_dies_after_its_export_does_not(lab: &Lab) -> Outcome {
    exact(lab, |lab| {
        let rig = Rig::new(lab, 2)?;
        let (service, client) = (rig.at(0)?, rig.client(0)?);
        rig.close()?;
        rig.export(0)?;
        service.old.kill()?;
        client.call(EP, 6, FOREVER)?;
        works("the commit", rig.commit())?;
        rig.import(&service.new, 0)?;
        rig.serves(&service.new, 0, &client, 6)?;
        let back = op::HandoverRollback(rig.handover());
        equal("who is dead", back.err().map(|e| e.words[0]), Some(0))?;
        refused("a rollback without the old version", back, Error::ParticipantDead)?;
        rig.is(State::Committed)?;
        rig.finalise()
    })
}

/// A new version that dies before the commit stops it, and another one stands in.
pub fn a_new_version_that_dies_before_the_commit_is_replaced(lab: &Lab) -> Outcome {
    exact(lab, |lab| {
        let rig = Rig::new(lab, 2)?;
        let (service, client) = (rig.at(1)?, rig.client(1)?);
        rig.close()?;
        rig.export(1)?;
        service.new.kill()?;
        dead(&rig, 1 | DEAD_TO)?;
        let next = rig.version(service.endpoint.slot())?;
        works("HandoverReplace", op::HandoverReplace(rig.handover(), 1, next.process()))?;
        works("the commit", rig.commit())?;
        client.call(EP, 4, FOREVER)?;
        rig.import(&next, 1)?;
        rig.serves(&next, 1, &client, 4)?;
        rig.finalise()
    })
}

/// A new version that dies after the commit is replaced from the last state, and its callers wait meanwhile.
pub fn a_new_version_that_dies_after_the_commit_is_replaced(lab: &Lab) -> Outcome {
    exact(lab, |lab| {
        let rig = Rig::new(lab, 2)?;
        let (service, client) = (rig.at(0)?, rig.client(0)?);
        rig.move_all()?;
        let h = rig.handover();
        let next = rig.version(service.endpoint.slot())?;
        let early = op::HandoverReplace(h, 0, next.process());
        refused("replacing a version that lives", early, Error::AlreadyCommitted)?;
        service.new.kill()?;
        client.call(EP, 4, FOREVER)?;
        client.waits("a call to a service whose new version is dead")?;
        works("HandoverReplace", op::HandoverReplace(h, 0, next.process()))?;
        rig.import(&next, 0)?;
        rig.serves(&next, 0, &client, 4)?;
        rig.finalise()
    })
}

/// A new version that dies after the commit is rolled back: the old one answers who waits.
pub fn a_new_version_that_dies_after_the_commit_is_rolled_back(lab: &Lab) -> Outcome {
    exact(lab, |lab| {
        let rig = Rig::new(lab, 1)?;
        let (service, waiting, delivered) = (rig.at(0)?, rig.client(0)?, rig.client(0)?);
        rig.move_all()?;
        delivered.call(EP, 1, FOREVER)?;
        works("recv", service.new.receive(EP, REPLY))?;
        service.new.kill()?;
        refused("the call that it had received", delivered.answer(), Error::PeerDiedDelivered)?;
        waiting.call(EP, 2, FOREVER)?;
        works("HandoverRollback", op::HandoverRollback(rig.handover()))?;
        service.old.revived()?;
        rig.serves(&service.old, 0, &waiting, 2)
    })
}

/// The Handovers of the tests' Job after a cursor.
fn found(after: u64) -> Result<Vec<(u64, OwnedSlot)>, Failure> {
    let (mut all, mut cursor) = (Vec::new(), after);
    loop {
        let mut number = 0;
        let made = make(|dst| {
            let words = op::JobHandover(JOB, cursor, dst)?;
            [number, ..] = words.words;
            Ok(words)
        });
        match made {
            Ok(handover) => all.push((number, handover)),
            Err(error) if error.error == Error::NoMoreEntries => return Ok(all),
            Err(error) => return Err(error.into()),
        }
        cursor = number;
    }
}

/// A manager that is a process of its own, with a Handover over the rig's service.
fn managed(rig: &Rig<'_>) -> Result<(Puppet, OwnedSlot), Failure> {
    let (manager, service) = (rig.puppet()?, rig.at(0)?);
    let handover = works("HandoverCreate", create(FOREVER))?;
    let take_part = works("a copy", copy(handover.slot(), Rights::READ | Rights::WRITE | Rights::COPY))?;
    for version in [&service.old, &service.new] {
        works("dropping the rig's Handover", version.invoke(H, Op::CapDelete, &[]))?;
        version.give(&[(take_part.slot(), H)])?;
    }
    works("HandoverAdd", rig.add_to(handover.slot(), 0))?;
    manager.give(&[(handover.slot(), H)])?;
    // From here on it is the only one who manages it: this capability only looks.
    let look = works("a copy", copy(handover.slot(), Rights::READ))?;
    Ok((manager, look))
}

fn status(handover: &OwnedSlot) -> Result<(Option<State>, u64), Failure> {
    let [state, _, _, _, _, cause] = works("HandoverStatus", op::HandoverStatus(handover.slot()))?.words;
    Ok((State::from_word(state), cause))
}

/// A manager that dies while its Handover is open or closed aborts it: every gate opens, the old version serves.
pub fn a_manager_that_dies_before_the_commit_aborts(lab: &Lab) -> Outcome {
    exact(lab, |lab| {
        for closed in [false, true] {
            let rig = Rig::bare(lab, 1)?;
            let (manager, look) = managed(&rig)?;
            let (service, client) = (rig.at(0)?, rig.client(0)?);
            if closed {
                works("HandoverClose", manager.invoke(H, Op::HandoverClose, &[1]))?;
                client.call(EP, 3, FOREVER)?;
                rig.export(0)?;
            } else {
                client.call(EP, 3, FOREVER)?;
            }
            manager.kill()?;
            equal("state and cause", status(&look)?, (Some(State::Aborted), Cause::Unmanaged as u64))?;
            rig.serves(&service.old, 0, &client, 3)?;
            // It is over, and it is found to be over.
            let (_, last) = found(0)?.pop().ok_or_else(|| Failure::new("the Handover", "found", "lost"))?;
            refused("committing it", op::HandoverCommit(last.slot(), 2), Error::HandoverAborted)?;
        }
        Ok(())
    })
}

/// A manager that dies after its commit leaves it to its successor, who finds it and its processes through the Job,
/// and finalises it or rolls it back.
pub fn a_commit_outlives_its_manager_and_is_adopted(lab: &Lab) -> Outcome {
    exact(lab, |lab| {
        for roll_back in [false, true] {
            let rig = Rig::bare(lab, 1)?;
            let (manager, look) = managed(&rig)?;
            let (service, client) = (rig.at(0)?, rig.client(0)?);
            works("HandoverClose", manager.invoke(H, Op::HandoverClose, &[1]))?;
            rig.export(0)?;
            works("HandoverCommit", manager.invoke(H, Op::HandoverCommit, &[1]))?;
            manager.kill()?;
            drop(look);
            works("letting go", service.new.invoke(H, Op::CapDelete, &[]))?;
            client.call(EP, 5, FOREVER)?;
            let (_, adopted) = found(0)?.pop().ok_or_else(|| Failure::new("the commit", "found", "lost"))?;
            equal("what was found", status(&adopted)?.0, Some(State::Committed))?;
            let [old, new, ..] = works("HandoverService", op::HandoverService(adopted.slot(), 0))?.words;
            for (id, process) in [(old, service.old.process()), (new, service.new.process())] {
                let found = works("JobAdopt", make(|dst| op::JobAdopt(JOB, id, dst)))?;
                let number = |slot| works("ProcessStatus", op::ProcessStatus(slot)).map(|w| w.words);
                equal("the adopted process", number(found.slot())?, number(process)?)?;
            }
            refused(
                "adopting a process that is none",
                op::JobAdopt(JOB, u64::MAX, Slot(900)),
                Error::ObjectGone,
            )?;
            if roll_back {
                works("HandoverRollback", op::HandoverRollback(adopted.slot()))?;
                service.old.revived()?;
                rig.serves(&service.old, 0, &client, 5)?;
            } else {
                works("HandoverFinalise", op::HandoverFinalise(adopted.slot()))?;
                rig.serves(&service.new, 0, &client, 5)?;
            }
        }
        Ok(())
    })
}

/// A Handover whose deadline passes while it is open or closed aborts; one that was committed stays.
pub fn a_deadline_aborts_what_is_not_committed(lab: &Lab) -> Outcome {
    exact(lab, |lab| {
        for committed in [false, true] {
            let rig = Rig::bare(lab, 1)?;
            let (service, client) = (rig.at(0)?, rig.client(0)?);
            let deadline = clock::after(clock::SECOND);
            let handover = works("HandoverCreate", create(deadline))?;
            let h = handover.slot();
            works("HandoverAdd", rig.add_to(h, 0))?;
            works("HandoverClose", op::HandoverClose(h, 1))?;
            if committed {
                works("HandoverCommit", op::HandoverCommit(h, 1))?;
            }
            client.call(EP, 2, FOREVER)?;
            let before = works("HandoverStatus", op::HandoverStatus(h))?.words[2];
            equal("the deadline", before, deadline)?;
            holds("the deadline has not passed yet", clock::now().is_some_and(|now| now < deadline))?;
            while clock::now().is_some_and(|now| now <= deadline) {
                pause(10 * MILLISECOND);
            }
            if committed {
                equal("state and cause", status(&handover)?, (Some(State::Committed), Cause::None as u64))?;
                rig.serves(&service.new, 0, &client, 2)?;
                works("HandoverFinalise", op::HandoverFinalise(h))?;
            } else {
                let aborted = (Some(State::Aborted), Cause::Deadline as u64);
                equal("state and cause", status(&handover)?, aborted)?;
                rig.serves(&service.old, 0, &client, 2)?;
            }
        }
        Ok(())
    })
}

/// Everything comes back whoever dies first, in whatever state.
pub fn everything_comes_back_whoever_dies_first(lab: &Lab) -> Outcome {
    for first in 0..3 {
        exact(lab, |lab| {
            for committed in [false, true] {
                let rig = Rig::bare(lab, 1)?;
                let (manager, look) = managed(&rig)?;
                let (service, client) = (rig.at(0)?, rig.client(0)?);
                works("HandoverClose", manager.invoke(H, Op::HandoverClose, &[1]))?;
                client.call(EP, 1, FOREVER)?;
                rig.export(0)?;
                if committed {
                    works("HandoverCommit", manager.invoke(H, Op::HandoverCommit, &[1]))?;
                }
                drop(look);
                let order = [&service.old, &service.new, &manager];
                for step in 0..order.len() {
                    if let Some(who) = order.get((first + step) % order.len()) {
                        who.kill()?;
                    }
                }
                for (_, left) in found(0)? {
                    let _ = op::HandoverFinalise(left.slot());
                }
                let third = rig.puppet()?;
                works("EndpointBind", op::EndpointBind(service.endpoint.slot(), third.process()))?;
                let receive = works("a copy", copy(service.endpoint.slot(), Rights::RECV | Rights::COPY))?;
                third.give(&[(receive.slot(), EP)])?;
                rig.serves(&third, 0, &client, 1)?;
            }
            Ok(())
        })?;
    }
    Ok(())
}
