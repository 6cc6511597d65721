//! Introspection: what `ps`, `caps`, `mem` and tests see is read from the live objects.

use sila_abi::device::DeviceRecord;
use sila_abi::status::{CounterRecord, MemoryRecord, ProcessRecord};
use sila_abi::syscall::{MAX_WORDS, REGISTER_WORDS};
use sila_abi::{Error, Op, Slot};
use zerocopy::IntoBytes;

use crate::cap::CSPACE;
use crate::invoke::{Flow, Invocation, pack};
use crate::kernel::{Fail, Kernel};
use crate::machine::Machine;
use crate::objects::*;

/// Words of a message page that follow the register words.
const PAGE_WORDS: usize = MAX_WORDS - REGISTER_WORDS;
/// Words of key or log bytes handed out at a time.
pub(crate) const CHUNK_WORDS: usize = 112;

const _: () = assert!(size_of::<ProcessRecord>() <= PAGE_WORDS * 8);
const _: () = assert!(size_of::<DeviceRecord>() <= PAGE_WORDS * 8);
const _: () = assert!(size_of::<MemoryRecord>() <= MAX_WORDS * 8);
const _: () = assert!(size_of::<CounterRecord>() <= MAX_WORDS * 8);

impl Kernel {
    pub(crate) fn introspect(&mut self, m: &mut impl Machine, op: Op, c: &Invocation) -> Result<Flow, Fail> {
        match op {
            Op::SystemLog => self.read_log(m, c),
            Op::SystemProcess => self.next_process_record(m, c),
            Op::SystemCapability => self.next_capability(m, c),
            Op::SystemMemory => {
                let record = self.memory_record();
                let mut words = [0u64; size_of::<MemoryRecord>() / 8];
                pack(&mut words, record.as_bytes());
                self.long_result(m, c.thread, &words)
            }
            Op::SystemDevice => self.next_device(m, c),
            Op::SystemCounters => {
                let mut words = [0u64; size_of::<CounterRecord>() / 8];
                pack(&mut words, self.counter_record().as_bytes());
                self.long_result(m, c.thread, &words)
            }
            Op::SystemTrace => self.set_trace(c),
            Op::SystemTraceRead => self.read_trace(m, c),
            Op::SystemAudit if !self.audited() => Err(Error::InvalidOperation.into()),
            Op::SystemAudit => Ok(Flow::words(&self.audit_words(m))),
            Op::TestPhysical => self.physical_address(m, c),
            Op::TestReport => self.test_report(m, c),
            Op::TestAudit => Ok(Flow::words(&self.audit_words(m))),
            Op::TestInvariants => Ok(Flow::words(&self.invariant_words(m))),
            _ => Ok(Flow::words(&[
                self.frames.free_count() as u64,
                self.object_bytes_used(),
                self.live_objects(),
                self.caps.live() as u64,
                self.verifier.held(),
                m.verification_stack_peak(),
            ])),
        }
    }

    /// A result whose bytes follow the register words.
    pub(crate) fn bytes_result(
        &mut self,
        m: &mut impl Machine,
        c: &Invocation,
        registers: &[u64],
        bytes: &[u8],
    ) -> Result<Flow, Fail> {
        let mut words = [0u64; MAX_WORDS];
        for (to, from) in words.iter_mut().zip(registers) {
            *to = *from;
        }
        pack(&mut words[REGISTER_WORDS..], bytes);
        self.long_result(m, c.thread, &words[..REGISTER_WORDS + bytes.len().div_ceil(8)])
    }

    fn read_log(&mut self, m: &mut impl Machine, c: &Invocation) -> Result<Flow, Fail> {
        let mut bytes = [0u8; CHUNK_WORDS * 8];
        let read = m.log_read(c.args[0], &mut bytes);
        let taken = bytes.get(..read.len).unwrap_or_default();
        self.bytes_result(m, c, &[read.next, read.len as u64, read.lost], taken)
    }

    fn next_process_record(&mut self, m: &mut impl Machine, c: &Invocation) -> Result<Flow, Fail> {
        let cursor = c.args[0];
        let next = self
            .processes
            .iter()
            .filter(|(_, p)| p.number > cursor && p.state != ProcessState::Embryo)
            .min_by_key(|(_, p)| p.number);
        let (id, p) = next.ok_or(Error::NoMoreEntries)?;
        let record = self.process_record(id, p);
        self.bytes_result(m, c, &[record.id], record.as_bytes())
    }

