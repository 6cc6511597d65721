//! The host tool as a library: building, packing, signing, imaging and running SILA.
#![forbid(unsafe_code)]
