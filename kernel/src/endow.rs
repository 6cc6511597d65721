//! Endowment: which capabilities a new process gets. A pure function of the verified manifest's requests
//! and of the sources that the creator named.
//!
//! Each request is granted whole or not at all. A mandatory one that cannot be granted fails the
//! creation, with the request's index; an optional one is left out. Nothing is narrowed.

use sila_abi::manifest::{CapRequest, MAX_REQUESTS, Manifest, Selector};
use sila_abi::policy::{Forbidden, Policy};
use sila_abi::{Error, ObjectType, Rights, Slot};

use crate::cap::{Cap, CapId, Origin};
use crate::kernel::Fail;

/// A source that the creator names for a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Source {
    /// The capability.
    pub cap: Cap,
    /// Where it lies, if it is to be the parent of the grant.
    pub parent: Option<CapId>,
    /// Whether its object still lives.
    pub alive: bool,
    /// How much it can give: frames that a Pool has left, bytes of a Region; other types have no amount.
    pub amount: u64,
    /// How much comes with it: the frames of a Pool's quota, bytes of a Region; of other types 0.
    pub whole: u64,
}

/// What one granted request turns into.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Grant {
    /// The new process's own Pool, process or thread, with these rights.
    Own(Selector, Rights),
    /// A child of a source.
    Child {
        /// The new capability.
        cap: Cap,
        /// Its parent, if the source lies in a CSpace.
        parent: Option<CapId>,
    },
}

/// The whole endowment of a process.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    grants: [Option<(Slot, Grant, Origin)>; MAX_REQUESTS],
    /// Sequence of the policy; 0 for the boot manifest.
    pub policy: u64,
}

impl Plan {
    /// The same but for the grant in this slot.
    #[cfg(test)]
    pub fn without(mut self, slot: Slot) -> Self {
        self.grants.iter_mut().filter(|g| g.is_some_and(|(s, ..)| s == slot)).for_each(|g| *g = None);
        self
    }

    /// The grants: slot, capability, and by which request and rule.
    pub fn grants(&self) -> impl Iterator<Item = (Slot, Grant, Origin)> + '_ {
        self.grants.iter().flatten().copied()
    }
}

/// Rights that a process may ask for on its own objects.
pub fn own_rights(selector: Selector) -> Option<(ObjectType, Rights)> {
    match selector {
        Selector::OwnPool => {
            Some((ObjectType::Pool, Rights::READ | Rights::CREATE | Rights::COPY | Rights::GRANT))
        }
        // WRITE, the right to map into a process and to make threads in it, is its own alone: who loads a
        // module does not get control of what runs in it.
        Selector::OwnProcess => {
            Some((ObjectType::Process, Rights::READ | Rights::WRITE | Rights::MANAGE | Rights::COPY))
        }
        Selector::OwnThread => Some((ObjectType::Thread, Rights::READ | Rights::MANAGE | Rights::COPY)),
        Selector::Grant(_) => None,
    }
}

/// Who says what a process may get.
#[derive(Clone, Copy, Debug)]
pub enum Authority<'a> {
    /// The boot manifest, which names every grant.
    BootManifest,
    /// The policy in force, for this module.
    Policy(&'a Policy, &'a Manifest),
}

/// Decides every request. `source_of` names the creator's source for a request's index.
pub fn plan(
    requests: &[CapRequest],
    authority: Authority<'_>,
    source_of: impl Fn(usize) -> Option<Source>,
) -> Result<Plan, Fail> {
    let policy = if let Authority::Policy(policy, _) = authority { policy.sequence } else { 0 };
    let mut plan = Plan { grants: [None; MAX_REQUESTS], policy };
    for ((index, request), entry) in requests.iter().enumerate().zip(&mut plan.grants) {
        let source = source_of(index);
        let whole = source.filter(|_| own_rights(request.selector).is_none()).map_or(0, |s| s.whole);
        let decision = authority.permit(request, index, whole).and_then(|rule| {
            let grant = decide(request, source).map_err(|e| Fail::with(e, index as u64))?;
            Ok((Slot(request.slot), grant, Origin { request: index as u8 + 1, rule }))
        });
        match decision {
            Ok(grant) => *entry = Some(grant),
            Err(why) if request.mandatory => return Err(why),
            Err(_) => {}
        }
    }
    Ok(plan)
}

impl Authority<'_> {
    /// The rule of the policy that permits a request, from 1; 0 for the boot manifest.
    fn permit(self, request: &CapRequest, index: usize, whole: u64) -> Result<u8, Fail> {
        let Self::Policy(policy, manifest) = self else { return Ok(0) };
        policy.permit_from(manifest, request, whole).map(|rule| rule.saturating_add(1)).map_err(|why| {
            let closest = match why {
                Forbidden::NoRule => 0,
                Forbidden::Rights(rule) | Forbidden::Amount(rule) => u64::from(rule) + 1,
            };
            Fail::with_both(Error::RequestPolicy, index as u64, closest)
        })
    }
}

