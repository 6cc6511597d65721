//! The wait for a Notification's flags.

use sila_abi::syscall::{Call, FOREVER, Outcome};
use sila_abi::{ObjectType, Rights};

use core::ptr::NonNull;

use super::{Context, Rest, allows, place_of};
use crate::kernel::{Kernel, id_of};
use crate::objects::*;

const RECV: u64 = Call::Recv as u64;

impl Kernel {
    /// Carries out a wait for a notification without a deadline, or changes nothing. Says what to switch to; `None` goes
    /// on with the same thread.
    #[inline(always)]
    pub fn fast_recv(&mut self) -> Result<Option<Context>, Rest> {
        let me = self.fast_caller()?;
        self.fast_wait(me).ok_or(Rest::All)
    }

    #[inline(always)]
    fn fast_wait(&mut self, me: u32) -> Option<Option<Context>> {
        let t = self.threads.known(me);
        let r = &t.context.registers;
        if r.rax != RECV || r.r14 != FOREVER {
            return None;
        }
        let cap = self.caps.peek_typed(place_of(t, r.rdi)?, ObjectType::Notification)?;
        if !allows(cap, Rights::RECV) {
            return None;
        }
        let (id, priority) = (id_of(cap), t.effective);
        let n = self.notifications.get_mut(id)?;
        if n.flags != 0 {
            let flags = core::mem::take(&mut n.flags);
            let r = self.registers_mut(me);
            (r.rax, r.rdi, r.rsi) = (Outcome::flags().0, 0, flags);
            return Some(None);
        }
        if !n.waiters.is_empty() {
            return None;
        }
        let next = self.ready.take_simply(&mut self.threads, self.ticking)?;
        let t = self.threads.known_mut(me);
        n.waiters.put_only(me, &mut t.link, priority);
        t.state = ThreadState::Waiting { notification: id };
        let t = self.threads.known_mut(next);
        t.state = ThreadState::Running;
        let context = NonNull::from(&mut t.context);
        self.current = next;
        self.slice_end = 0;
        Some(Some(context))
    }
}
