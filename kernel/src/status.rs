//! What a holder of a capability may learn of its object. Changes nothing.
//!
//! An answer never says more than the holder may know: flags of a badged Notification are those of the badge, and
//! neither addresses of frames nor places in arenas are told.

use sila_abi::status::endpoint;
use sila_abi::syscall::{MAX_CAPS, MAX_WORDS, REGISTER_WORDS, Receive};
use sila_abi::{Error, Op};

use crate::invoke::{Flow, Invocation, permitted};
use crate::kernel::{Fail, Kernel};
use crate::objects::*;
use crate::queue::Queue;

impl Kernel {
    pub(crate) fn status_operation(&self, op: Op, c: &Invocation) -> Result<Flow, Fail> {
        match op {
            Op::MappingStatus => self.mapping_status(c.id()),
            Op::EndpointStatus => self.endpoint_status(c.id()),
            Op::NotificationStatus => self.notification_status(c),
            Op::JobStatus => self.job_status(c.id()),
            Op::ReplyStatus => self.reply_status(c),
            Op::IrqStatus => self.irq_status(c),
            Op::PortStatus => {
                let &(_, length) =
                    self.ports.get(c.found.cap.object.index as usize).ok_or(Error::ObjectGone)?;
                Ok(Flow::words(&[length.into()]))
            }
            _ => self.process_usage(c.id()),
        }
    }

    fn mapping_status(&self, id: MappingId) -> Result<Flow, Fail> {
        let map = self.mappings.get(id).ok_or(Error::ObjectGone)?;
        let process = self.processes.get(map.process).map_or(0, |p| p.number);
        let device = self.regions.get(map.region).is_some_and(Region::is_device);
        let (address, pages) = (map.range.start(), map.range.pages());
        Ok(Flow::words(&[process, address, pages, map.writable.into(), map.offset.into(), device.into()]))
    }

    fn endpoint_status(&self, id: EndpointId) -> Result<Flow, Fail> {
        let e = self.endpoints.get(id).ok_or(Error::ObjectGone)?;
        let flags = [
            (endpoint::DURABLE, e.durable),
            (endpoint::LABELLED, e.label.is_some()),
            (endpoint::COVERED, e.covered.is_some()),
            (endpoint::SHUT, e.shut.is_some()),
        ];
        let flags = flags.into_iter().filter(|(_, set)| *set).fold(0, |all, (flag, _)| all | flag);
        let receiver = e.receiver.and_then(|p| self.processes.get(p)).map_or(0, |p| p.number);
        let (senders, receivers) = (self.queue_length(&e.senders), self.queue_length(&e.receivers));
        Ok(Flow::words(&[flags, e.ceiling.into(), receiver, senders, receivers]))
    }

    /// Threads in a queue; there are at most as many as the arena holds.
    fn queue_length(&self, queue: &Queue) -> u64 {
        let mut at = queue.first();
        let mut length = 0;
        while let Some(thread) = at {
            length += 1;
            at = self.threads.after(thread);
        }
        length
    }

    fn notification_status(&self, c: &Invocation) -> Result<Flow, Fail> {
        let id: NotificationId = c.id();
        let n = self.notifications.get(id).ok_or(Error::ObjectGone)?;
        let shown = |flags| permitted(&c.found.cap, flags);
        let alarm = self.timers.deadline(crate::queue::Alarm::Notification(id.index()));
        let alarm_flags = if alarm.is_some() { n.alarm_flags } else { 0 };
        let hidden = alarm_flags != 0 && shown(alarm_flags) == 0;
        Ok(Flow::words(&[
            shown(n.flags),
            self.queue_length(&n.waiters),
            n.bound.is_some().into(),
            alarm.filter(|_| !hidden).unwrap_or(u64::MAX),
            shown(alarm_flags),
        ]))
    }

    fn job_status(&self, id: JobId) -> Result<Flow, Fail> {
        self.jobs.get(id).ok_or(Error::ObjectGone)?;
        let born = |p: &&Process| p.job == id && p.state != ProcessState::Embryo;
        let (mut processes, mut ended) = (0, 0);
        for p in self.processes.iter().map(|(_, p)| p).filter(born) {
            processes += 1;
            ended += u64::from(p.state == ProcessState::Ended);
        }
        let handovers = self.handovers.iter().filter(|(_, h)| h.job == id).count();
        Ok(Flow::words(&[processes, ended, handovers as u64]))
    }

    fn reply_status(&self, c: &Invocation) -> Result<Flow, Fail> {
        let Some(t) = self.caller_of(&c.found.cap).and_then(|id| self.threads.get(id)) else {
            return Ok(Flow::words(&[0; 4]));
        };
        let words = if t.message.is_some() { MAX_WORDS } else { REGISTER_WORDS } as u64;
        let room = u64::from(Receive::from_word(t.context.registers.r13).count).min(MAX_CAPS as u64);
        let fault = t.fault.is_some();
        Ok(Flow::words(&[1, fault.into(), words, if fault { 0 } else { room }]))
    }

    fn process_usage(&self, id: ProcessId) -> Result<Flow, Fail> {
        let p = self.processes.get(id).ok_or(Error::ObjectGone)?;
        let pool = self.pools.get(p.pool).filter(|_| p.state != ProcessState::Ended);
        let (frames, bytes) = pool.map_or_else(Default::default, |x| (x.frames, x.bytes));
        let threads = u64::from(p.thread_count);
        Ok(Flow::words(&[p.number, threads, frames.limit, frames.used, bytes.limit, bytes.used]))
    }
}
