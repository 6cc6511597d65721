//! Who runs when: preemption, priorities, deadlines, alarms.

use crate::lab::{Failure, Lab, Outcome, PROBE_PRIORITY, SYSTEM, equal, holds, pause, refused, until, works};
use alloc::format;
use probe::{Act, SURVIVED};
use sila_abi::Error;
use sila_abi::protocol::layout::{OWN_POOL, OWN_PROCESS, OWN_THREAD};
use sila_abi::syscall::{FOREVER, NO_WAIT};
use sila_rt::clock::{self, MILLISECOND};
use sila_rt::ipc::{self, Message};
use sila_rt::raw::yield_now;
use sila_rt::slots::{OwnedSlot, make};
use sila_rt::system::counters;
use sila_rt::{op, thread};

fn notification() -> Result<OwnedSlot, Failure> {
    works("NotificationCreate", make(|dst| op::NotificationCreate(OWN_POOL, dst)))
}

fn endpoint() -> Result<OwnedSlot, Failure> {
    works("EndpointCreate", make(|dst| op::EndpointCreate(OWN_POOL, 0, 0, dst)))
}

fn now() -> u64 {
    clock::now().unwrap_or(0)
}

pub fn a_spinning_process_is_preempted(lab: &Lab) -> Outcome {
    let spinner = lab.child()?;
    spinner.start(Act::Spin, &[], &[])?;
    let started = now();
    for _ in 0..5 {
        pause(20 * MILLISECOND);
    }
    let took = now() - started;
    holds(&format!("five pauses of 20 ms took {took} ns beside it"), took < 2_000 * MILLISECOND)?;
    let [state, ..] = spinner.status()?;
    equal("the spinner's state", state, 2)
}

pub fn equal_priorities_share_the_cpu(lab: &Lab) -> Outcome {
    let spinner = lab.child()?;
    spinner.start(Act::Spin, &[], &[])?;
    let other = lab.child()?;
    other.exits(Act::Exit, &[77], &[], 77)
}

pub fn a_higher_priority_runs_first(lab: &Lab) -> Outcome {
    let spinner = lab.child_at(PROBE_PRIORITY)?;
    let lower = lab.child_at(PROBE_PRIORITY - 10)?;
    lower.start(Act::Exit, &[7], &[])?;
    // From here on the lower one can only run when the spinner does not.
    spinner.start(Act::Spin, &[], &[])?;
    let _ = lower.end();
    let second = lab.child_at(PROBE_PRIORITY - 10)?;
    works("ProcessStart", op::ProcessStart(second.process()))?;
    pause(300 * MILLISECOND);
    refused("a call from the lower one", ipc::recv(second.command(), 0, NO_WAIT), Error::Timeout)?;
    works("ending the spinner", op::ProcessTerminate(spinner.process(), 0))?;
    equal("the lower one's first call", second.next(0)?.message.label, probe::HELLO)
}

pub fn vector_registers_survive_preemption(lab: &Lab) -> Outcome {
    let patterns = [0x1111_2222_3333_4444, 0xaaaa_bbbb_cccc_dddd, u64::MAX];
    let children = [lab.child()?, lab.child()?, lab.child()?];
    for (child, pattern) in children.iter().zip(patterns) {
        child.start(Act::Vectors, &[pattern, 4_000_000], &[])?;
    }
    children.iter().try_for_each(|child| child.exited(SURVIVED))
}

pub fn a_receive_ends_at_its_deadline(_: &Lab) -> Outcome {
    let (endpoint, notification) = (endpoint()?, notification()?);
    for wait in [0, MILLISECOND, 30 * MILLISECOND] {
        let started = now();
        refused("recv", ipc::recv(endpoint.slot(), 0, started + wait), Error::Timeout)?;
        refused("wait", ipc::wait(notification.slot(), started + 2 * wait), Error::Timeout)?;
        let took = now() - started;
        holds(&format!("waiting {wait} ns twice took {took} ns"), took >= 2 * wait)?;
    }
    refused("recv without waiting", ipc::recv(endpoint.slot(), 0, NO_WAIT), Error::Timeout)
}

pub fn a_call_ends_at_its_deadline(_: &Lab) -> Outcome {
    let endpoint = endpoint()?;
    let started = now();
    let call = ipc::call(endpoint.slot(), &Message::new(1), 0, started + 20 * MILLISECOND);
    refused("a call that nobody receives", call, Error::Timeout)?;
    holds("the deadline had passed", now() >= started + 20 * MILLISECOND)?;
    refused("recv finds nothing", ipc::recv(endpoint.slot(), 0, NO_WAIT), Error::Timeout)?;
    let send = ipc::send(endpoint.slot(), &Message::new(1), NO_WAIT);
    refused("a send without waiting", send, Error::Timeout)
}

