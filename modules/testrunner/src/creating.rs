//! ProcessCreate without ModuleManager: what the kernel itself refuses.

use crate::child::Child;
use crate::lab::{
    ENDOW_ONLY, ENDOWED, Failure, Lab, Outcome, POOL, PROBE_PRIORITY, SYSTEM, accounts, copy, create, equal,
    filled, refused, sealed, works,
};
use alloc::format;
use probe::{Act, HELLO, REQUEST_CLOCK, REQUEST_COMMAND, REQUEST_SIGNAL, SURVIVED};
use sila_abi::protocol::layout::{CLOCK, OWN_POOL};
use sila_abi::{Error, ObjectType, Rights, Slot};
use sila_rt::CallError;
use sila_rt::ipc::{self, Message, Received};
use sila_rt::op;
use sila_rt::slots::{OwnedSlot, make};
use sila_rt::system::{capabilities, processes};

fn endpoint() -> Result<OwnedSlot, Failure> {
    works("EndpointCreate", make(|dst| op::EndpointCreate(OWN_POOL, 0, 0, dst)))
}

fn attempt(lab: &Lab, pool: Slot, grants: &[(u16, Slot)]) -> Result<OwnedSlot, CallError> {
    create(lab.image(), lab.proof(), pool, PROBE_PRIORITY, grants)
}

/// A refusal that names this request and leaves nothing.
fn refused_at(what: &str, lab: &Lab, grants: &[(u16, Slot)], want: Error, request: u64) -> Outcome {
    let before = accounts()?;
    match attempt(lab, POOL, grants) {
        Ok(_) => return Err(Failure::new(what, want.name(), "success")),
        Err(error) => equal(what, (error.error, error.words[0]), (want, request))?,
    }
    crate::lab::until("nothing is left", || accounts().is_ok_and(|now| now == before)).map_err(|f| f.at(what))
}

fn error_named(text: &str) -> Result<Error, Failure> {
    let found = Error::ALL.iter().find(|error| error.name() == text);
    found.copied().ok_or_else(|| Failure::new("the list of bad proofs", "a kernel error", text))
}

pub fn bad_proofs_are_refused(lab: &Lab) -> Outcome {
    let mut seen = 0;
    let command = endpoint()?;
    for line in lab.text(crate::BAD_PROOFS)?.lines() {
        let mut words = line.splitn(4, ' ');
        let (Some(want), Some(proof), Some(image), Some(what)) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(Failure::new("the list of bad proofs", "four words", line));
        };
        let (proof, image) = (sealed(lab.data(proof)?)?, sealed(lab.data(image)?)?);
        let grants = [(REQUEST_COMMAND, command.slot())];
        let made = create(image.slot(), proof.slot(), POOL, PROBE_PRIORITY, &grants);
        refused(what, made, error_named(want)?)?;
        seen += 1;
    }
    crate::lab::holds("there are bad proofs", seen > 5)
}

pub fn an_unsealed_image_is_refused(lab: &Lab) -> Outcome {
    let image = filled(lab.data(crate::PROBE_IMAGE)?)?.into_region();
    let command = endpoint()?;
    let grants = [(REQUEST_COMMAND, command.slot())];
    let made = create(image.slot(), lab.proof(), POOL, PROBE_PRIORITY, &grants);
    refused("an image that is not sealed", made, Error::NotSealed)?;
    works("sealing it", op::RegionSeal(image.slot()))?;
    let made =
        works("the same one sealed", create(image.slot(), lab.proof(), POOL, PROBE_PRIORITY, &grants))?;
    works("ending it", op::ProcessTerminate(made.slot(), 0)).map(|_| ())
}

