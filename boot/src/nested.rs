//! Runs a nested cargo: progress while it works, the first error if it fails, everything in the log.
use crate::paths;
use crate::progress::Step;
use anyhow::{Context, Result, anyhow};
use serde_json::Value;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

/// What a nested cargo produced: name of the target and its executable.
pub type Executables = Vec<(String, PathBuf)>;

/// What one line of cargo's JSON says that we care about.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Error(String),
    Executable(String, PathBuf),
    Other,
}

/// An error as it is shown: a linker's whole command line and what follows a screenful stay in the log.
pub(crate) fn brief(text: &str) -> String {
    const LINES: usize = 40;
    let command = |line: &&str| !line.trim_start_matches([' ', '=']).starts_with("note:  \"");
    let mut lines: Vec<&str> = text.lines().filter(command).take(LINES + 1).collect();
    if lines.len() > LINES {
        lines.truncate(LINES);
        lines.push("...");
    }
    lines.join("\n")
}

fn read_line(line: &str) -> Line {
    let Ok(value) = serde_json::from_str::<Value>(line) else { return Line::Other };
    match value["reason"].as_str() {
        Some("compiler-message") if value["message"]["level"] == "error" => {
            let message = &value["message"];
            let text = message["rendered"].as_str().or(message["message"].as_str());
            Line::Error(text.unwrap_or("an error without text").trim_end().to_string())
        }
        Some("compiler-artifact") => match (value["target"]["name"].as_str(), value["executable"].as_str()) {
            (Some(name), Some(path)) => Line::Executable(name.to_string(), PathBuf::from(path)),
            _ => Line::Other,
        },
        _ => Line::Other,
    }
}

fn open_log() -> Result<(PathBuf, File)> {
    let path = paths::state()?.join("build.log");
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok((path, log))
}

/// Empties the build log; called once at the start of a build.
pub fn new_log() -> Result<()> {
    let path = paths::state()?.join("build.log");
    File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(())
}

/// Runs a prepared `cargo build` and returns the executables it names.
pub fn run(mut command: Command, title: &str) -> Result<Executables> {
    let (log_path, mut log) = open_log()?;
    writeln!(log, "== {title}\n{command:?}")?;
    let log = Arc::new(Mutex::new(log));
    let mut step = Step::start(title);
    command.arg("--message-format=json").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot run {:?}", command.get_program()))?;
    let stdout = child.stdout.take().context("no output pipe")?;
    let stderr = child.stderr.take().context("no error pipe")?;
    let out_log = Arc::clone(&log);
    let reader = std::thread::spawn(move || {
        let (mut first, mut made) = (None, Executables::new());
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            match read_line(&line) {
                Line::Error(text) => {
                    if let Ok(mut log) = out_log.lock() {
                        let _ = writeln!(log, "{text}");
                    }
                    first.get_or_insert(text);
                }
                Line::Executable(name, path) => made.push((name, path)),
                Line::Other => {}
            }
        }
        (first, made)
    });
    let mut plain_error = None;
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        if let Ok(mut log) = log.lock() {
            let _ = writeln!(log, "{line}");
        }
        let line = line.trim();
        if line.starts_with("error") && plain_error.is_none() {
            plain_error = Some(line.to_string());
        } else if line.starts_with("Caused by")
            || line.starts_with("Compiling")
            || line.starts_with("Downloading")
        {
            step.at(line);
        }
    }
    let status = child.wait()?;
    let (first, made) = reader.join().map_err(|_| anyhow!("reading cargo's output failed"))?;
    if status.success() {
        step.done();
        return Ok(made);
    }
    let text = first.or(plain_error).unwrap_or_else(|| format!("cargo ended with {status}"));
    Err(anyhow!(
        "{title} failed; the first error is:\n{}\n(everything: {})",
        brief(&text),
        log_path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_compiler_error_is_recognised() {
        let line = r#"{"reason":"compiler-message","message":{"level":"error","rendered":"error: no\n","message":"no"}}"#;
        assert_eq!(read_line(line), Line::Error("error: no".into()));
    }

    #[test]
    fn a_linkers_command_line_and_endless_errors_stay_in_the_log() {
        let text =
            "error: linking failed\n  |\n  = note:  \"/bin/ld\" \"-o\"\n  = note: undefined symbol: free";
        assert_eq!(brief(text), "error: linking failed\n  |\n  = note: undefined symbol: free");
        assert_eq!(brief(&"x\n".repeat(500)).lines().count(), 41);
    }

    #[test]
    fn warnings_and_noise_are_not_errors() {
        let line =
            r#"{"reason":"compiler-message","message":{"level":"warning","rendered":"w","message":"w"}}"#;
        assert_eq!(read_line(line), Line::Other);
        assert_eq!(read_line("not json"), Line::Other);
    }

    #[test]
    fn executables_are_collected_and_libraries_are_not() {
        let exe = r#"{"reason":"compiler-artifact","target":{"name":"kernel"},"executable":"/t/kernel"}"#;
        assert_eq!(read_line(exe), Line::Executable("kernel".into(), "/t/kernel".into()));
        let lib = r#"{"reason":"compiler-artifact","target":{"name":"core"},"executable":null}"#;
        assert_eq!(read_line(lib), Line::Other);
    }
}
