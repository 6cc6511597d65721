//! CPU budgets and the timer, on a simulated clock that stands still while the kernel works.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::budget::{Budget, foreground};
use crate::fast::{Rest, SHORT};
use crate::invariants::Rule;
use crate::queue::Alarm;

const MS: u64 = 1_000_000;
const PERIOD: u64 = 10 * MS;
const AMOUNT: u64 = 2 * MS;
/// A process that is not the tested one's, in its slot 30.
const OTHER: Slot = Slot(30);

/// A world in which every actor's thread is ready and the clock stands at 0.
fn world(priorities: &[u8]) -> (World, Vec<Actor>) {
    let mut w = World::new();
    w.m.time = 0;
    let actors = priorities.iter().map(|p| w.actor(*p)).collect();
    w.k.decide(&mut w.m);
    w.sound();
    (w, actors)
}

fn budget(w: &mut World, a: Actor, period: u64, amount: u64) {
    let budget = Budget::new(period, amount, w.m.time).unwrap();
    w.k.set_budget(a.process, budget).unwrap();
    w.k.decide(&mut w.m);
    w.sound();
}

/// The timer fires at its time, if that has come.
fn fire(w: &mut World) {
    w.m.timer = u64::MAX;
    w.k.enter(&mut w.m, Entry::Timer);
    w.sound();
}

/// Lets all that is ready spin until a time, as the kernel decides; says how long each thread ran.
fn spin(w: &mut World, until: u64) -> BTreeMap<u32, u64> {
    let mut ran = BTreeMap::new();
    loop {
        let next = w.m.timer.clamp(w.m.time, until);
        *ran.entry(w.k.current).or_default() += next - w.m.time;
        w.m.time = next;
        if w.m.timer > until {
            return ran;
        }
        fire(w);
    }
}

fn time_of(ran: &BTreeMap<u32, u64>, a: Actor) -> u64 {
    ran.get(&a.thread.index()).copied().unwrap_or(0)
}

/// The running thread makes a system call without words.
fn syscall(w: &mut World, call: Call) {
    let Running::Thread(id) = w.k.running() else { panic!("nothing runs") };
    w.k.threads.get_mut(id).unwrap().context.registers.rax = Tag::new(call, 0, 0, 0).0;
    w.k.enter(&mut w.m, Entry::Syscall);
    w.sound();
}

fn sleep(w: &mut World, a: Actor) {
    w.k.suspend(a.thread);
    w.k.decide(&mut w.m);
}

fn wake(w: &mut World, a: Actor) {
    w.k.resume(a.thread).unwrap();
    w.k.settle(&mut w.m);
    w.sound();
}

/// Another thread of a process.
fn thread(w: &mut World, a: Actor, priority: u8) -> Actor {
    let start = Start { entry: 0x10_0000, stack: 0x20_0000, argument: 0, priority, message_page: 0 };
    let thread = w.k.new_thread(&mut w.m, a.process, start).unwrap();
    w.k.make_ready(thread);
    w.k.decide(&mut w.m);
    Actor { process: a.process, thread }
}

#[test]
fn a_spent_process_leaves_the_rest_of_each_period_to_lower_priorities() {
    let (mut w, actors) = world(&[50, 40]);
    budget(&mut w, actors[0], PERIOD, AMOUNT);
    let ran = spin(&mut w, 10 * PERIOD);
    assert_eq!((time_of(&ran, actors[0]), time_of(&ran, actors[1])), (10 * AMOUNT, 10 * (PERIOD - AMOUNT)));
}

#[test]
fn a_spent_process_goes_on_at_the_next_period() {
    let (mut w, actors) = world(&[50, 40]);
    budget(&mut w, actors[0], PERIOD, AMOUNT);
    spin(&mut w, PERIOD - 1);
    assert_eq!(w.k.running(), Running::Thread(actors[1].thread));
    spin(&mut w, PERIOD);
    assert_eq!(w.k.running(), Running::Thread(actors[0].thread));
}

#[test]
fn a_spent_process_runs_while_nobody_else_wants_to() {
    let (mut w, actors) = world(&[50, 40]);
    budget(&mut w, actors[0], PERIOD, AMOUNT);
    sleep(&mut w, actors[1]);
    let ran = spin(&mut w, 7 * MS);
    assert_eq!(time_of(&ran, actors[0]), 7 * MS);
    // A lower priority that wakes comes first, though the timer does not fire.
    wake(&mut w, actors[1]);
    assert_eq!(w.k.running(), Running::Thread(actors[1].thread));
    // What it ran in the background cost nothing.
    let ran = spin(&mut w, 2 * PERIOD);
    assert_eq!(time_of(&ran, actors[0]), AMOUNT);
}

