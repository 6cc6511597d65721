//! A device's registers, mapped.
//!
//! Owns: the mapping. Invariants: an access lies inside the device's Region, is aligned to its own size and happens
//! exactly once and whole, as devices want it; nothing gets a reference into the registers.

use crate::error::CallError;
use crate::memory::Mapping;
use crate::op;
use sila_abi::{Error, Slot};

/// The registers of a device Region. The Region's capability stays the caller's.
#[derive(Debug)]
pub struct Registers {
    mapping: Mapping,
    writable: bool,
}

macro_rules! accesses {
    ($($read:ident $write:ident $word:ty;)*) => {
        $(
            /// Reads a register; `None`, and nothing done, if it is misaligned or lies outside.
            pub fn $read(&self, offset: usize) -> Option<$word> {
                let at = self.place(offset, size_of::<$word>())?;
                // SAFETY: inside the mapping, which lives, and aligned; volatile, as it is the device that answers.
                Some(unsafe { at.cast::<$word>().read_volatile() })
            }

            /// Writes a register. False, and nothing done, if it is misaligned, lies outside or is read-only here.
            #[must_use]
            pub fn $write(&self, offset: usize, value: $word) -> bool {
                match self.place(offset, size_of::<$word>()).filter(|_| self.writable) {
                    // SAFETY: as for reading, and the mapping is writable. What the device does with it cannot
                    // reach memory of this process: bus mastering is off.
                    Some(at) => unsafe { at.cast::<$word>().write_volatile(value) },
                    None => return false,
                }
                true
            }
        )*
    };
}

impl Registers {
    /// Maps all of a device Region.
    ///
    /// # Errors
    /// `WrongType` if the Region is memory, or the kernel's.
    pub fn map(region: Slot, writable: bool) -> Result<Self, CallError> {
        let [pages, _, _, _, device, _] = op::RegionStatus(region)?.words;
        if device != 1 {
            return Err(Error::WrongType.into());
        }
        Ok(Registers { mapping: Mapping::new(region, pages, writable)?, writable })
    }

    /// Bytes that are mapped, whole pages.
    pub fn size(&self) -> usize {
        self.mapping.len()
    }

    /// Where the registers are.
    pub fn address(&self) -> u64 {
        self.mapping.pointer().expose_provenance() as u64
    }

    fn place(&self, offset: usize, size: usize) -> Option<*mut u8> {
        let inside = self.mapping.holds(offset, size) && offset.is_multiple_of(size);
        // SAFETY: the offset lies inside the mapping.
        inside.then(|| unsafe { self.mapping.pointer().add(offset) })
    }

    accesses! {
        read8 write8 u8;
        read16 write16 u16;
        read32 write32 u32;
        read64 write64 u64;
    }
}
