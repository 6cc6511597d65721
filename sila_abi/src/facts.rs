//! What contracts can speak of: the facts that the kernel knows when a process is made, and the kernel's own contract
//! of that operation (the book, Contracts; specification, section 6.2).

extern crate alloc;
use crate::contract::{Contract, Node, Operation, Predicate, When};
use crate::record::{Bounded, Name};
use alloc::vec::Vec;

macro_rules! kernel_facts {
    ($($name:ident = $text:literal, $doc:literal;)*) => {
        /// A fact of a process creation, read from the live objects. Its name is what contracts use.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum KernelFact { $(#[doc = $doc] $name),* }

        impl KernelFact {
            /// Every fact, in order of number.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The name in contracts.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }

            /// What it is.
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$name => $doc),* }
            }
        }
    };
}

kernel_facts! {
    ImageSealed = "image-sealed", "1 if the image's Region is sealed";
    ImageReadable = "image-readable", "1 if the creator's capability to it is there, alive, and can be read";
    ImagePages = "image-pages", "pages of the image's Region";
    ImageBytes = "image-bytes", "bytes of the image by the manifest";
    ProofHeld = "proof-held", "1 if the creator's capability to the load proof is there and alive";
    KeyUsable = "key-usable", "1 if the manifest's key is in the KeyRing and not revoked";
    BinaryVerified = "binary-verified", "1 if what was hashed in the Region is what the signed manifest names";
    Requests = "requests", "capability requests of the manifest";
    RequestsMandatory = "requests-mandatory", "mandatory ones among them";
    MandatoryGranted = "mandatory-granted", "mandatory ones that the plan grants and a rule permits";
    RequestsGranted = "requests-granted", "requests that the plan grants";
    ProcessFound = "process-found", "1 if the process's record is there, belongs to the Job and runs what the manifest names";
    SpaceIsOwn = "space-is-own", "1 if no other process has one of its page tables' roots";
    RootsAgree = "roots-agree", "1 if both roots of its page tables show ring 3 the same";
    PagesExpected = "pages-expected", "pages that image, stack and message page take";
    PagesMapped = "pages-mapped", "pages that its page tables show ring 3, by a walk";
    PagesRight = "pages-right", "expected pages that the tables show with the right frame and permission";
    Capabilities = "capabilities", "capabilities in its CSpace";
    CapabilitiesRight = "capabilities-right", "those that are exactly what a request asks for, in its slot";
    CapabilitiesMade = "capabilities-made", "capabilities in the whole system that came with it";
    ForeignCapabilities = "foreign-capabilities", "capabilities to it, its threads and its own Pool that it does not hold itself";
    Threads = "threads", "its threads";
    ThreadWaits = "thread-waits", "1 if its first thread is there and has not begun";
    ThreadEntry = "thread-entry", "instruction pointer of its first thread";
    ThreadStack = "thread-stack", "stack pointer of its first thread";
    Entry = "entry", "the manifest's entry";
    StackTop = "stack-top", "where first stacks begin";
    CodePages = "code-pages", "pages of executable segments";
    ConstantPages = "constant-pages", "pages of read-only segments";
    DataPages = "data-pages", "pages of writable segments";
    StackPages = "stack-pages", "pages of the first stack";
    Segments = "segments", "segments of the image";
    Priority = "priority", "priority of its first thread";
    MaxPriority = "max-priority", "its ceiling";
    MaxThreads = "max-threads", "threads that it may have";
    Frames = "frames", "frames of its own Pool";
    ObjectBytes = "object-bytes", "object bytes of its own Pool";
    Version = "version", "major << 32 | minor << 16 | patch";
    SecurityVersion = "security-version", "the manifest's security version";
    Floor = "floor", "the module's floor";
}

impl KernelFact {
    /// The number of the fact with this name.
    pub fn find(name: &Name) -> Option<u8> {
        let at = Self::ALL.iter().position(|fact| fact.name().as_bytes() == name.as_bytes())?;
        u8::try_from(at).ok()
    }
}

