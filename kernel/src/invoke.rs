//! Operations on objects: one dispatcher, driven by the ABI table.
//!
//! Before a handler runs, the table's row has been checked: the capability's type and rights, the type
//! and rights of every capability argument, and that destination slots are free. Handlers only see
//! checked arguments; an effect happens only after everything that can fail.

use sila_abi::ops::{Arg, Op, TABLE};
use sila_abi::syscall::{MAX_WORDS, REGISTER_WORDS, Slot, Tag};
use sila_abi::{Error, ObjectType, Rights};

use crate::cap::{Cap, CapId, Origin};
use crate::create::Held;
use crate::kernel::{Fail, Kernel, id_of, reference};
use crate::machine::Machine;
use crate::memory::Progress;
use crate::objects::*;
use crate::paging::UserRange;

/// How a system call ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flow {
    /// Success without words.
    Done,
    /// Success with these words.
    Words([u64; REGISTER_WORDS], u8),
    /// The registers hold the result already.
    Completed,
    /// The thread waits, or is gone; its registers are written when it wakes.
    Blocked,
    /// An interrupt waits: the instruction runs again with unchanged arguments.
    Restart,
}

impl Flow {
    /// Success with up to six words.
    #[inline(always)]
    pub(crate) fn words(words: &[u64]) -> Flow {
        if words.is_empty() {
            return Flow::Done;
        }
        let mut all = [0; REGISTER_WORDS];
        for (to, from) in all.iter_mut().zip(words) {
            *to = *from;
        }
        Flow::Words(all, words.len().min(REGISTER_WORDS) as u8)
    }

    /// Success with register words, and `total` words in all (the rest is in the message page).
    pub(crate) fn long(words: &[u64], total: usize) -> Flow {
        match Flow::words(words) {
            Flow::Words(w, _) => Flow::Words(w, total.min(MAX_WORDS) as u8),
            other => other,
        }
    }
}

/// A checked invocation.
#[derive(Clone, Copy)]
pub(crate) struct Invocation {
    /// Who calls.
    pub thread: ThreadId,
    /// Its process.
    pub process: ProcessId,
    /// The capability invoked.
    pub found: Found,
    /// Its slot.
    pub slot: Slot,
    /// Words 0 to 5.
    pub args: [u64; REGISTER_WORDS],
    /// Capability arguments, by position.
    pub caps: [Option<Found>; REGISTER_WORDS],
    /// The destination slot.
    pub dst: Option<CapId>,
    /// Length of the message.
    pub words: usize,
}

impl Invocation {
    pub(crate) fn id<T>(&self) -> crate::arena::Id<T> {
        id_of(&self.found.cap)
    }

    pub(crate) fn arg_id<T>(&self, at: usize) -> Result<crate::arena::Id<T>, Error> {
        self.caps.get(at).copied().flatten().map(|f| id_of(&f.cap)).ok_or(Error::NoCapability)
    }

    pub(crate) fn dst(&self) -> Result<CapId, Error> {
        self.dst.ok_or(Error::SlotOutOfRange)
    }

    /// A capability argument, to be compared with what stands in its slot later.
    pub(crate) fn held(&self, at: usize) -> Result<Held, Error> {
        let found = self.caps.get(at).copied().flatten().ok_or(Error::NoCapability)?;
        let slot = self.args.get(at).and_then(|word| Slot::from_word(*word)).ok_or(Error::SlotOutOfRange)?;
        Ok(Held { slot, cap: found.cap })
    }

    pub(crate) fn priority(&self, at: usize) -> Result<u8, Error> {
        u8::try_from(self.args[at]).map_err(|_| Error::InvalidArgument)
    }
}

/// What one argument must be.
#[derive(Clone, Copy)]
enum Need {
    Word,
    Dst,
    Cap(ObjectType, Rights),
}

/// A row of the ABI table, as dispatch reads it.
#[derive(Clone, Copy)]
struct Row {
    op: Option<Op>,
    /// The type's number; 0 for any.
    object: u8,
    rights: Rights,
    endow_ok: bool,
    count: u8,
    args: [Need; REGISTER_WORDS],
}

