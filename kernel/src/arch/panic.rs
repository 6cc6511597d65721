//! How the kernel dies: `PANIC <message> at <file>:<line>`, then one `bt 0x<address>` line per return
//! address, on the results channel, COM1 and the screen; then the machine is switched off.
//!
//! The kernel is built without frame pointers: every word of the stack that points behind a call of the
//! kernel's text counts as a return address, so that one of a call that has returned may be among them.
//!
//! Owns nothing but the flag that a panic is under way. Invariants: nothing here allocates, waits for a
//! lock or runs without bound; a panic within a panic stops at once; the scan reads only the kernel's own
//! stacks and text.

use core::fmt::{self, Write};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use kernel::machine::PowerOff;

use super::framebuffer;
use super::layout;
use super::power;
use super::regs;
use super::serial;
use super::spaces;
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

fn end(stack: u64) -> ! {
    backtrace(stack);
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
    end(stack_pointer())
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
    end(rsp)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    begin();
    let (file, line) = info.location().map_or(("?", 0), |place| (place.file(), place.line()));
    // `Everywhere` never fails.
    let _done = writeln!(Everywhere, "\nPANIC {} at {file}:{line}", info.message());
    end(stack_pointer())
}

#[inline(always)]
fn stack_pointer() -> u64 {
    let value: u64;
    // SAFETY: only reads a register.
    unsafe { core::arch::asm!("mov {}, rsp", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

/// The end of the stack of ours that `address` lies on.
fn stack_end(address: u64) -> Option<u64> {
    let ist = |n| (layout::ENTRY_CPUS + layout::IST + n * layout::IST_STEP, layout::IST_SIZE);
    let stack = |(offset, size): (u64, u64)| (layout::STACKS + offset, size);
    let stacks = (0..layout::IST_COUNT).map(ist);
    let mut all = stacks.chain([stack(layout::KERNEL_STACK), stack(layout::VERIFICATION_STACK)]);
    let (start, size) = all.find(|&(start, size)| address >= start && address < start + size)?;
    Some(start + size)
}

/// True if a call of the kernel's text returns to `address`.
fn follows_a_call(address: u64) -> bool {
    let text = spaces::text();
    if !text.contains(&address.saturating_sub(8)) || !text.contains(&address) {
        return false;
    }
    // SAFETY: text is mapped for good and never written.
    let byte = |back: u64| unsafe { *((address - back) as *const u8) };
    // CALL rel32, or CALL r/m64 with its opcode two to seven bytes before.
    byte(5) == 0xe8 || (2..8).any(|back| byte(back) == 0xff && byte(back - 1) >> 3 & 7 == 2)
}

fn backtrace(stack: u64) {
    let mut at = stack.next_multiple_of(8);
    let Some(end) = stack_end(at) else { return };
    let mut found = 0;
    while at < end && found < 64 {
        // SAFETY: the word lies on one of our stacks, which are mapped for good.
        let word = unsafe { *(at as *const u64) };
        if follows_a_call(word) {
            // `Everywhere` never fails.
            let _done = writeln!(Everywhere, "bt {word:#x}");
            found += 1;
        }
        at += 8;
    }
}
