//! The trace and the counters: the events of known scenarios come out, all of them and nothing else.

use super::*;
use crate::trace::RECORDS;
use sila_abi::status::CounterRecord;
use sila_abi::trace::{ALL_KINDS, End, Kind, RECORD_WORDS, Record, bit};
use zerocopy::{FromBytes, IntoBytes};

const CONTROL: Slot = Slot(8);
const EP: Slot = Slot(10);
const NOTE: Slot = Slot(11);
const REGION: Slot = Slot(13);
const MAPPING: Slot = Slot(14);
const REPLY: u16 = 20;

/// A world in which an actor of the lowest priority controls the trace.
fn world() -> (World, Actor) {
    let mut w = World::new();
    let control = w.actor(1);
    let object = crate::cap::ObjRef {
        kind: ObjectType::SystemControl,
        index: 0,
        generation: crate::kernel::PERMANENT,
    };
    w.give(control, CONTROL, object, Rights::READ | Rights::MANAGE);
    (w, control)
}

fn on(w: &mut World, control: Actor, kinds: u64) -> u64 {
    w.invoke(control, CONTROL, Op::SystemTrace, &[kinds]).unwrap()[1]
}

fn off(w: &mut World, control: Actor) -> u64 {
    on(w, control, 0)
}

/// The words of a SystemTraceRead, and the records.
fn read(w: &mut World, control: Actor, from: u64) -> ([u64; 6], Vec<Record>) {
    let words = w.invoke(control, CONTROL, Op::SystemTraceRead, &[from]).unwrap();
    let (frame, _) = w.k.threads.get(control.thread).unwrap().message.unwrap();
    let page = *crate::machine::Machine::frame(&mut w.m, frame);
    let records = page[6..].chunks_exact(RECORD_WORDS).take(words[1] as usize);
    (words, records.map(|r| Record::read_from_bytes(r.as_bytes()).unwrap()).collect())
}

/// Every record from a sequence number on; none may be lost.
fn all(w: &mut World, control: Actor, from: u64) -> Vec<Record> {
    let (mut at, mut found) = (from, Vec::new());
    loop {
        let (words, records) = read(w, control, at);
        assert_eq!(words[2], 0, "nothing is lost");
        if records.is_empty() {
            return found;
        }
        found.extend(records);
        at = words[0];
    }
}

fn kinds(records: &[Record]) -> Vec<Kind> {
    records.iter().map(|r| Kind::from_number(r.kind).unwrap()).collect()
}

fn counters(w: &mut World, control: Actor) -> CounterRecord {
    let words = w.invoke(control, CONTROL, Op::SystemCounters, &[]).unwrap();
    let (frame, _) = w.k.threads.get(control.thread).unwrap().message.unwrap();
    let mut page = *crate::machine::Machine::frame(&mut w.m, frame);
    page[..6].copy_from_slice(&words);
    CounterRecord::read_from_prefix(page.as_bytes()).unwrap().0
}

#[test]
fn nothing_is_recorded_until_it_is_asked_for() {
    let (mut w, control) = world();
    w.invoke(control, POOL, Op::NotificationCreate, &[NOTE.0.into()]).unwrap();
    assert_eq!(read(&mut w, control, 0).0, [0, 0, 0, 0, RECORDS as u64, 0]);
    assert_eq!(w.invoke(control, CONTROL, Op::SystemTraceRead, &[1]), Err(Error::InvalidArgument));
    assert_eq!(w.invoke(control, CONTROL, Op::SystemTrace, &[ALL_KINDS << 1]), Err(Error::InvalidArgument));
    assert_eq!(w.invoke(control, CONTROL, Op::SystemTrace, &[1]), Err(Error::InvalidArgument));
}