/// The ABI table by operation number.
static ROWS: [Row; 256] = {
    let none = Row {
        op: None,
        object: 0,
        rights: Rights::empty(),
        endow_ok: false,
        count: 0,
        args: [Need::Word; REGISTER_WORDS],
    };
    let mut rows = [none; 256];
    let mut i = 0;
    while i < TABLE.len() {
        let info = TABLE[i];
        let row = &mut rows[info.op as usize];
        row.op = Some(info.op);
        row.object = match info.object {
            Some(kind) => kind as u8,
            None => 0,
        };
        row.rights = info.rights;
        row.endow_ok = info.endow_ok;
        row.count = info.args.len() as u8;
        let mut at = 0;
        while at < info.args.len() {
            row.args[at] = match info.args[at].1 {
                Arg::Word => Need::Word,
                Arg::Dst => Need::Dst,
                Arg::Cap(kind, rights) => Need::Cap(kind, rights),
            };
            at += 1;
        }
        i += 1;
    }
    rows
};

impl Kernel {
    /// The `invoke` system call.
    #[inline(always)]
    pub(crate) fn invoke(&mut self, m: &mut impl Machine, thread: ThreadId) -> Result<Flow, Fail> {
        let t = self.threads.known(thread.index());
        let (r, process) = (&t.context.registers, t.process);
        let tag = Tag(r.rax);
        let row = ROWS.get(tag.label() as usize).ok_or(Error::InvalidOperation)?;
        let op = row.op.ok_or(Error::InvalidOperation)?;
        let slot = Slot::from_word(r.rdi).ok_or(Error::SlotOutOfRange)?;
        let args = [r.rsi, r.rdx, r.r10, r.r8, r.r9, r.r12];
        let found = self.find(process, slot)?;
        self.check_invoked(row, &found.cap)?;
        if row.object == ObjectType::Region as u8 && !matches!(op, Op::RegionMap | Op::RegionStatus) {
            self.refuse_device(&found)?;
        }
        let mut call =
            Invocation { thread, process, found, slot, args, caps: [None; 6], dst: None, words: tag.words() };
        for (i, need) in row.args.iter().enumerate().take(row.count.into()) {
            let word = args[i];
            match *need {
                Need::Word => {}
                Need::Dst => {
                    let slot = Slot::from_word(word).ok_or(Error::SlotOutOfRange)?;
                    call.dst = Some(self.free_slot(process, slot)?);
                }
                Need::Cap(kind, rights) => {
                    let slot = Slot::from_word(word).ok_or(Error::SlotOutOfRange)?;
                    let argument = self.find_typed(process, slot, kind, rights)?;
                    self.refuse_device(&argument)?;
                    call.caps[i] = Some(argument);
                }
            }
        }
        self.perform(m, op, &call)
    }

    /// Checks what the table says about the capability invoked.
    #[inline(always)]
    fn check_invoked(&self, row: &Row, cap: &Cap) -> Result<(), Error> {
        if row.object != 0 && row.object != cap.object.kind as u8 {
            return Err(Error::WrongType);
        }
        if row.endow_ok {
            return Ok(());
        }
        if !cap.rights.usable() {
            return Err(Error::EndowOnly);
        }
        if !cap.rights.contains(row.rights) {
            let needs_copy = row.rights == Rights::COPY;
            return Err(if needs_copy { Error::NotCopyable } else { Error::MissingRight });
        }
        if self.is_alive(cap.object) { Ok(()) } else { Err(Error::ObjectGone) }
    }

