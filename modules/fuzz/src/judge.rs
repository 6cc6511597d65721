//! Holds the kernel against what a hostile ModuleManager must not bring about: read from live objects, by capabilities
//! that workers do not have.

use crate::kernel::{KEYS, Reason, SYSTEM, report, works};
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::vec::Vec;
use fuzz::oracle::{Cap, candidates, excess, lowered};
use sila_abi::boot::Floor;
use sila_abi::manifest::Manifest;
use sila_abi::status::ProcessRecord;
use sila_abi::{Error, ObjectType, Rights, Slot};
use sila_rt::slots::{OwnedSlot, make};
use sila_rt::system::{Label, capabilities, endpoint_label, processes};
use sila_rt::{op, trust};

/// Labelled endpoints that are kept an eye on.
const WITNESSES: usize = 12;
/// State of a process that has not started.
const CREATED: u64 = 1;
/// State of a process that runs.
const RUNNING: u64 = 2;

/// The oracle.
pub struct Judge {
    manifests: Vec<Manifest>,
    /// What the workers themselves run: they pass capabilities to each other.
    active: Manifest,
    floors: Vec<Floor>,
    /// Processes that the boot manifest started.
    boot: BTreeSet<u64>,
    witnesses: Vec<(OwnedSlot, Label)>,
    seen: [u64; 5],
}

fn text(bytes: &[u8], length: u64) -> &str {
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    bytes.get(..length).and_then(|bytes| core::str::from_utf8(bytes).ok()).unwrap_or_default()
}

fn floors() -> Result<Vec<Floor>, Reason> {
    let ring = works("the KeyRing", trust::ring(KEYS))?;
    Ok(ring.floors.into_iter().map(|(floor, _)| floor).collect())
}

impl Judge {
    /// The state before the first call.
    pub fn new(manifests: Vec<Manifest>, active: Manifest) -> Result<Self, Reason> {
        let boot = works("SystemProcess", processes(SYSTEM))?.iter().map(|process| process.id).collect();
        Ok(Self { manifests, active, floors: floors()?, boot, witnesses: Vec::new(), seen: [0; 5] })
    }

    /// A capability that came to the driver: if it is of a labelled endpoint, the label is not to change.
    pub fn witness(&mut self, cap: Slot) {
        let status = op::CapStatus(cap).map(|status| status.words[0]);
        if self.witnesses.len() >= WITNESSES || status != Ok(ObjectType::Endpoint as u64) {
            return;
        }
        let copy = make(|dst| op::CapCopy(cap, dst, Rights::COPY.bits().into()));
        if let (Ok(copy), Ok(Some(label))) = (copy, endpoint_label(cap)) {
            self.witnesses.push((copy, label));
        }
    }

    /// Lets go of all witnesses.
    pub fn dismiss(&mut self) {
        self.witnesses.clear();
    }

    /// Looks at everything.
    pub fn look(&mut self) -> Result<(), Reason> {
        self.seen[0] += 1;
        let now = floors()?;
        if let Some(floor) = lowered(&self.floors, &now) {
            return Err(format!("the floor of {} was {} and is lower", floor.name, floor.security_version));
        }
        self.seen[3] += now.iter().filter(|floor| !self.floors.contains(floor)).count() as u64;
        self.floors = now;
        self.labels()?;
        self.processes()
    }

    /// Looks at what every process holds that the workers made.
    pub fn processes(&mut self) -> Result<(), Reason> {
        for process in works("SystemProcess", processes(SYSTEM))? {
            if !self.boot.contains(&process.id) {
                self.process(&process)?;
            }
        }
        Ok(())
    }

    fn labels(&mut self) -> Result<(), Reason> {
        let mut moved = None;
        let mut alive = 0;
        self.witnesses.retain(|(slot, label)| match endpoint_label(slot.slot()) {
            Ok(now) => {
                alive += 1;
                if now != Some(*label) {
                    moved = Some(format!("the label {}/{} is {now:?} now", label.publisher, label.name));
                }
                true
            }
            // The endpoint is gone, or the capability was revoked.
            Err(error) => !matches!(error.error, Error::ObjectGone | Error::NoCapability),
        });
        self.seen[4] += alive;
        moved.map_or(Ok(()), Err)
    }

    fn process(&mut self, process: &ProcessRecord) -> Result<(), Reason> {
        let name = text(&process.name, process.name_len);
        let publisher = text(&process.publisher, process.publisher_len);
        let (id, version) = (process.id, process.version);
        let mut known = candidates(&self.manifests, publisher, name, version);
        let active = candidates(core::slice::from_ref(&self.active), publisher, name, version);
        if known.is_empty() && active.is_empty() {
            return Err(format!("process {id} runs {publisher}/{name} {version:#x}, which is not signed"));
        }
        match process.state {
            CREATED => known.extend(active),
            RUNNING if active.is_empty() => {}
            _ => return Ok(()),
        }
        let caps = works("SystemCapability", capabilities(SYSTEM, id))?;
        let caps: Vec<Cap> = caps
            .iter()
            .map(|cap| Cap {
                slot: cap.slot,
                kind: cap.object_type,
                rights: cap.rights,
                badge: cap.badge,
                request: cap.request,
            })
            .collect();
        self.seen[1] += 1;
        self.seen[2] += caps.len() as u64;
        let odd: Vec<Cap> = known.iter().filter_map(|manifest| excess(&caps, manifest)).collect();
        match odd.first() {
            Some(cap) if odd.len() == known.len() => {
                Err(format!("process {id}, {publisher}/{name}, has more than it asks for: {cap:?}"))
            }
            _ => Ok(()),
        }
    }

    /// Reports how much was looked at.
    pub fn tell(&self) {
        let [looks, processes, capabilities, floors, labels] = self.seen;
        report(&format!("fuzz oracle {looks} {processes} {capabilities} {floors} {labels}"));
    }
}
