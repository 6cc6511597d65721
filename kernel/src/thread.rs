//! Threads: making, suspending, ending.

use sila_abi::Error;

use crate::cap::CapId;
use crate::kernel::Kernel;
use crate::machine::{Context, Machine, Registers};
use crate::objects::*;
use crate::paging::{self, Access, UserRange};
use crate::queue::Link;

/// Selector of ring-3 code, with RPL 3.
pub const USER_CS: u64 = 0x23;
/// Selector of ring-3 data, with RPL 3.
pub const USER_SS: u64 = 0x1b;
/// Interrupts on, nothing else.
const INITIAL_RFLAGS: u64 = 0x202;

/// Where a new thread begins.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// First instruction.
    pub entry: u64,
    /// Stack pointer.
    pub stack: u64,
    /// First argument (`rdi`).
    pub argument: u64,
    /// Priority.
    pub priority: u8,
    /// Page-aligned address for the message page; 0 for none.
    pub message_page: u64,
}

impl Kernel {
    /// Makes a thread that does not run yet, or changes nothing.
    pub(crate) fn new_thread(
        &mut self,
        m: &mut impl Machine,
        process: ProcessId,
        start: Start,
    ) -> Result<ThreadId, Error> {
        let p = self.processes.get(process).ok_or(Error::ObjectGone)?;
        if start.priority > p.ceiling {
            return Err(Error::PriorityTooHigh);
        }
        let (pool, more) = (p.pool, p.thread_count < p.max_threads);
        if start.entry >= paging::USER_END || start.stack > paging::USER_END {
            return Err(Error::BadAddress);
        }
        self.room(more && self.threads.has_room())?;
        self.charge(pool, 0, cost::<Thread>())?;
        let fpu = match self.take_frame(m, pool) {
            Ok(f) => f,
            Err(e) => {
                self.refund(pool, 0, cost::<Thread>());
                return Err(e);
            }
        };
        let message = match self.new_message_page(m, process, pool, start.message_page) {
            Ok(message) => message,
            Err(e) => {
                self.put_frame(pool, fpu);
                self.refund(pool, 0, cost::<Thread>());
                return Err(e);
            }
        };
        let extended = m.init_fpu(fpu);
        self.link_thread(process, start, fpu, extended, message)
    }

    fn link_thread(
        &mut self,
        process: ProcessId,
        start: Start,
        fpu: crate::machine::Frame,
        extended: u64,
        message: Option<(crate::machine::Frame, u64)>,
    ) -> Result<ThreadId, Error> {
        let registers = Registers {
            rip: start.entry,
            rsp: start.stack,
            rdi: start.argument,
            rflags: INITIAL_RFLAGS,
            cs: USER_CS,
            ss: USER_SS,
            ..Registers::default()
        };
        let p = self.processes.get(process).ok_or(Error::ObjectGone)?;
        let (next, roots) = (p.threads, p.roots.ok_or(Error::Dying)?);
        let (root, user_root) = (roots.kernel.address(), roots.user.address());
        let thread = Thread {
            context: Context { registers, root, user_root, extended },
            process,
            caps: 0,
            state: ThreadState::Inactive,
            priority: start.priority,
            effective: start.priority,
            link: Link::NONE,
            quirks: if p.budget.is_set() { Quirks::BUDGETED } else { Quirks::empty() },
            reply_slot: 0,
            reply_at: CapId::NOWHERE,
            fpu,
            message,
            call: 0,
            building: None,
            bound: None,
            slice_left: 0,
            fault_endpoint: None,
            fault: None,
            prev: None,
            next,
        };
        let id = self.threads.insert(thread).map_err(|_| Error::ArenaFull)?;
        self.counters.threads_made += 1;
        if let Some(n) = next.and_then(|n| self.threads.get_mut(n)) {
            n.prev = Some(id);
        }
        if let Some(p) = self.processes.get_mut(process) {
            p.threads = Some(id);
            p.thread_count += 1;
        }
        Ok(id)
    }

