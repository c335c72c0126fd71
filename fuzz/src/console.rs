//! The console of images on a terminal: keys from bytes, and text to it.
//!
//! Input: the number of bytes of the text, the text in UTF-16, and bytes from a terminal, each with when it comes.

use firstlight::efi::protocols::text_input::{PATIENCE, TextInput};
use firstlight::efi::protocols::text_output::{COLUMNS, ROWS, TextOutput};
use uefi_raw::protocol::console::InputKey;

use crate::input::Input;

/// Writes the text, and reads the keys. The terminal gets no control character but those of the protocol. The cursor stays on the
/// screen. Each key has a code or a character. Who looks for a key all the time gets the same keys as who looks later. After a
/// while, nothing is left.
///
/// # Panics
/// When that is not so.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let text: Vec<u16> = input.short().as_chunks().0.iter().map(|unit| u16::from_le_bytes(*unit)).collect();
    let (mut output, mut terminal) = (TextOutput::new(), String::new());
    let is_whole = output.output_string(&text, &mut terminal).is_ok();
    assert_eq!(output.test_string(&text).is_ok(), is_whole);
    let is_known = |character: char| matches!(character, '\u{8}' | '\t' | '\n' | '\r') || !character.is_control();
    assert!(terminal.chars().all(is_known), "{terminal:?}");
    let mode = output.mode();
    assert!((0..COLUMNS as i32).contains(&mode.cursor_column) && (0..ROWS as i32).contains(&mode.cursor_row));

    let (mut eager, mut lazy, mut at_once, mut later) = (TextInput::new(), TextInput::new(), Vec::new(), Vec::new());
    let (mut now, mut received) = (0, 0_usize);
    while !input.is_empty() {
        let (byte, wait): (u8, u8) = (input.take(), input.take());
        if wait > 0xf0 {
            // One reads up to here in any case.
            now += PATIENCE;
            at_once.extend(keys(&mut eager, now));
            later.extend(keys(&mut lazy, now));
        } else if !lazy.has_room() {
            later.extend(keys(&mut lazy, now));
        }
        eager.receive(byte, now);
        lazy.receive(byte, now);
        received += 1;
        at_once.extend(keys(&mut eager, now));
    }
    now += PATIENCE;
    at_once.extend(keys(&mut eager, now));
    later.extend(keys(&mut lazy, now));
    assert!(later.len() <= received);
    assert_eq!(at_once, later);
    let mut fresh = TextInput::new();
    fresh.receive(b'x', now);
    eager.receive(b'x', now);
    assert_eq!(keys(&mut eager, now), keys(&mut fresh, now));
}

fn keys(input: &mut TextInput, now: u64) -> Vec<InputKey> {
    let mut keys = Vec::new();
    while input.has_key(now) {
        let key = input.read_key_stroke(now).expect("a key that is there");
        assert!((key.scan_code == 0) != (key.unicode_char == 0), "{key:?}");
        keys.push(key);
    }
    assert!(input.read_key_stroke(now).is_err());
    keys
}

/// Text with what cannot be shown; keys of all kinds.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let keys: [&[u8]; 6] = [
        b"a\r\x7f",
        b"\x1b[A\x1bOH\x1b[3~",
        b"\x1b",
        b"\x1b[1;5C\x1b[[A\x1b[24~",
        "é→🐧".as_bytes(),
        b"\x1b[99999~\x1b[\x1b\xff\0",
    ];
    let texts = ["", "EFI stub: ok\r\n", "a\u{1b}[2J┌\u{8}\t🐧", "x"];
    let seed = |(text, keys): (&str, &[u8])| {
        let text: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let keys = keys.iter().zip(0..).flat_map(|(&key, index)| [key, if index == 1 { 0xf1 } else { 0 }]);
        [text.len() as u8].into_iter().chain(text).chain(keys).collect()
    };
    texts.into_iter().cycle().zip(keys).map(seed).collect()
}
