//! The module cache: what comes in, who finds it, what makes room, and what a revocation leaves of it.

use std::vec;

use sila_abi::boot::Floor;
use sila_abi::contract::{Contract, Node, Operation, Predicate, When};
use sila_abi::facts::MODULE_PREDICATE;
use sila_abi::manifest::Manifest;
use sila_abi::policy::Policy;
use sila_abi::record::VersionRange;
use sila_abi::status::{CacheRecord, CachedRecord};
use sila_abi::trust::{Certificate, FloorRecord, RecordKind, Revocation, RevokedItem};
use sila_crypto::hash::module_id;
use zerocopy::{FromZeros, IntoBytes};

use super::failing::scenes::{JOB, KEYS};
use super::signed::{OWNER, REQUEST_ENDPOINT, bounded, certificate, module, name, policy, signer};
use super::trust::{GRANT, IMAGE, MADE, POLICY, PROOF, Trust, revoke_key, signed};
use super::*;
use crate::cache::CachedImage;
use crate::cap::ObjRef;
use crate::kernel::PERMANENT;
use crate::machine::Machine;

const CACHE: Slot = Slot(40);
pub const CACHED: Slot = Slot(41);
const OTHER: Slot = Slot(42);
/// Frames that the image of a test takes.
const FRAMES: u64 = 4;

type Signed = (Vec<u8>, Vec<u8>);

/// A loader with a cache of so many frames and entries.
fn with_cache(frames: u64, entries: u32) -> Trust {
    let mut t = Trust::new();
    t.w.k.make_cache(frames, entries).unwrap();
    let object = ObjRef { kind: ObjectType::ModuleCache, index: 0, generation: PERMANENT };
    t.w.give(t.a, CACHE, object, Rights::USE);
    t
}

/// A loader with an image in the cache.
pub fn with_image() -> Trust {
    let mut t = with_cache(100, 4);
    t.fill(0..1);
    t.find(0).unwrap();
    t
}

/// The signed module in this patch version.
fn patch(patch: u16) -> Signed {
    module(&signer(OWNER), |m| m.version.patch = patch)
}

fn id_words(patch: u16, dst: Slot) -> [u64; 5] {
    let version = Version { major: 1, minor: 0, patch };
    let id = module_id(&name("test"), &name("probe"), version);
    let word = |at: usize| u64::from_le_bytes(id[at * 8..at * 8 + 8].try_into().unwrap());
    [word(0), word(1), word(2), word(3), dst.0.into()]
}

impl Trust {
    fn begin_insert(&mut self, (image, proof): &Signed, dst: Slot) {
        self.region(IMAGE, image);
        self.region(PROOF, proof);
        self.begin(CACHE, Op::ModuleCacheInsert, &[IMAGE.0.into(), PROOF.0.into(), dst.0.into()], 6);
    }

    /// Puts a module into the cache; the capability goes to `dst`.
    fn insert(&mut self, module: &Signed, dst: Slot) -> Result<(), (Error, Vec<u64>)> {
        self.begin_insert(module, dst);
        let done = self.finish();
        // The image's capability went into the cache, or is still there.
        let _ = self.w.invoke(self.a, IMAGE, Op::CapDelete, &[]);
        self.drop(PROOF);
        self.w.settle();
        done.map(|_| ())
    }

    /// Puts a module into the cache and lets go of the capability.
    fn fill(&mut self, patches: core::ops::Range<u16>) {
        for at in patches {
            self.insert(&patch(at), CACHED).unwrap();
            self.drop(CACHED);
        }
    }

    fn find(&mut self, patch: u16) -> Result<(), Error> {
        self.w.invoke(self.a, CACHE, Op::ModuleCacheFind, &id_words(patch, CACHED)).map(|_| ())
    }

    /// Which of the first patch versions are in the cache, by looking without using any.
    fn cached(&mut self) -> Vec<u16> {
        let mut found: Vec<_> = self.records().iter().map(|r| r.version as u16).collect();
        found.sort_unstable();
        found
    }

