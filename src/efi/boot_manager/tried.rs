//! What was tried before nothing booted, as one line for the user.

use alloc::vec::Vec;
use core::fmt::{self, Write};

use crate::efi::printable::Printable;
use crate::heap;

/// The most bytes of the line. A machine with four disks has some 300.
const MOST_TEXT: usize = 600;

/// What was tried, and why each did not boot: `virtio disk at 00:02.0, partition 1: no \EFI\BOOT\BOOTX64.EFI; …`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tried {
    text: Vec<u8>,
    /// How many there was no room for.
    left_out: u32,
}

impl Tried {
    /// Adds one, unless it is there already.
    #[cold]
    #[inline(never)]
    pub fn add(&mut self, what: fmt::Arguments<'_>) {
        let before = self.text.len();
        let written =
            write!(Printable(&mut Writer(&mut self.text)), "{}{what}", if before == 0 { "" } else { SEPARATOR });
        let is_known = written.is_ok() && {
            let (others, new) = self.text.split_at_checked(before).unwrap_or_default();
            before > 0 && others.split(|&byte| byte == b';').any(|other| trim(other) == trim(new))
        };
        if written.is_err() {
            self.left_out = self.left_out.saturating_add(1);
        }
        if written.is_err() || is_known {
            self.text.truncate(before);
        }
    }

    /// Whether nothing was tried.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.text.is_empty() && self.left_out == 0
    }
}

/// What is between two that were tried.
const SEPARATOR: &str = "; ";

fn trim(text: &[u8]) -> &[u8] {
    text.strip_prefix(SEPARATOR.as_bytes()).unwrap_or(text).trim_ascii()
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(core::str::from_utf8(&self.text).unwrap_or_default())?;
        match self.left_out {
            0 => Ok(()),
            count => write!(f, "{SEPARATOR}and {count} more"),
        }
    }
}

/// Takes text up to the limit.
struct Writer<'a>(&'a mut Vec<u8>);

impl Write for Writer<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if text.len() > MOST_TEXT.saturating_sub(self.0.len()) {
            return Err(fmt::Error);
        }
        heap::extend(self.0, text.as_bytes()).map_err(|_| fmt::Error)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::string::ToString;

    use super::*;

    #[test]
    fn what_was_tried_is_one_line_without_repetitions() {
        let mut tried = Tried::default();
        assert!(tried.is_empty());
        for what in ["a: no", "b: no", "a: no", "a", "b: no", "c\n\x1b: no"] {
            tried.add(format_args!("{what}"));
        }
        assert_eq!(tried.to_string(), "a: no; b: no; a; c??: no");
    }

    #[test]
    fn what_there_is_no_room_for_is_counted() {
        let mut tried = Tried::default();
        for number in 0..100 {
            tried.add(format_args!("number {number}: {}", "x".repeat(20)));
        }
        let text = tried.to_string();
        assert!(text.len() < MOST_TEXT + 20 && text.starts_with("number 0: x"), "{text}");
        let shown = text.split("; ").count() - 1;
        assert!(text.ends_with(&std::format!("; and {} more", 100 - shown)), "{text}");
    }
}
