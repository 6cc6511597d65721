//! The rules of packages, manifests, images and payloads once more, read from the bytes by other code than that which
//! the guest runs. What that code accepts must keep every one of them; each function says which is broken.

use super::mutate::get;
use sila_abi::contract::{Contract, Node};
use sila_abi::manifest::{Codec, Manifest, ModuleKind, Selector};
use std::collections::BTreeSet;

/// Nothing, or the rule that is broken.
pub type Kept = Result<(), &'static str>;

fn rule(kept: bool, text: &'static str) -> Kept {
    if kept { Ok(()) } else { Err(text) }
}

/// Length of manifest, payload and each signature of a package.
pub fn package(bytes: &[u8]) -> Result<(usize, usize, usize), &'static str> {
    rule(bytes.get(..10) == Some(b"SILAPKG1\x01\x00"), "magic and format")?;
    rule(bytes.get(68..128).is_some_and(|b| b.iter().all(|b| *b == 0)), "reserved bytes")?;
    let (manifest, payload, signature) =
        (get(bytes, 12, 4), u128::from(get(bytes, 48, 8)), get(bytes, 64, 4));
    rule((1..=16384).contains(&manifest), "length of the manifest")?;
    rule((512..=65536).contains(&signature), "length of the signatures")?;
    rule(payload >= 1, "length of the payload")?;
    let sum = 128 + u128::from(manifest) + payload + 3 * u128::from(signature);
    rule(sum == bytes.len() as u128 && get(bytes, 56, 8) == bytes.len() as u64, "total length")?;
    Ok((manifest as usize, payload as usize, signature as usize))
}

/// Length of the manifest and of each signature of a load proof, behind which anything may follow.
pub fn proof(bytes: &[u8]) -> Result<(usize, usize), &'static str> {
    rule(bytes.get(..8) == Some(b"SILAPRF1"), "magic")?;
    rule(bytes.get(10..12) == Some(&[0; 2]) && bytes.get(60..64) == Some(&[0; 4]), "reserved bytes")?;
    let (manifest, signature) = (get(bytes, 12, 4), get(bytes, 56, 4));
    rule((1..=16384).contains(&manifest), "length of the manifest")?;
    rule((512..=65536).contains(&signature), "length of the signatures")?;
    let total = 64 + manifest + 2 * signature;
    rule(get(bytes, 48, 8) == total && total <= bytes.len() as u64, "total length")?;
    Ok((manifest as usize, signature as usize))
}

