//! What people can ask for, read from a line. Pure.

use crate::demo::Demo;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use sila_rt::sila_abi::record::{Name, Version};
use sila_rt::sila_abi::trace::{ALL_KINDS, Kind, bit};

/// Records that `trace show` shows unless told otherwise.
pub const SHOWN: usize = 50;

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Nothing: an empty line.
    Nothing,
    /// List the commands.
    Help,
    /// List the processes.
    Ps,
    /// List a process's capabilities.
    Caps(Process),
    /// Show totals of memory.
    Mem,
    /// List the devices.
    Devices,
    /// Show what the kernel has counted.
    Counters,
    /// Record kinds of events, or none any more.
    Trace(u64),
    /// Show the newest records.
    TraceShow(usize),
    /// Have the page tables walked.
    Audit,
    /// List the modules that ModuleManager knows.
    Modules,
    /// List the registered services.
    Services,
    /// List whose signatures count.
    Keys,
    /// List the floors.
    Floors,
    /// Show the policy.
    Policy,
    /// List the cached images.
    Cache,
    /// List what the depot keeps.
    Depot,
    /// Let the depot give a package up.
    DepotRemove {
        /// Which.
        name: Name,
        /// Its version.
        version: Version,
    },
    /// Load a module.
    Load {
        /// Which.
        name: Name,
        /// That version, or the newest.
        version: Option<Version>,
    },
    /// Stop a module.
    Stop(u64),
    /// Call a service.
    Call {
        /// Which.
        service: Name,
        /// The text call.
        text: String,
        /// A demonstration program to pass along.
        program: Option<Demo>,
    },
    /// Tell the time since boot.
    Uptime,
    /// Show the kernel's log.
    Log,
    /// Switch the machine off.
    PowerOff,
}

/// A process, as people name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Process {
    /// By its id.
    Id(u64),
    /// By its module's name: the first one of that name.
    Name(Name),
}

/// Each command's form and what it does, in the order of `help`.
pub const HELP: &[(&str, &str)] = &[
    ("help", "list these commands"),
    ("ps", "list the processes"),
    ("caps ID|NAME", "list the capabilities of a process"),
    ("mem", "show memory in use"),
    ("devices", "list the devices, and what of each was handed out"),
    ("counters", "show what the kernel has counted"),
    ("trace [show [N]]", "show the newest events that the kernel has recorded: 50, or N"),
    ("trace on [KINDS…]", "record events of these kinds, or of all but enter and leave"),
    ("trace off", "record no events any more"),
    ("audit", "walk every page table (in systems started with --audit-mappings, and test systems)"),
    ("modules", "list the modules that were loaded"),
    ("services", "list the registered services"),
    ("keys", "list the publishers' keys, the root set, what is revoked and what runs in spite of it"),
    ("floors", "list the lowest security versions that are loaded"),
    ("policy", "show the policy: limits, rules, load scopes"),
    ("cache", "list the verified images that the kernel keeps for later loads"),
    ("depot", "list the packages that were pushed into the system"),
    ("depot remove NAME@VERSION", "let the depot give this package up"),
    ("load NAME[@VERSION]", "load a module: the newest version, or that one"),
    ("stop ID", "stop the module in this process"),
    ("call SERVICE WORDS…", "call a service; @fib, @spin or @trap passes a WebAssembly program"),
    ("uptime", "show the time since boot"),
    ("log", "show the kernel's log"),
    ("poweroff", "switch the machine off"),
];

/// Reads a line.
///
/// # Errors
/// A sentence that names what is wrong.
pub fn parse(line: &str) -> Result<Command, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let Some((&verb, arguments)) = words.split_first() else { return Ok(Command::Nothing) };
    let plain = |command| if arguments.is_empty() { Ok(command) } else { Err(takes_none(verb, arguments)) };
    match verb {
        "help" => plain(Command::Help),
        "ps" => plain(Command::Ps),
        "mem" => plain(Command::Mem),
        "devices" => plain(Command::Devices),
        "counters" => plain(Command::Counters),
        "audit" => plain(Command::Audit),
        "trace" => trace(arguments),
        "modules" => plain(Command::Modules),
        "services" => plain(Command::Services),
        "uptime" => plain(Command::Uptime),
        "keys" => plain(Command::Keys),
        "floors" => plain(Command::Floors),
        "policy" => plain(Command::Policy),
        "cache" => plain(Command::Cache),
        "log" => plain(Command::Log),
        "poweroff" => plain(Command::PowerOff),
        "caps" => process(arguments).map(Command::Caps),
        "stop" => process_id(verb, arguments).map(Command::Stop),
        "depot" => depot(arguments),
        "load" => load(arguments),
        "call" => call(arguments),
        _ => Err(format!("no command is called `{verb}`; `help` lists them")),
    }
}

