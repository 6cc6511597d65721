//! What changes while a verification is finished and not yet acted upon: the last step must read it again.

use crate::cache;
use crate::lab::{
    CACHE, EMPTY, Failure, KEYS, Lab, Outcome, POOL, PROBE_PRIORITY, TEST, accounts, copy, create, create_in,
    equal, filled, holds, refused, sealed, until, works,
};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};
use probe::{Act, REQUEST_COMMAND};
use sila_abi::protocol::layout::OWN_POOL;
use sila_abi::{Error, Rights, Slot};
use sila_rt::slots::{OwnedSlot, make};
use sila_rt::{CallError, clock, ipc, op, thread};

/// Holds verifications before their last step, as long as it lives.
pub(crate) struct Hold;

impl Hold {
    pub(crate) fn new() -> Result<Self, Failure> {
        works("TestHoldVerification", op::TestHoldVerification(TEST, 1)).map(|_| Self)
    }

    pub(crate) fn reached(&self) -> Outcome {
        let deadline = clock::after(10 * clock::SECOND);
        while accounts()?.held == 0 {
            if clock::now().is_none_or(|now| now > deadline) {
                return Err(Failure::new("a verification", "held", "none after ten seconds"));
            }
            crate::lab::pause(clock::MILLISECOND);
        }
        Ok(())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let _ = op::TestHoldVerification(TEST, 0);
    }
}

/// Begins a ProcessCreate in another thread, lets `change` happen when its verification is finished, and gives the
/// error's number (0 for success).
pub(crate) fn between(
    operation: impl FnOnce() -> Result<op::Words, CallError> + Send + 'static,
    change: impl FnOnce() -> Outcome,
) -> Result<u64, Failure> {
    let done = works("NotificationCreate", make(|dst| op::NotificationCreate(OWN_POOL, dst)))?;
    let (slot, result) = (done.slot(), Arc::new(AtomicU64::new(u64::MAX)));
    let answer = Arc::clone(&result);
    let hold = Hold::new()?;
    let caller = thread::spawn(4, move || {
        let code = operation().err().map_or(0, |error| error.error as u64);
        answer.store(code, Ordering::Relaxed);
        let _ = op::Signal(slot, 1);
    });
    works("a thread", caller)?;
    hold.reached()?;
    change()?;
    equal("the caller while it is held", result.load(Ordering::Relaxed), u64::MAX)?;
    drop(hold);
    works("the caller's end", ipc::wait(done.slot(), clock::after(5 * clock::SECOND)))?;
    Ok(result.load(Ordering::Relaxed))
}

fn endpoint() -> Result<OwnedSlot, Failure> {
    works("EndpointCreate", make(|dst| op::EndpointCreate(OWN_POOL, 0, 0, dst)))
}

/// Where the process would go: cleared afterwards, whatever came of it.
pub(crate) const TARGET: Slot = Slot(920);

fn creation(
    lab: &Lab,
    pool: Slot,
    command: Slot,
) -> impl FnOnce() -> Result<op::Words, CallError> + Send + 'static {
    let (image, proof) = (lab.image(), lab.proof());
    move || create_in(image, proof, pool, PROBE_PRIORITY, &[(REQUEST_COMMAND, command)], TARGET)
}

pub(crate) fn nothing_at_target() -> Outcome {
    refused("the destination", op::CapStatus(TARGET), Error::NoCapability)
}

pub fn a_source_deleted_during_verification_is_missed(lab: &Lab) -> Outcome {
    let command = endpoint()?;
    let source = works("a copy", copy(command.slot(), Rights::SEND | Rights::GRANT | Rights::COPY))?;
    let slot = source.slot();
    let code = between(creation(lab, POOL, slot), || {
        drop(source);
        Ok(())
    })?;
    equal("the error", code, Error::SourceGone as u64)?;
    nothing_at_target()?;
    // Another capability in its place does not count either.
    let source = works("a copy", copy(command.slot(), Rights::SEND | Rights::GRANT | Rights::COPY))?;
    let (slot, other) = (source.slot(), endpoint()?);
    let code = between(creation(lab, POOL, slot), || {
        works("CapDelete", op::CapDelete(slot))?;
        let rights = (Rights::SEND | Rights::GRANT | Rights::COPY).bits().into();
        works("CapCopy", op::CapCopy(other.slot(), slot, rights)).map(|_| ())
    })?;
    equal("the error with another source in the slot", code, Error::SourceGone as u64)?;
    nothing_at_target()
}

