//! A machine for host tests: memory as a vector of frames, time as a counter.

use std::boxed::Box;
use std::string::{String, ToString};
use std::vec;
use std::vec::Vec;

use crate::machine::*;
use crate::pci::{ConfigSpace, Function};
use crate::sim_config::SimConfig;
use crate::verify::Work;

/// A simulated machine.
pub struct SimMachine {
    frames: Vec<[u64; FRAME_WORDS]>,
    /// Entries 256 to 511 of every root.
    pub upper: [u64; 256],
    /// Those of a root of ring 3's own.
    pub entry: [u64; 256],
    /// Whether user roots are separate.
    pub kpti: bool,
    /// Nanoseconds since boot.
    pub time: u64,
    /// What the timer is set for.
    pub timer: u64,
    /// What [`Machine::interrupt_pending`] says; counts down when it is above 0.
    pub preempt_after: Option<u32>,
    /// Other CPUs have not flushed yet.
    pub lazy_flush: bool,
    /// Log lines.
    pub log: Vec<String>,
    /// The job the context was given.
    pub work: Option<Box<Work>>,
    /// Configuration space.
    pub config: SimConfig,
    /// Which interrupt lines are masked.
    pub masked: [bool; 32],
    /// How it was switched off, if it was.
    pub off: Option<PowerOff>,
}

impl SimMachine {
    /// A machine with this many frames.
    pub fn new(frames: usize) -> Self {
        let mut upper = [0; 256];
        upper[255] = 0xdead_0003;
        SimMachine {
            frames: vec![[0; FRAME_WORDS]; frames],
            upper,
            entry: [0; 256],
            kpti: false,
            time: 1,
            timer: u64::MAX,
            preempt_after: None,
            lazy_flush: false,
            log: Vec::new(),
            work: None,
            config: SimConfig::default(),
            masked: [true; 32],
            off: None,
        }
    }

    /// Runs the verification context to its end, as `arch` does on a stack of its own.
    pub fn run_verification(&mut self) {
        if let Some(mut work) = self.work.take() {
            crate::verify::run(&mut work, &SimFrames(&self.frames));
            self.work = Some(work);
        }
    }
}

struct SimFrames<'a>(&'a [[u64; FRAME_WORDS]]);

impl FrameReader for SimFrames<'_> {
    fn bytes(&self, frame: Frame) -> &[u8; FRAME_SIZE] {
        zerocopy::transmute_ref!(&self.0[frame.0 as usize])
    }

    fn copy(&self, frame: Frame, into: &mut [u8]) {
        into.copy_from_slice(&self.bytes(frame)[..into.len()]);
    }

    fn keep(&self, _: Option<crate::machine::Keep>) -> bool {
        true
    }
}

impl ConfigSpace for SimMachine {
    fn config_read(&mut self, function: Function, register: u8) -> u32 {
        self.config.config_read(function, register)
    }
    fn config_write(&mut self, function: Function, register: u8, value: u32) {
        self.config.config_write(function, register, value);
    }
}

impl Machine for SimMachine {
    fn frame(&mut self, frame: Frame) -> &mut [u64; FRAME_WORDS] {
        &mut self.frames[frame.0 as usize]
    }
    fn kernel_half(&self) -> &[u64; 256] {
        &self.upper
    }
    fn entry_half(&self) -> Option<&[u64; 256]> {
        self.kpti.then_some(&self.entry)
    }
    fn flush_page(&mut self, _root: Frame, _address: u64) {}
    fn flush_root(&mut self, _root: Frame) {}
    fn leave_root(&mut self, _root: Frame) {}
    fn flushes_done(&self) -> bool {
        !self.lazy_flush
    }
    fn now(&self) -> u64 {
        self.time
    }
    fn set_timer(&mut self, deadline: u64) {
        self.timer = deadline;
    }
    fn interrupt_pending(&self) -> bool {
        self.preempt_after == Some(0)
    }
    fn mask_interrupt(&mut self, line: u8, masked: bool) {
        self.masked[line as usize & 31] = masked;
    }
    fn port_read(&mut self, _port: u16, _width: u8) -> u32 {
        0xff
    }
    fn port_write(&mut self, _port: u16, _width: u8, _value: u32) {}
    fn init_fpu(&mut self, fpu: Frame) -> u64 {
        fpu.address()
    }
    fn release_extended(&mut self, _extended: u64) {}
    fn report(&mut self, line: &[u8]) {
        self.log.push(String::from_utf8_lossy(line).to_string());
    }
    fn log(&mut self, line: core::fmt::Arguments<'_>) {
        self.log.push(line.to_string());
    }
    fn log_read(&mut self, sequence: u64, _into: &mut [u8]) -> LogRead {
        LogRead { next: sequence, len: 0, lost: 0 }
    }
    fn release_serial(&mut self) {}
    fn start_verification(&mut self, work: Box<Work>) {
        self.work = Some(work);
    }
    fn finish_verification(&mut self) -> Option<Box<Work>> {
        self.work.take()
    }
    fn power_off(&mut self, how: PowerOff) {
        self.off = Some(how);
    }
}
