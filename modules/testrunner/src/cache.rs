//! The module cache from ring 3: what comes in, who finds it, and that a handle dies with its image.

use crate::child::Child;
use crate::lab::{
    CACHE, EMPTY, Failure, JOB, Lab, Outcome, POOL, PROBE_PRIORITY, copy, equal, filled, holds, refused,
    sealed, works,
};
use alloc::format;
use probe::{Act, REQUEST_CLOCK, REQUEST_COMMAND, SURVIVED};
use sila_abi::protocol::layout::{CLOCK, OWN_POOL};
use sila_abi::protocol::wire::digest_words;
use sila_abi::record::{Name, Version};
use sila_abi::status::CachedRecord;
use sila_abi::{Error, Rights, Slot};
use sila_crypto::hash::module_id;
use sila_rt::slots::{OwnedSlot, make};
use sila_rt::system::process_create_cached;
use sila_rt::{CallError, cache, op, system};

/// Puts an image and its proof into the cache.
pub fn insert(image: Slot, proof: Slot) -> Result<OwnedSlot, CallError> {
    make(|dst| op::ModuleCacheInsert(CACHE, image, proof, dst))
}

/// The probe in the cache. Its image comes in a Region of its own: the cache pays for it from then on.
pub fn probe(lab: &Lab) -> Result<OwnedSlot, Failure> {
    let image = sealed(lab.data(crate::PROBE_IMAGE)?)?;
    works("ModuleCacheInsert", insert(image.slot(), lab.proof()))
}

fn text(bytes: &[u8; 64], len: u64) -> Result<Name, Failure> {
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    let name = bytes.get(..len).and_then(|name| core::str::from_utf8(name).ok()).unwrap_or("");
    crate::lab::name(name)
}

/// Finds an image by what its status says it is.
pub fn find(image: &CachedRecord) -> Result<Result<OwnedSlot, CallError>, Failure> {
    let (name, publisher) =
        (text(&image.name, image.name_len)?, text(&image.publisher, image.publisher_len)?);
    let version = Version::from_word(image.version).unwrap_or(Version::MIN);
    let [a, b, c, d] = digest_words(&module_id(&publisher, &name, version));
    equal("the module's id", digest_words(&image.module_id), [a, b, c, d])?;
    Ok(make(|dst| op::ModuleCacheFind(CACHE, a, b, c, d, dst)))
}

/// A process from a cached image.
pub fn create_cached(image: Slot, grants: &[(u16, Slot)]) -> Result<OwnedSlot, CallError> {
    make(|dst| {
        process_create_cached(JOB, image, POOL, PROBE_PRIORITY, grants, dst)?;
        Ok(op::Words::default())
    })
}

/// A probe from a cached image.
fn child(image: Slot) -> Result<Child, Failure> {
    let command = works("EndpointCreate", make(|dst| op::EndpointCreate(OWN_POOL, 0, 0, dst)))?;
    let grants = [(REQUEST_CLOCK, CLOCK), (REQUEST_COMMAND, command.slot())];
    Child::new(works("ProcessCreateCached", create_cached(image, &grants))?, command)
}

/// Takes an image out, so that a test leaves nothing.
fn evict(image: OwnedSlot) -> Outcome {
    works("CachedImageEvict", op::CachedImageEvict(image.slot())).map(|_| ())
}

pub fn a_process_from_the_cache_is_the_one_that_its_parts_make(lab: &Lab) -> Outcome {
    let cached = probe(lab)?;
    let image = works("CachedImageStatus", cache::image(cached.slot()))?;
    let of = |child: &Child| works("ProcessIdentity", system::identity(child.process()));
    let (from_cache, from_parts) = (child(cached.slot())?, lab.child()?);
    let (a, b) = (of(&from_cache)?, of(&from_parts)?);
    equal(
        "manifest, key and endowment",
        (a.manifest_digest, a.key_id, a.endowed),
        (b.manifest_digest, b.key_id, b.endowed),
    )?;
    equal("what the cache says of it", (image.manifest_digest, image.key_id), (a.manifest_digest, a.key_id))?;
    from_cache.exits(Act::DirectionFlag, &[], &[], SURVIVED)?;
    drop(from_parts);
    // Code and constants are the cached frames; each process has its own data: a second one begins anew.
    child(cached.slot())?.exits(Act::DirectionFlag, &[], &[], SURVIVED)?;
    let after = works("CachedImageStatus", cache::image(cached.slot()))?;
    equal("processes made from it", after.made, image.made + 2)?;
    evict(cached)
}