    fn begin_cached(&mut self, from: Slot) {
        let page = self.w.k.threads.get(self.a.thread).unwrap().message.unwrap().0;
        self.w.m.frame(page)[6] = REQUEST_ENDPOINT << 16 | u64::from(GRANT.0);
        let args = [from.0.into(), POOL.0.into(), 30, 1, MADE.0.into()];
        self.begin(JOB, Op::ProcessCreateCached, &args, 7);
    }

    /// Makes a process from the cache.
    fn create_cached(&mut self, from: Slot) -> Result<(), (Error, Vec<u64>)> {
        self.begin_cached(from);
        self.finish().map(|_| ())
    }

    fn long<T: FromZeros + IntoBytes + zerocopy::FromBytes>(
        &mut self,
        slot: Slot,
        op: Op,
        args: &[u64],
    ) -> Result<T, Error> {
        let first = self.w.invoke(self.a, slot, op, args)?;
        let page = self.w.k.threads.get(self.a.thread).unwrap().message.unwrap().0;
        let mut words = first.to_vec();
        words.extend(&self.w.m.frame(page)[6..120]);
        Ok(T::read_from_prefix(words.as_bytes()).unwrap().0)
    }

    fn cache_state(&mut self) -> CacheRecord {
        self.long(CACHE, Op::ModuleCacheStatus, &[]).unwrap()
    }

    fn records(&mut self) -> Vec<CachedRecord> {
        let mut records = Vec::new();
        let mut cursor = 0;
        while let Ok(record) = self.long::<CachedRecord>(CACHE, Op::ModuleCacheNext, &[cursor]) {
            cursor = record.cursor;
            records.push(record);
        }
        records
    }

    fn cache_pool(&self) -> (u64, u64) {
        let pool = self.w.k.pools.get(self.w.k.cache.pool.unwrap()).unwrap();
        (pool.frames.used, pool.bytes.used)
    }
}

#[test]
fn a_process_is_made_from_the_cache_as_from_its_parts() {
    let mut t = with_cache(100, 4);
    t.create_cached(CACHED).unwrap_err();
    let before = t.w.invoke(t.a, POOL, Op::PoolStatus, &[]).unwrap();
    t.insert(&patch(1), CACHED).unwrap();
    // What vouched for it is gone, and who brought it pays for nothing but a slot.
    assert_eq!(t.w.invoke(t.a, POOL, Op::PoolStatus, &[]).unwrap()[..2], before[..2]);
    assert_eq!(t.cache_pool(), (FRAMES, cost::<CachedImage>() + cost::<Region>()));
    let verified = t.w.k.counters.verifications;
    t.create_cached(CACHED).unwrap();
    assert_eq!(t.w.k.counters.verifications, verified, "nothing is verified again");
    let made = |t: &Trust| {
        let process = t.w.k.find(t.a.process, MADE).unwrap().cap;
        t.w.k.processes.get(crate::kernel::id_of(&process)).unwrap().identity
    };
    let from_cache = made(&t);
    let one: CachedRecord = t.long(CACHED, Op::CachedImageStatus, &[]).unwrap();
    assert_eq!((one.frames, one.capabilities, one.users, one.made), (FRAMES, 1, 1, 1));
    assert_eq!((one.manifest_digest, one.key_id), (from_cache.manifest_digest, from_cache.key_id));
    assert_eq!(&one.name[..one.name_len as usize], b"probe");
    assert_eq!(&one.publisher[..one.publisher_len as usize], b"test");
    t.end();
    t.load_and_keep(&patch(1));
    assert_eq!(std::format!("{:?}", made(&t)), std::format!("{from_cache:?}"));
    t.end();
    t.w.invoke(t.a, CACHED, Op::CachedImageEvict, &[]).unwrap();
    t.drop(CACHED);
    t.w.settle();
    assert_eq!(t.cache_pool(), (0, 0));
}

