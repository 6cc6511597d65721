use super::*;
use proptest::prelude::*;
use sila_abi::protocol::push::DATA;
use sila_crypto::hash::bulk_digest;
use zerocopy::IntoBytes;

const ID: u32 = 7;

fn file(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 % 251) as u8).collect()
}

fn begin(transfer: u32, len: u64, digest: Digest) -> Event {
    let payload = Announcement { len: len.into(), digest }.as_bytes().to_vec();
    Event::Frame(Frame { kind: BEGIN, transfer, number: 0, payload })
}

fn data(transfer: u32, number: u32, payload: &[u8]) -> Event {
    Event::Frame(Frame { kind: DATA, transfer, number, payload: payload.to_vec() })
}

fn answer(transfer: u32, verdict: Verdict) -> Action {
    Action::Answer(Answer { transfer, verdict })
}

fn refusal(actions: &[Action]) -> Option<&str> {
    actions.iter().find_map(|action| match action {
        Action::Answer(Answer { verdict: Verdict::Refused(why), .. }) => Some(why.as_str()),
        _ => None,
    })
}

/// A receiver in this stage, of a file of two frames.
fn at(stage: Stage) -> Receiver {
    let mut receiver = Receiver::new();
    let bytes = file(MAX_PAYLOAD + 5);
    let events = [
        (Stage::Idle, begin(ID, bytes.len() as u64, bulk_digest(&bytes))),
        (Stage::Reserving, Event::Reserved(Ok(()))),
        (Stage::Receiving, data(ID, 1, &bytes[..MAX_PAYLOAD])),
        (Stage::Receiving, data(ID, 2, &bytes[MAX_PAYLOAD..])),
        (Stage::Judging, Event::Judged(Ok("kept".into()))),
    ];
    for (before, event) in events {
        assert_eq!(receiver.stage(), before);
        if before == stage {
            return receiver;
        }
        receiver.handle(event);
    }
    assert_eq!(receiver.stage(), stage);
    receiver
}

/// The binary's part: the file's memory.
#[derive(Default)]
struct Desk {
    memory: Option<Vec<u8>>,
    taken: Vec<Vec<u8>>,
    answers: Vec<Answer>,
}

impl Desk {
    fn run(&mut self, receiver: &mut Receiver, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            for action in receiver.handle(event) {
                match action {
                    Action::Reserve(len) => {
                        assert!(self.memory.is_none(), "two files at once");
                        assert!((1..=MAX_FILE).contains(&len));
                        self.memory = Some(vec![0; len as usize]);
                        events.push(Event::Reserved(Ok(())));
                    }
                    Action::Write(offset, bytes) => {
                        let at = offset as usize;
                        self.memory.as_mut().unwrap()[at..at + bytes.len()].copy_from_slice(&bytes);
                    }
                    Action::Judge(digest) => {
                        let file = self.memory.take().unwrap();
                        assert_eq!(digest, bulk_digest(&file));
                        self.taken.push(file);
                        events.push(Event::Judged(Ok("kept".into())));
                    }
                    Action::Discard => assert!(self.memory.take().is_some(), "discarded twice"),
                    Action::Answer(answer) => self.answers.push(answer),
                    Action::Floor(..) => panic!("nobody asked for a floor"),
                }
            }
        }
    }
}

fn send(receiver: &mut Receiver, desk: &mut Desk, transfer: u32, bytes: &[u8]) {
    desk.run(receiver, begin(transfer, bytes.len() as u64, bulk_digest(bytes)));
    for (i, piece) in bytes.chunks(MAX_PAYLOAD).enumerate() {
        desk.run(receiver, data(transfer, i as u32 + 1, piece));
    }
}

/// A question for a floor is answered in every stage and leaves the transfer as it was.
#[test]
fn questions_for_floors_disturb_no_transfer() {
    for stage in Stage::ALL {
        let mut receiver = at(stage);
        let ask = |payload: &[u8]| {
            Event::Frame(Frame { kind: FLOORS, transfer: 99, number: 4, payload: payload.to_vec() })
        };
        assert_eq!(receiver.handle(ask(&[])), [Action::Floor(99, 4)]);
        let actions = receiver.handle(ask(&[1]));
        assert_eq!(refusal(&actions), Some("a question for a floor carries nothing"));
        assert_eq!(receiver.stage(), stage);
    }
}

#[test]
fn files_of_any_length_come_through() {
    let mut receiver = Receiver::new();
    let mut desk = Desk::default();
    let lengths = [1, MAX_PAYLOAD - 1, MAX_PAYLOAD, MAX_PAYLOAD + 1, 5 * MAX_PAYLOAD];
    for (i, len) in lengths.into_iter().enumerate() {
        send(&mut receiver, &mut desk, i as u32, &file(len));
        assert_eq!(desk.answers.last().unwrap().verdict, Verdict::Done("kept".into()));
    }
    assert_eq!(desk.taken, lengths.map(file));
}

