//! The trace: a ring of typed records of what the kernel did, and its counters.
//!
//! The ring is made at boot and never grows. While no kind is recorded nothing of this file is entered: recording is
//! a mark in [`Attention`], which keeps every system call and fault off the short paths, and makes every entry pass
//! [`Kernel::settle`]'s look at what is to be attended to. There the end of a system call is recorded, and what it
//! came to: the operations' own code knows nothing of it. Only what happens inside of others (messages, the end of a
//! process, verifications, Handovers) is noted where it happens.

use alloc::boxed::Box;
use alloc::vec;
use sila_abi::ops::Op;
use sila_abi::status::CounterRecord;
use sila_abi::syscall::{Call, MAX_WORDS, Outcome, REGISTER_WORDS, Slot, Tag};
use sila_abi::trace::{ALL_KINDS, End, IDLE, Kind, RECORD_WORDS, Record, VERIFICATION, bit, wanted};
use sila_abi::{Error, ObjectType};

use crate::budget::priority_of;
use crate::invoke::{Flow, Invocation, pack};
use crate::kernel::{Attention, Fail, Kernel, Running, id_of};
use crate::machine::{Entry, Machine, Next};
use crate::objects::*;
use crate::verify::Wanted;

/// Records that the kernel keeps.
pub const RECORDS: usize = 4096;
/// Records that one SystemTraceRead returns.
const AT_ONCE: usize = (MAX_WORDS - REGISTER_WORDS) / RECORD_WORDS;

/// A system call under way whose end is still to be recorded.
#[derive(Clone, Copy)]
struct Open {
    thread: ThreadId,
    tag: Tag,
    /// The instruction that a restart goes back to.
    instruction: u64,
    /// What the call is going to do, if that is recorded when it has.
    effect: Option<Effect>,
}

/// What becomes an event of its own if the operation succeeds.
#[derive(Clone, Copy)]
enum Effect {
    /// The words are known beforehand.
    Known(Kind, [u64; 3]),
    /// A thread is to be in a slot of the caller.
    Thread(ProcessId, Slot),
    /// Capabilities are to go: how many there were.
    Revoke(u64, u32),
}

/// The ring.
pub struct Trace {
    records: Box<[Record]>,
    /// The next record's sequence number.
    next: u64,
    /// Bits of the kinds that are recorded.
    kinds: u64,
    /// When the kernel was entered.
    now: u64,
    open: Option<Open>,
    /// What ran when the kernel was left.
    last: (u64, u32),
    /// The reaper's steps so far.
    reaped: u64,
}

impl Default for Trace {
    fn default() -> Self {
        Trace {
            records: vec![Record::default(); RECORDS].into_boxed_slice(),
            next: 0,
            kinds: 0,
            now: 0,
            open: None,
            last: (IDLE, 0),
            reaped: 0,
        }
    }
}

impl Trace {
    fn push(&mut self, kind: Kind, (process, thread): (u64, u32), words: [u64; 3]) {
        if self.kinds & bit(kind) == 0 {
            return;
        }
        let at = self.next as usize % RECORDS;
        if let Some(slot) = self.records.get_mut(at) {
            *slot = Record { time: self.now, process, thread, kind: kind as u32, words };
        }
        self.next = self.next.wrapping_add(1);
    }

    /// The sequence number of the oldest record that is kept.
    const fn oldest(&self) -> u64 {
        self.next.saturating_sub(RECORDS as u64)
    }
}

impl Kernel {
    /// Records an event about the running context, if its kind is recorded.
    #[inline(always)]
    pub(crate) fn note(&mut self, kind: Kind, words: impl FnOnce(&Kernel) -> [u64; 3]) {
        if self.attention.contains(Attention::TRACE) {
            let words = words(self);
            self.note_now(kind, words);
        }
    }

    #[cold]
    #[inline(never)]
    fn note_now(&mut self, kind: Kind, words: [u64; 3]) {
        let about = self.name_of(self.running());
        self.trace.push(kind, about, words);
    }

    /// Records a message that was received.
    #[inline(always)]
    pub(crate) fn note_message(
        &mut self,
        from: ThreadId,
        to: ProcessId,
        endpoint: EndpointId,
        tag: Tag,
        call: bool,
    ) {
        if self.attention.contains(Attention::TRACE) {
            let kind = if call { Kind::Call } else { Kind::Send };
            self.message_now(kind, from, [self.number_of(to), endpoint.index().into(), tag.0]);
        }
    }

    #[cold]
    #[inline(never)]
    fn message_now(&mut self, kind: Kind, from: ThreadId, words: [u64; 3]) {
        let about = self.name_of(Running::Thread(from));
        self.trace.push(kind, about, words);
    }

