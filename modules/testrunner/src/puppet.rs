//! Puppets: processes that do step by step what a test says, and tell what the kernel said to them.

use crate::child::Child;
use crate::lab::{Failure, Lab, Outcome, POOL, create, refused, works};
use core::cell::RefCell;
use probe::puppet::{KEEP, SHOW, SYSCALL, from_words, to_words};
use probe::{Act, REQUEST_CLOCK, REQUEST_COMMAND};
use sila_abi::protocol::layout::{CLOCK, OWN_POOL};
use sila_abi::syscall::{Call, FOREVER, NO_WAIT, Outcome as Ended, Receive, Tag};
use sila_abi::{Error, Op, Slot};
use sila_rt::ipc::{self, Incoming, Message, Received, Reply};
use sila_rt::raw::Registers;
use sila_rt::slots::{Caps, OwnedSlot, make};
use sila_rt::{CallError, clock, op};

/// The priority of puppets, above the runner's: when an order has been given, the puppet has done as it says, or waits.
const PRIORITY: u64 = 115;
/// How long a puppet may take to report.
const PATIENCE: u64 = 2 * clock::SECOND;

/// A message as a puppet received it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Its label.
    pub label: u32,
    /// The badge of the capability that it came by.
    pub badge: u64,
    /// Its first word.
    pub word: u64,
}

/// A process that does as it is told. It ends when this is dropped.
pub struct Puppet {
    child: Child,
    turn: RefCell<Option<Reply>>,
}

/// What a system call's registers say about its outcome.
fn outcome(registers: &Registers) -> Result<Ended, CallError> {
    let outcome = Ended(registers.rax);
    outcome.status().map_err(|error| CallError { error, words: registers.words })?;
    Ok(outcome)
}

impl Puppet {
    /// A puppet that waits for its first order; `proof` is a load proof of the probe's image.
    pub fn new(lab: &Lab, proof: Slot) -> Result<Self, Failure> {
        let puppet = Self::unstarted(lab, proof)?;
        puppet.start()?;
        Ok(puppet)
    }

    /// A puppet that does not run yet.
    pub fn unstarted(lab: &Lab, proof: Slot) -> Result<Self, Failure> {
        let command = works("EndpointCreate", make(|dst| op::EndpointCreate(OWN_POOL, 0, 0, dst)))?;
        let grants = [(REQUEST_CLOCK, CLOCK), (REQUEST_COMMAND, command.slot())];
        let process = create(lab.image(), proof, POOL, PRIORITY, &grants);
        let process = works("ProcessCreate of a puppet", process)?;
        Ok(Self { child: Child::new(process, command)?, turn: RefCell::new(None) })
    }

    /// Lets it run, up to its first order.
    pub fn start(&self) -> Outcome {
        self.child.start(Act::Puppet, &[], &[])?;
        works("a puppet's first report", self.report(0)).map(|_| ())
    }

    /// Its process.
    pub fn process(&self) -> Slot {
        self.child.process()
    }

    /// Ends it.
    pub fn kill(&self) -> Outcome {
        works("ProcessTerminate", op::ProcessTerminate(self.process(), 0))?;
        self.child.end().map(|_| ())
    }

    fn report(&self, caps: u8) -> Result<(Message, Caps), CallError> {
        match ipc::recv(self.child.command(), caps, clock::after(PATIENCE))? {
            Received::Message(Incoming { message, caps, reply, .. }) => {
                *self.turn.borrow_mut() = Some(reply);
                Ok((message, caps))
            }
            Received::Flags(_) => Err(Error::InvalidOperation.into()),
        }
    }

    fn order(&self, order: &Message) -> Result<(), CallError> {
        let turn = self.turn.borrow_mut().take().ok_or(Error::NoCapability)?;
        turn.send(order)
    }

    /// After a rollback: it runs again, and reports.
    pub fn revived(&self) -> Outcome {
        self.turn.borrow_mut().take();
        works("the report of a puppet that runs again", self.report(0)).map(|_| ())
    }

