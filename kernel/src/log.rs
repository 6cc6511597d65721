//! The kernel log: a ring of bytes, read with a byte position as cursor, and the `log!` macro that
//! fills it with lines.
//!
//! Owns: every line the kernel ever says. Invariants: byte `n` stands at `n % CAPACITY` until byte
//! `n + CAPACITY` replaces it; a reader that fell behind is told how much it lost and goes on at the
//! start of a line; appending never waits and never allocates.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering};
use spin::{Mutex, Once};

use crate::machine::LogRead;

/// Bytes that the ring keeps.
pub const CAPACITY: usize = 64 * 1024;
/// Bytes of the longest line; what is longer is cut.
pub const LINE: usize = 400;

/// How much a line matters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Level {
    /// Something is broken.
    Error,
    /// Something is odd, the kernel goes on.
    Warn,
    /// What an operator wants to know.
    Info,
    /// What a developer wants to know; in the ring only.
    Debug,
}

/// The ring itself.
pub struct Ring {
    bytes: [u8; CAPACITY],
    end: u64,
}

impl Default for Ring {
    fn default() -> Self {
        Self::new()
    }
}

impl Ring {
    /// An empty ring.
    #[must_use]
    pub const fn new() -> Self {
        Self { bytes: [0; CAPACITY], end: 0 }
    }

    /// The position of the next byte.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.end
    }

    /// Appends bytes.
    pub fn append(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.bytes[self.end as usize % CAPACITY] = byte;
            self.end += 1;
        }
    }

    /// Copies bytes from a position on. A position that is gone is moved to the oldest whole line; one
    /// beyond the end reads nothing and stays where the next byte will be.
    pub fn read(&self, position: u64, into: &mut [u8]) -> LogRead {
        let oldest = self.end.saturating_sub(CAPACITY as u64);
        let mut at = position.min(self.end);
        if at < oldest {
            // The byte before the oldest one is gone, so a line that starts right there cannot be told.
            at = oldest + 1;
            while at < self.end && self.bytes[(at - 1) as usize % CAPACITY] != b'\n' {
                at += 1;
            }
        }
        let lost = at.saturating_sub(position.min(at));
        let mut len = 0;
        for slot in into {
            if at == self.end {
                break;
            }
            *slot = self.bytes[at as usize % CAPACITY];
            at += 1;
            len += 1;
        }
        LogRead { next: at, len, lost }
    }
}

/// What `arch` lends to the log: the time, and an outlet that sees each line as it is made.
#[derive(Clone, Copy)]
pub struct Hooks {
    /// Nanoseconds since boot.
    pub now: fn() -> u64,
    /// Shows a line (with its line end); must not log.
    pub show: fn(&[u8]),
}

/// The one log. Taken only with interrupts off, never by the verification context or an NMI.
static RING: Mutex<Ring> = Mutex::new(Ring::new());
static HOOKS: Once<Hooks> = Once::new();
/// Set by a panic: from then on the log is bypassed, because its lock may be held for ever.
static DEAD: AtomicBool = AtomicBool::new(false);

/// Connects the log with the clock and the outlets; the first call counts.
pub fn connect(hooks: Hooks) {
    HOOKS.call_once(|| hooks);
}

/// Reads the one log from a position on.
pub fn read(position: u64, into: &mut [u8]) -> LogRead {
    match RING.try_lock() {
        Some(ring) => ring.read(position, into),
        None => LogRead { next: position, len: 0, lost: 0 },
    }
}

/// From now on nothing is logged any more.
pub fn close() {
    DEAD.store(true, Ordering::Relaxed);
}

/// A line under construction, bounded; what does not fit is dropped.
struct Line {
    bytes: [u8; LINE],
    length: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            // The last byte is kept for the line end.
            if self.length + 1 < LINE {
                self.bytes[self.length] = byte;
                self.length += 1;
            }
        }
        Ok(())
    }
}