    fn new_message_page(
        &mut self,
        m: &mut impl Machine,
        process: ProcessId,
        pool: PoolId,
        address: u64,
    ) -> Result<Option<(crate::machine::Frame, u64)>, Error> {
        if address == 0 {
            return Ok(None);
        }
        let range = UserRange::new(address, 1)?;
        let frame = self.take_frame(m, pool)?;
        match self.map_pages(m, process, range, Access::ReadWrite, |_, _, _| Some(frame)) {
            Ok(()) => Ok(Some((frame, address))),
            Err(e) => {
                self.put_frame(pool, frame);
                Err(e)
            }
        }
    }

    /// Ends a thread: whatever it waited in forgets it, its frames return. The message page's mapping is
    /// removed by the caller unless the whole address space goes.
    pub(crate) fn end_thread(&mut self, m: &mut impl Machine, id: ThreadId) {
        self.leave_wait(id);
        let Some(t) = self.threads.get(id) else { return };
        let (bound, building, prev, next) = (t.bound, t.building, t.prev, t.next);
        let (process, fpu, message) = (t.process, t.fpu, t.message);
        m.release_extended(t.context.extended);
        self.threads.end(id);
        if let Some(n) = bound.and_then(|n| self.notifications.get_mut(n)) {
            n.bound = None;
        }
        if let Some(region) = building {
            self.drop_region(region);
        }
        match prev.and_then(|p| self.threads.get_mut(p)) {
            Some(prev) => prev.next = next,
            None => {
                if let Some(p) = self.processes.get_mut(process) {
                    p.threads = next;
                }
            }
        }
        if let Some(next) = next.and_then(|n| self.threads.get_mut(n)) {
            next.prev = prev;
        }
        let Some(p) = self.processes.get_mut(process) else { return };
        p.thread_count = p.thread_count.saturating_sub(1);
        let pool = p.pool;
        self.put_frame(pool, fpu);
        if let Some((frame, _)) = message {
            self.put_frame(pool, frame);
        }
        self.refund(pool, 0, cost::<Thread>());
    }

    /// Ends one thread of a process that goes on; the last one ends the process.
    pub(crate) fn end_one_thread(&mut self, m: &mut impl Machine, id: ThreadId) {
        let Some((process, message)) = self.threads.get(id).map(|t| (t.process, t.message)) else { return };
        let root = self.processes.get(process).and_then(|p| p.roots).map(|r| r.kernel);
        if let (Some((_, address)), Some(root)) = (message, root) {
            if let Ok(page) = UserRange::new(address, 1) {
                paging::unmap(m, root, page);
            }
            m.flush_page(root, address);
        }
        self.end_thread(m, id);
        if self.processes.get(process).is_some_and(|p| p.thread_count == 0) {
            self.begin_end(m, process, Exit { cause: 1, ..Exit::default() });
        }
    }

    /// Stops a thread; a wait in progress ends with `Suspended` once it resumes.
    pub(crate) fn suspend(&mut self, id: ThreadId) {
        self.drop_building(id);
        let Some(state) = self.threads.get(id).map(|t| t.state) else { return };
        match state {
            ThreadState::Inactive => self.threads.known_mut(id.index()).quirks -= Quirks::HELD,
            ThreadState::Ready | ThreadState::Running => self.leave_wait(id),
            _ => {
                self.leave_wait(id);
                // A thread that faulted runs its instruction again when it is resumed.
                let t = self.threads.known_mut(id.index());
                t.quirks -= Quirks::FAULTED;
                if t.fault.take().is_none() {
                    self.complete(id, sila_abi::syscall::Outcome::error(Error::Suspended, 0), 0, &[]);
                }
            }
        }
    }

    /// Lets an inactive thread run.
    pub(crate) fn resume(&mut self, id: ThreadId) -> Result<(), Error> {
        let t = self.threads.get(id).ok_or(Error::ObjectGone)?;
        match self.processes.get(t.process).map(|p| p.state) {
            Some(ProcessState::Running) => {}
            Some(ProcessState::Created) => return Err(Error::NotStarted),
            _ => return Err(Error::Dying),
        }
        if self.processes.get(t.process).is_some_and(|p| p.retired) {
            return Err(Error::HandedOver);
        }
        if t.fault.is_some() {
            return Err(Error::Dying);
        }
        if t.state == ThreadState::Inactive {
            self.make_ready(id);
        }
        Ok(())
    }
}
