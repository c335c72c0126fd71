//! ACPI code, as far as is needed to compare it: the objects of a table's namespace, each with its bytes.
//!
//! Lengths of packages are left out, since they follow from what is inside. Resource lists (`_CRS`) are compared entry by
//! entry, so that a window's addresses can be told from the rest. Methods, fields and packages are compared as bytes. What
//! is not understood is compared as bytes to the end of what it is in, so that nothing is left out.
//!
//! Sections are of the ACPI specification 6.5: chapter 20 has the encoding of the code, 6.4 that of resources.

use super::acpi::{SECTION, digits};
use super::fact::Facts;

/// How deep scopes are followed; real tables have some ten.
const MOST_DEPTH: usize = 32;

/// Names whose value is an address that firmware chose: of the generation identifier's page and of nvdimm's.
const ADDRESSES: [&str; 2] = ["VGIA", "MEMA"];

/// Reads the code of `table`.
pub fn read(table: &str, code: &[u8], extra_roots: bool, facts: &mut Facts) {
    Reader { table, extra_roots, facts }.terms(code, "", 0);
}

struct Reader<'a> {
    table: &'a str,
    extra_roots: bool,
    facts: &'a mut Facts,
}

/// What can stand in a scope (20.2.5).
enum Term<'a> {
    /// A scope, device or processor: its name, its own bytes, and what is in it.
    Inner(String, &'a [u8], &'a [u8]),
    /// A name and its value, encoded.
    Name(String, &'a [u8]),
    /// Anything else: what it is called, and its bytes.
    Other(String, &'a [u8]),
}

impl Reader<'_> {
    fn terms(&mut self, mut code: &[u8], path: &str, depth: usize) {
        while !code.is_empty() {
            let Some((term, rest)) = term(code).filter(|_| depth < MOST_DEPTH) else {
                self.add(path, "not understood", &digits(code));
                return;
            };
            match term {
                Term::Inner(name, own, inner) => {
                    let path = joined(path, &name);
                    self.add(&path, "scope", &format!("there {}", digits(own)));
                    self.terms(inner, &path, depth + 1);
                }
                Term::Name(name, value) => self.name(&joined(path, &name), &name, value),
                Term::Other(name, bytes) => self.add(&joined(path, &name), "", &digits(bytes)),
            }
            code = rest;
        }
    }

    fn name(&mut self, path: &str, name: &str, value: &[u8]) {
        if ADDRESSES.contains(&name) {
            return self.add(path, "", "an address");
        }
        let resources =
            (name == "_CRS").then(|| buffer(value)).flatten().and_then(|bytes| resources(bytes, self.extra_roots));
        match resources {
            Some(list) => list.iter().for_each(|resource| self.add(path, "", resource)),
            None => self.add(path, "", &digits(value)),
        }
    }

    fn add(&mut self, path: &str, what: &str, value: &str) {
        let key = [self.table, path, what].iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>();
        self.facts.add(SECTION, key.join(" "), value);
    }
}

/// A name within a scope.
fn joined(path: &str, name: &str) -> String {
    if name.starts_with('\\') || path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// The first term of the code, and what follows it.
fn term(code: &[u8]) -> Option<(Term<'_>, &[u8])> {
    let inner = |from: usize, fixed: usize| {
        let (package, rest) = package(code.get(from..)?)?;
        let (name, inner) = name_string(package)?;
        let (own, inner) = inner.split_at_checked(fixed)?;
        Some((Term::Inner(name, own, inner), rest))
    };
    let whole = |what: &str, from: usize| {
        let (package, rest) = package(code.get(from..)?)?;
        let (name, bytes) = name_string(package)?;
        Some((Term::Other(format!("{name} {what}"), bytes), rest))
    };
    // A term of a name and some bytes.
    let short = |what: &str, from: usize, length: usize| {
        let (name, rest) = name_string(code.get(from..)?)?;
        let (bytes, rest) = rest.split_at_checked(length)?;
        Some((Term::Other(format!("{name} {what}"), bytes), rest))
    };
    match code {
        [0x08, rest @ ..] => {
            let (name, rest) = name_string(rest)?;
            let (value, rest) = rest.split_at_checked(data_length(rest)?)?;
            Some((Term::Name(name, value), rest))
        }
        [0x10, ..] => inner(1, 0),
        [0x14, ..] => whole("method", 1),
        [0x15, ..] => short("external", 1, 2),
        [0x5b, 0x01, ..] => short("mutex", 2, 1),
        [0x5b, 0x02, ..] => short("event", 2, 0),
        [0x5b, 0x80, rest @ ..] => {
            let (_, after) = name_string(rest)?;
            let offset = data_length(after.get(1..)?)?;
            let length = data_length(after.get(1 + offset..)?)?;
            short("region", 2, 1 + offset + length)
        }
        [0x5b, 0x81, ..] => whole("field", 2),
        [0x5b, 0x82, ..] => inner(2, 0),
        // A processor has a number, and the address and the length of its registers.
        [0x5b, 0x83, ..] => inner(2, 6),
        _ => None,
    }
}

/// What is in a package that begins with its length (20.2.4), and what follows it.
fn package(code: &[u8]) -> Option<(&[u8], &[u8])> {
    let lead = *code.first()?;
    let more = usize::from(lead >> 6);
    let length = match more {
        0 => usize::from(lead & 0x3f),
        // These two bits are zero.
        _ if lead & 0x30 != 0 => return None,
        _ => {
            let bytes = code.get(1..=more)?.iter().rev();
            bytes.fold(0, |length, byte| length << 8 | usize::from(*byte)) << 4 | usize::from(lead & 0x0f)
        }
    };
    Some((code.get(1 + more..length)?, code.get(length..)?))
}

/// A name (20.2.2), and what follows it.
fn name_string(code: &[u8]) -> Option<(String, &[u8])> {
    let prefix = code.iter().take_while(|byte| matches!(byte, b'\\' | b'^')).count();
    let (prefix, rest) = code.split_at_checked(prefix)?;
    let (count, rest) = match rest {
        [0x00, rest @ ..] => (0, rest),
        [0x2e, rest @ ..] => (2, rest),
        [0x2f, count, rest @ ..] => (usize::from(*count), rest),
        _ => (1, rest),
    };
    let (segments, rest) = rest.split_at_checked(count * 4)?;
    if !segments.iter().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b'_') {
        return None;
    }
    let segments: Vec<_> = segments.chunks_exact(4).map(String::from_utf8_lossy).collect();
    Some((format!("{}{}", String::from_utf8_lossy(prefix), segments.join(".")), rest))
}

