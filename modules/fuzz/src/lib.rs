//! What the fuzzer's driver, its workers and the host tool share, and all of it that needs no kernel.
//!
//! The driver makes up one order after the other from a seed and gives each to a lane, a thread of a worker, whose
//! priority is above its own: when the driver runs again the call has been made, or waits. So what happens follows
//! from the seed alone, and two runs of it have the same digest.
//!
//! Lines on the results channel, each beginning with `fuzz `: `at CALLS DIGEST NANOSECONDS`, `op NAME TRIED DONE`,
//! `call NAME TRIED DONE`, `error NAME COUNT`, `oracle LOOKS PROCESSES CAPABILITIES FLOORS LABELS`, `FAIL CALL REASON`, `done CALLS DIGEST PROCESSES`, `show TEXT`.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod generate;
pub mod manage;
pub mod oracle;
pub mod order;
pub mod random;
pub mod recipes;
pub mod tally;

use sila_abi::Slot;

/// The test data entry with the plan: as many numbers as a [`Plan`] has, in its order.
pub const PLAN: &str = "fuzz.plan";
/// The test data entry with the image that workers run from.
pub const IMAGE: &str = "fuzz.image";
/// The test data entry with their load proof.
pub const PROOF: &str = "fuzz.proof";
/// The test data entries with damaged load proofs: this and a number from 0 on.
pub const DAMAGED_PROOF: &str = "fuzz.damaged";
/// The test data entries with signed revocations of what nobody has: this and a number from 0 on.
pub const RECORDS: &str = "fuzz.record";
/// The test data entry with the load proof of workers that have what ModuleManager has.
pub const MANAGER_PROOF: &str = "fuzz.manager";
/// The test data entries with what a manager loads: this, and a number from 0 on. Images, load proofs, records for the
/// KeyRing; each proof's entry begins with the number of its image in eight bytes.
pub const MADE_IMAGES: &str = "fuzz.made.image";
/// See [`MADE_IMAGES`].
pub const MADE_PROOFS: &str = "fuzz.made.proof";
/// See [`MADE_IMAGES`]; one for each epoch, of rising sequence, as long as they last.
pub const MADE_RECORDS: &str = "fuzz.made.record";

/// Calls between two looks at the kernel's invariants and page tables, if the plan does not say otherwise.
pub const CHECK: u64 = 1000;
/// Calls after which everything is torn down, counted, and made anew.
pub const EPOCH: u64 = 20_000;
/// From so many calls on a run fails if an operation never succeeded.
pub const THOROUGH: u64 = 100_000;

/// What to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plan {
    /// The last call.
    pub calls: u64,
    /// What they follow from.
    pub seed: u64,
    /// Calls that are left out, whole epochs of them: each follows from seed and number alone.
    pub skip: u64,
    /// Calls between two looks at the kernel.
    pub check: u64,
    /// The first call of those that are shown.
    pub show: u64,
    /// Whether workers are what ModuleManager would be if it were hostile.
    pub manager: bool,
}

impl Plan {
    /// So many calls from a seed.
    pub const fn new(calls: u64, seed: u64) -> Self {
        Plan { calls, seed, skip: 0, check: CHECK, show: u64::MAX, manager: false }
    }

    /// The plan that a text says.
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split_whitespace().map(|word| word.parse().ok());
        let mut number = || numbers.next().flatten();
        let (calls, seed, skip, check, show) = (number()?, number()?, number()?, number()?, number()?);
        let manager = number()? != 0;
        Some(Plan { calls, seed, skip, check, show, manager })
    }

    /// The text that says it.
    pub fn text(&self) -> alloc::string::String {
        let Plan { calls, seed, skip, check, show, manager } = self;
        alloc::format!("{calls} {seed} {skip} {check} {show} {}\n", u8::from(*manager))
    }

    /// Where the numbers of an epoch come from.
    pub const fn seed_of(&self, epoch: u64) -> u64 {
        self.seed ^ epoch.wrapping_mul(0xd6e8_feb8_6659_fd93)
    }
}

