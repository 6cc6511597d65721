//! What the status of each kind of object tells its holder, and what it does not.

use crate::lab::{
    Failure, IRQ, JOB, Lab, Outcome, PORTS, SYSTEM, copy, equal, holds, pause, refused, until, works,
};
use probe::{Act, SURVIVED};
use sila_abi::protocol::layout::{OWN_POOL, OWN_PROCESS};
use sila_abi::status::endpoint::DURABLE;
use sila_abi::syscall::{MAX_WORDS, NO_WAIT};
use sila_abi::{Error, Rights, Slot};
use sila_rt::clock::{self, MILLISECOND};
use sila_rt::ipc::{self, Incoming, Received};
use sila_rt::op;
use sila_rt::slots::{OwnedSlot, make};
use sila_rt::system::processes;

/// The runner's own process id.
fn own_id() -> Result<u64, Failure> {
    Ok(works("ProcessUsage", op::ProcessUsage(OWN_PROCESS))?.words[0])
}

fn notification() -> Result<OwnedSlot, Failure> {
    works("NotificationCreate", make(|dst| op::NotificationCreate(OWN_POOL, dst)))
}

fn incoming(slot: Slot) -> Result<Incoming, Failure> {
    match works("recv", ipc::recv(slot, 0, clock::after(3 * clock::SECOND)))? {
        Received::Message(incoming) => Ok(incoming),
        Received::Flags(flags) => Err(Failure::new("recv", "a message", alloc::format!("flags {flags}"))),
    }
}

pub fn a_mapping_tells_where_it_is_and_what_it_shows(_: &Lab) -> Outcome {
    const AT: u64 = 0x3000_0000_0000;
    let region = works("RegionCreate", make(|dst| op::RegionCreate(OWN_POOL, 5, dst)))?;
    let map = |dst: Slot| {
        let words = [OWN_PROCESS.0.into(), AT, 2, 3, 1, dst.0.into()];
        sila_rt::hostile::invoke(region.slot(), sila_abi::Op::RegionMap, &words)
    };
    let mapping = works("RegionMap", make(map))?;
    let own = own_id()?;
    let status = || Ok::<_, Failure>(works("MappingStatus", op::MappingStatus(mapping.slot()))?.words);
    equal("the mapping", status()?, [own, AT, 3, 1, 2, 0])?;
    let plain = |op| sila_rt::hostile::invoke(mapping.slot(), op, &[]);
    works("MappingProtect", plain(sila_abi::Op::MappingProtect))?;
    equal("the protected mapping", status()?, [own, AT, 3, 0, 2, 0])?;
    works("MappingUnmap", plain(sila_abi::Op::MappingUnmap))?;
    refused("the status of what was unmapped", op::MappingStatus(mapping.slot()), Error::ObjectGone)
}

pub fn an_endpoint_tells_who_receives_and_how_many_wait(lab: &Lab) -> Outcome {
    let endpoint = works("EndpointCreate", make(|dst| op::EndpointCreate(OWN_POOL, 1, 7, dst)))?;
    let status = || Ok::<_, Failure>(works("EndpointStatus", op::EndpointStatus(endpoint.slot()))?.words);
    let own = own_id()?;
    equal("a new endpoint", status()?[..5].to_vec(), alloc::vec![DURABLE, 7, own, 0, 0])?;
    let child = lab.child()?;
    child.start(Act::Call, &[0, 0, 0], &[endpoint.slot()])?;
    until("the probe's call waits", || status().is_ok_and(|words| words[3] == 1))?;
    works("the answer", incoming(endpoint.slot())?.reply.send(&ipc::Message::new(0)))?;
    child.exited(SURVIVED)?;
    equal("nobody waits any more", status()?[3], 0)
}

pub fn a_sender_learns_nothing_of_the_other_senders(_: &Lab) -> Outcome {
    let endpoint = works("EndpointCreate", make(|dst| op::EndpointCreate(OWN_POOL, 0, 0, dst)))?;
    let weak = works("a copy", copy(endpoint.slot(), Rights::SEND | Rights::GRANT))?;
    refused("EndpointStatus", op::EndpointStatus(weak.slot()), Error::MissingRight)?;
    works("its label is public", op::EndpointLabel(weak.slot())).map(|_| ())
}

