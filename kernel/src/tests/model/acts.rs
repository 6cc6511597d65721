//! What processes of the test do, and what the reference model says comes of it.

use std::vec::Vec;

use sila_abi::{Error, ObjectType, Op, Rights};

use super::messages::Letter;
use super::reference::{Course, Ended, Held, Model, Name, Nature, What};

/// A request of an endowment, and the creator's slot that is named as its source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    pub slot: u16,
    pub kind: ObjectType,
    pub rights: Rights,
    pub badge: Option<u64>,
    pub mandatory: bool,
    pub source: Option<u64>,
}

/// One random operation.
#[derive(Clone, Debug)]
pub enum Act {
    /// An operation of the ABI on a capability. The kernel is interrupted at its first so many steps.
    Invoke {
        slot: u64,
        op: Op,
        words: [u64; 6],
        interrupts: u32,
    },
    Send {
        slot: u64,
        letter: Letter,
    },
    Receive {
        slot: u64,
        letter: Letter,
    },
    Reply {
        slot: u64,
        caps: Vec<u64>,
    },
    ReplyReceive {
        slot: u64,
        letter: Letter,
    },
    Exit,
    /// It ends, whatever it does or waits for.
    Fault,
    /// Makes a process with these grants.
    Endow {
        requests: Vec<Request>,
    },
    /// Deadlines pass.
    Time,
}

/// Quotas of a new process.
pub const QUOTA: (u64, u64) = (200, 26_000);
/// Where its message page is.
pub const MESSAGE_PAGE: u64 = 0x40_0000;

fn done() -> Result<Course, Error> {
    Ok(Some(Ended::with(Ok(()))))
}

impl Model {
    /// What comes of an act: how the call ends, or that it waits. Wakes others by the way.
    pub fn act(&mut self, who: Name, act: &Act) -> Course {
        self.woken.clear();
        let result = match act {
            Act::Invoke { slot, op, words, .. } => self.invoke(who, *slot, *op, words),
            Act::Send { slot, letter } => self.send(who, *slot, letter),
            Act::Receive { slot, letter } => self.receive(who, *slot, letter),
            Act::Reply { slot, caps } => self.reply(who, *slot, caps).and_then(|()| done()),
            Act::ReplyReceive { slot, letter } => self.reply_receive(who, *slot, letter),
            Act::Exit | Act::Fault => {
                self.end_process(who);
                Ok(None)
            }
            Act::Endow { requests } => self.endow(who, requests).and_then(|()| done()),
            Act::Time => {
                self.time_passes();
                done()
            }
        };
        self.close(result.is_err());
        result.unwrap_or_else(|error| Some(Ended::with(Err(error))))
    }

    fn invoke(&mut self, who: Name, slot: u64, op: Op, w: &[u64; 6]) -> Result<Course, Error> {
        let (name, cap) = self.find(who, slot)?;
        let row = op.info();
        if row.object.is_some_and(|kind| kind != cap.kind) {
            return Err(Error::WrongType);
        }
        if !row.endow_ok {
            self.allows(&cap, row.rights)?;
        }
        match op {
            Op::CapCopy => self.copy(who, name, &cap, w, cap.badge),
            Op::CapMint => self.mint(who, name, &cap, w),
            Op::CapMove => {
                let slot = self.free(who, w[0])?;
                self.caps.insert(name, Held { slot, ..cap });
                done()
            }
            Op::CapDelete => {
                self.delete(name);
                done()
            }
            Op::CapRevoke => {
                let below = self.caps.iter().filter(|(_, c)| c.ancestors.contains(&name));
                let below: Vec<Name> = below.map(|(name, _)| *name).collect();
                below.into_iter().for_each(|name| self.delete(name));
                done()
            }
            Op::CapStatus => done(),
            Op::PoolCreate | Op::RegionCreate | Op::EndpointCreate | Op::NotificationCreate => {
                self.create(who, name, &cap, op, w)
            }
            _ => self.use_object(who, &cap, op, w),
        }
    }

    fn copy(&mut self, who: Name, name: Name, cap: &Held, w: &[u64; 6], badge: u64) -> Result<Course, Error> {
        let slot = self.free(who, w[0])?;
        let rights = Rights::from_word(w[1]).ok_or(Error::InvalidArgument)?;
        if !cap.rights.contains(rights.difference(Rights::ENDOW)) {
            return Err(Error::MissingRight);
        }
        self.derive(name, who, slot, rights, badge);
        done()
    }

