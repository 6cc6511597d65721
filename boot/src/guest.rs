//! One run of the guest: QEMU, its channels, and how it ended.
use crate::outcome::Outcome;
use crate::paths::Scratch;
use crate::push::{Listed, export_floors, push_file};
use crate::qemu::{self, Board, Channels, Serial};
use crate::script::{Action, Driver, HostStep, PROMPT};
use crate::{backtrace, screenshot, toolchain};
use anyhow::{Context, Result};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// How many lines of a console are shown when a run ends badly.
const LAST_LINES: usize = 25;

/// What to run and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// The disk image.
    pub image: PathBuf,
    /// The kernel's ELF file, for backtraces.
    pub kernel: Option<PathBuf>,
    /// The machine.
    pub board: Board,
    /// Commands to type, one at each prompt (see [`crate::script::split`]); `None` types nothing.
    pub script: Option<Vec<String>>,
    /// After this long the guest is stopped and counts as silent.
    pub timeout: Option<Duration>,
    /// Print the console's lines as they come.
    pub echo: bool,
    /// Take a picture of the screen before the last command.
    pub screenshot: Option<PathBuf>,
    /// This terminal is the console.
    pub interactive: bool,
    /// A second serial port, over which files can be pushed.
    pub push: bool,
}

impl Options {
    /// A quiet headless run of an image for at most two minutes.
    pub fn new(image: impl Into<PathBuf>) -> Self {
        Self {
            image: image.into(),
            kernel: None,
            board: Board::default(),
            script: None,
            timeout: Some(Duration::from_secs(120)),
            echo: false,
            screenshot: None,
            interactive: false,
            push: false,
        }
    }
}

/// How a run went.
#[derive(Debug, Clone)]
pub struct RunOutcome {
    /// How it ended.
    pub exit: Outcome,
    /// The console's lines.
    pub console: Vec<String>,
    /// The result channel's lines.
    pub results: Vec<String>,
    /// The symbolised backtrace, if the kernel panicked.
    pub backtrace: Vec<String>,
}

impl RunOutcome {
    /// The last lines the guest said, for a report of a run that ended badly.
    pub fn last_lines(&self) -> &[String] {
        self.console.get(self.console.len().saturating_sub(LAST_LINES)..).unwrap_or_default()
    }
}

enum Event {
    Console(Vec<u8>),
    Result(String),
    Complaint(String),
    Closed,
}

/// A running virtual machine.
pub struct Guest {
    child: Child,
    events: Receiver<Event>,
    readers: usize,
    serial: Option<UnixStream>,
    /// The file that the first serial port writes to, where it has no socket.
    said: Option<PathBuf>,
    monitor: Option<UnixStream>,
    push: Option<(PathBuf, Listed)>,
    scratch: Scratch,
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn accept(listener: &UnixListener, child: &mut Child) -> Result<Option<UnixStream>> {
    listener.set_nonblocking(true)?;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                return Ok(Some(stream));
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error).context("cannot open a channel to QEMU"),
        }
        if child.try_wait()?.is_some() {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn read_bytes(mut stream: UnixStream, to: Sender<Event>) {
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(n) = stream.read(&mut buffer) {
            let bytes = buffer.get(..n).unwrap_or_default().to_vec();
            if n == 0 || to.send(Event::Console(bytes)).is_err() {
                break;
            }
        }
        let _ = to.send(Event::Closed);
    });
}

fn read_lines(stream: impl Read + Send + 'static, to: Sender<Event>, wrap: fn(String) -> Event) {
    std::thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_string();
            line.clear();
            if to.send(wrap(text)).is_err() {
                break;
            }
        }
        let _ = to.send(Event::Closed);
    });
}

/// QEMU shall not outlive this tool, however that ends.
fn qemu_command() -> Result<Command> {
    let qemu = qemu::find()?;
    Ok(match toolchain::on_path("setpriv") {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "KILL"]).arg(qemu);
            command
        }
        None => Command::new(qemu),
    })
}