#[test]
fn an_image_is_found_by_its_module_s_id_alone() {
    let mut t = with_cache(100, 4);
    assert_eq!(t.find(1), Err(Error::NotCached));
    t.fill(1..3);
    assert_eq!(t.find(3), Err(Error::NotCached));
    t.find(2).unwrap();
    t.create_cached(CACHED).unwrap();
    t.end();
    t.drop(CACHED);
    let state = t.cache_state();
    assert_eq!((state.entries, state.hits, state.misses, state.inserted), (2, 1, 2, 2));
    assert_eq!((state.frames, state.max_frames, state.max_entries), (2 * FRAMES, 100, 4));
}

#[test]
fn the_same_module_comes_in_once_and_never_with_other_content() {
    let mut t = with_cache(100, 4);
    t.insert(&patch(1), CACHED).unwrap();
    t.insert(&patch(1), OTHER).unwrap();
    assert_eq!(t.cached(), [1]);
    let [a, b] = [CACHED, OTHER].map(|slot| t.w.k.find(t.a.process, slot).unwrap().cap.object);
    assert_eq!(a, b);
    let other = module(&signer(OWNER), |m| (m.version.patch, m.stack_pages) = (1, 3));
    assert_eq!(t.insert(&other, Slot(43)).unwrap_err().0, Error::VersionReuse);
    // Nor does what was cached keep the same version from being loaded in the ordinary way.
    t.load(&patch(1)).unwrap();
    assert_eq!(t.load(&other).unwrap_err().0, Error::VersionReuse);
}

#[test]
fn nothing_unverified_comes_in() {
    let mut t = with_cache(100, 4);
    let good = patch(1);
    let mut other_code = good.clone();
    other_code.0[5000] ^= 1;
    let mut other_proof = good.clone();
    *other_proof.1.last_mut().unwrap() ^= 1;
    let cases: [(Signed, Error); 4] = [
        (other_code, Error::ImageDigest),
        (other_proof, Error::BinarySignature),
        ((good.0.clone(), patch(2).1[..100].to_vec()), Error::BadProof),
        (module(&signer(9), |_| {}), Error::UnknownKey),
    ];
    for (case, want) in &cases {
        let before = t.w.baseline();
        assert_eq!(t.insert(case, CACHED).unwrap_err().0, *want);
        assert_eq!((t.w.baseline(), t.cached()), (before, vec![]));
    }
    // An image that somebody could still write.
    t.region(PROOF, &good.1);
    t.w.invoke(t.a, POOL, Op::RegionCreate, &[4, IMAGE.0.into()]).unwrap();
    let args = [IMAGE.0.into(), PROOF.0.into(), CACHED.0.into()];
    assert_eq!(t.w.invoke(t.a, CACHE, Op::ModuleCacheInsert, &args), Err(Error::NotSealed));
}

/// Records after which the module can no longer be loaded, and what a load then ends with.
fn ends() -> Vec<(Slot, Vec<u8>, Error)> {
    let owner = signer(OWNER);
    let version = |patch| Version { major: 1, minor: 0, patch };
    let versions = VersionRange { min: version(1), max: version(1) };
    let item = RevokedItem::Module { publisher: name("test"), name: name("probe"), versions };
    let floor = Floor { publisher: name("test"), name: name("probe"), security_version: 9 };
    let floors = FloorRecord { sequence: 1, floors: bounded(vec![floor]) };
    let later = VersionRange { min: version(2), max: version(9) };
    let narrower = Certificate { versions: later, ..certificate("test", &owner, 2, &[]) };
    let smaller = Policy { max_image_len: 4096, ..policy(2, &owner) };
    let stronger = Policy { min_key_bits: 60_000, ..policy(2, &owner) };
    vec![
        (KEYS, revoke_key(1, &owner), Error::KeyRevoked),
        (KEYS, signed(RecordKind::Revocation, &Revocation { sequence: 1, item }), Error::VersionRevoked),
        (KEYS, signed(RecordKind::Floors, &floors), Error::BelowFloor),
        (KEYS, signed(RecordKind::Certificate, &narrower), Error::Namespace),
        (
            KEYS,
            signed(RecordKind::Certificate, &certificate("other", &signer(8), 1, &["probe"])),
            Error::Namespace,
        ),
        (POLICY, signed(RecordKind::Policy, &smaller), Error::ImageSize),
        (POLICY, signed(RecordKind::Policy, &stronger), Error::WeakAlgorithm),
    ]
}