    #[inline(never)]
    fn perform(&mut self, m: &mut impl Machine, op: Op, c: &Invocation) -> Result<Flow, Fail> {
        match op {
            Op::CapCopy | Op::CapMint | Op::CapMove | Op::CapDelete | Op::CapRevoke | Op::CapStatus => {
                self.cap_operation(m, op, c)
            }
            Op::PoolCreate
            | Op::PoolStatus
            | Op::RegionCreate
            | Op::EndpointCreate
            | Op::NotificationCreate => self.pool_operation(m, op, c),
            Op::RegionMap | Op::RegionSeal | Op::RegionStatus | Op::MappingUnmap | Op::MappingProtect => {
                self.memory_operation(m, op, c)
            }
            Op::EndpointLabel
            | Op::EndpointBind
            | Op::Signal
            | Op::NotificationBind
            | Op::NotificationAlarm => self.ipc_operation(m, op, c),
            Op::ProcessCreate
            | Op::ProcessCreateCached
            | Op::JobNext
            | Op::ProcessStart
            | Op::ProcessTerminate
            | Op::ProcessStatus => self.process_operation(m, op, c),
            Op::ProcessSetBudget => self.process_set_budget(m, c),
            Op::ProcessBudget => self.process_budget(m, c),
            Op::ProcessWatch
            | Op::ThreadCreate
            | Op::ThreadStatus
            | Op::ThreadSuspend
            | Op::ThreadResume
            | Op::ThreadSetPriority
            | Op::ThreadSetFaultEndpoint
            | Op::ThreadClearFaultEndpoint
            | Op::ThreadTerminate => self.thread_operation(m, op, c),
            Op::IrqBind | Op::IrqAck | Op::IrqUnbind | Op::PortRead | Op::PortWrite | Op::ClockNow => {
                self.device_operation(m, op, c)
            }
            Op::KeyRingInstall
            | Op::KeyRingStatus
            | Op::KeyRingKey
            | Op::KeyRingName
            | Op::KeyRingState
            | Op::KeyRingRevocation
            | Op::KeyRingFloor
            | Op::KeyRingAffected
            | Op::KeyRingWatch
            | Op::KeyRingCertificate
            | Op::PolicyInstall
            | Op::PolicyStatus
            | Op::PolicyRead
            | Op::ProcessIdentity => self.trust_operation(m, op, c),
            Op::ModuleCacheInsert
            | Op::ModuleCacheFind
            | Op::ModuleCacheStatus
            | Op::ModuleCacheNext
            | Op::CachedImageStatus
            | Op::CachedImageEvict => self.cache_operation(m, op, c),
            Op::SystemPowerOff
            | Op::SystemLog
            | Op::SystemProcess
            | Op::SystemCapability
            | Op::SystemMemory
            | Op::SystemDevice
            | Op::SystemReleaseSerial
            | Op::SystemCounters
            | Op::SystemTrace
            | Op::SystemTraceRead
            | Op::SystemAudit
            | Op::TestReport
            | Op::TestHoldVerification
            | Op::TestAccounting
            | Op::TestAudit
            | Op::TestPhysical
            | Op::TestVerify
            | Op::TestFailAllocation
            | Op::TestInvariants => self.system_operation(m, op, c),
            Op::HandoverCreate
            | Op::HandoverAdd
            | Op::HandoverReplace
            | Op::HandoverClose
            | Op::HandoverReopen
            | Op::HandoverExport
            | Op::HandoverState
            | Op::HandoverDeposit
            | Op::HandoverTake
            | Op::HandoverCommit
            | Op::HandoverRollback
            | Op::HandoverFinalise
            | Op::HandoverAbort
            | Op::HandoverStatus
            | Op::HandoverService
            | Op::HandoverWatch => self.handover_operation(m, op, c),
            Op::JournalCreate
            | Op::JournalAppend
            | Op::JournalRead
            | Op::JournalStatus
            | Op::JournalClose => self.journal_operation(m, op, c),
            Op::ChargeTransfer | Op::JobHandover | Op::JobAdopt => self.recovery_operation(op, c),
            Op::MappingStatus
            | Op::EndpointStatus
            | Op::NotificationStatus
            | Op::JobStatus
            | Op::ReplyStatus
            | Op::IrqStatus
            | Op::PortStatus
            | Op::ProcessUsage => self.status_operation(op, c),
        }
    }

    fn pool_operation(&mut self, m: &mut impl Machine, op: Op, c: &Invocation) -> Result<Flow, Fail> {
        let pool: PoolId = c.id();
        let [a, b, ..] = c.args;
        match op {
            Op::PoolCreate => {
                let at = c.dst()?;
                let child = self.split_pool(pool, a, b)?;
                // A child of the Pool's capability, so that who pays can revoke it.
                let object = reference(ObjectType::Pool, child);
                self.derive(
                    c.found.id,
                    at,
                    Cap { object, rights: POOL_RIGHTS, badge: 0, origin: Origin::NONE },
                );
                Ok(Flow::words(&[]))
            }
            Op::PoolStatus => {
                let p = self.pools.get(pool).ok_or(Error::ObjectGone)?;
                Ok(Flow::words(&[p.frames.limit, p.frames.used, p.bytes.limit, p.bytes.used]))
            }
            Op::RegionCreate => self.make_region(m, c, pool, a),
            Op::EndpointCreate => self.make_endpoint(c, pool, a, c.priority(1)?),
            _ => {
                let at = c.dst()?;
                let n = self.new_notification(pool)?;
                self.install_new(at, ObjectType::Notification, n, NOTIFICATION_RIGHTS)
            }
        }
    }

