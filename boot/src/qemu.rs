//! The virtual machine's command line and firmware.
use crate::missing::Missing;
use crate::toolchain::on_path;
use anyhow::{Context, Result};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The machine to run on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Board {
    /// QEMU's machine type.
    pub machine: String,
    /// QEMU's CPU model.
    pub cpu: String,
    /// Memory, as QEMU reads it (`512M`, `4G`).
    pub memory: String,
    /// Number of CPUs.
    pub smp: u32,
    /// `tcg` or `kvm`.
    pub accel: String,
    /// Boot from a USB stick on xHCI instead of a disk.
    pub usb: bool,
    /// QEMU's display, `none` for no window.
    pub display: String,
    /// A graphics card (and so a framebuffer).
    pub graphics: bool,
    /// The first serial port.
    pub serial: bool,
    /// Wait for a debugger on TCP port 1234.
    pub gdb: bool,
    /// Time goes by instructions, no clock is that of the world outside, and the serial port is never slowed down by
    /// who reads it: two runs of one image are the same to the instruction from the kernel's start on.
    pub counted: bool,
    /// Boot flags for the kernel, such as `kpti=on`.
    pub kernel_flags: Vec<String>,
    /// More arguments for QEMU.
    pub extra: Vec<String>,
}

impl Default for Board {
    fn default() -> Self {
        Self {
            machine: "q35".into(),
            cpu: "max".into(),
            memory: "512M".into(),
            smp: 1,
            accel: "tcg".into(),
            usb: false,
            display: "none".into(),
            graphics: true,
            serial: true,
            gdb: false,
            counted: false,
            kernel_flags: Vec::new(),
            extra: Vec::new(),
        }
    }
}

/// One instruction takes 64 ns, an idle processor no time of the host's, and the clock is set.
const COUNTED: [&str; 4] = ["-icount", "shift=6,sleep=off", "-rtc", "base=2026-01-01,clock=vm"];

/// The firmware: code, and the template of its variables.
#[derive(Debug, Clone)]
pub struct Firmware {
    /// Read-only code.
    pub code: PathBuf,
    /// Variables; every run gets a copy.
    pub vars: PathBuf,
}

/// Where what the guest writes to its first serial port goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Serial {
    /// A socket, which can also be written to. It takes a few hundred bytes: if nobody reads them, the guest waits.
    Socket(PathBuf),
    /// A file, which takes everything at once.
    File(PathBuf),
}

/// Where this run's channels are.
#[derive(Debug, Clone)]
pub struct Channels {
    /// Socket of the first serial port, or its file; `None` for this terminal.
    pub serial: Option<Serial>,
    /// Socket of the debug console, which carries results.
    pub results: PathBuf,
    /// Where QEMU is to make the socket of the second serial port; `None`: the machine has none.
    pub push: Option<PathBuf>,
    /// Socket of QEMU's monitor; `None` if it shares this terminal with the serial port.
    pub monitor: Option<PathBuf>,
}

/// Finds QEMU.
pub fn find() -> Result<PathBuf> {
    on_path("qemu-system-x86_64")
        .ok_or_else(|| Missing::new("qemu-system-x86_64", "apt-get install qemu-system-x86").into())
}

/// Finds the UEFI firmware.
pub fn firmware() -> Result<Firmware> {
    if let (Some(code), Some(vars)) = (std::env::var_os("SILA_OVMF_CODE"), std::env::var_os("SILA_OVMF_VARS"))
    {
        return Ok(Firmware { code: code.into(), vars: vars.into() });
    }
    let places = [
        ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
        ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
        ("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"),
        ("/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"),
    ];
    places
        .iter()
        .find(|(code, vars)| Path::new(code).is_file() && Path::new(vars).is_file())
        .map(|(code, vars)| Firmware { code: code.into(), vars: vars.into() })
        .ok_or_else(|| Missing::new("the UEFI firmware OVMF", "apt-get install ovmf").into())
}

