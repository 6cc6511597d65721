//! What every test has at hand: capabilities, checks, and the accounts of the kernel.

use crate::child::Child;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use core::fmt::{self, Debug};
use probe::{REQUEST_CLOCK, REQUEST_COMMAND};
use sila_abi::boot::{Bundle, Entry, EntryKind};
use sila_abi::protocol::layout::{CLOCK, OWN_POOL};
use sila_abi::record::Name;
use sila_abi::{Error, Op, Rights, Slot};
use sila_rt::hostile::invoke;
use sila_rt::memory::{OwnRegion, SealedRegion};
use sila_rt::raw::yield_now;
use sila_rt::slots::{OwnedSlot, make};
use sila_rt::{CallError, clock, op, system};

/// SystemControl.
pub const SYSTEM: Slot = Slot(8);
/// TestControl.
pub const TEST: Slot = Slot(9);
/// The Job that probes are made in.
pub const JOB: Slot = Slot(10);
/// ModuleManager.
pub const MANAGER: Slot = Slot(11);
/// Pays for probes and modules.
pub const POOL: Slot = Slot(12);
/// The kernel's keys.
pub const KEYS: Slot = Slot(13);
/// The boot bundle.
pub const BUNDLE: Slot = Slot(14);
/// An endpoint capability that can only be passed on.
pub const ENDOW_ONLY: Slot = Slot(15);
/// COM2's ports.
pub const PORTS: Slot = Slot(16);
/// COM2's interrupt.
pub const IRQ: Slot = Slot(17);
/// The receiving end of [`ENDOW_ONLY`].
pub const ENDOWED: Slot = Slot(18);
/// The registers of one of QEMU's `edu` devices.
pub const EDU: Slot = Slot(40);
/// Its interrupt.
pub const EDU_IRQ: Slot = Slot(41);
/// The registers of another one, which shares the interrupt line.
pub const TWIN: Slot = Slot(42);
/// Its interrupt.
pub const TWIN_IRQ: Slot = Slot(43);
/// The ports of a serial port on the PCI bus.
pub const SERIAL: Slot = Slot(44);
/// Its interrupt.
pub const SERIAL_IRQ: Slot = Slot(45);
/// A device that no machine has.
pub const NOTHING: Slot = Slot(46);
/// The framebuffer, which the kernel keeps.
pub const SCREEN: Slot = Slot(47);
/// The kernel's policy.
pub const POLICY: Slot = Slot(48);
/// The depot's endpoint, to receive from.
pub const DEPOT: Slot = Slot(49);
/// A second ModuleManager, whose other agents the runner stands in for.
pub const JUDGED_MANAGER: Slot = Slot(50);
/// What that takes for DeepCompression's endpoint, to receive from.
pub const HOSTILE_COMPRESSION: Slot = Slot(51);
/// An endpoint for a stand-in of ServiceRegistry, both ends.
pub const HOSTILE_REGISTRY: Slot = Slot(52);
/// The kernel's module cache.
pub const CACHE: Slot = Slot(53);
/// An empty slot that no test fills for long.
pub const EMPTY: Slot = Slot(63);

/// The priority that probes run at, below the runner's.
pub const PROBE_PRIORITY: u64 = 90;

/// Why a test failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    what: String,
    expected: String,
    got: String,
}

/// How a test ended.
pub type Outcome = Result<(), Failure>;

impl Failure {
    /// A failure.
    pub fn new(what: impl Into<String>, expected: impl Into<String>, got: impl Into<String>) -> Self {
        Self { what: what.into(), expected: expected.into(), got: got.into() }
    }

    /// The same failure, with where it came about.
    pub fn at(mut self, place: &str) -> Self {
        self.what = format!("{place}: {}", self.what);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: expected {}, got {}", self.what, self.expected, self.got)
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        Failure::new("a step that should work", "success", error.error.name())
    }
}

/// Checks that two values are equal.
pub fn equal<T: PartialEq + Debug>(what: &str, got: T, want: T) -> Outcome {
    if got == want { Ok(()) } else { Err(Failure::new(what, format!("{want:?}"), format!("{got:?}"))) }
}