    /// Puts the first capability to a new object into its slot.
    pub(crate) fn install_new<T>(
        &mut self,
        at: CapId,
        kind: ObjectType,
        id: crate::arena::Id<T>,
        rights: Rights,
    ) -> Result<Flow, Fail> {
        self.install(at, Cap { object: reference(kind, id), rights, badge: 0, origin: Origin::NONE });
        Ok(Flow::words(&[]))
    }

    /// Makes a Region in as many steps as interrupts demand; the thread remembers the one it is making.
    fn make_region(
        &mut self,
        m: &mut impl Machine,
        c: &Invocation,
        pool: PoolId,
        pages: u64,
    ) -> Result<Flow, Fail> {
        let at = c.dst()?;
        let begun = self.threads.get(c.thread).and_then(|t| t.building).filter(|r| {
            self.regions.get(*r).is_some_and(|r| r.pages as u64 == pages && r.pool == Some(pool))
        });
        let region = match begun {
            Some(r) => r,
            None => {
                self.drop_building(c.thread);
                self.begin_region(m, pool, pages)?
            }
        };
        match self.fill_region(m, region) {
            Ok(Progress::Preempted) => {
                self.set_building(c.thread, Some(region));
                Ok(Flow::Restart)
            }
            Ok(Progress::Done) => {
                self.set_building(c.thread, None);
                self.install_new(at, ObjectType::Region, region, REGION_RIGHTS)
            }
            Err(e) => {
                self.set_building(c.thread, None);
                self.drop_region(region);
                Err(e.into())
            }
        }
    }

    fn set_building(&mut self, thread: ThreadId, region: Option<RegionId>) {
        if let Some(t) = self.threads.get_mut(thread) {
            t.building = region;
            t.quirks.set(Quirks::BUILDING, region.is_some());
        }
    }

    /// Lets go of a Region that a thread began and did not ask for again.
    pub(crate) fn drop_building(&mut self, thread: ThreadId) {
        let Some(t) = self.threads.get_mut(thread) else { return };
        t.quirks -= Quirks::BUILDING;
        if let Some(region) = t.building.take() {
            self.drop_region(region);
        }
    }

    fn make_endpoint(&mut self, c: &Invocation, pool: PoolId, flags: u64, ceiling: u8) -> Result<Flow, Fail> {
        let at = c.dst()?;
        if flags > 3 {
            return Err(Error::InvalidArgument.into());
        }
        let p = self.processes.get(c.process).ok_or(Error::ObjectGone)?;
        if ceiling > p.ceiling {
            return Err(Error::PriorityTooHigh.into());
        }
        let label = if flags & 2 != 0 {
            let service = p.identity.service.ok_or(Error::LabelMismatch)?;
            Some(Label { publisher: p.identity.publisher, name: service.name })
        } else {
            None
        };
        let e = self.new_endpoint(pool, Some(c.process), label, flags & 1 != 0, ceiling)?;
        self.install_new(at, ObjectType::Endpoint, e, ENDPOINT_RIGHTS)
    }

    fn memory_operation(&mut self, m: &mut impl Machine, op: Op, c: &Invocation) -> Result<Flow, Fail> {
        match op {
            Op::RegionMap => self.region_map(m, c),
            Op::RegionSeal => {
                self.seal(c.id())?;
                Ok(Flow::words(&[]))
            }
            Op::RegionStatus => {
                let r = self.regions.get(c.id()).ok_or(Error::ObjectGone)?;
                let (mappings, writable) = (r.mappings as u64, r.writable as u64);
                let (sealed, device) = (u64::from(r.is_sealed()?), u64::from(r.is_device()));
                Ok(Flow::words(&[r.pages as u64, sealed, mappings, writable, device]))
            }
            Op::MappingUnmap => {
                self.unmap(m, c.id());
                Ok(Flow::words(&[]))
            }
            _ => {
                self.protect(m, c.id());
                Ok(Flow::words(&[]))
            }
        }
    }

    fn region_map(&mut self, m: &mut impl Machine, c: &Invocation) -> Result<Flow, Fail> {
        let at = c.dst()?;
        let [_, address, offset, pages, writable, _] = c.args;
        if writable > 1 {
            return Err(Error::InvalidArgument.into());
        }
        if writable == 1 && !c.found.cap.rights.contains(Rights::WRITE) {
            return Err(Error::MissingRight.into());
        }
        let range = UserRange::new(address, pages)?;
        let process: ProcessId = c.arg_id(0)?;
        let id = self.map_region(m, c.id(), process, range, offset, writable == 1)?;
        self.install_new(at, ObjectType::Mapping, id, MAPPING_RIGHTS)
    }