pub fn an_image_with_another_byte_is_refused(lab: &Lab) -> Outcome {
    let good = lab.data(crate::PROBE_IMAGE)?;
    let command = endpoint()?;
    let grants = [(REQUEST_COMMAND, command.slot())];
    for at in [0, 4096, good.len() / 2, good.len() - 1] {
        let mut region = filled(good)?;
        if let Some(byte) = region.bytes_mut().get_mut(at) {
            *byte ^= 1;
        }
        let image = works("sealing", region.seal())?;
        let made = create(image.slot(), lab.proof(), POOL, PROBE_PRIORITY, &grants);
        refused(&format!("byte {at} flipped"), made, Error::ImageDigest)?;
    }
    let longer = [good, &[0; 4096]].concat();
    let image = sealed(&longer)?;
    let made = create(image.slot(), lab.proof(), POOL, PROBE_PRIORITY, &grants);
    refused("a page more", made, Error::ImageSize)
}

pub fn a_missing_mandatory_grant_is_refused(lab: &Lab) -> Outcome {
    refused_at("no command endpoint", lab, &[(REQUEST_CLOCK, CLOCK)], Error::RequestNotGranted, 4)
}

pub fn a_source_of_another_type_is_refused(lab: &Lab) -> Outcome {
    refused_at("a Clock for an Endpoint", lab, &[(REQUEST_COMMAND, CLOCK)], Error::RequestWrongType, 4)
}

pub fn a_source_with_too_few_rights_is_refused(lab: &Lab) -> Outcome {
    let command = endpoint()?;
    let weak = works("a copy", copy(command.slot(), Rights::SEND | Rights::COPY))?;
    refused_at("a source without GRANT", lab, &[(REQUEST_COMMAND, weak.slot())], Error::RequestRights, 4)?;
    let uncopyable = works("a copy", copy(command.slot(), Rights::SEND | Rights::GRANT))?;
    refused_at("a source without COPY", lab, &[(REQUEST_COMMAND, uncopyable.slot())], Error::RequestRights, 4)
}

pub fn a_source_with_another_badge_is_refused(lab: &Lab) -> Outcome {
    // The request for SIGNAL is optional and has badge 6: a source of another badge leaves it out.
    let command = endpoint()?;
    let signal = works("NotificationCreate", make(|dst| op::NotificationCreate(OWN_POOL, dst)))?;
    let rights = u64::from((Rights::SEND | Rights::COPY).bits());
    let other = works("CapMint", make(|dst| op::CapMint(signal.slot(), dst, rights, 1)))?;
    for (source, code) in [(other.slot(), Error::NoCapability as u64), (signal.slot(), 0)] {
        let made = attempt(lab, POOL, &[(REQUEST_COMMAND, command.slot()), (REQUEST_SIGNAL, source)]);
        let process = works("ProcessCreate", made)?;
        let own = works("a copy", copy(command.slot(), crate::creating::RECEIVE))?;
        let child = Child::new(process, own)?;
        child.exits(Act::Signal, &[7], &[], code)?;
    }
    equal("only the badge's flags are set", works("wait", ipc::wait(signal.slot(), 0))?, 6)
}

/// Rights to receive a probe's calls with.
const RECEIVE: Rights = Rights::RECV.union(Rights::SEND).union(Rights::COPY);

pub fn an_endow_only_source_can_be_passed_on(lab: &Lab) -> Outcome {
    let process = works("ProcessCreate", attempt(lab, POOL, &[(REQUEST_COMMAND, ENDOW_ONLY)]))?;
    works("ProcessStart", op::ProcessStart(process.slot()))?;
    let received = ipc::recv(ENDOWED, 0, sila_rt::clock::after(3 * sila_rt::clock::SECOND));
    let Received::Message(call) = works("its call", received)? else {
        return Err(Failure::new("its call", "a message", "flags"));
    };
    equal("its first call", call.message.label, HELLO)?;
    works("the reply", call.reply.send(&Message::with(Act::Exit as u32, &[3])))?;
    crate::lab::until("it has ended", || op::ProcessStatus(process.slot()).is_ok_and(|s| s.words[0] == 4))?;
    equal("its exit code", works("ProcessStatus", op::ProcessStatus(process.slot()))?.words[2], 3)
}

