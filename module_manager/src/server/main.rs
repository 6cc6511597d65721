//! The event loop around [`module_manager::manager`]: one thread that blocks only in `recv`, and five couriers.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

mod couriers;
mod depot;
mod server;
mod steps;

use alloc::boxed::Box;
use module_manager::catalogue::packages;
use module_manager::facts::Provider;
use module_manager::manager::Manager;
use server::Server;
use sila_abi::boot::{Bundle, EntryKind};
use sila_abi::protocol::layout::FIRST_OTHER;
use sila_abi::{Rights, Slot};
use sila_rt::courier::bound_notification;
use sila_rt::memory::SealedRegion;
use sila_rt::slots::make;
use sila_rt::{CallError, lifecycle, op};

sila_rt::entry!(main);

/// The endpoint that requesters call, and that modules report to.
pub const ENDPOINT: Slot = FIRST_OTHER;
/// DeepCompression.
pub const DEEP_COMPRESSION: Slot = Slot(FIRST_OTHER.0 + 1);
/// The kernel's KeyRing.
pub const KEY_RING: Slot = Slot(FIRST_OTHER.0 + 2);
/// The Job that modules are made in.
pub const JOB: Slot = Slot(FIRST_OTHER.0 + 3);
/// The boot bundle.
pub const BUNDLE: Slot = Slot(FIRST_OTHER.0 + 4);
/// The system's policy.
pub const POLICY: Slot = Slot(FIRST_OTHER.0 + 6);
/// The kernel's module cache, if this system has one.
pub const CACHE: Slot = Slot(FIRST_OTHER.0 + 7);
/// The depot, if this system has one.
pub const DEPOT: Slot = Slot(FIRST_OTHER.0 + 5);

/// The most bytes that the bundle may have.
const MAX_BUNDLE: usize = 1 << 30;

fn main() -> u64 {
    let mut server = match start() {
        Ok(server) => server,
        Err((code, sentence)) => {
            let _ = lifecycle::failed(code, sentence);
            return 1;
        }
    };
    if lifecycle::ready().is_err() {
        return 1;
    }
    server.run()
}

fn start() -> Result<Server, (u64, &'static str)> {
    let kernel = |sentence| move |error: CallError| (error.error as u64, sentence);
    let bundle = map_bundle().map_err(kernel("the boot bundle cannot be mapped"))?;
    let parsed = Bundle::parse(bundle).map_err(|_| (0, "the boot bundle is malformed"))?;
    // Hints, as all of the directory, but the kernel started exactly these, so that the names are true.
    let resident = parsed.of_kind(EntryKind::ModuleManifest).filter_map(|entry| {
        let manifest = sila_abi::manifest::Manifest::decode(entry.data).ok()?;
        let (publisher, name, version) = (manifest.publisher, manifest.name, manifest.version);
        Some(Provider { publisher, name, version })
    });
    let manager = Manager::new(packages(&parsed), resident.collect());
    let done = bound_notification().map_err(kernel("no notification for the couriers"))?;
    let mut server = Server::new(manager, bundle, done).map_err(kernel("a courier did not start"))?;
    server.follow_policy().map_err(kernel("the policy cannot be read"))?;
    Ok(server)
}

/// The bundle, mapped for as long as the process lives. It is sealed: the slice never changes.
fn map_bundle() -> Result<&'static [u8], CallError> {
    let copy = make(|dst| op::CapCopy(BUNDLE, dst, Rights::READ.bits().into()))?;
    let region: &'static SealedRegion = Box::leak(Box::new(SealedRegion::map(copy, MAX_BUNDLE)?));
    Ok(region.bytes())
}