pub fn a_notification_tells_its_flags_and_keeps_them(_: &Lab) -> Outcome {
    let note = notification()?;
    let status = || Ok::<_, Failure>(works("NotificationStatus", op::NotificationStatus(note.slot()))?.words);
    equal("a new one", status()?[..5].to_vec(), alloc::vec![0, 0, 0, u64::MAX, 0])?;
    works("Signal", op::Signal(note.slot(), 6))?;
    let late = clock::after(3600 * clock::SECOND);
    works("NotificationAlarm", op::NotificationAlarm(note.slot(), late, 8))?;
    for _ in 0..2 {
        equal("with flags and an alarm", status()?[..5].to_vec(), alloc::vec![6, 0, 0, late, 8])?;
    }
    works("cancelling the alarm", op::NotificationAlarm(note.slot(), u64::MAX, 0))?;
    equal("the alarm", status()?[3], u64::MAX)?;
    equal("the flags, taken at last", works("wait", ipc::wait(note.slot(), NO_WAIT))?, 6)?;
    equal("the flags afterwards", status()?[0], 0)
}

pub fn a_badge_hides_the_flags_of_others(_: &Lab) -> Outcome {
    let note = notification()?;
    let rights = u64::from(Rights::READ.bits());
    let badged = works("CapMint", make(|dst| op::CapMint(note.slot(), dst, rights, 0b0011)))?;
    works("Signal", op::Signal(note.slot(), 0b0110))?;
    works(
        "NotificationAlarm",
        op::NotificationAlarm(note.slot(), clock::after(3600 * clock::SECOND), 0b1000),
    )?;
    let words = works("NotificationStatus", op::NotificationStatus(badged.slot()))?.words;
    equal("flags, alarm", (words[0], words[3], words[4]), (0b0010, u64::MAX, 0))
}

pub fn a_job_counts_its_processes(lab: &Lab) -> Outcome {
    let status = || Ok::<_, Failure>(works("JobStatus", op::JobStatus(JOB))?.words);
    let before = status()?;
    let child = lab.child()?;
    equal("processes", status()?[0], before[0] + 1)?;
    child.exits(Act::Exit, &[3], &[], 3)?;
    equal("processes that have ended", status()?[1], before[1] + 1)?;
    drop(child);
    equal("the Job afterwards", status()?[..3].to_vec(), before[..3].to_vec())
}

pub fn a_process_tells_what_it_uses(lab: &Lab) -> Outcome {
    let child = lab.child()?;
    let usage = || Ok::<_, Failure>(works("ProcessUsage", op::ProcessUsage(child.process()))?.words);
    let [id, threads, frames, used, bytes, bytes_used] = usage()?;
    let listed = works("SystemProcess", processes(SYSTEM))?;
    let record = listed.iter().find(|record| record.id == id);
    let record = record.ok_or_else(|| Failure::new("the process by its id", "listed", "missing"))?;
    equal("threads, frames, bytes", (threads, used, bytes_used), (1, record.frames, record.object_bytes))?;
    holds("its use stays below its quotas", used <= frames && bytes_used <= bytes && used > 0)?;
    child.exits(Act::Exit, &[0], &[], 0)?;
    equal("what an ended one uses", usage()?, [id, 0, 0, 0, 0, 0])
}

pub fn a_reply_tells_whether_its_caller_waits(lab: &Lab) -> Outcome {
    let endpoint = works("EndpointCreate", make(|dst| op::EndpointCreate(OWN_POOL, 0, 0, dst)))?;
    let child = lab.child()?;
    child.start(Act::Call, &[0, 0, 0], &[endpoint.slot()])?;
    let Incoming { reply, .. } = incoming(endpoint.slot())?;
    let status = || Ok::<_, Failure>(works("ReplyStatus", op::ReplyStatus(reply.slot()))?.words);
    let [waits, fault, words, ..] = status()?;
    equal("waits, fault, words", (waits, fault, words), (1, 0, MAX_WORDS as u64))?;
    works("ProcessTerminate", op::ProcessTerminate(child.process(), 0))?;
    equal("after the caller's end", status()?[..4].to_vec(), alloc::vec![0; 4])
}

pub fn an_interrupt_tells_whether_it_is_bound_and_silent(_: &Lab) -> Outcome {
    let status = || Ok::<_, Failure>(works("IrqStatus", op::IrqStatus(IRQ))?.words);
    let note = notification()?;
    let [bound, silent, count, ..] = status()?;
    equal("before: bound, silent", (bound, silent), (0, 1))?;
    works("IrqBind", op::IrqBind(IRQ, note.slot(), 1))?;
    equal("bound", status()?[..3].to_vec(), alloc::vec![1, 0, count])?;
    works("IrqUnbind", op::IrqUnbind(IRQ))?;
    equal("unbound", status()?[..3].to_vec(), alloc::vec![0, 1, count])?;
    works("IrqBind", op::IrqBind(IRQ, note.slot(), 1))?;
    drop(note);
    pause(MILLISECOND);
    equal("bound to what has ended", status()?[0], 0)?;
    works("IrqUnbind", op::IrqUnbind(IRQ)).map(|_| ())
}

pub fn ports_tell_how_many_there_are(_: &Lab) -> Outcome {
    equal("COM2", works("PortStatus", op::PortStatus(PORTS))?.words[0], 8)
}
