//! Interrupts of devices: from a line to the Notifications of those who drive it.
//!
//! Owns: which source is bound to which Notification. Invariants: a line arrives masked; an edge line of a serial
//! port stays masked until its driver acknowledges; of a line that PCI functions share, each function that raised it
//! is silenced by itself until its own driver acknowledges, and the line goes on for the others. A line that nobody
//! explains is given up after [`MAX_STRAYS`] arrivals, until a driver acknowledges or binds again.

use sila_abi::Error;

use crate::invoke::{Flow, Invocation, permitted};
use crate::kernel::{Fail, IRQ_LINES, Kernel};
use crate::machine::Machine;
use crate::objects::*;
use crate::pci::{self, Function};

/// Arrivals in a row that no function explains, after which a line stays masked.
pub const MAX_STRAYS: u8 = 16;

/// What an IrqHandler stands for.
#[derive(Clone, Copy, Debug)]
pub struct IrqSource {
    /// Its global line.
    pub line: u8,
    /// The PCI function that raises it; `None`: a serial port, which has the line for itself.
    pub function: Option<Function>,
    /// Notification and flags.
    pub bound: Option<(NotificationId, u64)>,
    /// Nothing arrives before it is bound or acknowledged.
    pub silent: bool,
    /// How often it has interrupted.
    pub count: u64,
}

/// All sources, and what became of their lines.
#[derive(Debug, Default)]
pub struct Interrupts {
    sources: alloc::vec::Vec<IrqSource>,
    strays: [u8; IRQ_LINES],
}

impl Interrupts {
    /// Adds a source; its number.
    pub fn add(&mut self, line: u8, function: Option<Function>) -> u32 {
        self.sources.push(IrqSource { line, function, bound: None, silent: true, count: 0 });
        self.sources.len() as u32 - 1
    }

    fn get(&self, source: u32) -> Result<IrqSource, Error> {
        self.sources.get(source as usize).copied().ok_or(Error::ObjectGone)
    }

    fn arrived(&mut self, source: usize) {
        if let Some(s) = self.sources.get_mut(source) {
            s.silent = true;
            s.count = s.count.wrapping_add(1);
        }
    }

    fn set_silent(&mut self, source: u32, silent: bool) {
        if let Some(s) = self.sources.get_mut(source as usize) {
            s.silent = silent;
        }
    }

    fn bind(&mut self, source: u32, bound: Option<(NotificationId, u64)>) {
        if let Some(s) = self.sources.get_mut(source as usize) {
            s.bound = bound;
        }
    }

    /// Counts an arrival that nobody explains; true as long as the line is worth another try.
    fn stray(&mut self, line: u8) -> bool {
        let Some(count) = self.strays.get_mut(usize::from(line)) else { return false };
        *count = count.saturating_add(1).min(MAX_STRAYS);
        *count < MAX_STRAYS
    }

    fn explained(&mut self, line: u8) {
        if let Some(count) = self.strays.get_mut(usize::from(line)) {
            *count = 0;
        }
    }
}

impl Kernel {
    /// A line has arrived; it is masked.
    pub(crate) fn interrupt(&mut self, m: &mut impl Machine, line: u8) {
        let (mut raised, mut shared) = (false, false);
        for index in 0..self.interrupts.sources.len() {
            let Ok(source) = self.interrupts.get(index as u32) else { continue };
            if source.line != line {
                continue;
            }
            if let Some(function) = source.function {
                shared = true;
                if !pci::raises(m, function) {
                    continue;
                }
                pci::hold_interrupt(m, function, true);
                raised = true;
            }
            self.interrupts.arrived(index);
            self.counters.device_interrupts += 1;
            if let Some((notification, flags)) = source.bound {
                self.signal(notification, flags);
            }
        }
        if raised {
            self.interrupts.explained(line);
        }
        if shared && (raised || self.interrupts.stray(line)) {
            m.mask_interrupt(line, false);
        }
    }

    pub(crate) fn irq_bind(&mut self, m: &mut impl Machine, c: &Invocation) -> Result<Flow, Fail> {
        let notification: NotificationId = c.arg_id(0)?;
        let source = c.found.cap.object.index;
        let bound = self.interrupts.get(source)?.bound;
        if bound.is_some_and(|(n, _)| self.notifications.get(n).is_some()) {
            return Err(Error::AlreadyBound.into());
        }
        let flags = c.caps[0].map_or(0, |f| permitted(&f.cap, c.args[1]));
        self.interrupts.bind(source, Some((notification, flags)));
        self.let_interrupt(m, source)
    }

    pub(crate) fn irq_ack(&mut self, m: &mut impl Machine, c: &Invocation) -> Result<Flow, Fail> {
        let source = c.found.cap.object.index;
        if self.interrupts.get(source)?.bound.is_none() {
            return Err(Error::NotBound.into());
        }
        self.let_interrupt(m, source)
    }

    pub(crate) fn irq_unbind(&mut self, m: &mut impl Machine, c: &Invocation) -> Result<Flow, Fail> {
        let index = c.found.cap.object.index;
        let source = self.interrupts.get(index)?;
        if source.bound.is_none() {
            return Err(Error::NotBound.into());
        }
        self.interrupts.bind(index, None);
        self.interrupts.set_silent(index, true);
        match source.function {
            Some(function) => pci::hold_interrupt(m, function, true),
            None => m.mask_interrupt(source.line, true),
        }
        Ok(Flow::words(&[]))
    }

    fn let_interrupt(&mut self, m: &mut impl Machine, source: u32) -> Result<Flow, Fail> {
        self.interrupts.set_silent(source, false);
        let source = self.interrupts.get(source)?;
        if let Some(function) = source.function {
            pci::hold_interrupt(m, function, false);
        }
        self.interrupts.explained(source.line);
        m.mask_interrupt(source.line, false);
        Ok(Flow::words(&[]))
    }

    pub(crate) fn irq_status(&self, c: &Invocation) -> Result<Flow, Fail> {
        let source = self.interrupts.get(c.found.cap.object.index)?;
        let bound = source.bound.is_some_and(|(n, _)| self.notifications.get(n).is_some());
        Ok(Flow::words(&[bound.into(), source.silent.into(), source.count]))
    }
}
