//! The machine as the core sees it: `impl Machine`.
//!
//! Owns: clock, timer deadline, interrupt lines, roots. Invariants: `frame` is reached only for RAM
//! that the physical map covers; the area of a thread that is gone is not written any more;
//! no root stays loaded after `leave_root`.

#[cfg(not(feature = "self-check"))]
use alloc::boxed::Box;
use core::fmt;
use core::ptr::null_mut;

#[cfg(not(feature = "self-check"))]
use super::core_iface::Job;
use kernel::cpu::Mitigations;
use kernel::log::{self, Level};
use kernel::machine::{Entry, FRAME_SIZE, FRAME_WORDS, Frame, LogRead, Machine, PowerOff, Registers};
use kernel::pci::{ConfigSpace, Function};

use super::clock::Clock;
use super::fpu::Fpu;
use super::framebuffer;
use super::ioapic::Lines;
use super::lapic::{LINE_VECTOR, Lapic, TIMER_VECTOR};
use super::layout::physmap;
use super::panic::fatal;
use super::pci::ConfigPorts;
use super::percpu;
use super::power;
use super::regs;
use super::serial;
#[cfg(not(feature = "self-check"))]
use super::trap;

/// Everything below the core.
pub struct Hardware {
    /// Time.
    pub clock: Clock,
    /// This CPU's local APIC.
    pub lapic: Lapic,
    /// Device lines.
    pub lines: Lines,
    /// Extended state.
    pub fpu: Fpu,
    /// What is done about the processor's weaknesses.
    pub mitigations: Mitigations,
    /// WRFSBASE exists and is on.
    pub fsgsbase: bool,
    /// SMAP is on.
    pub smap: bool,
    /// Upper half of every root.
    pub kernel_half: [u64; 256],
    /// Upper half of user roots.
    pub entry_half: [u64; 256],
    /// The kernel's own root.
    pub boot_root: u64,
    /// End of the physical map.
    pub physmap_end: u64,
    deadline: u64,
}

impl Hardware {
    /// Nothing yet.
    pub const OFF: Self = Self {
        clock: Clock::OFF,
        lapic: Lapic::OFF,
        lines: Lines::OFF,
        fpu: Fpu::OFF,
        mitigations: Mitigations {
            kpti: false,
            ibrs_always: false,
            ibpb_on_switch: false,
            verw_on_exit: false,
        },
        fsgsbase: false,
        smap: false,
        kernel_half: [0; 256],
        entry_half: [0; 256],
        boot_root: 0,
        physmap_end: 0,
        deadline: u64::MAX,
    };

    /// A device, timer or inter-processor vector arrived. What the core is to hear, if anything.
    pub fn interrupt(&mut self, vector: u8) -> Option<Entry> {
        if vector == TIMER_VECTOR {
            self.lapic.end_of_interrupt();
            let deadline = self.deadline;
            self.deadline = u64::MAX;
            if deadline != u64::MAX && self.clock.now() < deadline {
                // The timer's scale is not the clock's, and long waits are cut: set it again.
                self.set_timer(deadline);
                return None;
            }
            return Some(Entry::Timer);
        }
        let line = vector - LINE_VECTOR;
        let tell = self.lines.arrived(usize::from(line));
        self.lapic.end_of_interrupt();
        tell.then_some(Entry::Interrupt { line })
    }

    /// Draws log lines until all are drawn or something more important waits.
    pub fn draw_log(&self) {
        while !self.lapic.pending() && framebuffer::step() {}
    }

    #[inline(always)]
    fn pointer(&self, frame: Frame) -> *mut [u64; FRAME_WORDS] {
        if frame.address() >= self.physmap_end {
            fatal("the core named a frame that is not RAM");
        }
        physmap(frame.address()) as *mut [u64; FRAME_WORDS]
    }
}

/// The root that is loaded in ring 0.
#[inline(always)]
fn loaded_root() -> u64 {
    // SAFETY: the core runs inside an entry; the struct is not used elsewhere meanwhile. The owner is a thread that lives,
    // or nobody.
    unsafe { (*(*percpu::this()).owner()).root }
}

/// Zeroes a frame in 16-byte stores: half as many as the string instruction makes steps of. The one function of the
/// kernel that uses a vector register, as the build checks: it may hold a thread's value, which is kept and put back.
///
/// # Safety
/// `words` is a frame in the physical map that nothing else refers to. SSE is on, which it is since before the first
/// frame was handed out; nothing that can interrupt the kernel here uses the register.
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "sysv64" fn zero_words(words: *mut [u64; FRAME_WORDS]) {
    core::arch::naked_asm!(
        "sub rsp, 24",
        "movups [rsp], xmm0",
        "xorps xmm0, xmm0",
        "mov eax, {turns}",
        "2:",
        ".irp at, 0, 16, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208, 224, 240",
        "movaps [rdi + \\at], xmm0",
        "movaps [rdi + 256 + \\at], xmm0",
        ".endr",
        "add rdi, 512",
        "dec eax",
        "jnz 2b",
        "movups xmm0, [rsp]",
        "add rsp, 24",
        "ret",
        turns = const FRAME_WORDS * 8 / 512,
    )
}

impl ConfigSpace for Hardware {
    fn config_read(&mut self, function: Function, register: u8) -> u32 {
        ConfigPorts.config_read(function, register)
    }

    fn config_write(&mut self, function: Function, register: u8, value: u32) {
        ConfigPorts.config_write(function, register, value);
    }
}

impl Machine for Hardware {
    #[inline(always)]
    fn frame(&mut self, frame: Frame) -> &mut [u64; FRAME_WORDS] {
        // SAFETY: the core passes frames that its frame table owns, all of them RAM that the physical map
        // covers and that nothing of the edge uses; `&mut self` keeps it to one at a time.
        unsafe { &mut *self.pointer(frame) }
    }

