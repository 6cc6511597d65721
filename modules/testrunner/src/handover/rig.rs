//! Services with an old and a new version, and a Handover over them; the test is the manager.

use crate::exhaustion::sound;
use crate::lab::{
    Failure, JOB, Lab, Outcome, POOL, TEST, accounts, copy, equal, pause, sealed, settle, works,
};
use crate::puppet::{Heard, Puppet};
use alloc::format;
use alloc::vec::Vec;
use sila_abi::handover::State;
use sila_abi::protocol::layout::OWN_POOL;
use sila_abi::syscall::FOREVER;
use sila_abi::{Op, Rights, Slot};
use sila_rt::clock::{self, MILLISECOND};
use sila_rt::memory::{SealedRegion, SharedRegion};
use sila_rt::slots::{OwnedSlot, make};
use sila_rt::{CallError, op};

/// The puppets' slot for the Handover.
pub const H: Slot = Slot(10);
/// The puppets' slot for the service's endpoint.
pub const EP: Slot = Slot(11);
/// Where puppets keep Replies.
pub const REPLY: Slot = Slot(20);
/// Where puppets keep a second Reply.
pub const SECOND: Slot = Slot(21);
/// Where puppets keep the state that they export or import.
pub const STATE: Slot = Slot(30);
/// Where puppets keep what they take and make.
pub const THING: Slot = Slot(31);

/// The load proof of a module that declares the service of the rig.
pub const PUPPET_PROOF: &str = "puppet.proof";
/// The load proof of a module that declares another service.
pub const STRANGER_PROOF: &str = "stranger.proof";

/// The badge of a client of service number `i`.
pub const fn badge(i: usize) -> u64 {
    70 + i as u64
}

/// The version of the schema of what service number `i` exports.
pub const fn schema(i: usize) -> u64 {
    700 + i as u64
}

/// Flags of an endpoint: durable, with the label of the service.
pub const DURABLE_LABELLED: u64 = 1 | 2;

/// A service in both versions.
pub struct Service {
    /// The version that serves at first.
    pub old: Puppet,
    /// The version that is to serve.
    pub new: Puppet,
    /// What clients call, with every right.
    pub endpoint: OwnedSlot,
}

/// Services and a Handover that covers them.
pub struct Rig<'a> {
    lab: &'a Lab,
    proof: OwnedSlot,
    /// The services.
    pub services: Vec<Service>,
    /// Who pays for what outlives both versions.
    pub pool: OwnedSlot,
    handover: OwnedSlot,
}

/// A Handover in the tests' Job.
pub fn create(deadline: u64) -> Result<OwnedSlot, CallError> {
    make(|dst| op::HandoverCreate(POOL, JOB, deadline, dst))
}

impl<'a> Rig<'a> {
    /// Services that the Handover does not cover yet.
    pub fn bare(lab: &'a Lab, count: usize) -> Result<Self, Failure> {
        let proof = sealed(lab.data(PUPPET_PROOF)?)?;
        let pool = works("PoolCreate", make(|dst| op::PoolCreate(POOL, 64, 20_000, dst)))?;
        let handover = works("HandoverCreate", create(FOREVER))?;
        let mut rig = Self { lab, proof, services: Vec::new(), pool, handover };
        for _ in 0..count {
            let service = rig.service()?;
            rig.services.push(service);
        }
        Ok(rig)
    }

    /// Services that an open Handover covers.
    pub fn new(lab: &'a Lab, count: usize) -> Result<Self, Failure> {
        let rig = Self::bare(lab, count)?;
        rig.cover()?;
        Ok(rig)
    }

    /// Lets the Handover cover every service.
    pub fn cover(&self) -> Outcome {
        for at in 0..self.services.len() {
            let [index, ..] = works("HandoverAdd", self.add(at))?.words;
            equal("the service's number", index, at as u64)?;
        }
        Ok(())
    }