#[test]
fn a_system_call_that_a_short_path_would_take_is_recorded_too() {
    let (mut w, control) = world();
    let a = w.actor(50);
    w.invoke(a, POOL, Op::NotificationCreate, &[NOTE.0.into()]).unwrap();
    let from = on(&mut w, control, bit(Kind::Enter) | bit(Kind::Leave));
    w.m.time = 777;
    w.invoke(a, NOTE, Op::Signal, &[5]).unwrap();
    assert_eq!(w.invoke(a, Slot(99), Op::CapStatus, &[]), Err(Error::NoCapability));
    off(&mut w, control);
    let number = w.k.processes.get(a.process).unwrap().number;
    let tag = |op: Op| Tag::new(Call::Invoke, 6, 0, op as u32).0;
    let record = |kind: Kind, words| Record {
        time: 777,
        process: number,
        thread: a.thread.index(),
        kind: kind as u32,
        words,
    };
    let found = all(&mut w, control, from);
    assert_eq!(
        found[..4],
        [
            record(Kind::Enter, [tag(Op::Signal), NOTE.0.into(), 5]),
            record(Kind::Leave, [tag(Op::Signal), End::Done as u64, 0]),
            record(Kind::Enter, [tag(Op::CapStatus), 99, 5]),
            record(Kind::Leave, [tag(Op::CapStatus), End::Refused as u64, Error::NoCapability as u64]),
        ]
        .map(|mut r| {
            // The second call gives no argument: the register keeps what the first left there.
            if r.words[1] == 99 {
                r.words[2] = 0;
            }
            r
        })
    );
    // The call that ends it has begun.
    assert_eq!(kinds(&found[4..]), [Kind::Enter]);
    assert_eq!(found[4].process, w.k.processes.get(control.process).unwrap().number);
}

#[test]
fn a_call_and_its_answer_come_out_in_order() {
    let (mut w, control) = world();
    let (server, client) = (w.actor(50), w.actor(40));
    w.invoke(server, POOL, Op::EndpointCreate, &[0, 0, EP.0.into()]).unwrap();
    w.share(server, EP, client, EP, Rights::SEND, 7);
    let wanted = [Kind::Send, Kind::Call, Kind::Receive, Kind::Reply];
    let from = on(&mut w, control, wanted.into_iter().fold(0, |all, kind| all | bit(kind)));
    w.message(server, Call::Recv, EP, forever(REPLY));
    w.message(client, Call::Call, EP, Say { label: 3, deadline: FOREVER, ..Default::default() });
    w.message(server, Call::Reply, Slot(REPLY), Say { label: 4, ..Default::default() });
    w.message(client, Call::Send, EP, Say { label: 5, deadline: FOREVER, ..Default::default() });
    w.message(server, Call::Recv, EP, forever(REPLY));
    off(&mut w, control);
    let found = all(&mut w, control, from);
    assert_eq!(kinds(&found), [Kind::Receive, Kind::Call, Kind::Reply, Kind::Send]);
    let [server, client] = [server, client].map(|a| w.k.processes.get(a.process).unwrap().number);
    assert_eq!(found.iter().map(|r| r.process).collect::<Vec<_>>(), [server, client, server, client]);
    assert_eq!((found[1].words[0], found[2].words[0], found[3].words[0]), (server, client, server));
    assert_eq!(found[1].words[2], Tag::new(Call::Call, 0, 0, 3).0);
}

