//! The kernel's log, every line with its level, as a set.
//!
//! Lines are compared without their times and without numbers: addresses, sizes and clock rates differ between boots, and other
//! sections compare their meaning exactly. The addresses of PCI functions are kept. The order is not compared, because much of a
//! boot runs in parallel.

use std::sync::LazyLock;

use regex_lite::{Captures, Regex};

use super::fact::Facts;

/// The section of these facts.
pub const SECTION: &str = "log";

/// Words of the lines that depend on the host's load: an emulated CPU loses time to other processes, and the kernel notices.
const HOST_LOAD: [&str; 18] = [
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
    // Its offset from the start of the time-stamp counter has either sign.
    "sched_clock: Marking stable",
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

/// The message with each number replaced by `#`, and its unit if it has one. The kernel numbers input devices as it finds them.
fn masked(message: &str) -> String {
    static WORD: LazyLock<Regex> =
        LazyLock::new(|| regex(r"([[:xdigit:]]{4}:[[:xdigit:]]{2}(:[[:xdigit:]]{2}\.[[:xdigit:]])?)|[[:alnum:]]+"));
    static NUMBER: LazyLock<Regex> = LazyLock::new(|| {
        let unit = "K|M|G|kB|KB|MB|GB|ns|us|ms|s|MHz";
        regex(&format!("^(?:0x[[:xdigit:]]+|[0-9][[:xdigit:]]{{5,}}|(input)[0-9]+|[0-9]+({unit})?)$"))
    });
    // The first group is the address of a PCI function (`0000:00:1f.2`) or of a bus (`0000:00`).
    let word = |found: &Captures<'_>| match found.get(1) {
        Some(address) => address.as_str().to_owned(),
        None => NUMBER.replace(&found[0], "${1}#${2}").into_owned(),
    };
    WORD.replace_all(message, word).into_owned()
}

fn regex(text: &str) -> Regex {
    Regex::new(text).expect("a correct expression")
}

#[cfg(test)]
mod tests {
    use super::super::fact::differences;
    use super::*;

    #[test]
    fn lines_about_the_clock_of_a_busy_host_are_left_out() {
        let mut facts = Facts::default();
        read(
            "<6>[    0.120404] sched_clock: Marking stable (2096012160, -4024192)->(2093015680, -1027712)",
            &mut facts,
        );
        assert_eq!(differences(&facts, &Facts::default()), []);
    }

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
