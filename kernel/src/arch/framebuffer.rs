//! The log on the screen: a grid of characters, drawn lazily.
//!
//! Owns: the framebuffer. Log lines only change the wanted grid; pixels follow in bounded steps, all
//! of them during boot and in a panic, a few at a time when the machine idles. Invariants: every pixel
//! written lies inside the framebuffer; a step draws at most one character.

use bootloader_api::info::{FrameBufferInfo, PixelFormat};
use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};
use spin::Mutex;

const HEIGHT: usize = 16;
const WIDTH: usize = get_raster_width(FontWeight::Regular, RasterHeight::Size16);
const MAX_COLUMNS: usize = 240;
const MAX_ROWS: usize = 80;
/// Light grey on near black.
const INK: [u8; 3] = [0xd8, 0xd8, 0xd0];
const PAPER: [u8; 3] = [0x10, 0x14, 0x1c];

struct Screen {
    base: u64,
    info: Option<FrameBufferInfo>,
    columns: usize,
    rows: usize,
    row: usize,
    column: usize,
    wanted: [[u8; MAX_COLUMNS]; MAX_ROWS],
    shown: [[u8; MAX_COLUMNS]; MAX_ROWS],
    /// Where the search for undrawn characters goes on; `rows` when all is drawn.
    scan: usize,
}

static SCREEN: Mutex<Screen> = Mutex::new(Screen {
    base: 0,
    info: None,
    columns: 0,
    rows: 0,
    row: 0,
    column: 0,
    wanted: [[b' '; MAX_COLUMNS]; MAX_ROWS],
    shown: [[b' '; MAX_COLUMNS]; MAX_ROWS],
    scan: 0,
});

/// Takes the framebuffer at `base` and clears it.
///
/// # Safety
/// `info.byte_len` bytes at `base` must be mapped, writable and used by nobody else, for good.
pub unsafe fn start(base: u64, info: FrameBufferInfo) {
    let mut screen = SCREEN.lock();
    screen.base = base;
    screen.columns = (info.width / WIDTH).min(MAX_COLUMNS);
    screen.rows = (info.height / HEIGHT).min(MAX_ROWS);
    if screen.columns == 0 || screen.rows == 0 || !(2..=4).contains(&info.bytes_per_pixel) {
        return;
    }
    screen.info = Some(info);
    for y in 0..info.height {
        for x in 0..info.width {
            screen.pixel(x, y, 0);
        }
    }
}

impl Screen {
    fn pixel(&self, x: usize, y: usize, intensity: u8) {
        let Some(info) = self.info else { return };
        let bytes = info.bytes_per_pixel;
        let offset = (y * info.stride + x) * bytes;
        if x >= info.stride || offset + bytes > info.byte_len {
            return;
        }
        let mix = |i: usize| {
            let (ink, paper) = (u32::from(INK[i]), u32::from(PAPER[i]));
            ((ink * u32::from(intensity) + paper * (255 - u32::from(intensity))) / 255) as u8
        };
        let [red, green, blue] = [mix(0), mix(1), mix(2)];
        let colour = match info.pixel_format {
            PixelFormat::Rgb => [red, green, blue, 0],
            PixelFormat::Bgr => [blue, green, red, 0],
            _ => [green; 4],
        };
        let at = (self.base as usize + offset) as *mut u8;
        // SAFETY: the offset was checked against the length that `start` was promised.
        unsafe {
            if bytes == 4 {
                at.cast::<u32>().write_unaligned(u32::from_le_bytes(colour));
            } else {
                for (i, part) in colour.into_iter().take(bytes).enumerate() {
                    at.add(i).write_volatile(part);
                }
            }
        }
    }

    fn new_line(&mut self) {
        self.column = 0;
        if self.row + 1 < self.rows {
            self.row += 1;
        } else {
            self.wanted.copy_within(1..self.rows, 0);
            self.wanted[self.rows - 1] = [b' '; MAX_COLUMNS];
        }
    }

    fn put(&mut self, byte: u8) {
        if byte == b'\n' {
            self.new_line();
            return;
        }
        if self.column >= self.columns {
            self.new_line();
        }
        let (row, column) = (self.row, self.column);
        self.wanted[row][column] = if (0x20..0x7f).contains(&byte) { byte } else { b'?' };
        self.column += 1;
    }

    /// Draws one character that is not shown yet; false if there is none.
    fn step(&mut self) -> bool {
        while self.scan < self.rows {
            let row = self.scan;
            let differs = (0..self.columns).find(|&c| self.wanted[row][c] != self.shown[row][c]);
            if let Some(column) = differs {
                self.draw(row, column);
                return true;
            }
            self.scan += 1;
        }
        false
    }

    fn draw(&mut self, row: usize, column: usize) {
        let byte = self.wanted[row][column];
        self.shown[row][column] = byte;
        let Some(glyph) = get_raster(char::from(byte), FontWeight::Regular, RasterHeight::Size16) else {
            return;
        };
        for (y, line) in glyph.raster().iter().enumerate() {
            for (x, intensity) in line.iter().enumerate() {
                self.pixel(column * WIDTH + x, row * HEIGHT + y, *intensity);
            }
        }
    }
}

/// Adds text; it is drawn later.
pub fn write(bytes: &[u8]) {
    let Some(mut screen) = SCREEN.try_lock() else { return };
    if screen.info.is_some() {
        for &byte in bytes {
            screen.put(byte);
        }
        screen.scan = 0;
    }
}

/// Draws a little; false if nothing is left to draw.
pub fn step() -> bool {
    SCREEN.try_lock().is_some_and(|mut screen| screen.step())
}

/// Draws everything.
pub fn draw_all() {
    while step() {}
}