/// Checks that a condition holds.
pub fn holds(what: &str, condition: bool) -> Outcome {
    equal(what, condition, true)
}

/// Checks that the kernel refused something, with exactly this error.
pub fn refused<T>(what: &str, result: Result<T, CallError>, want: Error) -> Outcome {
    match result {
        Err(error) if error.error == want => Ok(()),
        Err(error) => Err(Failure::new(what, want.name(), error.error.name())),
        Ok(_) => Err(Failure::new(what, want.name(), "success")),
    }
}

/// Names the step that a refusal belongs to.
pub fn works<T>(what: &str, result: Result<T, CallError>) -> Result<T, Failure> {
    result.map_err(|error| Failure::new(what, "success", format!("{} {:?}", error.error.name(), error.words)))
}

/// A name in a test; a wrong one fails the test.
pub fn name(text: &str) -> Result<Name, Failure> {
    Name::new(text).map_err(|_| Failure::new("a name in a test", "[a-z0-9.-]{1,64}", text))
}

/// Sends a line to the results channel.
pub fn report(line: &str) {
    system::report(TEST, line);
}

/// What the kernel counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accounts {
    /// Free frames.
    pub frames: u64,
    /// Object bytes in use.
    pub bytes: u64,
    /// Objects alive.
    pub objects: u64,
    /// Capabilities alive.
    pub capabilities: u64,
    /// Verifications held.
    pub held: u64,
}

/// The kernel's accounts at this moment.
pub fn accounts() -> Result<Accounts, Failure> {
    let [frames, bytes, objects, capabilities, held, _] =
        works("TestAccounting", op::TestAccounting(TEST))?.words;
    Ok(Accounts { frames, bytes, objects, capabilities, held })
}

/// Everything that tests share.
pub struct Lab {
    bundle: Bundle<'static>,
    image: OwnedSlot,
    proof: OwnedSlot,
}

impl Lab {
    /// Opens the bundle and prepares the probe.
    ///
    /// # Errors
    /// What is missing.
    pub fn open() -> Result<Self, Failure> {
        let copy = make(|dst| op::CapCopy(BUNDLE, dst, Rights::READ.bits().into()));
        let copy = works("copying the bundle's capability", copy)?;
        let region = works("mapping the bundle", SealedRegion::map(copy, 1 << 30))?;
        let region: &'static SealedRegion = Box::leak(Box::new(region));
        let bundle = Bundle::parse(region.bytes())
            .map_err(|e| Failure::new("the bundle", "a bundle", e.to_string()))?;
        let image = sealed(data_of(&bundle, crate::PROBE_IMAGE)?)?;
        let proof = sealed(data_of(&bundle, crate::PROBE_PROOF)?)?;
        Ok(Self { bundle, image, proof })
    }

    /// A test data entry.
    pub fn data(&self, entry: &str) -> Result<&'static [u8], Failure> {
        data_of(&self.bundle, entry)
    }

    /// Every entry of the boot bundle.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'static>> + '_ {
        self.bundle.entries()
    }

    /// A test data entry that is a text.
    pub fn text(&self, entry: &str) -> Result<&'static str, Failure> {
        let data = self.data(entry)?;
        core::str::from_utf8(data).map_err(|_| Failure::new(entry, "a text", "bytes"))
    }

    /// The probe's sealed image.
    pub fn image(&self) -> Slot {
        self.image.slot()
    }

    /// The probe's sealed proof.
    pub fn proof(&self) -> Slot {
        self.proof.slot()
    }

    /// A new probe process that has not started.
    pub fn child(&self) -> Result<Child, Failure> {
        self.child_at(PROBE_PRIORITY)
    }

    /// A new probe process with this priority.
    pub fn child_at(&self, priority: u64) -> Result<Child, Failure> {
        let command = works("EndpointCreate", make(|dst| op::EndpointCreate(OWN_POOL, 0, 0, dst)))?;
        let grants = [(REQUEST_CLOCK, CLOCK), (REQUEST_COMMAND, command.slot())];
        let process = create(self.image(), self.proof(), POOL, priority, &grants);
        let process = works("ProcessCreate of a probe", process)?;
        Child::new(process, command)
    }

    /// Runs `body` twice and compares the kernel's accounts around the second time. (The first grows heap and slots.)
    pub fn balanced(&self, body: impl Fn() -> Outcome) -> Outcome {
        body()?;
        settle()?;
        let before = accounts()?;
        body()?;
        let deadline = clock::after(3 * clock::SECOND);
        loop {
            let after = accounts()?;
            if after == before {
                return Ok(());
            }
            if clock::now().is_none_or(|now| now > deadline) {
                return equal("frames, object bytes, objects and capabilities afterwards", after, before);
            }
            pause(10 * clock::MILLISECOND);
        }
    }
}

