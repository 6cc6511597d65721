//! Recharging: an object's cost moves from the Pool that paid to another one, whole or not at all.
//!
//! Only what stands on its own can move. Threads, Mappings and page tables are part of their process, a process
//! stands with its own Pool, and a Pool with its parent.

use sila_abi::{Error, ObjectType};

use crate::handover::{Handover, HandoverId};
use crate::invoke::{Flow, Invocation};
use crate::journal::{Journal, JournalId};
use crate::kernel::{Fail, Kernel};
use crate::memory::region_frames;
use crate::objects::*;

impl Kernel {
    pub(crate) fn charge_transfer(&mut self, c: &Invocation) -> Result<Flow, Fail> {
        let pool: PoolId = c.arg_id(0)?;
        match c.found.cap.object.kind {
            ObjectType::Region => self.recharge_region(c.id(), pool)?,
            ObjectType::Endpoint => {
                let e = self.endpoints.get(c.id()).ok_or(Error::ObjectGone)?;
                if e.covered.is_some() {
                    return Err(Error::AlreadyCovered.into());
                }
                self.recharge_endpoint(c.id(), pool)?;
            }
            ObjectType::Notification => {
                let id: NotificationId = c.id();
                let payer = self.notifications.get(id).ok_or(Error::ObjectGone)?.pool;
                self.move_charge(payer, pool, 0, cost::<Notification>())?;
                if let Some(n) = self.notifications.get_mut(id) {
                    n.pool = pool;
                }
            }
            ObjectType::Job => {
                let id: JobId = c.id();
                let payer = self.jobs.get(id).ok_or(Error::ObjectGone)?.pool;
                self.move_charge(payer, pool, 0, cost::<Job>())?;
                if let Some(j) = self.jobs.get_mut(id) {
                    j.pool = pool;
                }
            }
            ObjectType::Handover => self.recharge_handover(c.id(), pool)?,
            ObjectType::Journal => self.recharge_journal(c.id(), pool)?,
            _ => return Err(Error::NotTransferable.into()),
        }
        Ok(Flow::words(&[]))
    }

    /// Charges to one Pool what another one paid, or changes nothing.
    fn move_charge(&mut self, from: PoolId, to: PoolId, frames: u64, bytes: u64) -> Result<(), Error> {
        if from == to {
            return Ok(());
        }
        self.charge(to, frames, bytes)?;
        self.refund(from, frames, bytes);
        Ok(())
    }

    /// What a Region costs, and who paid; `None` for one that no Pool paid for.
    fn region_charge(&self, id: RegionId) -> Result<Option<(PoolId, u64, u64)>, Error> {
        let r = self.regions.get(id).ok_or(Error::ObjectGone)?;
        Ok(r.pool.map(|pool| (pool, region_frames(r.pages.into()), cost::<Region>())))
    }

    pub(crate) fn recharge_region(&mut self, id: RegionId, pool: PoolId) -> Result<(), Error> {
        let (payer, frames, bytes) = self.region_charge(id)?.ok_or(Error::NotTransferable)?;
        self.move_charge(payer, pool, frames, bytes)?;
        if let Some(r) = self.regions.get_mut(id) {
            r.pool = Some(pool);
        }
        Ok(())
    }

    pub(crate) fn recharge_endpoint(&mut self, id: EndpointId, pool: PoolId) -> Result<(), Error> {
        let payer = self.endpoints.get(id).ok_or(Error::ObjectGone)?.pool;
        self.move_charge(payer, pool, 0, cost::<Endpoint>())?;
        if let Some(e) = self.endpoints.get_mut(id) {
            e.pool = pool;
        }
        Ok(())
    }

    fn recharge_handover(&mut self, id: HandoverId, pool: PoolId) -> Result<(), Error> {
        let payer = self.handovers.get(id).ok_or(Error::ObjectGone)?.pool;
        self.move_charge(payer, pool, 0, cost::<Handover>())?;
        if let Some(h) = self.handovers.get_mut(id) {
            h.pool = pool;
        }
        Ok(())
    }

    /// A Journal moves with its frames.
    fn recharge_journal(&mut self, id: JournalId, pool: PoolId) -> Result<(), Error> {
        let j = self.journals.get(id).ok_or(Error::ObjectGone)?;
        let (payer, region) = (j.pool, j.region);
        // The frames have the same payer: a Journal takes them over and nobody else can name them.
        let (_, frames, bytes) = self.region_charge(region)?.ok_or(Error::NotTransferable)?;
        self.move_charge(payer, pool, frames, bytes + cost::<Journal>())?;
        if let Some(j) = self.journals.get_mut(id) {
            j.pool = pool;
        }
        if let Some(r) = self.regions.get_mut(region) {
            r.pool = Some(pool);
        }
        Ok(())
    }
}
