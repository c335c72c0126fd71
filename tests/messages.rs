//! The firmware's messages are for the users of every host: a QEMU option follows QEMU's name, and is never the only advice. Each
//! error and warning has a row in `docs/troubleshooting.md`.
//!
//! The tests search the sources, because no run prints all messages.

use std::collections::{BTreeMap, BTreeSet};
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

/// All sources of the image, each with its path.
fn all_sources() -> Vec<(PathBuf, String)> {
    let mut paths = Vec::new();
    sources(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")), &mut paths);
    let read = |path: PathBuf| {
        let source = fs::read_to_string(&path).expect("a source");
        (path, source)
    };
    paths.into_iter().map(read).collect()
}

/// The string literals of `source`, without what is in comments or in its unit tests.
fn literals(source: &str) -> Vec<String> {
    literals_in_code(source).into_iter().map(|(_, literal)| literal).collect()
}

/// The string literals of `source`, each behind the code since the one before, without spaces.
fn literals_in_code(source: &str) -> Vec<(String, String)> {
    let code = source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    // In assembly, a line that begins with # is a comment.
    let is_code =
        |line: &&str| !line.trim_start().starts_with("//") && (!line.starts_with('#') || line.starts_with("#[error("));
    let code: String = code.lines().filter(is_code).map(|line| format!("{line}\n")).collect();
    let mut characters = code.chars().peekable();
    let (mut literals, mut open, mut before) = (Vec::new(), None::<String>, String::new());
    while let Some(character) = characters.next() {
        match (character, &mut open) {
            ('\\', Some(text)) => match characters.next() {
                // The line goes on in the next one.
                Some('\n') => while characters.next_if(|character| character.is_whitespace()).is_some() {},
                Some('r' | 'n') => {}
                Some(escaped) => text.push(escaped),
                None => {}
            },
            ('\'', None) if characters.peek() == Some(&'"') => {
                characters.next();
            }
            ('"', Some(_)) => literals.extend(open.take().map(|text| (std::mem::take(&mut before), text))),
            ('"', None) => open = Some(String::new()),
            (character, Some(text)) => text.push(character),
            (character, None) if character.is_whitespace() => {}
            (character, None) => before.push(character),
        }
    }
    literals
}

/// What the code before a literal ends with that is a message, or a part of one.
const BEFORE_MESSAGES: [&str; 8] = [
    "#[error(",
    "warn!(",
    "error!(",
    "report(",
    "warn(format_args!(",
    "add(format_args!(",
    "report(format_args!(",
    "text=format_args!(",
];

/// The errors and warnings in `source`, as the page has them. Messages that consist of others only are left out.
fn messages(source: &str) -> Vec<String> {
    let is_message = |(before, text): &(String, String)| {
        let text = text.trim_start_matches("firstlight: error: ");
        BEFORE_MESSAGES.iter().any(|end| before.ends_with(end))
            || text.starts_with("CPU ")
            || text.starts_with("the CPU ")
    };
    let texts = literals_in_code(source).into_iter().filter(is_message).map(|(_, text)| as_on_the_page(&text));
    texts.filter(|text| text.contains(|character: char| character.is_alphabetic())).collect()
}

/// A literal with … for each argument, and without what joins it to the text around it.
fn as_on_the_page(literal: &str) -> String {
    let mut text = String::new();
    let mut rest = literal;
    while let Some((before, behind)) = rest.split_once('{') {
        text += before;
        text.push('…');
        rest = behind.split_once('}').map_or("", |(_, behind)| behind);
    }
    text += rest;
    text.trim_matches([' ', ',', ':', ';']).to_owned()
}

/// The messages of the page: the code in the first cell of each row of its tables.
fn rows(page: &str) -> Vec<String> {
    let tables = page.split("| message | cause | remedy |\n|---|---|---|\n").skip(1);
    let rows = tables.flat_map(|table| table.lines().take_while(|line| line.starts_with('|')));
    let cell = |row: &'_ str| row.split(" | ").next().unwrap_or_default().to_owned();
    rows.flat_map(|row| cell(row).split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()).collect()
}

#[test]
fn every_error_and_warning_has_a_row_in_the_page_on_troubleshooting() {
    let page = include_str!("../docs/troubleshooting.md");
    let rows = rows(page);
    let named: BTreeSet<_> = rows.iter().cloned().collect();
    assert_eq!(rows.len(), named.len(), "a message has two rows");
    let (mut all, mut missing) = (BTreeSet::new(), BTreeMap::new());
    for (path, source) in all_sources() {
        all.extend(literals(&source).iter().map(|literal| as_on_the_page(literal)));
        for message in messages(&source).into_iter().filter(|message| !named.contains(message)) {
            missing.insert(message, path.clone());
        }
    }
    assert!(missing.is_empty(), "messages without a row in docs/troubleshooting.md: {missing:#?}");
    let unknown: Vec<_> = named.iter().filter(|row| !all.contains(*row)).collect();
    assert!(unknown.is_empty(), "rows of docs/troubleshooting.md that no message of the sources has: {unknown:#?}");
    assert!(named.len() > 200, "only {} messages: are the sources read?", named.len());
}

#[test]
fn a_message_is_found_however_it_is_written() {
    let source = "#[error(\n    \"one {0:#x} \\\n     of two\"\n)]\n#[error(\"a struct's\")]\ncrate::warn!(\"{error}\"); \
                  crate::warn!(\n\"{name}: no way\"); x.warn(format_args!(\"rare {n}\")); crate::info!(\"no message\");";
    assert_eq!(messages(source), ["one … of two", "a struct's", "…: no way", "rare …"]);
    assert_eq!(
        messages(".asciz \"firstlight: error: the CPU has no x\\r\\n\""),
        ["firstlight: error: the CPU has no x"]
    );
    let page = "| message | cause | remedy |\n|---|---|---|\n| `a`<br>`b …` | c `d` | e |\n\n| `no` | x |\n";
    assert_eq!(rows(page), ["a", "b …"]);
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
    let mut options = 0;
    for (path, source) in all_sources() {
        for text in literals(&source) {
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
