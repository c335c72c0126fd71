//! Text of EFI programs and of disks on the firmware's own lines.

use core::fmt::{self, Write};

/// Takes text, and passes it on with a question mark for each control character.
pub struct Printable<'a, W>(pub &'a mut W);

impl<W: Write> Write for Printable<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|character| self.0.write_char(if character.is_control() { '?' } else { character }))
    }
}
