//! Journals: what goes in comes out, nothing else happens.

use super::*;
use proptest::prelude::*;

const J: Slot = Slot(11);
const FRAMES: Slot = Slot(12);
const PAGE_WORDS: usize = 512;

/// A process with a Journal of this many frames.
fn journal(w: &mut World, frames: u64) -> Actor {
    let a = w.actor(50);
    w.invoke(a, POOL, Op::RegionCreate, &[frames, FRAMES.0.into()]).unwrap();
    // The test's Pool is small for a Journal's price.
    let pool = w.k.split_pool(w.k.root_pool, 40, 20_000).unwrap();
    w.give(a, Slot(13), reference(ObjectType::Pool, pool), Rights::USE);
    w.invoke(a, Slot(13), Op::JournalCreate, &[FRAMES.0.into(), J.0.into()]).unwrap();
    a
}

fn page(w: &mut World, a: Actor) -> &mut [u64; PAGE_WORDS] {
    let frame = w.k.threads.get(a.thread).unwrap().message.unwrap().0;
    crate::machine::Machine::frame(&mut w.m, frame)
}

fn append(w: &mut World, a: Actor, badge: u64, call: &[u64], reply: &[u64]) -> Result<[u64; 6], Error> {
    for (to, from) in page(w, a)[6..].iter_mut().zip(call.iter().chain(reply)) {
        *to = *from;
    }
    let lengths = call.len() as u64 | (reply.len() as u64) << 8;
    w.invoke(a, J, Op::JournalAppend, &[badge, 3 | 4 << 32, lengths])
}

fn read(w: &mut World, a: Actor, record: u64) -> Result<(u64, Vec<u64>, Vec<u64>), Error> {
    page(w, a).fill(0xdead);
    let [badge, labels, lengths, ..] = w.invoke(a, J, Op::JournalRead, &[record])?;
    assert_eq!(labels, 3 | 4 << 32);
    let (call, reply) = (lengths as u8 as usize, (lengths >> 8) as usize);
    let words = page(w, a)[6..6 + call + reply].to_vec();
    assert!(page(w, a)[6 + call + reply..].iter().all(|w| *w == 0xdead), "nothing beyond the record");
    Ok((badge, words[..call].to_vec(), words[call..].to_vec()))
}

#[test]
fn making_a_journal_takes_the_region_over_whole_or_not_at_all() {
    let mut w = World::new();
    let keep = w.actor(1);
    let before = w.baseline();
    let a = w.actor(50);
    let pool = w.k.split_pool(w.k.root_pool, 40, 20_000).unwrap();
    w.give(a, Slot(13), reference(ObjectType::Pool, pool), Rights::USE);
    w.invoke(a, POOL, Op::RegionCreate, &[3, FRAMES.0.into()]).unwrap();
    let make =
        |w: &mut World, from: Slot| w.invoke(a, from, Op::JournalCreate, &[FRAMES.0.into(), J.0.into()]);
    w.invoke(a, POOL, Op::PoolCreate, &[0, 20_000, 16]).map(|_| ()).unwrap_err();
    w.invoke(a, POOL, Op::PoolCreate, &[10, 100, 16]).unwrap();
    assert_eq!(make(&mut w, Slot(16)), Err(Error::OutOfObjectBytes));
    w.invoke(a, Slot(16), Op::CapDelete, &[]).unwrap();
    w.invoke(a, FRAMES, Op::CapCopy, &[14, Rights::READ.bits().into()]).unwrap();
    assert_eq!(make(&mut w, Slot(13)), Err(Error::NotExclusive));
    w.invoke(a, Slot(14), Op::CapDelete, &[]).unwrap();
    w.invoke(a, FRAMES, Op::RegionMap, &[PROCESS.0.into(), 0x80_0000, 0, 1, 1, 14]).unwrap();
    assert_eq!(make(&mut w, Slot(13)), Err(Error::NotExclusive));
    w.m.lazy_flush = true;
    w.invoke(a, Slot(14), Op::MappingUnmap, &[]).unwrap();
    assert_eq!(make(&mut w, Slot(13)), Err(Error::StillWritable), "a stale translation may remain");
    w.m.lazy_flush = false;
    w.k.settle_flushes(&w.m);
    make(&mut w, Slot(13)).unwrap();
    assert!(w.k.find(a.process, FRAMES).is_err());
    assert_eq!(w.invoke(a, J, Op::JournalStatus, &[]).unwrap()[..4], [0, 0, 3 * 4096, 0]);
    let p = w.k.pools.get(pool).unwrap();
    assert_eq!(p.frames.used, 3, "the frames are charged to the Journal's Pool");
    w.invoke(a, POOL, Op::RegionCreate, &[1, FRAMES.0.into()]).unwrap();
    w.invoke(a, FRAMES, Op::RegionSeal, &[]).unwrap();
    let sealed = w.invoke(a, Slot(13), Op::JournalCreate, &[FRAMES.0.into(), 15]);
    assert_eq!(sealed, Err(Error::Sealed));
    w.k.begin_end(&mut w.m, a.process, Exit::default());
    w.settle();
    assert_eq!(w.baseline(), before);
    assert!(w.k.threads.get(keep.thread).is_some());
}

