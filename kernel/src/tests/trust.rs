//! Keys, revocations, floors, policy: what records that the root signed change while the system runs.

use std::vec;

use sila_abi::boot::Floor;
use sila_abi::policy::PolicyRule;
use sila_abi::record::VersionRange;
use sila_abi::trust::{FloorRecord, RecordKind, Revocation, RevokedItem};
use sila_crypto::SecureBool;
use sila_crypto::sign::SigningKey;

use super::failing::scenes::{self, JOB, KEYS};
use super::signed::{
    OWNER, REQUEST_ENDPOINT, ROOT, bounded, certificate, module, name, policy, record, root_set, signer,
};
use super::*;
use crate::cap::ObjRef;
use crate::kernel::PERMANENT;
use crate::machine::Machine;

pub const POLICY: Slot = Slot(30);
const RECORD: Slot = Slot(31);
pub const IMAGE: Slot = Slot(32);
pub const PROOF: Slot = Slot(33);
pub const GRANT: Slot = Slot(34);
pub const MADE: Slot = Slot(35);
const SYSTEM: Slot = Slot(6);

/// A creator with all that loading takes, and the right to install records.
pub struct Trust {
    pub w: World,
    pub a: Actor,
}

impl Trust {
    pub fn new() -> Self {
        let (mut w, a) = scenes::world();
        let object = ObjRef { kind: ObjectType::Policy, index: 0, generation: PERMANENT };
        w.give(a, POLICY, object, Rights::USE);
        w.invoke(a, POOL, Op::EndpointCreate, &[0, 0, GRANT.0.into()]).unwrap();
        Trust { w, a }
    }

    /// An operation that waits for its verification.
    pub fn verified(
        &mut self,
        slot: Slot,
        op: Op,
        args: &[u64],
        words: u8,
    ) -> Result<Vec<u64>, (Error, Vec<u64>)> {
        self.begin(slot, op, args, words);
        self.finish()
    }

    pub fn begin(&mut self, slot: Slot, op: Op, args: &[u64], words: u8) {
        let mut w = [0; 6];
        w[..args.len()].copy_from_slice(args);
        self.w.call(self.a, Tag::new(Call::Invoke, words, 0, op as u32), |r| {
            r.rdi = slot.0.into();
            [r.rsi, r.rdx, r.r10, r.r8, r.r9, r.r12] = w;
        });
    }

    /// Lets the context and what follows it do their part.
    pub fn finish(&mut self) -> Result<Vec<u64>, (Error, Vec<u64>)> {
        if self.w.state(self.a) == ThreadState::Verifying {
            self.w.k.schedule(&mut self.w.m);
            self.w.m.run_verification();
            self.w.k.enter(&mut self.w.m, Entry::VerificationDone);
            if self.w.checks {
                self.w.sound();
            }
        }
        let outcome = self.w.outcome(self.a);
        let words = self.w.words(self.a)[..outcome.words().min(6)].to_vec();
        outcome.status().map(|()| words.clone()).map_err(|e| (e, words))
    }

    pub fn region(&mut self, slot: Slot, bytes: &[u8]) {
        scenes::with_bytes(&mut self.w, self.a, slot, bytes, true);
    }

    pub fn drop(&mut self, slot: Slot) {
        self.w.invoke(self.a, slot, Op::CapDelete, &[]).unwrap();
    }

    pub fn install(&mut self, bytes: &[u8]) -> Result<Vec<u64>, Error> {
        self.install_by(KEYS, Op::KeyRingInstall, bytes)
    }

    pub fn install_by(&mut self, slot: Slot, op: Op, bytes: &[u8]) -> Result<Vec<u64>, Error> {
        self.region(RECORD, bytes);
        let done = self.verified(slot, op, &[RECORD.0.into(), bytes.len() as u64], 6);
        self.drop(RECORD);
        done.map_err(|(e, _)| e)
    }

    /// Loads a module and ends it again.
    pub fn load(&mut self, (image, proof): &(Vec<u8>, Vec<u8>)) -> Result<(), (Error, Vec<u64>)> {
        self.create(image, proof)?;
        self.w.invoke(self.a, MADE, Op::ProcessTerminate, &[0]).unwrap();
        self.drop(MADE);
        self.w.settle();
        Ok(())
    }

