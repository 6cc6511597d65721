//! The contracts of process creation: each predicate is made false by one small fault, and the creation fails by its name
//! and changes nothing.

use core::cell::RefCell;
use std::vec;

use sila_abi::contract::{Contract, Node, Operation, Predicate, When};
use sila_abi::facts::{CREATE, KernelFact, MODULE_PREDICATE, violated};
use sila_abi::protocol::layout::STACK_TOP;

use super::signed::{OWNER, bounded, module, name, signer};
use super::trust::Trust;
use super::*;
use crate::contract::{Facts, Own};
use crate::create::LoadRequest;
use crate::embryo::Embryo;
use crate::endow::Plan;
use crate::machine::Machine;
use crate::paging;

/// When a fault strikes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moment {
    /// Before anything is evaluated.
    Asked,
    /// Address space and thread are there, and were not read back yet.
    Built,
    /// The CSpace is filled, and was not read back yet.
    Endowed,
}

/// One thing that goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The image's Region is not sealed any more.
    Unsealed,
    /// The creator's capability to the proof is gone.
    ProofGone,
    /// The Region has another length than what was hashed.
    Longer,
    /// A mandatory request is left out of the plan.
    Withheld,
    /// The record says another version.
    Identity,
    /// Another process shares the root of the page tables.
    SharedSpace,
    /// A bit of the entry of this page is flipped.
    Bit(u64, u32),
    /// A page more than the image has.
    ExtraPage,
    /// The root for ring 3 shows more than the one for ring 0.
    Roots,
    /// A capability that no request asked for.
    ExtraCapability,
    /// A right more.
    MoreRights,
    /// It says that it came by another request.
    Origin,
    /// The thread would begin elsewhere.
    Entry,
    /// The thread has another stack.
    Stack,
    /// The thread runs already.
    Runs,
    /// The creator has a capability to it before anybody gave it one.
    Leaked,
}

impl Fault {
    fn moment(self) -> Moment {
        match self {
            Self::Unsealed | Self::ProofGone | Self::Longer | Self::Withheld => Moment::Asked,
            Self::Bit(..) | Self::ExtraPage | Self::Roots => Moment::Built,
            _ => Moment::Endowed,
        }
    }
}

/// What a test breaks, and what the contracts found.
#[derive(Default)]
pub struct Sabotage {
    fault: Option<Fault>,
    found: RefCell<Vec<u64>>,
    facts: RefCell<Option<Facts>>,
    /// Where a leaked capability went.
    leak: Option<ProcessId>,
}

impl Sabotage {
    pub fn note(&self, contract: &Own, when: When, facts: &Facts) {
        self.found.borrow_mut().extend(contract.violated(when, facts));
        *self.facts.borrow_mut() = Some(*facts);
    }
}

const LEAKED: Slot = Slot(59);

impl Kernel {
    /// Faults of the request.
    pub(crate) fn spoil(
        &mut self,
        m: &mut impl Machine,
        load: &LoadRequest,
        embryo: &Embryo,
        plan: Plan,
    ) -> Plan {
        let Some(fault) = self.sabotage.fault.filter(|f| f.moment() == Moment::Asked) else { return plan };
        let caller = self.sabotage.leak.unwrap();
        match fault {
            Fault::Unsealed => {
                self.regions.get_mut(load.image).unwrap().sealed = sila_crypto::SecureBool::DENY
            }
            Fault::Longer => self.regions.get_mut(load.image).unwrap().pages += 1,
            Fault::ProofGone => {
                let found = self.find(caller, load.held[2].slot).unwrap();
                self.delete(m, found.id);
            }
            _ => return plan.without(Slot(8)),
        }
        let _ = embryo;
        plan
    }

