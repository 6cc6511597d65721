//! The fast path: the commonest system calls in their commonest circumstances.
//!
//! It takes a system call only if nothing but the call itself has to be done: the thread has no quirks, no
//! deadline is set, nothing waits to be attended to, nothing can fail, no CSpace grows, no object ends.
//! Otherwise it has changed nothing and says so, and the general path decides, which also finds the error
//! that there may be. What it does is exactly what that path would do: the
//! reference model (`tests/model.rs`), which knows of no paths, is held against both.
//!
//! `message` has calls, answers and faults, `operation` and `memory` what is invoked on objects, `wait` the wait for flags.

mod memory;
mod message;
mod operation;
mod wait;

use core::ptr::NonNull;

use sila_abi::Rights;
use sila_abi::syscall::Outcome;

use crate::arena::Arena;
use crate::cap::{CSPACE, Cap, CapId};
use crate::kernel::Kernel;
use crate::machine::Registers;
use crate::objects::*;

pub use operation::OPERATIONS;

/// The arena of threads.
type Threads = Arena<Thread, { Thread::SLOTS as usize }>;
/// The arena of endpoints.
type Endpoints = Arena<Endpoint, { Endpoint::SLOTS as usize }>;
/// The context to go on with.
type Context = NonNull<crate::machine::Context>;

/// Why the fast path does not say what to go on with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rest {
    /// Nothing was done: the general path is to carry the system call out.
    All,
    /// Nothing was done: the path for [`LONG`] messages may take it.
    Long,
    /// Nothing was done: the path for [`RICH`] messages may take it.
    Rich,
    /// The system call is done, and there is something to attend to.
    Settle,
}

/// The path of messages whose words fit the registers.
pub const SHORT: u8 = 0;
/// The path of messages whose words go on in the message page.
pub const LONG: u8 = 1;
/// The path of messages with capabilities, and of answers to faults.
pub const RICH: u8 = 2;

/// The part of a tag that is zero if no capability goes along.
const MORE: u32 = 0xffff_0000;
/// The part of a tag, one word added, that is zero if, besides, the words fit the registers.
const MORE_OR_LONG: u32 = 0xffff_f800;

/// The length of a message in words.
#[inline(always)]
const fn length(tag: u64) -> usize {
    (tag >> 8) as u8 as usize
}

/// True if a capability that names an object of the right type has this right, to be used by its holder.
#[inline(always)]
fn allows(cap: &Cap, right: Rights) -> bool {
    cap.rights.bits() & (right | Rights::ENDOW).bits() == right.bits()
}

/// The place of a slot that the thread names by this word.
#[inline(always)]
fn place_of(t: &Thread, slot: u64) -> Option<CapId> {
    (slot < CSPACE as u64).then(|| CapId::in_cspace(t.process.index(), slot as usize))
}

impl Kernel {
    /// The running thread's slot, if nothing keeps it from the fast path.
    #[inline(always)]
    fn fast_caller(&self) -> Result<u32, Rest> {
        let me = Threads::within(self.current);
        let quirks = self.threads.known(me).quirks;
        if self.attention.bits() | quirks.bits() == 0 { Ok(me) } else { Err(Rest::All) }
    }

    /// The running thread, if nothing keeps it from the fast path and its tag says nothing odd of an invocation.
    #[inline(always)]
    pub(crate) fn plain_invoker(&self) -> Result<ThreadId, Rest> {
        let me = self.fast_caller()?;
        let tag = self.threads.known(me).context.registers.rax;
        if tag as u32 & MORE_OR_LONG == 0 { Ok(self.threads.id_at(me)) } else { Err(Rest::All) }
    }

    #[inline(always)]
    fn registers_mut(&mut self, me: u32) -> &mut Registers {
        &mut self.threads.known_mut(me).context.registers
    }

    #[inline(always)]
    fn succeed(&mut self, me: u32) {
        self.registers_mut(me).rax = Outcome::message(0, 0, 0).0;
    }
}
