//! The book's tables of the kernel's contract and facts are what the sources say.

use std::fmt::Write as _;

use sila_abi::contract::When;
use sila_abi::facts::{CREATE, KernelFact, LOAD};
use table::{compare, source};

mod table;

const BEGIN: &str = "<!-- Generated: SILA_WRITE_BOOK=1 cargo test -p sila_abi --test contracts -->";
const END: &str = "<!-- End of what is generated -->";

#[test]
fn the_book_s_contract_is_the_kernel_s() {
    let found = source("docs/contracts.md");
    let (before, rest) = found.split_once(BEGIN).expect("a generated part");
    let (_, after) = rest.split_once(END).expect("its end");
    let mut out = format!("{BEGIN}\n\n| Number | Predicate | When | What it says |\n|---|---|---|---|\n");
    for (number, predicate) in (1..).zip(CREATE) {
        let when = if predicate.when == When::Before { "before" } else { "after" };
        let _ = writeln!(out, "| {number} | `{}` | {when} | {} |", predicate.name, predicate.sentence);
    }
    out.push_str(
        "\nModuleManager's, of each load:\n\n| Number | Predicate | What it says |\n|---|---|---|\n",
    );
    for (number, (name, sentence)) in (1..).zip(LOAD) {
        let _ = writeln!(out, "| {number} | `{name}` | {sentence} |");
    }
    out.push_str(
        "\nThe facts, which a module's contract can use, too:\n\n| Fact | What it is |\n|---|---|\n",
    );
    for fact in KernelFact::ALL {
        let _ = writeln!(out, "| `{}` | {} |", fact.name(), fact.sentence());
    }
    let path = table::root().join("docs/contracts.md");
    compare(&path, &format!("{before}{out}\n{END}{after}"), "cargo test -p sila_abi --test contracts");
}
