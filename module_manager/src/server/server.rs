//! The loop: events come in, actions go out.

use crate::couriers::{
    DIED, DecompressJob, KernelDone, KernelJob, Outcome, Queue, SIGNALLED, VerifyJob, decompress, kernel,
    unregister, verifier,
};
use crate::depot::{self, LocateJob, locate};
use crate::steps::Resources;
use crate::{ENDPOINT, KEY_RING, POLICY};
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use module_manager::event::{Action, Done, Event, Held, Instance, RequestId};
use module_manager::facts::Facts;
use module_manager::manager::Manager;
use sila_abi::protocol::deep_compression::Submit;
use sila_abi::protocol::lifecycle;
use sila_abi::protocol::module_manager::{self as protocol, Failure, Load, LoadError, Loaded};
use sila_abi::protocol::wire::{FIRST_INSTANCE, OK};
use sila_abi::syscall::FOREVER;
use sila_abi::{Error, ObjectType, Rights, Slot};
use sila_rt::ipc::{Incoming, Message, Received, Reply, recv};
use sila_rt::slots::{Caps, OwnedSlot};
use sila_rt::{CallError, clock, op, trust};

const VERIFIED: u64 = 1 << 0;
const KERNEL: u64 = 1 << 1;
const DECOMPRESSED: u64 = 1 << 2;
const UNREGISTERED: u64 = 1 << 3;
const LOCATED: u64 = 1 << 4;
/// The kernel's flag for records that were installed.
const TRUST: u64 = 1 << 10;
/// Capabilities that a request may carry.
const REQUEST_CAPS: u8 = 4;

/// A request without its reply.
struct Pending {
    reply: Reply,
    pool: Option<OwnedSlot>,
    grants: Caps,
}

/// Everything that the loop keeps.
pub struct Server {
    manager: Manager,
    bundle: &'static [u8],
    /// Bound to this thread.
    notification: Slot,
    loads: BTreeMap<Instance, Resources>,
    pending: BTreeMap<RequestId, Pending>,
    requests: u64,
    events: VecDeque<Event>,
    locator: Queue<LocateJob, (Instance, depot::Outcome)>,
    verifier: Queue<VerifyJob, (Instance, Outcome)>,
    kernel: Queue<KernelJob, KernelDone>,
    decompressor: Queue<DecompressJob, Option<(Instance, Outcome)>>,
    registrar: Queue<Instance, (Instance, Outcome)>,
}

impl Server {
    /// Starts the couriers.
    pub fn new(manager: Manager, bundle: &'static [u8], notification: Slot) -> Result<Self, CallError> {
        Ok(Self {
            manager,
            bundle,
            notification,
            loads: BTreeMap::new(),
            pending: BTreeMap::new(),
            requests: 0,
            events: VecDeque::new(),
            locator: Queue::start(8, notification, LOCATED, locate)?,
            verifier: Queue::start(64, notification, VERIFIED, verifier(bundle))?,
            kernel: Queue::start(8, notification, KERNEL, kernel)?,
            decompressor: Queue::start(8, notification, DECOMPRESSED, decompress)?,
            registrar: Queue::start(8, notification, UNREGISTERED, unregister)?,
        })
    }

    /// Takes the policy in force over, from now on whenever the kernel says that records were installed.
    pub fn follow_policy(&mut self) -> Result<(), CallError> {
        op::KeyRingWatch(KEY_RING, self.notification, TRUST)?;
        let policy = trust::policy(POLICY)?;
        self.events.push_back(Event::Policy(Box::new(policy)));
        self.settle();
        Ok(())
    }

    /// A policy that can't be read leaves the one before it in force here; the kernel enforces the new one.
    fn read_policy(&mut self) {
        if let Ok(policy) = trust::policy(POLICY) {
            self.events.push_back(Event::Policy(Box::new(policy)));
        }
    }

