//! Host tests of the engine: what a careless or hostile publisher could sign.

use std::io::Write;

use proptest::prelude::*;

use crate::engine::{DecompressError, Limits, decompress_exact};
use crate::frame;
use crate::service::ServiceError;
use sila_abi::protocol::deep_compression::DecompressionError;

/// What the host tool writes: level 19, content size, checksum.
fn compress(content: &[u8]) -> Vec<u8> {
    compress_with(content, 19, true, true)
}

fn compress_with(content: &[u8], level: i32, checksum: bool, sized: bool) -> Vec<u8> {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), level).expect("encoder");
    encoder.include_checksum(checksum).expect("checksum");
    encoder.include_contentsize(sized).expect("content size");
    encoder.set_pledged_src_size(Some(content.len() as u64)).expect("pledge");
    encoder.write_all(content).expect("write");
    encoder.finish().expect("finish")
}

fn decompress(src: &[u8], len: usize) -> Result<Vec<u8>, DecompressError> {
    let mut dst = vec![0xAA; len];
    decompress_exact(src, &mut dst, &Limits::DEFAULT).map(|()| dst)
}

/// Text-like content: compressible, with matches and literals.
fn sample(len: usize) -> Vec<u8> {
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut out = Vec::new();
    while out.len() < len {
        out.extend_from_slice(format!("entry {} = {:x};\n", step() % 50, step() % 4096).as_bytes());
    }
    out.truncate(len);
    out
}

/// A frame by hand: single segment, checksum, an 8-byte content size, and these blocks.
fn hand_made(content_size: u64, blocks: &[u8], checksum: u32) -> Vec<u8> {
    let mut bytes = frame::FRAME_MAGIC.to_le_bytes().to_vec();
    bytes.push(0xE4);
    bytes.extend(content_size.to_le_bytes());
    bytes.extend(blocks);
    bytes.extend(checksum.to_le_bytes());
    bytes
}

/// An RLE block: four bytes that stand for `len` bytes.
fn rle_block(len: u32, last: bool) -> [u8; 4] {
    let header = (len << 3) | (1 << 1) | u32::from(last);
    let [a, b, c, _] = header.to_le_bytes();
    [a, b, c, 0]
}

#[test]
fn engine_restores_what_was_compressed_at_level_19() {
    for len in [0, 1, 255, 256, 65_791, 65_792, 300_000] {
        let content = sample(len);
        assert_eq!(decompress(&compress(&content), len), Ok(content), "{len}");
    }
}

#[test]
fn engine_accepts_a_large_image_with_the_full_window() {
    let content = sample(9 << 20);
    let src = compress_with(&content, 19, true, true);
    let header = frame::read_header(&src).expect("header");
    assert_eq!(header.window_size, 8 << 20);
    assert_eq!(decompress(&src, content.len()), Ok(content));
}

#[test]
fn engine_refuses_empty_input() {
    assert_eq!(decompress(&[], 0), Err(DecompressError::EmptyInput));
    assert_eq!(decompress(&[], 10), Err(DecompressError::EmptyInput));
}

#[test]
fn engine_refuses_every_truncation() {
    let content = sample(700);
    let src = compress(&content);
    for len in 1..src.len() {
        assert_eq!(decompress(&src[..len], content.len()), Err(DecompressError::Truncated), "{len}");
    }
}

#[test]
fn engine_accepts_no_single_bit_flip_with_other_content() {
    let content = sample(600);
    let src = compress(&content);
    for bit in 0..src.len() * 8 {
        let mut flipped = src.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let result = decompress(&flipped, content.len());
        assert!(result.is_err() || result.as_ref() == Ok(&content), "bit {bit}");
    }
}

#[test]
fn engine_names_a_wrong_checksum() {
    let content = sample(600);
    let mut src = compress(&content);
    let last = src.len() - 1;
    src[last] ^= 0x40;
    assert_eq!(decompress(&src, content.len()), Err(DecompressError::ChecksumMismatch));
}

#[test]
fn engine_refuses_a_frame_without_checksum() {
    let content = sample(600);
    let src = compress_with(&content, 19, false, true);
    assert_eq!(decompress(&src, content.len()), Err(DecompressError::MissingChecksum));
}

#[test]
fn engine_refuses_a_frame_without_content_size() {
    let content = sample(600);
    let src = compress_with(&content, 19, true, false);
    assert_eq!(decompress(&src, content.len()), Err(DecompressError::MissingContentSize));
}