#[test]
fn a_full_journal_refuses_and_changes_nothing() {
    let mut w = World::new();
    let a = journal(&mut w, 1);
    // 512 words: a record of 120 and 120 takes 243 and one of index.
    let (call, reply) = ([1; 120], [2; 120]);
    let left = append(&mut w, a, 1, &call, &reply).unwrap();
    assert_eq!(left[..2], [0, 512 - 243 - 2]);
    append(&mut w, a, 1, &call, &reply).unwrap();
    let status = w.invoke(a, J, Op::JournalStatus, &[]).unwrap();
    assert_eq!(status[..5], [2, 488 * 8, 4096, 0, 23 * 8]);
    assert_eq!(append(&mut w, a, 1, &[7; 21], &[]), Err(Error::JournalFull));
    assert_eq!(w.words(a)[0], 23);
    assert_eq!(w.invoke(a, J, Op::JournalStatus, &[]).unwrap(), status);
    append(&mut w, a, 9, &[7; 20], &[]).unwrap();
    assert_eq!(w.invoke(a, J, Op::JournalStatus, &[]).unwrap()[..5], [3, 4096, 4096, 0, 0]);
    assert_eq!(append(&mut w, a, 1, &[], &[]), Err(Error::JournalFull));
    assert_eq!(read(&mut w, a, 2).unwrap(), (9, std::vec![7; 20], Vec::new()));
    assert_eq!(read(&mut w, a, 0).unwrap(), (1, call.to_vec(), reply.to_vec()));
    assert_eq!(read(&mut w, a, 3), Err(Error::NoMoreEntries));
}

#[test]
fn a_closed_journal_is_read_only_for_ever() {
    let mut w = World::new();
    let a = journal(&mut w, 1);
    append(&mut w, a, 1, &[1], &[2]).unwrap();
    w.invoke(a, J, Op::JournalClose, &[]).unwrap();
    assert_eq!(append(&mut w, a, 1, &[1], &[2]), Err(Error::JournalClosed));
    w.invoke(a, J, Op::JournalClose, &[]).unwrap();
    assert_eq!(w.invoke(a, J, Op::JournalStatus, &[]).unwrap()[3], 1);
    assert_eq!(read(&mut w, a, 0).unwrap(), (1, std::vec![1], std::vec![2]));
}

#[test]
fn lengths_and_the_message_page_are_checked() {
    let mut w = World::new();
    let a = journal(&mut w, 1);
    for lengths in [121, 121 << 8, 1 << 16, u64::MAX] {
        let got = w.invoke(a, J, Op::JournalAppend, &[1, 2, lengths]);
        assert_eq!(got, Err(Error::InvalidArgument), "{lengths:#x}");
    }
    assert_eq!(w.invoke(a, J, Op::JournalStatus, &[]).unwrap()[0], 0);
    w.checks = false;
    w.k.threads.get_mut(a.thread).unwrap().message = None;
    assert_eq!(w.invoke(a, J, Op::JournalAppend, &[1, 2, 1]), Err(Error::MessageTooLong));
    assert_eq!(w.invoke(a, J, Op::JournalRead, &[0]), Err(Error::NoMoreEntries));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn journals_agree_with_a_list(
        frames in 1u64..12,
        records in proptest::collection::vec((any::<u64>(), 0usize..=120, 0usize..=120), 1..60),
    ) {
        let mut w = World::new();
        let a = journal(&mut w, frames);
        let mut model = Vec::new();
        let mut room = frames as usize * PAGE_WORDS;
        for (badge, call, reply) in records {
            let words = |salt: u64, n: usize| (0..n as u64).map(|i| badge ^ salt ^ i << 32).collect::<Vec<_>>();
            let (call, reply) = (words(1, call), words(2, reply));
            let cost = 4 + call.len() + reply.len();
            let got = append(&mut w, a, badge, &call, &reply);
            if cost > room {
                prop_assert_eq!(got, Err(Error::JournalFull));
            } else {
                prop_assert_eq!(got.map(|w| w[0]), Ok(model.len() as u64));
                room -= cost;
                model.push((badge, call, reply));
            }
        }
        for (at, want) in model.iter().enumerate() {
            prop_assert_eq!(&read(&mut w, a, at as u64).unwrap(), want);
        }
        prop_assert_eq!(read(&mut w, a, model.len() as u64), Err(Error::NoMoreEntries));
    }
}