/// How often the timer interrupted, and the scheduler found nothing to run, during a sleep.
fn sleep(time: u64) -> Result<(u64, u64), Failure> {
    let before = works("SystemCounters", counters(SYSTEM))?;
    pause(time);
    let after = works("SystemCounters", counters(SYSTEM))?;
    Ok((after.timer_interrupts - before.timer_interrupts, after.idle_choices - before.idle_choices))
}

pub fn an_idle_processor_is_woken_by_deadlines_only(_: &Lab) -> Outcome {
    // Those of others may lie in between: the runner's own watcher looks around once a second.
    pause(50 * MILLISECOND);
    let (interrupts, idle) = sleep(clock::SECOND)?;
    holds(
        &format!("{interrupts} interrupts of the timer in one idle second"),
        (1..=6).contains(&interrupts),
    )?;
    holds(&format!("the processor became idle {idle} times in it"), (1..=6).contains(&idle))
}

pub fn yield_lets_the_others_run(_: &Lab) -> Outcome {
    let done = notification()?;
    let slot = done.slot();
    let other = thread::spawn(2, move || {
        let _ = op::Signal(slot, 4);
    });
    works("a second thread", other)?;
    for _ in 0..1000 {
        yield_now();
        match ipc::wait(slot, NO_WAIT) {
            Ok(flags) => return equal("the other thread's flags", flags, 4),
            Err(error) => equal("wait", error.error, Error::Timeout)?,
        }
    }
    Err(Failure::new("the other thread", "ran", "did not run in 1000 yields"))
}

pub fn an_alarm_sets_its_flags_at_its_time(_: &Lab) -> Outcome {
    let notification = notification()?;
    let started = now();
    works("NotificationAlarm", op::NotificationAlarm(notification.slot(), started + 15 * MILLISECOND, 8))?;
    let flags = works("wait", ipc::wait(notification.slot(), FOREVER))?;
    equal("the flags", flags, 8)?;
    holds("the time had come", now() >= started + 15 * MILLISECOND)?;
    works("an alarm in the past", op::NotificationAlarm(notification.slot(), 1, 16))?;
    let flags = works("wait", ipc::wait(notification.slot(), clock::after(clock::SECOND)))?;
    equal("the flags of a past alarm", flags, 16)?;
    works("an alarm", op::NotificationAlarm(notification.slot(), now() + 20 * MILLISECOND, 8))?;
    works("cancelling it", op::NotificationAlarm(notification.slot(), u64::MAX, 8))?;
    let wait = ipc::wait(notification.slot(), clock::after(60 * MILLISECOND));
    refused("a cancelled alarm", wait, Error::Timeout)
}

pub fn a_suspended_thread_does_not_run(_: &Lab) -> Outcome {
    let ready = notification()?;
    let slot = ready.slot();
    let other = thread::spawn(2, move || {
        let result = ipc::wait(slot, FOREVER);
        let suspended = result.is_err_and(|error| error.error == Error::Suspended);
        let _ = op::Signal(slot, if suspended { 2 } else { 4 });
        let _ = ipc::wait(slot, clock::after(100 * MILLISECOND));
    });
    let other = works("a second thread", other)?;
    let state = |wanted: u64| op::ThreadStatus(other.slot()).is_ok_and(|status| status.words[0] == wanted);
    until("the thread waits", || state(5))?;
    works("ThreadSuspend", op::ThreadSuspend(other.slot()))?;
    equal("its state", works("ThreadStatus", op::ThreadStatus(other.slot()))?.words[0], 0)?;
    pause(30 * MILLISECOND);
    refused("it signals nothing", ipc::wait(slot, NO_WAIT), Error::Timeout)?;
    works("ThreadResume", op::ThreadResume(other.slot()))?;
    let flags = works("its signal", ipc::wait(slot, clock::after(clock::SECOND)))?;
    equal("its wait ended with Suspended", flags, 2)?;
    let priority = works("ThreadStatus", op::ThreadStatus(OWN_THREAD))?.words[1];
    refused("a priority above the ceiling", op::ThreadSetPriority(OWN_THREAD, 121), Error::PriorityTooHigh)?;
    works("the own priority again", op::ThreadSetPriority(OWN_THREAD, priority))?;
    let _ = OWN_PROCESS;
    Ok(())
}
