//! Every kernel entry passes here: one event in, one decision what runs next out.

use sila_abi::syscall::{Call, Outcome, Receive, Slot, Tag};
use sila_abi::{Error, Op};

use crate::fast::{LONG, RICH, Rest, SHORT};
use crate::invoke::Flow;
use crate::kernel::{Attention, Fail, Kernel, Running};
use crate::machine::{Entry, Machine, Next};
use crate::objects::*;

const CALL: u8 = Call::Call as u8;
const REPLY_RECV: u8 = Call::ReplyRecv as u8;
const RECV: u8 = Call::Recv as u8;
const INVOKE: u8 = Call::Invoke as u8;

/// Length of the `syscall` instruction: a restart goes back by this.
const SYSCALL_LENGTH: u64 = 2;

impl Kernel {
    /// Deals with an event and says what the CPU does next.
    #[inline(always)]
    pub fn enter(&mut self, m: &mut impl Machine, entry: Entry) -> Next {
        if entry == Entry::Syscall {
            return self.syscall(m);
        }
        if self.attention.contains(Attention::TRACE) {
            self.trace_entry(m, entry);
        }
        match entry {
            Entry::Syscall => {}
            Entry::Fault { vector, error, address } => {
                let fault = Fault { vector, error, address };
                if let Some(context) = self.fast_fault(fault) {
                    return Next::Thread(context);
                }
                self.counters.general_faults += 1;
                self.raise_fault(m, fault);
            }
            Entry::Timer => {
                self.counters.timer_interrupts += 1;
                self.armed = u64::MAX;
                self.ticking = false;
                self.attention |= Attention::SCHEDULE;
                if !self.run_timers(m) {
                    self.reap_for_a_while(m);
                }
            }
            Entry::Interrupt { line } => self.interrupt(m, line),
            Entry::VerificationDone => self.verification_done(m),
        }
        self.settle(m)
    }

    /// A system call of the running thread, by whichever path takes it.
    fn syscall(&mut self, m: &mut impl Machine) -> Next {
        let Running::Thread(id) = self.running() else { return self.settle(m) };
        let direct = match self.registers(id).rax as u8 {
            CALL => match self.fast_call::<SHORT>(m) {
                Err(Rest::Long) => self.fast_call::<LONG>(m),
                Err(Rest::Rich) => self.fast_call::<RICH>(m),
                other => other,
            },
            REPLY_RECV => match self.fast_reply_recv::<SHORT>(m) {
                Err(Rest::Long) => self.fast_reply_recv::<LONG>(m),
                Err(Rest::Rich) => self.fast_reply_recv::<RICH>(m),
                other => other,
            },
            RECV => match self.fast_recv() {
                Ok(None) => return self.resume_thread(id),
                Ok(Some(context)) => Ok(context),
                Err(rest) => Err(rest),
            },
            INVOKE => match self.fast_operation_by_number(m, (self.registers(id).rax >> 32) as u32) {
                Ok(()) => return self.resume_thread(id),
                Err(Rest::All) => match self.quick_invoke(m) {
                    Ok(()) => return self.resume_thread(id),
                    Err(rest) => Err(rest),
                },
                Err(rest) => Err(rest),
            },
            _ => Err(Rest::All),
        };
        match direct {
            Ok(context) => Next::Thread(context),
            Err(rest) => self.general_syscall(m, rest),
        }
    }

    /// What the fast path left of a system call.
    pub fn general_syscall(&mut self, m: &mut impl Machine, rest: Rest) -> Next {
        if let Running::Thread(id) = self.running()
            && rest != Rest::Settle
        {
            self.carry_out(m, id);
        }
        self.settle(m)
    }

    /// Sees to everything that an entry left to be done, and decides what runs.
    pub(crate) fn settle(&mut self, m: &mut impl Machine) -> Next {
        if !self.attention.difference(Attention::SCHEDULE).is_empty() && self.attend(m) {
            return self.decide_traced(m);
        }
        if self.attention.is_empty()
            && let Running::Thread(id) = self.running()
        {
            return self.resume_thread(id);
        }
        self.decide(m)
    }

    /// What an entry has to do besides its own business; true if whom the CPU passes to is recorded.
    #[cold]
    fn attend(&mut self, m: &mut impl Machine) -> bool {
        let traced = self.attention.contains(Attention::TRACE);
        if traced {
            self.trace_attend();
        }
        if !self.doomed.is_empty() {
            self.end_doomed(m);
        }
        if self.frames.quarantined() > 0 {
            self.settle_flushes(m);
        }
        if self.frames.quarantined() == 0 {
            self.attention -= Attention::QUARANTINE;
        }
        if self.attention.contains(Attention::FAILING) {
            self.settle_failing();
        }
        self.reap_some(m);
        traced
    }

    /// What the CPU does next; before that, step by step, what follows a verification, and on an idle CPU what waits
    /// to be reaped. An interrupt that waits is let in between two steps.
    pub fn decide(&mut self, m: &mut impl Machine) -> Next {
        loop {
            let next = self.schedule(m);
            if next == Next::Verification && self.verifier.is_concluding() {
                self.conclusion_step(m);
                if m.interrupt_pending() {
                    return self.let_in(m);
                }
                continue;
            }
            let nothing = self.nothing_to_reap() && self.doomed.is_empty();
            if next != Next::Idle || nothing {
                return next;
            }
            if m.interrupt_pending() {
                return self.let_in(m);
            }
            self.reap_step(m);
        }
    }

    /// Lets an interrupt in though there is work left. The core may not hear of it - a line that is masked, a timer that
    /// was early -, so the timer brings the CPU back.
    fn let_in(&mut self, m: &mut impl Machine) -> Next {
        self.armed = self.armed.min(m.now());
        m.set_timer(self.armed);
        Next::Idle
    }

