//! Which core the edge runs: the only file to change when the core's own interface changes.
//!
//! Owns nothing. The edge knows the core by [`Core`] and its jobs by [`RunJob`] alone. With feature
//! `self-check` the edge's own test core stands in for the kernel.

use core::ptr::NonNull;

use kernel::device_table::DeviceTable;
use kernel::fast::Rest;
use kernel::machine::{Context, Entry, Frame, FrameReader, Machine, Next};

#[cfg(feature = "self-check")]
pub use super::selfcheck::{SelfCheck as ActiveCore, Spin as Job};
#[cfg(not(feature = "self-check"))]
pub use kernel::{Kernel as ActiveCore, verify::Work as Job};

/// What the core is told about the machine at boot.
pub struct BootInfo<'a> {
    /// Free memory: first frame and number of frames. The core owns it from now on.
    pub usable: &'a [(Frame, u32)],
    /// The boot bundle: its bytes and its first frame. Its frames are in no other list, and what follows
    /// it in its last frame is zero.
    pub bundle: Option<(&'static [u8], Frame)>,
    /// What may be handed out of devices.
    pub devices: DeviceTable,
    /// Page tables are to be audited.
    #[cfg_attr(feature = "self-check", expect(dead_code, reason = "the self-check's core has no audit"))]
    pub audit: bool,
    /// The global interrupt line of COM1.
    #[cfg(feature = "self-check")]
    pub com1_line: u8,
    /// COM1 answers.
    #[cfg(feature = "self-check")]
    pub has_serial: bool,
    /// How the self-check is to end, for those that end in a panic.
    #[cfg(feature = "self-check")]
    pub ending: super::selfcheck::Ending,
}

/// The core refuses to start; it has logged why.
pub struct Refused;

/// The core as the edge sees it.
pub trait Core: Sized {
    /// Takes over the machine. The first thing to run comes from [`Core::first_context`].
    fn start_on<M: Machine>(machine: &mut M, info: BootInfo<'_>) -> Result<Self, Refused>;
    /// What runs first.
    fn first_context<M: Machine>(&mut self, machine: &mut M) -> Next;
    /// Handles one entry.
    fn handle<M: Machine>(&mut self, machine: &mut M, entry: Entry) -> Next;
    /// Carries out a call at once and says what to switch to, or changes nothing.
    #[inline(always)]
    fn fast_call<const PATH: u8, M: Machine>(&mut self, _: &mut M) -> Result<NonNull<Context>, Rest> {
        Err(Rest::All)
    }
    /// As [`Core::fast_call`], for reply_recv.
    #[inline(always)]
    fn fast_reply_recv<const PATH: u8, M: Machine>(&mut self, _: &mut M) -> Result<NonNull<Context>, Rest> {
        Err(Rest::All)
    }
    /// Carries out a wait for flags at once and says what to switch to, if to anything, or changes nothing.
    #[inline(always)]
    fn fast_recv(&mut self) -> Result<Option<NonNull<Context>>, Rest> {
        Err(Rest::All)
    }
    /// Carries out the operation with this number at once, to return to the same thread, or changes nothing.
    #[inline(always)]
    fn fast_operation<const OP: u32, M: Machine>(&mut self, _: &mut M) -> Result<(), Rest> {
        Err(Rest::All)
    }
    /// Carries out an invocation that nothing else comes with.
    #[inline(always)]
    fn quick_invoke<M: Machine>(&mut self, _: &mut M) -> Result<(), Rest> {
        Err(Rest::All)
    }
    /// Makes a fault a call to its handler at once and says what to switch to, or changes nothing.
    #[inline(always)]
    fn fast_fault(&mut self, _: Entry) -> Option<NonNull<Context>> {
        None
    }
    /// Does what the fast path left of a system call.
    fn general_syscall<M: Machine>(&mut self, machine: &mut M, _: Rest) -> Next {
        self.handle(machine, Entry::Syscall)
    }
}

/// A job of the verification context.
pub trait RunJob {
    /// Whether scratch memory may be emptied before: nothing of an earlier job is in use any more.
    fn is_alone(&self) -> bool {
        true
    }

    /// Runs it to its end; called in that context.
    fn run(&mut self, frames: &impl FrameReader);
}

#[cfg(not(feature = "self-check"))]
mod real {
    use super::{ActiveCore, BootInfo, Context, Core, Job, NonNull, Refused, Rest, RunJob};
    use kernel::frames::FrameTable;
    use kernel::log;
    use kernel::machine::{Entry, FRAME_SIZE, Frame, FrameReader, Machine, Next};
    use kernel::objects::Fault;

    impl Core for ActiveCore {
        fn start_on<M: Machine>(machine: &mut M, info: BootInfo<'_>) -> Result<Self, Refused> {
            let Some((bundle, bundle_frame)) = info.bundle else {
                log!(Error, "there is no boot bundle (file `ramdisk` beside the kernel)");
                return Err(Refused);
            };
            let limit = info.usable.iter().map(|(first, count)| first.0 + count).max().unwrap_or(0);
            let mut frames = FrameTable::new(limit);
            for &(first, count) in info.usable {
                (first.0..first.0 + count).rev().for_each(|number| frames.add(Frame(number)));
            }
            let ram_bytes = u64::from(frames.total()) * FRAME_SIZE as u64;
            let devices = info.devices;
            let info = kernel::boot::BootInfo { bundle, bundle_frame, ram_bytes, audit: info.audit };
            Self::boot(machine, frames, devices, &info).map_err(|error| {
                log!(Error, "{error}");
                Refused
            })
        }

        fn first_context<M: Machine>(&mut self, machine: &mut M) -> Next {
            self.decide(machine)
        }

        fn handle<M: Machine>(&mut self, machine: &mut M, entry: Entry) -> Next {
            self.enter(machine, entry)
        }

        #[inline(always)]
        fn fast_call<const PATH: u8, M: Machine>(
            &mut self,
            machine: &mut M,
        ) -> Result<NonNull<Context>, Rest> {
            ActiveCore::fast_call::<PATH>(self, machine)
        }

        #[inline(always)]
        fn fast_reply_recv<const PATH: u8, M: Machine>(
            &mut self,
            machine: &mut M,
        ) -> Result<NonNull<Context>, Rest> {
            ActiveCore::fast_reply_recv::<PATH>(self, machine)
        }

        #[inline(always)]
        fn fast_recv(&mut self) -> Result<Option<NonNull<Context>>, Rest> {
            ActiveCore::fast_recv(self)
        }

        #[inline(always)]
        fn fast_operation<const OP: u32, M: Machine>(&mut self, machine: &mut M) -> Result<(), Rest> {
            ActiveCore::fast_operation::<OP>(self, machine)
        }

        #[inline(always)]
        fn quick_invoke<M: Machine>(&mut self, machine: &mut M) -> Result<(), Rest> {
            ActiveCore::quick_invoke(self, machine)
        }

        #[inline(always)]
        fn fast_fault(&mut self, fault: Entry) -> Option<NonNull<Context>> {
            match fault {
                Entry::Fault { vector, error, address } => {
                    ActiveCore::fast_fault(self, Fault { vector, error, address })
                }
                _ => None,
            }
        }

        fn general_syscall<M: Machine>(&mut self, machine: &mut M, rest: Rest) -> Next {
            ActiveCore::general_syscall(self, machine, rest)
        }
    }

    impl RunJob for Job {
        fn is_alone(&self) -> bool {
            Job::is_alone(self)
        }

        fn run(&mut self, frames: &impl FrameReader) {
            kernel::verify::run(self, frames);
        }
    }
}