#[test]
fn in_the_background_priorities_and_turns_hold_as_elsewhere() {
    let (mut w, actors) = world(&[60, 50, 50]);
    for a in &actors {
        budget(&mut w, *a, 10_000 * MS, AMOUNT);
    }
    let ran = spin(&mut w, 3 * AMOUNT);
    assert!(actors.iter().all(|a| time_of(&ran, *a) == AMOUNT), "{ran:?}");
    let ran = spin(&mut w, 100 * MS);
    assert_eq!(time_of(&ran, actors[0]), 94 * MS, "the highest of the spent");
    sleep(&mut w, actors[0]);
    let ran = spin(&mut w, 300 * MS);
    let (one, other) = (time_of(&ran, actors[1]), time_of(&ran, actors[2]));
    assert!(one + other == 200 * MS && one.abs_diff(other) <= crate::sched::SLICE, "{one} and {other}");
}

#[test]
fn more_threads_do_not_run_longer() {
    let (mut w, actors) = world(&[50, 40]);
    budget(&mut w, actors[0], PERIOD, AMOUNT);
    let more = [thread(&mut w, actors[0], 50), thread(&mut w, actors[0], 60), thread(&mut w, actors[0], 10)];
    let ran = spin(&mut w, 10 * PERIOD);
    let all: u64 = more.iter().chain([&actors[0]]).map(|a| time_of(&ran, *a)).sum();
    assert_eq!((all, time_of(&ran, actors[1])), (10 * AMOUNT, 10 * (PERIOD - AMOUNT)));
}

#[test]
fn threads_of_one_budget_take_turns_over_its_periods() {
    let (mut w, actors) = world(&[50, 40]);
    budget(&mut w, actors[0], PERIOD, AMOUNT);
    let second = thread(&mut w, actors[0], 50);
    let ran = spin(&mut w, 40 * PERIOD);
    assert_eq!(time_of(&ran, actors[0]) + time_of(&ran, second), 40 * AMOUNT);
    let (first, second) = (time_of(&ran, actors[0]), time_of(&ran, second));
    assert!(first.abs_diff(second) <= crate::sched::SLICE, "{first} and {second}");
}

#[test]
fn yielding_does_not_run_longer() {
    let (mut w, actors) = world(&[50, 40]);
    budget(&mut w, actors[0], PERIOD, AMOUNT);
    let mut ran = BTreeMap::new();
    while w.m.time < 5 * PERIOD {
        let until = (w.m.time + 70_000).min(5 * PERIOD);
        for (who, time) in spin(&mut w, until) {
            *ran.entry(who).or_default() += time;
        }
        syscall(&mut w, Call::Yield);
    }
    assert_eq!(time_of(&ran, actors[0]), 5 * AMOUNT);
}

#[test]
fn blocking_and_suspension_do_not_renew_the_amount() {
    let (mut w, actors) = world(&[50, 40]);
    budget(&mut w, actors[0], PERIOD, AMOUNT);
    let mut ran = 0;
    for at in (0..3 * PERIOD).step_by(MS as usize) {
        ran += time_of(&spin(&mut w, at + MS / 2), actors[0]);
        sleep(&mut w, actors[0]);
        ran += time_of(&spin(&mut w, at + MS), actors[0]);
        wake(&mut w, actors[0]);
    }
    assert_eq!(ran, 3 * AMOUNT);
}

#[test]
fn a_call_to_a_spent_server_waits_for_it_in_the_background() {
    let (mut w, actors) = world(&[50, 40, 30, 60]);
    let [server, low, lower, spinner] = actors[..] else { panic!() };
    w.invoke(server, POOL, Op::EndpointCreate, &[0, 0, 10]).unwrap();
    w.share(server, Slot(10), low, Slot(10), Rights::SEND, 1);
    w.share(server, Slot(10), lower, Slot(10), Rights::SEND, 2);
    budget(&mut w, server, PERIOD, AMOUNT);
    w.k.processes.get_mut(server.process).unwrap().budget.used = AMOUNT - 1;
    w.switch_to(server);
    w.m.time += 1;
    fire(&mut w);
    assert!(w.k.processes.get(server.process).unwrap().budget.spent);
    // Both wait, the lower one first; the higher one is received first, and the server runs at its priority.
    assert!(!w.k.threads.get(server.thread).unwrap().quirks.is_empty());
    w.message(lower, Call::Call, Slot(10), forever(0));
    w.message(low, Call::Call, Slot(10), forever(0));
    let o = w.message(server, Call::Recv, Slot(10), forever(20));
    assert_eq!((o.status(), w.badge(server)), (Ok(()), 1));
    assert_eq!(w.k.threads.get(server.thread).unwrap().effective, 50);
    w.k.attention |= Attention::SCHEDULE;
    w.k.settle(&mut w.m);
    assert_eq!(w.k.running(), Running::Thread(spinner.thread), "nobody's priority lends it CPU time");
    sleep(&mut w, spinner);
    assert_eq!(w.k.running(), Running::Thread(server.thread));
    assert_eq!(w.message(server, Call::Reply, Slot(20), Say::default()).status(), Ok(()));
    assert_eq!(w.state(low), ThreadState::Running);
}

