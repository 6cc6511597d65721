//! Operations whose results are longer than the registers, as values.

use crate::error::CallError;
use crate::op::{self, invoke_long};
use alloc::vec::Vec;
use sila_abi::device::DeviceRecord;
use sila_abi::protocol::wire;
use sila_abi::record::Name;
use sila_abi::status::{CounterRecord, IdentityRecord, MemoryRecord, ProcessRecord};
use sila_abi::syscall::{MAX_WORDS, REGISTER_WORDS};
use sila_abi::trace::{RECORD_WORDS, Record};
use sila_abi::{Error, Op, Slot};
use zerocopy::{FromBytes, IntoBytes};

/// The service label of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    /// Who published the service.
    pub publisher: Name,
    /// The service's name.
    pub name: Name,
}

/// An endpoint's label; `None` if it carries none.
///
/// # Errors
/// The kernel's.
pub fn endpoint_label(endpoint: Slot) -> Result<Option<Label>, CallError> {
    let mut words = [0; 18];
    invoke_long(endpoint, Op::EndpointLabel, &[], &mut words)?;
    Ok(wire::name_at(&words, 2)
        .zip(wire::name_at(&words, 10))
        .map(|(publisher, name)| Label { publisher, name }))
}

/// A piece of the kernel's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPiece {
    /// What to ask for next.
    pub next: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// How many bytes before these are lost.
    pub lost: u64,
}

/// Log bytes from a sequence number on; none if there are no more yet.
///
/// # Errors
/// The kernel's.
pub fn log(control: Slot, sequence: u64) -> Result<LogPiece, CallError> {
    let mut words = [0; MAX_WORDS];
    invoke_long(control, Op::SystemLog, &[sequence], &mut words)?;
    let [next, count, lost, ..] = words;
    let bytes = words.get(6..).unwrap_or_default().as_bytes();
    let bytes = usize::try_from(count).ok().and_then(|count| bytes.get(..count)).unwrap_or(bytes).to_vec();
    Ok(LogPiece { next, bytes, lost })
}

/// Any record of words, from words `at` on.
fn record<T: FromBytes>(words: &[u64], at: usize) -> Option<T> {
    T::read_from_prefix(words.get(at..)?.as_bytes()).ok().map(|(record, _)| record)
}

/// Every process of the system, in order.
///
/// # Errors
/// The kernel's.
pub fn processes(control: Slot) -> Result<Vec<ProcessRecord>, CallError> {
    let mut list = Vec::new();
    let mut cursor = 0;
    loop {
        let mut words = [0; MAX_WORDS];
        match invoke_long(control, Op::SystemProcess, &[cursor], &mut words) {
            Ok(_) => {}
            Err(error) if error.error == Error::NoMoreEntries => return Ok(list),
            Err(error) => return Err(error),
        }
        list.extend(record::<ProcessRecord>(&words, 6));
        if words[0] == cursor {
            return Ok(list);
        }
        cursor = words[0];
    }
}

/// One occupied slot of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CapabilityRecord {
    /// The slot.
    pub slot: u64,
    /// The object's type, by number.
    pub object_type: u64,
    /// The rights.
    pub rights: u64,
    /// The badge.
    pub badge: u64,
    /// Which object of its type.
    pub index: u64,
    /// Capabilities derived from this one.
    pub children: u64,
    /// The request of the manifest that it was endowed for, counted from 1; 0 if it came otherwise.
    pub request: u64,
    /// The rule of the policy that permitted it, counted from 1; 0: the boot manifest.
    pub rule: u64,
    /// The sequence of that policy.
    pub policy: u64,
}

/// Every capability of a process, by slot.
///
/// # Errors
/// The kernel's.
pub fn capabilities(control: Slot, process: u64) -> Result<Vec<CapabilityRecord>, CallError> {
    let mut list = Vec::new();
    let mut cursor = 0;
    loop {
        let mut words = [0; 9];
        match invoke_long(control, Op::SystemCapability, &[process, cursor], &mut words) {
            Ok(_) => {
                let [slot, object_type, rights, badge, index, children, request, rule, policy] = words;
                list.push(CapabilityRecord {
                    slot,
                    object_type,
                    rights,
                    badge,
                    index,
                    children,
                    request,
                    rule,
                    policy,
                });
                if slot <= cursor && cursor != 0 {
                    return Ok(list);
                }
                cursor = slot;
            }
            Err(error) if error.error == Error::NoMoreEntries => return Ok(list),
            Err(error) => return Err(error),
        }
    }
}

/// Every device of the machine, in order.
///
/// # Errors
/// The kernel's.
pub fn devices(control: Slot) -> Result<Vec<DeviceRecord>, CallError> {
    let mut list = Vec::new();
    let mut cursor = 0;
    loop {
        let mut words = [0; MAX_WORDS];
        match invoke_long(control, Op::SystemDevice, &[cursor], &mut words) {
            Ok(_) => {}
            Err(error) if error.error == Error::NoMoreEntries => return Ok(list),
            Err(error) => return Err(error),
        }
        list.extend(record::<DeviceRecord>(&words, 6));
        if words[0] == cursor {
            return Ok(list);
        }
        cursor = words[0];
    }
}

/// Totals of memory.
///
/// # Errors
/// The kernel's.
pub fn memory(control: Slot) -> Result<MemoryRecord, CallError> {
    let mut words = [0; MAX_WORDS];
    invoke_long(control, Op::SystemMemory, &[], &mut words)?;
    record(&words, 0).ok_or(Error::InvalidOperation.into())
}

