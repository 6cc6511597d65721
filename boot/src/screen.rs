//! Makes text of what a serial console sends: lines as a terminal would show them.

/// The last line of a terminal, and nothing more of it.
#[derive(Debug, Default)]
pub struct Screen {
    line: Vec<char>,
    cursor: usize,
    escape: Option<String>,
    partial: Vec<u8>,
}

impl Screen {
    /// Takes one byte; gives the line that it completes.
    pub fn feed(&mut self, byte: u8) -> Option<String> {
        if !self.partial.is_empty() || byte >= 0x80 {
            self.partial.push(byte);
            match std::str::from_utf8(&self.partial) {
                Ok(text) => {
                    let char = text.chars().next();
                    self.partial.clear();
                    char.and_then(|char| self.put(char))
                }
                Err(error) if error.error_len().is_none() => None,
                Err(_) => {
                    self.partial.clear();
                    self.put(char::REPLACEMENT_CHARACTER)
                }
            }
        } else {
            self.put(char::from(byte))
        }
    }

    /// What stands on the line that is not complete yet.
    pub fn current(&self) -> String {
        self.line.iter().collect()
    }

    /// Whether the line is exactly this text, with the cursor behind it.
    pub fn stands_at(&self, text: &str) -> bool {
        self.cursor == self.line.len() && self.line.iter().copied().eq(text.chars())
    }

    fn put(&mut self, char: char) -> Option<String> {
        if let Some(mut text) = self.escape.take() {
            text.push(char);
            let opening = text == "[" || text == "O";
            if opening || (text.starts_with('[') && !matches!(char, '@'..='~')) {
                self.escape = Some(text);
            } else {
                self.obey(&text);
            }
            return None;
        }
        match char {
            '\x1b' => self.escape = Some(String::new()),
            '\r' => self.cursor = 0,
            '\x08' => self.cursor = self.cursor.saturating_sub(1),
            '\n' => {
                self.cursor = 0;
                return Some(std::mem::take(&mut self.line).into_iter().collect());
            }
            '\t' => self.write(' '),
            char if char.is_control() => {}
            char => self.write(char),
        }
        None
    }

    fn write(&mut self, char: char) {
        while self.line.len() < self.cursor {
            self.line.push(' ');
        }
        match self.line.get_mut(self.cursor) {
            Some(place) => *place = char,
            None => self.line.push(char),
        }
        self.cursor += 1;
    }

    fn obey(&mut self, sequence: &str) {
        let number = || sequence.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or(1_usize);
        match sequence.chars().last() {
            Some('K') if sequence == "[K" || sequence == "[0K" => self.line.truncate(self.cursor),
            Some('K') if sequence == "[2K" => self.line.clear(),
            Some('D') => self.cursor = self.cursor.saturating_sub(number()),
            Some('C') => self.cursor = (self.cursor + number()).min(self.line.len()),
            Some('G') => self.cursor = (number().saturating_sub(1)).min(self.line.len()),
            Some('J' | 'H') => {
                self.line.clear();
                self.cursor = 0;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: &[u8]) -> (Vec<String>, Screen) {
        let mut screen = Screen::default();
        let lines = bytes.iter().filter_map(|byte| screen.feed(*byte)).collect();
        (lines, screen)
    }

    #[test]
    fn carriage_returns_vanish_and_redrawn_lines_appear_once() {
        let (lines, _) = lines(b"sila> p\rsila> ps\x1b[K\r\nok\r\n");
        assert_eq!(lines, ["sila> ps", "ok"]);
    }

    #[test]
    fn backspace_and_cursor_sequences_edit_the_line() {
        let (lines, _) = lines(b"abd\x08cd\n\x1b[1;32mgreen\x1b[0m\nab\x1b[2DX\n");
        assert_eq!(lines, ["abcd", "green", "Xb"]);
    }

    #[test]
    fn text_in_utf8_survives_and_bad_bytes_are_marked() {
        let (lines, _) = lines("ä→\n".as_bytes());
        assert_eq!(lines, ["ä→"]);
        let mut screen = Screen::default();
        for byte in [0xff, b'a'] {
            assert_eq!(screen.feed(byte), None);
        }
        assert_eq!(screen.current(), "\u{fffd}a");
    }

    #[test]
    fn prompt_is_seen_only_with_the_cursor_behind_it() {
        let (_, screen) = lines(b"x\r\nsila> ");
        assert!(screen.stands_at("sila> "));
        let (_, screen) = lines(b"sila> p");
        assert!(!screen.stands_at("sila> "));
    }
}