    /// Loads a module.
    pub fn load_and_keep(&mut self, (image, proof): &(Vec<u8>, Vec<u8>)) {
        self.create(image, proof).unwrap();
    }

    /// Ends it.
    pub fn end(&mut self) {
        self.w.invoke(self.a, MADE, Op::ProcessTerminate, &[0]).unwrap();
        self.drop(MADE);
        self.w.settle();
    }

    fn create(&mut self, image: &[u8], proof: &[u8]) -> Result<(), (Error, Vec<u64>)> {
        self.begin_create(image, proof);
        let done = self.finish();
        self.forget_parts();
        done.map(|_| ())
    }

    /// Lets go of what [`Trust::begin_create`] made.
    pub fn forget_parts(&mut self) {
        self.drop(IMAGE);
        self.drop(PROOF);
        self.w.settle();
    }

    /// As [`Trust::load`], with something to set right before the image's capability goes.
    pub fn begin_and_finish(
        &mut self,
        (image, proof): &(Vec<u8>, Vec<u8>),
        mend: impl FnOnce(&mut World, RegionId),
    ) -> Result<(), (Error, Vec<u64>)> {
        self.begin_create(image, proof);
        let region = crate::kernel::id_of(&self.w.k.find(self.a.process, IMAGE).unwrap().cap);
        let done = self.finish();
        mend(&mut self.w, region);
        self.drop(IMAGE);
        let _ = self.w.invoke(self.a, PROOF, Op::CapDelete, &[]);
        done.map(|_| ())
    }

    pub fn begin_create(&mut self, image: &[u8], proof: &[u8]) {
        self.region(IMAGE, image);
        self.region(PROOF, proof);
        let page = self.w.k.threads.get(self.a.thread).unwrap().message.unwrap().0;
        self.w.m.frame(page)[6] = REQUEST_ENDPOINT << 16 | u64::from(GRANT.0);
        let args = [IMAGE.0.into(), PROOF.0.into(), POOL.0.into(), 30, 1, MADE.0.into()];
        self.begin(JOB, Op::ProcessCreate, &args, 7);
    }

    fn error(&mut self, module: &(Vec<u8>, Vec<u8>)) -> Error {
        self.load(module).unwrap_err().0
    }

    fn affected(&mut self) -> Vec<(u64, u64)> {
        let mut found = Vec::new();
        let mut cursor = 0;
        while let Ok(words) = self.w.invoke(self.a, KEYS, Op::KeyRingAffected, &[cursor]) {
            cursor = words[0];
            if words[2] != 0 {
                found.push((words[1], words[2]));
            }
        }
        found
    }

    fn state(&mut self) -> sila_abi::status::KeyRingRecord {
        self.w.k.keyring.record()
    }
}

fn root() -> SigningKey {
    signer(ROOT)
}

pub fn signed<T: sila_abi::trust::Record>(kind: RecordKind, what: &T) -> Vec<u8> {
    record(kind, what, &root(), None)
}

pub fn revoke_key(sequence: u64, key: &SigningKey) -> Vec<u8> {
    signed(RecordKind::Revocation, &Revocation { sequence, item: RevokedItem::Key(key.id()) })
}

fn own(_: &mut sila_abi::manifest::Manifest) {}

fn as_publisher(publisher: &'static str, module: &'static str) -> impl Fn(&mut sila_abi::manifest::Manifest) {
    move |m| (m.publisher, m.name) = (name(publisher), name(module))
}

#[test]
fn a_publisher_certified_while_the_system_runs_can_have_modules_loaded() {
    let mut t = Trust::new();
    let key = signer(7);
    let theirs = module(&key, as_publisher("acme", "acme.tool"));
    assert_eq!(t.error(&theirs), Error::UnknownKey);
    let changes = t.state().changes;
    let done = t.install(&signed(RecordKind::Certificate, &certificate("acme", &key, 3, &["acme"])));
    assert_eq!(done, Ok(vec![RecordKind::Certificate as u64, 3]));
    assert!(t.state().changes > changes && t.state().keys == 2);
    t.load(&theirs).unwrap();
    let outside = module(&key, as_publisher("acme", "other"));
    assert_eq!(t.error(&outside), Error::Namespace);
    // The publisher without prefixes has no longer what somebody claims.
    let squatter = module(&signer(OWNER), as_publisher("test", "acme.tool"));
    assert_eq!(t.error(&squatter), Error::Namespace);
    t.load(&module(&signer(OWNER), own)).unwrap();
}

