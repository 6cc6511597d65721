//! The console's process.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

sila_rt::entry!(main);

fn main() -> u64 {
    match console::session::run() {
        Ok(()) => 0,
        Err(error) => {
            let _ = sila_rt::lifecycle::failed(error.error as u64, &alloc::format!("console: {error}"));
            1
        }
    }
}
