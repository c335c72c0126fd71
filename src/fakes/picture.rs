//! Reads the text in a framebuffer, for tests. The firmware never does this.

extern crate std;

use std::string::String;
use std::vec::Vec;

use super::machine::FakeMemory;
use crate::framebuffer::{Framebuffer, font};

/// A pixel: blue, green, red.
pub type Pixel = [u8; 3];

const BACKGROUND: Pixel = [0, 0, 0];
const TEXT: Pixel = [0xa0, 0xa0, 0xff];

/// The lines of text in a picture of `width` by `height` pixels, from the top down, without trailing spaces. Empty
/// lines are included.
///
/// `None` if the picture contains anything except characters of the font, each in its cell.
pub fn lines(width: u16, height: u16, pixel: impl Fn(u16, u16) -> Pixel) -> Option<Vec<String>> {
    let row = |x: u16, y: u16| {
        (0..font::WIDTH).try_fold(0_u8, |bits, i| match pixel(x + i, y) {
            BACKGROUND => Some(bits),
            TEXT => Some(bits | 0x80 >> i),
            _ => None,
        })
    };
    let cell = |column: u16, line: u16| {
        let (x, y) = (column * font::WIDTH, line * font::HEIGHT);
        let rows = (y..y + font::HEIGHT).map(|y| row(x, y)).collect::<Option<Vec<_>>>()?;
        let character = (b' '..=b'~').find(|&character| font::glyph(character).is_some_and(|glyph| *glyph == *rows))?;
        Some(char::from(character))
    };
    let line = |line| -> Option<String> {
        let text: String = (0..width / font::WIDTH).map(|column| cell(column, line)).collect::<Option<_>>()?;
        Some(text.trim_end().into())
    };
    // The area right of the last column, and below the last line.
    let is_outside = |x: u16, y: u16| x >= width - width % font::WIDTH || y >= height - height % font::HEIGHT;
    let mut pixels = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    if pixels.any(|(x, y)| is_outside(x, y) && pixel(x, y) != BACKGROUND) {
        return None;
    }
    (0..height / font::HEIGHT).map(line).collect()
}

/// The same for a framebuffer in memory.
#[must_use]
pub fn of_memory(memory: &FakeMemory, framebuffer: &Framebuffer) -> Option<Vec<String>> {
    let mode = framebuffer.mode;
    let bytes = memory.bytes(framebuffer.memory.start().get(), mode.bytes() as usize);
    lines(mode.width(), mode.height(), |x, y| {
        let at = mode.offset(x, y) as usize;
        [bytes[at], bytes[at + 1], bytes[at + 2]]
    })
}

/// The text of `lines` joined, if it is one block with a margin on every side, else `None`.
#[must_use]
pub fn message(lines: &[String]) -> Option<String> {
    let block: Vec<_> = lines.iter().skip_while(|line| line.is_empty()).collect();
    let text: Vec<_> = block.iter().take_while(|line| !line.is_empty()).map(|line| line.trim_start()).collect();
    let is_one_block = block.iter().skip(text.len()).all(|line| line.is_empty());
    let has_margin = lines.first().is_some_and(String::is_empty)
        && lines.last().is_some_and(String::is_empty)
        && lines.iter().all(|line| !line.starts_with(|first| first != ' '));
    (is_one_block && has_margin).then(|| text.join(" "))
}
