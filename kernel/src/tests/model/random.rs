//! Random acts: mostly ones that make sense, some that do not.

use std::vec::Vec;

use sila_abi::{ObjectType, Op, Rights};

use super::acts::{Act, Request};
use super::driver::Driver;
use super::messages::Letter;
use super::reference::{Held, Name, Nature, Wants, What};

/// Numbers that a seed decides.
pub struct Random(u64);

impl Random {
    pub const fn new(seed: u64) -> Self {
        Random(seed)
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        let at = self.below(from.len() as u64) as usize;
        from.get(at).copied()
    }
}

/// Slots that acts name on purpose: three chunks, so that CSpaces grow.
const SLOTS: [u64; 22] =
    [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 64, 65, 66, 67, 127, 128, 129, 130, 192, 1023];
/// Slots that are none, or few would name.
const ODD: [u64; 6] = [0, 1024, 1025, 40_000, 65_535, 500];
/// Pages to map at: close together, and far apart.
const PAGES: [u64; 7] = [0x800, 0x801, 0x802, 0x400, 0x40_0000, 0x7_0000_0000, 0xa00];
/// Pages to map at once.
const LENGTHS: [u64; 4] = [1, 1, 2, 3];
/// Capabilities that all processes together should have; above it more are deleted.
const CROWD: usize = 90;
/// The fewest processes that take part.
const PARTY: usize = 4;

fn is_endpoint(cap: &Held) -> bool {
    cap.kind == ObjectType::Endpoint && cap.rights.contains(Rights::COPY)
}

/// Who can act, and with what.
struct Stage<'a> {
    d: &'a Driver,
    /// Processes that wait for nothing.
    free: Vec<Name>,
    /// Somebody may wait for ever, and others are left.
    patient: bool,
}

/// The next act, and whose; `None` if nobody is left.
pub fn next(d: &Driver, r: &mut Random) -> Option<(Name, Act)> {
    let people: Vec<Name> = d.model.people.keys().copied().collect();
    let waits = |name: &Name| d.model.people[name].wait.is_some();
    let free: Vec<Name> = people.iter().copied().filter(|name| !waits(name)).collect();
    let Some(who) = r.pick(&free) else {
        // Nobody can act: either a wait ends by itself, or somebody's end ends one.
        let hope = d.model.people.values().any(|p| !p.patience);
        return if hope { Some((0, Act::Time)) } else { Some((r.pick(&people)?, Act::Fault)) };
    };
    let stage = Stage { d, patient: free.len() > 2, free };
    if people.len() < PARTY && d.can_spawn() {
        let able = |cap: &Held| cap.holder == who && is_endpoint(cap);
        let lonely = !d.model.caps.values().any(able) && r.percent(70);
        return if lonely {
            invoke(Op::EndpointCreate, (who, 3), [0, 0, stage.target(r, who), 0, 0, 0], r)
        } else {
            Some((who, stage.endowment(r, who)))
        };
    }
    loop {
        let act = match r.below(1000) {
            0..370 => stage.on_capabilities(r),
            370..560 => stage.on_objects(r),
            560..965 => stage.message(r),
            965..972 => Some((who, Act::Time)),
            980..985 if people.len() > PARTY => stage.end(r),
            985..987 if people.len() > PARTY => Some((r.pick(&people).unwrap_or(0), Act::Fault)),
            987..1000 if d.can_spawn() => Some((who, stage.endowment(r, who))),
            _ => None,
        };
        if act.is_some() {
            return act;
        }
    }
}

fn invoke(op: Op, (who, slot): (Name, u64), words: [u64; 6], r: &mut Random) -> Option<(Name, Act)> {
    let restarts = op.info().restarts && r.percent(30);
    Some((who, Act::Invoke { slot, op, words, interrupts: if restarts { r.below(4) as u32 } else { 0 } }))
}