/// How many bytes a constant, a string, a buffer or a package has (20.2.3).
fn data_length(code: &[u8]) -> Option<usize> {
    match code.first()? {
        0x00 | 0x01 | 0xff => Some(1),
        0x0a => Some(2),
        0x0b => Some(3),
        0x0c => Some(5),
        0x0e => Some(9),
        0x0d => code.iter().position(|byte| *byte == 0).map(|end| end + 1),
        0x11..=0x13 => package(&code[1..]).map(|(_, rest)| code.len() - rest.len()),
        _ => None,
    }
}

/// The bytes of a buffer whose length is a constant, and that of the bytes that are there (20.2.5.4).
fn buffer(value: &[u8]) -> Option<&[u8]> {
    let [0x11, rest @ ..] = value else { return None };
    let (inner, _) = package(rest)?;
    let (length, bytes) = inner.split_at_checked(data_length(inner)?)?;
    let length = match length {
        [0x0a, length] => usize::from(*length),
        [0x0b, low, high] => usize::from(u16::from_le_bytes([*low, *high])),
        _ => return None,
    };
    (length == bytes.len()).then_some(bytes)
}

/// The entries of a resource list. With `extra_roots`, the addresses of memory and I/O windows are left out, and so is how
/// many of a kind follow each other.
fn resources(mut bytes: &[u8], extra_roots: bool) -> Option<Vec<String>> {
    let mut list = Vec::new();
    while let Some(tag) = bytes.first() {
        // A large entry has a length of two bytes, a small one has it in its first byte (6.4.2, 6.4.3).
        let length = match tag & 0x80 {
            0 => 1 + usize::from(tag & 7),
            _ => 3 + usize::from(u16::from_le_bytes([*bytes.get(1)?, *bytes.get(2)?])),
        };
        let (entry, rest) = bytes.split_at_checked(length)?;
        let text = window(entry, extra_roots).unwrap_or_else(|| digits(entry));
        if !(extra_roots && list.last() == Some(&text)) {
            list.push(text);
        }
        bytes = rest;
    }
    Some(list)
}

