//! The policy's rules: well-formedness, and which rule permits what, against an oracle that reads them one by one.

#![allow(clippy::expect_used, reason = "helpers of tests, which Clippy does not see as tests")]
use proptest::prelude::*;
use sila_abi::contract::Contract;
use sila_abi::manifest::{
    CapRequest, Codec, MANIFEST_FORMAT, Manifest, ManifestFlags, ModuleKind, Resources, Selector,
};
use sila_abi::object::ObjectType;
use sila_abi::policy::{Forbidden, LoadScope, Policy, PolicyRule, covers};
use sila_abi::record::{Bounded, Name, Version};
use sila_abi::rights::Rights;
use sila_abi::trust::{Record, RecordError};

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

fn list<T: Clone, const N: usize>(items: Vec<T>) -> Bounded<T, N> {
    Bounded::from_vec(items).ok().expect("within bounds")
}

fn rule(text: &str) -> PolicyRule {
    PolicyRule { name: name(text), publisher: None, module: None, object: 4, rights: 4, amount: 0 }
}

fn scope(text: &str, badge: u64) -> LoadScope {
    LoadScope {
        name: name(text),
        badge,
        names: None,
        agents: false,
        instances: 1,
        grants: false,
        all: false,
        priority: 1,
    }
}

fn policy(rules: Vec<PolicyRule>, scopes: Vec<LoadScope>) -> Policy {
    Policy {
        sequence: 1,
        algorithms: list(vec![1]),
        min_nist_level: 5,
        min_key_bits: 4096,
        max_image_len: 1,
        max_window_log: 20,
        max_decompressions: 1,
        creation_burst: 1,
        creation_per_second: 0,
        max_verifications: 1,
        cache_frames: 0,
        cache_entries: 0,
        rules: list(rules),
        scopes: list(scopes),
    }
}

fn manifest(publisher: &str, module: &str, frames: u64) -> Manifest {
    Manifest {
        format: MANIFEST_FORMAT,
        name: name(module),
        version: Version::MIN,
        security_version: 0,
        kind: ModuleKind::Service,
        publisher: name(publisher),
        key_id: [0; 32],
        algorithm: 1,
        image_digest: [0; 32],
        image_len: 4096,
        payload_digest: [0; 32],
        payload_len: 4096,
        codec: Codec::None,
        entry: 0x40_0000,
        stack_pages: 1,
        requests: Bounded::default(),
        dependencies: Bounded::default(),
        flags: ManifestFlags::empty(),
        init_deadline_ms: 1,
        prepare_deadline_ms: 1,
        resources: Resources { frames, object_bytes: 0, max_priority: 1, threads: 1 },
        service: None,
        contract: Contract::default(),
        state_schema: 0,
    }
}

fn request(object: ObjectType, selector: Selector, rights: u16, amount: u64) -> CapRequest {
    CapRequest { slot: 1, object: object as u8, selector, rights, badge: None, amount, mandatory: true }
}

#[test]
fn policies_are_checked() {
    let check = |change: &dyn Fn(&mut Policy)| {
        let mut p = policy(vec![rule("a")], vec![scope("s", 1)]);
        change(&mut p);
        p.validate()
    };
    assert_eq!(check(&|_| {}), Ok(()));
    assert_eq!(check(&|p| p.sequence = 0), Err(RecordError::ZeroSequence));
    assert_eq!(check(&|p| p.algorithms = list(vec![])), Err(RecordError::BadAlgorithms));
    assert_eq!(check(&|p| p.algorithms = list(vec![1, 1])), Err(RecordError::BadAlgorithms));
    assert_eq!(check(&|p| p.max_decompressions = 0), Err(RecordError::BadLimit));
    assert_eq!(check(&|p| p.creation_burst = 0), Err(RecordError::BadLimit));
    assert_eq!(check(&|p| p.max_verifications = 0), Err(RecordError::BadLimit));
    assert_eq!(check(&|p| p.rules = list(vec![rule("a"); 2])), Err(RecordError::DuplicateName));
    for bad in [
        PolicyRule { object: 200, ..rule("a") },
        PolicyRule { rights: 0, ..rule("a") },
        PolicyRule { rights: 1 << 12, ..rule("a") },
        PolicyRule { rights: 1 << 15 | 1, ..rule("a") },
    ] {
        assert_eq!(check(&|p| p.rules = list(vec![bad])), Err(RecordError::BadRule));
    }
    assert_eq!(check(&|p| p.scopes = list(vec![scope("s", 0)])), Err(RecordError::BadScope));
    let idle = LoadScope { instances: 0, ..scope("s", 1) };
    assert_eq!(check(&|p| p.scopes = list(vec![idle])), Err(RecordError::BadScope));
    assert_eq!(check(&|p| p.scopes = list(vec![scope("s", 1), scope("t", 1)])), Err(RecordError::BadScope));
    let twice = vec![scope("s", 1), scope("s", 2)];
    assert_eq!(check(&|p| p.scopes = list(twice.clone())), Err(RecordError::DuplicateName));
}