/// Waits until the accounts stand still.
pub fn settle() -> Outcome {
    let mut last = accounts()?;
    for _ in 0..50 {
        pause(20 * clock::MILLISECOND);
        let now = accounts()?;
        if now == last {
            return Ok(());
        }
        last = now;
    }
    Err(Failure::new("the kernel's accounts", "rest", "change after change"))
}

fn data_of(bundle: &Bundle<'static>, entry: &str) -> Result<&'static [u8], Failure> {
    let found = bundle.find(EntryKind::TestData, &name(entry)?);
    found.map(|e| e.data).ok_or_else(|| Failure::new(entry, "test data", "none in the bundle"))
}

/// A sealed Region with these bytes.
pub fn sealed(bytes: &[u8]) -> Result<OwnedSlot, Failure> {
    works("sealing a Region", filled(bytes)?.seal())
}

/// A Region with these bytes, still mapped writable.
pub fn filled(bytes: &[u8]) -> Result<OwnRegion, Failure> {
    let mut region = works("a Region", OwnRegion::new(bytes.len()))?;
    for (to, from) in region.bytes_mut().iter_mut().zip(bytes) {
        *to = *from;
    }
    Ok(region)
}

/// ProcessCreate with grants: request index and source slot.
pub fn create(
    image: Slot,
    proof: Slot,
    pool: Slot,
    priority: u64,
    grants: &[(u16, Slot)],
) -> Result<OwnedSlot, CallError> {
    make(|dst| create_in(image, proof, pool, priority, grants, dst))
}

/// ProcessCreate into a slot of the caller's choice.
pub fn create_in(
    image: Slot,
    proof: Slot,
    pool: Slot,
    priority: u64,
    grants: &[(u16, Slot)],
    dst: Slot,
) -> Result<op::Words, CallError> {
    let mut words = alloc::vec![image.0.into(), proof.0.into(), pool.0.into(), priority, grants.len() as u64];
    words.push(dst.0.into());
    words.extend(grants.iter().map(|(index, slot)| u64::from(*index) << 16 | u64::from(slot.0)));
    invoke(JOB, Op::ProcessCreate, &words)
}

/// Lets time pass, others run.
pub fn pause(nanoseconds: u64) {
    let until = clock::after(nanoseconds);
    let Ok(nothing) = make(|dst| op::NotificationCreate(OWN_POOL, dst)) else { return };
    let _ = sila_rt::ipc::wait(nothing.slot(), until);
}

/// Waits until a condition holds, for at most two seconds.
pub fn until(what: &str, condition: impl Fn() -> bool) -> Outcome {
    let deadline = clock::after(2 * clock::SECOND);
    while !condition() {
        if clock::now().is_none_or(|now| now > deadline) {
            return Err(Failure::new(what, "true", "false for two seconds"));
        }
        yield_now();
        pause(clock::MILLISECOND);
    }
    Ok(())
}

/// A copy of a capability with these rights.
pub fn copy(slot: Slot, rights: Rights) -> Result<OwnedSlot, CallError> {
    make(|dst| op::CapCopy(slot, dst, rights.bits().into()))
}
