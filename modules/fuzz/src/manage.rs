//! Recipes of a hostile ModuleManager: loads with parts that belong together or do not, records, borrowed images, and
//! what must not be done with any of them.

use alloc::vec::Vec;
use sila_abi::protocol::layout::{CLOCK, OWN_POOL, OWN_PROCESS};
use sila_abi::syscall::{Call, NO_WAIT, Receive, Tag};
use sila_abi::{Op, Rights};

use crate::order::{Act, Order, TAIL};
use crate::random::Random;
use crate::recipes::{Gift, Script, Step};
use crate::{CACHE, HUB, JOB, KEY_RING, POLICY, SANDBOX};

/// What a load is made of, or the KeyRing is given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// An image.
    Image,
    /// A load proof.
    Proof,
    /// A signed record.
    Record,
}

/// What the driver does to a piece before it hands it out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flaw {
    /// Nothing.
    None,
    /// Flips bits that follow from this number.
    Bits(u64),
    /// Flips such bits in its header.
    Head(u64),
    /// Leaves out what comes after this part of it, in 256ths.
    Cut(u8),
}

/// A piece: which, what is wrong with it, and whether its Region is frozen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Made {
    /// Of which kind.
    pub kind: Kind,
    /// Which of its kind.
    pub at: usize,
    /// What is wrong with it.
    pub flaw: Flaw,
    /// Whether nobody can write it any more.
    pub frozen: bool,
}

/// The pieces that there are.
#[derive(Clone, Copy, Debug)]
pub struct Stock<'a> {
    /// How many images.
    pub images: usize,
    /// Which image each proof is for.
    pub image_of: &'a [usize],
    /// How many requests the manifest of each proof has.
    pub requests: &'a [usize],
    /// Bytes of each record.
    pub records: &'a [u64],
    /// The record that is for this time.
    pub current: usize,
}

/// The endpoint that can only be passed on.
const ENDOW_ONLY: u16 = 25;
/// Where recipes put their things: image, proof, endpoints, process, mapping, record.
const IMAGE: u16 = 41;
const PROOF: u16 = 42;
const LINK: u16 = 43;
const BADGED: u16 = 44;
const MADE: u16 = 45;
const MAPPING: u16 = 46;
const RECORD: u16 = 47;
const WEAK: u16 = 48;
const CACHED: u16 = 49;
/// Where images are mapped.
const PLACE: u64 = 0x0000_3000_0000_0000;
/// The badge that modules of the fuzzer ask for.
pub const BADGE: u64 = 5;

/// A recipe for a manager among so many workers.
pub fn recipe(r: &mut Random, workers: usize, stock: &Stock<'_>) -> Vec<Step> {
    let first = r.below(workers as u64) as usize;
    let [a, b] = [0, 1].map(|i| (first + i) % workers.max(1));
    let mut s = Script(Vec::new());
    match r.below(12) {
        0..7 => load(r, &mut s, stock, a),
        7..9 => install(r, &mut s, stock, a),
        9..11 => steal(r, &mut s, stock, a, b),
        _ => borrow(r, &mut s, stock, a, b),
    }
    s.0
}

fn flaw(r: &mut Random) -> Flaw {
    match r.below(12) {
        0 | 1 => Flaw::Bits(r.draw()),
        2 => Flaw::Cut(r.below(256) as u8),
        3 => Flaw::Head(r.draw()),
        _ => Flaw::None,
    }
}

/// An image and a proof, mostly of one module, and how many requests that has.
fn pieces(r: &mut Random, stock: &Stock<'_>) -> ([Gift; 2], usize) {
    let proof = r.below(stock.image_of.len() as u64) as usize;
    let requests = stock.requests.get(proof).copied().unwrap_or(1);
    let image = stock.image_of.get(proof).copied().filter(|_| !r.once_in(8));
    let image = image.unwrap_or_else(|| r.below(stock.images as u64) as usize);
    let (spoil_image, spoil_proof) = (r.once_in(3), r.once_in(3));
    let flaw = |r: &mut Random, spoil| if spoil { flaw(r) } else { Flaw::None };
    let image = Made { kind: Kind::Image, at: image, flaw: flaw(r, spoil_image), frozen: !r.once_in(6) };
    let proof = Made { kind: Kind::Proof, at: proof, flaw: flaw(r, spoil_proof), frozen: !r.once_in(8) };
    ([Gift::Made(image), Gift::Made(proof)], requests)
}