fn takes_none(verb: &str, arguments: &[&str]) -> String {
    format!("{verb}: takes no argument, but `{}` was given", arguments.join(" "))
}

fn process_id(verb: &str, arguments: &[&str]) -> Result<u64, String> {
    match arguments {
        [id] => id.parse().map_err(|_| format!("{verb}: `{id}` is not a process id; `ps` shows them")),
        _ => Err(format!("{verb}: takes one process id: {verb} ID")),
    }
}

fn process(arguments: &[&str]) -> Result<Process, String> {
    match arguments {
        [one] => match one.parse() {
            Ok(id) => Ok(Process::Id(id)),
            Err(_) => name("caps", "process", one).map(Process::Name),
        },
        _ => Err("caps: takes one process: caps ID|NAME".into()),
    }
}

fn trace(arguments: &[&str]) -> Result<Command, String> {
    const FORM: &str = "trace: takes `show [N]`, `on [KINDS…]` or `off`";
    match arguments {
        [] | ["show"] => Ok(Command::TraceShow(SHOWN)),
        ["show", count] => match count.parse() {
            Ok(count) => Ok(Command::TraceShow(count)),
            Err(_) => Err(format!("trace: `{count}` is not a number of records")),
        },
        ["off"] => Ok(Command::Trace(0)),
        ["on"] => Ok(Command::Trace(ALL_KINDS & !bit(Kind::Enter) & !bit(Kind::Leave))),
        ["on", kinds @ ..] => {
            kinds.iter().try_fold(0, |all, kind| Ok(all | kind_bit(kind)?)).map(Command::Trace)
        }
        _ => Err(FORM.into()),
    }
}

/// The bit of a kind of events by its name; `all` is every kind.
fn kind_bit(text: &str) -> Result<u64, String> {
    if text == "all" {
        return Ok(ALL_KINDS);
    }
    let found = Kind::ALL.iter().find(|kind| kind.name() == text);
    found.map(|kind| bit(*kind)).ok_or_else(|| {
        let names: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        format!("trace: no kind of events is called `{text}`; there are all, {}", names.join(", "))
    })
}

fn name(verb: &str, what: &str, text: &str) -> Result<Name, String> {
    Name::new(text).map_err(|error| format!("{verb}: `{text}` cannot name a {what}: {error}"))
}

fn load(arguments: &[&str]) -> Result<Command, String> {
    let [given] = arguments else { return Err("load: takes one module: load NAME[@VERSION]".into()) };
    let (name, version) = module("load", given)?;
    Ok(Command::Load { name, version })
}

fn depot(arguments: &[&str]) -> Result<Command, String> {
    const FORM: &str = "depot: takes nothing, or `remove NAME@VERSION`";
    match arguments {
        [] => Ok(Command::Depot),
        ["remove", given] => match module("depot", given)? {
            (name, Some(version)) => Ok(Command::DepotRemove { name, version }),
            (name, None) => Err(format!("depot: which version of `{name}`? depot remove {name}@VERSION")),
        },
        _ => Err(FORM.into()),
    }
}

/// `NAME[@VERSION]`.
fn module(verb: &str, given: &str) -> Result<(Name, Option<Version>), String> {
    let (text, version) = match given.split_once('@') {
        None => (given, None),
        Some((text, version)) => {
            let version = Version::parse(version).ok_or_else(|| {
                format!("{verb}: `{version}` is not a version (three numbers, such as 1.0.2)")
            })?;
            (text, Some(version))
        }
    };
    Ok((name(verb, "module", text)?, version))
}

