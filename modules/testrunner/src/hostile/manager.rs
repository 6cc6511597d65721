//! A ModuleManager that leaves its checks out, and asks the kernel for what it should not.

use crate::between::{TARGET, between, nothing_at_target};
use crate::lab::{
    ENDOW_ONLY, ENDOWED, Failure, KEYS, Lab, Outcome, POOL, PROBE_PRIORITY, SYSTEM, copy, create, create_in,
    equal, filled, holds, name, refused, sealed, works,
};
use alloc::format;
use alloc::vec::Vec;
use probe::{REQUEST_CLOCK, REQUEST_COMMAND, REQUEST_SIGNAL};
use sila_abi::boot::EntryKind;
use sila_abi::manifest::Manifest;
use sila_abi::package::{LoadProof, Package};
use sila_abi::protocol::layout::{CLOCK, OWN_POOL};
use sila_abi::record::Version;
use sila_abi::{Error, ObjectType, Rights, Slot};
use sila_rt::ipc::{self, Message};
use sila_rt::slots::{OwnedSlot, make};
use sila_rt::system::{capabilities, processes};
use sila_rt::{CallError, op};

/// ProcessCreate of the probe's image with a proof and a command endpoint.
fn attempt(image: Slot, proof: Slot) -> Result<OwnedSlot, CallError> {
    let command = make(|dst| op::EndpointCreate(OWN_POOL, 0, 0, dst))?;
    create(image, proof, POOL, PROBE_PRIORITY, &[(REQUEST_COMMAND, command.slot())])
}

fn end(process: &OwnedSlot) -> Outcome {
    works("ending it", op::ProcessTerminate(process.slot(), 0)).map(|_| ())
}

fn proof_bytes(proof: &LoadProof<'_>) -> Result<Vec<u8>, Failure> {
    let mut bytes = alloc::vec![0; proof.len()];
    let written = proof.write(&mut bytes);
    written.map_err(|error| Failure::new("a proof", "written", format!("{error}")))?;
    Ok(bytes)
}

fn good_proof(lab: &Lab) -> Result<LoadProof<'static>, Failure> {
    let proof = LoadProof::parse(lab.data(crate::PROBE_PROOF)?);
    proof.map_err(|error| Failure::new("the probe's proof", "a proof", format!("{error}")))
}

fn error_named(text: &str) -> Option<Error> {
    Error::ALL.iter().find(|error| error.name() == text).copied()
}

/// Gives the kernel the parts of every bad package, unchecked. It refuses all that are not rightly signed as they are;
/// a package that is bad in its header, its payload or the package signature only has parts that are good, and those
/// start what their publisher signed.
pub fn a_manager_that_checks_nothing_starts_only_what_was_signed(lab: &Lab) -> Outcome {
    let (mut refusals, mut starts) = (0, 0);
    for line in lab.text(crate::BYPASSES)?.lines() {
        let mut words = line.splitn(4, ' ');
        let (Some(want), Some(hint), Some(version), Some(what)) =
            (words.next(), words.next(), words.next().and_then(Version::parse), words.next())
        else {
            return Err(Failure::new("the list of packages", "four words", line));
        };
        let hint = name(hint)?;
        let entry =
            lab.entries().find(|e| e.kind == EntryKind::Package && e.name == hint && e.version == version);
        let package = entry.and_then(|entry| Package::parse(entry.data).ok());
        let package = package.ok_or_else(|| Failure::new(what, "a package", "none"))?;
        let proof = sealed(&proof_bytes(&LoadProof::of_package(&package))?)?;
        let made = attempt(lab.image(), proof.slot());
        if want == "none" {
            end(&works(what, made)?)?;
            starts += 1;
        } else {
            let want = error_named(want).ok_or_else(|| Failure::new(what, "a kernel error", want))?;
            refused(what, made, want)?;
            refusals += 1;
        }
    }
    holds("there are both kinds", refusals > 20 && starts > 2)
}

/// A change to a manifest that nobody signs.
type Forgery = fn(&mut Manifest);

