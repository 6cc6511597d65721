//! Operations on devices and the system as a whole.

use sila_abi::{Error, ObjectType, Op};

use crate::invoke::{Flow, Invocation};
use crate::kernel::{Fail, Kernel, id_of};
use crate::machine::{Machine, PowerOff};
use crate::objects::*;
use crate::verify::Wanted;

impl Kernel {
    pub(crate) fn device_operation(
        &mut self,
        m: &mut impl Machine,
        op: Op,
        c: &Invocation,
    ) -> Result<Flow, Fail> {
        let index = c.found.cap.object.index;
        match op {
            Op::IrqBind => self.irq_bind(m, c),
            Op::IrqAck => self.irq_ack(m, c),
            Op::IrqUnbind => self.irq_unbind(m, c),
            Op::PortRead => {
                let (port, width) = self.port(index, c.args[0], c.args[1])?;
                Ok(Flow::words(&[m.port_read(port, width) as u64]))
            }
            Op::PortWrite => {
                let (port, width) = self.port(index, c.args[0], c.args[1])?;
                let value = u32::try_from(c.args[2]).map_err(|_| Error::InvalidArgument)?;
                m.port_write(port, width, value);
                Ok(Flow::words(&[]))
            }
            _ => Ok(Flow::words(&[m.now()])),
        }
    }

    /// Whatever takes a Region takes memory, which the kernel may read: a device's registers are mapped and
    /// looked at, and nothing else.
    pub(crate) fn refuse_device(&self, found: &Found) -> Result<(), Error> {
        let is_region = found.cap.object.kind == ObjectType::Region;
        if is_region && self.regions.get(id_of(&found.cap)).is_some_and(Region::is_device) {
            return Err(Error::DeviceRegion);
        }
        Ok(())
    }

    fn port(&self, index: u32, offset: u64, width: u64) -> Result<(u16, u8), Error> {
        let &(base, len) = self.ports.get(index as usize).ok_or(Error::ObjectGone)?;
        if !matches!(width, 1 | 2 | 4) {
            return Err(Error::InvalidArgument);
        }
        let end = offset.checked_add(width).ok_or(Error::PortOutOfRange)?;
        if end > len as u64 {
            return Err(Error::PortOutOfRange);
        }
        Ok((base + offset as u16, width as u8))
    }

    pub(crate) fn system_operation(
        &mut self,
        m: &mut impl Machine,
        op: Op,
        c: &Invocation,
    ) -> Result<Flow, Fail> {
        let hook = c.found.cap.object.kind == ObjectType::TestControl;
        if hook && !self.test_hooks.read().map_err(|_| Error::IntegrityFault)? {
            return Err(Error::InvalidOperation.into());
        }
        match op {
            Op::TestVerify => self.queue_region(c, |region, length| Wanted::Case { region, length }),
            Op::SystemPowerOff => {
                let sound = !self.audited() || self.audit_and_report(m);
                let how = if c.args[0] == 0 && sound { PowerOff::Success } else { PowerOff::Failure };
                m.power_off(how);
                Err(Error::InvalidOperation.into())
            }
            Op::SystemReleaseSerial => {
                m.release_serial();
                Ok(Flow::words(&[]))
            }
            Op::TestHoldVerification => {
                if c.args[0] > 1 {
                    return Err(Error::InvalidArgument.into());
                }
                self.hold_verification(c.args[0] == 1);
                Ok(Flow::words(&[]))
            }
            Op::TestFailAllocation => self.fail_allocation(c),
            _ => self.introspect(m, op, c),
        }
    }
}