/// An address space (6.4.3.5): memory, I/O or bus numbers, with numbers of 2, 4 or 8 bytes.
fn window(entry: &[u8], mask: bool) -> Option<String> {
    let width = match entry.first()? {
        0x88 => 2,
        0x87 => 4,
        0x8a => 8,
        _ => return None,
    };
    let kind = match entry.get(3)? {
        0 => "memory",
        1 => "I/O",
        2 => "buses",
        _ => return None,
    };
    let flags = digits(entry.get(4..6)?);
    // Granularity, least, greatest, translation, length.
    let number = |which: usize| {
        let bytes = entry.get(6 + which * width..6 + (which + 1) * width)?;
        Some(bytes.iter().rev().fold(0, |number: u64, byte| number << 8 | u64::from(*byte)))
    };
    if mask && kind != "buses" {
        return Some(format!("{kind} flags {flags}"));
    }
    let rest = digits(entry.get(6 + 5 * width..)?);
    let numbers = [number(0)?, number(3)?, number(4)?].map(|number| format!("{number:#x}")).join(" ");
    Some(format!("{kind} {:#x}-{:#x} flags {flags} others {numbers} {rest}", number(1)?, number(2)?))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::fact::differences;
    use super::*;

    fn facts(code: &[u8], extra_roots: bool) -> Facts {
        let mut facts = Facts::default();
        read("DSDT", code, extra_roots, &mut facts);
        facts
    }

    /// A package with its length, of a length that takes two bytes.
    fn packed(inner: &[u8]) -> Vec<u8> {
        let length = inner.len() + 2;
        let lead = 0x40 | u8::try_from(length & 0xf).unwrap();
        [&[lead, u8::try_from(length >> 4).unwrap()], inner].concat()
    }

    fn device(name: &[u8; 4], inner: &[u8]) -> Vec<u8> {
        [&[0x5b, 0x82][..], &packed(&[name, inner].concat())].concat()
    }

    fn crs(resources: &[u8]) -> Vec<u8> {
        let length = u8::try_from(resources.len()).unwrap();
        [b"\x08_CRS\x11", packed(&[&[0x0a, length], resources].concat()).as_slice()].concat()
    }

    /// A window of memory with numbers of four bytes.
    fn memory(least: u32, greatest: u32) -> Vec<u8> {
        let numbers = [0, least, greatest, 0, greatest - least + 1];
        [&[0x87, 23, 0, 0, 0x0c, 1][..], &numbers.map(u32::to_le_bytes).concat()].concat()
    }

    const END: [u8; 2] = [0x79, 0];

    #[test]
    fn a_window_is_found_by_its_path_whatever_is_around_it() {
        let code = |windows: &[Vec<u8>]| device(b"PCI0", &crs(&[windows.concat(), END.to_vec()].concat()));
        let one = code(&[memory(0xc000_0000, 0xfebf_ffff)]);
        let wanted = "memory 0xc0000000-0xfebfffff flags 0c01 others 0x0 0x0 0x3ec00000 , 7900";
        assert_eq!(facts(&one, false).get(SECTION, "DSDT PCI0._CRS"), Some(wanted));
        assert_eq!(facts(&one, true).get(SECTION, "DSDT PCI0._CRS"), Some("memory flags 0c01, 7900"));

        let two = code(&[memory(0xc000_0000, 0xdfff_ffff), memory(0xe000_0000, 0xfebf_ffff)]);
        assert_eq!(differences(&facts(&one, false), &facts(&two, false)).len(), 1);
        assert_eq!(differences(&facts(&one, true), &facts(&two, true)), []);
        let none = code(&[]);
        assert_eq!(differences(&facts(&one, true), &facts(&none, true)).len(), 1);
    }

    #[test]
    fn addresses_that_firmware_chose_are_no_difference_and_other_names_are() {
        let named = |name: &str, value: u8| [b"\x08", name.as_bytes(), &[0x0c, value, 0, 0, 0]].concat();
        for (name, count) in [("VGIA", 0), ("MEMA", 0), ("_UID", 1)] {
            assert_eq!(
                differences(&facts(&named(name, 1), false), &facts(&named(name, 2), false)).len(),
                count,
                "{name}"
            );
        }
    }

    #[test]
    fn code_that_is_not_understood_is_compared_as_bytes() {
        for code in [&[0xa0, 0x03, 0x01, 0x02][..], &[0x10], &[0x10, 0x3f, 0x00], &[0x08, 0x61], &[0x5b]] {
            let wanted = digits(code);
            assert_eq!(facts(code, false).get(SECTION, "DSDT not understood"), Some(wanted.as_str()));
        }
    }

    #[test]
    fn scopes_without_end_are_not_followed_for_ever() {
        let mut code = vec![0x08, b'A'];
        for _ in 0..40 {
            code = device(b"DEEP", &code);
        }
        let found = facts(&code, false);
        assert!(found.get(SECTION, &format!("DSDT {} not understood", vec!["DEEP"; 32].join("."))).is_some());
    }

    #[test]
    fn any_changed_byte_of_qemus_own_table_is_seen() {
        // The first table of those that QEMU gives on q35, from the golden data, is the FACS, the second the DSDT.
        let tables = fs::read(crate::paths::root().join("tests/data/q35/tables")).unwrap();
        let start = tables.windows(4).position(|bytes| bytes == b"DSDT").unwrap();
        let length = u32::from_le_bytes(tables[start + 4..start + 8].try_into().unwrap());
        let code = &tables[start + 36..start + usize::try_from(length).unwrap()];
        let whole = facts(code, false);
        assert!(whole.get(SECTION, "DSDT \\_SB_.PCI0._CRS").is_some(), "{whole:?}");
        assert!(!format!("{whole:?}").contains("not understood"), "{whole:?}");
        for at in (0..code.len()).step_by(31) {
            let mut changed = code.to_vec();
            changed[at] ^= 0x20;
            assert!(!differences(&whole, &facts(&changed, false)).is_empty(), "byte {at:#x}");
        }
    }
}
