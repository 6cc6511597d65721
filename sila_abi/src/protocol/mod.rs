//! Messages between processes: labels, words and error numbers of every service that is part of SILA.

pub mod layout;