fn installs(slot: Slot) -> Op {
    if slot == KEYS { Op::KeyRingInstall } else { Op::PolicyInstall }
}

#[test]
fn what_can_no_longer_be_loaded_leaves_the_cache_and_its_handles_are_dead() {
    for (slot, record, want) in ends() {
        let mut t = with_cache(100, 4);
        t.insert(&patch(1), CACHED).unwrap();
        t.create_cached(CACHED).unwrap();
        t.install_by(slot, installs(slot), &record).unwrap();
        t.w.settle();
        assert_eq!((t.cached(), t.cache_state().killed), (vec![], 1), "{want:?}");
        let mut refused = |op, args: &[u64]| t.w.invoke(t.a, CACHED, op, args).unwrap_err();
        assert_eq!(refused(Op::CachedImageStatus, &[]), Error::ObjectGone);
        assert_eq!(refused(Op::CapCopy, &[44, Rights::READ.bits().into()]), Error::ObjectGone);
        let found = t.w.invoke(t.a, CACHE, Op::ModuleCacheFind, &id_words(1, OTHER));
        assert_eq!(found, Err(Error::NotCached));
        // What runs from it goes on; the frames come back with it.
        assert_eq!(t.cache_pool().0, FRAMES);
        t.end();
        assert_eq!(t.create_cached(CACHED).unwrap_err().0, Error::ObjectGone);
        assert_eq!(t.cache_pool(), (0, 0));
        assert_eq!(t.load(&patch(1)).unwrap_err().0, want);
        assert_eq!(t.insert(&patch(1), OTHER).unwrap_err().0, want);
    }
}

/// The reaper has not asked an entry yet: who finds it, or uses a handle, does.
#[test]
fn an_entry_is_asked_at_each_use_whether_or_not_the_reaper_was_there() {
    for (slot, record, want) in ends() {
        let mut t = with_cache(100, 4);
        let mut other = Trust::new();
        other.install_by(slot, installs(slot), &record).unwrap();
        t.insert(&patch(1), CACHED).unwrap();
        core::mem::swap(&mut t.w.k.keyring, &mut other.w.k.keyring);
        let before = t.w.baseline();
        assert_eq!(t.create_cached(CACHED).unwrap_err().0, want);
        t.w.settle();
        assert_eq!((t.w.baseline(), t.cached()), (before, vec![1]));
        let found = t.w.invoke(t.a, CACHE, Op::ModuleCacheFind, &id_words(1, OTHER));
        assert_eq!(found, Err(Error::NotCached), "{want:?}");
        assert_eq!(t.cached(), vec![]);
    }
}

#[test]
fn a_revocation_leaves_what_it_does_not_name() {
    let mut t = with_cache(100, 4);
    t.fill(1..4);
    let versions = VersionRange {
        min: Version { major: 1, minor: 0, patch: 2 },
        max: Version { major: 1, minor: 0, patch: 2 },
    };
    let item = RevokedItem::Module { publisher: name("test"), name: name("probe"), versions };
    t.install(&signed(RecordKind::Revocation, &Revocation { sequence: 1, item })).unwrap();
    t.w.settle();
    assert_eq!(t.cached(), [1, 3]);
    t.find(3).unwrap();
    t.create_cached(CACHED).unwrap();
}

#[test]
fn a_finalised_update_takes_what_it_left_behind_out_of_the_cache() {
    let mut t = with_cache(100, 4);
    t.fill(1..2);
    let newer = module(&signer(OWNER), |m| (m.version.patch, m.security_version) = (2, 7));
    t.insert(&newer, CACHED).unwrap();
    t.create_cached(CACHED).unwrap();
    let process = t.w.k.find(t.a.process, MADE).unwrap().cap;
    let runs = t.w.k.processes.get(crate::kernel::id_of(&process)).unwrap().identity;
    t.w.k.raise_floor(&runs);
    t.w.settle();
    assert_eq!(t.cached(), [2]);
}

