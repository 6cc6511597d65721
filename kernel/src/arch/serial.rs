//! COM1 while the kernel has it, and the results channel.
//!
//! Owns: the serial port until `release`; a panic takes it back. Invariants: a port that does not
//! answer is never waited for; every wait is bounded, and a port that does not drain is given up.

use core::sync::atomic::{AtomicU8, Ordering};

use super::regs::{in8, out8};

const COM1: u16 = 0x3f8;
const DEBUGCON: u16 = 0xe9;
const PATIENCE: u32 = 200_000;

const ABSENT: u8 = 0;
const OURS: u8 = 1;
const RELEASED: u8 = 2;

static STATE: AtomicU8 = AtomicU8::new(ABSENT);
static RESULTS: AtomicU8 = AtomicU8::new(ABSENT);

/// Looks for the port and the results channel; true if the port answers.
pub fn start() -> bool {
    // SAFETY: probing the results channel by reading; it answers with its own number.
    if unsafe { in8(DEBUGCON) } == DEBUGCON as u8 {
        RESULTS.store(OURS, Ordering::Relaxed);
    }
    let found = answers(COM1);
    if found {
        set_up();
        STATE.store(OURS, Ordering::Relaxed);
    }
    found
}

/// True if there is a serial port at these ports.
pub fn answers(base: u16) -> bool {
    [0x5a, 0xa5].into_iter().all(|pattern| {
        // SAFETY: the scratch register does nothing but hold a byte; where there is none nothing listens.
        unsafe {
            out8(base + 7, pattern);
            in8(base + 7) == pattern
        }
    })
}

/// 115200 baud, 8 bits, no parity, FIFOs on, no interrupts.
fn set_up() {
    for (offset, value) in [(1, 0), (3, 0x80), (0, 1), (1, 0), (3, 3), (2, 0xc7), (4, 0x0b)] {
        // SAFETY: the registers of a 16550 that has answered.
        unsafe { out8(COM1 + offset, value) };
    }
}

/// The port belongs to somebody else from now on.
pub fn release() {
    // A port that is absent stays absent.
    let _was = STATE.compare_exchange(OURS, RELEASED, Ordering::Relaxed, Ordering::Relaxed);
}

/// A panic takes the port back.
pub fn seize() {
    if STATE.compare_exchange(RELEASED, OURS, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
        set_up();
    }
}

/// Writes bytes, if the port is ours.
pub fn write(bytes: &[u8]) {
    for &byte in bytes {
        if STATE.load(Ordering::Relaxed) != OURS {
            return;
        }
        if byte == b'\n' {
            put(b'\r');
        }
        put(byte);
    }
}

fn put(byte: u8) {
    for _ in 0..PATIENCE {
        // SAFETY: line status and data of our port.
        unsafe {
            if in8(COM1 + 5) & 0x20 != 0 {
                out8(COM1, byte);
                return;
            }
        }
    }
    STATE.store(ABSENT, Ordering::Relaxed);
}

/// Writes bytes to the results channel, if there is one.
pub fn report(bytes: &[u8]) {
    if RESULTS.load(Ordering::Relaxed) == OURS {
        for &byte in bytes {
            // SAFETY: the port has answered as the results channel.
            unsafe { out8(DEBUGCON, byte) };
        }
    }
}
