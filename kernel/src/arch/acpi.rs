//! Lets the core read the firmware's tables.
//!
//! Owns nothing. The tables are read once, while the loader's map of all physical memory is in use; nothing keeps
//! a pointer into them.

use kernel::acpi::{PhysicalMemory, Tables};

use super::layout::physmap;

/// Physical memory as the loader maps it: the first 4 GiB at least.
struct LoaderMap;

impl PhysicalMemory for LoaderMap {
    fn bytes(&self, address: u64, length: usize) -> Option<&[u8]> {
        let end = address.checked_add(length as u64)?;
        if address == 0 || end > 1 << 32 {
            return None;
        }
        // SAFETY: the loader maps the first 4 GiB of physical memory; firmware tables are not written while
        // the kernel starts, and nobody keeps the slice beyond that.
        Some(unsafe { core::slice::from_raw_parts(physmap(address) as *const u8, length) })
    }
}

/// Reads all tables; what is missing keeps its default.
pub fn read(rsdp: Option<u64>) -> Tables {
    Tables::read(&LoaderMap, rsdp)
}