#[test]
fn engine_refuses_another_size_than_declared() {
    let content = sample(600);
    let src = compress(&content);
    for len in [0, 1, 599, 601, 1 << 20] {
        assert_eq!(decompress(&src, len), Err(DecompressError::ContentSizeMismatch), "{len}");
    }
}

#[test]
fn engine_refuses_concatenated_frames_and_trailing_bytes() {
    let content = sample(600);
    let src = compress(&content);
    let twice = [src.clone(), src.clone()].concat();
    assert_eq!(decompress(&twice, content.len()), Err(DecompressError::TrailingBytes));
    assert_eq!(decompress(&twice, 2 * content.len()), Err(DecompressError::ContentSizeMismatch));
    let skippable = [0x50, 0x2A, 0x4D, 0x18, 2, 0, 0, 0, 1, 2];
    let after = [&src[..], &skippable].concat();
    assert_eq!(decompress(&after, content.len()), Err(DecompressError::TrailingBytes));
    let before = [&skippable[..], &src].concat();
    assert_eq!(decompress(&before, content.len()), Err(DecompressError::SkippableFrame));
    assert_eq!(decompress(&[&src[..], &[0]].concat(), content.len()), Err(DecompressError::TrailingBytes));
}

#[test]
fn engine_refuses_a_dictionary() {
    let content = sample(600);
    let mut src = compress(&content);
    src[4] |= 1; // a one-byte dictionary id ...
    src.insert(5, 7); // ... in a single-segment frame, right after the descriptor
    assert_eq!(decompress(&src, content.len()), Err(DecompressError::DictionaryRefused));
}

#[test]
fn engine_refuses_reserved_header_bits_and_other_magic() {
    let content = sample(600);
    for bit in [3, 4] {
        let mut src = compress(&content);
        src[4] |= 1 << bit;
        assert_eq!(decompress(&src, content.len()), Err(DecompressError::UnsupportedHeader));
    }
    let gzip = [0x1F, 0x8B, 8, 0, 0, 0, 0, 0];
    assert_eq!(decompress(&gzip, content.len()), Err(DecompressError::BadMagic));
    // zstd 0.7's magic number: a legacy frame.
    assert_eq!(decompress(&[0x27, 0xB5, 0x2F, 0xFD, 0, 0], 10), Err(DecompressError::BadMagic));
}

#[test]
fn engine_limits_can_be_tightened_and_never_widened() {
    let window = |log| Limits::DEFAULT.with_window(log).max_window;
    assert_eq!(
        [0, 16, 23, 24, 63, 64, 255].map(window),
        [1, 65_536, 8 << 20, 8 << 20, 8 << 20, 8 << 20, 8 << 20]
    );
}

#[test]
fn engine_refuses_windows_above_the_limit() {
    let content = sample(70_000);
    let src = compress(&content);
    let limits = Limits { max_window: 65_536, ..Limits::DEFAULT };
    let mut dst = vec![0; content.len()];
    assert_eq!(decompress_exact(&src, &mut dst, &limits), Err(DecompressError::WindowTooLarge));
    // A window descriptor of 16 MiB and of 3.75 TiB, before a checksummed frame of 5 bytes.
    for descriptor in [(24 - 10) << 3, 0xFF] {
        let mut src = frame::FRAME_MAGIC.to_le_bytes().to_vec();
        src.extend([0x84, descriptor, 5, 0, 0, 0]);
        src.extend(rle_block(5, true));
        src.extend([0; 4]);
        assert_eq!(decompress(&src, 5), Err(DecompressError::WindowTooLarge));
    }
}

#[test]
fn engine_stops_a_bomb_that_declares_less_than_it_holds() {
    // 64 RLE blocks of 128 KiB in 256 bytes (ratio 32,768), declared as 128 KiB.
    let size = 128 * 1024;
    let blocks: Vec<u8> = (0..64).flat_map(|index| rle_block(size, index == 63)).collect();
    let src = hand_made(u64::from(size), &blocks, 0);
    assert_eq!(decompress(&src, size as usize), Err(DecompressError::WrongSize));
}

#[test]
fn engine_refuses_a_bomb_above_the_output_limit_unread() {
    let limits = Limits { max_output: 1 << 20, ..Limits::DEFAULT };
    let content = vec![0; (1 << 20) + 1];
    let src = compress(&content);
    let mut dst = vec![0; content.len()];
    assert_eq!(decompress_exact(&src, &mut dst, &limits), Err(DecompressError::OutputTooLarge));
    let limits = Limits { max_input: src.len() as u64 - 1, ..Limits::DEFAULT };
    assert_eq!(decompress_exact(&src, &mut dst, &limits), Err(DecompressError::InputTooLarge));
}

