//! `build-module`: builds a module's crate, wherever it lies, as the programs of the tree are built.

use crate::bare;
use crate::missing::Usage;
use crate::pkg::description::ModuleDescription;
use crate::pkg::sif_build;
use crate::toolchain::{self, Toolchain};
use crate::{nested, paths};
use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

/// The options of `build-module`.
#[derive(Debug, Clone, Args)]
pub struct BuildModuleArgs {
    /// The module's folder, with Cargo.toml and sila.toml
    pub dir: PathBuf,
}

impl BuildModuleArgs {
    /// Builds the module and says where its ELF file is.
    pub fn run(&self) -> Result<()> {
        let folder = ModuleFolder::open(&self.dir)?;
        let elf = folder.build(&toolchain::select()?)?;
        let name = &folder.description.module.name;
        println!("built {name}: {}", elf.display());
        println!("next: sila pack {}", self.dir.display());
        Ok(())
    }
}

/// A module's folder with a readable description.
#[derive(Debug)]
pub struct ModuleFolder {
    /// The folder.
    pub dir: PathBuf,
    /// Its sila.toml.
    pub description: ModuleDescription,
}

/// What cargo says about the crate.
#[derive(Debug, PartialEq, Eq)]
struct Crate {
    program: String,
    lock: PathBuf,
    has_bare_metal: bool,
}

impl ModuleFolder {
    /// Looks at the folder: it must have a Cargo.toml and a sila.toml that makes a manifest.
    pub fn open(dir: &Path) -> Result<Self> {
        if !dir.is_dir() {
            bail!(Usage(format!("{} is no folder; `sila new-module {0}` makes one", dir.display())));
        }
        for (file, what) in [("Cargo.toml", "crate"), ("sila.toml", "description of a module")] {
            if !dir.join(file).is_file() {
                bail!(Usage(format!(
                    "{} has no {file}: it holds no {what} (see `sila new-module`)",
                    dir.display()
                )));
            }
        }
        let dir = dir.canonicalize().with_context(|| format!("cannot find {}", dir.display()))?;
        let file = dir.join("sila.toml");
        let description = ModuleDescription::load(&file)?;
        description.to_manifest().with_context(|| format!("in {}", file.display()))?;
        Ok(Self { dir, description })
    }

    /// The folder that the build writes to.
    fn target(&self) -> PathBuf {
        self.dir.join("target")
    }

    /// Where the ELF file of `program` is after a build.
    fn elf(&self, program: &str) -> PathBuf {
        self.target().join("x86_64-sila-user/release").join(program)
    }

    /// Builds the module; the answer is its ELF file, which has been seen to make an image.
    pub fn build(&self, tools: &Toolchain) -> Result<PathBuf> {
        let found = self.look(tools)?;
        seed_lock(&found.lock)?;
        let mut command = Command::new(&tools.cargo);
        bare::scrub(&mut command);
        command.args(["build", "--release", "--bin", &found.program]);
        bare::user_target(&mut command, tools, &self.dir)?;
        command.env("CARGO_TARGET_DIR", self.target());
        if found.has_bare_metal {
            command.args(["--features", "bare-metal"]);
        }
        if self.is_complete(tools) {
            command.arg("--offline");
        }
        // Cargo speaks for itself here: whoever writes a module wants every warning and error as it is.
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status();
        let status = status.with_context(|| format!("cannot run {}", tools.cargo.display()))?;
        if !status.success() {
            bail!("building the module {} failed", self.description.module.name);
        }
        let elf = self.elf(&found.program);
        let bytes = std::fs::read(&elf).with_context(|| format!("cargo left no {}", elf.display()))?;
        sif_build::elf_to_sif(&bytes).with_context(|| format!("{} makes no image", elf.display()))?;
        Ok(elf)
    }

    /// The ELF file of the last build; a warning if something in the folder is newer.
    pub fn built(&self) -> Result<PathBuf> {
        let found = self.look(&toolchain::select()?)?;
        let elf = self.elf(&found.program);
        let built = std::fs::metadata(&elf).and_then(|data| data.modified());
        let Ok(built) = built else {
            bail!("{} has no built program; run `sila build-module {0}` first", self.dir.display());
        };
        if let Some(newer) = newer_than(built, &self.dir) {
            eprintln!(
                "sila: {} is newer than the program: `sila build-module` has not seen it",
                newer.display()
            );
        }
        Ok(elf)
    }

