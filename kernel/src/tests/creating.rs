//! Processes in the making: what others see of them, and what becomes of them when their making breaks off.

use sila_abi::sif::SifHeader;

use super::failing::scenes::{self, JOB, KEYS, MADE, SYSTEM};
use super::signed::SIGNED;
use super::*;
use crate::cap::ObjRef;
use crate::embryo::{Check, Recipe};
use crate::endow;
use crate::kernel::PERMANENT;
use crate::machine::Next;

/// Where the new process's capability goes.
const DST: Slot = Slot(20);

/// A load in the making, and somebody above it who looks on.
struct Making {
    w: World,
    creator: Actor,
    onlooker: Actor,
}

impl Making {
    /// The request waits for its verification.
    fn new() -> Self {
        let scenes::Scene { mut w, who: creator, act, .. } = scenes::creation(DST.0.into());
        let onlooker = w.actor(90);
        let job = w.k.jobs.iter().next().unwrap().0;
        w.give(onlooker, JOB, reference(ObjectType::Job, job), Rights::USE);
        w.give(onlooker, Slot(10), reference(ObjectType::Thread, creator.thread), Rights::USE);
        for (slot, kind) in [(KEYS, ObjectType::KeyRing), (SYSTEM, ObjectType::SystemControl)] {
            w.give(onlooker, slot, ObjRef { kind, index: 0, generation: PERMANENT }, Rights::USE);
        }
        w.settle();
        let scenes::Act::Invoke(slot, op, args) = act else { panic!("a load is an invocation") };
        let mut words = [0; 6];
        words.copy_from_slice(&args);
        w.call(creator, Tag::new(Call::Invoke, 7, 0, op as u32), |r| {
            r.rdi = slot.0.into();
            [r.rsi, r.rdx, r.r10, r.r8, r.r9, r.r12] = words;
        });
        assert_eq!(w.k.threads.get(creator.thread).unwrap().state, ThreadState::Verifying);
        // It was Ready since the creator ran, and would run instead of the context.
        w.k.leave_wait(onlooker.thread);
        Making { w, creator, onlooker }
    }

    /// The context does its part.
    fn verify(&mut self) {
        self.w.k.schedule(&mut self.w.m);
        self.w.m.run_verification();
    }

    /// The verdict is there, and the first step was taken.
    fn verified() -> Self {
        let mut making = Self::new();
        making.verify();
        making.w.m.preempt_after = Some(0);
        making.w.k.enter(&mut making.w.m, Entry::VerificationDone);
        making
    }

    /// One step, after which an interrupt is let in; false once the creator has its answer.
    fn step(&mut self) -> bool {
        self.w.k.leave_wait(self.onlooker.thread);
        self.w.k.enter(&mut self.w.m, Entry::Timer);
        self.w.sound();
        self.w.k.threads.get(self.creator.thread).unwrap().state == ThreadState::Verifying
    }

    /// The processes that an operation lists, by number.
    fn listed(&mut self, slot: Slot, op: Op) -> Vec<u64> {
        let mut numbers = Vec::new();
        while let Ok(words) = self.w.invoke(self.onlooker, slot, op, &[numbers.last().copied().unwrap_or(0)])
        {
            numbers.push(words[0]);
        }
        numbers
    }
}

#[test]
fn a_process_in_the_making_is_seen_by_nobody() {
    let mut making = Making::verified();
    let number = making.w.k.next_process - 1;
    assert_eq!(making.w.k.processes.iter().filter(|(_, p)| p.number == number).count(), 1, "it has begun");
    let mut steps = 0;
    loop {
        for (slot, op) in [(JOB, Op::JobNext), (SYSTEM, Op::SystemProcess)] {
            let listed = making.listed(slot, op);
            assert!(!listed.is_empty() && !listed.contains(&number), "{op:?}: {listed:?}");
        }
        let adopted = making.w.invoke(making.onlooker, JOB, Op::JobAdopt, &[number, 30]);
        assert_eq!(adopted, Err(Error::ObjectGone));
        if !making.step() {
            break;
        }
        steps += 1;
    }
    assert!(steps > 3, "an interrupt was let in {steps} times only");
    assert_eq!(making.w.outcome(making.creator).status(), Ok(()));
    assert!(making.listed(JOB, Op::JobNext).contains(&number));
    making.w.invoke(making.onlooker, JOB, Op::JobAdopt, &[number, 30]).unwrap();
}

