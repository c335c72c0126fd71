//! Prints the differences: those that are not intended, unused entries of the list and, on request, the rest.

use std::collections::BTreeMap;

use xtask::progress::say;

use super::{Difference, Found, Judgement};

/// Of a longer value, only the part around the first difference is shown.
const SHOWN: usize = 120;

/// How many characters before the first difference are shown.
const BEFORE: usize = 24;

/// Prints a judgement of differences from the firmware `other`, those that are intended only on request.
pub fn print(judgement: &Judgement<'_>, other: &str, intended: bool) {
    if intended {
        let mut reasons: BTreeMap<&str, Vec<Found<'_>>> = BTreeMap::new();
        for (entry, found) in &judgement.intended {
            reasons.entry(entry.reason.trim()).or_default().push(*found);
        }
        for (reason, found) in reasons {
            say(&format!("\nIntended: {}", reason.replace('\n', " ")));
            lines(&found, other).iter().for_each(|line| say(line));
        }
    }
    if !judgement.unintended.is_empty() {
        say("\nNot intended:");
        lines(&judgement.unintended, other).iter().for_each(|line| say(line));
    }
    if !judgement.stale.is_empty() {
        say("\nIn the list, but not found:");
        for stale in &judgement.stale {
            say(&format!("  {stale}"));
        }
    }
    say(&format!(
        "\n{} differences are intended{}, {} are not.",
        judgement.intended.len(),
        if intended { "" } else { " (--intended shows them)" },
        judgement.unintended.len()
    ));
}

/// The differences by section and by the machines that have them. A difference on several machines is shown once.
fn lines(found: &[Found<'_>], peer: &str) -> Vec<String> {
    let mut machines: BTreeMap<_, Vec<&str>> = BTreeMap::new();
    for (machine, difference) in found {
        let Difference { section, key, other, firstlight } = difference;
        machines.entry((section, key, other, firstlight)).or_default().push(machine);
    }
    let mut blocks: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for ((section, key, other, firstlight), machines) in machines {
        let [other, firstlight] = shown(other, firstlight);
        let heading = format!("  {section} on {}: {peer} | Firstlight", machines.join(", "));
        blocks.entry(heading).or_default().push(format!("    {key}: {other} | {firstlight}"));
    }
    blocks.into_iter().flat_map(|(heading, lines)| std::iter::once(heading).chain(lines)).collect()
}

/// The two values, shortened in the same way.
fn shown(other: &str, firstlight: &str) -> [String; 2] {
    let values = [other, firstlight].map(|value| value.chars().collect::<Vec<_>>());
    let [a, b] = &values;
    let same = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let start = if a.len().max(b.len()) > SHOWN { same.saturating_sub(BEFORE) } else { 0 };
    values.map(|value| {
        let all: String = value.iter().skip(start).take(SHOWN).collect();
        let before = if start > 0 { format!("[{start} characters] ") } else { String::new() };
        let after = if value.len() > start + SHOWN { " …" } else { "" };
        format!("{before}{all}{after}")
    })
}
