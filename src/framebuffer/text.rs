//! One message on the framebuffer, in lines from the top down: the error of a failed boot.
//!
//! Left out: scrolling, and all characters except printable ASCII.

use core::fmt::{self, Write};

use arrayvec::ArrayVec;

use super::font;
use super::mode::{Framebuffer, Mode};
use crate::addr::PhysRange;
use crate::hal::{Memory, MemoryError};

/// The longest message in characters. It fits into the smallest mode, wherever lines break.
const MOST: usize = 1024;

/// The colour of the text, light red, and of the background, as pixels of [`Mode`].
const TEXT: u32 = 0x00ff_a0a0;
const BACKGROUND: u8 = 0;

/// A message as characters of the font.
#[derive(Debug)]
struct Text(ArrayVec<u8, MOST>);

impl Text {
    /// The characters of `message`. White space becomes a space, and any other character without a glyph a question
    /// mark. A message that is too long ends in three dots.
    fn of(message: &dyn fmt::Display) -> Self {
        let mut text = Self(ArrayVec::new_const());
        // If a `Display` fails, what it has written so far is shown.
        let _ = write!(text, "{message}");
        text
    }

    /// The message in lines of at most `columns` characters, broken at spaces if possible. No line is empty. With zero
    /// columns there is no line.
    fn lines(&self, columns: usize) -> Lines<'_> {
        Lines { rest: &self.0, columns }
    }
}

impl Write for Text {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        for character in part.chars() {
            let shown = match character {
                ' '..='~' => character as u8,
                _ if character.is_ascii_whitespace() => b' ',
                _ => b'?',
            };
            if self.0.try_push(shown).is_err() {
                self.0.iter_mut().rev().take(3).for_each(|last| *last = b'.');
                break;
            }
        }
        Ok(())
    }
}

/// See [`Text::lines`].
struct Lines<'t> {
    rest: &'t [u8],
    columns: usize,
}

impl<'t> Iterator for Lines<'t> {
    type Item = &'t [u8];

    fn next(&mut self) -> Option<&'t [u8]> {
        let text = self.rest.trim_ascii_start();
        if text.is_empty() || self.columns == 0 {
            return None;
        }
        let (full, after) = text.split_at_checked(self.columns).unwrap_or((text, &[]));
        let word_goes_on = after.first().is_some_and(|next| *next != b' ');
        let last_space = full.iter().rposition(|character| *character == b' ').filter(|_| word_goes_on);
        let (line, rest) = last_space.and_then(|space| text.split_at_checked(space)).unwrap_or((full, after));
        self.rest = rest;
        Some(line.trim_ascii_end())
    }
}

/// The number of characters per line, and of lines. A margin of one of each is left on every side.
fn room(mode: Mode) -> (usize, usize) {
    let (columns, lines) = (mode.width() / font::WIDTH, mode.height() / font::HEIGHT);
    (columns.saturating_sub(2).into(), lines.saturating_sub(2).into())
}

/// The bytes of a row of pixels.
type Pixels = ArrayVec<u8, { Mode::DEFAULT.line_bytes() as usize }>;

/// One row of pixels of a line of text. `row` counts from the top of the line.
fn pixels(line: &[u8], row: usize) -> Pixels {
    let mut pixels = Pixels::new_const();
    for &character in line {
        let mut bits = font::glyph(character).and_then(|glyph| glyph.get(row)).copied().unwrap_or_default();
        for _ in 0..font::WIDTH {
            let colour = if bits & 0x80 == 0 { [BACKGROUND; 4] } else { TEXT.to_le_bytes() };
            // A line of text is not wider than the widest mode.
            let _ = pixels.try_extend_from_slice(&colour);
            bits <<= 1;
        }
    }
    pixels
}