impl Guest {
    /// Starts QEMU.
    pub fn start(board: &Board, options: &Options) -> Result<Self> {
        let interactive = options.interactive;
        let scratch = Scratch::new()?;
        let firmware = qemu::firmware()?;
        let vars = scratch.join("vars.fd");
        qemu::copy_vars(&firmware, &vars)?;
        let channels = Channels {
            serial: (!interactive && board.serial).then(|| {
                let path = scratch.join("com1");
                // Who types cannot count on the same moment twice.
                let file = board.counted && options.script.is_none();
                if file { Serial::File(path) } else { Serial::Socket(path) }
            }),
            results: scratch.join("results"),
            push: options.push.then(|| scratch.join("push")),
            monitor: (!interactive).then(|| scratch.join("monitor")),
        };
        let listen = |path: &PathBuf| UnixListener::bind(path).with_context(|| format!("{}", path.display()));
        let results = listen(&channels.results)?;
        let (socket, said) = match &channels.serial {
            Some(Serial::Socket(path)) => (Some(path), None),
            Some(Serial::File(path)) => (None, Some(path.clone())),
            None => (None, None),
        };
        let serial = socket.map(listen).transpose()?;
        let monitor = channels.monitor.as_ref().map(listen).transpose()?;
        let mut command = qemu_command()?;
        command
            .args(qemu::arguments(board, &options.image, &firmware, &vars, &channels))
            .stderr(Stdio::piped());
        if !interactive {
            command.stdin(Stdio::null()).stdout(Stdio::null());
        }
        let mut child = command.spawn().context("cannot start QEMU")?;
        let (to, events) = channel();
        let mut guest_readers = 1;
        if let Some(stderr) = child.stderr.take() {
            read_lines(stderr, to.clone(), Event::Complaint);
        }
        if let Some(stream) = accept(&results, &mut child)? {
            read_lines(stream, to.clone(), Event::Result);
            guest_readers += 1;
        }
        let mut open = |listener: Option<UnixListener>| -> Result<Option<UnixStream>> {
            listener.map_or(Ok(None), |listener| accept(&listener, &mut child))
        };
        let (serial, monitor) = (open(serial)?, open(monitor)?);
        if let Some(stream) = &serial {
            read_bytes(stream.try_clone()?, to);
            guest_readers += 1;
        }
        let listed = |socket: PathBuf| Listed::new(&socket).map(|listed| (socket, listed));
        let push = channels.push.map(listed).transpose()?;
        if let (true, Some((socket, _))) = (options.echo || interactive, &push) {
            eprintln!("sila: `push FILE` sends files to this system ({})", socket.display());
        }
        Ok(Self { child, events, readers: guest_readers, serial, said, monitor, push, scratch })
    }

    /// Types bytes on the guest's console.
    pub fn type_text(&mut self, text: &str) -> Result<()> {
        match &mut self.serial {
            Some(serial) => serial.write_all(text.as_bytes()).context("the guest's console is closed"),
            None => Ok(()),
        }
    }

    /// The socket of the second serial port, if there is one.
    pub fn push_socket(&self) -> Option<&Path> {
        self.push.as_ref().map(|(socket, _)| socket.as_path())
    }

    /// Sends a file over the second serial port.
    fn push(&self, file: &Path) -> Result<String> {
        let socket = self.push_socket().context("this machine has no second serial port")?;
        push_file(file, socket)
    }

    /// Writes the floors of the system to a new file.
    fn export_floors(&self, out: &Path) -> Result<String> {
        let socket = self.push_socket().context("this machine has no second serial port")?;
        export_floors(out, socket)
    }

    /// Takes a picture of the screen.
    pub fn screenshot(&mut self, to: &Path) -> Result<()> {
        let raw = self.scratch.join("screen.ppm");
        let monitor = self.monitor.as_mut().context("an interactive run has no monitor of its own")?;
        screenshot::take(monitor, &raw, to)
    }

    /// The next event; `None` when the time is up.
    fn next(&mut self, deadline: Option<Instant>) -> Option<Event> {
        let wait = deadline.map_or(Duration::from_secs(1), |at| at.saturating_duration_since(Instant::now()));
        match self.events.recv_timeout(wait.min(Duration::from_secs(1))) {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Event::Closed),
        }
    }

    /// What the guest has written to its serial port, if that is a file.
    fn said(&self) -> Vec<u8> {
        // If QEMU did not get so far as to make it, nothing was said.
        self.said.as_ref().and_then(|path| std::fs::read(path).ok()).unwrap_or_default()
    }

    fn wait(&mut self) -> Result<ExitStatus> {
        self.child.wait().context("cannot wait for QEMU")
    }
}

/// One run in progress: what was said so far, and what to do about it.
struct Run<'a> {
    options: &'a Options,
    driver: Driver,
    console: Vec<String>,
    results: Vec<String>,
    complaints: Vec<String>,
    /// Whether a step of the script on the host has failed.
    host_failed: bool,
    on_result: &'a mut dyn FnMut(&str),
}

