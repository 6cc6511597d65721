//! Regions, mappings, seals, quotas. Mappings are made where nothing of the runner's own is.

use crate::lab::{Failure, Lab, Outcome, POOL, accounts, copy, equal, refused, works};
use alloc::format;
use alloc::vec::Vec;
use sila_abi::protocol::layout::{MESSAGE_PAGE, OWN_POOL, OWN_PROCESS, STACK_TOP};
use sila_abi::{Error, Op, Rights, Slot};
use sila_rt::hostile::invoke;
use sila_rt::slots::{OwnedSlot, make};
use sila_rt::{CallError, op};

/// Where test mappings go: nothing else is there.
const PLACE: u64 = 0x6000_0000_0000;
const PAGE: u64 = 4096;

fn region(pages: u64) -> Result<OwnedSlot, Failure> {
    works("RegionCreate", make(|dst| op::RegionCreate(OWN_POOL, pages, dst)))
}

/// A mapping in the runner, which ends with this.
struct Mapped(OwnedSlot);

impl Drop for Mapped {
    fn drop(&mut self) {
        // It may be unmapped already: as wanted.
        let _ = invoke(self.0.slot(), Op::MappingUnmap, &[]);
    }
}

fn map(region: Slot, address: u64, offset: u64, pages: u64, writable: u64) -> Result<Mapped, CallError> {
    let mapped = make(|dst| {
        let words = [OWN_PROCESS.0.into(), address, offset, pages, writable, dst.0.into()];
        invoke(region, Op::RegionMap, &words)
    });
    mapped.map(Mapped)
}

fn unmap(mapping: &Mapped) -> Outcome {
    works("MappingUnmap", invoke(mapping.0.slot(), Op::MappingUnmap, &[])).map(|_| ())
}

/// Frames, sealed, mappings, writable mappings.
fn status(region: Slot) -> Result<[u64; 4], Failure> {
    let [frames, sealed, mappings, writable, ..] = works("RegionStatus", op::RegionStatus(region))?.words;
    Ok([frames, sealed, mappings, writable])
}

pub fn map_checks_every_range(_: &Lab) -> Outcome {
    let region = self::region(4)?;
    let before = accounts()?;
    for (address, pages, want) in [
        (PLACE + 1, 1, Error::BadAddress),
        (PLACE + 8, 1, Error::BadAddress),
        (0, 1, Error::BadAddress),
        (0xf_f000, 1, Error::BadAddress),
        (0x7fff_ffff_f000, 1, Error::BadAddress),
        (0x7fff_ffff_e000, 2, Error::BadAddress),
        (0x8000_0000_0000, 1, Error::BadAddress),
        (0xffff_8000_0000_0000, 1, Error::BadAddress),
        (u64::MAX - 4095, 1, Error::BadAddress),
        (u64::MAX - 4095, 2, Error::BadAddress),
        (PLACE, 0, Error::BadAddress),
        (PLACE, u64::MAX, Error::BadAddress),
        (PLACE, 1 << 52, Error::BadAddress),
        (PLACE, 5, Error::InvalidArgument),
        (PLACE, 4097, Error::InvalidArgument),
    ] {
        let mapped = map(region.slot(), address, 0, pages, 0);
        refused(&format!("{pages} pages at {address:#x}"), mapped, want)?;
    }
    for (offset, pages) in [(4, 1), (1, 4), (u64::MAX, 1), (u64::MAX - 1, 2)] {
        let mapped = map(region.slot(), PLACE, offset, pages, 0);
        refused(&format!("{pages} pages from page {offset}"), mapped, Error::InvalidArgument)?;
    }
    equal("the accounts afterwards", accounts()?, before)?;
    works("a good one", map(region.slot(), PLACE, 3, 1, 1)).map(drop)
}

