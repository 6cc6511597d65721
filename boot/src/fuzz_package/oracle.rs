//! Whether a package may be accepted, decided without the chain's code: by the rules once more, and by making the
//! signatures again, which have only one form.

use super::corpus::Corpus;
use super::mutate::get;
use super::rules::{self, Kept};
use crate::pkg::keys::PublisherKey;
use crate::pkg::tamper::{FLOORED, OTHER, RECALLED};
use sila_abi::manifest::{Codec, Manifest, ModuleKind};
use sila_abi::record::Version;
use sila_crypto::hash::{bulk_digest, id_digest};
use sila_crypto::scheme::Domain;

fn rule(kept: bool, text: &'static str) -> Kept {
    if kept { Ok(()) } else { Err(text) }
}

/// Nothing if the system of the corpus may accept the package; else the rule against it.
pub fn acceptable(bytes: &[u8], corpus: &Corpus) -> Kept {
    let (manifest_len, payload_len, sig_len) = rules::package(bytes)?;
    let (signed, signatures) = bytes.split_at(128 + manifest_len + payload_len);
    let (encoded, payload) = signed[128..].split_at(manifest_len);
    let key_id = &bytes[16..48];
    let signer = corpus.publishers.iter().find(|p| p.key.id() == key_id).ok_or("a known key")?;
    rule(get(bytes, 10, 2) == 1, "algorithm of the header")?;
    let manifest = Manifest::decode(encoded).map_err(|_| "a manifest")?;
    rule(manifest.encode().as_deref() == Ok(encoded), "one encoding")?;
    rules::manifest(&manifest)?;
    rule(manifest.key_id == *key_id && manifest.algorithm == 1, "key and algorithm of the manifest")?;
    authority(&manifest, signer)?;
    rule(manifest.payload_len == payload_len as u64, "length of the payload")?;
    rule(manifest.payload_digest == bulk_digest(payload), "digest of the payload")?;
    let made = statements(signed, encoded, &manifest);
    for ((domain, message), signature) in made.iter().zip(signatures.chunks(sig_len)) {
        let again = signer.key.sign(*domain, message).map_err(|_| "signing again")?;
        rule(again == signature, "signature")?;
    }
    content(&manifest, payload)
}

/// What the three signatures are over, written down field by field.
fn statements(signed: &[u8], encoded: &[u8], m: &Manifest) -> [(Domain, Vec<u8>); 3] {
    let head = |length: u64, digest: [u8; 32]| {
        let mut out = vec![1, 0, 0, 0, 0, 0, 0, 0];
        out.extend(m.key_id);
        out.extend(length.to_le_bytes());
        out.extend(digest);
        out
    };
    let mut binary = vec![1, 0];
    for number in [m.version.major, m.version.minor, m.version.patch] {
        binary.extend(number.to_le_bytes());
    }
    binary.extend(m.key_id);
    for name in [&m.publisher, &m.name] {
        let mut padded = name.as_bytes().to_vec();
        padded.resize(64, 0);
        binary.extend(padded);
    }
    binary.extend(m.image_len.to_le_bytes());
    binary.extend(m.security_version.to_le_bytes());
    binary.extend([0; 12]);
    binary.extend(m.image_digest);
    [
        (Domain::Package, head(signed.len() as u64, bulk_digest(signed))),
        (Domain::Manifest, head(encoded.len() as u64, id_digest(encoded))),
        (Domain::Binary, binary),
    ]
}

/// What the system knows of the two publishers, the floor and the recalled version.
fn authority(m: &Manifest, signer: &PublisherKey) -> Kept {
    let certificate = &signer.certificate;
    rule(m.publisher == certificate.publisher, "publisher")?;
    if certificate.publisher.as_str() == OTHER {
        let service = m.service.iter().map(|s| s.name.as_str());
        let within = |name: &str| name == OTHER || name.starts_with("other.") || name.starts_with("other-");
        rule(service.chain([m.name.as_str()]).all(within), "namespace")?;
        rule(m.kind != ModuleKind::Agent, "agents")?;
        let r = &m.resources;
        rule(r.frames <= 1024 && r.object_bytes <= 1 << 20 && r.max_priority <= 128, "resources")?;
    } else {
        rule(m.resources.frames <= 1 << 20 && m.resources.object_bytes <= 1 << 30, "resources")?;
        rule(m.name.as_str() != FLOORED || m.security_version >= 5, "floor")?;
        rule(m.name.as_str() != RECALLED || m.version != Version::new(1, 0, 0), "recalled version")?;
    }
    for request in m.requests.iter() {
        let allowed =
            certificate.ceiling.types.iter().find(|t| t.object == request.object).map_or(0, |t| t.rights);
        let endow = sila_abi::rights::Rights::ENDOW.bits();
        rule(request.rights & !(allowed | endow) == 0, "rights beyond the ceiling")?;
    }
    Ok(())
}

fn content(m: &Manifest, payload: &[u8]) -> Kept {
    let image = if m.codec == Codec::None {
        payload.to_vec()
    } else {
        let length = usize::try_from(m.image_len).map_err(|_| "length of the image")?;
        let image = zstd::bulk::decompress(payload, length).map_err(|_| "a frame")?;
        rules::payload(payload, &image)?;
        image
    };
    rule(image.len() as u64 == m.image_len, "length of the image")?;
    rule(bulk_digest(&image) == m.image_digest, "digest of the image")?;
    if m.kind == ModuleKind::Model {
        return Ok(());
    }
    let code = rules::image(&image[..4096], m.image_len)?;
    rule(get(&image, 24, 8) == m.entry, "entry")?;
    let fault = m.contract.fault_entry;
    rule(fault.is_none_or(|at| code.iter().any(|range| range.contains(&at))), "fault entry")?;
    padding(&image)
}

/// Nothing stands between the end of a file part and the end of its page.
fn padding(image: &[u8]) -> Kept {
    for at in (32..352).step_by(40) {
        let end = (get(image, at + 16, 8) + get(image, at + 24, 8)) as usize;
        let rest = image.get(end..end.next_multiple_of(4096)).ok_or("a file part")?;
        rule(rest.iter().all(|b| *b == 0), "padding")?;
    }
    Ok(())
}
