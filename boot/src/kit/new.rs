//! `new-module`: a folder with a small service that builds, packs and runs as it is.

use crate::missing::Usage;
use crate::paths;
use crate::pkg::keys::name;
use anyhow::{Context, Result, bail};
use clap::Args;
use std::path::{Path, PathBuf};

/// Names that cargo or the build of the library takes for itself, besides Rust's keywords.
const TAKEN: [&str; 10] = [
    "alloc",
    "compiler-builtins",
    "core",
    "panic-abort",
    "proc-macro",
    "sila-abi",
    "sila-rt",
    "std",
    "test",
    "build",
];

/// Words that no crate may be called.
const KEYWORDS: [&str; 52] = [
    "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate", "do", "dyn",
    "else", "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl", "in", "let", "loop",
    "macro", "match", "mod", "move", "mut", "override", "priv", "pub", "ref", "return", "self", "static",
    "struct", "super", "trait", "true", "try", "type", "typeof", "union", "unsafe", "unsized", "use",
    "virtual", "where", "while", "yield",
];

/// The options of `new-module`.
#[derive(Debug, Clone, Args)]
pub struct NewModuleArgs {
    /// The folder to make
    pub dir: PathBuf,
    /// The module's name (default: the folder's)
    #[arg(long)]
    pub name: Option<String>,
    /// The publisher that will sign it; `pack` then refuses the keys of others
    #[arg(long)]
    pub publisher: Option<String>,
}

impl NewModuleArgs {
    /// Makes the folder. Nothing is left behind if that fails.
    pub fn run(&self) -> Result<()> {
        let name = self.module_name()?;
        let publisher = self.publisher.as_deref();
        if let Some(publisher) = publisher {
            crate::pkg::keys::name(publisher).map_err(|e| Usage(format!("{e:#}")))?;
        }
        let files = files(&name, publisher, &paths::root()?)?;
        if self.dir.symlink_metadata().is_ok() {
            bail!(Usage(format!("{} exists; `new-module` makes a new folder", self.dir.display())));
        }
        std::fs::create_dir_all(&self.dir).with_context(|| format!("cannot make {}", self.dir.display()))?;
        if let Err(error) = write(&self.dir, &files) {
            let _ = std::fs::remove_dir_all(&self.dir);
            return Err(error);
        }
        println!("made the module {name} in {}; next:", self.dir.display());
        println!("    sila build-module {0}\n    sila pack {0}", self.dir.display());
        Ok(())
    }

    /// The name given, or the folder's; it must do for a module and for a crate.
    fn module_name(&self) -> Result<String> {
        let folder = || self.dir.file_name().and_then(|name| name.to_str()).map(str::to_string);
        let given = self.name.clone().or_else(folder);
        let text = given.ok_or_else(|| Usage(format!("{} gives no name: use --name", self.dir.display())))?;
        match refusal(&text) {
            None => Ok(text),
            Some(why) => bail!(Usage(format!("a module cannot be called {text:?}: {why}"))),
        }
    }
}

/// Why a module of this name cannot be a crate of that name, too.
fn refusal(text: &str) -> Option<String> {
    if let Err(error) = name(text) {
        return Some(format!("{:#}", error));
    }
    if !text.starts_with(|c: char| c.is_ascii_lowercase()) {
        return Some("a crate's name begins with a letter a to z".into());
    }
    if text.contains('.') {
        return Some("a crate's name has no dot (a module's may: change `name` in sila.toml)".into());
    }
    let taken = TAKEN.contains(&text) || KEYWORDS.contains(&text);
    taken.then(|| "cargo or Rust takes that name for itself".into())
}

