//! ModuleManager: loads, lists and stops modules (specification section 2; the book, Load protocol).
//!
//! A requester's badge, below [`super::wire::FIRST_INSTANCE`], names its LoadScope. Badges from there on are
//! instances, which report to the same endpoint by [`super::lifecycle`].

use super::deep_compression::DecompressionError;
use super::registry::RegistryError;
use super::wire::{
    self, DIGEST_WORDS, NAME_WORDS, digest_at, digest_words, name_at, name_words, service_errors,
};
use crate::Error;
use crate::contract::ContractError;
use crate::facts;
use crate::manifest::ManifestError;
use crate::package::PackageError;
use crate::record::{Digest, Name, Version};
use crate::sif::SifError;

/// `Load`: a [`Load`]; capabilities: 0 the Pool to charge (CREATE, COPY), 1 to 3 the sources of the grants named.
/// Success: a [`Loaded`] and capability 0, the Process (READ).
pub const LOAD: u32 = 1;
/// `Stop`: word 0 the process id. Success means that the process has ended and its services are unregistered.
pub const STOP: u32 = 2;
/// `List`: word 0 a cursor, 0 to start. Success: a [`ModuleRecord`]. [`LoadError::NoMoreEntries`] ends it.
pub const LIST: u32 = 3;

/// The most capabilities that a requester grants by name, besides its Pool.
pub const MAX_NAMED_GRANTS: usize = 3;
/// Words of a [`Load`] with every grant.
pub const LOAD_WORDS: usize = FIXED_LOAD_WORDS + MAX_NAMED_GRANTS * NAME_WORDS;
const FIXED_LOAD_WORDS: usize = 2 + NAME_WORDS + DIGEST_WORDS;
/// Words of a [`Loaded`].
pub const LOADED_WORDS: usize = 3 + NAME_WORDS + DIGEST_WORDS;
/// Words of a [`ModuleRecord`].
pub const RECORD_WORDS: usize = 7 + 2 * NAME_WORDS;

const EXACT: u64 = 1 << 0;
const DIGEST: u64 = 1 << 1;
const GRANTS_SHIFT: u32 = 8;

/// What to load. Word 0: bit 0 that version only, bit 1 that manifest only, bits 8 to 9 how many grants are named;
/// word 1 the version; 2 to 9 the name; 10 to 13 the manifest's digest; from 14 on 8 words for each grant's name.
/// Fields that do not apply are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// The module.
    pub name: Name,
    /// The version; `None`: the newest there is.
    pub version: Option<Version>,
    /// The id hash of the manifest; `None`: any that verifies.
    pub digest: Option<Digest>,
    /// Under which grant names the requester passes capabilities 1 to 3; these go before other ones.
    pub grants: [Option<Name>; MAX_NAMED_GRANTS],
}

impl Load {
    /// A request for the newest version, without grants.
    pub const fn newest(name: Name) -> Self {
        Self { name, version: None, digest: None, grants: [None; MAX_NAMED_GRANTS] }
    }

    /// How many grants are named.
    pub fn grant_count(&self) -> usize {
        self.grants.iter().flatten().count()
    }

    /// The request in words.
    pub fn to_words(&self) -> [u64; LOAD_WORDS] {
        let mut words = [0; LOAD_WORDS];
        let mut flags = (self.grant_count() as u64) << GRANTS_SHIFT;
        if let Some(version) = self.version {
            flags |= EXACT;
            wire::put(&mut words, 1, &[version.to_word()]);
        }
        wire::put(&mut words, 2, &name_words(&self.name));
        if let Some(digest) = &self.digest {
            flags |= DIGEST;
            wire::put(&mut words, 10, &digest_words(digest));
        }
        for (i, name) in self.grants.iter().flatten().enumerate() {
            wire::put(&mut words, FIXED_LOAD_WORDS + i * NAME_WORDS, &name_words(name));
        }
        wire::put(&mut words, 0, &[flags]);
        words
    }

