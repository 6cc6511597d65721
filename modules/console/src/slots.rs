//! Where the console's manifest puts its capabilities.

use sila_rt::sila_abi::Slot;
use sila_rt::sila_abi::protocol::layout::FIRST_OTHER;

/// SystemControl (READ, MANAGE).
pub const CONTROL: Slot = Slot(FIRST_OTHER.0);
/// The ports of COM1 (READ, WRITE).
pub const COM1: Slot = Slot(FIRST_OTHER.0 + 1);
/// The interrupt line of COM1 (MANAGE).
pub const IRQ: Slot = Slot(FIRST_OTHER.0 + 2);
/// ModuleManager's endpoint (SEND, GRANT).
pub const MANAGER: Slot = Slot(FIRST_OTHER.0 + 3);
/// The depot's endpoint (SEND), if this system has one.
pub const DEPOT: Slot = Slot(FIRST_OTHER.0 + 5);
/// The kernel's KeyRing (READ).
pub const KEY_RING: Slot = Slot(FIRST_OTHER.0 + 6);
/// The system's Policy (READ).
pub const POLICY: Slot = Slot(FIRST_OTHER.0 + 7);
/// The kernel's module cache (READ), if this system has one.
pub const CACHE: Slot = Slot(FIRST_OTHER.0 + 8);
/// The Pool that pays for the modules that people load (CREATE, COPY).
pub const USER_POOL: Slot = Slot(FIRST_OTHER.0 + 4);