    /// Asks cargo about the crate in this folder, without the network.
    fn look(&self, tools: &Toolchain) -> Result<Crate> {
        let text = self.metadata(tools, &["--no-deps"])?;
        let value = serde_json::from_str::<Value>(&text).context("cargo's answer makes no sense")?;
        read_crate(&value, &self.dir.join("Cargo.toml"), &self.description.module.name)
    }

    /// Whether everything that Cargo.lock names is on this machine.
    fn is_complete(&self, tools: &Toolchain) -> bool {
        self.metadata(tools, &[]).is_ok()
    }

    fn metadata(&self, tools: &Toolchain, more: &[&str]) -> Result<String> {
        let mut command = Command::new(&tools.cargo);
        bare::scrub(&mut command);
        command.env("RUSTC", &tools.rustc).current_dir(&self.dir).stdin(Stdio::null());
        command.args(["metadata", "--format-version", "1", "--offline"]).args(more);
        let out = command.output().with_context(|| format!("cannot run {}", tools.cargo.display()))?;
        if !out.status.success() {
            let text = String::from_utf8_lossy(&out.stderr);
            bail!("cargo cannot read the crate in {}:\n{}", self.dir.display(), nested::brief(text.trim()));
        }
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    }
}

/// The crate whose Cargo.toml is `manifest`, and its one program (or the one called `module`).
fn read_crate(value: &Value, manifest: &Path, module: &str) -> Result<Crate> {
    let packages = value["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let ours =
        |package: &&Value| package["manifest_path"].as_str().is_some_and(|path| Path::new(path) == manifest);
    let package =
        packages.iter().find(ours).with_context(|| format!("{} is no crate", manifest.display()))?;
    let targets = package["targets"].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_bin =
        |target: &&Value| target["kind"].as_array().is_some_and(|kinds| kinds.contains(&"bin".into()));
    let programs: Vec<&str> =
        targets.iter().filter(is_bin).filter_map(|target| target["name"].as_str()).collect();
    let program = match programs.as_slice() {
        [] => bail!("the crate {} has no program (no src/main.rs)", manifest.display()),
        [one] => one,
        many => many.iter().find(|name| **name == module).ok_or_else(|| {
            anyhow!("the crate has the programs {}, and none is called {module}", many.join(", "))
        })?,
    };
    let root = value["workspace_root"].as_str().context("cargo names no workspace")?;
    Ok(Crate {
        program: program.to_string(),
        lock: Path::new(root).join("Cargo.lock"),
        has_bare_metal: !package["features"]["bare-metal"].is_null(),
    })
}

/// Gives a crate without a Cargo.lock the one of the source tree, whose crates are on this machine already. Cargo
/// drops what the crate does not need.
fn seed_lock(lock: &Path) -> Result<()> {
    if lock.exists() {
        return Ok(());
    }
    let ours = paths::root()?.join("Cargo.lock");
    std::fs::copy(&ours, lock)
        .with_context(|| format!("cannot copy {} to {}", ours.display(), lock.display()))?;
    Ok(())
}

/// A source file of the folder that changed after `time`.
fn newer_than(time: SystemTime, dir: &Path) -> Option<PathBuf> {
    let changed = |path: &Path| path.metadata().and_then(|data| data.modified()).is_ok_and(|at| at > time);
    let mut folders = vec![dir.join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() && !path.is_symlink() {
                folders.push(path);
            } else if changed(&path) {
                return Some(path);
            }
        }
    }
    Some(dir.join("Cargo.toml")).filter(|path| changed(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::missing::status;
    use crate::paths::Scratch;
    use serde_json::json;

    const DESCRIPTION: &str = include_str!("../../../modules/counter/sila.toml");

    fn folder(scratch: &Scratch, files: &[(&str, &str)]) -> PathBuf {
        let dir = scratch.join("m");
        std::fs::create_dir_all(dir.join("src")).unwrap();
        for (file, text) in files {
            std::fs::write(dir.join(file), text).unwrap();
        }
        dir
    }

    #[test]
    fn folders_without_crate_or_description_are_named() {
        let scratch = Scratch::new().unwrap();
        let missing = ModuleFolder::open(&scratch.join("none")).unwrap_err();
        assert!(missing.to_string().contains("is no folder"), "{missing}");
        let dir = folder(&scratch, &[]);
        let error = ModuleFolder::open(&dir).unwrap_err();
        assert!(error.to_string().contains("no Cargo.toml"), "{error}");
        assert_eq!(status(&error), 64);
        let dir = folder(&scratch, &[("Cargo.toml", "")]);
        assert!(ModuleFolder::open(&dir).unwrap_err().to_string().contains("no sila.toml"));
        let dir = folder(&scratch, &[("sila.toml", "[module]\nname = 3")]);
        assert!(format!("{:#}", ModuleFolder::open(&dir).unwrap_err()).contains("sila.toml"));
        let bad = DESCRIPTION.replace("\"MANAGE\"", "\"RULE\"");
        let dir = folder(&scratch, &[("sila.toml", &bad)]);
        assert!(format!("{:#}", ModuleFolder::open(&dir).unwrap_err()).contains("unknown right"));
        let dir = folder(&scratch, &[("sila.toml", DESCRIPTION)]);
        assert_eq!(ModuleFolder::open(&dir).unwrap().description.module.name, "counter");
    }

    #[test]
    fn what_cargo_cannot_read_is_passed_through_and_what_is_not_built_is_said() {
        let scratch = Scratch::new().unwrap();
        let dir = folder(&scratch, &[("Cargo.toml", "[package]\nname = \"m"), ("sila.toml", DESCRIPTION)]);
        let tools = toolchain::select().unwrap();
        let opened = ModuleFolder::open(&dir).unwrap();
        let error = opened.build(&tools).unwrap_err().to_string();
        assert!(error.contains("cargo cannot read") && error.contains("invalid basic string"), "{error}");
        let crate_text = "[package]\nname = \"m\"\nversion = \"1.0.0\"\nedition = \"2024\"\n[workspace]\n";
        let dir = folder(&scratch, &[("Cargo.toml", crate_text), ("src/main.rs", "")]);
        let error = ModuleFolder::open(&dir).unwrap().built().unwrap_err().to_string();
        assert!(error.contains("no built program") && error.contains("build-module"), "{error}");
        assert!(!dir.join("Cargo.lock").exists(), "looking writes nothing");
    }

    #[test]
    fn the_program_is_the_only_one_or_the_one_named_like_the_module() {
        let target = |name: &str, kind: &str| json!({"name": name, "kind": [kind]});
        let answer = |targets: Vec<Value>, features: Value| {
            let package = json!({"manifest_path": "/m/Cargo.toml", "targets": targets, "features": features});
            json!({"packages": [{"manifest_path": "/x/Cargo.toml"}, package], "workspace_root": "/w"})
        };
        let read = |value: &Value| read_crate(value, Path::new("/m/Cargo.toml"), "hello");
        let one = answer(vec![target("lib", "lib"), target("prog", "bin")], json!({}));
        let expected =
            Crate { program: "prog".into(), lock: PathBuf::from("/w/Cargo.lock"), has_bare_metal: false };
        assert_eq!(read(&one).unwrap(), expected);
        let two = answer(vec![target("a", "bin"), target("hello", "bin")], json!({"bare-metal": []}));
        let found = read(&two).unwrap();
        assert_eq!((found.program.as_str(), found.has_bare_metal), ("hello", true));
        let other = answer(vec![target("a", "bin"), target("b", "bin")], json!({}));
        assert!(read(&other).unwrap_err().to_string().contains("a, b"));
        let none = answer(vec![target("a", "lib")], json!({}));
        assert!(read(&none).unwrap_err().to_string().contains("no program"));
    }

    #[test]
    fn newer_sources_are_seen() {
        let scratch = Scratch::new().unwrap();
        let dir = folder(&scratch, &[("Cargo.toml", ""), ("src/main.rs", "")]);
        let now = SystemTime::now() + std::time::Duration::from_secs(60);
        assert_eq!(newer_than(now, &dir), None);
        assert!(newer_than(SystemTime::UNIX_EPOCH, &dir).is_some_and(|path| path.ends_with("src/main.rs")));
        std::fs::remove_file(dir.join("src/main.rs")).unwrap();
        assert!(newer_than(SystemTime::UNIX_EPOCH, &dir).is_some_and(|path| path.ends_with("Cargo.toml")));
    }
}
