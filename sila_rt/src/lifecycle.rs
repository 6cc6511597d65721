//! What a module tells those who started it.

use crate::clock;
use crate::error::CallError;
use crate::ipc::{self, Message};
use sila_abi::protocol::layout::LIFECYCLE;
use sila_abi::protocol::{lifecycle, text};

/// How long a module waits for its report to be taken.
const PATIENCE: u64 = 5 * clock::SECOND;

/// The module serves from now on.
///
/// # Errors
/// The kernel's: nobody took the report.
pub fn ready() -> Result<(), CallError> {
    let message = Message::new(lifecycle::READY);
    ipc::call(LIFECYCLE, &message, 0, clock::after(PATIENCE)).map(|_| ())
}

/// The module can't do its work; it ends soon. The code is its own, the sentence is for people.
///
/// # Errors
/// The kernel's: nobody took the report.
pub fn failed(code: u64, sentence: &str) -> Result<(), CallError> {
    let mut message = Message::with(lifecycle::FAILED, &[code]);
    message.extend(text::encode(text::clip(sentence)).words());
    ipc::call(LIFECYCLE, &message, 0, clock::after(PATIENCE)).map(|_| ())
}
