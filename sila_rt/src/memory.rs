//! Regions and their mappings, in types that say who else can write.
//!
//! * [`OwnRegion`]: made by this process and never handed out: plain slices.
//! * [`SealedRegion`]: immutable for ever: a plain read-only slice.
//! * [`SharedRegion`]: others may write at any time: copies in and out, no slices.

use crate::error::CallError;
use crate::lock::Lock;
use crate::op;
use crate::slots::{self, OwnedSlot};
use crate::space::{AddressSpace, PAGE};
use sila_abi::protocol::layout::{OWN_POOL, OWN_PROCESS};
use sila_abi::{Error, Slot};

static SPACE: Lock<AddressSpace> = Lock::new(AddressSpace::new());

/// Pages for so many bytes.
pub const fn pages_for(bytes: usize) -> u64 {
    (bytes as u64).div_ceil(PAGE)
}

/// A mapping at an address of the runtime's choice, gone when dropped.
#[derive(Debug)]
pub(crate) struct Mapping {
    /// Dropped by hand: the address may be used again only when this is gone.
    record: Option<OwnedSlot>,
    address: u64,
    pages: u64,
}

// SAFETY: a mapping belongs to the process, not to a thread.
unsafe impl Send for Mapping {}

impl Mapping {
    pub(crate) fn new(region: Slot, pages: u64, writable: bool) -> Result<Self, CallError> {
        let address = SPACE.lock().take(pages).ok_or(Error::BadAddress)?;
        let record = slots::make(|dst| {
            // SAFETY: the range was set aside for this mapping alone just now.
            unsafe { op::RegionMap(region, OWN_PROCESS, address, 0, pages, writable.into(), dst) }
        });
        match record {
            Ok(record) => Ok(Mapping { record: Some(record), address, pages }),
            Err(error) => {
                SPACE.lock().give(address, pages);
                Err(error)
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        (self.pages * PAGE) as usize
    }

    pub(crate) fn pointer(&self) -> *mut u8 {
        core::ptr::with_exposed_provenance_mut(self.address as usize)
    }

    /// True if `len` bytes at `offset` lie inside.
    pub(crate) fn holds(&self, offset: usize, len: usize) -> bool {
        offset.checked_add(len).is_some_and(|end| end <= self.len())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let Some(record) = self.record.take() else { return };
        // SAFETY: whoever borrows from a mapping borrows from this value, so nobody does any more.
        let _ = unsafe { op::MappingUnmap(record.slot()) };
        // The capability stays until it is deleted, though its object is gone.
        drop(record);
        SPACE.lock().give(self.address, self.pages);
    }
}

/// What a Region's status says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionInfo {
    /// Its size in frames.
    pub frames: u64,
    /// Whether it is sealed.
    pub sealed: bool,
}

/// Asks the kernel about a Region.
///
/// # Errors
/// The kernel's: `WrongType` if this is none.
pub fn region_info(region: Slot) -> Result<RegionInfo, CallError> {
    let status = op::RegionStatus(region)?;
    Ok(RegionInfo { frames: status.words[0], sealed: status.words[1] == 1 })
}

/// A Region that this process made, maps writable, and has not handed out.
#[derive(Debug)]
pub struct OwnRegion {
    mapping: Mapping,
    region: OwnedSlot,
}

impl OwnRegion {
    /// A zeroed Region for at least so many bytes, paid from the own Pool.
    ///
    /// # Errors
    /// The kernel's, such as `OutOfFrames`.
    pub fn new(bytes: usize) -> Result<Self, CallError> {
        let pages = pages_for(bytes).max(1);
        let region = slots::make(|dst| op::RegionCreate(OWN_POOL, pages, dst))?;
        Ok(OwnRegion { mapping: Mapping::new(region.slot(), pages, true)?, region })
    }

    /// Its bytes, whole pages.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping lives as long as this value; nobody else has the Region, so nobody writes.
        unsafe { core::slice::from_raw_parts(self.mapping.pointer(), self.mapping.len()) }
    }

    /// Its bytes, to write.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and this borrow is exclusive.
        unsafe { core::slice::from_raw_parts_mut(self.mapping.pointer(), self.mapping.len()) }
    }

    /// The capability.
    pub fn slot(&self) -> Slot {
        self.region.slot()
    }

    /// Ends the mapping and gives the Region's capability up for others.
    pub fn into_region(self) -> OwnedSlot {
        drop(self.mapping);
        self.region
    }

    /// Ends the mapping and makes the Region immutable.
    ///
    /// # Errors
    /// The kernel's; the Region is gone then.
    pub fn seal(self) -> Result<OwnedSlot, CallError> {
        let region = self.into_region();
        op::RegionSeal(region.slot())?;
        Ok(region)
    }
}