#[test]
fn a_frame_that_comes_twice_counts_once() {
    let mut receiver = Receiver::new();
    let mut desk = Desk::default();
    let bytes = file(3 * MAX_PAYLOAD);
    for _ in 0..3 {
        desk.run(&mut receiver, begin(ID, bytes.len() as u64, bulk_digest(&bytes)));
    }
    for (i, piece) in bytes.chunks(MAX_PAYLOAD).enumerate() {
        for _ in 0..2 {
            desk.run(&mut receiver, data(ID, i as u32 + 1, piece));
        }
    }
    assert_eq!(desk.taken, [bytes]);
    let done = desk.answers.iter().filter(|answer| answer.verdict == Verdict::Done("kept".into())).count();
    assert_eq!(done, 2, "the last answer is given again to a sender that did not hear it");
}

#[test]
fn a_frame_that_is_missing_is_asked_for() {
    let mut receiver = at(Stage::Receiving);
    let actions = receiver.handle(data(ID, 2, &[0; 5]));
    assert_eq!(actions, [answer(ID, Verdict::Nack(1, "frame 1 was expected".into()))]);
    assert_eq!(receiver.stage(), Stage::Receiving);
}

#[test]
fn lengths_are_checked_before_memory_is_asked_for() {
    for (len, part) in [(0, "empty"), (MAX_FILE + 1, "at most"), (u64::MAX, "at most")] {
        let mut receiver = Receiver::new();
        let actions = receiver.handle(begin(ID, len, [0; 32]));
        assert!(refusal(&actions).unwrap().contains(part), "{actions:?}");
        assert!(actions.iter().all(|action| !matches!(action, Action::Reserve(_))));
        assert_eq!(receiver.stage(), Stage::Ended);
    }
    assert_eq!(Receiver::new().handle(begin(ID, MAX_FILE, [0; 32])), [Action::Reserve(MAX_FILE)]);
}

#[test]
fn a_file_with_another_digest_is_discarded_and_never_judged() {
    let mut receiver = Receiver::new();
    receiver.handle(begin(ID, 3, bulk_digest(b"abc")));
    receiver.handle(Event::Reserved(Ok(())));
    let actions = receiver.handle(data(ID, 1, b"abd"));
    assert!(actions.contains(&Action::Discard));
    assert!(refusal(&actions).unwrap().contains("digest"), "{actions:?}");
    assert!(actions.iter().all(|action| !matches!(action, Action::Judge(_))));
}

#[test]
fn a_frame_with_more_or_less_than_is_due_ends_the_transfer() {
    for len in [0, 1, MAX_PAYLOAD - 1] {
        let mut receiver = at(Stage::Receiving);
        let actions = receiver.handle(data(ID, 1, &file(len)));
        assert_eq!(actions[0], Action::Discard);
        assert!(refusal(&actions).unwrap().contains("due"));
        assert_eq!(receiver.stage(), Stage::Ended);
    }
    let mut receiver = at(Stage::Receiving);
    receiver.handle(data(ID, 1, &file(MAX_PAYLOAD)));
    let actions = receiver.handle(data(ID, 2, &file(6)));
    assert!(refusal(&actions).is_some(), "{actions:?}");
}

#[test]
fn refused_memory_and_refused_files_are_told_with_their_reason() {
    let mut receiver = at(Stage::Reserving);
    let actions = receiver.handle(Event::Reserved(Err("no memory".into())));
    assert_eq!(actions, [answer(ID, Verdict::Refused("no memory".into()))]);
    let mut receiver = at(Stage::Judging);
    let actions = receiver.handle(Event::Judged(Err("no package".into())));
    assert_eq!(actions, [answer(ID, Verdict::Refused("no package".into()))]);
    assert_eq!(receiver.stage(), Stage::Ended);
}