impl Framebuffer {
    /// Clears the framebuffer and shows as much of `message` as fits.
    ///
    /// # Errors
    /// [`MemoryError`] if the framebuffer does not fit into the video memory, or the firmware may not write there.
    pub fn show(&self, memory: &mut impl Memory, message: &dyn fmt::Display) -> Result<(), MemoryError> {
        let start = self.memory.start();
        let error = MemoryError { range: self.memory };
        let picture = PhysRange::new(start, self.mode.bytes().into()).filter(|picture| self.memory.contains(*picture));
        memory.fill(picture.ok_or(error)?, BACKGROUND)?;

        let text = Text::of(message);
        let (columns, lines) = room(self.mode);
        let rows = text.lines(columns).take(lines).flat_map(|line| (0..font::HEIGHT).map(move |row| (line, row)));
        for ((line, row), y) in rows.zip(font::HEIGHT..self.mode.height()) {
            let at = start.checked_add(self.mode.offset(font::WIDTH, y).into()).ok_or(error)?;
            memory.write(at, &pixels(line, row.into()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::string::String;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::addr::PhysAddr;
    use crate::fakes::machine::FakeMachine;
    use crate::fakes::picture;

    const LONG: &str =
        "the initrd of 200 MiB does not fit below 0x80000000, 14 MiB are free in one piece; give the machine more";

    fn text(message: &str) -> String {
        String::from_utf8(Text::of(&message).0.to_vec()).unwrap()
    }

    fn lines(message: &str, columns: usize) -> Vec<String> {
        Text::of(&message).lines(columns).map(|line| String::from_utf8(line.to_vec()).unwrap()).collect()
    }

    #[test]
    fn a_line_is_broken_at_a_space() {
        assert_eq!(lines("one two three", 7), ["one two", "three"]);
        assert_eq!(lines("one two three", 8), ["one two", "three"]);
        assert_eq!(lines("one two three", 6), ["one", "two", "three"]);
        assert_eq!(lines("one two three", 13), ["one two three"]);
        assert_eq!(lines("  one   two  ", 7), ["one", "two"]);
    }

    #[test]
    fn a_word_longer_than_a_line_is_broken_at_the_end_of_the_line() {
        assert_eq!(lines("abcdefgh ij", 3), ["abc", "def", "gh", "ij"]);
        assert_eq!(lines("a bcdefg", 3), ["a", "bcd", "efg"]);
        assert_eq!(lines("abc", 1), ["a", "b", "c"]);
    }

    #[test]
    fn an_empty_message_has_no_line() {
        for message in ["", " ", "\n\n"] {
            assert_eq!(lines(message, 10), Vec::<String>::new());
        }
        assert_eq!(lines("text", 0), Vec::<String>::new());
    }

    #[test]
    fn characters_without_a_glyph_are_replaced() {
        assert_eq!(text("a\tb\r\nc"), "a b  c");
        assert_eq!(text("\u{0}\u{1b}[0m\u{7f}é€\u{202e}"), "??[0m????");
    }

    #[test]
    fn a_message_that_is_too_long_ends_in_dots() {
        assert_eq!(text(&"x".repeat(MOST)), "x".repeat(MOST));
        for more in [1, 2, 100_000] {
            assert_eq!(text(&"x".repeat(MOST + more)), "x".repeat(MOST - 3) + "...");
        }
        // Also if it is written in parts.
        let pieces = Text::of(&format_args!("{}{}{}", "x".repeat(MOST), "y", "z"));
        assert!(pieces.0.ends_with(b"x..."));
    }

    #[test]
    fn the_smallest_mode_has_room_for_the_longest_message() {
        let smallest = Mode::largest_in(1 << 20).unwrap();
        assert_eq!(room(smallest), (89, 23));
        assert_eq!(room(Mode::DEFAULT), (144, 46));
        // Words of half a line and a little more waste the most room.
        for word in [1, 44, 45, 46, 88, 89, 90, 2000] {
            let message = ("x".repeat(word) + " ").repeat(MOST / (word + 1) + 1);
            assert!(lines(&message, 89).len() <= 23, "{word}");
        }
    }

    proptest! {
        #[test]
        fn lines_have_all_words_and_are_not_too_long(message in ".{0,200}", columns in 0_usize..50) {
            let lines = lines(&message, columns);
            prop_assert!(lines.iter().all(|line| (1..=columns).contains(&line.len())));
            let all = |text: &str| text.replace(' ', "");
            if columns > 0 {
                prop_assert_eq!(all(&lines.concat()), all(&text(&message)));
            }
        }
    }

    fn framebuffer(mode: Mode, start: u64, len: u64) -> Framebuffer {
        Framebuffer { memory: PhysRange::new(PhysAddr::new(start), len).unwrap(), mode, function: None }
    }

    #[test]
    fn only_the_message_is_on_the_screen() {
        for (memory, columns) in [(1 << 20, 91), (2 << 20, 114), (16 << 20, 146)] {
            let framebuffer = framebuffer(Mode::largest_in(memory).unwrap(), 0xfd00_0000, memory);
            let mut machine = FakeMachine::new();
            // A display that is not cleared by setting a mode.
            machine.memory.store(0xfd00_0000, &std::vec![0x55; framebuffer.mode.bytes() as usize]);
            machine.memory.keep_stores();
            framebuffer.show(&mut machine, &LONG).unwrap();
            let screen = picture::of_memory(&machine.memory, &framebuffer).unwrap();
            let expected = lines(LONG, columns - 2);
            for (number, line) in screen.iter().enumerate() {
                let text = number.checked_sub(1).and_then(|number| expected.get(number)).cloned().unwrap_or_default();
                let text = if text.is_empty() { text } else { std::format!(" {text}") };
                assert_eq!(*line, text, "line {number}");
            }
            let end = 0xfd00_0000 + u64::from(framebuffer.mode.bytes());
            assert!(machine.memory.stores().iter().all(|store| store.start >= 0xfd00_0000 && store.end <= end));
        }
    }

    #[test]
    fn a_framebuffer_outside_the_video_memory_is_not_drawn() {
        let mut machine = FakeMachine::new();
        machine.memory.keep_stores();
        let bytes = u64::from(Mode::DEFAULT.bytes());
        // Less memory than the framebuffer needs; memory above 4 GiB; the firmware's own memory; and none at all.
        for (start, len) in [(0xfd00_0000, bytes - 1), (1 << 32, bytes), (0x4_0000, bytes), (0xfd00_0000, 0)] {
            assert!(framebuffer(Mode::DEFAULT, start, len).show(&mut machine, &LONG).is_err(), "{start:#x}");
        }
        assert_eq!(machine.memory.stores(), []);
    }
}