pub fn mappings_do_not_overlap(_: &Lab) -> Outcome {
    let region = self::region(4)?;
    let first = works("RegionMap", map(region.slot(), PLACE + 2 * PAGE, 0, 2, 1))?;
    for (at, pages) in [(2, 2), (1, 2), (3, 1), (0, 4), (3, 2)] {
        let mapped = map(region.slot(), PLACE + at * PAGE, 0, pages, 0);
        refused(&format!("pages {at} to {}", at + pages), mapped, Error::AlreadyMapped)?;
    }
    for address in [MESSAGE_PAGE, STACK_TOP - PAGE, STACK_TOP - 8 * PAGE] {
        let mapped = map(region.slot(), address, 0, 1, 0);
        refused(&format!("over what the kernel mapped at {address:#x}"), mapped, Error::AlreadyMapped)?;
    }
    equal("the Region's mappings", status(region.slot())?, [4, 0, 1, 1])?;
    works("the page before", map(region.slot(), PLACE + PAGE, 0, 1, 0))?;
    unmap(&first)?;
    works("the same place again", map(region.slot(), PLACE + 2 * PAGE, 0, 2, 0)).map(|_| ())
}

pub fn nothing_maps_executable(lab: &Lab) -> Outcome {
    let region = self::region(1)?;
    for access in [2, 3, 4, 5, 7, 8, 1 << 32, u64::MAX] {
        let mapped = map(region.slot(), PLACE, 0, 1, access);
        refused(&format!("access {access:#x}"), mapped, Error::InvalidArgument)?;
    }
    // Even the verified image, mapped anew, is data.
    let again = works("mapping the image", map(lab.image(), PLACE, 0, 1, 0))?;
    drop(again);
    Ok(())
}

pub fn seal_is_refused_while_writable(_: &Lab) -> Outcome {
    let region = self::region(2)?;
    let writable = works("RegionMap", map(region.slot(), PLACE, 0, 1, 1))?;
    let second = works("RegionMap", map(region.slot(), PLACE + PAGE, 1, 1, 1))?;
    refused("sealing", op::RegionSeal(region.slot()), Error::StillWritable)?;
    unmap(&writable)?;
    refused("sealing with one left", op::RegionSeal(region.slot()), Error::StillWritable)?;
    // Deleting the Mapping's capability does not end the mapping.
    works("MappingProtect", invoke(second.0.slot(), Op::MappingProtect, &[]))?;
    equal("frames, sealed, mappings, writable", status(region.slot())?, [2, 0, 1, 0])?;
    works("sealing", op::RegionSeal(region.slot()))?;
    equal("frames, sealed, mappings, writable", status(region.slot())?, [2, 1, 1, 0])?;
    let third = self::region(1)?;
    let mapping = works("RegionMap", map(third.slot(), PLACE + (1 << 30), 0, 1, 1))?;
    works("CapDelete of the Mapping", op::CapDelete(mapping.0.slot()))?;
    refused("sealing after dropping the Mapping", op::RegionSeal(third.slot()), Error::StillWritable)
}

pub fn a_sealed_region_is_never_writable_again(_: &Lab) -> Outcome {
    let region = self::region(1)?;
    let whole = works("a copy", copy(region.slot(), Rights::READ | Rights::WRITE | Rights::COPY))?;
    works("sealing", op::RegionSeal(region.slot()))?;
    for slot in [region.slot(), whole.slot()] {
        let mapped = map(slot, PLACE, 0, 1, 1);
        refused("mapping it writable", mapped, Error::Sealed)?;
    }
    let _mapping = works("mapping it readable", map(region.slot(), PLACE, 0, 1, 0))?;
    works("sealing again", op::RegionSeal(region.slot()))?;
    equal("frames, sealed, mappings, writable", status(region.slot())?, [1, 1, 1, 0])
}

pub fn write_needs_the_write_right(_: &Lab) -> Outcome {
    let region = self::region(1)?;
    let readable = works("a copy", copy(region.slot(), Rights::READ | Rights::COPY))?;
    let mapped = map(readable.slot(), PLACE, 0, 1, 1);
    refused("mapping it writable", mapped, Error::MissingRight)?;
    works("mapping it readable", map(readable.slot(), PLACE, 0, 1, 0))?;
    refused("sealing it", op::RegionSeal(readable.slot()), Error::MissingRight)
}

