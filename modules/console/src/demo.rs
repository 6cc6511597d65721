//! Small WebAssembly programs for trying out a service that runs them.

/// A demonstration program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demo {
    /// Exports `fib`: the Fibonacci number of its argument, by recursion.
    Fib,
    /// Exports `spin`: never returns.
    Spin,
    /// Exports `trap`: reaches an `unreachable` instruction.
    Trap,
}

impl Demo {
    /// Every program.
    pub const ALL: [Demo; 3] = [Demo::Fib, Demo::Spin, Demo::Trap];

    /// How a command names it.
    pub const fn argument(self) -> &'static str {
        match self {
            Demo::Fib => "@fib",
            Demo::Spin => "@spin",
            Demo::Trap => "@trap",
        }
    }

    /// The program that a command names so.
    pub fn from_argument(text: &str) -> Option<Self> {
        Demo::ALL.into_iter().find(|demo| demo.argument() == text)
    }

    /// The program.
    pub const fn bytes(self) -> &'static [u8] {
        match self {
            Demo::Fib => FIB,
            Demo::Spin => SPIN,
            Demo::Trap => TRAP,
        }
    }
}

const FIB: &[u8] =
    b"\x00asm\x01\x00\x00\x00\x01\x06\x01\x60\x01\x7e\x01\x7e\x03\x02\x01\x00\x07\x07\x01\x03fib\x00\
    \x00\x0a\x1e\x01\x1c\x00\x20\x00B\x02T\x04\x7e\x20\x00\x05\x20\x00B\x01\x7d\x10\x00\x20\x00B\x02\
    \x7d\x10\x00\x7c\x0b\x0b";

const SPIN: &[u8] =
    b"\x00asm\x01\x00\x00\x00\x01\x04\x01\x60\x00\x00\x03\x02\x01\x00\x07\x08\x01\x04spin\x00\x00\x0a\
    \x09\x01\x07\x00\x03\x40\x0c\x00\x0b\x0b";

const TRAP: &[u8] =
    b"\x00asm\x01\x00\x00\x00\x01\x04\x01\x60\x00\x00\x03\x02\x01\x00\x07\x08\x01\x04trap\x00\x00\x0a\
    \x05\x01\x03\x00\x00\x0b";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn demos_are_what_their_text_says() {
        let fib = "(module (func (export \"fib\") (param i64) (result i64)
            (if (result i64) (i64.lt_u (local.get 0) (i64.const 2))
                (then (local.get 0))
                (else (i64.add
                    (call 0 (i64.sub (local.get 0) (i64.const 1)))
                    (call 0 (i64.sub (local.get 0) (i64.const 2))))))))";
        let spin = "(module (func (export \"spin\") (loop (br 0))))";
        let trap = "(module (func (export \"trap\") unreachable))";
        for (demo, text) in [(Demo::Fib, fib), (Demo::Spin, spin), (Demo::Trap, trap)] {
            assert_eq!(demo.bytes(), wat::parse_str(text).unwrap(), "{demo:?}");
        }
    }

    #[test]
    fn demos_are_found_by_their_argument() {
        for demo in Demo::ALL {
            assert_eq!(Demo::from_argument(demo.argument()), Some(demo));
        }
        assert_eq!(Demo::from_argument("fib"), None);
        assert_eq!(Demo::from_argument("@nosuch"), None);
    }
}
