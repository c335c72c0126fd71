//! `EFI_SIMPLE_TEXT_OUTPUT_PROTOCOL` on a terminal (UEFI 12.4): UTF-16 becomes text in UTF-8, and what an image does to cursor
//! and colours becomes escape sequences (ECMA-48).
//!
//! A control character that the protocol does not have is shown as `?`, so no image writes escape sequences of its own.
//!
//! Assumed: the terminal has at least 80 columns and 25 rows and reads UTF-8, and nothing else moves its cursor. Where a line
//! is longer than the screen the terminal breaks it; in a log it stays one line.
//!
//! Left out: other modes than 80 by 25; characters that take two columns or none, which are counted as one.

use core::fmt::{self, Write};

use uefi_raw::protocol::console::SimpleTextOutputMode;
use uefi_raw::{Boolean, Status};

/// The only mode, which every device has to have (UEFI 12.4.1): mode 0 with 80 columns and 25 rows.
pub const COLUMNS: usize = 80;
/// See [`COLUMNS`].
pub const ROWS: usize = 25;
const MODES: i32 = 1;

/// Light grey on black: what a reset sets.
const DEFAULT_ATTRIBUTE: usize = 0x07;
/// A foreground colour in the lowest four bits, a background colour in the next three (UEFI 12.4.6).
const MOST_ATTRIBUTE: usize = 0x7f;
const BRIGHT: usize = 1 << 3;

/// What is shown in place of what cannot be.
const REPLACEMENT: char = '?';

const NUL: char = '\0';
const BACKSPACE: char = '\u{8}';
const TAB: char = '\t';
const TAB_WIDTH: usize = 8;

/// A console for text, and where its cursor is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextOutput {
    column: usize,
    row: usize,
    attribute: usize,
    is_cursor_visible: bool,
}

impl Default for TextOutput {
    fn default() -> Self {
        Self::new()
    }
}

impl TextOutput {
    /// A console as it is when the firmware starts: nothing is written to it.
    #[must_use]
    pub const fn new() -> Self {
        Self { column: 0, row: 0, attribute: DEFAULT_ATTRIBUTE, is_cursor_visible: true }
    }

    /// The structure that the protocol points to. It is to be written anew after each call.
    #[must_use]
    pub fn mode(&self) -> SimpleTextOutputMode {
        // Each number is that of a column, a row or an attribute, none above 127.
        let number = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
        SimpleTextOutputMode {
            max_mode: MODES,
            mode: 0,
            attribute: number(self.attribute),
            cursor_column: number(self.column),
            cursor_row: number(self.row),
            cursor_visible: Boolean::from(self.is_cursor_visible),
        }
    }

    /// `Reset`: an empty screen in the default colours, with a cursor at its start.
    ///
    /// # Errors
    /// `DEVICE_ERROR` if `terminal` takes no text; so for all other functions that have one.
    pub fn reset(&mut self, terminal: &mut dyn Write) -> Result<(), Status> {
        self.set_attribute(DEFAULT_ATTRIBUTE, terminal)?;
        self.enable_cursor(true, terminal)?;
        self.clear_screen(terminal)
    }

    /// `OutputString`: writes `string`, up to its NUL if it has one.
    ///
    /// # Errors
    /// `WARN_UNKNOWN_GLYPH`, with which all is written, and `?` for each character that cannot be shown; `DEVICE_ERROR`.
    pub fn output_string(&mut self, string: &[u16], terminal: &mut dyn Write) -> Result<(), Status> {
        let mut result = Ok(());
        for character in characters(string) {
            let character = character.unwrap_or_else(|| {
                result = Err(Status::WARN_UNKNOWN_GLYPH);
                REPLACEMENT
            });
            done(terminal.write_char(character))?;
            self.advance(character);
        }
        result
    }

    /// `TestString`: whether all of `string` can be shown.
    ///
    /// # Errors
    /// `UNSUPPORTED` if not.
    pub fn test_string(&self, string: &[u16]) -> Result<(), Status> {
        if characters(string).all(|character| character.is_some()) { Ok(()) } else { Err(Status::UNSUPPORTED) }
    }

    /// `QueryMode`: the columns and rows of a mode.
    ///
    /// # Errors
    /// `UNSUPPORTED` for a mode that there is not.
    pub const fn query_mode(&self, mode: usize) -> Result<(usize, usize), Status> {
        if mode == 0 { Ok((COLUMNS, ROWS)) } else { Err(Status::UNSUPPORTED) }
    }

