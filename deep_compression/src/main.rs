//! Bare-metal entry (under construction).
fn main() {}