    /// The request from words; `None` if it is malformed or names one grant twice.
    pub fn from_words(words: &[u64]) -> Option<Self> {
        let flags = *words.first()?;
        let count = usize::try_from(flags >> GRANTS_SHIFT).ok()?;
        if flags & 0xff & !(EXACT | DIGEST) != 0 || count > MAX_NAMED_GRANTS {
            return None;
        }
        let version = match flags & EXACT {
            0 => None,
            _ => Some(Version::from_word(*words.get(1)?)?),
        };
        let digest = match flags & DIGEST {
            0 => None,
            _ => Some(digest_at(words, 10)?),
        };
        let mut grants = [None; MAX_NAMED_GRANTS];
        for i in 0..count {
            let name = name_at(words, FIXED_LOAD_WORDS + i * NAME_WORDS)?;
            if grants.contains(&Some(name)) {
                return None;
            }
            if let Some(place) = grants.get_mut(i) {
                *place = Some(name);
            }
        }
        Some(Self { name: name_at(words, 2)?, version, digest, grants })
    }
}

/// A module that was loaded and is ready. Word 0 the process id, 1 the version, 2 the instance (the badge under which
/// it calls services), 3 to 10 the publisher, 11 to 14 the manifest's digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The process id.
    pub process: u64,
    /// The version that was loaded.
    pub version: Version,
    /// The instance.
    pub instance: u64,
    /// Who signed it.
    pub publisher: Name,
    /// Id hash of the verified manifest.
    pub digest: Digest,
}

impl Loaded {
    /// The record in words.
    pub fn to_words(&self) -> [u64; LOADED_WORDS] {
        let mut words = [0; LOADED_WORDS];
        wire::put(&mut words, 0, &[self.process, self.version.to_word(), self.instance]);
        wire::put(&mut words, 3, &name_words(&self.publisher));
        wire::put(&mut words, 11, &digest_words(&self.digest));
        words
    }

    /// The record from words.
    pub fn from_words(words: &[u64]) -> Option<Self> {
        Some(Self {
            process: *words.first()?,
            version: Version::from_word(*words.get(1)?)?,
            instance: *words.get(2)?,
            publisher: name_at(words, 3)?,
            digest: digest_at(words, 11)?,
        })
    }
}

/// Where a module stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum ModuleState {
    /// Its process does not exist yet.
    Loading = 1,
    /// Its process runs and has not reported `Ready`.
    Initialising = 2,
    /// It is ready.
    Running = 3,
    /// Its process has ended; its services are being unregistered.
    Ending = 4,
    /// It has ended.
    Ended = 5,
}

impl ModuleState {
    /// The state with this number.
    pub const fn from_word(word: u64) -> Option<Self> {
        Some(match word {
            1 => Self::Loading,
            2 => Self::Initialising,
            3 => Self::Running,
            4 => Self::Ending,
            5 => Self::Ended,
            _ => return None,
        })
    }

    /// The state's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::Initialising => "initialising",
            Self::Running => "running",
            Self::Ending => "ending",
            Self::Ended => "ended",
        }
    }
}

/// A module, as `List` gives it. Word 0 the next cursor, 1 the process id (0 while loading), 2 the state, 3 the
/// version, 4 the requester's badge, 5 the cause and 6 the code of its end as ProcessStatus gives them, 7 to 14 the
/// name, 15 to 22 the publisher (all zero before it is verified).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModuleRecord {
    /// What to pass to the next `List`.
    pub cursor: u64,
    /// The process id.
    pub process: u64,
    /// Where it stands.
    pub state: ModuleState,
    /// Its version; 0.0.0 before it is verified.
    pub version: Version,
    /// Who loaded it.
    pub requester: u64,
    /// Why it ended: 0 it has not, 1 exit, 2 terminated, 3 fault.
    pub cause: u64,
    /// Exit code or fault vector.
    pub code: u64,
    /// Its name.
    pub name: Name,
    /// Its publisher.
    pub publisher: Option<Name>,
}

impl ModuleRecord {
    /// The record in words.
    pub fn to_words(&self) -> [u64; RECORD_WORDS] {
        let mut words = [0; RECORD_WORDS];
        let version = self.version.to_word();
        let head =
            [self.cursor, self.process, self.state as u64, version, self.requester, self.cause, self.code];
        wire::put(&mut words, 0, &head);
        wire::put(&mut words, 7, &name_words(&self.name));
        if let Some(publisher) = &self.publisher {
            wire::put(&mut words, 15, &name_words(publisher));
        }
        words
    }

