//! Devices as the kernel's table lists them: how a boot object names one, why a part of one may not be handed out,
//! and the record that introspection returns.

use borsh::{BorshDeserialize, BorshSerialize};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Base address registers of a PCI function: windows that a device can have.
pub const WINDOWS: usize = 6;

/// Names a PCI function by what it is, not by where it sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub struct PciDevice {
    /// Vendor id; not 0 and not 0xffff.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// Which of several equal ones, by rising bus, slot and function; 0 is the first.
    pub index: u8,
}

impl PciDevice {
    /// True if a function can have this vendor id.
    pub const fn is_sensible(&self) -> bool {
        self.vendor != 0 && self.vendor != u16::MAX
    }
}

impl core::fmt::Display for PciDevice {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:04x}:{:04x} number {}", self.vendor, self.device, self.index)
    }
}

macro_rules! refusals {
    ($($name:ident = $num:literal, $text:literal;)*) => {
        /// Why a part of a device is not handed out. Boot logs it; [`DeviceRecord`] carries its number.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        #[repr(u8)]
        pub enum Refusal { $(#[doc = $text] $name = $num),* }

        impl Refusal {
            /// Every refusal, in order of number.
            pub const ALL: &'static [Refusal] = &[$(Refusal::$name),*];

            /// The refusal with this number; 0 means that nothing is refused.
            pub const fn from_number(number: u8) -> Option<Self> {
                match number { $($num => Some(Refusal::$name),)* _ => None }
            }

            /// A sentence that names the cause.
            pub const fn sentence(self) -> &'static str {
                match self { $(Refusal::$name => $text),* }
            }
        }

        impl core::fmt::Display for Refusal {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(self.sentence())
            }
        }
    };
}

refusals! {
    Absent = 1, "the machine has no such device";
    NoWindow = 2, "the device has no such window";
    WrongSpace = 3, "the window holds ports where memory was asked for, or memory where ports were";
    Malformed = 4, "the base address register makes no sense";
    Unassigned = 5, "the firmware gave the window no address";
    Unaligned = 6, "the window does not begin on a page";
    Shared = 7, "the window shares a page or a port with another one";
    Memory = 8, "the window overlaps what the firmware's memory map names";
    Chipset = 9, "the window overlaps what the kernel keeps: APICs, timers, configuration space, firmware";
    Framebuffer = 10, "the window overlaps the framebuffer that the kernel draws on";
    OutOfReach = 11, "the window lies beyond the addresses that the kernel can map";
    TooLarge = 12, "the window is larger than a Region may be";
    OutsideBridge = 13, "the window lies outside what the bridges above the device pass on";
    MasterStuck = 14, "the device's bus mastering cannot be switched off";
    ReservedPorts = 15, "the ports are the platform's: interrupts, timers, power, reset, configuration";
    NoLine = 16, "the device has no interrupt line that the kernel knows";
    NotLevel = 17, "the firmware does not say that the line is level-triggered, as lines of PCI devices are";
    NoDisable = 18, "the device cannot be kept from raising its line";
    Taken = 19, "it was handed out already";
    Incomplete = 20, "there are more devices or memory ranges than the kernel can tell apart";
    Kept = 21, "the kernel keeps devices of this class";
    LineKept = 22, "the line is the platform's own, or a serial port's";
}

/// A window of a device: registers in memory, or I/O ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct WindowRecord {
    /// 0 none, 1 memory, 2 ports.
    pub kind: u64,
    /// Physical address or port.
    pub base: u64,
    /// Bytes or ports.
    pub length: u64,
    /// A [`Refusal`]'s number; 0: may be handed out.
    pub refusal: u64,
    /// 1 if a boot object stands for it.
    pub minted: u64,
}

/// A device, for `devices`. Words 6 and up of a SystemDevice result, in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DeviceRecord {
    /// Its number, from 1.
    pub id: u64,
    /// Bus in bits 8 to 15, slot in 3 to 7, function in 0 to 2 of a PCI function; [`DeviceRecord::LEGACY`] of others.
    pub place: u64,
    /// Vendor id; 0 for others than PCI functions.
    pub vendor: u64,
    /// Device id.
    pub device: u64,
    /// Class in bits 16 to 23, subclass in 8 to 15, programming interface in 0 to 7.
    pub class: u64,
    /// Revision.
    pub revision: u64,
    /// 1 if the device answers.
    pub present: u64,
    /// Global interrupt line; [`DeviceRecord::NO_LINE`] if it has none that the kernel knows.
    pub line: u64,
    /// A [`Refusal`]'s number for the line; 0: may be handed out.
    pub line_refusal: u64,
    /// 1 if a boot object stands for the line.
    pub line_minted: u64,
    /// Its windows, by base address register.
    pub windows: [WindowRecord; WINDOWS],
}

impl DeviceRecord {
    /// The place of what is no PCI function.
    pub const LEGACY: u64 = u64::MAX;
    /// The line of a device without one.
    pub const NO_LINE: u64 = u64::MAX;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusal_numbers_round_trip_and_are_dense() {
        for (i, &refusal) in Refusal::ALL.iter().enumerate() {
            assert_eq!(refusal as usize, i + 1);
            assert_eq!(Refusal::from_number(refusal as u8), Some(refusal));
        }
        assert_eq!(Refusal::from_number(0), None);
    }

    #[test]
    fn vendor_ids_that_no_function_has_are_told() {
        let of = |vendor| PciDevice { vendor, device: 1, index: 0 }.is_sensible();
        assert!(of(0x1234) && !of(0) && !of(0xffff));
    }
}