    fn mint(&mut self, who: Name, name: Name, cap: &Held, w: &[u64; 6]) -> Result<Course, Error> {
        self.free(who, w[0])?;
        if cap.badge != 0 {
            return Err(Error::AlreadyBadged);
        }
        self.copy(who, name, cap, w, w[2])
    }

    /// Objects that a Pool pays for.
    fn create(&mut self, who: Name, name: Name, cap: &Held, op: Op, w: &[u64; 6]) -> Result<Course, Error> {
        let What::Object(pool) = cap.what else { return Err(Error::WrongType) };
        let dst = match op {
            Op::PoolCreate | Op::EndpointCreate => w[2],
            Op::RegionCreate => w[1],
            _ => w[0],
        };
        let slot = self.free(who, dst)?;
        let nature = match op {
            Op::PoolCreate => Nature::Pool { parent: Some(pool), frames: w[0], bytes: w[1], dying: false },
            Op::RegionCreate if w[0] == 0 || w[0] > 65_536 => return Err(Error::InvalidArgument),
            Op::RegionCreate => Nature::Region { pages: w[0], sealed: false },
            Op::EndpointCreate => Nature::Endpoint {
                receiver: Some(who),
                durable: w[0] & 1 == 1,
                senders: Vec::new(),
                receivers: Vec::new(),
            },
            _ => Nature::Notification,
        };
        let rights = first_rights(nature.kind());
        let kind = nature.kind();
        let object = self.make(pool, nature)?;
        if op == Op::PoolCreate {
            // Who pays can revoke it: a child of the Pool's capability, of another object.
            let child = self.derive(name, who, slot, rights, 0);
            if let Some(held) = self.caps.get_mut(&child) {
                held.what = What::Object(object);
            }
        } else {
            self.install(who, slot, What::Object(object), kind, rights);
        }
        done()
    }

    fn use_object(&mut self, who: Name, cap: &Held, op: Op, w: &[u64; 6]) -> Result<Course, Error> {
        let What::Object(object) = cap.what else { return Err(Error::WrongType) };
        match op {
            Op::RegionMap => return self.map(who, object, cap.rights, w),
            Op::RegionSeal => {
                if self.mappings(object).1 > 0 {
                    return Err(Error::StillWritable);
                }
                if let Some(Nature::Region { sealed, .. }) = self.nature(object) {
                    *sealed = true;
                }
            }
            Op::MappingUnmap => self.unmap(object),
            Op::MappingProtect => {
                if let Some(Nature::Mapping { writable, .. }) = self.nature(object) {
                    *writable = false;
                }
            }
            Op::EndpointBind => self.bind(who, object, w)?,
            Op::ProcessTerminate => {
                self.end_process(object);
                return if object == who { Ok(None) } else { done() };
            }
            _ => {}
        }
        done()
    }

    fn nature(&mut self, object: Name) -> Option<&mut Nature> {
        self.objects.get_mut(&object).map(|o| &mut o.nature)
    }

    fn bind(&mut self, who: Name, endpoint: Name, w: &[u64; 6]) -> Result<(), Error> {
        let (_, process) = self.usable(who, w[0], ObjectType::Process, Rights::MANAGE)?;
        let What::Object(process) = process.what else { return Err(Error::WrongType) };
        if !self.people.contains_key(&process) {
            return Err(Error::Dying);
        }
        match self.nature(endpoint) {
            Some(Nature::Endpoint { receiver: receiver @ None, .. }) => {
                *receiver = Some(process);
                Ok(())
            }
            _ => Err(Error::AlreadyBound),
        }
    }

    fn map(&mut self, who: Name, region: Name, rights: Rights, w: &[u64; 6]) -> Result<Course, Error> {
        let [process, address, offset, pages, writable, dst] = *w;
        let (_, target) = self.usable(who, process, ObjectType::Process, Rights::WRITE)?;
        let What::Object(process) = target.what else { return Err(Error::WrongType) };
        let slot = self.free(who, dst)?;
        let writable = writable == 1;
        if writable && !rights.contains(Rights::WRITE) {
            return Err(Error::MissingRight);
        }
        let Some(Nature::Region { pages: length, sealed }) = self.nature(region).cloned() else {
            return Err(Error::ObjectGone);
        };
        if offset + pages > length {
            return Err(Error::InvalidArgument);
        }
        if writable && sealed {
            return Err(Error::Sealed);
        }
        let mapping = self.place_mapping(region, process, address >> 12, pages, writable)?;
        let rights = first_rights(ObjectType::Mapping);
        self.install(who, slot, What::Object(mapping), ObjectType::Mapping, rights);
        done()
    }

