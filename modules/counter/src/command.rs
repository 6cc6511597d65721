//! The counter's commands as people type them.

use crate::{Counter, Opcode};
use alloc::format;
use alloc::string::{String, ToString};

/// Carries out `add N` or `read`; the answer is the value.
///
/// # Errors
/// A sentence; the counter is as it was.
pub fn command(counter: &mut Counter, text: &str) -> Result<String, String> {
    let mut words = text.split_whitespace();
    let name = words.next().ok_or("counter wants a command: add N or read")?;
    let opcode = Opcode::from_name(name)
        .ok_or_else(|| format!("counter has no operation `{name}`: it has add N and read"))?;
    let mut arguments = [0; 2];
    let mut count = 0;
    for word in words {
        let place = arguments.get_mut(count).ok_or_else(|| wants(opcode))?;
        *place = word.parse().map_err(|_| format!("`{word}` is not a number from 0 to {}", u64::MAX))?;
        count += 1;
    }
    if count != opcode.arguments() {
        return Err(wants(opcode));
    }
    let arguments = arguments.get(..count).unwrap_or_default();
    counter.handle(opcode.word(), arguments).map(|value| value.to_string()).map_err(|error| error.to_string())
}

fn wants(opcode: Opcode) -> String {
    match opcode {
        Opcode::Add => "add takes one number: add N".into(),
        Opcode::Read => "read takes no argument".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_add_and_read() {
        let mut counter = Counter::new();
        assert_eq!(command(&mut counter, "add 5"), Ok("5".into()));
        assert_eq!(command(&mut counter, "  add   7 "), Ok("12".into()));
        assert_eq!(command(&mut counter, "read"), Ok("12".into()));
    }

    #[test]
    fn wrong_commands_are_answered_with_a_sentence() {
        let mut counter = Counter::new();
        for (text, part) in [
            ("", "wants a command"),
            ("clear", "no operation `clear`"),
            ("add", "one number"),
            ("add 1 2", "one number"),
            ("add 1 2 3", "one number"),
            ("add x", "`x` is not a number"),
            ("add -1", "`-1` is not a number"),
            ("read 1", "no argument"),
        ] {
            let error = command(&mut counter, text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        assert_eq!(counter.read(), 0);
    }

    #[test]
    fn a_sum_that_does_not_fit_is_refused_by_name() {
        let mut counter = Counter::new();
        let most = format!("add {}", u64::MAX);
        assert!(command(&mut counter, &most).is_ok());
        assert!(command(&mut counter, "add 1").unwrap_err().contains("does not fit"));
    }
}
