//! The line editor: bytes from a terminal in, bytes to show and finished lines out. Pure.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// What the editor shows before a line.
pub const PROMPT: &str = "sila> ";
/// The longest line.
pub const MAX_LINE: usize = 256;
/// How many lines the history keeps.
pub const MAX_HISTORY: usize = 64;

/// Where an escape sequence stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Escape {
    None,
    Begun,
    /// `ESC [` and a number so far.
    Bracket(u8),
    /// `ESC O`.
    Single,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Key {
    Text(u8),
    Enter,
    Backspace,
    Delete,
    Left,
    Right,
    Home,
    End,
    Up,
    Down,
    KillToEnd,
    KillToStart,
    KillWord,
    Cancel,
    Clear,
}

/// What stands for a byte that is not ASCII: visible, so that no other command runs than was typed.
const FOREIGN: Key = Key::Text(b'?');

/// An editor with its history.
#[derive(Debug)]
pub struct Editor {
    line: Vec<u8>,
    cursor: usize,
    history: VecDeque<String>,
    /// How far back in the history; 0 is the line being written.
    back: usize,
    /// The line being written, while an older one is shown.
    draft: Vec<u8>,
    escape: Escape,
    after_return: bool,
    /// Whether a character of this line found no room.
    too_long: bool,
}

impl Default for Editor {
    fn default() -> Self {
        Editor::new()
    }
}

impl Editor {
    /// An editor with an empty line and no history.
    pub const fn new() -> Self {
        Editor {
            line: Vec::new(),
            cursor: 0,
            history: VecDeque::new(),
            back: 0,
            draft: Vec::new(),
            escape: Escape::None,
            after_return: false,
            too_long: false,
        }
    }

    /// Shows the prompt and the line as it stands.
    pub fn show(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(PROMPT.as_bytes());
        out.extend_from_slice(&self.line);
        left(self.line.len() - self.cursor, out);
    }

    /// Takes a byte from the terminal, appends what the terminal is to show, and gives the line when it ends; a line
    /// longer than [`MAX_LINE`] ends as the sentence that refuses it, for what was kept of it is not what was typed.
    pub fn feed(&mut self, byte: u8, out: &mut Vec<u8>) -> Option<Result<String, String>> {
        let key = self.key(byte)?;
        match key {
            Key::Text(byte) => self.insert(byte, out),
            Key::Enter => return Some(self.finish(out)),
            Key::Cancel => self.cancel(out),
            Key::Up => self.recall(self.back + 1, out),
            Key::Down => self.recall(self.back.wrapping_sub(1), out),
            Key::Clear => {
                out.extend_from_slice(b"\x1b[2J\x1b[H");
                self.show(out);
            }
            Key::Left => self.go(self.cursor.saturating_sub(1), out),
            Key::Right => self.go(self.cursor + 1, out),
            Key::Home => self.go(0, out),
            Key::End => self.go(self.line.len(), out),
            Key::Backspace => self.erase(self.cursor.saturating_sub(1), self.cursor, out),
            Key::Delete => self.erase(self.cursor, self.cursor + 1, out),
            Key::KillToEnd => self.erase(self.cursor, self.line.len(), out),
            Key::KillToStart => self.erase(0, self.cursor, out),
            Key::KillWord => self.erase(self.word_start(), self.cursor, out),
        }
        None
    }

    fn key(&mut self, byte: u8) -> Option<Key> {
        if let Some(key) = self.escaped(byte) {
            return key;
        }
        let line_feed_after_return = byte == b'\n' && self.after_return;
        self.after_return = byte == b'\r';
        match byte {
            b'\n' if line_feed_after_return => None,
            b'\r' | b'\n' => Some(Key::Enter),
            0x08 | 0x7f => Some(Key::Backspace),
            0x01 => Some(Key::Home),
            0x02 => Some(Key::Left),
            0x03 => Some(Key::Cancel),
            0x04 => Some(Key::Delete),
            0x05 => Some(Key::End),
            0x06 => Some(Key::Right),
            0x0b => Some(Key::KillToEnd),
            0x0c => Some(Key::Clear),
            0x0e => Some(Key::Down),
            0x10 => Some(Key::Up),
            0x15 => Some(Key::KillToStart),
            0x17 => Some(Key::KillWord),
            0x1b => {
                self.escape = Escape::Begun;
                None
            }
            b' '..=b'~' => Some(Key::Text(byte)),
            0x80.. => Some(FOREIGN),
            _ => None,
        }
    }

