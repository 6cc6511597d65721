//! Integration tests of SILA.
#![forbid(unsafe_code)]