/// A predicate of the kernel's own contract: what must hold before and after a process is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelPredicate {
    /// Its name in errors and logs.
    pub name: &'static str,
    /// Before or after.
    pub when: When,
    /// Facts that must be 1 (true) or 0 (false).
    values: &'static [(KernelFact, bool)],
    /// Facts that must be equal.
    equal: &'static [(KernelFact, KernelFact)],
    /// What it is, after the specification.
    pub sentence: &'static str,
}

/// The predicates of `ProcessCreate`. The number that errors carry is the place here, from 1.
pub const CREATE: &[KernelPredicate] = &[
    KernelPredicate {
        name: "image-is-sealed-and-readable",
        when: When::Before,
        values: &[(KernelFact::ImageSealed, true), (KernelFact::ImageReadable, true)],
        equal: &[],
        sentence: "the image is a valid, readable capability to a Region that can no longer change",
    },
    KernelPredicate {
        name: "manifest-is-verified",
        when: When::Before,
        values: &[(KernelFact::ProofHeld, true), (KernelFact::KeyUsable, true)],
        equal: &[],
        sentence: "the manifest is named by a valid capability, and its key may be used",
    },
    KernelPredicate {
        name: "binary-signature-is-valid",
        when: When::Before,
        values: &[(KernelFact::BinaryVerified, true)],
        equal: &[],
        sentence: "the frames hold what the signed manifest and the binary signature are about",
    },
    KernelPredicate {
        name: "requests-are-permitted",
        when: When::Before,
        values: &[],
        equal: &[(KernelFact::MandatoryGranted, KernelFact::RequestsMandatory)],
        sentence: "every mandatory request is granted, and a rule of the policy permits it",
    },
    KernelPredicate {
        name: "process-exists",
        when: When::After,
        values: &[(KernelFact::ProcessFound, true), (KernelFact::SpaceIsOwn, true)],
        equal: &[],
        sentence: "a new, isolated process exists",
    },
    KernelPredicate {
        name: "mappings-are-the-image",
        when: When::After,
        values: &[(KernelFact::RootsAgree, true)],
        equal: &[
            (KernelFact::PagesMapped, KernelFact::PagesExpected),
            (KernelFact::PagesRight, KernelFact::PagesExpected),
        ],
        sentence: "its address space shows the image with the right permissions, and nothing else",
    },
    KernelPredicate {
        name: "endowment-is-exact",
        when: When::After,
        values: &[],
        equal: &[
            (KernelFact::Capabilities, KernelFact::RequestsGranted),
            (KernelFact::CapabilitiesRight, KernelFact::RequestsGranted),
        ],
        sentence: "its CSpace holds exactly the capabilities that manifest and policy give it",
    },
    KernelPredicate {
        name: "first-thread-is-ready",
        when: When::After,
        values: &[(KernelFact::Threads, true), (KernelFact::ThreadWaits, true)],
        equal: &[
            (KernelFact::ThreadEntry, KernelFact::Entry),
            (KernelFact::ThreadStack, KernelFact::StackTop),
        ],
        sentence: "its first thread is in its initial state",
    },
    KernelPredicate {
        name: "no-capability-leaked",
        when: When::After,
        values: &[(KernelFact::ForeignCapabilities, false)],
        equal: &[(KernelFact::CapabilitiesMade, KernelFact::RequestsGranted)],
        sentence: "nobody got a capability that nothing defines",
    },
];

/// The predicates of `LoadModule`, which ModuleManager evaluates of each process that was made and has not run: name, and
/// what it says (specification, section 6.1). The number that errors carry is the place here, from 1.
pub const LOAD: [(&str, &str); 4] = [
    ("new-process-exists", "the process is there, was made for this load, and has not run"),
    (
        "process-is-the-module",
        "its name, publisher and version are those of the verified package and of the request",
    ),
    (
        "endowed-by-manifest",
        "it has every capability that its manifest demands, and none but those that it asks for and somebody gave",
    ),
    (
        "signatures-verified",
        "what the kernel verified is what ModuleManager verified: the same manifest, by the same key",
    ),
];