    fn process_record(&self, id: ProcessId, p: &Process) -> ProcessRecord {
        let pool = self.pools.get(p.pool);
        ProcessRecord {
            id: p.number,
            state: p.state as u64,
            version: u64::from(p.identity.version.major) << 32
                | u64::from(p.identity.version.minor) << 16
                | u64::from(p.identity.version.patch),
            frames: pool.map_or(0, |x| x.frames.used),
            object_bytes: pool.map_or(0, |x| x.bytes.used),
            capabilities: self.held_caps(id),
            threads: p.thread_count as u64,
            priority: self.highest_priority(p),
            name_len: p.identity.name.as_bytes().len() as u64,
            name: padded(p.identity.name.as_bytes()),
            publisher_len: p.identity.publisher.as_bytes().len() as u64,
            publisher: padded(p.identity.publisher.as_bytes()),
        }
    }

    /// Capabilities in a process's CSpace.
    pub(crate) fn held_caps(&self, id: ProcessId) -> u64 {
        self.caps.usable_slots(id.index()).filter(|at| self.caps.get(*at).is_some()).count() as u64
    }

    fn highest_priority(&self, p: &Process) -> u64 {
        let mut highest = 0;
        let mut at = p.threads;
        while let Some(t) = at.and_then(|t| self.threads.get(t)) {
            highest = highest.max(t.priority);
            at = t.next;
        }
        highest as u64
    }

    fn next_capability(&mut self, m: &mut impl Machine, c: &Invocation) -> Result<Flow, Fail> {
        let [number, cursor, ..] = c.args;
        let (id, p) = self.processes.iter().find(|(_, p)| p.number == number).ok_or(Error::ObjectGone)?;
        let policy = p.identity.policy;
        for slot in cursor.saturating_add(1)..CSPACE as u64 {
            let Ok(found) = self.find(id, Slot(slot as u16)) else { continue };
            let cap = found.cap;
            let children = u64::from(self.caps.first_child(found.id).is_some());
            let policy = if cap.origin.request > 0 { policy } else { 0 };
            let words = [
                slot,
                cap.object.kind as u64,
                cap.rights.bits() as u64,
                cap.badge,
                cap.object.index as u64,
                children,
                cap.origin.request.into(),
                cap.origin.rule.into(),
                policy,
            ];
            return self.long_result(m, c.thread, &words);
        }
        Err(Error::NoMoreEntries.into())
    }

    /// Object bytes that objects take; what Pools merely reserve for children does not count.
    fn object_bytes_used(&self) -> u64 {
        let reserved: u64 =
            self.pools.iter().filter(|(_, p)| p.parent.is_some()).map(|(_, p)| p.bytes.limit).sum();
        let used: u64 = self.pools.iter().map(|(_, p)| p.bytes.used).sum();
        used.saturating_sub(reserved)
    }

    fn memory_record(&self) -> MemoryRecord {
        MemoryRecord {
            frames_total: self.frames.total() as u64,
            frames_free: self.frames.free_count() as u64,
            frames_quarantined: self.frames.quarantined() as u64,
            bytes_total: self.capacities.reserve(),
            bytes_used: self.object_bytes_used(),
            objects: self.live_objects(),
            capabilities: self.caps.live() as u64,
            ram_bytes: self.ram_bytes,
        }
    }

    fn next_device(&mut self, m: &mut impl Machine, c: &Invocation) -> Result<Flow, Fail> {
        let cursor = usize::try_from(c.args[0]).map_err(|_| Error::NoMoreEntries)?;
        let record = self.devices.record(cursor).ok_or(Error::NoMoreEntries)?;
        self.bytes_result(m, c, &[record.id], record.as_bytes())
    }

    fn physical_address(&self, m: &mut impl Machine, c: &Invocation) -> Result<Flow, Fail> {
        let page = u32::try_from(c.args[1]).map_err(|_| Error::InvalidArgument)?;
        let frame = self.region_frame(m, c.arg_id(0)?, page).ok_or(Error::InvalidArgument)?;
        Ok(Flow::words(&[frame.address()]))
    }

    fn test_report(&mut self, m: &mut impl Machine, c: &Invocation) -> Result<Flow, Fail> {
        let len = c.args[0] as usize;
        let words = len.div_ceil(8);
        if c.args[0] > (PAGE_WORDS * 8) as u64 || c.words < REGISTER_WORDS + words {
            return Err(Error::InvalidArgument.into());
        }
        let mut bytes = [0u8; PAGE_WORDS * 8];
        if len > 0 {
            let (frame, _) =
                self.threads.get(c.thread).and_then(|t| t.message).ok_or(Error::MessageTooLong)?;
            let page = m.frame(frame);
            for (chunk, word) in bytes.chunks_mut(8).zip(&page[REGISTER_WORDS..REGISTER_WORDS + words]) {
                chunk.copy_from_slice(&word.to_le_bytes());
            }
        }
        m.report(bytes.get(..len).unwrap_or_default());
        Ok(Flow::words(&[]))
    }
}

/// Bytes with zeros behind them, cut off if they are more.
pub(crate) fn padded(from: &[u8]) -> [u8; 64] {
    let mut to = [0; 64];
    to.iter_mut().zip(from).for_each(|(t, f)| *t = *f);
    to
}
