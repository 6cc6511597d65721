//! The book and the sources agree: the ABI chapter is generated from the tables, every link leads somewhere,
//! every failure code of a load is explained, every name of the specification is accounted for.
//!
//! `SILA_WRITE_BOOK=1 cargo test -p sila_abi --test book` writes the ABI chapter anew.
#![allow(clippy::expect_used, clippy::panic, reason = "helpers of tests, which Clippy does not see as tests")]

use sila_abi::object::ObjectType;
use sila_abi::ops::TABLE;
use sila_abi::protocol::deep_compression::DecompressionError;
use sila_abi::protocol::module_manager::LoadError;
use sila_abi::protocol::registry::RegistryError;
use sila_abi::protocol::{layout, lifecycle, text, wire};
use sila_abi::rights::Rights;
use sila_abi::sif::ABI_VERSION;
use sila_abi::syscall::{Call, MAX_CAPS, MAX_WORDS, Outcome, REGISTER_WORDS, Receive, Slot, Tag};
use sila_abi::{Error, manifest, refusals};
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use table::{arguments, compare, doc_of, mode, page_of, plain, rights, root, source};

mod table;

// ---- the ABI chapter ------------------------------------------------------------------------------------

/// Which bits a field has, from a word in which all of it is set.
fn bits(mask: u64) -> String {
    format!("{} to {}", mask.trailing_zeros(), u64::BITS - 1 - mask.leading_zeros())
}

fn registers(out: &mut String) {
    let syscall = source("sila_abi/src/syscall.rs");
    let table =
        syscall.lines().filter_map(|line| line.strip_prefix("//! ")).filter(|line| line.starts_with('|'));
    for line in table {
        let _ = writeln!(out, "{}", line.replace("[`", "`").replace("`]", "`"));
    }
    let _ = write!(
        out,
        "\n`rcx` and `r11` are overwritten by the processor; every other register keeps its value. A message has at most \
         {MAX_WORDS} words. Words 0 to {} travel in registers; word *n* above that at byte 8·*n* of the thread's message \
         page. A message carries at most {MAX_CAPS} capabilities.\n\n",
        REGISTER_WORDS - 1
    );
    let empty = Tag::new(Call::Yield, 0, 0, 0).0;
    let all = Slot(u16::MAX);
    let receive = |reply, base, count: u64| Receive { reply, base, count: 0 }.to_word() | count << 32;
    let fields = [
        ("tag, in `rax`", "system call", bits(0xff & !empty)),
        ("", "length in words", bits(Tag::new(Call::Yield, u8::MAX, 0, 0).0)),
        ("", "capabilities", bits(Tag::new(Call::Yield, 0, 7, 0).0)),
        ("", "label, or operation of an Invoke", bits(Tag::new(Call::Yield, 0, 0, u32::MAX).0)),
        ("outcome, in `rax`", "error; 0 is success", bits(u8::MAX.into())),
        ("", "length in words", bits(Outcome::message(u8::MAX, 0, 0).0)),
        (
            "",
            "flags of a Notification (in word 0) instead of a message",
            single(Outcome::flags().0 & !(1 << 8)),
        ),
        ("", "capabilities", bits(Outcome::message(0, 7, 0).0)),
        ("", "a Reply lies in the reply slot", single(Outcome(0).with_reply().0)),
        ("", "the kernel reports a fault", single(Outcome(0).with_fault().0)),
        ("", "label", bits(Outcome::message(0, 0, u32::MAX).0)),
        ("receive, in `r13`", "free slot for the Reply; 0 refuses calls", bits(receive(all, Slot::NONE, 0))),
        ("", "first free slot for capabilities", bits(receive(Slot::NONE, all, 0))),
        ("", "how many such slots", bits(receive(Slot::NONE, Slot::NONE, 0xff))),
    ];
    out.push_str("| Word | Field | Bits |\n|---|---|---|\n");
    for (word, field, place) in fields {
        let _ = writeln!(out, "| {word} | {field} | {place} |");
    }
    out.push_str("\nUndefined bits of a tag are zero, or the call fails with `InvalidArgument`.\n\n");
}

fn single(mask: u64) -> String {
    assert!(mask.is_power_of_two(), "{mask:#x} is not one bit");
    mask.trailing_zeros().to_string()
}