/// A sealed Region, mapped: nobody can write it any more.
#[derive(Debug)]
pub struct SealedRegion {
    mapping: Mapping,
    region: OwnedSlot,
}

impl SealedRegion {
    /// Maps a Region after checking that it is sealed.
    ///
    /// # Errors
    /// `NotSealed`, `InvalidArgument` if it has more than `max_bytes` (rounded up to pages), or the kernel's.
    pub fn map(region: OwnedSlot, max_bytes: usize) -> Result<Self, CallError> {
        let info = region_info(region.slot())?;
        if !info.sealed {
            return Err(Error::NotSealed.into());
        }
        if info.frames > pages_for(max_bytes) {
            return Err(Error::InvalidArgument.into());
        }
        Ok(SealedRegion { mapping: Mapping::new(region.slot(), info.frames, false)?, region })
    }

    /// Its bytes, whole pages.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping lives as long as this value, and a sealed Region never changes.
        unsafe { core::slice::from_raw_parts(self.mapping.pointer(), self.mapping.len()) }
    }

    /// The capability.
    pub fn slot(&self) -> Slot {
        self.region.slot()
    }

    /// Ends the mapping.
    pub fn into_region(self) -> OwnedSlot {
        drop(self.mapping);
        self.region
    }
}

/// A mapped Region whose other holders may write it at any time.
#[derive(Debug)]
pub struct SharedRegion {
    mapping: Mapping,
    region: OwnedSlot,
    writable: bool,
}

impl SharedRegion {
    /// Maps a Region of at most `max_bytes` (rounded up to pages).
    ///
    /// # Errors
    /// `InvalidArgument` if it is larger, or the kernel's.
    pub fn map(region: OwnedSlot, writable: bool, max_bytes: usize) -> Result<Self, CallError> {
        let info = region_info(region.slot())?;
        if info.frames > pages_for(max_bytes) {
            return Err(Error::InvalidArgument.into());
        }
        Ok(SharedRegion { mapping: Mapping::new(region.slot(), info.frames, writable)?, region, writable })
    }

    /// Its size in bytes, whole pages.
    pub fn size(&self) -> usize {
        self.mapping.len()
    }

    /// The capability.
    pub fn slot(&self) -> Slot {
        self.region.slot()
    }

    /// Copies bytes out, as they are at that moment. False, and nothing done, if they lie outside.
    #[must_use]
    pub fn read(&self, offset: usize, to: &mut [u8]) -> bool {
        if !self.mapping.holds(offset, to.len()) {
            return false;
        }
        for (i, byte) in to.iter_mut().enumerate() {
            // SAFETY: the offset was checked, the mapping lives; volatile, as others may write meanwhile.
            *byte = unsafe { self.mapping.pointer().add(offset + i).read_volatile() };
        }
        true
    }

    /// Copies bytes in. False, and nothing done, if they lie outside or the mapping is read-only.
    #[must_use]
    pub fn write(&mut self, offset: usize, from: &[u8]) -> bool {
        if !self.writable || !self.mapping.holds(offset, from.len()) {
            return false;
        }
        for (i, byte) in from.iter().enumerate() {
            // SAFETY: as in `read`, and the mapping is writable.
            unsafe { self.mapping.pointer().add(offset + i).write_volatile(*byte) };
        }
        true
    }

    /// Ends the mapping.
    pub fn into_region(self) -> OwnedSlot {
        drop(self.mapping);
        self.region
    }

    /// Where the bytes are, for code in other languages that reads and writes through pointers.
    pub fn pointer(&self) -> *mut u8 {
        self.mapping.pointer()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_round_up_to_pages() {
        assert_eq!((pages_for(0), pages_for(1), pages_for(4096), pages_for(4097)), (0, 1, 1, 2));
    }

    #[test]
    fn regions_need_a_kernel_and_leak_nothing() {
        for _ in 0..2000 {
            assert_eq!(OwnRegion::new(1).unwrap_err().error, Error::InvalidOperation);
        }
        let taken = SPACE.lock().take(1);
        assert!(Mapping::new(Slot(70), 1, true).is_err());
        assert_eq!(taken.map(|a| a + 2 * PAGE), SPACE.lock().take(1));
    }
}