#[test]
fn memory_threads_and_revocation_come_out_with_what_they_were_about() {
    let (mut w, control) = world();
    let a = w.actor(50);
    let number = w.k.processes.get(a.process).unwrap().number;
    let calls = bit(Kind::Enter) | bit(Kind::Leave) | bit(Kind::Switch);
    let from = on(&mut w, control, ALL_KINDS & !calls);
    w.invoke(a, POOL, Op::RegionCreate, &[4, REGION.0.into()]).unwrap();
    let args = [PROCESS.0.into(), 0x80_0000, 0, 3, 1, MAPPING.0.into()];
    w.invoke(a, REGION, Op::RegionMap, &args).unwrap();
    // Refused: no event.
    assert_eq!(w.invoke(a, REGION, Op::RegionMap, &args), Err(Error::SlotOccupied));
    w.invoke(a, MAPPING, Op::MappingProtect, &[]).unwrap();
    w.invoke(a, MAPPING, Op::MappingUnmap, &[]).unwrap();
    w.invoke(a, PROCESS, Op::ThreadCreate, &[0x10_0000, 0x20_0000, 0, 10, 0, 15]).unwrap();
    let thread = w.k.find(a.process, Slot(15)).unwrap().cap.object.index;
    w.invoke(a, Slot(15), Op::ThreadTerminate, &[]).unwrap();
    for slot in [40, 41] {
        w.invoke(a, REGION, Op::CapCopy, &[slot, Rights::READ.bits().into()]).unwrap();
    }
    w.invoke(a, REGION, Op::CapRevoke, &[]).unwrap();
    off(&mut w, control);
    let found: Vec<_> = all(&mut w, control, from).into_iter().map(|r| (r.kind, r.words)).collect();
    let range = [number, 0x80_0000, 3];
    let want = [
        (Kind::Map, range),
        (Kind::Protect, range),
        (Kind::Unmap, range),
        (Kind::ThreadCreate, [number, thread.into(), 10]),
        (Kind::ThreadEnd, [number, thread.into(), 0]),
        (Kind::Revoke, [REGION.0.into(), 2, 1]),
    ];
    assert_eq!(found, want.map(|(kind, words)| (kind as u32, words)));
}

#[test]
fn faults_ends_and_the_reaper_come_out() {
    let (mut w, control) = world();
    let a = w.actor(50);
    let number = w.k.processes.get(a.process).unwrap().number;
    let from = on(&mut w, control, ALL_KINDS & !bit(Kind::Enter) & !bit(Kind::Leave));
    w.switch_to(a);
    w.k.enter(&mut w.m, Entry::Fault { vector: 14, error: 6, address: 0xdead_b000 });
    while !w.k.nothing_to_reap() {
        w.k.enter(&mut w.m, Entry::Timer);
    }
    off(&mut w, control);
    let found = all(&mut w, control, from);
    // The end of the call that began it let a higher priority run.
    let seen = kinds(&found);
    assert_eq!(seen[..3], [Kind::Switch, Kind::Fault, Kind::ProcessEnd]);
    assert_eq!((found[0].words[0], found[1].words[..2].to_vec()), (number, std::vec![14, 0xdead_b000]));
    assert_eq!((found[2].process, found[2].words), (number, [number, 3, 14]));
    assert_eq!(seen.iter().filter(|k| **k == Kind::ProcessGone).count(), 1);
    let steps: u64 = found.iter().filter(|r| r.kind == Kind::Reap as u32).map(|r| r.words[0]).sum();
    assert_eq!(steps, w.k.counters.reaper_steps);
    assert!(steps > 0 && seen.contains(&Kind::Switch));
}

#[test]
fn a_preempted_call_restarts_and_says_so() {
    let (mut w, control) = world();
    let (a, b) = (w.actor(50), w.actor(40));
    w.share(b, PROCESS, a, Slot(31), Rights::MANAGE, 0);
    let from = on(&mut w, control, bit(Kind::Leave));
    w.m.preempt_after = Some(0);
    w.call(a, Tag::new(Call::Invoke, 1, 0, Op::ProcessTerminate as u32), |r| r.rdi = 31);
    w.m.preempt_after = None;
    w.invoke(a, Slot(31), Op::ProcessTerminate, &[]).unwrap();
    off(&mut w, control);
    let ends: Vec<_> = all(&mut w, control, from).iter().map(|r| r.words[1]).collect();
    assert_eq!(ends, [End::Restarts as u64, End::Done as u64]);
}

