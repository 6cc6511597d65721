//! The list of mutants still fits the tree: each changes one place, and the test that must notice exists.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]
use boot::mutants::{Mutants, Place};
use boot::paths;
use std::fs;
use std::path::{Path, PathBuf};
use testrunner::TESTS;

fn root() -> PathBuf {
    paths::root().unwrap()
}

#[test]
fn every_mutant_applies_to_the_kernel_as_it_is() {
    let root = root();
    let list = Mutants::read(&root).unwrap();
    assert!(list.all.len() >= 24);
    for mutant in &list.all {
        let text = fs::read_to_string(root.join(&mutant.file)).unwrap();
        let changed = mutant.applied(&text).unwrap_or_else(|why| panic!("{}: {why}", mutant.name));
        assert_ne!(changed, text, "{}", mutant.name);
        assert!(!mutant.defence.is_empty(), "{}", mutant.name);
    }
}

/// A module: the text of its file, that file's folder, and the folder of the modules in it.
struct Module {
    text: String,
    beside: PathBuf,
    below: PathBuf,
}

/// The module of this name in another one, found as the compiler finds it.
fn module(parent: Module, name: &str) -> Option<Module> {
    if parent.text.contains(&format!("mod {name} {{")) {
        return Some(Module { below: parent.below.join(name), ..parent });
    }
    let at = parent.text.find(&format!("mod {name};"))?;
    let line = parent.text[..at].rfind('\n').map_or(0, |end| end + 1);
    let before = parent.text[..line].trim_end();
    let named = before.rsplit_once("#[path = \"").and_then(|(_, rest)| rest.strip_suffix("\"]"));
    let own = parent.below.join(name);
    let (file, below) = match named {
        Some(file) => (parent.beside.join(file), parent.beside.clone()),
        None if own.with_extension("rs").is_file() => (own.with_extension("rs"), own),
        None => (own.join("mod.rs"), own),
    };
    Some(Module { text: fs::read_to_string(&file).ok()?, beside: file.parent()?.into(), below })
}

/// True if the kernel's core has a test of this path.
fn has_host_test(root: &Path, path: &str) -> bool {
    has_test(root, "kernel/src", path)
}

/// True if the library whose sources are in `folder` has a test of this path.
fn has_test(root: &Path, folder: &str, path: &str) -> bool {
    let parts: Vec<&str> = path.split("::").collect();
    let (name, modules) = parts.split_last().unwrap();
    let folder = root.join(folder);
    let text = fs::read_to_string(folder.join("lib.rs")).unwrap();
    let core = Module { text, beside: folder.clone(), below: folder };
    let Some(found) = modules.iter().try_fold(core, |parent, name| module(parent, name)) else {
        return false;
    };
    let Some(at) = found.text.find(&format!("fn {name}(")) else { return false };
    // Its attribute stands before it, and no other function between.
    let before = &found.text[..at];
    before.rfind("#[test]").is_some_and(|attribute| !before[attribute..].contains("fn "))
}

#[test]
fn every_mutant_names_a_test_that_exists() {
    let root = root();
    for mutant in Mutants::read(&root).unwrap().all {
        let exists = match &mutant.test {
            Place::Host(path) => has_host_test(&root, path),
            Place::Crypto(path) => has_test(&root, "sila_crypto/src", path),
            Place::Guest(name) => TESTS.iter().any(|test| test.name == name),
        };
        assert!(exists, "{}: {:?}", mutant.name, mutant.test);
    }
}

#[test]
fn a_test_that_does_not_exist_is_missed() {
    let root = root();
    assert!(has_host_test(&root, "tests::memory::unmapping_and_deleting_return_every_frame_and_byte"));
    assert!(!has_host_test(&root, "tests::memory::no_such_test"));
    assert!(!has_host_test(&root, "tests::memory::map"), "a helper is no test");
    assert!(!has_host_test(&root, "tests::ipc::unmapping_and_deleting_return_every_frame_and_byte"));
    assert!(has_host_test(&root, "pci::tests::after_silence_no_function_masters_the_bus_or_sends_messages"));
    assert!(!has_host_test(&root, "pci_tests::after_silence_no_function_masters_the_bus_or_sends_messages"));
    assert!(has_host_test(&root, "frames::tests::quarantined_frames_are_not_reused_before_the_flush"));
    assert!(!has_host_test(&root, "nosuch::test"));
    let crypto = |path: &str| has_test(&root, "sila_crypto/src", path);
    assert!(crypto("ml_dsa_87::tests::a_hint_encoded_in_another_way_is_refused"));
    assert!(crypto("ml_dsa_87::encoding::tests::hints_have_one_encoding"));
    assert!(!crypto("ml_dsa_87::tests::hint_of") && !crypto("ml_dsa_87::tests::no_such_test"));
}