    /// Faults of what was made; false, so that the walk goes on.
    pub(crate) fn strike(&mut self, m: &mut impl Machine, id: ProcessId, now: Moment) -> bool {
        let Some(fault) = self.sabotage.fault.filter(|f| f.moment() == now) else { return false };
        self.sabotage.fault = None;
        let p = self.processes.get(id).unwrap();
        let (roots, thread) = (p.roots.unwrap(), p.initial.unwrap());
        let at = |slot: u16| crate::cap::CapId::in_cspace(id.index(), slot.into());
        match fault {
            Fault::Bit(address, bit) => {
                let table = paging::only_table(m, roots.user, paging::UserRange::new(address, 1).unwrap());
                m.frame(table.unwrap())[(address >> 12 & 511) as usize] ^= 1 << bit;
            }
            Fault::ExtraPage => {
                // Beside the code, in the same table.
                let table = paging::only_table(m, roots.user, paging::UserRange::new(0x40_0000, 1).unwrap());
                let table = m.frame(table.unwrap());
                table[100] = table[0];
            }
            Fault::Roots => m.frame(roots.user)[200] = 7,
            Fault::Identity => self.processes.get_mut(id).unwrap().identity.version.patch += 1,
            Fault::SharedSpace => {
                let caller = self.sabotage.leak.unwrap();
                self.processes.get_mut(caller).unwrap().roots = Some(roots);
            }
            Fault::ExtraCapability => {
                let object = reference(ObjectType::Process, self.sabotage.leak.unwrap());
                self.install(at(40), Cap { object, rights: Rights::READ, badge: 0, origin: Origin::NONE });
            }
            Fault::MoreRights => self.caps.change(at(8), |cap| cap.rights |= Rights::RECV),
            Fault::Origin => self.caps.change(at(8), |cap| cap.origin.request += 1),
            Fault::Entry => self.threads.get_mut(thread).unwrap().context.registers.rip += 1,
            Fault::Stack => self.threads.get_mut(thread).unwrap().context.registers.rsp -= 8,
            Fault::Runs => self.make_ready(thread),
            _ => {
                let slot = self.free_slot(self.sabotage.leak.unwrap(), LEAKED).unwrap();
                let object = reference(ObjectType::Process, id);
                self.install(slot, Cap { object, rights: Rights::READ, badge: 0, origin: Origin::NONE });
            }
        }
        false
    }
}

/// A creation with one fault in it; what came of it, and every predicate that did not hold.
fn attempt(fault: Fault) -> (Trust, (Error, Vec<u64>), Vec<u64>) {
    let mut t = Trust::new();
    t.w.m.kpti = fault == Fault::Roots;
    // A fault that damages what the invariants are about is undone below.
    t.w.checks = false;
    let good = module(&signer(OWNER), |_| {});
    t.load(&good).unwrap();
    let before = t.w.baseline();
    let own = t.w.k.processes.get(t.a.process).unwrap().roots;
    t.w.k.sabotage = Sabotage { fault: Some(fault), leak: Some(t.a.process), ..Sabotage::default() };
    let refused = t.begin_and_finish(&good, |w, image| match fault {
        Fault::Unsealed => w.k.regions.get_mut(image).unwrap().sealed = sila_crypto::SecureBool::ALLOW,
        Fault::Longer => w.k.regions.get_mut(image).unwrap().pages -= 1,
        _ => {}
    });
    t.w.k.processes.get_mut(t.a.process).unwrap().roots = own;
    if fault == Fault::Leaked {
        t.w.invoke(t.a, LEAKED, Op::CapDelete, &[]).unwrap();
    }
    t.w.settle();
    assert_eq!(t.w.baseline(), before, "{fault:?} leaves something behind");
    t.w.checks = true;
    t.w.sound();
    let found = t.w.k.sabotage.found.borrow().clone();
    t.w.k.sabotage = Sabotage::default();
    t.load(&good).unwrap();
    (t, refused.unwrap_err(), found)
}

#[track_caller]
fn violates(fault: Fault, predicate: &str) {
    let number = CREATE.iter().position(|p| p.name == predicate).unwrap() as u64 + 1;
    let (t, refused, found) = attempt(fault);
    assert_eq!(refused, (Error::ContractViolated, vec![number]), "{fault:?}");
    assert_eq!(found, [number], "{fault:?} is to break exactly {predicate}");
    let line = std::format!("contract violated: ProcessCreate: {predicate}");
    assert!(t.w.m.log.contains(&line), "{line} is not in the log");
    assert_eq!(violated(number), Some(predicate));
}

#[test]
fn each_predicate_of_the_kernel_s_contract_fails_by_its_name_and_alone() {
    let (code, constant, data) = (0x40_0000, 0x60_0000, 0x80_0000);
    for (fault, predicate) in [
        (Fault::Unsealed, "image-is-sealed-and-readable"),
        (Fault::ProofGone, "manifest-is-verified"),
        (Fault::Longer, "binary-signature-is-valid"),
        (Fault::Withheld, "requests-are-permitted"),
        (Fault::Identity, "process-exists"),
        (Fault::SharedSpace, "process-exists"),
        (Fault::Bit(code, 1), "mappings-are-the-image"),
        (Fault::Bit(code, 63), "mappings-are-the-image"),
        (Fault::Bit(code, 12), "mappings-are-the-image"),
        (Fault::Bit(constant, 1), "mappings-are-the-image"),
        (Fault::Bit(constant, 63), "mappings-are-the-image"),
        (Fault::Bit(data, 1), "mappings-are-the-image"),
        (Fault::Bit(data, 63), "mappings-are-the-image"),
        (Fault::Bit(STACK_TOP - 4096, 63), "mappings-are-the-image"),
        (Fault::Bit(code, 2), "mappings-are-the-image"),
        (Fault::ExtraPage, "mappings-are-the-image"),
        (Fault::Roots, "mappings-are-the-image"),
        (Fault::MoreRights, "endowment-is-exact"),
        (Fault::Origin, "endowment-is-exact"),
        (Fault::Entry, "first-thread-is-ready"),
        (Fault::Stack, "first-thread-is-ready"),
        (Fault::Runs, "first-thread-is-ready"),
        (Fault::Leaked, "no-capability-leaked"),
    ] {
        violates(fault, predicate);
    }
    let (_, refused, found) = attempt(Fault::ExtraCapability);
    assert_eq!(refused, (Error::ContractViolated, vec![7]), "one capability more");
    assert_eq!(found, [7, 9], "it is no request's, and came from nowhere");
}