/// A process from an image and a proof, with grants, and what can be done to it and them afterwards.
fn load(r: &mut Random, s: &mut Script, stock: &Stock<'_>, a: usize) {
    s.clear(a, IMAGE..CACHED + 1);
    let (pieces, requests) = pieces(r, stock);
    s.take(a, IMAGE, &pieces);
    s.op(a, SANDBOX, Op::EndpointCreate, &[r.below(4), r.below(100), LINK.into()]);
    let all = Rights::SEND | Rights::GRANT | Rights::COPY;
    let badge = if r.once_in(3) { r.below(9) } else { BADGE };
    s.op(a, LINK, Op::CapMint, &[BADGED.into(), all.bits().into(), badge]);
    s.op(a, LINK, Op::CapCopy, &[WEAK.into(), (Rights::SEND | Rights::COPY).bits().into()]);
    if r.once_in(4) {
        write(r, s, a);
    }
    if r.once_in(2) {
        insert(r, s, a);
    }
    create(r, s, a, requests);
    for _ in 0..r.below(5) {
        afterwards(r, s, a);
    }
    if r.once_in(3) {
        // The same parts once more.
        s.op(a, MADE, Op::CapDelete, &[]);
        create(r, s, a, requests);
    }
}

/// The parts go to the module cache, and perhaps out of it again.
fn insert(r: &mut Random, s: &mut Script, a: usize) {
    s.op(a, CACHE, Op::ModuleCacheInsert, &[IMAGE.into(), PROOF.into(), CACHED.into()]);
    match r.below(8) {
        0 => s.op(a, CACHED, Op::CachedImageEvict, &[]),
        1 => s.op(a, CACHED, Op::CachedImageStatus, &[]),
        2 => s.op(a, CACHE, Op::ModuleCacheNext, &[r.below(4)]),
        3 => s.op(a, IMAGE, Op::CapDelete, &[]),
        4 => s.op(a, IMAGE, Op::ChargeTransfer, &[SANDBOX.into()]),
        5 => s.op(a, CACHE, Op::ModuleCacheInsert, &[IMAGE.into(), PROOF.into(), MAPPING.into()]),
        _ => {}
    }
}

/// Writes the image through a mapping, and freezes it then or does not.
fn write(r: &mut Random, s: &mut Script, a: usize) {
    let page = r.below(2);
    s.op(a, IMAGE, Op::RegionMap, &[OWN_PROCESS.0.into(), PLACE, page, 1, 1, MAPPING.into()]);
    if r.once_in(3) {
        let mut poke = Order::call(Tag::new(Call::Yield, 0, 0, 0), PLACE + r.below(4096), [0; 6]);
        poke.act = Act::Write;
        s.push(a, poke);
    }
    s.op(a, IMAGE, Op::RegionSeal, &[]);
    if !r.once_in(4) {
        let end = if r.once_in(2) { Op::MappingUnmap } else { Op::MappingProtect };
        s.op(a, MAPPING, end, &[]);
        s.op(a, IMAGE, Op::RegionSeal, &[]);
    }
}

/// ProcessCreate: with the grants that most of the modules ask for, or with others.
fn create(r: &mut Random, s: &mut Script, a: usize, requests: usize) {
    let fitting = [(1, BADGED), (2, CLOCK.0), (3, IMAGE), (4, KEY_RING)];
    let sources = [LINK, BADGED, WEAK, CLOCK.0, IMAGE, KEY_RING, POLICY, ENDOW_ONLY, HUB.0, MADE, 63];
    let right = !r.once_in(4);
    let most = fitting.len().min(requests.saturating_sub(1)) as u64;
    let less = if r.once_in(4) { r.below(3) } else { 0 };
    let count = if right { most.saturating_sub(less) } else { r.below(TAIL as u64) };
    let mut tail = [0; TAIL];
    for (at, word) in tail.iter_mut().enumerate().take(count as usize) {
        let (request, source) = fitting
            .get(at)
            .copied()
            .filter(|_| right)
            .unwrap_or_else(|| (r.below(7) as u16, r.pick(&sources).copied().unwrap_or(0)));
        let source = if r.once_in(8) { r.pick(&sources).copied().unwrap_or(source) } else { source };
        *word = u64::from(request) << 16 | u64::from(source);
    }
    let pool = if r.once_in(8) { OWN_POOL.0 } else { SANDBOX };
    let priority = if r.once_in(10) { r.below(256) } else { 1 + r.below(90) };
    let (op, words) = if r.once_in(2) {
        let words = [IMAGE.into(), PROOF.into(), pool.into(), priority, count, MADE.into()];
        (Op::ProcessCreate, words)
    } else {
        (Op::ProcessCreateCached, [CACHED.into(), pool.into(), priority, count, MADE.into(), 0])
    };
    let mut order = Order::invoke(JOB.into(), op, words);
    order.registers[0] = Tag::new(Call::Invoke, 6 + count as u8, 0, op as u32).0;
    order.tail = tail;
    s.push(a, order);
}

