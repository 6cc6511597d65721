//! Operations on objects: one dispatcher, driven by the ABI table.
//!
//! Before a handler runs, the table's row has been checked: the capability's type and rights, the type
//! and rights of every capability argument, and that destination slots are free. Handlers only see
//! checked arguments; an effect happens only after everything that can fail.

use sila_abi::ops::{Arg, Op};
use sila_abi::syscall::{MAX_WORDS, Outcome, REGISTER_WORDS, Slot, Tag};
use sila_abi::{Error, ObjectType, Rights};

use crate::cap::{Cap, CapId};
use crate::create::{Held, LoadRequest};
use crate::kernel::{Fail, Kernel, id_of, reference};
use crate::machine::{Machine, PowerOff};
use crate::memory::Progress;
use crate::objects::*;
use crate::paging::UserRange;
use crate::thread::Start;
use crate::verify::{COPY_MAX, Wanted};

/// How a system call ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flow {
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
    pub(crate) fn words(words: &[u64]) -> Flow {
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
    fn id<T>(&self) -> crate::arena::Id<T> {
        id_of(&self.found.cap)
    }

    fn arg_id<T>(&self, at: usize) -> Result<crate::arena::Id<T>, Error> {
        self.caps.get(at).copied().flatten().map(|f| id_of(&f.cap)).ok_or(Error::NoCapability)
    }

    fn dst(&self) -> Result<CapId, Error> {
        self.dst.ok_or(Error::SlotOutOfRange)
    }

    fn priority(&self, at: usize) -> Result<u8, Error> {
        u8::try_from(self.args[at]).map_err(|_| Error::InvalidArgument)
    }
}

impl Kernel {
    /// The `invoke` system call.
    pub(crate) fn invoke(&mut self, m: &mut impl Machine, thread: ThreadId) -> Result<Flow, Fail> {
        let call = self.check_invocation(thread)?;
        let (op, call) = call;
        self.perform(m, op, &call)
    }