fn is_name(name: &[u8]) -> bool {
    (1..=64).contains(&name.len())
        && name.iter().all(|c| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-'))
}

/// The rules of a manifest by itself.
pub fn manifest(m: &Manifest) -> Kept {
    rule(m.format == 1, "format")?;
    rule(is_name(m.name.as_bytes()) && is_name(m.publisher.as_bytes()), "names")?;
    rule(m.flags.bits() < 8, "flags")?;
    let model = m.kind == ModuleKind::Model;
    rule((1..=64 << 20).contains(&m.image_len), "length of the image")?;
    rule(model || m.image_len.is_multiple_of(4096), "pages of the image")?;
    rule(m.payload_len >= 1, "length of the payload")?;
    let same = (m.payload_len, m.payload_digest) == (m.image_len, m.image_digest);
    rule(m.codec == Codec::Zstd || same, "codec")?;
    let inside = m.entry >= 0x10_0000 && m.entry < 0x7000_0000_0000;
    rule(if model { m.entry == 0 } else { inside }, "entry")?;
    let process = matches!(m.kind, ModuleKind::Service | ModuleKind::Agent);
    let fits = |value: u64, most: u64| if process { value >= 1 && value <= most } else { value == 0 };
    rule(fits(m.stack_pages.into(), 4096), "pages of the stack")?;
    rule(fits(m.resources.threads.into(), 64), "threads")?;
    rule(process || (m.service.is_none() && m.requests.is_empty()), "what is for processes only")?;
    for deadline in [m.init_deadline_ms, m.prepare_deadline_ms] {
        rule(deadline != 0 && deadline <= 600_000, "deadlines")?;
    }
    requests(m)?;
    let modules: BTreeSet<_> =
        m.dependencies.iter().map(|d| (d.publisher.as_str(), d.name.as_str())).collect();
    rule(modules.len() == m.dependencies.len(), "dependencies twice")?;
    rule(!modules.contains(&(m.publisher.as_str(), m.name.as_str())), "dependency on itself")?;
    rule(m.dependencies.iter().all(|d| d.versions.min <= d.versions.max), "versions of dependencies")?;
    contract(&m.contract)
}

fn requests(m: &Manifest) -> Kept {
    let slots: BTreeSet<u16> = m.requests.iter().map(|r| r.slot).collect();
    rule(slots.len() == m.requests.len() && m.requests.len() <= 32, "slots twice")?;
    for request in m.requests.iter() {
        rule((1..64).contains(&request.slot), "slots")?;
        let known = sila_abi::object::ObjectType::ALL.iter().filter(|t| t.name() != "Reply");
        rule(known.map(|t| *t as u8).any(|number| number == request.object), "object types")?;
        let all = sila_abi::rights::Rights::all().bits();
        let endow = sila_abi::rights::Rights::ENDOW.bits();
        rule(request.rights & !all == 0 && request.rights & !endow != 0, "rights")?;
        if let Selector::Grant(name) = &request.selector {
            rule(is_name(name.as_bytes()), "names of grants")?;
        }
        let twin = |other: &&sila_abi::manifest::CapRequest| other.selector == request.selector;
        rule(m.requests.iter().filter(twin).all(|o| o.object == request.object), "types of a grant")?;
    }
    Ok(())
}

/// Nodes refer to earlier ones of the right type: `true` for a truth value.
fn contract(c: &Contract) -> Kept {
    let mut types: Vec<bool> = Vec::new();
    for node in c.nodes.iter() {
        let is = |at: u8, truth: bool| types.get(usize::from(at)) == Some(&truth);
        let (fits, truth) = match *node {
            Node::Const(_) | Node::Fact(_) => (true, false),
            Node::And(a, b) | Node::Or(a, b) => (is(a, true) && is(b, true), true),
            Node::Not(a) => (is(a, true), true),
            Node::Eq(a, b) | Node::Lt(a, b) | Node::Le(a, b) => (is(a, false) && is(b, false), true),
        };
        rule(fits, "nodes of the contract")?;
        types.push(truth);
    }
    let roots = c.predicates.iter().all(|p| types.get(usize::from(p.root)) == Some(&true));
    rule(roots, "roots of the contract")?;
    let names: BTreeSet<&str> = c.predicates.iter().map(|p| p.name.as_str()).collect();
    rule(names.len() == c.predicates.len(), "predicates twice")?;
    let codes: BTreeSet<u32> = c.init_failure_codes.iter().copied().collect();
    rule(codes.len() == c.init_failure_codes.len() && !codes.contains(&0), "failure codes")
}

/// The rules of an image's first page, for an image of `length` bytes. Gives the ranges of code.
pub fn image(page: &[u8], length: u64) -> Result<Vec<std::ops::Range<u64>>, &'static str> {
    rule(page.len() == 4096 && page.get(..12) == Some(b"SILASIF1\x01\x00\x00\x00"), "magic and ABI")?;
    let (count, entry) = (get(page, 12, 4), get(page, 24, 8));
    rule(get(page, 16, 8) == length && length.is_multiple_of(4096) && length <= 64 << 20, "length")?;
    rule((1..=8).contains(&count), "number of segments")?;
    rule(page[352..].iter().all(|b| *b == 0), "reserved bytes")?;
    let (mut memory, mut file, mut code) = (0x10_0000, 4096, Vec::new());
    for at in (32..352).step_by(40) {
        let field = |offset, length| u128::from(get(page, at + offset, length));
        let [vaddr, mem_len, file_off, file_len] = [0, 8, 16, 24].map(|offset| field(offset, 8));
        if at >= 32 + 40 * count as usize {
            rule(page[at..at + 40].iter().all(|b| *b == 0), "unused segments")?;
            continue;
        }
        let permission = field(32, 4);
        rule(matches!(permission, 1 | 3 | 5) && field(36, 4) == 0, "permission")?;
        rule(vaddr.is_multiple_of(4096) && vaddr >= memory && mem_len >= 1, "place in memory")?;
        memory = (vaddr + mem_len).next_multiple_of(4096);
        rule(vaddr + mem_len <= 0x7000_0000_0000, "end of the window")?;
        rule(file_len == mem_len || (permission == 3 && file_len < mem_len), "length of the file part")?;
        rule(file_off == if file_len == 0 { 0 } else { file }, "place in the file")?;
        if file_len > 0 {
            file = (file_off + file_len).next_multiple_of(4096);
        }
        if permission == 5 {
            code.push(vaddr as u64..(vaddr + file_len) as u64);
        }
    }
    rule(file == u128::from(length), "end of the file")?;
    rule(code.iter().any(|range| range.contains(&entry)), "entry")?;
    Ok(code)
}

