//! The source of random bytes that C bindings ask for through the crate `getrandom`: there is none. Whoever links it makes
//! no keys and no signatures here, and gets an error instead of bytes that are not random.
#![allow(unsafe_code)]

use getrandom::Error;

/// What `getrandom` calls where it is built for a source of the program's own: always [`Error::UNSUPPORTED`].
///
/// # Safety
/// Nothing is asked of the caller: no byte is written.
#[cfg_attr(target_os = "none", unsafe(no_mangle))]
pub unsafe extern "Rust" fn __getrandom_v03_custom(_: *mut u8, _: usize) -> Result<(), Error> {
    Err(Error::UNSUPPORTED)
}
