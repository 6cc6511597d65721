//! What traced instructions are: which of them are expensive, and, for `bench --profile NAME`, which functions they
//! belong to.
use crate::bench_trace::{Counts, Traced, demangle, disassemble};
use anyhow::{Result, bail};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::path::Path;

/// Instructions whose price is far from that of the rest: a name, and how the disassembler spells them.
const EXPENSIVE: [(&str, &[&str]); 17] = [
    ("cr3", &[]),
    ("invlpg", &["invlpg", "invpcid"]),
    ("wrmsr", &["wrmsr"]),
    ("rdmsr", &["rdmsr"]),
    ("xsave", &["xsave", "fxsave"]),
    ("xrstor", &["xrstor", "fxrstor"]),
    ("fsgsbase", &["wrfsbase", "wrgsbase", "rdfsbase", "rdgsbase"]),
    ("swapgs", &["swapgs"]),
    ("segment", &[]),
    ("syscall", &["syscall"]),
    ("sysret", &["sysret"]),
    ("iret", &["iret"]),
    ("locked", &["lock", "xchg"]),
    ("io", &["in ", "out "]),
    ("rdtsc", &["rdtsc"]),
    ("div", &["div", "idiv"]),
    ("rep", &["rep "]),
];

/// Expensive instructions, by kind.
pub type Expensive = BTreeMap<&'static str, u64>;

/// Kernel and program, disassembled.
#[derive(Debug, Default)]
pub struct Code {
    expensive: HashMap<u64, &'static str>,
}

impl Code {
    /// Disassembles both.
    pub fn new(kernel: &Path, program: &Path) -> Result<Self> {
        let both = disassemble(kernel)?.into_iter().chain(disassemble(program)?);
        Ok(Self { expensive: both.filter_map(|(place, text)| Some((place, expensive(&text)?))).collect() })
    }

    /// Code with these expensive instructions.
    #[cfg(test)]
    pub(crate) fn of<const N: usize>(expensive: [(u64, &'static str); N]) -> Self {
        Self { expensive: expensive.into() }
    }

    /// The expensive instructions in a round.
    pub fn expensive(&self, round: &Counts) -> Expensive {
        let mut sum = Expensive::new();
        for (place, count) in round {
            if let Some(kind) = self.expensive.get(place) {
                *sum.entry(kind).or_default() += count;
            }
        }
        sum
    }
}

/// The kind of an expensive instruction.
fn expensive(text: &str) -> Option<&'static str> {
    if text.starts_with("mov") && text.ends_with(",%cr3") {
        return Some("cr3");
    }
    let selector = |register: &&str| text.starts_with("mov") && text.ends_with(*register);
    if ["%ds", "%es", "%fs", "%gs", "%ss"].iter().any(selector) {
        return Some("segment");
    }
    // An exchange with memory is locked, one of registers is not.
    if text.starts_with("xchg") && !text.contains('(') {
        return None;
    }
    let starts = |names: &&[&str]| names.iter().any(|name| text.starts_with(name));
    EXPENSIVE.iter().find(|(_, names)| starts(names)).map(|(kind, _)| *kind)
}

/// Where an operation's instructions are.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Profile {
    /// Rounds that were traced whole.
    pub rounds: usize,
    /// Instructions in ring 3, in all rounds.
    pub user: u64,
    /// Instructions in the kernel, in all rounds.
    pub kernel: u64,
    /// Expensive ones, by kind, in all rounds.
    pub expensive: Expensive,
    /// By the function they are in after inlining.
    pub functions: BTreeMap<String, u64>,
    /// By the function that the source has them in.
    pub sources: BTreeMap<String, u64>,
}

/// Functions by address.
struct Places {
    kernel: Option<addr2line::Loader>,
    program: Option<addr2line::Loader>,
}

fn is_kernel(place: u64) -> bool {
    place >> 63 == 1
}

impl Places {
    fn new(kernel: &Path, program: &Path) -> Self {
        Self { kernel: addr2line::Loader::new(kernel).ok(), program: addr2line::Loader::new(program).ok() }
    }

