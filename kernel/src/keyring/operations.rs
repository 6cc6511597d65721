//! What capabilities to the KeyRing and the Policy can be used for.

use sila_abi::boot::Floor;
use sila_abi::record::encode_into;
use sila_abi::status::{IdentityRecord, KeyRingRecord};
use sila_abi::trust::{RecordKind, RevokedItem};
use sila_abi::{Error, Op, Slot};
use sila_crypto::chain::KeySource;
use zerocopy::IntoBytes;

use super::VerifiedRecord;
use crate::introspect::{CHUNK_WORDS, padded};
use crate::invoke::{Flow, Invocation, pack};
use crate::kernel::{Fail, Kernel};
use crate::machine::Machine;
use crate::objects::*;
use crate::verify::{COPY_MAX, Wanted};

/// The longest encoding of a revoked item or floor: two names, versions, numbers.
const ITEM_MAX: usize = 160;

const _: () = assert!(size_of::<KeyRingRecord>() <= sila_abi::syscall::MAX_WORDS * 8);
const _: () = assert!(size_of::<IdentityRecord>() <= sila_abi::syscall::MAX_WORDS * 8);

impl Kernel {
    pub(crate) fn trust_operation(
        &mut self,
        m: &mut impl Machine,
        op: Op,
        c: &Invocation,
    ) -> Result<Flow, Fail> {
        match op {
            Op::KeyRingInstall | Op::PolicyInstall => self.begin_install(c, op == Op::PolicyInstall),
            Op::KeyRingState => {
                let mut words = [0u64; size_of::<KeyRingRecord>() / 8];
                pack(&mut words, self.keyring.record().as_bytes());
                self.long_result(m, c.thread, &words)
            }
            Op::KeyRingRevocation => {
                let item = self.keyring.revocations().get(index(c)?).ok_or(Error::NoMoreEntries)?;
                let mut bytes = [0; ITEM_MAX];
                let length = encode_into::<RevokedItem>(item, &mut bytes).ok_or(Error::RecordMalformed)?;
                self.bytes_result(m, c, &[length as u64], bytes.get(..length).unwrap_or_default())
            }
            Op::KeyRingFloor => {
                let (floor, origin) = self.keyring.floors().get(index(c)?).ok_or(Error::NoMoreEntries)?;
                let mut bytes = [0; ITEM_MAX];
                let length = encode_into::<Floor>(floor, &mut bytes).ok_or(Error::RecordMalformed)?;
                let origin = *origin as u64;
                self.bytes_result(m, c, &[length as u64, origin], bytes.get(..length).unwrap_or_default())
            }
            Op::KeyRingAffected => self.next_affected(c),
            Op::KeyRingWatch => {
                let lives = |id| self.notifications.get(id).is_some();
                let mut watchers = self.keyring.watchers();
                super::watch(&mut watchers, c.arg_id(0)?, c.args[1], lives)?;
                self.keyring.set_watchers(watchers);
                Ok(Flow::words(&[]))
            }
            Op::PolicyStatus => {
                let stored = self.keyring.policy().ok_or(Error::ObjectGone)?;
                let p = &stored.policy;
                let length = stored.encoded.len() as u64;
                Ok(Flow::words(&[p.sequence, length, p.rules.len() as u64, p.scopes.len() as u64]))
            }
            Op::PolicyRead => {
                let stored = self.keyring.policy().ok_or(Error::ObjectGone)?;
                let (bytes, words) = chunk(&stored.encoded, c.args[0])?;
                self.bytes_result(m, c, &words, bytes.get(..words[0] as usize * 8).unwrap_or_default())
            }
            Op::ProcessIdentity => self.process_identity(m, c),
            _ => self.keyring_read(m, op, c),
        }
    }

    fn begin_install(&mut self, c: &Invocation, policy: bool) -> Result<Flow, Fail> {
        self.queue_region(c, |region, length| Wanted::Record { region, length, policy })
    }

    /// Has the context verify the first bytes of the Region that the caller names; the caller waits for it.
    pub(crate) fn queue_region(
        &mut self,
        c: &Invocation,
        wanted: impl FnOnce(RegionId, u64) -> Wanted,
    ) -> Result<Flow, Fail> {
        let (region, length): (RegionId, u64) = (c.arg_id(0)?, c.args[1]);
        let pages = self.regions.get(region).map_or(0, |r| r.pages as u64);
        if length == 0 || length > pages * 4096 || length > COPY_MAX as u64 {
            return Err(Error::InvalidArgument.into());
        }
        if !self.can_verify(c.process) {
            return Err(Error::VerificationBusy.into());
        }
        self.pin_region(region, true);
        self.queue_verification(c.thread, wanted(region, length))?;
        self.start_wait(c.thread, ThreadState::Verifying, u64::MAX);
        Ok(Flow::Blocked)
    }

