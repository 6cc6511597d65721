//! The benchmarks. What capabilities it got tell the program which side it is.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

mod bench;
mod helper;
mod latency;
mod loads;
mod making;
mod peer;
mod rows;
mod trust;

use sila_abi::object::ObjectType;
use sila_rt::op;

sila_rt::entry!(main);

fn main() -> u64 {
    match op::CapStatus(bench::SYSTEM) {
        Ok(status) if status.words[0] == ObjectType::SystemControl as u64 => bench::run(),
        _ if op::CapStatus(helper::COMMAND).is_ok() => helper::serve(),
        _ => peer::serve(),
    }
}