    /// Serves for ever; returns an exit code when receiving fails.
    pub fn run(&mut self) -> u64 {
        loop {
            let deadline = self.manager.next_deadline().unwrap_or(FOREVER);
            match recv(ENDPOINT, REQUEST_CAPS, deadline) {
                Ok(Received::Message(incoming)) if incoming.badge >= FIRST_INSTANCE => self.report(incoming),
                Ok(Received::Message(incoming)) => self.request(incoming),
                Ok(Received::Flags(flags)) => self.flags(flags),
                Err(error) if error.error == Error::Timeout => self.events.push_back(Event::Tick),
                Err(error) if matches!(error.error, Error::Suspended | Error::TransferFailed) => {}
                Err(_) => return 2,
            }
            self.settle();
        }
    }

    /// Handles events until there are none; what the actions bring are further events.
    fn settle(&mut self) {
        while let Some(event) = self.events.pop_front() {
            // An event that came too late, such as the verdict on a load that was given up, is refused and forgotten.
            if let Ok(actions) = self.manager.handle(now(), event) {
                actions.into_iter().for_each(|action| self.perform(action));
            }
        }
    }

    fn report(&mut self, incoming: Incoming) {
        let instance = Instance(incoming.badge);
        let event = match incoming.message.label {
            lifecycle::READY => Some(Event::Ready(instance)),
            lifecycle::FAILED => Some(Event::ReportedFailure { instance, code: incoming.message.word(0) }),
            _ => None,
        };
        let handled = event.map(|event| self.manager.handle(now(), event));
        let label = match &handled {
            Some(Ok(_)) => lifecycle::NOTED,
            Some(Err(illegal)) => illegal.error().number().into(),
            None => LoadError::UnknownRequest.number().into(),
        };
        // Before the actions, which may end the process that waits for this.
        let _ = incoming.reply.send(&Message::new(label));
        if let Some(Ok(actions)) = handled {
            actions.into_iter().for_each(|action| self.perform(action));
        }
    }

    fn request(&mut self, incoming: Incoming) {
        let Incoming { badge, message, caps, reply, .. } = incoming;
        match message.label {
            protocol::LOAD => self.load(badge, &message, caps, reply),
            protocol::STOP => {
                let request = self.pend(reply, None, Caps::default());
                self.events.push_back(Event::Stop { request, requester: badge, process: message.word(0) });
            }
            protocol::LIST => {
                let answer = match self.manager.list(badge, message.word(0)) {
                    Ok(record) => Message::with(OK, &record.to_words()),
                    Err(error) => refusal(error.into()),
                };
                let _ = reply.send(&answer);
            }
            _ => {
                let _ = reply.send(&refusal(LoadError::UnknownRequest.into()));
            }
        }
    }

    fn load(&mut self, requester: u64, message: &Message, mut caps: Caps, reply: Reply) {
        let target = Load::from_words(message.words());
        let checked = target.ok_or(LoadError::Malformed).and_then(|target| {
            let pool = caps.take(0).filter(is_pool).ok_or(LoadError::MissingPool)?;
            if caps.len() == target.grant_count() { Ok((target, pool)) } else { Err(LoadError::Malformed) }
        });
        match checked {
            Ok((target, pool)) => {
                let request = self.pend(reply, Some(pool), caps);
                self.events.push_back(Event::Load { request, requester, target: Box::new(target) });
            }
            Err(error) => {
                let _ = reply.send(&refusal(error.into()));
            }
        }
    }

    fn pend(&mut self, reply: Reply, pool: Option<OwnedSlot>, grants: Caps) -> RequestId {
        self.requests = self.requests.wrapping_add(1);
        let request = RequestId(self.requests);
        self.pending.insert(request, Pending { reply, pool, grants });
        request
    }