pub fn a_manager_forges_no_manifest(lab: &Lab) -> Outcome {
    let good = good_proof(lab)?;
    let manifest = Manifest::decode(good.manifest);
    let manifest =
        manifest.map_err(|error| Failure::new("the probe's manifest", "one", format!("{error}")))?;
    let forged: [(&str, Forgery); 6] = [
        ("a higher version", |m| m.version = Version::new(9, 0, 0)),
        ("a higher security version", |m| m.security_version = u32::MAX),
        ("more frames", |m| m.resources.frames *= 2),
        ("a higher priority", |m| m.resources.max_priority = 255),
        ("another service", |m| {
            m.service = m.service.map(|s| sila_abi::manifest::ServiceDecl { durable: true, ..s })
        }),
        ("an optional request made mandatory", |m| {
            let requests =
                m.requests.iter().map(|r| sila_abi::manifest::CapRequest { mandatory: true, ..*r });
            m.requests = sila_abi::record::Bounded::from_vec(requests.collect()).unwrap_or_default();
        }),
    ];
    for (what, forge) in forged {
        let mut manifest = manifest.clone();
        forge(&mut manifest);
        let bytes =
            manifest.encode().map_err(|error| Failure::new(what, "a manifest", format!("{error}")))?;
        let proof = sealed(&proof_bytes(&LoadProof { manifest: &bytes, ..good })?)?;
        refused(what, attempt(lab.image(), proof.slot()), Error::ManifestSignature)?;
    }
    // Nor does it sign by another publisher's key, or by one that nobody certified.
    let tiny = LoadProof::parse(lab.data(crate::TINY_PROOF)?);
    let tiny = tiny.map_err(|error| Failure::new("the tiny proof", "a proof", format!("{error}")))?;
    let mixed: [(&str, LoadProof<'_>, Error); 3] = [
        ("a key that nobody has", LoadProof { key_id: &[7; 32], ..good }, Error::UnknownKey),
        (
            "another module's signature",
            LoadProof { manifest_sig: tiny.manifest_sig, ..good },
            Error::ManifestSignature,
        ),
        (
            "another module's manifest",
            LoadProof { manifest: tiny.manifest, ..good },
            Error::ManifestSignature,
        ),
    ];
    for (what, proof, want) in mixed {
        let proof = sealed(&proof_bytes(&proof)?)?;
        refused(what, attempt(lab.image(), proof.slot()), want)?;
    }
    Ok(())
}

pub fn a_manager_swaps_no_binary(lab: &Lab) -> Outcome {
    let tiny = sealed(lab.data(crate::TINY_IMAGE)?)?;
    refused("another module's image", attempt(tiny.slot(), lab.proof()), Error::ImageSize)?;
    let mut same_size = filled(lab.data(crate::PROBE_IMAGE)?)?;
    for (to, from) in same_size.bytes_mut().iter_mut().zip(lab.data(crate::TINY_IMAGE)?) {
        *to = *from;
    }
    let same_size = works("sealing", same_size.seal())?;
    refused("another program of that size", attempt(same_size.slot(), lab.proof()), Error::ImageDigest)?;
    let tiny_proof = LoadProof::parse(lab.data(crate::TINY_PROOF)?);
    let tiny_proof =
        tiny_proof.map_err(|error| Failure::new("the tiny proof", "a proof", format!("{error}")))?;
    let mixed = LoadProof { binary_sig: tiny_proof.binary_sig, ..good_proof(lab)? };
    let mixed = sealed(&proof_bytes(&mixed)?)?;
    refused("another binary's signature", attempt(lab.image(), mixed.slot()), Error::BinarySignature)
}

/// What was verified is what is used: image and proof that are exchanged meanwhile are missed.
pub fn a_manager_swaps_nothing_during_the_verification(lab: &Lab) -> Outcome {
    let command = works("EndpointCreate", make(|dst| op::EndpointCreate(OWN_POOL, 0, 0, dst)))?;
    let command = command.slot();
    let (tiny, tiny_proof) = (sealed(lab.data(crate::TINY_IMAGE)?)?, sealed(lab.data(crate::TINY_PROOF)?)?);
    for other in [&tiny, &tiny_proof] {
        let image = works("a copy", copy(lab.image(), Rights::READ | Rights::COPY))?;
        let proof = works("a copy", copy(lab.proof(), Rights::READ | Rights::COPY))?;
        let (image, proof) = (image.leak(), proof.leak());
        let swapped = if core::ptr::eq(other, &tiny) { image } else { proof };
        let code = between(
            move || create_in(image, proof, POOL, PROBE_PRIORITY, &[(REQUEST_COMMAND, command)], TARGET),
            || {
                works("CapDelete", op::CapDelete(swapped))?;
                let rights = (Rights::READ | Rights::COPY).bits().into();
                works("CapCopy", op::CapCopy(other.slot(), swapped, rights)).map(|_| ())
            },
        );
        works("CapDelete", op::CapDelete(image))?;
        works("CapDelete", op::CapDelete(proof))?;
        equal("the error", code?, Error::SourceGone as u64)?;
        nothing_at_target()?;
    }
    Ok(())
}

/// Whatever the sources can do, the new process gets what its manifest asks for, and nothing else.
pub fn a_manager_grants_no_more_than_the_manifest_asks_for(lab: &Lab) -> Outcome {
    let command = works("EndpointCreate", make(|dst| op::EndpointCreate(OWN_POOL, 0, 0, dst)))?;
    let signal = works("NotificationCreate", make(|dst| op::NotificationCreate(OWN_POOL, dst)))?;
    let grants = [(REQUEST_CLOCK, CLOCK), (REQUEST_COMMAND, command.slot()), (REQUEST_SIGNAL, signal.slot())];
    let made = create(lab.image(), lab.proof(), POOL, PROBE_PRIORITY, &grants);
    let made = works("ProcessCreate", made)?;
    let newest = works("SystemProcess", processes(SYSTEM))?.iter().map(|p| p.id).max().unwrap_or(0);
    let caps = works("SystemCapability", capabilities(SYSTEM, newest))?;
    let manifest = Manifest::decode(good_proof(lab)?.manifest);
    let manifest =
        manifest.map_err(|error| Failure::new("the probe's manifest", "one", format!("{error}")))?;
    let seen: Vec<_> = caps.iter().map(|c| (c.slot, c.object_type, c.rights, c.request)).collect();
    let asked = (1..).zip(manifest.requests.iter());
    let asked: Vec<_> =
        asked.map(|(at, r)| (r.slot.into(), u64::from(r.object), u64::from(r.rights), at)).collect();
    equal("what the process has, and what its manifest asks for", seen, asked)?;
    equal("the badge of its Notification", caps.iter().find(|c| c.slot == 9).map(|c| c.badge), Some(6))?;
    end(&made)?;
    // Optional or mandatory, a grant that the manifest does not ask for is none.
    for request in [6, 7, 31, 32, 60_000] {
        let made = create(lab.image(), lab.proof(), POOL, PROBE_PRIORITY, &[grants[1], (request, KEYS)]);
        let why = made.err().map(|error| (error.error, error.words[0]));
        equal("a grant more", why, Some((Error::GrantUnrequested, request.into())))?;
    }
    Ok(())
}

/// The publisher's ceiling would allow it and ModuleManager grants it: the policy does not permit it.
pub fn a_manager_grants_nothing_that_the_policy_forbids(lab: &Lab) -> Outcome {
    let mandatory = sealed(lab.data("ample.mandatory")?)?;
    let made = create(lab.image(), mandatory.slot(), POOL, PROBE_PRIORITY, &[(1, KEYS)]);
    let why = made.err().map(|error| (error.error, error.words[0]));
    equal("the KeyRing for a publisher without a rule", why, Some((Error::RequestPolicy, 1)))?;
    let optional = sealed(lab.data("ample.optional")?)?;
    let made = create(lab.image(), optional.slot(), POOL, PROBE_PRIORITY, &[(1, KEYS)]);
    let made = works("ProcessCreate with an optional request", made)?;
    let newest = works("SystemProcess", processes(SYSTEM))?.iter().map(|p| p.id).max().unwrap_or(0);
    let caps = works("SystemCapability", capabilities(SYSTEM, newest))?;
    let types: Vec<_> = caps.iter().map(|cap| cap.object_type).collect();
    equal("what it has", types, alloc::vec![ObjectType::Pool as u64])?;
    end(&made)
}

pub fn a_manager_loads_no_old_version(lab: &Lab) -> Outcome {
    let wanted = [Error::BelowFloor, Error::VersionRevoked, Error::KeyRevoked];
    let mut seen = 0;
    for line in lab.text(crate::BAD_PROOFS)?.lines() {
        let mut words = line.splitn(4, ' ');
        let (want, proof) = (words.next().and_then(error_named), words.next());
        let (Some(want), Some(proof)) = (want.filter(|want| wanted.contains(want)), proof) else { continue };
        refused(words.last().unwrap_or(line), attempt(lab.image(), sealed(lab.data(proof)?)?.slot()), want)?;
        seen += 1;
    }
    equal("kinds of old versions", seen, wanted.len())?;
    end(&works("the probe", attempt(lab.image(), lab.proof()))?)?;
    let reuse = sealed(lab.data("reuse.proof")?)?;
    refused("the same version with other content", attempt(lab.image(), reuse.slot()), Error::VersionReuse)
}

/// The capability to pass on can be named as a source, and in no other way be used.
pub fn a_manager_uses_nothing_that_it_may_only_pass_on(lab: &Lab) -> Outcome {
    let empty = || make(|dst| op::CapCopy(ENDOW_ONLY, dst, (Rights::SEND | Rights::COPY).bits().into()));
    refused("a copy that could be used", empty(), Error::EndowOnly)?;
    let minted = make(|dst| op::CapMint(ENDOW_ONLY, dst, Rights::SEND.bits().into(), 1));
    refused("a minted one that could be used", minted, Error::EndowOnly)?;
    refused("sending by it", ipc::send(ENDOW_ONLY, &Message::new(1), 0), Error::EndowOnly)?;
    refused("receiving by it", ipc::recv(ENDOW_ONLY, 0, 0).map(|_| ()), Error::EndowOnly)?;
    refused("the label", op::EndpointLabel(ENDOW_ONLY), Error::EndowOnly)?;
    let own = sila_abi::protocol::layout::OWN_PROCESS;
    refused("binding a receiver", op::EndpointBind(ENDOW_ONLY, own), Error::EndowOnly)?;
    let marked = (Rights::SEND | Rights::COPY | Rights::ENDOW).bits().into();
    let marked = make(|dst| op::CapCopy(ENDOW_ONLY, dst, marked));
    refused("another one of its kind", marked, Error::EndowOnly)?;
    // As a source it does what it is there for.
    let made = create(lab.image(), lab.proof(), POOL, PROBE_PRIORITY, &[(REQUEST_COMMAND, ENDOW_ONLY)]);
    end(&works("ProcessCreate", made)?)?;
    refused("nothing came of it", ipc::recv(ENDOWED, 0, 0).map(|_| ()), Error::Timeout)
}
