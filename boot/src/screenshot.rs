//! A picture of the guest's screen, by way of QEMU's monitor.
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// A picture: 8 bits each of red, green and blue.
#[derive(Debug, PartialEq, Eq)]
pub struct Picture {
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Three bytes a pixel.
    pub rgb: Vec<u8>,
}

/// Reads a binary PPM with 8 bits a channel; `None` if it is anything else or not complete.
pub fn parse_ppm(bytes: &[u8]) -> Option<Picture> {
    let mut at = 0;
    let mut word = || {
        let start = at + bytes.get(at..)?.iter().position(|byte| !byte.is_ascii_whitespace())?;
        let end = start + bytes.get(start..)?.iter().position(u8::is_ascii_whitespace)?;
        at = end + 1;
        std::str::from_utf8(bytes.get(start..end)?).ok()
    };
    if word()? != "P6" {
        return None;
    }
    let (width, height): (u32, u32) = (word()?.parse().ok()?, word()?.parse().ok()?);
    if word()? != "255" {
        return None;
    }
    let len = usize::try_from(u64::from(width).checked_mul(u64::from(height))?.checked_mul(3)?).ok()?;
    let rgb = bytes.get(at..at.checked_add(len)?)?.to_vec();
    Some(Picture { width, height, rgb })
}

/// Writes a picture as PNG.
pub fn write_png(picture: &Picture, to: &Path) -> Result<()> {
    let file = File::create(to).with_context(|| format!("cannot write {}", to.display()))?;
    let mut encoder = png::Encoder::new(BufWriter::new(file), picture.width, picture.height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header()?.write_image_data(&picture.rgb)?;
    Ok(())
}

/// Has QEMU dump its screen to `raw` and makes a PNG of it.
pub fn take(monitor: &mut impl Write, raw: &Path, to: &Path) -> Result<()> {
    writeln!(monitor, "screendump {}", raw.display()).context("QEMU's monitor is closed")?;
    let until = Instant::now() + Duration::from_secs(10);
    while Instant::now() < until {
        if let Some(picture) = std::fs::read(raw).ok().and_then(|bytes| parse_ppm(&bytes)) {
            return write_png(&picture, to);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    bail!("QEMU gave no picture of the screen")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ppm_is_read() {
        let picture = parse_ppm(b"P6\n2 1\n255\nabcdef").unwrap();
        assert_eq!(picture, Picture { width: 2, height: 1, rgb: b"abcdef".to_vec() });
    }

    #[test]
    fn half_written_or_foreign_pictures_are_refused() {
        for bytes in [&b"P6\n2 1\n255\nabcde"[..], b"P5\n1 1\n255\na", b"", b"P6\n99999999 99999999\n255\n"] {
            assert_eq!(parse_ppm(bytes), None);
        }
    }
}