#[test]
fn certificates_rise_keep_their_key_and_do_not_overlap() {
    let mut t = Trust::new();
    let (a, b) = (signer(7), signer(8));
    let mut install = |publisher, key: &SigningKey, sequence, prefixes: &[&str]| {
        t.install(&signed(RecordKind::Certificate, &certificate(publisher, key, sequence, prefixes)))
    };
    assert!(install("acme", &a, 3, &["acme"]).is_ok());
    assert_eq!(install("acme", &a, 3, &["acme"]), Err(Error::RecordStale), "a replay");
    assert_eq!(install("acme", &b, 2, &["acme"]), Err(Error::RecordStale), "older, for another key");
    assert_eq!(install("evil", &b, 9, &["acme.sub"]), Err(Error::Namespace));
    assert_eq!(install("evil", &b, 9, &[]), Err(Error::Namespace), "two that claim nothing overlap");
    assert_eq!(install("evil", &a, 9, &["evil"]), Err(Error::WrongPublisher), "the key is acme's");
    assert!(install("acme", &b, 4, &["acme"]).is_ok(), "a second key of one publisher");
    assert!(install("acme", &a, 5, &["acme", "tools"]).is_ok(), "the first key's new certificate");
    assert_eq!(t.state().keys, 3);
}

#[test]
fn the_ring_fills_and_the_last_certificate_is_refused() {
    let mut t = Trust::new();
    for i in 1..crate::keyring::MAX_KEYS as u64 {
        let made = certificate("acme", &signer(10 + i as u8), i, &["acme"]);
        assert!(t.install(&signed(RecordKind::Certificate, &made)).is_ok(), "{i}");
    }
    let more = certificate("acme", &signer(200), 1000, &["acme"]);
    assert_eq!(t.install(&signed(RecordKind::Certificate, &more)), Err(Error::ArenaFull));
    let same = certificate("acme", &signer(11), 1000, &["acme"]);
    assert!(t.install(&signed(RecordKind::Certificate, &same)).is_ok(), "one that takes its own place");
}

#[test]
fn a_revoked_key_loads_nothing_and_what_runs_is_listed() {
    let mut t = Trust::new();
    let good = module(&signer(OWNER), own);
    t.create(&good.0, &good.1).unwrap();
    assert_eq!(t.affected(), vec![]);
    t.w.invoke(t.a, POOL, Op::NotificationCreate, &[40]).unwrap();
    t.w.invoke(t.a, KEYS, Op::KeyRingWatch, &[40, 8]).unwrap();
    assert_eq!(t.install(&revoke_key(9, &signer(OWNER))), Ok(vec![2, 9]));
    let number = t.w.k.next_process - 1;
    assert_eq!(t.affected(), vec![(number, 1)]);
    let id: NotificationId = crate::kernel::id_of(&t.w.k.find(t.a.process, Slot(40)).unwrap().cap);
    assert_eq!(t.w.k.notifications.get(id).unwrap().flags, 8, "who watches is told");
    t.w.invoke(t.a, MADE, Op::ProcessTerminate, &[0]).unwrap();
    t.w.settle();
    assert_eq!(t.affected(), vec![], "what has ended concerns nobody");
    t.drop(MADE);
    assert_eq!(t.error(&good), Error::KeyRevoked);
    // A later certificate does not give the key back.
    assert!(
        t.install(&signed(RecordKind::Certificate, &certificate("test", &signer(OWNER), 2, &[]))).is_ok()
    );
    assert_eq!(t.error(&good), Error::KeyRevoked);
    assert_eq!(t.install(&revoke_key(9, &signer(9))), Err(Error::RecordStale), "a replay");
}

