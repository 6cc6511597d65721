//! The sender's end of the link to the depot (`sila_abi::protocol::push`).
use crate::missing::Usage;
use anyhow::{Context, Result, bail};
use depot::link::{Answer, Frame, Verdict};
use rustix::termios::{ControlModes, OptionalActions, SpecialCodeIndex, tcgetattr, tcsetattr};
use sila_abi::protocol::push::{Announcement, BEGIN, DATA, FLOORS, MAX_ANSWER, MAX_PAYLOAD};
use sila_abi::trust::MAX_RECORD_FLOORS;
use sila_crypto::hash::bulk_digest;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};
use zerocopy::IntoBytes;

/// How often a frame is sent before the system counts as silent.
const TRIES: u32 = 6;
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(3);
/// The longest wait of one read.
const TICK: Duration = Duration::from_millis(100);
/// How long the link is left alone after a frame was not understood: the depot gives up what it began to read.
const PAUSE: Duration = Duration::from_millis(300);
/// Baud of a serial port.
const SPEED: u32 = 115_200;

/// A way to a system. Reads wait for a tenth of a second at most.
pub trait Wire {
    /// Sends all of this.
    fn send(&mut self, bytes: &[u8]) -> std::io::Result<()>;
    /// Takes what has come; `None` if nothing has.
    fn receive(&mut self, into: &mut [u8]) -> std::io::Result<Option<usize>>;
}

