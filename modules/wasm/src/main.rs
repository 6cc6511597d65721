//! The process of the WebAssembly service: takes a program in a Region and a command in a text call.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec;
use sila_rt::lifecycle;
use sila_rt::memory::{SealedRegion, SharedRegion, region_info};
use sila_rt::service::{Service, ServiceError};
use sila_rt::slots::{Caps, OwnedSlot};
use wasm::{MAX_PROGRAM_LEN, Trap, command};

sila_rt::entry!(main);

fn main() -> u64 {
    match serve() {
        Ok(()) => 0,
        Err(error) => {
            let _ = lifecycle::failed(error.code(), &format!("wasm: {error}"));
            1
        }
    }
}

fn serve() -> Result<(), ServiceError> {
    let service = Service::register(true)?;
    lifecycle::ready()?;
    service.run_text(1, answer)?;
    Ok(())
}

fn answer(text: &str, caps: &mut Caps) -> Result<String, String> {
    let run = command::parse(text)?;
    let region = caps.take(0).ok_or("run wants a program: pass one in a Region")?;
    with_bytes(region, |bytes| {
        let outcome = match command::program(bytes) {
            Some(program) => wasm::run(program, run.export, &run.args, run.limits),
            None => Err(Trap::InvalidProgram),
        };
        command::answer(&run, outcome)
    })
}

/// Shows a Region's bytes: in place if it is sealed, else a copy that nobody else can change.
fn with_bytes(
    region: OwnedSlot,
    look: impl FnOnce(&[u8]) -> Result<String, String>,
) -> Result<String, String> {
    let refused = |error| format!("the program's Region can't be mapped: {error}");
    if region_info(region.slot()).map_err(refused)?.sealed {
        return look(SealedRegion::map(region, MAX_PROGRAM_LEN).map_err(refused)?.bytes());
    }
    let shared = SharedRegion::map(region, false, MAX_PROGRAM_LEN).map_err(refused)?;
    let mut copy = vec![0; shared.size()];
    if !shared.read(0, &mut copy) {
        return Err("the program's Region can't be read".into());
    }
    look(&copy)
}
