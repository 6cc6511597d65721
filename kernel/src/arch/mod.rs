//! The x86_64 edge: everything of the kernel that touches hardware, and all of its `unsafe`.
//!
//! The pure core (`kernel`, the library) decides; the edge obeys. `boot` brings the machine up and
//! makes the core; from then on `entry` (assembly) and `trap` carry every entry to the core's `enter`
//! and do what it returns; `hardware` is the core's way to the machine.

mod acpi;
mod boot;
mod clock;
mod core_iface;
mod descriptors;
mod entry;
mod features;
mod fpu;
mod framebuffer;
mod fwcfg;
mod hardware;
mod heap;
mod ioapic;
mod lapic;
mod layout;
mod memory_map;
mod paging;
mod panic;
mod pci;
mod percpu;
mod power;
mod regs;
#[cfg(feature = "self-check")]
mod selfcheck;
mod serial;
mod spaces;
mod trap;