    /// The record from words.
    pub fn from_words(words: &[u64]) -> Option<Self> {
        let &[cursor, process, state, version, requester, cause, code] = words.first_chunk::<7>()?;
        words.get(RECORD_WORDS - 1)?;
        Some(Self {
            cursor,
            process,
            state: ModuleState::from_word(state)?,
            version: Version::from_word(version)?,
            requester,
            cause,
            code,
            name: name_at(words, 7)?,
            publisher: name_at(words, 15),
        })
    }
}

service_errors! {
    /// Why a module was not loaded, stopped or listed. A refused load leaves nothing behind. 1 to 19: the request; 20 to 59:
    /// the package; 60 up: the steps in their order.
    LoadError {
        UnknownRequest = 1, "ModuleManager has no such request";
        Malformed = 2, "the request to ModuleManager is malformed";
        MissingPool = 3, "a load must carry a Pool capability that the module is charged to";
        NoScope = 4, "the requester has no scope to load modules in";
        NameOutsideScope = 5, "the requester may not load a module of this name";
        KindOutsideScope = 6, "the requester may not load a module of this kind";
        TooManyInstances = 7, "the requester has as many modules as it may";
        GrantOutsideScope = 8, "the requester may not grant a capability under this name";
        Busy = 9, "ModuleManager is busy with as many loads as it takes";
        TableFull = 10, "ModuleManager has no room for another module";
        NoSuchModule = 11, "there is no package of this name";
        NoSuchVersion = 12, "there is no package of this name and version";
        NoSuchProcess = 13, "no module runs in this process";
        NotYours = 14, "the requester's scope does not cover this module";
        NoMoreEntries = 15, "the enumeration has ended";
        NotAnInstance = 16, "the report does not come from a module that is starting";
        BundleUnreadable = 17, "the bundle of packages cannot be read";
        AlreadyEnding = 18, "the module is being stopped already";
        KeyRingUnreadable = 19, "the kernel refused to tell which keys are trusted";

        PackageMalformed = 20, "the package is malformed (word 0 names the rule)";
        PackageKeyUnknown = 21, "the package is signed with a key that the system does not know";
        PackageKeyRevoked = 22, "the package is signed with a revoked key";
        PackageAlgorithm = 23, "the package's signature algorithm is unknown or too weak";
        PackageSignature = 24, "the package's signature is invalid";
        PackageHeaderMismatch = 25, "the package's header differs from its manifest";
        PayloadDigest = 26, "the payload's digest differs from the manifest";
        ManifestMalformed = 27, "the manifest is malformed or not canonical (word 0 names the rule)";
        ManifestSignature = 28, "the manifest's signature is invalid";
        WrongPublisher = 29, "the manifest's publisher is not the one its key is certified for";
        Namespace = 30, "the publisher may not sign modules of this name";
        NameMismatch = 31, "the package's manifest is that of another module";
        VersionMismatch = 32, "the package's manifest is that of another version";
        DigestMismatch = 33, "the manifest is not the one that the requester expects";
        NotAProcess = 34, "the module is a library or a model, not a process";
        DependencyMissing = 35, "a service that the module depends on does not run (word 0 names the dependency)";
        DependencyVersion = 36, "a service that the module depends on runs in another version (word 0 names the dependency)";
        PublisherVersion = 37, "the publisher's certificate does not cover this version";
        WrongPurpose = 38, "a key of another purpose (test or release) signed the package";
        PackageRejected = 39, "the package was refused by another rule of the chain (word 0 names it)";

        VerifierLost = 60, "the package verifier does not answer";
        OutputRefused = 61, "the kernel refused memory for the image";
        DecompressionRefused = 62, "DeepCompression refused the payload";
        DecompressionLost = 63, "DeepCompression does not answer";
        CopyRefused = 64, "the kernel refused access to the image's memory";
        SealRefused = 65, "the kernel refused to seal the image";
        ProofRefused = 66, "the kernel refused memory for the proof of the load";
        EndowmentRefused = 67, "the kernel refused a capability that the module is to be endowed with";
        CreateRefused = 68, "the kernel refused to make the process";
        StartRefused = 69, "the kernel refused to watch or start the process";
        InitFailed = 70, "the module reported that its initialisation failed (word 0 is its code)";
        InitDied = 71, "the module ended before it was ready (word 0 is the cause, word 1 the code)";
        InitDeadline = 72, "the module was not ready within its deadline";
        Stopped = 73, "the module was stopped while it was being loaded";
        KernelLost = 74, "the courier to the kernel does not answer";
        ReplyRefused = 75, "the kernel refused the capability for the reply";
        StopRefused = 76, "the kernel refused to end the process";
        DepotLost = 77, "the depot does not answer";
        DepotRefused = 78, "the depot's package cannot be read as one that nobody changes any more";
        ContractViolated = 79, "a predicate of a contract does not hold";
    }
}