fn chapter() -> String {
    let mut out = String::from(
        "# ABI reference\n\n\
         <!-- Generated: SILA_WRITE_BOOK=1 cargo test -p sila_abi --test book -->\n\n\
         This chapter is generated from the tables in `sila_abi`; a test fails if it differs from them.\n\n",
    );
    let _ = writeln!(
        out,
        "ABI version: **{ABI_VERSION}**. Every image header carries the version it was built for; the kernel"
    );
    out.push_str("refuses others with `AbiVersion`.\n\n## Registers\n\n");
    registers(&mut out);

    out.push_str("## System calls\n\n| Number | Call | What it does |\n|---|---|---|\n");
    let syscall = source("sila_abi/src/syscall.rs");
    for &call in Call::ALL {
        let name = format!("{call:?}");
        let doc = doc_of(&syscall, &format!("{name} = {},", call as u8));
        let _ = writeln!(out, "| {} | `{name}` | {doc} |", call as u8);
    }

    out.push_str("\n## Object types\n\n| Number | Type | What it is |\n|---|---|---|\n");
    let object = source("sila_abi/src/object.rs");
    for &kind in ObjectType::ALL {
        let doc = doc_of(&object, &format!("{} = {},", kind.name(), kind as u8));
        let name = match TABLE.iter().any(|row| row.object == Some(kind)) {
            true => format!("[`{}`](objects/{}.md)", kind.name(), page_of(kind)),
            false => format!("`{}`", kind.name()),
        };
        let _ = writeln!(out, "| {} | {name} | {doc} |", kind as u8);
    }

    out.push_str("\n## Rights\n\n| Bit | Right | What it allows |\n|---|---|---|\n");
    let all_rights = source("sila_abi/src/rights.rs");
    for (name, right) in Rights::all().iter_names() {
        let doc = doc_of(&all_rights, &format!("const {name} ="));
        let _ = writeln!(out, "| {} | `{name}` | {doc} |", right.bits().trailing_zeros());
    }

    out.push_str(
        "\n## Operations\n\nThe operations of `Invoke`. The number is the tag's label. *Needs*: rights on the capability invoked.\n\n\
         | Number | Operation | Object | Needs | Arguments, from word 0 | Mode | What it does |\n|---|---|---|---|---|---|---|\n",
    );
    for row in TABLE {
        let object = row.object.map_or("any", ObjectType::name);
        let (needs, arguments) = (rights(row.rights), arguments(row));
        let (number, name, mode, doc) = (row.op as u32, row.name, mode(row), plain(row.doc));
        let _ = writeln!(out, "| {number} | `{name}` | {object} | {needs} | {arguments} | {mode} | {doc} |");
    }

    out.push_str(
        "\n## Refusals\n\nThe errors that each operation may end with. Any may end with `InvalidArgument` if its tag is \
         malformed. Every refusal that the kernel's host tests meet is held against this table.\n\n\
         | Operation | Errors |\n|---|---|\n",
    );
    for row in TABLE {
        let errors: Vec<String> = refusals::of(row.op).map(|error| format!("`{}`", error.name())).collect();
        let _ = writeln!(out, "| `{}` | {} |", row.name, errors.join(", "));
    }

    out.push_str("\n## Errors of the kernel\n\n| Number | Error | Meaning |\n|---|---|---|\n");
    for &error in Error::ALL {
        let _ = writeln!(out, "| {} | `{}` | {} |", error as u16, error.name(), error.sentence());
    }
    out.push_str("\n## Errors of ModuleManager\n\n| Number | Error | Meaning |\n|---|---|---|\n");
    for &error in LoadError::ALL {
        let _ = writeln!(out, "| {} | `{error:?}` | {} |", error.number(), error.sentence());
    }
    out.push_str("\n## Errors of DeepCompression\n\n| Number | Error | Meaning |\n|---|---|---|\n");
    for &error in DecompressionError::ALL {
        let _ = writeln!(out, "| {} | `{error:?}` | {} |", error.number(), error.sentence());
    }
    out.push_str("\n## Errors of ServiceRegistry\n\n| Number | Error | Meaning |\n|---|---|---|\n");
    for &error in RegistryError::ALL {
        let _ = writeln!(out, "| {} | `{error:?}` | {} |", error.number(), error.sentence());
    }
    places(&mut out);
    out
}

