//! The console's loop: serial port, line editor, commands.

use crate::cache;
use crate::command::{self, Command};
use crate::depot;
use crate::editor::Editor;
use crate::render;
use crate::slots::{COM1, CONTROL, IRQ};
use crate::system::{self, Outcome};
use crate::trust;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use sila_rt::sila_abi::Slot;
use sila_rt::sila_abi::protocol::layout::OWN_POOL;
use sila_rt::sila_abi::syscall::FOREVER;
use sila_rt::uart::{PortSpace, Uart};
use sila_rt::{CallError, ipc, lifecycle, op, slots};

/// The flag that the serial port's interrupt sets.
const INPUT: u64 = 1;

struct Session {
    uart: Uart<PortSpace>,
    editor: Editor,
    input: VecDeque<u8>,
    notification: Slot,
    /// How far the kernel's log was shown.
    log: u64,
    /// Whether a command has failed.
    failed: bool,
}

/// Runs the console. It returns only when the machine can't be waited on.
///
/// # Errors
/// The kernel's.
pub fn run() -> Result<(), CallError> {
    let mut session = Session::start()?;
    // People need the console most when the supervisor does not answer.
    let _ = lifecycle::ready();
    session.uart.send_text("\nSILA console. `help` lists the commands.\n");
    session.prompt();
    loop {
        session.take_input();
        while let Some(byte) = session.input.pop_front() {
            session.feed(byte);
        }
        if !session.take_input() {
            ipc::wait(session.notification, FOREVER)?;
        }
    }
}

impl Session {
    fn start() -> Result<Self, CallError> {
        let notification = slots::make(|dst| op::NotificationCreate(OWN_POOL, dst))?.leak();
        // What was logged up to now the kernel wrote to the port itself.
        let mut log = 0;
        let _ = system::log_after(&mut log);
        op::SystemReleaseSerial(CONTROL)?;
        op::IrqBind(IRQ, notification, INPUT)?;
        Ok(Session {
            uart: Uart::new(PortSpace(COM1)),
            editor: Editor::new(),
            input: VecDeque::new(),
            notification,
            log,
            failed: false,
        })
    }

    /// Takes what has come in; true if there was anything. The line is unmasked first: what comes after the
    /// port was emptied raises it again.
    fn take_input(&mut self) -> bool {
        let _ = op::IrqAck(IRQ);
        self.uart.drain(&mut self.input) > 0
    }

    fn feed(&mut self, byte: u8) {
        let mut out = Vec::new();
        let line = self.editor.feed(byte, &mut out);
        self.uart.send(&out);
        if let Some(line) = line {
            self.execute(line);
            self.prompt();
        }
    }

    /// Shows what the kernel has logged, then the prompt.
    fn prompt(&mut self) {
        if let Ok(text) = system::log_after(&mut self.log) {
            self.uart.send_text(&text);
        }
        let mut out = Vec::new();
        self.editor.show(&mut out);
        self.uart.send(&out);
    }

    fn execute(&mut self, line: Result<String, String>) {
        match line.and_then(|line| command::parse(&line)).and_then(|command| self.perform(command)) {
            Ok(text) => self.uart.send_text(&text),
            Err(sentence) => {
                self.failed = true;
                self.uart.send_text(&format!("{sentence}\n"));
            }
        }
    }

    fn perform(&mut self, command: Command) -> Outcome {
        match command {
            Command::Nothing => Ok(String::new()),
            Command::Help => Ok(render::help()),
            Command::Ps => system::ps(),
            Command::Caps(process) => system::caps(&process),
            Command::Mem => system::mem(),
            Command::Devices => system::devices(),
            Command::Counters => system::counters(),
            Command::Trace(kinds) => system::trace(kinds),
            Command::TraceShow(count) => system::trace_show(count),
            Command::Audit => system::audit(),
            Command::Modules => system::modules(),
            Command::Services => system::services(),
            Command::Keys => trust::keys(),
            Command::Floors => trust::floors(),
            Command::Policy => trust::policy(),
            Command::Cache => cache::list(),
            Command::Depot => depot::list(),
            Command::DepotRemove { name, version } => depot::remove(&name, version),
            Command::Load { name, version } => system::load(&name, version),
            Command::Stop(process) => system::stop(process),
            Command::Call { service, text, program } => system::call(&service, &text, program),
            Command::Uptime => system::uptime(),
            Command::Log => system::log(),
            Command::PowerOff => self.power_off(),
        }
    }

    fn power_off(&mut self) -> Outcome {
        if let Ok(text) = system::log_after(&mut self.log) {
            self.uart.send_text(&text);
        }
        self.uart.flush();
        let error = match op::SystemPowerOff(CONTROL, self.failed.into()) {
            Ok(_) => return Err("poweroff: the machine did not switch off".into()),
            Err(error) => error,
        };
        Err(format!("poweroff: the kernel refused: {error}"))
    }
}
