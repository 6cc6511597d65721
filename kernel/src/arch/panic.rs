//! How the kernel dies: `PANIC <message> at <file>:<line>`, then one `bt 0x<address>` line per frame,
//! on the results channel, COM1 and the screen; then the machine is switched off.
//!
//! Owns nothing but the flag that a panic is under way. Invariants: nothing here allocates, waits for a
//! lock or runs without bound; a panic within a panic stops at once; the stack walk reads only the
//! kernel's own stacks.

use core::fmt::{self, Write};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use kernel::machine::PowerOff;

use super::framebuffer;
use super::layout;
use super::power;
use super::regs;
use super::serial;
use super::trap::ExceptionFrame;

static DYING: AtomicBool = AtomicBool::new(false);

/// Writes everywhere.
struct Everywhere;

impl Write for Everywhere {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        serial::report(text.as_bytes());
        serial::write(text.as_bytes());
        framebuffer::write(text.as_bytes());
        Ok(())
    }
}

fn begin() {
    if DYING.swap(true, Ordering::Relaxed) {
        power::off(PowerOff::Panic);
        regs::halt_for_ever();
    }
    kernel::log::close();
    serial::seize();
}

fn end(frame_pointer: u64) -> ! {
    backtrace(frame_pointer);
    framebuffer::draw_all();
    power::off(PowerOff::Panic);
    regs::halt_for_ever()
}

/// Stops the kernel with a message: for what can only be a broken machine or a bug of ours.
#[track_caller]
#[cold]
pub fn fatal(message: &str) -> ! {
    let place = core::panic::Location::caller();
    begin();
    // `Everywhere` never fails.
    let _done = writeln!(Everywhere, "\nPANIC {message} at {}:{}", place.file(), place.line());
    end(frame_pointer())
}

/// Stops the kernel because of an exception in ring 0.
#[cold]
pub fn fatal_exception(frame: &ExceptionFrame, message: &str) -> ! {
    begin();
    let ExceptionFrame { vector, error, rip, rsp, .. } = *frame;
    // `Everywhere` never fails.
    let _done = writeln!(Everywhere, "\nPANIC {message}: vector {vector}, error {error:#x} at rip:{rip:#x}");
    let names = [
        "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
    ];
    for (name, value) in names.iter().zip(frame.general) {
        let _done = write!(Everywhere, "{name} {value:#x} ");
    }
    let (cr2, cr3) = (regs::cr2(), regs::cr3());
    let _done = writeln!(Everywhere, "\nrsp {rsp:#x} rflags {:#x} cr2 {cr2:#x} cr3 {cr3:#x}", frame.rflags);
    let _done = writeln!(Everywhere, "bt {rip:#x}");
    end(frame.general[6])
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    begin();
    let (file, line) = info.location().map_or(("?", 0), |place| (place.file(), place.line()));
    // `Everywhere` never fails.
    let _done = writeln!(Everywhere, "\nPANIC {} at {file}:{line}", info.message());
    end(frame_pointer())
}

#[inline(always)]
fn frame_pointer() -> u64 {
    let value: u64;
    // SAFETY: only reads a register.
    unsafe { core::arch::asm!("mov {}, rbp", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

/// True if two words at `address` lie on a stack of ours that is mapped.
fn on_stack(address: u64) -> bool {
    if !address.is_multiple_of(8) {
        return false;
    }
    let inside = |start: u64, size: u64| address >= start && address.saturating_add(16) <= start + size;
    let ist = (0..layout::IST_COUNT)
        .any(|n| inside(layout::ENTRY_CPUS + layout::IST + n * layout::IST_STEP, layout::IST_SIZE));
    let (kernel, verification) = (layout::KERNEL_STACK, layout::VERIFICATION_STACK);
    ist || inside(layout::STACKS + kernel.0, kernel.1)
        || inside(layout::STACKS + verification.0, verification.1)
}

fn backtrace(mut frame: u64) {
    for _ in 0..64 {
        if !on_stack(frame) {
            return;
        }
        // SAFETY: both words lie on one of our stacks, which are mapped for good.
        let (next, back) = unsafe { (*(frame as *const u64), *((frame + 8) as *const u64)) };
        if back < layout::IMAGE {
            return;
        }
        // `Everywhere` never fails.
        let _done = writeln!(Everywhere, "bt {back:#x}");
        if next <= frame {
            return;
        }
        frame = next;
    }
}