    fn ipc_operation(&mut self, m: &mut impl Machine, op: Op, c: &Invocation) -> Result<Flow, Fail> {
        match op {
            Op::EndpointLabel => self.endpoint_label(m, c),
            Op::EndpointBind => {
                let process: ProcessId = c.arg_id(0)?;
                self.live_process(process)?;
                let e = self.endpoints.get(c.id()).ok_or(Error::ObjectGone)?;
                if e.covered.is_some() {
                    return Err(Error::AlreadyCovered.into());
                }
                if e.receiver.is_some() {
                    return Err(Error::AlreadyBound.into());
                }
                if !self.may_receive(process, e.label) {
                    return Err(Error::LabelMismatch.into());
                }
                if let Some(e) = self.endpoints.get_mut(c.id()) {
                    e.receiver = Some(process);
                }
                Ok(Flow::words(&[]))
            }
            Op::Signal => {
                self.signal(c.id(), permitted(&c.found.cap, c.args[0]));
                Ok(Flow::words(&[]))
            }
            Op::NotificationBind => {
                self.bind_notification(c.id(), c.arg_id(0)?)?;
                Ok(Flow::words(&[]))
            }
            _ => {
                self.set_alarm(c.id(), c.args[0], permitted(&c.found.cap, c.args[1]));
                Ok(Flow::words(&[]))
            }
        }
    }

    fn endpoint_label(&mut self, m: &mut impl Machine, c: &Invocation) -> Result<Flow, Fail> {
        let label = self.endpoints.get(c.id()).ok_or(Error::ObjectGone)?.label;
        let words = label.map_or([0; 18], |label| label_words(&label));
        self.long_result(m, c.thread, &words)
    }

    /// A result of more than six words: the rest goes to the message page.
    pub(crate) fn long_result(
        &mut self,
        m: &mut impl Machine,
        thread: ThreadId,
        words: &[u64],
    ) -> Result<Flow, Fail> {
        if words.len() > REGISTER_WORDS {
            let (frame, _) = self.threads.get(thread).and_then(|t| t.message).ok_or(Error::MessageTooLong)?;
            let page = m.frame(frame);
            let rest = words.iter().enumerate().take(MAX_WORDS).skip(REGISTER_WORDS);
            rest.for_each(|(i, w)| page[i] = *w);
        }
        Ok(Flow::long(words, words.len()))
    }
}

const POOL_RIGHTS: Rights =
    Rights::READ.union(Rights::CREATE).union(Rights::COPY).union(Rights::GRANT).union(Rights::MANAGE);
/// Rights of the first capability to a Region.
pub(crate) const REGION_RIGHTS: Rights =
    Rights::READ.union(Rights::WRITE).union(Rights::SEAL).union(Rights::COPY).union(Rights::MANAGE);
/// Rights of the first capability to a Mapping.
pub(crate) const MAPPING_RIGHTS: Rights = Rights::READ.union(Rights::MANAGE);
const ENDPOINT_RIGHTS: Rights = Rights::READ
    .union(Rights::SEND)
    .union(Rights::RECV)
    .union(Rights::GRANT)
    .union(Rights::MANAGE)
    .union(Rights::COPY);
const NOTIFICATION_RIGHTS: Rights =
    Rights::READ.union(Rights::SEND).union(Rights::RECV).union(Rights::MANAGE).union(Rights::COPY);

/// The flags that a notification capability lets its holder set: a badge masks them.
pub(crate) fn permitted(cap: &Cap, flags: u64) -> u64 {
    if cap.badge == 0 { flags } else { flags & cap.badge }
}

/// A label in words: both lengths, then both names.
pub(crate) fn label_words(label: &Label) -> [u64; 18] {
    let mut words = [0u64; 18];
    words[0] = label.publisher.as_bytes().len() as u64;
    words[1] = label.name.as_bytes().len() as u64;
    pack(&mut words[2..10], label.publisher.as_bytes());
    pack(&mut words[10..18], label.name.as_bytes());
    words
}

/// Packs bytes into words, little end first.
pub(crate) fn pack(words: &mut [u64], bytes: &[u8]) {
    for (word, chunk) in words.iter_mut().zip(bytes.chunks(8)) {
        let mut w = [0u8; 8];
        for (to, from) in w.iter_mut().zip(chunk) {
            *to = *from;
        }
        *word = u64::from_le_bytes(w);
    }
}