impl LoadError {
    /// Whether word 0 is a kernel [`Error`]'s number and word 1 the detail that the kernel gave with it.
    pub const fn carries_kernel_error(self) -> bool {
        use LoadError::*;
        matches!(
            self,
            OutputRefused
                | CopyRefused
                | SealRefused
                | ProofRefused
                | EndowmentRefused
                | CreateRefused
                | StartRefused
                | ReplyRefused
                | StopRefused
                | DepotLost
                | DepotRefused
                | KeyRingUnreadable
                | DecompressionLost
        )
    }
}

/// An error with its details, as a refusal carries them: label the error's number, words 0 and 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What failed.
    pub error: LoadError,
    /// Word 0; its meaning stands with the error. 0 if it has none.
    pub detail: u64,
    /// Word 1.
    pub more: u64,
}

impl Failure {
    /// A failure without details.
    pub const fn new(error: LoadError) -> Self {
        Self { error, detail: 0, more: 0 }
    }

    /// A failure with the error that the kernel gave, and its detail.
    pub const fn kernel(error: LoadError, cause: Error, detail: u64) -> Self {
        Self { error, detail: cause as u64, more: detail }
    }

    /// A failure with a detail.
    pub const fn with(error: LoadError, detail: u64, more: u64) -> Self {
        Self { error, detail, more }
    }

    /// The failure from a refusal's label and words; `None` if the label names no error.
    pub fn from_reply(label: u32, words: &[u64]) -> Option<Self> {
        let error = u16::try_from(label).ok().and_then(LoadError::from_number)?;
        let word = |i: usize| words.get(i).copied().unwrap_or(0);
        Some(Self { error, detail: word(0), more: word(1) })
    }

    /// The kernel's error inside.
    pub fn kernel_error(&self) -> Option<Error> {
        let number = u16::try_from(self.detail).ok()?;
        if self.error.carries_kernel_error() { Error::from_number(number) } else { None }
    }

    /// DeepCompression's error inside.
    pub fn decompression_error(&self) -> Option<DecompressionError> {
        let number = u16::try_from(self.detail).ok()?;
        if self.error == LoadError::DecompressionRefused {
            DecompressionError::from_number(number)
        } else {
            None
        }
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        Self::new(error)
    }
}

/// The sentence, then the cause inside it if there is one; a number only where no sentence is known.
impl core::fmt::Display for Failure {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(plain(self.error.sentence()))?;
        let Self { detail, more, .. } = *self;
        if let Some(cause) = self.kernel_error() {
            write!(f, ": {}", plain(cause.sentence()))?;
            return match cause.sentence() {
                _ if cause == Error::ContractViolated => write_predicate(f, facts::violated(more), more),
                _ if cause == Error::RequestCeiling => write!(f, " (the request for slot {more})"),
                _ if cause == Error::RateLimited => write!(f, " (in {} ms)", more.div_ceil(1_000_000)),
                text if text.contains("names the request") => {
                    write!(f, " (request {})", more.saturating_add(1))
                }
                text if more != 0 || text.contains("names the rule") => write_rule(f, more),
                _ => Ok(()),
            };
        }
        if let Some(cause) = self.decompression_error() {
            return write!(f, ": {}", plain(cause.sentence()));
        }
        match self.error {
            LoadError::PackageMalformed | LoadError::ManifestMalformed | LoadError::PackageRejected => {
                write_rule(f, detail)
            }
            LoadError::DependencyMissing | LoadError::DependencyVersion => {
                write!(f, ": dependency {} of its manifest", detail.saturating_add(1))
            }
            LoadError::ContractViolated => write_predicate(f, facts::load_violated(detail), detail),
            LoadError::InitFailed => write_report(f, detail),
            LoadError::InitDied => match detail {
                1 => write!(f, ": it exited with code {more}"),
                2 => f.write_str(": it was terminated"),
                3 => write!(f, ": it had a fault (vector {more})"),
                _ => write!(f, ": cause {detail}, code {more}"),
            },
            _ => Ok(()),
        }
    }
}