    fn flags(&mut self, flags: u64) {
        if flags & LOCATED != 0
            && let Some((instance, result)) = self.locator.take()
        {
            self.located(instance, result);
        }
        if flags & VERIFIED != 0
            && let Some((instance, result)) = self.verifier.take()
        {
            self.events.push_back(Event::Step { instance, result });
        }
        if flags & KERNEL != 0 {
            match self.kernel.take() {
                Some(KernelDone::Cached(instance, cached)) => self.cached(instance, cached),
                Some(KernelDone::Created(instance, result)) => self.created(instance, result),
                None => {}
            }
        }
        if flags & DECOMPRESSED != 0
            && let Some(Some((instance, result))) = self.decompressor.take()
        {
            self.events.push_back(Event::Step { instance, result });
        }
        if flags & UNREGISTERED != 0
            && let Some((instance, result)) = self.registrar.take()
        {
            self.events.push_back(Event::Step { instance, result });
        }
        if flags & SIGNALLED != 0 {
            self.events.push_back(Event::Signalled);
        }
        if flags & DIED != 0 {
            self.look_for_ended();
        }
        if flags & TRUST != 0 {
            self.read_policy();
        }
    }

    fn located(&mut self, instance: Instance, result: depot::Outcome) {
        let result = result.map(|package| {
            let found = package.as_ref().map(|package| package.found());
            if let (Some(load), Some(package)) = (self.loads.get_mut(&instance), package) {
                load.keep_package(package);
            }
            Done::Located(found)
        });
        self.events.push_back(Event::Step { instance, result });
    }

    fn cached(&mut self, instance: Instance, cached: Option<OwnedSlot>) {
        let mut done = Done::Plain;
        if let (Some(cached), Some(resources)) = (cached, self.loads.get_mut(&instance)) {
            resources.keep_cached(cached);
            done = Done::Cached;
        }
        self.events.push_back(Event::Step { instance, result: Ok(done) });
    }

    fn created(&mut self, instance: Instance, result: Result<(OwnedSlot, u64), Failure>) {
        let result = result.map(|(process, id)| {
            if let Some(resources) = self.loads.get_mut(&instance) {
                resources.keep_process(process);
            }
            Done::Created(id)
        });
        self.events.push_back(Event::Step { instance, result });
    }

    /// The flag says that some process has ended; which, the kernel tells.
    fn look_for_ended(&mut self) {
        for instance in self.manager.watched() {
            let end = self.loads.get(&instance).and_then(Resources::end);
            if let Some((cause, code)) = end {
                self.events.push_back(Event::Died { instance, cause, code });
            }
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Adopt(request, instance) => {
                if let Some(pending) = self.pending.get_mut(&request) {
                    let grants = core::mem::take(&mut pending.grants);
                    self.loads.insert(instance, Resources::adopt(pending.pool.take(), grants));
                }
            }
            Action::Locate(instance, wanted) => self.locator.push(LocateJob { instance, wanted }),
            Action::Verify(instance, package) => {
                let region = self.loads.get(&instance).and_then(Resources::package);
                self.verifier.push(VerifyJob { instance, package, region });
            }
            Action::CreateOutput(instance, bytes) => self.step(instance, |load, _| load.create_output(bytes)),
            Action::Submit(instance, facts, window) => self.submit(instance, &facts, window),
            Action::Collect(instance, job) => {
                self.decompressor.push(DecompressJob::Collect { instance, job })
            }
            Action::Copy(instance, facts) => self.step(instance, |load, bundle| load.copy(bundle, &facts)),
            Action::Seal(instance) => self.step(instance, |load, _| load.seal()),
            Action::BuildProof(instance, package) => {
                self.step(instance, |load, bundle| load.build_proof(bundle, &package));
            }
            Action::Endow(instance, facts, target) => {
                self.step(instance, |load, _| load.endow(instance, &facts, &target));
            }
            Action::Create(instance, priority) => {
                let job = self.resources(instance).and_then(|load| load.create_job(instance, priority));
                self.ask_kernel(instance, job.map(KernelJob::Create));
            }
            Action::Check(instance, facts) => self.step(instance, |load, _| load.find_cached(&facts)),
            Action::Cache(instance) => {
                let job = self.resources(instance).and_then(|load| load.cache_job(instance));
                self.ask_kernel(instance, job.map(KernelJob::Cache));
            }
            Action::Confirm(instance, facts, target, process) => {
                self.step(instance, |load, _| load.confirm(&facts, &target, process));
            }
            Action::Start(instance) => {
                let notification = self.notification;
                self.step(instance, |load, _| load.start(notification));
            }
            Action::Unregister(instance) => self.registrar.push(instance),
            Action::Release(instance, what, job) => self.release(instance, what, job),
            Action::Loaded(request, instance, loaded) => self.loaded(request, instance, &loaded),
            Action::Stopped(request) => self.reply(request, &Message::new(OK)),
            Action::Refused(request, failure) => self.reply(request, &refusal(failure)),
        }
    }

