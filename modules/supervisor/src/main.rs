//! The supervisor's process: takes reports, and looks at its Job from time to time.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

use sila_rt::ipc::{self, Incoming, Message, Received};
use sila_rt::sila_abi::protocol::layout::FIRST_OTHER;
use sila_rt::sila_abi::protocol::{lifecycle, text};
use sila_rt::sila_abi::{Error, Slot};
use sila_rt::{clock, op, service};
use supervisor::{CAPACITY, Event, Report, Supervisor};

sila_rt::entry!(main);

/// The endpoint that agents report to.
const ENDPOINT: Slot = FIRST_OTHER;
/// The Job of the agents.
const JOB: Slot = Slot(FIRST_OTHER.0 + 1);
/// How often the Job is looked at.
const INTERVAL: u64 = clock::SECOND;

fn main() -> u64 {
    let mut supervisor = Supervisor::new();
    loop {
        match ipc::recv(ENDPOINT, 0, clock::after(INTERVAL)) {
            Ok(Received::Message(incoming)) => answer(&mut supervisor, incoming),
            Ok(Received::Flags(_)) => {}
            Err(error) => match error.error {
                Error::Timeout => sweep(&mut supervisor),
                // The sender's fault, or a suspension: the next message is another one.
                Error::Suspended | Error::TransferFailed => {}
                _ => return error.error as u64,
            },
        }
    }
}

fn answer(supervisor: &mut Supervisor, incoming: Incoming) {
    let message = &incoming.message;
    let answer = match message.label {
        lifecycle::READY => {
            supervisor.handle(Event::Reported(incoming.badge, Report::Ready));
            Message::new(lifecycle::NOTED)
        }
        lifecycle::FAILED => {
            supervisor.handle(Event::Reported(incoming.badge, Report::Failed(message.word(0))));
            Message::new(lifecycle::NOTED)
        }
        text::TEXT_CALL => service::text_reply(Ok::<_, &str>(supervisor.describe())),
        _ => service::text_reply(Err::<&str, _>("the supervisor takes lifecycle reports only")),
    };
    // An agent that has gone needs no answer.
    let _ = incoming.reply.send(&answer);
}

fn sweep(supervisor: &mut Supervisor) {
    let mut cursor = 0;
    for _ in 0..CAPACITY {
        match op::JobNext(JOB, cursor) {
            Ok(next) => {
                let [after, process, state, ..] = next.words;
                supervisor.handle(Event::Seen { process, state });
                cursor = after;
            }
            Err(error) if error.error == Error::NoMoreEntries => break,
            Err(_) => return,
        }
    }
    supervisor.handle(Event::SweepDone);
}