fn call(arguments: &[&str]) -> Result<Command, String> {
    let Some((service, words)) = arguments.split_first() else {
        return Err("call: takes a service and what to tell it: call SERVICE WORDS…".into());
    };
    let service = name("call", "service", service)?;
    let at = words.iter().position(|word| word.starts_with('@'));
    let program = match at.and_then(|at| words.get(at)) {
        None => None,
        Some(word) => Some(Demo::from_argument(word).ok_or_else(|| {
            format!("call: there is no demonstration program `{word}`; there are @fib, @spin and @trap")
        })?),
    };
    let rest: Vec<&str> =
        words.iter().enumerate().filter(|(i, _)| Some(*i) != at).map(|(_, word)| *word).collect();
    Ok(Command::Call { service, text: rest.join(" "), program })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    #[test]
    fn every_command_of_the_help_is_read() {
        for (form, _) in HELP {
            let line = form
                .replace("ID|NAME", "7")
                .replace("ID", "7")
                .replace("NAME[@VERSION]", "counter")
                .replace("NAME@VERSION", "counter@1.2.3")
                .replace("SERVICE", "wasm")
                .replace("[show [N]]", "show 20")
                .replace("[KINDS…]", "call reply");
            assert!(parse(&line).is_ok(), "{line}");
        }
        assert_eq!(parse("  ps  "), Ok(Command::Ps));
        assert_eq!(parse("   "), Ok(Command::Nothing));
    }

    #[test]
    fn depot_lists_or_removes_one_version() {
        assert_eq!(parse("depot"), Ok(Command::Depot));
        let version = Version::new(1, 2, 3);
        assert_eq!(parse("depot remove a@1.2.3"), Ok(Command::DepotRemove { name: name("a"), version }));
        for (line, part) in [
            ("depot remove a", "which version of `a`"),
            ("depot remove a@1", "not a version"),
            ("depot remove A@1.2.3", "cannot name a module"),
            ("depot remove", "NAME@VERSION"),
            ("depot clear", "NAME@VERSION"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
        }
    }

    #[test]
    fn load_takes_a_name_and_perhaps_a_version() {
        assert_eq!(parse("load counter"), Ok(Command::Load { name: name("counter"), version: None }));
        let version = Some(Version::new(1, 2, 3));
        assert_eq!(parse("load counter@1.2.3"), Ok(Command::Load { name: name("counter"), version }));
    }

    #[test]
    fn call_keeps_the_words_and_takes_the_program_out() {
        let call =
            |text: &str, program| Ok(Command::Call { service: name("wasm"), text: text.into(), program });
        assert_eq!(parse("call wasm run  f 1"), call("run f 1", None));
        assert_eq!(parse("call wasm run @fib fib 20"), call("run fib 20", Some(Demo::Fib)));
        assert_eq!(parse("call wasm @spin run spin @x"), call("run spin @x", Some(Demo::Spin)));
        assert_eq!(parse("call wasm"), call("", None));
    }

    #[test]
    fn caps_takes_an_id_or_a_name() {
        assert_eq!(parse("caps 7"), Ok(Command::Caps(Process::Id(7))));
        assert_eq!(parse("caps counter"), Ok(Command::Caps(Process::Name(name("counter")))));
    }

    #[test]
    fn trace_takes_kinds_by_name() {
        assert_eq!(parse("trace"), Ok(Command::TraceShow(SHOWN)));
        assert_eq!(parse("trace show 7"), Ok(Command::TraceShow(7)));
        assert_eq!(parse("trace off"), Ok(Command::Trace(0)));
        assert_eq!(parse("trace on call map"), Ok(Command::Trace(bit(Kind::Call) | bit(Kind::Map))));
        assert_eq!(parse("trace on all"), Ok(Command::Trace(ALL_KINDS)));
        let Ok(Command::Trace(kinds)) = parse("trace on") else { panic!("not read") };
        assert_eq!(kinds | bit(Kind::Enter) | bit(Kind::Leave), ALL_KINDS);
        assert_ne!(kinds, ALL_KINDS);
    }

    #[test]
    fn wrong_commands_are_answered_with_a_sentence_that_names_them() {
        for (line, parts) in [
            ("frobnicate", &["`frobnicate`", "help"][..]),
            ("ps now", &["ps: takes no argument", "`now`"]),
            ("caps", &["caps ID|NAME"]),
            ("caps X", &["`X`", "name a process"]),
            ("trace on frob", &["`frob`", "process-end"]),
            ("trace show x", &["`x`"]),
            ("trace frob", &["trace: takes"]),
            ("counters now", &["counters: takes no argument"]),
            ("stop 1 2", &["stop ID"]),
            ("load", &["load NAME"]),
            ("load a b", &["load NAME"]),
            ("load Counter", &["`Counter`", "name a module"]),
            ("load counter@new", &["`new` is not a version"]),
            ("call", &["call SERVICE"]),
            ("call UPPER x", &["`UPPER`"]),
            ("call wasm run @nosuch", &["`@nosuch`", "@fib"]),
        ] {
            let error = parse(line).unwrap_err();
            for part in parts {
                assert!(error.contains(part), "{line}: {error}");
            }
        }
    }
}