    fn resources(&mut self, instance: Instance) -> Result<&mut Resources, Failure> {
        self.loads.get_mut(&instance).ok_or(Failure::new(LoadError::TableFull))
    }

    fn ask_kernel(&mut self, instance: Instance, job: Result<KernelJob, Failure>) {
        match job {
            Ok(job) => self.kernel.push(job),
            Err(failure) => self.events.push_back(Event::Step { instance, result: Err(failure) }),
        }
    }

    /// Takes a step at once; its result is the next event.
    fn step(&mut self, instance: Instance, work: impl FnOnce(&mut Resources, &'static [u8]) -> Outcome) {
        let bundle = self.bundle;
        let result = self.resources(instance).and_then(|load| work(load, bundle));
        self.events.push_back(Event::Step { instance, result });
    }

    fn submit(&mut self, instance: Instance, facts: &Facts, max_window_log: u8) {
        let request = Submit {
            offset: facts.payload_offset,
            len: facts.payload_len,
            output_len: facts.image_len,
            flags: SIGNALLED,
            background: false,
            max_window_log,
        };
        let notification = self.notification;
        let ready = self.resources(instance).and_then(|load| Ok((load.output()?, load.package())));
        match ready {
            Ok((output, region)) => {
                let job = DecompressJob::Submit { instance, region, request, output, notification };
                self.decompressor.push(job);
            }
            Err(failure) => self.events.push_back(Event::Step { instance, result: Err(failure) }),
        }
    }

    fn release(&mut self, instance: Instance, what: Held, job: u64) {
        if what.contains(Held::JOB) {
            self.decompressor.push(DecompressJob::Cancel { job });
        }
        if let Some(load) = self.loads.get_mut(&instance) {
            load.release(what);
        }
        let held = |other: &Instance| self.manager.held().any(|(i, held)| i == *other && !held.is_empty());
        if !held(&instance) {
            self.loads.remove(&instance);
        }
    }

    fn loaded(&mut self, request: RequestId, instance: Instance, loaded: &Loaded) {
        match self.resources(instance).and_then(|load| load.lend_process()) {
            Ok(process) => {
                let message = Message::with(OK, &loaded.to_words()).cap(process.slot());
                self.reply(request, &message);
            }
            Err(failure) => self.reply(request, &refusal(failure)),
        }
    }

    /// Sends the reply. A requester that has no room for the capability gets an error instead.
    fn reply(&mut self, request: RequestId, message: &Message) {
        let Some(Pending { reply, .. }) = self.pending.remove(&request) else { return };
        if let Err((error, Some(reply))) = reply.try_send(message) {
            let failure = crate::couriers::kernel_failure(LoadError::ReplyRefused, &error);
            let _ = reply.send(&refusal(failure));
        }
    }
}

fn now() -> u64 {
    clock::now().unwrap_or(0)
}

fn refusal(failure: Failure) -> Message {
    Message::with(failure.error.number().into(), &[failure.detail, failure.more])
}

fn is_pool(cap: &OwnedSlot) -> bool {
    op::CapStatus(cap.slot()).is_ok_and(|status| {
        let rights = Rights::from_word(status.words[1]).unwrap_or(Rights::empty());
        status.words[0] == ObjectType::Pool as u64 && rights.contains(Rights::CREATE)
    })
}