impl Run<'_> {
    fn show(&mut self, line: String) {
        if self.options.echo {
            println!("{line}");
        }
        self.console.push(line);
    }

    /// Handles one event; an answer means that the run is over.
    fn handle(&mut self, guest: &mut Guest, event: Event) -> Result<Option<Outcome>> {
        match event {
            Event::Closed => {}
            Event::Complaint(line) => {
                let dead = line.contains("KVM internal error");
                self.complaints.push(line);
                if dead {
                    return Ok(Some(Outcome::Silent("KVM cannot run the guest".into())));
                }
            }
            Event::Result(line) => {
                (self.on_result)(&line);
                self.results.push(line);
            }
            Event::Console(bytes) => {
                for action in self.driver.feed(&bytes) {
                    if let Some(outcome) = self.act(guest, action)? {
                        return Ok(Some(outcome));
                    }
                }
            }
        }
        Ok(None)
    }

    fn act(&mut self, guest: &mut Guest, action: Action) -> Result<Option<Outcome>> {
        match action {
            Action::Show(line) => self.show(line),
            Action::Type(command, last) => self.type_command(guest, &command, last)?,
            Action::Host(command, step) => {
                self.show(format!("{PROMPT}{command}"));
                let (verb, done) = match step {
                    HostStep::Push(file) => ("push", guest.push(&file)),
                    HostStep::ExportFloors(out) => ("export-floors", guest.export_floors(&out)),
                };
                self.host_failed |= done.is_err();
                let said = done.unwrap_or_else(|error| format!("{error:#}"));
                self.show(format!("{verb}: {said}"));
                let next = self.driver.go_on();
                return self.act(guest, next);
            }
            Action::Overrun if self.options.script.is_some() => {
                return Ok(Some(Outcome::Silent("the guest went on after the script's end".into())));
            }
            Action::Overrun => {}
        }
        Ok(None)
    }

    fn type_command(&mut self, guest: &mut Guest, command: &str, last: bool) -> Result<()> {
        if let (true, Some(path)) = (last, &self.options.screenshot) {
            guest.screenshot(path)?;
        }
        // A guest that is gone shows by its exit status.
        let _ = guest.type_text(&format!("{command}\r"));
        Ok(())
    }

    fn drive(&mut self, guest: &mut Guest) -> Result<Outcome> {
        let deadline = self.options.timeout.map(|time| Instant::now() + time);
        let mut open = guest.readers;
        while open > 0 {
            if let Some(event) = guest.next(deadline) {
                open -= usize::from(matches!(event, Event::Closed));
                if let Some(outcome) = self.handle(guest, event)? {
                    return Ok(outcome);
                }
            }
            if deadline.is_some_and(|at| Instant::now() >= at) {
                let seconds = self.options.timeout.unwrap_or_default().as_secs();
                return Ok(Outcome::Silent(format!("no report within {seconds} s")));
            }
        }
        Ok(Outcome::of_exit(guest.wait()?))
    }
}

/// Puts the terminal back as it was.
struct Terminal(Option<rustix::termios::Termios>);

impl Terminal {
    fn save() -> Self {
        Self(rustix::termios::tcgetattr(std::io::stdin()).ok())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(saved) = &self.0 {
            let _ =
                rustix::termios::tcsetattr(std::io::stdin(), rustix::termios::OptionalActions::Now, saved);
        }
    }
}

fn run_once(
    options: &Options,
    board: &Board,
    on_result: &mut dyn FnMut(&str),
) -> Result<(RunOutcome, Vec<String>)> {
    let _terminal = options.interactive.then(Terminal::save);
    let mut guest = Guest::start(board, options)?;
    let mut run = Run {
        options,
        driver: Driver::new(options.script.clone().unwrap_or_default()),
        console: Vec::new(),
        results: Vec::new(),
        complaints: Vec::new(),
        host_failed: false,
        on_result,
    };
    let mut exit = run.drive(&mut guest)?;
    let said = guest.said();
    run.handle(&mut guest, Event::Console(said))?;
    if run.host_failed && exit == Outcome::Well {
        exit = Outcome::Failed;
    }
    drop(guest);
    let rest = run.driver.rest();
    if !rest.is_empty() {
        run.show(rest);
    }
    let said = run.results.iter().chain(&run.console).map(String::as_str);
    let panic = backtrace::parse(run.results.iter().map(String::as_str)).or_else(|| backtrace::parse(said));
    let symbols = options.kernel.clone().unwrap_or_default();
    let backtrace = panic.map(|panic| backtrace::describe(&symbols, &panic)).unwrap_or_default();
    Ok((RunOutcome { exit, console: run.console, results: run.results, backtrace }, run.complaints))
}

/// Boots an image and sees it through to its end; `on_result` gets the result channel's lines as they come.
pub fn boot(options: &Options, on_result: &mut dyn FnMut(&str)) -> Result<RunOutcome> {
    let (mut outcome, mut complaints) = run_once(options, &options.board, on_result)?;
    let silent = matches!(outcome.exit, Outcome::Silent(_));
    if options.board.accel == "kvm" && silent && outcome.results.is_empty() {
        eprintln!("sila: KVM cannot run the guest here; falling back to tcg");
        let board = Board { accel: "tcg".into(), ..options.board.clone() };
        (outcome, complaints) = run_once(options, &board, on_result)?;
    }
    if let (Outcome::Silent(why), Some(first)) = (&mut outcome.exit, complaints.first()) {
        why.push_str(&format!("; QEMU said: {first}"));
    }
    Ok(outcome)
}
