use super::*;
use proptest::prelude::*;

fn frame(number: u32, payload: &[u8]) -> Frame {
    Frame { kind: DATA, transfer: 7, number, payload: payload.to_vec() }
}

fn hear(deframer: &mut Deframer, bytes: &[u8]) -> Vec<Heard> {
    let mut all = Vec::new();
    deframer.feed(bytes, |heard| all.push(heard));
    all
}

fn frames(heard: &[Heard]) -> Vec<&Frame> {
    heard.iter().filter_map(|h| if let Heard::Frame(frame) = h { Some(frame) } else { None }).collect()
}

#[test]
fn frames_come_through_in_one_piece_or_byte_by_byte() {
    let all = [frame(0, b""), frame(1, b"abc"), frame(2, &[0xff; MAX_PAYLOAD])];
    let bytes: Vec<u8> = all.iter().flat_map(|f| f.encode().unwrap()).collect();
    let expected: Vec<Heard> = all.iter().cloned().map(Heard::Frame).collect();
    assert_eq!(hear(&mut Deframer::new(), &bytes), expected);
    let mut deframer = Deframer::new();
    let single: Vec<Heard> = bytes.iter().flat_map(|byte| hear(&mut deframer, &[*byte])).collect();
    assert_eq!(single, expected);
    assert!(!deframer.is_open());
}

#[test]
fn a_frame_that_would_carry_too_much_is_not_made() {
    assert_eq!(frame(0, &[0; MAX_PAYLOAD + 1]).encode(), None);
}

#[test]
fn every_flipped_bit_of_a_frame_is_noticed_and_the_next_frame_found() {
    let (first, next) = (frame(3, b"payload").encode().unwrap(), frame(4, b"next"));
    for bit in 0..first.len() * 8 {
        let mut bytes = first.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        bytes.extend(next.encode().unwrap());
        let mut deframer = Deframer::new();
        let mut heard = hear(&mut deframer, &bytes);
        // A flipped length may wait for more than came.
        deframer.silence(|h| heard.push(h));
        assert_eq!(frames(&heard), [&next], "bit {bit}");
    }
}

#[test]
fn a_length_above_the_limit_is_refused_from_the_header_alone() {
    let mut bytes = frame(0, b"x").encode().unwrap();
    bytes[6..8].copy_from_slice(&(MAX_PAYLOAD as u16 + 1).to_le_bytes());
    bytes.truncate(FRAME_HEADER_LEN);
    let mut deframer = Deframer::new();
    assert_eq!(hear(&mut deframer, &bytes), [Heard::Damaged("the frame is too long")]);
    assert!(!deframer.is_open());
}

#[test]
fn silence_ends_a_frame_that_was_cut_short_and_finds_what_it_hid() {
    let mut bytes = frame(1, &[1; 500]).encode().unwrap();
    bytes.truncate(60);
    let inner = frame(9, b"inner");
    bytes.extend(inner.encode().unwrap());
    let mut deframer = Deframer::new();
    assert_eq!(hear(&mut deframer, &bytes), []);
    assert!(deframer.is_open());
    let mut heard = Vec::new();
    deframer.silence(|h| heard.push(h));
    assert_eq!(heard, [Heard::Damaged("the frame was cut short"), Heard::Frame(inner)]);
    assert!(!deframer.is_open());
    deframer.silence(|h| panic!("{h:?}"));
}

#[test]
fn answers_round_trip_and_other_lines_are_none() {
    let why = || "frame 3 was expected".to_string();
    for verdict in [
        Verdict::Ack(4),
        Verdict::Nack(3, why()),
        Verdict::Done("kept a 1.0.0".into()),
        Verdict::Refused(why()),
        Verdict::Floor(FloorAnswer {
            number: 3,
            changes: 9,
            sequence: 2,
            floor: Some("sila/counter=7".into()),
        }),
        Verdict::Floor(FloorAnswer { number: 0, changes: u64::MAX, sequence: 0, floor: None }),
    ] {
        let answer = Answer { transfer: 77, verdict };
        assert_eq!(Answer::parse(&answer.line()), Some(answer.clone()), "{answer:?}");
    }
    for line in [
        "",
        "depot",
        "depot 1",
        "depot x ack 1",
        "depot 1 ack",
        "depot 1 ack x",
        "depot 1 floor",
        "depot 1 floor 1 2",
        "depot 1 floor 1 2 3 a/b=4 5",
        "depot 1 floor x 2 3",
        "depot 1 nod 1",
        "other 1 ack 1",
    ] {
        assert_eq!(Answer::parse(line), None, "{line}");
    }
}

#[test]
fn what_is_heard_does_not_steer_a_terminal() {
    for verb in ["done", "refused", "nack 3"] {
        let line = std::format!("depot 1 {verb} \x1b]0;gone\x07 the kernel took it\x1b[2K");
        let said = std::format!("{:?}", Answer::parse(&line).unwrap());
        assert!(said.contains("?]0;gone? the kernel took it?[2K"), "{said}");
    }
}

#[test]
fn answers_are_one_short_line_whatever_they_say() {
    let nasty = "a\nb\r\x1b[2J".to_string() + &"é".repeat(MAX_ANSWER);
    for verdict in
        [Verdict::Nack(u32::MAX, nasty.clone()), Verdict::Done(nasty.clone()), Verdict::Refused(nasty)]
    {
        let line = Answer { transfer: u32::MAX, verdict }.line();
        assert!(line.len() <= MAX_ANSWER);
        assert_eq!(line.chars().filter(|c| c.is_control()).count(), 1, "{line:?}");
    }
}

proptest! {
    /// Whatever comes before it: a frame is found, once silence has ended what came before; and no more than one
    /// frame's bytes are kept.
    #[test]
    fn garbage_hides_no_frame(
        garbage in proptest::collection::vec(prop_oneof![
            3 => any::<u8>(),
            1 => Just(FRAME_MAGIC[0]),
            1 => Just(FRAME_MAGIC[1]),
            1 => Just(FRAME_MAGIC[2]),
            1 => Just(FRAME_MAGIC[3]),
        ], 0..3000),
        payload in proptest::collection::vec(any::<u8>(), 0..MAX_PAYLOAD),
    ) {
        let real = frame(5, &payload);
        let mut deframer = Deframer::new();
        let mut heard = hear(&mut deframer, &garbage);
        heard.extend(hear(&mut deframer, &real.encode().unwrap()));
        prop_assert!(deframer.buffer.len() <= FRAME_HEADER_LEN + MAX_PAYLOAD);
        deframer.silence(|h| heard.push(h));
        prop_assert!(frames(&heard).contains(&&real));
        prop_assert!(!deframer.is_open());
    }
}