#[test]
fn the_first_rule_that_permits_is_named_and_else_the_closest() {
    let grant = Selector::Grant(name("x"));
    let narrow = PolicyRule { publisher: Some(name("acme")), rights: 4, ..rule("narrow") };
    let wide = PolicyRule { module: Some(name("net")), rights: 0x1ff, amount: 9, ..rule("wide") };
    let p = policy(vec![narrow, wide], vec![]);
    let ask = |publisher, module, rights, amount| {
        p.permit(&manifest(publisher, module, 1), &request(ObjectType::Endpoint, grant, rights, amount))
    };
    assert_eq!(ask("acme", "a", 4, 0), Ok(0));
    assert_eq!(ask("other", "net.dns", 4, 9), Ok(1));
    assert_eq!(ask("acme", "net", 8, 0), Ok(1));
    assert_eq!(ask("acme", "a", 8, 0), Err(Forbidden::Rights(0)));
    assert_eq!(ask("acme", "a", 4, 1), Err(Forbidden::Amount(0)));
    assert_eq!(ask("acme", "net", 8, 10), Err(Forbidden::Amount(1)));
    assert_eq!(ask("other", "network", 4, 0), Err(Forbidden::NoRule));
    // ENDOW takes power away: no rule needs to name it.
    assert_eq!(ask("acme", "a", 4 | 1 << 15, 0), Ok(0));
}

#[test]
fn the_amount_of_the_own_pool_is_the_manifest_s_frames() {
    let pool = PolicyRule { object: ObjectType::Pool as u8, rights: 0x1ff, amount: 100, ..rule("pool") };
    let p = policy(vec![pool], vec![]);
    let own = request(ObjectType::Pool, Selector::OwnPool, 1, 0);
    assert_eq!(p.permit(&manifest("a", "b", 100), &own), Ok(0));
    assert_eq!(p.permit(&manifest("a", "b", 101), &own), Err(Forbidden::Amount(0)));
}

/// What a rule says, read literally.
fn literally(rule: &PolicyRule, m: &Manifest, r: &CapRequest) -> bool {
    let text = m.name.as_str();
    let named = match &rule.module {
        None => true,
        Some(prefix) => {
            let prefix = prefix.as_str();
            text == prefix
                || text.starts_with(&format!("{prefix}."))
                || text.starts_with(&format!("{prefix}-"))
        }
    };
    let asked = Rights::from_bits_truncate(r.rights) - Rights::ENDOW;
    let amount = if r.selector == Selector::OwnPool { m.resources.frames } else { r.amount };
    named
        && rule.publisher.is_none_or(|p| p.as_str() == m.publisher.as_str())
        && [0, r.object].contains(&rule.object)
        && asked.iter().all(|right| rule.rights & right.bits() != 0)
        && amount <= rule.amount
}

proptest! {
    #[test]
    fn a_policy_permits_exactly_what_some_rule_says(
        rules in proptest::collection::vec((0usize..3, 0usize..4, 0u8..5, 1u16..512, 0u64..4), 0..6),
        publisher in 0usize..2, module in 0usize..4, object in 1u8..5, rights in 1u16..512, amount in 0u64..4,
        own: bool,
    ) {
        let publishers = ["acme", "sila"];
        let modules = ["net", "net.dns", "network", "a"];
        let rules: Vec<_> = (0..).zip(rules).map(|(i, (p, m, object, rights, amount))| PolicyRule {
            name: name(&format!("r{i}")),
            publisher: publishers.get(p).map(|p| name(p)),
            module: ["net", "net.dns", "a"].get(m).map(|m| name(m)),
            object, rights, amount,
        }).collect();
        let m = manifest(publishers[publisher], modules[module], amount);
        let selector = if own { Selector::OwnPool } else { Selector::Grant(name("x")) };
        let r = CapRequest { object, ..request(ObjectType::Pool, selector, rights, amount) };
        let said = rules.iter().position(|rule| literally(rule, &m, &r));
        prop_assert_eq!(policy(rules, vec![]).permit(&m, &r).ok().map(usize::from), said);
    }

    #[test]
    fn prefixes_cover_whole_parts_of_names(a in "[a-z]{1,3}([.-][a-z]{1,2}){0,2}", b in "[a-z]{1,3}([.-][a-z]{1,2}){0,2}") {
        let parts = |s: &str| s.replace('-', ".").split('.').map(String::from).collect::<Vec<_>>();
        let (x, y) = (parts(&a), parts(&b));
        let literal = b.starts_with(&a) && y.len() >= x.len() && x == y[..x.len()];
        prop_assert_eq!(covers(&name(&a), &name(&b)), literal);
    }
}
