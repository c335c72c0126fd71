//! `/proc/interrupts`: which interrupts there are, and how they come. How often is not compared.

use super::fact::Facts;

const SECTION: &str = "interrupts";

/// Reads the table. Its head names the CPUs.
pub fn read(text: &str, facts: &mut Facts) {
    let mut lines = text.lines();
    let cpus = lines.next().unwrap_or_default().split_whitespace().count();
    facts.add(SECTION, "CPUs", cpus.to_string());
    for line in lines {
        let Some((number, rest)) = line.split_once(':') else { continue };
        let words: Vec<_> = rest.split_whitespace().collect();
        let words = words.get(cpus..).unwrap_or_default();
        match words {
            // The kernel numbers these as they come; which they are says the name.
            [kind @ "PCI-MSI", source, name @ ..] => {
                facts.add(SECTION, format!("{kind} {}", name.join(" ")), *source);
            }
            _ => facts.add(SECTION, number.trim(), words.join(" ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_numbers_of_messages_are_left_out() {
        let text = "           CPU0       CPU1\n  9:          0         12   IO-APIC   9-fasteoi   acpi\n \
            27:          5          0   PCI-MSI 524288-edge      virtio0-config\nERR:          0\n\
            LOC:        508        649   Local timer interrupts\n";
        let mut facts = Facts::default();
        read(text, &mut facts);
        assert_eq!(facts.get(SECTION, "CPUs"), Some("2"));
        assert_eq!(facts.get(SECTION, "9"), Some("IO-APIC 9-fasteoi acpi"));
        assert_eq!(facts.get(SECTION, "PCI-MSI virtio0-config"), Some("524288-edge"));
        assert_eq!(facts.get(SECTION, "LOC"), Some("Local timer interrupts"));
        assert_eq!(facts.get(SECTION, "ERR"), Some(""));
    }
}