    /// Records something about a verification.
    #[inline(always)]
    pub(crate) fn note_verification(&mut self, kind: Kind, request: &Wanted, word: u64) {
        self.note(kind, |_| {
            let what = match request {
                Wanted::Load(_) => wanted::LOAD,
                Wanted::Record { .. } => wanted::RECORD,
                Wanted::Case { .. } => wanted::CASE,
                Wanted::Insert(_) => wanted::CACHE,
            };
            [what, word, 0]
        });
    }

    /// How records name a context: process id and thread.
    fn name_of(&self, running: Running) -> (u64, u32) {
        match running {
            Running::Idle => (IDLE, 0),
            Running::Verification => (VERIFICATION, 0),
            Running::Thread(id) => {
                (self.threads.get(id).map_or(0, |t| self.number_of(t.process)), id.index())
            }
        }
    }

    pub(crate) fn number_of(&self, process: ProcessId) -> u64 {
        self.processes.get(process).map_or(0, |p| p.number)
    }

    /// A system call begins that no short path took.
    #[cold]
    #[inline(never)]
    pub(crate) fn trace_call(&mut self, m: &impl Machine, id: ThreadId) {
        let Some(t) = self.threads.get(id) else { return };
        let r = &t.context.registers;
        let (tag, slot, argument, instruction) = (Tag(r.rax), r.rdi, r.rsi, r.rip);
        self.trace.now = m.now();
        let about = self.name_of(Running::Thread(id));
        self.trace.push(Kind::Enter, about, [tag.0, slot, argument]);
        let effect = self.effect_of(id, tag);
        self.trace.open = Some(Open { thread: id, tag, instruction, effect });
    }

    /// What a system call does besides its answer, if that makes an event.
    fn effect_of(&self, id: ThreadId, tag: Tag) -> Option<Effect> {
        let t = self.threads.get(id)?;
        let r = &t.context.registers;
        if tag.call() == Call::ExitThread as u8 {
            let last = self.processes.get(t.process)?.thread_count == 1;
            return (!last)
                .then(|| Effect::Known(Kind::ThreadEnd, [self.number_of(t.process), id.index().into(), 0]));
        }
        if tag.call() != Call::Invoke as u8 {
            return None;
        }
        let slot = |word| Slot::from_word(word).and_then(|slot| self.find(t.process, slot).ok());
        let cap = slot(r.rdi)?.cap;
        Some(match Op::from_number(tag.label())? {
            Op::RegionMap => {
                let process = self.number_of(id_of(&slot(r.rsi)?.cap));
                Effect::Known(Kind::Map, [process, r.rdx, r.r8])
            }
            Op::MappingUnmap => Effect::Known(Kind::Unmap, self.range_of(id_of(&cap))?),
            Op::MappingProtect => Effect::Known(Kind::Protect, self.range_of(id_of(&cap))?),
            Op::ThreadCreate => Effect::Thread(id_of(&cap), Slot::from_word(r.r12)?),
            Op::ThreadTerminate => {
                let ended: ThreadId = id_of(&cap);
                let process = self.threads.get(ended)?.process;
                let last = self.processes.get(process)?.thread_count == 1;
                if last {
                    return None;
                }
                Effect::Known(Kind::ThreadEnd, [self.number_of(process), ended.index().into(), 0])
            }
            Op::CapRevoke => Effect::Revoke(r.rdi, self.caps.live()),
            _ => return None,
        })
    }

    fn range_of(&self, id: MappingId) -> Option<[u64; 3]> {
        let map = self.mappings.get(id)?;
        Some([self.number_of(map.process), map.range.start(), map.range.pages()])
    }

    /// Something else than a system call has entered the kernel.
    #[cold]
    #[inline(never)]
    pub(crate) fn trace_entry(&mut self, m: &impl Machine, entry: Entry) {
        self.trace.now = m.now();
        let about = self.name_of(self.running());
        match entry {
            Entry::Fault { vector, address, .. } => {
                let instruction = match self.running() {
                    Running::Thread(id) => self.registers(id).rip,
                    _ => 0,
                };
                self.trace.push(Kind::Fault, about, [vector.into(), address, instruction]);
            }
            Entry::Timer => self.trace.push(Kind::Timer, about, [0; 3]),
            Entry::Interrupt { line } => self.trace.push(Kind::Interrupt, about, [line.into(), 0, 0]),
            Entry::VerificationDone => self.trace.push(Kind::VerifyDone, about, [0; 3]),
            Entry::Syscall => {}
        }
    }

    /// Records what the entry came to so far; it is about to be left.
    #[cold]
    #[inline(never)]
    pub(crate) fn trace_attend(&mut self) {
        if let Some(open) = self.trace.open.take() {
            self.trace_end(&open);
        }
    }

