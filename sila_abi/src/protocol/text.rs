//! Text calls: the form in which every service takes commands from people.
//!
//! A call has the label [`TEXT_CALL`], word 0 the length in bytes, words 1 up the UTF-8 text, zero padded, and
//! may carry one Region. The reply has the label [`OK`] or [`ERROR`] and a text in the same form; an error is
//! a sentence that names its cause.

use zerocopy::IntoBytes;

/// Label of a text call ("text" in ASCII).
pub const TEXT_CALL: u32 = 0x7465_7874;
/// Label of the reply: the text is the result.
pub const OK: u32 = super::wire::OK;
/// Label of the reply: the text says why there is no result.
pub const ERROR: u32 = 1;
/// The longest text in bytes.
pub const MAX_TEXT: usize = 900;
/// Words of the longest text, its length word included.
pub const MAX_TEXT_WORDS: usize = 1 + MAX_TEXT.div_ceil(8);

/// A text in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoded {
    words: [u64; MAX_TEXT_WORDS],
    len: usize,
}

impl Encoded {
    /// The words to send.
    pub fn words(&self) -> &[u64] {
        self.words.get(..self.len).unwrap_or(&self.words)
    }
}

/// The longest beginning of `text` that fits, cut between characters.
pub fn clip(text: &str) -> &str {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or("")
}

/// The text in words. What does not fit is cut off: see [`clip`].
pub fn encode(text: &str) -> Encoded {
    let text = clip(text);
    let mut words = [0; MAX_TEXT_WORDS];
    if let Some((first, rest)) = words.split_first_mut() {
        *first = text.len() as u64;
        for (to, from) in rest.as_mut_bytes().iter_mut().zip(text.bytes()) {
            *to = from;
        }
    }
    Encoded { words, len: 1 + text.len().div_ceil(8) }
}

/// The text in these words; `None` if it is longer than they are or than [`MAX_TEXT`], or not UTF-8.
pub fn decode(words: &[u64]) -> Option<&str> {
    let (&len, rest) = words.split_first()?;
    let len = usize::try_from(len).ok().filter(|len| *len <= MAX_TEXT)?;
    core::str::from_utf8(rest.as_bytes().get(..len)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_round_trip() {
        for text in ["", "a", "12345678", "add 5", "grüße"] {
            let encoded = encode(text);
            assert_eq!(encoded.words().len(), 1 + text.len().div_ceil(8));
            assert_eq!(decode(encoded.words()), Some(text));
        }
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let long = "é".repeat(MAX_TEXT);
        let encoded = encode(&long);
        let text = decode(encoded.words()).unwrap();
        assert_eq!(text.len(), MAX_TEXT);
        assert!(long.starts_with(text));
        assert_eq!(clip(&"x€".repeat(MAX_TEXT)).len(), MAX_TEXT);
        assert!(encoded.words().len() <= crate::syscall::MAX_WORDS);
    }

    #[test]
    fn malformed_texts_are_refused() {
        assert_eq!(decode(&[]), None);
        assert_eq!(decode(&[9, 0]), None);
        assert_eq!(decode(&[u64::MAX, 0]), None);
        assert_eq!(decode(&[1, 0xff]), None);
        let words = [0; 200];
        let mut long = words;
        long[0] = MAX_TEXT as u64 + 1;
        assert_eq!(decode(&long), None);
    }
}
