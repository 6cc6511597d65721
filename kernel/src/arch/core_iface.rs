//! Which core the edge runs: the only file to change when the core's own interface changes.
//!
//! Owns nothing. The kernel's core is in the library; the edge knows it by [`Core`] alone.

use kernel::machine::{Entry, Frame, FrameReader, Machine, Next};
use kernel::verify::Work;

/// What the core is told about the machine at boot.
pub struct BootInfo<'a> {
    /// Free memory: first frame and number of frames. The core owns it from now on.
    pub usable: &'a [(Frame, u32)],
    /// The boot bundle: first frame and length in bytes. Its frames are in no other list.
    pub bundle: Option<(Frame, u64)>,
    /// Bytes of boot heap that are free: what the core allocates now must fit, later it gets nothing.
    pub heap: usize,
    /// Global interrupt line of each ISA interrupt.
    pub isa_lines: [u8; 16],
    /// COM1 answers.
    pub has_serial: bool,
    /// Ring 3 runs on roots of its own (`entry_half` is there).
    pub kpti: bool,
}

/// The core as the edge sees it.
pub trait Core: Sized {
    /// Takes over the machine. The first thing to run comes from [`Core::first`].
    fn boot<M: Machine>(machine: &mut M, info: &BootInfo<'_>) -> Self;
    /// What runs first.
    fn first<M: Machine>(&mut self, machine: &mut M) -> Next;
    /// Handles one entry.
    fn enter<M: Machine>(&mut self, machine: &mut M, entry: Entry) -> Next;
}

/// The core in use.
pub type ActiveCore = super::selfcheck::SelfCheck;

/// Runs a job; called in the verification context.
pub fn run_work(work: &mut Work, frames: &dyn FrameReader) {
    work.run(frames);
}
