//! What the tests of the book share: sources of the tree, and cells of tables.
#![allow(clippy::expect_used, clippy::panic, reason = "helpers of tests, which Clippy does not see as tests")]
#![allow(dead_code, reason = "each test file uses a part")]

use sila_abi::object::ObjectType;
use sila_abi::ops::{Arg, OpInfo};
use sila_abi::rights::Rights;
use std::fs;
use std::path::{Path, PathBuf};

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("sila_abi lies in the tree").to_path_buf()
}

pub fn source(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The doc comment above an item, as one line; the item is found by how its line begins.
pub fn doc_of(text: &str, begins: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let at = lines.iter().position(|line| line.starts_with(begins));
    let at = at.unwrap_or_else(|| panic!("no line begins with `{begins}`"));
    let from = lines[..at].iter().rposition(|line| !line.starts_with("///")).map_or(0, |i| i + 1);
    let words: Vec<&str> = lines[from..at].iter().map(|line| line.trim_start_matches("///").trim()).collect();
    plain(&words.join(" "))
}

/// Rust's doc links mean nothing in the book: they become code.
pub fn plain(text: &str) -> String {
    text.replace("[`", "`").replace("`]", "`").replace("crate::", "sila_abi::").replace('|', "\\|")
}

pub fn rights(set: Rights) -> String {
    let names: Vec<&str> = set.iter_names().map(|(name, _)| name).collect();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

pub fn arguments(row: &OpInfo) -> String {
    let one = |(name, kind): &(&str, Arg)| match kind {
        Arg::Word => format!("{name}: word"),
        Arg::Dst => format!("{name}: free slot"),
        Arg::Cap(object, set) => format!("{name}: {} ({})", object.name(), rights(*set)),
    };
    if row.args.is_empty() { "-".into() } else { row.args.iter().map(one).collect::<Vec<_>>().join("; ") }
}

pub fn mode(row: &OpInfo) -> &'static str {
    match (row.blocks, row.restarts, row.endow_ok) {
        (true, _, _) => "may wait",
        (_, true, _) => "may restart",
        (_, _, true) => "also endow-only",
        _ => "",
    }
}

/// The name of the type's page in `docs/objects`.
pub fn page_of(kind: ObjectType) -> String {
    let mut name = String::new();
    for (at, char) in kind.name().char_indices() {
        if char.is_uppercase() && at > 0 {
            name.push('-');
        }
        name.extend(char.to_lowercase());
    }
    name
}

/// Writes a file of the book if the environment asks for it, and compares it.
pub fn compare(path: &Path, wanted: &str, how: &str) {
    if std::env::var_os("SILA_WRITE_BOOK").is_some() {
        fs::write(path, wanted).expect("the page can be written");
    }
    let found = fs::read_to_string(path).unwrap_or_default();
    let first = found.lines().zip(wanted.lines()).find(|(a, b)| a != b);
    assert!(
        found == wanted,
        "{} is out of date (first difference: {first:?}); SILA_WRITE_BOOK=1 {how} writes it",
        path.display()
    );
}