#[test]
fn engine_refuses_a_frame_that_holds_less_than_it_declares() {
    let src = hand_made(4096, &rle_block(100, true), 0);
    let result = decompress(&src, 4096);
    assert!(matches!(result, Err(DecompressError::Corrupt | DecompressError::WrongSize)), "{result:?}");
}

#[test]
fn engine_refuses_reserved_and_oversize_blocks() {
    let reserved = [0b111, 0, 0];
    assert_eq!(decompress(&hand_made(10, &reserved, 0), 10), Err(DecompressError::Corrupt));
    let oversize = rle_block(128 * 1024 + 1, true);
    assert_eq!(decompress(&hand_made(1 << 20, &oversize, 0), 1 << 20), Err(DecompressError::Corrupt));
    assert_eq!(decompress(&hand_made(10, &rle_block(11, true), 0), 10), Err(DecompressError::Corrupt));
}

#[test]
fn engine_leaves_only_zeros_behind_after_a_failure() {
    let content = sample(200_000);
    let mut src = compress(&content);
    let last = src.len() - 1;
    src[last] ^= 1;
    let mut dst = vec![0xAA; content.len()];
    assert_eq!(decompress_exact(&src, &mut dst, &Limits::DEFAULT), Err(DecompressError::ChecksumMismatch));
    assert!(dst.iter().all(|byte| *byte == 0));
}

#[test]
fn engine_and_service_errors_are_those_of_the_protocol() {
    let queue = [
        ServiceError::Busy,
        ServiceError::ClientLimit,
        ServiceError::InputSize,
        ServiceError::OutputSize,
        ServiceError::NoSuchJob,
        ServiceError::NotReady,
        ServiceError::NotRunning,
        ServiceError::IdsExhausted,
    ];
    let ours: Vec<_> = DecompressError::ALL
        .into_iter()
        .map(|error| (error.code(), format!("{error:?}"), error.describe()))
        .chain(queue.into_iter().map(|error| (error.code(), format!("{error:?}"), error.describe())))
        .collect();
    for (code, name, sentence) in &ours {
        let error = DecompressionError::from_number(*code).expect("a number of the protocol");
        assert_eq!((format!("{error:?}").as_str(), error.to_string().as_str()), (name.as_str(), *sentence));
    }
    let protocol = (1..200).filter(|code| DecompressionError::from_number(*code).is_some()).count();
    assert_eq!(ours.len(), protocol);
}

#[test]
fn engine_error_numbers_are_stable_and_distinct() {
    for (index, error) in DecompressError::ALL.into_iter().enumerate() {
        assert_eq!(usize::from(error.code()), index + 1);
        assert_eq!(DecompressError::from_code(error.code()), Some(error));
        assert!(!error.to_string().is_empty());
    }
    assert_eq!(DecompressError::from_code(0), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn engine_round_trips_any_content(content in prop::collection::vec(any::<u8>(), 0..5000), level in 1..20) {
        let src = compress_with(&content, level, true, true);
        prop_assert_eq!(decompress(&src, content.len()), Ok(content));
    }

    #[test]
    fn engine_never_panics_on_random_bytes(tail in prop::collection::vec(any::<u8>(), 0..300), len in 0usize..2000) {
        prop_assert!(decompress(&tail, len).is_err());
        let mut framed = frame::FRAME_MAGIC.to_le_bytes().to_vec();
        framed.extend(tail);
        let _ = decompress(&framed, len);
    }

    #[test]
    fn engine_finds_the_frame_end_that_zstd_finds(content in prop::collection::vec(any::<u8>(), 0..3000), junk in 0usize..20) {
        let mut src = compress(&content);
        let len = src.len();
        src.resize(len + junk, 0x5A);
        let header = frame::read_header(&src).expect("header");
        prop_assert_eq!(frame::frame_len(&src, &header), Ok(len));
        prop_assert_eq!(zstd_safe::find_frame_compressed_size(&src), Ok(len));
    }

    #[test]
    fn engine_accepts_no_damage_with_other_content(
        seed in 100usize..3000,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let content = sample(seed);
        let mut src = compress_with(&content, 3, true, true);
        for (at, value) in damage {
            let at = at.index(src.len());
            src[at] = value;
        }
        let result = decompress(&src, content.len());
        prop_assert!(result.is_err() || result == Ok(content));
    }
}
