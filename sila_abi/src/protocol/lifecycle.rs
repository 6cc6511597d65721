//! What a module reports to whoever started it, by calls on slot [`super::layout::LIFECYCLE`]. The badge of
//! that capability tells the receiver which module speaks. The reply has no words.

/// The module serves. No words.
pub const READY: u32 = 1;
/// The module can't do its work: word 0 its own error code, words 1 up a text ([`super::text`]).
pub const FAILED: u32 = 2;
/// The answer to either.
pub const NOTED: u32 = 0;
