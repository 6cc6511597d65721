//! The ABI table: every operation on every object, defined once.
//!
//! Dispatch in the kernel, the stubs of `sila_rt`, the rights tests and the ABI chapter of the book all
//! come from [`TABLE`]. [`for_each_operation!`] hands the same rows to a macro of one's own.

use crate::object::ObjectType;
use crate::rights::Rights;

/// What one argument word means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arg {
    /// A plain number; the operation's description gives unit and range.
    Word,
    /// The number of a free slot in the caller's CSpace, for the capability that results.
    Dst,
    /// A slot with a capability of this type and at least these rights.
    Cap(ObjectType, Rights),
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct OpInfo {
    /// The operation.
    pub op: Op,
    /// Its name.
    pub name: &'static str,
    /// The object type it works on; `None`: any.
    pub object: Option<ObjectType>,
    /// Rights needed on the capability invoked.
    pub rights: Rights,
    /// Arguments, words 0 to 5, by name.
    pub args: &'static [(&'static str, Arg)],
    /// True if the caller may wait.
    pub blocks: bool,
    /// True if the operation may be preempted by restarting the system call instruction.
    pub restarts: bool,
    /// True if an endow-only capability may be used for it.
    pub endow_ok: bool,
    /// Description: effect, results, units.
    pub doc: &'static str,
}