pub fn an_image_is_found_by_its_module_s_id_until_it_is_taken_out(lab: &Lab) -> Outcome {
    let cached = probe(lab)?;
    let image = works("CachedImageStatus", cache::image(cached.slot()))?;
    let found = works("ModuleCacheFind", find(&image)?)?;
    holds(
        "it is listed",
        works("ModuleCacheNext", cache::images(CACHE))?.iter().any(|i| i.cursor == image.cursor),
    )?;
    let [a, b, c, d] = digest_words(&image.module_id);
    let other = make(|dst| op::ModuleCacheFind(CACHE, a ^ 1, b, c, d, dst));
    refused("another id", other, Error::NotCached)?;
    // A copy without MANAGE uses it and cannot take it out.
    let weak = works("CapCopy", copy(cached.slot(), Rights::READ))?;
    refused("without MANAGE", op::CachedImageEvict(weak.slot()), Error::MissingRight)?;
    let running = child(weak.slot())?;
    evict(cached)?;
    refused("a handle of what was taken out", op::CachedImageStatus(found.slot()), Error::ObjectGone)?;
    refused("a process from it", create_cached(weak.slot(), &[]), Error::ObjectGone)?;
    refused("what was taken out", find(&image)?, Error::NotCached)?;
    // Who runs from it goes on.
    running.exits(Act::DirectionFlag, &[], &[], SURVIVED)
}

pub fn nothing_that_is_not_verified_comes_in(lab: &Lab) -> Outcome {
    let before = works("ModuleCacheStatus", cache::state(CACHE))?;
    let mut seen = 0;
    for line in lab.text(crate::BAD_PROOFS)?.lines() {
        let mut words = line.splitn(4, ' ');
        let (Some(want), Some(proof), Some(image), Some(what)) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(Failure::new("the list of bad proofs", "four words", line));
        };
        let want = Error::ALL.iter().find(|error| error.name() == want).copied();
        let want = want.ok_or_else(|| Failure::new("the list of bad proofs", "a kernel error", line))?;
        let (proof, image) = (sealed(lab.data(proof)?)?, sealed(lab.data(image)?)?);
        // Policy forbids some of them to be processes, not to be verified: nobody asks for anything yet.
        match insert(image.slot(), proof.slot()) {
            Err(error) if error.error == want => seen += 1,
            Ok(cached) if is_of_endowment(want) => evict(cached)?,
            other => {
                let got = format!("{:?}", other.map(|_| "success").map_err(|e| e.error.name()));
                return Err(Failure::new(what, want.name(), got));
            }
        }
    }
    holds("there are bad proofs", seen > 5)?;
    let unsealed = filled(lab.data(crate::PROBE_IMAGE)?)?.into_region();
    refused("an image that is not sealed", insert(unsealed.slot(), lab.proof()), Error::NotSealed)?;
    refused("no image", insert(EMPTY, lab.proof()), Error::NoCapability)?;
    let after = works("ModuleCacheStatus", cache::state(CACHE))?;
    equal("images in the cache", after.entries, before.entries)
}

/// Whether a refusal is about what a process gets, which is decided when one is made.
const fn is_of_endowment(error: Error) -> bool {
    matches!(error, Error::RequestNotGranted | Error::RequestPolicy | Error::PriorityTooHigh)
}

pub fn the_cache_gives_everything_back(lab: &Lab) -> Outcome {
    lab.balanced(|| {
        let cached = probe(lab)?;
        child(cached.slot())?.exits(Act::DirectionFlag, &[], &[], SURVIVED)?;
        evict(cached)
    })
}

pub fn a_manager_gains_nothing_by_the_cache(lab: &Lab) -> Outcome {
    // An image by another's proof.
    let image = sealed(lab.data(crate::PROBE_IMAGE)?)?;
    let tiny = sealed(lab.data(crate::TINY_PROOF)?)?;
    refused("another image's proof", insert(image.slot(), tiny.slot()), Error::ImageSize)?;
    // An image that it keeps a second way to.
    let second = works("CapCopy", copy(image.slot(), Rights::READ))?;
    refused("an image with two names", insert(image.slot(), lab.proof()), Error::NotExclusive)?;
    drop(second);
    let cached = works("ModuleCacheInsert", insert(image.slot(), lab.proof()))?;
    refused("the image afterwards", op::RegionStatus(image.slot()), Error::NoCapability)?;
    // More, or less, than the manifest says.
    let command = works("EndpointCreate", make(|dst| op::EndpointCreate(OWN_POOL, 0, 0, dst)))?;
    let good = (REQUEST_COMMAND, command.slot());
    let attempt = |grants: &[(u16, Slot)]| create_cached(cached.slot(), grants);
    refused("a grant that nobody asked for", attempt(&[good, (6, CLOCK)]), Error::GrantUnrequested)?;
    refused("no source for what is mandatory", attempt(&[]), Error::RequestNotGranted)?;
    let weak = works("CapCopy", copy(command.slot(), Rights::SEND | Rights::COPY))?;
    refused("too few rights", attempt(&[(REQUEST_COMMAND, weak.slot())]), Error::RequestRights)?;
    refused("another type", attempt(&[(REQUEST_COMMAND, CLOCK)]), Error::RequestWrongType)?;
    let high = make(|dst| {
        process_create_cached(JOB, cached.slot(), POOL, 255, &[good], dst)?;
        Ok(op::Words::default())
    });
    refused("a priority above the ceiling", high, Error::PriorityTooHigh)?;
    evict(cached)
}