#[test]
fn a_revoked_version_is_refused_and_listed() {
    let mut t = Trust::new();
    let good = module(&signer(OWNER), own);
    t.create(&good.0, &good.1).unwrap();
    let version = Version { major: 1, minor: 0, patch: 0 };
    let item = RevokedItem::Module {
        publisher: name("test"),
        name: name("probe"),
        versions: VersionRange { min: version, max: version },
    };
    assert!(t.install(&signed(RecordKind::Revocation, &Revocation { sequence: 1, item })).is_ok());
    assert_eq!(t.affected().first().map(|a| a.1), Some(2));
    t.w.invoke(t.a, MADE, Op::ProcessTerminate, &[0]).unwrap();
    t.drop(MADE);
    assert_eq!(t.error(&good), Error::VersionRevoked);
    let next = module(&signer(OWNER), |m| m.version = Version { major: 1, minor: 0, patch: 1 });
    t.load(&next).unwrap();
}

#[test]
fn a_root_set_is_replaced_by_one_that_both_signed() {
    let mut t = Trust::new();
    let new = signer(5);
    let set = root_set(2, &new);
    let both = |old: &SigningKey, own: &SigningKey| record(RecordKind::RootSet, &set, old, Some(own));
    assert_eq!(t.install(&both(&new, &new)), Err(Error::RecordSignature), "not by the old one");
    assert_eq!(t.install(&both(&root(), &root())), Err(Error::RecordSignature), "not by the new one");
    let alone = record(RecordKind::RootSet, &set, &root(), None);
    assert_eq!(t.install(&alone), Err(Error::RecordSignature), "the new one did not sign at all");
    let older = record(RecordKind::RootSet, &root_set(1, &new), &root(), Some(&new));
    assert_eq!(t.install(&older), Err(Error::RecordStale));
    assert_eq!(t.install(&both(&root(), &new)), Ok(vec![3, 2]));
    assert_eq!(t.state().root_sequence, 2);
    assert_eq!(t.install(&revoke_key(9, &signer(9))), Err(Error::RecordSignature), "the old root is past");
    let by_new = Revocation { sequence: 9, item: RevokedItem::Key([1; 32]) };
    assert!(t.install(&record(RecordKind::Revocation, &by_new, &new, None)).is_ok());
    // What the old one certified goes on.
    t.load(&module(&signer(OWNER), own)).unwrap();
}

#[test]
fn a_record_verified_under_a_root_set_that_has_gone_is_stale() {
    let mut t = Trust::new();
    let bytes = revoke_key(9, &signer(OWNER));
    t.region(RECORD, &bytes);
    t.begin(KEYS, Op::KeyRingInstall, &[RECORD.0.into(), bytes.len() as u64], 6);
    t.w.k.schedule(&mut t.w.m);
    t.w.m.run_verification();
    // Meanwhile another root set comes into force.
    let encoded = sila_abi::trust::Record::encode(&root_set(2, &signer(5))).unwrap();
    t.w.k.keyring.replace_root(sila_crypto::chain::RootKeys::decode(&encoded).unwrap());
    t.w.k.enter(&mut t.w.m, Entry::VerificationDone);
    assert_eq!(t.w.outcome(t.a).status(), Err(Error::RecordStale));
    t.load(&module(&signer(OWNER), own)).unwrap();
}

#[test]
fn floors_rise_by_record_and_never_fall() {
    let mut t = Trust::new();
    let floors = |sequence, to| FloorRecord {
        sequence,
        floors: bounded(vec![Floor { publisher: name("test"), name: name("probe"), security_version: to }]),
    };
    let at = |security_version| {
        module(&signer(OWNER), move |m| {
            m.security_version = security_version;
            m.version.patch = security_version as u16;
        })
    };
    t.create(&at(1).0, &at(1).1).unwrap();
    assert_eq!(t.install(&signed(RecordKind::Floors, &floors(1, 4))), Ok(vec![5, 1]));
    assert_eq!(t.affected().first().map(|a| a.1), Some(3), "what runs below the floor is listed");
    t.w.invoke(t.a, MADE, Op::ProcessTerminate, &[0]).unwrap();
    t.drop(MADE);
    assert_eq!(t.error(&at(3)), Error::BelowFloor);
    t.load(&at(4)).unwrap();
    assert_eq!(t.install(&signed(RecordKind::Floors, &floors(1, 9))), Err(Error::RecordStale));
    assert!(t.install(&signed(RecordKind::Floors, &floors(2, 2))).is_ok());
    assert_eq!(t.error(&at(3)), Error::BelowFloor, "a lower floor lowers nothing");
    // The highest floor of all leaves the highest security version loadable: nobody is locked out for good.
    assert!(t.install(&signed(RecordKind::Floors, &floors(3, u32::MAX))).is_ok());
    assert_eq!(t.error(&at(u32::MAX - 1)), Error::BelowFloor);
    t.load(&at(u32::MAX)).unwrap();
    let later = module(&signer(OWNER), |m| {
        (m.security_version, m.version) = (u32::MAX, Version { major: 9, minor: 9, patch: 9 });
    });
    t.load(&later).unwrap();
    let words = t.w.invoke(t.a, KEYS, Op::KeyRingFloor, &[0]).unwrap();
    assert_eq!((words[0], words[1]), ((1 + 4 + 1 + 5 + 4), 3));
}