/// Calls `$callback! { rows }` with every operation of the ABI. A row is
/// `number Name(Object, RIGHTS, mode) (arg: kind, …) "description";` where Object is an object type
/// or `Any`; mode is `plain`, `blocks`, `restarts` or `endow`.
#[macro_export]
macro_rules! for_each_operation {
    ($callback:ident) => {
        $callback! {
            1 CapCopy(Any, COPY, plain) (dst: Dst, rights: Word)
                "Make a child of this capability in slot dst with the given rights, all of which it must hold.";
            2 CapMint(Any, COPY, plain) (dst: Dst, rights: Word, badge: Word)
                "As CapCopy, and set the child's badge, once: a badged capability can't be badged again.";
            3 CapMove(Any, NONE, endow) (dst: Dst)
                "Move this capability to slot dst; it keeps its place in the derivation.";
            4 CapDelete(Any, NONE, endow) ()
                "Remove this capability; its children become its parent's. Deleting a Reply ends the call with PeerDied.";
            5 CapRevoke(Any, MANAGE, restarts) ()
                "Delete every descendant of this capability, not the capability itself.";
            6 CapStatus(Any, NONE, endow) ()
                "Words: object type, rights, badge.";
            10 PoolCreate(Pool, CREATE, plain) (frames: Word, object_bytes: Word, dst: Dst)
                "Split a child Pool off this one with these quotas. At most 16 Pools stand above one (PoolTooDeep).";
            11 PoolStatus(Pool, READ, plain) ()
                "Words: frame quota, frames used, object byte quota, object bytes used.";
            12 RegionCreate(Pool, CREATE, restarts) (frames: Word, dst: Dst)
                "A Region of 1 to 65,536 zeroed frames.";
            13 EndpointCreate(Pool, CREATE, plain) (flags: Word, ceiling: Word, dst: Dst)
                "An Endpoint whose receiver is the caller's process. Flags: 1 durable, 2 labelled (with the service that the caller's manifest declares).";
            14 NotificationCreate(Pool, CREATE, plain) (dst: Dst)
                "A Notification with no flag set.";
            20 RegionMap(Region, READ, plain) (process: Cap(Process, WRITE), address: Word, offset: Word, pages: Word, writable: Word, dst: Dst)
                "Map pages of the Region at a page-aligned address; offset in pages. Writable (1) needs WRITE and an unsealed Region. The Mapping capability goes to dst.";
            21 RegionSeal(Region, SEAL, plain) ()
                "Make the Region immutable for ever. Fails with StillWritable while a writable mapping or kernel write exists; never unmaps.";
            22 RegionStatus(Region, NONE, plain) ()
                "Words: frames, sealed (0 or 1), mappings, writable mappings, device (0 or 1).";
            25 MappingUnmap(Mapping, MANAGE, plain) ()
                "Remove the mapping and this record.";
            26 MappingProtect(Mapping, MANAGE, plain) ()
                "Make the mapping read-only.";
            30 EndpointLabel(Endpoint, NONE, plain) ()
                "The service label: word 0 the publisher's length, word 1 the name's length in bytes (both 0 if unlabelled), words 2 to 9 and 10 to 17 their bytes.";
            31 EndpointBind(Endpoint, MANAGE, plain) (process: Cap(Process, MANAGE))
                "Make the process the receiver of an Endpoint that has none; a labelled one wants a manifest that declares its label.";
            35 Signal(Notification, SEND, plain) (flags: Word)
                "Set flags; wakes one waiter. Never blocks.";
            36 NotificationBind(Notification, MANAGE, plain) (thread: Cap(Thread, MANAGE))
                "Deliver the flags to this thread's next recv on any Endpoint.";
            37 NotificationAlarm(Notification, MANAGE, plain) (time: Word, flags: Word)
                "Set flags at a time (ns since boot); u64::MAX cancels. One alarm per Notification.";
            40 ProcessCreate(Job, CREATE, blocks) (image: Cap(Region, READ), proof: Cap(Region, READ), pool: Cap(Pool, CREATE), priority: Word, grants: Word, dst: Dst)
                "Verify the manifest and the sealed image by the KeyRing and make a process, paid from pool, with exactly the endowed CSpace. Words 6 up: one word per grant, request index in bits 16 to 31, source slot in bits 0 to 15. Fails as a whole.";
            41 JobNext(Job, READ, plain) (cursor: Word)
                "The next process of the Job after cursor (0 to start). Words: cursor, process id, state.";
            42 ProcessCreateCached(Job, CREATE, blocks) (image: Cap(CachedImage, READ), pool: Cap(Pool, CREATE), priority: Word, grants: Word, dst: Dst)
                "As ProcessCreate, from an image in the module cache: nothing is verified again but what may have changed, and all that authorises the module is asked anew. Words 6 up: the grants.";
            50 ProcessStart(Process, MANAGE, plain) ()
                "Let the initial thread run.";
            51 ProcessTerminate(Process, MANAGE, restarts) (code: Word)
                "End the process and return every frame and object byte.";
            52 ProcessStatus(Process, READ, plain) ()
                "Words: state (1 created, 2 running, 3 dying, 4 ended), cause (0 none, 1 exit, 2 terminated, 3 fault), code (exit code or vector), fault address, instruction address, error code.";
            53 ProcessWatch(Process, READ, plain) (notification: Cap(Notification, SEND), flags: Word)
                "Signal these flags when the process ends (at once if it has).";
            54 ThreadCreate(Process, WRITE, plain) (entry: Word, stack: Word, argument: Word, priority: Word, message_page: Word, dst: Dst)
                "A thread that starts at entry with the stack pointer and argument (in rdi) given; message_page is the page-aligned address for its message page, or 0 for none.";
            60 ThreadStatus(Thread, READ, plain) ()
                "Words: state, priority, effective priority.";
            61 ThreadSuspend(Thread, MANAGE, plain) ()
                "Stop the thread; a wait in progress ends with Suspended when it resumes.";
            62 ThreadResume(Thread, MANAGE, plain) ()
                "Let a suspended thread run.";
            63 ThreadSetPriority(Thread, MANAGE, plain) (priority: Word)
                "Change the priority, up to the process's ceiling.";
            64 ThreadTerminate(Thread, MANAGE, plain) ()
                "End the thread.";
            65 ThreadSetFaultEndpoint(Thread, MANAGE, plain) (endpoint: Cap(Endpoint, SEND))
                "Turn the thread's faults into calls to this Endpoint, marked in their outcome (sila_abi::syscall::Outcome::is_fault): words exception vector, error code, faulting address, instruction, stack pointer, flags. The reply's word 0 resumes (1) or ends the process (0); word 1: 1 sets the instruction pointer to word 2, 2 the stack pointer to word 3. If nobody answers, the process ends.";
            66 ThreadClearFaultEndpoint(Thread, MANAGE, plain) ()
                "The thread's next fault ends its process.";
            70 KeyRingInstall(KeyRing, WRITE, blocks) (record: Cap(Region, READ), length: Word)
                "Verify a root-signed record in the Region's first length bytes and apply it: a certificate, a revocation, a root set or floors. Words: its kind, its sequence. Policies: PolicyInstall.";
            71 KeyRingStatus(KeyRing, READ, plain) (index: Word)
                "Publisher key number index. Words: 0 to 3 key id, 4 flags (1 revoked), 5 keys in the ring.";
            72 KeyRingKey(KeyRing, READ, plain) (index: Word, offset: Word)
                "Up to 112 words of the public key from a word offset on. Word 0: how many follow in words 6 up; word 1: the key's length in bytes.";
            73 KeyRingName(KeyRing, READ, plain) (index: Word)
                "The publisher certified for key number index. Word 0: length in bytes; words 6 up: its bytes.";
            74 KeyRingState(KeyRing, READ, plain) ()
                "A crate::status::KeyRingRecord in words 0 up: sequences in force, how much the ring holds, how floors came to be. Any installation changes its word 0.";
            75 KeyRingRevocation(KeyRing, READ, plain) (index: Word)
                "What is revoked, number index: a crate::trust::RevokedItem's encoding. Word 0: its length in bytes; words 6 up: the bytes.";
            76 KeyRingFloor(KeyRing, READ, plain) (index: Word)
                "Floor number index: a crate::boot::Floor's encoding. Word 0: its length in bytes; word 1: its origin (1 boot manifest, 2 a finalised update, 3 a signed record, 4 imported at boot); words 6 up: the bytes.";
            77 KeyRingAffected(KeyRing, READ, plain) (cursor: Word)
                "The next process after cursor (0 to start), and whether it runs what could not be loaded any more. Words: cursor, process id, why (0 it could, 1 key revoked, 2 version revoked, 3 below the floor).";
            78 KeyRingWatch(KeyRing, READ, plain) (notification: Cap(Notification, SEND), flags: Word)
                "Signal these flags whenever a record is installed. At most four watchers (ArenaFull); one whose Notification ended makes room.";
            79 KeyRingCertificate(KeyRing, READ, plain) (index: Word, offset: Word)
                "Up to 112 words of the certificate of key number index from a word offset on: a crate::trust::Certificate's encoding. Word 0: how many follow in words 6 up; word 1: its length in bytes.";
            80 IrqBind(IrqHandler, MANAGE, plain) (notification: Cap(Notification, SEND), flags: Word)
                "Signal these flags at each interrupt, from now on; after one, the device stays silent until IrqAck. AlreadyBound while the Notification bound before lives.";
            81 IrqAck(IrqHandler, MANAGE, plain) ()
                "Let the device interrupt again after an interrupt was dealt with.";
            85 PortRead(IoPorts, READ, plain) (offset: Word, width: Word)
                "Read the port at this offset, 1, 2 or 4 bytes wide. Word 0: the value.";
            86 PortWrite(IoPorts, WRITE, plain) (offset: Word, width: Word, value: Word)
                "Write the port at this offset, 1, 2 or 4 bytes wide.";
            88 ClockNow(Clock, READ, plain) ()
                "Word 0: nanoseconds since boot.";
            90 SystemPowerOff(SystemControl, MANAGE, plain) (code: Word)
                "Switch the machine off; 0 reports success to a host that runs it, 1 failure.";
            91 SystemLog(SystemControl, READ, plain) (sequence: Word)
                "Kernel log bytes from a sequence number on. Words: next sequence, bytes that follow in words 6 up, bytes lost.";
            92 SystemProcess(SystemControl, READ, plain) (cursor: Word)
                "The next process after cursor (0 to start): a crate::status::ProcessRecord. Word 0: cursor.";
            93 SystemCapability(SystemControl, READ, plain) (process: Word, cursor: Word)
                "The next occupied slot of a process (by id) after slot cursor. Words: slot, object type, rights, badge, object index, children; of a capability that the process was endowed with, request (from 1) and rule (from 1, of the policy whose sequence follows; 0: boot manifest); else 0, 0, 0.";
            94 SystemMemory(SystemControl, READ, plain) ()
                "A crate::status::MemoryRecord in words 0 up.";
            95 SystemReleaseSerial(SystemControl, MANAGE, plain) ()
                "The caller owns COM1 from now on: the kernel writes there again only in a panic.";
            100 TestReport(TestControl, WRITE, plain) (bytes: Word)
                "Send bytes of words 6 up as one line to the results channel.";
            101 TestHoldVerification(TestControl, MANAGE, plain) (hold: Word)
                "Keep finished verifications from their last step (1), or let them go on (0).";
            102 TestAccounting(TestControl, READ, plain) ()
                "Words: free frames, object bytes in use, objects alive, capabilities alive, verifications held, bytes of the verification context's stack that were ever in use.";
            103 TestAudit(TestControl, READ, plain) ()
                "Walk every page table. Words: user pages; rule broken (0 none), process, address (see kernel::audit).";
            104 TestInvariants(TestControl, READ, plain) ()
                "Hold the whole kernel against its invariants. Words: rule broken (0 none), index, detail (see kernel::invariants).";
            105 TestFailAllocation(TestControl, MANAGE, plain) (nth: Word)
                "Let the nth allocation from now on (1: the next) that the kernel makes for the calling thread fail, once, as if nothing were left: a charge, frames, a place for an object, room in a list; 0: none. Word 0: 1 if the one asked for before has failed.";
            106 TestPhysical(TestControl, READ, plain) (region: Cap(Region, READ), page: Word)
                "Word 0: the physical address of a page of the Region, for tests that make a device aim at it.";
            107 TestVerify(TestControl, MANAGE, blocks) (case: Cap(Region, READ), length: Word)
                "Let the verification context check the signature in the Region's first length bytes (crate::verify_case), by the function that loads are checked with. RecordSignature if it is invalid; UnknownKey, word 0 the rule, if the key cannot be used; RecordMalformed if the bytes are no case.";
            110 HandoverCreate(Pool, CREATE, plain) (job: Cap(Job, CREATE), deadline: Word, dst: Dst)
                "A Handover of the Job with no service, open, epoch 1. It aborts by itself at the deadline (ns since boot; u64::MAX: none) unless it was committed. Timeout if that has passed.";
            111 HandoverAdd(Handover, MANAGE, plain) (endpoint: Cap(Endpoint, MANAGE), from: Cap(Process, MANAGE), to: Cap(Process, MANAGE), pool: Cap(Pool, CREATE))
                "Cover a service: its labelled Endpoint, whose receiver is from, is to pass to to, whose manifest must declare the label. The Endpoint is charged to pool, the service's own, from now on. Word 0: the service's index (0 to 7).";
            112 HandoverClose(Handover, MANAGE, plain) (services: Word)
                "Shut the gates of the services whose bits are set: recv of from ends with Quiesced, callers queue. Closed once all gates are shut. Words: state, epoch.";
            113 HandoverReopen(Handover, WRITE, plain) ()
                "Open every gate again: from serves on, what was exported is dropped, the epoch rises. For holders of MANAGE and for every from. Word 0: the new epoch.";
            114 HandoverExport(Handover, WRITE, plain) (service: Word, schema: Word, state: Cap(Region, MANAGE))
                "By from, once its gate is shut and no call is unanswered: name the Region that holds its state, and the version of its schema. The Region is charged to the service's Pool. To be sealed before the commit.";
            115 HandoverState(Handover, WRITE, plain) (service: Word, dst: Dst)
                "The exported state, sealed, as a Region capability with READ and COPY: for to until the end, for from after a rollback. Words: pages, schema.";
            116 HandoverDeposit(Handover, WRITE, plain) (service: Word, capability: Word)
                "By from: move a capability of the caller's CSpace (its slot number) into the Handover: an unanswered Reply, a session Endpoint that from receives from, an IrqHandler or IoPorts from which nothing is derived. Word 0: the deposit's number (0 to 63).";
            117 HandoverTake(Handover, WRITE, plain) (deposit: Word, dst: Dst)
                "Take a deposit: to, once it is committed (a device as a child without COPY until it is finalised); from, while it is open and after it was aborted or rolled back.";
            118 HandoverCommit(Handover, MANAGE, plain) (epoch: Word)
                "Move every service from from to to, and suspend from for good, or change nothing. StaleEpoch (word 0: the epoch in force) if a gate was opened since; RepliesOutstanding (word 0: how many).";
            119 HandoverRollback(Handover, MANAGE, plain) ()
                "Undo the commit: receivers, devices and deposits go back, from runs on, to is suspended for good; calls that to has not answered end with PeerDiedDelivered.";
            120 HandoverFinalise(Handover, MANAGE, plain) ()
                "Make the commit irrevocable, raise the version floors to what to runs, and let go of what a rollback would have needed.";
            121 HandoverAbort(Handover, MANAGE, plain) ()
                "Before the commit: open every gate again and end the Handover's work.";
            122 HandoverStatus(Handover, READ, plain) ()
                "Words: state (sila_abi::handover::State), epoch, deadline, services, services whose gate is shut (bits), cause of an abort (sila_abi::handover::Cause).";
            123 HandoverService(Handover, READ, plain) (service: Word)
                "Words: process ids of from and to, flags (sila_abi::handover), unanswered calls, deposits (bits), schema of the exported state; words 6 up: its pages, then the Endpoint's label as EndpointLabel has it.";
            124 HandoverWatch(Handover, READ, plain) (notification: Cap(Notification, SEND), flags: Word)
                "Signal these flags at each change of the Handover's state.";
            125 JournalCreate(Pool, CREATE, plain) (frames: Cap(Region, MANAGE), dst: Dst)
                "A Journal as large as this Region, whose only capability this is, which nothing maps and which is not sealed. The capability goes; the frames are the Journal's and charged to the Pool.";
            126 JournalAppend(Journal, WRITE, plain) (badge: Word, labels: Word, lengths: Word)
                "Append a call and its reply as one record. Labels: the call's in bits 0 to 31, the reply's in 32 to 63. Lengths in words: the call's (to 120) in bits 0 to 7, the reply's (to 120) in 8 to 15. The call's words, then the reply's, stand in the message page from word 6 on, read once. Words: the record's number, words left. JournalFull if it does not fit.";
            127 JournalRead(Journal, READ, plain) (record: Word)
                "A record by its number, counted from 0. Words: badge, labels, lengths, records there are; the message page has the record's words from word 6 on.";
            128 JournalStatus(Journal, READ, plain) ()
                "Words: records, bytes used, capacity in bytes, closed (0 or 1), bytes of the largest record that fits.";
            129 JournalClose(Journal, MANAGE, plain) ()
                "Refuse further records, for ever.";
            135 ChargeTransfer(Any, MANAGE, plain) (pool: Cap(Pool, CREATE))
                "Charge what the object costs to another Pool: a Region, Endpoint, Notification, Job, Handover or Journal.";
            136 JobHandover(Job, MANAGE, plain) (cursor: Word, dst: Dst)
                "A capability with every right to the next Handover of the Job after cursor (0 to start). Word 0: cursor.";
            137 JobAdopt(Job, MANAGE, plain) (process: Word, dst: Dst)
                "A capability with READ, MANAGE and COPY to the process of the Job with this id.";
            138 HandoverReplace(Handover, MANAGE, plain) (service: Word, process: Cap(Process, MANAGE))
                "Let another process, whose manifest declares the label, stand in for to: before the commit, or after it if to has ended.";
            140 SystemDevice(SystemControl, READ, plain) (cursor: Word)
                "The next device after cursor (0 to start): a crate::device::DeviceRecord in words 6 up. Word 0: cursor.";
            141 IrqUnbind(IrqHandler, MANAGE, plain) ()
                "Forget the Notification; the device stays silent until the next IrqBind.";
            160 MappingStatus(Mapping, READ, plain) ()
                "Words: process id, address, pages, writable (0 or 1), page of the Region that comes first, device (0 or 1).";
            161 EndpointStatus(Endpoint, READ, plain) ()
                "Words: flags (crate::status::endpoint), ceiling, process id of the receiver (0: none), threads that wait to be received, threads that wait to receive.";
            162 NotificationStatus(Notification, READ, plain) ()
                "Words: flags set and not yet taken (of a badged capability those of its badge), threads that wait, bound to a thread (0 or 1), time of the alarm (ns since boot; u64::MAX: none), flags of the alarm (as word 0).";
            163 JobStatus(Job, READ, plain) ()
                "Words: processes, those among them that have ended, Handovers.";
            164 ReplyStatus(Reply, NONE, plain) ()
                "Words: the caller waits (0 or 1), it waits for a fault to be dealt with (0 or 1), most words that an answer may have, most capabilities.";
            165 IrqStatus(IrqHandler, READ, plain) ()
                "Words: bound to a Notification that lives (0 or 1), silent until IrqAck or IrqBind (0 or 1), interrupts so far.";
            166 PortStatus(IoPorts, READ, plain) ()
                "Word 0: how many ports there are.";
            167 ProcessUsage(Process, READ, plain) ()
                "Words: process id, threads, frame quota, frames used, object byte quota, object bytes used. Of one that has ended all but the id are 0.";
            170 SystemCounters(SystemControl, READ, plain) ()
                "A crate::status::CounterRecord in words 0 up.";
            171 SystemTrace(SystemControl, MANAGE, plain) (kinds: Word)
                "Record events of the kinds whose bits (1 << crate::trace::Kind) are set, from now on; 0 stops. Words: the kinds before, the next record's sequence number.";
            172 SystemTraceRead(SystemControl, READ, plain) (sequence: Word)
                "Records of the trace from a sequence number on. Words: next sequence, records (crate::trace::Record) that follow in words 6 up, records lost before them, kinds recorded now, records that the kernel keeps.";
            173 SystemAudit(SystemControl, MANAGE, plain) ()
                "As TestAudit; InvalidOperation unless the system was started to be audited (audit=on) or is a test system.";
            180 ProcessSetBudget(Process, MANAGE, plain) (period: Word, amount: Word)
                "Let the process's threads run for amount (10 us to the period, in ns) in each period (100 us to 10 s, in ns), of which the first begins now; once it is spent they run only when no other thread is ready, until the next one. 0, 0: no budget. A process does not set its own.";
            181 ProcessBudget(Process, READ, plain) ()
                "Words: period, amount, time run in this period (with what was run too long before), spent (0 or 1), end of the period (ns since boot); all 0 without a budget.";
            182 ProcessIdentity(Process, READ, plain) ()
                "What the process runs, read from its live record: a crate::status::IdentityRecord in words 0 up.";
            190 PolicyInstall(Policy, WRITE, blocks) (record: Cap(Region, READ), length: Word)
                "Verify a root-signed policy in the Region's first length bytes and put it in force. Words: its kind, its sequence.";
            191 PolicyStatus(Policy, READ, plain) ()
                "Words: the policy's sequence, its encoding's length in bytes, rules, scopes.";
            192 PolicyRead(Policy, READ, plain) (offset: Word)
                "Up to 112 words of the policy's encoding (crate::policy::Policy) from a word offset on. Word 0: how many follow in words 6 up; word 1: its length in bytes.";
            200 ModuleCacheInsert(ModuleCache, WRITE, blocks) (image: Cap(Region, MANAGE), proof: Cap(Region, READ), dst: Dst)
                "Verify the manifest and the sealed image by the KeyRing and keep them for later processes. The image is named by this capability alone, and nothing maps it or runs from it (NotExclusive); the capability goes into the cache, which pays from now on, unless it has the module already. The CachedImage goes to dst. What was used longest ago makes room, unless somebody has a capability to it or runs from it. Insertions count against the policy's rate of creations, of which the cache has its own (RateLimited).";
            201 ModuleCacheFind(ModuleCache, CREATE, plain) (key_0: Word, key_1: Word, key_2: Word, key_3: Word, dst: Dst)
                "The image with this key (sila_crypto::hash::module_id of publisher, name and version, in little-endian words), if the cache has it and it could still be loaded. NotCached otherwise.";
            202 ModuleCacheStatus(ModuleCache, READ, plain) ()
                "A crate::status::CacheRecord in words 0 up.";
            203 ModuleCacheNext(ModuleCache, READ, plain) (cursor: Word)
                "The next image after the one with number cursor (0 to start): a crate::status::CachedRecord in words 0 up. Word 0: cursor.";
            205 CachedImageStatus(CachedImage, READ, plain) ()
                "A crate::status::CachedRecord in words 0 up.";
            206 CachedImageEvict(CachedImage, MANAGE, plain) ()
                "Take the image out of the cache: no capability reaches it any more. Processes that run from it go on.";
        }
    };
}

