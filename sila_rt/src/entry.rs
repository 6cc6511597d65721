//! Where a program starts, and what a panic does.

/// Names the program's main function: `fn() -> u64`, whose result is the exit code.
///
/// ```ignore
/// sila_rt::entry!(main);
/// fn main() -> u64 { 0 }
/// ```
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        /// Called by the runtime's `_start`.
        // SAFETY: a program names its main once, and nothing else defines this symbol.
        #[unsafe(no_mangle)]
        pub extern "C" fn sila_rt_main() -> u64 {
            let main: fn() -> u64 = $main;
            main()
        }
    };
}

/// The exit code of a program that panicked.
pub const PANIC_EXIT_CODE: u64 = 101;

#[cfg(target_os = "none")]
mod target {
    use core::fmt::Write;

    core::arch::global_asm!(
        ".section .text._start, \"ax\", @progbits",
        ".global _start",
        ".type _start, @function",
        "_start:",
        "xor ebp, ebp",
        "and rsp, -16",
        "call {start}",
        "ud2",
        ".size _start, . - _start",
        ".text",
        start = sym start,
    );

    unsafe extern "C" {
        safe fn sila_rt_main() -> u64;
    }

    extern "C" fn start() -> ! {
        crate::raw::exit(sila_rt_main())
    }

    /// Reports the panic where the module reports its failures, and ends the process.
    #[panic_handler]
    fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
        let mut text = crate::text::TextBuffer::new();
        let _ = match info.location() {
            Some(at) => write!(text, "panic at {}:{}: {}", at.file(), at.line(), info.message()),
            None => write!(text, "panic: {}", info.message()),
        };
        let _ = crate::lifecycle::failed(super::PANIC_EXIT_CODE, text.as_str());
        crate::raw::exit(super::PANIC_EXIT_CODE)
    }
}
