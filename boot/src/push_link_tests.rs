//! The sender against the depot's own receiving end, over a line that may be bad.
use super::*;
use depot::link::{Deframer, FloorAnswer, Heard};
use depot::transfer::{Action, Event, Receiver};
use std::collections::VecDeque;

/// A line with a depot at its end. What is sent goes through `noise` first.
struct Line {
    deframer: Deframer,
    receiver: Receiver,
    file: Vec<u8>,
    taken: Vec<Vec<u8>>,
    verdict: Result<String, String>,
    answers: VecDeque<u8>,
    noise: Box<dyn FnMut(Vec<u8>) -> Vec<u8>>,
    deaf: bool,
    sent: usize,
    floors: Vec<String>,
    changes: u64,
    /// Something changes whenever floors are read.
    restless: bool,
}

impl Line {
    fn new(noise: impl FnMut(Vec<u8>) -> Vec<u8> + 'static) -> Self {
        Line {
            deframer: Deframer::new(),
            receiver: Receiver::new(),
            file: Vec::new(),
            taken: Vec::new(),
            verdict: Ok("kept".into()),
            answers: VecDeque::new(),
            noise: Box::new(noise),
            deaf: false,
            sent: 0,
            floors: Vec::new(),
            changes: 3,
            restless: false,
        }
    }

    fn handle(&mut self, event: Event) {
        for action in self.receiver.handle(event) {
            match action {
                Action::Reserve(len) => {
                    self.file = vec![0; len as usize];
                    self.handle(Event::Reserved(Ok(())));
                }
                Action::Write(at, bytes) => self.file[at as usize..][..bytes.len()].copy_from_slice(&bytes),
                Action::Judge(_) => {
                    self.taken.push(self.file.clone());
                    self.handle(Event::Judged(self.verdict.clone()));
                }
                Action::Discard => self.file.clear(),
                Action::Answer(answer) => self.answers.extend(answer.line().bytes()),
                Action::Floor(transfer, number) => {
                    self.changes += u64::from(self.restless && number == 1);
                    let floor = self.floors.get(number as usize).cloned();
                    let answer = FloorAnswer { number, changes: self.changes, sequence: 8, floor };
                    let verdict = Verdict::Floor(answer);
                    self.answers.extend(Answer { transfer, verdict }.line().bytes());
                }
            }
        }
    }

    fn hear(&mut self, heard: Vec<Heard>) {
        for one in heard {
            self.handle(match one {
                Heard::Frame(frame) => Event::Frame(frame),
                Heard::Damaged(why) => Event::Damaged(why),
            });
        }
    }
}

impl Wire for Line {
    fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.sent += 1;
        let mut heard = Vec::new();
        let arrived = (self.noise)(bytes.to_vec());
        if !self.deaf {
            self.deframer.feed(&arrived, |one| heard.push(one));
            self.hear(heard);
        }
        Ok(())
    }

    fn receive(&mut self, into: &mut [u8]) -> std::io::Result<Option<usize>> {
        if self.answers.is_empty() {
            // Time goes by.
            let mut heard = Vec::new();
            self.deframer.silence(|one| heard.push(one));
            self.hear(heard);
            std::thread::sleep(Duration::from_millis(1));
        }
        let count = into.len().min(self.answers.len());
        for (to, from) in into.iter_mut().zip(self.answers.drain(..count)) {
            *to = from;
        }
        Ok(Some(count).filter(|count| *count > 0))
    }
}

fn file(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 % 253) as u8).collect()
}

fn send(line: &mut Line, bytes: &[u8]) -> Result<String> {
    let patience = Duration::from_millis(50);
    Sender { wire: line, transfer: 77, heard: Vec::new(), patience }.send(bytes)
}

#[test]
fn files_arrive_and_the_answer_comes_back() {
    for len in [1, MAX_PAYLOAD, 3 * MAX_PAYLOAD + 5] {
        let mut line = Line::new(|bytes| bytes);
        assert_eq!(send(&mut line, &file(len)).unwrap(), "kept");
        assert_eq!(line.taken, [file(len)]);
        assert_eq!(line.sent, 1 + len.div_ceil(MAX_PAYLOAD), "no frame twice");
    }
}

