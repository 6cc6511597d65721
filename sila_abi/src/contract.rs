//! The contract of a module: predicates over named facts, inside its signed manifest (the book, Formats).
//!
//! The nodes form a graph in evaluation order: a node refers only to nodes before it, so that the graph has no
//! cycle and one pass of at most 64 steps evaluates it. A fact is a named 64-bit value that the evaluator
//! supplies; one that it does not know makes the evaluation fail, which denies.

use crate::record::{Bounded, Name};
use borsh::{BorshDeserialize, BorshSerialize};

/// The most nodes of a contract, over all its predicates.
pub const MAX_NODES: usize = 64;
/// The most predicates of a contract.
pub const MAX_PREDICATES: usize = 16;
/// The most init-failure codes of a contract.
pub const MAX_INIT_FAILURE_CODES: usize = 32;

/// A step of a predicate. Indices name earlier nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
pub enum Node {
    /// A number.
    Const(u64) = 1,
    /// The number that the evaluator knows by this name.
    Fact(Name) = 2,
    /// Both truth values hold.
    And(u8, u8) = 3,
    /// At least one truth value holds.
    Or(u8, u8) = 4,
    /// The truth value does not hold.
    Not(u8) = 5,
    /// The numbers are equal.
    Eq(u8, u8) = 6,
    /// The first number is less than the second.
    Lt(u8, u8) = 7,
    /// The first number is at most the second.
    Le(u8, u8) = 8,
}

/// The operation whose predicate it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
pub enum Operation {
    /// Creating a process from the module's image.
    Create = 1,
    /// Entering the image into the module cache.
    Cache = 2,
    /// The whole of `LoadModule`, evaluated by ModuleManager.
    Load = 3,
}

/// Whether a predicate must hold before or after its operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
pub enum When {
    /// A precondition.
    Before = 1,
    /// A postcondition.
    After = 2,
}

/// A named condition of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Predicate {
    /// The name that errors and audit records show; unique in the contract.
    pub name: Name,
    /// The operation it belongs to.
    pub operation: Operation,
    /// Before or after the operation.
    pub when: When,
    /// Index of the node whose truth value it is.
    pub root: u8,
}

/// What a module promises and demands.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Contract {
    /// Address of the module's own fault handler, if it has one; must lie in code.
    pub fault_entry: Option<u64>,
    /// The codes with which its initialisation may report failure; without duplicates.
    pub init_failure_codes: Bounded<u32, MAX_INIT_FAILURE_CODES>,
    /// The graph.
    pub nodes: Bounded<Node, MAX_NODES>,
    /// The conditions.
    pub predicates: Bounded<Predicate, MAX_PREDICATES>,
}

/// Why a contract is ill-formed or cannot be evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContractError {
    /// A node refers to itself or to a later one.
    ForwardReference,
    /// A truth value stands where a number is needed, or the other way round.
    TypeMismatch,
    /// A predicate's root is no node, or is a number.
    BadRoot,
    /// Two predicates have one name.
    DuplicatePredicate,
    /// An init-failure code stands twice, or is 0 (which means success).
    BadFailureCode,
    /// The evaluator does not know a fact.
    UnknownFact,
}

impl ContractError {
    /// Every rule, in order of number.
    pub const ALL: &'static [Self] = &[
        Self::ForwardReference,
        Self::TypeMismatch,
        Self::BadRoot,
        Self::DuplicatePredicate,
        Self::BadFailureCode,
        Self::UnknownFact,
    ];
}

impl core::fmt::Display for ContractError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::ForwardReference => "a node refers to itself or to a later node",
            Self::TypeMismatch => "a truth value and a number were mixed up",
            Self::BadRoot => "a predicate's root is no truth value",
            Self::DuplicatePredicate => "two predicates have one name",
            Self::BadFailureCode => "an init-failure code is zero or stands twice",
            Self::UnknownFact => "a fact is not known to the evaluator",
        })
    }
}

impl core::error::Error for ContractError {}

/// The value of a node: a number or a truth value; `None` inside where it rests on a fact that nobody knows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Value {
    Number(Option<u64>),
    Truth(Option<bool>),
}

impl Value {
    fn number(self) -> Result<Option<u64>, ContractError> {
        if let Self::Number(n) = self { Ok(n) } else { Err(ContractError::TypeMismatch) }
    }

    fn truth(self) -> Result<Option<bool>, ContractError> {
        if let Self::Truth(t) = self { Ok(t) } else { Err(ContractError::TypeMismatch) }
    }
}

/// What every node of a contract comes to, with the facts of one moment.
pub struct Values([Option<Value>; MAX_NODES]);

impl Values {
    /// Whether a predicate holds. One that rests on an unknown fact does not.
    pub fn hold(&self, predicate: &Predicate) -> bool {
        let value = self.0.get(usize::from(predicate.root)).copied().flatten();
        value == Some(Value::Truth(Some(true)))
    }
}

