//! Changes of a manifest's fields, and of numbers and bytes in general.

use fuzz::random::Random;
use sila_abi::contract::{Node, Predicate};
use sila_abi::manifest::{CapRequest, Codec, Dependency, Manifest, ManifestFlags, ModuleKind, Selector};
use sila_abi::record::{Bounded, Name, Version};

/// A number that a check may have forgotten about.
pub fn odd(r: &mut Random, old: u64) -> u64 {
    match r.below(9) {
        0 => 0,
        1 => 1,
        2 => old.wrapping_sub(1),
        3 => old.wrapping_add(1),
        4 => u64::MAX,
        5 => 1 << r.below(64),
        6 => (1u64 << r.below(64)).wrapping_sub(1),
        7 => old ^ 1 << r.below(64),
        _ => r.draw(),
    }
}

/// Flips, sets, doubles, drops or inserts a few bytes.
pub fn scramble(r: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..=r.below(3) {
        if bytes.is_empty() {
            bytes.push(r.draw() as u8);
            continue;
        }
        let at = r.below(bytes.len() as u64) as usize;
        match r.below(7) {
            0 | 1 => bytes[at] ^= 1 << r.below(8),
            2 => bytes[at] = odd(r, bytes[at].into()) as u8,
            3 => bytes.truncate(at),
            4 => bytes.insert(at, r.draw() as u8),
            5 => drop(bytes.remove(at)),
            _ => {
                let end = at + r.below(16).min((bytes.len() - at) as u64) as usize;
                let piece = bytes[at..end].to_vec();
                let to = r.below(bytes.len() as u64 + 1) as usize;
                bytes.splice(to..to, piece);
            }
        }
    }
}

/// A name that is written here.
#[allow(clippy::panic, reason = "decided when the tool is compiled")]
const fn name(text: &str) -> Name {
    match Name::new(text) {
        Ok(name) => name,
        Err(_) => panic!("it is no name"),
    }
}

const NAMES: [Name; 8] = [
    name("tiny"),
    name("other"),
    name("other-x"),
    name("otherx"),
    name("floored"),
    name("recalled"),
    name("sila"),
    name("a.b-c"),
];

fn some_name(r: &mut Random) -> Name {
    let [first, ..] = NAMES;
    r.pick(&NAMES).copied().unwrap_or(first)
}

/// A list with an item changed, doubled, dropped or moved; or with as many as fit, and one more.
fn relist<T: Clone, const N: usize>(
    r: &mut Random,
    items: &mut Bounded<T, N>,
    change: impl FnOnce(&mut Random, &mut T),
) {
    let mut all = items.to_vec();
    let at = r.below(all.len() as u64) as usize;
    match (r.below(6), all.get(at).cloned()) {
        (0..=2, Some(_)) => change(r, &mut all[at]),
        (3, Some(item)) => all.push(item),
        (4, Some(_)) => drop(all.remove(at)),
        (5, Some(_)) => all.rotate_left(1),
        _ => {}
    }
    if let Ok(all) = Bounded::from_vec(all) {
        *items = all;
    }
}

fn change_request(r: &mut Random, request: &mut CapRequest) {
    match r.below(7) {
        0 => request.slot = odd(r, request.slot.into()) as u16,
        1 => request.object = odd(r, request.object.into()) as u8,
        2 => request.rights = odd(r, request.rights.into()) as u16,
        3 => request.badge = if r.once_in(2) { None } else { Some(r.draw()) },
        4 => request.amount = odd(r, request.amount),
        5 => request.mandatory = !request.mandatory,
        _ => {
            request.selector = match r.below(4) {
                0 => Selector::OwnPool,
                1 => Selector::OwnProcess,
                2 => Selector::OwnThread,
                _ => Selector::Grant(some_name(r)),
            }
        }
    }
}

fn change_dependency(r: &mut Random, dependency: &mut Dependency) {
    match r.below(4) {
        0 => dependency.publisher = some_name(r),
        1 => dependency.name = some_name(r),
        2 => std::mem::swap(&mut dependency.versions.min, &mut dependency.versions.max),
        _ => dependency.export_digest[0] ^= 1,
    }
}

