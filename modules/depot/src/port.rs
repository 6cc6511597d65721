//! The serial port: bytes in, frames out of them, answers back.

use crate::desk::{Desk, floor};
use crate::{IRQ, PORTS};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use depot::link::{Answer, Deframer, Heard};
use depot::transfer::{Action, Event, Receiver, Stage};
use sila_abi::syscall::FOREVER;
use sila_abi::{Error, Slot};
use sila_rt::uart::{PortSpace, Uart};
use sila_rt::{CallError, clock, op};

/// The flag that the interrupt sets.
const INPUT: u64 = 1;
/// After this long without a byte a frame that has begun counts as cut short.
const PAUSE: u64 = 200 * clock::MILLISECOND;
/// After this long without a byte a sender has given up.
const PATIENCE: u64 = 30 * clock::SECOND;

/// The link's receiving end.
pub struct Port {
    uart: Uart<PortSpace>,
    input: VecDeque<u8>,
    deframer: Deframer,
    receiver: Receiver,
    /// When the last byte came.
    heard: u64,
}

impl Port {
    /// Sets the port up; `None` if this system gives the depot none.
    pub fn open(notification: Slot) -> Result<Option<Self>, CallError> {
        match op::CapStatus(PORTS) {
            Ok(_) => {}
            Err(error) if error.error == Error::NoCapability => return Ok(None),
            Err(error) => return Err(error),
        }
        op::IrqBind(IRQ, notification, INPUT)?;
        Ok(Some(Self {
            uart: Uart::new(PortSpace(PORTS)),
            input: VecDeque::new(),
            deframer: Deframer::new(),
            receiver: Receiver::new(),
            heard: 0,
        }))
    }

    /// When to come back though nothing has come.
    pub fn deadline(&self) -> u64 {
        if self.deframer.is_open() {
            self.heard.saturating_add(PAUSE)
        } else if self.receiver.stage() == Stage::Receiving {
            self.heard.saturating_add(PATIENCE)
        } else {
            FOREVER
        }
    }

    /// Takes what has come, and deals with it. The line is unmasked first: what comes after the port was emptied
    /// raises it again.
    pub fn serve(&mut self, desk: &mut Desk) {
        loop {
            let _ = op::IrqAck(IRQ);
            if self.uart.drain(&mut self.input) == 0 {
                break;
            }
            self.heard = now();
            let mut heard = Vec::new();
            let bytes: Vec<u8> = self.input.drain(..).collect();
            self.deframer.feed(&bytes, |one| heard.push(one));
            self.hear(desk, heard);
        }
        let quiet = now().saturating_sub(self.heard);
        if self.deframer.is_open() && quiet >= PAUSE {
            let mut heard = Vec::new();
            self.deframer.silence(|one| heard.push(one));
            self.hear(desk, heard);
        }
        if quiet >= PATIENCE {
            self.handle(desk, Event::Expired);
        }
    }

    fn hear(&mut self, desk: &mut Desk, heard: Vec<Heard>) {
        for one in heard {
            self.handle(
                desk,
                match one {
                    Heard::Frame(frame) => Event::Frame(frame),
                    Heard::Damaged(why) => Event::Damaged(why),
                },
            );
        }
    }

    /// Handles an event, and those that its steps bring.
    fn handle(&mut self, desk: &mut Desk, event: Event) {
        let mut next = Some(event);
        while let Some(event) = next.take() {
            for action in self.receiver.handle(event) {
                match action {
                    Action::Reserve(len) => next = Some(Event::Reserved(desk.reserve(len))),
                    Action::Write(offset, bytes) => desk.write(offset, &bytes),
                    Action::Judge(digest) => next = Some(Event::Judged(desk.judge(digest))),
                    Action::Discard => desk.discard(),
                    Action::Answer(answer) => self.uart.send(answer.line().as_bytes()),
                    Action::Floor(transfer, number) => {
                        let verdict = floor(number);
                        self.uart.send(Answer { transfer, verdict }.line().as_bytes());
                    }
                }
            }
        }
    }
}

fn now() -> u64 {
    clock::now().unwrap_or(0)
}
