//! `EFI_SIMPLE_TEXT_INPUT_PROTOCOL` on a terminal (UEFI 12.3): the bytes that a terminal sends become keys.
//!
//! A key that has no character comes as an escape sequence, of which there are several for most keys (`KEYS`, `LETTERS`). A
//! sequence without a key is dropped. An Escape that nothing follows for [`PATIENCE`] is the key of that name.
//!
//! Assumed: the terminal sends UTF-8. Left out: modifiers (a key with Shift or Control is the key), and characters beyond
//! U+FFFF, which no key has.
//!
//! Sources: ECMA-48, 5.4 and 8.2; the key codes of xterm, the VT220 and Linux's console (terminfo entries `xterm`, `vt220`,
//! `linux`).

use arrayvec::ArrayVec;
use uefi_raw::Status;
use uefi_raw::protocol::console::InputKey;

use crate::efi::events::Time;

/// As many bytes wait to be read. What comes after that is lost.
const MOST_BYTES: usize = 128;
/// The longest escape sequence. One that is longer is dropped piece by piece.
const MOST_SEQUENCE: usize = 16;
/// How long the rest of a sequence may take: 100 ms. At 9600 baud a byte takes one.
pub const PATIENCE: Time = 1_000_000;

/// Codes of keys without a character (UEFI 12.1.2, "EFI Scan Codes for EFI_SIMPLE_TEXT_INPUT_PROTOCOL").
#[allow(missing_docs, reason = "the names are those of the keys")]
pub mod scan_code {
    pub const UP: u16 = 0x01;
    pub const DOWN: u16 = 0x02;
    pub const RIGHT: u16 = 0x03;
    pub const LEFT: u16 = 0x04;
    pub const HOME: u16 = 0x05;
    pub const END: u16 = 0x06;
    pub const INSERT: u16 = 0x07;
    pub const DELETE: u16 = 0x08;
    pub const PAGE_UP: u16 = 0x09;
    pub const PAGE_DOWN: u16 = 0x0a;
    /// F2 to F12 follow.
    pub const F1: u16 = 0x0b;
    pub const ESCAPE: u16 = 0x17;
}
use scan_code::{DELETE, DOWN, END, ESCAPE, F1, HOME, INSERT, LEFT, PAGE_DOWN, PAGE_UP, RIGHT, UP};

const ESC: u8 = 0x1b;
/// What most terminals send for the key Backspace.
const RUBOUT: u8 = 0x7f;
const BACKSPACE: u16 = 0x08;

/// Keys by the number in `ESC [ number ~`.
const KEYS: [(u16, u16); 22] = [
    (1, HOME),
    (2, INSERT),
    (3, DELETE),
    (4, END),
    (5, PAGE_UP),
    (6, PAGE_DOWN),
    (7, HOME),
    (8, END),
    (11, F1),
    (12, F1 + 1),
    (13, F1 + 2),
    (14, F1 + 3),
    (15, F1 + 4),
    (17, F1 + 5),
    (18, F1 + 6),
    (19, F1 + 7),
    (20, F1 + 8),
    (21, F1 + 9),
    (23, F1 + 10),
    (24, F1 + 11),
    (25, F1 + 10),
    (26, F1 + 11),
];
/// Keys by the letter at the end of `ESC [ letter` and `ESC O letter`.
const LETTERS: [(u8, u16); 10] = [
    (b'A', UP),
    (b'B', DOWN),
    (b'C', RIGHT),
    (b'D', LEFT),
    (b'F', END),
    (b'H', HOME),
    (b'P', F1),
    (b'Q', F1 + 1),
    (b'R', F1 + 2),
    (b'S', F1 + 3),
];

/// What a terminal has sent and no image has read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextInput {
    bytes: ArrayVec<u8, MOST_BYTES>,
    /// When the last byte came.
    last: Time,
    /// Whether an answer of the terminal is coming.
    is_answer: bool,
}

/// What waiting bytes begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// It may become a key when more comes.
    Incomplete,
    /// So many bytes, with the key that they are, if they are one.
    Complete(usize, Option<InputKey>),
}