pub fn an_optional_request_may_stay_ungranted(lab: &Lab) -> Outcome {
    let command = endpoint()?;
    let process = works("ProcessCreate", attempt(lab, POOL, &[(REQUEST_COMMAND, command.slot())]))?;
    let child = Child::new(process, command)?;
    child.exits(Act::Signal, &[1], &[], Error::NoCapability as u64)
}

pub fn a_grant_that_nobody_requested_is_refused(lab: &Lab) -> Outcome {
    let command = endpoint()?;
    let good = (REQUEST_COMMAND, command.slot());
    refused_at("request 6 of 6", lab, &[good, (6, CLOCK)], Error::GrantUnrequested, 6)?;
    refused_at("request 60000", lab, &[good, (60000, CLOCK)], Error::GrantUnrequested, 60000)?;
    refused_at("one request twice", lab, &[good, good], Error::InvalidArgument, 4)?;
    refused_at("an empty source", lab, &[good, (3, crate::lab::EMPTY)], Error::NoCapability, 3)
}

pub fn a_pool_that_is_too_small_is_refused(lab: &Lab) -> Outcome {
    let command = endpoint()?;
    let grants = [(REQUEST_COMMAND, command.slot())];
    for (frames, bytes, want) in [
        (255, 200_000, Error::OutOfFrames),
        (300, 65536, Error::OutOfObjectBytes),
        (0, 200_000, Error::OutOfFrames),
        (300, 0, Error::OutOfObjectBytes),
    ] {
        let pool = works("PoolCreate", make(|dst| op::PoolCreate(POOL, frames, bytes, dst)))?;
        refused(&format!("{frames} frames, {bytes} bytes"), attempt(lab, pool.slot(), &grants), want)?;
        let status = works("PoolStatus", op::PoolStatus(pool.slot()))?.words;
        equal("what the Pool pays afterwards", (status[1], status[3]), (0, 0))?;
    }
    Ok(())
}

pub fn a_version_with_other_content_is_refused(lab: &Lab) -> Outcome {
    // The probe's own version was seen with the first probe that ran.
    lab.child()?.exits(Act::DirectionFlag, &[], &[], SURVIVED)?;
    let proof = sealed(lab.data("reuse.proof")?)?;
    let command = endpoint()?;
    let made = create(lab.image(), proof.slot(), POOL, PROBE_PRIORITY, &[(REQUEST_COMMAND, command.slot())]);
    refused("the same version, another manifest", made, Error::VersionReuse)
}

pub fn the_new_process_holds_exactly_its_grants(lab: &Lab) -> Outcome {
    let newest = works("SystemProcess", processes(SYSTEM))?.iter().map(|record| record.id).max().unwrap_or(0);
    let _child = lab.child()?;
    let list = works("SystemProcess", processes(SYSTEM))?;
    let made = list.iter().map(|record| record.id).find(|id| *id > newest);
    let made = made.ok_or_else(|| Failure::new("the new process", "listed", "missing"))?;
    let caps = works("SystemCapability", capabilities(SYSTEM, made))?;
    let seen: alloc::vec::Vec<(u64, u64, u64)> =
        caps.iter().map(|cap| (cap.slot, cap.object_type, cap.rights)).collect();
    let of = |slot: u64, kind: ObjectType, rights: Rights| (slot, kind as u64, u64::from(rights.bits()));
    let want = alloc::vec![
        of(1, ObjectType::Process, Rights::READ | Rights::WRITE | Rights::MANAGE),
        of(2, ObjectType::Thread, Rights::READ | Rights::MANAGE),
        of(3, ObjectType::Pool, Rights::READ | Rights::CREATE),
        of(5, ObjectType::Clock, Rights::READ),
        of(8, ObjectType::Endpoint, Rights::SEND | Rights::GRANT | Rights::COPY),
    ];
    equal("slots, types and rights", seen, want)
}
