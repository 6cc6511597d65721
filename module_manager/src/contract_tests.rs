//! Each predicate of a load is made false by one fact.

use super::*;
use crate::manager::tests::{facts_of, package};
use sila_abi::contract::{Node, Predicate};
use sila_abi::facts::load_violated;
use sila_abi::record::{Bounded, Version};

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// Facts of a module with three requests: an own one, one that the requester gives, an optional one.
fn facts() -> Facts {
    let mut facts = facts_of(&package("counter", 3));
    (facts.terms.asked, facts.terms.mandatory, facts.terms.own) = (0b111, 0b011, 0b001);
    facts.requests = vec![(1, name("disk")), (2, name("screen"))];
    facts
}

fn target() -> Load {
    let mut target = Load::newest(name("counter"));
    target.grants[0] = Some(name("disk"));
    target
}

fn identity() -> IdentityRecord {
    IdentityRecord {
        id: 9,
        state: CREATED,
        version: 1 << 32 | 3 << 16,
        security_version: 0,
        endowed: 0b011,
        capabilities: 2,
        threads: 1,
        manifest_digest: [7; 32],
        key_id: [3; 32],
        name_len: 7,
        name: *name("counter").padded(),
        publisher_len: 3,
        publisher: *name("pub").padded(),
    }
}

fn look(identity: &IdentityRecord) -> Result<(), u64> {
    let observed = Observed { identity, process: 9 };
    after_creation(&facts(), &target(), &observed).map_err(|failure| {
        assert_eq!(failure.error, LoadError::ContractViolated);
        failure.detail
    })
}

#[test]
fn a_process_as_it_should_be_holds_to_the_contract() {
    assert_eq!(look(&identity()), Ok(()));
    // An optional request that was granted is no breach.
    let mut target = target();
    target.grants[1] = Some(name("screen"));
    let all = IdentityRecord { endowed: 0b111, capabilities: 3, ..identity() };
    let observed = Observed { identity: &all, process: 9 };
    assert_eq!(after_creation(&facts(), &target, &observed), Ok(()));
}

#[test]
fn each_fact_that_is_wrong_breaks_its_predicate() {
    let good = identity();
    let cases: [(&str, IdentityRecord); 15] = [
        ("new-process-exists", IdentityRecord { state: 2, ..good }),
        ("new-process-exists", IdentityRecord { id: 8, ..good }),
        ("new-process-exists", IdentityRecord { threads: 0, ..good }),
        ("process-is-the-module", IdentityRecord { name: *name("counted").padded(), ..good }),
        ("process-is-the-module", IdentityRecord { name_len: 6, ..good }),
        ("process-is-the-module", IdentityRecord { version: 1 << 32 | 2 << 16, ..good }),
        ("process-is-the-module", IdentityRecord { publisher: *name("bup").padded(), ..good }),
        ("endowed-by-manifest", IdentityRecord { endowed: 0b001, capabilities: 1, ..good }),
        ("endowed-by-manifest", IdentityRecord { endowed: 0b111, capabilities: 3, ..good }),
        ("endowed-by-manifest", IdentityRecord { endowed: 0b1011, capabilities: 3, ..good }),
        ("endowed-by-manifest", IdentityRecord { capabilities: 3, ..good }),
        ("endowed-by-manifest", IdentityRecord { capabilities: 1, ..good }),
        ("signatures-verified", IdentityRecord { manifest_digest: [8; 32], ..good }),
        ("signatures-verified", IdentityRecord { key_id: [4; 32], ..good }),
        ("signatures-verified", IdentityRecord { manifest_digest: [0; 32], key_id: [0; 32], ..good }),
    ];
    for (predicate, wrong) in cases {
        let number = look(&wrong).unwrap_err();
        assert_eq!(load_violated(number), Some(predicate), "{wrong:?}");
    }
    let other = Load { version: Some(Version::new(1, 4, 0)), ..target() };
    let observed = Observed { identity: &good, process: 9 };
    let failure = after_creation(&facts(), &other, &observed).unwrap_err();
    assert_eq!(load_violated(failure.detail), Some("process-is-the-module"));
}

#[test]
fn a_module_s_own_predicates_for_loading_are_evaluated_and_unknown_facts_deny() {
    let with = |fact: &str, when, number| {
        let mut facts = facts();
        let nodes = vec![Node::Fact(name(fact)), Node::Const(number), Node::Eq(0, 1)];
        let predicate = Predicate { name: name("own"), operation: Operation::Load, when, root: 2 };
        facts.terms.contract.nodes = Bounded::from_vec(nodes).ok().unwrap();
        facts.terms.contract.predicates = Bounded::from_vec(vec![predicate]).ok().unwrap();
        let good = identity();
        let observed = Observed { identity: &good, process: 9 };
        let before = before_loading(&facts);
        before.and_then(|()| after_creation(&facts, &target(), &observed)).map_err(|failure| failure.detail)
    };
    for (fact, when, right) in [
        ("image-bytes", When::Before, 8192),
        ("requests", When::Before, 3),
        ("requests-granted", When::After, 2),
        ("process-state", When::After, 1),
    ] {
        assert_eq!(with(fact, when, right), Ok(()), "{fact}");
        assert_eq!(with(fact, when, right + 1), Err(MODULE_PREDICATE), "{fact}");
    }
    assert_eq!(with("no-such-fact", When::Before, 0), Err(MODULE_PREDICATE));
    assert_eq!(with("capabilities", When::Before, 2), Err(MODULE_PREDICATE), "there is no process yet");
}
