//! Contracts of process creation: the kernel's own and the module's, evaluated on facts that are read back from the live
//! objects by code that did not make them ([`readback`]).
//!
//! Preconditions and postconditions are looked at in the last step, which is not preemptible: the first before the
//! new process gets its capabilities, the others before anybody can name it. A predicate that does not hold fails the
//! creation by name, and all that was made is taken apart.

use sila_abi::contract::{Contract, MAX_NODES, Operation, When};
use sila_abi::facts::{self, KernelFact, MODULE_PREDICATE};
use sila_abi::{Error, record::Name};

use crate::cache::InsertRequest;
use crate::create::VerifiedLoad;
use crate::kernel::{Fail, Kernel};
use crate::machine::Machine;

pub(crate) mod readback;

/// For each node of a contract, the fact that stands there.
pub type Resolved = [u8; MAX_NODES];

/// The facts of one creation at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts([u64; KernelFact::COUNT]);

impl Facts {
    /// All are zero: what was not read does not hold.
    pub const fn new() -> Self {
        Facts([0; KernelFact::COUNT])
    }

    pub fn set(&mut self, fact: KernelFact, value: u64) {
        if let Some(place) = self.0.get_mut(fact as usize) {
            *place = value;
        }
    }

    #[cfg(test)]
    pub fn get(&self, fact: KernelFact) -> u64 {
        self.0.get(fact as usize).copied().unwrap_or(0)
    }

    /// The first predicate of an operation that does not hold, by its place in the contract.
    fn first_violated(
        &self,
        contract: &Contract,
        resolved: &Resolved,
        operation: Operation,
        when: When,
    ) -> Option<usize> {
        let fact = |node: usize, _: &Name| {
            let number = resolved.get(node).copied()?;
            self.0.get(usize::from(number)).copied()
        };
        let ours = |p: &sila_abi::contract::Predicate| p.operation == operation && p.when == when;
        if !contract.predicates.iter().any(ours) {
            return None;
        }
        let values = contract.values(&fact).ok();
        let holds = |p: &_| values.as_ref().is_some_and(|values| values.hold(p));
        contract.predicates.iter().position(|p| ours(p) && !holds(p))
    }
}

/// The kernel's own contract, ready to be evaluated.
pub(crate) struct Own {
    contract: Contract,
    resolved: Resolved,
}

impl Own {
    /// The numbers of all predicates that do not hold.
    #[cfg(test)]
    pub fn violated(&self, when: When, facts: &Facts) -> std::vec::Vec<u64> {
        let fact = |node: usize, _: &Name| facts.0.get(usize::from(self.resolved[node])).copied();
        let values = self.contract.values(&fact).unwrap();
        let all = (1..).zip(self.contract.predicates.iter());
        all.filter(|(_, p)| p.when == when && !values.hold(p)).map(|(n, _)| n).collect()
    }

    /// Made once, at boot.
    pub fn new() -> Option<Self> {
        let contract = facts::create_contract()?;
        let resolved = contract.resolve(KernelFact::find);
        Some(Own { contract, resolved })
    }
}

fn hold_to_module(
    m: &mut impl Machine,
    module: &Contract,
    resolved: &Resolved,
    operation: Operation,
    when: When,
    facts: &Facts,
) -> Result<(), Fail> {
    let Some(at) = facts.first_violated(module, resolved, operation, when) else { return Ok(()) };
    if let Some(predicate) = module.predicates.get(at) {
        m.log(format_args!("contract violated: the module's own: {}", predicate.name));
    }
    Err(Fail::with(Error::ContractViolated, MODULE_PREDICATE + at as u64))
}

impl Kernel {
    /// Holds a creation to the kernel's contract and to the module's own.
    pub(crate) fn hold_to_contracts(
        &self,
        m: &mut impl Machine,
        module: &Contract,
        resolved: &Resolved,
        when: When,
        facts: &Facts,
    ) -> Result<(), Fail> {
        #[cfg(test)]
        self.sabotage.note(&self.contract, when, facts);
        let own = &self.contract;
        if let Some(at) = facts.first_violated(&own.contract, &own.resolved, Operation::Create, when) {
            let number = at as u64 + 1;
            let name = facts::violated(number).unwrap_or("unknown");
            m.log(format_args!("contract violated: ProcessCreate: {name}"));
            return Err(Fail::with(Error::ContractViolated, number));
        }
        hold_to_module(m, module, resolved, Operation::Create, when, facts)
    }

    /// Holds an image that is to come into the module cache to its own contract. Its facts are the same before and
    /// after: nothing of it changes when it comes in.
    pub(crate) fn hold_to_cache_contract(
        &self,
        m: &mut impl Machine,
        request: &InsertRequest,
        load: &VerifiedLoad,
    ) -> Result<(), Fail> {
        let facts = self.facts_of_image(request, load);
        let contract = &load.manifest.contract;
        hold_to_module(m, contract, &load.resolved, Operation::Cache, When::Before, &facts)?;
        hold_to_module(m, contract, &load.resolved, Operation::Cache, When::After, &facts)
    }
}