/// Copies the variables into a run's own file.
pub fn copy_vars(firmware: &Firmware, to: &Path) -> Result<()> {
    std::fs::copy(&firmware.vars, to)
        .map(|_| ())
        .with_context(|| format!("cannot copy {} to {}", firmware.vars.display(), to.display()))
}

/// QEMU escapes a comma in a file name by doubling it.
fn escaped(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

fn drive_arguments(board: &Board, image: &Path) -> Vec<String> {
    let drive = format!("if=none,id=disk,format=raw,snapshot=on,file={}", escaped(image));
    let mut args = vec!["-drive".into(), drive];
    if board.usb {
        args.extend(
            ["-device", "qemu-xhci", "-device", "usb-storage,drive=disk,bootindex=0"].map(String::from),
        );
    } else {
        args.extend(["-device", "ide-hd,drive=disk,bootindex=0"].map(String::from));
    }
    args
}

fn channel_arguments(board: &Board, channels: &Channels) -> Vec<String> {
    let socket = |id: &str, path: &Path| format!("socket,id={id},path={}", escaped(path));
    let mut args: Vec<String> = vec![
        "-chardev".into(),
        socket("results", &channels.results),
        "-device".into(),
        "isa-debugcon,iobase=0xe9,chardev=results".into(),
        "-serial".into(),
    ];
    match &channels.serial {
        _ if !board.serial => args.push("none".into()),
        Some(serial) => {
            let device = match serial {
                Serial::Socket(path) => socket("com1", path),
                Serial::File(path) => format!("file,id=com1,path={}", escaped(path)),
            };
            args.extend(["chardev:com1".into(), "-chardev".into(), device]);
        }
        None => args.push("mon:stdio".into()),
    }
    if let Some(path) = &channels.push {
        args.extend(["-serial".into(), "chardev:com2".into(), "-chardev".into()]);
        args.push(format!("{},server=on,wait=off", socket("com2", path)));
    }
    if let Some(path) = &channels.monitor {
        args.extend(["-chardev".into(), socket("monitor", path)]);
        args.extend(["-mon", "chardev=monitor,mode=readline"].map(String::from));
    }
    args
}

/// The whole command line for one run.
pub fn arguments(
    board: &Board,
    image: &Path,
    firmware: &Firmware,
    vars: &Path,
    channels: &Channels,
) -> Vec<OsString> {
    let flash = |unit: u32, ro: &str, path: &Path| {
        format!("if=pflash,unit={unit},format=raw{ro},file={}", escaped(path))
    };
    let mut args: Vec<String> = vec![
        "-nodefaults".into(),
        "-machine".into(),
        board.machine.clone(),
        "-cpu".into(),
        board.cpu.clone(),
        "-m".into(),
        board.memory.clone(),
        "-smp".into(),
        board.smp.to_string(),
        "-accel".into(),
        board.accel.clone(),
        "-drive".into(),
        flash(0, ",readonly=on", &firmware.code),
        "-drive".into(),
        flash(1, "", vars),
        "-display".into(),
        board.display.clone(),
        "-vga".into(),
        if board.graphics { "std" } else { "none" }.into(),
    ];
    args.extend(["-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-no-reboot"].map(String::from));
    args.extend(drive_arguments(board, image));
    args.extend(channel_arguments(board, channels));
    if board.gdb {
        args.extend(["-s".into(), "-S".into()]);
    }
    if board.counted {
        args.extend(COUNTED.map(String::from));
    }
    if !board.kernel_flags.is_empty() {
        // The firmware configuration device exists under a hypervisor only.
        let flags = board.kernel_flags.join(" ");
        args.extend(["-fw_cfg".into(), format!("name=opt/sila/kernel,string={flags}")]);
    }
    args.extend(board.extra.iter().cloned());
    args.into_iter().map(OsString::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(board: &Board, serial: bool) -> String {
        let firmware = Firmware { code: "/fw/code".into(), vars: "/fw/vars".into() };
        let channels = Channels {
            serial: serial.then(|| Serial::Socket("/s/com1".into())),
            results: "/s/results".into(),
            push: serial.then(|| "/s/push".into()),
            monitor: serial.then(|| "/s/mon".into()),
        };
        let args = arguments(board, Path::new("/a,b.img"), &firmware, Path::new("/s/vars"), &channels);
        args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn options_reach_qemu() {
        let board = Board {
            machine: "pc".into(),
            cpu: "qemu64".into(),
            memory: "128M".into(),
            smp: 2,
            ..Board::default()
        };
        let line = line(&board, true);
        for part in ["-machine pc", "-cpu qemu64", "-m 128M", "-smp 2", "-accel tcg", "file=/a,,b.img"] {
            assert!(line.contains(part), "{part} not in {line}");
        }
    }

    #[test]
    fn usb_boots_from_a_stick_on_xhci() {
        let usb = Board { usb: true, ..Board::default() };
        assert!(line(&usb, true).contains("-device qemu-xhci -device usb-storage,drive=disk"));
        assert!(!line(&Board::default(), true).contains("xhci"));
    }

    #[test]
    fn results_have_a_channel_apart_from_the_console() {
        let line = line(&Board::default(), true);
        assert!(line.contains("isa-debugcon,iobase=0xe9,chardev=results"));
        assert!(line.contains("-serial chardev:com1"));
    }

    #[test]
    fn on_a_counted_machine_no_time_is_the_host_s() {
        let counted = Board { counted: true, ..Board::default() };
        let line = line(&counted, true);
        assert!(line.contains("-icount shift=6,sleep=off -rtc base=2026-01-01,clock=vm"), "{line}");
        let serial = Serial::File("/s/com1".into());
        let channels = Channels { serial: Some(serial), results: "/r".into(), push: None, monitor: None };
        let firmware = Firmware { code: "/fw/code".into(), vars: "/fw/vars".into() };
        let args = arguments(&counted, Path::new("/i"), &firmware, Path::new("/v"), &channels);
        assert!(args.contains(&"file,id=com1,path=/s/com1".into()), "{args:?}");
    }

    #[test]
    fn the_second_serial_port_is_where_files_are_pushed() {
        let with = line(&Board::default(), true);
        let serial = with.find("-serial chardev:com1").unwrap();
        assert!(with.find("-serial chardev:com2").is_some_and(|at| at > serial), "it is the second one");
        assert!(with.contains("socket,id=com2,path=/s/push,server=on,wait=off"));
        assert!(!line(&Board::default(), false).contains("com2"));
    }

    #[test]
    fn interactive_runs_share_the_terminal_and_gdb_waits() {
        let board = Board { gdb: true, ..Board::default() };
        let line = line(&board, false);
        assert!(line.contains("-serial mon:stdio") && line.contains("-s -S"));
        assert!(!line.contains("chardev=monitor"));
    }

    #[test]
    fn boot_flags_reach_the_kernel_together() {
        let flags = ["kpti=on", "audit=on"].map(String::from).to_vec();
        let board = Board { kernel_flags: flags, ..Board::default() };
        assert!(line(&board, true).ends_with("-fw_cfg name=opt/sila/kernel,string=kpti=on audit=on"));
        assert!(!line(&Board::default(), true).contains("fw_cfg"));
    }

    #[test]
    fn more_arguments_come_last() {
        let board = Board { extra: vec!["-device".into(), "edu".into()], ..Board::default() };
        assert!(line(&board, true).ends_with("-device edu"));
    }

    #[test]
    fn a_machine_without_serial_port_or_screen_can_be_had() {
        let board = Board { serial: false, graphics: false, ..Board::default() };
        let line = line(&board, true);
        assert!(line.contains("-serial none") && line.contains("-vga none"));
    }
}