#[test]
fn a_signed_floor_record_of_more_than_sixteen_is_refused() {
    let mut t = Trust::new();
    let floors = |n: usize| {
        let floor =
            |i| Floor { publisher: name("test"), name: name(&std::format!("m{i}")), security_version: 1 };
        FloorRecord { sequence: 1, floors: bounded((0..n).map(floor).collect()) }
    };
    assert_eq!(t.install(&signed(RecordKind::Floors, &floors(17))), Err(Error::RecordMalformed));
    assert!(t.install(&signed(RecordKind::Floors, &floors(16))).is_ok());
    assert_eq!(t.state().floors, 16);
}

#[test]
fn an_imported_floor_goes_no_further_than_what_is_there() {
    let mut t = Trust::new();
    let floor =
        |text, security_version| Floor { publisher: name("test"), name: name(text), security_version };
    let all = vec![floor("a", 5), floor("b", 9), floor("absent", 7)];
    let record = FloorRecord { sequence: 1, floors: bounded(all) };
    t.w.k.keyring.import_floors(&record, &[6, 6, 0]).unwrap();
    let ring = &t.w.k.keyring;
    let of = |text| ring.floors().of(&name("test"), &name(text));
    assert_eq!((of("a"), of("b"), of("absent")), (5, 6, 0));
    assert_eq!((t.state().floors_imported, t.state().floors_clipped), (2, 2));
}

#[test]
fn a_policy_is_replaced_by_a_newer_one_and_by_its_own_operation() {
    let mut t = Trust::new();
    let owner = signer(OWNER);
    let newer = policy(2, &owner);
    let bytes = signed(RecordKind::Policy, &newer);
    assert_eq!(t.install(&bytes), Err(Error::WrongRecord));
    let revocation = revoke_key(9, &signer(9));
    assert_eq!(t.install_by(POLICY, Op::PolicyInstall, &revocation), Err(Error::WrongRecord));
    assert_eq!(t.install_by(POLICY, Op::PolicyInstall, &bytes), Ok(vec![4, 2]));
    assert_eq!(t.install_by(POLICY, Op::PolicyInstall, &bytes), Err(Error::RecordStale));
    let words = t.w.invoke(t.a, POLICY, Op::PolicyStatus, &[]).unwrap();
    assert_eq!((words[0], words[2]), (2, 1));
    t.load(&module(&owner, own)).unwrap();
}

#[test]
fn what_no_rule_permits_is_refused_by_request_and_closest_rule() {
    let mut t = Trust::new();
    let owner = signer(OWNER);
    let rule = |text: &str, object: ObjectType, rights: Rights, amount| PolicyRule {
        name: name(text),
        publisher: None,
        module: None,
        object: object as u8,
        rights: rights.bits(),
        amount,
    };
    let good = module(&owner, own);
    let mut rules = vec![
        rule("process", ObjectType::Process, Rights::USE, 0),
        rule("thread", ObjectType::Thread, Rights::USE, 0),
        rule("pool", ObjectType::Pool, Rights::USE, 64),
    ];
    let mut sequence = 2;
    let mut attempt = |t: &mut Trust, rules: &[PolicyRule]| {
        let policy = sila_abi::policy::Policy { rules: bounded(rules.to_vec()), ..policy(sequence, &owner) };
        sequence += 1;
        t.install_by(POLICY, Op::PolicyInstall, &signed(RecordKind::Policy, &policy)).unwrap();
        let before = t.w.baseline();
        let refused = t.load(&good).unwrap_err();
        t.w.settle();
        assert_eq!(t.w.baseline(), before);
        refused
    };
    assert_eq!(attempt(&mut t, &rules), (Error::RequestPolicy, vec![3, 0]), "no rule for endpoints");
    rules.push(rule("receive", ObjectType::Endpoint, Rights::RECV, 0));
    assert_eq!(attempt(&mut t, &rules), (Error::RequestPolicy, vec![3, 4]), "not for this right");
    rules[2].amount = 63;
    assert_eq!(attempt(&mut t, &rules), (Error::RequestPolicy, vec![2, 3]), "the own Pool is too large");
}