/// What the kernel has counted.
///
/// # Errors
/// The kernel's.
pub fn counters(control: Slot) -> Result<CounterRecord, CallError> {
    let mut words = [0; MAX_WORDS];
    invoke_long(control, Op::SystemCounters, &[], &mut words)?;
    record(&words, 0).ok_or(Error::InvalidOperation.into())
}

/// A piece of the kernel's trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TracePiece {
    /// What to ask for next.
    pub next: u64,
    /// How many records before these are lost.
    pub lost: u64,
    /// Bits of the kinds that are recorded now.
    pub kinds: u64,
    /// How many records the kernel keeps.
    pub kept: u64,
    /// The records.
    pub records: Vec<Record>,
}

/// Records of the trace from a sequence number on; none if there are no more yet.
///
/// # Errors
/// The kernel's: `InvalidArgument` beyond the next record's sequence number.
pub fn trace(control: Slot, sequence: u64) -> Result<TracePiece, CallError> {
    let mut words = [0; MAX_WORDS];
    invoke_long(control, Op::SystemTraceRead, &[sequence], &mut words)?;
    let [next, count, lost, kinds, kept, ..] = words;
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let places = words.get(6..).unwrap_or_default().chunks_exact(RECORD_WORDS).take(count);
    let records = places.filter_map(|place| record(place, 0)).collect();
    Ok(TracePiece { next, lost, kinds, kept, records })
}

/// What the kernel's page-table walker says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audit {
    /// Every rule holds over so many pages.
    Sound(u64),
    /// A rule is broken: its number, the process, the address.
    Broken(u64, u64, u64),
}

/// Has the kernel walk every page table.
///
/// # Errors
/// The kernel's: `InvalidOperation` unless the system was started to be audited.
pub fn audit(control: Slot) -> Result<Audit, CallError> {
    let [pages, rule, process, address, ..] = op::SystemAudit(control)?.words;
    Ok(if rule == 0 { Audit::Sound(pages) } else { Audit::Broken(rule, process, address) })
}

/// Creates a process (the operation's own description has the arguments). Each grant is a request's index and the
/// source slot.
///
/// # Errors
/// The kernel's; word 0 may name the request.
pub fn process_create(
    job: Slot,
    image: Slot,
    proof: Slot,
    pool: Slot,
    priority: u64,
    grants: &[(u16, Slot)],
    dst: Slot,
) -> Result<(), CallError> {
    let fixed = [image.0.into(), proof.0.into(), pool.0.into(), priority, grants.len() as u64, dst.0.into()];
    create_with(job, Op::ProcessCreate, fixed, grants)
}

/// Creates a process from an image of the module cache.
///
/// # Errors
/// The kernel's; word 0 may name the request.
pub fn process_create_cached(
    job: Slot,
    image: Slot,
    pool: Slot,
    priority: u64,
    grants: &[(u16, Slot)],
    dst: Slot,
) -> Result<(), CallError> {
    let fixed = [image.0.into(), pool.0.into(), priority, grants.len() as u64, dst.0.into(), 0];
    create_with(job, Op::ProcessCreateCached, fixed, grants)
}

fn create_with(job: Slot, op: Op, fixed: [u64; 6], grants: &[(u16, Slot)]) -> Result<(), CallError> {
    let mut words = [0; MAX_WORDS];
    wire::put(&mut words, 0, &fixed);
    let used = words.get_mut(..6 + grants.len()).ok_or(Error::MessageTooLong)?;
    for (word, (request, source)) in used.iter_mut().skip(6).zip(grants) {
        *word = u64::from(*request) << 16 | u64::from(source.0);
    }
    invoke_long(job, op, used, &mut []).map(|_| ())
}

/// Bytes of the longest line that a results channel takes.
const LONGEST_REPORT: usize = (MAX_WORDS - REGISTER_WORDS) * 8;

/// Sends a line to the results channel of a test system, cut to the longest that it takes.
pub fn report(test_control: Slot, line: &str) {
    let mut words = [0u64; MAX_WORDS];
    let bytes = line.as_bytes();
    let bytes = bytes.get(..bytes.len().min(LONGEST_REPORT)).unwrap_or_default();
    words[0] = bytes.len() as u64;
    for (word, chunk) in words.iter_mut().skip(REGISTER_WORDS).zip(bytes.chunks(8)) {
        let mut raw = [0; 8];
        raw.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
        *word = u64::from_le_bytes(raw);
    }
    let used = REGISTER_WORDS + bytes.len().div_ceil(8);
    // Silence is a failure, which the host sees.
    let _ = invoke_long(test_control, Op::TestReport, words.get(..used).unwrap_or_default(), &mut []);
}

/// What a process runs, as the kernel's live record has it.
///
/// # Errors
/// The kernel's.
pub fn identity(process: Slot) -> Result<IdentityRecord, CallError> {
    let mut words = [0; MAX_WORDS];
    invoke_long(process, Op::ProcessIdentity, &[], &mut words)?;
    let (record, _) =
        IdentityRecord::read_from_prefix(words.as_bytes()).map_err(|_| Error::RecordMalformed)?;
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_record_is_read_from_words() {
        let mut words = [0u64; MAX_WORDS];
        words[6] = 3;
        words[7] = 2;
        words[14] = 4;
        words[15] = u64::from_le_bytes(*b"echo\0\0\0\0");
        let record: ProcessRecord = record(&words, 6).unwrap();
        assert_eq!((record.id, record.state, record.name_len), (3, 2, 4));
        assert_eq!(&record.name[..4], b"echo");
    }

    #[test]
    fn too_many_grants_are_refused() {
        let grants = [(0, Slot(8)); MAX_WORDS];
        let slot = Slot(70);
        let error = process_create(slot, slot, slot, slot, 0, &grants, slot).unwrap_err();
        assert_eq!(error.error, Error::MessageTooLong);
    }
}
