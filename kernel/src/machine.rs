//! The hardware seen from the pure core: one trait, implemented by `arch` in ring 0 and by a
//! simulated machine in host tests.
//!
//! Nothing in here touches hardware. The core reaches memory only as whole frames, time only as
//! nanoseconds since boot, and devices only through the calls of [`Machine`].

use alloc::boxed::Box;
use core::ptr::NonNull;

use crate::pci::ConfigSpace;
use crate::verify::Work;

/// Bytes in a frame and in a page.
pub const FRAME_SIZE: usize = 4096;
/// 64-bit words in a frame.
pub const FRAME_WORDS: usize = 512;

/// A physical frame, named by its number (physical address / 4096).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct Frame(pub u32);

impl Frame {
    /// The physical address of the frame's first byte.
    pub const fn address(self) -> u64 {
        (self.0 as u64) << 12
    }

    /// The frame that holds a physical address; `None` above 16 TiB.
    pub const fn containing(address: u64) -> Option<Self> {
        let n = address >> 12;
        if n > u32::MAX as u64 { None } else { Some(Self(n as u32)) }
    }
}

/// A thread's user-visible registers. The entry code saves into and restores from exactly this
/// layout; the last five fields are in the order of an interrupt frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are the processor's own")]
pub struct Registers {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rbp: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
    pub fs_base: u64,
    pub gs_base: u64,
}

/// What a processor is loaded with to run a thread. The entry code finds the registers at its beginning.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Context {
    /// The thread's registers.
    pub registers: Registers,
    /// Physical address of the root used in ring 0 (and in ring 3 when KPTI is off).
    pub root: u64,
    /// Physical address of the root used in ring 3; the same as `root` when KPTI is off.
    pub user_root: u64,
    /// Where the machine keeps the thread's extended state: what [`Machine::init_fpu`] returned.
    pub extended: u64,
}

/// Why the kernel was entered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry {
    /// The `syscall` instruction of the current thread.
    Syscall,
    /// A processor exception in ring 3 (vector, error code, faulting address for #PF else 0).
    Fault {
        /// Exception vector, 0 to 31.
        vector: u8,
        /// The error code pushed by the processor, 0 where it pushes none.
        error: u64,
        /// CR2 for a page fault, else 0.
        address: u64,
    },
    /// The per-CPU timer fired.
    Timer,
    /// A device interrupt line (global system interrupt number) fired; already masked.
    Interrupt {
        /// Global system interrupt number.
        line: u8,
    },
    /// The verification context finished the job it was given.
    VerificationDone,
}

/// What a CPU does next, as decided by the core after each entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// Run a ring-3 thread: load this context. It stays valid until the next entry.
    Thread(NonNull<Context>),
    /// Run (or resume) the verification context.
    Verification,
    /// Halt until an interrupt.
    Idle,
}

/// What a powered-off machine tells its host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PowerOff {
    /// Everything that was asked for succeeded.
    Success,
    /// A command or a test failed.
    Failure,
    /// The kernel panicked.
    Panic,
}

/// What [`Machine::log_read`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogRead {
    /// The sequence number to ask for next.
    pub next: u64,
    /// Bytes copied.
    pub len: usize,
    /// Bytes between the sequence asked for and the oldest one kept.
    pub lost: u64,
}

/// What is to outlive the job that made it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keep {
    /// A certificate with its decoded key, a policy or a root set.
    Record,
    /// What was verified of an image for the module cache.
    Image,
}

/// Frames as the verification context sees them: bytes, read only.
pub trait FrameReader {
    /// The bytes of a frame that nobody writes to.
    fn bytes(&self, frame: Frame) -> &[u8; FRAME_SIZE];

    /// Copies the first bytes of a frame, each read once: ring 3 may be writing to it.
    fn copy(&self, frame: Frame, into: &mut [u8]);

    /// From now on what the context allocates is to outlive its job, as a whole in one keeping, or no longer. False if
    /// there is no room for that.
    fn keep(&self, what: Option<Keep>) -> bool;
}