/// A file of the new folder: where, and what it holds.
type NewFile = (&'static str, String);

fn files(name: &str, publisher: Option<&str>, tree: &Path) -> Result<[NewFile; 5]> {
    let runtime = tree.join("sila_rt");
    let runtime = runtime.to_str().context("the source tree's path is not UTF-8")?;
    let line = publisher.map(|p| format!("publisher = \"{p}\"\n")).unwrap_or_default();
    let fill = |text: &str| {
        text.replace("@SILA_RT@", &toml::Value::from(runtime).to_string())
            .replace("@TREE@", &tree.display().to_string())
            .replace("@PUBLISHER@", &line)
            .replace("@KEYS@", if publisher.is_some() { " --keys ../keys" } else { "" })
            .replace("@SIGNING@", &signing(publisher))
            .replace("@NAME@", name)
    };
    Ok([
        ("Cargo.toml", fill(include_str!("template/Cargo.toml.txt"))),
        ("src/main.rs", fill(include_str!("template/main.rs.txt"))),
        ("sila.toml", fill(include_str!("template/sila.toml.txt"))),
        (".gitignore", fill(include_str!("template/gitignore.txt"))),
        ("README.md", fill(include_str!("template/README.md.txt"))),
    ])
}

/// What the new README says about keys.
fn signing(publisher: Option<&str>) -> String {
    match publisher {
        None => "\nWithout `--keys` the package is signed with the tree's test keys, which a release system refuses.".into(),
        Some(publisher) => format!(
            "\nThe folder `../keys` is the publisher's: `sila keygen ../keys --publisher-only --publisher {publisher}` \
             makes it, and who holds\nthe root keys certifies it (`sila certify`). The system must know that root set: \
             `sila run --keys`."
        ),
    }
}

fn write(dir: &Path, files: &[NewFile]) -> Result<()> {
    for (place, text) in files {
        let path = dir.join(place);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        }
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::missing::status;
    use crate::paths::Scratch;
    use crate::pkg::description::ModuleDescription;

    fn args(dir: PathBuf, name: Option<&str>, publisher: Option<&str>) -> NewModuleArgs {
        NewModuleArgs { dir, name: name.map(str::to_string), publisher: publisher.map(str::to_string) }
    }

    fn read(path: PathBuf) -> String {
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn a_new_module_has_all_its_files_and_no_gaps() {
        let scratch = Scratch::new().unwrap();
        let dir = scratch.join("deep/hello");
        args(dir.clone(), None, Some("acme")).run().unwrap();
        for file in ["Cargo.toml", "src/main.rs", "sila.toml", ".gitignore", "README.md"] {
            let text = read(dir.join(file));
            assert!(!text.is_empty() && !text.contains('@'), "{file}: {text}");
        }
        let description = ModuleDescription::load(&dir.join("sila.toml")).unwrap();
        assert_eq!(description.module.publisher.as_deref(), Some("acme"));
        assert_eq!(description.to_manifest().unwrap().name.as_str(), "hello");
        let cargo: toml::Table = read(dir.join("Cargo.toml")).parse().unwrap();
        let runtime = cargo["dependencies"]["sila_rt"]["path"].as_str().unwrap();
        assert!(Path::new(runtime).join("user.ld").is_file(), "{runtime}");
        assert!(cargo["workspace"].as_table().unwrap().is_empty());
    }

    #[test]
    fn the_book_shows_what_is_made() {
        let book = read(paths::root().unwrap().join("docs/writing-a-module.md"));
        let files = files("hello", None, Path::new("/src/sila")).unwrap();
        for (place, text) in files.iter().filter(|(place, _)| !place.starts_with(['.', 'R'])) {
            assert!(book.contains(text), "docs/writing-a-module.md shows another {place} than:\n{text}");
        }
    }

    #[test]
    fn without_a_publisher_the_description_names_none() {
        let scratch = Scratch::new().unwrap();
        let dir = scratch.join("some-folder");
        args(dir.clone(), Some("other"), None).run().unwrap();
        let description = ModuleDescription::load(&dir.join("sila.toml")).unwrap();
        assert_eq!((description.module.name.as_str(), description.module.publisher), ("other", None));
    }

    #[test]
    fn existing_folders_and_bad_names_are_refused_and_nothing_is_made() {
        let scratch = Scratch::new().unwrap();
        let taken = scratch.join("taken");
        std::fs::create_dir(&taken).unwrap();
        let error = args(taken.clone(), None, None).run().unwrap_err();
        assert_eq!(status(&error), 64);
        assert!(error.to_string().contains("exists"), "{error}");
        assert_eq!(std::fs::read_dir(&taken).unwrap().count(), 0);
        for bad in [
            "",
            "Hello",
            "a b",
            "../x",
            "1st",
            "-x",
            "core",
            "fn",
            "test",
            "sila-rt",
            "net.dns",
            "under_score",
        ] {
            let dir = scratch.join("new");
            let error = args(dir.clone(), Some(bad), None).run().unwrap_err();
            assert_eq!(status(&error), 64, "{bad}");
            assert!(!dir.exists(), "{bad}");
        }
        let error = args(scratch.join("new"), None, Some("ACME")).run().unwrap_err();
        assert_eq!(status(&error), 64);
        assert!(!scratch.join("new").exists());
        assert_eq!(status(&args(PathBuf::from("/"), None, None).run().unwrap_err()), 64);
    }

    #[test]
    fn keyword_lists_are_sorted_and_whole() {
        assert!(KEYWORDS.is_sorted());
        assert!(KEYWORDS.iter().chain(&TAKEN).all(|word| refusal(word).is_some()));
    }
}
