//! A probe process as its maker sees it.

use crate::lab::{Failure, equal, works};
use alloc::format;
use probe::{Act, HELLO, REPORT};
use sila_abi::Slot;
use sila_abi::protocol::layout::OWN_POOL;
use sila_rt::ipc::{self, Incoming, Message, Received};
use sila_rt::slots::{OwnedSlot, make};
use sila_rt::{clock, op};

/// How long a probe may take for what a test waits for.
const PATIENCE: u64 = 5 * clock::SECOND;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// 1 exit, 2 terminated, 3 fault.
    pub cause: u64,
    /// Exit code or vector.
    pub code: u64,
    /// Fault address.
    pub address: u64,
    /// Error code.
    pub error: u64,
}

/// A probe. It is ended when this is dropped.
pub struct Child {
    process: OwnedSlot,
    command: OwnedSlot,
    ended: OwnedSlot,
}

impl Child {
    /// Takes charge of a new process.
    pub fn new(process: OwnedSlot, command: OwnedSlot) -> Result<Self, Failure> {
        let ended = works("NotificationCreate", make(|dst| op::NotificationCreate(OWN_POOL, dst)))?;
        works("ProcessWatch", op::ProcessWatch(process.slot(), ended.slot(), 1))?;
        Ok(Self { process, command, ended })
    }

    /// Its process.
    pub fn process(&self) -> Slot {
        self.process.slot()
    }

    /// The endpoint that it reports to.
    pub fn command(&self) -> Slot {
        self.command.slot()
    }

    /// Starts it and tells it what to do.
    pub fn start(&self, act: Act, words: &[u64], caps: &[Slot]) -> Result<(), Failure> {
        works("ProcessStart", op::ProcessStart(self.process()))?;
        let hello = self.next(0)?;
        equal("the probe's first call", hello.message.label, HELLO)?;
        let order = caps.iter().fold(Message::with(act as u32, words), |order, slot| order.cap(*slot));
        works("telling the probe what to do", hello.reply.send(&order))
    }

    /// The next message from it.
    pub fn next(&self, caps: u8) -> Result<Incoming, Failure> {
        match works("a message from the probe", ipc::recv(self.command(), caps, clock::after(PATIENCE)))? {
            Received::Message(incoming) => Ok(incoming),
            Received::Flags(flags) => {
                Err(Failure::new("a message from the probe", "one", format!("flags {flags}")))
            }
        }
    }

    /// Its next report, answered.
    pub fn report(&self, caps: u8) -> Result<(Message, sila_rt::slots::Caps), Failure> {
        let Incoming { message, caps, reply, .. } = self.next(caps)?;
        equal("the probe's report", message.label, REPORT)?;
        works("answering the probe", reply.send(&Message::new(0)))?;
        Ok((message, caps))
    }

    /// State, cause, code and so on, at this moment.
    pub fn status(&self) -> Result<[u64; 6], Failure> {
        Ok(works("ProcessStatus", op::ProcessStatus(self.process()))?.words)
    }

    /// Waits for its end.
    pub fn end(&self) -> Result<End, Failure> {
        works("waiting for the probe's end", ipc::wait(self.ended.slot(), clock::after(PATIENCE)))?;
        let [state, cause, code, address, _, error] = self.status()?;
        equal("the state of a process that ended", state, 4)?;
        Ok(End { cause, code, address, error })
    }

    /// Starts it, and waits for its end.
    pub fn run(&self, act: Act, words: &[u64]) -> Result<End, Failure> {
        self.start(act, words, &[])?;
        self.end()
    }

    /// Starts it, and checks that it exits with this code.
    pub fn exits(&self, act: Act, words: &[u64], caps: &[Slot], code: u64) -> Result<(), Failure> {
        self.start(act, words, caps)?;
        self.exited(code)
    }

    /// Checks that it exits with this code.
    pub fn exited(&self, code: u64) -> Result<(), Failure> {
        let end = self.end()?;
        equal("cause and code of the probe's end", (end.cause, end.code), (1, code))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended already: as wanted.
        let _ = op::ProcessTerminate(self.process(), 0);
    }
}
