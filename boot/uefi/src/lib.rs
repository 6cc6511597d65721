//! Nothing: this package only names the UEFI loader and the lock file it is built with.
#![no_std]