    /// Carries out an invocation that nothing but its own business comes with, unless it is an odd one.
    #[inline(always)]
    pub fn quick_invoke(&mut self, m: &mut impl Machine) -> Result<(), Rest> {
        let id = self.plain_invoker()?;
        let result = self.invoke(m, id);
        self.conclude_call(m, id, result);
        if self.attention.is_empty() { Ok(()) } else { Err(Rest::Settle) }
    }

    fn carry_out(&mut self, m: &mut impl Machine, id: ThreadId) {
        self.counters.general_calls += 1;
        let t = self.threads.known(id.index());
        let tag = Tag(t.context.registers.rax);
        if t.quirks.contains(Quirks::BUILDING) || self.attention.contains(Attention::TRACE) {
            self.begin_oddly(m, id, tag);
        }
        self.count_allocations(id);
        let result = self.dispatch(m, id, tag);
        self.conclude_call(m, id, result);
        self.stop_counting();
    }

    /// What comes before a system call of a thread that is making a Region, or while events are recorded.
    #[cold]
    #[inline(never)]
    fn begin_oddly(&mut self, m: &impl Machine, id: ThreadId, tag: Tag) {
        let again = tag.call() == Call::Invoke as u8 && tag.label() == Op::RegionCreate as u32;
        if !again {
            self.drop_building(id);
        }
        if self.attention.contains(Attention::TRACE) {
            self.trace_call(m, id);
        }
    }

    #[inline(always)]
    fn conclude_call(&mut self, m: &mut impl Machine, id: ThreadId, result: Result<Flow, Fail>) {
        if self.attention.contains(Attention::GROWN) {
            // A call that runs again makes its CSpace grow again.
            if matches!(result, Err(_) | Ok(Flow::Restart)) { self.shrink_grown() } else { self.keep_grown() }
        }
        self.finish(m, id, result);
    }

    #[inline(always)]
    fn dispatch(&mut self, m: &mut impl Machine, id: ThreadId, tag: Tag) -> Result<Flow, Fail> {
        if !tag.is_well_formed() {
            return Err(Error::InvalidArgument.into());
        }
        let r = self.registers(id);
        let (first, receive, code) = (r.rdi, Receive::from_word(r.r13), r.rsi);
        let slot = || Slot::from_word(first).ok_or(Error::SlotOutOfRange);
        match Call::from_number(tag.call()).ok_or(Error::InvalidOperation)? {
            Call::Invoke => self.invoke(m, id),
            Call::Call => self.send(m, id, true),
            Call::Send => self.send(m, id, false),
            Call::Recv => self.receive(m, id, slot()?),
            Call::Reply => {
                self.reply(m, id, slot()?)?;
                Ok(Flow::words(&[]))
            }
            Call::ReplyRecv => {
                let at = slot()?;
                self.check_receive(id, at)?;
                self.reply(m, id, receive.reply)?;
                self.receive(m, id, at)
            }
            Call::Yield => {
                self.complete(id, Outcome::message(0, 0, 0), 0, &[]);
                self.leave_wait(id);
                self.make_ready(id);
                Ok(Flow::Completed)
            }
            Call::Exit => {
                let exit = Exit { cause: 1, code, ..Exit::default() };
                let process = self.threads.get(id).ok_or(Error::ObjectGone)?.process;
                self.begin_end(m, process, exit);
                Ok(Flow::Blocked)
            }
            Call::ExitThread => {
                self.end_one_thread(m, id);
                Ok(Flow::Blocked)
            }
        }
    }

    #[inline(always)]
    fn finish(&mut self, m: &mut impl Machine, id: ThreadId, result: Result<Flow, Fail>) {
        #[cfg(test)]
        if let Err(f) = &result {
            crate::tests::refusals::met(Tag(self.registers(id).rax), f.error);
        }
        match result {
            Ok(Flow::Words(words, count)) => {
                let given = words.get(..count.into()).unwrap_or(&words);
                self.complete(id, Outcome::message(count, 0, 0), 0, given);
            }
            Ok(Flow::Done) => self.complete(id, Outcome::message(0, 0, 0), 0, &[]),
            Ok(Flow::Completed | Flow::Blocked) => {}
            Ok(Flow::Restart) => self.restart(id),
            Err(f) => self.refuse(m, id, f),
        }
    }

    /// A system call was refused: it is tried again if more was freed, else it has its answer. Apart, so that calls that
    /// succeed keep no registers for it.
    #[cold]
    #[inline(never)]
    fn refuse(&mut self, m: &mut impl Machine, id: ThreadId, f: Fail) {
        if self.may_free_more(m, f.error) {
            self.restart(id);
            return;
        }
        self.counters.refused_calls += 1;
        let (words, count) = f.words();
        self.complete(id, Outcome::error(f.error, count as u8), 0, words.get(..count).unwrap_or_default());
    }

    /// Runs the instruction again, with unchanged arguments.
    #[cold]
    #[inline(never)]
    fn restart(&mut self, id: ThreadId) {
        self.counters.restarted_calls += 1;
        if let Some(t) = self.threads.get_mut(id) {
            t.context.registers.rip = t.context.registers.rip.wrapping_sub(SYSCALL_LENGTH);
        }
    }

    /// After a failed allocation: reaps what waits; true if the call should be tried again.
    fn may_free_more(&mut self, m: &mut impl Machine, error: Error) -> bool {
        if error.is_exhaustion() && self.nothing_to_reap() {
            self.counters.exhausted_calls += 1;
        }
        if !error.is_exhaustion() || self.nothing_to_reap() {
            return false;
        }
        while !m.interrupt_pending() && self.reap_step(m) {}
        !self.was_made_to_fail()
    }
}