impl Contract {
    /// Checks the graph's order and types, the predicates and the failure codes.
    pub fn validate(&self) -> Result<(), ContractError> {
        let types = self.run(self.nodes.len(), &|_, _| Some(0))?;
        for (index, predicate) in self.predicates.iter().enumerate() {
            if !matches!(types.get(usize::from(predicate.root)), Some(Some(Value::Truth(_)))) {
                return Err(ContractError::BadRoot);
            }
            if self.predicates.iter().take(index).any(|other| other.name == predicate.name) {
                return Err(ContractError::DuplicatePredicate);
            }
        }
        for (index, code) in self.init_failure_codes.iter().enumerate() {
            if *code == 0 || self.init_failure_codes.iter().take(index).any(|other| other == code) {
                return Err(ContractError::BadFailureCode);
            }
        }
        Ok(())
    }

    /// The value of `predicate`, with `fact` giving the named numbers. At most 64 steps.
    pub fn evaluate(
        &self,
        predicate: &Predicate,
        fact: &dyn Fn(&Name) -> Option<u64>,
    ) -> Result<bool, ContractError> {
        let root = usize::from(predicate.root);
        let values = self.run(root.saturating_add(1), &|_, name| fact(name))?;
        let truth = values.get(root).copied().flatten().ok_or(ContractError::BadRoot)?.truth()?;
        truth.ok_or(ContractError::UnknownFact)
    }

    /// The values of all nodes in one pass of at most 64 steps. `fact` gives the number for a node, by its index, and
    /// for the name that stands there.
    pub fn values(&self, fact: &dyn Fn(usize, &Name) -> Option<u64>) -> Result<Values, ContractError> {
        self.run(self.nodes.len(), fact).map(Values)
    }

    /// For each node that is a fact, what `number` says of its name; 255 for every other node and unknown names.
    pub fn resolve(&self, number: impl Fn(&Name) -> Option<u8>) -> [u8; MAX_NODES] {
        let mut resolved = [u8::MAX; MAX_NODES];
        for (place, node) in resolved.iter_mut().zip(&self.nodes) {
            if let Node::Fact(name) = node {
                *place = number(name).unwrap_or(u8::MAX);
            }
        }
        resolved
    }

    /// The predicates of one operation at one time, in their order.
    pub fn predicates_of(&self, operation: Operation, when: When) -> impl Iterator<Item = &Predicate> {
        self.predicates.iter().filter(move |p| p.operation == operation && p.when == when)
    }

    fn run(
        &self,
        count: usize,
        fact: &dyn Fn(usize, &Name) -> Option<u64>,
    ) -> Result<[Option<Value>; MAX_NODES], ContractError> {
        let mut values = [None; MAX_NODES];
        for (index, node) in self.nodes.iter().enumerate().take(count) {
            let value = node.value(&values, &|name| fact(index, name))?;
            *values.get_mut(index).ok_or(ContractError::BadRoot)? = Some(value);
        }
        Ok(values)
    }
}

impl Node {
    fn value(
        &self,
        values: &[Option<Value>],
        fact: &dyn Fn(&Name) -> Option<u64>,
    ) -> Result<Value, ContractError> {
        // Later nodes have no value yet, so a missing one is a reference that is not backward.
        let at = |i: u8| values.get(usize::from(i)).copied().flatten().ok_or(ContractError::ForwardReference);
        let both = |a: u8, b: u8| Ok((at(a)?.truth()?, at(b)?.truth()?));
        let numbers = |a: u8, b: u8| Ok((at(a)?.number()?, at(b)?.number()?));
        let compare = |(a, b): (Option<u64>, Option<u64>), holds: fn(&u64, &u64) -> bool| {
            Value::Truth(a.zip(b).map(|(a, b)| holds(&a, &b)))
        };
        let join = |(a, b): (Option<bool>, Option<bool>), holds: fn(bool, bool) -> bool| {
            Value::Truth(a.zip(b).map(|(a, b)| holds(a, b)))
        };
        Ok(match *self {
            Self::Const(n) => Value::Number(Some(n)),
            Self::Fact(name) => Value::Number(fact(&name)),
            Self::And(a, b) => join(both(a, b)?, |a, b| a & b),
            Self::Or(a, b) => join(both(a, b)?, |a, b| a | b),
            Self::Not(a) => Value::Truth(at(a)?.truth()?.map(|t| !t)),
            Self::Eq(a, b) => compare(numbers(a, b)?, u64::eq),
            Self::Lt(a, b) => compare(numbers(a, b)?, u64::lt),
            Self::Le(a, b) => compare(numbers(a, b)?, u64::le),
        })
    }
}
