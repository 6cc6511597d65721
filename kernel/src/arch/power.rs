//! Switching the machine off.
//!
//! Owns: what boot found out about doing that. Invariant: every way is tried in turn, none is waited
//! for; if none works the caller goes on.

use core::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use kernel::acpi::Tables;
use kernel::machine::PowerOff;

use super::regs::{in16, out8, out16, out32};

/// PM1a and PM1b control ports.
static PM1: [AtomicU16; 2] = [AtomicU16::new(0), AtomicU16::new(0)];
/// Sleep types for S5 in the low bytes; bit 31 says they are known.
static S5: AtomicU32 = AtomicU32::new(0);
const KNOWN: u32 = 1 << 31;
/// Non-zero under a hypervisor.
static EMULATED: AtomicU16 = AtomicU16::new(0);
/// Where QEMU's `isa-debug-exit` stands.
const DEBUG_EXIT: u16 = 0xf4;

/// Remembers what the tables say.
pub fn start(tables: &Tables, hypervisor: bool) {
    EMULATED.store(u16::from(hypervisor), Ordering::Relaxed);
    for (slot, port) in PM1.iter().zip(tables.pm1) {
        slot.store(port, Ordering::Relaxed);
    }
    if let Some([a, b]) = tables.s5 {
        S5.store(KNOWN | u32::from(a) | u32::from(b) << 8, Ordering::Relaxed);
    }
}

/// Tries to switch off; returns if nothing helps.
pub fn off(how: PowerOff) {
    if EMULATED.load(Ordering::Relaxed) != 0 {
        let code = match how {
            PowerOff::Success => 0x10,
            PowerOff::Failure => 0x11,
            PowerOff::Panic => 0x12,
        };
        // SAFETY: under QEMU this ends the machine or reaches nothing.
        unsafe { out32(DEBUG_EXIT, code) };
    }
    if how == PowerOff::Panic {
        // A machine of flesh keeps the message on its screen.
        return;
    }
    let s5 = S5.load(Ordering::Relaxed);
    if s5 & KNOWN != 0 {
        for (index, port) in PM1.iter().enumerate() {
            let port = port.load(Ordering::Relaxed);
            if port != 0 {
                let kind = (s5 >> (8 * index) & 7) as u16;
                // SAFETY: the FADT names this port; S5 with sleep-enable switches off.
                unsafe { out16(port, in16(port) & !0x1c00 | kind << 10 | 1 << 13) };
            }
        }
    }
    if EMULATED.load(Ordering::Relaxed) != 0 {
        for port in [0x604, 0xb004] {
            // SAFETY: QEMU's own power ports.
            unsafe { out16(port, 0x2000) };
        }
    }
}

/// Makes the firmware hand ACPI over, without which some machines ignore S5.
pub fn enable_acpi(tables: &Tables) {
    let (port, value) = tables.enable;
    if port != 0 && value != 0 && tables.pm1[0] != 0 {
        // SAFETY: the FADT names port and value for exactly this; if it is done already nothing is asked.
        unsafe {
            if in16(tables.pm1[0]) & 1 == 0 {
                out8(port, value);
            }
        }
    }
}