macro_rules! object_of {
    (Any) => {
        None
    };
    ($o:ident) => {
        Some(ObjectType::$o)
    };
}

macro_rules! rights_of {
    (NONE) => {
        Rights::empty()
    };
    ($r:ident) => {
        Rights::$r
    };
}

macro_rules! arg_of {
    (Word) => {
        Arg::Word
    };
    (Dst) => {
        Arg::Dst
    };
    (Cap($o:ident, $r:ident)) => {
        Arg::Cap(ObjectType::$o, Rights::$r)
    };
}

macro_rules! mode_is {
    (blocks, blocks) => {
        true
    };
    (restarts, restarts) => {
        true
    };
    (endow, endow) => {
        true
    };
    ($a:ident, $b:ident) => {
        false
    };
}

macro_rules! define {
    ($($num:literal $name:ident($obj:ident, $right:ident, $mode:ident)
        ($($arg:ident: $kind:ident $(($($inner:ident),*))?),*) $doc:literal;)*) => {
        /// An operation on an object: the label of an Invoke.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
        #[repr(u32)]
        pub enum Op { $(#[doc = $doc] $name = $num),* }

        impl Op {
            /// The operation with this number.
            pub const fn from_number(number: u32) -> Option<Self> {
                match number { $($num => Some(Op::$name),)* _ => None }
            }

            /// The operation's row of the table.
            pub const fn info(self) -> &'static OpInfo {
                match self { $(Op::$name => const { &OpInfo {
                    op: Op::$name,
                    name: stringify!($name),
                    object: object_of!($obj),
                    rights: rights_of!($right),
                    args: &[$((stringify!($arg), arg_of!($kind $(($($inner),*))?))),*],
                    blocks: mode_is!($mode, blocks),
                    restarts: mode_is!($mode, restarts),
                    endow_ok: mode_is!($mode, endow),
                    doc: $doc,
                } }),* }
            }
        }

        /// Every operation, in order of number.
        pub const TABLE: &[&OpInfo] = &[$(Op::$name.info()),*];
    };
}

for_each_operation!(define);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_ordered_and_numbers_round_trip() {
        for pair in TABLE.windows(2) {
            assert!(pair[0].op < pair[1].op);
        }
        for row in TABLE {
            assert_eq!(Op::from_number(row.op as u32), Some(row.op));
            assert_eq!(row.op.info().name, row.name);
        }
        assert_eq!(Op::from_number(0), None);
    }

    #[test]
    fn operations_fit_the_register_words() {
        for row in TABLE {
            assert!(row.args.len() <= crate::syscall::REGISTER_WORDS, "{}", row.name);
            assert!(!row.doc.is_empty());
        }
    }

    #[test]
    fn only_housekeeping_works_on_endow_only_capabilities() {
        let names: Vec<_> = TABLE.iter().filter(|r| r.endow_ok).map(|r| r.name).collect();
        assert_eq!(names, ["CapMove", "CapDelete", "CapStatus"]);
    }
}
