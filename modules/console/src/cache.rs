//! The module cache as text for people. Pure but for the question.

use crate::depot::short;
use crate::slots::CACHE;
use crate::system::{Outcome, refused};
use crate::table::{Align, Table};
use alloc::format;
use alloc::string::{String, ToString};
use sila_rt::sila_abi::Error;
use sila_rt::sila_abi::record::Version;
use sila_rt::sila_abi::status::{CacheRecord, CachedRecord};
use sila_rt::{CallError, cache};

const L: Align = Align::Left;
const R: Align = Align::Right;

/// `cache`.
pub fn list() -> Outcome {
    let state = cache::state(CACHE).map_err(not_asked)?;
    let images = cache::images(CACHE).map_err(not_asked)?;
    Ok(text(&state, &images))
}

fn not_asked(error: CallError) -> String {
    match error.error {
        Error::NoCapability => "cache: this system has no module cache".into(),
        _ => refused("cache", "the kernel", error),
    }
}

fn name(bytes: &[u8; 64], len: u64) -> String {
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    bytes.get(..len).and_then(|name| core::str::from_utf8(name).ok()).unwrap_or("?").into()
}

/// What `cache` says.
pub fn text(state: &CacheRecord, images: &[CachedRecord]) -> String {
    let columns = [
        (L, "MODULE"),
        (L, "VERSION"),
        (L, "PUBLISHER"),
        (L, "MANIFEST"),
        (R, "FRAMES"),
        (R, "PROCESSES"),
        (R, "MADE"),
    ];
    let mut table = Table::new(&columns);
    for image in images {
        table.row([
            name(&image.name, image.name_len),
            Version::from_word(image.version).map_or_else(|| "?".into(), |version| version.to_string()),
            name(&image.publisher, image.publisher_len),
            short(&image.manifest_digest),
            image.frames.to_string(),
            image.users.to_string(),
            image.made.to_string(),
        ]);
    }
    let mut text = if table.is_empty() { "no image is cached\n".into() } else { table.render() };
    let CacheRecord { entries, max_entries, frames, max_frames, .. } = state;
    text.push_str(&format!("{entries} of {max_entries} images, {frames} of {max_frames} frames\n"));
    let CacheRecord { hits, misses, inserted, evicted, killed, .. } = state;
    text.push_str(&format!(
        "{hits} found, {misses} not found; {inserted} came in, {evicted} made room, {killed} could no longer be loaded\n"
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str) -> ([u8; 64], u64) {
        let mut bytes = [0; 64];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        (bytes, text.len() as u64)
    }

    #[test]
    fn images_are_listed_with_what_becomes_of_them() {
        let nothing = ([0; 64], 0);
        let ((name, name_len), (publisher, publisher_len)) = (nothing, nothing);
        let mut image = CachedRecord {
            cursor: 1,
            frames: 36,
            capabilities: 0,
            users: 2,
            made: 5,
            used: 9,
            version: Version::new(1, 2, 3).to_word(),
            security_version: 0,
            module_id: [0; 32],
            manifest_digest: [0xab; 32],
            key_id: [0; 32],
            name_len,
            name,
            publisher_len,
            publisher,
        };
        (image.name, image.name_len) = named("counter");
        (image.publisher, image.publisher_len) = named("sila");
        let state = CacheRecord {
            entries: 1,
            max_entries: 32,
            frames: 36,
            max_frames: 4096,
            hits: 7,
            misses: 8,
            inserted: 3,
            evicted: 2,
            killed: 1,
        };
        let shown = text(&state, &[image]);
        for what in
            ["counter", "1.2.3", "sila", "abababababababab…", " 36 ", "1 of 32 images, 36 of 4096 frames"]
        {
            assert!(shown.contains(what), "{what}: {shown}");
        }
        assert!(shown.contains("7 found, 8 not found; 3 came in, 2 made room, 1 could no longer be loaded"));
        assert!(text(&CacheRecord::default(), &[]).starts_with("no image is cached\n0 of 0 images"));
        // What the kernel would never say is shown all the same.
        image.name_len = u64::MAX;
        assert!(text(&state, &[image]).contains('?'));
    }
}