    /// A puppet that declares the service.
    pub fn puppet(&self) -> Result<Puppet, Failure> {
        Puppet::new(self.lab, self.proof.slot())
    }

    /// A puppet that declares the service, has its endpoint to receive from, and takes part in the Handover.
    pub fn version(&self, endpoint: Slot) -> Result<Puppet, Failure> {
        let puppet = self.puppet()?;
        let receive = works("a copy", copy(endpoint, Rights::RECV | Rights::COPY))?;
        let take_part =
            works("a copy", copy(self.handover.slot(), Rights::READ | Rights::WRITE | Rights::COPY))?;
        puppet.give(&[(receive.slot(), EP), (take_part.slot(), H)])?;
        Ok(puppet)
    }

    fn service(&self) -> Result<Service, Failure> {
        let old = self.puppet()?;
        let args = [DURABLE_LABELLED, 0, EP.0.into()];
        works("EndpointCreate by a service", old.invoke(OWN_POOL, Op::EndpointCreate, &args))?;
        let endpoint = old.show(EP)?;
        let new = self.version(endpoint.slot())?;
        let take_part =
            works("a copy", copy(self.handover.slot(), Rights::READ | Rights::WRITE | Rights::COPY))?;
        old.give(&[(take_part.slot(), H)])?;
        Ok(Service { old, new, endpoint })
    }

    /// A process that holds the send capability of service number `at`.
    pub fn client(&self, at: usize) -> Result<Puppet, Failure> {
        let client = self.puppet()?;
        let rights = (Rights::SEND | Rights::GRANT | Rights::COPY).bits().into();
        let endpoint = self.at(at)?.endpoint.slot();
        let send = works("CapMint", make(|dst| op::CapMint(endpoint, dst, rights, badge(at))))?;
        client.give(&[(send.slot(), EP)])?;
        Ok(client)
    }

    /// Service number `at`.
    pub fn at(&self, at: usize) -> Result<&Service, Failure> {
        self.services.get(at).ok_or_else(|| Failure::new("a service of the rig", "there", "missing"))
    }

    /// The Handover, with every right.
    pub fn handover(&self) -> Slot {
        self.handover.slot()
    }

    /// Lets the Handover cover service number `at`.
    pub fn add(&self, at: usize) -> Result<op::Words, CallError> {
        self.add_to(self.handover(), at)
    }

    /// Lets another Handover cover service number `at`.
    pub fn add_to(&self, handover: Slot, at: usize) -> Result<op::Words, CallError> {
        let service = self.services.get(at).ok_or(sila_abi::Error::InvalidArgument)?;
        let (old, new) = (service.old.process(), service.new.process());
        op::HandoverAdd(handover, service.endpoint.slot(), old, new, self.pool.slot())
    }

    /// The bits of all services.
    pub fn all(&self) -> u64 {
        (1 << self.services.len()) - 1
    }

    /// Shuts every gate.
    pub fn close(&self) -> Outcome {
        let [state, ..] = works("HandoverClose", op::HandoverClose(self.handover(), self.all()))?.words;
        equal("the state after the last gate was shut", state, State::Closed as u64)
    }

    /// State, epoch, deadline, services, shut gates, cause.
    pub fn status(&self) -> Result<[u64; 6], Failure> {
        Ok(works("HandoverStatus", op::HandoverStatus(self.handover()))?.words)
    }

    /// Checks the Handover's state.
    pub fn is(&self, state: State) -> Outcome {
        equal("the Handover's state", State::from_word(self.status()?[0]), Some(state))
    }

    /// Commits with the epoch in force.
    pub fn commit(&self) -> Result<op::Words, CallError> {
        let [_, epoch, ..] = op::HandoverStatus(self.handover())?.words;
        op::HandoverCommit(self.handover(), epoch)
    }

    /// Commits and finalises.
    pub fn finalise(&self) -> Outcome {
        works("HandoverFinalise", op::HandoverFinalise(self.handover()))?;
        self.is(State::Finalised)
    }

