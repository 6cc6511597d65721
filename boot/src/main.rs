//! The host tool `sila`.
fn main() {}