/// Everything the core asks of the hardware.
pub trait Machine: ConfigSpace {
    /// The frame's contents. The core only passes frames that the frame table owns.
    fn frame(&mut self, frame: Frame) -> &mut [u64; FRAME_WORDS];

    /// Copies a whole frame.
    fn copy_frame(&mut self, from: Frame, to: Frame) {
        let words = *self.frame(from);
        *self.frame(to) = words;
    }

    /// Fills a frame with zero bytes.
    fn zero_frame(&mut self, frame: Frame) {
        self.frame(frame).fill(0);
    }

    /// Entries 256 to 511 of every process's kernel-side root.
    fn kernel_half(&self) -> &[u64; 256];

    /// Entries 256 to 511 of a KPTI user root (the entry area only); `None` when KPTI is off.
    fn entry_half(&self) -> Option<&[u64; 256]>;

    /// Makes a change of one user page in `root` visible on every CPU before it returns.
    fn flush_page(&mut self, root: Frame, address: u64);

    /// Makes all changes in `root` visible on every CPU before it returns.
    fn flush_root(&mut self, root: Frame);

    /// No CPU goes on using `root`, whose process has ended and has no thread any more.
    fn leave_root(&mut self, root: Frame);

    /// True if every flush asked for so far has taken effect on every CPU. On one CPU it has when the call
    /// returns.
    fn flushes_done(&self) -> bool {
        true
    }

    /// Nanoseconds since boot; never goes back.
    fn now(&self) -> u64;

    /// Asks for a [`Entry::Timer`] at or after this time (ns since boot); `u64::MAX` for none.
    fn set_timer(&mut self, deadline: u64);

    /// True if an interrupt waits, so that a long operation should stop at its next step.
    fn interrupt_pending(&self) -> bool;

    /// Masks or unmasks a device interrupt line.
    fn mask_interrupt(&mut self, line: u8, masked: bool);

    /// Reads an I/O port of 1, 2 or 4 bytes. The core has checked the range.
    fn port_read(&mut self, port: u16, width: u8) -> u32;

    /// Writes an I/O port of 1, 2 or 4 bytes. The core has checked the range.
    fn port_write(&mut self, port: u16, width: u8, value: u32);

    /// Puts a clean initial XSAVE area into a zeroed frame; returns what [`Context::extended`] is to hold.
    fn init_fpu(&mut self, fpu: Frame) -> u64;

    /// The thread whose extended state lives in this area ([`Machine::init_fpu`]) is gone: nothing of it is saved
    /// any more.
    fn release_extended(&mut self, extended: u64);

    /// Copies this many 64-bit words from one frame to the same places of another, from word `first` on, up to the
    /// frame's end.
    fn copy_words(&mut self, from: Frame, to: Frame, first: usize, count: usize) {
        let words = *self.frame(from);
        for (to, from) in self.frame(to).iter_mut().zip(words).skip(first).take(count) {
            *to = from;
        }
    }

    /// Sends one line to the results channel, apart from the console.
    fn report(&mut self, line: &[u8]);

    /// Appends a line to the kernel's log.
    fn log(&mut self, line: core::fmt::Arguments<'_>);

    /// Copies log bytes from a sequence number on into the buffer.
    fn log_read(&mut self, sequence: u64, into: &mut [u8]) -> LogRead;

    /// COM1 belongs to a ring-3 process from now on; only a panic takes it back.
    fn release_serial(&mut self);

    /// Hands a job to the verification context, which is idle; it runs when the core next returns
    /// [`Next::Verification`].
    fn start_verification(&mut self, work: Box<Work>);

    /// Takes the job back after [`Entry::VerificationDone`].
    fn finish_verification(&mut self) -> Option<Box<Work>>;

    /// Bytes of the verification context's stack that were ever in use, from the top down; 0 before its first job, and
    /// where the context has no stack of its own.
    fn verification_stack_peak(&self) -> u64 {
        0
    }

    /// Switches the machine off; returns if it cannot.
    fn power_off(&mut self, how: PowerOff);
}