    /// `SetMode`: clears the screen.
    ///
    /// # Errors
    /// `UNSUPPORTED` for a mode that there is not, `DEVICE_ERROR`.
    pub fn set_mode(&mut self, mode: usize, terminal: &mut dyn Write) -> Result<(), Status> {
        self.query_mode(mode)?;
        self.clear_screen(terminal)
    }

    /// `SetAttribute`: the colours of what is written from now on.
    ///
    /// # Errors
    /// `UNSUPPORTED` for colours that there are not, `DEVICE_ERROR`.
    pub fn set_attribute(&mut self, attribute: usize, terminal: &mut dyn Write) -> Result<(), Status> {
        if attribute > MOST_ATTRIBUTE {
            return Err(Status::UNSUPPORTED);
        }
        if attribute == self.attribute {
            return Ok(());
        }
        let bright = if attribute & BRIGHT == 0 { 0 } else { 1 };
        let (foreground, background) = (ansi_colour(attribute), ansi_colour(attribute >> 4));
        done(write!(terminal, "\x1b[{bright};3{foreground};4{background}m"))?;
        self.attribute = attribute;
        Ok(())
    }

    /// `ClearScreen`: fills the screen with the background colour, with the cursor at its start.
    ///
    /// # Errors
    /// `DEVICE_ERROR`.
    pub fn clear_screen(&mut self, terminal: &mut dyn Write) -> Result<(), Status> {
        done(terminal.write_str("\x1b[2J"))?;
        self.set_cursor_position(0, 0, terminal)
    }

    /// `SetCursorPosition`: where the next character is written.
    ///
    /// # Errors
    /// `UNSUPPORTED` for a place outside the screen, `DEVICE_ERROR`.
    pub fn set_cursor_position(&mut self, column: usize, row: usize, terminal: &mut dyn Write) -> Result<(), Status> {
        if column >= COLUMNS || row >= ROWS {
            return Err(Status::UNSUPPORTED);
        }
        // A terminal counts from one.
        done(write!(terminal, "\x1b[{};{}H", row.saturating_add(1), column.saturating_add(1)))?;
        (self.column, self.row) = (column, row);
        Ok(())
    }

    /// `EnableCursor`: whether the cursor can be seen.
    ///
    /// # Errors
    /// `DEVICE_ERROR`.
    pub fn enable_cursor(&mut self, is_visible: bool, terminal: &mut dyn Write) -> Result<(), Status> {
        if is_visible == self.is_cursor_visible {
            return Ok(());
        }
        done(terminal.write_str(if is_visible { "\x1b[?25h" } else { "\x1b[?25l" }))?;
        self.is_cursor_visible = is_visible;
        Ok(())
    }

    /// Where the cursor is after a character (UEFI 12.4.3, "EFI Cursor Location/Advance Rules").
    fn advance(&mut self, character: char) {
        let next_row = self.row.saturating_add(1).min(ROWS.saturating_sub(1));
        match character {
            BACKSPACE => self.column = self.column.saturating_sub(1),
            '\n' => self.row = next_row,
            '\r' => self.column = 0,
            TAB => {
                let next = (self.column / TAB_WIDTH).saturating_add(1).saturating_mul(TAB_WIDTH);
                self.column = next.min(COLUMNS.saturating_sub(1));
            }
            _ => self.column = self.column.saturating_add(1),
        }
        if self.column >= COLUMNS {
            (self.column, self.row) = (0, next_row);
        }
    }
}

fn done(result: fmt::Result) -> Result<(), Status> {
    result.map_err(|_| Status::DEVICE_ERROR)
}

/// The characters up to a NUL; `None` for what cannot be shown.
fn characters(string: &[u16]) -> impl Iterator<Item = Option<char>> {
    let mut units = string.iter().copied().take_while(|&unit| unit != NUL as u16).peekable();
    // Not `char::decode_utf16`: it has a check for an overflow that could panic.
    core::iter::from_fn(move || {
        let unit = units.next()?;
        let code = match (unit & SURROGATE_MASK, units.peek()) {
            (HIGH_SURROGATE, Some(&low)) if low & SURROGATE_MASK == LOW_SURROGATE => {
                units.next();
                let bits = u32::from(unit & !SURROGATE_MASK) << 10 | u32::from(low & !SURROGATE_MASK);
                bits.saturating_add(FIRST_OF_PAIR)
            }
            _ => unit.into(),
        };
        Some(char::from_u32(code).filter(|&character| is_shown(character)))
    })
}