impl TextInput {
    /// Nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { bytes: ArrayVec::new_const(), last: 0, is_answer: false }
    }

    /// `Reset`: forgets what was not read.
    pub fn reset(&mut self) {
        self.bytes.clear();
    }

    /// The terminal has sent a byte. Without room it is lost.
    pub fn receive(&mut self, byte: u8, now: Time) {
        self.last = now;
        let _ = self.bytes.try_push(byte);
    }

    /// Whether more bytes have room. As long as not, they can stay with the device.
    #[must_use]
    pub const fn has_room(&self) -> bool {
        !self.bytes.is_full()
    }

    /// Whether nothing waits to be read, nor to become a key.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether there is a key: `WaitForKey` is signalled then.
    pub fn has_key(&mut self, now: Time) -> bool {
        self.next(now).is_some()
    }

    /// `ReadKeyStroke`: the next key.
    ///
    /// # Errors
    /// `NOT_READY` without one.
    pub fn read_key_stroke(&mut self, now: Time) -> Result<InputKey, Status> {
        let (len, key) = self.next(now).ok_or(Status::NOT_READY)?;
        self.remove(len);
        Ok(key)
    }

    /// The next key that is a character or a lone Escape, for who must know that a user has pressed it. A terminal answers programs
    /// by sequences: an Escape that something follows at once. All that comes with one, up to a pause of [`PATIENCE`], is dropped.
    pub fn pressed(&mut self, now: Time) -> Option<InputKey> {
        let is_sequence = |pair: &[u8]| matches!(pair, [ESC, next] if *next != ESC);
        self.is_answer |= self.bytes.windows(2).any(is_sequence);
        if self.is_answer {
            self.bytes.clear();
            self.is_answer = now.saturating_sub(self.last) < PATIENCE;
            return None;
        }
        self.read_key_stroke(now).ok()
    }

    /// The next key and how many bytes it is. What comes before it is dropped.
    fn next(&mut self, now: Time) -> Option<(usize, InputKey)> {
        let is_late = now.saturating_sub(self.last) >= PATIENCE;
        // This ends: each round drops a byte at least.
        while !self.bytes.is_empty() {
            match start(&self.bytes) {
                Start::Complete(len, Some(key)) => return Some((len, key)),
                Start::Complete(len, None) => self.remove(len),
                Start::Incomplete if !is_late => return None,
                Start::Incomplete if self.bytes.first() == Some(&ESC) => return Some((1, key(ESCAPE, 0))),
                Start::Incomplete => self.remove(1),
            }
        }
        None
    }

    fn remove(&mut self, len: usize) {
        let mut rest = ArrayVec::new_const();
        for &byte in self.bytes.iter().skip(len) {
            // There are no more than before.
            let _ = rest.try_push(byte);
        }
        self.bytes = rest;
    }
}

const fn key(scan_code: u16, unicode_char: u16) -> InputKey {
    InputKey { scan_code, unicode_char }
}

/// What `bytes` begin with. They are not empty.
fn start(bytes: &[u8]) -> Start {
    match bytes {
        [ESC] => Start::Incomplete,
        [ESC, b'[' | b'O'] => Start::Incomplete,
        // Linux's console has its own for F1 to F5.
        [ESC, b'[', b'['] => Start::Incomplete,
        [ESC, b'[', b'[', letter @ b'A'..=b'E', ..] => {
            let number = u16::from(letter.saturating_sub(b'A'));
            Start::Complete(4, Some(key(F1.saturating_add(number), 0)))
        }
        [ESC, b'[', rest @ ..] => sequence(rest),
        [ESC, b'O', letter, ..] => Start::Complete(3, key_of_letter(*letter)),
        // Of Escape and another key, as Alt is sent.
        [ESC, ..] => Start::Complete(1, Some(key(ESCAPE, 0))),
        [RUBOUT, ..] => Start::Complete(1, Some(key(0, BACKSPACE))),
        // No key has it.
        [0, ..] => Start::Complete(1, None),
        _ => character(bytes),
    }
}

/// A sequence after `ESC [`: parameters, then other bytes, then a last one (ECMA-48 5.4).
fn sequence(rest: &[u8]) -> Start {
    let last = (0..MOST_SEQUENCE).zip(rest).find(|(_, byte)| !matches!(byte, 0x20..=0x3f));
    let Some((end, &last)) = last else {
        return if rest.len() < MOST_SEQUENCE {
            Start::Incomplete
        } else {
            Start::Complete(MOST_SEQUENCE.saturating_add(2), None)
        };
    };
    let len = end.saturating_add(3);
    match last {
        b'~' => {
            let number = rest.iter().map_while(|byte| char::from(*byte).to_digit(10));
            let number = number.fold(0_u16, |number, digit| number.saturating_mul(10).saturating_add(digit as u16));
            let found = KEYS.iter().find(|(of, _)| *of == number);
            Start::Complete(len, found.map(|(_, code)| key(*code, 0)))
        }
        0x40..=0x7e => Start::Complete(len, key_of_letter(last)),
        // What cannot be in a sequence ends it, and counts by itself.
        _ => Start::Complete(len.saturating_sub(1), None),
    }
}

fn key_of_letter(letter: u8) -> Option<InputKey> {
    LETTERS.iter().find(|(of, _)| *of == letter).map(|(_, code)| key(*code, 0))
}

