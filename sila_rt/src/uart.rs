//! A serial port: a 16550 behind a few registers. Pure over [`Ports`]; [`PortSpace`] reaches them by an IoPorts capability.

use crate::op;
use alloc::vec::Vec;
use sila_abi::Slot;

/// Register offsets.
const DATA: u16 = 0;
const INTERRUPTS: u16 = 1;
const FIFO: u16 = 2;
const LINE: u16 = 3;
const MODEM: u16 = 4;
const STATUS: u16 = 5;

const RECEIVED: u8 = 1 << 0;
const SEND_EMPTY: u8 = 1 << 5;
const ALL_SENT: u8 = 1 << 6;
/// What reads as all ones is no device.
const ABSENT: u8 = 0xff;
/// How often the status is read before the port counts as stuck.
const PATIENCE: u32 = 100_000;
/// The most bytes taken in one go, so that a port that never empties can't hold its driver up.
const MAX_DRAIN: usize = 4096;

/// Access to the port's registers.
pub trait Ports {
    /// Reads a register; all ones if that fails.
    fn read(&mut self, offset: u16) -> u8;
    /// Writes a register.
    fn write(&mut self, offset: u16, value: u8);
}

/// Registers that an IoPorts capability gives access to.
#[derive(Clone, Copy, Debug)]
pub struct PortSpace(pub Slot);

impl Ports for PortSpace {
    fn read(&mut self, offset: u16) -> u8 {
        op::PortRead(self.0, offset.into(), 1).map_or(ABSENT, |result| result.words[0] as u8)
    }

    fn write(&mut self, offset: u16, value: u8) {
        // A refused write shows as a port that gets stuck.
        let _ = op::PortWrite(self.0, offset.into(), 1, value.into());
    }
}

/// A serial port.
#[derive(Debug)]
pub struct Uart<P> {
    ports: P,
    /// How many bytes fit when the sender is empty.
    depth: usize,
    /// Set when the port is missing or stuck: nothing is sent any more.
    dead: bool,
}

impl<P: Ports> Uart<P> {
    /// Sets the port up: 115200 baud, 8 data bits, FIFOs, an interrupt for each byte received.
    pub fn new(mut ports: P) -> Self {
        ports.write(INTERRUPTS, 0);
        ports.write(LINE, 0x80);
        ports.write(DATA, 1);
        ports.write(INTERRUPTS, 0);
        ports.write(LINE, 0x03);
        ports.write(FIFO, 0x05);
        ports.write(MODEM, 0x0b);
        let has_fifo = ports.read(FIFO) & 0xc0 == 0xc0;
        let dead = ports.read(STATUS) == ABSENT;
        ports.write(INTERRUPTS, 0x01);
        Uart { ports, depth: if has_fifo { 16 } else { 1 }, dead }
    }

    /// True if nothing can be sent.
    pub fn is_dead(&self) -> bool {
        self.dead
    }

    /// Takes every byte that was received.
    pub fn drain(&mut self, into: &mut impl Extend<u8>) -> usize {
        let mut count = 0;
        while !self.dead && count < MAX_DRAIN && self.ports.read(STATUS) & RECEIVED != 0 {
            into.extend([self.ports.read(DATA)]);
            count += 1;
        }
        count
    }

    /// Sends bytes. A port that does not take any more is given up.
    pub fn send(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(self.depth) {
            if !self.wait_for(SEND_EMPTY) {
                return;
            }
            chunk.iter().for_each(|byte| self.ports.write(DATA, *byte));
        }
    }

    /// Sends text, each line feed with a carriage return.
    pub fn send_text(&mut self, text: &str) {
        let mut bytes = Vec::with_capacity(text.len() + 16);
        for byte in text.bytes() {
            if byte == b'\n' {
                bytes.push(b'\r');
            }
            bytes.push(byte);
        }
        self.send(&bytes);
    }

    /// Waits until the last byte has left.
    pub fn flush(&mut self) {
        self.wait_for(ALL_SENT);
    }

