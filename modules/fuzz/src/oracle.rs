//! What a hostile ModuleManager must not bring about, as decisions on what the kernel tells.

use alloc::vec::Vec;
use sila_abi::boot::Floor;
use sila_abi::manifest::Manifest;

/// A capability as the kernel lists it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cap {
    /// Its slot.
    pub slot: u64,
    /// The object's type, by number.
    pub kind: u64,
    /// The rights.
    pub rights: u64,
    /// The badge.
    pub badge: u64,
    /// The request that it was endowed for, counted from 1; 0 if it came otherwise.
    pub request: u64,
}

/// The first capability of a process that runs this manifest, and has done nothing itself, for which the manifest does not ask
/// just so.
pub fn excess(caps: &[Cap], manifest: &Manifest) -> Option<Cap> {
    let asked = |cap: &Cap| {
        let index = usize::try_from(cap.request).ok()?.checked_sub(1)?;
        let request = manifest.requests.get(index)?;
        let fits = cap.slot == u64::from(request.slot)
            && cap.kind == u64::from(request.object)
            && cap.rights == u64::from(request.rights)
            && request.badge.is_none_or(|badge| badge == cap.badge);
        fits.then_some(())
    };
    let twice = |at: usize, cap: &Cap| caps.iter().take(at).any(|other| other.request == cap.request);
    caps.iter().enumerate().find(|(at, cap)| asked(cap).is_none() || twice(*at, cap)).map(|(_, cap)| *cap)
}

/// The first floor that was lowered or has gone.
pub fn lowered(before: &[Floor], now: &[Floor]) -> Option<Floor> {
    let kept = |old: &Floor| {
        let same = |new: &&Floor| new.publisher == old.publisher && new.name == old.name;
        now.iter().find(same).is_some_and(|new| new.security_version >= old.security_version)
    };
    before.iter().find(|old| !kept(old)).copied()
}

/// The manifests that a process of this name and version may run: versions that were signed twice have two.
pub fn candidates<'a>(all: &'a [Manifest], publisher: &str, name: &str, version: u64) -> Vec<&'a Manifest> {
    let packed = |m: &Manifest| {
        let v = m.version;
        u64::from(v.major) << 32 | u64::from(v.minor) << 16 | u64::from(v.patch)
    };
    let fits =
        |m: &&Manifest| m.publisher.as_str() == publisher && m.name.as_str() == name && packed(m) == version;
    all.iter().filter(fits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sila_abi::contract::Contract;
    use sila_abi::manifest::{CapRequest, Codec, ManifestFlags, ModuleKind, Resources, Selector};
    use sila_abi::record::{Bounded, Name, Version};
    use sila_abi::{ObjectType, Rights};

    fn manifest() -> Manifest {
        let request = |slot, object: ObjectType, rights: Rights, badge| CapRequest {
            slot,
            object: object as u8,
            selector: Selector::Grant(Name::new("x").unwrap()),
            rights: rights.bits(),
            badge,
            amount: 0,
            mandatory: false,
        };
        let requests = vec![
            request(3, ObjectType::Pool, Rights::READ, None),
            request(8, ObjectType::Endpoint, Rights::SEND, Some(5)),
        ];
        Manifest {
            format: 1,
            name: Name::new("a").unwrap(),
            version: Version::new(1, 0, 0),
            security_version: 1,
            kind: ModuleKind::Service,
            publisher: Name::new("sila").unwrap(),
            key_id: [0; 32],
            algorithm: 1,
            image_digest: [0; 32],
            image_len: 4096,
            payload_digest: [0; 32],
            payload_len: 4096,
            codec: Codec::None,
            entry: 0,
            stack_pages: 1,
            requests: Bounded::from_vec(requests).unwrap(),
            dependencies: Bounded::default(),
            flags: ManifestFlags::empty(),
            init_deadline_ms: 1,
            prepare_deadline_ms: 1,
            resources: Resources { frames: 1, object_bytes: 1, max_priority: 1, threads: 1 },
            service: None,
            contract: Contract::default(),
            state_schema: 0,
        }
    }

    #[test]
    fn every_way_to_have_more_than_was_asked_for_is_seen() {
        let manifest = manifest();
        let pool = Cap {
            slot: 3,
            kind: ObjectType::Pool as u64,
            rights: Rights::READ.bits().into(),
            badge: 0,
            request: 1,
        };
        let endpoint = Cap {
            slot: 8,
            kind: ObjectType::Endpoint as u64,
            rights: Rights::SEND.bits().into(),
            badge: 5,
            request: 2,
        };
        assert_eq!(excess(&[], &manifest), None);
        assert_eq!(excess(&[pool, endpoint], &manifest), None);
        for odd in [
            Cap { slot: 9, ..endpoint },
            Cap { kind: 1, ..endpoint },
            Cap { rights: u64::from((Rights::SEND | Rights::RECV).bits()), ..endpoint },
            Cap { rights: 0, ..endpoint },
            Cap { badge: 6, ..endpoint },
            Cap { request: 0, ..endpoint },
            Cap { request: 1, ..endpoint },
            Cap { request: 3, ..endpoint },
            Cap { request: u64::MAX, ..endpoint },
        ] {
            assert_eq!(excess(&[pool, odd], &manifest), Some(odd));
        }
        assert_eq!(excess(&[pool, endpoint, endpoint], &manifest), Some(endpoint));
    }

    #[test]
    fn a_floor_that_sinks_or_vanishes_is_seen() {
        let floor = |name, security_version| Floor {
            publisher: Name::new("sila").unwrap(),
            name: Name::new(name).unwrap(),
            security_version,
        };
        let before = [floor("a", 2), floor("b", 5)];
        assert_eq!(lowered(&before, &[floor("b", 6), floor("a", 2), floor("c", 0)]), None);
        assert_eq!(lowered(&before, &[floor("a", 2), floor("b", 4)]), Some(before[1]));
        assert_eq!(lowered(&before, &[floor("b", 5)]), Some(before[0]));
    }

    #[test]
    fn manifests_are_found_by_publisher_name_and_version() {
        let all = [manifest()];
        let version = u64::from(all[0].version.major) << 32;
        let (publisher, name) = (all[0].publisher.as_str(), all[0].name.as_str());
        assert_eq!(candidates(&all, publisher, name, version).len(), 1);
        assert!(candidates(&all, publisher, name, version + 1).is_empty());
        assert!(candidates(&all, "other", name, version).is_empty());
    }
}