    fn place_mapping(
        &mut self,
        region: Name,
        process: Name,
        first: u64,
        pages: u64,
        writable: bool,
    ) -> Result<Name, Error> {
        let nature = Nature::Mapping { region, process, first, pages, writable };
        let Some(person) = self.people.get(&process) else {
            return Err(if self.live(ObjectType::Mapping) < self.prices.room[&ObjectType::Mapping] {
                Error::Dying
            } else {
                Error::ArenaFull
            });
        };
        let (pool, taken) = (person.pool, (first..first + pages).any(|page| person.pages.contains(&page)));
        let mapping = self.make(pool, nature)?;
        let missing = self.tables_missing(process, first, pages);
        let fits = if taken { Err(Error::AlreadyMapped) } else { self.afford(pool, missing.len() as u64, 0) };
        if let Err(error) = fits {
            self.objects.remove(&mapping);
            return Err(error);
        }
        if let Some(person) = self.people.get_mut(&process) {
            person.tables.extend(missing);
            person.pages.extend(first..first + pages);
        }
        Ok(mapping)
    }

    /// A new process gets exactly what is granted, or is not made.
    fn endow(&mut self, who: Name, requests: &[Request]) -> Result<(), Error> {
        let mut grants = Vec::new();
        for request in requests {
            match self.grant(who, request) {
                Ok((source, badge)) => grants.push((source, request, badge)),
                Err(error) if request.mandatory => return Err(error),
                Err(_) => {}
            }
        }
        let new = self.spawn(QUOTA, MESSAGE_PAGE);
        self.own(new);
        for (source, request, badge) in grants {
            let slot = self.free(new, request.slot.into())?;
            self.derive(source, new, slot, request.rights, badge);
        }
        Ok(())
    }

    fn grant(&self, who: Name, request: &Request) -> Result<(Name, u64), Error> {
        let found = request.source.and_then(|slot| self.find(who, slot).ok());
        let (name, cap) = found.ok_or(Error::RequestNotGranted)?;
        if !self.is_alive(&cap) {
            return Err(Error::SourceGone);
        }
        if cap.kind != request.kind || cap.kind == ObjectType::Reply {
            return Err(Error::RequestWrongType);
        }
        let passes = cap.rights.intersects(Rights::ENDOW | Rights::COPY);
        if !passes || !cap.rights.contains(request.rights.difference(Rights::ENDOW)) {
            return Err(Error::RequestRights);
        }
        match request.badge {
            Some(badge) if cap.badge != 0 && badge != cap.badge => Err(Error::RequestBadge),
            badge => Ok((name, badge.unwrap_or(cap.badge))),
        }
    }

    /// The capabilities that every process of the test begins with.
    pub fn own(&mut self, process: Name) {
        let (pool, thread) = (self.people[&process].pool, self.people[&process].thread);
        let control = Rights::READ | Rights::WRITE | Rights::MANAGE | Rights::COPY;
        for (slot, object, kind, rights) in [
            (1, process, ObjectType::Process, control),
            (3, pool, ObjectType::Pool, Rights::USE),
            (2, thread, ObjectType::Thread, Rights::READ | Rights::MANAGE | Rights::COPY),
        ] {
            self.install(process, slot, What::Object(object), kind, rights);
        }
    }
}

/// The rights of the first capability to a new object.
fn first_rights(kind: ObjectType) -> Rights {
    match kind {
        ObjectType::Pool => Rights::READ | Rights::CREATE | Rights::COPY | Rights::GRANT | Rights::MANAGE,
        ObjectType::Region => Rights::READ | Rights::WRITE | Rights::SEAL | Rights::COPY | Rights::MANAGE,
        ObjectType::Endpoint => Rights::USE.difference(Rights::WRITE | Rights::CREATE | Rights::SEAL),
        ObjectType::Notification => {
            Rights::READ | Rights::SEND | Rights::RECV | Rights::MANAGE | Rights::COPY
        }
        _ => Rights::READ | Rights::MANAGE,
    }
}