    /// The last step of an installation: puts the record in force and tells who watches, or changes nothing.
    pub(crate) fn install_record(&mut self, record: &VerifiedRecord, policy: bool) -> Result<(), Fail> {
        let (kind, _) = record.named();
        if (kind == RecordKind::Policy) != policy {
            return Err(Error::WrongRecord.into());
        }
        self.room(true)?;
        self.keyring.install(record)?;
        self.sweep_cache();
        for (notification, flags) in self.keyring.watchers().into_iter().flatten() {
            self.signal(notification, flags);
        }
        Ok(())
    }

    /// The next process, and whether it runs what could not be loaded any more.
    fn next_affected(&mut self, c: &Invocation) -> Result<Flow, Fail> {
        let running = |p: &Process| matches!(p.state, ProcessState::Created | ProcessState::Running);
        let later = self.processes.iter().filter(|(_, p)| p.number > c.args[0] && running(p));
        let (_, next) = later.min_by_key(|(_, p)| p.number).ok_or(Error::NoMoreEntries)?;
        // One process is held against the lists in each call.
        let why = self.keyring.objection(&next.identity).unwrap_or(0);
        Ok(Flow::words(&[next.number, next.number, why]))
    }

    fn process_identity(&mut self, m: &mut impl Machine, c: &Invocation) -> Result<Flow, Fail> {
        let id: ProcessId = c.id();
        let p = self.processes.get(id).ok_or(Error::ObjectGone)?;
        let runs = &p.identity;
        let (name, publisher) = (runs.name.as_bytes(), runs.publisher.as_bytes());
        let record = IdentityRecord {
            id: p.number,
            state: p.state as u64,
            version: u64::from(runs.version.major) << 32
                | u64::from(runs.version.minor) << 16
                | u64::from(runs.version.patch),
            security_version: runs.security_version.into(),
            endowed: self.endowed(id),
            capabilities: self.held_caps(id),
            threads: p.thread_count as u64,
            manifest_digest: runs.manifest_digest,
            key_id: runs.key_id,
            name_len: name.len() as u64,
            name: padded(name),
            publisher_len: publisher.len() as u64,
            publisher: padded(publisher),
        };
        let mut words = [0u64; size_of::<IdentityRecord>() / 8];
        pack(&mut words, record.as_bytes());
        self.long_result(m, c.thread, &words)
    }

    /// The requests for which the CSpace holds the capability that was endowed, a bit each.
    fn endowed(&self, id: ProcessId) -> u64 {
        let slots = (1..=sila_abi::manifest::MAX_SLOT).filter_map(|slot| self.find(id, Slot(slot)).ok());
        let requests = slots.map(|found| u32::from(found.cap.origin.request)).filter(|request| *request > 0);
        requests.fold(0, |mask, request| mask | 1u64.checked_shl(request - 1).unwrap_or(0))
    }

    fn keyring_read(&mut self, m: &mut impl Machine, op: Op, c: &Invocation) -> Result<Flow, Fail> {
        let (key, count) = self.keyring.key(index(c)?).ok_or(Error::NoMoreEntries)?;
        let certificate = &key.stored.certificate;
        match op {
            Op::KeyRingStatus => {
                let id = *key.stored.key.id();
                let mut words = [0u64; 6];
                pack(&mut words[..4], &id);
                words[4] = u64::from(self.keyring.is_key_revoked(&id).map_err(|_| Error::IntegrityFault)?);
                words[5] = count as u64;
                Ok(Flow::words(&words))
            }
            Op::KeyRingName => {
                let name = certificate.publisher;
                self.bytes_result(m, c, &[name.as_bytes().len() as u64], name.as_bytes())
            }
            _ => {
                let whole: &[u8] =
                    if op == Op::KeyRingKey { &certificate.key.bytes } else { &key.stored.encoded };
                let (bytes, words) = chunk(whole, c.args[1])?;
                self.bytes_result(m, c, &words, bytes.get(..words[0] as usize * 8).unwrap_or_default())
            }
        }
    }
}

fn index(c: &Invocation) -> Result<usize, Error> {
    usize::try_from(c.args[0]).map_err(|_| Error::NoMoreEntries)
}

/// Bytes from a word offset on, with words that say how many words follow, and how many bytes there are in all.
fn chunk(whole: &[u8], offset: u64) -> Result<([u8; CHUNK_WORDS * 8], [u64; 2]), Error> {
    let start = usize::try_from(offset).ok().and_then(|w| w.checked_mul(8)).unwrap_or(usize::MAX);
    let rest = whole.get(start..).ok_or(Error::InvalidArgument)?;
    let mut buffer = [0u8; CHUNK_WORDS * 8];
    let length = rest.len().min(buffer.len());
    buffer.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    Ok((buffer, [length.div_ceil(8) as u64, whole.len() as u64]))
}