/// A contract of one predicate: this fact compared with this number.
fn contract(fact: &str, when: When, compare: fn(u8, u8) -> Node, number: u64) -> Contract {
    let nodes = bounded(vec![Node::Fact(name(fact)), Node::Const(number), compare(0, 1)]);
    let operation = Operation::Create;
    let predicates = bounded(vec![Predicate { name: name("own"), operation, when, root: 2 }]);
    Contract { nodes, predicates, ..Contract::default() }
}

#[test]
fn a_module_s_own_predicates_hold_or_fail_its_creation() {
    let mut t = Trust::new();
    let mut patch = 0;
    let mut with = |t: &mut Trust, contract: Contract| {
        patch += 1;
        let made = module(&signer(OWNER), |m| (m.contract, m.version.patch) = (contract, patch));
        let before = t.w.baseline();
        let done = t.load(&made);
        assert_eq!(t.w.baseline(), before);
        done.map_err(|(error, words)| (error, words[0]))
    };
    let refused = Err((Error::ContractViolated, MODULE_PREDICATE));
    for (fact, when, right) in [
        ("requests", When::Before, 4),
        ("image-pages", When::Before, 4),
        ("capabilities", When::After, 4),
        ("pages-mapped", When::After, 1 + 1 + 3 + 2 + 1),
        ("threads", When::After, 1),
    ] {
        assert_eq!(with(&mut t, contract(fact, when, Node::Eq, right)), Ok(()), "{fact}");
        assert_eq!(with(&mut t, contract(fact, when, Node::Eq, right + 1)), refused, "{fact}");
        assert_eq!(with(&mut t, contract(fact, when, Node::Lt, right)), refused, "{fact}");
    }
    assert_eq!(with(&mut t, contract("no-such-fact", When::Before, Node::Le, u64::MAX)), refused);
    assert!(t.w.m.log.iter().any(|line| line == "contract violated: the module's own: own"));
    // What is ModuleManager's to evaluate is not the kernel's business.
    let mut load = contract("no-such-fact", When::After, Node::Eq, 1);
    let mut predicates = load.predicates.to_vec();
    predicates[0].operation = Operation::Load;
    load.predicates = bounded(predicates);
    assert_eq!(with(&mut t, load), Ok(()));
}

#[test]
fn every_fact_of_a_plain_creation_has_the_value_that_it_must() {
    let mut t = Trust::new();
    t.load(&module(&signer(OWNER), |_| {})).unwrap();
    let facts = t.w.k.sabotage.facts.borrow().unwrap();
    for (fact, value) in [
        (KernelFact::ImageSealed, 1),
        (KernelFact::ImagePages, 4),
        (KernelFact::ImageBytes, 4 * 4096),
        (KernelFact::Requests, 4),
        (KernelFact::RequestsMandatory, 4),
        (KernelFact::PagesExpected, 8),
        (KernelFact::PagesMapped, 8),
        (KernelFact::Capabilities, 4),
        (KernelFact::CapabilitiesMade, 4),
        (KernelFact::CodePages, 1),
        (KernelFact::ConstantPages, 1),
        (KernelFact::DataPages, 3),
        (KernelFact::StackPages, 2),
        (KernelFact::Segments, 3),
        (KernelFact::Priority, 30),
        (KernelFact::MaxPriority, 60),
        (KernelFact::MaxThreads, 2),
        (KernelFact::Frames, 64),
        (KernelFact::Version, 1 << 32),
        (KernelFact::SecurityVersion, 1),
        (KernelFact::Floor, 0),
        (KernelFact::Entry, 0x40_0000),
    ] {
        assert_eq!(facts.get(fact), value, "{}", fact.name());
    }
}
