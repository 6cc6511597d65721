//! What the kernel is kept busy with while dispatch latency is measured. Each load is set up by the client and done by
//! its worker, a thread of low priority.

use crate::bench::{Client, OWN, Proof, Reason, invocation};
use crate::helper::{ASK, COMMAND, COPY, FILL, REQUEST_COMMAND, ROOM};
use crate::making;
use alloc::vec::Vec;
use sila_abi::protocol::layout::OWN_POOL;
use sila_abi::syscall::Outcome;
use sila_abi::{Error, Op, Slot};
use sila_rt::ipc::{self, Message, Received, Reply};
use sila_rt::raw::count_down;
use sila_rt::slots::{OwnedSlot, make, reserve};
use sila_rt::{clock, hostile, op};

/// Capabilities that a revoke deletes.
const REVOKED: u64 = 10_000;
/// The process that is made or ended.
const PROCESS: Slot = Slot(49);
/// The Region that is made.
const REGION: Slot = Slot(50);
/// How long a helper may take.
const PATIENCE: u64 = 60 * clock::SECOND;

/// One load.
pub struct Load {
    /// The row.
    pub name: &'static str,
    /// Whether its samples count for `dispatch_latency`.
    pub counts: bool,
    /// Nanoseconds within which a sample's moment is chosen; the load takes some of them.
    pub span: u64,
    /// Sets it up.
    pub before: fn(&Client, &mut Helpers) -> Result<(), Reason>,
    /// Does it, in the worker.
    pub work: fn(&Client) -> Result<(), Reason>,
    /// Cleans up.
    pub after: fn() -> Result<(), Reason>,
}

fn nothing(_: &Client, _: &mut Helpers) -> Result<(), Reason> {
    Ok(())
}

/// All of them.
pub const LOADS: [Load; 6] = [
    Load {
        name: "interrupt_to_thread",
        counts: false,
        span: 5 * clock::MILLISECOND,
        before: nothing,
        work: |_| {
            count_down(2_000_000);
            Ok(())
        },
        after: || Ok(()),
    },
    Load {
        name: "dispatch_latency_verify",
        counts: true,
        span: 20 * clock::MILLISECOND,
        before: nothing,
        work: |client| making::new_process(client, client.image.slot(), Proof::Peer, &[], PROCESS),
        after: end,
    },
    Load {
        name: "dispatch_latency_hash",
        counts: true,
        span: 100 * clock::MILLISECOND,
        before: |_, helpers| helpers.compose(),
        work: |client| making::new_process(client, LARGE_IMAGE, Proof::Large, &[], PROCESS),
        after: end,
    },
    Load {
        name: "dispatch_latency_zero",
        counts: true,
        span: 5 * clock::MILLISECOND,
        before: nothing,
        work: |_| op::RegionCreate(OWN_POOL, 512, REGION).map(|_| ()),
        after: || op::CapDelete(REGION).map(|_| ()),
    },
    Load {
        name: "dispatch_latency_revoke",
        counts: true,
        span: 5 * clock::MILLISECOND,
        before: |client, helpers| helpers.spread(client),
        work: |_| succeed(OWN, Op::CapRevoke, &[]),
        after: || Ok(()),
    },
    Load {
        name: "dispatch_latency_terminate",
        counts: true,
        span: 2 * clock::MILLISECOND,
        before: |client, helpers| helpers.fill(client),
        work: |_| succeed(PROCESS, Op::ProcessTerminate, &[0]),
        after: || op::CapDelete(PROCESS).map(|_| ()),
    },
];

/// The large image.
const LARGE_IMAGE: Slot = Slot(51);

fn succeed(slot: Slot, operation: Op, words: &[u64]) -> Result<(), Reason> {
    let mut call = invocation(slot, operation, words);
    hostile::syscall(&mut call);
    Ok(Outcome(call.rax).status()?)
}

fn end() -> Result<(), Reason> {
    op::ProcessTerminate(PROCESS, 0)?;
    op::CapDelete(PROCESS).map(|_| ())
}

/// Helper processes: they wait for the answer to their call.
pub struct Helpers {
    client: &'static Client,
    command: OwnedSlot,
    holders: Vec<(OwnedSlot, Reply)>,
    /// The call of a full process.
    unanswered: Option<Reply>,
    composed: bool,
}

impl Helpers {
    /// None yet.
    pub fn new(client: &'static Client) -> Result<Self, Reason> {
        let command = make(|dst| op::EndpointCreate(OWN_POOL, 0, 0, dst))?;
        Ok(Self { client, command, holders: Vec::new(), unanswered: None, composed: false })
    }

    /// Makes the large image of the small one.
    fn compose(&mut self) -> Result<(), Reason> {
        if !self.composed {
            let region = self.client.large()?.leak();
            op::CapMove(region, LARGE_IMAGE)?;
            self.composed = true;
        }
        Ok(())
    }

    /// A running helper, and the count that its first call tells.
    fn start(&self, client: &Client, proof: Proof, dst: Slot) -> Result<Reply, Reason> {
        let grants = [(REQUEST_COMMAND, self.command.slot())];
        making::new_process(client, client.image.slot(), proof, &grants, dst)?;
        op::ProcessStart(dst)?;
        self.asked().map(|(_, reply)| reply)
    }

    fn asked(&self) -> Result<(u64, Reply), Reason> {
        match ipc::recv(self.command.slot(), 0, clock::after(PATIENCE))? {
            Received::Message(incoming) if incoming.message.label == ASK => {
                Ok((incoming.message.word(0), incoming.reply))
            }
            _ => Err(Error::InvalidArgument.into()),
        }
    }

    /// Spreads capabilities over many processes, all derived from one.
    fn spread(&mut self, client: &Client) -> Result<(), Reason> {
        let each = ROOM.min(REVOKED);
        while (self.holders.len() as u64) * each < REVOKED {
            let slot = reserve()?;
            let reply = self.start(client, Proof::Holder, slot.slot())?;
            self.holders.push((slot.filled(), reply));
        }
        let mut left = REVOKED;
        for (process, reply) in core::mem::take(&mut self.holders) {
            // What travels is one of them.
            let copies = left.min(each) - 1;
            reply.send(&Message::with(COPY, &[copies]).cap(OWN))?;
            let (made, reply) = self.asked()?;
            if made != copies {
                return Err(Error::InvalidArgument.into());
            }
            left -= copies + 1;
            self.holders.push((process, reply));
        }
        Ok(())
    }

    /// A process that has used up what it may.
    fn fill(&mut self, client: &Client) -> Result<(), Reason> {
        let reply = self.start(client, Proof::Full, PROCESS)?;
        reply.send(&Message::new(FILL))?;
        self.unanswered = Some(self.asked()?.1);
        Ok(())
    }
}
