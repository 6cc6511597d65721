//! Operations on objects.

use sila_abi::syscall::Outcome;
use sila_abi::{ObjectType, Op, Rights};

use super::{MORE_OR_LONG, Rest, Threads, allows, place_of};
use crate::cap::{Cap, CapId};
use crate::invoke::permitted;
use crate::kernel::{Kernel, id_of};
use crate::machine::Machine;
use crate::objects::*;

const CAP_STATUS: u32 = Op::CapStatus as u32;
const CAP_COPY: u32 = Op::CapCopy as u32;
const CAP_MINT: u32 = Op::CapMint as u32;
const CAP_DELETE: u32 = Op::CapDelete as u32;
const SIGNAL: u32 = Op::Signal as u32;
const REGION_CREATE: u32 = Op::RegionCreate as u32;
const REGION_MAP: u32 = Op::RegionMap as u32;
const UNMAP: u32 = Op::MappingUnmap as u32;
const CLOCK_NOW: u32 = Op::ClockNow as u32;

/// The operations that the fast path knows, by number.
pub const OPERATIONS: [u32; 9] =
    [CAP_STATUS, CAP_COPY, CAP_MINT, CAP_DELETE, SIGNAL, REGION_CREATE, REGION_MAP, UNMAP, CLOCK_NOW];

impl Kernel {
    /// Carries out the operation with this number at once, to return to the same thread, or changes nothing. The tag
    /// must be that of an invocation of it.
    #[inline(always)]
    pub fn fast_operation<const OP: u32>(&mut self, m: &mut impl Machine) -> Result<(), Rest> {
        let me = self.fast_caller()?;
        self.fast_perform::<OP>(m, me).ok_or(Rest::All)
    }

    /// As [`Kernel::fast_operation`], for a number that is found out now.
    pub fn fast_operation_by_number(&mut self, m: &mut impl Machine, op: u32) -> Result<(), Rest> {
        match op {
            CAP_STATUS => self.fast_operation::<CAP_STATUS>(m),
            CAP_COPY => self.fast_operation::<CAP_COPY>(m),
            CAP_MINT => self.fast_operation::<CAP_MINT>(m),
            CAP_DELETE => self.fast_operation::<CAP_DELETE>(m),
            SIGNAL => self.fast_operation::<SIGNAL>(m),
            REGION_CREATE => self.fast_operation::<REGION_CREATE>(m),
            REGION_MAP => self.fast_operation::<REGION_MAP>(m),
            UNMAP => self.fast_operation::<UNMAP>(m),
            CLOCK_NOW => self.fast_operation::<CLOCK_NOW>(m),
            _ => Err(Rest::All),
        }
    }

    #[inline(always)]
    fn fast_perform<const OP: u32>(&mut self, m: &mut impl Machine, me: u32) -> Option<()> {
        let t = self.threads.known(me);
        let r = &t.context.registers;
        if r.rax as u32 & MORE_OR_LONG != 0 {
            return None;
        }
        let at = place_of(t, r.rdi)?;
        match OP {
            CAP_STATUS => {
                let cap = *self.caps.peek(at)?;
                let badge = if cap.object.kind == ObjectType::Reply { 0 } else { cap.badge };
                let r = self.registers_mut(me);
                r.rax = Outcome::message(3, 0, 0).0;
                (r.rsi, r.rdx, r.r10) = (cap.object.kind as u64, cap.rights.bits().into(), badge);
                return Some(());
            }
            CAP_COPY => {
                let cap = *self.caps.peek(at)?;
                self.fast_derive(me, at, cap, cap.badge)?;
            }
            CAP_MINT => {
                let (cap, badge) = (*self.caps.peek(at)?, r.r10);
                if cap.badge != 0 {
                    return None;
                }
                self.fast_derive(me, at, cap, badge)?;
            }
            CAP_DELETE => {
                let object = self.caps.peek(at)?.object;
                match self.cap_counter(object) {
                    Some(count) if *count > 1 && object.kind != ObjectType::Process => *count -= 1,
                    // The object has ended already.
                    None if object.kind as u8 <= ObjectType::Thread as u8 => {}
                    // What happens when the last capability goes, the general path knows.
                    _ => return None,
                }
                self.caps.remove_linked(at);
            }
            SIGNAL => {
                let cap =
                    self.caps.peek_typed(at, ObjectType::Notification).filter(|c| allows(c, Rights::SEND))?;
                let (n, flags) = (id_of(cap), permitted(cap, r.rsi));
                self.fast_signal(me, n, flags)?;
            }
            REGION_CREATE => self.fast_region_create(m, me, at)?,
            REGION_MAP => self.fast_region_map(m, me, at)?,
            UNMAP => {
                let cap =
                    self.caps.peek_typed(at, ObjectType::Mapping).filter(|c| allows(c, Rights::MANAGE))?;
                self.fast_unmap(m, id_of(cap))?;
            }
            CLOCK_NOW => {
                self.caps.peek_typed(at, ObjectType::Clock).filter(|c| allows(c, Rights::READ))?;
                let now = m.now();
                let r = self.registers_mut(me);
                (r.rax, r.rsi) = (Outcome::message(1, 0, 0).0, now);
                return Some(());
            }
            _ => return None,
        }
        self.succeed(me);
        Some(())
    }

    /// Makes a child of a capability in the slot that word 0 names, with the rights of word 1.
    #[inline(always)]
    fn fast_derive(&mut self, me: u32, from: CapId, cap: Cap, badge: u64) -> Option<()> {
        let t = self.threads.known(me);
        let r = &t.context.registers;
        let rights = Rights::from_word(r.rdx)?;
        let copyable = cap.rights.contains(Rights::COPY) && cap.rights.usable();
        if !copyable || !cap.rights.contains(rights.difference(Rights::ENDOW)) || r.rsi == 0 {
            return None;
        }
        let at = place_of(t, r.rsi).filter(|at| self.caps.is_free(*at))?;
        let count = self.cap_counter(cap.object)?;
        *count = count.wrapping_add(1);
        self.caps.put_child(from, at, Cap { rights, badge, ..cap });
        Some(())
    }

    /// Sets flags, and wakes the only thread that waits for them, if the running one goes on.
    #[inline(always)]
    fn fast_signal(&mut self, me: u32, id: NotificationId, flags: u64) -> Option<()> {
        let n = self.notifications.get_mut(id)?;
        if n.bound.is_some() {
            return None;
        }
        let flags = n.flags | flags;
        if n.waiters.is_empty() {
            n.flags = flags;
            return Some(());
        }
        let waiter = Threads::within(n.waiters.only_slot()?);
        let (t, w) = self.threads.known_pair_mut(me, waiter)?;
        let behind = w.effective < t.effective || (w.effective == t.effective && self.ticking);
        if !w.quirks.is_empty() || !behind || flags == 0 {
            return None;
        }
        n.flags = 0;
        n.waiters.take_only(&mut w.link);
        let r = &mut w.context.registers;
        (r.rax, r.rdi, r.rsi) = (Outcome::flags().0, 0, flags);
        w.state = ThreadState::Ready;
        let priority = w.effective;
        self.ready.push(&mut self.threads, waiter, priority, false);
        Some(())
    }
}