/// A character in UTF-8.
fn character(bytes: &[u8]) -> Start {
    let first = bytes.split_at_checked(4).map_or(bytes, |(first, _)| first);
    let chunk = first.utf8_chunks().next();
    let valid = chunk.as_ref().and_then(|chunk| chunk.valid().chars().next());
    if let Some(character) = valid {
        let unit = u16::try_from(u32::from(character)).ok();
        return Start::Complete(character.len_utf8(), unit.map(|unit| key(0, unit)));
    }
    let invalid = chunk.map_or(1, |chunk| chunk.invalid().len());
    // What is invalid up to the end may be the start of a character.
    let is_start =
        invalid == bytes.len() && core::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none());
    if is_start { Start::Incomplete } else { Start::Complete(invalid.max(1), None) }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn input(bytes: &[u8]) -> TextInput {
        let mut input = TextInput::new();
        bytes.iter().for_each(|byte| input.receive(*byte, 0));
        input
    }

    fn keys(input: &mut TextInput, now: Time) -> Vec<InputKey> {
        core::iter::from_fn(|| {
            let has_key = input.has_key(now);
            let key = input.read_key_stroke(now);
            assert_eq!(key.is_ok(), has_key);
            assert!(matches!(key, Ok(_) | Err(Status::NOT_READY)));
            key.ok()
        })
        .collect()
    }

    /// The codes of the keys of `bytes`, which have none without a code.
    #[track_caller]
    fn codes(bytes: &[u8]) -> Vec<u16> {
        let keys = keys(&mut input(bytes), 0);
        assert!(keys.iter().all(|key| key.unicode_char == 0), "{keys:?}");
        keys.iter().map(|key| key.scan_code).collect()
    }

    #[test]
    fn without_a_key_none_is_ready() {
        let mut input = TextInput::new();
        assert!(!input.has_key(0));
        assert_eq!(input.read_key_stroke(Time::MAX), Err(Status::NOT_READY));
    }

    #[test]
    fn characters_are_keys_in_their_order() {
        let keys = keys(&mut input("a\r\n\t\u{3}Zé→".as_bytes()), 0);
        let expected: Vec<_> = "a\r\n\t\u{3}Zé→".encode_utf16().map(|unit| key(0, unit)).collect();
        assert_eq!(keys, expected);
    }

    #[test]
    fn the_key_backspace_is_one_character_whatever_the_terminal_sends() {
        assert_eq!(keys(&mut input(b"\x7f\x08"), 0), [key(0, 8); 2]);
    }

    #[test]
    fn every_way_to_send_a_key_is_known() {
        assert_eq!(codes(b"\x1b[A\x1b[B\x1b[C\x1b[D"), [UP, DOWN, RIGHT, LEFT]);
        assert_eq!(codes(b"\x1bOA\x1bOB\x1bOC\x1bOD"), [UP, DOWN, RIGHT, LEFT]);
        assert_eq!(codes(b"\x1b[H\x1bOH\x1b[1~\x1b[7~"), [HOME; 4]);
        assert_eq!(codes(b"\x1b[F\x1bOF\x1b[4~\x1b[8~"), [END; 4]);
        assert_eq!(codes(b"\x1b[2~\x1b[3~\x1b[5~\x1b[6~"), [INSERT, DELETE, PAGE_UP, PAGE_DOWN]);
        let first_five: Vec<_> = (F1..F1 + 5).collect();
        assert_eq!(codes(b"\x1bOP\x1bOQ\x1bOR\x1bOS\x1b[15~"), first_five);
        assert_eq!(codes(b"\x1b[11~\x1b[12~\x1b[13~\x1b[14~\x1b[15~"), first_five);
        assert_eq!(codes(b"\x1b[[A\x1b[[B\x1b[[C\x1b[[D\x1b[[E"), first_five);
        let others: Vec<_> = (F1 + 5..=F1 + 11).collect();
        assert_eq!(codes(b"\x1b[17~\x1b[18~\x1b[19~\x1b[20~\x1b[21~\x1b[23~\x1b[24~"), others);
        assert_eq!(F1 + 11, 0x16);
    }

    #[test]
    fn a_key_with_a_modifier_is_the_key() {
        assert_eq!(codes(b"\x1b[1;5A\x1b[3;2~\x1b[15;5~\x1b[1;2P"), [UP, DELETE, F1 + 4, F1]);
    }

    #[test]
    fn a_sequence_without_a_key_is_dropped() {
        assert_eq!(codes(b"\x1b[99~\x1b[200~\x1b[99999999999~\x1b[Z\x1bOz\x1b[?1;2c\x1b[A"), [UP]);
        // One that goes on for ever, and one that something else interrupts.
        let long = [b"\x1b[".as_slice(), &[b'1'; MOST_SEQUENCE], b"\x1b[A"].concat();
        assert_eq!(codes(&long), [UP]);
        assert_eq!(codes(b"\x1b[1;\x1b[A"), [UP]);
    }

    #[test]
    fn an_escape_alone_is_a_key_after_a_while() {
        let mut input = input(&[ESC]);
        assert_eq!(input.read_key_stroke(PATIENCE - 1), Err(Status::NOT_READY));
        assert_eq!(input.read_key_stroke(PATIENCE), Ok(key(ESCAPE, 0)));
        assert_eq!(input.read_key_stroke(PATIENCE), Err(Status::NOT_READY));
    }

    #[test]
    fn a_sequence_may_come_in_pieces() {
        let mut input = TextInput::new();
        for (number, byte) in b"\x1b[15~".iter().enumerate() {
            let now = number as Time * (PATIENCE - 1);
            assert!(!input.has_key(now));
            input.receive(*byte, now);
        }
        assert_eq!(input.read_key_stroke(u64::MAX), Ok(key(F1 + 4, 0)));
    }

    #[test]
    fn a_sequence_that_does_not_go_on_is_the_keys_that_were_pressed() {
        let expected = [key(ESCAPE, 0), key(0, b'['.into()), key(0, b'1'.into())];
        assert_eq!(keys(&mut input(b"\x1b[1"), PATIENCE), expected);
        assert_eq!(keys(&mut input(b"\x1bx"), 0), [key(ESCAPE, 0), key(0, b'x'.into())]);
        assert_eq!(keys(&mut input(b"\x1b\x1b[A"), 0), [key(ESCAPE, 0), key(UP, 0)]);
    }

    #[test]
    fn bytes_that_are_no_character_are_dropped() {
        assert_eq!(
            keys(&mut input(b"\0\xff\x80\xc3a\xf0\x9f\x90\xa7b\xe2\x86"), 0),
            [b'a', b'b'].map(|c| key(0, c.into()))
        );
        // The start of a character is not waited for without end.
        let mut input = input(b"\xe2\x86");
        assert!(!input.has_key(0));
        input.receive(b'x', PATIENCE);
        assert_eq!(keys(&mut input, PATIENCE), [key(0, b'x'.into())]);
    }

    #[test]
    fn a_reset_forgets_what_was_not_read() {
        let mut input = input(b"abc\x1b[");
        input.reset();
        assert_eq!(input, TextInput::new());
    }

    #[test]
    fn what_has_no_room_is_lost() {
        let mut input = input(&[b'x'; MOST_BYTES]);
        assert!(!input.has_room());
        input.receive(b'y', 0);
        assert_eq!(keys(&mut input, 0), [key(0, b'x'.into()); MOST_BYTES]);
        assert!(input.has_room());
    }

    #[test]
    fn what_a_terminal_answers_is_not_pressed_and_a_lone_escape_is() {
        for answer in ["\x1bP2$r0m\x1b\\", "\x1b[24;80R", "\x1b]11;rgb:0000/2222\x07", "\x1b[?62;4c", "2\x1b[0n"] {
            let mut input = TextInput::new();
            for (now, byte) in answer.bytes().enumerate() {
                // It comes in pieces, between which somebody looks.
                input.receive(byte, now as Time);
                let pressed = input.pressed(now as Time).is_some();
                assert_eq!(pressed, now == 0 && byte == b'2', "{answer:?}");
            }
            let later = answer.len() as Time + PATIENCE;
            assert_eq!(input.pressed(later), None, "{answer:?}");
            input.receive(b'2', later + 1);
            assert_eq!(input.pressed(later + 1), Some(key(0, b'2'.into())));
            input.receive(ESC, later + 2);
            input.receive(ESC, later + 3);
            assert_eq!(input.pressed(later + 3 + PATIENCE), Some(key(ESCAPE, 0)));
            assert_eq!(input.pressed(later + 3 + PATIENCE), Some(key(ESCAPE, 0)));
        }
    }

    proptest! {
        #[test]
        fn reading_ends_and_leaves_nothing_after_a_while(bytes in prop::collection::vec(prop_oneof![Just(ESC), Just(b'['), Just(b'O'), Just(b'1'), any::<u8>()], 0..MOST_BYTES)) {
            let mut input = input(&bytes);
            let at_once = keys(&mut input, 0);
            let later = keys(&mut input, PATIENCE);
            prop_assert!(input.bytes.is_empty());
            prop_assert!(at_once.len() + later.len() <= bytes.len());
            prop_assert!(at_once.iter().chain(&later).all(|key| (key.scan_code == 0) != (key.unicode_char == 0)));
        }
    }
}