    fn trace_end(&mut self, open: &Open) {
        let about = match self.threads.get(open.thread) {
            Some(_) => self.name_of(Running::Thread(open.thread)),
            None => self.trace.last,
        };
        let (end, error) = self.end_of(open);
        let done = end == End::Done || self.threads.get(open.thread).is_none();
        match open.effect {
            Some(Effect::Known(kind, words)) if done => self.trace.push(kind, about, words),
            Some(Effect::Thread(process, slot)) if done => {
                let number = self.number_of(process);
                let caller = self.threads.get(open.thread).map(|t| t.process);
                let made = caller.and_then(|p| self.find(p, slot).ok()).map(|f| f.cap.object);
                if let Some(object) = made.filter(|o| o.kind == ObjectType::Thread) {
                    let priority = self.threads.at(object.index).map_or(0, |(_, t)| t.priority);
                    self.trace.push(
                        Kind::ThreadCreate,
                        about,
                        [number, object.index.into(), priority.into()],
                    );
                }
            }
            Some(Effect::Revoke(slot, before)) if matches!(end, End::Done | End::Restarts) => {
                let deleted = before.saturating_sub(self.caps.live());
                let all = u64::from(end == End::Done);
                self.trace.push(Kind::Revoke, about, [slot, deleted.into(), all]);
            }
            _ => {}
        }
        self.trace.push(Kind::Leave, about, [open.tag.0, end as u64, error]);
    }

    /// How a system call has ended, and its error.
    fn end_of(&self, open: &Open) -> (End, u64) {
        let Some(t) = self.threads.get(open.thread) else { return (End::Waits, 0) };
        let waits = match t.state {
            ThreadState::Running | ThreadState::Ready => false,
            // Who suspends itself has its answer already.
            ThreadState::Inactive => t.context.registers.rax == open.tag.0,
            _ => true,
        };
        if waits {
            return (End::Waits, 0);
        }
        if t.context.registers.rip != open.instruction {
            return (End::Restarts, 0);
        }
        match Outcome(t.context.registers.rax).status() {
            Ok(()) => (End::Done, 0),
            Err(error) => (End::Refused, error as u64),
        }
    }

    /// As [`Kernel::decide`], recording whom the CPU passes to.
    #[cold]
    #[inline(never)]
    pub(crate) fn decide_traced(&mut self, m: &mut impl Machine) -> Next {
        let next = self.decide(m);
        let reaped = core::mem::replace(&mut self.trace.reaped, self.counters.reaper_steps);
        let steps = self.counters.reaper_steps.wrapping_sub(reaped);
        let last = self.trace.last;
        if steps > 0 {
            self.trace.push(Kind::Reap, last, [steps, 0, 0]);
        }
        let now = self.name_of(self.running());
        if now != last {
            let priority = match self.running() {
                Running::Thread(id) => self.threads.known(id.index()).effective.into(),
                Running::Verification => {
                    self.verification_claim().map_or(0, |claim| priority_of(claim).into())
                }
                Running::Idle => 0,
            };
            self.trace.push(Kind::Switch, last, [now.0, now.1.into(), priority]);
            self.trace.last = now;
        }
        next
    }

    /// SystemTrace.
    pub(crate) fn set_trace(&mut self, c: &Invocation) -> Result<Flow, Fail> {
        let kinds = c.args[0];
        if kinds & !ALL_KINDS != 0 {
            return Err(Error::InvalidArgument.into());
        }
        let before = core::mem::replace(&mut self.trace.kinds, kinds);
        self.attention.set(Attention::TRACE, kinds != 0);
        if before == 0 {
            self.trace.last = self.name_of(self.running());
            self.trace.reaped = self.counters.reaper_steps;
        }
        self.trace.open = None;
        Ok(Flow::words(&[before, self.trace.next]))
    }

    /// SystemTraceRead.
    pub(crate) fn read_trace(&mut self, m: &mut impl Machine, c: &Invocation) -> Result<Flow, Fail> {
        let (asked, oldest, end) = (c.args[0], self.trace.oldest(), self.trace.next);
        if asked > end {
            return Err(Error::InvalidArgument.into());
        }
        let from = asked.max(oldest);
        let count = end.saturating_sub(from).min(AT_ONCE as u64);
        let mut words = [0u64; MAX_WORDS];
        words[..5].copy_from_slice(&[from + count, count, from - asked, self.trace.kinds, RECORDS as u64]);
        let places = words[REGISTER_WORDS..].chunks_exact_mut(RECORD_WORDS);
        for (sequence, place) in (from..from + count).zip(places) {
            if let Some(record) = self.trace.records.get(sequence as usize % RECORDS) {
                pack(place, zerocopy::IntoBytes::as_bytes(record));
            }
        }
        self.long_result(m, c.thread, &words[..REGISTER_WORDS + count as usize * RECORD_WORDS])
    }

    /// What was counted, with what follows from other numbers.
    pub(crate) fn counter_record(&self) -> CounterRecord {
        CounterRecord { received: self.calls, traced: self.trace.next, ..self.counters }
    }
}