#[test]
fn what_was_used_longest_ago_makes_room() {
    let mut t = with_cache(100, 3);
    t.fill(1..4);
    t.find(1).unwrap();
    t.drop(CACHED);
    t.fill(4..5);
    assert_eq!(t.cached(), [1, 3, 4], "by entries");
    assert_eq!(t.cache_state().evicted, 1);
    let mut t = with_cache(3 * FRAMES + 1, 4);
    t.fill(1..5);
    assert_eq!(t.cached(), [2, 3, 4], "by frames");
    assert_eq!((t.cache_pool().0, t.cache_state().frames), (3 * FRAMES, 3 * FRAMES));
}

#[test]
fn what_is_held_or_runs_is_not_evicted() {
    let mut t = with_cache(100, 2);
    t.fill(1..2);
    t.insert(&patch(2), OTHER).unwrap();
    t.fill(3..4);
    assert_eq!(t.cached(), [2, 3], "2 is older than nothing but held");
    t.find(3).unwrap();
    t.create_cached(CACHED).unwrap();
    t.drop(CACHED);
    let before = t.w.baseline();
    assert_eq!(t.insert(&patch(4), Slot(43)).unwrap_err().0, Error::CacheFull);
    assert_eq!((t.w.baseline(), t.cached()), (before, vec![2, 3]));
    t.drop(OTHER);
    t.fill(4..5);
    assert_eq!(t.cached(), [3, 4], "3 runs");
    t.end();
    t.fill(5..6);
    assert_eq!(t.cached(), [4, 5]);
}

#[test]
fn policy_and_boot_manifest_bound_the_cache() {
    let mut t = with_cache(FRAMES - 1, 2);
    assert_eq!(t.insert(&patch(1), CACHED).unwrap_err().0, Error::CacheFull, "larger than the cache");
    let mut t = with_cache(100, 4);
    t.fill(1..4);
    let smaller = Policy { cache_entries: 1, cache_frames: 50, ..policy(2, &signer(OWNER)) };
    t.install_by(POLICY, Op::PolicyInstall, &signed(RecordKind::Policy, &smaller)).unwrap();
    t.w.settle();
    assert_eq!((t.cache_state().max_entries, t.cache_state().max_frames), (1, 50));
    assert_eq!(t.cached(), [3], "a smaller cache is so at once");
    t.fill(5..6);
    assert_eq!(t.cached(), [5]);
    let none = Policy { cache_frames: 0, ..policy(3, &signer(OWNER)) };
    t.install_by(POLICY, Op::PolicyInstall, &signed(RecordKind::Policy, &none)).unwrap();
    assert_eq!(t.insert(&patch(6), CACHED).unwrap_err().0, Error::CacheFull);
    let mut t = Trust::new();
    assert_eq!(t.w.k.make_cache(10, CachedImage::SLOTS + 1), Err(Error::InvalidArgument));
    t.w.k.make_cache(10, 1).unwrap();
    assert_eq!(t.w.k.make_cache(10, 1), Err(Error::InvalidArgument), "there is one");
}

/// Gets a hold on the image that is to come in.
type Hold = fn(&mut Trust);