#[test]
fn creations_come_no_faster_than_policy_says() {
    let mut t = Trust::new();
    let owner = signer(OWNER);
    let slow = sila_abi::policy::Policy { creation_burst: 2, creation_per_second: 10, ..policy(2, &owner) };
    t.install_by(POLICY, Op::PolicyInstall, &signed(RecordKind::Policy, &slow)).unwrap();
    t.w.m.time = 5_000_000_000;
    let good = module(&owner, own);
    t.load(&good).unwrap();
    // What is refused later counts, too.
    let mut broken = good.clone();
    broken.1[200] ^= 1;
    assert_eq!(t.error(&broken), Error::ManifestSignature);
    let before = t.w.k.counters.verifications;
    let (error, words) = t.load(&good).unwrap_err();
    assert_eq!(error, Error::RateLimited);
    assert!(words[0] > 0 && words[0] <= 100_000_000, "{words:?}");
    assert_eq!(t.w.k.counters.verifications, before, "nothing was verified for it");
    t.w.m.time += words[0];
    t.load(&good).unwrap();
}

#[test]
fn every_flipped_bit_of_a_stored_decision_denies() {
    let good = module(&signer(OWNER), own);
    let mut t = Trust::new();
    let bits = SecureBool::ALLOW.bits();
    let flips = (0..32).flat_map(|a| (a..32).map(move |b| bits ^ (1 << a) ^ if a == b { 0 } else { 1 << b }));
    let flips: Vec<u32> = flips.collect();
    assert_eq!(flips.len(), 32 + 32 * 31 / 2);
    for flipped in &flips {
        for key in t.w.k.keyring.decisions() {
            *key = SecureBool::from_bits(*flipped);
        }
        assert_eq!(t.error(&good), Error::IntegrityFault, "{flipped:#x} as a key's decision");
    }
    t.w.k.keyring.decisions().for_each(|key| *key = SecureBool::ALLOW);
    t.load(&good).unwrap();
    let test = ObjRef { kind: ObjectType::TestControl, index: 0, generation: PERMANENT };
    t.w.give(t.a, Slot(50), test, Rights::USE);
    for flipped in &flips {
        t.w.k.test_hooks = SecureBool::from_bits(*flipped);
        let refused = t.w.invoke(t.a, Slot(50), Op::TestAccounting, &[]);
        assert_eq!(refused, Err(Error::IntegrityFault), "{flipped:#x} as the decision on test hooks");
    }
    t.w.k.test_hooks = SecureBool::DENY;
    assert_eq!(t.w.invoke(t.a, Slot(50), Op::TestAccounting, &[]), Err(Error::InvalidOperation));
}

#[test]
fn every_flipped_bit_of_a_region_s_seal_neither_lets_write_nor_run() {
    let mut t = Trust::new();
    t.w.checks = false;
    t.region(IMAGE, &[1]);
    t.region(PROOF, &[1]);
    let region = crate::kernel::id_of(&t.w.k.find(t.a.process, IMAGE).unwrap().cap);
    // The table is there, so that the short path could serve.
    t.w.k.regions.get_mut(region).unwrap().sealed = SecureBool::DENY;
    t.w.invoke(t.a, IMAGE, Op::RegionMap, &[PROCESS.0.into(), 0x5000_1000, 0, 1, 0, 53]).unwrap();
    for start in [SecureBool::ALLOW.bits(), SecureBool::DENY.bits()] {
        for (a, b) in (0..32).flat_map(|a| (a..32).map(move |b| (a, b))) {
            let flipped = SecureBool::from_bits(start ^ (1 << a) ^ if a == b { 0 } else { 1 << b });
            t.w.k.regions.get_mut(region).unwrap().sealed = flipped;
            let map = [PROCESS.0.into(), 0x5000_0000, 0, 1, 1, 52];
            assert_eq!(t.w.invoke(t.a, IMAGE, Op::RegionMap, &map), Err(Error::IntegrityFault));
            let create = [IMAGE.0.into(), PROOF.0.into(), POOL.0.into(), 30, 0, MADE.0.into()];
            assert_eq!(t.w.invoke(t.a, JOB, Op::ProcessCreate, &create), Err(Error::IntegrityFault));
            for op in [Op::RegionStatus, Op::RegionSeal] {
                assert_eq!(t.w.invoke(t.a, IMAGE, op, &[]), Err(Error::IntegrityFault));
            }
        }
    }
}