/// Decides one request.
pub fn decide(request: &CapRequest, source: Option<Source>) -> Result<Grant, Error> {
    let wanted = Rights::from_bits(request.rights).ok_or(Error::RequestRights)?;
    if let Some((kind, allowed)) = own_rights(request.selector) {
        if request.object != kind as u8 {
            return Err(Error::RequestWrongType);
        }
        if !allowed.contains(wanted) {
            return Err(Error::RequestRights);
        }
        return Ok(Grant::Own(request.selector, wanted));
    }
    let source = source.ok_or(Error::RequestNotGranted)?;
    let held = source.cap.rights;
    if !source.alive {
        return Err(Error::SourceGone);
    }
    if source.cap.object.kind as u8 != request.object || source.cap.object.kind == ObjectType::Reply {
        return Err(Error::RequestWrongType);
    }
    let may_pass_on = held.contains(Rights::ENDOW) || held.contains(Rights::COPY);
    if !may_pass_on || !held.contains(wanted.difference(Rights::ENDOW)) {
        return Err(Error::RequestRights);
    }
    let badge = match request.badge {
        None => source.cap.badge,
        Some(b) if b == source.cap.badge || source.cap.badge == 0 => b,
        Some(_) => return Err(Error::RequestBadge),
    };
    if request.amount > source.amount {
        return Err(Error::RequestAmount);
    }
    let cap = Cap { object: source.cap.object, rights: wanted, badge, origin: Origin::NONE };
    Ok(Grant::Child { cap, parent: source.parent })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cap::ObjRef;
    use proptest::prelude::*;
    use sila_abi::record::Name;

    fn request(object: ObjectType, rights: Rights, badge: Option<u64>, mandatory: bool) -> CapRequest {
        let selector = Selector::Grant(Name::new("x").unwrap());
        CapRequest {
            slot: 9,
            object: object as u8,
            selector,
            rights: rights.bits(),
            badge,
            amount: 0,
            mandatory,
        }
    }

    fn source(object: ObjectType, rights: Rights, badge: u64) -> Source {
        let object = ObjRef { kind: object, index: 0, generation: 1 };
        Source {
            cap: Cap { object, rights, badge, origin: Origin::NONE },
            parent: None,
            alive: true,
            amount: 0,
            whole: 0,
        }
    }

    #[test]
    fn a_grant_is_whole_or_refused_with_its_rule() {
        use ObjectType::{Endpoint, Pool};
        let r = request(Endpoint, Rights::SEND | Rights::GRANT, None, true);
        let all = Rights::SEND | Rights::GRANT | Rights::COPY;
        assert!(decide(&r, Some(source(Endpoint, all, 7))).is_ok());
        assert_eq!(decide(&r, None), Err(Error::RequestNotGranted));
        assert_eq!(decide(&r, Some(source(Pool, all, 0))), Err(Error::RequestWrongType));
        assert_eq!(
            decide(&r, Some(source(Endpoint, Rights::SEND | Rights::COPY, 0))),
            Err(Error::RequestRights)
        );
        assert_eq!(
            decide(&r, Some(source(Endpoint, Rights::SEND | Rights::GRANT, 0))),
            Err(Error::RequestRights)
        );
        let gone = Source { alive: false, ..source(Endpoint, all, 0) };
        assert_eq!(decide(&r, Some(gone)), Err(Error::SourceGone));
        let badged = request(Endpoint, Rights::SEND, Some(3), true);
        assert_eq!(decide(&badged, Some(source(Endpoint, all, 4))), Err(Error::RequestBadge));
    }

    #[test]
    fn endow_only_sources_can_be_passed_on_and_lose_the_mark() {
        let s = source(ObjectType::Endpoint, Rights::SEND | Rights::ENDOW, 5);
        let Ok(Grant::Child { cap, .. }) =
            decide(&request(ObjectType::Endpoint, Rights::SEND, None, true), Some(s))
        else {
            panic!("refused")
        };
        assert_eq!((cap.rights, cap.badge), (Rights::SEND, 5));
    }

    #[test]
    fn optional_requests_are_left_out_and_mandatory_ones_fail_by_index() {
        let optional = request(ObjectType::Pool, Rights::READ, None, false);
        let mandatory = request(ObjectType::Pool, Rights::READ, None, true);
        assert_eq!(plan(&[optional], Authority::BootManifest, |_| None).unwrap().grants().count(), 0);
        let fail = plan(&[optional, mandatory], Authority::BootManifest, |_| None).unwrap_err();
        assert_eq!(fail, Fail::with(Error::RequestNotGranted, 1));
    }

    proptest! {
        #[test]
        fn no_grant_ever_exceeds_request_or_source(want in 0u16..512, held in 0u16..512, endow: bool, badge in 0u64..3, ask in proptest::option::of(0u64..3)) {
            let mut held = Rights::from_bits_truncate(held);
            held.set(Rights::ENDOW, endow);
            let want = Rights::from_bits_truncate(want);
            let r = request(ObjectType::Endpoint, want, ask, true);
            match decide(&r, Some(source(ObjectType::Endpoint, held, badge))) {
                Ok(Grant::Child { cap, .. }) => {
                    prop_assert_eq!(cap.rights, want);
                    prop_assert!(held.contains(want));
                    prop_assert!(endow || held.contains(Rights::COPY));
                    prop_assert!(badge == 0 || cap.badge == badge);
                }
                Ok(Grant::Own(..)) => prop_assert!(false),
                Err(_) => prop_assert!(
                    !held.contains(want)
                        || !(endow || held.contains(Rights::COPY))
                        || ask.is_some_and(|a| badge != 0 && a != badge)
                ),
            }
        }
    }
}