#[test]
fn a_line_that_loses_flips_doubles_and_invents_bytes_only_costs_time() {
    let mut count = 0;
    let mut line = Line::new(move |mut bytes| {
        count += 1;
        match count % 8 {
            1 => drop(bytes.drain(3..9)),
            2 => bytes[20] ^= 4,
            4 => bytes.splice(0..0, *b"\x16\x05SF noise \x16\x05").for_each(drop),
            5 => bytes.truncate(30),
            6 => bytes.extend(bytes.clone()),
            _ => {}
        }
        bytes
    });
    let bytes = file(9 * MAX_PAYLOAD + 100);
    assert_eq!(send(&mut line, &bytes).unwrap(), "kept");
    assert_eq!(line.taken, [bytes]);
}

#[test]
fn answers_among_other_text_are_found() {
    let mut line = Line::new(|bytes| bytes);
    line.answers
        .extend(*b"\xff\xfe garbage\ndepot 5 ack 0\ndepot 77 ack 9\ndepot 77 nack 3 x\n[  0.1] log line\n");
    assert_eq!(send(&mut line, &file(2000)).unwrap(), "kept");
}

fn read_floors(line: &mut Line) -> Result<(Vec<String>, u64)> {
    let mut asker =
        Sender { wire: line, transfer: 77, heard: Vec::new(), patience: Duration::from_millis(50) };
    asker.floors()?.context("they changed")
}

#[test]
fn floors_are_read_over_a_bad_line_and_only_as_of_one_moment() {
    let mut count = 0;
    let mut line = Line::new(move |mut bytes| {
        count += 1;
        if count % 3 == 1 {
            bytes[5] ^= 1;
        }
        bytes
    });
    line.floors = (0..7).map(|n| format!("sila/m{n}={n}")).collect();
    assert_eq!(read_floors(&mut line).unwrap(), (line.floors.clone(), 8));
    line.floors.clear();
    assert_eq!(read_floors(&mut line).unwrap(), (Vec::new(), 8));
    let mut restless = Line::new(|bytes| bytes);
    (restless.floors, restless.restless) = (vec!["a/b=1".into(), "a/c=1".into()], true);
    assert!(read_floors(&mut restless).is_err());
    assert!(format!("{:#}", floors(&mut restless).unwrap_err()).contains("change all the time"));
    let mut endless = Line::new(|bytes| bytes);
    endless.floors = (0..MAX_RECORD_FLOORS).map(|n| format!("sila/m{n}=1")).collect();
    assert_eq!(read_floors(&mut endless).unwrap().0.len(), MAX_RECORD_FLOORS, "as many as there can be");
    endless.floors.push("sila/more=1".into());
    assert!(format!("{:#}", read_floors(&mut endless).unwrap_err()).contains("more than"));
}

#[test]
fn a_refusal_is_told_in_the_system_s_words() {
    let mut line = Line::new(|bytes| bytes);
    line.verdict = Err("the publisher's key is revoked".into());
    let error = format!("{:#}", send(&mut line, &file(10)).unwrap_err());
    assert_eq!(error, "the system refused it: the publisher's key is revoked");
}

#[test]
fn a_system_that_does_not_answer_is_given_up_after_some_tries() {
    let mut line = Line::new(|bytes| bytes);
    line.deaf = true;
    let error = format!("{:#}", send(&mut line, &file(10)).unwrap_err());
    assert!(error.contains("does not answer") && error.contains("depot"), "{error}");
    assert_eq!(line.sent, TRIES as usize);
    let mut line = Line::new(|mut bytes| {
        bytes[30] ^= 1;
        bytes
    });
    let error = format!("{:#}", send(&mut line, &file(10)).unwrap_err());
    assert!(error.contains("the frame's check does not match"), "{error}");
}

#[test]
fn a_lost_connection_is_no_silence() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut ours = ours;
    ours.set_read_timeout(Some(TICK)).unwrap();
    drop(theirs);
    let error = format!("{:#}", transfer(&mut ours, b"x").unwrap_err());
    assert!(error.contains("the connection to the system is lost"), "{error}");
}

#[test]
fn what_is_no_socket_and_no_port_is_wrong_usage() {
    for path in ["/etc/passwd", "/no/such", "/dev/null"] {
        let error = open(Path::new(path)).err().unwrap();
        assert_eq!(crate::missing::status(&error), 64, "{error:#}");
    }
}