    /// Checks everything that the table says about an invocation.
    fn check_invocation(&mut self, thread: ThreadId) -> Result<(Op, Invocation), Error> {
        let t = self.threads.get(thread).ok_or(Error::ObjectGone)?;
        let (r, process) = (t.registers, t.process);
        let tag = Tag(r.rax);
        let op = Op::from_number(tag.label()).ok_or(Error::InvalidOperation)?;
        let row = op.info();
        let slot = Slot::from_word(r.rdi).ok_or(Error::SlotOutOfRange)?;
        let found = self.find(process, slot)?;
        if row.object.is_some_and(|o| o != found.cap.object.kind) {
            return Err(Error::WrongType);
        }
        if !row.endow_ok {
            if !found.cap.rights.usable() {
                return Err(Error::EndowOnly);
            }
            let needs_copy = row.rights == Rights::COPY;
            if !found.cap.rights.contains(row.rights) {
                return Err(if needs_copy { Error::NotCopyable } else { Error::MissingRight });
            }
            if !self.is_alive(found.cap.object) {
                return Err(Error::ObjectGone);
            }
        }
        let args = [r.rsi, r.rdx, r.r10, r.r8, r.r9, r.r12];
        let mut call =
            Invocation { thread, process, found, slot, args, caps: [None; 6], dst: None, words: tag.words() };
        for (i, (_, kind)) in row.args.iter().enumerate() {
            let word = args[i];
            match kind {
                Arg::Word => {}
                Arg::Dst => {
                    let slot = Slot::from_word(word).ok_or(Error::SlotOutOfRange)?;
                    call.dst = Some(self.free_slot(process, slot)?);
                }
                Arg::Cap(kind, rights) => {
                    let slot = Slot::from_word(word).ok_or(Error::SlotOutOfRange)?;
                    call.caps[i] = Some(self.find_typed(process, slot, *kind, *rights)?);
                }
            }
        }
        Ok((op, call))
    }

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
            Op::ProcessCreate | Op::JobNext | Op::ProcessStart | Op::ProcessTerminate | Op::ProcessStatus => {
                self.process_operation(m, op, c)
            }
            Op::ProcessWatch
            | Op::ThreadCreate
            | Op::ThreadStatus
            | Op::ThreadSuspend
            | Op::ThreadResume
            | Op::ThreadSetPriority
            | Op::ThreadSetFaultEndpoint
            | Op::ThreadClearFaultEndpoint
            | Op::ThreadTerminate => self.thread_operation(m, op, c),
            Op::IrqBind | Op::IrqAck | Op::PortRead | Op::PortWrite | Op::ClockNow => {
                self.device_operation(m, op, c)
            }
            Op::KeyRingInstall
            | Op::KeyRingStatus
            | Op::KeyRingKey
            | Op::KeyRingName
            | Op::SystemPowerOff
            | Op::SystemLog
            | Op::SystemProcess
            | Op::SystemCapability
            | Op::SystemMemory
            | Op::SystemReleaseSerial
            | Op::TestReport
            | Op::TestHoldVerification
            | Op::TestAccounting
            | Op::TestAudit => self.system_operation(m, op, c),
        }
    }

    fn pool_operation(&mut self, m: &mut impl Machine, op: Op, c: &Invocation) -> Result<Flow, Fail> {
        let pool: PoolId = c.id();
        let [a, b, ..] = c.args;
        match op {
            Op::PoolCreate => {
                let at = c.dst()?;
                let child = self.split_pool(pool, a, b)?;
                self.install_new(c, at, ObjectType::Pool, child, POOL_RIGHTS)
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
                self.install_new(c, at, ObjectType::Notification, n, NOTIFICATION_RIGHTS)
            }
        }
    }

    /// Puts the first capability to a new object into its slot.
    fn install_new<T>(
        &mut self,
        c: &Invocation,
        at: CapId,
        kind: ObjectType,
        id: crate::arena::Id<T>,
        rights: Rights,
    ) -> Result<Flow, Fail> {
        self.install(c.process, at, Cap { object: reference(kind, id), rights, badge: 0 });
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
                self.install_new(c, at, ObjectType::Region, region, REGION_RIGHTS)
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
        }
    }

    /// Lets go of a Region that a thread began and did not ask for again.
    pub(crate) fn drop_building(&mut self, thread: ThreadId) {
        if let Some(region) = self.threads.get_mut(thread).and_then(|t| t.building.take()) {
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
        self.install_new(c, at, ObjectType::Endpoint, e, ENDPOINT_RIGHTS)
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
                Ok(Flow::words(&[r.pages as u64, u64::from(r.sealed), mappings, writable]))
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
        self.install_new(c, at, ObjectType::Mapping, id, Rights::READ | Rights::MANAGE)
    }

    fn ipc_operation(&mut self, m: &mut impl Machine, op: Op, c: &Invocation) -> Result<Flow, Fail> {
        match op {
            Op::EndpointLabel => self.endpoint_label(m, c),
            Op::EndpointBind => {
                let process: ProcessId = c.arg_id(0)?;
                let e = self.endpoints.get(c.id()).ok_or(Error::ObjectGone)?;
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
                let badge = c.found.cap.badge;
                let flags = if badge == 0 { c.args[0] } else { c.args[0] & badge };
                self.signal(c.id(), flags);
                Ok(Flow::words(&[]))
            }
            Op::NotificationBind => {
                self.bind_notification(c.id(), c.arg_id(0)?)?;
                Ok(Flow::words(&[]))
            }
            _ => {
                self.set_alarm(c.id(), c.args[0], c.args[1]);
                Ok(Flow::words(&[]))
            }
        }
    }

    fn endpoint_label(&mut self, m: &mut impl Machine, c: &Invocation) -> Result<Flow, Fail> {
        let mut words = [0u64; 18];
        if let Some(label) = self.endpoints.get(c.id()).ok_or(Error::ObjectGone)?.label {
            words[0] = label.publisher.as_bytes().len() as u64;
            words[1] = label.name.as_bytes().len() as u64;
            pack(&mut words[2..10], label.publisher.as_bytes());
            pack(&mut words[10..18], label.name.as_bytes());
        }
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

    fn process_operation(&mut self, m: &mut impl Machine, op: Op, c: &Invocation) -> Result<Flow, Fail> {
        match op {
            Op::ProcessCreate => self.process_create(m, c),
            Op::JobNext => self.job_next(c),
            Op::ProcessStart => self.process_start(c),
            Op::ProcessTerminate => {
                let exit = Exit { cause: 2, code: c.args[0], ..Exit::default() };
                match self.terminate(m, c.id(), exit)? {
                    Progress::Preempted => Ok(Flow::Restart),
                    Progress::Done if self.threads.get(c.thread).is_none() => Ok(Flow::Blocked),
                    Progress::Done => Ok(Flow::words(&[])),
                }
            }
            _ => {
                let p = self.processes.get(c.id()).ok_or(Error::ObjectGone)?;
                let e = p.exit;
                Ok(Flow::words(&[p.state as u64, e.cause, e.code, e.address, e.instruction, e.error]))
            }
        }
    }

    fn process_start(&mut self, c: &Invocation) -> Result<Flow, Fail> {
        let p = self.processes.get_mut(c.id()).ok_or(Error::ObjectGone)?;
        match p.state {
            ProcessState::Created => p.state = ProcessState::Running,
            ProcessState::Running => return Err(Error::AlreadyStarted.into()),
            _ => return Err(Error::Dying.into()),
        }
        if let Some(t) = p.threads {
            self.make_ready(t);
        }
        Ok(Flow::words(&[]))
    }

    fn job_next(&mut self, c: &Invocation) -> Result<Flow, Fail> {
        let job: JobId = c.id();
        let next = self
            .processes
            .iter()
            .filter(|(_, p)| p.job == job && p.number > c.args[0])
            .min_by_key(|(_, p)| p.number)
            .map(|(_, p)| [p.number, p.number, p.state as u64]);
        Ok(Flow::words(&next.ok_or(Error::NoMoreEntries)?))
    }

    fn process_create(&mut self, m: &mut impl Machine, c: &Invocation) -> Result<Flow, Fail> {
        c.dst()?;
        let held = |at: usize| -> Result<Held, Error> {
            let found = c.caps[at].ok_or(Error::NoCapability)?;
            Ok(Held { slot: Slot(c.args[at] as u16), cap: found.cap })
        };
        let (image, proof, pool) = (c.arg_id(0)?, c.arg_id(1)?, c.arg_id(2)?);
        let job_held = Held { slot: c.slot, cap: c.found.cap };
        let priority = c.priority(3)?;
        if self.processes.get(c.process).is_none_or(|p| priority > p.ceiling) {
            return Err(Error::PriorityTooHigh.into());
        }
        if !self.regions.get(image).is_some_and(|r| r.sealed) {
            return Err(Error::NotSealed.into());
        }
        let proof_pages = self.regions.get(proof).map_or(0, |r| r.pages as usize);
        if proof_pages * 4096 > COPY_MAX {
            return Err(Error::BadProof.into());
        }
        let grants = self.read_grants(m, c)?;
        if !self.can_verify() {
            return Err(Error::VerificationBusy.into());
        }
        let load = LoadRequest {
            image,
            proof,
            pool,
            job: c.id(),
            held: [job_held, held(0)?, held(1)?, held(2)?],
            grants,
            priority,
            dst: Slot(c.args[5] as u16),
        };
        self.pin_region(image, true);
        self.pin_region(proof, true);
        self.queue_verification(c.thread, Wanted::Load(load))?;
        self.start_wait(c.thread, ThreadState::Verifying, u64::MAX);
        Ok(Flow::Blocked)
    }

    /// Reads the grant words of a ProcessCreate, once, from the message page.
    fn read_grants(
        &mut self,
        m: &mut impl Machine,
        c: &Invocation,
    ) -> Result<[Option<Held>; sila_abi::manifest::MAX_REQUESTS], Fail> {
        let mut grants = [None; sila_abi::manifest::MAX_REQUESTS];
        let count = c.args[4];
        if count as usize > grants.len() || c.words < REGISTER_WORDS + count as usize {
            return Err(Error::InvalidArgument.into());
        }
        if count == 0 {
            return Ok(grants);
        }
        let (frame, _) = self.threads.get(c.thread).and_then(|t| t.message).ok_or(Error::MessageTooLong)?;
        let mut words = [0u64; sila_abi::manifest::MAX_REQUESTS];
        words[..count as usize].copy_from_slice(&m.frame(frame)[6..6 + count as usize]);
        for word in &words[..count as usize] {
            let (index, slot) = ((word >> 16) as usize, Slot(*word as u16));
            let entry = grants.get_mut(index).ok_or(Fail::with(Error::GrantUnrequested, index as u64))?;
            if entry.is_some() {
                return Err(Fail::with(Error::InvalidArgument, index as u64));
            }
            let found = self.find(c.process, slot).map_err(|e| Fail::with(e, index as u64))?;
            *entry = Some(Held { slot, cap: found.cap });
        }
        Ok(grants)
    }

    fn thread_operation(&mut self, m: &mut impl Machine, op: Op, c: &Invocation) -> Result<Flow, Fail> {
        let ok = Ok(Flow::words(&[]));
        match op {
            Op::ProcessWatch => {
                self.watch(c)?;
                ok
            }
            Op::ThreadCreate => self.thread_create(m, c),
            Op::ThreadStatus => {
                let t = self.threads.get(c.id()).ok_or(Error::ObjectGone)?;
                Ok(Flow::words(&[state_number(t.state), t.priority as u64, t.effective as u64]))
            }
            Op::ThreadSuspend => {
                let target: ThreadId = c.id();
                if target == c.thread {
                    self.complete(target, Outcome::message(0, 0, 0), 0, [0; 6]);
                    self.suspend(target);
                    return Ok(Flow::Blocked);
                }
                self.suspend(target);
                ok
            }
            Op::ThreadResume => {
                self.resume(c.id())?;
                ok
            }
            Op::ThreadSetFaultEndpoint => {
                let found = c.caps[0].ok_or(Error::NoCapability)?;
                if let Some(t) = self.threads.get_mut(c.id()) {
                    t.fault_endpoint = Some((id_of(&found.cap), found.cap.badge));
                }
                ok
            }
            Op::ThreadClearFaultEndpoint => {
                if let Some(t) = self.threads.get_mut(c.id()) {
                    t.fault_endpoint = None;
                }
                ok
            }
            Op::ThreadSetPriority => {
                let (id, priority): (ThreadId, u8) = (c.id(), c.priority(0)?);
                let t = self.threads.get(id).ok_or(Error::ObjectGone)?;
                if self.processes.get(t.process).is_none_or(|p| priority > p.ceiling) {
                    return Err(Error::PriorityTooHigh.into());
                }
                if let Some(t) = self.threads.get_mut(id) {
                    t.priority = priority;
                }
                self.set_effective(id, priority);
                ok
            }
            _ => {
                let target: ThreadId = c.id();
                self.end_one_thread(m, target);
                if target == c.thread { Ok(Flow::Blocked) } else { ok }
            }
        }
    }

    fn watch(&mut self, c: &Invocation) -> Result<(), Error> {
        let n: NotificationId = c.arg_id(0)?;
        let flags = c.args[1];
        let p = self.processes.get_mut(c.id()).ok_or(Error::ObjectGone)?;
        if p.state == ProcessState::Ended {
            self.signal(n, flags);
            return Ok(());
        }
        let free = p.watchers.iter_mut().find(|w| w.is_none()).ok_or(Error::ArenaFull)?;
        *free = Some((n, flags));
        Ok(())
    }

    fn thread_create(&mut self, m: &mut impl Machine, c: &Invocation) -> Result<Flow, Fail> {
        let at = c.dst()?;
        let process: ProcessId = c.id();
        let start = Start {
            entry: c.args[0],
            stack: c.args[1],
            argument: c.args[2],
            priority: c.priority(3)?,
            message_page: c.args[4],
        };
        let state = self.processes.get(process).map(|p| p.state).ok_or(Error::ObjectGone)?;
        if !matches!(state, ProcessState::Created | ProcessState::Running) {
            return Err(Error::Dying.into());
        }
        let id = self.new_thread(m, process, start)?;
        if state == ProcessState::Running {
            self.make_ready(id);
        }
        self.install_new(c, at, ObjectType::Thread, id, Rights::READ | Rights::MANAGE | Rights::COPY)
    }

    fn device_operation(&mut self, m: &mut impl Machine, op: Op, c: &Invocation) -> Result<Flow, Fail> {
        let index = c.found.cap.object.index;
        match op {
            Op::IrqBind => {
                let n: NotificationId = c.arg_id(0)?;
                let line = self.irqs.get_mut(index as usize).ok_or(Error::ObjectGone)?;
                line.bound = Some((n, c.args[1]));
                m.mask_interrupt(index as u8, false);
                Ok(Flow::words(&[]))
            }
            Op::IrqAck => {
                if self.irqs.get(index as usize).is_none_or(|l| l.bound.is_none()) {
                    return Err(Error::NotBound.into());
                }
                m.mask_interrupt(index as u8, false);
                Ok(Flow::words(&[]))
            }
            Op::PortRead => {
                let (port, width) = self.port(index, c.args[0], c.args[1])?;
                Ok(Flow::words(&[m.port_read(port, width) as u64]))
            }
            Op::PortWrite => {
                let (port, width) = self.port(index, c.args[0], c.args[1])?;
                let value = u32::try_from(c.args[2]).map_err(|_| Error::InvalidArgument)?;
                m.port_write(port, width, value);
                Ok(Flow::words(&[]))
            }
            _ => Ok(Flow::words(&[m.now()])),
        }
    }

    fn port(&self, index: u32, offset: u64, width: u64) -> Result<(u16, u8), Error> {
        let &(base, len) = self.ports.get(index as usize).ok_or(Error::ObjectGone)?;
        if !matches!(width, 1 | 2 | 4) {
            return Err(Error::InvalidArgument);
        }
        let end = offset.checked_add(width).ok_or(Error::PortOutOfRange)?;
        if end > len as u64 {
            return Err(Error::PortOutOfRange);
        }
        Ok((base + offset as u16, width as u8))
    }

    fn system_operation(&mut self, m: &mut impl Machine, op: Op, c: &Invocation) -> Result<Flow, Fail> {
        match op {
            Op::KeyRingInstall => self.keyring_install(c),
            Op::KeyRingStatus | Op::KeyRingKey | Op::KeyRingName => self.keyring_read(m, op, c),
            Op::SystemPowerOff => {
                let sound = !self.test_system || self.audit_and_report(m);
                let how = if c.args[0] == 0 && sound { PowerOff::Success } else { PowerOff::Failure };
                m.power_off(how);
                Err(Error::InvalidOperation.into())
            }
            Op::SystemReleaseSerial => {
                m.release_serial();
                Ok(Flow::words(&[]))
            }
            Op::TestHoldVerification => {
                if c.args[0] > 1 {
                    return Err(Error::InvalidArgument.into());
                }
                self.verifier.hold = c.args[0] == 1;
                self.complete_verification(m);
                Ok(Flow::words(&[]))
            }
            _ => self.introspect(m, op, c),
        }
    }

    fn keyring_install(&mut self, c: &Invocation) -> Result<Flow, Fail> {
        let (region, length): (RegionId, u64) = (c.arg_id(0)?, c.args[1]);
        let pages = self.regions.get(region).map_or(0, |r| r.pages as u64);
        if length == 0 || length > pages * 4096 || length > COPY_MAX as u64 {
            return Err(Error::InvalidArgument.into());
        }
        if !self.can_verify() {
            return Err(Error::VerificationBusy.into());
        }
        self.pin_region(region, true);
        self.queue_verification(c.thread, Wanted::Record { region, length })?;
        self.start_wait(c.thread, ThreadState::Verifying, u64::MAX);
        Ok(Flow::Blocked)
    }
}

const POOL_RIGHTS: Rights =
    Rights::READ.union(Rights::CREATE).union(Rights::COPY).union(Rights::GRANT).union(Rights::MANAGE);
const REGION_RIGHTS: Rights =
    Rights::READ.union(Rights::WRITE).union(Rights::SEAL).union(Rights::COPY).union(Rights::MANAGE);
const ENDPOINT_RIGHTS: Rights =
    Rights::SEND.union(Rights::RECV).union(Rights::GRANT).union(Rights::MANAGE).union(Rights::COPY);
const NOTIFICATION_RIGHTS: Rights =
    Rights::SEND.union(Rights::RECV).union(Rights::MANAGE).union(Rights::COPY);

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

fn state_number(s: ThreadState) -> u64 {
    match s {
        ThreadState::Inactive => 0,
        ThreadState::Ready => 1,
        ThreadState::Running => 2,
        ThreadState::Sending { .. } => 3,
        ThreadState::Receiving { .. } => 4,
        ThreadState::Waiting { .. } => 5,
        ThreadState::AwaitingReply => 6,
        ThreadState::Verifying => 7,
    }
}
