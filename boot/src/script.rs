//! Drives the guest's console by a script: one command at each prompt.
use crate::screen::Screen;
use std::collections::VecDeque;
use std::path::PathBuf;

/// The prompt at which the console waits for a command.
pub const PROMPT: &str = "sila> ";

/// Splits `a; b; c` at semicolons outside quotes; adds `poweroff` if the script does not end with it.
pub fn split(script: &str) -> Vec<String> {
    let (mut commands, mut current, mut quote) = (Vec::new(), String::new(), None);
    for char in script.chars() {
        match (char, quote) {
            (';' | '\n', None) => commands.push(std::mem::take(&mut current)),
            ('"' | '\'', None) => {
                quote = Some(char);
                current.push(char);
            }
            (char, Some(open)) if char == open => {
                quote = None;
                current.push(char);
            }
            (char, _) => current.push(char),
        }
    }
    commands.push(current);
    let mut commands: Vec<String> = commands
        .iter()
        .map(|command| command.trim().to_string())
        .filter(|command| !command.is_empty())
        .collect();
    if commands.last().is_none_or(|last| last != "poweroff") {
        commands.push("poweroff".into());
    }
    commands
}

/// What a script does on the host between two commands of the console.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostStep {
    /// `!push FILE`: send this file to the system.
    Push(PathBuf),
    /// `!export-floors FILE`: write the system's floors to this file.
    ExportFloors(PathBuf),
}

/// Reads a command of a script as a host step; `None` if it is one of the console's.
///
/// # Errors
/// It begins with `!`, and is no such step.
pub fn host_step(command: &str) -> Result<Option<HostStep>, String> {
    let Some(step) = command.strip_prefix('!') else { return Ok(None) };
    let (verb, rest) = step.split_once(char::is_whitespace).unwrap_or((step, ""));
    let file = rest.trim().trim_matches(['"', '\'']);
    match (verb, file) {
        ("push" | "export-floors", "") => Err(format!("`!{verb}` takes a file: !{verb} FILE")),
        ("push", file) => Ok(Some(HostStep::Push(file.into()))),
        ("export-floors", file) => Ok(Some(HostStep::ExportFloors(file.into()))),
        _ => Err(format!("a script has no step `!{verb}`; there are `!push FILE` and `!export-floors FILE`")),
    }
}

/// What the driver wants done.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Do this on the host, then call [`Driver::go_on`].
    Host(String, HostStep),
    /// Show this line.
    Show(String),
    /// Type this command. The flag says that it is the script's last.
    Type(String, bool),
    /// The script is over and the console asks for more: the guest did not power off.
    Overrun,
}

/// Reads the console and decides when to type what.
#[derive(Debug)]
pub struct Driver {
    screen: Screen,
    commands: VecDeque<String>,
    ready: bool,
    quiet: bool,
}

/// What firmware and loader say before the kernel runs.
fn is_firmware(line: &str) -> bool {
    line.trim().is_empty()
        || line.starts_with("BdsDxe:")
        || line.starts_with("WARN :")
        || line.starts_with("INFO :")
}

impl Driver {
    /// A driver for these commands.
    pub fn new(commands: Vec<String>) -> Self {
        Self { screen: Screen::default(), commands: commands.into(), ready: true, quiet: true }
    }

    /// Takes what the console sent.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Action> {
        let mut actions = Vec::new();
        for byte in bytes {
            if let Some(line) = self.screen.feed(*byte) {
                self.ready = true;
                self.quiet &= is_firmware(&line);
                if !self.quiet {
                    actions.push(Action::Show(line.trim_end().to_string()));
                }
            }
            // Only after a line end: a line editor may redraw the prompt while it echoes a command.
            if self.ready && self.screen.stands_at(PROMPT) {
                self.ready = false;
                self.quiet = false;
                actions.push(self.go_on());
            }
        }
        actions
    }

    /// The next command, for a prompt that stands.
    pub fn go_on(&mut self) -> Action {
        match self.commands.pop_front() {
            Some(command) => match host_step(&command) {
                Ok(Some(step)) => Action::Host(command, step),
                _ => Action::Type(command, self.commands.is_empty()),
            },
            None => Action::Overrun,
        }
    }

    /// What stands on the last, unfinished line.
    pub fn rest(&self) -> String {
        self.screen.current()
    }

    /// Whether commands are left.
    pub fn pending(&self) -> usize {
        self.commands.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn script_is_split_at_semicolons() {
        assert_eq!(split("ps; load counter;;  poweroff "), ["ps", "load counter", "poweroff"]);
    }

    #[test]
    fn script_without_poweroff_gets_one() {
        assert_eq!(split("ps"), ["ps", "poweroff"]);
        assert_eq!(split(""), ["poweroff"]);
    }

    #[test]
    fn semicolons_in_quotes_stay() {
        assert_eq!(split("call wasm 'a; b'; ps"), ["call wasm 'a; b'", "ps", "poweroff"]);
    }

    #[test]
    fn one_command_is_typed_at_each_prompt() {
        let mut driver = Driver::new(split("ps"));
        assert_eq!(
            driver.feed(b"\x1b[2JBdsDxe: loading\r\nboot\r\nsila> "),
            [Action::Show("boot".into()), Action::Type("ps".into(), false)]
        );
        assert_eq!(driver.feed(b"p\rsila> "), []);
        assert_eq!(
            driver.feed(b"ps\r\nid name\r\nsila> "),
            [
                Action::Show("sila> ps".into()),
                Action::Show("id name".into()),
                Action::Type("poweroff".into(), true)
            ]
        );
    }

    #[test]
    fn host_steps_are_told_from_commands() {
        let push = |path: &str| Ok(Some(HostStep::Push(path.into())));
        assert_eq!(host_step("!push a.sila"), push("a.sila"));
        assert_eq!(host_step("!push  'a b; c.sila' "), push("a b; c.sila"));
        assert_eq!(host_step("push a"), Ok(None));
        let export = Ok(Some(HostStep::ExportFloors("floors.rec".into())));
        assert_eq!(host_step("!export-floors floors.rec"), export);
        assert!(host_step("!export-floors").is_err());
        assert!(host_step("!push").is_err() && host_step("!pull x").is_err() && host_step("!").is_err());
    }

    #[test]
    fn after_a_host_step_the_script_goes_on_at_the_same_prompt() {
        let mut driver = Driver::new(split("!push a; !push b; ps"));
        let step = |file: &str| Action::Host(format!("!push {file}"), HostStep::Push(file.into()));
        assert_eq!(driver.feed(b"sila> "), [step("a")]);
        assert_eq!(driver.go_on(), step("b"));
        assert_eq!(driver.go_on(), Action::Type("ps".into(), false));
        assert_eq!(driver.feed(b"ps\r\nsila> ")[1], Action::Type("poweroff".into(), true));
    }

    #[test]
    fn a_guest_that_goes_on_after_the_script_is_noticed() {
        let mut driver = Driver::new(split(""));
        assert_eq!(driver.feed(b"sila> "), [Action::Type("poweroff".into(), true)]);
        assert_eq!(
            driver.feed(b"poweroff\r\nsila> "),
            [Action::Show("sila> poweroff".into()), Action::Overrun]
        );
    }
}