impl Stage<'_> {
    fn held(&self, who: Name, slot: u64) -> Option<&Held> {
        self.d.model.at(who, slot).map(|(_, cap)| cap)
    }

    /// A process that can act, and a slot of it: most often with a capability that fits, if there is one.
    fn someone(&self, r: &mut Random, fits: impl Fn(&Held) -> bool) -> Option<(Name, u64)> {
        let who = r.pick(&self.free)?;
        match r.below(100) {
            0..1 => return Some((who, r.pick(&ODD)?)),
            1..3 => return Some((who, r.pick(&SLOTS)?)),
            3..5 => return Some((who, self.slot(r, who, |_| true))),
            _ => {}
        }
        let fitting = self.d.model.caps.values().filter(|cap| self.free.contains(&cap.holder) && fits(cap));
        let fitting: Vec<_> = fitting.map(|cap| (cap.holder, u64::from(cap.slot))).collect();
        r.pick(&fitting)
    }

    /// A process with a capability of this type; most often one with this right.
    fn with(&self, r: &mut Random, kind: ObjectType, right: Rights) -> Option<(Name, u64)> {
        let strict = r.percent(92);
        self.someone(r, |cap| {
            let may = cap.rights.contains(right) && !cap.rights.contains(Rights::ENDOW);
            cap.kind == kind && (may || !strict)
        })
    }

    /// A slot of a process, most often with a capability that fits.
    fn slot(&self, r: &mut Random, who: Name, fits: impl Fn(&Held) -> bool) -> u64 {
        match r.below(100) {
            0..2 => return r.pick(&ODD).unwrap_or(0),
            2..5 => return r.pick(&SLOTS).unwrap_or(0),
            _ => {}
        }
        let own = |fits: &dyn Fn(&Held) -> bool| -> Vec<u64> {
            let own = self.d.model.caps.values().filter(|cap| cap.holder == who && fits(cap));
            own.map(|cap| cap.slot.into()).collect()
        };
        r.pick(&own(&fits)).or_else(|| r.pick(&own(&|_| true))).unwrap_or(5)
    }

    /// A slot to be filled, most often an empty one.
    fn target(&self, r: &mut Random, who: Name) -> u64 {
        match r.below(100) {
            0..3 => return r.pick(&ODD).unwrap_or(0),
            3..8 => return r.pick(&SLOTS).unwrap_or(0),
            _ => {}
        }
        let empty: Vec<u64> = SLOTS.into_iter().filter(|slot| self.held(who, *slot).is_none()).collect();
        r.pick(&empty).unwrap_or(11)
    }

    fn rights(&self, r: &mut Random, who: Name, slot: u64) -> u64 {
        let held = self.held(who, slot).map_or(Rights::USE, |cap| cap.rights);
        match r.below(100) {
            0..60 => held.bits().into(),
            60..85 => (held.bits() & (r.next() as u16 | Rights::COPY.bits())).into(),
            85..90 => (held | Rights::ENDOW).bits().into(),
            90..98 => (r.next() as u16 & Rights::all().bits()).into(),
            _ => r.below(1 << 17),
        }
    }

    fn on_capabilities(&self, r: &mut Random) -> Option<(Name, Act)> {
        let crowded = self.d.model.caps.len() > CROWD;
        let action = r.below(if crowded { 170 } else { 100 });
        let copies = action < 52 && r.percent(80);
        let (who, slot) = self.someone(r, |cap| cap.rights.contains(Rights::COPY) || !copies)?;
        let dst = self.target(r, who);
        match action {
            0..36 => invoke(Op::CapCopy, (who, slot), [dst, self.rights(r, who, slot), 0, 0, 0, 0], r),
            36..52 => {
                let words = [dst, self.rights(r, who, slot), r.below(4), 0, 0, 0];
                invoke(Op::CapMint, (who, slot), words, r)
            }
            52..68 => invoke(Op::CapMove, (who, slot), [dst, 0, 0, 0, 0, 0], r),
            68..74 => invoke(Op::CapRevoke, (who, slot), [0; 6], r),
            74..80 => invoke(Op::CapStatus, (who, slot), [0; 6], r),
            // The own capabilities go less often, so that there is something left to act with.
            _ if slot <= 3 && r.percent(90) => invoke(Op::CapStatus, (who, slot), [0; 6], r),
            _ => invoke(Op::CapDelete, (who, slot), [0; 6], r),
        }
    }

    fn on_objects(&self, r: &mut Random) -> Option<(Name, Act)> {
        match r.below(100) {
            0..46 => self.creation(r),
            46..64 => {
                let (who, region) = self.with(r, ObjectType::Region, Rights::READ)?;
                let writes =
                    |cap: &Held| cap.kind == ObjectType::Process && cap.rights.contains(Rights::WRITE);
                let process = self.slot(r, who, writes);
                let page = r.pick(&PAGES).unwrap_or(0x800) + r.below(3);
                let (offset, pages) = (r.below(2), r.pick(&LENGTHS).unwrap_or(1));
                let words =
                    [process, page << 12, offset, pages, u64::from(r.percent(50)), self.target(r, who)];
                invoke(Op::RegionMap, (who, region), words, r)
            }
            64..76 => {
                let mapping = self.with(r, ObjectType::Mapping, Rights::MANAGE)?;
                let op = if r.percent(75) { Op::MappingUnmap } else { Op::MappingProtect };
                invoke(op, mapping, [0; 6], r)
            }
            76..81 => invoke(Op::RegionSeal, self.with(r, ObjectType::Region, Rights::SEAL)?, [0; 6], r),
            81..85 => invoke(Op::RegionStatus, self.with(r, ObjectType::Region, Rights::empty())?, [0; 6], r),
            85..90 => invoke(Op::PoolStatus, self.with(r, ObjectType::Pool, Rights::READ)?, [0; 6], r),
            _ => {
                let (who, endpoint) = self.with(r, ObjectType::Endpoint, Rights::MANAGE)?;
                let process = self.slot(r, who, |cap| cap.kind == ObjectType::Process);
                invoke(Op::EndpointBind, (who, endpoint), [process, 0, 0, 0, 0, 0], r)
            }
        }
    }

    fn creation(&self, r: &mut Random) -> Option<(Name, Act)> {
        let (who, pool) = self.with(r, ObjectType::Pool, Rights::CREATE)?;
        let dst = self.target(r, who);
        let (op, words) = match r.below(46) {
            0..12 => (Op::PoolCreate, [r.below(40), r.below(5000), dst, 0, 0, 0]),
            12..26 => {
                let pages = if r.percent(20) { r.below(90) } else { 1 + r.below(4) };
                (Op::RegionCreate, [pages, dst, 0, 0, 0, 0])
            }
            26..40 => (Op::EndpointCreate, [u64::from(r.percent(30)), 0, dst, 0, 0, 0]),
            _ => (Op::NotificationCreate, [dst, 0, 0, 0, 0, 0]),
        };
        invoke(op, (who, pool), words, r)
    }

    fn end(&self, r: &mut Random) -> Option<(Name, Act)> {
        if r.percent(30) {
            return Some((r.pick(&self.free)?, Act::Exit));
        }
        let process = self.with(r, ObjectType::Process, Rights::MANAGE)?;
        invoke(Op::ProcessTerminate, process, [7, 0, 0, 0, 0, 0], r)
    }

    fn endowment(&self, r: &mut Random, who: Name) -> Act {
        let mut requests = Vec::new();
        for i in 0..3 + r.below(6) {
            // An endpoint or two, so that the new process can talk to somebody.
            let fits = |cap: &Held| {
                if i < 2 { is_endpoint(cap) } else { cap.rights.contains(Rights::COPY) }
            };
            let source = r.percent(95).then(|| self.slot(r, who, fits));
            let held = source.and_then(|slot| self.held(who, slot));
            let (kind, held) = held.map_or((ObjectType::Pool, Rights::USE), |cap| (cap.kind, cap.rights));
            let some = Rights::from_bits_truncate(r.next() as u16);
            let rights = if r.percent(70) { held } else { held & (some | Rights::COPY) };
            requests.push(Request {
                slot: if r.percent(80) { 4 + i as u16 } else { 64 + i as u16 },
                kind: if r.percent(97) { kind } else { ObjectType::Endpoint },
                rights: if r.percent(95) { rights } else { rights | Rights::SEND },
                badge: r.percent(20).then(|| r.below(4)),
                mandatory: r.percent(5),
                source,
            });
        }
        Act::Endow { requests }
    }

    fn letter(&self, r: &mut Random, who: Name) -> Letter {
        let mut caps = Vec::new();
        for _ in 0..r.pick(&[0, 0, 0, 1, 1, 2, 3, 4]).unwrap_or(0) {
            let travels = |cap: &Held| cap.rights.contains(Rights::COPY) || cap.kind == ObjectType::Reply;
            let strict = r.percent(85);
            caps.push(self.slot(r, who, |cap| travels(cap) || !strict));
        }
        let wants = Wants {
            reply: if r.percent(85) { self.target(r, who) & 0xffff } else { 0 },
            base: self.target(r, who) as u16,
            count: r.pick(&[0, 2, 4, 4]).unwrap_or(0),
        };
        let waits = r.percent(85);
        let patience = waits && self.patient && r.percent(65);
        Letter { caps, call: r.percent(60), waits, patience, wants }
    }

    /// Whether somebody waits for the other side at the endpoint of a capability.
    fn is_waited_for(&self, cap: &Held, to_receive: bool) -> bool {
        let What::Object(object) = cap.what else { return false };
        match self.d.model.objects.get(&object).map(|o| &o.nature) {
            Some(Nature::Endpoint { senders, .. }) if to_receive => !senders.is_empty(),
            Some(Nature::Endpoint { receivers, .. }) => !receivers.is_empty(),
            _ => false,
        }
    }

    /// Whether a process besides its receiver can send to an endpoint.
    fn is_shared(&self, endpoint: Name, receiver: Name) -> bool {
        let other = |cap: &Held| cap.holder != receiver && cap.rights.contains(Rights::SEND);
        self.d.model.caps.values().any(|cap| cap.what == What::Object(endpoint) && other(cap))
    }

    /// Whether a capability leads to another process that could receive.
    fn leads_on(&self, cap: &Held) -> bool {
        let What::Object(object) = cap.what else { return false };
        match self.d.model.objects.get(&object).map(|o| &o.nature) {
            Some(Nature::Endpoint { receiver, .. }) => receiver.is_some_and(|other| other != cap.holder),
            _ => false,
        }
    }

    /// An endpoint to receive from: most often as its receiver, and where somebody can send.
    fn to_receive(&self, r: &mut Random) -> Option<(Name, u64)> {
        let eager = r.percent(60);
        let own = |cap: &Held| match cap.what {
            What::Object(object) => match self.d.model.objects.get(&object).map(|o| &o.nature) {
                Some(Nature::Endpoint { receiver, senders, .. }) => {
                    *receiver == Some(cap.holder)
                        && self.is_shared(object, cap.holder)
                        && (!eager || !senders.is_empty())
                }
                _ => false,
            },
            What::Reply(_) => false,
        };
        if r.percent(90) {
            self.someone(r, |cap| own(cap) && cap.rights.contains(Rights::RECV))
        } else {
            self.with(r, ObjectType::Endpoint, Rights::RECV)
        }
    }

    fn message(&self, r: &mut Random) -> Option<(Name, Act)> {
        let act = match r.below(100) {
            0..35 => {
                let meets = r.percent(65);
                let (who, slot) = if meets {
                    self.someone(r, |cap| {
                        self.is_waited_for(cap, false) && cap.rights.contains(Rights::SEND)
                    })?
                } else if r.percent(80) {
                    self.someone(r, |cap| self.leads_on(cap) && cap.rights.contains(Rights::SEND))?
                } else {
                    self.with(r, ObjectType::Endpoint, Rights::SEND | Rights::GRANT)?
                };
                return Some((who, Act::Send { slot, letter: self.letter(r, who) }));
            }
            35..70 => {
                let (who, slot) = self.to_receive(r)?;
                (who, slot, Act::Receive { slot, letter: self.letter(r, who) })
            }
            70..88 => {
                let (who, slot) = self.someone(r, |cap| cap.kind == ObjectType::Reply)?;
                return Some((who, Act::Reply { slot, caps: self.letter(r, who).caps }));
            }
            _ => {
                let (who, reply) = self.someone(r, |cap| cap.kind == ObjectType::Reply)?;
                let slot = self.slot(r, who, |cap| {
                    cap.kind == ObjectType::Endpoint && cap.rights.contains(Rights::RECV)
                });
                let mut letter = self.letter(r, who);
                letter.wants.reply = reply & 0xffff;
                (who, slot, Act::ReplyReceive { slot, letter })
            }
        };
        let (who, slot, act) = act;
        // Who waits for flags is tested elsewhere.
        let flags = self.held(who, slot).is_some_and(|cap| cap.kind == ObjectType::Notification);
        Some((who, if flags { Act::Time } else { act }))
    }
}
