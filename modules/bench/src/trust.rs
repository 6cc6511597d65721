//! What trust costs: keys, signatures, hashes, and loads with everything that is checked on the way.

use crate::bench::{CACHE, Client, MANAGER, OWN, POOL, Proof, Reason, Row, SPARE, TEST};
use crate::making::{end_process, new_cached_process, new_process};
use bench::{LARGE_BYTES, SMALL_MODULE};
use sila_abi::protocol::module_manager::{LOAD, Load, Loaded, STOP};
use sila_abi::protocol::wire::digest_words;
use sila_abi::record::Name;
use sila_abi::status::CachedRecord;
use sila_abi::{Error, Op, Slot};
use sila_rt::hostile::invoke;
use sila_rt::ipc::{self, Message};
use sila_rt::memory::OwnRegion;
use sila_rt::raw::time_stamp;
use sila_rt::slots::{OwnedSlot, make};
use sila_rt::{cache, clock, op};

const fn row(name: &'static str, n: usize, once: fn(&Client) -> Result<u64, Reason>) -> Row {
    Row { name, n, once, around: None }
}

/// The rows.
pub const ROWS: &[Row] = &[
    row("key_decode", 20, |client| Ok(case(client, false)?.saturating_sub(nothing(client)?))),
    row("signature_verify", 20, |client| Ok(case(client, true)?.saturating_sub(case(client, false)?))),
    row("hash_1mib", 2, hash),
    row("load_kernel_35k", 10, |client| create(client, Proof::Small, 0)),
    row("load_kernel_cached_35k", 10, create_cached),
    row("load_whole_35k", 10, |client| {
        forget()?;
        load(client)
    }),
    row("load_whole_cached_35k", 10, load),
    row("process_create_1_cap", 10, |client| create(client, Proof::Caps1, 1)),
    row("process_create_8_caps", 10, |client| create(client, Proof::Caps8, 8)),
    row("process_create_32_caps", 10, |client| create(client, Proof::Caps32, 32)),
];

const PROCESS: Slot = SPARE[3];

fn ticks(act: impl FnOnce() -> Result<(), Reason>) -> Result<u64, Reason> {
    let start = time_stamp();
    act()?;
    Ok(time_stamp().wrapping_sub(start))
}

/// The verification context decodes a key, and checks a signature with it, or finds at once that it has not the length
/// of one.
fn case(client: &Client, whole: bool) -> Result<u64, Reason> {
    let (region, length) = client.case(whole);
    ticks(|| match op::TestVerify(TEST, region, length) {
        Ok(_) if whole => Ok(()),
        Err(error) if !whole && error.error == Error::RecordSignature => Ok(()),
        Ok(_) => Err(Error::InvalidArgument.into()),
        Err(error) => Err(error),
    })
}

/// The verification context finds that the same bytes, without their last one, are nothing to be checked.
fn nothing(client: &Client) -> Result<u64, Reason> {
    let (region, length) = client.case(false);
    ticks(|| match op::TestVerify(TEST, region, length - 1) {
        Err(error) if error.error == Error::RecordMalformed => Ok(()),
        Ok(_) => Err(Error::InvalidArgument.into()),
        Err(error) => Err(error),
    })
}

/// A load that is refused once the image is hashed: the proof is another image's of the same length.
fn refused(client: &Client, image: Slot, proof: Proof) -> Result<u64, Reason> {
    ticks(|| match new_process(client, image, proof, &[], PROCESS) {
        Err(error) if error.error == Error::ImageDigest => Ok(()),
        Ok(()) => Err(Error::InvalidArgument.into()),
        Err(error) => Err(error),
    })
}

/// A sealed Region of so many zeros.
fn zeros(bytes: usize) -> Result<OwnedSlot, Reason> {
    OwnRegion::new(bytes)?.seal()
}

/// What a MiB more of an image costs the verification context.
fn hash(client: &Client) -> Result<u64, Reason> {
    let small = client.small_bytes;
    let of_small = refused(client, zeros(small)?.slot(), Proof::Small)?;
    let of_large = refused(client, zeros(LARGE_BYTES)?.slot(), Proof::Large)?;
    let more = of_large.saturating_sub(of_small) as u128;
    Ok((more * (1 << 20) / (LARGE_BYTES - small) as u128) as u64)
}

/// Makes a process of the small image that holds so many capabilities of its creator's.
fn create(client: &Client, proof: Proof, caps: u16) -> Result<u64, Reason> {
    let grants = core::array::from_fn::<_, 32, _>(|at| (at as u16, OWN));
    let grants = grants.get(..usize::from(caps)).unwrap_or_default();
    let ticks = ticks(|| new_process(client, client.small(), proof, grants, PROCESS))?;
    end_process(PROCESS)?;
    Ok(ticks)
}

/// The image with this name in the module cache.
fn cached(name: &str) -> Result<Option<OwnedSlot>, Reason> {
    let is_it = |image: &CachedRecord| {
        let named = usize::try_from(image.name_len).ok().and_then(|len| image.name.get(..len));
        named == Some(name.as_bytes())
    };
    let Some(image) = cache::images(CACHE)?.into_iter().find(is_it) else { return Ok(None) };
    let [a, b, c, d] = digest_words(&image.module_id);
    make(|dst| op::ModuleCacheFind(CACHE, a, b, c, d, dst)).map(Some)
}

/// Takes the small module's image out of the cache.
fn forget() -> Result<(), Reason> {
    match cached(SMALL_MODULE)? {
        Some(image) => op::CachedImageEvict(image.slot()).map(|_| ()),
        None => Ok(()),
    }
}

/// Makes a process of the small image as the cache has it.
fn create_cached(client: &Client) -> Result<u64, Reason> {
    let small = client.small_copy()?;
    let image = make(|dst| op::ModuleCacheInsert(CACHE, small.slot(), client.proof(Proof::Small), dst))?;
    let ticks = ticks(|| new_cached_process(image.slot(), PROCESS))?;
    end_process(PROCESS)?;
    op::CachedImageEvict(image.slot())?;
    Ok(ticks)
}

/// From the request to ModuleManager to its answer, once the module serves.
fn load(_: &Client) -> Result<u64, Reason> {
    let name = Name::new(SMALL_MODULE).map_err(|_| Error::InvalidArgument)?;
    let patience = clock::after(30 * clock::SECOND);
    let request = Message::with(LOAD, &Load::newest(name).to_words()).cap(POOL);
    let mut process = 0;
    let ticks = ticks(|| {
        let answer = ipc::call(MANAGER, &request, 1, patience)?;
        let loaded = Loaded::from_words(answer.message.words()).filter(|_| answer.message.label == 0);
        process = loaded.ok_or(Error::InvalidArgument)?.process;
        Ok(())
    })?;
    let answer = ipc::call(MANAGER, &Message::with(STOP, &[process]), 0, patience)?;
    if answer.message.label == 0 { Ok(ticks) } else { Err(Error::InvalidArgument.into()) }
}

/// Bytes of the verification context's stack that all of this has used.
pub fn stack_peak(client: &Client) -> Result<u64, Reason> {
    case(client, true)?;
    create(client, Proof::Caps32, 32)?;
    Ok(invoke(TEST, Op::TestAccounting, &[])?.words[5])
}
