//! The counter's process: registers the service and answers text calls.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

use counter::Counter;
use counter::command::command;
use sila_rt::lifecycle;
use sila_rt::service::{Service, ServiceError};

sila_rt::entry!(main);

fn main() -> u64 {
    match serve() {
        Ok(()) => 0,
        Err(error) => {
            let _ = lifecycle::failed(error.code(), &alloc::format!("counter: {error}"));
            1
        }
    }
}

fn serve() -> Result<(), ServiceError> {
    let service = Service::register(false)?;
    lifecycle::ready()?;
    let mut counter = Counter::new();
    service.run_text(0, |text, _| command(&mut counter, text))?;
    Ok(())
}
