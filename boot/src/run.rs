//! The command `run`.
use crate::cli::{RunArgs, readable};
use crate::guest::{Options, RunOutcome, boot};
use crate::missing::Usage;
use crate::outcome::Outcome;
use crate::paths::Scratch;
use crate::{script, system};
use anyhow::Result;
use std::io::{IsTerminal, Read};

/// How the kernel's report of an audit begins.
const AUDIT: &str = "audit: ";
/// How it ends if every rule holds.
const SOUND: &str = "every rule holds";

/// Builds and runs; the answer is how the guest ended.
pub fn run(args: &RunArgs) -> Result<Outcome> {
    args.system.check_files()?;
    if let Some(image) = &args.image {
        readable(image)?;
    }
    let mut commands = args.commands();
    let interactive = commands.is_none() && std::io::stdin().is_terminal() && !args.no_serial;
    if commands.is_none() && !interactive && !args.no_serial {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        commands = Some(script::split(&text));
    }
    for command in commands.iter().flatten() {
        script::host_step(command).map_err(Usage)?;
    }
    crate::qemu::find()?;
    crate::qemu::firmware()?;
    let scratch = Scratch::new()?;
    let (image, kernel) = match &args.image {
        Some(image) => (image.clone(), args.system.kernel.clone()),
        None => {
            let made = system::make_image(&args.system, &scratch.join("sila.img"))?;
            (made.path, Some(made.kernel))
        }
    };
    if interactive {
        eprintln!("sila: this terminal is the machine's serial console; Ctrl-A X switches the machine off");
    }
    if args.gdb {
        let symbols = kernel.as_ref().map_or_else(|| "the kernel".into(), |path| path.display().to_string());
        eprintln!("sila: the machine waits for a debugger: gdb {symbols} -ex 'target remote :1234'");
    }
    let scripted = commands.is_some().then_some(std::time::Duration::from_secs(120));
    let options = Options {
        image,
        kernel,
        board: args.board(),
        script: commands,
        timeout: args.time_limit().or(scripted.filter(|_| !args.gdb)),
        echo: !interactive,
        screenshot: args.screenshot.clone(),
        interactive,
        push: true,
    };
    let mut outcome = boot(&options, &mut |_| {})?;
    if args.audit_mappings {
        outcome.exit = audited(outcome.exit, &outcome.results);
    }
    report(&outcome, options.interactive);
    Ok(outcome.exit)
}

/// What a run that is to be audited came to: the kernel must have reported that every rule holds.
fn audited(exit: Outcome, results: &[String]) -> Outcome {
    let said: Vec<&String> = results.iter().filter(|line| line.starts_with(AUDIT)).collect();
    for line in &said {
        eprintln!("sila: {line}");
    }
    match exit {
        Outcome::Well if said.is_empty() => Outcome::Silent("the page tables were not audited".into()),
        Outcome::Well if said.iter().any(|line| !line.ends_with(SOUND)) => Outcome::Failed,
        exit => exit,
    }
}

/// Says on standard error how a run went wrong, if it did.
pub fn report(outcome: &RunOutcome, interactive: bool) {
    if !outcome.backtrace.is_empty() {
        eprintln!("sila: the kernel panicked:");
        for line in &outcome.backtrace {
            eprintln!("{line}");
        }
    }
    match &outcome.exit {
        Outcome::Well => {}
        Outcome::Failed => eprintln!("sila: a command or test in the guest failed"),
        Outcome::Panicked if outcome.backtrace.is_empty() => eprintln!("sila: the kernel panicked"),
        Outcome::Panicked => {}
        Outcome::Silent(why) => {
            eprintln!("sila: the guest did not report: {why}");
            let lines = outcome.last_lines();
            if !interactive && !lines.is_empty() {
                eprintln!("sila: its last lines:");
                for line in lines {
                    eprintln!("    {line}");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_to_be_audited_wants_a_report_that_every_rule_holds() {
        let lines = |text: &str| vec!["PASS".to_string(), text.to_string()];
        let sound = lines("audit: 512 user pages, every rule holds");
        let broken = lines("audit: WriteXorExecute broken by process 3 at 0x1000");
        assert!(matches!(audited(Outcome::Well, &sound), Outcome::Well));
        assert!(matches!(audited(Outcome::Failed, &sound), Outcome::Failed));
        assert!(matches!(audited(Outcome::Well, &broken), Outcome::Failed));
        assert!(matches!(audited(Outcome::Well, &[]), Outcome::Silent(_)));
    }
}
