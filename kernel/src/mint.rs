//! Boot objects that stand for parts of devices: made from the device table, and from nothing else.

use sila_abi::boot::BootObjectKind;
use sila_abi::device::{PciDevice, Refusal};
use sila_abi::{Error, ObjectType};
use sila_crypto::SecureBool;

use crate::cap::ObjRef;
use crate::frames::Epoch;
use crate::kernel::{Kernel, PERMANENT, reference};
use crate::machine::{FRAME_SIZE, Frame, Machine};
use crate::objects::*;
use crate::pci::{self, Function, Space, Window};

/// Why there is no such object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotMinted {
    /// The device table refuses.
    Device(Refusal),
    /// The kernel's own storage does not suffice.
    Kernel(Error),
}

impl From<Refusal> for NotMinted {
    fn from(refusal: Refusal) -> Self {
        Self::Device(refusal)
    }
}

impl From<Error> for NotMinted {
    fn from(error: Error) -> Self {
        Self::Kernel(error)
    }
}

impl core::fmt::Display for NotMinted {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Device(refusal) => refusal.fmt(f),
            Self::Kernel(error) => error.fmt(f),
        }
    }
}

/// True if the system starts without this object.
pub(crate) fn is_optional(kind: &BootObjectKind) -> bool {
    match kind {
        BootObjectKind::DeviceRegion { optional, .. }
        | BootObjectKind::DevicePorts { optional, .. }
        | BootObjectKind::DeviceIrq { optional, .. } => *optional,
        _ => false,
    }
}

fn permanent(kind: ObjectType, index: u32) -> ObjRef {
    ObjRef { kind, index, generation: PERMANENT }
}

impl Kernel {
    /// Makes the object that stands for a part of a device; `None` if the kind names none.
    pub(crate) fn mint(
        &mut self,
        m: &mut impl Machine,
        kind: &BootObjectKind,
    ) -> Option<Result<ObjRef, NotMinted>> {
        Some(match *kind {
            BootObjectKind::IoPorts { base, len } => self.mint_serial_ports(base, len),
            BootObjectKind::IrqHandler { line } => self
                .devices
                .take_serial_line(line)
                .map(|line| self.add_source(line, None))
                .map_err(Into::into),
            BootObjectKind::DeviceRegion { device, bar, .. } => self.mint_region(m, device, bar),
            BootObjectKind::DevicePorts { device, bar, .. } => self.mint_ports(m, device, bar),
            BootObjectKind::DeviceIrq { device, .. } => {
                let taken = self.devices.take_line(device);
                taken.map(|(function, line)| self.add_source(line, Some(function))).map_err(Into::into)
            }
            _ => return None,
        })
    }

    fn add_source(&mut self, line: u8, function: Option<Function>) -> ObjRef {
        permanent(ObjectType::IrqHandler, self.interrupts.add(line, function))
    }

    fn add_ports(&mut self, base: u16, length: u16) -> ObjRef {
        self.ports.push((base, length));
        permanent(ObjectType::IoPorts, self.ports.len() as u32 - 1)
    }

    fn mint_serial_ports(&mut self, base: u16, length: u16) -> Result<ObjRef, NotMinted> {
        self.devices.take_serial_ports(base, length)?;
        Ok(self.add_ports(base, length))
    }

    fn mint_ports(&mut self, m: &mut impl Machine, name: PciDevice, bar: u8) -> Result<ObjRef, NotMinted> {
        let (function, window) = self.devices.take_window(name, bar, Space::Ports)?;
        let range = u16::try_from(window.base).ok().zip(u16::try_from(window.length).ok());
        let (base, length) = range.ok_or(Refusal::OutOfReach)?;
        pci::decode(m, function, Space::Ports);
        Ok(self.add_ports(base, length))
    }

    fn mint_region(&mut self, m: &mut impl Machine, name: PciDevice, bar: u8) -> Result<ObjRef, NotMinted> {
        let (function, window) = self.devices.take_window(name, bar, Space::Memory)?;
        let region = self.device_region(&window)?;
        pci::decode(m, function, Space::Memory);
        Ok(reference(ObjectType::Region, region))
    }

    /// A Region over a device's registers: no Pool paid for it, and its frames are never freed.
    fn device_region(&mut self, window: &Window) -> Result<RegionId, NotMinted> {
        let first = Frame::containing(window.base).ok_or(Refusal::OutOfReach)?;
        let pages = window.length.div_ceil(FRAME_SIZE as u64);
        let pages = u32::try_from(pages).map_err(|_| Refusal::TooLarge)?;
        self.charge(self.root_pool, 0, cost::<Region>())?;
        let region = Region {
            pool: None,
            caps: 0,
            backing: Backing::Device(first),
            pages,
            filled: pages,
            sealed: SecureBool::DENY,
            dead: false,
            mappings: 0,
            writable: 0,
            pins: 0,
            epoch: Epoch::default(),
        };
        Ok(self.regions.insert(region).map_err(|_| Error::ArenaFull)?)
    }
}