/// What somebody else has a hold on could not be given back when it is evicted.
#[test]
fn an_image_that_anybody_else_names_maps_or_runs_from_does_not_come_in() {
    let good = patch(1);
    let holds: [(&str, Hold); 3] = [
        ("names", |t| {
            t.w.invoke(t.a, IMAGE, Op::CapCopy, &[44, Rights::READ.bits().into()]).unwrap();
        }),
        ("maps", |t| {
            let words = [PROCESS.0.into(), 0x90_0000, 0, 1, 0, 44];
            t.w.invoke(t.a, IMAGE, Op::RegionMap, &words).unwrap();
        }),
        ("runs from", |t| {
            let page = t.w.k.threads.get(t.a.thread).unwrap().message.unwrap().0;
            t.w.m.frame(page)[6] = REQUEST_ENDPOINT << 16 | u64::from(GRANT.0);
            let args = [IMAGE.0.into(), PROOF.0.into(), POOL.0.into(), 30, 1, MADE.0.into()];
            t.verified(JOB, Op::ProcessCreate, &args, 7).unwrap();
        }),
    ];
    let insert = |t: &mut Trust| {
        let args = [IMAGE.0.into(), PROOF.0.into(), CACHED.0.into()];
        t.verified(CACHE, Op::ModuleCacheInsert, &args, 6).map_err(|(e, _)| e)
    };
    for (what, hold) in holds {
        let mut t = with_cache(100, 4);
        t.region(IMAGE, &good.0);
        t.region(PROOF, &good.1);
        hold(&mut t);
        assert_eq!(insert(&mut t), Err(Error::NotExclusive), "{what}");
        assert_eq!(t.cached(), vec![]);
    }
    // Nor if it happens while the image is verified.
    let mut t = with_cache(100, 4);
    t.begin_insert(&good, CACHED);
    t.w.k.schedule(&mut t.w.m);
    t.w.m.run_verification();
    let found = t.w.k.find(t.a.process, IMAGE).unwrap();
    let at = t.w.k.free_slot(t.a.process, Slot(44)).unwrap();
    assert!(t.w.k.derive(found.id, at, Cap { rights: Rights::READ, ..found.cap }));
    t.w.k.enter(&mut t.w.m, Entry::VerificationDone);
    assert_eq!(t.w.outcome(t.a).status(), Err(Error::NotExclusive));
    t.drop(Slot(44));
    insert(&mut t).unwrap();
    assert!(t.w.k.find(t.a.process, IMAGE).is_err(), "the cache has the only way to it");
}

/// The frames of what is evicted come back, and a refused insertion takes nothing out.
#[test]
fn an_insertion_that_is_refused_evicts_nothing() {
    let mut t = with_cache(2 * FRAMES - 1, 4);
    t.fill(1..2);
    let mut t2 = with_cache(100, 2);
    t2.fill(1..2);
    t2.insert(&patch(2), OTHER).unwrap();
    let smaller = Policy { cache_frames: FRAMES, ..policy(2, &signer(OWNER)) };
    t2.install_by(POLICY, Op::PolicyInstall, &signed(RecordKind::Policy, &smaller)).unwrap();
    t2.w.settle();
    assert_eq!(t2.cached(), [2], "what is idle goes when the cache gets smaller, what is held stays");
    let verified = t2.w.k.counters.verifications;
    assert_eq!(t2.insert(&patch(3), CACHED).unwrap_err().0, Error::CacheFull);
    assert_eq!(t2.w.k.counters.verifications, verified, "nothing is verified for a cache without room");
    assert_eq!(t2.cached(), [2]);
    assert_eq!(t.cached(), [1]);
    t.fill(2..3);
    assert_eq!((t.cached(), t.cache_pool().0), (vec![2], FRAMES));
}

#[test]
fn insertions_come_no_faster_than_policy_says() {
    let mut t = with_cache(100, 4);
    let slow = Policy { creation_burst: 2, creation_per_second: 1, ..policy(2, &signer(OWNER)) };
    t.install_by(POLICY, Op::PolicyInstall, &signed(RecordKind::Policy, &slow)).unwrap();
    let mut refused = patch(1);
    *refused.1.last_mut().unwrap() ^= 1;
    for _ in 0..2 {
        // What is refused costs as much as what comes in.
        assert_eq!(t.insert(&refused, CACHED).unwrap_err().0, Error::BinarySignature);
    }
    let verified = t.w.k.counters.verifications;
    assert_eq!(t.insert(&patch(1), CACHED).unwrap_err().0, Error::RateLimited);
    assert_eq!(t.w.k.counters.verifications, verified);
    t.w.m.time += 1_000_000_000;
    t.insert(&patch(1), CACHED).unwrap();
}