/// Whatever was made until then comes back, at each step.
#[test]
fn a_creator_that_is_suspended_leaves_nothing_half_made() {
    let mut steps = 0;
    while steps < 1000 {
        let mut making = Making::new();
        let before = making.w.baseline();
        making.verify();
        making.w.m.preempt_after = Some(0);
        making.w.k.enter(&mut making.w.m, Entry::VerificationDone);
        let went_on = (0..steps).all(|_| making.step());
        if !went_on {
            break;
        }
        making.w.invoke(making.onlooker, Slot(10), Op::ThreadSuspend, &[]).unwrap();
        // The onlooker spins from now on; the timer alone lets the reaper do it.
        making.w.m.preempt_after = None;
        for _ in 0..200 {
            making.w.k.enter(&mut making.w.m, Entry::Timer);
        }
        assert_eq!(making.w.k.running(), Running::Thread(making.onlooker.thread));
        assert_eq!(making.w.baseline(), before, "after {steps} steps");
        assert!(making.w.k.verifier.embryos().next().is_none());
        steps += 1;
    }
    assert!((4..1000).contains(&steps), "{steps}");
}

/// A request that waits behind a load which is put aside gets the context, and a job.
#[test]
fn a_load_that_is_put_aside_leaves_the_context_a_job() {
    let mut making = Making::new();
    making.w.k.verifier.prepare_hold();
    making.w.k.hold_verification(true);
    making.verify();
    let Making { mut w, onlooker, .. } = making;
    w.invoke(onlooker, POOL, Op::RegionCreate, &[1, 21]).unwrap();
    w.call(onlooker, Tag::new(Call::Invoke, 2, 0, Op::KeyRingInstall as u32), |r| {
        (r.rdi, r.rsi, r.rdx) = (KEYS.0.into(), 21, 100);
    });
    let next = w.k.enter(&mut w.m, Entry::VerificationDone);
    assert_eq!(w.k.verifier.held(), 1);
    assert!(next == Next::Verification && w.m.work.is_some(), "{next:?}");
}

/// Whoever pays may have ended since the last page was made, even if no capability has to be paid any more.
#[test]
fn a_process_is_not_born_into_a_pool_that_has_ended() {
    let scenes::Scene { mut w, who, .. } = scenes::creation(DST.0.into());
    let sif = SifHeader::parse(&SIGNED.image[..4096], SIGNED.image.len() as u64).unwrap();
    let recipe = Recipe {
        manifest: &SIGNED.manifest,
        sif: &sif,
        digest: [0; 32],
        image: crate::kernel::id_of(&w.k.find(who.process, MADE).unwrap().cap),
        payer: w.k.processes.get(who.process).unwrap().pool,
        quota: (SIGNED.manifest.resources.frames, SIGNED.manifest.resources.object_bytes),
        job: w.k.jobs.iter().next().unwrap().0,
        priority: 1,
    };
    let mut embryo = w.k.conceive(&mut w.m, &recipe).unwrap();
    while !embryo.is_whole() {
        w.k.grow_embryo(&mut w.m, &mut embryo, &recipe).unwrap();
    }
    let own = w.k.processes.get(embryo.process).unwrap().pool;
    w.k.end_pool(own);
    let nothing = endow::plan(&[], endow::Authority::BootManifest, |_| None).unwrap();
    let resolved = [u8::MAX; sila_abi::contract::MAX_NODES];
    let check = Check { made_by: None, verified: true, resolved: &resolved, sources: &|_| None };
    let born = w.k.bear(&mut w.m, &embryo, &nothing, &recipe, &check);
    assert_eq!(born.map_err(|fail| fail.error), Err(Error::ObjectGone));
    assert_eq!(w.k.processes.get(embryo.process).unwrap().state, ProcessState::Embryo);
}