#[test]
fn the_fast_path_leaves_budgets_alone() {
    let (mut w, actors) = world(&[50, 40, 30]);
    let [server, client, waiter] = actors[..] else { panic!() };
    w.invoke(server, POOL, Op::EndpointCreate, &[0, 0, 10]).unwrap();
    w.share(server, Slot(10), client, Slot(10), Rights::SEND, 1);
    w.invoke(waiter, POOL, Op::NotificationCreate, &[11]).unwrap();
    let try_call = |w: &mut World| {
        w.message(server, Call::Recv, Slot(10), forever(20));
        w.switch_to(client);
        let r = &mut w.k.threads.get_mut(client.thread).unwrap().context.registers;
        (r.rax, r.rdi, r.r14) = (Tag::new(Call::Call, 0, 0, 0).0, 10, FOREVER);
        w.k.fast_call::<SHORT>(&mut w.m).map(|_| ())
    };
    let try_wait = |w: &mut World| {
        w.switch_to(waiter);
        let r = &mut w.k.threads.get_mut(waiter.thread).unwrap().context.registers;
        (r.rax, r.rdi, r.r14) = (Tag::new(Call::Recv, 0, 0, 0).0, 11, FOREVER);
        w.k.fast_recv().map(|_| ())
    };
    for whose in [server, client] {
        budget(&mut w, whose, PERIOD, AMOUNT);
        assert_eq!(try_call(&mut w), Err(Rest::All));
        w.k.lift_budget(whose.process);
        w.k.decide(&mut w.m);
    }
    assert_eq!(try_call(&mut w), Ok(()), "without budgets it takes the call");
    w.message(server, Call::Reply, Slot(20), Say::default());
    // Of the two that are ready then, the first one has a budget.
    sleep(&mut w, server);
    budget(&mut w, client, PERIOD, AMOUNT);
    assert_eq!(try_wait(&mut w), Err(Rest::All));
    w.k.lift_budget(client.process);
    w.k.decide(&mut w.m);
    assert_eq!(try_wait(&mut w), Ok(()));
}

#[test]
fn only_a_manager_of_the_process_sets_its_budget() {
    let (mut w, actors) = world(&[50, 40]);
    let [a, manager] = actors[..] else { panic!() };
    w.share(a, PROCESS, manager, OTHER, Rights::READ | Rights::WRITE, 0);
    let set = |w: &mut World, by: Actor, slot: Slot, period: u64, amount: u64| {
        w.invoke(by, slot, Op::ProcessSetBudget, &[period, amount]).map(|_| ())
    };
    assert_eq!(set(&mut w, manager, OTHER, PERIOD, AMOUNT), Err(Error::MissingRight));
    w.invoke(manager, OTHER, Op::CapDelete, &[]).unwrap();
    w.share(a, PROCESS, manager, OTHER, Rights::MANAGE | Rights::READ, 0);
    assert_eq!(set(&mut w, manager, OTHER, PERIOD, AMOUNT), Ok(()));
    let end = w.m.time + PERIOD;
    assert_eq!(w.invoke(manager, OTHER, Op::ProcessBudget, &[]).unwrap()[..5], [PERIOD, AMOUNT, 0, 0, end]);
    for (period, amount) in [(0, AMOUNT), (PERIOD, 0), (PERIOD, PERIOD + 1), (1, 1), (u64::MAX, u64::MAX)] {
        assert_eq!(set(&mut w, manager, OTHER, period, amount), Err(Error::InvalidArgument));
    }
    for (period, amount) in [(0, 0), (PERIOD, PERIOD)] {
        assert_eq!(set(&mut w, a, PROCESS, period, amount), Err(Error::OwnBudget));
    }
    assert_eq!(w.invoke(manager, OTHER, Op::ProcessBudget, &[]).unwrap()[..2], [PERIOD, AMOUNT]);
    assert_eq!(set(&mut w, manager, OTHER, 0, 0), Ok(()));
    assert_eq!(w.invoke(manager, OTHER, Op::ProcessBudget, &[]).unwrap()[..5], [0; 5]);
    w.invoke(manager, OTHER, Op::ProcessTerminate, &[1]).unwrap();
    assert_eq!(set(&mut w, manager, OTHER, PERIOD, AMOUNT), Err(Error::Dying));
}

