//! Notifications: flags that never block their sender.

use sila_abi::Error;
use sila_abi::syscall::{NO_WAIT, Outcome};

use crate::invoke::Flow;
use crate::kernel::{Attention, Fail, Kernel};
use crate::objects::*;
use crate::queue::Alarm;

impl Kernel {
    /// Makes a notification, charged; it has no capability yet.
    pub(crate) fn new_notification(&mut self, pool: PoolId) -> Result<NotificationId, Error> {
        self.room(self.notifications.has_room())?;
        self.charge(pool, 0, cost::<Notification>())?;
        let n = Notification {
            pool,
            caps: 0,
            flags: 0,
            waiters: Default::default(),
            bound: None,
            alarm_flags: 0,
        };
        self.notifications.insert(n).map_err(|_| Error::ArenaFull)
    }

    /// Sets flags and wakes one waiter, or the bound thread if it waits in a receive.
    pub(crate) fn signal(&mut self, id: NotificationId, flags: u64) {
        let Some(n) = self.notifications.get_mut(id) else { return };
        n.flags |= flags;
        if n.flags == 0 {
            return;
        }
        let thread = match (n.waiters.first(), n.bound) {
            (Some(first), _) => self.threads.id_at(first),
            (None, Some(bound)) if self.receives(bound) => bound,
            _ => return,
        };
        let taken = self.take_flags(id);
        self.wake(thread, Outcome::flags(), 0, &[taken]);
    }

    /// True if a thread waits for a message.
    pub(crate) fn receives(&self, thread: ThreadId) -> bool {
        matches!(self.threads.get(thread).map(|t| t.state), Some(ThreadState::Receiving { .. }))
    }

    /// Takes all flags that are set.
    pub(crate) fn take_flags(&mut self, id: NotificationId) -> u64 {
        self.notifications.get_mut(id).map_or(0, |n| core::mem::take(&mut n.flags))
    }

    /// The flags that a receive of this thread must deliver before any message.
    pub(crate) fn take_bound_flags(&mut self, thread: ThreadId) -> u64 {
        match self.threads.get(thread).and_then(|t| t.bound) {
            Some(n) => self.take_flags(n),
            None => 0,
        }
    }

    /// `recv` on a notification.
    pub(crate) fn wait(&mut self, thread: ThreadId, id: NotificationId, deadline: u64) -> Result<Flow, Fail> {
        let flags = self.take_flags(id);
        if flags != 0 {
            self.complete(thread, Outcome::flags(), 0, &[flags]);
            return Ok(Flow::Completed);
        }
        if deadline == NO_WAIT {
            return Err(Error::Timeout.into());
        }
        let priority = self.threads.get(thread).map_or(0, |t| t.effective);
        self.start_wait(thread, ThreadState::Waiting { notification: id }, deadline);
        if let Some(n) = self.notifications.get_mut(id) {
            self.threads.enqueue(&mut n.waiters, thread.index(), priority);
        }
        Ok(Flow::Blocked)
    }

    /// Lets a notification interrupt the receives of a thread.
    pub(crate) fn bind_notification(&mut self, id: NotificationId, thread: ThreadId) -> Result<(), Error> {
        let free = self.notifications.get(id).is_some_and(|n| n.bound.is_none())
            && self.threads.get(thread).is_some_and(|t| t.bound.is_none());
        if !free {
            return Err(Error::AlreadyBound);
        }
        if let Some(n) = self.notifications.get_mut(id) {
            n.bound = Some(thread);
        }
        if let Some(t) = self.threads.get_mut(thread) {
            t.bound = Some(id);
        }
        self.signal(id, 0);
        Ok(())
    }

    /// Sets, or with `u64::MAX` cancels, the alarm.
    pub(crate) fn set_alarm(&mut self, id: NotificationId, time: u64, flags: u64) {
        let alarm = Alarm::Notification(id.index());
        if let Some(n) = self.notifications.get_mut(id) {
            n.alarm_flags = flags;
        }
        if time == u64::MAX {
            self.timers.cancel(alarm);
        } else {
            self.timers.set(alarm, time);
            self.attention |= Attention::SCHEDULE;
        }
    }

    /// The last capability has gone: wake the waiters, end the object.
    pub(crate) fn drop_notification(&mut self, id: NotificationId) {
        if self.notifications.get(id).is_some_and(|n| n.caps == 0) {
            self.end_notification(id);
        }
    }

    /// Ends a notification, whoever holds capabilities to it.
    pub(crate) fn end_notification(&mut self, id: NotificationId) {
        self.end_notification_step(id, &mut { u32::MAX });
    }

    /// Ends a notification once it has woken all who wait for it; false if there were more than it may wake.
    pub(crate) fn end_notification_step(&mut self, id: NotificationId, wakes: &mut u32) -> bool {
        let Some(n) = self.notifications.get(id) else { return true };
        let (pool, bound) = (n.pool, n.bound);
        while let Some(t) = self.notifications.get(id).and_then(|n| n.waiters.first()) {
            let Some(left) = wakes.checked_sub(1) else { return false };
            *wakes = left;
            self.wake_error(self.threads.id_at(t), Error::ObjectGone);
        }
        if let Some(t) = bound.and_then(|t| self.threads.get_mut(t)) {
            t.bound = None;
        }
        self.timers.cancel(Alarm::Notification(id.index()));
        self.notifications.end(id);
        self.refund(pool, 0, cost::<Notification>());
        true
    }
}
