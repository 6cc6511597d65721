//! The kernel's list of devices as text for people. Pure.

use crate::render::bytes;
use crate::table::{Align, Table};
use alloc::format;
use alloc::string::{String, ToString};
use sila_rt::sila_abi::device::{DeviceRecord, Refusal, WindowRecord};

const L: Align = Align::Left;
const R: Align = Align::Right;
const MEMORY: u64 = 1;

/// The tables of `devices`: the devices, then their windows.
pub fn table(records: &[DeviceRecord]) -> String {
    let columns = [(R, "ID"), (L, "PLACE"), (L, "VENDOR:DEVICE"), (L, "CLASS"), (R, "LINE"), (L, "LINE IS")];
    let mut devices = Table::new(&columns);
    let columns = [(R, "ID"), (R, "BAR"), (L, "KIND"), (R, "BASE"), (R, "SIZE"), (L, "WINDOW IS")];
    let mut windows = Table::new(&columns);
    for record in records {
        devices.row([
            record.id.to_string(),
            place(record),
            identity(record),
            class(record.class),
            if record.line == DeviceRecord::NO_LINE { "-".into() } else { record.line.to_string() },
            fate(record.line_minted, record.line_refusal),
        ]);
        for (bar, window) in record.windows.iter().enumerate().filter(|(_, w)| w.kind != 0) {
            windows.row([
                record.id.to_string(),
                bar.to_string(),
                if window.kind == MEMORY { "memory" } else { "ports" }.into(),
                format!("{:#x}", window.base),
                size(window),
                fate(window.minted, window.refusal),
            ]);
        }
    }
    format!("{}\n{}", devices.render(), windows.render())
}

fn place(record: &DeviceRecord) -> String {
    match record.place {
        DeviceRecord::LEGACY if record.present == 0 => "absent".into(),
        DeviceRecord::LEGACY => "board".into(),
        place => format!("{:02x}:{:02x}.{}", place >> 8, place >> 3 & 31, place & 7),
    }
}

fn identity(record: &DeviceRecord) -> String {
    if record.place == DeviceRecord::LEGACY {
        return "-".into();
    }
    format!("{:04x}:{:04x}", record.vendor, record.device)
}

fn size(window: &WindowRecord) -> String {
    if window.kind == MEMORY { bytes(window.length) } else { window.length.to_string() }
}

/// What became of a part, or why it cannot be had.
fn fate(minted: u64, refusal: u64) -> String {
    match u8::try_from(refusal).ok().and_then(Refusal::from_number) {
        _ if minted != 0 => "handed out".into(),
        _ if refusal == 0 => "free".into(),
        Some(refusal) => format!("kept: {refusal}"),
        None => format!("kept: reason {refusal}"),
    }
}

/// The class in words, as far as its base class says; and its number.
fn class(class: u64) -> String {
    let name = match (class >> 16, class >> 8 & 0xff) {
        (0x01, _) => "storage",
        (0x02, _) => "network",
        (0x03, _) => "display",
        (0x04, _) => "multimedia",
        (0x05, _) => "memory",
        (0x06, 0x00) => "host bridge",
        (0x06, 0x01) => "ISA bridge",
        (0x06, 0x04) => "PCI bridge",
        (0x06, _) => "bridge",
        (0x07, 0x00) => "serial port",
        (0x07, _) => "communication",
        (0x08, _) => "system",
        (0x09, _) => "input",
        (0x0c, 0x03) => "USB",
        (0x0c, 0x05) => "SMBus",
        (0x0c, _) => "serial bus",
        _ => "other",
    };
    format!("{name} ({class:06x})")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edu() -> DeviceRecord {
        let mut record = DeviceRecord {
            id: 7,
            place: 16 << 3,
            vendor: 0x1234,
            device: 0x11e8,
            class: 0x00_ff00,
            present: 1,
            line: 11,
            line_refusal: 0,
            line_minted: 1,
            ..DeviceRecord::default()
        };
        record.windows[0] =
            WindowRecord { kind: 1, base: 0xfea0_0000, length: 1 << 20, refusal: 0, minted: 0 };
        record.windows[4] = WindowRecord {
            kind: 2,
            base: 0xc000,
            length: 8,
            refusal: Refusal::ReservedPorts as u64,
            minted: 0,
        };
        record
    }

    #[test]
    fn every_part_stands_in_the_tables_with_what_became_of_it() {
        let serial = DeviceRecord {
            id: 1,
            place: DeviceRecord::LEGACY,
            class: 0x07_0002,
            line: DeviceRecord::NO_LINE,
            line_refusal: 99,
            ..DeviceRecord::default()
        };
        let text = table(&[serial, edu()]);
        let lines: alloc::vec::Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3 + 1 + 3);
        for (line, parts) in [
            (1, &["1", "absent", "serial port (070002)", "-", "kept: reason 99"][..]),
            (2, &["7", "00:10.0", "1234:11e8", "other (00ff00)", "11", "handed out"]),
            (5, &["7", "0", "memory", "0xfea00000", "1 MiB", "free"]),
            (6, &["7", "4", "ports", "0xc000", "8", "kept: the ports are the platform's"]),
        ] {
            for part in parts {
                assert!(lines[line].contains(part), "{part:?} not in {:?}", lines[line]);
            }
        }
    }

    #[test]
    fn classes_have_names() {
        for (number, name) in
            [(0x06_0000, "host bridge"), (0x0c_0330, "USB"), (0x03_0000, "display"), (0xff_ffff, "other")]
        {
            assert!(class(number).starts_with(name));
        }
    }
}