    fn wait_for(&mut self, status: u8) -> bool {
        if !self.dead {
            self.dead = (0..PATIENCE).all(|_| self.ports.read(STATUS) & status == 0);
        }
        !self.dead
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    /// A port with queued input; `slow`: how many status reads a sent byte takes.
    #[derive(Default)]
    struct Fake {
        input: VecDeque<u8>,
        output: Vec<u8>,
        interrupts: u8,
        divisor_access: bool,
        fifo: bool,
        slow: u32,
        busy: u32,
        stuck: bool,
        most_at_once: usize,
        at_once: usize,
    }

    impl Ports for Fake {
        fn read(&mut self, offset: u16) -> u8 {
            match offset {
                DATA => self.input.pop_front().unwrap_or(0),
                FIFO if self.fifo => 0xc1,
                FIFO => 0x01,
                STATUS => {
                    self.at_once = 0;
                    let ready = self.busy == 0 && !self.stuck;
                    self.busy = self.busy.saturating_sub(1);
                    u8::from(!self.input.is_empty()) | if ready { SEND_EMPTY | ALL_SENT } else { 0 }
                }
                _ => 0,
            }
        }

        fn write(&mut self, offset: u16, value: u8) {
            match offset {
                LINE => self.divisor_access = value & 0x80 != 0,
                INTERRUPTS if !self.divisor_access => self.interrupts = value,
                DATA if !self.divisor_access => {
                    self.output.push(value);
                    self.busy = self.slow;
                    self.at_once += 1;
                    self.most_at_once = self.most_at_once.max(self.at_once);
                }
                _ => {}
            }
        }
    }

    #[test]
    fn setting_up_asks_for_receive_interrupts_and_sends_nothing() {
        let uart = Uart::new(Fake { fifo: true, ..Fake::default() });
        assert_eq!((uart.ports.interrupts, uart.depth, uart.is_dead()), (1, 16, false));
        assert!(uart.ports.output.is_empty());
    }

    #[test]
    fn draining_empties_the_port() {
        let mut uart = Uart::new(Fake::default());
        uart.ports.input = b"ps\r".iter().copied().collect();
        let mut got = Vec::new();
        assert_eq!(uart.drain(&mut got), 3);
        assert_eq!((got.as_slice(), uart.drain(&mut Vec::new())), (&b"ps\r"[..], 0));
    }

    #[test]
    fn draining_is_bounded() {
        let mut uart = Uart::new(Fake::default());
        uart.ports.input = core::iter::repeat_n(b'x', 3 * MAX_DRAIN).collect();
        assert_eq!(uart.drain(&mut Vec::new()), MAX_DRAIN);
    }

    #[test]
    fn sending_never_overruns_the_fifo() {
        for (fifo, most) in [(true, 16), (false, 1)] {
            let mut uart = Uart::new(Fake { fifo, slow: 3, ..Fake::default() });
            let text = "0123456789".repeat(10);
            uart.send_text(&text);
            uart.flush();
            assert_eq!(uart.ports.output, text.as_bytes());
            assert_eq!(uart.ports.most_at_once, most);
        }
    }

    #[test]
    fn lines_end_as_terminals_want() {
        let mut uart = Uart::new(Fake::default());
        uart.send_text("a\nb\n");
        assert_eq!(uart.ports.output, b"a\r\nb\r\n");
    }

    #[test]
    fn a_stuck_port_is_given_up() {
        let mut uart = Uart::new(Fake { stuck: true, ..Fake::default() });
        uart.send(b"abc");
        assert!(uart.is_dead() && uart.ports.output.is_empty());
        uart.ports.stuck = false;
        uart.send(b"abc");
        assert!(uart.ports.output.is_empty());
    }

    #[test]
    fn a_missing_port_is_dead_at_once() {
        struct Nothing;
        impl Ports for Nothing {
            fn read(&mut self, _: u16) -> u8 {
                ABSENT
            }
            fn write(&mut self, _: u16, _: u8) {}
        }
        let mut uart = Uart::new(Nothing);
        assert!(uart.is_dead());
        assert_eq!(uart.drain(&mut Vec::new()), 0);
    }
}
