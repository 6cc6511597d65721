//! DeepCompression: bounded zstd decompression as an isolated service.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
