//! What `lspci -vv -n` prints: every function, its resources, and its capabilities.
//!
//! A flag such as `Mem+` is a separate fact. Addresses are masked, because firmware chooses them. Whether a range has an address,
//! its size, and whether the function decodes it are compared.

use super::fact::Facts;

const SECTION: &str = "pci";

/// Ports below this belong to ISA and the chipset, and firmware does not choose them.
const FIRST_PCI_PORT: u64 = 0x1000;

/// Reads the output.
pub fn read(text: &str, facts: &mut Facts) {
    let mut function = "";
    // The labels of the lines that a deeper line belongs to, by depth.
    let mut labels: Vec<String> = Vec::new();
    for line in text.lines() {
        let depth = line.len() - line.trim_start_matches('\t').len();
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        if depth == 0 {
            let (address, identity) = line.split_once(' ').unwrap_or((line, ""));
            (function, labels) = (address, Vec::new());
            facts.add(SECTION, function, identity);
            continue;
        }
        let (label, value) = split(line);
        labels.truncate(depth - 1);
        if let Some(label) = label {
            labels.push(label);
        }
        add(&format!("{function} {}", labels.join(" / ")), value, facts);
    }
}

/// The label and the value of a line. A line without a label continues the previous one.
fn split(line: &str) -> (Option<String>, &str) {
    if let Some(capability) = line.strip_prefix("Capabilities: ") {
        // `Capabilities: [80] MSI: Enable- Count=1/1`: the name of the capability belongs to the label.
        let end = capability.find(": ").unwrap_or(capability.len());
        let name = &capability[..end];
        // `Express (v2) Root Port (Slot+), MSI 00`: the first word is the name, and the rest is compared.
        let short: Vec<_> = name.split(' ').take(2).collect();
        let short = short.join(" ");
        let rest = capability[short.len()..].trim_start_matches(':').trim();
        return (Some(short), rest);
    }
    // `Expansion ROM at feb40000 [disabled] [size=256K]`, without a colon.
    if let Some(place) = line.strip_prefix("Expansion ROM ") {
        return (Some("Expansion ROM".to_owned()), place);
    }
    match line.split_once(':') {
        Some((label, value)) if !label.contains([',', '=']) => (Some(label.to_owned()), value.trim()),
        _ => (None, line),
    }
}

fn add(key: &str, value: &str, facts: &mut Facts) {
    let mut rest = Vec::new();
    for word in masked(key, value) {
        let bare = word.trim_end_matches([',', ';']);
        let flag = bare
            .strip_suffix(['+', '-'])
            .filter(|name| name.starts_with(|c: char| c.is_ascii_alphanumeric() || "<>".contains(c)));
        match flag {
            Some(name) => facts.add(SECTION, format!("{key} / {name}"), &bare[name.len()..]),
            None => rest.push(word),
        }
    }
    if !rest.is_empty() {
        facts.add(SECTION, key, rest.join(" "));
    }
}

/// The words of a value, with `#` for addresses that firmware chooses.
fn masked(key: &str, value: &str) -> Vec<String> {
    // `I/O behind bridge: 1000-1fff`, `Address: 00000000fee01000`: the first word of the value.
    let first = key.ends_with("behind bridge") || key.ends_with("MSI / Address");
    let mut after = "";
    value
        .split_whitespace()
        .map(|word| {
            let place = match after {
                // `Memory at fd000000 (32-bit`, `I/O ports at c040 [size=32]`
                "at" | "Data:" => Some(word),
                "" if first => word.split('-').next(),
                _ => None,
            };
            let address = place.and_then(|digits| u64::from_str_radix(digits, 16).ok());
            let fixed = value.starts_with("I/O ports") && address.is_some_and(|address| address < FIRST_PCI_PORT);
            after = word;
            if address.is_some() && !fixed { "#".to_owned() } else { word.to_owned() }
        })
        .collect()
}
