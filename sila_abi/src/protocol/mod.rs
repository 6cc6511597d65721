//! Messages between processes: labels, words and error numbers of every service that is part of SILA.

pub mod deep_compression;
pub mod depot;
pub mod layout;
pub mod lifecycle;
pub mod module_manager;
pub mod push;
pub mod registry;
pub mod text;
pub mod wire;