/// The name of the predicate of loading that a violation's word 0 stands for.
pub fn load_violated(word: u64) -> Option<&'static str> {
    let at = usize::try_from(word).ok()?.checked_sub(1)?;
    LOAD.get(at).map(|(name, _)| *name)
}

/// In the error `ContractViolated`, what is added to the place of a predicate of the module's own contract.
pub const MODULE_PREDICATE: u64 = 0x100;

/// The name of the kernel's predicate that a violation's word 0 stands for.
pub fn violated(word: u64) -> Option<&'static str> {
    let at = usize::try_from(word).ok()?.checked_sub(1)?;
    CREATE.get(at).map(|predicate| predicate.name)
}

/// The kernel's contract of `ProcessCreate` as a graph. `None` never comes: a test builds it.
pub fn create_contract() -> Option<Contract> {
    // The two constants come first: what they stand for is their place.
    let mut nodes = Vec::from([Node::Const(0), Node::Const(1)]);
    let mut predicates = Vec::new();
    for predicate in CREATE {
        let mut root = None;
        let values = predicate.values.iter().map(|(fact, value)| (*fact, Err(u8::from(*value))));
        let equal = predicate.equal.iter().map(|(fact, other)| (*fact, Ok(*other)));
        for (fact, other) in values.chain(equal) {
            let at = push(&mut nodes, Node::Fact(fact_name(fact)?))?;
            let other = match other {
                Ok(other) => push(&mut nodes, Node::Fact(fact_name(other)?))?,
                Err(constant) => constant,
            };
            let equal = push(&mut nodes, Node::Eq(at, other))?;
            root = Some(match root {
                None => equal,
                Some(before) => push(&mut nodes, Node::And(before, equal))?,
            });
        }
        let (name, operation) = (Name::new(predicate.name).ok()?, Operation::Create);
        predicates.push(Predicate { name, operation, when: predicate.when, root: root? });
    }
    let nodes = Bounded::from_vec(nodes).ok()?;
    let predicates = Bounded::from_vec(predicates).ok()?;
    Some(Contract { nodes, predicates, ..Contract::default() })
}

/// Adds a node; its place.
fn push(nodes: &mut Vec<Node>, node: Node) -> Option<u8> {
    let at = u8::try_from(nodes.len()).ok()?;
    nodes.push(node);
    Some(at)
}

fn fact_name(fact: KernelFact) -> Option<Name> {
    Name::new(fact.name()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_found_by_name_and_names_differ() {
        for (number, fact) in (0..).zip(KernelFact::ALL) {
            assert_eq!(KernelFact::find(&fact_name(*fact).unwrap()), Some(number), "{}", fact.name());
        }
        assert_eq!(KernelFact::find(&Name::new("nothing").unwrap()), None);
    }

    #[test]
    fn the_kernel_s_contract_is_well_formed_and_each_predicate_hangs_on_its_facts() {
        let contract = create_contract().unwrap();
        assert_eq!(contract.validate(), Ok(()));
        assert_eq!(contract.predicates.len(), CREATE.len());
        for (at, predicate) in CREATE.iter().enumerate() {
            assert_eq!(violated(at as u64 + 1), Some(predicate.name));
            let facts = predicate.values.iter().map(|(fact, _)| *fact);
            let facts = facts.chain(predicate.equal.iter().map(|(fact, _)| *fact));
            for wrong in facts {
                let value = |name: &Name| {
                    let fact = KernelFact::ALL[usize::from(KernelFact::find(name).unwrap())];
                    let wanted = CREATE.iter().flat_map(|p| p.values).find(|(f, _)| *f == fact);
                    Some(wanted.map_or(7, |(_, value)| u64::from(*value)) ^ u64::from(fact == wrong))
                };
                let held: Vec<_> =
                    contract.predicates.iter().map(|p| contract.evaluate(p, &value).unwrap()).collect();
                let want: Vec<_> = (0..CREATE.len()).map(|i| i != at).collect();
                assert_eq!(held, want, "{} without {}", predicate.name, wrong.name());
            }
        }
        assert_eq!((violated(0), violated(CREATE.len() as u64 + 1)), (None, None));
    }
}