#[test]
fn a_budget_can_be_lifted_and_set_anew_while_it_is_spent() {
    let (mut w, actors) = world(&[50, 40]);
    let second = thread(&mut w, actors[0], 50);
    budget(&mut w, actors[0], PERIOD, AMOUNT);
    spin(&mut w, AMOUNT);
    assert_eq!(w.k.running(), Running::Thread(actors[1].thread));
    budget(&mut w, actors[0], PERIOD, AMOUNT);
    assert!(w.k.running() != Running::Thread(actors[1].thread), "its first period begins at once");
    let ran = spin(&mut w, PERIOD);
    assert_eq!(time_of(&ran, actors[0]) + time_of(&ran, second), AMOUNT);
    w.k.lift_budget(actors[0].process);
    w.k.decide(&mut w.m);
    w.sound();
    let ran = spin(&mut w, 3 * PERIOD);
    assert_eq!(time_of(&ran, actors[0]) + time_of(&ran, second), 2 * PERIOD);
}

#[test]
fn a_process_that_ends_while_it_is_spent_leaves_nothing() {
    let (mut w, actors) = world(&[50, 40]);
    let before = w.baseline();
    let a = w.actor(60);
    w.share(a, PROCESS, actors[0], OTHER, Rights::MANAGE | Rights::READ, 0);
    budget(&mut w, a, PERIOD, AMOUNT);
    thread(&mut w, a, 60);
    thread(&mut w, a, 5);
    let until = w.m.time + AMOUNT;
    spin(&mut w, until);
    assert!(w.k.processes.get(a.process).unwrap().budget.spent);
    w.invoke(actors[0], OTHER, Op::ProcessTerminate, &[1]).unwrap();
    assert_eq!(w.invoke(actors[0], OTHER, Op::ProcessBudget, &[]).unwrap()[..5], [0; 5]);
    w.invoke(actors[0], OTHER, Op::CapDelete, &[]).unwrap();
    w.settle();
    assert_eq!(w.baseline(), before);
    assert_eq!((w.k.timers.next(), w.k.budgets.background.highest()), (None, None));
}

#[test]
fn what_the_kernel_made_it_run_too_long_is_taken_from_the_next_periods() {
    let (mut w, actors) = world(&[50, 40]);
    budget(&mut w, actors[0], PERIOD, AMOUNT);
    // The timer comes late, as after a long step of the kernel.
    w.m.time = 2 * AMOUNT + MS;
    fire(&mut w);
    let ran = spin(&mut w, 3 * PERIOD);
    assert_eq!(time_of(&ran, actors[0]), 3 * AMOUNT - (2 * AMOUNT + MS));
}

#[test]
fn verification_is_paid_by_who_asks_for_it() {
    let (mut w, actors) = world(&[50, 40]);
    let [a, low] = actors[..] else { panic!() };
    let ring = crate::cap::ObjRef { kind: ObjectType::KeyRing, index: 0, generation: 1 };
    w.give(a, Slot(20), ring, Rights::USE);
    w.invoke(a, POOL, Op::RegionCreate, &[1, 21]).unwrap();
    budget(&mut w, a, PERIOD, AMOUNT);
    w.call(a, Tag::new(Call::Invoke, 2, 0, Op::KeyRingInstall as u32), |r| {
        (r.rdi, r.rsi, r.rdx) = (20, 21, 100);
    });
    assert_eq!(w.k.verification_claim(), Some(foreground(50)));
    assert_eq!(w.k.running(), Running::Verification);
    let ran = spin(&mut w, PERIOD - 1);
    assert_eq!(time_of(&ran, low), PERIOD - 1 - AMOUNT, "the rest of the period is another's");
    assert_eq!(w.k.verification_claim(), Some(50), "the job waits in the background");
    spin(&mut w, PERIOD);
    assert_eq!(w.k.running(), Running::Verification);
}

