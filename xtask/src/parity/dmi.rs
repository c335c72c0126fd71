//! What `dmidecode` prints: the structures, field by field.

use super::fact::Facts;

const SECTION: &str = "dmi";

/// Reads it. A structure is known by its type's name and its handle.
pub fn read(text: &str, facts: &mut Facts) {
    let mut structure = String::new();
    let mut handle = "";
    let mut list = "";
    for line in text.lines() {
        let depth = line.len() - line.trim_start_matches('\t').len();
        let line = line.trim();
        match depth {
            _ if line.is_empty() => {}
            0 if line.starts_with("Handle ") => {
                let mut parts = line.split(", ");
                handle = parts.next().unwrap_or_default();
                facts.add(SECTION, handle, parts.collect::<Vec<_>>().join(", "));
                structure.clear();
            }
            0 if handle.is_empty() => head(line, facts),
            // The line after a handle.
            0 => structure = format!("{line} ({})", handle.trim_start_matches("Handle ")),
            1 => match line.split_once(':') {
                Some((key, "")) => list = key,
                Some((key, value)) => facts.add(SECTION, format!("{structure} / {key}"), value.trim()),
                None => facts.mark(SECTION, format!("{structure} / {line}")),
            },
            _ => facts.mark(SECTION, format!("{structure} / {list} / {line}")),
        }
    }
}

/// The lines before the first structure, such as `9 structures occupying 376 bytes.` How long they are follows from the
/// structures themselves, and where they are is firmware's choice.
fn head(line: &str, facts: &mut Facts) {
    match line.split_once(" structures occupying ") {
        Some((count, _)) => facts.add(SECTION, "structures", count),
        None if line.starts_with("Table at ") => {}
        None => facts.mark(SECTION, line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = "# dmidecode 3.4\nGetting SMBIOS data from sysfs.\nSMBIOS 2.8 present.\n\
        9 structures occupying 376 bytes.\nTable at 0x000F5A20.\n\nHandle 0x0000, DMI type 0, 24 bytes\nBIOS Information\n\
        \tVendor: SeaBIOS\n\tCharacteristics:\n\t\tTargeted content distribution is supported\n\tBIOS Revision: 0.0\n";

    #[test]
    fn fields_and_the_items_of_lists_are_facts() {
        let mut facts = Facts::default();
        read(PRINTED, &mut facts);
        for (key, value) in [
            ("SMBIOS 2.8 present.", "there"),
            ("structures", "9"),
            ("Handle 0x0000", "DMI type 0, 24 bytes"),
            ("BIOS Information (0x0000) / Vendor", "SeaBIOS"),
            ("BIOS Information (0x0000) / BIOS Revision", "0.0"),
            ("BIOS Information (0x0000) / Characteristics / Targeted content distribution is supported", "there"),
        ] {
            assert_eq!(facts.get(SECTION, key), Some(value), "{key}");
        }
    }
}