    /// The old version of service number `at` makes a Region for its state, which the test fills; it is sealed then
    /// if `seal` is set.
    pub fn prepare(&self, at: usize, seal: bool) -> Outcome {
        let old = &self.at(at)?.old;
        works("RegionCreate", old.invoke(OWN_POOL, Op::RegionCreate, &[1, STATE.0.into()]))?;
        let region = old.show(STATE)?;
        let mut state = works("mapping the state", SharedRegion::map(region, true, 1 << 20))?;
        equal("writing the state", state.write(0, &text(at)), true)?;
        drop(state);
        if seal {
            works("RegionSeal", old.invoke(STATE, Op::RegionSeal, &[]))?;
        }
        Ok(())
    }

    /// The old version of service number `at` exports what it prepared.
    pub fn export_prepared(&self, at: usize) -> Result<[u64; 6], CallError> {
        let service = self.services.get(at).ok_or(sila_abi::Error::InvalidArgument)?;
        service.old.invoke(H, Op::HandoverExport, &[at as u64, schema(at), STATE.0.into()])
    }

    /// The old version of service number `at` exports a sealed state.
    pub fn export(&self, at: usize) -> Outcome {
        self.prepare(at, true)?;
        works("HandoverExport", self.export_prepared(at)).map(|_| ())
    }

    /// Shuts every gate, exports every state, commits.
    pub fn move_all(&self) -> Outcome {
        self.close()?;
        (0..self.services.len()).try_for_each(|at| self.export(at))?;
        works("HandoverCommit", self.commit())?;
        self.is(State::Committed)
    }

    /// Lets a version import the state of service number `at`, and compares every byte.
    pub fn import(&self, who: &Puppet, at: usize) -> Outcome {
        let got = works("HandoverState", who.invoke(H, Op::HandoverState, &[at as u64, STATE.0.into()]))?;
        equal("pages and schema of the state", [got[0], got[1]], [1, schema(at)])?;
        let state = works("mapping the state", SealedRegion::map(who.show(STATE)?, 1 << 20))?;
        let want = text(at);
        equal("the state", state.bytes().get(..want.len()), Some(&want[..]))
    }

    /// Lets a version receive a call to service number `at` and answer it with the label and one.
    pub fn serves(&self, who: &Puppet, at: usize, client: &Puppet, label: u32) -> Outcome {
        let heard = works(&format!("service {at} receives call {label}"), who.receive(EP, REPLY))?;
        equal("the call", heard, Heard { label, badge: badge(at), word: label.into() })?;
        works("the answer", who.reply(REPLY, label + 1))?;
        equal("the caller's answer", works("the call", client.answer())?, label + 1)
    }
}

impl Drop for Rig<'_> {
    fn drop(&mut self) {
        // What a failed test left committed would stay for ever.
        let _ = op::HandoverFinalise(self.handover());
    }
}

/// The state of a service.
fn text(at: usize) -> Vec<u8> {
    format!("state {at} of a service").into_bytes()
}

/// Runs a test's body. Afterwards the kernel's accounts are what they were, its invariants hold, and its page tables
/// are as they should be. The first time may grow the runner's own heap and slots: then it counts the second time.
pub fn exact(lab: &Lab, body: impl Fn(&Lab) -> Outcome) -> Outcome {
    for last in [false, true] {
        settle()?;
        let before = accounts()?;
        body(lab)?;
        let deadline = clock::after(clock::SECOND);
        while accounts()? != before && clock::now().is_some_and(|now| now < deadline) {
            pause(5 * MILLISECOND);
        }
        sound()?;
        let [pages, rule, process, address, ..] = works("TestAudit", op::TestAudit(TEST))?.words;
        equal("broken rule, process, address of a page", (rule, process, address), (0, 0, 0))?;
        equal("pages walked", pages > 0, true)?;
        let after = accounts()?;
        if last || after == before {
            return equal("frames, object bytes, objects and capabilities afterwards", after, before);
        }
    }
    Ok(())
}
