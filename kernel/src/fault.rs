//! Faults of threads: a call to the thread's fault endpoint, or the end of the process.
//!
//! Invariant: while a thread waits for its fault to be handled, its saved registers are those of the
//! moment of the fault; only the handler's answer changes them.

use sila_abi::syscall::{
    Call, FAULT_KILL, FAULT_RESUME, FAULT_SET_INSTRUCTION, FAULT_SET_STACK, FOREVER, REGISTER_WORDS, Tag,
};
use sila_abi::{Error, ObjectType, Rights};

use crate::ipc::Outgoing;
use crate::kernel::{Attention, Kernel, Running, id_of};
use crate::machine::Machine;
use crate::objects::*;
use crate::paging::USER_END;

impl Kernel {
    /// The running thread faulted.
    pub(crate) fn raise_fault(&mut self, m: &mut impl Machine, fault: Fault) {
        let Running::Thread(id) = self.running() else { return };
        if self.report_fault(m, id, fault).is_err() {
            self.end_by_fault(m, id, fault);
        }
    }

    /// Calls the thread's fault endpoint on its behalf.
    fn report_fault(&mut self, m: &mut impl Machine, id: ThreadId, fault: Fault) -> Result<(), Error> {
        let t = self.threads.get(id).ok_or(Error::ObjectGone)?;
        let (holder, slot) = t.fault_endpoint.ok_or(Error::NotBound)?;
        let found = self.find_typed(holder, slot, ObjectType::Endpoint, Rights::SEND)?;
        if let Some(t) = self.threads.get_mut(id) {
            t.fault = Some(fault);
            t.quirks |= Quirks::FAULTED;
        }
        let endpoint = id_of(&found.cap);
        self.call_as(m, id, endpoint, found.cap.badge, true, false, FOREVER).map(|_| ()).map_err(|f| f.error)
    }

    fn end_by_fault(&mut self, m: &mut impl Machine, id: ThreadId, fault: Fault) {
        let Some(t) = self.threads.get(id) else { return };
        let (process, instruction) = (t.process, t.context.registers.rip);
        let Fault { vector, error, address } = fault;
        if let Some(p) = self.processes.get(process) {
            m.log(format_args!(
                "process {} ({}) ended: exception {vector}, error {error:#x}, address {address:#x}, at {instruction:#x}",
                p.number, p.identity.name
            ));
        }
        let exit = Exit { cause: 3, code: vector as u64, address, instruction, error };
        self.begin_end(m, process, exit);
    }

    /// Nobody will answer this thread's fault: its process ends at the end of this kernel entry.
    pub(crate) fn doom(&mut self, id: ThreadId) {
        if let Some(t) = self.threads.get(id)
            && self.doomed.len() < self.doomed.capacity()
        {
            self.doomed.push(t.process);
            self.attention |= Attention::DOOMED;
        }
    }

    /// Ends the processes whose faults nobody answers, one after the other until an interrupt waits.
    pub(crate) fn end_doomed(&mut self, m: &mut impl Machine) {
        while let Some(process) = self.doomed.pop() {
            let mut at = self.processes.get(process).and_then(|p| p.threads);
            while let Some((id, t)) = at.and_then(|id| self.threads.get(id).map(|t| (id, t))) {
                match t.fault {
                    Some(fault) if t.state == ThreadState::Inactive => {
                        self.end_by_fault(m, id, fault);
                        break;
                    }
                    _ => at = t.next,
                }
            }
            if m.interrupt_pending() {
                break;
            }
        }
        if self.doomed.is_empty() {
            self.attention -= Attention::DOOMED;
        }
    }

    /// What a thread sends: its fault, or what its registers say; and the slots of the capabilities with it.
    pub(crate) fn outgoing(&self, id: ThreadId) -> (Outgoing, u64) {
        let t = self.threads.known(id.index());
        let r = &t.context.registers;
        let Some(fault) = t.fault else { return (Outgoing::of(r), r.r15) };
        let words = [fault.vector as u64, fault.error, fault.address, r.rip, r.rsp, r.rflags];
        (Outgoing { tag: Tag::new(Call::Call, 6, 0, 0), words }, 0)
    }

    /// The handler's answer to a fault: checked, then carried out.
    pub(crate) fn answer_fault(
        &mut self,
        m: &mut impl Machine,
        caller: ThreadId,
        fault: Fault,
        answer: &[u64; REGISTER_WORDS],
    ) -> Result<(), Error> {
        let [action, edits, instruction, stack, ..] = *answer;
        if action > FAULT_RESUME || edits > (FAULT_SET_INSTRUCTION | FAULT_SET_STACK) {
            return Err(Error::InvalidArgument);
        }
        let bad = |bit: u64, value: u64| edits & bit != 0 && value >= USER_END;
        if bad(FAULT_SET_INSTRUCTION, instruction) || bad(FAULT_SET_STACK, stack) {
            return Err(Error::BadAddress);
        }
        self.leave_wait(caller);
        if action == FAULT_KILL {
            self.end_by_fault(m, caller, fault);
            return Ok(());
        }
        if let Some(t) = self.threads.get_mut(caller) {
            t.fault = None;
            t.quirks -= Quirks::FAULTED;
            if edits & FAULT_SET_INSTRUCTION != 0 {
                t.context.registers.rip = instruction;
            }
            if edits & FAULT_SET_STACK != 0 {
                t.context.registers.rsp = stack;
            }
        }
        self.make_ready(caller);
        Ok(())
    }
}
