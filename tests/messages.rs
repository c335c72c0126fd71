//! The firmware's messages are for the users of every host: a QEMU option follows QEMU's name, and is never the only advice.
//!
//! The test searches the sources, because no run prints all messages.

use std::fs;
use std::path::{Path, PathBuf};

/// The sources of the image.
fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("a file").path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if ["tests", "fake", "known_hosts"].contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs" || extension == "s") {
            into.push(path);
        }
    }
}

/// The string literals of `source`, without what is in comments or in its unit tests.
fn literals(source: &str) -> Vec<String> {
    let code = source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let is_code = |line: &&str| !line.trim_start().starts_with("//") && !line.starts_with('#');
    let code: String = code.lines().filter(is_code).map(|line| format!("{line}\n")).collect();
    let mut characters = code.chars().peekable();
    let (mut literals, mut open) = (Vec::new(), None::<String>);
    while let Some(character) = characters.next() {
        match (character, &mut open) {
            ('\\', Some(text)) => match characters.next() {
                // The line goes on in the next one.
                Some('\n') => while characters.next_if(|character| character.is_whitespace()).is_some() {},
                Some(escaped) => text.push(escaped),
                None => {}
            },
            ('\'', None) if characters.peek() == Some(&'"') => {
                characters.next();
            }
            ('"', Some(_)) => literals.extend(open.take()),
            ('"', None) => open = Some(String::new()),
            (character, Some(text)) => text.push(character),
            (_, None) => {}
        }
    }
    literals
}

/// The first word that is a QEMU option, or a property of a machine or a device, without QEMU's name before it.
fn option_of_nobody(text: &str) -> Option<&str> {
    let is_option = |word: &str| {
        let name = word.trim_start_matches('(').strip_prefix('-');
        let is_property = word.contains('=') && word.starts_with(|first: char| first.is_ascii_lowercase());
        name.is_some_and(|name| name.starts_with(|first: char| first.is_ascii_lowercase())) || is_property
    };
    let at = text.split_ascii_whitespace().position(is_option)?;
    let words: Vec<_> = text.split_ascii_whitespace().collect();
    let is_named = words[..at].iter().any(|word| word.contains("QEMU"));
    (!is_named).then_some(words[at])
}

#[test]
fn every_qemu_option_in_a_message_follows_qemus_name() {
    let mut paths = Vec::new();
    sources(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")), &mut paths);
    let mut options = 0;
    for path in paths {
        for text in literals(&fs::read_to_string(&path).expect("a source")) {
            // Not code for an assembler.
            if text.split_ascii_whitespace().count() < 4 || text.contains('\n') {
                continue;
            }
            assert_eq!(option_of_nobody(&text), None, "{}: {text}", path.display());
            options += usize::from(text.contains("QEMU"));
        }
    }
    assert!(options >= 8, "only {options} texts name QEMU: are the sources read?");
}

#[test]
fn an_option_without_qemus_name_is_found() {
    for text in [
        "give it more memory (-m)",
        "RAM is too large; give -machine max-ram-below-4g=2G",
        "try smbios-entry-point-type=64 for the machine",
        "give fewer (-device) or smaller ones (QEMU: -device)",
    ] {
        assert!(option_of_nobody(text).is_some(), "{text}");
    }
    for text in ["start it anew (QEMU: -no-reboot)", "a dash - is none, nor is well-known", "{x} = 1 holds"] {
        assert_eq!(option_of_nobody(text), None, "{text}");
    }
    let source = "let a = \"one (-m)\"; // \n// \"two\"\n\"three \\\n    four\"; '\"'; \"five\"";
    assert_eq!(literals(source), ["one (-m)", "three four", "five"]);
}