/// A sentence without its remark on message words, which is for programs.
fn plain(sentence: &str) -> &str {
    sentence.split(" (word ").next().unwrap_or(sentence)
}

/// The predicate that does not hold: one of the system's contracts by name, one of the module's own by its place.
fn write_predicate(f: &mut core::fmt::Formatter<'_>, name: Option<&str>, number: u64) -> core::fmt::Result {
    match (name, number.checked_sub(facts::MODULE_PREDICATE)) {
        (Some(name), _) => write!(f, ": {name}"),
        (None, Some(place)) => write!(f, ": number {} of the module's own", place.saturating_add(1)),
        (None, None) => write!(f, ": number {number}"),
    }
}

/// What rule of the chain of trust has this number.
fn write_rule(f: &mut core::fmt::Formatter<'_>, number: u64) -> core::fmt::Result {
    let index = |base: u64| number.checked_sub(base).and_then(|index| usize::try_from(index).ok());
    let package = |base| index(base).and_then(|index| PackageError::ALL.get(index));
    let sentence = match number {
        8 => "the binary's signature is invalid",
        13 => "this version of the module is revoked",
        14 => "the security version lies below the floor",
        15 => "the manifest's resources exceed the publisher's ceiling",
        16 => "the publisher may not sign agents",
        32 => "no memory for the decoded key",
        255 => "a request exceeds the publisher's ceiling",
        _ => {
            if let Some(rule) = package(0x101).or_else(|| package(0x501)) {
                return write!(f, ": {rule}");
            }
            if let Some(rule) = index(0x301).and_then(|index| SifError::ALL.get(index)) {
                return write!(f, ": {rule}");
            }
            if let Some(rule) = index(0x280).and_then(|index| ContractError::ALL.get(index)) {
                return write!(f, ": {rule}");
            }
            let manifest = |rule: &&ManifestError| 0x200 + u64::from(rule.number()) == number;
            return match ManifestError::ALL.iter().find(manifest) {
                Some(rule) => write!(f, ": {rule}"),
                None => write!(f, ": number {number}"),
            };
        }
    };
    write!(f, ": {sentence}")
}

