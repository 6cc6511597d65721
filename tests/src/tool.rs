//! The host tool from the outside: runs of it, and what they print.

use anyhow::{Context, Result};
use libtest_mimic::Failed;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a run of the tool came to.
#[derive(Clone, Debug)]
pub struct Ran {
    /// The status that it ended with.
    pub status: i32,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

impl Ran {
    /// Fails with everything that was printed, unless the condition holds.
    pub fn want(&self, condition: bool, what: &str) -> Result<(), Failed> {
        if condition {
            return Ok(());
        }
        Err(format!("{what}\nstatus {}\noutput:\n{}\nerrors:\n{}", self.status, self.out, self.err).into())
    }

    /// Whether it printed this text.
    pub fn says(&self, text: &str) -> bool {
        self.out.contains(text) || self.err.contains(text)
    }

    /// What a command of the console printed each time it was given: the lines up to the next prompt.
    pub fn answers(&self, command: &str) -> Vec<Vec<&str>> {
        let prompt = format!("sila> {command}");
        let mut answers = Vec::new();
        let mut lines = self.out.lines().peekable();
        while let Some(line) = lines.next() {
            if line.trim() == prompt {
                let mut answer = Vec::new();
                while let Some(said) = lines.next_if(|line| !line.starts_with("sila> ")) {
                    answer.push(said);
                }
                answers.push(answer);
            }
        }
        answers
    }

    /// What a command of the console printed the first time.
    pub fn printed(&self, command: &str) -> Vec<&str> {
        self.answers(command).into_iter().next().unwrap_or_default()
    }
}

/// The built tool: beside the test's own program.
pub fn tool() -> Result<PathBuf> {
    let here = std::env::current_exe()?;
    let folder = here.parent().and_then(Path::parent).context("no build folder")?;
    let tool = folder.join("sila");
    if !tool.is_file() {
        let status = Command::new("cargo").args(["build", "-p", "boot", "--bin", "sila"]).status()?;
        anyhow::ensure!(status.success() && tool.is_file(), "cargo built no {}", tool.display());
    }
    Ok(tool)
}

/// Runs the tool.
pub fn sila(args: &[&str]) -> Result<Ran> {
    sila_in(Path::new("."), args)
}

/// Runs the tool in a folder.
pub fn sila_in(dir: &Path, args: &[&str]) -> Result<Ran> {
    let out = Command::new(tool()?).current_dir(dir).args(args).output()?;
    Ok(Ran {
        status: out.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&out.stdout).into_owned(),
        err: String::from_utf8_lossy(&out.stderr).into_owned(),
    })
}