fn afterwards(r: &mut Random, s: &mut Script, a: usize) {
    match r.below(9) {
        0 => s.op(a, MADE, Op::ProcessStart, &[]),
        1 => s.op(a, MADE, Op::ProcessTerminate, &[3]),
        2 => s.op(a, LINK, Op::EndpointBind, &[MADE.into()]),
        3 => s.op(a, IMAGE, Op::RegionMap, &[OWN_PROCESS.0.into(), PLACE, 0, 1, 1, MAPPING.into()]),
        4 => s.op(a, IMAGE, Op::RegionMap, &[MADE.into(), PLACE, 0, 1, r.below(2), MAPPING.into()]),
        5 => s.op(a, MADE, Op::ThreadCreate, &[PLACE, PLACE, 0, 1, 0, MAPPING.into()]),
        6 => s.op(a, IMAGE, Op::CapRevoke, &[]),
        7 => s.give(a, MADE),
        _ => s.op(a, MADE, Op::ProcessStatus, &[]),
    }
}

/// A record for the KeyRing, or for the policy.
fn install(r: &mut Random, s: &mut Script, stock: &Stock<'_>, a: usize) {
    s.clear(a, RECORD..RECORD + 1);
    let others = r.below(stock.records.len() as u64) as usize;
    let at = if r.once_in(2) { others } else { stock.current };
    let made = Made { kind: Kind::Record, at, flaw: flaw(r), frozen: r.once_in(2) };
    s.take(a, RECORD, &[Gift::Made(made)]);
    let length = stock.records.get(at).copied().unwrap_or(0);
    let length = if r.once_in(10) { length ^ 1 << r.below(16) } else { length };
    let (slot, op) = if r.once_in(8) { (POLICY, Op::PolicyInstall) } else { (KEY_RING, Op::KeyRingInstall) };
    s.op(a, slot, op, &[RECORD.into(), length]);
    s.op(a, KEY_RING, Op::KeyRingState, &[]);
    s.op(a, KEY_RING, Op::KeyRingFloor, &[r.below(4)]);
}

/// The receiving side of a labelled endpoint, for somebody else: while its receiver lives, and after its end.
fn steal(r: &mut Random, s: &mut Script, stock: &Stock<'_>, a: usize, b: usize) {
    if !r.once_in(3) {
        // Somebody to receive in its place.
        s.clear(b, IMAGE..WEAK + 1);
        let (pieces, requests) = pieces(r, stock);
        s.take(b, IMAGE, &pieces);
        s.op(b, SANDBOX, Op::EndpointCreate, &[0, 0, LINK.into()]);
        s.op(
            b,
            LINK,
            Op::CapMint,
            &[BADGED.into(), (Rights::SEND | Rights::GRANT | Rights::COPY).bits().into(), BADGE],
        );
        create(r, s, b, requests);
    }
    s.clear(a, LINK..LINK + 1);
    s.clear(b, LINK..LINK + 1);
    let flags = if r.once_in(4) { r.below(4) } else { 1 | 2 };
    s.op(a, SANDBOX, Op::EndpointCreate, &[flags, 0, LINK.into()]);
    s.give(a, LINK);
    s.take(b, LINK, &[Gift::Given]);
    s.message(b, Call::Recv, LINK, &[], Receive::default(), NO_WAIT);
    s.op(b, LINK, Op::EndpointBind, &[MADE.into()]);
    if r.once_in(2) {
        s.end(a);
    }
    s.op(b, LINK, Op::EndpointBind, &[MADE.into()]);
    s.op(b, LINK, Op::EndpointBind, &[OWN_PROCESS.0.into()]);
    s.message(b, Call::Recv, LINK, &[], Receive::default(), NO_WAIT);
    s.op(b, LINK, Op::EndpointLabel, &[]);
    s.message(b, Call::Send, ENDOW_ONLY, &[], Receive::default(), NO_WAIT);
}

