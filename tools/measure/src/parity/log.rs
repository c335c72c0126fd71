//! The kernel's log, every line with its level, as a set.
//!
//! Lines are compared without their times and without numbers: addresses, sizes and clock rates differ between boots, and other
//! sections compare their meaning exactly. The addresses of PCI functions are kept. The order is not compared, because much of a
//! boot runs in parallel.

use super::fact::Facts;

const SECTION: &str = "log";

/// Words of the lines that depend on the host's load: an emulated CPU loses time to other processes, and the kernel notices.
const HOST_LOAD: [&str; 17] = [
    " usecs",
    "random: crng init done",
    "hpet: Lost",
    "APIC calibration not consistent",
    "APIC delta adjusted",
    "hrtimer: interrupt took",
    "perf: interrupt took too long",
    "rcu: INFO:",
    "sched: RT throttling",
    "clocksource: timekeeping watchdog",
    "clocksource: Long readout interval",
    "Marking clocksource",
    "hogged CPU",
    "tsc: Fast TSC calibration",
    "tsc: Detected",
    "Refined TSC clocksource calibration",
    "calibrate_delay_direct()",
];

/// Reads the output of `dmesg -r`.
pub fn read(text: &str, facts: &mut Facts) {
    for line in text.lines() {
        // `<6>[    0.120404] HPET: 3 timers in total`
        let Some((level, rest)) = line.split_once('>') else { continue };
        let message = rest.split_once("] ").map_or(rest, |(_, message)| message);
        if !HOST_LOAD.iter().any(|about| message.contains(about)) {
            facts.mark(SECTION, format!("{level}> {}", masked(message)));
        }
    }
}

/// The message with each number replaced by `#`.
fn masked(message: &str) -> String {
    let mut masked = String::new();
    let mut rest = message;
    while let Some(first) = rest.chars().next() {
        let function = pci_address(rest);
        let length = match function {
            Some(length) => length,
            None if first.is_ascii_alphanumeric() => {
                rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len())
            }
            None => first.len_utf8(),
        };
        let (word, after) = rest.split_at(length);
        masked.push_str(&if function.is_some() { word.to_owned() } else { number_masked(word) });
        rest = after;
    }
    masked
}

/// The length of a PCI function's address (`0000:00:1f.2`) or a bus's (`0000:00`), if the text begins with one.
fn pci_address(text: &str) -> Option<usize> {
    let form = |form: &str| {
        let fits = |(c, f): (u8, u8)| if f == b'x' { c.is_ascii_hexdigit() } else { c == f };
        let enough = text.len() >= form.len() && text.bytes().zip(form.bytes()).all(fits);
        enough.then_some(form.len())
    };
    form("xxxx:xx:xx.x").or_else(|| form("xxxx:xx"))
}

/// For a number, `#` and its unit if it has one; for any other word, the word.
fn number_masked(word: &str) -> String {
    // The kernel numbers input devices as it finds them.
    if word.strip_prefix("input").is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
    {
        return "input#".to_owned();
    }
    let hexadecimal = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let digits = word.bytes().take_while(u8::is_ascii_digit).count();
    if word.strip_prefix("0x").is_some_and(hexadecimal) || (word.len() >= 6 && digits > 0 && hexadecimal(word)) {
        return "#".to_owned();
    }
    match &word[digits..] {
        unit @ ("" | "K" | "M" | "G" | "kB" | "KB" | "MB" | "GB" | "ns" | "us" | "ms" | "s" | "MHz") if digits > 0 => {
            format!("#{unit}")
        }
        _ => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_masked_and_pci_addresses_are_not() {
        for (message, wanted) in [
            ("pci 0000:00:1f.2: BAR 5 [mem 0xfebd5000-0xfebd5fff]", "pci 0000:00:1f.2: BAR # [mem #-#]"),
            ("pci_bus 0000:00: root bus resource [bus 80-81]", "pci_bus 0000:00: root bus resource [bus #-#]"),
            ("Memory: 219832K/523764K available", "Memory: #K/#K available"),
            ("tsc: Detected 2596.148 MHz processor", "tsc: Detected #.# MHz processor"),
            ("serio: i8042 KBD port at 0x60,0x64 irq 1", "serio: i8042 KBD port at #,# irq #"),
            ("input: Mouse as /devices/input/input3", "input: Mouse as /devices/input/input#"),
            ("ACPI: PM-Timer IO Port: 0x608", "ACPI: PM-Timer IO Port: #"),
            ("x86/PAT: WB  WC  UC- UC", "x86/PAT: WB  WC  UC- UC"),
            ("é 1", "é #"),
        ] {
            assert_eq!(masked(message), wanted);
        }
    }
}