    /// What a byte means inside an escape sequence; `None` outside one.
    fn escaped(&mut self, byte: u8) -> Option<Option<Key>> {
        let (next, key) = match (self.escape, byte) {
            (Escape::None, _) => return None,
            (_, 0x80..) => (Escape::None, Some(FOREIGN)),
            (Escape::Begun, b'[') => (Escape::Bracket(0), None),
            (Escape::Begun, b'O') => (Escape::Single, None),
            (Escape::Bracket(number), digit @ b'0'..=b'9') => {
                (Escape::Bracket(number.wrapping_mul(10).wrapping_add(digit - b'0')), None)
            }
            (Escape::Bracket(_), b';') => (Escape::Bracket(0), None),
            (Escape::Bracket(number), b'~') => (Escape::None, numbered(number)),
            (Escape::Bracket(_) | Escape::Single, letter) => (Escape::None, lettered(letter)),
            (Escape::Begun, _) => (Escape::None, None),
        };
        self.escape = next;
        Some(key)
    }

    fn insert(&mut self, byte: u8, out: &mut Vec<u8>) {
        if self.line.len() >= MAX_LINE {
            out.push(0x07);
            self.too_long = true;
            return;
        }
        self.line.insert(self.cursor, byte);
        out.extend(self.line.iter().skip(self.cursor));
        self.cursor += 1;
        left(self.line.len() - self.cursor, out);
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Result<String, String> {
        out.extend_from_slice(b"\r\n");
        let line = String::from_utf8(core::mem::take(&mut self.line)).unwrap_or_default();
        let too_long = self.too_long;
        self.reset();
        if too_long {
            return Err(format!("the line is longer than {MAX_LINE} characters; nothing was done"));
        }
        let text = line.trim();
        if !text.is_empty() && self.history.back().is_none_or(|last| last != text) {
            if self.history.len() == MAX_HISTORY {
                self.history.pop_front();
            }
            self.history.push_back(text.into());
        }
        Ok(line)
    }

    fn cancel(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"^C\r\n");
        self.line.clear();
        self.reset();
        self.show(out);
    }

    fn reset(&mut self) {
        self.cursor = 0;
        self.back = 0;
        self.draft.clear();
        self.too_long = false;
    }

    fn go(&mut self, to: usize, out: &mut Vec<u8>) {
        let to = to.min(self.line.len());
        left(self.cursor.saturating_sub(to), out);
        out.extend(self.line.get(self.cursor..to).unwrap_or_default());
        self.cursor = to;
    }

    fn erase(&mut self, from: usize, to: usize, out: &mut Vec<u8>) {
        let to = to.min(self.line.len());
        if from >= to {
            return;
        }
        self.go(from, out);
        self.line.drain(from..to);
        // Nothing is left of the line that was too long.
        self.too_long &= !self.line.is_empty() || self.back != 0;
        out.extend_from_slice(b"\x1b[K");
        out.extend(self.line.iter().skip(from));
        left(self.line.len() - from, out);
    }

    fn word_start(&self) -> usize {
        let before = self.line.get(..self.cursor).unwrap_or_default();
        let end = before.iter().rposition(|byte| *byte != b' ').map_or(0, |last| last + 1);
        before.get(..end).and_then(|text| text.iter().rposition(|byte| *byte == b' ')).map_or(0, |at| at + 1)
    }

    /// Shows the line that many steps back.
    fn recall(&mut self, back: usize, out: &mut Vec<u8>) {
        if back > self.history.len() {
            return;
        }
        if self.back == 0 {
            self.draft.clone_from(&self.line);
        }
        let index = self.history.len() - back;
        let line = match self.history.get(index) {
            Some(line) => line.as_bytes().to_vec(),
            None => core::mem::take(&mut self.draft),
        };
        self.back = back;
        self.go(0, out);
        out.extend_from_slice(b"\x1b[K");
        out.extend_from_slice(&line);
        self.cursor = line.len();
        self.line = line;
    }
}