/// An image that another process, as DeepCompression, keeps a hold of while it is frozen and run.
fn borrow(r: &mut Random, s: &mut Script, stock: &Stock<'_>, a: usize, b: usize) {
    s.clear(a, IMAGE..RECORD + 1);
    s.clear(b, IMAGE..IMAGE + 1);
    s.clear(b, MAPPING..MAPPING + 1);
    let ([image, proof], requests) = pieces(r, stock);
    let open = |gift| match gift {
        Gift::Made(made) => Gift::Made(Made { frozen: false, ..made }),
        other => other,
    };
    s.take(a, IMAGE, &[open(image), proof]);
    s.give(a, IMAGE);
    s.take(b, IMAGE, &[Gift::Given]);
    s.op(b, IMAGE, Op::RegionMap, &[OWN_PROCESS.0.into(), PLACE, 0, 1, 1, MAPPING.into()]);
    s.op(a, IMAGE, Op::RegionSeal, &[]);
    if r.once_in(2) {
        s.op(b, MAPPING, Op::MappingProtect, &[]);
    } else {
        s.op(a, IMAGE, Op::CapRevoke, &[]);
    }
    s.op(a, IMAGE, Op::RegionSeal, &[]);
    create(r, s, a, requests);
    s.op(b, IMAGE, Op::RegionMap, &[OWN_PROCESS.0.into(), PLACE + 0x10_0000, 0, 1, 1, MAPPING.into()]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn stock<'a>() -> Stock<'a> {
        Stock {
            images: 2,
            image_of: &[0, 1, 0],
            requests: &[5, 1, 2],
            records: &[100, 200, 300, 400],
            current: 2,
        }
    }

    #[test]
    fn recipes_stay_among_their_workers_and_slots() {
        let mut r = Random::new(4);
        for workers in 1..6 {
            for _ in 0..300 {
                let steps = recipe(&mut r, workers, &stock());
                assert!(!steps.is_empty());
                assert!(steps.iter().all(|step| step.worker < workers && step.gifts.len() <= 4));
            }
        }
    }

    #[test]
    fn right_and_wrong_parts_and_records_come_up() {
        let mut r = Random::new(1);
        let steps: Vec<Step> = (0..2000).flat_map(|_| recipe(&mut r, 4, &stock())).collect();
        let made: Vec<Made> = steps
            .iter()
            .flat_map(|step| step.gifts.iter())
            .filter_map(|gift| if let Gift::Made(made) = gift { Some(*made) } else { None })
            .collect();
        for kind in [Kind::Image, Kind::Proof, Kind::Record] {
            let of = |made: &&Made| made.kind == kind;
            assert!(made.iter().filter(of).any(|made| made.flaw == Flaw::None && made.frozen));
            assert!(made.iter().filter(of).any(|made| matches!(made.flaw, Flaw::Bits(_))));
            assert!(made.iter().filter(of).any(|made| matches!(made.flaw, Flaw::Head(_))));
            assert!(made.iter().filter(of).any(|made| matches!(made.flaw, Flaw::Cut(_))));
            assert!(made.iter().filter(of).any(|made| !made.frozen));
        }
        let ops: BTreeSet<u32> = steps.iter().map(|step| step.order.tag().label()).collect();
        for op in [
            Op::ProcessCreate,
            Op::ProcessCreateCached,
            Op::ModuleCacheInsert,
            Op::ProcessStart,
            Op::KeyRingInstall,
            Op::PolicyInstall,
            Op::RegionMap,
            Op::RegionSeal,
            Op::EndpointBind,
            Op::CapMint,
            Op::CapRevoke,
            Op::CapDelete,
        ] {
            assert!(ops.contains(&(op as u32)), "{op:?}");
        }
    }
}
