//! The file that comes in, and what becomes of it.

use crate::{KEY_RING, POLICY};
use alloc::format;
use alloc::string::{String, ToString};
use depot::file::{File, classify};
use depot::link::{FloorAnswer, Verdict};
use depot::store::{Hints, Kept, Store};
use sila_abi::record::Digest;
use sila_abi::trust::RecordKind;
use sila_rt::memory::OwnRegion;
use sila_rt::slots::OwnedSlot;
use sila_rt::{CallError, op, trust};

/// The file under way and the packages that are kept.
pub struct Desk {
    /// The packages: each in a sealed Region.
    pub store: Store<OwnedSlot>,
    incoming: Option<(OwnRegion, usize)>,
}

fn kernel(what: &'static str) -> impl Fn(CallError) -> String {
    move |error| format!("{what}: {} ({})", error.error, error.error.name())
}

/// Hands a record to the kernel, which verifies it.
fn install(kind: RecordKind, record: &OwnedSlot, len: u64) -> Result<String, String> {
    let installed = match kind {
        RecordKind::Policy => op::PolicyInstall(POLICY, record.slot(), len),
        _ => op::KeyRingInstall(KEY_RING, record.slot(), len),
    };
    let name = kind.name();
    let words = installed.map_err(|error| {
        format!("the kernel refused the {name}: {} ({})", error.error, error.error.name())
    })?;
    Ok(format!("the kernel took the {name} of sequence {}", words.words[1]))
}

/// A floor of the running system, as the kernel says it.
pub fn floor(number: u32) -> Verdict {
    let asked =
        trust::ring_state(KEY_RING).and_then(|state| Ok((state, trust::floor(KEY_RING, number.into())?)));
    match asked {
        Ok((state, floor)) => Verdict::Floor(FloorAnswer {
            number,
            changes: state.changes,
            sequence: state.floor_sequence,
            floor: floor.map(|f| format!("{}/{}={}", f.publisher, f.name, f.security_version)),
        }),
        Err(error) => Verdict::Refused(kernel("the kernel does not tell its floors")(error)),
    }
}

impl Desk {
    /// A desk with nothing on it.
    pub const fn new() -> Self {
        Self { store: Store::new(), incoming: None }
    }

    /// Memory for a file of so many bytes, from the depot's own Pool.
    pub fn reserve(&mut self, len: u64) -> Result<(), String> {
        self.discard();
        let bytes = usize::try_from(len).map_err(|error| error.to_string())?;
        let region = OwnRegion::new(bytes).map_err(kernel("the depot has no memory for the file"))?;
        self.incoming = Some((region, bytes));
        Ok(())
    }

    /// Puts a part of the file in its place.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        let Some((region, _)) = &mut self.incoming else { return };
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let place = start.checked_add(bytes.len()).and_then(|end| region.bytes_mut().get_mut(start..end));
        if let Some(place) = place {
            place.copy_from_slice(bytes);
        }
    }

    /// Gives the file up.
    pub fn discard(&mut self) {
        self.incoming = None;
    }

    /// The file is complete: keeps a package, hands a record to the kernel.
    pub fn judge(&mut self, digest: Digest) -> Result<String, String> {
        let (region, len) = self.incoming.take().ok_or("the file is gone")?;
        let file = classify(region.bytes().get(..len).ok_or("the file is gone")?)?;
        let sealed = region.seal().map_err(kernel("the file could not be sealed"))?;
        match file {
            File::Package(hints) => self.keep(hints, len as u64, digest, sealed),
            File::Record(kind) => install(kind, &sealed, len as u64),
        }
    }

    fn keep(&mut self, hints: Hints, len: u64, digest: Digest, sealed: OwnedSlot) -> Result<String, String> {
        let kept = self.store.keep(hints, len, digest, sealed)?;
        let Hints { name, version, .. } = hints;
        Ok(match kept {
            Kept::New => format!("the depot keeps {name} {version}, {len} bytes"),
            Kept::Same => format!("the depot keeps {name} {version} already"),
        })
    }
}
