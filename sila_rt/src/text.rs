//! A short text that is built without a heap.

use core::fmt;
use sila_abi::protocol::text::MAX_TEXT;

/// A text of at most [`MAX_TEXT`] bytes; what does not fit is cut off.
#[derive(Clone, Debug)]
pub struct TextBuffer {
    bytes: [u8; MAX_TEXT],
    len: usize,
}

impl Default for TextBuffer {
    fn default() -> Self {
        TextBuffer::new()
    }
}

impl TextBuffer {
    /// An empty text.
    pub const fn new() -> Self {
        TextBuffer { bytes: [0; MAX_TEXT], len: 0 }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        self.bytes.get(..self.len).and_then(|bytes| core::str::from_utf8(bytes).ok()).unwrap_or("")
    }
}

impl fmt::Write for TextBuffer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut end = text.len().min(MAX_TEXT - self.len);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        if let (Some(to), Some(from)) =
            (self.bytes.get_mut(self.len..self.len + end), text.as_bytes().get(..end))
        {
            to.copy_from_slice(from);
            self.len += end;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::fmt::Write;

    #[test]
    fn a_text_buffer_cuts_at_a_character() {
        let mut text = TextBuffer::new();
        for _ in 0..MAX_TEXT - 1 {
            text.write_str("x").unwrap();
        }
        text.write_str("é").unwrap();
        assert_eq!(text.as_str().len(), MAX_TEXT - 1);
        text.write_str("yz").unwrap();
        assert!(text.as_str().ends_with("xy"));
    }
}