/// Characters from this on are two units (RFC 2781, 2.1): the upper ten bits in the first, the lower in the second.
const FIRST_OF_PAIR: u32 = 0x1_0000;
const SURROGATE_MASK: u16 = 0xfc00;
const HIGH_SURROGATE: u16 = 0xd800;
const LOW_SURROGATE: u16 = 0xdc00;

fn is_shown(character: char) -> bool {
    matches!(character, BACKSPACE | TAB | '\n' | '\r') || !character.is_control()
}

/// The number of one of eight colours: red and blue change places (UEFI 12.4.6; ECMA-48 8.3.117).
const fn ansi_colour(colour: usize) -> usize {
    (colour & 1) << 2 | colour & 2 | (colour & 4) >> 2
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::string::String;
    use std::vec::Vec;

    use super::*;

    fn utf16(text: &str) -> Vec<u16> {
        text.encode_utf16().collect()
    }

    /// What `text` puts on a terminal, with the status and the cursor's place.
    #[track_caller]
    fn written(text: &str) -> (String, Result<(), Status>, (usize, usize)) {
        let (mut output, mut terminal) = (TextOutput::new(), String::new());
        let result = output.output_string(&utf16(text), &mut terminal);
        (terminal, result, (output.column, output.row))
    }

    #[test]
    fn text_is_written_in_utf_8_up_to_its_nul() {
        assert_eq!(written("EFI stub: ok\r\n"), ("EFI stub: ok\r\n".into(), Ok(()), (0, 1)));
        assert_eq!(written("a\0b"), ("a".into(), Ok(()), (1, 0)));
        assert_eq!(written("┌─┐ ▲ é 🐧"), ("┌─┐ ▲ é 🐧".into(), Ok(()), (9, 0)));
        assert_eq!(written(""), (String::new(), Ok(()), (0, 0)));
    }

    #[test]
    fn what_cannot_be_shown_is_a_question_mark_and_a_warning() {
        let warning = Err(Status::WARN_UNKNOWN_GLYPH);
        assert!(!Status::WARN_UNKNOWN_GLYPH.is_error());
        assert_eq!(written("a\x1b[2Jb"), ("a?[2Jb".into(), warning, (6, 0)));
        assert_eq!(written("\u{7f}\u{9b}\u{1}\u{b}"), ("????".into(), warning, (4, 0)));
        // Halves of pairs, in the wrong order and at the end.
        let (mut output, mut terminal) = (TextOutput::new(), String::new());
        let halves = [0xdc27, 0xd83d, u16::from(b'x'), 0xd83d];
        assert_eq!(output.output_string(&halves, &mut terminal), warning);
        assert_eq!(terminal, "??x?");
    }

    #[test]
    fn a_string_that_cannot_be_shown_fails_the_test() {
        let output = TextOutput::new();
        for (text, result) in [
            ("plain\r\n\t\u{8}", Ok(())),
            ("┌é\0\x1b", Ok(())),
            ("\x1b", Err(Status::UNSUPPORTED)),
            ("\u{85}", Err(Status::UNSUPPORTED)),
        ] {
            assert_eq!(output.test_string(&utf16(text)), result, "{text:?}");
        }
        assert_eq!(output.test_string(&[0xd800]), Err(Status::UNSUPPORTED));
    }

    #[test]
    fn the_cursor_moves_as_the_specification_says() {
        let place = |text: &str| written(text).2;
        assert_eq!(place("ab\u{8}"), (1, 0));
        assert_eq!(place("\u{8}"), (0, 0));
        assert_eq!(place("ab\n"), (2, 1));
        assert_eq!(place("ab\r"), (0, 0));
        assert_eq!(place("\t"), (8, 0));
        assert_eq!(place("1234567\t\t"), (16, 0));
        assert_eq!(place(&"\t".repeat(20)), (79, 0));
        assert_eq!(place(&"x".repeat(79)), (79, 0));
        assert_eq!(place(&"x".repeat(80)), (0, 1));
        assert_eq!(place(&"\n".repeat(24)), (0, 24));
        // The screen scrolls.
        assert_eq!(place(&"\n".repeat(100)), (0, 24));
        assert_eq!(place(&"x".repeat(80 * 100)), (0, 24));
    }

    /// What a call puts on a terminal, and the mode after it.
    #[track_caller]
    fn called(
        call: impl FnOnce(&mut TextOutput, &mut dyn Write) -> Result<(), Status>,
    ) -> (String, Result<(), Status>, SimpleTextOutputMode) {
        let mut output = TextOutput { column: 3, row: 4, attribute: 0x1f, is_cursor_visible: false };
        let mut terminal = String::new();
        let result = call(&mut output, &mut terminal);
        (terminal, result, output.mode())
    }

    const BEFORE: SimpleTextOutputMode = SimpleTextOutputMode {
        max_mode: 1,
        mode: 0,
        attribute: 0x1f,
        cursor_column: 3,
        cursor_row: 4,
        cursor_visible: Boolean::FALSE,
    };

    #[test]
    fn a_reset_clears_the_screen_and_sets_the_defaults() {
        let expected = SimpleTextOutputMode {
            attribute: 7,
            cursor_column: 0,
            cursor_row: 0,
            cursor_visible: Boolean::TRUE,
            ..BEFORE
        };
        let (text, result, mode) = called(|output, terminal| output.reset(terminal));
        assert_eq!((text.as_str(), result, mode), ("\x1b[0;37;40m\x1b[?25h\x1b[2J\x1b[1;1H", Ok(()), expected));
        assert_eq!(TextOutput::new().mode(), expected);
    }

    #[test]
    fn there_is_one_mode() {
        let output = TextOutput::new();
        assert_eq!(output.query_mode(0), Ok((80, 25)));
        let (text, result, mode) = called(|output, terminal| output.set_mode(0, terminal));
        let expected = SimpleTextOutputMode { cursor_column: 0, cursor_row: 0, ..BEFORE };
        assert_eq!((text.as_str(), result, mode), ("\x1b[2J\x1b[1;1H", Ok(()), expected));
        for mode in [1, 2, usize::MAX] {
            assert_eq!(output.query_mode(mode), Err(Status::UNSUPPORTED));
            let result = called(|output, terminal| output.set_mode(mode, terminal));
            assert_eq!(result, (String::new(), Err(Status::UNSUPPORTED), BEFORE));
        }
    }

    #[test]
    fn colours_are_the_terminals() {
        for (attribute, expected) in [(0x00, "0;30;40"), (0x4e, "1;33;41"), (0x71, "0;34;47"), (0x2c, "1;31;42")] {
            let (text, result, mode) = called(|output, terminal| output.set_attribute(attribute, terminal));
            assert_eq!((text, result), (std::format!("\x1b[{expected}m"), Ok(())), "{attribute:#x}");
            assert_eq!(mode, SimpleTextOutputMode { attribute: attribute as i32, ..BEFORE });
        }
        let same = called(|output, terminal| output.set_attribute(0x1f, terminal));
        assert_eq!(same, (String::new(), Ok(()), BEFORE));
        for attribute in [0x80, 0xff, usize::MAX] {
            let result = called(|output, terminal| output.set_attribute(attribute, terminal));
            assert_eq!(result, (String::new(), Err(Status::UNSUPPORTED), BEFORE));
        }
    }

    #[test]
    fn the_cursor_stays_on_the_screen() {
        let (text, result, mode) = called(|output, terminal| output.set_cursor_position(79, 24, terminal));
        let expected = SimpleTextOutputMode { cursor_column: 79, cursor_row: 24, ..BEFORE };
        assert_eq!((text.as_str(), result, mode), ("\x1b[25;80H", Ok(()), expected));
        for (column, row) in [(80, 0), (0, 25), (usize::MAX, usize::MAX)] {
            let result = called(|output, terminal| output.set_cursor_position(column, row, terminal));
            assert_eq!(result, (String::new(), Err(Status::UNSUPPORTED), BEFORE));
        }
    }

    #[test]
    fn a_cursor_can_be_seen_or_not() {
        let (text, result, mode) = called(|output, terminal| output.enable_cursor(true, terminal));
        let expected = SimpleTextOutputMode { cursor_visible: Boolean::TRUE, ..BEFORE };
        assert_eq!((text.as_str(), result, mode), ("\x1b[?25h", Ok(()), expected));
        assert_eq!(called(|output, terminal| output.enable_cursor(false, terminal)), (String::new(), Ok(()), BEFORE));
    }

    #[test]
    fn a_terminal_that_takes_no_text_is_a_device_error() {
        struct Broken;
        impl Write for Broken {
            fn write_str(&mut self, _: &str) -> fmt::Result {
                Err(fmt::Error)
            }
        }
        let mut output = TextOutput::new();
        assert_eq!(output.output_string(&utf16("a"), &mut Broken), Err(Status::DEVICE_ERROR));
        assert_eq!(output.clear_screen(&mut Broken), Err(Status::DEVICE_ERROR));
        assert_eq!(output.set_attribute(1, &mut Broken), Err(Status::DEVICE_ERROR));
        assert_eq!(output, TextOutput::new());
    }
}
