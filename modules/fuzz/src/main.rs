//! The fuzzer. What capabilities it got tell the program which side it is.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

mod crew;
mod driver;
mod hub;
mod judge;
mod kernel;
mod store;
mod worker;

use sila_abi::object::ObjectType;
use sila_rt::op;

sila_rt::entry!(main);

fn main() -> u64 {
    match op::CapStatus(kernel::SYSTEM) {
        Ok(status) if status.words[0] == ObjectType::SystemControl as u64 => driver::run(),
        _ => worker::serve(),
    }
}