/// What a module means by the code that it reports: a kernel error below 1000, a registration's above.
fn write_report(f: &mut core::fmt::Formatter<'_>, code: u64) -> core::fmt::Result {
    let number = |base: u64| code.checked_sub(base).and_then(|number| u16::try_from(number).ok());
    if let Some(error) = number(0).and_then(Error::from_number) {
        return write!(f, ": {}", plain(error.sentence()));
    }
    if let Some(error) = number(1001).and_then(RegistryError::from_number) {
        return write!(f, ": {}", plain(error.sentence()));
    }
    match code {
        1000 => f.write_str(": the manifest declares no service"),
        1001 => f.write_str(": ServiceRegistry gave an unknown answer"),
        _ => write!(f, ": code {code}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    #[test]
    fn load_requests_round_trip() {
        let mut load = Load::newest(name("counter"));
        assert_eq!(Load::from_words(&load.to_words()), Some(load));
        load.version = Some(Version::new(1, 2, 3));
        load.digest = Some([9; 32]);
        load.grants = [Some(name("test")), Some(name("disk")), None];
        assert_eq!(Load::from_words(&load.to_words()), Some(load));
        load.grants = [Some(name("test")), Some(name("test")), None];
        assert_eq!(Load::from_words(&load.to_words()), None);
    }

    #[test]
    fn malformed_load_requests_are_refused() {
        let good = Load::newest(name("counter")).to_words();
        for (word, value) in [(0, 4), (0, 4 << 8), (0, 1 << 60), (2, 0), (2, u64::MAX)] {
            let mut words = good;
            words[word] = value;
            assert_eq!(Load::from_words(&words), None, "word {word} = {value:#x}");
        }
        assert_eq!(Load::from_words(&good[..9]), None);
        assert_eq!(Load::from_words(&[]), None);
    }

    #[test]
    fn replies_and_records_round_trip() {
        let loaded = Loaded {
            process: 7,
            version: Version::new(1, 0, 0),
            instance: 1 << 32,
            publisher: name("sila.demo"),
            digest: [3; 32],
        };
        assert_eq!(Loaded::from_words(&loaded.to_words()), Some(loaded));
        let record = ModuleRecord {
            cursor: 2,
            process: 7,
            state: ModuleState::Ended,
            version: Version::new(1, 0, 0),
            requester: 1,
            cause: 3,
            code: 14,
            name: name("counter"),
            publisher: None,
        };
        assert_eq!(ModuleRecord::from_words(&record.to_words()), Some(record));
        let named = ModuleRecord { publisher: Some(name("sila.demo")), ..record };
        assert_eq!(ModuleRecord::from_words(&named.to_words()), Some(named));
    }

    #[test]
    fn load_error_numbers_round_trip() {
        for &e in LoadError::ALL {
            assert_eq!(LoadError::from_number(e.number()), Some(e));
            assert_ne!(e.number(), 0);
        }
    }

    #[test]
    fn a_failure_names_the_cause_inside() {
        let failure = Failure::kernel(LoadError::CreateRefused, Error::BinarySignature, 0);
        assert_eq!(
            failure.to_string(),
            "the kernel refused to make the process: the binary's signature is invalid"
        );
        assert_eq!(Failure::from_reply(68, &[44]), Some(failure));
        assert_eq!(Failure::from_reply(9999, &[]), None);
        let corrupt = Failure::with(LoadError::DecompressionRefused, 14, 0);
        assert_eq!(corrupt.decompression_error(), Some(DecompressionError::Corrupt));
        assert_eq!(corrupt.kernel_error(), None);
    }

    #[test]
    fn codes_show_as_sentences() {
        let ends = |error, detail, more, end: &str| {
            let shown = Failure::with(error, detail, more).to_string();
            assert!(shown.ends_with(end), "{shown}");
            assert!(!shown.contains("(word"), "{shown}");
        };
        ends(
            LoadError::InitFailed,
            1008,
            0,
            "initialisation failed: another process has registered a service of this name",
        );
        ends(LoadError::InitFailed, 9, 0, ": the Pool has too few frames left");
        ends(LoadError::InitFailed, 5555, 0, ": code 5555");
        ends(LoadError::InitDied, 3, 14, ": it had a fault (vector 14)");
        ends(LoadError::DependencyMissing, 0, 0, ": dependency 1 of its manifest");
        ends(LoadError::PackageRejected, 13, 0, ": this version of the module is revoked");
        ends(LoadError::CreateRefused, 54, 9, "has no source (request 10)");
        ends(LoadError::CreateRefused, 57, 9, "(the request for slot 9)");
        ends(LoadError::CreateRefused, 99, 1_500_000, "yet (in 2 ms)");
        ends(LoadError::CreateRefused, 100, 6, "does not hold: mappings-are-the-image");
        ends(LoadError::CreateRefused, 100, 0x101, "does not hold: number 2 of the module's own");
        ends(LoadError::ContractViolated, 3, 0, "does not hold: endowed-by-manifest");
        for (i, rule) in PackageError::ALL.iter().enumerate() {
            assert_eq!(*rule as usize, i);
            ends(LoadError::PackageMalformed, 0x101 + i as u64, 0, &rule.to_string());
        }
        for (i, rule) in SifError::ALL.iter().enumerate() {
            assert_eq!(*rule as usize, i);
            ends(LoadError::CreateRefused, 39, 0x301 + i as u64, &rule.to_string());
        }
        for rule in ManifestError::ALL {
            ends(LoadError::ManifestMalformed, 0x200 + u64::from(rule.number()), 0, &rule.to_string());
        }
        for &rule in ContractError::ALL {
            let number = ManifestError::Contract(rule).number();
            ends(LoadError::ManifestMalformed, 0x200 + u64::from(number), 0, &rule.to_string());
        }
    }
}
