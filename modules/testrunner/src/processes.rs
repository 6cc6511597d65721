//! How processes and threads begin and end, and what they give back.

use crate::lab::{
    Failure, JOB, Lab, Outcome, POOL, PROBE_PRIORITY, SYSTEM, create, equal, holds, refused, works,
};
use alloc::format;
use probe::{Act, REQUEST_COMMAND, SURVIVED};
use sila_abi::Error;
use sila_abi::protocol::layout::OWN_POOL;
use sila_abi::syscall::NO_WAIT;
use sila_rt::slots::make;
use sila_rt::system::{capabilities, processes};
use sila_rt::{ipc, op};

pub fn exit_code_and_cause_are_recorded(lab: &Lab) -> Outcome {
    for code in [0, 1, 0xdead_beef_0000_0001, u64::MAX] {
        lab.child()?.exits(Act::Exit, &[code], &[], code)?;
    }
    let child = lab.child()?;
    child.start(Act::Spin, &[], &[])?;
    works("ProcessTerminate", op::ProcessTerminate(child.process(), 99))?;
    let end = child.end()?;
    equal("cause and code of a terminated one", (end.cause, end.code), (2, 99))
}

pub fn terminate_returns_every_frame_and_byte(lab: &Lab) -> Outcome {
    lab.balanced(|| {
        let child = lab.child()?;
        child.start(Act::Serve, &[0], &[])?;
        let _service = child.report(1)?;
        works("ProcessTerminate", op::ProcessTerminate(child.process(), 1)).map(|_| ())
    })?;
    lab.balanced(|| lab.child().map(|_| ())).map_err(|f| f.at("before it started"))
}

pub fn a_fault_returns_every_frame_and_byte(lab: &Lab) -> Outcome {
    lab.balanced(|| {
        let end = lab.child()?.run(Act::Read, &[0])?;
        equal("cause and vector", (end.cause, end.code), (3, 14))
    })
}

pub fn an_exhausted_process_returns_everything(lab: &Lab) -> Outcome {
    lab.balanced(|| {
        let end = lab.child()?.run(Act::Exhaust, &[])?;
        let code = Error::from_number(end.code as u16);
        let exhausted = matches!(code, Some(Error::OutOfFrames | Error::OutOfObjectBytes));
        holds(&format!("it ended with OutOfFrames or OutOfObjectBytes, not {code:?}"), exhausted)
    })
}

pub fn threads_run_out_with_an_error(lab: &Lab) -> Outcome {
    // The manifest allows three: two besides the first.
    lab.child()?.exits(Act::Threads, &[], &[], 2)
}

pub fn a_process_outlives_its_first_thread(lab: &Lab) -> Outcome {
    lab.child()?.exits(Act::ExitThread, &[31], &[], 31)
}

pub fn a_watcher_of_an_ended_process_is_told_at_once(lab: &Lab) -> Outcome {
    let child = lab.child()?;
    child.exits(Act::Exit, &[1], &[], 1)?;
    let late = works("NotificationCreate", make(|dst| op::NotificationCreate(OWN_POOL, dst)))?;
    works("ProcessWatch", op::ProcessWatch(child.process(), late.slot(), 64))?;
    equal("the flags", works("wait", ipc::wait(late.slot(), NO_WAIT))?, 64)
}

pub fn a_process_starts_once(lab: &Lab) -> Outcome {
    let child = lab.child()?;
    equal("the state before", child.status()?[0], 1)?;
    child.start(Act::Spin, &[], &[])?;
    refused("starting it again", op::ProcessStart(child.process()), Error::AlreadyStarted)?;
    works("ProcessTerminate", op::ProcessTerminate(child.process(), 0))?;
    child.end()?;
    refused("starting it after its end", op::ProcessStart(child.process()), Error::Dying)?;
    works("terminating it again", op::ProcessTerminate(child.process(), 5))?;
    equal("its code is the first one", child.status()?[2], 0)
}

pub fn priorities_above_the_ceiling_are_refused(lab: &Lab) -> Outcome {
    let command = works("EndpointCreate", make(|dst| op::EndpointCreate(OWN_POOL, 0, 0, dst)))?;
    let grants = [(REQUEST_COMMAND, command.slot())];
    // The probe's manifest allows 100, the runner's 120.
    for priority in [101, 120, 121, 255] {
        let made = create(lab.image(), lab.proof(), POOL, priority, &grants);
        refused(&format!("priority {priority}"), made, Error::PriorityTooHigh)?;
    }
    let made = create(lab.image(), lab.proof(), POOL, 256, &grants);
    refused("priority 256", made, Error::InvalidArgument)?;
    works("priority 100", create(lab.image(), lab.proof(), POOL, 100, &grants)).map(|process| {
        let _ = op::ProcessTerminate(process.slot(), 0);
    })
}

pub fn enumeration_shows_the_live_processes(lab: &Lab) -> Outcome {
    let list = works("SystemProcess", processes(SYSTEM))?;
    let named =
        |wanted: &str| list.iter().find(|record| name_of(&record.name) == wanted).map(|record| record.state);
    for agent in
        ["supervisor", "module-manager", "deep-compression", "service-registry", "console", "testrunner"]
    {
        equal(&format!("the state of {agent}"), named(agent), Some(2))?;
    }
    let newest = list.iter().map(|record| record.id).max().unwrap_or(0);
    let child = lab.child_at(PROBE_PRIORITY)?;
    let list = works("SystemProcess", processes(SYSTEM))?;
    let record = list.iter().find(|record| record.id > newest);
    let record = record.ok_or_else(|| Failure::new("the new process", "listed", "missing"))?;
    equal("its name", name_of(&record.name), "probe")?;
    equal("state, threads, version", (record.state, record.threads, record.version), (1, 1, 1 << 32))?;
    let caps = works("SystemCapability", capabilities(SYSTEM, record.id))?;
    equal("its capabilities, counted twice", caps.len() as u64, record.capabilities)?;
    let in_job = works("JobNext", op::JobNext(JOB, newest))?.words;
    equal("the Job's next process", in_job[0], record.id)?;
    let id = record.id;
    child.exits(Act::DirectionFlag, &[], &[], SURVIVED)?;
    drop(child);
    let list = works("SystemProcess", processes(SYSTEM))?;
    holds("it is gone", list.iter().all(|record| record.id != id))
}

fn name_of(name: &[u8; 64]) -> &str {
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    name.get(..end).and_then(|name| core::str::from_utf8(name).ok()).unwrap_or("")
}