/// Appends a formatted line; use the `log!` macro.
pub fn write(level: Level, arguments: fmt::Arguments<'_>) {
    if DEAD.load(Ordering::Relaxed) {
        return;
    }
    let hooks = HOOKS.get();
    let now = hooks.map_or(0, |h| (h.now)()) / 1000;
    let mark = match level {
        Level::Error => "error: ",
        Level::Warn => "warning: ",
        Level::Info | Level::Debug => "",
    };
    let mut line = Line { bytes: [0; LINE], length: 0 };
    // A `Line` never fails; a broken `Display` only shortens the line.
    let _shortened = write!(line, "[{:5}.{:06}] {mark}{arguments}", now / 1_000_000, now % 1_000_000);
    while line.length > 0 && line.bytes[line.length - 1] == b'\n' {
        line.length -= 1;
    }
    line.bytes[line.length] = b'\n';
    let text = line.bytes.get(..=line.length).unwrap_or(&[]);
    if let Some(mut ring) = RING.try_lock() {
        ring.append(text);
    }
    if let (Some(hooks), true) = (hooks, level != Level::Debug) {
        (hooks.show)(text);
    }
}

/// Logs a line: `log!(Info, "{} frames", n)`.
#[macro_export]
macro_rules! log {
    ($level:ident, $($argument:tt)*) => {
        $crate::log::write($crate::log::Level::$level, ::core::format_args!($($argument)*))
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_sees_each_byte_once_and_in_order() {
        let mut ring = Ring::new();
        let mut buffer = [0; 6];
        assert_eq!(ring.read(0, &mut buffer), LogRead { next: 0, len: 0, lost: 0 });
        ring.append(b"one\ntwo\n");
        assert_eq!(ring.read(0, &mut buffer), LogRead { next: 6, len: 6, lost: 0 });
        assert_eq!(&buffer, b"one\ntw");
        assert_eq!(ring.read(6, &mut buffer), LogRead { next: 8, len: 2, lost: 0 });
        assert_eq!(&buffer[..2], b"o\n");
    }

    #[test]
    fn a_position_beyond_the_end_reads_nothing() {
        let mut ring = Ring::new();
        ring.append(b"x\n");
        let mut buffer = [0; 4];
        assert_eq!(ring.read(u64::MAX, &mut buffer), LogRead { next: 2, len: 0, lost: 0 });
    }

    #[test]
    fn a_slow_reader_is_told_what_it_lost_and_resumes_at_a_line() {
        let mut ring = Ring::new();
        let mut lines = 0u64;
        while ring.end() < CAPACITY as u64 * 3 / 2 {
            ring.append(format!("line {lines:06}\n").as_bytes());
            lines += 1;
        }
        let mut buffer = [0; 12];
        let read = ring.read(0, &mut buffer);
        assert_eq!(read.len, 12);
        assert!(buffer.starts_with(b"line ") && buffer.ends_with(b"\n"), "{buffer:?}");
        assert_eq!(read.lost + 12, read.next);
        assert_eq!(read.lost % 12, 0);
        assert!(read.lost >= ring.end() - CAPACITY as u64);
    }

    #[test]
    fn the_macro_reaches_the_one_log_with_one_line_end() {
        let before = RING.lock().end();
        crate::log!(Warn, "{} of {}\n", 1, 2);
        let mut buffer = [0; 4 * LINE];
        let read = read(before, &mut buffer);
        let text = String::from_utf8_lossy(&buffer[..read.len]).into_owned();
        assert!(text.contains("] warning: 1 of 2\n") && !text.contains("\n\n"), "{text}");
    }

    #[test]
    fn a_long_line_is_cut_but_ends() {
        let before = RING.lock().end();
        let long = "y".repeat(2 * LINE);
        crate::log!(Debug, "{long}");
        let mut buffer = [0; 8 * LINE];
        let read = read(before, &mut buffer);
        assert!(buffer[..read.len].windows(2).any(|w| w == b"y\n"));
    }
}
