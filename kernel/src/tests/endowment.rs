//! Endowment against an oracle that was written apart from it: over a whole small domain, and at random.

use proptest::prelude::*;
use sila_abi::manifest::{CapRequest, Selector};

use super::*;
use crate::cap::{CapId, ObjRef};
use crate::endow::{self, Grant, Source};

/// The rights that the small domain is made of.
const RIGHTS: [Rights; 3] = [Rights::SEND, Rights::GRANT, Rights::COPY];

fn some_rights(bits: u8) -> Rights {
    let chosen = RIGHTS.iter().enumerate().filter(|(i, _)| bits >> i & 1 == 1);
    chosen.fold(Rights::empty(), |all, (_, right)| all | *right)
}

/// What the book says about one request and one source: the capability, or why there is none.
fn oracle(r: &CapRequest, source: Option<&Source>) -> Result<(ObjectType, u16, u64), Error> {
    let asked: Vec<u16> = (0..16).map(|bit| 1 << bit).filter(|bit| r.rights & bit != 0).collect();
    let Some(s) = source else { return Err(Error::RequestNotGranted) };
    if !s.alive {
        return Err(Error::SourceGone);
    }
    if s.cap.object.kind as u8 != r.object {
        return Err(Error::RequestWrongType);
    }
    let held = s.cap.rights.bits();
    let has = |right: Rights| held & right.bits() != 0;
    if !has(Rights::ENDOW) && !has(Rights::COPY) {
        return Err(Error::RequestRights);
    }
    if asked.iter().any(|bit| *bit != Rights::ENDOW.bits() && held & bit == 0) {
        return Err(Error::RequestRights);
    }
    let badge = match (r.badge, s.cap.badge) {
        (None, theirs) => theirs,
        (Some(asked), 0) => asked,
        (Some(asked), theirs) if asked == theirs => asked,
        _ => return Err(Error::RequestBadge),
    };
    if r.amount > s.amount {
        return Err(Error::RequestAmount);
    }
    Ok((s.cap.object.kind, r.rights, badge))
}

fn source(kind: ObjectType, rights: Rights, badge: u64, alive: bool, amount: u64) -> Source {
    let object = ObjRef { kind, index: 3, generation: 1 };
    let cap = Cap { object, rights, badge, origin: Origin::NONE };
    Source { cap, parent: Some(CapId::in_cspace(1, 9)), alive, amount, whole: amount }
}

fn request(kind: ObjectType, rights: Rights, badge: Option<u64>, amount: u64, mandatory: bool) -> CapRequest {
    let selector = Selector::Grant(Name::new("x").unwrap());
    CapRequest { slot: 9, object: kind as u8, selector, rights: rights.bits(), badge, amount, mandatory }
}

fn agrees(r: &CapRequest, s: Option<Source>) {
    let got = endow::decide(r, s).map(|grant| {
        let Grant::Child { cap, parent } = grant else { panic!("a grant of one's own") };
        assert_eq!(parent, s.and_then(|s| s.parent), "a child of its source");
        assert_eq!(cap.object, s.unwrap().cap.object);
        (cap.object.kind, cap.rights.bits(), cap.badge)
    });
    assert_eq!(got, oracle(r, s.as_ref()), "{r:?} from {s:?}");
}

/// Every combination of two types, all sets of three rights and ENDOW on both sides, badges 0 to 2, amounts, and a source that
/// is there, dead or missing.
#[test]
fn every_request_of_a_small_domain_is_decided_as_the_book_says() {
    let kinds = [ObjectType::Endpoint, ObjectType::Pool];
    let badges = [None, Some(0), Some(1), Some(2)];
    let mut cases = 0u32;
    for (asked_kind, want, ask_endow, ask_badge, amount) in itertools(&kinds, &badges) {
        let rights = some_rights(want) | if ask_endow { Rights::ENDOW } else { Rights::empty() };
        let r = request(asked_kind, rights, ask_badge, amount, true);
        agrees(&r, None);
        for kind in kinds {
            for held in 0..16u8 {
                for badge in 0..3 {
                    for (alive, has) in [(true, 1), (false, 1), (true, 0)] {
                        let held_rights =
                            some_rights(held) | if held & 8 != 0 { Rights::ENDOW } else { Rights::empty() };
                        agrees(&r, Some(source(kind, held_rights, badge, alive, has)));
                        cases += 1;
                    }
                }
            }
        }
    }
    assert_eq!(cases, 2 * 8 * 2 * 4 * 2 * (2 * 16 * 3 * 3));
}

/// The askers' side of the domain.
fn itertools(kinds: &[ObjectType], badges: &[Option<u64>]) -> Vec<(ObjectType, u8, bool, Option<u64>, u64)> {
    let mut all = Vec::new();
    for kind in kinds {
        for want in 0..8 {
            for endow in [false, true] {
                for badge in badges {
                    for amount in 0..2 {
                        all.push((*kind, want, endow, *badge, amount));
                    }
                }
            }
        }
    }
    all
}

proptest! {
    /// The whole plan: exactly the requests that the oracle grants, each in its slot and with its origin; or the
    /// first mandatory one that it refuses, by index and error.
    #[test]
    fn a_plan_holds_exactly_what_the_oracle_grants(
        asked in proptest::collection::vec((1u16..512, proptest::option::of(0u64..3), 0u64..3, any::<bool>()), 0..12),
        held in proptest::collection::vec(proptest::option::of((0u16..512, any::<bool>(), 0u64..3, any::<bool>(), 0u64..3)), 12),
    ) {
        let requests: Vec<_> = (1..).zip(&asked).map(|(slot, (rights, badge, amount, mandatory))| CapRequest {
            slot,
            ..request(ObjectType::Endpoint, Rights::from_bits_truncate(*rights), *badge, *amount, *mandatory)
        }).collect();
        let sources: Vec<_> = held.iter().map(|h| h.map(|(rights, endow, badge, alive, amount)| {
            let endow = if endow { Rights::ENDOW } else { Rights::empty() };
            source(ObjectType::Endpoint, Rights::from_bits_truncate(rights) | endow, badge, alive, amount)
        })).collect();
        let said: Vec<_> = requests.iter().zip(&sources).map(|(r, s)| oracle(r, s.as_ref())).collect();
        let refusal = said.iter().enumerate().find(|(i, s)| s.is_err() && requests[*i].mandatory);
        let plan = endow::plan(&requests, endow::Authority::BootManifest, |i| sources[i]);
        match (plan, refusal) {
            (Err(fail), Some((i, why))) => {
                prop_assert_eq!((fail.error, fail.detail), (why.unwrap_err(), Some(i as u64)));
            }
            (Ok(plan), None) => {
                let got: Vec<_> = plan.grants().map(|(slot, _, origin)| (slot.0, origin.request)).collect();
                let want: Vec<_> = (1u16..).zip(&said).filter(|(_, s)| s.is_ok()).map(|(i, _)| (i, i as u8)).collect();
                prop_assert_eq!(got, want);
            }
            (plan, refusal) => prop_assert!(false, "{:?} but {:?}", plan.map(|_| ()), refusal),
        }
    }
}
