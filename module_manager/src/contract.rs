//! The contract of `LoadModule` (specification, section 6.1): what must hold of a process before it runs, on facts that the
//! kernel's live record gives; and the module's own predicates for loading.
//!
//! The general evaluator: facts are found by name. One that is not known here denies.

use crate::facts::{Facts, Source, sources};
use alloc::vec::Vec;
use sila_abi::contract::{Contract, Operation, When};
use sila_abi::facts::{LOAD, MODULE_PREDICATE};
use sila_abi::manifest::{Manifest, Selector};
use sila_abi::protocol::module_manager::{Failure, Load, LoadError};
use sila_abi::record::Name;
use sila_abi::status::IdentityRecord;
use sila_crypto::Verified;

/// A contract and the requests that its facts speak of, as they stand in a verified manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The contract.
    pub contract: Contract,
    /// Requests, a bit each: all of them.
    pub asked: u64,
    /// Those that are mandatory.
    pub mandatory: u64,
    /// Those whose objects come with the process itself.
    pub own: u64,
    /// The security version.
    pub security_version: u32,
    /// Threads that it may have.
    pub max_threads: u16,
}

impl Terms {
    /// The terms of a verified manifest.
    pub(crate) fn of(manifest: &Verified<Manifest>) -> Self {
        let bits = |wanted: &dyn Fn(&sila_abi::manifest::CapRequest) -> bool| {
            let chosen = manifest.requests.iter().enumerate().filter(|(_, request)| wanted(request));
            chosen.fold(0, |mask, (index, _)| mask | bit(index))
        };
        Self {
            contract: manifest.contract.clone(),
            asked: bits(&|_| true),
            mandatory: bits(&|request| request.mandatory),
            own: bits(&|request| !matches!(request.selector, Selector::Grant(_))),
            security_version: manifest.security_version,
            max_threads: manifest.resources.threads,
        }
    }
}

/// The bit of a request.
fn bit(index: usize) -> u64 {
    u32::try_from(index).ok().and_then(|index| 1u64.checked_shl(index)).unwrap_or(0)
}

/// What was found out about a new process.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// Its live record.
    pub identity: &'a IdentityRecord,
    /// The number that the creation gave.
    pub process: u64,
}

/// A process that was made and not started, as `ProcessStatus` numbers it.
const CREATED: u64 = 1;

/// Looks at a process that was made and not started.
///
/// # Errors
/// [`LoadError::ContractViolated`], with the predicate's number.
pub fn after_creation(facts: &Facts, target: &Load, observed: &Observed<'_>) -> Result<(), Failure> {
    let found = observed.identity;
    let version = word(facts);
    let asked_version = target.version.is_none_or(|wanted| wanted == facts.version);
    let asked_digest = target.digest.is_none_or(|wanted| wanted == facts.digest);
    let granted = sources(&facts.requests, &target.grants);
    let granted =
        granted.iter().fold(facts.terms.own, |mask, (index, _): &(u16, Source)| mask | bit((*index).into()));
    let holds: [bool; LOAD.len()] = [
        found.state == CREATED && found.id == observed.process && found.threads == 1,
        is(&found.name, found.name_len, &target.name)
            && facts.name == target.name
            && is(&found.publisher, found.publisher_len, &facts.publisher)
            && found.version == version
            && asked_version
            && asked_digest,
        found.endowed & !granted == 0
            && found.endowed & facts.terms.mandatory == facts.terms.mandatory
            && found.capabilities == u64::from(found.endowed.count_ones()),
        found.manifest_digest == facts.digest && found.key_id == facts.key_id,
    ];
    if let Some(at) = holds.iter().position(|holds| !holds) {
        return Err(violated(at as u64 + 1));
    }
    evaluate(&facts.terms.contract, When::After, &|name| fact(facts, Some(found), name))
}

/// Looks at a package that was verified, before anything is made of it.
///
/// # Errors
/// [`LoadError::ContractViolated`], with the predicate's number.
pub fn before_loading(facts: &Facts) -> Result<(), Failure> {
    evaluate(&facts.terms.contract, When::Before, &|name| fact(facts, None, name))
}

fn evaluate(contract: &Contract, when: When, fact: &dyn Fn(&Name) -> Option<u64>) -> Result<(), Failure> {
    let mine: Vec<_> = contract.predicates.iter().enumerate().collect();
    for (at, predicate) in mine {
        let concerns = predicate.operation == Operation::Load && predicate.when == when;
        if concerns && contract.evaluate(predicate, fact) != Ok(true) {
            return Err(violated(MODULE_PREDICATE + at as u64));
        }
    }
    Ok(())
}

fn violated(number: u64) -> Failure {
    Failure::with(LoadError::ContractViolated, number, 0)
}

fn word(facts: &Facts) -> u64 {
    let v = facts.version;
    u64::from(v.major) << 32 | u64::from(v.minor) << 16 | u64::from(v.patch)
}

/// Whether a record's padded name is this one.
fn is(padded: &[u8; 64], length: u64, name: &Name) -> bool {
    padded == name.padded() && length == name.as_bytes().len() as u64
}

/// The facts that predicates for loading can speak of. Those of the process are known only after it was made.
fn fact(facts: &Facts, process: Option<&IdentityRecord>, name: &Name) -> Option<u64> {
    Some(match name.as_str() {
        "version" => word(facts),
        "security-version" => facts.terms.security_version.into(),
        "image-bytes" => facts.image_len,
        "payload-bytes" => facts.payload_len,
        "requests" => facts.terms.asked.count_ones().into(),
        "requests-mandatory" => facts.terms.mandatory.count_ones().into(),
        "max-priority" => facts.max_priority.into(),
        "max-threads" => facts.terms.max_threads.into(),
        "dependencies" => facts.dependencies.len() as u64,
        "process-state" => process?.state,
        "requests-granted" => process?.endowed.count_ones().into(),
        "capabilities" => process?.capabilities,
        "threads" => process?.threads,
        _ => return None,
    })
}

#[cfg(test)]
#[path = "contract_tests.rs"]
mod tests;