/// The list of stored decisions is taken from the sources: whoever adds one has to flip its bits here, too.
#[test]
fn every_stored_decision_has_its_bits_flipped_above() {
    fn visit(dir: &std::path::Path, found: &mut Vec<std::string::String>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("tests") {
                visit(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let fields = text.lines().filter_map(|line| line.trim().strip_suffix(": SecureBool,"));
                found.extend(
                    fields.map(|field| {
                        field.trim_start_matches("pub ").trim_start_matches("pub(crate) ").into()
                    }),
                );
            }
        }
    }
    let mut found = Vec::new();
    visit(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    found.sort();
    assert_eq!(found, ["sealed", "test_hooks", "usable"]);
}

#[test]
fn each_capability_says_by_which_request_and_rule_it_came() {
    let mut t = Trust::new();
    let good = module(&signer(OWNER), own);
    t.create(&good.0, &good.1).unwrap();
    let number = t.w.k.next_process - 1;
    let mut cursor = 0;
    let mut seen = Vec::new();
    while let Ok(words) = t.w.invoke(t.a, SYSTEM, Op::SystemCapability, &[number, cursor]) {
        cursor = words[0];
        let page = t.w.k.threads.get(t.a.thread).unwrap().message.unwrap().0;
        let rest: Vec<u64> = t.w.m.frame(page)[6..9].to_vec();
        seen.push((words[0], rest));
    }
    assert_eq!(seen, [(1, 1), (2, 2), (3, 3), (8, 4)].map(|(slot, request)| (slot, vec![request, 1, 1])));
    let words = t.w.invoke(t.a, MADE, Op::ProcessIdentity, &[]).unwrap();
    assert_eq!((words[0], words[4], words[5]), (number, 0b1111, 4));
    // A copy is no endowment.
    t.w.invoke(t.a, GRANT, Op::CapCopy, &[51, Rights::SEND.bits().into()]).unwrap();
    let copy = t.w.k.find(t.a.process, Slot(51)).unwrap().cap;
    assert_eq!(copy.origin, crate::cap::Origin::NONE);
}

#[test]
fn a_copy_of_an_endowed_capability_is_no_endowment() {
    let mut t = Trust::new();
    let at = crate::cap::CapId::in_cspace(t.a.process.index(), usize::from(GRANT.0));
    t.w.k.caps.set_origin(at, crate::cap::Origin { request: 3, rule: 2 });
    let origin = |t: &Trust, slot| t.w.k.find(t.a.process, slot).unwrap().cap.origin;
    for general in [false, true] {
        t.w.general = general;
        t.w.invoke(t.a, GRANT, Op::CapCopy, &[51, Rights::SEND.bits().into()]).unwrap();
        assert_eq!(origin(&t, Slot(51)), crate::cap::Origin::NONE);
        t.drop(Slot(51));
    }
    // What is moved remains one.
    t.w.invoke(t.a, GRANT, Op::CapMove, &[52]).unwrap();
    assert_eq!(origin(&t, Slot(52)).request, 3);
}

#[test]
fn a_request_is_not_granted_from_a_source_that_holds_less() {
    let mut t = Trust::new();
    let pool = |amount| {
        module(&signer(OWNER), move |m| {
            let mut requests = m.requests.to_vec();
            let last = requests.last_mut().unwrap();
            (last.object, last.rights, last.amount) = (ObjectType::Pool as u8, Rights::READ.bits(), amount);
            m.requests = bounded(requests);
            m.version.patch = amount as u16;
        })
    };
    t.drop(GRANT);
    t.w.invoke(t.a, POOL, Op::PoolCreate, &[20, 100, GRANT.0.into()]).unwrap();
    assert_eq!(t.load(&pool(21)).unwrap_err(), (Error::RequestAmount, vec![3]));
    t.load(&pool(20)).unwrap();
    // What comes with the capability counts, not what was asked for: a rule for less permits none of it.
    let owner = signer(OWNER);
    let tight = PolicyRule {
        name: name("tight"),
        publisher: None,
        module: None,
        object: 0,
        rights: Rights::USE.bits(),
        amount: 19,
    };
    let own = PolicyRule { name: name("own"), object: 0, amount: 64, module: Some(name("probe")), ..tight };
    let rules = |rules: &[PolicyRule], sequence| {
        let policy = sila_abi::policy::Policy { rules: bounded(rules.to_vec()), ..policy(sequence, &owner) };
        signed(RecordKind::Policy, &policy)
    };
    t.install_by(POLICY, Op::PolicyInstall, &rules(&[PolicyRule { object: 8, ..tight }, own], 2)).unwrap();
    t.load(&pool(1)).unwrap();
    let pools = PolicyRule { object: ObjectType::Pool as u8, ..tight };
    let others = [ObjectType::Process, ObjectType::Thread].map(|kind| PolicyRule {
        name: name(if kind == ObjectType::Thread { "t" } else { "p" }),
        object: kind as u8,
        ..own
    });
    t.install_by(POLICY, Op::PolicyInstall, &rules(&[pools, others[0], others[1]], 3)).unwrap();
    let small = module(&owner, |m| {
        let mut requests = m.requests.to_vec();
        let last = requests.last_mut().unwrap();
        (last.object, last.rights, last.amount) = (ObjectType::Pool as u8, Rights::READ.bits(), 0);
        m.requests = bounded(requests);
        (m.version.patch, m.resources.frames) = (77, 19);
    });
    assert_eq!(t.load(&small).unwrap_err(), (Error::RequestPolicy, vec![3, 1]));
}

/// Nobody fills the table of seen versions for everybody: one publisher has a quarter of it.
#[test]
fn one_publisher_s_versions_leave_room_for_others() {
    let mut ring = super::signed::SIGNED.keyring();
    let mut manifest = super::signed::SIGNED.manifest.clone();
    let version = |n: u16| Version { major: n / 100 % 10, minor: n / 10 % 10, patch: n % 10 };
    for n in 0..256 {
        manifest.version = version(n);
        assert_eq!(ring.authorise(&manifest, &[1; 32]), Ok(()), "{n}");
        ring.remember(&manifest, [1; 32]);
    }
    assert_eq!(ring.authorise(&manifest, &[1; 32]), Ok(()), "what was seen may come again");
    manifest.version = version(256);
    assert_eq!(ring.authorise(&manifest, &[1; 32]), Err(crate::keyring::ChainOrReuse::Full));
    manifest.publisher = name("another");
    ring.remember(&manifest, [1; 32]);
    assert_eq!(ring.seen_count(), 257, "another publisher's version has its place");
}

/// Finalised updates do not use up what the root needs for its own records.
#[test]
fn finalised_floors_leave_room_for_signed_ones() {
    let mut t = Trust::new();
    let mut runs = t.w.k.processes.get(t.a.process).unwrap().identity;
    runs.security_version = 3;
    while t.w.k.keyring.floors_left() > 0 {
        runs.name = name(&std::format!("m{}", t.w.k.keyring.floors_left()));
        t.w.k.keyring.raise_floor(&runs);
    }
    assert_eq!(t.state().floors, 768);
    runs.name = name("late");
    t.w.k.keyring.raise_floor(&runs);
    assert_eq!(t.state().floors, 768);
    let floor = Floor { publisher: name("test"), name: name("late"), security_version: 9 };
    let record = FloorRecord { sequence: 1, floors: bounded(vec![floor]) };
    assert!(t.install(&signed(RecordKind::Floors, &record)).is_ok());
    assert_eq!(t.state().floors, 769);
}
