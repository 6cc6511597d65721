//! The C compiler environment for bare-metal user space. Only ring 3 has C: zstd, and in one module of the tests the second
//! signature scheme.
//!
//! The `cc` crate, left alone, compiles for an unknown target with the host's headers and defaults. It
//! is given `boot/cc/sila-cc` instead: a wrapper that adds the freestanding flags and our few headers.

use std::path::Path;

/// The environment for a nested cargo call that builds user-space crates with C in them.
///
/// `user_target_name` is the target as cargo names it: the target file's stem, `x86_64-sila-user`.
/// Host compilations (build scripts, proc macros) are not affected: every name carries the target.
#[must_use]
pub fn c_env(repo_root: &Path, user_target_name: &str) -> Vec<(String, String)> {
    let target = user_target_name.replace('-', "_");
    let wrapper = repo_root.join("boot").join("cc").join("sila-cc");
    vec![
        (format!("CC_{target}"), wrapper.display().to_string()),
        // `cc` derives an archiver name such as `x86_64-sila-user-ar` for a target that it does not know.
        (format!("AR_{target}"), "ar".to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c_env_names_the_target_and_the_committed_wrapper() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let env = c_env(&root, "x86_64-sila-user");
        let cc = env.iter().find(|(name, _)| name == "CC_x86_64_sila_user");
        let Some((_, path)) = cc else { panic!("no CC in {env:?}") };
        assert!(Path::new(path).is_file(), "{path} is missing");
        assert!(env.iter().all(|(name, _)| name.ends_with("_x86_64_sila_user")));
    }
}
