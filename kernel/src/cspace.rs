//! Operations that work on a capability of any type: copy, mint, move, delete, revoke, status.

use sila_abi::{Error, ObjectType, Op, Rights};

use crate::cap::{Cap, CapId};
use crate::invoke::{Flow, Invocation};
use crate::kernel::{Fail, Kernel};
use crate::machine::Machine;

/// Descendants deleted between two looks at pending interrupts.
const REVOKE_STEP: u32 = 16;

impl Kernel {
    pub(crate) fn cap_operation(
        &mut self,
        m: &mut impl Machine,
        op: Op,
        c: &Invocation,
    ) -> Result<Flow, Fail> {
        let cap = c.found.cap;
        match op {
            Op::CapCopy => self.derive_checked(c, cap.badge),
            Op::CapMint => {
                if cap.badge != 0 {
                    return Err(Error::AlreadyBadged.into());
                }
                self.derive_checked(c, c.args[2])
            }
            Op::CapMove => {
                let at = c.dst.ok_or(Error::SlotOutOfRange)?;
                self.caps.relocate(c.found.id, at);
                Ok(Flow::words(&[]))
            }
            Op::CapDelete => {
                self.delete(m, c.found.id);
                Ok(if self.threads.get(c.thread).is_some() { Flow::words(&[]) } else { Flow::Blocked })
            }
            Op::CapRevoke => self.revoke(m, c.found.id),
            _ => {
                // A Reply's badge is the kernel's own.
                let badge = if cap.object.kind == ObjectType::Reply { 0 } else { cap.badge };
                Ok(Flow::words(&[cap.object.kind as u64, cap.rights.bits() as u64, badge]))
            }
        }
    }

    fn derive_checked(&mut self, c: &Invocation, badge: u64) -> Result<Flow, Fail> {
        let cap = c.found.cap;
        let rights = Rights::from_word(c.args[1]).ok_or(Error::InvalidArgument)?;
        if !cap.rights.contains(rights.difference(Rights::ENDOW)) {
            return Err(Error::MissingRight.into());
        }
        if cap.object.kind == ObjectType::Reply {
            return Err(Error::NotCopyable.into());
        }
        let at = c.dst.ok_or(Error::SlotOutOfRange)?;
        self.derive(c.found.id, at, Cap { rights, badge, ..cap });
        Ok(Flow::words(&[]))
    }

    /// Deletes descendants, step by step.
    fn revoke(&mut self, m: &mut impl Machine, id: CapId) -> Result<Flow, Fail> {
        loop {
            for _ in 0..REVOKE_STEP {
                let Some(child) = self.caps.first_child(id) else { return Ok(Flow::words(&[])) };
                self.delete(m, child);
            }
            if m.interrupt_pending() {
                return Ok(Flow::Restart);
            }
        }
    }
}
