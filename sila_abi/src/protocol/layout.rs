//! Where things are in every process: addresses the kernel maps, and slots that manifests use by
//! convention.

use crate::Slot;

/// One past the highest byte of the initial thread's stack. The page below the stack is a guard.
pub const STACK_TOP: u64 = 0x0000_7f00_0000_0000;
/// The initial thread's message page.
pub const MESSAGE_PAGE: u64 = 0x0000_7f10_0000_0000;
/// Where `sila_rt` maps further threads' stacks and message pages, heap and regions.
pub const DYNAMIC_BASE: u64 = 0x0000_7100_0000_0000;

/// The process itself (rights READ, MANAGE).
pub const OWN_PROCESS: Slot = Slot(1);
/// The initial thread.
pub const OWN_THREAD: Slot = Slot(2);
/// The process's own Pool: a child, made at creation with the amounts that the manifest's resources
/// state, of the Pool that the creator named. Everything the process uses is charged to it.
pub const OWN_POOL: Slot = Slot(3);
/// Where the module reports `Ready` or failure: ModuleManager, or the supervisor for boot modules.
pub const LIFECYCLE: Slot = Slot(4);
/// The Clock.
pub const CLOCK: Slot = Slot(5);
/// ServiceRegistry's endpoint.
pub const REGISTRY: Slot = Slot(6);
/// First slot for what else a manifest requests.
pub const FIRST_OTHER: Slot = Slot(8);
/// First slot that `sila_rt` hands out at run time; manifests request none at or above it.
pub const FIRST_DYNAMIC: Slot = Slot(64);
/// One past the last slot of a CSpace. CSpaces grow to this on demand, charged to the own Pool.
pub const SLOTS_END: u16 = 1024;
