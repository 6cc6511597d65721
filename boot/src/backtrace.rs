//! Makes names and lines of the addresses that a panicking kernel prints.
use std::path::Path;

/// What a panicking kernel said.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Panic {
    /// The message: the lines that begin with `PANIC`.
    pub message: Vec<String>,
    /// Return addresses, innermost first: the lines `bt 0x...`.
    pub addresses: Vec<u64>,
}

/// Finds a panic in what a guest said, if there is one.
pub fn parse<'a>(lines: impl IntoIterator<Item = &'a str>) -> Option<Panic> {
    let mut panic = Panic::default();
    for line in lines {
        let line = line.trim();
        if let Some(rest) = line.strip_prefix("bt ") {
            let digits = rest.trim().trim_start_matches("0x").split_whitespace().next().unwrap_or_default();
            panic.addresses.extend(u64::from_str_radix(digits, 16).ok());
        } else if line.starts_with("PANIC") {
            panic.message.push(line.to_string());
        }
    }
    (!panic.message.is_empty()).then_some(panic)
}

/// Describes each address: function, file and line, from the kernel's debug information.
pub fn describe(kernel: &Path, panic: &Panic) -> Vec<String> {
    let mut lines = panic.message.clone();
    let loader = addr2line::Loader::new(kernel).ok();
    for (depth, address) in panic.addresses.iter().enumerate() {
        // A return address is behind its call; the first may be one too.
        let probe = address.saturating_sub(1);
        let mut names = Vec::new();
        if let Some(mut frames) = loader.as_ref().and_then(|loader| loader.find_frames(probe).ok()) {
            while let Ok(Some(frame)) = frames.next() {
                let name =
                    frame.function.as_ref().and_then(|name| name.raw_name().ok().map(|raw| demangle(&raw)));
                let place = frame.location.and_then(|place| Some(format!("{}:{}", place.file?, place.line?)));
                names.push((name, place));
            }
        }
        if names.is_empty() {
            let symbol = loader.as_ref().and_then(|loader| loader.find_symbol(probe)).map(demangle);
            names.push((symbol, None));
        }
        for (n, (name, place)) in names.into_iter().enumerate() {
            let name = name.unwrap_or_else(|| "?".into());
            let place = place.map(|place| format!("\n         at {place}")).unwrap_or_default();
            let label = if n == 0 { format!("{depth:>3}: {address:#018x}") } else { " ".repeat(23) };
            lines.push(format!("{label} {name}{place}"));
        }
    }
    lines
}

fn demangle(name: &str) -> String {
    format!("{:#}", rustc_demangle::demangle(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panic_and_addresses_are_found_among_other_lines() {
        let lines = [
            "TEST a PASS",
            "PANIC at kernel/src/x.rs:1: no",
            "bt 0xffffffff80001000",
            "bt ffffffff80002000 x",
            "bt zz",
        ];
        let panic = parse(lines).unwrap();
        assert_eq!(panic.message, ["PANIC at kernel/src/x.rs:1: no"]);
        assert_eq!(panic.addresses, [0xffff_ffff_8000_1000, 0xffff_ffff_8000_2000]);
    }

    #[test]
    fn no_panic_line_means_no_panic() {
        assert_eq!(parse(["bt 0x10", "don't PANIC"]), None);
    }

    #[test]
    fn addresses_without_debug_information_stay_addresses() {
        let panic = Panic { message: vec!["PANIC x".into()], addresses: vec![0x1234] };
        let lines = describe(Path::new("/nonexistent"), &panic);
        assert_eq!(lines.len(), 2);
        assert!(lines[1].contains("0x0000000000001234 ?"), "{lines:?}");
    }

    #[test]
    fn own_code_is_named_by_its_debug_information() {
        assert_eq!(demangle("_ZN4core9panicking5panic17h0123456789abcdefE"), "core::panicking::panic");
    }
}