pub fn a_pool_deleted_during_verification_is_missed(lab: &Lab) -> Outcome {
    let command = endpoint()?;
    let pool = works("PoolCreate", make(|dst| op::PoolCreate(POOL, 1000, 200_000, dst)))?;
    let slot = pool.slot();
    let code = between(creation(lab, slot, command.slot()), || {
        drop(pool);
        Ok(())
    })?;
    equal("the error", code, Error::SourceGone as u64)?;
    nothing_at_target()
}

pub fn a_caller_killed_during_verification_leaves_nothing(lab: &Lab) -> Outcome {
    lab.balanced(|| {
        let child = lab.child()?;
        let share = |slot| works("a copy", copy(slot, Rights::READ | Rights::COPY));
        let (image, proof) = (share(lab.image())?, share(lab.proof())?);
        let hold = Hold::new()?;
        child.start(Act::Create, &[], &[image.slot(), proof.slot(), POOL, crate::lab::JOB])?;
        hold.reached()?;
        works("ProcessTerminate", op::ProcessTerminate(child.process(), 0))?;
        drop(hold);
        until("no verification is held", || accounts().is_ok_and(|now| now.held == 0))
    })?;
    // The verifier serves on.
    lab.child()?.exits(Act::Exit, &[5], &[], 5)
}

pub fn a_destination_filled_during_verification_is_refused(lab: &Lab) -> Outcome {
    let command = endpoint()?;
    let code = between(creation(lab, POOL, command.slot()), || {
        works("CapCopy", op::CapCopy(command.slot(), TARGET, Rights::SEND.bits().into())).map(|_| ())
    })?;
    works("clearing the destination", op::CapDelete(TARGET))?;
    equal("the error", code, Error::SlotOccupied as u64)
}

fn install(lab: &Lab, entry: &str) -> Result<op::Words, CallError> {
    let bytes = lab.data(entry).map_err(|_| CallError::new(Error::NoCapability))?;
    let region = filled(bytes).map_err(|_| CallError::new(Error::OutOfFrames))?.into_region();
    op::KeyRingInstall(KEYS, region.slot(), bytes.len() as u64)
}

pub fn a_stale_or_forged_revocation_is_refused(lab: &Lab) -> Outcome {
    refused("a revocation with a flipped bit", install(lab, "revocation.forged"), Error::RecordSignature)?;
    refused(
        "a revocation that the publisher signed",
        install(lab, "revocation.self"),
        Error::RecordSignature,
    )?;
    refused("an old revocation", install(lab, "revocation.stale"), Error::RecordStale)?;
    let short = sealed(&[1, 2, 3])?;
    let none = op::KeyRingInstall(KEYS, short.slot(), 3);
    refused("three bytes", none, Error::RecordMalformed)?;
    for length in [0, 4097, u64::MAX] {
        let none = op::KeyRingInstall(KEYS, short.slot(), length);
        refused("a length outside the Region", none, Error::InvalidArgument)?;
    }
    refused("no Region", op::KeyRingInstall(KEYS, EMPTY, 3), Error::NoCapability)
}

pub fn a_key_revoked_during_verification_is_refused(lab: &Lab) -> Outcome {
    let proof = sealed(lab.data("revocable.proof")?)?;
    let made = works("a process of that key", create(lab.image(), proof.slot(), POOL, PROBE_PRIORITY, &[]))?;
    works("ending it", op::ProcessTerminate(made.slot(), 0))?;
    let (image, proof_slot) = (lab.image(), proof.slot());
    let own = sealed(lab.data(crate::PROBE_IMAGE)?)?;
    let cached = works("an image of that key in the cache", cache::insert(own.slot(), proof.slot()))?;
    let record = works("CachedImageStatus", sila_rt::cache::image(cached.slot()))?;
    let code = between(
        move || create_in(image, proof_slot, POOL, PROBE_PRIORITY, &[], TARGET),
        || works("KeyRingInstall", install(lab, "revocation.record")).map(|_| ()),
    )?;
    refused("an image of that key", cache::find(&record)?, Error::NotCached)?;
    refused("its handle", op::CachedImageStatus(cached.slot()), Error::ObjectGone)?;
    refused("a process from it", cache::create_cached(cached.slot(), &[]), Error::ObjectGone)?;
    let killed = works("ModuleCacheStatus", sila_rt::cache::state(CACHE))?.killed;
    holds("the cache counts it", killed >= 1)?;
    equal("the error", code, Error::KeyRevoked as u64)?;
    nothing_at_target()?;
    let later = create(lab.image(), proof.slot(), POOL, PROBE_PRIORITY, &[]);
    refused("a process of that key afterwards", later, Error::KeyRevoked)?;
    refused("the same record again", install(lab, "revocation.record"), Error::RecordStale)?;
    holds("others are unaffected", lab.child().is_ok())
}