#[test]
fn every_event_in_every_stage_is_answered_or_ignored_as_the_table_says() {
    use Stage::{Ended, Idle, Judging, Receiving, Reserving};
    let bytes = file(MAX_PAYLOAD + 5);
    let same = begin(ID, bytes.len() as u64, bulk_digest(&bytes));
    let events = [
        same,
        begin(8, 5, [0; 32]),
        Event::Frame(Frame { kind: BEGIN, transfer: 8, number: 1, payload: vec![0; 40] }),
        Event::Frame(Frame { kind: BEGIN, transfer: 8, number: 0, payload: vec![0; 39] }),
        data(ID, 1, &bytes[..MAX_PAYLOAD]),
        data(ID, 9, b"x"),
        data(8, 1, b"x"),
        Event::Damaged("check"),
        Event::Reserved(Ok(())),
        Event::Reserved(Err("no".into())),
        Event::Judged(Ok("yes".into())),
        Event::Judged(Err("no".into())),
        Event::Expired,
    ];
    // The stage after each event, and whether the sender is answered (A), memory asked for (R), given up (D) or
    // written (W).
    let table: [(Stage, [(Stage, &str); 13]); 5] = [
        (
            Idle,
            [
                (Reserving, "R"),
                (Reserving, "R"),
                (Idle, "A"),
                (Idle, "A"),
                (Idle, "A"),
                (Idle, "A"),
                (Idle, "A"),
                (Idle, "A"),
                (Idle, ""),
                (Idle, ""),
                (Idle, ""),
                (Idle, ""),
                (Idle, ""),
            ],
        ),
        (
            Reserving,
            [
                (Reserving, ""),
                (Reserving, ""),
                (Reserving, ""),
                (Reserving, ""),
                (Reserving, ""),
                (Reserving, ""),
                (Reserving, ""),
                (Reserving, ""),
                (Receiving, "A"),
                (Ended, "A"),
                (Reserving, ""),
                (Reserving, ""),
                (Reserving, ""),
            ],
        ),
        (
            Receiving,
            [
                (Receiving, "A"),
                (Reserving, "DR"),
                (Idle, "DA"),
                (Idle, "DA"),
                (Receiving, "WA"),
                (Receiving, "A"),
                (Receiving, "A"),
                (Receiving, "A"),
                (Receiving, ""),
                (Receiving, ""),
                (Receiving, ""),
                (Receiving, ""),
                (Ended, "DA"),
            ],
        ),
        (
            Judging,
            [
                (Judging, ""),
                (Judging, ""),
                (Judging, ""),
                (Judging, ""),
                (Judging, ""),
                (Judging, ""),
                (Judging, ""),
                (Judging, ""),
                (Judging, ""),
                (Judging, ""),
                (Ended, "A"),
                (Ended, "A"),
                (Judging, ""),
            ],
        ),
        (
            Ended,
            [
                (Ended, "A"),
                (Reserving, "R"),
                (Idle, "A"),
                (Idle, "A"),
                (Ended, "A"),
                (Ended, "A"),
                (Ended, "A"),
                (Ended, "A"),
                (Ended, ""),
                (Ended, ""),
                (Ended, ""),
                (Ended, ""),
                (Ended, ""),
            ],
        ),
    ];
    assert_eq!(table.map(|(stage, _)| stage), Stage::ALL);
    for (stage, row) in table {
        for (event, (after, letters)) in events.iter().zip(row) {
            let mut receiver = at(stage);
            let actions = receiver.handle(event.clone());
            let letter = |action: &Action| match action {
                Action::Reserve(_) => 'R',
                Action::Write(..) => 'W',
                Action::Judge(_) => 'J',
                Action::Discard => 'D',
                Action::Answer(_) => 'A',
                Action::Floor(..) => 'F',
            };
            let did: String = actions.iter().map(letter).collect();
            assert_eq!((receiver.stage(), did.as_str()), (after, letters), "{stage:?} {event:?}");
        }
    }
}

proptest! {
    /// Whatever frames come in whatever order, memory is neither lost nor given up twice, only whole files are taken,
    /// and a well-behaved sender gets through afterwards.
    #[test]
    fn hostile_senders_break_nothing(
        events in proptest::collection::vec((0u8..6, 0u32..4, 0u32..4, 0usize..2050), 0..60),
    ) {
        let mut receiver = Receiver::new();
        let mut desk = Desk::default();
        for (what, transfer, number, len) in events {
            let event = match what {
                0 | 1 => begin(transfer, len as u64, bulk_digest(&file(len))),
                2 | 3 => data(transfer, number, &file(len.min(MAX_PAYLOAD))),
                4 => Event::Damaged("check"),
                _ => Event::Expired,
            };
            desk.run(&mut receiver, event);
            prop_assert!(!matches!(receiver.stage(), Stage::Reserving | Stage::Judging));
            prop_assert_eq!(desk.memory.is_some(), receiver.stage() == Stage::Receiving);
        }
        let before = desk.taken.len();
        send(&mut receiver, &mut desk, 99, &file(3000));
        prop_assert_eq!(desk.taken.len(), before + 1);
        prop_assert_eq!(desk.taken.last().unwrap(), &file(3000));
    }
}
