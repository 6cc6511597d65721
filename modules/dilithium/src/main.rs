//! Checks a signature that comes in a Region (`sila_abi::verify_case`), of whichever scheme it names. The text call
//! `verify` is answered with `valid` or with what is wrong.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::format;
use alloc::string::{String, ToString};
use sila_abi::verify_case::VerifyCase;
use sila_crypto::scheme::VerifyingKey;
use sila_rt::lifecycle;
use sila_rt::memory::SealedRegion;
use sila_rt::service::{Service, ServiceError};
use sila_rt::slots::Caps;

sila_rt::entry!(main);

/// The longest Region that is looked at, in bytes.
const LONGEST: u64 = 1 << 20;

fn main() -> u64 {
    match serve() {
        Ok(()) => 0,
        Err(error) => {
            let _ = lifecycle::failed(error.code(), &format!("dilithium: {error}"));
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
    if text != "verify" {
        return Err("the one command is verify".into());
    }
    let region = caps.take(0).ok_or("verify wants a case: pass one in a sealed Region")?;
    let region = SealedRegion::map(region, LONGEST as _).map_err(|e| format!("the Region can't be mapped: {e}"))?;
    let (case, _) = VerifyCase::parse(region.bytes()).map_err(|e| e.to_string())?;
    let key = VerifyingKey::decode(case.algorithm, case.key).map_err(|e| e.to_string())?;
    match key.verify_in_context(case.context, case.message, case.signature) {
        Ok(()) => Ok("valid".into()),
        Err(why) => Ok(why.to_string()),
    }
}