pub fn a_region_lives_as_long_as_it_is_mapped(lab: &Lab) -> Outcome {
    lab.balanced(|| {
        let free = accounts()?.frames;
        let region = region(20)?;
        let mapping = works("RegionMap", map(region.slot(), PLACE, 0, 20, 1))?;
        let with = accounts()?.frames;
        drop(region);
        crate::lab::pause(2 * sila_rt::clock::MILLISECOND);
        equal("free frames while it is mapped", accounts()?.frames, with)?;
        unmap(&mapping)?;
        crate::lab::until("the Region's frames are free", || {
            // The page tables for the mapping stay with the process.
            accounts().is_ok_and(|now| now.frames >= with + 20 && now.frames <= free)
        })
    })
}

pub fn frames_run_out_with_an_error_and_come_back(lab: &Lab) -> Outcome {
    lab.balanced(|| {
        let pool = works("PoolCreate", make(|dst| op::PoolCreate(POOL, 10, 65536, dst)))?;
        let mut regions = Vec::new();
        for _ in 0..10 {
            regions.push(works("a Region", make(|dst| op::RegionCreate(pool.slot(), 1, dst)))?);
        }
        let full = works("PoolStatus", op::PoolStatus(pool.slot()))?.words;
        equal("frames of the Pool", (full[0], full[1]), (10, 10))?;
        let more = make(|dst| op::RegionCreate(pool.slot(), 1, dst));
        refused("one more", more, Error::OutOfFrames)?;
        let split = make(|dst| op::PoolCreate(pool.slot(), 1, 0, dst));
        refused("a Pool from it", split, Error::OutOfFrames)?;
        equal("the Pool after refusals", works("PoolStatus", op::PoolStatus(pool.slot()))?.words, full)?;
        regions.pop();
        crate::lab::until("a frame comes back", || {
            op::PoolStatus(pool.slot()).is_ok_and(|status| status.words[1] == 9)
        })?;
        works("a Region again", make(|dst| op::RegionCreate(pool.slot(), 1, dst))).map(|_| ())
    })
}

pub fn object_bytes_run_out_with_an_error_and_come_back(lab: &Lab) -> Outcome {
    lab.balanced(|| {
        let pool = works("PoolCreate", make(|dst| op::PoolCreate(POOL, 4, 6000, dst)))?;
        let mut made = Vec::new();
        let error = loop {
            match make(|dst| op::NotificationCreate(pool.slot(), dst)) {
                Ok(notification) => made.push(notification),
                Err(error) => break error.error,
            }
            if made.len() > 200 {
                return Err(Failure::new("notifications from 6000 bytes", "an end", "none"));
            }
        };
        equal("the error", error, Error::OutOfObjectBytes)?;
        let endpoint = make(|dst| op::EndpointCreate(pool.slot(), 0, 0, dst));
        refused("an Endpoint", endpoint, Error::OutOfObjectBytes)?;
        let count = made.len();
        made.pop();
        works("one again", make(|dst| op::NotificationCreate(pool.slot(), dst)))?;
        crate::lab::holds("some could be made", count > 2)
    })
}

pub fn a_region_that_is_too_large_costs_nothing(_: &Lab) -> Outcome {
    let before = accounts()?;
    for (pages, want) in [
        (0, Error::InvalidArgument),
        (65_537, Error::InvalidArgument),
        (u64::MAX, Error::InvalidArgument),
        (60_000, Error::OutOfFrames),
    ] {
        let region = make(|dst| op::RegionCreate(OWN_POOL, pages, dst));
        refused(&format!("a Region of {pages} frames"), region, want)?;
    }
    for (frames, bytes, want) in [
        (u64::MAX, 0, Error::OutOfFrames),
        (0, u64::MAX, Error::OutOfObjectBytes),
        (0, u64::MAX - 200, Error::OutOfObjectBytes),
    ] {
        let pool = make(|dst| op::PoolCreate(OWN_POOL, frames, bytes, dst));
        refused(&format!("a Pool of {frames} frames and {bytes} bytes"), pool, want)?;
    }
    equal("the accounts afterwards", accounts()?, before)
}
