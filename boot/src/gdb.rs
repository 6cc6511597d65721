//! The little of GDB's remote protocol that stops a guest at an address and lets it go on.
use anyhow::{Context, Result, bail};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Number of the register that holds a function's first argument.
const RDI: usize = 5;
/// Number of the instruction pointer.
const RIP: usize = 16;
/// How long QEMU may take to answer; it answers at once, unless it waits for the guest to stop.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection to QEMU's debugger port. While it is open the guest stops where it is told to.
#[derive(Debug)]
pub struct Gdb<S = UnixStream> {
    stream: S,
}

impl Gdb {
    /// Connects, which stops the guest. QEMU may not have opened its socket yet.
    pub fn connect(socket: &Path) -> Result<Self> {
        let until = Instant::now() + PATIENCE;
        loop {
            match UnixStream::connect(socket) {
                Ok(stream) => return Self { stream }.greet(),
                Err(error) if Instant::now() > until => return Err(error).context("QEMU's debugger port"),
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }
}

impl<S: Read + Write> Gdb<S> {
    /// That the guest stopped for the connection is said unasked: what follows is the answer to a question.
    fn greet(mut self) -> Result<Self> {
        if self.ask("Hg0").as_deref() != Some("OK") && self.answer().as_deref() != Some("OK") {
            bail!("QEMU's debugger port gives no answer");
        }
        Ok(self)
    }

    /// Lets the guest go on until it is about to execute one of these addresses, in any address space; false if it has
    /// ended. If it stands at one already, it goes on to the next time.
    pub fn run_to(&mut self, addresses: &[u64]) -> Result<bool> {
        // A breakpoint where it stands would stop it at once.
        if !self.stopped("s") {
            return Ok(false);
        }
        for address in addresses {
            self.done(&format!("Z0,{address:x},1"))?;
        }
        if !self.stopped("c") {
            return Ok(false);
        }
        for address in addresses {
            self.done(&format!("z0,{address:x},1"))?;
        }
        Ok(true)
    }

    /// Whether the guest is about to execute an instruction that begins with these bytes.
    pub fn stands_at(&mut self, bytes: &[u8]) -> Result<bool> {
        let place = self.register(RIP)?;
        let seen = self.ask(&format!("m{place:x},{:x}", bytes.len())).context("the guest has ended")?;
        Ok(seen == bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    }

    fn stopped(&mut self, packet: &str) -> bool {
        self.ask(packet).is_some_and(|answer| answer.starts_with('T') || answer.starts_with('S'))
    }

    fn done(&mut self, packet: &str) -> Result<()> {
        match self.ask(packet).as_deref() {
            Some("OK") => Ok(()),
            other => bail!("QEMU's debugger port answered {packet} with {other:?}"),
        }
    }

    /// The first argument of the function that the guest is about to enter.
    pub fn first_argument(&mut self) -> Result<u64> {
        self.register(RDI)
    }

    /// One of the first registers, which have eight bytes each. (QEMU shows all or none to such a simple debugger.)
    fn register(&mut self, number: usize) -> Result<u64> {
        let answer = self.ask("g").context("the guest has ended")?;
        let hex = answer.get(16 * number..);
        hex.and_then(register).with_context(|| format!("QEMU showed no registers: {answer}"))
    }

    /// Sends a packet and reads the answer; `None` if there is nobody any more.
    fn ask(&mut self, packet: &str) -> Option<String> {
        let sum = packet.bytes().fold(0u8, u8::wrapping_add);
        if write!(self.stream, "${packet}#{sum:02x}").is_err() {
            return None;
        }
        self.answer()
    }

    fn answer(&mut self) -> Option<String> {
        let (mut answer, mut inside) = (Vec::new(), false);
        let mut byte = [0];
        while self.stream.read(&mut byte).unwrap_or(0) == 1 {
            match byte[0] {
                b'$' => (inside, answer) = (true, Vec::new()),
                b'#' if inside => {
                    // Two digits of a sum follow, which a socket needs no more than an acknowledgement does.
                    let mut digits = [0; 2];
                    let _ = self.stream.read_exact(&mut digits);
                    let _ = self.stream.write_all(b"+");
                    return Some(String::from_utf8_lossy(&answer).into_owned());
                }
                other if inside => answer.push(other),
                _ => {}
            }
        }
        None
    }
}

/// A register of eight bytes, lowest first.
fn register(hex: &str) -> Option<u64> {
    let mut bytes = [0; 8];
    for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(hex.get(at..at + 2)?, 16).ok()?;
    }
    Some(u64::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    /// What is read, and what was written.
    struct Line(Cursor<Vec<u8>>, Vec<u8>);

    impl Read for Line {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            self.0.read(into)
        }
    }

    impl Write for Line {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.1.write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn gdb(answers: &str) -> Gdb<Line> {
        Gdb { stream: Line(Cursor::new(answers.into()), Vec::new()) }
    }

    #[test]
    fn the_guest_steps_off_its_place_before_the_breakpoint_is_set() {
        let mut gdb = gdb("+$T05thread:01;#07+$OK#9a+$T05thread:01;#07+$OK#9a");
        assert!(gdb.run_to(&[0x40_1000]).unwrap());
        assert_eq!(gdb.stream.1, b"$s#73+$Z0,401000,1#38+$c#63+$z0,401000,1#58+");
    }

    #[test]
    fn the_stop_for_the_connection_is_no_answer() {
        for said in ["$T02thread:01;#04+$OK#9a", "+$OK#9a"] {
            assert!(gdb(said).greet().is_ok(), "{said}");
        }
        assert!(gdb("$T02thread:01;#04+").greet().is_err());
    }

    #[test]
    fn a_guest_that_ends_is_told_from_one_that_stops() {
        assert!(!gdb("+$T05#b9+$OK#9a+$W00#b7").run_to(&[1]).unwrap());
        assert!(!gdb("+").run_to(&[1]).unwrap());
    }

    #[test]
    fn registers_are_read_lowest_byte_first() {
        let all = format!("+${}0100000000000080{}#00", "0".repeat(16 * 5), "0".repeat(16 * 11));
        assert_eq!(gdb(&all).first_argument().unwrap(), 0x8000_0000_0000_0001);
        assert!(gdb("+$E01#a6").first_argument().is_err());
    }

    #[test]
    fn the_bytes_at_the_instruction_pointer_are_compared() {
        for (bytes, same) in [("0f31", true), ("0f0b", false), ("E14", false)] {
            let mut gdb = gdb(&format!("+${}0010400000000000#00+${bytes}#00", "0".repeat(16 * 16)));
            assert_eq!(gdb.stands_at(&[0x0f, 0x31]).unwrap(), same);
            assert!(gdb.stream.1.windows(9).any(|part| part == b"m401000,2"), "{:?}", gdb.stream.1);
        }
    }

    #[test]
    fn a_refused_breakpoint_is_an_error() {
        assert!(gdb("+$T05#b9+$E16#ac").run_to(&[1]).is_err());
    }
}