/// XXH64 with seed 0, as zstd's content checksum uses it.
fn xxh64(bytes: &[u8]) -> u64 {
    const P: [u64; 5] = [
        0x9e37_79b1_85eb_ca87,
        0xc2b2_ae3d_27d4_eb4f,
        0x1656_67b1_9e37_79f9,
        0x85eb_ca77_c2b2_ae63,
        0x27d4_eb2f_1656_67c5,
    ];
    let round =
        |acc: u64, lane: u64| acc.wrapping_add(lane.wrapping_mul(P[1])).rotate_left(31).wrapping_mul(P[0]);
    let mut rest = bytes;
    let mut hash = P[4];
    if bytes.len() >= 32 {
        let mut v = [P[0].wrapping_add(P[1]), P[1], 0, 0u64.wrapping_sub(P[0])];
        while rest.len() >= 32 {
            for (lane, acc) in v.iter_mut().enumerate() {
                *acc = round(*acc, get(rest, 8 * lane, 8));
            }
            rest = &rest[32..];
        }
        let turned = [1, 7, 12, 18].into_iter().zip(v).map(|(by, acc)| acc.rotate_left(by));
        hash = turned.fold(0, u64::wrapping_add);
        for acc in v {
            hash = (hash ^ round(0, acc)).wrapping_mul(P[0]).wrapping_add(P[3]);
        }
    }
    hash = hash.wrapping_add(bytes.len() as u64);
    while rest.len() >= 8 {
        hash = (hash ^ round(0, get(rest, 0, 8))).rotate_left(27).wrapping_mul(P[0]).wrapping_add(P[3]);
        rest = &rest[8..];
    }
    if rest.len() >= 4 {
        hash =
            (hash ^ get(rest, 0, 4).wrapping_mul(P[0])).rotate_left(23).wrapping_mul(P[1]).wrapping_add(P[2]);
        rest = &rest[4..];
    }
    for byte in rest {
        hash = (hash ^ u64::from(*byte).wrapping_mul(P[4])).rotate_left(11).wrapping_mul(P[0]);
    }
    hash = (hash ^ hash >> 33).wrapping_mul(P[1]);
    hash = (hash ^ hash >> 29).wrapping_mul(P[2]);
    hash ^ hash >> 32
}

/// The rules of a compressed payload that became `content`: a frame that says how long its content is, and whose
/// checksum at the very end is that of the content.
pub fn payload(frame: &[u8], content: &[u8]) -> Kept {
    rule(frame.get(..4) == Some(&[0x28, 0xb5, 0x2f, 0xfd]), "magic of the frame")?;
    let descriptor = frame.get(4).copied().unwrap_or(0);
    rule(descriptor & 0x04 != 0, "checksum flag")?;
    rule(descriptor & 0x1b == 0, "reserved bits and dictionary")?;
    let single = descriptor & 0x20 != 0;
    let at = if single { 5 } else { 6 };
    let size = match (descriptor >> 6, single) {
        (0, true) => get(frame, at, 1),
        (0, false) => return Err("content size"),
        (1, _) => get(frame, at, 2) + 256,
        (2, _) => get(frame, at, 4),
        (_, _) => get(frame, at, 8),
    };
    rule(size == content.len() as u64, "content size")?;
    let checksum = frame.len().checked_sub(4).map(|at| get(frame, at, 4));
    rule(checksum == Some(xxh64(content) & 0xffff_ffff), "checksum")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_xxh64() {
        assert_eq!(xxh64(b""), 0xef46_db37_51d8_e999);
        assert_eq!(xxh64(b"abc"), 0x44bc_2cf5_ad77_0999);
        let long: Vec<u8> = (0..1003u32).map(|i| i as u8).collect();
        let frame = crate::pkg::pack::compress(&long).unwrap();
        assert_eq!(payload(&frame, &long), Ok(()));
        assert_eq!(payload(&frame, &long[1..]), Err("content size"));
        let mut other = long.clone();
        other[500] ^= 1;
        assert_eq!(payload(&frame, &other), Err("checksum"));
    }
}
