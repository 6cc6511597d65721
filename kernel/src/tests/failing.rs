//! Every allocation of every operation is made to fail once: the operation fails for lack of memory, nothing in the
//! kernel has changed, and then it succeeds.

mod picture;
pub mod scenes;
mod updates;

use sila_abi::ops::{Arg, TABLE};

use super::*;
use picture::{differences, picture};
use scenes::{Act, SCENES, Scene};

/// Where every scene has its TestControl.
const TEST: Slot = Slot(60);
/// Allocations that no operation makes more of.
const MANY: u64 = 60;

/// What a lack of memory is called.
const EXHAUSTED: [Error; 3] = [Error::OutOfFrames, Error::OutOfObjectBytes, Error::ArenaFull];

impl Scene {
    /// Lets the allocation with this number fail; true if the one asked for before has failed.
    fn arm(&mut self, nth: u64) -> bool {
        self.w.invoke(self.who, TEST, Op::TestFailAllocation, &[nth]).unwrap()[0] == 1
    }

    /// Does what the scene is about, to its end.
    pub(super) fn perform(&mut self) -> Result<(), Error> {
        let (who, w) = (self.who, &mut self.w);
        let outcome = match &self.act {
            Act::Invoke(slot, op, args) => {
                let mut words = [0; 6];
                words[..args.len()].copy_from_slice(args);
                // A seventh word stands in the message page, where a scene wants one.
                w.call(who, Tag::new(Call::Invoke, 7, 0, *op as u32), |r| {
                    r.rdi = slot.0.into();
                    [r.rsi, r.rdx, r.r10, r.r8, r.r9, r.r12] = words;
                })
                .status()
            }
            Act::Message(call, slot, say) => w.message(who, *call, *slot, *say).status(),
        };
        if w.k.threads.get(who.thread).is_some_and(|t| t.state == ThreadState::Verifying) {
            w.k.schedule(&mut w.m);
            w.m.run_verification();
            w.k.enter(&mut w.m, Entry::VerificationDone);
            w.sound();
            return w.outcome(who).status();
        }
        // Who waits has not been refused.
        let waits = w.k.threads.get(who.thread).is_some_and(|t| t.state != ThreadState::Running);
        if waits { Ok(()) } else { outcome }
    }
}

/// Tries one scene with each of its allocations failing; returns how many those are.
fn strike_each(what: &str, make: fn() -> Scene) -> u64 {
    for nth in 1..MANY {
        let mut s = make();
        let wanted = s.errors;
        let before = picture(&mut s.w);
        s.arm(nth);
        let result = s.perform();
        if !s.arm(0) {
            let fine = result.is_ok() || result == Err(Error::InvalidOperation) && s.refused;
            assert!(fine, "{what}: {result:?} although nothing failed");
            return nth - 1;
        }
        let error = result.expect_err(what);
        assert!(wanted.contains(&error), "{what}: allocation {nth} failing is called {error:?}");
        // What is in no list of what waits to be attended to is not seen to later.
        let after = picture(&mut s.w);
        let changed = differences(&before, &after);
        assert!(changed.is_empty(), "{what}: allocation {nth} failing changes\n{}", changed.join("\n"));
        assert!(s.w.k.audit(&mut s.w.m).is_ok(), "{what}");
        assert_eq!(s.perform(), Ok(()), "{what}: after allocation {nth} failed");
    }
    panic!("{what}: there is no end of allocations");
}

#[test]
fn every_failed_allocation_of_every_operation_changes_nothing() {
    for row in TABLE {
        let scenes: Vec<_> = SCENES.iter().filter(|s| s.0 == row.op).collect();
        assert!(!scenes.is_empty(), "{} has no scene in kernel/src/tests/failing/scenes.rs", row.name);
        let makes = row.args.iter().any(|(_, kind)| *kind == Arg::Dst);
        for (_, kind, make) in scenes {
            let what = std::format!("{} {kind}", row.name);
            let strikes = strike_each(&what, *make);
            // Every destination lies in a chunk that the CSpace does not have yet.
            assert!(!makes || strikes > 0, "{what} allocates nothing");
        }
    }
}

#[test]
fn every_failed_allocation_of_every_message_changes_nothing() {
    for (what, make) in scenes::MESSAGES {
        let strikes = strike_each(what, *make);
        assert!(strikes > 0, "{what} allocates nothing");
    }
}

#[test]
fn a_queued_message_that_finds_no_room_is_its_sender_s_loss_and_costs_the_receiver_nothing() {
    for nth in 1.. {
        let (w, server, client) = scenes::queued();
        let act = Act::Message(Call::Recv, handover::EP, scenes::receive_two());
        let mut s = Scene { w, who: server, act, errors: &[], refused: false };
        let chunks = s.w.k.caps.usable(server.process.index());
        s.arm(nth);
        assert_eq!(s.perform(), Ok(()));
        let waits = matches!(s.w.state(server), ThreadState::Receiving { .. });
        let now = s.w.k.caps.usable(server.process.index());
        if !s.arm(0) {
            assert_eq!((waits, s.w.outcome(client).status()), (false, Ok(())));
            assert_eq!(now.count_ones(), chunks.count_ones() + 2);
            assert_eq!(nth, 3, "a chunk for each of the two capabilities");
            return;
        }
        assert!(waits, "the receiver waits for another message");
        assert_eq!(s.w.outcome(client).status(), Err(Error::TransferFailed));
        assert_eq!(now, chunks, "failing allocation {nth}");
    }
}

#[test]
fn only_allocations_of_the_thread_that_asked_count_and_one_fails() {
    let mut s = scenes::notification();
    let other = s.w.actor(40);
    s.arm(1);
    s.w.invoke(other, POOL, Op::NotificationCreate, &[9]).unwrap();
    assert_eq!(s.perform(), Err(Error::OutOfObjectBytes), "the first allocation is the chunk's charge");
    assert_eq!(s.perform(), Ok(()), "one fails, and no more");
    assert!(s.arm(1));
    assert!(!s.arm(0), "what was armed and not reached has not failed");
}

#[test]
fn the_short_paths_do_not_allocate_past_an_armed_failure() {
    let mut s = scenes::small_region();
    s.arm(1);
    assert!(s.w.k.attention.contains(Attention::FAILING));
    assert_eq!(s.perform(), Err(Error::ArenaFull));
    s.w.settle();
    assert!(!s.w.k.attention.contains(Attention::FAILING), "nothing keeps the short paths away any more");
    s.arm(1);
    let thread = s.who.thread;
    s.w.k.end_thread(&mut s.w.m, thread);
    s.w.k.enter(&mut s.w.m, Entry::Timer);
    assert!(!s.w.k.attention.contains(Attention::FAILING), "nor when the thread has ended");
}

#[test]
fn a_message_page_without_room_for_tables_costs_nothing() {
    // Exhaustion by itself, without the hook: the last frame goes to the thread's registers.
    let mut w = World::new();
    let a = w.actor(50);
    let frames = w.k.pools.get(w.k.processes.get(a.process).unwrap().pool).unwrap().frames;
    w.invoke(a, POOL, Op::RegionCreate, &[8, 9]).unwrap();
    let spare = frames.left() - 8 - 1;
    w.invoke(a, POOL, Op::PoolCreate, &[spare, 100, 10]).unwrap();
    let before = picture(&mut w);
    let args = [0x10_0000, 0x20_0000, 0, 10, 0x60_0000_0000, 11];
    assert_eq!(w.invoke(a, PROCESS, Op::ThreadCreate, &args), Err(Error::OutOfFrames));
    assert_eq!(picture(&mut w), before);
}
