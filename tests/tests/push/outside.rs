//! A module from outside the tree, all the way: made, built, certified, packed, pushed into a running system, loaded,
//! called and stopped; then its key is revoked.
use super::{Files, line};
use anyhow::Result;
use boot::paths;
use boot::pkg::keys::test_keys;
use libtest_mimic::Failed;
use sila_tests::tool::{Ran, sila_in};

/// A command of the host tool that must work, from the tree's root.
fn works(args: &[&str]) -> Result<Ran> {
    let ran = sila_in(&paths::root()?, args)?;
    anyhow::ensure!(ran.status == 0, "{args:?}: status {}\n{}\n{}", ran.status, ran.out, ran.err);
    Ok(ran)
}

fn session() -> Result<Ran> {
    let files = Files::new()?;
    let at = |name: &str| files.0.join(name).display().to_string();
    test_keys(&paths::state()?)?;
    let root = paths::state()?.join("test-keys").display().to_string();
    let (module, keys, certificate) = (at("visitor"), at("keys"), at("guest.cert"));
    works(&["new-module", &module, "--name", "visitor", "--publisher", "guest"])?;
    works(&["build-module", &module])?;
    works(&["keygen", &keys, "--publisher-only", "--publisher", "guest", "--purpose", "test"])?;
    let certify =
        ["certify", "--keys", &root, "--publisher-key", &keys, "--publisher", "guest", "--sequence", "1"];
    let what = ["--purpose", "test", "--prefix", "visitor", "--ceiling", "boot/ceiling-module.toml"];
    works(&[&certify[..], &what, &["--out", &certificate]].concat())?;
    std::fs::copy(&certificate, files.0.join("keys/publisher.cert"))?;
    std::fs::copy(format!("{root}/rootset.bin"), files.0.join("keys/rootset.bin"))?;
    let package = at("visitor.sila");
    works(&["pack", &module, "--keys", &keys, "--out", &package])?;
    works(&[
        "revoke",
        "--keys",
        &root,
        "--sequence",
        "1",
        "--key",
        &certificate,
        "--out",
        &at("guest.revocation"),
    ])?;
    let script = "load visitor; !push %guest.cert; !push %visitor.sila; load visitor; call visitor world; \
                  stop 7; cache; load visitor; !push %guest.revocation; cache; stop 8; cache; load visitor; keys";
    files.run(script, &[])
}

pub fn a_module_from_outside_the_tree_is_pushed_loaded_called_stopped_and_revoked() -> Result<(), Failed> {
    let ran = session().map_err(|error| format!("{error:#}"))?;
    let loads = ran.answers("load visitor");
    let load = |at: usize| loads.get(at).and_then(|lines| lines.first()).copied().unwrap_or_default();
    ran.want(load(0).contains("no module named `visitor`"), "at first nobody knows it")?;
    ran.want(line(&ran, "!push %guest.cert").contains("the kernel took the certificate"), "certified")?;
    ran.want(line(&ran, "!push %visitor.sila").contains("the depot keeps visitor"), "pushed")?;
    ran.want(load(1).contains("by guest runs as process 7"), "loaded")?;
    let answer = "guest/visitor: hello, world; you are number 1";
    ran.want(line(&ran, "call visitor world") == answer, "called")?;
    ran.want(line(&ran, "stop 7") == "process 7 has ended", "stopped")?;
    ran.want(line(&ran, "!push %guest.revocation").contains("the kernel took the revocation"), "revoked")?;
    let caches = ran.answers("cache");
    let cached =
        |at: usize| caches.get(at).is_some_and(|lines| lines.iter().any(|l| l.starts_with("visitor ")));
    let says =
        |at: usize, what: &str| caches.get(at).is_some_and(|lines| lines.iter().any(|l| l.contains(what)));
    ran.want(cached(0), "the kernel keeps its image")?;
    ran.want(load(2).contains("by guest runs as process 8"), "loaded from the cache")?;
    ran.want(!cached(1) && says(1, "1 could no longer be loaded"), "the revocation kills it in the cache")?;
    ran.want(!cached(2) && says(2, "1 found, "), "and it was found there once")?;
    ran.want(load(3).contains("the package is signed with a revoked key"), "and refused from then on")
}