#[test]
fn an_idle_processor_is_woken_by_nothing_but_the_next_deadline() {
    let (mut w, actors) = world(&[50, 50]);
    let [a, b] = actors[..] else { panic!() };
    assert_eq!(w.m.timer, crate::sched::SLICE, "two equals take turns");
    for actor in [a, b] {
        w.invoke(actor, POOL, Op::NotificationCreate, &[12]).unwrap();
    }
    w.message(a, Call::Recv, Slot(12), forever(0));
    let mut say = forever(0);
    say.deadline = w.m.time + 1000 * MS;
    w.message(b, Call::Recv, Slot(12), say);
    assert_eq!((w.k.running(), w.m.timer), (Running::Idle, say.deadline));
    w.m.time = say.deadline;
    fire(&mut w);
    assert_eq!((w.k.running(), w.m.timer), (Running::Thread(b.thread), u64::MAX));
    w.message(b, Call::Recv, Slot(12), forever(0));
    assert_eq!((w.k.running(), w.m.timer), (Running::Idle, u64::MAX), "halted until an interrupt");
}

#[test]
fn timers_that_are_due_together_run_in_bounded_steps() {
    let mut w = World::sized(4000, Capacities { notifications: 64, ..CAPACITIES });
    let a = w.actor_with(50, (200, 200_000));
    for slot in 0..40u64 {
        w.invoke(a, POOL, Op::NotificationCreate, &[100 + slot]).unwrap();
        w.invoke(a, Slot(100 + slot as u16), Op::NotificationAlarm, &[10, 1]).unwrap();
    }
    w.m.time = 20;
    let mut steps = 0;
    while w.k.timers.next().is_some() {
        assert!(w.m.timer <= 20, "the timer fires again at once");
        fire(&mut w);
        steps += 1;
    }
    assert!(steps > 1);
}

/// Damage to budgets that the rule notices: what, and its detail.
#[test]
fn the_rule_of_budgets_notices_damage() {
    type Damage = fn(&mut World, Actor);
    let damages: [(u64, Damage); 7] = [
        (0, |w, a| w.k.processes.get_mut(a.process).unwrap().budget.amount = PERIOD + 1),
        (0, |w, a| w.k.processes.get_mut(a.process).unwrap().budget.used = 0),
        (1, |w, a| w.k.timers.set(Alarm::Budget(a.process.index()), 1 << 40)),
        (2, |w, a| w.k.threads.get_mut(a.thread).unwrap().quirks -= Quirks::BUDGETED),
        (3, |w, a| w.k.threads.get_mut(a.thread).unwrap().slice_left = 0),
        (4, |w, a| {
            let k = &mut w.k;
            k.budgets.background.move_to(&mut k.ready, &mut k.threads, |t| t.process == a.process);
        }),
        (5, |w, a| w.k.budgets.payer = Some(a.process)),
    ];
    for (detail, damage) in damages {
        let (mut w, actors) = world(&[50, 40]);
        budget(&mut w, actors[0], PERIOD, AMOUNT);
        spin(&mut w, AMOUNT);
        w.sound();
        damage(&mut w, actors[0]);
        let found = w.k.check_invariants(&mut w.m).map_err(|b| (b.rule, b.detail));
        assert_eq!(found, Err((Rule::Budget, detail)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    /// Whatever threads do, a process runs for no longer than its amount in each of its periods while another one
    /// wants to, and what runs has the strongest claim.
    #[test]
    fn no_process_runs_longer_than_its_budget(
        steps in proptest::collection::vec((0u8..7, 0usize..4, 1u64..4_000_000), 1..80),
        amounts in proptest::array::uniform3(AMOUNT / 4..PERIOD / 2),
    ) {
        // The last one has no budget, the lowest priority, and always wants to run.
        let (mut w, actors) = world(&[70, 60, 60, 1]);
        for (a, amount) in actors.iter().zip(amounts) {
            budget(&mut w, *a, PERIOD, amount);
        }
        let mut in_period = [0u64; 3];
        for (step, who, time) in steps {
            match step {
                0 if who < 3 && w.state(actors[who]) != ThreadState::Inactive => sleep(&mut w, actors[who]),
                1 if w.state(actors[who]) == ThreadState::Inactive => wake(&mut w, actors[who]),
                2 => syscall(&mut w, Call::Yield),
                _ => {}
            }
            let until = w.m.time + time;
            while w.m.time < until {
                // Periods of all begin together: at multiples.
                let boundary = (w.m.time / PERIOD + 1) * PERIOD;
                let ran = spin(&mut w, until.min(boundary));
                for (at, total) in in_period.iter_mut().enumerate() {
                    *total += time_of(&ran, actors[at]);
                    prop_assert!(*total <= amounts[at], "process {at} ran {total} ns");
                }
                if w.m.time == boundary {
                    in_period = [0; 3];
                }
                let Running::Thread(id) = w.k.running() else { panic!("somebody always wants to run") };
                let own = w.k.thread_claim(w.k.threads.get(id).unwrap());
                prop_assert!(Some(own) >= w.k.ready_claim());
            }
        }
    }
}