/// Operations that need not succeed, and why.
pub const EXEMPT: &[(&str, &str)] = &[
    (
        "KeyRingInstall",
        "a record is installed once: the first workers have few of them, and the driver installs the newest",
    ),
    ("PolicyInstall", "no policy is signed but the boot manifest's"),
    ("SystemPowerOff", "it would end the run: orders of it name no capability"),
    ("SystemReleaseSerial", "the console has the line: orders of it name no capability"),
    ("TestVerify", "no Region of a worker holds a signature with its key"),
    (
        "TestReport",
        "the results channel is the driver's, which uses it; workers hold TestControl without WRITE",
    ),
];

/// Operations that must succeed in a thorough run of managers; of the others many want capabilities that those lack.
pub const MANAGED: &[&str] = &[
    "CapCopy",
    "CapMint",
    "CapRevoke",
    "EndpointBind",
    "EndpointCreate",
    "EndpointLabel",
    "HandoverCommit",
    "KeyRingFloor",
    "KeyRingInstall",
    "KeyRingState",
    "MappingProtect",
    "MappingUnmap",
    "PolicyRead",
    "ProcessCreate",
    "ProcessStart",
    "ProcessTerminate",
    "RegionCreate",
    "RegionMap",
    "RegionSeal",
];

/// Refusals that must have been seen in a thorough run of managers.
pub const REFUSED: &[&str] = &[
    "AlreadyBound",
    "BadProof",
    "BelowFloor",
    "BinarySignature",
    "EndowOnly",
    "GrantUnrequested",
    "ImageDigest",
    "ImageSize",
    "KeyRevoked",
    "LabelMismatch",
    "ManifestSignature",
    "Namespace",
    "NotReceiver",
    "NotSealed",
    "RecordMalformed",
    "RecordSignature",
    "RecordStale",
    "RequestBadge",
    "RequestCeiling",
    "RequestNotGranted",
    "RequestPolicy",
    "RequestRights",
    "RequestWrongType",
    "Sealed",
    "StillWritable",
    "UnknownKey",
    "VersionReuse",
    "VersionRevoked",
];

/// Highest priority of workers.
pub const CEILING: u64 = 116;
/// Lanes of a worker.
pub const LANES: usize = 2;

/// Slots of a worker, and the requests of its manifest that fill them: the block shared with the driver.
pub const BLOCK: Slot = Slot(8);
/// What rings for a lane; the next slot is the next lane's.
pub const BELL: Slot = Slot(9);
/// The Pool that pays for what workers make.
pub const SANDBOX: u16 = 11;
/// The Job.
pub const JOB: u16 = 12;
/// The driver's endpoint.
pub const HUB: Slot = Slot(13);
/// The KeyRing.
pub const KEY_RING: u16 = 14;
/// The policy.
pub const POLICY: u16 = 24;
/// The module cache.
pub const CACHE: u16 = 30;
/// A sealed image.
pub const IMAGE_SLOT: u16 = 20;
/// Its load proof.
pub const PROOF_SLOT: u16 = 21;
/// A damaged one.
pub const DAMAGED: u16 = 22;
/// A signed revocation.
pub const RECORD: u16 = 23;

/// Label of a lane's first call to the hub: words are its number, where threads may start, where stacks are. Its
/// capability comes along.
pub const HELLO: u32 = 0x6865_6c6c;
/// Label of a call that leaves capabilities with the driver.
pub const GIVE: u32 = 0x6769_7665;
/// Label of a call that fetches what a recipe wants.
pub const TAKE: u32 = 0x7461_6b65;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_survives_its_text() {
        for manager in [false, true] {
            let plan = Plan { skip: 40_000, check: 10, show: 5, manager, ..Plan::new(60_000, u64::MAX) };
            assert_eq!(Plan::parse(&plan.text()), Some(plan));
        }
        let plan = Plan::new(60_000, u64::MAX);
        assert_eq!(Plan::parse("1 2 3"), None);
        assert_ne!(plan.seed_of(1), plan.seed_of(2));
    }
}
