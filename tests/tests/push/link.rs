//! A hostile peer on the serial port itself.
use super::Maker;
use anyhow::{Context, Result};
use boot::cli::SystemArgs;
use boot::paths::Scratch;
use boot::push_link;
use boot::system::make_image;
use boot::{Guest, Options};
use depot::link::Frame;
use libtest_mimic::Failed;
use sila_abi::protocol::push::{Announcement, BEGIN, DATA, FRAME_MAGIC, MAX_FILE};
use sila_tests::tool::sila;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};
use zerocopy::IntoBytes;

/// What the depot says within this time, as lines.
fn said(stream: &mut UnixStream, until: &str, limit: Duration) -> Result<String> {
    let deadline = Instant::now() + limit;
    let (mut text, mut buffer) = (String::new(), [0; 4096]);
    while Instant::now() < deadline && !text.contains(until) {
        if let Ok(count) = stream.read(&mut buffer) {
            text.push_str(&String::from_utf8_lossy(buffer.get(..count).unwrap_or_default()));
        }
    }
    anyhow::ensure!(text.contains(until), "{until:?} was not said, but: {text}");
    Ok(text)
}

fn connect(socket: &Path) -> Result<UnixStream> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_millis(100)))?;
    Ok(stream)
}

fn frame(kind: u8, transfer: u32, number: u32, payload: &[u8]) -> Result<Vec<u8>> {
    Frame { kind, transfer, number, payload: payload.to_vec() }.encode().context("too long")
}

fn begin(transfer: u32, len: u64, digest: [u8; 32]) -> Result<Vec<u8>> {
    frame(BEGIN, transfer, 0, Announcement { len: len.into(), digest }.as_bytes())
}

/// Each of these must be answered so, on the one connection.
fn hostilities() -> Result<Vec<(&'static str, Vec<u8>, &'static str)>> {
    let mut flipped = begin(3, 100, [0; 32])?;
    *flipped.last_mut().context("an empty frame")? ^= 1;
    let mut endless = begin(4, 100, [0; 32])?;
    endless.splice(6..8, u16::MAX.to_le_bytes());
    let half = begin(5, 100, [0; 32])?.get(..40).context("a short frame")?.to_vec();
    Ok(vec![
        ("a frame with a flipped bit", flipped, "nack 0 the frame's check does not match"),
        ("a length above the limit", endless, "nack 0 the frame is too long"),
        ("a frame cut short", half, "nack 0 the frame was cut short"),
        ("an oversize file", begin(6, MAX_FILE + 1, [0; 32])?, "depot 6 refused the file has 4194305 bytes"),
        ("an empty file", begin(7, 0, [0; 32])?, "depot 7 refused the file is empty"),
        ("data of no transfer", frame(DATA, 8, 1, b"x")?, "depot 8 refused the transfer was not announced"),
        (
            "an announcement that is none",
            frame(BEGIN, 9, 0, b"x")?,
            "depot 9 refused the announcement is malformed",
        ),
        ("a transfer", begin(10, 3, [0; 32])?, "depot 10 ack 0"),
        ("a frame out of order", frame(DATA, 10, 5, b"abc")?, "depot 10 nack 1 frame 1 was expected"),
        ("another digest", frame(DATA, 10, 1, b"abc")?, "depot 10 refused the file's digest is not the one"),
        ("a transfer", begin(11, 3, [0; 32])?, "depot 11 ack 0"),
        (
            "more than is due",
            frame(DATA, 11, 1, b"abcd")?,
            "depot 11 refused frame 1 does not carry the 3 bytes",
        ),
        ("a transfer that another one ends", begin(12, MAX_FILE, [0; 32])?, "depot 12 ack 0"),
        ("the other one", begin(13, 3, [0; 32])?, "depot 13 ack 0"),
    ])
}

pub fn garbage_on_the_link_stops_no_push() -> Result<(), Failed> {
    attack().map_err(|error| format!("{error:#}").into())
}

fn attack() -> Result<()> {
    let (maker, scratch) = (Maker::new()?, Scratch::new()?);
    let image = make_image(&SystemArgs::default(), &scratch.join("sila.img"))?;
    let options = Options { push: true, ..Options::new(image.path) };
    let guest = Guest::start(&options.board, &options)?;
    let socket = guest.push_socket().context("no second serial port")?;
    let mut stream = connect(socket)?;
    awake(&mut stream)?;
    for (what, bytes, answer) in hostilities()? {
        stream.write_all(&bytes)?;
        said(&mut stream, answer, Duration::from_secs(10)).with_context(|| what)?;
    }
    // What looks like frames and is none, without end, and then a real file over the same line.
    let noise: Vec<u8> = FRAME_MAGIC.iter().copied().chain([1, 0, 0, 4]).cycle().take(20_000).collect();
    stream.write_all(&noise)?;
    drop(stream);
    let mut wire = push_link::open(socket)?;
    let told = push_link::transfer(&mut *wire, &maker.own("pushed", "1.0.0")?)?;
    anyhow::ensure!(told.starts_with("the depot keeps pushed 1.0.0"), "{told}");
    drop(wire);
    by_command(&scratch, socket, &maker.own("pushed", "1.0.0")?)
}

/// The same file by the command, and one that is refused.
fn by_command(scratch: &Scratch, socket: &Path, package: &[u8]) -> Result<()> {
    let to = socket.to_str().context("an odd folder")?;
    for (name, bytes, status, says) in [
        ("good", package, 0, "the depot keeps pushed 1.0.0 already"),
        ("bad", b"x", 1, "the system refused it: "),
    ] {
        let file = scratch.join(name);
        std::fs::write(&file, bytes)?;
        let ran = sila(&["push", file.to_str().context("an odd folder")?, "--to", to])?;
        anyhow::ensure!(ran.status == status && ran.says(says), "{name}: {ran:?}");
    }
    Ok(())
}

/// Waits until the depot answers.
fn awake(stream: &mut UnixStream) -> Result<()> {
    for _ in 0..60 {
        stream.write_all(&frame(DATA, 1, 1, b"x")?)?;
        if said(stream, "depot 1 refused", Duration::from_secs(1)).is_ok() {
            return Ok(());
        }
    }
    anyhow::bail!("the depot does not answer")
}