fn change_node(r: &mut Random, node: &mut Node) {
    let (a, b) = (r.below(8) as u8, r.below(8) as u8);
    *node = match r.below(8) {
        0 => Node::Const(r.draw()),
        1 => Node::Fact(some_name(r)),
        2 => Node::And(a, b),
        3 => Node::Or(a, b),
        4 => Node::Not(a),
        5 => Node::Eq(a, b),
        6 => Node::Lt(a, b),
        _ => Node::Le(a, b),
    };
}

fn change_predicate(r: &mut Random, predicate: &mut Predicate) {
    match r.below(2) {
        0 => predicate.root = odd(r, predicate.root.into()) as u8,
        _ => predicate.name = some_name(r),
    }
}

fn change_identity(r: &mut Random, m: &mut Manifest, other: &Manifest) {
    match r.below(9) {
        0 => m.format = odd(r, m.format.into()) as u16,
        1 => m.name = if r.once_in(2) { other.name } else { some_name(r) },
        2 => m.version = Version::new(r.below(3) as u16, odd(r, 0) as u16, r.below(3) as u16),
        3 => m.security_version = odd(r, m.security_version.into()) as u32,
        4 => {
            m.kind = match r.below(4) {
                0 => ModuleKind::Service,
                1 => ModuleKind::Library,
                2 => ModuleKind::Agent,
                _ => ModuleKind::Model,
            }
        }
        5 => m.publisher = if r.once_in(2) { other.publisher } else { some_name(r) },
        6 => m.key_id = if r.once_in(2) { other.key_id } else { [r.draw() as u8; 32] },
        7 => m.algorithm = odd(r, m.algorithm.into()) as u16,
        _ => m.state_schema = odd(r, m.state_schema.into()) as u32,
    }
}

fn change_content(r: &mut Random, m: &mut Manifest, other: &Manifest) {
    match r.below(7) {
        0 => m.image_digest = if r.once_in(2) { other.image_digest } else { m.payload_digest },
        1 => m.image_len = odd(r, m.image_len),
        2 => m.payload_digest = if r.once_in(2) { other.payload_digest } else { m.image_digest },
        3 => m.payload_len = odd(r, m.payload_len),
        4 => m.codec = if m.codec == Codec::None { Codec::Zstd } else { Codec::None },
        5 => m.entry = odd(r, m.entry),
        _ => (m.payload_len, m.payload_digest) = (m.image_len, m.image_digest),
    }
}

fn change_limits(r: &mut Random, m: &mut Manifest) {
    match r.below(9) {
        0 => m.stack_pages = odd(r, m.stack_pages.into()) as u32,
        1 => m.flags = ManifestFlags::from_bits_retain(odd(r, m.flags.bits().into()) as u32),
        2 => m.init_deadline_ms = odd(r, m.init_deadline_ms.into()) as u32,
        3 => m.prepare_deadline_ms = odd(r, m.prepare_deadline_ms.into()) as u32,
        4 => m.resources.frames = odd(r, m.resources.frames),
        5 => m.resources.object_bytes = odd(r, m.resources.object_bytes),
        6 => m.resources.max_priority = odd(r, m.resources.max_priority.into()) as u8,
        7 => m.resources.threads = odd(r, m.resources.threads.into()) as u16,
        _ => m.contract.fault_entry = if r.once_in(3) { None } else { Some(odd(r, m.entry)) },
    }
}

fn change_lists(r: &mut Random, m: &mut Manifest, other: &Manifest) {
    match r.below(7) {
        0 => relist(r, &mut m.requests, change_request),
        1 => relist(r, &mut m.dependencies, change_dependency),
        2 => relist(r, &mut m.contract.nodes, change_node),
        3 => relist(r, &mut m.contract.predicates, change_predicate),
        4 => relist(r, &mut m.contract.init_failure_codes, |r, code| *code = odd(r, 1) as u32),
        5 => (m.requests, m.dependencies) = (other.requests.clone(), other.dependencies.clone()),
        _ => m.service = if m.service.is_some() { None } else { other.service },
    }
}

/// Changes one to three fields; `other` is where parts of another manifest come from.
pub fn change(r: &mut Random, m: &mut Manifest, other: &Manifest) {
    for _ in 0..=r.below(3) {
        match r.below(4) {
            0 => change_identity(r, m, other),
            1 => change_content(r, m, other),
            2 => change_limits(r, m),
            _ => change_lists(r, m, other),
        }
    }
}
