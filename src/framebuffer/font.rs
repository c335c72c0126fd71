//! The font: Noto Sans Mono, rasterized to cells of 7 by 16 pixels, for printable ASCII.
//!
//! The crate has one byte of coverage per pixel, 10 KiB in all. The compiler reduces each byte to a bit, so the image
//! contains 1,520 bytes, and nothing else of the crate. The font is under the SIL Open Font License 1.1.

use noto_sans_mono_bitmap::{FontWeight, RasterHeight, RasterizedChar, get_raster, get_raster_width};

const WEIGHT: FontWeight = FontWeight::Regular;
const SIZE: RasterHeight = RasterHeight::Size16;

/// Pixels per row of a glyph.
pub const WIDTH: u16 = get_raster_width(WEIGHT, SIZE) as u16;
/// Rows of a glyph, with the space between two lines.
pub const HEIGHT: u16 = SIZE.val() as u16;

/// A row fits in a byte.
const _: () = assert!(WIDTH <= 8);

/// The rows of a character from the top down. The leftmost pixel is bit 7. A set bit is a pixel of the text.
pub type Glyph = [u8; HEIGHT as usize];

/// The first character and the last one.
const FIRST: u8 = b' ';
const LAST: u8 = b'~';

/// A pixel is set if the glyph covers at least half of it.
const HALF: u8 = 128;

/// All glyphs, from [`FIRST`] to [`LAST`].
static GLYPHS: [Glyph; (LAST - FIRST + 1) as usize] = all();

/// The glyph of a character. `None` for anything except printable ASCII.
#[must_use]
pub fn glyph(character: u8) -> Option<&'static Glyph> {
    GLYPHS.get(usize::from(character.checked_sub(FIRST)?))
}

#[allow(clippy::arithmetic_side_effects, clippy::indexing_slicing, reason = "evaluated by the compiler")]
const fn all() -> [Glyph; (LAST - FIRST + 1) as usize] {
    let mut glyphs = [[0; HEIGHT as usize]; (LAST - FIRST + 1) as usize];
    let mut i = 0;
    while i < glyphs.len() {
        if let Some(raster) = get_raster((FIRST + i as u8) as char, WEIGHT, SIZE) {
            glyphs[i] = rows(&raster);
        }
        i += 1;
    }
    glyphs
}

#[allow(clippy::arithmetic_side_effects, clippy::indexing_slicing, reason = "evaluated by the compiler")]
const fn rows(raster: &RasterizedChar) -> Glyph {
    let mut rows = [0; HEIGHT as usize];
    let mut y = 0;
    while y < rows.len() {
        let mut x = 0;
        while x < WIDTH as usize {
            if let Some(HALF..) = raster.pixel(x, y) {
                rows[y] |= 0x80 >> x;
            }
            x += 1;
        }
        y += 1;
    }
    rows
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::collections::BTreeSet;
    use std::string::String;
    use std::vec::Vec;

    use super::*;

    #[test]
    fn a_glyph_shows_its_letter() {
        let dots = |row: &u8| (0..WIDTH).map(|x| if row << x & 0x80 == 0 { ' ' } else { '#' }).collect();
        let picture: Vec<String> = glyph(b'F').unwrap().iter().map(dots).collect();
        let (blank, arm, stem) = ("       ", " ##### ", " #     ");
        let expected =
            [blank, blank, blank, blank, arm, stem, stem, stem, arm, stem, stem, stem, stem, blank, blank, blank];
        assert_eq!(picture, expected);
    }

    #[test]
    fn every_printable_character_has_its_own_glyph() {
        let glyphs: BTreeSet<_> = (b' '..=b'~').map(|character| glyph(character).unwrap()).collect();
        assert_eq!(glyphs.len(), 95);
        assert_eq!(glyph(b' '), Some(&[0; 16]));
    }

    #[test]
    fn other_characters_have_no_glyph() {
        for character in (0..b' ').chain(0x7f..=u8::MAX) {
            assert_eq!(glyph(character), None, "{character:#x}");
        }
    }
}