    fn copy_frame(&mut self, from: Frame, to: Frame) {
        self.copy_words(from, to, 0, FRAME_WORDS);
    }

    #[inline(always)]
    fn zero_frame(&mut self, frame: Frame) {
        // SAFETY: as for `frame`.
        unsafe { zero_words(self.pointer(frame)) }
    }

    fn kernel_half(&self) -> &[u64; 256] {
        &self.kernel_half
    }

    fn entry_half(&self) -> Option<&[u64; 256]> {
        self.mitigations.kpti.then_some(&self.entry_half)
    }

    #[inline(always)]
    fn flush_page(&mut self, _root: Frame, address: u64) {
        // In whatever root is loaded: finding out whether it is that one costs as much. A root that is not loaded has
        // nothing in the TLB: every load of CR3 empties it, as user pages are never global and there is no PCID. The
        // same holds for user roots while we are in ring 0.
        regs::invlpg(address);
    }

    fn flush_root(&mut self, root: Frame) {
        if loaded_root() == root.address() {
            // SAFETY: the root in use.
            unsafe { regs::set_cr3(root.address()) };
        }
    }

    fn leave_root(&mut self, root: Frame) {
        if loaded_root() == root.address() {
            // SAFETY: the kernel's own root maps the whole kernel; no thread of the other one runs any more.
            unsafe {
                regs::set_cr3(self.boot_root);
                (*percpu::this()).disown(self.boot_root);
            }
        }
    }

    #[inline(always)]
    fn now(&self) -> u64 {
        self.clock.now()
    }

    fn set_timer(&mut self, deadline: u64) {
        if deadline == self.deadline {
            return;
        }
        self.deadline = deadline;
        if deadline == u64::MAX {
            self.lapic.start_timer(0);
        } else {
            let left = deadline.saturating_sub(self.clock.now());
            self.lapic.start_timer(self.clock.timer_ticks(left));
        }
    }

    #[inline(always)]
    fn interrupt_pending(&self) -> bool {
        self.lapic.pending()
    }

    fn mask_interrupt(&mut self, line: u8, masked: bool) {
        self.lines.set_masked(line, masked, self.lapic);
    }

    fn port_read(&mut self, port: u16, width: u8) -> u32 {
        // SAFETY: the core allows only ports of devices that cannot touch memory.
        unsafe {
            match width {
                1 => u32::from(regs::in8(port)),
                2 => u32::from(regs::in16(port)),
                _ => regs::in32(port),
            }
        }
    }

    fn port_write(&mut self, port: u16, width: u8, value: u32) {
        // SAFETY: as for `port_read`.
        unsafe {
            match width {
                1 => regs::out8(port, value as u8),
                2 => regs::out16(port, value as u16),
                _ => regs::out32(port, value),
            }
        }
    }

    fn init_fpu(&mut self, fpu: Frame) -> u64 {
        Fpu::init(self.frame(fpu));
        physmap(fpu.address())
    }

    fn release_extended(&mut self, extended: u64) {
        // SAFETY: the core runs inside an entry; the struct is not used elsewhere meanwhile. The owner is a thread that
        // lives, or nobody.
        unsafe {
            let cpu = &mut *percpu::this();
            let owner = cpu.owner();
            if (*owner).extended == extended {
                cpu.disown((*owner).root);
            }
        }
    }

    #[inline(always)]
    fn copy_words(&mut self, from: Frame, to: Frame, first: usize, count: usize) {
        let first = first.min(FRAME_WORDS);
        let count = count.min(FRAME_WORDS - first);
        let (from, to) = (self.pointer(from).cast::<u64>(), self.pointer(to).cast::<u64>());
        // SAFETY: as for `frame`; both ends lie in the frames, and one frame copied onto itself stays as it is.
        unsafe {
            core::arch::asm!("rep movsq", inout("rcx") count => _, inout("rsi") from.add(first) => _,
                inout("rdi") to.add(first) => _, options(nostack, preserves_flags));
        }
    }

    fn report(&mut self, line: &[u8]) {
        serial::report(line);
        if !line.ends_with(b"\n") {
            serial::report(b"\n");
        }
    }

    fn log(&mut self, line: fmt::Arguments<'_>) {
        log::write(Level::Info, line);
    }

    fn log_read(&mut self, sequence: u64, into: &mut [u8]) -> LogRead {
        log::read(sequence, into)
    }

    fn release_serial(&mut self) {
        serial::release();
    }

    #[cfg(not(feature = "self-check"))]
    fn start_verification(&mut self, work: Box<Job>) {
        if trap::start_work(work).is_err() {
            fatal("a job for the verification context while it has one");
        }
    }

    #[cfg(not(feature = "self-check"))]
    fn finish_verification(&mut self) -> Option<Box<Job>> {
        trap::finish_work()
    }

    fn verification_stack_peak(&self) -> u64 {
        trap::verification_stack_peak()
    }

    // The self-check's jobs are of another type and go to the context directly.
    #[cfg(feature = "self-check")]
    fn start_verification(&mut self, _: alloc::boxed::Box<kernel::verify::Work>) {
        fatal("a real job in a self-check");
    }

    #[cfg(feature = "self-check")]
    fn finish_verification(&mut self) -> Option<alloc::boxed::Box<kernel::verify::Work>> {
        None
    }

    fn power_off(&mut self, how: PowerOff) {
        framebuffer::draw_all();
        power::off(how);
        log::write(Level::Info, format_args!("It is now safe to switch the machine off."));
        framebuffer::draw_all();
        regs::halt_for_ever();
    }
}

const _: () = assert!(FRAME_SIZE == 4096 && size_of::<Registers>() == 22 * 8);
