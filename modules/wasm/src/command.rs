//! The service's commands as people type them: `run EXPORT [ARGUMENT…] [fuel=N] [pages=N]`.

use crate::{Limits, MAX_ARGS, Outcome, Trap};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// The most fuel that a caller may allow.
pub const MAX_FUEL: u64 = 1_000_000_000;
/// The most memory pages that a caller may allow: 4 MiB.
pub const MAX_PAGES: u32 = 64;

/// A run that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run<'a> {
    /// The exported function.
    pub export: &'a str,
    /// Its arguments.
    pub args: Vec<i64>,
    /// What it may use up.
    pub limits: Limits,
}

/// Reads a command.
///
/// # Errors
/// A sentence that names what is wrong.
pub fn parse(text: &str) -> Result<Run<'_>, String> {
    let mut words = text.split_whitespace();
    match words.next() {
        Some("run") => {}
        Some(other) => {
            return Err(format!(
                "wasm has no operation `{other}`: it has run EXPORT [ARGUMENT…] [fuel=N] [pages=N]"
            ));
        }
        None => return Err("wasm wants a command: run EXPORT [ARGUMENT…] [fuel=N] [pages=N]".into()),
    }
    let export = words.next().ok_or("run wants the name of an exported function")?;
    let mut run = Run { export, args: Vec::new(), limits: Limits::DEFAULT };
    for word in words {
        if let Some(fuel) = word.strip_prefix("fuel=") {
            run.limits.fuel = number(fuel, "fuel", MAX_FUEL)?;
        } else if let Some(pages) = word.strip_prefix("pages=") {
            let pages = number(pages, "pages", MAX_PAGES.into())?;
            run.limits.memory_pages = u32::try_from(pages).unwrap_or(MAX_PAGES);
        } else if run.args.len() == MAX_ARGS {
            return Err(format!("run takes at most {MAX_ARGS} arguments"));
        } else {
            run.args.push(argument(word)?);
        }
    }
    Ok(run)
}

fn number(text: &str, what: &str, most: u64) -> Result<u64, String> {
    match text.parse::<u64>() {
        Ok(number) if number <= most => Ok(number),
        _ => Err(format!("{what}= wants a number from 0 to {most}, not `{text}`")),
    }
}

fn argument(word: &str) -> Result<i64, String> {
    word.parse::<i64>()
        .or_else(|_| word.parse::<u64>().map(u64::cast_signed))
        .map_err(|_| format!("`{word}` is not a whole number of 64 bits"))
}

/// The answer to a run.
///
/// # Errors
/// A sentence that says how the program failed.
pub fn answer(run: &Run<'_>, outcome: Result<Outcome, Trap>) -> Result<String, String> {
    match outcome {
        Ok(Outcome { result: Some(value), fuel_used }) => Ok(format!("{} (fuel {fuel_used})", value.word())),
        Ok(Outcome { result: None, fuel_used }) => Ok(format!("done (fuel {fuel_used})")),
        Err(trap) => Err(format!("`{}` gave no result: {}", run.export, trap.describe())),
    }
}

/// How many bytes are left without the zeros at the end.
fn trimmed(region: &[u8]) -> usize {
    region.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

/// The program at the beginning of a Region, whose last page is padded with zeros: its header and sections.
/// `None` if the bytes have no such form. (Zeros at the end of the last section are its own.)
pub fn program(region: &[u8]) -> Option<&[u8]> {
    const HEADER: [u8; 8] = *b"\0asm\x01\0\0\0";
    if !region.starts_with(&HEADER) {
        return None;
    }
    let used = trimmed(region);
    let mut end = HEADER.len();
    while end < used {
        let (len, after) = leb128(region, end + 1)?;
        end = after.checked_add(len).filter(|end| *end <= region.len())?;
    }
    region.get(..end)
}

/// A number in LEB128 of up to 32 bits, and where it ends.
fn leb128(bytes: &[u8], mut at: usize) -> Option<(usize, usize)> {
    let mut value = 0u64;
    for shift in (0..35).step_by(7) {
        let byte = *bytes.get(at)?;
        at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((usize::try_from(value).ok()?, at));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Value;

    #[test]
    fn a_run_with_arguments_and_limits_is_read() {
        let run = parse("run fib 20 -3 18446744073709551615 fuel=500 pages=2").unwrap();
        assert_eq!((run.export, run.args), ("fib", vec![20, -3, -1]));
        assert_eq!(run.limits, Limits { fuel: 500, memory_pages: 2 });
        assert_eq!(parse("run main").unwrap().limits, Limits::DEFAULT);
    }

    #[test]
    fn wrong_runs_are_answered_with_a_sentence() {
        let many = format!("run f {}", "1 ".repeat(MAX_ARGS + 1));
        for (text, part) in [
            ("", "wants a command"),
            ("walk", "no operation `walk`"),
            ("run", "exported function"),
            ("run f x", "`x` is not"),
            ("run f fuel=", "fuel= wants"),
            ("run f fuel=99999999999", "fuel= wants"),
            ("run f pages=65", "pages= wants"),
            (&many, "at most 16"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn answers_name_the_result_or_the_trap() {
        let run = parse("run f").unwrap();
        let good = Outcome { result: Some(Value::I32(-4)), fuel_used: 9 };
        assert_eq!(answer(&run, Ok(good)), Ok("-4 (fuel 9)".into()));
        assert_eq!(answer(&run, Ok(Outcome { result: None, fuel_used: 1 })), Ok("done (fuel 1)".into()));
        let error = answer(&run, Err(Trap::OutOfFuel)).unwrap_err();
        assert!(error.starts_with("`f` gave no result: ") && error.contains(Trap::OutOfFuel.describe()));
    }

    #[test]
    fn a_program_is_found_in_its_padding() {
        let wat = "(module (memory 1) (func (export \"f\") (result i32) i32.const 7) (data (i32.const 0) \"a\\00\\00\"))";
        let binary = wat::parse_str(wat).unwrap();
        let mut region = binary.clone();
        region.resize(4096, 0);
        assert_eq!(program(&region), Some(&binary[..]));
        assert_eq!(program(&binary), Some(&binary[..]));
        assert_eq!(program(&region[1..]), None);
        region[9..14].fill(0xff);
        assert_eq!(program(&region), None);
        assert_eq!(program(&[]), None);
    }

    #[test]
    fn an_empty_program_is_its_header() {
        let mut region = b"\0asm\x01\0\0\0".to_vec();
        region.resize(64, 0);
        assert_eq!(program(&region).map(<[u8]>::len), Some(8));
    }
}
