//! What the kernel's module cache holds.

use crate::error::CallError;
use crate::op::invoke_long;
use alloc::vec::Vec;
use sila_abi::status::{CacheRecord, CachedRecord};
use sila_abi::syscall::MAX_WORDS;
use sila_abi::{Error, Op, Slot};
use zerocopy::{FromBytes, IntoBytes};

/// The cache as a whole.
///
/// # Errors
/// The kernel's.
pub fn state(cache: Slot) -> Result<CacheRecord, CallError> {
    record(cache, Op::ModuleCacheStatus, &[])
}

/// An image, by a capability to it.
///
/// # Errors
/// The kernel's; `ObjectGone` once it has left the cache.
pub fn image(image: Slot) -> Result<CachedRecord, CallError> {
    record(image, Op::CachedImageStatus, &[])
}

/// Every image, in the order in which they came in.
///
/// # Errors
/// The kernel's.
pub fn images(cache: Slot) -> Result<Vec<CachedRecord>, CallError> {
    let mut images = Vec::new();
    let mut cursor = 0;
    loop {
        match record::<CachedRecord>(cache, Op::ModuleCacheNext, &[cursor]) {
            Ok(image) => {
                cursor = image.cursor;
                images.push(image);
            }
            Err(error) if error.error == Error::NoMoreEntries => return Ok(images),
            Err(error) => return Err(error),
        }
    }
}

fn record<T: FromBytes>(slot: Slot, op: Op, args: &[u64]) -> Result<T, CallError> {
    let mut words = [0; MAX_WORDS];
    invoke_long(slot, op, args, &mut words)?;
    let (record, _) = T::read_from_prefix(words.as_bytes()).map_err(|_| Error::RecordMalformed)?;
    Ok(record)
}