    /// The functions an address is in, after inlining and in the source.
    fn names(&self, place: u64) -> [String; 2] {
        let loader = if is_kernel(place) { &self.kernel } else { &self.program };
        let mut chain = Vec::new();
        if let Some(mut frames) = loader.as_ref().and_then(|loader| loader.find_frames(place).ok()) {
            while let Ok(Some(frame)) = frames.next() {
                chain.extend(frame.function.and_then(|name| name.raw_name().ok().map(|raw| demangle(&raw))));
            }
        }
        let symbol = loader.as_ref().and_then(|loader| loader.find_symbol(place)).map(demangle);
        let outer = symbol.or_else(|| chain.last().cloned()).unwrap_or_else(|| "?".into());
        let inner = chain.first().cloned().unwrap_or_else(|| outer.clone());
        let ring = if is_kernel(place) { "" } else { "ring 3: " };
        [format!("{ring}{outer}"), format!("{ring}{inner}")]
    }
}

impl Profile {
    /// The profile of a traced row.
    pub fn of(traced: &Traced, kernel: &Path, program: &Path) -> Result<Self> {
        if traced.rounds.is_empty() {
            bail!("no round of {} was traced whole", traced.name);
        }
        let (code, places) = (Code::new(kernel, program)?, Places::new(kernel, program));
        let mut profile = Profile { rounds: traced.rounds.len(), ..Self::default() };
        traced.rounds.iter().for_each(|round| profile.add(round, &code, &places));
        Ok(profile)
    }

    fn add(&mut self, round: &Counts, code: &Code, places: &Places) {
        for (kind, count) in code.expensive(round) {
            *self.expensive.entry(kind).or_default() += count;
        }
        for (&place, &count) in round {
            *(if is_kernel(place) { &mut self.kernel } else { &mut self.user }) += count;
            let [outer, inner] = places.names(place);
            *self.functions.entry(outer).or_default() += count;
            *self.sources.entry(inner).or_default() += count;
        }
    }

    /// The profile for people, with the `top` functions of each list.
    pub fn text(&self, name: &str, top: usize) -> String {
        let each = |count: u64| count as f64 / self.rounds.max(1) as f64;
        let mut text = format!(
            "{name}: {:.1} instructions in a round ({:.1} in ring 3, {:.1} in the kernel), {} rounds\n",
            each(self.user + self.kernel),
            each(self.user),
            each(self.kernel),
            self.rounds
        );
        let expensive: Vec<String> =
            self.expensive.iter().map(|(kind, count)| format!("{kind} {:.1}", each(*count))).collect();
        let _ = writeln!(text, "expensive: {}", expensive.join(", "));
        for (title, list) in [("after inlining", &self.functions), ("in the source", &self.sources)] {
            let _ = writeln!(text, "\nfunctions {title}:");
            let mut list: Vec<(&String, &u64)> = list.iter().collect();
            list.sort_by(|a, b| b.1.cmp(a.1));
            for (function, count) in list.into_iter().take(top) {
                let _ = writeln!(text, "{:>9.1}  {function}", each(*count));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_sums_up_the_rounds() {
        let code = Code::of([(1 << 63, "cr3")]);
        let places = Places { kernel: None, program: None };
        let mut profile = Profile { rounds: 2, ..Profile::default() };
        for round in [Counts::from([(1 << 63, 2), (0x32, 3)]), Counts::from([(0x32, 1)])] {
            profile.add(&round, &code, &places);
        }
        assert_eq!((profile.user, profile.kernel), (4, 2));
        assert_eq!(profile.expensive, Expensive::from([("cr3", 2)]));
        let text = profile.text("x", 5);
        assert!(text.contains("3.0 instructions") && text.contains("cr3 1.0"), "{text}");
    }

    #[test]
    fn expensive_instructions_are_told_from_cheap_ones() {
        for (text, kind) in [
            ("mov    %rax,%cr3", Some("cr3")),
            ("mov    %cr3,%rax", None),
            ("mov    %eax,%fs", Some("segment")),
            ("mov    %rax,%fs:0x10", None),
            ("xsaveopt64 (%rdi)", Some("xsave")),
            ("xrstor64 (%rdi)", Some("xrstor")),
            ("lock xadd %rax,(%rdi)", Some("locked")),
            ("xchg   %ax,%ax", None),
            ("xchg   %al,(%rdi)", Some("locked")),
            ("in     (%dx),%al", Some("io")),
            ("inc    %rax", None),
            ("iretq", Some("iret")),
            ("sysretq", Some("sysret")),
            ("syscall", Some("syscall")),
            ("divq   0x10(%rdi)", Some("div")),
            ("rep stos %rax,%es:(%rdi)", Some("rep")),
        ] {
            assert_eq!(expensive(text), kind, "{text}");
        }
    }
}