/// A cached image is on its way into a process when it goes: at every point the creation comes to nothing, whole.
#[test]
fn an_image_that_goes_while_a_process_is_made_from_it_makes_none() {
    for moment in 0..2 {
        let mut t = with_cache(100, 4);
        let before = t.w.baseline();
        t.insert(&patch(1), CACHED).unwrap();
        let id = crate::kernel::id_of(&t.w.k.find(t.a.process, CACHED).unwrap().cap);
        t.begin_cached(CACHED);
        if moment == 0 {
            t.w.k.evict_for_test(id);
        }
        t.w.k.schedule(&mut t.w.m);
        t.w.m.run_verification();
        if moment == 1 {
            t.w.k.evict_for_test(id);
        }
        t.w.k.enter(&mut t.w.m, Entry::VerificationDone);
        assert_eq!(t.w.outcome(t.a).status(), Err(Error::SourceGone), "moment {moment}");
        t.w.settle();
        assert_eq!(t.cache_pool(), (0, 0));
        t.drop(CACHED);
        assert_eq!(t.w.baseline(), before);
    }
}

/// As a load's, the last step of an insertion asks for everything anew.
#[test]
fn what_changes_while_an_image_is_verified_keeps_it_out() {
    for (slot, record, want) in ends() {
        let mut t = with_cache(100, 4);
        let mut other = Trust::new();
        other.install_by(slot, installs(slot), &record).unwrap();
        let before = t.w.baseline();
        t.begin_insert(&patch(1), CACHED);
        t.w.k.schedule(&mut t.w.m);
        t.w.m.run_verification();
        core::mem::swap(&mut t.w.k.keyring, &mut other.w.k.keyring);
        t.w.k.enter(&mut t.w.m, Entry::VerificationDone);
        assert_eq!(t.w.outcome(t.a).status(), Err(want));
        t.forget_parts();
        assert_eq!((t.w.baseline(), t.cached()), (before, vec![]));
    }
    let mut t = with_cache(100, 4);
    t.begin_insert(&patch(1), CACHED);
    t.w.k.schedule(&mut t.w.m);
    t.w.m.run_verification();
    let at = t.w.k.find(t.a.process, PROOF).unwrap().id;
    t.w.k.delete(&mut t.w.m, at);
    t.w.k.enter(&mut t.w.m, Entry::VerificationDone);
    assert_eq!(t.w.outcome(t.a).status(), Err(Error::SourceGone));
    assert_eq!(t.cached(), vec![]);
}

#[test]
fn a_module_s_own_predicates_for_the_cache_hold_or_keep_it_out() {
    let mut t = with_cache(100, 4);
    let with = |patch: u16, fact: &'static str, when, number| {
        move |m: &mut Manifest| {
            let nodes = bounded(vec![Node::Fact(name(fact)), Node::Const(number), Node::Eq(0, 1)]);
            let predicate = Predicate { name: name("own"), operation: Operation::Cache, when, root: 2 };
            m.contract = Contract { nodes, predicates: bounded(vec![predicate]), ..Contract::default() };
            m.version.patch = patch;
        }
    };
    for (patch, fact, when, number, holds) in [
        (1, "image-pages", When::Before, 4, true),
        (2, "image-pages", When::Before, 5, false),
        (3, "image-sealed", When::After, 1, true),
        (4, "image-sealed", When::After, 0, false),
        (5, "image-verified-by-nobody", When::Before, 0, false),
    ] {
        let made = module(&signer(OWNER), with(patch, fact, when, number));
        let want = if holds { Ok(()) } else { Err((Error::ContractViolated, vec![MODULE_PREDICATE])) };
        assert_eq!(t.insert(&made, CACHED), want, "{fact}");
        if holds {
            t.create_cached(CACHED).unwrap();
            t.end();
            t.drop(CACHED);
        }
    }
    assert_eq!(t.cached(), [1, 3]);
}
