//! What a probe can be told to do. The test runner makes one process for each act, answers its first call with the
//! act's number and arguments, and watches how it ends.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod puppet;

use sila_abi::Slot;

/// The endpoint that a probe calls first, and reports to.
pub const COMMAND: Slot = Slot(8);
/// A notification that a probe may signal (badge 6: flags 2 and 4 at most).
pub const SIGNAL: Slot = Slot(9);
/// Index of the manifest's request for the clock.
pub const REQUEST_CLOCK: u16 = 3;
/// Index of the manifest's request for [`COMMAND`].
pub const REQUEST_COMMAND: u16 = 4;
/// Index of the manifest's request for [`SIGNAL`].
pub const REQUEST_SIGNAL: u16 = 5;

/// Label of a probe's first call. The answer: label the act's number, words its arguments.
pub const HELLO: u32 = 0x7072_6f62;
/// Label of what a probe calls with later.
pub const REPORT: u32 = 0x7265_706f;
/// Exit code of an act that ended as it should when nothing stopped it.
pub const SURVIVED: u64 = 0x5a;
/// Exit code of an act that saw something wrong.
pub const WRONG: u64 = 0xbad;

/// Map the device's registers to be read, and write one.
pub const DRIVE_WRITE: u64 = 0;
/// Map the device's registers to be written, and execute them.
pub const DRIVE_EXECUTE: u64 = 1;
/// Make the device interrupt, wait for that, and exit with the flags, the interrupt not dealt with.
pub const DRIVE_AND_DIE: u64 = 2;

macro_rules! acts {
    ($($(#[$doc:meta])* $name:ident = $number:literal),* $(,)?) => {
        /// What to do.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Act { $($(#[$doc])* $name = $number),* }

        impl Act {
            /// The act with this number.
            #[must_use]
            pub const fn from_number(number: u32) -> Option<Self> {
                match number { $($number => Some(Act::$name),)* _ => None }
            }
        }
    };
}

acts! {
    /// Exit with code word 0.
    Exit = 1,
    /// Read the byte at word 0; exit with it.
    Read = 2,
    /// Write the byte at word 0.
    Write = 3,
    /// Call the address in word 0.
    Execute = 4,
    /// Write the program's own constants.
    WriteOwnConstants = 5,
    /// Write the program's own code.
    WriteOwnCode = 6,
    /// Execute the program's own data.
    ExecuteOwnData = 7,
    /// Execute the program's own stack.
    ExecuteOwnStack = 8,
    /// Execute instruction number word 0 of [`sila_rt::hostile::INSTRUCTIONS`].
    Instruction = 9,
    /// Make a system call with word 0 as the stack pointer.
    BadStack = 10,
    /// Jump to word 0.
    Jump = 11,
    /// Set the trap flag; if word 0 is 1, make a system call under it.
    TrapFlag = 12,
    /// Set the alignment check flag, make a system call, read unaligned.
    AlignmentCheck = 13,
    /// Make a system call with the direction flag set.
    DirectionFlag = 14,
    /// Run for ever.
    Spin = 15,
    /// Fill the vector registers with word 0 and look at them word 1 times.
    Vectors = 16,
    /// Recurse until the stack ends.
    Recurse = 17,
    /// Panic.
    Panic = 18,
    /// Serve: see [`Serve`] in the program: an endpoint of its own, whose send capability it reports.
    Serve = 19,
    /// Call the endpoint that came with the act, with word 0 words counting from word 1, deadline word 2 ns from now
    /// (0: none); exit with the error's number, or [`SURVIVED`] if the answer has the same words.
    Call = 20,
    /// Send the same way.
    Send = 21,
    /// Make threads until none can be made, then exit with their number.
    Threads = 22,
    /// Exit the first thread only while another one lives on, which exits with code word 0.
    ExitThread = 23,
    /// Signal flags word 0 to [`SIGNAL`]; exit with 0 or the error's number.
    Signal = 24,
    /// Receive from the endpoint that came with the act; exit with the error's number.
    Receive = 25,
    /// Make Regions of one frame until the Pool is empty; exit with the error's number.
    Exhaust = 26,
    /// Watch the process that came as capability 0, and if it ends, report the line in the words from 1 on through
    /// capability 1 and switch the machine off through capability 2.
    Guard = 27,
    /// Report the address of a secret in memory, then wait for ever.
    Secret = 28,
    /// A system call with word 0 as tag.
    RawCall = 29,
    /// Create the process whose image, proof, Pool and Job came with the act; exit with the error's number.
    Create = 30,
    /// Drive the device whose Region and IrqHandler came with the act. Word 0: [`DRIVE_WRITE`], [`DRIVE_EXECUTE`] or
    /// [`DRIVE_AND_DIE`].
    Drive = 31,
    /// Do what the answers to reports say: see [`puppet`].
    Puppet = 32,
    /// Use the CPU from word 0 to word 1 (ns since boot) in a manner (word 2: [`WORK_PLAIN`] and so on); exit with the
    /// time it ran, in ns. Gaps of at least word 3 ns between two readings of the clock do not count.
    Work = 60,
    /// Answer calls to an endpoint of ceiling word 0, whose send capability it reports, with the own priority, the
    /// priority it runs at, and the one it ran at before it received the call.
    Priorities = 61,
    /// Start a thread that looks at its registers first of all; exit with [`SURVIVED`], or 0x1000 and what was not clean.
    Fresh = 62,
    /// Report, then fill all of x87, SSE and AVX with word 0 and look at it after other threads ran, until word 1.
    Dirty = 63,
    /// Make a system call with the flags in word 0, then run with them for word 1 rounds; exit with [`SURVIVED`], or with
    /// the flags that the call left and should not have.
    Flags = 64,
    /// Set the bases of FS and GS to words 0 and 1 and look at them until word 2.
    Bases = 65,
    /// Load selector word 1 into segment register word 0 (DS, ES, FS, GS, SS), yield, and look.
    Selector = 66,
    /// Execute instruction number word 0 of [`sila_rt::hostile::system`].
    System = 67,
    /// Fault, with the faults reported to the endpoint that came with the act, and go on.
    Faulty = 68,
    /// Have a floating-point exception pending while other threads run, and then take it.
    PendingException = 69,
}

/// [`Act::Work`]: read the clock.
pub const WORK_PLAIN: u64 = 0;
/// [`Act::Work`]: yield all the time.
pub const WORK_YIELDING: u64 = 1;
/// [`Act::Work`]: with as many threads as the manifest allows.
pub const WORK_THREADS: u64 = 2;
/// [`Act::Work`]: two threads call each other.
pub const WORK_CALLING: u64 = 3;
/// [`Act::Work`]: make Regions, which are long operations that interrupts preempt.
pub const WORK_RESTARTING: u64 = 4;
/// [`Act::Work`]: in a second thread, whose capability it reports.
pub const WORK_APART: u64 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn act_numbers_round_trip() {
        for number in (1..=32).chain(60..=69) {
            assert_eq!(Act::from_number(number).map(|act| act as u32), Some(number));
        }
        assert_eq!(Act::from_number(0), None);
        assert_eq!(Act::from_number(33), None);
    }
}