fn places(out: &mut String) {
    out.push_str(
        "\n## Slots and addresses by convention\n\n| Slot | Constant | What it holds |\n|---|---|---|\n",
    );
    let text_of = source("sila_abi/src/protocol/layout.rs");
    let slots = [
        ("OWN_PROCESS", layout::OWN_PROCESS),
        ("OWN_THREAD", layout::OWN_THREAD),
        ("OWN_POOL", layout::OWN_POOL),
        ("LIFECYCLE", layout::LIFECYCLE),
        ("CLOCK", layout::CLOCK),
        ("REGISTRY", layout::REGISTRY),
        ("FIRST_OTHER", layout::FIRST_OTHER),
        ("FIRST_DYNAMIC", layout::FIRST_DYNAMIC),
    ];
    for (name, slot) in slots {
        let _ =
            writeln!(out, "| {} | `{name}` | {} |", slot.0, doc_of(&text_of, &format!("pub const {name}:")));
    }
    out.push_str("\n| Address | Constant | What is there |\n|---|---|---|\n");
    let addresses = [
        ("STACK_TOP", layout::STACK_TOP),
        ("MESSAGE_PAGE", layout::MESSAGE_PAGE),
        ("DYNAMIC_BASE", layout::DYNAMIC_BASE),
    ];
    for (name, address) in addresses {
        let doc = doc_of(&text_of, &format!("pub const {name}:"));
        let _ = writeln!(out, "| `{address:#x}` | `{name}` | {doc} |");
    }
    let _ = write!(
        out,
        "\nA CSpace has at most {} slots; a manifest requests slots 1 to {}.\n\n## Labels that every service knows\n\n\
         | Label | Constant | Meaning |\n|---|---|---|\n\
         | {:#x} | `text::TEXT_CALL` | a text call: word 0 the length in bytes, then the UTF-8 text (at most {} bytes) |\n\
         | {} | `wire::OK` | the reply of a success |\n\
         | {} | `text::ERROR` | the reply to a text call that failed; the text says why |\n\
         | {} | `lifecycle::READY` | the module serves |\n\
         | {} | `lifecycle::FAILED` | the module cannot do its work: word 0 its code, then a text |\n",
        layout::SLOTS_END,
        manifest::MAX_SLOT,
        text::TEXT_CALL,
        text::MAX_TEXT,
        wire::OK,
        text::ERROR,
        lifecycle::READY,
        lifecycle::FAILED,
    );
}

#[test]
fn abi_chapter_is_what_the_tables_say() {
    compare(&root().join("docs/abi.md"), &chapter(), "cargo test -p sila_abi --test book");
}

// ---- links ----------------------------------------------------------------------------------------------

fn pages() -> Vec<PathBuf> {
    let mut found = vec![root().join("README.md"), root().join("CHANGELOG.md")];
    let mut folders = vec![root().join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the book") {
            let path = entry.expect("an entry").path();
            if path.is_dir() && path.file_name().is_none_or(|name| name != "book") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    found
}

/// A page without its blocks and spans of code.
fn without_code(text: &str) -> String {
    let outside = text.split("```").step_by(2).collect::<Vec<_>>().join("\n");
    outside.lines().map(|line| line.split('`').step_by(2).collect::<String>() + "\n").collect()
}

/// What the links and images of a page point to.
fn targets(text: &str) -> Vec<String> {
    let rest = without_code(text);
    let cut = rest.split("](").skip(1).filter_map(|after| after.split_once(')'));
    cut.map(|(target, _)| target.to_string()).collect()
}

fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    let kept: String = kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect();
    kept.replace(' ', "-")
}