const fn lettered(letter: u8) -> Option<Key> {
    match letter {
        b'A' => Some(Key::Up),
        b'B' => Some(Key::Down),
        b'C' => Some(Key::Right),
        b'D' => Some(Key::Left),
        b'H' => Some(Key::Home),
        b'F' => Some(Key::End),
        _ => None,
    }
}

const fn numbered(number: u8) -> Option<Key> {
    match number {
        1 | 7 => Some(Key::Home),
        3 => Some(Key::Delete),
        4 | 8 => Some(Key::End),
        _ => None,
    }
}

/// Moves the terminal's cursor left.
fn left(by: usize, out: &mut Vec<u8>) {
    out.extend(core::iter::repeat_n(0x08, by));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds keys; gives the finished lines and what a terminal would show at the end.
    fn typed(editor: &mut Editor, keys: &str) -> (Vec<String>, String) {
        let (mut out, mut lines) = (Vec::new(), Vec::new());
        for byte in keys.bytes() {
            lines.extend(editor.feed(byte, &mut out).map(Result::unwrap));
        }
        (lines, screen(&out))
    }

    /// The last line of a terminal that understands what the editor uses.
    fn screen(out: &[u8]) -> String {
        let (mut line, mut cursor, mut i) = (Vec::new(), 0usize, 0);
        while i < out.len() {
            match out[i] {
                0x08 => cursor -= 1,
                b'\r' => cursor = 0,
                b'\n' => line.clear(),
                0x07 => {}
                0x1b => {
                    let rest = &out[i..];
                    if rest.starts_with(b"\x1b[K") {
                        line.truncate(cursor);
                        i += 2;
                    } else if rest.starts_with(b"\x1b[2J\x1b[H") {
                        line.clear();
                        cursor = 0;
                        i += 6;
                    } else {
                        panic!("unknown sequence {rest:?}");
                    }
                }
                byte => {
                    line.truncate(line.len().max(cursor));
                    if cursor < line.len() {
                        line[cursor] = byte
                    } else {
                        line.push(byte)
                    }
                    cursor += 1;
                }
            }
            i += 1;
        }
        String::from_utf8(line).unwrap()
    }

    fn line(keys: &str) -> String {
        let mut editor = Editor::new();
        let (_, shown) = typed(&mut editor, keys);
        let (lines, _) = typed(&mut editor, "\r");
        assert_eq!(lines.len(), 1);
        assert_eq!(shown.trim_start_matches(PROMPT), lines[0], "the screen differs from the line");
        lines[0].clone()
    }

    #[test]
    fn typing_inserts_at_the_cursor() {
        assert_eq!(line("load counter"), "load counter");
        assert_eq!(line("lod\x1b[Da"), "load");
        assert_eq!(line("oad\x1b[D\x1b[D\x1b[Dl"), "load");
    }

    #[test]
    fn backspace_and_delete_erase_one_character() {
        assert_eq!(line("psx\x7f"), "ps");
        assert_eq!(line("psx\x08"), "ps");
        assert_eq!(line("pxs\x1b[D\x7f"), "ps");
        assert_eq!(line("pxs\x1b[D\x1b[D\x1b[3~"), "ps");
        assert_eq!(line("\x7f\x1b[3~"), "");
    }

    #[test]
    fn home_and_end_move_in_every_dialect() {
        for home in ["\x01", "\x1b[H", "\x1bOH", "\x1b[1~", "\x1b[7~"] {
            assert_eq!(line(&format!("s{home}p")), "ps", "{home:?}");
        }
        for end in ["\x05", "\x1b[F", "\x1bOF", "\x1b[4~", "\x1b[8~"] {
            assert_eq!(line(&format!("s\x01p{end}!")), "ps!", "{end:?}");
        }
    }

    #[test]
    fn arrows_stop_at_the_ends() {
        assert_eq!(line("\x1b[D\x1b[Dp\x1b[C\x1b[Cs"), "ps");
        assert_eq!(line("p\x1bOD\x1bOC\x06s\x02\x02x"), "xps");
    }

    #[test]
    fn kills_erase_to_either_end() {
        assert_eq!(line("load counter\x01\x0b"), "");
        assert_eq!(line("load counter\x15ps"), "ps");
        assert_eq!(line("abc\x1b[D\x0b"), "ab");
        assert_eq!(line("abc\x1b[D\x15"), "c");
        assert_eq!(line("load  counter\x17"), "load  ");
        assert_eq!(line("load  \x17\x17"), "");
    }

    #[test]
    fn control_c_gives_the_line_up() {
        let mut editor = Editor::new();
        let (lines, shown) = typed(&mut editor, "abc\x03");
        assert!(lines.is_empty());
        assert_eq!(shown, PROMPT);
        assert_eq!(typed(&mut editor, "ps\r").0, ["ps"]);
    }

    #[test]
    fn control_l_clears_the_screen_and_keeps_the_line() {
        let mut editor = Editor::new();
        assert_eq!(typed(&mut editor, "abc\x02\x0c").1, "sila> abc");
        assert_eq!(typed(&mut editor, "x\r").0, ["abxc"]);
    }

    #[test]
    fn history_goes_up_and_down_and_keeps_the_draft() {
        let mut editor = Editor::new();
        typed(&mut editor, "one\rtwo\r");
        assert_eq!(typed(&mut editor, "dra\x1b[A\r").0, ["two"]);
        assert_eq!(typed(&mut editor, "\x1b[A\x1b[A\x1b[A\r").0, ["one"]);
        assert_eq!(typed(&mut editor, "dra\x1b[A\x1b[A\x1b[B\x1b[Bft\r").0, ["draft"]);
        assert_eq!(typed(&mut editor, "\x0e\x10\x10!\r").0, ["one!"]);
    }

    #[test]
    fn history_is_bounded_and_skips_blanks_and_repeats() {
        let mut editor = Editor::new();
        for number in 0..2 * MAX_HISTORY {
            typed(&mut editor, &format!("c{number}\rc{number}\r  \r"));
        }
        assert_eq!(editor.history.len(), MAX_HISTORY);
        let up = "\x1b[A".repeat(3 * MAX_HISTORY);
        assert_eq!(typed(&mut editor, &format!("{up}\r")).0, [format!("c{MAX_HISTORY}")]);
    }

    /// Feeds keys; gives the outcome of the last.
    fn outcome(editor: &mut Editor, keys: &str) -> Option<Result<String, String>> {
        keys.bytes().map(|byte| editor.feed(byte, &mut Vec::new())).last().flatten()
    }

    #[test]
    fn a_line_that_is_too_long_is_refused_and_not_cut() {
        let mut editor = Editor::new();
        let longest = "x".repeat(MAX_LINE);
        assert_eq!(outcome(&mut editor, &format!("{longest}\r")), Some(Ok(longest.clone())));
        let refused = outcome(&mut editor, &format!("{longest}y\r"));
        assert!(refused.unwrap().unwrap_err().contains(&format!("longer than {MAX_LINE} characters")));
        assert_eq!(outcome(&mut editor, "ps\r"), Some(Ok("ps".into())));
        assert!(outcome(&mut editor, &format!("{longest}y\x7f\r")).unwrap().is_err());
        assert_eq!(outcome(&mut editor, &format!("{longest}y\x15ps\r")), Some(Ok("ps".into())));
        assert_eq!(outcome(&mut editor, &format!("{longest}y\x03ps\r")), Some(Ok("ps".into())));
    }

    #[test]
    fn return_and_line_feed_together_end_one_line() {
        let mut editor = Editor::new();
        assert_eq!(typed(&mut editor, "a\r\nb\nc\n\r\n").0, ["a", "b", "c", ""]);
    }

    #[test]
    fn control_bytes_and_unknown_sequences_do_nothing() {
        assert_eq!(line("p\0\x1bx\x1b[99~\x1b[5;2Zs"), "ps");
    }

    #[test]
    fn bytes_that_are_not_ascii_show() {
        let mut editor = Editor::new();
        assert_eq!(typed(&mut editor, "load coünter").1, "load co??nter");
        assert_eq!(typed(&mut editor, "\r").0, ["load co??nter"]);
        assert_eq!(typed(&mut editor, "\x1bü\x1b[ü\r").0, ["????"]);
    }

    #[test]
    fn showing_again_puts_the_cursor_back() {
        let mut editor = Editor::new();
        typed(&mut editor, "abc\x1b[D");
        let mut out = Vec::new();
        editor.show(&mut out);
        assert_eq!(out, b"sila> abc\x08");
    }
}