#[test]
fn what_no_longer_fits_is_counted_exactly() {
    let (mut w, control) = world();
    let a = w.actor(50);
    w.checks = false;
    w.invoke(a, POOL, Op::NotificationCreate, &[NOTE.0.into()]).unwrap();
    let from = on(&mut w, control, bit(Kind::Leave));
    let calls = RECORDS as u64 + 37;
    for flags in 0..calls {
        w.invoke(a, NOTE, Op::Signal, &[1 << (flags % 60)]).unwrap();
    }
    off(&mut w, control);
    let (words, records) = read(&mut w, control, from);
    assert_eq!((words[2], words[0]), (37, from + 37 + records.len() as u64));
    let (words, records) = read(&mut w, control, from + 37);
    assert_eq!((words[2], words[1]), (0, records.len() as u64));
    assert_eq!(all(&mut w, control, from + 37).len(), RECORDS);
    assert_eq!(counters(&mut w, control).traced, calls);
}

#[test]
fn the_same_calls_do_the_same_whether_recorded_or_not() {
    let run = |kinds: u64| {
        let (mut w, control) = world();
        let (server, client) = (w.actor(50), w.actor(40));
        on(&mut w, control, kinds);
        w.invoke(server, POOL, Op::EndpointCreate, &[0, 0, EP.0.into()]).unwrap();
        w.share(server, EP, client, EP, Rights::SEND, 7);
        w.message(server, Call::Recv, EP, forever(REPLY));
        let say =
            Say { label: 3, words: [1, 2, 3, 4, 5, 6], len: 6, deadline: FOREVER, ..Default::default() };
        w.message(client, Call::Call, EP, say);
        let got = (w.words(server), w.badge(server), w.state(client));
        w.message(
            server,
            Call::Reply,
            Slot(REPLY),
            Say { len: 2, words: [8, 9, 0, 0, 0, 0], ..Default::default() },
        );
        (got, w.words(client), w.baseline())
    };
    assert_eq!(run(0), run(ALL_KINDS));
}

#[test]
fn counters_count_what_they_say() {
    let (mut w, control) = world();
    let (a, b) = (w.actor(50), w.actor(40));
    let before = counters(&mut w, control);
    w.share(b, PROCESS, a, Slot(31), Rights::MANAGE | Rights::READ, 0);
    assert!(w.invoke(a, Slot(99), Op::CapStatus, &[]).is_err());
    assert_eq!(w.invoke(a, POOL, Op::RegionCreate, &[100_000, 13]), Err(Error::InvalidArgument));
    assert_eq!(w.invoke(a, POOL, Op::RegionCreate, &[500, 13]), Err(Error::OutOfFrames));
    w.invoke(a, PROCESS, Op::ThreadCreate, &[0x10_0000, 0x20_0000, 0, 10, 0, 15]).unwrap();
    w.invoke(a, Slot(31), Op::ProcessTerminate, &[1]).unwrap();
    w.settle();
    w.k.enter(&mut w.m, Entry::Timer);
    w.invoke(a, POOL, Op::NotificationCreate, &[NOTE.0.into()]).unwrap();
    // With a deadline: no short path takes it.
    w.message(a, Call::Recv, NOTE, Say { deadline: 10_000_000, ..Default::default() });
    let after = counters(&mut w, control);
    assert_eq!(after.refused_calls - before.refused_calls, 3);
    assert_eq!(after.exhausted_calls - before.exhausted_calls, 1);
    assert_eq!(after.processes_ended - before.processes_ended, 1);
    assert_eq!(after.threads_made - before.threads_made, 1);
    assert_eq!(after.timer_interrupts - before.timer_interrupts, 1);
    assert!(after.reaper_steps > before.reaper_steps && after.thread_choices > before.thread_choices);
    assert_eq!(
        after.rows().map(|(_, value)| value).as_slice(),
        zerocopy::transmute_ref!(&after) as &[u64; CounterRecord::COUNT]
    );
}
