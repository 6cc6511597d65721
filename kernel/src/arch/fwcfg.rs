//! Boot flags from QEMU: the string `opt/sila/kernel` of its firmware configuration device.
//!
//! Owns nothing. Asked only under a hypervisor; on other machines there are no flags. Known flags:
//! `kpti=on`, `kpti=off`; `audit=on`. Every loop is bounded.

use super::regs::{in8, out16};

const SELECT: u16 = 0x510;
const DATA: u16 = 0x511;
const SIGNATURE: u16 = 0;
const DIRECTORY: u16 = 0x19;
const NAME: &[u8] = b"opt/sila/kernel";

fn select(item: u16) {
    // SAFETY: the device's own port; under another hypervisor nothing listens.
    unsafe { out16(SELECT, item) };
}

fn read<const N: usize>() -> [u8; N] {
    // SAFETY: as for `select`.
    core::array::from_fn(|_| unsafe { in8(DATA) })
}

/// The flags, and how many bytes they have.
pub fn flags() -> Option<([u8; 128], usize)> {
    select(SIGNATURE);
    if &read::<4>() != b"QEMU" {
        return None;
    }
    select(DIRECTORY);
    let count = u32::from_be_bytes(read::<4>()).min(256);
    for _ in 0..count {
        let size = u32::from_be_bytes(read::<4>()) as usize;
        let [item_high, item_low, _, _] = read::<4>();
        let name = read::<56>();
        if name.starts_with(NAME) && name[NAME.len()] == 0 {
            select(u16::from_be_bytes([item_high, item_low]));
            return Some((read::<128>(), size.min(128)));
        }
    }
    None
}

/// What a flag is set to, for flags that are on or off.
pub fn switch(flags: &[u8], name: &[u8]) -> Option<bool> {
    flags.split(|byte| byte.is_ascii_whitespace()).find_map(|flag| {
        match flag.strip_prefix(name)?.strip_prefix(b"=")?.trim_ascii() {
            b"on" => Some(true),
            b"off" => Some(false),
            _ => None,
        }
    })
}