    /// Tells it to make a system call.
    pub fn begin(&self, registers: &Registers) -> Result<(), CallError> {
        self.order(&Message::with(SYSCALL, &to_words(registers)))
    }

    /// The registers after the system call that it was told to make.
    pub fn finish(&self) -> Result<Registers, CallError> {
        self.report(0).map(|(message, _)| from_words(&message))
    }

    /// Checks that it still waits in its system call.
    pub fn waits(&self, what: &str) -> Outcome {
        refused(what, ipc::recv(self.child.command(), 0, NO_WAIT), Error::Timeout)
    }

    /// Lets it invoke an operation with up to six words.
    pub fn invoke(&self, slot: Slot, operation: Op, args: &[u64]) -> Result<[u64; 6], CallError> {
        let mut words = [0; 6];
        words.iter_mut().zip(args).for_each(|(to, from)| *to = *from);
        let rax = Tag::new(Call::Invoke, args.len() as u8, 0, operation as u32).0;
        self.begin(&Registers { rax, rdi: slot.0.into(), words, r14: FOREVER, ..Registers::default() })?;
        let registers = self.finish()?;
        outcome(&registers).map(|_| registers.words)
    }

    /// Tells it to call an endpoint with a label and that label as the only word, and to wait until the deadline.
    pub fn call(&self, endpoint: Slot, label: u32, deadline: u64) -> Outcome {
        let rax = Tag::new(Call::Call, 1, 0, label).0;
        let words = [label.into(), 0, 0, 0, 0, 0];
        let registers =
            Registers { rax, rdi: endpoint.0.into(), words, r14: deadline, ..Registers::default() };
        works("telling a puppet to call", self.begin(&registers))
    }

    /// The label of the answer to its call.
    pub fn answer(&self) -> Result<u32, CallError> {
        outcome(&self.finish()?).map(Ended::label)
    }

    /// Tells it to receive, with the Reply in this slot.
    pub fn listen(&self, endpoint: Slot, reply: Slot, deadline: u64) -> Outcome {
        let receive = Receive { reply, base: Slot::NONE, count: 0 };
        let registers = Registers {
            rax: Tag::new(Call::Recv, 0, 0, 0).0,
            rdi: endpoint.0.into(),
            r13: receive.to_word(),
            r14: deadline,
            ..Registers::default()
        };
        works("telling a puppet to receive", self.begin(&registers))
    }

    /// What it received.
    pub fn heard(&self) -> Result<Heard, CallError> {
        let registers = self.finish()?;
        let label = outcome(&registers)?.label();
        let [word, ..] = registers.words;
        Ok(Heard { label, badge: registers.rdi, word })
    }

    /// Lets it receive what has come already.
    pub fn receive(&self, endpoint: Slot, reply: Slot) -> Result<Heard, CallError> {
        self.listen(endpoint, reply, NO_WAIT).map_err(|_| Error::PeerDied)?;
        self.heard()
    }

    /// Lets it answer.
    pub fn reply(&self, reply: Slot, label: u32) -> Result<(), CallError> {
        let rax = Tag::new(Call::Reply, 0, 0, label).0;
        self.begin(&Registers { rax, rdi: reply.0.into(), ..Registers::default() })?;
        outcome(&self.finish()?).map(|_| ())
    }

    /// Gives it copies of the runner's capabilities, each in the slot named with it; up to four at once.
    pub fn give(&self, caps: &[(Slot, Slot)]) -> Outcome {
        let order = caps.iter().fold(Message::new(KEEP), |mut order, (from, to)| {
            order.push(to.0.into());
            order.cap(*from)
        });
        works("giving a puppet capabilities", self.order(&order))?;
        works("a puppet's report of what it got", self.report(0)).map(|_| ())
    }

    /// A copy of what it holds in a slot.
    pub fn show(&self, slot: Slot) -> Result<OwnedSlot, Failure> {
        works("asking a puppet for a capability", self.order(&Message::with(SHOW, &[slot.0.into()])))?;
        let (_, mut caps) = works("a puppet's report with a capability", self.report(1))?;
        caps.take(0).ok_or_else(|| Failure::new("a puppet's report", "a capability", "none"))
    }
}