impl Wire for UnixStream {
    fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.write_all(bytes)
    }

    fn receive(&mut self, into: &mut [u8]) -> std::io::Result<Option<usize>> {
        match self.read(into) {
            Ok(0) => Err(ErrorKind::ConnectionReset.into()),
            Ok(count) => Ok(Some(count)),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(None),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// A serial port of this machine.
struct Tty(File);

impl Wire for Tty {
    fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.write_all(bytes)
    }

    fn receive(&mut self, into: &mut [u8]) -> std::io::Result<Option<usize>> {
        match self.0.read(into) {
            Ok(0) => Ok(None),
            Ok(count) => Ok(Some(count)),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Opens a socket or a serial port.
pub fn open(to: &Path) -> Result<Box<dyn Wire>> {
    let wrong = || Usage(format!("cannot open {}", to.display()));
    let kind = std::fs::metadata(to).with_context(wrong)?.file_type();
    if kind.is_socket() {
        let stream =
            UnixStream::connect(to).with_context(|| format!("no system listens at {}", to.display()))?;
        stream.set_read_timeout(Some(TICK))?;
        stream.set_write_timeout(Some(PATIENCE * TRIES))?;
        return Ok(Box::new(stream));
    }
    if kind.is_char_device() {
        return Ok(Box::new(tty(to).with_context(wrong)?));
    }
    bail!(Usage(format!("{} is neither a socket nor a serial port", to.display())))
}

/// Raw, 8 data bits, and reads that end after a tenth of a second.
fn tty(path: &Path) -> Result<Tty> {
    let flags = i32::try_from(rustix::fs::OFlags::NOCTTY.bits())?;
    let file = File::options().read(true).write(true).custom_flags(flags).open(path)?;
    let mut settings = tcgetattr(&file).context("it is no serial port")?;
    settings.make_raw();
    settings.set_speed(SPEED)?;
    settings.control_modes |= ControlModes::CLOCAL | ControlModes::CREAD;
    settings.special_codes[SpecialCodeIndex::VMIN] = 0;
    settings.special_codes[SpecialCodeIndex::VTIME] = 1;
    tcsetattr(&file, OptionalActions::Flush, &settings)?;
    Ok(Tty(file))
}

/// Sends a file. The answer is what the system says that became of it.
pub fn transfer(wire: &mut dyn Wire, bytes: &[u8]) -> Result<String> {
    Sender { wire, transfer: fresh_number(), heard: Vec::new(), patience: PATIENCE }.send(bytes)
}

/// How often floors that change while they are read are read anew.
const READS: u32 = 4;

/// Reads the floors of a running system, and the sequence of its last signed floor record.
pub fn floors(wire: &mut dyn Wire) -> Result<(Vec<String>, u64)> {
    let mut asker = Sender { wire, transfer: fresh_number(), heard: Vec::new(), patience: PATIENCE };
    for _ in 0..READS {
        if let Some(read) = asker.floors()? {
            return Ok(read);
        }
    }
    bail!("the system's floors change all the time")
}

/// A number that no other transfer of late had; not 0.
fn fresh_number() -> u32 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    since.subsec_nanos() ^ (since.as_secs() as u32).rotate_left(16) ^ std::process::id().rotate_left(8) | 1
}

struct Sender<'a> {
    wire: &'a mut dyn Wire,
    transfer: u32,
    /// What came and is no whole line yet.
    heard: Vec<u8>,
    patience: Duration,
}

impl Sender<'_> {
    fn send(&mut self, bytes: &[u8]) -> Result<String> {
        let announced = Announcement { len: (bytes.len() as u64).into(), digest: bulk_digest(bytes) };
        let mut said = self.exchange(BEGIN, 0, announced.as_bytes())?;
        for (number, piece) in (1..).zip(bytes.chunks(MAX_PAYLOAD)) {
            if said.is_some() {
                break;
            }
            said = self.exchange(DATA, number, piece)?;
        }
        said.context("the system did not say what became of the file")
    }

    /// Every floor, if nothing changes meanwhile.
    fn floors(&mut self) -> Result<Option<(Vec<String>, u64)>> {
        let mut floors = Vec::new();
        let mut first = None;
        for number in 0..=MAX_RECORD_FLOORS as u32 {
            let Verdict::Floor(answer) = self.ask(FLOORS, number, &[])? else {
                bail!("the system does not tell its floors");
            };
            if *first.get_or_insert(answer.changes) != answer.changes {
                return Ok(None);
            }
            match answer.floor {
                Some(floor) => floors.push(floor),
                None => return Ok(Some((floors, answer.sequence))),
            }
        }
        bail!("the system tells more than {MAX_RECORD_FLOORS} floors")
    }

    /// Sends a frame until it is answered. Text is the last answer of a transfer.
    fn exchange(&mut self, kind: u8, number: u32, payload: &[u8]) -> Result<Option<String>> {
        match self.ask(kind, number, payload)? {
            Verdict::Done(what) => Ok(Some(what)),
            _ => Ok(None),
        }
    }

    /// Sends a frame until it is answered by anything but a refusal, or that it is to come again.
    fn ask(&mut self, kind: u8, number: u32, payload: &[u8]) -> Result<Verdict> {
        let frame = Frame { kind, transfer: self.transfer, number, payload: payload.to_vec() };
        let encoded = frame.encode().context("the frame is too long")?;
        let mut reason = String::new();
        for _ in 0..TRIES {
            self.wire.send(&encoded).map_err(lost)?;
            match self.answer(number)? {
                Some(Verdict::Refused(why)) => bail!("the system refused it: {why}"),
                Some(Verdict::Nack(_, why)) => {
                    reason = format!("; it said last: {why}");
                    self.settle()?;
                }
                Some(said) => return Ok(said),
                None => {}
            }
        }
        bail!(
            "the system does not answer (frame {number}, sent {TRIES} times{reason}); is its depot running?"
        )
    }

    /// The next answer that is about this frame, or about the whole transfer.
    fn answer(&mut self, number: u32) -> Result<Option<Verdict>> {
        let deadline = Instant::now() + self.patience;
        while Instant::now() < deadline {
            while let Some(answer) = self.next_line() {
                let mine = answer.transfer == self.transfer;
                match answer.verdict {
                    Verdict::Ack(of) if !mine || of != number => {}
                    // Who understood nothing does not know whose frame it was.
                    Verdict::Nack(..) if answer.transfer == 0 => return Ok(Some(answer.verdict)),
                    Verdict::Nack(of, _) if !mine || of != number => {}
                    Verdict::Floor(ref of) if !mine || of.number != number => {}
                    _ if !mine => {}
                    verdict => return Ok(Some(verdict)),
                }
            }
            self.listen()?;
        }
        Ok(None)
    }

    /// The next whole line that is an answer.
    fn next_line(&mut self) -> Option<Answer> {
        while let Some(end) = self.heard.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.heard.drain(..=end).collect();
            if let Some(answer) = std::str::from_utf8(&line).ok().and_then(Answer::parse) {
                return Some(answer);
            }
        }
        None
    }

    fn listen(&mut self) -> Result<()> {
        let mut buffer = [0; MAX_ANSWER];
        if let Some(count) = self.wire.receive(&mut buffer).map_err(lost)? {
            self.heard.extend(buffer.iter().take(count));
        }
        // A line that never ends is none.
        if self.heard.len() > 4 * MAX_ANSWER && !self.heard.contains(&b'\n') {
            self.heard.clear();
        }
        Ok(())
    }

    /// Lets the link come to rest, and forgets what was said meanwhile.
    fn settle(&mut self) -> Result<()> {
        let rest = Instant::now() + PAUSE;
        while Instant::now() < rest {
            self.listen()?;
        }
        self.heard.clear();
        Ok(())
    }
}

fn lost(error: std::io::Error) -> anyhow::Error {
    anyhow::Error::new(error).context("the connection to the system is lost")
}

#[cfg(test)]
#[path = "push_link_tests.rs"]
mod tests;