#[test]
fn every_relative_link_leads_to_a_file_and_a_heading() {
    let mut bad = Vec::new();
    let mut count = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).expect("a page");
        for target in targets(&text) {
            if target.contains("://") {
                continue;
            }
            count += 1;
            let (file, heading) = target.split_once('#').unwrap_or((&target, ""));
            let path = if file.is_empty() { page.clone() } else { page.with_file_name("").join(file) };
            let there = fs::read_to_string(&path).unwrap_or_default();
            let has = |wanted: &str| there.lines().any(|l| l.starts_with('#') && anchor(l) == wanted);
            if !path.exists() || (!heading.is_empty() && !has(heading)) {
                bad.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(bad.is_empty(), "links that lead nowhere:\n{}", bad.join("\n"));
    assert!(count > 50, "only {count} links were found");
}

#[test]
fn every_page_is_in_the_summary() {
    let summary = source("docs/SUMMARY.md");
    for page in pages().iter().filter(|page| page.starts_with(root().join("docs"))) {
        let name = page.file_name().and_then(|name| name.to_str()).expect("a name");
        let listed = summary.contains(&format!("{name})")) || name == "SUMMARY.md";
        assert!(listed, "{} is not in docs/SUMMARY.md", page.display());
    }
}

#[test]
fn every_failure_code_of_a_load_is_explained() {
    let page = source("docs/load-protocol.md");
    for error in LoadError::ALL {
        assert!(page.contains(&format!("`{error:?}`")), "docs/load-protocol.md does not explain {error:?}");
    }
}

// ---- names of the specification -------------------------------------------------------------------------

/// Rows of the map: the specification's name, and the code items or the reason why there is none.
fn spec_rows(page: &str) -> Vec<(String, String)> {
    let cells = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    cells.map(|(name, rest)| (name.to_string(), rest.trim_end_matches('|').trim().to_string())).collect()
}

/// Whether `file::item` names a documented item in that file of the tree.
fn is_documented(item: &str) -> bool {
    let Some((file, name)) = item.split_once("::") else { return false };
    let Ok(text) = fs::read_to_string(root().join(file)) else { return false };
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let defines = |line: &str| {
        let words: Vec<&str> = line.split(|c: char| !(c.is_alphanumeric() || c == '_')).collect();
        let by_keyword = words.windows(2).any(|pair| {
            ["struct", "enum", "fn", "const", "type", "trait", "mod", "static"].contains(&pair[0])
                && pair[1] == name
        });
        // A row of a table, a variant or a field.
        let numbered =
            words.first().is_some_and(|word| word.parse::<u32>().is_ok()) && words.get(1) == Some(&name);
        let row = [" =", ":", ",", "(", " {"].iter().any(|end| {
            line.trim_start_matches("pub ").strip_prefix(name).is_some_and(|rest| rest.starts_with(end))
        });
        by_keyword || numbered || row
    };
    lines.iter().enumerate().any(|(at, line)| {
        let above = lines[..at].iter().rev().find(|line| !line.starts_with("#["));
        let documented = above.is_some_and(|line| line.starts_with("///"))
            || line.contains(", \"")
            || lines.get(at + 1).is_some_and(|next| next.starts_with('"'));
        defines(line) && (documented || file.ends_with(".toml"))
    })
}

#[test]
fn every_name_of_the_specification_maps_to_a_documented_item_or_a_reason() {
    let rows = spec_rows(&source("docs/spec-names.md"));
    assert!(rows.len() > 30, "only {} rows were read", rows.len());
    for (at, (name, meaning)) in rows.iter().enumerate() {
        assert!(rows[..at].iter().all(|(other, _)| other != name), "{name} stands twice");
        if let Some(reason) =
            meaning.strip_prefix("not yet: ").or_else(|| meaning.strip_prefix("deviation: "))
        {
            assert!(reason.len() > 15, "{name}: the reason is missing");
            continue;
        }
        let items: Vec<&str> =
            meaning.split('`').skip(1).step_by(2).filter(|part| part.contains("::")).collect();
        assert!(!items.is_empty(), "{name}: neither an item nor a reason: {meaning}");
        for item in items {
            assert!(is_documented(item), "{name}: there is no documented item {item}");
        }
    }
}

#[test]
fn the_map_s_own_check_tells_items_from_inventions() {
    assert!(is_documented("sila_abi/src/manifest.rs::Manifest"));
    assert!(is_documented("sila_abi/src/ops.rs::ProcessCreate"));
    assert!(is_documented("sila_abi/src/error.rs::Timeout"));
    assert!(!is_documented("sila_abi/src/manifest.rs::Manifold"));
    assert!(!is_documented("sila_abi/src/nowhere.rs::Manifest"));
}

/// The requests of a description, one line each: slot, object and rights.
fn requests(toml: &str) -> Vec<String> {
    let value = |block: &str, key: &str| {
        let line = block.lines().map(str::trim).find(|line| line.starts_with(key));
        line.and_then(|line| line.split_once('=')).map(|(_, v)| v.trim().to_string()).unwrap_or_default()
    };
    let blocks = toml.split("[[request]]").skip(1);
    let own = blocks.filter(|block| block.contains("own ="));
    own.map(|block| format!("{} {} {}", value(block, "slot"), value(block, "own"), value(block, "rights")))
        .collect()
}

#[test]
fn the_chapter_on_writing_a_module_asks_for_what_counter_asks_for() {
    let chapter = source("docs/writing-a-module.md");
    let counter = requests(&source("modules/counter/sila.toml"));
    assert_eq!(counter.len(), 3);
    assert_eq!(requests(&chapter)[..3], counter[..]);
}
